/* redis_pair.c - brings up, watches and closes the connections of one end. */
#include "transport/redis_pair.h"

#include <stdio.h>
#include <stdlib.h>
#include <uv.h>

/* What this file's own commands are for. */
enum { TAG_ROLE = PGE_REDIS_TAG_FIRST, TAG_MASTER };

static const char switch_channel[] = "+switch-master";

static void lose(struct pge_redis_pair *pair, enum pge_fault fault, const char *message) {
    if (pair->is_lost || pair->is_closing)
        return;
    pair->is_lost = true;
    pair->events->on_lost(pair, pair->is_ready ? fault : PGE_CONNECT_FAILED, message);
}

static void maybe_ready(struct pge_redis_pair *pair) {
    if (pair->is_ready || pair->is_lost || pair->is_closing || !pair->is_master ||
        !pge_redis_conn_is_ready(&pair->pub) || !pge_redis_conn_is_ready(&pair->sub))
        return;
    pair->is_ready = true;
    pair->events->on_ready(pair);
}

static void maybe_closed(struct pge_redis_pair *pair) {
    if (pair->is_closing && pair->pub.state == PGE_REDIS_IDLE &&
        pair->sub.state == PGE_REDIS_IDLE && pair->watch.state == PGE_REDIS_IDLE) {
        pge_defer_cancel(&pair->gone);
        pair->events->on_closed(pair); /* it may be freed */
    }
}

/* ---- pub ---- */

static struct pge_redis_pair *of_pub(struct pge_redis_conn *conn) {
    return container_of(conn, struct pge_redis_pair, pub);
}

static void pub_ready(struct pge_redis_conn *conn) {
    struct pge_redis_pair *pair = of_pub(conn);
    pair->is_master = pair->options->sentinel_name == NULL;
    if (pair->is_master)
        maybe_ready(pair);
    else if (pge_redis_conn_command(conn, TAG_ROLE, 1, &(struct pge_span){"ROLE", 4}, 1) < 0)
        lose(pair, PGE_CONNECT_FAILED, "out of memory");
}

static void pub_reply(struct pge_redis_conn *conn, uint64_t tag,
                      const struct pge_resp_reply *reply) {
    struct pge_redis_pair *pair = of_pub(conn);
    if (tag != TAG_ROLE) {
        pair->events->on_pub_reply(pair, tag, reply);
        return;
    }
    pair->is_master = reply->count && pge_resp_is(&reply->items[0], "master");
    if (pair->is_master)
        maybe_ready(pair);
    else
        lose(pair, PGE_CONNECT_FAILED, "the master that Sentinel named is none");
}

static void pub_push(struct pge_redis_conn *conn, const struct pge_resp_reply *reply) {
    (void)reply; /* it subscribes to nothing */
    lose(of_pub(conn), PGE_BAD_FRAME, "Protocol error, a message that nobody subscribed to");
}

static void pub_lost(struct pge_redis_conn *conn, enum pge_fault fault, const char *message) {
    lose(of_pub(conn), fault, message);
}

static void pub_drain(struct pge_redis_conn *conn) {
    struct pge_redis_pair *pair = of_pub(conn);
    if (pair->is_ready && !pair->is_lost)
        pair->events->on_drain(pair);
}

static void pub_closed(struct pge_redis_conn *conn) {
    maybe_closed(of_pub(conn));
}

static const struct pge_redis_conn_events pub_events = {pub_ready, pub_reply, pub_push,
                                                        pub_lost,  pub_drain, pub_closed};

/* ---- sub ---- */

static struct pge_redis_pair *of_sub(struct pge_redis_conn *conn) {
    return container_of(conn, struct pge_redis_pair, sub);
}

static void sub_ready(struct pge_redis_conn *conn) {
    maybe_ready(of_sub(conn));
}

static void sub_reply(struct pge_redis_conn *conn, uint64_t tag,
                      const struct pge_resp_reply *reply) {
    struct pge_redis_pair *pair = of_sub(conn);
    if (!pair->is_lost)
        pair->events->on_sub_reply(pair, tag, reply);
}

static void sub_push(struct pge_redis_conn *conn, const struct pge_resp_reply *reply) {
    struct pge_redis_pair *pair = of_sub(conn);
    if (!pair->is_lost)
        pair->events->on_push(pair, reply);
}

static void sub_lost(struct pge_redis_conn *conn, enum pge_fault fault, const char *message) {
    lose(of_sub(conn), fault, message);
}

static void sub_drain(struct pge_redis_conn *conn) {
    (void)conn; /* only subscriptions go out here */
}

static void sub_closed(struct pge_redis_conn *conn) {
    maybe_closed(of_sub(conn));
}

static const struct pge_redis_conn_events sub_events = {sub_ready, sub_reply, sub_push,
                                                        sub_lost,  sub_drain, sub_closed};

static int start_both(struct pge_redis_pair *pair, const struct pge_target *at) {
    const struct pge_redis_login *login = &pair->options->login;
    int status = pge_redis_conn_start(&pair->pub, pair->engine, at, login, &pub_events);
    if (status == 0)
        status = pge_redis_conn_start(&pair->sub, pair->engine, at, login, &sub_events);
    return status;
}

/* ---- Sentinel ---- */

static struct pge_redis_pair *of_watch(struct pge_redis_conn *conn) {
    return container_of(conn, struct pge_redis_pair, watch);
}

