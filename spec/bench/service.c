/*
 * service.c - the TCP service behind every row of the bench: answers each request with its data,
 * and one whose pattern says "count" with the number of events that came so far.
 *
 * Speaks as much of Nest's TCP frames (nest-wire 2.2) as the bench writes: ASCII only, so a length
 * counts bytes, and packets in the order pattern, data, id, which both perigee and Nest keep. Cheap
 * on purpose: a row shall measure what stands in front of it. Prints "ready PORT"; ends with its
 * standard input.
 */
#include "wire.h"

static size_t events;

/* Where the last `"id":` starts: what follows the data. NULL: an event. */
static const char *find_id(const char *packet, size_t len) {
    const char *last = packet + (len > 64 ? len - 64 : 0); /* an id is short */
    for (const char *p = packet + len - 5; p >= last; p--)
        if (*p == '"' && !memcmp(p, "\"id\":", 5))
            return p;
    return NULL;
}

/*
 * {"pattern":P,"data":D,"id":I} gives {"response":D,"isDisposed":true,"id":I}; an event nothing.
 * Small ones leave together, a large one at once, not copied. False: the connection is gone.
 */
static bool answer(struct conn *c, const char *packet, size_t len) {
    static const char head[] = "{\"response\":", middle[] = ",\"isDisposed\":true,";
    const char *data = memmem(packet, len, ",\"data\":", 8), *id = find_id(packet, len);
    if (!id) {
        events++;
        return true;
    }
    if (!data || id < data) {
        fprintf(stderr, "service: a packet in another order: %.*s\n", (int)len, packet);
        exit(1);
    }
    bool is_count = memmem(packet, (size_t)(data - packet), "count", 5);
    char digits[24], *end = digits + sizeof digits;
    const char *value = is_count ? write_decimal(end, events) : data + 8;
    size_t value_len = (size_t)((is_count ? end : id - 1) - value);
    size_t tail_len = (size_t)(packet + len - id);
    append_length(&c->out, sizeof head - 1 + value_len + sizeof middle - 1 + tail_len);
    append(&c->out, head, sizeof head - 1);
    if (value_len > SMALL_BYTES)
        return send_parts(c,
                          (struct iovec[]){{(char *)value, value_len},
                                           {(char *)middle, sizeof middle - 1},
                                           {(char *)id, tail_len}},
                          3);
    append(&c->out, value, value_len);
    append(&c->out, middle, sizeof middle - 1);
    append(&c->out, id, tail_len);
    return true;
}

/* Answers the whole frames, keeps the rest. False: not frames, or gone. */
static bool answer_frames(struct conn *c, const char *at, size_t at_len) {
    size_t pos = 0, len, need;
    const char *packet;
    int found;
    while ((found = next_frame(at, at_len, &pos, &packet, &len, &need)) > 0)
        if (!answer(c, packet, len))
            return false;
    keep(c, at, at_len, pos, need);
    return found == 0;
}

static bool on_ready(struct conn *c, uint32_t ready) {
    const char *at;
    size_t len;
    bool drained = false;
    int got = 1;
    if (ready & EPOLLOUT)
        c->is_full = false;
    while (got > 0 && (!drained || ready & EPOLLRDHUP)) {
        got = receive(c, &at, &len, &drained);
        if (got < 0 || (got > 0 && !answer_frames(c, at, len)) || !flush(c))
            return false;
    }
    return true;
}

int main(void) {
    int poll = epoll_create1(0), listener = listen_somewhere();
    int input = STDIN_FILENO;
    watch(poll, input, &input, EPOLLIN);
    watch(poll, listener, &listener, EPOLLIN);
    for (;;) {
        struct epoll_event ready[64];
        int n = epoll_wait(poll, ready, 64, -1);
        for (int i = 0; i < n; i++) {
            void *what = ready[i].data.ptr;
            if (what == &input)
                return 0;
            if (what == &listener)
                welcome(poll, listener);
            else if (!on_ready(what, ready[i].events))
                drop(what);
        }
    }
}
