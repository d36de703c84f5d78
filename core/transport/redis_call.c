/*
 * redis_call.c - how calls get on and off their reply channels: requests are published once the
 * channel is subscribed, and it is left when nobody waits on it any more (RED-01..03).
 *
 *   send -> channel open?  yes: PUBLISH           no: SUBSCRIBE, the PUBLISH waits beside it
 *   call over -> last one on the channel?  it is idle until the end of the turn, then UNSUBSCRIBE
 */
#include <stdio.h>
#include <uv.h>

#include "base/alloc.h"
#include "codec/route.h"
#include "transport/packet.h"
#include "transport/redis.h"

/* A request whose channel is not open yet. */
struct wait {
    struct pge_redis_place place; /* first */
    struct pge_list node;         /* channel->waiting */
    struct pge_call *call;
    struct pge_buf command; /* the whole PUBLISH; empty: it was sent on an earlier link */
};

static struct pge_redis_link *link_of(struct pge_link *link) {
    return container_of(link, struct pge_redis_link, base);
}

static struct pge_engine *engine_of(const struct pge_redis_link *self) {
    return self->base.pool->engine;
}

static struct pge_span name_of(const struct pge_redis_channel *channel) {
    return (struct pge_span){channel->name, channel->n};
}

/* ---- a call as the tag of its PUBLISH ---- */

enum { SLOT_BITS = 20 };

static uint64_t tag_of(const struct pge_redis_link *self, const struct pge_call *call) {
    bool is_loud = call->kind == PGE_CALL_EVENT || self->needs_receivers;
    uint64_t tag = (uint64_t)call->generation << SLOT_BITS | call->slot;
    return is_loud ? tag : tag | PGE_REDIS_QUIET;
}

/* NULL: it is over. */
struct pge_call *pge_redis_link_find(const struct pge_redis_link *self, uint64_t tag) {
    const struct pge_pool *pool = self->base.pool;
    uint32_t slot = (uint32_t)(tag & ((1u << SLOT_BITS) - 1));
    if (slot / PGE_CALL_CHUNK >= pool->chunk_count)
        return NULL;
    struct pge_call *call = &pool->chunks[slot / PGE_CALL_CHUNK][slot % PGE_CALL_CHUNK];
    bool same = call->client && call->link == &self->base && call->generation == tag >> SLOT_BITS;
    return same ? call : NULL;
}

/* ---- channels ---- */

/* SUBSCRIBE or UNSUBSCRIBE; tag: the channel, or 0 for a reply that says nothing new. */
static int ask(struct pge_redis_link *self, const char *verb,
               const struct pge_redis_channel *channel, uint64_t tag) {
    struct pge_buf *name = &engine_of(self)->scratch;
    pge_buf_clear(name);
    int status = pge_buf_append(name, channel->name, channel->n);
    if (status == 0)
        status = pge_buf_append(name, PGE_REDIS_REPLY.p, PGE_REDIS_REPLY.n);
    if (status < 0)
        return status;
    struct pge_span args[] = {{verb, strlen(verb)}, {pge_buf_head(name), pge_buf_len(name)}};
    return pge_redis_conn_command(&self->pair.sub, tag, 1, args, 2);
}

/* The end of a turn, so that a call that follows another finds its channel open. Nobody can be told
 * of a failure, and need not be: the connection has broken. */
void pge_redis_link_sweep(struct pge_defer *defer) {
    struct pge_redis_link *self = container_of(defer, struct pge_redis_link, sweep);
    while (!pge_list_is_empty(&self->channels.idle)) {
        struct pge_redis_channel *channel =
            container_of(self->channels.idle.next, struct pge_redis_channel, of_idle);
        ask(self, "UNSUBSCRIBE", channel, 0);
        pge_redis_channel_free(&self->channels, channel);
    }
}

static void sweep_later(struct pge_redis_link *self) {
    if (!pge_list_is_empty(&self->channels.idle))
        pge_loop_defer(engine_of(self)->loop, &self->sweep, PGE_SOON);
}

static void leave(struct pge_redis_link *self, struct pge_redis_channel *channel) {
    pge_redis_channel_leave(&self->channels, channel);
    if (!channel->is_asked && channel->calls == 0)
        pge_redis_channel_free(&self->channels, channel);
    sweep_later(self);
}

static void free_wait(struct pge_redis_link *self, struct wait *wait) {
    self->waiting_bytes -= pge_buf_len(&wait->command);
    pge_list_remove(&wait->node);
    pge_buf_deinit(&wait->command);
    pge_free(wait);
}

/* Sends what a request waited with. */
static int publish_wait(struct pge_redis_link *self, const struct wait *wait) {
    size_t n = pge_buf_len(&wait->command);
    if (n == 0)
        return 0;
    struct pge_buf *out = pge_redis_conn_out(&self->pair.pub);
    size_t len = pge_buf_len(out);
    int status = pge_buf_append(out, pge_buf_head(&wait->command), n);
    if (status == 0)
        status = pge_redis_conn_wrote(&self->pair.pub, tag_of(self, wait->call));
    if (status < 0)
        out->end = out->start + len;
    return status;
}

