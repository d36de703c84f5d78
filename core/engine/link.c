/* link.c - what transports report of their links: ready, lost, closed, and the packets they bring.
 */
#include <stdio.h>
#include <uv.h>

#include "base/alloc.h"
#include "engine/broker.h"
#include "engine/pool.h"

/* A host that refused this often in a row is left alone for a while before each further try. */
enum { FREE_TRIES = 4 };

static void tell_status(struct pge_pool *pool, enum pge_client_status status) {
    for (struct pge_list *n = pool->clients.next, *next; n != &pool->clients; n = next) {
        next = n->next;
        struct pge_client *client = container_of(n, struct pge_client, node);
        if (client->is_orphan || !client->is_open || client->told == status)
            continue;
        client->told = status;
        client->events->on_status(client, status);
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

/* Calls sent on a lost link wait for their answers on this one. */
static void resume_calls(struct pge_link *link) {
    struct pge_list calls;
    pge_list_init(&calls);
    pge_list_splice(&calls, &link->pool->resuming);
    while (link->state == PGE_LINK_READY && !pge_list_is_empty(&calls)) {
        struct pge_call *call = container_of(calls.next, struct pge_call, of_link);
        if (link->transport->broker->link_resume(link, call) < 0) {
            pge_call_fail(call, PGE_CONNECTION_CLOSED, "Connection closed");
            continue;
        }
        pge_list_remove(&call->of_link);
        pge_call_attach(call, link);
    }
    pge_list_splice(&link->pool->resuming, &calls);
}

static void ready(void *arg) {
    struct pge_link *link = arg;
    struct pge_pool *pool = link->pool;
    if (pool->was_ready)
        pool->reconnects++;
    pool->was_ready = true;
    pool->is_offline = false;
    pge_backoff_reset(&pool->backoff);
    pge_loop_timer_stop(pool->engine->loop, &pool->retry);
    if (pool->ready++ == 0)
        tell_status(pool, PGE_CLIENT_CONNECTED);
    resume_calls(link);
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

static void fail_calls(struct pge_list *calls, enum pge_fault fault, const char *message) {
    struct pge_list failing;
    pge_list_init(&failing);
    pge_list_splice(&failing, calls);
    while (!pge_list_is_empty(&failing))
        pge_call_fail(container_of(failing.next, struct pge_call, of_link), fault, message);
}

/* The requests of a lost link whose users want to wait for the next. */
static void keep_patient(struct pge_link *link) {
    for (struct pge_list *n = link->calls.next, *next; n != &link->calls; n = next) {
        next = n->next;
        struct pge_call *call = container_of(n, struct pge_call, of_link);
        if (call->kind != PGE_CALL_REQUEST || !pge_call_is_patient(call))
            continue;
        pge_list_remove(&call->of_link);
        pge_list_push(&link->pool->resuming, &call->of_link);
        call->link = NULL;
        call->data = NULL;
        link->pending--;
    }
}

/* Those who wait for a connection only as long as it is being dialled. */
static void fail_impatient(struct pge_pool *pool) {
    char why[sizeof pool->last_error];
    struct pge_list failing;
    pge_list_init(&failing);
    for (struct pge_list *n = pool->waiting.next, *next; n != &pool->waiting; n = next) {
        next = n->next;
        if (pge_call_is_patient(container_of(n, struct pge_call, of_link)))
            continue;
        pge_list_remove(n);
        pge_list_push(&failing, n);
    }
    pge_pool_explain(pool, why, sizeof why);
    fail_calls(&failing, PGE_CONNECT_FAILED, why);
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
    pge_link_retire(link);
    pge_list_init(&calls);
    keep_patient(link);
    pge_list_splice(&calls, &link->calls);
    if (pool->ready == 0) {
        pool->is_offline = true;
        pool->next_host = (unsigned)(link->host - pool->hosts) + 1; /* the others first */
        tell_status(pool, PGE_CLIENT_DISCONNECTED);
        pge_pool_retry_later(pool);
        if (pge_timer_is_armed(&pool->retry))
            tell_status(pool, PGE_CLIENT_RECONNECTING);
    }
    fail_calls(&calls, loss->fault, loss->message);
}

static void lose_connecting(struct loss *loss) {
    struct pge_link *link = loss->link;
    struct pge_pool *pool = link->pool;
    struct pge_host *host = link->host;
    pge_link_retire(link);
    snprintf(pool->last_error, sizeof pool->last_error, "%s", loss->message);
    if (host->backoff.tries < FREE_TRIES)
        host->backoff.tries++;
    else
        host->retry_at =
            pge_loop_now(pool->engine->loop) + pge_backoff_next(&host->backoff, pool->engine->loop);
    tell_error(pool, loss->message);
    bool is_wanted = pool->users && (pool->waiting_count || pge_pool_wants_link(pool));
    if (!is_wanted || pool->connecting || pool->ready)
        return; /* no users: on_error closed the last one, and its close fails those who wait */
    if (pge_pool_dial_next(pool) == 0)
        return;
    pool->is_offline = true;
    fail_impatient(pool);
    pge_pool_retry_later(pool);
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

void pge_link_leave(struct pge_link *link) {
    struct pge_pool *pool = link->pool;
    if (link->is_leaving || pool->connecting)
        return;
    link->is_leaving = true;
    pool->next_host = (unsigned)(link->host - pool->hosts) + 1;
    link->host->tried_round = ++pool->round; /* not the same again */
    pge_pool_dial_next(pool);
}

void pge_link_learn(struct pge_link *link, const char *host, uint16_t port) {
    struct pge_pool *pool = link->pool;
    unsigned i = pool->options.host_count;
    if (pge_hosts_learn(pool->options.hosts, &pool->options.host_count, link->host->at, host, port))
        pge_pool_init_host(pool, i);
}

static int raw_packet(struct pge_pool *pool, struct pge_span packet, struct pge_span id) {
    int status = pge_json_check(&pool->engine->scan, packet.p, packet.n);
    if (status < 0 || pge_list_is_empty(&pool->clients))
        return status;
    struct pge_client *client = container_of(pool->clients.next, struct pge_client, node);
    if (!client->is_orphan)
        client->events->on_raw_packet(client, packet, id);
    return 0;
}

static void hand_over(struct pge_call *call, const struct pge_envelope *e, struct pge_span packet) {
    enum pge_reply kind = pge_envelope_reply(e);
    struct pge_span body = kind == PGE_REPLY_ERROR     ? e->err
                           : kind == PGE_REPLY_FOREIGN ? packet
                                                       : e->response;
    pge_link_reply(call, kind, body);
}

/* The text of a JSON string that needs no unescaping, as ids do; else n 0. */
static struct pge_span unquote(struct pge_span json) {
    bool is_string = json.n >= 2 && json.p[0] == '"';
    return is_string ? (struct pge_span){json.p + 1, json.n - 2} : (struct pge_span){"", 0};
}

struct pge_call *pge_link_call(struct pge_link *link, struct pge_span id) {
    struct pge_call *call = pge_pool_find_call(link->pool, id);
    if (call && call->link == link) /* one host does not answer for another */
        return call;
    link->pool->late_replies++;
    return NULL;
}

int pge_link_packet_for(struct pge_link *link, struct pge_call *call, struct pge_span packet) {
    struct pge_pool *pool = link->pool;
    if (pool->options.is_raw)
        return raw_packet(pool, packet, pge_call_id(call));
    struct pge_envelope e;
    int status = pge_envelope_scan(&pool->engine->scan, packet.p, packet.n, &e);
    if (status < 0)
        return status;
    struct pge_span id = unquote(e.id);
    bool is_ours = id.n == PGE_ID_LEN && memcmp(id.p, call->id, PGE_ID_LEN) == 0;
    if (is_ours || !pge_json_is_truthy(e.id))
        hand_over(call, &e, packet);
    else
        pool->late_replies++;
    return 0;
}

int pge_link_packet(struct pge_link *link, struct pge_span packet) {
    struct pge_pool *pool = link->pool;
    if (pool->options.is_raw)
        return raw_packet(pool, packet, (struct pge_span){0});
    struct pge_envelope e;
    int status = pge_envelope_scan(&pool->engine->scan, packet.p, packet.n, &e);
    if (status < 0)
        return status;
    struct pge_call *call = pge_link_call(link, unquote(e.id));
    if (call)
        hand_over(call, &e, packet);
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
