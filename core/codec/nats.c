/*
 * nats.c - reads what a NATS server sends. A message that lies whole in the fed bytes is returned
 * where it is; of one that does not, only its own bytes are copied, and what follows it is again
 * read in place.
 */
#include "codec/nats.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <uv.h>

#include "codec/swar.h"

/* Memory an idle parser may hold on to. */
#define KEEP_BYTES 4096

/* Bytes of an unknown line that its message shows. */
#define SHOWN_BYTES 32

#define MAX_WORDS 5

enum op {
    OP_MSG,
    OP_HMSG,
    OP_PING,
    OP_PONG,
    OP_OK,
    OP_ERR,
    OP_INFO,
    OPS,
};

static const struct {
    const char *name; /* lower case; servers write capitals, the protocol takes both */
    size_t n;
    enum pge_nats_kind kind;
} ops[OPS] = {
    [OP_MSG] = {"msg", 3, PGE_NATS_MSG},    [OP_HMSG] = {"hmsg", 4, PGE_NATS_MSG},
    [OP_PING] = {"ping", 4, PGE_NATS_PING}, [OP_PONG] = {"pong", 4, PGE_NATS_PONG},
    [OP_OK] = {"+ok", 3, PGE_NATS_OK},      [OP_ERR] = {"-err", 4, PGE_NATS_ERR},
    [OP_INFO] = {"info", 4, PGE_NATS_INFO},
};

void pge_nats_init(struct pge_nats *f, size_t max_payload) {
    *f = (struct pge_nats){.max_payload = max_payload};
}

void pge_nats_deinit(struct pge_nats *f) {
    pge_buf_deinit(&f->held);
    pge_buf_deinit(&f->parked);
}

/* ---- faults ---- */

static int fail(struct pge_nats *f, int status, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(f->error, sizeof(f->error), format, args); /* NOLINT: clang 14 misses va_start */
    va_end(args);
    f->status = status;
    f->in = NULL;
    f->in_len = 0;
    pge_nats_deinit(f);
    return status;
}

static int fail_memory(struct pge_nats *f) {
    return fail(f, UV_ENOMEM, "Out of memory in the middle of a NATS message");
}

static int fail_line(struct pge_nats *f, const char *p, size_t n) {
    char shown[SHOWN_BYTES + 1];
    size_t width = 0;
    for (; width < n && width < SHOWN_BYTES && p[width] != '\r' && p[width] != '\n'; width++)
        shown[width] = p[width] >= ' ' && p[width] < 127 ? p[width] : '?';
    shown[width] = '\0';
    return fail(f, UV_EPROTO, "\"%s\" is no line of a NATS server", shown);
}

static int fail_long_line(struct pge_nats *f, size_t limit) {
    return fail(f, UV_EMSGSIZE, "A line of the NATS server is longer than %zu bytes", limit);
}

/* ---- a line ---- */

static bool is_blank(char c) {
    return c == ' ' || c == '\t';
}

/* The next word, n 0 at the end. */
static struct pge_span next_word(const char **p, const char *end) {
    while (*p < end && is_blank(**p))
        (*p)++;
    struct pge_span word = {*p, 0};
    *p = pge_swar_skip_visible(*p, end);
    while (*p < end && !is_blank(**p)) /* other controls are part of a word */
        (*p)++;
    word.n = (size_t)(*p - word.p);
    return word;
}

static struct pge_span trim(const char *p, const char *end) {
    while (p < end && is_blank(*p))
        p++;
    while (end > p && is_blank(end[-1]))
        end--;
    return (struct pge_span){p, (size_t)(end - p)};
}

static bool is_name(struct pge_span word, const char *name, size_t n) {
    if (word.n != n)
        return false;
    for (size_t i = 0; i < n; i++) {
        char c = word.p[i];
        if ((c >= 'A' && c <= 'Z' ? c | 0x20 : c) != name[i])
            return false;
    }
    return true;
}

static enum op find_op(struct pge_span word) {
    int op = 0;
    while (op < OPS && !is_name(word, ops[op].name, ops[op].n))
        op++;
    return (enum op)op;
}

