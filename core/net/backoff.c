/* backoff.c - exponential backoff; jitter parts those who failed together. */
#include "net/backoff.h"

uint64_t pge_backoff_next(struct pge_backoff *backoff, struct pge_loop *loop) {
    unsigned doublings = backoff->tries++;
    uint64_t whole = backoff->first_ms;
    while (doublings-- && whole < backoff->max_ms && whole)
        whole = whole > UINT64_MAX / 2 ? UINT64_MAX : whole * 2;
    if (whole > backoff->max_ms)
        whole = backoff->max_ms;
    if (backoff->tries == 0)
        backoff->tries--; /* it wrapped: stay at the most */
    return whole - pge_loop_random(loop) % (whole / 2 + 1);
}
