/*
 * nats.h - what the files of the NATS transport share (nest-wire 4): nats_conn.c, one connection to
 * a server, whoever has it; nats_login.c, what it says of itself; nats_link.c, the client's end;
 * nats_peer.c, the server's. The contract of the ops is transport.h's.
 *
 *   nats_link --owns--> nats_conn <--owns-- nats_peer      INFO, [TLS], CONNECT, role's hello,
 * PING, on_ready, on_message, on_error, on_lost           PONG -> ready
 */
#ifndef PGE_TRANSPORT_NATS_H
#define PGE_TRANSPORT_NATS_H

#include "codec/nats.h"
#include "engine/broker.h"
#include "engine/pool.h"
#include "net/dial.h"
#include "net/stream.h"

struct pge_nats_conn;
struct pge_nats_consumer;

/* What a connection reports to who has it. on_gone is the last, and comes after pge_nats_conn_close
 * only; no other does then. */
struct pge_nats_role {
    /* CONNECT is written: append what is to be known before the connection is ready. < 0: give up.
     */
    int (*on_hello)(void *owner, struct pge_buf *out);
    void (*on_ready)(void *owner);
    void (*on_message)(void *owner, const struct pge_nats_event *message);
    /* The server refuses one thing, and the connection lives on: text is its own. */
    void (*on_refused)(void *owner, const char *text);
    void (*on_drained)(void *owner); /* as pge_conn_events.on_drain, without a failure */
    void (*on_pong)(void *owner);    /* of pge_nats_conn_ping */
    void (*on_learnt)(void *owner, const char *host, uint16_t port);
    void (*on_leaving)(void *owner); /* the server closes soon ("lame duck") */
    void (*on_lost)(void *owner, enum pge_fault fault, const char *text);
    void (*on_gone)(void *owner);
};

/* Everything is borrowed while the connection lives. */
struct pge_nats_options {
    const struct pge_settings *settings;
    const struct pge_host_options *at;
    struct pge_tls *tls; /* NULL: plain */
    uint64_t connect_timeout_ms;
    size_t max_payload; /* of what comes in */
};

enum pge_nats_state {
    PGE_NATS_DIALLING,
    PGE_NATS_GREETED, /* connected: INFO is to come */
    PGE_NATS_SHAKING, /* TLS after INFO */
    PGE_NATS_HELLO,   /* CONNECT and PING are out */
    PGE_NATS_READY,
    PGE_NATS_CLOSED
};

struct pge_nats_conn {
    struct pge_engine *engine;
    const struct pge_nats_role *role;
    void *owner;
    struct pge_nats_options options;
    enum pge_nats_state state;
    struct pge_dial *dial; /* while dialling */
    struct pge_conn *conn;
    struct pge_nats parser;
    struct pge_timer
        timer; /* the limit of a beginning; then the next ping; then of the last write */
    struct pge_defer gone; /* on_gone, when there never was a conn */
    unsigned pings_out, own_pings;
    size_t max_payload; /* of what the server takes */
    char nonce[128];    /* to be signed; "": none */
    bool is_paused;
    char error[160]; /* the server's last -ERR, before it closes */
};

/* NULL: *status says why. */
struct pge_nats_conn *pge_nats_conn_open(struct pge_engine *engine,
                                         const struct pge_nats_options *options,
                                         const struct pge_nats_role *role, void *owner,
                                         int *status);
/* Ends it; what is queued is written first if flush (for a while). Then on_gone. */
void pge_nats_conn_close(struct pge_nats_conn *self, bool flush);
/* After appending to self->conn->out. 0 or UV_EPIPE. */
int pge_nats_conn_dirty(struct pge_nats_conn *self);
/* Asks the server to answer what came before: on_pong. */
int pge_nats_conn_ping(struct pge_nats_conn *self);
void pge_nats_conn_pause(struct pge_nats_conn *self, bool paused);
size_t pge_nats_conn_queued(const struct pge_nats_conn *self);

enum { PGE_NATS_NONCE_LEN = 22, PGE_NATS_PREFIX_MAX = 128 };

struct pge_nats_link {
    struct pge_link base; /* first */
    struct pge_nats_conn *conn;
    char inbox[PGE_NATS_PREFIX_MAX + PGE_NATS_NONCE_LEN + 3 +
               PGE_ID_LEN]; /* "_INBOX.NONCE.", an id */
    size_t inbox_len;
};

struct pge_nats_slot {
    struct pge_subscription *subscription; /* NULL: free */
    uint64_t generation;                   /* what is late for an old one finds nobody */
};

struct pge_nats_peer {
    struct pge_peer base;        /* first */
    struct pge_nats_conn *conn;  /* NULL: none */
    unsigned conns;              /* all that are not gone */
    struct pge_nats_slot *slots; /* owned; by the sid of a subscription */
    unsigned slot_count;
    size_t max_payload;   /* of the server last seen */
    struct pge_buf later; /* replies made while there is no connection */
    struct pge_defer gone;
    uint64_t taken;                     /* by connections that are gone */
    struct pge_nats_consumer *consumer; /* owned; NULL: plain subscriptions */
};

