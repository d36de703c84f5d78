/*
 * lua_http.c - core.http: requests in, replies out. A request is a number: slot and generation.
 *
 *   C request --user--> slot --handle--> Lua;   an answered or aborted slot is free again
 */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "bind/bind.h"
#include "bind/lua_json.h"
#include "front/http_forward.h"
#include "net/dial.h"

#define CLASS "perigee.core.http"

enum event { ON_REQUEST, ON_ABORT, ON_CLOSE, EVENTS };
enum { CHUNK = 64, SLOTS = 1 << 20, MAX_HEADERS = 64 };

struct slot {
    struct pge_http_forward forward; /* first; forward.req is the request, NULL once it is over */
    struct pge_list node;            /* http->free, or http->aborted until Lua is told */
    struct http *owner;
    uint32_t index, generation;
    int on_error_ref; /* of a forward; LUA_NOREF */
};

struct http {
    struct pge_box box; /* first */
    struct pge_http_server *server; /* owned; NULL once closed */
    struct pge_tls *tls;            /* owned */
    int refs[EVENTS];               /* registry */
    struct slot **chunks;           /* owned, never moved */
    unsigned chunk_count;
    struct pge_list free, aborted;
    struct pge_defer tell_aborted;
    struct pge_http_header stamp; /* owned texts; name.p NULL: none */
};

static struct http *check(lua_State *L) {
    return luaL_checkudata(L, 1, CLASS);
}

/* ---- slots ---- */

static double handle_of(const struct slot *slot) {
    return (double)slot->generation * SLOTS + slot->index;
}

static struct slot *slot_acquire(struct http *h, struct pge_http_request *req) {
    if (pge_list_is_empty(&h->free)) {
        struct slot **chunks = pge_realloc(h->chunks, (h->chunk_count + 1) * sizeof *chunks);
        if (!chunks || h->chunk_count * CHUNK >= SLOTS)
            return NULL;
        h->chunks = chunks;
        struct slot *chunk = pge_calloc(CHUNK, sizeof *chunk);
        if (!chunk)
            return NULL;
        for (unsigned i = 0; i < CHUNK; i++) {
            chunk[i].index = h->chunk_count * CHUNK + i;
            chunk[i].owner = h;
            chunk[i].on_error_ref = LUA_NOREF;
            pge_list_push(&h->free, &chunk[i].node);
        }
        chunks[h->chunk_count++] = chunk;
    }
    struct slot *slot = container_of(h->free.next, struct slot, node);
    pge_list_remove(&slot->node);
    slot->generation++;
    slot->forward.req = req;
    *pge_http_request_user(req) = slot;
    return slot;
}

static void slot_release(struct slot *slot) {
    slot->forward.req = NULL;
    luaL_unref(slot->owner->box.bind->L, LUA_REGISTRYINDEX, slot->on_error_ref);
    slot->on_error_ref = LUA_NOREF;
    pge_list_push(&slot->owner->free, &slot->node);
}

/* The slot of the request at 2; NULL: answered or aborted, and nil, "CLOSED" was pushed. */
static struct slot *check_slot(lua_State *L, struct http *h) {
    double handle = luaL_checknumber(L, 2);
    uint64_t bits = handle >= 0 && handle < 0x1p52 ? (uint64_t)handle : UINT64_MAX;
    uint32_t index = (uint32_t)(bits % SLOTS);
    if (h->server && index / CHUNK < h->chunk_count) {
        struct slot *slot = &h->chunks[index / CHUNK][index % CHUNK];
        if (slot->forward.req && slot->generation == bits / SLOTS)
            return slot;
    }
    lua_pushnil(L);
    lua_pushliteral(L, "CLOSED");
    return NULL;
}

/* ---- events ---- */

struct delivery {
    struct http *owner;
    double handle;
    const struct pge_http_message *message;
};

static int deliver_request(lua_State *L) {
    struct delivery *d = lua_touserdata(L, 1);
    const struct pge_http_message *m = d->message;
    lua_rawgeti(L, LUA_REGISTRYINDEX, d->owner->refs[ON_REQUEST]);
    lua_pushnumber(L, d->handle);
    pge_push_span(L, m->method);
    pge_push_span(L, m->path);
    pge_push_span(L, m->query);
    pge_push_span(L, m->body.n ? m->body : (struct pge_span){0});
    lua_call(L, 5, 0);
    return 0;
}

