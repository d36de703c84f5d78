/*
 * local.c - clients and servers in one process, found by name. The packets are TCP's, without
 * frames or sockets: what is sent in one turn arrives at its end.
 *
 *   link --"LEN packet LEN packet"--> peer.inbox      peer --> link.inbox
 */
#include <stdio.h>
#include <uv.h>

#include "engine/pool.h"
#include "engine/server.h"
#include "transport/packet.h"

struct local_end {
    struct pge_buf inbox;   /* size_t length, packet, ...: to be delivered at the end of the turn */
    struct pge_buf reading; /* being delivered */
    struct pge_defer turn;
    bool is_over; /* the owner let go: the next turn says the last word */
};

struct local_link {
    struct pge_link base; /* first */
    struct local_end end;
    struct local_peer *peer; /* borrowed: until either side closes; NULL then */
};

struct local_peer {
    struct pge_peer base; /* first */
    struct local_end end;
    struct local_link *link; /* borrowed, as above */
};

static struct local_link *link_of(struct pge_link *link) {
    return container_of(link, struct local_link, base);
}

static struct local_peer *peer_of(struct pge_peer *peer) {
    return container_of(peer, struct local_peer, base);
}

/* ---- inboxes ---- */

static int begin(struct local_end *to, size_t *len) {
    *len = pge_buf_len(&to->inbox);
    size_t room = 0;
    return pge_buf_append(&to->inbox, &room, sizeof room);
}

static int finish(struct pge_loop *loop, struct local_end *to, size_t len, int status,
                  size_t max_bytes) {
    struct pge_buf *inbox = &to->inbox;
    size_t n = pge_buf_len(inbox) - len - sizeof n;
    if (status == 0 && n > max_bytes)
        status = UV_EMSGSIZE;
    if (status < 0) {
        inbox->end = inbox->start + len;
        return status;
    }
    memcpy(pge_buf_head(inbox) + len, &n, sizeof n);
    return pge_loop_defer(loop, &to->turn, PGE_SOON);
}

/* The next packet being read. False: none. */
static bool take(struct local_end *end, struct pge_span *packet) {
    if (pge_buf_len(&end->reading) == 0) {
        struct pge_buf empty = end->reading;
        end->reading = end->inbox;
        end->inbox = empty;
        pge_buf_clear(&end->inbox);
        pge_buf_trim(&end->inbox, 4096);
    }
    if (pge_buf_len(&end->reading) == 0)
        return false;
    memcpy(&packet->n, pge_buf_head(&end->reading), sizeof packet->n);
    packet->p = pge_buf_head(&end->reading) + sizeof packet->n;
    /* The bytes stay where they are: only the next take, once all are read, may reuse them. */
    end->reading.start += sizeof packet->n + packet->n;
    return true;
}

/* An end holds the loop: its deferred work can then not fail. 0 or UV_ENOMEM. */
static int end_init(struct local_end *end, struct pge_loop *loop,
                    void (*on_turn)(struct pge_defer *)) {
    pge_defer_init(&end->turn, on_turn);
    return pge_loop_hold(loop);
}

static void end_deinit(struct local_end *end, struct pge_loop *loop) {
    pge_defer_cancel(&end->turn);
    pge_buf_deinit(&end->inbox);
    pge_buf_deinit(&end->reading);
    pge_loop_release(loop);
}

/* ---- client ---- */

static struct pge_loop *link_loop(const struct local_link *self) {
    return self->base.pool->engine->loop;
}

static void link_deliver(void *arg) {
    struct local_link *self = arg;
    struct pge_span packet;
    if (self->base.state == PGE_LINK_CONNECTING && self->peer)
        pge_link_ready(&self->base);
    while (self->base.state == PGE_LINK_READY && take(&self->end, &packet))
        pge_link_packet(&self->base, packet);
    if (self->peer || self->base.state == PGE_LINK_CLOSING)
        return;
    char text[160];
    const char *name = self->base.pool->options.name;
    snprintf(text, sizeof text, "connect ENOENT local:%s", name ? name : "");
    if (self->base.state == PGE_LINK_CONNECTING)
        pge_link_lost(&self->base, PGE_CONNECT_FAILED, text);
    else
        pge_link_lost(&self->base, PGE_CONNECTION_CLOSED, "Connection closed");
}

