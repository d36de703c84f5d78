/* listener_test.c - core/net/listener.c: binding, pausing, running out of descriptors. */
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>

#include "net_support.h"

enum { CLIENTS = 40 };

struct house {
    struct rig *rig;
    struct host host;
    struct side guests[CLIENTS];
    int fds[CLIENTS];
};

static int set_up(void **state) {
    struct house *h = calloc(1, sizeof *h);
    h->rig = rig_new();
    *state = h;
    return 0;
}

static struct pge_listener *open_at(struct house *h, struct pge_endpoint at, int *status) {
    h->host.sides = h->guests;
    h->host.room = CLIENTS;
    struct pge_listener *l =
        pge_listener_open(&h->rig->loop, &at, 128, &host_events, &h->host, status);
    return l;
}

static void open_tcp(struct house *h) {
    int status;
    h->host.listener = open_at(h, tcp_endpoint(), &status);
    assert_int_equal(status, 0);
}

static int tear_down(void **state) {
    struct house *h = *state;
    for (int i = 0; i < CLIENTS; i++) {
        if (h->guests[i].conn)
            side_close(&h->guests[i]);
        if (h->fds[i] > 0)
            close(h->fds[i]);
    }
    if (h->host.listener)
        pge_listener_close(h->host.listener);
    rig_finish(h->rig);
    assert_null(h->host.listener);
    rig_free(h->rig);
    free(h);
    return 0;
}

/* A client of the kernel's: connected, whether accepted or waiting in the backlog. */
static int knock(const struct pge_listener *listener) {
    struct pge_endpoint to = host_endpoint(listener);
    int family = to.addr.sa.sa_family;
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    socklen_t size = family == AF_UNIX ? sizeof to.addr.un : sizeof(struct sockaddr_in);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, &to.addr.sa, size), 0);
    return fd;
}

static void spin(struct house *h, int turns) {
    while (turns--)
        uv_run(&h->rig->uv, UV_RUN_NOWAIT);
}

static void takes_all_who_wait_in_one_turn(void **state) {
    struct house *h = *state;
    open_tcp(h);
    for (int i = 0; i < CLIENTS; i++)
        h->fds[i] = knock(h->host.listener);
    uv_run(&h->rig->uv, UV_RUN_ONCE);
    uv_run(&h->rig->uv, UV_RUN_NOWAIT);
    assert_int_equal(h->host.accepts, CLIENTS);
}

static void shows_the_port_the_system_chose(void **state) {
    struct house *h = *state;
    char name[64], expected[64];
    open_tcp(h);
    struct pge_endpoint at = host_endpoint(h->host.listener);
    struct sockaddr_in in;
    memcpy(&in, &at.addr, sizeof in);
    snprintf(expected, sizeof expected, "127.0.0.1:%d", ntohs(in.sin_port));
    pge_listener_address(h->host.listener, name, sizeof name);
    assert_string_equal(name, expected);
    assert_true(ntohs(in.sin_port) != 0);
}

static void accepts_nobody_while_paused(void **state) {
    struct house *h = *state;
    open_tcp(h);
    pge_listener_pause(h->host.listener);
    pge_listener_pause(h->host.listener);
    h->fds[0] = knock(h->host.listener);
    h->fds[1] = knock(h->host.listener);
    spin(h, 16);
    assert_int_equal(h->host.accepts, 0);
    pge_listener_resume(h->host.listener);
    pge_listener_resume(h->host.listener);
    rig_until(h->rig, h->host.accepts == 2);
}

static void can_be_closed_while_paused(void **state) {
    struct house *h = *state;
    open_tcp(h);
    pge_listener_pause(h->host.listener);
    pge_listener_close(h->host.listener);
    pge_listener_resume(h->host.listener);
    pge_listener_close(h->host.listener);
    rig_finish(h->rig);
    assert_int_equal(h->host.closes, 1);
}

static void can_be_closed_inside_on_accept(void **state) {
    struct house *h = *state;
    open_tcp(h);
    h->host.closes_listener = true;
    h->fds[0] = knock(h->host.listener);
    h->fds[1] = knock(h->host.listener);
    rig_until(h->rig, h->host.closes);
    assert_int_equal(h->host.accepts, 1); /* the second was not taken any more */
}

static void refuses_newcomers_as_soon_as_closed(void **state) {
    struct house *h = *state;
    open_tcp(h);
    struct pge_endpoint to = host_endpoint(h->host.listener);
    pge_listener_close(h->host.listener);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, &to.addr.sa, sizeof(struct sockaddr_in)), -1);
    close(fd);
}

