/* http_server_test.c - requests and replies over real sockets: what is said, and in which order. */
#include <signal.h>
#include <time.h>

#include "http_support.h"

#define PLAIN "HTTP/1.1 200 OK\r\n@Content-Length: 2\r\n\r\nok"

static void echo(struct front *f, struct pge_http_request *req) {
    (void)f;
    const struct pge_http_message *m = pge_http_request_message(req);
    assert_int_equal(pge_http_reply(req, 200, NULL, 0, m->body), 0);
}

static void echo_path(struct front *f, struct pge_http_request *req) {
    (void)f;
    assert_int_equal(pge_http_reply(req, 200, NULL, 0, pge_http_request_message(req)->path), 0);
}

static void exchange(struct client *c, const char *request, const char *reply) {
    size_t n = strlen(reply) - count_of(reply, "@") + 37 * count_of(reply, "@");
    client_forget(c);
    client_send(c, request);
    client_until(c, c->n >= n || c->end);
    assert_received(c, reply);
}

static void answers_on_one_connection(void **state) {
    (void)state;
    struct front *f = open_with(echo);
    struct client *c = client_connected(f);
    exchange(c, GET, "HTTP/1.1 200 OK\r\n@Content-Length: 0\r\n\r\n");
    assert_string_equal(f->last, "GET / ");
    exchange(c, "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
             "HTTP/1.1 200 OK\r\n@Content-Length: 3\r\n\r\nabc");
    exchange(
        c,
        "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n"
        "0\r\n\r\n",
        "HTTP/1.1 200 OK\r\n@Content-Length: 3\r\n\r\nabc");
    assert_int_equal(c->end, 0);
    assert_int_equal(pge_http_server_stats(f->server).requests, 3);
    assert_int_equal(pge_http_server_stats(f->server).connections, 1);
    assert_int_equal(pge_http_server_stats(f->server).refused, 0);
    client_close(c);
    front_free(f);
}

static void tells_date_peer_and_headers(void **state) {
    (void)state;
    struct front *f = open_with(NULL);
    struct client *c = client_connected(f);
    char peer[64], wanted[64], date[64];
    struct sockaddr_in me;
    socklen_t size = sizeof me;
    getsockname(c->fd, (struct sockaddr *)&me, &size);
    snprintf(wanted, sizeof wanted, "127.0.0.1:%d", ntohs(me.sin_port));
    client_send(c, "GET / HTTP/1.1\r\nHost: a\r\nX-One: 1\r\nx-one: 2\r\n\r\n");
    client_until(c, f->waiting[0]);
    pge_http_request_peer(f->waiting[0], peer, sizeof peer);
    assert_string_equal(peer, wanted);
    assert_memory_equal(pge_http_request_header(f->waiting[0], "x-one").p, "1", 1);
    assert_null(pge_http_request_header(f->waiting[0], "x").p);
    assert_ptr_equal(*pge_http_request_user(f->waiting[0]), f);
    f->server->date_s = 1; /* as if the clock had jumped: never shown again */
    say_ok(f, f->waiting[0]);
    f->waiting[0] = NULL;
    client_until_text(c, "ok");
    time_t now = time(NULL);
    bool is_now = false;
    for (time_t t = now - 2; t <= now; t++) {
        strftime(date, sizeof date, "Date: %a, %d %b %Y %H:%M:%S GMT\r\n", gmtime(&t));
        is_now |= strstr(c->text, date) != NULL;
    }
    assert_true(is_now);
    client_close(c);
    front_free(f);
}

static void reply_status(struct front *f, struct pge_http_request *req) {
    (void)f;
    const struct pge_http_message *m = pge_http_request_message(req);
    assert_int_equal(pge_http_reply(req, atoi(m->path.p + 1), NULL, 0, span("body")), 0);
}

static void sends_bodies_only_where_they_belong(void **state) {
    (void)state;
    struct front *f = open_with(reply_status);
    struct client *c = client_connected(f);
    exchange(c, "HEAD /200 HTTP/1.1\r\nHost: a\r\n\r\n",
             "HTTP/1.1 200 OK\r\n@Content-Length: 4\r\n\r\n");
    exchange(c, "GET /204 HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 204 No Content\r\n@\r\n");
    exchange(c, "GET /304 HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 304 Not Modified\r\n@\r\n");
    exchange(c, "GET /205 HTTP/1.1\r\nHost: a\r\n\r\n",
             "HTTP/1.1 205 Reset Content\r\n@Content-Length: 0\r\n\r\n");
    exchange(c, "GET /599 HTTP/1.1\r\nHost: a\r\n\r\n",
             "HTTP/1.1 599 \r\n@Content-Length: 4\r\n\r\nbody");
    client_close(c);
    front_free(f);
}

