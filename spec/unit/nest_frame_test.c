/* nest_frame_test.c - core/codec/nest_frame.c */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <uv.h>

#include <cmocka.h>

#include "codec/nest_frame.h"
#include "fail_alloc.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define MAX_UNITS 1000

/* Takes all frames there are; each is noted as "[payload]", an error as "!code text". */
static int drain(struct pge_nest_frame *f, struct pge_buf *log, int park) {
    struct pge_span payload;
    int status;
    while ((status = pge_nest_frame_next(f, &payload)) == 1) {
        char head[32];
        assert_non_null(payload.p);
        int n = snprintf(head, sizeof(head), "[%zu:", payload.n);
        assert_int_equal(pge_buf_append(log, head, (size_t)n), 0);
        assert_int_equal(pge_buf_append(log, payload.p, payload.n), 0);
        assert_int_equal(PGE_BUF_LIT(log, "]"), 0);
        if (park)
            return 1;
    }
    if (status < 0) {
        char text[256];
        int n = snprintf(text, sizeof(text), "!%d %s", status, f->error);
        assert_int_equal(pge_buf_append(log, text, (size_t)n), 0);
    }
    return status;
}

/* Feeds from a block that ends where the bytes end and is gone once the loan is over. */
static int feed(struct pge_nest_frame *f, const char *bytes, size_t n, struct pge_buf *log) {
    char *lent = malloc(n ? n : 1);
    memcpy(lent, bytes, n);
    assert_int_equal(pge_nest_frame_feed(f, lent, n), 0);
    int status = drain(f, log, 0);
    free(lent);
    return status;
}

static void start_log(struct pge_buf *log) {
    *log = (struct pge_buf){0};
    assert_int_equal(pge_buf_reserve(log, 1), 0);
}

/* Feeds bytes cut at a and b. */
static struct pge_buf run(const char *bytes, size_t n, size_t a, size_t b) {
    struct pge_nest_frame f;
    struct pge_buf log;
    start_log(&log);
    pge_nest_frame_init(&f, MAX_UNITS);
    if (feed(&f, bytes, a, &log) == 0 && feed(&f, bytes + a, b - a, &log) == 0)
        feed(&f, bytes + b, n - b, &log);
    pge_nest_frame_deinit(&f);
    return log;
}

static struct pge_buf run_bytewise(const char *bytes, size_t n) {
    struct pge_nest_frame f;
    struct pge_buf log;
    start_log(&log);
    pge_nest_frame_init(&f, MAX_UNITS);
    for (size_t i = 0; i < n; i++) {
        if (feed(&f, bytes + i, 1, &log) != 0)
            break;
    }
    pge_nest_frame_deinit(&f);
    return log;
}

/* Pauses after each frame, and is fed `step` bytes more at each pause. */
static struct pge_buf run_parked(const char *bytes, size_t n, size_t step) {
    struct pge_nest_frame f;
    struct pge_buf log;
    size_t at = 0;
    int status = 1;
    start_log(&log);
    pge_nest_frame_init(&f, MAX_UNITS);
    while (status > 0 || (status == 0 && at < n)) {
        size_t len = n - at < step ? n - at : step;
        char *lent = malloc(len ? len : 1);
        memcpy(lent, bytes + at, len);
        at += len;
        assert_int_equal(pge_nest_frame_feed(&f, lent, len), 0);
        status = drain(&f, &log, 1);
        if (status >= 0)
            assert_int_equal(pge_nest_frame_park(&f), 0);
        free(lent);
    }
    pge_nest_frame_deinit(&f);
    return log;
}

/* Reads up to step bytes into the room there is, as a stream would; else lends them. */
static struct pge_buf run_roomy(const char *bytes, size_t n, size_t step) {
    struct pge_nest_frame f;
    struct pge_buf log;
    size_t at = 0;
    int status = 0;
    start_log(&log);
    pge_nest_frame_init(&f, MAX_UNITS);
    while (status == 0 && at < n) {
        struct pge_room room = pge_nest_frame_room(&f);
        size_t len = n - at < step ? n - at : step;
        if (room.n == 0) {
            status = feed(&f, bytes + at, len, &log);
        } else {
            len = len < room.n ? len : room.n;
            memcpy(room.p, bytes + at, len);
            assert_int_equal(pge_nest_frame_feed(&f, room.p, len), 0);
            status = drain(&f, &log, 0);
        }
        at += len;
    }
    pge_nest_frame_deinit(&f);
    return log;
}

