/* call.c - the table of calls in flight: ids that name their slot, deadlines, calls that wait. */
#include <stdio.h>
#include <uv.h>

#include "base/alloc.h"
#include "engine/pool.h"

enum { SLOT_DIGITS = PGE_ID_LEN - 16, MAX_SLOTS = 1 << 4 * SLOT_DIGITS };
/* Beyond so many calls in flight one keeps no memory for the address of the next. */
enum { ROOMY_SLOTS = 1024, ROOM = 512 };

static void on_timer(struct pge_timer *timer);

static struct pge_call *at(const struct pge_pool *pool, uint32_t slot) {
    return &pool->chunks[slot / PGE_CALL_CHUNK][slot % PGE_CALL_CHUNK];
}

static int grow(struct pge_pool *pool) {
    if (pool->chunk_count * PGE_CALL_CHUNK >= MAX_SLOTS)
        return UV_ENOBUFS;
    struct pge_call **chunks = pge_realloc(pool->chunks, (pool->chunk_count + 1) * sizeof *chunks);
    if (!chunks)
        return UV_ENOMEM;
    pool->chunks = chunks;
    struct pge_call *chunk = pge_calloc(PGE_CALL_CHUNK, sizeof *chunk);
    if (!chunk)
        return UV_ENOMEM;
    chunks[pool->chunk_count] = chunk;
    for (unsigned i = 0; i < PGE_CALL_CHUNK; i++) {
        chunk[i].slot = pool->chunk_count * PGE_CALL_CHUNK + i;
        pge_list_init(&chunk[i].of_link);
        pge_timer_init(&chunk[i].timer, on_timer);
        pge_list_push(&pool->free_calls, &chunk[i].of_client);
    }
    pool->chunk_count++;
    return 0;
}

static void write_hex(char *out, int digits, uint64_t value) {
    while (digits--) {
        out[digits] = "0123456789abcdef"[value & 15];
        value >>= 4;
    }
}

/* Eight digits at a time: a nibble into each byte, then what makes it a digit or a letter. Any
 * order of random digits is as random. */
static void write_random_hex(char out[16], uint64_t value) {
    for (int i = 0; i < 2; i++) {
        uint64_t nibbles = (value >> 4 * i) & UINT64_C(0x0F0F0F0F0F0F0F0F);
        uint64_t letters = ((nibbles + UINT64_C(0x0606060606060606)) >> 4) &
                           UINT64_C(0x0101010101010101); /* 1 where the nibble is above 9 */
        uint64_t text = nibbles + UINT64_C(0x3030303030303030) + letters * ('a' - '0' - 10);
        memcpy(out + 8 * i, &text, sizeof text);
    }
}

struct pge_call *pge_call_acquire(struct pge_client *client, const struct pge_call_options *options,
                                  enum pge_call_kind kind) {
    struct pge_pool *pool = client->pool;
    if (pge_list_is_empty(&pool->free_calls) && grow(pool) < 0)
        return NULL;
    struct pge_call *call = container_of(pool->free_calls.next, struct pge_call, of_client);
    pge_list_remove(&call->of_client);
    pge_list_push(&client->calls, &call->of_client);
    client->pending++;
    pool->pending++;
    call->client = client;
    call->link = NULL;
    call->events = options->events;
    call->arg = options->arg;
    call->timeout_ms = options->timeout_ms;
    uint64_t now = options->deadline_ms ? pge_loop_now(pool->engine->loop) : 0;
    call->deadline_at = options->deadline_ms ? now + options->deadline_ms : 0;
    call->generation++;
    call->kind = kind;
    call->is_sent = false;
    call->data = NULL;
    write_hex(call->id, SLOT_DIGITS, call->slot);
    write_random_hex(call->id + SLOT_DIGITS, pge_loop_random(pool->engine->loop));
    return call;
}

void pge_call_release(struct pge_call *call) {
    struct pge_client *client = call->client;
    struct pge_pool *pool = client->pool;
    pge_loop_timer_stop(pool->engine->loop, &call->timer);
    if (call->link) {
        call->link->pending--;
        if (call->link->state == PGE_LINK_READY)
            call->link->transport->link_forget(call->link, call);
    } else if (!call->is_sent && !pge_list_is_empty(&call->of_link)) {
        pool->waiting_count--;
        pool->waiting_bytes -= pge_buf_len(&call->held);
    }
    pge_list_remove(&call->of_link);
    pge_list_remove(&call->of_client);
    pge_buf_deinit(&call->held);
    pge_buf_clear(&call->address);
    pge_buf_trim(&call->address, call->slot < ROOMY_SLOTS ? ROOM : 0);
    pge_list_push(&pool->free_calls, &call->of_client);
    call->client = NULL;
    call->link = NULL;
    client->pending--;
    pool->pending--;
    if (client->is_orphan && client->pending == 0)
        pge_client_close(client);
}

