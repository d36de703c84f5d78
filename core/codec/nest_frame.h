/*
 * nest_frame.h - Nest's TCP frame "LENGTH#PAYLOAD", LENGTH in UTF-16 code units (nest-wire 2.2,
 * TCP-01..10). No I/O; the payload is checked to be UTF-8, not to be JSON.
 *
 *   feed()  12#{"id":1,...}7#{"id"      next() -> slice of the fed bytes: {"id":1,...}
 *           |-- whole frame --|         next() -> 0, and 7#{"id" was copied into `payload`
 */
#ifndef PGE_CODEC_NEST_FRAME_H
#define PGE_CODEC_NEST_FRAME_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buffer.h"

/* Bytes allowed before '#'. */
#define PGE_NEST_FRAME_PREFIX_MAX 256

struct pge_nest_frame {
    const char *in; /* borrowed: fed, unread bytes; or into `parked` */
    size_t in_len;
    struct pge_buf payload; /* owned; the unfinished frame's payload so far */
    struct pge_buf parked;  /* owned; unread bytes kept by feed or park */
    size_t max_units;
    size_t length; /* declared units, once has_length */
    size_t units;  /* units of whole characters in payload */
    unsigned tail; /* bytes of an incomplete character at the end of payload */
    unsigned prefix_len;
    bool has_length;   /* '#' was seen */
    bool is_delivered; /* payload was returned by the last next() */
    int status;        /* the error it is in, or 0 */
    char prefix[PGE_NEST_FRAME_PREFIX_MAX];
    char error[192]; /* message text when status < 0, as Nest words it */
};

/* max_units: largest payload accepted, in UTF-16 units (TCP-10). */
void pge_nest_frame_init(struct pge_nest_frame *f, size_t max_units);
void pge_nest_frame_deinit(struct pge_nest_frame *f);

/*
 * Hands over bytes. They are borrowed until next() has returned 0 or an error, park() was called,
 * or the next feed(); bytes still unread at a feed() are copied, together with the new ones.
 * 0, UV_ENOMEM, or the error the codec is in.
 */
int pge_nest_frame_feed(struct pge_nest_frame *f, const char *data, size_t len);

/*
 * 1: *payload is the next frame's, valid until the next call on f; p is never NULL, n is 0 for a
 * length of zero or below (TCP-08). 0: more bytes are needed. < 0: UV_EPROTO (bad length, invalid
 * UTF-8, a length that cuts a character), UV_EMSGSIZE (declared length above max_units, found
 * before the payload is kept), UV_ENOMEM; f->error says it, the codec stays in that error and holds
 * no memory any more.
 * The length is read as parseInt(text, 10) does, but only ASCII white space is skipped.
 */
int pge_nest_frame_next(struct pge_nest_frame *f, struct pge_span *payload);

/* After next() returned 0: where the rest of an unfinished frame is best read to; what is fed from
 * there is not copied. n 0: nowhere. At most sixteen times what has come of it. */
struct pge_room {
    char *p;
    size_t n;
};
struct pge_room pge_nest_frame_room(struct pge_nest_frame *f);

/* After next() returned 1: the buffer the payload lies in, if that holds nothing else; it may be
 * taken over (and left empty) until the next call on f. NULL: the payload is only borrowed. */
struct pge_buf *pge_nest_frame_loan(struct pge_nest_frame *f);

/* Copies what was fed but not read, so that parsing can pause (TCP-14). 0 or UV_ENOMEM. */
int pge_nest_frame_park(struct pge_nest_frame *f);

/* After next() returned 0: bytes held of an unfinished frame, its length text included; 0 between
 * frames (TCP-11). */
size_t pge_nest_frame_partial(const struct pge_nest_frame *f);

/*
 * Writing: begin, append the payload (valid UTF-8) to out, end. Nothing may be consumed from out
 * in between. units: the payload's length if known, SIZE_MAX to have it counted.
 * 0 or UV_ENOMEM; when end fails, the frame is taken back out of the buffer.
 */
enum { PGE_NEST_FRAME_GAP = 4 }; /* what begin appends */
int pge_nest_frame_begin(struct pge_buf *out, size_t *mark);
int pge_nest_frame_end(struct pge_buf *out, size_t mark, size_t units);

#endif