static void assert_log(struct pge_buf *log, const char *expected, size_t n) {
    if (pge_buf_len(log) != n || memcmp(pge_buf_head(log), expected, n) != 0)
        fail_msg("got %.*s, expected %.*s", (int)pge_buf_len(log), pge_buf_head(log), (int)n,
                 expected);
    pge_buf_deinit(log);
}

/* Whatever the cuts, the log is the same. */
static void assert_frames_n(const char *bytes, size_t n, const char *expected) {
    size_t m = strlen(expected);
    for (size_t a = 0; a <= n; a++) {
        for (size_t b = a; b <= n; b++) {
            struct pge_buf log = run(bytes, n, a, b);
            assert_log(&log, expected, m);
        }
    }
    struct pge_buf log = run_bytewise(bytes, n);
    assert_log(&log, expected, m);
    for (size_t step = 1; step <= n; step++) {
        log = run_parked(bytes, n, step);
        assert_log(&log, expected, m);
        log = run_roomy(bytes, n, step);
        assert_log(&log, expected, m);
    }
}

static void assert_frames(const char *bytes, const char *expected) {
    assert_frames_n(bytes, strlen(bytes), expected);
}

static void cuts_frames_out_of_reads_of_any_size(void **state) { /* TCP-02, TCP-03 */
    (void)state;
    assert_frames("", "");
    assert_frames("2#{}", "[2:{}]");
    assert_frames("2#{}7#{\"a\":1}4#null", "[2:{}][7:{\"a\":1}][4:null]");
    assert_frames("10#0123456789", "[10:0123456789]");
    assert_frames("3#a#b3#1#2", "[3:a#b][3:1#2]");
    assert_frames("5#abc", "");
}

static void counts_utf16_units(void **state) { /* TCP-01 */
    (void)state;
    assert_frames("1#\303\2512#\360\237\230\2001#\xE6\x97\xA5",
                  "[2:\xC3\xA9][4:\xF0\x9F\x98\x80][3:\xE6\x97\xA5]");
    assert_frames("6#\"\xC3\xA9\xF0\x9F\x98\x80\xE6\x97\xA5\"1#x",
                  "[11:\"\xC3\xA9\xF0\x9F\x98\x80\xE6\x97\xA5\"][1:x]");
    assert_frames("12#abcdefgh\xF0\x9F\x98\x80zz1#x", "[14:abcdefgh\xF0\x9F\x98\x80zz][1:x]");
}

static void reads_the_exact_frames_of_a_nest_peer(void **state) {
    (void)state;
    const char *frames =
        "61#{\"pattern\":\"echo\",\"data\":\"\xC3\xA9\xF0\x9F\x98\x80\xE6\x97\xA5\","
        "\"id\":\"b2fc36070c8bfe9669429\"}28#{\"pattern\":\"ev\",\"data\":\""
        "\xF0\x9F\x98\x80\"}";
    struct pge_buf log = run(frames, strlen(frames), 0, 0);
    const char *expected =
        "[66:{\"pattern\":\"echo\",\"data\":\"\xC3\xA9\xF0\x9F\x98\x80\xE6\x97\xA5\","
        "\"id\":\"b2fc36070c8bfe9669429\"}][30:{\"pattern\":\"ev\",\"data\":\""
        "\xF0\x9F\x98\x80\"}]";
    assert_log(&log, expected, strlen(expected));
}

static void waits_for_units_that_a_byte_length_promises(void **state) { /* TCP-04 */
    (void)state;
    assert_frames("4#\"\xC3\xA9\"", "");
}

