/*
 * dial.c - look up, then connect to one address after the other, under one time limit.
 *
 *   start --turn--> [lookup] --> attempt 1 --fails, or its share ends--> attempt 2 ... --> on_done
 */
#include "net/dial.h"

#include <netdb.h>
#include <stdio.h>
#include <strings.h>

#include "base/alloc.h"
#include "net/uvstream.h"

/* However many addresses a name has, each attempt gets this long, or what is left of the limit. */
enum { MIN_SHARE_MS = 250 };

struct pge_dial {
    struct pge_loop *loop;
    char *host, *path, *server_name; /* owned; NULL as in the target */
    uint16_t port;
    struct pge_tls *tls; /* borrowed: the target's */
    pge_dial_cb on_done; /* NULL once told or cancelled */
    void *arg;
    uint64_t deadline_ms;
    struct pge_timer timer;
    struct pge_defer begin;
    uv_getaddrinfo_t lookup;
    bool is_looking;            /* the lookup's callback is still to come: it frees */
    struct addrinfo *found;     /* owned; NULL: no lookup was needed */
    struct pge_endpoint *tries; /* owned: the addresses, in order */
    unsigned next, count;
    struct pge_conn *conn; /* owned: the attempt, until handed over */
    int status;            /* of the last failure */
    char why[256];
};

static void try_next(struct pge_dial *dial);

static void free_dial(struct pge_dial *dial) {
    struct pge_loop *loop = dial->loop;
    pge_loop_timer_stop(loop, &dial->timer);
    pge_defer_cancel(&dial->begin);
    uv_freeaddrinfo(dial->found);
    pge_free(dial->tries);
    pge_free(dial->host);
    pge_free(dial->path);
    pge_free(dial->server_name);
    pge_free(dial);
    pge_loop_release(loop);
}

/* Ends whatever runs. The dial lives on until a lookup in flight has come back. */
static void finish(struct pge_dial *dial) {
    dial->on_done = NULL;
    pge_loop_timer_stop(dial->loop, &dial->timer);
    if (dial->conn)
        pge_conn_close(dial->conn);
    dial->conn = NULL;
    if (dial->is_looking)
        uv_cancel(
            (uv_req_t *)&dial->lookup); /* fails once a thread is at it: then it is waited for */
    else
        free_dial(dial);
}

static void tell(struct pge_dial *dial, struct pge_conn *conn, int status, const char *why) {
    pge_dial_cb on_done = dial->on_done;
    dial->on_done = NULL; /* first: the callee may cancel what is done */
    on_done(dial->arg, conn, status, why);
    finish(dial);
}

static void fail(struct pge_dial *dial) {
    tell(dial, NULL, dial->status, dial->why);
}

/* Node says ENOTFOUND for all the ways in which a name has no address. */
static const char *code_of(int status) {
    if (status == UV_EAI_NONAME || status == UV_EAI_NODATA)
        return "ENOTFOUND";
    return uv_err_name(status);
}

static void note_lookup(struct pge_dial *dial, int status) {
    dial->status = status;
    snprintf(dial->why, sizeof dial->why, "getaddrinfo %s %s", code_of(status), dial->host);
}

/* The text of a stream (TLS: why the handshake failed) says more than the code. */
static void note_attempt(struct pge_dial *dial, int status, const char *text) {
    char name[128];
    const struct pge_endpoint *to = &dial->tries[dial->next - 1];
    dial->status = status;
    if (to->addr.sa.sa_family == AF_UNIX)
        snprintf(name, sizeof name, "%s", to->addr.un.sun_path);
    else
        pge_sockaddr_text(&to->addr.sa, name, sizeof name);
    if (text)
        snprintf(dial->why, sizeof dial->why, "%s", text);
    else
        snprintf(dial->why, sizeof dial->why, "connect %s %s", code_of(status), name);
}

static void on_open(struct pge_conn *conn, int status) {
    struct pge_dial *dial = conn->owner;
    dial->conn = NULL;
    if (status < 0) {
        note_attempt(dial, status, conn->why);
        pge_conn_close(conn);
        try_next(dial);
        return;
    }
    tell(dial, conn, 0, NULL);
}

/* Reading is not started before the conn is handed over, nor anything written. */
static void on_data(struct pge_conn *conn, const char *data, ssize_t n) {
    (void)conn, (void)data, (void)n;
}

static void on_drain(struct pge_conn *conn, int status) {
    (void)conn, (void)status;
}

static void on_close(struct pge_conn *conn) {
    (void)conn; /* the dial may be gone */
}

