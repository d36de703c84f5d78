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
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "net/tls.h"
#include "net/uvstream.h"

/* Out of descriptors or memory: accepting rests this long instead of spinning. */
enum { RETRY_MS = 100 };

/* Newcomers taken per wake-up, so that those already connected get their turn. */
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

static void rest(struct pge_listener *l) {
    pge_loop_timer(l->loop, &l->retry, RETRY_MS); /* cannot fail: the listener holds the loop */
    poll_or_rest(l);
}

static void take(struct pge_listener *l, int fd) {
    int status;
    struct pge_conn *conn = pge_conn_new(l->loop, l->stream, &status);
    if (!conn) {
        l->refused++;
        close(fd);
        return;
    }
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
    for (int i = 0; i < MAX_ACCEPTS && !l->is_closing && !l->is_paused; i++) {
        int fd = accept4(l->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            take(l, fd);
        } else if (errno == EAGAIN) {
            return;
        } else if (!is_passing(errno)) {
            rest(l);
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

/* A socket file nobody listens on is left from a crash: replace it. Anything else stays. */
static bool remove_stale(const struct sockaddr_un *un) {
    struct stat st;
    if (lstat(un->sun_path, &st) < 0 || !S_ISSOCK(st.st_mode))
        return false; /* connect says ECONNREFUSED of a plain file too */
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return false;
    bool is_stale =
        connect(fd, (const struct sockaddr *)un, sizeof *un) < 0 && errno == ECONNREFUSED;
    close(fd);
    return is_stale && unlink(un->sun_path) == 0;
}

static int bind_unix(struct pge_listener *l, const struct sockaddr_un *un) {
    int status = bind(l->fd, (const struct sockaddr *)un, sizeof *un);
    if (status < 0 && errno == EADDRINUSE) {
        status = remove_stale(un) ? bind(l->fd, (const struct sockaddr *)un, sizeof *un) : -1;
        if (status < 0)
            return UV_EADDRINUSE;
    }
    if (status < 0)
        return uv_translate_sys_error(errno);
    snprintf(l->path, sizeof l->path, "%s", un->sun_path);
    l->unlink_path = true;
    return 0;
}

static int bind_inet(struct pge_listener *l, const struct sockaddr *sa) {
    int on = 1;
    socklen_t size =
        sa->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    if (setsockopt(l->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 ||
        bind(l->fd, sa, size) < 0)
        return uv_translate_sys_error(errno);
    return 0;
}

/* Socket, bind, listen. l->fd and l->path tell how far it came. */
static int open_socket(struct pge_listener *l, const struct pge_endpoint *at, int backlog) {
    int family = at->addr.sa.sa_family;
    l->fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (l->fd < 0)
        return uv_translate_sys_error(errno);
    int status = family == AF_UNIX ? bind_unix(l, &at->addr.un) : bind_inet(l, &at->addr.sa);
    if (status == 0 && listen(l->fd, backlog) < 0)
        status = uv_translate_sys_error(errno);
    return status;
}

static void remove_path(struct pge_listener *l) {
    if (l->unlink_path)
        unlink(l->path);
    l->unlink_path = false;
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
    if (l && l->fd >= 0)
        close(l->fd);
    if (l)
        remove_path(l);
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
    remove_path(l);
    uv_close(&l->uv.handle, on_closed);
    close(l->fd); /* now, not in the callback: newcomers are refused from here on */
}
