/* status.c - GET /status: how the workers are, as JSON. */
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include "codec/utf8.h"
#include "supervisor/internal.h"

static int put(struct pge_buf *out, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Short pieces only: numbers and names of ours. */
static int put(struct pge_buf *out, const char *format, ...) {
    char piece[256];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(piece, sizeof piece, format, args);
    va_end(args);
    return pge_buf_append(out, piece, n < (int)sizeof piece ? (size_t)n : sizeof piece - 1);
}

/* Errors quote scripts, so any byte may be in them; they are JSON only after this. */
static int put_text(struct pge_buf *out, const char *p, size_t n) {
    int status = PGE_BUF_LIT(out, "\"");
    bool is_utf8 = pge_utf8_check(p, n) >= 0;
    for (size_t i = 0; i < n && status == 0; i++) {
        unsigned char c = (unsigned char)p[i];
        if (c < 0x20 || (c >= 0x80 && !is_utf8))
            status = put(out, "\\u%04x", c);
        else if (c == '"' || c == '\\')
            status = put(out, "\\%c", c);
        else
            status = pge_buf_append(out, &c, 1);
    }
    return status < 0 ? status : PGE_BUF_LIT(out, "\"");
}

/* JSON that a worker has sent, or null. */
static int put_json(struct pge_buf *out, const struct pge_buf *json) {
    return pge_buf_len(json) ? pge_buf_append(out, pge_buf_head(json), pge_buf_len(json))
                             : PGE_BUF_LIT(out, "null");
}

static const char *state_of(const struct pge_worker *w) {
    switch (w->state) {
    case PGE_WORKER_NONE:
        return "dead";
    case PGE_WORKER_BORN:
        return "starting";
    case PGE_WORKER_IDLE:
        return w->is_ending ? "ending" : w->generation ? "serving" : "starting";
    default:
        return w->generation ? "reloading" : "starting";
    }
}

static int put_worker(struct pge_buf *out, const struct pge_worker *w) {
    uint64_t now = pge_supervisor_now(w->supervisor);
    int status = put(out, "{\"index\":%u,\"pid\":", w->index);
    if (status == 0)
        status = w->pid ? put(out, "%d", (int)w->pid) : PGE_BUF_LIT(out, "null");
    if (status == 0)
        status = put(out,
                     ",\"state\":\"%s\",\"generation\":%u,\"restarts\":%u,\"heard_ms_ago\":%" PRIu64
                     ",\"status\":",
                     state_of(w), w->generation, w->restarts, now - w->heard_ms);
    if (status == 0)
        status = put_json(out, &w->status);
    return status < 0 ? status : PGE_BUF_LIT(out, "}");
}

static int put_outcome(struct pge_buf *out, const struct pge_outcome *outcome) {
    if (!outcome->is_known)
        return PGE_BUF_LIT(out, "null");
    int status =
        put(out, "{\"ok\":%s,\"at\":%" PRId64 ",\"error\":", outcome->is_good ? "true" : "false",
            outcome->at_ms);
    if (status == 0)
        status = outcome->is_good
                     ? PGE_BUF_LIT(out, "null")
                     : put_text(out, pge_buf_head(&outcome->text), pge_buf_len(&outcome->text));
    return status < 0 ? status : PGE_BUF_LIT(out, "}");
}

static int put_addresses(struct pge_buf *out, const struct pge_buf *told) {
    const char *at = pge_buf_head(told), *end = at + pge_buf_len(told);
    int status = PGE_BUF_LIT(out, "[");
    for (bool is_first = true; at < end && status == 0; is_first = false) {
        size_t n = (size_t)((const char *)memchr(at, '\n', (size_t)(end - at)) - at);
        if (!is_first)
            status = PGE_BUF_LIT(out, ",");
        if (status == 0)
            status = put_text(out, at, n);
        at += n + 1;
    }
    return status < 0 ? status : PGE_BUF_LIT(out, "]");
}

int pge_status_write(struct pge_supervisor *s, struct pge_buf *out) {
    const struct pge_committed *c = &s->committed;
    int status = put(out,
                     "{\"pid\":%d,\"uptime_ms\":%" PRIu64 ",\"stopping\":%s,\"generation\":%u,"
                     "\"loaded_at\":%" PRId64 ",\"listening\":",
                     (int)getpid(), pge_supervisor_now(s) - s->started_ms,
                     s->is_stopping ? "true" : "false", c->generation, c->loaded_ms);
    if (status == 0)
        status = put_addresses(out, &s->told);
    if (status == 0)
        status = PGE_BUF_LIT(out, ",\"last_reload\":");
    if (status == 0)
        status = put_outcome(out, &s->outcome);
    if (status == 0)
        status = PGE_BUF_LIT(out, ",\"workers\":[");
    for (unsigned i = 0; i < s->worker_count && status == 0; i++) {
        if (i)
            status = PGE_BUF_LIT(out, ",");
        if (status == 0)
            status = put_worker(out, s->workers[i]);
    }
    return status < 0 ? status : PGE_BUF_LIT(out, "]}");
}
