/*
 * lua_json_encode.c - Lua values to JSON text, without a trace in Lua.
 *
 * Only calls of the Lua API that neither allocate nor check the collector are used: a finalizer
 * that ran here could write into the very buffer that holds half a frame of ours. The Lua stack
 * grows inside a lua_pcall, where running out of it can be caught.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <lua.h>
#include <uv.h>

#include "bind/lua_json.h"
#include "bind/lua_json_keys.h"
#include "bind/lua_json_path.h"
#include "bind/lua_json_shape.h"
#include "bind/lua_json_state.h"
#include "codec/json.h"
#include "codec/number.h"

enum {
    PAIRS_MAX = 32,   /* up to this size an object keeps its pairs on the Lua stack */
    PAIRS_TOP = 2000, /* above this height it does not: LuaJIT gives a C function 8000 slots */
    LEVEL_SLOTS = 10, /* what a table needs beside its pairs */
};

struct encoder {
    lua_State *L;
    struct pge_buf *out;
    char *err;
    size_t err_size;
    int room_top;                       /* stack indices up to this one are reserved */
    bool is_described;                  /* err is written */
    size_t depth;                       /* open tables */
    struct pge_lua_json_shapes *shapes; /* NULL before they are needed */
    struct pge_lua_json_keys keys;
    struct pge_lua_json_level levels[PGE_LUA_JSON_DEPTH];
};

static int encode_value(struct encoder *e, int idx);

static void read_keys(struct encoder *e) {
    for (size_t i = 0; i < e->depth; i++) {
        struct pge_lua_json_level *level = &e->levels[i];
        if (level->key_slot)
            level->key = lua_tolstring(e->L, level->key_slot, &level->key_len);
    }
}

static int fail(struct encoder *e, int status, const char *what, size_t levels) {
    read_keys(e);
    pge_lua_json_describe(e->err, e->err_size, what, e->levels, levels);
    e->is_described = true;
    return status;
}

/* The value in work is to blame. */
static int fail_value(struct encoder *e, int status, const char *what) {
    return fail(e, status, what, e->depth);
}

/* The innermost open table is. */
static int fail_table(struct encoder *e, const char *what) {
    return fail(e, UV_EINVAL, what, e->depth - 1);
}

static int fail_type(struct encoder *e, int type) {
    static const char *const names[] = {
        [LUA_TNIL] = "nil",
        [LUA_TLIGHTUSERDATA] = "a light userdata",
        [LUA_TFUNCTION] = "a function",
        [LUA_TUSERDATA] = "a userdata",
        [LUA_TTHREAD] = "a coroutine",
    };
    const char *name = type >= 0 && type <= LUA_TTHREAD ? names[type] : NULL;
    return fail_value(e, UV_EINVAL, name ? name : "a value that is not there");
}

static int encode_string(struct encoder *e, const char *p, size_t n, const char *what) {
    int status = pge_json_quote(e->out, p, n);
    return status == UV_EILSEQ ? fail_value(e, status, what) : status;
}

static int encode_number(struct encoder *e, double v) {
    if (v - v != 0) /* NaN, infinite */
        return PGE_BUF_LIT(e->out, "null");
    int status = pge_buf_reserve(e->out, PGE_NUMBER_MAX);
    if (status == 0)
        e->out->end += pge_number_format(v, e->out->data + e->out->end);
    return status;
}

/* 64-bit integers */

static bool is_ctype(struct encoder *e, int idx, int slot) {
    lua_State *L = e->L;
    lua_rawgeti(L, LUA_REGISTRYINDEX, PGE_LUA_JSON_STATE);
    lua_rawgeti(L, -1, PGE_LUA_JSON_ISTYPE);
    lua_rawgeti(L, -2, slot);
    lua_pushvalue(L, idx);
    bool is = lua_pcall(L, 2, 1, 0) == 0 && lua_toboolean(L, -1);
    lua_pop(L, 2);
    return is;
}

static int encode_cdata(struct encoder *e, int idx) {
    char digits[24];
    int n;
    if (is_ctype(e, idx, PGE_LUA_JSON_INT64)) {
        int64_t value;
        memcpy(&value, lua_topointer(e->L, idx), sizeof(value));
        n = snprintf(digits, sizeof(digits), "%lld", (long long)value);
    } else if (is_ctype(e, idx, PGE_LUA_JSON_UINT64)) {
        uint64_t value;
        memcpy(&value, lua_topointer(e->L, idx), sizeof(value));
        n = snprintf(digits, sizeof(digits), "%llu", (unsigned long long)value);
    } else {
        return fail_value(e, UV_EINVAL, "a cdata other than a 64-bit integer");
    }
    return pge_buf_append(e->out, digits, (size_t)n);
}

/* Lists */

