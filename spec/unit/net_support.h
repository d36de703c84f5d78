/*
 * net_support.h - for unit tests of core/net: a loop that must be empty at the end, conns that note
 * what they are told, certificates made on the spot.
 */
#ifndef SPEC_UNIT_NET_SUPPORT_H
#define SPEC_UNIT_NET_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include <uv.h>

#include <cmocka.h>

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "fail_alloc.h"
#include "net/stream.h"
#include "net/tls.h"

/* ---- the loop ---- */

struct rig {
    uv_loop_t uv;
    struct pge_loop loop;
    struct fail_alloc alloc;
    uint64_t now_ms; /* of the virtual clock */
};

static inline struct rig *rig_new(void) {
    struct rig *rig = calloc(1, sizeof *rig);
    assert_non_null(rig);
    fail_alloc_start(&rig->alloc, (size_t)-1);
    assert_int_equal(uv_loop_init(&rig->uv), 0);
    assert_int_equal(pge_loop_init(&rig->loop, &rig->uv, NULL, NULL), 0);
    return rig;
}

static inline void rig_count_handle(uv_handle_t *handle, void *count) {
    (void)handle;
    ++*(int *)count;
}

/* Runs until nothing is left; callbacks stop it. */
static inline void rig_finish(struct rig *rig) {
    while (uv_run(&rig->uv, UV_RUN_DEFAULT))
        continue;
}

/* Everything opened must be closed by now, or close by itself. */
static inline void rig_free(struct rig *rig) {
    int handles = 0;
    rig_finish(rig);
    assert_int_equal(uv_loop_alive(&rig->uv), 0);
    uv_walk(&rig->uv, rig_count_handle, &handles);
    assert_int_equal(handles, 0);
    assert_int_equal(rig->loop.live, 0);
    assert_null(rig->loop.handles);
    pge_loop_deinit(&rig->loop);
    assert_int_equal(uv_loop_close(&rig->uv), 0);
    assert_int_equal(rig->alloc.held, 0);
    fail_alloc_stop();
    free(rig);
}

/* Runs the loop until the condition, which callbacks with uv_stop bring about, holds. A test that
 * hangs is ended by the alarm in main. */
#define rig_until(rig, condition)                                                                  \
    do {                                                                                           \
        while (!(condition))                                                                       \
            assert_true(uv_run(&(rig)->uv, UV_RUN_ONCE) || (condition));                           \
    } while (0)

static inline uint64_t rig_virtual_now(void *arg) {
    return ((struct rig *)arg)->now_ms;
}

static inline void rig_stop_clock(struct rig *rig) {
    rig->now_ms = pge_loop_now(&rig->loop);
    pge_loop_set_clock(&rig->loop, (struct pge_clock){.now_ms = rig_virtual_now, .arg = rig});
}

static inline void rig_pass(struct rig *rig, uint64_t ms) {
    rig->now_ms += ms;
    pge_loop_advance(&rig->loop);
}

/* ---- conns that take notes ---- */

enum side_place { AT_NONE, AT_OPEN, AT_DATA, AT_DRAIN, AT_ACCEPT };

struct side {
    struct pge_conn *conn;    /* NULL before it is made and once it is closed */
    enum side_place close_at; /* closes the conn, twice, in this callback */
    bool is_reader;           /* reads as soon as it is open */
    bool is_echo;             /* writes back what it reads */
    bool is_closed_by_us, in_op;
    int opens, open_status, drains, drain_status, closes, end;
    size_t reads;
    uint64_t got;     /* bytes */
    char text[256];   /* the first of them */
    bool is_pattern;  /* each byte is checked against pattern_at */
    bool is_stepping; /* stops reading in each on_data */
    char why[256];    /* conn->why at on_open or at the end */
    const char *last; /* where on_data found the last bytes; gone when it returned */
};

static inline char pattern_at(uint64_t i) {
    return (char)((i * 2654435761u) >> 13);
}

static inline void side_close(struct side *side) {
    side->is_closed_by_us = true;
    pge_conn_close(side->conn);
    pge_conn_close(side->conn);
}

