/*
 * nkey.h - the ed25519 keys by which users of NATS log in: a seed's text read, the server's nonce
 * signed, a .creds file taken apart (nest-wire 4.1 `authenticator`, NAT-17).
 *
 *   seed "SUAAAAICAM..." -> public key "UAB2CB57..." and sign("nonce") -> CONNECT's nkey and sig
 */
#ifndef PGE_CODEC_NKEY_H
#define PGE_CODEC_NKEY_H

#include <stddef.h>

#include "base/buffer.h"

#define PGE_NKEY_PUBLIC_LEN 56
#define PGE_NKEY_SIGNATURE_LEN 86
/* Longest nonce that is signed; servers send about 15 bytes. */
#define PGE_NKEY_NONCE_MAX 1024

struct pge_nkey {
    void *secret; /* owned: OpenSSL's EVP_PKEY */
    char public_key[PGE_NKEY_PUBLIC_LEN + 1];
};

/*
 * seed: a user's, "SU..."; white space around it is allowed. 0, UV_EINVAL (*why says it, static
 * text that does not quote the seed), UV_ENOTSUP (no OpenSSL: *why) or UV_ENOMEM. After a failure
 * there is nothing to deinit.
 */
int pge_nkey_init(struct pge_nkey *key, struct pge_span seed, const char **why);
void pge_nkey_deinit(struct pge_nkey *key); /* all-zero is fine */

/* Writes the nonce's signature, NUL-terminated, as servers take it: base64 in URLs' letters,
 * without padding. 0, UV_EINVAL (no nonce, or too long) or UV_ENOMEM. */
int pge_nkey_sign(const struct pge_nkey *key, struct pge_span nonce,
                  char out[PGE_NKEY_SIGNATURE_LEN + 1]);

/*
 * Finds the two parts of a .creds file, each one line between lines of dashes; borrowed from text.
 * The JWT is made of letters that need no escape in JSON. 0, or UV_EINVAL with *why set.
 */
int pge_nkey_read_creds(struct pge_span text, struct pge_span *jwt, struct pge_span *seed,
                        const char **why);

#endif
