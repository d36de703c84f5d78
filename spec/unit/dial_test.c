/* dial_test.c - core/net/dial.c and core/net/backoff.c */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* RTLD_NEXT */
#endif
#include <dlfcn.h>
#include <netdb.h>
#include <semaphore.h>
#include <signal.h>

#include "net/backoff.h"
#include "net/dial.h"
#include "net/uvstream.h"
#include "net_support.h"

enum { LIMIT_MS = 2000, FILLERS = 4 };

struct caller {
    struct rig *rig;
    struct host host;
    struct side guest, client;
    struct pge_dial *dial; /* NULL once done */
    int dones, status;
    char why[256];
    bool cancels; /* inside on_done */
    int hole, fillers[FILLERS];
    uint16_t port; /* of the listener */
};

/* ---- a resolver with names of our own, in front of the system's ---- */

typedef int (*resolve_fn)(const char *, const char *, const struct addrinfo *, struct addrinfo **);

static sem_t slow_name_asked, slow_name_may_answer;

int getaddrinfo(const char *host, const char *service, const struct addrinfo *hints,
                struct addrinfo **found) {
    resolve_fn real;
    *(void **)&real = dlsym(RTLD_NEXT, "getaddrinfo");
    if (strcmp(host, "slow.test") == 0) {
        sem_post(&slow_name_asked);
        sem_wait(&slow_name_may_answer);
        return real("127.0.0.1", service, hints, found);
    }
    if (strcmp(host, "two.test") != 0)
        return real(host, service, hints, found);
    int error = real("127.0.0.2", service, hints, found);
    return error ? error : real("127.0.0.1", service, hints, &(*found)->ai_next);
}

/* ---- set-up ---- */

static int set_up(void **state) {
    int status;
    struct caller *c = calloc(1, sizeof *c);
    struct pge_endpoint at = tcp_endpoint();
    c->rig = rig_new();
    c->host = (struct host){.sides = &c->guest, .room = 1};
    c->hole = -1;
    c->host.listener = pge_listener_open(&c->rig->loop, &at, 16, &host_events, &c->host, &status);
    assert_non_null(c->host.listener);
    struct pge_endpoint to = host_endpoint(c->host.listener);
    struct sockaddr_in in;
    memcpy(&in, &to.addr, sizeof in);
    c->port = ntohs(in.sin_port);
    *state = c;
    return 0;
}

static int tear_down(void **state) {
    struct caller *c = *state;
    if (c->dial)
        pge_dial_cancel(c->dial);
    if (c->client.conn)
        side_close(&c->client);
    if (c->guest.conn)
        side_close(&c->guest);
    if (c->host.listener)
        pge_listener_close(c->host.listener);
    if (c->hole >= 0) {
        close(c->hole);
        for (int i = 0; i < FILLERS; i++)
            close(c->fillers[i]);
    }
    rig_free(c->rig);
    free(c);
    return 0;
}

static void on_done(void *arg, struct pge_conn *conn, int status, const char *why) {
    struct caller *c = arg;
    uv_stop(&c->rig->uv);
    assert_non_null(c->dial); /* not before pge_dial_start returned, and once */
    if (c->cancels)
        pge_dial_cancel(c->dial);
    c->dial = NULL;
    c->dones++;
    c->status = status;
    if (conn) {
        assert_null(why);
        assert_true(conn->is_open && !conn->is_reading);
        c->client.conn = conn;
        conn->events = &side_events;
        conn->owner = &c->client;
    } else {
        assert_true(status < 0);
        snprintf(c->why, sizeof c->why, "%s", why);
    }
}

static void start(struct caller *c, struct pge_target target) {
    int status;
    c->dial = pge_dial_start(&c->rig->loop, &target, LIMIT_MS, on_done, c, &status);
    assert_non_null(c->dial);
    assert_int_equal(c->dones, 0);
}

static void dial(struct caller *c, struct pge_target target) {
    start(c, target);
    rig_until(c->rig, c->dones);
    assert_int_equal(c->dones, 1);
}

