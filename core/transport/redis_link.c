/* redis_link.c - the client's end: its connections, and what they bring. Calls: redis_call.c. */
#include <stdio.h>
#include <uv.h>

#include "transport/redis.h"

static struct pge_redis_link *link_of(struct pge_link *link) {
    return container_of(link, struct pge_redis_link, base);
}

static struct pge_redis_link *of_pair(struct pge_redis_pair *pair) {
    return container_of(pair, struct pge_redis_link, pair);
}

/* ---- what the connections bring ---- */

static void on_ready(struct pge_redis_pair *pair) {
    pge_link_ready(&of_pair(pair)->base);
}

static void no_receivers(struct pge_call *call) {
    const struct pge_redis_place *place = call->data;
    char text[256];
    snprintf(text, sizeof text,
             "Empty response. There are no subscribers listening to that message (\"%.*s\")",
             (int)(place->channel->n < 128 ? place->channel->n : 128), place->channel->name);
    pge_call_fail(call, PGE_NO_HANDLER, text);
}

static void on_pub_reply(struct pge_redis_pair *pair, uint64_t tag,
                         const struct pge_resp_reply *reply) {
    struct pge_redis_link *self = of_pair(pair);
    struct pge_call *call = pge_redis_link_find(self, tag);
    if (!call || reply->count != 1)
        return;
    const struct pge_resp_item *item = &reply->items[0];
    if (item->kind == PGE_RESP_ERROR)
        pge_redis_call_refuse(call, item->text);
    else if (call->kind == PGE_CALL_EVENT)
        pge_link_reply(call, PGE_REPLY_END, (struct pge_span){0});
    else if (self->needs_receivers && item->kind == PGE_RESP_INTEGER && item->number == 0)
        no_receivers(call);
}

static void on_sub_reply(struct pge_redis_pair *pair, uint64_t tag,
                         const struct pge_resp_reply *reply) {
    struct pge_redis_link *self = of_pair(pair);
    struct pge_redis_channel *channel = (struct pge_redis_channel *)(uintptr_t)tag;
    if (reply->is_array)
        pge_redis_link_opened(self, channel);
    else
        pge_redis_link_refused(self, channel, reply->items[0].text);
}

/* RED-04, RED-19: what is not JSON, or has nobody's id, is dropped and counted. */
static void on_push(struct pge_redis_pair *pair, const struct pge_resp_reply *reply) {
    struct pge_redis_link *self = of_pair(pair);
    if (pge_link_packet(&self->base, reply->items[reply->count - 1].text) < 0)
        self->base.pool->late_replies++;
}

static void on_lost(struct pge_redis_pair *pair, enum pge_fault fault, const char *message) {
    struct pge_redis_link *self = of_pair(pair);
    if (self->base.state == PGE_LINK_READY && self->base.pool->options.resumes)
        pge_redis_link_pack(self);
    pge_link_lost(&self->base, fault, message);
}

static void on_drain(struct pge_redis_pair *pair) {
    (void)pair; /* nobody was held back */
}

static void on_closed(struct pge_redis_pair *pair) {
    struct pge_redis_link *self = of_pair(pair);
    pge_defer_cancel(&self->sweep);
    pge_redis_link_free_waits(self);
    pge_redis_channels_deinit(&self->channels);
    pge_link_closed(&self->base);
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

/* ---- ops ---- */

int pge_redis_link_connect(struct pge_link *link) {
    struct pge_redis_link *self = link_of(link);
    const struct pge_pool_options *o = &link->pool->options;
    struct pge_target at = pge_redis_target(link->host->at);
    pge_redis_read_options(&o->settings, o->tls, o->connect_timeout_ms, o->max_frame_units,
                           &self->options);
    self->needs_receivers = pge_settings_flag(&o->settings, "no_responders");
    pge_redis_channels_init(&self->channels, pge_loop_random(link->pool->engine->loop));
    pge_defer_init(&self->sweep, pge_redis_link_sweep);
    return pge_redis_pair_start(&self->pair, link->pool->engine, &at, &self->options, &pair_events);
}

size_t pge_redis_link_queued(const struct pge_link *link) {
    const struct pge_redis_link *self = container_of(link, const struct pge_redis_link, base);
    return pge_redis_conn_queued(&self->pair.pub) + self->waiting_bytes;
}

void pge_redis_link_close(struct pge_link *link) {
    struct pge_redis_link *self = link_of(link);
    pge_defer_cancel(&self->sweep);
    pge_redis_pair_close(&self->pair, true);
}
