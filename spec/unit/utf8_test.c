/* utf8_test.c - core/codec/utf8.c */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <uv.h>

#include <cmocka.h>

#include "codec/utf8.h"

static const char *const valid[] = {
    "",
    "a",
    "\x7F",
    "\xC2\x80",
    "\xDF\xBF",
    "\xE0\xA0\x80",
    "\xED\x9F\xBF",
    "\xEE\x80\x80",
    "\xEF\xBF\xBF",
    "\xF0\x90\x80\x80",
    "\xF4\x8F\xBF\xBF",
    "12345678",
    "1234567\xC3\xA9",
    "12345678\xF0\x9F\x98\x80z",
    "\xE6\x97\xA5\xE6\x9C\xAC",
};

static const char *const invalid[] = {
    "\x80",
    "\xBF",
    "\xC0\x80",
    "\xC1\xBF",
    "\xE0\x9F\xBF",
    "\xED\xA0\x80",
    "\xED\xBF\xBF",
    "\xF0\x8F\xBF\xBF",
    "\xF4\x90\x80\x80",
    "\xF5\x80\x80\x80",
    "\xFE",
    "\xFF",
    "\xC3(",
    "\xE2\x82(",
    "\xE2(\xA1",
    "\xF0\x9F\x98(",
    "\xF0(\x98\x80",
    "12345678\xFF",
    "1234567\xC3z",
};

static void accepts_valid_text(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof(valid) / sizeof(valid[0]); i++)
        assert_int_equal(pge_utf8_check(valid[i], strlen(valid[i])), 0);
}

static void refuses_invalid_text(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof(invalid) / sizeof(invalid[0]); i++) {
        struct pge_utf8_walk walk;
        assert_int_equal(pge_utf8_check(invalid[i], strlen(invalid[i])), UV_EILSEQ);
        assert_int_equal(pge_utf8_walk(invalid[i], strlen(invalid[i]), SIZE_MAX, &walk), UV_EILSEQ);
    }
}

static void tells_a_cut_character_from_an_invalid_one(void **state) {
    (void)state;
    const char *cut[] = {"\xC3",     "\xE2",         "\xE2\x82", "\xF0",
                         "\xF0\x9F", "\xF0\x9F\x98", "\xE0\xA0"};
    const char *never[] = {"\xE0\x80", "\xED\xA0", "\xF0\x80", "\xF4\x90", "\xC0", "\xE2\x82\x41"};
    for (size_t i = 0; i < sizeof(cut) / sizeof(cut[0]); i++) {
        assert_int_equal(pge_utf8_char(cut[i], cut[i] + strlen(cut[i])), 0);
        assert_int_equal(pge_utf8_check(cut[i], strlen(cut[i])), UV_EILSEQ);
    }
    for (size_t i = 0; i < sizeof(never) / sizeof(never[0]); i++)
        assert_int_equal(pge_utf8_char(never[i], never[i] + strlen(never[i])), -1);
}

/* Every code point, against the definition. */
static void encodes_checks_and_counts_every_code_point(void **state) {
    (void)state;
    for (unsigned code = 0; code <= 0x10FFFF; code++) {
        char text[4];
        size_t width = pge_utf8_encode(code, text);
        size_t expected = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
        if (width != expected)
            fail_msg("width %zu of U+%04X", width, code);
        int status = pge_utf8_check(text, width);
        int is_surrogate = code >= 0xD800 && code <= 0xDFFF;
        if (status != (is_surrogate ? UV_EILSEQ : 0))
            fail_msg("status %d of U+%04X", status, code);
        if (!is_surrogate && pge_utf16_units(text, width) != (code < 0x10000 ? 1 : 2))
            fail_msg("units of U+%04X", code);
    }
}

static void counts_units_of_long_text(void **state) {
    (void)state;
    static char text[7 * 4000 + 9];
    size_t n = 0;
    for (int i = 0; i < 3000; i++, n += 9)
        memcpy(text + n,
               "\xF0\x9F\x98\x80\xE6\x97\xA5"
               "ab",
               9);
    for (size_t skipped = 0; skipped < 9 * 20; skipped += 9)
        assert_int_equal(pge_utf16_units(text + skipped, n - skipped), (n - skipped) / 9 * 5);
    assert_int_equal(pge_utf16_units(text + 7, 2), 2);
    assert_int_equal(pge_utf16_units(text, 0), 0);
}

static void sees_a_wide_character_wherever_it_stands(void **state) {
    (void)state;
    char text[150]; /* more than two of the longest runs looked at in one */
    struct pge_utf8_walk walk;
    for (size_t n = 4; n < sizeof(text); n++) {
        for (size_t at = 0; at + 4 <= n; at++) {
            memset(text, 'a', n);
            memcpy(text + at, "\xF0\x9F\x98\x80", 4);
            assert_int_equal(pge_utf16_units(text, n), n - 2);
            assert_int_equal(pge_utf8_walk(text, n, SIZE_MAX, &walk), 0);
            assert_int_equal(walk.units, n - 2);
            assert_int_equal(pge_utf8_walk(text, n, at, &walk), 0);
            assert_int_equal(walk.bytes, at);
            text[at + 3] = 'a';
            assert_int_equal(pge_utf8_walk(text, n, SIZE_MAX, &walk), UV_EILSEQ);
        }
    }
}

static void stops_where_the_next_character_would_exceed_the_units(void **state) {
    (void)state;
    const char *text = "abcdefgh\xF0\x9F\x98\x80z";
    const size_t bytes[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 8, 12, 13, 13};
    for (size_t max = 0; max < sizeof(bytes) / sizeof(bytes[0]); max++) {
        struct pge_utf8_walk walk;
        assert_int_equal(pge_utf8_walk(text, 13, max, &walk), 0);
        assert_int_equal(walk.bytes, bytes[max]);
        assert_int_equal(walk.units, pge_utf16_units(text, walk.bytes));
    }
}

static void does_not_look_beyond_the_units(void **state) {
    (void)state;
    struct pge_utf8_walk walk;
    assert_int_equal(pge_utf8_walk("ab\xFF", 3, 2, &walk), 0);
    assert_int_equal(walk.bytes, 2);
    assert_int_equal(pge_utf8_walk("ab\xFF", 3, 3, &walk), UV_EILSEQ);
    assert_int_equal(walk.bytes, 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accepts_valid_text),
        cmocka_unit_test(refuses_invalid_text),
        cmocka_unit_test(tells_a_cut_character_from_an_invalid_one),
        cmocka_unit_test(encodes_checks_and_counts_every_code_point),
        cmocka_unit_test(counts_units_of_long_text),
        cmocka_unit_test(sees_a_wide_character_wherever_it_stands),
        cmocka_unit_test(stops_where_the_next_character_would_exceed_the_units),
        cmocka_unit_test(does_not_look_beyond_the_units),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
