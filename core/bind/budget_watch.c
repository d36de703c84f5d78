/* budget_watch.c - the thread that notices what does not come back, and the end of the process. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "bind/budget_state.h"
#include "bind/stack.h"

enum {
    QUIET_TICKS = 20,     /* without Lua, before the thread sleeps */
    LAST_WORDS_MS = 1000, /* for the main thread to tell the stack */
    SIGNAL_TICKS = 3,     /* for the VM to get to a line where the stack is in order */
    MAX_WORDS = 8192,
};

/* What the thread remembers from tick to tick. */
struct sight {
    uint64_t entry, since_tick, doomed_tick;
    unsigned quiet;
};

/* ---- the end ---- */

static void say(const char *text, size_t n) {
    while (n) {
        ssize_t done = write(STDERR_FILENO, text, n);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return;
        text += done;
        n -= (size_t)done;
    }
}

static unsigned limit_of(const struct pge_budget *b) {
    return atomic_load(&b->loading) ? b->load_ms : b->slice_ms;
}

static _Noreturn void end_with(const struct pge_budget *b, const char *where, const char *stack) {
    char text[MAX_WORDS + 512];
    int n = snprintf(text, sizeof text,
                     "perigee: SCRIPT: %s did not come back within %u ms and cannot be stopped: "
                     "the process ends\n%s",
                     where, limit_of(b), stack);
    say(text, n < (int)sizeof text ? (size_t)n : sizeof text - 1);
    _exit(PGE_EXIT_SCRIPT);
}

_Noreturn void pge_budget_die(const struct pge_budget *b) {
    end_with(b, "a script", "");
}

static const struct pge_budget *dying; /* for the handler below */

static void on_broken_stack(int number) {
    (void)number;
    pge_budget_die(dying);
}

_Noreturn void pge_budget_last_words(struct pge_budget *b) {
    /* Walking the stack of a VM stopped anywhere may touch what is not there any more. */
    dying = b;
    signal(SIGSEGV, on_broken_stack);
    signal(SIGBUS, on_broken_stack);
    char where[sizeof b->where] = "a script", stack[MAX_WORDS] = "";
    if (b->ending && b->has_error)
        memcpy(where, b->where, sizeof where);
    pge_stack_write(b->L, b->own_prefix, stack, sizeof stack, where, sizeof where);
    end_with(b, where, stack);
}

/* ---- the thread ---- */

static bool is_mute(const struct pge_budget *b, const struct sight *sight, uint64_t tick) {
    uint64_t heard = atomic_load(&b->heard_tick), over = atomic_load(&b->over_tick);
    if (heard < sight->since_tick)
        heard = sight->since_tick;
    if (over && (tick - over) * b->tick_ms >= PGE_BUDGET_GRACE_MS)
        return true;
    return (tick - heard) * b->tick_ms >= limit_of(b) + PGE_BUDGET_GRACE_MS;
}

/* The main thread is asked to tell its stack, first at a line of Lua, then wherever it is. */
static void doom(struct pge_budget *b, struct sight *sight, uint64_t tick) {
    if (!sight->doomed_tick) {
        sight->doomed_tick = tick;
        atomic_store(&b->doomed, sight->entry);
        return;
    }
    uint64_t since = tick - sight->doomed_tick;
    if (since >= SIGNAL_TICKS)
        atomic_store(&b->speaks, true);
    if (since >= SIGNAL_TICKS && (since - SIGNAL_TICKS) * b->tick_ms >= LAST_WORDS_MS)
        pge_budget_die(b);
}

/* Not when a script has taken the signal, with jit.p: by default it ends the process. */
static void poke(struct pge_budget *b) {
    struct sigaction now;
    if (sigaction(SIGPROF, NULL, &now) == 0 && now.sa_handler == b->on_signal)
        pthread_kill(b->main, SIGPROF);
}

static void look(struct pge_budget *b, struct sight *sight) {
    uint64_t tick = atomic_fetch_add(&b->ticks, 1) + 1, entry = atomic_load(&b->entry);
    sight->quiet = entry ? 0 : sight->quiet + 1;
    if (entry != sight->entry) {
        sight->entry = entry;
        sight->since_tick = tick;
        sight->doomed_tick = 0;
        atomic_store(&b->doomed, 0);
        atomic_store(&b->speaks, false);
        return;
    }
    if (!entry)
        return;
    if (sight->doomed_tick || is_mute(b, sight, tick))
        doom(b, sight, tick);
    poke(b);
}

static void wait_tick(struct pge_budget *b) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += (long)b->tick_ms * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    pthread_cond_timedwait(&b->wake, &b->lock, &until);
}

/* Until an entry begins. Either it sees that we sleep, or we see that it has begun. */
static void sleep_long(struct pge_budget *b, struct sight *sight) {
    atomic_store(&b->is_asleep, true);
    if (!atomic_load(&b->entry))
        pthread_cond_wait(&b->wake, &b->lock);
    atomic_store(&b->is_asleep, false);
    sight->quiet = 0;
}

static void *watch(void *arg) {
    struct pge_budget *b = arg;
    struct sight sight = {0};
    pthread_mutex_lock(&b->lock);
    while (!b->is_over) {
        if (sight.quiet >= QUIET_TICKS)
            sleep_long(b, &sight);
        else
            wait_tick(b);
        if (!b->is_over)
            look(b, &sight);
    }
    pthread_mutex_unlock(&b->lock);
    return NULL;
}

void pge_budget_wake(struct pge_budget *b) {
    atomic_store(&b->is_asleep, false); /* it is told once */
    pthread_mutex_lock(&b->lock);
    pthread_cond_signal(&b->wake);
    pthread_mutex_unlock(&b->lock);
}

int pge_budget_watch(struct pge_budget *b) {
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&b->lock, NULL);
    pthread_cond_init(&b->wake, &attr);
    pthread_condattr_destroy(&attr);
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* it handles none of the process's signals */
    int status = pthread_create(&b->thread, NULL, watch, b);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    b->has_thread = status == 0;
    return -status; /* errno values, as libuv's codes are */
}

void pge_budget_unwatch(struct pge_budget *b) {
    if (b->has_thread) {
        pthread_mutex_lock(&b->lock);
        b->is_over = true;
        pthread_cond_signal(&b->wake);
        pthread_mutex_unlock(&b->lock);
        pthread_join(b->thread, NULL);
        b->has_thread = false;
    }
    pthread_cond_destroy(&b->wake);
    pthread_mutex_destroy(&b->lock);
}
