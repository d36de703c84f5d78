/*
 * memory.h - a connection without a socket: what its peer sends is given at once, what it is sent
 * is handed to a function. For requests that tests inject; nobody can dial or listen to it.
 */
#ifndef PGE_NET_MEMORY_H
#define PGE_NET_MEMORY_H

#include "net/stream.h"

/* The other end. Both are always set. */
struct pge_memory_peer {
    void (*on_output)(void *arg, const char *data, size_t n); /* lends its bytes until it returns */
    void (*on_end)(void *arg); /* the connection is closed; last, exactly once */
};

extern const struct pge_stream pge_stream_memory;

/*
 * An open connection whose peer has sent the n bytes (copied) and reads everything at once. As an
 * accepted one: the owner sets events and owner, and starts to read. The peer ends when it is sent
 * an end. NULL: *status says why, and no on_end follows.
 */
struct pge_conn *pge_memory_open(struct pge_loop *loop, const char *data, size_t n,
                                 const struct pge_memory_peer *peer, void *arg, int *status);

#endif
