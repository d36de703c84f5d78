/* http_parse_test.c - requests from bytes, good and hostile, whole and in pieces. No sockets. */
#include "http_bytes.h"

static void takes_good_requests(void **state) {
    (void)state;
    static const struct vector v[] = {
        GOOD("GET / HTTP/1.1\r\n" H "\r\n",
             "method=GET|target=/|path=/|name=host|value=a|rest=|keep "),
        GOOD("GET /a%20b?x=1&y=%zz HTTP/1.1\r\n" H "\r\nGET /",
             "method=GET|target=/a%20b?x=1&y=%zz|path=/a%20b|query=x=1&y=%zz|name=host|value=a|"
             "rest=GET /|keep "),
        GOOD("GET /? HTTP/1.1\r\n" H "\r\n",
             "method=GET|target=/?|path=/|query=|name=host|value=a|rest=|keep "),
        GOOD("HEAD / HTTP/1.1\r\n" H "\r\n",
             "method=HEAD|target=/|path=/|name=host|value=a|rest=|head keep "),
        GOOD("OPTIONS * HTTP/1.1\r\n" H "\r\n",
             "method=OPTIONS|target=*|path=*|name=host|value=a|rest=|keep "),
        GOOD("POST /x HTTP/1.1\r\n" H "CONTENT-Length:  3 \r\n\r\nabcGET",
             "method=POST|target=/x|path=/x|name=host|value=a|name=content-length|value=3|body=abc|"
             "rest=GET|keep "),
        GOOD("POST /x HTTP/1.1\r\n" H "Content-Length: 0\r\n\r\n",
             "method=POST|target=/x|path=/x|name=host|value=a|name=content-length|value=0|rest=|"
             "keep "),
        GOOD("POST / HTTP/1.1\r\n" H "Transfer-Encoding: Chunked\r\n\r\n"
             "3\r\nabc\r\n00A;q=\"a; b\";z;n=v\r\n0123456789\r\n0\r\nT: x\r\nU:\r\n\r\nGET",
             "method=POST|target=/|path=/|name=host|value=a|name=transfer-encoding|value=Chunked|"
             "body=abc0123456789|rest=GET|keep "),
        GOOD("POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
             "method=POST|target=/|path=/|name=host|value=a|name=transfer-encoding|value=chunked|"
             "rest=|keep "),
        GOOD("POST / HTTP/1.1\r\n" H "Expect: 100-Continue\r\nContent-Length: 1\r\n\r\nx",
             "method=POST|target=/|path=/|name=host|value=a|name=expect|value=100-Continue|"
             "name=content-length|value=1|body=x|rest=|keep continue "),
        GOOD(
            "GET / HTTP/1.1\r\n" H "Connection: foo, Close\r\n\r\n",
            "method=GET|target=/|path=/|name=host|value=a|name=connection|value=foo, Close|rest=|"),
        GOOD("GET / HTTP/1.1\r\n" H "Connection: keep-alive\r\nConnection: close\r\n\r\n",
             "method=GET|target=/|path=/|name=host|value=a|name=connection|value=keep-alive|"
             "name=connection|value=close|rest=|"),
        GOOD("GET / HTTP/1.0\r\n\r\n", "method=GET|target=/|path=/|rest=|"),
        GOOD("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n",
             "method=GET|target=/|path=/|name=connection|value=Keep-Alive|rest=|keep "),
        GOOD("GET / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n",
             "method=GET|target=/|path=/|name=expect|value=100-continue|rest=|"),
        GOOD("GET / HTTP/1.1\r\nUpgrade: h2c, websocket\r\nConnection: Upgrade\r\n" H "\r\nrest",
             "method=GET|target=/|path=/|name=upgrade|value=h2c, websocket|name=connection|"
             "value=Upgrade|name=host|value=a|rest=rest|keep "),
        GOOD("\r\nGET / HTTP/1.1\r\n" H "\r\n",
             "method=GET|target=/|path=/|name=host|value=a|rest=|keep "),
        GOOD("PURGE / HTTP/1.1\r\n" H "\r\n",
             "method=PURGE|target=/|path=/|name=host|value=a|rest=|keep "),
        GOOD("GET / HTTP/1.1\r\n" H "X!#$%&'*+-.^_`|~: \t caf\xc3\xa9 \xff\tx \t\r\nE:\r\n\r\n",
             "method=GET|target=/|path=/|name=host|value=a|name=x!#$%&'*+-.^_`|~|"
             "value=caf\xc3\xa9 \xff\tx|name=e|value=|rest=|keep "),
    };
    RUN(v);
}

