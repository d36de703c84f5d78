/* nats_write_test.c - core/codec/nats_write.c, nats_headers.c and nats_subject.c */
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

static struct pge_span span(const char *text) {
    return (struct pge_span){text, text ? strlen(text) : 0};
}

static void assert_written(struct pge_buf *out, const char *expected) {
    size_t n = strlen(expected);
    if (pge_buf_len(out) != n || memcmp(pge_buf_head(out), expected, n) != 0)
        fail_msg("wrote %.*s, expected %s", (int)pge_buf_len(out), pge_buf_head(out), expected);
    pge_buf_clear(out);
}

static void writes_lines(void **state) { /* NAT-01, NAT-02, NAT-08 */
    (void)state;
    struct pge_buf out = {0};
    assert_int_equal(pge_nats_connect(&out, span("{\"headers\":true}")), 0);
    assert_written(&out, "CONNECT {\"headers\":true}\r\n");
    assert_int_equal(pge_nats_sub(&out, span("echo"), span("q1"), 1), 0);
    assert_int_equal(pge_nats_sub(&out, span("a.*"), span(NULL), UINT64_MAX), 0);
    assert_written(&out, "SUB echo q1 1\r\nSUB a.* 18446744073709551615\r\n");
    assert_int_equal(pge_nats_unsub(&out, 7, 0), 0);
    assert_int_equal(pge_nats_unsub(&out, 8, 1), 0);
    assert_written(&out, "UNSUB 7\r\nUNSUB 8 1\r\n");
    assert_int_equal(pge_nats_ping(&out), 0);
    assert_int_equal(pge_nats_pong(&out), 0);
    assert_written(&out, "PING\r\nPONG\r\n");
    pge_buf_deinit(&out);
}

static void publish(struct pge_buf *out, const char *reply_to, const char *const *headers,
                    const char *payload, size_t n) {
    struct pge_nats_pub pub;
    assert_int_equal(pge_nats_pub_begin(out, &pub, span("echo"), span(reply_to), headers != NULL),
                     0);
    for (; headers && headers[0]; headers += 2)
        assert_int_equal(pge_nats_pub_header(out, span(headers[0]), span(headers[1])), 0);
    if (pub.has_headers)
        assert_int_equal(pge_nats_pub_body(out, &pub), 0);
    assert_int_equal(pge_buf_append(out, payload, n), 0);
    assert_int_equal(pge_nats_pub_end(out, &pub), 0);
}

static void writes_messages(void **state) { /* NAT-05 */
    (void)state;
    struct pge_buf out = {0};
    const char *const some[] = {"x-version", "1", "x-empty", "", NULL};
    const char *const none[] = {NULL};
    publish(&out, NULL, NULL, "hello", 5);
    publish(&out, "_INBOX.1", NULL, "", 0);
    assert_written(&out, "PUB echo 5\r\nhello\r\nPUB echo _INBOX.1 0\r\n\r\n");
    publish(&out, "r", some, "{}", 2);
    assert_written(&out,
                   "HPUB echo r 37 39\r\nNATS/1.0\r\nx-version: 1\r\nx-empty: \r\n\r\n{}\r\n");
    publish(&out, NULL, none, "{}", 2);
    assert_written(&out, "HPUB echo 12 14\r\nNATS/1.0\r\n\r\n{}\r\n");
    pge_buf_deinit(&out);
}

/* What is written reads back, whatever the width of its sizes. */
static void assert_reads_back(struct pge_buf *out, size_t header_size, const char *text, size_t n) {
    struct pge_nats f;
    struct pge_nats_event event;
    char sid[64];
    /* As a server makes it: another verb, and the subscription's number behind the subject. */
    size_t verb = header_size ? 9 : 8;
    int head = snprintf(sid, sizeof(sid), "%s echo 77", header_size ? "HMSG" : "MSG");
    pge_nats_init(&f, 200000);
    assert_int_equal(pge_nats_feed(&f, sid, (size_t)head), 0);
    assert_int_equal(pge_nats_next(&f, &event), 0);
    assert_int_equal(pge_nats_feed(&f, pge_buf_head(out) + verb, pge_buf_len(out) - verb), 0);
    assert_int_equal(pge_nats_next(&f, &event), 1);
    assert_int_equal(event.sid, 77);
    assert_int_equal(event.headers.n, header_size);
    assert_int_equal(event.payload.n, n);
    assert_memory_equal(event.payload.p, text, n);
    assert_int_equal(pge_nats_next(&f, &event), 0);
    assert_int_equal(pge_nats_unread(&f), 0);
    pge_nats_deinit(&f);
    pge_buf_clear(out);
}

