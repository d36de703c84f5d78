/* wire.h - what the bench's own servers share: growing buffers, connections on epoll. */
#ifndef PGE_BENCH_WIRE_H
#define PGE_BENCH_WIRE_H

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
    size_t sent;    /* of out */
    bool is_queued; /* limit.c: to be flushed at the end of the turn */
};

static inline void die(const char *what) {
    perror(what);
    exit(1);
}

static inline char *reserve(struct bytes *b, size_t more) {
    if (b->cap - b->len < more) {
        b->cap = (b->len + more) * 2;
        b->at = realloc(b->at, b->cap);
        if (!b->at)
            die("realloc");
    }
    return b->at + b->len;
}

static inline void append(struct bytes *b, const char *from, size_t len) {
    memcpy(reserve(b, len), from, len);
    b->len += len;
}

static inline void drop_front(struct bytes *b, size_t n) {
    memmove(b->at, b->at + n, b->len - n);
    b->len -= n;
}

/* A Nest frame at pos: 1, 0 for more is needed, -1 for no frame. */
static inline int next_frame(const struct bytes *in, size_t *pos, const char **packet,
                             size_t *packet_len) {
    const char *at = in->at + *pos;
    size_t rest = in->len - *pos, digits = 0, len = 0;
    while (digits < rest && at[digits] >= '0' && at[digits] <= '9' && digits < LENGTH_DIGITS)
        len = len * 10 + (size_t)(at[digits++] - '0');
    if (digits == rest)
        return 0;
    if (digits == 0 || at[digits] != '#')
        return -1;
    if (rest - digits - 1 < len)
        return 0;
    *packet = at + digits + 1;
    *packet_len = len;
    *pos += digits + 1 + len;
    return 1;
}

static inline void watch(int poll, struct conn *c, int op, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = c};
    if (epoll_ctl(poll, op, c->fd, &event))
        die("epoll_ctl");
}

/* False: the connection is gone. */
static inline bool flush(int poll, struct conn *c) {
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

static inline struct conn *new_conn(int poll, int fd) {
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct conn *c = calloc(1, sizeof *c);
    if (!c)
        die("calloc");
    c->fd = fd;
    watch(poll, c, EPOLL_CTL_ADD, EPOLLIN);
    return c;
}

static inline void welcome(int poll, int listener) {
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
    if (fd >= 0)
        new_conn(poll, fd);
}

static inline void drop(struct conn *c) {
    close(c->fd);
    free(c->in.at);
    free(c->out.at);
    free(c);
}

/* On a free port; says "ready PORT". */
static inline int listen_somewhere(void) {
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

#endif