/* The table's first pair is on the stack. 0; 1 when the keys do not come as 1, 2, 3, ...: it may be
 * a list none the less, one that was not filled from its start. */
static int encode_in_order(struct encoder *e, int t) {
    lua_State *L = e->L;
    struct pge_lua_json_level *level = &e->levels[e->depth - 1];
    int status, value = lua_gettop(L);
    do {
        level->index++;
        if (lua_type(L, -2) != LUA_TNUMBER || lua_tonumber(L, -2) != (double)level->index)
            return 1;
        status = pge_buf_append(e->out, level->index == 1 ? "[" : ",", 1);
        if (status == 0)
            status = encode_value(e, value);
        lua_pop(L, 1);
    } while (status == 0 && lua_next(L, t));
    return status ? status : PGE_BUF_LIT(e->out, "]");
}

/* Are the keys exactly 1 to *n, in whatever order? */
static int check_list(struct encoder *e, int t, size_t *n) {
    lua_State *L = e->L;
    double largest = 0;
    *n = 0;
    lua_pushnil(L);
    for (; lua_next(L, t); lua_pop(L, 1), ++*n) {
        if (lua_type(L, -2) == LUA_TSTRING)
            return fail_table(e, "a list with named keys");
        if (lua_type(L, -2) != LUA_TNUMBER)
            return fail_table(e, "a table with a key that is no string");
        double i = lua_tonumber(L, -2);
        if (!(i >= 1 && i <= 9007199254740992.0) || i != (double)(uint64_t)i)
            return fail_table(e, "a table with a number as key that is no list index");
        largest = i > largest ? i : largest;
    }
    return largest == (double)*n ? 0 : fail_table(e, "a list with holes");
}

static int encode_by_index(struct encoder *e, int t) {
    struct pge_lua_json_level *level = &e->levels[e->depth - 1];
    size_t n;
    int status = check_list(e, t, &n);
    for (size_t i = 1; status == 0 && i <= n; i++) {
        level->index = i;
        lua_rawgeti(e->L, t, (int)i);
        status = pge_buf_append(e->out, i == 1 ? "[" : ",", 1);
        if (status == 0)
            status = encode_value(e, lua_gettop(e->L));
        lua_pop(e->L, 1);
    }
    return status ? status : PGE_BUF_LIT(e->out, "]");
}

/* The table's first pair is on the stack, above top. */
static int encode_list(struct encoder *e, int t, int top) {
    size_t before = pge_buf_len(e->out);
    int status = encode_in_order(e, t);
    if (status <= 0)
        return status;
    e->out->end = e->out->start + before;
    lua_settop(e->L, top);
    return encode_by_index(e, t);
}

/* Objects */

/* Notes the pair on top of the stack, whose value has the index `slot`. */
static int add_key(struct encoder *e, int slot) {
    lua_State *L = e->L;
    if (lua_type(L, -2) != LUA_TSTRING)
        return lua_type(L, -2) == LUA_TNUMBER
                   ? fail_table(e, "a list with named keys")
                   : fail_table(e, "a table with a key that is no string");
    size_t n;
    const char *p = lua_tolstring(L, -2, &n);
    return pge_lua_json_keys_add(&e->keys, p, n, slot);
}

/* Notes all keys; the first pair is on the stack, above top. *is_kept in: may the pairs stay on
 * the stack? Out: they did. */
static int collect_keys(struct encoder *e, int t, int top, bool *is_kept) {
    lua_State *L = e->L;
    int slot = top + 2;
    do {
        int status = add_key(e, slot);
        if (status != 0)
            return status;
        if (!*is_kept) {
            lua_pop(L, 1);
        } else if (slot < top + 2 * PAIRS_MAX) {
            lua_pushvalue(L, -2);
            slot += 2;
        } else { /* too many: only this key stays, for the walk to go on */
            lua_pop(L, 1);
            lua_replace(L, top + 1);
            lua_settop(L, top + 1);
            *is_kept = false;
        }
    } while (lua_next(L, t));
    return 0;
}

/* The collector is held back, since lua_pushlstring would let it run. */
static void push_string(lua_State *L, const char *p, size_t n) {
    bool is_running = lua_gc(L, LUA_GCISRUNNING, 0);
    if (is_running)
        lua_gc(L, LUA_GCSTOP, 0);
    lua_pushlstring(L, p, n); /* in use, so it is found and not made */
    if (is_running)
        lua_gc(L, LUA_GCRESTART, 0);
}

/* Pushes the value under a key that the table has. */
static void push_member(lua_State *L, int t, const struct pge_lua_json_key *key) {
    if (!memchr(key->p, '\0', key->n)) {
        lua_getfield(L, t, key->p); /* a value that is there hides any __index */
    } else {
        push_string(L, key->p, key->n);
        lua_rawget(L, t);
    }
}

