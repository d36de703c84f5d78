/* http_reply.c - answers: one head for all of them, then a body at once, in chunks, or none. */
#include <stdio.h>
#include <strings.h>

#include "codec/utf8.h"
#include "front/http_internal.h"

enum framing { LENGTH, CHUNKS, UNTIL_CLOSE, NO_BODY };

static const struct pge_span content_type = {"content-type", 12}, retry_after = {"retry-after", 11};

struct head {
    int status;
    const struct pge_http_header *headers;
    unsigned header_count;
    const char *type;  /* content type; NULL: the headers' */
    int retry_after_s; /* < 0: none */
    enum framing framing;
    size_t length;
};

static struct pge_http_conn *conn_of(struct pge_http_request *req) {
    return container_of(req, struct pge_http_conn, req);
}

static bool equals(struct pge_span a, struct pge_span b) {
    return a.n == b.n && strncasecmp(a.p, b.p, a.n) == 0;
}

/* Framing and the connection are ours to say. */
static bool is_ours(const struct head *head, struct pge_span name) {
    static const struct pge_span names[] = {
        {"connection", 10}, {"content-length", 14},   {"date", 4}, {"keep-alive", 10},
        {"trailer", 7},     {"proxy-connection", 16}, {"te", 2},   {"transfer-encoding", 17},
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (equals(name, names[i]))
            return true;
    return (head->type && equals(name, content_type)) ||
           (head->retry_after_s >= 0 && equals(name, retry_after));
}

static void put(struct pge_buf *out, const char *text) {
    pge_buf_append(out, text, strlen(text));
}

static void put_field(struct pge_buf *out, struct pge_span name, struct pge_span value) {
    pge_buf_append(out, name.p, name.n);
    PGE_BUF_LIT(out, ": ");
    pge_buf_append(out, value.p, value.n);
    PGE_BUF_LIT(out, "\r\n");
}

/* Digits of number in base 10 or 16. */
static void put_number(struct pge_buf *out, size_t number, unsigned base) {
    char digits[20];
    size_t n = sizeof digits;
    do {
        digits[--n] = "0123456789abcdef"[number % base];
        number /= base;
    } while (number);
    pge_buf_append(out, digits + n, sizeof digits - n);
}

/* Room for a head is reserved in one step, so that the appends to it cannot fail. */
static size_t head_size(const struct head *head) {
    size_t n = 512;
    for (unsigned i = 0; i < head->header_count; i++)
        n += head->headers[i].name.n + head->headers[i].value.n + 4;
    return n;
}

static void put_framing(struct pge_buf *out, const struct pge_http_conn *c,
                        const struct head *head) {
    if (head->framing == LENGTH) {
        PGE_BUF_LIT(out, "Content-Length: ");
        put_number(out, head->length, 10);
        PGE_BUF_LIT(out, "\r\n");
    } else if (head->framing == CHUNKS) {
        PGE_BUF_LIT(out, "Transfer-Encoding: chunked\r\n");
    }
    if (c->is_last)
        PGE_BUF_LIT(out, "Connection: close\r\n");
    else if (c->req.parse.is_old)
        PGE_BUF_LIT(out, "Connection: keep-alive\r\n");
    PGE_BUF_LIT(out, "\r\n");
}

static int write_head(struct pge_http_conn *c, const struct head *head) {
    struct pge_buf *out = pge_http_conn_room(c, head_size(head));
    if (!out)
        return UV_ENOMEM;
    PGE_BUF_LIT(out, "HTTP/1.1 ");
    put_number(out, (size_t)head->status, 10);
    PGE_BUF_LIT(out, " ");
    put(out, pge_http_reason(head->status));
    PGE_BUF_LIT(out, "\r\nDate: ");
    pge_buf_append(out, pge_http_server_date(c->server), PGE_HTTP_DATE_SIZE);
    PGE_BUF_LIT(out, "\r\n");
    for (unsigned i = 0; i < head->header_count; i++)
        if (!is_ours(head, head->headers[i].name))
            put_field(out, head->headers[i].name, head->headers[i].value);
    if (head->type) {
        PGE_BUF_LIT(out, "Content-Type: ");
        put(out, head->type);
        PGE_BUF_LIT(out, "\r\n");
    }
    if (head->retry_after_s >= 0) {
        PGE_BUF_LIT(out, "Retry-After: ");
        put_number(out, (size_t)head->retry_after_s, 10);
        PGE_BUF_LIT(out, "\r\n");
    }
    put_framing(out, c, head);
    pge_http_conn_sent(c);
    return 0;
}

static int write_bytes(struct pge_http_conn *c, struct pge_span bytes) {
    if (bytes.n == 0 || pge_http_conn_give(c, c->server->loop->loan, bytes))
        return 0;
    struct pge_buf *out = pge_http_conn_room(c, bytes.n);
    if (!out)
        return UV_ENOMEM;
    pge_buf_append(out, bytes.p, bytes.n);
    pge_http_conn_sent(c);
    return 0;
}

static int check(const struct pge_http_request *req, const struct head *head) {
    if (req->state != PGE_HTTP_REPLY_AWAITED)
        return UV_EALREADY;
    if (head->status < 200 || head->status > 599)
        return UV_EINVAL;
    for (unsigned i = 0; i < head->header_count; i++)
        if (!pge_http_header_is_valid(head->headers[i].name, head->headers[i].value))
            return UV_EINVAL;
    return 0;
}

/* RFC 9110 6.4.1, 15.3.6: statuses whose replies have no body. */
static bool is_bodiless(int status) {
    return status == 204 || status == 205 || status == 304;
}

static int reply(struct pge_http_request *req, struct head *head, struct pge_span body) {
    struct pge_http_conn *c = conn_of(req);
    int status = check(req, head);
    if (status < 0)
        return status;
    if (is_bodiless(head->status))
        body.n = 0;
    head->framing = head->status == 204 || head->status == 304 ? NO_BODY : LENGTH;
    head->length = body.n;
    c->is_last = !pge_http_conn_keeps(c);
    status = write_head(c, head);
    if (status == 0 && !req->parse.message.is_head)
        status = write_bytes(c, body);
    if (status == 0)
        pge_http_conn_reply_done(c);
    return status;
}

int pge_http_reply(struct pge_http_request *req, int status, const struct pge_http_header *headers,
                   unsigned header_count, struct pge_span body) {
    struct head head = {
        .status = status, .headers = headers, .header_count = header_count, .retry_after_s = -1};
    return reply(req, &head, body);
}

int pge_http_reply_as(struct pge_http_request *req, int status, const char *type,
                      const struct pge_http_header *headers, unsigned header_count,
                      struct pge_span body) {
    struct head head = {.status = status,
                        .headers = headers,
                        .header_count = header_count,
                        .type = type,
                        .retry_after_s = -1};
    for (unsigned i = 0; i < header_count; i++)
        if (equals(headers[i].name, content_type))
            head.type = NULL;
    return reply(req, &head, body);
}

/* ---- problems ---- */

static void put_json_text(struct pge_buf *out, struct pge_span text) {
    PGE_BUF_LIT(out, "\"");
    for (size_t i = 0; i < text.n; i++) {
        unsigned char c = (unsigned char)text.p[i];
        char escaped[8];
        int n = 1;
        escaped[0] = (char)c;
        if (c < 0x20)
            n = snprintf(escaped, sizeof escaped, "\\u%04x", c);
        else if (c == '"' || c == '\\')
            n = snprintf(escaped, sizeof escaped, "\\%c", c);
        pge_buf_append(out, escaped, (size_t)n);
    }
    PGE_BUF_LIT(out, "\"");
}

/* RFC 9457. The body, in the server's scratch; p NULL: out of memory. */
static struct pge_span problem(struct pge_http_server *server, int status, struct pge_span detail) {
    struct pge_buf *out = &server->scratch;
    const char *title = pge_http_reason(status);
    if (detail.n && pge_utf8_check(detail.p, detail.n) < 0)
        detail.n = 0;
    pge_buf_clear(out);
    if (pge_buf_reserve(out, 256 + detail.n * 6) < 0)
        return (struct pge_span){NULL, 0};
    PGE_BUF_LIT(out, "{\"type\":\"about:blank\",\"title\":");
    put_json_text(out, (struct pge_span){title, strlen(title)});
    PGE_BUF_LIT(out, ",\"status\":");
    put_number(out, (size_t)status, 10);
    if (detail.n) {
        PGE_BUF_LIT(out, ",\"detail\":");
        put_json_text(out, detail);
    }
    PGE_BUF_LIT(out, "}");
    return (struct pge_span){pge_buf_head(out), pge_buf_len(out)};
}

int pge_http_reply_problem(struct pge_http_request *req, int status, struct pge_span detail,
                           int retry_after_s, const struct pge_http_header *headers,
                           unsigned header_count) {
    struct head head = {.status = status,
                        .headers = headers,
                        .header_count = header_count,
                        .type = "application/problem+json",
                        .retry_after_s = retry_after_s};
    int result = check(req, &head);
    if (result < 0)
        return result;
    struct pge_span body = problem(conn_of(req)->server, status, detail);
    result = body.p ? reply(req, &head, body) : UV_ENOMEM;
    if (!body.p)
        pge_http_reply_fail(req);
    pge_buf_clear(&conn_of(req)->server->scratch);
    pge_buf_trim(&conn_of(req)->server->scratch, PGE_READ_SIZE);
    return result;
}

int pge_http_reply_refusal(struct pge_http_conn *c, int status, const char *why) {
    struct head head = {.status = status, .type = "application/problem+json", .retry_after_s = -1};
    const struct pge_http_parse *p = &c->req.parse;
    struct pge_span body = problem(c->server, status, (struct pge_span){why, strlen(why)});
    if (!body.p)
        return UV_ENOMEM;
    head.length = body.n;
    bool is_head = pge_buf_len(&p->in) >= 5 && memcmp(pge_buf_head(&p->in), "HEAD ", 5) == 0;
    int result = write_head(c, &head);
    if (result == 0 && !is_head)
        result = write_bytes(c, body);
    pge_buf_clear(&c->server->scratch);
    return result;
}

/* ---- replies of unknown length ---- */

int pge_http_reply_begin(struct pge_http_request *req, int status,
                         const struct pge_http_header *headers, unsigned header_count) {
    struct pge_http_conn *c = conn_of(req);
    struct head head = {.status = status,
                        .headers = headers,
                        .header_count = header_count,
                        .retry_after_s = -1,
                        .framing = CHUNKS};
    int result = check(req, &head);
    if (result < 0)
        return result;
    if (is_bodiless(status))
        head.framing = status == 205 ? LENGTH : NO_BODY;
    else if (req->parse.is_old)
        head.framing = UNTIL_CLOSE;
    req->is_chunked = head.framing == CHUNKS;
    req->is_bodiless = is_bodiless(status) || req->parse.message.is_head;
    c->is_last = head.framing == UNTIL_CLOSE || !pge_http_conn_keeps(c);
    result = write_head(c, &head);
    if (result == 0)
        req->state = PGE_HTTP_REPLY_BEGUN;
    return result;
}

static int check_begun(const struct pge_http_request *req) {
    if (req->state == PGE_HTTP_REPLY_BEGUN)
        return 0;
    return req->state == PGE_HTTP_REPLY_AWAITED ? UV_EINVAL : UV_EALREADY;
}

int pge_http_reply_chunk(struct pge_http_request *req, struct pge_span data) {
    struct pge_http_conn *c = conn_of(req);
    int status = check_begun(req);
    if (status < 0 || data.n == 0 || req->is_bodiless)
        return status;
    if (!req->is_chunked)
        return write_bytes(c, data);
    struct pge_buf *out = pge_http_conn_room(c, data.n + 24);
    if (!out)
        return UV_ENOMEM;
    put_number(out, data.n, 16);
    PGE_BUF_LIT(out, "\r\n");
    pge_buf_append(out, data.p, data.n);
    PGE_BUF_LIT(out, "\r\n");
    pge_http_conn_sent(c);
    return 0;
}

int pge_http_reply_end(struct pge_http_request *req) {
    int status = check_begun(req);
    if (status < 0)
        return status;
    if (req->is_chunked && !req->is_bodiless)
        status = write_bytes(conn_of(req), (struct pge_span){"0\r\n\r\n", 5});
    if (status == 0)
        pge_http_conn_reply_done(conn_of(req));
    return status;
}

void pge_http_reply_fail(struct pge_http_request *req) {
    if (req->state == PGE_HTTP_REPLY_AWAITED || req->state == PGE_HTTP_REPLY_BEGUN)
        pge_http_conn_cut(conn_of(req), false);
}
