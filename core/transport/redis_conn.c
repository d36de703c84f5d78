/* redis_conn.c - from a dial to a connection that is logged in, and what is read from it. */
#include "transport/redis_conn.h"

#include <stdio.h>
#include <uv.h>

/* A connection that is closed still writes what it has, for so long; a hushed one is not read. */
enum { LINGER_MS = 2000, HUSH_MS = 10 };

/* What our own commands' replies are for. */
enum { TAG_NONE, TAG_PING, TAG_AUTH, TAG_SELECT, TAG_NAME, TAG_READY };

static const struct pge_span ping = {"PING", 4};

static struct pge_loop *loop_of(const struct pge_redis_conn *self) {
    return self->engine->loop;
}

static bool is_alive(const struct pge_redis_conn *self) {
    return self->state == PGE_REDIS_LOGIN || self->state == PGE_REDIS_READY;
}

struct loss {
    struct pge_redis_conn *conn;
    enum pge_fault fault;
    const char *message;
};

static void tell_lost(void *arg) {
    struct loss *loss = arg;
    loss->conn->events->on_lost(loss->conn, loss->fault, loss->message);
}

static void lose(struct pge_redis_conn *self, enum pge_fault fault, const char *message) {
    if (self->state == PGE_REDIS_LOST || self->state == PGE_REDIS_CLOSING)
        return;
    struct loss loss = {self, fault, message};
    self->state = PGE_REDIS_LOST;
    if (self->conn)
        pge_conn_read_stop(self->conn);
    pge_loop_timer_stop(loop_of(self), &self->timer);
    pge_loop_timer_stop(loop_of(self), &self->look);
    self->engine->enter(self->engine, tell_lost, &loss);
}

/* ---- commands ---- */

static void listen_again(struct pge_redis_conn *self) {
    if (!self->is_hushed)
        return;
    self->is_hushed = self->has_looked = false;
    pge_loop_timer_stop(loop_of(self), &self->look);
    if (!self->is_paused)
        pge_conn_read_start(self->conn);
}

/* After a quiet command. What was awaited when it last listened must have had its turn. */
static void hush(struct pge_redis_conn *self) {
    bool is_first = pge_buf_len(&self->tags) == sizeof(uint64_t);
    if (self->is_hushed || self->loud || self->is_paused || !(self->has_looked || is_first))
        return;
    self->is_hushed = true;
    pge_conn_read_stop(self->conn);
    pge_loop_timer(loop_of(self), &self->look, HUSH_MS);
}

static void on_look(struct pge_timer *timer) {
    listen_again(container_of(timer, struct pge_redis_conn, look));
}

static int push_tag(struct pge_redis_conn *self, uint64_t tag) {
    int status = pge_buf_append(&self->tags, &tag, sizeof tag);
    if (status == 0 && !(tag & PGE_REDIS_QUIET)) {
        self->loud++;
        listen_again(self);
    }
    return status;
}

static uint64_t shift_tag(struct pge_redis_conn *self) {
    uint64_t tag;
    memcpy(&tag, pge_buf_head(&self->tags), sizeof tag);
    pge_buf_consume(&self->tags, sizeof tag);
    self->loud -= !(tag & PGE_REDIS_QUIET);
    return tag & ~PGE_REDIS_QUIET;
}

int pge_redis_conn_wrote(struct pge_redis_conn *self, uint64_t tag) {
    int status = pge_conn_dirty(self->conn);
    if (status == 0)
        status = push_tag(self, tag);
    if (status == 0 && tag & PGE_REDIS_QUIET)
        hush(self);
    return status;
}

int pge_redis_conn_command(struct pge_redis_conn *self, uint64_t tag, unsigned replies,
                           const struct pge_span *args, unsigned count) {
    if (!is_alive(self))
        return UV_EPIPE;
    struct pge_buf *out = &self->conn->out;
    size_t len = pge_buf_len(out), tags = pge_buf_len(&self->tags);
    unsigned loud = self->loud;
    int status = pge_resp_command(out, args, count);
    for (unsigned i = 0; status == 0 && i < replies; i++)
        status = push_tag(self, tag);
    if (status == 0)
        status = pge_conn_dirty(self->conn);
    if (status < 0) {
        out->end = out->start + len;
        self->tags.end = self->tags.start + tags;
        self->loud = loud;
    }
    return status;
}

