/* histogram.h - latencies counted log-linearly: 128 steps from each power of two to the next. */
#ifndef PGE_BENCH_HISTOGRAM_H
#define PGE_BENCH_HISTOGRAM_H

#include <stdint.h>

enum { STEP_BITS = 7, STEPS = 1 << STEP_BITS, BUCKETS = (64 - STEP_BITS + 1) * STEPS };

struct histogram {
    uint64_t counts[BUCKETS], total, max;
};

/* Below STEPS each value has a bucket; above, its seven bits after the first choose the step. */
static inline unsigned bucket_of(uint64_t value) {
    if (value < STEPS)
        return (unsigned)value;
    unsigned shift = 63 - STEP_BITS - (unsigned)__builtin_clzll(value);
    return (shift + 1) * STEPS + (unsigned)((value >> shift) - STEPS);
}

/* The least value of the next bucket: what is told is not too good. */
static inline uint64_t bucket_end(unsigned bucket) {
    unsigned shift = bucket / STEPS;
    return shift ? ((uint64_t)(bucket % STEPS) + STEPS + 1) << (shift - 1) : bucket + 1;
}

static inline void record(struct histogram *h, uint64_t value) {
    h->counts[bucket_of(value)]++;
    h->total++;
    if (value > h->max)
        h->max = value;
}

/* The value that this part of all does not exceed. */
static inline uint64_t percentile(const struct histogram *h, double part) {
    uint64_t wanted = (uint64_t)((double)h->total * part), seen = 0;
    for (unsigned i = 0; i < BUCKETS; i++) {
        seen += h->counts[i];
        if (seen > wanted)
            return bucket_end(i) < h->max ? bucket_end(i) : h->max;
    }
    return h->max;
}

#endif
