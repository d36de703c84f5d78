/* json_test.c - core/codec/json.c and json_text.c */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <uv.h>

#include <cmocka.h>

#include "codec/json.h"
#include "fail_alloc.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* After the names of JSONTestSuite: y_ and n_ cases, and the i_ cases as decided. */
/* clang-format off */
static const char *const accepted[] = {
    "0", "-0", "-1", "123", "0.5", "-0.0e5", "1e5", "1E+5", "1e-5", "0e1", "123.456e78", "20e1",
    "1E22", "123e65", "-123123123123123123123123123123", "1.5e9999", "100000000000000000000",
    "true", "false", "null", "\"\"", "\"a\"", "\"asd \"", "\" \"", "  1", "1  ", "\t\r\n 1\n", "[]",
    "[ ]", "[[]]", "[[]   ]", "[1]", "[ 1]", "[1 ]", "[1\n,\n2]", "[1,null,\"x\",{}]",
    "[1,null,null,null,2]", "[\"\"]", "[true]", "[-0]", "[0e+1]", "[0.1]", "{}", "{ }", "{\"a\":1}",
    "{\"a\":1,\"a\":2}", "{\"\":0}", "{\"a\" : [ ] , \"b\":{}}", "{\"a\":[{\"b\":[]}]}",
    "{\"\\u0000\":1}", "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"\\u0012\"", "\"\\uFFFF\"",
    "\"\\uabCD\"", "\"\\u0000\"", "\"\\uD800\"", "\"\\uDC00\\uD800\"", "\"\\uD83D\\uDE00\"",
    "\"\\ud800abc\"", "\"\\\\u0000\"", "\"\x7F\"", "\"\xC2\x80\"", "\"\xE2\x82\xAC\"",
    "\"\xF0\x9D\x84\x9E\"", "\"\xF4\x8F\xBF\xBF\"", "\"\xEF\xBF\xBE\"", "\"\xE2\x80\xA8\"",
    "\"1234567\"", "\"12345678\"", "\"123456789abcdef\"",
};

static const char *const refused[] = {
    "", " ", "\n", "-", "+1", "++1", "01", "-01", "00", "1.", ".5", "-.5", "1.e5", "1e", "1e+",
    "1e-", "1eE2", "0e", "1.5.5", "0x1", "1_000", "1a", "1 2", "--1", "-x", "- 1", "1+2", "0.3e",
    "NaN", "Infinity", "-Infinity", "nan", "tru", "True", "TRUE", "truex", "fals", "nul", "nulL",
    "undefined", "'a'", "\"", "\"a", "a\"", "\"\\\"", "\"\\", "\"\\x41\"", "\"\\'\"", "\"\\a\"",
    "\"\\u\"", "\"\\u1\"", "\"\\u12\"", "\"\\u123\"", "\"\\u12G4\"", "\"\\u-123\"",
    "\"\\uD800\\u\"", "\"\\uD800\\u1\"", "\"\\U0041\"", "\"\\\n\"", "\"\n\"", "\"\t\"", "\"\x1F\"",
    "\"a\001b\"", "\"a\"b", "\"\"\"", "\"\\ud83d\xFF\"", "[", "]", "[1", "[1,", "[,1]", "[1,]",
    "[1,,2]", "[1 2]", "[1:2]", "[1}", "[[1]", "[1]]", "[\"a", "[\"a\"", "[,", "[,]", "[1]x",
    "[1],", "[][]", "[a]", "[-]", "[1,\n", "[\v1]", "[\f]", "{", "}", "{]", "{,}", "{a:1}",
    "{'a':1}", "{1:1}", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{\"a\" 1}", "{\"a\":1 \"b\":2}",
    "{\"a\":1,,\"b\":2}", "{\"a\":1]", "{\"a\":1}}", "{\"a\":1}#", "{\"a\"::1}", "{:1}",
    "{\"a\":1,", "{\"a\":", "{\"a", "{\"a\":1", "{null:1}", "{[1]:1}", "{\"a\":1/**/}", "//x\n1",
    "1//", "\357\273\2771", "\302\2401", "\xE2\x81\xA0", "\"\x80\"", "\"\xC0\x80\"", "\"\xC1\xBF\"",
    "\"\xE0\x80\x80\"", "\"\xED\xA0\x80\"", "\"\xF4\x90\x80\x80\"", "\"\xF8\x88\x80\x80\x80\"",
    "\"\xFF\"", "\"\xC3\"", "\"\xE2\x82\"", "\"\xF0\x9F\x98\"", "\"\xC3\xA9\xA9\"", "{\"\xFF\":1}",
    "\xFF", "[\"1234567\x1F\"]", "\x1F",
};
/* clang-format on */

static int check(const char *text) {
    struct pge_json_scan s;
    size_t n = strlen(text);
    char *exact = malloc(n ? n : 1); /* so that a read beyond the end is seen */
    memcpy(exact, text, n);
    pge_json_scan_init(&s);
    int status = pge_json_check(&s, exact, n);
    if (status == UV_EPROTO) {
        assert_non_null(s.error);
        assert_true(s.error_at >= exact && s.error_at <= exact + n);
    }
    pge_json_scan_deinit(&s);
    free(exact);
    return status;
}

static void accepts_what_rfc_8259_allows(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(accepted); i++) {
        if (check(accepted[i]) != 0)
            fail_msg("refused %s", accepted[i]);
    }
}

