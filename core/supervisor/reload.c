/*
 * reload.c - all workers or none.
 *
 *   none --ask--> lead --READY--> others --all READY--> swap --all DONE--> none
 *                   '---FAILED, death, time------> ABORT to all, the generation stays
 *
 * The lead reads the files; the others load what it has read. One reload runs at a time; those
 * asked for meanwhile are one, which begins when it has ended, because the files may have changed
 * since the one that runs has read them.
 */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "supervisor/internal.h"

enum {
    START_HOOKS_MS = 5000,
    GRACE_MS = 1000,
    UNBUDGETED_LOAD_MS = 30000,
    HTTP_UNPROCESSABLE = 422,
    HTTP_UNAVAILABLE = 503,
};

void pge_reload_init(struct pge_reload *r) {
    memset(r, 0, sizeof *r);
    pge_list_init(&r->askers);
    pge_list_init(&r->next_askers);
}

void pge_reload_deinit(struct pge_reload *r) {
    pge_buf_deinit(&r->bundle);
    pge_buf_deinit(&r->report);
    pge_buf_deinit(&r->error);
}

uint64_t pge_reload_limit_ms(const struct pge_supervisor *s) {
    unsigned load_ms = s->options.load_budget_ms;
    return (load_ms ? load_ms : UNBUDGETED_LOAD_MS) + START_HOOKS_MS + GRACE_MS;
}

static struct pge_span span_of(const struct pge_buf *b) {
    return (struct pge_span){pge_buf_head(b), pge_buf_len(b)};
}

static bool takes_part(const struct pge_supervisor *s, const struct pge_worker *w) {
    return w->pid && !w->is_ending && w->attempt == s->reload.attempt;
}

static bool is_any_in(const struct pge_supervisor *s, enum pge_worker_state state) {
    for (unsigned i = 0; i < s->worker_count; i++)
        if (takes_part(s, s->workers[i]) && s->workers[i]->state == state)
            return true;
    return false;
}

/* ---- the end of a reload ---- */

static void note_outcome(struct pge_supervisor *s, const char *error) {
    s->outcome.is_known = true;
    s->outcome.is_good = !error;
    s->outcome.at_ms = pge_wall_ms();
    pge_buf_clear(&s->outcome.text);
    if (error)
        pge_buf_append(&s->outcome.text, error, strlen(error));
}

/* Of the scripts that were refused while others were loaded; NULL: none. */
static const char *partial_error(const struct pge_reload *r) {
    return pge_buf_len(&r->error) > 1 ? pge_buf_head(&r->error) : NULL;
}

static void answer_all(struct pge_supervisor *s, struct pge_list *askers, unsigned old,
                       const char *error, int status) {
    while (!pge_list_is_empty(askers)) {
        struct pge_asker *asker = container_of(askers->next, struct pge_asker, node);
        pge_list_remove(&asker->node);
        pge_admin_answer(s, asker, old, error, status);
    }
}

/* Those who took part may be asked for something else. */
static void let_rest(struct pge_supervisor *s) {
    for (unsigned i = 0; i < s->worker_count; i++) {
        struct pge_worker *w = s->workers[i];
        if (!takes_part(s, w) || w->state == PGE_WORKER_NONE)
            continue;
        pge_worker_abort(w); /* unless it serves the new generation */
        if (w->state == PGE_WORKER_IDLE)
            w->attempt = 0;
    }
}

static void finish(struct pge_supervisor *s, unsigned old, const char *error, int status) {
    struct pge_reload *r = &s->reload;
    if (error)
        note_outcome(s, error);
    let_rest(s);
    r->phase = PGE_RELOAD_NONE;
    answer_all(s, &r->askers, old, error, status);
    pge_buf_deinit(&r->bundle);
    pge_buf_deinit(&r->report);
    pge_buf_deinit(&r->error);
    pge_sockets_sweep(s);
    for (unsigned i = 0; i < s->worker_count; i++)
        pge_worker_sync(s->workers[i]);
    pge_reload_advance(s);
}

