/* child.h - a worker's half of what supervisor and worker share in C: its birth and its sockets. */
#ifndef PGE_SUPERVISOR_CHILD_H
#define PGE_SUPERVISOR_CHILD_H

#include <stdbool.h>

#include "base/loop.h"

/* Whether this process was started as a worker by a supervisor that still lives. Then it dies with
 * it, leaves INT, TERM and HUP to it, and its children know nothing of it. Ends the process when
 * the supervisor is gone already. */
bool pge_child_begin(void);

/* Where a worker's listeners come from. Static; for loop->sockets. */
struct pge_sockets *pge_child_sockets(void);

#endif
