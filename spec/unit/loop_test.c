/* loop_test.c - core/base/loop.c: turns, timers and the handles that come and go with them. */
#include "net_support.h"

/* Deferred work that notes when it ran. */
struct job {
    struct pge_defer defer;
    struct pge_loop *loop;
    int runs, order;
    int again;            /* defers itself this often */
    struct job *defers;   /* deferred from inside */
    enum pge_phase phase; /* of defers, and of itself */
    struct job *cancels;
};

static int clock_order;

static void on_turn(struct pge_defer *defer) {
    struct job *job = container_of(defer, struct job, defer);
    job->runs++;
    job->order = ++clock_order;
    if (job->again-- > 0)
        pge_loop_defer(job->loop, defer, job->phase);
    if (job->defers)
        pge_loop_defer(job->loop, &job->defers->defer, job->phase);
    if (job->cancels)
        pge_defer_cancel(&job->cancels->defer);
}

static void job_init(struct job *job, struct rig *rig) {
    *job = (struct job){.loop = &rig->loop};
    pge_defer_init(&job->defer, on_turn);
}

struct alarm_clock {
    struct pge_timer timer;
    struct rig *rig;
    int fires;
    uint64_t at_ms;
};

static void on_fire(struct pge_timer *timer) {
    struct alarm_clock *a = container_of(timer, struct alarm_clock, timer);
    a->fires++;
    a->at_ms = pge_loop_now(&a->rig->loop);
    uv_stop(&a->rig->uv);
}

static void on_fire_quietly(struct pge_timer *timer) {
    container_of(timer, struct alarm_clock, timer)->fires++;
}

static void alarm_init(struct alarm_clock *a, struct rig *rig) {
    *a = (struct alarm_clock){.rig = rig};
    pge_timer_init(&a->timer, on_fire);
}

static int set_up(void **state) {
    clock_order = 0;
    *state = rig_new();
    return 0;
}

static int tear_down(void **state) {
    rig_free(*state);
    return 0;
}

static void has_no_handles_before_it_is_needed(void **state) {
    struct rig *rig = *state;
    assert_int_equal(uv_loop_alive(&rig->uv), 0);
    assert_null(rig->loop.handles);
}

static void runs_deferred_work_once_soon_before_flush(void **state) {
    struct rig *rig = *state;
    struct job soon, flush, from_soon, from_flush;
    job_init(&soon, rig);
    job_init(&flush, rig);
    job_init(&from_soon, rig);
    job_init(&from_flush, rig);
    soon.defers = &from_soon;
    soon.phase = PGE_FLUSH;
    flush.defers = &from_flush;
    flush.phase = PGE_SOON;
    pge_loop_defer(&rig->loop, &flush.defer, PGE_FLUSH);
    pge_loop_defer(&rig->loop, &soon.defer, PGE_SOON);
    pge_loop_defer(&rig->loop, &soon.defer, PGE_SOON);
    assert_int_equal(soon.runs, 0);
    rig_finish(rig); /* ends: what was deferred kept the loop, and nothing else does */
    assert_int_equal(soon.runs, 1);
    assert_int_equal(flush.runs, 1);
    assert_int_equal(soon.order, 1);
    assert_int_equal(flush.order, 2);
    assert_int_equal(from_soon.order, 3);
    assert_int_equal(from_flush.order, 4);
}

static void cancels_deferred_work(void **state) {
    struct rig *rig = *state;
    struct job first, second, third;
    job_init(&first, rig);
    job_init(&second, rig);
    job_init(&third, rig);
    first.cancels = &second; /* already taken from the loop's list */
    pge_loop_defer(&rig->loop, &first.defer, PGE_SOON);
    pge_loop_defer(&rig->loop, &second.defer, PGE_SOON);
    pge_loop_defer(&rig->loop, &third.defer, PGE_SOON);
    pge_defer_cancel(&third.defer);
    pge_defer_cancel(&third.defer);
    rig_finish(rig);
    assert_int_equal(first.runs, 1);
    assert_int_equal(second.runs, 0);
    assert_int_equal(third.runs, 0);
}

static void lets_the_loop_breathe_between_endless_turns(void **state) {
    struct rig *rig = *state;
    struct job job;
    job_init(&job, rig);
    assert_int_equal(pge_loop_hold(&rig->loop), 0); /* else the loop would just end */
    job.again = 100;
    pge_loop_defer(&rig->loop, &job.defer, PGE_SOON);
    uv_run(&rig->uv, UV_RUN_NOWAIT);
    assert_true(job.runs >= 1 && job.runs < 100);
    while (job.runs < 101)
        assert_true(uv_run(&rig->uv, UV_RUN_ONCE) || job.runs == 101); /* never sleeps before */
    pge_loop_release(&rig->loop);
}

static void note_async(uv_async_t *async) {
    (void)async;
}