static void enter_request(void *arg) {
    struct delivery *d = arg;
    pge_bind_call(d->owner->box.bind, deliver_request, d);
}

static void on_request(struct pge_http_server *server, struct pge_http_request *req) {
    struct http *h = pge_http_server_owner(server);
    struct slot *slot = slot_acquire(h, req);
    if (!slot) {
        pge_http_reply_problem(req, 503, (struct pge_span){0}, 1, NULL, 0);
        return;
    }
    struct delivery d = {h, handle_of(slot), pge_http_request_message(req)};
    pge_bind_enter(&h->box.bind->engine, enter_request, &d);
}

static int deliver_abort(lua_State *L) {
    struct delivery *d = lua_touserdata(L, 1);
    lua_rawgeti(L, LUA_REGISTRYINDEX, d->owner->refs[ON_ABORT]);
    lua_pushnumber(L, d->handle);
    lua_call(L, 1, 0);
    return 0;
}

static void enter_aborted(void *arg) {
    struct http *h = arg;
    while (!pge_list_is_empty(&h->aborted)) {
        struct slot *slot = container_of(h->aborted.next, struct slot, node);
        struct delivery d = {h, handle_of(slot), NULL};
        pge_list_remove(&slot->node);
        slot_release(slot);
        pge_bind_call(h->box.bind, deliver_abort, &d);
    }
}

static void on_aborted_turn(struct pge_defer *defer) {
    struct http *h = container_of(defer, struct http, tell_aborted);
    pge_bind_enter(&h->box.bind->engine, enter_aborted, h);
}

/* A reply of the script may be what aborts it, so it is told at the end of the turn. */
static void on_abort(struct pge_http_server *server, struct pge_http_request *req) {
    struct http *h = pge_http_server_owner(server);
    struct slot *slot = *pge_http_request_user(req);
    if (!slot)
        return;
    if (slot->forward.call) {
        pge_http_forward_abort(&slot->forward);
        slot_release(slot);
        return;
    }
    slot->forward.req = NULL;
    pge_list_push(&h->aborted, &slot->node);
    pge_loop_defer(&h->box.bind->loop, &h->tell_aborted, PGE_SOON);
}

static int deliver_close(lua_State *L) {
    struct http *h = lua_touserdata(L, 1);
    lua_rawgeti(L, LUA_REGISTRYINDEX, h->refs[ON_CLOSE]);
    lua_call(L, 0, 0);
    return 0;
}

static void enter_close(void *arg) {
    struct http *h = arg;
    enter_aborted(h);
    pge_bind_call(h->box.bind, deliver_close, h);
}

static void free_slots(struct http *h) {
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
    struct http *h = pge_http_server_owner(server);
    h->server = NULL;
    pge_defer_cancel(&h->tell_aborted);
    pge_bind_enter(&h->box.bind->engine, enter_close, h);
    pge_list_init(&h->aborted);
    free_slots(h);
    pge_tls_unref(h->tls);
    h->tls = NULL;
    pge_free((char *)(uintptr_t)h->stamp.name.p);
    pge_free((char *)(uintptr_t)h->stamp.value.p);
    h->stamp = (struct pge_http_header){0};
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
    struct http *h = container_of(box, struct http, box);
    if (h->server)
        pge_http_server_close(h->server);
}

static void read_events(lua_State *L, struct http *h) {
    static const char *const names[EVENTS] = {"on_request", "on_abort", "on_close"};
    for (int i = 0; i < EVENTS; i++)
        h->refs[i] = LUA_NOREF;
    for (int i = 0; i < EVENTS; i++) {
        lua_getfield(L, 2, names[i]);
        luaL_checktype(L, -1, LUA_TFUNCTION);
        h->refs[i] = luaL_ref(L, LUA_REGISTRYINDEX);
    }
}

