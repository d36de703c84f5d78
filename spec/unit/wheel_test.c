/* wheel_test.c - core/base/wheel.c against a plain list of times. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/wheel.h"

enum { TIMERS = 2000 };

#define DAY_MS (86400ull * 1000)

/* A timer and what must become of it. */
struct probe {
    struct pge_timer timer;
    uint64_t due_ms;   /* the reference: when it must fire */
    uint64_t fired_ms; /* 0: has not */
    int fires;
    struct probe *stops; /* stopped when this fires */
    uint64_t again_ms;   /* started again this much later when it fires; 0: not */
};

static struct pge_wheel wheel;
static uint64_t last_fire_ms;

static void on_fire(struct pge_timer *timer) {
    struct probe *probe = container_of(timer, struct probe, timer);
    assert_false(pge_timer_is_armed(timer));
    assert_true(wheel.now_ms >= last_fire_ms); /* in order of time */
    last_fire_ms = wheel.now_ms;
    probe->fires++;
    probe->fired_ms = wheel.now_ms;
    if (probe->stops)
        pge_wheel_stop(&wheel, &probe->stops->timer);
    if (probe->again_ms) {
        probe->due_ms = wheel.now_ms + probe->again_ms;
        probe->again_ms = 0;
        pge_wheel_start(&wheel, timer, probe->due_ms);
    }
}

static void start(struct probe *probe, uint64_t due_ms) {
    pge_timer_init(&probe->timer, on_fire);
    probe->due_ms = due_ms;
    pge_wheel_start(&wheel, &probe->timer, due_ms);
}

/* xorshift: the same run each time */
static uint64_t random_bits(void) {
    static uint64_t x = 88172645463325252ull;
    x ^= x << 13;
    x ^= x >> 7;
    return x ^= x << 17;
}

static int set_up(void **state) {
    (void)state;
    last_fire_ms = 0;
    pge_wheel_init(&wheel, 1000);
    return 0;
}

/* As a loop does: never sleeps past pge_wheel_next. Everything fires at its very millisecond. */
static void run_exactly(uint64_t until_ms) {
    uint64_t next;
    while ((next = pge_wheel_next(&wheel)) <= until_ms)
        pge_wheel_advance(&wheel, next);
    pge_wheel_advance(&wheel, until_ms);
}

static void fires_nothing_early_and_nothing_late(void **state) {
    (void)state;
    static const uint64_t spans[] = {10, 100, 5000, 100000, 10000000, 40 * DAY_MS};
    for (size_t s = 0; s < sizeof spans / sizeof spans[0]; s++) {
        struct probe *probes = calloc(TIMERS, sizeof *probes);
        uint64_t from = wheel.now_ms;
        for (int i = 0; i < TIMERS; i++)
            start(&probes[i], from + 1 + random_bits() % spans[s]);
        assert_int_equal(wheel.count, TIMERS);
        run_exactly(from + spans[s]);
        for (int i = 0; i < TIMERS; i++) {
            assert_int_equal(probes[i].fires, 1);
            assert_int_equal(probes[i].fired_ms, probes[i].due_ms);
        }
        assert_int_equal(wheel.count, 0);
        free(probes);
    }
}

static void keeps_up_with_starts_stops_and_jumps_at_random(void **state) {
    (void)state;
    struct probe *probes = calloc(TIMERS, sizeof *probes);
    for (int i = 0; i < TIMERS; i++)
        pge_timer_init(&probes[i].timer, on_fire);
    for (int round = 0; round < 4000; round++) {
        for (int k = 0; k < 8; k++) {
            struct probe *probe = &probes[random_bits() % TIMERS];
            uint64_t span = 1ull << (random_bits() % 34);
            probe->fires = 0;
            if (random_bits() % 4 == 0) {
                pge_wheel_stop(&wheel, &probe->timer);
            } else {
                probe->due_ms = wheel.now_ms + 1 + random_bits() % span;
                pge_wheel_start(&wheel, &probe->timer, probe->due_ms);
            }
        }
        pge_wheel_advance(&wheel, wheel.now_ms + random_bits() % (1ull << (random_bits() % 30)));
        uint64_t armed = 0;
        for (int i = 0; i < TIMERS; i++) {
            bool is_armed = pge_timer_is_armed(&probes[i].timer);
            armed += is_armed;
            if (is_armed)
                assert_true(probes[i].due_ms > wheel.now_ms && !probes[i].fires);
            else if (probes[i].fires)
                assert_true(probes[i].fires == 1 && probes[i].fired_ms == probes[i].due_ms);
        }
        assert_int_equal(armed, wheel.count);
        assert_true((pge_wheel_next(&wheel) == UINT64_MAX) == (armed == 0));
    }
    free(probes);
}

static void fires_on_time_where_the_top_level_wraps(void **state) {
    (void)state;
    for (unsigned bit = 5; bit < 48; bit++) {
        uint64_t edge = 1ull << bit;
        struct probe soon = {0}, later = {0}, far = {0};
        pge_wheel_init(&wheel, edge - 3);
        last_fire_ms = 0;
        start(&soon, edge);
        start(&later, edge + 5000);
        start(&far, edge + 13 * DAY_MS);
        run_exactly(edge + 13 * DAY_MS);
        assert_int_equal(soon.fired_ms, soon.due_ms);
        assert_int_equal(later.fired_ms, later.due_ms);
        assert_int_equal(far.fired_ms, far.due_ms);
    }
}

