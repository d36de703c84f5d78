/*
 * nats.c - Nest's NATS transport (nest-wire 4): JSON packets as messages on subjects, which are the
 * patterns' routes.
 */
#include "transport/nats.h"

static const struct pge_broker broker = {
    .check_route = pge_nats_check_route,
    .link_resume = pge_nats_link_resume,
    .peer_dial = pge_nats_peer_dial,
    .peer_hangup = pge_nats_peer_hangup,
    .peer_subscribe = pge_nats_peer_subscribe,
    .peer_unsubscribe = pge_nats_peer_unsubscribe,
    .peer_leave = pge_nats_peer_leave,
    .peer_settle = pge_nats_peer_settle,
};

const struct pge_transport pge_transport_nats = {
    .name = "nats",
    .broker = &broker,
    .link_size = sizeof(struct pge_nats_link),
    .link_connect = pge_nats_link_connect,
    .link_send = pge_nats_link_send,
    .link_emit = pge_nats_link_emit,
    .link_forget = pge_nats_link_forget,
    .link_queued = pge_nats_link_queued,
    .link_close = pge_nats_link_close,
    .serve = pge_broker_serve,
    .pause = pge_broker_pause,
    .unserve = pge_broker_unserve,
    .address = pge_broker_address,
    .peer_size = sizeof(struct pge_nats_peer),
    .peer_reply = pge_nats_peer_reply,
    .peer_no_handler = pge_nats_peer_no_handler,
    .peer_queued = pge_nats_peer_queued,
    .peer_taken = pge_nats_peer_taken,
    .peer_read = pge_nats_peer_read,
    .peer_probe = pge_nats_peer_probe,
    .peer_name = pge_nats_peer_name,
    .peer_close = pge_nats_peer_close,
};
