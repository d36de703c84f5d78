/*
 * callgrind.c - preloaded under callgrind: where the counting of instructions begins and ends, for
 * Lua to say, and chance made the same in each run of the same MICRO_SEED.
 */
#include <dlfcn.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <valgrind/callgrind.h>

void micro_count_begin(void);
void micro_count_begin(void) {
    CALLGRIND_ZERO_STATS;
}

/* Writes a file with what was counted since. */
void micro_count_end(const char *name);
void micro_count_end(const char *name) {
    CALLGRIND_DUMP_STATS_AT(name);
}

/* LuaJIT seeds its hashes of strings and its choice of traces by this call. */
long syscall(long number, ...) {
    long a[6];
    va_list args;
    va_start(args, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(args, long);
    va_end(args);
    if (number == SYS_getrandom) {
        const char *seed = getenv("MICRO_SEED");
        memset((void *)a[0], seed ? atoi(seed) : 0, (size_t)a[1]);
        return a[1];
    }
    long (*next)(long, ...) = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    return next(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
