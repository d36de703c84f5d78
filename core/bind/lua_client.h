/* lua_client.h - what the lua_client*.c files share. Nobody else includes it. */
#ifndef PGE_BIND_LUA_CLIENT_H
#define PGE_BIND_LUA_CLIENT_H

#include "bind/bind.h"

/* What a packet is to Lua: core.VALUE ... core.FAIL. */
enum pge_lua_client_kind {
    PGE_LUA_CLIENT_VALUE = 1,
    PGE_LUA_CLIENT_LAST,
    PGE_LUA_CLIENT_END,
    PGE_LUA_CLIENT_ERROR,
    PGE_LUA_CLIENT_FAIL,
};

struct pge_lua_client {
    struct pge_box box;        /* first */
    struct pge_client *client; /* owned; NULL once collected */
    int calls_ref;             /* registry: slot -> observer, or the task that asks */
    int handlers_ref;          /* registry: slot -> callback of an observer */
    int on_event_ref;          /* registry */
    int closers_ref;           /* registry: callbacks waiting for the close, a list */
    unsigned pending;          /* calls in `calls`; relays use the client without the box */
    unsigned busy;             /* callbacks of ours on the stack */
    bool is_closing;
};

/* The core.client at idx; raises when it is not one, or closed. */
struct pge_lua_client *pge_lua_client_check(lua_State *L, int idx);

/* Milliseconds at idx, rounded up; false and nil: 0, none. */
uint64_t pge_lua_client_opt_ms(lua_State *L, int idx);

/* ---- lua_client_call.c ---- */

extern const struct pge_client_events pge_lua_client_events;
/* Two each: values decoded, and raw, as slices of JSON text. The call's arg is the struct
 * pge_lua_client. */
extern const struct pge_call_events pge_lua_client_call_events[2], pge_lua_client_ask_events[2];

/* Where the call's observer stands in `calls`, and its callback in `handlers`. */
int pge_lua_client_slot(const struct pge_call *call);

/* Stores observer and callback of a call now in flight; the box is alive until it ends. */
void pge_lua_client_remember(lua_State *L, struct pge_lua_client *c, int slot, int observer,
                             int fn);

/* ---- lua_client_ask.c ---- */

bool pge_lua_client_is_ask(const struct pge_call *call);
int pge_lua_client_asker(lua_State *L); /* a method */

/* ---- lua_client.c ---- */

/*
 * A message on the stack: the pattern at idx, its data behind it, metadata at meta, headers and
 * options at extra and behind it. Those that are not there are nil or none. m borrows the stack.
 */
struct pge_lua_message {
    struct pge_message m;
    struct pge_lua_value values[2];
    struct pge_header headers[2 * PGE_MAX_HEADERS];
};
void pge_lua_client_read(lua_State *L, struct pge_bind *bind, int idx, int meta, int extra,
                         struct pge_lua_message *out);
/* Pushes nil, code, message: what is wrong with the message, or why. */
int pge_lua_client_refused(lua_State *L, const struct pge_failure *why,
                           const struct pge_lua_message *m);

/*
 * What a method returns after an emit or connect with this status. < 0: nil, code, message, the
 * message out of m or why. Else true, done; not done: the client's newest call has to wait and
 * is remembered.
 */
int pge_lua_client_wait_for(lua_State *L, struct pge_lua_client *c, int status,
                            const struct pge_failure *why, const struct pge_lua_message *m,
                            int observer, int fn);

/* ---- lua_client_call.c ---- */

/* Methods: custom serialisers, calls that Lua answers or ends. */
int pge_lua_client_send_made(lua_State *L);
int pge_lua_client_emit_made(lua_State *L);
int pge_lua_client_take(lua_State *L);
int pge_lua_client_cancel(lua_State *L);

#endif
