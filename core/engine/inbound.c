/* inbound.c - a packet of a peer on its way to on_message. */
#include <uv.h>

#include "codec/route.h"
#include "engine/broker.h"

/*
 * Handlers are found by the channel, whatever the packet says; but its pattern says which object a
 * channel such as {"cmd":"sum"} stands for. So it is believed where its route is the channel, and
 * the channel replaces it where it is not (nest-wire 3.2, 4.2). *out is borrowed from pattern or
 * scratch.
 */
static int pattern_of(struct pge_engine *engine, struct pge_span pattern, struct pge_span channel,
                      struct pge_span *out) {
    *out = pattern;
    if (pattern.p && pattern.n == channel.n + 2 && pattern.p[0] == '"' &&
        memcmp(pattern.p + 1, channel.p, channel.n) == 0 && !memchr(channel.p, '\\', channel.n))
        return 0;
    struct pge_buf *scratch = &engine->scratch;
    pge_buf_clear(scratch);
    if (pattern.p && pge_route(&engine->scan, pattern, scratch) >= 0 &&
        pge_buf_len(scratch) == channel.n &&
        memcmp(pge_buf_head(scratch), channel.p, channel.n) == 0)
        return 0;
    pge_buf_clear(scratch);
    int status = pge_json_quote(scratch, channel.p, channel.n);
    *out = (struct pge_span){pge_buf_head(scratch), pge_buf_len(scratch)};
    return status;
}

/* What the broker adds to a message. 0 or < 0, as pge_peer_packet_from. */
static int add_origin(struct pge_inbound_message *m, const struct pge_origin *from) {
    m->subscription = from->subscription->index;
    m->channel = from->channel;
    m->headers = from->headers;
    return pattern_of(m->peer->server->engine, m->pattern, from->channel, &m->pattern);
}

static int deliver(struct pge_inbound_message *m, struct pge_span id, bool is_request,
                   const struct pge_origin *from) {
    struct pge_server *server = m->peer->server;
    struct pge_span reply_to = from ? from->reply_to : (struct pge_span){0};
    bool wants_verdict = from && from->wants_verdict;
    if (reply_to.n > PGE_MAX_REPLY_TO)
        return UV_EMSGSIZE;
    if (is_request || wants_verdict) {
        m->request = pge_request_acquire(m->peer, id, reply_to);
        if (!m->request)
            return UV_ENOMEM;
        m->is_event = m->request->wants_verdict = wants_verdict;
        if (wants_verdict && from->body.p &&
            pge_buf_append(&m->request->held, from->body.p, from->body.n) < 0) {
            pge_request_release(m->request);
            return UV_ENOMEM;
        }
        if (server->pending > server->options.max_requests) {
            pge_request_fail(m->request, PGE_OVERLOADED, "too many requests in progress");
            return 0;
        }
    }
    int status = from ? add_origin(m, from) : 0;
    if (status == 0)
        server->events->on_message(server, m);
    else if (m->request)
        pge_request_release(m->request);
    return status;
}

int pge_peer_packet_from(struct pge_peer *peer, struct pge_span packet,
                         const struct pge_origin *from) {
    struct pge_envelope e;
    int status = pge_envelope_scan(&peer->server->engine->scan, packet.p, packet.n, &e);
    if (status < 0)
        return status;
    struct pge_inbound_message m = {.peer = peer, .pattern = e.pattern, .data = e.data};
    m.metadata = e.metadata;
    enum pge_inbound kind = pge_envelope_inbound(&e);
    if (kind == PGE_INBOUND_FOREIGN) {
        m.pattern = m.metadata = (struct pge_span){0};
        m.data = packet;
    }
    return deliver(&m, e.id, kind == PGE_INBOUND_REQUEST, from);
}

int pge_peer_packet(struct pge_peer *peer, struct pge_span packet) {
    return pge_peer_packet_from(peer, packet, NULL);
}

int pge_peer_event_from(struct pge_peer *peer, struct pge_span data,
                        const struct pge_origin *from) {
    struct pge_inbound_message m = {.peer = peer, .data = data};
    return deliver(&m, (struct pge_span){0}, false, from);
}