static int failed_listen(lua_State *L, struct http *h, int status, const char *host, unsigned port,
                         const char *path) {
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
    struct http *h = pge_box_new(L, bind, sizeof *h, CLASS, drop);
    pge_list_init(&h->free);
    pge_list_init(&h->aborted);
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
    int status = pge_endpoint_resolve(host, (uint16_t)port, path, &at);
    if (status < 0)
        return failed_listen(L, h, status, host, port, path);
    if (h->tls) {
        at.stream = &pge_stream_tls;
        at.tls = h->tls;
    }
    h->server = pge_http_server_open(&bind->loop, &at, &limits, &events, h, &status);
    if (!h->server)
        return failed_listen(L, h, status, host, port, path);
    lua_pushvalue(L, 3);
    return 1;
}

static int http_gc(lua_State *L) {
    struct http *h = lua_touserdata(L, 1);
    if (h->server)
        return 0; /* anchored while open, so the state is closing: bind_gc drops it */
    pge_list_remove(&h->box.node);
    pge_tls_unref(h->tls);
    for (int i = 0; i < EVENTS; i++)
        luaL_unref(L, LUA_REGISTRYINDEX, h->refs[i]);
    return 0;
}

/* ---- reading a request ---- */

/* Adds one header to the table on top; repeated ones are joined, as RFC 9110 5.3 allows. */
static void add_header(lua_State *L, const struct pge_http_header *header) {
    int table = lua_gettop(L);
    pge_push_span(L, header->name);
    lua_pushvalue(L, -1);
    lua_rawget(L, table);
    if (lua_isnil(L, -1)) {
        lua_pop(L, 1);
        pge_push_span(L, header->value);
    } else {
        bool cookie = header->name.n == 6 && memcmp(header->name.p, "cookie", 6) == 0;
        lua_pushstring(L, cookie ? "; " : ", ");
        pge_push_span(L, header->value);
        lua_concat(L, 3);
    }
    lua_rawset(L, table);
}

static int http_headers(lua_State *L) {
    struct slot *slot = check_slot(L, check(L));
    if (!slot)
        return 2;
    const struct pge_http_message *m = pge_http_request_message(slot->forward.req);
    lua_createtable(L, 0, (int)m->header_count);
    for (unsigned i = 0; i < m->header_count; i++)
        add_header(L, &m->headers[i]);
    return 1;
}

static int http_peer(lua_State *L) {
    struct slot *slot = check_slot(L, check(L));
    if (!slot)
        return 2;
    char name[128];
    pge_http_request_peer(slot->forward.req, name, sizeof name);
    lua_pushstring(L, name);
    return 1;
}

/* ---- replying ---- */

/* Reads the flat list at idx; the stamp and, if asked, a content type come first. -1: too many. */
static int read_headers(lua_State *L, struct http *h, int idx, bool json,
                        struct pge_http_header out[MAX_HEADERS]) {
    int n = 0;
    if (json)
        out[n++] = (struct pge_http_header){{"content-type", 12}, {"application/json", 16}};
    if (h->stamp.name.p)
        out[n++] = h->stamp;
    if (lua_isnoneornil(L, idx))
        return n;
    luaL_checktype(L, idx, LUA_TTABLE);
    int len = (int)lua_objlen(L, idx);
    for (int i = 1; i < len; i += 2) {
        if (n == MAX_HEADERS)
            return -1;
        lua_rawgeti(L, idx, i);
        lua_rawgeti(L, idx, i + 1);
        /* Only strings: converting a number would not outlive the pop. */
        if (lua_type(L, -2) != LUA_TSTRING || lua_type(L, -1) != LUA_TSTRING)
            luaL_error(L, "header names and values must be strings");
        struct pge_http_header *header = &out[n++];
        header->name.p = lua_tolstring(L, -2, &header->name.n);
        header->value.p = lua_tolstring(L, -1, &header->value.n);
        lua_pop(L, 2);
    }
    return n;
}

/*
 * true, or nil and why the status or a header is not allowed. When the request is over its slot is free:
 * ENOMEM too has ended it, and cut the connection.
 */
static int replied(lua_State *L, struct slot *slot, int status, bool is_last) {
    if (status == UV_ENOMEM || (status == 0 && is_last))
        slot_release(slot);
    if (status == UV_EINVAL) {
        lua_pushnil(L);
        lua_pushliteral(L, "the status, a header name or a header value is not allowed in HTTP");
        return 2;
    }
    lua_pushboolean(L, 1);
    return 1;
}

