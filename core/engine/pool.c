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

/* Between the tries of a host, once it refused a few times, and of a pool. */
enum { RETRY_FIRST_MS = 100, RETRY_MAX_MS = 1000 };

void pge_pool_options_deinit(struct pge_pool_options *options) {
    for (unsigned i = 0; i < options->host_count; i++) {
        pge_free(options->hosts[i].host);
        pge_free(options->hosts[i].path);
        pge_free(options->hosts[i].server_name);
    }
    pge_settings_deinit(&options->settings);
    pge_free(options->key);
    pge_free(options->name);
    pge_tls_unref(options->tls);
    *options = (struct pge_pool_options){0};
}

static void on_retry(struct pge_timer *timer);

void pge_pool_init_host(struct pge_pool *pool, unsigned i) {
    struct pge_host *host = &pool->hosts[i];
    host->pool = pool;
    host->at = &pool->options.hosts[i];
    host->backoff = (struct pge_backoff){RETRY_FIRST_MS, RETRY_MAX_MS, 0};
    pge_list_init(&host->links);
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
    pge_list_init(&pool->resuming);
    pge_timer_init(&pool->retry, on_retry);
    pool->backoff = (struct pge_backoff){RETRY_FIRST_MS, RETRY_MAX_MS, 0};
    pool->nonce[0] = pge_loop_random(engine->loop);
    pool->nonce[1] = pge_loop_random(engine->loop);
    pge_list_push(&engine->pools, &pool->node);
    for (unsigned i = 0; i < pool->options.host_count; i++)
        pge_pool_init_host(pool, i);
    pool->round = 1;
    return pool;
}

void pge_pool_release(struct pge_pool *pool) {
    if (!pge_list_is_empty(&pool->clients) || pool->links)
        return;
    pge_loop_timer_stop(pool->engine->loop, &pool->retry);
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

int pge_pool_dial_next(struct pge_pool *pool) {
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

/* ---- dialling again, unasked ---- */

bool pge_pool_wants_link(const struct pge_pool *pool) {
    const struct pge_pool_options *o = &pool->options;
    bool keeps = o->transport->broker && pool->was_ready;
    bool has_patience = o->offline == PGE_OFFLINE_QUEUE || o->resumes;
    return pool->users && (keeps || (has_patience && pool->waiting_count));
}

/* The first host that may be dialled again decides, where all are left alone for a while. */
static uint64_t until_due(const struct pge_pool *pool) {
    uint64_t now = pge_loop_now(pool->engine->loop), first = UINT64_MAX;
    for (unsigned i = 0; i < pool->options.host_count; i++)
        if (pool->hosts[i].retry_at < first)
            first = pool->hosts[i].retry_at;
    return first > now ? first - now : 0;
}

void pge_pool_retry_later(struct pge_pool *pool) {
    if (!pge_pool_wants_link(pool) || pool->connecting || pool->ready ||
        pge_timer_is_armed(&pool->retry))
        return;
    uint64_t delay = pge_backoff_next(&pool->backoff, pool->engine->loop);
    uint64_t due = until_due(pool);
    pge_loop_timer(pool->engine->loop, &pool->retry, delay > due ? delay : due);
}

static void retry(void *arg) {
    struct pge_pool *pool = arg;
    if (!pge_pool_wants_link(pool) || pool->ready)
        return;
    if (pge_pool_dial(pool) < 0)
        pge_pool_retry_later(pool);
}

static void on_retry(struct pge_timer *timer) {
    struct pge_pool *pool = container_of(timer, struct pge_pool, retry);
    pool->engine->enter(pool->engine, retry, pool);
}

void pge_pool_explain(const struct pge_pool *pool, char *out, size_t size) {
    if (pool->was_ready && pool->options.transport->broker)
        snprintf(out, size, "Connection lost. Trying to reconnect... (%.160s)", pool->last_error);
    else
        snprintf(out, size, "%s", pool->last_error);
}

int pge_pool_dial(struct pge_pool *pool) {
    if (pool->connecting)
        return 0;
    pool->round++;
    if (pge_pool_dial_next(pool) == 0)
        return 0;
    pge_pool_retry_later(pool);
    return UV_ECONNREFUSED;
}

/* ---- picking ---- */

/* One more connection to a host whose links are all busy. Failing is harmless: there is a link. */
static void widen(struct pge_pool *pool, struct pge_host *host) {
    if (pool->connecting || host->link_count >= pool->options.connections)
        return;
    if (host->retry_at <= pge_loop_now(pool->engine->loop))
        dial_host(host);
}

static bool is_better(const struct pge_link *link, const struct pge_link *than) {
    if (link->is_leaving != than->is_leaving)
        return than->is_leaving;
    return link->pending < than->pending;
}

struct pge_link *pge_pool_pick(struct pge_pool *pool) {
    struct pge_link *best = NULL;
    unsigned count = pool->options.host_count;
    for (unsigned i = 0; i < count; i++) {
        struct pge_host *host = &pool->hosts[(pool->next_host + i) % count];
        for (struct pge_list *n = host->links.next; n != &host->links; n = n->next) {
            struct pge_link *link = container_of(n, struct pge_link, node);
            if (link->state == PGE_LINK_READY && (!best || is_better(link, best)))
                best = link;
        }
    }
    if (best && best->pending && !pool->options.transport->broker) {
        if (pool->options.connections > 1)
            widen(pool, best->host);
        for (unsigned i = 0; count > 1 && i < count; i++)
            if (pool->hosts[i].link_count == 0)
                widen(pool, &pool->hosts[i]);
    }
    return best;
}

/* ---- letting go ---- */

void pge_link_retire(struct pge_link *link) {
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

void pge_pool_close_links(struct pge_pool *pool) {
    pge_loop_timer_stop(pool->engine->loop, &pool->retry);
    pool->was_ready = pool->is_offline = false; /* a later call opens anew */
    for (unsigned i = 0; i < pool->options.host_count; i++)
        while (!pge_list_is_empty(&pool->hosts[i].links))
            pge_link_retire(container_of(pool->hosts[i].links.next, struct pge_link, node));
}
