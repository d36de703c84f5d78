/* backoff.h - how long to wait before the next try: exponential with full jitter, capped. */
#ifndef PGE_NET_BACKOFF_H
#define PGE_NET_BACKOFF_H

#include "base/loop.h"

struct pge_backoff {
    uint64_t first_ms, max_ms; /* defaults of the engine: 100 ms doubling to 10 s */
    unsigned tries;            /* failures in a row */
};

/* Counts a failure; the delay in ms: between half and the whole of min(first * 2^tries, max). */
uint64_t pge_backoff_next(struct pge_backoff *backoff, struct pge_loop *loop);

static inline void pge_backoff_reset(struct pge_backoff *backoff) {
    backoff->tries = 0;
}

#endif