void pge_call_arm(struct pge_call *call) {
    struct pge_loop *loop = call->client->pool->engine->loop;
    uint64_t delay = call->timeout_ms ? call->timeout_ms : UINT64_MAX;
    if (call->deadline_at) {
        uint64_t now = pge_loop_now(loop);
        uint64_t left = call->deadline_at > now ? call->deadline_at - now : 0;
        delay = left < delay ? left : delay;
    }
    if (delay != UINT64_MAX)
        pge_loop_timer(loop, &call->timer, delay);
}

void pge_call_fail(struct pge_call *call, enum pge_fault fault, const char *message) {
    const struct pge_call_events *events = call->events;
    /* The caller still needs call->arg: the slot is taken again only by a new call. */
    pge_call_release(call);
    events->on_fail(call, fault, message);
}

static void time_out(void *arg) {
    struct pge_call *call = arg;
    uint64_t now = pge_loop_now(call->client->pool->engine->loop);
    char text[64];
    if (call->deadline_at && now >= call->deadline_at)
        snprintf(text, sizeof text, "deadline exceeded");
    else
        snprintf(text, sizeof text, "no value within %llu ms",
                 (unsigned long long)call->timeout_ms);
    pge_call_fail(call, PGE_TIMEOUT, text);
}

static void on_timer(struct pge_timer *timer) {
    struct pge_call *call = container_of(timer, struct pge_call, timer);
    struct pge_engine *engine = call->client->pool->engine;
    engine->enter(engine, time_out, call);
}

void pge_call_cancel(struct pge_call *call) {
    pge_call_release(call);
}

void *pge_call_arg(const struct pge_call *call) {
    return call->arg;
}

const struct pge_call_events *pge_call_events_of(const struct pge_call *call) {
    return call->events;
}

struct pge_span pge_call_id(const struct pge_call *call) {
    return (struct pge_span){call->id, PGE_ID_LEN};
}

unsigned pge_call_slot(const struct pge_call *call) {
    return call->slot;
}

double pge_call_handle(const struct pge_call *call) {
    return (double)call->generation * MAX_SLOTS + call->slot;
}

struct pge_call *pge_client_call(struct pge_client *client, double handle) {
    if (!(handle >= 0 && handle < 0x1p52))
        return NULL;
    uint64_t bits = (uint64_t)handle;
    uint32_t slot = (uint32_t)(bits % MAX_SLOTS);
    struct pge_pool *pool = client->pool;
    if (slot / PGE_CALL_CHUNK >= pool->chunk_count)
        return NULL;
    struct pge_call *call = at(pool, slot);
    return call->client == client && call->generation == bits / MAX_SLOTS ? call : NULL;
}

