/* collate.c - three levels compared in one pass: letter, accent, case. */
#include "codec/collate.h"

#include <stdbool.h>

#include "codec/json.h"

/*
 * Primary weights in this order: TAB LF VT FF CR space
 *   _ - , ; : ! ? . ' " ( ) [ ] { } @ * / \ & # % ` ^ + < = > | ~ $ 0 to 9
 * and then the letters, both cases alike. 0 is ignored.
 */
static const unsigned char weights[128] = {
    /* clang-format off */
     0,  0,  0,  0,  0,  0,  0,  0,  0,  1,  2,  3,  4,  5,  0,  0,
     0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,
     6, 12, 16, 28, 38, 29, 27, 15, 17, 18, 24, 32,  9,  8, 14, 25,
    39, 40, 41, 42, 43, 44, 45, 46, 47, 48, 11, 10, 33, 34, 35, 13,
    23, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63,
    64, 65, 66, 67, 68, 69, 70, 71, 72, 73, 74, 19, 26, 20, 31,  7,
    30, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63,
    64, 65, 66, 67, 68, 69, 70, 71, 72, 73, 74, 21, 36, 22, 37,  0,
    /* clang-format on */
};

/* What U+00C0 to U+00DF are made of, and 32 above them their small letters: the letter, and the
 * accent's rank (acute, grave, circumflex, ring, diaeresis, tilde, stroke, cedilla). */
static const char bases[] = "AAAAAA?CEEEEIIII?NOOOOO?OUUUUY??";
static const char accents[] = "21365408213521350621365072135100";

/* One character's place in the order. */
struct element {
    unsigned primary; /* 0: the text has ended */
    unsigned accent;
    bool is_upper;
};

static struct element element_of(unsigned c) {
    struct element e = {0};
    if (c >= 0xC0 && c <= 0xFF && c != 0xDF) {
        char base = bases[(c - 0xC0) % 32];
        if (c == 0xFF) { /* its capital is not in Latin-1 */
            base = 'Y';
            e.accent = 5;
        } else {
            e.accent = (unsigned)(accents[(c - 0xC0) % 32] - '0');
        }
        if (base != '?') {
            e.primary = weights[(unsigned char)base];
            e.is_upper = c < 0xE0;
            return e;
        }
    }
    e.accent = 0;
    e.primary = c < 128 ? weights[c] : c + 128;
    e.is_upper = c >= 'A' && c <= 'Z';
    return e;
}

static inline struct element next_element(const char **p, const char *end) {
    struct element e = {0};
    while (*p < end && e.primary == 0) {
        unsigned char c = (unsigned char)**p;
        if (c < 0x80 && c != '\\') { /* nearly all */
            e.primary = weights[c];
            e.is_upper = c >= 'A' && c <= 'Z';
            *p += 1;
        } else {
            e = element_of(pge_json_next_char(p, end));
        }
    }
    return e;
}

static int order(unsigned a, unsigned b) {
    return (a > b) - (a < b);
}

int pge_collate_json(struct pge_span a, struct pge_span b) {
    const char *p = a.p, *p_end = a.p + a.n, *q = b.p, *q_end = b.p + b.n;
    int by_accent = 0, by_case = 0;
    for (;;) {
        struct element x = next_element(&p, p_end), y = next_element(&q, q_end);
        if (x.primary != y.primary)
            return order(x.primary, y.primary);
        if (x.primary == 0)
            return by_accent ? by_accent : by_case;
        if (by_accent == 0)
            by_accent = order(x.accent, y.accent);
        if (by_case == 0)
            by_case = order(x.is_upper, y.is_upper);
    }
}
