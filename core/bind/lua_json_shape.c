/* lua_json_shape.c - see lua_json_shape.h. */
#include "bind/lua_json_shape.h"

#include <string.h>

#include "bind/lua_json_state.h"
#include "codec/json.h"

enum {
    CREDIT = 2
}; /* of what was just learnt: two shapes in one place do not push each other out */

struct pge_lua_json_shape *pge_lua_json_shape_of(struct pge_lua_json_shapes *shapes,
                                                 const void *id) {
    uint64_t mixed = (uint64_t)(uintptr_t)id * UINT64_C(0x9E3779B97F4A7C15);
    return &shapes->at[(mixed >> 32) % PGE_LUA_JSON_SHAPES];
}

/* What stands before each value: {"amount": and ,"currency": */
static bool write_text(struct pge_buf *out, struct pge_lua_json_shape *shape,
                       const struct pge_lua_json_key *keys, size_t count) {
    pge_buf_clear(out);
    for (size_t i = 0; i < count; i++) {
        if (pge_buf_append(out, i == 0 ? "{" : ",", 1) != 0 ||
            pge_json_quote(out, keys[i].p, keys[i].n) != 0 || PGE_BUF_LIT(out, ":") != 0 ||
            pge_buf_len(out) > PGE_LUA_JSON_SHAPE_TEXT)
            return false;
        shape->keys[i].end = (uint16_t)pge_buf_len(out);
    }
    memcpy(shape->text, pge_buf_head(out), pge_buf_len(out));
    return true;
}

/* Keeps the keys alive; the table has room for all of them. */
static void anchor(lua_State *L, int base, int place, size_t count) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, PGE_LUA_JSON_STATE);
    lua_rawgeti(L, -1, PGE_LUA_JSON_ANCHORS);
    for (size_t i = 0; i < count; i++) {
        lua_pushvalue(L, base + 1 + 2 * (int)i);
        lua_rawseti(L, -2, place * PGE_LUA_JSON_SHAPE_KEYS + (int)i + 1);
    }
    lua_pop(L, 2);
}

void pge_lua_json_shape_learn(struct pge_lua_json_shapes *shapes, struct pge_lua_json_shape *shape,
                              lua_State *L, int base, const struct pge_lua_json_key *keys,
                              size_t count) {
    shape->count = 0;
    if (count > PGE_LUA_JSON_SHAPE_KEYS || !write_text(&shapes->scratch, shape, keys, count))
        return;
    for (size_t i = 0; i < count; i++) {
        shape->keys[i].id = lua_topointer(L, base + 1 + 2 * (int)i);
        shape->keys[i].sorted = (uint16_t)((keys[i].slot - base - 2) / 2);
    }
    anchor(L, base, (int)(shape - shapes->at), count);
    shape->count = (unsigned)count;
    shape->credit = CREDIT;
}
