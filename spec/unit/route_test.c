/* route_test.c - core/codec/route.c */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <uv.h>

#include <cmocka.h>

#include "codec/route.h"
#include "fail_alloc.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

typedef int (*route_fn)(struct pge_json_scan *s, struct pge_span in, struct pge_buf *out);

static void assert_result(route_fn fn, const char *in, int status, const char *expected) {
    struct pge_json_scan s;
    struct pge_buf out = {0};
    size_t n = strlen(in);
    char *exact = malloc(n ? n : 1);
    memcpy(exact, in, n);
    pge_json_scan_init(&s);
    assert_int_equal(PGE_BUF_LIT(&out, "kept"), 0);
    if (fn(&s, (struct pge_span){exact, n}, &out) != status)
        fail_msg("wrong status for %s", in);
    assert_int_equal(pge_buf_append(&out, "", 1), 0);
    assert_memory_equal(pge_buf_head(&out), "kept", 4);
    assert_string_equal(pge_buf_head(&out) + 4, expected);
    pge_json_scan_deinit(&s);
    pge_buf_deinit(&out);
    free(exact);
}

static void assert_route(const char *json, const char *expected) {
    assert_result(pge_route, json, 0, expected);
}

static void takes_scalars_as_their_text(void **state) { /* GEN-01 */
    (void)state;
    assert_route("\"sum\"", "sum");
    assert_route("\"a\\\"b\\\\\\u00e9\\n\"", "a\"b\\\xC3\xA9\n");
    assert_route("\"\"", "");
    assert_route("1", "1");
    assert_route("1.0", "1");
    assert_route(" 1.5 ", "1.5");
    assert_route("-0", "0");
    assert_route("1e21", "1e+21");
    assert_route("1e-7", "1e-7");
    assert_route("100e-2", "1");
    assert_route("-1e400", "-Infinity");
}

static void leaves_booleans_and_null_unchanged(void **state) { /* GEN-07 */
    (void)state;
    assert_result(pge_route, "true", PGE_ROUTE_BARE, "true");
    assert_result(pge_route, " false\n", PGE_ROUTE_BARE, "false");
    assert_result(pge_route, "null", PGE_ROUTE_BARE, "null");
    assert_route("{\"a\":true,\"b\":null,\"d\":1.0}", "{\"a\":true,\"b\":null,\"d\":1}");
}

static void sorts_keys_by_collation(void **state) { /* GEN-02 */
    (void)state;
    assert_route("{\"cmd\":\"sum\"}", "{\"cmd\":\"sum\"}");
    assert_route("{\"10\":6,\"9\":7,\"B\":1,\"a\":2,\"A\":3,\"b\":4,\"_c\":5,\"\xC3\xA9\":8}",
                 "{\"_c\":5,\"10\":6,\"9\":7,\"a\":2,\"A\":3,\"b\":4,\"B\":1,\"\xC3\xA9\":8}");
    assert_route(" { \"z\" : 1 , \"a\" : { \"q\" : \"r\" } } ", "{\"a\":{\"q\":\"r\"},\"z\":1}");
    assert_route("{\"k\\u0001\":1,\"k\":2,\"\\u0002k\":3}", "{\"k\x01\":1,\"k\":2,\"\x02k\":3}");
}

static void writes_arrays_as_objects(void **state) { /* GEN-03 */
    (void)state;
    assert_route("[1,2]", "{\"0\":1,\"1\":2}");
    assert_route("[ ]", "{}");
    assert_route("{}", "{}");
    assert_route("[0,1,2,3,4,5,6,7,8,9,10]", "{\"0\":0,\"1\":1,\"10\":10,\"2\":2,\"3\":3,\"4\":4,"
                                             "\"5\":5,\"6\":6,\"7\":7,\"8\":8,\"9\":9}");
    assert_route("{\"b\":{\"z\":1,\"a\":\"x\\\"y\\\\z\"},\"a\":[1,2]}",
                 "{\"a\":{\"0\":1,\"1\":2},\"b\":{\"a\":\"x\\\"y\\\\z\",\"z\":1}}");
}

static void escapes_only_quote_and_backslash(void **state) { /* GEN-04 */
    (void)state;
    assert_route("{\"a\":\"l\\nf\"}", "{\"a\":\"l\nf\"}");
    assert_route("{\"k\\\"\\\\\\u00e9\\t\":\"\\/\\ud83d\\ude00\\u0022\\u005c\"}",
                 "{\"k\\\"\\\\\xC3\xA9\t\":\"/\xF0\x9F\x98\x80\\\"\\\\\"}");
    assert_route("{\"a\":\"\\ud800\"}", "{\"a\":\"\xEF\xBF\xBD\"}");
}

