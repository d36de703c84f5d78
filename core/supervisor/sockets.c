/*
 * sockets.c - listening sockets: bound once, held here for as long as a worker wants them, handed
 * to each that asks.
 *
 *   held 127.0.0.1:8080 fd 12 --- hold: worker 1, attempt 1;  hold: worker 2, attempt 2
 *
 * A worker's death leaves its sockets open: what waits to be accepted waits for the others, or for
 * the next one. A socket is closed when all workers serve and none of them has it.
 */
#include <netinet/in.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/alloc.h"
#include "net/socket.h"
#include "supervisor/internal.h"

static in_port_t port_of(const struct sockaddr_storage *at) {
    if (at->ss_family == AF_INET6)
        return ((const struct sockaddr_in6 *)(const void *)at)->sin6_port;
    return at->ss_family == AF_INET ? ((const struct sockaddr_in *)(const void *)at)->sin_port : 1;
}

static bool is_same(const struct sockaddr_storage *a, const struct sockaddr_storage *b) {
    if (a->ss_family != b->ss_family)
        return false;
    if (a->ss_family == AF_UNIX)
        return strcmp(((const struct sockaddr_un *)(const void *)a)->sun_path,
                      ((const struct sockaddr_un *)(const void *)b)->sun_path) == 0;
    return memcmp(a, b, pge_sockaddr_size((const struct sockaddr *)a)) == 0;
}

static struct pge_hold *hold_of(const struct pge_held *held, const struct pge_worker *w) {
    for (struct pge_list *at = held->holds.next; at != &held->holds; at = at->next) {
        struct pge_hold *hold = container_of(at, struct pge_hold, node);
        if (hold->worker == w->index)
            return hold;
    }
    return NULL;
}

static bool has_in_attempt(const struct pge_held *held, const struct pge_worker *w) {
    for (struct pge_list *at = held->holds.next; at != &held->holds; at = at->next) {
        const struct pge_hold *hold = container_of(at, struct pge_hold, node);
        if (hold->worker == w->index && hold->attempt == w->attempt)
            return true;
    }
    return false;
}

/*
 * The socket of that address that this worker may have. Port 0 asked several times is as many
 * ports, and each worker gets them in the same order. Two listeners of one generation on one
 * address are a mistake; two generations of a worker share it for a while.
 */
static struct pge_held *find(struct pge_worker *w, const struct sockaddr_storage *at, int *status) {
    struct pge_list *sockets = &w->supervisor->sockets;
    *status = 0;
    for (struct pge_list *node = sockets->next; node != sockets; node = node->next) {
        struct pge_held *held = container_of(node, struct pge_held, node);
        if (!is_same(&held->asked, at) || (port_of(at) == 0 && hold_of(held, w)))
            continue;
        if (has_in_attempt(held, w))
            *status = UV_EADDRINUSE;
        return held;
    }
    return NULL;
}

static struct pge_held *bind_new(struct pge_supervisor *s, const struct sockaddr_storage *at,
                                 int backlog, int *status) {
    struct pge_held *held = pge_calloc(1, sizeof *held);
    if (!held) {
        *status = UV_ENOMEM;
        return NULL;
    }
    held->fd = pge_socket_listen((const struct sockaddr *)at, backlog);
    if (held->fd < 0) {
        *status = held->fd;
        pge_free(held);
        return NULL;
    }
    held->asked = *at;
    pge_list_init(&held->holds);
    pge_list_push(&s->sockets, &held->node);
    return held;
}

static void close_held(struct pge_held *held) {
    while (!pge_list_is_empty(&held->holds)) {
        struct pge_hold *hold = container_of(held->holds.next, struct pge_hold, node);
        pge_list_remove(&hold->node);
        pge_free(hold);
    }
    if (held->asked.ss_family == AF_UNIX)
        unlink(((const struct sockaddr_un *)(const void *)&held->asked)->sun_path);
    close(held->fd);
    pge_list_remove(&held->node);
    pge_free(held);
}

static int listen_for(struct pge_worker *w, const struct pge_door_request *request, int *fd,
                      uint32_t *id) {
    int status;
    struct pge_held *held = find(w, &request->at, &status);
    if (status < 0)
        return status;
    struct pge_hold *hold = pge_calloc(1, sizeof *hold);
    if (!hold)
        return UV_ENOMEM;
    if (!held)
        held = bind_new(w->supervisor, &request->at, request->backlog, &status);
    if (!held) {
        pge_free(hold);
        return status;
    }
    hold->worker = w->index;
    hold->attempt = w->attempt;
    hold->id = ++w->supervisor->last_hold;
    pge_list_push(&held->holds, &hold->node);
    *fd = held->fd;
    *id = hold->id;
    return 0;
}

