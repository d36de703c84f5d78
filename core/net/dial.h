/*
 * dial.h - from a name to an open connection: look up (never blocking the loop), try each address
 * in turn, all within one time limit.
 */
#ifndef PGE_NET_DIAL_H
#define PGE_NET_DIAL_H

#include "net/stream.h"

struct pge_dial; /* freed after on_done, or some time after pge_dial_cancel */

struct pge_target {
    const char *host; /* name or numeric address; NULL with path */
    uint16_t port;
    const char *path;        /* unix socket; NULL with host */
    struct pge_tls *tls;     /* borrowed until on_done; NULL: plain */
    const char *server_name; /* NULL: host */
};

/*
 * The one outcome. conn: open, not reading; the callee sets its events and owner and now owns it.
 * conn NULL: status says why, and why in words as Node would ("connect ECONNREFUSED
 * 127.0.0.1:3001", "getaddrinfo ENOTFOUND nowhere", "connect ETIMEDOUT ..."; TLS: OpenSSL's
 * reason).
 */
typedef void (*pge_dial_cb)(void *arg, struct pge_conn *conn, int status, const char *why);

/*
 * Texts of target are copied. on_done comes in a later turn of the loop. NULL: *status says why.
 * Each address gets its share of the time left, so that a silent first one does not hide a good
 * second.
 */
struct pge_dial *pge_dial_start(struct pge_loop *loop, const struct pge_target *target,
                                uint64_t timeout_ms, pge_dial_cb on_done, void *arg, int *status);
/* No on_done follows. Harmless inside on_done, not after it. */
void pge_dial_cancel(struct pge_dial *dial);

/*
 * For listening: fills at from a numeric address, a name (first address it resolves to, blocking:
 * start-up only) or a path, for the plain stream; under TLS the caller then sets at->stream and
 * at->tls. 0, UV_EAI_*, UV_ENAMETOOLONG.
 */
int pge_endpoint_resolve(const char *host, uint16_t port, const char *path,
                         struct pge_endpoint *at);

#endif
