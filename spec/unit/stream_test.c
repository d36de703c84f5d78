/* stream_test.c - the contract of core/net/stream.h, run against every stream. */
#include <signal.h>
#include <sys/socket.h>

#include "net_support.h"

enum { BIG = 6 * 1024 * 1024 };

struct variant {
    const char *name;
    bool is_tls, is_unix;
};

/* One listener, one client and the conn the listener got from it. */
struct pair {
    const struct variant *variant;
    struct rig *rig;
    struct host host;
    struct side client, server;
    struct pge_tls *tls_client, *tls_server;
};

static struct cert *root, *leaf;

static struct pge_endpoint endpoint(const struct variant *variant) {
    struct pge_endpoint at = variant->is_unix ? pipe_endpoint("stream") : tcp_endpoint();
    if (variant->is_tls)
        at.stream = &pge_stream_tls;
    return at;
}

static int set_up(void **state) {
    struct pair *p = calloc(1, sizeof *p);
    p->variant = *state;
    p->rig = rig_new();
    if (p->variant->is_tls) {
        p->tls_server = tls_side(
            &(struct pge_tls_options){.cert = leaf->cert_pem, .key = leaf->key_pem}, true);
        p->tls_client = tls_side(
            &(struct pge_tls_options){
                .ca = root->cert_pem, .server_name = "localhost", .verify = true},
            false);
    }
    p->client.is_reader = p->server.is_reader = true;
    *state = p;
    return 0;
}

static int listen_on(struct pair *p) {
    int status;
    struct pge_endpoint at = endpoint(p->variant);
    at.tls = p->tls_server;
    p->host = (struct host){.sides = &p->server, .room = 1};
    p->host.listener = pge_listener_open(&p->rig->loop, &at, 16, &host_events, &p->host, &status);
    return status;
}

static int dial(struct pair *p) {
    int status;
    struct pge_endpoint to = host_endpoint(p->host.listener);
    to.tls = p->tls_client;
    p->client.in_op = true;
    p->client.conn =
        pge_conn_connect(&p->rig->loop, &to, &side_events, &p->client, &status);
    p->client.in_op = false;
    return status;
}

static void open_pair(struct pair *p) {
    assert_int_equal(listen_on(p), 0);
    assert_int_equal(dial(p), 0);
    rig_until(p->rig, (p->client.opens || p->client.closes) && p->host.accepts);
}

/* Closes what is open; each conn must have been told of its end once. */
static void end_pair(struct pair *p) {
    if (p->client.conn)
        side_close(&p->client);
    if (p->server.conn)
        side_close(&p->server);
    if (p->host.listener)
        pge_listener_close(p->host.listener);
    rig_finish(p->rig);
    assert_null(p->client.conn);
    assert_null(p->server.conn);
    assert_null(p->host.listener);
}

static int tear_down(void **state) {
    struct pair *p = *state;
    end_pair(p);
    pge_tls_unref(p->tls_client);
    pge_tls_unref(p->tls_server);
    rig_free(p->rig);
    free(p);
    return 0;
}

static void write_text(struct side *side, const char *text) {
    side->in_op = true;
    assert_int_equal(pge_conn_write(side->conn, text, strlen(text)), 0);
    side->in_op = false;
}

static void write_pattern(struct side *side, size_t size) {
    char *bytes = malloc(size);
    assert_non_null(bytes);
    for (size_t i = 0; i < size; i++)
        bytes[i] = pattern_at(i);
    side->in_op = true;
    assert_int_equal(pge_conn_write(side->conn, bytes, size), 0);
    side->in_op = false;
    free(bytes);
}

/* ---- opening and echo ---- */

static void carries_bytes_both_ways(void **state) {
    struct pair *p = *state;
    p->server.is_echo = true;
    open_pair(p);
    write_text(&p->client, "one ");
    write_text(&p->client, "two ");
    write_text(&p->client, "three");
    assert_int_equal(pge_conn_queued(p->client.conn), 13);
    rig_until(p->rig, p->client.got == 13);
    assert_string_equal(p->client.text, "one two three");
    assert_int_equal(p->server.reads, 1); /* one write per turn */
    assert_int_equal(pge_conn_queued(p->client.conn), 0);
    assert_int_equal(p->client.drains, 0); /* what one write took needs no word */
}

