/*
 * lua_client_call.c - core.client: who waits for a call, packets and events to Lua, packets that
 * Lua makes. What a call needs of Lua stands in the client's tables under its slot: in `calls` the
 * observer, or the task that asks; in `handlers` the observer's callback (asks share one, see
 * lua_client_ask.c). The box stays alive while calls are in flight.
 */
#include "bind/lua_client.h"

#include <stdio.h>

#include "bind/lua_json.h"

/* ---- calls: slot, observer and callback ---- */

struct delivery {
    struct pge_lua_client *owner;
    int slot;
    bool raw, is_ask;
    enum pge_lua_client_kind kind;
    struct pge_span body;
    enum pge_fault fault;
    const char *message;
};

void pge_lua_client_remember(lua_State *L, struct pge_lua_client *c, int slot, int observer,
                             int fn) {
    if (c->pending++ == 0)
        pge_box_anchor(L, &c->box, 1);
    lua_rawgeti(L, LUA_REGISTRYINDEX, c->calls_ref);
    lua_pushvalue(L, observer);
    lua_rawseti(L, -2, slot);
    lua_rawgeti(L, LUA_REGISTRYINDEX, c->handlers_ref);
    lua_pushvalue(L, fn);
    lua_rawseti(L, -2, slot);
    lua_pop(L, 2);
}

/* Pushes what stands in a table under a slot; forgets it when last. */
static void push_entry(lua_State *L, int table_ref, int slot, bool last) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, table_ref);
    lua_rawgeti(L, -1, slot);
    if (last) {
        lua_pushnil(L);
        lua_rawseti(L, -3, slot);
    }
    lua_remove(L, -2);
}

/* Pushes callback and observer; forgets them when last. */
static void push_waiter(lua_State *L, const struct delivery *d, bool last) {
    struct pge_lua_client *c = d->owner;
    if (d->is_ask)
        lua_rawgeti(L, LUA_REGISTRYINDEX, c->box.bind->awaited_ref);
    else
        push_entry(L, c->handlers_ref, d->slot, last);
    push_entry(L, c->calls_ref, d->slot, last);
    c->pending -= last;
}

int pge_lua_client_slot(const struct pge_call *call) {
    return (int)pge_call_slot(call) + 1;
}

/* Pushes what a packet carries. False: too deep to decode; a message was pushed. */
static bool push_body(lua_State *L, const struct delivery *d) {
    if (!d->body.p) {
        lua_pushlightuserdata(L, NULL);
        return true;
    }
    if (d->raw && d->kind != PGE_LUA_CLIENT_ERROR) {
        pge_push_slice(L, d->body);
        return true;
    }
    if (pge_lua_json_decode(L, d->body.p, d->body.n) == 0)
        return true;
    lua_pushliteral(L, "the reply is nested too deep (512 levels are decoded)");
    return false;
}

/*
 * Nothing is in flight and nobody waits for a close: the box may be collected. Not touched after
 * this.
 */
static void maybe_release(struct pge_lua_client *c) {
    if (c->client && !c->is_closing && c->pending == 0 && c->busy == 0)
        pge_box_release(&c->box);
}

/* Runs a callback; whatever it does, the box lives until it has returned. */
static void call_lua(struct pge_lua_client *c, pge_bind_fn fn, void *arg) {
    c->busy++;
    pge_bind_call(c->box.bind, fn, arg);
    c->busy--;
    maybe_release(c);
}

static int deliver(lua_State *L, void *arg) {
    struct delivery *d = arg;
    bool last = d->kind != PGE_LUA_CLIENT_VALUE;
    push_waiter(L, d, last);
    if (d->kind == PGE_LUA_CLIENT_FAIL) {
        lua_pushinteger(L, PGE_LUA_CLIENT_FAIL);
        lua_pushstring(L, pge_fault_name(d->fault));
        lua_pushstring(L, d->message);
        lua_call(L, 4, 0);
        return 0;
    }
    if (d->kind == PGE_LUA_CLIENT_END) {
        lua_pushinteger(L, PGE_LUA_CLIENT_END);
        lua_call(L, 2, 0);
        return 0;
    }
    int kind_at = lua_gettop(L) + 1;
    lua_pushinteger(L, d->kind);
    if (push_body(L, d)) {
        lua_call(L, 3, 0);
        return 0;
    }
    lua_pushinteger(L, PGE_LUA_CLIENT_FAIL);
    lua_replace(L, kind_at);
    lua_pushliteral(L, "INVALID_MESSAGE");
    lua_insert(L, -2);
    lua_call(L, 4, 0);
    return 0;
}

static void hand_over(struct pge_call *call, struct delivery *d) {
    struct pge_lua_client *c = pge_call_arg(call);
    d->owner = c;
    d->slot = pge_lua_client_slot(call);
    call_lua(c, deliver, d);
}

