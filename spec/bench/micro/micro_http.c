/* micro_http.c - requests as browsers and clients send them, parsed whole. */
#include "micro.h"

#include "front/http_internal.h"

#define GET "GET /orders/ord_42?verbose=1 HTTP/1.1\r\nHost: shop.example:8080\r\n\r\n"
#define POST                                                                                       \
    "POST /orders/charge HTTP/1.1\r\nHost: shop.example:8080\r\nUser-Agent: curl/8.5.0\r\n"        \
    "Accept: */*\r\nAccept-Encoding: gzip, deflate\r\nX-Request-Id: 5c1e02a7d94b3f68\r\n"          \
    "Content-Type: application/json\r\nContent-Length: 105\r\n\r\n" MICRO_DATA
_Static_assert(MICRO_DATA_LEN == 105, "the length above is the data's");

static struct pge_http_limits limits;
static struct pge_http_parse parse;

static void set_up(void) {
    pge_http_limits_default(&limits);
    pge_http_parse_deinit(&parse); /* all-zero at first */
    pge_http_parse_init(&parse, &limits);
}

/* Headers and bytes of the body. */
static size_t take(const char *bytes, size_t n) {
    if (pge_http_parse_append(&parse, bytes, n) != 0 ||
        pge_http_parse_run(&parse) != PGE_HTTP_READY)
        return 0;
    size_t found = parse.message.header_count + parse.message.body.n;
    pge_http_parse_next(&parse);
    return found;
}

static size_t take_get(void) {
    return take(GET, sizeof GET - 1);
}

static size_t take_post(void) {
    return take(POST, sizeof POST - 1);
}

const struct micro_op micro_http[] = {
    {"http parse get", set_up, take_get, 1, NULL},
    {"http parse post", set_up, take_post, 7 + MICRO_DATA_LEN, NULL},
    {0},
};
