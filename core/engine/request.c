/* request.c - the table of requests, and the replies to them: held to the end of the turn, sent,
 * refused. */
#include <stdio.h>
#include <uv.h>

#include "base/alloc.h"
#include "engine/server.h"

/* ---- requests ---- */

static int grow(struct pge_server *server) {
    if (server->chunk_count * PGE_REQUEST_CHUNK >= PGE_REQUEST_SLOTS)
        return UV_ENOBUFS;
    struct pge_request **chunks =
        pge_realloc(server->chunks, (server->chunk_count + 1) * sizeof *chunks);
    if (!chunks)
        return UV_ENOMEM;
    server->chunks = chunks;
    struct pge_request *chunk = pge_calloc(PGE_REQUEST_CHUNK, sizeof *chunk);
    if (!chunk)
        return UV_ENOMEM;
    chunks[server->chunk_count] = chunk;
    for (unsigned i = 0; i < PGE_REQUEST_CHUNK; i++) {
        chunk[i].slot = server->chunk_count * PGE_REQUEST_CHUNK + i;
        pge_list_init(&chunk[i].held_node);
        pge_list_push(&server->free_requests, &chunk[i].node);
    }
    server->chunk_count++;
    return 0;
}

struct pge_request *pge_request_acquire(struct pge_peer *peer, struct pge_span id,
                                        struct pge_span reply_to) {
    struct pge_server *server = peer->server;
    if (pge_list_is_empty(&server->free_requests) && grow(server) < 0)
        return NULL;
    struct pge_request *request =
        container_of(server->free_requests.next, struct pge_request, node);
    if (pge_buf_append(&request->id, id.p, id.n) < 0)
        return NULL;
    if (reply_to.n && pge_buf_append(&request->reply_to, reply_to.p, reply_to.n) < 0) {
        pge_buf_clear(&request->id);
        return NULL;
    }
    pge_list_remove(&request->node);
    pge_list_push(&peer->requests, &request->node);
    request->peer = peer;
    request->user = NULL;
    request->generation++;
    peer->pending++;
    server->pending++;
    return request;
}

void pge_request_release(struct pge_request *request) {
    struct pge_peer *peer = request->peer;
    struct pge_server *server = peer->server;
    pge_list_remove(&request->node);
    pge_list_remove(&request->held_node);
    pge_list_push(&server->free_requests, &request->node);
    pge_buf_clear(&request->id);
    pge_buf_trim(&request->id, 64);
    pge_buf_clear(&request->reply_to);
    pge_buf_trim(&request->reply_to, 256);
    pge_buf_clear(&request->held);
    pge_buf_trim(&request->held, 4096);
    request->has_held = request->wants_verdict = false;
    request->peer = NULL;
    peer->pending--;
    server->pending--;
    if (peer->pending == 0 && !peer->is_closing && (peer->is_half_closed || server->is_draining))
        pge_peer_finish(peer);
}

double pge_request_handle(const struct pge_request *request) {
    return (double)request->generation * PGE_REQUEST_SLOTS + request->slot;
}

struct pge_request *pge_server_request(struct pge_server *server, double handle) {
    if (!(handle >= 0 && handle < 0x1p52))
        return NULL;
    uint64_t bits = (uint64_t)handle;
    uint32_t slot = (uint32_t)(bits % PGE_REQUEST_SLOTS);
    if (slot / PGE_REQUEST_CHUNK >= server->chunk_count)
        return NULL;
    struct pge_request *request =
        &server->chunks[slot / PGE_REQUEST_CHUNK][slot % PGE_REQUEST_CHUNK];
    bool same = request->peer && request->generation == bits / PGE_REQUEST_SLOTS;
    return same ? request : NULL;
}

void **pge_request_user(struct pge_request *request) {
    return &request->user;
}

struct pge_peer *pge_request_peer(const struct pge_request *request) {
    return request->peer;
}

/* ---- replies ---- */

static int put(struct pge_request *request, enum pge_reply kind, const struct pge_payload *body) {
    struct pge_peer *peer = request->peer;
    struct pge_server *server = peer->server;
    const struct pge_transport *transport = server->options.transport;
    if (peer->is_closing)
        return 0; /* nobody reads it; on_gone was or will be told */
    int status = transport->peer_reply(peer, request, kind, body);
    if (status == UV_EPIPE)
        return 0; /* as above: the connection has broken, and is about to be lost */
    if (status == UV_ENOMEM) {
        pge_peer_lost(peer, PGE_OVERLOADED, "out of memory");
        return status;
    }
    if (status < 0)
        return status;
    size_t queued = transport->peer_queued(peer);
    if (queued > server->options.max_queued_bytes) {
        char text[160];
        snprintf(text, sizeof text,
                 "The remote peer is not reading its responses: %zu byte(s) are queued for it, "
                 "which exceeds the maximum allowed %zu",
                 queued, server->options.max_queued_bytes);
        pge_peer_lost(peer, PGE_OVERLOADED, text);
        return UV_ENOMEM;
    }
    if (queued > server->options.pause_queued_bytes && !peer->is_paused) {
        peer->is_paused = true;
        transport->peer_read(peer, false);
        pge_peer_watch_writing(peer);
    }
    return 0;
}

