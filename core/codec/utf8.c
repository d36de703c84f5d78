/* utf8.c - eight ASCII bytes at a time, one character at a time otherwise. */
#include "codec/utf8.h"

#include <stdint.h>
#include <uv.h>

#include "codec/swar.h"

int pge_utf8_char(const char *p, const char *end) {
    const unsigned char *u = (const unsigned char *)p;
    unsigned char low = 0x80, high = 0xBF;
    int width;
    if (u[0] < 0x80)
        return 1;
    if (u[0] < 0xC2 || u[0] > 0xF4)
        return -1;
    if (u[0] < 0xE0) {
        width = 2;
    } else if (u[0] < 0xF0) {
        width = 3;
        if (u[0] == 0xE0)
            low = 0xA0; /* overlong below */
        if (u[0] == 0xED)
            high = 0x9F; /* surrogates above */
    } else {
        width = 4;
        if (u[0] == 0xF0)
            low = 0x90; /* overlong below */
        if (u[0] == 0xF4)
            high = 0x8F; /* past U+10FFFF above */
    }
    for (int i = 1; i < width; i++) {
        if (p + i == end)
            return 0;
        if (u[i] < low || u[i] > high)
            return -1;
        low = 0x80;
        high = 0xBF;
    }
    return width;
}

int pge_utf8_walk(const char *p, size_t n, size_t max_units, struct pge_utf8_walk *walk) {
    const char *start = p, *end = p + n;
    size_t left = max_units;
    int status = 0;
    while (p < end && left > 0) {
        size_t room = (size_t)(end - p) < left ? (size_t)(end - p) : left;
        size_t plain = pge_swar_ascii(p, room);
        while (plain < room && (unsigned char)p[plain] < 0x80)
            plain++;
        p += plain;
        left -= plain;
        if (plain == room)
            break;
        int width = pge_utf8_char(p, end);
        if (width < 0)
            status = UV_EILSEQ;
        size_t units = width == 4 ? 2 : 1;
        if (width <= 0 || units > left)
            break;
        p += width;
        left -= units;
    }
    walk->bytes = (size_t)(p - start);
    walk->units = max_units - left;
    return status;
}

int pge_utf8_check(const char *p, size_t n) {
    struct pge_utf8_walk walk;
    int status = pge_utf8_walk(p, n, SIZE_MAX, &walk);
    return status == 0 && walk.bytes < n ? UV_EILSEQ : status;
}

size_t pge_utf16_units(const char *p, size_t n) {
    /* Bytes that continue a character count 0, the leading byte of a pair counts 2. Both sums are
     * kept per byte lane, and a lane overflows after 255 rounds. */
    size_t units = n, plain = pge_swar_ascii(p, n);
    p += plain;
    n -= plain;
    while (n >= 8) {
        size_t rounds = n / 8 < 255 ? n / 8 : 255;
        uint64_t continued = 0, pairs = 0;
        for (size_t i = 0; i < rounds; i++, p += 8) {
            uint64_t w = pge_swar_load(p);
            continued += (w >> 7) & ~(w >> 6) & PGE_SWAR_ONES;
            pairs += (w >> 7) & (w >> 6) & (w >> 5) & (w >> 4) & PGE_SWAR_ONES;
        }
        n -= rounds * 8;
        for (int lane = 0; lane < 64; lane += 8) {
            units -= (continued >> lane) & 0xFF;
            units += (pairs >> lane) & 0xFF;
        }
    }
    for (; n > 0; n--, p++) {
        unsigned char c = (unsigned char)*p;
        if ((c & 0xC0) == 0x80)
            units--;
        if (c >= 0xF0)
            units++;
    }
    return units;
}

size_t pge_utf8_encode(unsigned code, char out[4]) {
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    size_t width = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (size_t i = width - 1; i > 0; i--) {
        out[i] = (char)(0x80 | (code & 0x3F));
        code >>= 6;
    }
    out[0] = (char)((0xF00 >> width) | code); /* C0, E0, F0: the low byte */
    return width;
}
