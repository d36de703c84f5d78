/*
 * lua_http.c - core.http: the class, its requests' slots, what Lua is told of them. To Lua a
 * request is a number: slot and generation.
 *
 *   C request --user--> slot --handle--> Lua;   an answered or aborted slot is free again
 */
#include "bind/lua_http.h"

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "net/dial.h"

#define CLASS "perigee.core.http"

enum { CHUNK = 64 };

struct pge_lua_http *pge_lua_http_check(lua_State *L) {
    return pge_check_box(L, 1, CLASS);
}

/* ---- slots ---- */

static double handle_of(const struct pge_lua_http_slot *slot) {
    return (double)slot->generation * PGE_REQUEST_SLOTS + slot->index;
}

/* One more chunk of free slots. 0, UV_ENOMEM, UV_ENOBUFS. */
static int slots_grow(struct pge_lua_http *h) {
    if (h->chunk_count * CHUNK >= PGE_REQUEST_SLOTS)
        return UV_ENOBUFS;
    struct pge_lua_http_slot **chunks =
        pge_realloc(h->chunks, (h->chunk_count + 1) * sizeof *chunks);
    if (!chunks)
        return UV_ENOMEM;
    h->chunks = chunks;
    struct pge_lua_http_slot *chunk = pge_calloc(CHUNK, sizeof *chunk);
    if (!chunk)
        return UV_ENOMEM;
    for (unsigned i = 0; i < CHUNK; i++) {
        chunk[i].index = h->chunk_count * CHUNK + i;
        chunk[i].owner = h;
        chunk[i].on_error_ref = LUA_NOREF;
        pge_list_push(&h->free, &chunk[i].node);
    }
    chunks[h->chunk_count++] = chunk;
    return 0;
}

static struct pge_lua_http_slot *slot_acquire(struct pge_lua_http *h,
                                              struct pge_http_request *req) {
    if (pge_list_is_empty(&h->free) && slots_grow(h) < 0)
        return NULL;
    struct pge_lua_http_slot *slot = container_of(h->free.next, struct pge_lua_http_slot, node);
    pge_list_remove(&slot->node);
    slot->generation++;
    slot->stamp = h->stamp;
    slot->is_told = false;
    slot->forward.req = req;
    *pge_http_request_user(req) = slot;
    return slot;
}

void pge_lua_http_slot_release(struct pge_lua_http_slot *slot) {
    slot->forward.req = NULL;
    luaL_unref(slot->owner->box.bind->L, LUA_REGISTRYINDEX, slot->on_error_ref);
    slot->on_error_ref = LUA_NOREF;
    pge_list_push(&slot->owner->free, &slot->node);
}

static struct pge_lua_http_slot *slot_find(struct pge_lua_http *h, double handle) {
    uint64_t bits = handle >= 0 && handle < 0x1p52 ? (uint64_t)handle : UINT64_MAX;
    uint32_t index = (uint32_t)(bits % PGE_REQUEST_SLOTS);
    if (h->server && index / CHUNK < h->chunk_count) {
        struct pge_lua_http_slot *slot = &h->chunks[index / CHUNK][index % CHUNK];
        if (slot->forward.req && slot->generation == bits / PGE_REQUEST_SLOTS)
            return slot;
    }
    return NULL;
}

struct pge_lua_http_slot *pge_lua_http_slot_check(lua_State *L, struct pge_lua_http *h) {
    struct pge_lua_http_slot *slot = slot_find(h, luaL_checknumber(L, 2));
    if (!slot) {
        lua_pushnil(L);
        lua_pushliteral(L, "CLOSED");
    }
    return slot;
}

/* ---- events ---- */

struct delivery {
    struct pge_lua_http *owner;
    double handle;
    const struct pge_http_message *message;
};

static int deliver_request(lua_State *L, void *arg) {
    struct delivery *d = arg;
    const struct pge_http_message *m = d->message;
    lua_rawgeti(L, LUA_REGISTRYINDEX, d->owner->refs[PGE_LUA_HTTP_ON_REQUEST]);
    lua_pushnumber(L, d->handle);
    pge_push_span(L, m->method);
    pge_push_span(L, m->path);
    pge_push_span(L, m->query);
    lua_pushboolean(L, m->body.n > 0);
    lua_call(L, 5, 0);
    return 0;
}

/* What raised was not the script, whose faults are caught: the state has no memory to take it. */
static void refuse_request(struct delivery *d) {
    struct pge_lua_http_slot *slot = slot_find(d->owner, d->handle);
    if (!slot)
        return;
    struct pge_http_request *req = slot->forward.req;
    pge_lua_http_slot_release(slot);
    *pge_http_request_user(req) = NULL;
    pge_http_reply_problem(req, 503, (struct pge_span){0}, 1, NULL, 0);
}

