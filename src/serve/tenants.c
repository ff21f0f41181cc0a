/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/tenants.c - see tenants.h. */
#include "serve/tenants.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/env.h"
#include "base/hash.h"

enum { WORDS_MAX = 8, WORD_SIZE = TENANTS_KEY_LEN_MAX + 1 };
static const double MINUTE_NS = 60e9;

struct bucket {
    double per_minute; /* 0: no limit */
    double level;      /* at filled_ns; at most per_minute */
    uint64_t filled_ns;
};

struct tenant {
    char name[TENANTS_NAME_SIZE];
    bool salted;
    struct bucket requests, tokens;
};

struct key {
    uint8_t digest[HASH_SHA256_SIZE];
    uint32_t tenant;
};

struct tenants {
    struct key keys[TENANTS_KEYS_MAX];
    uint32_t keys_count;
    struct tenant tenants[TENANTS_MAX];
    uint32_t tenants_count;
};

/* ---- buckets ---- */

static void refill(struct bucket *bucket, uint64_t now_ns)
{
    const double passed = now_ns > bucket->filled_ns ? (double)(now_ns - bucket->filled_ns) : 0;

    bucket->level =
        fmin(bucket->per_minute, bucket->level + bucket->per_minute * passed / MINUTE_NS);
    if (now_ns > bucket->filled_ns) bucket->filled_ns = now_ns;
}

/* Until the level is `level`. */
static uint64_t time_to(const struct bucket *bucket, double level)
{
    return bucket->level >= level
               ? 0
               : (uint64_t)ceil((level - bucket->level) / bucket->per_minute * MINUTE_NS);
}

static enum status take(struct bucket *bucket, double amount, uint64_t now_ns, uint64_t *wait_ns)
{
    if (bucket->per_minute == 0) return STATUS_OK;
    refill(bucket, now_ns);
    const double needed = fmin(amount, bucket->per_minute);
    *wait_ns = time_to(bucket, needed);
    if (*wait_ns > 0) return STATUS_FULL;
    bucket->level -= amount;
    return STATUS_OK;
}

static struct tenant_state state_of(struct bucket *bucket, uint64_t now_ns)
{
    if (bucket->per_minute == 0) return (struct tenant_state){ 0, 0, 0 };
    refill(bucket, now_ns);
    return (struct tenant_state){ .limit = (uint64_t)bucket->per_minute,
                                  .remaining = (uint64_t)fmax(0, floor(bucket->level)),
                                  .full_ns = time_to(bucket, bucket->per_minute) };
}

enum status tenant_take_request(struct tenant *tenant, uint64_t now_ns, uint64_t *wait_ns)
{
    return take(&tenant->requests, 1, now_ns, wait_ns);
}

enum status tenant_take_tokens(struct tenant *tenant, uint32_t tokens, uint64_t now_ns,
                               uint64_t *wait_ns)
{
    return take(&tenant->tokens, tokens, now_ns, wait_ns);
}

void tenant_charge_tokens(struct tenant *tenant, uint32_t tokens, uint64_t now_ns)
{
    if (tenant->tokens.per_minute == 0) return;
    refill(&tenant->tokens, now_ns);
    tenant->tokens.level -= tokens;
}

struct tenant_state tenant_requests(struct tenant *tenant, uint64_t now_ns)
{
    return state_of(&tenant->requests, now_ns);
}

struct tenant_state tenant_tokens(struct tenant *tenant, uint64_t now_ns)
{
    return state_of(&tenant->tokens, now_ns);
}

const char *tenant_name(const struct tenant *tenant)
{
    return tenant->name;
}

bool tenant_is_salted(const struct tenant *tenant)
{
    return tenant->salted;
}

/* ---- keys ---- */

/* Every key is looked at, whichever it is. */
struct tenant *tenants_find(const struct tenants *tenants, const char *key)
{
    uint8_t digest[HASH_SHA256_SIZE];
    const struct tenant *found = NULL;

    if (key == NULL) return NULL;
    hash_sha256(key, strlen(key), digest);
    for (uint32_t i = 0; i < tenants->keys_count; i++) {
        const struct key *other = &tenants->keys[i];
        if (hash_equal_secret(digest, other->digest, sizeof(digest)))
            found = &tenants->tenants[other->tenant];
    }
    return (struct tenant *)(uintptr_t)found; /* tenants are the caller's, and not const */
}

