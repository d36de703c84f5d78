/* broker.c - the one peer of a server over a broker: dials, back-offs, subscriptions. */
#include "engine/broker.h"

#include <stdio.h>
#include <uv.h>

#include "base/alloc.h"

enum { REDIAL_FIRST_MS = 100, REDIAL_MAX_MS = 1000 };

static const struct pge_broker *ops(const struct pge_server *server) {
    return server->options.transport->broker;
}

/* ---- hosts ---- */

static bool is_numeric(const char *host) {
    return strchr(host, ':') || strspn(host, "0123456789.") == strlen(host);
}

static bool knows(const struct pge_host_options *hosts, unsigned count, const char *host,
                  uint16_t port) {
    for (unsigned i = 0; i < count; i++)
        if (hosts[i].host && hosts[i].port == port && strcmp(hosts[i].host, host) == 0)
            return true;
    return false;
}

struct pge_host_options *pge_hosts_learn(struct pge_host_options *hosts, unsigned *count,
                                         const struct pge_host_options *teacher, const char *host,
                                         uint16_t port) {
    if (*count >= PGE_MAX_HOSTS || knows(hosts, *count, host, port))
        return NULL;
    /* Brokers tell of each other by number, and certificates bear names: the teacher's will do. */
    const char *name = teacher->server_name ? teacher->server_name : teacher->host;
    struct pge_host_options at = {.port = port, .host = pge_strndup(host, strlen(host))};
    if (is_numeric(host) && name && !is_numeric(name))
        at.server_name = pge_strndup(name, strlen(name));
    if (!at.host)
        return NULL;
    hosts[*count] = at;
    return &hosts[(*count)++];
}

void pge_peer_learn(struct pge_peer *peer, const char *host, uint16_t port) {
    struct pge_server_options *o = &peer->server->options;
    pge_hosts_learn(o->hosts, &o->host_count, &o->hosts[peer->server->dialled_host], host, port);
}

/* ---- dialling ---- */

/* Dials hosts in turn until one is on its way or all have failed. 0 or the last status. */
static int dial(struct pge_server *server) {
    int status = UV_ENOENT;
    while (server->tried_hosts < server->options.host_count) {
        unsigned i = server->next_host % server->options.host_count;
        server->next_host = i + 1;
        server->dialled_host = i;
        server->tried_hosts++;
        status = ops(server)->peer_dial(server->broker, &server->options.hosts[i]);
        if (status == 0)
            return 0;
    }
    return status;
}

static void redial_later(struct pge_server *server) {
    server->tried_hosts = 0;
    pge_loop_timer(server->engine->loop, &server->redial,
                   pge_backoff_next(&server->backoff, server->engine->loop));
}

static void on_redial(struct pge_timer *timer) {
    struct pge_server *server = container_of(timer, struct pge_server, redial);
    if (server->is_serving && dial(server) < 0)
        redial_later(server);
}

int pge_broker_serve(struct pge_server *server) {
    server->backoff = (struct pge_backoff){REDIAL_FIRST_MS, REDIAL_MAX_MS, 0};
    server->redial.on_fire = on_redial;
    server->broker = pge_peer_new(server);
    if (!server->broker)
        return UV_ENOMEM;
    int status = dial(server);
    if (status == 0)
        return 0;
    pge_list_remove(&server->broker->node);
    pge_free(server->broker);
    server->broker = NULL;
    return status;
}

void pge_broker_pause(struct pge_server *server, bool paused) {
    (void)server; /* its one peer is all it can have */
    (void)paused;
}

/* From now on a loss is the end: nobody dials any more. */
void pge_broker_unserve(struct pge_server *server) {
    struct pge_peer *peer = server->broker;
    pge_loop_timer_stop(server->engine->loop, &server->redial);
    if (!server->is_closing && server->is_up) {
        peer->is_leaving = true;
        peer->pending++; /* what is on its way is still served */
        ops(server)->peer_leave(peer);
    } else if (!server->is_closing) {
        pge_peer_lost(peer, PGE_FAULT_NONE, "");
    }
    pge_server_stopped(server);
}

/* The owner is told at the end of the turn, as of a lost peer. */
void pge_broker_reset(struct pge_peer *peer, enum pge_fault fault, const char *message) {
    struct pge_server *server = peer->server;
    if (!server->is_up)
        return;
    server->is_up = false;
    pge_loop_timer_stop(server->engine->loop, &peer->stall);
    peer->is_paused = false;
    ops(server)->peer_hangup(peer);
    redial_later(server);
    peer->fault = fault;
    snprintf(peer->why, sizeof peer->why, "%s", message);
    if (pge_list_is_empty(&peer->lost))
        pge_list_push(&server->lost, &peer->lost);
    pge_loop_defer(server->engine->loop, &server->tell_lost, PGE_SOON);
}

