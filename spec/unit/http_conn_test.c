/* http_conn_test.c - the life of connections: time, ends, peers that do not read, drain, memory. */
#include <signal.h>

#include "http_support.h"

#define GET "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
#define POST_3 "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n"

static void say_ok(struct front *f, struct pge_http_request *req) {
    (void)f;
    assert_int_equal(pge_http_reply(req, 200, NULL, 0, span("ok")), 0);
}

static struct front *open_with(void (*answer)(struct front *, struct pge_http_request *)) {
    struct front *f = front_new();
    f->answer = answer;
    front_open(f);
    return f;
}

/* Until the server has taken n bytes of the request being sent. */
#define until_taken(f, size) rig_until((f)->rig, front_conn(f)->req.parse.pos == (size))

static struct pge_http_request *until_asked(struct front *f) {
    rig_until(f->rig, f->waiting[0]);
    struct pge_http_request *req = f->waiting[0];
    f->waiting[0] = NULL;
    return req;
}

static void assert_refused_with(struct client *c, const char *status) {
    client_until_end(c);
    assert_int_equal(c->end, 1); /* FIN, not RST: what we said has arrived */
    assert_memory_equal(c->text, "HTTP/1.1 ", 9);
    assert_memory_equal(c->text + 9, status, 3);
    assert_non_null(strstr(c->text, "\r\nConnection: close\r\n"));
    assert_non_null(strstr(c->text, "\r\nContent-Type: application/problem+json\r\n"));
    assert_null(strstr(strstr(c->text, "\r\n\r\n"), "HTTP/1.1"));
}

/* ---- time ---- */

static void a_slow_head_ends_after_ten_seconds(void **state) {
    (void)state;
    struct front *f = open_with(say_ok);
    struct client *c = client_connected(f);
    rig_stop_clock(f->rig);
    client_send(c, "GET / HT");
    until_taken(f, 8);
    rig_pass(f->rig, 9000);
    client_send(c, "TP/1.1\r\n"); /* a drip does not extend it */
    until_taken(f, 16);
    rig_pass(f->rig, 999);
    assert_int_equal(pge_http_server_stats(f->server).refused, 0);
    rig_pass(f->rig, 1);
    assert_int_equal(pge_http_server_stats(f->server).refused, 1);
    assert_refused_with(c, "408");
    assert_int_equal(f->requests, 0);
    client_close(c);
    front_free(f);
}

static void a_lone_cr_is_a_slow_head_too(void **state) {
    (void)state;
    struct front *f = open_with(say_ok);
    struct client *c = client_connected(f);
    rig_stop_clock(f->rig);
    client_send(c, "\r");
    rig_until(f->rig, pge_buf_len(&front_conn(f)->req.parse.in) == 1);
    rig_pass(f->rig, 10000);
    assert_refused_with(c, "408");
    client_close(c);
    front_free(f);
}

static void each_head_has_its_own_time(void **state) {
    (void)state;
    struct front *f = open_with(say_ok);
    struct client *c = client_connected(f);
    rig_stop_clock(f->rig);
    client_send(c, "GET /");
    until_taken(f, 5);
    rig_pass(f->rig, 9000);
    client_send(c, " HTTP/1.1\r\nHost: a\r\n\r\nGET /");
    client_until_text(c, "ok");
    rig_pass(f->rig, 9999);
    assert_int_equal(pge_http_server_stats(f->server).refused, 0);
    rig_pass(f->rig, 1);
    client_until_text(c, "HTTP/1.1 408 ");
    client_close(c);
    front_free(f);
}

static void a_body_may_pause_for_thirty_seconds(void **state) {
    (void)state;
    struct front *f = open_with(say_ok);
    struct client *c = client_connected(f);
    size_t head = sizeof POST_3 - 1;
    rig_stop_clock(f->rig);
    client_send(c, POST_3);
    until_taken(f, head);
    rig_pass(f->rig, 29999);
    client_send(c, "a");
    until_taken(f, head + 1);
    rig_pass(f->rig, 29999);
    client_send(c, "b");
    until_taken(f, head + 2);
    rig_pass(f->rig, 29999);
    assert_int_equal(pge_http_server_stats(f->server).refused, 0);
    rig_pass(f->rig, 1);
    assert_refused_with(c, "408");
    assert_int_equal(f->requests, 0);
    client_close(c);
    front_free(f);
}

