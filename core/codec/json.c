/*
 * json.c - the skipping validator: a state machine of three states (value, key, after a value)
 * with one bit per open bracket, 1 for an object.
 */
#include "codec/json.h"

#include <string.h>
#include <uv.h>

#include "base/alloc.h"
#include "codec/number.h"
#include "codec/swar.h"

/* Scratch above this many levels is given back after the scan. */
#define KEEP_DEPTH (8 * 4096)

void pge_json_scan_init(struct pge_json_scan *s) {
    *s = (struct pge_json_scan){0};
}

static void drop_heap(struct pge_json_scan *s) {
    pge_free(s->heap_bits);
    s->heap_bits = NULL;
    s->heap_depth = 0;
}

void pge_json_scan_deinit(struct pge_json_scan *s) {
    drop_heap(s);
    pge_buf_deinit(&s->text);
}

int pge_json_fail(struct pge_json_scan *s, const char *at, const char *error) {
    s->error = error;
    s->error_at = at;
    return UV_EPROTO;
}

static const char *fail_at(struct pge_json_scan *s, const char *at, const char *error) {
    pge_json_fail(s, at, error);
    return NULL;
}

/* Strings */

static inline bool is_hex(char c) {
    return (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'f');
}

/* p is at the backslash. */
static const char *skip_escape(struct pge_json_scan *s, const char *p, const char *end) {
    if (end - p < 2)
        return fail_at(s, end, "unexpected end");
    switch (p[1]) {
    case '"':
    case '\\':
    case '/':
    case 'b':
    case 'f':
    case 'n':
    case 'r':
    case 't':
        return p + 2;
    case 'u':
        for (int i = 2; i < 6; i++) {
            if (p + i == end)
                return fail_at(s, end, "unexpected end");
            if (!is_hex(p[i]))
                return fail_at(s, p + i, "bad escape");
        }
        return p + 6;
    default:
        return fail_at(s, p + 1, "bad escape");
    }
}

/* p is at a byte above 7F. */
static const char *skip_wide(struct pge_json_scan *s, const char *p, const char *end) {
    do {
        int width = pge_utf8_char(p, end);
        if (width == 0)
            return fail_at(s, end, "unexpected end");
        if (width < 0)
            return fail_at(s, p, "invalid UTF-8");
        p += width;
    } while (p < end && (unsigned char)*p >= 0x80);
    return p;
}

static const char *skip_rest(struct pge_json_scan *s, const char *p, const char *end) {
    for (;;) {
        p = pge_swar_skip_plain(p, end);
        if (p == end)
            return fail_at(s, end, "unexpected end");
        if (*p == '"')
            return p + 1;
        if (*p == '\\')
            p = skip_escape(s, p, end);
        else if ((unsigned char)*p >= 0x80)
            p = skip_wide(s, p, end);
        else
            return fail_at(s, p, "control character in a string");
        if (!p)
            return NULL;
    }
}

/* Most strings, and nearly all keys, are plain and short. */
static inline const char *skip_string(struct pge_json_scan *s, const char *p, const char *end) {
    const char *quote = pge_swar_skip_plain(++p, end);
    return quote < end && *quote == '"' ? quote + 1 : skip_rest(s, quote, end);
}

const char *pge_json_skip_string(struct pge_json_scan *s, const char *p, const char *end) {
    return skip_string(s, p, end);
}

/* Numbers and words */

static inline bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

static inline const char *skip_digits(struct pge_json_scan *s, const char *p, const char *end) {
    if (p == end)
        return fail_at(s, end, "unexpected end");
    if (!is_digit(*p))
        return fail_at(s, p, "bad number");
    while (p < end && is_digit(*p))
        p++;
    return p;
}

static const char *skip_number(struct pge_json_scan *s, const char *p, const char *end) {
    if (*p == '-')
        p++;
    if (p < end && *p == '0')
        p++;
    else
        p = skip_digits(s, p, end);
    if (p && p < end && *p == '.')
        p = skip_digits(s, p + 1, end);
    if (p && p < end && (*p == 'e' || *p == 'E')) {
        p++;
        if (p < end && (*p == '+' || *p == '-'))
            p++;
        p = skip_digits(s, p, end);
    }
    return p;
}

static inline const char *skip_word(struct pge_json_scan *s, const char *p, const char *end,
                                    const char *word, size_t n) {
    if ((size_t)(end - p) >= n && memcmp(p, word, n) == 0)
        return p + n;
    while (p < end && *p == *word) {
        p++;
        word++;
    }
    return fail_at(s, p, p == end ? "unexpected end" : "unexpected character");
}

static inline const char *skip_scalar(struct pge_json_scan *s, const char *p, const char *end) {
    switch (*p) {
    case '"':
        return skip_string(s, p, end);
    case 't':
        return skip_word(s, p, end, "true", 4);
    case 'f':
        return skip_word(s, p, end, "false", 5);
    case 'n':
        return skip_word(s, p, end, "null", 4);
    default:
        if (*p == '-' || is_digit(*p))
            return skip_number(s, p, end);
        return fail_at(s, p, "unexpected character");
    }
}

