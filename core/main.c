/*
 * main.c - the `perigee` program: one file with LuaJIT, luv, cjson and perigee's Lua sources
 * inside. require finds them through a loader of ours, before it looks at the path.
 */
#include <fcntl.h>
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#include "bind/bind.h"
#include "bind/budget.h"
#include "bind/embedded.h"
#include "supervisor/child.h"
#include "supervisor/protocol.h"
#include "supervisor/supervisor.h"

int luaopen_luv(lua_State *L);
int luaopen_cjson(lua_State *L);

enum { EXIT_FAILED = 1, STATUS_PENDING = -1, MAX_CLOSING_TURNS = 8 };

struct program {
    uv_loop_t *loop; /* luv's; NULL before it is loaded */
    int status;      /* STATUS_PENDING until the command has ended */
    bool is_worker;  /* of a supervisor */
};

/* done(code): the command has ended. */
static int program_done(lua_State *L) {
    struct program *program = lua_touserdata(L, lua_upvalueindex(1));
    program->status = (int)luaL_checkinteger(L, 1);
    if (program->loop)
        uv_stop(program->loop);
    return 0;
}

static void preload(lua_State *L, const char *name, lua_CFunction open) {
    lua_getglobal(L, "package");
    lua_getfield(L, -1, "preload");
    lua_pushcfunction(L, open);
    lua_setfield(L, -2, name);
    lua_pop(L, 2);
}

/* A package loader, asked before the path: the modules inside the program. */
static int load_embedded(lua_State *L) {
    const char *name = luaL_checkstring(L, 1);
    for (const struct pge_embedded *e = pge_embedded; e->module; e++) {
        if (strcmp(e->module, name) != 0)
            continue;
        if (luaL_loadbuffer(L, e->source, e->size, e->chunk) != 0)
            return lua_error(L);
        return 1;
    }
    lua_pushnil(L);
    return 1;
}

/* package.loaders: preload, ours, path, ... */
static void add_loader(lua_State *L) {
    lua_getglobal(L, "package");
    lua_getfield(L, -1, "loaders");
    for (int i = (int)lua_objlen(L, -1); i >= 2; i--) {
        lua_rawgeti(L, -1, i);
        lua_rawseti(L, -2, i + 1);
    }
    lua_pushcfunction(L, load_embedded);
    lua_rawseti(L, -2, 2);
    lua_pop(L, 2);
}

static int traceback(lua_State *L) {
    lua_getglobal(L, "debug");
    lua_getfield(L, -1, "traceback");
    lua_pushvalue(L, 1);
    lua_pushinteger(L, 2);
    lua_call(L, 2, 1);
    return 1;
}

/* Stack: argc, argv. Loads everything and starts the command. */
static int start(lua_State *L) {
    struct program *program = lua_touserdata(L, 1);
    int argc = (int)lua_tointeger(L, 2);
    char **argv = lua_touserdata(L, 3);
    lua_gc(L, LUA_GCSTOP, 0); /* what is loaded now stays */
    luaL_openlibs(L);
    preload(L, "luv", luaopen_luv);
    preload(L, "cjson", luaopen_cjson);
    preload(L, "perigee.core", luaopen_perigee_core);
    add_loader(L);
    program->loop = pge_bind_of(L)->luv->loop;
    pge_bind_keep_alive(pge_bind_of(L));
    if (program->is_worker)
        pge_bind_of(L)->loop.sockets = pge_child_sockets();
    lua_getglobal(L, "require");
    lua_pushliteral(L, "perigee.cli");
    lua_call(L, 1, 1);
    lua_gc(L, LUA_GCRESTART, -1); /* LuaJIT: the next cycle is as far as after one */
    lua_getfield(L, -1, "main");
    lua_createtable(L, argc, 0);
    for (int i = 0; i < argc; i++) {
        lua_pushstring(L, argv[i]);
        lua_rawseti(L, -2, i);
    }
    lua_pushlightuserdata(L, program);
    lua_pushcclosure(L, program_done, 1);
    if (program->is_worker)
        lua_pushinteger(L, PGE_CONTROL_FD);
    lua_call(L, program->is_worker ? 3 : 2, 0);
    return 0;
}

