/*
 * lua_client.c - core.client: calls out. What a call needs of Lua (observer, callback) stands in the
 * client's `calls` table under its slot; the box stays alive while calls are in flight.
 */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "bind/bind.h"
#include "bind/lua_json.h"

#define CLASS "perigee.core.client"

/* What a packet is to Lua: core.VALUE ... core.FAIL. */
enum kind { KIND_VALUE = 1, KIND_LAST, KIND_END, KIND_ERROR, KIND_FAIL };

struct client {
    struct pge_box box; /* first */
    struct pge_client *client; /* owned; NULL once collected */
    int calls_ref;    /* registry: slot * 2 + 1 -> observer, the next -> callback */
    int on_event_ref; /* registry */
    int closers_ref;  /* registry: callbacks waiting for the close, a list */
    unsigned pending; /* calls in `calls`; relays use the client without the box */
    unsigned busy;    /* callbacks of ours on the stack */
    bool is_closing;
};

static struct client *check(lua_State *L, int idx) {
    struct client *c = luaL_checkudata(L, idx, CLASS);
    luaL_argcheck(L, c->client, idx, "client is closed");
    return c;
}

struct pge_client *pge_check_client(lua_State *L, int idx) {
    return check(L, idx)->client;
}

/* ---- calls: slot, observer and callback ---- */

struct delivery {
    struct client *owner;
    int slot;
    bool raw;
    enum kind kind;
    struct pge_span body;
    enum pge_fault fault;
    const char *message;
};

/* Pushes callback and observer; forgets them when last. */
static void push_waiter(lua_State *L, const struct delivery *d, bool last) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, d->owner->calls_ref);
    lua_rawgeti(L, -1, d->slot + 1);
    lua_rawgeti(L, -2, d->slot);
    if (last) {
        d->owner->pending--;
        lua_pushnil(L);
        lua_rawseti(L, -4, d->slot + 1);
        lua_pushnil(L);
        lua_rawseti(L, -4, d->slot);
    }
    lua_remove(L, -3);
}

/* Where the call's observer stands in `calls`; its callback is beside it. */
static int slot_of(const struct pge_call *call) {
    return (int)pge_call_slot(call) * 2 + 1;
}

/* Pushes what a packet carries. False: too deep to decode; a message was pushed. */
static bool push_body(lua_State *L, const struct delivery *d) {
    if (!d->body.p) {
        lua_pushlightuserdata(L, NULL);
        return true;
    }
    if (d->raw && d->kind != KIND_ERROR) {
        pge_push_slice(L, d->body);
        return true;
    }
    if (pge_lua_json_decode(L, d->body.p, d->body.n) == 0)
        return true;
    lua_pushliteral(L, "the reply is nested too deep (512 levels are decoded)");
    return false;
}

/* Nothing is in flight and nobody waits for a close: the box may be collected. Not touched after this. */
static void maybe_release(struct client *c) {
    if (c->client && !c->is_closing && c->pending == 0 && c->busy == 0)
        pge_box_release(&c->box);
}

/* Runs a callback; whatever it does, the box lives until it has returned. */
static void call_lua(struct client *c, lua_CFunction fn, void *arg) {
    c->busy++;
    pge_bind_call(c->box.bind, fn, arg);
    c->busy--;
    maybe_release(c);
}

static int deliver(lua_State *L) {
    struct delivery *d = lua_touserdata(L, 1);
    bool last = d->kind != KIND_VALUE;
    push_waiter(L, d, last);
    if (d->kind == KIND_FAIL) {
        lua_pushinteger(L, KIND_FAIL);
        lua_pushstring(L, pge_fault_name(d->fault));
        lua_pushstring(L, d->message);
        lua_call(L, 4, 0);
        return 0;
    }
    if (d->kind == KIND_END) {
        lua_pushinteger(L, KIND_END);
        lua_call(L, 2, 0);
        return 0;
    }
    int kind_at = lua_gettop(L) + 1;
    lua_pushinteger(L, d->kind);
    if (push_body(L, d)) {
        lua_call(L, 3, 0);
        return 0;
    }
    lua_pushinteger(L, KIND_FAIL);
    lua_replace(L, kind_at);
    lua_pushliteral(L, "INVALID_MESSAGE");
    lua_insert(L, -2);
    lua_call(L, 4, 0);
    return 0;
}

