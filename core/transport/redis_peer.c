/*
 * redis_peer.c - the server's end: subscribes its handlers' channels, and publishes what they
 * answer. Its connection comes and goes as a session; replies made in between are kept, within
 * bounds.
 *
 *   dial -> session: pair ready -> SUBSCRIBE each -> acknowledged -> up -> lost -> dial ...
 */
#include <stdio.h>
#include <uv.h>

#include "base/alloc.h"
#include "transport/packet.h"
#include "transport/redis.h"

/* What the reply to a command on the subscribing connection is for. */
enum { TAG_SUBSCRIBE = PGE_REDIS_TAG_FIRST, TAG_LATE_SUBSCRIBE, TAG_LEAVE };

static struct pge_redis_peer *peer_of(struct pge_peer *peer) {
    return container_of(peer, struct pge_redis_peer, base);
}

static const struct pge_redis_peer *const_peer_of(const struct pge_peer *peer) {
    return container_of(peer, const struct pge_redis_peer, base);
}

static struct pge_redis_session *of_pair(struct pge_redis_pair *pair) {
    return container_of(pair, struct pge_redis_session, pair);
}

/* The session while it counts; NULL: there is none, or it is not up. */
static struct pge_redis_session *up_session(const struct pge_redis_peer *self) {
    return self->session && self->session->is_up ? self->session : NULL;
}

/* ---- sessions ---- */

/* Lets go of the current session; its end is awaited elsewhere. */
static void drop(struct pge_redis_peer *self, bool flush) {
    struct pge_redis_session *session = self->session;
    if (!session)
        return;
    session->is_dropped = true;
    self->session = NULL;
    pge_redis_pair_close(&session->pair, flush);
}

static void be_down(struct pge_redis_peer *self, enum pge_fault fault, const char *message) {
    drop(self, false);
    pge_peer_down(&self->base, fault, message);
}

static int subscribe(const struct pge_redis_peer *self, const char *route, uint64_t tag) {
    struct pge_span args[] = {pge_resp_arg(self->wants_wildcards ? "PSUBSCRIBE" : "SUBSCRIBE"),
                              pge_resp_arg(route)};
    return pge_redis_conn_command(&self->session->pair.sub, tag, 1, args, 2);
}

static int unsubscribe(const struct pge_redis_peer *self, struct pge_span name, uint64_t tag) {
    struct pge_span args[] = {pge_resp_arg(self->wants_wildcards ? "PUNSUBSCRIBE" : "UNSUBSCRIBE"),
                              name};
    return pge_redis_conn_command(&self->session->pair.sub, tag, 1, args, 2);
}

/* Finds a subscription by its name from now on. */
static int enter(struct pge_redis_peer *self, struct pge_subscription *subscription) {
    if (!self->has_channels) {
        pge_redis_channels_init(&self->channels, pge_loop_random(self->base.server->engine->loop));
        self->has_channels = true;
    }
    struct pge_redis_channel *channel =
        pge_redis_channels_get(&self->channels, pge_resp_arg(subscription->route));
    if (!channel)
        return UV_ENOMEM;
    channel->user = subscription;
    return 0;
}

/* Replies made while there was no connection go out first. */
static void send_kept(struct pge_redis_peer *self) {
    struct pge_redis_conn *pub = &self->session->pair.pub;
    size_t n = pge_buf_len(&self->kept);
    int status = n ? pge_buf_append(pge_redis_conn_out(pub), pge_buf_head(&self->kept), n) : 0;
    for (; status == 0 && self->kept_count; self->kept_count--)
        status = pge_redis_conn_wrote(pub, 0);
    self->kept_count = 0;
    pge_buf_deinit(&self->kept);
}

static void be_up(struct pge_redis_session *session) {
    struct pge_redis_peer *self = session->peer;
    session->is_up = true;
    send_kept(self);
    pge_peer_up(&self->base);
}

static void on_ready(struct pge_redis_pair *pair) {
    struct pge_redis_session *session = of_pair(pair);
    struct pge_redis_peer *self = session->peer;
    const struct pge_list *all = &self->base.server->subscriptions;
    if (session->is_dropped)
        return;
    if (self->has_channels)
        pge_redis_channels_deinit(&self->channels); /* the list may have changed meanwhile */
    self->has_channels = false;
    for (struct pge_list *n = all->next; n != all; n = n->next) {
        struct pge_subscription *subscription = container_of(n, struct pge_subscription, node);
        int status = enter(self, subscription);
        if (status == 0)
            status = subscribe(self, subscription->route, TAG_SUBSCRIBE);
        if (status < 0) {
            be_down(self, PGE_CONNECT_FAILED, uv_strerror(status));
            return;
        }
        session->awaited++;
    }
    if (session->awaited == 0)
        be_up(session);
}

