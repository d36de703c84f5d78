/* envelope_test.c - core/codec/envelope.c */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <uv.h>

#include <cmocka.h>

#include "codec/envelope.h"
#include "fail_alloc.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static struct pge_envelope scan(const char *text) {
    struct pge_json_scan s;
    struct pge_envelope e;
    pge_json_scan_init(&s);
    assert_int_equal(pge_envelope_scan(&s, text, strlen(text), &e), 0);
    pge_json_scan_deinit(&s);
    return e;
}

static void assert_span(struct pge_span span, const char *text) {
    if (!text) {
        assert_null(span.p);
        return;
    }
    assert_non_null(span.p);
    assert_int_equal(span.n, strlen(text));
    assert_memory_equal(span.p, text, span.n);
}

static void finds_the_parts_of_a_request(void **state) {
    (void)state;
    struct pge_envelope e = scan("{\"pattern\":{\"cmd\":\"sum\"},\"data\":[1, 2],\"metadata\":"
                                 "{\"trace\":\"t1\"},\"id\":\"d0d3\"}");
    assert_true(e.is_object);
    assert_false(e.is_empty);
    assert_span(e.pattern, "{\"cmd\":\"sum\"}");
    assert_span(e.data, "[1, 2]");
    assert_span(e.metadata, "{\"trace\":\"t1\"}");
    assert_span(e.id, "\"d0d3\"");
    assert_span(e.response, NULL);
    assert_span(e.err, NULL);
    assert_span(e.is_disposed, NULL);
    assert_span(e.status, NULL);
}

static void finds_the_parts_of_a_reply(void **state) {
    (void)state;
    struct pge_envelope e =
        scan("{\"response\":{\"id\":1,\"err\":2},\"isDisposed\":true,\"id\":7}");
    assert_span(e.response, "{\"id\":1,\"err\":2}");
    assert_span(e.is_disposed, "true");
    assert_span(e.id, "7");
    assert_span(e.err, NULL);
    e = scan("{\"id\":null,\"status\":\"error\",\"err\":\"no handler\"}");
    assert_span(e.id, "null");
    assert_span(e.status, "\"error\"");
    assert_span(e.err, "\"no handler\"");
}

static void assert_same_span(struct pge_span a, const char *p, struct pge_span b, const char *q) {
    assert_int_equal(a.p == NULL, b.p == NULL);
    if (!a.p)
        return;
    assert_int_equal(a.n, b.n);
    assert_int_equal(a.p - p, b.p - q);
}

/* A space in front keeps the scan from taking a packet for one of the usual form. */
static void assert_same_without_short_cut(const char *p, size_t n) {
    char other[256] = " ";
    struct pge_json_scan s, t;
    struct pge_envelope a, b;
    assert_true(n + 1 <= sizeof(other));
    memcpy(other + 1, p, n);
    pge_json_scan_init(&s);
    pge_json_scan_init(&t);
    int status = pge_envelope_scan(&s, p, n, &a);
    assert_int_equal(status, pge_envelope_scan(&t, other, n + 1, &b));
    if (status == 0) {
        assert_same_span(a.pattern, p, b.pattern, other + 1);
        assert_same_span(a.data, p, b.data, other + 1);
        assert_same_span(a.id, p, b.id, other + 1);
        assert_same_span(a.response, p, b.response, other + 1);
        assert_same_span(a.is_disposed, p, b.is_disposed, other + 1);
        assert_same_span(a.err, p, b.err, other + 1);
        assert_int_equal(a.is_object, b.is_object);
        assert_int_equal(a.is_empty, b.is_empty);
        assert_int_equal(a.has_foreign_key, b.has_foreign_key);
        assert_int_equal(s.depth, t.depth);
    } else {
        assert_string_equal(s.error, t.error);
        assert_int_equal(s.error_at - p, t.error_at - other - 1);
    }
    pge_json_scan_deinit(&s);
    pge_json_scan_deinit(&t);
}

