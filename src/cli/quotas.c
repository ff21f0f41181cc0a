/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/quotas.h"

#include <string.h>

#include "base/config.h"

enum { WORD_SIZE = 128 };

static bool count_parse(const char *text, uint64_t *out)
{
    const size_t len = strlen(text);
    return strspn(text, "0123456789") == len && config_parse_size(text, out) && *out > 0;
}

enum status quotas_parse_one(const char *text, struct yolk_store_tenant *out, struct errmsg *err)
{
    char size[WORD_SIZE];
    const char *slash = strchr(text, '/');
    const size_t len = slash == NULL ? strlen(text) : (size_t)(slash - text);
    uint64_t bytes = 0, count = 0;

    if (strcmp(text, "none") == 0) {
        out->quota_bytes = 0;
        out->quota_replicas = 0;
        return STATUS_OK;
    }
    bool good = len < sizeof(size) && (len > 0 || slash != NULL);
    if (good) {
        memcpy(size, text, len);
        size[len] = '\0';
        good = len == 0 || (config_parse_size(size, &bytes) && bytes > 0);
    }
    if (!good || (slash != NULL && !count_parse(slash + 1, &count))) {
        return errmsg_set(err, STATUS_INVALID,
                          "%.60s is no quota: a size such as 512M, 512M/1000 for at most so many "
                          "values as well, or none",
                          text);
    }
    out->quota_bytes = bytes;
    out->quota_replicas = count;
    return STATUS_OK;
}

static enum status one_parse(const char *word, struct yolk_store_tenant *out, struct errmsg *err)
{
    const char *equals = strchr(word, '=');
    const size_t len = equals == NULL ? 0 : (size_t)(equals - word);

    if (len == 0 || len >= sizeof(out->name))
        return errmsg_set(err, STATUS_INVALID, "%.60s is not NAME=SIZE[/COUNT]", word);
    memcpy(out->name, word, len);
    return quotas_parse_one(equals + 1, out, err);
}

enum status quotas_parse(const char *text,
                         enum status (*each)(void *ctx, const struct yolk_store_tenant *tenant),
                         void *ctx, struct errmsg *err)
{
    for (const char *at = text; *at != '\0';) {
        struct yolk_store_tenant tenant = { .quota_bytes = 0 };
        char word[WORD_SIZE] = "";
        const size_t len = strcspn(at, ",");
        if (len >= sizeof(word))
            return errmsg_set(err, STATUS_INVALID, "%.60s... is not NAME=SIZE[/COUNT]", at);
        memcpy(word, at, len);
        enum status status = one_parse(word, &tenant, err);
        if (status != STATUS_OK) return status;
        if (each(ctx, &tenant) != STATUS_OK)
            return errmsg_set(err, STATUS_INVALID, "%.60s is not the name of a tenant",
                              tenant.name);
        at += len;
        if (*at == ',') at++;
    }
    return STATUS_OK;
}
