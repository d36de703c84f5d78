/* lua_timer.c - core.now, core.virtual_clock and core.timer: one-shot timers on the loop's wheel.
 */
#include "bind/bind.h"

#define CLASS "perigee.core.timer"

struct timer {
    struct pge_box box; /* first */
    struct pge_timer timer;
    int fn_ref;
};

static void disarm(struct timer *t) {
    pge_loop_timer_stop(&t->box.bind->loop, &t->timer);
    luaL_unref(t->box.bind->L, LUA_REGISTRYINDEX, t->fn_ref);
    t->fn_ref = LUA_NOREF;
    pge_box_release(&t->box);
}

static int call_fn(lua_State *L, void *arg) {
    struct timer *t = arg;
    pge_box_push(L, &t->box); /* on the stack: disarm lets go of it */
    lua_rawgeti(L, LUA_REGISTRYINDEX, t->fn_ref);
    disarm(t);
    lua_call(L, 0, 0);
    return 0;
}

static void fire(void *arg) {
    struct timer *t = arg;
    pge_bind_call(t->box.bind, call_fn, t);
}

static void on_fire(struct pge_timer *timer) {
    struct timer *t = container_of(timer, struct timer, timer);
    pge_bind_enter(&t->box.bind->engine, fire, t);
}

static void drop(struct pge_box *box) {
    struct timer *t = container_of(box, struct timer, box);
    pge_loop_timer_stop(&box->bind->loop, &t->timer);
}

static int timer_new(lua_State *L) {
    struct pge_bind *bind = lua_touserdata(L, lua_upvalueindex(1));
    double ms = luaL_checknumber(L, 1);
    luaL_checktype(L, 2, LUA_TFUNCTION);
    luaL_argcheck(L, ms >= 0 && ms < 0x1p53, 1, "not a time in milliseconds");
    struct timer *t = pge_box_new(L, bind, sizeof *t, CLASS, drop);
    t->fn_ref = LUA_NOREF;
    pge_timer_init(&t->timer, on_fire);
    pge_box_anchor(L, &t->box, lua_gettop(L));
    lua_pushvalue(L, 2);
    t->fn_ref = luaL_ref(L, LUA_REGISTRYINDEX);
    /* Half a millisecond up: never early, and 0 is the next turn of the loop. */
    if (pge_loop_timer(&bind->loop, &t->timer, (uint64_t)(ms + 0.999)) < 0)
        return luaL_error(L, "not enough memory");
    return 1;
}

static int timer_cancel(lua_State *L) {
    struct timer *t = pge_check_box(L, 1, CLASS);
    if (t->fn_ref != LUA_NOREF)
        disarm(t);
    return 0;
}

static int timer_gc(lua_State *L) {
    struct timer *t = lua_touserdata(L, 1);
    if (t->fn_ref == LUA_NOREF) /* else it is armed, and bind_gc drops it */
        pge_list_remove(&t->box.node);
    return 0;
}

static int core_now(lua_State *L) {
    struct pge_bind *bind = lua_touserdata(L, lua_upvalueindex(1));
    lua_pushnumber(L, (double)pge_loop_now(&bind->loop));
    return 1;
}

static int core_virtual_clock(lua_State *L) {
    struct pge_bind *bind = lua_touserdata(L, lua_upvalueindex(1));
    luaL_checktype(L, 1, LUA_TBOOLEAN);
    pge_loop_set_virtual(&bind->loop, lua_toboolean(L, 1));
    return 0;
}

static const luaL_Reg methods[] = {{"cancel", timer_cancel}, {NULL, NULL}};

void pge_lua_timer(lua_State *L, struct pge_bind *bind) {
    pge_class(L, CLASS, methods, timer_gc);
    lua_pushlightuserdata(L, bind);
    lua_pushcclosure(L, core_now, 1);
    lua_setfield(L, -2, "now");
    lua_pushlightuserdata(L, bind);
    lua_pushcclosure(L, core_virtual_clock, 1);
    lua_setfield(L, -2, "virtual_clock");
    lua_pushlightuserdata(L, bind);
    lua_pushcclosure(L, timer_new, 1);
    lua_setfield(L, -2, "timer");
}