static void reads_packets_of_the_usual_form_as_any_other(void **state) {
    (void)state;
    static const char *const packets[] = {
        "{\"response\":{\"a\":[1,{\"b\":\"c\"}]},\"isDisposed\":true,\"id\":"
        "\"0123456789abcdef01234\"}",
        "{\"response\":12,\"isDisposed\":true,\"id\":\"0123456789abcdef01234\"}",
        "{\"pattern\":{\"cmd\":\"sum\"},\"data\":[1,[2],\"x\"],\"id\":\"0123456789abcdef01234\"}",
        "{\"pattern\":\"sum\",\"data\":7,\"id\":\"0123456789abcdef01234\"}",
    };
    static const char others[] = "\"\\ {}[],:0tn\x01\x80";
    for (size_t i = 0; i < COUNT(packets); i++) {
        size_t n = strlen(packets[i]);
        char packet[200];
        assert_same_without_short_cut(packets[i], n);
        for (size_t at = 0; at < n; at++) {
            for (const char *other = others; *other; other++) { /* one byte is another */
                memcpy(packet, packets[i], n);
                packet[at] = *other;
                assert_same_without_short_cut(packet, n);
            }
            memcpy(packet, packets[i], at); /* one is missing */
            memcpy(packet + at, packets[i] + at + 1, n - at - 1);
            assert_same_without_short_cut(packet, n - 1);
            memcpy(packet, packets[i], at); /* one is there twice */
            memcpy(packet + at, packets[i] + at - (at > 0), n - at + (at > 0));
            assert_same_without_short_cut(packet, n + (at > 0));
            assert_same_without_short_cut(packets[i], at); /* the end is missing */
        }
    }
}

static void looks_through_white_space_order_and_escapes(void **state) {
    (void)state;
    struct pge_envelope e = scan(" \r\n{\t\"\\u0069d\" : 1 ,\n\"is\\u0044isposed\" :\tfalse , "
                                 "\"d\\u0061t\\u0061\":\n{ \"a\" : [ ] } \n}\t ");
    assert_span(e.id, "1");
    assert_span(e.is_disposed, "false");
    assert_span(e.data, "{ \"a\" : [ ] }");
    assert_span(scan("{\"\\u0070\\u0061\\u0074\\u0074\\u0065\\u0072\\u006E\":\"x\"}").pattern,
                "\"x\"");
}

static void takes_the_last_of_duplicate_keys(void **state) {
    (void)state;
    struct pge_envelope e = scan("{\"id\":1,\"data\":1,\"i\\u0064\":2,\"data\":[3]}");
    assert_span(e.id, "2");
    assert_span(e.data, "[3]");
}

static void knows_near_misses_as_foreign(void **state) {
    (void)state;
    const char *keys[] = {"",
                          "i",
                          "Id",
                          "ids",
                          "i\\u0064\\u0000",
                          "isdisposed",
                          "dat",
                          "\\u0069",
                          "is\\u0044ispose",
                          "xd",
                          "respons",
                          "is\\u0044isposee",
                          "\\\\u0069d",
                          "__proto__",
                          "data",
                          "pattern",
                          "metadata",
                          "id "};
    for (size_t i = 0; i < COUNT(keys); i++) {
        char text[64] = "{\"id\":1,\"";
        strcat(strcat(text, keys[i]), "\":2}");
        struct pge_envelope e = scan(text);
        assert_true(e.has_foreign_key);
        assert_span(e.id, "1");
    }
    assert_false(
        scan("{\"id\":1,\"err\":1,\"response\":1,\"isDisposed\":1,\"status\":1}").has_foreign_key);
}

static void validates_packets_that_are_no_object(void **state) {
    (void)state;
    const char *texts[] = {"null", "0", "[{\"id\":1}]", " \"id\" ", "true", "-1.5"};
    struct pge_json_scan s;
    struct pge_envelope e;
    pge_json_scan_init(&s);
    for (size_t i = 0; i < COUNT(texts); i++) {
        e = scan(texts[i]);
        assert_false(e.is_object);
        assert_null(e.id.p);
    }
    assert_int_equal(pge_envelope_scan(&s, "[1", 2, &e), UV_EPROTO);
    assert_int_equal(pge_envelope_scan(&s, "", 0, &e), UV_EPROTO);
}

