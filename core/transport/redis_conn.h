/*
 * redis_conn.h - one connection to a Redis server, or to a Sentinel: dial, log in, commands whose
 * replies come in their order, pushes, and PINGs that find a dead peer (reliability 2.4).
 *
 *   commands -> conn->out;  tags: what each reply still to come is for, in order
 *   bytes -> codec -> a push: on_push;  anything else: on_reply with the first tag
 *
 * Nothing here knows of links, peers or channels.
 */
#ifndef PGE_TRANSPORT_REDIS_CONN_H
#define PGE_TRANSPORT_REDIS_CONN_H

#include "base/fault.h"
#include "codec/resp.h"
#include "engine/engine.h"
#include "net/dial.h"

struct pge_redis_conn;

/* Texts are borrowed until on_closed; NULL: not given. */
struct pge_redis_login {
    const char *username, *password, *connection_name;
    unsigned db;
    uint64_t connect_timeout_ms; /* for the dial, and again for the login */
    uint64_t ping_ms; /* silence after which it is asked, and after as much again is lost */
    size_t max_bytes; /* of one reply */
};

/* All are always set; each comes inside engine->enter, but on_closed. */
struct pge_redis_conn_events {
    void (*on_ready)(struct pge_redis_conn *conn); /* logged in, not loading */
    /* The reply to a command. tag: given with it. */
    void (*on_reply)(struct pge_redis_conn *conn, uint64_t tag, const struct pge_resp_reply *reply);
    /* ["message", channel, payload] or ["pmessage", pattern, channel, payload]. */
    void (*on_push)(struct pge_redis_conn *conn, const struct pge_resp_reply *reply);
    /* It could not connect or log in, or broke; nothing follows but on_closed, after
     * pge_redis_conn_close. */
    void (*on_lost)(struct pge_redis_conn *conn, enum pge_fault fault, const char *message);
    void (*on_drain)(struct pge_redis_conn *conn); /* all output was written */
    void (*on_closed)(struct pge_redis_conn *conn);
};

enum pge_redis_conn_state {
    PGE_REDIS_IDLE, /* as zeroed; and after on_closed */
    PGE_REDIS_DIALLING,
    PGE_REDIS_LOGIN,
    PGE_REDIS_READY,
    PGE_REDIS_LOST, /* on_lost was told, close is to come */
    PGE_REDIS_CLOSING,
};

/* Embedded by its owner; fields are this module's. */
struct pge_redis_conn {
    struct pge_engine *engine;
    const struct pge_redis_conn_events *events;
    const struct pge_redis_login *login; /* borrowed likewise */
    struct pge_dial *dial;               /* while dialling */
    struct pge_conn *conn;
    struct pge_resp resp;
    struct pge_buf tags;    /* uint64_t each */
    unsigned loud;          /* of these, not quiet */
    struct pge_timer look;  /* the end of a time of not reading */
    struct pge_timer timer; /* login limit; PINGs; after close: the wait for the last write */
    struct pge_defer gone;  /* on_closed, when there never was a conn */
    enum pge_redis_conn_state state;
    bool is_paused, is_asked, has_heard;
    bool is_hushed;  /* not read for a while: all that is awaited is quiet */
    bool has_looked; /* something was read since it last was hushed */
};

/* Tags below are not the owner's to use. */
enum { PGE_REDIS_TAG_FIRST = 16 };

/*
 * Added to a tag: there is no hurry to read this reply, which will say nothing new unless it is an
 * error. A connection that awaits only such is looked at every 10 ms: each PUBLISH is answered, and
 * half of all wake-ups would be for those answers.
 */
#define PGE_REDIS_QUIET ((uint64_t)1 << 63)

/* Starts dialling. 0, or < 0: could not start, nothing follows. target is borrowed for the call,
 * its tls until on_closed. */
int pge_redis_conn_start(struct pge_redis_conn *conn, struct pge_engine *engine,
                         const struct pge_target *target, const struct pge_redis_login *login,
                         const struct pge_redis_conn_events *events);

static inline bool pge_redis_conn_is_ready(const struct pge_redis_conn *conn) {
    return conn->state == PGE_REDIS_READY;
}

/* Sends a command of count arguments; its reply goes to on_reply with tag; tag 0: to nobody.
 * replies: how many it has (SUBSCRIBE: one per channel). 0, UV_ENOMEM, UV_EPIPE. */
int pge_redis_conn_command(struct pge_redis_conn *conn, uint64_t tag, unsigned replies,
                           const struct pge_span *args, unsigned count);

/* For commands written in place: where to append them, then this for each. 0, UV_ENOMEM, UV_EPIPE:
 * the caller takes the command back. */
static inline struct pge_buf *pge_redis_conn_out(struct pge_redis_conn *conn) {
    return &conn->conn->out;
}
int pge_redis_conn_wrote(struct pge_redis_conn *conn, uint64_t tag);

/* Replies still to come. */
static inline size_t pge_redis_conn_awaited(const struct pge_redis_conn *conn) {
    return pge_buf_len(&conn->tags) / sizeof(uint64_t);
}

size_t pge_redis_conn_queued(const struct pge_redis_conn *conn);
uint64_t pge_redis_conn_taken(const struct pge_redis_conn *conn);
/* Backpressure: on_push and on_reply pause. */
void pge_redis_conn_read(struct pge_redis_conn *conn, bool wanted);
/* on_drain is told also when one write took all. */
static inline void pge_redis_conn_want_drain(struct pge_redis_conn *conn, bool wanted) {
    if (conn->conn)
        conn->conn->wants_drain = wanted;
}
/* "127.0.0.1:6379"; "" while there is none. */
void pge_redis_conn_name(const struct pge_redis_conn *conn, char *out, size_t size);

/* Ends it, whatever its state but IDLE; flush: after what is queued is written, within 2 s. Then
 * on_closed, not before this returns. */
void pge_redis_conn_close(struct pge_redis_conn *conn, bool flush);

#endif