/* ---- login ---- */

/* All at once: the replies tell how far it got. PING comes last because it, unlike the others, is
 * refused while the server loads or asks for a password. */
static int log_in(struct pge_redis_conn *self) {
    const struct pge_redis_login *login = self->login;
    char db[16];
    int status = 0;
    if (login->password && login->username) {
        struct pge_span args[] = {pge_resp_arg("AUTH"), pge_resp_arg(login->username),
                                  pge_resp_arg(login->password)};
        status = pge_redis_conn_command(self, TAG_AUTH, 1, args, 3);
    } else if (login->password) {
        struct pge_span args[] = {pge_resp_arg("AUTH"), pge_resp_arg(login->password)};
        status = pge_redis_conn_command(self, TAG_AUTH, 1, args, 2);
    }
    if (status == 0 && login->db) {
        snprintf(db, sizeof db, "%u", login->db);
        struct pge_span args[] = {pge_resp_arg("SELECT"), pge_resp_arg(db)};
        status = pge_redis_conn_command(self, TAG_SELECT, 1, args, 2);
    }
    if (status == 0 && login->connection_name) {
        struct pge_span args[] = {pge_resp_arg("CLIENT"), pge_resp_arg("SETNAME"),
                                  pge_resp_arg(login->connection_name)};
        status = pge_redis_conn_command(self, TAG_NAME, 1, args, 3);
    }
    if (status == 0)
        status = pge_redis_conn_command(self, TAG_READY, 1, &ping, 1);
    return status;
}

static bool begins(struct pge_span text, const char *start) {
    size_t n = strlen(start);
    return text.n >= n && memcmp(text.p, start, n) == 0;
}

/* A password for a server that wants none is taken, as ioredis does. */
static bool wants_no_password(struct pge_span text) {
    return memmem(text.p, text.n, "without any password", 20) ||
           memmem(text.p, text.n, "no password is set", 18);
}

static void refuse_login(struct pge_redis_conn *self, const char *command, struct pge_span text) {
    char message[256];
    snprintf(message, sizeof message, "%s: %.*s", command, (int)(text.n < 200 ? text.n : 200),
             text.p);
    lose(self, PGE_CONNECT_FAILED, message);
}

static void be_ready(struct pge_redis_conn *self) {
    self->state = PGE_REDIS_READY;
    pge_loop_timer(loop_of(self), &self->timer, self->login->ping_ms);
    self->events->on_ready(self);
}

static void login_reply(struct pge_redis_conn *self, uint64_t tag,
                        const struct pge_resp_item *item) {
    bool refused = item->kind == PGE_RESP_ERROR;
    if (tag == TAG_AUTH && refused && !wants_no_password(item->text))
        refuse_login(self, "AUTH", item->text);
    else if (tag == TAG_SELECT && refused)
        refuse_login(self, "SELECT", item->text);
    else if (tag == TAG_READY && refused)
        refuse_login(self, "PING", item->text);
    else if (tag == TAG_READY)
        be_ready(self);
}

/* ---- input ---- */

static bool is_push(const struct pge_resp_reply *reply) {
    return reply->is_array && ((reply->count == 3 && pge_resp_is(&reply->items[0], "message")) ||
                               (reply->count == 4 && pge_resp_is(&reply->items[0], "pmessage")));
}

/* The server still speaks, but will do nothing for this connection: it is as good as lost. */
static bool is_disowning(const struct pge_resp_item *item) {
    return item->kind == PGE_RESP_ERROR &&
           (begins(item->text, "NOAUTH") || begins(item->text, "LOADING") ||
            begins(item->text, "READONLY") || begins(item->text, "MASTERDOWN"));
}

static void lose_for(struct pge_redis_conn *self, struct pge_span text) {
    char message[256];
    snprintf(message, sizeof message, "%.*s", (int)(text.n < 200 ? text.n : 200), text.p);
    lose(self, self->state == PGE_REDIS_READY ? PGE_CONNECTION_CLOSED : PGE_CONNECT_FAILED,
         message);
}

