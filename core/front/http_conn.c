/*
 * http_conn.c - the life of one connection: one request after the other, output, timers, farewell.
 *
 *   on_data -> run() -> on_request ... pge_http_reply -> reply_done() -> resume -> run() -> ...
 *
 * Whatever may be called from inside the owner's calls only marks and defers: on_request and
 * on_abort are called from the loop, never from inside pge_http_reply. Closing is always
 * asynchronous in net/, so a conn outlives the function that cuts it.
 */
#include "base/alloc.h"
#include "front/http_internal.h"

enum {
    PIECE_BYTES = 256 * 1024,    /* handed to the conn at a time, so that progress can be seen */
    STUFFED_BYTES = 1024 * 1024, /* queued output that stops reading a peer (reliability 2.1) */
    NEXT_BYTES = 16 * 1024,      /* read ahead while a reply is awaited, and one read more */
    FAREWELL_BYTES = 256 * 1024, /* read and dropped after the last reply, ... */
    FAREWELL_MS = 1000,          /* ... for so long, before the close that may reset */
    TRIM_MS = 1000,              /* of idleness, then the buffers go */
};

static void run(struct pge_http_conn *c);

static size_t queued(const struct pge_http_conn *c) {
    return pge_conn_queued(c->conn) + pge_buf_len(&c->late);
}

static bool is_stuffed(const struct pge_http_conn *c) {
    return queued(c) > STUFFED_BYTES;
}

static void wait_for(struct pge_http_conn *c, enum pge_http_wait wait, uint64_t ms) {
    c->wait = wait;
    if (wait == PGE_HTTP_WAIT_NOTHING)
        pge_loop_timer_stop(c->server->loop, &c->timer);
    else
        pge_loop_timer(c->server->loop, &c->timer, ms); /* cannot fail: we hold the loop */
}

/* ---- ends ---- */

void pge_http_conn_cut(struct pge_http_conn *c, bool is_told) {
    struct pge_http_server *server = c->server;
    struct pge_http_request *req = &c->req;
    if (c->is_closing)
        return;
    c->is_closing = true;
    pge_loop_timer_stop(server->loop, &c->timer);
    pge_loop_timer_stop(server->loop, &c->write_timer);
    pge_defer_cancel(&c->resume);
    pge_defer_cancel(&c->pump);
    if (req->state == PGE_HTTP_REPLY_AWAITED || req->state == PGE_HTTP_REPLY_BEGUN) {
        req->state = PGE_HTTP_REPLY_DONE;
        server->stats.active--;
        if (is_told)
            server->events->on_abort(server, req);
    }
    pge_conn_close(c->conn);
}

/* For the owner's calls: the request is over now, the rest happens at the end of the turn. */
static void break_off(struct pge_http_conn *c) {
    if (c->is_broken || c->is_closing)
        return;
    c->is_broken = true;
    if (c->req.state == PGE_HTTP_REPLY_AWAITED || c->req.state == PGE_HTTP_REPLY_BEGUN)
        c->server->stats.active--;
    c->req.state = PGE_HTTP_REPLY_DONE;
    pge_loop_defer(c->server->loop, &c->resume, PGE_SOON);
}

/*
 * The last output is queued. The peer must see it and then the end: closing with unread bytes would
 * reset the connection and destroy what is under way, so we send FIN and read on for a while.
 */
static void say_farewell(struct pge_http_conn *c) {
    if (pge_buf_len(&c->late))
        return; /* pump comes back here */
    if (c->is_eof) {
        pge_conn_close_after_write(c->conn);
        return;
    }
    if (c->is_shut)
        return;
    c->is_shut = true;
    pge_conn_shutdown(c->conn);
    if (pge_conn_read_start(c->conn) < 0)
        pge_conn_close_after_write(c->conn);
}

static void end(struct pge_http_conn *c) {
    if (c->is_ending || c->is_closing)
        return;
    c->is_ending = true;
    c->conn->sink.len = 0;
    pge_buf_deinit(&c->next);
    wait_for(c, PGE_HTTP_WAIT_FAREWELL, FAREWELL_MS);
    say_farewell(c);
}

static void refuse(struct pge_http_conn *c, int status, const char *why) {
    c->server->stats.refused++;
    c->is_last = true;
    if (pge_http_reply_refusal(c, status, why) == 0)
        end(c);
    else
        pge_http_conn_cut(c, false);
}

static bool is_idle(const struct pge_http_conn *c) {
    return c->req.state == PGE_HTTP_REPLY_NONE && c->req.parse.phase == PGE_HTTP_START &&
           pge_buf_len(&c->req.parse.in) == 0 && pge_buf_len(&c->next) == 0;
}

