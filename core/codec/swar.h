/* swar.h - looking at eight bytes at a time in a plain 64-bit word. For codecs. */
#ifndef PGE_CODEC_SWAR_H
#define PGE_CODEC_SWAR_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define PGE_SWAR_ONES UINT64_C(0x0101010101010101)
#define PGE_SWAR_HIGHS UINT64_C(0x8080808080808080)

static inline uint64_t pge_swar_load(const char *p) {
    uint64_t word;
    memcpy(&word, p, sizeof(word));
    return word;
}

/* How many bytes from p on are ASCII, counted in whole words of eight. */
static inline size_t pge_swar_ascii(const char *p, size_t n) {
    const char *start = p, *end = p + n;
    while (end - p >= 32) {
        uint64_t words =
            pge_swar_load(p) | pge_swar_load(p + 8) | pge_swar_load(p + 16) | pge_swar_load(p + 24);
        if (words & PGE_SWAR_HIGHS)
            break;
        p += 32;
    }
    while (end - p >= 8 && !(pge_swar_load(p) & PGE_SWAR_HIGHS))
        p += 8;
    return (size_t)(p - start);
}

/* Marks the bytes of a JSON string that need a look: quote, backslash, controls, non-ASCII. The
 * lowest mark is exact; borrows can mark innocent bytes above it. */
static inline uint64_t pge_swar_specials(uint64_t w) {
    uint64_t quote = w ^ (PGE_SWAR_ONES * '"'), slash = w ^ (PGE_SWAR_ONES * '\\');
    uint64_t control = (w - PGE_SWAR_ONES * 0x20) & ~w;
    return (w | control | ((quote - PGE_SWAR_ONES) & ~quote) | ((slash - PGE_SWAR_ONES) & ~slash)) &
           PGE_SWAR_HIGHS;
}

/* The first byte from p that needs such a look, or end. */
static inline const char *pge_swar_skip_plain(const char *p, const char *end) {
    while (end - p >= 8) {
        uint64_t specials = pge_swar_specials(pge_swar_load(p));
        if (specials) {
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
            return p + __builtin_ctzll(specials) / 8;
#else
            break; /* "lowest" is not "first" here: let the loop below find it */
#endif
        }
        p += 8;
    }
    while (p < end && *p != '"' && *p != '\\' && (unsigned char)*p >= 0x20 &&
           (unsigned char)*p < 0x80)
        p++;
    return p;
}

#endif
