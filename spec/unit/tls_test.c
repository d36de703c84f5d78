/* tls_test.c - core/net/tls.c and tls_context.c: who is let in, and what an attacker can do. */
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>

#include "net_support.h"

enum { CLIENTS = 3, HANDSHAKE_MS = 10000 };

struct scene {
    struct rig *rig;
    struct host host;
    struct side clients[CLIENTS], guests[CLIENTS];
    struct pge_tls *server, *client;
    int fd; /* a raw client's, 0: none */
};

static struct cert *root, *leaf, *expired, *member, *stranger_root, *stranger;

static int set_up(void **state) {
    struct scene *s = calloc(1, sizeof *s);
    s->rig = rig_new();
    for (int i = 0; i < CLIENTS; i++)
        s->clients[i].is_reader = s->guests[i].is_reader = true;
    *state = s;
    return 0;
}

static int tear_down(void **state) {
    struct scene *s = *state;
    for (int i = 0; i < CLIENTS; i++) {
        if (s->clients[i].conn)
            side_close(&s->clients[i]);
        if (s->guests[i].conn)
            side_close(&s->guests[i]);
    }
    if (s->host.listener)
        pge_listener_close(s->host.listener);
    if (s->fd)
        close(s->fd);
    pge_tls_unref(s->server); /* conns still closing hold it too */
    pge_tls_unref(s->client);
    rig_free(s->rig);
    free(s);
    return 0;
}

static void listen_with(struct scene *s, struct pge_tls_options options) {
    int status;
    struct pge_endpoint at = tcp_endpoint();
    s->server = tls_side(&options, true);
    at.stream = &pge_stream_tls;
    at.tls = s->server;
    s->host = (struct host){.sides = s->guests, .room = CLIENTS};
    s->host.listener = pge_listener_open(&s->rig->loop, &at, 16, &host_events, &s->host, &status);
    assert_int_equal(status, 0);
}

static void dial_with(struct scene *s, struct pge_tls_options options, const char *name) {
    int status;
    struct pge_endpoint to = host_endpoint(s->host.listener);
    if (!s->client)
        s->client = tls_side(&options, false);
    to.tls = s->client;
    to.server_name = name;
    struct side *side = &s->clients[0];
    while (side->conn)
        side++;
    side->conn = pge_conn_connect(&s->rig->loop, &to, &side_events, side, &status);
    assert_int_equal(status, 0);
}

static struct pge_tls_options own(const struct cert *cert) {
    return (struct pge_tls_options){.cert = cert->cert_pem, .key = cert->key_pem};
}

/* Dials the listener and expects the handshake to fail for this reason. */
static void expect_refusal(struct scene *s, struct pge_tls_options options, const char *name,
                           const char *reason) {
    dial_with(s, options, name);
    rig_until(s->rig, s->clients[0].opens && s->host.listener->refused);
    assert_int_equal(s->clients[0].open_status, UV_EPROTO);
    assert_non_null(strstr(s->clients[0].why, reason)); /* OpenSSL 3.2 words alerts differently */
    assert_int_equal(s->host.accepts, 0);
}

static void expect_welcome(struct scene *s, struct pge_tls_options options, const char *name) {
    uint64_t refused = s->host.listener->refused;
    dial_with(s, options, name);
    rig_until(s->rig,
              s->clients[0].opens && (s->host.accepts || s->host.listener->refused > refused));
    assert_string_equal(s->clients[0].why, "");
    assert_int_equal(s->clients[0].open_status, 0);
    assert_int_equal(s->host.accepts, 1);
}

static struct pge_tls_options trusting(const struct cert *ca) {
    return (struct pge_tls_options){.ca = ca->cert_pem, .verify = true};
}

/* ---- the peer's certificate ---- */

static void accepts_a_name_of_the_certificate(void **state) {
    listen_with(*state, own(leaf));
    expect_welcome(*state, trusting(root), "localhost");
}

static void accepts_an_address_of_the_certificate(void **state) {
    listen_with(*state, own(leaf));
    expect_welcome(*state, trusting(root), "127.0.0.1");
}

