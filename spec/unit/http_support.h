/*
 * http_support.h - for unit tests of core/front: a server on a loop that must be empty at the end,
 * and clients that are bare sockets, so that every byte is ours.
 */
#ifndef SPEC_UNIT_HTTP_SUPPORT_H
#define SPEC_UNIT_HTTP_SUPPORT_H

#include <fcntl.h>
#include <sys/socket.h>

#include "net_support.h"

#include "front/http_internal.h"

enum { MAX_REQUESTS = 128, CLIENT_TEXT = 1 << 20 };

struct front {
    struct rig *rig;
    struct pge_http_server *server; /* NULL once closed */
    struct sockaddr_in at;
    struct pge_http_limits limits;
    void (*answer)(struct front *front, struct pge_http_request *req); /* NULL: later */
    struct pge_http_request *waiting[MAX_REQUESTS];                    /* not answered yet */
    int requests, aborts, closes, depth;
    char last[256]; /* "METHOD target body" */
};

struct client {
    uv_poll_t poll;
    struct front *front;
    int fd;
    size_t n; /* bytes received */
    int end;  /* 0, 1: FIN, or -errno */
    bool is_deaf;
    char text[CLIENT_TEXT]; /* of the bytes, as many as fit; terminated */
};

static inline struct pge_span span(const char *text) {
    return (struct pge_span){text, strlen(text)};
}

static inline void front_on_request(struct pge_http_server *server, struct pge_http_request *req) {
    struct front *f = pge_http_server_owner(server);
    const struct pge_http_message *m = pge_http_request_message(req);
    assert_ptr_equal(pge_http_request_server(req), server);
    assert_null(*pge_http_request_user(req));
    assert_int_equal(f->depth++, 0); /* never inside another */
    f->requests++;
    snprintf(f->last, sizeof f->last, "%.*s %.*s %.*s", (int)m->method.n, m->method.p,
             (int)m->target.n, m->target.p, (int)m->body.n, m->body.p ? m->body.p : "");
    if (f->answer) {
        f->answer(f, req);
    } else {
        int i = 0;
        while (f->waiting[i])
            i++;
        f->waiting[i] = req;
        *pge_http_request_user(req) = f;
    }
    f->depth--;
}

static inline void front_on_abort(struct pge_http_server *server, struct pge_http_request *req) {
    struct front *f = pge_http_server_owner(server);
    f->aborts++;
    for (int i = 0; i < MAX_REQUESTS; i++)
        if (f->waiting[i] == req)
            f->waiting[i] = NULL;
    assert_int_equal(pge_http_reply(req, 200, NULL, 0, span("late")), UV_EALREADY);
}

static inline void front_on_close(struct pge_http_server *server) {
    struct front *f = pge_http_server_owner(server);
    assert_int_equal(pge_http_server_stats(server).open, 0);
    assert_int_equal(pge_http_server_stats(server).active, 0);
    f->closes++;
    f->server = NULL;
}

static const struct pge_http_server_events front_events = {front_on_request, front_on_abort,
                                                           front_on_close};

static inline struct front *front_new(void) {
    struct front *f = calloc(1, sizeof *f);
    assert_non_null(f);
    f->rig = rig_new();
    pge_http_limits_default(&f->limits);
    return f;
}

static inline void front_open(struct front *f) {
    int status;
    struct pge_endpoint at = tcp_endpoint();
    f->server = pge_http_server_open(&f->rig->loop, &at, &f->limits, &front_events, f, &status);
    assert_non_null(f->server);
    at = host_endpoint(f->server->listener);
    memcpy(&f->at, &at.addr, sizeof f->at);
}

static inline void front_free(struct front *f) {
    if (f->server)
        pge_http_server_close(f->server);
    rig_free(f->rig);
    assert_null(f->server);
    assert_true(f->closes <= 1);
    free(f);
}

/* The conn of the newest client. */
static inline struct pge_http_conn *front_conn(struct front *f) {
    assert_false(pge_list_is_empty(&f->server->conns));
    return container_of(f->server->conns.prev, struct pge_http_conn, node);
}

static inline unsigned front_conns(struct front *f) {
    return pge_http_server_stats(f->server).open;
}

/* ---- clients ---- */

static inline void client_on_readable(uv_poll_t *poll, int status, int events) {
    struct client *c = container_of(poll, struct client, poll);
    static char spill[65536];
    (void)status;
    (void)events;
    ssize_t n = recv(c->fd, spill, sizeof spill, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        c->end = n == 0 ? 1 : -errno;
        uv_poll_stop(poll);
        return;
    }
    for (ssize_t i = 0; i < n; i++, c->n++)
        if (c->n + 1 < sizeof c->text)
            c->text[c->n] = spill[i];
}

