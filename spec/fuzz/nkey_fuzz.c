/* nkey_fuzz.c - creds files and seeds of any bytes: parts lie within the text, a seed that is taken
 * signs. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "codec/nkey.h"

static void must(int condition) {
    if (!condition)
        abort();
}

static void try_seed(struct pge_span seed) {
    struct pge_nkey key;
    const char *why = NULL;
    char signature[PGE_NKEY_SIGNATURE_LEN + 1];
    if (pge_nkey_init(&key, seed, &why) != 0) {
        must(why != NULL);
        return;
    }
    must(strlen(key.public_key) == PGE_NKEY_PUBLIC_LEN && key.public_key[0] == 'U');
    must(pge_nkey_sign(&key, (struct pge_span){"nonce", 5}, signature) == 0);
    must(strlen(signature) == PGE_NKEY_SIGNATURE_LEN);
    pge_nkey_deinit(&key);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct pge_span text = {(const char *)data, size}, jwt, seed;
    const char *why = NULL;
    if (size == 0)
        return 0;
    try_seed(text);
    if (pge_nkey_read_creds(text, &jwt, &seed, &why) == 0) {
        must(jwt.p >= text.p && jwt.p + jwt.n <= seed.p && seed.p + seed.n <= text.p + text.n);
        try_seed(seed);
    } else {
        must(why != NULL);
    }
    return 0;
}
