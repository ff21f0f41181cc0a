/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/gateway_keys.c - who may ask, and whose blocks are whose.
 *
 * API keys come as `Authorization: Bearer KEY` (serve/tenants.h). They are never logged, never in a
 * metric and never in an answer.
 *
 * A salt enters the key of the first block of a prompt, and by the chain all after it, so that
 * prompts of different salts share nothing, in no cache of any node. It is made here, with a key
 * that comes from the cluster's secret, of the tenant's name and the request's `cache_salt`: a
 * client can choose to be apart, and not to be somebody else. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/assert.h"
#include "base/hash.h"
#include "base/log.h"
#include "net/http.h"
#include "serve/gateway_int.h"
#include "serve/tenants.h"

static const char PURPOSE[] = "yolk-salt-1";

static enum status read_keys(struct gateway *gateway, const char *path, struct tenants **out,
                             struct errmsg *err)
{
    struct errmsg why = { "" };
    char *text = NULL;
    size_t len = 0;

    enum status status =
        env_file_read_all(gateway->env, path, TENANTS_FILE_SIZE_MAX, &text, &len, &why);
    if (status == STATUS_OK) {
        status = tenants_parse(text, len, env_now_ns(gateway->env), out, &why);
    }
    if (text != NULL) explicit_bzero(text, len); /* it is full of secrets */
    free(text);
    if (status == STATUS_OK) return STATUS_OK;
    return errmsg_set(err, status, "API keys in %.200s: %s", path, why.text);
}

enum status gateway_keys_open(struct gateway *gateway, const struct gateway_options *options,
                              struct errmsg *err)
{
    const char *secret = options->secret != NULL ? options->secret : "";
    const char *path = options->api_keys;

    static_assert(sizeof(gateway->salt_key) == HASH_SHA256_SIZE, "it is one");
    hash_hmac_sha256(secret, strlen(secret), PURPOSE, sizeof(PURPOSE), gateway->salt_key);
    if (path == NULL || path[0] == '\0') return STATUS_OK;
    gateway->keys_path = strdup(path);
    if (gateway->keys_path == NULL) return errmsg_set(err, STATUS_NO_MEMORY, "no memory");
    return read_keys(gateway, path, &gateway->tenants, err);
}

enum status gateway_reload_keys(struct gateway *gateway, struct errmsg *err)
{
    struct tenants *next = NULL;

    if (gateway->keys_path == NULL) return STATUS_OK;
    const enum status status = read_keys(gateway, gateway->keys_path, &next, err);
    if (status != STATUS_OK) return status;
    tenants_update(gateway->tenants, next, env_now_ns(gateway->env));
    tenants_destroy(next);
    return STATUS_OK;
}

/* The key of "Bearer KEY", or NULL. */
static const char *bearer(const struct http_request *http)
{
    static const char SCHEME[] = "Bearer";
    const char *text = http_header(http, "Authorization");

    if (text == NULL || strncasecmp(text, SCHEME, sizeof(SCHEME) - 1) != 0) return NULL;
    text += sizeof(SCHEME) - 1;
    if (*text != ' ' && *text != '\t') return NULL;
    while (*text == ' ' || *text == '\t')
        text++;
    return text;
}

struct tenant *gateway_keys_tenant(const struct gateway *gateway, const struct http_request *http)
{
    return gateway->tenants != NULL ? tenants_find(gateway->tenants, bearer(http)) : NULL;
}

bool gateway_keys_admit(struct gateway *gateway, struct http_request *http)
{
    struct api_error error;

    if (gateway->tenants == NULL || gateway_keys_tenant(gateway, http) != NULL) return true;
    gateway_metrics_unauthorized(gateway->metrics);
    api_refuse(&error, 401, "invalid_api_key", NULL,
               bearer(http) != NULL ? "The API key is not known here"
                                    : "An API key is needed: Authorization: Bearer KEY");
    http_set_header(http, "WWW-Authenticate", "Bearer");
    gateway_respond_error(gateway, http, &error);
    return false;
}

struct block_key gateway_keys_salt(const struct gateway *gateway, const char *tenant,
                                   const void *salt, size_t len)
{
    uint8_t text[TENANTS_NAME_SIZE + API_SALT_SIZE_MAX], digest[HASH_SHA256_SIZE];
    const size_t name_size = strlen(tenant) + 1; /* its NUL tells where the salt begins */
    struct block_key key;

    ASSERT(name_size <= TENANTS_NAME_SIZE && len <= API_SALT_SIZE_MAX);
    memcpy(text, tenant, name_size);
    if (len > 0) memcpy(text + name_size, salt, len);
    hash_hmac_sha256(gateway->salt_key, sizeof(gateway->salt_key), text, name_size + len, digest);
    memcpy(key.bytes, digest, sizeof(key.bytes));
    return key;
}
