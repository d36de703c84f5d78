/*
 * nats_peer.c - the server's end of the NATS transport: subscriptions, requests in, replies out.
 * The subscription a message came by says whose it is; its number on the wire names a slot here.
 *
 *   MSG subject SID reply-to size        sid = generation * SLOTS + slot -> struct pge_subscription
 */
#include <stdio.h>
#include <uv.h>

#include "base/alloc.h"
#include "transport/nats.h"
#include "transport/packet.h"

enum { SLOTS = 2 * PGE_MAX_SUBSCRIPTIONS };

static struct pge_nats_peer *of(struct pge_peer *peer) {
    return container_of(peer, struct pge_nats_peer, base);
}

static bool is_ready(const struct pge_nats_peer *self) {
    return self->conn && self->conn->state == PGE_NATS_READY;
}

/* The broker has been told of the subscriptions, or is being told. */
static bool is_told(const struct pge_nats_peer *self) {
    return self->conn && (self->conn->state == PGE_NATS_HELLO || is_ready(self));
}

/* ---- subscriptions ---- */

int pge_nats_check_route(const struct pge_settings *settings, const char *route, char *why,
                         size_t size) {
    struct pge_span subject = {route, strlen(route)};
    const char *queue = pge_settings_text(settings, "queue");
    if (pge_nats_subject_check_sub(subject) < 0) {
        snprintf(why, size, "illegal subject: '%.120s'", route);
        return UV_EINVAL;
    }
    if (queue && pge_nats_subject_check((struct pge_span){queue, strlen(queue)}) < 0) {
        snprintf(why, size, "illegal queue: '%.120s'", queue);
        return UV_EINVAL;
    }
    return 0;
}

/* Gives it a slot. 0 or UV_ENOMEM, UV_ENOBUFS. */
static int name_sid(struct pge_nats_peer *self, struct pge_subscription *subscription) {
    unsigned i = 0;
    while (i < self->slot_count && self->slots[i].subscription)
        i++;
    if (i == self->slot_count) {
        unsigned count = i ? i * 2 : 16;
        if (i >= SLOTS)
            return UV_ENOBUFS;
        struct pge_nats_slot *slots = pge_realloc(self->slots, count * sizeof *slots);
        if (!slots)
            return UV_ENOMEM;
        memset(slots + i, 0, (count - i) * sizeof *slots);
        self->slots = slots;
        self->slot_count = count;
    }
    self->slots[i].subscription = subscription;
    subscription->sid = ++self->slots[i].generation * SLOTS + i;
    return 0;
}

static const struct pge_subscription *find(const struct pge_nats_peer *self, uint64_t sid) {
    uint64_t i = sid % SLOTS;
    if (i >= self->slot_count || self->slots[i].generation != sid / SLOTS)
        return NULL;
    return self->slots[i].subscription;
}

static int write_sub(struct pge_nats_peer *self, struct pge_subscription *subscription,
                     struct pge_buf *out) {
    const char *queue = pge_settings_text(&subscription->settings, "queue");
    if (!queue)
        queue = pge_settings_text(&self->base.server->options.settings, "queue");
    struct pge_span group = {queue, queue ? strlen(queue) : 0};
    struct pge_span subject = {subscription->route, strlen(subscription->route)};
    int status = subscription->sid ? 0 : name_sid(self, subscription);
    return status < 0 ? status : pge_nats_sub(out, subject, group, subscription->sid);
}

int pge_nats_peer_subscribe(struct pge_peer *peer, struct pge_subscription *subscription) {
    struct pge_nats_peer *self = of(peer);
    if (self->consumer || !is_told(self))
        return 0; /* it looks among the subscriptions for each message; on_hello will */
    int status = write_sub(self, subscription, &self->conn->conn->out);
    return status < 0 ? status : pge_nats_conn_dirty(self->conn);
}

