/*
 * envelope_fuzz.c - the scanner accepts what the validator accepts, and each part it finds is a
 * value of its own inside the packet. A part taken out and put into a new packet is found again.
 * A space in front, which keeps the scan from its short cuts, changes nothing.
 *
 * Input: the packet.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "codec/envelope.h"

static void must(int condition) {
    if (!condition)
        abort();
}

static void check_part(struct pge_span part, const char *p, size_t n) {
    struct pge_json_scan s;
    struct pge_envelope e;
    struct pge_buf packet = {0};
    if (!part.p)
        return;
    must(part.n > 0 && part.p > p && part.p + part.n < p + n);
    must(part.p[0] != ' ' && part.p[part.n - 1] != ' ');
    pge_json_scan_init(&s);
    must(PGE_BUF_LIT(&packet, "{\"response\":") == 0);
    must(pge_buf_append(&packet, part.p, part.n) == 0);
    must(PGE_BUF_LIT(&packet, ",\"id\":7}") == 0);
    must(pge_envelope_scan(&s, pge_buf_head(&packet), pge_buf_len(&packet), &e) == 0);
    must(e.response.n == part.n && memcmp(e.response.p, part.p, part.n) == 0);
    must(e.id.n == 1 && !e.has_foreign_key && pge_envelope_reply(&e) == PGE_REPLY_VALUE);
    pge_json_scan_deinit(&s);
    pge_buf_deinit(&packet);
}

static void check_long_way(const char *p, size_t n, const struct pge_envelope *e, size_t depth) {
    struct pge_json_scan s;
    struct pge_envelope other;
    struct pge_buf packet = {0};
    pge_json_scan_init(&s);
    must(PGE_BUF_LIT(&packet, " ") == 0 && pge_buf_append(&packet, p, n) == 0);
    must(pge_envelope_scan(&s, pge_buf_head(&packet), n + 1, &other) == 0 && s.depth == depth);
    must(other.response.n == e->response.n && other.id.n == e->id.n && other.data.n == e->data.n);
    must(other.pattern.n == e->pattern.n && other.is_disposed.n == e->is_disposed.n);
    must(other.has_foreign_key == e->has_foreign_key && other.is_empty == e->is_empty);
    must(other.err.n == e->err.n && other.status.n == e->status.n);
    pge_json_scan_deinit(&s);
    pge_buf_deinit(&packet);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *p = (const char *)data;
    struct pge_json_scan s;
    struct pge_envelope e;
    if (size == 0)
        return 0;
    pge_json_scan_init(&s);
    int expected = pge_json_check(&s, p, size);
    size_t depth = s.depth;
    int status = pge_envelope_scan(&s, p, size, &e);
    must(status == expected);
    if (status == 0) {
        must(s.depth == depth);
        check_long_way(p, size, &e, depth);
        must(e.is_object == (*pge_json_skip_space(p, p + size) == '{'));
        const struct pge_span parts[] = {e.pattern, e.data,        e.id,     e.response,
                                         e.err,     e.is_disposed, e.status, e.metadata};
        for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
            check_part(parts[i], p, size);
        must(pge_envelope_is_request(&e) == (e.id.p && (e.pattern.p || e.data.p)));
        if (e.pattern.p || e.data.p || e.metadata.p)
            must(pge_envelope_reply(&e) == PGE_REPLY_FOREIGN);
    } else {
        must(s.error && s.error_at >= p && s.error_at <= p + size);
    }
    pge_json_scan_deinit(&s);
    return 0;
}
