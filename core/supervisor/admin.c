/*
 * admin.c - the admin door: HTTP for the operator, `perigee reload` and `perigee status`.
 *
 *   POST /reload   200 {"generation":{"old":1,"new":2},"scripts":[...],"refused":[...]}
 *                  422 what was wrong, 503 a worker died or was late
 *   GET  /status   status.c     GET /livez   200     GET /readyz   200, or 503 while none serves
 */
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "supervisor/internal.h"

enum {
    MAX_CONNECTIONS = 64,
    FRESH_MS = 250, /* the workers' words for a status are waited for that long */
};

struct pge_admin {
    struct pge_supervisor *supervisor;
    struct pge_http_server *server;
    struct pge_list statuses; /* askers */
    bool is_closing;
    char path[sizeof(((struct sockaddr_un *)0)->sun_path)]; /* "": it is a port */
};

static void reply_json(struct pge_http_request *req, int status, const struct pge_buf *body) {
    pge_http_reply_as(req, status, "application/json", NULL, 0,
                      (struct pge_span){pge_buf_head(body), pge_buf_len(body)});
}

static void reply_problem(struct pge_http_request *req, int status, const char *detail) {
    pge_http_reply_problem(req, status, (struct pge_span){detail, strlen(detail)}, -1, NULL, 0);
}

static void reply_text(struct pge_http_request *req, int status, const char *text) {
    pge_http_reply_as(req, status, "text/plain", NULL, 0, (struct pge_span){text, strlen(text)});
}

/* ---- askers ---- */

static void drop(struct pge_supervisor *s, struct pge_asker *asker) {
    pge_loop_timer_stop(&s->loop, &asker->timer);
    pge_list_remove(&asker->node);
    *pge_http_request_user(asker->request) = NULL;
    pge_free(asker);
}

static struct pge_admin *admin_of(struct pge_http_request *req) {
    return pge_http_server_owner(pge_http_request_server(req));
}

static void on_late(struct pge_timer *timer);

static struct pge_asker *new_asker(struct pge_http_request *req) {
    struct pge_asker *asker = pge_calloc(1, sizeof *asker);
    if (!asker) {
        reply_problem(req, 503, "there is no memory");
        return NULL;
    }
    asker->request = req;
    pge_list_init(&asker->node);
    pge_timer_init(&asker->timer, on_late);
    *pge_http_request_user(req) = asker;
    return asker;
}

/* ---- reload ---- */

/* The report is an object; what all scripts together are stands in front. */
static void reply_reloaded(struct pge_supervisor *s, struct pge_http_request *req, unsigned old) {
    struct pge_buf body = {0};
    const struct pge_buf *report = &s->reload.report;
    char text[80];
    int n = snprintf(text, sizeof text, "{\"generation\":{\"old\":%u,\"new\":%u},", old,
                     s->committed.generation);
    if (pge_buf_len(report) < 2 || pge_buf_grow(&body, (size_t)n + pge_buf_len(report)) < 0) {
        reply_problem(req, 503, "OVERLOADED: there is no memory for the report");
        return;
    }
    pge_buf_append(&body, text, (size_t)n);
    pge_buf_append(&body, pge_buf_head(report) + 1, pge_buf_len(report) - 1);
    reply_json(req, 200, &body);
    pge_buf_deinit(&body);
}

void pge_admin_answer(struct pge_supervisor *s, struct pge_asker *asker, unsigned old_generation,
                      const char *error, int status) {
    struct pge_http_request *req = asker->request;
    drop(s, asker);
    if (error)
        reply_problem(req, status, error);
    else
        reply_reloaded(s, req, old_generation);
}

static void on_reload(struct pge_admin *admin, struct pge_http_request *req) {
    /* A browser sends this along with what a page of somebody else's asks of it. */
    if (pge_http_request_header(req, "origin").p) {
        reply_problem(req, 403, "browsers may not reload");
        return;
    }
    struct pge_asker *asker = new_asker(req);
    if (asker)
        pge_reload_ask(admin->supervisor, PGE_BY_ADMIN, asker);
}

/* ---- status ---- */

static void reply_status(struct pge_supervisor *s, struct pge_http_request *req) {
    struct pge_buf body = {0};
    if (pge_status_write(s, &body) < 0)
        reply_problem(req, 503, "there is no memory for the status");
    else
        reply_json(req, 200, &body);
    pge_buf_deinit(&body);
}

static bool are_all_heard(const struct pge_supervisor *s) {
    for (unsigned i = 0; i < s->worker_count; i++) {
        const struct pge_worker *w = s->workers[i];
        if (w->pid && !w->is_ending && w->state != PGE_WORKER_BORN && w->ponged != w->pinged)
            return false;
    }
    return true;
}

static void answer_statuses(struct pge_admin *admin) {
    while (!pge_list_is_empty(&admin->statuses)) {
        struct pge_asker *asker = container_of(admin->statuses.next, struct pge_asker, node);
        struct pge_http_request *req = asker->request;
        drop(admin->supervisor, asker);
        reply_status(admin->supervisor, req);
    }
}

void pge_admin_heard(struct pge_admin *admin) {
    if (!pge_list_is_empty(&admin->statuses) && are_all_heard(admin->supervisor))
        answer_statuses(admin);
}

