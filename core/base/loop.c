/* loop.c - clock, timers and ends of turns on a borrowed uv loop. */
#include "base/loop.h"

#include <string.h>

#include "base/alloc.h"

/* At the end of a turn deferred work may defer more; beyond this many rounds it waits for the next.
 */
enum { MAX_ROUNDS = 16 };

struct pge_handles {
    struct pge_loop *loop; /* NULL once the loop has let go of the group */
    uv_prepare_t prepare;
    uv_check_t check;
    uv_timer_t timer;
    uv_idle_t
        idle; /* started when prepare did something: a host that runs "once" must get to see it */
    unsigned *closing; /* loop->handles_closing */
    int open;          /* close callbacks to come */
};

int pge_loop_init(struct pge_loop *loop, uv_loop_t *uv,
                  void (*adopt)(struct pge_loop *, uv_handle_t *), void *arg) {
    memset(loop, 0, sizeof *loop);
    loop->uv = uv;
    loop->adopt = adopt;
    loop->adopt_arg = arg;
    loop->armed_ms = UINT64_MAX;
    pge_loop_set_virtual(loop, false);
    pge_wheel_init(&loop->wheel, pge_loop_now(loop));
    pge_list_init(&loop->warm);
    pge_list_init(&loop->busy);
    for (int phase = 0; phase < PGE_PHASES; phase++)
        pge_list_init(&loop->deferred[phase]);
    int status = uv_random(NULL, NULL, loop->rng, sizeof loop->rng, 0, NULL);
    if (status < 0)
        return status;
    loop->rng[0] |= 1; /* all-zero is the generator's one bad state */
    loop->read_buf = pge_malloc(PGE_READ_SIZE);
    return loop->read_buf ? 0 : UV_ENOMEM;
}

static void adopt(struct pge_loop *loop, uv_handle_t *handle) {
    if (loop->adopt)
        loop->adopt(loop, handle);
}

static void on_handle_closed(struct pge_handles *group) {
    if (--group->open)
        return;
    (*group->closing)--;
    pge_free(group);
}

static void on_prepare_closed(uv_handle_t *h) {
    on_handle_closed(container_of(h, struct pge_handles, prepare));
}

static void on_check_closed(uv_handle_t *h) {
    on_handle_closed(container_of(h, struct pge_handles, check));
}

static void on_idle_closed(uv_handle_t *h) {
    on_handle_closed(container_of(h, struct pge_handles, idle));
}

static void on_timer_closed(uv_handle_t *h) {
    on_handle_closed(container_of(h, struct pge_handles, timer));
}

static void close_handles(struct pge_loop *loop) {
    struct pge_handles *group = loop->handles;
    if (!group)
        return;
    loop->handles = NULL;
    loop->armed_ms = UINT64_MAX;
    loop->handles_closing++;
    uv_close((uv_handle_t *)&group->prepare, on_prepare_closed);
    uv_close((uv_handle_t *)&group->check, on_check_closed);
    uv_close((uv_handle_t *)&group->idle, on_idle_closed);
    uv_close((uv_handle_t *)&group->timer, on_timer_closed);
}

static bool has_deferred(const struct pge_loop *loop) {
    return !pge_list_is_empty(&loop->deferred[PGE_SOON]) ||
           !pge_list_is_empty(&loop->deferred[PGE_FLUSH]);
}

/* After anything ran: sets the uv timer, or lets go of the handles when nobody needs them. */
static void settle(struct pge_loop *loop) {
    if (!loop->handles)
        return;
    if (!loop->live && !loop->wheel.count && !has_deferred(loop)) {
        close_handles(loop);
        return;
    }
    uv_handle_t *prepare = (uv_handle_t *)&loop->handles->prepare;
    if (has_deferred(loop))
        uv_ref(prepare); /* what is deferred must run even if nothing else keeps the loop going */
    else
        uv_unref(prepare);
}

static void on_wheel(uv_timer_t *timer);

static void arm(struct pge_loop *loop) {
    uint64_t next = pge_wheel_next(&loop->wheel);
    if (!loop->handles || next == loop->armed_ms)
        return;
    uv_timer_t *timer = &loop->handles->timer;
    loop->armed_ms = next;
    if (next == UINT64_MAX) {
        uv_timer_stop(timer);
        return;
    }
    uint64_t now = pge_loop_now(loop);
    uv_update_time(loop->uv); /* uv counts from its cached time, which may be old */
    uv_timer_start(timer, on_wheel, next > now ? next - now : 0, 0);
}

