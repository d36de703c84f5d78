/* route.c - normalises a pattern straight from its JSON text; no value is built. */
#include "codec/route.h"

#include <math.h>
#include <string.h>
#include <uv.h>

#include "codec/collate.h"
#include "codec/number.h"

/* Nest's limits: objects nested deeper, or with more keys, become a placeholder. */
#define DEPTH_MAX 5
#define KEYS_MAX 20

/* Memory for decoded patterns that is kept between lookups. */
#define KEEP_BYTES 4096

/* Borrowed from the pattern's text. */
struct member {
    struct pge_span key; /* without the quotes */
    struct pge_span value;
    bool is_escaped; /* the key contains escapes */
};

struct members {
    struct member list[KEYS_MAX];
    size_t n;
    bool is_overfull;
};

/* Scalars */

/* Route strings escape only the quote and the backslash (GEN-04). */
static int append_content(struct pge_buf *out, struct pge_span content) {
    const char *p = content.p, *end = p + content.n;
    if (!memchr(p, '\\', content.n))
        return pge_buf_append(out, p, content.n);
    while (p < end) {
        char text[5] = {'\\'};
        unsigned c = pge_json_next_char(&p, end);
        size_t width = pge_utf8_encode(c, text + 1);
        bool is_escaped = c == '"' || c == '\\';
        int status = pge_buf_append(out, text + !is_escaped, width + is_escaped);
        if (status != 0)
            return status;
    }
    return 0;
}

static int append_quoted(struct pge_buf *out, struct pge_span content) {
    int status = PGE_BUF_LIT(out, "\"");
    if (status == 0)
        status = append_content(out, content);
    return status ? status : PGE_BUF_LIT(out, "\"");
}

static int append_number(struct pge_buf *out, struct pge_span json) {
    double value;
    char text[PGE_NUMBER_MAX];
    int status = pge_number_parse(json.p, json.n, &value);
    if (status != 0)
        return status;
    if (isinf(value)) /* 1e400, to JavaScript */
        return value < 0 ? PGE_BUF_LIT(out, "-Infinity") : PGE_BUF_LIT(out, "Infinity");
    return pge_buf_append(out, text, pge_number_format(value, text));
}

/* Members */

static bool is_same_key(const struct member *a, const struct member *b) {
    if (a->key.n == b->key.n && memcmp(a->key.p, b->key.p, a->key.n) == 0)
        return true;
    if (!a->is_escaped && !b->is_escaped)
        return false;
    const char *p = a->key.p, *p_end = p + a->key.n, *q = b->key.p, *q_end = q + b->key.n;
    while (p < p_end && q < q_end) {
        if (pge_json_next_char(&p, p_end) != pge_json_next_char(&q, q_end))
            return false;
    }
    return p == p_end && q == q_end;
}

/* A key seen before keeps its place and takes the new value. */
static void add_member(struct members *m, struct member member) {
    for (size_t i = 0; i < m->n; i++) {
        if (is_same_key(&m->list[i], &member)) {
            m->list[i].value = member.value;
            return;
        }
    }
    if (m->n == KEYS_MAX)
        m->is_overfull = true;
    else
        m->list[m->n++] = member;
}

/* The name of an array's element, which is its key (GEN-03). */
static struct pge_span index_name(size_t i) {
    static const char names[] = "0123456789"
                                "10111213141516171819";
    return i < 10 ? (struct pge_span){names + i, 1}
                  : (struct pge_span){names + 10 + (i - 10) * 2, 2};
}

/* Collects the members of a validated object or array, stopping at one too many. */
static int collect(struct pge_json_scan *s, struct pge_span json, struct members *m) {
    const char *p = json.p + 1, *end = json.p + json.n - 1;
    bool is_object = *json.p == '{';
    m->n = 0;
    m->is_overfull = false;
    p = pge_json_skip_space(p, end);
    while (p < end && !m->is_overfull) {
        struct member member = {.is_escaped = false};
        if (is_object) {
            member.key.p = p + 1;
            p = pge_json_skip_string(s, p, end);
            member.key.n = (size_t)(p - 1 - member.key.p);
            member.is_escaped = memchr(member.key.p, '\\', member.key.n) != NULL;
            p = pge_json_skip_space(p, end) + 1;
        } else if (m->n < KEYS_MAX) {
            member.key = index_name(m->n);
        } else {
            m->is_overfull = true;
            break;
        }
        member.value.p = pge_json_skip_space(p, end);
        int status = pge_json_skip(s, member.value.p, end, &p);
        if (status != 0)
            return status;
        member.value.n = (size_t)(p - member.value.p);
        add_member(m, member);
        p = pge_json_skip_space(p, end);
        if (p < end)
            p = pge_json_skip_space(p + 1, end);
    }
    return 0;
}

