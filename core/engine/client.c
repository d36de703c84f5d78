/* client.c - one holder of a pool: its calls, its opening and closing. */
#include "engine/client.h"

#include <stdio.h>
#include <uv.h>

#include "base/alloc.h"
#include "engine/pool.h"

static void finish_close(void *arg) {
    struct pge_client *client = arg;
    if (!client->is_orphan && client->told != PGE_CLIENT_DISCONNECTED && !client->is_open) {
        client->told = PGE_CLIENT_DISCONNECTED;
        client->events->on_status(client, PGE_CLIENT_DISCONNECTED);
    }
    client->is_closing = false;
    if (!client->is_orphan) {
        client->events->on_closed(client);
        return;
    }
    if (client->pending)
        return; /* its last call closes it once more */
    struct pge_pool *pool = client->pool;
    pge_list_remove(&client->node);
    pge_free(client);
    pge_pool_release(pool);
}

static void on_closed_turn(struct pge_defer *defer) {
    struct pge_client *client = container_of(defer, struct pge_client, closed);
    struct pge_engine *engine = client->pool->engine;
    engine->enter(engine, finish_close, client);
}

static void on_failing_turn(struct pge_defer *defer);

/* From its making to its close a client keeps the links of its pool; a closed one that is used
 * again does, too. */
static void become_user(struct pge_client *client) {
    if (client->is_user)
        return;
    client->is_user = true;
    client->pool->users++;
}

struct pge_client *pge_client_new(struct pge_engine *engine, struct pge_pool_options *options,
                                  const struct pge_client_events *events, void *owner) {
    struct pge_client *client = pge_calloc(1, sizeof *client);
    if (!client) {
        pge_pool_options_deinit(options);
        return NULL;
    }
    client->pool = pge_pool_acquire(engine, options);
    if (!client->pool) {
        pge_free(client);
        return NULL;
    }
    client->events = events;
    client->owner = owner;
    pge_list_init(&client->calls);
    pge_list_init(&client->doomed);
    pge_defer_init(&client->failing, on_failing_turn);
    pge_list_push(&client->pool->clients, &client->node);
    pge_defer_init(&client->closed, on_closed_turn);
    become_user(client);
    return client;
}

void pge_client_free(struct pge_client *client) {
    client->is_orphan = true;
    if (client->pending == 0)
        pge_client_close(client);
}

void *pge_client_owner(const struct pge_client *client) {
    return client->owner;
}

static void cancel_in(struct pge_list *calls, const void *arg) {
    for (struct pge_list *n = calls->next, *next; n != calls; n = next) {
        next = n->next;
        struct pge_call *call = container_of(n, struct pge_call, of_client);
        if (call->arg == arg)
            pge_call_cancel(call);
    }
}

void pge_client_cancel_all(struct pge_client *client, const void *arg) {
    cancel_in(&client->calls, arg);
    cancel_in(&client->doomed, arg);
}

static void fail_doomed(void *arg) {
    struct pge_client *client = arg;
    while (!pge_list_is_empty(&client->doomed)) {
        struct pge_call *call = container_of(client->doomed.next, struct pge_call, of_client);
        pge_call_fail(call, PGE_CONNECTION_CLOSED, "Connection closed");
    }
}

static void on_failing_turn(struct pge_defer *defer) {
    struct pge_client *client = container_of(defer, struct pge_client, failing);
    struct pge_engine *engine = client->pool->engine;
    engine->enter(engine, fail_doomed, client);
}

/* Calls are told at the end of the turn, before on_closed: never inside the caller's own call. */
void pge_client_close(struct pge_client *client) {
    struct pge_pool *pool = client->pool;
    struct pge_loop *loop = pool->engine->loop;
    client->is_open = false;
    if (client->is_user) {
        client->is_user = false;
        pool->users--;
    }
    client->is_closing = true;
    pge_list_splice(&client->doomed, &client->calls);
    if (!pge_list_is_empty(&client->doomed))
        pge_loop_defer(loop, &client->failing, PGE_SOON);
    if (pool->users == 0)
        pge_pool_close_links(pool); /* and its retries */
    if (pool->closing == 0)
        pge_loop_defer(loop, &client->closed, PGE_SOON);
}

static int give_up(struct pge_failure *why, enum pge_fault fault, const char *message) {
    why->fault = fault;
    snprintf(why->message, sizeof why->message, "%s", message);
    return -1;
}