static void stop_listening(struct caller *c) {
    pge_listener_close(c->host.listener);
    rig_until(c->rig, c->host.closes);
}

static int hole_socket(const struct sockaddr_in *at, bool is_server) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (is_server)
        assert_int_equal(bind(fd, (const struct sockaddr *)at, sizeof *at), 0);
    else
        connect(fd, (const struct sockaddr *)at, sizeof *at);
    return fd;
}

/* An address whose backlog is full: the kernel lets a dialler wait, as a black hole would. */
static uint16_t dig_hole(struct caller *c, const char *address, uint16_t port) {
    struct sockaddr_in in;
    socklen_t size = sizeof in;
    uv_ip4_addr(address, port, &in);
    c->hole = hole_socket(&in, true);
    assert_int_equal(listen(c->hole, 0), 0);
    getsockname(c->hole, (struct sockaddr *)&in, &size);
    for (int i = 0; i < FILLERS; i++)
        c->fillers[i] = hole_socket(&in, false);
    return ntohs(in.sin_port);
}

/* ---- to one address ---- */

static void opens_to_a_number(void **state) {
    struct caller *c = *state;
    c->guest.is_reader = true;
    dial(c, (struct pge_target){.host = "127.0.0.1", .port = c->port});
    assert_int_equal(c->status, 0);
    rig_until(c->rig, c->host.accepts);
    pge_conn_write(c->client.conn, "hi", 2);
    rig_until(c->rig, c->guest.got == 2);
}

static void opens_to_a_name(void **state) {
    struct caller *c = *state;
    dial(c, (struct pge_target){.host = "localhost", .port = c->port});
    assert_int_equal(c->status, 0);
}

static void opens_to_a_path(void **state) {
    struct caller *c = *state;
    int status;
    struct pge_endpoint at = pipe_endpoint("dial");
    struct pge_listener *tcp = c->host.listener;
    c->host.listener = pge_listener_open(&c->rig->loop, &at, 16, &host_events, &c->host, &status);
    dial(c, (struct pge_target){.path = at.addr.un.sun_path});
    assert_int_equal(c->status, 0);
    pge_listener_close(c->host.listener);
    rig_until(c->rig, c->host.closes);
    c->host.listener = tcp;
}

static void says_refused_as_node_does(void **state) {
    struct caller *c = *state;
    char expected[64];
    stop_listening(c);
    dial(c, (struct pge_target){.host = "127.0.0.1", .port = c->port});
    snprintf(expected, sizeof expected, "connect ECONNREFUSED 127.0.0.1:%d", c->port);
    assert_int_equal(c->status, UV_ECONNREFUSED);
    assert_string_equal(c->why, expected);
}

static void says_that_a_path_leads_nowhere(void **state) {
    struct caller *c = *state;
    char path[300];
    dial(c, (struct pge_target){.path = "/tmp/pge-no-such.sock"});
    assert_string_equal(c->why, "connect ENOENT /tmp/pge-no-such.sock");
    memset(path, 'x', sizeof path - 1);
    path[sizeof path - 1] = '\0';
    c->dones = 0;
    dial(c, (struct pge_target){.path = path});
    assert_int_equal(c->status, UV_ENAMETOOLONG);
}

static void says_that_a_name_is_unknown(void **state) {
    struct caller *c = *state;
    dial(c, (struct pge_target){.host = "nowhere.invalid", .port = 1});
    assert_memory_equal(c->why, "getaddrinfo ", 12); /* ENOTFOUND, or EAI_AGAIN without a network */
    assert_string_equal(strrchr(c->why, ' '), " nowhere.invalid");
}

static void says_that_a_name_is_no_name(void **state) {
    struct caller *c = *state;
    char host[600];
    memset(host, 'a', sizeof host - 1);
    host[sizeof host - 1] = '\0';
    dial(c, (struct pge_target){.host = host, .port = 1});
    assert_true(c->status < 0);
    c->dones = 0;
    dial(c, (struct pge_target){.host = "", .port = 1});
    assert_true(c->status < 0);
}

