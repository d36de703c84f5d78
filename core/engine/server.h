/*
 * server.h - a message server: packets of its peers come in, go to on_message, and are answered.
 *
 *   peer --packet--> on_message(request) ... pge_request_reply(VALUE)* then LAST, END or ERROR -->
 * peer
 *
 * A VALUE is held until the end of the turn, so that an END in the same turn is merged into it as
 * Nest does (nest-wire 1.7). What transports see of the server side is here too: struct pge_peer,
 * pge_peer_*.
 */
#ifndef PGE_ENGINE_SERVER_H
#define PGE_ENGINE_SERVER_H

#include "engine/client.h"
#include "engine/engine.h"
#include "net/backoff.h"
#include "transport/transport.h"

struct pge_server;
struct pge_peer;
struct pge_request;

/* What came in; everything is lent until on_message returns. */
struct pge_inbound_message {
    struct pge_peer *peer;
    struct pge_request *request;             /* NULL: an event that wants no verdict */
    struct pge_span pattern, data, metadata; /* JSON texts; p NULL: absent */
    bool is_event;                           /* request, if any, wants pge_request_settle */
    /* Of brokers; else 0 and p NULL. pattern then is the channel's (nest-wire 1.4), whatever the
     * packet says. */
    unsigned subscription;   /* place in the list last given, from 1 */
    struct pge_span channel; /* concrete; text */
    struct pge_headers headers;
};

/* Requests are allotted in chunks, and there are never more than slots. */
enum { PGE_REQUEST_CHUNK = 64, PGE_REQUEST_SLOTS = 1 << 20 };

/* Longer addresses for a reply are nobody's: the message is refused. */
enum { PGE_MAX_REPLY_TO = 4096 };

/* A server over a broker, on its way. Others are ready once pge_server_new returns. */
enum pge_server_status {
    PGE_SERVER_READY,       /* subscribed, for the first time */
    PGE_SERVER_FAILED,      /* instead of READY: it never will be; close it */
    PGE_SERVER_LOST,        /* after READY; it dials until it is */
    PGE_SERVER_RECONNECTED, /* and subscribed */
};

struct pge_server_events {
    void (*on_message)(struct pge_server *server, const struct pge_inbound_message *m);
    /* The peer left before the request was answered, or an earlier value was too large for it. The
     * request is gone. */
    void (*on_gone)(struct pge_server *server, struct pge_request *request);
    /* A peer was cut off for breaking the protocol, or for not reading; or a value was too large
     * for it. */
    void (*on_fault)(struct pge_server *server, struct pge_peer *peer, enum pge_fault fault,
                     const char *message);
    /* After close or drain; the server is freed when it returns. */
    void (*on_closed)(struct pge_server *server);
    /* Of servers over brokers. fault and message: of FAILED and LOST. Not before new returns. */
    void (*on_status)(struct pge_server *server, enum pge_server_status status,
                      enum pge_fault fault, const char *message);
};

/* What a handler hears on a broker. */
struct pge_subscription {
    struct pge_list node;         /* server->subscriptions, in order of index */
    char *route;                  /* owned; as text, wildcards as the handler has them */
    struct pge_settings settings; /* owned; of the handler: queue */
    unsigned index;               /* in the list last given, from 1 */
    uint64_t sid;                 /* the transport's */
};

enum { PGE_MAX_SUBSCRIPTIONS = 4096 };

/* One entry of a list to be subscribed; borrowed for the call but for settings, which is taken. */
struct pge_wish {
    const char *route;
    struct pge_settings settings;
};

/* Texts and tls are owned by whoever holds the options; a server takes them over. */
struct pge_server_options {
    const struct pge_transport *transport;
    struct pge_host_options hosts[PGE_MAX_HOSTS]; /* of a broker, tried in turn */
    unsigned host_count;
    uint64_t connect_timeout_ms;  /* of each */
    struct pge_settings settings; /* the transport's own options */
    char *host;                   /* NULL with path or name, and for brokers */
    uint16_t port;
    char *path;
    char *name; /* local */
    struct pge_tls *tls;
    size_t max_frame_units;
    size_t max_queued_bytes;   /* output one peer does not read: beyond, it is cut */
    size_t pause_queued_bytes; /* beyond, it is not read either */
    uint64_t incomplete_ms, write_timeout_ms;
    unsigned max_peers;    /* beyond, accepting pauses */
    unsigned max_requests; /* unanswered, of all peers: beyond, answered OVERLOADED */
    int backlog;
};

