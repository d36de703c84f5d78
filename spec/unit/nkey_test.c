/* nkey_test.c - core/codec/nkey.c; keys and signatures were made with @nats-io/nkeys 2.0.3. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include <cmocka.h>

#include "codec/nkey.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static const struct {
    const char *seed, *public_key, *nonce, *signature;
} vectors[] = {
    {"SUAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAEQ",
     "UA5WUJ54Z23KILLCUOUNAKTPBVZWKMQVO4O6EQ5GHLAERIMLLHNCTYM5", "nonce",
     "_uIPertIiR6Ipf049QY8Up13z-4XRmLzTuhNgQBCNfZBQCNfCCQ2NrQFe66UdB7iaXdNuOZM5nQMo10ULk-KDQ"},
    {"SUAAAAICAMCAKBQHBAEQUCYMBUHA6EARCIJRIFIWC4MBSGQ3DQOR4H776Y",
     "UAB2CB576PHBBPQ5ODORRZ2LYCMWPZGWGCN2KDK7DXOIMZASKUY3RLKK", "nonce",
     "-HTq4d6DDHVNb8MsTRAZtSIa0vXA_yuZblwTA7JT5wYzmKBxJ2wpYfjHh7hcptZlidbVw_6ZLyubjm_yDk-OCQ"},
    {"SUAAAAICAMCAKBQHBAEQUCYMBUHA6EARCIJRIFIWC4MBSGQ3DQOR4H776Y",
     "UAB2CB576PHBBPQ5ODORRZ2LYCMWPZGWGCN2KDK7DXOIMZASKUY3RLKK", "PXoWU7zWAMt75FY",
     "bnxg5G8aOV2LQdSE_lcM9clxm_fbTTZxsqQ1EpTNgJXmH6z5ezesd49kXfuNhoAqw_DmEtsGcNsJdug9wMuRDQ"},
    {"SUAP77X57T57V6PY673PL5HT6LY7B37O5XWOX2XJ5DT6NZPE4PRODYCLOI",
     "UC5PY4N6VU5MLZFWH2OIEFXOOGRUVLWGK4RO5W6KOKFU5GZ4ZTRZND3N", "PXoWU7zWAMt75FY",
     "5S-otXFVtSj9X3PDEBaS_PT_5_MEBQyFJ7rQBNN-0M798fPv9M9ctkcgI1E-LkuoZ4ZKdnY5MCndMjfJBO2ACQ"},
};

static struct pge_span span(const char *text) {
    return (struct pge_span){text, strlen(text)};
}

static void signs_as_nats_own_library_does(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(vectors); i++) {
        struct pge_nkey key;
        const char *why = NULL;
        char signature[PGE_NKEY_SIGNATURE_LEN + 1];
        assert_int_equal(pge_nkey_init(&key, span(vectors[i].seed), &why), 0);
        assert_string_equal(key.public_key, vectors[i].public_key);
        assert_int_equal(pge_nkey_sign(&key, span(vectors[i].nonce), signature), 0);
        assert_string_equal(signature, vectors[i].signature);
        pge_nkey_deinit(&key);
        pge_nkey_deinit(&key);
    }
}

static void takes_white_space_around_a_seed(void **state) {
    (void)state;
    struct pge_nkey key;
    const char *why = NULL;
    char text[100];
    snprintf(text, sizeof(text), " \t%s\r\n", vectors[0].seed);
    assert_int_equal(pge_nkey_init(&key, span(text), &why), 0);
    assert_string_equal(key.public_key, vectors[0].public_key);
    pge_nkey_deinit(&key);
}

static void assert_refused(const char *seed, const char *part) {
    struct pge_nkey key;
    const char *why = NULL;
    assert_int_equal(pge_nkey_init(&key, span(seed), &why), UV_EINVAL);
    assert_null(key.secret);
    assert_non_null(why);
    if (!strstr(why, part))
        fail_msg("%s: %s", seed, why);
}

static void refuses_what_is_no_seed_of_a_user(void **state) {
    (void)state;
    assert_refused("", "58 letters");
    assert_refused("SUAAAAICAMCAKBQHBAEQUCYMBUHA6EARCIJRIFIWC4MBSGQ3DQOR4H776", "58 letters");
    assert_refused("SUAAAAICAMCAKBQHBAEQUCYMBUHA6EARCIJRIFIWC4MBSGQ3DQOR4H776YA", "58 letters");
    assert_refused("suAAAAICAMCAKBQHBAEQUCYMBUHA6EARCIJRIFIWC4MBSGQ3DQOR4H776Y", "58 letters");
    assert_refused("SUAAAAICAMCAKBQHBAEQUCYMBUHA6EARCIJRIFIWC4MBSGQ3DQOR4H776=", "58 letters");
    assert_refused("SUAAAAICAMCAKBQHBAEQUCYMBUHA6EARCIJRIFIWC4MBSGQ3DQOR4H776A", "checksum");
    assert_refused("SUAAAAICAMCAKBQHBAEQUCYMBUHA6EARCIJRIFIWC4MBSGQ3DQOR5H776Y", "checksum");
    assert_refused("SAAAAAICAMCAKBQHBAEQUCYMBUHA6EARCIJRIFIWC4MBSGQ3DQOR4HYMHI", "SU");
    assert_refused("SOAAAAICAMCAKBQHBAEQUCYMBUHA6EARCIJRIFIWC4MBSGQ3DQOR4H2AJA", "SU");
    assert_refused("SNAAAAICAMCAKBQHBAEQUCYMBUHA6EARCIJRIFIWC4MBSGQ3DQOR4H2D5U", "SU");
    assert_refused("SXAAAAICAMCAKBQHBAEQUCYMBUHA6EARCIJRIFIWC4MBSGQ3DQOR4H74KM", "SU");
}

static void refuses_a_nonce_it_should_not_sign(void **state) {
    (void)state;
    struct pge_nkey key;
    const char *why = NULL;
    char signature[PGE_NKEY_SIGNATURE_LEN + 1], nonce[PGE_NKEY_NONCE_MAX + 1] = {1};
    assert_int_equal(pge_nkey_init(&key, span(vectors[0].seed), &why), 0);
    assert_int_equal(pge_nkey_sign(&key, span(""), signature), UV_EINVAL);
    assert_int_equal(pge_nkey_sign(&key, (struct pge_span){nonce, sizeof(nonce)}, signature),
                     UV_EINVAL);
    assert_int_equal(pge_nkey_sign(&key, (struct pge_span){nonce, sizeof(nonce) - 1}, signature),
                     0);
    pge_nkey_deinit(&key);
}

#define JWT "-----BEGIN NATS USER JWT-----\neyJ0.eyJ_-.c2ln\n------END NATS USER JWT------\n"
#define NOTE "\n************************* IMPORTANT *************************\nkeep it secret\n\n"
#define SEED "-----BEGIN USER NKEY SEED-----\nSUAA\n------END USER NKEY SEED------\n"

/* From memory that ends where the text ends. */
static int read_creds(const char *text, char *out, size_t size) {
    struct pge_span jwt = {0}, seed = {0};
    const char *why = NULL;
    size_t n = strlen(text);
    char *copy = malloc(n ? n : 1);
    memcpy(copy, text, n);
    int status = pge_nkey_read_creds((struct pge_span){copy, n}, &jwt, &seed, &why);
    if (status == 0)
        snprintf(out, size, "%.*s %.*s", (int)jwt.n, jwt.p, (int)seed.n, seed.p);
    else
        assert_non_null(why);
    free(copy);
    return status;
}

