/*
 * lua_client_ask.c - core.client: the short way of `send(...):await()`. One call of C sends and
 * yields; the packet resumes the coroutine through one function of Lua, which all asks share.
 *
 *   ask() -> packet on the wire, calls[slot] = task, yield   ...   awaited(task, kind, value)
 */
#include "bind/lua_client.h"

/* Arguments of ask; upvalues: the box, its `calls`, what a coroutine that awaits yields. */
enum { PATTERN = 1, DATA, TASK, CO, TIMEOUT, RAW, DEADLINE, METADATA, HEADERS };
enum { BOX = 1, CALLS, TOKEN };

bool pge_lua_client_is_ask(const struct pge_call *call) {
    const struct pge_call_events *events = pge_call_events_of(call);
    return events == &pge_lua_client_ask_events[0] || events == &pge_lua_client_ask_events[1];
}

static struct pge_call *dispatch(lua_State *L, struct pge_lua_client *c, struct pge_lua_message *m,
                                 struct pge_failure *why) {
    struct pge_call_options options = {
        .timeout_ms = pge_lua_client_opt_ms(L, TIMEOUT),
        .deadline_ms = pge_lua_client_opt_ms(L, DEADLINE),
        .events = &pge_lua_client_ask_events[lua_toboolean(L, RAW)],
        .arg = c,
    };
    pge_lua_client_read(L, c->box.bind, PATTERN, METADATA, HEADERS, m);
    return m->m.pattern.p ? pge_client_send(c->client, &m->m, &options, why) : NULL;
}

/* To LuaJIT a lua_yield of C is the hook's own while a debug hook runs, or a finalizer, for whose
 * time the collector is stopped. */
static bool may_yield(lua_State *L) {
    return lua_isyieldable(L) && lua_gc(L, LUA_GCISRUNNING, 0) && !lua_gethookmask(L);
}

/*
 * ask(pattern, data, task, co, timeout_ms, raw, deadline_ms, metadata, headers, options): yields
 * until the task is resumed, and returns what with. task[1] is the call's number meanwhile. Does
 * not wait: nothing, when co is not what runs, or may not yield in C; nil, code, message.
 */
static int ask(lua_State *L) {
    struct pge_lua_client *c = lua_touserdata(L, lua_upvalueindex(BOX));
    struct pge_lua_message message;
    struct pge_failure why;
    if (lua_tothread(L, CO) != L || !may_yield(L))
        return 0;
    if (!c->client)
        return luaL_error(L, "client is closed");
    struct pge_call *call = dispatch(L, c, &message, &why);
    if (!call)
        return pge_lua_client_refused(L, &why, &message);
    if (c->pending++ == 0)
        pge_box_anchor(L, &c->box, lua_upvalueindex(BOX));
    lua_pushvalue(L, TASK);
    lua_rawseti(L, lua_upvalueindex(CALLS), pge_lua_client_slot(call));
    lua_pushnumber(L, pge_call_handle(call));
    lua_rawseti(L, TASK, 1);
    lua_pushvalue(L, lua_upvalueindex(TOKEN));
    return lua_yield(L, 1);
}

/* asker(token) -> ask */
int pge_lua_client_asker(lua_State *L) {
    struct pge_lua_client *c = pge_lua_client_check(L, 1);
    luaL_checkany(L, 2);
    lua_pushvalue(L, 1);
    lua_rawgeti(L, LUA_REGISTRYINDEX, c->calls_ref);
    lua_pushvalue(L, 2);
    lua_pushcclosure(L, ask, 3);
    return 1;
}