static void enter_arrived(void *arg) {
    struct pge_lua_http *h = arg;
    while (!pge_list_is_empty(&h->arrived)) {
        struct pge_lua_http_slot *slot =
            container_of(h->arrived.next, struct pge_lua_http_slot, node);
        struct delivery d = {h, handle_of(slot), pge_http_request_message(slot->forward.req)};
        pge_list_remove(&slot->node);
        slot->is_told = true;
        if (!pge_bind_call(h->box.bind, deliver_request, &d))
            refuse_request(&d);
    }
}

static void on_arrived_turn(struct pge_defer *defer) {
    struct pge_lua_http *h = container_of(defer, struct pge_lua_http, tell_arrived);
    pge_bind_enter(&h->box.bind->engine, enter_arrived, h);
}

/* What arrives in one turn, on all connections, is one entry into Lua at its end. */
static void on_request(struct pge_http_server *server, struct pge_http_request *req) {
    struct pge_lua_http *h = pge_http_server_owner(server);
    struct pge_lua_http_slot *slot = slot_acquire(h, req);
    if (!slot) {
        pge_http_reply_problem(req, 503, (struct pge_span){0}, 1, NULL, 0);
        return;
    }
    pge_list_push(&h->arrived, &slot->node);
    pge_loop_defer(&h->box.bind->loop, &h->tell_arrived, PGE_SOON);
}

static int deliver_abort(lua_State *L, void *arg) {
    struct delivery *d = arg;
    lua_rawgeti(L, LUA_REGISTRYINDEX, d->owner->refs[PGE_LUA_HTTP_ON_ABORT]);
    lua_pushnumber(L, d->handle);
    lua_call(L, 1, 0);
    return 0;
}

static void enter_aborted(void *arg) {
    struct pge_lua_http *h = arg;
    while (!pge_list_is_empty(&h->aborted)) {
        struct pge_lua_http_slot *slot =
            container_of(h->aborted.next, struct pge_lua_http_slot, node);
        struct delivery d = {h, handle_of(slot), NULL};
        pge_list_remove(&slot->node);
        pge_lua_http_slot_release(slot);
        pge_bind_call(h->box.bind, deliver_abort, &d);
    }
}

static void on_aborted_turn(struct pge_defer *defer) {
    struct pge_lua_http *h = container_of(defer, struct pge_lua_http, tell_aborted);
    pge_bind_enter(&h->box.bind->engine, enter_aborted, h);
}

/* A reply of the script may be what aborts it, so it is told at the end of the turn. */
static void on_abort(struct pge_http_server *server, struct pge_http_request *req) {
    struct pge_lua_http *h = pge_http_server_owner(server);
    struct pge_lua_http_slot *slot = *pge_http_request_user(req);
    if (!slot)
        return;
    if (slot->forward.call) {
        pge_http_forward_abort(&slot->forward);
        pge_lua_http_slot_release(slot);
        return;
    }
    if (!slot->is_told) {
        pge_list_remove(&slot->node);
        pge_lua_http_slot_release(slot);
        return;
    }
    slot->forward.req = NULL;
    pge_list_push(&h->aborted, &slot->node);
    pge_loop_defer(&h->box.bind->loop, &h->tell_aborted, PGE_SOON);
}

static int deliver_close(lua_State *L, void *arg) {
    struct pge_lua_http *h = arg;
    lua_rawgeti(L, LUA_REGISTRYINDEX, h->refs[PGE_LUA_HTTP_ON_CLOSE]);
    lua_call(L, 0, 0);
    return 0;
}

static void enter_close(void *arg) {
    struct pge_lua_http *h = arg;
    enter_aborted(h);
    pge_bind_call(h->box.bind, deliver_close, h);
}

static void free_slots(struct pge_lua_http *h) {
    for (unsigned c = 0; c < h->chunk_count; c++) {
        for (unsigned i = 0; i < CHUNK; i++)
            pge_buf_deinit(&h->chunks[c][i].forward.last);
        pge_free(h->chunks[c]);
    }
    pge_free(h->chunks);
    h->chunks = NULL;
    h->chunk_count = 0;
    pge_list_init(&h->free);
}

