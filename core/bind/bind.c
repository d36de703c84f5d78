/* bind.c - the state's own pge_bind: found through the registry, closed with the state. */
#include "bind/bind.h"

#include <signal.h>
#include <string.h>

#include "base/alloc.h"
#include "bind/budget.h"
#include "bind/lua_json.h"
#include "bind/lua_json_state.h"

static const char KEY[] = "perigee.core";

/* Turns of a loop on which nothing is left, though something of ours is open: that would be a bug.
 */
enum { MAX_EMPTY_TURNS = 64 };

static void adopt(struct pge_loop *loop, uv_handle_t *handle) {
    struct pge_bind *bind = loop->adopt_arg;
    handle->data = &bind->tag;
}

/* ---- entering Lua ---- */

struct entry {
    struct pge_bind *bind;
    void (*fn)(void *);
    void *arg;
    bool has_run;
};

/* Stack: what was raised; it is popped. L: the main state, or a coroutine that calls luv. */
static void report(struct pge_bind *bind, lua_State *L) {
    if (bind->fault_ref == LUA_NOREF) {
        lua_pop(L, 1);
        return;
    }
    lua_rawgeti(L, LUA_REGISTRYINDEX, bind->fault_ref);
    lua_insert(L, -2);
    if (lua_pcall(L, 1, 0, 0) != 0)
        lua_pop(L, 1);
}

static void call_hook(struct pge_bind *bind, int ref) {
    if (ref == LUA_NOREF)
        return;
    lua_rawgeti(bind->L, LUA_REGISTRYINDEX, ref);
    if (lua_pcall(bind->L, 0, 0, 0) != 0)
        report(bind, bind->L);
}

static int run_entry(lua_State *L) {
    struct entry *entry = lua_touserdata(L, 1);
    call_hook(entry->bind, entry->bind->enter_ref);
    entry->has_run = true;
    entry->fn(entry->arg);
    call_hook(entry->bind, entry->bind->leave_ref);
    pge_memory_settle(&entry->bind->memory, L);
    return 0;
}

void pge_bind_enter(struct pge_engine *engine, void (*fn)(void *), void *arg) {
    struct pge_bind *bind = engine->host;
    if (bind->depth || bind->is_over) {
        fn(arg);
        return;
    }
    struct entry entry = {bind, fn, arg, false};
    lua_State *L = bind->L;
    bind->depth++;
    lua_rawgeti(L, LUA_REGISTRYINDEX, bind->run_ref);
    lua_pushlightuserdata(L, &entry);
    bind->luv->cb_pcall(L, 1, 0, LUVF_CALLBACK_NOEXIT | LUVF_CALLBACK_NOTRACEBACK);
    if (!entry.has_run)
        fn(arg); /* Lua had no room to start: what is owed is done all the same */
    bind->depth--;
}

static int traceback(lua_State *L) {
    lua_getglobal(L, "debug");
    if (lua_istable(L, -1)) {
        lua_getfield(L, -1, "traceback");
        if (lua_isfunction(L, -1) && lua_isstring(L, 1)) {
            lua_pushvalue(L, 1);
            lua_pushinteger(L, 2);
            lua_call(L, 2, 1);
            return 1;
        }
    }
    lua_settop(L, 1);
    return 1;
}

/* What to call stands in the bind: to pass it as light userdata would cost as much as the call. */
static int run_call(lua_State *L) {
    const struct pge_bind *bind = lua_touserdata(L, lua_upvalueindex(1));
    return bind->call_fn(L, bind->call_arg);
}

bool pge_bind_call(struct pge_bind *bind, pge_bind_fn fn, void *arg) {
    if (bind->is_over)
        return false;
    lua_State *L = bind->L;
    int top = lua_gettop(L);
    if (!lua_checkstack(L, 8))
        return false;
    if (bind->call_depth++ == 0)
        bind->calls++;
    lua_rawgeti(L, LUA_REGISTRYINDEX, bind->traceback_ref);
    lua_rawgeti(L, LUA_REGISTRYINDEX, bind->call_ref);
    bind->call_fn = fn;
    bind->call_arg = arg;
    int status = lua_pcall(L, 0, 0, top + 1);
    if (status != 0)
        report(bind, L);
    lua_settop(L, top);
    bind->call_depth--;
    return status == 0;
}