static void refuses_everything_else(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(refused); i++) {
        if (check(refused[i]) != UV_EPROTO)
            fail_msg("accepted %s", refused[i]);
    }
}

static void refuses_every_proper_prefix(void **state) {
    (void)state;
    const char *text =
        "{\"k\\u00e9y\":[true,false,null,\"\xF0\x9F\x98\x80 \\\\ \",-1.5e+3,{}],\"z\":[[]]}";
    char prefix[128];
    for (size_t n = 0; n < strlen(text); n++) {
        memcpy(prefix, text, n);
        prefix[n] = '\0';
        assert_int_equal(check(prefix), UV_EPROTO);
    }
    assert_int_equal(check(text), 0);
}

static void refuses_a_zero_byte(void **state) {
    (void)state;
    struct pge_json_scan s;
    pge_json_scan_init(&s);
    assert_int_equal(pge_json_check(&s, "1\0", 2), UV_EPROTO);
    assert_int_equal(pge_json_check(&s, "\"\0\"", 3), UV_EPROTO);
    assert_int_equal(pge_json_check(&s, "[\0]", 3), UV_EPROTO);
}

/* Each kind of special byte at each distance from the start of a word of eight bytes or sixteen. */
static void finds_special_bytes_wherever_they_stand(void **state) {
    (void)state;
    const struct {
        const char *bytes;
        int status;
    } cases[] = {{"\\n", 0},
                 {"\\x", UV_EPROTO},
                 {"\"", UV_EPROTO},
                 {"\x1F", UV_EPROTO},
                 {"\xC3\xA9", 0},
                 {"\xC3", UV_EPROTO},
                 {"\xFF", UV_EPROTO},
                 {" ", 0},
                 {"!", 0},
                 {"#", 0},
                 {"[", 0},
                 {"]", 0},
                 {"\x7F", 0},
                 {"\x01", UV_EPROTO}};
    for (size_t i = 0; i < COUNT(cases); i++) {
        for (size_t at = 0; at < 40; at++) {
            char text[80] = "\"";
            memset(text + 1, 'x', at);
            strcpy(text + 1 + at, cases[i].bytes);
            strcat(text, "yyyyyyyyyyyyyyyyyyyy\"");
            if (check(text) != cases[i].status)
                fail_msg("wrong about %s", text);
        }
    }
}

static void says_where_and_why_it_failed(void **state) {
    (void)state;
    const struct {
        const char *text;
        size_t at;
        const char *error;
    } cases[] = {
        {"[1,x]", 3, "unexpected character"},
        {"[1", 2, "unexpected end"},
        {"{\"a\" 1}", 5, "expected a colon"},
        {"{1:2}", 1, "expected a key"},
        {"[1}", 2, "expected a comma or a closing bracket"},
        {"1 1", 2, "unexpected text after the value"},
        {"\"a\n\"", 2, "control character in a string"},
        {"\"\\q\"", 2, "bad escape"},
        {"\"ab\xFF\"", 3, "invalid UTF-8"},
        {"-a", 1, "bad number"},
        {"nulx", 3, "unexpected character"},
    };
    struct pge_json_scan s;
    pge_json_scan_init(&s);
    for (size_t i = 0; i < COUNT(cases); i++) {
        assert_int_equal(pge_json_check(&s, cases[i].text, strlen(cases[i].text)), UV_EPROTO);
        assert_int_equal(s.error_at - cases[i].text, cases[i].at);
        assert_string_equal(s.error, cases[i].error);
    }
}

