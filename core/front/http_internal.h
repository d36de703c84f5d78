/*
 * http_internal.h - what the http_*.c files share. Nobody else includes it.
 *
 *   on_data -> parse.in |#### request ####|-- pipelined --|   a request's spans point into parse.in
 *              next     |-- read while its reply is awaited --|
 *   reply   -> conn->out, and beyond PIECE_BYTES late, which follows piece by piece
 */
#ifndef PGE_FRONT_HTTP_INTERNAL_H
#define PGE_FRONT_HTTP_INTERNAL_H

#include <llhttp.h>

#include "front/http_server.h"

/* ---- http_parse.c: bytes to one request, no I/O ---- */

enum pge_http_phase {
    PGE_HTTP_START, /* before the first byte of a request */
    PGE_HTTP_HEAD,
    PGE_HTTP_SIZED,   /* in a body with Content-Length */
    PGE_HTTP_CHUNKED, /* in a body in chunks */
    PGE_HTTP_READY,   /* message is filled */
    PGE_HTTP_REFUSED, /* status and why say so */
};

struct pge_http_parse {
    llhttp_t llhttp;
    const struct pge_http_limits *limits; /* borrowed: the server's */
    struct pge_buf in;                    /* owned: the request, and what follows it */
    struct pge_http_header *headers;      /* owned, header_cap of them */
    struct pge_http_message message;
    const char *indexed; /* where in's bytes were when message and headers were filled */
    size_t pos;          /* bytes of in taken, from its head */
    size_t head_size;    /* first byte to the blank line */
    size_t body_size;    /* so far; it follows the head without a gap */
    size_t left;         /* to come of the body or the chunk */
    size_t extra;        /* bytes of chunk extensions and trailers */
    size_t method_size, target_at, target_size;
    const char *why; /* static: what was wrong, for people */
    enum pge_http_phase phase;
    unsigned header_cap;
    uint16_t status; /* of the refusal */
    uint8_t chunk_state, chunk_digits;
    uint8_t trailer_differs; /* a bit per forbidden name */
    size_t trailer_size;     /* of the name so far */
    bool target_done, version_done, head_done, skipped_line;
    bool is_old, is_foreign; /* HTTP/1.0; another major version */
    bool keep_alive, expects_continue;
};

void pge_http_parse_init(struct pge_http_parse *parse, const struct pge_http_limits *limits);
void pge_http_parse_deinit(struct pge_http_parse *parse);
/* 0 or UV_ENOMEM. Not while a message is in use: its spans would move. What was read into the room
 * is not copied. */
int pge_http_parse_append(struct pge_http_parse *parse, const char *data, size_t n);
/* Where the rest of a body of known length is best read to, as pge_conn.sink; len 0: nowhere. */
uv_buf_t pge_http_parse_room(struct pge_http_parse *parse);
/* Takes what it can; the same bytes give the same result however they were cut. */
enum pge_http_phase pge_http_parse_run(struct pge_http_parse *parse);
/* The buffer of the body, if nothing follows that; it may be taken over, then call _taken. NULL. */
struct pge_buf *pge_http_parse_loan(struct pge_http_parse *parse);
void pge_http_parse_taken(struct pge_http_parse *parse);
/* Drops the request that was ready; what follows it stays. */
void pge_http_parse_next(struct pge_http_parse *parse);
/* Gives memory back when nothing is held in it. */
void pge_http_parse_trim(struct pge_http_parse *parse);
/* Refuses; the phase to return. */
enum pge_http_phase pge_http_parse_refuse(struct pge_http_parse *parse, int status,
                                          const char *why);

/* http_check.c: a head llhttp took, read again strictly. 0 (spans, framing, flags filled) or
 * refused. */
int pge_http_check_head(struct pge_http_parse *parse);
/* Fills message and headers anew after in's bytes have moved. */
void pge_http_check_again(struct pge_http_parse *parse);
/* Fills message's method, target and what is cut from it. */
void pge_http_point(struct pge_http_parse *parse);
bool pge_http_is_token(unsigned char c);
bool pge_http_is_text(unsigned char c); /* may stand in a field value */
bool pge_http_is_host(unsigned char c); /* in a host's name */
int pge_http_hex(char c);               /* 0..15, or -1 */

/* http_target.c: host.p NULL: none was given. 0 (absolute form reduced), or refused. */
int pge_http_check_target(struct pge_http_parse *parse, struct pge_span host);

