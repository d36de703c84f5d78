/*
 * redis_channels.h - channels by name. A client's are the reply channels it listens on, each with a
 * count of the calls that need it (nest-wire 3.2; RED-01..03); a server's are its subscriptions, of
 * which only the name and `user` are used. No I/O.
 *
 *   first call: ASKED, SUBSCRIBE -> acknowledged: OPEN, those who waited publish
 *   last call ends: OPEN -> UNSUBSCRIBE at the end of the turn;  ASKED: when acknowledged
 */
#ifndef PGE_TRANSPORT_REDIS_CHANNELS_H
#define PGE_TRANSPORT_REDIS_CHANNELS_H

#include <stdbool.h>

#include "base/buffer.h"
#include "base/list.h"

/* Where a call stands: on a channel, or waiting for it to open. */
struct pge_redis_place {
    struct pge_redis_channel *channel;
    bool is_waiting;
};

struct pge_redis_channel {
    struct pge_redis_place place; /* of those whose request was published */
    struct pge_list node;         /* of its bucket */
    struct pge_list of_idle;      /* channels->idle while it is open and nobody needs it */
    struct pge_list waiting;      /* the owner's: to be published when it is open */
    void *user;                   /* the owner's, NULL at first */
    uint64_t hash;
    unsigned calls;
    bool is_asked; /* its SUBSCRIBE was sent */
    bool is_open;  /* and acknowledged */
    size_t n;
    char name[]; /* the route, without ".reply" */
};

struct pge_redis_channels {
    struct pge_list *buckets; /* owned; NULL while there were never any */
    size_t mask;              /* buckets - 1 */
    size_t count;
    uint64_t seed; /* routes may come from outside: nobody may choose what collides */
    struct pge_list idle;
};

void pge_redis_channels_init(struct pge_redis_channels *channels, uint64_t seed);
/* Frees every channel; nothing may wait on any. */
void pge_redis_channels_deinit(struct pge_redis_channels *channels);

/* The channel of that name; NULL: none. */
struct pge_redis_channel *pge_redis_channels_find(const struct pge_redis_channels *channels,
                                                  struct pge_span name);
/* The same, made when there is none: not open, nobody needs it. NULL: out of memory. */
struct pge_redis_channel *pge_redis_channels_get(struct pge_redis_channels *channels,
                                                 struct pge_span name);
/* Counts a call in and out. The last one out of an open channel puts it among the idle. */
void pge_redis_channel_enter(struct pge_redis_channel *channel);
void pge_redis_channel_leave(struct pge_redis_channels *channels,
                             struct pge_redis_channel *channel);
/* Its SUBSCRIBE was acknowledged. */
void pge_redis_channel_opened(struct pge_redis_channels *channels,
                              struct pge_redis_channel *channel);
/* Nobody needs it and nothing waits on it. */
void pge_redis_channel_free(struct pge_redis_channels *channels, struct pge_redis_channel *channel);

#endif
