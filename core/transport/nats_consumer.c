/*
 * nats_consumer.c - JetStream's side of a listener: a durable pull consumer as the source of
 * events.
 *
 *   create -> ok: up;  pull(n) -> n messages, or a status that says how many will not come
 *   message -> handler's verdict -> +ACK | -NAK, again later | too often: dead letter, +TERM
 *
 * Deliveries are counted here and not by the stream, so that one that fails for the last time is
 * never given up before its dead letter is out.
 */
#include <stdio.h>
#include <stdlib.h>
#include <uv.h>

#include "base/alloc.h"
#include "transport/nats.h"

/* A pull is a promise of the stream's leader, and goes with it unsaid: a heart-beat tells that it
 * still stands, and after LATE_MS without a word it is asked for again. */
enum { EXPIRES_MS = 30000, HEARTBEAT_MS = 1000, LATE_MS = 2500, TICK_MS = 500 };
enum { MAX_RETRY_MS = 30000 };

struct pge_nats_consumer {
    struct pge_nats_peer *peer;
    const struct pge_settings *settings;
    const char *stream, *durable, *dead_letter; /* settings' */
    unsigned batch, max_deliver;
    uint64_t ack_wait_ms, retry_delay_ms;
    char inbox[8 + PGE_NATS_NONCE_LEN + 4]; /* "_INBOX.NONCE." and a letter */
    size_t inbox_len;
    unsigned asked;   /* messages pulled that have neither come nor been refused */
    unsigned in_hand; /* with handlers */
    uint64_t heard_at, worked_at; /* the last word about a pull; the last "+WPI" */
    struct pge_buf letter;        /* a message's headers and body, as kept for a dead letter */
    struct pge_timer timer;
    bool is_leaving;
};

static struct pge_loop *loop_of(const struct pge_nats_consumer *self) {
    return self->peer->base.server->engine->loop;
}

static struct pge_span span_of(const char *text) {
    return (struct pge_span){text, strlen(text)};
}

static bool is_open(const struct pge_nats_consumer *self) {
    return self->peer->conn && self->peer->conn->state == PGE_NATS_READY;
}

/* ---- saying something ---- */

static int write_span(void *arg, struct pge_buf *out) {
    const struct pge_span *text = arg;
    return pge_buf_append(out, text->p, text->n);
}

/* To JetStream itself. letter: names what the answer is about; 0: none is wanted. */
static int ask(struct pge_nats_consumer *self, const char *subject, struct pge_span text,
               char letter) {
    struct pge_nats_publication p = {
        .subject = span_of(subject),
        .max_payload = self->peer->max_payload,
        .write = write_span,
        .arg = &text,
    };
    if (letter) {
        self->inbox[self->inbox_len] = letter;
        p.reply_to = (struct pge_span){self->inbox, self->inbox_len + 1};
    }
    int status = pge_nats_publish(&self->peer->conn->conn->out, &p);
    return status < 0 ? status : pge_nats_conn_dirty(self->peer->conn);
}

static void create(struct pge_nats_consumer *self) {
    char subject[320], text[1024];
    const char *filter = pge_settings_text(self->settings, "jetstream.filter");
    snprintf(subject, sizeof subject, "$JS.API.CONSUMER.DURABLE.CREATE.%s.%s", self->stream,
             self->durable);
    int n = snprintf(text, sizeof text,
                     "{\"stream_name\":\"%s\",\"config\":{\"durable_name\":\"%s\",\"ack_policy\":"
                     "\"explicit\",\"deliver_policy\":\"all\",\"ack_wait\":%llu000000,"
                     "\"max_deliver\":-1,\"max_ack_pending\":%u%s%s%s}}",
                     self->stream, self->durable, (unsigned long long)self->ack_wait_ms,
                     self->batch * 2, filter ? ",\"filter_subject\":\"" : "", filter ? filter : "",
                     filter ? "\"" : "");
    ask(self, subject, (struct pge_span){text, (size_t)n}, 'c');
}

