/*
 * redis_peer.c - what comes in and goes out at the server's end. Replies made while the broker is
 * away are kept, within bounds. Its connection: redis_session.c.
 */
#include <stdio.h>
#include <uv.h>

#include "base/alloc.h"
#include "transport/packet.h"
#include "transport/redis.h"

static struct pge_redis_peer *peer_of(struct pge_peer *peer) {
    return container_of(peer, struct pge_redis_peer, base);
}

static const struct pge_redis_peer *const_peer_of(const struct pge_peer *peer) {
    return container_of(peer, const struct pge_redis_peer, base);
}

/* ---- messages ---- */

static bool ends_with_reply(struct pge_span channel) {
    return channel.n >= PGE_REDIS_REPLY.n && memcmp(channel.p + channel.n - PGE_REDIS_REPLY.n,
                                                    PGE_REDIS_REPLY.p, PGE_REDIS_REPLY.n) == 0;
}

/* RED-12: a glob hears the replies to what it hears. They are nobody's events. */
static bool is_own_reply(struct pge_redis_peer *self, struct pge_span channel,
                         struct pge_span body) {
    struct pge_envelope e;
    if (!self->wants_wildcards || !ends_with_reply(channel) ||
        pge_envelope_scan(&self->base.server->engine->scan, body.p, body.n, &e) < 0)
        return false;
    return e.is_object && !e.has_foreign_key && e.id.p &&
           (e.response.p || e.err.p || e.is_disposed.p);
}

/* RED-08: a body that is no JSON is an event's data, as text. */
static void take_text(struct pge_redis_peer *self, struct pge_span body,
                      const struct pge_origin *from) {
    pge_buf_clear(&self->text);
    int status = pge_json_quote(&self->text, body.p, body.n);
    if (status == 0)
        status = pge_peer_event_from(
            &self->base, (struct pge_span){pge_buf_head(&self->text), pge_buf_len(&self->text)},
            from);
    if (status == UV_EILSEQ)
        pge_redis_peer_complain(self, "A message that is not UTF-8 was dropped", from->channel);
    else if (status < 0)
        pge_redis_peer_complain(self, uv_strerror(status), from->channel);
    pge_buf_clear(&self->text);
    pge_buf_trim(&self->text, 65536);
}

void pge_redis_peer_push(struct pge_redis_peer *self, const struct pge_resp_reply *reply) {
    struct pge_span name = reply->items[1].text;
    struct pge_span channel = reply->items[reply->count - 2].text;
    struct pge_span body = reply->items[reply->count - 1].text;
    const struct pge_subscription *subscription = pge_redis_peer_find(self, name);
    if (!subscription || is_own_reply(self, channel, body))
        return; /* it was unsubscribed while this was under way */
    struct pge_origin from = {
        .subscription = subscription, .channel = channel, .reply_to = channel};
    int status = pge_peer_packet_from(&self->base, body, &from);
    if (status == UV_EPROTO)
        take_text(self, body, &from);
    else if (status < 0)
        pge_redis_peer_complain(self, uv_strerror(status), channel);
}

/* ---- ops of a peer ---- */

/* A reply on its way into out: the connection's, or what is kept while there is none. */
struct draft {
    struct pge_redis_session *session; /* NULL: it is kept */
    struct pge_buf *out;
    struct pge_resp_open open;
};

/* 1: begun. 0: there is no room, it is dropped; its client has long been told of the loss. */
static int begin_reply(struct pge_redis_peer *self, const struct pge_request *request,
                       struct draft *draft) {
    struct pge_span channel = pge_request_reply_to(request);
    draft->session = pge_redis_peer_up(self);
    if (draft->session && draft->session->pair.pub.conn->failed)
        draft->session = NULL; /* it is about to be lost */
    if (draft->session)
        draft->out = pge_redis_conn_out(&draft->session->pair.pub);
    else if (pge_buf_len(&self->kept) < self->base.server->options.pause_queued_bytes)
        draft->out = &self->kept;
    else {
        pge_redis_peer_complain(self, "A reply was dropped while Redis is away", channel);
        return 0;
    }
    int status = pge_resp_publish_open(draft->out, channel, PGE_REDIS_REPLY, &draft->open);
    return status < 0 ? status : 1;
}

/* Ends it, or takes it back. */
static int finish_reply(struct pge_redis_peer *self, struct draft *draft, int status) {
    size_t most = self->base.server->options.max_queued_bytes;
    if (status == 0)
        status = pge_resp_publish_close(draft->out, &draft->open);
    if (status == 0 && pge_buf_len(draft->out) - draft->open.len > most)
        status = UV_EMSGSIZE;
    if (status == 0 && draft->session)
        status = pge_redis_conn_wrote(&draft->session->pair.pub, PGE_REDIS_TAG_PUBLISH);
    else if (status == 0)
        self->kept_count++;
    if (status < 0)
        pge_resp_publish_undo(draft->out, &draft->open);
    return status;
}

int pge_redis_peer_reply(struct pge_peer *peer, const struct pge_request *request,
                         enum pge_reply kind, const struct pge_payload *body) {
    struct pge_redis_peer *self = peer_of(peer);
    struct draft draft;
    int status = begin_reply(self, request, &draft);
    if (status <= 0)
        return status;
    status = pge_packet_reply(draft.out, pge_request_id(request), kind, body);
    return finish_reply(self, &draft, status);
}

int pge_redis_peer_no_handler(struct pge_peer *peer, const struct pge_request *request) {
    struct pge_redis_peer *self = peer_of(peer);
    struct draft draft;
    int status = begin_reply(self, request, &draft);
    if (status <= 0)
        return status;
    status = pge_packet_no_handler(draft.out, pge_request_id(request));
    return finish_reply(self, &draft, status);
}

size_t pge_redis_peer_queued(const struct pge_peer *peer) {
    const struct pge_redis_session *session = pge_redis_peer_up(const_peer_of(peer));
    return session ? pge_redis_conn_queued(&session->pair.pub) : 0;
}

uint64_t pge_redis_peer_taken(const struct pge_peer *peer) {
    const struct pge_redis_session *session = pge_redis_peer_up(const_peer_of(peer));
    return session ? pge_redis_conn_taken(&session->pair.pub) : 0;
}

void pge_redis_peer_read(struct pge_peer *peer, bool wanted) {
    struct pge_redis_session *session = pge_redis_peer_up(peer_of(peer));
    if (session)
        pge_redis_pair_read(&session->pair, wanted);
}

void pge_redis_peer_probe(struct pge_peer *peer) {
    (void)peer; /* a broker is never half closed */
}

void pge_redis_peer_name(const struct pge_peer *peer, char *out, size_t size) {
    const struct pge_redis_session *session = const_peer_of(peer)->session;
    if (session)
        pge_redis_conn_name(&session->pair.pub, out, size);
    else
        snprintf(out, size, "redis");
}

static void on_gone(struct pge_defer *defer) {
    pge_redis_peer_maybe_gone(container_of(defer, struct pge_redis_peer, gone));
}

void pge_redis_peer_close(struct pge_peer *peer, bool flush) {
    struct pge_redis_peer *self = peer_of(peer);
    if (self->is_closing)
        return;
    self->is_closing = true;
    pge_defer_init(&self->gone, on_gone);
    pge_redis_peer_drop(self, flush);
    if (self->sessions == 0)
        pge_loop_defer(peer->server->engine->loop, &self->gone, PGE_SOON);
}
