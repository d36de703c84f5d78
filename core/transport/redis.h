/*
 * redis.h - what the files of the Redis transport share: redis_link.c and redis_call.c, the
 * client's end, redis_session.c and redis_peer.c, the server's. The contract of the ops is
 * transport.h's. Beneath them are redis_pair.h, the connections of one end, and redis_channels.h.
 */
#ifndef PGE_TRANSPORT_REDIS_H
#define PGE_TRANSPORT_REDIS_H

#include "engine/broker.h"
#include "engine/pool.h"
#include "engine/server.h"
#include "transport/redis_channels.h"
#include "transport/redis_pair.h"

/* What both roles read from their options; texts are the settings'. max_bytes: of one payload. */
void pge_redis_read_options(const struct pge_settings *settings, struct pge_tls *tls,
                            uint64_t connect_timeout_ms, size_t max_bytes,
                            struct pge_redis_options *out);
/* The target of one of the engine's hosts. */
struct pge_target pge_redis_target(const struct pge_host_options *at);

/* The channel of replies is the request's and this (nest-wire 3.2). */
#define PGE_REDIS_REPLY ((struct pge_span){".reply", 6})

/* A server's PUBLISH: only that it was refused is of interest. Apart from the pair's own tags. */
#define PGE_REDIS_TAG_PUBLISH (PGE_REDIS_QUIET | (PGE_REDIS_TAG_FIRST + 16))

struct pge_redis_link {
    struct pge_link base; /* first */
    struct pge_redis_pair pair;
    struct pge_redis_options options;
    struct pge_redis_channels channels;
    struct pge_defer sweep; /* unsubscribes from idle channels */
    size_t waiting_bytes;   /* of commands that wait for a channel */
    bool needs_receivers;   /* a request that nobody receives fails at once */
};

/* ---- redis_call.c, for redis_link.c ---- */

/* The call whose PUBLISH had that tag; NULL: it is over. */
struct pge_call *pge_redis_link_find(const struct pge_redis_link *self, uint64_t tag);
/* Redis' word on one call: it fails with that as `err`. */
void pge_redis_call_refuse(struct pge_call *call, struct pge_span text);
/* The SUBSCRIBE of a channel was acknowledged, or refused. */
void pge_redis_link_opened(struct pge_redis_link *self, struct pge_redis_channel *channel);
void pge_redis_link_refused(struct pge_redis_link *self, struct pge_redis_channel *channel,
                            struct pge_span text);
/* Unsubscribes from what is idle; on_turn of self->sweep. */
void pge_redis_link_sweep(struct pge_defer *defer);
/* Before a ready link is lost: packs calls that may wait for the next one for link_resume. */
void pge_redis_link_pack(struct pge_redis_link *self);
/* The link ends: what waited is freed, its calls are not touched. */
void pge_redis_link_free_waits(struct pge_redis_link *self);

/* ---- ops of a link ---- */

int pge_redis_link_connect(struct pge_link *link);
int pge_redis_link_send(struct pge_link *link, struct pge_call *call, const struct pge_message *m);
int pge_redis_link_emit(struct pge_link *link, struct pge_call *call, const struct pge_message *m);
int pge_redis_link_resume(struct pge_link *link, struct pge_call *call);
void pge_redis_link_forget(struct pge_link *link, struct pge_call *call);
size_t pge_redis_link_queued(const struct pge_link *link);
void pge_redis_link_close(struct pge_link *link);

/* One connection of a server to the broker; the peer goes through several. */
struct pge_redis_session {
    struct pge_redis_pair pair;
    struct pge_redis_peer *peer;
    unsigned awaited; /* acknowledgements before it is up, or has left */
    bool is_up, is_leaving;
    bool is_dropped; /* let go of: only its end is still to come */
};

struct pge_redis_peer {
    struct pge_peer base; /* first */
    struct pge_redis_options options;
    struct pge_redis_session *session;  /* owned; the current one, NULL: none */
    unsigned sessions;                  /* those let go of, too */
    struct pge_redis_channels channels; /* user: struct pge_subscription */
    struct pge_buf kept;                /* replies made while the broker was down */
    unsigned kept_count;
    struct pge_buf text; /* of a body that is no JSON, as a JSON string */
    struct pge_defer gone;
    bool has_channels, wants_wildcards, is_closing;
};

/* ---- between redis_session.c and redis_peer.c ---- */

/* The session while it can be used; NULL: there is none, or it is not up. */
static inline struct pge_redis_session *pge_redis_peer_up(const struct pge_redis_peer *self) {
    return self->session && self->session->is_up ? self->session : NULL;
}
/* What delivers messages of that name, a channel's or a glob's; NULL: nothing any more. */
struct pge_subscription *pge_redis_peer_find(const struct pge_redis_peer *self,
                                             struct pge_span name);
/* Lets go of the session, if any; its end is awaited elsewhere. */
void pge_redis_peer_drop(struct pge_redis_peer *self, bool flush);
/* Frees what is left once it was closed and its sessions have ended. */
void pge_redis_peer_maybe_gone(struct pge_redis_peer *self);
/* Says by on_fault what the connection survives. */
void pge_redis_peer_complain(struct pge_redis_peer *self, const char *what, struct pge_span text);
/* A message. */
void pge_redis_peer_push(struct pge_redis_peer *self, const struct pge_resp_reply *reply);

/* ---- ops of a peer ---- */

int pge_redis_check_route(const struct pge_settings *settings, const char *route, char *why,
                          size_t size);
int pge_redis_peer_dial(struct pge_peer *peer, const struct pge_host_options *at);
void pge_redis_peer_hangup(struct pge_peer *peer);
int pge_redis_peer_subscribe(struct pge_peer *peer, struct pge_subscription *subscription);
void pge_redis_peer_unsubscribe(struct pge_peer *peer, struct pge_subscription *subscription);
void pge_redis_peer_leave(struct pge_peer *peer);
void pge_redis_peer_settle(struct pge_peer *peer, struct pge_request *request,
                           enum pge_verdict verdict);
int pge_redis_peer_reply(struct pge_peer *peer, const struct pge_request *request,
                         enum pge_reply kind, const struct pge_payload *body);
int pge_redis_peer_no_handler(struct pge_peer *peer, const struct pge_request *request);
size_t pge_redis_peer_queued(const struct pge_peer *peer);
uint64_t pge_redis_peer_taken(const struct pge_peer *peer);
void pge_redis_peer_read(struct pge_peer *peer, bool wanted);
void pge_redis_peer_probe(struct pge_peer *peer);
void pge_redis_peer_name(const struct pge_peer *peer, char *out, size_t size);
void pge_redis_peer_close(struct pge_peer *peer, bool flush);

#endif
