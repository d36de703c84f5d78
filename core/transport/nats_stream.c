/* nats_stream.c - JetStream: what a stream answers to an event. */
#include <stdio.h>
#include <stdlib.h>
#include <uv.h>

#include "transport/nats.h"

/* The member's value in an object of a validated text; p NULL: absent. */
struct pge_span pge_nats_member(struct pge_json_scan *scan, struct pge_span json,
                                const char *name) {
    const char *end = json.p + json.n, *p = pge_json_skip_space(json.p, end);
    size_t n = strlen(name);
    while (p < end && (*p == '{' || *p == ',')) {
        p = pge_json_skip_space(p + 1, end);
        if (p == end || *p == '}')
            break;
        struct pge_span key = {p, 0}, value;
        if (pge_json_skip(scan, p, end, &p) < 0)
            break;
        key.n = (size_t)(p - key.p);
        p = pge_json_skip_space(p, end) + 1; /* ':' */
        value.p = p = pge_json_skip_space(p, end);
        if (pge_json_skip(scan, p, end, &p) < 0)
            break;
        value.n = (size_t)(p - value.p);
        if (key.n == n + 2 && memcmp(key.p + 1, name, n) == 0)
            return value;
        p = pge_json_skip_space(p, end);
    }
    return (struct pge_span){0};
}

void pge_nats_stream_ack(struct pge_call *call, struct pge_span payload) {
    struct pge_json_scan *scan = &call->client->pool->engine->scan;
    char text[256];
    if (pge_json_check(scan, payload.p, payload.n) < 0) {
        pge_call_fail(call, PGE_BAD_FRAME, "the stream's acknowledgement is not JSON");
        return;
    }
    struct pge_span error = pge_nats_member(scan, payload, "error");
    if (!error.p && pge_nats_member(scan, payload, "stream").p) {
        pge_link_reply(call, PGE_REPLY_END, (struct pge_span){0});
        return;
    }
    struct pge_span words = error.p ? pge_nats_member(scan, error, "description") : error;
    if (words.n > 2)
        snprintf(text, sizeof text, "%.*s", (int)(words.n - 2 < 200 ? words.n - 2 : 200),
                 words.p + 1);
    else
        snprintf(text, sizeof text, "what answered is not a stream");
    pge_call_fail(call, PGE_REMOTE, text);
}
