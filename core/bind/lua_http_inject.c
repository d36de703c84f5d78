/*
 * lua_http_inject.c - core.http:inject: a request without a socket, and all that is answered.
 *
 *   inject(bytes) -> memory conn -> server ... reply bytes -> out -> on_end(bytes)
 */
#include "bind/lua_http.h"
#include "net/memory.h"

#define CLASS "perigee.core.injected"

struct injected {
    struct pge_box box; /* first; anchored until the end was told */
    struct pge_buf out;
    int fn_ref;
};

static void on_output(void *arg, const char *data, size_t n) {
    struct injected *i = arg;
    pge_buf_append(&i->out, data, n); /* out of memory: the test misses the rest */
}

static int deliver_end(lua_State *L, void *arg) {
    struct injected *i = arg;
    lua_rawgeti(L, LUA_REGISTRYINDEX, i->fn_ref);
    lua_pushlstring(L, pge_buf_head(&i->out), pge_buf_len(&i->out));
    lua_call(L, 1, 0);
    return 0;
}

static void enter_end(void *arg) {
    struct injected *i = arg;
    pge_bind_call(i->box.bind, deliver_end, i);
}

static void release(struct injected *i) {
    struct pge_bind *bind = i->box.bind;
    pge_buf_deinit(&i->out);
    if (!bind->is_over)
        luaL_unref(bind->L, LUA_REGISTRYINDEX, i->fn_ref);
    i->fn_ref = LUA_NOREF;
    pge_box_release(&i->box);
}

static void on_end(void *arg) {
    struct injected *i = arg;
    pge_bind_enter(&i->box.bind->engine, enter_end, i);
    release(i);
}

static const struct pge_memory_peer peer = {on_output, on_end};

/* The server closes the connection with itself, and on_end lets go of the rest. */
static void drop(struct pge_box *box) {
    (void)box;
}

static int injected_gc(lua_State *L) {
    struct injected *i = lua_touserdata(L, 1);
    if (i->fn_ref == LUA_NOREF) /* else it is anchored, and bind_gc drops it */
        pge_list_remove(&i->box.node);
    return 0;
}

void pge_lua_http_injected(lua_State *L) {
    static const luaL_Reg methods[] = {{NULL, NULL}};
    pge_class(L, CLASS, methods, injected_gc);
}

int pge_lua_http_inject(lua_State *L) {
    struct pge_lua_http *h = pge_lua_http_check(L);
    size_t n;
    const char *bytes = luaL_checklstring(L, 2, &n);
    luaL_checktype(L, 3, LUA_TFUNCTION);
    lua_settop(L, 3);
    struct injected *i = pge_box_new(L, h->box.bind, sizeof *i, CLASS, drop);
    i->fn_ref = LUA_NOREF;
    pge_box_anchor(L, &i->box, 4);
    lua_pushvalue(L, 3);
    i->fn_ref = luaL_ref(L, LUA_REGISTRYINDEX);
    int status = h->server ? pge_http_server_inject(h->server, bytes, n, &peer, i) : UV_EPIPE;
    if (status == 0) {
        lua_pushboolean(L, 1);
        return 1;
    }
    release(i);
    if (status != UV_EPIPE)
        return luaL_error(L, "not enough memory");
    lua_pushnil(L);
    lua_pushliteral(L, "CLOSED");
    return 2;
}
