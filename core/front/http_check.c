/*
 * http_check.c - a request's head read again, to the letter of RFC 9112 and 9110: llhttp, like each
 * of its neighbours, takes things that others refuse, and what two readers read differently
 * smuggles. Refused here is what nginx, HAProxy or Node refuses (reliability 1.3).
 */
#include <strings.h>

#include "base/alloc.h"
#include "front/http_internal.h"

/* What a byte may be part of. */
enum { TOKEN = 1, TEXT = 2, TARGET = 4, HOST = 8 };

/* From 0x80 on (obs-text) bytes are TEXT only. */
static const uint8_t classes[256] = {
    0,  0,  0,  0,  0,  0,  0,  0,  0,  2,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,
    0,  0,  0,  0,  0,  0,  0,  0,  2,  7,  6,  3,  7,  7,  7,  7,  6,  6,  7,  7,  6,  15, 15, 6,
    15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 6,  6,  6,  6,  6,  6,  6,  15, 15, 15, 15, 15, 15, 15,
    15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 6,  6,  6,  7,  15,
    7,  15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15,
    15, 15, 15, 6,  7,  6,  15, 0,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,
    2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,
    2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,
    2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,
    2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,
    2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,
};

/* What of the head decides about framing and routing. */
struct seen {
    struct pge_span host, length, coding, expect;
    unsigned hosts, lengths, codings, expects;
    bool close, keep_alive, has_tab;
};

static bool is(unsigned char c, unsigned mask) {
    return (classes[c] & mask) != 0;
}

bool pge_http_is_token(unsigned char c) {
    return is(c, TOKEN);
}

bool pge_http_is_text(unsigned char c) {
    return is(c, TEXT);
}

bool pge_http_is_host(unsigned char c) {
    return is(c, HOST);
}