/* Calls what the command has left for the case that it waits in vain, once. */
static int call_idle(lua_State *L, void *arg) {
    bool *is_told = arg;
    lua_getfield(L, LUA_REGISTRYINDEX, "perigee.idle");
    if (!lua_isfunction(L, -1))
        return 0;
    *is_told = true;
    lua_pushnil(L);
    lua_setfield(L, LUA_REGISTRYINDEX, "perigee.idle");
    lua_call(L, 0, 0);
    return 0;
}

struct idle {
    struct pge_bind *bind;
    bool is_told;
};

static void tell_idle(void *arg) {
    struct idle *idle = arg;
    pge_bind_call(idle->bind, call_idle, &idle->is_told);
}

static bool is_told_idle(lua_State *L) {
    struct idle idle = {pge_bind_of(L), false};
    pge_bind_enter(&idle.bind->engine, tell_idle, &idle);
    return idle.is_told;
}

/* Runs the loop until the command has ended, or nothing is left that could end it. */
static void run(struct program *program, lua_State *L) {
    while (program->status == STATUS_PENDING &&
           (uv_run(program->loop, UV_RUN_DEFAULT) || is_told_idle(L)))
        ;
    if (program->status != STATUS_PENDING)
        return;
    fputs("perigee: CANCELLED: nothing is left on the loop that could end this wait\n", stderr);
    program->status = EXIT_FAILED;
}

static void note_closing(uv_handle_t *handle, void *arg) {
    *(bool *)arg |= uv_is_closing(handle);
}

/* luv crashes when the state is closed while handles of the script's own are still closing. */
static void finish_closing(uv_loop_t *loop) {
    bool closing = true;
    for (int turn = 0; loop && closing && turn < MAX_CLOSING_TURNS; turn++) {
        closing = false;
        uv_walk(loop, note_closing, &closing);
        if (closing)
            uv_run(loop, UV_RUN_NOWAIT);
    }
}

/* What the arguments mean, and whether they are right, a worker says; `serve` alone is a mistake.
 */
static bool wants_supervisor(int argc, char **argv) {
    return argc > 2 && strcmp(argv[1], "serve") == 0;
}

/* Nothing of Lua's catches it: almost always memory that own code could not get. */
static int on_panic(lua_State *L) {
    const char *message = lua_tostring(L, -1);
    fprintf(stderr, "perigee: SCRIPT: %s, outside of any script: the process ends\n",
            message ? message : "a fault");
    _exit(PGE_EXIT_SCRIPT);
}

/* What is closed of descriptors 0 to 2 must not become something else: libuv aborts over one of
 * its own, and workers inherit them. */
static void open_standard_streams(void) {
    int fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd <= STDERR_FILENO)
        fd = open("/dev/null", O_RDWR);
    if (fd >= 0)
        close(fd);
}

int main(int argc, char **argv) {
    open_standard_streams();
    bool is_worker = pge_child_begin();
    if (!is_worker && wants_supervisor(argc, argv))
        return pge_supervise(argv);
    lua_State *L = luaL_newstate();
    if (!L) {
        fputs("perigee: not enough memory\n", stderr);
        return EXIT_FAILED;
    }
    lua_atpanic(L, on_panic);
    struct program program = {NULL, STATUS_PENDING, is_worker};
    lua_pushcfunction(L, traceback);
    lua_pushcfunction(L, start);
    lua_pushlightuserdata(L, &program);
    lua_pushinteger(L, argc);
    lua_pushlightuserdata(L, argv);
    int status = lua_pcall(L, 3, 0, 1);
    pge_budget_leave();
    if (status != 0) {
        fprintf(stderr, "perigee: %s\n", lua_tostring(L, -1));
        program.status = EXIT_FAILED;
    } else {
        run(&program, L);
    }
    finish_closing(program.loop);
    pge_budget_stop();
    /* Twice: what is only found to be unused by the first may have something to say when collected.
     */
    lua_gc(L, LUA_GCCOLLECT, 0);
    lua_gc(L, LUA_GCCOLLECT, 0);
    lua_close(L);
    if ((fflush(stdout) != 0 || ferror(stdout)) && program.status == 0 && !is_worker) {
        fputs("perigee: CANCELLED: standard output cannot be written\n", stderr);
        return EXIT_FAILED;
    }
    return program.status;
}