static void sends_what_was_queued_before_the_open(void **state) {
    struct pair *p = *state;
    assert_int_equal(listen_on(p), 0);
    assert_int_equal(dial(p), 0);
    write_text(&p->client, "early");
    rig_until(p->rig, p->server.got == 5);
    assert_string_equal(p->server.text, "early");
    assert_int_equal(p->client.opens, 1);
}

static void half_closes_at_the_open_when_asked_before(void **state) {
    struct pair *p = *state;
    assert_int_equal(listen_on(p), 0);
    assert_int_equal(dial(p), 0);
    pge_conn_shutdown(p->client.conn);
    rig_until(p->rig, p->server.end);
    assert_int_equal(p->server.end, UV_EOF);
}

static void writes_at_once_when_flushed(void **state) {
    struct pair *p = *state;
    open_pair(p);
    write_text(&p->client, "now");
    pge_conn_flush(p->client.conn);
    assert_int_equal(pge_conn_queued(p->client.conn), 0);
    rig_until(p->rig, p->server.got == 3);
}

static void names_its_peer(void **state) {
    struct pair *p = *state;
    char name[128];
    open_pair(p);
    pge_conn_peer(p->server.conn, name, sizeof name);
    assert_memory_equal(name, p->variant->is_unix ? "unix:" : "127.0.0.1:",
                        p->variant->is_unix ? 6 : 10);
}

static void tells_a_failed_open_once(void **state) {
    struct pair *p = *state;
    int status;
    assert_int_equal(listen_on(p), 0);
    struct pge_endpoint to = host_endpoint(p->host.listener);
    to.tls = p->tls_client;
    pge_listener_close(p->host.listener);
    p->client.conn = pge_conn_connect(&p->rig->loop, &to, &side_events, &p->client, &status);
    assert_non_null(p->client.conn);
    rig_until(p->rig, p->client.opens);
    assert_int_equal(p->client.open_status, p->variant->is_unix ? UV_ENOENT : UV_ECONNREFUSED);
    write_text(&p->client, "to nobody");
    side_close(&p->client);
    rig_until(p->rig, p->client.closes);
    assert_int_equal(p->client.opens, 1);
}

/* ---- backpressure ---- */

static void carries_much_to_a_slow_reader(void **state) {
    struct pair *p = *state;
    p->server.is_pattern = p->server.is_stepping = true;
    p->server.is_reader = false;
    open_pair(p);
    write_pattern(&p->client, BIG);
    for (int turn = 0; turn < 64; turn++)
        uv_run(&p->rig->uv, UV_RUN_NOWAIT);
    assert_int_equal(p->server.got, 0);
    assert_true(pge_conn_queued(p->client.conn) > 0); /* nobody reads, so it waits here */
    assert_int_equal(p->client.drains, 0);
    while (p->server.got < BIG) {
        size_t reads = p->server.reads;
        assert_int_equal(pge_conn_read_start(p->server.conn), 0);
        rig_until(p->rig, p->server.reads > reads);
        assert_int_equal(p->server.reads, reads + 1); /* paused means paused */
        assert_false(p->server.conn->is_reading);
    }
    rig_until(p->rig, p->client.drains);
    assert_int_equal(p->client.drains, 1);
    assert_int_equal(p->client.drain_status, 0);
    assert_int_equal(pge_conn_queued(p->client.conn), 0);
}

static void carries_much_both_ways_at_once(void **state) {
    struct pair *p = *state;
    p->server.is_pattern = p->client.is_pattern = true;
    open_pair(p);
    write_pattern(&p->client, BIG);
    write_pattern(&p->server, BIG);
    rig_until(p->rig, p->server.got == BIG && p->client.got == BIG);
}

static void holds_the_end_back_while_paused(void **state) {
    struct pair *p = *state;
    p->server.is_reader = false;
    open_pair(p);
    write_text(&p->client, "last words");
    pge_conn_shutdown(p->client.conn);
    for (int turn = 0; turn < 64; turn++)
        uv_run(&p->rig->uv, UV_RUN_NOWAIT);
    assert_int_equal(p->server.reads, 0);
    assert_int_equal(pge_conn_read_start(p->server.conn), 0);
    pge_conn_read_stop(p->server.conn);
    pge_conn_read_stop(p->server.conn);
    for (int turn = 0; turn < 8; turn++)
        uv_run(&p->rig->uv, UV_RUN_NOWAIT);
    assert_int_equal(p->server.reads, 0);
    p->server.is_stepping = true; /* pauses between the words and the end */
    assert_int_equal(pge_conn_read_start(p->server.conn), 0);
    rig_until(p->rig, p->server.reads == 1);
    assert_string_equal(p->server.text, "last words");
    assert_int_equal(pge_conn_read_start(p->server.conn), 0);
    rig_until(p->rig, p->server.reads == 2);
    assert_int_equal(p->server.end, UV_EOF);
}

