/* nats_conn.c - one connection to a NATS server: its beginning, its pings, its end. */
#include <stdio.h>
#include <uv.h>

#include "base/alloc.h"
#include "net/tls.h"
#include "transport/nats.h"

/* A connection that is closed still writes what it has, for so long. */
enum { LINGER_MS = 2000, PING_MS = 30000, MAX_PING_OUT = 2 };

static struct pge_loop *loop_of(const struct pge_nats_conn *self) {
    return self->engine->loop;
}

static void lose(struct pge_nats_conn *self, enum pge_fault fault, const char *text) {
    if (self->state == PGE_NATS_CLOSED)
        return;
    if (self->state != PGE_NATS_READY)
        fault = PGE_CONNECT_FAILED;
    self->role->on_lost(self->owner, fault, text);
}

/* ---- the end ---- */

static void gone(struct pge_nats_conn *self) {
    const struct pge_nats_role *role = self->role;
    void *owner = self->owner;
    pge_loop_timer_stop(loop_of(self), &self->timer);
    pge_defer_cancel(&self->gone);
    pge_nats_deinit(&self->parser);
    pge_loop_release(loop_of(self));
    pge_free(self);
    role->on_gone(owner);
}

static void on_gone(struct pge_defer *defer) {
    gone(container_of(defer, struct pge_nats_conn, gone));
}

void pge_nats_conn_close(struct pge_nats_conn *self, bool flush) {
    if (self->state == PGE_NATS_CLOSED) {
        if (self->conn && !flush)
            pge_conn_close(self->conn);
        return;
    }
    self->state = PGE_NATS_CLOSED;
    pge_loop_timer_stop(loop_of(self), &self->timer);
    if (self->dial)
        pge_dial_cancel(self->dial);
    self->dial = NULL;
    if (!self->conn) {
        pge_loop_defer(loop_of(self), &self->gone, PGE_SOON);
        return;
    }
    pge_conn_read_stop(self->conn);
    if (!flush) {
        pge_conn_close(self->conn);
        return;
    }
    pge_conn_flush(self->conn);
    pge_loop_timer(loop_of(self), &self->timer, LINGER_MS);
    pge_conn_close_after_write(self->conn);
}

/* ---- pings ---- */

static void write_ping(struct pge_nats_conn *self) {
    self->pings_out++;
    if (pge_nats_ping(&self->conn->out) == 0)
        pge_conn_dirty(self->conn);
}

static void watch(struct pge_nats_conn *self) {
    double ms = pge_settings_number(self->options.settings, "ping_interval", PING_MS);
    pge_loop_timer(loop_of(self), &self->timer, (uint64_t)ms);
}

static void on_timer(struct pge_timer *timer) {
    struct pge_nats_conn *self = container_of(timer, struct pge_nats_conn, timer);
    const struct pge_settings *s = self->options.settings;
    if (self->state == PGE_NATS_CLOSED) {
        pge_conn_close(self->conn);
    } else if (self->state != PGE_NATS_READY) {
        lose(self, PGE_CONNECT_FAILED, "the NATS server does not answer");
    } else if (self->pings_out >= (unsigned)pge_settings_number(s, "max_ping_out", MAX_PING_OUT)) {
        lose(self, PGE_CONNECTION_CLOSED, "the NATS server does not answer pings");
    } else {
        write_ping(self);
        watch(self);
    }
}

int pge_nats_conn_ping(struct pge_nats_conn *self) {
    int status = pge_nats_ping(&self->conn->out);
    if (status < 0)
        return status;
    self->own_pings++;
    return pge_conn_dirty(self->conn);
}

/* ---- the beginning ---- */

static void learn(void *arg, const char *host, uint16_t port) {
    struct pge_nats_conn *self = arg;
    self->role->on_learnt(self->owner, host, port);
}

/* After INFO, and TLS where there is: who we are, what the role needs, and a PING, whose PONG says
 * that all of it was taken. */
static void say_hello(struct pge_nats_conn *self) {
    const char *why = "out of memory";
    struct pge_buf *out = &self->conn->out;
    self->state = PGE_NATS_HELLO;
    int status = pge_nats_login(self, out, &why);
    if (status == 0)
        status = self->role->on_hello(self->owner, out);
    if (status == 0)
        status = pge_nats_ping(out);
    if (status == 0)
        status = pge_conn_dirty(self->conn);
    if (status < 0)
        lose(self, PGE_CONNECT_FAILED, why);
}

static const struct pge_conn_events events;

