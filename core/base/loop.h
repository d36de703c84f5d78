/*
 * loop.h - what the core hangs on a libuv loop that somebody else owns and runs.
 *
 *   timers -> prepare [end of turn] -> poll: reads, accepts -> check [end of turn] -> close
 * callbacks
 *
 * End of turn: what was deferred runs, "soon" first (it may still append output), then "flush" (one
 * write per connection). The handles for this exist only while something needs them, so that a host
 * whose clients are all closed has an empty loop.
 */
#ifndef PGE_BASE_LOOP_H
#define PGE_BASE_LOOP_H

#include <uv.h>

#include "base/buffer.h"
#include "base/list.h"
#include "base/wheel.h"

enum { PGE_READ_SIZE = 65536 };

struct pge_handles;

/* The one clock under every deadline, timer and backoff. Milliseconds, never going back. */
struct pge_clock {
    uint64_t (*now_ms)(void *arg);
    void *arg;
    /*
     * NULL: time passes by itself. Else it stands, and the loop calls this to move it to the next
     * timer: at once when timers are all it would wait for, else when that much time has passed.
     */
    void (*jump)(void *arg, uint64_t to_ms);
};

enum pge_phase { PGE_SOON, PGE_FLUSH, PGE_PHASES };

/* Work for the end of this turn. Unlinked before it is called. */
struct pge_defer {
    struct pge_list node;
    void (*on_turn)(struct pge_defer *defer);
};

/*
 * Where listening sockets come from, when not from this process itself. open may block, briefly.
 */
struct sockaddr;
struct pge_sockets {
    /* The descriptor, the caller's to close; or a negative code. hold: for close. */
    int (*open)(struct pge_sockets *sockets, const struct sockaddr *at, int backlog,
                uint32_t *hold);
    /* After the descriptor was closed. */
    void (*close)(struct pge_sockets *sockets, uint32_t hold);
    /* How many accepted connections this process has: for the others to know. */
    void (*count)(struct pge_sockets *sockets, uint32_t accepted);
    /* Whether another process has so many fewer that it should take the next one. */
    bool (*has_more)(const struct pge_sockets *sockets, uint32_t accepted);
    bool are_shared; /* other processes accept from them too */
};

struct pge_loop {
    uv_loop_t *uv; /* borrowed: the host's, outlives this */
    /* Called after each uv_*_init: luv reads handle->data of every handle, so it must be luv's. */
    void (*adopt)(struct pge_loop *loop, uv_handle_t *handle);
    void *adopt_arg;
    struct pge_sockets *sockets; /* borrowed: outlives the loop; NULL: listeners bind themselves */
    uint32_t accepted;           /* connections that listeners took and that are not closed */
    struct pge_clock clock;
    struct pge_wheel wheel;
    uint64_t armed_ms; /* what the uv timer is set to; UINT64_MAX: stopped */
    uint64_t stood_ms; /* what a virtual clock shows */
    uint64_t ahead_ms; /* what the system's clock is behind, since a virtual one has been ahead */
    unsigned quiet;    /* turns in a row that brought nothing, while only timers are waited for */
    struct pge_list deferred[PGE_PHASES];
    struct pge_handles *handles; /* owned; NULL while nobody needs the loop */
    unsigned handles_closing;    /* handle groups whose close callbacks are still to come */
    unsigned live;               /* connections, listeners and lookups that hold the loop */
    uint64_t rng[2];             /* for jitter and ids; seeded by the system */
    char *read_buf;              /* PGE_READ_SIZE bytes, lent to on_data, owned */
    /* What is being handed on may lie in this buffer, which is then needed for nothing else: who
     * sends it on may take the memory over, and leaves it empty. NULL: no. See pge_conn_give. */
    struct pge_buf *loan;
    struct pge_list warm, busy;  /* net/cool.c: connections that have written lately */
    struct pge_timer cooling;
};

/* 0, or UV_ENOMEM. adopt may be NULL (no luv in the process). */
int pge_loop_init(struct pge_loop *loop, uv_loop_t *uv,
                  void (*adopt)(struct pge_loop *, uv_handle_t *), void *arg);

/* Everything on it must be closed. Closes the handles; they are gone after the next uv_run. */
void pge_loop_deinit(struct pge_loop *loop);

/* Replaces the clock; for virtual time. Timers armed stay at their absolute times. */
void pge_loop_set_clock(struct pge_loop *loop, struct pge_clock clock);

/* virtual.c: a clock that stands but for its jumps; false: time passes again, from where it stood.
 */
void pge_loop_set_virtual(struct pge_loop *loop, bool on);
/* virtual.c: whether timers of ours are all that the loop would wait for. */
bool pge_loop_waits_alone(struct pge_loop *loop);
/* Whether the handle is one of this loop's own. */
bool pge_loop_owns(const struct pge_loop *loop, const uv_handle_t *handle);

static inline uint64_t pge_loop_now(const struct pge_loop *loop) {
    return loop->clock.now_ms(loop->clock.arg);
}

/* Fires what is due by the clock. Called by the loop itself; by hand under a virtual clock. */
void pge_loop_advance(struct pge_loop *loop);

/* While live, the loop keeps its handles. Pairs. 0 or UV_ENOMEM. */
int pge_loop_hold(struct pge_loop *loop);
void pge_loop_release(struct pge_loop *loop);

/* Arms a timer delay_ms from now. 0, or a negative code when the loop cannot open its handles. */
int pge_loop_timer(struct pge_loop *loop, struct pge_timer *timer, uint64_t delay_ms);
void pge_loop_timer_stop(struct pge_loop *loop, struct pge_timer *timer);

void pge_defer_init(struct pge_defer *defer, void (*on_turn)(struct pge_defer *));
/* Calls defer at the end of this turn, once however often asked. 0, or a negative code as above. */
int pge_loop_defer(struct pge_loop *loop, struct pge_defer *defer, enum pge_phase phase);
void pge_defer_cancel(struct pge_defer *defer);

/* Runs the end of a turn now. For hosts without a running loop, and for specs. */
void pge_loop_turn(struct pge_loop *loop);

/* Uniform 64 random bits, fast, not for secrets. */
uint64_t pge_loop_random(struct pge_loop *loop);

#endif
