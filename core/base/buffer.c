/* buffer.c - growth of pge_buf. */
#include "base/buffer.h"

#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>
#include <uv.h>

#include "base/alloc.h"

void pge_buf_init(struct pge_buf *b) {
    *b = (struct pge_buf){0};
}

void pge_buf_deinit(struct pge_buf *b) {
    pge_free(b->data);
    *b = (struct pge_buf){0};
}

int pge_buf_grow(struct pge_buf *b, size_t n) {
    size_t len = pge_buf_len(b);
    /* Moving is cheaper than growing only while less than half of the memory is in use. */
    if (b->start && len <= b->cap / 2 && b->cap - len >= n) {
        memmove(b->data, b->data + b->start, len);
        b->start = 0;
        b->end = len;
        return 0;
    }
    if (n > SIZE_MAX / 4 - b->end)
        return UV_ENOMEM;
    size_t cap = b->cap ? b->cap * 2 : 512;
    if (cap - b->end < n)
        cap = b->end + n + n / 16; /* so much is known to come, and a little after it */
    char *data = pge_realloc(b->data, cap);
    if (!data)
        return UV_ENOMEM;
    b->data = data;
    b->cap = cap;
    return 0;
}

void pge_buf_give_back(struct pge_buf *b) {
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t from = ((uintptr_t)b->data + page - 1) & ~(page - 1);
    uintptr_t to = ((uintptr_t)b->data + b->cap) & ~(page - 1);
    if (to > from) /* nobody reads what was in them any more; what is around stays as it is */
        madvise((void *)from, to - from, MADV_DONTNEED);
    pge_buf_deinit(b);
}

void pge_buf_trim(struct pge_buf *b, size_t keep) {
    if (pge_buf_len(b) == 0 && b->cap > keep)
        pge_buf_deinit(b);
}