void pge_redis_link_opened(struct pge_redis_link *self, struct pge_redis_channel *channel) {
    pge_redis_channel_opened(&self->channels, channel);
    while (!pge_list_is_empty(&channel->waiting)) {
        struct wait *wait = container_of(channel->waiting.next, struct wait, node);
        struct pge_call *call = wait->call;
        int status = publish_wait(self, wait);
        call->data = &channel->place;
        free_wait(self, wait);
        if (status < 0)
            pge_call_fail(call, PGE_OVERLOADED, uv_strerror(status));
    }
    sweep_later(self);
}

/* What the broker says of one call. */
void pge_redis_call_refuse(struct pge_call *call, struct pge_span text) {
    struct pge_buf json = {0};
    if (pge_json_quote(&json, text.p, text.n) == 0)
        pge_link_reply(call, PGE_REPLY_ERROR,
                       (struct pge_span){pge_buf_head(&json), pge_buf_len(&json)});
    else
        pge_call_fail(call, PGE_CONNECTION_CLOSED, "Redis refused the message");
    pge_buf_deinit(&json);
}

/* -NOPERM: those who waited have no way of being answered. Calls made while they are told ask
 * anew. */
void pge_redis_link_refused(struct pge_redis_link *self, struct pge_redis_channel *channel,
                            struct pge_span text) {
    struct pge_list refused;
    pge_list_init(&refused);
    pge_list_splice(&refused, &channel->waiting);
    channel->is_asked = false;
    pge_redis_channel_enter(channel); /* it stays while we look at it */
    while (self->base.state == PGE_LINK_READY && !pge_list_is_empty(&refused))
        pge_redis_call_refuse(container_of(refused.next, struct wait, node)->call, text);
    pge_list_splice(&channel->waiting, &refused); /* of a link that closes */
    if (self->base.state == PGE_LINK_READY)
        leave(self, channel);
}

/*
 * Calls that wait for the next link take with them what it needs: the channel's name, and the
 * command if it was not sent.
 */
void pge_redis_link_pack(struct pge_redis_link *self) {
    for (struct pge_list *n = self->base.calls.next; n != &self->base.calls; n = n->next) {
        struct pge_call *call = container_of(n, struct pge_call, of_link);
        struct pge_redis_place *place = call->data;
        if (call->kind != PGE_CALL_REQUEST || !place || pge_buf_len(&call->held))
            continue;
        int status = pge_buf_append(&call->held, &place->channel->n, sizeof place->channel->n);
        if (status == 0)
            status = pge_buf_append(&call->held, place->channel->name, place->channel->n);
        if (status == 0 && place->is_waiting) {
            struct pge_buf *command = &container_of(place, struct wait, place)->command;
            status = pge_buf_append(&call->held, pge_buf_head(command), pge_buf_len(command));
        }
        if (status < 0)
            pge_buf_deinit(&call->held); /* link_resume then fails it */
    }
}

void pge_redis_link_free_waits(struct pge_redis_link *self) {
    for (size_t i = 0; self->channels.buckets && i <= self->channels.mask; i++) {
        struct pge_list *bucket = &self->channels.buckets[i];
        for (struct pge_list *n = bucket->next; n != bucket; n = n->next) {
            struct pge_redis_channel *channel = container_of(n, struct pge_redis_channel, node);
            while (!pge_list_is_empty(&channel->waiting))
                free_wait(self, container_of(channel->waiting.next, struct wait, node));
        }
    }
}

/* ---- ops ---- */

/* The channel of a pattern. */
static int route_of(struct pge_redis_link *self, struct pge_span pattern, struct pge_span *out) {
    int status = pge_packet_address(engine_of(self), pattern, out);
    return status == PGE_ROUTE_ABSENT ? UV_EINVAL : status < 0 ? status : 0;
}

/* Appends a whole PUBLISH to out. id p NULL: an event. */
static int write_publish(struct pge_redis_link *self, struct pge_buf *out, struct pge_span route,
                         const struct pge_message *m, struct pge_span id) {
    struct pge_resp_open open;
    int status = pge_resp_publish_open(out, route, (struct pge_span){"", 0}, &open);
    if (status < 0)
        return status;
    status = id.p ? pge_packet_request(out, m, id) : pge_packet_event(out, m, (struct pge_span){0});
    if (status == 0)
        status = pge_resp_publish_close(out, &open);
    if (status == 0 && pge_buf_len(out) - open.len > self->base.pool->options.max_queued_bytes)
        status = UV_EMSGSIZE;
    if (status < 0)
        pge_resp_publish_undo(out, &open);
    return status;
}

