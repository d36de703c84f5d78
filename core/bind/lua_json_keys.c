/* lua_json_keys.c - see lua_json_keys.h. */
#include "bind/lua_json_keys.h"

#include <endian.h>
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
    if (n >= 8) {
        uint64_t word;
        memcpy(&word, p, 8);
        return be64toh(word);
    }
    if (n >= 4) { /* the middle is read twice */
        uint32_t first, last;
        memcpy(&first, p, 4);
        memcpy(&last, p + n - 4, 4);
        return (uint64_t)be32toh(first) << 32 | (uint64_t)be32toh(last) << (64 - 8 * n);
    }
    uint64_t prefix = 0;
    for (size_t i = 0; i < n; i++)
        prefix |= (uint64_t)(unsigned char)p[i] << (56 - 8 * i);
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
