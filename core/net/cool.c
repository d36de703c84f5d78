/*
 * cool.c - connections that have been quiet for a while give their buffers of output back.
 *
 *   a write --> warm --look--> busy     has written since the last look: stays for the next
 *                       '----> gone     has not: gives back
 *
 * One timer looks after all, so that a write costs no more than a look at its own list node.
 */
#include "net/stream.h"

enum {
    LOOK_MS = 1000, /* quiet from one look to the next: 1 to 2 s */
    BATCH = 64,     /* that give back in one turn, for pages that go take their time, ... */
    BATCH_MS = 2,   /* ... and until the next */
};

/* True: nothing was written since the last look, and nothing waits to be. */
static bool is_quiet(struct pge_conn *conn) {
    bool is_same = conn->seen == conn->written && pge_conn_queued(conn) == 0;
    conn->seen = conn->written;
    return is_same;
}

static void give_back(struct pge_conn *conn) {
    if (pge_conn_queued(conn))
        return;
    pge_buf_give_back(&conn->out);
    pge_buf_give_back(&conn->sending);
}

static bool is_any(const struct pge_loop *loop) {
    return !pge_list_is_empty(&loop->warm) || !pge_list_is_empty(&loop->busy);
}

static void on_look(struct pge_timer *timer) {
    struct pge_loop *loop = container_of(timer, struct pge_loop, cooling);
    for (unsigned given = 0; given < BATCH && !pge_list_is_empty(&loop->warm);) {
        struct pge_conn *conn = container_of(loop->warm.next, struct pge_conn, warm);
        pge_list_remove(&conn->warm);
        if (!is_quiet(conn)) {
            pge_list_push(&loop->busy, &conn->warm);
            continue;
        }
        give_back(conn);
        given++;
    }
    bool is_through = pge_list_is_empty(&loop->warm);
    if (is_through)
        pge_list_splice(&loop->warm, &loop->busy);
    if (is_any(loop))
        pge_loop_timer(loop, timer, is_through ? LOOK_MS : BATCH_MS);
}

void pge_conn_heat(struct pge_conn *conn) {
    struct pge_loop *loop = conn->loop;
    if (!is_any(loop)) {
        pge_timer_init(&loop->cooling, on_look);
        pge_loop_timer(loop, &loop->cooling, LOOK_MS); /* cannot fail: the conn holds the loop */
    }
    pge_list_push(&loop->warm, &conn->warm);
}

void pge_conn_cool(struct pge_conn *conn) {
    give_back(conn);
    if (pge_list_is_empty(&conn->warm))
        return;
    pge_list_remove(&conn->warm);
    if (!is_any(conn->loop))
        pge_loop_timer_stop(conn->loop, &conn->loop->cooling);
}
