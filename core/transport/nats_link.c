/*
 * nats_link.c - the client's end of the NATS transport. One inbox for all calls: the last token of
 * its subjects is the call's id.
 *
 *   PUB subject _INBOX.NONCE.ID ...        SUB _INBOX.NONCE.* 1        MSG _INBOX.NONCE.ID 1 ...
 */
#include <stdio.h>
#include <uv.h>

#include "base/alloc.h"
#include "transport/nats.h"
#include "transport/packet.h"

enum { INBOX_SID = 1 };

static struct pge_nats_link *of(struct pge_link *link) {
    return container_of(link, struct pge_nats_link, base);
}

/* ---- the inbox ---- */

static void write_base62(char *out, unsigned digits, uint64_t value) {
    static const char letters[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    while (digits--) {
        out[digits] = letters[value % 62];
        value /= 62;
    }
}

void pge_nats_write_nonce(char *out, uint64_t a, uint64_t b) {
    write_base62(out, PGE_NATS_NONCE_LEN / 2, a);
    write_base62(out + PGE_NATS_NONCE_LEN / 2, PGE_NATS_NONCE_LEN / 2, b);
}

/* The same after a reconnect, so that answers to what was asked before still arrive. */
static void name_inbox(struct pge_nats_link *self) {
    const struct pge_pool *pool = self->base.pool;
    const char *prefix = pge_settings_text(&pool->options.settings, "inbox_prefix");
    int n = snprintf(self->inbox, PGE_NATS_PREFIX_MAX, "%s.", prefix ? prefix : "_INBOX");
    char *nonce = self->inbox + n;
    pge_nats_write_nonce(nonce, pool->nonce[0], pool->nonce[1]);
    nonce[PGE_NATS_NONCE_LEN] = '.';
    self->inbox_len = (size_t)n + PGE_NATS_NONCE_LEN + 1;
}

static struct pge_span inbox_of(struct pge_nats_link *self, const struct pge_call *call) {
    memcpy(self->inbox + self->inbox_len, call->id, PGE_ID_LEN);
    return (struct pge_span){self->inbox, self->inbox_len + PGE_ID_LEN};
}

static int on_hello(void *owner, struct pge_buf *out) {
    struct pge_nats_link *self = owner;
    self->inbox[self->inbox_len] = '*';
    struct pge_span subject = {self->inbox, self->inbox_len + 1};
    return pge_nats_sub(out, subject, (struct pge_span){0}, INBOX_SID);
}

/* ---- answers ---- */

static void no_responders(struct pge_call *call) {
    char text[256];
    struct pge_span at = {pge_buf_head(&call->address), pge_buf_len(&call->address)};
    snprintf(text, sizeof text,
             call->kind == PGE_CALL_EVENT
                 ? "no stream takes the subject \"%.*s\""
                 : "Empty response. There are no subscribers listening to that message (\"%.*s\")",
             (int)(at.n < 160 ? at.n : 160), at.p);
    pge_call_fail(call, PGE_NO_HANDLER, text);
}

static bool is_status(struct pge_span headers, unsigned status) {
    struct pge_nats_headers it;
    return headers.p && pge_nats_headers_begin(&it, headers) == 0 && it.status == status;
}

static void on_reply(struct pge_nats_link *self, struct pge_call *call, struct pge_span payload) {
    char text[192];
    if (call->kind == PGE_CALL_EVENT) {
        pge_nats_stream_ack(call, payload);
        return;
    }
    int status = pge_link_packet_for(&self->base, call, payload);
    if (status == 0)
        return;
    snprintf(text, sizeof text, "the reply is not JSON: %s",
             status == UV_EPROTO ? self->base.pool->engine->scan.error : uv_strerror(status));
    pge_call_fail(call, PGE_BAD_FRAME, text);
}

static void on_message(void *owner, const struct pge_nats_event *message) {
    struct pge_nats_link *self = owner;
    struct pge_span id = message->subject;
    if (id.n <= self->inbox_len)
        return;
    id.p += self->inbox_len;
    id.n -= self->inbox_len;
    struct pge_call *call = pge_link_call(&self->base, id);
    if (!call)
        return;
    if (message->payload.n == 0 || is_status(message->headers, 503))
        no_responders(call);
    else
        on_reply(self, call, message->payload);
}

/* 'Permissions Violation for Publish to "subject"': the calls that went there. */
static void on_refused(void *owner, const char *text) {
    struct pge_nats_link *self = owner;
    if (self->base.state != PGE_LINK_READY) {
        pge_link_lost(&self->base, PGE_CONNECT_FAILED, text);
        return;
    }
    const char *subject = strchr(text, '"');
    size_t n = subject ? strcspn(++subject, "\"") : 0;
    struct pge_list refused;
    pge_list_init(&refused);
    for (struct pge_list *at = self->base.calls.next, *next; at != &self->base.calls; at = next) {
        next = at->next;
        struct pge_call *call = container_of(at, struct pge_call, of_link);
        if (n && pge_buf_len(&call->address) == n &&
            memcmp(pge_buf_head(&call->address), subject, n) == 0) {
            pge_list_remove(at);
            pge_list_push(&refused, at);
        }
    }
    while (!pge_list_is_empty(&refused))
        pge_call_fail(container_of(refused.next, struct pge_call, of_link), PGE_REMOTE, text);
}

/* ---- life ---- */

static void on_ready(void *owner) {
    struct pge_nats_link *self = owner;
    pge_link_ready(&self->base);
}

static void on_drained(void *owner) {
    (void)owner; /* links are not paused */
}

static void on_pong(void *owner) {
    (void)owner;
}

static void on_learnt(void *owner, const char *host, uint16_t port) {
    struct pge_nats_link *self = owner;
    pge_link_learn(&self->base, host, port);
}

static void on_leaving(void *owner) {
    struct pge_nats_link *self = owner;
    pge_link_leave(&self->base);
}

static void on_lost(void *owner, enum pge_fault fault, const char *text) {
    struct pge_nats_link *self = owner;
    pge_link_lost(&self->base, fault, text);
}

static void on_gone(void *owner) {
    struct pge_nats_link *self = owner;
    pge_link_closed(&self->base);
}

static const struct pge_nats_role role = {
    .on_hello = on_hello,
    .on_ready = on_ready,
    .on_message = on_message,
    .on_refused = on_refused,
    .on_drained = on_drained,
    .on_pong = on_pong,
    .on_learnt = on_learnt,
    .on_leaving = on_leaving,
    .on_lost = on_lost,
    .on_gone = on_gone,
};

int pge_nats_link_connect(struct pge_link *link) {
    struct pge_nats_link *self = of(link);
    const struct pge_pool_options *o = &link->pool->options;
    struct pge_nats_options options = {
        .settings = &o->settings,
        .at = link->host->at,
        .tls = o->tls,
        .connect_timeout_ms = o->connect_timeout_ms,
        .max_payload = o->max_frame_units,
    };
    int status;
    name_inbox(self);
    self->conn = pge_nats_conn_open(link->pool->engine, &options, &role, self, &status);
    return self->conn ? 0 : status;
}

void pge_nats_link_close(struct pge_link *link) {
    pge_nats_conn_close(of(link)->conn, true);
}

size_t pge_nats_link_queued(const struct pge_link *link) {
    return pge_nats_conn_queued(container_of(link, const struct pge_nats_link, base)->conn);
}

/* ---- messages out ---- */

struct packet {
    const struct pge_message *m;
    struct pge_span id; /* p NULL: an event */
};

static int write_packet(void *arg, struct pge_buf *out) {
    const struct packet *packet = arg;
    if (packet->id.p)
        return pge_packet_request(out, packet->m, packet->id);
    return pge_packet_event(out, packet->m, (struct pge_span){0});
}

/* The subject of a message; refused with Nest's words where it cannot be one (NAT-07). */
static int subject_of(struct pge_link *link, const struct pge_message *m,
                      struct pge_span *subject) {
    int status = pge_packet_address(link->pool->engine, m->pattern, subject);
    if (status >= 0 && pge_nats_subject_check(*subject) < 0) {
        snprintf(link->why, sizeof link->why, "illegal subject: '%.*s'",
                 (int)(subject->n < 120 ? subject->n : 120), subject->p);
        status = UV_EINVAL;
    }
    return status < 0 ? status : 0;
}

/* call: whose inbox the answer goes to; NULL: there is none. */
static int put(struct pge_nats_link *self, struct pge_call *call, const struct pge_message *m,
               struct pge_span id) {
    struct pge_link *link = &self->base;
    struct packet packet = {m, id};
    struct pge_nats_publication p = {
        .headers = m->headers,
        .max_payload = self->conn->max_payload,
        .write = write_packet,
        .arg = &packet,
    };
    if (p.max_payload > link->pool->options.max_queued_bytes)
        p.max_payload = link->pool->options.max_queued_bytes;
    int status = subject_of(link, m, &p.subject);
    if (status == 0 && call) {
        p.reply_to = inbox_of(self, call);
        pge_buf_clear(&call->address);
        status = pge_buf_append(&call->address, p.subject.p, p.subject.n);
    }
    if (status == 0)
        status = pge_nats_publish(&self->conn->conn->out, &p);
    if (status == UV_EMSGSIZE)
        snprintf(link->why, sizeof link->why, "'payload' max_payload size exceeded");
    return status < 0 ? status : pge_nats_conn_dirty(self->conn);
}

int pge_nats_link_send(struct pge_link *link, struct pge_call *call, const struct pge_message *m) {
    return put(of(link), call, m, pge_call_id(call));
}

/* Whether a stream is to acknowledge the event: as the message says, else as the client does. */
static bool wants_stream(const struct pge_link *link, const struct pge_message *m) {
    struct pge_span own = pge_headers_find(m->options, "jetstream");
    if (own.p)
        return own.n == 4 && memcmp(own.p, "true", 4) == 0;
    return pge_settings_flag(&link->pool->options.settings, "jetstream");
}

int pge_nats_link_emit(struct pge_link *link, struct pge_call *call, const struct pge_message *m) {
    bool is_acked = wants_stream(link, m);
    if (is_acked && !call)
        return PGE_EMIT_ACKED;
    int status = put(of(link), is_acked ? call : NULL, m, (struct pge_span){0});
    return status < 0 ? status : is_acked ? PGE_EMIT_ACKED : 0;
}

void pge_nats_link_forget(struct pge_link *link, struct pge_call *call) {
    (void)link; /* its token is no one's any more */
    (void)call;
}

int pge_nats_link_resume(struct pge_link *link, struct pge_call *call) {
    (void)link; /* the inbox is the same */
    (void)call;
    return 0;
}
