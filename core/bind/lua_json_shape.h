/*
 * lua_json_shape.h - what is remembered of objects that were encoded: most messages of a script
 * have one of a few sets of keys, so that these are sorted and quoted once.
 *
 *   keys as lua_next gave them: currency, amount   ->   sorted: 1, 0   text: {"amount":
 * ,"currency":
 *
 * A key is known by the address of its Lua string, which is kept alive in a table (`anchors`), so
 * that no other string can come to stand there.
 */
#ifndef PGE_BIND_LUA_JSON_SHAPE_H
#define PGE_BIND_LUA_JSON_SHAPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <lua.h>

#include "base/buffer.h"
#include "bind/lua_json_keys.h"

enum {
    PGE_LUA_JSON_SHAPES = 32,
    PGE_LUA_JSON_SHAPE_KEYS = 16, /* larger objects are not remembered */
    PGE_LUA_JSON_SHAPE_TEXT = 256,
    PGE_LUA_JSON_SHAPE_ANCHORS = PGE_LUA_JSON_SHAPES * PGE_LUA_JSON_SHAPE_KEYS,
};

struct pge_lua_json_shape {
    unsigned count;  /* 0: unused */
    unsigned credit; /* misses until another may take its place */
    unsigned users;  /* objects being written by it: none takes its place meanwhile */
    struct {
        const void *id;  /* lua_topointer of the key, in the order of lua_next */
        uint16_t sorted; /* sorted: which of them */
        uint16_t end;    /* sorted: where in text the value belongs */
    } keys[PGE_LUA_JSON_SHAPE_KEYS];
    char text[PGE_LUA_JSON_SHAPE_TEXT];
};

struct pge_lua_json_shapes {
    struct pge_lua_json_shape at[PGE_LUA_JSON_SHAPES];
    struct pge_buf scratch; /* owned */
};

/* The place for objects whose first key has this id. Never NULL; it may hold another's shape. */
struct pge_lua_json_shape *pge_lua_json_shape_of(struct pge_lua_json_shapes *shapes,
                                                 const void *id);

/* An object did not have the shape of its place: may it be learnt? */
static inline bool pge_lua_json_shape_is_due(struct pge_lua_json_shape *shape) {
    return shape->users == 0 && (shape->credit == 0 || --shape->credit == 0);
}

/*
 * Learns an object whose pairs stand on the stack from base + 1 on, its keys sorted in `keys` with
 * the index of their values in `slot`. Needs 3 slots of stack; allocates nothing in Lua. What is
 * too large is not learnt.
 */
void pge_lua_json_shape_learn(struct pge_lua_json_shapes *shapes, struct pge_lua_json_shape *shape,
                              lua_State *L, int base, const struct pge_lua_json_key *keys,
                              size_t count);

#endif
