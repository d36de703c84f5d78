/*
 * limit.c - the limit: what HTTP -> Nest TCP costs in sockets alone. One epoll loop, whole reads,
 * one write per connection and turn, a scan for the id and the response; no engine around it: no
 * checks, no timeouts, no bounds, no second host. Nobody could use it; nothing can be much faster.
 *
 *   limit PORT    a gateway to the service on that port
 *   limit         no gateway: answers each request with its body (what HTTP proxies are set before)
 */
#include "wire.h"

enum { MAX_CALLS = 4096 };

static int poll_fd;
static struct conn *service;
static struct conn *calls[MAX_CALLS]; /* who waits, by id */
static unsigned free_ids[MAX_CALLS], free_count;
static struct conn *queue[MAX_CALLS]; /* connections with output */
static unsigned queued;

static void send_later(struct conn *c) {
    if (c->is_queued || queued == MAX_CALLS)
        return;
    c->is_queued = true;
    queue[queued++] = c;
}

static void reply(struct conn *c, const char *body, size_t len) {
    c->out.len += (size_t)sprintf(reserve(&c->out, 160),
                                  "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
                                  "date: Sun, 06 Nov 1994 08:49:37 GMT\r\ncontent-length: %zu\r\n\r\n",
                                  len);
    append(&c->out, body, len);
    send_later(c);
}

static void ask(struct conn *c, const char *body, size_t len) {
    static const char head[] = "{\"pattern\":{\"cmd\":\"charge\"},\"data\":";
    char tail[40];
    if (!free_count)
        die("too many calls");
    unsigned id = free_ids[--free_count];
    size_t tail_len = (size_t)sprintf(tail, ",\"id\":\"%021u\"}", id);
    calls[id] = c;
    service->out.len += (size_t)sprintf(reserve(&service->out, LENGTH_DIGITS * 2), "%zu#",
                                        sizeof head - 1 + len + tail_len);
    append(&service->out, head, sizeof head - 1);
    append(&service->out, body, len);
    append(&service->out, tail, tail_len);
    send_later(service);
}

/* One request at a time: wrk does not pipeline. */
static bool on_request(struct conn *c) {
    char *end = memmem(c->in.at, c->in.len, "\r\n\r\n", 4);
    if (!end)
        return true;
    const char *length = memmem(c->in.at, (size_t)(end - c->in.at), "ontent-", 7); /* any case */
    while (length && (length[7] | 32) != 'l')
        length = memmem(length + 7, (size_t)(end - length - 7), "ontent-", 7);
    size_t head = (size_t)(end + 4 - c->in.at), len = length ? strtoul(length + 15, NULL, 10) : 0;
    if (c->in.len < head + len)
        return true;
    if (service)
        ask(c, end + 4, len);
    else
        reply(c, end + 4, len);
    drop_front(&c->in, head + len);
    return true;
}

/* {"response":R,"isDisposed":true,"id":"…"} */
static void on_packet(const char *packet, size_t len) {
    static const char head[] = "{\"response\":", tail[] = ",\"isDisposed\":true,\"id\":\"";
    const char *id = packet + len - 23, *end = id - (sizeof tail - 1);
    unsigned slot = (unsigned)strtoul(id, NULL, 10);
    if (slot >= MAX_CALLS || !calls[slot])
        die("unknown id");
    reply(calls[slot], packet + sizeof head - 1, (size_t)(end - packet) - (sizeof head - 1));
    calls[slot] = NULL;
    free_ids[free_count++] = slot;
}

static bool on_replies(struct conn *c) {
    size_t pos = 0, len;
    const char *packet;
    int found;
    while ((found = next_frame(&c->in, &pos, &packet, &len)) > 0)
        on_packet(packet, len);
    drop_front(&c->in, pos);
    return found == 0;
}

static bool on_ready(struct conn *c, uint32_t events) {
    if (events & EPOLLOUT) {
        if (!flush(poll_fd, c))
            return false;
        if (!c->out.len)
            watch(poll_fd, c, EPOLL_CTL_MOD, EPOLLIN);
        return true;
    }
    ssize_t n = recv(c->fd, reserve(&c->in, READ_BYTES), READ_BYTES, 0);
    if (n < 0 && errno == EAGAIN)
        return true;
    if (n <= 0)
        return false;
    c->in.len += (size_t)n;
    return c == service ? on_replies(c) : on_request(c);
}

static void forget(struct conn *c) {
    for (unsigned i = 0; i < MAX_CALLS; i++)
        if (calls[i] == c)
            calls[i] = NULL;
    for (unsigned i = 0; i < queued; i++)
        if (queue[i] == c)
            queue[i] = queue[--queued];
    drop(c);
}

static void dial(int port) {
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                             .sin_port = htons((uint16_t)port)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&at, sizeof at))
        die("connect");
    service = new_conn(poll_fd, fd);
    for (free_count = 0; free_count < MAX_CALLS; free_count++)
        free_ids[free_count] = MAX_CALLS - 1 - free_count;
}

int main(int argc, char **argv) {
    poll_fd = epoll_create1(0);
    if (argc > 1)
        dial(atoi(argv[1]));
    int listener = listen_somewhere();
    struct conn input = {.fd = STDIN_FILENO}, door = {.fd = listener};
    watch(poll_fd, &input, EPOLL_CTL_ADD, EPOLLIN);
    watch(poll_fd, &door, EPOLL_CTL_ADD, EPOLLIN);
    for (;;) {
        struct epoll_event events[64];
        int n = epoll_wait(poll_fd, events, 64, -1);
        for (int i = 0; i < n; i++) {
            struct conn *c = events[i].data.ptr;
            if (c == &input)
                return 0;
            if (c == &door)
                welcome(poll_fd, listener);
            else if (!on_ready(c, events[i].events))
                forget(c);
        }
        unsigned now = queued;
        queued = 0;
        for (unsigned i = 0; i < now; i++) {
            queue[i]->is_queued = false;
            if (!flush(poll_fd, queue[i]))
                shutdown(queue[i]->fd, SHUT_RDWR);
        }
    }
}
