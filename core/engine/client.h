/*
 * client.h - a client: what a script holds to reach one service. Calls go out over a pool of links
 * that clients with equal options share.
 *
 *   client --owns--> its calls;  client --shares--> pool: hosts x connections, call table, waiting
 * calls
 *
 * No callback of this header runs before the function that caused it has returned.
 */
#ifndef PGE_ENGINE_CLIENT_H
#define PGE_ENGINE_CLIENT_H

#include "engine/engine.h"
#include "transport/transport.h"

struct pge_client;
struct pge_call;
struct pge_tls;

struct pge_host_options {
    char *host; /* NULL with path */
    uint16_t port;
    char *path;        /* unix socket */
    char *server_name; /* what it must prove under TLS; NULL: host */
};

enum { PGE_MAX_HOSTS = 64, PGE_MAX_CONNECTIONS = 64 };

/* Events emitted while there is no connection, and after a first one failed or was lost. */
enum pge_offline {
    PGE_OFFLINE_FAIL,  /* they wait for the dial under way, and fail with it */
    PGE_OFFLINE_QUEUE, /* they wait until there is one, as many as may wait */
    PGE_OFFLINE_DROP,  /* they are dropped and counted */
};

/* Texts and tls are owned by whoever holds the options; a pool takes them over. */
struct pge_pool_options {
    const struct pge_transport *transport;
    char *key; /* equal keys share a pool */
    struct pge_host_options hosts[PGE_MAX_HOSTS];
    unsigned host_count;  /* >= 1 */
    unsigned connections; /* per host, 1..PGE_MAX_CONNECTIONS */
    char *name;           /* local: the server's name */
    struct pge_tls *tls;  /* NULL: plain */
    uint64_t connect_timeout_ms;
    uint64_t incomplete_ms; /* silence inside a frame; 0: off */
    size_t max_frame_units;
    size_t max_queued_bytes; /* beyond: OVERLOADED */
    unsigned max_pending;    /* calls in flight per pool, beyond: OVERLOADED */
    unsigned max_waiting;    /* of these, waiting for a connection */
    enum pge_offline offline;
    /* Requests survive a lost connection to a broker: those in flight wait for their answer on the
     * next one, new ones wait for it; all within their own timeouts. */
    bool resumes;
    bool is_raw; /* packets go unread to on_raw_packet of the one client that has this pool */
    struct pge_settings settings; /* the transport's own options */
};

void pge_pool_options_deinit(struct pge_pool_options *options);

/* Why something did not work, for people. */
struct pge_failure {
    enum pge_fault fault;
    char message[256];
};

struct pge_call_events {
    /* A reply packet. body: JSON of `response`, of `err`, or of a whole foreign packet; p NULL:
     * absent. Lent until it returns. After any kind but VALUE the call is gone. */
    void (*on_packet)(struct pge_call *call, enum pge_reply kind, struct pge_span body);
    /* The call is gone. */
    void (*on_fail)(struct pge_call *call, enum pge_fault fault, const char *message);
};

enum pge_client_status {
    PGE_CLIENT_DISCONNECTED,
    PGE_CLIENT_CONNECTED,
    PGE_CLIENT_RECONNECTING, /* follows DISCONNECTED, where the engine dials by itself */
};

struct pge_client_events {
    void (*on_status)(struct pge_client *client, enum pge_client_status status);
    void (*on_error)(struct pge_client *client,
                     const char *message);        /* a dial or a connection failed */
    void (*on_closed)(struct pge_client *client); /* after each pge_client_close */
    /* A packet that only a custom deserialiser can read; it is JSON. id: of the call it is for,
     * where the transport knows that; else p NULL. Both lent until it returns. */
    void (*on_raw_packet)(struct pge_client *client, struct pge_span packet, struct pge_span id);
};

/* Takes options over, also on failure. NULL: out of memory. Dials nothing. */
struct pge_client *pge_client_new(struct pge_engine *engine, struct pge_pool_options *options,
                                  const struct pge_client_events *events, void *owner);

/* Nobody will use the client again: it is freed once its calls have ended and its links are closed;
 * only callbacks of calls in flight still come. */
void pge_client_free(struct pge_client *client);

void *pge_client_owner(const struct pge_client *client);

struct pge_call_options {
    uint64_t timeout_ms;  /* silence before and between values; 0: none */
    uint64_t deadline_ms; /* total from now; 0: none */
    const struct pge_call_events *events;
    void *arg;
};

/* Sends a request. NULL: nothing was sent, *why is filled, no callback follows. */
struct pge_call *pge_client_send(struct pge_client *client, const struct pge_message *m,
                                 const struct pge_call_options *options, struct pge_failure *why);

/* Sends an event. 1: handed to the wire (or dropped, as PGE_OFFLINE_DROP says), no callback. 0:
 * waits for a connection, or for a broker's acknowledgement (timeout_ms bounds that); then
 * on_packet(END) or on_fail. < 0: *why is filled. */
int pge_client_emit(struct pge_client *client, const struct pge_message *m,
                    const struct pge_call_options *options, struct pge_failure *why);

/* Opens one link unless one is open. Returns as emit does. */
int pge_client_connect(struct pge_client *client, const struct pge_call_options *options,
                       struct pge_failure *why);

/* Forgets a call, or all of a client's with that arg (not those of relays): no callback follows. */
void pge_call_cancel(struct pge_call *call);
void pge_client_cancel_all(struct pge_client *client, const void *arg);
void *pge_call_arg(const struct pge_call *call);
const struct pge_call_events *pge_call_events_of(const struct pge_call *call);
/* A number below 2^53 that names a call for good; pge_client_call finds it while it lasts, else
 * NULL. */
double pge_call_handle(const struct pge_call *call);
struct pge_call *pge_client_call(struct pge_client *client, double handle);
/* Where it stands in the pool's table: 0 up, no two calls in flight share one. */
unsigned pge_call_slot(const struct pge_call *call);
/* 21 characters, unique per pool. */
struct pge_span pge_call_id(const struct pge_call *call);

/* Fails this client's calls with CONNECTION_CLOSED; closes the links if no other client uses them;
 * then on_closed. A later call opens anew. */
void pge_client_close(struct pge_client *client);

/* For custom deserialisers: the call of this client with that id (21 characters); NULL: none. */
struct pge_call *pge_client_call_by_id(struct pge_client *client, struct pge_span id);
/* A reply for it: restarts its clock, or ends it without a callback. */
void pge_call_answered(struct pge_call *call, bool last);
/* The call made last and not ended; NULL: none. */
struct pge_call *pge_client_newest(const struct pge_client *client);
unsigned pge_client_pending(const struct pge_client *client);

/* For status(): walks hosts in order. */
struct pge_host_status {
    char address[128];
    const char *state; /* "idle", "connecting", "connected", "down" */
    unsigned pending, connections;
};
unsigned pge_client_host_count(const struct pge_client *client);
void pge_client_host_status(const struct pge_client *client, unsigned i,
                            struct pge_host_status *out);
bool pge_client_is_connected(const struct pge_client *client);
uint64_t pge_client_late_replies(const struct pge_client *client);

/* Of its pool. */
struct pge_client_counts {
    unsigned waiting; /* calls without a connection */
    size_t waiting_bytes;
    uint64_t dropped; /* events, as PGE_OFFLINE_DROP says */
    uint64_t reconnects;
};
void pge_client_count(const struct pge_client *client, struct pge_client_counts *out);

#endif
