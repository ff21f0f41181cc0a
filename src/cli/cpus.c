/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/cpus.c - which CPUs a process keeps to. Done once, before threads are started, which inherit
 * it; an engine then has as many threads as that leaves. */
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "cli/cli.h"

/* One number at *at, which is moved behind it; false for none, or one too large. */
static bool take_number(const char **at, const char *end, int *out)
{
    int value = 0;

    if (*at == end || **at < '0' || **at > '9') return false;
    for (; *at < end && **at >= '0' && **at <= '9'; (*at)++) {
        value = 10 * value + (**at - '0');
        if (value >= CPU_SETSIZE) return false;
    }
    *out = value;
    return true;
}

/* One part, as 3 or 0-3. */
static bool take_range(const char **at, const char *end, cpu_set_t *set)
{
    int first, last;

    if (!take_number(at, end, &first)) return false;
    last = first;
    if (*at < end && **at == '-') {
        (*at)++;
        if (!take_number(at, end, &last)) return false;
    }
    for (int cpu = first; cpu <= last; cpu++)
        CPU_SET(cpu, set);
    return first <= last;
}

static bool parse(const char *at, const char *end, cpu_set_t *set)
{
    CPU_ZERO(set);
    while (take_range(&at, end, set)) {
        if (at == end) return true;
        if (*at++ != ',') return false;
    }
    return false;
}

enum status cli_bind_cpus(const char *list, struct errmsg *err)
{
    cpu_set_t set;

    if (list[0] == '\0') return STATUS_OK;
    if (!parse(list, list + strlen(list), &set))
        return errmsg_set(err, STATUS_INVALID, "--cpus: `%.40s` is no list of CPUs, as 0,2-3",
                          list);
    if (sched_setaffinity(0, sizeof(set), &set) != 0)
        return errmsg_set(err, STATUS_INVALID, "--cpus: this process may use none of `%.40s`",
                          list);
    return STATUS_OK;
}

enum status cli_cpus_part(const char *lists, uint32_t nth, char *out, size_t size,
                          struct errmsg *err)
{
    uint32_t count = 1;
    cpu_set_t set;

    for (const char *at = lists; *at != '\0'; at++)
        count += *at == '/';
    for (nth %= count; nth > 0; nth--)
        lists = strchr(lists, '/') + 1;
    const size_t len = strcspn(lists, "/");
    if (len >= size || !parse(lists, lists + len, &set))
        return errmsg_set(err, STATUS_INVALID, "--cpus: `%.40s` is no list of CPUs, as 0,2-3",
                          lists);
    memcpy(out, lists, len);
    out[len] = '\0';
    return STATUS_OK;
}
