/*
 * pool.h - hosts x connections, shared by the clients whose options are equal; and the calls in
 * flight. What transports see of the client side is here too: struct pge_link and pge_link_*.
 */
#ifndef PGE_ENGINE_POOL_H
#define PGE_ENGINE_POOL_H

#include "engine/client.h"
#include "net/backoff.h"

enum { PGE_ID_LEN = 21, PGE_CALL_CHUNK = 64 };

enum pge_call_kind { PGE_CALL_REQUEST, PGE_CALL_EVENT, PGE_CALL_CONNECT };

struct pge_call {
    struct pge_list of_client; /* client->calls, or the pool's free list */
    struct pge_list of_link;   /* link->calls; while link is NULL pool->waiting or pool->resuming */
    struct pge_timer timer;    /* the earlier of silence and deadline */
    struct pge_client *client; /* NULL while free */
    struct pge_link *link;
    const struct pge_call_events *events;
    void *arg;
    uint64_t timeout_ms, deadline_at; /* 0: none */
    uint32_t slot, generation;
    enum pge_call_kind kind;
    bool is_sent;           /* once: while link is NULL, it is in pool->resuming */
    char id[PGE_ID_LEN];    /* 5 hex digits of slot, 16 at random */
    void *data;             /* the transport's, from link_send to link_forget; NULL at first */
    struct pge_buf address; /* the transport's note of where it went, for its words and errors */
    /* A waiting call's pattern, data, metadata, headers and options, one after the other. */
    struct pge_buf held;
    size_t held_pattern, held_data, held_metadata;
    unsigned held_headers, held_options;
    bool held_whole; /* held data is a packet made by a custom serialiser */
};

struct pge_host {
    struct pge_pool *pool;
    const struct pge_host_options *at; /* in pool->options */
    struct pge_list links;
    unsigned link_count;
    struct pge_backoff backoff;
    uint64_t retry_at;    /* no dial before */
    unsigned tried_round; /* pool->round in which it was last dialled */
};

enum pge_link_state { PGE_LINK_CONNECTING, PGE_LINK_READY, PGE_LINK_CLOSING };

struct pge_link {
    const struct pge_transport *transport;
    struct pge_pool *pool;
    struct pge_host *host;
    struct pge_list node;  /* host->links */
    struct pge_list calls; /* in flight on it */
    unsigned pending;
    enum pge_link_state state;
    bool is_leaving; /* its broker goes soon: others are used for what is new */
    char why[160];   /* the transport's words for what it just refused to send; "": the engine's */
};

struct pge_pool {
    struct pge_engine *engine;
    struct pge_list node; /* engine->pools */
    struct pge_pool_options options;
    struct pge_list clients; /* all that share it, open or closed */
    unsigned users;          /* of these, is_user */
    struct pge_host hosts[PGE_MAX_HOSTS];
    unsigned ready, connecting, links; /* links: all, those closing too */
    unsigned closing;
    unsigned next_host, round;
    struct pge_call **chunks; /* owned: PGE_CALL_CHUNK calls each, never moved */
    unsigned chunk_count;
    struct pge_list free_calls;
    unsigned pending;
    struct pge_list waiting; /* calls without a link, in order */
    unsigned waiting_count;
    size_t waiting_bytes;
    struct pge_list resuming; /* sent on a link that broke; the next one may bring their answers */
    struct pge_timer retry;   /* the next dial that nobody has to ask for */
    struct pge_backoff backoff;
    uint64_t nonce[2]; /* random: names that no other pool has, the same over reconnects */
    bool was_ready;    /* at least once since its users opened it */
    bool is_offline;   /* the last link was lost, or the last round of dials failed */
    uint64_t late_replies, dropped, reconnects;
    char last_error[256];
};

struct pge_client {
    struct pge_pool *pool;
    struct pge_list node; /* pool->clients */
    struct pge_list calls;
    struct pge_list doomed; /* calls that a close is failing */
    unsigned pending;
    const struct pge_client_events *events;
    void *owner;
    struct pge_defer failing;    /* the doomed calls are told */
    struct pge_defer closed;     /* on_closed */
    bool is_user;                /* made, or used, since it was last closed: it keeps the links */
    bool is_open;                /* used since then */
    bool is_closing;             /* on_closed is to come */
    bool is_orphan;              /* pge_client_free was called */
    enum pge_client_status told; /* what the last on_status said */
};

/* ---- pool.c ---- */

