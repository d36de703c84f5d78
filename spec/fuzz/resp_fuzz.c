/*
 * resp_fuzz.c - however a stream is cut into reads, and wherever reading pauses, the same replies
 * and the same error come out.
 *
 * Input: limit, three bytes that place the cuts, then the stream.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "codec/resp.h"

static void must(int condition) {
    if (!condition)
        abort();
}

static void note(struct pge_buf *log, const void *bytes, size_t n) {
    must(pge_buf_append(log, bytes, n) == 0);
}

static int drain(struct pge_resp *r, struct pge_buf *log, int is_pausing) {
    const struct pge_resp_reply *reply;
    int status;
    while ((status = pge_resp_next(r, &reply)) == 1) {
        must(reply->count <= PGE_RESP_ITEMS);
        note(log, &reply->is_array, sizeof reply->is_array);
        size_t total = 0;
        for (unsigned i = 0; i < reply->count; i++) {
            const struct pge_resp_item *item = &reply->items[i];
            note(log, &item->kind, sizeof item->kind);
            note(log, &item->number, sizeof item->number);
            note(log, item->text.p, item->text.n);
            total += item->text.n;
        }
        must(total <= r->max_bytes);
        if (is_pausing)
            must(pge_resp_park(r) == 0);
    }
    if (status < 0) {
        must(r->error[0] != '\0');
        must(pge_resp_next(r, &reply) == status);
        note(log, &status, sizeof status);
    }
    return status;
}

/* Reads of sizes that follow from seed; 0: everything at once. */
static void run(const char *data, size_t n, size_t max_bytes, uint32_t seed, int is_pausing,
                struct pge_buf *log) {
    struct pge_resp r;
    int status = 0;
    must(pge_resp_init(&r, max_bytes) == 0);
    for (size_t at = 0; at < n && status >= 0;) {
        size_t len = seed ? 1 + (seed >> 8) % 11 : n;
        len = len > n - at ? n - at : len;
        char *lent = malloc(len);
        memcpy(lent, data + at, len);
        pge_resp_feed(&r, lent, len);
        status = drain(&r, log, is_pausing);
        free(lent);
        at += len;
        seed = seed ? seed * 1664525u + 1013904223u : 0;
    }
    pge_resp_deinit(&r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 4)
        return 0;
    const char *stream = (const char *)data + 4;
    size_t n = size - 4, max_bytes = data[0] < 128 ? data[0] : 100000;
    uint32_t seed = 1u + data[1] + 256u * data[2] + 65536u * data[3];
    struct pge_buf whole = {0};
    run(stream, n, max_bytes, 0, 0, &whole);
    for (int way = 0; way < 3; way++) {
        struct pge_buf cut = {0};
        run(stream, n, max_bytes, way == 2 ? 0 : seed, way > 0, &cut);
        must(pge_buf_len(&cut) == pge_buf_len(&whole));
        must(pge_buf_len(&cut) == 0 ||
             memcmp(pge_buf_head(&cut), pge_buf_head(&whole), pge_buf_len(&cut)) == 0);
        pge_buf_deinit(&cut);
    }
    pge_buf_deinit(&whole);
    return 0;
}