/* In place of luv's, which ends the process when a callback of a script's own raises. */
static int call_and_live(lua_State *L, int nargs, int nresults, int flags) {
    int at = lua_gettop(L) - nargs, handler = 0;
    if (!(flags & LUVF_CALLBACK_NOTRACEBACK)) {
        lua_rawgeti(L, LUA_REGISTRYINDEX, pge_bind_of(L)->traceback_ref);
        lua_insert(L, at);
        handler = at;
    }
    int status = lua_pcall(L, nargs, nresults, handler);
    if (status != 0)
        report(pge_bind_of(L), L);
    if (handler)
        lua_remove(L, handler);
    return status == 0 ? lua_gettop(L) - at + 1 : -status;
}

void pge_bind_keep_alive(struct pge_bind *bind) {
    bind->luv->cb_pcall = call_and_live;
}

/* ---- boxes ---- */

void pge_class(lua_State *L, const char *name, const luaL_Reg *methods, lua_CFunction gc) {
    luaL_newmetatable(L, name);
    lua_pushcfunction(L, gc);
    lua_setfield(L, -2, "__gc");
    lua_newtable(L);
    for (; methods->name; methods++) {
        lua_pushvalue(L, -2);
        lua_pushcclosure(L, methods->func, 1);
        lua_setfield(L, -2, methods->name);
    }
    lua_setfield(L, -2, "__index");
    lua_pushstring(L, name);
    lua_setfield(L, -2, "__name");
    lua_pop(L, 1);
}

void *pge_check_box(lua_State *L, int idx, const char *name) {
    void *box = lua_touserdata(L, idx);
    if (box && lua_getmetatable(L, idx)) {
        bool is_own = lua_rawequal(L, -1, lua_upvalueindex(1));
        lua_pop(L, 1);
        if (is_own)
            return box;
    }
    return luaL_checkudata(L, idx, name);
}

void *pge_box_new(lua_State *L, struct pge_bind *bind, size_t size, const char *class_name,
                  void (*drop)(struct pge_box *)) {
    struct pge_box *box = lua_newuserdata(L, size);
    memset(box, 0, size);
    box->bind = bind;
    box->drop = drop;
    pge_list_push(&bind->boxes, &box->node);
    luaL_getmetatable(L, class_name);
    lua_setmetatable(L, -2);
    return box;
}

void pge_box_anchor(lua_State *L, struct pge_box *box, int idx) {
    lua_pushvalue(L, idx);
    lua_rawgeti(L, LUA_REGISTRYINDEX, box->bind->anchors_ref);
    lua_pushlightuserdata(L, box);
    lua_pushvalue(L, -3);
    lua_rawset(L, -3);
    lua_pop(L, 2);
}

void pge_box_release(struct pge_box *box) {
    struct pge_bind *bind = box->bind;
    if (bind->is_over)
        return;
    lua_State *L = bind->L;
    lua_rawgeti(L, LUA_REGISTRYINDEX, bind->anchors_ref);
    lua_pushlightuserdata(L, box);
    lua_pushnil(L);
    lua_rawset(L, -3);
    lua_pop(L, 1);
}

void pge_box_push(lua_State *L, struct pge_box *box) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, box->bind->anchors_ref);
    lua_pushlightuserdata(L, box);
    lua_rawget(L, -2);
    lua_remove(L, -2);
}

/* ---- options ---- */

char *pge_opt_text(lua_State *L, int idx, const char *name) {
    char *copy = NULL;
    lua_getfield(L, idx, name);
    if (!lua_isnil(L, -1)) {
        size_t n;
        const char *text = lua_tolstring(L, -1, &n);
        if (!text)
            luaL_error(L, "option '%s' must be a string", name);
        copy = pge_strndup(text, n);
        if (!copy)
            luaL_error(L, "not enough memory");
    }
    lua_pop(L, 1);
    return copy;
}

