/* fail_alloc.h - an allocator for unit tests that fails after a set number of requests and counts
 * what is held. */
#ifndef SPEC_UNIT_FAIL_ALLOC_H
#define SPEC_UNIT_FAIL_ALLOC_H

#include <stdlib.h>

#include "base/alloc.h"

struct fail_alloc {
    size_t grants; /* requests still granted; (size_t)-1: all */
    size_t asked;  /* requests so far */
    size_t held;   /* blocks not freed yet */
};

static inline void *fail_alloc_hook(void *arg, void *ptr, size_t size) {
    struct fail_alloc *a = arg;
    if (size == 0) {
        a->held--;
        free(ptr);
        return NULL;
    }
    a->asked++;
    if (a->grants == 0)
        return NULL;
    if (a->grants != (size_t)-1)
        a->grants--;
    if (!ptr)
        a->held++;
    return realloc(ptr, size);
}

static inline void fail_alloc_start(struct fail_alloc *a, size_t grants) {
    *a = (struct fail_alloc){.grants = grants};
    pge_alloc_set(fail_alloc_hook, a);
}

static inline void fail_alloc_stop(void) {
    pge_alloc_set(NULL, NULL);
}

#endif
