/*
 * lua_json_decode.c - validated JSON text to Lua values.
 *
 * A table's first members wait on the Lua stack until it is known how many there are, so that small
 * tables are made in their final size:  | k1 v1 k2 v2 k3 v3 |  ->  | {k1 = v1, ...} |
 * Objects need not wait where those before with the same first key tell what there will be: see
 * lua_json_maker.h.
 * The text is known to be JSON: only where a number may touch its end does anyone look for it.
 */
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include <lua.h>
#include <uv.h>

#include "bind/lua_json.h"
#include "bind/lua_json_maker.h"
#include "bind/lua_json_state.h"
#include "codec/json.h"
#include "codec/number.h"
#include "codec/swar.h"
#include "codec/utf8.h"

enum {
    BATCH = 16,           /* members that wait */
    BATCH_DEPTH = 64,     /* deeper than this, one: LuaJIT gives a C function 8000 slots */
    UNESCAPE_STACK = 512, /* longer strings with escapes are put together in a userdata */
};

#define EXACT_MAX 9007199254740992u /* 2^53: up to it doubles hold every integer */

struct decoder {
    lua_State *L;
    struct pge_lua_json_maker *makers; /* NULL before the first object */
    const struct making *making;       /* objects whose maker is in use */
    const char *p, *end;               /* borrowed: what is left of the text */
    int depth;
};

/* A maker in use: what it knows stays as it is, whatever the members are like. Only a finalizer
 * that decodes, and runs meanwhile, knows nothing of this: its doing is seen by `takes`. */
struct making {
    const struct pge_lua_json_maker *maker;
    unsigned takes;
    const struct making *outer;
};

static int decode_value(struct decoder *d);

static void skip_space(struct decoder *d) {
    d->p = pge_json_skip_space(d->p, d->end);
}

/* Strings */

/* Writes the content of a string, without quotes, to `to`, which has room for n bytes: no escape is
 * shorter than what it stands for. Returns the length. */
static size_t unescape(char *to, const char *p, size_t n) {
    const char *end = p + n;
    char *start = to;
    while (p < end) {
        const char *slash = memchr(p, '\\', (size_t)(end - p));
        size_t run = (size_t)((slash ? slash : end) - p);
        memcpy(to, p, run);
        to += run;
        p += run;
        if (slash) {
            char utf8[4];
            size_t width = pge_utf8_encode(pge_json_next_char(&p, end), utf8);
            memcpy(to, utf8, width);
            to += width;
        }
    }
    return (size_t)(to - start);
}

static void push_unescaped(lua_State *L, const char *p, size_t n) {
    char small[UNESCAPE_STACK];
    if (n <= sizeof(small)) {
        lua_pushlstring(L, small, unescape(small, p, n));
        return;
    }
    char *large = lua_newuserdata(L, n); /* not malloc: the push may raise */
    lua_pushlstring(L, large, unescape(large, p, n));
    lua_remove(L, -2);
}

/* d->p is at the opening quote. */
static void decode_string(struct decoder *d) {
    const char *p = d->p + 1;
    const char *at = pge_swar_skip_plain(p, d->end);
    if ((unsigned char)*at >= 0x80) { /* text in other letters: only the quote is looked for */
        const char *quote = memchr(at, '"', (size_t)(d->end - at));
        if (!memchr(at, '\\', (size_t)(quote - at)))
            at = quote;
    }
    if (*at == '"') {
        d->p = at + 1;
        lua_pushlstring(d->L, p, (size_t)(at - p));
        return;
    }
    while (*at != '"')
        at += *at == '\\' ? 2 : 1;
    d->p = at + 1;
    push_unescaped(d->L, p, (size_t)(at - p));
}

/* Numbers */

/* Pushes an int64_t or uint64_t cdata with these bits. */
static void push_integer(struct decoder *d, int slot, uint64_t bits) {
    lua_State *L = d->L;
    lua_rawgeti(L, LUA_REGISTRYINDEX, PGE_LUA_JSON_STATE);
    lua_rawgeti(L, -1, PGE_LUA_JSON_NEW);
    lua_rawgeti(L, -2, slot);
    lua_call(L, 1, 1);
    lua_remove(L, -2);
    memcpy((void *)lua_topointer(L, -1), &bits, sizeof(bits));
}

/* False: no 64-bit integer, a double must do. */
static bool decode_large(struct decoder *d, bool is_negative, uint64_t magnitude) {
    if (magnitude > (uint64_t)INT64_MAX + is_negative) {
        if (is_negative)
            return false;
        push_integer(d, PGE_LUA_JSON_UINT64, magnitude);
    } else {
        push_integer(d, PGE_LUA_JSON_INT64, is_negative ? 0 - magnitude : magnitude);
    }
    return true;
}

/* Reads digits as far as they go and fit. Returns the byte after them. */
static const char *read_magnitude(const char *p, const char *end, uint64_t *out, bool *fits) {
    uint64_t value = 0;
    *fits = true;
    for (; p < end && *p >= '0' && *p <= '9'; p++) {
        unsigned digit = (unsigned)(*p - '0');
        if (value > (UINT64_MAX - digit) / 10)
            *fits = false;
        value = value * 10 + digit;
    }
    *out = value;
    return p;
}

