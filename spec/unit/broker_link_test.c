/* broker_link_test.c - clients over brokers: the one link, its losses, what waits meanwhile. */
#include "broker_support.h"

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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
