/* lua_settings.c - options and headers between Lua tables and the core's lists. */
#include "bind/bind.h"

#include "base/alloc.h"

void pge_opt_settings(lua_State *L, int idx, struct pge_settings *out) {
    lua_getfield(L, idx, "settings");
    if (lua_isnil(L, -1)) {
        lua_pop(L, 1);
        return;
    }
    luaL_checktype(L, -1, LUA_TTABLE);
    for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
        lua_pushvalue(L, -2); /* tostring on the key itself would confuse lua_next */
        const char *name = luaL_checkstring(L, -1);
        const char *value = lua_isboolean(L, -2) ? (lua_toboolean(L, -2) ? "true" : "false")
                                                 : luaL_checkstring(L, -2);
        int status = pge_settings_add(out, name, value);
        if (status < 0)
            luaL_error(L, "%s", uv_strerror(status));
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
}

void pge_opt_hosts(lua_State *L, int idx, struct pge_host_options *out, unsigned *count) {
    lua_getfield(L, idx, "hosts");
    if (lua_isnil(L, -1)) {
        lua_pop(L, 1);
        return;
    }
    luaL_checktype(L, -1, LUA_TTABLE);
    int hosts = lua_gettop(L);
    for (unsigned i = 0; i < PGE_MAX_HOSTS; i++) {
        lua_rawgeti(L, hosts, (int)i + 1);
        if (lua_isnil(L, -1)) {
            lua_pop(L, 1);
            break;
        }
        int at = lua_gettop(L);
        *count = i + 1;
        out[i].host = pge_opt_text(L, at, "host");
        out[i].path = pge_opt_text(L, at, "path");
        out[i].port = (uint16_t)pge_opt_number(L, at, "port", 0);
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
}

static struct pge_span string_at(lua_State *L, int list, int i) {
    struct pge_span span;
    lua_rawgeti(L, list, i);
    if (lua_type(L, -1) != LUA_TSTRING)
        luaL_error(L, "a list of strings is expected");
    span.p = lua_tolstring(L, -1, &span.n);
    lua_pop(L, 1); /* the list holds it */
    return span;
}

struct pge_headers pge_lua_headers(lua_State *L, int idx, struct pge_header *at) {
    struct pge_headers headers = {.at = at};
    if (lua_isnoneornil(L, idx))
        return headers;
    luaL_checktype(L, idx, LUA_TTABLE);
    unsigned count = (unsigned)lua_objlen(L, idx) / 2;
    luaL_argcheck(L, count <= PGE_MAX_HEADERS, idx, "too many headers");
    for (unsigned i = 0; i < count; i++) {
        at[i].name = string_at(L, idx, (int)(2 * i + 1));
        at[i].value = string_at(L, idx, (int)(2 * i + 2));
    }
    headers.count = count;
    return headers;
}

/* The value of a name that has one already: it becomes a list. Stack: table, name, value, old. */
static void add_to_list(lua_State *L) {
    if (!lua_istable(L, -1)) {
        lua_createtable(L, 2, 0);
        lua_insert(L, -2);
        lua_rawseti(L, -2, 1); /* table, name, value, list */
    }
    lua_insert(L, -2); /* table, name, list, value */
    lua_rawseti(L, -2, (int)lua_objlen(L, -2) + 1);
}

void pge_push_headers(lua_State *L, struct pge_headers headers) {
    if (headers.count == 0) {
        lua_pushnil(L);
        return;
    }
    lua_createtable(L, 0, (int)headers.count);
    for (unsigned i = 0; i < headers.count; i++) {
        pge_push_span(L, headers.at[i].name);
        pge_push_span(L, headers.at[i].value);
        lua_pushvalue(L, -2);
        lua_rawget(L, -4);
        if (lua_isnil(L, -1))
            lua_pop(L, 1);
        else
            add_to_list(L);
        lua_rawset(L, -3);
    }
}

/* ---- subscriptions ---- */

void pge_lua_free_wishes(struct pge_lua_wishes *wishes) {
    for (unsigned i = 0; i < wishes->count; i++)
        pge_settings_deinit(&wishes->at[i].settings);
    pge_free(wishes->at);
}

/* Protected: what raises half-way would leak. Stack: list, wishes. */
static int read_wishes(lua_State *L) {
    struct pge_lua_wishes *wishes = lua_touserdata(L, 2);
    luaL_checktype(L, 1, LUA_TTABLE);
    unsigned count = (unsigned)lua_objlen(L, 1);
    luaL_argcheck(L, count <= PGE_MAX_SUBSCRIPTIONS, 1, "too many subscriptions");
    wishes->at = pge_calloc(count + 1, sizeof *wishes->at);
    if (!wishes->at)
        return luaL_error(L, "not enough memory");
    for (unsigned i = 0; i < count; i++) {
        lua_rawgeti(L, 1, (int)i + 1);
        luaL_checktype(L, -1, LUA_TTABLE);
        lua_getfield(L, -1, "route");
        wishes->at[i].route = luaL_checkstring(L, -1);
        lua_pop(L, 1); /* the entry holds it */
        wishes->count = i + 1;
        pge_opt_settings(L, lua_gettop(L), &wishes->at[i].settings);
        lua_pop(L, 1);
    }
    return 0;
}

bool pge_lua_read_wishes(lua_State *L, int idx, struct pge_lua_wishes *out) {
    *out = (struct pge_lua_wishes){0};
    lua_pushvalue(L, idx);
    lua_pushcfunction(L, read_wishes);
    lua_insert(L, -2);
    lua_pushlightuserdata(L, out);
    if (lua_pcall(L, 2, 0, 0) == 0)
        return true;
    pge_lua_free_wishes(out);
    return false;
}