static void closed_by(struct pge_worker *w, uint32_t id) {
    struct pge_list *sockets = &w->supervisor->sockets;
    for (struct pge_list *at = sockets->next; at != sockets; at = at->next) {
        struct pge_held *held = container_of(at, struct pge_held, node);
        for (struct pge_list *h = held->holds.next; h != &held->holds; h = h->next) {
            struct pge_hold *hold = container_of(h, struct pge_hold, node);
            if (hold->id != id || hold->worker != w->index)
                continue;
            pge_list_remove(&hold->node);
            pge_free(hold);
            pge_sockets_sweep(w->supervisor);
            return;
        }
    }
}

static void send_reply(int door, const struct pge_door_reply *reply, int fd) {
    union {
        struct cmsghdr head; /* for its alignment */
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec bytes = {(void *)(uintptr_t)reply, sizeof *reply};
    struct msghdr message = {.msg_iov = &bytes, .msg_iovlen = 1};
    if (fd >= 0) {
        message.msg_control = control.bytes;
        message.msg_controllen = sizeof control.bytes;
        control.head.cmsg_level = SOL_SOCKET;
        control.head.cmsg_type = SCM_RIGHTS;
        control.head.cmsg_len = CMSG_LEN(sizeof fd);
        memcpy(CMSG_DATA(&control.head), &fd, sizeof fd);
    }
    sendmsg(door, &message, MSG_DONTWAIT | MSG_NOSIGNAL); /* or the worker's wait runs out */
}

static bool is_address(const struct sockaddr_storage *at) {
    const struct sockaddr_un *un = (const struct sockaddr_un *)(const void *)at;
    if (at->ss_family == AF_UNIX)
        return memchr(un->sun_path, '\0', sizeof un->sun_path) != NULL;
    return at->ss_family == AF_INET || at->ss_family == AF_INET6;
}

static void answer(struct pge_worker *w, const struct pge_door_request *request) {
    struct pge_door_reply reply = {.serial = request->serial,
                                   .workers = w->supervisor->worker_count};
    int fd = -1;
    if (request->op == PGE_DOOR_CLOSED) {
        closed_by(w, request->hold);
        return;
    }
    reply.status =
        is_address(&request->at) ? listen_for(w, request, &fd, &reply.hold) : UV_EAFNOSUPPORT;
    send_reply(w->door_fd, &reply, fd);
}

static void on_door(uv_poll_t *door, int status, int events) {
    struct pge_worker *w = container_of(door, struct pge_worker, door);
    struct pge_door_request request;
    (void)events;
    ssize_t n = recv(w->door_fd, &request, sizeof request, MSG_DONTWAIT);
    if (n == (ssize_t)sizeof request)
        answer(w, &request);
    else if (n == 0 || status < 0)
        uv_poll_stop(door); /* its end shows itself elsewhere */
}

static void on_door_closed(uv_handle_t *handle) {
    pge_worker_handle_closed(container_of((uv_poll_t *)handle, struct pge_worker, door));
}

int pge_door_open(struct pge_worker *w, int fd) {
    int status = uv_poll_init_socket(&w->supervisor->uv, &w->door, fd);
    if (status < 0) {
        close(fd);
        return status;
    }
    w->door_fd = fd;
    w->open_handles++;
    return uv_poll_start(&w->door, UV_READABLE, on_door);
}

void pge_door_close(struct pge_worker *w) {
    if (w->door_fd < 0)
        return;
    uv_close((uv_handle_t *)&w->door, on_door_closed);
    close(w->door_fd);
    w->door_fd = -1;
}

void pge_sockets_forget(struct pge_supervisor *s, const struct pge_worker *w) {
    for (struct pge_list *at = s->sockets.next; at != &s->sockets; at = at->next) {
        struct pge_held *held = container_of(at, struct pge_held, node);
        for (struct pge_hold *hold = hold_of(held, w); hold; hold = hold_of(held, w)) {
            pge_list_remove(&hold->node);
            pge_free(hold);
        }
    }
}

/* Whether a worker is, or is to come, that may still ask for a socket nobody has now. */
static bool is_anyone_loading(const struct pge_supervisor *s) {
    for (unsigned i = 0; i < s->worker_count; i++) {
        const struct pge_worker *w = s->workers[i];
        if (w->state != PGE_WORKER_IDLE || w->generation != s->committed.generation)
            return true;
    }
    return false;
}

void pge_sockets_sweep(struct pge_supervisor *s) {
    if (!s->is_stopping && is_anyone_loading(s))
        return;
    for (struct pge_list *at = s->sockets.next, *next; at != &s->sockets; at = next) {
        struct pge_held *held = container_of(at, struct pge_held, node);
        next = at->next;
        if (pge_list_is_empty(&held->holds))
            close_held(held);
    }
}

void pge_sockets_close(struct pge_supervisor *s) {
    while (!pge_list_is_empty(&s->sockets))
        close_held(container_of(s->sockets.next, struct pge_held, node));
}
