/*
 * load.c - HTTP load over keep-alive connections, one request on each at a time.
 *
 *   load PORT PATH BODY_FILE ANSWER_FILE CONNECTIONS
 *
 * Posts the body once, writes what is answered to ANSWER_FILE and says "ready"; every later answer
 * must be that one. Then, to each line "MILLISECONDS RATE", a line of figures as JSON.
 *
 * RATE 0 is a closed loop: each connection asks again when it is answered. Else the loop is open:
 * RATE requests a second are due at fixed times, the connection that is idle longest takes the
 * next, and latency counts from when a request was due: waiting for a slow server is not hidden.
 */
#include <sys/prctl.h>
#include <sys/stat.h>

#include "histogram.h"
#include "wire.h"

enum { PATIENCE_S = 10, CHECKED_BYTES = 32 * 1024 }; /* of a larger answer its length is checked */

struct peer {
    int fd;
    size_t sent;       /* of the request */
    size_t left;       /* of the answer's body */
    struct bytes head; /* of the answer, while it is not whole */
    uint64_t since;    /* asked or due; 0: idle */
};

static int poll_fd;
static struct bytes request, answer; /* the first answer's body is what all must be */
static struct peer *peers, **idle;   /* idle: a ring */
static unsigned peer_count, idle_count, idle_first;
static struct histogram latencies;
static uint64_t now, stop_at;
static bool is_open;

static void fail(const char *what) {
    fprintf(stderr, "load: %s\n", what);
    exit(1);
}

static void rest(struct peer *p) {
    p->since = 0;
    idle[(idle_first + idle_count++) % peer_count] = p;
}

static struct peer *wake(void) {
    struct peer *p = idle[idle_first];
    idle_first = (idle_first + 1) % peer_count;
    idle_count--;
    return p;
}

static void send_on(struct peer *p) {
    while (p->sent < request.len) {
        ssize_t n = send(p->fd, request.at + p->sent, request.len - p->sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN)
            return; /* it will be told to be writable */
        if (n < 0)
            fail("a connection is closed before the request is sent");
        p->sent += (size_t)n;
    }
}

static void ask(struct peer *p, uint64_t since) {
    p->since = since;
    p->sent = 0;
    send_on(p);
}

static void on_answered(struct peer *p) {
    record(&latencies, now - p->since);
    if (is_open || now >= stop_at)
        rest(p);
    else
        ask(p, now);
}

/* The length of an answer's header, 0 when it is not whole. It must be good and have a length. */
static size_t read_head(const char *at, size_t len, size_t *body_len) {
    const char *end = memmem(at, len, "\r\n\r\n", 4), *line = at;
    if (!end)
        return 0;
    if (memcmp(at, "HTTP/1.1 200", 12) && memcmp(at, "HTTP/1.1 201", 12)) {
        fprintf(stderr, "%.*s\n", (int)(end - at), at);
        fail("an answer that is not good");
    }
    while ((line = memchr(line, '\n', (size_t)(end - line)))) {
        line++;
        if ((*line | 32) == 'c' && end - line > 15 && !strncasecmp(line, "content-length:", 15)) {
            *body_len = strtoul(line + 15, NULL, 10);
            return (size_t)(end + 4 - at);
        }
    }
    fprintf(stderr, "%.*s\n", (int)(end - at), at);
    fail("an answer without a length");
    return 0;
}

/* What of the answer's start has come. */
static void on_start(struct peer *p, const char *at, size_t len) {
    if (p->head.len) {
        append(&p->head, at, len);
        at = p->head.at;
        len = p->head.len;
    }
    size_t body_len, head = read_head(at, len, &body_len), have = len - head;
    if (!head) {
        if (!p->head.len)
            append(&p->head, at, len);
        return;
    }
    if (body_len != answer.len || have > body_len)
        fail("an answer of another length than the first");
    if (memcmp(at + head, answer.at, have < CHECKED_BYTES ? have : CHECKED_BYTES))
        fail("an answer that is not the first one");
    p->head.len = 0;
    p->left = body_len - have;
    if (!p->left)
        on_answered(p);
}

static void on_bytes(struct peer *p, const char *at, size_t len) {
    if (!p->since)
        fail("an answer to nothing");
    if (!p->left) {
        on_start(p, at, len);
        return;
    }
    if (len > p->left)
        fail("more than an answer");
    p->left -= len;
    if (!p->left)
        on_answered(p);
}

static void on_ready(struct peer *p, uint32_t ready) {
    if (ready & (EPOLLERR | EPOLLHUP | EPOLLRDHUP))
        fail("a connection is closed");
    send_on(p);
    ssize_t n = sizeof shared_in;
    while (ready & EPOLLIN && n == sizeof shared_in) {
        n = recv(p->fd, shared_in, sizeof shared_in, 0);
        if (n > 0)
            on_bytes(p, shared_in, (size_t)n);
        else if (n == 0 || errno != EAGAIN)
            fail("a connection is closed");
    }
}