static void on_packet_as(struct pge_call *call, enum pge_reply kind, struct pge_span body, bool raw,
                         bool is_ask) {
    static const enum pge_lua_client_kind kinds[] = {
        [PGE_REPLY_VALUE] = PGE_LUA_CLIENT_VALUE,  [PGE_REPLY_LAST] = PGE_LUA_CLIENT_LAST,
        [PGE_REPLY_END] = PGE_LUA_CLIENT_END,      [PGE_REPLY_ERROR] = PGE_LUA_CLIENT_ERROR,
        [PGE_REPLY_FOREIGN] = PGE_LUA_CLIENT_LAST,
    };
    struct delivery d = {.kind = kinds[kind], .body = body, .raw = raw, .is_ask = is_ask};
    hand_over(call, &d);
}

static void on_packet(struct pge_call *call, enum pge_reply kind, struct pge_span body) {
    on_packet_as(call, kind, body, false, false);
}

static void on_raw_packet(struct pge_call *call, enum pge_reply kind, struct pge_span body) {
    on_packet_as(call, kind, body, true, false);
}

static void on_ask_packet(struct pge_call *call, enum pge_reply kind, struct pge_span body) {
    on_packet_as(call, kind, body, false, true);
}

static void on_raw_ask_packet(struct pge_call *call, enum pge_reply kind, struct pge_span body) {
    on_packet_as(call, kind, body, true, true);
}

static void on_fail(struct pge_call *call, enum pge_fault fault, const char *message) {
    struct delivery d = {.kind = PGE_LUA_CLIENT_FAIL, .fault = fault, .message = message};
    hand_over(call, &d);
}

static void on_ask_fail(struct pge_call *call, enum pge_fault fault, const char *message) {
    struct delivery d = {
        .kind = PGE_LUA_CLIENT_FAIL, .fault = fault, .message = message, .is_ask = true};
    hand_over(call, &d);
}

const struct pge_call_events pge_lua_client_call_events[2] = {{on_packet, on_fail},
                                                              {on_raw_packet, on_fail}};
const struct pge_call_events pge_lua_client_ask_events[2] = {{on_ask_packet, on_ask_fail},
                                                             {on_raw_ask_packet, on_ask_fail}};

/* ---- status and close ---- */

struct event {
    struct pge_lua_client *owner;
    const char *name, *detail;
};

static int tell_event(lua_State *L, void *arg) {
    struct event *e = arg;
    lua_rawgeti(L, LUA_REGISTRYINDEX, e->owner->on_event_ref);
    lua_pushstring(L, e->name);
    lua_pushstring(L, e->detail);
    lua_call(L, 2, 0);
    return 0;
}

static void on_status(struct pge_client *client, enum pge_client_status status) {
    static const char *const names[] = {
        [PGE_CLIENT_DISCONNECTED] = "disconnected",
        [PGE_CLIENT_CONNECTED] = "connected",
        [PGE_CLIENT_RECONNECTING] = "reconnecting",
    };
    struct pge_lua_client *c = pge_client_owner(client);
    struct event e = {c, "status", names[status]};
    pge_bind_call(c->box.bind, tell_event, &e);
}

static void on_error(struct pge_client *client, const char *message) {
    struct pge_lua_client *c = pge_client_owner(client);
    struct event e = {c, "error", message};
    pge_bind_call(c->box.bind, tell_event, &e);
}

static int tell_closed(lua_State *L, void *arg) {
    struct pge_lua_client *c = arg;
    lua_rawgeti(L, LUA_REGISTRYINDEX, c->closers_ref);
    lua_newtable(L);
    lua_rawseti(L, LUA_REGISTRYINDEX, c->closers_ref);
    int n = (int)lua_objlen(L, -1);
    for (int i = 1; i <= n; i++) {
        lua_rawgeti(L, -1, i);
        lua_call(L, 0, 0);
    }
    return 0;
}

static void on_closed(struct pge_client *client) {
    struct pge_lua_client *c = pge_client_owner(client);
    c->is_closing = false;
    call_lua(c, tell_closed, c);
}

struct raw_packet {
    struct pge_lua_client *owner;
    struct pge_span packet, id;
};

static int deliver_raw(lua_State *L, void *arg) {
    struct raw_packet *raw = arg;
    lua_rawgeti(L, LUA_REGISTRYINDEX, raw->owner->on_event_ref);
    lua_pushliteral(L, "packet");
    lua_pushlstring(L, raw->packet.p, raw->packet.n);
    pge_push_span(L, raw->id);
    lua_call(L, 3, 0);
    return 0;
}

static void on_raw_client_packet(struct pge_client *client, struct pge_span packet,
                                 struct pge_span id) {
    struct raw_packet raw = {pge_client_owner(client), packet, id};
    pge_bind_call(raw.owner->box.bind, deliver_raw, &raw);
}

const struct pge_client_events pge_lua_client_events = {on_status, on_error, on_closed,
                                                        on_raw_client_packet};

/* ---- custom serialisers ---- */

/* A packet that Lua makes: make(id) -> value, id nil for an event. */
struct maker {
    lua_State *L;
    int make; /* stack index */
    struct pge_lua_value value;
};