void pge_http_conn_drain(struct pge_http_conn *c) {
    if (is_idle(c))
        end(c);
}

/* ---- output ---- */

static void note_progress(struct pge_http_conn *c) {
    c->progress_ms = pge_loop_now(c->server->loop);
    c->taken = pge_conn_taken(c->conn);
}

struct pge_buf *pge_http_conn_room(struct pge_http_conn *c, size_t n) {
    struct pge_conn *conn = c->conn;
    size_t waiting = queued(c);
    if (c->is_broken || c->is_closing)
        return NULL;
    if (waiting > c->server->limits.max_queued_bytes && conn->is_sending) {
        c->server->stats.refused++; /* the kernel has taken none of it: the peer does not read */
        break_off(c);
        return NULL;
    }
    bool is_late = pge_buf_len(&c->late) || waiting + n > PIECE_BYTES;
    struct pge_buf *out = is_late ? &c->late : &conn->out;
    if (pge_buf_reserve(out, n) < 0) {
        break_off(c);
        return NULL;
    }
    if (waiting == 0) {
        c->is_giving = false;
        note_progress(c);
    }
    return out;
}

bool pge_http_conn_give(struct pge_http_conn *c, struct pge_buf *from, struct pge_span bytes) {
    struct pge_conn *conn = c->conn;
    if (bytes.n < PGE_GIVE_BYTES || !pge_buf_is_mostly(from, bytes) || pge_buf_len(&c->late) ||
        c->is_broken || queued(c) > PIECE_BYTES)
        return false;
    struct pge_buf given = *from;
    pge_buf_cut(&given, bytes);
    if (pge_conn_give(conn, &given) < 0)
        return false;
    pge_buf_init(from);
    c->is_giving = true;
    pge_http_conn_sent(c);
    pge_loop_defer(c->server->loop, &c->pump, PGE_FLUSH);
    return true;
}

/* What was given is one write however slowly it is read: so it is looked at now and then. */
static uint64_t look_ms(const struct pge_http_conn *c) {
    uint64_t limit = c->server->limits.write_timeout_ms;
    return c->is_giving ? limit / 4 + 1 : limit;
}

void pge_http_conn_sent(struct pge_http_conn *c) {
    struct pge_loop *loop = c->server->loop;
    pge_conn_dirty(c->conn); /* cannot fail, as in wait_for */
    if (pge_buf_len(&c->late))
        pge_loop_defer(loop, &c->pump, PGE_FLUSH);
    if (!pge_timer_is_armed(&c->write_timer))
        pge_loop_timer(loop, &c->write_timer, look_ms(c));
}

/* Hands on what is late, as fast as the kernel takes it. */
static void pump(struct pge_http_conn *c) {
    pge_conn_flush(c->conn);
    if (c->is_giving)
        note_progress(c); /* from here on it depends on the peer */
    while (!c->is_closing && !c->conn->is_sending && pge_buf_len(&c->late)) {
        size_t n = pge_buf_len(&c->late);
        n = n < PIECE_BYTES ? n : PIECE_BYTES;
        if (pge_conn_write(c->conn, pge_buf_head(&c->late), n) < 0) {
            pge_http_conn_cut(c, true);
            return;
        }
        pge_buf_consume(&c->late, n);
        note_progress(c);
        pge_conn_flush(c->conn);
    }
    if (c->is_closing || pge_buf_len(&c->late))
        return;
    pge_buf_trim(&c->late, 0);
    if (c->is_ending)
        say_farewell(c);
}

static void on_pump(struct pge_defer *defer) {
    pump(container_of(defer, struct pge_http_conn, pump));
}

static void on_drain(struct pge_conn *conn, int status) {
    struct pge_http_conn *c = conn->owner;
    if (status < 0) {
        pge_http_conn_cut(c, true);
        return;
    }
    c->is_giving = false;
    note_progress(c);
    pump(c);
    if (!c->is_closing)
        run(c);
}

static void on_write_timer(struct pge_timer *timer) {
    struct pge_http_conn *c = container_of(timer, struct pge_http_conn, write_timer);
    struct pge_loop *loop = c->server->loop;
    uint64_t limit = c->server->limits.write_timeout_ms, look = look_ms(c);
    if (queued(c) == 0)
        return;
    if (c->is_giving && pge_conn_taken(c->conn) != c->taken)
        note_progress(c);
    uint64_t still = pge_loop_now(loop) - c->progress_ms;
    if (still < limit) {
        pge_loop_timer(loop, timer, limit - still < look ? limit - still : look);
        return;
    }
    c->server->stats.refused++;
    pge_http_conn_cut(c, true);
}