void pge_broker_address(const struct pge_server *server, char *out, size_t size) {
    const struct pge_host_options *at = &server->options.hosts[server->dialled_host];
    if (at->path)
        snprintf(out, size, "%s", at->path);
    else
        snprintf(out, size, strchr(at->host, ':') ? "[%s]:%u" : "%s:%u", at->host, at->port);
}

/* ---- what the transport reports ---- */

struct news {
    struct pge_server *server;
    enum pge_server_status status;
    enum pge_fault fault;
    const char *message;
};

static void tell(void *arg) {
    struct news *news = arg;
    news->server->events->on_status(news->server, news->status, news->fault, news->message);
}

static void tell_status(struct pge_server *server, enum pge_server_status status,
                        enum pge_fault fault, const char *message) {
    struct news news = {server, status, fault, message};
    server->engine->enter(server->engine, tell, &news);
}

void pge_peer_up(struct pge_peer *peer) {
    struct pge_server *server = peer->server;
    bool again = server->is_ready;
    server->is_up = server->is_ready = true;
    server->tried_hosts = 0;
    pge_backoff_reset(&server->backoff);
    tell_status(server, again ? PGE_SERVER_RECONNECTED : PGE_SERVER_READY, PGE_FAULT_NONE, "");
}

static void end_leaving(struct pge_peer *peer) {
    if (!peer->is_leaving)
        return;
    peer->is_leaving = false;
    peer->pending--;
}

void pge_peer_left(struct pge_peer *peer) {
    end_leaving(peer);
    if (peer->pending == 0 && !peer->is_closing)
        pge_peer_finish(peer);
}

/* A server that ends, or never began: there is no way back. */
static void give_up(struct pge_peer *peer, enum pge_fault fault, const char *message) {
    struct pge_server *server = peer->server;
    end_leaving(peer);
    if (server->is_serving)
        tell_status(server, PGE_SERVER_FAILED, fault, message);
    else
        pge_peer_lost(peer, fault, message);
}

void pge_peer_down(struct pge_peer *peer, enum pge_fault fault, const char *message) {
    struct pge_server *server = peer->server;
    bool was_up = server->is_up;
    server->is_up = false;
    if (peer->is_closing)
        return;
    pge_loop_timer_stop(server->engine->loop, &peer->stall);
    peer->is_paused = false;
    if (!server->is_serving) {
        give_up(peer, fault, message);
    } else if (was_up) {
        redial_later(server);
        tell_status(server, PGE_SERVER_LOST, fault, message);
    } else if (dial(server) < 0) {
        if (server->is_ready)
            redial_later(server);
        else
            give_up(peer, fault, message);
    }
}

struct complaint {
    struct pge_peer *peer;
    enum pge_fault fault;
    const char *message;
};

static void complain(void *arg) {
    struct complaint *c = arg;
    c->peer->server->events->on_fault(c->peer->server, c->peer, c->fault, c->message);
}

void pge_peer_complain(struct pge_peer *peer, enum pge_fault fault, const char *message) {
    struct complaint c = {peer, fault, message};
    peer->server->engine->enter(peer->server->engine, complain, &c);
}

/* ---- subscriptions ---- */

static void free_subscription(struct pge_server *server, struct pge_subscription *subscription) {
    pge_list_remove(&subscription->node);
    server->subscription_count--;
    pge_free(subscription->route);
    pge_settings_deinit(&subscription->settings);
    pge_free(subscription);
}

/* NULL: out of memory. Takes the wish's settings. */
static struct pge_subscription *make_subscription(struct pge_wish *wish) {
    struct pge_subscription *subscription = pge_calloc(1, sizeof *subscription);
    if (!subscription)
        return NULL;
    pge_list_init(&subscription->node);
    subscription->settings = wish->settings;
    wish->settings = (struct pge_settings){0};
    subscription->route = pge_strndup(wish->route, strlen(wish->route));
    if (subscription->route)
        return subscription;
    pge_settings_deinit(&subscription->settings);
    pge_free(subscription);
    return NULL;
}

static bool is_as(const struct pge_subscription *have, const struct pge_wish *wish) {
    return strcmp(have->route, wish->route) == 0 &&
           pge_settings_equal(&have->settings, &wish->settings);
}

