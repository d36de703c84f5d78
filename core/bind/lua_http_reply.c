/* lua_http_reply.c - core.http, the methods of one request: reading it, replying, forwarding it. */
#include "bind/lua_http.h"

#include <string.h>

#include "bind/lua_json.h"

enum { MAX_HEADERS = 64 };

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

int pge_lua_http_headers(lua_State *L) {
    struct pge_lua_http_slot *slot = pge_lua_http_slot_check(L, pge_lua_http_check(L));
    if (!slot)
        return 2;
    const struct pge_http_message *m = pge_http_request_message(slot->forward.req);
    lua_createtable(L, 0, (int)m->header_count);
    for (unsigned i = 0; i < m->header_count; i++)
        add_header(L, &m->headers[i]);
    return 1;
}

/* body(req): the bytes, or nil when there are none. */
int pge_lua_http_body(lua_State *L) {
    struct pge_lua_http_slot *slot = pge_lua_http_slot_check(L, pge_lua_http_check(L));
    if (!slot)
        return 2;
    const struct pge_span body = pge_http_request_message(slot->forward.req)->body;
    pge_push_span(L, body.n ? body : (struct pge_span){0});
    return 1;
}

int pge_lua_http_peer(lua_State *L) {
    struct pge_lua_http_slot *slot = pge_lua_http_slot_check(L, pge_lua_http_check(L));
    if (!slot)
        return 2;
    char name[128];
    pge_http_request_peer(slot->forward.req, name, sizeof name);
    lua_pushstring(L, name);
    return 1;
}

/* ---- replying ---- */

