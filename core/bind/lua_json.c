/* lua_json.c - what the module offers of JSON; lua_json_encode.c and _decode.c do the work. */
#include "bind/lua_json.h"

#include <lauxlib.h>
#include <string.h>
#include <uv.h>

#include "bind/lua_json_maker.h"
#include "bind/lua_json_shape.h"
#include "bind/lua_json_state.h"
#include "codec/json.h"
#include "codec/route.h"

/* Scratch memory of a state, owned by a userdata; the first upvalue of every function here. */
struct lib {
    struct pge_json_scan scan;
    struct pge_buf buf;
    struct pge_lua_json_shapes shapes;
    struct pge_lua_json_maker makers[PGE_LUA_JSON_MAKERS];
};

/* A bigger scratch buffer is given back after use. */
#define KEEP_BYTES 65536

static struct lib *check_lib(lua_State *L) {
    return lua_touserdata(L, lua_upvalueindex(1));
}

static int lib_gc(lua_State *L) {
    struct lib *lib = lua_touserdata(L, 1);
    pge_json_scan_deinit(&lib->scan);
    pge_buf_deinit(&lib->buf);
    pge_buf_deinit(&lib->shapes.scratch);
    return 0;
}

/* The buffer is taken out while Lua may run finalizers, which may encode too. */
static struct pge_buf take_buf(struct lib *lib) {
    struct pge_buf buf = lib->buf;
    pge_buf_init(&lib->buf);
    pge_buf_clear(&buf);
    return buf;
}

static void give_buf(struct lib *lib, struct pge_buf *buf) {
    pge_buf_clear(buf);
    pge_buf_trim(buf, KEEP_BYTES);
    pge_buf_deinit(&lib->buf);
    lib->buf = *buf;
}

static void push_buf(lua_State *L, struct lib *lib, struct pge_buf *buf) {
    lua_pushlstring(L, pge_buf_len(buf) ? pge_buf_head(buf) : "", pge_buf_len(buf));
    give_buf(lib, buf);
}

static int push_failure(lua_State *L, const char *message) {
    lua_pushnil(L);
    lua_pushstring(L, message);
    return 2;
}

/* Pushes why the last scan of `text` failed. */
static void push_scan_error(lua_State *L, const struct lib *lib, int status, const char *text) {
    if (status == UV_EPROTO)
        lua_pushfstring(L, "invalid JSON: %s at position %d", lib->scan.error,
                        (int)(lib->scan.error_at - text));
    else
        lua_pushstring(L, uv_strerror(status));
}

static int json_encode(lua_State *L) {
    struct lib *lib = check_lib(L);
    char err[PGE_LUA_JSON_ERROR_MAX];
    lua_settop(L, 1);
    luaL_checkstack(L, PGE_LUA_JSON_ROOM, NULL);
    struct pge_buf buf = take_buf(lib);
    int status = pge_lua_json_encode(L, 1, PGE_LUA_JSON_ROOM, &buf, err, sizeof(err));
    if (status == 0) {
        push_buf(L, lib, &buf);
        return 1;
    }
    give_buf(lib, &buf);
    return push_failure(L, err);
}

/* Validates and decodes the string at idx. */
static int decode_checked(lua_State *L, int idx) {
    struct lib *lib = check_lib(L);
    size_t n;
    const char *text = luaL_checklstring(L, idx, &n);
    int status = pge_json_check(&lib->scan, text, n);
    if (status != 0) {
        lua_pushnil(L);
        push_scan_error(L, lib, status, text);
        return 2;
    }
    if (pge_lua_json_decode(L, text, n) != 0)
        return push_failure(L, "JSON nested deeper than 512 levels");
    return 1;
}

static int json_decode(lua_State *L) {
    return decode_checked(L, 1);
}

