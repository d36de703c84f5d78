/* lua_json_path.c - see lua_json_path.h. */
#include "bind/lua_json_path.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "codec/utf8.h"

#define KEY_SHOWN 40

/* Room kept behind the path: "... cannot be JSON" and the NUL. */
#define TAIL_MAX 20

static bool is_name(const char *p, size_t n) {
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)p[i];
        bool is_letter = (c | 0x20) >= 'a' && (c | 0x20) <= 'z';
        if (!is_letter && c != '_' && (i == 0 || c < '0' || c > '9'))
            return false;
    }
    return n > 0 && n <= KEY_SHOWN;
}

/* Long keys are cut, and bytes that are no text become '?': the message may travel as JSON. */
static size_t write_quoted(char *out, const char *p, size_t n) {
    bool is_long = n > KEY_SHOWN;
    bool is_text = !is_long && pge_utf8_check(p, n) == 0;
    size_t shown = is_long ? KEY_SHOWN : n, at = 0;
    out[at++] = '[';
    out[at++] = '"';
    for (size_t i = 0; i < shown; i++) {
        unsigned char c = (unsigned char)p[i];
        out[at++] = c < 0x20 || c == 0x7F || (c >= 0x80 && !is_text) ? '?' : p[i];
    }
    return at + (size_t)sprintf(out + at, is_long ? "...\"]" : "\"]");
}

static size_t write_step(char *out, const struct pge_lua_json_level *level, bool is_first) {
    if (!level->key)
        return (size_t)sprintf(out, "[%zu]", level->index);
    if (!is_name(level->key, level->key_len))
        return write_quoted(out, level->key, level->key_len);
    return (size_t)sprintf(out, "%s%.*s", is_first ? "" : ".", (int)level->key_len, level->key);
}

void pge_lua_json_describe(char *out, size_t size, const char *what,
                           const struct pge_lua_json_level *levels, size_t count) {
    if (size == 0)
        return;
    int written = snprintf(out, size, count ? "%s at " : "%s", what);
    size_t at = written < 0 ? 0 : (size_t)written;
    for (size_t i = 0; i < count && at < size; i++) {
        char step[KEY_SHOWN + 16];
        size_t n = write_step(step, &levels[i], i == 0);
        if (at + n + TAIL_MAX >= size) {
            at += (size_t)snprintf(out + at, size - at, "...");
            break;
        }
        memcpy(out + at, step, n);
        at += n;
    }
    if (at < size)
        snprintf(out + at, size - at, " cannot be JSON");
}
