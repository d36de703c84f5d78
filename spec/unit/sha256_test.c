/* sha256_test.c - core/codec/sha256.c beside OpenSSL's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <openssl/evp.h>

#include "codec/sha256.h"

static void knows_the_examples_of_the_standard(void **state) {
    static const unsigned char abc[] = {0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea,
                                        0x41, 0x41, 0x40, 0xde, 0x5d, 0xae, 0x22, 0x23,
                                        0xb0, 0x03, 0x61, 0xa3, 0x96, 0x17, 0x7a, 0x9c,
                                        0xb4, 0x10, 0xff, 0x61, 0xf2, 0x00, 0x15, 0xad};
    unsigned char out[PGE_SHA256_SIZE];
    (void)state;
    pge_sha256("abc", 3, out);
    assert_memory_equal(abc, out, sizeof out);
}

static void agrees_at_every_length(void **state) {
    char text[300];
    unsigned char ours[PGE_SHA256_SIZE], theirs[EVP_MAX_MD_SIZE];
    (void)state;
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (char)(i * 37 + i / 7);
    for (size_t n = 0; n <= sizeof text; n++) {
        pge_sha256(text, n, ours);
        assert_int_equal(1, EVP_Digest(text, n, theirs, NULL, EVP_sha256(), NULL));
        assert_memory_equal(theirs, ours, sizeof ours);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(knows_the_examples_of_the_standard),
        cmocka_unit_test(agrees_at_every_length),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
