/* lua_json_state.h - what lua_json*.c keep in the registry: one table, made by pge_lua_json. */
#ifndef PGE_BIND_LUA_JSON_STATE_H
#define PGE_BIND_LUA_JSON_STATE_H

/*
 * Its key in the registry. A number, since a name would be hashed for each message, and a light
 * userdata cannot hold every arm64 address; luaL_ref gives out none below zero.
 */
#define PGE_LUA_JSON_STATE (-0x70676A)

/* Its integer keys. */
enum pge_lua_json_slot {
    PGE_LUA_JSON_ARRAY_MT = 1,
    PGE_LUA_JSON_SLICE_MT,
    PGE_LUA_JSON_RESERVE,   /* a C function: lua_checkstack, for lua_pcall */
    PGE_LUA_JSON_ISTYPE,    /* ffi.istype */
    PGE_LUA_JSON_NEW,       /* ffi.new */
    PGE_LUA_JSON_INT64,     /* ctype */
    PGE_LUA_JSON_UINT64,    /* ctype */
    PGE_LUA_JSON_LIB,       /* userdata of lua_json.c */
    PGE_LUA_JSON_SHAPES_OF, /* light userdata: the lib's struct pge_lua_json_shapes */
    PGE_LUA_JSON_MAKERS_OF, /* light userdata: the lib's makers */
    PGE_LUA_JSON_ANCHORS,   /* table: the keys of these shapes */
};

/* lua_type of a cdata; lua_topointer gives the address of its bytes. No header names it. */
#define PGE_LUA_TCDATA 10

#endif
