/*
 * tcp.c - Nest's TCP transport (nest-wire 2): JSON packets in "LENGTH#" frames, over tcp, tls or a unix
 * socket.
 *
 *   conn bytes -> frame codec -> packet -> engine;   engine -> packet -> frame in conn->out
 */
#include <stdio.h>
#include <uv.h>

#include "codec/nest_frame.h"
#include "codec/route.h"
#include "engine/pool.h"
#include "engine/server.h"
#include "net/dial.h"
#include "net/stream.h"
#include "transport/packet.h"

/* A link that is closed still writes what it has, for so long. */
enum { LINGER_MS = 2000 };

struct tcp_link {
    struct pge_link base; /* first */
    struct pge_dial *dial; /* while connecting */
    struct pge_conn *conn;
    struct pge_nest_frame frame;
    struct pge_timer timer; /* silence inside a frame; after close: the wait for the last write */
    struct pge_defer gone;  /* pge_link_closed, when there never was a conn */
};

struct tcp_peer {
    struct pge_peer base; /* first */
    struct pge_conn *conn;
    struct pge_nest_frame frame;
    struct pge_timer timer; /* silence inside a frame */
};

/* ---- what both roles share ---- */

/* Ends a frame begun at len bytes of conn->out, or takes it back. */
static int finish_frame(struct pge_conn *conn, size_t len, size_t mark, int status, size_t max_bytes) {
    struct pge_buf *out = &conn->out;
    if (status == 0 && pge_buf_len(out) - len > max_bytes)
        status = UV_EMSGSIZE;
    if (status == 0)
        status = pge_nest_frame_end(out, mark, SIZE_MAX);
    if (status == 0)
        return pge_conn_dirty(conn);
    out->end = out->start + len;
    return status;
}

/* Restarts the clock of silence when a read left part of a frame, as Nest does. */
static void watch_partial(struct pge_loop *loop, const struct pge_nest_frame *frame,
                          struct pge_timer *timer, uint64_t limit_ms) {
    if (limit_ms && pge_nest_frame_partial(frame))
        pge_loop_timer(loop, timer, limit_ms);
    else
        pge_loop_timer_stop(loop, timer);
}

static void explain_silence(const struct pge_nest_frame *frame, uint64_t limit_ms, char *out,
                            size_t size) {
    snprintf(out, size,
             "The remote peer stopped sending in the middle of a packet (%zu character(s) buffered) "
             "and did not send anything for %llums",
             pge_nest_frame_partial(frame), (unsigned long long)limit_ms);
}

struct input {
    void *owner;
    const char *data;
    size_t n;
};

/* ---- client ---- */

static struct tcp_link *link_of(struct pge_link *link) {
    return container_of(link, struct tcp_link, base);
}

static struct pge_loop *link_loop(const struct tcp_link *self) {
    return self->base.pool->engine->loop;
}

static void link_broken(struct tcp_link *self, enum pge_fault fault, const char *message) {
    pge_link_lost(&self->base, fault, message);
}

static void link_bad_frame(struct tcp_link *self, int status, const char *message) {
    link_broken(self, status == UV_EMSGSIZE ? PGE_FRAME_TOO_LARGE : PGE_BAD_FRAME, message);
}

static void link_input(void *arg) {
    struct input *in = arg;
    struct tcp_link *self = in->owner;
    struct pge_span packet;
    char text[256];
    int status = pge_nest_frame_feed(&self->frame, in->data, in->n);
    while (status >= 0 && (status = pge_nest_frame_next(&self->frame, &packet)) > 0) {
        status = pge_link_packet(&self->base, packet);
        if (self->base.state != PGE_LINK_READY)
            return;
        if (status < 0) {
            snprintf(text, sizeof text, "Could not parse JSON: %s",
                     self->base.pool->engine->scan.error);
            link_bad_frame(self, UV_EPROTO, text);
            return;
        }
    }
    if (status < 0)
        link_bad_frame(self, status, self->frame.error);
    else
        watch_partial(link_loop(self), &self->frame, &self->timer,
                      self->base.pool->options.incomplete_ms);
}

static void link_on_data(struct pge_conn *conn, const char *data, ssize_t n) {
    struct tcp_link *self = conn->owner;
    if (n < 0) {
        link_broken(self, PGE_CONNECTION_CLOSED, "Connection closed");
        return;
    }
    struct input in = {self, data, (size_t)n};
    struct pge_engine *engine = self->base.pool->engine;
    engine->enter(engine, link_input, &in);
}

static void link_on_open(struct pge_conn *conn, int status) {
    (void)conn; /* dial.c hands over open connections */
    (void)status;
}