static int encode_member(struct encoder *e, int t, size_t at, bool is_first, bool is_kept) {
    struct pge_lua_json_key key = e->keys.list[at]; /* a copy: adding keys may move the list */
    struct pge_lua_json_level *level = &e->levels[e->depth - 1];
    level->key = key.p;
    level->key_len = key.n;
    int status = pge_buf_append(e->out, is_first ? "{" : ",", 1);
    if (status == 0)
        status = encode_string(e, key.p, key.n, "a key with invalid UTF-8");
    if (status == 0)
        status = PGE_BUF_LIT(e->out, ":");
    if (status != 0 || is_kept)
        return status ? status : encode_value(e, key.slot);
    push_member(e->L, t, &key);
    status = encode_value(e, lua_gettop(e->L));
    lua_pop(e->L, 1);
    return status;
}

/* Of an object whose pairs are kept. */
static int encode_members(struct encoder *e, int t, size_t first, bool is_kept) {
    int status = 0;
    for (size_t i = first, end = e->keys.count; status == 0 && i < end; i++)
        status = encode_member(e, t, i, i == first, is_kept);
    return status ? status : PGE_BUF_LIT(e->out, "}");
}

/* Shapes */

static struct pge_lua_json_shapes *shapes_of(struct encoder *e) {
    lua_State *L = e->L;
    if (!e->shapes) {
        lua_rawgeti(L, LUA_REGISTRYINDEX, PGE_LUA_JSON_STATE);
        lua_rawgeti(L, -1, PGE_LUA_JSON_SHAPES_OF);
        e->shapes = lua_touserdata(L, -1);
        lua_pop(L, 2);
    }
    return e->shapes;
}

/* Keeps the pairs on the stack, the first of which is there, as long as their keys are those of the
 * shape. False: they are not all, and the first pair is there again. */
static bool has_shape(lua_State *L, int t, int top, const struct pge_lua_json_shape *shape) {
    unsigned i = 0;
    bool is_more = true;
    while (is_more && i < shape->count && lua_topointer(L, -2) == shape->keys[i].id) {
        lua_pushvalue(L, -2);
        is_more = lua_next(L, t);
        i++;
    }
    if (i > 0 && i == shape->count && !is_more)
        return true;
    lua_settop(L, top);
    lua_pushnil(L);
    lua_next(L, t);
    return false;
}

static int encode_shape(struct encoder *e, int top, struct pge_lua_json_shape *shape) {
    struct pge_lua_json_level *level = &e->levels[e->depth - 1];
    int status = 0;
    shape->users++;
    for (unsigned i = 0, from = 0; status == 0 && i < shape->count; i++) {
        int slot = top + 2 + 2 * shape->keys[i].sorted;
        level->key_slot = slot - 1;
        status = pge_buf_append(e->out, shape->text + from, shape->keys[i].end - from);
        from = shape->keys[i].end;
        if (status == 0)
            status = encode_value(e, slot);
    }
    shape->users--;
    return status ? status : PGE_BUF_LIT(e->out, "}");
}

/* The table's first pair is on the stack, above top. */
static int encode_object(struct encoder *e, int t, int top) {
    bool is_kept = top + 2 * PAIRS_MAX + LEVEL_SLOTS <= e->room_top;
    struct pge_lua_json_shape *shape = NULL;
    if (is_kept) {
        shape = pge_lua_json_shape_of(shapes_of(e), lua_topointer(e->L, -2));
        if (has_shape(e->L, t, top, shape))
            return encode_shape(e, top, shape);
    }
    size_t first = e->keys.count;
    int status = collect_keys(e, t, top, &is_kept);
    if (status == 0) {
        pge_lua_json_keys_sort(&e->keys, first);
        status = encode_members(e, t, first, is_kept);
    }
    if (status == 0 && is_kept && pge_lua_json_shape_is_due(shape))
        pge_lua_json_shape_learn(e->shapes, shape, e->L, top, e->keys.list + first,
                                 e->keys.count - first);
    e->keys.count = first;
    return status;
}

/* Tables */

static int make_room(struct encoder *e) {
    lua_State *L = e->L;
    int top = lua_gettop(L);
    int wanted = top < PAIRS_TOP ? 2 * PAIRS_MAX + LEVEL_SLOTS : LEVEL_SLOTS;
    if (top + wanted <= e->room_top)
        return 0;
    lua_rawgeti(L, LUA_REGISTRYINDEX, PGE_LUA_JSON_STATE);
    lua_rawgeti(L, -1, PGE_LUA_JSON_RESERVE);
    lua_pushinteger(L, PGE_LUA_JSON_ROOM);
    bool is_made = lua_pcall(L, 1, 1, 0) == 0 && lua_toboolean(L, -1);
    lua_pop(L, 2);
    if (!is_made || !lua_checkstack(L, PGE_LUA_JSON_ROOM))
        return fail_value(e, UV_ENOMEM, "a table for which Lua has no stack");
    e->room_top = top + PGE_LUA_JSON_ROOM;
    return 0;
}