/* Asks for as many as are free, once half of them are. */
static void pull(struct pge_nats_consumer *self) {
    char subject[320], text[96];
    unsigned taken = self->asked + self->in_hand;
    if (!is_open(self) || self->is_leaving || taken > self->batch / 2)
        return;
    unsigned count = self->batch - taken;
    snprintf(subject, sizeof subject, "$JS.API.CONSUMER.MSG.NEXT.%s.%s", self->stream,
             self->durable);
    int n = snprintf(text, sizeof text,
                     "{\"batch\":%u,\"expires\":%d000000,\"idle_heartbeat\":%d000000}", count,
                     EXPIRES_MS, HEARTBEAT_MS);
    if (ask(self, subject, (struct pge_span){text, (size_t)n}, 'p') < 0)
        return;
    self->asked += count;
    self->heard_at = pge_loop_now(loop_of(self));
}

/* ---- the clock ---- */

/* "+WPI" for all that handlers have: the stream must not give it to somebody else meanwhile. */
static void say_working(struct pge_nats_consumer *self) {
    struct pge_list *requests = &self->peer->base.requests;
    for (struct pge_list *n = requests->next; n != requests; n = n->next) {
        struct pge_request *request = container_of(n, struct pge_request, node);
        if (request->wants_verdict)
            pge_nats_peer_say(self->peer, request, span_of("+WPI"));
    }
}

/* Half of ack_wait is when what takes long must be told to be worked at. */
static void tick(struct pge_nats_consumer *self) {
    uint64_t half = self->ack_wait_ms / 2;
    pge_loop_timer(loop_of(self), &self->timer, half < TICK_MS ? half : TICK_MS);
}

static void on_timer(struct pge_timer *timer) {
    struct pge_nats_consumer *self = container_of(timer, struct pge_nats_consumer, timer);
    uint64_t now = pge_loop_now(loop_of(self));
    tick(self);
    if (!is_open(self))
        return;
    if (now - self->worked_at >= self->ack_wait_ms / 2) {
        self->worked_at = now;
        say_working(self);
    }
    if (now - self->heard_at > LATE_MS)
        self->asked = 0; /* what was asked has been forgotten: another leader, perhaps */
    pull(self);
}

/* ---- answers of JetStream ---- */

static void on_created(struct pge_nats_consumer *self, const struct pge_nats_event *message) {
    struct pge_json_scan *scan = &self->peer->base.server->engine->scan;
    char text[256] = "JetStream does not answer: is it enabled on the NATS server?";
    struct pge_span json = message->payload, error = {0};
    bool is_json = json.n && pge_json_check(scan, json.p, json.n) == 0;
    if (is_json)
        error = pge_nats_member(scan, json, "error");
    if (is_json && !error.p) {
        self->heard_at = self->worked_at = pge_loop_now(loop_of(self));
        tick(self);
        pge_peer_up(&self->peer->base);
        pull(self);
        return;
    }
    struct pge_span words = is_json ? pge_nats_member(scan, error, "description") : error;
    if (words.n > 2)
        snprintf(text, sizeof text, "JetStream: %.*s", (int)(words.n - 2 < 200 ? words.n - 2 : 200),
                 words.p + 1);
    pge_nats_peer_give_up(self->peer, text);
}

/* 404, 408, 409: the rest of a pull will not come. */
static void on_status(struct pge_nats_consumer *self, struct pge_span block) {
    struct pge_nats_headers it;
    struct pge_span name, value;
    unsigned long rest = self->asked;
    if (!block.p || pge_nats_headers_begin(&it, block) < 0 || it.status < 400)
        return;
    while (pge_nats_headers_next(&it, &name, &value))
        if (name.n == 21 && memcmp(name.p, "Nats-Pending-Messages", 21) == 0)
            rest = strtoul(value.p, NULL, 10); /* the line's end ends it */
    self->asked -= rest < self->asked ? (unsigned)rest : self->asked;
    if (it.status == 408)
        pull(self);
    /* else the timer's next round asks again: there may be no consumer just now */
}

/* ---- messages ---- */

/* The handler of a subject: one that names it, else the first whose wildcards do. */
static const struct pge_subscription *find(const struct pge_nats_consumer *self,
                                           struct pge_span subject) {
    const struct pge_list *list = &self->peer->base.server->subscriptions;
    const struct pge_subscription *best = NULL;
    for (const struct pge_list *n = list->next; n != list; n = n->next) {
        const struct pge_subscription *s = container_of(n, struct pge_subscription, node);
        struct pge_span route = span_of(s->route);
        if (route.n == subject.n && memcmp(route.p, subject.p, route.n) == 0)
            return s;
        if (!best && pge_nats_subject_match(route, subject))
            best = s;
    }
    return best;
}

