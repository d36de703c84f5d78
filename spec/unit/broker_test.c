/* broker_test.c - servers over brokers: dials, subscriptions, messages, ends. */
#include "broker_support.h"

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
    expect("dial 1;sub a;sub b;dial 2;");
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
    assert_int_equal(subscribe("c", NULL), 0); /* told at any time: a dial may be half-way */
    expect("sub c;unsub b;unsub c;");
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

int main(void) {
    alarm(60);
    const struct CMUnitTest tests[] = {
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
