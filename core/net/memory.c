/*
 * memory.c - the stream of injected requests. What a socket would do later is done at the end of
 * the turn.
 */
#include "net/memory.h"

#include <stdio.h>

struct memory {
    struct pge_conn base; /* first */
    struct pge_buf in;    /* what the peer has sent and nobody has read */
    struct pge_defer deliver, finish;
    const struct pge_memory_peer *peer; /* static; NULL before it is open */
    void *arg;
    bool has_ended; /* the peer has seen our end, and sends its own */
};

static struct memory *of(struct pge_conn *conn) {
    return container_of(conn, struct memory, base);
}

static void on_deliver(struct pge_defer *defer) {
    struct memory *self = container_of(defer, struct memory, deliver);
    struct pge_conn *conn = &self->base;
    while (conn->is_reading && !conn->is_closing && pge_buf_len(&self->in)) {
        struct pge_buf lent = self->in; /* reading may be stopped and started meanwhile */
        self->in = (struct pge_buf){0};
        conn->events->on_data(conn, pge_buf_head(&lent), (ssize_t)pge_buf_len(&lent));
        pge_buf_deinit(&lent);
    }
    if (conn->is_reading && !conn->is_closing && self->has_ended && !conn->has_ended)
        pge_conn_ended(conn, UV_EOF);
}

static void on_finish(struct pge_defer *defer) {
    struct memory *self = container_of(defer, struct memory, finish);
    const struct pge_memory_peer *peer = self->peer;
    void *arg = self->arg;
    pge_buf_deinit(&self->in);
    pge_conn_closed(&self->base);
    if (peer)
        peer->on_end(arg);
}

static int memory_init(struct pge_conn *conn) {
    struct memory *self = of(conn);
    pge_defer_init(&self->deliver, on_deliver);
    pge_defer_init(&self->finish, on_finish);
    return 0;
}

static int memory_connect(struct pge_conn *conn, const struct pge_endpoint *to) {
    (void)conn;
    (void)to;
    return UV_ENOTSUP;
}

static int memory_accept(struct pge_listener *listener, struct pge_conn *conn, int fd) {
    (void)listener;
    (void)conn;
    (void)fd;
    return UV_ENOTSUP;
}

static int memory_read_start(struct pge_conn *conn) {
    return pge_loop_defer(conn->loop, &of(conn)->deliver, PGE_SOON);
}

static void memory_read_stop(struct pge_conn *conn) {
    pge_defer_cancel(&of(conn)->deliver);
}

static int memory_write(struct pge_conn *conn, const char *data, size_t n, pge_write_cb done) {
    (void)done;
    of(conn)->peer->on_output(of(conn)->arg, data, n);
    return 1;
}

static int memory_shutdown(struct pge_conn *conn) {
    of(conn)->has_ended = true;
    return pge_loop_defer(conn->loop, &of(conn)->deliver, PGE_SOON);
}

static void memory_close(struct pge_conn *conn) {
    struct memory *self = of(conn);
    pge_defer_cancel(&self->deliver);
    pge_loop_defer(conn->loop, &self->finish, PGE_SOON); /* cannot fail: the conn holds the loop */
}

static uint64_t memory_taken(const struct pge_conn *conn) {
    return conn->written;
}

static void memory_peer(const struct pge_conn *conn, char *out, size_t size) {
    (void)conn;
    snprintf(out, size, "memory:");
}

const struct pge_stream pge_stream_memory = {
    .name = "memory",
    .conn_size = sizeof(struct memory),
    .init = memory_init,
    .connect = memory_connect,
    .accept = memory_accept,
    .read_start = memory_read_start,
    .read_stop = memory_read_stop,
    .write = memory_write,
    .shutdown = memory_shutdown,
    .close = memory_close,
    .taken = memory_taken,
    .peer = memory_peer,
};

struct pge_conn *pge_memory_open(struct pge_loop *loop, const char *data, size_t n,
                                 const struct pge_memory_peer *peer, void *arg, int *status) {
    struct pge_conn *conn = pge_conn_new(loop, &pge_stream_memory, status);
    if (!conn)
        return NULL;
    *status = pge_buf_append(&of(conn)->in, data, n);
    if (*status < 0) {
        pge_conn_close(conn); /* events unset: silent */
        return NULL;
    }
    of(conn)->peer = peer;
    of(conn)->arg = arg;
    conn->is_open = true;
    return conn;
}
