/*
 * internal.h - what the files of the supervisor share. Nobody else includes it.
 *
 *   supervise.c  start, signals, stop, end        worker.c   processes: birth, pings, death
 *   control.c    frames to and from a worker      talk.c     what is told and heard in them
 *   sockets.c    listening sockets, for all       reload.c   all workers or none
 *   bundle.c     the files of a generation        watch.c    files that change
 *   admin.c      the HTTP door; status.c,         options.c  what the command line said
 *                admin_address.c                  say.c      stderr
 *
 * A generation is made by one worker, the lead, and loaded by the others from the bundle it sends,
 * so that all are the same. What is committed is kept: a worker that dies is replaced by one that
 * loads the same bundle, whatever has become of the files.
 */
#ifndef PGE_SUPERVISOR_INTERNAL_H
#define PGE_SUPERVISOR_INTERNAL_H

#include <stdbool.h>
#include <stdio.h>
#include <sys/types.h>
#include <uv.h>

#include "base/buffer.h"
#include "base/loop.h"
#include "front/http_server.h"
#include "net/stream.h"
#include "supervisor/protocol.h"

enum {
    PGE_EXIT_FAILED = 1,
};

/* What the first worker read off the command line. */
struct pge_supervisor_options {
    unsigned workers;
    bool watch;
    unsigned drain_timeout_ms;
    unsigned budget_ms, load_budget_ms; /* longest silence; 0: no limit */
    char admin[160]; /* "", "off", "unix PATH", "tcp HOST PORT"; "": by the process id */
};

enum pge_worker_state {
    PGE_WORKER_NONE,    /* no process; maybe one is due */
    PGE_WORKER_BORN,    /* has not said HELLO */
    PGE_WORKER_IDLE,    /* loads nothing: serves its generation, or has none yet */
    PGE_WORKER_LOADING, /* PREPARE was sent */
    PGE_WORKER_READY,   /* its candidate waits for COMMIT or ABORT */
    PGE_WORKER_SWAPPING /* COMMIT was sent */
};

struct pge_worker {
    struct pge_supervisor *supervisor;
    unsigned index; /* from 1 */
    enum pge_worker_state state;
    uv_process_t process;
    uv_poll_t door;
    int door_fd;              /* owned; -1: none */
    struct pge_conn *control; /* owned until its on_close; NULL: none */
    unsigned open_handles;    /* of these three */
    struct pge_buf in;        /* of the frame that is coming */
    pid_t pid;                /* 0: none */
    unsigned attempt;         /* number of what it loads or swaps */
    unsigned target;          /* the generation that makes, once committed; 0: a reload's */
    unsigned generation;      /* that it serves; 0: none */
    unsigned restarts;
    unsigned backoff_ms;       /* before the next birth, if it dies young */
    uint64_t served_ms;        /* when it first served; 0: not yet */
    uint64_t heard_ms;         /* when it last said anything */
    uint64_t ping_ms;          /* when the oldest ping without an answer was sent; 0: none */
    uint32_t pinged, ponged;   /* numbers of the last */
    struct pge_timer birth;    /* the next process */
    struct pge_timer deadline; /* of loading */
    struct pge_buf status;     /* owned: JSON of its last PONG */
    bool is_ending;            /* told to stop, or killed */
};

/* One listening socket, held for all workers. */
struct pge_held {
    struct pge_list node;
    struct sockaddr_storage asked; /* port 0 stays 0 */
    int fd;                        /* owned */
    struct pge_list holds;         /* struct pge_hold */
};

/* That a worker has it. */
struct pge_hold {
    struct pge_list node;
    unsigned worker;  /* index */
    unsigned attempt; /* the load that asked */
    uint32_t id;
};

enum pge_cause { PGE_BY_START, PGE_BY_HUP, PGE_BY_ADMIN, PGE_BY_WATCH };

enum pge_reload_phase { PGE_RELOAD_NONE, PGE_RELOAD_LEAD, PGE_RELOAD_OTHERS, PGE_RELOAD_SWAP };

/* Who waits for the outcome of a reload, or for fresh words of the workers. */
struct pge_asker {
    struct pge_list node;
    struct pge_http_request *request;
    struct pge_timer timer; /* for status */
};