static void an_idle_connection_ends_after_a_minute(void **state) {
    (void)state;
    struct front *f = open_with(say_ok);
    rig_stop_clock(f->rig);
    struct client *silent = client_connected(f), *c = client_connected(f);
    rig_pass(f->rig, 30000);
    client_send(c, GET);
    client_until_text(c, "ok");
    rig_pass(f->rig, 29999);
    uv_run(&f->rig->uv, UV_RUN_NOWAIT);
    assert_int_equal(silent->end, 0);
    rig_pass(f->rig, 1);
    client_until_end(silent);
    assert_int_equal(silent->end, 1);
    assert_int_equal(silent->n, 0); /* nothing is said to who said nothing */
    rig_pass(f->rig, 29999);
    uv_run(&f->rig->uv, UV_RUN_NOWAIT);
    assert_int_equal(c->end, 0);
    rig_pass(f->rig, 1);
    client_until_end(c);
    assert_int_equal(c->end, 1);
    assert_int_equal(pge_http_server_stats(f->server).refused, 0);
    client_close(silent);
    client_close(c);
    front_free(f);
}

static void no_time_runs_while_a_reply_is_made(void **state) {
    (void)state;
    struct front *f = open_with(NULL);
    struct client *c = client_connected(f);
    rig_stop_clock(f->rig);
    client_send(c, GET "GET /");
    struct pge_http_request *req = until_asked(f);
    rig_pass(f->rig, 3600000);
    say_ok(f, req);
    client_until_text(c, "ok");
    assert_int_equal(pge_http_server_stats(f->server).refused, 0);
    client_close(c);
    front_free(f);
}

/* ---- peers that do not read ---- */

enum { BIG = 8 << 20 };

static struct pge_span big(void) {
    static char bytes[BIG];
    for (size_t i = 0; i < BIG && bytes[BIG - 1] == 0; i++)
        bytes[i] = (char)('a' + i % 26);
    return (struct pge_span){bytes, BIG};
}

static void say_big(struct front *f, struct pge_http_request *req) {
    (void)f;
    assert_int_equal(pge_http_reply(req, 200, NULL, 0, big()), 0);
}

static void big_replies_arrive_whole(void **state) {
    (void)state;
    struct front *f = open_with(say_big);
    struct client *c = client_connected(f);
    client_send(c, GET "GET / HTTP/1.0\r\n\r\n");
    client_until_end(c);
    size_t head = (size_t)(strstr(c->text, "\r\n\r\n") + 4 - c->text);
    for (size_t i = head; i + 1 < sizeof c->text; i++)
        assert_int_equal(c->text[i], 'a' + (char)((i - head) % 26));
    assert_true(c->n > 2 * (size_t)BIG && c->n < 2 * (size_t)BIG + 512);
    assert_int_equal(c->end, 1);
    client_close(c);
    front_free(f);
}

static void a_stuffed_peer_is_not_served_until_it_reads(void **state) {
    (void)state;
    struct front *f = open_with(say_big);
    struct client *c = client_connected(f);
    client_ignore(c);
    client_send(c, GET GET);
    rig_until(f->rig, f->requests == 1 && front_conn(f)->conn->is_sending);
    assert_false(front_conn(f)->conn->is_reading);
    client_send(c, GET);
    uv_run(&f->rig->uv, UV_RUN_NOWAIT);
    assert_int_equal(f->requests, 1);
    client_listen(c);
    client_until(c, c->n > 3 * (size_t)BIG);
    assert_int_equal(f->requests, 3);
    assert_true(front_conn(f)->conn->is_reading);
    client_close(c);
    front_free(f);
}

static void a_peer_that_never_reads_is_cut_after_thirty_seconds(void **state) {
    (void)state;
    struct front *f = open_with(say_big);
    struct client *c = client_connected(f);
    client_ignore(c);
    rig_stop_clock(f->rig);
    client_send(c, GET);
    rig_until(f->rig, f->requests == 1 && front_conn(f)->conn->is_sending);
    rig_pass(f->rig, 29999);
    assert_int_equal(pge_http_server_stats(f->server).refused, 0);
    rig_pass(f->rig, 1);
    assert_int_equal(pge_http_server_stats(f->server).refused, 1);
    rig_until(f->rig, front_conns(f) == 0);
    client_close(c);
    front_free(f);
}

