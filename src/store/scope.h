/* SPDX-License-Identifier: Apache-2.0
 *
 * store/scope.h - whose value it is: the name of a tenant is part of the key.
 *
 *     a tenant's        MARK (4 bytes)  length of the name (1)  name  key
 *     the default's     key, as it is
 *                       MARK  0  key, if the key itself begins with MARK
 *
 * So whatever carries keys carries tenants: masters, nodes and disks of older releases too, and the
 * default tenant's keys are those of clients that know of none. Two tenants can never name the same
 * value, for no two of these are the same bytes.
 *
 * A name has 1 to SCOPE_NAME_LEN_MAX letters, digits, '-', '_' and '.', and does not begin with
 * '_'. "" and "default" are the default tenant, whose name is shown as "default". What begins with
 * MARK and is not of this form is a key of the default tenant.
 *
 * Pure. */
#ifndef STORE_SCOPE_H
#define STORE_SCOPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/master.h"

enum {
    SCOPE_NAME_LEN_MAX = STORE_TENANT_SIZE - 1,
    SCOPE_SIZE_MAX = 5 + SCOPE_NAME_LEN_MAX, /* what comes before a key */
};

/* The name of a tenant, or of the default one. */
bool scope_name_valid(const char *name);

/* Whether it means the default tenant. */
bool scope_name_default(const char *name);

/* What comes before the key of a tenant with a valid name; returns its length. `key` may be as
 * short as its first 4 bytes, which decide for the default tenant; a shorter one is a whole key. */
size_t scope_prefix(const char *name, struct store_key key, uint8_t out[SCOPE_SIZE_MAX]);

struct scope {
    const uint8_t *name;  /* borrowed from the key; not terminated */
    uint32_t name_len;    /* 0: the default tenant */
    struct store_key key; /* the tenant's own; it may be empty where a prefix was split */
};

/* Takes apart what scope_prefix() has put together. */
struct scope scope_split(struct store_key whole);

#endif
