/*
 * nats_write.c - what a NATS client sends. Sizes stand before the bytes they count: room is left
 * for the common width, and the message moved when it is another.
 */
#include <stdio.h>
#include <string.h>
#include <uv.h>

#include "codec/nats.h"

/* A payload of 100 to 999 bytes needs no move, nor headers of 10 to 99 before it. */
#define PUB_GAP "000"
#define HPUB_GAP "00 000"

static int append_span(struct pge_buf *out, struct pge_span text) {
    return pge_buf_append(out, text.p, text.n);
}

static void take_back(struct pge_buf *out, size_t len) {
    out->end = out->start + len;
}

/* All of the spans or none of them; p NULL ends the list. */
static int append_all(struct pge_buf *out, const struct pge_span *list) {
    size_t before = pge_buf_len(out);
    for (; list->p; list++) {
        int status = append_span(out, *list);
        if (status != 0) {
            take_back(out, before);
            return status;
        }
    }
    return 0;
}

#define LIT(literal) ((struct pge_span){"" literal, sizeof(literal) - 1})

int pge_nats_connect(struct pge_buf *out, struct pge_span json) {
    return append_all(out, (struct pge_span[]){LIT("CONNECT "), json, LIT("\r\n"), {0}});
}

int pge_nats_sub(struct pge_buf *out, struct pge_span subject, struct pge_span queue,
                 uint64_t sid) {
    char tail[32];
    int n = snprintf(tail, sizeof(tail), " %llu\r\n", (unsigned long long)sid);
    struct pge_span end = {tail, (size_t)n};
    if (!queue.p)
        return append_all(out, (struct pge_span[]){LIT("SUB "), subject, end, {0}});
    return append_all(out, (struct pge_span[]){LIT("SUB "), subject, LIT(" "), queue, end, {0}});
}

int pge_nats_unsub(struct pge_buf *out, uint64_t sid, uint64_t max) {
    char line[64];
    int n = max ? snprintf(line, sizeof(line), "UNSUB %llu %llu\r\n", (unsigned long long)sid,
                           (unsigned long long)max)
                : snprintf(line, sizeof(line), "UNSUB %llu\r\n", (unsigned long long)sid);
    return pge_buf_append(out, line, (size_t)n);
}

int pge_nats_ping(struct pge_buf *out) {
    return PGE_BUF_LIT(out, "PING\r\n");
}

int pge_nats_pong(struct pge_buf *out) {
    return PGE_BUF_LIT(out, "PONG\r\n");
}

int pge_nats_pub_begin(struct pge_buf *out, struct pge_nats_pub *pub, struct pge_span subject,
                       struct pge_span reply_to, bool has_headers) {
    struct pge_span verb = has_headers ? LIT("HPUB ") : LIT("PUB ");
    struct pge_span gap = has_headers ? LIT(HPUB_GAP "\r\nNATS/1.0\r\n") : LIT(PUB_GAP "\r\n");
    size_t gap_width = has_headers ? sizeof(HPUB_GAP) - 1 : sizeof(PUB_GAP) - 1;
    size_t verb_width = verb.n + subject.n + 1 + (reply_to.p ? reply_to.n + 1 : 0);
    pub->start = pge_buf_len(out);
    pub->sizes = pub->start + verb_width;
    pub->headers = pub->sizes + gap_width + 2;
    pub->payload = pub->start + verb_width + gap.n;
    pub->has_headers = has_headers;
    int status = pge_buf_reserve(out, verb_width + gap.n);
    if (status != 0)
        return status;
    append_span(out, verb); /* there is room */
    append_span(out, subject);
    PGE_BUF_LIT(out, " ");
    if (reply_to.p) {
        append_span(out, reply_to);
        PGE_BUF_LIT(out, " ");
    }
    append_span(out, gap);
    return 0;
}

int pge_nats_pub_header(struct pge_buf *out, struct pge_span name, struct pge_span value) {
    struct pge_span text = value.n ? value : LIT("");
    return append_all(out, (struct pge_span[]){name, LIT(": "), text, LIT("\r\n"), {0}});
}

int pge_nats_pub_body(struct pge_buf *out, struct pge_nats_pub *pub) {
    int status = PGE_BUF_LIT(out, "\r\n");
    pub->payload = pge_buf_len(out);
    return status;
}

size_t pge_nats_pub_size(const struct pge_buf *out, const struct pge_nats_pub *pub) {
    return pge_buf_len(out) - pub->headers;
}

/* Writes the digits, no NUL. snprintf would be a noticeable part of a small message. */
static size_t write_digits(char *out, size_t number) {
    char digits[20];
    size_t n = sizeof(digits);
    do {
        digits[--n] = (char)('0' + number % 10);
        number /= 10;
    } while (number);
    memcpy(out, digits + n, sizeof(digits) - n);
    return sizeof(digits) - n;
}

int pge_nats_pub_end(struct pge_buf *out, const struct pge_nats_pub *pub) {
    char text[48];
    size_t width = 0, size = pge_nats_pub_size(out, pub), gap = pub->headers - 2 - pub->sizes;
    if (size > PGE_NATS_PUB_MAX)
        return UV_EMSGSIZE;
    if (pub->has_headers) {
        width = write_digits(text, pub->payload - pub->headers);
        text[width++] = ' ';
    }
    width += write_digits(text + width, size);
    if (pge_buf_reserve(out, (width > gap ? width - gap : 0) + 2) != 0)
        return UV_ENOMEM;
    char *at = pge_buf_head(out) + pub->sizes;
    if (width != gap) {
        memmove(at + width, at + gap, size + 2);
        out->end = out->end - gap + width;
    }
    memcpy(at, text, width);
    return PGE_BUF_LIT(out, "\r\n");
}

void pge_nats_pub_abort(struct pge_buf *out, const struct pge_nats_pub *pub) {
    take_back(out, pub->start);
}