static bool is_number_char(char c) {
    return (c >= '0' && c <= '9') || c == '.' || c == 'e' || c == 'E' || c == '+' || c == '-';
}

/* Whole numbers of up to 15 digits, as most are. */
static bool decode_short(struct decoder *d) {
    const char *p = d->p;
    bool is_negative = *p == '-';
    p += is_negative;
    const char *end = d->end - p > 15 ? p + 15 : d->end;
    uint64_t value = 0;
    for (; p < end && (unsigned char)(*p - '0') < 10; p++)
        value = value * 10 + (unsigned char)(*p - '0');
    if (p < d->end && is_number_char(*p))
        return false;
    d->p = p;
    lua_pushnumber(d->L, is_negative ? -(double)value : (double)value);
    return true;
}

static void decode_number(struct decoder *d) {
    if (decode_short(d))
        return;
    const char *start = d->p;
    bool is_negative = *start == '-', fits;
    uint64_t magnitude;
    const char *p = read_magnitude(start + is_negative, d->end, &magnitude, &fits);
    bool is_integer = p == d->end || (*p != '.' && *p != 'e' && *p != 'E');
    while (p < d->end && is_number_char(*p))
        p++;
    d->p = p;
    if (is_integer && fits) {
        if (magnitude <= EXACT_MAX) {
            lua_pushnumber(d->L, is_negative ? -(double)magnitude : (double)magnitude);
            return;
        }
        if (decode_large(d, is_negative, magnitude))
            return;
    }
    double value = 0;
    pge_number_parse(start, (size_t)(p - start), &value);
    lua_pushnumber(d->L, value);
}

/* Tables */

/* Room for the members that may wait; false: too deep. */
static bool open_table(struct decoder *d, int *batch) {
    *batch = d->depth < BATCH_DEPTH ? BATCH : 1;
    if (++d->depth > PGE_LUA_JSON_DEPTH || !lua_checkstack(d->L, 2 * *batch + 6))
        return false;
    d->p++;
    skip_space(d);
    return true;
}

/* d->p is after a member: takes what follows it, ',' or the closing bracket. */
static char next_mark(struct decoder *d) {
    skip_space(d);
    char c = *d->p++;
    skip_space(d);
    return c;
}

/* Turns the pairs above base into a table at base + 1. */
static void make_object(lua_State *L, int base, int hint) {
    int last = lua_gettop(L) + 1;
    lua_createtable(L, 0, hint);
    lua_insert(L, base + 1);
    for (int i = base + 2; i < last; i += 2) { /* forwards: the last of equal keys wins */
        lua_pushvalue(L, i);
        lua_pushvalue(L, i + 1);
        lua_rawset(L, base + 1);
    }
    lua_settop(L, base + 1);
}

static struct pge_lua_json_maker *maker_of(struct decoder *d) {
    lua_State *L = d->L;
    if (!d->makers) {
        lua_rawgeti(L, LUA_REGISTRYINDEX, PGE_LUA_JSON_STATE);
        lua_rawgeti(L, -1, PGE_LUA_JSON_MAKERS_OF);
        d->makers = lua_touserdata(L, -1);
        lua_pop(L, 2);
    }
    return pge_lua_json_maker_of(d->makers, d->p, d->end);
}

static bool is_in_use(const struct decoder *d, const struct pge_lua_json_maker *maker) {
    const struct making *making = d->making;
    while (making && making->maker != maker)
        making = making->outer;
    return making != NULL;
}

static bool is_unchanged(const struct making *making) {
    return making->maker->takes == making->takes;
}

/* Decodes members as long as their keys are the maker's: their values are left above its function.
 * *mark: what follows the last one. */
static int decode_known(struct decoder *d, const struct making *making,
                        struct pge_lua_json_found *found, char *mark) {
    const struct pge_lua_json_maker *maker = making->maker;
    int status = 0;
    lua_rawgeti(d->L, LUA_REGISTRYINDEX, maker->ref);
    d->making = making;
    for (unsigned i = 0, from = 0; status == 0 && *mark == ',' && i < maker->count; i++) {
        if (!is_unchanged(making))
            break;
        size_t n = maker->ends[i] - from;
        const char *key = d->p;
        if ((size_t)(d->end - key) < n || memcmp(key, maker->text + from, n) != 0)
            break;
        d->p += n;
        pge_lua_json_found_add(found, key, d->p);
        next_mark(d); /* ':' */
        status = decode_value(d);
        if (status == 0)
            *mark = next_mark(d);
        from = maker->ends[i];
    }
    d->making = making->outer;
    return status;
}

/* Turns the maker's function at base + 1 and the values above it into a table, key by key. */
static void spread(struct decoder *d, int base, const struct pge_lua_json_found *found) {
    lua_State *L = d->L;
    lua_createtable(L, 0, (int)found->count + 1);
    for (unsigned i = 0; i < found->count; i++) {
        lua_pushlstring(L, found->keys[i].p + 1, found->keys[i].n - 2);
        lua_pushvalue(L, base + 2 + (int)i);
        lua_rawset(L, -3);
    }
    lua_replace(L, base + 1);
    lua_settop(L, base + 1);
}