static void reads_lengths_as_parse_int_does(void **state) { /* TCP-06 */
    (void)state;
    const char *lengths[] = {"3",
                             "3x",
                             " 3",
                             "+3",
                             "3.9",
                             "0003",
                             "\r\n3",
                             "\t\v\f 3",
                             "3 4",
                             "3e5",
                             "3-",
                             "3\xC3\xA9",
                             "3\xF0\x9F\x98\x80",
                             "+003abc",
                             "3\n"};
    for (size_t i = 0; i < COUNT(lengths); i++) {
        char bytes[64];
        snprintf(bytes, sizeof(bytes), "%s#abc1#x", lengths[i]);
        assert_frames(bytes, "[3:abc][1:x]");
    }
}

static void refuses_lengths_that_are_no_number(void **state) { /* TCP-07 */
    (void)state;
    const char *lengths[] = {"abc", "",    "+",  "-",         " ",         "x3",  "+-3",
                             "- 3", "+ 3", ".5", "\303\2513", "{\"a\":1}", "NaN", "Infinity"};
    for (size_t i = 0; i < COUNT(lengths); i++) {
        char bytes[64], expected[128];
        snprintf(bytes, sizeof(bytes), "1#x%s#abc1#y", lengths[i]);
        snprintf(expected, sizeof(expected),
                 "[1:x]!%d Corrupted length value \"%s\" supplied in a packet", UV_EPROTO,
                 lengths[i]);
        assert_frames(bytes, expected);
    }
}

static void cuts_an_empty_text_for_zero_and_below(void **state) { /* TCP-08 */
    (void)state;
    const char *lengths[] = {"0", "-0", "-5", "-99999999999999999999999", "0x10", "000", "0.9"};
    for (size_t i = 0; i < COUNT(lengths); i++) {
        char bytes[64];
        snprintf(bytes, sizeof(bytes), "%s#1#x", lengths[i]);
        assert_frames(bytes, "[0:][1:x]");
    }
}

static void bounds_the_text_before_the_hash(void **state) {
    (void)state;
    char bytes[300], expected[192];
    struct pge_buf log;
    memset(bytes, '0', 255);
    memcpy(bytes + 255, "1#x", 3);
    log = run(bytes, 258, 100, 256);
    assert_log(&log, "[1:x]", 5);
    log = run_bytewise(bytes, 258);
    assert_log(&log, "[1:x]", 5);
    memset(bytes, '1', 259); /* the digits alone say that it is too large */
    snprintf(expected, sizeof(expected),
             "!%d The packet length (%zu) exceeds the maximum allowed length", UV_EMSGSIZE,
             SIZE_MAX);
    for (size_t a = 0; a < 259; a++) {
        log = run(bytes, 259, a, a);
        assert_log(&log, expected, strlen(expected));
    }
    memset(bytes, 'x', 257);
    bytes[0] = '1';
    memcpy(bytes + 257, "#x", 2);
    snprintf(expected, sizeof(expected),
             "!%d Corrupted length value \"%.32s\" supplied in a packet", UV_EPROTO, bytes);
    for (size_t a = 0; a < 259; a++) {
        log = run(bytes, 259, a, a);
        assert_log(&log, expected, strlen(expected));
    }
    log = run(bytes, 256, 0, 256); /* may still end */
    assert_log(&log, "", 0);
    for (size_t i = 0; i < 90; i++)
        memcpy(bytes + 3 * i, "\xE6\x97\xA5", 3);
    snprintf(expected, sizeof(expected),
             "!%d Corrupted length value \"%.96s\" supplied in a packet", UV_EPROTO, bytes);
    log = run(bytes, 270, 7, 200);
    assert_log(&log, expected, strlen(expected));
}

static void refuses_lengths_above_the_limit_at_once(void **state) { /* TCP-10 */
    (void)state;
    char expected[128];
    assert_frames("1000#", "");
    const char *lengths[] = {"1001", "18446744073709551615", "18446744073709551616",
                             "99999999999999999999999999999"};
    for (size_t i = 0; i < COUNT(lengths); i++) {
        char bytes[64];
        snprintf(bytes, sizeof(bytes), "%s#x", lengths[i]);
        snprintf(expected, sizeof(expected),
                 "!%d The packet length (%s) exceeds the maximum allowed length", UV_EMSGSIZE,
                 i == 0 ? lengths[0] : lengths[1]);
        assert_frames(bytes, expected);
    }
}