/* Finds or makes the pool of equal options, which it takes over. NULL: out of memory. */
struct pge_pool *pge_pool_acquire(struct pge_engine *engine, struct pge_pool_options *options);
/* A client leaves; the last one out frees the pool when its links are closed. */
void pge_pool_release(struct pge_pool *pool);
/* The ready link to use now; NULL: none. */
struct pge_link *pge_pool_pick(struct pge_pool *pool);
/* Sees to it that a link is on its way. 0, or UV_ECONNREFUSED with pool->last_error: every host
 * failed a moment ago (the pool tries again by itself for calls that wait however long). */
int pge_pool_dial(struct pge_pool *pool);
/* Why there is no connection; in Nest's words where a broker's was lost (nest-wire 1.13). */
void pge_pool_explain(const struct pge_pool *pool, char *out, size_t size);
/* No call has to wait for a first dial: there was one, and it failed or its link was lost. */
static inline bool pge_pool_is_offline(const struct pge_pool *pool) {
    return pool->is_offline && !pool->ready;
}
void pge_pool_close_links(struct pge_pool *pool);

/* ---- between pool.c and link.c ---- */

/* Dials the next host that is due and was not tried in this round. UV_ENOENT: there is none. */
int pge_pool_dial_next(struct pge_pool *pool);
/* Whether it dials though nobody asks: a broker's pool that had a link keeps one while it is used,
 * and calls may wait however long. */
bool pge_pool_wants_link(const struct pge_pool *pool);
/* Sees to a dial after a while, if it wants a link and none is on its way. */
void pge_pool_retry_later(struct pge_pool *pool);
void pge_pool_init_host(struct pge_pool *pool, unsigned i);
/* Out of the books, so that nothing picks it; its memory stays until pge_link_closed. */
void pge_link_retire(struct pge_link *link);

/* ---- call.c ---- */

struct pge_call *pge_call_acquire(struct pge_client *client, const struct pge_call_options *options,
                                  enum pge_call_kind kind); /* NULL: out of memory or slots */
/* Unlinks, disarms and returns the slot; nobody is told. */
void pge_call_release(struct pge_call *call);
/* Starts or restarts the clock of silence. */
void pge_call_arm(struct pge_call *call);
/* Whether it waits for a connection however often dialling fails. */
bool pge_call_is_patient(const struct pge_call *call);
/* Puts it on a ready link that has taken it. */
void pge_call_attach(struct pge_call *call, struct pge_link *link);
/* Releases, then tells. Transports use it for what they know about one call: nobody listens
 * (PGE_NO_HANDLER), the broker refused it. */
void pge_call_fail(struct pge_call *call, enum pge_fault fault, const char *message);
/* The call with that id, be it a request or an event that waits for its acknowledgement; NULL:
 * none. */
struct pge_call *pge_pool_find_call(struct pge_pool *pool, struct pge_span id);
void pge_pool_free_calls(struct pge_pool *pool);
/* Keeps a copy of m until a link is ready. 0 or as pge_payload.write. */
int pge_call_hold(struct pge_call *call, const struct pge_message *m);
/* Hands a held call to a ready link. */
void pge_call_unhold(struct pge_call *call, struct pge_link *link);

/* ---- for transports ---- */

/* It may be used now. */
void pge_link_ready(struct pge_link *link);
/* It could not connect, or broke: its calls fail with fault (CONNECT_FAILED before it was ready),
 * and it is closed. message is for people. */
void pge_link_lost(struct pge_link *link, enum pge_fault fault, const char *message);
/* One JSON reply packet (nest-wire 1.6). 0, or UV_EPROTO: not JSON (engine->scan.error says why).
 */
int pge_link_packet(struct pge_link *link, struct pge_span packet);
/* The same for a call that its address names (an inbox, nest-wire 4.2): a packet without id is for
 * it, one with another id is dropped, a foreign one is its value. */
int pge_link_packet_for(struct pge_link *link, struct pge_call *call, struct pge_span packet);
/* The call on this link with that id (text, no quotes); NULL: none. Counts it as late then. */
struct pge_call *pge_link_call(struct pge_link *link, struct pge_span id);
/* Its broker has said that it goes soon: another address is dialled now, and used from then on. */
void pge_link_leave(struct pge_link *link);
/* A broker's other addresses: tried after those that were given. Known ones, and more than
 * PGE_MAX_HOSTS, are ignored. */
void pge_link_learn(struct pge_link *link, const char *host, uint16_t port);
/* A reply for a call found otherwise. */
void pge_link_reply(struct pge_call *call, enum pge_reply kind, struct pge_span body);
/* The last word after link_close: frees the link. */
void pge_link_closed(struct pge_link *link);

#endif
