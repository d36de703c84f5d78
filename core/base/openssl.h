/*
 * openssl.h - OpenSSL's functions, from a library that is loaded when the first of them is needed.
 * Most processes never speak TLS; the library's relocations alone would be a tenth of their start
 * and a quarter of their memory.
 *
 * Instead of <openssl/...>: the names mean what they always mean, after pge_openssl_load.
 */
#ifndef PGE_BASE_OPENSSL_H
#define PGE_BASE_OPENSSL_H

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

/* clang-format off */
#define PGE_OPENSSL_FUNCTIONS(X) \
    X(ASN1_TIME_diff) X(BIO_ctrl_pending) X(BIO_free) X(BIO_new) X(BIO_new_file) X(BIO_new_mem_buf) X(BIO_read) \
    X(BIO_s_mem) X(BIO_write) X(ERR_clear_error) X(ERR_get_error) X(ERR_peek_last_error) \
    X(ERR_reason_error_string) X(EVP_DigestSign) X(EVP_DigestSignInit) X(EVP_MD_CTX_free) \
    X(EVP_MD_CTX_new) X(EVP_PKEY_free) X(EVP_PKEY_get_raw_public_key) \
    X(EVP_PKEY_new_raw_private_key) X(PEM_read_bio_PrivateKey) \
    X(PEM_read_bio_X509) X(SSL_CTX_add_client_CA) X(SSL_CTX_check_private_key) X(SSL_CTX_ctrl) \
    X(SSL_CTX_free) X(SSL_CTX_get0_certificate) X(SSL_CTX_get_cert_store) X(SSL_CTX_new) X(SSL_CTX_set_alpn_protos) \
    X(SSL_CTX_set_alpn_select_cb) X(SSL_CTX_set_default_verify_paths) X(SSL_CTX_set_options) \
    X(SSL_CTX_set_session_id_context) X(SSL_CTX_set_verify) X(SSL_CTX_use_PrivateKey) \
    X(SSL_CTX_use_certificate) X(SSL_ctrl) X(SSL_do_handshake) X(SSL_free) X(SSL_get0_param) \
    X(SSL_get_error) X(SSL_get_rbio) X(SSL_get_verify_result) X(SSL_get_wbio) \
    X(SSL_has_pending) X(SSL_new) X(SSL_read_ex) X(SSL_select_next_proto) X(SSL_set1_host) \
    X(SSL_set_accept_state) X(SSL_set_bio) X(SSL_set_connect_state) X(SSL_set_hostflags) \
    X(SSL_shutdown) X(SSL_write_ex) X(TLS_client_method) X(TLS_server_method) \
    X(X509_STORE_add_cert) X(X509_VERIFY_PARAM_set1_ip_asc) X(X509_free) \
    X(X509_get0_notAfter) X(X509_verify_cert_error_string)
/* clang-format on */

struct pge_openssl {
#define PGE_MEMBER(name) __typeof__(name) *name;
    PGE_OPENSSL_FUNCTIONS(PGE_MEMBER)
#undef PGE_MEMBER
};

extern struct pge_openssl pge_openssl;

