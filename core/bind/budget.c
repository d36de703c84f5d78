/* budget.c - slices, and the hook that ends those which take too long. */
#include "bind/budget.h"

#include <errno.h>
#include <limits.h>
#include <luajit.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>

#include "bind/budget_state.h"

enum { REF_SLICES, REF_ON_OVER, REF_TRIM, REF_ERROR, REF_PREFIX };

/* One for the process: a signal handler has no argument, and LuaJIT's profiler is process-wide. */
static struct pge_budget budget;

/* ---- the signal ---- */

static void on_hook(lua_State *L, lua_Debug *ar);

/* Async-signal context, but LuaJIT's functions called here are made for it. */
static void interrupt(struct pge_budget *b) {
    b->ask_vm(SIGPROF);
    lua_Hook now = lua_gethook(b->L);
    if (now != on_hook) {
        b->other_hook = now;
        b->other_mask = lua_gethookmask(b->L);
        b->other_count = lua_gethookcount(b->L);
    }
    lua_sethook(b->L, on_hook, LUA_MASKCOUNT, 1);
    b->is_hooked = true;
}

static void on_signal(int number) {
    (void)number;
    struct pge_budget *b = &budget;
    if (!b->L || !pthread_equal(pthread_self(), b->main))
        return; /* somebody's kill -PROF */
    int saved = errno;
    if (atomic_load(&b->doomed) && atomic_load(&b->doomed) == atomic_load(&b->entry)) {
        if (atomic_load(&b->speaks))
            pge_budget_last_words(b);
        b->ask_vm(SIGPROF);
    } else {
        interrupt(b);
    }
    errno = saved;
}

/* The profiler's, between two lines of Lua and, unlike a hook, also inside a handler that a hook's
 * error has called. */
static void on_profile(void *arg, lua_State *L, int samples, int vm_state) {
    (void)L, (void)samples, (void)vm_state;
    struct pge_budget *b = arg;
    uint64_t doomed = atomic_load(&b->doomed);
    if (doomed && doomed == atomic_load(&b->entry))
        pge_budget_last_words(b);
}

static void unhook(struct pge_budget *b) {
    b->is_hooked = false;
    lua_sethook(b->L, b->other_hook, b->other_mask, b->other_count);
}

/* ---- slices ---- */

static struct pge_slice slice_now(struct pge_budget *b, lua_State *L) {
    struct pge_slice now = {atomic_load(&b->entry), b->bind->calls, b->loads, 0};
    lua_rawgeti(L, LUA_REGISTRYINDEX, b->refs[REF_SLICES]);
    lua_rawgeti(L, -1, 1);
    now.task = lua_tonumber(L, -1);
    lua_pop(L, 2);
    return now;
}

static bool is_same(const struct pge_slice *a, const struct pge_slice *b) {
    return a->entry == b->entry && a->call == b->call && a->load == b->load && a->task == b->task;
}

static unsigned limit_of(struct pge_budget *b) {
    return atomic_load(&b->loading) ? b->load_ms : b->slice_ms;
}

/* What the slice ends with, made once: later raises are farther out. */
static void make_error(struct pge_budget *b, lua_State *L, lua_Debug *ar) {
    b->has_error = true;
    lua_getinfo(L, "l", ar);
    snprintf(b->where, sizeof b->where, "%s:%d", ar->short_src, ar->currentline);
    if (b->ending == PGE_ENDS_MEMORY)
        lua_pushfstring(L, "not enough memory at %s", b->where);
    else
        lua_pushfstring(L, "took longer than %d ms at %s", (int)limit_of(b), b->where);
    lua_rawgeti(L, LUA_REGISTRYINDEX, b->refs[REF_ON_OVER]);
    lua_pushvalue(L, -2);
    if (lua_pcall(L, 1, 1, 0) != 0) { /* no room left to make a table: the text is all */
        lua_pop(L, 1);
        lua_pushvalue(L, -1);
    }
    lua_rawseti(L, LUA_REGISTRYINDEX, b->refs[REF_ERROR]);
    lua_pop(L, 1);
}

/*
 * A trace of perigee's own code may have the script's inlined, and no hook is called in a trace.
 * Interpreted again, for a while, the script comes by here. Not for each line: once a tick, and for
 * each bit of memory that is used meanwhile.
 */
