/* nats_test.c - core/codec/nats.c */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <uv.h>

#include <cmocka.h>

#include "codec/nats.h"
#include "fail_alloc.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define MAX_PAYLOAD 1000

static void note(struct pge_buf *log, const char *name, struct pge_span text) {
    if (!text.p)
        return;
    assert_int_equal(pge_buf_append(log, name, strlen(name)), 0);
    assert_int_equal(pge_buf_append(log, text.p, text.n), 0);
}

/* "[1 sid=7 s=subject r=reply h=headers p=payload]" */
static void note_event(struct pge_buf *log, const struct pge_nats_event *event) {
    char head[64];
    int n = snprintf(head, sizeof(head), "[%d", (int)event->kind);
    if (event->kind == PGE_NATS_MSG)
        n += snprintf(head + n, sizeof(head) - (size_t)n, " sid=%llu",
                      (unsigned long long)event->sid);
    note(log, "", (struct pge_span){head, (size_t)n});
    note(log, " s=", event->subject);
    note(log, " r=", event->reply_to);
    note(log, " h=", event->headers);
    note(log, " p=", event->payload);
    note(log, " t=", event->text);
    assert_int_equal(PGE_BUF_LIT(log, "]"), 0);
}

/* All events there are, or one when parking; an error as "!code text". */
static int drain(struct pge_nats *f, struct pge_buf *log, int park) {
    struct pge_nats_event event;
    int status;
    while ((status = pge_nats_next(f, &event)) == 1) {
        note_event(log, &event);
        if (park)
            return 1;
    }
    if (status < 0) {
        char text[256];
        int n = snprintf(text, sizeof(text), "!%s %s", uv_err_name(status), f->error);
        assert_int_equal(pge_buf_append(log, text, (size_t)n), 0);
    }
    return status;
}

/* Feeds from a block that ends where the bytes end and is gone once the loan is over. */
static int feed(struct pge_nats *f, const char *bytes, size_t n, struct pge_buf *log, int park) {
    char *lent = malloc(n ? n : 1);
    memcpy(lent, bytes, n);
    assert_int_equal(pge_nats_feed(f, lent, n), 0);
    int status = drain(f, log, park);
    if (park && status >= 0)
        assert_int_equal(pge_nats_park(f), 0);
    free(lent);
    return status;
}

static void start_log(struct pge_buf *log) {
    *log = (struct pge_buf){0};
    assert_int_equal(pge_buf_reserve(log, 1), 0);
}

/* Feeds bytes cut at a and b. */
static struct pge_buf run(const char *bytes, size_t n, size_t a, size_t b) {
    struct pge_nats f;
    struct pge_buf log;
    start_log(&log);
    pge_nats_init(&f, MAX_PAYLOAD);
    if (feed(&f, bytes, a, &log, 0) == 0 && feed(&f, bytes + a, b - a, &log, 0) == 0)
        feed(&f, bytes + b, n - b, &log, 0);
    pge_nats_deinit(&f);
    return log;
}

/* Reads of `step` bytes; when parking, each is followed by one event only. */
static struct pge_buf run_steps(const char *bytes, size_t n, size_t step, int park) {
    struct pge_nats f;
    struct pge_buf log;
    size_t at = 0;
    int status = 0;
    start_log(&log);
    pge_nats_init(&f, MAX_PAYLOAD);
    while (status > 0 || (status == 0 && at < n)) {
        size_t len = n - at < step ? n - at : step;
        status = feed(&f, bytes + at, len, &log, park);
        at += len;
    }
    pge_nats_deinit(&f);
    return log;
}

static void assert_log(struct pge_buf *log, const char *expected) {
    size_t n = strlen(expected);
    if (pge_buf_len(log) != n || memcmp(pge_buf_head(log), expected, n) != 0)
        fail_msg("got %.*s, expected %s", (int)pge_buf_len(log), pge_buf_head(log), expected);
    pge_buf_deinit(log);
}

/* Whatever the cuts, the log is the same. */
static void assert_events(const char *bytes, const char *expected) {
    size_t n = strlen(bytes);
    for (size_t a = 0; a <= n; a++) {
        for (size_t b = a; b <= n; b++) {
            struct pge_buf log = run(bytes, n, a, b);
            assert_log(&log, expected);
        }
    }
    for (size_t step = 1; step <= n; step++) {
        struct pge_buf log = run_steps(bytes, n, step, 0);
        assert_log(&log, expected);
        log = run_steps(bytes, n, step, 1);
        assert_log(&log, expected);
    }
}

