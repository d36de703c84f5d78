/*
 * resp.c - hiredis' reader with object functions of our own: what it finds is copied into one
 * buffer that is used again, so that no reply costs an allocation, and each length is judged before
 * the reader waits for its bytes.
 */
#include "codec/resp.h"

#include <hiredis/hiredis.h>
#include <stdio.h>
#include <stdlib.h>
#include <uv.h>

/*
 * The reader moves its whole rest down once per KB it has read, so it is fed small pieces. KEEP is
 * what it, and we, hold on to when empty.
 */
enum { SLICE = 4096, KEEP = 256 * 1024 };

/* hiredis 1.0 made the stack of tasks growable, and the element count a size_t. */
#if HIREDIS_MAJOR >= 1
typedef size_t element_count;
static const redisReadTask *current_task(const redisReader *reader) {
    return reader->task[reader->ridx];
}
#else
typedef int element_count;
static const redisReadTask *current_task(const redisReader *reader) {
    return &reader->rstack[reader->ridx];
}
#endif

static const char too_large[] = "the reply is larger than allowed";
static const char endless[] = "Protocol error, a line does not end";
static const char resp3[] = "Protocol error, RESP3 was not asked for";

static int fail(struct pge_resp *r, int status, const char *text) {
    if (r->status == 0) {
        r->status = status;
        snprintf(r->error, sizeof r->error, "%s", text);
    }
    return r->status;
}

/* ---- what the reader calls: a non-NULL result means "go on" ---- */

static bool is_resp2(const redisReadTask *task) {
    return task->type <= REDIS_REPLY_ERROR;
}

static void *refuse(const redisReadTask *task) {
    fail(task->privdata, UV_EPROTO, resp3);
    return NULL;
}

/* The element's place; NULL: it is not kept. */
static struct pge_resp_item *item_of(struct pge_resp *r, const redisReadTask *task) {
    if (!task->parent)
        return &r->reply.items[0];
    if (task->parent->parent || task->idx < 0 || task->idx >= PGE_RESP_ITEMS)
        return NULL;
    return &r->reply.items[task->idx];
}

/* Notes an element. NULL: out of memory or too large, as r->status says. */
static void *note(const redisReadTask *task, enum pge_resp_kind kind, int64_t number,
                  struct pge_span text) {
    struct pge_resp *r = task->privdata;
    struct pge_resp_item *item = item_of(r, task);
    if (!item)
        return r;
    *item = (struct pge_resp_item){kind, number, {NULL, text.n}};
    size_t i = (size_t)(item - r->reply.items);
    if (r->reply.count <= i)
        r->reply.count = (unsigned)i + 1;
    r->at[i] = pge_buf_len(&r->text);
    if (text.n > r->max_bytes - pge_buf_len(&r->text)) {
        fail(r, UV_EMSGSIZE, too_large);
        return NULL;
    }
    if (pge_buf_append(&r->text, text.p, text.n) < 0) {
        fail(r, UV_ENOMEM, "out of memory");
        return NULL;
    }
    return r;
}

static void *create_string(const redisReadTask *task, char *p, size_t n) {
    enum pge_resp_kind kind = task->type == REDIS_REPLY_ERROR    ? PGE_RESP_ERROR
                              : task->type == REDIS_REPLY_STATUS ? PGE_RESP_STATUS
                                                                 : PGE_RESP_BULK;
    struct pge_resp *r = task->privdata;
    if (!is_resp2(task))
        return refuse(task);
    /* As check_waiting, for what came in one piece. */
    if (kind != PGE_RESP_BULK && n + 2 > PGE_RESP_MAX_LINE) {
        fail(r, UV_EPROTO, endless);
        return NULL;
    }
    if (kind == PGE_RESP_BULK && n > r->max_bytes - pge_buf_len(&r->text)) {
        fail(r, UV_EMSGSIZE, too_large);
        return NULL;
    }
    if (p[n] != '\r' || p[n + 1] != '\n') { /* the reader has both, and looks at neither */
        fail(r, UV_EPROTO, "Protocol error, a string does not end where it says");
        return NULL;
    }
    return note(task, kind, 0, (struct pge_span){p, n});
}