void pge_server_options_deinit(struct pge_server_options *options);

/* Binds and listens. Takes options over, also on failure. NULL: *why says it. */
struct pge_server *pge_server_new(struct pge_engine *engine, struct pge_server_options *options,
                                  const struct pge_server_events *events, void *owner,
                                  struct pge_failure *why);
void *pge_server_owner(const struct pge_server *server);
bool pge_server_is_ready(const struct pge_server *server);

/*
 * For brokers: what the server hears from now on, the whole list; what it had before and has no
 * more is unsubscribed, what stays is not touched. To be called once before the end of the turn in
 * which it was made, and at will later. wishes' settings are taken over, also on failure. 0; or
 * UV_EINVAL, UV_ENOMEM, UV_E2BIG with *why filled and nothing changed.
 */
int pge_server_subscribe(struct pge_server *server, struct pge_wish *wishes, unsigned count,
                         struct pge_failure *why);
/* Whether it could, as far as that can be said before it is done: nothing changes, nothing is taken
 * over. */
int pge_server_check_wishes(struct pge_server *server, const struct pge_wish *wishes,
                            unsigned count, struct pge_failure *why);
void pge_server_address(const struct pge_server *server, char *out, size_t size);

/* Takes no new peers while held. */
void pge_server_hold(struct pge_server *server, bool held);
/* No new peers; each peer closes when its last request is answered; then on_closed. */
void pge_server_drain(struct pge_server *server);
/* All peers are cut (on_gone for their requests); then on_closed. */
void pge_server_close(struct pge_server *server);

/* A number below 2^53 that names a request for good; find gives NULL once it is answered or gone.
 */
double pge_request_handle(const struct pge_request *request);
struct pge_request *pge_server_request(struct pge_server *server, double handle);
void **pge_request_user(struct pge_request *request); /* the owner's own pointer, NULL at first */
struct pge_peer *pge_request_peer(const struct pge_request *request);

/* body unset: no `response`. After LAST, END, ERROR the request is gone. 0; UV_EINVAL, UV_EILSEQ,
 * UV_EMSGSIZE: the body cannot be sent and the request still wants an end; UV_ENOMEM: the peer is
 * cut. */
int pge_request_reply(struct pge_request *request, enum pge_reply kind,
                      const struct pge_payload *body);
/* For an event that wants a verdict. The request is gone. */
void pge_request_settle(struct pge_request *request, enum pge_verdict verdict);
/* Nest's no-handler packet. The request is gone. */
void pge_request_no_handler(struct pge_request *request);
/* {"status":"error","code":CODE,"message":text} as `err`. The request is gone. */
void pge_request_fail(struct pge_request *request, enum pge_fault fault, const char *message);

void pge_peer_name(const struct pge_peer *peer, char *out, size_t size);

/* ---- for transports ---- */

struct pge_peer {
    struct pge_server *server;
    struct pge_list node;     /* server->peers */
    struct pge_list requests; /* unanswered */
    unsigned pending;
    bool is_closing;
    bool is_half_closed; /* it will send no more, but reads */
    bool is_paused;      /* not read from, until it reads */
    bool is_leaving;     /* a broker was told to send no more; counted in pending until it has */
    struct pge_timer
        stall;            /* no progress in writing; after a half close: the wait for its answers */
    uint64_t taken;       /* what it had read when stall was armed */
    uint64_t leave_at;    /* a half-closed peer is let go */
    struct pge_list lost; /* server->lost, until the owner is told */
    enum pge_fault fault;
    char why[200];
    char name[72]; /* of a lost peer: its socket no longer tells */
};