/* Waits until something is ready, or something is due. */
static void turn(uint64_t due) {
    struct epoll_event ready[512];
    uint64_t wait = due > now ? due - now : 0, patience = (uint64_t)PATIENCE_S * 1000000000;
    if (!idle_count || wait > patience)
        wait = patience;
    struct timespec time = {(time_t)(wait / 1000000000), (long)(wait % 1000000000)};
    int n = epoll_pwait2(poll_fd, ready, 512, &time, NULL);
    if (n < 0)
        die("epoll_pwait2");
    if (n == 0 && wait == patience)
        fail("no answer for long");
    now = now_ns();
    for (int i = 0; i < n; i++)
        on_ready(ready[i].data.ptr, ready[i].events);
}

/* All that were due, or begun, before the end are waited for. */
static void run_closed(void) {
    while (idle_count)
        ask(wake(), now);
    while (idle_count < peer_count)
        turn(UINT64_MAX);
}

static void run_open(double rate) {
    double gap = 1e9 / rate, due = (double)now;
    while (due < (double)stop_at || idle_count < peer_count) {
        for (; due < (double)stop_at && due <= (double)now && idle_count; due += gap)
            ask(wake(), (uint64_t)due);
        turn(due < (double)stop_at ? (uint64_t)due : UINT64_MAX);
    }
}

static void run(unsigned ms, double rate) {
    memset(&latencies, 0, sizeof latencies);
    is_open = rate > 0;
    uint64_t begin = now = now_ns();
    stop_at = begin + (uint64_t)ms * 1000000;
    if (is_open)
        run_open(rate);
    else
        run_closed();
    printf("{\"requests\":%llu,\"seconds\":%.6f,\"p50_us\":%.1f,\"p99_us\":%.1f,\"p999_us\":%.1f,"
           "\"max_us\":%.1f}\n",
           (unsigned long long)latencies.total, (double)(now - begin) / 1e9,
           (double)percentile(&latencies, .5) / 1e3, (double)percentile(&latencies, .99) / 1e3,
           (double)percentile(&latencies, .999) / 1e3, (double)latencies.max / 1e3);
    fflush(stdout);
}

static void read_file(const char *name, struct bytes *into) {
    FILE *file = fopen(name, "r");
    struct stat about;
    if (!file || fstat(fileno(file), &about))
        die(name);
    into->len += fread(reserve(into, (size_t)about.st_size), 1, (size_t)about.st_size, file);
    fclose(file);
}

static void make_request(const char *path, const char *body_file) {
    struct bytes body = {0};
    read_file(body_file, &body);
    request.len = (size_t)snprintf(reserve(&request, 512), 512,
                                   "POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                                   "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
                                   path, body.len);
    append(&request, body.at, body.len);
    free(body.at);
}

/* On a connection that still blocks. */
static void ask_first(int fd, const char *answer_file) {
    struct bytes in = {0};
    size_t head = 0, body_len = 0;
    for (size_t sent = 0; sent < request.len;) {
        ssize_t n = send(fd, request.at + sent, request.len - sent, MSG_NOSIGNAL);
        if (n < 0)
            die("send");
        sent += (size_t)n;
    }
    while (!head || in.len < head + body_len) {
        ssize_t n = recv(fd, reserve(&in, READ_BYTES), READ_BYTES, 0);
        if (n <= 0)
            fail("no first answer");
        in.len += (size_t)n;
        head = head ? head : read_head(in.at, in.len, &body_len);
    }
    append(&answer, in.at + head, body_len);
    free(in.at);
    FILE *file = fopen(answer_file, "w");
    if (!file || fwrite(answer.at, 1, answer.len, file) != answer.len || fclose(file))
        die(answer_file);
}

static void open_peers(int port, const char *answer_file) {
    peers = calloc(peer_count, sizeof *peers);
    idle = calloc(peer_count, sizeof *idle);
    if (!peers || !idle)
        die("calloc");
    for (struct peer *p = peers; p < peers + peer_count; p++) {
        int on = 1;
        p->fd = dial(port);
        p->sent = request.len;
        setsockopt(p->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        if (p == peers)
            ask_first(p->fd, answer_file);
        unblock(p->fd);
        watch(poll_fd, p->fd, p, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET);
        rest(p);
    }
}

int main(int argc, char **argv) {
    char line[64];
    unsigned ms;
    double rate;
    if (argc < 6 || (peer_count = (unsigned)atoi(argv[5])) == 0)
        return 2;
    prctl(PR_SET_TIMERSLACK, 1UL); /* 50 us else: too late for what is due */
    poll_fd = epoll_create1(0);
    make_request(argv[2], argv[3]);
    open_peers(atoi(argv[1]), argv[4]);
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin) && sscanf(line, "%u %lf", &ms, &rate) == 2)
        run(ms, rate);
}
