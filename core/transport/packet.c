/* packet.c - writing Nest's JSON packets. Memory is reserved piece by piece; a failure rolls back.
 */
#include "transport/packet.h"

#include <uv.h>

#include "codec/route.h"

/* Puts out back to its old length and hands the status on. */
static int undo(struct pge_buf *out, size_t len, int status) {
    out->end = out->start + len;
    return status;
}

static int write_head(struct pge_buf *out, const struct pge_message *m, struct pge_span pattern) {
    int status = PGE_BUF_LIT(out, "{\"pattern\":");
    if (status == 0)
        status = pge_buf_append(out, pattern.p, pattern.n);
    if (status == 0)
        status = PGE_BUF_LIT(out, ",\"data\":");
    if (status == 0)
        status = pge_payload_write(&m->data, out);
    if (status == 0 && pge_payload_is_set(&m->metadata)) {
        status = PGE_BUF_LIT(out, ",\"metadata\":");
        if (status == 0)
            status = pge_payload_write(&m->metadata, out);
    }
    return status;
}

int pge_packet_request(struct pge_buf *out, const struct pge_message *m, struct pge_span id_text) {
    size_t len = pge_buf_len(out);
    if (m->packet.p)
        return pge_buf_append(out, m->packet.p, m->packet.n);
    int status = write_head(out, m, m->pattern);
    if (status == 0)
        status = pge_buf_reserve(out, id_text.n + 16);
    if (status < 0)
        return undo(out, len, status);
    PGE_BUF_LIT(out, ",\"id\":\"");
    pge_buf_append(out, id_text.p, id_text.n);
    return PGE_BUF_LIT(out, "\"}");
}

int pge_packet_event(struct pge_buf *out, const struct pge_message *m, struct pge_span pattern) {
    size_t len = pge_buf_len(out);
    if (m->packet.p)
        return pge_buf_append(out, m->packet.p, m->packet.n);
    int status = write_head(out, m, pattern.p ? pattern : m->pattern);
    if (status == 0)
        status = PGE_BUF_LIT(out, "}");
    return status < 0 ? undo(out, len, status) : 0;
}

int pge_packet_reply(struct pge_buf *out, struct pge_span id, enum pge_reply kind,
                     const struct pge_payload *body) {
    size_t len = pge_buf_len(out);
    bool has_body = pge_payload_is_set(body);
    int status = PGE_BUF_LIT(out, "{");
    if (status == 0 && has_body)
        status = kind == PGE_REPLY_ERROR ? PGE_BUF_LIT(out, "\"err\":")
                                         : PGE_BUF_LIT(out, "\"response\":");
    if (status == 0 && has_body)
        status = pge_payload_write(body, out);
    if (status == 0)
        status = pge_buf_reserve(out, id.n + 32);
    if (status < 0)
        return undo(out, len, status);
    if (has_body)
        PGE_BUF_LIT(out, ",");
    if (kind != PGE_REPLY_VALUE)
        PGE_BUF_LIT(out, "\"isDisposed\":true,");
    PGE_BUF_LIT(out, "\"id\":");
    pge_buf_append(out, id.p, id.n);
    return PGE_BUF_LIT(out, "}");
}

int pge_packet_no_handler(struct pge_buf *out, struct pge_span id) {
    static const char tail[] =
        ",\"status\":\"error\",\"err\":\"There is no matching message handler "
        "defined in the remote service.\"}";
    int status = pge_buf_reserve(out, id.n + sizeof tail + 8);
    if (status < 0)
        return status;
    PGE_BUF_LIT(out, "{\"id\":");
    pge_buf_append(out, id.p, id.n);
    return pge_buf_append(out, tail, sizeof tail - 1);
}

/* Of a longer pattern the address is made each time. */
enum { REMEMBERED_MAX = 1024 };

static bool is_remembered(const struct pge_engine *engine, struct pge_span pattern) {
    return pge_buf_len(&engine->pattern) == pattern.n &&
           memcmp(pge_buf_head(&engine->pattern), pattern.p, pattern.n) == 0;
}

static int make_address(struct pge_engine *engine, struct pge_span pattern) {
    pge_buf_clear(&engine->pattern);
    pge_buf_clear(&engine->address);
    pge_buf_trim(&engine->address, REMEMBERED_MAX);
    int status = pge_route(&engine->scan, pattern, &engine->address);
    if (status == 0 && pattern.n <= REMEMBERED_MAX)
        pge_buf_append(&engine->pattern, pattern.p, pattern.n); /* all of it, or nothing */
    return status;
}

int pge_packet_address(struct pge_engine *engine, struct pge_span pattern, struct pge_span *out) {
    bool is_plain = pattern.n >= 2 && pattern.p[0] == '"' && !memchr(pattern.p, '\\', pattern.n);
    if (is_plain) {
        *out = (struct pge_span){pattern.p + 1, pattern.n - 2};
        return 0;
    }
    int status = pattern.n && is_remembered(engine, pattern) ? 0 : make_address(engine, pattern);
    *out = (struct pge_span){pge_buf_head(&engine->address), pge_buf_len(&engine->address)};
    return status;
}