/* Sends what is held, as kind. Returns as pge_request_reply. */
static int put_held(struct pge_request *request, enum pge_reply kind) {
    struct pge_payload body = {0};
    if (!request->held_is_absent)
        body.json = (struct pge_span){pge_buf_head(&request->held), pge_buf_len(&request->held)};
    request->has_held = false;
    pge_list_remove(&request->held_node);
    int status = put(request, kind, &body);
    pge_buf_clear(&request->held);
    return status;
}

static const char too_large[] = "the response is too large for the peer";

/* The owner, who has gone on, learns that the request has ended: it must not answer it any more. */
static void flush_held(void *arg) {
    struct pge_request *request = arg;
    struct pge_peer *peer = request->peer;
    struct pge_server *server = peer->server;
    uint32_t generation = request->generation;
    int status = put_held(request, PGE_REPLY_VALUE);
    if (status == 0 || status == UV_ENOMEM)
        return;
    server->events->on_fault(server, peer, PGE_FRAME_TOO_LARGE, too_large);
    if (request->peer == peer && request->generation == generation)
        server->events->on_gone(server, request);
    if (request->peer == peer && request->generation == generation)
        pge_request_fail(request, PGE_FRAME_TOO_LARGE, too_large);
}

void pge_server_flush_held(struct pge_defer *defer) {
    struct pge_server *server = container_of(defer, struct pge_server, flush_held);
    struct pge_engine *engine = server->engine;
    while (!pge_list_is_empty(&server->holding))
        engine->enter(engine, flush_held,
                      container_of(server->holding.next, struct pge_request, held_node));
}

static int hold(struct pge_request *request, const struct pge_payload *body) {
    struct pge_server *server = request->peer->server;
    request->held_is_absent = !pge_payload_is_set(body);
    if (!request->held_is_absent) {
        int status = pge_payload_write(body, &request->held);
        if (status < 0) {
            pge_buf_clear(&request->held);
            return status;
        }
    }
    request->has_held = true;
    pge_list_push(&server->holding, &request->held_node);
    return pge_loop_defer(server->engine->loop, &server->flush_held, PGE_SOON);
}

int pge_request_reply(struct pge_request *request, enum pge_reply kind,
                      const struct pge_payload *body) {
    if (request->has_held) {
        bool merge = kind == PGE_REPLY_END;
        enum pge_reply last = request->held_is_absent ? PGE_REPLY_END : PGE_REPLY_LAST;
        int held = put_held(request, merge ? last : PGE_REPLY_VALUE);
        if (held < 0 && kind == PGE_REPLY_VALUE)
            return held;
        if (held == UV_ENOMEM)
            return 0; /* the peer is cut, and the request was to end anyhow */
        if (held < 0) {
            pge_request_fail(request, PGE_FRAME_TOO_LARGE, too_large);
            return 0;
        }
        if (merge) {
            pge_request_release(request);
            return 0;
        }
    }
    if (kind == PGE_REPLY_VALUE)
        return hold(request, body);
    int status = put(request, kind, body);
    if (status == 0)
        pge_request_release(request);
    return status;
}

void pge_request_no_handler(struct pge_request *request) {
    struct pge_peer *peer = request->peer;
    if (request->wants_verdict)
        pge_request_settle(request, PGE_NACK);
    else if (!peer->is_closing &&
             peer->server->options.transport->peer_no_handler(peer, request) < 0)
        pge_peer_lost(peer, PGE_OVERLOADED, "out of memory");
    else
        pge_request_release(request);
}

void pge_request_settle(struct pge_request *request, enum pge_verdict verdict) {
    struct pge_peer *peer = request->peer;
    if (!peer->is_closing)
        peer->server->options.transport->broker->peer_settle(peer, request, verdict);
    pge_request_release(request);
}

void pge_request_fail(struct pge_request *request, enum pge_fault fault, const char *message) {
    if (request->wants_verdict) {
        pge_request_settle(request, PGE_NACK);
        return;
    }
    struct pge_buf *text = &request->peer->server->engine->scratch;
    pge_buf_clear(text);
    const char *name = pge_fault_name(fault);
    int status = PGE_BUF_LIT(text, "{\"status\":\"error\",\"code\":\"");
    if (status == 0)
        status = pge_buf_append(text, name, strlen(name));
    if (status == 0)
        status = PGE_BUF_LIT(text, "\",\"message\":");
    if (status == 0 && pge_json_quote(text, message, strlen(message)) < 0)
        status = PGE_BUF_LIT(text, "\"\"");
    if (status == 0)
        status = PGE_BUF_LIT(text, "}");
    struct pge_payload body = {.json = {pge_buf_head(text), pge_buf_len(text)}};
    if (status < 0)
        pge_peer_lost(request->peer, PGE_OVERLOADED, "out of memory");
    else if (pge_request_reply(request, PGE_REPLY_ERROR, &body) == UV_EMSGSIZE)
        pge_request_reply(request, PGE_REPLY_END, &(struct pge_payload){0});
}
