/*
 * tcp.h - what the files of the TCP transport share: tcp_link.c, the client's end, and tcp_peer.c,
 * the server's. The contract of the ops is transport.h's.
 */
#ifndef PGE_TRANSPORT_TCP_H
#define PGE_TRANSPORT_TCP_H

#include "codec/nest_frame.h"
#include "engine/pool.h"
#include "engine/server.h"
#include "net/dial.h"
#include "net/stream.h"

struct pge_tcp_link {
    struct pge_link base;  /* first */
    struct pge_dial *dial; /* while connecting */
    struct pge_conn *conn;
    struct pge_nest_frame frame;
    struct pge_timer timer; /* silence inside a frame; after close: the wait for the last write */
    struct pge_defer gone;  /* pge_link_closed, when there never was a conn */
};

struct pge_tcp_peer {
    struct pge_peer base; /* first */
    struct pge_conn *conn;
    struct pge_nest_frame frame;
    struct pge_timer timer; /* silence inside a frame */
};

/* One read, on its way through engine->enter. */
struct pge_tcp_input {
    void *owner;
    const char *data;
    size_t n;
};

/* Ends a frame begun at len bytes of conn->out, or takes it back when status, or its size, says so.
 */
int pge_tcp_finish_frame(struct pge_conn *conn, size_t len, size_t mark, int status,
                         size_t max_bytes);
/* A large packet whose data lies in the loop's loan: its memory goes out as it is, behind the head
 * of the packet. packet: `written` bytes at the end of conn->out that lack the data, of which the
 * last `tail` belong behind it. Else as pge_tcp_finish_frame. */
int pge_tcp_give_frame(struct pge_conn *conn, size_t len, size_t mark, struct pge_span data,
                       size_t tail, size_t max_bytes);
/* After all that came was read: the rest of a frame goes where the codec keeps it. */
void pge_tcp_aim(struct pge_conn *conn, struct pge_nest_frame *frame);
/* Restarts the clock of silence when a read left part of a frame, as Nest does. */
void pge_tcp_watch_partial(struct pge_loop *loop, const struct pge_nest_frame *frame,
                           struct pge_timer *timer, uint64_t limit_ms);
/* Nest's words for a frame that stopped coming. */
void pge_tcp_explain_silence(const struct pge_nest_frame *frame, uint64_t limit_ms, char *out,
                             size_t size);

int pge_tcp_link_connect(struct pge_link *link);
int pge_tcp_link_send(struct pge_link *link, struct pge_call *call, const struct pge_message *m);
int pge_tcp_link_emit(struct pge_link *link, struct pge_call *call, const struct pge_message *m);
void pge_tcp_link_forget(struct pge_link *link, struct pge_call *call);
size_t pge_tcp_link_queued(const struct pge_link *link);
void pge_tcp_link_close(struct pge_link *link);

int pge_tcp_serve(struct pge_server *server);
void pge_tcp_pause_listener(struct pge_server *server, bool paused);
void pge_tcp_unserve(struct pge_server *server);
void pge_tcp_address(const struct pge_server *server, char *out, size_t size);
int pge_tcp_peer_reply(struct pge_peer *peer, const struct pge_request *request,
                       enum pge_reply kind, const struct pge_payload *body);
int pge_tcp_peer_no_handler(struct pge_peer *peer, const struct pge_request *request);
size_t pge_tcp_peer_queued(const struct pge_peer *peer);
uint64_t pge_tcp_peer_taken(const struct pge_peer *peer);
void pge_tcp_peer_read(struct pge_peer *peer, bool wanted);
void pge_tcp_peer_probe(struct pge_peer *peer);
void pge_tcp_peer_name(const struct pge_peer *peer, char *out, size_t size);
void pge_tcp_peer_close(struct pge_peer *peer, bool flush);

#endif