static void prefers_the_name_of_the_options(void **state) {
    struct pge_tls_options options = trusting(root);
    options.server_name = "localhost";
    listen_with(*state, own(leaf));
    expect_welcome(*state, options, "elsewhere.test");
}

static void refuses_another_name(void **state) {
    listen_with(*state, own(leaf));
    expect_refusal(*state, trusting(root), "elsewhere.test", "hostname mismatch");
}

static void refuses_another_address(void **state) {
    listen_with(*state, own(leaf));
    expect_refusal(*state, trusting(root), "127.0.0.2", "IP address mismatch");
}

static void refuses_an_expired_certificate(void **state) {
    listen_with(*state, own(expired));
    expect_refusal(*state, trusting(root), "localhost", "certificate has expired");
}

static void refuses_an_unknown_issuer(void **state) {
    listen_with(*state, own(leaf));
    expect_refusal(*state, trusting(stranger_root), "localhost",
                   "unable to get local issuer certificate");
}

static void refuses_what_the_system_does_not_know(void **state) {
    listen_with(*state, own(leaf));
    expect_refusal(*state, (struct pge_tls_options){.verify = true}, "localhost",
                   "unable to get local issuer certificate");
}

static void takes_anybody_when_told_not_to_verify(void **state) {
    listen_with(*state, own(expired));
    expect_welcome(*state, (struct pge_tls_options){.verify = false}, "elsewhere.test");
}

/* ---- mutual TLS ---- */

static struct pge_tls_options members_only(void) {
    struct pge_tls_options options = own(leaf);
    options.ca = root->cert_pem;
    return options;
}

static void lets_members_in(void **state) {
    struct pge_tls_options options = trusting(root);
    options.cert = member->cert_pem;
    options.key = member->key_pem;
    listen_with(*state, members_only());
    expect_welcome(*state, options, "localhost");
}

/* In TLS 1.3 a client is done before the server has looked at its certificate. */
static void expect_to_be_thrown_out(struct scene *s, struct pge_tls_options options,
                                    const char *reason) {
    dial_with(s, options, "localhost");
    rig_until(s->rig, s->clients[0].end && s->host.listener->refused);
    assert_int_equal(s->clients[0].end, UV_EPROTO);
    assert_non_null(strstr(s->clients[0].why, reason)); /* OpenSSL 3.2 words alerts differently */
    assert_int_equal(s->host.accepts, 0);
}

static void throws_out_who_shows_nothing(void **state) {
    listen_with(*state, members_only());
    expect_to_be_thrown_out(*state, trusting(root), "alert certificate required");
}

static void throws_out_strangers(void **state) {
    struct pge_tls_options options = trusting(root);
    options.cert = stranger->cert_pem;
    options.key = stranger->key_pem;
    listen_with(*state, members_only());
    expect_to_be_thrown_out(*state, options, "alert unknown ca");
}

/* ---- protocols by ALPN ---- */

static void agrees_on_a_protocol(void **state) {
    struct pge_tls_options server = own(leaf), client = trusting(root);
    server.alpn = "http/1.1";
    client.alpn = "h2,http/1.1";
    listen_with(*state, server);
    expect_welcome(*state, client, "localhost");
}

static void refuses_who_speaks_no_common_protocol(void **state) {
    struct pge_tls_options server = own(leaf), client = trusting(root);
    server.alpn = "http/1.1";
    client.alpn = "h2";
    listen_with(*state, server);
    expect_refusal(*state, client, "localhost", "alert no application protocol");
}

/* ---- hostile bytes ---- */

static void knock(struct scene *s, const void *bytes, size_t n) {
    struct pge_endpoint to = host_endpoint(s->host.listener);
    s->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(s->fd, &to.addr.sa, sizeof(struct sockaddr_in)), 0);
    assert_int_equal(write(s->fd, bytes, n), n);
}

/* The knocker finds its connection closed; whatever alert came before does not matter. */
static void expect_closed(struct scene *s) {
    char bytes[512];
    ssize_t n;
    while ((n = read(s->fd, bytes, sizeof bytes)) > 0)
        continue;
    assert_true(n == 0 || errno == ECONNRESET);
}