static int json_check(lua_State *L) {
    struct lib *lib = check_lib(L);
    size_t n;
    const char *text = luaL_checklstring(L, 1, &n);
    int status = pge_json_check(&lib->scan, text, n);
    lua_pushboolean(L, status == 0);
    if (status == 0)
        return 1;
    push_scan_error(L, lib, status, text);
    return 2;
}

/* Slices: undecoded JSON text */

/* slice(text): the text as a slice, or nil and why it is no JSON. */
static int slice_new(lua_State *L) {
    struct lib *lib = check_lib(L);
    size_t n;
    const char *text = luaL_checklstring(L, 1, &n);
    int status = pge_json_check(&lib->scan, text, n);
    if (status != 0) {
        lua_pushnil(L);
        push_scan_error(L, lib, status, text);
        return 2;
    }
    lua_createtable(L, 1, 0);
    lua_pushvalue(L, 1);
    lua_rawseti(L, -2, 1);
    lua_pushvalue(L, lua_upvalueindex(2));
    lua_setmetatable(L, -2);
    return 1;
}

/* Replaces the slice at 1 by its text. */
static void slice_text(lua_State *L) {
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    lua_rawgeti(L, 1, 1);
    luaL_argcheck(L, lua_type(L, 2) == LUA_TSTRING, 1, "slice expected");
    lua_replace(L, 1);
}

static int slice_tostring(lua_State *L) {
    slice_text(L);
    return 1;
}

static int slice_len(lua_State *L) {
    slice_text(L);
    lua_pushinteger(L, (lua_Integer)lua_objlen(L, 1));
    return 1;
}

/* Checks again, since a script can write to a slice's fields, and the decoder trusts its text. */
static int slice_decode(lua_State *L) {
    slice_text(L);
    return decode_checked(L, 1);
}

/* Routes */

typedef int (*route_fn)(struct pge_json_scan *, struct pge_span, struct pge_buf *);

static int push_route(lua_State *L, route_fn fn) {
    struct lib *lib = check_lib(L);
    struct pge_span json;
    json.p = luaL_checklstring(L, 1, &json.n);
    struct pge_buf buf = take_buf(lib);
    int status = fn(&lib->scan, json, &buf);
    if (status == 0) {
        push_buf(L, lib, &buf);
        return 1;
    }
    char first = pge_buf_len(&buf) ? *pge_buf_head(&buf) : '\0'; /* of true, false, null */
    give_buf(lib, &buf);
    if (status != PGE_ROUTE_BARE)
        lua_pushnil(L);
    else if (first == 'n')
        lua_pushlightuserdata(L, NULL);
    else
        lua_pushboolean(L, first == 't');
    return 1;
}

static int json_route(lua_State *L) {
    return push_route(L, pge_route);
}

static int json_lookup_key(lua_State *L) {
    return push_route(L, pge_route_lookup_key);
}

/* Set-up */

static int reserve(lua_State *L) {
    lua_pushboolean(L, lua_checkstack(L, (int)lua_tointeger(L, 1)));
    return 1;
}

static void keep_ffi(lua_State *L) {
    lua_getglobal(L, "require");
    lua_pushliteral(L, "ffi");
    lua_call(L, 1, 1);
    lua_getfield(L, -1, "istype");
    lua_rawseti(L, -3, PGE_LUA_JSON_ISTYPE);
    lua_getfield(L, -1, "new");
    lua_rawseti(L, -3, PGE_LUA_JSON_NEW);
    lua_getfield(L, -1, "typeof");
    lua_pushliteral(L, "int64_t");
    lua_call(L, 1, 1);
    lua_rawseti(L, -3, PGE_LUA_JSON_INT64);
    lua_getfield(L, -1, "typeof");
    lua_pushliteral(L, "uint64_t");
    lua_call(L, 1, 1);
    lua_rawseti(L, -3, PGE_LUA_JSON_UINT64);
    lua_pop(L, 1);
}

