/* lua_server.c - core.server: messages in, replies out. Requests are numbers; a stale one is
 * harmless. */
#include <stdio.h>
#include <string.h>

#include "bind/bind.h"
#include "bind/lua_json.h"
#include "engine/relay.h"

#define CLASS "perigee.core.server"

enum event { ON_MESSAGE, ON_GONE, ON_CLOSE, ON_FAULT, ON_STATUS, EVENTS };

struct server {
    struct pge_box box;        /* first */
    struct pge_server *server; /* owned; NULL once closed */
    int refs[EVENTS];          /* registry */
    struct pge_peer *peer;     /* of the message being delivered, for server:peer() */
    struct pge_span data;      /* of that message too, for server:data() and server:value() */
};

static struct server *check(lua_State *L) {
    struct server *s = pge_check_box(L, 1, CLASS);
    return s;
}

/* ---- events ---- */

struct delivery {
    struct server *owner;
    const struct pge_inbound_message *message;
    double handle;
    const char *text, *name, *code;
};

static void push_fn(lua_State *L, const struct server *s, enum event event) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, s->refs[event]);
}

/* What brokers add: the subscription's place, the channel, headers, whether it is an event. */
static int push_origin(lua_State *L, const struct pge_inbound_message *m) {
    if (!m->subscription)
        return 0;
    lua_pushinteger(L, (lua_Integer)m->subscription);
    pge_push_span(L, m->channel);
    pge_push_headers(L, m->headers);
    lua_pushboolean(L, m->is_event);
    return 4;
}

static int deliver_message(lua_State *L, void *arg) {
    struct delivery *d = arg;
    const struct pge_inbound_message *m = d->message;
    push_fn(L, d->owner, ON_MESSAGE);
    if (m->request)
        lua_pushnumber(L, d->handle);
    else
        lua_pushnil(L);
    pge_push_span(L, m->pattern);
    lua_pushboolean(L, m->data.p != NULL);
    pge_push_span(L, m->metadata);
    lua_call(L, 4 + push_origin(L, m), 0);
    return 0;
}

static void on_message(struct pge_server *server, const struct pge_inbound_message *m) {
    struct server *s = pge_server_owner(server);
    struct delivery d = {.owner = s, .message = m};
    if (m->request)
        d.handle = pge_request_handle(m->request);
    s->peer = m->peer;
    s->data = m->data;
    bool has_failed = !pge_bind_call(s->box.bind, deliver_message, &d);
    s->peer = NULL;
    s->data = (struct pge_span){0};
    /* What raised was not the script, whose faults are caught: the state has no memory to take it.
     */
    struct pge_request *request =
        has_failed && m->request && s->server ? pge_server_request(s->server, d.handle) : NULL;
    if (request)
        pge_request_fail(request, PGE_OVERLOADED, "the request could not be taken");
}

static int deliver_gone(lua_State *L, void *arg) {
    struct delivery *d = arg;
    push_fn(L, d->owner, ON_GONE);
    lua_pushnumber(L, d->handle);
    lua_call(L, 1, 0);
    return 0;
}

static void on_gone(struct pge_server *server, struct pge_request *request) {
    struct server *s = pge_server_owner(server);
    if (pge_relay_gone(request))
        return;
    struct delivery d = {.owner = s, .handle = pge_request_handle(request)};
    pge_bind_call(s->box.bind, deliver_gone, &d);
}

static int deliver_fault(lua_State *L, void *arg) {
    struct delivery *d = arg;
    push_fn(L, d->owner, ON_FAULT);
    lua_pushstring(L, d->text);
    lua_pushstring(L, d->name);
    lua_call(L, 2, 0);
    return 0;
}

static void on_fault(struct pge_server *server, struct pge_peer *peer, enum pge_fault fault,
                     const char *message) {
    struct server *s = pge_server_owner(server);
    char name[128], text[300];
    pge_peer_name(peer, name, sizeof name);
    snprintf(text, sizeof text, "%s: %s", pge_fault_name(fault), message);
    struct delivery d = {.owner = s, .text = text, .name = name};
    pge_bind_call(s->box.bind, deliver_fault, &d);
}

static int deliver_close(lua_State *L, void *arg) {
    struct server *s = arg;
    push_fn(L, s, ON_CLOSE);
    lua_call(L, 0, 0);
    return 0;
}