struct pge_reload {
    enum pge_reload_phase phase;
    enum pge_cause cause;
    unsigned attempt; /* the number its workers were given */
    unsigned lead;    /* index */
    bool is_second_try;
    bool is_same;                /* the files are those of the present generation */
    struct pge_buf bundle;       /* owned, as the next two: the lead's */
    struct pge_buf report;       /* JSON: {"scripts":[...],"refused":[...]} */
    struct pge_buf error;        /* of scripts refused while others were not; a C string */
    struct pge_list askers;      /* of the one that runs */
    struct pge_list next_askers; /* of the one after it */
    bool wants_next;
    enum pge_cause next_cause;
};

/* What all workers are to serve. */
struct pge_committed {
    unsigned generation; /* 0: none yet */
    struct pge_buf bundle;
    int64_t loaded_ms; /* of the wall clock */
};

/* How the last reload ended. */
struct pge_outcome {
    bool is_known, is_good;
    int64_t at_ms;       /* of the wall clock */
    struct pge_buf text; /* the error */
};

struct pge_watch; /* watch.c */
struct pge_admin; /* admin.c */

struct pge_supervisor {
    char **argv; /* borrowed: main's */
    uv_loop_t uv;
    struct pge_loop loop;
    uv_signal_t signals[3]; /* TERM, INT, HUP */
    struct pge_supervisor_options options;
    struct pge_worker *workers[PGE_MAX_WORKERS]; /* owned */
    unsigned worker_count;
    bool is_configured; /* the first HELLO has come */
    bool is_stopping;
    int exit_status;
    unsigned last_attempt;
    uint32_t last_ping, last_hold;
    uint64_t started_ms, pinged_ms;
    struct pge_timer ping, patience; /* until the next ping; until stopping becomes killing */
    struct pge_list sockets;         /* struct pge_held */
    struct pge_counts *counts;       /* owned, shared with the workers */
    int counts_fd;                   /* owned: of that memory */
    int program_fd;                  /* owned: this program, even when its file is replaced */
    struct pge_reload reload;
    struct pge_committed committed;
    struct pge_outcome outcome;
    struct pge_watch *watch; /* NULL: none */
    struct pge_admin *admin; /* NULL: none */
    struct pge_buf told;     /* addresses told on stderr, each with a newline */
};

/* ---- say.c: stderr, a line at a time ---- */