static void hand_over(struct pge_call *call, struct delivery *d) {
    struct client *c = pge_call_arg(call);
    d->owner = c;
    d->slot = slot_of(call);
    call_lua(c, deliver, d);
}

static void on_packet_as(struct pge_call *call, enum pge_reply kind, struct pge_span body, bool raw) {
    static const enum kind kinds[] = {
        [PGE_REPLY_VALUE] = KIND_VALUE, [PGE_REPLY_LAST] = KIND_LAST,
        [PGE_REPLY_END] = KIND_END,     [PGE_REPLY_ERROR] = KIND_ERROR,
        [PGE_REPLY_FOREIGN] = KIND_LAST,
    };
    struct delivery d = {.kind = kinds[kind], .body = body, .raw = raw};
    hand_over(call, &d);
}

static void on_packet(struct pge_call *call, enum pge_reply kind, struct pge_span body) {
    on_packet_as(call, kind, body, false);
}

static void on_raw_packet(struct pge_call *call, enum pge_reply kind, struct pge_span body) {
    on_packet_as(call, kind, body, true);
}

static void on_fail(struct pge_call *call, enum pge_fault fault, const char *message) {
    struct delivery d = {.kind = KIND_FAIL, .fault = fault, .message = message};
    hand_over(call, &d);
}

static const struct pge_call_events call_events = {on_packet, on_fail};
static const struct pge_call_events raw_call_events = {on_raw_packet, on_fail};

/* ---- status and close ---- */

struct event {
    struct client *owner;
    const char *name, *detail;
};

static int tell_event(lua_State *L) {
    struct event *e = lua_touserdata(L, 1);
    lua_rawgeti(L, LUA_REGISTRYINDEX, e->owner->on_event_ref);
    lua_pushstring(L, e->name);
    lua_pushstring(L, e->detail);
    lua_call(L, 2, 0);
    return 0;
}

static void on_status(struct pge_client *client, bool connected) {
    struct client *c = pge_client_owner(client);
    struct event e = {c, "status", connected ? "connected" : "disconnected"};
    pge_bind_call(c->box.bind, tell_event, &e);
}

static void on_error(struct pge_client *client, const char *message) {
    struct client *c = pge_client_owner(client);
    struct event e = {c, "error", message};
    pge_bind_call(c->box.bind, tell_event, &e);
}

static int tell_closed(lua_State *L) {
    struct client *c = lua_touserdata(L, 1);
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
    struct client *c = pge_client_owner(client);
    c->is_closing = false;
    call_lua(c, tell_closed, c);
}

struct raw_packet {
    struct client *owner;
    struct pge_span packet;
};

static int deliver_raw(lua_State *L) {
    struct raw_packet *raw = lua_touserdata(L, 1);
    lua_rawgeti(L, LUA_REGISTRYINDEX, raw->owner->on_event_ref);
    lua_pushliteral(L, "packet");
    lua_pushlstring(L, raw->packet.p, raw->packet.n);
    lua_call(L, 2, 0);
    return 0;
}

static void on_raw_client_packet(struct pge_client *client, struct pge_span packet) {
    struct raw_packet raw = {pge_client_owner(client), packet};
    pge_bind_call(raw.owner->box.bind, deliver_raw, &raw);
}

static const struct pge_client_events client_events = {on_status, on_error, on_closed,
                                                       on_raw_client_packet};

/* ---- making one ---- */