/* $JS.ACK.STREAM.CONSUMER.DELIVERED.…, or with two tokens more before STREAM. 0: no such address.
 */
static unsigned delivered(struct pge_span reply_to) {
    unsigned dots = 0, at = 0;
    for (size_t i = 0; i < reply_to.n; i++)
        dots += reply_to.p[i] == '.';
    unsigned wanted = dots > 8 ? 6 : 4;
    for (size_t i = 0; i < reply_to.n; i++)
        if (reply_to.p[i] == '.' && ++at == wanted)
            return (unsigned)strtoul(reply_to.p + i + 1, NULL, 10); /* a dot ends it */
    return 0;
}

/* A copy of what nobody could handle, under the dead letters' subject. */
static void bury(struct pge_nats_consumer *self, struct pge_span payload,
                 struct pge_headers headers) {
    struct pge_nats_publication p = {
        .subject = span_of(self->dead_letter),
        .headers = headers,
        .max_payload = self->peer->max_payload,
        .write = write_span,
        .arg = &payload,
    };
    if (pge_nats_peer_publish(self->peer, &p) < 0)
        pge_peer_complain(&self->peer->base, PGE_OVERLOADED, "a dead letter could not be sent");
}

static void say_to(struct pge_nats_consumer *self, struct pge_span ack, const char *text) {
    struct pge_span words = span_of(text);
    struct pge_nats_publication p = {
        .subject = ack, .max_payload = self->peer->max_payload, .write = write_span, .arg = &words};
    pge_nats_peer_publish(self->peer, &p);
}

/* Nobody will handle it, now or later. */
static void end_badly(struct pge_nats_consumer *self, const struct pge_nats_event *message,
                      struct pge_headers headers, const char *why) {
    char text[256];
    if (self->dead_letter)
        bury(self, message->payload, headers);
    say_to(self, message->reply_to, "+TERM");
    snprintf(text, sizeof text, "a message of stream %s on '%.*s' is given up: %s", self->stream,
             (int)(message->subject.n < 80 ? message->subject.n : 80), message->subject.p, why);
    pge_peer_complain(&self->peer->base, PGE_INVALID_MESSAGE, text);
}

/* What a dead letter takes, in one piece: the count of headers, they, the body. p NULL: none. */
static struct pge_span write_letter(struct pge_nats_consumer *self, struct pge_span body,
                                    struct pge_headers headers) {
    struct pge_buf *letter = &self->letter;
    pge_buf_clear(letter);
    if (!self->dead_letter || pge_buf_append(letter, &headers.count, sizeof headers.count) < 0 ||
        pge_headers_pack(headers, letter) < 0 || pge_buf_append(letter, body.p, body.n) < 0)
        return (struct pge_span){0};
    return (struct pge_span){pge_buf_head(letter), pge_buf_len(letter)};
}

static void send_letter(struct pge_nats_consumer *self, const struct pge_buf *letter) {
    struct pge_header at[PGE_MAX_HEADERS];
    struct pge_headers headers = {.at = at};
    if (pge_buf_len(letter) < sizeof headers.count)
        return; /* there was no memory for it */
    memcpy(&headers.count, pge_buf_head(letter), sizeof headers.count);
    const char *end = pge_buf_head(letter) + pge_buf_len(letter);
    const char *body =
        pge_headers_unpack(pge_buf_head(letter) + sizeof headers.count, at, headers.count);
    bury(self, (struct pge_span){body, (size_t)(end - body)}, headers);
}

static void on_event(struct pge_nats_consumer *self, const struct pge_nats_event *message,
                     struct pge_headers headers) {
    struct pge_origin from = {
        .subscription = find(self, message->subject),
        .channel = message->subject,
        .reply_to = message->reply_to,
        .headers = headers,
        .wants_verdict = true,
        .body = write_letter(self, message->payload, headers),
    };
    self->asked -= self->asked > 0;
    if (!from.subscription) {
        end_badly(self, message, headers, "no handler hears it");
    } else if (delivered(message->reply_to) > self->max_deliver) {
        end_badly(self, message, headers, "it was delivered too often");
    } else {
        self->in_hand++;
        int status = pge_peer_packet_from(&self->peer->base, message->payload, &from);
        if (status < 0) {
            self->in_hand--;
            end_badly(self, message, headers, uv_strerror(status));
        }
    }
    pull(self);
}

