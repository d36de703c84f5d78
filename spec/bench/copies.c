/*
 * copies.c - preloaded into a process, it counts the bytes that process copies in its own memory:
 * calls of memcpy and its kin of a kilobyte and more, and blocks that realloc has moved.
 *
 * On SIGUSR2 the count so far is written, as one number, to the file that COPIES_FILE names.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { COUNTED_BYTES = 1024 };

typedef void *(*copy_fn)(void *, const void *, size_t);
typedef void *(*realloc_fn)(void *, size_t);

static uint64_t counted;

static void count(size_t n) {
    if (n >= COUNTED_BYTES)
        __atomic_fetch_add(&counted, n, __ATOMIC_RELAXED);
}

static void *next(const char *name) {
    void *fn = dlsym(RTLD_NEXT, name);
    if (!fn)
        abort();
    return fn;
}

void *memcpy(void *restrict to, const void *restrict from, size_t n) {
    static copy_fn fn;
    if (!fn)
        fn = (copy_fn)(uintptr_t)next("memcpy");
    count(n);
    return fn(to, from, n);
}

void *memmove(void *to, const void *from, size_t n) {
    static copy_fn fn;
    if (!fn)
        fn = (copy_fn)(uintptr_t)next("memmove");
    count(n);
    return fn(to, from, n);
}

void *mempcpy(void *restrict to, const void *restrict from, size_t n) {
    return (char *)memcpy(to, from, n) + n;
}

/* With -D_FORTIFY_SOURCE these are called instead. */
void *__memcpy_chk(void *restrict to, const void *restrict from, size_t n, size_t room) {
    if (n > room)
        abort();
    return memcpy(to, from, n);
}

void *__memmove_chk(void *to, const void *from, size_t n, size_t room) {
    if (n > room)
        abort();
    return memmove(to, from, n);
}

/* A block of the size of pages may have been mapped elsewhere instead: then too it is counted. */
void *realloc(void *block, size_t size) {
    static realloc_fn fn;
    if (!fn)
        fn = (realloc_fn)(uintptr_t)next("realloc");
    size_t old = block ? malloc_usable_size(block) : 0;
    uintptr_t before = (uintptr_t)block;
    void *moved = fn(block, size);
    if (moved && before && (uintptr_t)moved != before)
        count(old < size ? old : size);
    return moved;
}

static void tell(int signal) {
    (void)signal;
    char text[24];
    int n = snprintf(text, sizeof text, "%llu\n", (unsigned long long)counted);
    int fd = open(getenv("COPIES_FILE"), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, text, (size_t)n) != n)
        abort();
    close(fd);
}

__attribute__((constructor)) static void start(void) {
    if (getenv("COPIES_FILE"))
        signal(SIGUSR2, tell);
}
