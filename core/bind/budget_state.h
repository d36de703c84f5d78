/* budget_state.h - what budget.c and its thread, budget_watch.c, share. */
#ifndef PGE_BIND_BUDGET_STATE_H
#define PGE_BIND_BUDGET_STATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "bind/budget.h"

enum { PGE_BUDGET_GRACE_MS = 1000 }; /* from the end of the budget to the end of the process */

struct pge_slice {
    uint64_t entry, call, load; /* counted in C */
    double task;                /* counted by the scheduler */
};

/* Why the slice that runs is being ended. */
enum pge_ending { PGE_GOES_ON, PGE_ENDS_TIME, PGE_ENDS_MEMORY };

struct pge_budget {
    lua_State *L; /* the main state; NULL: not started */
    struct pge_bind *bind;
    luv_CFpcall pcall;      /* luv's own */
    void (*ask_vm)(int);    /* LuaJIT's handler of SIGPROF */
    void (*on_signal)(int); /* ours, in its place */
    const char *own_prefix; /* of chunk names of perigee itself; owned by the registry */
    size_t own_prefix_len;
    int refs[5];
    unsigned slice_ms, load_ms, tick_ms;

    pthread_t main, thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool is_over; /* under lock */
    bool has_thread;
    bool has_time; /* else only memory counts */

    /* Written by the main thread, read by the other, or the other way round. */
    _Atomic uint64_t entry;      /* 0: no Lua runs */
    _Atomic uint64_t ticks;      /* of the thread */
    _Atomic uint64_t heard_tick; /* the last hook */
    _Atomic uint64_t over_tick;  /* the slice was first found over its budget; 0: it is not */
    _Atomic uint64_t doomed;     /* the entry with which the process ends; 0: none */
    atomic_bool speaks;          /* the signal handler itself is to tell the last words */
    _Atomic unsigned loading;    /* loads that have begun and not ended */
    atomic_bool is_asleep;

    /* The main thread's. */
    uint64_t last_entry, loads;
    struct pge_slice seen;
    uint64_t seen_tick;
    uint64_t flush_tick;    /* the last in which traces were thrown away */
    enum pge_ending ending; /* of the slice seen */
    bool has_error;         /* REF_ERROR is what it ends with */
    char where[160];        /* then: "file:line" that was first ended */
    lua_Hook other_hook;    /* a script's own, put back afterwards */
    int other_mask, other_count;
    volatile bool is_hooked;
};

/* Starts the thread. 0 or a negative code. */
int pge_budget_watch(struct pge_budget *b);
void pge_budget_unwatch(struct pge_budget *b);
/* Wakes it: an entry has begun. */
void pge_budget_wake(struct pge_budget *b);

/* Tells where the script stands and ends the process. From a signal handler or a profiler callback
 * of the main thread. */
_Noreturn void pge_budget_last_words(struct pge_budget *b);

/* Without the stack, from any thread. */
_Noreturn void pge_budget_die(const struct pge_budget *b);

#endif
