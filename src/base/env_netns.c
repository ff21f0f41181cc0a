/* SPDX-License-Identifier: Apache-2.0
 *
 * base/env_netns.c - see base/env_netns.h. The work is done by ip(8) and tc(8), in children. */
#include "base/env_netns.h"

#include <fcntl.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/assert.h"

/* A burst must hold a whole segment as the stack hands it over, or it is cut up at great cost. */
enum { BURST_KB = 256, QUEUE_MS = 20 };

struct env_netns {
    uint32_t wires;
    int id; /* in the names: "yolk-<id>-0" and "-1" */
    bool made[2];
};

/* The text is ours: numbers and words, nothing from outside. */
__attribute__((format(printf, 1, 2))) static bool run(const char *format, ...)
{
    char command[256];
    va_list args;

    va_start(args, format);
    const int len = vsnprintf(command, sizeof(command) - 20, format, args);
    va_end(args);
    ASSERT(len > 0 && len < (int)sizeof(command) - 20);
    snprintf(command + len, sizeof(command) - (size_t)len, " >/dev/null 2>&1");
    return system(command) == 0;
}

static bool wire_make(const struct env_netns *netns, uint32_t i, uint32_t mbit_per_s)
{
    const int id = netns->id;

    if (!run("ip -n yolk-%d-0 link add w%u type veth peer name w%u netns yolk-%d-1", id, i, i,
             id)) {
        return false;
    }
    for (int side = 0; side < 2; side++) {
        if (!run("ip -n yolk-%d-%d addr add 10.77.%u.%d/24 dev w%u", id, side, i, side + 1, i) ||
            !run("ip -n yolk-%d-%d link set w%u up", id, side, i)) {
            return false;
        }
        if (mbit_per_s != 0 &&
            !run("tc -n yolk-%d-%d qdisc add dev w%u root tbf rate %umbit burst %dkb latency %dms",
                 id, side, i, mbit_per_s, BURST_KB, QUEUE_MS)) {
            return false;
        }
    }
    return true;
}

enum status env_netns_create(uint32_t wires, uint32_t mbit_per_s, struct env_netns **out,
                             struct errmsg *err)
{
    static int next;
    bool ok = true;

    ASSERT(wires >= 1 && wires <= ENV_NETNS_WIRES_MAX);
    if (geteuid() != 0) {
        return errmsg_set(err, STATUS_UNSUPPORTED, "network namespaces need root");
    }
    struct env_netns *netns = calloc(1, sizeof(*netns));
    if (netns == NULL) return errmsg_set(err, STATUS_NO_MEMORY, "no memory");
    netns->wires = wires;
    netns->id = (int)getpid() * 10 + next++ % 10;
    for (int side = 0; side < 2 && ok; side++) {
        ok = run("ip netns add yolk-%d-%d", netns->id, side);
        netns->made[side] = ok;
        ok = ok && run("ip -n yolk-%d-%d link set lo up", netns->id, side);
    }
    for (uint32_t i = 0; i < wires && ok; i++)
        ok = wire_make(netns, i, mbit_per_s);
    if (!ok) {
        env_netns_destroy(netns);
        return errmsg_set(err, STATUS_UNSUPPORTED,
                          "network namespaces are not allowed here, or ip or tc is missing");
    }
    *out = netns;
    return STATUS_OK;
}

enum status env_netns_enter(const struct env_netns *netns, int side)
{
    char path[64];

    snprintf(path, sizeof(path), "/run/netns/yolk-%d-%d", netns->id, side);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return STATUS_NOT_FOUND;
    const int result = setns(fd, CLONE_NEWNET);
    close(fd);
    return result == 0 ? STATUS_OK : STATUS_DENIED;
}

enum status env_netns_set_wire(const struct env_netns *netns, uint32_t at, bool up)
{
    ASSERT(at < netns->wires);
    const bool ok = run("ip -n yolk-%d-1 link set w%u %s", netns->id, at, up ? "up" : "down");
    return ok ? STATUS_OK : STATUS_IO;
}

void env_netns_destroy(struct env_netns *netns)
{
    if (netns == NULL) return;
    for (int side = 0; side < 2; side++) {
        if (netns->made[side]) (void)run("ip netns del yolk-%d-%d", netns->id, side);
    }
    free(netns);
}