static void *create_array(const redisReadTask *task, element_count elements) {
    struct pge_resp *r = task->privdata;
    if (!is_resp2(task))
        return refuse(task);
    if (elements > PGE_RESP_MAX_ELEMENTS) {
        fail(r, UV_EMSGSIZE, "the reply has more elements than allowed");
        return NULL;
    }
    if (task->parent)
        return note(task, PGE_RESP_ARRAY, (int64_t)elements, (struct pge_span){"", 0});
    r->reply.is_array = true;
    return r;
}

static void *create_integer(const redisReadTask *task, long long number) {
    return note(task, PGE_RESP_INTEGER, number, (struct pge_span){"", 0});
}

static void *create_nil(const redisReadTask *task) {
    return note(task, PGE_RESP_NIL, 0, (struct pge_span){"", 0});
}

static void free_object(void *object) {
    (void)object; /* it is the struct pge_resp */
}

/* Without functions for its types the reader would hand out numbers, which are no objects. */
#if HIREDIS_MAJOR >= 1
static void *create_double(const redisReadTask *task, double value, char *text, size_t n) {
    (void)value;
    (void)text;
    (void)n;
    return refuse(task);
}

static void *create_bool(const redisReadTask *task, int value) {
    (void)value;
    return refuse(task);
}
#endif

/* Not const: hiredis wants it so, and does not write to it. */
static redisReplyObjectFunctions functions = {
    .createString = create_string,
    .createArray = create_array,
    .createInteger = create_integer,
    .createNil = create_nil,
#if HIREDIS_MAJOR >= 1
    .createDouble = create_double,
    .createBool = create_bool,
#endif
    .freeObject = free_object,
};

/* ---- reading ---- */

int pge_resp_init(struct pge_resp *r, size_t max_bytes) {
    *r = (struct pge_resp){.max_bytes = max_bytes};
    r->reader = redisReaderCreateWithFunctions(&functions);
    if (!r->reader)
        return UV_ENOMEM;
    r->reader->privdata = r;
    r->reader->maxbuf = KEEP;
    return 0;
}

void pge_resp_deinit(struct pge_resp *r) {
    if (r->reader)
        redisReaderFree(r->reader);
    pge_buf_deinit(&r->text);
    *r = (struct pge_resp){0};
}

void pge_resp_feed(struct pge_resp *r, const char *data, size_t n) {
    r->in = data;
    r->in_len = n;
}

/* Gives the reader its next piece. 1, 0: there is none. */
static int feed_slice(struct pge_resp *r, size_t most) {
    size_t n = r->in_len < most ? r->in_len : most;
    if (n == 0)
        return 0;
    if (redisReaderFeed(r->reader, r->in, n) != REDIS_OK)
        return fail(r, UV_ENOMEM, r->reader->errstr);
    r->in += n;
    r->in_len -= n;
    return 1;
}

/* The reader waits for the rest of something: is that within bounds? */
static int check_waiting(struct pge_resp *r) {
    const redisReader *reader = r->reader;
    if (reader->ridx < 0)
        return 0;
    const char *p = reader->buf + reader->pos;
    size_t n = reader->len - reader->pos;
    const char *line_end = memmem(p, n < PGE_RESP_MAX_LINE ? n : PGE_RESP_MAX_LINE, "\r\n", 2);
    if (!line_end)
        return n < PGE_RESP_MAX_LINE ? 0 : fail(r, UV_EPROTO, endless);
    if (!is_resp2(current_task(reader)))
        return fail(r, UV_EPROTO, resp3);
    /* It has read this line and found it good: what it waits for is a bulk string. */
    unsigned long long length = strtoull(p, NULL, 10);
    if (current_task(reader)->type == REDIS_REPLY_STRING &&
        length > r->max_bytes - pge_buf_len(&r->text))
        return fail(r, UV_EMSGSIZE, too_large);
    return 0;
}

static int broken(struct pge_resp *r) {
    return fail(r, r->reader->err == REDIS_ERR_OOM ? UV_ENOMEM : UV_EPROTO, r->reader->errstr);
}

