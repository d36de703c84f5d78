/* child.c - what a worker is before any Lua runs, and how it asks for sockets. */
#include "supervisor/child.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/socket.h"
#include "supervisor/protocol.h"

/* The supervisor answers at once, unless it is gone. */
enum { REPLY_MS = 5000 };

/* Connections beyond those of another worker that are no reason to leave it the next one. */
enum { SLACK = 4 };

/* Of the process, as its descriptors are. */
static struct {
    struct pge_sockets sockets; /* first */
    struct pge_counts *counts;  /* shared with all; NULL: could not be mapped */
    unsigned index;             /* ours among them */
    unsigned workers;
    uint32_t serial;
} child;

static void on_signal(int number) {
    (void)number;
}

/* A terminal's Ctrl-C comes to all; the supervisor says what it means. A handler and not SIG_IGN,
 * which programs started by scripts would inherit. */
static void leave_signals_to_supervisor(void) {
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
}

bool pge_child_begin(void) {
    const char *text = getenv(PGE_WORKER_ENV);
    if (!text)
        return false;
    leave_signals_to_supervisor();
    prctl(PR_SET_NAME, "perigee"); /* exec has named it after a descriptor */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    int parent;
    if (sscanf(text, "%d %u", &parent, &child.index) != 2 || getppid() != parent ||
        child.index >= PGE_MAX_WORKERS)
        _exit(1);
    unsetenv(PGE_WORKER_ENV);
    fcntl(PGE_CONTROL_FD, F_SETFD, FD_CLOEXEC);
    fcntl(PGE_DOOR_FD, F_SETFD, FD_CLOEXEC);
    void *counts =
        mmap(NULL, sizeof *child.counts, PROT_READ | PROT_WRITE, MAP_SHARED, PGE_COUNTS_FD, 0);
    child.counts = counts == MAP_FAILED ? NULL : counts;
    close(PGE_COUNTS_FD);
    close(PGE_PROGRAM_FD);
    return true;
}

/* The descriptor beside a reply; -1: none. */
static int descriptor_of(struct msghdr *message) {
    struct cmsghdr *head = CMSG_FIRSTHDR(message);
    int fd = -1;
    if (head && head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_RIGHTS)
        memcpy(&fd, CMSG_DATA(head), sizeof fd);
    return fd;
}

/* The next reply, waiting for it until due_ms. 0 or a negative code. */
static int receive(struct pge_door_reply *reply, int *fd, uint64_t due_ms) {
    union {
        struct cmsghdr head; /* for its alignment */
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec bytes = {reply, sizeof *reply};
    struct msghdr message = {.msg_iov = &bytes,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof control.bytes};
    for (;;) {
        ssize_t n = recvmsg(PGE_DOOR_FD, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        if (n == (ssize_t)sizeof *reply) {
            *fd = descriptor_of(&message);
            return 0;
        }
        if (n >= 0)
            return UV_ECONNRESET;
        if (errno != EAGAIN && errno != EINTR)
            return uv_translate_sys_error(errno);
        uint64_t now = uv_hrtime() / 1000000;
        if (now >= due_ms)
            return UV_ETIMEDOUT;
        struct pollfd wait = {.fd = PGE_DOOR_FD, .events = POLLIN};
        poll(&wait, 1, (int)(due_ms - now));
    }
}

static int ask(const struct pge_door_request *request, struct pge_door_reply *reply, int *fd) {
    uint64_t due_ms = uv_hrtime() / 1000000 + REPLY_MS;
    if (send(PGE_DOOR_FD, request, sizeof *request, MSG_NOSIGNAL) < 0)
        return uv_translate_sys_error(errno);
    int status = receive(reply, fd, due_ms);
    while (status == 0 && reply->serial != request->serial) { /* of a request given up long ago */
        if (*fd >= 0)
            close(*fd);
        status = receive(reply, fd, due_ms);
    }
    if (status == 0 && reply->status == 0 && *fd < 0)
        return UV_EMFILE; /* the kernel had no room for it here */
    return status < 0 ? status : reply->status;
}

static void child_count(struct pge_sockets *sockets, uint32_t accepted) {
    (void)sockets;
    if (child.counts)
        atomic_store_explicit(&child.counts->open[child.index], accepted, memory_order_relaxed);
}

static bool child_has_more(const struct pge_sockets *sockets, uint32_t accepted) {
    (void)sockets;
    for (unsigned i = 0; child.counts && i < child.workers; i++) {
        uint32_t other = atomic_load_explicit(&child.counts->open[i], memory_order_relaxed);
        if (other != UINT32_MAX && accepted > other + other / 8 + SLACK)
            return true;
    }
    return false;
}

static int child_open(struct pge_sockets *sockets, const struct sockaddr *at, int backlog,
                      uint32_t *hold) {
    struct pge_door_request request = {.op = PGE_DOOR_LISTEN, .backlog = backlog};
    struct pge_door_reply reply = {0};
    int fd = -1;
    request.serial = ++child.serial;
    memcpy(&request.at, at, pge_sockaddr_size(at));
    int status = ask(&request, &reply, &fd);
    if (status < 0)
        return status;
    *hold = reply.hold;
    uint32_t none = UINT32_MAX; /* newcomers are welcome from here on */
    if (child.counts)
        atomic_compare_exchange_strong(&child.counts->open[child.index], &none, 0);
    child.workers = reply.workers < PGE_MAX_WORKERS ? reply.workers : PGE_MAX_WORKERS;
    sockets->are_shared = child.workers > 1;
    return fd;
}

static void child_close(struct pge_sockets *sockets, uint32_t hold) {
    struct pge_door_request request = {.op = PGE_DOOR_CLOSED, .hold = hold};
    (void)sockets;
    send(PGE_DOOR_FD, &request, sizeof request, MSG_NOSIGNAL);
}

struct pge_sockets *pge_child_sockets(void) {
    child.sockets =
        (struct pge_sockets){child_open, child_close, child_count, child_has_more, false};
    return &child.sockets;
}
