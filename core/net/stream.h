/*
 * stream.h - byte pipes: tcp, pipe (unix socket), tls. A stream knows no packets.
 *
 *   owner --pge_conn_write--> conn.out --end of turn--> stream->write --> kernel
 *   owner --pge_conn_give---> conn.given, before what is written later
 *   owner <--on_data-------- loop->read_buf <---------- stream <--------- kernel
 *                            or the owner's own `sink`
 *
 * Glossary: a `conn` is one connection; a `listener` accepts them; an `endpoint` is where to dial
 * or bind. A new stream is one file with one const `struct pge_stream`.
 *
 * The contract, which one spec runs against every stream:
 *  1. An op returns 0, or a negative libuv code and then no callback follows.
 *  2. No callback runs before the op that caused it has returned.
 *  3. on_data lends its bytes until it returns.
 *  4. The owner closes, also after a failed on_open. pge_conn_close may be called twice and inside
 * any callback; unwritten bytes are dropped; then on_close fires, last and exactly once, and the
 * conn is freed after it returns. No other callback comes after pge_conn_close.
 *  5. No slot is NULL.
 */
#ifndef PGE_NET_STREAM_H
#define PGE_NET_STREAM_H

#include <stdbool.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <uv.h>

#include "base/buffer.h"
#include "base/loop.h"

struct pge_conn;
struct pge_listener;
struct pge_tls; /* net/tls.h: certificates and checks of one side */

/* Where to dial or bind, already resolved. */
struct pge_endpoint {
    const struct pge_stream *stream; /* static */
    union {
        struct sockaddr sa;
        struct sockaddr_storage storage; /* AF_INET, AF_INET6 */
        struct sockaddr_un un;           /* AF_UNIX, for pipe */
    } addr;
    struct pge_tls *tls;     /* borrowed until the op returns; NULL: plain */
    const char *server_name; /* borrowed likewise; what a TLS peer must prove; may be NULL */
    /* tls, for protocols that begin in the clear: an open conn with nothing unread, which the new
     * one takes over instead of dialling. NULL: dial. */
    struct pge_conn *over;
};

/* What a connection reports upwards. All are always set. */
struct pge_conn_events {
    void (*on_open)(struct pge_conn *conn, int status);
    /* n > 0: bytes. UV_EOF: the peer sends no more, writing is still possible. Else an error. */
    void (*on_data)(struct pge_conn *conn, const char *data, ssize_t n);
    /* Queued output fell to zero after it had been above what one write took. Or a write failed:
     * told once, what was queued is dropped, and later writes get UV_EPIPE. */
    void (*on_drain)(struct pge_conn *conn, int status);
    void (*on_close)(struct pge_conn *conn);
};

struct pge_conn {
    const struct pge_stream *stream;
    const struct pge_conn_events *events; /* static; set by the owner before any callback */
    void *owner;                          /* the owner's, not looked at */
    struct pge_loop *loop;                /* borrowed: outlives the conn */
    struct pge_list given;                /* of struct given (conn.c); goes out before `out` */
    size_t given_bytes;                   /* in it */
    struct pge_buf out;                   /* appended since the last write, or gift */
    struct pge_buf sending;               /* borrowed by the stream until its write ends */
    struct pge_defer flush;
    struct pge_list warm; /* in loop->warm or ->busy, see cool.c */
    uint64_t seen;        /* what written was when cool.c last looked */
    uint64_t written;     /* bytes of the writes that have ended well */
    bool is_open, is_closing, is_sending, is_reading;
    int failed;          /* why nothing can be written any more; 0: it can */
    bool has_ended;      /* on_data told the end: nothing more comes */
    bool wants_drain;    /* the owner's to set: tell on_drain also when one write took all */
    bool wants_shutdown; /* half-close once out is written */
    bool wants_close;    /* close once out is written */
    bool is_accepted;    /* counted in loop->accepted */
    char *why;           /* owned; more words than the last error code has, NULL: none */
    /* The owner's to set: where the next bytes may be read to (len 0: nowhere of its own). on_data
     * then lends them from there, or from elsewhere: a stream need not look at it. It holds for
     * one read; the owner sets len to 0 when the memory goes before that. */
    uv_buf_t sink;
};

/* Called once when a write that stream->write left unfinished (0) ends. */
typedef void (*pge_write_cb)(struct pge_conn *conn, int status);

struct pge_stream {
    const char *name; /* "tcp", "pipe", "tls" */
    size_t conn_size; /* sizeof its struct, whose first member is struct pge_conn */
    int (*init)(struct pge_conn *conn); /* after the base is set up; on failure nothing to undo */
    int (*connect)(struct pge_conn *conn, const struct pge_endpoint *to); /* then on_open */
    /* Takes over fd (not on failure). Open at once; tls: calls on_accept later. */
    int (*accept)(struct pge_listener *listener, struct pge_conn *conn, int fd);
    int (*read_start)(struct pge_conn *conn);
    void (*read_stop)(struct pge_conn *conn); /* backpressure */
    /* 1: all written, no callback. 0: bytes are borrowed until done. < 0: never will be. */
    int (*write)(struct pge_conn *conn, const char *data, size_t n, pge_write_cb done);
    int (*shutdown)(struct pge_conn *conn); /* FIN (tls: close_notify first); nothing queued */
    void (*close)(struct pge_conn *conn);   /* then pge_conn_closed */
    /* Bytes the kernel has taken, ever (tls: of ciphertext): whether output gets on. */
    uint64_t (*taken)(const struct pge_conn *conn);
    /* Peer's address as text, e.g. "127.0.0.1:3001", "unix:". Always terminated. */
    void (*peer)(const struct pge_conn *conn, char *out, size_t size);
};