static void ends_at_its_limit(void **state) {
    struct caller *c = *state;
    char expected[64];
    uint16_t port = dig_hole(c, "127.0.0.1", 0);
    rig_stop_clock(c->rig);
    start(c, (struct pge_target){.host = "127.0.0.1", .port = port});
    for (int i = 0; i < 8; i++)
        uv_run(&c->rig->uv, UV_RUN_NOWAIT);
    rig_pass(c->rig, LIMIT_MS - 1);
    assert_int_equal(c->dones, 0);
    rig_pass(c->rig, 1);
    assert_int_equal(c->dones, 1);
    assert_int_equal(c->status, UV_ETIMEDOUT);
    snprintf(expected, sizeof expected, "connect ETIMEDOUT 127.0.0.1:%d", port);
    assert_string_equal(c->why, expected);
}

static void tells_of_exhausted_memory(void **state) {
    struct caller *c = *state;
    struct pge_target target = {.host = "127.0.0.1", .port = c->port};
    bool is_done = false;
    for (size_t grants = 0; !is_done; grants++) {
        int status;
        assert_true(grants < 100);
        c->dones = 0;
        c->rig->alloc.grants = grants;
        c->dial = pge_dial_start(&c->rig->loop, &target, LIMIT_MS, on_done, c, &status);
        if (!c->dial)
            assert_int_equal(status, UV_ENOMEM);
        else
            rig_until(c->rig, c->dones);
        is_done = c->dones && c->status == 0;
        if (c->dones && !is_done)
            assert_int_equal(c->status, UV_ENOMEM);
        c->rig->alloc.grants = (size_t)-1;
    }
}

static void tells_of_exhausted_descriptors(void **state) {
    struct caller *c = *state;
    struct rlimit old;
    char expected[64];
    start(c, (struct pge_target){.host = "127.0.0.1", .port = c->port});
    int last = use_up_descriptors(&old);
    rig_until(c->rig, c->dones);
    close(last);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    snprintf(expected, sizeof expected, "connect EMFILE 127.0.0.1:%d", c->port);
    assert_int_equal(c->status, UV_EMFILE);
    assert_string_equal(c->why, expected);
}

/* ---- to a name with several addresses ---- */

static void goes_on_to_the_next_address(void **state) {
    struct caller *c = *state;
    dial(c, (struct pge_target){.host = "two.test", .port = c->port}); /* the first one refuses */
    assert_int_equal(c->status, 0);
}

static void tells_of_the_last_address(void **state) {
    struct caller *c = *state;
    char expected[64];
    stop_listening(c);
    dial(c, (struct pge_target){.host = "two.test", .port = c->port});
    snprintf(expected, sizeof expected, "connect ECONNREFUSED 127.0.0.1:%d", c->port);
    assert_string_equal(c->why, expected);
}

static void leaves_time_for_the_second_address(void **state) {
    struct caller *c = *state;
    dig_hole(c, "127.0.0.2", c->port);
    rig_stop_clock(c->rig);
    start(c, (struct pge_target){.host = "two.test", .port = c->port});
    rig_until(c->rig, c->rig->loop.live == 3); /* the listener, the dial, its first attempt */
    assert_int_equal(c->dones, 0);
    rig_pass(c->rig, LIMIT_MS / 2);
    rig_until(c->rig, c->dones);
    assert_int_equal(c->status, 0);
}

/* ---- cancelling ---- */

static void is_cancelled_before_it_began(void **state) {
    struct caller *c = *state;
    start(c, (struct pge_target){.host = "127.0.0.1", .port = c->port});
    pge_dial_cancel(c->dial);
    c->dial = NULL;
    stop_listening(c);
    rig_finish(c->rig);
    assert_int_equal(c->dones, 0);
}