/* A wire's or a writer's status as what the caller sees. link: NULL, or whose words count. */
static int give_up_status(struct pge_failure *why, struct pge_link *link, int status) {
    if (link && link->why[0]) {
        give_up(why, status == UV_EMSGSIZE ? PGE_FRAME_TOO_LARGE : PGE_INVALID_MESSAGE, link->why);
        link->why[0] = '\0';
        return -1;
    }
    switch (status) {
    case UV_EINVAL:
    case UV_EILSEQ:
        return give_up(why, PGE_INVALID_MESSAGE, "the data cannot be encoded as JSON");
    case UV_EMSGSIZE:
        return give_up(why, PGE_FRAME_TOO_LARGE, "the message is too large for the peer");
    case UV_EPIPE: /* the link has broken and is about to be lost */
        return give_up(why, PGE_CONNECTION_CLOSED, "Connection closed");
    default:
        return give_up(why, PGE_OVERLOADED, uv_strerror(status));
    }
}

static void open_client(struct pge_client *client) {
    client->is_open = true;
    become_user(client);
}

static int check_room(struct pge_client *client, struct pge_link *link, struct pge_failure *why) {
    struct pge_pool *pool = client->pool;
    const struct pge_pool_options *o = &pool->options;
    if (pool->pending >= o->max_pending)
        return give_up(why, PGE_OVERLOADED, "too many calls in flight");
    if (link && link->transport->link_queued(link) > o->max_queued_bytes)
        return give_up(why, PGE_OVERLOADED, "the peer is not reading: its output queue is full");
    if (!link &&
        (pool->waiting_count >= o->max_waiting || pool->waiting_bytes > o->max_queued_bytes))
        return give_up(why, PGE_OVERLOADED, "too many calls are waiting for a connection");
    return 0;
}

static struct pge_call *acquire(struct pge_client *client, const struct pge_call_options *options,
                                enum pge_call_kind kind, struct pge_failure *why) {
    struct pge_call *call = pge_call_acquire(client, options, kind);
    if (!call)
        give_up(why, PGE_OVERLOADED, "out of memory");
    return call;
}

/* Lets a new call wait for a link that is on its way. NULL: it is released. */
static struct pge_call *send_later(struct pge_call *call, const struct pge_message *m,
                                   struct pge_failure *why) {
    struct pge_pool *pool = call->client->pool;
    int status = pge_call_hold(call, m);
    if (status < 0) {
        give_up_status(why, NULL, status);
    } else if (pge_pool_dial(pool) < 0 && !pge_call_is_patient(call)) {
        status = -1;
        why->fault = PGE_CONNECT_FAILED;
        pge_pool_explain(pool, why->message, sizeof why->message);
    }
    if (status < 0) {
        pge_call_release(call);
        return NULL;
    }
    if (call->kind != PGE_CALL_EVENT)
        pge_call_arm(call); /* an event's clock is for its acknowledgement */
    return call;
}

/* The same for a link that is ready. */
static struct pge_call *send_now(struct pge_call *call, struct pge_link *link,
                                 const struct pge_message *m, struct pge_failure *why) {
    int status = link->transport->link_send(link, call, m);
    if (status < 0) {
        give_up_status(why, link, status);
        pge_call_release(call);
        return NULL;
    }
    pge_call_attach(call, link);
    pge_call_arm(call);
    return call;
}

/* The message whose packet was written; its address and headers are m's. */
static struct pge_message made_of(const struct pge_message *m, const struct pge_buf *packet) {
    return (struct pge_message){
        .pattern = m->pattern,
        .headers = m->headers,
        .options = m->options,
        .packet = {pge_buf_head(packet), pge_buf_len(packet)},
    };
}

/*
 * The writer of a packet may be anybody's code, and may call us: it runs before a link is chosen
 * and a frame begun. Where it closed the client, the call is doomed with the others.
 */
static struct pge_call *send_made(struct pge_call *call, const struct pge_message *m,
                                  struct pge_failure *why) {
    struct pge_client *client = call->client;
    struct pge_buf packet = {0};
    int status = m->write_packet(m->arg, pge_call_id(call), &packet);
    struct pge_message made = made_of(m, &packet);
    if (status < 0) {
        give_up_status(why, NULL, status);
        pge_call_release(call);
        call = NULL;
    } else if (client->is_open) {
        struct pge_link *link = pge_pool_pick(client->pool);
        call = link ? send_now(call, link, &made, why) : send_later(call, &made, why);
    }
    pge_buf_deinit(&packet);
    return call;
}

struct pge_call *pge_client_send(struct pge_client *client, const struct pge_message *m,
                                 const struct pge_call_options *options, struct pge_failure *why) {
    open_client(client);
    struct pge_link *link = pge_pool_pick(client->pool);
    if (check_room(client, link, why) < 0)
        return NULL;
    struct pge_call *call = acquire(client, options, PGE_CALL_REQUEST, why);
    if (!call)
        return NULL;
    if (m->write_packet)
        return send_made(call, m, why);
    return link ? send_now(call, link, m, why) : send_later(call, m, why);
}