void pge_nats_peer_unsubscribe(struct pge_peer *peer, struct pge_subscription *subscription) {
    struct pge_nats_peer *self = of(peer);
    if (!subscription->sid)
        return;
    self->slots[subscription->sid % SLOTS].subscription = NULL;
    if (is_told(self) && pge_nats_unsub(&self->conn->conn->out, subscription->sid, 0) == 0)
        pge_nats_conn_dirty(self->conn);
}

void pge_nats_peer_leave(struct pge_peer *peer) {
    struct pge_nats_peer *self = of(peer);
    struct pge_list *list = &peer->server->subscriptions;
    if (self->consumer)
        pge_nats_consumer_leave(self->consumer);
    for (struct pge_list *n = list->next; n != list; n = n->next) {
        const struct pge_subscription *s = container_of(n, struct pge_subscription, node);
        if (s->sid)
            pge_nats_unsub(&self->conn->conn->out, s->sid, 0);
    }
    if (pge_nats_conn_ping(self->conn) < 0)
        pge_peer_left(peer);
}

/* ---- messages in ---- */

/* The first PGE_MAX_HEADERS of a block. */
static struct pge_headers read_headers(struct pge_span block, struct pge_header *at) {
    struct pge_headers headers = {.at = at};
    struct pge_nats_headers it;
    if (!block.p || pge_nats_headers_begin(&it, block) < 0)
        return headers;
    while (headers.count < PGE_MAX_HEADERS &&
           pge_nats_headers_next(&it, &at[headers.count].name, &at[headers.count].value))
        headers.count++;
    return headers;
}

/* Why a message reached no handler (NAT-11). */
static void refuse(struct pge_nats_peer *self, const struct pge_nats_event *message, int status) {
    char text[256];
    if (status == UV_ENOMEM) {
        pge_peer_lost(&self->base, PGE_OVERLOADED, "out of memory");
        return;
    }
    snprintf(text, sizeof text, "a message on '%.*s' was dropped: %s",
             (int)(message->subject.n < 100 ? message->subject.n : 100), message->subject.p,
             status == UV_EPROTO ? self->base.server->engine->scan.error : uv_strerror(status));
    pge_peer_complain(&self->base, PGE_INVALID_MESSAGE, text);
}

static void on_message(void *owner, const struct pge_nats_event *message) {
    struct pge_nats_peer *self = owner;
    struct pge_header headers[PGE_MAX_HEADERS];
    struct pge_origin from = {
        .subscription = find(self, message->sid),
        .channel = message->subject,
        .reply_to = message->reply_to,
    };
    if (self->consumer && message->sid == PGE_NATS_CONSUMER_SID) {
        pge_nats_consumer_message(self->consumer, message, read_headers(message->headers, headers));
        return;
    }
    if (!from.subscription || self->base.is_closing)
        return;
    from.headers = read_headers(message->headers, headers);
    int status = pge_peer_packet_from(&self->base, message->payload, &from);
    if (status < 0)
        refuse(self, message, status);
}

/* ---- life ---- */

/* What the connection begins with: every subscription; then the PONG says they were taken. */
static int on_hello(void *owner, struct pge_buf *out) {
    struct pge_nats_peer *self = owner;
    struct pge_list *list = &self->base.server->subscriptions;
    int status = 0;
    if (self->consumer)
        return pge_nats_consumer_hello(self->consumer, out);
    for (struct pge_list *n = list->next; n != list && status == 0; n = n->next)
        status = write_sub(self, container_of(n, struct pge_subscription, node), out);
    return status;
}

static void on_ready(void *owner) {
    struct pge_nats_peer *self = owner;
    struct pge_buf *out = &self->conn->conn->out;
    self->max_payload = self->conn->max_payload;
    if (pge_buf_append(out, pge_buf_head(&self->later), pge_buf_len(&self->later)) == 0)
        pge_nats_conn_dirty(self->conn);
    pge_buf_deinit(&self->later);
    if (self->consumer)
        pge_nats_consumer_ready(self->consumer);
    else
        pge_peer_up(&self->base);
}