static void a_peer_that_reads_slowly_is_not_cut(void **state) {
    (void)state;
    struct front *f = open_with(say_big);
    struct client *c = client_connected(f);
    client_ignore(c);
    rig_stop_clock(f->rig);
    client_send(c, GET);
    rig_until(f->rig, f->requests == 1 && front_conn(f)->conn->is_sending);
    for (int i = 0; i < 3; i++) {
        rig_pass(f->rig, 29000);
        client_listen(c); /* until the kernel has taken another piece */
        client_until(c, front_conn(f)->progress_ms == f->rig->now_ms);
        client_ignore(c);
    }
    assert_true(front_conn(f)->conn->is_sending);
    assert_int_equal(pge_http_server_stats(f->server).refused, 0);
    client_close(c);
    front_free(f);
}

static void a_producer_that_outruns_its_peer_is_told(void **state) {
    (void)state;
    struct front *f = front_new();
    f->limits.max_queued_bytes = 1 << 20;
    front_open(f);
    struct client *c = client_connected(f);
    client_ignore(c);
    client_send(c, GET);
    struct pge_http_request *req = until_asked(f);
    assert_int_equal(pge_http_reply_begin(req, 200, NULL, 0), 0);
    assert_int_equal(pge_http_reply_chunk(req, big()), 0); /* more than the bound, but nobody has refused it yet */
    rig_until(f->rig, front_conn(f)->conn->is_sending);
    assert_int_equal(pge_http_reply_chunk(req, big()), UV_ENOMEM);
    assert_int_equal(pge_http_reply_chunk(req, big()), UV_EALREADY);
    assert_int_equal(pge_http_server_stats(f->server).active, 0);
    rig_until(f->rig, front_conns(f) == 0);
    assert_int_equal(f->aborts, 0);
    assert_int_equal(pge_http_server_stats(f->server).refused, 1);
    client_close(c);
    front_free(f);
}

static void reads_ahead_only_so_far(void **state) {
    (void)state;
    struct front *f = open_with(NULL);
    struct client *c = client_connected(f);
    static char junk[64 * 1024];
    memset(junk, 'x', sizeof junk);
    client_send(c, GET);
    struct pge_http_request *req = until_asked(f);
    for (int i = 0; i < 64 && front_conn(f)->conn->is_reading; i++)
        client_send_bytes(c, junk, sizeof junk);
    assert_false(front_conn(f)->conn->is_reading);
    assert_true(pge_buf_len(&front_conn(f)->next) <= 2 * PGE_READ_SIZE);
    say_ok(f, req);
    client_until_end(c);
    assert_non_null(strstr(c->text, "ok"));
    assert_non_null(strstr(c->text, "HTTP/1.1 400 "));
    client_close(c);
    front_free(f);
}

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
    rig_until(f->rig, container_of(f->server->conns.next->next, struct pge_http_conn, node)
                              ->req.parse.pos == 16);
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
        cmocka_unit_test(a_slow_head_ends_after_ten_seconds),
        cmocka_unit_test(a_lone_cr_is_a_slow_head_too),
        cmocka_unit_test(each_head_has_its_own_time),
        cmocka_unit_test(a_body_may_pause_for_thirty_seconds),
        cmocka_unit_test(an_idle_connection_ends_after_a_minute),
        cmocka_unit_test(no_time_runs_while_a_reply_is_made),
        cmocka_unit_test(big_replies_arrive_whole),
        cmocka_unit_test(a_stuffed_peer_is_not_served_until_it_reads),
        cmocka_unit_test(a_peer_that_never_reads_is_cut_after_thirty_seconds),
        cmocka_unit_test(a_peer_that_reads_slowly_is_not_cut),
        cmocka_unit_test(a_producer_that_outruns_its_peer_is_told),
        cmocka_unit_test(reads_ahead_only_so_far),
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