static void writes_sizes_of_every_width(void **state) {
    (void)state;
    const size_t sizes[] = {0, 1, 9, 10, 99, 100, 101, 999, 1000, 9999, 10000, 123456};
    struct pge_buf out = {0};
    char *text = malloc(123456), *value = malloc(10001);
    for (size_t i = 0; i < 123456; i++)
        text[i] = (char)('a' + i % 26);
    for (size_t i = 0; i < COUNT(sizes); i++) {
        publish(&out, NULL, NULL, text, sizes[i]);
        assert_reads_back(&out, 0, text, sizes[i]);
        for (size_t k = 0; sizes[k] <= 10000; k++) {
            memset(value, 'v', sizes[k]);
            value[sizes[k]] = '\0';
            const char *const headers[] = {"n", value, NULL};
            publish(&out, NULL, headers, text, sizes[i]);
            assert_reads_back(&out, 17 + sizes[k], text, sizes[i]);
        }
    }
    pge_buf_deinit(&out);
    free(text);
    free(value);
}

static void counts_headers_and_payload_against_max_payload(void **state) { /* NAT-07 */
    (void)state;
    struct pge_buf out = {0};
    struct pge_nats_pub pub;
    PGE_BUF_LIT(&out, "PING\r\n");
    assert_int_equal(pge_nats_pub_begin(&out, &pub, span("echo"), span(NULL), true), 0);
    assert_int_equal(pge_nats_pub_header(&out, span("a"), span("b")), 0);
    assert_int_equal(pge_nats_pub_body(&out, &pub), 0);
    PGE_BUF_LIT(&out, "hello");
    assert_int_equal(pge_nats_pub_size(&out, &pub), 10 + 6 + 2 + 5);
    pge_nats_pub_abort(&out, &pub);
    assert_written(&out, "PING\r\n");
    pge_buf_deinit(&out);
}

/* Of k steps that need memory, all but the last have it. */
static void takes_back_what_it_cannot_finish(void **state) {
    (void)state;
    struct fail_alloc memory;
    struct pge_buf out = {0};
    struct pge_nats_pub pub;
    char *big = malloc(600);
    memset(big, 'x', 600);
    struct pge_span huge = {big, 600};
    fail_alloc_start(&memory, 1);
    assert_int_equal(pge_nats_ping(&out), 0); /* 512 bytes */
    assert_int_equal(pge_nats_connect(&out, huge), UV_ENOMEM);
    assert_int_equal(pge_nats_sub(&out, huge, span("q"), 1), UV_ENOMEM);
    assert_int_equal(pge_nats_pub_begin(&out, &pub, huge, span(NULL), false), UV_ENOMEM);
    pge_nats_pub_abort(&out, &pub);
    assert_int_equal(pge_nats_pub_begin(&out, &pub, span("s"), span(NULL), true), 0);
    assert_int_equal(pge_nats_pub_header(&out, span("n"), huge), UV_ENOMEM);
    pge_nats_pub_abort(&out, &pub);
    assert_int_equal(pge_nats_pub_begin(&out, &pub, span("s"), span(NULL), false), 0);
    while (pge_buf_len(&out) < 512)
        assert_int_equal(PGE_BUF_LIT(&out, "x"), 0);
    assert_int_equal(pge_nats_pub_end(&out, &pub), UV_ENOMEM);
    pge_nats_pub_abort(&out, &pub);
    assert_int_equal(pge_buf_len(&out), 6);
    fail_alloc_stop();
    assert_written(&out, "PING\r\n");
    pge_buf_deinit(&out);
    free(big);
}

