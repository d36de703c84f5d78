/*
 * listener.c - binding and accepting, for tcp and unix sockets, plain or under TLS.
 *
 *   kernel backlog --accept4--> fd --stream->accept--> conn --[tls: shaking]--> on_accept
 *
 * The socket is polled and accepted from here: uv_listen cannot be paused, and out of descriptors
 * it drops the newcomers that the backlog could have held.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* accept4 */
#endif
#include "net/stream.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "base/alloc.h"
#include "net/socket.h"
#include "net/tls.h"
#include "net/uvstream.h"

/* Out of descriptors or memory: accepting rests this long instead of spinning. */
enum { RETRY_MS = 100 };

/* So long one of several workers that has more connections than another leaves a newcomer to it. */
enum { YIELD_MS = 1 };

/* Newcomers taken per wake-up, so that those already connected get their turn. One, where other
 * workers wait on the same socket: a burst would all go to whoever wakes first. */
enum { MAX_ACCEPTS = 64 };

static void on_readable(uv_poll_t *poll, int status, int events);

/* Polls unless somebody paused it or it rests. The kernel reports what came meanwhile. */
static void poll_or_rest(struct pge_listener *l) {
    if (l->is_closing)
        return;
    if (l->is_paused || pge_timer_is_armed(&l->retry))
        uv_poll_stop(&l->uv.poll);
    else
        uv_poll_start(&l->uv.poll, UV_READABLE, on_readable);
}

static void on_retry(struct pge_timer *timer) {
    poll_or_rest(container_of(timer, struct pge_listener, retry));
}

static void rest(struct pge_listener *l, uint64_t ms) {
    pge_loop_timer(l->loop, &l->retry, ms); /* cannot fail: the listener holds the loop */
    poll_or_rest(l);
}

void pge_listener_count(struct pge_loop *loop, int more) {
    loop->accepted += (uint32_t)more;
    if (loop->sockets)
        loop->sockets->count(loop->sockets, loop->accepted);
}

/* Whoever wakes first would take most of a burst, and keep it. Once: the other may be busy. */
static bool should_yield(const struct pge_listener *l) {
    const struct pge_sockets *sockets = l->loop->sockets;
    return sockets && sockets->are_shared && !l->has_yielded &&
           sockets->has_more(sockets, l->loop->accepted);
}

static void take(struct pge_listener *l, int fd) {
    int status;
    struct pge_conn *conn = pge_conn_new(l->loop, l->stream, &status);
    if (!conn) {
        l->refused++;
        close(fd);
        return;
    }
    conn->is_accepted = true;
    pge_listener_count(l->loop, 1);
    status = l->stream->accept(l, conn, fd);
    if (status < 0) {
        l->refused++;
        close(fd);
        pge_conn_close(conn); /* events unset: silent */
    } else if (conn->is_open) {
        l->events->on_accept(l, conn);
    }
}

/* An error of the one connection that was waiting, not of the listener. */
static bool is_passing(int error) {
    return error == EINTR || error == ECONNABORTED || error == EPROTO || error == EPERM;
}

static void on_readable(uv_poll_t *poll, int status, int events) {
    struct pge_listener *l = container_of(poll, struct pge_listener, uv.poll);
    (void)status; /* accept4 says it too */
    (void)events;
    if (should_yield(l)) {
        l->has_yielded = true;
        rest(l, YIELD_MS);
        return;
    }
    l->has_yielded = false;
    int most = l->loop->sockets && l->loop->sockets->are_shared ? 1 : MAX_ACCEPTS;
    for (int i = 0; i < most && !l->is_closing && !l->is_paused; i++) {
        int fd = accept4(l->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            take(l, fd);
        } else if (errno == EAGAIN) {
            return;
        } else if (!is_passing(errno)) {
            rest(l, RETRY_MS);
            return;
        }
    }
}

static void on_closed(uv_handle_t *handle) {
    struct pge_listener *l = container_of(handle, struct pge_listener, uv.handle);
    struct pge_loop *loop = l->loop;
    l->events->on_close(l);
    pge_free(l);
    pge_loop_release(loop);
}

/* From the supervisor, where there is one: it binds, and all workers share the socket. */
static int open_socket(struct pge_listener *l, const struct pge_endpoint *at, int backlog) {
    struct pge_sockets *shared = l->loop->sockets;
    int fd = shared ? shared->open(shared, &at->addr.sa, backlog, &l->hold)
                    : pge_socket_listen(&at->addr.sa, backlog);
    if (fd < 0)
        return fd;
    l->fd = fd;
    if (at->addr.sa.sa_family == AF_UNIX) {
        snprintf(l->path, sizeof l->path, "%s", at->addr.un.sun_path);
        l->unlink_path = !shared;
    }
    return 0;
}

/* Newcomers are refused from here on, unless others share the socket. */
static void close_socket(struct pge_listener *l) {
    if (l->fd < 0)
        return;
    if (l->unlink_path)
        unlink(l->path);
    close(l->fd);
    l->fd = -1;
    if (l->loop->sockets)
        l->loop->sockets->close(l->loop->sockets, l->hold);
}

struct pge_listener *pge_listener_open(struct pge_loop *loop, const struct pge_endpoint *at,
                                       int backlog, const struct pge_listener_events *events,
                                       void *owner, int *status) {
    *status = pge_loop_hold(loop);
    if (*status < 0)
        return NULL;
    struct pge_listener *l = pge_calloc(1, sizeof *l);
    *status = l ? 0 : UV_ENOMEM;
    if (!l)
        goto fail;
    l->stream = at->stream;
    l->events = events;
    l->owner = owner;
    l->loop = loop;
    l->fd = -1;
    l->tls = at->tls;
    pge_list_init(&l->shaking);
    pge_timer_init(&l->retry, on_retry);
    *status = open_socket(l, at, backlog);
    if (*status == 0)
        *status = uv_poll_init_socket(loop->uv, &l->uv.poll, l->fd);
    if (*status < 0)
        goto fail;
    if (loop->adopt)
        loop->adopt(loop, &l->uv.handle);
    poll_or_rest(l);
    return l;
fail:
    if (l)
        close_socket(l);
    pge_free(l);
    pge_loop_release(loop);
    return NULL;
}

void pge_listener_address(const struct pge_listener *l, char *out, size_t size) {
    struct sockaddr_storage name;
    socklen_t len = sizeof name;
    if (l->path[0])
        snprintf(out, size, "%s", l->path);
    else if (getsockname(l->fd, (struct sockaddr *)&name, &len) == 0)
        pge_sockaddr_text((struct sockaddr *)&name, out, size);
    else
        snprintf(out, size, "?");
}

void pge_listener_pause(struct pge_listener *l) {
    l->is_paused = true;
    poll_or_rest(l);
}

void pge_listener_resume(struct pge_listener *l) {
    l->is_paused = false;
    poll_or_rest(l);
}

void pge_listener_close(struct pge_listener *l) {
    if (l->is_closing)
        return;
    l->is_closing = true;
    pge_loop_timer_stop(l->loop, &l->retry);
    while (!pge_list_is_empty(&l->shaking)) {
        struct pge_list *node = l->shaking.next;
        pge_list_remove(node);
        pge_tls_abort(node);
    }
    uv_close(&l->uv.handle, on_closed);
    close_socket(l); /* now, not in the callback */
}