static inline void client_listen(struct client *c) {
    c->is_deaf = false;
    uv_poll_start(&c->poll, UV_READABLE, client_on_readable);
}

static inline void client_ignore(struct client *c) {
    c->is_deaf = true;
    uv_poll_stop(&c->poll);
}

static inline struct client *client_new(struct front *f) {
    struct client *c = calloc(1, sizeof *c);
    int small = 4096;
    assert_non_null(c);
    c->front = f;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    assert_int_equal(connect(c->fd, (struct sockaddr *)&f->at, sizeof f->at), 0);
    uv_poll_init(&f->rig->uv, &c->poll, c->fd);
    client_listen(c);
    return c;
}

/* Also waits for the server to have it. */
static inline struct client *client_connected(struct front *f) {
    uint64_t before = pge_http_server_stats(f->server).connections;
    struct client *c = client_new(f);
    rig_until(f->rig, pge_http_server_stats(f->server).connections == before + 1);
    return c;
}

static inline void client_send_bytes(struct client *c, const char *bytes, size_t n) {
    while (n) {
        ssize_t sent = send(c->fd, bytes, n, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN) {
            uv_run(&c->front->rig->uv, UV_RUN_NOWAIT);
            continue;
        }
        if (sent < 0)
            return; /* the server has cut us off */
        bytes += sent;
        n -= (size_t)sent;
    }
}

static inline void client_send(struct client *c, const char *text) {
    client_send_bytes(c, text, strlen(text));
}

static inline void client_on_closed(uv_handle_t *handle) {
    struct client *c = container_of((uv_poll_t *)handle, struct client, poll);
    close(c->fd);
    free(c);
}

static inline void client_close(struct client *c) {
    uv_close((uv_handle_t *)&c->poll, client_on_closed);
}

/* The peer sees RST instead of FIN. */
static inline void client_reset(struct client *c) {
    struct linger now = {.l_onoff = 1};
    setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    client_close(c);
}

#define client_until(c, condition) rig_until((c)->front->rig, condition)
#define client_until_text(c, wanted) client_until(c, strstr((c)->text, wanted))
#define client_until_end(c) client_until(c, (c)->end)

static inline void client_forget(struct client *c) {
    memset(c->text, 0, c->n < sizeof c->text ? c->n : sizeof c->text);
    c->n = 0;
}

/* Received is exactly text, where "@" stands for a Date field. */
static inline void assert_received(struct client *c, const char *text) {
    const char *got = c->text;
    for (const char *at = text; *at; at++) {
        if (*at == '@') {
            if (strncmp(got, "Date: ", 6) != 0 || strlen(got) < 37)
                fail_msg("no date in\n%s", c->text);
            got += 37;
        } else if (*got++ != *at) {
            fail_msg("wanted\n%s\ngot\n%s", text, c->text);
        }
    }
    if (*got)
        fail_msg("wanted\n%s\ngot\n%s", text, c->text);
}

static inline size_t count_of(const char *text, const char *what) {
    size_t count = 0;
    for (const char *at = text; (at = strstr(at, what)) != NULL; at += strlen(what))
        count++;
    return count;
}

#define GET "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
#define POST_3 "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n"

static inline void say_ok(struct front *f, struct pge_http_request *req) {
    (void)f;
    assert_int_equal(pge_http_reply(req, 200, NULL, 0, span("ok")), 0);
}

static inline struct front *open_with(void (*answer)(struct front *, struct pge_http_request *)) {
    struct front *f = front_new();
    f->answer = answer;
    front_open(f);
    return f;
}

/* Until the server has taken so many bytes of the request being sent. */
#define until_taken(f, size) rig_until((f)->rig, front_conn(f)->req.parse.pos == (size))

static inline struct pge_http_request *until_asked(struct front *f) {
    rig_until(f->rig, f->waiting[0]);
    struct pge_http_request *req = f->waiting[0];
    f->waiting[0] = NULL;
    return req;
}

static inline void assert_refused_with(struct client *c, const char *status) {
    client_until_end(c);
    assert_int_equal(c->end, 1); /* FIN, not RST: what we said has arrived */
    assert_memory_equal(c->text, "HTTP/1.1 ", 9);
    assert_memory_equal(c->text + 9, status, 3);
    assert_non_null(strstr(c->text, "\r\nConnection: close\r\n"));
    assert_non_null(strstr(c->text, "\r\nContent-Type: application/problem+json\r\n"));
    assert_null(strstr(strstr(c->text, "\r\n\r\n"), "HTTP/1.1"));
}

enum { BIG = 8 << 20 };

static inline struct pge_span big(void) {
    static char bytes[BIG];
    for (size_t i = 0; i < BIG && bytes[BIG - 1] == 0; i++)
        bytes[i] = (char)('a' + i % 26);
    return (struct pge_span){bytes, BIG};
}

#endif
