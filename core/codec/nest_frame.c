/*
 * nest_frame.c - a frame is first its length text, then its payload. Every byte is looked at once:
 * of an unfinished frame the units counted so far are kept, and a character cut by the end of a
 * read (`tail` bytes) is completed byte by byte.
 */
#include "codec/nest_frame.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <uv.h>

#include "codec/utf8.h"

/* A frame gets room for so many times what has come of it, whatever length it declares. */
#define ROOM_FACTOR 16

/* Memory an idle codec may hold on to. */
#define KEEP_BYTES 4096

/* Characters of a corrupted length text that its message shows. */
#define SHOWN_CHARS 32

void pge_nest_frame_init(struct pge_nest_frame *f, size_t max_units) {
    *f = (struct pge_nest_frame){.max_units = max_units};
}

void pge_nest_frame_deinit(struct pge_nest_frame *f) {
    pge_buf_deinit(&f->payload);
    pge_buf_deinit(&f->parked);
}

static int fail(struct pge_nest_frame *f, int status, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(f->error, sizeof(f->error), format, args); /* NOLINT: clang 14 misses va_start */
    va_end(args);
    f->status = status;
    f->in = NULL;
    f->in_len = 0;
    pge_buf_deinit(&f->payload);
    pge_buf_deinit(&f->parked);
    return status;
}

static int fail_utf8(struct pge_nest_frame *f) {
    return fail(f, UV_EPROTO, "Invalid UTF-8 in a packet");
}

static int fail_memory(struct pge_nest_frame *f) {
    return fail(f, UV_ENOMEM, "Out of memory in the middle of a packet");
}

static int fail_cut(struct pge_nest_frame *f) {
    return fail(f, UV_EPROTO, "The packet length (%zu) ends inside a character", f->length);
}

static int fail_length(struct pge_nest_frame *f) {
    struct pge_utf8_walk shown;
    pge_utf8_walk(f->prefix, f->prefix_len, SHOWN_CHARS, &shown);
    return fail(f, UV_EPROTO, "Corrupted length value \"%.*s\" supplied in a packet",
                (int)shown.bytes, f->prefix);
}

static void take(struct pge_nest_frame *f, size_t n) {
    f->in += n;
    f->in_len -= n;
}

/* Everything fed has been read or copied. */
static int need_more(struct pge_nest_frame *f) {
    f->in = NULL;
    f->in_len = 0;
    pge_buf_clear(&f->parked);
    pge_buf_trim(&f->parked, KEEP_BYTES);
    return 0;
}

int pge_nest_frame_park(struct pge_nest_frame *f) {
    if (f->in_len == 0 || pge_buf_len(&f->parked) > 0)
        return 0;
    int status = pge_buf_append(&f->parked, f->in, f->in_len);
    if (status == 0)
        f->in = pge_buf_head(&f->parked);
    return status;
}

int pge_nest_frame_feed(struct pge_nest_frame *f, const char *data, size_t len) {
    if (f->status != 0)
        return f->status;
    if (f->in_len == 0) {
        need_more(f);
        f->in = data;
        f->in_len = len;
        return 0;
    }
    int status = pge_nest_frame_park(f);
    if (status != 0)
        return status;
    pge_buf_consume(&f->parked, pge_buf_len(&f->parked) - f->in_len);
    status = pge_buf_append(&f->parked, data, len);
    f->in = pge_buf_head(&f->parked);
    f->in_len = pge_buf_len(&f->parked);
    return status;
}

/* parseInt(text, 10), negative results as 0, huge ones saturated. False: no number (NaN). */
static bool parse_length(const char *p, const char *end, size_t *length) {
    while (p < end && (*p == ' ' || (*p >= '\t' && *p <= '\r')))
        p++;
    bool is_negative = p < end && *p == '-';
    if (p < end && (*p == '-' || *p == '+'))
        p++;
    if (p == end || *p < '0' || *p > '9')
        return false;
    size_t value = 0;
    for (; p < end && *p >= '0' && *p <= '9'; p++) {
        size_t digit = (size_t)(*p - '0');
        value = value > (SIZE_MAX - digit) / 10 ? SIZE_MAX : value * 10 + digit;
    }
    *length = is_negative ? 0 : value;
    return true;
}

/* 1: the length is known, 0: more bytes needed, < 0. */
static int read_length(struct pge_nest_frame *f) {
    if (f->in_len == 0)
        return need_more(f);
    size_t room = PGE_NEST_FRAME_PREFIX_MAX - f->prefix_len;
    size_t n = f->in_len < room ? f->in_len : room;
    const char *hash = memchr(f->in, '#', f->in_len < room + 1 ? f->in_len : room + 1);
    if (hash)
        n = (size_t)(hash - f->in);
    memcpy(f->prefix + f->prefix_len, f->in, n);
    f->prefix_len += (unsigned)n;
    take(f, n);

    struct pge_utf8_walk walk;
    if (pge_utf8_walk(f->prefix, f->prefix_len, SIZE_MAX, &walk) != 0)
        return fail_utf8(f);
    if (!hash && f->in_len == 0)
        return need_more(f);
    if (hash && walk.bytes < f->prefix_len)
        return fail_utf8(f);
    if (!parse_length(f->prefix, f->prefix + f->prefix_len, &f->length))
        return fail_length(f);
    if (!hash && f->length <= f->max_units)
        return fail_length(f); /* junk after the digits, without end */
    if (f->length > f->max_units)
        return fail(f, UV_EMSGSIZE, "The packet length (%zu) exceeds the maximum allowed length",
                    f->length);
    take(f, 1);
    f->has_length = true;
    f->units = 0;
    f->tail = 0;
    return 1;
}

