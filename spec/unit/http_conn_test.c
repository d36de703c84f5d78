/* http_conn_test.c - connections and time, and peers that do not read. */
#include <signal.h>

#include "http_support.h"

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

/* The same for a reply whose memory was taken over: one long write. */
static void say_given(struct front *f, struct pge_http_request *req) {
    struct pge_buf loan = {0};
    assert_int_equal(pge_buf_append(&loan, big().p, big().n), 0);
    f->rig->loop.loan = &loan;
    assert_int_equal(pge_http_reply(req, 200, NULL, 0, (struct pge_span){loan.data, loan.end}), 0);
    f->rig->loop.loan = NULL;
    assert_null(loan.data);
}

static void who_never_reads_what_was_given_is_cut_after_thirty_seconds(void **state) {
    (void)state;
    struct front *f = open_with(say_given);
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

static void who_reads_slowly_what_was_given_is_not_cut(void **state) {
    (void)state;
    struct front *f = open_with(say_given);
    struct client *c = client_connected(f);
    client_ignore(c);
    rig_stop_clock(f->rig);
    client_send(c, GET);
    rig_until(f->rig, f->requests == 1 && front_conn(f)->conn->is_sending);
    for (int i = 0; i < 3; i++) {
        uint64_t taken = pge_conn_taken(front_conn(f)->conn);
        rig_pass(f->rig, 22000);
        client_listen(c);
        client_until(c, pge_conn_taken(front_conn(f)->conn) > taken);
        client_ignore(c);
    }
    assert_true(front_conn(f)->conn->is_sending);
    assert_int_equal(pge_http_server_stats(f->server).refused, 0);
    client_listen(c);
    client_until(c, c->n > BIG);
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
    assert_int_equal(pge_http_reply_chunk(req, big()), 0); /* nobody has refused to take it yet */
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
        cmocka_unit_test(who_never_reads_what_was_given_is_cut_after_thirty_seconds),
        cmocka_unit_test(who_reads_slowly_what_was_given_is_not_cut),
        cmocka_unit_test(a_producer_that_outruns_its_peer_is_told),
        cmocka_unit_test(reads_ahead_only_so_far),
    };
    signal(SIGPIPE, SIG_IGN);
    alarm(60);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
