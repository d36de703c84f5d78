/*
 * pool.c - hosts x connections.
 *
 *   pick: the ready link with the fewest calls; all busy and room for more -> dial one more beside
 * it dial: a host not in its back-off window, in turn; it fails -> the next one; all failed -> the
 * waiting fail
 */
#include "engine/pool.h"

#include <stdio.h>
#include <uv.h>

#include "base/alloc.h"
#include "net/tls.h"

/* A host that refused this often in a row is left alone for a while before each further try. */
enum { FREE_TRIES = 4, RETRY_FIRST_MS = 100, RETRY_MAX_MS = 1000 };

void pge_pool_options_deinit(struct pge_pool_options *options) {
    for (unsigned i = 0; i < options->host_count; i++) {
        pge_free(options->hosts[i].host);
        pge_free(options->hosts[i].path);
    }
    pge_free(options->key);
    pge_free(options->name);
    pge_tls_unref(options->tls);
    *options = (struct pge_pool_options){0};
}

struct pge_pool *pge_pool_acquire(struct pge_engine *engine, struct pge_pool_options *options) {
    for (struct pge_list *n = engine->pools.next; n != &engine->pools; n = n->next) {
        struct pge_pool *pool = container_of(n, struct pge_pool, node);
        if (strcmp(pool->options.key, options->key) == 0) {
            pge_pool_options_deinit(options);
            return pool;
        }
    }
    struct pge_pool *pool = pge_calloc(1, sizeof *pool);
    if (!pool) {
        pge_pool_options_deinit(options);
        return NULL;
    }
    pool->engine = engine;
    pool->options = *options;
    *options = (struct pge_pool_options){0};
    pge_list_init(&pool->clients);
    pge_list_init(&pool->free_calls);
    pge_list_init(&pool->waiting);
    pge_list_push(&engine->pools, &pool->node);
    for (unsigned i = 0; i < pool->options.host_count; i++) {
        struct pge_host *host = &pool->hosts[i];
        host->pool = pool;
        host->at = &pool->options.hosts[i];
        host->backoff = (struct pge_backoff){RETRY_FIRST_MS, RETRY_MAX_MS, 0};
        pge_list_init(&host->links);
    }
    pool->round = 1;
    return pool;
}

void pge_pool_release(struct pge_pool *pool) {
    if (!pge_list_is_empty(&pool->clients) || pool->links)
        return;
    pge_list_remove(&pool->node);
    pge_pool_free_calls(pool);
    pge_pool_options_deinit(&pool->options);
    pge_free(pool);
}

static int dial_host(struct pge_host *host) {
    struct pge_pool *pool = host->pool;
    const struct pge_transport *transport = pool->options.transport;
    host->tried_round = pool->round;
    struct pge_link *link = pge_calloc(1, transport->link_size);
    if (!link)
        return UV_ENOMEM;
    link->transport = transport;
    link->pool = pool;
    link->host = host;
    link->state = PGE_LINK_CONNECTING;
    pge_list_init(&link->calls);
    int status = transport->link_connect(link);
    if (status < 0) {
        pge_free(link);
        return status;
    }
    pge_list_push(&host->links, &link->node);
    host->link_count++;
    pool->links++;
    pool->connecting++;
    return 0;
}

/* Dials the next host that is due and was not tried in this round. UV_ENOENT: there is none. */
static int dial_next(struct pge_pool *pool) {
    uint64_t now = pge_loop_now(pool->engine->loop);
    unsigned count = pool->options.host_count;
    for (unsigned i = 0; i < count; i++) {
        struct pge_host *host = &pool->hosts[(pool->next_host + i) % count];
        if (host->tried_round == pool->round || host->retry_at > now)
            continue;
        pool->next_host = (pool->next_host + i + 1) % count;
        int status = dial_host(host);
        if (status == 0)
            return 0;
        snprintf(pool->last_error, sizeof pool->last_error, "connect %s", uv_strerror(status));
    }
    return UV_ENOENT;
}

int pge_pool_dial(struct pge_pool *pool) {
    if (pool->connecting)
        return 0;
    pool->round++;
    return dial_next(pool) == 0 ? 0 : UV_ECONNREFUSED;
}