/* What every callback must find: its conn alive, its owner not inside an op. */
static inline struct side *side_of(struct pge_conn *conn) {
    struct side *side = conn->owner;
    assert_ptr_equal(side->conn, conn);
    assert_int_equal(side->closes, 0);
    assert_false(side->in_op);
    uv_stop(conn->loop->uv); /* told before the poll: rig_until must not sleep on it */
    return side;
}

static inline void side_keep_why(struct side *side, const struct pge_conn *conn) {
    snprintf(side->why, sizeof side->why, "%s", conn->why ? conn->why : "");
}

static inline void side_on_open(struct pge_conn *conn, int status) {
    struct side *side = side_of(conn);
    assert_false(side->is_closed_by_us);
    side->opens++;
    side->open_status = status;
    side_keep_why(side, conn);
    if (side->close_at == AT_OPEN) {
        side_close(side);
    } else if (status == 0 && side->is_reader) {
        side->in_op = true;
        assert_int_equal(pge_conn_read_start(conn), 0);
        assert_int_equal(pge_conn_read_start(conn), 0);
        side->in_op = false;
    }
}

static inline void side_on_data(struct pge_conn *conn, const char *data, ssize_t n) {
    struct side *side = side_of(conn);
    assert_false(side->is_closed_by_us);
    assert_int_equal(side->end, 0);
    assert_int_not_equal(n, 0);
    side->reads++;
    side->last = data;
    if (n < 0) {
        side->end = (int)n;
        side_keep_why(side, conn);
    }
    for (ssize_t i = 0; i < n; i++, side->got++) {
        if (side->got < sizeof side->text - 1)
            side->text[side->got] = data[i];
        if (side->is_pattern && data[i] != pattern_at(side->got))
            fail_msg("byte %llu is not what was sent", (unsigned long long)side->got);
    }
    if (side->is_echo && n > 0)
        assert_int_equal(pge_conn_write(conn, data, (size_t)n), 0);
    if (side->is_stepping)
        pge_conn_read_stop(conn);
    if (side->close_at == AT_DATA)
        side_close(side);
}

static inline void side_on_drain(struct pge_conn *conn, int status) {
    struct side *side = side_of(conn);
    assert_false(side->is_closed_by_us);
    side->drains++;
    side->drain_status = status;
    if (side->close_at == AT_DRAIN)
        side_close(side);
}

static inline void side_on_close(struct pge_conn *conn) {
    struct side *side = side_of(conn);
    side->closes++;
    side->conn = NULL;
}

static const struct pge_conn_events side_events = {side_on_open, side_on_data, side_on_drain,
                                                   side_on_close};

/* ---- a listener that hands its conns to sides ---- */

struct host {
    struct pge_listener *listener; /* NULL once closed */
    struct side *sides;            /* taken in turn */
    int room, accepts, closes;
    bool closes_listener; /* in on_accept */
};

static inline void host_on_accept(struct pge_listener *listener, struct pge_conn *conn) {
    struct host *host = listener->owner;
    uv_stop(listener->loop->uv);
    assert_true(host->accepts < host->room);
    assert_true(conn->is_open);
    struct side *side = &host->sides[host->accepts++];
    side->conn = conn;
    conn->owner = side;
    conn->events = &side_events;
    if (side->close_at == AT_ACCEPT) {
        side_close(side);
    } else if (side->is_reader) {
        side->in_op = true;
        assert_int_equal(pge_conn_read_start(conn), 0);
        side->in_op = false;
    }
    if (host->closes_listener)
        pge_listener_close(listener);
}

static inline void host_on_close(struct pge_listener *listener) {
    struct host *host = listener->owner;
    uv_stop(listener->loop->uv);
    host->closes++;
    host->listener = NULL;
}

static const struct pge_listener_events host_events = {host_on_accept, host_on_close};

/* Where a listener can be dialled. */
static inline struct pge_endpoint host_endpoint(const struct pge_listener *listener) {
    struct pge_endpoint to = {.stream = listener->stream};
    socklen_t size = sizeof to.addr;
    assert_int_equal(getsockname(listener->fd, &to.addr.sa, &size), 0);
    return to;
}

