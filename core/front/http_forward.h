/*
 * http_forward.h - an HTTP request answered by a client's reply: raw body in, raw reply out, no
 * Lua. CONTRACT: many values -> the last; none -> 204; failures by "Out of an HTTP handler".
 */
#ifndef PGE_FRONT_HTTP_FORWARD_H
#define PGE_FRONT_HTTP_FORWARD_H

#include "engine/client.h"
#include "front/http_server.h"

struct pge_http_forward {
    struct pge_http_request *req;          /* borrowed until it is answered */
    struct pge_call *call;                 /* in flight, else NULL */
    const struct pge_http_header *headers; /* borrowed: added to the answer */
    unsigned header_count;
    struct pge_buf last; /* the newest value of a call that may bring more */
    bool has_last;
    /* The request was answered. fault PGE_FAULT_NONE: well; else message is for the log. May be
     * NULL. */
    void (*on_done)(struct pge_http_forward *forward, enum pge_fault fault, const char *message);
};

/* The body, "{}" when empty, must have been checked to be JSON. Zeroed forward with req, headers
 * and on_done set. The answer may come before it returns. */
void pge_http_forward_start(struct pge_http_forward *forward, struct pge_client *client,
                            struct pge_span pattern, uint64_t timeout_ms);
/* The request was aborted: cancels the call; on_done does not come. */
void pge_http_forward_abort(struct pge_http_forward *forward);

/* The status a failure is answered with. */
int pge_http_fault_status(enum pge_fault fault);

#endif