/* The first key is on the stack: makes the table beneath it, if its size is known. */
static bool make_known(lua_State *L, int base, unsigned size) {
    if (size == 0)
        return false;
    lua_createtable(L, 0, (int)size);
    lua_insert(L, base + 1);
    return true;
}

/* The members that are left, one by one. is_made: the table of those before is at base + 1. */
static int decode_members(struct decoder *d, int base, int batch, bool is_made, unsigned size,
                          struct pge_lua_json_found *found, char mark) {
    lua_State *L = d->L;
    while (mark == ',') {
        const char *key = d->p;
        decode_string(d);
        pge_lua_json_found_add(found, key, d->p);
        if (found->count == 1 && !is_made)
            is_made = make_known(L, base, size);
        next_mark(d); /* ':' */
        int status = decode_value(d);
        if (status != 0)
            return status;
        mark = next_mark(d);
        if (is_made) {
            lua_rawset(L, base + 1);
        } else if (found->count == (unsigned)batch && mark == ',') {
            make_object(L, base, 2 * batch);
            is_made = true;
        }
    }
    if (!is_made)
        make_object(L, base, (int)found->count);
    return 0;
}

/* d->p is at the first key. */
static int decode_keyed(struct decoder *d, int base, int batch) {
    struct pge_lua_json_maker *maker = maker_of(d);
    struct pge_lua_json_found found;
    char mark = ',';
    bool is_known = maker->ref && batch > 1;
    int status = 0;
    found.count = 0; /* the rest is not cleared: 256 bytes */
    if (is_known) {
        const struct making making = {maker, maker->takes, d->making};
        status = decode_known(d, &making, &found, &mark);
        if (status == 0 && mark == '}' && found.count == maker->count && is_unchanged(&making)) {
            maker->spare = PGE_LUA_JSON_MAKER_SPARE;
            lua_call(d->L, (int)found.count, 1);
            return 0;
        }
        if (status == 0)
            spread(d, base, &found);
    }
    if (status == 0)
        status = decode_members(d, base, batch, is_known, maker->count, &found, mark);
    if (status == 0 && batch > 1 && !is_in_use(d, maker))
        pge_lua_json_maker_learn(d->L, maker, &found);
    return status;
}

static int decode_object(struct decoder *d) {
    int base = lua_gettop(d->L), batch, status = 0;
    if (!open_table(d, &batch))
        return UV_E2BIG;
    if (*d->p == '}') {
        d->p++;
        lua_createtable(d->L, 0, 0);
    } else {
        status = decode_keyed(d, base, batch);
    }
    d->depth--;
    return status;
}

/* Turns the values above base into a list at base + 1. */
static void make_list(lua_State *L, int base, int hint) {
    int n = lua_gettop(L) - base;
    lua_createtable(L, hint, 0);
    lua_rawgeti(L, LUA_REGISTRYINDEX, PGE_LUA_JSON_STATE);
    lua_rawgeti(L, -1, PGE_LUA_JSON_ARRAY_MT);
    lua_setmetatable(L, -3);
    lua_pop(L, 1);
    lua_insert(L, base + 1);
    while (n > 0)
        lua_rawseti(L, base + 1, n--);
}

static int decode_array(struct decoder *d) {
    lua_State *L = d->L;
    int base = lua_gettop(L), batch, count = 0;
    bool is_made = false;
    if (!open_table(d, &batch))
        return UV_E2BIG;
    char mark = *d->p == ']' ? *d->p++ : ',';
    while (mark == ',') {
        int status = decode_value(d);
        if (status != 0)
            return status;
        mark = next_mark(d);
        count++;
        if (is_made) {
            lua_rawseti(L, base + 1, count);
        } else if (count == batch && mark == ',') {
            make_list(L, base, 2 * batch);
            is_made = true;
        }
    }
    if (!is_made)
        make_list(L, base, count);
    d->depth--;
    return 0;
}

/* d->p is at the value's first byte. */
static int decode_value(struct decoder *d) {
    switch (*d->p) {
    case '{':
        return decode_object(d);
    case '[':
        return decode_array(d);
    case '"':
        decode_string(d);
        return 0;
    case 't':
        d->p += 4;
        lua_pushboolean(d->L, 1);
        return 0;
    case 'f':
        d->p += 5;
        lua_pushboolean(d->L, 0);
        return 0;
    case 'n':
        d->p += 4;
        lua_pushlightuserdata(d->L, NULL);
        return 0;
    default:
        decode_number(d);
        return 0;
    }
}

int pge_lua_json_decode(lua_State *L, const char *p, size_t n) {
    int top = lua_gettop(L);
    struct decoder d = {.L = L, .p = p, .end = p + n};
    if (!lua_checkstack(L, 8))
        return UV_E2BIG;
    skip_space(&d);
    int status = decode_value(&d);
    if (status != 0)
        lua_settop(L, top);
    return status;
}