static void refuses_invalid_utf8(void **state) { /* TCP-05, decided otherwise than Nest */
    (void)state;
    const char *frames[] = {"5#ab\xFF",       "5#\xC0\x80",      "5#\xED\xA0\x80",
                            "5#\xE2\x28\xA1", "2#\xF0\x9F\x98x", "\3771#x",
                            "1\xC3#x",        "1\xE2\x82#x",     "3#a\xF0\x80"};
    char expected[64];
    snprintf(expected, sizeof(expected), "!%d Invalid UTF-8 in a packet", UV_EPROTO);
    for (size_t i = 0; i < COUNT(frames); i++)
        assert_frames(frames[i], expected);
}

static void refuses_a_length_that_halves_a_character(void **state) {
    (void)state;
    char expected[96];
    snprintf(expected, sizeof(expected), "!%d The packet length (3) ends inside a character",
             UV_EPROTO);
    assert_frames("3#ab\xF0\x9F\x98\x80", expected);
}

static void stays_in_its_error(void **state) {
    (void)state;
    struct pge_nest_frame f;
    struct pge_span payload;
    pge_nest_frame_init(&f, MAX_UNITS);
    assert_int_equal(pge_nest_frame_feed(&f, "x#1#a", 5), 0);
    assert_int_equal(pge_nest_frame_next(&f, &payload), UV_EPROTO);
    assert_int_equal(pge_nest_frame_next(&f, &payload), UV_EPROTO);
    assert_int_equal(pge_nest_frame_feed(&f, "1#a", 3), UV_EPROTO);
    assert_int_equal(pge_nest_frame_next(&f, &payload), UV_EPROTO);
    pge_nest_frame_deinit(&f);
}

static void returns_whole_frames_without_a_copy(void **state) {
    (void)state;
    struct fail_alloc memory;
    struct pge_nest_frame f;
    struct pge_span payload;
    const char *bytes = "3#abc5#defgh";
    pge_nest_frame_init(&f, MAX_UNITS);
    fail_alloc_start(&memory, 0);
    assert_int_equal(pge_nest_frame_feed(&f, bytes, 12), 0);
    assert_int_equal(pge_nest_frame_next(&f, &payload), 1);
    assert_ptr_equal(payload.p, bytes + 2);
    assert_int_equal(pge_nest_frame_next(&f, &payload), 1);
    assert_ptr_equal(payload.p, bytes + 7);
    assert_int_equal(pge_nest_frame_next(&f, &payload), 0);
    assert_int_equal(memory.asked, 0);
    fail_alloc_stop();
}

static void says_how_much_of_a_frame_it_holds(void **state) { /* TCP-11 */
    (void)state;
    const char *bytes = "9#{\"a\":\"\xC3\xA9\"}2#{}"; /* 9 units, 10 bytes */
    const size_t held[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0, 1, 2, 3, 0};
    struct pge_nest_frame f;
    struct pge_buf log;
    start_log(&log);
    pge_nest_frame_init(&f, MAX_UNITS);
    assert_int_equal(pge_nest_frame_partial(&f), 0);
    for (size_t i = 0; i < COUNT(held); i++) {
        assert_int_equal(feed(&f, bytes + i, 1, &log), 0);
        assert_int_equal(pge_nest_frame_partial(&f), held[i]);
    }
    pge_nest_frame_deinit(&f);
    pge_buf_deinit(&log);
}

