/*
 * wheel.h - a hierarchical timer wheel of one millisecond ticks: start and stop are O(1).
 *
 *   level 0: 64 slots of 1 ms | level 1: 64 of 64 ms | ... | level 4: 64 of 4.6 h (beyond: waits
 * there)
 *
 * It knows no clock: the caller says what time it is, so that a virtual clock can drive it.
 */
#ifndef PGE_BASE_WHEEL_H
#define PGE_BASE_WHEEL_H

#include <stdint.h>

#include "base/list.h"

enum { PGE_WHEEL_LEVELS = 5, PGE_WHEEL_SLOTS = 64 };

struct pge_timer {
    struct pge_list node;
    uint64_t due_ms;
    void (*on_fire)(
        struct pge_timer *timer); /* unlinked before it is called: may start again, or be freed */
};

struct pge_wheel {
    uint64_t now_ms;                 /* every timer due at or before it has fired */
    uint64_t count;                  /* timers linked */
    uint64_t used[PGE_WHEEL_LEVELS]; /* a bit per slot that may hold timers */
    struct pge_list overdue;         /* due when they were started: the next advance fires them */
    struct pge_list slots[PGE_WHEEL_LEVELS][PGE_WHEEL_SLOTS];
};

void pge_wheel_init(struct pge_wheel *wheel, uint64_t now_ms);

/* A timer must be initialised once before start or stop. */
void pge_timer_init(struct pge_timer *timer, void (*on_fire)(struct pge_timer *));

static inline bool pge_timer_is_armed(const struct pge_timer *timer) {
    return timer->node.next != &timer->node;
}

/* Arms (again) for due_ms, an absolute time; one already past fires at the next advance. */
void pge_wheel_start(struct pge_wheel *wheel, struct pge_timer *timer, uint64_t due_ms);

/* Disarms; harmless when not armed. */
void pge_wheel_stop(struct pge_wheel *wheel, struct pge_timer *timer);

/* Fires what is due up to now_ms, in order of time. What was overdue comes first, and what that
 * starts anew for a time already past waits for the next advance. */
void pge_wheel_advance(struct pge_wheel *wheel, uint64_t now_ms);

/* A time at which to call advance next: never later than the first timer's. UINT64_MAX: none armed.
 */
uint64_t pge_wheel_next(const struct pge_wheel *wheel);

#endif