/* PGE_NATS_NONCE_LEN letters and digits. */
void pge_nats_write_nonce(char *out, uint64_t a, uint64_t b);

/*
 * One message into out. Headers may be empty. The payload is written by write(arg, out). 0, or < 0
 * and nothing was appended: UV_EMSGSIZE above max_payload, or as write.
 */
struct pge_nats_publication {
    struct pge_span subject, reply_to;
    struct pge_headers headers;
    size_t max_payload;
    int (*write)(void *arg, struct pge_buf *out);
    void *arg;
};
int pge_nats_publish(struct pge_buf *out, const struct pge_nats_publication *publication);

/* ---- nats_login.c ---- */

/* What an INFO says; spans are borrowed from it, p NULL: absent. */
struct pge_nats_info {
    struct pge_span nonce, connect_urls; /* JSON */
    size_t max_payload;
    bool tls_required, tls_available, is_leaving;
};
/* 0 or UV_EPROTO. */
int pge_nats_read_info(struct pge_json_scan *scan, struct pge_span json,
                       struct pge_nats_info *info);
/* Calls back for each "host:port" of connect_urls. */
void pge_nats_walk_urls(struct pge_span urls,
                        void (*fn)(void *arg, const char *host, uint16_t port), void *arg);
/* Appends the CONNECT line. 0, UV_ENOMEM, or UV_EINVAL with *why set. */
int pge_nats_login(const struct pge_nats_conn *self, struct pge_buf *out, const char **why);

/* ---- nats_stream.c ---- */

/* The member's value in an object of a validated text; p NULL: absent. */
struct pge_span pge_nats_member(struct pge_json_scan *scan, struct pge_span json, const char *name);
/* The stream's word on an event ends its call. */
void pge_nats_stream_ack(struct pge_call *call, struct pge_span payload);

/* ---- nats_consumer.c: peer->consumer, where the listener has the option jetstream ---- */

enum { PGE_NATS_CONSUMER_SID = 1 };

struct pge_nats_consumer *pge_nats_consumer_new(struct pge_nats_peer *peer); /* NULL: no memory */
void pge_nats_consumer_free(struct pge_nats_consumer *self);                 /* accepts NULL */
int pge_nats_consumer_hello(struct pge_nats_consumer *self, struct pge_buf *out);
/* The connection is: pge_peer_up follows, or pge_nats_peer_give_up is called. */
void pge_nats_consumer_ready(struct pge_nats_consumer *self);
void pge_nats_consumer_message(struct pge_nats_consumer *self, const struct pge_nats_event *message,
                               struct pge_headers headers);
void pge_nats_consumer_settle(struct pge_nats_consumer *self, struct pge_request *request,
                              enum pge_verdict verdict);
void pge_nats_consumer_leave(struct pge_nats_consumer *self);

/* ---- nats_peer.c, for the consumer ---- */

/* Out now, or on the next connection. As pge_nats_publish. */
int pge_nats_peer_publish(struct pge_nats_peer *self, const struct pge_nats_publication *p);
/* A bare text to where the request's answer goes. */
void pge_nats_peer_say(struct pge_nats_peer *self, const struct pge_request *request,
                       struct pge_span text);
/* The connection is of no use. */
void pge_nats_peer_give_up(struct pge_nats_peer *self, const char *why);

/* ---- slots ---- */

int pge_nats_check_route(const struct pge_settings *settings, const char *route, char *why,
                         size_t size);

int pge_nats_link_connect(struct pge_link *link);
int pge_nats_link_send(struct pge_link *link, struct pge_call *call, const struct pge_message *m);
int pge_nats_link_emit(struct pge_link *link, struct pge_call *call, const struct pge_message *m);
void pge_nats_link_forget(struct pge_link *link, struct pge_call *call);
int pge_nats_link_resume(struct pge_link *link, struct pge_call *call);
size_t pge_nats_link_queued(const struct pge_link *link);
void pge_nats_link_close(struct pge_link *link);

int pge_nats_peer_dial(struct pge_peer *peer, const struct pge_host_options *at);
void pge_nats_peer_hangup(struct pge_peer *peer);
int pge_nats_peer_subscribe(struct pge_peer *peer, struct pge_subscription *subscription);
void pge_nats_peer_unsubscribe(struct pge_peer *peer, struct pge_subscription *subscription);
void pge_nats_peer_leave(struct pge_peer *peer);
void pge_nats_peer_settle(struct pge_peer *peer, struct pge_request *request,
                          enum pge_verdict verdict);
int pge_nats_peer_reply(struct pge_peer *peer, const struct pge_request *request,
                        enum pge_reply kind, const struct pge_payload *body);
int pge_nats_peer_no_handler(struct pge_peer *peer, const struct pge_request *request);
size_t pge_nats_peer_queued(const struct pge_peer *peer);
uint64_t pge_nats_peer_taken(const struct pge_peer *peer);
void pge_nats_peer_read(struct pge_peer *peer, bool wanted);
void pge_nats_peer_probe(struct pge_peer *peer);
void pge_nats_peer_name(const struct pge_peer *peer, char *out, size_t size);
void pge_nats_peer_close(struct pge_peer *peer, bool flush);

#endif
