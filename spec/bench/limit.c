/*
 * limit.c - the limit: what HTTP -> Nest TCP costs in sockets alone. One epoll loop, whole reads,
 * one write to the service per turn and one per answer, a scan for the id and the response; no
 * engine around it: no checks, no timeouts, no bounds, no second host. Nobody could use it; nothing
 * can be much faster.
 *
 *   limit PORT    a gateway to the service on that port
 *   limit         no gateway: answers each request with its body (what HTTP proxies are set before)
 */
#include "wire.h"

enum { MAX_CALLS = 16384, ID_DIGITS = 21 };

static struct conn *service;
static struct conn *calls[MAX_CALLS]; /* who waits, by id; NULL: gone meanwhile. 0 is no id */
static unsigned free_ids[MAX_CALLS], free_count;

static bool reply(struct conn *c, const char *body, size_t len) {
    static const char fixed[] = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
                                "date: Sun, 06 Nov 1994 08:49:37 GMT\r\ncontent-length: ";
    char text[sizeof fixed + 32 + SMALL_BYTES], digits[32], *end = digits + sizeof digits - 4;
    const char *start = write_decimal(end, len);
    size_t digits_len = (size_t)(end - start) + 4, head = sizeof fixed - 1 + digits_len;
    memcpy(end, "\r\n\r\n", 4);
    memcpy(text, fixed, sizeof fixed - 1);
    memcpy(text + sizeof fixed - 1, start, digits_len);
    if (len > SMALL_BYTES)
        return send_parts(c, (struct iovec[]){{text, head}, {(char *)body, len}}, 2);
    memcpy(text + head, body, len);
    return send_all(c, text, head + len);
}

static unsigned new_id(struct conn *c) {
    if (!free_count)
        die("too many calls");
    unsigned id = free_ids[--free_count];
    calls[id] = c;
    c->call = id;
    return id;
}

/* Small ones leave together at the end of the turn, a large one at once, not copied. */
static bool ask(struct conn *c, const char *body, size_t len) {
    static const char head[] = "{\"pattern\":{\"cmd\":\"charge\"},\"data\":";
    char tail[] = ",\"id\":\"000000000000000000000\"}";
    size_t tail_len = sizeof tail - 1;
    write_decimal(tail + tail_len - 2, new_id(c));
    append_length(&service->out, sizeof head - 1 + len + tail_len);
    append(&service->out, head, sizeof head - 1);
    if (len > SMALL_BYTES)
        return send_parts(service, (struct iovec[]){{(char *)body, len}, {tail, tail_len}}, 2);
    append(&service->out, body, len);
    append(&service->out, tail, tail_len);
    return true;
}

/* Of a header as long as `end - at`; 0 without one. */
static size_t content_length(const char *at, const char *end) {
    while ((at = memchr(at, '\n', (size_t)(end - at)))) {
        at++;
        if ((*at | 32) != 'c' || end - at < 16 || strncasecmp(at, "content-length:", 15))
            continue;
        size_t len = 0;
        for (at += 15; *at == ' ';)
            at++;
        while (*at >= '0' && *at <= '9')
            len = len * 10 + (size_t)(*at++ - '0');
        return len;
    }
    return 0;
}

/* One request at a time: the bench does not pipeline. */
static bool on_request(struct conn *c, const char *at, size_t len) {
    if (len < c->need) {
        keep(c, at, len, 0, c->need);
        return true;
    }
    const char *end = memmem(at, len, "\r\n\r\n", 4);
    size_t head = end ? (size_t)(end + 4 - at) : 0, body = end ? content_length(at, end) : 0;
    if (!end || len < head + body) {
        keep(c, at, len, 0, head + body);
        return true;
    }
    bool good = service ? ask(c, end + 4, body) : reply(c, end + 4, body);
    keep(c, at, len, head + body, 0);
    return good;
}

/* {"response":R,"isDisposed":true,"id":"…"} */
static void on_packet(const char *packet, size_t len) {
    static const char head[] = "{\"response\":", tail[] = ",\"isDisposed\":true,\"id\":\"";
    const char *id = packet + len - 2 - ID_DIGITS, *end = id - (sizeof tail - 1);
    unsigned slot = 0;
    for (unsigned i = 0; i < ID_DIGITS; i++)
        slot = slot * 10 + (unsigned)(id[i] - '0');
    if (!slot || slot >= MAX_CALLS)
        die("unknown id");
    struct conn *c = calls[slot];
    free_ids[free_count++] = slot;
    calls[slot] = NULL;
    if (!c)
        return;
    c->call = 0;
    if (!reply(c, packet + sizeof head - 1, (size_t)(end - packet) - (sizeof head - 1)))
        shutdown(c->fd, SHUT_RDWR); /* its end will be told */
}

static bool on_replies(struct conn *c, const char *at, size_t at_len) {
    size_t pos = 0, len, need;
    const char *packet;
    while (next_frame(at, at_len, &pos, &packet, &len, &need) > 0)
        on_packet(packet, len);
    keep(c, at, at_len, pos, need);
    return true;
}

static bool on_ready(struct conn *c, uint32_t ready) {
    const char *at;
    size_t len;
    bool drained = false;
    int got = 1;
    if (ready & EPOLLOUT)
        c->is_full = false;
    if (c->out.len && !flush(c))
        return false;
    while (got > 0 && (!drained || ready & EPOLLRDHUP)) {
        got = receive(c, &at, &len, &drained);
        if (got < 0 || (got > 0 && !(c == service ? on_replies : on_request)(c, at, len)))
            return false;
    }
    return true;
}

static void forget(struct conn *c) {
    if (c == service)
        die("service");
    calls[c->call] = NULL;
    drop(c);
}

static void connect_service(int poll, int port) {
    int fd = dial(port);
    unblock(fd);
    service = new_conn(poll, fd);
    for (unsigned id = MAX_CALLS - 1; id > 0; id--)
        free_ids[free_count++] = id;
}

int main(int argc, char **argv) {
    int poll = epoll_create1(0), input = STDIN_FILENO;
    if (argc > 1)
        connect_service(poll, atoi(argv[1]));
    int listener = listen_somewhere();
    watch(poll, input, &input, EPOLLIN);
    watch(poll, listener, &listener, EPOLLIN);
    for (;;) {
        struct epoll_event ready[256];
        int n = epoll_wait(poll, ready, 256, -1);
        for (int i = 0; i < n; i++) {
            void *what = ready[i].data.ptr;
            if (what == &input)
                return 0;
            if (what == &listener)
                welcome(poll, listener);
            else if (!on_ready(what, ready[i].events))
                forget(what);
        }
        if (service && service->out.len && !flush(service))
            die("service");
    }
}
