/*
 * http_parse.c - one request out of a stream: llhttp takes the head, then we count the body.
 *
 *   in |GET / HTTP/1.1.....|body...|next request...|
 *       <-- head_size --->          ^ pos, once ready
 *
 * Each refusal depends on where a byte stands in the request, never on how the bytes came.
 */
#include "base/alloc.h"
#include "front/http_internal.h"

/* A body gets room for so many times what has come of the request, whatever length it declares. */
enum { ROOM_FACTOR = 16, MAX_READ = 1 << 30 };

static struct pge_http_parse *of(llhttp_t *llhttp) {
    return container_of(llhttp, struct pge_http_parse, llhttp);
}

enum pge_http_phase pge_http_parse_refuse(struct pge_http_parse *p, int status, const char *why) {
    p->status = (uint16_t)status;
    p->why = why;
    p->phase = PGE_HTTP_REFUSED;
    return p->phase;
}

static int on_url(llhttp_t *llhttp, const char *at, size_t n) {
    (void)at;
    of(llhttp)->target_size += n;
    return 0;
}

static int on_url_complete(llhttp_t *llhttp) {
    struct pge_http_parse *p = of(llhttp);
    p->target_done = p->target_size <= p->limits->max_uri_bytes;
    return p->target_done ? 0 : HPE_USER; /* refuse_head measures it again */
}

static int on_version_complete(llhttp_t *llhttp) {
    struct pge_http_parse *p = of(llhttp);
    p->version_done = llhttp->http_major == 1;
    p->is_foreign = !p->version_done;
    return p->version_done ? 0 : HPE_USER;
}

/* Pauses so that what follows is ours to read: the body, and each later request. */
static int on_headers_complete(llhttp_t *llhttp) {
    of(llhttp)->head_done = true;
    return HPE_PAUSED;
}

static const llhttp_settings_t settings = {
    .on_url = on_url,
    .on_url_complete = on_url_complete,
    .on_version_complete = on_version_complete,
    .on_headers_complete = on_headers_complete,
};

void pge_http_parse_init(struct pge_http_parse *p, const struct pge_http_limits *limits) {
    *p = (struct pge_http_parse){.limits = limits};
}

void pge_http_parse_deinit(struct pge_http_parse *p) {
    pge_buf_deinit(&p->in);
    pge_free(p->headers);
    p->headers = NULL;
    p->header_cap = 0;
}

int pge_http_parse_append(struct pge_http_parse *p, const char *data, size_t n) {
    return pge_buf_keep(&p->in, data, n);
}

uv_buf_t pge_http_parse_room(struct pge_http_parse *p) {
    size_t most = pge_buf_len(&p->in) * ROOM_FACTOR;
    size_t n = p->left < most ? p->left : most;
    if (p->phase != PGE_HTTP_SIZED || pge_buf_reserve(&p->in, n) < 0)
        return uv_buf_init(NULL, 0); /* without memory for it, it is told when the bytes come */
    return uv_buf_init(p->in.data + p->in.end, (unsigned)(n < MAX_READ ? n : MAX_READ));
}

struct pge_buf *pge_http_parse_loan(struct pge_http_parse *p) {
    bool is_last = p->phase == PGE_HTTP_READY && pge_buf_len(&p->in) == p->pos;
    return is_last && p->message.body.n ? &p->in : NULL;
}

void pge_http_parse_taken(struct pge_http_parse *p) {
    p->message = (struct pge_http_message){.is_head = p->message.is_head};
    p->pos = 0;
}

void pge_http_parse_next(struct pge_http_parse *p) {
    pge_buf_consume(&p->in, p->pos);
    struct pge_http_parse fresh = {
        .limits = p->limits, .in = p->in, .headers = p->headers, .header_cap = p->header_cap};
    *p = fresh;
}

void pge_http_parse_trim(struct pge_http_parse *p) {
    if (pge_buf_len(&p->in))
        return;
    pge_buf_give_back(&p->in);
    pge_http_parse_deinit(p);
}

