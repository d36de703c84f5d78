/* tcp.c - the tcp stream. */
#include <stdio.h>

#include "net/uvstream.h"

/* A half-open peer is found by the kernel in about two minutes (reliability 2.3). */
enum { KEEPALIVE_S = 60 };

static int tcp_init(struct pge_conn *conn) {
    struct pge_uvconn *self = container_of(conn, struct pge_uvconn, base);
    int status = uv_tcp_init(conn->loop->uv, &self->uv.tcp);
    if (status == 0 && conn->loop->adopt)
        conn->loop->adopt(conn->loop, &self->uv.handle);
    return status;
}

/* Best effort: a socket without these options still works. */
static void tune(struct pge_conn *conn) {
    uv_tcp_t *tcp = &container_of(conn, struct pge_uvconn, base)->uv.tcp;
    uv_tcp_nodelay(tcp, 1);
    uv_tcp_keepalive(tcp, 1, KEEPALIVE_S);
}

static void on_connect(uv_connect_t *req, int status) {
    if (status == 0)
        tune(&container_of(req, struct pge_uvconn, req.connect)->base);
    pge_uvconn_on_connect(req, status);
}

static int tcp_connect(struct pge_conn *conn, const struct pge_endpoint *to) {
    struct pge_uvconn *self = container_of(conn, struct pge_uvconn, base);
    return uv_tcp_connect(&self->req.connect, &self->uv.tcp, &to->addr.sa, on_connect);
}

static int tcp_accept(struct pge_listener *listener, struct pge_conn *conn, int fd) {
    (void)listener;
    int status = uv_tcp_open(&container_of(conn, struct pge_uvconn, base)->uv.tcp, fd);
    if (status < 0)
        return status;
    conn->is_open = true;
    tune(conn);
    return 0;
}

static void tcp_peer(const struct pge_conn *conn, char *out, size_t size) {
    const struct pge_uvconn *self = (const struct pge_uvconn *)conn;
    struct sockaddr_storage name;
    int len = sizeof name;
    if (uv_tcp_getpeername(&self->uv.tcp, (struct sockaddr *)&name, &len) == 0)
        pge_sockaddr_text((struct sockaddr *)&name, out, size);
    else
        snprintf(out, size, "?");
}

const struct pge_stream pge_stream_tcp = {
    .name = "tcp",
    .conn_size = sizeof(struct pge_uvconn),
    .init = tcp_init,
    .connect = tcp_connect,
    .accept = tcp_accept,
    .read_start = pge_uvconn_read_start,
    .read_stop = pge_uvconn_read_stop,
    .write = pge_uvconn_write,
    .shutdown = pge_uvconn_shutdown,
    .close = pge_uvconn_close,
    .taken = pge_uvconn_taken,
    .peer = tcp_peer,
};
