/*
 * tcp.c - Nest's TCP transport (nest-wire 2): JSON packets in "LENGTH#" frames, over tcp, tls or a
 * unix socket.
 *
 *   conn bytes -> frame codec -> packet -> engine;   engine -> packet -> frame in conn->out
 */
#include "transport/tcp.h"

#include <stdio.h>
#include <uv.h>

#include "codec/utf8.h"

/* What a length of uv_buf_t holds everywhere, and more than a kernel gives at once. */
enum { MAX_READ = 1 << 30 };

int pge_tcp_finish_frame(struct pge_conn *conn, size_t len, size_t mark, int status,
                         size_t max_bytes) {
    struct pge_buf *out = &conn->out;
    if (status == 0 && pge_buf_len(out) - len > max_bytes)
        status = UV_EMSGSIZE;
    if (status == 0)
        status = pge_nest_frame_end(out, mark, SIZE_MAX);
    if (status == 0)
        return pge_conn_dirty(conn);
    out->end = out->start + len;
    return status;
}

/* On failure the loan is as it was, but for a few bytes behind the data. */
static int give(struct pge_conn *conn, struct pge_span data, size_t tail) {
    struct pge_buf *out = &conn->out, *loan = conn->loop->loan;
    size_t start = loan->start, end = loan->end;
    pge_buf_cut(loan, data);
    int status = pge_buf_append(loan, out->data + out->end - tail, tail);
    out->end -= tail;
    if (status == 0)
        status = pge_conn_give(conn, loan);
    if (status < 0) {
        loan->start = start;
        loan->end = end;
    }
    return status;
}

int pge_tcp_give_frame(struct pge_conn *conn, size_t len, size_t mark, struct pge_span data,
                       size_t tail, size_t max_bytes) {
    struct pge_buf *out = &conn->out;
    size_t before = pge_buf_len(out);
    int status = before - len + data.n > max_bytes ? UV_EMSGSIZE : 0;
    if (status == 0) {
        size_t units = pge_utf16_units(pge_buf_head(out) + mark + PGE_NEST_FRAME_GAP,
                                       before - mark - PGE_NEST_FRAME_GAP);
        status = pge_nest_frame_end(out, mark, units + pge_utf16_units(data.p, data.n));
    }
    if (status == 0)
        status = give(conn, data, tail);
    if (status < 0)
        out->end = out->start + len;
    return status;
}

void pge_tcp_aim(struct pge_conn *conn, struct pge_nest_frame *frame) {
    struct pge_room room = pge_nest_frame_room(frame);
    conn->sink = uv_buf_init(room.p, (unsigned)(room.n < MAX_READ ? room.n : MAX_READ));
}

void pge_tcp_watch_partial(struct pge_loop *loop, const struct pge_nest_frame *frame,
                           struct pge_timer *timer, uint64_t limit_ms) {
    if (limit_ms && pge_nest_frame_partial(frame))
        pge_loop_timer(loop, timer, limit_ms);
    else
        pge_loop_timer_stop(loop, timer);
}

void pge_tcp_explain_silence(const struct pge_nest_frame *frame, uint64_t limit_ms, char *out,
                             size_t size) {
    snprintf(
        out, size,
        "The remote peer stopped sending in the middle of a packet (%zu character(s) buffered) "
        "and did not send anything for %llums",
        pge_nest_frame_partial(frame), (unsigned long long)limit_ms);
}

const struct pge_transport pge_transport_tcp = {
    .name = "tcp",
    .link_size = sizeof(struct pge_tcp_link),
    .link_connect = pge_tcp_link_connect,
    .link_send = pge_tcp_link_send,
    .link_emit = pge_tcp_link_emit,
    .link_forget = pge_tcp_link_forget,
    .link_queued = pge_tcp_link_queued,
    .link_close = pge_tcp_link_close,
    .serve = pge_tcp_serve,
    .pause = pge_tcp_pause_listener,
    .unserve = pge_tcp_unserve,
    .address = pge_tcp_address,
    .peer_size = sizeof(struct pge_tcp_peer),
    .peer_reply = pge_tcp_peer_reply,
    .peer_no_handler = pge_tcp_peer_no_handler,
    .peer_queued = pge_tcp_peer_queued,
    .peer_taken = pge_tcp_peer_taken,
    .peer_read = pge_tcp_peer_read,
    .peer_probe = pge_tcp_peer_probe,
    .peer_name = pge_tcp_peer_name,
    .peer_close = pge_tcp_peer_close,
};
