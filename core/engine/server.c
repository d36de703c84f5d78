/* server.c - peers, requests and their replies. */
#include "engine/server.h"

#include <stdio.h>
#include <uv.h>

#include "base/alloc.h"
#include "net/tls.h"

/*
 * A peer that closed its sending half may wait for answers this long (drain's default), and is asked this
 * often whether it is still there: a peer that closed altogether looks the same until something is written.
 */
enum { HALF_CLOSED_MS = 30000, PROBE_MS = 1000 };

void pge_server_options_deinit(struct pge_server_options *options) {
    pge_free(options->host);
    pge_free(options->path);
    pge_free(options->name);
    pge_tls_unref(options->tls);
    *options = (struct pge_server_options){0};
}

static void on_flush_held(struct pge_defer *defer);
static void on_tell_lost(struct pge_defer *defer);
static void on_closed_turn(struct pge_defer *defer);

/* "listen EADDRINUSE 127.0.0.1:3000", as Node words it (TCP-24). */
static void explain_listen(const struct pge_server_options *o, int status,
                           struct pge_failure *why) {
    why->fault = PGE_LISTEN_FAILED;
    if (o->name)
        snprintf(why->message, sizeof why->message, "listen %s local:%s", uv_err_name(status), o->name);
    else if (o->path)
        snprintf(why->message, sizeof why->message, "listen %s %s", uv_err_name(status), o->path);
    else
        snprintf(why->message, sizeof why->message, "listen %s %s:%u", uv_err_name(status),
                 o->host ? o->host : "", o->port);
}

struct pge_server *pge_server_new(struct pge_engine *engine, struct pge_server_options *options,
                                  const struct pge_server_events *events, void *owner,
                                  struct pge_failure *why) {
    struct pge_server *server = pge_calloc(1, sizeof *server);
    if (!server) {
        explain_listen(options, UV_ENOMEM, why);
        pge_server_options_deinit(options);
        return NULL;
    }
    server->engine = engine;
    server->options = *options;
    *options = (struct pge_server_options){0};
    server->events = events;
    server->owner = owner;
    pge_list_init(&server->peers);
    pge_list_init(&server->free_requests);
    pge_list_init(&server->holding);
    pge_list_init(&server->lost);
    pge_defer_init(&server->flush_held, on_flush_held);
    pge_defer_init(&server->tell_lost, on_tell_lost);
    pge_defer_init(&server->closed, on_closed_turn);
    int status = pge_loop_hold(engine->loop); /* so that what it defers cannot fail */
    if (status == 0) {
        status = server->options.transport->serve(server);
        if (status < 0)
            pge_loop_release(engine->loop);
    }
    if (status < 0) {
        explain_listen(&server->options, status, why);
        pge_server_options_deinit(&server->options);
        pge_free(server);
        return NULL;
    }
    server->is_serving = true;
    pge_list_push(&engine->servers, &server->node);
    return server;
}

void *pge_server_owner(const struct pge_server *server) {
    return server->owner;
}

void pge_server_address(const struct pge_server *server, char *out, size_t size) {
    server->options.transport->address(server, out, size);
}

/* ---- the end of a server ---- */

static void free_server(struct pge_server *server) {
    for (unsigned c = 0; c < server->chunk_count; c++) {
        for (unsigned i = 0; i < PGE_REQUEST_CHUNK; i++) {
            pge_buf_deinit(&server->chunks[c][i].id);
            pge_buf_deinit(&server->chunks[c][i].held);
        }
        pge_free(server->chunks[c]);
    }
    pge_free(server->chunks);
    pge_defer_cancel(&server->flush_held);
    pge_defer_cancel(&server->tell_lost);
    pge_list_remove(&server->node);
    pge_server_options_deinit(&server->options);
    pge_loop_release(server->engine->loop);
    pge_free(server);
}

static void finish(void *arg) {
    struct pge_server *server = arg;
    server->events->on_closed(server);
    free_server(server);
}

static void on_closed_turn(struct pge_defer *defer) {
    struct pge_server *server = container_of(defer, struct pge_server, closed);
    server->engine->enter(server->engine, finish, server);
}

static void maybe_closed(struct pge_server *server) {
    bool over = server->is_closing || server->is_draining;
    if (over && server->is_stopped && server->peer_count == 0)
        pge_loop_defer(server->engine->loop, &server->closed, PGE_SOON);
}

static void unserve(struct pge_server *server) {
    if (!server->is_serving)
        return;
    server->is_serving = false;
    server->options.transport->unserve(server);
}

void pge_server_stopped(struct pge_server *server) {
    server->is_stopped = true;
    maybe_closed(server);
}