double pge_opt_number(lua_State *L, int idx, const char *name, double fallback) {
    lua_getfield(L, idx, name);
    double value = lua_isnil(L, -1) ? fallback : lua_tonumber(L, -1);
    if (!lua_isnil(L, -1) && !lua_isnumber(L, -1))
        luaL_error(L, "option '%s' must be a number", name);
    lua_pop(L, 1);
    return value;
}

bool pge_opt_bool(lua_State *L, int idx, const char *name, bool fallback) {
    lua_getfield(L, idx, name);
    bool value = lua_isnil(L, -1) ? fallback : lua_toboolean(L, -1);
    lua_pop(L, 1);
    return value;
}

static const char *opt_borrowed(lua_State *L, int idx, const char *name) {
    lua_getfield(L, idx, name);
    const char *text = lua_tostring(L, -1);
    lua_pop(L, 1); /* the table keeps it alive */
    return text;
}

bool pge_opt_tls(lua_State *L, int idx, bool is_server, struct pge_tls **out, char *why,
                 size_t size) {
    *out = NULL;
    lua_getfield(L, idx, "tls");
    int at = lua_gettop(L);
    if (lua_istable(L, at)) {
        struct pge_tls_options options = {
            .ca = opt_borrowed(L, at, "ca"),
            .cert = opt_borrowed(L, at, "cert"),
            .key = opt_borrowed(L, at, "key"),
            .server_name = opt_borrowed(L, at, "server_name"),
            .alpn = opt_borrowed(L, at, "alpn"),
            .verify = pge_opt_bool(L, at, "verify", true),
        };
        *out = pge_tls_new(&options, is_server, why, size);
        lua_pop(L, 1);
        return *out != NULL;
    }
    lua_pop(L, 1);
    return true;
}

int pge_push_failure(lua_State *L, enum pge_fault fault, const char *message) {
    lua_pushnil(L);
    lua_pushstring(L, pge_fault_name(fault));
    lua_pushstring(L, message);
    return 3;
}

void pge_push_slice(lua_State *L, struct pge_span json) {
    lua_createtable(L, 1, 0);
    lua_pushlstring(L, json.p, json.n);
    lua_rawseti(L, -2, 1);
    lua_rawgeti(L, LUA_REGISTRYINDEX, PGE_LUA_JSON_STATE);
    lua_rawgeti(L, -1, PGE_LUA_JSON_SLICE_MT);
    lua_setmetatable(L, -3);
    lua_pop(L, 1);
}

void pge_push_span(lua_State *L, struct pge_span span) {
    if (span.p)
        lua_pushlstring(L, span.p, span.n);
    else
        lua_pushnil(L);
}

int pge_lua_write_value(void *arg, struct pge_buf *out) {
    struct pge_lua_value *value = arg;
    return pge_lua_json_encode(value->L, value->idx, value->room, out, value->err,
                               sizeof value->err);
}

struct pge_payload pge_lua_payload(struct pge_lua_value *value, lua_State *L, int idx) {
    value->L = L;
    value->idx = idx;
    value->room = 0;
    value->err[0] = '\0';
    return (struct pge_payload){.write = pge_lua_write_value, .arg = value};
}

struct pge_payload pge_lua_payload_roomy(struct pge_lua_value *value, lua_State *L, int idx) {
    luaL_checkstack(L, PGE_LUA_JSON_ROOM, NULL);
    struct pge_payload payload = pge_lua_payload(value, L, idx);
    value->room = PGE_LUA_JSON_ROOM;
    return payload;
}

/* ---- the state's own ---- */

static bool is_open(const struct pge_bind *bind) {
    return bind->loop.live || bind->loop.handles || bind->loop.handles_closing;
}

