/*
 * redis_session.c - the server's connection, which comes and goes: dial, subscribe the handlers'
 * channels, be up, be lost.
 *
 *   dial -> session: pair ready -> SUBSCRIBE each -> acknowledged -> up -> lost -> dial ...
 */
#include <stdio.h>
#include <uv.h>

#include "base/alloc.h"
#include "transport/redis.h"

/* What the reply to a command on the subscribing connection is for. */
enum { TAG_SUBSCRIBE = PGE_REDIS_TAG_FIRST, TAG_LATE_SUBSCRIBE, TAG_LEAVE };

static struct pge_redis_peer *peer_of(struct pge_peer *peer) {
    return container_of(peer, struct pge_redis_peer, base);
}

static struct pge_redis_session *of_pair(struct pge_redis_pair *pair) {
    return container_of(pair, struct pge_redis_session, pair);
}

/* ---- sessions ---- */

/* Lets go of the current session; its end is awaited elsewhere. */
void pge_redis_peer_drop(struct pge_redis_peer *self, bool flush) {
    struct pge_redis_session *session = self->session;
    if (!session)
        return;
    session->is_dropped = true;
    self->session = NULL;
    pge_redis_pair_close(&session->pair, flush);
}

static void be_down(struct pge_redis_peer *self, enum pge_fault fault, const char *message) {
    pge_redis_peer_drop(self, false);
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
        status = pge_redis_conn_wrote(pub, PGE_REDIS_TAG_PUBLISH);
    self->kept_count = 0;
    pge_buf_deinit(&self->kept);
}

/* Asks for what the list has and the session has not asked for. < 0: the connection is down. */
static int subscribe_all(struct pge_redis_session *session) {
    struct pge_redis_peer *self = session->peer;
    const struct pge_list *all = &self->base.server->subscriptions;
    for (struct pge_list *n = all->next; n != all; n = n->next) {
        struct pge_subscription *subscription = container_of(n, struct pge_subscription, node);
        struct pge_span name = pge_resp_arg(subscription->route);
        if (self->has_channels && pge_redis_channels_find(&self->channels, name))
            continue;
        int status = enter(self, subscription);
        if (status == 0)
            status = subscribe(self, subscription->route, TAG_SUBSCRIBE);
        if (status < 0) {
            be_down(self, PGE_CONNECT_FAILED, uv_strerror(status));
            return status;
        }
        session->awaited++;
    }
    return 0;
}

/* By name and not by what the entry points to: the list changes unannounced while there is no
 * session that is up. NULL: nobody wants it any more. */
static struct pge_subscription *find_listed(const struct pge_redis_peer *self,
                                            const struct pge_redis_channel *channel) {
    const struct pge_list *all = &self->base.server->subscriptions;
    for (struct pge_list *n = all->next; n != all; n = n->next) {
        struct pge_subscription *subscription = container_of(n, struct pge_subscription, node);
        if (strlen(subscription->route) == channel->n &&
            memcmp(subscription->route, channel->name, channel->n) == 0)
            return subscription;
    }
    return NULL;
}

struct pge_subscription *pge_redis_peer_find(const struct pge_redis_peer *self,
                                             struct pge_span name) {
    const struct pge_redis_channel *channel =
        self->has_channels ? pge_redis_channels_find(&self->channels, name) : NULL;
    if (!channel)
        return NULL;
    return pge_redis_peer_up(self) ? channel->user : find_listed(self, channel);
}

/* Calls visit with each entry, which it may free. */
static void each_channel(struct pge_redis_peer *self,
                         void (*visit)(struct pge_redis_peer *, struct pge_redis_channel *)) {
    for (size_t i = 0; self->has_channels && i <= self->channels.mask; i++) {
        struct pge_list *bucket = &self->channels.buckets[i];
        for (struct pge_list *n = bucket->next, *next; n != bucket; n = next) {
            next = n->next;
            visit(self, container_of(n, struct pge_redis_channel, node));
        }
    }
}