/* Reads the flat list at idx; the stamp comes first. -1: too many. */
static int read_headers(lua_State *L, struct pge_lua_http_slot *slot, int idx,
                        struct pge_http_header out[MAX_HEADERS]) {
    int n = 0;
    const struct pge_http_header *stamp = pge_lua_http_stamp(slot);
    if (stamp)
        out[n++] = *stamp;
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
 * true, or nil and why the status or a header is not allowed. When the request is over its slot is
 * free: ENOMEM too has ended it, and cut the connection.
 */
static int replied(lua_State *L, struct pge_lua_http_slot *slot, int status, bool is_last) {
    if (status == UV_ENOMEM || (status == 0 && is_last))
        pge_lua_http_slot_release(slot);
    if (status == UV_EINVAL) {
        lua_pushnil(L);
        lua_pushliteral(L, "the status, a header name or a header value is not allowed in HTTP");
        return 2;
    }
    lua_pushboolean(L, 1);
    return 1;
}

/* What every reply begins with: the request at 2, the status at 3, headers at some index. */
struct answer {
    struct pge_lua_http_slot *slot;
    int status;
    unsigned n;
    struct pge_http_header headers[MAX_HEADERS];
};

/* Pads the stack to args and reads headers at idx. False: nil and why were pushed. */
static bool begin_answer(lua_State *L, int args, int idx, struct answer *a) {
    struct pge_lua_http *h = pge_lua_http_check(L);
    lua_settop(L, args);
    a->status = (int)luaL_checkinteger(L, 3);
    a->slot = pge_lua_http_slot_check(L, h);
    if (!a->slot)
        return false;
    int n = read_headers(L, a->slot, idx, a->headers);
    if (n < 0) {
        lua_pushnil(L);
        lua_pushliteral(L, "too many response headers");
        return false;
    }
    a->n = (unsigned)n;
    return true;
}

int pge_lua_http_reply(lua_State *L) {
    struct answer a;
    if (!begin_answer(L, 5, 4, &a))
        return 2;
    struct pge_span body = {0};
    if (!lua_isnil(L, 5))
        body.p = luaL_checklstring(L, 5, &body.n);
    const char *type = body.p ? "text/plain; charset=utf-8" : NULL;
    int status = pge_http_reply_as(a.slot->forward.req, a.status, type, a.headers, a.n, body);
    return replied(L, a.slot, status, true);
}

/* The body is encoded into the engine's scratch buffer and copied out from there. */
int pge_lua_http_reply_json(lua_State *L) {
    struct answer a;
    if (!begin_answer(L, 5, 4, &a))
        return 2;
    struct pge_buf *scratch = &a.slot->owner->box.bind->engine.scratch;
    char err[PGE_LUA_JSON_ERROR_MAX];
    pge_buf_clear(scratch);
    pge_buf_trim(scratch, PGE_READ_SIZE);
    luaL_checkstack(L, PGE_LUA_JSON_ROOM, NULL);
    if (pge_lua_json_encode(L, 5, PGE_LUA_JSON_ROOM, scratch, err, sizeof err) < 0) {
        lua_pushnil(L);
        lua_pushstring(L, err);
        return 2;
    }
    struct pge_span body = {pge_buf_head(scratch), pge_buf_len(scratch)};
    int status =
        pge_http_reply_as(a.slot->forward.req, a.status, "application/json", a.headers, a.n, body);
    return replied(L, a.slot, status, true);
}

/* problem(req, status, detail, retry_after, headers) */
int pge_lua_http_problem(lua_State *L) {
    struct answer a;
    if (!begin_answer(L, 6, 6, &a))
        return 2;
    struct pge_span detail = {0};
    if (!lua_isnil(L, 4))
        detail.p = luaL_checklstring(L, 4, &detail.n);
    int retry = lua_isnil(L, 5) ? -1 : (int)luaL_checkinteger(L, 5);
    int status =
        pge_http_reply_problem(a.slot->forward.req, a.status, detail, retry, a.headers, a.n);
    return replied(L, a.slot, status, true);
}

int pge_lua_http_begin(lua_State *L) {
    struct answer a;
    if (!begin_answer(L, 4, 4, &a))
        return 2;
    int status = pge_http_reply_begin(a.slot->forward.req, a.status, a.headers, a.n);
    return replied(L, a.slot, status, false);
}

int pge_lua_http_chunk(lua_State *L) {
    struct pge_lua_http_slot *slot = pge_lua_http_slot_check(L, pge_lua_http_check(L));
    if (!slot)
        return 2;
    struct pge_span data;
    data.p = luaL_checklstring(L, 3, &data.n);
    return replied(L, slot, pge_http_reply_chunk(slot->forward.req, data), false);
}

int pge_lua_http_finish(lua_State *L) {
    struct pge_lua_http_slot *slot = pge_lua_http_slot_check(L, pge_lua_http_check(L));
    if (!slot)
        return 2;
    int status = pge_http_reply_end(slot->forward.req);
    return replied(L, slot, status, true);
}

int pge_lua_http_fail(lua_State *L) {
    struct pge_lua_http_slot *slot = pge_lua_http_slot_check(L, pge_lua_http_check(L));
    if (!slot)
        return 2;
    struct pge_http_request *req = slot->forward.req;
    *pge_http_request_user(req) = NULL; /* no on_abort */
    pge_lua_http_slot_release(slot);
    pge_http_reply_fail(req);
    lua_pushboolean(L, 1);
    return 1;
}

/* ---- forwarding ---- */

struct forward_fault {
    struct pge_lua_http_slot *slot;
    enum pge_fault fault;
    const char *message;
};

static int deliver_fault(lua_State *L, void *arg) {
    struct forward_fault *f = arg;
    lua_rawgeti(L, LUA_REGISTRYINDEX, f->slot->on_error_ref);
    lua_pushstring(L, pge_fault_name(f->fault));
    lua_pushstring(L, f->message);
    lua_call(L, 2, 0);
    return 0;
}

static void on_forwarded(struct pge_http_forward *forward, enum pge_fault fault,
                         const char *message) {
    struct pge_lua_http_slot *slot = container_of(forward, struct pge_lua_http_slot, forward);
    struct forward_fault f = {slot, fault, message};
    if (fault != PGE_FAULT_NONE && slot->on_error_ref != LUA_NOREF)
        pge_bind_call(slot->owner->box.bind, deliver_fault, &f);
    pge_lua_http_slot_release(slot);
}

/* forward(req, client, pattern, timeout_ms, on_error) */
int pge_lua_http_forward(lua_State *L) {
    struct pge_lua_http *h = pge_lua_http_check(L);
    lua_settop(L, 6);
    struct pge_client *client = pge_check_client(L, 3);
    struct pge_span pattern;
    pattern.p = luaL_checklstring(L, 4, &pattern.n);
    double ms = lua_tonumber(L, 5);
    struct pge_lua_http_slot *slot = pge_lua_http_slot_check(L, h);
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
    slot->forward.headers = pge_lua_http_stamp(slot);
    slot->forward.header_count = slot->forward.headers ? 1 : 0;
    slot->forward.on_done = on_forwarded;
    pge_http_forward_start(&slot->forward, client, pattern, ms > 0 ? (uint64_t)ms : 0);
    lua_pushboolean(L, 1);
    return 1;
}