static void link_turn(struct pge_defer *defer) {
    struct local_link *self = container_of(defer, struct local_link, end.turn);
    if (self->end.is_over) {
        end_deinit(&self->end, link_loop(self));
        pge_link_closed(&self->base);
        return;
    }
    struct pge_engine *engine = self->base.pool->engine;
    engine->enter(engine, link_deliver, self);
}

static void peer_turn(struct pge_defer *defer);

static struct pge_server *find_server(struct pge_engine *engine, const char *name) {
    for (struct pge_list *n = engine->servers.next; n != &engine->servers; n = n->next) {
        struct pge_server *server = container_of(n, struct pge_server, node);
        if (server->options.transport == &pge_transport_local && server->is_serving &&
            strcmp(server->options.name, name) == 0)
            return server;
    }
    return NULL;
}

static int link_connect(struct pge_link *link) {
    struct local_link *self = link_of(link);
    struct pge_engine *engine = link->pool->engine;
    int status = end_init(&self->end, engine->loop, link_turn);
    if (status < 0)
        return status;
    pge_loop_defer(engine->loop, &self->end.turn, PGE_SOON);
    struct pge_server *server = find_server(engine, link->pool->options.name);
    struct pge_peer *peer = server && !server->is_full ? pge_peer_new(server) : NULL;
    if (peer) {
        self->peer = peer_of(peer);
        self->peer->link = self;
        end_init(&self->peer->end, engine->loop, peer_turn); /* open already: it cannot fail */
    }
    return 0;
}

static int link_send(struct pge_link *link, struct pge_call *call, const struct pge_message *m) {
    struct local_link *self = link_of(link);
    size_t len;
    if (!self->peer)
        return UV_EPIPE;
    int status = begin(&self->peer->end, &len);
    if (status == 0)
        status = pge_packet_request(&self->peer->end.inbox, m, pge_call_id(call));
    return finish(link_loop(self), &self->peer->end, len, status,
                  link->pool->options.max_queued_bytes);
}

static int link_emit(struct pge_link *link, struct pge_call *call, const struct pge_message *m) {
    struct local_link *self = link_of(link);
    size_t len;
    (void)call; /* nothing acknowledges it */
    if (!self->peer)
        return UV_EPIPE;
    int status = begin(&self->peer->end, &len);
    if (status == 0)
        status = pge_packet_event(&self->peer->end.inbox, m, (struct pge_span){0});
    return finish(link_loop(self), &self->peer->end, len, status,
                  link->pool->options.max_queued_bytes);
}

static void link_forget(struct pge_link *link, struct pge_call *call) {
    (void)link;
    (void)call;
}

static size_t link_queued(const struct pge_link *link) {
    const struct local_link *self = container_of(link, const struct local_link, base);
    return self->peer ? pge_buf_len(&self->peer->end.inbox) : 0;
}

static void link_close(struct pge_link *link) {
    struct local_link *self = link_of(link);
    self->end.is_over = true;
    if (self->peer) {
        self->peer->link = NULL;
        pge_loop_defer(link_loop(self), &self->peer->end.turn, PGE_SOON);
    }
    self->peer = NULL;
    pge_loop_defer(link_loop(self), &self->end.turn, PGE_SOON);
}

/* ---- server ---- */

static struct pge_loop *peer_loop(const struct local_peer *self) {
    return self->base.server->engine->loop;
}

static void peer_deliver(void *arg) {
    struct local_peer *self = arg;
    struct pge_span packet;
    while (!self->base.is_closing && !self->base.is_paused && take(&self->end, &packet))
        if (pge_peer_packet(&self->base, packet) < 0)
            pge_peer_lost(&self->base, PGE_OVERLOADED, "out of memory");
    if (!self->link && !self->base.is_closing)
        pge_peer_lost(&self->base, PGE_FAULT_NONE, "Connection closed");
}