extern const struct pge_stream pge_stream_tcp, pge_stream_pipe, pge_stream_tls;

/* ---- connections ---- */

/* Dials. on_open follows (also on failure; then close it). NULL: *status says why. */
struct pge_conn *pge_conn_connect(struct pge_loop *loop, const struct pge_endpoint *to,
                                  const struct pge_conn_events *events, void *owner, int *status);

/* Reading starts paused; start after on_open. Both harmless when already so, or at the end. */
int pge_conn_read_start(struct pge_conn *conn);
void pge_conn_read_stop(struct pge_conn *conn);

/* Appends output, written at the end of this turn. 0, UV_ENOMEM, UV_EPIPE: closing or failed. */
int pge_conn_write(struct pge_conn *conn, const void *bytes, size_t n);

/* The same for much at once: takes the memory over instead of copying; bytes is empty then. Its
 * consumed front is not sent. On failure (as above) nothing has changed. */
int pge_conn_give(struct pge_conn *conn, struct pge_buf *bytes);

/* From so many bytes on, giving is cheaper than copying. */
enum { PGE_GIVE_BYTES = 32768 };

/* The same for those who encode in place: append to conn->out, then call this. */
int pge_conn_dirty(struct pge_conn *conn);

/* Writes now instead of at the end of the turn. A failure is told at the end of the turn. */
void pge_conn_flush(struct pge_conn *conn);

/* Gives buffers of output back that hold nothing. By itself a conn does so when it has been quiet
 * for 1 to 2 s (cool.c). */
void pge_conn_cool(struct pge_conn *conn);

/* For streams: it writes. */
void pge_conn_heat(struct pge_conn *conn);
static inline void pge_conn_warm(struct pge_conn *conn) {
    if (pge_list_is_empty(&conn->warm))
        pge_conn_heat(conn);
}

/* Bytes not yet taken by the kernel. */
static inline size_t pge_conn_queued(const struct pge_conn *conn) {
    return pge_buf_len(&conn->out) + pge_buf_len(&conn->sending) + conn->given_bytes;
}

/* Grows while the peer reads. */
static inline uint64_t pge_conn_taken(const struct pge_conn *conn) {
    return conn->stream->taken(conn);
}

/* Half-closes after what is queued is written. */
void pge_conn_shutdown(struct pge_conn *conn);

/* Closes after what is queued is written, or at once when nothing is. The owner bounds the wait. */
void pge_conn_close_after_write(struct pge_conn *conn);

void pge_conn_close(struct pge_conn *conn);

static inline void pge_conn_peer(const struct pge_conn *conn, char *out, size_t size) {
    conn->stream->peer(conn, out, size);
}

/* ---- listeners ---- */

struct pge_listener_events {
    /* A connection came and is open (tls: shaken hands). The callee sets events and owner. */
    void (*on_accept)(struct pge_listener *listener, struct pge_conn *conn);
    void (*on_close)(struct pge_listener *listener); /* last, exactly once; then it is freed */
};

struct pge_listener {
    const struct pge_stream *stream;
    const struct pge_listener_events *events;
    void *owner;
    struct pge_loop *loop;
    struct pge_tls *tls; /* borrowed: outlives the listener; NULL: plain */
    union {
        uv_handle_t handle;
        uv_poll_t poll;
    } uv;
    int fd;                  /* owned: the bound socket; -1 once closed */
    uint32_t hold;           /* what loop->sockets gave with it */
    struct pge_timer retry;  /* accepting again after the process ran out of descriptors */
    struct pge_list shaking; /* tls conns that have not finished their handshake */
    uint64_t refused;        /* connections that failed before on_accept: handshake, memory */
    bool is_closing, is_paused, unlink_path;
    bool has_yielded; /* rested for others' sake since it last accepted */
    char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
};

/* Binds and listens. NULL: *status says why (UV_EADDRINUSE, ...). A stale unix socket is replaced.
 */
struct pge_listener *pge_listener_open(struct pge_loop *loop, const struct pge_endpoint *at,
                                       int backlog, const struct pge_listener_events *events,
                                       void *owner, int *status);

/* "127.0.0.1:8080", "[::1]:8080" or the path. Port 0 shows the port the system chose. */
void pge_listener_address(const struct pge_listener *listener, char *out, size_t size);

/* Accepting can be paused: the kernel's backlog then holds the newcomers. */
void pge_listener_pause(struct pge_listener *listener);
void pge_listener_resume(struct pge_listener *listener);

void pge_listener_close(struct pge_listener *listener);

/* ---- for streams ---- */

/* One accepted connection more or less. */
void pge_listener_count(struct pge_loop *loop, int more);

/* Sets conn->why, e.g. to OpenSSL's reason. Out of memory leaves it as it was. */
void pge_conn_explain(struct pge_conn *conn, const char *text);

/* Base of a conn of stream; not yet connected. NULL: *status says why. */
struct pge_conn *pge_conn_new(struct pge_loop *loop, const struct pge_stream *stream, int *status);
/* The dial's outcome: calls on_open, then sends what was queued meanwhile. Not once closing. */
void pge_conn_opened(struct pge_conn *conn, int status);
/* The peer's end: calls on_data with status, for the last time. */
void pge_conn_ended(struct pge_conn *conn, int status);
/* The stream's last word: calls on_close and frees. */
void pge_conn_closed(struct pge_conn *conn);

#endif
