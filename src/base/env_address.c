/* SPDX-License-Identifier: Apache-2.0
 *
 * base/env_address.c - "host:port" taken apart, the same way by every body of env; and which
 * addresses are neighbours. */
#include <arpa/inet.h>
#include <string.h>

#include "base/env_int.h"

/* Digits only: strtol would accept blanks and signs. */
static bool parse_port(const char *text, uint16_t *out)
{
    uint32_t port = 0;

    if (*text == '\0') return false;
    for (; *text != '\0'; text++) {
        if (*text < '0' || *text > '9') return false;
        port = port * 10 + (uint32_t)(*text - '0');
        if (port > UINT16_MAX) return false;
    }
    *out = (uint16_t)port;
    return true;
}

enum status env_address_parse(const char *address, char host[ENV_HOST_SIZE], uint16_t *port,
                              struct errmsg *err)
{
    const char *colon = strrchr(address, ':');
    const char *first = address;
    uint16_t parsed;

    if (colon == NULL || !parse_port(colon + 1, &parsed))
        return errmsg_set(err, STATUS_INVALID, "'%.100s' is not host:port", address);
    size_t len = (size_t)(colon - address);
    if (len >= 2 && address[0] == '[' && address[len - 1] == ']') {
        first++;
        len -= 2;
    } else if (memchr(address, ':', len) != NULL) {
        return errmsg_set(err, STATUS_INVALID, "'%.100s': an IPv6 address needs [brackets]",
                          address);
    }
    if (len >= ENV_HOST_SIZE)
        return errmsg_set(err, STATUS_INVALID, "'%.100s': the host is too long", address);
    memcpy(host, first, len);
    host[len] = '\0';
    *port = parsed;
    return STATUS_OK;
}

bool env_same_network(const char *a, const char *b, uint32_t prefix_bits)
{
    uint8_t first[16], second[16];
    const int family = strchr(a, ':') != NULL ? AF_INET6 : AF_INET;
    const uint32_t bits_max = family == AF_INET6 ? 128 : 32;

    if (prefix_bits > bits_max) return false;
    if (inet_pton(family, a, first) != 1 || inet_pton(family, b, second) != 1) return false;
    const uint32_t whole = prefix_bits / 8, rest = prefix_bits % 8;
    if (memcmp(first, second, whole) != 0) return false;
    if (rest == 0) return true;
    return (first[whole] ^ second[whole]) >> (8 - rest) == 0;
}
