/* control.c - frames to and from a worker, on a connection like any other. */
#include <unistd.h>

#include "supervisor/internal.h"

static uint32_t read_u32(const char *p) {
    const unsigned char *b = (const unsigned char *)p;
    return (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

static void write_u32(char *p, uint32_t value) {
    for (int i = 0; i < 4; i++)
        p[i] = (char)(value >> (8 * i) & 0xff);
}

/* Hears the whole frames that have come. 0; UV_EPROTO: that is no worker of ours. */
static int take_frames(struct pge_worker *w) {
    while (w->control && pge_buf_len(&w->in) >= PGE_FRAME_HEAD) {
        const char *head = pge_buf_head(&w->in);
        size_t n = read_u32(head);
        if (n > PGE_MAX_FRAME)
            return UV_EPROTO;
        if (pge_buf_len(&w->in) < PGE_FRAME_HEAD + n)
            return 0;
        pge_worker_hear(w, (enum pge_frame_type)head[4], read_u32(head + 5),
                        (struct pge_span){head + PGE_FRAME_HEAD, n});
        pge_buf_consume(&w->in, PGE_FRAME_HEAD + n);
    }
    pge_buf_trim(&w->in, PGE_READ_SIZE);
    return 0;
}

static void on_open(struct pge_conn *conn, int status) {
    (void)conn; /* it is open from the start */
    (void)status;
}

static void on_data(struct pge_conn *conn, const char *data, ssize_t n) {
    struct pge_worker *w = conn->owner;
    if (n < 0) { /* it ends; one that does not may not stay */
        if (!w->supervisor->is_stopping)
            pge_worker_kill(w, NULL);
        return;
    }
    if (pge_buf_append(&w->in, data, (size_t)n) < 0)
        pge_worker_kill(w, "there is no memory for what it says");
    else if (take_frames(w) < 0)
        pge_worker_kill(w, "it does not keep to the protocol");
}

static void on_drain(struct pge_conn *conn, int status) {
    (void)conn; /* a failed write: its end shows itself to the reader */
    (void)status;
}

static void on_close(struct pge_conn *conn) {
    struct pge_worker *w = conn->owner;
    w->control = NULL;
    pge_buf_deinit(&w->in);
    pge_worker_handle_closed(w);
}

static const struct pge_conn_events events = {on_open, on_data, on_drain, on_close};

int pge_control_open(struct pge_worker *w, int fd) {
    int status;
    struct pge_conn *conn = pge_conn_new(&w->supervisor->loop, &pge_stream_pipe, &status);
    if (!conn)
        goto fail;
    status = conn->stream->accept(NULL, conn, fd); /* an end of a pair: nobody listened for it */
    if (status < 0)
        goto fail;
    conn->events = &events;
    conn->owner = w;
    w->control = conn;
    w->open_handles++;
    return pge_conn_read_start(conn);
fail:
    if (conn)
        pge_conn_close(conn); /* events unset: silent */
    close(fd);
    return status;
}

/* Out of memory: the worker is lost, for it would wait for ever for what it was not told. */
void pge_control_send(struct pge_worker *w, enum pge_frame_type type, uint32_t number,
                      struct pge_span payload) {
    char head[PGE_FRAME_HEAD];
    if (!w->control)
        return;
    write_u32(head, (uint32_t)payload.n);
    head[4] = (char)type;
    write_u32(head + 5, number);
    int status = pge_conn_write(w->control, head, sizeof head);
    if (status == 0 && payload.n)
        status = pge_conn_write(w->control, payload.p, payload.n);
    if (status == UV_ENOMEM)
        pge_worker_kill(w, "there is no memory for what it is told");
}