static void rests_without_descriptors_and_resumes_by_itself(void **state) {
    struct house *h = *state;
    struct rlimit old;
    open_tcp(h);
    rig_stop_clock(h->rig);
    h->fds[0] = knock(h->host.listener);
    h->fds[1] = knock(h->host.listener);
    int last = use_up_descriptors(&old);
    spin(h, 32);
    assert_int_equal(h->host.accepts, 0);
    assert_int_equal(uv_is_active((uv_handle_t *)&h->host.listener->uv.poll), 0); /* no spin */
    close(last);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    rig_pass(h->rig, 1000);
    rig_until(h->rig, h->host.accepts == 2); /* nobody was turned away */
    assert_int_equal(h->host.listener->refused, 0);
}

static void stays_paused_when_the_rest_is_over(void **state) {
    struct house *h = *state;
    struct rlimit old;
    open_tcp(h);
    rig_stop_clock(h->rig);
    h->fds[0] = knock(h->host.listener);
    int last = use_up_descriptors(&old);
    spin(h, 4);
    close(last);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    pge_listener_pause(h->host.listener);
    rig_pass(h->rig, 1000);
    spin(h, 4);
    assert_int_equal(h->host.accepts, 0);
    pge_listener_resume(h->host.listener);
    rig_until(h->rig, h->host.accepts == 1);
}

static void counts_whom_it_has_no_memory_for(void **state) {
    struct house *h = *state;
    open_tcp(h);
    h->fds[0] = knock(h->host.listener);
    h->rig->alloc.grants = 0;
    uv_run(&h->rig->uv, UV_RUN_ONCE);
    uv_run(&h->rig->uv, UV_RUN_NOWAIT);
    h->rig->alloc.grants = (size_t)-1;
    assert_int_equal(h->host.listener->refused, 1);
    char byte;
    assert_int_equal(read(h->fds[0], &byte, 1), 0);
}

static void says_that_an_address_is_in_use(void **state) {
    struct house *h = *state;
    int status;
    open_tcp(h);
    struct pge_endpoint at = host_endpoint(h->host.listener);
    assert_null(open_at(h, at, &status));
    assert_int_equal(status, UV_EADDRINUSE);
}

static void replaces_a_socket_left_from_a_crash(void **state) {
    struct house *h = *state;
    int status;
    char name[128];
    struct pge_endpoint at = pipe_endpoint("stale");
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    unlink(at.addr.un.sun_path);
    assert_int_equal(bind(fd, &at.addr.sa, sizeof at.addr.un), 0);
    assert_int_equal(listen(fd, 1), 0);
    assert_null(open_at(h, at, &status)); /* alive: stays */
    assert_int_equal(status, UV_EADDRINUSE);
    close(fd);
    h->host.listener = open_at(h, at, &status);
    assert_int_equal(status, 0);
    pge_listener_address(h->host.listener, name, sizeof name);
    assert_string_equal(name, at.addr.un.sun_path);
    h->fds[0] = knock(h->host.listener);
    rig_until(h->rig, h->host.accepts == 1);
    pge_listener_close(h->host.listener);
    assert_int_equal(access(at.addr.un.sun_path, F_OK), -1); /* cleaned up */
}

static void leaves_a_file_that_is_no_socket_alone(void **state) {
    struct house *h = *state;
    int status;
    struct pge_endpoint at = pipe_endpoint("file");
    int fd = open(at.addr.un.sun_path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    close(fd);
    assert_null(open_at(h, at, &status));
    assert_int_equal(status, UV_EADDRINUSE);
    assert_int_equal(unlink(at.addr.un.sun_path), 0);
}

static void fails_open_without_leaving_anything(void **state) {
    struct house *h = *state;
    int status;
    for (size_t grants = 0; grants < 2; grants++) {
        h->rig->alloc.grants = grants;
        assert_null(open_at(h, tcp_endpoint(), &status));
        assert_int_equal(status, UV_ENOMEM);
    }
    h->rig->alloc.grants = (size_t)-1;
    struct pge_endpoint nowhere = pipe_endpoint("x/y");
    assert_null(open_at(h, nowhere, &status));
    assert_true(status < 0);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(takes_all_who_wait_in_one_turn),
        TEST(shows_the_port_the_system_chose),
        TEST(accepts_nobody_while_paused),
        TEST(can_be_closed_while_paused),
        TEST(can_be_closed_inside_on_accept),
        TEST(refuses_newcomers_as_soon_as_closed),
        TEST(rests_without_descriptors_and_resumes_by_itself),
        TEST(stays_paused_when_the_rest_is_over),
        TEST(counts_whom_it_has_no_memory_for),
        TEST(says_that_an_address_is_in_use),
        TEST(replaces_a_socket_left_from_a_crash),
        TEST(leaves_a_file_that_is_no_socket_alone),
        TEST(fails_open_without_leaving_anything),
    };
    signal(SIGPIPE, SIG_IGN);
    alarm(60);
    return cmocka_run_group_tests_name("listener", tests, NULL, NULL);
}
