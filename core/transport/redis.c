/*
 * redis.c - Nest's Redis transport (nest-wire 3): JSON packets published on channels named after
 * the pattern, replies on the same name with ".reply".
 *
 *   client: SUBSCRIBE echo.reply -> acknowledged -> PUBLISH echo {...}   <- echo.reply {...}
 *   server: SUBSCRIBE echo                          <- echo {...}        -> PUBLISH echo.reply
 * {...}
 */
#include "transport/redis.h"

/* What a channel's name may add to a payload, in one reply. */
enum { NAME_BYTES = 65536 };

void pge_redis_read_options(const struct pge_settings *settings, struct pge_tls *tls,
                            uint64_t connect_timeout_ms, size_t max_bytes,
                            struct pge_redis_options *out) {
    struct pge_redis_login login = {
        .username = pge_settings_text(settings, "username"),
        .password = pge_settings_text(settings, "password"),
        .connection_name = pge_settings_text(settings, "connection_name"),
        .db = (unsigned)pge_settings_number(settings, "db", 0),
        .connect_timeout_ms = connect_timeout_ms,
        .ping_ms = (uint64_t)pge_settings_number(settings, "ping_interval", 15000),
        .max_bytes = max_bytes + NAME_BYTES,
    };
    *out = (struct pge_redis_options){
        .login = login,
        .tls = tls,
        .sentinel_name = pge_settings_text(settings, "name"),
        .sentinel_login = login,
        .sentinel_tls = pge_settings_flag(settings, "enable_tls_for_sentinel_mode"),
    };
    out->sentinel_login.username = pge_settings_text(settings, "sentinel_username");
    out->sentinel_login.password = pge_settings_text(settings, "sentinel_password");
    out->sentinel_login.db = 0;
    out->sentinel_login.max_bytes = NAME_BYTES;
}

struct pge_target pge_redis_target(const struct pge_host_options *at) {
    return (struct pge_target){
        .host = at->host, .port = at->port, .path = at->path, .server_name = at->server_name};
}

static const struct pge_broker broker = {
    .check_route = pge_redis_check_route,
    .link_resume = pge_redis_link_resume,
    .peer_dial = pge_redis_peer_dial,
    .peer_hangup = pge_redis_peer_hangup,
    .peer_subscribe = pge_redis_peer_subscribe,
    .peer_unsubscribe = pge_redis_peer_unsubscribe,
    .peer_leave = pge_redis_peer_leave,
    .peer_settle = pge_redis_peer_settle,
};

const struct pge_transport pge_transport_redis = {
    .name = "redis",
    .broker = &broker,
    .link_size = sizeof(struct pge_redis_link),
    .link_connect = pge_redis_link_connect,
    .link_send = pge_redis_link_send,
    .link_emit = pge_redis_link_emit,
    .link_forget = pge_redis_link_forget,
    .link_queued = pge_redis_link_queued,
    .link_close = pge_redis_link_close,
    .serve = pge_broker_serve,
    .pause = pge_broker_pause,
    .unserve = pge_broker_unserve,
    .address = pge_broker_address,
    .peer_size = sizeof(struct pge_redis_peer),
    .peer_reply = pge_redis_peer_reply,
    .peer_no_handler = pge_redis_peer_no_handler,
    .peer_queued = pge_redis_peer_queued,
    .peer_taken = pge_redis_peer_taken,
    .peer_read = pge_redis_peer_read,
    .peer_probe = pge_redis_peer_probe,
    .peer_name = pge_redis_peer_name,
    .peer_close = pge_redis_peer_close,
};