/* Completes the character that the last read cut. 1: none is cut any more, 0, < 0. */
static int read_tail(struct pge_nest_frame *f) {
    while (f->tail > 0) {
        if (f->in_len == 0)
            return need_more(f);
        if (pge_buf_keep(&f->payload, f->in, 1) != 0)
            return fail_memory(f);
        take(f, 1);
        f->tail++;
        const char *end = f->payload.data + f->payload.end;
        int width = pge_utf8_char(end - f->tail, end);
        if (width < 0)
            return fail_utf8(f);
        if (width == 0)
            continue;
        size_t units = width == 4 ? 2 : 1;
        if (units > f->length - f->units)
            return fail_cut(f);
        f->units += units;
        f->tail = 0;
    }
    return 1;
}

struct pge_room pge_nest_frame_room(struct pge_nest_frame *f) {
    size_t most = pge_buf_len(&f->payload) * ROOM_FACTOR;
    /* A unit is a byte at least, but for the two of a character of which three have come. */
    size_t missing = f->length - f->units - (f->tail ? 1 : 0);
    size_t n = missing < most ? missing : most;
    if (!f->has_length || pge_buf_reserve(&f->payload, n) != 0)
        n = 0; /* without memory for it, it is told when the bytes come */
    return (struct pge_room){f->payload.data + f->payload.end, n};
}

/* Copies the rest of the read, which ends inside the frame; `walk` says what of it is whole. */
static int keep_rest(struct pge_nest_frame *f, const struct pge_utf8_walk *walk) {
    size_t tail = f->in_len - walk->bytes;
    if (tail > 0 && pge_utf8_char(f->in + walk->bytes, f->in + f->in_len) > 0)
        return fail_cut(f);
    if (pge_buf_keep(&f->payload, f->in, f->in_len) != 0)
        return fail_memory(f);
    f->units += walk->units;
    f->tail = (unsigned)tail;
    return need_more(f);
}

static int read_payload(struct pge_nest_frame *f, struct pge_span *payload) {
    int status = read_tail(f);
    if (status <= 0)
        return status;
    struct pge_utf8_walk walk;
    size_t missing = f->length - f->units;
    if (missing > 0 && f->in_len == 0)
        return need_more(f);
    if (pge_utf8_walk(f->in, f->in_len, missing, &walk) != 0)
        return fail_utf8(f);
    if (walk.units < missing)
        return keep_rest(f, &walk);
    if (pge_buf_len(&f->payload) == 0) {
        *payload = (struct pge_span){f->in, walk.bytes};
    } else {
        if (pge_buf_keep(&f->payload, f->in, walk.bytes) != 0)
            return fail_memory(f);
        *payload = (struct pge_span){pge_buf_head(&f->payload), pge_buf_len(&f->payload)};
        f->is_delivered = true;
    }
    take(f, walk.bytes);
    f->has_length = false;
    f->prefix_len = 0;
    return 1;
}

int pge_nest_frame_next(struct pge_nest_frame *f, struct pge_span *payload) {
    if (f->status != 0)
        return f->status;
    if (f->is_delivered) {
        pge_buf_clear(&f->payload);
        pge_buf_trim(&f->payload, KEEP_BYTES);
        f->is_delivered = false;
    }
    if (!f->has_length) {
        int status = read_length(f);
        if (status <= 0)
            return status;
    }
    return read_payload(f, payload);
}

struct pge_buf *pge_nest_frame_loan(struct pge_nest_frame *f) {
    return f->is_delivered ? &f->payload : NULL;
}

size_t pge_nest_frame_partial(const struct pge_nest_frame *f) {
    if (f->is_delivered)
        return 0;
    return f->prefix_len + (f->has_length ? 1 : 0) + pge_buf_len(&f->payload);
}

/* Writing */

/* Lengths of 100 to 999 are the common case and need no move. For longer ones, what stands before
 * the payload moves up, into room left at the front, unless the payload is the shorter of the two.
 */
enum { GAP = PGE_NEST_FRAME_GAP };
#define FRONT 16

int pge_nest_frame_begin(struct pge_buf *out, size_t *mark) {
    *mark = pge_buf_len(out);
    if (*mark == 0) {
        pge_buf_clear(out);
        if (pge_buf_reserve(out, FRONT + GAP) != 0)
            return UV_ENOMEM;
        out->start = out->end = FRONT;
    }
    return pge_buf_append(out, "000#", GAP);
}

/* Makes a gap of `width` bytes before the payload's n. 0 or UV_ENOMEM. */
static int fit_gap(struct pge_buf *out, size_t mark, size_t n, size_t width) {
    if (width > GAP && mark < n && out->start >= width - GAP) {
        char *head = pge_buf_head(out);
        memmove(head - (width - GAP), head, mark);
        out->start -= width - GAP;
        return 0;
    }
    if (width > GAP && pge_buf_reserve(out, width - GAP) != 0)
        return UV_ENOMEM;
    char *frame = pge_buf_head(out) + mark;
    memmove(frame + width, frame + GAP, n);
    out->end = out->start + mark + width + n;
    return 0;
}

int pge_nest_frame_end(struct pge_buf *out, size_t mark, size_t units) {
    size_t n = pge_buf_len(out) - mark - GAP;
    char *payload = pge_buf_head(out) + mark + GAP;
    if (units == SIZE_MAX)
        units = pge_utf16_units(payload, n);
    char digits[24], *text = digits + sizeof(digits);
    *--text = '#';
    do
        *--text = (char)('0' + units % 10);
    while (units /= 10);
    size_t width = (size_t)(digits + sizeof(digits) - text);
    if (width != GAP && fit_gap(out, mark, n, width) != 0) {
        out->end = out->start + mark;
        return UV_ENOMEM;
    }
    memcpy(pge_buf_head(out) + mark, text, width);
    return 0;
}
