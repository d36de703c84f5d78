/* http_end_test.c - how connections and servers end, what they hold, and failing memory. */
#include <signal.h>

#include "http_support.h"

/* ---- ends ---- */

static void refuses_and_lets_the_peer_see_why(void **state) {
    (void)state;
    struct front *f = open_with(say_ok);
    struct client *c = client_connected(f);
    static char junk[200 * 1024];
    memset(junk, 'x', sizeof junk);
    client_send(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2000000\r\n\r\n");
    client_send_bytes(c, junk, sizeof junk); /* unread bytes would make a reset of our close */
    assert_refused_with(c, "413");
    assert_int_equal(f->requests, 0);
    assert_int_equal(front_conns(f), 1); /* it reads on, in case */
    client_close(c);
    rig_until(f->rig, front_conns(f) == 0);
    assert_int_equal(pge_http_server_stats(f->server).refused, 1);
    front_free(f);
}

static void refuses_after_earlier_replies(void **state) {
    (void)state;
    struct front *f = open_with(NULL);
    struct client *c = client_connected(f);
    client_send(c, GET "BAD\r\n\r\n" GET);
    struct pge_http_request *req = until_asked(f);
    assert_int_equal(c->n, 0);
    say_ok(f, req);
    client_until_end(c);
    char *second = strstr(c->text, "okHTTP/1.1 400 Bad Request\r\n");
    assert_non_null(second);
    assert_int_equal(f->requests, 1);
    client_close(c);
    front_free(f);
}

static void a_refused_head_request_gets_no_body(void **state) {
    (void)state;
    struct front *f = open_with(say_ok);
    struct client *c = client_connected(f);
    client_send(c, "HEAD / HTTP/1.1\r\n\r\n");
    client_until_end(c);
    assert_memory_equal(c->text, "HTTP/1.1 400", 12);
    assert_string_equal(c->text + c->n - 4, "\r\n\r\n");
    client_close(c);
    front_free(f);
}

static void reads_on_after_a_refusal_for_a_second(void **state) {
    (void)state;
    struct front *f = open_with(say_ok);
    struct client *c = client_connected(f);
    rig_stop_clock(f->rig);
    client_send(c, "BAD\r\n\r\n");
    client_until_end(c);
    rig_pass(f->rig, 999);
    uv_run(&f->rig->uv, UV_RUN_NOWAIT);
    assert_int_equal(front_conns(f), 1);
    rig_pass(f->rig, 1);
    rig_until(f->rig, front_conns(f) == 0);
    client_close(c);
    front_free(f);
}

static void reads_on_after_a_refusal_for_so_many_bytes(void **state) {
    (void)state;
    struct front *f = open_with(say_ok);
    struct client *c = client_connected(f);
    static char junk[64 * 1024];
    client_send(c, "BAD\r\n\r\n");
    client_until_end(c);
    for (int i = 0; i < 64 && front_conns(f); i++)
        client_send_bytes(c, junk, sizeof junk);
    rig_until(f->rig, front_conns(f) == 0);
    client_close(c);
    front_free(f);
}

static void a_half_closed_peer_gets_its_replies(void **state) {
    (void)state;
    struct front *f = open_with(NULL);
    struct client *c = client_connected(f);
    client_send(c, GET GET);
    shutdown(c->fd, SHUT_WR);
    struct pge_http_request *req = until_asked(f);
    rig_until(f->rig, front_conn(f)->is_eof);
    say_ok(f, req);
    say_ok(f, until_asked(f));
    client_until_end(c);
    assert_int_equal(c->end, 1);
    assert_int_equal(count_of(c->text, "\r\n\r\nok"), 2);
    assert_int_equal(count_of(c->text, "Connection: close"), 1); /* only the last says so */
    assert_int_equal(f->aborts, 0);
    rig_until(f->rig, front_conns(f) == 0);
    client_close(c);
    front_free(f);
}

static void half_a_request_reaches_nobody(void **state) {
    (void)state;
    struct front *f = open_with(say_ok);
    struct client *c = client_connected(f);
    client_send(c, POST_3 "ab");
    shutdown(c->fd, SHUT_WR);
    client_until_end(c);
    assert_int_equal(c->n, 0);
    assert_int_equal(f->requests, 0);
    rig_until(f->rig, front_conns(f) == 0);
    client_close(c);
    front_free(f);
}

static void a_reset_aborts_the_request(void **state) {
    (void)state;
    struct front *f = open_with(NULL);
    struct client *c = client_connected(f);
    client_send(c, GET);
    rig_until(f->rig, f->waiting[0]);
    client_reset(c);
    rig_until(f->rig, f->aborts == 1);
    assert_int_equal(pge_http_server_stats(f->server).active, 0);
    rig_until(f->rig, front_conns(f) == 0);
    front_free(f);
}

static void a_reset_in_mid_reply_aborts_it_once(void **state) {
    (void)state;
    struct front *f = open_with(NULL);
    struct client *c = client_connected(f);
    client_send(c, GET);
    struct pge_http_request *req = until_asked(f);
    f->waiting[0] = req;
    assert_int_equal(pge_http_reply_begin(req, 200, NULL, 0), 0);
    client_until_text(c, "chunked");
    client_reset(c);
    while (f->aborts == 0) {
        assert_int_equal(pge_http_reply_chunk(req, span("x")), 0); /* never told from inside here */
        uv_run(&f->rig->uv, UV_RUN_ONCE);
    }
    rig_until(f->rig, front_conns(f) == 0);
    assert_int_equal(f->aborts, 1);
    front_free(f);
}

/* ---- drain and close ---- */

static void a_drain_ends_the_idle_and_finishes_the_busy(void **state) {
    (void)state;
    struct front *f = open_with(NULL);
    struct client *idle = client_connected(f), *begun = client_connected(f),
                  *busy = client_connected(f);
    client_send(busy, GET GET);
    struct pge_http_request *req = until_asked(f);
    client_send(begun, "GET / HTTP/1.1\r\n");
    rig_until(
        f->rig,
        container_of(f->server->conns.next->next, struct pge_http_conn, node)->req.parse.pos == 16);
    pge_http_server_drain(f->server);
    pge_http_server_drain(f->server);
    client_until_end(idle);
    assert_int_equal(idle->n, 0);
    client_send(begun, "Host: a\r\n\r\n");
    say_ok(f, until_asked(f));
    client_until_end(begun);
    assert_non_null(strstr(begun->text, "Connection: close\r\n\r\nok"));
    assert_int_equal(f->closes, 0);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&f->at, sizeof f->at), -1);
    close(fd);
    say_ok(f, req);
    client_until_end(busy);
    assert_non_null(strstr(busy->text, "Connection: close\r\n\r\nok"));
    assert_int_equal(f->requests, 2); /* what was pipelined behind is not begun */
    client_close(idle);
    client_close(begun);
    client_close(busy);
    rig_until(f->rig, f->closes == 1);
    front_free(f);
}

