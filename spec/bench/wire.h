/*
 * wire.h - what the bench's own programs share: buffers, connections on epoll, Nest's frames.
 *
 * A connection is watched once, edge-triggered: in steady state nothing but recv, send and one
 * epoll_wait per turn. Reads go to one shared buffer, and only what is not whole yet is kept with
 * its connection: ten thousand connections that wait own next to nothing.
 */
#ifndef PGE_BENCH_WIRE_H
#define PGE_BENCH_WIRE_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define READ_BYTES ((size_t)256 * 1024)
#define SMALL_BYTES ((size_t)16 * 1024) /* what is cheaper to copy than to pass in parts */
#define LENGTH_DIGITS 12

struct bytes {
    char *at; /* owned */
    size_t len, cap;
};

struct conn {
    int fd;
    struct bytes in, out; /* what is not whole yet; what the socket did not take yet */
    size_t need;          /* of in: before, nothing more is whole */
    size_t sent;          /* of out */
    bool is_full;         /* the socket: until it is told to be writable */
    unsigned call;        /* limit.c: who waits for which answer, 0 for none */
};

static char shared_in[READ_BYTES];

static inline void die(const char *what) {
    perror(what);
    exit(1);
}

static inline uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
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

/* A decimal that ends before `end`; where it starts. In a fifth of sprintf's time. */
static inline char *write_decimal(char *end, size_t n) {
    do
        *--end = (char)('0' + n % 10);
    while (n /= 10);
    return end;
}

/* "LENGTH#" of a Nest frame. */
static inline void append_length(struct bytes *b, size_t len) {
    char text[LENGTH_DIGITS * 2], *end = text + sizeof text - 1, *at = write_decimal(end, len);
    *end = '#';
    append(b, at, (size_t)(end + 1 - at));
}

/* A Nest frame at pos: 1; 0: more is needed, `need` bytes in all at least; -1 for no frame. */
static inline int next_frame(const char *in, size_t in_len, size_t *pos, const char **packet,
                             size_t *packet_len, size_t *need) {
    const char *at = in + *pos;
    size_t rest = in_len - *pos, digits = 0, len = 0;
    while (digits < rest && at[digits] >= '0' && at[digits] <= '9' && digits < LENGTH_DIGITS)
        len = len * 10 + (size_t)(at[digits++] - '0');
    *need = 0;
    if (digits == rest)
        return 0;
    if (digits == 0 || at[digits] != '#')
        return -1;
    if (rest - digits - 1 < len) {
        *need = digits + 1 + len;
        return 0;
    }
    *packet = at + digits + 1;
    *packet_len = len;
    *pos += digits + 1 + len;
    return 1;
}

static inline void watch(int poll, int fd, void *what, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = what};
    if (epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event))
        die("epoll_ctl");
}

/*
 * What has come on a connection, with what was left of before. 1: something to look at, and then
 * keep() says what of it is not used up; 0: nothing now; -1: the connection is gone. `drained`: the
 * socket has no more, or its end will be told.
 */
static inline int receive(struct conn *c, const char **at, size_t *len, bool *drained) {
    size_t room = READ_BYTES;
    char *to = shared_in;
    if (c->in.len) {
        room = c->need > c->in.len + SMALL_BYTES ? c->need - c->in.len : SMALL_BYTES;
        to = reserve(&c->in, room);
    }
    ssize_t n = recv(c->fd, to, room, 0);
    *drained = n < (ssize_t)room;
    if (n < 0 && errno == EAGAIN)
        return 0;
    if (n <= 0)
        return -1;
    *at = c->in.len ? c->in.at : shared_in;
    *len = c->in.len + (size_t)n;
    return 1;
}

static inline void keep(struct conn *c, const char *at, size_t len, size_t used, size_t need) {
    c->need = need;
    if (at == shared_in) {
        if (used < len)
            append(&c->in, at + used, len - used);
        return;
    }
    c->in.len = len;
    drop_front(&c->in, used);
}

/* Sends what is kept, as far as the socket takes it. False: the connection is gone. */
static inline bool flush(struct conn *c) {
    while (c->sent < c->out.len && !c->is_full) {
        ssize_t n = send(c->fd, c->out.at + c->sent, c->out.len - c->sent, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN)
            return false;
        c->is_full = n < 0;
        c->sent += n > 0 ? (size_t)n : 0;
    }
    if (c->sent > c->out.len / 2) { /* each byte is moved once at most */
        drop_front(&c->out, c->sent);
        c->sent = 0;
    }
    return true;
}

/* Sends parts without joining them first; what the socket does not take is kept. */
static inline bool send_parts(struct conn *c, struct iovec *parts, unsigned n) {
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = n};
    ssize_t sent = 0;
    if (!flush(c))
        return false;
    if (!c->is_full && (sent = sendmsg(c->fd, &message, MSG_NOSIGNAL)) < 0) {
        if (errno != EAGAIN)
            return false;
        sent = 0;
        c->is_full = true;
    }
    for (unsigned i = 0; i < n; i++) {
        size_t gone = (size_t)sent < parts[i].iov_len ? (size_t)sent : parts[i].iov_len;
        append(&c->out, (char *)parts[i].iov_base + gone, parts[i].iov_len - gone);
        sent -= (ssize_t)gone;
    }
    return flush(c);
}

/* The same for what is in one piece: send costs less than sendmsg. */
static inline bool send_all(struct conn *c, const char *at, size_t len) {
    if (!c->out.len && !c->is_full) {
        ssize_t n = send(c->fd, at, len, MSG_NOSIGNAL);
        if (n == (ssize_t)len)
            return true;
        if (n < 0 && errno != EAGAIN)
            return false;
        c->is_full = n < 0;
        at += n > 0 ? n : 0;
        len -= n > 0 ? (size_t)n : 0;
    }
    append(&c->out, at, len);
    return flush(c);
}

static inline struct conn *new_conn(int poll, int fd) {
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct conn *c = calloc(1, sizeof *c);
    if (!c)
        die("calloc");
    c->fd = fd;
    watch(poll, fd, c, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET);
    return c;
}

static inline int dial(int port) {
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                             .sin_port = htons((uint16_t)port)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&at, sizeof at))
        die("connect");
    return fd;
}

static inline void unblock(int fd) {
    if (fcntl(fd, F_SETFL, O_NONBLOCK))
        die("fcntl");
}

static inline void welcome(int poll, int listener) {
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0)
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