static int too_many(lua_State *L) {
    lua_pushnil(L);
    lua_pushliteral(L, "too many response headers");
    return 2;
}

static int http_reply(lua_State *L) {
    struct http *h = check(L);
    lua_settop(L, 5);
    struct pge_http_header headers[MAX_HEADERS];
    int n = read_headers(L, h, 4, false, headers);
    struct slot *slot = check_slot(L, h);
    if (!slot)
        return 2;
    if (n < 0)
        return too_many(L);
    struct pge_span body = {0};
    if (!lua_isnil(L, 5))
        body.p = luaL_checklstring(L, 5, &body.n);
    int status = pge_http_reply(slot->forward.req, (int)luaL_checkinteger(L, 3), headers,
                                (unsigned)n, body);
    return replied(L, slot, status, true);
}

/* The body is encoded into the engine's scratch buffer and copied out from there. */
static int http_reply_json(lua_State *L) {
    struct http *h = check(L);
    lua_settop(L, 5);
    struct pge_http_header headers[MAX_HEADERS];
    int n = read_headers(L, h, 4, true, headers);
    struct slot *slot = check_slot(L, h);
    if (!slot)
        return 2;
    if (n < 0)
        return too_many(L);
    struct pge_buf *scratch = &h->box.bind->engine.scratch;
    char err[PGE_LUA_JSON_ERROR_MAX];
    pge_buf_clear(scratch);
    pge_buf_trim(scratch, PGE_READ_SIZE);
    if (pge_lua_json_encode(L, 5, scratch, err, sizeof err) < 0) {
        lua_pushnil(L);
        lua_pushstring(L, err);
        return 2;
    }
    struct pge_span body = {pge_buf_head(scratch), pge_buf_len(scratch)};
    int status = pge_http_reply(slot->forward.req, (int)luaL_checkinteger(L, 3), headers,
                                (unsigned)n, body);
    return replied(L, slot, status, true);
}

/* problem(req, status, detail, retry_after, headers) */
static int http_problem(lua_State *L) {
    struct http *h = check(L);
    lua_settop(L, 6);
    struct pge_http_header headers[MAX_HEADERS];
    int n = read_headers(L, h, 6, false, headers);
    struct slot *slot = check_slot(L, h);
    if (!slot)
        return 2;
    if (n < 0)
        return too_many(L);
    struct pge_span detail = {0};
    if (!lua_isnil(L, 4))
        detail.p = luaL_checklstring(L, 4, &detail.n);
    int retry = lua_isnil(L, 5) ? -1 : (int)luaL_checkinteger(L, 5);
    int status = pge_http_reply_problem(slot->forward.req, (int)luaL_checkinteger(L, 3), detail,
                                        retry, headers, (unsigned)n);
    return replied(L, slot, status, true);
}

static int http_begin(lua_State *L) {
    struct http *h = check(L);
    lua_settop(L, 4);
    struct pge_http_header headers[MAX_HEADERS];
    int n = read_headers(L, h, 4, false, headers);
    struct slot *slot = check_slot(L, h);
    if (!slot)
        return 2;
    if (n < 0)
        return too_many(L);
    int status = pge_http_reply_begin(slot->forward.req, (int)luaL_checkinteger(L, 3), headers,
                                      (unsigned)n);
    return replied(L, slot, status, false);
}

static int http_chunk(lua_State *L) {
    struct slot *slot = check_slot(L, check(L));
    if (!slot)
        return 2;
    struct pge_span data;
    data.p = luaL_checklstring(L, 3, &data.n);
    return replied(L, slot, pge_http_reply_chunk(slot->forward.req, data), false);
}

static int http_finish(lua_State *L) {
    struct slot *slot = check_slot(L, check(L));
    if (!slot)
        return 2;
    int status = pge_http_reply_end(slot->forward.req);
    return replied(L, slot, status, true);
}

static int http_fail(lua_State *L) {
    struct slot *slot = check_slot(L, check(L));
    if (!slot)
        return 2;
    struct pge_http_request *req = slot->forward.req;
    *pge_http_request_user(req) = NULL; /* no on_abort */
    slot_release(slot);
    pge_http_reply_fail(req);
    lua_pushboolean(L, 1);
    return 1;
}

/* ---- forwarding ---- */