static void is_cancelled_while_connecting(void **state) {
    struct caller *c = *state;
    uint16_t port = dig_hole(c, "127.0.0.1", 0);
    start(c, (struct pge_target){.host = "127.0.0.1", .port = port});
    uv_run(&c->rig->uv, UV_RUN_NOWAIT);
    pge_dial_cancel(c->dial);
    c->dial = NULL;
    stop_listening(c);
    rig_finish(c->rig);
    assert_int_equal(c->dones, 0);
}

static void is_cancelled_while_a_thread_looks_up(void **state) {
    struct caller *c = *state;
    start(c, (struct pge_target){.host = "slow.test", .port = c->port});
    uv_run(&c->rig->uv, UV_RUN_NOWAIT);
    sem_wait(&slow_name_asked);
    pge_dial_cancel(c->dial);
    c->dial = NULL;
    sem_post(&slow_name_may_answer);
    stop_listening(c);
    rig_finish(c->rig);
    assert_int_equal(c->dones, 0);
}

static void is_cancelled_inside_its_outcome(void **state) {
    struct caller *c = *state;
    c->cancels = true;
    dial(c, (struct pge_target){.host = "127.0.0.1", .port = c->port});
    assert_int_equal(c->status, 0);
}

static void ends_at_its_limit_while_a_thread_looks_up(void **state) {
    struct caller *c = *state;
    rig_stop_clock(c->rig);
    start(c, (struct pge_target){.host = "slow.test", .port = c->port});
    uv_run(&c->rig->uv, UV_RUN_NOWAIT);
    sem_wait(&slow_name_asked);
    rig_pass(c->rig, LIMIT_MS);
    assert_int_equal(c->dones, 1); /* the caller does not wait for the thread */
    assert_string_equal(c->why, "getaddrinfo ETIMEDOUT slow.test");
    sem_post(&slow_name_may_answer);
}

/* ---- over TLS ---- */

static void checks_the_host_it_was_given(void **state) {
    struct caller *c = *state;
    int status;
    struct cert *root = cert_new("a root", NULL, NULL, 1);
    struct cert *leaf = cert_new("a leaf", "DNS:localhost", root, 1);
    struct pge_tls *server =
        tls_side(&(struct pge_tls_options){.cert = leaf->cert_pem, .key = leaf->key_pem}, true);
    struct pge_tls *client =
        tls_side(&(struct pge_tls_options){.ca = root->cert_pem, .verify = true}, false);
    stop_listening(c);
    struct pge_endpoint at = tcp_endpoint();
    at.stream = &pge_stream_tls;
    at.tls = server;
    c->host.listener = pge_listener_open(&c->rig->loop, &at, 16, &host_events, &c->host, &status);
    struct pge_endpoint to = host_endpoint(c->host.listener);
    struct sockaddr_in in;
    memcpy(&in, &to.addr, sizeof in);
    c->port = ntohs(in.sin_port);
    dial(c, (struct pge_target){.host = "127.0.0.1", .port = c->port, .tls = client});
    assert_true(c->status < 0);
    assert_string_equal(c->why, "IP address mismatch");
    c->dones = 0;
    dial(c, (struct pge_target){
                .host = "127.0.0.1", .port = c->port, .tls = client, .server_name = "localhost"});
    assert_int_equal(c->status, 0);
    rig_until(c->rig, c->host.accepts == 1);
    side_close(&c->client);
    side_close(&c->guest);
    stop_listening(c);
    rig_until(c->rig, !c->client.conn && !c->guest.conn);
    pge_tls_unref(server);
    pge_tls_unref(client);
    cert_free(root);
    cert_free(leaf);
}

/* ---- endpoints for listening ---- */

