/*
 * tls.c - the tls stream: OpenSSL on memory BIOs over an inner conn (tcp or unix pipe).
 *
 *   owner --write--> SSL_write --> BIO out --> inner->out --> kernel
 *   owner <-on_data- SSL_read <--- BIO in <--- inner on_data <- kernel
 *
 * Plaintext is read ahead only while the owner reads, and encrypted only WINDOW bytes ahead of what
 * the kernel takes, so that backpressure reaches both ends.
 */
#include "net/tls.h"

#include <assert.h>
#include <stdio.h>

#include "base/openssl.h"
#include "net/stream.h"

enum {
    HANDSHAKE_MS = 10000, /* for a server: a dialler has its own limit */
    GOODBYE_MS = 1000,    /* how long a close may wait for the kernel to take close_notify */
    WINDOW = 256 * 1024,  /* ciphertext that may wait in the inner conn */
    RECORD = SSL3_RT_MAX_PLAIN_LENGTH
};

struct tlsconn {
    struct pge_conn base;          /* first */
    struct pge_conn *inner;        /* owned: closed with this */
    struct pge_tls *tls;           /* owned: a reference */
    SSL *ssl;                      /* owned, and its two BIOs */
    struct pge_listener *listener; /* borrowed: while shaking; NULL: a dialled conn, or done */
    struct pge_list shaking;       /* in listener->shaking */
    struct pge_timer limit;        /* of a server's handshake; of the goodbye */
    struct pge_defer deliver; /* plaintext, or the end, is there without the peer sending more */
    const char *rest;         /* borrowed: the owner's bytes not yet encrypted */
    size_t rest_size;
    pge_write_cb write_done; /* NULL: no write is unfinished */
    int broken;              /* why nothing can be written any more, 0: it can */
    int cut;                 /* how the inner conn ended, 0: it has not */
    int ended;               /* what on_data is told after the last plaintext, 0: more may come */
};

static void on_deliver(struct pge_defer *defer);
static void on_limit(struct pge_timer *timer);
static const struct pge_conn_events inner_events;

static struct tlsconn *of(struct pge_conn *conn) {
    return container_of(conn, struct tlsconn, base);
}

static int tls_init(struct pge_conn *conn) {
    struct tlsconn *self = of(conn);
    pge_list_init(&self->shaking);
    pge_timer_init(&self->limit, on_limit);
    pge_defer_init(&self->deliver, on_deliver);
    return 0;
}

/* Keeps why OpenSSL gave up: the failed check of a certificate, or the protocol error. */
static void explain(struct tlsconn *self) {
    unsigned long code = ERR_get_error(); /* the first is the cause */
    long check = SSL_get_verify_result(self->ssl);
    const char *text = ERR_reason_error_string(code);
    if (ERR_GET_LIB(code) == ERR_LIB_SSL && check != X509_V_OK &&
        ERR_GET_REASON(code) == SSL_R_CERTIFICATE_VERIFY_FAILED)
        text = X509_verify_cert_error_string(check);
    pge_conn_explain(&self->base, text ? text : "TLS protocol error");
    ERR_clear_error();
}

/* ---- ciphertext out ---- */

/* Moves what OpenSSL wrote into the inner conn's buffer. 0 or UV_ENOMEM. */
static int collect(struct tlsconn *self) {
    BIO *out = SSL_get_wbio(self->ssl);
    size_t n = BIO_ctrl_pending(out);
    struct pge_buf *to = &self->inner->out;
    if (n == 0)
        return 0;
    if (pge_buf_reserve(to, n) < 0)
        return self->broken = UV_ENOMEM; /* a record is lost: the stream cannot go on */
    int got = BIO_read(out, to->data + to->end, (int)n);
    assert(got == (int)n);
    to->end += (size_t)got;
    return 0;
}

/* What OpenSSL wrote by itself (handshake, tickets, alerts) goes out at once. */
static void push(struct tlsconn *self) {
    if (self->broken || BIO_ctrl_pending(SSL_get_wbio(self->ssl)) == 0)
        return;
    if (collect(self) == 0) {
        pge_conn_flush(self->inner);
        self->broken = self->inner->failed;
    }
}

