/* lua_digest.c - core.sha256: names a text by its content. */
#include <openssl/evp.h>

#include "bind/bind.h"

/* sha256(text) -> 64 hex digits */
static int core_sha256(lua_State *L) {
    static const char digits[] = "0123456789abcdef";
    size_t n;
    const char *text = luaL_checklstring(L, 1, &n);
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    char hex[2 * EVP_MAX_MD_SIZE];
    if (!EVP_Digest(text, n, digest, &len, EVP_sha256(), NULL))
        return luaL_error(L, "the digest failed");
    for (unsigned i = 0; i < len; i++) {
        hex[2 * i] = digits[digest[i] >> 4];
        hex[2 * i + 1] = digits[digest[i] & 15];
    }
    lua_pushlstring(L, hex, (size_t)2 * len);
    return 1;
}

void pge_lua_digest(lua_State *L) {
    lua_pushcfunction(L, core_sha256);
    lua_setfield(L, -2, "sha256");
}
