/*
 * micro.h - the operations of `make bench-micro` that are C: each is named, does its work once on
 * fixed bytes without I/O, and says how much came of it.
 */
#ifndef SPEC_BENCH_MICRO_H
#define SPEC_BENCH_MICRO_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/buffer.h"

struct micro_op {
    const char *name;
    void (*setup)(void); /* once, before; NULL: none */
    size_t (*op)(void);
    size_t wants;      /* what op returns */
    const char *wrote; /* what it leaves in micro_out; NULL: it does not write */
};

/* The last two members of one that writes this literal. */
#define MICRO_WRITES(text) sizeof(text) - 1, text

/* Lists, each ended by an operation without a name. */
extern const struct micro_op micro_base[], micro_json[], micro_wire[], micro_http[];

extern struct pge_buf micro_out;

static inline struct pge_span micro_span(const char *text) {
    return (struct pge_span){text, strlen(text)};
}

/* About 100 bytes of data, and the packets around it. */
#define MICRO_DATA                                                                                 \
    "{\"amount\":1999,\"currency\":\"EUR\",\"customer\":\"cus_9f3b21\",\"orderId\":\"ord_42\","    \
    "\"paid\":false,\"tags\":[\"a\",\"b\"]}"
#define MICRO_REQUEST                                                                              \
    "{\"pattern\":{\"cmd\":\"charge\"},\"data\":" MICRO_DATA ",\"id\":\"5c1e02a7d94b3f68\"}"
#define MICRO_REPLY "{\"response\":" MICRO_DATA ",\"isDisposed\":true,\"id\":\"5c1e02a7d94b3f68\"}"
enum { MICRO_DATA_LEN = sizeof MICRO_DATA - 1 };

#endif
