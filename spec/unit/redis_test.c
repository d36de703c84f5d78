/*
 * redis_test.c - both ends of the Redis transport while memory runs out, at the first allocation,
 * the second, the third ...: every call ends, everything is given back. The broker is a process of
 * the test's own.
 */
#include "net_support.h"

#include <hiredis/hiredis.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>

#include "engine/broker.h"
#include "engine/pool.h"

/* ---- a broker: PING, SUBSCRIBE, UNSUBSCRIBE, PUBLISH ---- */

enum { MAX_CLIENTS = 32, MAX_CHANNELS = 4, NAME_SIZE = 64 };

struct subscriber {
    redisReader *reader;
    char channels[MAX_CHANNELS][NAME_SIZE];
};

static struct pollfd fds[MAX_CLIENTS]; /* of the child: 0 listens */
static struct subscriber subscribers[MAX_CLIENTS];

static void say(int i, const char *bytes, size_t n) {
    if (write(fds[i].fd, bytes, n) < 0)
        return; /* it is gone, as poll will tell */
}

static void say_array(int i, const char *kind, const redisReply *channel, const redisReply *body) {
    char text[8192];
    int n = snprintf(text, sizeof text, "*3\r\n$%zu\r\n%s\r\n$%zu\r\n%s\r\n", strlen(kind), kind,
                     channel->len, channel->str);
    if (body)
        n += snprintf(text + n, sizeof text - (size_t)n, "$%zu\r\n%s\r\n", body->len, body->str);
    else
        n += snprintf(text + n, sizeof text - (size_t)n, ":1\r\n");
    say(i, text, (size_t)n);
}

static char *find_channel(int i, const char *name) {
    for (int c = 0; c < MAX_CHANNELS; c++)
        if (strcmp(subscribers[i].channels[c], name) == 0)
            return subscribers[i].channels[c];
    return NULL;
}

static void publish(int from, redisReply **args) {
    char text[16];
    int received = 0;
    for (int i = 1; i < MAX_CLIENTS; i++)
        if (fds[i].fd >= 0 && find_channel(i, args[1]->str)) {
            say_array(i, "message", args[1], args[2]);
            received++;
        }
    say(from, text, (size_t)snprintf(text, sizeof text, ":%d\r\n", received));
}

static void carry_out(int i, const redisReply *command) {
    redisReply **args = command->element;
    if (strcmp(args[0]->str, "PUBLISH") == 0) {
        publish(i, args);
    } else if (strcmp(args[0]->str, "SUBSCRIBE") == 0) {
        snprintf(find_channel(i, ""), NAME_SIZE, "%s", args[1]->str);
        say_array(i, "subscribe", args[1], NULL);
    } else if (strcmp(args[0]->str, "UNSUBSCRIBE") == 0) {
        char *channel = find_channel(i, args[1]->str);
        if (channel)
            channel[0] = '\0';
        say_array(i, "unsubscribe", args[1], NULL);
    } else {
        say(i, "+PONG\r\n", 7);
    }
}

static void read_commands(int i) {
    char bytes[4096];
    void *command;
    ssize_t n = read(fds[i].fd, bytes, sizeof bytes);
    if (n <= 0) {
        close(fds[i].fd);
        redisReaderFree(subscribers[i].reader);
        subscribers[i] = (struct subscriber){0};
        fds[i].fd = -1;
        return;
    }
    redisReaderFeed(subscribers[i].reader, bytes, (size_t)n);
    while (redisReaderGetReply(subscribers[i].reader, &command) == REDIS_OK && command) {
        carry_out(i, command);
        freeReplyObject(command);
    }
}

static void be_broker(int listening) {
    for (int i = 0; i < MAX_CLIENTS; i++)
        fds[i] = (struct pollfd){.fd = i ? -1 : listening, .events = POLLIN};
    for (;;) {
        if (poll(fds, MAX_CLIENTS, -1) < 0)
            _exit(1);
        for (int i = 1; i < MAX_CLIENTS; i++)
            if (fds[i].fd >= 0 && fds[i].revents)
                read_commands(i);
        for (int i = 1; i < MAX_CLIENTS && fds[0].revents; i++)
            if (fds[i].fd < 0) {
                fds[i].fd = accept(listening, NULL, NULL);
                subscribers[i].reader = redisReaderCreate();
                break;
            }
    }
}

