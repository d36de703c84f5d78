/* stream_close_test.c - the contract of core/net/stream.h: every way in which a conn can end. */
#include "stream_support.h"

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

static void small_buffer(uv_handle_t *handle, void *arg) {
    int size = 8192;
    (void)arg;
    if (handle->type == UV_TCP || handle->type == UV_NAMED_PIPE)
        uv_send_buffer_size(handle, &size);
}

/* However full the kernel is when the last byte has gone in, the end is a clean one. */
static void closes_cleanly_with_the_kernel_full(void **state) {
    struct pair *p = *state;
    for (size_t size = 30000; size < 60000; size += 331) {
        p->client = (struct side){.is_reader = true};
        p->server = (struct side){.is_pattern = true};
        open_pair(p);
        uv_walk(&p->rig->uv, small_buffer, NULL);
        write_pattern(&p->client, size);
        pge_conn_close_after_write(p->client.conn);
        for (int i = 0; i < 3; i++)
            uv_run(&p->rig->uv, UV_RUN_NOWAIT);
        assert_int_equal(pge_conn_read_start(p->server.conn), 0);
        rig_until(p->rig, p->server.end);
        assert_int_equal(p->server.end, UV_EOF);
        assert_int_equal(p->server.got, size);
        end_pair(p);
    }
}

static void waits_for_a_peer_that_never_reads_no_longer_than_a_second(void **state) {
    struct pair *p = *state;
    int waits = 0;
    rig_stop_clock(p->rig);
    for (size_t size = 1000; size < 60000; size += 97) {
        p->client = p->server = (struct side){.is_reader = false};
        open_pair(p);
        uv_walk(&p->rig->uv, small_buffer, NULL);
        write_pattern(&p->client, size);
        pge_conn_flush(p->client.conn);
        bool is_full = pge_conn_queued(p->client.conn) > 0;
        pge_conn_close_after_write(p->client.conn);
        for (int i = 0; i < 4; i++)
            uv_run(&p->rig->uv, UV_RUN_NOWAIT);
        if (!is_full && p->client.closes == 0) {
            waits++;
            rig_pass(p->rig, 1000);
            rig_until(p->rig, p->client.closes);
        }
        end_pair(p);
        if (is_full || waits == 3)
            break;
    }
    assert_true((waits > 0) == p->variant->is_tls); /* the others have no goodbye to say */
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

static void tells_of_a_failed_flush_after_it(void **state) {
    struct pair *p = *state;
    open_pair(p);
    pge_conn_shutdown(p->client.conn);
    rig_until(p->rig, p->server.end);
    p->client.in_op = true;
    assert_int_equal(pge_conn_write(p->client.conn, "x", 1), 0);
    pge_conn_flush(p->client.conn);
    assert_int_equal(p->client.drains, 0);
    assert_int_equal(pge_conn_write(p->client.conn, "x", 1), UV_EPIPE);
    pge_conn_flush(p->client.conn);
    p->client.in_op = false;
    rig_until(p->rig, p->client.drains);
    assert_true(p->client.drain_status < 0);
    assert_int_equal(pge_conn_write(p->client.conn, "x", 1), UV_EPIPE);
    side_close(&p->client);
    rig_until(p->rig, p->client.closes);
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

int main(void) {
    static const struct stream_case cases[] = {
        CASE(half_closes),
        CASE(closes_after_what_is_queued_is_written),
        CASE(closes_cleanly_with_the_kernel_full),
        CASE(waits_for_a_peer_that_never_reads_no_longer_than_a_second),
        CASE(closes_at_once_when_nothing_is_queued),
        CASE(writes_nothing_after_the_half_close),
        CASE(drops_what_is_queued_when_closed),
        CASE(closes_before_it_is_open),
        CASE(closes_at_any_moment),
        CASE(closes_inside_on_open),
        CASE(closes_inside_on_accept),
        CASE(closes_inside_on_data),
        CASE(closes_inside_on_data_of_the_end),
        CASE(closes_inside_on_drain),
        CASE(tells_of_a_reset),
        CASE(tells_of_a_write_that_failed),
        CASE(tells_of_a_failed_flush_after_it),
        CASE(closes_by_itself_when_the_last_write_fails),
        CASE(is_closed_with_its_listener_while_shaking_hands),
    };
    return stream_run("stream close", cases, sizeof cases / sizeof cases[0]);
}
