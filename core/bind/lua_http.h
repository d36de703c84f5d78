/* lua_http.h - what the lua_http*.c files share. Nobody else includes it. */
#ifndef PGE_BIND_LUA_HTTP_H
#define PGE_BIND_LUA_HTTP_H

#include "bind/bind.h"
#include "front/http_forward.h"

/* Callbacks; the last counts them. */
enum pge_lua_http_event {
    PGE_LUA_HTTP_ON_REQUEST,
    PGE_LUA_HTTP_ON_ABORT,
    PGE_LUA_HTTP_ON_CLOSE,
    PGE_LUA_HTTP_EVENTS,
};

struct pge_lua_http_slot {
    struct pge_http_forward forward; /* first; forward.req is the request, NULL once it is over */
    struct pge_list node;            /* http->free; http->arrived, aborted until Lua is told */
    struct pge_lua_http *owner;
    uint32_t index, generation;
    uint32_t stamp;   /* the number its reply is stamped with; 0: none */
    bool is_told;     /* Lua knows of it */
    int on_error_ref; /* of a forward; LUA_NOREF */
    struct pge_http_header stamp_header;
    char stamp_text[12];
};

struct pge_lua_http {
    struct pge_box box;                /* first */
    struct pge_http_server *server;    /* owned; NULL once closed */
    struct pge_tls *tls;               /* owned */
    int refs[PGE_LUA_HTTP_EVENTS];     /* registry */
    struct pge_lua_http_slot **chunks; /* owned, never moved */
    unsigned chunk_count;
    struct pge_list free, arrived, aborted;
    struct pge_defer tell_arrived, tell_aborted;
    char *stamp_name; /* owned; NULL: none */
    uint32_t stamp;   /* of the requests to come */
};

/* ---- lua_http_inject.c ---- */

void pge_lua_http_injected(lua_State *L); /* registers the class of what is injected */
int pge_lua_http_inject(lua_State *L);

/* The core.http at 1, open or not; raises when it is not one. */
struct pge_lua_http *pge_lua_http_check(lua_State *L);

/* The slot of the request at 2; NULL: answered or aborted, and nil, "CLOSED" was pushed. */
struct pge_lua_http_slot *pge_lua_http_slot_check(lua_State *L, struct pge_lua_http *h);
/* The request is over: the slot is free, its handle is no longer valid. */
void pge_lua_http_slot_release(struct pge_lua_http_slot *slot);

/* The header that stamps its reply, which lives in the slot; NULL: none. */
const struct pge_http_header *pge_lua_http_stamp(struct pge_lua_http_slot *slot);

/* ---- lua_http_reply.c: methods of one request ---- */

int pge_lua_http_headers(lua_State *L);
int pge_lua_http_body(lua_State *L);
int pge_lua_http_peer(lua_State *L);
int pge_lua_http_reply(lua_State *L);
int pge_lua_http_reply_json(lua_State *L);
int pge_lua_http_problem(lua_State *L);
int pge_lua_http_begin(lua_State *L);
int pge_lua_http_chunk(lua_State *L);
int pge_lua_http_finish(lua_State *L);
int pge_lua_http_fail(lua_State *L);
int pge_lua_http_forward(lua_State *L);

#endif