static void peer_turn(struct pge_defer *defer) {
    struct local_peer *self = container_of(defer, struct local_peer, end.turn);
    if (self->end.is_over) {
        end_deinit(&self->end, peer_loop(self));
        pge_peer_closed(&self->base);
        return;
    }
    struct pge_engine *engine = self->base.server->engine;
    engine->enter(engine, peer_deliver, self);
}

static int serve(struct pge_server *server) {
    return find_server(server->engine, server->options.name) ? UV_EADDRINUSE : 0;
}

static void pause_server(struct pge_server *server, bool paused) {
    (void)server; /* link_connect looks at is_full */
    (void)paused;
}

static void unserve(struct pge_server *server) {
    pge_server_stopped(
        server); /* nothing to wait for; on_closed still comes at the end of the turn */
}

static void address(const struct pge_server *server, char *out, size_t size) {
    snprintf(out, size, "%s", server->options.name);
}

static int peer_reply(struct pge_peer *peer, const struct pge_request *request, enum pge_reply kind,
                      const struct pge_payload *body) {
    struct local_peer *self = peer_of(peer);
    size_t len;
    if (!self->link)
        return 0; /* its loss is on the way */
    int status = begin(&self->link->end, &len);
    if (status == 0)
        status = pge_packet_reply(&self->link->end.inbox, pge_request_id(request), kind, body);
    return finish(peer_loop(self), &self->link->end, len, status,
                  peer->server->options.max_queued_bytes);
}

static int peer_no_handler(struct pge_peer *peer, const struct pge_request *request) {
    struct local_peer *self = peer_of(peer);
    size_t len;
    if (!self->link)
        return 0;
    int status = begin(&self->link->end, &len);
    if (status == 0)
        status = pge_packet_no_handler(&self->link->end.inbox, pge_request_id(request));
    return finish(peer_loop(self), &self->link->end, len, status, SIZE_MAX);
}

static size_t peer_queued(const struct pge_peer *peer) {
    (void)peer;
    return 0; /* the link reads everything at the end of the turn */
}

static uint64_t peer_taken(const struct pge_peer *peer) {
    (void)peer;
    return 0;
}

static void peer_read(struct pge_peer *peer, bool wanted) {
    if (wanted)
        pge_loop_defer(peer_loop(peer_of(peer)), &peer_of(peer)->end.turn, PGE_SOON);
}

static void peer_probe(struct pge_peer *peer) {
    (void)peer; /* both ends know when the other is gone */
}

static void peer_name(const struct pge_peer *peer, char *out, size_t size) {
    snprintf(out, size, "local:%s", peer->server->options.name);
}

static void peer_close(struct pge_peer *peer, bool flush) {
    struct local_peer *self = peer_of(peer);
    (void)flush; /* what was sent is in the link's inbox already */
    if (self->end.is_over)
        return;
    self->end.is_over = true;
    if (self->link) {
        self->link->peer = NULL;
        pge_loop_defer(peer_loop(self), &self->link->end.turn, PGE_SOON);
    }
    self->link = NULL;
    pge_loop_defer(peer_loop(self), &self->end.turn, PGE_SOON);
}

const struct pge_transport pge_transport_local = {
    .name = "local",
    .link_size = sizeof(struct local_link),
    .link_connect = link_connect,
    .link_send = link_send,
    .link_emit = link_emit,
    .link_forget = link_forget,
    .link_queued = link_queued,
    .link_close = link_close,
    .serve = serve,
    .pause = pause_server,
    .unserve = unserve,
    .address = address,
    .peer_size = sizeof(struct local_peer),
    .peer_reply = peer_reply,
    .peer_no_handler = peer_no_handler,
    .peer_queued = peer_queued,
    .peer_taken = peer_taken,
    .peer_read = peer_read,
    .peer_probe = peer_probe,
    .peer_name = peer_name,
    .peer_close = peer_close,
};
