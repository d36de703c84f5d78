/* lua_json_path.h - words an encoding error for people: what it is and where. */
#ifndef PGE_BIND_LUA_JSON_PATH_H
#define PGE_BIND_LUA_JSON_PATH_H

#include <stddef.h>

/* A table being encoded, and which of its members is in work. */
struct pge_lua_json_level {
    const void *table; /* identity only */
    const char *key;   /* borrowed from Lua; NULL: a list, see index */
    size_t key_len;
    int key_slot; /* stack index of the key that has not been looked at; 0: none */
    size_t index; /* from 1 */
};

/* Writes "WHAT at PATH cannot be JSON", cut to size; always valid UTF-8, NUL-terminated. */
void pge_lua_json_describe(char *out, size_t size, const char *what,
                           const struct pge_lua_json_level *levels, size_t count);

#endif
