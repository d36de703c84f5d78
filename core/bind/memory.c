/* memory.c - the ceiling of a Lua state. */
#include "bind/memory.h"

#include <luajit.h>
#include <stdio.h>
#include <unistd.h>
#include <uv.h>

#include "bind/budget.h"

enum { MIB = 1 << 20, STEP = MIB, FULL_MS = 1000 /* so long others may end and free theirs */ };

static size_t soft_of(const struct pge_memory *m) {
    return m->max / 8 * 7;
}

/* Half of the way to the limit, but not for every little bit: collecting would be all that is done.
 */
static void set_mark(struct pge_memory *m) {
    size_t usual = m->max / 4 * 3, soft = soft_of(m);
    size_t half = m->used < soft ? (soft - m->used) / 2 : 0;
    m->mark = m->used + (half > STEP ? half : STEP);
    if (m->mark < usual)
        m->mark = usual;
}

/* lua_Alloc. LuaJIT tells the old size truly, 0 for a new block. */
static void *counting_alloc(void *arg, void *ptr, size_t old_size, size_t size) {
    struct pge_memory *m = arg;
    size_t hard = m->max * 2;
    if (size > old_size && (m->used > hard || size - old_size > hard - m->used))
        return NULL;
    void *block = m->alloc(m->arg, ptr, old_size, size);
    if (!block && size)
        return NULL;
    m->used += size - old_size;
    if (m->used > m->mark) {
        m->mark = SIZE_MAX;
        m->wants_collection = true;
        m->calls->on_pressure();
    }
    return block;
}

void pge_memory_limit(struct pge_memory *m, lua_State *L, size_t max_bytes, bool ends,
                      const struct pge_memory_calls *calls) {
    m->L = L;
    m->max = max_bytes;
    m->ends = ends;
    m->calls = calls;
    m->used = (size_t)lua_gc(L, LUA_GCCOUNT, 0) * 1024 + (size_t)lua_gc(L, LUA_GCCOUNTB, 0);
    m->alloc = lua_getallocf(L, &m->arg);
    set_mark(m);
    lua_setallocf(L, counting_alloc, m);
}

void pge_memory_release(struct pge_memory *m) {
    if (!m->alloc)
        return;
    lua_setallocf(m->L, m->alloc, m->arg);
    m->alloc = NULL;
    m->wants_collection = false;
}

bool pge_memory_collect(struct pge_memory *m, lua_State *L) {
    if (!m->wants_collection)
        return false;
    m->wants_collection = false; /* before finalizers: they may raise */
    lua_gc(L, LUA_GCCOLLECT, 0);
    if (m->used > soft_of(m)) {
        /* Traces too: they hold their constants, closures and all that those reach. */
        luaJIT_setmode(L, 0, LUAJIT_MODE_ENGINE | LUAJIT_MODE_FLUSH);
        m->calls->trim(L);
        lua_gc(L, LUA_GCCOLLECT, 0);
    }
    set_mark(m);
    m->wants_collection = m->used > soft_of(m); /* what is ended for it has garbage to leave */
    return m->wants_collection;
}

void pge_memory_put_off(struct pge_memory *m) {
    if (m->wants_collection)
        m->mark = m->used + STEP;
}

static _Noreturn void end_full(const struct pge_memory *m) {
    fprintf(stderr,
            "perigee: SCRIPT: the scripts hold %zu of %zu MiB, which cannot be collected: the "
            "process ends\n",
            m->used / MIB, m->max / MIB);
    _exit(PGE_EXIT_SCRIPT);
}

void pge_memory_settle(struct pge_memory *m, lua_State *L) {
    if (!m->wants_collection && !m->full_since_ms)
        return;
    pge_memory_collect(m, L);
    m->wants_collection = false;
    if (m->used <= soft_of(m)) {
        m->full_since_ms = 0;
        return;
    }
    uint64_t now_ms = uv_hrtime() / 1000000;
    if (!m->full_since_ms)
        m->full_since_ms = now_ms;
    /* Far beyond it there is no time to wait: at twice the limit perigee itself gets no memory. */
    bool is_over = m->used > m->max / 4 * 5 || now_ms - m->full_since_ms >= FULL_MS;
    if (m->ends && is_over)
        end_full(m);
}
