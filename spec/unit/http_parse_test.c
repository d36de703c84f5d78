/* http_parse_test.c - requests from bytes, good and hostile, whole and in pieces. No sockets. */
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

static struct pge_http_limits limits(void) {
    return (struct pge_http_limits){.max_header_bytes = 16384,
                                    .max_headers = 100,
                                    .max_uri_bytes = 8192,
                                    .max_body_bytes = 1024};
}

static size_t add(char *out, size_t at, const char *name, struct pge_span span) {
    return at + (size_t)sprintf(out + at, "%s=%.*s|", name, (int)span.n, span.p ? span.p : "");
}

static void write_out(const struct pge_http_parse *p, struct outcome *o) {
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

static void feed(struct pge_http_parse *p, const char *bytes, size_t n) {
    assert_int_equal(pge_http_parse_append(p, bytes, n), 0);
    if (p->phase != PGE_HTTP_READY && p->phase != PGE_HTTP_REFUSED)
        pge_http_parse_run(p);
}

/* In pieces of step bytes, the first of them first bytes long. */
static void parse(const struct pge_http_limits *l, const char *bytes, size_t n, size_t first,
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

static void parse_all_ways(const struct pge_http_limits *l, const char *bytes, size_t n,
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

static void assert_refused(const char *bytes, size_t n, int status) {
    static struct outcome o;
    struct pge_http_limits l = limits();
    parse_all_ways(&l, bytes, n, &o);
    if (o.phase != PGE_HTTP_REFUSED || o.status != status)
        fail_msg("wanted %d, got phase %d status %d %s for\n%.*s", status, o.phase, o.status,
                 o.text, (int)n, bytes);
}

static void assert_taken(const char *bytes, size_t n, const char *wanted) {
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

#define BAD(status, literal) {"" literal, sizeof(literal) - 1, status, NULL}
#define GOOD(literal, wanted) {"" literal, sizeof(literal) - 1, 0, wanted}
#define H "Host: a\r\n"

static void run_vectors(const struct vector *v, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (v[i].wanted)
            assert_taken(v[i].bytes, v[i].n, v[i].wanted);
        else
            assert_refused(v[i].bytes, v[i].n, v[i].status);
}

#define RUN(vectors) run_vectors(vectors, sizeof vectors / sizeof *vectors)

static void takes_good_requests(void **state) {
    (void)state;
    static const struct vector v[] = {
        GOOD("GET / HTTP/1.1\r\n" H "\r\n",
             "method=GET|target=/|path=/|name=host|value=a|rest=|keep "),
        GOOD("GET /a%20b?x=1&y=%zz HTTP/1.1\r\n" H "\r\nGET /",
             "method=GET|target=/a%20b?x=1&y=%zz|path=/a%20b|query=x=1&y=%zz|name=host|value=a|"
             "rest=GET /|keep "),
        GOOD("GET /? HTTP/1.1\r\n" H "\r\n",
             "method=GET|target=/?|path=/|query=|name=host|value=a|rest=|keep "),
        GOOD("HEAD / HTTP/1.1\r\n" H "\r\n",
             "method=HEAD|target=/|path=/|name=host|value=a|rest=|head keep "),
        GOOD("OPTIONS * HTTP/1.1\r\n" H "\r\n",
             "method=OPTIONS|target=*|path=*|name=host|value=a|rest=|keep "),
        GOOD("POST /x HTTP/1.1\r\n" H "CONTENT-Length:  3 \r\n\r\nabcGET",
             "method=POST|target=/x|path=/x|name=host|value=a|name=content-length|value=3|body=abc|"
             "rest=GET|keep "),
        GOOD("POST /x HTTP/1.1\r\n" H "Content-Length: 0\r\n\r\n",
             "method=POST|target=/x|path=/x|name=host|value=a|name=content-length|value=0|rest=|"
             "keep "),
        GOOD("POST / HTTP/1.1\r\n" H "Transfer-Encoding: Chunked\r\n\r\n"
             "3\r\nabc\r\n00A;q=\"a; b\";z;n=v\r\n0123456789\r\n0\r\nT: x\r\nU:\r\n\r\nGET",
             "method=POST|target=/|path=/|name=host|value=a|name=transfer-encoding|value=Chunked|"
             "body=abc0123456789|rest=GET|keep "),
        GOOD("POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
             "method=POST|target=/|path=/|name=host|value=a|name=transfer-encoding|value=chunked|"
             "rest=|keep "),
        GOOD("POST / HTTP/1.1\r\n" H "Expect: 100-Continue\r\nContent-Length: 1\r\n\r\nx",
             "method=POST|target=/|path=/|name=host|value=a|name=expect|value=100-Continue|"
             "name=content-length|value=1|body=x|rest=|keep continue "),
        GOOD("GET / HTTP/1.1\r\n" H "Connection: foo, Close\r\n\r\n",
             "method=GET|target=/|path=/|name=host|value=a|name=connection|value=foo, Close|rest=|"),
        GOOD("GET / HTTP/1.1\r\n" H "Connection: keep-alive\r\nConnection: close\r\n\r\n",
             "method=GET|target=/|path=/|name=host|value=a|name=connection|value=keep-alive|"
             "name=connection|value=close|rest=|"),
        GOOD("GET / HTTP/1.0\r\n\r\n", "method=GET|target=/|path=/|rest=|"),
        GOOD("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n",
             "method=GET|target=/|path=/|name=connection|value=Keep-Alive|rest=|keep "),
        GOOD("GET / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n",
             "method=GET|target=/|path=/|name=expect|value=100-continue|rest=|"),
        GOOD("GET / HTTP/1.1\r\nUpgrade: h2c, websocket\r\nConnection: Upgrade\r\n" H "\r\nrest",
             "method=GET|target=/|path=/|name=upgrade|value=h2c, websocket|name=connection|"
             "value=Upgrade|name=host|value=a|rest=rest|keep "),
        GOOD("\r\nGET / HTTP/1.1\r\n" H "\r\n",
             "method=GET|target=/|path=/|name=host|value=a|rest=|keep "),
        GOOD("PURGE / HTTP/1.1\r\n" H "\r\n",
             "method=PURGE|target=/|path=/|name=host|value=a|rest=|keep "),
        GOOD("GET / HTTP/1.1\r\n" H "X!#$%&'*+-.^_`|~: \t caf\xc3\xa9 \xff\tx \t\r\nE:\r\n\r\n",
             "method=GET|target=/|path=/|name=host|value=a|name=x!#$%&'*+-.^_`|~|"
             "value=caf\xc3\xa9 \xff\tx|name=e|value=|rest=|keep "),
    };
    RUN(v);
}

static void reduces_an_absolute_target(void **state) {
    (void)state;
    static const struct vector v[] = {
        GOOD("GET http://a/x?y HTTP/1.1\r\n" H "\r\n",
             "method=GET|target=/x?y|path=/x|query=y|name=host|value=a|rest=|keep "),
        GOOD("GET HTTP://Example.org:80 HTTP/1.1\r\nhost: eXample.org:80\r\n\r\n",
             "method=GET|target=/|path=/|name=host|value=eXample.org:80|rest=|keep "),
        GOOD("GET https://a HTTP/1.1\r\n" H "\r\n",
             "method=GET|target=/|path=/|name=host|value=a|rest=|keep "),
        GOOD("GET http://a/ HTTP/1.0\r\n\r\n", "method=GET|target=/|path=/|rest=|"),
        GOOD("POST http://a/? HTTP/1.1\r\n" H "Content-Length: 2\r\n\r\nok",
             "method=POST|target=/?|path=/|query=|name=host|value=a|name=content-length|value=2|"
             "body=ok|rest=|keep "),
        BAD(400, "GET http://a?q HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "GET http://b/ HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "GET http://a:80/ HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "GET http://u@a/ HTTP/1.1\r\nHost: u@a\r\n\r\n"),
        BAD(400, "GET http:///x HTTP/1.1\r\nHost:\r\n\r\n"),
        BAD(400, "GET http:/x HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "GET ftp://a/ HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "GET http://a/../x HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "GET http://u@a/ HTTP/1.0\r\n\r\n"),
    };
    RUN(v);
}

static void refuses_bad_request_lines(void **state) {
    (void)state;
    static const struct vector v[] = {
        BAD(505, "GET / HTTP/2.0\r\n" H "\r\n"),
        BAD(505, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        BAD(505, "GET / HTTP/1.2\r\n" H "\r\n"),
        BAD(505, "GET / HTTP/0.9\r\n" H "\r\n"),
        BAD(505, "GET / HTTP/3.0\r\n" H "\r\n"),
        BAD(400, "GET / HTTP/1.10\r\n" H "\r\n"),
        BAD(400, "GET / http/1.1\r\n" H "\r\n"),
        BAD(400, "GET / HTTQ/1.1\r\n" H "\r\n"),
        BAD(400, "GET /\r\n\r\n"),
        BAD(400, "GET / \r\n\r\n"),
        BAD(400, "GET  / HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "GET /  HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "GET / HTTP/1.1 \r\n" H "\r\n"),
        BAD(400, "GET / x HTTP/1.1\r\n" H "\r\n"),
        BAD(400, " GET / HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "GET\t/ HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "GET /\t HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "get / HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "GETX / HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "G(T / HTTP/1.1\r\n" H "\r\n"),
        BAD(501, "CONNECT a:443 HTTP/1.1\r\n" H "\r\n"),
        BAD(501, "TRACE / HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "GET /#f HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "GET /a?b#f HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "GET /\x01 HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "GET /\x7f HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "GET /\x80 HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "GET /\xc3\xa9 HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "GET /a?\xc3\xa9 HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "GET /\0 HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "GET * HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "GET a HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "GET ?a HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "\r\n\r\nGET / HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "\nGET / HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "\rGET / HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
        BAD(400, "17#{\"pattern\":\"a\"}"),
    };
    RUN(v);
}

static void refuses_paths_above_the_root(void **state) {
    (void)state;
    static const struct vector v[] = {
        BAD(400, "GET /.. HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "GET /../ HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "GET /a/../../b HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "GET /./.. HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "GET //../ HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "GET /%2e%2E/ HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "GET /a%2f..%2f.. HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "GET /..?x HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "GET /% HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "GET /%2 HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "GET /%2?a HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "GET /%zz HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "GET /%00 HTTP/1.1\r\n" H "\r\n"),
        GOOD("GET /a/../b/%2e/...//..a HTTP/1.1\r\n" H "\r\n",
             "method=GET|target=/a/../b/%2e/...//..a|path=/a/../b/%2e/...//..a|name=host|value=a|"
             "rest=|keep "),
    };
    RUN(v);
}

static void refuses_bad_lines(void **state) {
    (void)state;
    static const struct vector v[] = {
        BAD(400, "GET / HTTP/1.1\n" H "\r\n"),
        BAD(400, "GET / HTTP/1.1\r\nHost: a\n\r\n"),
        BAD(400, "GET / HTTP/1.1\r\n" H "\n"),
        BAD(400, "GET / HTTP/1.1\nHost: a\n\n"),
        BAD(400, "GET / HTTP/1.1\r" H "\r\n"),
        BAD(400, "GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n"),
        BAD(400, "GET / HTTP/1.1\r\n" H "X: a\r\r\n\r\n"),
        BAD(400, "GET / HTTP/1.1\r\n" H "\rX"),
        BAD(400, "GET / HTTP/1.1\r\n" H "X: a\r\n b\r\n\r\n"),
        BAD(400, "GET / HTTP/1.1\r\n" H "X: a\r\n\tb\r\n\r\n"),
        BAD(400, "GET / HTTP/1.1\r\n " H "\r\n"),
        BAD(400, "GET / HTTP/1.1\r\n" H "X:\r\n \r\n\r\n"),
        BAD(400, "GET / HTTP/1.1\r\nHost : a\r\n\r\n"),
        BAD(400, "GET / HTTP/1.1\r\n" H "X Y: a\r\n\r\n"),
        BAD(400, "GET / HTTP/1.1\r\n" H ": a\r\n\r\n"),
        BAD(400, "GET / HTTP/1.1\r\n" H "X\r\n\r\n"),
        BAD(400, "GET / HTTP/1.1\r\n" H "X@: a\r\n\r\n"),
        BAD(400, "GET / HTTP/1.1\r\n" H "X\x80: a\r\n\r\n"),
        BAD(400, "GET / HTTP/1.1\r\n" H "X\0: a\r\n\r\n"),
        BAD(400, "GET / HTTP/1.1\r\n" H "X: a\0b\r\n\r\n"),
        BAD(400, "GET / HTTP/1.1\r\n" H "X: a\x01\r\n\r\n"),
        BAD(400, "GET / HTTP/1.1\r\n" H "X: a\x0b\r\n\r\n"),
        BAD(400, "GET / HTTP/1.1\r\n" H "X: a\x7f\r\n\r\n"),
    };
    RUN(v);
}

static void refuses_bad_hosts(void **state) {
    (void)state;
    static const char *const bad[] = {"",       "a, b",   "a,b",   "u@a",    "a b",     "a/b",
                                      "a?b",    "a#b",    "a:x",   "a:99999", "a:1:2",  "a..b",
                                      ".a",     "[::1",   "::1",   "[]",     "[::1]x",  "[::g]",
                                      "a\xc3\xa9", "a%20b", ":80",  "a\"b",   "[::1]:x", "http://a"};
    static const char *const good[] = {"a",     "a.b.",   "a_b-c~1", "127.0.0.1:8080", "[::1]",
                                       "[::ffff:1.2.3.4]:80", "a:"};
    char text[256];
    static const struct vector v[] = {
        BAD(400, "GET / HTTP/1.1\r\n\r\n"),
        BAD(400, "GET / HTTP/1.1\r\n" H H "\r\n"),
        BAD(400, "GET / HTTP/1.1\r\n" H "HOST: b\r\n\r\n"),
        BAD(400, "GET / HTTP/1.0\r\n" H H "\r\n"),
        BAD(400, "GET / HTTP/1.1\r\nHost: a \t\r\n\r\n"),
        BAD(400, "GET / HTTP/1.1\r\nHost:\ta\r\n\r\n"),
        BAD(400, "OPTIONS * HTTP/1.1\r\nHost: a,b\r\n\r\n"),
    };
    RUN(v);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_refused(text, (size_t)sprintf(text, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", bad[i]),
                       400);
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        char wanted[256];
        sprintf(wanted, "method=GET|target=/|path=/|name=host|value=%s|rest=|keep ", good[i]);
        assert_taken(text, (size_t)sprintf(text, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", good[i]),
                     wanted);
    }
}

#define POST "POST / HTTP/1.1\r\n" H
#define CL "Content-Length: "
#define TE "Transfer-Encoding: "

static void refuses_unclear_framing(void **state) {
    (void)state;
    static const struct vector v[] = {
        BAD(400, POST CL "3\r\n" CL "3\r\n\r\nabc"),
        BAD(400, POST CL "3\r\n" CL "4\r\n\r\nabcd"),
        BAD(400, POST CL "3, 3\r\n\r\nabc"),
        BAD(400, POST CL "+3\r\n\r\nabc"),
        BAD(400, POST CL "-3\r\n\r\nabc"),
        BAD(400, POST CL "0x3\r\n\r\nabc"),
        BAD(400, POST CL "3 3\r\n\r\nabc"),
        BAD(400, POST CL "3a\r\n\r\nabc"),
        BAD(400, POST CL "3.0\r\n\r\nabc"),
        BAD(400, POST CL "\r\n\r\nabc"),
        BAD(400, POST CL "18446744073709551617\r\n\r\nabc"),
        BAD(413, POST CL "18446744073709551615\r\n\r\nabc"),
        BAD(400, POST CL "3\r\n" TE "chunked\r\n\r\n0\r\n\r\n"),
        BAD(400, POST TE "chunked\r\n" CL "3\r\n\r\n0\r\n\r\n"),
        BAD(400, POST TE ",chunked\r\n\r\n0\r\n\r\n"),
        BAD(400, POST TE "chunked,\r\n\r\n0\r\n\r\n"),
        BAD(501, POST TE "gzip, chunked\r\n\r\n0\r\n\r\n"),
        BAD(501, POST TE "identity, chunked\r\n\r\n0\r\n\r\n"),
        BAD(400, POST TE "identity\r\n\r\n0\r\n\r\n"),
        BAD(400, POST TE "gzip\r\n\r\n0\r\n\r\n"),
        BAD(400, POST TE "\r\n\r\n0\r\n\r\n"),
        BAD(400, POST TE "chunked, chunked\r\n\r\n0\r\n\r\n"),
        BAD(400, POST TE "chunked\r\n" TE "chunked\r\n\r\n0\r\n\r\n"),
        BAD(400, POST TE "chunked\r\n" TE "identity\r\n\r\n0\r\n\r\n"),
        BAD(400, POST TE "chunked, gzip\r\n\r\n0\r\n\r\n"),
        BAD(400, POST TE "xchunked\r\n\r\n0\r\n\r\n"),
        BAD(400, POST TE "chunkedx\r\n\r\n0\r\n\r\n"),
        BAD(400, POST TE "\"chunked\"\r\n\r\n0\r\n\r\n"),
        BAD(400, POST TE "chunked;q=1\r\n\r\n0\r\n\r\n"),
        BAD(400, POST TE "\tchunked\r\n\r\n0\r\n\r\n"),
        BAD(400, POST TE "chunked \t\r\n\r\n0\r\n\r\n"),
        BAD(400, POST CL "\t3\r\n\r\nabc"),
        BAD(400, POST CL "3\t\r\n\r\nabc"),
        BAD(400, "GET / HTTP/1.0\r\n" CL "3\r\n\r\nabc"),
        BAD(400, "HEAD / HTTP/1.0\r\n" CL "3\r\n\r\nabc"),
        BAD(400, "DELETE / HTTP/1.0\r\n" CL "3\r\n\r\nabc"),
        BAD(400, POST TE "\x0b" "chunked\r\n\r\n0\r\n\r\n"),
        BAD(400, "POST / HTTP/1.0\r\n" H TE "chunked\r\n\r\n0\r\n\r\n"),
        BAD(417, POST "Expect: 200-ok\r\n" CL "1\r\n\r\nx"),
        BAD(417, POST "Expect: 100-continue\r\nExpect: 100-continue\r\n" CL "1\r\n\r\nx"),
        BAD(417, POST "Expect:\r\n" CL "1\r\n\r\nx"),
    };
    RUN(v);
}

#define CHUNKED POST TE "chunked\r\n\r\n"

static void refuses_bad_chunks(void **state) {
    (void)state;
    static const struct vector v[] = {
        BAD(400, CHUNKED "3\nabc\r\n0\r\n\r\n"),
        BAD(400, CHUNKED "3\r\nabc\n0\r\n\r\n"),
        BAD(400, CHUNKED "3\r\nabc\r\n0\n\r\n"),
        BAD(400, CHUNKED "3\r\nabc\r\n0\r\n\n"),
        BAD(400, CHUNKED "3\r\nabc\r\n0\r\nT: x\n\r\n"),
        BAD(400, CHUNKED "3\rabc\r\n0\r\n\r\n"),
        BAD(400, CHUNKED "3\r\nabcd\r\n0\r\n\r\n"),
        BAD(400, CHUNKED "3\r\nab\r\n0\r\n\r\n"),
        BAD(400, CHUNKED "3\r\nabc0\r\n\r\n"),
        BAD(400, CHUNKED "\r\nabc\r\n0\r\n\r\n"),
        BAD(400, CHUNKED ";a\r\nabc\r\n0\r\n\r\n"),
        BAD(400, CHUNKED " 3\r\nabc\r\n0\r\n\r\n"),
        BAD(400, CHUNKED "3 \r\nabc\r\n0\r\n\r\n"),
        BAD(400, CHUNKED "+3\r\nabc\r\n0\r\n\r\n"),
        BAD(400, CHUNKED "-3\r\nabc\r\n0\r\n\r\n"),
        BAD(400, CHUNKED "0x3\r\nabc\r\n0\r\n\r\n"),
        BAD(400, CHUNKED "3g\r\nabc\r\n0\r\n\r\n"),
        BAD(400, CHUNKED "00000000000000003\r\nabc\r\n0\r\n\r\n"),
        BAD(413, CHUNKED "FFFFFFFFFFFFFFFF\r\nabc"),
        BAD(413, CHUNKED "10000000000000003\r\nabc"),
        BAD(400, CHUNKED "3;\r\nabc\r\n0\r\n\r\n"),
        BAD(400, CHUNKED "3;a=\r\nabc\r\n0\r\n\r\n"),
        BAD(400, CHUNKED "3;a=b;c\r\nabc\r\n0\r\n\r\n"),
        BAD(400, CHUNKED "3;a=\"\\\"\"\r\nabc\r\n0\r\n\r\n"),
        BAD(400, CHUNKED "3;a=\"b\"c\r\nabc\r\n0\r\n\r\n"),
        BAD(400, CHUNKED "3;a=b c\r\nabc\r\n0\r\n\r\n"),
        BAD(400, CHUNKED "3;a\nb\r\nabc\r\n0\r\n\r\n"),
        BAD(400, CHUNKED "3;a=\"\n\"\r\nabc\r\n0\r\n\r\n"),
        BAD(400, CHUNKED "3;a\0\r\nabc\r\n0\r\n\r\n"),
        BAD(400, CHUNKED "0\r\nT : x\r\n\r\n"),
        BAD(400, CHUNKED "0\r\n: x\r\n\r\n"),
        BAD(400, CHUNKED "0\r\nTransfer-Encoding: chunked\r\n\r\n"),
        BAD(400, CHUNKED "0\r\na: b\r\ncontent-LENGTH: 3\r\n\r\n"),
        GOOD(CHUNKED "0\r\nTransfer-Encodin: x\r\nContent-Lengthy: 3\r\nc: d\r\n\r\n",
             "method=POST|target=/|path=/|name=host|value=a|name=transfer-encoding|value=chunked|"
             "rest=|keep "),
        BAD(400, CHUNKED "0\r\nHost: b\r\n\r\n"),
        BAD(400, CHUNKED "0\r\nT: x\r\n y\r\n\r\n"),
        BAD(400, CHUNKED "0\r\nT: \0\r\n\r\n"),
        BAD(400, CHUNKED "0\r\nT\r\n\r\n"),
        BAD(400, CHUNKED "0\r\n\rX"),
    };
    RUN(v);
}

/* ---- limits, each at N and N + 1 ---- */

static void limits_the_target(void **state) {
    (void)state;
    struct pge_http_limits l = limits();
    static struct outcome o;
    char text[256];
    l.max_uri_bytes = 20;
    int n = sprintf(text, "GET /%019d HTTP/1.1\r\n" H "\r\n", 0);
    parse_all_ways(&l, text, (size_t)n, &o);
    assert_int_equal(o.phase, PGE_HTTP_READY);
    n = sprintf(text, "GET /%020d HTTP/1.1\r\n" H "\r\n", 0);
    parse_all_ways(&l, text, (size_t)n, &o);
    assert_int_equal(o.status, 414);
    n = sprintf(text, "GET /%020d\x01", 0);
    parse_all_ways(&l, text, (size_t)n, &o);
    assert_int_equal(o.status, 414);
    n = sprintf(text, "GET /%019d\x01", 0);
    parse_all_ways(&l, text, (size_t)n, &o);
    assert_int_equal(o.status, 400);
    n = sprintf(text, "GET /%021d", 0); /* never ends */
    parse_all_ways(&l, text, (size_t)n, &o);
    assert_int_equal(o.status, 414);
}

static void limits_the_header_block(void **state) {
    (void)state;
    struct pge_http_limits l = limits();
    static struct outcome o;
    static const char text[] = "GET / HTTP/1.1\r\n" H "X: abc\r\n\r\n";
    l.max_header_bytes = sizeof text - 1;
    parse_all_ways(&l, text, sizeof text - 1, &o);
    assert_int_equal(o.phase, PGE_HTTP_READY);
    l.max_header_bytes--;
    parse_all_ways(&l, text, sizeof text - 1, &o);
    assert_int_equal(o.status, 431);
    parse_all_ways(&l, text, sizeof text - 2, &o); /* cannot end within it any more */
    assert_int_equal(o.status, 431);
    parse_all_ways(&l, text, sizeof text - 3, &o);
    assert_int_equal(o.phase, PGE_HTTP_HEAD);
}

static void limits_the_number_of_headers(void **state) {
    (void)state;
    struct pge_http_limits l = limits();
    static struct outcome o;
    char text[2048];
    for (unsigned count = 100; count <= 101; count++) {
        size_t n = (size_t)sprintf(text, "GET / HTTP/1.1\r\n" H);
        for (unsigned i = 1; i < count; i++)
            n += (size_t)sprintf(text + n, "a: b\r\n");
        n += (size_t)sprintf(text + n, "\r\n");
        parse_all_ways(&l, text, n, &o);
        if (count == 100)
            assert_int_equal(o.phase, PGE_HTTP_READY);
        else
            assert_int_equal(o.status, 431);
    }
}

static void limits_the_body(void **state) {
    (void)state;
    struct pge_http_limits l = limits();
    static struct outcome o;
    l.max_body_bytes = 5;
    static const struct vector v[] = {
        GOOD(POST CL "5\r\n\r\nabcde", ""),
        BAD(413, POST CL "6\r\n\r\n"),
        BAD(413, POST "Expect: 100-continue\r\n" CL "6\r\n\r\n"),
        GOOD(CHUNKED "5\r\nabcde\r\n0\r\n\r\n", ""),
        GOOD(CHUNKED "2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n", ""),
        BAD(413, CHUNKED "6\r\n"),
        BAD(413, CHUNKED "2\r\nab\r\n4\r\n"),
        BAD(413, CHUNKED "2\r\nab\r\n3\r\ncde\r\n1\r\nf\r\n0\r\n\r\n"),
    };
    for (size_t i = 0; i < sizeof v / sizeof *v; i++) {
        parse_all_ways(&l, v[i].bytes, v[i].n, &o);
        assert_int_equal(o.phase, v[i].wanted ? PGE_HTTP_READY : PGE_HTTP_REFUSED);
        assert_int_equal(o.status, v[i].status);
    }
}

static void limits_extensions_and_trailers(void **state) {
    (void)state;
    struct pge_http_limits l = limits();
    static struct outcome o;
    char text[512];
    static const char head[] = POST TE "chunked\r\n\r\n";
    l.max_header_bytes = sizeof head - 1;
    int n = sprintf(text, "%s1;%0*d\r\nx\r\n0\r\n\r\n", head, (int)sizeof head - 1 - 3, 0);
    parse_all_ways(&l, text, (size_t)n, &o);
    assert_int_equal(o.phase, PGE_HTTP_READY);
    n = sprintf(text, "%s1;%0*d\r\nx\r\n0\r\n\r\n", head, (int)sizeof head + 4, 0);
    parse_all_ways(&l, text, (size_t)n, &o);
    assert_int_equal(o.status, 413);
    n = sprintf(text, "%s1\r\nx\r\n0\r\nT:%0*d\r\n\r\n", head, (int)sizeof head, 0);
    parse_all_ways(&l, text, (size_t)n, &o);
    assert_int_equal(o.status, 431);
}

/* ---- buffers ---- */

static void takes_a_hundred_pipelined_requests(void **state) {
    (void)state;
    struct pge_http_limits l = limits();
    struct pge_http_parse p;
    char text[64];
    pge_http_parse_init(&p, &l);
    for (int i = 0; i < 100; i++)
        assert_int_equal(
            pge_http_parse_append(&p, text, (size_t)sprintf(text, "GET /%d HTTP/1.1\r\n" H "\r\n", i)),
            0);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(pge_http_parse_run(&p), PGE_HTTP_READY);
        sprintf(text, "/%d", i);
        assert_int_equal(p.message.path.n, strlen(text));
        assert_memory_equal(p.message.path.p, text, strlen(text));
        pge_http_parse_next(&p);
    }
    assert_int_equal(pge_http_parse_run(&p), PGE_HTTP_START);
    assert_int_equal(pge_buf_len(&p.in), 0);
    pge_http_parse_deinit(&p);
}

/* A body that comes in single-byte chunks, six bytes of coding each, must not be held with its coding. */
static void keeps_only_the_body_of_chunks(void **state) {
    (void)state;
    struct pge_http_limits l = limits();
    struct pge_http_parse p;
    pge_http_parse_init(&p, &l);
    feed(&p, CHUNKED, sizeof CHUNKED - 1);
    for (int i = 0; i < 1024; i++)
        feed(&p, "1\r\nx\r\n", 6);
    assert_int_equal(p.body_size, 1024);
    assert_true(p.in.cap <= 4096);
    feed(&p, "0\r\n\r\n", 5);
    assert_int_equal(p.phase, PGE_HTTP_READY);
    assert_int_equal(p.message.body.n, 1024);
    assert_memory_equal(p.message.method.p, "POST", 4);
    assert_memory_equal(p.message.headers[0].name.p, "host", 4);
    pge_http_parse_deinit(&p);
}

static void gives_its_memory_back(void **state) {
    (void)state;
    struct pge_http_limits l = limits();
    struct pge_http_parse p;
    struct fail_alloc a;
    fail_alloc_start(&a, (size_t)-1);
    pge_http_parse_init(&p, &l);
    feed(&p, POST CL "1\r\n\r\nx", sizeof(POST CL "1\r\n\r\nx") - 1);
    assert_int_equal(p.phase, PGE_HTTP_READY);
    pge_http_parse_next(&p);
    size_t asked = a.asked;
    feed(&p, POST CL "1\r\n\r\nx", sizeof(POST CL "1\r\n\r\nx") - 1);
    assert_int_equal(p.phase, PGE_HTTP_READY);
    assert_int_equal(a.asked, asked); /* the second request costs no allocation */
    pge_http_parse_next(&p);
    pge_http_parse_trim(&p);
    assert_int_equal(a.held, 0);
    fail_alloc_stop();
}

static void says_when_memory_fails(void **state) {
    (void)state;
    struct pge_http_limits l = limits();
    static const char text[] = "GET / HTTP/1.1\r\n" H "\r\n";
    for (size_t grants = 0;; grants++) {
        struct pge_http_parse p;
        struct fail_alloc a;
        fail_alloc_start(&a, grants);
        pge_http_parse_init(&p, &l);
        int status = pge_http_parse_append(&p, text, sizeof text - 1);
        enum pge_http_phase phase = status < 0 ? PGE_HTTP_START : pge_http_parse_run(&p);
        if (status < 0)
            assert_int_equal(status, UV_ENOMEM);
        if (phase == PGE_HTTP_REFUSED)
            assert_int_equal(p.status, 503);
        pge_http_parse_deinit(&p);
        assert_int_equal(a.held, 0);
        fail_alloc_stop();
        if (phase == PGE_HTTP_READY)
            return;
        assert_true(grants < 10);
    }
}

static void judges_header_fields(void **state) {
    (void)state;
    static const struct {
        const char *name;
        struct pge_span value;
        bool valid;
    } v[] = {{"x", {"a b\t\xff", 5}, true},   {"x", {"", 0}, true},      {"", {"a", 1}, false},
             {"x y", {"a", 1}, false},        {"x:", {"a", 1}, false},   {"x", {"a\r\nb", 4}, false},
             {"x", {"a\nb", 3}, false},       {"x", {"a\0b", 3}, false}, {"x", {"a\x7f", 2}, false},
             {"x\xc3\xa9", {"a", 1}, false},  {"x\n", {"a", 1}, false}};
    for (size_t i = 0; i < sizeof v / sizeof *v; i++)
        assert_int_equal(
            pge_http_header_is_valid((struct pge_span){v[i].name, strlen(v[i].name)}, v[i].value),
            v[i].valid);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(takes_good_requests),
        cmocka_unit_test(reduces_an_absolute_target),
        cmocka_unit_test(refuses_bad_request_lines),
        cmocka_unit_test(refuses_paths_above_the_root),
        cmocka_unit_test(refuses_bad_lines),
        cmocka_unit_test(refuses_bad_hosts),
        cmocka_unit_test(refuses_unclear_framing),
        cmocka_unit_test(refuses_bad_chunks),
        cmocka_unit_test(limits_the_target),
        cmocka_unit_test(limits_the_header_block),
        cmocka_unit_test(limits_the_number_of_headers),
        cmocka_unit_test(limits_the_body),
        cmocka_unit_test(limits_extensions_and_trailers),
        cmocka_unit_test(takes_a_hundred_pipelined_requests),
        cmocka_unit_test(keeps_only_the_body_of_chunks),
        cmocka_unit_test(gives_its_memory_back),
        cmocka_unit_test(says_when_memory_fails),
        cmocka_unit_test(judges_header_fields),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
