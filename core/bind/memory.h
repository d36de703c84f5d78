/*
 * memory.h - a ceiling for what one Lua state may hold: an allocator that counts, over the state's
 * own.
 *
 *   0 --- live --- mark: collect --- seven eighths: the script ends --- max --- twice that: refuse
 *
 * Above the mark all garbage is collected at the next line of Lua, since the collector itself waits
 * for a multiple of what lives. When more than seven eighths of the ceiling live then, the slice
 * that runs is ended (budget.c), and perigee's own code has the rest to go on with. An allocation
 * is hardly ever refused: LuaJIT 2.1 before 2023 may crash when one fails inside compiled code.
 * Twice the ceiling is what a table at the ceiling can ask for when it grows; beyond are single
 * requests such as
 * ("x"):rep(1e9), which no loop hot enough to be compiled makes.
 */
#ifndef PGE_BIND_MEMORY_H
#define PGE_BIND_MEMORY_H

#include <lua.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What it needs of others. */
struct pge_memory_calls {
    void (*on_pressure)(void);  /* asks the VM for a hook that calls pge_memory_collect */
    void (*trim)(lua_State *L); /* lets go of what is only kept for later; does not raise */
};

struct pge_memory {
    lua_Alloc alloc; /* the state's own; NULL: there is no ceiling */
    void *arg;
    lua_State *L;           /* the main state */
    size_t used, max, mark; /* bytes */
    const struct pge_memory_calls *calls;
    uint64_t full_since_ms; /* 0: it is not full */
    bool wants_collection;
    bool ends; /* a state that stays full ends the process */
};

/* Sets the ceiling. ends: see pge_memory_settle. */
void pge_memory_limit(struct pge_memory *memory, lua_State *L, size_t max_bytes, bool ends,
                      const struct pge_memory_calls *calls);

/* Gives the state its own allocator back. */
void pge_memory_release(struct pge_memory *memory);

/* Collects everything if that was asked for. True: what lives is still too much. Finalizers may
 * raise. */
bool pge_memory_collect(struct pge_memory *memory, lua_State *L);

/* Puts off the collection that was asked for, until a little more is used or the entry ends. */
void pge_memory_put_off(struct pge_memory *memory);

/*
 * For the end of an entry into Lua: collects if asked for. A state that is full after that, and was
 * a second ago, is of no use: its process ends with PGE_EXIT_SCRIPT, if it was told to. Finalizers
 * may raise.
 */
void pge_memory_settle(struct pge_memory *memory, lua_State *L);

#endif
