/* lua_json_keys.h - the keys of the objects being encoded, to be sorted: one stack for all. */
#ifndef PGE_BIND_LUA_JSON_KEYS_H
#define PGE_BIND_LUA_JSON_KEYS_H

#include <stddef.h>
#include <stdint.h>

/* Keys that need no memory. */
#define PGE_LUA_JSON_KEYS_INLINE 64

struct pge_lua_json_key {
    uint64_t prefix; /* the first eight bytes as a big-endian number: decides most comparisons */
    const char *p;   /* borrowed from Lua: the table that has the key is on the stack */
    size_t n;
    int slot; /* stack index of the value, while it is kept there */
};

struct pge_lua_json_keys {
    struct pge_lua_json_key *list; /* room, or owned; moves when keys are added */
    size_t count, cap;
    struct pge_lua_json_key room[PGE_LUA_JSON_KEYS_INLINE];
};

void pge_lua_json_keys_init(struct pge_lua_json_keys *keys);
void pge_lua_json_keys_deinit(struct pge_lua_json_keys *keys);

/* 0 or UV_ENOMEM. */
int pge_lua_json_keys_add(struct pge_lua_json_keys *keys, const char *p, size_t n, int slot);

/* Sorts bytewise what was added since count was `first`. */
void pge_lua_json_keys_sort(struct pge_lua_json_keys *keys, size_t first);

#endif
