/* tcp_peer.c - the server's end of the TCP transport: accept, requests in, replies out,
 * backpressure. */
#include <stdio.h>
#include <uv.h>

#include "transport/packet.h"
#include "transport/tcp.h"

static struct pge_tcp_peer *peer_of(struct pge_peer *peer) {
    return container_of(peer, struct pge_tcp_peer, base);
}

static struct pge_loop *peer_loop(const struct pge_tcp_peer *self) {
    return self->base.server->engine->loop;
}

/* Parses what the codec holds until it needs more, the peer is paused, or it is cut. */
static void peer_parse(struct pge_tcp_peer *self) {
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
    if (!self->base.is_paused)
        pge_tcp_aim(self->conn, &self->frame);
    pge_tcp_watch_partial(peer_loop(self), &self->frame, &self->timer,
                          self->base.is_paused ? 0 : server->options.incomplete_ms);
}

static void peer_input(void *arg) {
    struct pge_tcp_input *in = arg;
    struct pge_tcp_peer *self = in->owner;
    int status = pge_nest_frame_feed(&self->frame, in->data, in->n);
    if (status < 0)
        pge_peer_lost(&self->base, PGE_BAD_FRAME, self->frame.error);
    else
        peer_parse(self);
}

static void peer_on_data(struct pge_conn *conn, const char *data, ssize_t n) {
    struct pge_tcp_peer *self = conn->owner;
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
    struct pge_tcp_input in = {self, data, (size_t)n};
    engine->enter(engine, peer_input, &in);
}

static void peer_on_open(struct pge_conn *conn, int status) {
    (void)conn; /* accepted connections are open */
    (void)status;
}

static void peer_on_drain(struct pge_conn *conn, int status) {
    struct pge_tcp_peer *self = conn->owner;
    if (status < 0)
        pge_peer_lost(&self->base, PGE_FAULT_NONE, "Connection closed");
    else
        pge_peer_drained(&self->base);
}

static void peer_on_close(struct pge_conn *conn) {
    struct pge_tcp_peer *self = conn->owner;
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
    struct pge_tcp_peer *self = container_of(timer, struct pge_tcp_peer, timer);
    char text[192];
    pge_tcp_explain_silence(&self->frame, self->base.server->options.incomplete_ms, text,
                            sizeof text);
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
    struct pge_tcp_peer *self = peer_of(peer);
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

int pge_tcp_serve(struct pge_server *server) {
    const struct pge_server_options *o = &server->options;
    struct pge_endpoint at;
    int status = pge_endpoint_resolve(o->host, o->port, o->path, &at);
    if (status < 0)
        return status;
    if (o->tls) {
        at.stream = &pge_stream_tls;
        at.tls = o->tls;
    }
    server->transport_data =
        pge_listener_open(server->engine->loop, &at, o->backlog, &listener_events, server, &status);
    return status;
}

void pge_tcp_pause_listener(struct pge_server *server, bool paused) {
    if (paused)
        pge_listener_pause(server->transport_data);
    else
        pge_listener_resume(server->transport_data);
}

void pge_tcp_unserve(struct pge_server *server) {
    pge_listener_close(server->transport_data);
}

void pge_tcp_address(const struct pge_server *server, char *out, size_t size) {
    if (server->transport_data)
        pge_listener_address(server->transport_data, out, size);
    else
        snprintf(out, size, "closed");
}

int pge_tcp_peer_reply(struct pge_peer *peer, const struct pge_request *request,
                       enum pge_reply kind, const struct pge_payload *body) {
    struct pge_conn *conn = peer_of(peer)->conn;
    size_t len = pge_buf_len(&conn->out), mark = 0;
    int status = pge_nest_frame_begin(&conn->out, &mark);
    if (status == 0)
        status = pge_packet_reply(&conn->out, pge_request_id(request), kind, body);
    return pge_tcp_finish_frame(conn, len, mark, status, peer->server->options.max_queued_bytes);
}

int pge_tcp_peer_no_handler(struct pge_peer *peer, const struct pge_request *request) {
    struct pge_conn *conn = peer_of(peer)->conn;
    size_t len = pge_buf_len(&conn->out), mark = 0;
    int status = pge_nest_frame_begin(&conn->out, &mark);
    if (status == 0)
        status = pge_packet_no_handler(&conn->out, pge_request_id(request));
    return pge_tcp_finish_frame(conn, len, mark, status, SIZE_MAX);
}

size_t pge_tcp_peer_queued(const struct pge_peer *peer) {
    return pge_conn_queued(container_of(peer, const struct pge_tcp_peer, base)->conn);
}

uint64_t pge_tcp_peer_taken(const struct pge_peer *peer) {
    return pge_conn_taken(container_of(peer, const struct pge_tcp_peer, base)->conn);
}

static void resume_parsing(void *arg) {
    peer_parse(arg);
}

void pge_tcp_peer_read(struct pge_peer *peer, bool wanted) {
    struct pge_tcp_peer *self = peer_of(peer);
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
void pge_tcp_peer_probe(struct pge_peer *peer) {
    pge_conn_write(peer_of(peer)->conn, " ", 1);
}

void pge_tcp_peer_name(const struct pge_peer *peer, char *out, size_t size) {
    pge_conn_peer(container_of(peer, const struct pge_tcp_peer, base)->conn, out, size);
}

void pge_tcp_peer_close(struct pge_peer *peer, bool flush) {
    struct pge_tcp_peer *self = peer_of(peer);
    pge_loop_timer_stop(peer_loop(self), &self->timer);
    if (flush)
        pge_conn_close_after_write(self->conn);
    else
        pge_conn_close(self->conn);
}