/* ---- requests ---- */

bool pge_http_conn_keeps(const struct pge_http_conn *c) {
    const struct pge_http_parse *p = &c->req.parse;
    bool has_more = pge_buf_len(&p->in) > p->pos || pge_buf_len(&c->next);
    return p->keep_alive && !c->server->is_draining && (!c->is_eof || has_more);
}

void pge_http_conn_reply_done(struct pge_http_conn *c) {
    c->req.state = PGE_HTTP_REPLY_DONE;
    c->server->stats.active--;
    if (!c->is_running)
        pge_loop_defer(c->server->loop, &c->resume, PGE_SOON);
}

static void drop_request(struct pge_http_conn *c) {
    c->req.state = PGE_HTTP_REPLY_NONE;
    c->req.user = NULL;
    c->said_continue = false;
    pge_http_parse_next(&c->req.parse);
    if (c->is_last || c->server->is_draining)
        end(c);
}

static void say_continue(struct pge_http_conn *c) {
    static const char text[] = "HTTP/1.1 100 Continue\r\n\r\n";
    const struct pge_http_parse *p = &c->req.parse;
    if (!p->expects_continue || c->said_continue || p->pos > p->head_size)
        return;
    c->said_continue = true;
    struct pge_buf *out = pge_http_conn_room(c, sizeof text - 1);
    if (!out)
        return;
    pge_buf_append(out, text, sizeof text - 1);
    pge_http_conn_sent(c);
}

/* True: a request came and is answered, there may be another. */
static bool take_request(struct pge_http_conn *c) {
    struct pge_http_server *server = c->server;
    struct pge_http_request *req = &c->req;
    enum pge_http_phase phase = pge_http_parse_run(&req->parse);
    if (phase == PGE_HTTP_REFUSED)
        refuse(c, req->parse.status, req->parse.why);
    if (phase == PGE_HTTP_SIZED || phase == PGE_HTTP_CHUNKED)
        say_continue(c);
    if (phase != PGE_HTTP_READY)
        return false;
    wait_for(c, PGE_HTTP_WAIT_NOTHING, 0);
    req->state = PGE_HTTP_REPLY_AWAITED;
    server->stats.requests++;
    server->stats.active++;
    server->events->on_request(server, req);
    return req->state == PGE_HTTP_REPLY_DONE;
}

static bool take_next(struct pge_http_conn *c) {
    if (c->is_closing || c->is_broken)
        return false;
    if (c->req.state == PGE_HTTP_REPLY_DONE)
        drop_request(c);
    if (c->is_ending || c->req.state != PGE_HTTP_REPLY_NONE || is_stuffed(c))
        return false;
    size_t n = pge_buf_len(&c->next);
    if (n) {
        if (pge_http_parse_append(&c->req.parse, pge_buf_head(&c->next), n) < 0) {
            pge_http_conn_cut(c, true);
            return false;
        }
        pge_buf_deinit(&c->next);
    }
    return take_request(c);
}

/* After all that could be done was done: what do we wait for, and do we read? */
static void settle(struct pge_http_conn *c) {
    const struct pge_http_limits *limits = &c->server->limits;
    const struct pge_http_parse *p = &c->req.parse;
    bool is_free = c->req.state == PGE_HTTP_REPLY_NONE && !is_stuffed(c);
    if (is_free && c->is_eof) {
        end(c); /* what is left of a request will never be whole */
        return;
    }
    if (!is_free)
        wait_for(c, PGE_HTTP_WAIT_NOTHING, 0);
    else if (p->phase == PGE_HTTP_SIZED || p->phase == PGE_HTTP_CHUNKED)
        wait_for(c, PGE_HTTP_WAIT_BODY, limits->body_timeout_ms);
    else if (!is_idle(c) && c->wait != PGE_HTTP_WAIT_HEAD)
        wait_for(c, PGE_HTTP_WAIT_HEAD, limits->header_timeout_ms);
    else if (is_idle(c) && c->wait != PGE_HTTP_WAIT_REQUEST) {
        uint64_t idle = limits->idle_timeout_ms;
        c->idle_since_ms = pge_loop_now(c->server->loop);
        wait_for(c, PGE_HTTP_WAIT_REQUEST, idle < TRIM_MS ? idle : TRIM_MS);
    }
    if (is_free)
        c->conn->sink = pge_http_parse_room(&c->req.parse);
    if (is_stuffed(c) || pge_buf_len(&c->next) > NEXT_BYTES)
        pge_conn_read_stop(c->conn);
    else if (!c->is_eof && pge_conn_read_start(c->conn) < 0)
        pge_http_conn_cut(c, true);
}

