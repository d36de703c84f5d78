/*
 * stream_support.h - runs tests of core/net/stream.h's contract against every stream: tcp, pipe,
 * tls over tcp, tls over pipe.
 */
#ifndef SPEC_UNIT_STREAM_SUPPORT_H
#define SPEC_UNIT_STREAM_SUPPORT_H

#include <signal.h>
#include <sys/socket.h>

#include "net_support.h"

enum { BIG = 6 * 1024 * 1024 };

struct variant {
    const char *name;
    bool is_tls, is_unix;
};

/* One listener, one client and the conn the listener got from it. */
struct pair {
    const struct variant *variant;
    struct rig *rig;
    struct host host;
    struct side client, server;
    struct pge_tls *tls_client, *tls_server;
};

static struct cert *root, *leaf; /* made by stream_run */

static inline struct pge_endpoint endpoint(const struct variant *variant) {
    struct pge_endpoint at = variant->is_unix ? pipe_endpoint("stream") : tcp_endpoint();
    if (variant->is_tls)
        at.stream = &pge_stream_tls;
    return at;
}

static inline int set_up(void **state) {
    struct pair *p = calloc(1, sizeof *p);
    p->variant = *state;
    p->rig = rig_new();
    if (p->variant->is_tls) {
        p->tls_server =
            tls_side(&(struct pge_tls_options){.cert = leaf->cert_pem, .key = leaf->key_pem}, true);
        p->tls_client = tls_side(&(struct pge_tls_options){.ca = root->cert_pem,
                                                           .server_name = "localhost",
                                                           .verify = true},
                                 false);
    }
    p->client.is_reader = p->server.is_reader = true;
    *state = p;
    return 0;
}

static inline int listen_on(struct pair *p) {
    int status;
    struct pge_endpoint at = endpoint(p->variant);
    at.tls = p->tls_server;
    p->host = (struct host){.sides = &p->server, .room = 1};
    p->host.listener = pge_listener_open(&p->rig->loop, &at, 16, &host_events, &p->host, &status);
    return status;
}

static inline int dial(struct pair *p) {
    int status;
    struct pge_endpoint to = host_endpoint(p->host.listener);
    to.tls = p->tls_client;
    p->client.in_op = true;
    p->client.conn = pge_conn_connect(&p->rig->loop, &to, &side_events, &p->client, &status);
    p->client.in_op = false;
    return status;
}

static inline void open_pair(struct pair *p) {
    assert_int_equal(listen_on(p), 0);
    assert_int_equal(dial(p), 0);
    rig_until(p->rig, (p->client.opens || p->client.closes) && p->host.accepts);
}

/* Closes what is open; each conn must have been told of its end once. */
static inline void end_pair(struct pair *p) {
    if (p->client.conn)
        side_close(&p->client);
    if (p->server.conn)
        side_close(&p->server);
    if (p->host.listener)
        pge_listener_close(p->host.listener);
    rig_finish(p->rig);
    assert_null(p->client.conn);
    assert_null(p->server.conn);
    assert_null(p->host.listener);
}

static inline int tear_down(void **state) {
    struct pair *p = *state;
    end_pair(p);
    pge_tls_unref(p->tls_client);
    pge_tls_unref(p->tls_server);
    rig_free(p->rig);
    free(p);
    return 0;
}

static inline void write_text(struct side *side, const char *text) {
    side->in_op = true;
    assert_int_equal(pge_conn_write(side->conn, text, strlen(text)), 0);
    side->in_op = false;
}

static inline void write_pattern(struct side *side, size_t size) {
    char *bytes = malloc(size);
    assert_non_null(bytes);
    for (size_t i = 0; i < size; i++)
        bytes[i] = pattern_at(i);
    side->in_op = true;
    assert_int_equal(pge_conn_write(side->conn, bytes, size), 0);
    side->in_op = false;
    free(bytes);
}

/* ---- every test against every stream ---- */

struct stream_case {
    const char *name;
    CMUnitTestFunction fn;
};

#define CASE(fn)                                                                                   \
    { #fn, fn }

static inline int stream_run(const char *group, const struct stream_case *cases, size_t count) {
    static struct variant variants[] = {
        {"tcp", false, false},
        {"pipe", false, true},
        {"tls over tcp", true, false},
        {"tls over pipe", true, true},
    };
    enum { ROOM = 128 };
    static struct CMUnitTest tests[ROOM];
    static char names[ROOM][96];
    size_t total = count * (sizeof variants / sizeof variants[0]);
    if (total > ROOM)
        return 1;
    signal(SIGPIPE, SIG_IGN);
    alarm(60);
    root = cert_new("a root", NULL, NULL, 1);
    leaf = cert_new("a leaf", "DNS:localhost", root, 1);
    for (size_t i = 0; i < total; i++) {
        struct variant *variant = &variants[i / count];
        const struct stream_case *one = &cases[i % count];
        snprintf(names[i], sizeof names[i], "%s: %s", variant->name, one->name);
        tests[i] = (struct CMUnitTest){names[i], one->fn, set_up, tear_down, variant};
    }
    int failures = _cmocka_run_group_tests(group, tests, total, NULL, NULL);
    cert_free(root);
    cert_free(leaf);
    return failures;
}

#endif
