/* supervise.c - from the start of `perigee serve` to its end: signals, pings, stopping. */
#include "supervisor/supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "supervisor/internal.h"

enum {
    PING_MS = 1000,      /* asked this often whether they live; few syscalls when idle */
    WATCHFUL_MS = 250,   /* while one owes an answer */
    SLEPT_MS = 1000,     /* a tick so late: it was the supervisor that slept */
    STOP_GRACE_MS = 5000 /* beyond the drain timeout, then stopping becomes killing */
};

int64_t pge_wall_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* ---- pings ---- */

static void on_ping(struct pge_timer *timer) {
    struct pge_supervisor *s = container_of(timer, struct pge_supervisor, ping);
    uint64_t now = pge_supervisor_now(s);
    bool slept = now - s->pinged_ms > SLEPT_MS + PING_MS, all_well = true;
    s->pinged_ms = now;
    for (unsigned i = 0; i < s->worker_count; i++) {
        struct pge_worker *w = s->workers[i];
        if (!pge_worker_is_well(w, slept))
            all_well = false;
        else if (w->state != PGE_WORKER_NONE)
            pge_worker_ping(w, false);
    }
    pge_loop_timer(&s->loop, &s->ping, all_well ? PING_MS : WATCHFUL_MS);
}

/* ---- the end ---- */

static bool is_any_left(const struct pge_supervisor *s) {
    for (unsigned i = 0; i < s->worker_count; i++)
        if (s->workers[i]->open_handles)
            return true;
    return false;
}

static void close_signals(struct pge_supervisor *s) {
    for (int i = 0; i < 3; i++)
        if (!uv_is_closing((uv_handle_t *)&s->signals[i]))
            uv_close((uv_handle_t *)&s->signals[i], NULL);
}

/* What is left on the loop ends by itself, and with it the loop. */
static void end(struct pge_supervisor *s) {
    pge_loop_timer_stop(&s->loop, &s->ping);
    pge_loop_timer_stop(&s->loop, &s->patience);
    pge_sockets_close(s);
    if (s->watch)
        pge_watch_free(s->watch);
    if (s->admin)
        pge_admin_close(s->admin);
    s->watch = NULL;
    s->admin = NULL;
    close_signals(s);
}

void pge_supervisor_worker_gone(struct pge_supervisor *s) {
    if (!is_any_left(s))
        end(s);
}

static void kill_all(struct pge_supervisor *s) {
    for (unsigned i = 0; i < s->worker_count; i++)
        pge_worker_kill(s->workers[i], "perigee ends");
}

static void on_impatient(struct pge_timer *timer) {
    struct pge_supervisor *s = container_of(timer, struct pge_supervisor, patience);
    pge_say("error", "the workers do not end by themselves: they are killed");
    s->exit_status = PGE_EXIT_FAILED;
    kill_all(s);
}

void pge_supervisor_stop(struct pge_supervisor *s, bool drains, int exit_status) {
    if (s->is_stopping)
        return;
    unsigned drain_ms = drains ? s->options.drain_timeout_ms : 0;
    s->is_stopping = true;
    s->exit_status = exit_status;
    pge_reload_cancel(s, "CANCELLED: perigee is ending");
    for (unsigned i = 0; i < s->worker_count; i++) {
        struct pge_worker *w = s->workers[i];
        pge_loop_timer_stop(&s->loop, &w->birth);
        pge_loop_timer_stop(&s->loop, &w->deadline);
        if (w->state == PGE_WORKER_BORN)
            pge_worker_kill(w, "perigee ends");
        else
            pge_control_send(w, PGE_STOP, drain_ms, (struct pge_span){0});
    }
    pge_loop_timer(&s->loop, &s->patience, (uint64_t)drain_ms + STOP_GRACE_MS);
    pge_supervisor_worker_gone(s); /* there may be none */
}

/* ---- signals ---- */

static void on_signal(uv_signal_t *handle, int number) {
    struct pge_supervisor *s = handle->data;
    if (number == SIGHUP) {
        pge_reload_ask(s, PGE_BY_HUP, NULL);
    } else if (!s->is_stopping) {
        pge_say("info", "draining");
        pge_supervisor_stop(s, true, 0);
    } else {
        s->exit_status = PGE_EXIT_FAILED;
        kill_all(s);
    }
}

static int watch_signals(struct pge_supervisor *s) {
    static const int numbers[3] = {SIGTERM, SIGINT, SIGHUP};
    int status = 0;
    signal(SIGPIPE, SIG_IGN);
    for (int i = 0; i < 3 && status == 0; i++) {
        uv_signal_init(&s->uv, &s->signals[i]);
        s->signals[i].data = s;
        status = uv_signal_start(&s->signals[i], on_signal, numbers[i]);
        uv_unref((uv_handle_t *)&s->signals[i]);
    }
    return status;
}