/* Brackets */

static int grow_bits(struct pge_json_scan *s, size_t depth) {
    uint64_t *bits = pge_realloc(s->heap_bits, depth / 4); /* room for twice as deep */
    if (!bits)
        return UV_ENOMEM;
    if (!s->heap_bits)
        memcpy(bits, s->inline_bits, sizeof(s->inline_bits));
    s->heap_bits = bits;
    s->heap_depth = depth * 2;
    return 0;
}

static inline uint64_t *bits_of(struct pge_json_scan *s) {
    return s->heap_bits ? s->heap_bits : s->inline_bits;
}

/* Opens a bracket where `depth` are open. */
static inline int push(struct pge_json_scan *s, size_t depth, bool is_object) {
    size_t room = s->heap_bits ? s->heap_depth : PGE_JSON_INLINE_DEPTH;
    if (depth == room && grow_bits(s, room) != 0)
        return UV_ENOMEM;
    uint64_t bit = UINT64_C(1) << (depth % 64), *word = &bits_of(s)[depth / 64];
    *word = is_object ? *word | bit : *word & ~bit;
    if (depth >= s->depth)
        s->depth = depth + 1;
    return 0;
}

static inline bool is_in_object(struct pge_json_scan *s, size_t depth) {
    return (bits_of(s)[(depth - 1) / 64] >> ((depth - 1) % 64)) & 1;
}

static inline const char *skip_key(struct pge_json_scan *s, const char *p, const char *end) {
    p = pge_json_skip_space(p, end);
    if (p == end)
        return fail_at(s, end, "unexpected end");
    if (*p != '"')
        return fail_at(s, p, "expected a key");
    p = skip_string(s, p, end);
    if (!p)
        return NULL;
    p = pge_json_skip_space(p, end);
    if (p == end)
        return fail_at(s, end, "unexpected end");
    return *p == ':' ? p + 1 : fail_at(s, p, "expected a colon");
}

static int skip_value(struct pge_json_scan *s, const char *p, const char *end, const char **next) {
    size_t depth = 0;
    bool in_object = false; /* the innermost open bracket */
value:
    p = pge_json_skip_space(p, end);
    if (p == end)
        return pge_json_fail(s, end, "unexpected end");
    if (*p == '{' || *p == '[') {
        bool is_object = *p == '{';
        if (push(s, depth, is_object) != 0)
            return UV_ENOMEM;
        p = pge_json_skip_space(p + 1, end);
        if (p < end && *p == (is_object ? '}' : ']')) {
            p++;
            goto after;
        }
        depth++;
        in_object = is_object;
        if (!is_object)
            goto value;
        goto key;
    }
    p = skip_scalar(s, p, end);
    if (!p)
        return UV_EPROTO;
after:
    while (depth > 0) {
        p = pge_json_skip_space(p, end);
        if (p == end)
            return pge_json_fail(s, end, "unexpected end");
        if (*p == ',') {
            p++;
            if (!in_object)
                goto value;
            goto key;
        }
        if (*p != (in_object ? '}' : ']'))
            return pge_json_fail(s, p, "expected a comma or a closing bracket");
        p++;
        if (--depth > 0)
            in_object = is_in_object(s, depth);
    }
    *next = p;
    return 0;
key:
    p = skip_key(s, p, end);
    if (p)
        goto value;
    return UV_EPROTO;
}

int pge_json_skip(struct pge_json_scan *s, const char *p, const char *end, const char **next) {
    s->depth = 0;
    int status = skip_value(s, p, end, next);
    if (s->heap_depth > KEEP_DEPTH)
        drop_heap(s);
    return status;
}

int pge_json_check(struct pge_json_scan *s, const char *p, size_t n) {
    const char *end = p + n, *next;
    int status = pge_json_skip(s, p, end, &next);
    if (status != 0)
        return status;
    next = pge_json_skip_space(next, end);
    return next == end ? 0 : pge_json_fail(s, next, "unexpected text after the value");
}

/* Looking at validated values */

enum pge_json_kind pge_json_kind(struct pge_span json) {
    if (!json.p || json.n == 0)
        return PGE_JSON_NONE;
    switch (*json.p) {
    case '{':
        return PGE_JSON_OBJECT;
    case '[':
        return PGE_JSON_ARRAY;
    case '"':
        return PGE_JSON_STRING;
    case 't':
        return PGE_JSON_TRUE;
    case 'f':
        return PGE_JSON_FALSE;
    case 'n':
        return PGE_JSON_NULL;
    default:
        return PGE_JSON_NUMBER;
    }
}

bool pge_json_is_truthy(struct pge_span json) {
    double number;
    switch (pge_json_kind(json)) {
    case PGE_JSON_NONE:
    case PGE_JSON_FALSE:
    case PGE_JSON_NULL:
        return false;
    case PGE_JSON_STRING:
        return json.n > 2;
    case PGE_JSON_NUMBER: /* read, not looked at: 1e-400 is zero */
        return pge_number_parse(json.p, json.n, &number) == 0 && number != 0;
    default:
        return true;
    }
}
