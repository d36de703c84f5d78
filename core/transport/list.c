/* list.c - the transports there are. */
#include <string.h>

#include "transport/transport.h"

static const struct pge_transport *const transports[] = {
    &pge_transport_tcp,
    &pge_transport_local,
    &pge_transport_nats,
    &pge_transport_redis,
};

const struct pge_transport *pge_transport_find(const char *name) {
    for (size_t i = 0; i < sizeof transports / sizeof *transports; i++)
        if (strcmp(transports[i]->name, name) == 0)
            return transports[i];
    return NULL;
}