static void refuse(struct pge_supervisor *s, const char *error, int status) {
    if (s->reload.cause == PGE_BY_START) { /* nothing else serves: that is the program's end */
        s->reload.phase = PGE_RELOAD_NONE;
        let_rest(s);
        pge_say(NULL, "%s", error);
        pge_supervisor_stop(s, false, status);
        return;
    }
    if (status != HTTP_UNPROCESSABLE) /* that the worker has logged, with its scripts' names */
        pge_say("error", "the reload is refused: %s", error);
    finish(s, s->committed.generation, error, status);
}

/* ---- its beginning ---- */

static struct pge_worker *find_lead(struct pge_supervisor *s) {
    for (unsigned i = 0; i < s->worker_count; i++) {
        struct pge_worker *w = s->workers[i];
        if (w->state == PGE_WORKER_IDLE && !w->is_ending &&
            w->generation == s->committed.generation)
            return w;
    }
    return NULL;
}

static void begin(struct pge_supervisor *s, struct pge_worker *lead) {
    struct pge_reload *r = &s->reload;
    r->phase = PGE_RELOAD_LEAD;
    r->cause = r->next_cause;
    r->wants_next = false;
    r->attempt = ++s->last_attempt;
    r->lead = lead->index;
    pge_list_splice(&r->askers, &r->next_askers);
    /* Nobody waits for the first: its script may take its time to start, as under `run`. */
    uint64_t limit_ms = r->cause == PGE_BY_START ? 0 : pge_reload_limit_ms(s);
    pge_worker_load(lead, r->attempt, (struct pge_span){0}, 0, limit_ms);
}

/* A worker that loads the last generation is waited for: it is to take part. */
static bool is_catching_up(const struct pge_supervisor *s) {
    for (unsigned i = 0; i < s->worker_count; i++) {
        enum pge_worker_state state = s->workers[i]->state;
        if (state > PGE_WORKER_IDLE && !s->workers[i]->is_ending)
            return true;
    }
    return false;
}

void pge_reload_advance(struct pge_supervisor *s) {
    struct pge_reload *r = &s->reload;
    if (r->phase != PGE_RELOAD_NONE || !r->wants_next || s->is_stopping || is_catching_up(s))
        return;
    struct pge_worker *lead = find_lead(s);
    if (lead)
        begin(s, lead);
}

void pge_reload_ask(struct pge_supervisor *s, enum pge_cause cause, struct pge_asker *asker) {
    struct pge_reload *r = &s->reload;
    if (s->is_stopping) {
        if (asker)
            pge_admin_answer(s, asker, s->committed.generation, "CANCELLED: perigee is ending",
                             HTTP_UNAVAILABLE);
        return;
    }
    if (!r->wants_next || r->next_cause == PGE_BY_WATCH)
        r->next_cause = cause;
    if (!r->wants_next)
        r->is_second_try = false;
    r->wants_next = true;
    if (asker)
        pge_list_push(&r->next_askers, &asker->node);
    pge_reload_advance(s);
}

void pge_reload_cancel(struct pge_supervisor *s, const char *why) {
    struct pge_reload *r = &s->reload;
    r->phase = PGE_RELOAD_NONE;
    r->wants_next = false;
    answer_all(s, &r->askers, s->committed.generation, why, HTTP_UNAVAILABLE);
    answer_all(s, &r->next_askers, s->committed.generation, why, HTTP_UNAVAILABLE);
}

/* ---- on its way ---- */

static void end_swap(struct pge_supervisor *s) {
    unsigned generation = s->committed.generation;
    if (is_any_in(s, PGE_WORKER_SWAPPING))
        return;
    if (s->reload.cause == PGE_BY_START)
        pge_supervisor_first(s);
    if (s->watch)
        pge_watch_follow(s->watch);
    note_outcome(s, partial_error(&s->reload));
    finish(s, generation - 1, NULL, 0);
}

