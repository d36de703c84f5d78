/* nats_headers.c - "NATS/1.0 503 No Responders\r\nname: value\r\n\r\n", read and checked. */
#include <string.h>
#include <uv.h>

#include "codec/nats.h"

#define VERSION "NATS/1.0"
#define VERSION_LEN (sizeof(VERSION) - 1)

static struct pge_span trim(struct pge_span text) {
    while (text.n && (text.p[0] == ' ' || text.p[0] == '\t')) {
        text.p++;
        text.n--;
    }
    while (text.n && (text.p[text.n - 1] == ' ' || text.p[text.n - 1] == '\t'))
        text.n--;
    return text;
}

/* The text up to CR LF or the end; *p moves behind it. */
static struct pge_span next_line(const char **p, const char *end) {
    struct pge_span line = {*p, (size_t)(end - *p)};
    const char *feed = memchr(*p, '\n', line.n);
    *p = feed ? feed + 1 : end;
    if (feed)
        line.n = (size_t)(feed - line.p);
    if (line.n && line.p[line.n - 1] == '\r')
        line.n--;
    return line;
}

int pge_nats_headers_begin(struct pge_nats_headers *it, struct pge_span block) {
    *it = (struct pge_nats_headers){.p = block.p, .end = block.p + block.n};
    struct pge_span line = next_line(&it->p, it->end);
    if (line.n < VERSION_LEN || memcmp(line.p, VERSION, VERSION_LEN) != 0)
        return UV_EPROTO;
    struct pge_span rest = trim((struct pge_span){line.p + VERSION_LEN, line.n - VERSION_LEN});
    for (; rest.n && rest.p[0] >= '0' && rest.p[0] <= '9' && it->status < 1000; rest.n--)
        it->status = it->status * 10 + (unsigned)(*rest.p++ - '0');
    rest = trim(rest);
    if (rest.n)
        it->description = rest;
    return 0;
}

bool pge_nats_headers_next(struct pge_nats_headers *it, struct pge_span *name,
                           struct pge_span *value) {
    while (it->p < it->end) {
        struct pge_span line = next_line(&it->p, it->end);
        const char *colon = memchr(line.p, ':', line.n);
        if (!colon || colon == line.p)
            continue;
        *name = (struct pge_span){line.p, (size_t)(colon - line.p)};
        *value = trim((struct pge_span){colon + 1, line.n - name->n - 1});
        return true;
    }
    return false;
}

bool pge_nats_is_header_name(struct pge_span name) {
    for (size_t i = 0; i < name.n; i++) {
        if (name.p[i] <= ' ' || name.p[i] >= 127 || name.p[i] == ':')
            return false;
    }
    return name.n > 0;
}

bool pge_nats_is_header_value(struct pge_span value) {
    for (size_t i = 0; i < value.n; i++) {
        if (value.p[i] == '\r' || value.p[i] == '\n' || value.p[i] == '\0')
            return false;
    }
    return true;
}