static void keeps_what_was_read_into_its_room_where_it_is(void **state) {
    (void)state;
    enum { SIZE = 100000 };
    struct fail_alloc memory;
    struct pge_nest_frame f;
    struct pge_span payload;
    char *bytes = malloc(SIZE + 7);
    memcpy(bytes, "100000#", 7);
    memset(bytes + 7, 'x', SIZE);
    fail_alloc_start(&memory, (size_t)-1);
    pge_nest_frame_init(&f, SIZE);
    assert_int_equal(pge_nest_frame_room(&f).n, 0);
    assert_int_equal(pge_nest_frame_feed(&f, bytes, 1007), 0);
    assert_int_equal(pge_nest_frame_next(&f, &payload), 0);
    assert_int_equal(pge_nest_frame_room(&f).n, 16000); /* of what has come, not of what is said */
    assert_int_equal(pge_nest_frame_feed(&f, bytes + 1007, 9000), 0);
    assert_int_equal(pge_nest_frame_next(&f, &payload), 0);
    struct pge_room room = pge_nest_frame_room(&f);
    assert_int_equal(room.n, 90000);
    size_t asked = memory.asked;
    memcpy(room.p, bytes + 10007, room.n);
    assert_int_equal(pge_nest_frame_feed(&f, room.p, room.n), 0);
    assert_int_equal(pge_nest_frame_next(&f, &payload), 1);
    assert_ptr_equal(payload.p + 10000, room.p);
    assert_memory_equal(payload.p, bytes + 7, SIZE);
    assert_int_equal(memory.asked, asked);
    assert_int_equal(pge_nest_frame_next(&f, &payload), 0);
    assert_int_equal(pge_nest_frame_room(&f).n, 0);

    memory.grants = 1; /* for a first piece, then no more */
    assert_int_equal(pge_nest_frame_feed(&f, bytes, 1007), 0);
    assert_int_equal(pge_nest_frame_next(&f, &payload), 0);
    assert_int_equal(pge_nest_frame_room(&f).n, 0);
    pge_nest_frame_deinit(&f);
    assert_int_equal(memory.held, 0);
    fail_alloc_stop();
    free(bytes);
}

static void gives_back_the_memory_of_a_big_frame(void **state) {
    (void)state;
    enum { SIZE = 100000 };
    struct fail_alloc memory;
    struct pge_nest_frame f;
    struct pge_span payload;
    char *bytes = malloc(SIZE + 7);
    memcpy(bytes, "100000#", 7);
    memset(bytes + 7, 'x', SIZE);
    fail_alloc_start(&memory, (size_t)-1);
    pge_nest_frame_init(&f, SIZE);
    assert_int_equal(pge_nest_frame_feed(&f, bytes, 50000), 0);
    assert_int_equal(pge_nest_frame_next(&f, &payload), 0);
    assert_int_equal(memory.held, 1);
    assert_int_equal(pge_nest_frame_feed(&f, bytes + 50000, SIZE + 7 - 50000), 0);
    assert_int_equal(pge_nest_frame_next(&f, &payload), 1);
    assert_int_equal(payload.n, SIZE);
    assert_memory_equal(payload.p, bytes + 7, SIZE);
    assert_int_equal(pge_nest_frame_partial(&f), 0);
    assert_int_equal(pge_nest_frame_next(&f, &payload), 0);
    assert_int_equal(memory.held, 0);
    fail_alloc_stop();
    free(bytes);
}

/* A frame of a megabyte in one byte reads: quadratic work would take minutes. */
static void takes_linear_time_for_one_byte_reads(void **state) {
    (void)state;
    enum { SIZE = 1 << 20 };
    struct pge_nest_frame f;
    struct pge_span payload;
    pge_nest_frame_init(&f, SIZE);
    assert_int_equal(pge_nest_frame_feed(&f, "1048576#", 8), 0);
    assert_int_equal(pge_nest_frame_next(&f, &payload), 0);
    for (int i = 0; i < SIZE; i++) {
        assert_int_equal(pge_nest_frame_feed(&f, "x", 1), 0);
        assert_int_equal(pge_nest_frame_next(&f, &payload), i == SIZE - 1);
    }
    assert_int_equal(payload.n, SIZE);
    pge_nest_frame_deinit(&f);
}