/* http_chunk.c: removes the chunked coding in place. 1: the body is whole, 0: more is needed, < 0:
   refused. */
void pge_http_chunk_start(struct pge_http_parse *parse);
int pge_http_chunk_run(struct pge_http_parse *parse);

/* ---- connections ---- */

enum pge_http_reply_state {
    PGE_HTTP_REPLY_NONE,    /* no request */
    PGE_HTTP_REPLY_AWAITED, /* on_request was called */
    PGE_HTTP_REPLY_BEGUN,
    PGE_HTTP_REPLY_DONE, /* answered or aborted; the request is still to be dropped */
};

/* What conn->timer waits for. */
enum pge_http_wait {
    PGE_HTTP_WAIT_NOTHING,
    PGE_HTTP_WAIT_REQUEST,
    PGE_HTTP_WAIT_HEAD,
    PGE_HTTP_WAIT_BODY,
    PGE_HTTP_WAIT_FAREWELL,
};

struct pge_http_request {
    struct pge_http_parse parse;
    void *user;
    enum pge_http_reply_state state;
    bool is_chunked, is_bodiless; /* of a reply that has begun */
};

struct pge_http_conn {
    struct pge_list node; /* in server->conns */
    struct pge_http_server *server;
    struct pge_conn *conn; /* owned until its on_close, where we end */
    struct pge_http_request req;
    struct pge_buf next, late; /* see above */
    struct pge_defer resume;   /* goes on after a reply, outside the owner's call */
    struct pge_defer pump;     /* moves late on */
    struct pge_timer timer, write_timer;
    uint64_t progress_ms;   /* when output last got on, or began to wait */
    uint64_t taken;         /* pge_conn_taken then */
    uint64_t idle_since_ms; /* while wait is for a request */
    size_t discarded;       /* bytes read after the farewell */
    enum pge_http_wait wait;
    bool is_last;    /* the reply being made ends the connection */
    bool is_running; /* inside run(): replies made by on_request return to it */
    bool is_broken;  /* cut at the end of the turn, outside the owner's call */
    bool is_eof;     /* the peer sends no more */
    bool is_giving;  /* among what is queued is a buffer that was given: one long write */
    bool is_ending, is_shut, is_closing, said_continue;
};

struct pge_http_server {
    struct pge_loop *loop;         /* borrowed: outlives the server */
    struct pge_listener *listener; /* NULL once gone, or without one */
    struct pge_defer end;          /* of one without a listener, outside the owner's call */
    const struct pge_http_server_events *events;
    void *owner;
    struct pge_http_limits limits;
    struct pge_list conns;
    struct pge_http_stats stats;
    struct pge_buf scratch; /* a body being built */
    int64_t date_s;
    char date[64];               /* "Sun, 06 Nov 1994 08:49:37 GMT" of date_s */
    bool is_draining, is_paused; /* paused: it has as many connections as it may */
    bool is_held;
    bool is_injected; /* without a listener, and open */
};

/* http_conn.c */
void pge_http_conn_open(struct pge_http_server *server, struct pge_conn *conn);
/* Ends an idle connection; on a busy one the reply that is due will be the last. */
void pge_http_conn_drain(struct pge_http_conn *c);
/* Closes at once; is_told: a request not answered is reported as aborted. */
void pge_http_conn_cut(struct pge_http_conn *c, bool is_told);
/* Where to append n bytes of output, room reserved; NULL: out of memory or bounds, the connection
   is cut. */
struct pge_buf *pge_http_conn_room(struct pge_http_conn *c, size_t n);
/* Sends n bytes by taking over the buffer they lie in, and all of that. False: they must be copied.
 */
bool pge_http_conn_give(struct pge_http_conn *c, struct pge_buf *from, struct pge_span bytes);
/* After appending there. */
void pge_http_conn_sent(struct pge_http_conn *c);
/* Whether the connection may live on after the reply that begins now. */
bool pge_http_conn_keeps(const struct pge_http_conn *c);
/* The reply is written: the next request may follow. */
void pge_http_conn_reply_done(struct pge_http_conn *c);

/* http_reply.c: an answer to what is no request. 0 or UV_ENOMEM. */
int pge_http_reply_refusal(struct pge_http_conn *c, int status, const char *why);

/* http_server.c */
void pge_http_server_conn_gone(struct pge_http_server *server);
enum { PGE_HTTP_DATE_SIZE = 29 };
const char *pge_http_server_date(struct pge_http_server *server);

#endif