static void closes_on_plain_text(void **state) {
    struct scene *s = *state;
    listen_with(s, own(leaf));
    knock(s, "GET / HTTP/1.1\r\nHost: x\r\n\r\n", 27);
    rig_until(s->rig, s->host.listener->refused == 1);
    uv_run(&s->rig->uv, UV_RUN_NOWAIT);
    expect_closed(s);
    expect_welcome(s, trusting(root), "localhost"); /* everyone else is served */
}

static void closes_on_garbage_and_half_a_hello(void **state) {
    struct scene *s = *state;
    static const unsigned char hello[] = {0x16, 0x03, 0x01, 0x01, 0x00, 0x01, 0x00};
    listen_with(s, own(leaf));
    knock(s, hello, sizeof hello);
    rig_until(s->rig, !pge_list_is_empty(&s->host.listener->shaking));
    shutdown(s->fd, SHUT_WR);
    rig_until(s->rig, s->host.listener->refused == 1);
    uv_run(&s->rig->uv, UV_RUN_NOWAIT);
    expect_closed(s);
    assert_true(pge_list_is_empty(&s->host.listener->shaking));
}

static void closes_who_never_says_hello(void **state) {
    struct scene *s = *state;
    listen_with(s, own(leaf));
    rig_stop_clock(s->rig);
    knock(s, "", 0);
    rig_until(s->rig, !pge_list_is_empty(&s->host.listener->shaking));
    rig_pass(s->rig, HANDSHAKE_MS - 1);
    assert_int_equal(s->host.listener->refused, 0);
    rig_pass(s->rig, 1);
    assert_int_equal(s->host.listener->refused, 1);
    uv_run(&s->rig->uv, UV_RUN_NOWAIT);
    expect_closed(s);
}

static void drops_handshakes_when_the_listener_closes(void **state) {
    struct scene *s = *state;
    listen_with(s, own(leaf));
    knock(s, "\x16", 1);
    rig_until(s->rig, !pge_list_is_empty(&s->host.listener->shaking));
    pge_listener_close(s->host.listener);
    rig_finish(s->rig); /* ends: nothing is left, not even the handshake's limit */
    expect_closed(s);
}

static void speaks_no_tls_below_1_2(void **state) {
    struct scene *s = *state;
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_security_level(ctx, 0);
    SSL_CTX_set_min_proto_version(ctx, TLS1_VERSION);
    SSL_CTX_set_max_proto_version(ctx, TLS1_1_VERSION);
    SSL *ssl = SSL_new(ctx);
    listen_with(s, own(leaf));
    knock(s, "", 0);
    fcntl(s->fd, F_SETFL, O_NONBLOCK);
    SSL_set_fd(ssl, s->fd);
    assert_int_equal(SSL_connect(ssl), -1); /* the hello is out */
    rig_until(s->rig, s->host.listener->refused == 1);
    assert_int_equal(s->host.accepts, 0);
    SSL_free(ssl);
    SSL_CTX_free(ctx);
    ERR_clear_error();
}

/* The descriptor of the listener's end of the one connection there is. */
static void find_server_fd(uv_handle_t *handle, void *arg) {
    struct scene *s = arg;
    struct sockaddr_in name, listening;
    socklen_t size = sizeof name;
    uv_os_fd_t fd;
    if (handle->type != UV_TCP || uv_fileno(handle, &fd) < 0)
        return;
    getsockname(fd, (struct sockaddr *)&name, &size);
    getsockname(s->host.listener->fd, (struct sockaddr *)&listening, &size);
    if (name.sin_port == listening.sin_port)
        s->fd = dup(fd);
}

static void connect_pair(struct scene *s) {
    listen_with(s, own(leaf));
    expect_welcome(s, trusting(root), "localhost");
    uv_walk(&s->rig->uv, find_server_fd, s);
    assert_true(s->fd > 0);
}

static void takes_an_end_without_goodbye_for_an_error(void **state) {
    struct scene *s = *state;
    connect_pair(s);
    assert_int_equal(pge_conn_write(s->guests[0].conn, "half of it", 10), 0);
    rig_until(s->rig, s->clients[0].got == 10);
    shutdown(s->fd, SHUT_WR); /* a FIN that anybody on the way could have made */
    rig_until(s->rig, s->clients[0].end);
    assert_int_equal(s->clients[0].end, UV_ECONNRESET);
}

