/*
 * settings.h - names with texts: what a transport's own options come down to, and the headers of a
 * message.
 */
#ifndef PGE_BASE_SETTINGS_H
#define PGE_BASE_SETTINGS_H

#include <stdbool.h>

#include "base/buffer.h"

enum { PGE_MAX_SETTINGS = 64, PGE_MAX_HEADERS = 64, PGE_MAX_HEADER_BYTES = 16384 };

struct pge_setting {
    char *name, *value; /* owned */
};

/* All-zero is a valid empty list. */
struct pge_settings {
    struct pge_setting *at; /* owned */
    unsigned count;
};

/* Copies both. 0, UV_ENOMEM, UV_E2BIG: more than PGE_MAX_SETTINGS. */
int pge_settings_add(struct pge_settings *settings, const char *name, const char *value);
void pge_settings_deinit(struct pge_settings *settings);
bool pge_settings_equal(const struct pge_settings *a, const struct pge_settings *b);

/* By name. The text is borrowed from the list; NULL: not given. */
const char *pge_settings_text(const struct pge_settings *settings, const char *name);
/* Numbers come as decimal text, validated where the options were. */
double pge_settings_number(const struct pge_settings *settings, const char *name, double fallback);
/* "true", "false"; absent: false. */
bool pge_settings_flag(const struct pge_settings *settings, const char *name);

/* A list of names and values that somebody else holds; names may repeat. */
struct pge_header {
    struct pge_span name, value;
};

struct pge_headers {
    const struct pge_header *at;
    unsigned count;
};

/* The first of that name, byte for byte; p NULL: none. */
struct pge_span pge_headers_find(struct pge_headers headers, const char *name);

/*
 * A copy of a list as bytes that can be moved, and back. pack appends, 0 or UV_ENOMEM; unpack fills
 * at (room for count, what pack was given) with spans into p and returns the byte after them.
 */
int pge_headers_pack(struct pge_headers headers, struct pge_buf *out);
const char *pge_headers_unpack(const char *p, struct pge_header *at, unsigned count);

#endif
