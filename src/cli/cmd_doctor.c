/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/cmd_doctor.c - `yolk doctor`: what of this machine will slow Yolk down, and the line that
 * mends it.
 *
 * Every check looks at one thing and gives one finding: fine, a note (only some uses want more), or
 * a warning. Nothing is changed, and what cannot be read is skipped: a container hides much. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/env.h"
#include "cli/cli.h"
#include "cli/report.h"

enum { FINDINGS_MAX = 96, FILE_MAX = 1 << 20 };

struct doctor {
    struct env *env;
    uint32_t count;
    struct report_finding findings[FINDINGS_MAX];
};

static struct report_finding *add(struct doctor *doctor, enum report_level level, const char *what)
{
    ASSERT(doctor->count < FINDINGS_MAX);
    struct report_finding *finding = &doctor->findings[doctor->count++];
    *finding = (struct report_finding){ .level = level };
    snprintf(finding->what, sizeof(finding->what), "%s", what);
    return finding;
}

PRINTF_LIKE(2, 3) static void found(struct report_finding *finding, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(finding->found, sizeof(finding->found), format, args);
    va_end(args);
}

PRINTF_LIKE(2, 3) static void fix(struct report_finding *finding, const char *format, ...)
{
    va_list args;
    if (finding->level == REPORT_OK) return;
    va_start(args, format);
    vsnprintf(finding->fix, sizeof(finding->fix), format, args);
    va_end(args);
}

/* The file without its last newline; NULL if it cannot be read. The caller frees. */
static char *read_text(struct doctor *doctor, const char *path)
{
    char *text = NULL;
    size_t len = 0;

    if (env_file_read_all(doctor->env, path, FILE_MAX, &text, &len, NULL) != STATUS_OK) return NULL;
    while (len > 0 && text[len - 1] == '\n')
        text[--len] = '\0';
    return text;
}

static bool read_number(struct doctor *doctor, const char *path, uint64_t *out)
{
    char *text = read_text(doctor, path);
    char *end = text;

    if (text != NULL) *out = strtoull(text, &end, 10);
    const bool read = end != text;
    free(text);
    return read;
}

/* The number after `key` in a file of lines; "unlimited" is UINT64_MAX. */
static bool read_field(struct doctor *doctor, const char *path, const char *key, uint64_t *out)
{
    char *text = read_text(doctor, path);
    const char *at = text != NULL ? strstr(text, key) : NULL;
    char *end = NULL;
    bool read = false;

    if (at != NULL) {
        at += strlen(key);
        at += strspn(at, " \t:");
        *out = strtoull(at, &end, 10);
        read = end != at;
        if (strncmp(at, "unlimited", 9) == 0) *out = UINT64_MAX, read = true;
    }
    free(text);
    return read;
}

/* ---- limits ---- */

static void check_limits(struct doctor *doctor)
{
    uint64_t files, locked;

    if (read_field(doctor, "/proc/self/limits", "Max open files", &files)) {
        struct report_finding *one =
            add(doctor, files >= 65536 ? REPORT_OK : REPORT_WARN, "open files");
        found(one, "%llu", (unsigned long long)files);
        fix(one, "ulimit -n 1048576, or LimitNOFILE=1048576 in the service: each client is one");
    }
    if (read_field(doctor, "/proc/self/limits", "Max locked memory", &locked)) {
        struct report_finding *one =
            add(doctor, locked == UINT64_MAX ? REPORT_OK : REPORT_NOTE, "memlock");
        if (locked == UINT64_MAX) {
            found(one, "unlimited");
        } else {
            found(one, "%llu KiB", (unsigned long long)(locked / 1024));
        }
        fix(one, "ulimit -l unlimited, or LimitMEMLOCK=infinity: RDMA pins what it registers");
    }
}

/* ---- memory ---- */

