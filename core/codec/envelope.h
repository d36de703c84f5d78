/*
 * envelope.h - finds the parts of a Nest packet (nest-wire 1.1) in one pass, validating all of it
 * and decoding none.
 */
#ifndef PGE_CODEC_ENVELOPE_H
#define PGE_CODEC_ENVELOPE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buffer.h"
#include "codec/json.h"

/*
 * Borrowed spans into the packet: the exact text of each value, strings with their quotes;
 * p == NULL when the key is absent. The last of duplicate keys wins, as in JSON.parse.
 */
struct pge_envelope {
    struct pge_span pattern, data, id, response, err, is_disposed, status, metadata;
    bool is_object;
    bool is_empty;        /* {} */
    bool has_foreign_key; /* a key outside id, err, response, isDisposed, status */
};

/* p, n: the packet, white space around it allowed. Any JSON value passes; is_object tells.
 * 0, UV_EPROTO (s->error, s->error_at), UV_ENOMEM; s->depth is the packet's. */
int pge_envelope_scan(struct pge_json_scan *s, const char *p, size_t n, struct pge_envelope *e);

/* As a server reads it (nest-wire 1.1, 1.10; TCP-16..18). Exactly one holds. */
enum pge_inbound {
    PGE_INBOUND_FOREIGN, /* neither pattern nor data: an event whose data is the whole packet */
    PGE_INBOUND_EVENT,   /* no id */
    PGE_INBOUND_REQUEST, /* has an id, be it null (GEN-33) */
};
enum pge_inbound pge_envelope_inbound(const struct pge_envelope *e);

static inline bool pge_envelope_is_request(const struct pge_envelope *e) {
    return pge_envelope_inbound(e) == PGE_INBOUND_REQUEST;
}

/* As a client reads it (nest-wire 1.6; GEN-15..18). */
enum pge_reply {
    PGE_REPLY_VALUE,   /* response, absent: nil; the call stays open */
    PGE_REPLY_LAST,    /* response, then complete */
    PGE_REPLY_END,     /* complete without a value */
    PGE_REPLY_ERROR,   /* err */
    PGE_REPLY_FOREIGN, /* the whole packet is the value, then complete */
};
enum pge_reply pge_envelope_reply(const struct pge_envelope *e);

#endif
