/*
 * service.c - the TCP service behind every row of the bench: answers each request with its data.
 *
 * Speaks as much of Nest's TCP frames (nest-wire 2.2) as the bench writes: ASCII only, so a length
 * counts bytes, and packets in the order pattern, data, id, which both perigee and Nest keep. Cheap
 * on purpose: a row shall measure what stands in front of it. Prints "ready PORT"; ends with its
 * standard input.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define READ_BYTES (256 * 1024)
#define LENGTH_DIGITS 12

struct bytes {
    char *at; /* owned */
    size_t len, cap;
};

struct conn {
    int fd;
    struct bytes in, out;
    size_t sent; /* of out */
};

static void die(const char *what) {
    perror(what);
    exit(1);
}

static char *reserve(struct bytes *b, size_t more) {
    if (b->cap - b->len < more) {
        b->cap = (b->len + more) * 2;
        b->at = realloc(b->at, b->cap);
        if (!b->at)
            die("realloc");
    }
    return b->at + b->len;
}

static void append(struct bytes *b, const char *from, size_t len) {
    memcpy(reserve(b, len), from, len);
    b->len += len;
}

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
    size_t pos = 0;
    while (pos < c->in.len) {
        const char *at = c->in.at + pos;
        size_t rest = c->in.len - pos, digits = 0, len = 0;
        while (digits < rest && at[digits] >= '0' && at[digits] <= '9' && digits < LENGTH_DIGITS)
            len = len * 10 + (size_t)(at[digits++] - '0');
        if (digits == rest)
            break;
        if (digits == 0 || at[digits] != '#')
            return false;
        if (rest - digits - 1 < len)
            break;
        answer(c, at + digits + 1, len);
        pos += digits + 1 + len;
    }
    memmove(c->in.at, c->in.at + pos, c->in.len - pos);
    c->in.len -= pos;
    return true;
}

static void watch(int poll, struct conn *c, int op, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = c};
    if (epoll_ctl(poll, op, c->fd, &event))
        die("epoll_ctl");
}

/* False: the connection is gone. */
static bool flush(int poll, struct conn *c) {
    while (c->sent < c->out.len) {
        ssize_t n = send(c->fd, c->out.at + c->sent, c->out.len - c->sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) {
            watch(poll, c, EPOLL_CTL_MOD, EPOLLOUT); /* no reading meanwhile */
            return true;
        }
        if (n < 0)
            return false;
        c->sent += (size_t)n;
    }
    c->sent = c->out.len = 0;
    return true;
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

static void drop(struct conn *c) {
    close(c->fd);
    free(c->in.at);
    free(c->out.at);
    free(c);
}

static void welcome(int poll, int listener) {
    int on = 1, fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
    if (fd < 0)
        return;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct conn *c = calloc(1, sizeof *c);
    if (!c)
        die("calloc");
    c->fd = fd;
    watch(poll, c, EPOLL_CTL_ADD, EPOLLIN);
}

static int listen_somewhere(void) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&at, len) || listen(fd, SOMAXCONN))
        die("listen");
    if (getsockname(fd, (struct sockaddr *)&at, &len))
        die("getsockname");
    printf("ready %d\n", ntohs(at.sin_port));
    fflush(stdout);
    return fd;
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