static void honours_connection_and_version(void **state) {
    (void)state;
    static const struct {
        const char *request, *reply;
        bool ends;
    } v[] = {
        {"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" GET,
         "HTTP/1.1 200 OK\r\n@Content-Length: 2\r\nConnection: close\r\n\r\nok", true},
        {"GET / HTTP/1.0\r\n\r\n",
         "HTTP/1.1 200 OK\r\n@Content-Length: 2\r\nConnection: close\r\n\r\nok", true},
        {"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
         "HTTP/1.1 200 OK\r\n@Content-Length: 2\r\nConnection: keep-alive\r\n\r\nok", false},
        {GET, PLAIN, false},
    };
    struct front *f = open_with(say_ok);
    for (size_t i = 0; i < sizeof v / sizeof *v; i++) {
        struct client *c = client_connected(f);
        exchange(c, v[i].request, v[i].reply);
        if (v[i].ends)
            client_until_end(c);
        assert_int_equal(c->end, v[i].ends);
        assert_received(c, v[i].reply);
        client_close(c);
    }
    assert_int_equal(f->requests, 4);
    front_free(f);
}

static void says_continue_only_while_a_good_body_is_awaited(void **state) {
    (void)state;
    struct front *f = open_with(echo);
    struct client *c = client_connected(f);
#define EXPECTING "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
#define ABC "HTTP/1.1 200 OK\r\n@Content-Length: 3\r\n\r\nabc"
    exchange(c, EXPECTING, "HTTP/1.1 100 Continue\r\n\r\n");
    exchange(c, "abc", ABC);
    exchange(c, EXPECTING "abc", ABC);
    exchange(c, EXPECTING "a", "");
    exchange(c, "bc", ABC);
    exchange(c,
             "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n"
             "Transfer-Encoding: chunked\r\n\r\n",
             "HTTP/1.1 100 Continue\r\n\r\n");
    exchange(c, "3\r\nabc\r\n0\r\n\r\n", ABC);
    client_forget(c);
    client_send(c, "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n"
                   "Content-Length: 1048577\r\n\r\n");
    client_until_end(c);
    assert_memory_equal(c->text, "HTTP/1.1 413 Content Too Large\r\n", 32);
    client_close(c);
    front_free(f);
}

static void answers_pipelined_requests_in_order(void **state) {
    (void)state;
    struct front *f = open_with(echo_path);
    struct client *c = client_connected(f);
    static char text[8192];
    size_t n = 0;
    for (int i = 100; i < 200; i++)
        n += (size_t)sprintf(text + n, "GET /%d HTTP/1.1\r\nHost: a\r\n\r\n", i);
    client_send_bytes(c, text, n);
    client_until(c, count_of(c->text, "HTTP/1.1 200 OK\r\n") == 100 && strstr(c->text, "/199"));
    const char *at = c->text;
    for (int i = 100; i < 200; i++) {
        sprintf(text, "\r\n\r\n/%d", i);
        at = strstr(at, text);
        assert_non_null(at);
    }
    client_close(c);
    front_free(f);
}

/* Answers later, one per turn: the next is not shown before the reply to the first is whole. */
static void shows_one_request_at_a_time(void **state) {
    (void)state;
    struct front *f = open_with(NULL);
    struct client *c = client_connected(f);
    char wanted[16];
    for (int i = 0; i < 10; i++)
        client_send(c, GET);
    for (int i = 1; i <= 10; i++) {
        client_until(c, f->waiting[0]);
        struct pge_http_request *req = f->waiting[0];
        f->waiting[0] = NULL;
        assert_int_equal(f->requests, i);
        snprintf(wanted, sizeof wanted, "reply %d", i);
        assert_int_equal(pge_http_reply_begin(req, 200, NULL, 0), 0);
        assert_int_equal(pge_http_reply_chunk(req, span(wanted)), 0);
        client_until_text(c, wanted);
        assert_int_equal(f->requests, i);
        assert_int_equal(pge_http_reply_end(req), 0);
        assert_int_equal(f->requests, i); /* not from inside our call */
    }
    client_until(c, count_of(c->text, "\r\n0\r\n\r\n") == 10);
    client_close(c);
    front_free(f);
}

