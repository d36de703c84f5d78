/* tcp_link.c - the client's end of the TCP transport: dial, frames out, replies in. */
#include <stdio.h>
#include <uv.h>

#include "codec/route.h"
#include "transport/packet.h"
#include "transport/tcp.h"

/* A link that is closed still writes what it has, for so long. */
enum { LINGER_MS = 2000 };

static struct pge_tcp_link *link_of(struct pge_link *link) {
    return container_of(link, struct pge_tcp_link, base);
}

static struct pge_loop *link_loop(const struct pge_tcp_link *self) {
    return self->base.pool->engine->loop;
}

static void link_broken(struct pge_tcp_link *self, enum pge_fault fault, const char *message) {
    pge_link_lost(&self->base, fault, message);
}

static void link_bad_frame(struct pge_tcp_link *self, int status, const char *message) {
    link_broken(self, status == UV_EMSGSIZE ? PGE_FRAME_TOO_LARGE : PGE_BAD_FRAME, message);
}

static void link_input(void *arg) {
    struct pge_tcp_input *in = arg;
    struct pge_tcp_link *self = in->owner;
    struct pge_loop *loop = link_loop(self);
    struct pge_span packet;
    char text[256];
    int status = pge_nest_frame_feed(&self->frame, in->data, in->n);
    while (status >= 0 && (status = pge_nest_frame_next(&self->frame, &packet)) > 0) {
        loop->loan = pge_nest_frame_loan(&self->frame);
        status = pge_link_packet(&self->base, packet);
        loop->loan = NULL;
        if (self->base.state != PGE_LINK_READY)
            return;
        if (status < 0) {
            snprintf(text, sizeof text, "Could not parse JSON: %s",
                     self->base.pool->engine->scan.error);
            link_bad_frame(self, UV_EPROTO, text);
            return;
        }
    }
    if (status < 0) {
        link_bad_frame(self, status, self->frame.error);
        return;
    }
    pge_tcp_aim(self->conn, &self->frame);
    pge_tcp_watch_partial(link_loop(self), &self->frame, &self->timer,
                          self->base.pool->options.incomplete_ms);
}

static void link_on_data(struct pge_conn *conn, const char *data, ssize_t n) {
    struct pge_tcp_link *self = conn->owner;
    if (n < 0) {
        link_broken(self, PGE_CONNECTION_CLOSED, "Connection closed");
        return;
    }
    struct pge_tcp_input in = {self, data, (size_t)n};
    struct pge_engine *engine = self->base.pool->engine;
    engine->enter(engine, link_input, &in);
}

static void link_on_open(struct pge_conn *conn, int status) {
    (void)conn; /* dial.c hands over open connections */
    (void)status;
}

static void link_on_drain(struct pge_conn *conn, int status) {
    struct pge_tcp_link *self = conn->owner;
    if (status < 0 && self->base.state == PGE_LINK_CLOSING)
        pge_conn_close(conn);
    else if (status < 0)
        link_broken(self, PGE_CONNECTION_CLOSED, "Connection closed");
}

static void link_gone(struct pge_tcp_link *self) {
    pge_loop_timer_stop(link_loop(self), &self->timer);
    pge_nest_frame_deinit(&self->frame);
    pge_link_closed(&self->base);
}

static void link_on_close(struct pge_conn *conn) {
    link_gone(conn->owner);
}

static void link_on_gone(struct pge_defer *defer) {
    link_gone(container_of(defer, struct pge_tcp_link, gone));
}

static const struct pge_conn_events link_events = {
    .on_open = link_on_open,
    .on_data = link_on_data,
    .on_drain = link_on_drain,
    .on_close = link_on_close,
};

static void link_on_timer(struct pge_timer *timer) {
    struct pge_tcp_link *self = container_of(timer, struct pge_tcp_link, timer);
    if (self->base.state == PGE_LINK_CLOSING) {
        pge_conn_close(self->conn);
        return;
    }
    char text[192];
    pge_tcp_explain_silence(&self->frame, self->base.pool->options.incomplete_ms, text,
                            sizeof text);
    link_broken(self, PGE_BAD_FRAME, text);
}

