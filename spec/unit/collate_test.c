/* collate_test.c - core/codec/collate.c */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "codec/collate.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static int compare(const char *a, const char *b) {
    return pge_collate_json((struct pge_span){a, strlen(a)}, (struct pge_span){b, strlen(b)});
}

/* Each is less than all that follow. */
static void assert_ascending(const char *const *texts, size_t n) {
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(compare(texts[i], texts[i]), 0);
        for (size_t j = i + 1; j < n; j++) {
            if (compare(texts[i], texts[j]) >= 0 || compare(texts[j], texts[i]) <= 0)
                fail_msg("%s should come before %s", texts[i], texts[j]);
        }
    }
}

static void orders_single_characters_as_icu_does(void **state) { /* GEN-02 */
    (void)state;
    const char *const texts[] = {
        "",  "\\t",  "\\n", "\\u000b", "\\f", "\\r", " ", "_", "-", ",", ";", ":",    "!", "?", ".",
        "'", "\\\"", "(",   ")",       "[",   "]",   "{", "}", "@", "*", "/", "\\\\", "&", "#", "%",
        "`", "^",    "+",   "<",       "=",   ">",   "|", "~", "$", "0", "1", "2",    "3", "4", "5",
        "6", "7",    "8",   "9",       "a",   "A",   "b", "B", "c", "C", "d", "D",    "e", "E", "f",
        "F", "g",    "G",   "h",       "H",   "i",   "I", "j", "J", "k", "K", "l",    "L", "m", "M",
        "n", "N",    "o",   "O",       "p",   "P",   "q", "Q", "r", "R", "s", "S",    "t", "T", "u",
        "U", "v",    "V",   "w",       "W",   "x",   "X", "y", "Y", "z", "Z",
    };
    assert_int_equal(COUNT(texts), 1 + 5 + 95);
    assert_ascending(texts, COUNT(texts));
}

static void compares_letters_before_case(void **state) { /* nest-wire 1.3 */
    (void)state;
    const char *const mixed[] = {"a",  "A",  "a_b", "a-b", "a1",  "aa",
                                 "ab", "aB", "Ab",  "AB",  "ab1", "B"};
    const char *const numbers[] = {"k1", "k10", "k2", "k9"};
    const char *const keys[] = {"_c", "10", "9", "a", "A", "b", "B", "\xC3\xA9"};
    assert_ascending(mixed, COUNT(mixed));
    assert_ascending(numbers, COUNT(numbers));
    assert_ascending(keys, COUNT(keys));
}

static void puts_accents_between_letter_and_case(void **state) {
    (void)state;
    const char *const texts[] = {"e",        "E",        "\xC3\xA9", "\xC3\x89", "\xC3\xA8",
                                 "\xC3\xAA", "\xC3\xAB", "ea",       "\\u00e9a", "f"};
    const char *const letters[] = {"\xC3\xB2", "\xC3\xB4", "\xC3\xB6", "\xC3\xB5",
                                   "\xC3\xB8", "\xC3\x98", "p",        "y",
                                   "\xC3\xBD", "\xC3\xBF", "z"};
    assert_ascending(texts, COUNT(texts));
    assert_ascending(letters, COUNT(letters));
}

static void puts_other_characters_after_z(void **state) {
    (void)state;
    const char *const texts[] = {
        "z", "Z", "\xC3\x9F", "\xC3\xA6", "\xE6\x97\xA5", "\xF0\x9F\x98\x80"};
    assert_ascending(texts, COUNT(texts));
}

static void ignores_most_controls(void **state) {
    (void)state;
    assert_int_equal(compare("ab", "a\\u0001b\x7F"), 0);
    assert_int_equal(compare("", "\\u0000\\u001f\\u000e\\u0008"), 0);
    assert_true(compare("a\\u0001b", "ac") < 0);
    assert_true(compare("a\\u0001B", "ab") > 0);
}

static void reads_escapes(void **state) {
    (void)state;
    assert_int_equal(compare("ab\\/", "\\u0061\\u0062/"), 0);
    assert_true(compare("\\u0041", "a") > 0);
    assert_int_equal(compare("\\ud83d\\ude00", "\xF0\x9F\x98\x80"), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(orders_single_characters_as_icu_does),
        cmocka_unit_test(compares_letters_before_case),
        cmocka_unit_test(puts_accents_between_letter_and_case),
        cmocka_unit_test(puts_other_characters_after_z),
        cmocka_unit_test(ignores_most_controls),
        cmocka_unit_test(reads_escapes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