static void dispatch(struct pge_redis_conn *self, const struct pge_resp_reply *reply) {
    if (is_push(reply)) {
        self->events->on_push(self, reply);
        return;
    }
    bool is_error = reply->count == 1 && reply->items[0].kind == PGE_RESP_ERROR;
    if (pge_buf_len(&self->tags) == 0) { /* "-ERR max number of clients reached" */
        if (is_error)
            lose_for(self, reply->items[0].text);
        else
            lose(self, PGE_BAD_FRAME, "Protocol error, a reply that nobody asked for");
        return;
    }
    uint64_t tag = shift_tag(self);
    if (self->state == PGE_REDIS_LOGIN)
        login_reply(self, tag, &reply->items[0]);
    else if (is_error && is_disowning(&reply->items[0]))
        lose_for(self, reply->items[0].text);
    else if (tag >= PGE_REDIS_TAG_FIRST)
        self->events->on_reply(self, tag, reply);
}

static void parse(struct pge_redis_conn *self) {
    const struct pge_resp_reply *reply;
    int status = 0;
    while (is_alive(self) && !self->is_paused && (status = pge_resp_next(&self->resp, &reply)) > 0)
        dispatch(self, reply);
    if (!is_alive(self))
        return;
    if (status < 0)
        lose(self, status == UV_EMSGSIZE ? PGE_FRAME_TOO_LARGE : PGE_BAD_FRAME, self->resp.error);
    else if (self->is_paused && pge_resp_park(&self->resp) < 0)
        lose(self, PGE_OVERLOADED, "out of memory");
}

struct input {
    struct pge_redis_conn *conn;
    const char *data;
    size_t n;
};

static void take_input(void *arg) {
    struct input *in = arg;
    in->conn->has_heard = in->conn->has_looked = true;
    pge_resp_feed(&in->conn->resp, in->data, in->n);
    parse(in->conn);
}

static void on_data(struct pge_conn *conn, const char *data, ssize_t n) {
    struct pge_redis_conn *self = conn->owner;
    if (n < 0) {
        lose(self, self->state == PGE_REDIS_LOGIN ? PGE_CONNECT_FAILED : PGE_CONNECTION_CLOSED,
             "Connection closed");
        return;
    }
    struct input in = {self, data, (size_t)n};
    self->engine->enter(self->engine, take_input, &in);
}

static void on_open(struct pge_conn *conn, int status) {
    (void)conn; /* dial.c hands over open connections */
    (void)status;
}

static void tell_drained(void *arg) {
    struct pge_redis_conn *self = arg;
    self->events->on_drain(self);
}

static void on_drain(struct pge_conn *conn, int status) {
    struct pge_redis_conn *self = conn->owner;
    if (status == 0 && is_alive(self))
        self->engine->enter(self->engine, tell_drained, self);
    else if (status < 0 && self->state == PGE_REDIS_CLOSING)
        pge_conn_close(conn);
    else if (status < 0)
        lose(self, PGE_CONNECTION_CLOSED, "Connection closed");
}

static void be_gone(struct pge_redis_conn *self) {
    pge_loop_timer_stop(loop_of(self), &self->timer);
    pge_resp_deinit(&self->resp);
    pge_buf_deinit(&self->tags);
    self->conn = NULL;
    self->state = PGE_REDIS_IDLE;
    self->events->on_closed(self);
}

static void on_close(struct pge_conn *conn) {
    be_gone(conn->owner);
}

static void on_gone(struct pge_defer *defer) {
    be_gone(container_of(defer, struct pge_redis_conn, gone));
}

static const struct pge_conn_events conn_events = {
    .on_open = on_open,
    .on_data = on_data,
    .on_drain = on_drain,
    .on_close = on_close,
};

/* ---- time ---- */