/* ---- the text ---- */

struct line {
    char words[WORDS_MAX][WORD_SIZE];
    uint32_t count;
    uint32_t number;
};

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

/* False: a word is too long, or there are too many. */
static bool split(const char *text, size_t len, struct line *out)
{
    size_t at = 0;

    out->count = 0;
    for (;;) {
        while (at < len && is_blank(text[at]))
            at++;
        if (at == len || text[at] == '#') return true;
        const size_t from = at;
        while (at < len && !is_blank(text[at]))
            at++;
        if (out->count == WORDS_MAX || at - from >= WORD_SIZE) return false;
        memcpy(out->words[out->count], text + from, at - from);
        out->words[out->count++][at - from] = '\0';
    }
}

static bool good_key(const char *key)
{
    for (const char *c = key; *c; c++) {
        if (*c <= ' ' || *c > '~') return false;
    }
    return strlen(key) >= TENANTS_KEY_LEN_MIN;
}

static bool good_name(const char *name)
{
    for (const char *c = name; *c; c++) {
        if (!isalnum((unsigned char)*c) && strchr("-_.", *c) == NULL) return false;
    }
    return strlen(name) < TENANTS_NAME_SIZE;
}

static bool parse_limit(const char *text, struct bucket *out)
{
    char *end = NULL;
    const unsigned long value = strtoul(text, &end, 10);

    if (!isdigit((unsigned char)text[0]) || *end != '\0') return false;
    if (value == 0 || value > TENANTS_LIMIT_MAX) return false;
    out->per_minute = (double)value;
    out->level = out->per_minute;
    return true;
}

static bool parse_option(const char *word, struct tenant *tenant)
{
    if (strncmp(word, "requests=", 9) == 0) return parse_limit(word + 9, &tenant->requests);
    if (strncmp(word, "tokens=", 7) == 0) return parse_limit(word + 7, &tenant->tokens);
    if (strcmp(word, "salted") != 0) return false;
    tenant->salted = true;
    return true;
}

/* tenants_count if there is none. */
static uint32_t index_of(const struct tenants *tenants, const char *name)
{
    uint32_t i = 0;

    while (i < tenants->tenants_count && strcmp(tenants->tenants[i].name, name) != 0)
        i++;
    return i;
}

static enum status add_tenant(struct tenants *tenants, const struct line *line, uint64_t now_ns,
                              struct errmsg *err)
{
    if (tenants->tenants_count == TENANTS_MAX)
        return errmsg_set(err, STATUS_INVALID, "line %u: more than %d tenants", line->number,
                          TENANTS_MAX);
    struct tenant *tenant = &tenants->tenants[tenants->tenants_count++];
    *tenant = (struct tenant){ .requests.filled_ns = now_ns, .tokens.filled_ns = now_ns };
    memcpy(tenant->name, line->words[1], strlen(line->words[1]) + 1);
    for (uint32_t i = 2; i < line->count; i++) {
        if (parse_option(line->words[i], tenant)) continue;
        return errmsg_set(
            err, STATUS_INVALID,
            "line %u: option %u is not requests=N, tokens=N or salted, N from 1 to %d",
            line->number, i - 1, TENANTS_LIMIT_MAX);
    }
    return STATUS_OK;
}

static enum status add_key(struct tenants *tenants, const struct line *line, uint64_t now_ns,
                           struct errmsg *err)
{
    if (line->count < 2 || !good_key(line->words[0]) || !good_name(line->words[1]))
        return errmsg_set(err, STATUS_INVALID,
                          "line %u is not KEY TENANT OPTIONS, with a key of %d to %d printable "
                          "characters and a name of letters, digits, '-', '_' and '.'",
                          line->number, TENANTS_KEY_LEN_MIN, TENANTS_KEY_LEN_MAX);
    if (tenants_find(tenants, line->words[0]) != NULL)
        return errmsg_set(err, STATUS_INVALID, "line %u: the key is there already", line->number);
    if (tenants->keys_count == TENANTS_KEYS_MAX)
        return errmsg_set(err, STATUS_INVALID, "line %u: more than %d keys", line->number,
                          TENANTS_KEYS_MAX);
    if (index_of(tenants, line->words[1]) == tenants->tenants_count) {
        const enum status status = add_tenant(tenants, line, now_ns, err);
        if (status != STATUS_OK) return status;
    } else if (line->count > 2) {
        return errmsg_set(err, STATUS_INVALID, "line %u: options belong on the tenant's first line",
                          line->number);
    }
    struct key *key = &tenants->keys[tenants->keys_count++];
    hash_sha256(line->words[0], strlen(line->words[0]), key->digest);
    key->tenant = index_of(tenants, line->words[1]);
    return STATUS_OK;
}

