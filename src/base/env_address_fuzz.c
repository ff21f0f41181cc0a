/* SPDX-License-Identifier: Apache-2.0
 *
 * base/env_address_fuzz.c - addresses come from peers and users. What is accepted must fit, and
 * must mean the same when it is written out and read again. */
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/env_int.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char address[256], again[ENV_HOST_SIZE + 16];
    char host[ENV_HOST_SIZE] = "", host_again[ENV_HOST_SIZE] = "";
    uint16_t port = 0, port_again = 0;
    struct errmsg err = { "" };

    if (size >= sizeof(address)) return 0;
    memcpy(address, data, size);
    address[size] = '\0';
    if (env_address_parse(address, host, &port, &err) != STATUS_OK) {
        ASSERT(err.text[0] != '\0' && host[0] == '\0');
        return 0;
    }
    ASSERT(err.text[0] == '\0');
    ASSERT(strnlen(host, sizeof(host)) < sizeof(host));
    snprintf(again, sizeof(again), "[%s]:%u", host, port);
    ASSERT(env_address_parse(again, host_again, &port_again, NULL) == STATUS_OK);
    ASSERT(strcmp(host, host_again) == 0 && port == port_again);
    return 0;
}
