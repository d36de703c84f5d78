/* tcp_give_test.c - large data that goes out in the memory it came in, framed. */
#include "stream_support.h"

#include "transport/tcp.h"

enum { DATA = 40000, TAIL = 4 };

/* A buffer that ends with text around DATA bytes of data. */
static struct pge_span fill(struct pge_buf *loan) {
    assert_int_equal(pge_buf_append(loan, "POST / ", 7), 0);
    assert_int_equal(pge_buf_reserve(loan, DATA + 3), 0);
    struct pge_span data = {loan->data + loan->end, DATA};
    memset(loan->data + loan->end, 'x', DATA);
    memcpy(loan->data + loan->end, "\xC3\xA9", 2); /* two bytes, one unit */
    loan->end += DATA;
    pge_buf_append(loan, "end", 3);
    return data;
}

/* "{a:,<data>b}}!" of which the data is on loan. 0, or a code and nothing was done. */
static int send_framed(struct pge_conn *conn, struct pge_span data, size_t max_bytes) {
    size_t len = pge_buf_len(&conn->out), mark = 0;
    int status = pge_nest_frame_begin(&conn->out, &mark);
    if (status == 0)
        status = PGE_BUF_LIT(&conn->out, "{a:,b}}!");
    if (status < 0)
        return pge_tcp_finish_frame(conn, len, mark, status, 0);
    return pge_tcp_give_frame(conn, len, mark, data, TAIL, max_bytes);
}

static void frames_what_it_gives(void **state) {
    struct pair *p = *state;
    struct pge_buf loan = {0};
    open_pair(p);
    struct pge_span data = fill(&loan);
    p->rig->loop.loan = &loan;
    write_text(&p->client, "2#ab");
    assert_int_equal(send_framed(p->client.conn, data, SIZE_MAX), 0);
    p->rig->loop.loan = NULL;
    assert_null(loan.data);
    write_text(&p->client, "1#c");
    rig_until(p->rig, p->server.got == 4 + 6 + 8 + DATA + 3);
    assert_memory_equal(p->server.text, "2#ab40007#{a:,\xC3\xA9xxx", 19);
}

static void leaves_all_as_it_was_when_it_cannot(void **state) {
    struct pair *p = *state;
    size_t held = p->rig->alloc.held;
    bool is_done = false;
    for (size_t grants = 0; !is_done; grants++) {
        assert_true(grants < 100);
        p->client = p->server = (struct side){.is_reader = true};
        open_pair(p);
        struct pge_buf loan = {0};
        struct pge_span data = fill(&loan);
        p->rig->loop.loan = &loan;
        write_text(&p->client, "2#ab");
        assert_int_equal(send_framed(p->client.conn, data, DATA), UV_EMSGSIZE);
        p->rig->alloc.grants = grants;
        int status = send_framed(p->client.conn, data, SIZE_MAX);
        p->rig->alloc.grants = (size_t)-1;
        is_done = status == 0;
        if (!is_done) {
            assert_int_equal(status, UV_ENOMEM);
            assert_int_equal(pge_conn_queued(p->client.conn), 4);
            assert_memory_equal(pge_buf_head(&p->client.conn->out), "2#ab", 4);
            assert_int_equal(pge_buf_len(&loan), 7 + DATA + 3);
            assert_memory_equal(loan.data + 7, "\xC3\xA9xx", 4);
        }
        p->rig->loop.loan = NULL;
        pge_buf_deinit(&loan);
        end_pair(p);
        assert_int_equal(p->rig->alloc.held, held);
    }
}

int main(void) {
    static const struct stream_case cases[] = {
        CASE(frames_what_it_gives),
        CASE(leaves_all_as_it_was_when_it_cannot),
    };
    return stream_run("tcp_give", cases, sizeof cases / sizeof cases[0]);
}
