/* resp_test.c - core/codec/resp.c */
#include <hiredis/hiredis.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <uv.h>

#include <cmocka.h>

#include "codec/resp.h"
#include "fail_alloc.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define MAX_BYTES 1000

static void note(struct pge_buf *log, const char *text, size_t n) {
    assert_int_equal(pge_buf_append(log, text, n), 0);
}

static void note_item(struct pge_buf *log, const struct pge_resp_item *item) {
    static const char signs[] = "+-:$_*";
    char head[48];
    bool has_number = item->kind == PGE_RESP_INTEGER || item->kind == PGE_RESP_ARRAY;
    int n = has_number
                ? snprintf(head, sizeof head, "%c%lld", signs[item->kind], (long long)item->number)
                : snprintf(head, sizeof head, "%c", signs[item->kind]);
    note(log, head, (size_t)n);
    assert_non_null(item->text.p);
    note(log, item->text.p, item->text.n);
    note(log, " ", 1);
}

static int drain(struct pge_resp *r, struct pge_buf *log) {
    const struct pge_resp_reply *reply;
    int status;
    while ((status = pge_resp_next(r, &reply)) == 1) {
        note(log, reply->is_array ? "[" : "(", 1);
        for (unsigned i = 0; i < reply->count; i++)
            note_item(log, &reply->items[i]);
        note(log, reply->is_array ? "]" : ")", 1);
    }
    if (status < 0) {
        assert_int_equal(pge_resp_next(r, &reply), status);
        assert_true(r->error[0] != '\0');
        note(log, "!", 1);
        note(log, uv_err_name(status), strlen(uv_err_name(status)));
    }
    return status;
}

/* What comes out of bytes that are read `step` at a time, from memory that is gone afterwards. */
static void run(const char *bytes, size_t n, size_t step, struct pge_buf *log) {
    struct pge_resp r;
    *log = (struct pge_buf){0};
    assert_int_equal(pge_buf_reserve(log, 1), 0);
    assert_int_equal(pge_resp_init(&r, MAX_BYTES), 0);
    for (size_t at = 0; at < n; at += step) {
        size_t len = n - at < step ? n - at : step;
        char *lent = malloc(len);
        memcpy(lent, bytes + at, len);
        pge_resp_feed(&r, lent, len);
        int status = drain(&r, log);
        free(lent);
        if (status < 0)
            break;
    }
    pge_resp_deinit(&r);
}

static void expect(const char *bytes, size_t n, const char *expected) {
    for (size_t step = 1; step <= n; step = step < 20 || step == n ? step + 1 : n) {
        struct pge_buf log;
        run(bytes, n, step, &log);
        note(&log, "", 1);
        if (strcmp(pge_buf_head(&log), expected) != 0)
            fail_msg("'%s' by %zu: got '%s', not '%s'", bytes, step, pge_buf_head(&log), expected);
        pge_buf_deinit(&log);
    }
}

struct vector {
    const char *bytes, *expected;
};

static void reads_every_kind_however_it_is_cut(void **state) {
    static const struct vector vectors[] = {
        {"+OK\r\n", "(+OK )"},
        {"-ERR no\r\n:1\r\n", "(-ERR no )(:1 )"},
        {":-9223372036854775808\r\n:0\r\n", "(:-9223372036854775808 )(:0 )"},
        {"$0\r\n\r\n$2\r\n\r\n\r\n$-1\r\n", "($ )($\r\n )(_ )"},
        {"*0\r\n*-1\r\n", "[](_ )"},
        {"*3\r\n$7\r\nmessage\r\n$4\r\necho\r\n$2\r\n{}\r\n", "[$message $echo ${} ]"},
        {"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n+x\r\n", "[$subscribe $a :1 ](+x )"},
        /* ROLE of a master with a replica */
        {"*3\r\n$6\r\nmaster\r\n:42\r\n*1\r\n*2\r\n$1\r\nh\r\n$1\r\n1\r\n", "[$master :42 *1 ]"},
        /* more elements than are kept */
        {"*10\r\n:0\r\n:1\r\n:2\r\n:3\r\n:4\r\n:5\r\n:6\r\n:7\r\n:8\r\n:9\r\n",
         "[:0 :1 :2 :3 :4 :5 :6 :7 ]"},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(vectors); i++)
        expect(vectors[i].bytes, strlen(vectors[i].bytes), vectors[i].expected);
}

static void refuses_what_is_not_resp2(void **state) {
    static const struct vector vectors[] = {
        {"HTTP/1.1 400 Bad Request\r\n", "!EPROTO"},
        {"+OK\r\n?\r\n", "(+OK )!EPROTO"},
        {":1x\r\n", "!EPROTO"},
        {"$-2\r\n", "!EPROTO"},
        {"$2\r\nabXY", "!EPROTO"},
        {"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n", NULL}, /* by version */
        {"*1048577\r\n", "!EMSGSIZE"},
        {"*99999999999999999999\r\n", "!EPROTO"},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(vectors); i++)
        if (vectors[i].expected)
            expect(vectors[i].bytes, strlen(vectors[i].bytes), vectors[i].expected);
    struct pge_buf log;
    run(vectors[5].bytes, strlen(vectors[5].bytes), 1, &log); /* deep: refused or never answered */
    assert_true(pge_buf_len(&log) == 0 || memcmp(pge_buf_head(&log), "!EPROTO", 7) == 0);
    pge_buf_deinit(&log);
}