/*
 * Closing has its waits: a last write that the peer is slow to take (two seconds at most), a name
 * lookup that no one can cancel. What was left open would call back into memory that is gone.
 */
static void finish_closing(struct pge_bind *bind) {
    for (int empty = 0; empty < MAX_EMPTY_TURNS; empty++) {
        pge_loop_turn(&bind->loop);
        if (!is_open(bind))
            return;
        if (uv_run(bind->loop.uv, UV_RUN_ONCE))
            empty = 0;
    }
}

/* __gc of the sentinel: it was made after luv's loop, so it is collected before it. Everything is
 * closed here and now; luv would otherwise find our handles when it closes the loop. */
static int bind_gc(lua_State *L) {
    struct pge_bind **slot = lua_touserdata(L, 1);
    struct pge_bind *bind = *slot;
    if (!bind)
        return 0;
    *slot = NULL;
    bind->is_over = true;
    while (!pge_list_is_empty(&bind->boxes)) {
        struct pge_box *box = container_of(bind->boxes.next, struct pge_box, node);
        pge_list_remove(&box->node);
        box->drop(box);
    }
    finish_closing(bind);
    if (is_open(bind))
        return 0;
    pge_engine_deinit(&bind->engine);
    pge_loop_deinit(&bind->loop);
    pge_buf_deinit(&bind->pattern);
    pge_free(bind);
    return 0;
}

static luv_ctx_t *find_luv(lua_State *L) {
    lua_getfield(L, LUA_REGISTRYINDEX, "luv_context");
    luv_ctx_t *luv = lua_touserdata(L, -1);
    lua_pop(L, 1);
    return luv;
}

static luv_ctx_t *require_luv(lua_State *L) {
    luv_ctx_t *luv = find_luv(L);
    if (luv)
        return luv;
    lua_getglobal(L, "require");
    lua_pushliteral(L, "luv");
    lua_call(L, 1, 0);
    luv = find_luv(L);
    if (!luv)
        luaL_error(L, "perigee needs luv 1.44 or later");
    return luv;
}

/*
 * luv keeps its loop in its module's table, and closes it when that is collected: after a host has
 * forgotten the module, as busted does between files, our loop would be gone.
 */
static void keep_luv(lua_State *L) {
    lua_getglobal(L, "package");
    lua_getfield(L, -1, "loaded");
    lua_getfield(L, -1, "luv");
    lua_setfield(L, LUA_REGISTRYINDEX, "perigee.luv");
    lua_pop(L, 2);
}

/* libuv writes without MSG_NOSIGNAL: a peer that closed would end the host. A handler of the host's
 * own stays. */
static void ignore_sigpipe(void) {
    struct sigaction now;
    if (sigaction(SIGPIPE, NULL, &now) == 0 && now.sa_handler == SIG_DFL)
        signal(SIGPIPE, SIG_IGN);
}

static int new_ref(lua_State *L, struct pge_bind *bind, lua_CFunction fn) {
    lua_pushlightuserdata(L, bind);
    lua_pushcclosure(L, fn, 1);
    return luaL_ref(L, LUA_REGISTRYINDEX);
}

