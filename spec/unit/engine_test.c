/*
 * engine_test.c - pools, calls, relays and servers, over the local transport and over one made here
 * whose links do what the test says. Freed memory is poisoned, so that a late look at it shows.
 */
#include "net_support.h"

#include <malloc.h>

#include "engine/pool.h"
#include "engine/relay.h"
#include "engine/server.h"

/* ---- a world: loop, engine, what callbacks noted ---- */

static void *poison_hook(void *arg, void *ptr, size_t size) {
    if (ptr && size == 0)
        memset(ptr, 0xdd, malloc_usable_size(ptr));
    return fail_alloc_hook(arg, ptr, size);
}

struct world {
    struct rig *rig;
    struct pge_engine engine;
    char log[512]; /* what came, in order: "value 1;fail TIMEOUT;closed;" */
    struct pge_request *requests[8];
    unsigned request_count;
    void (*on_message)(struct world *w, const struct pge_inbound_message *m); /* NULL: kept */
    void (*on_error)(struct world *w, struct pge_client *client);
    struct pge_client *client, *back;
    struct pge_server *server, *back_server;
    unsigned gone;
};

static struct world *world_new(void) {
    struct world *w = calloc(1, sizeof *w);
    w->rig = rig_new();
    pge_alloc_set(poison_hook, &w->rig->alloc);
    rig_stop_clock(w->rig);
    pge_engine_init(&w->engine, &w->rig->loop);
    return w;
}

static void note(struct world *w, const char *format, ...) {
    size_t n = strlen(w->log);
    va_list args;
    va_start(args, format);
    vsnprintf(w->log + n, sizeof w->log - n, format, args);
    va_end(args);
}

static void turn(struct world *w) {
    pge_loop_turn(&w->rig->loop);
}

static void world_free(struct world *w) {
    struct pge_client *clients[] = {w->client, w->back};
    for (int i = 0; i < 2; i++) {
        if (!clients[i])
            continue;
        pge_client_cancel_all(clients[i], w);
        pge_client_free(clients[i]);
    }
    if (w->server)
        pge_server_close(w->server);
    if (w->back_server)
        pge_server_close(w->back_server);
    rig_finish(w->rig);
    assert_true(pge_list_is_empty(&w->engine.pools));
    assert_true(pge_list_is_empty(&w->engine.servers));
    pge_engine_deinit(&w->engine);
    rig_free(w->rig);
    free(w);
}

/* ---- clients ---- */

static void on_packet(struct pge_call *call, enum pge_reply kind, struct pge_span body) {
    static const char *const names[] = {"value", "last", "end", "error", "foreign"};
    note(pge_call_arg(call), "%s %.*s;", names[kind], (int)(body.n < 60 ? body.n : 60),
         body.p ? body.p : "");
}

static void on_fail(struct pge_call *call, enum pge_fault fault, const char *message) {
    (void)message;
    note(pge_call_arg(call), "fail %s;", pge_fault_name(fault));
}

static const struct pge_call_events call_events = {on_packet, on_fail};

static void on_status(struct pge_client *client, enum pge_client_status status) {
    (void)client, (void)status;
}

static void on_client_error(struct pge_client *client, const char *message) {
    struct world *w = pge_client_owner(client);
    (void)message;
    if (w->on_error)
        w->on_error(w, client);
}

static void on_client_closed(struct pge_client *client) {
    note(pge_client_owner(client), "closed %u;", client->pool->links);
}

static void on_raw_packet(struct pge_client *client, struct pge_span packet, struct pge_span id) {
    (void)client, (void)packet, (void)id;
}

static const struct pge_client_events client_events = {on_status, on_client_error, on_client_closed,
                                                       on_raw_packet};

static char *text(const char *from) {
    return pge_strndup(from, strlen(from));
}

static struct pge_pool_options options_of(const struct pge_transport *transport, const char *name) {
    return (struct pge_pool_options){
        .transport = transport,
        .key = text(name),
        .name = text(name),
        .host_count = 1,
        .connections = 1,
        .connect_timeout_ms = 1000,
        .max_frame_units = 1 << 20,
        .max_queued_bytes = 1 << 20,
        .max_pending = 100,
        .max_waiting = 100,
    };
}

