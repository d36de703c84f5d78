/* json_text.c - the content of JSON strings: decoding and quoting. */
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <uv.h>

#include "codec/json.h"
#include "codec/swar.h"

static unsigned hex4(const char *p) {
    unsigned value = 0;
    for (int i = 0; i < 4; i++) {
        unsigned c = (unsigned char)p[i];
        value = value * 16 + (c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
    }
    return value;
}

/* *p is after "\u". */
static unsigned next_unicode(const char **p, const char *end) {
    unsigned code = hex4(*p);
    *p += 4;
    if (code < 0xD800 || code > 0xDFFF)
        return code;
    if (code < 0xDC00 && end - *p >= 6 && (*p)[0] == '\\' && (*p)[1] == 'u') {
        unsigned low = hex4(*p + 2);
        if (low >= 0xDC00 && low <= 0xDFFF) {
            *p += 6;
            return 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
        }
    }
    return 0xFFFD;
}

static unsigned next_escape(const char **p, const char *end) {
    char c = (*p)[1];
    *p += 2;
    switch (c) {
    case 'b':
        return '\b';
    case 'f':
        return '\f';
    case 'n':
        return '\n';
    case 'r':
        return '\r';
    case 't':
        return '\t';
    case 'u':
        return next_unicode(p, end);
    default:
        return (unsigned char)c;
    }
}

unsigned pge_json_next_char(const char **p, const char *end) {
    const unsigned char *u = (const unsigned char *)*p;
    if (u[0] == '\\')
        return next_escape(p, end);
    if (u[0] < 0x80) {
        *p += 1;
        return u[0];
    }
    unsigned width = u[0] < 0xE0 ? 2 : u[0] < 0xF0 ? 3 : 4;
    unsigned code = u[0] & (0x7Fu >> width);
    for (unsigned i = 1; i < width; i++)
        code = code << 6 | (u[i] & 0x3Fu);
    *p += width;
    return code;
}

int pge_json_unescape(struct pge_span quoted, struct pge_buf *out) {
    const char *p = quoted.p + 1, *end = quoted.p + quoted.n - 1;
    /* Every escape is longer than what it stands for, so the text's own length is room enough. */
    int status = pge_buf_reserve(out, quoted.n);
    if (status != 0)
        return status;
    char *to = out->data + out->end;
    while (p < end) {
        const char *slash = memchr(p, '\\', (size_t)(end - p));
        size_t n = (size_t)((slash ? slash : end) - p);
        memcpy(to, p, n);
        p += n;
        to += n;
        if (slash)
            to += pge_utf8_encode(pge_json_next_char(&p, end), to);
    }
    out->end = (size_t)(to - out->data);
    return 0;
}

/* Writes the escape of c, a control, quote or backslash; returns its width. */
static size_t write_escape(unsigned char c, char out[6]) {
    static const char digits[] = "0123456789abcdef";
    static const char shorts[] = "btn?fr"; /* from 08 on */
    out[0] = '\\';
    if (c == '"' || c == '\\') {
        out[1] = (char)c;
        return 2;
    }
    if (c >= 8 && c <= 13 && c != 11) {
        out[1] = shorts[c - 8];
        return 2;
    }
    memcpy(out + 1, "u00", 3);
    out[4] = digits[c >> 4];
    out[5] = digits[c & 15];
    return 6;
}

static int append_escape(struct pge_buf *out, unsigned char c) {
    char escape[6];
    size_t width = write_escape(c, escape);
    return pge_buf_append(out, escape, width);
}

/* The end of what can be copied as it is; NULL: not UTF-8. */
static const char *skip_raw(const char *p, const char *end) {
    for (;;) {
        p = pge_swar_skip_plain(p, end);
        if (p == end || (unsigned char)*p < 0x80)
            return p;
        int width = pge_utf8_char(p, end);
        if (width <= 0)
            return NULL;
        p += width;
    }
}

static inline uint64_t load_half(const char *p) {
    uint32_t half;
    memcpy(&half, p, sizeof(half));
    return half;
}

/* Copies what needs no escape, looking at it on the way; words may overlap. False: something does,
 * and nothing is said of what stands at `to`, which has room for n bytes. */
static inline bool copy_plain(char *to, const char *p, size_t n) {
    uint64_t word;
    size_t i = 0;
    if (n >= 8) {
        for (; n - i > 8; i += 8) {
            word = pge_swar_load(p + i);
            if (pge_swar_specials(word))
                return false;
            memcpy(to + i, &word, 8);
        }
        word = pge_swar_load(p + n - 8);
        memcpy(to + n - 8, &word, 8);
        return !pge_swar_specials(word);
    }
    if (n >= 4) {
        word = load_half(p) | load_half(p + n - 4) << 32;
        memcpy(to, p, 4);
        memcpy(to + n - 4, p + n - 4, 4);
        return !pge_swar_specials(word);
    }
    word = PGE_SWAR_ONES * ' ';
    for (; i < n; i++) {
        to[i] = p[i];
        word = word << 8 | (unsigned char)p[i];
    }
    return !pge_swar_specials(word);
}

static int append_quoted(struct pge_buf *out, const char *p, size_t n) {
    const char *end = p + n;
    int status = pge_buf_reserve(out, n + 2); /* enough when nothing is escaped */
    if (status != 0)
        return status;
    char *to = out->data + out->end;
    *to = '"';
    if (copy_plain(to + 1, p, n)) {
        to[n + 1] = '"';
        out->end += n + 2;
        return 0;
    }
    out->end++;
    while (status == 0 && p < end) {
        const char *run_end = skip_raw(p, end);
        if (!run_end)
            return UV_EILSEQ;
        status = pge_buf_append(out, p, (size_t)(run_end - p));
        if (status == 0 && run_end < end)
            status = append_escape(out, (unsigned char)*run_end++);
        p = run_end;
    }
    return status ? status : PGE_BUF_LIT(out, "\"");
}

int pge_json_quote(struct pge_buf *out, const char *p, size_t n) {
    size_t before = pge_buf_len(out);
    int status = append_quoted(out, p, n);
    if (status != 0)
        out->end = out->start + before;
    return status;
}