static void interpret(struct pge_budget *b, lua_State *L) {
    uint64_t tick = atomic_load(&b->ticks);
    struct pge_memory *memory = &b->bind->memory;
    if (tick == b->flush_tick && !(memory->wants_collection && memory->mark == SIZE_MAX))
        return;
    b->flush_tick = tick;
    pge_memory_put_off(memory);
    luaJIT_setmode(L, 0, LUAJIT_MODE_ENGINE | LUAJIT_MODE_FLUSH);
}

/* LuaJIT's own functions in Lua, such as table.remove, may have been called by ours. */
static bool is_script(const struct pge_budget *b, const char *source) {
    return strncmp(source, b->own_prefix, b->own_prefix_len) != 0 && strncmp(source, "=[", 2) != 0;
}

/* perigee's own code keeps its promises: it is left to finish, and what it returns to ends. */
static void raise_in_script(struct pge_budget *b, lua_State *L, lua_Debug *ar) {
    lua_getinfo(L, "S", ar);
    if (!is_script(b, ar->source)) {
        interpret(b, L);
        return;
    }
    if (!b->has_error)
        make_error(b, L, ar);
    lua_rawgeti(L, LUA_REGISTRYINDEX, b->refs[REF_ERROR]);
    lua_error(L);
}

static void set_ending(struct pge_budget *b, enum pge_ending why, uint64_t tick) {
    b->ending = why;
    b->has_error = false;
    b->flush_tick = tick;
    atomic_store(&b->over_tick, why ? tick + 1 : 0); /* 0 says: none */
}

static void on_hook(lua_State *L, lua_Debug *ar) {
    struct pge_budget *b = &budget;
    uint64_t tick = atomic_load(&b->ticks);
    struct pge_slice now = slice_now(b, L);
    atomic_store(&b->heard_tick, tick);
    if (!is_same(&now, &b->seen)) {
        b->seen = now;
        b->seen_tick = tick;
        set_ending(b, PGE_GOES_ON, tick);
    }
    if (!b->ending && pge_memory_collect(&b->bind->memory, L))
        set_ending(b, PGE_ENDS_MEMORY, tick);
    else if (!b->ending && (tick - b->seen_tick) * b->tick_ms > limit_of(b))
        set_ending(b, PGE_ENDS_TIME, tick);
    if (b->ending)
        raise_in_script(b, L, ar);
    else
        unhook(b);
}

static void on_pressure(void) {
    interrupt(&budget);
}

static void trim(lua_State *L) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, budget.refs[REF_TRIM]);
    if (lua_pcall(L, 0, 0, 0) != 0)
        lua_pop(L, 1);
}

static const struct pge_memory_calls memory_calls = {on_pressure, trim};

/* ---- entries ---- */

static void leave(struct pge_budget *b) {
    atomic_store_explicit(&b->entry, 0, memory_order_release);
    if (!b->is_hooked)
        return;
    unhook(b);
    set_ending(b, PGE_GOES_ON, 0);
}

/* In place of luv's: around every entry from the loop into Lua. */
static int enter(lua_State *L, int nargs, int nresults, int flags) {
    struct pge_budget *b = &budget;
    if (atomic_load_explicit(&b->entry, memory_order_relaxed)) /* from inside Lua */
        return b->pcall(L, nargs, nresults, flags);
    atomic_store(&b->entry, ++b->last_entry);
    if (atomic_load(&b->is_asleep))
        pge_budget_wake(b);
    int status = b->pcall(L, nargs, nresults, flags);
    leave(b);
    return status;
}

void pge_budget_leave(void) {
    if (budget.L)
        leave(&budget);
}

/* ---- start and stop ---- */

/* The profiler compiles the checks; its timer is not wanted, only its handler. */
static void start_profiler(struct pge_budget *b) {
    luaJIT_profile_start(b->L, "li1000000", on_profile, b);
    const struct itimerval never = {{0, 0}, {0, 0}};
    setitimer(ITIMER_PROF, &never, NULL);
    struct sigaction action;
    sigaction(SIGPROF, NULL, &action);
    b->ask_vm = action.sa_handler;
    action.sa_handler = b->on_signal = on_signal;
    action.sa_flags = SA_RESTART;
    sigaction(SIGPROF, &action, NULL);
}