static void on_lost(struct pge_redis_pair *pair, enum pge_fault fault, const char *message) {
    struct pge_redis_session *session = of_pair(pair);
    if (!session->is_dropped)
        be_down(session->peer, fault, message);
}

static void maybe_gone(struct pge_redis_peer *self) {
    if (!self->is_closing || self->sessions)
        return;
    if (self->has_channels)
        pge_redis_channels_deinit(&self->channels);
    pge_buf_deinit(&self->kept);
    pge_buf_deinit(&self->text);
    pge_peer_closed(&self->base);
}

static void on_closed(struct pge_redis_pair *pair) {
    struct pge_redis_session *session = of_pair(pair);
    struct pge_redis_peer *self = session->peer;
    pge_free(session);
    self->sessions--;
    maybe_gone(self);
}

static void on_drain(struct pge_redis_pair *pair) {
    struct pge_redis_session *session = of_pair(pair);
    if (!session->is_dropped)
        pge_peer_drained(&session->peer->base);
}

/* ---- replies of the broker ---- */

static void complain(struct pge_redis_peer *self, const char *what, struct pge_span text) {
    char message[192];
    snprintf(message, sizeof message, "%s: %.*s", what, (int)(text.n < 120 ? text.n : 120), text.p);
    pge_peer_complain(&self->base, PGE_REMOTE, message);
}

static void acknowledged(struct pge_redis_session *session) {
    if (session->awaited == 0 || --session->awaited)
        return;
    if (session->is_leaving)
        pge_peer_left(&session->peer->base);
    else if (!session->is_up)
        be_up(session);
}

/* A handler that cannot be heard is no server: at the start it fails, later it is tried again. */
static void on_sub_reply(struct pge_redis_pair *pair, uint64_t tag,
                         const struct pge_resp_reply *reply) {
    struct pge_redis_session *session = of_pair(pair);
    char message[192];
    if (session->is_dropped)
        return;
    if (reply->is_array) {
        if (tag == TAG_LEAVE || (tag == TAG_SUBSCRIBE && !session->is_leaving))
            acknowledged(session);
        return;
    }
    struct pge_span text = reply->items[0].text;
    if (tag != TAG_SUBSCRIBE) {
        complain(session->peer, "Redis refused to subscribe", text);
        return;
    }
    snprintf(message, sizeof message, "Redis refused to subscribe: %.*s",
             (int)(text.n < 120 ? text.n : 120), text.p);
    be_down(session->peer, PGE_CONNECT_FAILED, message);
}

static void on_pub_reply(struct pge_redis_pair *pair, uint64_t tag,
                         const struct pge_resp_reply *reply) {
    struct pge_redis_session *session = of_pair(pair);
    (void)tag;
    if (!session->is_dropped && reply->count == 1 && reply->items[0].kind == PGE_RESP_ERROR)
        complain(session->peer, "Redis refused a reply", reply->items[0].text);
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
        complain(self, "A message that is not UTF-8 was dropped", from->channel);
    else if (status < 0)
        complain(self, uv_strerror(status), from->channel);
    pge_buf_clear(&self->text);
    pge_buf_trim(&self->text, 65536);
}

static void on_push(struct pge_redis_pair *pair, const struct pge_resp_reply *reply) {
    struct pge_redis_session *session = of_pair(pair);
    struct pge_redis_peer *self = session->peer;
    if (session->is_dropped || self->base.is_closing)
        return;
    struct pge_span name = reply->items[1].text;
    struct pge_span channel = reply->items[reply->count - 2].text;
    struct pge_span body = reply->items[reply->count - 1].text;
    struct pge_redis_channel *entry = pge_redis_channels_find(&self->channels, name);
    if (!entry || is_own_reply(self, channel, body))
        return; /* it was unsubscribed while this was under way */
    struct pge_origin from = {.subscription = entry->user, .channel = channel, .reply_to = channel};
    int status = pge_peer_packet_from(&self->base, body, &from);
    if (status == UV_EPROTO)
        take_text(self, body, &from);
    else if (status < 0)
        complain(self, uv_strerror(status), channel);
}

static const struct pge_redis_pair_events pair_events = {
    .on_ready = on_ready,
    .on_pub_reply = on_pub_reply,
    .on_sub_reply = on_sub_reply,
    .on_push = on_push,
    .on_lost = on_lost,
    .on_drain = on_drain,
    .on_closed = on_closed,
};