static void on_closed(struct pge_server *server) {
    struct server *s = pge_server_owner(server);
    s->server = NULL;
    pge_bind_call(s->box.bind, deliver_close, s);
    pge_box_release(&s->box);
}

static int deliver_status(lua_State *L, void *arg) {
    struct delivery *d = arg;
    push_fn(L, d->owner, ON_STATUS);
    lua_pushstring(L, d->name);
    lua_pushstring(L, d->code);
    lua_pushstring(L, d->text);
    lua_call(L, 3, 0);
    return 0;
}

static void on_status(struct pge_server *server, enum pge_server_status status,
                      enum pge_fault fault, const char *message) {
    static const char *const names[] = {
        [PGE_SERVER_READY] = "ready",
        [PGE_SERVER_FAILED] = "failed",
        [PGE_SERVER_LOST] = "lost",
        [PGE_SERVER_RECONNECTED] = "reconnected",
    };
    struct server *s = pge_server_owner(server);
    struct delivery d = {.owner = s, .text = message, .name = names[status]};
    d.code = pge_fault_name(fault);
    pge_bind_call(s->box.bind, deliver_status, &d);
}

static const struct pge_server_events events = {on_message, on_gone, on_fault, on_closed,
                                                on_status};

/* ---- making one ---- */

/* Protected: what raises half-way would leak what was read. Stack: options. */
static int read_options(lua_State *L) {
    struct pge_server_options *o = lua_touserdata(L, 2);
    o->port = (uint16_t)pge_opt_number(L, 1, "port", 0);
    o->max_frame_units = (size_t)pge_opt_number(L, 1, "max_buffer_size", 16777216);
    o->max_queued_bytes = (size_t)pge_opt_number(L, 1, "max_send_buffer_size", 16777216);
    o->pause_queued_bytes = (size_t)pge_opt_number(L, 1, "pause_send_buffer_size", 1048576);
    o->incomplete_ms = (uint64_t)pge_opt_number(L, 1, "incomplete_message_timeout", 30000);
    o->write_timeout_ms = (uint64_t)pge_opt_number(L, 1, "write_timeout", 30000);
    o->max_peers = (unsigned)pge_opt_number(L, 1, "max_connections", 10000);
    o->max_requests = (unsigned)pge_opt_number(L, 1, "max_requests", 65536);
    o->backlog = (int)pge_opt_number(L, 1, "backlog", 511);
    if (o->max_queued_bytes == 0)
        o->max_queued_bytes = SIZE_MAX / 4; /* 0 is "off", as in Nest */
    o->connect_timeout_ms = (uint64_t)pge_opt_number(L, 1, "connect_timeout", 2000);
    pge_opt_hosts(L, 1, o->hosts, &o->host_count);
    pge_opt_settings(L, 1, &o->settings);
    o->host = pge_opt_text(L, 1, "host");
    o->path = pge_opt_text(L, 1, "path");
    o->name = pge_opt_text(L, 1, "name");
    return 0;
}

static void drop(struct pge_box *box) {
    struct server *s = container_of(box, struct server, box);
    if (s->server)
        pge_server_close(s->server);
}

/* Fills refs from the events table at 2. */
static void read_events(lua_State *L, struct server *s) {
    static const char *const names[EVENTS] = {"on_message", "on_gone", "on_close", "on_fault",
                                              "on_status"};
    for (int i = 0; i < EVENTS; i++)
        s->refs[i] = LUA_NOREF;
    for (int i = 0; i < EVENTS; i++) {
        lua_getfield(L, 2, names[i]);
        if (i == ON_STATUS && lua_isnil(L, -1)) { /* only brokers have one */
            lua_pop(L, 1);
            continue;
        }
        luaL_checktype(L, -1, LUA_TFUNCTION);
        s->refs[i] = luaL_ref(L, LUA_REGISTRYINDEX);
    }
}

