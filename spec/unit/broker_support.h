/*
 * broker_support.h - for tests of what the engine does for transports over brokers: one made here,
 * whose connections do what the test says, and which notes what it is asked. The clock is stopped.
 */
#ifndef SPEC_UNIT_BROKER_SUPPORT_H
#define SPEC_UNIT_BROKER_SUPPORT_H

#include "net_support.h"

#include "engine/broker.h"
#include "engine/pool.h"

struct world {
    struct rig *rig;
    struct pge_engine engine;
    char log[1024]; /* what came and what was asked, in order */
    struct pge_client *client;
    struct pge_server *server;
};

static struct world *the_world; /* cmocka has no argument for a transport's ops */

static inline void note(const char *format, ...) {
    struct world *w = the_world;
    size_t n = strlen(w->log);
    va_list args;
    va_start(args, format);
    vsnprintf(w->log + n, sizeof w->log - n, format, args);
    va_end(args);
}

/* Compares the log and begins it anew. */
static inline void expect(const char *log) {
    assert_string_equal(the_world->log, log);
    the_world->log[0] = '\0';
}

static inline void turn(void) {
    pge_loop_turn(&the_world->rig->loop);
}

static inline void pass(uint64_t ms) {
    rig_pass(the_world->rig, ms);
    turn();
}

static inline char *text(const char *from) {
    return pge_strndup(from, strlen(from));
}

static inline struct pge_span span(const char *from) {
    return (struct pge_span){from, strlen(from)};
}

/* ---- the transport: links ---- */

struct test_link {
    struct pge_link base; /* first */
    struct pge_defer gone;
};

static struct pge_link *link_now; /* the last one dialled */
static bool acks, resumes;

static inline void link_gone(struct pge_defer *defer) {
    pge_link_closed(&container_of(defer, struct test_link, gone)->base);
}

static inline int link_connect(struct pge_link *link) {
    pge_defer_init(&container_of(link, struct test_link, base)->gone, link_gone);
    note("dial %u;", link->host->at->port);
    link_now = link;
    return 0;
}

static inline int link_send(struct pge_link *link, struct pge_call *call,
                            const struct pge_message *m) {
    (void)link, (void)call;
    note("send %.*s", (int)m->pattern.n, m->pattern.p);
    for (unsigned i = 0; i < m->headers.count; i++)
        note(" %.*s=%.*s", (int)m->headers.at[i].name.n, m->headers.at[i].name.p,
             (int)m->headers.at[i].value.n, m->headers.at[i].value.p);
    note(";");
    return 0;
}

static inline int link_emit(struct pge_link *link, struct pge_call *call,
                            const struct pge_message *m) {
    if (acks && !call)
        return PGE_EMIT_ACKED;
    if (m->pattern.p[1] == '!') {
        snprintf(link->why, sizeof link->why, "illegal");
        return UV_EINVAL;
    }
    note("emit %.*s;", (int)m->pattern.n, m->pattern.p);
    return acks ? PGE_EMIT_ACKED : 0;
}

static inline void link_forget(struct pge_link *link, struct pge_call *call) {
    (void)link, (void)call;
    note("forget;");
}

static inline int link_resume(struct pge_link *link, struct pge_call *call) {
    (void)link, (void)call;
    note("resume;");
    return resumes ? 0 : UV_ENOTSUP;
}

static inline size_t link_queued(const struct pge_link *link) {
    (void)link;
    return 0;
}

static inline void link_close(struct pge_link *link) {
    struct test_link *self = container_of(link, struct test_link, base);
    pge_loop_defer(link->pool->engine->loop, &self->gone, PGE_SOON);
}

/* ---- the transport: the peer ---- */

struct test_peer {
    struct pge_peer base; /* first */
    struct pge_defer gone;
};

static int dial_status;

static inline void peer_gone(struct pge_defer *defer) {
    pge_peer_closed(&container_of(defer, struct test_peer, gone)->base);
}

static inline int peer_dial(struct pge_peer *peer, const struct pge_host_options *at) {
    pge_defer_init(&container_of(peer, struct test_peer, base)->gone, peer_gone);
    note("dial %u;", at->port);
    return dial_status;
}

static inline void peer_hangup(struct pge_peer *peer) {
    (void)peer;
    note("hangup;");
}

