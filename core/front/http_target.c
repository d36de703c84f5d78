/*
 * http_target.c - Host and target: where a request says it goes. It must say so once, in one way.
 */
#include <strings.h>

#include "front/http_internal.h"

static int refuse(struct pge_http_parse *p, const char *why) {
    pge_http_parse_refuse(p, 400, why);
    return UV_EPROTO;
}

static bool host_name_is_good(struct pge_span name) {
    if (name.n == 0)
        return false;
    for (size_t i = 0; i < name.n; i++)
        if (!pge_http_is_host((unsigned char)name.p[i]) ||
            (i && name.p[i] == '.' && name.p[i - 1] == '.'))
            return false;
    return name.p[0] != '.';
}

/* "[" hex digits, colons and dots "]" */
static bool host_literal_is_good(struct pge_span name) {
    if (name.n < 4 || name.p[name.n - 1] != ']')
        return false;
    for (size_t i = 1; i + 1 < name.n; i++)
        if (!strchr("0123456789abcdefABCDEF:.", name.p[i]))
            return false;
    return true;
}

static bool host_is_good(struct pge_span host) {
    const char *open = memchr(host.p, ']', host.n);
    const char *from = open ? open : host.p;
    const char *colon = memchr(from, ':', host.n - (size_t)(from - host.p));
    struct pge_span name = {host.p, colon ? (size_t)(colon - host.p) : host.n};
    unsigned port = 0;
    for (const char *at = colon ? colon + 1 : host.p + host.n; at < host.p + host.n; at++) {
        if (*at < '0' || *at > '9')
            return false;
        port = port * 10 + (unsigned)(*at - '0');
        if (port > 65535)
            return false;
    }
    return name.n && name.p[0] == '[' ? host_literal_is_good(name) : host_name_is_good(name);
}

/* Absolute form is reduced to origin form in place; without a path, "/" overwrites its last byte.
 */
static int reduce(struct pge_http_parse *p, struct pge_span host) {
    char *target = pge_buf_head(&p->in) + p->target_at;
    size_t scheme = strncasecmp(target, "http://", 7) == 0 ? 7 : 8;
    if (p->target_size <= scheme || (scheme == 8 && strncasecmp(target, "https://", 8) != 0))
        return refuse(p, "malformed target");
    size_t end = scheme;
    while (end < p->target_size && target[end] != '/')
        end++;
    struct pge_span authority = {target + scheme, end - scheme};
    if (!host_is_good(authority))
        return refuse(p, "malformed target");
    if (host.p && (authority.n != host.n || strncasecmp(authority.p, host.p, host.n) != 0))
        return refuse(p, "target and Host differ");
    if (end == p->target_size)
        target[--end] = '/';
    p->target_at += end;
    p->target_size -= end;
    return 0;
}

/* The byte at i, an escape decoded; '/' at the end; -1: a broken escape, or NUL. */
static int read_octet(struct pge_span path, size_t *i) {
    size_t at = *i;
    if (at == path.n || path.p[at] != '%') {
        (*i)++;
        return at == path.n ? '/' : path.p[at];
    }
    if (path.n - at < 3 || pge_http_hex(path.p[at + 1]) < 0 || pge_http_hex(path.p[at + 2]) < 0)
        return -1;
    *i += 3;
    int octet = pge_http_hex(path.p[at + 1]) * 16 + pge_http_hex(path.p[at + 2]);
    return octet ? octet : -1;
}

/* Whether ".." leads above the root, as the most liberal reader has it: "%2e" and "%2f" count, and
   "//" is "/". */
static int check_path(struct pge_http_parse *p, struct pge_span path) {
    size_t size = 0, dots = 0;
    int depth = 0;
    for (size_t i = 0; i <= path.n;) {
        int c = read_octet(path, &i);
        if (c < 0)
            return refuse(p, "malformed escape in the path");
        if (c != '/') {
            size++;
            dots += c == '.';
            continue;
        }
        bool is_up = size == 2 && dots == 2, is_here = size == 1 && dots == 1;
        depth += is_up ? -1 : size && !is_here;
        if (depth < 0)
            return refuse(p, "path above the root");
        size = dots = 0;
    }
    return 0;
}

int pge_http_check_target(struct pge_http_parse *p, struct pge_span host) {
    const char *target = pge_buf_head(&p->in) + p->target_at;
    bool is_options = p->message.method.n == 7 && memcmp(p->message.method.p, "OPTIONS", 7) == 0;
    if (host.p && !host_is_good(host))
        return refuse(p, "malformed Host");
    if (p->target_size == 1 && *target == '*')
        return is_options ? 0 : refuse(p, "malformed target");
    if (*target != '/') {
        if (reduce(p, host) < 0)
            return UV_EPROTO;
        pge_http_point(p);
    }
    return check_path(p, p->message.path);
}