static void refuses_broken_packets(void **state) {
    (void)state;
    const char *texts[] = {
        "{",
        "{\"id\"",
        "{\"id\":",
        "{\"id\":1",
        "{\"id\":1,",
        "{\"id\":1,}",
        "{,}",
        "{\"id\" 1}",
        "{id:1}",
        "{\"id\":1}x",
        "{\"id\":1}{}",
        "{\"id\":x}",
        "{\"id\":[1}",
        "{\"id\":\"\xFF\"}",
        "{\"\xC3\":1}",
        "{\"a\":01}",
        "{\"a\":1 \"b\":2}",
        "{}}",
        "{\"a\"::1}",
        "{\"\\x\":1}",
        "{\"data\":{\"a\":tru}}",
        "{ ",
        "{\"a",
        "{\"id\":1]",
    };
    for (size_t i = 0; i < COUNT(texts); i++) {
        struct pge_json_scan s;
        struct pge_envelope e;
        size_t n = strlen(texts[i]);
        char *exact = malloc(n);
        memcpy(exact, texts[i], n);
        pge_json_scan_init(&s);
        if (pge_envelope_scan(&s, exact, n, &e) != UV_EPROTO)
            fail_msg("accepted %s", texts[i]);
        assert_non_null(s.error);
        assert_true(s.error_at >= exact && s.error_at <= exact + n);
        free(exact);
    }
}

static void reports_the_depth_of_the_packet(void **state) {
    (void)state;
    const struct {
        const char *text;
        size_t depth;
    } cases[] = {{"1", 0}, {"{}", 1}, {"{\"id\":1}", 1}, {"{\"a\":[[]],\"b\":{}}", 3}, {"[[]]", 2}};
    struct pge_json_scan s;
    struct pge_envelope e;
    pge_json_scan_init(&s);
    for (size_t i = 0; i < COUNT(cases); i++) {
        assert_int_equal(pge_envelope_scan(&s, cases[i].text, strlen(cases[i].text), &e), 0);
        assert_int_equal(s.depth, cases[i].depth);
    }
}

static void scans_data_nested_200000_deep(void **state) {
    (void)state;
    enum { DEPTH = 200000 };
    struct fail_alloc memory;
    struct pge_json_scan s;
    struct pge_envelope e;
    struct pge_buf text = {0};
    pge_json_scan_init(&s);
    assert_int_equal(PGE_BUF_LIT(&text, "{\"data\":"), 0);
    for (int i = 0; i < DEPTH; i++)
        assert_int_equal(PGE_BUF_LIT(&text, "["), 0);
    for (int i = 0; i < DEPTH; i++)
        assert_int_equal(PGE_BUF_LIT(&text, "]"), 0);
    assert_int_equal(PGE_BUF_LIT(&text, ",\"id\":1}"), 0);
    fail_alloc_start(&memory, 3);
    assert_int_equal(pge_envelope_scan(&s, pge_buf_head(&text), pge_buf_len(&text), &e), UV_ENOMEM);
    memory.grants = (size_t)-1;
    assert_int_equal(pge_envelope_scan(&s, pge_buf_head(&text), pge_buf_len(&text), &e), 0);
    assert_int_equal(e.data.n, 2 * DEPTH);
    assert_span(e.id, "1");
    assert_int_equal(s.depth, DEPTH + 1);
    pge_json_scan_deinit(&s);
    assert_int_equal(memory.held, 0);
    fail_alloc_stop();
    pge_buf_deinit(&text);
}

