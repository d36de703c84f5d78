/* envelope.c - the packet's own keys are looked at, everything below them is skipped. */
#include "codec/envelope.h"

#include <string.h>
#include <uv.h>

#include "codec/swar.h"

/* The keys of nest-wire 1.1, the commonest first. */
static const struct key {
    const char *name;
    size_t n;
    size_t offset; /* of its span in struct pge_envelope */
    bool is_reply; /* may stand in a reply */
} keys[] = {
    {"id", 2, offsetof(struct pge_envelope, id), true},
    {"response", 8, offsetof(struct pge_envelope, response), true},
    {"isDisposed", 10, offsetof(struct pge_envelope, is_disposed), true},
    {"pattern", 7, offsetof(struct pge_envelope, pattern), false},
    {"data", 4, offsetof(struct pge_envelope, data), false},
    {"err", 3, offsetof(struct pge_envelope, err), true},
    {"metadata", 8, offsetof(struct pge_envelope, metadata), false},
    {"status", 6, offsetof(struct pge_envelope, status), true},
};

/* Compares a key that contains escapes. */
static bool is_escaped_name(const char *p, const char *end, const char *name) {
    while (p < end && *name) {
        if (pge_json_next_char(&p, end) != (unsigned char)*name++)
            return false;
    }
    return p == end && *name == '\0';
}

static const struct key *find_key(const char *p, const char *end) {
    size_t n = (size_t)(end - p), count = sizeof(keys) / sizeof(keys[0]);
    for (size_t i = 0; i < count; i++) {
        if (keys[i].n == n && memcmp(keys[i].name, p, n) == 0)
            return &keys[i];
    }
    if (!memchr(p, '\\', n))
        return NULL;
    for (size_t i = 0; i < count; i++) {
        if (is_escaped_name(p, end, keys[i].name))
            return &keys[i];
    }
    return NULL;
}

static void store(struct pge_envelope *e, struct pge_span name, struct pge_span value) {
    const struct key *key = find_key(name.p + 1, name.p + name.n - 1);
    if (!key || !key->is_reply)
        e->has_foreign_key = true;
    if (key)
        memcpy((char *)e + key->offset, &value, sizeof(value));
}

/* Scans `"key": value` at p. Returns where it ends, NULL after an error in *status. */
static const char *scan_member(struct pge_json_scan *s, const char *p, const char *end,
                               struct pge_envelope *e, int *status) {
    struct pge_span name = {p, 0}, value;
    *status = UV_EPROTO;
    if (p == end || *p != '"') {
        pge_json_fail(s, p, p == end ? "unexpected end" : "expected a key");
        return NULL;
    }
    p = pge_json_skip_string(s, p, end);
    if (!p)
        return NULL;
    name.n = (size_t)(p - name.p);
    p = pge_json_skip_space(p, end);
    if (p == end || *p != ':') {
        pge_json_fail(s, p, p == end ? "unexpected end" : "expected a colon");
        return NULL;
    }
    value.p = pge_json_skip_space(p + 1, end);
    *status = pge_json_skip(s, value.p, end, &p);
    if (*status != 0)
        return NULL;
    value.n = (size_t)(p - value.p);
    store(e, name, value);
    return p;
}

/* p is at the opening brace. */
static int scan_object(struct pge_json_scan *s, const char *p, const char *end,
                       struct pge_envelope *e) {
    size_t depth = 0;
    e->is_object = true;
    p = pge_json_skip_space(p + 1, end);
    e->is_empty = p < end && *p == '}';
    while (!e->is_empty) {
        int status;
        p = scan_member(s, p, end, e, &status);
        if (status != 0)
            return status;
        depth = s->depth > depth ? s->depth : depth;
        p = pge_json_skip_space(p, end);
        if (p == end)
            return pge_json_fail(s, end, "unexpected end");
        if (*p == '}')
            break;
        if (*p != ',')
            return pge_json_fail(s, p, "expected a comma or a closing bracket");
        p = pge_json_skip_space(p + 1, end);
    }
    s->depth = depth + 1;
    p = pge_json_skip_space(p + 1, end);
    return p == end ? 0 : pge_json_fail(s, p, "unexpected text after the value");
}

/*
 * The forms that Nest and perigee write, where each part stands where it must:
 *
 *   {"response":R,"isDisposed":true,"id":"21 plain characters"}
 *   {"pattern":P,"data":D,"id":"21 plain characters"}
 *
 * Only R, or P and D, are gone through. False: another form, or a faulty one; the scan of members
 * tells which.
 */
