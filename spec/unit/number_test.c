/* number_test.c - core/codec/number.c */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include <cmocka.h>

#include "codec/number.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static void assert_text(double v, const char *expected) {
    char text[PGE_NUMBER_MAX + 1];
    text[pge_number_format(v, text)] = '\0';
    assert_string_equal(text, expected);
}

/* What Node prints. */
static const struct {
    double value;
    const char *text;
} numbers[] = {
    {0.0, "0"},
    {1.0, "1"},
    {-1.0, "-1"},
    {1.5, "1.5"},
    {0.1, "0.1"},
    {-0.25, "-0.25"},
    {100.01, "100.01"},
    {1999.99, "1999.99"},
    {123456789012345.0, "123456789012345"},
    {9007199254740991.0, "9007199254740991"},
    {9007199254740992.0, "9007199254740992"},
    {9007199254740994.0, "9007199254740994"},
    {-9007199254740994.0, "-9007199254740994"},
    {123456789012345680000.0, "123456789012345680000"},
    {1e20, "100000000000000000000"},
    {1e21, "1e+21"},
    {1.5e21, "1.5e+21"},
    {1e22, "1e+22"},
    {1e23, "1e+23"},
    {1e-5, "0.00001"},
    {1e-6, "0.000001"},
    {1.5e-6, "0.0000015"},
    {1e-7, "1e-7"},
    {-1.5e-9, "-1.5e-9"},
    {0.001, "0.001"},
    {0.30000000000000004, "0.30000000000000004"},
    {1.0 / 3, "0.3333333333333333"},
    {2.0 / 3, "0.6666666666666666"},
    {DBL_MAX, "1.7976931348623157e+308"},
    {DBL_MIN, "2.2250738585072014e-308"},
    {5e-324, "5e-324"},
    {1.5e-323, "1.5e-323"},
    {5.684341886080802e-14, "5.684341886080802e-14"},   /* 2^-44: lopsided interval */
    {7.678447687145631e-239, "7.678447687145631e-239"}, /* 2^-791: and a zero to step from */
    {999999999999999.9, "999999999999999.9"},
    {4.35, "4.35"},
    {0.000012345678901234567, "0.000012345678901234568"},
    {-1.2345678901234567e-300, "-1.2345678901234568e-300"},
};

static void writes_the_shortest_text_that_reads_back(void **state) { /* GEN-01 */
    (void)state;
    for (size_t i = 0; i < COUNT(numbers); i++)
        assert_text(numbers[i].value, numbers[i].text);
    assert_text(-0.0, "0");
}

static void reads_what_it_wrote(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(numbers); i++) {
        double value;
        assert_int_equal(pge_number_parse(numbers[i].text, strlen(numbers[i].text), &value), 0);
        assert_true(value == numbers[i].value);
    }
}

/* Any bits: reads back, and no shorter than %.17g has to be. */
static void reads_back_random_numbers(void **state) {
    (void)state;
    uint64_t bits = 88172645463325252u;
    for (int i = 0; i < 20000; i++) {
        double v, back;
        char text[PGE_NUMBER_MAX];
        bits ^= bits << 13;
        bits ^= bits >> 7;
        bits ^= bits << 17;
        memcpy(&v, &bits, sizeof(v));
        if (!isfinite(v))
            continue;
        size_t n = pge_number_format(v, text);
        assert_true(n <= 25);
        assert_int_equal(pge_number_parse(text, n, &back), 0);
        assert_true(back == v);
    }
}

static void reads_json_numbers(void **state) {
    (void)state;
    const struct {
        const char *text;
        double value;
    } cases[] = {
        {"0e0", 0},
        {"0.000", 0},
        {"1E5", 100000},
        {"1.5e+3", 1500},
        {"12e-1", 1.2},
        {"0.1e1", 1},
        {"100000000000000000000000", 1e23},
        {"9007199254740993", 9007199254740992.0},
        {"9007199254740993.00000000000000000000000000000000000000000001", 9007199254740994.0},
        {"0.1234567890123456789012345678901234567890", 0.12345678901234568},
        {"1e400", HUGE_VAL},
        {"-1e400", -HUGE_VAL},
        {"1e99999999999999999999999", HUGE_VAL},
        {"0e99999999999999999999999", 0},
        {"1e-400", 0},
        {"1e-99999999999999999999999", 0},
        {"2.4703282292062327e-324", 0},
        {"2.4703282292062328e-324", 5e-324},
        {"179769313486231570000e289", HUGE_VAL},
        {"17976931348623157e292", DBL_MAX},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        double value;
        assert_int_equal(pge_number_parse(cases[i].text, strlen(cases[i].text), &value), 0);
        if (!(value == cases[i].value))
            fail_msg("%s reads as %g", cases[i].text, value);
    }
    double zero;
    assert_int_equal(pge_number_parse("-0", 2, &zero), 0);
    assert_true(zero == 0 && signbit(zero));
}

static void reads_numbers_of_thousands_of_digits(void **state) {
    (void)state;
    double value;
    char *text = malloc(5000);
    memset(text, '0', 5000);
    text[0] = '1';
    memcpy(text + 4000, "e-4000", 6); /* 1 and 3999 zeros */
    assert_int_equal(pge_number_parse(text, 4006, &value), 0);
    assert_true(value == 0.1);
    memcpy(text, "0.", 2);
    text[3001] = '7';
    memcpy(text + 3002, "e3000", 5); /* 7 in the 3000th place */
    assert_int_equal(pge_number_parse(text, 3007, &value), 0);
    assert_true(value == 7);
    memset(text, '0', 5000);
    memcpy(text, "9007199254740993.", 17); /* a tie, but for the last of 2000 digits */
    assert_int_equal(pge_number_parse(text, 2000, &value), 0);
    assert_true(value == 9007199254740992.0);
    text[1999] = '1';
    assert_int_equal(pge_number_parse(text, 2000, &value), 0);
    assert_true(value == 9007199254740994.0);
    free(text);
}

static void refuses_what_json_does_not_allow(void **state) {
    (void)state;
    const char *texts[] = {"",   "-",  "+1",  "01",  "1.",  ".5",  "1e",   "1e+",  "0x1",
                           "1 ", " 1", "--1", "1,5", "nan", "inf", "1e5.", "1.e5", "-a"};
    for (size_t i = 0; i < COUNT(texts); i++) {
        double value;
        assert_int_equal(pge_number_parse(texts[i], strlen(texts[i]), &value), UV_EINVAL);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writes_the_shortest_text_that_reads_back),
        cmocka_unit_test(reads_what_it_wrote),
        cmocka_unit_test(reads_back_random_numbers),
        cmocka_unit_test(reads_json_numbers),
        cmocka_unit_test(reads_numbers_of_thousands_of_digits),
        cmocka_unit_test(refuses_what_json_does_not_allow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
