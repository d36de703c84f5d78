/*
 * swar.h - looking at many bytes at a time: sixteen where the machine has SSE2, as every x86-64
 * does, else eight in a plain 64-bit word. For codecs.
 */
#ifndef PGE_CODEC_SWAR_H
#define PGE_CODEC_SWAR_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

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
#ifdef __SSE2__
    while (end - p >= 64) {
        const __m128i *v = (const __m128i *)(const void *)p;
        __m128i low = _mm_or_si128(_mm_loadu_si128(v), _mm_loadu_si128(v + 1));
        __m128i high = _mm_or_si128(_mm_loadu_si128(v + 2), _mm_loadu_si128(v + 3));
        if (_mm_movemask_epi8(_mm_or_si128(low, high)))
            break;
        p += 64;
    }
#endif
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

#ifdef __SSE2__
/* A bit for each of sixteen bytes that needs such a look. */
static inline unsigned pge_swar_specials16(const char *p) {
    __m128i v = _mm_loadu_si128((const __m128i *)(const void *)p);
    __m128i plain = _mm_cmpgt_epi8(v, _mm_set1_epi8(0x1F)); /* signed: above 7F is below */
    __m128i marks =
        _mm_or_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8('"')), _mm_cmpeq_epi8(v, _mm_set1_epi8('\\')));
    return (unsigned)_mm_movemask_epi8(_mm_andnot_si128(marks, plain)) ^ 0xFFFF;
}
#endif

/* The first byte from p that needs such a look, or end. */
static inline const char *pge_swar_skip_plain(const char *p, const char *end) {
#ifdef __SSE2__
    while (end - p >= 16) {
        unsigned specials = pge_swar_specials16(p);
        if (specials)
            return p + __builtin_ctz(specials);
        p += 16;
    }
#endif
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

/* The first byte from p that is a blank or a control, or end. */
static inline const char *pge_swar_skip_visible(const char *p, const char *end) {
    for (; end - p >= 8; p += 8) {
        uint64_t w = pge_swar_load(p);
        if ((w - PGE_SWAR_ONES * 0x21) & ~w & PGE_SWAR_HIGHS)
            break;
    }
    while (p < end && (unsigned char)*p > 0x20)
        p++;
    return p;
}

#endif
