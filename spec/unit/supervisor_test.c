/* supervisor_test.c - core/supervisor: what can be had without processes: bundles, options, frames,
 * the door for sockets. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "supervisor/internal.h"

static struct pge_span span(const char *text) {
    return (struct pge_span){text, strlen(text)};
}

/* ---- bundles ---- */

#define BUNDLE                                                                                     \
    "script 5 1\na.lua1file 5 8\na.luareturn 1file 5 0\nm.luascript 5 1\nb.lua2file 5 3\nb.luax y"

static void walks_the_files_of_a_bundle(void **state) {
    static const char *const expected[] = {"a.lua", "return 1", "m.lua", "", "b.lua", "x y"};
    struct pge_span path, text;
    size_t at = 0, n = 0;
    (void)state;
    while (pge_bundle_next(span(BUNDLE), &at, &path, &text)) {
        assert_true(n < 6);
        assert_int_equal(path.n, strlen(expected[n]));
        assert_memory_equal(path.p, expected[n], path.n);
        assert_int_equal(text.n, strlen(expected[n + 1]));
        assert_memory_equal(text.p, expected[n + 1], text.n);
        n += 2;
    }
    assert_int_equal(n, 6);
    assert_int_equal(at, strlen(BUNDLE));
}

/* Wherever it is cut, nothing beyond its end is looked at. */
static void stops_where_a_bundle_is_damaged(void **state) {
    struct pge_span path, text;
    (void)state;
    for (size_t n = 0; n < strlen(BUNDLE); n++) {
        char *cut = malloc(n ? n : 1); /* exactly so long, for the sanitizers */
        memcpy(cut, BUNDLE, n);
        size_t at = 0;
        while (pge_bundle_next((struct pge_span){cut, n}, &at, &path, &text))
            assert_true(path.p >= cut && text.p + text.n <= cut + n);
        free(cut);
    }
    static const char *const bad[] = {"file",         "file ",
                                      "file 1",       "file 1 ",
                                      "file a 1\nxy", "file 9999999999999999999999 1\nx",
                                      "file 1 9\nxy", "file -1 1\nxy"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        size_t at = 0;
        assert_false(pge_bundle_next(span(bad[i]), &at, &path, &text));
    }
}

static void compares_a_bundle_with_the_disk(void **state) {
    char path[] = "/tmp/perigee-unit-XXXXXX", bundle[128];
    (void)state;
    int fd = mkstemp(path);
    assert_int_equal(write(fd, "return 1", 8), 8);
    snprintf(bundle, sizeof bundle, "file %zu 8\n%sreturn 1", strlen(path), path);
    assert_true(pge_bundle_is_on_disk(span(bundle)));
    assert_int_equal(pwrite(fd, "2", 1, 7), 1);
    assert_false(pge_bundle_is_on_disk(span(bundle)));
    assert_int_equal(pwrite(fd, "1 ", 2, 7), 2);
    assert_false(pge_bundle_is_on_disk(span(bundle)));
    unlink(path);
    assert_false(pge_bundle_is_on_disk(span(bundle)));
    close(fd);
    assert_false(pge_bundle_is_on_disk(span("file 4 0\n/tmp"))); /* no file */
}

/* ---- options ---- */

static void reads_what_a_hello_says(void **state) {
    struct pge_supervisor_options o;
    (void)state;
    pge_options_default(&o);
    assert_int_equal(o.workers, 1);
    pge_options_read(&o,
                     span("workers 4\nadmin unix /run/a b\nwatch 1\nunknown 7\ndrain_timeout 12\n"
                          "budget 0\nload_budget 9"));
    assert_int_equal(o.workers, 4);
    assert_string_equal(o.admin, "unix /run/a b");
    assert_true(o.watch);
    assert_int_equal(o.drain_timeout_ms, 12);
    assert_int_equal(o.budget_ms, 0);
    assert_int_equal(o.load_budget_ms, 9);
    pge_options_read(&o, span("workers 100000\nwatch 0\n"));
    assert_int_equal(o.workers, PGE_MAX_WORKERS);
    assert_false(o.watch);
    pge_options_read(&o, span("workers 0"));
    assert_int_equal(o.workers, 1);
}

/* ---- a worker without a process ---- */

struct house {
    struct pge_supervisor s;
    struct pge_worker *w[2];
    int ends[2]; /* the workers' ends of their channels or doors */
};

static struct house *house_new(void) {
    struct house *h = calloc(1, sizeof *h);
    pge_options_default(&h->s.options);
    pge_reload_init(&h->s.reload);
    pge_list_init(&h->s.sockets);
    uv_loop_init(&h->s.uv);
    assert_int_equal(pge_loop_init(&h->s.loop, &h->s.uv, NULL, NULL), 0);
    for (unsigned i = 0; i < 2; i++) {
        h->w[i] = h->s.workers[i] = pge_worker_new(&h->s, i + 1);
        h->w[i]->open_handles = 1; /* that it has none left would be its end */
        h->w[i]->state = PGE_WORKER_LOADING;
        h->w[i]->attempt = 1;
        h->ends[i] = -1;
    }
    h->s.worker_count = 2;
    return h;
}

