/* http_forward.c - HTTP request in, call out, reply bytes back. */
#include "front/http_forward.h"

#include <stdio.h>

static const char no_handler[] =
    "\"There is no matching message handler defined in the remote service.\"";

enum { KEEP_BYTES = 4096 };

int pge_http_fault_status(enum pge_fault fault) {
    switch (fault) {
    case PGE_TIMEOUT:
        return 504;
    case PGE_CONNECT_FAILED:
    case PGE_CONNECTION_CLOSED:
    case PGE_BAD_FRAME:
        return 502;
    case PGE_OVERLOADED:
        return 503;
    case PGE_NO_HANDLER:
        return 404;
    case PGE_INVALID_MESSAGE:
        return 400;
    default:
        return 500;
    }
}

static void done(struct pge_http_forward *f, enum pge_fault fault, const char *message) {
    f->has_last = false;
    pge_buf_clear(&f->last);
    pge_buf_trim(&f->last, KEEP_BYTES);
    if (f->on_done)
        f->on_done(f, fault, message);
}

static void answer(struct pge_http_forward *f, struct pge_span body) {
    if (!body.p)
        body = (struct pge_span){"null", 4};
    pge_http_reply_as(f->req, 200, "application/json", f->headers, f->header_count, body);
    done(f, PGE_FAULT_NONE, NULL);
}

static void answer_empty(struct pge_http_forward *f) {
    pge_http_reply(f->req, 204, f->headers, f->header_count, (struct pge_span){0});
    done(f, PGE_FAULT_NONE, NULL);
}

static void answer_fault(struct pge_http_forward *f, enum pge_fault fault, const char *message) {
    pge_http_reply_problem(f->req, pge_http_fault_status(fault), (struct pge_span){0},
                           fault == PGE_OVERLOADED ? 1 : -1, f->headers, f->header_count);
    done(f, fault, message);
}

static void answer_error(struct pge_http_forward *f, struct pge_span err) {
    char text[256];
    bool nobody = err.n == sizeof no_handler - 1 && memcmp(err.p, no_handler, err.n) == 0;
    snprintf(text, sizeof text, "%.*s", (int)(err.n < 200 ? err.n : 200), err.p);
    answer_fault(f, nobody ? PGE_NO_HANDLER : PGE_REMOTE, text);
}

static void keep(struct pge_http_forward *f, struct pge_call *call, struct pge_span body) {
    if (!body.p)
        body = (struct pge_span){"null", 4};
    pge_buf_clear(&f->last);
    f->has_last = pge_buf_append(&f->last, body.p, body.n) == 0;
    if (f->has_last)
        return;
    pge_call_cancel(call);
    f->call = NULL;
    answer_fault(f, PGE_OVERLOADED, "out of memory");
}

static void on_packet(struct pge_call *call, enum pge_reply kind, struct pge_span body) {
    struct pge_http_forward *f = pge_call_arg(call);
    if (kind == PGE_REPLY_VALUE) {
        keep(f, call, body);
        return;
    }
    f->call = NULL;
    if (kind == PGE_REPLY_ERROR)
        answer_error(f, body);
    else if (kind != PGE_REPLY_END)
        answer(f, body);
    else if (f->has_last)
        answer(f, (struct pge_span){pge_buf_head(&f->last), pge_buf_len(&f->last)});
    else
        answer_empty(f);
}

static void on_fail(struct pge_call *call, enum pge_fault fault, const char *message) {
    struct pge_http_forward *f = pge_call_arg(call);
    f->call = NULL;
    answer_fault(f, fault, message);
}

static const struct pge_call_events events = {on_packet, on_fail};

void pge_http_forward_start(struct pge_http_forward *f, struct pge_client *client,
                            struct pge_span pattern, uint64_t timeout_ms) {
    const struct pge_http_message *request = pge_http_request_message(f->req);
    struct pge_message m = {.pattern = pattern, .data.json = {"{}", 2}};
    if (request->body.n)
        m.data.json = request->body;
    struct pge_call_options options = {.timeout_ms = timeout_ms, .events = &events, .arg = f};
    struct pge_failure why;
    pge_http_request_lend(f->req, true);
    f->call = pge_client_send(client, &m, &options, &why);
    pge_http_request_lend(f->req, false);
    if (!f->call)
        answer_fault(f, why.fault, why.message);
}

void pge_http_forward_abort(struct pge_http_forward *f) {
    if (!f->call)
        return;
    pge_call_cancel(f->call);
    f->call = NULL;
    f->has_last = false;
    pge_buf_clear(&f->last);
}