static void on_idle(uv_idle_t *idle) {
    uv_idle_stop(idle);
}

/*
 * Callbacks ran before the poll, or left work for after it. A host that runs the loop once at a
 * time until one of them has come must get its chance, so this poll does not wait.
 */
static void poll_at_once(struct pge_handles *group) {
    uv_idle_start(&group->idle, on_idle);
}

void pge_loop_advance(struct pge_loop *loop) {
    pge_wheel_advance(&loop->wheel, pge_loop_now(loop));
}

static void jump(struct pge_loop *loop) {
    uint64_t next = pge_wheel_next(&loop->wheel);
    if (loop->clock.jump && next != UINT64_MAX)
        loop->clock.jump(loop->clock.arg, next);
}

/* Real time has passed, but a virtual clock follows it only while others are waited for: how long
 * our own work takes must not show. */
static bool is_too_early(struct pge_loop *loop) {
    return loop->clock.jump && pge_wheel_next(&loop->wheel) > pge_loop_now(loop) &&
           (has_deferred(loop) || pge_loop_waits_alone(loop));
}

static void on_wheel(uv_timer_t *timer) {
    struct pge_handles *group = container_of(timer, struct pge_handles, timer);
    struct pge_loop *loop = group->loop;
    loop->armed_ms = UINT64_MAX;
    if (is_too_early(loop)) {
        arm(loop);
        return;
    }
    jump(loop); /* that much time has passed for others */
    loop->quiet = 0;
    bool is_due = pge_wheel_next(&loop->wheel) <= pge_loop_now(loop);
    pge_loop_advance(loop);
    arm(loop);
    settle(loop);
    if (is_due && loop->handles == group)
        poll_at_once(group);
}

bool pge_loop_owns(const struct pge_loop *loop, const uv_handle_t *handle) {
    const struct pge_handles *group = loop->handles;
    return group && (handle == (const uv_handle_t *)&group->prepare ||
                     handle == (const uv_handle_t *)&group->check ||
                     handle == (const uv_handle_t *)&group->timer ||
                     handle == (const uv_handle_t *)&group->idle);
}

/* Runs what is deferred in one phase; true when there was any. */
static bool run_phase(struct pge_loop *loop, enum pge_phase phase) {
    struct pge_list now;
    pge_list_init(&now);
    pge_list_splice(&now, &loop->deferred[phase]);
    bool any = !pge_list_is_empty(&now);
    while (!pge_list_is_empty(&now)) {
        struct pge_defer *defer = container_of(now.next, struct pge_defer, node);
        pge_list_remove(&defer->node);
        defer->on_turn(defer);
    }
    return any;
}

void pge_loop_turn(struct pge_loop *loop) {
    for (int round = 0; round < MAX_ROUNDS && has_deferred(loop); round++)
        if (!run_phase(loop, PGE_SOON))
            run_phase(loop, PGE_FLUSH);
    run_phase(loop,
              PGE_FLUSH); /* in-process traffic without end must not hold back the network's */
    if (!loop->wheel.count || pge_wheel_next(&loop->wheel) < loop->armed_ms)
        arm(loop);
    settle(loop);
}

static void on_prepare(uv_prepare_t *prepare) {
    struct pge_handles *group = container_of(prepare, struct pge_handles, prepare);
    struct pge_loop *loop = group->loop;
    bool any = has_deferred(loop);
    pge_loop_turn(loop);
    bool is_alone = loop->clock.jump && !any && pge_loop_waits_alone(loop);
    loop->quiet = is_alone ? loop->quiet + 1 : 0;
    if ((any || is_alone) && loop->handles == group)
        poll_at_once(group);
}

/*
 * Virtual time moves to the next timer. Not in the first quiet turn: its earlier phases may have
 * woken a host that runs the loop once at a time, and that is still to do its part.
 */
static void jump_and_fire(struct pge_loop *loop) {
    jump(loop);
    loop->quiet = 0;
    loop->armed_ms = UINT64_MAX;
    pge_loop_advance(loop);
    pge_loop_turn(loop);
}

