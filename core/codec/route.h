/*
 * route.h - Nest's pattern normalisation over JSON text (nest-wire 1.3, 1.4; GEN-01..10).
 * The order of keys is collate.h's.
 */
#ifndef PGE_CODEC_ROUTE_H
#define PGE_CODEC_ROUTE_H

#include "base/buffer.h"
#include "codec/json.h"

/* Longer patterns are not looked up: no handler has one, and sorting its keys could take long. */
#define PGE_ROUTE_LOOKUP_MAX ((size_t)1024 * 1024)

/* Positive outcomes. */
enum pge_route_result {
    PGE_ROUTE_BARE = 1,   /* a top-level true, false or null: its text was appended, but to Nest it
                             is that value and not a string */
    PGE_ROUTE_ABSENT = 2, /* no pattern, or a lookup of one too long: nothing was appended, it
                             matches no handler */
};

/*
 * Appends the route of a JSON text, which is validated. 0, PGE_ROUTE_BARE, PGE_ROUTE_ABSENT (p is
 * NULL), UV_EPROTO (s->error, s->error_at), UV_ENOMEM; after an error nothing was appended.
 */
int pge_route(struct pge_json_scan *s, struct pge_span json, struct pge_buf *out);

/*
 * Appends the key under which a packet's pattern finds its handler: a string whose content is JSON
 * counts as that JSON (GEN-09, GEN-10). `pattern` is the span of the envelope, with its quotes.
 * Returns as pge_route.
 */
int pge_route_lookup_key(struct pge_json_scan *s, struct pge_span pattern, struct pge_buf *out);

/* The same for plain text, as an address or a script gives it: JSON if it parses, else a string
 * (UV_EILSEQ when that is not UTF-8). */
int pge_route_text(struct pge_json_scan *s, struct pge_span text, struct pge_buf *out);

#endif
