/* relay.c - request in, call out, packets back. The call never outlives its request: on_gone ends
 * it. */
#include "engine/relay.h"

#include <uv.h>

static void on_packet(struct pge_call *call, enum pge_reply kind, struct pge_span body) {
    struct pge_request *request = pge_call_arg(call);
    struct pge_payload payload = {.json = body};
    if (kind == PGE_REPLY_FOREIGN)
        kind = PGE_REPLY_LAST;
    if (kind != PGE_REPLY_VALUE)
        *pge_request_user(request) = NULL;
    int status = pge_request_reply(request, kind, &payload);
    if (status == 0 || status == UV_ENOMEM)
        return;
    if (kind == PGE_REPLY_VALUE) {
        *pge_request_user(request) = NULL;
        pge_call_cancel(call);
    }
    pge_request_fail(request, PGE_FRAME_TOO_LARGE, "the response is too large for the peer");
}

static void on_fail(struct pge_call *call, enum pge_fault fault, const char *message) {
    struct pge_request *request = pge_call_arg(call);
    *pge_request_user(request) = NULL;
    if (fault ==
        PGE_NO_HANDLER) /* of a broker; where the peer says so itself it is an error packet */
        pge_request_no_handler(request);
    else
        pge_request_fail(request, fault, message);
}

static const struct pge_call_events events = {on_packet, on_fail};

void pge_relay_start(struct pge_request *request, struct pge_client *client,
                     const struct pge_message *m, uint64_t timeout_ms) {
    struct pge_call_options options = {.timeout_ms = timeout_ms, .events = &events, .arg = request};
    struct pge_failure why;
    struct pge_call *call = pge_client_send(client, m, &options, &why);
    if (call)
        *pge_request_user(request) = call;
    else
        pge_request_fail(request, why.fault, why.message);
}

bool pge_relay_gone(struct pge_request *request) {
    struct pge_call *call = *pge_request_user(request);
    if (!call)
        return false;
    *pge_request_user(request) = NULL;
    pge_call_cancel(call);
    return true;
}