static struct pge_client *client_of(struct world *w, struct pge_pool_options o) {
    return pge_client_new(&w->engine, &o, &client_events, w);
}

static struct pge_client *local_client(struct world *w, const char *name) {
    return client_of(w, options_of(&pge_transport_local, name));
}

static struct pge_message message_of(const char *pattern, const char *data) {
    return (struct pge_message){.pattern = {pattern, strlen(pattern)},
                                .data.json = {data, strlen(data)}};
}

static struct pge_call *ask_with(struct world *w, struct pge_client *client, uint64_t timeout_ms,
                                 uint64_t deadline_ms) {
    struct pge_message m = message_of("\"p\"", "1");
    struct pge_call_options options = {
        .timeout_ms = timeout_ms, .deadline_ms = deadline_ms, .events = &call_events, .arg = w};
    struct pge_failure why;
    struct pge_call *call = pge_client_send(client, &m, &options, &why);
    if (!call)
        note(w, "refused %s;", pge_fault_name(why.fault));
    return call;
}

static struct pge_call *ask(struct world *w, struct pge_client *client) {
    return ask_with(w, client, 0, 0);
}

/* ---- servers ---- */

static void on_message(struct pge_server *server, const struct pge_inbound_message *m) {
    struct world *w = pge_server_owner(server);
    if (m->request && w->request_count < 8)
        w->requests[w->request_count++] = m->request;
    if (w->on_message)
        w->on_message(w, m);
}

static void on_gone(struct pge_server *server, struct pge_request *request) {
    struct world *w = pge_server_owner(server);
    w->gone++;
    pge_relay_gone(request);
}

static void on_fault(struct pge_server *server, struct pge_peer *peer, enum pge_fault fault,
                     const char *message) {
    (void)peer, (void)message;
    note(pge_server_owner(server), "fault %s;", pge_fault_name(fault));
}

static void on_server_closed(struct pge_server *server) {
    struct world *w = pge_server_owner(server);
    if (w->server == server)
        w->server = NULL;
    if (w->back_server == server)
        w->back_server = NULL;
}

static const struct pge_server_events server_events = {on_message, on_gone, on_fault,
                                                       on_server_closed};

static struct pge_server_options server_options(const char *name, size_t max_queued) {
    return (struct pge_server_options){
        .transport = &pge_transport_local,
        .name = text(name),
        .max_queued_bytes = max_queued,
        .pause_queued_bytes = 1 << 20,
        .write_timeout_ms = 1000,
        .max_peers = 100,
        .max_requests = 4,
    };
}

static struct pge_server *server_of(struct world *w, struct pge_server_options o) {
    struct pge_failure why;
    return pge_server_new(&w->engine, &o, &server_events, w, &why);
}

static struct pge_server *local_server(struct world *w, const char *name, size_t max_queued) {
    return server_of(w, server_options(name, max_queued));
}

static int reply(struct pge_request *request, enum pge_reply kind, const char *body) {
    struct pge_payload payload = {.json = {body, body ? strlen(body) : 0}};
    return pge_request_reply(request, kind, &payload);
}

/* ---- calls ---- */

static void test_answers(void **state) {
    struct world *w = *state;
    w->server = local_server(w, "a", 1 << 20);
    w->client = local_client(w, "a");
    ask(w, w->client);
    turn(w);
    assert_int_equal(w->request_count, 1);
    assert_int_equal(reply(w->requests[0], PGE_REPLY_VALUE, "1"), 0);
    assert_int_equal(reply(w->requests[0], PGE_REPLY_END, NULL), 0); /* merged (nest-wire 1.7) */
    turn(w);
    assert_string_equal(w->log, "last 1;");
    assert_int_equal(pge_client_pending(w->client), 0);
    assert_int_equal(w->server->pending, 0);
}

static void test_stale_handle(void **state) {
    volatile double zero = 0;
    struct world *w = *state;
    w->server = local_server(w, "a", 1 << 20);
    w->client = local_client(w, "a");
    double first = pge_call_handle(ask(w, w->client));
    pge_call_cancel(pge_client_call(w->client, first));
    for (unsigned i = 0; i < 3 * PGE_CALL_CHUNK; i++) {
        struct pge_call *call = ask(w, w->client);
        assert_true(call && pge_client_call(w->client, pge_call_handle(call)) == call);
        assert_null(pge_client_call(w->client, first));
        pge_call_cancel(call);
    }
    assert_null(pge_client_call(w->client, -1));
    assert_null(pge_client_call(w->client, 0x1p60));
    assert_null(pge_client_call(w->client, 0.0 / zero));
    assert_int_equal(w->client->pool->waiting_count, 0);
    assert_int_equal(w->client->pool->waiting_bytes, 0);
}