static void a_reply_begun_before_the_drain_is_the_last(void **state) {
    (void)state;
    struct front *f = open_with(NULL);
    struct client *c = client_connected(f);
    client_send(c, GET);
    struct pge_http_request *req = until_asked(f);
    assert_int_equal(pge_http_reply_begin(req, 200, NULL, 0), 0);
    client_until_text(c, "chunked");
    pge_http_server_drain(f->server);
    assert_int_equal(pge_http_reply_end(req), 0);
    client_until_end(c);
    assert_non_null(strstr(c->text, "\r\n\r\n0\r\n\r\n"));
    client_close(c);
    rig_until(f->rig, f->closes == 1);
    front_free(f);
}

static void a_close_aborts_what_runs(void **state) {
    (void)state;
    struct front *f = open_with(NULL);
    struct client *idle = client_connected(f), *busy = client_connected(f);
    client_send(busy, GET);
    rig_until(f->rig, f->waiting[0]);
    pge_http_server_close(f->server);
    assert_int_equal(f->aborts, 1);
    pge_http_server_close(f->server);
    assert_int_equal(f->closes, 0); /* never from inside the call */
    rig_until(f->rig, f->closes == 1);
    client_until_end(busy);
    client_until_end(idle);
    client_close(idle);
    client_close(busy);
    front_free(f);
}

static void close_inside(struct front *f, struct pge_http_request *req) {
    pge_http_server_close(f->server);
    assert_int_equal(f->aborts, 1);
    assert_int_equal(pge_http_reply(req, 200, NULL, 0, span("ok")), UV_EALREADY);
}

static void may_be_closed_inside_on_request(void **state) {
    (void)state;
    struct front *f = open_with(close_inside);
    struct client *c = client_connected(f);
    client_send(c, GET GET);
    rig_until(f->rig, f->closes == 1);
    assert_int_equal(f->requests, 1);
    client_close(c);
    front_free(f);
}

static void drain_inside(struct front *f, struct pge_http_request *req) {
    pge_http_server_drain(f->server);
    say_ok(f, req);
}

static void may_be_drained_inside_on_request(void **state) {
    (void)state;
    struct front *f = open_with(drain_inside);
    struct client *c = client_connected(f);
    client_send(c, GET GET);
    client_until_end(c);
    assert_int_equal(f->requests, 1);
    assert_non_null(strstr(c->text, "Connection: close\r\n\r\nok"));
    client_close(c);
    rig_until(f->rig, f->closes == 1);
    front_free(f);
}