static void takes_creds_files_apart(void **state) {
    (void)state;
    const char *const good[] = {
        JWT NOTE SEED,
        JWT SEED,
        "words before\n" JWT NOTE SEED "words after",
        "---x---\r\n eyJ0.eyJ_-.c2ln \r\n---x---\r\n---y---\r\n\r\nSUAA\r\n---y---\r\n",
        JWT "-----BEGIN-----\nSUAA",
    };
    for (size_t i = 0; i < COUNT(good); i++) {
        char found[100];
        assert_int_equal(read_creds(good[i], found, sizeof(found)), 0);
        assert_string_equal(found, "eyJ0.eyJ_-.c2ln SUAA");
    }
    const char *const bad[] = {
        "",
        "\n",
        "SUAA",
        JWT,
        SEED,
        SEED JWT,
        JWT NOTE,
        "---x---\neyJ0.eyJ_\n---x---\n" SEED,    /* one dot */
        "---x---\neyJ0.\"eyJ.x\n---x---\n" SEED, /* would end a JSON string */
        "---x---\neyJ0.eyJ.x y\n---x---\n" SEED,
        "---x---\n---x---\n" SEED,
    };
    for (size_t i = 0; i < COUNT(bad); i++)
        assert_int_equal(read_creds(bad[i], NULL, 0), UV_EINVAL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(signs_as_nats_own_library_does),
        cmocka_unit_test(takes_white_space_around_a_seed),
        cmocka_unit_test(refuses_what_is_no_seed_of_a_user),
        cmocka_unit_test(refuses_a_nonce_it_should_not_sign),
        cmocka_unit_test(takes_creds_files_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