static void start_reply(struct pge_resp *r) {
    pge_buf_clear(&r->text);
    pge_buf_trim(&r->text, KEEP);
    r->reply.count = 0;
    r->reply.is_array = false;
    r->is_delivered = false;
}

int pge_resp_next(struct pge_resp *r, const struct pge_resp_reply **reply) {
    void *object = NULL;
    if (r->status != 0)
        return r->status;
    if (r->is_delivered)
        start_reply(r);
    for (;;) {
        if (redisReaderGetReply(r->reader, &object) != REDIS_OK)
            return broken(r);
        if (object)
            break;
        int status = check_waiting(r);
        if (status == 0)
            status = feed_slice(r, SLICE);
        if (status <= 0)
            return status;
    }
    const char *text = r->text.data ? pge_buf_head(&r->text) : "";
    for (unsigned i = 0; i < r->reply.count; i++)
        r->reply.items[i].text.p = text + r->at[i];
    r->is_delivered = true;
    *reply = &r->reply;
    return 1;
}

int pge_resp_park(struct pge_resp *r) {
    int status = r->status ? 0 : feed_slice(r, SIZE_MAX);
    return status < 0 ? status : 0;
}

bool pge_resp_is(const struct pge_resp_item *item, const char *text) {
    size_t n = strlen(text);
    return item->text.n == n && memcmp(item->text.p, text, n) == 0;
}

/* ---- writing ---- */

/* Writes "12\r\n" where there is room for 22 bytes. Returns its length. */
static size_t put_number(char *out, size_t number) {
    char digits[20];
    size_t n = 0;
    do
        digits[n++] = (char)('0' + number % 10);
    while (number /= 10);
    for (size_t i = 0; i < n; i++)
        out[i] = digits[n - 1 - i];
    out[n] = '\r';
    out[n + 1] = '\n';
    return n + 2;
}

/* "$12\r\n", "*3\r\n". Room was made. */
static void put_head(struct pge_buf *out, char sign, size_t number) {
    out->data[out->end++] = sign;
    out->end += put_number(out->data + out->end, number);
}

int pge_resp_command(struct pge_buf *out, const struct pge_span *args, unsigned count) {
    size_t need = 32;
    for (unsigned i = 0; i < count; i++)
        need += args[i].n + 34;
    int status = pge_buf_reserve(out, need);
    if (status < 0)
        return status;
    put_head(out, '*', count);
    for (unsigned i = 0; i < count; i++) {
        put_head(out, '$', args[i].n);
        pge_buf_append(out, args[i].p, args[i].n);
        PGE_BUF_LIT(out, "\r\n");
    }
    return 0;
}

/* Payloads of 100 to 999 bytes are the common case and need no move. */
static const char gap[] = "000\r\n";
enum { GAP = sizeof gap - 1 };

int pge_resp_publish_open(struct pge_buf *out, struct pge_span name, struct pge_span suffix,
                          struct pge_resp_open *open) {
    static const char verb[] = "*3\r\n$7\r\nPUBLISH\r\n";
    open->len = pge_buf_len(out);
    int status = pge_buf_reserve(out, sizeof verb + name.n + suffix.n + 64);
    if (status < 0)
        return status;
    pge_buf_append(out, verb, sizeof verb - 1);
    put_head(out, '$', name.n + suffix.n);
    pge_buf_append(out, name.p, name.n);
    pge_buf_append(out, suffix.p, suffix.n);
    PGE_BUF_LIT(out, "\r\n$");
    open->mark = pge_buf_len(out);
    return pge_buf_append(out, gap, GAP);
}

int pge_resp_publish_close(struct pge_buf *out, const struct pge_resp_open *open) {
    size_t n = pge_buf_len(out) - open->mark - GAP;
    char text[32];
    size_t width = put_number(text, n);
    int status = pge_buf_reserve(out, (width > GAP ? width - GAP : 0) + 2);
    if (status < 0) {
        pge_resp_publish_undo(out, open);
        return status;
    }
    char *argument = pge_buf_head(out) + open->mark;
    if (width != GAP) {
        memmove(argument + width, argument + GAP, n);
        out->end = out->start + open->mark + width + n;
    }
    memcpy(argument, text, width);
    return PGE_BUF_LIT(out, "\r\n");
}
