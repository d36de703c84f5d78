/* tls_context.c - certificates and keys into OpenSSL contexts; sessions that check names. */
#include "net/tls.h"

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/openssl.h"

struct pge_tls {
    SSL_CTX *ctx;      /* owned */
    char *server_name; /* owned; NULL: the host dialled */
    bool is_server;
    unsigned refs;
    unsigned alpn_size;
    unsigned char alpn[256]; /* as on the wire: length, name, length, name */
};

/* Where texts for people go. */
struct why {
    char *text;
    size_t size;
};

/* The first error is the cause, the later ones what came of it. pem: named when it is a file; may
 * be NULL. */
static int complain(const struct why *why, const char *what, const char *pem) {
    unsigned long code = ERR_get_error();
    const char *reason = ERR_GET_LIB(code) == ERR_LIB_SYS ? strerror(ERR_GET_REASON(code))
                                                          : ERR_reason_error_string(code);
    bool is_file = pem && !strstr(pem, "-----BEGIN");
    snprintf(why->text, why->size, "tls: %s%s%s: %s", what, is_file ? " " : "", is_file ? pem : "",
             reason ? reason : "not usable");
    ERR_clear_error();
    return -1;
}

/* PEM text as given, or the file it names. */
static BIO *open_pem(const char *pem) {
    return strstr(pem, "-----BEGIN") ? BIO_new_mem_buf(pem, -1) : BIO_new_file(pem, "r");
}

/* A key under a passphrase is refused: OpenSSL would ask the terminal. */
static int no_passphrase(char *buf, int size, int rwflag, void *arg) {
    (void)buf, (void)size, (void)rwflag, (void)arg;
    return 0;
}

/* Calls use with each certificate of pem; 0, or -1 when there is none or one is bad. */
static int each_cert(SSL_CTX *ctx, const char *pem, int (*use)(SSL_CTX *, X509 *, int nth)) {
    BIO *bio = open_pem(pem);
    if (!bio)
        return -1;
    int nth = 0, ok = 1;
    X509 *cert;
    while (ok == 1 && (cert = PEM_read_bio_X509(bio, NULL, no_passphrase, NULL))) {
        ok = use(ctx, cert, nth++);
        X509_free(cert);
    }
    BIO_free(bio);
    if (ok != 1 || ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE || nth == 0)
        return -1;
    ERR_clear_error(); /* "no start line" is the end of the file */
    return 0;
}

static int use_root(SSL_CTX *ctx, X509 *cert, int nth) {
    (void)nth;
    return X509_STORE_add_cert(SSL_CTX_get_cert_store(ctx), cert) == 1 &&
           SSL_CTX_add_client_CA(ctx, cert) == 1;
}

static int use_own(SSL_CTX *ctx, X509 *cert, int nth) {
    return nth == 0 ? SSL_CTX_use_certificate(ctx, cert) : SSL_CTX_add1_chain_cert(ctx, cert) == 1;
}

static int use_key(SSL_CTX *ctx, const char *pem) {
    BIO *bio = open_pem(pem);
    if (!bio)
        return -1;
    EVP_PKEY *key = PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL);
    int ok = key ? SSL_CTX_use_PrivateKey(ctx, key) : 0;
    EVP_PKEY_free(key);
    BIO_free(bio);
    return ok == 1 ? 0 : -1;
}

static int load(struct pge_tls *tls, const struct pge_tls_options *o, const struct why *why) {
    if (o->ca && each_cert(tls->ctx, o->ca, use_root) < 0)
        return complain(why, "ca", o->ca);
    if (!o->ca && !tls->is_server && o->verify && SSL_CTX_set_default_verify_paths(tls->ctx) != 1)
        return complain(why, "the system's certificates", NULL);
    if (!o->cert != !o->key || (tls->is_server && !o->cert)) {
        snprintf(why->text, why->size, "tls: cert and key belong together%s",
                 tls->is_server ? ", and a server needs them" : "");
        return -1;
    }
    if (o->cert && each_cert(tls->ctx, o->cert, use_own) < 0)
        return complain(why, "cert", o->cert);
    if (o->key && use_key(tls->ctx, o->key) < 0)
        return complain(why, "key", o->key);
    if (o->key && SSL_CTX_check_private_key(tls->ctx) != 1)
        return complain(why, "key", o->key);
    return 0;
}