static bool read_number(struct pge_span word, uint64_t *value) {
    *value = 0;
    for (size_t i = 0; i < word.n; i++) {
        unsigned digit = (unsigned)(word.p[i] - '0');
        if (digit > 9 || *value > (UINT64_MAX - digit) / 10)
            return false;
        *value = *value * 10 + digit;
    }
    return word.n > 0;
}

/* What stands behind MSG or HMSG; line is the whole of it, its end included. 1 or < 0. */
static int read_message_line(struct pge_nats *f, struct pge_span line, const char *p,
                             const char *end, bool has_headers, struct pge_nats_event *event,
                             size_t *total) {
    struct pge_span words[MAX_WORDS];
    unsigned count = 0, sizes = has_headers ? 2 : 1;
    uint64_t size, header_size = 0;
    for (struct pge_span word = next_word(&p, end); word.n; word = next_word(&p, end)) {
        if (count == MAX_WORDS)
            return fail_line(f, line.p, line.n);
        words[count++] = word;
    }
    if (count < 2 + sizes || count > 3 + sizes || !read_number(words[1], &event->sid) ||
        !read_number(words[count - 1], &size) ||
        (has_headers && !read_number(words[count - 2], &header_size)) || header_size > size)
        return fail_line(f, line.p, line.n);
    if (size > f->max_payload)
        return fail(f, UV_EMSGSIZE, "A message of %llu bytes, of at most %zu",
                    (unsigned long long)size, f->max_payload);
    const char *body = line.p + line.n;
    event->subject = words[0];
    event->reply_to = count == 3 + sizes ? words[2] : (struct pge_span){0};
    event->headers =
        has_headers ? (struct pge_span){body, (size_t)header_size} : (struct pge_span){0};
    event->payload = (struct pge_span){body + header_size, (size_t)(size - header_size)};
    *total = line.n + (size_t)size + 2;
    return 1;
}

/* line: with its line feed. 1 (total: bytes of line and body) or < 0. */
static int read_line(struct pge_nats *f, struct pge_span line, struct pge_nats_event *event,
                     size_t *total) {
    const char *p = line.p, *end = line.p + line.n - 1;
    if (end > p && end[-1] == '\r')
        end--;
    enum op op = find_op(next_word(&p, end));
    if (op == OPS)
        return fail_line(f, line.p, line.n);
    *event = (struct pge_nats_event){.kind = ops[op].kind};
    *total = line.n;
    if (op == OP_MSG || op == OP_HMSG)
        return read_message_line(f, line, p, end, op == OP_HMSG, event, total);
    if (op == OP_INFO || op == OP_ERR)
        event->text = trim(p, end);
    if (op == OP_ERR && event->text.n >= 2 && event->text.p[0] == '\'' &&
        event->text.p[event->text.n - 1] == '\'')
        event->text = (struct pge_span){event->text.p + 1, event->text.n - 2};
    return 1;
}

/* The line feed belongs to the size that was declared. */
static int check_end(struct pge_nats *f, const struct pge_nats_event *event) {
    if (event->kind != PGE_NATS_MSG)
        return 1;
    const char *end = event->payload.p + event->payload.n;
    if (end[0] != '\r' || end[1] != '\n')
        return fail(f, UV_EPROTO, "A NATS message is longer than its declared size");
    return 1;
}

static size_t line_limit(char first) {
    return first == 'I' || first == 'i' ? PGE_NATS_INFO_MAX : PGE_NATS_LINE_MAX;
}

/* ---- bytes in ---- */

static void take(struct pge_nats *f, size_t n) {
    f->in += n;
    f->in_len -= n;
}

/* Everything fed has been read or copied. */
static int need_more(struct pge_nats *f) {
    f->in = NULL;
    f->in_len = 0;
    pge_buf_clear(&f->parked);
    pge_buf_trim(&f->parked, KEEP_BYTES);
    return 0;
}