static inline struct pge_endpoint tcp_endpoint(void) {
    struct pge_endpoint at = {.stream = &pge_stream_tcp};
    struct sockaddr_in in;
    uv_ip4_addr("127.0.0.1", 0, &in);
    memcpy(&at.addr, &in, sizeof in);
    return at;
}

static inline struct pge_endpoint pipe_endpoint(const char *name) {
    struct pge_endpoint at = {.stream = &pge_stream_pipe};
    at.addr.un.sun_family = AF_UNIX;
    snprintf(at.addr.un.sun_path, sizeof at.addr.un.sun_path, "/tmp/pge-%s-%ld.sock", name,
             (long)getpid());
    return at;
}

/* ---- descriptors ---- */

/* Leaves no descriptor below the limit, which it sets low first. */
static inline int use_up_descriptors(struct rlimit *old) {
    struct rlimit low;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, old), 0);
    int last = dup(0), next;
    low = *old;
    low.rlim_cur = (rlim_t)last + 1;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    while ((next = dup(0)) >= 0) /* holes below */
        assert_true(next < last);
    return last;
}

/* ---- certificates ---- */

struct cert {
    X509 *x509;
    EVP_PKEY *key;
    char cert_pem[4096], key_pem[1024];
};

static inline void cert_extend(X509 *x509, int nid, const char *value) {
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, NULL, nid, value);
    assert_non_null(extension);
    assert_int_equal(X509_add_ext(x509, extension, -1), 1);
    X509_EXTENSION_free(extension);
}

static inline void cert_text(struct cert *cert) {
    BIO *bio = BIO_new(BIO_s_mem());
    PEM_write_bio_X509(bio, cert->x509);
    int n = BIO_read(bio, cert->cert_pem, sizeof cert->cert_pem - 1);
    cert->cert_pem[n] = '\0';
    PEM_write_bio_PrivateKey(bio, cert->key, NULL, NULL, 0, NULL, NULL);
    n = BIO_read(bio, cert->key_pem, sizeof cert->key_pem - 1);
    cert->key_pem[n] = '\0';
    BIO_free(bio);
}

/* issuer NULL: a root. san: "DNS:localhost,IP:127.0.0.1" or NULL. The validity ends days from now.
 */
static inline struct cert *cert_new(const char *name, const char *san, const struct cert *issuer,
                                    int days) {
    static long serial;
    struct cert *cert = calloc(1, sizeof *cert);
    assert_non_null(cert);
    cert->key = EVP_EC_gen("P-256");
    cert->x509 = X509_new();
    X509_set_version(cert->x509, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(cert->x509), ++serial);
    X509_gmtime_adj(X509_getm_notBefore(cert->x509), -30L * 86400);
    X509_gmtime_adj(X509_getm_notAfter(cert->x509), days * 86400L);
    X509_set_pubkey(cert->x509, cert->key);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(cert->x509), "CN", MBSTRING_ASC,
                               (const unsigned char *)name, -1, -1, 0);
    X509_set_issuer_name(cert->x509, X509_get_subject_name(issuer ? issuer->x509 : cert->x509));
    if (!issuer)
        cert_extend(cert->x509, NID_basic_constraints, "critical,CA:TRUE");
    if (san)
        cert_extend(cert->x509, NID_subject_alt_name, san);
    assert_true(X509_sign(cert->x509, issuer ? issuer->key : cert->key, EVP_sha256()) > 0);
    cert_text(cert);
    return cert;
}

static inline void cert_free(struct cert *cert) {
    X509_free(cert->x509);
    EVP_PKEY_free(cert->key);
    free(cert);
}

static inline struct pge_tls *tls_side(const struct pge_tls_options *options, bool is_server) {
    char why[256];
    struct pge_tls *tls = pge_tls_new(options, is_server, why, sizeof why);
    if (!tls)
        fail_msg("%s", why);
    return tls;
}

#endif
