/* lua_tls.c - core.tls_left: whether a listener's certificate is of use. */
#include "bind/bind.h"

/* tls_left(options) -> seconds until the certificate of options.tls expires, negative afterwards;
 * nil, code, message: it cannot be used */
static int core_tls_left(lua_State *L) {
    char why[256];
    struct pge_tls *tls;
    luaL_checktype(L, 1, LUA_TTABLE);
    if (!pge_opt_tls(L, 1, true, &tls, why, sizeof why))
        return pge_push_failure(L, PGE_INVALID_OPTION, why);
    luaL_argcheck(L, tls != NULL, 1, "tls is missing");
    lua_pushnumber(L, (lua_Number)pge_tls_left_s(tls));
    pge_tls_unref(tls);
    return 1;
}

void pge_lua_tls(lua_State *L) {
    lua_pushcfunction(L, core_tls_left);
    lua_setfield(L, -2, "tls_left");
}
