/* lua_client.c - core.client: calls out. The class, making one, its methods. */
#include "bind/lua_client.h"

#define CLASS "perigee.core.client"

struct pge_lua_client *pge_lua_client_check(lua_State *L, int idx) {
    struct pge_lua_client *c = pge_check_box(L, idx, CLASS);
    luaL_argcheck(L, c->client, idx, "client is closed");
    return c;
}

struct pge_client *pge_check_client(lua_State *L, int idx) {
    return pge_lua_client_check(L, idx)->client;
}

/* ---- making one ---- */

static void read_hosts(lua_State *L, struct pge_pool_options *o) {
    pge_opt_hosts(L, 1, o->hosts, &o->host_count);
    if (o->host_count == 0)
        o->host_count = 1; /* local: the name is all there is */
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

static void read_offline(lua_State *L, struct pge_pool_options *o) {
    lua_getfield(L, 1, "offline");
    const char *offline = luaL_optstring(L, -1, "fail");
    o->offline = strcmp(offline, "queue") == 0  ? PGE_OFFLINE_QUEUE
                 : strcmp(offline, "drop") == 0 ? PGE_OFFLINE_DROP
                                                : PGE_OFFLINE_FAIL;
    lua_pop(L, 1);
    o->resumes = pge_opt_bool(L, 1, "resume", false);
}

static void drop(struct pge_box *box) {
    struct pge_lua_client *c = container_of(box, struct pge_lua_client, box);
    if (!c->client)
        return;
    pge_client_cancel_all(c->client, c);
    pge_client_free(c->client);
    c->client = NULL;
}

/* Protected: what raises half-way would leak what was read. Stack: options. */
static int read_options(lua_State *L) {
    struct pge_pool_options *o = lua_touserdata(L, 2);
    read_hosts(L, o);
    read_limits(L, o);
    read_offline(L, o);
    pge_opt_settings(L, 1, &o->settings);
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
    struct pge_lua_client *c = pge_box_new(L, bind, sizeof *c, CLASS, drop);
    c->calls_ref = c->handlers_ref = c->closers_ref = c->on_event_ref = LUA_NOREF;
    lua_newtable(L);
    c->calls_ref = luaL_ref(L, LUA_REGISTRYINDEX);
    lua_newtable(L);
    c->handlers_ref = luaL_ref(L, LUA_REGISTRYINDEX);
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
    c->client = pge_client_new(&bind->engine, &o, &pge_lua_client_events, c);
    if (!c->client)
        return luaL_error(L, "not enough memory");
    return 1;
}

/*
 * No call is in flight but those of relays, which end by themselves: else the box would be
 * anchored.
 */
static int client_gc(lua_State *L) {
    struct pge_lua_client *c = lua_touserdata(L, 1);
    pge_list_remove(&c->box.node);
    drop(&c->box);
    luaL_unref(L, LUA_REGISTRYINDEX, c->calls_ref);
    luaL_unref(L, LUA_REGISTRYINDEX, c->handlers_ref);
    luaL_unref(L, LUA_REGISTRYINDEX, c->closers_ref);
    luaL_unref(L, LUA_REGISTRYINDEX, c->on_event_ref);
    return 0;
}

/* ---- methods ---- */

uint64_t pge_lua_client_opt_ms(lua_State *L, int idx) {
    double ms = lua_tonumber(L, idx); /* false and nil: 0, none */
    return ms > 0 && ms < 0x1p53 ? (uint64_t)(ms + 0.999) : 0;
}

/*
 * JSON text, or a table, encoded into the bind's buffer. An error is left in value->err, and p
 * NULL.
 */
static void read_pattern(lua_State *L, struct pge_bind *bind, int idx, struct pge_span *pattern,
                         struct pge_lua_value *value) {
    if (!lua_istable(L, idx)) {
        pattern->p = luaL_checklstring(L, idx, &pattern->n);
        return;
    }
    struct pge_buf *buf = &bind->pattern;
    pge_buf_clear(buf);
    pge_buf_trim(buf, 4096);
    pge_lua_payload_roomy(value, L, idx);
    if (pge_lua_write_value(value, buf) < 0)
        return;
    *pattern = (struct pge_span){pge_buf_head(buf), pge_buf_len(buf)};
}

void pge_lua_client_read(lua_State *L, struct pge_bind *bind, int idx, int meta, int extra,
                         struct pge_lua_message *out) {
    struct pge_message *m = &out->m;
    *m = (struct pge_message){0};
    if (lua_gettop(L) >= extra) {
        m->headers = pge_lua_headers(L, extra, out->headers);
        m->options = pge_lua_headers(L, extra + 1, out->headers + PGE_MAX_HEADERS);
    }
    out->values[0].err[0] = '\0';
    out->values[1].err[0] = '\0';
    read_pattern(L, bind, idx, &m->pattern, &out->values[1]);
    m->data = pge_lua_payload_roomy(&out->values[0], L, idx + 1);
    if (!lua_isnoneornil(L, meta))
        m->metadata = pge_lua_payload_roomy(&out->values[1], L, meta);
}

int pge_lua_client_refused(lua_State *L, const struct pge_failure *why,
                           const struct pge_lua_message *m) {
    const char *text = m->values[0].err[0] ? m->values[0].err : m->values[1].err;
    if (!m->m.pattern.p)
        return pge_push_failure(L, PGE_INVALID_MESSAGE, text);
    return pge_push_failure(L, why->fault, text[0] ? text : why->message);
}

/*
 * send(pattern, data, observer, on_packet, raw, timeout_ms, deadline_ms, metadata, _, headers,
 * options) -> number
 */
static int client_send(lua_State *L) {
    struct pge_lua_client *c = pge_lua_client_check(L, 1);
    struct pge_lua_message message;
    struct pge_failure why;
    lua_settop(L, 12);
    luaL_checktype(L, 5, LUA_TFUNCTION);
    pge_lua_client_read(L, c->box.bind, 2, 9, 11, &message);
    struct pge_call_options options = {
        .timeout_ms = pge_lua_client_opt_ms(L, 7),
        .deadline_ms = pge_lua_client_opt_ms(L, 8),
        .events = &pge_lua_client_call_events[lua_toboolean(L, 6)],
        .arg = c,
    };
    struct pge_call *call =
        message.m.pattern.p ? pge_client_send(c->client, &message.m, &options, &why) : NULL;
    if (!call)
        return pge_lua_client_refused(L, &why, &message);
    pge_lua_client_remember(L, c, pge_lua_client_slot(call), 4, 5);
    lua_pushnumber(L, pge_call_handle(call));
    return 1;
}

int pge_lua_client_wait_for(lua_State *L, struct pge_lua_client *c, int status,
                            const struct pge_failure *why, const struct pge_lua_message *m,
                            int observer, int fn) {
    if (status < 0)
        return pge_lua_client_refused(L, why, m);
    if (status == 0)
        pge_lua_client_remember(L, c, pge_lua_client_slot(pge_client_newest(c->client)), observer,
                                fn);
    lua_pushboolean(L, 1);
    lua_pushboolean(L, status == 1);
    return 2;
}

/* emit(pattern, data, observer, on_packet, metadata, _, headers, options, timeout_ms) -> true, done
 */
static int client_emit(lua_State *L) {
    struct pge_lua_client *c = pge_lua_client_check(L, 1);
    struct pge_lua_message message;
    struct pge_failure why;
    lua_settop(L, 10);
    luaL_checktype(L, 5, LUA_TFUNCTION);
    pge_lua_client_read(L, c->box.bind, 2, 6, 8, &message);
    struct pge_call_options options = {
        .timeout_ms = pge_lua_client_opt_ms(L, 10),
        .events = pge_lua_client_call_events,
        .arg = c,
    };
    int status = -1;
    if (message.m.pattern.p)
        status = pge_client_emit(c->client, &message.m, &options, &why);
    return pge_lua_client_wait_for(L, c, status, &why, &message, 4, 5);
}

/* connect(observer, on_packet) -> true, done */
static int client_connect(lua_State *L) {
    struct pge_lua_client *c = pge_lua_client_check(L, 1);
    struct pge_lua_message none = {.m.pattern.p = ""};
    struct pge_failure why;
    lua_settop(L, 3);
    luaL_checktype(L, 3, LUA_TFUNCTION);
    struct pge_call_options options = {.events = pge_lua_client_call_events, .arg = c};
    int status = pge_client_connect(c->client, &options, &why);
    return pge_lua_client_wait_for(L, c, status, &why, &none, 2, 3);
}

static int client_close(lua_State *L) {
    struct pge_lua_client *c = pge_lua_client_check(L, 1);
    luaL_checktype(L, 2, LUA_TFUNCTION);
    lua_rawgeti(L, LUA_REGISTRYINDEX, c->closers_ref);
    lua_pushvalue(L, 2);
    lua_rawseti(L, -2, (int)lua_objlen(L, -2) + 1);
    pge_box_anchor(L, &c->box, 1);
    c->is_closing = true;
    pge_client_close(c->client);
    return 0;
}

static void push_host(lua_State *L, const struct pge_lua_client *c, unsigned i) {
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

static void push_counts(lua_State *L, const struct pge_lua_client *c) {
    struct pge_client_counts counts;
    pge_client_count(c->client, &counts);
    lua_pushnumber(L, counts.waiting);
    lua_setfield(L, -2, "waiting");
    lua_pushnumber(L, (double)counts.waiting_bytes);
    lua_setfield(L, -2, "waiting_bytes");
    lua_pushnumber(L, (double)counts.dropped);
    lua_setfield(L, -2, "dropped_events");
    lua_pushnumber(L, (double)counts.reconnects);
    lua_setfield(L, -2, "reconnects");
}

static int client_status(lua_State *L) {
    struct pge_lua_client *c = pge_lua_client_check(L, 1);
    lua_createtable(L, 0, 8);
    lua_pushstring(L, pge_client_is_connected(c->client) ? "connected" : "disconnected");
    lua_setfield(L, -2, "state");
    lua_pushinteger(L, (lua_Integer)pge_client_pending(c->client));
    lua_setfield(L, -2, "pending");
    lua_pushnumber(L, (double)pge_client_late_replies(c->client));
    lua_setfield(L, -2, "late_replies");
    push_counts(L, c);
    unsigned count = pge_client_host_count(c->client);
    lua_createtable(L, (int)count, 0);
    for (unsigned i = 0; i < count; i++) {
        push_host(L, c, i);
        lua_rawseti(L, -2, (int)i + 1);
    }
    lua_setfield(L, -2, "hosts");
    return 1;
}

/* forwards(): requests in flight that were passed on without Lua. */
static int client_forwards(lua_State *L) {
    const struct pge_lua_client *c = pge_lua_client_check(L, 1);
    unsigned all = pge_client_pending(c->client);
    lua_pushinteger(L, (lua_Integer)(all > c->pending ? all - c->pending : 0));
    return 1;
}

static const luaL_Reg methods[] = {
    {"send", client_send},
    {"asker", pge_lua_client_asker},
    {"emit", client_emit},
    {"connect", client_connect},
    {"close", client_close},
    {"cancel", pge_lua_client_cancel},
    {"status", client_status},
    {"forwards", client_forwards},
    {"send_made", pge_lua_client_send_made},
    {"emit_made", pge_lua_client_emit_made},
    {"take", pge_lua_client_take},
    {NULL, NULL},
};

static void push_kind(lua_State *L, const char *name, enum pge_lua_client_kind kind) {
    lua_pushinteger(L, kind);
    lua_setfield(L, -2, name);
}

void pge_lua_client(lua_State *L, struct pge_bind *bind) {
    pge_class(L, CLASS, methods, client_gc);
    lua_pushlightuserdata(L, bind);
    lua_pushcclosure(L, client_new, 1);
    lua_setfield(L, -2, "client");
    push_kind(L, "VALUE", PGE_LUA_CLIENT_VALUE);
    push_kind(L, "LAST", PGE_LUA_CLIENT_LAST);
    push_kind(L, "END", PGE_LUA_CLIENT_END);
    push_kind(L, "ERROR", PGE_LUA_CLIENT_ERROR);
    push_kind(L, "FAIL", PGE_LUA_CLIENT_FAIL);
}
