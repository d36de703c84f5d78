/*
 * transport.h - one way to carry packets. A transport says how to speak on one connection, as a
 * client (a link) and as a server (a peer); how many there are, who waits and for how long is the
 * engine's.
 *
 *   client: engine/client -> engine/pool -> ops->send(link)   ops reports by pge_link_*
 *   server: engine/server -> ops->reply(peer)                 ops reports by pge_peer_*
 *
 * Over a broker (struct pge_broker) the client keeps one link in all, whose hosts are failover
 * addresses; and the server dials too: it has one peer, the broker, whose connection comes and
 * goes (engine/broker.h), and subscribes what its handlers want.
 *
 * To add one: a file here with a const struct pge_transport (or one per role, as tcp has), its
 * extern line below, a line in list.c, an options table in lua/perigee/transports, a line in
 * spec/interop. Most can use packet.h for the JSON.
 */
#ifndef PGE_TRANSPORT_TRANSPORT_H
#define PGE_TRANSPORT_TRANSPORT_H

#include <stdbool.h>

#include "base/buffer.h"
#include "base/fault.h"
#include "base/list.h"
#include "base/settings.h"
#include "codec/envelope.h"

struct pge_call;
struct pge_host_options;
struct pge_link;
struct pge_peer;
struct pge_request;
struct pge_server;
struct pge_subscription;

/* JSON to put on a wire: bytes as they are, or a writer that appends them (a Lua value, say). */
struct pge_payload {
    struct pge_span json; /* validated; used when write is NULL */
    /* 0, or UV_EINVAL / UV_EILSEQ / UV_ENOMEM with nothing appended. arg is borrowed for the call.
     */
    int (*write)(void *arg, struct pge_buf *out);
    void *arg;
};

/* Appends it. Returns as write does. */
static inline int pge_payload_write(const struct pge_payload *payload, struct pge_buf *out) {
    if (payload->write)
        return payload->write(payload->arg, out);
    return pge_buf_append(out, payload->json.p, payload->json.n);
}

/* One outgoing message; everything is borrowed for the duration of the op. */
struct pge_message {
    struct pge_span pattern; /* JSON text */
    struct pge_payload data;
    struct pge_payload metadata; /* json.p NULL and write NULL: none */
    /* For transports that carry headers (others never see any): names and values that have passed
     * the transport's Lua table. */
    struct pge_headers headers;
    struct pge_headers options; /* of this message alone, by the name they have in Lua */
    /* A custom serialiser's: writes the whole packet instead of the three. id: n 0 for an event. It
     * may call into the client, so the engine runs it; a transport only sees what it wrote. */
    int (*write_packet)(void *arg, struct pge_span id, struct pge_buf *out);
    void *arg;
    struct pge_span packet; /* p NULL: none was written; pattern and headers stand beside it */
};

/* Where a message of a broker came from; all spans are lent with it. */
struct pge_origin {
    const struct pge_subscription *subscription; /* which delivered it: its handler runs */
    struct pge_span channel;                     /* the concrete subject, channel or topic */
    struct pge_span reply_to;                    /* where a reply goes; p NULL: nowhere */
    struct pge_headers headers;
    bool wants_verdict; /* an event that is owed peer_settle; reply_to says where */
    /* p not NULL: kept for that time in request->held, which such an event has no other use for. */
    struct pge_span body;
};

/* What becomes of an event that its broker wants a word about. */
enum pge_verdict {
    PGE_ACK,  /* handled */
    PGE_NACK, /* not handled: again, later */
};

static inline bool pge_payload_is_set(const struct pge_payload *payload) {
    return payload->write || payload->json.p;
}

/* link_emit's: a broker acknowledges it. */
enum { PGE_EMIT_ACKED = 1 };

/* What a transport over a broker does beside. */
struct pge_broker {
    /* Whether a handler's route (text) can be subscribed under these settings. 0, or UV_EINVAL and
     * why is filled. Asked before anything is subscribed. */
    int (*check_route)(const struct pge_settings *settings, const char *route, char *why,
                       size_t size);
    /* The call was sent on a link that broke, and its user wants to wait for the answer here. 0, or
     * < 0: that cannot be (it fails). From then on as after link_send. */
    int (*link_resume)(struct pge_link *link, struct pge_call *call);

