/* settings.c - short lists, searched from the front. */
#include "base/settings.h"

#include <stdint.h>
#include <stdlib.h>
#include <uv.h>

#include "base/alloc.h"

int pge_settings_add(struct pge_settings *settings, const char *name, const char *value) {
    if (settings->count >= PGE_MAX_SETTINGS)
        return UV_E2BIG;
    struct pge_setting *at = pge_realloc(settings->at, (settings->count + 1) * sizeof *at);
    if (!at)
        return UV_ENOMEM;
    settings->at = at;
    at += settings->count;
    at->name = pge_strndup(name, strlen(name));
    at->value = pge_strndup(value, strlen(value));
    if (at->name && at->value) {
        settings->count++;
        return 0;
    }
    pge_free(at->name);
    pge_free(at->value);
    return UV_ENOMEM;
}

void pge_settings_deinit(struct pge_settings *settings) {
    for (unsigned i = 0; i < settings->count; i++) {
        pge_free(settings->at[i].name);
        pge_free(settings->at[i].value);
    }
    pge_free(settings->at);
    *settings = (struct pge_settings){0};
}

const char *pge_settings_text(const struct pge_settings *settings, const char *name) {
    for (unsigned i = 0; i < settings->count; i++)
        if (strcmp(settings->at[i].name, name) == 0)
            return settings->at[i].value;
    return NULL;
}

double pge_settings_number(const struct pge_settings *settings, const char *name, double fallback) {
    const char *text = pge_settings_text(settings, name);
    return text ? strtod(text, NULL) : fallback;
}

bool pge_settings_flag(const struct pge_settings *settings, const char *name) {
    const char *text = pge_settings_text(settings, name);
    return text && strcmp(text, "true") == 0;
}

/* Names are unique, so equal counts and every one found is enough. */
bool pge_settings_equal(const struct pge_settings *a, const struct pge_settings *b) {
    if (a->count != b->count)
        return false;
    for (unsigned i = 0; i < a->count; i++) {
        const char *other = pge_settings_text(b, a->at[i].name);
        if (!other || strcmp(a->at[i].value, other) != 0)
            return false;
    }
    return true;
}

struct pge_span pge_headers_find(struct pge_headers headers, const char *name) {
    size_t n = strlen(name);
    for (unsigned i = 0; i < headers.count; i++) {
        struct pge_span own = headers.at[i].name;
        if (own.n == n && memcmp(own.p, name, n) == 0)
            return headers.at[i].value;
    }
    return (struct pge_span){0};
}

static int pack_span(struct pge_span span, struct pge_buf *out) {
    int status = pge_buf_append(out, &span.n, sizeof span.n);
    return status < 0 ? status : pge_buf_append(out, span.p, span.n);
}

int pge_headers_pack(struct pge_headers headers, struct pge_buf *out) {
    size_t len = pge_buf_len(out);
    for (unsigned i = 0; i < headers.count; i++)
        if (pack_span(headers.at[i].name, out) < 0 || pack_span(headers.at[i].value, out) < 0) {
            out->end = out->start + len;
            return UV_ENOMEM;
        }
    return 0;
}

static const char *unpack_span(const char *p, struct pge_span *span) {
    memcpy(&span->n, p, sizeof span->n);
    span->p = p + sizeof span->n;
    return span->p + span->n;
}

const char *pge_headers_unpack(const char *p, struct pge_header *at, unsigned count) {
    for (unsigned i = 0; i < count; i++) {
        p = unpack_span(p, &at[i].name);
        p = unpack_span(p, &at[i].value);
    }
    return p;
}