static enum status parse_lines(struct tenants *tenants, const char *text, size_t len,
                               uint64_t now_ns, struct errmsg *err)
{
    struct line line = { .number = 0 };
    enum status status = STATUS_OK;

    for (size_t at = 0; at < len && status == STATUS_OK;) {
        const char *end = memchr(text + at, '\n', len - at);
        const size_t size = end != NULL ? (size_t)(end - text) - at : len - at;
        line.number++;
        if (!split(text + at, size, &line)) {
            status = errmsg_set(err, STATUS_INVALID, "line %u: a word too long, or too many words",
                                line.number);
        } else if (line.count > 0) {
            status = add_key(tenants, &line, now_ns, err);
        }
        at += size + 1;
    }
    if (status == STATUS_OK && tenants->keys_count == 0)
        status = errmsg_set(err, STATUS_INVALID, "there is no key");
    return status;
}

enum status tenants_parse(const char *text, size_t len, uint64_t now_ns, struct tenants **out,
                          struct errmsg *err)
{
    struct tenants *tenants = calloc(1, sizeof(*tenants));

    if (tenants == NULL) return errmsg_set(err, STATUS_NO_MEMORY, "not enough memory");
    const enum status status = parse_lines(tenants, text, len, now_ns, err);
    if (status != STATUS_OK) {
        tenants_destroy(tenants);
        return status;
    }
    *out = tenants;
    return STATUS_OK;
}

/* ---- new keys ---- */

/* Where the tenant is, or can be: behind the others, or in the place of one that is gone. */
static uint32_t place_of(const struct tenants *tenants, const struct tenants *next,
                         const char *name)
{
    const uint32_t at = index_of(tenants, name);

    if (at < TENANTS_MAX) return at;
    for (uint32_t i = 0; i < TENANTS_MAX; i++) {
        if (index_of(next, tenants->tenants[i].name) == next->tenants_count) return i;
    }
    ASSERT(false); /* next has no more of them than there are places */
    return 0;
}

/* As much as was left, with another limit. */
static void update_bucket(struct bucket *bucket, const struct bucket *next, uint64_t now_ns)
{
    const bool limited = bucket->per_minute > 0;

    if (limited) refill(bucket, now_ns);
    const double level = bucket->level;
    *bucket = *next;
    if (limited && next->per_minute > 0) bucket->level = fmin(level, next->per_minute);
}

void tenants_update(struct tenants *tenants, const struct tenants *next, uint64_t now_ns)
{
    uint32_t places[TENANTS_MAX];

    for (uint32_t i = 0; i < next->tenants_count; i++) {
        const struct tenant *from = &next->tenants[i];
        const uint32_t at = places[i] = place_of(tenants, next, from->name);
        struct tenant *to = &tenants->tenants[at];
        const bool known = at < tenants->tenants_count && strcmp(to->name, from->name) == 0;
        if (at == tenants->tenants_count) tenants->tenants_count++;
        if (!known) *to = *from;
        to->salted = from->salted;
        update_bucket(&to->requests, &from->requests, now_ns);
        update_bucket(&to->tokens, &from->tokens, now_ns);
    }
    tenants->keys_count = next->keys_count;
    for (uint32_t i = 0; i < next->keys_count; i++) {
        tenants->keys[i] = next->keys[i];
        tenants->keys[i].tenant = places[next->keys[i].tenant];
    }
}

void tenants_destroy(struct tenants *tenants)
{
    free(tenants);
}