static struct pge_bind *bind_new(lua_State *L) {
    luv_ctx_t *luv = require_luv(L);
    keep_luv(L);
    ignore_sigpipe();
    struct pge_bind **slot = lua_newuserdata(L, sizeof *slot);
    *slot = NULL;
    lua_newtable(L);
    lua_pushcfunction(L, bind_gc);
    lua_setfield(L, -2, "__gc");
    lua_setmetatable(L, -2);
    lua_setfield(L, LUA_REGISTRYINDEX, KEY);
    struct pge_bind *bind = pge_calloc(1, sizeof *bind);
    if (!bind) {
        luaL_error(L, "not enough memory");
        return NULL; /* not reached: luaL_error is not declared so */
    }
    bind->L = luv->L;
    bind->luv = luv;
    pge_list_init(&bind->boxes);
    bind->enter_ref = bind->leave_ref = bind->fault_ref = bind->awaited_ref = LUA_NOREF;
    int status = pge_loop_init(&bind->loop, luv->loop, adopt, bind);
    if (status < 0) {
        pge_free(bind);
        luaL_error(L, "cannot set up the loop: %s", uv_strerror(status));
    }
    pge_engine_init(&bind->engine, &bind->loop);
    bind->engine.enter = pge_bind_enter;
    bind->engine.host = bind;
    *slot = bind;
    bind->tag.ctx = luv;
    bind->tag.callbacks[0] = bind->tag.callbacks[1] = LUA_NOREF;
    pge_lua_push_handles(L, bind);
    bind->tag.ref =
        luaL_ref(L, LUA_REGISTRYINDEX); /* genuine: luv frees a handle whose ref is not */
    bind->run_ref = new_ref(L, bind, run_entry);
    bind->call_ref = new_ref(L, bind, run_call);
    bind->traceback_ref = new_ref(L, bind, traceback);
    lua_newtable(L);
    bind->anchors_ref = luaL_ref(L, LUA_REGISTRYINDEX);
    return bind;
}

struct pge_bind *pge_bind_of(lua_State *L) {
    lua_getfield(L, LUA_REGISTRYINDEX, KEY);
    struct pge_bind **slot = lua_touserdata(L, -1);
    lua_pop(L, 1);
    return slot && *slot ? *slot : bind_new(L);
}

/* core.hooks{enter=, leave=, fault=, awaited=}: those that are given. */
static int core_hooks(lua_State *L) {
    struct pge_bind *bind = lua_touserdata(L, lua_upvalueindex(1));
    luaL_checktype(L, 1, LUA_TTABLE);
    const char *const names[] = {"enter", "leave", "fault", "awaited"};
    int *const refs[] = {&bind->enter_ref, &bind->leave_ref, &bind->fault_ref, &bind->awaited_ref};
    for (int i = 0; i < 4; i++) {
        lua_getfield(L, 1, names[i]);
        if (lua_isnil(L, -1)) {
            lua_pop(L, 1);
            continue;
        }
        luaL_checktype(L, -1, LUA_TFUNCTION);
        luaL_unref(L, LUA_REGISTRYINDEX, *refs[i]);
        *refs[i] = luaL_ref(L, LUA_REGISTRYINDEX);
    }
    return 0;
}

/* core.turn(): the end of a turn now; whether anything of ours is still open. For hosts that end.
 */
static int core_turn(lua_State *L) {
    struct pge_bind *bind = lua_touserdata(L, lua_upvalueindex(1));
    pge_loop_turn(&bind->loop);
    lua_pushboolean(L, is_open(bind));
    return 1;
}

/* core.caller(level) -> func, line: debug.getinfo(level, "fl") without a table. nil: no such level.
 */
static int core_caller(lua_State *L) {
    lua_Debug ar;
    if (!lua_getstack(L, (int)luaL_checkinteger(L, 1), &ar) || !lua_getinfo(L, "fl", &ar))
        return 0;
    lua_pushinteger(L, ar.currentline);
    return 2;
}

static void add(lua_State *L, struct pge_bind *bind, const char *name, lua_CFunction fn) {
    lua_pushlightuserdata(L, bind);
    lua_pushcclosure(L, fn, 1);
    lua_setfield(L, -2, name);
}

int luaopen_perigee_core(lua_State *L) {
    struct pge_bind *bind = pge_bind_of(L);
    lua_newtable(L);
    add(L, bind, "hooks", core_hooks);
    add(L, bind, "turn", core_turn);
    add(L, bind, "caller", core_caller);
    lua_pushinteger(L, PGE_REQUEST_SLOTS);
    lua_setfield(L, -2, "SLOTS");
    pge_lua_json(L);
    pge_lua_digest(L);
    pge_lua_tls(L);
    pge_lua_timer(L, bind);
    pge_lua_client(L, bind);
    pge_lua_server(L, bind);
    pge_lua_http(L, bind);
    pge_lua_budget(L, bind);
    return 1;
}
