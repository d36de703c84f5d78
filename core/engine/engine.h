/*
 * engine.h - what the clients and servers of one loop share: pools to be found again by equal
 * options, in-process servers to be found by name, scratch memory, and the door into the host.
 *
 * Words: a `call` is one request in flight; a `link` is one logical connection of a pool to one
 * host, as a transport sees it; a `peer` is its counterpart on a server. To add a transport, start
 * at transport/transport.h.
 */
#ifndef PGE_ENGINE_ENGINE_H
#define PGE_ENGINE_ENGINE_H

#include "base/loop.h"
#include "codec/json.h"

struct pge_engine {
    struct pge_loop *loop;   /* borrowed: outlives the engine */
    struct pge_list pools;   /* struct pge_pool.node */
    struct pge_list servers; /* struct pge_server.node */
    struct pge_json_scan scan;
    struct pge_buf scratch; /* valid until the next engine call */
    /* transport/packet.c: of the last pattern that was no plain string; most ask for one again. */
    struct pge_buf pattern, address;
    /*
     * Every burst of callbacks (one read of one connection, one timer) runs inside one call of
     * enter, so that the host can make it one protected entry. Calls fn(arg) exactly once. Entries
     * nest.
     */
    void (*enter)(struct pge_engine *engine, void (*fn)(void *arg), void *arg);
    void *host; /* the host's, not looked at */
};

void pge_engine_init(struct pge_engine *engine, struct pge_loop *loop);
/* All clients and servers must be closed and freed. */
void pge_engine_deinit(struct pge_engine *engine);

#endif
