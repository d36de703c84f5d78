/*
 * buffer.h - a growable run of bytes with a consumed front.
 *
 *   data |....consumed....|#### pge_buf_len ####|....room....| cap
 *                         ^ start               ^ end
 */
#ifndef PGE_BASE_BUFFER_H
#define PGE_BASE_BUFFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct pge_buf {
    char *data; /* owned; NULL while nothing was ever appended */
    size_t start, end, cap;
};

/* A borrowed run of bytes; the owner is named where it is used. p == NULL: absent. */
struct pge_span {
    const char *p;
    size_t n;
};

static inline size_t pge_buf_len(const struct pge_buf *b) {
    return b->end - b->start;
}

static inline char *pge_buf_head(const struct pge_buf *b) {
    return b->data + b->start;
}

static inline void pge_buf_clear(struct pge_buf *b) {
    b->start = b->end = 0;
}

/* All-zero is a valid empty buffer too. */
void pge_buf_init(struct pge_buf *b);
void pge_buf_deinit(struct pge_buf *b);

/* Slow half of pge_buf_reserve: compacts or grows. */
int pge_buf_grow(struct pge_buf *b, size_t n);

/* Makes room for n bytes at data + end. 0 or UV_ENOMEM. */
static inline int pge_buf_reserve(struct pge_buf *b, size_t n) {
    return b->cap - b->end >= n ? 0 : pge_buf_grow(b, n);
}

/* 0 or UV_ENOMEM, and then nothing was appended. */
static inline int pge_buf_append(struct pge_buf *b, const void *bytes, size_t n) {
    int status = pge_buf_reserve(b, n);
    if (status == 0 && n) {
        memcpy(b->data + b->end, bytes, n);
        b->end += n;
    }
    return status;
}

/* Appends a string literal. */
#define PGE_BUF_LIT(b, literal) pge_buf_append((b), "" literal, sizeof(literal) - 1)

/* The same when bytes already stand where they would be appended: read there, say. */
static inline int pge_buf_keep(struct pge_buf *b, const char *bytes, size_t n) {
    if ((uintptr_t)bytes != (uintptr_t)b->data + b->end)
        return pge_buf_append(b, bytes, n);
    b->end += n;
    return 0;
}

/* Whether the bytes lie in the buffer and are half of its memory at least, so that who holds it for
 * their sake holds little more. b NULL: no. */
static inline bool pge_buf_is_mostly(const struct pge_buf *b, struct pge_span bytes) {
    return b && b->data && bytes.p >= b->data && bytes.p + bytes.n <= b->data + b->end &&
           bytes.n >= b->cap / 2;
}

/* Drops all but these bytes of it. */
static inline void pge_buf_cut(struct pge_buf *b, struct pge_span bytes) {
    b->start = (size_t)(bytes.p - b->data);
    b->end = b->start + bytes.n;
}

/* Drops n bytes (at most pge_buf_len) from the front. */
static inline void pge_buf_consume(struct pge_buf *b, size_t n) {
    b->start += n;
    if (b->start == b->end)
        b->start = b->end = 0;
}

/* As deinit, for who will not need it again soon: whole pages go to the system at once, though the
 * allocator would keep them for what comes. Costs a system call when it holds some. */
void pge_buf_give_back(struct pge_buf *b);

/* Gives the memory back when more than keep bytes are held by an empty buffer. */
void pge_buf_trim(struct pge_buf *b, size_t keep);

#endif