static void test_clock(void **state) {
    struct world *w = *state;
    w->server = local_server(w, "a", 1 << 20);
    w->client = local_client(w, "a");
    ask_with(w, w->client, 100, 250);
    turn(w);
    rig_pass(w->rig, 99);
    assert_string_equal(w->log, "");
    reply(w->requests[0], PGE_REPLY_VALUE, "1"); /* silence starts again, the deadline does not */
    turn(w);
    rig_pass(w->rig, 99);
    reply(w->requests[0], PGE_REPLY_VALUE, "2");
    turn(w);
    rig_pass(w->rig, 51);
    assert_string_equal(w->log, "value 1;value 2;");
    rig_pass(w->rig, 1);
    assert_string_equal(w->log, "value 1;value 2;fail TIMEOUT;");
    ask_with(w, w->client, 100, 0);
    rig_pass(w->rig, 100);
    assert_string_equal(w->log, "value 1;value 2;fail TIMEOUT;fail TIMEOUT;");
    reply(w->requests[0], PGE_REPLY_LAST, "3"); /* late */
    turn(w);
    assert_int_equal(pge_client_late_replies(w->client), 1);
    assert_int_equal(pge_client_pending(w->client), 0);
}

static void test_limits(void **state) {
    struct world *w = *state;
    struct pge_pool_options o = options_of(&pge_transport_local, "a");
    o.max_waiting = 2;
    o.max_pending = 6;
    w->server = local_server(w, "a", 1 << 20);
    w->client = client_of(w, o);
    for (int i = 0; i < 3; i++)
        ask(w, w->client);
    assert_string_equal(w->log, "refused OVERLOADED;");
    turn(w);
    for (int i = 0; i < 5; i++)
        ask(w, w->client);
    assert_string_equal(w->log, "refused OVERLOADED;refused OVERLOADED;");
    turn(w); /* the server takes 4 at a time */
    assert_int_equal(w->server->pending, 4);
    assert_int_equal(pge_client_pending(w->client), 4);
    assert_non_null(strstr(w->log, "\"code\":\"OVERLOADED\""));
}

static void close_client_after_reply(struct world *w, const struct pge_inbound_message *m) {
    w->on_message = NULL;
    reply(m->request, PGE_REPLY_LAST, "1");
    pge_client_close(w->client);
}

/* The local link was freed before its calls were failed. */
static void test_close_with_reply_under_way(void **state) {
    struct world *w = *state;
    w->server = local_server(w, "a", 1 << 20);
    w->client = local_client(w, "a");
    w->on_message = close_client_after_reply;
    ask(w, w->client);
    ask(w, w->client);
    turn(w);
    assert_string_equal(w->log, "fail CONNECTION_CLOSED;fail CONNECTION_CLOSED;closed 0;");
    assert_int_equal(w->client->pool->pending, 0);
    assert_int_equal(w->client->pool->waiting_count, 0);
}

static void test_send_after_server_closed(void **state) {
    struct world *w = *state;
    w->server = local_server(w, "a", 1 << 20);
    w->client = local_client(w, "a");
    ask(w, w->client);
    turn(w);
    pge_server_close(w->server);
    ask(w, w->client);
    assert_string_equal(w->log, "refused CONNECTION_CLOSED;");
    turn(w);
    assert_string_equal(w->log, "refused CONNECTION_CLOSED;fail CONNECTION_CLOSED;");
}

/* ---- packets made by the caller's own code, which may call back into us ---- */

struct maker {
    struct world *w;
    bool closes;
};

static int make(void *arg, struct pge_span id, struct pge_buf *out) {
    struct maker *maker = arg;
    char packet[128];
    if (maker->closes)
        pge_client_close(maker->w->client);
    else
        ask(maker->w, maker->w->client);
    snprintf(packet, sizeof packet, "{\"pattern\":\"made\",\"data\":2,\"id\":\"%.*s\"}", (int)id.n,
             id.p);
    return pge_buf_append(out, packet, strlen(packet));
}

