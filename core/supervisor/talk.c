/*
 * talk.c - what one worker is told and what it says.
 *
 *   none --start--> born --HELLO--> idle <--DONE-- swapping <--COMMIT-- ready
 *     ^                              |--PREPARE--> loading --READY------^
 *     '-- the process has ended ----- (from anywhere)
 */
#include <string.h>

#include "supervisor/internal.h"

void pge_worker_on_deadline(struct pge_timer *timer) {
    struct pge_worker *w = container_of(timer, struct pge_worker, deadline);
    if (w->target)
        pge_worker_kill(w, "it did not load in time");
    else
        pge_reload_late(w);
}

void pge_worker_load(struct pge_worker *w, unsigned attempt, struct pge_span bundle,
                     unsigned target, uint64_t limit_ms) {
    w->state = PGE_WORKER_LOADING;
    w->attempt = attempt;
    w->target = target;
    if (limit_ms)
        pge_loop_timer(&w->supervisor->loop, &w->deadline, limit_ms);
    pge_control_send(w, PGE_PREPARE, attempt, bundle);
}

void pge_worker_swap(struct pge_worker *w, unsigned generation) {
    pge_loop_timer_stop(&w->supervisor->loop, &w->deadline);
    w->state = PGE_WORKER_SWAPPING;
    w->target = generation;
    pge_control_send(w, PGE_COMMIT, w->attempt, (struct pge_span){0});
}

void pge_worker_abort(struct pge_worker *w) {
    if (w->state != PGE_WORKER_LOADING && w->state != PGE_WORKER_READY)
        return;
    pge_loop_timer_stop(&w->supervisor->loop, &w->deadline);
    pge_control_send(w, PGE_ABORT, w->attempt, (struct pge_span){0});
    w->state = PGE_WORKER_IDLE;
}

void pge_worker_sync(struct pge_worker *w) {
    struct pge_supervisor *s = w->supervisor;
    const struct pge_buf *bundle = &s->committed.bundle;
    if (w->state != PGE_WORKER_IDLE || w->is_ending || s->is_stopping ||
        w->generation == s->committed.generation)
        return;
    pge_worker_load(w, ++s->last_attempt,
                    (struct pge_span){pge_buf_head(bundle), pge_buf_len(bundle)},
                    s->committed.generation, pge_reload_limit_ms(s));
}

void pge_worker_rest(struct pge_worker *w) {
    struct pge_supervisor *s = w->supervisor;
    pge_loop_timer_stop(&s->loop, &w->deadline);
    w->state = PGE_WORKER_IDLE;
    pge_sockets_sweep(s);
    pge_worker_sync(w);
    pge_reload_advance(s);
}

/* ---- hearing ---- */

static void on_hello(struct pge_worker *w, struct pge_span payload) {
    struct pge_supervisor *s = w->supervisor;
    if (w->state != PGE_WORKER_BORN)
        return;
    w->ping_ms = 0;
    w->state = PGE_WORKER_IDLE;
    if (s->is_configured)
        pge_worker_rest(w);
    else
        pge_supervisor_configure(s, payload);
}

/* A successor, or one that missed a commit, is ready with what was committed when it began. */
static void on_ready_to_follow(struct pge_worker *w) {
    struct pge_supervisor *s = w->supervisor;
    if (w->target == s->committed.generation) {
        pge_worker_swap(w, w->target);
        return;
    }
    pge_worker_abort(w);
    pge_worker_rest(w);
}

static void on_done(struct pge_worker *w, struct pge_span payload) {
    w->generation = w->target;
    if (!w->served_ms)
        w->served_ms = pge_supervisor_now(w->supervisor);
    pge_reload_note_done(w, payload);
}

/* The rest of a FAILED, behind the exit status. */
static struct pge_span error_text(struct pge_span payload) {
    const char *stop = payload.n ? memchr(payload.p, '\n', payload.n) : NULL;
    size_t skipped = stop ? (size_t)(stop - payload.p) + 1 : 0;
    return (struct pge_span){payload.p + skipped, payload.n - skipped};
}

static void on_load_event(struct pge_worker *w, enum pge_frame_type type, struct pge_span payload) {
    bool is_reload =
        w->state == PGE_WORKER_LOADING ? !w->target : w->attempt == w->supervisor->reload.attempt;
    if (type == PGE_DONE)
        on_done(w, payload);
    if (is_reload) {
        pge_reload_heard(w, type, payload);
    } else if (type == PGE_READY) {
        on_ready_to_follow(w);
    } else if (type == PGE_DONE) {
        pge_worker_rest(w);
    } else {
        struct pge_span text = error_text(payload);
        pge_say("error", "worker %u cannot load generation %u: %.*s", w->index, w->target,
                (int)text.n, text.p);
        pge_worker_kill(w, "it is of no use");
    }
}

static bool is_due(const struct pge_worker *w, enum pge_frame_type type) {
    switch (type) {
    case PGE_READY:
        return w->state == PGE_WORKER_LOADING;
    case PGE_DONE:
        return w->state == PGE_WORKER_SWAPPING;
    default:
        return w->state == PGE_WORKER_LOADING || w->state == PGE_WORKER_SWAPPING;
    }
}

static void on_pong(struct pge_worker *w, uint32_t number, struct pge_span payload) {
    w->ponged = number;
    if (number == w->pinged)
        w->ping_ms = 0;
    if (payload.n) {
        pge_buf_clear(&w->status);
        pge_buf_append(&w->status, payload.p, payload.n);
    }
    if (w->supervisor->admin)
        pge_admin_heard(w->supervisor->admin);
}

void pge_worker_hear(struct pge_worker *w, enum pge_frame_type type, uint32_t number,
                     struct pge_span payload) {
    if (w->is_ending && type != PGE_PONG)
        return;
    w->heard_ms = pge_supervisor_now(w->supervisor);
    switch (type) {
    case PGE_HELLO:
        on_hello(w, payload);
        break;
    case PGE_PONG:
        on_pong(w, number, payload);
        break;
    case PGE_READY:
    case PGE_FAILED:
    case PGE_DONE:
        if (number == w->attempt && is_due(w, type)) /* else of a load given up */
            on_load_event(w, type, payload);
        break;
    default:
        pge_worker_kill(w, "it does not keep to the protocol");
    }
}
