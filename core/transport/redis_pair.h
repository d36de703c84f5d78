/*
 * redis_pair.h - the two connections each side of the Redis transport has: in RESP2 one that has
 * subscribed cannot publish (nest-wire 3.2). With Sentinel there is a third, which says where the
 * master is, and tells when that changes.
 *
 *   [watch: ask Sentinel] -> pub: log in, ROLE must be master \
 *                         -> sub: log in                       > on_ready, when both are
 *   any of pub and sub lost, or the master switched -> on_lost, once
 */
#ifndef PGE_TRANSPORT_REDIS_PAIR_H
#define PGE_TRANSPORT_REDIS_PAIR_H

#include "transport/redis_conn.h"

struct pge_redis_pair;

/* Borrowed until on_closed. */
struct pge_redis_options {
    struct pge_redis_login login;
    struct pge_tls *tls;       /* of the server; NULL: plain */
    const char *sentinel_name; /* of the master; the host dialled is then a Sentinel. NULL: none */
    struct pge_redis_login sentinel_login;
    bool sentinel_tls; /* tls is for the Sentinel too */
};

/* All are always set; each comes inside engine->enter, but on_closed. */
struct pge_redis_pair_events {
    void (*on_ready)(struct pge_redis_pair *pair);
    /* The reply to a command of pub, and of sub; tag was given with it. */
    void (*on_pub_reply)(struct pge_redis_pair *pair, uint64_t tag,
                         const struct pge_resp_reply *reply);
    void (*on_sub_reply)(struct pge_redis_pair *pair, uint64_t tag,
                         const struct pge_resp_reply *reply);
    void (*on_push)(struct pge_redis_pair *pair, const struct pge_resp_reply *reply);
    /* CONNECT_FAILED before it was ready. Nothing follows but on_closed, after close. */
    void (*on_lost)(struct pge_redis_pair *pair, enum pge_fault fault, const char *message);
    void (*on_drain)(struct pge_redis_pair *pair); /* all that was to be published was written */
    void (*on_closed)(struct pge_redis_pair *pair);
};

/* Embedded by its owner. */
struct pge_redis_pair {
    struct pge_redis_conn pub, sub;
    struct pge_redis_conn watch; /* of a Sentinel */
    const struct pge_redis_pair_events *events;
    const struct pge_redis_options *options;
    struct pge_engine *engine;
    struct pge_defer gone; /* on_closed, when all had closed before; on_lost for want of memory */
    bool is_master, is_ready, is_lost, is_closing;
};

/* Starts. 0, or < 0: could not start, nothing follows. at: host and port, or path; of the server or
 * of a Sentinel; borrowed for the call. */
int pge_redis_pair_start(struct pge_redis_pair *pair, struct pge_engine *engine,
                         const struct pge_target *at, const struct pge_redis_options *options,
                         const struct pge_redis_pair_events *events);

/* Pauses or resumes what sub brings; then on_drain after the next write of pub. */
void pge_redis_pair_read(struct pge_redis_pair *pair, bool wanted);

/* Ends it; flush: what is queued is written first. Then on_closed, not before this returns. */
void pge_redis_pair_close(struct pge_redis_pair *pair, bool flush);

#endif
