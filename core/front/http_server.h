/*
 * http_server.h - HTTP/1.1 in front (RFC 9110, 9112), on llhttp, stricter where llhttp lets things
 * through: what nginx, HAProxy or Node refuses is refused (reliability 1.3), but for "OPTIONS *"
 * and for Upgrade, which is ignored.
 *
 *   conn bytes -> one request at a time, whole (headers and body) -> on_request ->
 * pge_http_reply...
 *
 * A pipelined successor waits, unparsed, until the reply before it is finished and the peer has
 * read most of it. Every refusal closes the connection, with a status where the RFC allows one, and
 * nothing of a refused request reaches on_request.
 */
#ifndef PGE_FRONT_HTTP_SERVER_H
#define PGE_FRONT_HTTP_SERVER_H

#include "net/memory.h"

struct pge_http_server;
struct pge_http_request;

/* Defaults are reliability.md 2.1's; pge_http_limits_default() gives them. 0 never means "off". */
struct pge_http_limits {
    size_t
        max_header_bytes;  /* request line to blank line: 16 KiB -> 431; chunk trailers the same */
    unsigned max_headers;  /* 100 -> 431 */
    size_t max_uri_bytes;  /* 8 KiB -> 414 */
    size_t max_body_bytes; /* 1 MiB -> 413, before the body is read if Content-Length says so */
    size_t max_queued_bytes;    /* output a peer does not read: 16 MiB -> cut when more is added */
    unsigned max_connections;   /* 10,000: beyond, accepting pauses */
    uint64_t header_timeout_ms; /* first byte of a request to the end of its headers: 10 s -> 408 */
    uint64_t body_timeout_ms;   /* silence inside a body: 30 s -> 408 */
    uint64_t idle_timeout_ms; /* keep-alive between requests, and before the first: 60 s -> close */
    uint64_t write_timeout_ms; /* no progress in writing a reply: 30 s -> cut */
};

struct pge_http_header {
    struct pge_span name, value;
};

struct pge_http_server_events {
    /* A whole, valid request. Answer now or later, exactly once; its spans live until the reply
     * ends. */
    void (*on_request)(struct pge_http_server *server, struct pge_http_request *req);
    /* The peer went away, or the server was closed, before the reply was finished: req is gone when
       this returns. Never from inside a pge_http_reply call, nor after one said UV_ENOMEM. */
    void (*on_abort)(struct pge_http_server *server, struct pge_http_request *req);
    /* After pge_http_server_close or the end of a drain: the last connection and the listener are
       gone; the server is freed when this returns. */
    void (*on_close)(struct pge_http_server *server);
};

/* What a request says. All spans borrowed from the request. */
struct pge_http_message {
    struct pge_span method; /* "GET" */
    struct pge_span target; /* as sent, origin form ("/a%20b?x=1"); absolute form is reduced to it;
                               "*" stays */
    struct pge_span
        path; /* target before "?", undecoded; escapes are whole, ".." stays below "/" */
    struct pge_span query;                 /* after "?"; p == NULL: none */
    struct pge_span body;                  /* transfer coding removed; n == 0: none */
    const struct pge_http_header *headers; /* names lower-cased, values trimmed, in order */
    unsigned header_count;
    bool is_head;
};

struct pge_http_stats {
    uint64_t connections, requests,
        refused;           /* ever; refused: answered or cut for a fault of the peer */
    unsigned open, active; /* now: connections; requests whose reply is not finished */
};

void pge_http_limits_default(struct pge_http_limits *limits);

/* Listens; at NULL: nowhere, requests are injected. limits are copied. NULL: *status says why. */
struct pge_http_server *pge_http_server_open(struct pge_loop *loop, const struct pge_endpoint *at,
                                             const struct pge_http_limits *limits,
                                             const struct pge_http_server_events *events,
                                             void *owner, int *status);
/* A connection in memory, see pge_memory_open. 0, or no on_end follows: UV_ENOMEM, UV_EPIPE when
 * draining. */
int pge_http_server_inject(struct pge_http_server *server, const char *data, size_t n,
                           const struct pge_memory_peer *peer, void *arg);
void *pge_http_server_owner(const struct pge_http_server *server);
void pge_http_server_address(const struct pge_http_server *server, char *out, size_t size);
struct pge_http_stats pge_http_server_stats(const struct pge_http_server *server);

/* Takes no new connections while held; the kernel's backlog keeps them. */
void pge_http_server_hold(struct pge_http_server *server, bool held);

/* Stops accepting; idle connections close, running replies end with "Connection: close"; then
   on_close. How long that may take is the owner's to bound, with pge_http_server_close. */
void pge_http_server_drain(struct pge_http_server *server);
/* The same at once: running requests are aborted (on_abort). */
void pge_http_server_close(struct pge_http_server *server);

const struct pge_http_message *pge_http_request_message(const struct pge_http_request *req);
/* Whether the body may be taken over by who sends it on in between (pge_loop.loan); then the
 * message has no more texts. */
void pge_http_request_lend(struct pge_http_request *req, bool lent);
struct pge_http_server *pge_http_request_server(const struct pge_http_request *req);
void pge_http_request_peer(const struct pge_http_request *req, char *out, size_t size);
/* A place for the owner's own pointer, NULL at first. */
void **pge_http_request_user(struct pge_http_request *req);
/* First header of that lower-case name; p == NULL: none. */
struct pge_span pge_http_request_header(const struct pge_http_request *req, const char *name);

/* Whether name and value may stand in a header (RFC 9110 5.1, 5.5: a token; no controls but HTAB).
 */
bool pge_http_header_is_valid(struct pge_span name, struct pge_span value);

/*
 * The whole reply at once. Content-Length, Date, Connection are added here and must not be among
 * headers (these, Transfer-Encoding and its kin are left out if they are). 204 and 304 carry no
 * body, 205 an empty one; HEAD carries its length only. Nothing is borrowed after the return. 0;
 * UV_EINVAL when status (200..599) or a header is not allowed: nothing was sent, and the request
 * still wants an answer; UV_EALREADY: it has had one; UV_ENOMEM, also for a peer that does not
 * read: the connection is cut and the request over.
 */
int pge_http_reply(struct pge_http_request *req, int status, const struct pge_http_header *headers,
                   unsigned header_count, struct pge_span body);
/* The same with a content type, unless the headers have one. */
int pge_http_reply_as(struct pge_http_request *req, int status, const char *type,
                      const struct pge_http_header *headers, unsigned header_count,
                      struct pge_span body);

/* An RFC 9457 problem: {"type":"about:blank","title":...,"status":N[,"detail":...]}. A detail that
   is empty or not UTF-8 is left out; retry_after_s < 0: none. */
int pge_http_reply_problem(struct pge_http_request *req, int status, struct pge_span detail,
                           int retry_after_s, const struct pge_http_header *headers,
                           unsigned header_count);

/* A reply of unknown length: chunked (HTTP/1.0 peers: until close). A chunk of n == 0 is ignored.
   Errors as above; UV_EINVAL before begin. */
int pge_http_reply_begin(struct pge_http_request *req, int status,
                         const struct pge_http_header *headers, unsigned header_count);
int pge_http_reply_chunk(struct pge_http_request *req, struct pge_span data);
int pge_http_reply_end(struct pge_http_request *req);
/* The reply cannot be completed: the connection is cut, so that the peer sees it (an HTTP/1.0 peer
   cannot tell). Harmless when the request is over. */
void pge_http_reply_fail(struct pge_http_request *req);

/* "Not Found"; "" when unknown. */
const char *pge_http_reason(int status);

#endif