/* By binary insertion: stable, and few comparisons, as keys may be long. */
static void sort_members(struct members *m) {
    for (size_t i = 1; i < m->n; i++) {
        struct member member = m->list[i];
        size_t low = 0, high = i;
        while (low < high) {
            size_t middle = (low + high) / 2;
            if (pge_collate_json(m->list[middle].key, member.key) > 0)
                high = middle;
            else
                low = middle + 1;
        }
        memmove(&m->list[low + 1], &m->list[low], (i - low) * sizeof(member));
        m->list[low] = member;
    }
}

static int append_value(struct pge_json_scan *s, struct pge_span json, int depth,
                        struct pge_buf *out);

static int append_members(struct pge_json_scan *s, const struct members *m, int depth,
                          struct pge_buf *out) {
    int status = PGE_BUF_LIT(out, "{");
    for (size_t i = 0; status == 0 && i < m->n; i++) {
        if (i > 0)
            status = PGE_BUF_LIT(out, ",");
        if (status == 0)
            status = append_quoted(out, m->list[i].key);
        if (status == 0)
            status = PGE_BUF_LIT(out, ":");
        if (status == 0)
            status = append_value(s, m->list[i].value, depth + 1, out);
    }
    return status ? status : PGE_BUF_LIT(out, "}");
}

static int append_container(struct pge_json_scan *s, struct pge_span json, int depth,
                            struct pge_buf *out) {
    struct members m;
    if (depth > DEPTH_MAX)
        return PGE_BUF_LIT(out, "[MAX_DEPTH_REACHED]");
    int status = collect(s, json, &m);
    if (status != 0)
        return status;
    if (m.is_overfull)
        return PGE_BUF_LIT(out, "[TOO_MANY_KEYS]");
    sort_members(&m);
    return append_members(s, &m, depth, out);
}

static int append_value(struct pge_json_scan *s, struct pge_span json, int depth,
                        struct pge_buf *out) {
    switch (pge_json_kind(json)) {
    case PGE_JSON_OBJECT:
    case PGE_JSON_ARRAY:
        return append_container(s, json, depth, out);
    case PGE_JSON_STRING:
        return append_quoted(out, (struct pge_span){json.p + 1, json.n - 2});
    case PGE_JSON_NUMBER:
        return append_number(out, json);
    default:
        return pge_buf_append(out, json.p, json.n);
    }
}

/* json: validated, white space around it allowed. */
static int append_route(struct pge_json_scan *s, struct pge_span json, struct pge_buf *out) {
    const char *end = json.p + json.n;
    size_t before = pge_buf_len(out);
    int status;
    json.p = pge_json_skip_space(json.p, end);
    while (end[-1] == ' ' || end[-1] == '\n' || end[-1] == '\r' || end[-1] == '\t')
        end--;
    json.n = (size_t)(end - json.p);
    switch (pge_json_kind(json)) {
    case PGE_JSON_STRING:
        status = pge_json_unescape(json, out);
        break;
    case PGE_JSON_TRUE:
    case PGE_JSON_FALSE:
    case PGE_JSON_NULL:
        status = pge_buf_append(out, json.p, json.n);
        return status ? status : PGE_ROUTE_BARE;
    default:
        status = append_value(s, json, 0, out);
    }
    if (status != 0)
        out->end = out->start + before;
    return status;
}

int pge_route(struct pge_json_scan *s, struct pge_span json, struct pge_buf *out) {
    if (!json.p)
        return PGE_ROUTE_ABSENT;
    int status = pge_json_check(s, json.p, json.n);
    return status ? status : append_route(s, json, out);
}

int pge_route_text(struct pge_json_scan *s, struct pge_span text, struct pge_buf *out) {
    int status = pge_json_check(s, text.p, text.n);
    if (status == 0)
        return append_route(s, text, out);
    if (status == UV_EPROTO)
        status = pge_utf8_check(text.p, text.n);
    return status ? status : pge_buf_append(out, text.p, text.n);
}

int pge_route_lookup_key(struct pge_json_scan *s, struct pge_span pattern, struct pge_buf *out) {
    if (pattern.n > PGE_ROUTE_LOOKUP_MAX)
        return PGE_ROUTE_ABSENT;
    if (pge_json_kind(pattern) != PGE_JSON_STRING)
        return pge_route(s, pattern, out);
    struct pge_span text = {pattern.p + 1, pattern.n - 2};
    if (!memchr(text.p, '\\', text.n))
        return pge_route_text(s, text, out);
    pge_buf_clear(&s->text);
    int status = pge_json_unescape(pattern, &s->text);
    if (status == 0)
        status = pge_route_text(s, (struct pge_span){pge_buf_head(&s->text), pge_buf_len(&s->text)},
                                out);
    pge_buf_clear(&s->text);
    pge_buf_trim(&s->text, KEEP_BYTES);
    return status;
}