struct forward_fault {
    struct slot *slot;
    enum pge_fault fault;
    const char *message;
};

static int deliver_fault(lua_State *L) {
    struct forward_fault *f = lua_touserdata(L, 1);
    lua_rawgeti(L, LUA_REGISTRYINDEX, f->slot->on_error_ref);
    lua_pushstring(L, pge_fault_name(f->fault));
    lua_pushstring(L, f->message);
    lua_call(L, 2, 0);
    return 0;
}

static void on_forwarded(struct pge_http_forward *forward, enum pge_fault fault,
                         const char *message) {
    struct slot *slot = container_of(forward, struct slot, forward);
    struct forward_fault f = {slot, fault, message};
    if (fault != PGE_FAULT_NONE && slot->on_error_ref != LUA_NOREF)
        pge_bind_call(slot->owner->box.bind, deliver_fault, &f);
    slot_release(slot);
}

/* forward(req, client, pattern, timeout_ms, on_error) */
static int http_forward(lua_State *L) {
    struct http *h = check(L);
    lua_settop(L, 6);
    struct pge_client *client = pge_check_client(L, 3);
    struct pge_span pattern;
    pattern.p = luaL_checklstring(L, 4, &pattern.n);
    double ms = lua_tonumber(L, 5);
    struct slot *slot = check_slot(L, h);
    if (!slot)
        return 2;
    const struct pge_http_message *m = pge_http_request_message(slot->forward.req);
    struct pge_json_scan *scan = &h->box.bind->engine.scan;
    if (m->body.n && pge_json_check(scan, m->body.p, m->body.n) < 0) {
        lua_pushnil(L);
        lua_pushfstring(L, "the body is not JSON: %s", scan->error);
        return 2;
    }
    if (!lua_isnil(L, 6)) {
        lua_pushvalue(L, 6);
        slot->on_error_ref = luaL_ref(L, LUA_REGISTRYINDEX);
    }
    slot->forward.headers = &h->stamp;
    slot->forward.header_count = h->stamp.name.p ? 1 : 0;
    slot->forward.on_done = on_forwarded;
    pge_http_forward_start(&slot->forward, client, pattern, ms > 0 ? (uint64_t)ms : 0);
    lua_pushboolean(L, 1);
    return 1;
}

/* ---- the server ---- */

static int http_stamp(lua_State *L) {
    struct http *h = check(L);
    size_t name_len, value_len;
    const char *name = luaL_checklstring(L, 2, &name_len);
    const char *value = luaL_optlstring(L, 3, NULL, &value_len);
    pge_free((char *)(uintptr_t)h->stamp.name.p);
    pge_free((char *)(uintptr_t)h->stamp.value.p);
    h->stamp = (struct pge_http_header){0};
    if (!value || !h->server)
        return 0;
    h->stamp.value = (struct pge_span){pge_strndup(value, value_len), value_len};
    h->stamp.name = (struct pge_span){pge_strndup(name, name_len), name_len};
    if (!h->stamp.value.p || !h->stamp.name.p)
        return luaL_error(L, "not enough memory");
    return 0;
}

static int http_address(lua_State *L) {
    struct http *h = check(L);
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
    struct http *h = check(L);
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
    struct http *h = check(L);
    if (h->server)
        pge_http_server_drain(h->server);
    return 0;
}

static int http_close(lua_State *L) {
    struct http *h = check(L);
    if (h->server)
        pge_http_server_close(h->server);
    return 0;
}

static const luaL_Reg methods[] = {
    {"headers", http_headers}, {"peer", http_peer},       {"reply", http_reply},
    {"reply_json", http_reply_json}, {"problem", http_problem}, {"begin", http_begin},
    {"chunk", http_chunk},     {"finish", http_finish},   {"fail", http_fail},
    {"forward", http_forward}, {"stamp", http_stamp},     {"address", http_address},
    {"stats", http_stats},     {"drain", http_drain},     {"close", http_close},
    {NULL, NULL},
};

void pge_lua_http(lua_State *L, struct pge_bind *bind) {
    pge_class(L, CLASS, methods, http_gc);
    lua_pushlightuserdata(L, bind);
    lua_pushcclosure(L, http_new, 1);
    lua_setfield(L, -2, "http");
}
