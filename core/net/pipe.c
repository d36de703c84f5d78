/* pipe.c - the unix socket stream. */
#include <stdio.h>

#include "net/uvstream.h"

static int pipe_init(struct pge_conn *conn) {
    struct pge_uvconn *self = container_of(conn, struct pge_uvconn, base);
    int status = uv_pipe_init(conn->loop->uv, &self->uv.pipe, 0);
    if (status == 0 && conn->loop->adopt)
        conn->loop->adopt(conn->loop, &self->uv.handle);
    return status;
}

static int pipe_connect(struct pge_conn *conn, const struct pge_endpoint *to) {
    struct pge_uvconn *self = container_of(conn, struct pge_uvconn, base);
    uv_pipe_connect(&self->req.connect, &self->uv.pipe, to->addr.un.sun_path,
                    pge_uvconn_on_connect);
    return 0;
}

static int pipe_accept(struct pge_listener *listener, struct pge_conn *conn, int fd) {
    (void)listener;
    int status = uv_pipe_open(&container_of(conn, struct pge_uvconn, base)->uv.pipe, fd);
    conn->is_open = status == 0;
    return status;
}

static void pipe_peer(const struct pge_conn *conn, char *out, size_t size) {
    (void)conn;
    snprintf(out, size, "unix:"); /* the dialling side of a unix socket has no name */
}

const struct pge_stream pge_stream_pipe = {
    .name = "pipe",
    .conn_size = sizeof(struct pge_uvconn),
    .init = pipe_init,
    .connect = pipe_connect,
    .accept = pipe_accept,
    .read_start = pge_uvconn_read_start,
    .read_stop = pge_uvconn_read_stop,
    .write = pge_uvconn_write,
    .shutdown = pge_uvconn_shutdown,
    .close = pge_uvconn_close,
    .taken = pge_uvconn_taken,
    .peer = pipe_peer,
};
