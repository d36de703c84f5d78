/*
 * service.c - the TCP service behind every row of the bench: answers each request with its data.
 *
 * Speaks as much of Nest's TCP frames (nest-wire 2.2) as the bench writes: ASCII only, so a length
 * counts bytes, and packets in the order pattern, data, id, which both perigee and Nest keep. Cheap
 * on purpose: a row shall measure what stands in front of it. Prints "ready PORT"; ends with its
 * standard input.
 */
#include "wire.h"

/* Where the last `"id":` starts: what follows the data. */
static const char *find_id(const char *packet, size_t len) {
    for (const char *p = packet + len; p-- > packet;)
        if (*p == '"' && (size_t)(packet + len - p) > 5 && !memcmp(p, "\"id\":", 5))
            return p;
    return NULL;
}

/* {"pattern":P,"data":D,"id":I} gives {"response":D,"isDisposed":true,"id":I}; an event nothing. */
static void answer(struct conn *c, const char *packet, size_t len) {
    static const char head[] = "{\"response\":", middle[] = ",\"isDisposed\":true,";
    const char *data = memmem(packet, len, ",\"data\":", 8), *id = find_id(packet, len);
    if (!id)
        return;
    if (!data || id < data) {
        fprintf(stderr, "service: a packet in another order: %.*s\n", (int)len, packet);
        exit(1);
    }
    data += 8;
    size_t data_len = (size_t)(id - 1 - data), tail_len = (size_t)(packet + len - id);
    size_t total = sizeof head - 1 + data_len + sizeof middle - 1 + tail_len;
    c->out.len += (size_t)sprintf(reserve(&c->out, LENGTH_DIGITS * 2), "%zu#", total);
    append(&c->out, head, sizeof head - 1);
    append(&c->out, data, data_len);
    append(&c->out, middle, sizeof middle - 1);
    append(&c->out, id, tail_len);
}

/* Answers the whole frames, keeps the rest. False: not frames. */
static bool answer_frames(struct conn *c) {
    size_t pos = 0, len;
    const char *packet;
    int found;
    while ((found = next_frame(&c->in, &pos, &packet, &len)) > 0)
        answer(c, packet, len);
    drop_front(&c->in, pos);
    return found == 0;
}

static bool on_ready(int poll, struct conn *c, uint32_t events) {
    if (events & EPOLLOUT) {
        if (!flush(poll, c))
            return false;
        if (!c->out.len)
            watch(poll, c, EPOLL_CTL_MOD, EPOLLIN);
        return true;
    }
    ssize_t n = recv(c->fd, reserve(&c->in, READ_BYTES), READ_BYTES, 0);
    if (n < 0 && errno == EAGAIN)
        return true;
    if (n <= 0)
        return false;
    c->in.len += (size_t)n;
    return answer_frames(c) && flush(poll, c);
}

int main(void) {
    int poll = epoll_create1(0), listener = listen_somewhere();
    struct conn input = {.fd = STDIN_FILENO}, door = {.fd = listener};
    watch(poll, &input, EPOLL_CTL_ADD, EPOLLIN);
    watch(poll, &door, EPOLL_CTL_ADD, EPOLLIN);
    for (;;) {
        struct epoll_event events[64];
        int n = epoll_wait(poll, events, 64, -1);
        for (int i = 0; i < n; i++) {
            struct conn *c = events[i].data.ptr;
            if (c == &input)
                return 0;
            if (c == &door)
                welcome(poll, listener);
            else if (!on_ready(poll, c, events[i].events))
                drop(c);
        }
    }
}