static void read_refs(lua_State *L, struct pge_budget *b) {
    const char *const names[] = {"slices", "on_over", "trim"};
    const int types[] = {LUA_TTABLE, LUA_TFUNCTION, LUA_TFUNCTION};
    for (int i = 0; i < 3; i++) {
        lua_getfield(L, 1, names[i]);
        luaL_checktype(L, -1, types[i]);
        b->refs[i] = luaL_ref(L, LUA_REGISTRYINDEX);
    }
    lua_pushboolean(L, 1); /* nil would not get a place of its own */
    b->refs[REF_ERROR] = luaL_ref(L, LUA_REGISTRYINDEX);
    lua_getfield(L, 1, "own");
    b->own_prefix = luaL_checklstring(L, -1, &b->own_prefix_len);
    b->refs[REF_PREFIX] = luaL_ref(L, LUA_REGISTRYINDEX);
}

static unsigned tick_for(unsigned slice_ms) {
    unsigned tick = slice_ms / 10;
    return tick < 5 ? 5 : tick > 100 ? 100 : tick;
}

static void read_limits(lua_State *L, struct pge_budget *b) {
    b->slice_ms = (unsigned)pge_opt_number(L, 1, "slice", 0);
    b->load_ms = (unsigned)pge_opt_number(L, 1, "load", b->slice_ms);
    b->has_time = b->slice_ms > 0;
    if (!b->has_time)
        b->slice_ms = b->load_ms = UINT_MAX;
    b->tick_ms = tick_for(b->slice_ms);
}

static int start_time(struct pge_budget *b) {
    return b->has_time ? pge_budget_watch(b) : 0;
}

/* core.budget{ slice=, load=, max_memory=, ends=, slices=, own=, on_over=, trim= }. */
static int core_budget(lua_State *L) {
    struct pge_bind *bind = lua_touserdata(L, lua_upvalueindex(1));
    struct pge_budget *b = &budget;
    luaL_checktype(L, 1, LUA_TTABLE);
    if (b->L)
        return luaL_error(L, "the budget runs already");
    double max_memory = pge_opt_number(L, 1, "max_memory", 0);
    luaL_argcheck(L, max_memory == 0 || (max_memory >= 1 << 20 && max_memory < 0x1p52), 1,
                  "max_memory is not a number of bytes");
    memset(b, 0, sizeof *b);
    b->bind = bind;
    read_limits(L, b);
    read_refs(L, b);
    b->main = pthread_self();
    b->L = bind->L;
    atomic_store(&b->entry, ++b->last_entry); /* this one: pge_budget_leave ends it */
    start_profiler(b);
    int status = start_time(b);
    if (status < 0) {
        pge_budget_stop();
        return luaL_error(L, "cannot start the budget's thread: %s", uv_strerror(status));
    }
    if (max_memory > 0)
        pge_memory_limit(&bind->memory, b->L, (size_t)max_memory, pge_opt_bool(L, 1, "ends", false),
                         &memory_calls);
    b->pcall = bind->luv->cb_pcall;
    bind->luv->cb_pcall = enter;
    return 0;
}

void pge_budget_stop(void) {
    struct pge_budget *b = &budget;
    if (!b->L)
        return;
    if (b->has_time)
        pge_budget_unwatch(b);
    pge_memory_release(&b->bind->memory);
    if (b->pcall)
        b->bind->luv->cb_pcall = b->pcall;
    if (b->is_hooked)
        unhook(b);
    luaJIT_profile_stop(b->L); /* SIGPROF is as before */
    b->L = NULL;
}

/* core.loading(bool): a script is being loaded, which has a budget of its own. Pairs. */
static int core_loading(lua_State *L) {
    struct pge_budget *b = &budget;
    b->loads++;
    unsigned now = atomic_load(&b->loading);
    if (lua_toboolean(L, 1))
        atomic_store(&b->loading, now + 1);
    else if (now)
        atomic_store(&b->loading, now - 1);
    return 0;
}

static void add(lua_State *L, struct pge_bind *bind, const char *name, lua_CFunction fn) {
    lua_pushlightuserdata(L, bind);
    lua_pushcclosure(L, fn, 1);
    lua_setfield(L, -2, name);
}

void pge_lua_budget(lua_State *L, struct pge_bind *bind) {
    add(L, bind, "budget", core_budget);
    add(L, bind, "loading", core_loading);
}