static void commit(struct pge_supervisor *s) {
    struct pge_reload *r = &s->reload;
    struct pge_buf old = s->committed.bundle;
    s->committed.bundle = r->bundle;
    r->bundle = (struct pge_buf){0};
    pge_buf_deinit(&old);
    s->committed.loaded_ms = pge_wall_ms();
    s->committed.generation++;
    r->phase = PGE_RELOAD_SWAP;
    for (unsigned i = 0; i < s->worker_count; i++)
        if (takes_part(s, s->workers[i]) && s->workers[i]->state == PGE_WORKER_READY)
            pge_worker_swap(s->workers[i], s->committed.generation);
    end_swap(s); /* if the last of them has died just now */
}

static void start_others(struct pge_supervisor *s) {
    struct pge_reload *r = &s->reload;
    r->phase = PGE_RELOAD_OTHERS;
    for (unsigned i = 0; i < s->worker_count; i++) {
        struct pge_worker *w = s->workers[i];
        if (w->state == PGE_WORKER_IDLE && !w->is_ending && w->generation)
            pge_worker_load(w, r->attempt, span_of(&r->bundle), 0, pge_reload_limit_ms(s));
    }
    if (!is_any_in(s, PGE_WORKER_LOADING))
        commit(s);
}

/* "same report-length error-length\n", report, error, bundle. False: no memory, or not so. */
static bool take_bundle(struct pge_reload *r, struct pge_span payload) {
    char head[64];
    unsigned same = 0;
    size_t report = 0, error = 0;
    const char *stop = payload.n ? memchr(payload.p, '\n', payload.n) : NULL;
    size_t n = stop ? (size_t)(stop - payload.p) : sizeof head;
    if (n >= sizeof head)
        return false;
    memcpy(head, payload.p, n);
    head[n] = '\0'; /* sscanf looks for an end */
    if (sscanf(head, "%u %zu %zu", &same, &report, &error) != 3)
        return false;
    const char *at = stop + 1;
    size_t left = payload.n - (size_t)(at - payload.p);
    if (report > left || error > left - report)
        return false;
    r->is_same = same != 0;
    pge_buf_clear(&r->report);
    pge_buf_clear(&r->error);
    pge_buf_clear(&r->bundle);
    if (pge_buf_append(&r->report, at, report) < 0 ||
        pge_buf_append(&r->error, at + report, error) < 0 ||
        pge_buf_append(&r->bundle, at + report + error, left - report - error) < 0)
        return false;
    return pge_buf_append(&r->error, "", 1) == 0; /* a C string */
}

static void on_ready(struct pge_worker *w, struct pge_span payload) {
    struct pge_supervisor *s = w->supervisor;
    struct pge_reload *r = &s->reload;
    pge_loop_timer_stop(&s->loop, &w->deadline);
    w->state = PGE_WORKER_READY;
    if (r->phase == PGE_RELOAD_OTHERS) {
        if (!is_any_in(s, PGE_WORKER_LOADING))
            commit(s);
    } else if (!take_bundle(r, payload)) {
        refuse(s, "OVERLOADED: there is no memory for the files", HTTP_UNAVAILABLE);
    } else if (r->cause == PGE_BY_WATCH && r->is_same) { /* touched, or nothing else is good */
        finish(s, s->committed.generation, partial_error(r), HTTP_UNPROCESSABLE);
    } else {
        start_others(s);
    }
}

