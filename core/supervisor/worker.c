/* worker.c - one worker's process: its birth, its silence, its death and its successor. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/alloc.h"
#include "supervisor/internal.h"

enum {
    FIRST_BACKOFF_MS = 100,
    MAX_BACKOFF_MS = 10000,
    YOUNG_MS = 100, /* served for less before it died: the next one waits longer */
    /* Of silence beyond the budget: after one second the worker ends itself, with its stack
     * (bind/budget.h); this is for one that cannot. */
    PATIENCE_MS = 2000
};

static void on_birth(struct pge_timer *timer) {
    pge_worker_start(container_of(timer, struct pge_worker, birth));
}

struct pge_worker *pge_worker_new(struct pge_supervisor *s, unsigned index) {
    struct pge_worker *w = pge_calloc(1, sizeof *w);
    if (!w)
        return NULL;
    w->supervisor = s;
    w->index = index;
    w->door_fd = -1;
    pge_timer_init(&w->birth, on_birth);
    pge_timer_init(&w->deadline, pge_worker_on_deadline);
    return w;
}

void pge_worker_free(struct pge_worker *w) {
    pge_buf_deinit(&w->in);
    pge_buf_deinit(&w->status);
    pge_free(w);
}

/* ---- death ---- */

/* Before the next one is born: a worker that dies young makes the wait twice as long. */
static void schedule_birth(struct pge_worker *w) {
    uint64_t now = pge_supervisor_now(w->supervisor);
    bool was_young = !w->served_ms || now - w->served_ms < YOUNG_MS;
    unsigned longer = w->backoff_ms ? w->backoff_ms * 2 : FIRST_BACKOFF_MS;
    w->backoff_ms = was_young ? longer : FIRST_BACKOFF_MS;
    if (w->backoff_ms > MAX_BACKOFF_MS)
        w->backoff_ms = MAX_BACKOFF_MS;
    w->restarts++;
    pge_loop_timer(&w->supervisor->loop, &w->birth, w->backoff_ms);
}

void pge_worker_handle_closed(struct pge_worker *w) {
    if (--w->open_handles)
        return;
    if (w->supervisor->is_stopping)
        pge_supervisor_worker_gone(w->supervisor);
    else
        schedule_birth(w);
}

static void on_process_closed(uv_handle_t *handle) {
    pge_worker_handle_closed(container_of((uv_process_t *)handle, struct pge_worker, process));
}

static void count_none(struct pge_worker *w) {
    atomic_store_explicit(&w->supervisor->counts->open[w->index - 1], UINT32_MAX,
                          memory_order_relaxed);
}

/* The process is no more: what was of it goes, too. */
static void bury(struct pge_worker *w) {
    struct pge_supervisor *s = w->supervisor;
    pge_loop_timer_stop(&s->loop, &w->deadline);
    pge_sockets_forget(s, w);
    count_none(w);
    w->is_ending = true;
    pge_reload_worker_died(w);
    w->state = PGE_WORKER_NONE;
    w->generation = 0;
    w->pid = 0;
    w->ping_ms = 0;
    pge_buf_clear(&w->status);
    if (w->control)
        pge_conn_close(w->control);
    pge_door_close(w);
    uv_close((uv_handle_t *)&w->process, on_process_closed);
    pge_reload_advance(s); /* it may have waited for this one to catch up */
}

static void tell_death(const struct pge_worker *w, int64_t status, int signal) {
    char how[80];
    if (signal)
        snprintf(how, sizeof how, "was ended by signal %d (%s)", signal, strsignal(signal));
    else
        snprintf(how, sizeof how, "exited with status %d", (int)status);
    pge_say("error", "worker %u (pid %d) %s", w->index, (int)w->pid, how);
}

static void on_exit_of(uv_process_t *process, int64_t status, int signal) {
    struct pge_worker *w = container_of(process, struct pge_worker, process);
    struct pge_supervisor *s = w->supervisor;
    if (s->is_stopping) {
        if (signal && !w->is_ending)
            tell_death(w, status, signal);
        if (!s->exit_status && !w->is_ending)
            s->exit_status = signal ? PGE_EXIT_FAILED : (int)status;
    } else if (!s->committed.generation) {
        /* A mistake on the command line, which the worker has told: it ends the program. */
        if (signal)
            tell_death(w, status, signal);
        pge_supervisor_stop(s, false, signal ? PGE_EXIT_FAILED : (int)status);
    } else {
        tell_death(w, status, signal);
    }
    bury(w);
}

void pge_worker_kill(struct pge_worker *w, const char *why) {
    if (!w->pid || w->is_ending)
        return;
    w->is_ending = true;
    if (why && !w->supervisor->is_stopping)
        pge_say("error", "worker %u (pid %d) is killed: %s", w->index, (int)w->pid, why);
    uv_process_kill(&w->process, SIGKILL);
}

