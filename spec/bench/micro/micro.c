/*
 * micro.c - the C operations of `make bench-micro`.
 *
 *   micro once                       each is done once and its result checked
 *   micro time                       "NAME <tab> nanoseconds" for each
 *   valgrind --tool=callgrind micro count    "NAME <tab> operations", and a dump of that name each
 */
#include "micro.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#if __has_include(<valgrind/callgrind.h>)
#include <valgrind/callgrind.h>
#else
#define CALLGRIND_ZERO_STATS
#define CALLGRIND_DUMP_STATS_AT(name) (void)(name)
#endif

enum { WARM = 100, COUNTED = 1000, ROUNDS = 7, ROUND_NS = 10 * 1000 * 1000 };

struct pge_buf micro_out;

static volatile size_t sink;

static __attribute__((noinline)) void repeat(const struct micro_op *op, unsigned long n) {
    size_t sum = 0;
    for (unsigned long i = 0; i < n; i++)
        sum += op->op();
    sink = sum;
}

static double time_ns(const struct micro_op *op, unsigned long n) {
    struct timespec from, to;
    clock_gettime(CLOCK_MONOTONIC, &from);
    repeat(op, n);
    clock_gettime(CLOCK_MONOTONIC, &to);
    return (double)(to.tv_sec - from.tv_sec) * 1e9 + (double)(to.tv_nsec - from.tv_nsec);
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void measure(const struct micro_op *op) {
    double rounds[ROUNDS];
    unsigned long n = 64;
    while (time_ns(op, n) < ROUND_NS)
        n *= 2;
    for (int i = 0; i < ROUNDS; i++)
        rounds[i] = time_ns(op, n) / (double)n;
    qsort(rounds, ROUNDS, sizeof *rounds, by_size);
    printf("%s\t%.1f\n", op->name, rounds[ROUNDS / 2]);
}

static void count(const struct micro_op *op) {
    repeat(op, WARM);
    CALLGRIND_ZERO_STATS;
    repeat(op, COUNTED);
    CALLGRIND_DUMP_STATS_AT(op->name);
    printf("%s\t%d\n", op->name, COUNTED);
}

static void check(const struct micro_op *op) {
    size_t got = op->op(), n = pge_buf_len(&micro_out);
    if (got != op->wants) {
        fprintf(stderr, "%s gives %zu, not %zu\n", op->name, got, op->wants);
        exit(1);
    }
    if (op->wrote && (strlen(op->wrote) != n || memcmp(op->wrote, pge_buf_head(&micro_out), n))) {
        fprintf(stderr, "%s wrote %.*s\n", op->name, (int)n, pge_buf_head(&micro_out));
        exit(1);
    }
}

static void tell(const struct micro_op *op) {
    printf("%s\tok\n", op->name);
}

int main(int argc, char **argv) {
    static const struct micro_op *const lists[] = {micro_base, micro_json, micro_wire, micro_http};
    const char *mode = argc == 2 ? argv[1] : "";
    void (*run)(const struct micro_op *) = strcmp(mode, "time") == 0    ? measure
                                           : strcmp(mode, "count") == 0 ? count
                                                                        : tell;
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        for (const struct micro_op *op = lists[i]; op->name; op++) {
            if (op->setup)
                op->setup();
            check(op);
            run(op);
        }
    return 0;
}
