/* lua_digest.c - core.sha256: names a text by its content. */
#include "bind/bind.h"
#include "codec/sha256.h"

/* sha256(text) -> 64 hex digits */
static int core_sha256(lua_State *L) {
    static const char digits[] = "0123456789abcdef";
    size_t n;
    const char *text = luaL_checklstring(L, 1, &n);
    unsigned char digest[PGE_SHA256_SIZE];
    char hex[2 * PGE_SHA256_SIZE];
    pge_sha256(text, n, digest);
    for (int i = 0; i < PGE_SHA256_SIZE; i++) {
        hex[2 * i] = digits[digest[i] >> 4];
        hex[2 * i + 1] = digits[digest[i] & 15];
    }
    lua_pushlstring(L, hex, sizeof hex);
    return 1;
}

void pge_lua_digest(lua_State *L) {
    lua_pushcfunction(L, core_sha256);
    lua_setfield(L, -2, "sha256");
}