/* "exit status\ntext". The status is for the start, where nobody asked by HTTP. */
static void on_failed(struct pge_worker *w, struct pge_span payload) {
    struct pge_supervisor *s = w->supervisor;
    if (w->state == PGE_WORKER_SWAPPING) {
        pge_worker_kill(w, "it cannot swap generations");
        return;
    }
    char *text = pge_strndup(payload.n ? payload.p : "", payload.n);
    char *stop = text ? strchr(text, '\n') : NULL;
    int exit_status = text ? (int)strtol(text, NULL, 10) : PGE_EXIT_FAILED;
    pge_loop_timer_stop(&s->loop, &w->deadline);
    w->state = PGE_WORKER_IDLE;
    if (stop && s->reload.cause != PGE_BY_START) /* a traceback is for whoever starts it */
        stop[1 + strcspn(stop + 1, "\n")] = '\0';
    refuse(s, stop ? stop + 1 : "OVERLOADED: there is no memory for the error",
           s->reload.cause == PGE_BY_START ? exit_status : HTTP_UNPROCESSABLE);
    pge_free(text);
}

void pge_reload_heard(struct pge_worker *w, enum pge_frame_type type, struct pge_span payload) {
    if (type == PGE_READY) {
        on_ready(w, payload);
    } else if (type == PGE_FAILED) {
        on_failed(w, payload);
    } else {
        w->state = PGE_WORKER_IDLE;
        end_swap(w->supervisor);
    }
}

void pge_reload_late(struct pge_worker *w) {
    char text[80];
    snprintf(text, sizeof text, "TIMEOUT: worker %u did not load it within %u ms", w->index,
             (unsigned)pge_reload_limit_ms(w->supervisor));
    refuse(w->supervisor, text, HTTP_UNAVAILABLE);
}

/*
 * What kills the lead may be what it loads: refused. Another's death is no fault of the files,
 * which the lead could load: once, all begin again.
 */
void pge_reload_worker_died(struct pge_worker *w) {
    struct pge_supervisor *s = w->supervisor;
    struct pge_reload *r = &s->reload;
    bool took_part = r->phase != PGE_RELOAD_NONE && w->attempt == r->attempt;
    if (!took_part || s->is_stopping)
        return;
    if (r->phase == PGE_RELOAD_SWAP) {
        w->state = PGE_WORKER_NONE;
        end_swap(s);
    } else if (w->index != r->lead && !r->is_second_try) {
        r->is_second_try = r->wants_next = true;
        r->next_cause = r->cause;
        pge_list_splice(&r->next_askers, &r->askers);
        finish(s, s->committed.generation, "CONNECTION_CLOSED: a worker died: all begin again", 0);
    } else {
        char text[80];
        snprintf(text, sizeof text, "CONNECTION_CLOSED: worker %u (pid %d) died while it loaded",
                 w->index, (int)w->pid);
        refuse(s, text, HTTP_UNAVAILABLE);
    }
}

static bool was_told(const struct pge_buf *told, struct pge_span line) {
    const char *at = pge_buf_head(told), *end = at + pge_buf_len(told);
    while (at < end) {
        size_t n = (size_t)((const char *)memchr(at, '\n', (size_t)(end - at)) - at) + 1;
        if (n == line.n && memcmp(at, line.p, n) == 0)
            return true;
        at += n;
    }
    return false;
}

/* "address\n", ..., "\n". New addresses are told. */
void pge_reload_note_done(struct pge_worker *w, struct pge_span payload) {
    struct pge_buf *told = &w->supervisor->told;
    const char *stop = payload.n ? memchr(payload.p, '\n', payload.n) : NULL;
    struct pge_span rest = payload;
    while (stop && stop != rest.p) {
        struct pge_span line = {rest.p, (size_t)(stop - rest.p) + 1};
        if (!was_told(told, line))
            pge_say(NULL, "listening on %.*s", (int)line.n - 1, line.p);
        rest = (struct pge_span){rest.p + line.n, rest.n - line.n};
        stop = rest.n ? memchr(rest.p, '\n', rest.n) : NULL;
    }
    if (!stop)
        return;
    pge_buf_clear(told);
    pge_buf_append(told, payload.p, payload.n - rest.n);
}