/* ---- ends ---- */

static void half_closes(void **state) {
    struct pair *p = *state;
    open_pair(p);
    write_text(&p->client, "question");
    pge_conn_shutdown(p->client.conn);
    rig_until(p->rig, p->server.end);
    assert_string_equal(p->server.text, "question");
    assert_int_equal(p->server.end, UV_EOF);
    write_text(&p->server, "answer"); /* still possible */
    pge_conn_shutdown(p->server.conn);
    rig_until(p->rig, p->client.end);
    assert_string_equal(p->client.text, "answer");
    assert_int_equal(p->client.end, UV_EOF);
}

static void closes_after_what_is_queued_is_written(void **state) {
    struct pair *p = *state;
    p->server.is_pattern = true;
    open_pair(p);
    write_pattern(&p->client, BIG);
    pge_conn_close_after_write(p->client.conn);
    rig_until(p->rig, p->server.end);
    assert_int_equal(p->server.end, UV_EOF);
    assert_int_equal(p->server.got, BIG);
    rig_until(p->rig, p->client.closes);
}

static void closes_at_once_when_nothing_is_queued(void **state) {
    struct pair *p = *state;
    open_pair(p);
    pge_conn_close_after_write(p->client.conn);
    pge_conn_close_after_write(p->client.conn);
    pge_conn_shutdown(p->client.conn);
    pge_conn_flush(p->client.conn);
    assert_true(p->client.conn->is_closing);
    rig_until(p->rig, p->client.closes && p->server.end);
    assert_int_equal(p->server.end, UV_EOF);
}

static void writes_nothing_after_the_half_close(void **state) {
    struct pair *p = *state;
    open_pair(p);
    pge_conn_shutdown(p->client.conn);
    rig_until(p->rig, p->server.end);
    write_text(&p->client, "afterthought");
    rig_until(p->rig, p->client.drains);
    assert_true(p->client.drain_status < 0);
    assert_int_equal(p->server.got, 0);
}

static void drops_what_is_queued_when_closed(void **state) {
    struct pair *p = *state;
    p->server.is_reader = false;
    open_pair(p);
    write_pattern(&p->client, BIG);
    pge_conn_flush(p->client.conn);
    assert_true(pge_conn_queued(p->client.conn) > 0);
    side_close(&p->client);
    assert_int_equal(pge_conn_write(p->client.conn, "x", 1), UV_EPIPE);
    rig_until(p->rig, p->client.closes);
    assert_int_equal(p->client.drains, 0);
    assert_int_equal(pge_conn_read_start(p->server.conn), 0);
    rig_until(p->rig, p->server.end);
    assert_true(p->server.got < BIG);
    if (p->variant->is_tls) /* cut short, and the peer can tell */
        assert_int_not_equal(p->server.end, UV_EOF);
}

static void closes_before_it_is_open(void **state) {
    struct pair *p = *state;
    assert_int_equal(listen_on(p), 0);
    assert_int_equal(dial(p), 0);
    side_close(&p->client);
    assert_int_equal(p->client.closes, 0); /* not inside the op */
    rig_until(p->rig, p->client.closes);
    assert_int_equal(p->client.opens, 0);
}

static void closes_at_any_moment(void **state) {
    struct pair *p = *state;
    for (int turns = 0; turns < 24; turns++) {
        p->client = p->server = (struct side){.is_reader = true};
        assert_int_equal(listen_on(p), 0);
        assert_int_equal(dial(p), 0);
        write_text(&p->client, "too late");
        for (int i = 0; i < turns; i++)
            uv_run(&p->rig->uv, UV_RUN_NOWAIT);
        if (turns % 2 && p->server.conn)
            side_close(&p->server);
        end_pair(p);
        assert_int_equal(p->client.closes, 1);
    }
}

