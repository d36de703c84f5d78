/* wheel.c - hierarchical timer wheel. A timer moves down a level each time its slot comes round. */
#include "base/wheel.h"

enum { SHIFT = 6, MASK = PGE_WHEEL_SLOTS - 1 };

void pge_wheel_init(struct pge_wheel *wheel, uint64_t now_ms) {
    *wheel = (struct pge_wheel){.now_ms = now_ms};
    pge_list_init(&wheel->overdue);
    for (int level = 0; level < PGE_WHEEL_LEVELS; level++)
        for (int slot = 0; slot < PGE_WHEEL_SLOTS; slot++)
            pge_list_init(&wheel->slots[level][slot]);
}

void pge_timer_init(struct pge_timer *timer, void (*on_fire)(struct pge_timer *)) {
    pge_list_init(&timer->node);
    timer->due_ms = 0;
    timer->on_fire = on_fire;
}

/* The level is the highest base-64 digit in which due and now differ, so its slot lies ahead. */
static void place(struct pge_wheel *wheel, struct pge_timer *timer) {
    uint64_t due = timer->due_ms;
    uint64_t diff = due ^ wheel->now_ms;
    int level = diff ? (63 - __builtin_clzll(diff)) / SHIFT : 0;
    unsigned slot;
    if (level >= PGE_WHEEL_LEVELS) {
        /* The top level wraps round; beyond one round the slot just passed is the last to come. */
        level = PGE_WHEEL_LEVELS - 1;
        uint64_t tick = wheel->now_ms >> (level * SHIFT), at = due >> (level * SHIFT);
        slot = (unsigned)(at - tick < PGE_WHEEL_SLOTS ? at : tick - 1) & MASK;
    } else {
        slot = (unsigned)(due >> (level * SHIFT)) & MASK;
    }
    pge_list_push(&wheel->slots[level][slot], &timer->node);
    wheel->used[level] |= 1ULL << slot;
}

void pge_wheel_start(struct pge_wheel *wheel, struct pge_timer *timer, uint64_t due_ms) {
    if (pge_timer_is_armed(timer))
        pge_list_remove(&timer->node);
    else
        wheel->count++;
    timer->due_ms = due_ms;
    if (due_ms > wheel->now_ms)
        place(wheel, timer);
    else
        pge_list_push(&wheel->overdue, &timer->node);
}

void pge_wheel_stop(struct pge_wheel *wheel, struct pge_timer *timer) {
    if (!pge_timer_is_armed(timer))
        return;
    pge_list_remove(&timer->node);
    wheel->count--;
}

/* Distance from slot `from` (exclusive) to the next used slot on a level, 1..64; 0 when none. */
static unsigned next_used(uint64_t used, unsigned from) {
    if (!used)
        return 0;
    unsigned shift = (from + 1) & MASK;
    uint64_t turned = shift ? (used >> shift) | (used << (PGE_WHEEL_SLOTS - shift)) : used;
    return (unsigned)__builtin_ctzll(turned) + 1;
}

/* When the next slot that may hold timers comes round. */
static uint64_t next_slot(const struct pge_wheel *wheel) {
    if (wheel->count == 0)
        return UINT64_MAX;
    uint64_t next = UINT64_MAX;
    for (int level = 0; level < PGE_WHEEL_LEVELS; level++) {
        uint64_t tick = wheel->now_ms >> (level * SHIFT);
        unsigned ahead = next_used(wheel->used[level], (unsigned)tick & MASK);
        if (!ahead)
            continue;
        uint64_t at = (tick + ahead) << (level * SHIFT);
        if (at < next)
            next = at;
    }
    return next;
}

uint64_t pge_wheel_next(const struct pge_wheel *wheel) {
    return pge_list_is_empty(&wheel->overdue) ? next_slot(wheel) : wheel->now_ms;
}

static void fire(struct pge_wheel *wheel, struct pge_list *due) {
    while (!pge_list_is_empty(due)) {
        struct pge_timer *timer = container_of(due->next, struct pge_timer, node);
        pge_list_remove(&timer->node);
        wheel->count--;
        timer->on_fire(timer);
    }
}

static void fire_overdue(struct pge_wheel *wheel) {
    struct pge_list due;
    pge_list_init(&due);
    pge_list_splice(&due, &wheel->overdue);
    fire(wheel, &due);
}

/* Empties the slots that time has just reached: upper levels hand down, level 0 fires. */
static void turn(struct pge_wheel *wheel) {
    struct pge_list due;
    pge_list_init(&due);
    for (int level = PGE_WHEEL_LEVELS - 1; level >= 0; level--) {
        uint64_t low = level ? (1ULL << (level * SHIFT)) - 1 : 0;
        if (wheel->now_ms & low)
            continue;
        unsigned slot = (unsigned)(wheel->now_ms >> (level * SHIFT)) & MASK;
        wheel->used[level] &= ~(1ULL << slot);
        pge_list_splice(&due, &wheel->slots[level][slot]);
        while (level && !pge_list_is_empty(&due)) {
            struct pge_timer *timer = container_of(due.next, struct pge_timer, node);
            pge_list_remove(&timer->node);
            place(wheel, timer);
        }
    }
    fire(wheel, &due);
}

void pge_wheel_advance(struct pge_wheel *wheel, uint64_t now_ms) {
    fire_overdue(wheel);
    while (wheel->now_ms < now_ms) {
        uint64_t next = next_slot(wheel);
        if (next > now_ms) {
            wheel->now_ms = now_ms;
            return;
        }
        wheel->now_ms = next;
        turn(wheel);
    }
}