static struct pge_subscription *find(const struct pge_list *list, const struct pge_wish *wish) {
    for (struct pge_list *n = list->next; n != list; n = n->next) {
        struct pge_subscription *have = container_of(n, struct pge_subscription, node);
        if (is_as(have, wish))
            return have;
    }
    return NULL;
}

static void explain(int status, struct pge_failure *why) {
    why->fault = status == UV_EINVAL ? PGE_INVALID_OPTION : PGE_OVERLOADED;
    if (status == UV_E2BIG)
        snprintf(why->message, sizeof why->message, "more than %d subscriptions",
                 PGE_MAX_SUBSCRIPTIONS);
    else if (status != UV_EINVAL)
        snprintf(why->message, sizeof why->message, "%s", uv_strerror(status));
}

static int refuse(struct pge_wish *wishes, unsigned count, int status) {
    for (unsigned i = 0; i < count; i++)
        pge_settings_deinit(&wishes[i].settings);
    return status;
}

/* Makes what the server does not have, in order, with its index. 0 or UV_ENOMEM. */
static int make_fresh(struct pge_server *server, struct pge_wish *wishes, unsigned count,
                      struct pge_list *fresh) {
    for (unsigned i = 0; i < count; i++) {
        if (find(&server->subscriptions, &wishes[i]))
            continue;
        struct pge_subscription *subscription = make_subscription(&wishes[i]);
        if (!subscription)
            return UV_ENOMEM;
        subscription->index = i + 1;
        pge_list_push(fresh, &subscription->node);
        server->subscription_count++;
    }
    return 0;
}

static void free_list(struct pge_server *server, struct pge_list *list) {
    while (!pge_list_is_empty(list))
        free_subscription(server, container_of(list->next, struct pge_subscription, node));
}

void pge_broker_free_subscriptions(struct pge_server *server) {
    free_list(server, &server->subscriptions);
}

/* Up or not: a connection that begins may have asked for the old list already. */
static bool is_told(const struct pge_server *server) {
    return server->broker && server->is_serving && !server->is_closing;
}

/* From old and fresh the server's new list; the connection hears of the fresh. */
static int take_over(struct pge_server *server, struct pge_wish *wishes, unsigned count,
                     struct pge_list *old, struct pge_list *fresh) {
    int status = 0;
    for (unsigned i = 0; i < count; i++) {
        struct pge_subscription *next = container_of(fresh->next, struct pge_subscription, node);
        bool is_fresh = !pge_list_is_empty(fresh) && next->index == i + 1;
        struct pge_subscription *taken = is_fresh ? next : find(old, &wishes[i]);
        if (!taken)
            continue; /* wished twice: the first has it */
        pge_list_remove(&taken->node);
        pge_list_push(&server->subscriptions, &taken->node);
        taken->index = i + 1;
        if (is_fresh && is_told(server) && status == 0)
            status = ops(server)->peer_subscribe(server->broker, taken);
    }
    return status;
}

int pge_server_check_wishes(struct pge_server *server, const struct pge_wish *wishes,
                            unsigned count, struct pge_failure *why) {
    int status = count > PGE_MAX_SUBSCRIPTIONS ? UV_E2BIG : 0;
    for (unsigned i = 0; i < count && status == 0; i++)
        status = ops(server)->check_route(&wishes[i].settings, wishes[i].route, why->message,
                                          sizeof why->message);
    if (status < 0)
        explain(status, why);
    return status;
}

int pge_server_subscribe(struct pge_server *server, struct pge_wish *wishes, unsigned count,
                         struct pge_failure *why) {
    struct pge_list old, fresh;
    int status = pge_server_check_wishes(server, wishes, count, why);
    if (status < 0)
        return refuse(wishes, count, status);
    pge_list_init(&fresh);
    status = make_fresh(server, wishes, count, &fresh);
    if (status < 0) {
        free_list(server, &fresh);
        explain(status, why);
        return refuse(wishes, count, status);
    }
    pge_list_init(&old);
    pge_list_splice(&old, &server->subscriptions);
    status = take_over(server, wishes, count, &old, &fresh);
    for (struct pge_list *n = old.next; n != &old && is_told(server); n = n->next)
        ops(server)->peer_unsubscribe(server->broker,
                                      container_of(n, struct pge_subscription, node));
    free_list(server, &old);
    for (unsigned i = 0; i < count; i++)
        pge_settings_deinit(&wishes[i].settings);
    if (status < 0)
        pge_broker_reset(server->broker, PGE_OVERLOADED, uv_strerror(status));
    return 0;
}