static void fails_cleanly_when_memory_runs_out(void **state) {
    (void)state;
    struct fail_alloc memory;
    struct pge_nest_frame f;
    struct pge_span payload;
    char *bytes = malloc(3000);
    memset(bytes, 'x', 3000);
    memcpy(bytes, "2990#", 5);
    for (size_t grants = 0; grants < 4; grants++) { /* 512 doubled up to 4096 */
        fail_alloc_start(&memory, grants);
        pge_nest_frame_init(&f, 3000);
        int status = 0;
        for (size_t i = 0; i < 2990 && status == 0; i += 10) {
            assert_int_equal(pge_nest_frame_feed(&f, bytes + i, 10), 0);
            status = pge_nest_frame_next(&f, &payload);
        }
        assert_int_equal(status, UV_ENOMEM);
        assert_int_equal(pge_nest_frame_next(&f, &payload), UV_ENOMEM);
        pge_nest_frame_deinit(&f);
        assert_int_equal(memory.held, 0);
    }
    const char *const reads[][3] = {
        {"600#", "\xF0\x9F", "\x98"},       /* inside a character */
        {"514#", "xx", "\xF0\x9F\x98\x80"}, /* at the frame's end */
    };
    for (size_t i = 0; i < COUNT(reads); i++) {
        fail_alloc_start(&memory, 1);
        pge_nest_frame_init(&f, 3000);
        assert_int_equal(pge_nest_frame_feed(&f, reads[i][0], 4), 0);
        assert_int_equal(pge_nest_frame_next(&f, &payload), 0);
        assert_int_equal(pge_nest_frame_feed(&f, bytes + 5, 510), 0);
        assert_int_equal(pge_nest_frame_next(&f, &payload), 0);
        assert_int_equal(pge_nest_frame_feed(&f, reads[i][1], 2), 0);
        assert_int_equal(pge_nest_frame_next(&f, &payload), 0); /* fills 512 bytes */
        assert_int_equal(pge_nest_frame_feed(&f, reads[i][2], strlen(reads[i][2])), 0);
        assert_int_equal(pge_nest_frame_next(&f, &payload), UV_ENOMEM);
        assert_int_equal(memory.held, 0);
    }
    fail_alloc_start(&memory, 0);
    pge_nest_frame_init(&f, 3000);
    assert_int_equal(pge_nest_frame_feed(&f, "1#x1#y", 6), 0);
    assert_int_equal(pge_nest_frame_park(&f), UV_ENOMEM);
    assert_int_equal(pge_nest_frame_feed(&f, "1#z", 3), UV_ENOMEM);
    pge_nest_frame_deinit(&f);
    fail_alloc_stop();
    free(bytes);
}

static void append_frame(struct pge_buf *out, const char *payload, size_t n, size_t units) {
    size_t mark;
    assert_int_equal(pge_nest_frame_begin(out, &mark), 0);
    assert_int_equal(pge_buf_append(out, payload, n), 0);
    assert_int_equal(pge_nest_frame_end(out, mark, units), 0);
}

static void writes_frames_of_every_width(void **state) {
    (void)state;
    const size_t sizes[] = {0, 1, 9, 10, 99, 100, 101, 999, 1000, 9999, 10000, 123456};
    struct pge_nest_frame f;
    struct pge_buf out = {0};
    struct pge_span payload;
    char *text = malloc(123456);
    for (size_t i = 0; i < 123456; i++)
        text[i] = (char)('a' + i % 26);
    for (size_t i = 0; i < COUNT(sizes); i++)
        append_frame(&out, text, sizes[i], i % 2 ? SIZE_MAX : sizes[i]);
    pge_nest_frame_init(&f, 123456);
    assert_int_equal(pge_nest_frame_feed(&f, pge_buf_head(&out), pge_buf_len(&out)), 0);
    for (size_t i = 0; i < COUNT(sizes); i++) {
        assert_int_equal(pge_nest_frame_next(&f, &payload), 1);
        assert_int_equal(payload.n, sizes[i]);
        assert_memory_equal(payload.p, text, sizes[i]);
    }
    assert_int_equal(pge_nest_frame_next(&f, &payload), 0);
    assert_int_equal(pge_nest_frame_partial(&f), 0);
    pge_nest_frame_deinit(&f);
    pge_buf_deinit(&out);
    free(text);
}

