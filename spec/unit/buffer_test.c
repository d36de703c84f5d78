/* buffer_test.c - core/base/buffer.c and core/base/alloc.c */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include <cmocka.h>

#include "base/buffer.h"
#include "fail_alloc.h"

static void gives_back_what_was_appended(void **state) {
    (void)state;
    struct pge_buf b = {0};
    char expected[4096];
    size_t in = 0, out = 0;
    for (unsigned round = 0; round < 2000; round++) {
        size_t n = round * 7919u % 97;
        for (size_t i = 0; i < n; i++) {
            expected[(in + i) % sizeof expected] = (char)(in + i);
            char c = (char)(in + i);
            assert_int_equal(pge_buf_append(&b, &c, 1), 0);
        }
        in += n;
        size_t take = round * 104729u % (pge_buf_len(&b) + 1);
        for (size_t i = 0; i < take; i++)
            assert_int_equal(pge_buf_head(&b)[i], expected[(out + i) % sizeof expected]);
        pge_buf_consume(&b, take);
        out += take;
        assert_int_equal(pge_buf_len(&b), in - out);
        if (in - out > sizeof expected - 97) {
            pge_buf_consume(&b, in - out);
            out = in;
        }
    }
    assert_true(b.cap <= 16384); /* the consumed front is used again */
    pge_buf_deinit(&b);
}

static void starts_over_when_all_is_consumed(void **state) {
    (void)state;
    struct pge_buf b;
    pge_buf_init(&b);
    assert_int_equal(PGE_BUF_LIT(&b, "abc"), 0);
    pge_buf_consume(&b, 3);
    assert_int_equal(b.start, 0);
    assert_int_equal(b.end, 0);
    pge_buf_deinit(&b);
}

static void gives_pages_back_and_can_be_used_again(void **state) {
    (void)state;
    static const size_t sizes[] = {0, 1, 4096, 70000, 1024 * 1024};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct pge_buf b = {0}, after = {0};
        assert_int_equal(pge_buf_reserve(&b, sizes[i]), 0);
        if (b.cap)
            memset(b.data, 'x', b.cap);
        assert_int_equal(PGE_BUF_LIT(&after, "stays"), 0); /* next to it, often */
        pge_buf_give_back(&b);
        assert_null(b.data);
        assert_int_equal(b.cap, 0);
        assert_memory_equal(pge_buf_head(&after), "stays", 5);
        assert_int_equal(PGE_BUF_LIT(&b, "new"), 0);
        assert_memory_equal(pge_buf_head(&b), "new", 3);
        pge_buf_deinit(&b);
        pge_buf_deinit(&after);
    }
}

static void takes_an_empty_append(void **state) {
    (void)state;
    struct pge_buf b = {0};
    assert_int_equal(pge_buf_append(&b, NULL, 0), 0);
    assert_null(b.data);
    pge_buf_deinit(&b);
    pge_buf_deinit(&b);
}

static void refuses_sizes_that_overflow(void **state) {
    (void)state;
    struct pge_buf b = {0};
    assert_int_equal(PGE_BUF_LIT(&b, "kept"), 0);
    assert_int_equal(pge_buf_reserve(&b, SIZE_MAX - 2), UV_ENOMEM);
    assert_int_equal(pge_buf_reserve(&b, SIZE_MAX / 2), UV_ENOMEM);
    assert_int_equal(pge_buf_len(&b), 4);
    assert_memory_equal(pge_buf_head(&b), "kept", 4);
    pge_buf_deinit(&b);
}

static void keeps_its_bytes_when_memory_runs_out(void **state) {
    (void)state;
    struct fail_alloc a;
    struct pge_buf b = {0};
    char block[2048] = {0};
    fail_alloc_start(&a, 1);
    assert_int_equal(PGE_BUF_LIT(&b, "kept"), 0);
    assert_int_equal(pge_buf_append(&b, block, sizeof block), UV_ENOMEM);
    assert_int_equal(pge_buf_len(&b), 4);
    assert_memory_equal(pge_buf_head(&b), "kept", 4);
    pge_buf_deinit(&b);
    assert_int_equal(a.held, 0);
    fail_alloc_stop();
}

