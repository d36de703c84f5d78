/*
 * json.h - skips and validates JSON without decoding it. Strict RFC 8259 and strict UTF-8; no
 * recursion, any depth. Lone surrogate escapes (\ud800) are legal, as in JSON.parse.
 */
#ifndef PGE_CODEC_JSON_H
#define PGE_CODEC_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"
#include "codec/utf8.h"

/* Nesting that needs no allocation. */
#define PGE_JSON_INLINE_DEPTH 512

/* Scratch memory and outcome of the last scan; callers keep one and reuse it. */
struct pge_json_scan {
    uint64_t inline_bits[PGE_JSON_INLINE_DEPTH / 64];
    uint64_t *heap_bits;  /* owned; NULL while inline_bits is enough */
    size_t heap_depth;    /* levels heap_bits has room for */
    struct pge_buf text;  /* owned; a pattern pge_route_lookup_key decodes */
    size_t depth;         /* deepest nesting the last scan saw: 0 for a scalar, 1 for {} */
    const char *error;    /* static text; set by a scan that failed */
    const char *error_at; /* borrowed: into the caller's text; where it failed */
};

void pge_json_scan_init(struct pge_json_scan *s);
void pge_json_scan_deinit(struct pge_json_scan *s); /* may be initialised again */

/*
 * Skips one value; leading white space is allowed. *next is set after it, on success only.
 * A number is taken as long as it can be, so `1x` skips `1`.
 * 0, UV_EPROTO (s->error, s->error_at), UV_ENOMEM.
 */
int pge_json_skip(struct pge_json_scan *s, const char *p, const char *end, const char **next);

/* Is the whole text one value, with white space around? Returns as pge_json_skip. */
int pge_json_check(struct pge_json_scan *s, const char *p, size_t n);

/* Skips the string whose opening quote is at p (p < end). Returns the byte after its closing
 * quote, or NULL with s->error set. */
const char *pge_json_skip_string(struct pge_json_scan *s, const char *p, const char *end);

/* Records an error; returns UV_EPROTO. For scanners built on this one. */
int pge_json_fail(struct pge_json_scan *s, const char *at, const char *error);

/* The first byte that is not JSON white space. */
static inline const char *pge_json_skip_space(const char *p, const char *end) {
    while (p < end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t'))
        p++;
    return p;
}

enum pge_json_kind {
    PGE_JSON_NONE, /* absent or empty */
    PGE_JSON_OBJECT,
    PGE_JSON_ARRAY,
    PGE_JSON_STRING,
    PGE_JSON_NUMBER,
    PGE_JSON_TRUE,
    PGE_JSON_FALSE,
    PGE_JSON_NULL,
};

/* The spans below are exact texts of validated values (an absent one is p == NULL). */

enum pge_json_kind pge_json_kind(struct pge_span json);

/* JavaScript's truthiness: absent, false, null, "", and numbers that are zero are falsy. */
bool pge_json_is_truthy(struct pge_span json);

/* Decodes one character inside a validated string's quotes and moves *p on. Halves of surrogate
 * pairs that stand alone become U+FFFD. */
unsigned pge_json_next_char(const char **p, const char *end);

/* Appends the content of a validated string (with its quotes) as UTF-8. 0 or UV_ENOMEM, and then
 * nothing was appended. */
int pge_json_unescape(struct pge_span quoted, struct pge_buf *out);

/* Appends text as a JSON string, byte for byte what JSON.stringify writes. 0, UV_EILSEQ (not
 * UTF-8), UV_ENOMEM; after an error nothing was appended. */
int pge_json_quote(struct pge_buf *out, const char *p, size_t n);

#endif