#define REPLY_HEAD "{\"response\":"
#define REPLY_TAIL ",\"isDisposed\":true"
#define REQUEST_HEAD "{\"pattern\":"
#define REQUEST_DATA ",\"data\":"
#define ID_HEAD ",\"id\":\""
#define ID_TAIL "\"}"
#define LEN(text) (sizeof(text) - 1)

enum { ID_LEN = 21, END_LEN = LEN(ID_HEAD) + ID_LEN + LEN(ID_TAIL) };

static inline bool is_at(const char *p, const char *end, const char *text, size_t n) {
    return (size_t)(end - p) >= n && memcmp(p, text, n) == 0;
}

/* Skips the value at p, which no white space precedes. NULL: there is none. */
static const char *skip_value(struct pge_json_scan *s, const char *p, const char *end) {
    const char *after;
    bool is_here = p < end && (unsigned char)*p > ' ';
    return is_here && pge_json_skip(s, p, end, &after) == 0 ? after : NULL;
}

/* Takes the id off the end of the packet. */
static bool take_id(const char *p, const char **end, struct pge_envelope *e) {
    if (*end - p < END_LEN)
        return false;
    const char *at = *end - END_LEN, *id = at + LEN(ID_HEAD);
    if (memcmp(at, ID_HEAD, LEN(ID_HEAD)) != 0 || memcmp(id + ID_LEN, ID_TAIL, LEN(ID_TAIL)) != 0 ||
        pge_swar_skip_plain(id, id + ID_LEN) != id + ID_LEN)
        return false;
    e->id = (struct pge_span){id - 1, ID_LEN + 2};
    *end = at;
    return true;
}

static bool scan_reply(struct pge_json_scan *s, const char *p, const char *end,
                       struct pge_envelope *e) {
    const char *value = p + LEN(REPLY_HEAD), *tail = end - LEN(REPLY_TAIL);
    if (tail <= value || memcmp(tail, REPLY_TAIL, LEN(REPLY_TAIL)) != 0 ||
        skip_value(s, value, tail) != tail)
        return false;
    e->response = (struct pge_span){value, (size_t)(tail - value)};
    e->is_disposed = (struct pge_span){end - LEN("true"), LEN("true")};
    s->depth++;
    return true;
}

static bool scan_request(struct pge_json_scan *s, const char *p, const char *end,
                         struct pge_envelope *e) {
    const char *pattern = p + LEN(REQUEST_HEAD), *after = skip_value(s, pattern, end);
    if (!after || !is_at(after, end, REQUEST_DATA, LEN(REQUEST_DATA)))
        return false;
    const char *data = after + LEN(REQUEST_DATA);
    size_t depth = s->depth;
    if (skip_value(s, data, end) != end)
        return false;
    e->pattern = (struct pge_span){pattern, (size_t)(after - pattern)};
    e->data = (struct pge_span){data, (size_t)(end - data)};
    e->has_foreign_key = true;
    s->depth = (s->depth > depth ? s->depth : depth) + 1;
    return true;
}

static bool scan_usual(struct pge_json_scan *s, const char *p, const char *end,
                       struct pge_envelope *e) {
    bool is_reply = is_at(p, end, REPLY_HEAD, LEN(REPLY_HEAD));
    if (!is_reply && !is_at(p, end, REQUEST_HEAD, LEN(REQUEST_HEAD)))
        return false;
    e->is_object = true;
    if (take_id(p, &end, e) && (is_reply ? scan_reply(s, p, end, e) : scan_request(s, p, end, e)))
        return true;
    *e = (struct pge_envelope){0};
    return false;
}

int pge_envelope_scan(struct pge_json_scan *s, const char *p, size_t n, struct pge_envelope *e) {
    const char *end = p + n;
    *e = (struct pge_envelope){0};
    if (scan_usual(s, p, end, e))
        return 0;
    const char *first = pge_json_skip_space(p, end);
    if (first < end && *first == '{')
        return scan_object(s, first, end, e);
    return pge_json_check(s, p, n);
}

enum pge_inbound pge_envelope_inbound(const struct pge_envelope *e) {
    if (!e->pattern.p && !e->data.p)
        return PGE_INBOUND_FOREIGN;
    return e->id.p ? PGE_INBOUND_REQUEST : PGE_INBOUND_EVENT;
}

enum pge_reply pge_envelope_reply(const struct pge_envelope *e) {
    if (!e->is_object || e->is_empty || e->has_foreign_key)
        return PGE_REPLY_FOREIGN;
    if (pge_json_is_truthy(e->err))
        return PGE_REPLY_ERROR;
    if (!pge_json_is_truthy(e->is_disposed))
        return PGE_REPLY_VALUE;
    return e->response.p ? PGE_REPLY_LAST : PGE_REPLY_END;
}