/* An event that a broker acknowledges takes a call. */
static int emit_acked(struct pge_client *client, struct pge_link *link, const struct pge_message *m,
                      const struct pge_call_options *options, struct pge_failure *why) {
    struct pge_call *call = acquire(client, options, PGE_CALL_EVENT, why);
    if (!call)
        return -1;
    int status = link->transport->link_emit(link, call, m);
    if (status < 0) {
        give_up_status(why, link, status);
        pge_call_release(call);
        return -1;
    }
    pge_call_attach(call, link);
    pge_call_arm(call);
    return 0;
}

static int emit(struct pge_client *client, const struct pge_message *m,
                const struct pge_call_options *options, struct pge_failure *why) {
    struct pge_pool *pool = client->pool;
    open_client(client);
    struct pge_link *link = pge_pool_pick(pool);
    if (!link && pool->options.offline == PGE_OFFLINE_DROP && pge_pool_is_offline(pool)) {
        pool->dropped++;
        pge_pool_dial(pool);
        return 1;
    }
    if (check_room(client, link, why) < 0)
        return -1;
    if (link) {
        int status = link->transport->link_emit(link, NULL, m);
        if (status == PGE_EMIT_ACKED)
            return emit_acked(client, link, m, options, why);
        return status < 0 ? give_up_status(why, link, status) : 1;
    }
    struct pge_call *call = acquire(client, options, PGE_CALL_EVENT, why);
    return call && send_later(call, m, why) ? 0 : -1;
}

int pge_client_emit(struct pge_client *client, const struct pge_message *m,
                    const struct pge_call_options *options, struct pge_failure *why) {
    if (!m->write_packet)
        return emit(client, m, options, why);
    struct pge_buf packet = {0};
    int status = m->write_packet(m->arg, (struct pge_span){0}, &packet);
    struct pge_message made = made_of(m, &packet);
    int result = status < 0 ? give_up_status(why, NULL, status) : emit(client, &made, options, why);
    pge_buf_deinit(&packet);
    return result;
}

int pge_client_connect(struct pge_client *client, const struct pge_call_options *options,
                       struct pge_failure *why) {
    open_client(client);
    if (pge_pool_pick(client->pool))
        return 1;
    struct pge_message nothing = {.pattern = {"", 0}, .data.json = {"", 0}};
    struct pge_call *call = acquire(client, options, PGE_CALL_CONNECT, why);
    return call && send_later(call, &nothing, why) ? 0 : -1;
}

struct pge_call *pge_client_call_by_id(struct pge_client *client, struct pge_span id) {
    struct pge_call *call = pge_pool_find_call(client->pool, id);
    return call && call->client == client ? call : NULL;
}

void pge_call_answered(struct pge_call *call, bool last) {
    if (last)
        pge_call_release(call);
    else if (call->timeout_ms)
        pge_call_arm(call);
}

struct pge_call *pge_client_newest(const struct pge_client *client) {
    if (pge_list_is_empty(&client->calls))
        return NULL;
    return container_of(client->calls.prev, struct pge_call, of_client);
}

unsigned pge_client_pending(const struct pge_client *client) {
    return client->pending;
}

unsigned pge_client_host_count(const struct pge_client *client) {
    return client->pool->options.host_count;
}

void pge_client_host_status(const struct pge_client *client, unsigned i,
                            struct pge_host_status *out) {
    const struct pge_pool *pool = client->pool;
    const struct pge_host *host = &pool->hosts[i];
    const struct pge_host_options *at = host->at;
    *out = (struct pge_host_status){.state = "idle", .connections = host->link_count};
    if (at->path)
        snprintf(out->address, sizeof out->address, "%s", at->path);
    else if (at->host)
        snprintf(out->address, sizeof out->address, "%s:%u", at->host, at->port);
    else
        snprintf(out->address, sizeof out->address, "%s",
                 pool->options.name ? pool->options.name : "");
    if (host->backoff.tries)
        out->state = "down";
    for (struct pge_list *n = host->links.next; n != &host->links; n = n->next) {
        const struct pge_link *link = container_of(n, struct pge_link, node);
        out->pending += link->pending;
        if (link->state == PGE_LINK_READY)
            out->state = "connected";
        else if (strcmp(out->state, "connected") != 0)
            out->state = "connecting";
    }
}

bool pge_client_is_connected(const struct pge_client *client) {
    return client->is_open && client->pool->ready > 0;
}

uint64_t pge_client_late_replies(const struct pge_client *client) {
    return client->pool->late_replies;
}

void pge_client_count(const struct pge_client *client, struct pge_client_counts *out) {
    const struct pge_pool *pool = client->pool;
    *out = (struct pge_client_counts){
        .waiting = pool->waiting_count,
        .waiting_bytes = pool->waiting_bytes,
        .dropped = pool->dropped,
        .reconnects = pool->reconnects,
    };
}
