/* SPDX-License-Identifier: Apache-2.0
 *
 * store/here.c - see the header. */
#include "store/here.h"

#include <string.h>

#include "base/assert.h"

void here_init(struct here *here, struct env *env)
{
    struct env_interface interfaces[ENV_INTERFACES_MAX];
    const uint32_t count = env_interfaces(env, interfaces, ENV_INTERFACES_MAX);

    here->count = 0;
    for (uint32_t i = 0; i < count && here->count < HERE_MAX; i++) {
        if (!interfaces[i].up) continue;
        memcpy(here->addresses[here->count++], interfaces[i].address, ENV_ADDRESS_SIZE);
    }
}

bool here_is(const struct here *here, const char *address)
{
    const char *colon = strrchr(address, ':');
    size_t len = colon == NULL ? strlen(address) : (size_t)(colon - address);
    ASSERT(here->count <= HERE_MAX);

    if (len >= 2 && address[0] == '[' && address[len - 1] == ']') {
        address++;
        len -= 2;
    }
    for (uint32_t i = 0; i < here->count; i++) {
        const char *own = here->addresses[i];
        if (strlen(own) == len && memcmp(own, address, len) == 0) return true;
    }
    return false;
}