static void let_go(struct pge_nats_peer *self, bool flush) {
    struct pge_nats_conn *conn = self->conn;
    self->conn = NULL;
    if (!conn)
        return;
    if (conn->conn)
        self->taken += pge_conn_taken(conn->conn);
    pge_nats_conn_close(conn, flush);
}

static void on_lost(void *owner, enum pge_fault fault, const char *text) {
    struct pge_nats_peer *self = owner;
    char why[256];
    snprintf(why, sizeof why, "%s", text); /* it may be the connection's own */
    let_go(self, false);
    pge_peer_down(&self->base, fault, why);
}

void pge_nats_peer_give_up(struct pge_nats_peer *self, const char *why) {
    on_lost(self, PGE_CONNECT_FAILED, why);
}

/* Before the first time a refusal is the end: who cannot subscribe all is not to be taken for
 * serving. */
static void on_refused(void *owner, const char *text) {
    struct pge_nats_peer *self = owner;
    if (self->base.server->is_ready)
        pge_peer_complain(&self->base, PGE_REMOTE, text);
    else
        on_lost(owner, PGE_CONNECT_FAILED, text);
}

static void on_drained(void *owner) {
    struct pge_nats_peer *self = owner;
    pge_peer_drained(&self->base);
}

static void on_pong(void *owner) {
    struct pge_nats_peer *self = owner;
    if (self->base.is_leaving)
        pge_peer_left(&self->base);
}

static void on_learnt(void *owner, const char *host, uint16_t port) {
    struct pge_nats_peer *self = owner;
    pge_peer_learn(&self->base, host, port);
}

/* To subscribe elsewhere too would bring what is published meanwhile twice: it is left to close. */
static void on_leaving(void *owner) {
    struct pge_nats_peer *self = owner;
    pge_peer_complain(&self->base, PGE_CONNECTION_CLOSED, "the NATS server is about to stop");
}

static void finish(struct pge_nats_peer *self) {
    pge_defer_cancel(&self->gone);
    pge_buf_deinit(&self->later);
    pge_nats_consumer_free(self->consumer);
    pge_free(self->slots);
    pge_peer_closed(&self->base);
}

static void on_conn_gone(void *owner) {
    struct pge_nats_peer *self = owner;
    self->conns--;
    if (self->base.is_closing && !self->conn && self->conns == 0)
        finish(self);
}

static const struct pge_nats_role role = {
    .on_hello = on_hello,
    .on_ready = on_ready,
    .on_message = on_message,
    .on_refused = on_refused,
    .on_drained = on_drained,
    .on_pong = on_pong,
    .on_learnt = on_learnt,
    .on_leaving = on_leaving,
    .on_lost = on_lost,
    .on_gone = on_conn_gone,
};

static void on_gone(struct pge_defer *defer) {
    finish(container_of(defer, struct pge_nats_peer, gone));
}

int pge_nats_peer_dial(struct pge_peer *peer, const struct pge_host_options *at) {
    struct pge_nats_peer *self = of(peer);
    const struct pge_server_options *o = &peer->server->options;
    struct pge_nats_options options = {
        .settings = &o->settings,
        .at = at,
        .tls = o->tls,
        .connect_timeout_ms = o->connect_timeout_ms,
        .max_payload = o->max_frame_units,
    };
    int status;
    if (!self->gone.on_turn) {
        pge_defer_init(&self->gone, on_gone);
        self->max_payload = PGE_NATS_PUB_MAX;
        if (pge_settings_text(&o->settings, "jetstream.stream"))
            self->consumer = pge_nats_consumer_new(self);
    }
    if (pge_settings_text(&o->settings, "jetstream.stream") && !self->consumer)
        return UV_ENOMEM;
    self->conn = pge_nats_conn_open(peer->server->engine, &options, &role, self, &status);
    if (!self->conn)
        return status;
    self->conns++;
    return 0;
}

