/* stack.c - the frames of a Lua state and of the coroutines it has resumed. */
#include "bind/stack.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum { MAX_COROUTINES = 32, MAX_FRAMES = 40 };

struct writer {
    const char *own_prefix;
    char *text, *where;
    size_t size, used, where_size;
    bool has_where;
};

/* The coroutine that the frame has resumed. NULL: none. */
static lua_State *resumed_by(lua_State *L, lua_Debug *ar) {
    lua_State *co = NULL;
    lua_getinfo(L, "f", ar);
    bool is_c = lua_iscfunction(L, -1);
    if (is_c && lua_getupvalue(L, -1, 1)) { /* of coroutine.wrap */
        co = lua_tothread(L, -1);
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    if (is_c && !co && lua_getlocal(L, ar, 1)) { /* of coroutine.resume */
        co = lua_tothread(L, -1);
        lua_pop(L, 1);
    }
    return co != L ? co : NULL;
}

static void write_frame(struct writer *w, lua_State *L, lua_Debug *ar) {
    char line[200];
    lua_getinfo(L, "nSl", ar);
    const char *name = ar->name ? ar->name : *ar->what == 'm' ? "the main chunk" : "?";
    int n = ar->currentline > 0
                ? snprintf(line, sizeof line, "    %s:%d: in %s\n", ar->short_src, ar->currentline,
                           name)
                : snprintf(line, sizeof line, "    %s: in %s\n", ar->short_src, name);
    if (n > 0 && (size_t)n < sizeof line && w->used + (size_t)n < w->size) {
        memcpy(w->text + w->used, line, (size_t)n + 1);
        w->used += (size_t)n;
    }
    if (w->has_where || ar->currentline <= 0 ||
        strncmp(ar->source, w->own_prefix, strlen(w->own_prefix)) == 0)
        return;
    snprintf(w->where, w->where_size, "%s:%d", ar->short_src, ar->currentline);
    w->has_where = true;
}

void pge_stack_write(lua_State *L, const char *own_prefix, char *text, size_t size, char *where,
                     size_t where_size) {
    struct writer w = {own_prefix, text, where, size, 0, where_size, false};
    lua_State *chain[MAX_COROUTINES];
    int n = 0;
    lua_Debug ar;
    for (lua_State *co = L; co && n < MAX_COROUTINES;) {
        chain[n++] = co;
        co = lua_getstack(co, 0, &ar) ? resumed_by(co, &ar) : NULL;
    }
    while (n-- > 0) {
        for (int level = 0; level < MAX_FRAMES && lua_getstack(chain[n], level, &ar); level++)
            write_frame(&w, chain[n], &ar);
    }
}