static void house_free(struct house *h) {
    for (int i = 0; i < 2; i++) {
        if (h->w[i]->control)
            pge_conn_close(h->w[i]->control);
        pge_door_close(h->w[i]);
        if (h->ends[i] >= 0)
            close(h->ends[i]);
    }
    pge_sockets_close(&h->s);
    uv_run(&h->s.uv, UV_RUN_DEFAULT);
    pge_loop_deinit(&h->s.loop);
    uv_run(&h->s.uv, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&h->s.uv), 0);
    for (int i = 0; i < 2; i++)
        pge_worker_free(h->w[i]);
    free(h);
}

static void turn(struct house *h) {
    for (int i = 0; i < 4; i++)
        uv_run(&h->s.uv, UV_RUN_NOWAIT);
}

static void takes_frames_byte_by_byte(void **state) {
    static const char frames[] = "\2\0\0\0!\7\0\0\0{}\0\0\0\0!\x08\1\0\0";
    struct house *h = house_new();
    int pair[2];
    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
    assert_int_equal(pge_control_open(h->w[0], pair[0]), 0);
    h->ends[0] = pair[1];
    for (size_t i = 0; i < sizeof frames - 1; i++) {
        assert_int_equal(h->w[0]->ponged, i < 11 ? 0 : 7);
        assert_int_equal(write(pair[1], frames + i, 1), 1);
        turn(h);
    }
    assert_int_equal(h->w[0]->ponged, 0x108);
    assert_int_equal(pge_buf_len(&h->w[0]->status), 2); /* the second said nothing of it */
    pge_control_send(h->w[0], PGE_ABORT, 0x01020304, span("x"));
    turn(h);
    char told[16];
    assert_int_equal(read(pair[1], told, sizeof told), 10);
    assert_memory_equal(told, "\1\0\0\0A\4\3\2\1x", 10);
    house_free(h);
}

/* ---- sockets ---- */

static int open_door(struct house *h, int i) {
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
    assert_int_equal(pge_door_open(h->w[i], pair[0]), 0);
    return h->ends[i] = pair[1];
}

static struct sockaddr_storage inet_at(uint16_t port) {
    struct sockaddr_storage at = {0};
    struct sockaddr_in *in = (struct sockaddr_in *)(void *)&at;
    in->sin_family = AF_INET;
    in->sin_port = htons(port);
    in->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return at;
}

