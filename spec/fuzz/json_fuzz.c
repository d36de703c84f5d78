/*
 * json_fuzz.c - what the validator accepts stays accepted inside a list and is valid UTF-8, no
 * proper prefix of a bracketed text passes, strings survive decoding and quoting, and numbers
 * survive reading and writing.
 *
 * Input: two bytes that place a cut, then the text.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "codec/json.h"
#include "codec/number.h"

static void must(int condition) {
    if (!condition)
        abort();
}

static void check_string(struct pge_json_scan *s, struct pge_span quoted) {
    struct pge_buf text = {0}, again = {0}, back = {0};
    must(pge_json_unescape(quoted, &text) == 0);
    must(pge_utf8_check(pge_buf_head(&text), pge_buf_len(&text)) == 0);
    must(pge_json_quote(&again, pge_buf_head(&text), pge_buf_len(&text)) == 0);
    must(pge_json_check(s, pge_buf_head(&again), pge_buf_len(&again)) == 0);
    struct pge_span span = {pge_buf_head(&again), pge_buf_len(&again)};
    must(pge_json_unescape(span, &back) == 0);
    must(pge_buf_len(&back) == pge_buf_len(&text));
    must(memcmp(pge_buf_head(&back), pge_buf_head(&text), pge_buf_len(&back)) == 0);
    pge_buf_deinit(&text);
    pge_buf_deinit(&again);
    pge_buf_deinit(&back);
}

static void check_number(struct pge_span json) {
    double value, back;
    char text[PGE_NUMBER_MAX];
    must(pge_number_parse(json.p, json.n, &value) == 0);
    if (value - value != 0) /* infinite */
        return;
    size_t n = pge_number_format(value, text);
    must(n <= sizeof(text));
    must(pge_number_parse(text, n, &back) == 0);
    must(back == value);
}

static void check_inside_a_list(struct pge_json_scan *s, const char *p, size_t n) {
    struct pge_buf list = {0};
    size_t depth = s->depth;
    must(PGE_BUF_LIT(&list, "[0,") == 0);
    must(pge_buf_append(&list, p, n) == 0);
    must(PGE_BUF_LIT(&list, "]") == 0);
    must(pge_json_check(s, pge_buf_head(&list), pge_buf_len(&list)) == 0);
    must(s->depth == depth + 1);
    pge_buf_deinit(&list);
}

/* Any bytes: quoting succeeds exactly when they are UTF-8, and the units are those of a walk. */
static void check_quote(struct pge_json_scan *s, const char *p, size_t n) {
    struct pge_buf quoted = {0};
    struct pge_utf8_walk walk;
    int status = pge_utf8_check(p, n);
    must(pge_json_quote(&quoted, p, n) == status);
    if (status == 0) {
        must(pge_json_check(s, pge_buf_head(&quoted), pge_buf_len(&quoted)) == 0);
        must(pge_utf8_walk(p, n, SIZE_MAX, &walk) == 0);
        must(walk.bytes == n && walk.units == pge_utf16_units(p, n));
    }
    pge_buf_deinit(&quoted);
}

static void check_valid(struct pge_json_scan *s, const char *p, size_t n, size_t cut) {
    const char *next, *end = p + n;
    check_inside_a_list(s, p, n);
    must(pge_utf8_check(p, n) == 0);
    const char *first = pge_json_skip_space(p, end);
    must(pge_json_skip(s, p, end, &next) == 0);
    struct pge_span value = {first, (size_t)(next - first)};
    must(pge_json_skip_space(next, end) == end);
    (void)pge_json_is_truthy(value);
    switch (pge_json_kind(value)) {
    case PGE_JSON_STRING:
        check_string(s, value);
        must(pge_json_check(s, value.p, cut % value.n) == UV_EPROTO);
        break;
    case PGE_JSON_NUMBER:
        check_number(value);
        break;
    default:
        must(pge_json_check(s, value.p, cut % value.n) == UV_EPROTO);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2)
        return 0;
    const char *p = (const char *)data + 2;
    size_t n = size - 2, cut = data[0] + 256u * data[1];
    struct pge_json_scan s;
    pge_json_scan_init(&s);
    int status = pge_json_check(&s, p, n);
    if (status == 0) {
        check_valid(&s, p, n, cut);
    } else {
        must(status == UV_EPROTO);
        must(s.error && s.error_at >= p && s.error_at <= p + n);
    }
    check_quote(&s, p, n);
    pge_json_scan_deinit(&s);
    return 0;
}