static void reads_what_a_server_sends_from_any_split(void **state) {
    (void)state;
    assert_events("", "");
    assert_events("PING\r\nPONG\r\n+OK\r\n", "[2][3][4]");
    assert_events("INFO {\"server_id\":\"N\"} \r\nPING\r\n", "[0 t={\"server_id\":\"N\"}][2]");
    assert_events("-ERR 'Unknown Protocol Operation'\r\n-ERR x'y\r\n",
                  "[5 t=Unknown Protocol Operation][5 t=x'y]");
    assert_events("MSG echo 9 5\r\nhello\r\nPING\r\n", "[1 sid=9 s=echo p=hello][2]");
    assert_events("MSG a.b 18446744073709551615 _INBOX.x 0\r\n\r\n",
                  "[1 sid=18446744073709551615 s=a.b r=_INBOX.x p=]");
    assert_events("MSG {\"cmd\":\"x\"} 1 4\r\n\r\n\r\n\r\n",
                  "[1 sid=1 s={\"cmd\":\"x\"} p=\r\n\r\n]");
    assert_events("MSG a 1 3\r\nabc", "");
}

static void reads_messages_with_headers(void **state) { /* NAT-05, NAT-10 */
    (void)state;
    assert_events("HMSG a 1 r 18 20\r\nNATS/1.0\r\nx: 1\r\n\r\n{}\r\n",
                  "[1 sid=1 s=a r=r h=NATS/1.0\r\nx: 1\r\n\r\n p={}]");
    assert_events("HMSG a 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n",
                  "[1 sid=1 s=a h=NATS/1.0 503\r\n\r\n p=]");
}

static void takes_small_letters_tabs_and_bare_line_feeds(void **state) {
    (void)state;
    assert_events("ping\n+ok\r\nmsg\ta  1\t 2 \nhi\r\ninfo  {}\n-err  'x' \n",
                  "[2][4][1 sid=1 s=a p=hi][0 t={}][5 t=x]");
}

/* A subject of 20 bytes with any byte anywhere inside: only a blank or a tab cuts it. */
static void ends_words_at_blanks_alone(void **state) {
    (void)state;
    for (size_t at = 1; at < 19; at++) {
        for (int c = 1; c < 256; c++) {
            char line[] = "MSG aaaaaaaaaaaaaaaaaaaa 1 2\r\nhi\r\n", wanted[96];
            if (c == '\n')
                continue;
            line[4 + at] = (char)c;
            snprintf(wanted, sizeof wanted, "[1 sid=1 s=%.20s p=hi]", line + 4);
            if (c == ' ' || c == '\t')
                snprintf(wanted, sizeof wanted, "!EPROTO \"%.28s\" is no line of a NATS server",
                         line);
            if (c == '\t')
                wanted[9 + 4 + at] = '?';
            struct pge_buf log = run(line, sizeof line - 1, 0, 0);
            assert_log(&log, wanted);
        }
    }
}

static void refuses_what_no_server_sends(void **state) {
    (void)state;
    const char *const lines[][2] = {
        {"HTTP/1.1 400 Bad\r\n", "HTTP/1.1 400 Bad"},
        {"\r\n", ""},
        {"MSGS a 1 0\r\n", "MSGS a 1 0"},
        {"MSG\r\n", "MSG"},
        {"MSG a 1\r\n", "MSG a 1"},
        {"MSG a 1 r 1 1\r\n", "MSG a 1 r 1 1"},
        {"MSG a x 1\r\n", "MSG a x 1"},
        {"MSG a 1 -1\r\n", "MSG a 1 -1"},
        {"MSG a 18446744073709551616 1\r\n", "MSG a 18446744073709551616 1"},
        {"HMSG a 1 2\r\n", "HMSG a 1 2"},
        {"HMSG a 1 5 2\r\n", "HMSG a 1 5 2"},
        {"HMSG a 1 r 5 x\r\n", "HMSG a 1 r 5 x"},
        {"HMSG a 1 r 5 5 5\r\n", "HMSG a 1 r 5 5 5"},
        {"\x80\x01 and more than thirty-two bytes\r\n", "?? and more than thirty-two byte"},
    };
    for (size_t i = 0; i < COUNT(lines); i++) {
        char expected[200];
        snprintf(expected, sizeof(expected), "[3]!EPROTO \"%s\" is no line of a NATS server",
                 lines[i][1]);
        char bytes[200];
        snprintf(bytes, sizeof(bytes), "PONG\r\n%s", lines[i][0]);
        assert_events(bytes, expected);
    }
    assert_events("MSG a 1 1\r\nabPING\r\n",
                  "!EPROTO A NATS message is longer than its declared size");
    assert_events("MSG a 1 1\r\na\n\n", "!EPROTO A NATS message is longer than its declared size");
}