/* ---- headers ---- */

static struct pge_buf walk(const char *block) {
    struct pge_nats_headers it;
    struct pge_span name, value;
    struct pge_buf log = {0};
    char status[32];
    /* In memory of its own size, so that a read behind its end is seen. */
    size_t n = strlen(block);
    char *copy = malloc(n ? n : 1);
    memcpy(copy, block, n);
    assert_int_equal(pge_nats_headers_begin(&it, (struct pge_span){copy, n}), 0);
    int width = snprintf(status, sizeof(status), "%u", it.status);
    pge_buf_append(&log, status, (size_t)width);
    if (it.description.p) {
        PGE_BUF_LIT(&log, " ");
        pge_buf_append(&log, it.description.p, it.description.n);
    }
    while (pge_nats_headers_next(&it, &name, &value)) {
        PGE_BUF_LIT(&log, "|");
        pge_buf_append(&log, name.p, name.n);
        PGE_BUF_LIT(&log, "=");
        pge_buf_append(&log, value.p, value.n);
    }
    free(copy);
    return log;
}

static void reads_header_blocks(void **state) { /* NAT-03, NAT-10 */
    (void)state;
    const char *const blocks[][2] = {
        {"NATS/1.0\r\n\r\n", "0"},
        {"NATS/1.0\r\nx-multi: a\r\nX: 1\r\nx-multi: b\r\n\r\n", "0|x-multi=a|X=1|x-multi=b"},
        {"NATS/1.0 503\r\n\r\n", "503"},
        {"NATS/1.0 503 No Responders \r\na:b\r\n\r\n", "503 No Responders|a=b"},
        {"NATS/1.0404 x\r\n\r\n", "404 x"},
        {"NATS/1.0 99999999999 x\r\n\r\n", "9999 9999999 x"},
        {"NATS/1.0 what\r\n\r\n", "0 what"},
        {"NATS/1.0\r\nempty:\r\nspaces: \t \r\nurl:  http://a:1/ \r\n\r\n",
         "0|empty=|spaces=|url=http://a:1/"},
        {"NATS/1.0\r\nno colon\r\n: no name\r\na: 1\r\n\r\n", "0|a=1"},
        {"NATS/1.0\r\na: 1\r\nb: 2", "0|a=1|b=2"},
        {"NATS/1.0\na: 1\n\n", "0|a=1"},
        {"NATS/1.0", "0"},
    };
    for (size_t i = 0; i < COUNT(blocks); i++) {
        struct pge_buf log = walk(blocks[i][0]);
        assert_written(&log, blocks[i][1]);
        pge_buf_deinit(&log);
    }
    struct pge_nats_headers it;
    assert_int_equal(pge_nats_headers_begin(&it, span("NATS/2.0\r\n\r\n")), UV_EPROTO);
    assert_int_equal(pge_nats_headers_begin(&it, span("NATS")), UV_EPROTO);
    assert_int_equal(pge_nats_headers_begin(&it, span("")), UV_EPROTO);
}

static void checks_headers_that_go_out(void **state) {
    (void)state;
    assert_true(pge_nats_is_header_name(span("Nats-Msg-Id")));
    assert_true(pge_nats_is_header_name(span("!~")));
    const char *const names[] = {"", "a b", "a:", "a\r", "\t", "\x7f", "\xC3\xA9"};
    for (size_t i = 0; i < COUNT(names); i++)
        assert_false(pge_nats_is_header_name(span(names[i])));
    assert_true(pge_nats_is_header_value(span("")));
    assert_true(pge_nats_is_header_value(span("a: b \xC3\xA9\t")));
    assert_false(pge_nats_is_header_value(span("a\nb")));
    assert_false(pge_nats_is_header_value(span("a\r")));
    assert_false(pge_nats_is_header_value((struct pge_span){"a\0b", 3}));
}

/* ---- subjects ---- */