static void tells_requests_events_and_foreign_bodies_apart(void **state) {
    (void)state;
    const struct {
        const char *text;
        enum pge_inbound inbound;
    } cases[] = {
        {"{\"pattern\":\"a\",\"data\":1,\"id\":\"x\"}", PGE_INBOUND_REQUEST},
        {"{\"pattern\":\"a\",\"data\":1,\"id\":null}", PGE_INBOUND_REQUEST},
        {"{\"pattern\":\"a\",\"id\":0}", PGE_INBOUND_REQUEST},
        {"{\"data\":7,\"id\":\"x\"}", PGE_INBOUND_REQUEST},
        {"{\"data\":null,\"id\":\"x\"}", PGE_INBOUND_REQUEST},
        {"{\"pattern\":\"a\",\"data\":1}", PGE_INBOUND_EVENT},
        {"{\"pattern\":null}", PGE_INBOUND_EVENT},
        {"{\"id\":\"x\"}", PGE_INBOUND_FOREIGN},
        {"{}", PGE_INBOUND_FOREIGN},
        {"{\"foo\":{\"pattern\":1}}", PGE_INBOUND_FOREIGN},
        {"null", PGE_INBOUND_FOREIGN},
        {"0", PGE_INBOUND_FOREIGN},
        {"\"\"", PGE_INBOUND_FOREIGN},
        {"[{\"pattern\":1}]", PGE_INBOUND_FOREIGN},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct pge_envelope e = scan(cases[i].text);
        if (pge_envelope_inbound(&e) != cases[i].inbound)
            fail_msg("wrong about %s", cases[i].text);
        assert_int_equal(pge_envelope_is_request(&e), cases[i].inbound == PGE_INBOUND_REQUEST);
    }
}

static void judges_replies_by_the_first_rule_that_holds(void **state) {
    (void)state;
    const struct {
        const char *text;
        enum pge_reply reply;
    } cases[] = {
        {"{\"response\":1,\"id\":\"i\"}", PGE_REPLY_VALUE},
        {"{\"response\":1,\"isDisposed\":false,\"id\":\"i\"}", PGE_REPLY_VALUE},
        {"{\"id\":\"i\"}", PGE_REPLY_VALUE},
        {"{\"id\":\"i\",\"err\":\"\"}", PGE_REPLY_VALUE},
        {"{\"response\":1,\"isDisposed\":true,\"id\":\"i\"}", PGE_REPLY_LAST},
        {"{\"response\":null,\"isDisposed\":true,\"id\":\"i\"}", PGE_REPLY_LAST},
        {"{\"response\":1,\"isDisposed\":\"yes\",\"id\":\"i\"}", PGE_REPLY_LAST},
        {"{\"isDisposed\":true,\"id\":\"i\"}", PGE_REPLY_END},
        {"{\"id\":\"i\",\"err\":0,\"isDisposed\":true}", PGE_REPLY_END},
        {"{\"id\":\"i\",\"err\":null,\"isDisposed\":true}", PGE_REPLY_END},
        {"{\"id\":\"i\",\"err\":\"e\",\"response\":5}", PGE_REPLY_ERROR},
        {"{\"id\":\"i\",\"err\":{},\"isDisposed\":true}", PGE_REPLY_ERROR},
        {"{\"id\":\"i\",\"status\":\"error\",\"err\":\"e\"}", PGE_REPLY_ERROR},
        {"{\"id\":\"i\",\"foo\":1}", PGE_REPLY_FOREIGN},
        {"{\"id\":\"i\",\"err\":\"e\",\"pattern\":1}", PGE_REPLY_FOREIGN},
        {"{}", PGE_REPLY_FOREIGN},
        {"5", PGE_REPLY_FOREIGN},
        {"[{\"id\":\"i\"}]", PGE_REPLY_FOREIGN},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct pge_envelope e = scan(cases[i].text);
        if (pge_envelope_reply(&e) != cases[i].reply)
            fail_msg("wrong about %s", cases[i].text);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_the_parts_of_a_request),
        cmocka_unit_test(finds_the_parts_of_a_reply),
        cmocka_unit_test(reads_packets_of_the_usual_form_as_any_other),
        cmocka_unit_test(looks_through_white_space_order_and_escapes),
        cmocka_unit_test(takes_the_last_of_duplicate_keys),
        cmocka_unit_test(knows_near_misses_as_foreign),
        cmocka_unit_test(validates_packets_that_are_no_object),
        cmocka_unit_test(refuses_broken_packets),
        cmocka_unit_test(reports_the_depth_of_the_packet),
        cmocka_unit_test(scans_data_nested_200000_deep),
        cmocka_unit_test(tells_requests_events_and_foreign_bodies_apart),
        cmocka_unit_test(judges_replies_by_the_first_rule_that_holds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