static void link_on_dialled(void *arg, struct pge_conn *conn, int status, const char *why) {
    struct pge_tcp_link *self = arg;
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

int pge_tcp_link_connect(struct pge_link *link) {
    struct pge_tcp_link *self = link_of(link);
    const struct pge_pool_options *o = &link->pool->options;
    const struct pge_host_options *at = link->host->at;
    struct pge_target target = {
        .host = at->host, .port = at->port, .path = at->path, .tls = o->tls};
    int status;
    pge_nest_frame_init(&self->frame, o->max_frame_units);
    pge_timer_init(&self->timer, link_on_timer);
    pge_defer_init(&self->gone, link_on_gone);
    self->dial = pge_dial_start(link_loop(self), &target, o->connect_timeout_ms, link_on_dialled,
                                self, &status);
    return self->dial ? 0 : status;
}

static bool may_be_given(const struct pge_conn *conn, const struct pge_message *m) {
    return m->data.json.n >= PGE_GIVE_BYTES && !m->data.write && !m->packet.p &&
           !pge_payload_is_set(&m->metadata) && pge_buf_is_mostly(conn->loop->loan, m->data.json);
}

/* The packet is written without its data, which then goes between. */
static int send_large(struct pge_link *link, struct pge_conn *conn, struct pge_call *call,
                      const struct pge_message *m) {
    struct pge_message bare = *m;
    size_t len = pge_buf_len(&conn->out), mark = 0;
    bare.data.json = (struct pge_span){"", 0};
    int status = pge_nest_frame_begin(&conn->out, &mark);
    if (status == 0)
        status = pge_packet_request(&conn->out, &bare, pge_call_id(call));
    if (status < 0)
        return pge_tcp_finish_frame(conn, len, mark, status, 0);
    return pge_tcp_give_frame(conn, len, mark, m->data.json, PGE_PACKET_TAIL + pge_call_id(call).n,
                              link->pool->options.max_queued_bytes);
}

int pge_tcp_link_send(struct pge_link *link, struct pge_call *call, const struct pge_message *m) {
    struct pge_conn *conn = link_of(link)->conn;
    if (may_be_given(conn, m))
        return send_large(link, conn, call, m);
    size_t len = pge_buf_len(&conn->out), mark = 0;
    int status = pge_nest_frame_begin(&conn->out, &mark);
    if (status == 0)
        status = pge_packet_request(&conn->out, m, pge_call_id(call));
    return pge_tcp_finish_frame(conn, len, mark, status, link->pool->options.max_queued_bytes);
}

/* TCP-15: an event carries its route as the pattern, a request the raw pattern. */
static int event_pattern(struct pge_engine *engine, struct pge_span pattern, struct pge_span *out) {
    *out = pattern;
    if (pattern.n && pattern.p[0] == '"')
        return 0; /* a string is its own route */
    struct pge_span route;
    int status = pge_packet_address(engine, pattern, &route);
    if (status != 0)
        return status < 0 ? status : 0; /* true, false and null stay as they are */
    pge_buf_clear(&engine->scratch);
    status = pge_json_quote(&engine->scratch, route.p, route.n);
    *out = (struct pge_span){pge_buf_head(&engine->scratch), pge_buf_len(&engine->scratch)};
    return status;
}

int pge_tcp_link_emit(struct pge_link *link, struct pge_call *call, const struct pge_message *m) {
    struct pge_conn *conn = link_of(link)->conn;
    (void)call; /* nothing acknowledges it */
    struct pge_span pattern = m->pattern;
    int status = m->packet.p ? 0 : event_pattern(link->pool->engine, m->pattern, &pattern);
    if (status < 0)
        return status;
    size_t len = pge_buf_len(&conn->out), mark = 0;
    status = pge_nest_frame_begin(&conn->out, &mark);
    if (status == 0)
        status = pge_packet_event(&conn->out, m, pattern);
    return pge_tcp_finish_frame(conn, len, mark, status, link->pool->options.max_queued_bytes);
}

void pge_tcp_link_forget(struct pge_link *link, struct pge_call *call) {
    (void)link; /* nothing on this wire tells the server (nest-wire 1.5) */
    (void)call;
}

size_t pge_tcp_link_queued(const struct pge_link *link) {
    return pge_conn_queued(container_of(link, const struct pge_tcp_link, base)->conn);
}

void pge_tcp_link_close(struct pge_link *link) {
    struct pge_tcp_link *self = link_of(link);
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