static void on_timer(struct pge_timer *timer) {
    struct pge_redis_conn *self = container_of(timer, struct pge_redis_conn, timer);
    char text[96];
    if (self->state == PGE_REDIS_CLOSING) {
        pge_conn_close(self->conn);
        return;
    }
    unsigned long long ping_ms = self->login->ping_ms;
    if (self->state == PGE_REDIS_LOGIN) {
        lose(self, PGE_CONNECT_FAILED, "Redis did not answer the login in time");
    } else if (self->is_asked && !self->has_heard && !self->is_paused) {
        snprintf(text, sizeof text, "Redis did not answer a PING within %llu ms", ping_ms);
        lose(self, PGE_CONNECTION_CLOSED, text);
    } else {
        self->is_asked = !self->has_heard && !self->is_paused;
        self->has_heard = false;
        if (self->is_asked)
            pge_redis_conn_command(self, TAG_PING, 1, &ping, 1);
        pge_loop_timer(loop_of(self), timer, ping_ms);
    }
}

static void on_dialled(void *arg, struct pge_conn *conn, int status, const char *why) {
    struct pge_redis_conn *self = arg;
    (void)status;
    self->dial = NULL;
    if (!conn) {
        lose(self, PGE_CONNECT_FAILED, why);
        return;
    }
    self->conn = conn;
    self->state = PGE_REDIS_LOGIN;
    conn->events = &conn_events;
    conn->owner = self;
    pge_loop_timer(loop_of(self), &self->timer, self->login->connect_timeout_ms);
    if (pge_conn_read_start(conn) < 0 || log_in(self) < 0)
        lose(self, PGE_CONNECT_FAILED, "out of memory");
}

int pge_redis_conn_start(struct pge_redis_conn *self, struct pge_engine *engine,
                         const struct pge_target *target, const struct pge_redis_login *login,
                         const struct pge_redis_conn_events *events) {
    int status;
    *self = (struct pge_redis_conn){.engine = engine, .events = events, .login = login};
    status = pge_resp_init(&self->resp, login->max_bytes);
    if (status < 0)
        return status;
    pge_timer_init(&self->timer, on_timer);
    pge_timer_init(&self->look, on_look);
    pge_defer_init(&self->gone, on_gone);
    self->dial =
        pge_dial_start(engine->loop, target, login->connect_timeout_ms, on_dialled, self, &status);
    if (!self->dial) {
        pge_resp_deinit(&self->resp);
        return status;
    }
    self->state = PGE_REDIS_DIALLING;
    return 0;
}

/* ---- the rest ---- */

size_t pge_redis_conn_queued(const struct pge_redis_conn *self) {
    return self->conn ? pge_conn_queued(self->conn) : 0;
}

uint64_t pge_redis_conn_taken(const struct pge_redis_conn *self) {
    return self->conn ? pge_conn_taken(self->conn) : 0;
}

static void resume(void *arg) {
    parse(arg);
}

void pge_redis_conn_read(struct pge_redis_conn *self, bool wanted) {
    if (!is_alive(self))
        return;
    self->is_paused = !wanted;
    if (!wanted) {
        pge_conn_read_stop(self->conn);
        return;
    }
    self->engine->enter(self->engine, resume, self);
    if (is_alive(self) && !self->is_paused)
        pge_conn_read_start(self->conn);
}

void pge_redis_conn_name(const struct pge_redis_conn *self, char *out, size_t size) {
    if (self->conn)
        pge_conn_peer(self->conn, out, size);
    else
        snprintf(out, size, "%s", "");
}

void pge_redis_conn_close(struct pge_redis_conn *self, bool flush) {
    if (self->state == PGE_REDIS_CLOSING && !flush && self->conn)
        pge_conn_close(self->conn);
    if (self->state == PGE_REDIS_CLOSING || self->state == PGE_REDIS_IDLE)
        return;
    bool was_ready = self->state == PGE_REDIS_READY;
    self->state = PGE_REDIS_CLOSING;
    pge_loop_timer_stop(loop_of(self), &self->timer);
    pge_loop_timer_stop(loop_of(self), &self->look);
    if (self->dial)
        pge_dial_cancel(self->dial);
    self->dial = NULL;
    if (!self->conn) {
        pge_loop_defer(loop_of(self), &self->gone, PGE_SOON);
        return;
    }
    pge_conn_read_stop(self->conn);
    if (!flush || !was_ready) {
        pge_conn_close(self->conn);
        return;
    }
    pge_conn_flush(self->conn);
    pge_loop_timer(loop_of(self), &self->timer, LINGER_MS);
    pge_conn_close_after_write(self->conn);
}
