/* http_limits_test.c - bounds of a request, each at N and N + 1, and the memory it takes. */
#include "http_bytes.h"

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
        assert_int_equal(pge_http_parse_append(
                             &p, text, (size_t)sprintf(text, "GET /%d HTTP/1.1\r\n" H "\r\n", i)),
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

/* A body in chunks of one byte, six of coding each, must not be held with its coding. */
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
    } v[] = {{"x", {"a b\t\xff", 5}, true},  {"x", {"", 0}, true},      {"", {"a", 1}, false},
             {"x y", {"a", 1}, false},       {"x:", {"a", 1}, false},   {"x", {"a\r\nb", 4}, false},
             {"x", {"a\nb", 3}, false},      {"x", {"a\0b", 3}, false}, {"x", {"a\x7f", 2}, false},
             {"x\xc3\xa9", {"a", 1}, false}, {"x\n", {"a", 1}, false}};
    for (size_t i = 0; i < sizeof v / sizeof *v; i++)
        assert_int_equal(
            pge_http_header_is_valid((struct pge_span){v[i].name, strlen(v[i].name)}, v[i].value),
            v[i].valid);
}

int main(void) {
    const struct CMUnitTest tests[] = {
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