/* From now on the peer has to read something within the write timeout. */
static void watch_writing(struct pge_peer *peer) {
    struct pge_server *server = peer->server;
    peer->taken = server->options.transport->peer_taken(peer);
    pge_loop_timer(server->engine->loop, &peer->stall, server->options.write_timeout_ms);
}

/* Closes a peer that is owed nothing, after its output is written; the stall timer bounds the wait. */
static void close_peer(struct pge_peer *peer) {
    struct pge_server *server = peer->server;
    peer->is_closing = true;
    watch_writing(peer);
    server->options.transport->peer_close(peer, true);
}

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

static struct pge_request *acquire(struct pge_peer *peer, struct pge_span id) {
    struct pge_server *server = peer->server;
    if (pge_list_is_empty(&server->free_requests) && grow(server) < 0)
        return NULL;
    struct pge_request *request =
        container_of(server->free_requests.next, struct pge_request, node);
    if (pge_buf_append(&request->id, id.p, id.n) < 0)
        return NULL;
    pge_list_remove(&request->node);
    pge_list_push(&peer->requests, &request->node);
    request->peer = peer;
    request->user = NULL;
    request->generation++;
    peer->pending++;
    server->pending++;
    return request;
}

static void release(struct pge_request *request) {
    struct pge_peer *peer = request->peer;
    struct pge_server *server = peer->server;
    pge_list_remove(&request->node);
    pge_list_remove(&request->held_node);
    pge_list_push(&server->free_requests, &request->node);
    pge_buf_clear(&request->id);
    pge_buf_trim(&request->id, 64);
    pge_buf_clear(&request->held);
    pge_buf_trim(&request->held, 4096);
    request->has_held = false;
    request->peer = NULL;
    peer->pending--;
    server->pending--;
    if (peer->pending == 0 && !peer->is_closing && (peer->is_half_closed || server->is_draining))
        close_peer(peer);
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

struct pge_server *pge_request_server(const struct pge_request *request) {
    return request->peer->server;
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
    struct pge_span id = {pge_buf_head(&request->id), pge_buf_len(&request->id)};
    int status = transport->peer_reply(peer, id, kind, body);
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
        watch_writing(peer);
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

static void on_flush_held(struct pge_defer *defer) {
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
            release(request);
            return 0;
        }
    }
    if (kind == PGE_REPLY_VALUE)
        return hold(request, body);
    int status = put(request, kind, body);
    if (status == 0)
        release(request);
    return status;
}

void pge_request_no_handler(struct pge_request *request) {
    struct pge_peer *peer = request->peer;
    struct pge_span id = {pge_buf_head(&request->id), pge_buf_len(&request->id)};
    if (peer->server->options.transport->peer_no_handler(peer, id) < 0)
        pge_peer_lost(peer, PGE_OVERLOADED, "out of memory");
    else
        release(request);
}