int pge_http_hex(char c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool pge_http_header_is_valid(struct pge_span name, struct pge_span value) {
    for (size_t i = 0; i < name.n; i++)
        if (!is((unsigned char)name.p[i], TOKEN))
            return false;
    for (size_t i = 0; i < value.n; i++)
        if (!is((unsigned char)value.p[i], TEXT))
            return false;
    return name.n > 0;
}

static bool equals(struct pge_span span, const char *text) {
    return span.n == strlen(text) && strncasecmp(span.p, text, span.n) == 0;
}

static bool is_blank(char c) {
    return c == ' ' || c == '\t';
}

static struct pge_span trim(struct pge_span s) {
    while (s.n && is_blank(s.p[0])) {
        s.p++;
        s.n--;
    }
    while (s.n && is_blank(s.p[s.n - 1]))
        s.n--;
    return s;
}

/* Cuts the next element off a comma-separated list; false at its end. */
static bool next_element(struct pge_span *list, struct pge_span *element) {
    if (!list->p)
        return false;
    const char *comma = memchr(list->p, ',', list->n);
    size_t n = comma ? (size_t)(comma - list->p) : list->n;
    *element = trim((struct pge_span){list->p, n});
    *list = comma ? (struct pge_span){comma + 1, list->n - n - 1} : (struct pge_span){NULL, 0};
    return true;
}

/* ---- lines ---- */

static int grow_headers(struct pge_http_parse *p) {
    unsigned cap = p->header_cap ? p->header_cap * 2 : 16;
    struct pge_http_header *headers = pge_realloc(p->headers, cap * sizeof *headers);
    if (!headers)
        return UV_ENOMEM;
    p->headers = headers;
    p->header_cap = cap;
    return 0;
}

/* "name: value CRLF" at line; the name becomes lower case. The next line, or NULL: malformed. */
static char *read_line(char *line, struct pge_http_header *header) {
    char *at = line;
    for (; is((unsigned char)*at, TOKEN); at++)
        if (*at >= 'A' && *at <= 'Z')
            *at = (char)(*at | 0x20);
    if (at == line || *at != ':')
        return NULL; /* also a folded line: it starts with a blank */
    header->name = (struct pge_span){line, (size_t)(at - line)};
    char *value = ++at;
    while (is((unsigned char)*at, TEXT))
        at++;
    if (at[0] != '\r' || at[1] != '\n')
        return NULL;
    header->value = trim((struct pge_span){value, (size_t)(at - value)});
    return at + 2;
}

/* Fills headers. The head ends in LF, which no loop passes. 0, UV_EPROTO, UV_E2BIG, UV_ENOMEM. */
static int index_headers(struct pge_http_parse *p, char *line, const char *end) {
    unsigned count = 0;
    while (line < end && *line != '\r') {
        if (count == p->limits->max_headers)
            return UV_E2BIG;
        if (count == p->header_cap && grow_headers(p) < 0)
            return UV_ENOMEM;
        line = read_line(line, &p->headers[count++]);
        if (!line)
            return UV_EPROTO;
    }
    p->message.headers = p->headers;
    p->message.header_count = count;
    return line + 2 == end && line[1] == '\n' ? 0 : UV_EPROTO;
}

/* "METHOD SP target SP HTTP/1.x CRLF": exactly one blank between. The line after it, or NULL. */
static char *read_request_line(struct pge_http_parse *p) {
    char *head = pge_buf_head(&p->in);
    char *space = memchr(head, ' ', p->head_size);
    if (!space)
        return NULL;
    p->method_size = (size_t)(space - head);
    p->target_at = p->method_size + 1;
    char *at = space + 1;
    while (is((unsigned char)*at, TARGET))
        at++;
    p->target_size = (size_t)(at - space - 1);
    if (p->target_size == 0 || strncmp(at, " HTTP/1.", 8) != 0)
        return NULL;
    p->is_old = at[8] == '0';
    return at[9] == '\r' && at[10] == '\n' ? at + 11 : NULL;
}

void pge_http_point(struct pge_http_parse *p) {
    const char *head = pge_buf_head(&p->in);
    struct pge_http_message *m = &p->message;
    m->method = (struct pge_span){head, p->method_size};
    m->is_head = m->method.n == 4 && memcmp(head, "HEAD", 4) == 0;
    m->target = (struct pge_span){head + p->target_at, p->target_size};
    m->path = m->target;
    m->query = (struct pge_span){NULL, 0};
    const char *mark = memchr(m->target.p, '?', m->target.n);
    if (mark) {
        m->path.n = (size_t)(mark - m->target.p);
        m->query = (struct pge_span){mark + 1, m->target.n - m->path.n - 1};
    }
    p->indexed = head;
}

void pge_http_check_again(struct pge_http_parse *p) {
    char *head = pge_buf_head(&p->in);
    char *line = (char *)memchr(head, '\n', p->head_size) + 1;
    index_headers(p, line, head + p->head_size); /* took the same bytes before: cannot fail */
    pge_http_point(p);
}

/* ---- what the fields say ---- */

/* nginx takes no tab for white space here, and others have been fooled by one. */
static bool has_tab(const struct pge_http_header *header) {
    const char *from = header->name.p + header->name.n, *to = header->value.p + header->value.n;
    while (*to != '\r')
        to++;
    return memchr(from, '\t', (size_t)(to - from)) != NULL;
}

static void note(struct seen *seen, const struct pge_http_header *header) {
    struct pge_span name = header->name, list = header->value, element;
    unsigned decisive = seen->hosts + seen->lengths + seen->codings;
    switch (name.n) {
    case 4:
        if (memcmp(name.p, "host", 4) == 0 && ++seen->hosts)
            seen->host = header->value;
        break;
    case 6:
        if (memcmp(name.p, "expect", 6) == 0 && ++seen->expects)
            seen->expect = header->value;
        break;
    case 10:
        if (memcmp(name.p, "connection", 10) != 0)
            break;
        while (next_element(&list, &element)) {
            seen->close |= equals(element, "close");
            seen->keep_alive |= equals(element, "keep-alive");
        }
        break;
    case 14:
        if (memcmp(name.p, "content-length", 14) == 0 && ++seen->lengths)
            seen->length = header->value;
        break;
    case 17:
        if (memcmp(name.p, "transfer-encoding", 17) == 0 && ++seen->codings)
            seen->coding = header->value;
        break;
    default:
        break;
    }
    if (seen->hosts + seen->lengths + seen->codings != decisive)
        seen->has_tab |= has_tab(header);
}

static int refuse(struct pge_http_parse *p, int status, const char *why) {
    pge_http_parse_refuse(p, status, why);
    return UV_EPROTO;
}

static int check_method(struct pge_http_parse *p) {
    struct pge_span method = p->message.method;
    if (equals(method, "CONNECT") || equals(method, "TRACE"))
        return refuse(p, 501, "method not implemented");
    return 0;
}

/* A coding before a last "chunked" may be a good one we do not know: 501. Without that the end of
   the body is unknown: 400 (RFC 9112 6.1, 6.3). */
static int check_coding(struct pge_http_parse *p, const struct seen *seen) {
    struct pge_span list = seen->coding, element = {0};
    unsigned chunked = 0, others = 0;
    bool last = false;
    if (seen->codings > 1 || seen->lengths || p->is_old)
        return refuse(p, 400, "Transfer-Encoding twice, with Content-Length, or in HTTP/1.0");
    while (next_element(&list, &element)) {
        last = equals(element, "chunked");
        chunked += last;
        others += !last && element.n;
    }
    if (equals(seen->coding, "chunked") && (p->llhttp.flags & F_CHUNKED))
        return 0;
    if (last && chunked == 1 && others)
        return refuse(p, 501, "transfer coding not implemented");
    return refuse(p, 400, "Transfer-Encoding other than chunked");
}

static int check_length(struct pge_http_parse *p, const struct seen *seen) {
    struct pge_span text = seen->length;
    uint64_t length = 0;
    if (seen->lengths > 1 || text.n == 0)
        return refuse(p, 400, "Content-Length twice or empty");
    for (size_t i = 0; i < text.n; i++) {
        if (text.p[i] < '0' || text.p[i] > '9')
            return refuse(p, 400, "malformed Content-Length");
        unsigned digit = (unsigned)(text.p[i] - '0');
        if (length > (UINT64_MAX - digit) / 10)
            return refuse(p, 413, "body too large");
        length = length * 10 + digit;
    }
    if (length != p->llhttp.content_length)
        return refuse(p, 400, "malformed Content-Length");
    if (length > p->limits->max_body_bytes)
        return refuse(p, 413, "body too large");
    if (length && p->is_old &&
        (equals(p->message.method, "GET") || p->message.is_head ||
         equals(p->message.method, "DELETE")))
        return refuse(p, 400, "body where HTTP/1.0 has none");
    p->left = (size_t)length;
    return 0;
}

/* ---- all of it ---- */

static int read_head(struct pge_http_parse *p) {
    const char *end = pge_buf_head(&p->in) + p->head_size;
    char *line = read_request_line(p);
    if (!line)
        return refuse(p, 400, "malformed request line");
    int status = index_headers(p, line, end);
    if (status == UV_E2BIG)
        return refuse(p, 431, "too many headers");
    if (status == UV_ENOMEM)
        return refuse(p, 503, "out of memory");
    return status < 0 ? refuse(p, 400, "malformed header") : 0;
}

static int check_fields(struct pge_http_parse *p, const struct seen *seen) {
    if (seen->has_tab)
        return refuse(p, 400, "tab in Host, Content-Length or Transfer-Encoding");
    if (seen->hosts > 1 || (seen->hosts == 0 && !p->is_old))
        return refuse(p, 400, "exactly one Host is wanted");
    if (pge_http_check_target(p, seen->host) < 0)
        return UV_EPROTO;
    if (seen->codings && check_coding(p, seen) < 0)
        return UV_EPROTO;
    if (seen->expects && (seen->expects > 1 || !equals(seen->expect, "100-continue")))
        return refuse(p, 417, "expectation other than 100-continue");
    return seen->lengths ? check_length(p, seen) : 0;
}

int pge_http_check_head(struct pge_http_parse *p) {
    struct seen seen = {0};
    if (read_head(p) < 0)
        return UV_EPROTO;
    pge_http_point(p);
    for (unsigned i = 0; i < p->message.header_count; i++)
        note(&seen, &p->headers[i]);
    if (check_method(p) < 0 || check_fields(p, &seen) < 0)
        return UV_EPROTO;
    p->keep_alive = !seen.close && (!p->is_old || seen.keep_alive);
    p->expects_continue = seen.expects && !p->is_old;
    p->phase = seen.codings ? PGE_HTTP_CHUNKED : PGE_HTTP_SIZED;
    if (seen.codings)
        pge_http_chunk_start(p);
    return 0;
}
