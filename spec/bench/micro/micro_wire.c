/* micro_wire.c - frames of Nest's TCP, Redis and NATS, both ways. */
#include "micro.h"

#include "codec/nats.h"
#include "codec/nest_frame.h"
#include "codec/resp.h"

enum { MAX = 1 << 20 };

/* What stands between the parts of a message, as texts of literals. */
#define REQUEST_LEN "165"
_Static_assert(sizeof MICRO_REQUEST - 1 == 165, "the lengths below are the request's");

static const char frame_bytes[] = REQUEST_LEN "#" MICRO_REQUEST;
static const char push_bytes[] =
    "*3\r\n$7\r\nmessage\r\n$6\r\ncharge\r\n$" REQUEST_LEN "\r\n" MICRO_REQUEST "\r\n";
static const char publish_bytes[] =
    "*3\r\n$7\r\nPUBLISH\r\n$6\r\ncharge\r\n$" REQUEST_LEN "\r\n" MICRO_REQUEST "\r\n";
static const char subscribe_bytes[] = "*2\r\n$9\r\nSUBSCRIBE\r\n$12\r\ncharge.reply\r\n";
static const char msg_bytes[] =
    "MSG orders.charge 7 _INBOX.5c1e02a7.42 " REQUEST_LEN "\r\n" MICRO_REQUEST "\r\n";
static const char pub_bytes[] =
    "PUB orders.charge _INBOX.5c1e02a7.42 " REQUEST_LEN "\r\n" MICRO_REQUEST "\r\n";

static struct pge_nest_frame frame;
static struct pge_resp resp;
static struct pge_nats nats;

static size_t append_request(void) {
    return pge_buf_append(&micro_out, MICRO_REQUEST, sizeof MICRO_REQUEST - 1) == 0;
}

/* ---- nest_frame.h ---- */

static void set_up_frame(void) {
    pge_nest_frame_init(&frame, MAX);
}

static size_t frame_next(void) {
    struct pge_span payload, none;
    pge_nest_frame_feed(&frame, frame_bytes, sizeof frame_bytes - 1);
    if (pge_nest_frame_next(&frame, &payload) != 1 || pge_nest_frame_next(&frame, &none) != 0)
        return 0;
    return payload.n;
}

static size_t frame_write(void) {
    size_t mark;
    pge_buf_clear(&micro_out);
    if (pge_nest_frame_begin(&micro_out, &mark) != 0 || !append_request())
        return 0;
    return pge_nest_frame_end(&micro_out, mark, SIZE_MAX) == 0 ? pge_buf_len(&micro_out) : 0;
}

/* ---- resp.h ---- */

static void set_up_resp(void) {
    pge_resp_deinit(&resp); /* all-zero at first */
    int status = pge_resp_init(&resp, MAX);
    assert(status == 0);
    (void)status;
}

static size_t resp_next(void) {
    const struct pge_resp_reply *reply;
    pge_resp_feed(&resp, push_bytes, sizeof push_bytes - 1);
    if (pge_resp_next(&resp, &reply) != 1 || reply->count != 3)
        return 0;
    size_t n = reply->items[2].text.n;
    return pge_resp_next(&resp, &reply) == 0 ? n : 0;
}

static size_t resp_publish(void) {
    struct pge_resp_open open;
    struct pge_span name = micro_span("charge"), suffix = micro_span("");
    pge_buf_clear(&micro_out);
    if (pge_resp_publish_open(&micro_out, name, suffix, &open) != 0 || !append_request())
        return 0;
    return pge_resp_publish_close(&micro_out, &open) == 0 ? pge_buf_len(&micro_out) : 0;
}

static size_t resp_command(void) {
    struct pge_span args[] = {pge_resp_arg("SUBSCRIBE"), pge_resp_arg("charge.reply")};
    pge_buf_clear(&micro_out);
    return pge_resp_command(&micro_out, args, 2) == 0 ? pge_buf_len(&micro_out) : 0;
}

/* ---- nats.h ---- */

static void set_up_nats(void) {
    pge_nats_init(&nats, MAX);
}

static size_t nats_next(void) {
    struct pge_nats_event event, none;
    pge_nats_feed(&nats, msg_bytes, sizeof msg_bytes - 1);
    if (pge_nats_next(&nats, &event) != 1 || event.kind != PGE_NATS_MSG || event.sid != 7)
        return 0;
    size_t n = event.payload.n;
    return pge_nats_next(&nats, &none) == 0 ? n : 0;
}

static size_t nats_publish(void) {
    struct pge_nats_pub pub;
    struct pge_span subject = micro_span("orders.charge");
    struct pge_span reply_to = micro_span("_INBOX.5c1e02a7.42");
    pge_buf_clear(&micro_out);
    if (pge_nats_pub_begin(&micro_out, &pub, subject, reply_to, false) != 0 || !append_request())
        return 0;
    return pge_nats_pub_end(&micro_out, &pub) == 0 ? pge_buf_len(&micro_out) : 0;
}

static size_t nats_headers(void) {
    struct pge_nats_headers it;
    struct pge_span name, value;
    size_t n = 0;
    if (pge_nats_headers_begin(&it, micro_span("NATS/1.0\r\ntrace: 5c1e02a7\r\nvia: gw\r\n\r\n")))
        return 0;
    while (pge_nats_headers_next(&it, &name, &value))
        n += value.n;
    return n;
}

static size_t nats_match(void) {
    return pge_nats_subject_match(micro_span("orders.*.charge"), micro_span("orders.eu.charge"));
}

const struct micro_op micro_wire[] = {
    {"nest frame read", set_up_frame, frame_next, 165, NULL},
    {"nest frame write", NULL, frame_write, MICRO_WRITES(frame_bytes)},
    {"resp push read", set_up_resp, resp_next, 165, NULL},
    {"resp publish write", NULL, resp_publish, MICRO_WRITES(publish_bytes)},
    {"resp command write", NULL, resp_command, MICRO_WRITES(subscribe_bytes)},
    {"nats msg read", set_up_nats, nats_next, 165, NULL},
    {"nats pub write", NULL, nats_publish, MICRO_WRITES(pub_bytes)},
    {"nats headers read", NULL, nats_headers, 10, NULL},
    {"nats subject match", NULL, nats_match, 1, NULL},
    {0},
};