void pge_nats_consumer_message(struct pge_nats_consumer *self, const struct pge_nats_event *message,
                               struct pge_headers headers) {
    self->heard_at = pge_loop_now(loop_of(self));
    struct pge_span subject = message->subject;
    bool is_answer =
        subject.n == self->inbox_len + 1 && memcmp(subject.p, self->inbox, self->inbox_len) == 0;
    if (is_answer && subject.p[self->inbox_len] == 'c')
        on_created(self, message);
    else if (is_answer)
        on_status(self, message->headers);
    else if (message->reply_to.p)
        on_event(self, message, headers);
}

/* After a failure: again, later and later; or never. request->held has what a dead letter needs. */
static void refuse(struct pge_nats_consumer *self, struct pge_request *request) {
    unsigned count = delivered(pge_request_reply_to(request));
    char text[64];
    if (count >= self->max_deliver) {
        if (self->dead_letter)
            send_letter(self, &request->held);
        pge_nats_peer_say(self->peer, request, span_of("+TERM"));
        char why[192];
        snprintf(why, sizeof why, "a message of stream %.64s is given up after %u tries",
                 self->stream, count);
        pge_peer_complain(&self->peer->base, PGE_CANCELLED, why);
        return;
    }
    uint64_t delay = self->retry_delay_ms << (count > 1 && count < 16 ? count - 1 : 0);
    if (delay > MAX_RETRY_MS)
        delay = MAX_RETRY_MS;
    snprintf(text, sizeof text, "-NAK {\"delay\":%llu000000}", (unsigned long long)delay);
    pge_nats_peer_say(self->peer, request, span_of(text));
}

void pge_nats_consumer_settle(struct pge_nats_consumer *self, struct pge_request *request,
                              enum pge_verdict verdict) {
    if (verdict == PGE_ACK)
        pge_nats_peer_say(self->peer, request, span_of("+ACK"));
    else
        refuse(self, request);
    self->in_hand -= self->in_hand > 0;
    pull(self);
}

/* ---- life ---- */

int pge_nats_consumer_hello(struct pge_nats_consumer *self, struct pge_buf *out) {
    self->inbox[self->inbox_len] = '*';
    self->asked = 0;
    return pge_nats_sub(out, (struct pge_span){self->inbox, self->inbox_len + 1},
                        (struct pge_span){0}, PGE_NATS_CONSUMER_SID);
}

void pge_nats_consumer_ready(struct pge_nats_consumer *self) {
    create(self);
}

void pge_nats_consumer_leave(struct pge_nats_consumer *self) {
    self->is_leaving = true;
    pge_nats_unsub(&self->peer->conn->conn->out, PGE_NATS_CONSUMER_SID, 0);
}

struct pge_nats_consumer *pge_nats_consumer_new(struct pge_nats_peer *peer) {
    const struct pge_settings *s = &peer->base.server->options.settings;
    struct pge_nats_consumer *self = pge_calloc(1, sizeof *self);
    if (!self)
        return NULL;
    self->peer = peer;
    self->settings = s;
    self->stream = pge_settings_text(s, "jetstream.stream");
    self->durable = pge_settings_text(s, "jetstream.durable");
    self->dead_letter = pge_settings_text(s, "jetstream.dead_letter");
    self->batch = (unsigned)pge_settings_number(s, "jetstream.batch", 64);
    self->max_deliver = (unsigned)pge_settings_number(s, "jetstream.max_deliver", 5);
    self->ack_wait_ms = (uint64_t)pge_settings_number(s, "jetstream.ack_wait", 30000);
    self->retry_delay_ms = (uint64_t)pge_settings_number(s, "jetstream.retry_delay", 1000);
    pge_timer_init(&self->timer, on_timer);
    memcpy(self->inbox, "_INBOX.", 7);
    self->inbox_len = 7 + PGE_NATS_NONCE_LEN + 1;
    pge_nats_write_nonce(self->inbox + 7, pge_loop_random(loop_of(self)),
                         pge_loop_random(loop_of(self)));
    self->inbox[self->inbox_len - 1] = '.';
    return self;
}

void pge_nats_consumer_free(struct pge_nats_consumer *self) {
    if (!self)
        return;
    pge_loop_timer_stop(loop_of(self), &self->timer);
    pge_buf_deinit(&self->letter);
    pge_free(self);
}