static void checks_subjects(void **state) { /* NAT-07 */
    (void)state;
    const char *const good[] = {"a", "a.b.c", "{\"cmd\":\"sum\"}",     "a*b.c>",  "*",
                                ">", "a.*.>", "\xC3\xA9.\xE6\x97\xA5", "_INBOX.x"};
    for (size_t i = 0; i < COUNT(good); i++) {
        assert_int_equal(pge_nats_subject_check(span(good[i])), 0);
        assert_int_equal(pge_nats_subject_check_sub(span(good[i])), 0);
    }
    const char *const bad[] = {"",    " ",    "a b",   "{\"cmd\":\"get user\"}",
                               "a\t", "\r\n", "a\x01", "\x7f"};
    for (size_t i = 0; i < COUNT(bad); i++) {
        assert_int_equal(pge_nats_subject_check(span(bad[i])), UV_EINVAL);
        assert_int_equal(pge_nats_subject_check_sub(span(bad[i])), UV_EINVAL);
    }
    assert_int_equal(pge_nats_subject_check((struct pge_span){"a\0b", 3}), UV_EINVAL);
    const char *const only_published[] = {".", "a.", ".a", "a..b", ">.a", "a.>.b"};
    for (size_t i = 0; i < COUNT(only_published); i++) {
        assert_int_equal(pge_nats_subject_check(span(only_published[i])), 0);
        assert_int_equal(pge_nats_subject_check_sub(span(only_published[i])), UV_EINVAL);
    }
}

/* Whatever the byte and wherever it stands: whole words are looked at. */
static void checks_each_byte_of_a_subject(void **state) { /* NAT-07 */
    (void)state;
    for (size_t n = 1; n <= 20; n++) {
        for (size_t at = 0; at < n; at++) {
            for (int c = 0; c < 256; c++) {
                char text[20];
                memset(text, 'a', n);
                text[at] = (char)c;
                int wanted = c <= ' ' || c == 127 ? UV_EINVAL : 0;
                assert_int_equal(pge_nats_subject_check((struct pge_span){text, n}), wanted);
            }
        }
    }
}

static void matches_subjects(void **state) { /* NAT-09 */
    (void)state;
    const struct {
        const char *pattern, *subject;
        bool is_match, is_wild;
    } cases[] = {
        {"a", "a", true, false},
        {"a", "b", false, false},
        {"a", "a.b", false, false},
        {"a.b", "a", false, false},
        {"a.b", "a.bc", false, false},
        {"*", "a", true, true},
        {"*", "a.b", false, true},
        {"a.*", "a.b", true, true},
        {"a.*", "a", false, true},
        {"a.*.c", "a.b.c", true, true},
        {"a.*.c", "a.b.d", false, true},
        {"*.*", "a.b", true, true},
        {">", "a", true, true},
        {">", "a.b.c", true, true},
        {"a.>", "a.b", true, true},
        {"a.>", "a.b.c", true, true},
        {"a.>", "a", false, true},
        {"a.>", "b.c", false, true},
        {"*.b.>", "a.b.c.d", true, true},
        {"a*", "a*", true, false},
        {"a*", "ab", false, false},
        {"a>", "ab", false, false},
        {"{\"a\":1.5}", "{\"a\":1.5}", true, false},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct pge_span pattern = span(cases[i].pattern), subject = span(cases[i].subject);
        if (pge_nats_subject_match(pattern, subject) != cases[i].is_match)
            fail_msg("%s and %s", cases[i].pattern, cases[i].subject);
        assert_int_equal(pge_nats_subject_is_wild(pattern), cases[i].is_wild);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writes_lines),
        cmocka_unit_test(writes_messages),
        cmocka_unit_test(writes_sizes_of_every_width),
        cmocka_unit_test(counts_headers_and_payload_against_max_payload),
        cmocka_unit_test(takes_back_what_it_cannot_finish),
        cmocka_unit_test(reads_header_blocks),
        cmocka_unit_test(checks_headers_that_go_out),
        cmocka_unit_test(checks_subjects),
        cmocka_unit_test(checks_each_byte_of_a_subject),
        cmocka_unit_test(matches_subjects),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
