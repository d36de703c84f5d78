/*
 * protocol.h - what a supervisor and its workers say to each other, over two socket pairs.
 *
 * fd 3, a stream of frames: length of the payload, type, number; integers little-endian.
 *
 *   worker                                supervisor
 *   HELLO options            -------->
 *                            <--------    PREPARE number, bundle ("": load from disk)
 *   READY number, bundle     -------->                     or FAILED number, exit status, text
 *                            <--------    COMMIT number, or ABORT number
 *   DONE number, addresses   -------->
 *                            <--------    PING number;  STOP drain timeout in ms
 *   PONG number, JSON        -------->
 *
 * fd 5, memory that all share: how many connections each worker has accepted (struct pge_counts).
 *
 * fd 6, the program itself, which the worker was made of.
 *
 * fd 4, one packet each way at a time, asked by the worker: listening sockets (struct
 * pge_door_request, pge_door_reply with the descriptor beside it).
 */
#ifndef PGE_SUPERVISOR_PROTOCOL_H
#define PGE_SUPERVISOR_PROTOCOL_H

#include <stdatomic.h>
#include <stdint.h>
#include <sys/socket.h>

enum { PGE_CONTROL_FD = 3, PGE_DOOR_FD = 4, PGE_COUNTS_FD = 5, PGE_PROGRAM_FD = 6 };

/* "supervisor's process id, worker's index", in the environment of a worker and of nobody else. */
#define PGE_WORKER_ENV "PERIGEE_WORKER"

enum pge_frame_type {
    PGE_HELLO = 'H',   /* lines "name value": workers, admin, watch, drain_timeout, ... */
    PGE_PREPARE = 'P', /* number of the attempt */
    PGE_READY = 'R',   /* "same report-length error-length\n", then these and the bundle */
    PGE_FAILED = 'F',  /* "exit status\n", then the error as it is told on stderr */
    PGE_COMMIT = 'C',
    PGE_ABORT = 'A',
    PGE_DONE = 'D', /* addresses, each with a newline; a newline */
    PGE_STOP = 'S', /* number: the drain timeout in ms */
    PGE_PING = '?', /* payload: "status" if that is wanted */
    PGE_PONG = '!', /* number of the ping; JSON of the worker's status, if wanted */
};

enum {
    PGE_FRAME_HEAD = 9,
    PGE_MAX_BUNDLE = 16 * 1024 * 1024,
    PGE_MAX_FRAME = PGE_MAX_BUNDLE + 4096,
};

/*
 * A bundle is what a generation was made of: records "kind length length LF first second". Kind
 * "script": path, number in decimal; then each of its files, kind "file": path, text.
 */

enum { PGE_MAX_WORKERS = 256 };

/* By index of the worker, from 0. UINT32_MAX: it accepts none. */
struct pge_counts {
    _Atomic uint32_t open[PGE_MAX_WORKERS];
};

enum pge_door_op { PGE_DOOR_LISTEN, PGE_DOOR_CLOSED };

struct pge_door_request {
    uint32_t op;
    uint32_t serial; /* echoed */
    uint32_t hold;   /* PGE_DOOR_CLOSED: of the socket; there is no reply */
    int32_t backlog;
    struct sockaddr_storage at;
};

struct pge_door_reply {
    int32_t status; /* 0 and a descriptor, or a negative code */
    uint32_t serial;
    uint32_t hold;
    uint32_t workers; /* that share it */
};

#endif
