/*
 * resp.h - Redis' protocol, RESP2: replies in by hiredis' reader, commands out straight into a
 * buffer. No I/O; payloads are not looked at.
 *
 *   feed()  *3\r\n$7\r\nmessage\r\n$4\r\necho\r\n$2\r\n{}\r\n   next() -> ["message", "echo", "{}"]
 *           *3\r\n$7\r\nmess                                    next() -> 0, and the rest is kept
 */
#ifndef PGE_CODEC_RESP_H
#define PGE_CODEC_RESP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"

/* Elements of an array that are kept: no reply we ask for has more that matter. */
enum { PGE_RESP_ITEMS = 8 };

/* Elements an array may declare, and bytes of a line that is not a bulk string. */
#define PGE_RESP_MAX_ELEMENTS (1024 * 1024)
#define PGE_RESP_MAX_LINE ((size_t)65536)

enum pge_resp_kind {
    PGE_RESP_STATUS,  /* +OK */
    PGE_RESP_ERROR,   /* -ERR text */
    PGE_RESP_INTEGER, /* :1 */
    PGE_RESP_BULK,    /* $2 */
    PGE_RESP_NIL,     /* $-1, *-1 */
    PGE_RESP_ARRAY,   /* as an element: its own elements are not kept */
};

struct pge_resp_item {
    enum pge_resp_kind kind;
    int64_t number;       /* of INTEGER; of ARRAY: elements */
    struct pge_span text; /* of STATUS, ERROR, BULK */
};

struct pge_resp_reply {
    bool is_array;
    unsigned count; /* items: the first elements of an array, or the one value */
    struct pge_resp_item items[PGE_RESP_ITEMS];
};

struct redisReader;

struct pge_resp {
    struct redisReader *reader; /* owned */
    const char *in;             /* borrowed: fed, unread bytes */
    size_t in_len;
    size_t max_bytes;    /* of one reply */
    struct pge_buf text; /* owned: texts of the reply being read */
    struct pge_resp_reply reply;
    size_t at[PGE_RESP_ITEMS]; /* where in text each item begins: text may move */
    bool is_delivered;         /* reply was returned by the last next() */
    int status;                /* the error it is in, or 0 */
    char error[160];           /* message text when status < 0 */
};

/* max_bytes: largest reply accepted, all its texts together. 0 or UV_ENOMEM. */
int pge_resp_init(struct pge_resp *r, size_t max_bytes);
void pge_resp_deinit(struct pge_resp *r); /* all-zero is accepted */

/* Hands over bytes, borrowed until next() has returned 0 or an error, or park() was called. Nothing
 * fed before may be unread. */
void pge_resp_feed(struct pge_resp *r, const char *data, size_t n);

/*
 * 1: *reply is the next one, its texts valid until the next call on r. 0: more bytes are needed.
 * < 0: UV_EPROTO (not RESP2), UV_EMSGSIZE (larger than max_bytes: found at a bulk string's declared
 * length, before it is kept), UV_ENOMEM; r->error says it, and the codec stays in that error.
 */
int pge_resp_next(struct pge_resp *r, const struct pge_resp_reply **reply);

/* Copies what was fed but not read, so that reading can pause. 0 or UV_ENOMEM. */
int pge_resp_park(struct pge_resp *r);

/* Is it such a text? For names of pushes: ["message", ...]. */
bool pge_resp_is(const struct pge_resp_item *item, const char *text);

/* ---- writing: each appends to out. 0, or UV_ENOMEM with nothing appended ---- */

/* A text as an argument. */
static inline struct pge_span pge_resp_arg(const char *text) {
    return (struct pge_span){text, strlen(text)};
}

/* One command of count arguments, its name the first. */
int pge_resp_command(struct pge_buf *out, const struct pge_span *args, unsigned count);

/* A command with one long last argument, written in place: open, append it to out, close. */
struct pge_resp_open {
    size_t len;  /* of out before the command */
    size_t mark; /* of out where the argument's length stands */
};

/* PUBLISH to the channel `name` followed by `suffix`. */
int pge_resp_publish_open(struct pge_buf *out, struct pge_span name, struct pge_span suffix,
                          struct pge_resp_open *open);
/* Nothing may have been consumed from out since. After an error the command is taken back out. */
int pge_resp_publish_close(struct pge_buf *out, const struct pge_resp_open *open);
/* Takes an open command back out. */
static inline void pge_resp_publish_undo(struct pge_buf *out, const struct pge_resp_open *open) {
    out->end = out->start + open->len;
}

#endif