static void skips_one_value_and_says_where_it_ends(void **state) {
    (void)state;
    const struct {
        const char *text;
        size_t end;
    } cases[] = {{" {\"a\":[1]} x", 10}, {"12,", 2}, {"1x", 1}, {"\"a\"\"b\"", 3},
                 {"null]", 4},           {"[]]", 2}, {"01", 1}};
    struct pge_json_scan s;
    pge_json_scan_init(&s);
    for (size_t i = 0; i < COUNT(cases); i++) {
        const char *p = cases[i].text, *next = NULL;
        assert_int_equal(pge_json_skip(&s, p, p + strlen(p), &next), 0);
        assert_int_equal(next - p, cases[i].end);
    }
}

/* Nested `depth` deep, objects and arrays in turn. The caller frees. */
static char *nested(size_t depth, size_t *n) {
    char *text = malloc(depth * 6 + 1), *p = text;
    for (size_t i = 0; i < depth; i++)
        p += i % 3 ? (*p = '[', 1) : (memcpy(p, "{\"a\":", 5), 5);
    *p++ = '0';
    for (size_t i = depth; i-- > 0;)
        *p++ = i % 3 ? ']' : '}';
    *n = (size_t)(p - text);
    return text;
}

static void needs_no_memory_for_512_levels(void **state) {
    (void)state;
    struct fail_alloc memory;
    struct pge_json_scan s;
    size_t n;
    char *text = nested(512, &n);
    pge_json_scan_init(&s);
    fail_alloc_start(&memory, 0);
    assert_int_equal(pge_json_check(&s, text, n), 0);
    assert_int_equal(memory.asked, 0);
    assert_int_equal(s.depth, 512);
    free(text);
    text = nested(513, &n);
    assert_int_equal(pge_json_check(&s, text, n), UV_ENOMEM);
    memory.grants = 1;
    assert_int_equal(pge_json_check(&s, text, n), 0);
    assert_int_equal(s.depth, 513);
    pge_json_scan_deinit(&s);
    assert_int_equal(memory.held, 0);
    fail_alloc_stop();
    free(text);
}

static void checks_text_nested_200000_deep(void **state) {
    (void)state;
    struct fail_alloc memory;
    struct pge_json_scan s;
    size_t n;
    char *text = nested(200000, &n);
    pge_json_scan_init(&s);
    for (size_t grants = 0; grants < 9; grants++) { /* 512 doubled nine times */
        fail_alloc_start(&memory, grants);
        assert_int_equal(pge_json_check(&s, text, n), UV_ENOMEM);
        pge_json_scan_deinit(&s);
        assert_int_equal(memory.held, 0);
    }
    fail_alloc_start(&memory, 9);
    assert_int_equal(pge_json_check(&s, text, n), 0);
    assert_int_equal(s.depth, 200000);
    assert_int_equal(memory.held, 0); /* given back at once */
    text[n - 1] = ']';
    memory.grants = 9;
    assert_int_equal(pge_json_check(&s, text, n), UV_EPROTO);
    assert_ptr_equal(s.error_at, text + n - 1);
    memset(text, '[', n); /* never closed */
    memory.grants = (size_t)-1;
    assert_int_equal(pge_json_check(&s, text, n), UV_EPROTO);
    assert_string_equal(s.error, "unexpected end");
    pge_json_scan_deinit(&s);
    assert_int_equal(memory.held, 0);
    fail_alloc_stop();
    free(text);
}

static struct pge_span span(const char *text) {
    return (struct pge_span){text, strlen(text)};
}