static pid_t broker;
static uint16_t port;

static int start_broker(void **state) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    (void)state;
    if (bind(fd, (struct sockaddr *)&at, sizeof at) < 0 || listen(fd, 64) < 0 ||
        getsockname(fd, (struct sockaddr *)&at, &size) < 0)
        return -1;
    port = ntohs(at.sin_port);
    broker = fork();
    if (broker == 0)
        be_broker(fd);
    close(fd);
    return broker < 0 ? -1 : 0;
}

static int stop_broker(void **state) {
    (void)state;
    kill(broker, SIGKILL);
    waitpid(broker, NULL, 0);
    return 0;
}

/* ---- both ends in one loop ---- */

struct scene {
    struct rig *rig;
    struct pge_engine engine;
    struct pge_client *client;
    struct pge_server *server;
    struct pge_timer limit;
    bool is_settled, is_ready; /* the server */
    int ended, good;           /* calls */
};

static struct scene *scene;
static uint64_t limit_ms; /* of each wait */

static void wake(void) {
    uv_stop(&scene->rig->uv);
}

static void enter(struct pge_engine *engine, void (*fn)(void *arg), void *arg) {
    (void)engine;
    fn(arg);
}

static void on_packet(struct pge_call *call, enum pge_reply kind, struct pge_span body) {
    (void)call;
    scene->ended++;
    scene->good += kind == PGE_REPLY_END || (body.n == 1 && body.p[0] == '7');
    wake();
}

static void on_fail(struct pge_call *call, enum pge_fault fault, const char *message) {
    (void)call, (void)fault, (void)message;
    scene->ended++;
    wake();
}

static const struct pge_call_events call_events = {on_packet, on_fail};

static void on_client_status(struct pge_client *client, enum pge_client_status status) {
    (void)client, (void)status;
}

static void on_error(struct pge_client *client, const char *message) {
    (void)client, (void)message;
}

static void on_client_closed(struct pge_client *client) {
    (void)client;
}

static void on_raw(struct pge_client *client, struct pge_span packet, struct pge_span id) {
    (void)client, (void)packet, (void)id;
}

static const struct pge_client_events client_events = {on_client_status, on_error, on_client_closed,
                                                       on_raw};

static void on_message(struct pge_server *server, const struct pge_inbound_message *m) {
    struct pge_payload body = {.json = {"7", 1}};
    (void)server;
    if (m->request && pge_request_reply(m->request, PGE_REPLY_LAST, &body) == UV_EINVAL)
        pge_request_fail(m->request, PGE_INVALID_MESSAGE, "no");
}

static void on_gone(struct pge_server *server, struct pge_request *request) {
    (void)server, (void)request;
}

static void on_fault(struct pge_server *server, struct pge_peer *peer, enum pge_fault fault,
                     const char *message) {
    (void)server, (void)peer, (void)fault, (void)message;
}

static void on_server_closed(struct pge_server *server) {
    (void)server;
}

static void on_server_status(struct pge_server *server, enum pge_server_status status,
                             enum pge_fault fault, const char *message) {
    (void)server, (void)fault, (void)message;
    scene->is_settled = true;
    scene->is_ready = status == PGE_SERVER_READY || status == PGE_SERVER_RECONNECTED;
    wake();
}

static const struct pge_server_events server_events = {on_message, on_gone, on_fault,
                                                       on_server_closed, on_server_status};

static void on_limit(struct pge_timer *timer) {
    (void)timer;
    scene->is_settled = true;
    wake();
}

static char *text(const char *from) {
    return pge_strndup(from, strlen(from));
}

static struct pge_pool_options pool_options(void) {
    struct pge_pool_options o = {
        .transport = pge_transport_find("redis"),
        .key = text("k"),
        .host_count = 1,
        .connections = 1,
        .connect_timeout_ms = limit_ms,
        .max_frame_units = 4096,
        .max_queued_bytes = 65536,
        .max_pending = 100,
        .max_waiting = 100,
    };
    o.hosts[0] = (struct pge_host_options){.host = text("127.0.0.1"), .port = port};
    return o;
}

