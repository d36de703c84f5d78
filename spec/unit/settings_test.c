/* settings_test.c - lists of names and texts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>
#include <uv.h>

#include "base/settings.h"

static void test_settings(void **state) {
    (void)state;
    struct pge_settings a = {0}, b = {0};
    assert_true(pge_settings_equal(&a, &b));
    assert_int_equal(pge_settings_add(&a, "user", "u"), 0);
    assert_int_equal(pge_settings_add(&a, "ping", "2.5"), 0);
    assert_int_equal(pge_settings_add(&a, "tls", "true"), 0);
    assert_string_equal(pge_settings_text(&a, "user"), "u");
    assert_null(pge_settings_text(&a, "use"));
    assert_true(pge_settings_number(&a, "ping", 1) == 2.5);
    assert_true(pge_settings_number(&a, "pong", 1) == 1);
    assert_true(pge_settings_flag(&a, "tls"));
    assert_false(pge_settings_flag(&a, "user"));
    assert_false(pge_settings_equal(&a, &b));
    pge_settings_add(&b, "tls", "true");
    pge_settings_add(&b, "user", "u");
    pge_settings_add(&b, "ping", "2.5"); /* the order does not matter */
    assert_true(pge_settings_equal(&a, &b));
    pge_settings_deinit(&b);
    pge_settings_deinit(&a);
    pge_settings_deinit(&a);
}

static void test_bound(void **state) {
    (void)state;
    struct pge_settings s = {0};
    char name[16];
    for (int i = 0; i < PGE_MAX_SETTINGS; i++) {
        snprintf(name, sizeof name, "n%d", i);
        assert_int_equal(pge_settings_add(&s, name, "v"), 0);
    }
    assert_int_equal(pge_settings_add(&s, "more", "v"), UV_E2BIG);
    pge_settings_deinit(&s);
}

static struct pge_span span(const char *text) {
    return (struct pge_span){text, strlen(text)};
}

static void test_headers(void **state) {
    (void)state;
    struct pge_header at[] = {
        {span("a"), span("1")}, {span("b"), span("")}, {span("a"), span("2")}};
    struct pge_headers headers = {at, 3};
    struct pge_header copy[3];
    struct pge_buf buf = {0};
    assert_int_equal(pge_buf_append(&buf, "x", 1), 0); /* nothing is aligned */
    assert_int_equal(pge_headers_pack(headers, &buf), 0);
    const char *end = pge_headers_unpack(pge_buf_head(&buf) + 1, copy, 3);
    assert_ptr_equal(end, pge_buf_head(&buf) + pge_buf_len(&buf));
    headers.at = copy;
    assert_memory_equal(pge_headers_find(headers, "a").p, "1", 1);
    assert_int_equal(pge_headers_find(headers, "b").n, 0);
    assert_non_null(pge_headers_find(headers, "b").p);
    assert_null(pge_headers_find(headers, "c").p);
    pge_buf_deinit(&buf);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_settings),
        cmocka_unit_test(test_bound),
        cmocka_unit_test(test_headers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