static inline int peer_subscribe(struct pge_peer *peer, struct pge_subscription *subscription) {
    (void)peer;
    note("sub %s;", subscription->route);
    return 0;
}

static inline void peer_unsubscribe(struct pge_peer *peer, struct pge_subscription *subscription) {
    (void)peer;
    note("unsub %s;", subscription->route);
}

static inline void peer_leave(struct pge_peer *peer) {
    (void)peer;
    note("leave;");
}

static inline void peer_settle(struct pge_peer *peer, struct pge_request *request,
                               enum pge_verdict verdict) {
    (void)peer;
    note("settle %.*s %s;", (int)pge_request_reply_to(request).n, pge_request_reply_to(request).p,
         verdict == PGE_ACK ? "ack" : "nack");
}

static inline int check_route(const struct pge_settings *settings, const char *route, char *why,
                              size_t size) {
    (void)settings;
    snprintf(why, size, "illegal %s", route);
    return strchr(route, ' ') ? UV_EINVAL : 0;
}

static inline int peer_reply(struct pge_peer *peer, const struct pge_request *request,
                             enum pge_reply kind, const struct pge_payload *body) {
    (void)peer, (void)kind, (void)body;
    note("reply %.*s;", (int)pge_request_reply_to(request).n, pge_request_reply_to(request).p);
    return 0;
}

static inline int peer_no_handler(struct pge_peer *peer, const struct pge_request *request) {
    (void)peer, (void)request;
    return 0;
}

static inline size_t peer_queued(const struct pge_peer *peer) {
    (void)peer;
    return 0;
}

static inline uint64_t peer_taken(const struct pge_peer *peer) {
    (void)peer;
    return 0;
}

static inline void peer_read(struct pge_peer *peer, bool wanted) {
    (void)peer, (void)wanted;
}

static inline void peer_probe(struct pge_peer *peer) {
    (void)peer;
}

static inline void peer_name(const struct pge_peer *peer, char *out, size_t size) {
    pge_broker_address(peer->server, out, size);
}

static inline void peer_close(struct pge_peer *peer, bool flush) {
    struct test_peer *self = container_of(peer, struct test_peer, base);
    note(flush ? "finish;" : "close;");
    pge_loop_defer(peer->server->engine->loop, &self->gone, PGE_SOON);
}

static const struct pge_broker ops = {
    check_route,    link_resume,      peer_dial,  peer_hangup,
    peer_subscribe, peer_unsubscribe, peer_leave, peer_settle,
};

static const struct pge_transport transport = {
    .name = "test",
    .broker = &ops,
    .link_size = sizeof(struct test_link),
    .link_connect = link_connect,
    .link_send = link_send,
    .link_emit = link_emit,
    .link_forget = link_forget,
    .link_queued = link_queued,
    .link_close = link_close,
    .serve = pge_broker_serve,
    .pause = pge_broker_pause,
    .unserve = pge_broker_unserve,
    .address = pge_broker_address,
    .peer_size = sizeof(struct test_peer),
    .peer_reply = peer_reply,
    .peer_no_handler = peer_no_handler,
    .peer_queued = peer_queued,
    .peer_taken = peer_taken,
    .peer_read = peer_read,
    .peer_probe = peer_probe,
    .peer_name = peer_name,
    .peer_close = peer_close,
};

/* ---- before and after each test ---- */

static inline int setup(void **state) {
    struct world *w = calloc(1, sizeof *w);
    w->rig = rig_new();
    rig_stop_clock(w->rig);
    pge_engine_init(&w->engine, &w->rig->loop);
    the_world = w;
    acks = resumes = false;
    dial_status = 0;
    *state = w;
    return 0;
}

static inline int teardown(void **state) {
    struct world *w = *state;
    if (w->client)
        pge_client_cancel_all(w->client, NULL);
    if (w->client)
        pge_client_free(w->client);
    if (w->server)
        pge_server_close(w->server);
    rig_finish(w->rig);
    assert_true(pge_list_is_empty(&w->engine.pools));
    assert_true(pge_list_is_empty(&w->engine.servers));
    pge_engine_deinit(&w->engine);
    rig_free(w->rig);
    free(w);
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

#endif
