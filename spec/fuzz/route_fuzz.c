/*
 * route_fuzz.c - a pattern has one key, sent as JSON or as a string that holds it; swapping two
 * members of an object changes nothing unless ICU holds their names equal; the order is one.
 *
 * Input: two bytes that place a cut, then a pattern; around the cut, two keys.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "codec/collate.h"
#include "codec/route.h"

static void must(int condition) {
    if (!condition)
        abort();
}

static int is_same(const struct pge_buf *a, const struct pge_buf *b) {
    size_t n = pge_buf_len(a);
    return pge_buf_len(b) == n && (n == 0 || memcmp(pge_buf_head(a), pge_buf_head(b), n) == 0);
}

/* JSON or not: as a text, and as the content of a string pattern, it has the same key. */
static void check_text(struct pge_json_scan *s, const char *p, size_t n) {
    struct pge_buf plain = {0}, quoted = {0}, looked_up = {0};
    int status = pge_route_text(s, (struct pge_span){p, n}, &plain);
    if (status >= 0) {
        must(pge_utf8_check(p, n) == 0);
        must(pge_json_quote(&quoted, p, n) == 0);
        struct pge_span pattern = {pge_buf_head(&quoted), pge_buf_len(&quoted)};
        must(pge_route_lookup_key(s, pattern, &looked_up) == status);
        must(is_same(&plain, &looked_up));
    }
    pge_buf_deinit(&plain);
    pge_buf_deinit(&quoted);
    pge_buf_deinit(&looked_up);
}

static void check_json(struct pge_json_scan *s, const char *p, size_t n) {
    struct pge_buf route = {0}, text = {0};
    int status = pge_route(s, (struct pge_span){p, n}, &route);
    must(status == 0 || status == PGE_ROUTE_BARE || status == UV_EPROTO);
    if (status >= 0) {
        must(pge_route_text(s, (struct pge_span){p, n}, &text) == status);
        must(is_same(&route, &text));
        must(pge_utf8_check(route.data, pge_buf_len(&route)) == 0);
    } else {
        must(pge_buf_len(&route) == 0);
    }
    pge_buf_deinit(&route);
    pge_buf_deinit(&text);
}

static void append_key(struct pge_buf *out, struct pge_span key, const char *value) {
    must(pge_json_quote(out, key.p, key.n) == 0);
    must(pge_buf_append(out, value, strlen(value)) == 0);
}

static struct pge_buf route_of(struct pge_json_scan *s, struct pge_span first, const char *value,
                               struct pge_span second, const char *other) {
    struct pge_buf json = {0}, route = {0};
    must(PGE_BUF_LIT(&json, "{") == 0);
    append_key(&json, first, value);
    must(PGE_BUF_LIT(&json, ",") == 0);
    append_key(&json, second, other);
    must(PGE_BUF_LIT(&json, "}") == 0);
    must(pge_route(s, (struct pge_span){pge_buf_head(&json), pge_buf_len(&json)}, &route) == 0);
    pge_buf_deinit(&json);
    return route;
}

static int compare(struct pge_span a, struct pge_span b) {
    struct pge_buf x = {0}, y = {0};
    must(pge_json_quote(&x, a.p, a.n) == 0 && pge_json_quote(&y, b.p, b.n) == 0);
    struct pge_span xs = {pge_buf_head(&x) + 1, pge_buf_len(&x) - 2};
    struct pge_span ys = {pge_buf_head(&y) + 1, pge_buf_len(&y) - 2};
    int order = pge_collate_json(xs, ys);
    must(pge_collate_json(ys, xs) == -order);
    must(pge_collate_json(xs, xs) == 0);
    pge_buf_deinit(&x);
    pge_buf_deinit(&y);
    return order;
}

static void check_keys(struct pge_json_scan *s, struct pge_span a, struct pge_span b) {
    if (pge_utf8_check(a.p, a.n) != 0 || pge_utf8_check(b.p, b.n) != 0)
        return;
    if (compare(a, b) == 0)
        return;
    struct pge_buf one = route_of(s, a, ":1", b, ":2"), two = route_of(s, b, ":2", a, ":1");
    must(is_same(&one, &two));
    pge_buf_deinit(&one);
    pge_buf_deinit(&two);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2)
        return 0;
    const char *p = (const char *)data + 2;
    size_t n = size - 2, cut = (data[0] + 256u * data[1]) % (n + 1);
    struct pge_json_scan s;
    pge_json_scan_init(&s);
    check_text(&s, p, n);
    check_json(&s, p, n);
    check_keys(&s, (struct pge_span){p, cut}, (struct pge_span){p + cut, n - cut});
    pge_json_scan_deinit(&s);
    return 0;
}