void pge_nats_peer_hangup(struct pge_peer *peer) {
    let_go(of(peer), false);
}

/* Closing twice cuts what the first time was to be written. */
void pge_nats_peer_close(struct pge_peer *peer, bool flush) {
    struct pge_nats_peer *self = of(peer);
    let_go(self, flush);
    if (self->conns == 0)
        pge_loop_defer(peer->server->engine->loop, &self->gone, PGE_SOON);
}

/* ---- replies ---- */

struct answer {
    const struct pge_request *request;
    enum pge_reply kind;
    const struct pge_payload *body; /* NULL: no handler */
};

static int write_answer(void *arg, struct pge_buf *out) {
    const struct answer *answer = arg;
    struct pge_span id = pge_request_id(answer->request);
    if (!answer->body)
        return pge_packet_no_handler(out, id);
    return pge_packet_reply(out, id, answer->kind, answer->body);
}

static int write_text(void *arg, struct pge_buf *out) {
    const struct pge_span *text = arg;
    return pge_buf_append(out, text->p, text->n);
}

int pge_nats_peer_publish(struct pge_nats_peer *self, const struct pge_nats_publication *p) {
    if (is_ready(self)) {
        int status = pge_nats_publish(&self->conn->conn->out, p);
        return status < 0 ? status : pge_nats_conn_dirty(self->conn);
    }
    if (pge_buf_len(&self->later) > self->base.server->options.max_queued_bytes)
        return 0;
    return pge_nats_publish(&self->later, p);
}

/* To the request's inbox: now, or on the next connection. */
static int answer_with(struct pge_nats_peer *self, const struct pge_request *request,
                       int (*write)(void *arg, struct pge_buf *out), void *arg) {
    struct pge_nats_publication p = {
        .subject = pge_request_reply_to(request),
        .max_payload = self->max_payload,
        .write = write,
        .arg = arg,
    };
    if (p.subject.n == 0)
        return 0; /* nobody asked for an answer (nest-wire 4.4) */
    return pge_nats_peer_publish(self, &p);
}

int pge_nats_peer_reply(struct pge_peer *peer, const struct pge_request *request,
                        enum pge_reply kind, const struct pge_payload *body) {
    struct answer answer = {request, kind, body};
    return answer_with(of(peer), request, write_answer, &answer);
}

int pge_nats_peer_no_handler(struct pge_peer *peer, const struct pge_request *request) {
    struct answer answer = {.request = request};
    return answer_with(of(peer), request, write_answer, &answer);
}

void pge_nats_peer_settle(struct pge_peer *peer, struct pge_request *request,
                          enum pge_verdict verdict) {
    pge_nats_consumer_settle(of(peer)->consumer, request, verdict);
}

void pge_nats_peer_say(struct pge_nats_peer *self, const struct pge_request *request,
                       struct pge_span text) {
    answer_with(self, request, write_text, &text);
}

/* ---- backpressure ---- */

size_t pge_nats_peer_queued(const struct pge_peer *peer) {
    const struct pge_nats_peer *self = container_of(peer, const struct pge_nats_peer, base);
    return self->conn ? pge_nats_conn_queued(self->conn) : 0;
}

uint64_t pge_nats_peer_taken(const struct pge_peer *peer) {
    const struct pge_nats_peer *self = container_of(peer, const struct pge_nats_peer, base);
    bool is_open = self->conn && self->conn->conn;
    return self->taken + (is_open ? pge_conn_taken(self->conn->conn) : 0);
}

void pge_nats_peer_read(struct pge_peer *peer, bool wanted) {
    struct pge_nats_peer *self = of(peer);
    if (self->conn)
        pge_nats_conn_pause(self->conn, !wanted);
}

void pge_nats_peer_probe(struct pge_peer *peer) {
    (void)peer; /* a server of NATS does not half-close, and is pinged */
}

void pge_nats_peer_name(const struct pge_peer *peer, char *out, size_t size) {
    pge_broker_address(peer->server, out, size);
}