static void forget_user(struct pge_redis_peer *self, struct pge_redis_channel *channel) {
    (void)self;
    channel->user = NULL;
}

static void drop_unlisted(struct pge_redis_peer *self, struct pge_redis_channel *channel) {
    if (channel->user)
        return;
    unsubscribe(self, (struct pge_span){channel->name, channel->n}, 0);
    pge_redis_channel_free(&self->channels, channel);
}

/* Entries point to what is listed from now on, and what is not is unsubscribed. */
static void settle_channels(struct pge_redis_peer *self) {
    const struct pge_list *all = &self->base.server->subscriptions;
    each_channel(self, forget_user);
    for (struct pge_list *n = all->next; n != all; n = n->next)
        enter(self, container_of(n, struct pge_subscription, node)); /* it is there: cannot fail */
    each_channel(self, drop_unlisted);
}

/* All that was asked for is there: is it what is wanted by now? */
static void maybe_up(struct pge_redis_session *session) {
    struct pge_redis_peer *self = session->peer;
    if (subscribe_all(session) < 0 || session->awaited)
        return;
    settle_channels(self);
    session->is_up = true;
    send_kept(self);
    pge_peer_up(&self->base);
}

static void on_ready(struct pge_redis_pair *pair) {
    struct pge_redis_session *session = of_pair(pair);
    struct pge_redis_peer *self = session->peer;
    if (session->is_dropped)
        return;
    if (self->has_channels)
        pge_redis_channels_deinit(&self->channels); /* those of an earlier session */
    self->has_channels = false;
    maybe_up(session);
}

static void on_lost(struct pge_redis_pair *pair, enum pge_fault fault, const char *message) {
    struct pge_redis_session *session = of_pair(pair);
    if (!session->is_dropped)
        be_down(session->peer, fault, message);
}

void pge_redis_peer_maybe_gone(struct pge_redis_peer *self) {
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
    pge_redis_peer_maybe_gone(self);
}

static void on_drain(struct pge_redis_pair *pair) {
    struct pge_redis_session *session = of_pair(pair);
    if (!session->is_dropped)
        pge_peer_drained(&session->peer->base);
}

/* ---- replies of the broker ---- */

void pge_redis_peer_complain(struct pge_redis_peer *self, const char *what, struct pge_span text) {
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
        maybe_up(session);
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
        pge_redis_peer_complain(session->peer, "Redis refused to subscribe", text);
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
        pge_redis_peer_complain(session->peer, "Redis refused a reply", reply->items[0].text);
}

static void on_push(struct pge_redis_pair *pair, const struct pge_resp_reply *reply) {
    struct pge_redis_session *session = of_pair(pair);
    if (!session->is_dropped && !session->peer->base.is_closing)
        pge_redis_peer_push(session->peer, reply);
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
    pge_redis_peer_drop(peer_of(peer), false);
}

int pge_redis_peer_subscribe(struct pge_peer *peer, struct pge_subscription *subscription) {
    struct pge_redis_peer *self = peer_of(peer);
    if (!pge_redis_peer_up(self))
        return 0; /* a session that begins looks at the list once more in the end */
    int status = enter(self, subscription);
    return status < 0 ? status : subscribe(self, subscription->route, TAG_LATE_SUBSCRIBE);
}

void pge_redis_peer_unsubscribe(struct pge_peer *peer, struct pge_subscription *subscription) {
    struct pge_redis_peer *self = peer_of(peer);
    struct pge_span name = pge_resp_arg(subscription->route);
    struct pge_redis_channel *channel =
        self->has_channels ? pge_redis_channels_find(&self->channels, name) : NULL;
    if (!channel || channel->user != subscription || !pge_redis_peer_up(self))
        return;
    unsubscribe(self, name, 0);
    pge_redis_channel_free(&self->channels, channel);
}

void pge_redis_peer_leave(struct pge_peer *peer) {
    struct pge_redis_peer *self = peer_of(peer);
    struct pge_redis_session *session = pge_redis_peer_up(self);
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
