/*
 * bind.h - the Lua half of the core: one pge_bind per lua_State, one lua_*.c file per class.
 *
 * C enters Lua in one place, pge_bind_enter: protected by luv's own call, on the main state, with
 * the scheduler told before and after. Inside it, each callback is one pge_bind_call: what it
 * raises is logged with a traceback and ends nothing else. A userdata is a box; the box owns its C
 * object; while C may still call back, the box is kept alive in the `anchors` table.
 */
#ifndef PGE_BIND_BIND_H
#define PGE_BIND_BIND_H

#include <lauxlib.h>
#include <lua.h>
#include <luv/lhandle.h>
#include <luv/luv.h>

#include "bind/memory.h"
#include "engine/client.h"
#include "engine/engine.h"
#include "engine/server.h"
#include "net/tls.h"

typedef int (*pge_bind_fn)(lua_State *L, void *arg);

struct pge_bind {
    lua_State *L;     /* the main state */
    luv_ctx_t *luv;   /* borrowed: lives as long as the state */
    luv_handle_t tag; /* what luv finds in data of each of our handles */
    struct pge_loop loop;
    struct pge_engine engine;
    int run_ref, call_ref, traceback_ref; /* registry: C functions of bind.c, made once */
    int enter_ref, leave_ref; /* registry: the scheduler's hooks; LUA_NOREF before it is loaded */
    int fault_ref;            /* registry: function(message) that logs what a callback raised */
    int awaited_ref;          /* registry: who hears of asks, see lua_client_ask.c */
    pge_bind_fn call_fn;      /* of the pge_bind_call that begins */
    void *call_arg;
    int anchors_ref;          /* registry: box pointer -> box */
    struct pge_list boxes;    /* all open boxes, to be closed with the state */
    struct pge_buf pattern;   /* of the call being made, encoded from a table */
    struct pge_memory memory; /* the ceiling of this state, if it has one */
    int depth;                /* entries on the stack */
    unsigned call_depth;      /* callbacks on the stack */
    uint64_t calls;           /* callbacks made from the bottom: slices, see budget.h */
    bool is_over;             /* the state is closing: no Lua is called any more */
};

/* A class instance that C may call back into; first member of every box. */
struct pge_box {
    struct pge_bind *bind;
    struct pge_list node;              /* bind->boxes */
    void (*drop)(struct pge_box *box); /* the state closes: let go of the C object, call no Lua */
};

/* The one of this state, made on first use (loads luv). Raises when there is no memory or no luv.
 */
struct pge_bind *pge_bind_of(lua_State *L);

/* Pushes a new box of a registered class, linked to bind->boxes. size: its struct. Raises. */
void *pge_box_new(lua_State *L, struct pge_bind *bind, size_t size, const char *class_name,
                  void (*drop)(struct pge_box *));
/* Keeps the box at idx alive until released. Raises on memory. */
void pge_box_anchor(lua_State *L, struct pge_box *box, int idx);
void pge_box_release(struct pge_box *box);
/* Pushes an anchored box; nil when it is not anchored. */
void pge_box_push(lua_State *L, struct pge_box *box);

/* engine.enter. */
void pge_bind_enter(struct pge_engine *engine, void (*fn)(void *), void *arg);

/* Runs fn(L, arg) with an empty stack, protected; inside pge_bind_enter. False: it raised, which is
 * logged. */
bool pge_bind_call(struct pge_bind *bind, pge_bind_fn fn, void *arg);

/* From here on what luv's callbacks raise is logged and ends no process: for the program. */
void pge_bind_keep_alive(struct pge_bind *bind);

/* Registers a class: methods in __index, gc in __gc. A method's first upvalue is the metatable. */
void pge_class(lua_State *L, const char *name, const luaL_Reg *methods, lua_CFunction gc);
/* luaL_checkudata; in a method of that class without a look-up of its name. */
void *pge_check_box(lua_State *L, int idx, const char *name);

/* ---- options out of a table at idx; missing is NULL or the fallback; wrong types raise ---- */
char *pge_opt_text(lua_State *L, int idx, const char *name); /* owned copy; raises on memory */
double pge_opt_number(lua_State *L, int idx, const char *name, double fallback);
bool pge_opt_bool(lua_State *L, int idx, const char *name, bool fallback);
/* The `settings` table: names with strings, numbers, booleans. Raises on memory, and on more than
 * PGE_MAX_SETTINGS. */
void pge_opt_settings(lua_State *L, int idx, struct pge_settings *out);
/* The `hosts` list: { host =, port =, path = }. Raises; what was read is in out. */
void pge_opt_hosts(lua_State *L, int idx, struct pge_host_options *out, unsigned *count);
/* The `tls` table, or *out NULL without one. False: why says what is wrong. */
bool pge_opt_tls(lua_State *L, int idx, bool is_server, struct pge_tls **out, char *why,
                 size_t size);

/* Pushes nil, code, message; returns 3. */
int pge_push_failure(lua_State *L, enum pge_fault fault, const char *message);

/* Pushes a slice of validated JSON text (a copy). Raises on memory. */
void pge_push_slice(lua_State *L, struct pge_span json);
/* Pushes a span as a string, nil when p is NULL. */
void pge_push_span(lua_State *L, struct pge_span span);

/* A Lua value on its way to a wire. */
struct pge_lua_value {
    lua_State *L;
    int idx;
    int room; /* of pge_lua_json_encode */
    char err[200];
};
/* A payload that encodes the value at idx (absolute); raw slices included. */
int pge_lua_write_value(void *value, struct pge_buf *out); /* pge_payload.write */
struct pge_payload pge_lua_payload(struct pge_lua_value *value, lua_State *L, int idx);
/*
 * The same, cheaper to write: the stack it takes is reserved now, which may raise. The top must
 * not rise, and Lua must not run, until the payload is written.
 */
struct pge_payload pge_lua_payload_roomy(struct pge_lua_value *value, lua_State *L, int idx);

/* A flat list of strings at idx, { name, value, ... }, as spans into them: at has room for
 * PGE_MAX_HEADERS. nil: none. Raises when it is something else. */
struct pge_headers pge_lua_headers(lua_State *L, int idx, struct pge_header *at);
/* Pushes headers as a table: name -> value, or a list of values where a name repeats; nil: none. */
void pge_push_headers(lua_State *L, struct pge_headers headers);

/* What a server is to hear: { { route =, settings = }, ... }. The routes are the list's. */
struct pge_lua_wishes {
    struct pge_wish *at; /* owned */
    unsigned count;
};
/* False: an error was pushed, and there is nothing to free. */
bool pge_lua_read_wishes(lua_State *L, int idx, struct pge_lua_wishes *out);
void pge_lua_free_wishes(struct pge_lua_wishes *wishes);

/* Each adds its part to the module table on top of the stack. */
void pge_lua_digest(lua_State *L);
void pge_lua_tls(lua_State *L);
/* Pushes what luv finds in our handles: tostring of it names those that are open. */
void pge_lua_push_handles(lua_State *L, struct pge_bind *bind);
void pge_lua_timer(lua_State *L, struct pge_bind *bind);
void pge_lua_client(lua_State *L, struct pge_bind *bind);
void pge_lua_server(lua_State *L, struct pge_bind *bind);
void pge_lua_http(lua_State *L, struct pge_bind *bind);

/* The client behind a core.client at idx; raises when it is not one. */
struct pge_client *pge_check_client(lua_State *L, int idx);

int luaopen_perigee_core(lua_State *L);

#endif