static void ends_at_a_forged_record(void **state) {
    struct scene *s = *state;
    unsigned char record[64] = {0x17, 0x03, 0x03, 0x00, sizeof record - 5};
    connect_pair(s);
    assert_int_equal(pge_conn_write(s->guests[0].conn, "genuine", 7), 0);
    rig_until(s->rig, s->clients[0].got == 7);
    assert_int_equal(write(s->fd, record, sizeof record), sizeof record);
    rig_until(s->rig, s->clients[0].end && s->guests[0].end);
    assert_int_equal(s->clients[0].end, UV_EPROTO);
    assert_string_equal(s->clients[0].why, "decryption failed or bad record mac");
    assert_int_equal(s->clients[0].got, 7);
    assert_non_null(strstr(s->guests[0].why, "alert bad record mac")); /* it was told why */
}

static void *small_only(void *arg, void *ptr, size_t size) {
    return size > 1024 * 1024 ? NULL : fail_alloc_hook(arg, ptr, size);
}

static void encrypts_no_more_than_a_window_ahead(void **state) {
    struct scene *s = *state;
    enum { MUCH = 16 * 1024 * 1024 };
    s->guests[0].is_reader = false;
    connect_pair(s);
    char *bytes = calloc(1, MUCH);
    assert_int_equal(pge_conn_write(s->clients[0].conn, bytes, MUCH), 0);
    free(bytes);
    pge_alloc_set(small_only, &s->rig->alloc); /* all of it at once would not fit */
    pge_conn_flush(s->clients[0].conn);
    assert_int_equal(pge_conn_queued(s->clients[0].conn), MUCH);
    pge_conn_read_start(s->guests[0].conn);
    rig_until(s->rig, s->guests[0].got == MUCH && s->clients[0].drains == 1);
    assert_int_equal(s->clients[0].drain_status, 0);
    pge_alloc_set(fail_alloc_hook, &s->rig->alloc);
}

static void serves_many_connections_with_one_side(void **state) {
    struct scene *s = *state;
    listen_with(s, members_only());
    struct pge_tls_options options = trusting(root);
    options.cert = member->cert_pem;
    options.key = member->key_pem;
    for (int i = 0; i < CLIENTS; i++)
        dial_with(s, options, "localhost");
    rig_until(s->rig, s->host.accepts == CLIENTS);
    pge_tls_unref(s->client); /* the conns hold it */
    s->client = NULL;
    for (int i = 0; i < CLIENTS; i++) {
        rig_until(s->rig, s->clients[i].opens);
        assert_int_equal(pge_conn_write(s->clients[i].conn, "hello", 5), 0);
    }
    for (int i = 0; i < CLIENTS; i++)
        rig_until(s->rig, s->guests[i].got == 5);
}

/* ---- options ---- */

static void expect_complaint(struct pge_tls_options options, bool is_server, const char *start) {
    char why[256] = "";
    assert_null(pge_tls_new(&options, is_server, why, sizeof why));
    if (strncmp(why, start, strlen(start)) != 0)
        fail_msg("\"%s\" does not start with \"%s\"", why, start);
}

static void says_what_is_wrong_with_options(void **state) {
    (void)state;
    static const char junk[] =
        "-----BEGIN CERTIFICATE-----\nbm90IG9uZQ==\n-----END CERTIFICATE-----\n";
    struct pge_tls_options mixed = own(leaf), locked = own(leaf), broken;
    mixed.key = member->key_pem;
    expect_complaint((struct pge_tls_options){0}, true, "tls: cert and key belong together");
    expect_complaint((struct pge_tls_options){.cert = leaf->cert_pem}, false,
                     "tls: cert and key belong together");
    expect_complaint((struct pge_tls_options){.ca = "/no/such/file.pem"}, false,
                     "tls: ca /no/such/file.pem: No such file or directory");
    expect_complaint((struct pge_tls_options){.ca = junk}, false, "tls: ca: ");
    expect_complaint((struct pge_tls_options){.ca = leaf->key_pem}, false, "tls: ca: ");
    expect_complaint((struct pge_tls_options){.cert = junk, .key = leaf->key_pem}, true,
                     "tls: cert: ");
    expect_complaint((struct pge_tls_options){.cert = leaf->cert_pem, .key = leaf->cert_pem}, true,
                     "tls: key: ");
    expect_complaint(mixed, true, "tls: key: ");
    BIO *bio = BIO_new(BIO_s_mem());
    char pem[2048];
    PEM_write_bio_PrivateKey(bio, leaf->key, EVP_aes_128_cbc(), (const unsigned char *)"secret", 6,
                             NULL, NULL);
    pem[BIO_read(bio, pem, sizeof pem - 1)] = '\0';
    BIO_free(bio);
    locked.key = pem;
    expect_complaint(locked, true, "tls: key: ");
    broken = own(leaf);
    broken.alpn = "h2,,http/1.1";
    expect_complaint(broken, true, "tls: alpn: ");
}