static void knows_kinds(void **state) {
    (void)state;
    assert_int_equal(pge_json_kind((struct pge_span){NULL, 0}), PGE_JSON_NONE);
    assert_int_equal(pge_json_kind(span("{}")), PGE_JSON_OBJECT);
    assert_int_equal(pge_json_kind(span("[]")), PGE_JSON_ARRAY);
    assert_int_equal(pge_json_kind(span("\"\"")), PGE_JSON_STRING);
    assert_int_equal(pge_json_kind(span("-1")), PGE_JSON_NUMBER);
    assert_int_equal(pge_json_kind(span("0")), PGE_JSON_NUMBER);
    assert_int_equal(pge_json_kind(span("true")), PGE_JSON_TRUE);
    assert_int_equal(pge_json_kind(span("false")), PGE_JSON_FALSE);
    assert_int_equal(pge_json_kind(span("null")), PGE_JSON_NULL);
}

static void judges_truth_as_javascript_does(void **state) {
    (void)state;
    const char *falsy[] = {"false", "null",    "0",    "-0",     "0.0",
                           "0e9",   "-0.0e-5", "\"\"", "1e-400", "0.000e99999999999"};
    const char *truthy[] = {"true",  "1",         "-1",    "0.1", "1e-300", "1e999",
                            "\"0\"", "\"false\"", "\" \"", "{}",  "[]",     "5e-324"};
    assert_false(pge_json_is_truthy((struct pge_span){NULL, 0}));
    for (size_t i = 0; i < COUNT(falsy); i++)
        assert_false(pge_json_is_truthy(span(falsy[i])));
    for (size_t i = 0; i < COUNT(truthy); i++)
        assert_true(pge_json_is_truthy(span(truthy[i])));
}