static void ask_made(struct world *w, bool closes) {
    struct maker maker = {w, closes};
    struct pge_message m = {.pattern = {"", 0}, .write_packet = make, .arg = &maker};
    struct pge_call_options options = {.events = &call_events, .arg = w};
    struct pge_failure why;
    if (!pge_client_send(w->client, &m, &options, &why))
        note(w, "refused %s;", pge_fault_name(why.fault));
}

static void note_message(struct world *w, const struct pge_inbound_message *m) {
    note(w, "%.*s %.*s;", (int)m->pattern.n, m->pattern.p, (int)m->data.n, m->data.p);
}

static void test_maker_that_sends(void **state) {
    struct world *w = *state;
    w->server = local_server(w, "a", 1 << 20);
    w->client = local_client(w, "a");
    w->on_message = note_message;
    ask_made(w, false); /* held: it waits for the link */
    turn(w);
    ask_made(w, false);
    turn(w);
    assert_string_equal(w->log, "\"p\" 1;\"made\" 2;\"p\" 1;\"made\" 2;");
    assert_int_equal(pge_client_pending(w->client), 4);
}

static void test_maker_that_closes(void **state) {
    struct world *w = *state;
    w->server = local_server(w, "a", 1 << 20);
    w->client = local_client(w, "a");
    ask(w, w->client);
    turn(w);
    ask_made(w, true);
    turn(w);
    assert_string_equal(w->log, "fail CONNECTION_CLOSED;fail CONNECTION_CLOSED;closed 0;");
    assert_int_equal(pge_client_pending(w->client), 0);
}

/* ---- a transport whose links do what the test says ---- */

struct fake_link {
    struct pge_link base; /* first */
    struct pge_defer gone;
    char id[PGE_ID_LEN + 3]; /* of the last request, in quotes */
};

static struct fake_link *fakes[4];
static unsigned fake_count;

static void fake_gone(struct pge_defer *defer) {
    pge_link_closed(&container_of(defer, struct fake_link, gone)->base);
}

static int fake_connect(struct pge_link *link) {
    struct fake_link *self = container_of(link, struct fake_link, base);
    pge_defer_init(&self->gone, fake_gone);
    fakes[fake_count++ % 4] = self;
    return 0;
}

static int fake_send(struct pge_link *link, struct pge_call *call, const struct pge_message *m) {
    struct fake_link *self = container_of(link, struct fake_link, base);
    struct pge_span id = pge_call_id(call);
    (void)m;
    snprintf(self->id, sizeof self->id, "\"%.*s\"", (int)id.n, id.p);
    return 0;
}

static int fake_emit(struct pge_link *link, struct pge_call *call, const struct pge_message *m) {
    (void)link, (void)call, (void)m;
    return 0;
}

static void fake_forget(struct pge_link *link, struct pge_call *call) {
    (void)link, (void)call;
}

static size_t fake_queued(const struct pge_link *link) {
    (void)link;
    return 0;
}

static void fake_close(struct pge_link *link) {
    struct fake_link *self = container_of(link, struct fake_link, base);
    pge_loop_defer(link->pool->engine->loop, &self->gone, PGE_SOON);
}

static const struct pge_transport fake = {
    .name = "fake",
    .link_size = sizeof(struct fake_link),
    .link_connect = fake_connect,
    .link_send = fake_send,
    .link_emit = fake_emit,
    .link_forget = fake_forget,
    .link_queued = fake_queued,
    .link_close = fake_close,
};

static struct pge_client *fake_client(struct world *w, unsigned hosts) {
    struct pge_pool_options o = options_of(&fake, "fake");
    fake_count = 0;
    o.host_count = hosts;
    for (unsigned i = 0; i < hosts; i++)
        o.hosts[i] = (struct pge_host_options){.host = text("h"), .port = (uint16_t)(i + 1)};
    return client_of(w, o);
}

static void answer(struct fake_link *via, const char *id) {
    char packet[128];
    snprintf(packet, sizeof packet, "{\"response\":1,\"isDisposed\":true,\"id\":%s}", id);
    pge_link_packet(&via->base, (struct pge_span){packet, strlen(packet)});
}

