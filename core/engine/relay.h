/* relay.h - a server's request answered by a client: packets pass through untouched, failures as
 * errors. */
#ifndef PGE_ENGINE_RELAY_H
#define PGE_ENGINE_RELAY_H

#include "engine/client.h"
#include "engine/server.h"

/* Sends m (borrowed for the call) and lets the replies answer request, whose user pointer it takes
 * over. A failure, at once or later, answers it too. */
void pge_relay_start(struct pge_request *request, struct pge_client *client,
                     const struct pge_message *m, uint64_t timeout_ms);

/* For on_gone: ends the relay of a request; false when it is not relayed. */
bool pge_relay_gone(struct pge_request *request);

#endif