static const struct pge_conn_events dialling = {on_open, on_data, on_drain, on_close};

static uint64_t ms_left(const struct pge_dial *dial) {
    uint64_t now = pge_loop_now(dial->loop);
    return dial->deadline_ms > now ? dial->deadline_ms - now : 0;
}

/* The time left, shared among the addresses left. */
static uint64_t share_ms(const struct pge_dial *dial) {
    uint64_t left = ms_left(dial);
    uint64_t share = left / (dial->count - dial->next);
    if (share < MIN_SHARE_MS)
        share = MIN_SHARE_MS;
    return share < left ? share : left;
}

static void try_next(struct pge_dial *dial) {
    while (dial->next < dial->count) {
        uint64_t share = share_ms(dial);
        if (share == 0 && dial->next)
            break; /* the last failure is told */
        int status;
        const struct pge_endpoint *to = &dial->tries[dial->next++];
        dial->conn = pge_conn_connect(dial->loop, to, &dialling, dial, &status);
        if (dial->conn) {
            pge_loop_timer(dial->loop, &dial->timer, share);
            return;
        }
        note_attempt(dial, status, NULL);
    }
    fail(dial);
}

static void on_timeout(struct pge_timer *timer) {
    struct pge_dial *dial = container_of(timer, struct pge_dial, timer);
    if (dial->is_looking) {
        note_lookup(dial, UV_ETIMEDOUT);
        fail(dial);
        return;
    }
    note_attempt(dial, UV_ETIMEDOUT, NULL);
    pge_conn_close(dial->conn);
    dial->conn = NULL;
    try_next(dial);
}

/* Room for count addresses, ready but for the addresses themselves. 0 or UV_ENOMEM. */
static int make_tries(struct pge_dial *dial, unsigned count, const struct pge_stream *plain) {
    dial->tries = pge_calloc(count, sizeof *dial->tries);
    if (!dial->tries)
        return UV_ENOMEM;
    dial->count = count;
    for (unsigned i = 0; i < count; i++) {
        dial->tries[i].stream = dial->tls ? &pge_stream_tls : plain;
        dial->tries[i].tls = dial->tls;
        dial->tries[i].server_name = dial->server_name ? dial->server_name : dial->host;
    }
    return 0;
}

static unsigned count_addresses(const struct addrinfo *list) {
    unsigned count = 0;
    for (; list; list = list->ai_next)
        count += list->ai_addrlen <= sizeof(struct sockaddr_storage);
    return count;
}

/* RFC 6761 6.3: localhost is the loopback, also where no hosts file says so (a bare container). */
static bool is_localhost(const char *host) {
    return strcasecmp(host, "localhost") == 0;
}

static int try_loopback(struct pge_dial *dial) {
    int status = make_tries(dial, 2, &pge_stream_tcp);
    if (status < 0)
        return status;
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
    uv_ip4_addr("127.0.0.1", dial->port, &in);
    uv_ip6_addr("::1", dial->port, &in6);
    memcpy(&dial->tries[0].addr, &in, sizeof in);
    memcpy(&dial->tries[1].addr, &in6, sizeof in6);
    return 0;
}

static void on_lookup(uv_getaddrinfo_t *req, int status, struct addrinfo *list) {
    struct pge_dial *dial = container_of(req, struct pge_dial, lookup);
    dial->is_looking = false;
    dial->found = list;
    if (!dial->on_done) {
        free_dial(dial);
        return;
    }
    if (status < 0 && is_localhost(dial->host) && try_loopback(dial) == 0) {
        try_next(dial);
        return;
    }
    unsigned count = count_addresses(list);
    if (status == 0)
        status = count ? make_tries(dial, count, &pge_stream_tcp) : UV_EAI_NODATA;
    if (status < 0) {
        note_lookup(dial, status);
        fail(dial);
        return;
    }
    struct pge_endpoint *to = dial->tries;
    for (; list; list = list->ai_next)
        if (list->ai_addrlen <= sizeof(struct sockaddr_storage))
            memcpy(&(to++)->addr, list->ai_addr, list->ai_addrlen);
    try_next(dial);
}

