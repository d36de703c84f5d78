/*
 * conn.c - what all streams share: output gathered into one write per turn, orderly ends.
 *
 *   out (being appended) --flush--> sending (lent to stream->write) --done--> empty, on_drain
 *   out --give--> given |before, gift|before, gift| --flush, one by one--> sending
 */
#include "net/stream.h"

#include "base/alloc.h"

/* A connection that once queued more keeps no more than this when it is idle. */
enum { KEEP_BYTES = 65536 };

/* A buffer that was given, and what had been appended before it. */
struct given {
    struct pge_list node;
    struct pge_buf before, gift; /* owned */
};

static void free_given(struct given *given) {
    pge_list_remove(&given->node);
    pge_buf_deinit(&given->before);
    pge_buf_deinit(&given->gift);
    pge_free(given);
}

static void drop_queued(struct pge_conn *conn) {
    while (!pge_list_is_empty(&conn->given))
        free_given(container_of(conn->given.next, struct given, node));
    conn->given_bytes = 0;
    pge_buf_clear(&conn->out);
}

/* Who asked to be closed after the write is closed after its failure, too. */
static void tell_failure(struct pge_conn *conn) {
    if (conn->wants_close)
        pge_conn_close(conn);
    else
        conn->events->on_drain(conn, conn->failed);
}

static void on_flush(struct pge_defer *defer) {
    struct pge_conn *conn = container_of(defer, struct pge_conn, flush);
    if (conn->failed) {
        tell_failure(conn);
        return;
    }
    pge_conn_flush(conn);
    if (conn->wants_drain && !conn->is_closing && !conn->failed && pge_conn_queued(conn) == 0) {
        conn->wants_drain = false;
        conn->events->on_drain(conn, 0);
    }
}

struct pge_conn *pge_conn_new(struct pge_loop *loop, const struct pge_stream *stream, int *status) {
    *status = pge_loop_hold(loop);
    if (*status < 0)
        return NULL;
    struct pge_conn *conn = pge_calloc(1, stream->conn_size);
    *status = conn ? 0 : UV_ENOMEM;
    if (!conn)
        goto fail;
    conn->stream = stream;
    conn->loop = loop;
    pge_list_init(&conn->given);
    pge_defer_init(&conn->flush, on_flush);
    pge_list_init(&conn->warm);
    *status = stream->init(conn);
    if (*status < 0)
        goto fail;
    return conn;
fail:
    pge_free(conn);
    pge_loop_release(loop);
    return NULL;
}

struct pge_conn *pge_conn_connect(struct pge_loop *loop, const struct pge_endpoint *to,
                                  const struct pge_conn_events *events, void *owner, int *status) {
    struct pge_conn *conn = pge_conn_new(loop, to->stream, status);
    if (!conn)
        return NULL;
    conn->events = events;
    conn->owner = owner;
    *status = to->stream->connect(conn, to);
    if (*status == 0)
        return conn;
    conn->events = NULL; /* the caller never saw it: its close is silent */
    pge_conn_close(conn);
    return NULL;
}

void pge_conn_opened(struct pge_conn *conn, int status) {
    if (conn->is_closing)
        return;
    conn->is_open = status == 0;
    conn->events->on_open(conn, status);
    if (conn->is_open && !conn->is_closing && (pge_conn_queued(conn) || conn->wants_shutdown))
        pge_conn_dirty(conn);
}

int pge_conn_read_start(struct pge_conn *conn) {
    if (conn->is_reading || conn->is_closing || conn->has_ended)
        return 0;
    int status = conn->stream->read_start(conn);
    conn->is_reading = status == 0;
    return status;
}

void pge_conn_read_stop(struct pge_conn *conn) {
    if (!conn->is_reading)
        return;
    conn->is_reading = false;
    conn->stream->read_stop(conn);
}

void pge_conn_ended(struct pge_conn *conn, int status) {
    pge_conn_read_stop(conn);
    conn->has_ended = true;
    conn->events->on_data(conn, NULL, status);
}

int pge_conn_dirty(struct pge_conn *conn) {
    if (conn->is_closing || conn->failed)
        return UV_EPIPE;
    if (conn->is_sending || !conn->is_open)
        return 0; /* goes out when the write in flight, or the dial, is done */
    return pge_loop_defer(conn->loop, &conn->flush, PGE_FLUSH);
}

int pge_conn_write(struct pge_conn *conn, const void *bytes, size_t n) {
    if (conn->is_closing || conn->failed)
        return UV_EPIPE;
    int status = pge_buf_append(&conn->out, bytes, n);
    return status < 0 ? status : pge_conn_dirty(conn);
}

int pge_conn_give(struct pge_conn *conn, struct pge_buf *bytes) {
    if (conn->is_closing || conn->failed)
        return UV_EPIPE;
    struct given *given = pge_malloc(sizeof *given);
    if (!given)
        return UV_ENOMEM;
    int status = pge_conn_dirty(conn);
    if (status < 0) {
        pge_free(given);
        return status;
    }
    given->before = conn->out;
    given->gift = *bytes;
    pge_buf_init(&conn->out);
    pge_buf_init(bytes);
    pge_list_push(&conn->given, &given->node);
    conn->given_bytes += pge_buf_len(&given->before) + pge_buf_len(&given->gift);
    return 0;
}

