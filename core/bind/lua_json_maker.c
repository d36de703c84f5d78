/* lua_json_maker.c - see lua_json_maker.h. */
#include "bind/lua_json_maker.h"

#include <lauxlib.h>
#include <luajit.h>
#include <stdbool.h>
#include <string.h>

enum { SEEN_ENOUGH = 8 }; /* objects in a row that make a function worth its compilation */

struct pge_lua_json_maker *
pge_lua_json_maker_of(struct pge_lua_json_maker makers[PGE_LUA_JSON_MAKERS], const char *p,
                      const char *end) {
    uint32_t hash = 2166136261u; /* FNV-1a of a few bytes: most first keys differ in them */
    for (int i = 0; i < 6 && ++p < end && *p != '"'; i++)
        hash = (hash ^ (unsigned char)*p) * 16777619u;
    return &makers[(hash ^ hash >> 16) % PGE_LUA_JSON_MAKERS];
}

static bool is_same(const struct pge_lua_json_maker *maker,
                    const struct pge_lua_json_found *found) {
    if (maker->count != found->count)
        return false;
    for (unsigned i = 0, from = 0; i < found->count; from = maker->ends[i++]) {
        if (found->keys[i].n != maker->ends[i] - from ||
            memcmp(found->keys[i].p, maker->text + from, found->keys[i].n) != 0)
            return false;
    }
    return true;
}

/* No key twice, none with an escape: then their text is what they are. */
static bool is_plain(const struct pge_lua_json_found *found) {
    for (unsigned i = 0; i < found->count; i++) {
        const struct pge_span *key = &found->keys[i];
        if (memchr(key->p, '\\', key->n))
            return false;
        for (unsigned j = 0; j < i; j++)
            if (found->keys[j].n == key->n && memcmp(found->keys[j].p, key->p, key->n) == 0)
                return false;
    }
    return true;
}

static void remember(lua_State *L, struct pge_lua_json_maker *maker,
                     const struct pge_lua_json_found *found) {
    size_t n = 0;
    luaL_unref(L, LUA_REGISTRYINDEX, maker->ref ? maker->ref : LUA_NOREF);
    maker->ref = 0;
    maker->count = maker->seen = 0;
    maker->takes++;
    if (found->count > PGE_LUA_JSON_MAKER_KEYS || !is_plain(found))
        return;
    for (unsigned i = 0; i < found->count; i++) {
        if (n + found->keys[i].n > PGE_LUA_JSON_MAKER_TEXT)
            return;
        memcpy(maker->text + n, found->keys[i].p, found->keys[i].n);
        n += found->keys[i].n;
        maker->ends[i] = (uint16_t)n;
    }
    maker->count = found->count;
    maker->seen = 1;
}

static void add_list(luaL_Buffer *b, const struct pge_lua_json_maker *maker) {
    for (unsigned i = 0, from = 0; i < maker->count; from = maker->ends[i++]) {
        luaL_addstring(b, i ? ",[\"" : "[\"");
        for (unsigned at = from + 1; at + 1u < maker->ends[i]; at++) {
            unsigned char c = (unsigned char)maker->text[at];
            char escape[4] = {'\\', (char)('0' + c / 100), (char)('0' + c / 10 % 10),
                              (char)('0' + c % 10)};
            luaL_addlstring(b, escape, sizeof(escape));
        }
        char value[] = "\"]=aX";
        value[4] = (char)('A' + i);
        luaL_addstring(b, value);
    }
}

/* The function at 1 is too short to be worth a trace. */
static int interpret(lua_State *L) {
    luaJIT_setmode(L, 1, LUAJIT_MODE_FUNC | LUAJIT_MODE_OFF);
    return 0;
}

/* Its name is of perigee's own code: what runs in it is not the script's (budget.h). A finalizer
 * that runs meanwhile may decode, and so give the place to others, or make the same. */
static void make(lua_State *L, struct pge_lua_json_maker *maker) {
    unsigned takes = maker->takes;
    luaL_Buffer b;
    luaL_buffinit(L, &b);
    luaL_addstring(&b, "return function(");
    for (unsigned i = 0; i < maker->count; i++) {
        char name[] = ",aX";
        name[2] = (char)('A' + i);
        luaL_addstring(&b, i ? name : name + 1);
    }
    luaL_addstring(&b, ") return {");
    add_list(&b, maker);
    luaL_addstring(&b, "} end");
    luaL_pushresult(&b);
    size_t n;
    const char *source = lua_tolstring(L, -1, &n);
    if (luaL_loadbuffer(L, source, n, "@lua/perigee/json.lua") == 0) {
        lua_newtable(L); /* it reaches nothing, also no script that happened to be the first */
        lua_setfenv(L, -2);
        lua_call(L, 0, 1);
        lua_pushcfunction(L, interpret);
        lua_pushvalue(L, -2);
        if (lua_pcall(L, 1, 0, 0) != 0)
            lua_pop(L, 1); /* LuaJIT refuses in a finalizer: it may be compiled, then */
        if (maker->takes == takes && !maker->ref) {
            maker->ref = luaL_ref(L, LUA_REGISTRYINDEX);
            maker->spare = PGE_LUA_JSON_MAKER_SPARE;
            lua_pop(L, 1);
            return;
        }
    }
    lua_pop(L, 2);
}

void pge_lua_json_maker_learn(lua_State *L, struct pge_lua_json_maker *maker,
                              const struct pge_lua_json_found *found) {
    if (!is_same(maker, found)) {
        if (maker->ref && maker->spare-- > 0)
            return;
        remember(L, maker, found);
    } else if (!maker->ref && ++maker->seen >= SEEN_ENOUGH) {
        make(L, maker);
    }
}