int pge_nats_park(struct pge_nats *f) {
    if (f->in_len == 0 || pge_buf_len(&f->parked) > 0)
        return 0;
    int status = pge_buf_append(&f->parked, f->in, f->in_len);
    if (status == 0)
        f->in = pge_buf_head(&f->parked);
    return status;
}

int pge_nats_feed(struct pge_nats *f, const char *data, size_t len) {
    if (f->status != 0)
        return f->status;
    if (f->in_len == 0) {
        need_more(f);
        f->in = data;
        f->in_len = len;
        return 0;
    }
    int status = pge_nats_park(f);
    if (status != 0)
        return status;
    pge_buf_consume(&f->parked, pge_buf_len(&f->parked) - f->in_len);
    status = pge_buf_append(&f->parked, data, len);
    f->in = pge_buf_head(&f->parked);
    f->in_len = pge_buf_len(&f->parked);
    return status;
}

size_t pge_nats_unread(const struct pge_nats *f) {
    return f->in_len + (f->is_delivered ? 0 : pge_buf_len(&f->held));
}

/* ---- events out ---- */

/* Moves n bytes into held. 1 or < 0. */
static int hold(struct pge_nats *f, size_t n) {
    if (pge_buf_append(&f->held, f->in, n) != 0)
        return fail_memory(f);
    take(f, n);
    return 1;
}

/* 1: held begins with a whole line, and f->total is known; 0; < 0. */
static int hold_line(struct pge_nats *f) {
    struct pge_nats_event event;
    size_t limit = line_limit(pge_buf_head(&f->held)[0]), room = limit - pge_buf_len(&f->held);
    if (f->in_len == 0)
        return need_more(f);
    const char *feed = memchr(f->in, '\n', f->in_len < room ? f->in_len : room);
    if (!feed && f->in_len >= room)
        return fail_long_line(f, limit);
    int status = hold(f, feed ? (size_t)(feed - f->in) + 1 : f->in_len);
    if (status < 0)
        return status;
    if (!feed)
        return need_more(f);
    struct pge_span line = {pge_buf_head(&f->held), pge_buf_len(&f->held)};
    return read_line(f, line, &event, &f->total);
}

static int next_held(struct pge_nats *f, struct pge_nats_event *event) {
    int status;
    size_t total;
    if (f->total == 0 && (status = hold_line(f)) <= 0)
        return status;
    size_t missing = f->total - pge_buf_len(&f->held);
    size_t n = f->in_len < missing ? f->in_len : missing;
    if (n > 0 && (status = hold(f, n)) < 0)
        return status;
    if (n < missing)
        return need_more(f);
    /* A second time, now that the bytes stay where they are. */
    const char *head = pge_buf_head(&f->held);
    const char *feed = memchr(head, '\n', f->total);
    status = read_line(f, (struct pge_span){head, (size_t)(feed - head) + 1}, event, &total);
    if (status < 0)
        return status;
    f->total = 0;
    f->is_delivered = true;
    return check_end(f, event);
}

static int next_in_place(struct pge_nats *f, struct pge_nats_event *event) {
    if (f->in_len == 0)
        return need_more(f);
    size_t total = 0, limit = line_limit(f->in[0]);
    const char *feed = memchr(f->in, '\n', f->in_len < limit ? f->in_len : limit);
    if (!feed && f->in_len >= limit)
        return fail_long_line(f, limit);
    if (feed) {
        struct pge_span line = {f->in, (size_t)(feed - f->in) + 1};
        int status = read_line(f, line, event, &total);
        if (status < 0)
            return status;
    }
    if (!feed || f->in_len < total) {
        f->total = total;
        int status = hold(f, f->in_len);
        return status < 0 ? status : need_more(f);
    }
    take(f, total);
    return check_end(f, event);
}

int pge_nats_next(struct pge_nats *f, struct pge_nats_event *event) {
    if (f->status != 0)
        return f->status;
    if (f->is_delivered) {
        pge_buf_clear(&f->held);
        pge_buf_trim(&f->held, KEEP_BYTES);
        f->is_delivered = false;
    }
    return pge_buf_len(&f->held) > 0 ? next_held(f, event) : next_in_place(f, event);
}