static void link_on_drain(struct pge_conn *conn, int status) {
    struct tcp_link *self = conn->owner;
    if (status < 0 && self->base.state == PGE_LINK_CLOSING)
        pge_conn_close(conn);
    else if (status < 0)
        link_broken(self, PGE_CONNECTION_CLOSED, "Connection closed");
}

static void link_gone(struct tcp_link *self) {
    pge_loop_timer_stop(link_loop(self), &self->timer);
    pge_nest_frame_deinit(&self->frame);
    pge_link_closed(&self->base);
}

static void link_on_close(struct pge_conn *conn) {
    link_gone(conn->owner);
}

static void link_on_gone(struct pge_defer *defer) {
    link_gone(container_of(defer, struct tcp_link, gone));
}

static const struct pge_conn_events link_events = {
    .on_open = link_on_open,
    .on_data = link_on_data,
    .on_drain = link_on_drain,
    .on_close = link_on_close,
};

static void link_on_timer(struct pge_timer *timer) {
    struct tcp_link *self = container_of(timer, struct tcp_link, timer);
    if (self->base.state == PGE_LINK_CLOSING) {
        pge_conn_close(self->conn);
        return;
    }
    char text[192];
    explain_silence(&self->frame, self->base.pool->options.incomplete_ms, text, sizeof text);
    link_broken(self, PGE_BAD_FRAME, text);
}

static void link_on_dialled(void *arg, struct pge_conn *conn, int status, const char *why) {
    struct tcp_link *self = arg;
    (void)status;
    self->dial = NULL;
    if (!conn) {
        link_broken(self, PGE_CONNECT_FAILED, why);
        return;
    }
    self->conn = conn;
    conn->events = &link_events;
    conn->owner = self;
    pge_conn_read_start(conn);
    pge_link_ready(&self->base);
}

static int link_connect(struct pge_link *link) {
    struct tcp_link *self = link_of(link);
    const struct pge_pool_options *o = &link->pool->options;
    const struct pge_host_options *at = link->host->at;
    struct pge_target target = {.host = at->host, .port = at->port, .path = at->path, .tls = o->tls};
    int status;
    pge_nest_frame_init(&self->frame, o->max_frame_units);
    pge_timer_init(&self->timer, link_on_timer);
    pge_defer_init(&self->gone, link_on_gone);
    self->dial = pge_dial_start(link_loop(self), &target, o->connect_timeout_ms, link_on_dialled,
                                self, &status);
    return self->dial ? 0 : status;
}

static int link_send(struct pge_link *link, struct pge_call *call, const struct pge_message *m) {
    struct pge_conn *conn = link_of(link)->conn;
    size_t len = pge_buf_len(&conn->out), mark = 0;
    int status = pge_nest_frame_begin(&conn->out, &mark);
    if (status == 0)
        status = pge_packet_request(&conn->out, m, pge_call_id(call));
    return finish_frame(conn, len, mark, status, link->pool->options.max_queued_bytes);
}

/* TCP-15: an event carries its route as the pattern, a request the raw pattern. */
static int event_pattern(struct pge_engine *engine, struct pge_span pattern, struct pge_span *out) {
    *out = pattern;
    if (pattern.n && pattern.p[0] == '"')
        return 0; /* a string is its own route */
    struct pge_buf route = {0};
    pge_buf_clear(&engine->scratch);
    int status = pge_route(&engine->scan, pattern, &route);
    if (status == 0)
        status = pge_json_quote(&engine->scratch, pge_buf_head(&route), pge_buf_len(&route));
    else if (status > 0)
        status = pge_buf_append(&engine->scratch, pattern.p, pattern.n);
    pge_buf_deinit(&route);
    *out = (struct pge_span){pge_buf_head(&engine->scratch), pge_buf_len(&engine->scratch)};
    return status;
}

static int link_emit(struct pge_link *link, const struct pge_message *m) {
    struct pge_conn *conn = link_of(link)->conn;
    struct pge_span pattern = m->pattern;
    int status = m->packet.p ? 0 : event_pattern(link->pool->engine, m->pattern, &pattern);
    if (status < 0)
        return status;
    size_t len = pge_buf_len(&conn->out), mark = 0;
    status = pge_nest_frame_begin(&conn->out, &mark);
    if (status == 0)
        status = pge_packet_event(&conn->out, m, pattern);
    return finish_frame(conn, len, mark, status, link->pool->options.max_queued_bytes);
}

static void link_cancel(struct pge_link *link, struct pge_call *call) {
    (void)link; /* nothing on this wire tells the server (nest-wire 1.5) */
    (void)call;
}

static size_t link_queued(const struct pge_link *link) {
    return pge_conn_queued(container_of(link, const struct tcp_link, base)->conn);
}

