/* sha256.h - SHA-256 (FIPS 180-4) of a text, to name it by its content. */
#ifndef PGE_CODEC_SHA256_H
#define PGE_CODEC_SHA256_H

#include <stddef.h>

enum { PGE_SHA256_SIZE = 32 };

void pge_sha256(const char *text, size_t n, unsigned char out[PGE_SHA256_SIZE]);

#endif
