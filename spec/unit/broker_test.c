/*
 * broker_test.c - what the engine does for transports over brokers, with one made here whose
 * connections do what the test says. The clock is stopped.
 */
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

static void note(const char *format, ...) {
    struct world *w = the_world;
    size_t n = strlen(w->log);
    va_list args;
    va_start(args, format);
    vsnprintf(w->log + n, sizeof w->log - n, format, args);
    va_end(args);
}

/* Compares the log and begins it anew. */
static void expect(const char *log) {
    assert_string_equal(the_world->log, log);
    the_world->log[0] = '\0';
}

static void turn(void) {
    pge_loop_turn(&the_world->rig->loop);
}

static void pass(uint64_t ms) {
    rig_pass(the_world->rig, ms);
    turn();
}

static char *text(const char *from) {
    return pge_strndup(from, strlen(from));
}

static struct pge_span span(const char *from) {
    return (struct pge_span){from, strlen(from)};
}

/* ---- the transport: links ---- */

struct test_link {
    struct pge_link base; /* first */
    struct pge_defer gone;
};

static struct pge_link *link_now; /* the last one dialled */
static bool acks, resumes;

static void link_gone(struct pge_defer *defer) {
    pge_link_closed(&container_of(defer, struct test_link, gone)->base);
}

static int link_connect(struct pge_link *link) {
    pge_defer_init(&container_of(link, struct test_link, base)->gone, link_gone);
    note("dial %u;", link->host->at->port);
    link_now = link;
    return 0;
}

static int link_send(struct pge_link *link, struct pge_call *call, const struct pge_message *m) {
    (void)link, (void)call;
    note("send %.*s", (int)m->pattern.n, m->pattern.p);
    for (unsigned i = 0; i < m->headers.count; i++)
        note(" %.*s=%.*s", (int)m->headers.at[i].name.n, m->headers.at[i].name.p,
             (int)m->headers.at[i].value.n, m->headers.at[i].value.p);
    note(";");
    return 0;
}

static int link_emit(struct pge_link *link, struct pge_call *call, const struct pge_message *m) {
    if (acks && !call)
        return PGE_EMIT_ACKED;
    if (m->pattern.p[1] == '!') {
        snprintf(link->why, sizeof link->why, "illegal");
        return UV_EINVAL;
    }
    note("emit %.*s;", (int)m->pattern.n, m->pattern.p);
    return acks ? PGE_EMIT_ACKED : 0;
}

static void link_forget(struct pge_link *link, struct pge_call *call) {
    (void)link, (void)call;
    note("forget;");
}

static int link_resume(struct pge_link *link, struct pge_call *call) {
    (void)link, (void)call;
    note("resume;");
    return resumes ? 0 : UV_ENOTSUP;
}

static size_t link_queued(const struct pge_link *link) {
    (void)link;
    return 0;
}

static void link_close(struct pge_link *link) {
    struct test_link *self = container_of(link, struct test_link, base);
    pge_loop_defer(link->pool->engine->loop, &self->gone, PGE_SOON);
}

/* ---- the transport: the peer ---- */

struct test_peer {
    struct pge_peer base; /* first */
    struct pge_defer gone;
};

static int dial_status;

static void peer_gone(struct pge_defer *defer) {
    pge_peer_closed(&container_of(defer, struct test_peer, gone)->base);
}

static int peer_dial(struct pge_peer *peer, const struct pge_host_options *at) {
    pge_defer_init(&container_of(peer, struct test_peer, base)->gone, peer_gone);
    note("dial %u;", at->port);
    return dial_status;
}

static void peer_hangup(struct pge_peer *peer) {
    (void)peer;
    note("hangup;");
}

static int peer_subscribe(struct pge_peer *peer, struct pge_subscription *subscription) {
    (void)peer;
    note("sub %s;", subscription->route);
    return 0;
}

static void peer_unsubscribe(struct pge_peer *peer, struct pge_subscription *subscription) {
    (void)peer;
    note("unsub %s;", subscription->route);
}

static void peer_leave(struct pge_peer *peer) {
    (void)peer;
    note("leave;");
}

static void peer_settle(struct pge_peer *peer, struct pge_request *request,
                        enum pge_verdict verdict) {
    (void)peer;
    note("settle %.*s %s;", (int)pge_request_reply_to(request).n, pge_request_reply_to(request).p,
         verdict == PGE_ACK ? "ack" : "nack");
}