static void run(struct pge_http_conn *c) {
    if (c->is_running)
        return;
    c->is_running = true;
    while (take_next(c)) {
    }
    c->is_running = false;
    if (!c->is_closing && !c->is_ending && !c->is_broken)
        settle(c);
}

static void on_resume(struct pge_defer *defer) {
    struct pge_http_conn *c = container_of(defer, struct pge_http_conn, resume);
    if (c->is_broken)
        pge_http_conn_cut(c, false);
    else
        run(c);
}

/* ---- input ---- */

/* A connection idle for a moment gives its buffers back, and later its place. */
static void on_idle(struct pge_http_conn *c) {
    uint64_t limit = c->server->limits.idle_timeout_ms;
    uint64_t idle = pge_loop_now(c->server->loop) - c->idle_since_ms;
    if (idle >= limit) {
        end(c);
        return;
    }
    pge_http_parse_trim(&c->req.parse);
    pge_conn_cool(c->conn);
    wait_for(c, PGE_HTTP_WAIT_REQUEST, limit - idle);
}

static void on_timer(struct pge_timer *timer) {
    struct pge_http_conn *c = container_of(timer, struct pge_http_conn, timer);
    switch (c->wait) {
    case PGE_HTTP_WAIT_REQUEST:
        on_idle(c);
        break;
    case PGE_HTTP_WAIT_HEAD:
        refuse(c, 408, "the headers took too long");
        break;
    case PGE_HTTP_WAIT_BODY:
        refuse(c, 408, "the body took too long");
        break;
    case PGE_HTTP_WAIT_FAREWELL:
        if (queued(c))
            wait_for(c, PGE_HTTP_WAIT_FAREWELL, FAREWELL_MS); /* write_timer bounds this */
        else
            pge_http_conn_cut(c, false);
        break;
    default:
        break;
    }
}

static void on_eof(struct pge_http_conn *c) {
    c->is_eof = true;
    if (c->is_ending)
        say_farewell(c);
    else
        run(c);
}

static void on_data(struct pge_conn *conn, const char *data, ssize_t n) {
    struct pge_http_conn *c = conn->owner;
    if (n == UV_EOF) {
        on_eof(c);
        return;
    }
    if (n < 0) {
        pge_http_conn_cut(c, true);
        return;
    }
    if (c->is_ending) {
        c->discarded += (size_t)n;
        if (c->discarded > FAREWELL_BYTES)
            pge_http_conn_cut(c, false);
        return;
    }
    bool is_busy = c->req.state != PGE_HTTP_REPLY_NONE || is_stuffed(c);
    int status = is_busy ? pge_buf_append(&c->next, data, (size_t)n)
                         : pge_http_parse_append(&c->req.parse, data, (size_t)n);
    if (status < 0)
        pge_http_conn_cut(c, true);
    else
        run(c);
}

/* ---- birth and death ---- */

static void on_open(struct pge_conn *conn, int status) {
    (void)conn; /* accepted conns are open */
    (void)status;
}

static void on_close(struct pge_conn *conn) {
    struct pge_http_conn *c = conn->owner;
    struct pge_http_server *server = c->server;
    pge_http_conn_cut(c, false); /* closed by the conn itself, after its last write */
    pge_list_remove(&c->node);
    pge_http_parse_deinit(&c->req.parse);
    pge_buf_deinit(&c->next);
    pge_buf_deinit(&c->late);
    pge_free(c);
    pge_http_server_conn_gone(server);
}

static const struct pge_conn_events events = {on_open, on_data, on_drain, on_close};

void pge_http_conn_open(struct pge_http_server *server, struct pge_conn *conn) {
    struct pge_http_conn *c = pge_calloc(1, sizeof *c);
    if (!c) {
        pge_conn_close(conn);
        return;
    }
    c->server = server;
    c->conn = conn;
    conn->events = &events;
    conn->owner = c;
    pge_http_parse_init(&c->req.parse, &server->limits);
    pge_defer_init(&c->resume, on_resume);
    pge_defer_init(&c->pump, on_pump);
    pge_timer_init(&c->timer, on_timer);
    pge_timer_init(&c->write_timer, on_write_timer);
    pge_list_push(&server->conns, &c->node);
    server->stats.connections++;
    server->stats.open++;
    settle(c);
}