/* Hosts of one pool do not answer for each other: an id is no secret to who has seen many. */
static void test_reply_by_another_host(void **state) {
    struct world *w = *state;
    w->client = fake_client(w, 2);
    ask(w, w->client);
    pge_link_ready(&fakes[0]->base);
    ask(w, w->client); /* the first host is busy: the second is dialled beside it */
    assert_int_equal(fake_count, 2);
    pge_link_ready(&fakes[1]->base);
    answer(fakes[1], fakes[0]->id);
    assert_string_equal(w->log, "");
    assert_int_equal(pge_client_late_replies(w->client), 1);
    answer(fakes[0], fakes[0]->id);
    assert_string_equal(w->log, "last 1;");
}

static void close_on_error(struct world *w, struct pge_client *client) {
    w->on_error = NULL;
    pge_client_close(client);
}

/* The next host was dialled for calls that the close had doomed, and the link stayed. */
static void test_close_on_error(void **state) {
    struct world *w = *state;
    w->client = fake_client(w, 2);
    w->on_error = close_on_error;
    ask(w, w->client);
    pge_link_lost(&fakes[0]->base, PGE_CONNECT_FAILED, "connect ECONNREFUSED");
    assert_int_equal(fake_count, 1);
    turn(w);
    assert_string_equal(w->log, "fail CONNECTION_CLOSED;closed 0;");
}

static void test_next_host(void **state) {
    struct world *w = *state;
    w->client = fake_client(w, 64);
    ask(w, w->client);
    for (unsigned i = 0; i < 63; i++) {
        assert_int_equal(fake_count, i + 1);
        pge_link_lost(&fakes[i % 4]->base, PGE_CONNECT_FAILED, "connect ECONNREFUSED");
        turn(w);
    }
    assert_string_equal(w->log, "");
    pge_link_lost(&fakes[63 % 4]->base, PGE_CONNECT_FAILED, "connect ECONNREFUSED");
    turn(w);
    assert_string_equal(w->log, "fail CONNECT_FAILED;");
    assert_int_equal(w->client->pool->links, 0);
}

/* ---- relays ---- */

static void relay(struct world *w, const struct pge_inbound_message *m) {
    struct pge_message out = {.pattern = m->pattern, .data.json = m->data};
    w->on_message = NULL;
    pge_relay_start(m->request, w->back, &out, 0);
}

/* client -> "front" -> back -> "back"; requests[0] is front's, requests[1] is back's. */
static void start_relay(struct world *w, size_t max_queued) {
    w->server = local_server(w, "front", max_queued);
    w->back_server = local_server(w, "back", 1 << 20);
    w->client = local_client(w, "front");
    w->back = local_client(w, "back");
    w->on_message = relay;
    ask(w, w->client);
    turn(w);
    assert_int_equal(w->request_count, 2);
}

static void test_relay_of_freed_client(void **state) {
    struct world *w = *state;
    start_relay(w, 1 << 20);
    pge_client_cancel_all(w->back, w); /* as its collection does: nothing of its own is in flight */
    pge_client_free(w->back);
    w->back = NULL;
    turn(w);
    reply(w->requests[1], PGE_REPLY_LAST, "7");
    turn(w);
    assert_string_equal(w->log, "last 7;");
}

static void test_relay_of_freed_client_and_peer(void **state) {
    struct world *w = *state;
    start_relay(w, 1 << 20);
    pge_client_cancel_all(w->back, w);
    pge_client_free(w->back);
    w->back = NULL;
    pge_client_close(w->client);
    turn(w);
    assert_string_equal(w->log, "fail CONNECTION_CLOSED;closed 0;");
    assert_int_equal(w->gone, 2); /* front's, then back's */
    assert_int_equal(w->server->pending, 0);
}

/* A relayed value the peer cannot take: its call ended, and nothing of it reached another request.
 */