static int write_made(void *arg, struct pge_span id, struct pge_buf *out) {
    struct maker *maker = arg;
    lua_State *L = maker->L;
    lua_pushvalue(L, maker->make);
    if (id.n)
        lua_pushlstring(L, id.p, id.n);
    else
        lua_pushnil(L);
    if (lua_pcall(L, 1, 1, 0) != 0) {
        const char *text = lua_tostring(L, -1);
        snprintf(maker->value.err, sizeof maker->value.err, "serialize: %s", text ? text : "error");
        lua_pop(L, 1);
        return UV_EINVAL;
    }
    pge_lua_payload(&maker->value, L, lua_gettop(L));
    int status = pge_lua_write_value(&maker->value, out);
    lua_pop(L, 1);
    return status;
}

/* What maker writes; the pattern, as JSON text, at idx, headers and options after it. */
static struct pge_message made_message(struct maker *maker, int idx,
                                       struct pge_header headers[2 * PGE_MAX_HEADERS]) {
    struct pge_message m = {.write_packet = write_made, .arg = maker};
    m.pattern.p = luaL_checklstring(maker->L, idx, &m.pattern.n);
    m.headers = pge_lua_headers(maker->L, idx + 1, headers);
    m.options = pge_lua_headers(maker->L, idx + 2, headers + PGE_MAX_HEADERS);
    return m;
}

/* send_made(make, observer, on_packet, timeout_ms, deadline_ms, pattern, headers, options) */
int pge_lua_client_send_made(lua_State *L) {
    struct pge_lua_client *c = pge_lua_client_check(L, 1);
    lua_settop(L, 9);
    luaL_checktype(L, 2, LUA_TFUNCTION);
    luaL_checktype(L, 4, LUA_TFUNCTION);
    struct maker maker = {.L = L, .make = 2};
    struct pge_header headers[2 * PGE_MAX_HEADERS];
    struct pge_message m = made_message(&maker, 7, headers);
    struct pge_call_options options = {.timeout_ms = pge_lua_client_opt_ms(L, 5),
                                       .deadline_ms = pge_lua_client_opt_ms(L, 6),
                                       .events = pge_lua_client_call_events,
                                       .arg = c};
    struct pge_failure why;
    struct pge_call *call = pge_client_send(c->client, &m, &options, &why);
    if (!call)
        return pge_push_failure(L, why.fault, maker.value.err[0] ? maker.value.err : why.message);
    pge_lua_client_remember(L, c, pge_lua_client_slot(call), 3, 4);
    lua_pushnumber(L, pge_call_handle(call));
    return 1;
}

/* emit_made(make, observer, on_packet, pattern, headers, options, timeout_ms) -> true, done */
int pge_lua_client_emit_made(lua_State *L) {
    struct pge_lua_client *c = pge_lua_client_check(L, 1);
    lua_settop(L, 8);
    luaL_checktype(L, 2, LUA_TFUNCTION);
    luaL_checktype(L, 4, LUA_TFUNCTION);
    struct maker maker = {.L = L, .make = 2};
    struct pge_header headers[2 * PGE_MAX_HEADERS];
    struct pge_message m = made_message(&maker, 5, headers);
    struct pge_call_options options = {
        .timeout_ms = pge_lua_client_opt_ms(L, 8), .events = pge_lua_client_call_events, .arg = c};
    struct pge_failure why;
    int status = pge_client_emit(c->client, &m, &options, &why);
    if (status < 0)
        return pge_push_failure(L, why.fault, maker.value.err[0] ? maker.value.err : why.message);
    struct pge_lua_message none = {.m.pattern.p = ""};
    return pge_lua_client_wait_for(L, c, status, &why, &none, 3, 4);
}

/* ---- calls that Lua answers or ends ---- */

/* take(id, last) -> on_packet, observer of that call, which ends if last; nil: no such call. */
int pge_lua_client_take(lua_State *L) {
    struct pge_lua_client *c = pge_lua_client_check(L, 1);
    struct pge_span id;
    id.p = luaL_checklstring(L, 2, &id.n);
    bool last = lua_toboolean(L, 3);
    struct pge_call *call = pge_client_call_by_id(c->client, id);
    if (!call)
        return 0;
    struct delivery d = {.owner = c, .slot = pge_lua_client_slot(call)};
    push_waiter(L, &d, last);
    pge_call_answered(call, last);
    if (last)
        maybe_release(c);
    return 2;
}

int pge_lua_client_cancel(lua_State *L) {
    struct pge_lua_client *c = pge_lua_client_check(L, 1);
    struct pge_call *call = pge_client_call(c->client, luaL_checknumber(L, 2));
    if (!call)
        return 0;
    struct delivery d = {
        .owner = c, .slot = pge_lua_client_slot(call), .is_ask = pge_lua_client_is_ask(call)};
    push_waiter(L, &d, true);
    pge_call_cancel(call);
    maybe_release(c);
    return 0;
}
