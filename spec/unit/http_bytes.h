/*
 * http_bytes.h - for unit tests of request parsing: bytes in, whole and in all pieces, and what
 * came out.
 */
#ifndef SPEC_UNIT_HTTP_BYTES_H
#define SPEC_UNIT_HTTP_BYTES_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fail_alloc.h"
#include "front/http_internal.h"

struct outcome {
    enum pge_http_phase phase;
    int status;
    char text[65536]; /* the message, written out */
};

static inline struct pge_http_limits limits(void) {
    return (struct pge_http_limits){.max_header_bytes = 16384,
                                    .max_headers = 100,
                                    .max_uri_bytes = 8192,
                                    .max_body_bytes = 1024};
}

static inline size_t add(char *out, size_t at, const char *name, struct pge_span span) {
    return at + (size_t)sprintf(out + at, "%s=%.*s|", name, (int)span.n, span.p ? span.p : "");
}

static inline void write_out(const struct pge_http_parse *p, struct outcome *o) {
    const struct pge_http_message *m = &p->message;
    size_t at = add(o->text, 0, "method", m->method);
    at = add(o->text, at, "target", m->target);
    at = add(o->text, at, "path", m->path);
    if (m->query.p)
        at = add(o->text, at, "query", m->query);
    for (unsigned i = 0; i < m->header_count; i++) {
        at = add(o->text, at, "name", m->headers[i].name);
        at = add(o->text, at, "value", m->headers[i].value);
    }
    if (m->body.n)
        at = add(o->text, at, "body", m->body);
    size_t rest = pge_buf_len(&p->in) - p->pos;
    at = add(o->text, at, "rest", (struct pge_span){pge_buf_head(&p->in) + p->pos, rest});
    sprintf(o->text + at, "%s%s%s", m->is_head ? "head " : "", p->keep_alive ? "keep " : "",
            p->expects_continue ? "continue " : "");
}

/* Reads of one byte go into the room there is, as a stream's would. */
static inline void feed(struct pge_http_parse *p, const char *bytes, size_t n) {
    uv_buf_t room = n == 1 ? pge_http_parse_room(p) : (uv_buf_t){0};
    if (room.len)
        bytes = memcpy(room.base, bytes, n);
    assert_int_equal(pge_http_parse_append(p, bytes, n), 0);
    if (p->phase != PGE_HTTP_READY && p->phase != PGE_HTTP_REFUSED)
        pge_http_parse_run(p);
}

/* In pieces of step bytes, the first of them first bytes long. */
static inline void parse(const struct pge_http_limits *l, const char *bytes, size_t n, size_t first,
                         size_t step, struct outcome *o) {
    struct pge_http_parse p;
    pge_http_parse_init(&p, l);
    o->text[0] = '\0';
    for (size_t at = 0, size = first; at < n; at += size, size = step)
        feed(&p, bytes + at, size = n - at < size ? n - at : size);
    o->phase = p.phase;
    o->status = p.status;
    if (p.phase == PGE_HTTP_READY)
        write_out(&p, o);
    if (p.phase == PGE_HTTP_REFUSED)
        assert_true(p.why && *p.why);
    pge_http_parse_deinit(&p);
}

static inline void parse_all_ways(const struct pge_http_limits *l, const char *bytes, size_t n,
                                  struct outcome *whole) {
    static struct outcome other;
    parse(l, bytes, n, n, n, whole);
    parse(l, bytes, n, 1, 1, &other);
    for (size_t first = 1; first <= n; first++) {
        if (other.phase != whole->phase || other.status != whole->status ||
            strcmp(other.text, whole->text) != 0)
            fail_msg("cut after %zu: %d %d %s\nbut whole: %d %d %s\n%.*s", first - 1, other.phase,
                     other.status, other.text, whole->phase, whole->status, whole->text, (int)n,
                     bytes);
        parse(l, bytes, n, first, n, &other);
    }
}

static inline void assert_refused(const char *bytes, size_t n, int status) {
    static struct outcome o;
    struct pge_http_limits l = limits();
    parse_all_ways(&l, bytes, n, &o);
    if (o.phase != PGE_HTTP_REFUSED || o.status != status)
        fail_msg("wanted %d, got phase %d status %d %s for\n%.*s", status, o.phase, o.status,
                 o.text, (int)n, bytes);
}

static inline void assert_taken(const char *bytes, size_t n, const char *wanted) {
    static struct outcome o;
    struct pge_http_limits l = limits();
    parse_all_ways(&l, bytes, n, &o);
    if (o.phase != PGE_HTTP_READY || strcmp(o.text, wanted) != 0)
        fail_msg("wanted\n%s\ngot phase %d status %d\n%s\nfor\n%.*s", wanted, o.phase, o.status,
                 o.text, (int)n, bytes);
}

struct vector {
    const char *bytes;
    size_t n;
    int status;
    const char *wanted;
};

#define BAD(status, literal)                                                                       \
    { "" literal, sizeof(literal) - 1, status, NULL }
#define GOOD(literal, wanted)                                                                      \
    { "" literal, sizeof(literal) - 1, 0, wanted }
#define H "Host: a\r\n"

static inline void run_vectors(const struct vector *v, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (v[i].wanted)
            assert_taken(v[i].bytes, v[i].n, v[i].wanted);
        else
            assert_refused(v[i].bytes, v[i].n, v[i].status);
}

#define RUN(vectors) run_vectors(vectors, sizeof vectors / sizeof *vectors)

#define POST "POST / HTTP/1.1\r\n" H
#define CL "Content-Length: "
#define TE "Transfer-Encoding: "
#define CHUNKED POST TE "chunked\r\n\r\n"

#endif