static void bounds_a_declared_size_before_keeping_it(void **state) {
    (void)state;
    assert_events("MSG a 1 1001\r\n", "!EMSGSIZE A message of 1001 bytes, of at most 1000");
    assert_events("HMSG a 1 12 99999999999\r\n",
                  "!EMSGSIZE A message of 99999999999 bytes, of at most 1000");
    assert_events("MSG a 1 18446744073709551615\r\n",
                  "!EMSGSIZE A message of 18446744073709551615 bytes, of at most 1000");
}

/* A line of n bytes, its end included, that begins with `op `. */
static char *long_line(const char *op, size_t n) {
    char *line = malloc(n);
    memset(line, 'x', n);
    memcpy(line, op, strlen(op));
    line[strlen(op)] = ' ';
    line[n - 2] = '\r';
    line[n - 1] = '\n';
    return line;
}

static void bounds_lines(void **state) {
    (void)state;
    const struct {
        const char *op;
        size_t limit;
    } cases[] = {{"-ERR", PGE_NATS_LINE_MAX}, {"INFO", PGE_NATS_INFO_MAX}};
    const size_t steps[] = {1, 7, 4096, 100000};
    for (size_t i = 0; i < COUNT(cases); i++) {
        for (size_t k = 0; k < COUNT(steps); k++) {
            for (size_t more = 0; more < 2; more++) {
                size_t n = cases[i].limit + more;
                char *line = long_line(cases[i].op, n);
                struct pge_buf log = run_steps(line, n, steps[k], 0);
                char expected[100];
                snprintf(expected, sizeof(expected),
                         "!EMSGSIZE A line of the NATS server is longer than %zu bytes",
                         cases[i].limit);
                if (more)
                    assert_log(&log, expected);
                else
                    assert_int_equal(pge_buf_len(&log), n - 7 + 6); /* [5 t=xxx] */
                pge_buf_deinit(&log);
                free(line);
            }
        }
    }
}

static void stays_in_its_error(void **state) {
    (void)state;
    struct pge_nats f;
    struct pge_nats_event event;
    pge_nats_init(&f, MAX_PAYLOAD);
    assert_int_equal(pge_nats_feed(&f, "what\r\nPING\r\n", 12), 0);
    assert_int_equal(pge_nats_next(&f, &event), UV_EPROTO);
    assert_int_equal(pge_nats_next(&f, &event), UV_EPROTO);
    assert_int_equal(pge_nats_feed(&f, "PING\r\n", 6), UV_EPROTO);
    assert_int_equal(pge_nats_unread(&f), 0);
    pge_nats_deinit(&f);
}

static void returns_whole_messages_without_a_copy(void **state) {
    (void)state;
    const char bytes[] =
        "MSG a 1 2\r\nhi\r\nHMSG b 2 12 14\r\nNATS/1.0\r\n\r\nyo\r\nMSG c 3 5\r\nhe";
    struct pge_nats f;
    struct pge_nats_event event;
    pge_nats_init(&f, MAX_PAYLOAD);
    assert_int_equal(pge_nats_feed(&f, bytes, sizeof(bytes) - 1), 0);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pge_nats_next(&f, &event), 1);
        assert_true(event.subject.p > bytes && event.subject.p < bytes + sizeof(bytes));
        assert_true(event.payload.p > bytes && event.payload.p < bytes + sizeof(bytes));
        assert_null(f.held.data);
    }
    assert_int_equal(pge_nats_next(&f, &event), 0);
    /* The held message ends in the next read, which goes on in place. */
    const char rest[] = "llo\r\nMSG d 4 1\r\nd\r\n";
    assert_int_equal(pge_nats_feed(&f, rest, sizeof(rest) - 1), 0);
    assert_int_equal(pge_nats_next(&f, &event), 1);
    assert_memory_equal(event.payload.p, "hello", 5);
    assert_int_equal(pge_nats_next(&f, &event), 1);
    assert_ptr_equal(event.payload.p, rest + 16);
    pge_nats_deinit(&f);
}