static int server_new(lua_State *L) {
    struct pge_bind *bind = lua_touserdata(L, lua_upvalueindex(1));
    luaL_checktype(L, 1, LUA_TTABLE);
    luaL_checktype(L, 2, LUA_TTABLE);
    lua_settop(L, 2);
    struct server *s = pge_box_new(L, bind, sizeof *s, CLASS, drop);
    read_events(L, s);
    struct pge_server_options o = {0};
    lua_getfield(L, 1, "transport");
    o.transport = pge_transport_find(luaL_checkstring(L, -1));
    if (!o.transport)
        return pge_push_failure(L, PGE_UNSUPPORTED, "no such transport");
    struct pge_failure why;
    lua_pushcfunction(L, read_options);
    if (!pge_opt_tls(L, 1, !o.transport->broker, &o.tls, why.message, sizeof why.message))
        return pge_push_failure(L, PGE_INVALID_OPTION, why.message);
    lua_pushvalue(L, 1);
    lua_pushlightuserdata(L, &o);
    if (lua_pcall(L, 2, 0, 0) != 0) {
        pge_server_options_deinit(&o);
        return lua_error(L);
    }
    if (o.transport == &pge_transport_local && !o.name) {
        pge_server_options_deinit(&o);
        return pge_push_failure(L, PGE_INVALID_OPTION, "name is missing");
    }
    if (o.transport->broker && !o.host_count) {
        pge_server_options_deinit(&o);
        return pge_push_failure(L, PGE_INVALID_OPTION, "hosts are missing");
    }
    pge_box_anchor(L, &s->box, 3); /* first: it may raise */
    s->server = pge_server_new(&bind->engine, &o, &events, s, &why);
    if (!s->server) {
        pge_box_release(&s->box);
        return pge_push_failure(L, why.fault, why.message);
    }
    lua_pushvalue(L, 3);
    lua_pushboolean(L, pge_server_is_ready(s->server));
    return 2;
}

/* ---- subscriptions ---- */

/* subscribe({ { route =, settings = }, ... }, only_check) */
static int server_subscribe(lua_State *L) {
    struct server *s = check(L);
    struct pge_lua_wishes wishes;
    struct pge_failure why = {0};
    bool is_check = lua_toboolean(L, 3);
    if (!s->server)
        return pge_push_failure(L, PGE_CONNECTION_CLOSED, "the server is closed");
    if (!pge_lua_read_wishes(L, 2, &wishes))
        return lua_error(L);
    int status = is_check ? pge_server_check_wishes(s->server, wishes.at, wishes.count, &why)
                          : pge_server_subscribe(s->server, wishes.at, wishes.count, &why);
    pge_lua_free_wishes(&wishes); /* their settings were taken, if subscribed */
    if (status < 0)
        return pge_push_failure(L, why.fault, why.message);
    lua_pushboolean(L, 1);
    return 1;
}

static int server_gc(lua_State *L) {
    struct server *s = lua_touserdata(L, 1);
    if (s->server)
        return 0; /* anchored while open, so the state is closing: bind_gc drops it */
    pge_list_remove(&s->box.node);
    for (int i = 0; i < EVENTS; i++)
        luaL_unref(L, LUA_REGISTRYINDEX, s->refs[i]);
    return 0;
}

/* ---- methods ---- */

/* The request at 2; NULL: answered or gone, and nil, "CLOSED" was pushed. */
static struct pge_request *check_request(lua_State *L, struct server *s) {
    double handle = luaL_checknumber(L, 2);
    struct pge_request *request = s->server ? pge_server_request(s->server, handle) : NULL;
    if (!request) {
        lua_pushnil(L);
        lua_pushliteral(L, "CLOSED");
    }
    return request;
}

/* reply(req, kind, value): kinds as in lua_client.h; END has no value. */
static int server_reply(lua_State *L) {
    static const enum pge_reply kinds[] = {PGE_REPLY_VALUE, PGE_REPLY_LAST, PGE_REPLY_END,
                                           PGE_REPLY_ERROR};
    struct server *s = check(L);
    lua_settop(L, 4);
    lua_Integer kind = luaL_checkinteger(L, 3);
    luaL_argcheck(L, kind >= 1 && kind <= 4, 3, "not a kind of reply");
    struct pge_request *request = check_request(L, s);
    if (!request)
        return 2;
    struct pge_lua_value value = {.err = ""};
    struct pge_payload body = {0};
    if (kinds[kind - 1] != PGE_REPLY_END && !lua_isnil(L, 4))
        body = pge_lua_payload_roomy(&value, L, 4);
    int status = pge_request_reply(request, kinds[kind - 1], &body);
    if (status == UV_EMSGSIZE)
        return pge_push_failure(L, PGE_FRAME_TOO_LARGE, "the response is too large for the peer");
    if (status == UV_ENOMEM)
        return pge_push_failure(L, PGE_OVERLOADED, "the peer was cut: it does not read");
    if (status < 0)
        return pge_push_failure(L, PGE_INVALID_MESSAGE, value.err);
    lua_pushboolean(L, 1);
    return 1;
}