static void replaces_the_seventh_level(void **state) { /* GEN-05 */
    (void)state;
    assert_route("{\"a\":{\"b\":{\"c\":{\"d\":{\"e\":{\"f\":1}}}}}}",
                 "{\"a\":{\"b\":{\"c\":{\"d\":{\"e\":{\"f\":1}}}}}}");
    assert_route("{\"a\":{\"b\":{\"c\":{\"d\":{\"e\":{\"f\":{\"g\":1}}}}}}}",
                 "{\"a\":{\"b\":{\"c\":{\"d\":{\"e\":{\"f\":[MAX_DEPTH_REACHED]}}}}}}");
    assert_route("[[[[[[[]]]]]]]", "{\"0\":{\"0\":{\"0\":{\"0\":{\"0\":{\"0\":[MAX_DEPTH_REACHED]"
                                   "}}}}}}");
}

/* An object of n members. */
static char *members(char *text, int n) {
    char *p = text;
    *p++ = '{';
    for (int i = 0; i < n; i++)
        p += sprintf(p, "%s\"k%02d\":1", i ? "," : "", i);
    strcpy(p, "}");
    return text;
}

static void replaces_objects_of_21_keys(void **state) { /* GEN-06 */
    (void)state;
    char text[512], nested[600];
    assert_route(members(text, 20), text);
    assert_route(members(text, 21), "[TOO_MANY_KEYS]");
    snprintf(nested, sizeof(nested), "{\"b\":[%s],\"a\":1}", text);
    assert_route(nested, "{\"a\":1,\"b\":{\"0\":[TOO_MANY_KEYS]}}");
    assert_route("[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]",
                 "{\"0\":1,\"1\":1,\"10\":1,\"11\":1,\"12\":1,\"13\":1,\"14\":1,\"15\":1,\"16\":1,"
                 "\"17\":1,\"18\":1,\"19\":1,\"2\":1,\"3\":1,\"4\":1,\"5\":1,\"6\":1,\"7\":1,"
                 "\"8\":1,\"9\":1}");
    assert_route("[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]", "[TOO_MANY_KEYS]");
}

static void takes_the_last_of_duplicate_keys(void **state) {
    (void)state;
    assert_route("{\"a\":1,\"b\":2,\"\\u0061\":3}", "{\"a\":3,\"b\":2}");
    assert_route("{\"k\\u0001\":1,\"k\":2,\"k\\u0001\":3}", "{\"k\x01\":3,\"k\":2}");
    struct pge_buf text = {0};
    assert_int_equal(PGE_BUF_LIT(&text, "{\"a\":0"), 0);
    for (int i = 0; i < 100; i++)
        assert_int_equal(PGE_BUF_LIT(&text, ",\"a\":1"), 0);
    assert_int_equal(pge_buf_append(&text, "}", 2), 0);
    assert_route(pge_buf_head(&text), "{\"a\":1}");
    pge_buf_deinit(&text);
}

static void refuses_text_that_is_not_json(void **state) {
    (void)state;
    const char *texts[] = {"", "{", "{\"a\":1", "sum", "[1]]", "\"\xFF\"", "{\"a\":{\"b\":tru}}"};
    for (size_t i = 0; i < COUNT(texts); i++)
        assert_result(pge_route, texts[i], UV_EPROTO, "");
}

static void finds_handlers_by_parsed_strings(void **state) { /* GEN-08, GEN-09, GEN-10 */
    (void)state;
    const struct {
        const char *pattern;
        int status;
        const char *key;
    } cases[] = {
        {"\"sum\"", 0, "sum"},
        {"\"\"", 0, ""},
        {"42", 0, "42"},
        {"\"42\"", 0, "42"},
        {"\"1.0\"", 0, "1"},
        {"\"1e3\"", 0, "1000"},
        {"\"\\\"quoted\\\"\"", 0, "quoted"},
        {"\" 7 \"", 0, "7"},
        {"\"true\"", PGE_ROUTE_BARE, "true"},
        {"null", PGE_ROUTE_BARE, "null"},
        {"\"True\"", 0, "True"},
        {"{\"b\":2,\"a\":1}", 0, "{\"a\":1,\"b\":2}"},
        {"\"{\\\"b\\\":2,\\\"a\\\":1}\"", 0, "{\"a\":1,\"b\":2}"},
        {"\"{\\\"b\\\":2,\"", 0, "{\"b\":2,"},
        {"\"[1]\"", 0, "{\"0\":1}"},
        {"\"orders.*\"", 0, "orders.*"},
        {"\"a\\\\b\\u00e9\"", 0, "a\\b\xC3\xA9"},
        {"\"\\\"\\\\u0061\\\"\"", 0, "a"},
        {"\"\\ufeff1\"", 0, "\357\273\2771"},
    };
    for (size_t i = 0; i < COUNT(cases); i++)
        assert_result(pge_route_lookup_key, cases[i].pattern, cases[i].status, cases[i].key);
}

static void says_when_there_is_no_pattern(void **state) {
    (void)state;
    struct pge_json_scan s;
    struct pge_buf out = {0};
    pge_json_scan_init(&s);
    assert_int_equal(pge_route_lookup_key(&s, (struct pge_span){NULL, 0}, &out), PGE_ROUTE_ABSENT);
    assert_int_equal(pge_route(&s, (struct pge_span){NULL, 0}, &out), PGE_ROUTE_ABSENT);
    assert_int_equal(pge_buf_len(&out), 0);
}