/* Nothing is queued any more: carry out what waited for it. */
static void on_empty(struct pge_conn *conn) {
    if (conn->wants_close) {
        pge_conn_close(conn);
    } else if (conn->wants_shutdown) {
        conn->wants_shutdown = false;
        conn->stream->shutdown(conn);
    }
}

static void on_written(struct pge_conn *conn, int status) {
    conn->is_sending = false;
    if (status == 0)
        conn->written += pge_buf_len(&conn->sending);
    pge_buf_clear(&conn->sending);
    pge_buf_trim(&conn->sending, KEEP_BYTES);
    if (conn->is_closing)
        return;
    if (status < 0) {
        conn->failed = status;
        drop_queued(conn);
        tell_failure(conn);
        return;
    }
    pge_conn_flush(conn);
    if (!conn->is_closing && !conn->is_sending && !conn->failed)
        conn->events->on_drain(conn, 0);
}

/* Moves the next buffer that was given, or what stood before it, to sending. */
static void take_given(struct pge_conn *conn) {
    struct given *given = container_of(conn->given.next, struct given, node);
    struct pge_buf idle = conn->sending;
    bool has_before = pge_buf_len(&given->before) > 0;
    struct pge_buf *next = has_before ? &given->before : &given->gift;
    conn->sending = *next;
    conn->given_bytes -= pge_buf_len(next);
    pge_buf_init(next);
    if (conn->out.data)
        pge_buf_deinit(&idle);
    else
        conn->out = idle; /* a warm one to append to; it is empty */
    if (!has_before)
        free_given(given);
}

/* Lends what is in sending to the stream. 1, 0, < 0 as stream->write. */
static int send_it(struct pge_conn *conn) {
    int status = conn->stream->write(conn, pge_buf_head(&conn->sending),
                                     pge_buf_len(&conn->sending), on_written);
    if (status == 0)
        conn->is_sending = true;
    else if (status > 0)
        conn->written += pge_buf_len(&conn->sending);
    return status;
}

static int send_given(struct pge_conn *conn) {
    take_given(conn);
    int status = send_it(conn);
    if (status == 0)
        return 0;
    pge_buf_clear(&conn->sending);
    pge_buf_trim(&conn->sending, KEEP_BYTES);
    return status;
}

/* The same for what was appended. */
static int send_out(struct pge_conn *conn) {
    struct pge_buf idle = conn->sending;
    conn->sending = conn->out;
    conn->out = idle;
    pge_buf_clear(&conn->out);
    int status = send_it(conn);
    if (status == 0)
        return 0;
    idle = conn->out; /* back again: the warm buffer is the one to append to */
    conn->out = conn->sending;
    conn->sending = idle;
    pge_buf_clear(&conn->out);
    pge_buf_trim(&conn->out, KEEP_BYTES);
    return status;
}

void pge_conn_flush(struct pge_conn *conn) {
    if (conn->is_closing || conn->is_sending || !conn->is_open || conn->failed)
        return;
    pge_defer_cancel(&conn->flush);
    int status = 1;
    while (status > 0 && !pge_list_is_empty(&conn->given))
        status = send_given(conn);
    if (status > 0 && pge_buf_len(&conn->out))
        status = send_out(conn);
    if (status > 0) {
        on_empty(conn);
    } else if (status < 0) {
        conn->failed = status;
        drop_queued(conn);
        pge_loop_defer(conn->loop, &conn->flush, PGE_FLUSH); /* the owner may be inside an op */
    }
}

void pge_conn_shutdown(struct pge_conn *conn) {
    if (conn->is_closing)
        return;
    conn->wants_shutdown = true;
    if (pge_conn_queued(conn) == 0 && conn->is_open)
        on_empty(conn);
}

void pge_conn_close_after_write(struct pge_conn *conn) {
    if (conn->is_closing)
        return;
    conn->wants_close = true;
    if (pge_conn_queued(conn) == 0 || !conn->is_open || conn->failed)
        pge_conn_close(conn);
}

void pge_conn_close(struct pge_conn *conn) {
    if (conn->is_closing)
        return;
    pge_conn_read_stop(conn);
    conn->is_closing = true;
    pge_defer_cancel(&conn->flush);
    conn->stream->close(conn);
}

void pge_conn_explain(struct pge_conn *conn, const char *text) {
    char *copy = pge_strndup(text, strlen(text));
    if (!copy)
        return;
    pge_free(conn->why);
    conn->why = copy;
}

void pge_conn_closed(struct pge_conn *conn) {
    struct pge_loop *loop = conn->loop;
    if (conn->is_accepted)
        pge_listener_count(loop, -1);
    if (conn->events)
        conn->events->on_close(conn);
    drop_queued(conn);
    pge_buf_clear(&conn->out);
    pge_buf_clear(&conn->sending);
    pge_conn_cool(conn);
    pge_free(conn->why);
    pge_free(conn);
    pge_loop_release(loop);
}