/* One more connection to a host whose links are all busy. Failing is harmless: there is a link. */
static void widen(struct pge_pool *pool, struct pge_host *host) {
    if (pool->connecting || host->link_count >= pool->options.connections)
        return;
    if (host->retry_at <= pge_loop_now(pool->engine->loop))
        dial_host(host);
}

struct pge_link *pge_pool_pick(struct pge_pool *pool) {
    struct pge_link *best = NULL;
    unsigned count = pool->options.host_count;
    for (unsigned i = 0; i < count; i++) {
        struct pge_host *host = &pool->hosts[(pool->next_host + i) % count];
        for (struct pge_list *n = host->links.next; n != &host->links; n = n->next) {
            struct pge_link *link = container_of(n, struct pge_link, node);
            if (link->state == PGE_LINK_READY && (!best || link->pending < best->pending))
                best = link;
        }
    }
    if (best && best->pending) {
        if (pool->options.connections > 1)
            widen(pool, best->host);
        for (unsigned i = 0; count > 1 && i < count; i++)
            if (pool->hosts[i].link_count == 0)
                widen(pool, &pool->hosts[i]);
    }
    return best;
}

static void tell_status(struct pge_pool *pool, bool connected) {
    for (struct pge_list *n = pool->clients.next, *next; n != &pool->clients; n = next) {
        next = n->next;
        struct pge_client *client = container_of(n, struct pge_client, node);
        if (client->is_orphan || !client->is_open || client->told_connected == connected)
            continue;
        client->told_connected = connected;
        client->events->on_status(client, connected);
    }
}

static void tell_error(struct pge_pool *pool, const char *message) {
    for (struct pge_list *n = pool->clients.next, *next; n != &pool->clients; n = next) {
        next = n->next;
        struct pge_client *client = container_of(n, struct pge_client, node);
        if (client->is_open && !client->is_orphan)
            client->events->on_error(client, message);
    }
}

static void ready(void *arg) {
    struct pge_link *link = arg;
    struct pge_pool *pool = link->pool;
    if (pool->ready++ == 0)
        tell_status(pool, true);
    while (link->state == PGE_LINK_READY && !pge_list_is_empty(&pool->waiting))
        pge_call_unhold(container_of(pool->waiting.next, struct pge_call, of_link), link);
}

void pge_link_ready(struct pge_link *link) {
    struct pge_pool *pool = link->pool;
    link->state = PGE_LINK_READY;
    pge_backoff_reset(&link->host->backoff);
    link->host->retry_at = 0;
    pool->connecting--;
    pool->engine->enter(pool->engine, ready, link);
}

/* Out of the books, so that nothing picks it; its memory stays until pge_link_closed. */
static void retire(struct pge_link *link) {
    struct pge_pool *pool = link->pool;
    if (link->state == PGE_LINK_CONNECTING)
        pool->connecting--;
    else
        pool->ready--;
    link->state = PGE_LINK_CLOSING;
    pool->closing++;
    link->host->link_count--;
    pge_list_remove(&link->node);
    link->transport->link_close(link);
}

static void fail_calls(struct pge_list *calls, enum pge_fault fault, const char *message) {
    struct pge_list failing;
    pge_list_init(&failing);
    pge_list_splice(&failing, calls);
    while (!pge_list_is_empty(&failing))
        pge_call_fail(container_of(failing.next, struct pge_call, of_link), fault, message);
}

struct loss {
    struct pge_link *link;
    enum pge_fault fault;
    const char *message;
};

static void lose_ready(struct loss *loss) {
    struct pge_link *link = loss->link;
    struct pge_pool *pool = link->pool;
    struct pge_list calls;
    retire(link);
    pge_list_init(&calls);
    pge_list_splice(&calls, &link->calls);
    if (pool->ready == 0)
        tell_status(pool, false);
    fail_calls(&calls, loss->fault, loss->message);
}

