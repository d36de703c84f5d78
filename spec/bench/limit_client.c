/*
 * limit_client.c - the limit of a client: what calls over Nest's TCP cost in sockets alone. One
 * connection, whole reads, one write per turn, a scan for the id; no engine around it: no checks,
 * no timeouts, no bounds, no Lua.
 *
 *   limit_client PORT IN_FLIGHT    says "ready"; to a line of milliseconds, the calls made
 */
#include "wire.h"

enum { MAX_IN_FLIGHT = 4096, ID_DIGITS = 21 };

/* What send.lua and send_client.js send. */
static const char data[] = "{\"orderId\":\"ord_42\",\"amount\":1999,\"currency\":\"EUR\","
                           "\"customer\":\"cus_9f3b21\",\"paid\":false}";

static struct conn *service;
static uint64_t made, stop_at;
static unsigned in_flight, waiting;
static bool is_waiting[MAX_IN_FLIGHT];

static void ask(unsigned id) {
    static const char head[] = "{\"pattern\":{\"cmd\":\"charge\"},\"data\":";
    char tail[] = ",\"id\":\"000000000000000000000\"}";
    write_decimal(tail + sizeof tail - 3, id);
    append_length(&service->out, sizeof head - 1 + sizeof data - 1 + sizeof tail - 1);
    append(&service->out, head, sizeof head - 1);
    append(&service->out, data, sizeof data - 1);
    append(&service->out, tail, sizeof tail - 1);
    is_waiting[id] = true;
    waiting++;
    made++;
}

/* {"response":R,"isDisposed":true,"id":"…"}: the id is at the end. */
static unsigned read_id(const char *packet, size_t len) {
    unsigned id = 0;
    for (const char *p = packet + len - 2 - ID_DIGITS; *p >= '0' && *p <= '9'; p++)
        id = id * 10 + (unsigned)(*p - '0');
    if (id >= in_flight || !is_waiting[id])
        die("unknown id");
    is_waiting[id] = false;
    waiting--;
    return id;
}

static void on_ready(void) {
    size_t pos = 0, at_len, len, need;
    const char *at, *packet;
    bool drained = false, goes_on = now_ns() < stop_at;
    while (!drained) {
        int got = receive(service, &at, &at_len, &drained);
        if (got < 0)
            die("recv");
        if (got == 0)
            return;
        for (pos = 0; next_frame(at, at_len, &pos, &packet, &len, &need) > 0;) {
            unsigned id = read_id(packet, len);
            if (goes_on)
                ask(id);
        }
        keep(service, at, at_len, pos, need);
    }
}

static uint64_t measure(int poll, unsigned ms) {
    struct epoll_event ready;
    made = 0;
    stop_at = now_ns() + (uint64_t)ms * 1000000;
    for (unsigned i = 0; i < in_flight; i++)
        ask(i);
    while (waiting) {
        if (!flush(service))
            die("send");
        if (epoll_wait(poll, &ready, 1, -1) < 1)
            continue;
        if (ready.events & EPOLLOUT)
            service->is_full = false;
        on_ready();
    }
    return made;
}

int main(int argc, char **argv) {
    char line[32];
    if (argc < 3 || (in_flight = (unsigned)atoi(argv[2])) > MAX_IN_FLIGHT)
        return 2;
    int poll = epoll_create1(0), fd = dial(atoi(argv[1]));
    unblock(fd);
    service = new_conn(poll, fd);
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        printf("%llu\n", (unsigned long long)measure(poll, (unsigned)atoi(line)));
        fflush(stdout);
    }
}
