/* http_server.c - the listener and what its connections share: limits, counters, date, the end. */
#include "front/http_server.h"

#include <stdio.h>
#include <time.h>

#include "base/alloc.h"
#include "front/http_internal.h"

enum { BACKLOG = 511 };

void pge_http_limits_default(struct pge_http_limits *limits) {
    *limits = (struct pge_http_limits){
        .max_header_bytes = 16 * 1024,
        .max_headers = 100,
        .max_uri_bytes = 8 * 1024,
        .max_body_bytes = 1024 * 1024,
        .max_queued_bytes = 16 * 1024 * 1024,
        .max_connections = 10000,
        .header_timeout_ms = 10000,
        .body_timeout_ms = 30000,
        .idle_timeout_ms = 60000,
        .write_timeout_ms = 30000,
    };
}

/* The last of listener and connections is gone. */
static void end_if_empty(struct pge_http_server *server) {
    if (server->listener || server->stats.open || server->is_injected)
        return;
    pge_defer_cancel(&server->end);
    server->events->on_close(server);
    pge_buf_deinit(&server->scratch);
    pge_free(server);
}

static void on_accept(struct pge_listener *listener, struct pge_conn *conn) {
    struct pge_http_server *server = listener->owner;
    pge_http_conn_open(server, conn);
    if (server->stats.open >= server->limits.max_connections && !server->is_paused) {
        server->is_paused = true;
        pge_listener_pause(listener);
    }
}

static void on_listener_close(struct pge_listener *listener) {
    struct pge_http_server *server = listener->owner;
    server->listener = NULL;
    end_if_empty(server);
}

static const struct pge_listener_events events = {on_accept, on_listener_close};

static void on_end(struct pge_defer *defer) {
    end_if_empty(container_of(defer, struct pge_http_server, end));
}

int pge_http_server_inject(struct pge_http_server *server, const char *data, size_t n,
                           const struct pge_memory_peer *peer, void *arg) {
    if (server->is_draining)
        return UV_EPIPE;
    int status;
    struct pge_conn *conn = pge_memory_open(server->loop, data, n, peer, arg, &status);
    if (conn)
        pge_http_conn_open(server, conn);
    return status;
}

void pge_http_server_conn_gone(struct pge_http_server *server) {
    server->stats.open--;
    if (server->is_paused && !server->is_draining) {
        server->is_paused = false;
        if (!server->is_held)
            pge_listener_resume(server->listener);
    }
    end_if_empty(server);
}

struct pge_http_server *pge_http_server_open(struct pge_loop *loop, const struct pge_endpoint *at,
                                             const struct pge_http_limits *limits,
                                             const struct pge_http_server_events *on, void *owner,
                                             int *status) {
    struct pge_http_server *server = pge_calloc(1, sizeof *server);
    if (!server) {
        *status = UV_ENOMEM;
        return NULL;
    }
    server->loop = loop;
    server->events = on;
    server->owner = owner;
    server->limits = *limits;
    server->date_s = -1;
    pge_list_init(&server->conns);
    pge_defer_init(&server->end, on_end);
    server->is_injected = !at;
    if (!at)
        return server;
    server->listener = pge_listener_open(loop, at, BACKLOG, &events, server, status);
    if (server->listener)
        return server;
    pge_free(server);
    return NULL;
}

void *pge_http_server_owner(const struct pge_http_server *server) {
    return server->owner;
}

void pge_http_server_address(const struct pge_http_server *server, char *out, size_t size) {
    if (server->listener)
        pge_listener_address(server->listener, out, size);
    else
        snprintf(out, size, server->is_injected ? "memory" : "?");
}

struct pge_http_stats pge_http_server_stats(const struct pge_http_server *server) {
    return server->stats;
}

static void stop_accepting(struct pge_http_server *server) {
    server->is_draining = true;
    if (server->listener)
        pge_listener_close(server->listener);
    if (server->is_injected)
        pge_loop_defer(server->loop, &server->end, PGE_SOON); /* connections end it if it fails */
    server->is_injected = false;
}

void pge_http_server_hold(struct pge_http_server *server, bool held) {
    if (server->is_draining || server->is_held == held)
        return;
    server->is_held = held;
    if (!server->listener)
        return;
    if (held)
        pge_listener_pause(server->listener);
    else if (!server->is_paused)
        pge_listener_resume(server->listener);
}

/* Neither of these frees a connection before it returns: on_close comes from the loop. */

void pge_http_server_drain(struct pge_http_server *server) {
    if (server->is_draining)
        return;
    stop_accepting(server);
    for (struct pge_list *at = server->conns.next; at != &server->conns; at = at->next)
        pge_http_conn_drain(container_of(at, struct pge_http_conn, node));
}

void pge_http_server_close(struct pge_http_server *server) {
    stop_accepting(server);
    for (struct pge_list *at = server->conns.next; at != &server->conns; at = at->next)
        pge_http_conn_cut(container_of(at, struct pge_http_conn, node), true);
}

/* strftime would speak the host's language. */
const char *pge_http_server_date(struct pge_http_server *server) {
    static const char days[] = "SunMonTueWedThuFriSat";
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    struct timespec now;
    struct tm tm;
    clock_gettime(CLOCK_REALTIME_COARSE, &now);
    if (now.tv_sec == server->date_s)
        return server->date;
    server->date_s = now.tv_sec;
    gmtime_r(&now.tv_sec, &tm);
    snprintf(server->date, sizeof server->date, "%.3s, %02d %.3s %04d %02d:%02d:%02d GMT",
             days + 3 * tm.tm_wday, tm.tm_mday, months + 3 * tm.tm_mon, tm.tm_year + 1900,
             tm.tm_hour, tm.tm_min, tm.tm_sec);
    return server->date;
}

/* ---- what an owner asks of a request ---- */

static struct pge_http_conn *conn_of(const struct pge_http_request *req) {
    return container_of(req, struct pge_http_conn, req);
}

const struct pge_http_message *pge_http_request_message(const struct pge_http_request *req) {
    return &req->parse.message;
}

void pge_http_request_lend(struct pge_http_request *req, bool lent) {
    struct pge_loop *loop = pge_http_request_server(req)->loop;
    if (!lent && loop->loan == &req->parse.in && !req->parse.in.data)
        pge_http_parse_taken(&req->parse);
    loop->loan = lent ? pge_http_parse_loan(&req->parse) : NULL;
}

struct pge_http_server *pge_http_request_server(const struct pge_http_request *req) {
    return conn_of(req)->server;
}

void pge_http_request_peer(const struct pge_http_request *req, char *out, size_t size) {
    pge_conn_peer(conn_of(req)->conn, out, size);
}

void **pge_http_request_user(struct pge_http_request *req) {
    return &req->user;
}

struct pge_span pge_http_request_header(const struct pge_http_request *req, const char *name) {
    const struct pge_http_message *m = &req->parse.message;
    size_t n = strlen(name);
    for (unsigned i = 0; i < m->header_count; i++)
        if (m->headers[i].name.n == n && memcmp(m->headers[i].name.p, name, n) == 0)
            return m->headers[i].value;
    return (struct pge_span){NULL, 0};
}