/* It is asked, and told to tell, at once: a switch between the two must not be missed. */
static void watch_ready(struct pge_redis_conn *conn) {
    struct pge_redis_pair *pair = of_watch(conn);
    struct pge_span ask[] = {pge_resp_arg("SENTINEL"), pge_resp_arg("get-master-addr-by-name"),
                             pge_resp_arg(pair->options->sentinel_name)};
    struct pge_span follow[] = {pge_resp_arg("SUBSCRIBE"), pge_resp_arg(switch_channel)};
    int status = pge_redis_conn_command(conn, TAG_MASTER, 1, ask, 3);
    if (status == 0)
        status = pge_redis_conn_command(conn, 0, 1, follow, 2);
    if (status < 0)
        lose(pair, PGE_CONNECT_FAILED, "out of memory");
}

/* [host, port], or nil. */
static void watch_reply(struct pge_redis_conn *conn, uint64_t tag,
                        const struct pge_resp_reply *reply) {
    struct pge_redis_pair *pair = of_watch(conn);
    char host[256], port[8], text[320];
    (void)tag; /* there is one question */
    if (pair->is_lost || pair->is_closing)
        return;
    if (!reply->is_array || reply->count != 2 || reply->items[0].text.n >= sizeof host ||
        reply->items[1].text.n >= sizeof port) {
        bool refused = reply->count == 1 && reply->items[0].kind == PGE_RESP_ERROR;
        snprintf(text, sizeof text, "Sentinel knows no master '%.60s'%s%.*s",
                 pair->options->sentinel_name, refused ? ": " : "",
                 refused && reply->items[0].text.n < 128 ? (int)reply->items[0].text.n : 0,
                 refused ? reply->items[0].text.p : "");
        lose(pair, PGE_CONNECT_FAILED, text);
        return;
    }
    snprintf(host, sizeof host, "%.*s", (int)reply->items[0].text.n, reply->items[0].text.p);
    snprintf(port, sizeof port, "%.*s", (int)reply->items[1].text.n, reply->items[1].text.p);
    struct pge_target at = {
        .host = host, .port = (uint16_t)strtoul(port, NULL, 10), .tls = pair->options->tls};
    int status = start_both(pair, &at);
    if (status < 0)
        lose(pair, PGE_CONNECT_FAILED, uv_strerror(status));
}

/* "mymaster 10.0.0.1 6379 10.0.0.2 6379": name, from, to. */
static void watch_push(struct pge_redis_conn *conn, const struct pge_resp_reply *reply) {
    struct pge_redis_pair *pair = of_watch(conn);
    struct pge_span news = reply->items[2].text;
    size_t n = strlen(pair->options->sentinel_name);
    if (pge_resp_is(&reply->items[1], switch_channel) && news.n > n && news.p[n] == ' ' &&
        memcmp(news.p, pair->options->sentinel_name, n) == 0)
        lose(pair, PGE_CONNECTION_CLOSED, "Sentinel made another server the master");
}

/* Once the master is known it is not needed: a master that is gone shows itself. */
static void watch_lost(struct pge_redis_conn *conn, enum pge_fault fault, const char *message) {
    struct pge_redis_pair *pair = of_watch(conn);
    if (pair->pub.state == PGE_REDIS_IDLE)
        lose(pair, fault, message);
    else
        pge_redis_conn_close(conn, false);
}

static void watch_drain(struct pge_redis_conn *conn) {
    (void)conn;
}

static void watch_closed(struct pge_redis_conn *conn) {
    maybe_closed(of_watch(conn));
}

static const struct pge_redis_conn_events watch_events = {watch_ready, watch_reply, watch_push,
                                                          watch_lost,  watch_drain, watch_closed};

/* ---- start and end ---- */

static void tell_failure(void *arg) {
    lose(arg, PGE_CONNECT_FAILED, "out of memory");
}

static void on_gone(struct pge_defer *defer) {
    struct pge_redis_pair *pair = container_of(defer, struct pge_redis_pair, gone);
    if (pair->is_closing)
        maybe_closed(pair);
    else
        pair->engine->enter(pair->engine, tell_failure, pair);
}

int pge_redis_pair_start(struct pge_redis_pair *pair, struct pge_engine *engine,
                         const struct pge_target *at, const struct pge_redis_options *options,
                         const struct pge_redis_pair_events *events) {
    struct pge_target to = *at;
    *pair = (struct pge_redis_pair){.engine = engine, .options = options, .events = events};
    pge_defer_init(&pair->gone, on_gone);
    if (options->sentinel_name) {
        to.tls = options->sentinel_tls ? options->tls : NULL;
        return pge_redis_conn_start(&pair->watch, engine, &to, &options->sentinel_login,
                                    &watch_events);
    }
    to.tls = options->tls;
    int status = pge_redis_conn_start(&pair->pub, engine, &to, &options->login, &pub_events);
    if (status < 0)
        return status;
    /* pub cannot be taken back silently any more. */
    if (pge_redis_conn_start(&pair->sub, engine, &to, &options->login, &sub_events) < 0)
        pge_loop_defer(engine->loop, &pair->gone, PGE_SOON);
    return 0;
}

void pge_redis_pair_read(struct pge_redis_pair *pair, bool wanted) {
    pge_redis_conn_want_drain(&pair->pub, !wanted);
    pge_redis_conn_read(&pair->sub, wanted);
}

void pge_redis_pair_close(struct pge_redis_pair *pair, bool flush) {
    bool was_closing = pair->is_closing;
    pair->is_closing = true;
    pge_redis_conn_close(&pair->pub, flush);
    pge_redis_conn_close(&pair->sub, false);
    pge_redis_conn_close(&pair->watch, false);
    if (!was_closing && pair->pub.state == PGE_REDIS_IDLE && pair->sub.state == PGE_REDIS_IDLE &&
        pair->watch.state == PGE_REDIS_IDLE)
        pge_loop_defer(pair->engine->loop, &pair->gone, PGE_SOON);
}
