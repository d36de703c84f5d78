/*
 * nkey.c - a seed is base32 of: two bytes that say "seed" and whose, 32 random bytes, and a CRC16.
 * A public key is base32 of: one byte that says whose, 32 bytes, and a CRC16.
 */
#include "codec/nkey.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include <uv.h>

#include "base/openssl.h"

#define RAW_LEN 32
#define SEED_BYTES (2 + RAW_LEN + 2)
#define PUBLIC_BYTES (1 + RAW_LEN + 2)
#define SEED_LEN 58
#define SIGNATURE_BYTES 64

#define PREFIX_SEED (18 << 3) /* 'S' */
#define PREFIX_USER (20 << 3) /* 'U' */

static const char base32[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
static const char base64_url[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/* CRC-16/XMODEM */
static uint16_t crc16(const unsigned char *p, size_t n) {
    unsigned crc = 0;
    for (; n > 0; n--, p++) {
        crc ^= (unsigned)*p << 8;
        for (int bit = 0; bit < 8; bit++)
            crc = (crc & 0x8000 ? crc << 1 ^ 0x1021 : crc << 1) & 0xffff;
    }
    return (uint16_t)crc;
}

/* The text of n bytes in letters that hold `bits` each, NUL-terminated. */
static void encode(const char *letters, unsigned bits, const unsigned char *bytes, size_t n,
                   char *out) {
    unsigned held = 0, left = 0, mask = (1u << bits) - 1;
    for (size_t i = 0; i < n; i++) {
        held = held << 8 | bytes[i];
        for (left += 8; left >= bits; left -= bits)
            *out++ = letters[held >> (left - bits) & mask];
    }
    if (left)
        *out++ = letters[held << (bits - left) & mask];
    *out = '\0';
}

static bool decode_seed(struct pge_span text, unsigned char bytes[SEED_BYTES]) {
    unsigned held = 0, left = 0;
    size_t at = 0;
    if (text.n != SEED_LEN)
        return false;
    for (size_t i = 0; i < text.n; i++) {
        const char *letter = text.p[i] ? strchr(base32, text.p[i]) : NULL;
        if (!letter)
            return false;
        held = (held << 5 | (unsigned)(letter - base32)) & 0xfff;
        left += 5;
        if (left >= 8) {
            left -= 8;
            bytes[at++] = (unsigned char)(held >> left);
        }
    }
    return true;
}

static bool is_space(char c) {
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static struct pge_span trim(struct pge_span text) {
    while (text.n && is_space(text.p[0])) {
        text.p++;
        text.n--;
    }
    while (text.n && is_space(text.p[text.n - 1]))
        text.n--;
    return text;
}

/* 0 with the 32 secret bytes at bytes + 2, or UV_EINVAL. */
static int read_seed(struct pge_span text, unsigned char bytes[SEED_BYTES], const char **why) {
    if (!decode_seed(trim(text), bytes)) {
        *why = "An nkey seed has 58 letters of A-Z and 2-7";
        return UV_EINVAL;
    }
    unsigned crc = crc16(bytes, SEED_BYTES - 2);
    if (bytes[SEED_BYTES - 2] != (crc & 0xff) || bytes[SEED_BYTES - 1] != crc >> 8) {
        *why = "The nkey seed is damaged: its checksum does not fit";
        return UV_EINVAL;
    }
    unsigned owner = (bytes[0] & 7u) << 5 | (bytes[1] & 0xf8u) >> 3;
    if ((bytes[0] & 0xf8u) != PREFIX_SEED || owner != PREFIX_USER) {
        *why = "The nkey is not the seed of a user: that begins with SU";
        return UV_EINVAL;
    }
    return 0;
}

static bool write_public_key(EVP_PKEY *secret, char out[PGE_NKEY_PUBLIC_LEN + 1]) {
    unsigned char bytes[PUBLIC_BYTES] = {PREFIX_USER};
    size_t n = RAW_LEN;
    if (EVP_PKEY_get_raw_public_key(secret, bytes + 1, &n) != 1)
        return false;
    unsigned crc = crc16(bytes, PUBLIC_BYTES - 2);
    bytes[PUBLIC_BYTES - 2] = (unsigned char)crc;
    bytes[PUBLIC_BYTES - 1] = (unsigned char)(crc >> 8);
    encode(base32, 5, bytes, PUBLIC_BYTES, out);
    return true;
}

int pge_nkey_init(struct pge_nkey *key, struct pge_span seed, const char **why) {
    unsigned char bytes[SEED_BYTES];
    *key = (struct pge_nkey){0};
    int status = read_seed(seed, bytes, why);
    if (status == 0)
        status = pge_openssl_load(why);
    if (status == 0) {
        key->secret = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, bytes + 2, RAW_LEN);
        if (!key->secret || !write_public_key(key->secret, key->public_key)) {
            pge_nkey_deinit(key);
            status = UV_ENOMEM;
        }
    }
    explicit_bzero(bytes, sizeof(bytes));
    return status;
}

void pge_nkey_deinit(struct pge_nkey *key) {
    if (key->secret)
        EVP_PKEY_free(key->secret);
    *key = (struct pge_nkey){0};
}

int pge_nkey_sign(const struct pge_nkey *key, struct pge_span nonce,
                  char out[PGE_NKEY_SIGNATURE_LEN + 1]) {
    unsigned char signature[SIGNATURE_BYTES];
    size_t n = sizeof(signature);
    if (nonce.n == 0 || nonce.n > PGE_NKEY_NONCE_MAX)
        return UV_EINVAL;
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    bool is_done = md && EVP_DigestSignInit(md, NULL, NULL, NULL, key->secret) == 1 &&
                   EVP_DigestSign(md, signature, &n, (const unsigned char *)nonce.p, nonce.n) == 1;
    EVP_MD_CTX_free(md);
    if (!is_done)
        return UV_ENOMEM;
    encode(base64_url, 6, signature, sizeof(signature), out);
    return 0;
}

/* ---- .creds ---- */

static struct pge_span next_line(struct pge_span *rest) {
    const char *feed = memchr(rest->p, '\n', rest->n);
    struct pge_span line = {rest->p, feed ? (size_t)(feed - rest->p) : rest->n};
    size_t taken = line.n + (feed ? 1 : 0);
    *rest = (struct pge_span){rest->p + taken, rest->n - taken};
    return trim(line);
}

static bool is_fence(struct pge_span line) {
    return line.n >= 6 && memcmp(line.p, "---", 3) == 0 &&
           memcmp(line.p + line.n - 3, "---", 3) == 0;
}

static bool is_jwt(struct pge_span text) {
    unsigned dots = 0;
    for (size_t i = 0; i < text.n; i++) {
        if (text.p[i] == '.')
            dots++;
        else if (!text.p[i] || !strchr(base64_url, text.p[i]))
            return false;
    }
    return dots == 2;
}

int pge_nkey_read_creds(struct pge_span text, struct pge_span *jwt, struct pge_span *seed,
                        const char **why) {
    struct pge_span parts[2];
    unsigned count = 0;
    bool is_inside = false;
    while (text.n > 0 && count < 2) {
        struct pge_span line = next_line(&text);
        if (is_fence(line)) {
            is_inside = !is_inside;
        } else if (is_inside && line.n > 0) {
            parts[count++] = line;
            while (text.n > 0 && is_inside) /* to the end of this part */
                is_inside = !is_fence(next_line(&text));
        }
    }
    if (count < 2 || !is_jwt(parts[0])) {
        *why = "A creds file has a JWT and a seed, each between two lines of dashes";
        return UV_EINVAL;
    }
    *jwt = parts[0];
    *seed = parts[1];
    return 0;
}
