/* list.h - intrusive doubly linked list with a sentinel head. An unlinked node points to itself. */
#ifndef PGE_BASE_LIST_H
#define PGE_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pge_list {
    struct pge_list *prev, *next;
};

#define container_of(ptr, type, member)                                                            \
    ((type *)(void *)((char *)(uintptr_t)(ptr)-offsetof(type, member)))

static inline void pge_list_init(struct pge_list *node) {
    node->prev = node->next = node;
}

static inline bool pge_list_is_empty(const struct pge_list *head) {
    return head->next == head;
}

/* Links node, which must be unlinked, before head: at the end of head's list. */
static inline void pge_list_push(struct pge_list *head, struct pge_list *node) {
    node->prev = head->prev;
    node->next = head;
    head->prev->next = node;
    head->prev = node;
}

/* Unlinks node; harmless when it is not linked. */
static inline void pge_list_remove(struct pge_list *node) {
    node->prev->next = node->next;
    node->next->prev = node->prev;
    pge_list_init(node);
}

/* Moves every node of from to the end of to. */
static inline void pge_list_splice(struct pge_list *to, struct pge_list *from) {
    if (pge_list_is_empty(from))
        return;
    from->next->prev = to->prev;
    from->prev->next = to;
    to->prev->next = from->next;
    to->prev = from->prev;
    pge_list_init(from);
}

#endif