static int encrypt(struct tlsconn *self) {
    while (self->rest_size && pge_buf_len(&self->inner->out) < WINDOW) {
        size_t n = self->rest_size < RECORD ? self->rest_size : RECORD, sent;
        ERR_clear_error();
        if (SSL_write_ex(self->ssl, self->rest, n, &sent) != 1) {
            explain(self);
            return self->broken = UV_EPROTO;
        }
        self->rest += sent;
        self->rest_size -= sent;
        if (collect(self) < 0)
            return self->broken;
    }
    return 0;
}

/* 1: the kernel has it all. 0: on_drain of the inner conn calls again. < 0: broken. */
static int feed(struct tlsconn *self) {
    do {
        if (self->broken || encrypt(self) < 0)
            return self->broken;
        pge_conn_flush(self->inner);
        if (self->inner->failed)
            return self->broken = self->inner->failed;
        if (pge_conn_queued(self->inner))
            return 0;
    } while (self->rest_size);
    return 1;
}

static int tls_write(struct pge_conn *conn, const char *data, size_t n, pge_write_cb done) {
    struct tlsconn *self = of(conn);
    pge_conn_warm(conn);
    self->rest = data;
    self->rest_size = n;
    int status = feed(self);
    self->write_done = status == 0 ? done : NULL;
    return status;
}

static void end_write(struct tlsconn *self, int status) {
    pge_write_cb done = self->write_done;
    self->write_done = NULL;
    if (done)
        done(&self->base, status);
}

static void on_drain(struct pge_conn *inner, int status) {
    struct tlsconn *self = inner->owner;
    if (status < 0)
        self->broken = status;
    if (!self->write_done)
        return;
    status = feed(self);
    if (status)
        end_write(self, status < 0 ? status : 0);
}

/* ---- plaintext in ---- */

/* Why SSL_read gave nothing; after a protocol error the peer gets its alert. */
static void note_end(struct tlsconn *self) {
    int error = SSL_get_error(self->ssl, 0);
    if (error == SSL_ERROR_WANT_READ) {
        self->ended = self->cut;
    } else if (error == SSL_ERROR_ZERO_RETURN) {
        self->ended = UV_EOF;
    } else {
        explain(self);
        push(self);
        self->ended = self->broken = UV_EPROTO;
    }
}

/* Decrypts into buf until it is full or no whole record is left. Bytes read. */
static size_t decrypt(struct tlsconn *self, char *buf, size_t size) {
    size_t n = 0, got;
    while (n < size && !self->ended) {
        ERR_clear_error();
        if (SSL_read_ex(self->ssl, buf + n, size - n, &got) != 1) {
            note_end(self);
            break;
        }
        n += got;
    }
    return n;
}

/* Hands on what has come, until the owner pauses. What lay in the read buffer is in the BIO. */
static void pump(struct tlsconn *self) {
    struct pge_conn *conn = &self->base;
    while (conn->is_reading && !conn->is_closing) {
        uv_buf_t to =
            conn->sink.len ? conn->sink : uv_buf_init(conn->loop->read_buf, PGE_READ_SIZE);
        size_t n = decrypt(self, to.base, to.len);
        push(self);
        if (n == 0 || conn->is_closing)
            break;
        conn->sink.len = 0;
        conn->events->on_data(conn, to.base, (ssize_t)n);
    }
    if (self->ended && conn->is_reading && !conn->is_closing)
        pge_conn_ended(conn, self->ended);
}

static int tls_read_start(struct pge_conn *conn) {
    struct tlsconn *self = of(conn);
    if (self->ended || self->cut || SSL_has_pending(self->ssl) ||
        BIO_ctrl_pending(SSL_get_rbio(self->ssl))) {
        int status = pge_loop_defer(conn->loop, &self->deliver, PGE_SOON);
        if (status < 0)
            return status;
    }
    return pge_conn_read_start(self->inner);
}

static void tls_read_stop(struct pge_conn *conn) {
    pge_conn_read_stop(of(conn)->inner);
}