static void link_close(struct pge_link *link) {
    struct tcp_link *self = link_of(link);
    if (self->dial)
        pge_dial_cancel(self->dial);
    self->dial = NULL;
    if (!self->conn) {
        pge_loop_defer(link_loop(self), &self->gone, PGE_SOON);
        return;
    }
    pge_conn_read_stop(self->conn);
    pge_conn_flush(self->conn);
    pge_loop_timer(link_loop(self), &self->timer, LINGER_MS);
    pge_conn_close_after_write(self->conn);
}

/* ---- server ---- */

static struct tcp_peer *peer_of(struct pge_peer *peer) {
    return container_of(peer, struct tcp_peer, base);
}

static struct pge_loop *peer_loop(const struct tcp_peer *self) {
    return self->base.server->engine->loop;
}

/* Parses what the codec holds until it needs more, the peer is paused, or it is cut. */
static void peer_parse(struct tcp_peer *self) {
    struct pge_server *server = self->base.server;
    struct pge_span packet;
    char text[256];
    int status = 0;
    while (!self->base.is_closing && !self->base.is_paused &&
           (status = pge_nest_frame_next(&self->frame, &packet)) > 0) {
        status = pge_peer_packet(&self->base, packet);
        if (status < 0 && !self->base.is_closing) {
            snprintf(text, sizeof text, "Could not parse JSON: %s",
                     status == UV_EPROTO ? server->engine->scan.error : uv_strerror(status));
            pge_peer_lost(&self->base, PGE_BAD_FRAME, text);
        }
    }
    if (self->base.is_closing)
        return;
    if (status < 0) {
        pge_peer_lost(&self->base, status == UV_EMSGSIZE ? PGE_FRAME_TOO_LARGE : PGE_BAD_FRAME,
                      self->frame.error);
        return;
    }
    if (self->base.is_paused && pge_nest_frame_park(&self->frame) < 0) {
        pge_peer_lost(&self->base, PGE_OVERLOADED, "out of memory");
        return;
    }
    watch_partial(peer_loop(self), &self->frame, &self->timer,
                  self->base.is_paused ? 0 : server->options.incomplete_ms);
}

static void peer_input(void *arg) {
    struct input *in = arg;
    struct tcp_peer *self = in->owner;
    int status = pge_nest_frame_feed(&self->frame, in->data, in->n);
    if (status < 0)
        pge_peer_lost(&self->base, PGE_BAD_FRAME, self->frame.error);
    else
        peer_parse(self);
}

static void peer_on_data(struct pge_conn *conn, const char *data, ssize_t n) {
    struct tcp_peer *self = conn->owner;
    struct pge_engine *engine = self->base.server->engine;
    if (self->base.is_closing) {
        if (n < 0)
            pge_conn_close(conn);
        return; /* only its last output is still being written */
    }
    if (n == UV_EOF) {
        pge_peer_half_closed(&self->base);
        return;
    }
    if (n < 0) {
        pge_peer_lost(&self->base, PGE_FAULT_NONE, "Connection closed");
        return;
    }
    struct input in = {self, data, (size_t)n};
    engine->enter(engine, peer_input, &in);
}

static void peer_on_open(struct pge_conn *conn, int status) {
    (void)conn; /* accepted connections are open */
    (void)status;
}

static void peer_on_drain(struct pge_conn *conn, int status) {
    struct tcp_peer *self = conn->owner;
    if (status < 0)
        pge_peer_lost(&self->base, PGE_FAULT_NONE, "Connection closed");
    else
        pge_peer_drained(&self->base);
}

static void peer_on_close(struct pge_conn *conn) {
    struct tcp_peer *self = conn->owner;
    pge_loop_timer_stop(peer_loop(self), &self->timer);
    pge_nest_frame_deinit(&self->frame);
    pge_peer_closed(&self->base);
}

static const struct pge_conn_events peer_events = {
    .on_open = peer_on_open,
    .on_data = peer_on_data,
    .on_drain = peer_on_drain,
    .on_close = peer_on_close,
};

static void peer_on_timer(struct pge_timer *timer) {
    struct tcp_peer *self = container_of(timer, struct tcp_peer, timer);
    char text[192];
    explain_silence(&self->frame, self->base.server->options.incomplete_ms, text, sizeof text);
    pge_peer_lost(&self->base, PGE_BAD_FRAME, text);
}

static void orphan_on_close(struct pge_conn *conn) {
    (void)conn;
}

/* For a connection no peer could be made for. */
static const struct pge_conn_events orphan_events = {
    .on_open = peer_on_open,
    .on_data = peer_on_data,
    .on_drain = peer_on_drain,
    .on_close = orphan_on_close,
};

static void on_accept(struct pge_listener *listener, struct pge_conn *conn) {
    struct pge_server *server = listener->owner;
    struct pge_peer *peer = pge_peer_new(server);
    if (!peer) {
        conn->events = &orphan_events;
        pge_conn_close(conn);
        return;
    }
    struct tcp_peer *self = peer_of(peer);
    pge_nest_frame_init(&self->frame, server->options.max_frame_units);
    pge_timer_init(&self->timer, peer_on_timer);
    self->conn = conn;
    conn->events = &peer_events;
    conn->owner = self;
    pge_conn_read_start(conn);
}

