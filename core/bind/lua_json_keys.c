/* lua_json_keys.c - see lua_json_keys.h. */
#include "bind/lua_json_keys.h"

#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "base/alloc.h"

/* Up to it, insertion beats qsort. */
#define INSERTION_MAX 16

void pge_lua_json_keys_init(struct pge_lua_json_keys *keys) {
    keys->list = keys->room;
    keys->cap = PGE_LUA_JSON_KEYS_INLINE;
    keys->count = 0;
}

void pge_lua_json_keys_deinit(struct pge_lua_json_keys *keys) {
    if (keys->list != keys->room)
        pge_free(keys->list);
}

static int grow(struct pge_lua_json_keys *keys) {
    struct pge_lua_json_key *owned = keys->list == keys->room ? NULL : keys->list;
    struct pge_lua_json_key *list = pge_realloc(owned, 2 * keys->cap * sizeof(*list));
    if (!list)
        return UV_ENOMEM;
    if (!owned)
        memcpy(list, keys->room, sizeof(keys->room));
    keys->list = list;
    keys->cap *= 2;
    return 0;
}

static uint64_t prefix_of(const char *p, size_t n) {
    const unsigned char *u = (const unsigned char *)p;
    uint64_t prefix = 0;
    if (n >= 8) { /* constant bounds: compiled to one load */
        for (int i = 0; i < 8; i++)
            prefix = prefix << 8 | u[i];
        return prefix;
    }
    if (n >= 4) { /* the middle is read twice */
        for (size_t i = 0; i < 4; i++)
            prefix = prefix << 8 | u[i];
        uint64_t last = 0;
        for (size_t i = n - 4; i < n; i++)
            last = last << 8 | u[i];
        return prefix << 32 | last << (64 - 8 * n);
    }
    for (size_t i = 0; i < n; i++)
        prefix |= (uint64_t)u[i] << (56 - 8 * i);
    return prefix;
}

int pge_lua_json_keys_add(struct pge_lua_json_keys *keys, const char *p, size_t n, int slot) {
    if (keys->count == keys->cap && grow(keys) != 0)
        return UV_ENOMEM;
    keys->list[keys->count++] = (struct pge_lua_json_key){prefix_of(p, n), p, n, slot};
    return 0;
}

static int compare(const void *left, const void *right) {
    const struct pge_lua_json_key *a = left, *b = right;
    if (a->prefix != b->prefix)
        return a->prefix < b->prefix ? -1 : 1;
    int order = memcmp(a->p, b->p, a->n < b->n ? a->n : b->n);
    return order ? order : (a->n > b->n) - (a->n < b->n);
}

void pge_lua_json_keys_sort(struct pge_lua_json_keys *keys, size_t first) {
    struct pge_lua_json_key *list = keys->list + first;
    size_t n = keys->count - first;
    if (n > INSERTION_MAX) {
        qsort(list, n, sizeof(*list), compare);
        return;
    }
    for (size_t i = 1; i < n; i++) {
        struct pge_lua_json_key key = list[i];
        size_t to = i;
        for (; to > 0 && compare(&list[to - 1], &key) > 0; to--)
            list[to] = list[to - 1];
        list[to] = key;
    }
}
