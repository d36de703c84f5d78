/*
 * utf8.h - strict UTF-8 (RFC 3629: no overlongs, no surrogates, nothing above U+10FFFF) and the
 * UTF-16 lengths Nest counts in (nest-wire 2.2, TCP-01).
 */
#ifndef PGE_CODEC_UTF8_H
#define PGE_CODEC_UTF8_H

#include <stddef.h>

/* Width 1-4 of the valid character at p (p < end); 0: the bytes up to end are a proper prefix of
 * some character; -1: invalid, whatever follows. */
int pge_utf8_char(const char *p, const char *end);

/* 0, or UV_EILSEQ (also for a text that ends inside a character). */
int pge_utf8_check(const char *p, size_t n);

/* UTF-16 code units of valid UTF-8: 1 for a character up to U+FFFF, 2 above. */
size_t pge_utf16_units(const char *p, size_t n);

/* How far a walk came: whole characters only. */
struct pge_utf8_walk {
    size_t bytes;
    size_t units;
};

/*
 * The incremental form: validates and counts whole characters from p until the next one would
 * exceed max_units, is incomplete, or the bytes end. 0, or UV_EILSEQ (`walk` then ends at the bad
 * byte). To go on, call again at p + walk->bytes with the bytes that came since.
 */
int pge_utf8_walk(const char *p, size_t n, size_t max_units, struct pge_utf8_walk *walk);

/* Writes the code point (a valid scalar value) to out; returns its width, 1-4. */
size_t pge_utf8_encode(unsigned code, char out[4]);

#endif