static void trims_only_what_is_empty_and_large(void **state) {
    (void)state;
    struct pge_buf b = {0};
    assert_int_equal(pge_buf_reserve(&b, 100000), 0);
    assert_int_equal(PGE_BUF_LIT(&b, "x"), 0);
    pge_buf_trim(&b, 4096);
    assert_true(b.cap >= 100000);
    pge_buf_consume(&b, 1);
    pge_buf_trim(&b, b.cap);
    assert_non_null(b.data);
    pge_buf_trim(&b, 4096);
    assert_null(b.data);
    assert_int_equal(b.cap, 0);
}

static void keeps_bytes_that_stand_in_their_place(void **state) {
    (void)state;
    struct pge_buf b = {0};
    assert_int_equal(pge_buf_keep(&b, "ab", 2), 0);
    memcpy(b.data + b.end, "cd", 2);
    size_t cap = b.cap;
    assert_int_equal(pge_buf_keep(&b, b.data + b.end, 2), 0);
    assert_int_equal(pge_buf_keep(&b, "ef", 2), 0);
    assert_int_equal(b.cap, cap);
    assert_int_equal(pge_buf_len(&b), 6);
    assert_memory_equal(pge_buf_head(&b), "abcdef", 6);
    pge_buf_deinit(&b);
}

static void knows_what_it_mostly_holds(void **state) {
    (void)state;
    struct pge_buf b = {0};
    char other[600];
    assert_false(pge_buf_is_mostly(NULL, (struct pge_span){other, 600}));
    assert_false(pge_buf_is_mostly(&b, (struct pge_span){other, 0}));
    assert_int_equal(pge_buf_reserve(&b, 512), 0);
    b.end = 300;
    assert_true(pge_buf_is_mostly(&b, (struct pge_span){b.data + 44, b.cap / 2}));
    assert_false(pge_buf_is_mostly(&b, (struct pge_span){b.data + 44, b.cap / 2 - 1}));
    assert_false(pge_buf_is_mostly(&b, (struct pge_span){b.data + 45, b.cap / 2}));
    assert_false(pge_buf_is_mostly(&b, (struct pge_span){other, 300}));
    pge_buf_cut(&b, (struct pge_span){b.data + 44, 100});
    assert_int_equal(b.start, 44);
    assert_int_equal(b.end, 144);
    pge_buf_deinit(&b);
}

static void allocates_within_its_contract(void **state) {
    (void)state;
    struct fail_alloc a;
    fail_alloc_start(&a, (size_t)-1);
    assert_null(pge_calloc(SIZE_MAX / 2, 3));
    assert_int_equal(a.asked, 0);
    char *text = pge_strndup("abcdef", 3);
    assert_string_equal(text, "abc");
    char *zeroed = pge_calloc(3, 5);
    for (int i = 0; i < 15; i++)
        assert_int_equal(zeroed[i], 0);
    void *nothing = pge_malloc(0);
    assert_non_null(nothing);
    pge_free(nothing);
    pge_free(zeroed);
    pge_free(text);
    pge_free(NULL);
    assert_int_equal(a.held, 0);
    a.grants = 0;
    assert_null(pge_strndup("x", 1));
    assert_null(pge_calloc(1, 1));
    fail_alloc_stop();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gives_back_what_was_appended),
        cmocka_unit_test(starts_over_when_all_is_consumed),
        cmocka_unit_test(gives_pages_back_and_can_be_used_again),
        cmocka_unit_test(takes_an_empty_append),
        cmocka_unit_test(refuses_sizes_that_overflow),
        cmocka_unit_test(keeps_its_bytes_when_memory_runs_out),
        cmocka_unit_test(trims_only_what_is_empty_and_large),
        cmocka_unit_test(keeps_bytes_that_stand_in_their_place),
        cmocka_unit_test(knows_what_it_mostly_holds),
        cmocka_unit_test(allocates_within_its_contract),
    };
    return cmocka_run_group_tests_name("buffer", tests, NULL, NULL);
}
