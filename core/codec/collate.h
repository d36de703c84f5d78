/*
 * collate.h - the order in which Nest sorts the keys of a pattern: that of JavaScript's
 * localeCompare, which is ICU collation (nest-wire 1.3, GEN-02).
 *
 * Exact for ASCII and for Latin-1 letters that are an ASCII letter with an accent (locale en-US).
 * All other characters follow z by code point; Nest's own order of them depends on the locale of
 * the process, so such keys are not portable between two Nest services either.
 */
#ifndef PGE_CODEC_COLLATE_H
#define PGE_CODEC_COLLATE_H

#include "base/buffer.h"

/* < 0, 0, > 0. The spans are the contents of validated JSON strings, without the quotes, escapes
 * allowed. Different texts can be equal: most control characters count for nothing. */
int pge_collate_json(struct pge_span a, struct pge_span b);

#endif