static void refuses_a_reply_that_is_too_large_at_its_length(void **state) {
    (void)state;
    expect("$1000\r\n", 7, "");
    expect("$1001\r\n", 7, "!EMSGSIZE");
    expect("$9223372036854775807\r\n", 22, "!EMSGSIZE");
    expect("*2\r\n$7\r\nmessage\r\n$994\r\n", 23, "!EMSGSIZE");
    expect("*2\r\n$7\r\nmessage\r\n$993\r\n", 23, "");
    char *line = malloc(PGE_RESP_MAX_LINE + 8);
    memset(line, 'x', PGE_RESP_MAX_LINE + 8);
    line[0] = '+';
    struct pge_buf log;
    run(line, PGE_RESP_MAX_LINE + 8, 1000, &log);
    assert_int_equal(pge_buf_len(&log), 7);
    assert_memory_equal(pge_buf_head(&log), "!EPROTO", 7);
    pge_buf_deinit(&log);
    free(line);
}

static void keeps_what_is_parked(void **state) {
    static const char bytes[] = "+a\r\n+b\r\n$3\r\nabc\r\n";
    const struct pge_resp_reply *reply;
    struct pge_resp r;
    (void)state;
    assert_int_equal(pge_resp_init(&r, MAX_BYTES), 0);
    char *lent = malloc(sizeof bytes - 1);
    memcpy(lent, bytes, sizeof bytes - 1);
    pge_resp_feed(&r, lent, sizeof bytes - 1);
    assert_int_equal(pge_resp_next(&r, &reply), 1);
    assert_true(pge_resp_is(&reply->items[0], "a"));
    assert_false(pge_resp_is(&reply->items[0], "ab"));
    assert_int_equal(pge_resp_park(&r), 0);
    free(lent);
    assert_int_equal(pge_resp_next(&r, &reply), 1);
    assert_true(pge_resp_is(&reply->items[0], "b"));
    assert_int_equal(pge_resp_next(&r, &reply), 1);
    assert_true(pge_resp_is(&reply->items[0], "abc"));
    assert_int_equal(pge_resp_next(&r, &reply), 0);
    pge_resp_deinit(&r);
}

static void survives_out_of_memory(void **state) {
    static const char bytes[] = "*2\r\n$1\r\na\r\n$1\r\nb\r\n";
    const struct pge_resp_reply *reply;
    struct fail_alloc alloc;
    struct pge_resp r;
    (void)state;
    assert_int_equal(pge_resp_init(&r, MAX_BYTES), 0);
    fail_alloc_start(&alloc, 0);
    pge_resp_feed(&r, bytes, sizeof bytes - 1);
    assert_int_equal(pge_resp_next(&r, &reply), UV_ENOMEM);
    pge_resp_deinit(&r);
    assert_int_equal(alloc.held, 0);
    fail_alloc_stop();
}

static void writes_commands_as_hiredis_does(void **state) {
    const char *argv[] = {"SUBSCRIBE", "a b", "", "x\r\n"};
    const size_t lengths[] = {9, 3, 0, 3};
    const struct pge_span args[] = {{"SUBSCRIBE", 9}, {"a b", 3}, {"", 0}, {"x\r\n", 3}};
    (void)state;
    for (unsigned count = 1; count <= 4; count++) {
        char *expected = NULL;
        struct pge_buf out = {0};
        int n = (int)redisFormatCommandArgv(&expected, (int)count, argv, lengths);
        assert_true(n > 0);
        assert_int_equal(pge_resp_command(&out, args, count), 0);
        assert_int_equal(pge_buf_len(&out), n);
        assert_memory_equal(pge_buf_head(&out), expected, n);
        redisFreeCommand(expected);
        pge_buf_deinit(&out);
    }
}

static void writes_publish_of_any_length_in_place(void **state) {
    static const size_t lengths[] = {0, 1, 9, 10, 99, 100, 999, 1000, 12345, 1048576};
    const char *channel = "echo.reply";
    (void)state;
    for (size_t i = 0; i < COUNT(lengths); i++) {
        size_t n = lengths[i];
        char *payload = malloc(n + 1), *expected = NULL;
        memset(payload, 'p', n);
        const char *argv[] = {"PUBLISH", channel, payload};
        const size_t sizes[] = {7, strlen(channel), n};
        int expected_n = (int)redisFormatCommandArgv(&expected, 3, argv, sizes);
        struct pge_buf out = {0};
        struct pge_resp_open open;
        assert_int_equal(PGE_BUF_LIT(&out, "before"), 0);
        struct pge_span name = {"echo", 4}, suffix = {".reply", 6};
        assert_int_equal(pge_resp_publish_open(&out, name, suffix, &open), 0);
        assert_int_equal(pge_buf_append(&out, payload, n), 0);
        assert_int_equal(pge_resp_publish_close(&out, &open), 0);
        assert_int_equal(pge_buf_len(&out), expected_n + 6);
        assert_memory_equal(pge_buf_head(&out) + 6, expected, expected_n);
        pge_resp_publish_undo(&out, &open);
        assert_int_equal(pge_buf_len(&out), 6);
        redisFreeCommand(expected);
        pge_buf_deinit(&out);
        free(payload);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_every_kind_however_it_is_cut),
        cmocka_unit_test(refuses_what_is_not_resp2),
        cmocka_unit_test(refuses_a_reply_that_is_too_large_at_its_length),
        cmocka_unit_test(keeps_what_is_parked),
        cmocka_unit_test(survives_out_of_memory),
        cmocka_unit_test(writes_commands_as_hiredis_does),
        cmocka_unit_test(writes_publish_of_any_length_in_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