/* What a host does that waits for a promise outside any coroutine. */
static void returns_from_a_single_run_after_its_callbacks(void **state) {
    struct rig *rig = *state;
    struct job job;
    struct alarm_clock a;
    uv_async_t forever; /* keeps the loop, and never comes */
    job_init(&job, rig);
    alarm_init(&a, rig);
    uv_async_init(&rig->uv, &forever, note_async);
    pge_loop_defer(&rig->loop, &job.defer, PGE_SOON);
    uv_run(&rig->uv, UV_RUN_ONCE);
    assert_int_equal(job.runs, 1);
    assert_int_equal(pge_loop_hold(&rig->loop), 0);
    assert_int_equal(pge_loop_timer(&rig->loop, &a.timer, 1), 0);
    for (uint64_t until = uv_hrtime() + 3000000; uv_hrtime() < until;)
        continue; /* due before the loop runs at all */
    a.timer.on_fire = on_fire_quietly;
    uv_run(&rig->uv, UV_RUN_ONCE);
    assert_int_equal(a.fires, 1);
    pge_loop_release(&rig->loop);
    uv_close((uv_handle_t *)&forever, NULL);
    rig_finish(rig);
}

static void runs_a_turn_by_hand(void **state) {
    struct rig *rig = *state;
    struct job job;
    job_init(&job, rig);
    pge_loop_defer(&rig->loop, &job.defer, PGE_FLUSH);
    pge_loop_turn(&rig->loop);
    assert_int_equal(job.runs, 1);
    assert_null(rig->loop.handles);
}

static void fires_a_timer_not_early(void **state) {
    struct rig *rig = *state;
    struct alarm_clock a, b;
    alarm_init(&a, rig);
    alarm_init(&b, rig);
    uint64_t from = pge_loop_now(&rig->loop);
    assert_int_equal(pge_loop_timer(&rig->loop, &a.timer, 30), 0);
    assert_int_equal(pge_loop_timer(&rig->loop, &b.timer, 10), 0);
    rig_until(rig, a.fires);
    assert_int_equal(b.fires, 1);
    assert_true(b.at_ms >= from + 10 && b.at_ms <= a.at_ms);
    assert_true(a.at_ms >= from + 30);
}

static void fires_by_a_virtual_clock(void **state) {
    struct rig *rig = *state;
    struct alarm_clock a, b;
    alarm_init(&a, rig);
    alarm_init(&b, rig);
    rig_stop_clock(rig);
    assert_int_equal(pge_loop_timer(&rig->loop, &a.timer, 20ull * 86400 * 1000), 0);
    assert_int_equal(pge_loop_timer(&rig->loop, &b.timer, UINT64_MAX), 0);
    rig_pass(rig, 20ull * 86400 * 1000 - 1);
    assert_int_equal(a.fires, 0);
    rig_pass(rig, 1);
    assert_int_equal(a.fires, 1);
    assert_int_equal(b.fires, 0);
    pge_loop_timer_stop(&rig->loop, &b.timer);
    pge_loop_timer_stop(&rig->loop, &b.timer);
}

static void is_empty_when_the_last_timer_is_stopped(void **state) {
    struct rig *rig = *state;
    struct alarm_clock a;
    alarm_init(&a, rig);
    assert_int_equal(pge_loop_timer(&rig->loop, &a.timer, 3600000), 0);
    assert_int_equal(uv_loop_alive(&rig->uv), 1);
    pge_loop_timer_stop(&rig->loop, &a.timer);
    rig_finish(rig);
    assert_int_equal(a.fires, 0);
    assert_int_equal(uv_loop_alive(&rig->uv), 0);
}

static void opens_its_handles_again_while_the_old_ones_close(void **state) {
    struct rig *rig = *state;
    for (int i = 0; i < 5; i++) {
        assert_int_equal(pge_loop_hold(&rig->loop), 0);
        pge_loop_release(&rig->loop);
    }
    assert_int_equal(rig->loop.handles_closing, 5);
    rig_finish(rig);
    assert_int_equal(rig->loop.handles_closing, 0);
}

static void says_so_when_its_handles_find_no_memory(void **state) {
    struct rig *rig = *state;
    struct job job;
    struct alarm_clock a;
    job_init(&job, rig);
    alarm_init(&a, rig);
    rig->alloc.grants = 0;
    assert_int_equal(pge_loop_hold(&rig->loop), UV_ENOMEM);
    assert_int_equal(pge_loop_defer(&rig->loop, &job.defer, PGE_SOON), UV_ENOMEM);
    assert_int_equal(pge_loop_timer(&rig->loop, &a.timer, 1), UV_ENOMEM);
    rig->alloc.grants = (size_t)-1;
    assert_int_equal(rig->loop.live, 0);
}

static void gives_each_handle_to_its_host(struct pge_loop *loop, uv_handle_t *handle) {
    handle->data = loop->adopt_arg;
}

static void note_stranger(uv_handle_t *handle, void *arg) {
    *(int *)arg += handle->data == NULL;
}

static void has_every_handle_adopted(void **state) {
    struct rig *rig = *state;
    int strangers = 0, handles = 0;
    rig->loop.adopt = gives_each_handle_to_its_host;
    rig->loop.adopt_arg = rig;
    assert_int_equal(pge_loop_hold(&rig->loop), 0);
    uv_walk(&rig->uv, rig_count_handle, &handles);
    uv_walk(&rig->uv, note_stranger, &strangers);
    assert_true(handles > 0);
    assert_int_equal(strangers, 0);
    pge_loop_release(&rig->loop);
}