/* A new peer, linked; NULL: out of memory, or the server is closing. */
struct pge_peer *pge_peer_new(struct pge_server *server);
/* One JSON packet. 0, or UV_EPROTO: not JSON (engine->scan.error). */
int pge_peer_packet(struct pge_peer *peer, struct pge_span packet);
/* The same of a broker: engine/broker.h has more. UV_EMSGSIZE: reply_to is too long. */
int pge_peer_packet_from(struct pge_peer *peer, struct pge_span packet,
                         const struct pge_origin *from);
/* For bodies that are no packet: an event with this data (JSON, validated by the caller). */
int pge_peer_event_from(struct pge_peer *peer, struct pge_span data, const struct pge_origin *from);
/* The peer sends no more. It is closed when its requests are answered. */
void pge_peer_half_closed(struct pge_peer *peer);
/* All queued output was written. */
void pge_peer_drained(struct pge_peer *peer);
/* The connection broke, or must be cut. fault NONE: the peer just left. */
void pge_peer_lost(struct pge_peer *peer, enum pge_fault fault, const char *message);
/* The last word after peer_close: frees it. */
void pge_peer_closed(struct pge_peer *peer);
/* The last word after unserve. */
void pge_server_stopped(struct pge_server *server);

struct pge_request {
    struct pge_list node;      /* peer->requests, or the server's free list */
    struct pge_list held_node; /* server->holding while a value is held */
    struct pge_peer *peer;     /* NULL while free */
    uint32_t slot, generation;
    void *user;
    struct pge_buf id;       /* JSON text as received */
    struct pge_buf reply_to; /* of a broker; empty: nowhere */
    struct pge_buf held;     /* the value to be sent at the end of the turn */
    bool has_held, held_is_absent;
    bool wants_verdict; /* an event: pge_request_settle ends it, not a reply */
};

static inline struct pge_span pge_request_id(const struct pge_request *request) {
    return (struct pge_span){pge_buf_head(&request->id), pge_buf_len(&request->id)};
}

static inline struct pge_span pge_request_reply_to(const struct pge_request *request) {
    return (struct pge_span){pge_buf_head(&request->reply_to), pge_buf_len(&request->reply_to)};
}

struct pge_server {
    struct pge_engine *engine;
    struct pge_list node; /* engine->servers */
    struct pge_server_options options;
    const struct pge_server_events *events;
    void *owner;
    void *transport_data; /* the transport's: a listener */
    struct pge_list peers;
    unsigned peer_count;
    struct pge_request **chunks; /* owned, never moved */
    unsigned chunk_count, pending;
    struct pge_list free_requests, holding;
    struct pge_list lost; /* peers whose loss is to be told at the end of the turn */
    struct pge_defer flush_held, tell_lost, closed;
    struct pge_list subscriptions; /* of a broker: struct pge_subscription.node */
    unsigned subscription_count;
    struct pge_peer *broker; /* the one peer of a server over a broker; NULL: none, or closed */
    struct pge_timer redial;
    struct pge_backoff backoff;
    unsigned next_host, dialled_host, tried_hosts; /* tried: since all failed, or it was up */
    bool is_up;                                    /* the broker's connection */
    bool is_ready;                                 /* it was up once, or there is no broker */
    bool is_serving;                               /* unserve was not called */
    bool is_stopped;                               /* the transport has said its last word */
    bool is_closing, is_draining, is_full, is_held;
};

/* ---- between server.c and request.c ---- */

/* NULL: out of memory or slots. */
struct pge_request *pge_request_acquire(struct pge_peer *peer, struct pge_span id,
                                        struct pge_span reply_to);
/* Returns the slot; a half-closed or draining peer that is owed nothing more is closed. */
void pge_request_release(struct pge_request *request);
/* server->flush_held. */
void pge_server_flush_held(struct pge_defer *defer);
/* From now on the peer has to read something within the write timeout. */
void pge_peer_watch_writing(struct pge_peer *peer);
/* Closes a peer that is owed nothing, after its output is written; the stall timer bounds the wait.
 */
void pge_peer_finish(struct pge_peer *peer);

#endif