static int server_no_handler(lua_State *L) {
    struct server *s = check(L);
    struct pge_request *request = check_request(L, s);
    if (!request)
        return 2;
    pge_request_no_handler(request);
    lua_pushboolean(L, 1);
    return 1;
}

/* settle(req, ok): an event that its broker wants a word about. */
static int server_settle(lua_State *L) {
    struct server *s = check(L);
    struct pge_request *request = check_request(L, s);
    if (!request || !request->wants_verdict)
        return request ? 0 : 2;
    pge_request_settle(request, lua_toboolean(L, 3) ? PGE_ACK : PGE_NACK);
    lua_pushboolean(L, 1);
    return 1;
}

/* forward(req, client, pattern, data, timeout_ms, metadata, headers) */
static int server_forward(lua_State *L) {
    struct server *s = check(L);
    lua_settop(L, 8);
    struct pge_client *client = pge_check_client(L, 3);
    struct pge_request *request = check_request(L, s);
    if (!request)
        return 2;
    struct pge_header headers[PGE_MAX_HEADERS];
    struct pge_message m = {.headers = pge_lua_headers(L, 8, headers)};
    m.pattern.p = luaL_checklstring(L, 4, &m.pattern.n);
    m.data.json.p = luaL_checklstring(L, 5, &m.data.json.n);
    if (!lua_isnil(L, 7))
        m.metadata.json.p = luaL_checklstring(L, 7, &m.metadata.json.n);
    double ms = lua_tonumber(L, 6);
    pge_relay_start(request, client, &m, ms > 0 ? (uint64_t)ms : 0);
    lua_pushboolean(L, 1);
    return 1;
}

/* peer([req]): of that request, or of the message being delivered. */
static int server_peer(lua_State *L) {
    struct server *s = check(L);
    char name[128];
    struct pge_peer *peer = s->peer;
    if (!lua_isnoneornil(L, 2)) {
        struct pge_request *request = check_request(L, s);
        if (!request)
            return 2;
        peer = pge_request_peer(request);
    }
    if (!peer)
        return 0;
    pge_peer_name(peer, name, sizeof name);
    lua_pushstring(L, name);
    return 1;
}

/* data(): the JSON text of the message being delivered. */
static int server_data(lua_State *L) {
    pge_push_span(L, check(L)->data);
    return 1;
}

/* value(): the same decoded, or nil and why not. It has been validated as part of its packet. */
static int server_value(lua_State *L) {
    struct pge_span data = check(L)->data;
    if (!data.p)
        return 0;
    if (pge_lua_json_decode(L, data.p, data.n) == 0)
        return 1;
    lua_pushnil(L);
    lua_pushliteral(L, "JSON nested deeper than 512 levels");
    return 2;
}

static int server_address(lua_State *L) {
    struct server *s = check(L);
    char text[160] = "closed";
    if (s->server)
        pge_server_address(s->server, text, sizeof text);
    lua_pushstring(L, text);
    return 1;
}

static int server_drain(lua_State *L) {
    struct server *s = check(L);
    if (s->server)
        pge_server_drain(s->server);
    return 0;
}

static int server_close(lua_State *L) {
    struct server *s = check(L);
    if (s->server)
        pge_server_close(s->server);
    return 0;
}

/* hold(held): no new peers meanwhile. */
static int server_hold(lua_State *L) {
    struct server *s = check(L);
    if (s->server)
        pge_server_hold(s->server, lua_toboolean(L, 2));
    return 0;
}

static const luaL_Reg methods[] = {
    {"reply", server_reply},
    {"no_handler", server_no_handler},
    {"forward", server_forward},
    {"peer", server_peer},
    {"data", server_data},
    {"value", server_value},
    {"address", server_address},
    {"hold", server_hold},
    {"subscribe", server_subscribe},
    {"settle", server_settle},
    {"drain", server_drain},
    {"close", server_close},
    {NULL, NULL},
};

void pge_lua_server(lua_State *L, struct pge_bind *bind) {
    pge_class(L, CLASS, methods, server_gc);
    lua_pushlightuserdata(L, bind);
    lua_pushcclosure(L, server_new, 1);
    lua_setfield(L, -2, "server");
}