/* Tolerates one empty line before a request (RFC 9112 2.2). False: wait for more, or refused. */
static bool start(struct pge_http_parse *p) {
    size_t n = pge_buf_len(&p->in);
    if (n == 0)
        return false;
    const char *head = pge_buf_head(&p->in);
    if (head[0] == '\r' && !p->skipped_line) {
        if (n == 1)
            return false;
        if (head[1] != '\n') {
            pge_http_parse_refuse(p, 400, "bare CR");
            return false;
        }
        pge_buf_consume(&p->in, 2);
        p->skipped_line = true;
        return start(p);
    }
    if (head[0] == '\r' || head[0] == '\n') {
        pge_http_parse_refuse(p, 400, "empty line in place of a request");
        return false;
    }
    llhttp_init(&p->llhttp, HTTP_REQUEST, &settings);
    p->phase = PGE_HTTP_HEAD;
    return true;
}

/* Bytes of the target among the first pos of a request; llhttp may not have told of its end yet. */
static size_t target_so_far(const struct pge_http_parse *p, size_t pos) {
    const char *head = pge_buf_head(&p->in), *end = head + pos;
    const char *space = memchr(head, ' ', pos);
    if (!space)
        return 0;
    const char *to = space + 1;
    while (to < end && (unsigned char)*to > ' ')
        to++;
    return (size_t)(to - space - 1);
}

static void refuse_head(struct pge_http_parse *p, llhttp_errno_t error, size_t at) {
    bool is_version = p->target_done && !p->version_done && error == HPE_INVALID_VERSION;
    if (!p->target_done && target_so_far(p, at) > p->limits->max_uri_bytes)
        pge_http_parse_refuse(p, 414, "target too long");
    else if (p->is_foreign || is_version || error == HPE_PAUSED_H2_UPGRADE)
        pge_http_parse_refuse(p, 505, "only HTTP/1.0 and HTTP/1.1 are spoken here");
    else if (!p->version_done)
        pge_http_parse_refuse(p, 400, "malformed request line");
    else
        pge_http_parse_refuse(p, 400, "malformed header");
}

/* True: the head is complete and good, go on with the body. */
static bool run_head(struct pge_http_parse *p) {
    size_t limit = p->limits->max_header_bytes, n = pge_buf_len(&p->in);
    size_t end = n < limit ? n : limit;
    const char *head = pge_buf_head(&p->in);
    llhttp_errno_t error = llhttp_execute(&p->llhttp, head + p->pos, end - p->pos);
    if (error == HPE_OK) {
        p->pos = end;
        if (!p->target_done && target_so_far(p, end) > p->limits->max_uri_bytes)
            pge_http_parse_refuse(p, 414, "target too long");
        else if (end == limit)
            pge_http_parse_refuse(p, p->target_done ? 431 : 414, "header block too large");
        return false;
    }
    p->pos = (size_t)(llhttp_get_error_pos(&p->llhttp) - head);
    if (error != HPE_PAUSED || !p->head_done) {
        refuse_head(p, error, p->pos);
        return false;
    }
    p->head_size = p->pos;
    return pge_http_check_head(p) == 0;
}

/* What was ready may have moved since the head was read: a growing buffer is another one. */
static enum pge_http_phase ready(struct pge_http_parse *p) {
    if (p->indexed != pge_buf_head(&p->in))
        pge_http_check_again(p);
    if (p->body_size)
        p->message.body = (struct pge_span){pge_buf_head(&p->in) + p->head_size, p->body_size};
    p->phase = PGE_HTTP_READY;
    return p->phase;
}

static enum pge_http_phase run_sized(struct pge_http_parse *p) {
    size_t come = pge_buf_len(&p->in) - p->pos;
    size_t n = come < p->left ? come : p->left;
    p->pos += n;
    p->left -= n;
    p->body_size += n;
    return p->left ? p->phase : ready(p);
}

static enum pge_http_phase run_chunked(struct pge_http_parse *p) {
    int done = pge_http_chunk_run(p);
    if (done == 1)
        return ready(p);
    if (done == 0) {
        /* All that came is taken: only the body itself is kept, not its coding. */
        p->pos = p->head_size + p->body_size;
        p->in.end = p->in.start + p->pos;
    }
    return p->phase;
}

enum pge_http_phase pge_http_parse_run(struct pge_http_parse *p) {
    if (p->phase == PGE_HTTP_START && !start(p))
        return p->phase;
    if (p->phase == PGE_HTTP_HEAD && !run_head(p))
        return p->phase;
    if (p->phase == PGE_HTTP_SIZED)
        return run_sized(p);
    if (p->phase == PGE_HTTP_CHUNKED)
        return run_chunked(p);
    return p->phase;
}
