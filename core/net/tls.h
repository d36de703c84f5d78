/* tls.h - certificates and checks of one side of TLS. OpenSSL on memory BIOs, TLS 1.2 and later. */
#ifndef PGE_NET_TLS_H
#define PGE_NET_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/list.h"

struct pge_tls;
struct ssl_st; /* OpenSSL's SSL */

/* Texts are PEM, or the path of a PEM file (anything without "-----BEGIN"). NULL: not given. */
struct pge_tls_options {
    const char *ca; /* trusted roots; client: NULL means the system's. server: given means clients
                       must show a certificate that they signed */
    const char *cert, *key;  /* own chain and key; a server needs both, a client both or none */
    const char *server_name; /* client: name to verify and to send as SNI; NULL: the host dialled */
    const char *alpn;        /* comma-separated, e.g. "h2,http/1.1"; NULL: none */
    bool verify; /* client: check the peer's chain and name. server: ca decides instead */
};

/* NULL: why is filled with a text for people. Reference-counted, starting at 1. */
struct pge_tls *pge_tls_new(const struct pge_tls_options *options, bool is_server, char *why,
                            size_t why_size);
struct pge_tls *pge_tls_ref(struct pge_tls *tls);
void pge_tls_unref(struct pge_tls *tls); /* accepts NULL */
/* Seconds until its own certificate expires, negative afterwards; INT64_MAX without one. */
int64_t pge_tls_left_s(const struct pge_tls *tls);

/* For listener.c: closes a conn found by its node in listener->shaking. */
void pge_tls_abort(struct pge_list *node);

/*
 * For tls.c: a session of this side, to be freed with SSL_free. name: of the peer, for SNI and the
 * check, unless the options name another; NULL: only the chain is checked. NULL: out of memory.
 */
struct ssl_st *pge_tls_session(struct pge_tls *tls, const char *name);

#endif
