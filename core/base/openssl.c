/* openssl.c - loads OpenSSL's library, once in a process. */
#define PGE_OPENSSL_NAMES_ONLY
#include "base/openssl.h"

#include <dlfcn.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <uv.h>

#define TEXT_OF(macro) TEXT(macro)
#define TEXT(text) #text
#ifdef OPENSSL_SHLIB_VERSION
#define LIBRARY "libssl.so." TEXT_OF(OPENSSL_SHLIB_VERSION)
#else
#define LIBRARY "libssl.so." SHLIB_VERSION_NUMBER /* before 3.0 */
#endif

struct pge_openssl pge_openssl;

static uv_once_t once = UV_ONCE_INIT;
static char error[256]; /* "": it is loaded */

/* What libssl needs itself, libcrypto, is searched as well. Never unloaded: it has exit handlers.
 */
static void load(void) {
    static const struct {
        const char *name;
        size_t at;
    } functions[] = {
#define PGE_ENTRY(name) {#name, offsetof(struct pge_openssl, name)},
        PGE_OPENSSL_FUNCTIONS(PGE_ENTRY)
#undef PGE_ENTRY
    };
    void *library = dlopen(LIBRARY, RTLD_LAZY | RTLD_LOCAL);
    if (!library) {
        snprintf(error, sizeof error, "%s", dlerror());
        return;
    }
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        void *found = dlsym(library, functions[i].name);
        if (!found)
            snprintf(error, sizeof error, "%s has no %s", LIBRARY, functions[i].name);
        memcpy((char *)&pge_openssl + functions[i].at, &found, sizeof found);
    }
}

int pge_openssl_load(const char **why) {
    uv_once(&once, load);
    *why = error;
    return error[0] ? UV_ENOTSUP : 0;
}