static struct pge_server_options server_options(void) {
    struct pge_server_options o = {
        .transport = pge_transport_find("redis"),
        .host_count = 1,
        .connect_timeout_ms = limit_ms,
        .max_frame_units = 4096,
        .max_queued_bytes = 65536,
        .pause_queued_bytes = 65536,
        .write_timeout_ms = 1000,
        .max_peers = 1,
        .max_requests = 100,
    };
    o.hosts[0] = (struct pge_host_options){.host = text("127.0.0.1"), .port = port};
    return o;
}

static void serve(struct pge_server_options *options) {
    struct pge_failure why;
    struct pge_wish wish = {.route = "p"};
    scene->server = pge_server_new(&scene->engine, options, &server_events, scene, &why);
    if (!scene->server || pge_server_subscribe(scene->server, &wish, 1, &why) < 0)
        return;
    pge_loop_timer(&scene->rig->loop, &scene->limit, limit_ms);
    rig_until(scene->rig, scene->is_settled);
    pge_loop_timer_stop(&scene->rig->loop, &scene->limit);
}

/* Two requests and an event; each ends. */
static void ask(struct pge_pool_options *options) {
    struct pge_message m = {.pattern = {"\"p\"", 3}, .data.json = {"1", 1}};
    struct pge_call_options call = {.timeout_ms = limit_ms, .events = &call_events};
    struct pge_failure why;
    scene->client = pge_client_new(&scene->engine, options, &client_events, scene);
    if (!scene->client)
        return;
    for (int i = 0; i < 2; i++)
        if (!pge_client_send(scene->client, &m, &call, &why))
            scene->ended++;
    int status = pge_client_emit(scene->client, &m, &call, &why);
    scene->ended += status != 0;
    scene->good += status > 0;
    rig_until(scene->rig, scene->ended == 3);
}

/* Refuses one allocation, and grants those after it. */
struct refusal {
    struct fail_alloc *alloc;
    size_t left; /* until it */
    bool was_made;
};

static void *refuse_once(void *arg, void *ptr, size_t size) {
    struct refusal *refusal = arg;
    if (size && !refusal->was_made && refusal->left-- == 0) {
        refusal->was_made = true;
        return NULL;
    }
    return fail_alloc_hook(refusal->alloc, ptr, size);
}

/* Allocation number `at` fails, and those after it too unless once. Whether there was none such.
 * good: both ends did what they should. */
static bool play(size_t at, bool once, bool *good) {
    struct scene s = {.rig = rig_new()};
    scene = &s;
    struct refusal refusal = {.alloc = &s.rig->alloc, .left = at};
    pge_engine_init(&s.engine, &s.rig->loop);
    s.engine.enter = enter;
    pge_timer_init(&s.limit, on_limit);
    struct pge_pool_options pool = pool_options();
    struct pge_server_options server = server_options();
    if (once)
        pge_alloc_set(refuse_once, &refusal);
    else
        s.rig->alloc.grants = at;
    serve(&server);
    ask(&pool);
    bool had_enough = once ? !refusal.was_made : s.rig->alloc.grants > 0;
    *good = s.is_ready && s.good == 3;
    refusal.was_made = true;
    s.rig->alloc.grants = (size_t)-1;
    if (s.server)
        pge_server_close(s.server);
    if (s.client)
        pge_client_free(s.client);
    rig_finish(s.rig);
    pge_engine_deinit(&s.engine);
    rig_free(s.rig);
    return had_enough;
}

static void play_all(bool once) {
    size_t at = 0;
    bool good;
    limit_ms = 60;
    while (!play(at, once, &good)) {
        at++;
        assert_true(at < 500);
    }
    assert_true(at > 20); /* it did fail along the way */
    limit_ms = 10000;
    assert_true(play((size_t)-1, once, &good));
    assert_true(good);
}

static void ends_every_call_and_leaks_nothing_when_memory_runs_out(void **state) {
    (void)state;
    play_all(false);
}

static void ends_every_call_and_leaks_nothing_when_one_allocation_fails(void **state) {
    (void)state;
    play_all(true);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ends_every_call_and_leaks_nothing_when_memory_runs_out),
        cmocka_unit_test(ends_every_call_and_leaks_nothing_when_one_allocation_fails),
    };
    alarm(120);
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, start_broker, stop_broker);
}