void pge_request_fail(struct pge_request *request, enum pge_fault fault, const char *message) {
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

/* ---- peers ---- */

static void on_stall(struct pge_timer *timer) {
    struct pge_peer *peer = container_of(timer, struct pge_peer, stall);
    struct pge_loop *loop = peer->server->engine->loop;
    if (peer->is_half_closed && !peer->is_closing && pge_loop_now(loop) < peer->leave_at) {
        pge_loop_timer(loop, &peer->stall, PROBE_MS);
        peer->server->options.transport->peer_probe(peer);
        return;
    }
    bool is_writing = peer->is_paused || peer->is_closing;
    if (is_writing && peer->server->options.transport->peer_taken(peer) > peer->taken) {
        watch_writing(peer); /* slow, but it reads */
        return;
    }
    pge_peer_lost(peer, PGE_TIMEOUT,
                  peer->is_half_closed ? "The remote peer left before its responses were ready"
                                       : "The remote peer is not reading its responses");
}

static void check_full(struct pge_server *server) {
    bool full = server->peer_count >= server->options.max_peers;
    if (full == server->is_full || !server->is_serving)
        return;
    server->is_full = full;
    server->options.transport->pause(server, full);
}

struct pge_peer *pge_peer_new(struct pge_server *server) {
    if (!server->is_serving)
        return NULL;
    struct pge_peer *peer = pge_calloc(1, server->options.transport->peer_size);
    if (!peer)
        return NULL;
    peer->server = server;
    pge_list_init(&peer->requests);
    pge_list_init(&peer->lost);
    pge_timer_init(&peer->stall, on_stall);
    pge_list_push(&server->peers, &peer->node);
    server->peer_count++;
    check_full(server);
    return peer;
}

void pge_peer_name(const struct pge_peer *peer, char *out, size_t size) {
    if (peer->name[0])
        snprintf(out, size, "%s", peer->name);
    else
        peer->server->options.transport->peer_name(peer, out, size);
}

int pge_peer_packet(struct pge_peer *peer, struct pge_span packet) {
    struct pge_server *server = peer->server;
    struct pge_envelope e;
    int status = pge_envelope_scan(&server->engine->scan, packet.p, packet.n, &e);
    if (status < 0)
        return status;
    struct pge_inbound_message m = {.peer = peer, .pattern = e.pattern, .data = e.data};
    m.metadata = e.metadata;
    switch (pge_envelope_inbound(&e)) {
    case PGE_INBOUND_FOREIGN:
        m.pattern = m.metadata = (struct pge_span){0};
        m.data = packet;
        break;
    case PGE_INBOUND_EVENT:
        break;
    case PGE_INBOUND_REQUEST:
        m.request = acquire(peer, e.id);
        if (!m.request)
            return UV_ENOMEM;
        if (server->pending > server->options.max_requests) {
            pge_request_fail(m.request, PGE_OVERLOADED, "too many requests in progress");
            return 0;
        }
        break;
    }
    server->events->on_message(server, &m);
    return 0;
}

void pge_peer_half_closed(struct pge_peer *peer) {
    peer->is_half_closed = true;
    if (peer->is_closing)
        return;
    if (peer->pending) {
        struct pge_loop *loop = peer->server->engine->loop;
        peer->leave_at = pge_loop_now(loop) + HALF_CLOSED_MS;
        pge_loop_timer(loop, &peer->stall, PROBE_MS);
        return;
    }
    close_peer(peer);
}

void pge_peer_drained(struct pge_peer *peer) {
    if (peer->is_closing || !peer->is_paused)
        return;
    peer->is_paused = false;
    struct pge_loop *loop = peer->server->engine->loop;
    if (peer->is_half_closed)
        pge_loop_timer(loop, &peer->stall, PROBE_MS);
    else
        pge_loop_timer_stop(loop, &peer->stall);
    peer->server->options.transport->peer_read(peer, true);
}

static void tell_lost(void *arg) {
    struct pge_peer *peer = arg;
    struct pge_server *server = peer->server;
    pge_list_remove(&peer->lost);
    if (peer->fault != PGE_FAULT_NONE)
        server->events->on_fault(server, peer, peer->fault, peer->why);
    while (!pge_list_is_empty(&peer->requests)) {
        struct pge_request *request = container_of(peer->requests.next, struct pge_request, node);
        server->events->on_gone(server, request);
        if (request->peer == peer)
            release(request);
    }
}

static void on_tell_lost(struct pge_defer *defer) {
    struct pge_server *server = container_of(defer, struct pge_server, tell_lost);
    while (!pge_list_is_empty(&server->lost))
        server->engine->enter(server->engine, tell_lost,
                              container_of(server->lost.next, struct pge_peer, lost));
}

/* The owner is told at the end of the turn: a reply that breaks a peer must not call back into it. */
void pge_peer_lost(struct pge_peer *peer, enum pge_fault fault, const char *message) {
    struct pge_server *server = peer->server;
    if (!peer->is_closing) {
        peer->is_closing = true;
        peer->fault = fault;
        snprintf(peer->why, sizeof peer->why, "%s", message);
        server->options.transport->peer_name(peer, peer->name, sizeof peer->name);
        pge_list_push(&server->lost, &peer->lost);
        pge_loop_defer(server->engine->loop, &server->tell_lost, PGE_SOON);
    }
    pge_loop_timer_stop(server->engine->loop, &peer->stall);
    server->options.transport->peer_close(peer, false);
}

void pge_peer_closed(struct pge_peer *peer) {
    struct pge_server *server = peer->server;
    if (!pge_list_is_empty(&peer->lost))
        server->engine->enter(server->engine, tell_lost, peer);
    pge_loop_timer_stop(server->engine->loop, &peer->stall);
    pge_list_remove(&peer->node);
    pge_free(peer);
    server->peer_count--;
    check_full(server);
    maybe_closed(server);
}

/* ---- drain and close ---- */

void pge_server_drain(struct pge_server *server) {
    if (server->is_draining || server->is_closing)
        return;
    server->is_draining = true;
    unserve(server);
    for (struct pge_list *n = server->peers.next, *next; n != &server->peers; n = next) {
        next = n->next;
        struct pge_peer *peer = container_of(n, struct pge_peer, node);
        if (!peer->is_closing && !peer->pending)
            close_peer(peer);
    }
    maybe_closed(server);
}

void pge_server_close(struct pge_server *server) {
    if (server->is_closing)
        return;
    server->is_closing = true;
    unserve(server);
    for (struct pge_list *n = server->peers.next, *next; n != &server->peers; n = next) {
        next = n->next;
        pge_peer_lost(container_of(n, struct pge_peer, node), PGE_FAULT_NONE, "");
    }
    maybe_closed(server);
}
