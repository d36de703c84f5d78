/*
 * http_fuzz.c - a stream of requests, cut anywhere, gives the same as in one piece; and what we
 * take, llhttp alone takes too, with the same body and the same end.
 *
 * Input: a count, so many lengths of pieces, then the stream.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "front/http_internal.h"

enum { MAX_TEXT = 1 << 20 };

struct text {
    size_t n;
    char bytes[MAX_TEXT];
};

static const struct pge_http_limits limits = {
    .max_header_bytes = 512, .max_headers = 8, .max_uri_bytes = 64, .max_body_bytes = 64};

static void check(bool is_true, const char *what) {
    if (is_true)
        return;
    fprintf(stderr, "http_fuzz: %s\n", what);
    abort();
}

static void note(struct text *text, const void *bytes, size_t n) {
    check(text->n + n + 1 <= MAX_TEXT, "text too long");
    if (n)
        memcpy(text->bytes + text->n, bytes, n);
    text->n += n;
    text->bytes[text->n++] = '|';
}

static int on_body(llhttp_t *llhttp, const char *at, size_t n) {
    note(llhttp->data, at, n);
    ((struct text *)llhttp->data)->n--;
    return 0;
}

static int on_message_complete(llhttp_t *llhttp) {
    (void)llhttp;
    return HPE_PAUSED;
}

/* The bytes of one request, to the end we found. */
static void compare_with_llhttp(const struct pge_http_parse *p, const char *bytes, size_t n) {
    static struct text body;
    static const llhttp_settings_t settings = {.on_body = on_body,
                                               .on_message_complete = on_message_complete};
    llhttp_t llhttp;
    body.n = 0;
    llhttp_init(&llhttp, HTTP_REQUEST, &settings);
    llhttp.data = &body;
    llhttp_errno_t error = llhttp_execute(&llhttp, bytes, n);
    if (error == HPE_PAUSED_UPGRADE)
        return; /* it hands over what follows to another protocol; we do not upgrade */
    check(error == HPE_PAUSED, "llhttp refuses what we take");
    check(llhttp_get_error_pos(&llhttp) == bytes + n, "llhttp finds another end");
    check(body.n == p->message.body.n && memcmp(body.bytes, p->message.body.p, body.n) == 0,
          "llhttp finds another body");
}

static void note_request(struct text *text, const struct pge_http_parse *p) {
    const struct pge_http_message *m = &p->message;
    note(text, m->method.p, m->method.n);
    note(text, m->target.p, m->target.n);
    note(text, m->path.p, m->path.n);
    note(text, m->query.p, m->query.n);
    note(text, m->body.p, m->body.n);
    for (unsigned i = 0; i < m->header_count; i++) {
        note(text, m->headers[i].name.p, m->headers[i].name.n);
        note(text, m->headers[i].value.p, m->headers[i].value.n);
        check(pge_http_header_is_valid(m->headers[i].name, m->headers[i].value), "header");
    }
    note(text, &p->keep_alive, 1);
    note(text, &p->expects_continue, 1);
}

struct stream {
    struct pge_http_parse parse;
    struct text *text;
    const char *bytes; /* of the whole stream; NULL: do not compare */
    size_t taken;      /* by requests that are through */
};

/* True while the stream may go on. */
static bool feed(struct stream *s, const char *bytes, size_t n) {
    struct pge_http_parse *p = &s->parse;
    check(pge_http_parse_append(p, bytes, n) == 0, "memory");
    while (pge_http_parse_run(p) == PGE_HTTP_READY) {
        size_t from = s->taken + (p->skipped_line ? 2 : 0);
        note_request(s->text, p);
        if (s->bytes) {
            s->taken = from + p->pos;
            compare_with_llhttp(p, s->bytes + from, p->pos);
        }
        pge_http_parse_next(p);
    }
    if (p->phase == PGE_HTTP_REFUSED)
        note(s->text, &p->status, sizeof p->status);
    return p->phase != PGE_HTTP_REFUSED;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static struct text whole, pieces;
    size_t cuts = n ? data[0] % 16u : 0;
    if (n < 1 + cuts)
        return 0;
    const char *bytes = (const char *)data + 1 + cuts;
    n -= 1 + cuts;
    struct stream one = {.text = &whole, .bytes = bytes}, many = {.text = &pieces};
    whole.n = pieces.n = 0;
    pge_http_parse_init(&one.parse, &limits);
    pge_http_parse_init(&many.parse, &limits);
    feed(&one, bytes, n);
    size_t at = 0;
    bool goes_on = true;
    for (size_t i = 0; goes_on && at < n; i++) {
        size_t size = cuts ? data[1 + i % cuts] % 32u + 1u : 1;
        size = size < n - at ? size : n - at;
        goes_on = feed(&many, bytes + at, size);
        at += size;
    }
    check(whole.n == pieces.n && memcmp(whole.bytes, pieces.bytes, whole.n) == 0,
          "cut, it gives another result");
    check(one.parse.phase == many.parse.phase, "cut, it ends in another phase");
    pge_http_parse_deinit(&one.parse);
    pge_http_parse_deinit(&many.parse);
    return 0;
}