static int check_route(const struct pge_settings *settings, const char *route, char *why,
                       size_t size) {
    (void)settings;
    snprintf(why, size, "illegal %s", route);
    return strchr(route, ' ') ? UV_EINVAL : 0;
}

static int peer_reply(struct pge_peer *peer, const struct pge_request *request, enum pge_reply kind,
                      const struct pge_payload *body) {
    (void)peer, (void)kind, (void)body;
    note("reply %.*s;", (int)pge_request_reply_to(request).n, pge_request_reply_to(request).p);
    return 0;
}

static int peer_no_handler(struct pge_peer *peer, const struct pge_request *request) {
    (void)peer, (void)request;
    return 0;
}

static size_t peer_queued(const struct pge_peer *peer) {
    (void)peer;
    return 0;
}

static uint64_t peer_taken(const struct pge_peer *peer) {
    (void)peer;
    return 0;
}

static void peer_read(struct pge_peer *peer, bool wanted) {
    (void)peer, (void)wanted;
}

static void peer_probe(struct pge_peer *peer) {
    (void)peer;
}

static void peer_name(const struct pge_peer *peer, char *out, size_t size) {
    pge_broker_address(peer->server, out, size);
}

static void peer_close(struct pge_peer *peer, bool flush) {
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

/* ---- clients ---- */

static void on_packet(struct pge_call *call, enum pge_reply kind, struct pge_span body) {
    (void)call;
    note(kind == PGE_REPLY_END ? "end;" : "value %.*s;", (int)body.n, body.p);
}

static void on_fail(struct pge_call *call, enum pge_fault fault, const char *message) {
    (void)call, (void)message;
    note("fail %s;", pge_fault_name(fault));
}

static const struct pge_call_events call_events = {on_packet, on_fail};

static void on_status(struct pge_client *client, enum pge_client_status status) {
    static const char *const names[] = {"disconnected", "connected", "reconnecting"};
    (void)client;
    note("%s;", names[status]);
}

static void on_error(struct pge_client *client, const char *message) {
    (void)client, (void)message;
}

static void on_client_closed(struct pge_client *client) {
    (void)client;
}

static void on_raw(struct pge_client *client, struct pge_span packet, struct pge_span id) {
    (void)client, (void)packet, (void)id;
}

static const struct pge_client_events client_events = {on_status, on_error, on_client_closed,
                                                       on_raw};

static void open_client(unsigned hosts, enum pge_offline offline, bool resume) {
    struct world *w = the_world;
    struct pge_pool_options o = {
        .transport = &transport,
        .key = text("k"),
        .host_count = hosts,
        .connections = 4,
        .max_queued_bytes = 1 << 20,
        .max_pending = 100,
        .max_waiting = 3,
        .offline = offline,
        .resumes = resume,
    };
    for (unsigned i = 0; i < hosts; i++)
        o.hosts[i] = (struct pge_host_options){.host = text("h"), .port = (uint16_t)(i + 1)};
    w->client = pge_client_new(&w->engine, &o, &client_events, w);
}

static struct pge_call *ask(const char *pattern, struct pge_headers headers) {
    struct pge_message m = {.pattern = span(pattern), .data.json = {"1", 1}, .headers = headers};
    struct pge_call_options options = {.timeout_ms = 5000, .events = &call_events};
    struct pge_failure why;
    struct pge_call *call = pge_client_send(the_world->client, &m, &options, &why);
    if (!call)
        note("refused %s: %s;", pge_fault_name(why.fault), why.message);
    return call;
}

static int emit(const char *pattern) {
    struct pge_message m = {.pattern = span(pattern), .data.json = {"1", 1}};
    struct pge_call_options options = {.timeout_ms = 1000, .events = &call_events};
    struct pge_failure why;
    int status = pge_client_emit(the_world->client, &m, &options, &why);
    if (status < 0)
        note("refused %s: %s;", pge_fault_name(why.fault), why.message);
    return status;
}

static void lose(const char *why) {
    pge_link_lost(link_now, PGE_CONNECTION_CLOSED, why);
    turn();
}

static void test_one_link(void **state) {
    (void)state;
    open_client(3, PGE_OFFLINE_FAIL, false);
    ask("\"a\"", (struct pge_headers){0});
    pge_link_ready(link_now);
    for (int i = 0; i < 5; i++)
        ask("\"b\"", (struct pge_headers){0});
    expect("dial 1;connected;send \"a\";send \"b\";send \"b\";send \"b\";send \"b\";send \"b\";");
}

static void test_comes_back(void **state) {
    (void)state;
    open_client(2, PGE_OFFLINE_FAIL, false);
    ask("\"a\"", (struct pge_headers){0});
    pge_link_ready(link_now);
    expect("dial 1;connected;send \"a\";");
    lose("gone");
    expect("disconnected;reconnecting;fail CONNECTION_CLOSED;");
    pass(100); /* nobody has to ask */
    expect("dial 2;");
    lose("connect ECONNREFUSED");
    expect("dial 1;");
    ask("\"b\"", (struct pge_headers){0}); /* waits for the dial under way */
    lose("connect ECONNREFUSED");
    expect("fail CONNECT_FAILED;");
    pass(200);
    expect("dial 2;");
    pge_link_ready(link_now);
    expect("connected;");
    struct pge_client_counts counts;
    pge_client_count(the_world->client, &counts);
    assert_int_equal(counts.reconnects, 1);
}

/* Who never had a link does not dial unasked; who closed does not either. */
static void test_stays_away(void **state) {
    (void)state;
    open_client(1, PGE_OFFLINE_FAIL, false);
    ask("\"a\"", (struct pge_headers){0});
    lose("connect ECONNREFUSED");
    expect("dial 1;fail CONNECT_FAILED;");
    pass(60000);
    expect("");
    ask("\"a\"", (struct pge_headers){0});
    pge_link_ready(link_now);
    lose("gone");
    pge_client_close(the_world->client);
    turn();
    the_world->log[0] = '\0';
    pass(60000);
    expect("");
}

static void test_queue(void **state) {
    (void)state;
    open_client(1, PGE_OFFLINE_QUEUE, false);
    assert_int_equal(emit("\"a\""), 0);
    assert_int_equal(emit("\"b\""), 0);
    lose("connect ECONNREFUSED");
    expect("dial 1;");
    assert_int_equal(emit("\"c\""), 0);
    assert_int_equal(emit("\"d\""), -1);
    ask("\"e\"", (struct pge_headers){0}); /* there is no room for requests either */
    the_world->log[0] = '\0';
    pass(2000);
    pge_link_ready(link_now);
    expect("connected;emit \"a\";end;emit \"b\";end;emit \"c\";end;");
}

static void test_drop(void **state) {
    (void)state;
    open_client(1, PGE_OFFLINE_DROP, false);
    assert_int_equal(emit("\"a\""), 0); /* the first waits for the first dial */
    lose("connect ECONNREFUSED");
    expect("dial 1;fail CONNECT_FAILED;");
    assert_int_equal(emit("\"b\""), 1); /* and dials again */
    assert_int_equal(emit("\"c\""), 1);
    expect("dial 1;");
    struct pge_client_counts counts;
    pge_client_count(the_world->client, &counts);
    assert_int_equal(counts.dropped, 2);
    pge_link_ready(link_now);
    assert_int_equal(emit("\"d\""), 1);
    expect("connected;emit \"d\";");
}

static void test_resume(void **state) {
    (void)state;
    struct pge_header header = {span("x"), span("y")};
    resumes = true;
    open_client(1, PGE_OFFLINE_FAIL, true);
    struct pge_call *old = ask("\"a\"", (struct pge_headers){0});
    pge_link_ready(link_now);
    lose("gone");
    expect("dial 1;connected;send \"a\";disconnected;reconnecting;");
    ask("\"b\"", (struct pge_headers){&header, 1});
    lose("connect ECONNREFUSED");
    expect("dial 1;");
    pass(1000);
    pge_link_ready(link_now);
    expect("dial 1;connected;resume;send \"b\" x=y;");
    char packet[96];
    struct pge_span id = pge_call_id(old);
    snprintf(packet, sizeof packet, "{\"response\":7,\"isDisposed\":true,\"id\":\"%.*s\"}",
             (int)id.n, id.p);
    pge_link_packet(link_now, span(packet));
    expect("forget;value 7;");
    pass(5000); /* the other's time is up, wherever it waits */
    expect("forget;fail TIMEOUT;");
}

static void test_resume_impossible(void **state) {
    (void)state;
    resumes = false;
    open_client(1, PGE_OFFLINE_FAIL, true);
    ask("\"a\"", (struct pge_headers){0});
    pge_link_ready(link_now);
    lose("gone");
    pass(100);
    the_world->log[0] = '\0';
    pge_link_ready(link_now);
    expect("connected;resume;fail CONNECTION_CLOSED;");
}

static void test_acked(void **state) {
    (void)state;
    open_client(1, PGE_OFFLINE_FAIL, false);
    acks = true;
    assert_int_equal(emit("\"held\""), 0);
    pge_link_ready(link_now);
    assert_int_equal(emit("\"now\""), 0);
    assert_int_equal(emit("\"!\""), 0 - 1);
    expect("dial 1;connected;emit \"held\";emit \"now\";refused INVALID_MESSAGE: illegal;");
    struct pge_call *call = pge_client_newest(the_world->client);
    struct pge_call *found = pge_link_call(link_now, pge_call_id(call));
    assert_ptr_equal(found, call);
    pge_link_reply(call, PGE_REPLY_END, (struct pge_span){0});
    expect("forget;end;");
    pass(1000);
    expect("forget;fail TIMEOUT;");
}

static void test_packet_for(void **state) {
    (void)state;
    open_client(1, PGE_OFFLINE_FAIL, false);
    struct pge_call *call = ask("\"a\"", (struct pge_headers){0});
    pge_link_ready(link_now);
    the_world->log[0] = '\0';
    assert_int_equal(pge_link_packet_for(link_now, call, span("{\"response\":1,\"id\":\"x\"}")), 0);
    assert_int_equal(pge_client_late_replies(the_world->client), 1);
    assert_int_equal(pge_link_packet_for(link_now, call, span("hello")), UV_EPROTO);
    assert_int_equal(pge_link_packet_for(link_now, call, span("{\"response\":1}")), 0);
    assert_int_equal(pge_link_packet_for(link_now, call, span("{\"id\":null,\"x\":1}")), 0);
    expect("value 1;forget;value {\"id\":null,\"x\":1};");
}

static void test_learn(void **state) {
    (void)state;
    open_client(1, PGE_OFFLINE_FAIL, false);
    ask("\"a\"", (struct pge_headers){0});
    pge_link_ready(link_now);
    pge_link_learn(link_now, "h", 1); /* known */
    pge_link_learn(link_now, "10.0.0.2", 2);
    for (unsigned i = 0; i < 100; i++)
        pge_link_learn(link_now, "h", (uint16_t)(100 + i));
    assert_int_equal(pge_client_host_count(the_world->client), PGE_MAX_HOSTS);
    const struct pge_host_options *learnt = &the_world->client->pool->options.hosts[1];
    assert_string_equal(learnt->server_name, "h"); /* certificates do not bear numbers */
    assert_null(the_world->client->pool->options.hosts[2].server_name);
    the_world->log[0] = '\0';
    lose("gone");
    pass(100);
    expect("disconnected;reconnecting;fail CONNECTION_CLOSED;dial 2;");
}

/* ---- servers ---- */

static void on_message(struct pge_server *server, const struct pge_inbound_message *m) {
    (void)server;
    note("%s %u %.*s %.*s;", m->is_event || !m->request ? "event" : "request", m->subscription,
         (int)m->pattern.n, m->pattern.p, (int)m->data.n, m->data.p);
}

static void on_gone(struct pge_server *server, struct pge_request *request) {
    (void)server, (void)request;
    note("gone;");
}

static void on_fault(struct pge_server *server, struct pge_peer *peer, enum pge_fault fault,
                     const char *message) {
    (void)server, (void)peer, (void)message;
    note("fault %s;", pge_fault_name(fault));
}

static void on_server_closed(struct pge_server *server) {
    (void)server;
    the_world->server = NULL;
    note("closed;");
}

static void on_server_status(struct pge_server *server, enum pge_server_status status,
                             enum pge_fault fault, const char *message) {
    static const char *const names[] = {"READY", "FAILED", "LOST", "RECONNECTED"};
    (void)server, (void)fault, (void)message;
    note("%s;", names[status]);
}

static const struct pge_server_events server_events = {on_message, on_gone, on_fault,
                                                       on_server_closed, on_server_status};

static struct pge_peer *open_server(void) {
    struct world *w = the_world;
    struct pge_failure why;
    struct pge_server_options o = {
        .transport = &transport,
        .host_count = 2,
        .max_queued_bytes = 1 << 20,
        .pause_queued_bytes = 1 << 20,
        .write_timeout_ms = 1000,
        .max_peers = 1,
        .max_requests = 2,
    };
    for (unsigned i = 0; i < 2; i++)
        o.hosts[i] = (struct pge_host_options){.host = text("h"), .port = (uint16_t)(i + 1)};
    w->server = pge_server_new(&w->engine, &o, &server_events, w, &why);
    return w->server ? w->server->broker : NULL;
}

static int subscribe(const char *a, const char *b) {
    struct pge_wish wishes[2] = {{.route = a}, {.route = b}};
    struct pge_failure why;
    pge_settings_add(&wishes[0].settings, "queue", "q");
    int status = pge_server_subscribe(the_world->server, wishes, b ? 2 : 1, &why);
    if (status < 0)
        note("refused %s: %s;", pge_fault_name(why.fault), why.message);
    return status;
}

static void test_server_life(void **state) {
    (void)state;
    struct pge_peer *peer = open_server();
    assert_false(pge_server_is_ready(the_world->server));
    assert_int_equal(subscribe("a", "b"), 0);
    pge_peer_down(peer, PGE_CONNECT_FAILED, "connect ECONNREFUSED");
    expect("dial 1;dial 2;");
    pge_peer_up(peer);
    expect("READY;");
    assert_int_equal(subscribe("b", NULL), 0); /* another b: it has a queue */
    expect("sub b;unsub a;unsub b;");
    assert_int_equal(subscribe("b", "c"), 0);
    expect("sub c;");
    assert_int_equal(subscribe("x", "y z"), UV_EINVAL);
    expect("refused INVALID_OPTION: illegal y z;");
    pge_peer_down(peer, PGE_CONNECTION_CLOSED, "gone");
    expect("LOST;");
    assert_int_equal(subscribe("c", NULL), 0); /* the next dial sees it */
    expect("");
    assert_int_equal(the_world->server->subscription_count, 1);
    pass(100);
    expect("dial 1;");
    pge_peer_down(peer, PGE_CONNECT_FAILED, "no");
    pge_peer_down(peer, PGE_CONNECT_FAILED, "no");
    expect("dial 2;");
    pass(200);
    expect("dial 1;");
    pge_peer_up(peer);
    expect("RECONNECTED;");
    pge_server_close(the_world->server);
    turn();
    expect("close;closed;");
}

static void test_server_fails(void **state) {
    (void)state;
    struct pge_peer *peer = open_server();
    pge_peer_down(peer, PGE_CONNECT_FAILED, "no");
    pge_peer_down(peer, PGE_CONNECT_FAILED, "no");
    expect("dial 1;dial 2;FAILED;");
    pass(10000);
    expect("");
    pge_server_close(the_world->server);
    turn();
    expect("close;closed;");
    dial_status = UV_ENOMEM;
    assert_null(open_server());
    expect("dial 1;dial 2;");
    the_world->server = NULL;
}

static const struct pge_subscription *first_subscription(void) {
    return container_of(the_world->server->subscriptions.next, struct pge_subscription, node);
}

static struct pge_origin from(const char *channel, const char *reply_to) {
    struct pge_origin origin = {.subscription = first_subscription(), .channel = span(channel)};
    if (reply_to)
        origin.reply_to = span(reply_to);
    return origin;
}

static void test_messages(void **state) {
    (void)state;
    struct pge_peer *peer = open_server();
    subscribe("a", NULL);
    pge_peer_up(peer);
    the_world->log[0] = '\0';
    struct pge_origin plain = from("a", NULL), object = from("{\"b\":1,\"c\":2}", NULL);
    assert_int_equal(pge_peer_packet_from(peer, span("{\"pattern\":\"a\",\"data\":1}"), &plain), 0);
    assert_int_equal(pge_peer_packet_from(peer, span("{\"pattern\":\"z\",\"data\":2}"), &plain), 0);
    assert_int_equal(pge_peer_packet_from(peer, span("[3]"), &plain), 0);
    assert_int_equal(
        pge_peer_packet_from(peer, span("{\"pattern\":{\"c\":2,\"b\":1},\"data\":4}"), &object), 0);
    assert_int_equal(pge_peer_event_from(peer, span("\"5\""), &plain), 0);
    assert_int_equal(pge_peer_packet_from(peer, span("x"), &plain), UV_EPROTO);
    expect("event 1 \"a\" 1;event 1 \"a\" 2;event 1 \"a\" [3];event 1 {\"c\":2,\"b\":1} 4;"
           "event 1 \"a\" \"5\";");
    static char far[PGE_MAX_REPLY_TO + 2];
    memset(far, 'x', sizeof far - 1);
    struct pge_origin too_far = from("a", far);
    assert_int_equal(pge_peer_packet_from(peer, span("{\"data\":1,\"id\":1}"), &too_far),
                     UV_EMSGSIZE);
}

/* Requests outlive the connection; a slow broker is cut off, and dialled anew. */
static void test_requests_outlive(void **state) {
    (void)state;
    struct pge_peer *peer = open_server();
    subscribe("a", NULL);
    pge_peer_up(peer);
    struct pge_origin asked = from("a", "inbox");
    pge_peer_packet_from(peer, span("{\"data\":1,\"id\":1}"), &asked);
    the_world->log[0] = '\0';
    pge_peer_lost(peer, PGE_OVERLOADED, "it does not read");
    expect("hangup;");
    turn();
    expect("fault OVERLOADED;LOST;");
    struct pge_request *request = container_of(peer->requests.next, struct pge_request, node);
    pge_request_reply(request, PGE_REPLY_END, &(struct pge_payload){0});
    expect("reply inbox;");
    pass(100);
    expect("dial 2;");
}

static void test_verdicts(void **state) {
    (void)state;
    struct pge_peer *peer = open_server();
    subscribe("a", NULL);
    pge_peer_up(peer);
    the_world->log[0] = '\0';
    struct pge_origin owed = from("a", "ack");
    owed.wants_verdict = true;
    owed.body = span("kept");
    for (int i = 0; i < 3; i++) /* one more than max_requests */
        pge_peer_packet_from(peer, span("{\"data\":1,\"id\":1}"), &owed);
    expect("event 1 \"a\" 1;event 1 \"a\" 1;settle ack nack;");
    struct pge_request *request = container_of(peer->requests.next, struct pge_request, node);
    assert_memory_equal(pge_buf_head(&request->held), "kept", 4);
    pge_request_settle(request, PGE_ACK);
    request = container_of(peer->requests.next, struct pge_request, node);
    pge_request_no_handler(request);
    expect("settle ack ack;settle ack nack;");
    assert_int_equal(peer->pending, 0);
}

static void test_drain(void **state) {
    (void)state;
    struct pge_peer *peer = open_server();
    subscribe("a", NULL);
    pge_peer_up(peer);
    struct pge_origin asked = from("a", "inbox");
    pge_peer_packet_from(peer, span("{\"data\":1,\"id\":1}"), &asked);
    the_world->log[0] = '\0';
    pge_server_drain(the_world->server);
    expect("leave;");
    pge_peer_packet_from(peer, span("{\"data\":2,\"id\":2}"), &asked); /* it was on its way */
    pge_peer_left(peer);
    expect("request 1 \"a\" 2;");
    while (peer->pending) {
        struct pge_request *request = container_of(peer->requests.next, struct pge_request, node);
        pge_request_reply(request, PGE_REPLY_END, &(struct pge_payload){0});
    }
    expect("reply inbox;reply inbox;finish;");
    turn();
    expect("closed;");
}

static void test_drain_without_connection(void **state) {
    (void)state;
    struct pge_peer *peer = open_server();
    subscribe("a", NULL);
    pge_peer_up(peer);
    struct pge_origin asked = from("a", "inbox");
    pge_peer_packet_from(peer, span("{\"data\":1,\"id\":1}"), &asked);
    pge_peer_down(peer, PGE_CONNECTION_CLOSED, "gone");
    the_world->log[0] = '\0';
    pge_server_drain(the_world->server);
    turn();
    expect("close;gone;closed;");
}

static void test_loss_while_draining(void **state) {
    (void)state;
    struct pge_peer *peer = open_server();
    subscribe("a", NULL);
    pge_peer_up(peer);
    pge_server_drain(the_world->server);
    the_world->log[0] = '\0';
    pge_peer_down(peer, PGE_CONNECTION_CLOSED, "gone");
    turn();
    expect("close;fault CONNECTION_CLOSED;closed;");
}

/* ---- */

static int setup(void **state) {
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

static int teardown(void **state) {
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

int main(void) {
    alarm(60);
    const struct CMUnitTest tests[] = {
        TEST(test_one_link),
        TEST(test_comes_back),
        TEST(test_stays_away),
        TEST(test_queue),
        TEST(test_drop),
        TEST(test_resume),
        TEST(test_resume_impossible),
        TEST(test_acked),
        TEST(test_packet_for),
        TEST(test_learn),
        TEST(test_server_life),
        TEST(test_server_fails),
        TEST(test_messages),
        TEST(test_requests_outlive),
        TEST(test_verdicts),
        TEST(test_drain),
        TEST(test_drain_without_connection),
        TEST(test_loss_while_draining),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
