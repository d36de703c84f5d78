/*
 * nats_fuzz.c - however a stream is cut into reads, and wherever parsing pauses, the same events
 * and the same error come out; header blocks and subjects are walked within their bytes.
 *
 * Input: limit, three bytes that place the cuts, then the stream.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codec/nats.h"

static void must(int condition) {
    if (!condition)
        abort();
}

static void note(struct pge_buf *log, const void *bytes, size_t n) {
    must(pge_buf_append(log, bytes, n) == 0);
}

static void note_span(struct pge_buf *log, struct pge_span text) {
    note(log, &text.n, sizeof(text.n));
    note(log, text.p, text.n);
}

static void note_headers(struct pge_buf *log, struct pge_span block) {
    struct pge_nats_headers it;
    struct pge_span name, value;
    if (pge_nats_headers_begin(&it, block) != 0)
        return;
    note(log, &it.status, sizeof(it.status));
    while (pge_nats_headers_next(&it, &name, &value)) {
        must(name.n > 0);
        note_span(log, name);
        note_span(log, value);
    }
}

static void note_event(struct pge_buf *log, const struct pge_nats_event *event) {
    note(log, &event->kind, sizeof(event->kind));
    note_span(log, event->text);
    if (event->kind != PGE_NATS_MSG)
        return;
    note(log, &event->sid, sizeof(event->sid));
    note_span(log, event->subject);
    note_span(log, event->reply_to);
    note_span(log, event->payload);
    if (event->headers.p)
        note_headers(log, event->headers);
    must(pge_nats_subject_check(event->subject) != 0 ||
         pge_nats_subject_match(event->subject, event->subject));
    pge_nats_subject_match(event->payload, event->subject);
    pge_nats_subject_check_sub(event->payload);
}

/* Notes all events, or one when pausing. Returns the last status. */
static int drain(struct pge_nats *f, struct pge_buf *log, int is_pausing) {
    struct pge_nats_event event;
    int status;
    while ((status = pge_nats_next(f, &event)) == 1) {
        note_event(log, &event);
        if (is_pausing)
            break;
    }
    if (status < 0) {
        must(f->error[0] != '\0');
        must(pge_nats_next(f, &event) == status);
        note(log, &status, sizeof(status));
        note(log, f->error, strlen(f->error));
    }
    return status;
}

static int feed(struct pge_nats *f, const char *data, size_t n, struct pge_buf *log,
                int is_pausing) {
    char *lent = malloc(n ? n : 1);
    memcpy(lent, data, n);
    must(pge_nats_feed(f, lent, n) == 0);
    int status = drain(f, log, is_pausing);
    if (status >= 0)
        must(pge_nats_park(f) == 0);
    free(lent);
    return status;
}

/* Reads of sizes that follow from seed; 0: everything at once. */
static void run(const char *data, size_t n, size_t max_payload, uint32_t seed, int is_pausing,
                struct pge_buf *log) {
    struct pge_nats f;
    size_t at = 0;
    int status = 0;
    pge_nats_init(&f, max_payload);
    while (at < n && status >= 0) {
        size_t len = seed ? 1 + (seed >> 8) % 11 : n;
        len = len > n - at ? n - at : len;
        status = feed(&f, data + at, len, log, is_pausing);
        at += len;
        seed = seed ? seed * 1664525u + 1013904223u : 0;
    }
    while (status > 0)
        status = drain(&f, log, is_pausing);
    size_t unread = pge_nats_unread(&f);
    must(unread <= n);
    note(log, &unread, sizeof(unread));
    pge_nats_deinit(&f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 4)
        return 0;
    const char *stream = (const char *)data + 4;
    size_t n = size - 4, max_payload = data[0] < 128 ? data[0] : 100000;
    uint32_t seed = 1u + data[1] + 256u * data[2] + 65536u * data[3];
    struct pge_buf whole = {0};
    run(stream, n, max_payload, 0, 0, &whole);
    for (int way = 0; way < 3; way++) {
        struct pge_buf cut = {0};
        run(stream, n, max_payload, way == 2 ? 0 : seed, way > 0, &cut);
        must(pge_buf_len(&cut) == pge_buf_len(&whole));
        must(memcmp(pge_buf_head(&cut), pge_buf_head(&whole), pge_buf_len(&cut)) == 0);
        pge_buf_deinit(&cut);
    }
    pge_buf_deinit(&whole);
    return 0;
}