/* Writes the numeric address or path into to->addr. 0, UV_EAI_NONAME: a name, UV_ENAMETOOLONG. */
static int set_address(struct pge_endpoint *to, const char *host, uint16_t port, const char *path) {
    if (path) {
        if (strlen(path) >= sizeof to->addr.un.sun_path)
            return UV_ENAMETOOLONG;
        to->addr.un.sun_family = AF_UNIX;
        memcpy(to->addr.un.sun_path, path, strlen(path) + 1);
        return 0;
    }
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
    if (uv_ip4_addr(host, port, &in) == 0)
        memcpy(&to->addr, &in, sizeof in);
    else if (uv_ip6_addr(host, port, &in6) == 0)
        memcpy(&to->addr, &in6, sizeof in6);
    else
        return UV_EAI_NONAME;
    return 0;
}

static const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};

static int start_lookup(struct pge_dial *dial) {
    char service[8];
    snprintf(service, sizeof service, "%u", (unsigned)dial->port);
    int status =
        uv_getaddrinfo(dial->loop->uv, &dial->lookup, on_lookup, dial->host, service, &hints);
    dial->is_looking = status == 0;
    if (status == 0)
        pge_loop_timer(dial->loop, &dial->timer, ms_left(dial)); /* the dial holds the loop */
    return status;
}

static void on_begin(struct pge_defer *defer) {
    struct pge_dial *dial = container_of(defer, struct pge_dial, begin);
    struct pge_endpoint numeric = {0};
    int status = set_address(&numeric, dial->host, dial->port, dial->path);
    if (status == UV_EAI_NONAME) {
        status = start_lookup(dial);
        if (status == 0)
            return;
    } else if (status == 0) {
        status = make_tries(dial, 1, dial->path ? &pge_stream_pipe : &pge_stream_tcp);
    }
    if (status < 0) {
        dial->status = status;
        snprintf(dial->why, sizeof dial->why, "%s %s %s", dial->path ? "connect" : "getaddrinfo",
                 code_of(status), dial->path ? dial->path : dial->host);
        fail(dial);
        return;
    }
    dial->tries[0].addr = numeric.addr;
    try_next(dial);
}

/* Copies text unless NULL. 0 or UV_ENOMEM. */
static int copy(char **to, const char *text) {
    if (!text)
        return 0;
    *to = pge_strndup(text, strlen(text));
    return *to ? 0 : UV_ENOMEM;
}

struct pge_dial *pge_dial_start(struct pge_loop *loop, const struct pge_target *target,
                                uint64_t timeout_ms, pge_dial_cb on_done, void *arg, int *status) {
    *status = pge_loop_hold(loop);
    if (*status < 0)
        return NULL;
    struct pge_dial *dial = pge_calloc(1, sizeof *dial);
    if (!dial) {
        pge_loop_release(loop);
        *status = UV_ENOMEM;
        return NULL;
    }
    uint64_t now = pge_loop_now(loop);
    dial->loop = loop;
    dial->port = target->port;
    dial->tls = target->tls;
    dial->on_done = on_done;
    dial->arg = arg;
    dial->deadline_ms = timeout_ms < UINT64_MAX - now ? now + timeout_ms : UINT64_MAX;
    pge_timer_init(&dial->timer, on_timeout);
    pge_defer_init(&dial->begin, on_begin);
    if (copy(&dial->host, target->path ? NULL : target->host) < 0 ||
        copy(&dial->path, target->path) < 0 || copy(&dial->server_name, target->server_name) < 0) {
        *status = UV_ENOMEM;
        free_dial(dial);
        return NULL;
    }
    /* The first step waits for the end of the turn, so that on_done never comes before we return.
     */
    pge_loop_defer(loop, &dial->begin, PGE_SOON);
    return dial;
}

void pge_dial_cancel(struct pge_dial *dial) {
    if (dial->on_done)
        finish(dial);
}

int pge_endpoint_resolve(const char *host, uint16_t port, const char *path,
                         struct pge_endpoint *at) {
    memset(at, 0, sizeof *at);
    at->stream = path ? &pge_stream_pipe : &pge_stream_tcp;
    int status = set_address(at, host, port, path);
    if (status != UV_EAI_NONAME)
        return status;
    char service[8];
    struct addrinfo *found;
    snprintf(service, sizeof service, "%u", (unsigned)port);
    int error = getaddrinfo(host, service, &hints, &found);
    if (error && is_localhost(host))
        return set_address(at, "127.0.0.1", port, NULL);
    if (error)
        return error == EAI_AGAIN ? UV_EAI_AGAIN : UV_EAI_NONAME;
    bool fits = found->ai_addrlen <= sizeof at->addr;
    if (fits)
        memcpy(&at->addr, found->ai_addr, found->ai_addrlen);
    freeaddrinfo(found);
    return fits ? 0 : UV_EAI_NONAME;
}
