/*
 * transport.h - one way to carry packets. A transport says how to speak on one connection, as a
 * client (a link) and as a server (a peer); how many there are, who waits and for how long is the
 * engine's.
 *
 *   client: engine/client -> engine/pool -> ops->send(link)   ops reports by pge_link_*
 *   server: engine/server -> ops->reply(peer)                 ops reports by pge_peer_*
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
#include "codec/envelope.h"

struct pge_call;
struct pge_link;
struct pge_peer;
struct pge_server;
struct pge_endpoint;

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
    /* A custom serialiser's: writes the whole packet instead of the three. id: n 0 for an event. It
     * may call into the client, so the engine runs it; a transport only sees what it wrote. */
    int (*write_packet)(void *arg, struct pge_span id, struct pge_buf *out);
    void *arg;
    struct pge_span packet; /* p NULL: none was written */
};

static inline bool pge_payload_is_set(const struct pge_payload *payload) {
    return payload->write || payload->json.p;
}

struct pge_transport {
    const char *name; /* "tcp" */

    /* ---- client role: a link, made connecting, then ready, then closed ---- */
    size_t link_size; /* sizeof its struct, whose first member is struct pge_link; zeroed */
    /* Starts connecting to link->host. Later exactly one pge_link_ready or pge_link_lost. < 0:
     * could not start, nothing follows but link_free. */
    int (*link_connect)(struct pge_link *link);
    /* Appends a request to the output. 0, or < 0 and nothing was appended (UV_EINVAL, UV_EILSEQ:
     * the payload; UV_EMSGSIZE: too large for the peer). */
    int (*link_send)(struct pge_link *link, struct pge_call *call, const struct pge_message *m);
    int (*link_emit)(struct pge_link *link, const struct pge_message *m);
    /* Nobody waits for this call any more. It may be the whole of what is to be done. */
    void (*link_cancel)(struct pge_link *link, struct pge_call *call);
    size_t (*link_queued)(const struct pge_link *link); /* bytes not yet handed to the kernel */
    /* Ends it, whatever its state; then pge_link_closed, last and not before this returns. */
    void (*link_close)(struct pge_link *link);

    /* ---- server role ---- */
    /* Starts serving server->options; peers come by pge_peer_new. 0 or < 0. */
    int (*serve)(struct pge_server *server);
    void (*pause)(struct pge_server *server, bool paused); /* no new peers while paused */
    /* Stops taking new peers; then pge_server_stopped, not before this returns. */
    void (*unserve)(struct pge_server *server);
    void (*address)(const struct pge_server *server, char *out, size_t size);
    size_t peer_size; /* sizeof its struct, whose first member is struct pge_peer; zeroed */
    /* Appends a packet. id: JSON text as received. body p NULL and write NULL: no `response`.
     * Errors as link_send. */
    int (*peer_reply)(struct pge_peer *peer, struct pge_span id, enum pge_reply kind,
                      const struct pge_payload *body);
    int (*peer_no_handler)(struct pge_peer *peer, struct pge_span id);
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

extern const struct pge_transport pge_transport_tcp, pge_transport_local;

#endif