/* ---- handshake ---- */

static void leave_handshake(struct tlsconn *self) {
    pge_loop_timer_stop(self->base.loop, &self->limit);
    pge_list_remove(&self->shaking);
    self->listener = NULL;
}

static void end_handshake(struct tlsconn *self, int status) {
    struct pge_listener *listener = self->listener;
    leave_handshake(self);
    pge_conn_read_stop(self->inner); /* reading starts paused */
    if (!listener) {
        pge_conn_opened(&self->base, status);
    } else if (status < 0) {
        listener->refused++;
        pge_conn_close(&self->base); /* events unset: silent */
    } else {
        self->base.is_open = true;
        listener->events->on_accept(listener, &self->base);
    }
}

static void on_limit(struct pge_timer *timer) {
    struct tlsconn *self = container_of(timer, struct tlsconn, limit);
    if (self->base.is_closing)
        pge_conn_close(self->inner);
    else
        end_handshake(self, UV_ETIMEDOUT);
}

static void shake(struct tlsconn *self) {
    ERR_clear_error();
    int result = SSL_do_handshake(self->ssl);
    int error = SSL_get_error(self->ssl, result);
    int status = 0;
    if (result != 1 && error != SSL_ERROR_WANT_READ) {
        explain(self);
        status = UV_EPROTO;
    }
    push(self); /* after a failure too: the alert */
    if (result != 1 && status == 0)
        status = self->broken; /* once shaken, a peer that takes no tickets may still have sent */
    if (status < 0)
        self->broken = status;
    if (status < 0 || result == 1)
        end_handshake(self, status);
}

static void on_deliver(struct pge_defer *defer) {
    struct tlsconn *self = container_of(defer, struct tlsconn, deliver);
    if (self->base.is_open)
        pump(self);
    else
        inner_events.on_open(self->inner, 0); /* over an open conn */
}

static void on_inner_open(struct pge_conn *inner, int status) {
    struct tlsconn *self = inner->owner;
    if (status == 0)
        status = pge_conn_read_start(inner);
    if (status < 0)
        end_handshake(self, status);
    else
        shake(self);
}

/* Without close_notify before it, the end may be an attacker's: an error, and no end of stream. */
static void on_inner_end(struct tlsconn *self, int status) {
    self->cut = status == UV_EOF ? UV_ECONNRESET : status;
    if (self->base.is_open) {
        pump(self);
        return;
    }
    pge_conn_explain(&self->base, "connection closed during the TLS handshake");
    end_handshake(self, self->cut);
}

/* is_open, as SSL_is_init_finished is false again while half a session ticket has come. */
static void on_inner_data(struct pge_conn *inner, const char *data, ssize_t n) {
    struct tlsconn *self = inner->owner;
    if (n > 0 && BIO_write(SSL_get_rbio(self->ssl), data, (int)n) != (int)n)
        n = UV_ENOMEM;
    if (n < 0)
        on_inner_end(self, (int)n);
    else if (self->base.is_open)
        pump(self);
    else
        shake(self);
}

static void on_inner_close(struct pge_conn *inner) {
    struct tlsconn *self = inner->owner;
    pge_loop_timer_stop(inner->loop, &self->limit);
    SSL_free(self->ssl);
    pge_tls_unref(self->tls);
    pge_conn_closed(&self->base);
}

static const struct pge_conn_events inner_events = {on_inner_open, on_inner_data, on_drain,
                                                    on_inner_close};

/* ---- slots ---- */

static int take_session(struct tlsconn *self, struct pge_tls *tls, const char *name) {
    self->ssl = pge_tls_session(tls, name);
    if (!self->ssl)
        return UV_ENOMEM;
    self->tls = pge_tls_ref(tls);
    return 0;
}

static const struct pge_stream *plain_of(int family) {
    return family == AF_UNIX ? &pge_stream_pipe : &pge_stream_tcp;
}