static void counts_the_units_it_writes(void **state) { /* TCP-01 */
    (void)state;
    struct pge_buf out = {0};
    append_frame(&out, "\"\xC3\xA9\xF0\x9F\x98\x80\xE6\x97\xA5\"", 11, SIZE_MAX);
    assert_int_equal(pge_buf_len(&out), 13);
    assert_memory_equal(pge_buf_head(&out), "6#\"\xC3\xA9\xF0\x9F\x98\x80\xE6\x97\xA5\"", 13);
    pge_buf_deinit(&out);
}

static void moves_the_shorter_part_of_a_frame_it_ends(void **state) {
    (void)state;
    struct pge_buf out = {0};
    size_t mark;
    char text[5000];
    memset(text, 'x', sizeof(text));
    append_frame(&out, "ab", 2, SIZE_MAX);
    assert_int_equal(pge_nest_frame_begin(&out, &mark), 0);
    assert_int_equal(pge_buf_append(&out, text, 5000), 0);
    const char *payload = pge_buf_head(&out) + mark + 4;
    assert_int_equal(pge_nest_frame_end(&out, mark, SIZE_MAX), 0);
    assert_int_equal(pge_buf_len(&out), 4 + 5 + 5000);
    assert_memory_equal(pge_buf_head(&out), "2#ab5000#xxx", 12);
    assert_ptr_equal(pge_buf_head(&out) + 9, payload);
    append_frame(&out, text, 1000, SIZE_MAX);
    assert_int_equal(pge_buf_len(&out), 5009 + 1005);
    assert_memory_equal(pge_buf_head(&out), "2#ab5000#xxx", 12);
    assert_memory_equal(pge_buf_head(&out) + 5009, "1000#xxx", 8);
    pge_buf_deinit(&out);
}

static void takes_back_a_frame_it_cannot_end(void **state) {
    (void)state;
    struct fail_alloc memory;
    struct pge_buf out = {0};
    size_t mark;
    char text[8192];
    memset(text, 'x', sizeof(text));
    fail_alloc_start(&memory, 2);
    append_frame(&out, text, 8000, SIZE_MAX);
    out.start = 0; /* no room at the front, nor beyond what is written */
    out.end = 3005;
    out.cap = 3005 + 4 + 1200;
    assert_int_equal(pge_nest_frame_begin(&out, &mark), 0);
    assert_int_equal(pge_buf_append(&out, text, 1200), 0); /* fills it */
    assert_int_equal(pge_nest_frame_end(&out, mark, SIZE_MAX), UV_ENOMEM);
    assert_int_equal(pge_buf_len(&out), 3005);
    pge_buf_deinit(&out);
    assert_int_equal(pge_nest_frame_begin(&out, &mark), UV_ENOMEM);
    fail_alloc_stop();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cuts_frames_out_of_reads_of_any_size),
        cmocka_unit_test(counts_utf16_units),
        cmocka_unit_test(reads_the_exact_frames_of_a_nest_peer),
        cmocka_unit_test(waits_for_units_that_a_byte_length_promises),
        cmocka_unit_test(reads_lengths_as_parse_int_does),
        cmocka_unit_test(refuses_lengths_that_are_no_number),
        cmocka_unit_test(cuts_an_empty_text_for_zero_and_below),
        cmocka_unit_test(bounds_the_text_before_the_hash),
        cmocka_unit_test(refuses_lengths_above_the_limit_at_once),
        cmocka_unit_test(refuses_invalid_utf8),
        cmocka_unit_test(refuses_a_length_that_halves_a_character),
        cmocka_unit_test(stays_in_its_error),
        cmocka_unit_test(returns_whole_frames_without_a_copy),
        cmocka_unit_test(says_how_much_of_a_frame_it_holds),
        cmocka_unit_test(keeps_what_was_read_into_its_room_where_it_is),
        cmocka_unit_test(moves_the_shorter_part_of_a_frame_it_ends),
        cmocka_unit_test(gives_back_the_memory_of_a_big_frame),
        cmocka_unit_test(takes_linear_time_for_one_byte_reads),
        cmocka_unit_test(fails_cleanly_when_memory_runs_out),
        cmocka_unit_test(writes_frames_of_every_width),
        cmocka_unit_test(counts_the_units_it_writes),
        cmocka_unit_test(takes_back_a_frame_it_cannot_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