static int hex_digit(char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

struct pge_call *pge_pool_find_call(struct pge_pool *pool, struct pge_span id) {
    if (id.n != PGE_ID_LEN)
        return NULL;
    uint32_t slot = 0;
    for (int i = 0; i < SLOT_DIGITS; i++) {
        int digit = hex_digit(id.p[i]);
        if (digit < 0)
            return NULL;
        slot = slot * 16 + (uint32_t)digit;
    }
    if (slot / PGE_CALL_CHUNK >= pool->chunk_count)
        return NULL;
    struct pge_call *call = at(pool, slot);
    bool same =
        call->client && call->kind != PGE_CALL_CONNECT && memcmp(call->id, id.p, PGE_ID_LEN) == 0;
    return same ? call : NULL;
}

void pge_pool_free_calls(struct pge_pool *pool) {
    for (unsigned i = 0; i < pool->chunk_count; i++) {
        for (unsigned j = 0; j < PGE_CALL_CHUNK; j++)
            pge_buf_deinit(&pool->chunks[i][j].address);
        pge_free(pool->chunks[i]);
    }
    pge_free(pool->chunks);
}

bool pge_call_is_patient(const struct pge_call *call) {
    const struct pge_pool_options *o = &call->client->pool->options;
    return (call->kind == PGE_CALL_EVENT && o->offline == PGE_OFFLINE_QUEUE) ||
           (call->kind == PGE_CALL_REQUEST && o->resumes);
}

void pge_call_attach(struct pge_call *call, struct pge_link *link) {
    call->link = link;
    call->is_sent = true;
    link->pending++;
    pge_list_push(&link->calls, &call->of_link);
}

/* Appends a part of a held message and tells its length. */
static int hold_part(struct pge_buf *held, const struct pge_payload *part, size_t *n) {
    size_t len = pge_buf_len(held);
    int status = pge_payload_write(part, held);
    *n = pge_buf_len(held) - len;
    return status;
}

int pge_call_hold(struct pge_call *call, const struct pge_message *m) {
    struct pge_pool *pool = call->client->pool;
    call->held_whole = m->packet.p != NULL;
    struct pge_payload pattern = {.json = m->pattern}, packet = {.json = m->packet};
    struct pge_buf *held = &call->held;
    call->held_metadata = 0;
    int status = hold_part(held, &pattern, &call->held_pattern);
    if (status == 0)
        status = hold_part(held, m->packet.p ? &packet : &m->data, &call->held_data);
    if (status == 0 && pge_payload_is_set(&m->metadata))
        status = hold_part(held, &m->metadata, &call->held_metadata);
    call->held_headers = m->headers.count;
    call->held_options = m->options.count;
    if (status == 0)
        status = pge_headers_pack(m->headers, held);
    if (status == 0)
        status = pge_headers_pack(m->options, held);
    if (status < 0)
        return status;
    pge_list_push(&pool->waiting, &call->of_link);
    pool->waiting_count++;
    pool->waiting_bytes += pge_buf_len(held);
    return 0;
}

/* The wire's word on a held message, as a fault of the call. */
static void refuse(struct pge_call *call, struct pge_link *link, int status) {
    char why[sizeof link->why];
    snprintf(why, sizeof why, "%s", link->why);
    link->why[0] = '\0';
    if (status == UV_EMSGSIZE)
        pge_call_fail(call, PGE_FRAME_TOO_LARGE,
                      why[0] ? why : "the message is too large for the peer");
    else if (why[0])
        pge_call_fail(call, PGE_INVALID_MESSAGE, why);
    else if (status == UV_EPIPE)
        pge_call_fail(call, PGE_CONNECTION_CLOSED, "Connection closed");
    else
        pge_call_fail(call, PGE_OVERLOADED, uv_strerror(status));
}

/* What a call holds, as spans into it; headers: room for both lists. */
static struct pge_message held_message(const struct pge_call *call, struct pge_header *headers) {
    const char *p = pge_buf_head(&call->held);
    struct pge_message m = {.pattern = {p, call->held_pattern}};
    p += call->held_pattern;
    struct pge_span data = {p, call->held_data};
    p += call->held_data;
    if (call->held_whole)
        m.packet = data;
    else
        m.data.json = data;
    if (call->held_metadata)
        m.metadata.json = (struct pge_span){p, call->held_metadata};
    p += call->held_metadata;
    m.headers = (struct pge_headers){headers, call->held_headers};
    p = pge_headers_unpack(p, headers, call->held_headers);
    m.options = (struct pge_headers){headers + call->held_headers, call->held_options};
    pge_headers_unpack(p, headers + call->held_headers, call->held_options);
    return m;
}

void pge_call_unhold(struct pge_call *call, struct pge_link *link) {
    struct pge_pool *pool = link->pool;
    struct pge_header headers[2 * PGE_MAX_HEADERS];
    struct pge_message m = held_message(call, headers);
    pge_list_remove(&call->of_link);
    pool->waiting_count--;
    pool->waiting_bytes -= pge_buf_len(&call->held);
    int status = 0;
    if (call->kind == PGE_CALL_REQUEST)
        status = link->transport->link_send(link, call, &m);
    else if (call->kind == PGE_CALL_EVENT)
        status = link->transport->link_emit(link, call, &m);
    if (status < 0) {
        refuse(call, link, status);
        return;
    }
    if (call->kind == PGE_CALL_REQUEST || status == PGE_EMIT_ACKED) {
        pge_buf_deinit(&call->held);
        pge_call_attach(call, link);
        if (call->kind == PGE_CALL_EVENT)
            pge_call_arm(call);
        return;
    }
    const struct pge_call_events *events = call->events;
    pge_call_release(call);
    events->on_packet(call, PGE_REPLY_END, (struct pge_span){0});
}
