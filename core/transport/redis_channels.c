/* redis_channels.c - a hash table of counted channels. */
#include "transport/redis_channels.h"

#include "base/alloc.h"

enum { FIRST_BUCKETS = 16 };

void pge_redis_channels_init(struct pge_redis_channels *channels, uint64_t seed) {
    *channels = (struct pge_redis_channels){.seed = seed};
    pge_list_init(&channels->idle);
}

void pge_redis_channels_deinit(struct pge_redis_channels *channels) {
    for (size_t i = 0; channels->buckets && i <= channels->mask; i++)
        while (!pge_list_is_empty(&channels->buckets[i]))
            pge_redis_channel_free(
                channels, container_of(channels->buckets[i].next, struct pge_redis_channel, node));
    pge_free(channels->buckets);
    *channels = (struct pge_redis_channels){0};
}

/* FNV-1a from a random start, mixed once more at the end. */
static uint64_t hash_of(const struct pge_redis_channels *channels, struct pge_span name) {
    uint64_t hash = channels->seed ^ 0xcbf29ce484222325u;
    for (size_t i = 0; i < name.n; i++)
        hash = (hash ^ (unsigned char)name.p[i]) * 0x100000001b3u;
    hash ^= channels->seed >> 32;
    return (hash ^ (hash >> 29)) * 0xbf58476d1ce4e5b9u;
}

static struct pge_list *bucket_of(const struct pge_redis_channels *channels, uint64_t hash) {
    return &channels->buckets[(hash >> 20) & channels->mask];
}

static struct pge_redis_channel *find(const struct pge_redis_channels *channels,
                                      struct pge_span name, uint64_t hash) {
    if (!channels->buckets)
        return NULL;
    struct pge_list *bucket = bucket_of(channels, hash);
    for (struct pge_list *n = bucket->next; n != bucket; n = n->next) {
        struct pge_redis_channel *channel = container_of(n, struct pge_redis_channel, node);
        if (channel->hash == hash && channel->n == name.n &&
            memcmp(channel->name, name.p, name.n) == 0)
            return channel;
    }
    return NULL;
}

struct pge_redis_channel *pge_redis_channels_find(const struct pge_redis_channels *channels,
                                                  struct pge_span name) {
    return find(channels, name, hash_of(channels, name));
}

/* Room for one more: the buckets are doubled when there are as many channels. False: there are no
 * buckets at all for want of memory; that they cannot be doubled does no harm. */
static bool make_room(struct pge_redis_channels *channels) {
    size_t old = channels->buckets ? channels->mask + 1 : 0;
    if (old && channels->count < old)
        return true;
    size_t count = old ? old * 2 : FIRST_BUCKETS;
    struct pge_list *buckets = pge_malloc(count * sizeof *buckets);
    if (!buckets)
        return old != 0;
    struct pge_redis_channels grown = *channels;
    grown.buckets = buckets;
    grown.mask = count - 1;
    for (size_t i = 0; i < count; i++)
        pge_list_init(&buckets[i]);
    for (size_t i = 0; i < old; i++) {
        while (!pge_list_is_empty(&channels->buckets[i])) {
            struct pge_list *node = channels->buckets[i].next;
            uint64_t hash = container_of(node, struct pge_redis_channel, node)->hash;
            pge_list_remove(node);
            pge_list_push(bucket_of(&grown, hash), node);
        }
    }
    pge_free(channels->buckets);
    channels->buckets = buckets;
    channels->mask = grown.mask;
    return true;
}

struct pge_redis_channel *pge_redis_channels_get(struct pge_redis_channels *channels,
                                                 struct pge_span name) {
    uint64_t hash = hash_of(channels, name);
    struct pge_redis_channel *channel = find(channels, name, hash);
    if (channel || !make_room(channels))
        return channel;
    channel = pge_calloc(1, sizeof *channel + name.n);
    if (!channel)
        return NULL;
    channel->place.channel = channel;
    channel->hash = hash;
    channel->n = name.n;
    memcpy(channel->name, name.p, name.n);
    pge_list_init(&channel->of_idle);
    pge_list_init(&channel->waiting);
    pge_list_push(bucket_of(channels, hash), &channel->node);
    channels->count++;
    return channel;
}

void pge_redis_channel_enter(struct pge_redis_channel *channel) {
    channel->calls++;
    pge_list_remove(&channel->of_idle);
}

void pge_redis_channel_leave(struct pge_redis_channels *channels,
                             struct pge_redis_channel *channel) {
    if (--channel->calls == 0 && channel->is_open)
        pge_list_push(&channels->idle, &channel->of_idle);
}

void pge_redis_channel_opened(struct pge_redis_channels *channels,
                              struct pge_redis_channel *channel) {
    channel->is_open = true;
    if (channel->calls == 0)
        pge_list_push(&channels->idle, &channel->of_idle);
}

void pge_redis_channel_free(struct pge_redis_channels *channels,
                            struct pge_redis_channel *channel) {
    pge_list_remove(&channel->node);
    pge_list_remove(&channel->of_idle);
    channels->count--;
    pge_free(channel);
}