/* A worker is busy: what it said last is good enough. */
static void on_late(struct pge_timer *timer) {
    struct pge_asker *asker = container_of(timer, struct pge_asker, timer);
    answer_statuses(admin_of(asker->request));
}

static void on_status(struct pge_admin *admin, struct pge_http_request *req) {
    struct pge_supervisor *s = admin->supervisor;
    struct pge_asker *asker = new_asker(req);
    if (!asker)
        return;
    pge_list_push(&admin->statuses, &asker->node);
    pge_loop_timer(&s->loop, &asker->timer, FRESH_MS);
    for (unsigned i = 0; i < s->worker_count; i++)
        if (s->workers[i]->state != PGE_WORKER_BORN)
            pge_worker_ping(s->workers[i], true);
    pge_admin_heard(admin); /* there may be nobody to wait for */
}

static void on_livez(struct pge_admin *admin, struct pge_http_request *req) {
    (void)admin;
    reply_text(req, 200, "alive\n");
}

static void on_readyz(struct pge_admin *admin, struct pge_http_request *req) {
    const struct pge_supervisor *s = admin->supervisor;
    bool is_ready = false;
    for (unsigned i = 0; i < s->worker_count && !s->is_stopping; i++)
        is_ready |= pge_worker_serves(s->workers[i]);
    reply_text(req, is_ready ? 200 : 503, is_ready ? "ready\n" : "not ready\n");
}

/* ---- the server ---- */

static const struct route {
    const char *path, *method;
    void (*answer)(struct pge_admin *admin, struct pge_http_request *req);
} routes[] = {
    {"/reload", "POST", on_reload},
    {"/status", "GET", on_status},
    {"/livez", "GET", on_livez},
    {"/readyz", "GET", on_readyz},
};

static bool is_text(struct pge_span span, const char *text) {
    return span.n == strlen(text) && memcmp(span.p, text, span.n) == 0;
}

static void on_request(struct pge_http_server *server, struct pge_http_request *req) {
    const struct pge_http_message *m = pge_http_request_message(req);
    for (size_t i = 0; i < sizeof routes / sizeof *routes; i++) {
        const struct route *route = &routes[i];
        if (!is_text(m->path, route->path))
            continue;
        bool is_read = strcmp(route->method, "GET") == 0 && m->is_head;
        const char *allowed = strcmp(route->method, "GET") == 0 ? "GET, HEAD" : route->method;
        const struct pge_http_header allow = {{"allow", 5}, {allowed, strlen(allowed)}};
        if (is_read || is_text(m->method, route->method))
            route->answer(pge_http_server_owner(server), req);
        else
            pge_http_reply_problem(req, 405, (struct pge_span){0}, -1, &allow, 1);
        return;
    }
    pge_http_reply_problem(req, 404, (struct pge_span){0}, -1, NULL, 0);
}

static void on_abort(struct pge_http_server *server, struct pge_http_request *req) {
    struct pge_admin *admin = pge_http_server_owner(server);
    struct pge_asker *asker = *pge_http_request_user(req);
    if (asker)
        drop(admin->supervisor, asker);
}

static void on_close(struct pge_http_server *server) {
    pge_free(pge_http_server_owner(server));
}

static const struct pge_http_server_events events = {on_request, on_abort, on_close};

static int open_at(struct pge_admin *admin, const struct pge_endpoint *at) {
    struct pge_http_limits limits;
    int status;
    pge_http_limits_default(&limits);
    limits.max_connections = MAX_CONNECTIONS;
    mode_t before = umask(0177); /* a unix socket is its owner's from the start */
    admin->server =
        pge_http_server_open(&admin->supervisor->loop, at, &limits, &events, admin, &status);
    umask(before);
    return admin->server ? 0 : status;
}

struct pge_admin *pge_admin_open(struct pge_supervisor *s, bool *is_fatal) {
    struct pge_endpoint at = {0};
    const char *asked = s->options.admin;
    *is_fatal = false;
    if (strcmp(asked, "off") == 0)
        return NULL;
    struct pge_admin *admin = pge_calloc(1, sizeof *admin);
    int status = UV_ENOMEM;
    if (!admin)
        goto fail;
    admin->supervisor = s;
    pge_list_init(&admin->statuses);
    status = pge_admin_address(asked, &at, admin->path, sizeof admin->path);
    if (status == 0)
        status = open_at(admin, &at);
    if (status < 0)
        goto fail;
    if (asked[0])
        pge_admin_tell(admin);
    return admin;
fail:
    *is_fatal = asked[0] != '\0';
    if (*is_fatal)
        pge_say(NULL, "LISTEN_FAILED: listen %s %s (--admin)", uv_err_name(status),
                strchr(asked, ' ') + 1);
    else
        pge_say("warn", "there is no admin door at %s: %s", admin ? admin->path : "all",
                uv_strerror(status));
    pge_free(admin);
    return NULL;
}

/* Port 0 has become one. */
void pge_admin_tell(const struct pge_admin *admin) {
    char address[160];
    pge_http_server_address(admin->server, address, sizeof address);
    pge_say(NULL, "admin door at %s%s", admin->path[0] ? "unix:" : "http://", address);
}

void pge_admin_close(struct pge_admin *admin) {
    pge_http_server_close(admin->server);
}