/* "perigee: level: ..."; level NULL: "perigee: ...". */
void pge_say(const char *level, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* ---- options.c ---- */

void pge_options_default(struct pge_supervisor_options *options);
/* Lines of a HELLO. Those it does not know are left alone. */
void pge_options_read(struct pge_supervisor_options *options, struct pge_span lines);

/* ---- supervise.c ---- */

static inline uint64_t pge_supervisor_now(const struct pge_supervisor *s) {
    return pge_loop_now(&s->loop);
}
int64_t pge_wall_ms(void);
/* The command line is known: opens what it asks for. */
void pge_supervisor_configure(struct pge_supervisor *s, struct pge_span hello);
/* Tells the workers to end. drains: what runs is answered first. */
void pge_supervisor_stop(struct pge_supervisor *s, bool drains, int exit_status);
/* A worker's process is gone, and all that was of it. */
void pge_supervisor_worker_gone(struct pge_supervisor *s);
/* The first generation serves. */
void pge_supervisor_first(struct pge_supervisor *s);

/* ---- worker.c: its process ---- */

struct pge_worker *pge_worker_new(struct pge_supervisor *s, unsigned index); /* NULL: no memory */
void pge_worker_free(struct pge_worker *w);
/* Starts its process; one that cannot start is tried again later. */
void pge_worker_start(struct pge_worker *w);
/* why: for the log; NULL: its death says enough. */
void pge_worker_kill(struct pge_worker *w, const char *why);
/* One of its handles is closed. */
void pge_worker_handle_closed(struct pge_worker *w);
/* Asks how it is; the answer comes as a PONG. */
void pge_worker_ping(struct pge_worker *w, bool wants_status);
/* Kills it when it has been silent for too long. False: it owes an answer. */
bool pge_worker_is_well(struct pge_worker *w, bool may_be_late);

/* ---- talk.c: what it is told and says ---- */

static inline bool pge_worker_serves(const struct pge_worker *w) {
    return w->generation != 0 && !w->is_ending;
}
/* Gives it the committed generation, if it has another and does nothing else. */
void pge_worker_sync(struct pge_worker *w);
/* PREPARE, as attempt. target: the generation that makes; 0: the reload's that runs. limit_ms: how
 * long it may take; 0: no limit. */
void pge_worker_load(struct pge_worker *w, unsigned attempt, struct pge_span bundle,
                     unsigned target, uint64_t limit_ms);
void pge_worker_on_deadline(struct pge_timer *timer);
void pge_worker_swap(struct pge_worker *w, unsigned generation);
/* Drops what it loads. */
void pge_worker_abort(struct pge_worker *w);
/* It does nothing any more but serve: more may be asked of it. */
void pge_worker_rest(struct pge_worker *w);
/* What it said. */
void pge_worker_hear(struct pge_worker *w, enum pge_frame_type type, uint32_t number,
                     struct pge_span payload);

/* ---- control.c ---- */

/* Takes over fd. 0 or a negative code; then fd is closed. */
int pge_control_open(struct pge_worker *w, int fd);
void pge_control_send(struct pge_worker *w, enum pge_frame_type type, uint32_t number,
                      struct pge_span payload);

/* ---- sockets.c ---- */

int pge_door_open(struct pge_worker *w, int fd);
void pge_door_close(struct pge_worker *w);
/* The worker is dead: its holds are no more. */
void pge_sockets_forget(struct pge_supervisor *s, const struct pge_worker *w);
/* Closes what no worker has and none is to come for. */
void pge_sockets_sweep(struct pge_supervisor *s);
void pge_sockets_close(struct pge_supervisor *s);

/* ---- bundle.c ---- */

/* The next file of a bundle, from *at on. False: there is none. Spans borrowed. */
bool pge_bundle_next(struct pge_span bundle, size_t *at, struct pge_span *path,
                     struct pge_span *text);
/* Whether the files on disk are those of the bundle, byte for byte. */
bool pge_bundle_is_on_disk(struct pge_span bundle);

/* ---- reload.c ---- */

void pge_reload_init(struct pge_reload *r);
void pge_reload_deinit(struct pge_reload *r);
/* Starts one, or has one follow the one that runs. asker may be NULL. */
void pge_reload_ask(struct pge_supervisor *s, enum pge_cause cause, struct pge_asker *asker);
/* READY, FAILED or DONE of what it loads for the reload that runs. */
void pge_reload_heard(struct pge_worker *w, enum pge_frame_type type, struct pge_span payload);
/* It did not answer in time. */
void pge_reload_late(struct pge_worker *w);
/* Its process is gone; is still in the state it died in. */
void pge_reload_worker_died(struct pge_worker *w);
/* A worker rests: a reload that waited may begin. */
void pge_reload_advance(struct pge_supervisor *s);
/* Takes what DONE says. */
void pge_reload_note_done(struct pge_worker *w, struct pge_span payload);
/* How long a load may take, by the options. */
uint64_t pge_reload_limit_ms(const struct pge_supervisor *s);
/* Refuses what runs and what waits. */
void pge_reload_cancel(struct pge_supervisor *s, const char *why);

/* ---- watch.c ---- */

/* NULL: out of memory. */
struct pge_watch *pge_watch_new(struct pge_supervisor *s);
void pge_watch_free(struct pge_watch *watch);
/* The committed bundle has changed: watches its files. */
void pge_watch_follow(struct pge_watch *watch);

/* ---- admin.c ---- */

/* NULL: it was said why; *is_fatal: the operator asked for what cannot be had. */
struct pge_admin *pge_admin_open(struct pge_supervisor *s, bool *is_fatal);
/* Gone in a later turn. */
void pge_admin_close(struct pge_admin *admin);
/* How a reload ended: error NULL (the reload's report tells more), or what was wrong and the HTTP
 * status that says so. */
void pge_admin_answer(struct pge_supervisor *s, struct pge_asker *asker, unsigned old_generation,
                      const char *error, int status);
/* A worker has told how it is. */
void pge_admin_heard(struct pge_admin *admin);

/* Its address, on stderr. */
void pge_admin_tell(const struct pge_admin *admin);

/* admin_address.c: where it is, from the option; path: of a unix socket, else "". 0 or a negative
 * code. */
int pge_admin_address(const char *asked, struct pge_endpoint *at, char *path, size_t size);

/* status.c: the JSON of GET /status. 0 or UV_ENOMEM. */
int pge_status_write(struct pge_supervisor *s, struct pge_buf *out);

#endif
