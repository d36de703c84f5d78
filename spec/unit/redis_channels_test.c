/* redis_channels_test.c - core/transport/redis_channels.c */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "fail_alloc.h"
#include "transport/redis_channels.h"

static struct pge_span span_of(const char *text) {
    return (struct pge_span){text, strlen(text)};
}

static void finds_what_it_made_among_thousands(void **state) {
    struct pge_redis_channels channels;
    struct fail_alloc alloc;
    char name[32];
    (void)state;
    fail_alloc_start(&alloc, (size_t)-1);
    pge_redis_channels_init(&channels, 42);
    assert_null(pge_redis_channels_find(&channels, span_of("n0")));
    for (int i = 0; i < 5000; i++) {
        snprintf(name, sizeof name, "n%d", i);
        struct pge_redis_channel *channel = pge_redis_channels_get(&channels, span_of(name));
        assert_non_null(channel);
        assert_ptr_equal(channel, pge_redis_channels_get(&channels, span_of(name)));
    }
    assert_int_equal(channels.count, 5000);
    for (int i = 0; i < 5000; i++) {
        snprintf(name, sizeof name, "n%d", i);
        struct pge_redis_channel *channel = pge_redis_channels_find(&channels, span_of(name));
        assert_non_null(channel);
        assert_int_equal(channel->n, strlen(name));
        if (i % 2)
            pge_redis_channel_free(&channels, channel);
    }
    assert_int_equal(channels.count, 2500);
    assert_null(pge_redis_channels_find(&channels, span_of("n1")));
    assert_non_null(pge_redis_channels_find(&channels, span_of("n2")));
    assert_non_null(pge_redis_channels_get(&channels, span_of("")));
    pge_redis_channels_deinit(&channels);
    assert_int_equal(alloc.held, 0);
    fail_alloc_stop();
}

static void is_idle_only_when_open_and_needed_by_nobody(void **state) {
    struct pge_redis_channels channels;
    (void)state;
    pge_redis_channels_init(&channels, 1);
    struct pge_redis_channel *channel = pge_redis_channels_get(&channels, span_of("a"));
    pge_redis_channel_enter(channel);
    pge_redis_channel_leave(&channels, channel);
    assert_true(pge_list_is_empty(&channels.idle)); /* its SUBSCRIBE is on the way */
    pge_redis_channel_opened(&channels, channel);
    assert_ptr_equal(channels.idle.next, &channel->of_idle);
    pge_redis_channel_enter(channel);
    assert_true(pge_list_is_empty(&channels.idle));
    pge_redis_channel_enter(channel);
    pge_redis_channel_leave(&channels, channel);
    assert_true(pge_list_is_empty(&channels.idle));
    pge_redis_channel_leave(&channels, channel);
    assert_ptr_equal(channels.idle.next, &channel->of_idle);
    pge_redis_channels_deinit(&channels);
}

static void survives_out_of_memory(void **state) {
    struct pge_redis_channels channels;
    struct fail_alloc alloc;
    char name[32];
    (void)state;
    for (size_t grants = 0; grants < 3; grants++) {
        fail_alloc_start(&alloc, grants);
        pge_redis_channels_init(&channels, 42);
        int made = 0;
        for (int i = 0; i < 40; i++) {
            snprintf(name, sizeof name, "n%d", i);
            made += pge_redis_channels_get(&channels, span_of(name)) != NULL;
        }
        assert_int_equal(made, grants < 2 ? 0 : 1);
        pge_redis_channels_deinit(&channels);
        assert_int_equal(alloc.held, 0);
        fail_alloc_stop();
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_what_it_made_among_thousands),
        cmocka_unit_test(is_idle_only_when_open_and_needed_by_nobody),
        cmocka_unit_test(survives_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