/* The server's name was learnt with its address, or it is the host dialled. */
static void start_tls(struct pge_nats_conn *self) {
    const struct pge_host_options *at = self->options.at;
    int status;
    if (pge_nats_unread(&self->parser)) { /* said before the handshake, by anybody */
        lose(self, PGE_CONNECT_FAILED, "bytes before the TLS handshake");
        return;
    }
    struct pge_endpoint over = {
        .stream = &pge_stream_tls,
        .addr = {.sa = {.sa_family = at->path ? AF_UNIX : AF_INET}},
        .tls = self->options.tls,
        .server_name = at->server_name ? at->server_name : at->host,
        .over = self->conn,
    };
    struct pge_conn *conn = pge_conn_connect(loop_of(self), &over, &events, self, &status);
    if (!conn) {
        lose(self, PGE_CONNECT_FAILED, uv_strerror(status));
        return;
    }
    self->conn = conn;
    self->state = PGE_NATS_SHAKING;
}

static void on_first_info(struct pge_nats_conn *self, const struct pge_nats_info *info) {
    bool wants_tls = self->options.tls != NULL;
    bool has_tls = pge_settings_flag(self->options.settings, "tls_first");
    if (pge_json_kind(info->nonce) == PGE_JSON_STRING && info->nonce.n < sizeof self->nonce + 2)
        memcpy(self->nonce, info->nonce.p + 1, info->nonce.n - 2);
    if (wants_tls && !has_tls && !info->tls_required && !info->tls_available)
        lose(self, PGE_CONNECT_FAILED, "the NATS server offers no TLS");
    else if (!wants_tls && info->tls_required)
        lose(self, PGE_CONNECT_FAILED, "the NATS server requires TLS: set the option 'tls'");
    else if (wants_tls && !has_tls)
        start_tls(self);
    else
        say_hello(self);
}

static void on_info(struct pge_nats_conn *self, struct pge_span json) {
    struct pge_nats_info info;
    if (pge_nats_read_info(&self->engine->scan, json, &info) < 0) {
        lose(self, PGE_BAD_FRAME, "the NATS server's INFO is not JSON");
        return;
    }
    if (info.max_payload)
        self->max_payload = info.max_payload;
    pge_nats_walk_urls(info.connect_urls, learn, self);
    if (self->state == PGE_NATS_GREETED)
        on_first_info(self, &info);
    else if (self->state == PGE_NATS_READY && info.is_leaving)
        self->role->on_leaving(self->owner);
}

static void on_pong(struct pge_nats_conn *self) {
    self->pings_out = 0;
    if (self->state == PGE_NATS_HELLO) {
        self->state = PGE_NATS_READY;
        watch(self);
        self->role->on_ready(self->owner);
    } else if (self->own_pings) {
        self->own_pings--;
        self->role->on_pong(self->owner);
    }
}

/* Permissions are about one subject; after anything else the server closes. */
static void on_err(struct pge_nats_conn *self, struct pge_span text) {
    snprintf(self->error, sizeof self->error, "%.*s", (int)(text.n < 150 ? text.n : 150), text.p);
    bool is_mild = strncmp(self->error, "Permissions Violation", 21) == 0 ||
                   strstr(self->error, "Invalid Subject");
    if (is_mild)
        self->role->on_refused(self->owner, self->error);
    else if (self->state != PGE_NATS_READY)
        lose(self, PGE_CONNECT_FAILED, self->error);
}

/* ---- bytes ---- */

static void take(struct pge_nats_conn *self, const struct pge_nats_event *event) {
    switch (event->kind) {
    case PGE_NATS_MSG:
        if (self->state == PGE_NATS_HELLO || self->state == PGE_NATS_READY)
            self->role->on_message(self->owner, event); /* also before the PONG: it was asked for */
        break;
    case PGE_NATS_PING:
        if (pge_nats_pong(&self->conn->out) == 0)
            pge_conn_dirty(self->conn);
        break;
    case PGE_NATS_PONG:
        on_pong(self);
        break;
    case PGE_NATS_INFO:
        on_info(self, event->text);
        break;
    case PGE_NATS_ERR:
        on_err(self, event->text);
        break;
    case PGE_NATS_OK:
        break;
    }
}

static void parse(void *arg) {
    struct pge_nats_conn *self = arg;
    struct pge_nats_event event;
    int status = 0;
    while (self->state != PGE_NATS_CLOSED && self->state != PGE_NATS_SHAKING && !self->is_paused &&
           (status = pge_nats_next(&self->parser, &event)) > 0)
        take(self, &event);
    if (self->state == PGE_NATS_CLOSED)
        return;
    if (status < 0)
        lose(self, status == UV_EMSGSIZE ? PGE_FRAME_TOO_LARGE : PGE_BAD_FRAME, self->parser.error);
    else if (self->is_paused && pge_nats_park(&self->parser) < 0)
        lose(self, PGE_OVERLOADED, "out of memory");
}