static void draws_different_numbers(void **state) {
    struct rig *rig = *state;
    uint64_t ones = 0, zeros = 0;
    for (int i = 0; i < 200; i++) {
        uint64_t bits = pge_loop_random(&rig->loop);
        ones |= bits;
        zeros |= ~bits;
        assert_true(bits != pge_loop_random(&rig->loop));
    }
    assert_true(ones == UINT64_MAX && zeros == UINT64_MAX);
}

static void moves_a_virtual_clock_when_only_timers_are_left(void **state) {
    struct rig *rig = *state;
    struct alarm_clock first, second;
    alarm_init(&first, rig);
    alarm_init(&second, rig);
    pge_loop_set_virtual(&rig->loop, true);
    uint64_t from = pge_loop_now(&rig->loop), real = uv_hrtime();
    pge_loop_timer(&rig->loop, &second.timer, 86400000);
    pge_loop_timer(&rig->loop, &first.timer, 30000);
    rig_until(rig, first.fires);
    assert_int_equal(second.fires, 0);
    assert_int_equal(first.at_ms, from + 30000);
    rig_until(rig, second.fires);
    assert_int_equal(second.at_ms, from + 86400000);
    assert_true(uv_hrtime() - real < 10000000000u);
    pge_loop_set_virtual(&rig->loop, false);
    assert_true(pge_loop_now(&rig->loop) >= from + 86400000); /* never back */
    pge_loop_timer(&rig->loop, &first.timer, 1);
    rig_until(rig, first.fires == 2);
    assert_true(first.at_ms > from + 86400000);
}

static void fires_a_timer_without_delay_before_virtual_time_moves(void **state) {
    struct rig *rig = *state;
    struct alarm_clock a;
    alarm_init(&a, rig);
    pge_loop_set_virtual(&rig->loop, true);
    uint64_t from = pge_loop_now(&rig->loop);
    pge_loop_timer(&rig->loop, &a.timer, 0);
    rig_until(rig, a.fires);
    assert_int_equal(a.at_ms, from);
}

static void does_not_let_virtual_time_pass_while_it_works(void **state) {
    struct rig *rig = *state;
    struct alarm_clock a;
    struct job job;
    alarm_init(&a, rig);
    job_init(&job, rig);
    pge_loop_set_virtual(&rig->loop, true);
    uint64_t from = pge_loop_now(&rig->loop);
    pge_loop_timer(&rig->loop, &a.timer, 5);
    for (int turn = 1; turn <= 3; turn++) {
        pge_loop_defer(&rig->loop, &job.defer, PGE_SOON);
        for (uint64_t until = uv_hrtime() + 8000000; uv_hrtime() < until;)
            continue; /* longer than the timer's delay, if it were real */
        uv_run(&rig->uv, UV_RUN_ONCE);
        assert_int_equal(job.runs, turn);
        assert_int_equal(a.fires, 0);
    }
    rig_until(rig, a.fires);
    assert_int_equal(a.at_ms, from + 5);
}

/* A socket, a child, a timer of the host: they take real time, and so must ours beside them. */
static void lets_virtual_time_pass_as_real_while_others_are_waited_for(void **state) {
    struct rig *rig = *state;
    struct alarm_clock a;
    uv_async_t other;
    alarm_init(&a, rig);
    uv_async_init(&rig->uv, &other, note_async);
    pge_loop_set_virtual(&rig->loop, true);
    uint64_t from = pge_loop_now(&rig->loop), real = uv_hrtime();
    pge_loop_timer(&rig->loop, &a.timer, 30);
    rig_until(rig, a.fires);
    assert_int_equal(a.at_ms, from + 30);
    assert_true(uv_hrtime() - real >= 25000000);
    uv_close((uv_handle_t *)&other, NULL);
    rig_finish(rig);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(has_no_handles_before_it_is_needed),
        TEST(runs_deferred_work_once_soon_before_flush),
        TEST(cancels_deferred_work),
        TEST(lets_the_loop_breathe_between_endless_turns),
        TEST(returns_from_a_single_run_after_its_callbacks),
        TEST(runs_a_turn_by_hand),
        TEST(fires_a_timer_not_early),
        TEST(fires_by_a_virtual_clock),
        TEST(moves_a_virtual_clock_when_only_timers_are_left),
        TEST(fires_a_timer_without_delay_before_virtual_time_moves),
        TEST(does_not_let_virtual_time_pass_while_it_works),
        TEST(lets_virtual_time_pass_as_real_while_others_are_waited_for),
        TEST(is_empty_when_the_last_timer_is_stopped),
        TEST(opens_its_handles_again_while_the_old_ones_close),
        TEST(says_so_when_its_handles_find_no_memory),
        TEST(has_every_handle_adopted),
        TEST(draws_different_numbers),
    };
    alarm(60);
    return cmocka_run_group_tests_name("loop", tests, NULL, NULL);
}
