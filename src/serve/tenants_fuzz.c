/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/tenants_fuzz.c - any bytes as a file of API keys. */
#include <stddef.h>
#include <stdint.h>

#include "base/assert.h"
#include "serve/tenants.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct tenants *tenants = NULL;
    struct errmsg err = { "" };

    if (tenants_parse((const char *)data, len, 0, &tenants, &err) != STATUS_OK) {
        ASSERT(err.text[0] != '\0');
        return 0;
    }
    ASSERT(tenants_find(tenants, "") == NULL);
    tenants_destroy(tenants);
    return 0;
}