static void stream(struct front *f, struct pge_http_request *req) {
    (void)f;
    const struct pge_http_message *m = pge_http_request_message(req);
    assert_int_equal(pge_http_reply_chunk(req, span("x")), UV_EINVAL);
    assert_int_equal(pge_http_reply_end(req), UV_EINVAL);
    assert_int_equal(pge_http_reply_begin(req, atoi(m->path.p + 1), NULL, 0), 0);
    assert_int_equal(pge_http_reply_begin(req, 200, NULL, 0), UV_EALREADY);
    assert_int_equal(pge_http_reply_chunk(req, span("hello")), 0);
    assert_int_equal(pge_http_reply_chunk(req, span("")), 0);
    assert_int_equal(pge_http_reply_chunk(req, span("0123456789abcdef")), 0);
    assert_int_equal(pge_http_reply_end(req), 0);
    assert_int_equal(pge_http_reply_end(req), UV_EALREADY);
    assert_int_equal(pge_http_reply_chunk(req, span("x")), UV_EALREADY);
}

static void streams_replies_of_unknown_length(void **state) {
    (void)state;
    struct front *f = open_with(stream);
    struct client *c = client_connected(f);
    exchange(c, "GET /200 HTTP/1.1\r\nHost: a\r\n\r\n",
             "HTTP/1.1 200 OK\r\n@Transfer-Encoding: chunked\r\n\r\n"
             "5\r\nhello\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n");
    exchange(c, "HEAD /200 HTTP/1.1\r\nHost: a\r\n\r\n",
             "HTTP/1.1 200 OK\r\n@Transfer-Encoding: chunked\r\n\r\n");
    exchange(c, "GET /204 HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 204 No Content\r\n@\r\n");
    exchange(c, "GET /205 HTTP/1.1\r\nHost: a\r\n\r\n",
             "HTTP/1.1 205 Reset Content\r\n@Content-Length: 0\r\n\r\n");
    exchange(c, "GET /200 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
             "HTTP/1.1 200 OK\r\n@Connection: close\r\n\r\nhello0123456789abcdef");
    client_until_end(c);
    assert_int_equal(c->end, 1);
    client_close(c);
    front_free(f);
}

static void start_and_fail(struct front *f, struct pge_http_request *req) {
    (void)f;
    assert_int_equal(pge_http_reply_begin(req, 200, NULL, 0), 0);
    assert_int_equal(pge_http_reply_chunk(req, span("hello")), 0);
    pge_http_reply_fail(req);
    assert_int_equal(pge_http_reply_chunk(req, span("x")), UV_EALREADY);
    pge_http_reply_fail(req);
}

static void cuts_a_reply_that_failed(void **state) {
    (void)state;
    struct front *f = open_with(start_and_fail);
    struct client *c = client_connected(f);
    client_send(c, GET);
    client_until_end(c);
    assert_null(strstr(c->text, "0\r\n\r\n"));
    assert_int_equal(f->aborts, 0);
    client_close(c);
    front_free(f);
}

static void try_bad_replies(struct front *f, struct pge_http_request *req) {
    struct pge_http_header bad[] = {{{"x", 1}, {"a\r\nb", 4}}, {{"x y", 3}, {"a", 1}}};
    struct pge_http_header good[] = {{{"X", 1}, {"1", 1}},
                                     {{"content-LENGTH", 14}, {"9", 1}},
                                     {{"Date", 4}, {"never", 5}},
                                     {{"Connection", 10}, {"close", 5}},
                                     {{"Transfer-Encoding", 17}, {"gzip", 4}},
                                     {{"Y", 1}, {"", 0}}};
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pge_http_reply(req, 200, &bad[i], 1, span("no")), UV_EINVAL);
        assert_int_equal(pge_http_reply_begin(req, 200, &bad[i], 1), UV_EINVAL);
        assert_int_equal(pge_http_reply_problem(req, 500, span(""), -1, &bad[i], 1), UV_EINVAL);
    }
    assert_int_equal(pge_http_reply(req, 199, NULL, 0, span("no")), UV_EINVAL);
    assert_int_equal(pge_http_reply(req, 600, NULL, 0, span("no")), UV_EINVAL);
    assert_int_equal(pge_http_server_stats(f->server).active, 1);
    assert_int_equal(pge_http_reply(req, 200, good, 6, span("ok")), 0);
    assert_int_equal(pge_http_reply(req, 200, good, 6, span("ok")), UV_EALREADY);
    assert_int_equal(pge_http_reply_begin(req, 200, NULL, 0), UV_EALREADY);
    assert_int_equal(pge_http_server_stats(f->server).active, 0);
}