/* ---- ops of the broker ---- */

int pge_redis_check_route(const struct pge_settings *settings, const char *route, char *why,
                          size_t size) {
    (void)settings; /* any bytes are a channel's name */
    (void)route;
    (void)why;
    (void)size;
    return 0;
}

int pge_redis_peer_dial(struct pge_peer *peer, const struct pge_host_options *at) {
    struct pge_redis_peer *self = peer_of(peer);
    const struct pge_server_options *o = &peer->server->options;
    struct pge_target target = pge_redis_target(at);
    pge_redis_read_options(&o->settings, o->tls, o->connect_timeout_ms, o->max_frame_units,
                           &self->options);
    self->wants_wildcards = pge_settings_flag(&o->settings, "wildcards");
    struct pge_redis_session *session = pge_calloc(1, sizeof *session);
    if (!session)
        return UV_ENOMEM;
    session->peer = self;
    int status = pge_redis_pair_start(&session->pair, peer->server->engine, &target, &self->options,
                                      &pair_events);
    if (status < 0) {
        pge_free(session);
        return status;
    }
    self->session = session;
    self->sessions++;
    return 0;
}

void pge_redis_peer_hangup(struct pge_peer *peer) {
    drop(peer_of(peer), false);
}

int pge_redis_peer_subscribe(struct pge_peer *peer, struct pge_subscription *subscription) {
    struct pge_redis_peer *self = peer_of(peer);
    int status = enter(self, subscription);
    if (status == 0 && up_session(self))
        status = subscribe(self, subscription->route, TAG_LATE_SUBSCRIBE);
    return status;
}

void pge_redis_peer_unsubscribe(struct pge_peer *peer, struct pge_subscription *subscription) {
    struct pge_redis_peer *self = peer_of(peer);
    struct pge_span name = pge_resp_arg(subscription->route);
    struct pge_redis_channel *channel =
        self->has_channels ? pge_redis_channels_find(&self->channels, name) : NULL;
    if (!channel || channel->user != subscription)
        return;
    pge_redis_channel_free(&self->channels, channel);
    if (up_session(self))
        unsubscribe(self, name, 0);
}

void pge_redis_peer_leave(struct pge_peer *peer) {
    struct pge_redis_peer *self = peer_of(peer);
    struct pge_redis_session *session = up_session(self);
    const struct pge_list *all = &peer->server->subscriptions;
    if (session) {
        session->is_leaving = true;
        for (struct pge_list *n = all->next; n != all; n = n->next) {
            const char *route = container_of(n, struct pge_subscription, node)->route;
            if (unsubscribe(self, pge_resp_arg(route), TAG_LEAVE) == 0)
                session->awaited++;
        }
    }
    if (!session || session->awaited == 0)
        pge_peer_left(peer);
}

void pge_redis_peer_settle(struct pge_peer *peer, struct pge_request *request,
                           enum pge_verdict verdict) {
    (void)peer; /* Redis asks for no verdicts */
    (void)request;
    (void)verdict;
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
    draft->session = up_session(self);
    if (draft->session && draft->session->pair.pub.conn->failed)
        draft->session = NULL; /* it is about to be lost */
    if (draft->session)
        draft->out = pge_redis_conn_out(&draft->session->pair.pub);
    else if (pge_buf_len(&self->kept) < self->base.server->options.pause_queued_bytes)
        draft->out = &self->kept;
    else {
        complain(self, "A reply was dropped while Redis is away", channel);
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
        status = pge_redis_conn_wrote(&draft->session->pair.pub, 0);
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
    const struct pge_redis_session *session = up_session(const_peer_of(peer));
    return session ? pge_redis_conn_queued(&session->pair.pub) : 0;
}

uint64_t pge_redis_peer_taken(const struct pge_peer *peer) {
    const struct pge_redis_session *session = up_session(const_peer_of(peer));
    return session ? pge_redis_conn_taken(&session->pair.pub) : 0;
}

void pge_redis_peer_read(struct pge_peer *peer, bool wanted) {
    struct pge_redis_session *session = up_session(peer_of(peer));
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
    maybe_gone(container_of(defer, struct pge_redis_peer, gone));
}

void pge_redis_peer_close(struct pge_peer *peer, bool flush) {
    struct pge_redis_peer *self = peer_of(peer);
    if (self->is_closing)
        return;
    self->is_closing = true;
    pge_defer_init(&self->gone, on_gone);
    drop(self, flush);
    if (self->sessions == 0)
        pge_loop_defer(peer->server->engine->loop, &self->gone, PGE_SOON);
}