static void on_listener_closed(struct pge_listener *listener) {
    struct pge_server *server = listener->owner;
    server->transport_data = NULL;
    pge_server_stopped(server);
}

static const struct pge_listener_events listener_events = {
    .on_accept = on_accept,
    .on_close = on_listener_closed,
};

static int serve(struct pge_server *server) {
    const struct pge_server_options *o = &server->options;
    struct pge_endpoint at;
    int status = pge_endpoint_resolve(o->host, o->port, o->path, &at);
    if (status < 0)
        return status;
    if (o->tls) {
        at.stream = &pge_stream_tls;
        at.tls = o->tls;
    }
    server->transport_data = pge_listener_open(server->engine->loop, &at, o->backlog,
                                               &listener_events, server, &status);
    return status;
}

static void pause_listener(struct pge_server *server, bool paused) {
    if (paused)
        pge_listener_pause(server->transport_data);
    else
        pge_listener_resume(server->transport_data);
}

static void unserve(struct pge_server *server) {
    pge_listener_close(server->transport_data);
}

static void address(const struct pge_server *server, char *out, size_t size) {
    if (server->transport_data)
        pge_listener_address(server->transport_data, out, size);
    else
        snprintf(out, size, "closed");
}

static int peer_reply(struct pge_peer *peer, struct pge_span id, enum pge_reply kind,
                      const struct pge_payload *body) {
    struct pge_conn *conn = peer_of(peer)->conn;
    size_t len = pge_buf_len(&conn->out), mark = 0;
    int status = pge_nest_frame_begin(&conn->out, &mark);
    if (status == 0)
        status = pge_packet_reply(&conn->out, id, kind, body);
    return finish_frame(conn, len, mark, status, peer->server->options.max_queued_bytes);
}

static int peer_no_handler(struct pge_peer *peer, struct pge_span id) {
    struct pge_conn *conn = peer_of(peer)->conn;
    size_t len = pge_buf_len(&conn->out), mark = 0;
    int status = pge_nest_frame_begin(&conn->out, &mark);
    if (status == 0)
        status = pge_packet_no_handler(&conn->out, id);
    return finish_frame(conn, len, mark, status, SIZE_MAX);
}

static size_t peer_queued(const struct pge_peer *peer) {
    return pge_conn_queued(container_of(peer, const struct tcp_peer, base)->conn);
}

static uint64_t peer_taken(const struct pge_peer *peer) {
    return pge_conn_taken(container_of(peer, const struct tcp_peer, base)->conn);
}

static void resume_parsing(void *arg) {
    peer_parse(arg);
}

static void peer_read(struct pge_peer *peer, bool wanted) {
    struct tcp_peer *self = peer_of(peer);
    self->conn->wants_drain = !wanted;
    if (!wanted) {
        pge_conn_read_stop(self->conn);
        return;
    }
    struct pge_engine *engine = peer->server->engine;
    engine->enter(engine, resume_parsing, self);
    if (!peer->is_closing && !peer->is_paused && !peer->is_half_closed)
        pge_conn_read_start(self->conn);
}

/* White space before a length is read over (TCP-06), and is an error to a socket that is closed. */
static void peer_probe(struct pge_peer *peer) {
    pge_conn_write(peer_of(peer)->conn, " ", 1);
}

static void peer_name(const struct pge_peer *peer, char *out, size_t size) {
    pge_conn_peer(container_of(peer, const struct tcp_peer, base)->conn, out, size);
}

static void peer_close(struct pge_peer *peer, bool flush) {
    struct tcp_peer *self = peer_of(peer);
    pge_loop_timer_stop(peer_loop(self), &self->timer);
    if (flush)
        pge_conn_close_after_write(self->conn);
    else
        pge_conn_close(self->conn);
}

const struct pge_transport pge_transport_tcp = {
    .name = "tcp",
    .link_size = sizeof(struct tcp_link),
    .link_connect = link_connect,
    .link_send = link_send,
    .link_emit = link_emit,
    .link_cancel = link_cancel,
    .link_queued = link_queued,
    .link_close = link_close,
    .serve = serve,
    .pause = pause_listener,
    .unserve = unserve,
    .address = address,
    .peer_size = sizeof(struct tcp_peer),
    .peer_reply = peer_reply,
    .peer_no_handler = peer_no_handler,
    .peer_queued = peer_queued,
    .peer_taken = peer_taken,
    .peer_read = peer_read,
    .peer_probe = peer_probe,
    .peer_name = peer_name,
    .peer_close = peer_close,
};
