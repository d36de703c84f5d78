/* packet.h - Nest's JSON packets (nest-wire 1.1), as TCP, local, Redis, NATS, MQTT and RabbitMQ
 * carry them. */
#ifndef PGE_TRANSPORT_PACKET_H
#define PGE_TRANSPORT_PACKET_H

#include "engine/engine.h"
#include "transport/transport.h"

/* What stands behind the data in a request, beside the id: ,"id":""} */
enum { PGE_PACKET_TAIL = 9 };

/* Each appends one packet, keys in Nest's order; < 0 (as pge_payload.write): out is as before. */
int pge_packet_request(struct pge_buf *out, const struct pge_message *m, struct pge_span id_text);
/* pattern replaces m->pattern when not NULL (TCP sends the route as a JSON string, TCP-15). */
int pge_packet_event(struct pge_buf *out, const struct pge_message *m, struct pge_span pattern);
/* id is raw JSON text (GEN-33). Kinds VALUE, LAST, END, ERROR. */
int pge_packet_reply(struct pge_buf *out, struct pge_span id, enum pge_reply kind,
                     const struct pge_payload *body);
int pge_packet_no_handler(struct pge_buf *out, struct pge_span id);

/*
 * The route of a pattern (JSON, validated here where it is no plain string) as text: what brokers
 * are addressed by (nest-wire 1.3). *out is borrowed from pattern or from engine->address, until
 * the next call. Returns as pge_route; *out is empty when that appends nothing.
 */
int pge_packet_address(struct pge_engine *engine, struct pge_span pattern, struct pge_span *out);

#endif