static void holds_timers_of_months_and_years(void **state) {
    (void)state;
    struct probe probes[4] = {{.fires = 0}};
    static const uint64_t days[] = {12, 13, 100, 4000};
    for (int i = 0; i < 4; i++)
        start(&probes[i], wheel.now_ms + days[i] * DAY_MS);
    run_exactly(wheel.now_ms + 4001 * DAY_MS);
    for (int i = 0; i < 4; i++)
        assert_int_equal(probes[i].fired_ms, probes[i].due_ms);
}

static void fires_a_past_timer_at_the_next_advance_though_no_time_has_passed(void **state) {
    (void)state;
    struct probe probe = {0}, stopped = {0};
    uint64_t now = wheel.now_ms;
    start(&probe, 5);
    start(&stopped, now);
    pge_wheel_stop(&wheel, &stopped.timer);
    assert_int_equal(pge_wheel_next(&wheel), now);
    pge_wheel_advance(&wheel, now);
    assert_int_equal(probe.fires, 1);
    assert_int_equal(stopped.fires, 0);
    assert_int_equal(wheel.now_ms, now);
    assert_int_equal(wheel.count, 0);
}

static void fires_what_is_started_again_for_a_past_time_once_an_advance(void **state) {
    (void)state;
    struct probe probe = {.again_ms = UINT64_MAX}; /* a millisecond ago */
    start(&probe, 5);
    pge_wheel_advance(&wheel, wheel.now_ms);
    assert_int_equal(probe.fires, 1);
    pge_wheel_advance(&wheel, wheel.now_ms);
    assert_int_equal(probe.fires, 2);
}

static void lets_callbacks_stop_and_start_timers(void **state) {
    (void)state;
    struct probe a = {0}, b = {0}, c = {0}, d = {0};
    uint64_t due = wheel.now_ms + 500;
    start(&a, due);
    start(&b, due); /* same millisecond: one of the two stops the other */
    start(&c, due + 1000);
    start(&d, due + 7);
    a.stops = &b;
    b.stops = &a;
    d.stops = &c;
    d.again_ms = 100000;
    run_exactly(due + 200000);
    assert_int_equal(a.fires + b.fires, 1);
    assert_int_equal(c.fires, 0);
    assert_int_equal(d.fires, 2);
    assert_int_equal(d.fired_ms, due + 7 + 100000);
    assert_int_equal(wheel.count, 0);
}

static void moves_a_timer_that_is_started_again(void **state) {
    (void)state;
    struct probe probe = {0};
    start(&probe, wheel.now_ms + 10);
    probe.due_ms = wheel.now_ms + 90000;
    pge_wheel_start(&wheel, &probe.timer, probe.due_ms);
    assert_int_equal(wheel.count, 1);
    run_exactly(wheel.now_ms + 200000);
    assert_int_equal(probe.fires, 1);
    assert_int_equal(probe.fired_ms, probe.due_ms);
}

static void stops_what_is_not_armed_without_harm(void **state) {
    (void)state;
    struct probe probe = {0};
    start(&probe, wheel.now_ms + 10);
    pge_wheel_stop(&wheel, &probe.timer);
    pge_wheel_stop(&wheel, &probe.timer);
    assert_int_equal(wheel.count, 0);
    assert_true(pge_wheel_next(&wheel) == UINT64_MAX);
    run_exactly(wheel.now_ms + 100);
    assert_int_equal(probe.fires, 0);
}

static void never_names_a_time_later_than_the_first_timer(void **state) {
    (void)state;
    for (int i = 0; i < 20000; i++) {
        struct probe probe = {0};
        pge_wheel_init(&wheel, random_bits() >> (random_bits() % 60 + 4));
        uint64_t due = wheel.now_ms + 1 + (random_bits() >> (random_bits() % 60 + 4));
        start(&probe, due);
        uint64_t next = pge_wheel_next(&wheel);
        assert_true(next > wheel.now_ms && next <= due);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(fires_nothing_early_and_nothing_late, set_up),
        cmocka_unit_test_setup(keeps_up_with_starts_stops_and_jumps_at_random, set_up),
        cmocka_unit_test_setup(fires_on_time_where_the_top_level_wraps, set_up),
        cmocka_unit_test_setup(holds_timers_of_months_and_years, set_up),
        cmocka_unit_test_setup(fires_a_past_timer_at_the_next_advance_though_no_time_has_passed,
                               set_up),
        cmocka_unit_test_setup(fires_what_is_started_again_for_a_past_time_once_an_advance, set_up),
        cmocka_unit_test_setup(lets_callbacks_stop_and_start_timers, set_up),
        cmocka_unit_test_setup(moves_a_timer_that_is_started_again, set_up),
        cmocka_unit_test_setup(stops_what_is_not_armed_without_harm, set_up),
        cmocka_unit_test_setup(never_names_a_time_later_than_the_first_timer, set_up),
    };
    return cmocka_run_group_tests_name("wheel", tests, NULL, NULL);
}