#ifndef PGE_OPENSSL_NAMES_ONLY /* openssl.c */
#define ASN1_TIME_diff pge_openssl.ASN1_TIME_diff
#define BIO_ctrl_pending pge_openssl.BIO_ctrl_pending
#define BIO_free pge_openssl.BIO_free
#define BIO_new pge_openssl.BIO_new
#define BIO_new_file pge_openssl.BIO_new_file
#define BIO_new_mem_buf pge_openssl.BIO_new_mem_buf
#define BIO_read pge_openssl.BIO_read
#define BIO_s_mem pge_openssl.BIO_s_mem
#define BIO_write pge_openssl.BIO_write
#define ERR_clear_error pge_openssl.ERR_clear_error
#define ERR_get_error pge_openssl.ERR_get_error
#define ERR_peek_last_error pge_openssl.ERR_peek_last_error
#define ERR_reason_error_string pge_openssl.ERR_reason_error_string
#define EVP_DigestSign pge_openssl.EVP_DigestSign
#define EVP_DigestSignInit pge_openssl.EVP_DigestSignInit
#define EVP_MD_CTX_free pge_openssl.EVP_MD_CTX_free
#define EVP_MD_CTX_new pge_openssl.EVP_MD_CTX_new
#define EVP_PKEY_free pge_openssl.EVP_PKEY_free
#define EVP_PKEY_get_raw_public_key pge_openssl.EVP_PKEY_get_raw_public_key
#define EVP_PKEY_new_raw_private_key pge_openssl.EVP_PKEY_new_raw_private_key
#define PEM_read_bio_PrivateKey pge_openssl.PEM_read_bio_PrivateKey
#define PEM_read_bio_X509 pge_openssl.PEM_read_bio_X509
#define SSL_CTX_add_client_CA pge_openssl.SSL_CTX_add_client_CA
#define SSL_CTX_check_private_key pge_openssl.SSL_CTX_check_private_key
#define SSL_CTX_ctrl pge_openssl.SSL_CTX_ctrl
#define SSL_CTX_free pge_openssl.SSL_CTX_free
#define SSL_CTX_get0_certificate pge_openssl.SSL_CTX_get0_certificate
#define SSL_CTX_get_cert_store pge_openssl.SSL_CTX_get_cert_store
#define SSL_CTX_new pge_openssl.SSL_CTX_new
#define SSL_CTX_set_alpn_protos pge_openssl.SSL_CTX_set_alpn_protos
#define SSL_CTX_set_alpn_select_cb pge_openssl.SSL_CTX_set_alpn_select_cb
#define SSL_CTX_set_default_verify_paths pge_openssl.SSL_CTX_set_default_verify_paths
#define SSL_CTX_set_options pge_openssl.SSL_CTX_set_options
#define SSL_CTX_set_session_id_context pge_openssl.SSL_CTX_set_session_id_context
#define SSL_CTX_set_verify pge_openssl.SSL_CTX_set_verify
#define SSL_CTX_use_PrivateKey pge_openssl.SSL_CTX_use_PrivateKey
#define SSL_CTX_use_certificate pge_openssl.SSL_CTX_use_certificate
#define SSL_ctrl pge_openssl.SSL_ctrl
#define SSL_do_handshake pge_openssl.SSL_do_handshake
#define SSL_free pge_openssl.SSL_free
#define SSL_get0_param pge_openssl.SSL_get0_param
#define SSL_get_error pge_openssl.SSL_get_error
#define SSL_get_rbio pge_openssl.SSL_get_rbio
#define SSL_get_verify_result pge_openssl.SSL_get_verify_result
#define SSL_get_wbio pge_openssl.SSL_get_wbio
#define SSL_has_pending pge_openssl.SSL_has_pending
#define SSL_new pge_openssl.SSL_new
#define SSL_read_ex pge_openssl.SSL_read_ex
#define SSL_select_next_proto pge_openssl.SSL_select_next_proto
#define SSL_set1_host pge_openssl.SSL_set1_host
#define SSL_set_accept_state pge_openssl.SSL_set_accept_state
#define SSL_set_bio pge_openssl.SSL_set_bio
#define SSL_set_connect_state pge_openssl.SSL_set_connect_state
#define SSL_set_hostflags pge_openssl.SSL_set_hostflags
#define SSL_shutdown pge_openssl.SSL_shutdown
#define SSL_write_ex pge_openssl.SSL_write_ex
#define TLS_client_method pge_openssl.TLS_client_method
#define TLS_server_method pge_openssl.TLS_server_method
#define X509_STORE_add_cert pge_openssl.X509_STORE_add_cert
#define X509_VERIFY_PARAM_set1_ip_asc pge_openssl.X509_VERIFY_PARAM_set1_ip_asc
#define X509_free pge_openssl.X509_free
#define X509_get0_notAfter pge_openssl.X509_get0_notAfter
#define X509_verify_cert_error_string pge_openssl.X509_verify_cert_error_string
#endif

/* 0, also when it is loaded already. UV_ENOTSUP: the library is not there or not complete; *why is
 * then a text for people, static. */
int pge_openssl_load(const char **why);

#endif
