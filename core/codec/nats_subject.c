/* nats_subject.c - subjects: tokens between dots, '*' for one of them, '>' for all the rest. */
#include <string.h>
#include <uv.h>

#include "codec/nats.h"
#include "codec/swar.h"

int pge_nats_subject_check(struct pge_span subject) {
    const char *end = subject.p + subject.n;
    bool is_good = subject.n && pge_swar_skip_visible(subject.p, end) == end &&
                   !memchr(subject.p, 127, subject.n);
    return is_good ? 0 : UV_EINVAL;
}

/* Cuts the first token off; false: there was none left. A subject has one more than dots. */
static bool next_token(struct pge_span *rest, struct pge_span *token) {
    if (!rest->p)
        return false;
    const char *dot = memchr(rest->p, '.', rest->n);
    *token = (struct pge_span){rest->p, dot ? (size_t)(dot - rest->p) : rest->n};
    *rest = dot ? (struct pge_span){dot + 1, rest->n - token->n - 1} : (struct pge_span){0};
    return true;
}

static bool is_char(struct pge_span token, char c) {
    return token.n == 1 && token.p[0] == c;
}

int pge_nats_subject_check_sub(struct pge_span subject) {
    int status = pge_nats_subject_check(subject);
    struct pge_span rest = subject, token;
    while (status == 0 && next_token(&rest, &token)) {
        if (token.n == 0 || (is_char(token, '>') && rest.p))
            status = UV_EINVAL;
    }
    return status;
}

bool pge_nats_subject_is_wild(struct pge_span subject) {
    struct pge_span rest = subject, token;
    while (next_token(&rest, &token)) {
        if (is_char(token, '*') || is_char(token, '>'))
            return true;
    }
    return false;
}

bool pge_nats_subject_match(struct pge_span pattern, struct pge_span subject) {
    struct pge_span wanted, token;
    while (next_token(&pattern, &wanted)) {
        if (!next_token(&subject, &token))
            return false;
        if (is_char(wanted, '>') && !pattern.p)
            return true;
        if (!is_char(wanted, '*') &&
            (wanted.n != token.n || memcmp(wanted.p, token.p, token.n) != 0))
            return false;
    }
    return !subject.p;
}