static void check_huge_pages(struct doctor *doctor)
{
    static const struct {
        const char *what, *path, *fix;
    } files[] = {
        { "huge pages", "/sys/kernel/mm/transparent_hugepage/enabled",
          "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled" },
        { "huge pages, shared memory", "/sys/kernel/mm/transparent_hugepage/shmem_enabled",
          "echo advise > /sys/kernel/mm/transparent_hugepage/shmem_enabled" },
    };

    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        char *text = read_text(doctor, files[i].path);
        if (text == NULL) continue;
        const bool off = strstr(text, "[never]") != NULL;
        struct report_finding *one = add(doctor, off ? REPORT_NOTE : REPORT_OK, files[i].what);
        found(one, "%.100s", text);
        fix(one, "%s", files[i].fix);
        free(text);
    }
}

static void check_memory(struct doctor *doctor)
{
    uint64_t available, swap, total_swap;

    if (read_field(doctor, "/proc/meminfo", "MemAvailable", &available)) {
        struct report_finding *one =
            add(doctor, available >= 4u << 20 ? REPORT_OK : REPORT_WARN, "memory available");
        found(one, "%.1f GiB", (double)available / (1 << 20));
        fix(one, "give nodes a smaller --pool-size: what is swapped out is slower than computing");
    }
    if (read_field(doctor, "/proc/meminfo", "SwapTotal", &total_swap) &&
        read_field(doctor, "/proc/meminfo", "SwapFree", &swap)) {
        const bool used = total_swap - swap > 256u << 10;
        struct report_finding *one = add(doctor, used ? REPORT_WARN : REPORT_OK, "swap");
        found(one, "%.1f GiB in use", (double)(total_swap - swap) / (1 << 20));
        fix(one, "swapoff -a, or a smaller --pool-size");
    }
}

static void check_numa(struct doctor *doctor)
{
    char *nodes = read_text(doctor, "/sys/devices/system/node/online");
    uint64_t balancing = 0;

    if (nodes == NULL) return;
    const bool several = strpbrk(nodes, "-,") != NULL;
    struct report_finding *one = add(doctor, several ? REPORT_NOTE : REPORT_OK, "NUMA nodes");
    found(one, "%.100s", nodes);
    fix(one, "one node process per NUMA node (numactl -N n -m n), and --transfer-topology");
    free(nodes);
    if (several && read_number(doctor, "/proc/sys/kernel/numa_balancing", &balancing)) {
        one = add(doctor, balancing != 0 ? REPORT_WARN : REPORT_OK, "NUMA balancing");
        found(one, "%s", balancing != 0 ? "on" : "off");
        fix(one, "sysctl kernel.numa_balancing=0: it unmaps pages to see who uses them");
    }
}

/* ---- network ---- */

static void check_interface(struct doctor *doctor, const struct env_interface *it)
{
    const bool fast = it->speed_mbps >= 10000;
    const bool small = fast && it->mtu != 0 && it->mtu < 4096;
    char what[40];

    snprintf(what, sizeof(what), "interface %s", it->name);
    struct report_finding *one = add(doctor, !it->up || small ? REPORT_WARN : REPORT_OK, what);
    if (it->speed_mbps != 0) {
        found(one, "%s, %s, %u Mbit/s, MTU %u, NUMA node %d", it->address, it->up ? "up" : "down",
              it->speed_mbps, it->mtu, it->numa_node);
    } else {
        found(one, "%s, %s, speed not told, MTU %u", it->address, it->up ? "up" : "down", it->mtu);
    }
    if (!it->up) {
        fix(one, "ip link set %s up", it->name);
    } else {
        fix(one, "ip link set %s mtu 9000, on the switch and at all peers too", it->name);
    }
}

