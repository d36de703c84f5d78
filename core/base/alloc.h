/*
 * alloc.h - the one hook through which the core allocates, so that tests can make it fail.
 *
 * The hook is process-wide because OpenSSL-style callers have no context to carry; it is set before
 * the first allocation and not changed while memory is held.
 */
#ifndef PGE_BASE_ALLOC_H
#define PGE_BASE_ALLOC_H

#include <stddef.h>

/* realloc's contract; size 0 frees and returns NULL. */
typedef void *(*pge_realloc_fn)(void *arg, void *ptr, size_t size);

/* Replaces the allocator; NULL restores the C library's. */
void pge_alloc_set(pge_realloc_fn fn, void *arg);

void *pge_malloc(size_t size);                 /* NULL: out of memory */
void *pge_calloc(size_t count, size_t size);   /* zeroed; NULL: out of memory or overflow */
void *pge_realloc(void *ptr, size_t size);     /* NULL: out of memory, ptr stays valid */
void pge_free(void *ptr);                      /* accepts NULL */
char *pge_strndup(const char *text, size_t n); /* NUL-terminated copy; NULL: out of memory */

#endif