static void on_data(struct pge_conn *conn, const char *data, ssize_t n) {
    struct pge_nats_conn *self = conn->owner;
    if (n < 0) {
        lose(self, PGE_CONNECTION_CLOSED,
             self->error[0] ? self->error
             : conn->why    ? conn->why
                            : "Connection closed");
        return;
    }
    if (pge_nats_feed(&self->parser, data, (size_t)n) < 0)
        lose(self, PGE_BAD_FRAME, self->parser.error[0] ? self->parser.error : "out of memory");
    else
        self->engine->enter(self->engine, parse, self);
}

/* Of TLS after INFO; dial.c hands over open connections. */
static void on_open(struct pge_conn *conn, int status) {
    struct pge_nats_conn *self = conn->owner;
    if (status < 0) {
        lose(self, PGE_CONNECT_FAILED, conn->why ? conn->why : uv_strerror(status));
        return;
    }
    pge_conn_read_start(conn);
    say_hello(self);
}

static void on_drain(struct pge_conn *conn, int status) {
    struct pge_nats_conn *self = conn->owner;
    if (self->state == PGE_NATS_CLOSED) {
        if (status < 0)
            pge_conn_close(conn);
    } else if (status < 0) {
        lose(self, PGE_CONNECTION_CLOSED, "Connection closed");
    } else {
        self->role->on_drained(self->owner);
    }
}

static void on_close(struct pge_conn *conn) {
    gone(conn->owner);
}

static const struct pge_conn_events events = {
    .on_open = on_open,
    .on_data = on_data,
    .on_drain = on_drain,
    .on_close = on_close,
};

static void on_dialled(void *arg, struct pge_conn *conn, int status, const char *why) {
    struct pge_nats_conn *self = arg;
    (void)status;
    self->dial = NULL;
    if (!conn) {
        lose(self, PGE_CONNECT_FAILED, why);
        return;
    }
    self->conn = conn;
    conn->events = &events;
    conn->owner = self;
    self->state = PGE_NATS_GREETED;
    pge_conn_read_start(conn);
}

struct pge_nats_conn *pge_nats_conn_open(struct pge_engine *engine,
                                         const struct pge_nats_options *options,
                                         const struct pge_nats_role *role, void *owner,
                                         int *status) {
    struct pge_nats_conn *self = pge_calloc(1, sizeof *self);
    *status = UV_ENOMEM;
    if (!self)
        return NULL;
    *self = (struct pge_nats_conn){.engine = engine, .role = role, .owner = owner};
    self->options = *options;
    self->max_payload = PGE_NATS_PUB_MAX;
    pge_nats_init(&self->parser, options->max_payload);
    pge_timer_init(&self->timer, on_timer);
    pge_defer_init(&self->gone, on_gone);
    *status = pge_loop_hold(engine->loop);
    if (*status < 0) {
        pge_free(self);
        return NULL;
    }
    struct pge_target target = {options->at->host, options->at->port, options->at->path, NULL,
                                options->at->server_name};
    if (pge_settings_flag(options->settings, "tls_first"))
        target.tls = options->tls;
    self->dial = pge_dial_start(engine->loop, &target, options->connect_timeout_ms, on_dialled,
                                self, status);
    if (self->dial) {
        /* The dial has this limit too; what comes after it has the rest. */
        pge_loop_timer(engine->loop, &self->timer, options->connect_timeout_ms * 2);
        return self;
    }
    pge_loop_release(engine->loop);
    pge_free(self);
    return NULL;
}

/* ---- use ---- */

int pge_nats_conn_dirty(struct pge_nats_conn *self) {
    return pge_conn_dirty(self->conn);
}

size_t pge_nats_conn_queued(const struct pge_nats_conn *self) {
    return self->conn ? pge_conn_queued(self->conn) : 0;
}

void pge_nats_conn_pause(struct pge_nats_conn *self, bool paused) {
    self->is_paused = paused;
    if (!self->conn)
        return;
    self->conn->wants_drain = paused;
    if (paused) {
        pge_conn_read_stop(self->conn);
        return;
    }
    self->engine->enter(self->engine, parse, self);
    if (self->state != PGE_NATS_CLOSED && !self->is_paused)
        pge_conn_read_start(self->conn);
}

int pge_nats_publish(struct pge_buf *out, const struct pge_nats_publication *p) {
    struct pge_nats_pub pub;
    int status = pge_nats_pub_begin(out, &pub, p->subject, p->reply_to, p->headers.count > 0);
    if (status < 0)
        return status;
    for (unsigned i = 0; i < p->headers.count && status == 0; i++)
        status = pge_nats_pub_header(out, p->headers.at[i].name, p->headers.at[i].value);
    if (status == 0 && p->headers.count)
        status = pge_nats_pub_body(out, &pub);
    if (status == 0)
        status = p->write(p->arg, out);
    if (status == 0 && pge_nats_pub_size(out, &pub) > p->max_payload)
        status = UV_EMSGSIZE;
    if (status == 0)
        status = pge_nats_pub_end(out, &pub);
    if (status < 0)
        pge_nats_pub_abort(out, &pub);
    return status;
}