static int tls_connect(struct pge_conn *conn, const struct pge_endpoint *to) {
    struct tlsconn *self = of(conn);
    struct pge_endpoint plain = {.stream = plain_of(to->addr.sa.sa_family), .addr = to->addr};
    int status = take_session(self, to->tls, to->server_name);
    if (status < 0)
        return status;
    if (!to->over) {
        self->inner = pge_conn_connect(conn->loop, &plain, &inner_events, self, &status);
        return status;
    }
    self->inner = to->over;
    self->inner->events = &inner_events;
    self->inner->owner = self;
    return pge_loop_defer(conn->loop, &self->deliver, PGE_SOON);
}

static int tls_accept(struct pge_listener *listener, struct pge_conn *conn, int fd) {
    struct tlsconn *self = of(conn);
    int status = take_session(self, listener->tls, NULL);
    if (status < 0)
        return status;
    struct pge_conn *inner =
        pge_conn_new(conn->loop, plain_of(listener->path[0] ? AF_UNIX : AF_INET), &status);
    if (!inner)
        return status;
    inner->events = &inner_events;
    inner->owner = self;
    self->inner = inner;
    status = inner->stream->accept(listener, inner, fd);
    if (status < 0)
        return status; /* the caller closes us, and we the inner conn */
    /* Neither can fail: the socket is open, and this conn holds the loop. */
    pge_conn_read_start(inner);
    pge_loop_timer(conn->loop, &self->limit, HANDSHAKE_MS);
    self->listener = listener;
    pge_list_push(&listener->shaking, &self->shaking);
    return 0;
}

static int tls_shutdown(struct pge_conn *conn) {
    struct tlsconn *self = of(conn);
    ERR_clear_error();
    SSL_shutdown(self->ssl);
    push(self);
    pge_conn_shutdown(self->inner);
    return self->broken;
}

/* Tells the peer of an orderly end, unless bytes are dropped: then it must see them cut short. */
static void say_goodbye(struct tlsconn *self) {
    struct pge_conn *conn = &self->base;
    if (!conn->is_open || self->broken || pge_conn_queued(conn) || pge_conn_queued(self->inner))
        return;
    ERR_clear_error();
    SSL_shutdown(self->ssl);
    push(self);
}

/*
 * The last bytes may have filled the kernel's buffer. Without the goodbye the peer would take all
 * it got for cut short; so who closes after the write waits for it a little, unseen.
 */
static void close_inner(struct tlsconn *self) {
    if (self->base.is_open && self->base.wants_close && pge_conn_queued(self->inner)) {
        pge_conn_close_after_write(self->inner);
        pge_loop_timer(self->base.loop, &self->limit, GOODBYE_MS);
    } else {
        pge_conn_close(self->inner);
    }
}

static void tls_close(struct pge_conn *conn) {
    struct tlsconn *self = of(conn);
    leave_handshake(self);
    pge_defer_cancel(&self->deliver);
    self->write_done = NULL;
    if (self->inner) {
        say_goodbye(self);
        close_inner(self);
        return;
    }
    if (self->ssl)
        SSL_free(self->ssl);
    pge_tls_unref(self->tls);
    pge_conn_closed(conn);
}

static uint64_t tls_taken(const struct pge_conn *conn) {
    const struct tlsconn *self = (const struct tlsconn *)(const void *)conn;
    return self->inner ? pge_conn_taken(self->inner) : 0;
}

static void tls_peer(const struct pge_conn *conn, char *out, size_t size) {
    const struct tlsconn *self = (const struct tlsconn *)(const void *)conn;
    if (self->inner)
        pge_conn_peer(self->inner, out, size);
    else
        snprintf(out, size, "?");
}

void pge_tls_abort(struct pge_list *node) {
    pge_conn_close(&container_of(node, struct tlsconn, shaking)->base);
}

const struct pge_stream pge_stream_tls = {
    .name = "tls",
    .conn_size = sizeof(struct tlsconn),
    .init = tls_init,
    .connect = tls_connect,
    .accept = tls_accept,
    .read_start = tls_read_start,
    .read_stop = tls_read_stop,
    .write = tls_write,
    .shutdown = tls_shutdown,
    .close = tls_close,
    .taken = tls_taken,
    .peer = tls_peer,
};