static void lose_connecting(struct loss *loss) {
    struct pge_link *link = loss->link;
    struct pge_pool *pool = link->pool;
    struct pge_host *host = link->host;
    retire(link);
    snprintf(pool->last_error, sizeof pool->last_error, "%s", loss->message);
    if (host->backoff.tries < FREE_TRIES)
        host->backoff.tries++;
    else
        host->retry_at =
            pge_loop_now(pool->engine->loop) + pge_backoff_next(&host->backoff, pool->engine->loop);
    tell_error(pool, loss->message);
    if (pool->users == 0 || pool->waiting_count == 0 || pool->connecting || pool->ready)
        return; /* no users: on_error closed the last one, and its close fails those who wait */
    if (dial_next(pool) < 0)
        fail_calls(&pool->waiting, PGE_CONNECT_FAILED, pool->last_error);
}

static void lose(void *arg) {
    struct loss *loss = arg;
    if (loss->link->state == PGE_LINK_READY)
        lose_ready(loss);
    else if (loss->link->state == PGE_LINK_CONNECTING)
        lose_connecting(loss);
}

void pge_link_lost(struct pge_link *link, enum pge_fault fault, const char *message) {
    struct loss loss = {link, fault, message};
    struct pge_engine *engine = link->pool->engine;
    engine->enter(engine, lose, &loss);
}

void pge_pool_close_links(struct pge_pool *pool) {
    for (unsigned i = 0; i < pool->options.host_count; i++)
        while (!pge_list_is_empty(&pool->hosts[i].links))
            retire(container_of(pool->hosts[i].links.next, struct pge_link, node));
}

void pge_link_reply(struct pge_call *call, enum pge_reply kind, struct pge_span body) {
    const struct pge_call_events *events = call->events;
    if (kind == PGE_REPLY_VALUE) {
        if (call->timeout_ms)
            pge_call_arm(call);
    } else {
        pge_call_release(call);
    }
    events->on_packet(call, kind, body);
}

static int raw_packet(struct pge_pool *pool, struct pge_span packet) {
    int status = pge_json_check(&pool->engine->scan, packet.p, packet.n);
    if (status < 0 || pge_list_is_empty(&pool->clients))
        return status;
    struct pge_client *client = container_of(pool->clients.next, struct pge_client, node);
    if (!client->is_orphan)
        client->events->on_raw_packet(client, packet);
    return 0;
}

int pge_link_packet(struct pge_link *link, struct pge_span packet) {
    struct pge_pool *pool = link->pool;
    if (pool->options.is_raw)
        return raw_packet(pool, packet);
    struct pge_envelope e;
    int status = pge_envelope_scan(&pool->engine->scan, packet.p, packet.n, &e);
    if (status < 0)
        return status;
    struct pge_call *call = pge_pool_find_call(pool, e.id);
    if (!call || call->link != link) { /* one host does not answer for another */
        pool->late_replies++;
        return 0;
    }
    enum pge_reply kind = pge_envelope_reply(&e);
    struct pge_span body = kind == PGE_REPLY_ERROR     ? e.err
                           : kind == PGE_REPLY_FOREIGN ? packet
                                                       : e.response;
    pge_link_reply(call, kind, body);
    return 0;
}

/* Those who closed while links were open hear of it when the last one has gone. */
static void tell_closed(void *arg) {
    struct pge_pool *pool = arg;
    for (struct pge_list *n = pool->clients.next, *next; n != &pool->clients; n = next) {
        next = n->next;
        struct pge_client *client = container_of(n, struct pge_client, node);
        if (client->is_closing)
            pge_loop_defer(pool->engine->loop, &client->closed, PGE_SOON);
    }
}

/* Calls that a close has doomed may still stand on the link: they are told without it. */
static void detach_calls(struct pge_link *link) {
    while (!pge_list_is_empty(&link->calls)) {
        struct pge_call *call = container_of(link->calls.next, struct pge_call, of_link);
        pge_list_remove(&call->of_link);
        call->link = NULL;
    }
}

void pge_link_closed(struct pge_link *link) {
    struct pge_pool *pool = link->pool;
    detach_calls(link);
    pge_free(link);
    pool->links--;
    if (--pool->closing)
        return;
    tell_closed(pool);
    pge_pool_release(pool);
}
