/*
 * broker.h - a server that dials. It has one peer, the broker, for as long as it lives; the peer's
 * connection comes and goes. Requests outlive a lost connection: their replies go out on the next.
 *
 *   serve -> peer_dial(host 1, 2, ...) -> up: READY -> down: LOST -> peer_dial ... up: RECONNECTED
 *                 all fail: FAILED                     ^ after a back-off, for ever
 */
#ifndef PGE_ENGINE_BROKER_H
#define PGE_ENGINE_BROKER_H

#include "engine/server.h"

/* ---- slots of struct pge_transport ---- */

int pge_broker_serve(struct pge_server *server);
void pge_broker_pause(struct pge_server *server, bool paused);
void pge_broker_unserve(struct pge_server *server);
void pge_broker_address(const struct pge_server *server, char *out, size_t size);

/* ---- for transports ---- */

/* The broker has taken every subscription. */
void pge_peer_up(struct pge_peer *peer);
/* The connection could not be made, or broke, and was let go of. */
void pge_peer_down(struct pge_peer *peer, enum pge_fault fault, const char *message);
/* After peer_leave: nothing more will come. */
void pge_peer_left(struct pge_peer *peer);
/* Something is wrong that the connection survives: told by on_fault. */
void pge_peer_complain(struct pge_peer *peer, enum pge_fault fault, const char *message);
/* As pge_link_learn. */
void pge_peer_learn(struct pge_peer *peer, const char *host, uint16_t port);

/* ---- between server.c and broker.c ---- */

/* Cuts the connection, as pge_peer_lost does a peer: it is dialled anew. */
void pge_broker_reset(struct pge_peer *peer, enum pge_fault fault, const char *message);
void pge_broker_free_subscriptions(struct pge_server *server);

/* Adds an address to a list of hosts. The new one; NULL: it is known, or there is no room. */
struct pge_host_options *pge_hosts_learn(struct pge_host_options *hosts, unsigned *count,
                                         const struct pge_host_options *teacher, const char *host,
                                         uint16_t port);

#endif