static void test_relay_too_large(void **state) {
    struct world *w = *state;
    char large[300];
    memset(large, '1', sizeof large);
    large[299] = '\0';
    start_relay(w, 256);
    reply(w->requests[1], PGE_REPLY_VALUE, large);
    turn(w);
    assert_non_null(strstr(w->log, "error {\"status\":\"error\",\"code\":\"FRAME_TOO_LARGE\""));
    assert_int_equal(w->server->pending, 0);
    assert_int_equal(pge_client_pending(w->back), 0);
    reply(w->requests[1], PGE_REPLY_VALUE, "2");
    turn(w);
    assert_int_equal(pge_client_late_replies(w->back), 1);
}

static void test_relay_too_large_then_more(void **state) {
    struct world *w = *state;
    char large[300];
    memset(large, '1', sizeof large);
    large[299] = '\0';
    start_relay(w, 256);
    reply(w->requests[1], PGE_REPLY_VALUE, large);
    reply(w->requests[1], PGE_REPLY_VALUE, "2");
    reply(w->requests[1], PGE_REPLY_LAST, "3");
    turn(w);
    assert_non_null(strstr(w->log, "error {\"status\":\"error\",\"code\":\"FRAME_TOO_LARGE\""));
    assert_int_equal(w->server->pending, 0);
    assert_int_equal(pge_client_pending(w->back), 0);
}

/* ---- the end of a turn ---- */

static void again(struct pge_defer *defer);

static struct {
    struct pge_defer soon, flush;
    struct pge_loop *loop;
    unsigned soons, flushes;
} work;

static void again(struct pge_defer *defer) {
    if (++work.soons < 1000)
        pge_loop_defer(work.loop, defer, PGE_SOON);
}

static void flushed(struct pge_defer *defer) {
    (void)defer;
    work.flushes++;
}

/* In-process traffic without end must not hold back what goes to the network. */
static void test_flush_is_not_starved(void **state) {
    struct world *w = *state;
    work.loop = &w->rig->loop;
    work.soons = work.flushes = 0;
    pge_defer_init(&work.soon, again);
    pge_defer_init(&work.flush, flushed);
    pge_loop_defer(work.loop, &work.soon, PGE_SOON);
    pge_loop_defer(work.loop, &work.flush, PGE_FLUSH);
    turn(w);
    assert_int_equal(work.flushes, 1);
    assert_true(work.soons < 1000);
}

/* ---- each allocation fails once ---- */

static void answer_twice(struct world *w, const struct pge_inbound_message *m) {
    (void)w;
    reply(m->request, PGE_REPLY_VALUE, "1");
    reply(m->request, PGE_REPLY_LAST, "2");
}

static void scenario(struct world *w, size_t grants) {
    struct pge_server_options served = server_options("a", 1 << 20);
    struct pge_pool_options dialled = options_of(&pge_transport_local, "a");
    w->rig->alloc.grants = grants;
    w->on_message = answer_twice;
    w->server = server_of(w, served);
    w->client = client_of(w, dialled);
    if (!w->client)
        return;
    ask(w, w->client);
    turn(w);
    ask(w, w->client);
    ask_made(w, false);
    turn(w);
    pge_client_close(w->client);
    turn(w);
}

static void test_allocations(void **state) {
    struct world *w = *state;
    size_t fails = 0;
    for (;; fails++) {
        struct world *one = world_new();
        scenario(one, fails);
        bool all = one->rig->alloc.grants > 0;
        one->rig->alloc.grants = (size_t)-1;
        world_free(one);
        if (all)
            break;
        assert_true(fails < 1000);
    }
    assert_true(fails > 10);
    pge_alloc_set(poison_hook, &w->rig->alloc);
}

static int setup(void **state) {
    *state = world_new();
    return 0;
}

static int teardown(void **state) {
    world_free(*state);
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    alarm(60);
    const struct CMUnitTest tests[] = {
        TEST(test_answers),
        TEST(test_stale_handle),
        TEST(test_clock),
        TEST(test_limits),
        TEST(test_close_with_reply_under_way),
        TEST(test_send_after_server_closed),
        TEST(test_maker_that_sends),
        TEST(test_maker_that_closes),
        TEST(test_reply_by_another_host),
        TEST(test_close_on_error),
        TEST(test_next_host),
        TEST(test_relay_of_freed_client),
        TEST(test_relay_of_freed_client_and_peer),
        TEST(test_relay_too_large),
        TEST(test_relay_too_large_then_more),
        TEST(test_flush_is_not_starved),
        TEST(test_allocations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