static void check_network(struct doctor *doctor)
{
    struct env_interface interfaces[ENV_INTERFACES_MAX];
    const uint32_t count = env_interfaces(doctor->env, interfaces, ENV_INTERFACES_MAX / 2);
    uint64_t most = 0, backlog = 0;
    char *buffers = read_text(doctor, "/proc/sys/net/ipv4/tcp_wmem");

    for (uint32_t i = 0; i < count; i++) {
        if (!interfaces[i].loopback) check_interface(doctor, &interfaces[i]);
    }
    if (buffers != NULL) {
        const char *last = strrchr(buffers, '\t');
        most = last != NULL ? strtoull(last, NULL, 10) : 0;
        struct report_finding *one =
            add(doctor, most >= 4u << 20 ? REPORT_OK : REPORT_WARN, "TCP send buffer");
        found(one, "at most %llu KiB", (unsigned long long)(most / 1024));
        fix(one, "sysctl net.ipv4.tcp_wmem='4096 65536 16777216'");
    }
    free(buffers);
    if (read_number(doctor, "/proc/sys/net/core/somaxconn", &backlog)) {
        struct report_finding *one =
            add(doctor, backlog >= 1024 ? REPORT_OK : REPORT_WARN, "backlog");
        found(one, "%llu connections", (unsigned long long)backlog);
        fix(one, "sysctl net.core.somaxconn=4096");
    }
}

/* ---- devices and the kernel ---- */

struct listing {
    uint32_t count;
    char first[60];
};

static void on_entry(void *ctx, const char *name)
{
    struct listing *listing = ctx;

    if (name[0] == '.') return;
    if (listing->count++ == 0) snprintf(listing->first, sizeof(listing->first), "%s", name);
}

static void check_devices(struct doctor *doctor)
{
    struct listing rdma = { 0 };
    const enum status listed =
        env_dir_list(doctor->env, "/sys/class/infiniband", on_entry, &rdma, NULL);
    char *nvidia = read_text(doctor, "/proc/driver/nvidia/version");

    struct report_finding *one = add(doctor, REPORT_OK, "RDMA devices");
    if (listed != STATUS_OK || rdma.count == 0) {
        found(one, "none; transfers go over tcp, shm and vm");
    } else {
        one->level = REPORT_NOTE;
        found(one, "%u, %s first", rdma.count, rdma.first);
        fix(one, "none: this version does not use them; tcp over the same ports is used");
    }
    one = add(doctor, REPORT_OK, "GPU");
    if (nvidia == NULL) {
        found(one, "none; the engine computes on the CPU");
    } else {
        one->level = REPORT_NOTE;
        found(one, "NVIDIA driver loaded");
        fix(one, "none: this version computes on the CPU, and moves memory of GPUs for C programs; "
                 "`--engine timed` stands for a GPU");
    }
    free(nvidia);
}

static void check_kernel(struct doctor *doctor)
{
    uint64_t scope = 0, disabled = 0;
    char *clock =
        read_text(doctor, "/sys/devices/system/clocksource/clocksource0/current_clocksource");

    if (read_number(doctor, "/proc/sys/kernel/yama/ptrace_scope", &scope)) {
        struct report_finding *one =
            add(doctor, scope == 0 ? REPORT_OK : REPORT_NOTE, "ptrace scope");
        found(one, "%llu", (unsigned long long)scope);
        fix(one, "sysctl kernel.yama.ptrace_scope=0 lets the vm path read memory users brought");
    }
    if (read_number(doctor, "/proc/sys/kernel/io_uring_disabled", &disabled)) {
        struct report_finding *one =
            add(doctor, disabled == 0 ? REPORT_OK : REPORT_NOTE, "io_uring");
        found(one, "%s", disabled == 0 ? "allowed" : "disabled");
        fix(one, "sysctl kernel.io_uring_disabled=0: the SSD tier is faster with it");
    }
    if (clock != NULL) {
        const bool slow = strcmp(clock, "hpet") == 0 || strcmp(clock, "acpi_pm") == 0;
        struct report_finding *one = add(doctor, slow ? REPORT_WARN : REPORT_OK, "clock");
        found(one, "%.100s", clock);
        fix(one, "echo tsc > /sys/devices/system/clocksource/clocksource0/current_clocksource");
    }
    free(clock);
}

int cmd_doctor(struct cli *cli)
{
    static struct doctor doctor;

    doctor = (struct doctor){ .env = cli->env };
    check_limits(&doctor);
    check_memory(&doctor);
    check_huge_pages(&doctor);
    check_numa(&doctor);
    check_network(&doctor);
    check_devices(&doctor);
    check_kernel(&doctor);
    report_findings(doctor.findings, doctor.count, config_bool(cli->config, "json"));
    return CLI_EXIT_OK;
}