static void closes_inside_on_open(void **state) {
    struct pair *p = *state;
    p->client.close_at = AT_OPEN;
    open_pair(p);
    rig_until(p->rig, p->client.closes);
    assert_int_equal(p->client.opens, 1);
    rig_until(p->rig, p->server.end);
}

static void closes_inside_on_accept(void **state) {
    struct pair *p = *state;
    p->server.close_at = AT_ACCEPT;
    open_pair(p);
    rig_until(p->rig, p->server.closes && p->client.end);
}

static void closes_inside_on_data(void **state) {
    struct pair *p = *state;
    p->server.close_at = AT_DATA;
    open_pair(p);
    write_pattern(&p->client, BIG); /* more would come */
    rig_until(p->rig, p->server.closes);
    assert_int_equal(p->server.reads, 1);
    rig_until(p->rig, p->client.end || p->client.drain_status);
}

static void closes_inside_on_data_of_the_end(void **state) {
    struct pair *p = *state;
    p->server.close_at = AT_DATA;
    open_pair(p);
    pge_conn_shutdown(p->client.conn);
    rig_until(p->rig, p->server.closes);
    assert_int_equal(p->server.end, UV_EOF);
}

static void closes_inside_on_drain(void **state) {
    struct pair *p = *state;
    p->client.close_at = AT_DRAIN;
    open_pair(p);
    write_pattern(&p->client, BIG);
    rig_until(p->rig, p->client.closes);
    assert_int_equal(p->client.drains, 1);
    rig_until(p->rig, p->server.end);
    assert_int_equal(p->server.got, BIG);
}

static void no_linger(uv_handle_t *handle, void *arg) {
    uv_os_fd_t fd;
    struct linger now = {.l_onoff = 1};
    (void)arg;
    if (handle->type == UV_TCP && uv_fileno(handle, &fd) == 0)
        assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now), 0);
}

static void tells_of_a_reset(void **state) {
    struct pair *p = *state;
    p->server.is_reader = false;
    open_pair(p);
    write_text(&p->client, "never read"); /* makes the end of a unix socket a reset */
    pge_conn_flush(p->client.conn);
    if (p->variant->is_tls) {
        write_pattern(&p->server, BIG); /* leaves bytes unsent, so that TLS says no goodbye */
        p->client.is_stepping = true;
        rig_until(p->rig, p->client.reads);
    }
    uv_walk(&p->rig->uv, no_linger, NULL);
    side_close(&p->server);
    rig_until(p->rig, p->server.closes);
    p->client.is_stepping = false;
    assert_int_equal(pge_conn_read_start(p->client.conn), 0);
    rig_until(p->rig, p->client.end);
    assert_int_equal(p->client.end, UV_ECONNRESET);
}

static void tells_of_a_write_that_failed(void **state) {
    struct pair *p = *state;
    p->server.is_reader = p->client.is_reader = false;
    open_pair(p);
    write_pattern(&p->client, BIG);
    pge_conn_flush(p->client.conn);
    assert_true(pge_conn_queued(p->client.conn) > 0);
    uv_walk(&p->rig->uv, no_linger, NULL);
    side_close(&p->server);
    rig_until(p->rig, p->client.drains);
    assert_true(p->client.drain_status < 0);
    assert_int_equal(p->client.drains, 1);
}

static void closes_by_itself_when_the_last_write_fails(void **state) {
    struct pair *p = *state;
    p->server.is_reader = p->client.is_reader = false;
    open_pair(p);
    write_pattern(&p->client, BIG);
    pge_conn_flush(p->client.conn);
    pge_conn_close_after_write(p->client.conn);
    assert_false(p->client.conn->is_closing);
    uv_walk(&p->rig->uv, no_linger, NULL);
    side_close(&p->server);
    rig_until(p->rig, p->client.closes);
    assert_int_equal(p->client.drains, 0);
}

static void is_closed_with_its_listener_while_shaking_hands(void **state) {
    struct pair *p = *state;
    assert_int_equal(listen_on(p), 0);
    assert_int_equal(dial(p), 0);
    for (int turn = 0; turn < 2; turn++)
        uv_run(&p->rig->uv, UV_RUN_NOWAIT);
    pge_listener_close(p->host.listener);
    rig_until(p->rig, p->client.end || p->client.open_status || p->host.accepts);
}

