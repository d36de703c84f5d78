/* micro_json.c - JSON, envelopes, patterns, numbers and characters. */
#include "micro.h"

#include "codec/envelope.h"
#include "codec/json.h"
#include "codec/number.h"
#include "codec/route.h"
#include "codec/utf8.h"

enum { LARGE = 4000, COPIES = 38 };

static struct pge_json_scan scan;
static char list[LARGE + 200], ascii[LARGE], mixed[LARGE];
static size_t list_len;

static void set_up(void) {
    pge_json_scan_deinit(&scan); /* all-zero at first */
    pge_json_scan_init(&scan);
}

/* A list of objects, 4 kB. */
static void set_up_list(void) {
    set_up();
    list_len = 0;
    for (unsigned i = 0; i < COPIES; i++) {
        list[list_len++] = i ? ',' : '[';
        memcpy(list + list_len, MICRO_DATA, MICRO_DATA_LEN);
        list_len += MICRO_DATA_LEN;
    }
    list[list_len++] = ']';
}

static void set_up_texts(void) {
    static const char letters[] = "gr\xc3\xbc\xc3\x9f dich \xe2\x82\xac"; /* 15 bytes, 11 units */
    memset(ascii, 'a', LARGE);
    memset(mixed, ' ', LARGE);
    for (size_t at = 0; at + sizeof letters - 1 <= LARGE; at += sizeof letters - 1)
        memcpy(mixed + at, letters, sizeof letters - 1);
}

/* ---- json.h, envelope.h ---- */

static size_t skip(void) {
    const char *p = MICRO_DATA, *next = p;
    int status = pge_json_skip(&scan, p, p + MICRO_DATA_LEN, &next);
    return status == 0 ? (size_t)(next - p) : 0;
}

static size_t check(void) {
    return pge_json_check(&scan, list, list_len) == 0 ? scan.depth : 0;
}

static size_t quote(const char *text) {
    pge_buf_clear(&micro_out);
    return pge_json_quote(&micro_out, text, strlen(text)) == 0 ? pge_buf_len(&micro_out) : 0;
}

#define PLAIN_50 "The order was placed in the shop, and it was paid "

static size_t quote_plain(void) {
    return quote(PLAIN_50 PLAIN_50);
}

#define QUOTED "\"a \\\"quoted\\\" line\\n\\twith a path C:\\\\temp and gr\xc3\xbc\xc3\x9f\\n\""

static size_t quote_escapes(void) {
    return quote("a \"quoted\" line\n\twith a path C:\\temp and gr\xc3\xbc\xc3\x9f\n");
}

static size_t unescape(void) {
    pge_buf_clear(&micro_out);
    struct pge_span text =
        micro_span("\"a \\\"quoted\\\" line\\n with \\u00e9 and \\ud83d\\ude00\"");
    return pge_json_unescape(text, &micro_out) == 0 ? pge_buf_len(&micro_out) : 0;
}

static size_t scan_envelope(const char *text, size_t n) {
    struct pge_envelope e;
    if (pge_envelope_scan(&scan, text, n, &e) != 0 || e.id.n != 18)
        return 0;
    return e.data.n + e.response.n;
}

static size_t scan_request(void) {
    return scan_envelope(MICRO_REQUEST, sizeof MICRO_REQUEST - 1);
}

static size_t scan_reply(void) {
    return scan_envelope(MICRO_REPLY, sizeof MICRO_REPLY - 1);
}

/* ---- route.h ---- */

static size_t look_up(const char *pattern) {
    pge_buf_clear(&micro_out);
    int status = pge_route_lookup_key(&scan, micro_span(pattern), &micro_out);
    return status == 0 ? pge_buf_len(&micro_out) : 0;
}

static size_t look_up_string(void) {
    return look_up("\"orders.charge\"");
}

static size_t look_up_cmd(void) {
    return look_up("{\"cmd\":\"charge\"}");
}

#define KEYS "{\"area\":\"billing\",\"cmd\":\"charge\",\"version\":2}"

static size_t look_up_keys(void) {
    return look_up("{\"version\":2,\"cmd\":\"charge\",\"area\":\"billing\"}");
}

/* ---- number.h ---- */

static volatile double whole = 1999, fraction = 0.1 + 0.2;

static size_t format(double v) {
    pge_buf_clear(&micro_out);
    if (pge_buf_reserve(&micro_out, PGE_NUMBER_MAX) != 0)
        return 0;
    return micro_out.end = pge_number_format(v, micro_out.data);
}

static size_t format_whole(void) {
    return format(whole);
}

static size_t format_fraction(void) {
    return format(fraction);
}

static size_t parse(const char *text, double wanted) {
    double v;
    return pge_number_parse(text, strlen(text), &v) == 0 && v == wanted;
}

static size_t parse_whole(void) {
    return parse("1999", whole);
}

static size_t parse_fraction(void) {
    return parse("0.30000000000000004", fraction);
}

/* ---- utf8.h ---- */

static size_t check_ascii(void) {
    return pge_utf8_check(ascii, LARGE) == 0;
}

static size_t check_mixed(void) {
    return pge_utf8_check(mixed, LARGE) == 0;
}

static size_t units_ascii(void) {
    return pge_utf16_units(ascii, LARGE);
}

static size_t units_mixed(void) {
    return pge_utf16_units(mixed, LARGE);
}

const struct micro_op micro_json[] = {
    {"json skip 100 B", set_up, skip, MICRO_DATA_LEN, NULL},
    {"json check 4 kB", set_up_list, check, 3, NULL},
    {"json quote 100 B plain", NULL, quote_plain, MICRO_WRITES("\"" PLAIN_50 PLAIN_50 "\"")},
    {"json quote 50 B escapes", NULL, quote_escapes, MICRO_WRITES(QUOTED)},
    {"json unescape 50 B", NULL, unescape,
     MICRO_WRITES("a \"quoted\" line\n with \xc3\xa9 and \xf0\x9f\x98\x80")},
    {"envelope scan request", set_up, scan_request, MICRO_DATA_LEN, NULL},
    {"envelope scan reply", set_up, scan_reply, MICRO_DATA_LEN, NULL},
    {"route of a string", set_up, look_up_string, MICRO_WRITES("orders.charge")},
    {"route of one key", set_up, look_up_cmd, MICRO_WRITES("{\"cmd\":\"charge\"}")},
    {"route of three keys", set_up, look_up_keys, MICRO_WRITES(KEYS)},
    {"number format whole", NULL, format_whole, MICRO_WRITES("1999")},
    {"number format fraction", NULL, format_fraction, MICRO_WRITES("0.30000000000000004")},
    {"number parse whole", NULL, parse_whole, 1, NULL},
    {"number parse fraction", NULL, parse_fraction, 1, NULL},
    {"utf8 check 4 kB ascii", set_up_texts, check_ascii, 1, NULL},
    {"utf8 check 4 kB mixed", set_up_texts, check_mixed, 1, NULL},
    {"utf16 units 4 kB ascii", set_up_texts, units_ascii, LARGE, NULL},
    {"utf16 units 4 kB mixed", set_up_texts, units_mixed, 2936, NULL},
    {0},
};