/* ---- birth ---- */

extern char **environ;

/* The environment with the mark of a worker. NULL: out of memory. */
static char **marked_environment(char *mark) {
    size_t n = 0;
    while (environ[n])
        n++;
    char **all = pge_malloc((n + 2) * sizeof *all);
    if (!all)
        return NULL;
    memcpy(all, environ, n * sizeof *all);
    all[n] = mark;
    all[n + 1] = NULL;
    return all;
}

static int spawn(struct pge_worker *w, int control, int door) {
    char mark[64];
    snprintf(mark, sizeof mark, PGE_WORKER_ENV "=%d %u", (int)getpid(), w->index - 1);
    uv_stdio_container_t stdio[7] = {0};
    const int fds[7] = {
        0, 1, 2, control, door, w->supervisor->counts_fd, w->supervisor->program_fd};
    for (int i = 0; i < 7; i++) {
        stdio[i].flags = UV_INHERIT_FD;
        stdio[i].data.fd = fds[i];
    }
    uv_process_options_t options = {
        .exit_cb = on_exit_of,
        .file = "/proc/self/fd/6", /* PGE_PROGRAM_FD of the child */
        .args = w->supervisor->argv,
        .env = marked_environment(mark),
        .stdio_count = 7,
        .stdio = stdio,
    };
    if (!options.env)
        return UV_ENOMEM;
    int status = uv_spawn(&w->supervisor->uv, &w->process, &options);
    pge_free(options.env);
    w->open_handles++; /* also of a failed start: it is to be closed */
    return status;
}

static int make_pairs(int control[2], int door[2]) {
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, control) < 0)
        return uv_translate_sys_error(errno);
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, door) == 0)
        return 0;
    int status = uv_translate_sys_error(errno);
    close(control[0]);
    close(control[1]);
    return status;
}

static int start(struct pge_worker *w) {
    int control[2] = {-1, -1}, door[2] = {-1, -1};
    int status = make_pairs(control, door);
    if (status < 0)
        return status;
    status = spawn(w, control[1], door[1]);
    close(control[1]);
    close(door[1]);
    if (status < 0) {
        close(control[0]);
        close(door[0]);
        return status;
    }
    w->pid = w->process.pid;
    status = pge_control_open(w, control[0]);
    if (status == 0)
        status = pge_door_open(w, door[0]);
    else
        close(door[0]);
    if (status < 0)
        pge_worker_kill(w, uv_strerror(status)); /* its exit does the rest */
    return 0;
}

void pge_worker_start(struct pge_worker *w) {
    struct pge_supervisor *s = w->supervisor;
    w->state = PGE_WORKER_BORN;
    w->is_ending = false;
    w->generation = w->attempt = w->target = 0;
    w->served_ms = 0;
    w->heard_ms = w->ping_ms = pge_supervisor_now(s); /* HELLO is due as if asked for */
    int status = start(w);
    if (status == 0)
        return;
    pge_say("error", "worker %u cannot be started: %s", w->index, uv_strerror(status));
    w->state = PGE_WORKER_NONE;
    if (!s->committed.generation)
        pge_supervisor_stop(s, false, PGE_EXIT_FAILED);
    if (w->open_handles)
        uv_close((uv_handle_t *)&w->process, on_process_closed);
    else if (!s->is_stopping)
        schedule_birth(w);
}

/* ---- silence ---- */

void pge_worker_ping(struct pge_worker *w, bool wants_status) {
    if (!w->control || w->is_ending)
        return;
    if (!w->ping_ms)
        w->ping_ms = pge_supervisor_now(w->supervisor);
    w->pinged = ++w->supervisor->last_ping;
    struct pge_span wish = {"status", wants_status ? 6 : 0};
    pge_control_send(w, PGE_PING, w->pinged, wish);
}

bool pge_worker_is_well(struct pge_worker *w, bool may_be_late) {
    const struct pge_supervisor_options *o = &w->supervisor->options;
    uint64_t now = pge_supervisor_now(w->supervisor);
    if (!w->pid || w->is_ending || !w->ping_ms)
        return true;
    if (may_be_late)
        w->ping_ms = now;
    bool loads = w->state == PGE_WORKER_BORN || w->state == PGE_WORKER_LOADING;
    unsigned budget_ms = loads ? o->load_budget_ms : o->budget_ms;
    if (!budget_ms || now - w->ping_ms < budget_ms + PATIENCE_MS)
        return false;
    char why[80];
    snprintf(why, sizeof why, "it has been silent for %u ms", (unsigned)(now - w->ping_ms));
    pge_worker_kill(w, why);
    return true;
}
