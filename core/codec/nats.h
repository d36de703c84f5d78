/*
 * nats.h - the NATS client protocol: what a server sends, read from any split of its bytes; what a
 * client sends, appended to a buffer; headers and subjects (nest-wire 4.2, 4.3). No I/O.
 *
 *   feed()  MSG a 1 5\r\nhello\r\nMSG b 2 9\r\nwor    next() -> payload is a slice of the fed bytes
 *           |-- whole message --||-- held ---|        next() -> 0, and the rest was copied
 */
#ifndef PGE_CODEC_NATS_H
#define PGE_CODEC_NATS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"

/* Bytes of a control line. A server takes 4096 (max_control_line) of a publisher, and puts the
 * subscription's number into the line it makes of that. */
#define PGE_NATS_LINE_MAX 4224
/* Bytes of an INFO line, which lists the servers of a cluster. */
#define PGE_NATS_INFO_MAX 65536

/* ---- reading ---- */

enum pge_nats_kind {
    PGE_NATS_INFO, /* text: JSON, not validated */
    PGE_NATS_MSG,
    PGE_NATS_PING,
    PGE_NATS_PONG,
    PGE_NATS_OK,
    PGE_NATS_ERR, /* text: without its quotes */
};

/* Borrowed: valid until the next call on the parser. */
struct pge_nats_event {
    enum pge_nats_kind kind;
    uint64_t sid;             /* MSG: the subscription, as pge_nats_sub named it */
    struct pge_span subject;  /* MSG: as published */
    struct pge_span reply_to; /* MSG: p NULL when there is none */
    struct pge_span headers;  /* MSG: the block for pge_nats_headers; p NULL when there is none */
    struct pge_span payload;  /* MSG: p is never NULL */
    struct pge_span text;     /* INFO, ERR */
};

struct pge_nats {
    const char *in; /* borrowed: fed, unread bytes; or into `parked` */
    size_t in_len;
    struct pge_buf held;   /* owned; the unfinished message so far */
    struct pge_buf parked; /* owned; unread bytes kept by feed or park */
    size_t max_payload;
    size_t total;      /* bytes of the message in held, once its line is whole; else 0 */
    bool is_delivered; /* held was returned by the last next() */
    int status;        /* the error it is in, or 0 */
    char error[160];   /* message text when status < 0 */
};

/* max_payload: bytes accepted in one message, headers included, as servers count. */
void pge_nats_init(struct pge_nats *f, size_t max_payload);
void pge_nats_deinit(struct pge_nats *f);

/*
 * Hands over bytes. They are borrowed until next() has returned 0 or an error, park() was called,
 * or the next feed(); bytes still unread at a feed() are copied, together with the new ones.
 * 0, UV_ENOMEM, or the error the parser is in.
 */
int pge_nats_feed(struct pge_nats *f, const char *data, size_t len);

/*
 * 1: *event is set. 0: more bytes are needed. < 0: UV_EPROTO (no line of this protocol),
 * UV_EMSGSIZE (a line or a declared size above its limit, found before the bytes are kept),
 * UV_ENOMEM; f->error says it, the parser stays in that error and holds no memory any more.
 */
int pge_nats_next(struct pge_nats *f, struct pge_nats_event *event);

/* Copies what was fed but not read, so that parsing can pause. 0 or UV_ENOMEM. */
int pge_nats_park(struct pge_nats *f);

/* Bytes fed and not returned yet. Where TLS starts after INFO there must be none: they came before
 * the handshake, from anybody. */
size_t pge_nats_unread(const struct pge_nats *f);

/* ---- headers ---- */

/* Walks a header block in its order. Repeated names are told as often as they stand there. */
struct pge_nats_headers {
    const char *p, *end;         /* borrowed: into the block */
    unsigned status;             /* 503: no responders; 0: none */
    struct pge_span description; /* behind the status; p NULL when there is none */
};

/* 0, or UV_EPROTO: no "NATS/1.0" line. */
int pge_nats_headers_begin(struct pge_nats_headers *it, struct pge_span block);

/* True: the next header; values without the white space around them. Lines that are no header are
 * skipped, as nats.js does. */
bool pge_nats_headers_next(struct pge_nats_headers *it, struct pge_span *name,
                           struct pge_span *value);

/* May go out: a name of visible ASCII without ':', a value of one line (NUL excluded). */
bool pge_nats_is_header_name(struct pge_span name);
bool pge_nats_is_header_value(struct pge_span value);

/* ---- writing: 0 or UV_ENOMEM, and then nothing was appended ---- */

int pge_nats_connect(struct pge_buf *out, struct pge_span json);
/* queue: p NULL for none. Subject and queue have passed their checks. */
int pge_nats_sub(struct pge_buf *out, struct pge_span subject, struct pge_span queue, uint64_t sid);
/* max: messages after which it ends by itself; 0: now. */
int pge_nats_unsub(struct pge_buf *out, uint64_t sid, uint64_t max);
int pge_nats_ping(struct pge_buf *out);
int pge_nats_pong(struct pge_buf *out);

/*
 * Publishing, where the size stands before the bytes: begin; with headers, pge_nats_pub_header for
 * each and pge_nats_pub_body; append the payload to out; end. Nothing may be consumed from out in
 * between. After any failure, or to change one's mind, abort takes the message back out.
 */
struct pge_nats_pub {
    size_t start;   /* where the message begins; offsets count from pge_buf_head(out) */
    size_t sizes;   /* where its sizes stand */
    size_t headers; /* where its headers begin, or its payload when it has none */
    size_t payload; /* where its payload begins */
    bool has_headers;
};

/* reply_to: p NULL for none. Subject and reply_to have passed pge_nats_subject_check. */
int pge_nats_pub_begin(struct pge_buf *out, struct pge_nats_pub *pub, struct pge_span subject,
                       struct pge_span reply_to, bool has_headers);
int pge_nats_pub_header(struct pge_buf *out, struct pge_span name, struct pge_span value);
int pge_nats_pub_body(struct pge_buf *out, struct pge_nats_pub *pub);
/* Bytes that count against a server's max_payload so far: headers and payload. */
size_t pge_nats_pub_size(const struct pge_buf *out, const struct pge_nats_pub *pub);
/* Also UV_EMSGSIZE: above PGE_NATS_PUB_MAX. */
int pge_nats_pub_end(struct pge_buf *out, const struct pge_nats_pub *pub);
void pge_nats_pub_abort(struct pge_buf *out, const struct pge_nats_pub *pub);

/* Servers read no longer numbers. */
#define PGE_NATS_PUB_MAX 999999999

/* ---- subjects ---- */

/* To publish to: 0, or UV_EINVAL: empty, or with white space or control characters (NAT-07). */
int pge_nats_subject_check(struct pge_span subject);
/* To subscribe to: also UV_EINVAL for an empty token ("a..b") and for '>' before the end. */
int pge_nats_subject_check_sub(struct pge_span subject);
/* Has a token '*' or '>'. */
bool pge_nats_subject_is_wild(struct pge_span subject);
/* Does a subscription to `pattern` get what is published to `subject` (NAT-09)? */
bool pge_nats_subject_match(struct pge_span pattern, struct pge_span subject);

#endif