static void reads_pem_files_with_chains(void **state) {
    struct scene *s = *state;
    char cert[64], key[64];
    snprintf(cert, sizeof cert, "/tmp/pge-cert-%ld.pem", (long)getpid());
    snprintf(key, sizeof key, "/tmp/pge-key-%ld.pem", (long)getpid());
    FILE *f = fopen(cert, "w");
    fprintf(f, "%s%s", leaf->cert_pem, root->cert_pem);
    fclose(f);
    f = fopen(key, "w");
    fputs(leaf->key_pem, f);
    fclose(f);
    listen_with(s, (struct pge_tls_options){.cert = cert, .key = key});
    unlink(cert);
    unlink(key);
    expect_welcome(s, trusting(root), "localhost");
}

static void tells_of_exhausted_memory(void **state) {
    struct scene *s = *state;
    struct pge_tls_options options = trusting(root);
    options.server_name = "localhost";
    char why[64];
    for (size_t grants = 0; grants < 2; grants++) {
        s->rig->alloc.grants = grants;
        assert_null(pge_tls_new(&options, false, why, sizeof why));
        assert_string_equal(why, "tls: out of memory");
    }
    s->rig->alloc.grants = (size_t)-1;
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(accepts_a_name_of_the_certificate),
        TEST(accepts_an_address_of_the_certificate),
        TEST(prefers_the_name_of_the_options),
        TEST(refuses_another_name),
        TEST(refuses_another_address),
        TEST(refuses_an_expired_certificate),
        TEST(refuses_an_unknown_issuer),
        TEST(refuses_what_the_system_does_not_know),
        TEST(takes_anybody_when_told_not_to_verify),
        TEST(lets_members_in),
        TEST(throws_out_who_shows_nothing),
        TEST(throws_out_strangers),
        TEST(agrees_on_a_protocol),
        TEST(refuses_who_speaks_no_common_protocol),
        TEST(closes_on_plain_text),
        TEST(closes_on_garbage_and_half_a_hello),
        TEST(closes_who_never_says_hello),
        TEST(drops_handshakes_when_the_listener_closes),
        TEST(speaks_no_tls_below_1_2),
        TEST(takes_an_end_without_goodbye_for_an_error),
        TEST(ends_at_a_forged_record),
        TEST(encrypts_no_more_than_a_window_ahead),
        TEST(serves_many_connections_with_one_side),
        TEST(says_what_is_wrong_with_options),
        TEST(reads_pem_files_with_chains),
        TEST(tells_of_exhausted_memory),
    };
    signal(SIGPIPE, SIG_IGN);
    alarm(60);
    root = cert_new("a root", NULL, NULL, 1);
    leaf = cert_new("a leaf", "DNS:localhost,IP:127.0.0.1", root, 1);
    expired = cert_new("an expired one", "DNS:localhost", root, -1);
    member = cert_new("a member", NULL, root, 1);
    stranger_root = cert_new("another root", NULL, NULL, 1);
    stranger = cert_new("a stranger", NULL, stranger_root, 1);
    int failures = cmocka_run_group_tests_name("tls", tests, NULL, NULL);
    struct cert *all[] = {root, leaf, expired, member, stranger_root, stranger};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        cert_free(all[i]);
    return failures;
}
