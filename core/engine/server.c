/* server.c - a server and its peers, from the first to the last. */
#include "engine/server.h"

#include <stdio.h>
#include <uv.h>

#include "base/alloc.h"
#include "engine/broker.h"
#include "net/tls.h"

/*
 * A peer that closed its sending half may wait for answers this long (drain's default), and is
 * asked this often whether it is still there: a peer that closed altogether looks the same until
 * something is written.
 */
enum { HALF_CLOSED_MS = 30000, PROBE_MS = 1000 };

void pge_server_options_deinit(struct pge_server_options *options) {
    for (unsigned i = 0; i < options->host_count; i++) {
        pge_free(options->hosts[i].host);
        pge_free(options->hosts[i].path);
        pge_free(options->hosts[i].server_name);
    }
    pge_settings_deinit(&options->settings);
    pge_free(options->host);
    pge_free(options->path);
    pge_free(options->name);
    pge_tls_unref(options->tls);
    *options = (struct pge_server_options){0};
}

static void on_tell_lost(struct pge_defer *defer);
static void on_closed_turn(struct pge_defer *defer);

/* "listen EADDRINUSE 127.0.0.1:3000", as Node words it (TCP-24). */
static void explain_listen(const struct pge_server_options *o, int status,
                           struct pge_failure *why) {
    why->fault = o->transport->broker ? PGE_CONNECT_FAILED : PGE_LISTEN_FAILED;
    if (o->transport->broker)
        snprintf(why->message, sizeof why->message, "connect %s", uv_err_name(status));
    else if (o->name)
        snprintf(why->message, sizeof why->message, "listen %s local:%s", uv_err_name(status),
                 o->name);
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
    pge_list_init(&server->subscriptions);
    pge_timer_init(&server->redial, NULL); /* broker.c's */
    pge_defer_init(&server->flush_held, pge_server_flush_held);
    pge_defer_init(&server->tell_lost, on_tell_lost);
    pge_defer_init(&server->closed, on_closed_turn);
    int status = pge_loop_hold(engine->loop); /* so that what it defers cannot fail */
    server->is_serving = true;
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
    server->is_ready = !server->options.transport->broker;
    pge_list_push(&engine->servers, &server->node);
    return server;
}

void *pge_server_owner(const struct pge_server *server) {
    return server->owner;
}

bool pge_server_is_ready(const struct pge_server *server) {
    return server->is_ready;
}

void pge_server_address(const struct pge_server *server, char *out, size_t size) {
    server->options.transport->address(server, out, size);
}

/* ---- the end of a server ---- */

static void free_server(struct pge_server *server) {
    for (unsigned c = 0; c < server->chunk_count; c++) {
        for (unsigned i = 0; i < PGE_REQUEST_CHUNK; i++) {
            pge_buf_deinit(&server->chunks[c][i].id);
            pge_buf_deinit(&server->chunks[c][i].reply_to);
            pge_buf_deinit(&server->chunks[c][i].held);
        }
        pge_free(server->chunks[c]);
    }
    pge_free(server->chunks);
    pge_defer_cancel(&server->flush_held);
    pge_defer_cancel(&server->tell_lost);
    pge_loop_timer_stop(server->engine->loop, &server->redial);
    pge_broker_free_subscriptions(server);
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

void pge_peer_watch_writing(struct pge_peer *peer) {
    struct pge_server *server = peer->server;
    peer->taken = server->options.transport->peer_taken(peer);
    pge_loop_timer(server->engine->loop, &peer->stall, server->options.write_timeout_ms);
}

void pge_peer_finish(struct pge_peer *peer) {
    struct pge_server *server = peer->server;
    peer->is_closing = true;
    pge_peer_watch_writing(peer);
    server->options.transport->peer_close(peer, true);
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
        pge_peer_watch_writing(peer); /* slow, but it reads */
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
    if (!server->is_held)
        server->options.transport->pause(server, full);
}

void pge_server_hold(struct pge_server *server, bool held) {
    if (server->is_held == held || !server->is_serving)
        return;
    server->is_held = held;
    if (!server->is_full)
        server->options.transport->pause(server, held);
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
    pge_peer_finish(peer);
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
    if (!peer->is_closing) { /* pge_broker_reset: the peer stays, and so do its requests */
        server->events->on_status(server, PGE_SERVER_LOST, peer->fault, peer->why);
        return;
    }
    while (!pge_list_is_empty(&peer->requests)) {
        struct pge_request *request = container_of(peer->requests.next, struct pge_request, node);
        server->events->on_gone(server, request);
        if (request->peer == peer)
            pge_request_release(request);
    }
}

static void on_tell_lost(struct pge_defer *defer) {
    struct pge_server *server = container_of(defer, struct pge_server, tell_lost);
    while (!pge_list_is_empty(&server->lost))
        server->engine->enter(server->engine, tell_lost,
                              container_of(server->lost.next, struct pge_peer, lost));
}

/* The owner is told at the end of the turn: a reply that breaks a peer must not call back into it.
 */
void pge_peer_lost(struct pge_peer *peer, enum pge_fault fault, const char *message) {
    struct pge_server *server = peer->server;
    if (server->broker && server->is_serving && !peer->is_closing) {
        pge_broker_reset(peer, fault, message);
        return;
    }
    if (!peer->is_closing) {
        peer->is_closing = true;
        peer->fault = fault;
        snprintf(peer->why, sizeof peer->why, "%s", message);
        server->options.transport->peer_name(peer, peer->name, sizeof peer->name);
        if (pge_list_is_empty(&peer->lost))
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
    if (server->broker == peer)
        server->broker = NULL;
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
            pge_peer_finish(peer);
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