static void read_hosts(lua_State *L, int idx, struct pge_pool_options *o) {
    lua_getfield(L, idx, "hosts");
    if (lua_isnil(L, -1)) { /* local: the name is all there is */
        o->host_count = 1;
        lua_pop(L, 1);
        return;
    }
    luaL_checktype(L, -1, LUA_TTABLE);
    int hosts = lua_gettop(L);
    for (unsigned i = 0; i < PGE_MAX_HOSTS; i++) {
        lua_rawgeti(L, hosts, (int)i + 1);
        if (lua_isnil(L, -1)) {
            lua_pop(L, 1);
            break;
        }
        int at = lua_gettop(L);
        o->hosts[i].host = pge_opt_text(L, at, "host");
        o->hosts[i].path = pge_opt_text(L, at, "path");
        o->hosts[i].port = (uint16_t)pge_opt_number(L, at, "port", 0);
        o->host_count = i + 1;
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
}

static unsigned opt_count(lua_State *L, const char *name, double fallback, double max) {
    double n = pge_opt_number(L, 1, name, fallback);
    return n < 1 ? 1 : n > max ? (unsigned)max : (unsigned)n;
}

static void read_limits(lua_State *L, struct pge_pool_options *o) {
    o->connections = opt_count(L, "connections", 1, PGE_MAX_CONNECTIONS);
    o->connect_timeout_ms = (uint64_t)pge_opt_number(L, 1, "connect_timeout", 2000);
    o->incomplete_ms = (uint64_t)pge_opt_number(L, 1, "incomplete_message_timeout", 30000);
    o->max_frame_units = (size_t)pge_opt_number(L, 1, "max_buffer_size", 16777216);
    o->max_queued_bytes = (size_t)pge_opt_number(L, 1, "max_send_buffer_size", 16777216);
    o->max_pending = opt_count(L, "max_pending", 65536, 1 << 20);
    o->max_waiting = opt_count(L, "max_waiting", 1024, 1 << 20);
    if (o->max_queued_bytes == 0)
        o->max_queued_bytes = SIZE_MAX / 4; /* 0 is "off", as in Nest */
}

static void drop(struct pge_box *box) {
    struct client *c = container_of(box, struct client, box);
    if (!c->client)
        return;
    pge_client_cancel_all(c->client, c);
    pge_client_free(c->client);
    c->client = NULL;
}

/* Protected: what raises half-way would leak what was read. Stack: options. */
static int read_options(lua_State *L) {
    struct pge_pool_options *o = lua_touserdata(L, 2);
    read_hosts(L, 1, o);
    read_limits(L, o);
    o->is_raw = pge_opt_bool(L, 1, "raw_packets", false);
    o->key = pge_opt_text(L, 1, "key");
    o->name = pge_opt_text(L, 1, "name");
    return 0;
}

static int client_new(lua_State *L) {
    struct pge_bind *bind = lua_touserdata(L, lua_upvalueindex(1));
    luaL_checktype(L, 1, LUA_TTABLE);
    luaL_checktype(L, 2, LUA_TFUNCTION);
    struct pge_pool_options o = {0};
    lua_getfield(L, 1, "transport");
    o.transport = pge_transport_find(luaL_checkstring(L, -1));
    if (!o.transport)
        return pge_push_failure(L, PGE_UNSUPPORTED, "no such transport");
    struct client *c = pge_box_new(L, bind, sizeof *c, CLASS, drop);
    c->calls_ref = c->closers_ref = c->on_event_ref = LUA_NOREF;
    lua_newtable(L);
    c->calls_ref = luaL_ref(L, LUA_REGISTRYINDEX);
    lua_newtable(L);
    c->closers_ref = luaL_ref(L, LUA_REGISTRYINDEX);
    lua_pushvalue(L, 2);
    c->on_event_ref = luaL_ref(L, LUA_REGISTRYINDEX);
    char why[256];
    lua_pushcfunction(L, read_options);
    if (!pge_opt_tls(L, 1, false, &o.tls, why, sizeof why))
        return pge_push_failure(L, PGE_INVALID_OPTION, why);
    lua_pushvalue(L, 1);
    lua_pushlightuserdata(L, &o);
    if (lua_pcall(L, 2, 0, 0) != 0) {
        pge_pool_options_deinit(&o);
        return lua_error(L);
    }
    if (!o.key || !o.host_count || (o.transport == &pge_transport_local && !o.name)) {
        pge_pool_options_deinit(&o);
        return pge_push_failure(L, PGE_INVALID_OPTION, "key, hosts or name is missing");
    }
    c->client = pge_client_new(&bind->engine, &o, &client_events, c);
    if (!c->client)
        return luaL_error(L, "not enough memory");
    return 1;
}

/* No call is in flight but those of relays, which end by themselves: else the box would be anchored. */
static int client_gc(lua_State *L) {
    struct client *c = lua_touserdata(L, 1);
    pge_list_remove(&c->box.node);
    drop(&c->box);
    luaL_unref(L, LUA_REGISTRYINDEX, c->calls_ref);
    luaL_unref(L, LUA_REGISTRYINDEX, c->closers_ref);
    luaL_unref(L, LUA_REGISTRYINDEX, c->on_event_ref);
    return 0;
}

/* ---- methods ---- */

static uint64_t opt_ms(lua_State *L, int idx) {
    double ms = lua_tonumber(L, idx); /* false and nil: 0, none */
    return ms > 0 && ms < 0x1p53 ? (uint64_t)(ms + 0.999) : 0;
}

/* JSON text, or a table, encoded into the bind's buffer. An error is left in value->err, and p NULL. */
static void read_pattern(lua_State *L, struct pge_span *pattern, struct pge_lua_value *value) {
    if (!lua_istable(L, 2)) {
        pattern->p = luaL_checklstring(L, 2, &pattern->n);
        return;
    }
    struct pge_buf *buf = &((struct client *)lua_touserdata(L, 1))->box.bind->pattern;
    pge_buf_clear(buf);
    pge_buf_trim(buf, 4096);
    pge_lua_payload(value, L, 2);
    if (pge_lua_write_value(value, buf) < 0)
        return;
    *pattern = (struct pge_span){pge_buf_head(buf), pge_buf_len(buf)};
}

/* The pattern at 2, data at 3, metadata at meta (or none). Pads the stack to meta. */
static void read_message(lua_State *L, int meta, struct pge_message *m, struct pge_lua_value values[2]) {
    *m = (struct pge_message){0};
    values[0].err[0] = '\0';
    values[1].err[0] = '\0';
    read_pattern(L, &m->pattern, &values[1]);
    m->data = pge_lua_payload(&values[0], L, 3);
    if (!lua_isnoneornil(L, meta))
        m->metadata = pge_lua_payload(&values[1], L, meta);
}

static int refused(lua_State *L, struct pge_failure *why, const struct pge_lua_value values[2]) {
    const char *text = values[0].err[0] ? values[0].err : values[1].err;
    return pge_push_failure(L, why->fault, text[0] ? text : why->message);
}

/* Stores observer and callback of a call now in flight; the box is alive until it ends. */
static void remember(lua_State *L, struct client *c, int slot, int observer, int fn) {
    if (c->pending++ == 0)
        pge_box_anchor(L, &c->box, 1);
    lua_rawgeti(L, LUA_REGISTRYINDEX, c->calls_ref);
    lua_pushvalue(L, observer);
    lua_rawseti(L, -2, slot);
    lua_pushvalue(L, fn);
    lua_rawseti(L, -2, slot + 1);
    lua_pop(L, 1);
}

/* send(pattern, data, observer, on_packet, raw, timeout_ms, deadline_ms, metadata) */
static int client_send(lua_State *L) {
    struct client *c = check(L, 1);
    struct pge_message m;
    struct pge_lua_value values[2];
    struct pge_failure why;
    lua_settop(L, 9);
    luaL_checktype(L, 5, LUA_TFUNCTION);
    read_message(L, 9, &m, values);
    struct pge_call_options options = {
        .timeout_ms = opt_ms(L, 7),
        .deadline_ms = opt_ms(L, 8),
        .events = lua_toboolean(L, 6) ? &raw_call_events : &call_events,
        .arg = c,
    };
    if (!m.pattern.p)
        return pge_push_failure(L, PGE_INVALID_MESSAGE, values[1].err);
    struct pge_call *call = pge_client_send(c->client, &m, &options, &why);
    if (!call)
        return refused(L, &why, values);
    remember(L, c, slot_of(call), 4, 5);
    lua_pushnumber(L, pge_call_handle(call));
    return 1;
}

/* The newest call of a client whose emit or connect has to wait. */
static int wait_for(lua_State *L, struct client *c, int status, struct pge_failure *why,
                    const struct pge_lua_value values[2], int observer, int fn) {
    if (status < 0)
        return refused(L, why, values);
    if (status == 0)
        remember(L, c, slot_of(pge_client_newest(c->client)), observer, fn);
    lua_pushboolean(L, 1);
    lua_pushboolean(L, status == 1);
    return 2;
}

/* emit(pattern, data, observer, on_packet, metadata) -> true, done */
static int client_emit(lua_State *L) {
    struct client *c = check(L, 1);
    struct pge_message m;
    struct pge_lua_value values[2];
    struct pge_failure why;
    lua_settop(L, 6);
    luaL_checktype(L, 5, LUA_TFUNCTION);
    read_message(L, 6, &m, values);
    struct pge_call_options options = {.events = &call_events, .arg = c};
    if (!m.pattern.p)
        return pge_push_failure(L, PGE_INVALID_MESSAGE, values[1].err);
    int status = pge_client_emit(c->client, &m, &options, &why);
    return wait_for(L, c, status, &why, values, 4, 5);
}

/* connect(observer, on_packet) -> true, done */
static int client_connect(lua_State *L) {
    struct client *c = check(L, 1);
    struct pge_lua_value values[2] = {{0}};
    struct pge_failure why;
    lua_settop(L, 3);
    luaL_checktype(L, 3, LUA_TFUNCTION);
    struct pge_call_options options = {.events = &call_events, .arg = c};
    int status = pge_client_connect(c->client, &options, &why);
    return wait_for(L, c, status, &why, values, 2, 3);
}

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

/* send_made(make, observer, on_packet, timeout_ms, deadline_ms) */
static int client_send_made(lua_State *L) {
    struct client *c = check(L, 1);
    lua_settop(L, 6);
    luaL_checktype(L, 2, LUA_TFUNCTION);
    luaL_checktype(L, 4, LUA_TFUNCTION);
    struct maker maker = {.L = L, .make = 2};
    struct pge_message m = {.pattern = {"", 0}, .write_packet = write_made, .arg = &maker};
    struct pge_call_options options = {.timeout_ms = opt_ms(L, 5),
                                       .deadline_ms = opt_ms(L, 6),
                                       .events = &call_events,
                                       .arg = c};
    struct pge_failure why;
    struct pge_call *call = pge_client_send(c->client, &m, &options, &why);
    if (!call)
        return pge_push_failure(L, why.fault, maker.value.err[0] ? maker.value.err : why.message);
    remember(L, c, slot_of(call), 3, 4);
    lua_pushnumber(L, pge_call_handle(call));
    return 1;
}

/* emit_made(make, observer, on_packet) -> true, done */
static int client_emit_made(lua_State *L) {
    struct client *c = check(L, 1);
    lua_settop(L, 4);
    luaL_checktype(L, 2, LUA_TFUNCTION);
    luaL_checktype(L, 4, LUA_TFUNCTION);
    struct maker maker = {.L = L, .make = 2};
    struct pge_message m = {.pattern = {"", 0}, .write_packet = write_made, .arg = &maker};
    struct pge_call_options options = {.events = &call_events, .arg = c};
    struct pge_failure why;
    int status = pge_client_emit(c->client, &m, &options, &why);
    if (status < 0)
        return pge_push_failure(L, why.fault, maker.value.err[0] ? maker.value.err : why.message);
    struct pge_lua_value none[2] = {{0}};
    return wait_for(L, c, status, &why, none, 3, 4);
}

/* take(id, last) -> on_packet, observer of that call, which ends if last; nil: no such call. */
static int client_take(lua_State *L) {
    struct client *c = check(L, 1);
    struct pge_span id;
    id.p = luaL_checklstring(L, 2, &id.n);
    bool last = lua_toboolean(L, 3);
    struct pge_call *call = pge_client_call_by_id(c->client, id);
    if (!call)
        return 0;
    struct delivery d = {.owner = c, .slot = slot_of(call)};
    push_waiter(L, &d, last);
    pge_call_answered(call, last);
    if (last)
        maybe_release(c);
    return 2;
}

static int client_cancel(lua_State *L) {
    struct client *c = check(L, 1);
    struct pge_call *call = pge_client_call(c->client, luaL_checknumber(L, 2));
    if (!call)
        return 0;
    struct delivery d = {.owner = c, .slot = slot_of(call)};
    push_waiter(L, &d, true);
    pge_call_cancel(call);
    maybe_release(c);
    return 0;
}

static int client_close(lua_State *L) {
    struct client *c = check(L, 1);
    luaL_checktype(L, 2, LUA_TFUNCTION);
    lua_rawgeti(L, LUA_REGISTRYINDEX, c->closers_ref);
    lua_pushvalue(L, 2);
    lua_rawseti(L, -2, (int)lua_objlen(L, -2) + 1);
    pge_box_anchor(L, &c->box, 1);
    c->is_closing = true;
    pge_client_close(c->client);
    return 0;
}

static void push_host(lua_State *L, const struct client *c, unsigned i) {
    struct pge_host_status host;
    pge_client_host_status(c->client, i, &host);
    lua_createtable(L, 0, 4);
    lua_pushstring(L, host.address);
    lua_setfield(L, -2, "address");
    lua_pushstring(L, host.state);
    lua_setfield(L, -2, "state");
    lua_pushinteger(L, (lua_Integer)host.pending);
    lua_setfield(L, -2, "pending");
    lua_pushinteger(L, (lua_Integer)host.connections);
    lua_setfield(L, -2, "connections");
}

static int client_status(lua_State *L) {
    struct client *c = check(L, 1);
    lua_createtable(L, 0, 4);
    lua_pushstring(L, pge_client_is_connected(c->client) ? "connected" : "disconnected");
    lua_setfield(L, -2, "state");
    lua_pushinteger(L, (lua_Integer)pge_client_pending(c->client));
    lua_setfield(L, -2, "pending");
    lua_pushnumber(L, (double)pge_client_late_replies(c->client));
    lua_setfield(L, -2, "late_replies");
    unsigned count = pge_client_host_count(c->client);
    lua_createtable(L, (int)count, 0);
    for (unsigned i = 0; i < count; i++) {
        push_host(L, c, i);
        lua_rawseti(L, -2, (int)i + 1);
    }
    lua_setfield(L, -2, "hosts");
    return 1;
}

static const luaL_Reg methods[] = {
    {"send", client_send},   {"emit", client_emit},     {"connect", client_connect},
    {"close", client_close}, {"cancel", client_cancel}, {"status", client_status},
    {"send_made", client_send_made}, {"emit_made", client_emit_made}, {"take", client_take},
    {NULL, NULL},
};

static void push_kind(lua_State *L, const char *name, enum kind kind) {
    lua_pushinteger(L, kind);
    lua_setfield(L, -2, name);
}

void pge_lua_client(lua_State *L, struct pge_bind *bind) {
    pge_class(L, CLASS, methods, client_gc);
    lua_pushlightuserdata(L, bind);
    lua_pushcclosure(L, client_new, 1);
    lua_setfield(L, -2, "client");
    push_kind(L, "VALUE", KIND_VALUE);
    push_kind(L, "LAST", KIND_LAST);
    push_kind(L, "END", KIND_END);
    push_kind(L, "ERROR", KIND_ERROR);
    push_kind(L, "FAIL", KIND_FAIL);
}