/* Asks as a worker does. The status; *fd: the socket, -1: none. */
static int ask(struct house *h, int i, struct sockaddr_storage at, int *fd, uint32_t *hold) {
    struct pge_door_request request = {PGE_DOOR_LISTEN, 5, 0, 16, at};
    struct pge_door_reply reply;
    union {
        struct cmsghdr head;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec bytes = {&reply, sizeof reply};
    struct msghdr message = {.msg_iov = &bytes,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof control.bytes};
    assert_int_equal(write(h->ends[i], &request, sizeof request), sizeof request);
    turn(h);
    assert_int_equal(recvmsg(h->ends[i], &message, MSG_DONTWAIT), sizeof reply);
    assert_int_equal(reply.serial, 5);
    *fd = -1;
    if (CMSG_FIRSTHDR(&message))
        memcpy(fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof *fd);
    *hold = reply.hold;
    return reply.status;
}

static uint16_t port_of(int fd) {
    struct sockaddr_in in;
    socklen_t size = sizeof in;
    assert_int_equal(getsockname(fd, (struct sockaddr *)&in, &size), 0);
    return ntohs(in.sin_port);
}

static void give_back(struct house *h, int i, uint32_t hold) {
    struct pge_door_request request = {.op = PGE_DOOR_CLOSED, .hold = hold};
    assert_int_equal(write(h->ends[i], &request, sizeof request), sizeof request);
    turn(h);
}

static void gives_all_workers_the_same_sockets_in_order(void **state) {
    struct house *h = house_new();
    int fds[4];
    uint32_t holds[4];
    (void)state;
    for (int i = 0; i < 4; i++) {
        if (i % 2 == 0)
            open_door(h, i / 2);
        assert_int_equal(ask(h, i / 2, inet_at(0), &fds[i], &holds[i]), 0);
    }
    assert_int_equal(port_of(fds[0]), port_of(fds[2]));
    assert_int_equal(port_of(fds[1]), port_of(fds[3]));
    assert_int_not_equal(port_of(fds[0]), port_of(fds[1]));
    for (int i = 0; i < 4; i++)
        close(fds[i]);
    house_free(h);
}

static void refuses_an_address_twice_in_one_generation(void **state) {
    struct house *h = house_new();
    int first, second;
    uint32_t hold, other;
    (void)state;
    open_door(h, 0);
    assert_int_equal(ask(h, 0, inet_at(0), &first, &hold), 0);
    uint16_t taken = port_of(first);
    assert_int_equal(ask(h, 0, inet_at(taken), &second, &other), UV_EADDRINUSE);
    give_back(h, 0, hold);
    close(first);
    pge_sockets_close(&h->s);
    assert_int_equal(ask(h, 0, inet_at(taken), &first, &hold), 0);
    assert_int_equal(ask(h, 0, inet_at(taken), &second, &other), UV_EADDRINUSE);
    assert_int_equal(second, -1);
    h->w[0]->attempt = 2; /* the next generation, while the last one still has it */
    assert_int_equal(ask(h, 0, inet_at(taken), &second, &other), 0);
    close(first);
    close(second);
    struct sockaddr_storage bad = {.ss_family = AF_APPLETALK};
    assert_int_equal(ask(h, 0, bad, &second, &other), UV_EAFNOSUPPORT);
    house_free(h);
}

static void keeps_a_socket_until_nobody_is_to_come_for_it(void **state) {
    struct house *h = house_new();
    int fd;
    uint32_t hold;
    (void)state;
    open_door(h, 0);
    open_door(h, 1);
    assert_int_equal(ask(h, 0, inet_at(0), &fd, &hold), 0);
    close(fd);
    h->w[0]->state = h->w[1]->state = PGE_WORKER_IDLE;
    pge_sockets_forget(&h->s, h->w[0]); /* it has died: it comes again */
    h->w[0]->state = PGE_WORKER_NONE;
    pge_sockets_sweep(&h->s);
    assert_false(pge_list_is_empty(&h->s.sockets));
    h->w[0]->state = PGE_WORKER_LOADING;
    assert_int_equal(ask(h, 0, inet_at(0), &fd, &hold), 0);
    close(fd);
    h->w[0]->state = PGE_WORKER_IDLE;
    pge_sockets_sweep(&h->s);
    assert_false(pge_list_is_empty(&h->s.sockets));
    give_back(h, 1, hold); /* not its own */
    assert_false(pge_list_is_empty(&h->s.sockets));
    give_back(h, 0, hold);
    assert_true(pge_list_is_empty(&h->s.sockets));
    house_free(h);
}

static void removes_the_file_of_a_unix_socket(void **state) {
    struct house *h = house_new();
    struct sockaddr_storage at = {.ss_family = AF_UNIX};
    char *path = ((struct sockaddr_un *)(void *)&at)->sun_path;
    int fd;
    uint32_t hold;
    (void)state;
    snprintf(path, 64, "/tmp/perigee-unit-%d.sock", (int)getpid());
    open_door(h, 0);
    assert_int_equal(ask(h, 0, at, &fd, &hold), 0);
    close(fd);
    assert_int_equal(access(path, F_OK), 0);
    h->w[0]->state = h->w[1]->state = PGE_WORKER_IDLE;
    give_back(h, 0, hold);
    assert_int_equal(access(path, F_OK), -1);
    memset(path, 'x', sizeof(struct sockaddr_un) - offsetof(struct sockaddr_un, sun_path));
    assert_int_equal(ask(h, 0, at, &fd, &hold), UV_EAFNOSUPPORT); /* no end */
    house_free(h);
}

/* ---- status ---- */

static void writes_its_status_as_json(void **state) {
    struct house *h = house_new();
    struct pge_buf out = {0};
    (void)state;
    pge_buf_append(&h->s.told, "http://a\ntcp://b\n", 17);
    h->s.outcome.is_known = true;
    pge_buf_append(&h->s.outcome.text, "a\"\\\n\xff", 5);
    assert_int_equal(pge_status_write(&h->s, &out), 0);
    pge_buf_append(&out, "", 1);
    assert_non_null(strstr(pge_buf_head(&out), "\"listening\":[\"http://a\",\"tcp://b\"]"));
    assert_non_null(strstr(pge_buf_head(&out), "\"error\":\"a\\\"\\\\\\u000a\\u00ff\""));
    assert_non_null(strstr(pge_buf_head(&out), "\"workers\":[{\"index\":1,\"pid\":null,"));
    pge_buf_deinit(&out);
    pge_buf_deinit(&h->s.told);
    pge_buf_deinit(&h->s.outcome.text);
    house_free(h);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(walks_the_files_of_a_bundle),
        cmocka_unit_test(stops_where_a_bundle_is_damaged),
        cmocka_unit_test(compares_a_bundle_with_the_disk),
        cmocka_unit_test(reads_what_a_hello_says),
        cmocka_unit_test(takes_frames_byte_by_byte),
        cmocka_unit_test(gives_all_workers_the_same_sockets_in_order),
        cmocka_unit_test(refuses_an_address_twice_in_one_generation),
        cmocka_unit_test(keeps_a_socket_until_nobody_is_to_come_for_it),
        cmocka_unit_test(removes_the_file_of_a_unix_socket),
        cmocka_unit_test(writes_its_status_as_json),
    };
    return cmocka_run_group_tests_name("supervisor", tests, NULL, NULL);
}