/* ---- out of memory ---- */

/* One exchange; false when some step was refused. */
static bool try_exchange(struct pair *p) {
    if (listen_on(p) < 0 || dial(p) < 0)
        return false;
    while (!p->client.end && !p->client.open_status && !p->client.drain_status &&
           p->client.got < 5 && !p->host.listener->refused) {
        if (p->client.opens && p->server.reads == 0 && pge_conn_queued(p->client.conn) == 0 &&
            p->client.reads == 0 && p->client.text[255] == 0) {
            p->client.text[255] = 1; /* asked */
            if (pge_conn_write(p->client.conn, "hello", 5) < 0)
                return false;
        }
        if (p->server.got == 5 && p->server.text[255] == 0) {
            p->server.text[255] = 1; /* answered */
            if (pge_conn_write(p->server.conn, p->server.text, 5) < 0)
                return false;
        }
        assert_true(uv_run(&p->rig->uv, UV_RUN_ONCE));
    }
    return p->client.got == 5;
}

static void survives_every_failing_allocation(void **state) {
    struct pair *p = *state;
    size_t held = p->rig->alloc.held;
    bool is_done = false;
    int failures = 0;
    for (size_t grants = 0; !is_done; grants++) {
        assert_true(grants < 1000);
        p->client = p->server = (struct side){.is_reader = true};
        p->rig->alloc.grants = grants;
        is_done = try_exchange(p);
        failures += !is_done;
        p->rig->alloc.grants = (size_t)-1;
        end_pair(p);
        assert_int_equal(p->rig->alloc.held, held);
    }
    assert_true(failures >= 5); /* loop, listener, two conns, two buffers: each was refused once */
    assert_memory_equal(p->client.text, "hello", 5);
}

#define TEST(fn) {#fn, fn}

static const struct {
    const char *name;
    CMUnitTestFunction fn;
} tests[] = {
    TEST(carries_bytes_both_ways),
    TEST(sends_what_was_queued_before_the_open),
    TEST(half_closes_at_the_open_when_asked_before),
    TEST(writes_at_once_when_flushed),
    TEST(names_its_peer),
    TEST(tells_a_failed_open_once),
    TEST(carries_much_to_a_slow_reader),
    TEST(carries_much_both_ways_at_once),
    TEST(holds_the_end_back_while_paused),
    TEST(half_closes),
    TEST(closes_after_what_is_queued_is_written),
    TEST(closes_at_once_when_nothing_is_queued),
    TEST(writes_nothing_after_the_half_close),
    TEST(drops_what_is_queued_when_closed),
    TEST(closes_before_it_is_open),
    TEST(closes_at_any_moment),
    TEST(closes_inside_on_open),
    TEST(closes_inside_on_accept),
    TEST(closes_inside_on_data),
    TEST(closes_inside_on_data_of_the_end),
    TEST(closes_inside_on_drain),
    TEST(tells_of_a_reset),
    TEST(tells_of_a_write_that_failed),
    TEST(closes_by_itself_when_the_last_write_fails),
    TEST(is_closed_with_its_listener_while_shaking_hands),
    TEST(survives_every_failing_allocation),
};

static struct variant variants[] = {
    {"tcp", false, false},
    {"pipe", false, true},
    {"tls over tcp", true, false},
    {"tls over pipe", true, true},
};

enum {
    TESTS = sizeof tests / sizeof tests[0],
    VARIANTS = sizeof variants / sizeof variants[0]
};

int main(int argc, char **argv) {
    static struct CMUnitTest all[TESTS * VARIANTS];
    static char names[TESTS * VARIANTS][96];
    signal(SIGPIPE, SIG_IGN);
    alarm(60);
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    root = cert_new("a root", NULL, NULL, 1);
    leaf = cert_new("a leaf", "DNS:localhost", root, 1);
    for (size_t i = 0; i < TESTS * VARIANTS; i++) {
        struct variant *variant = &variants[i / TESTS];
        snprintf(names[i], sizeof names[i], "%s: %s", variant->name, tests[i % TESTS].name);
        all[i] = (struct CMUnitTest){names[i], tests[i % TESTS].fn, set_up, tear_down, variant};
    }
    int failures = cmocka_run_group_tests_name("stream", all, NULL, NULL);
    cert_free(root);
    cert_free(leaf);
    return failures;
}