static int publish(struct pge_redis_link *self, struct pge_call *call, struct pge_span route,
                   const struct pge_message *m, struct pge_span id) {
    struct pge_buf *out = pge_redis_conn_out(&self->pair.pub);
    size_t len = pge_buf_len(out);
    int status = write_publish(self, out, route, m, id);
    if (status == 0)
        status = pge_redis_conn_wrote(&self->pair.pub, tag_of(self, call));
    if (status < 0)
        out->end = out->start + len;
    return status;
}

/* Puts a request beside a channel that is not open yet; asks for it when nobody has. The wait's
 * command is still to be written. 0, UV_ENOMEM, UV_EPIPE. */
static int wait_for(struct pge_redis_link *self, struct pge_redis_channel *channel,
                    struct pge_call *call, struct wait **out) {
    struct wait *wait = pge_calloc(1, sizeof *wait);
    if (!wait)
        return UV_ENOMEM;
    int status =
        channel->is_asked ? 0 : ask(self, "SUBSCRIBE", channel, (uint64_t)(uintptr_t)channel);
    if (status < 0) {
        pge_free(wait);
        return status;
    }
    channel->is_asked = true;
    wait->place = (struct pge_redis_place){channel, true};
    wait->call = call;
    pge_list_push(&channel->waiting, &wait->node);
    *out = wait;
    return 0;
}

static int send_to(struct pge_redis_link *self, struct pge_redis_channel *channel,
                   struct pge_call *call, const struct pge_message *m) {
    struct wait *wait;
    if (channel->is_open) {
        int status = publish(self, call, name_of(channel), m, pge_call_id(call));
        if (status == 0)
            call->data = &channel->place;
        return status;
    }
    int status = wait_for(self, channel, call, &wait);
    if (status < 0)
        return status;
    status = write_publish(self, &wait->command, name_of(channel), m, pge_call_id(call));
    self->waiting_bytes += pge_buf_len(&wait->command);
    if (status < 0)
        free_wait(self, wait);
    else
        call->data = &wait->place;
    return status;
}

static int enter_channel(struct pge_redis_link *self, struct pge_span name,
                         struct pge_redis_channel **channel) {
    *channel = pge_redis_channels_get(&self->channels, name);
    if (!*channel)
        return UV_ENOMEM;
    pge_redis_channel_enter(*channel);
    return 0;
}

int pge_redis_link_send(struct pge_link *link, struct pge_call *call, const struct pge_message *m) {
    struct pge_redis_link *self = link_of(link);
    struct pge_redis_channel *channel;
    struct pge_span route;
    int status = route_of(self, m->pattern, &route);
    if (status == 0)
        status = enter_channel(self, route, &channel);
    if (status < 0)
        return status;
    status = send_to(self, channel, call, m);
    if (status < 0)
        leave(self, channel);
    return status;
}

/* RED-05: an event is done when the broker has answered. */
int pge_redis_link_emit(struct pge_link *link, struct pge_call *call, const struct pge_message *m) {
    struct pge_redis_link *self = link_of(link);
    if (!call)
        return PGE_EMIT_ACKED;
    struct pge_span route;
    int status = route_of(self, m->pattern, &route);
    if (status == 0)
        status = publish(self, call, route, m, (struct pge_span){0});
    return status < 0 ? status : PGE_EMIT_ACKED;
}

int pge_redis_link_resume(struct pge_link *link, struct pge_call *call) {
    struct pge_redis_link *self = link_of(link);
    struct pge_redis_channel *channel;
    struct wait *wait;
    struct pge_buf held = call->held;
    size_t n;
    if (pge_buf_len(&held) < sizeof n)
        return UV_EINVAL;
    memcpy(&n, pge_buf_head(&held), sizeof n);
    pge_buf_consume(&held, sizeof n);
    int status = enter_channel(self, (struct pge_span){pge_buf_head(&held), n}, &channel);
    if (status < 0)
        return status;
    status = wait_for(self, channel, call, &wait);
    size_t rest = pge_buf_len(&held) - n;
    if (status == 0) {
        status = pge_buf_append(&wait->command, pge_buf_head(&held) + n, rest);
        if (status < 0)
            free_wait(self, wait);
    }
    if (status < 0) {
        leave(self, channel);
        return status;
    }
    self->waiting_bytes += rest;
    call->data = &wait->place;
    pge_buf_deinit(&call->held);
    return 0;
}

void pge_redis_link_forget(struct pge_link *link, struct pge_call *call) {
    struct pge_redis_link *self = link_of(link);
    struct pge_redis_place *place = call->data;
    if (!place)
        return; /* an event */
    struct pge_redis_channel *channel = place->channel;
    if (place->is_waiting)
        free_wait(self, container_of(place, struct wait, place));
    call->data = NULL;
    leave(self, channel);
}
