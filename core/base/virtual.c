/*
 * virtual.c - time that stands still and moves only when everything waits: a test that waits for
 * half a minute takes no time.
 *
 * Waiting for anything else than timers of ours (a socket, a child, a file, a timer of somebody
 * else) takes real time, and the clock then moves as if it were a real one.
 */
#include "base/loop.h"

static uint64_t real_ms(void) {
    return uv_hrtime() / 1000000;
}

static uint64_t passing_ms(void *arg) {
    return real_ms() + ((const struct pge_loop *)arg)->ahead_ms;
}

static uint64_t standing_ms(void *arg) {
    return ((const struct pge_loop *)arg)->stood_ms;
}

static void jump(void *arg, uint64_t to_ms) {
    struct pge_loop *loop = arg;
    if (loop->stood_ms < to_ms)
        loop->stood_ms = to_ms;
}

void pge_loop_set_virtual(struct pge_loop *loop, bool on) {
    struct pge_clock clock = {.now_ms = on ? standing_ms : passing_ms, .arg = loop};
    if (on)
        clock.jump = jump;
    if (loop->clock.now_ms) {
        loop->stood_ms = pge_loop_now(loop);
        loop->ahead_ms = loop->stood_ms - real_ms(); /* may be less than nothing: it wraps */
    }
    pge_loop_set_clock(loop, clock);
}

struct census {
    const struct pge_loop *loop;
    bool has_others;
};

static void look_at(uv_handle_t *handle, void *arg) {
    struct census *census = arg;
    bool is_waiting = uv_is_active(handle) && uv_has_ref(handle);
    if ((is_waiting || uv_is_closing(handle)) && !pge_loop_owns(census->loop, handle))
        census->has_others = true;
}

bool pge_loop_waits_alone(struct pge_loop *loop) {
    struct census census = {.loop = loop};
    if (!loop->wheel.count || !pge_list_is_empty(&loop->deferred[PGE_SOON]) ||
        !pge_list_is_empty(&loop->deferred[PGE_FLUSH]) || loop->uv->active_reqs.count)
        return false;
    uv_walk(loop->uv, look_at, &census);
    return !census.has_others;
}
