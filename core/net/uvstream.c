/* uvstream.c - conns over uv_stream_t: tcp and unix pipes differ only in names and options. */
#include "net/uvstream.h"

#include <stdio.h>

static struct pge_uvconn *of(struct pge_conn *conn) {
    return container_of(conn, struct pge_uvconn, base);
}

static struct pge_uvconn *of_stream(uv_stream_t *stream) {
    return container_of(stream, struct pge_uvconn, uv.stream);
}

/* The read buffer is the loop's: on_data only lends it, so one serves all connections. */
static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf) {
    (void)suggested;
    struct pge_conn *conn = &container_of(handle, struct pge_uvconn, uv.handle)->base;
    *buf = conn->sink.len ? conn->sink : uv_buf_init(conn->loop->read_buf, PGE_READ_SIZE);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf) {
    struct pge_conn *conn = &of_stream(stream)->base;
    if (n == 0 || conn->is_closing)
        return;
    conn->sink.len = 0;
    if (n < 0)
        pge_conn_ended(conn, (int)n);
    else
        conn->events->on_data(conn, buf->base, n);
}

void pge_uvconn_on_connect(uv_connect_t *req, int status) {
    pge_conn_opened(&container_of(req, struct pge_uvconn, req.connect)->base, status);
}

int pge_uvconn_read_start(struct pge_conn *conn) {
    return uv_read_start(&of(conn)->uv.stream, on_alloc, on_read);
}

void pge_uvconn_read_stop(struct pge_conn *conn) {
    uv_read_stop(&of(conn)->uv.stream);
}

static void on_write(uv_write_t *req, int status) {
    struct pge_uvconn *self = container_of(req, struct pge_uvconn, write_req);
    self->write_done(&self->base, status);
}

int pge_uvconn_write(struct pge_conn *conn, const char *data, size_t n, pge_write_cb done) {
    struct pge_uvconn *self = of(conn);
    size_t sent = 0;
    pge_conn_warm(conn);
    while (sent < n) { /* in chunks: the result is an int */
        size_t chunk = n - sent > 1u << 30 ? 1u << 30 : n - sent;
        uv_buf_t buf = {.base = (char *)data + sent, .len = chunk};
        int status = uv_try_write(&self->uv.stream, &buf, 1);
        if (status == UV_EAGAIN)
            break;
        if (status < 0)
            return status;
        sent += (size_t)status;
        if ((size_t)status < chunk)
            break; /* the socket buffer is full: libuv waits for room */
    }
    if (sent == n)
        return 1;
    uv_buf_t buf = {.base = (char *)data + sent, .len = n - sent};
    self->write_done = done;
    return uv_write(&self->write_req, &self->uv.stream, &buf, 1, on_write);
}

uint64_t pge_uvconn_taken(const struct pge_conn *conn) {
    const struct pge_uvconn *self = container_of(conn, const struct pge_uvconn, base);
    if (!conn->is_sending)
        return conn->written;
    size_t left = uv_stream_get_write_queue_size(&self->uv.stream);
    return conn->written + pge_buf_len(&conn->sending) - left;
}

static void on_shutdown(uv_shutdown_t *req, int status) {
    (void)req;
    (void)status; /* a dead peer shows itself to the reader */
}

int pge_uvconn_shutdown(struct pge_conn *conn) {
    struct pge_uvconn *self = of(conn);
    return uv_shutdown(&self->req.shutdown, &self->uv.stream, on_shutdown);
}

static void on_closed(uv_handle_t *handle) {
    pge_conn_closed(&container_of(handle, struct pge_uvconn, uv.handle)->base);
}

void pge_uvconn_close(struct pge_conn *conn) {
    uv_close(&of(conn)->uv.handle, on_closed);
}

void pge_sockaddr_text(const struct sockaddr *sa, char *out, size_t size) {
    char ip[INET6_ADDRSTRLEN] = "?";
    if (sa->sa_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, sa, sizeof in);
        uv_ip4_name(&in, ip, sizeof ip);
        snprintf(out, size, "%s:%d", ip, ntohs(in.sin_port));
    } else if (sa->sa_family == AF_INET6) {
        struct sockaddr_in6 in6;
        memcpy(&in6, sa, sizeof in6);
        uv_ip6_name(&in6, ip, sizeof ip);
        snprintf(out, size, "[%s]:%d", ip, ntohs(in6.sin6_port));
    } else {
        snprintf(out, size, "?");
    }
}