static void looks_up_no_pattern_above_a_megabyte(void **state) {
    (void)state;
    struct pge_json_scan s;
    struct pge_buf out = {0};
    size_t n = PGE_ROUTE_LOOKUP_MAX;
    char *text = malloc(n + 1);
    memset(text, 'x', n + 1);
    text[0] = text[n - 1] = text[n] = '"';
    pge_json_scan_init(&s);
    assert_int_equal(pge_route_lookup_key(&s, (struct pge_span){text, n}, &out), 0);
    assert_int_equal(pge_buf_len(&out), n - 2);
    text[n - 1] = 'x';
    assert_int_equal(pge_route_lookup_key(&s, (struct pge_span){text, n + 1}, &out),
                     PGE_ROUTE_ABSENT);
    pge_buf_deinit(&out);
    free(text);
}

static void takes_plain_text_that_is_no_json_as_a_string(void **state) {
    (void)state;
    assert_result(pge_route_text, "sum", 0, "sum");
    assert_result(pge_route_text, "", 0, "");
    assert_result(pge_route_text, "{\"b\":1,\"a\":2}", 0, "{\"a\":2,\"b\":1}");
    assert_result(pge_route_text, "{b:1}", 0, "{b:1}");
    assert_result(pge_route_text, "a\xFF", UV_EILSEQ, "");
}

static void survives_text_nested_200000_deep(void **state) {
    (void)state;
    enum { DEPTH = 200000 };
    struct pge_json_scan s;
    struct pge_buf out = {0};
    char *text = malloc(2 * DEPTH);
    memset(text, '[', DEPTH);
    memset(text + DEPTH, ']', DEPTH);
    pge_json_scan_init(&s);
    assert_int_equal(pge_route(&s, (struct pge_span){text, 2 * DEPTH}, &out), 0);
    assert_int_equal(pge_buf_len(&out), 6 * 6 + 19);
    pge_json_scan_deinit(&s);
    pge_buf_deinit(&out);
    free(text);
}

/* JSON with 2,000 escapes, or nested deeper than the scan keeps memory for, as a string pattern. */
static void make_pattern(struct pge_buf *pattern, int is_deep) {
    enum { DEPTH = 40000 };
    struct pge_buf json = {0};
    assert_int_equal(PGE_BUF_LIT(&json, "{\"n\":1.5,\"b\":"), 0);
    for (int i = 0; i < DEPTH && is_deep; i++)
        assert_int_equal(PGE_BUF_LIT(&json, "["), 0);
    assert_int_equal(PGE_BUF_LIT(&json, "\""), 0);
    for (int i = 0; i < 2000; i++)
        assert_int_equal(PGE_BUF_LIT(&json, "\\u00e9"), 0);
    assert_int_equal(PGE_BUF_LIT(&json, "\""), 0);
    for (int i = 0; i < DEPTH && is_deep; i++)
        assert_int_equal(PGE_BUF_LIT(&json, "]"), 0);
    assert_int_equal(PGE_BUF_LIT(&json, "}"), 0);
    assert_int_equal(pge_json_quote(pattern, pge_buf_head(&json), pge_buf_len(&json)), 0);
    pge_buf_deinit(&json);
}

static void appends_nothing_when_memory_runs_out(void **state) {
    (void)state;
    for (int is_deep = 0; is_deep < 2; is_deep++) {
        struct fail_alloc memory;
        struct pge_json_scan s;
        struct pge_buf pattern = {0}, out = {0};
        int status = UV_ENOMEM;
        size_t grants = 0;
        make_pattern(&pattern, is_deep);
        for (; status == UV_ENOMEM; grants++) {
            fail_alloc_start(&memory, grants);
            pge_json_scan_init(&s);
            status = pge_route_lookup_key(
                &s, (struct pge_span){pge_buf_head(&pattern), pge_buf_len(&pattern)}, &out);
            assert_int_equal(pge_buf_len(&out) == 0, status != 0);
            pge_json_scan_deinit(&s);
            pge_buf_deinit(&out);
            assert_int_equal(memory.held, 0);
            fail_alloc_stop();
        }
        assert_int_equal(status, 0);
        assert_true(grants > 3);
        pge_buf_deinit(&pattern);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(takes_scalars_as_their_text),
        cmocka_unit_test(leaves_booleans_and_null_unchanged),
        cmocka_unit_test(sorts_keys_by_collation),
        cmocka_unit_test(writes_arrays_as_objects),
        cmocka_unit_test(escapes_only_quote_and_backslash),
        cmocka_unit_test(replaces_the_seventh_level),
        cmocka_unit_test(replaces_objects_of_21_keys),
        cmocka_unit_test(takes_the_last_of_duplicate_keys),
        cmocka_unit_test(refuses_text_that_is_not_json),
        cmocka_unit_test(finds_handlers_by_parsed_strings),
        cmocka_unit_test(says_when_there_is_no_pattern),
        cmocka_unit_test(looks_up_no_pattern_above_a_megabyte),
        cmocka_unit_test(takes_plain_text_that_is_no_json_as_a_string),
        cmocka_unit_test(survives_text_nested_200000_deep),
        cmocka_unit_test(appends_nothing_when_memory_runs_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
