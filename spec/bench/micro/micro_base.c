/* micro_base.c - the timer wheel. */
#include "micro.h"

#include "base/wheel.h"

enum { OTHERS = 1000 };

static struct pge_wheel wheel;
static struct pge_timer timer, others[OTHERS];
static size_t fired;

static void on_fire(struct pge_timer *t) {
    (void)t;
    fired++;
}

static void set_up(void) {
    pge_wheel_init(&wheel, 1);
    pge_timer_init(&timer, on_fire);
}

/* As a busy process: each pending call has its timeout. */
static void set_up_busy(void) {
    set_up();
    for (unsigned i = 0; i < OTHERS; i++) {
        pge_timer_init(&others[i], on_fire);
        pge_wheel_start(&wheel, &others[i], 5000 + i);
    }
}

static size_t arm_and_cancel(void) {
    pge_wheel_start(&wheel, &timer, wheel.now_ms + 5000);
    pge_wheel_stop(&wheel, &timer);
    return wheel.count;
}

static size_t arm_and_fire(void) {
    fired = 0;
    pge_wheel_start(&wheel, &timer, wheel.now_ms + 1);
    pge_wheel_advance(&wheel, wheel.now_ms + 1);
    return fired;
}

static size_t nothing(void) {
    return 1;
}

const struct micro_op micro_base[] = {
    {"c nothing", NULL, nothing, 1, NULL},
    {"wheel arm and cancel", set_up_busy, arm_and_cancel, OTHERS, NULL},
    {"wheel arm and fire", set_up, arm_and_fire, 1, NULL},
    {0},
};
