/* lua_handles.c - how our handles show themselves to who walks the loop: luv knows one thing of
 * ours for all of them, the table here, and tostring of that names what is open. */
#include <stdio.h>

#include "bind/bind.h"

struct names {
    const struct pge_bind *bind;
    char text[1024]; /* what does not fit is left out */
    size_t n;
};

static void say(struct names *names, const char *type, const char *state) {
    size_t room = sizeof names->text - names->n;
    const char *comma = names->n ? ", " : "";
    int n = snprintf(names->text + names->n, room, "%s%s%s", comma, type, state);
    if (n > 0 && (size_t)n < room)
        names->n += (size_t)n;
}

/* No Lua in here: what it raised would leave the loop's list of handles torn. */
static void note(uv_handle_t *handle, void *arg) {
    struct names *names = arg;
    char due[32];
    if (handle->data != &names->bind->tag)
        return;
    uv_handle_type type = uv_handle_get_type(handle);
    const char *state = uv_has_ref(handle) ? "" : " (not held)";
    if (uv_is_closing(handle)) {
        state = " (closing)";
    } else if (!uv_is_active(handle)) {
        state = " (idle)";
    } else if (type == UV_TIMER) {
        uint64_t ms = uv_timer_get_due_in((const uv_timer_t *)(const void *)handle);
        snprintf(due, sizeof due, " (%llu ms)", (unsigned long long)ms);
        state = due;
    }
    say(names, uv_handle_type_name(type), state);
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