static void accepts_no_more_than_it_may(void **state) {
    (void)state;
    struct front *f = front_new();
    f->limits.max_connections = 2;
    f->answer = say_ok;
    front_open(f);
    struct client *a = client_connected(f), *b = client_connected(f), *c = client_new(f);
    client_send(c, GET);
    client_send(b, GET);
    client_until_text(b, "ok");
    assert_int_equal(front_conns(f), 2);
    assert_int_equal(c->n, 0);
    client_close(a);
    client_until_text(c, "ok");
    assert_int_equal(front_conns(f), 2);
    client_close(b);
    client_close(c);
    front_free(f);
}

/* ---- memory ---- */

static void an_idle_connection_holds_little(void **state) {
    (void)state;
    struct front *f = open_with(say_ok);
    struct client *c = client_connected(f);
    client_send(c, GET);
    client_until_text(c, "ok");
    rig_stop_clock(f->rig);
    client_forget(c);
    client_send(c, GET);
    client_until_text(c, "ok");
    rig_pass(f->rig, 1000);
    struct pge_http_conn *conn = front_conn(f);
    assert_int_equal(conn->req.parse.in.cap + conn->next.cap + conn->late.cap, 0);
    assert_int_equal(conn->conn->out.cap + conn->conn->sending.cap, 0);
    assert_null(conn->req.parse.headers);
    assert_true(sizeof *conn <= 1024);
    client_close(c);
    front_free(f);
}

static void costs_no_allocation_per_request(void **state) {
    (void)state;
    struct front *f = open_with(say_ok);
    struct client *c = client_connected(f);
    size_t asked = 0;
    for (int i = 0; i < 20; i++) {
        if (i == 10)
            asked = f->rig->alloc.asked;
        client_forget(c);
        client_send(c, POST_3 "abc");
        client_until_text(c, "ok");
    }
    assert_int_equal(f->rig->alloc.asked, asked);
    client_close(c);
    front_free(f);
}

static void answer_all_ways(struct front *f, struct pge_http_request *req) {
    if (f->requests == 1) {
        pge_http_reply_problem(req, 400, span("no"), -1, NULL, 0);
    } else if (f->requests == 2) {
        if (pge_http_reply_begin(req, 200, NULL, 0) == 0 &&
            pge_http_reply_chunk(req, span("ok")) == 0)
            pge_http_reply_end(req);
    } else {
        pge_http_reply(req, 200, NULL, 0, big());
    }
}

/* Each allocation in turn fails: the connection may be cut, nothing else may happen. */
static void survives_failing_memory(void **state) {
    (void)state;
    size_t asked = 1, grants = 0;
    for (; asked >= grants; grants++) { /* until a run has asked for no more than it was granted */
        struct front *f = open_with(answer_all_ways);
        size_t before = f->rig->alloc.asked;
        f->rig->alloc.grants = grants;
        struct client *c = client_new(f);
        client_send(c, GET POST_3 "abcGET / HT");
        uv_run(&f->rig->uv, UV_RUN_NOWAIT);
        client_send(c, "TP/1.1\r\nHost: a\r\n\r\nBAD\r\n\r\n");
        rig_until(f->rig, c->end || c->n > BIG || f->server->listener->refused);
        f->rig->alloc.grants = (size_t)-1;
        asked = f->rig->alloc.asked - before;
        client_close(c);
        front_free(f);
    }
    assert_true(grants > 5);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_and_lets_the_peer_see_why),
        cmocka_unit_test(refuses_after_earlier_replies),
        cmocka_unit_test(a_refused_head_request_gets_no_body),
        cmocka_unit_test(reads_on_after_a_refusal_for_a_second),
        cmocka_unit_test(reads_on_after_a_refusal_for_so_many_bytes),
        cmocka_unit_test(a_half_closed_peer_gets_its_replies),
        cmocka_unit_test(half_a_request_reaches_nobody),
        cmocka_unit_test(a_reset_aborts_the_request),
        cmocka_unit_test(a_reset_in_mid_reply_aborts_it_once),
        cmocka_unit_test(a_drain_ends_the_idle_and_finishes_the_busy),
        cmocka_unit_test(a_reply_begun_before_the_drain_is_the_last),
        cmocka_unit_test(a_close_aborts_what_runs),
        cmocka_unit_test(may_be_closed_inside_on_request),
        cmocka_unit_test(may_be_drained_inside_on_request),
        cmocka_unit_test(accepts_no_more_than_it_may),
        cmocka_unit_test(an_idle_connection_holds_little),
        cmocka_unit_test(costs_no_allocation_per_request),
        cmocka_unit_test(survives_failing_memory),
    };
    signal(SIGPIPE, SIG_IGN);
    alarm(60);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
