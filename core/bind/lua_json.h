/*
 * lua_json.h - JSON text <-> Lua values (CONTRACT.md "Values").
 *
 * null is the light userdata NULL (cjson.null); lists carry the metatable array_mt; integers beyond
 * +-2^53 are int64_t and uint64_t cdata. pge_lua_json must have run in the state before the rest.
 */
#ifndef PGE_BIND_LUA_JSON_H
#define PGE_BIND_LUA_JSON_H

#include <stddef.h>

#include <lua.h>

#include "base/buffer.h"

/* Tables inside tables, and the same for decoded text. */
#define PGE_LUA_JSON_DEPTH 512

/* Room that holds any message of pge_lua_json_encode; longer paths are cut. */
#define PGE_LUA_JSON_ERROR_MAX 256

/* Lua stack that most values need: a caller that may raise reserves it with luaL_checkstack. */
#define PGE_LUA_JSON_ROOM 192

/*
 * Appends the JSON text of the value at idx, keys sorted bytewise. 0; UV_EINVAL (no JSON for it),
 * UV_EILSEQ (invalid UTF-8), UV_ENOMEM, and then out has its old length and err says for people
 * what is wrong and where ("a function at items[3] cannot be JSON").
 *
 * Safe in the middle of a connection's write buffer: raises nothing, runs no metamethod, and
 * allocates nothing in Lua, so that no finalizer runs either. Needs 4 free slots of Lua stack.
 * room: slots above the top that the caller has reserved, Lua not having run since; 0: none, then
 * the encoder finds its own, protected.
 */
int pge_lua_json_encode(lua_State *L, int idx, int room, struct pge_buf *out, char *err,
                        size_t err_size);

/*
 * Pushes the value of a text that has been validated (pge_json_check, or a span of an envelope).
 * 0, or UV_E2BIG when it is nested deeper than PGE_LUA_JSON_DEPTH or than Lua has stack for, and
 * then nothing was pushed. Of duplicate keys the last wins.
 *
 * Raises when Lua is out of memory. Lua may collect meanwhile, and so run finalizers: p must
 * outlive those.
 */
int pge_lua_json_decode(lua_State *L, const char *p, size_t n);

/*
 * Adds json_encode, json_decode, json_check, null, array_mt, slice_mt, slice, route and lookup_key
 * to the module table on top of the stack (lua/perigee/core_meta.lua).
 */
void pge_lua_json(lua_State *L);

#endif