static void reduces_an_absolute_target(void **state) {
    (void)state;
    static const struct vector v[] = {
        GOOD("GET http://a/x?y HTTP/1.1\r\n" H "\r\n",
             "method=GET|target=/x?y|path=/x|query=y|name=host|value=a|rest=|keep "),
        GOOD("GET HTTP://Example.org:80 HTTP/1.1\r\nhost: eXample.org:80\r\n\r\n",
             "method=GET|target=/|path=/|name=host|value=eXample.org:80|rest=|keep "),
        GOOD("GET https://a HTTP/1.1\r\n" H "\r\n",
             "method=GET|target=/|path=/|name=host|value=a|rest=|keep "),
        GOOD("GET http://a/ HTTP/1.0\r\n\r\n", "method=GET|target=/|path=/|rest=|"),
        GOOD("POST http://a/? HTTP/1.1\r\n" H "Content-Length: 2\r\n\r\nok",
             "method=POST|target=/?|path=/|query=|name=host|value=a|name=content-length|value=2|"
             "body=ok|rest=|keep "),
        BAD(400, "GET http://a?q HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "GET http://b/ HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "GET http://a:80/ HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "GET http://u@a/ HTTP/1.1\r\nHost: u@a\r\n\r\n"),
        BAD(400, "GET http:///x HTTP/1.1\r\nHost:\r\n\r\n"),
        BAD(400, "GET http:/x HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "GET ftp://a/ HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "GET http://a/../x HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "GET http://u@a/ HTTP/1.0\r\n\r\n"),
    };
    RUN(v);
}

static void refuses_bad_request_lines(void **state) {
    (void)state;
    static const struct vector v[] = {
        BAD(505, "GET / HTTP/2.0\r\n" H "\r\n"),
        BAD(505, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        BAD(505, "GET / HTTP/1.2\r\n" H "\r\n"),
        BAD(505, "GET / HTTP/0.9\r\n" H "\r\n"),
        BAD(505, "GET / HTTP/3.0\r\n" H "\r\n"),
        BAD(400, "GET / HTTP/1.10\r\n" H "\r\n"),
        BAD(400, "GET / http/1.1\r\n" H "\r\n"),
        BAD(400, "GET / HTTQ/1.1\r\n" H "\r\n"),
        BAD(400, "GET /\r\n\r\n"),
        BAD(400, "GET / \r\n\r\n"),
        BAD(400, "GET  / HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "GET /  HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "GET / HTTP/1.1 \r\n" H "\r\n"),
        BAD(400, "GET / x HTTP/1.1\r\n" H "\r\n"),
        BAD(400, " GET / HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "GET\t/ HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "GET /\t HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "get / HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "GETX / HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "G(T / HTTP/1.1\r\n" H "\r\n"),
        BAD(501, "CONNECT a:443 HTTP/1.1\r\n" H "\r\n"),
        BAD(501, "TRACE / HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "GET /#f HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "GET /a?b#f HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "GET /\x01 HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "GET /\x7f HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "GET /\x80 HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "GET /\xc3\xa9 HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "GET /a?\xc3\xa9 HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "GET /\0 HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "GET * HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "GET a HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "GET ?a HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "\r\n\r\nGET / HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "\nGET / HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "\rGET / HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
        BAD(400, "17#{\"pattern\":\"a\"}"),
    };
    RUN(v);
}

static void refuses_paths_above_the_root(void **state) {
    (void)state;
    static const struct vector v[] = {
        BAD(400, "GET /.. HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "GET /../ HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "GET /a/../../b HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "GET /./.. HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "GET //../ HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "GET /%2e%2E/ HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "GET /a%2f..%2f.. HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "GET /..?x HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "GET /% HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "GET /%2 HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "GET /%2?a HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "GET /%zz HTTP/1.1\r\n" H "\r\n"),
        BAD(400, "GET /%00 HTTP/1.1\r\n" H "\r\n"),
        GOOD("GET /a/../b/%2e/...//..a HTTP/1.1\r\n" H "\r\n",
             "method=GET|target=/a/../b/%2e/...//..a|path=/a/../b/%2e/...//..a|name=host|value=a|"
             "rest=|keep "),
    };
    RUN(v);
}

static void refuses_bad_lines(void **state) {
    (void)state;
    static const struct vector v[] = {
        BAD(400, "GET / HTTP/1.1\n" H "\r\n"),
        BAD(400, "GET / HTTP/1.1\r\nHost: a\n\r\n"),
        BAD(400, "GET / HTTP/1.1\r\n" H "\n"),
        BAD(400, "GET / HTTP/1.1\nHost: a\n\n"),
        BAD(400, "GET / HTTP/1.1\r" H "\r\n"),
        BAD(400, "GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n"),
        BAD(400, "GET / HTTP/1.1\r\n" H "X: a\r\r\n\r\n"),
        BAD(400, "GET / HTTP/1.1\r\n" H "\rX"),
        BAD(400, "GET / HTTP/1.1\r\n" H "X: a\r\n b\r\n\r\n"),
        BAD(400, "GET / HTTP/1.1\r\n" H "X: a\r\n\tb\r\n\r\n"),
        BAD(400, "GET / HTTP/1.1\r\n " H "\r\n"),
        BAD(400, "GET / HTTP/1.1\r\n" H "X:\r\n \r\n\r\n"),
        BAD(400, "GET / HTTP/1.1\r\nHost : a\r\n\r\n"),
        BAD(400, "GET / HTTP/1.1\r\n" H "X Y: a\r\n\r\n"),
        BAD(400, "GET / HTTP/1.1\r\n" H ": a\r\n\r\n"),
        BAD(400, "GET / HTTP/1.1\r\n" H "X\r\n\r\n"),
        BAD(400, "GET / HTTP/1.1\r\n" H "X@: a\r\n\r\n"),
        BAD(400, "GET / HTTP/1.1\r\n" H "X\x80: a\r\n\r\n"),
        BAD(400, "GET / HTTP/1.1\r\n" H "X\0: a\r\n\r\n"),
        BAD(400, "GET / HTTP/1.1\r\n" H "X: a\0b\r\n\r\n"),
        BAD(400, "GET / HTTP/1.1\r\n" H "X: a\x01\r\n\r\n"),
        BAD(400, "GET / HTTP/1.1\r\n" H "X: a\x0b\r\n\r\n"),
        BAD(400, "GET / HTTP/1.1\r\n" H "X: a\x7f\r\n\r\n"),
    };
    RUN(v);
}

static void refuses_bad_hosts(void **state) {
    (void)state;
    static const char *const bad[] = {
        "",       "a, b",    "a,b",       "u@a",   "a b", "a/b",  "a?b",     "a#b",
        "a:x",    "a:99999", "a:1:2",     "a..b",  ".a",  "[::1", "::1",     "[]",
        "[::1]x", "[::g]",   "a\xc3\xa9", "a%20b", ":80", "a\"b", "[::1]:x", "http://a"};
    static const char *const good[] = {
        "a", "a.b.", "a_b-c~1", "127.0.0.1:8080", "[::1]", "[::ffff:1.2.3.4]:80", "a:"};
    char text[256];
    static const struct vector v[] = {
        BAD(400, "GET / HTTP/1.1\r\n\r\n"),
        BAD(400, "GET / HTTP/1.1\r\n" H H "\r\n"),
        BAD(400, "GET / HTTP/1.1\r\n" H "HOST: b\r\n\r\n"),
        BAD(400, "GET / HTTP/1.0\r\n" H H "\r\n"),
        BAD(400, "GET / HTTP/1.1\r\nHost: a \t\r\n\r\n"),
        BAD(400, "GET / HTTP/1.1\r\nHost:\ta\r\n\r\n"),
        BAD(400, "OPTIONS * HTTP/1.1\r\nHost: a,b\r\n\r\n"),
    };
    RUN(v);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_refused(text, (size_t)sprintf(text, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", bad[i]),
                       400);
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        char wanted[256];
        sprintf(wanted, "method=GET|target=/|path=/|name=host|value=%s|rest=|keep ", good[i]);
        assert_taken(text, (size_t)sprintf(text, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", good[i]),
                     wanted);
    }
}

static void refuses_unclear_framing(void **state) {
    (void)state;
    static const struct vector v[] = {
        BAD(400, POST CL "3\r\n" CL "3\r\n\r\nabc"),
        BAD(400, POST CL "3\r\n" CL "4\r\n\r\nabcd"),
        BAD(400, POST CL "3, 3\r\n\r\nabc"),
        BAD(400, POST CL "+3\r\n\r\nabc"),
        BAD(400, POST CL "-3\r\n\r\nabc"),
        BAD(400, POST CL "0x3\r\n\r\nabc"),
        BAD(400, POST CL "3 3\r\n\r\nabc"),
        BAD(400, POST CL "3a\r\n\r\nabc"),
        BAD(400, POST CL "3.0\r\n\r\nabc"),
        BAD(400, POST CL "\r\n\r\nabc"),
        BAD(400, POST CL "18446744073709551617\r\n\r\nabc"),
        BAD(413, POST CL "18446744073709551615\r\n\r\nabc"),
        BAD(400, POST CL "3\r\n" TE "chunked\r\n\r\n0\r\n\r\n"),
        BAD(400, POST TE "chunked\r\n" CL "3\r\n\r\n0\r\n\r\n"),
        BAD(400, POST TE ",chunked\r\n\r\n0\r\n\r\n"),
        BAD(400, POST TE "chunked,\r\n\r\n0\r\n\r\n"),
        BAD(501, POST TE "gzip, chunked\r\n\r\n0\r\n\r\n"),
        BAD(501, POST TE "identity, chunked\r\n\r\n0\r\n\r\n"),
        BAD(400, POST TE "identity\r\n\r\n0\r\n\r\n"),
        BAD(400, POST TE "gzip\r\n\r\n0\r\n\r\n"),
        BAD(400, POST TE "\r\n\r\n0\r\n\r\n"),
        BAD(400, POST TE "chunked, chunked\r\n\r\n0\r\n\r\n"),
        BAD(400, POST TE "chunked\r\n" TE "chunked\r\n\r\n0\r\n\r\n"),
        BAD(400, POST TE "chunked\r\n" TE "identity\r\n\r\n0\r\n\r\n"),
        BAD(400, POST TE "chunked, gzip\r\n\r\n0\r\n\r\n"),
        BAD(400, POST TE "xchunked\r\n\r\n0\r\n\r\n"),
        BAD(400, POST TE "chunkedx\r\n\r\n0\r\n\r\n"),
        BAD(400, POST TE "\"chunked\"\r\n\r\n0\r\n\r\n"),
        BAD(400, POST TE "chunked;q=1\r\n\r\n0\r\n\r\n"),
        BAD(400, POST TE "\tchunked\r\n\r\n0\r\n\r\n"),
        BAD(400, POST TE "chunked \t\r\n\r\n0\r\n\r\n"),
        BAD(400, POST CL "\t3\r\n\r\nabc"),
        BAD(400, POST CL "3\t\r\n\r\nabc"),
        BAD(400, "GET / HTTP/1.0\r\n" CL "3\r\n\r\nabc"),
        BAD(400, "HEAD / HTTP/1.0\r\n" CL "3\r\n\r\nabc"),
        BAD(400, "DELETE / HTTP/1.0\r\n" CL "3\r\n\r\nabc"),
        BAD(400, POST TE "\x0b"
                         "chunked\r\n\r\n0\r\n\r\n"),
        BAD(400, "POST / HTTP/1.0\r\n" H TE "chunked\r\n\r\n0\r\n\r\n"),
        BAD(417, POST "Expect: 200-ok\r\n" CL "1\r\n\r\nx"),
        BAD(417, POST "Expect: 100-continue\r\nExpect: 100-continue\r\n" CL "1\r\n\r\nx"),
        BAD(417, POST "Expect:\r\n" CL "1\r\n\r\nx"),
    };
    RUN(v);
}

static void refuses_bad_chunks(void **state) {
    (void)state;
    static const struct vector v[] = {
        BAD(400, CHUNKED "3\nabc\r\n0\r\n\r\n"),
        BAD(400, CHUNKED "3\r\nabc\n0\r\n\r\n"),
        BAD(400, CHUNKED "3\r\nabc\r\n0\n\r\n"),
        BAD(400, CHUNKED "3\r\nabc\r\n0\r\n\n"),
        BAD(400, CHUNKED "3\r\nabc\r\n0\r\nT: x\n\r\n"),
        BAD(400, CHUNKED "3\rabc\r\n0\r\n\r\n"),
        BAD(400, CHUNKED "3\r\nabcd\r\n0\r\n\r\n"),
        BAD(400, CHUNKED "3\r\nab\r\n0\r\n\r\n"),
        BAD(400, CHUNKED "3\r\nabc0\r\n\r\n"),
        BAD(400, CHUNKED "\r\nabc\r\n0\r\n\r\n"),
        BAD(400, CHUNKED ";a\r\nabc\r\n0\r\n\r\n"),
        BAD(400, CHUNKED " 3\r\nabc\r\n0\r\n\r\n"),
        BAD(400, CHUNKED "3 \r\nabc\r\n0\r\n\r\n"),
        BAD(400, CHUNKED "+3\r\nabc\r\n0\r\n\r\n"),
        BAD(400, CHUNKED "-3\r\nabc\r\n0\r\n\r\n"),
        BAD(400, CHUNKED "0x3\r\nabc\r\n0\r\n\r\n"),
        BAD(400, CHUNKED "3g\r\nabc\r\n0\r\n\r\n"),
        BAD(400, CHUNKED "00000000000000003\r\nabc\r\n0\r\n\r\n"),
        BAD(413, CHUNKED "FFFFFFFFFFFFFFFF\r\nabc"),
        BAD(413, CHUNKED "10000000000000003\r\nabc"),
        BAD(400, CHUNKED "3;\r\nabc\r\n0\r\n\r\n"),
        BAD(400, CHUNKED "3;a=\r\nabc\r\n0\r\n\r\n"),
        BAD(400, CHUNKED "3;a=b;c\r\nabc\r\n0\r\n\r\n"),
        BAD(400, CHUNKED "3;a=\"\\\"\"\r\nabc\r\n0\r\n\r\n"),
        BAD(400, CHUNKED "3;a=\"b\"c\r\nabc\r\n0\r\n\r\n"),
        BAD(400, CHUNKED "3;a=b c\r\nabc\r\n0\r\n\r\n"),
        BAD(400, CHUNKED "3;a\nb\r\nabc\r\n0\r\n\r\n"),
        BAD(400, CHUNKED "3;a=\"\n\"\r\nabc\r\n0\r\n\r\n"),
        BAD(400, CHUNKED "3;a\0\r\nabc\r\n0\r\n\r\n"),
        BAD(400, CHUNKED "0\r\nT : x\r\n\r\n"),
        BAD(400, CHUNKED "0\r\n: x\r\n\r\n"),
        BAD(400, CHUNKED "0\r\nTransfer-Encoding: chunked\r\n\r\n"),
        BAD(400, CHUNKED "0\r\na: b\r\ncontent-LENGTH: 3\r\n\r\n"),
        GOOD(CHUNKED "0\r\nTransfer-Encodin: x\r\nContent-Lengthy: 3\r\nc: d\r\n\r\n",
             "method=POST|target=/|path=/|name=host|value=a|name=transfer-encoding|value=chunked|"
             "rest=|keep "),
        BAD(400, CHUNKED "0\r\nHost: b\r\n\r\n"),
        BAD(400, CHUNKED "0\r\nT: x\r\n y\r\n\r\n"),
        BAD(400, CHUNKED "0\r\nT: \0\r\n\r\n"),
        BAD(400, CHUNKED "0\r\nT\r\n\r\n"),
        BAD(400, CHUNKED "0\r\n\rX"),
    };
    RUN(v);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(takes_good_requests),       cmocka_unit_test(reduces_an_absolute_target),
        cmocka_unit_test(refuses_bad_request_lines), cmocka_unit_test(refuses_paths_above_the_root),
        cmocka_unit_test(refuses_bad_lines),         cmocka_unit_test(refuses_bad_hosts),
        cmocka_unit_test(refuses_unclear_framing),   cmocka_unit_test(refuses_bad_chunks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