static void sends_nothing_of_a_bad_reply_and_answers_once(void **state) {
    (void)state;
    struct front *f = open_with(try_bad_replies);
    struct client *c = client_connected(f);
    exchange(c, GET, "HTTP/1.1 200 OK\r\n@X: 1\r\nY: \r\nContent-Length: 2\r\n\r\nok");
    client_close(c);
    front_free(f);
}

static void say_typed(struct front *f, struct pge_http_request *req) {
    struct pge_http_header headers[] = {{{"X", 1}, {"1", 1}}, {{"content-TYPE", 12}, {"a/b", 3}}};
    unsigned n = f->requests == 1 ? 1 : 2;
    assert_int_equal(pge_http_reply_as(req, 200, "text/plain", headers, n, span("ok")), 0);
}

static void says_a_content_type_unless_the_headers_do(void **state) {
    (void)state;
    struct front *f = open_with(say_typed);
    struct client *c = client_connected(f);
    exchange(c, GET,
             "HTTP/1.1 200 OK\r\n@X: 1\r\nContent-Type: text/plain\r\n"
             "Content-Length: 2\r\n\r\nok");
    exchange(c, GET,
             "HTTP/1.1 200 OK\r\n@X: 1\r\ncontent-TYPE: a/b\r\nContent-Length: 2\r\n\r\nok");
    client_close(c);
    front_free(f);
}

static void say_problem(struct front *f, struct pge_http_request *req) {
    struct pge_http_header headers[] = {{{"Allow", 5}, {"GET", 3}},
                                        {{"Content-Type", 12}, {"text/html", 9}}};
    if (f->requests == 1)
        assert_int_equal(
            pge_http_reply_problem(req, 503, span("a \"b\"\n\xc3\xa9\\"), 7, headers, 2), 0);
    else
        assert_int_equal(pge_http_reply_problem(req, 405, span("\xff"), -1, headers, 1), 0);
}

static void writes_problems(void **state) {
    (void)state;
    struct front *f = open_with(say_problem);
    struct client *c = client_connected(f);
    exchange(
        c, GET,
        "HTTP/1.1 503 Service Unavailable\r\n@Allow: GET\r\n"
        "Content-Type: application/problem+json\r\nRetry-After: 7\r\nContent-Length: 94\r\n\r\n"
        "{\"type\":\"about:blank\",\"title\":\"Service Unavailable\",\"status\":503,"
        "\"detail\":\"a \\\"b\\\"\\u000a\xc3\xa9\\\\\"}");
    exchange(c, GET,
             "HTTP/1.1 405 Method Not Allowed\r\n@Allow: GET\r\n"
             "Content-Type: application/problem+json\r\nContent-Length: 64\r\n\r\n"
             "{\"type\":\"about:blank\",\"title\":\"Method Not Allowed\",\"status\":405}");
    client_close(c);
    front_free(f);
}

static void serves_many_connections(void **state) {
    (void)state;
    enum { CLIENTS = 64, ROUNDS = 5 };
    struct front *f = open_with(echo_path);
    struct client *c[CLIENTS];
    char text[64];
    for (int i = 0; i < CLIENTS; i++)
        c[i] = client_new(f);
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < CLIENTS; i++) {
            client_forget(c[i]);
            snprintf(text, sizeof text, "GET /%d-%d HTTP/1.1\r\nHost: a\r\n\r\n", i, round);
            client_send(c[i], text);
        }
        for (int i = 0; i < CLIENTS; i++) {
            snprintf(text, sizeof text, "\r\n\r\n/%d-%d", i, round);
            client_until_text(c[i], text);
        }
    }
    assert_int_equal(f->requests, CLIENTS * ROUNDS);
    assert_int_equal(front_conns(f), CLIENTS);
    for (int i = 0; i < CLIENTS; i++)
        client_close(c[i]);
    rig_until(f->rig, front_conns(f) == 0);
    front_free(f);
}