static void on_check(uv_check_t *check) {
    struct pge_loop *loop = container_of(check, struct pge_handles, check)->loop;
    bool any = has_deferred(loop);
    pge_loop_turn(loop);
    if (any)
        loop->quiet = 0;
    else if (loop->quiet > 1 && pge_loop_waits_alone(loop))
        jump_and_fire(loop);
}

/* The inits and starts cannot fail in libuv; only memory can. */
static int open_handles(struct pge_loop *loop) {
    if (loop->handles)
        return 0;
    struct pge_handles *group = pge_calloc(1, sizeof *group);
    if (!group)
        return UV_ENOMEM;
    group->loop = loop;
    group->closing = &loop->handles_closing;
    group->open = 4;
    uv_prepare_init(loop->uv, &group->prepare);
    uv_check_init(loop->uv, &group->check);
    uv_timer_init(loop->uv, &group->timer);
    uv_idle_init(loop->uv, &group->idle);
    adopt(loop, (uv_handle_t *)&group->prepare);
    adopt(loop, (uv_handle_t *)&group->check);
    adopt(loop, (uv_handle_t *)&group->timer);
    adopt(loop, (uv_handle_t *)&group->idle);
    uv_prepare_start(&group->prepare, on_prepare);
    uv_check_start(&group->check, on_check);
    uv_unref((uv_handle_t *)&group->check);
    loop->handles = group; /* prepare stays referenced until the first end of turn settles it */
    return 0;
}

void pge_loop_deinit(struct pge_loop *loop) {
    close_handles(loop);
    pge_free(loop->read_buf);
    loop->read_buf = NULL;
}

void pge_loop_set_clock(struct pge_loop *loop, struct pge_clock clock) {
    loop->clock = clock;
    loop->armed_ms = UINT64_MAX;
    loop->quiet = 0;
    arm(loop);
}

int pge_loop_hold(struct pge_loop *loop) {
    int status = open_handles(loop);
    if (status == 0)
        loop->live++;
    return status;
}

void pge_loop_release(struct pge_loop *loop) {
    loop->live--;
    settle(loop);
}

int pge_loop_timer(struct pge_loop *loop, struct pge_timer *timer, uint64_t delay_ms) {
    int status = open_handles(loop);
    if (status < 0)
        return status;
    uint64_t now = pge_loop_now(loop);
    if (!loop->wheel.count && loop->wheel.now_ms < now)
        loop->wheel.now_ms = now; /* an idle wheel catches up in one step */
    uint64_t due = delay_ms > UINT64_MAX / 2 ? UINT64_MAX / 2 : now + delay_ms;
    pge_wheel_start(&loop->wheel, timer, due);
    loop->quiet = 0;
    if (due < loop->armed_ms)
        arm(loop);
    return 0;
}

void pge_loop_timer_stop(struct pge_loop *loop, struct pge_timer *timer) {
    if (!pge_timer_is_armed(timer))
        return;
    pge_wheel_stop(&loop->wheel, timer);
    if (!loop->wheel.count) {
        arm(loop);
        settle(loop);
    }
}

void pge_defer_init(struct pge_defer *defer, void (*on_turn)(struct pge_defer *)) {
    pge_list_init(&defer->node);
    defer->on_turn = on_turn;
}

int pge_loop_defer(struct pge_loop *loop, struct pge_defer *defer, enum pge_phase phase) {
    if (!pge_list_is_empty(&defer->node))
        return 0;
    int status = open_handles(loop);
    if (status < 0)
        return status;
    pge_list_push(&loop->deferred[phase], &defer->node);
    loop->quiet = 0;
    uv_ref((uv_handle_t *)&loop->handles->prepare);
    return 0;
}

void pge_defer_cancel(struct pge_defer *defer) {
    pge_list_remove(&defer->node);
}

/* xorshift128+ */
uint64_t pge_loop_random(struct pge_loop *loop) {
    uint64_t a = loop->rng[0], b = loop->rng[1];
    loop->rng[0] = b;
    a ^= a << 23;
    loop->rng[1] = a ^ b ^ (a >> 17) ^ (b >> 26);
    return loop->rng[1] + b;
}
