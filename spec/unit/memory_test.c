/* memory_test.c - core/net/memory.c under the HTTP server: requests without a socket. */
#include "http_support.h"

/* The other end of one injected connection. */
struct sender {
    size_t n; /* bytes received */
    int ends;
    char text[CLIENT_TEXT]; /* the first of them; terminated */
};

static void on_output(void *arg, const char *data, size_t n) {
    struct sender *s = arg;
    assert_int_equal(s->ends, 0);
    for (size_t i = 0; i < n; i++, s->n++)
        if (s->n + 1 < sizeof s->text)
            s->text[s->n] = data[i];
}

static void on_end(void *arg) {
    ((struct sender *)arg)->ends++;
}

static const struct pge_memory_peer peer = {on_output, on_end};

static struct front *open_nowhere(void (*answer)(struct front *, struct pge_http_request *)) {
    int status;
    struct front *f = front_new();
    f->answer = answer;
    f->server = pge_http_server_open(&f->rig->loop, NULL, &f->limits, &front_events, f, &status);
    assert_non_null(f->server);
    return f;
}

static struct sender *inject(struct front *f, const char *text) {
    struct sender *s = calloc(1, sizeof *s);
    assert_non_null(s);
    assert_int_equal(pge_http_server_inject(f->server, text, strlen(text), &peer, s), 0);
    assert_int_equal(s->n + (size_t)s->ends, 0); /* nothing before it returns */
    return s;
}

#define CLOSING_GET "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"

static void answers_and_ends(void **state) {
    (void)state;
    struct front *f = open_nowhere(say_ok);
    struct sender *s = inject(f, CLOSING_GET);
    rig_until(f->rig, s->ends);
    assert_memory_equal(s->text, "HTTP/1.1 200 OK\r\n", 17);
    assert_non_null(strstr(s->text, "\r\n\r\nok"));
    assert_int_equal(front_conns(f), 0);
    assert_int_equal(f->closes, 0); /* it waits for more */
    front_free(f);
    free(s);
}

static void answers_what_is_pipelined_and_refuses_what_is_bad(void **state) {
    (void)state;
    struct front *f = open_nowhere(say_ok);
    struct sender *s = inject(f, GET POST_3 "abcBAD\r\n\r\n");
    rig_until(f->rig, s->ends);
    assert_int_equal(f->requests, 2);
    assert_int_equal(count_of(s->text, "HTTP/1.1 200 OK"), 2);
    assert_int_equal(count_of(s->text, "HTTP/1.1 400 Bad Request"), 1);
    front_free(f);
    free(s);
}

static void says_much(struct front *f, struct pge_http_request *req) {
    char name[32];
    (void)f;
    pge_http_request_peer(req, name, sizeof name);
    assert_string_equal(name, "memory:");
    assert_int_equal(pge_http_reply(req, 200, NULL, 0, big()), 0);
}

static void hands_over_a_reply_of_megabytes(void **state) {
    (void)state;
    struct front *f = open_nowhere(says_much);
    struct sender *s = inject(f, CLOSING_GET);
    rig_until(f->rig, s->ends);
    assert_true(s->n > BIG && s->n < BIG + 1024);
    front_free(f);
    free(s);
}

static void waits_for_an_answer_without_keeping_the_loop(void **state) {
    (void)state;
    struct front *f = open_nowhere(NULL);
    struct sender *s = inject(f, CLOSING_GET);
    struct pge_http_request *req = until_asked(f);
    while (uv_run(&f->rig->uv, UV_RUN_ONCE))
        continue;
    say_ok(f, req);
    rig_until(f->rig, s->ends);
    assert_non_null(strstr(s->text, "\r\n\r\nok"));
    front_free(f);
    free(s);
}

static void aborts_what_waits_when_it_is_closed(void **state) {
    (void)state;
    struct front *f = open_nowhere(NULL);
    struct sender *s = inject(f, CLOSING_GET);
    rig_until(f->rig, f->requests);
    pge_http_server_close(f->server);
    rig_until(f->rig, f->closes && s->ends);
    assert_int_equal(f->aborts, 1);
    assert_int_equal(s->n, 0);
    front_free(f);
    free(s);
}

static void drains_and_takes_nothing_more(void **state) {
    (void)state;
    struct front *f = open_nowhere(say_ok);
    struct sender none = {0};
    pge_http_server_drain(f->server);
    assert_int_equal(f->closes, 0); /* from the loop */
    assert_int_equal(pge_http_server_inject(f->server, GET, strlen(GET), &peer, &none), UV_EPIPE);
    rig_until(f->rig, f->closes);
    assert_int_equal(none.ends, 0);
    front_free(f);
}

static void survives_failing_memory(void **state) {
    (void)state;
    size_t asked = 1, grants = 0;
    for (; asked >= grants; grants++) { /* until a run has asked for no more than it was granted */
        struct front *f = open_nowhere(say_ok);
        struct sender *s = calloc(1, sizeof *s);
        f->answer = NULL;
        f->rig->alloc.asked = 0;
        f->rig->alloc.grants = grants;
        int status = pge_http_server_inject(f->server, GET, strlen(GET), &peer, s);
        asked = f->rig->alloc.asked;
        for (int i = 0; i < 8; i++)
            uv_run(&f->rig->uv, UV_RUN_NOWAIT);
        asked = f->rig->alloc.asked;
        f->rig->alloc.grants = (size_t)-1;
        pge_http_server_close(f->server);
        rig_until(f->rig, f->closes);
        assert_int_equal(s->ends, status == 0);
        front_free(f);
        free(s);
    }
    assert_true(grants > 3);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_and_ends),
        cmocka_unit_test(answers_what_is_pipelined_and_refuses_what_is_bad),
        cmocka_unit_test(hands_over_a_reply_of_megabytes),
        cmocka_unit_test(waits_for_an_answer_without_keeping_the_loop),
        cmocka_unit_test(aborts_what_waits_when_it_is_closed),
        cmocka_unit_test(drains_and_takes_nothing_more),
        cmocka_unit_test(survives_failing_memory),
    };
    alarm(60);
    return cmocka_run_group_tests_name("memory", tests, NULL, NULL);
}