static void says_how_many_bytes_are_unread(void **state) {
    (void)state;
    struct pge_nats f;
    struct pge_nats_event event;
    pge_nats_init(&f, MAX_PAYLOAD);
    assert_int_equal(pge_nats_feed(&f, "INFO {}\r\nPING\r\nPI", 17), 0);
    assert_int_equal(pge_nats_next(&f, &event), 1);
    assert_int_equal(pge_nats_unread(&f), 8); /* plain bytes where TLS was to start */
    assert_int_equal(pge_nats_next(&f, &event), 1);
    assert_int_equal(pge_nats_unread(&f), 2);
    assert_int_equal(pge_nats_next(&f, &event), 0);
    assert_int_equal(pge_nats_unread(&f), 2);
    assert_int_equal(pge_nats_feed(&f, "NG\r\n", 4), 0);
    assert_int_equal(pge_nats_unread(&f), 6);
    assert_int_equal(pge_nats_next(&f, &event), 1);
    assert_int_equal(pge_nats_unread(&f), 0);
    pge_nats_deinit(&f);
}

/* "MSG a 1 N\r\n", N bytes, CR LF. */
static char *make_message(size_t payload, size_t *n) {
    char *bytes = malloc(payload + 64);
    size_t head = (size_t)sprintf(bytes, "MSG a 1 %zu\r\n", payload);
    memset(bytes + head, 'x', payload);
    bytes[head + payload] = '\r';
    bytes[head + payload + 1] = '\n';
    *n = head + payload + 2;
    return bytes;
}

static void gives_back_the_memory_of_a_big_message(void **state) {
    (void)state;
    struct pge_nats f;
    struct pge_nats_event event;
    size_t n;
    char *bytes = make_message(1 << 20, &n);
    pge_nats_init(&f, 1 << 20);
    assert_int_equal(pge_nats_feed(&f, bytes, n - 1), 0);
    assert_int_equal(pge_nats_next(&f, &event), 0);
    assert_true(f.held.cap >= 1 << 20);
    assert_int_equal(pge_nats_feed(&f, bytes + n - 1, 1), 0);
    assert_int_equal(pge_nats_next(&f, &event), 1);
    assert_int_equal(event.payload.n, 1 << 20);
    assert_int_equal(pge_nats_next(&f, &event), 0);
    assert_true(f.held.cap <= 4096);
    pge_nats_deinit(&f);
    free(bytes);
}

static void fails_cleanly_when_memory_runs_out(void **state) {
    (void)state;
    struct fail_alloc memory;
    struct pge_nats f;
    struct pge_nats_event event;
    size_t n;
    char *bytes = make_message(990, &n);
    for (size_t grants = 0; grants < 2; grants++) {
        fail_alloc_start(&memory, grants);
        pge_nats_init(&f, MAX_PAYLOAD);
        int status = 0;
        for (size_t i = 0; i + 10 < n && status == 0; i += 10) {
            assert_int_equal(pge_nats_feed(&f, bytes + i, 10), 0);
            status = pge_nats_next(&f, &event);
        }
        assert_int_equal(status, UV_ENOMEM);
        assert_int_equal(pge_nats_next(&f, &event), UV_ENOMEM);
        pge_nats_deinit(&f);
        assert_int_equal(memory.held, 0);
    }
    fail_alloc_start(&memory, 0);
    pge_nats_init(&f, MAX_PAYLOAD);
    assert_int_equal(pge_nats_feed(&f, "PING\r\nPING\r\n", 12), 0);
    assert_int_equal(pge_nats_park(&f), UV_ENOMEM);
    assert_int_equal(pge_nats_feed(&f, "PING\r\n", 6), UV_ENOMEM);
    pge_nats_deinit(&f);
    fail_alloc_stop();
    free(bytes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_what_a_server_sends_from_any_split),
        cmocka_unit_test(reads_messages_with_headers),
        cmocka_unit_test(takes_small_letters_tabs_and_bare_line_feeds),
        cmocka_unit_test(ends_words_at_blanks_alone),
        cmocka_unit_test(refuses_what_no_server_sends),
        cmocka_unit_test(bounds_a_declared_size_before_keeping_it),
        cmocka_unit_test(bounds_lines),
        cmocka_unit_test(stays_in_its_error),
        cmocka_unit_test(returns_whole_messages_without_a_copy),
        cmocka_unit_test(says_how_many_bytes_are_unread),
        cmocka_unit_test(gives_back_the_memory_of_a_big_message),
        cmocka_unit_test(fails_cleanly_when_memory_runs_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
