/* lua_handles.c - how our handles show themselves to who walks the loop: luv knows one thing of
 * ours for all of them, the table here, and tostring of that names what is open. */
#include <stdio.h>

#include "bind/bind.h"

struct names {
    const struct pge_bind *bind;
    char text[1024]; /* what does not fit is left out */
    size_t n;
};

static void say(struct names *names, const char *format, const char *type, int number) {
    size_t room = sizeof names->text - names->n;
    int n = snprintf(names->text + names->n, room, format, names->n ? ", " : "", type, number);
    if (n > 0 && (size_t)n < room)
        names->n += (size_t)n;
}

/* No Lua in here: what it raised would leave the loop's list of handles torn. */
static void note(uv_handle_t *handle, void *arg) {
    struct names *names = arg;
    if (handle->data != &names->bind->tag)
        return;
    const char *type = uv_handle_type_name(uv_handle_get_type(handle));
    if (uv_is_closing(handle))
        say(names, "%s%s (closing)", type, 0);
    else if (!uv_is_active(handle))
        say(names, "%s%s (idle)", type, 0);
    else if (uv_handle_get_type(handle) == UV_TIMER)
        say(names, "%s%s (%d ms)", type,
            (int)uv_timer_get_due_in((const uv_timer_t *)(const void *)handle));
    else
        say(names, uv_has_ref(handle) ? "%s%s" : "%s%s (not held)", type, 0);
}

static int handles_tostring(lua_State *L) {
    struct names names = {.bind = lua_touserdata(L, lua_upvalueindex(1))};
    uv_walk(names.bind->loop.uv, note, &names);
    lua_pushfstring(L, "perigee: %s", names.n ? names.text : "nothing");
    return 1;
}

void pge_lua_push_handles(lua_State *L, struct pge_bind *bind) {
    lua_newtable(L);
    lua_newtable(L);
    lua_pushlightuserdata(L, bind);
    lua_pushcclosure(L, handles_tostring, 1);
    lua_setfield(L, -2, "__tostring");
    lua_setmetatable(L, -2);
}
