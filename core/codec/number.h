/*
 * number.h - numbers as JavaScript writes and reads them, whatever the locale.
 */
#ifndef PGE_CODEC_NUMBER_H
#define PGE_CODEC_NUMBER_H

#include <stddef.h>

/* Room pge_number_format needs. */
#define PGE_NUMBER_MAX 32

/* Writes v as String(v) does: the shortest text that reads back (1, 1.5, 1e+21, 1e-7; -0 is "0").
 * Returns the length; no NUL is written. v is finite: NaN and Infinity are the caller's. */
size_t pge_number_format(double v, char out[PGE_NUMBER_MAX]);

/* Reads a valid JSON number text of any length, correctly rounded; overflow gives an infinity.
 * 0, or UV_EINVAL when the text is no JSON number. */
int pge_number_parse(const char *p, size_t n, double *out);

#endif
