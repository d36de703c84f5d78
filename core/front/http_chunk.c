/*
 * http_chunk.c - the chunked coding (RFC 9112 7.1), removed in place and to the letter: what
 * follows a body is found where every reader finds it, or the body is refused.
 *
 *   in |head|body so far|..coding..|5;a=b CRLF data|      data moves down to the end of the body
 *                                   ^ pos
 */
#include "front/http_internal.h"

/* 2^64 has 16 digits; more are only good for leading zeros. */
enum { MAX_DIGITS = 16 };

enum {
    SIZE, /* hex digits */
    EXT_NAME_START,
    EXT_NAME,
    EXT_VALUE_START,
    EXT_VALUE,
    EXT_QUOTED,
    EXT_QUOTED_END,
    SIZE_LF,
    DATA,
    DATA_CR,
    DATA_LF,
    TRAILER, /* first byte of a trailer line, or the CR of the end */
    TRAILER_NAME,
    TRAILER_VALUE,
    TRAILER_LF,
    END_LF,
};

void pge_http_chunk_start(struct pge_http_parse *p) {
    p->chunk_state = SIZE;
    p->chunk_digits = 0;
    p->left = 0;
}

/* The steps return the next state, or -1 for a byte that may not stand there. */

static int step_size(struct pge_http_parse *p, char c) {
    int digit = pge_http_hex(c);
    if (digit < 0 && p->chunk_digits)
        return c == '\r' ? SIZE_LF : c == ';' ? EXT_NAME_START : -1;
    if (digit < 0 || ++p->chunk_digits > MAX_DIGITS)
        return -1;
    p->left = p->left * 16 + (size_t)digit; /* below 2^64: refused before it is too large */
    if (p->left > p->limits->max_body_bytes - p->body_size) {
        pge_http_parse_refuse(p, 413, "body too large");
        return -1;
    }
    return SIZE;
}

/*
 * What Node (llhttp 8) takes of RFC 9112 7.1.1: no escapes in a quoted value, nothing after a bare
 * one. Nobody sends extensions but to try us.
 */
static int step_extension(int state, char c) {
    bool token = pge_http_is_token((unsigned char)c);
    switch (state) {
    case EXT_NAME_START:
        return token ? EXT_NAME : -1;
    case EXT_NAME:
        if (c == '=')
            return EXT_VALUE_START;
        return token ? EXT_NAME : c == '\r' ? SIZE_LF : c == ';' ? EXT_NAME_START : -1;
    case EXT_VALUE_START:
        return token ? EXT_VALUE : c == '"' ? EXT_QUOTED : -1;
    case EXT_VALUE:
        return token ? EXT_VALUE : c == '\r' ? SIZE_LF : -1;
    case EXT_QUOTED:
        if (c == '"')
            return EXT_QUOTED_END;
        return c != '\\' && pge_http_is_text((unsigned char)c) ? EXT_QUOTED : -1;
    default:
        return c == '\r' ? SIZE_LF : c == ';' ? EXT_NAME_START : -1;
    }
}

/* A trailer that speaks of framing or routing is an attack. Names may come in pieces. */
static const char *const forbidden[] = {"content-length", "transfer-encoding", "host"};

static int step_name(struct pge_http_parse *p, char c) {
    for (unsigned i = 0; i < sizeof forbidden / sizeof *forbidden; i++) {
        const char *name = forbidden[i];
        bool is_whole = c == ':' && p->trailer_size == strlen(name);
        if ((p->trailer_differs & (1u << i)) == 0 && is_whole)
            return -1;
        if (p->trailer_size >= strlen(name) || name[p->trailer_size] != (c | 0x20))
            p->trailer_differs = (uint8_t)(p->trailer_differs | (1u << i));
    }
    if (c == ':')
        return TRAILER_VALUE;
    p->trailer_size++;
    return pge_http_is_token((unsigned char)c) ? TRAILER_NAME : -1;
}

static int step_trailer(struct pge_http_parse *p, int state, char c) {
    switch (state) {
    case TRAILER:
        p->trailer_size = 0;
        p->trailer_differs = 0;
        return c == '\r' ? END_LF : c == ':' ? -1 : step_name(p, c);
    case TRAILER_NAME:
        return step_name(p, c);
    case TRAILER_VALUE:
        if (c == '\r')
            return TRAILER_LF;
        return pge_http_is_text((unsigned char)c) ? TRAILER_VALUE : -1;
    default:
        return c == '\n' ? TRAILER : -1;
    }
}

static int step(struct pge_http_parse *p, char c) {
    int state = p->chunk_state;
    switch (state) {
    case SIZE:
        return step_size(p, c);
    case SIZE_LF:
        if (c != '\n')
            return -1;
        p->chunk_digits = 0;
        return p->left ? DATA : TRAILER;
    case DATA_CR:
        return c == '\r' ? DATA_LF : -1;
    case DATA_LF:
        return c == '\n' ? SIZE : -1;
    default:
        if (++p->extra > p->limits->max_header_bytes) {
            pge_http_parse_refuse(p, state < SIZE_LF ? 413 : 431,
                                  "chunk extensions or trailers too large");
            return -1;
        }
        return state < SIZE_LF ? step_extension(state, c) : step_trailer(p, state, c);
    }
}

static void take_data(struct pge_http_parse *p) {
    char *head = pge_buf_head(&p->in);
    size_t come = pge_buf_len(&p->in) - p->pos;
    size_t n = come < p->left ? come : p->left;
    memmove(head + p->head_size + p->body_size, head + p->pos, n);
    p->body_size += n;
    p->pos += n;
    p->left -= n;
    if (p->left == 0)
        p->chunk_state = DATA_CR;
}

int pge_http_chunk_run(struct pge_http_parse *p) {
    const char *head = pge_buf_head(&p->in);
    size_t end = pge_buf_len(&p->in);
    while (p->pos < end) {
        if (p->chunk_state == DATA) {
            take_data(p);
            continue;
        }
        char c = head[p->pos];
        if (p->chunk_state == END_LF && c == '\n') {
            p->pos++;
            return 1;
        }
        int state = p->chunk_state == END_LF ? -1 : step(p, c);
        if (state < 0) {
            if (p->phase != PGE_HTTP_REFUSED)
                pge_http_parse_refuse(p, 400, "malformed chunk");
            return UV_EPROTO;
        }
        p->chunk_state = (uint8_t)state;
        p->pos++;
    }
    return 0;
}