static void keep_lib(lua_State *L) {
    struct lib *lib = lua_newuserdata(L, sizeof(*lib));
    memset(lib, 0, sizeof(*lib));
    pge_json_scan_init(&lib->scan);
    pge_buf_init(&lib->buf);
    pge_buf_init(&lib->shapes.scratch);
    lua_createtable(L, 0, 1);
    lua_pushcfunction(L, lib_gc);
    lua_setfield(L, -2, "__gc");
    lua_setmetatable(L, -2);
    lua_rawseti(L, -2, PGE_LUA_JSON_LIB);
    lua_pushlightuserdata(L, &lib->shapes);
    lua_rawseti(L, -2, PGE_LUA_JSON_SHAPES_OF);
    lua_pushlightuserdata(L, lib->makers);
    lua_rawseti(L, -2, PGE_LUA_JSON_MAKERS_OF);
    lua_createtable(L, PGE_LUA_JSON_SHAPE_ANCHORS, 0);
    lua_rawseti(L, -2, PGE_LUA_JSON_ANCHORS);
}

static void keep_class(lua_State *L, const char *name, int slot) {
    lua_newtable(L);
    lua_pushstring(L, name);
    lua_setfield(L, -2, "__name");
    lua_rawseti(L, -2, slot);
}

/* Pushes the registry's table, made on the first call in a state. */
static void push_state(lua_State *L) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, PGE_LUA_JSON_STATE);
    if (!lua_isnil(L, -1))
        return;
    lua_pop(L, 1);
    lua_newtable(L);
    keep_class(L, "perigee.array", PGE_LUA_JSON_ARRAY_MT);
    keep_class(L, "perigee.slice", PGE_LUA_JSON_SLICE_MT);
    lua_pushcfunction(L, reserve);
    lua_rawseti(L, -2, PGE_LUA_JSON_RESERVE);
    keep_ffi(L);
    keep_lib(L);
    lua_pushvalue(L, -1);
    lua_rawseti(L, LUA_REGISTRYINDEX, PGE_LUA_JSON_STATE);
}

/* Sets functions in the table on top; their upvalues are the lib and the slices' metatable. */
static void set_functions(lua_State *L, int state, const luaL_Reg *functions) {
    for (; functions->name; functions++) {
        lua_rawgeti(L, state, PGE_LUA_JSON_LIB);
        lua_rawgeti(L, state, PGE_LUA_JSON_SLICE_MT);
        lua_pushcclosure(L, functions->func, 2);
        lua_setfield(L, -2, functions->name);
    }
}

static void set_slice_class(lua_State *L, int state) {
    static const luaL_Reg metamethods[] = {
        {"__tostring", slice_tostring},
        {"__len", slice_len}, /* seen only by a LuaJIT built with 5.2's ways */
        {NULL, NULL},
    };
    static const luaL_Reg methods[] = {{"decode", slice_decode}, {NULL, NULL}};
    lua_rawgeti(L, state, PGE_LUA_JSON_SLICE_MT);
    set_functions(L, state, metamethods);
    lua_newtable(L);
    set_functions(L, state, methods);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
}

void pge_lua_json(lua_State *L) {
    static const luaL_Reg functions[] = {
        {"json_encode", json_encode},
        {"json_decode", json_decode},
        {"json_check", json_check},
        {"slice", slice_new},
        {"route", json_route},
        {"lookup_key", json_lookup_key},
        {NULL, NULL},
    };
    push_state(L);
    int state = lua_gettop(L);
    set_slice_class(L, state);
    lua_pushvalue(L, state - 1);
    set_functions(L, state, functions);
    lua_pushlightuserdata(L, NULL);
    lua_setfield(L, -2, "null");
    lua_rawgeti(L, state, PGE_LUA_JSON_ARRAY_MT);
    lua_setfield(L, -2, "array_mt");
    lua_rawgeti(L, state, PGE_LUA_JSON_SLICE_MT);
    lua_setfield(L, -2, "slice_mt");
    lua_settop(L, state - 1);
}