static void resolves_what_to_listen_on(void **state) {
    (void)state;
    struct pge_endpoint at;
    char path[300];
    assert_int_equal(pge_endpoint_resolve("127.0.0.1", 80, NULL, &at), 0);
    assert_ptr_equal(at.stream, &pge_stream_tcp);
    assert_int_equal(at.addr.sa.sa_family, AF_INET);
    assert_int_equal(pge_endpoint_resolve("::1", 80, NULL, &at), 0);
    assert_int_equal(at.addr.sa.sa_family, AF_INET6);
    assert_int_equal(pge_endpoint_resolve("localhost", 80, NULL, &at), 0);
    assert_int_equal(pge_endpoint_resolve(NULL, 0, "/tmp/x", &at), 0);
    assert_ptr_equal(at.stream, &pge_stream_pipe);
    assert_string_equal(at.addr.un.sun_path, "/tmp/x");
    assert_true(pge_endpoint_resolve("nowhere.invalid", 80, NULL, &at) < 0);
    memset(path, 'x', sizeof path - 1);
    path[sizeof path - 1] = '\0';
    assert_int_equal(pge_endpoint_resolve(NULL, 0, path, &at), UV_ENAMETOOLONG);
}

static void writes_addresses_as_text(void **state) {
    (void)state;
    struct pge_endpoint at;
    char text[64];
    assert_int_equal(pge_endpoint_resolve("10.1.2.3", 4, NULL, &at), 0);
    pge_sockaddr_text(&at.addr.sa, text, sizeof text);
    assert_string_equal(text, "10.1.2.3:4");
    assert_int_equal(pge_endpoint_resolve("2001:db8::1", 65535, NULL, &at), 0);
    pge_sockaddr_text(&at.addr.sa, text, sizeof text);
    assert_string_equal(text, "[2001:db8::1]:65535");
    assert_int_equal(pge_endpoint_resolve(NULL, 0, "/tmp/x", &at), 0);
    pge_sockaddr_text(&at.addr.sa, text, sizeof text);
    assert_string_equal(text, "?");
}

/* ---- backoff ---- */

static void backs_off_doubling_with_jitter_to_the_most(void **state) {
    struct caller *c = *state;
    uint64_t whole = 100;
    struct pge_backoff backoff = {.first_ms = 100, .max_ms = 10000};
    for (int i = 0; i < 200; i++) {
        uint64_t delay = pge_backoff_next(&backoff, &c->rig->loop);
        assert_true(delay >= whole / 2 && delay <= whole);
        whole = whole * 2 > 10000 ? 10000 : whole * 2;
    }
    pge_backoff_reset(&backoff);
    assert_true(pge_backoff_next(&backoff, &c->rig->loop) <= 100);
    backoff.tries = UINT_MAX;
    for (int i = 0; i < 3; i++)
        assert_true(pge_backoff_next(&backoff, &c->rig->loop) >= 5000);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(opens_to_a_number),
        TEST(opens_to_a_name),
        TEST(opens_to_a_path),
        TEST(says_refused_as_node_does),
        TEST(says_that_a_path_leads_nowhere),
        TEST(says_that_a_name_is_unknown),
        TEST(says_that_a_name_is_no_name),
        TEST(ends_at_its_limit),
        TEST(tells_of_exhausted_memory),
        TEST(tells_of_exhausted_descriptors),
        TEST(goes_on_to_the_next_address),
        TEST(tells_of_the_last_address),
        TEST(leaves_time_for_the_second_address),
        TEST(is_cancelled_before_it_began),
        TEST(is_cancelled_while_connecting),
        TEST(is_cancelled_while_a_thread_looks_up),
        TEST(is_cancelled_inside_its_outcome),
        TEST(ends_at_its_limit_while_a_thread_looks_up),
        TEST(checks_the_host_it_was_given),
        cmocka_unit_test(resolves_what_to_listen_on),
        cmocka_unit_test(writes_addresses_as_text),
        TEST(backs_off_doubling_with_jitter_to_the_most),
    };
    signal(SIGPIPE, SIG_IGN);
    sem_init(&slow_name_asked, 0, 0);
    sem_init(&slow_name_may_answer, 0, 0);
    alarm(60);
    return cmocka_run_group_tests_name("dial", tests, NULL, NULL);
}
