/*
 * lua_json_maker.h - what is remembered of objects that were decoded. The keys of those that come
 * again and again stand in a Lua function that makes the table in one step: its constructor copies
 * a template, so that no key is hashed, or put in, one by one.
 *
 *   "amount" "currency"  ->  function(a1, a2) return { ["amount"] = a1, ["currency"] = a2 } end
 */
#ifndef PGE_BIND_LUA_JSON_MAKER_H
#define PGE_BIND_LUA_JSON_MAKER_H

#include <stdint.h>

#include <lua.h>

#include "base/buffer.h"

enum {
    PGE_LUA_JSON_MAKERS = 64,     /* a power of two */
    PGE_LUA_JSON_MAKER_KEYS = 16, /* larger objects are not remembered */
    PGE_LUA_JSON_MAKER_TEXT = 256,
    PGE_LUA_JSON_MAKER_SPARE = 8, /* others until one takes a place that is in use */
};

struct pge_lua_json_maker {
    int ref;        /* registry: the function; 0: not made yet */
    unsigned count; /* keys; 0: unused */
    unsigned seen;  /* such objects in a row, while the function is not made */
    unsigned spare; /* others that may come until one takes its place */
    unsigned takes; /* times another kind of object has taken the place */
    uint16_t ends[PGE_LUA_JSON_MAKER_KEYS]; /* of each key in text */
    char text[PGE_LUA_JSON_MAKER_TEXT];     /* the keys with their quotes, as they came */
};

/* The keys of one object, with their quotes. */
struct pge_lua_json_found {
    unsigned count; /* of all */
    struct pge_span keys[PGE_LUA_JSON_MAKER_KEYS];
};

static inline void pge_lua_json_found_add(struct pge_lua_json_found *found, const char *p,
                                          const char *end) {
    if (found->count < PGE_LUA_JSON_MAKER_KEYS)
        found->keys[found->count] = (struct pge_span){p, (size_t)(end - p)};
    found->count++;
}

/* The place for objects that begin with the key whose opening quote is at p. */
struct pge_lua_json_maker *
pge_lua_json_maker_of(struct pge_lua_json_maker makers[PGE_LUA_JSON_MAKERS], const char *p,
                      const char *end);

/* An object was decoded key by key that its place did not know, or not well enough. Raises when
 * Lua is out of memory. */
void pge_lua_json_maker_learn(lua_State *L, struct pge_lua_json_maker *maker,
                              const struct pge_lua_json_found *found);

#endif
