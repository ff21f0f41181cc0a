/* SPDX-License-Identifier: Apache-2.0
 *
 * base/env_real_net.c - the interfaces of this host, from getifaddrs() and /sys/class/net.
 *
 * Link-local IPv6 addresses are left out: they mean nothing without the interface they belong
 * to. */
#include <arpa/inet.h>
#include <ifaddrs.h>
#include <linux/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/env_real_int.h"

/* A number in /sys/class/net/<name>/<what>; `fallback` where there is none. */
static long sysfs_number(const char *name, const char *what, long fallback)
{
    char path[128], text[32];

    snprintf(path, sizeof(path), "/sys/class/net/%s/%s", name, what);
    FILE *file = fopen(path, "re");
    if (file == NULL) return fallback;
    const size_t len = fread(text, 1, sizeof(text) - 1, file);
    fclose(file);
    text[len] = '\0';
    char *end;
    const long value = strtol(text, &end, 10);
    return end == text ? fallback : value;
}

static uint32_t bits_set(const uint8_t *bytes, size_t len)
{
    uint32_t bits = 0;
    for (size_t i = 0; i < len; i++)
        bits += (uint32_t)__builtin_popcount(bytes[i]);
    return bits;
}

/* False for what is not an IP address, or link-local. */
static bool address_fill(const struct ifaddrs *at, struct env_interface *out)
{
    const void *address, *mask;
    size_t len;

    if (at->ifa_addr == NULL || at->ifa_netmask == NULL) return false;
    if (at->ifa_addr->sa_family == AF_INET) {
        address = &((const struct sockaddr_in *)(const void *)at->ifa_addr)->sin_addr;
        mask = &((const struct sockaddr_in *)(const void *)at->ifa_netmask)->sin_addr;
        len = sizeof(struct in_addr);
    } else if (at->ifa_addr->sa_family == AF_INET6) {
        const struct sockaddr_in6 *six = (const void *)at->ifa_addr;
        if (IN6_IS_ADDR_LINKLOCAL(&six->sin6_addr)) return false;
        address = &six->sin6_addr;
        mask = &((const struct sockaddr_in6 *)(const void *)at->ifa_netmask)->sin6_addr;
        len = sizeof(struct in6_addr);
    } else {
        return false;
    }
    out->prefix_bits = bits_set(mask, len);
    return inet_ntop(at->ifa_addr->sa_family, address, out->address, sizeof(out->address)) != NULL;
}

static void interface_fill(const struct ifaddrs *at, struct env_interface *out)
{
    snprintf(out->name, sizeof(out->name), "%s", at->ifa_name);
    out->up = (at->ifa_flags & IFF_UP) != 0 && (at->ifa_flags & IFF_RUNNING) != 0;
    out->loopback = (at->ifa_flags & IFF_LOOPBACK) != 0;
    const long mtu = sysfs_number(out->name, "mtu", 0), speed = sysfs_number(out->name, "speed", 0);
    out->mtu = mtu > 0 ? (uint32_t)mtu : 0;
    out->speed_mbps = speed > 0 ? (uint32_t)speed : 0;
    out->numa_node = (int32_t)sysfs_number(out->name, "device/numa_node", -1);
}

uint32_t env_real_interfaces(struct env *env, struct env_interface *out, uint32_t max)
{
    struct ifaddrs *all;
    uint32_t count = 0;

    (void)env;
    if (getifaddrs(&all) != 0) return 0;
    for (const struct ifaddrs *at = all; at != NULL && count < max; at = at->ifa_next) {
        memset(&out[count], 0, sizeof(out[count]));
        if (!address_fill(at, &out[count])) continue;
        interface_fill(at, &out[count]);
        count++;
    }
    freeifaddrs(all);
    return count;
}