static void serves_unix_sockets(void **state) {
    (void)state;
    int status;
    struct front *f = front_new();
    struct pge_endpoint at = pipe_endpoint("http");
    char address[128];
    f->answer = say_ok;
    f->server = pge_http_server_open(&f->rig->loop, &at, &f->limits, &front_events, f, &status);
    assert_non_null(f->server);
    pge_http_server_address(f->server, address, sizeof address);
    assert_string_equal(address, at.addr.un.sun_path);
    struct client *c = calloc(1, sizeof *c);
    c->front = f;
    c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(c->fd, &at.addr.sa, sizeof at.addr.un), 0);
    uv_poll_init(&f->rig->uv, &c->poll, c->fd);
    client_listen(c);
    exchange(c, GET, PLAIN);
    client_close(c);
    front_free(f);
}

static void serves_tls(void **state) {
    (void)state;
    int status;
    struct front *f = front_new();
    struct cert *root = cert_new("root", NULL, NULL, 30);
    struct cert *leaf = cert_new("localhost", "DNS:localhost", root, 30);
    struct pge_tls *tls =
        tls_side(&(struct pge_tls_options){.cert = leaf->cert_pem, .key = leaf->key_pem}, true);
    struct pge_tls *trust = tls_side(
        &(struct pge_tls_options){.ca = root->cert_pem, .server_name = "localhost", .verify = true},
        false);
    struct pge_endpoint at = tcp_endpoint();
    struct side side = {.is_reader = true};
    at.stream = &pge_stream_tls;
    at.tls = tls;
    f->answer = say_ok;
    f->server = pge_http_server_open(&f->rig->loop, &at, &f->limits, &front_events, f, &status);
    assert_non_null(f->server);
    struct pge_endpoint to = host_endpoint(f->server->listener);
    to.tls = trust;
    side.conn = pge_conn_connect(&f->rig->loop, &to, &side_events, &side, &status);
    assert_int_equal(pge_conn_write(side.conn, GET, sizeof GET - 1), 0);
    rig_until(f->rig, strstr(side.text, "\r\n\r\nok"));
    static const char last[] = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    assert_int_equal(pge_conn_write(side.conn, last, sizeof last - 1), 0);
    rig_until(f->rig, side.end);
    assert_int_equal(side.end, UV_EOF); /* a proper end, not a torn one */
    assert_non_null(strstr(side.text, "Connection: close\r\n\r\nok"));
    side_close(&side);
    pge_http_server_close(f->server);
    rig_until(f->rig, f->closes == 1);
    pge_tls_unref(tls);
    pge_tls_unref(trust);
    cert_free(leaf);
    cert_free(root);
    front_free(f);
}

static void says_why_it_cannot_listen(void **state) {
    (void)state;
    int status = 0;
    struct front *f = open_with(say_ok);
    struct pge_endpoint at = host_endpoint(f->server->listener);
    assert_null(pge_http_server_open(&f->rig->loop, &at, &f->limits, &front_events, f, &status));
    assert_int_equal(status, UV_EADDRINUSE);
    front_free(f);
}

static void knows_reasons(void **state) {
    (void)state;
    assert_string_equal(pge_http_reason(404), "Not Found");
    assert_string_equal(pge_http_reason(299), "");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_on_one_connection),
        cmocka_unit_test(tells_date_peer_and_headers),
        cmocka_unit_test(sends_bodies_only_where_they_belong),
        cmocka_unit_test(honours_connection_and_version),
        cmocka_unit_test(says_continue_only_while_a_good_body_is_awaited),
        cmocka_unit_test(answers_pipelined_requests_in_order),
        cmocka_unit_test(shows_one_request_at_a_time),
        cmocka_unit_test(streams_replies_of_unknown_length),
        cmocka_unit_test(cuts_a_reply_that_failed),
        cmocka_unit_test(sends_nothing_of_a_bad_reply_and_answers_once),
        cmocka_unit_test(says_a_content_type_unless_the_headers_do),
        cmocka_unit_test(writes_problems),
        cmocka_unit_test(serves_many_connections),
        cmocka_unit_test(serves_unix_sockets),
        cmocka_unit_test(serves_tls),
        cmocka_unit_test(says_why_it_cannot_listen),
        cmocka_unit_test(knows_reasons),
    };
    signal(SIGPIPE, SIG_IGN);
    alarm(60);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
