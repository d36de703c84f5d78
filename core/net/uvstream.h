/* uvstream.h - what tcp.c and pipe.c share: a conn over a uv_stream_t. */
#ifndef PGE_NET_UVSTREAM_H
#define PGE_NET_UVSTREAM_H

#include "net/stream.h"

struct pge_uvconn {
    struct pge_conn base; /* first */
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_tcp_t tcp;
        uv_pipe_t pipe;
    } uv;
    union {
        uv_connect_t connect;
        uv_shutdown_t shutdown;
    } req; /* never both: shutdown comes after open */
    uv_write_t write_req;
    pge_write_cb write_done;
};

/* Slots of struct pge_stream. */
int pge_uvconn_read_start(struct pge_conn *conn);
void pge_uvconn_read_stop(struct pge_conn *conn);
int pge_uvconn_write(struct pge_conn *conn, const char *data, size_t n, pge_write_cb done);
int pge_uvconn_shutdown(struct pge_conn *conn);
void pge_uvconn_close(struct pge_conn *conn);
uint64_t pge_uvconn_taken(const struct pge_conn *conn);

/* For uv_*_connect. */
void pge_uvconn_on_connect(uv_connect_t *req, int status);

/* "1.2.3.4:5", "[::1]:5". */
void pge_sockaddr_text(const struct sockaddr *sa, char *out, size_t size);

#endif