static void decodes_strings(void **state) {
    (void)state;
    const struct {
        const char *json, *text;
    } cases[] = {
        {"\"\"", ""},
        {"\"plain\"", "plain"},
        {"\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"\\/\b\f\n\r\t"},
        {"\"\\u0041\\u00e9\\u20AC\"", "A\xC3\xA9\xE2\x82\xAC"},
        {"\"\\ud83d\\ude00\"", "\xF0\x9F\x98\x80"},
        {"\"\\uDBFF\\uDFFF\"", "\xF4\x8F\xBF\xBF"},
        {"\"\\ud83d\"", "\xEF\xBF\xBD"},
        {"\"\\ude00\\ud83d\"", "\xEF\xBF\xBD\xEF\xBF\xBD"},
        {"\"\\ud83d\\ud83d\\ude00\"", "\xEF\xBF\xBD\xF0\x9F\x98\x80"},
        {"\"\\ude00\\ude00\"", "\xEF\xBF\xBD\xEF\xBF\xBD"},
        {"\"\\ud83dx\"", "\xEF\xBF\xBDx"},
        {"\"\\ud83d\\u0041\"", "\357\277\275A"},
        {"\"\\ud83d\\n\"", "\xEF\xBF\xBD\n"},
        {"\"\\ud83d\xE6\x97\xA5\\\\u0041\"", "\xEF\xBF\xBD\xE6\x97\xA5\\u0041"},
    };
    struct pge_buf out = {0};
    for (size_t i = 0; i < COUNT(cases); i++) {
        pge_buf_clear(&out);
        assert_int_equal(pge_json_unescape(span(cases[i].json), &out), 0);
        assert_int_equal(pge_buf_append(&out, "", 1), 0);
        assert_string_equal(pge_buf_head(&out), cases[i].text);
    }
    pge_buf_clear(&out);
    assert_int_equal(pge_json_unescape(span("\"a\\u0000b\""), &out), 0);
    assert_int_equal(pge_buf_len(&out), 3);
    assert_memory_equal(pge_buf_head(&out), "a\0b", 3);
    pge_buf_deinit(&out);
}

static void quotes_as_json_stringify_does(void **state) {
    (void)state;
    const struct {
        const char *text, *json;
    } cases[] = {
        {"", "\"\""},
        {"plain", "\"plain\""},
        {"a\"b\\c/d", "\"a\\\"b\\\\c/d\""},
        {"\b\t\n\v\f\r", "\"\\b\\t\\n\\u000b\\f\\r\""},
        {"\x01\x1F\x7F", "\"\\u0001\\u001f\x7F\""},
        {"\xC3\xA9\xE2\x80\xA8\xF0\x9F\x98\x80", "\"\xC3\xA9\xE2\x80\xA8\xF0\x9F\x98\x80\""},
        {"12345678\"", "\"12345678\\\"\""},
    };
    struct pge_buf out = {0};
    for (size_t i = 0; i < COUNT(cases); i++) {
        pge_buf_clear(&out);
        assert_int_equal(pge_json_quote(&out, cases[i].text, strlen(cases[i].text)), 0);
        assert_int_equal(pge_buf_append(&out, "", 1), 0);
        assert_string_equal(pge_buf_head(&out), cases[i].json);
    }
    pge_buf_clear(&out);
    assert_int_equal(pge_json_quote(&out, "\0", 1), 0);
    assert_memory_equal(pge_buf_head(&out), "\"\\u0000\"", 8);
    pge_buf_deinit(&out);
}

/* Strings are copied a word at a time: each byte of each word must be looked at. */
static void quotes_a_special_byte_wherever_it_stands(void **state) {
    (void)state;
    struct pge_buf out = {0};
    char text[40], expected[48];
    for (size_t n = 0; n < sizeof(text); n++) {
        for (size_t at = 0; at <= n; at++) {
            memset(text, 'a', n);
            memset(expected, 'a', n + 3);
            expected[0] = '"';
            size_t width = n + 2;
            if (at < n) {
                text[at] = '\n';
                memcpy(expected + 1 + at, "\\n", 2);
                width++;
            }
            expected[width - 1] = '"';
            pge_buf_clear(&out);
            assert_int_equal(pge_json_quote(&out, text, n), 0);
            assert_int_equal(pge_buf_len(&out), width);
            assert_memory_equal(pge_buf_head(&out), expected, width);
            if (at == n)
                continue;
            text[at] = '\xFF';
            assert_int_equal(pge_json_quote(&out, text, n), UV_EILSEQ);
        }
    }
    pge_buf_deinit(&out);
}

static void appends_nothing_when_quoting_fails(void **state) {
    (void)state;
    struct fail_alloc memory;
    struct pge_buf out = {0};
    assert_int_equal(PGE_BUF_LIT(&out, "kept"), 0);
    assert_int_equal(pge_json_quote(&out, "ab\n\xFF", 4), UV_EILSEQ);
    assert_int_equal(pge_json_quote(&out, "ab\xC3", 3), UV_EILSEQ);
    assert_int_equal(pge_buf_len(&out), 4);
    pge_buf_deinit(&out);

    char controls[600];
    memset(controls, 1, sizeof(controls));
    fail_alloc_start(&memory, 2);
    assert_int_equal(pge_json_quote(&out, controls, sizeof(controls)), UV_ENOMEM);
    assert_int_equal(memory.asked, 3);
    assert_int_equal(pge_buf_len(&out), 0);
    memory.grants = 0;
    pge_buf_deinit(&out);
    assert_int_equal(pge_json_unescape(span("\"a\""), &out), UV_ENOMEM);
    assert_int_equal(memory.held, 0);
    fail_alloc_stop();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accepts_what_rfc_8259_allows),
        cmocka_unit_test(refuses_everything_else),
        cmocka_unit_test(refuses_every_proper_prefix),
        cmocka_unit_test(refuses_a_zero_byte),
        cmocka_unit_test(finds_special_bytes_wherever_they_stand),
        cmocka_unit_test(says_where_and_why_it_failed),
        cmocka_unit_test(skips_one_value_and_says_where_it_ends),
        cmocka_unit_test(needs_no_memory_for_512_levels),
        cmocka_unit_test(checks_text_nested_200000_deep),
        cmocka_unit_test(knows_kinds),
        cmocka_unit_test(judges_truth_as_javascript_does),
        cmocka_unit_test(decodes_strings),
        cmocka_unit_test(quotes_as_json_stringify_does),
        cmocka_unit_test(quotes_a_special_byte_wherever_it_stands),
        cmocka_unit_test(appends_nothing_when_quoting_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
