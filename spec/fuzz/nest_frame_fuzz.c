/*
 * nest_frame_fuzz.c - however a stream is cut into reads, and wherever parsing pauses, the same
 * frames and the same error come out.
 *
 * Input: limit, three bytes that place the cuts, then the stream.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codec/nest_frame.h"
#include "codec/utf8.h"

static void must(int condition) {
    if (!condition)
        abort();
}

static void note(struct pge_buf *log, const void *bytes, size_t n) {
    must(pge_buf_append(log, bytes, n) == 0);
}

/* Notes all frames, or one when pausing. Returns the last status. */
static int drain(struct pge_nest_frame *f, struct pge_buf *log, int is_pausing) {
    struct pge_span payload;
    int status;
    while ((status = pge_nest_frame_next(f, &payload)) == 1) {
        must(payload.p != NULL);
        must(pge_utf8_check(payload.p, payload.n) == 0);
        note(log, &payload.n, sizeof(payload.n));
        note(log, payload.p, payload.n);
        if (is_pausing)
            break;
    }
    if (status < 0) {
        must(f->error[0] != '\0');
        must(pge_nest_frame_next(f, &payload) == status);
        note(log, &status, sizeof(status));
        note(log, f->error, strlen(f->error));
    }
    return status;
}

/* What a stream would have read into the room the codec offers. */
static int feed_room(struct pge_nest_frame *f, struct pge_room room, const char *data, size_t n,
                     struct pge_buf *log) {
    memcpy(room.p, data, n);
    must(pge_nest_frame_feed(f, room.p, n) == 0);
    return drain(f, log, 0);
}

static int feed(struct pge_nest_frame *f, const char *data, size_t n, struct pge_buf *log,
                int is_pausing) {
    char *lent = malloc(n ? n : 1);
    memcpy(lent, data, n);
    must(pge_nest_frame_feed(f, lent, n) == 0);
    int status = drain(f, log, is_pausing);
    if (status >= 0)
        must(pge_nest_frame_park(f) == 0);
    free(lent);
    return status;
}

/* Reads of sizes that follow from seed; 0: everything at once. */
static void run(const char *data, size_t n, size_t max_units, uint32_t seed, int is_pausing,
                struct pge_buf *log) {
    struct pge_nest_frame f;
    size_t at = 0, partial;
    int status = 0;
    pge_nest_frame_init(&f, max_units);
    while (at < n && status >= 0) {
        size_t len = seed ? 1 + (seed >> 8) % 11 : n;
        len = len > n - at ? n - at : len;
        struct pge_room room = {0};
        if (!is_pausing && seed)
            room = pge_nest_frame_room(&f);
        len = room.n && len > room.n ? room.n : len;
        status = room.n ? feed_room(&f, room, data + at, len, log)
                        : feed(&f, data + at, len, log, is_pausing);
        at += len;
        seed = seed ? seed * 1664525u + 1013904223u : 0;
    }
    while (status > 0)
        status = drain(&f, log, is_pausing);
    partial = status < 0 ? 0 : pge_nest_frame_partial(&f);
    must(partial <= n);
    note(log, &partial, sizeof(partial));
    pge_nest_frame_deinit(&f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 4)
        return 0;
    const char *stream = (const char *)data + 4;
    size_t n = size - 4, max_units = data[0] < 128 ? data[0] : 100000;
    uint32_t seed = 1u + data[1] + 256u * data[2] + 65536u * data[3];
    struct pge_buf whole = {0};
    run(stream, n, max_units, 0, 0, &whole);
    for (int way = 0; way < 3; way++) {
        struct pge_buf cut = {0};
        run(stream, n, max_units, way == 2 ? 0 : seed, way > 0, &cut);
        must(pge_buf_len(&cut) == pge_buf_len(&whole));
        must(memcmp(pge_buf_head(&cut), pge_buf_head(&whole), pge_buf_len(&cut)) == 0);
        pge_buf_deinit(&cut);
    }
    pge_buf_deinit(&whole);
    return 0;
}
