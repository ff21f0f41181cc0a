/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/tenants.h - whose API key is this, and what may they still ask for? Pure: no files, no
 * clock.
 *
 * Keys are a text, one a line:
 *
 *     # KEY              TENANT    OPTIONS
 *     sk-0123456789abcd  research  requests=60 tokens=200000
 *     sk-fedcba98765432  sales     salted
 *
 *     requests=N  HTTP requests a minute
 *     tokens=N    tokens a minute: of prompts, each counted once, and of answers
 *     salted      what the tenant caches is for itself (cache_salt does that for one request)
 *
 * A tenant may have several keys; what limits it is on its first line, and all of them share it.
 *
 * A limit is a token bucket that holds a minute's worth and is full at the start: N may come at
 * once, and then one every 60 s / N. Prompts are charged when they are taken in, and have to find
 * room, or a full bucket if they are larger than that; answers are charged when they have ended,
 * whatever is left, so the level may be negative and is waited for.
 *
 * Secrets: of keys only SHA-256 is kept, and compared with all of them in constant time. No message
 * quotes a key.
 *
 * Memory:  allocated by tenants_parse(). Threads: belong to one at a time.
 * Limits:  below. */
#ifndef SERVE_TENANTS_H
#define SERVE_TENANTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

struct tenant;
struct tenants;

enum {
    TENANTS_KEYS_MAX = 1024,
    TENANTS_MAX = 256,
    TENANTS_NAME_SIZE = 64, /* with its NUL; letters, digits, '-', '_' and '.' */
    TENANTS_KEY_LEN_MIN = 8,
    TENANTS_KEY_LEN_MAX = 256,
    TENANTS_FILE_SIZE_MAX = 1 << 20,
    TENANTS_LIMIT_MAX = 1000000000,
};

/* Buckets are full at `now_ns`. STATUS_INVALID with the number of the line, or STATUS_NO_MEMORY. */
MUST_USE enum status tenants_parse(const char *text, size_t len, uint64_t now_ns,
                                   struct tenants **out, struct errmsg *err);
void tenants_destroy(struct tenants *tenants); /* NULL is allowed */

/* From now on what `next` says, which is of no use afterwards but to be destroyed. Who is in both
 * has what is left in its buckets, as far as its limits allow. A tenant that is in `next` no more
 * has no key, and stays for those who hold it, until its place is needed. */
void tenants_update(struct tenants *tenants, const struct tenants *next, uint64_t now_ns);

/* Whose key it is; NULL: nobody's, as for `key` NULL. */
struct tenant *tenants_find(const struct tenants *tenants, const char *key);

const char *tenant_name(const struct tenant *tenant);
bool tenant_is_salted(const struct tenant *tenant);

/* One request, and so many tokens of prompts. STATUS_OK, and it is charged. STATUS_FULL, and
 * nothing is: there is room again in *wait_ns, if nobody else takes it. */
MUST_USE enum status tenant_take_request(struct tenant *tenant, uint64_t now_ns, uint64_t *wait_ns);
MUST_USE enum status tenant_take_tokens(struct tenant *tenant, uint32_t tokens, uint64_t now_ns,
                                        uint64_t *wait_ns);
/* An answer had so many tokens. */
void tenant_charge_tokens(struct tenant *tenant, uint32_t tokens, uint64_t now_ns);

/* How a limit stands; `limit` 0: there is none. */
struct tenant_state {
    uint64_t limit, remaining; /* a minute, and now */
    uint64_t full_ns;          /* until the bucket is full again */
};
struct tenant_state tenant_requests(struct tenant *tenant, uint64_t now_ns);
struct tenant_state tenant_tokens(struct tenant *tenant, uint64_t now_ns);

#endif
