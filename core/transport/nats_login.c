/* nats_login.c - INFO read, CONNECT written: who is there, and who we are (nest-wire 4.1, 4.2). */
#include <stdio.h>
#include <stdlib.h>
#include <uv.h>

#include "base/alloc.h"
#include "codec/nkey.h"
#include "transport/nats.h"

/* ---- INFO ---- */

static bool is_true(struct pge_span json) {
    return pge_json_kind(json) == PGE_JSON_TRUE;
}

int pge_nats_read_info(struct pge_json_scan *scan, struct pge_span json,
                       struct pge_nats_info *info) {
    if (pge_json_check(scan, json.p, json.n) < 0)
        return UV_EPROTO;
    struct pge_span max = pge_nats_member(scan, json, "max_payload");
    struct pge_span urls = pge_nats_member(scan, json, "connect_urls");
    *info = (struct pge_nats_info){
        .nonce = pge_nats_member(scan, json, "nonce"),
        .tls_required = is_true(pge_nats_member(scan, json, "tls_required")),
        .tls_available = is_true(pge_nats_member(scan, json, "tls_available")),
        .is_leaving = is_true(pge_nats_member(scan, json, "ldm")),
    };
    if (pge_json_kind(max) == PGE_JSON_NUMBER) /* a comma or a brace ends it */
        info->max_payload = (size_t)strtoull(max.p, NULL, 10);
    if (pge_json_kind(urls) == PGE_JSON_ARRAY)
        info->connect_urls = urls;
    return 0;
}

/* "1.2.3.4:4222" or "[::1]:4222", without its quotes. */
static void learn(struct pge_span url, void (*fn)(void *arg, const char *host, uint16_t port),
                  void *arg) {
    char text[256];
    if (url.n == 0 || url.n >= sizeof text)
        return;
    memcpy(text, url.p, url.n);
    text[url.n] = '\0';
    char *colon = strrchr(text, ':'), *host = text;
    if (!colon)
        return;
    long port = strtol(colon + 1, NULL, 10);
    *colon = '\0';
    if (*host == '[') {
        host++;
        host[strcspn(host, "]")] = '\0';
    }
    if (port > 0 && port < 65536 && *host)
        fn(arg, host, (uint16_t)port);
}

void pge_nats_walk_urls(struct pge_span urls,
                        void (*fn)(void *arg, const char *host, uint16_t port), void *arg) {
    const char *p = urls.p, *end = urls.p ? urls.p + urls.n : NULL;
    while (p && (p = memchr(p, '"', (size_t)(end - p)))) { /* addresses have no escapes */
        const char *close = memchr(p + 1, '"', (size_t)(end - p - 1));
        if (!close)
            return;
        learn((struct pge_span){p + 1, (size_t)(close - p - 1)}, fn, arg);
        p = close + 1;
    }
}

/* ---- CONNECT ---- */

static int add_text(struct pge_buf *out, const char *name, struct pge_span value) {
    int status = PGE_BUF_LIT(out, ",\"");
    if (status == 0)
        status = pge_buf_append(out, name, strlen(name));
    if (status == 0)
        status = PGE_BUF_LIT(out, "\":");
    return status < 0 ? status : pge_json_quote(out, value.p, value.n);
}

static struct pge_span span_of(const char *text) {
    return (struct pge_span){text, strlen(text)};
}

static int add_setting(const struct pge_nats_conn *self, struct pge_buf *out, const char *setting,
                       const char *name) {
    const char *text = pge_settings_text(self->options.settings, setting);
    return text ? add_text(out, name, span_of(text)) : 0;
}

/* The nonce signed; with a JWT the server knows the key from there. */
static int add_signature(const struct pge_nats_conn *self, struct pge_buf *out,
                         struct pge_span seed, bool has_jwt, const char **why) {
    struct pge_nkey key;
    char signature[PGE_NKEY_SIGNATURE_LEN + 1];
    if (!self->nonce[0]) {
        *why = "the NATS server gives nothing to sign: it does not take nkeys";
        return UV_EINVAL;
    }
    int status = pge_nkey_init(&key, seed, why);
    if (status < 0)
        return status;
    status = pge_nkey_sign(&key, span_of(self->nonce), signature);
    if (status == 0 && !has_jwt)
        status = add_text(out, "nkey", span_of(key.public_key));
    if (status == 0)
        status = add_text(out, "sig", span_of(signature));
    pge_nkey_deinit(&key);
    return status;
}

static int add_keys(const struct pge_nats_conn *self, struct pge_buf *out, const char **why) {
    const char *creds = pge_settings_text(self->options.settings, "creds");
    const char *nkey = pge_settings_text(self->options.settings, "nkey");
    struct pge_span jwt, seed;
    if (creds) {
        int status = pge_nkey_read_creds(span_of(creds), &jwt, &seed, why);
        if (status == 0)
            status = add_text(out, "jwt", jwt);
        return status < 0 ? status : add_signature(self, out, seed, true, why);
    }
    return nkey ? add_signature(self, out, span_of(nkey), false, why) : 0;
}

static int write_login(const struct pge_nats_conn *self, struct pge_buf *out, const char **why) {
    int status = PGE_BUF_LIT(out, "{\"no_responders\":true,\"protocol\":1,\"verbose\":false,"
                                  "\"pedantic\":false,\"lang\":\"perigee\",\"version\":\"1\","
                                  "\"headers\":true");
    if (status == 0 && pge_settings_flag(self->options.settings, "no_echo"))
        status = PGE_BUF_LIT(out, ",\"echo\":false");
    if (status == 0)
        status = add_setting(self, out, "name", "name");
    if (status == 0)
        status = add_setting(self, out, "user", "user");
    if (status == 0)
        status = add_setting(self, out, "pass", "pass");
    if (status == 0)
        status = add_setting(self, out, "token", "auth_token");
    if (status == 0)
        status = add_keys(self, out, why);
    return status < 0 ? status : PGE_BUF_LIT(out, "}");
}

int pge_nats_login(const struct pge_nats_conn *self, struct pge_buf *out, const char **why) {
    struct pge_buf json = {0};
    int status = write_login(self, &json, why);
    if (status == 0)
        status = pge_nats_connect(out, (struct pge_span){pge_buf_head(&json), pge_buf_len(&json)});
    pge_buf_deinit(&json);
    return status;
}