static int open_table(struct encoder *e, int t) {
    const void *table = lua_topointer(e->L, t);
    for (size_t i = 0; i < e->depth; i++) {
        if (e->levels[i].table == table)
            return fail_value(e, UV_EINVAL, "a table that contains itself");
    }
    if (e->depth == PGE_LUA_JSON_DEPTH)
        return fail_value(e, UV_EINVAL, "a table nested deeper than 512 levels");
    int status = make_room(e);
    if (status == 0)
        e->levels[e->depth++] = (struct pge_lua_json_level){.table = table};
    return status;
}

static int encode_slice(struct encoder *e, int t) {
    size_t n;
    lua_rawgeti(e->L, t, 1);
    if (lua_type(e->L, -1) != LUA_TSTRING)
        return fail_table(e, "a slice without its text");
    const char *p = lua_tolstring(e->L, -1, &n);
    return pge_buf_append(e->out, p, n);
}

/* Which of our classes the table is of: a slot of the registry's table, or 0. */
static int class_of(struct encoder *e, int t) {
    lua_State *L = e->L;
    if (!lua_getmetatable(L, t))
        return 0;
    lua_rawgeti(L, LUA_REGISTRYINDEX, PGE_LUA_JSON_STATE);
    lua_rawgeti(L, -1, PGE_LUA_JSON_ARRAY_MT);
    lua_rawgeti(L, -2, PGE_LUA_JSON_SLICE_MT);
    int slot = lua_rawequal(L, -4, -2)   ? PGE_LUA_JSON_ARRAY_MT
               : lua_rawequal(L, -4, -1) ? PGE_LUA_JSON_SLICE_MT
                                         : 0;
    lua_pop(L, 4);
    return slot;
}

static int encode_open_table(struct encoder *e, int t, int top) {
    lua_State *L = e->L;
    int class_slot = class_of(e, t);
    if (class_slot == PGE_LUA_JSON_SLICE_MT)
        return encode_slice(e, t);
    bool is_list = class_slot == PGE_LUA_JSON_ARRAY_MT;
    lua_pushnil(L);
    if (!lua_next(L, t))
        return is_list ? PGE_BUF_LIT(e->out, "[]") : PGE_BUF_LIT(e->out, "{}");
    if (!is_list && lua_type(L, -2) == LUA_TSTRING)
        return encode_object(e, t, top);
    return encode_list(e, t, top);
}

static int encode_table(struct encoder *e, int t) {
    int top = lua_gettop(e->L);
    int status = open_table(e, t);
    if (status != 0)
        return status;
    status = encode_open_table(e, t, top);
    lua_settop(e->L, top);
    e->depth--;
    return status;
}

static int encode_value(struct encoder *e, int idx) {
    lua_State *L = e->L;
    size_t n;
    int type = lua_type(L, idx);
    switch (type) {
    case LUA_TSTRING: {
        const char *p = lua_tolstring(L, idx, &n);
        return encode_string(e, p, n, "a string with invalid UTF-8");
    }
    case LUA_TNUMBER:
        return encode_number(e, lua_tonumber(L, idx));
    case LUA_TBOOLEAN:
        return lua_toboolean(L, idx) ? PGE_BUF_LIT(e->out, "true") : PGE_BUF_LIT(e->out, "false");
    case LUA_TTABLE:
        return encode_table(e, idx);
    case LUA_TLIGHTUSERDATA:
        return lua_touserdata(L, idx) ? fail_type(e, type) : PGE_BUF_LIT(e->out, "null");
    case PGE_LUA_TCDATA:
        return encode_cdata(e, idx);
    default:
        return fail_type(e, type);
    }
}

int pge_lua_json_encode(lua_State *L, int idx, int room, struct pge_buf *out, char *err,
                        size_t err_size) {
    struct encoder e; /* not cleared: 18 kB */
    int top = lua_gettop(L);
    size_t before = pge_buf_len(out);
    e.L = L;
    e.out = out;
    e.err = err;
    e.err_size = err_size;
    e.is_described = false;
    e.shapes = NULL;
    e.room_top = room ? top + room : 0;
    e.depth = 0;
    pge_lua_json_keys_init(&e.keys);
    if (idx < 0 && idx > LUA_REGISTRYINDEX)
        idx = top + idx + 1;
    int status = encode_value(&e, idx);
    if (status != 0) {
        out->end = out->start + before;
        if (!e.is_described)
            snprintf(err, err_size, "%s", uv_strerror(status));
    }
    pge_lua_json_keys_deinit(&e.keys);
    lua_settop(L, top);
    return status;
}