static void on_close(struct pge_http_server *server) {
    struct pge_lua_http *h = pge_http_server_owner(server);
    h->server = NULL;
    pge_defer_cancel(&h->tell_arrived);
    pge_defer_cancel(&h->tell_aborted);
    pge_bind_enter(&h->box.bind->engine, enter_close, h);
    pge_list_init(&h->aborted);
    free_slots(h);
    pge_tls_unref(h->tls);
    h->tls = NULL;
    pge_free(h->stamp_name);
    h->stamp_name = NULL;
    pge_box_release(&h->box);
}

static const struct pge_http_server_events events = {on_request, on_abort, on_close};

/* ---- making one ---- */

static void read_limits(lua_State *L, struct pge_http_limits *limits) {
    pge_http_limits_default(limits);
#define LIMIT(name)                                                                                \
    limits->name = (typeof(limits->name))pge_opt_number(L, 1, #name, (double)limits->name)
    LIMIT(max_header_bytes);
    LIMIT(max_headers);
    LIMIT(max_uri_bytes);
    LIMIT(max_body_bytes);
    LIMIT(max_queued_bytes);
    LIMIT(max_connections);
    LIMIT(header_timeout_ms);
    LIMIT(body_timeout_ms);
    LIMIT(idle_timeout_ms);
    LIMIT(write_timeout_ms);
#undef LIMIT
}

static void drop(struct pge_box *box) {
    struct pge_lua_http *h = container_of(box, struct pge_lua_http, box);
    if (h->server)
        pge_http_server_close(h->server);
}

static void read_events(lua_State *L, struct pge_lua_http *h) {
    static const char *const names[PGE_LUA_HTTP_EVENTS] = {"on_request", "on_abort", "on_close"};
    for (int i = 0; i < PGE_LUA_HTTP_EVENTS; i++)
        h->refs[i] = LUA_NOREF;
    for (int i = 0; i < PGE_LUA_HTTP_EVENTS; i++) {
        lua_getfield(L, 2, names[i]);
        luaL_checktype(L, -1, LUA_TFUNCTION);
        h->refs[i] = luaL_ref(L, LUA_REGISTRYINDEX);
    }
}

static int failed_listen(lua_State *L, struct pge_lua_http *h, int status, const char *host,
                         unsigned port, const char *path) {
    char text[256];
    if (path)
        snprintf(text, sizeof text, "listen %s %s", uv_err_name(status), path);
    else
        snprintf(text, sizeof text, "listen %s %s:%u", uv_err_name(status), host ? host : "", port);
    pge_tls_unref(h->tls);
    h->tls = NULL;
    pge_box_release(&h->box);
    return pge_push_failure(L, PGE_LISTEN_FAILED, text);
}

static int http_new(lua_State *L) {
    struct pge_bind *bind = lua_touserdata(L, lua_upvalueindex(1));
    luaL_checktype(L, 1, LUA_TTABLE);
    luaL_checktype(L, 2, LUA_TTABLE);
    lua_settop(L, 2);
    struct pge_lua_http *h = pge_box_new(L, bind, sizeof *h, CLASS, drop);
    pge_list_init(&h->free);
    pge_list_init(&h->arrived);
    pge_list_init(&h->aborted);
    pge_defer_init(&h->tell_arrived, on_arrived_turn);
    pge_defer_init(&h->tell_aborted, on_aborted_turn);
    read_events(L, h);
    struct pge_http_limits limits;
    read_limits(L, &limits);
    char why[256];
    lua_getfield(L, 1, "host");
    lua_getfield(L, 1, "path");
    const char *host = lua_tostring(L, 4), *path = lua_tostring(L, 5);
    unsigned port = (unsigned)pge_opt_number(L, 1, "port", 0);
    if (!pge_opt_tls(L, 1, true, &h->tls, why, sizeof why))
        return pge_push_failure(L, PGE_INVALID_OPTION, why);
    pge_box_anchor(L, &h->box, 3); /* before there is a server: it may raise */
    struct pge_endpoint at;
    bool is_memory = pge_opt_bool(L, 1, "memory", false);
    int status = is_memory ? 0 : pge_endpoint_resolve(host, (uint16_t)port, path, &at);
    if (status < 0)
        return failed_listen(L, h, status, host, port, path);
    if (h->tls && !is_memory) {
        at.stream = &pge_stream_tls;
        at.tls = h->tls;
    }
    h->server =
        pge_http_server_open(&bind->loop, is_memory ? NULL : &at, &limits, &events, h, &status);
    if (!h->server)
        return failed_listen(L, h, status, host, port, path);
    lua_pushvalue(L, 3);
    return 1;
}

static int http_gc(lua_State *L) {
    struct pge_lua_http *h = lua_touserdata(L, 1);
    if (h->server)
        return 0; /* anchored while open, so the state is closing: bind_gc drops it */
    pge_list_remove(&h->box.node);
    pge_tls_unref(h->tls);
    for (int i = 0; i < PGE_LUA_HTTP_EVENTS; i++)
        luaL_unref(L, LUA_REGISTRYINDEX, h->refs[i]);
    return 0;
}

/* ---- the server ---- */

const struct pge_http_header *pge_lua_http_stamp(struct pge_lua_http_slot *slot) {
    const char *name = slot->owner->stamp_name;
    if (!name || !slot->stamp)
        return NULL;
    int n = snprintf(slot->stamp_text, sizeof slot->stamp_text, "%u", slot->stamp);
    slot->stamp_header =
        (struct pge_http_header){{name, strlen(name)}, {slot->stamp_text, (size_t)n}};
    return &slot->stamp_header;
}

/* stamp(name, number[, req]): the name stays that of the first time, forwards in flight borrow it.
 */
static int http_stamp(lua_State *L) {
    struct pge_lua_http *h = pge_lua_http_check(L);
    const char *name = luaL_checkstring(L, 2);
    uint32_t number = (uint32_t)luaL_checknumber(L, 3);
    if (!lua_isnoneornil(L, 4)) {
        lua_replace(L, 2);
        struct pge_lua_http_slot *slot = pge_lua_http_slot_check(L, h);
        if (slot)
            slot->stamp = number;
        return 0;
    }
    if (!h->server)
        return 0;
    if (!h->stamp_name)
        h->stamp_name = pge_strndup(name, strlen(name));
    if (!h->stamp_name)
        return luaL_error(L, "not enough memory");
    luaL_argcheck(L, strcmp(h->stamp_name, name) == 0, 2, "the stamp has another name");
    h->stamp = number;
    return 0;
}

/* hold(held): the kernel's backlog holds newcomers meanwhile. */
static int http_hold(lua_State *L) {
    struct pge_lua_http *h = pge_lua_http_check(L);
    if (h->server)
        pge_http_server_hold(h->server, lua_toboolean(L, 2));
    return 0;
}

static int http_address(lua_State *L) {
    struct pge_lua_http *h = pge_lua_http_check(L);
    char text[160] = "closed";
    if (h->server)
        pge_http_server_address(h->server, text, sizeof text);
    lua_pushstring(L, text);
    return 1;
}

static void push_count(lua_State *L, const char *name, double n) {
    lua_pushnumber(L, n);
    lua_setfield(L, -2, name);
}

static int http_stats(lua_State *L) {
    struct pge_lua_http *h = pge_lua_http_check(L);
    struct pge_http_stats stats = {0};
    if (h->server)
        stats = pge_http_server_stats(h->server);
    lua_createtable(L, 0, 5);
    push_count(L, "connections", (double)stats.connections);
    push_count(L, "requests", (double)stats.requests);
    push_count(L, "refused", (double)stats.refused);
    push_count(L, "open", stats.open);
    push_count(L, "active", stats.active);
    return 1;
}

static int http_drain(lua_State *L) {
    struct pge_lua_http *h = pge_lua_http_check(L);
    if (h->server)
        pge_http_server_drain(h->server);
    return 0;
}

static int http_close(lua_State *L) {
    struct pge_lua_http *h = pge_lua_http_check(L);
    if (h->server)
        pge_http_server_close(h->server);
    return 0;
}

static const luaL_Reg methods[] = {
    {"headers", pge_lua_http_headers},
    {"body", pge_lua_http_body},
    {"peer", pge_lua_http_peer},
    {"reply", pge_lua_http_reply},
    {"reply_json", pge_lua_http_reply_json},
    {"problem", pge_lua_http_problem},
    {"begin", pge_lua_http_begin},
    {"chunk", pge_lua_http_chunk},
    {"finish", pge_lua_http_finish},
    {"fail", pge_lua_http_fail},
    {"forward", pge_lua_http_forward},
    {"inject", pge_lua_http_inject},
    {"stamp", http_stamp},
    {"hold", http_hold},
    {"address", http_address},
    {"stats", http_stats},
    {"drain", http_drain},
    {"close", http_close},
    {NULL, NULL},
};

void pge_lua_http(lua_State *L, struct pge_bind *bind) {
    pge_class(L, CLASS, methods, http_gc);
    pge_lua_http_injected(L);
    lua_pushlightuserdata(L, bind);
    lua_pushcclosure(L, http_new, 1);
    lua_setfield(L, -2, "http");
}