/* ---- the beginning ---- */

static int add_workers(struct pge_supervisor *s, unsigned count) {
    while (s->worker_count < count) {
        struct pge_worker *w = pge_worker_new(s, s->worker_count + 1);
        if (!w)
            return UV_ENOMEM;
        s->workers[s->worker_count++] = w;
    }
    return 0;
}

void pge_supervisor_configure(struct pge_supervisor *s, struct pge_span hello) {
    bool is_fatal = false;
    s->is_configured = true;
    pge_options_read(&s->options, hello);
    if (add_workers(s, s->options.workers) < 0)
        pge_say("error", "there is no memory for %u workers", s->options.workers);
    s->admin = pge_admin_open(s, &is_fatal);
    if (is_fatal) {
        pge_supervisor_stop(s, false, PGE_EXIT_FAILED);
        return;
    }
    s->reload.next_cause = PGE_BY_START;
    s->reload.wants_next = true;
    pge_reload_advance(s);
}

void pge_supervisor_first(struct pge_supervisor *s) {
    for (unsigned i = 1; i < s->worker_count; i++)
        pge_worker_start(s->workers[i]);
    if (s->options.watch)
        s->watch = pge_watch_new(s);
}

/* Of workers that are not there, nobody has fewer connections. */
static int share_counts(struct pge_supervisor *s) {
    s->counts_fd = memfd_create("perigee", MFD_CLOEXEC);
    if (s->counts_fd < 0 || ftruncate(s->counts_fd, sizeof *s->counts) < 0)
        return uv_translate_sys_error(errno);
    void *counts =
        mmap(NULL, sizeof *s->counts, PROT_READ | PROT_WRITE, MAP_SHARED, s->counts_fd, 0);
    if (counts == MAP_FAILED)
        return uv_translate_sys_error(errno);
    s->counts = counts;
    for (int i = 0; i < PGE_MAX_WORKERS; i++)
        atomic_init(&s->counts->open[i], UINT32_MAX);
    return 0;
}

/* By its path, not /proc/self/exe, which is valgrind's own under valgrind. */
static int open_program(struct pge_supervisor *s) {
    char path[PATH_MAX];
    size_t size = sizeof path;
    int status = uv_exepath(path, &size);
    if (status < 0)
        return status;
    s->program_fd = open(path, O_PATH | O_CLOEXEC);
    return s->program_fd < 0 ? uv_translate_sys_error(errno) : 0;
}

static int set_up(struct pge_supervisor *s) {
    pge_options_default(&s->options);
    pge_reload_init(&s->reload);
    pge_list_init(&s->sockets);
    pge_timer_init(&s->ping, on_ping);
    pge_timer_init(&s->patience, on_impatient);
    int status = uv_loop_init(&s->uv);
    if (status < 0)
        return status;
    status = pge_loop_init(&s->loop, &s->uv, NULL, NULL);
    if (status == 0)
        status = watch_signals(s);
    if (status == 0)
        status = share_counts(s);
    if (status == 0)
        status = open_program(s);
    if (status == 0)
        status = add_workers(s, 1);
    if (status == 0)
        status = pge_loop_timer(&s->loop, &s->ping, PING_MS);
    s->started_ms = s->pinged_ms = pge_supervisor_now(s);
    return status;
}

/* The process ends next, but sanitizers like to see that nothing was lost. */
static void tear_down(struct pge_supervisor *s) {
    close_signals(s);
    pge_loop_deinit(&s->loop);
    uv_run(&s->uv, UV_RUN_DEFAULT);
    uv_loop_close(&s->uv);
    for (unsigned i = 0; i < s->worker_count; i++)
        pge_worker_free(s->workers[i]);
    pge_reload_deinit(&s->reload);
    pge_buf_deinit(&s->committed.bundle);
    pge_buf_deinit(&s->outcome.text);
    pge_buf_deinit(&s->told);
    munmap(s->counts, sizeof *s->counts);
    close(s->counts_fd);
    close(s->program_fd);
    pge_free(s);
}

int pge_supervise(char **argv) {
    struct pge_supervisor *s = pge_calloc(1, sizeof *s);
    if (!s) {
        fputs("perigee: not enough memory\n", stderr);
        return PGE_EXIT_FAILED;
    }
    s->argv = argv;
    int status = set_up(s);
    if (status < 0) {
        pge_say("error", "cannot set up: %s", uv_strerror(status));
        return PGE_EXIT_FAILED;
    }
    pge_worker_start(s->workers[0]);
    uv_run(&s->uv, UV_RUN_DEFAULT);
    int exit_status = s->exit_status;
    tear_down(s);
    return exit_status;
}
