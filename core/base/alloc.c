/* alloc.c - the allocation hook. */
#include "base/alloc.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static void *libc_realloc(void *arg, void *ptr, size_t size) {
    (void)arg;
    if (size == 0) {
        free(ptr);
        return NULL;
    }
    return realloc(ptr, size);
}

static struct {
    pge_realloc_fn fn;
    void *arg;
} hook = {libc_realloc, NULL};

void pge_alloc_set(pge_realloc_fn fn, void *arg) {
    hook.fn = fn ? fn : libc_realloc;
    hook.arg = fn ? arg : NULL;
}

void *pge_malloc(size_t size) {
    return hook.fn(hook.arg, NULL, size ? size : 1);
}

void *pge_calloc(size_t count, size_t size) {
    if (size && count > SIZE_MAX / size)
        return NULL;
    void *ptr = pge_malloc(count * size);
    if (ptr)
        memset(ptr, 0, count * size);
    return ptr;
}

void *pge_realloc(void *ptr, size_t size) {
    return hook.fn(hook.arg, ptr, size ? size : 1);
}

void pge_free(void *ptr) {
    if (ptr)
        hook.fn(hook.arg, ptr, 0);
}

char *pge_strndup(const char *text, size_t n) {
    char *copy = pge_malloc(n + 1);
    if (!copy)
        return NULL;
    memcpy(copy, text, n);
    copy[n] = '\0';
    return copy;
}