/* Nothing in common ends the handshake (RFC 7301 3.2). */
static int on_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_size,
                   const unsigned char *in, unsigned in_size, void *arg) {
    const struct pge_tls *tls = arg;
    (void)ssl;
    unsigned char *chosen;
    if (SSL_select_next_proto(&chosen, out_size, tls->alpn, tls->alpn_size, in, in_size) !=
        OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

static int set_alpn(struct pge_tls *tls, const char *names, const struct why *why) {
    for (const char *p = names; *p;) {
        size_t n = strcspn(p, ",");
        if (n == 0 || n > 255 || tls->alpn_size + 1 + n > sizeof tls->alpn) {
            snprintf(why->text, why->size, "tls: alpn: \"%s\" is not a list of names", names);
            return -1;
        }
        tls->alpn[tls->alpn_size] = (unsigned char)n;
        memcpy(&tls->alpn[tls->alpn_size + 1], p, n);
        tls->alpn_size += 1 + (unsigned)n;
        p += n + (p[n] == ',');
    }
    if (tls->is_server)
        SSL_CTX_set_alpn_select_cb(tls->ctx, on_alpn, tls);
    else if (SSL_CTX_set_alpn_protos(tls->ctx, tls->alpn, tls->alpn_size) != 0)
        return complain(why, "alpn", NULL);
    return 0;
}

static void set_policy(struct pge_tls *tls, const struct pge_tls_options *o) {
    SSL_CTX_set_min_proto_version(tls->ctx, TLS1_2_VERSION);
    SSL_CTX_set_options(tls->ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
    SSL_CTX_set_mode(tls->ctx, SSL_MODE_RELEASE_BUFFERS); /* 32 kB less per idle connection */
    int verify = SSL_VERIFY_NONE;
    if (tls->is_server && o->ca)
        verify = SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
    else if (!tls->is_server && o->verify)
        verify = SSL_VERIFY_PEER;
    SSL_CTX_set_verify(tls->ctx, verify, NULL);
    if (tls->is_server) /* without it OpenSSL fails to resume sessions with client certificates */
        SSL_CTX_set_session_id_context(tls->ctx, (const unsigned char *)"perigee", 7);
}

struct pge_tls *pge_tls_new(const struct pge_tls_options *options, bool is_server, char *why_text,
                            size_t why_size) {
    struct why why = {why_text, why_size};
    const char *why_not;
    if (pge_openssl_load(&why_not) < 0) {
        snprintf(why_text, why_size, "tls: OpenSSL cannot be loaded: %s", why_not);
        return NULL;
    }
    ERR_clear_error();
    snprintf(why_text, why_size, "tls: out of memory");
    struct pge_tls *tls = pge_calloc(1, sizeof *tls);
    if (!tls)
        return NULL;
    tls->refs = 1;
    tls->is_server = is_server;
    if (options->server_name) {
        tls->server_name = pge_strndup(options->server_name, strlen(options->server_name));
        if (!tls->server_name)
            goto fail;
    }
    tls->ctx = SSL_CTX_new(is_server ? TLS_server_method() : TLS_client_method());
    if (!tls->ctx)
        goto fail;
    set_policy(tls, options);
    if (load(tls, options, &why) < 0)
        goto fail;
    if (options->alpn && set_alpn(tls, options->alpn, &why) < 0)
        goto fail;
    if (why_size)
        why_text[0] = '\0';
    return tls;
fail:
    pge_tls_unref(tls);
    return NULL;
}

struct pge_tls *pge_tls_ref(struct pge_tls *tls) {
    tls->refs++;
    return tls;
}

void pge_tls_unref(struct pge_tls *tls) {
    if (!tls || --tls->refs)
        return;
    SSL_CTX_free(tls->ctx);
    pge_free(tls->server_name);
    pge_free(tls);
}

int64_t pge_tls_left_s(const struct pge_tls *tls) {
    const X509 *own = SSL_CTX_get0_certificate(tls->ctx);
    int days, seconds;
    if (!own || ASN1_TIME_diff(&days, &seconds, NULL, X509_get0_notAfter(own)) != 1)
        return INT64_MAX;
    return (int64_t)days * 86400 + seconds;
}

/* A certificate names hosts and addresses in different fields; SNI is for hosts only. */
static int expect_name(SSL *ssl, const char *name) {
    if (X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), name) == 1)
        return 1;
    ERR_clear_error(); /* not an address */
    SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    return SSL_set1_host(ssl, name) == 1 && SSL_set_tlsext_host_name(ssl, name) == 1;
}

SSL *pge_tls_session(struct pge_tls *tls, const char *name) {
    SSL *ssl = SSL_new(tls->ctx);
    BIO *in = BIO_new(BIO_s_mem()), *out = BIO_new(BIO_s_mem());
    if (tls->server_name)
        name = tls->server_name;
    if (!ssl || !in || !out || (!tls->is_server && name && !expect_name(ssl, name)))
        goto fail;
    SSL_set_bio(ssl, in, out);
    if (tls->is_server)
        SSL_set_accept_state(ssl);
    else
        SSL_set_connect_state(ssl);
    return ssl;
fail:
    ERR_clear_error();
    BIO_free(in);
    BIO_free(out);
    SSL_free(ssl);
    return NULL;
}
