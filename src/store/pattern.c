/* SPDX-License-Identifier: Apache-2.0 */
#include "store/pattern.h"

#include <stdlib.h>
#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "base/assert.h"

struct pattern {
    const void *prefix;
    size_t prefix_len;
    pcre2_code *code; /* NULL: any */
    pcre2_match_data *match;
    pcre2_match_context *limits;
};

static enum status compile(struct pattern *pattern, const char *regex, size_t len,
                           struct errmsg *err)
{
    PCRE2_UCHAR text[128];
    PCRE2_SIZE at;
    int error;

    if (len > PATTERN_SIZE_MAX) {
        return errmsg_set(err, STATUS_INVALID, "the expression is longer than %d bytes",
                          PATTERN_SIZE_MAX);
    }
    pattern->code = pcre2_compile((PCRE2_SPTR)regex, len, 0, &error, &at, NULL);
    if (pattern->code == NULL) {
        pcre2_get_error_message(error, text, sizeof(text));
        return errmsg_set(err, STATUS_INVALID, "the expression is wrong at byte %zu: %s", at,
                          (const char *)text);
    }
    pattern->match = pcre2_match_data_create(1, NULL);
    pattern->limits = pcre2_match_context_create(NULL);
    if (pattern->match == NULL || pattern->limits == NULL) {
        return errmsg_set(err, STATUS_NO_MEMORY, "out of memory");
    }
    pcre2_set_match_limit(pattern->limits, PATTERN_STEPS_MAX);
    return STATUS_OK;
}

enum status pattern_create(const void *prefix, size_t prefix_len, const char *regex,
                           size_t regex_len, struct pattern **out, struct errmsg *err)
{
    struct pattern *pattern = calloc(1, sizeof(*pattern));
    if (pattern == NULL) return errmsg_set(err, STATUS_NO_MEMORY, "out of memory");
    pattern->prefix = prefix;
    pattern->prefix_len = prefix_len;
    const enum status status = regex == NULL ? STATUS_OK : compile(pattern, regex, regex_len, err);
    if (status != STATUS_OK) {
        pattern_destroy(pattern);
        return status;
    }
    *out = pattern;
    return STATUS_OK;
}

void pattern_destroy(struct pattern *pattern)
{
    if (pattern == NULL) return;
    pcre2_match_context_free(pattern->limits);
    pcre2_match_data_free(pattern->match);
    pcre2_code_free(pattern->code);
    free(pattern);
}

enum status pattern_match(const struct pattern *pattern, struct store_key key)
{
    ASSERT(key.len > 0);
    if (key.len < pattern->prefix_len) return STATUS_NOT_FOUND;
    if (pattern->prefix_len > 0 && memcmp(key.bytes, pattern->prefix, pattern->prefix_len) != 0) {
        return STATUS_NOT_FOUND;
    }
    if (pattern->code == NULL) return STATUS_OK;
    const int rc = pcre2_match(pattern->code, (PCRE2_SPTR)key.bytes, key.len, 0, 0, pattern->match,
                               pattern->limits);
    if (rc >= 0) return STATUS_OK;
    return rc == PCRE2_ERROR_NOMATCH ? STATUS_NOT_FOUND : STATUS_FULL;
}
