/* stream_test.c - the contract of core/net/stream.h: opening, carrying, backpressure, no memory. */
#include "stream_support.h"

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
    assert_memory_equal(name,
                        p->variant->is_unix ? "unix:" : "127.0.0.1:", p->variant->is_unix ? 6 : 10);
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

/* Bytes from to to of the pattern, in memory to be given. */
static struct pge_buf gift(size_t from, size_t to) {
    struct pge_buf buf = {0};
    assert_int_equal(pge_buf_append(&buf, "consumed", 8), 0);
    assert_int_equal(pge_buf_reserve(&buf, to - from), 0);
    pge_buf_consume(&buf, 7);
    for (size_t i = from; i < to; i++)
        buf.data[buf.end++] = pattern_at(i);
    buf.start++;
    return buf;
}

static void give(struct side *side, size_t from, size_t to) {
    struct pge_buf bytes = gift(from, to);
    side->in_op = true;
    assert_int_equal(pge_conn_give(side->conn, &bytes), 0);
    side->in_op = false;
    assert_null(bytes.data);
}

static void append(struct side *side, size_t from, size_t to) {
    struct pge_buf bytes = gift(from, to);
    assert_int_equal(pge_conn_write(side->conn, pge_buf_head(&bytes), to - from), 0);
    pge_buf_deinit(&bytes);
}

static void carries_gifts_in_their_place(void **state) {
    struct pair *p = *state;
    p->server.is_pattern = true;
    open_pair(p);
    append(&p->client, 0, 10);
    give(&p->client, 10, 100000);
    give(&p->client, 100000, 100001);
    append(&p->client, 100001, 100100);
    append(&p->client, 100100, 100200);
    give(&p->client, 100200, BIG);
    append(&p->client, BIG, BIG + 10);
    assert_int_equal(pge_conn_queued(p->client.conn), BIG + 10);
    rig_until(p->rig, p->server.got == BIG + 10);
    rig_until(p->rig, pge_conn_queued(p->client.conn) == 0);
    assert_int_equal(p->client.drain_status, 0);
    append(&p->client, BIG + 10, BIG + 20);
    give(&p->client, BIG + 20, BIG + 30);
    pge_conn_close_after_write(p->client.conn);
    rig_until(p->rig, p->server.end);
    assert_int_equal(p->server.got, BIG + 30);
}

static void drops_gifts_that_cannot_go_out(void **state) {
    struct pair *p = *state;
    p->server.is_reader = false;
    open_pair(p);
    give(&p->client, 0, BIG);
    append(&p->client, 0, 10);
    give(&p->client, 0, BIG);
    for (int turn = 0; turn < 16; turn++)
        uv_run(&p->rig->uv, UV_RUN_NOWAIT);
    assert_true(pge_conn_queued(p->client.conn) > BIG);
    side_close(&p->client); /* what is still held then is seen when the rig is freed */
    struct pge_buf late = gift(0, 10);
    assert_int_equal(pge_conn_give(p->client.conn, &late), UV_EPIPE);
    assert_int_equal(pge_buf_len(&late), 10);
    pge_buf_deinit(&late);
}

static void leaves_a_gift_with_the_giver_without_memory(void **state) {
    struct pair *p = *state;
    open_pair(p);
    write_text(&p->client, "one ");
    struct pge_buf bytes = {0};
    assert_int_equal(pge_buf_append(&bytes, "two", 3), 0);
    p->rig->alloc.grants = 0;
    assert_int_equal(pge_conn_give(p->client.conn, &bytes), UV_ENOMEM);
    p->rig->alloc.grants = (size_t)-1;
    assert_int_equal(pge_buf_len(&bytes), 3);
    assert_int_equal(pge_conn_give(p->client.conn, &bytes), 0);
    rig_until(p->rig, p->server.got == 7);
    assert_string_equal(p->server.text, "one two");
}

static void reads_once_to_where_the_owner_wants_it(void **state) {
    struct pair *p = *state;
    char sink[4];
    open_pair(p);
    p->server.conn->sink = uv_buf_init(sink, sizeof sink);
    write_text(&p->client, "sink");
    rig_until(p->rig, p->server.got == 4);
    assert_ptr_equal(p->server.last, sink);
    assert_int_equal(p->server.conn->sink.len, 0);
    write_text(&p->client, "rest");
    rig_until(p->rig, p->server.got == 8);
    assert_ptr_not_equal(p->server.last, sink);
    p->server.conn->sink = uv_buf_init(sink, sizeof sink);
    write_text(&p->client, "more than it");
    rig_until(p->rig, p->server.got == 20);
    assert_string_equal(p->server.text, "sinkrestmore than it");
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

/* ---- quiet ---- */

static size_t held(const struct side *side) {
    return side->conn->out.cap + side->conn->sending.cap;
}

static void gives_its_buffers_back_when_quiet(void **state) {
    static const char much[40000];
    struct pair *p = *state;
    open_pair(p);
    assert_int_equal(pge_conn_write(p->client.conn, much, sizeof much), 0);
    write_text(&p->server, "hi");
    rig_until(p->rig, p->server.got == sizeof much && p->client.got == 2);
    assert_true(held(&p->client) >= sizeof much);
    rig_stop_clock(p->rig);
    rig_pass(p->rig, 1000); /* the first look sees that something was written */
    assert_true(held(&p->client) >= sizeof much);
    write_text(&p->server, "hi");
    rig_until(p->rig, p->client.got == 4);
    rig_pass(p->rig, 1000);
    assert_int_equal(held(&p->client), 0);
    assert_true(held(&p->server) > 0);
    rig_pass(p->rig, 1000);
    assert_int_equal(held(&p->server), 0);
    write_text(&p->client, "again"); /* and it goes on */
    rig_until(p->rig, p->server.got == sizeof much + 5);
}

int main(void) {
    static const struct stream_case cases[] = {
        CASE(carries_bytes_both_ways),
        CASE(sends_what_was_queued_before_the_open),
        CASE(half_closes_at_the_open_when_asked_before),
        CASE(writes_at_once_when_flushed),
        CASE(names_its_peer),
        CASE(tells_a_failed_open_once),
        CASE(carries_much_to_a_slow_reader),
        CASE(carries_gifts_in_their_place),
        CASE(drops_gifts_that_cannot_go_out),
        CASE(leaves_a_gift_with_the_giver_without_memory),
        CASE(reads_once_to_where_the_owner_wants_it),
        CASE(carries_much_both_ways_at_once),
        CASE(holds_the_end_back_while_paused),
        CASE(survives_every_failing_allocation),
        CASE(gives_its_buffers_back_when_quiet),
    };
    return stream_run("stream", cases, sizeof cases / sizeof cases[0]);
}