    /* Starts connecting the peer. When the broker has taken all of server->subscriptions:
     * pge_peer_up; later, or instead, exactly one pge_peer_down, with the connection let go of. <
     * 0: could not start, nothing follows. */
    int (*peer_dial)(struct pge_peer *peer, const struct pge_host_options *at);
    /* Lets go of the connection, or of the dial, without a word: neither up nor down follows. */
    void (*peer_hangup)(struct pge_peer *peer);
    /* The list has changed, at any time: a connection that is being made may have asked for what
     * was in it, and pge_peer_up says that it has what is in it now. 0 or < 0: the connection is
     * then hung up and dialled anew. */
    int (*peer_subscribe)(struct pge_peer *peer, struct pge_subscription *subscription);
    /* Called before the subscription is freed. What was under way may still come: it is dropped. */
    void (*peer_unsubscribe)(struct pge_peer *peer, struct pge_subscription *subscription);
    /* The server drains: unsubscribes everything, then pge_peer_left (also from within) when
     * nothing more will come. Replies still go out. */
    void (*peer_leave)(struct pge_peer *peer);
    /* The word about an event that wants one. Errors are the connection's to tell. */
    void (*peer_settle)(struct pge_peer *peer, struct pge_request *request,
                        enum pge_verdict verdict);
};

struct pge_transport {
    const char *name;                /* "tcp" */
    const struct pge_broker *broker; /* NULL: peers talk to each other */

    /* ---- client role: a link, made connecting, then ready, then closed ---- */
    size_t link_size; /* sizeof its struct, whose first member is struct pge_link; zeroed */
    /* Starts connecting to link->host. Later exactly one pge_link_ready or pge_link_lost. < 0:
     * could not start, nothing follows but link_free. */
    int (*link_connect)(struct pge_link *link);
    /* Appends a request to the output. 0, or < 0 and nothing was appended (UV_EINVAL, UV_EILSEQ:
     * the payload; UV_EMSGSIZE: too large for the peer). link->why may then say more. */
    int (*link_send)(struct pge_link *link, struct pge_call *call, const struct pge_message *m);
    /* The same for an event. 0: handed to the wire. PGE_EMIT_ACKED: with call NULL nothing was
     * appended, it is to be given a call; with a call, that now waits for pge_link_reply (END) or
     * pge_call_fail. */
    int (*link_emit)(struct pge_link *link, struct pge_call *call, const struct pge_message *m);
    /* A call that link_send or link_emit put on this ready link is over, however it ended. */
    void (*link_forget)(struct pge_link *link, struct pge_call *call);
    size_t (*link_queued)(const struct pge_link *link); /* bytes not yet handed to the kernel */
    /* Ends it, whatever its state; then pge_link_closed, last and not before this returns. */
    void (*link_close)(struct pge_link *link);

    /* ---- server role ---- */
    /* Starts serving server->options; peers come by pge_peer_new. 0 or < 0. Brokers have
     * engine/broker.h's functions in these four. */
    int (*serve)(struct pge_server *server);
    void (*pause)(struct pge_server *server, bool paused); /* no new peers while paused */
    /* Stops taking new peers; then pge_server_stopped, not before this returns. */
    void (*unserve)(struct pge_server *server);
    void (*address)(const struct pge_server *server, char *out, size_t size);
    size_t peer_size; /* sizeof its struct, whose first member is struct pge_peer; zeroed */
    /* Appends a packet for pge_request_id (JSON text as received) and, on brokers, to
     * pge_request_reply_to. body p NULL and write NULL: no `response`. Errors as link_send. A
     * broker that is down: the transport keeps it, within bounds, or drops it, and returns 0. */
    int (*peer_reply)(struct pge_peer *peer, const struct pge_request *request, enum pge_reply kind,
                      const struct pge_payload *body);
    int (*peer_no_handler)(struct pge_peer *peer, const struct pge_request *request);
    size_t (*peer_queued)(const struct pge_peer *peer);
    uint64_t (*peer_taken)(const struct pge_peer *peer);   /* grows while the peer reads */
    void (*peer_read)(struct pge_peer *peer, bool wanted); /* backpressure */
    /* Writes what a half-closed peer ignores, so that one that is gone shows itself by
     * pge_peer_lost. */
    void (*peer_probe)(struct pge_peer *peer);
    void (*peer_name)(const struct pge_peer *peer, char *out, size_t size);
    /* Ends it, after what is queued is written if flush. Then pge_peer_closed. */
    void (*peer_close)(struct pge_peer *peer, bool flush);
};

/* By name, e.g. "tcp"; NULL: none such. */
const struct pge_transport *pge_transport_find(const char *name);

extern const struct pge_transport pge_transport_tcp, pge_transport_local, pge_transport_nats,
    pge_transport_redis;

#endif
