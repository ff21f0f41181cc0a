/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/store_view.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ESCAPED_SIZE = 4 * YOLK_STORE_KEY_SIZE_MAX + 1, SIZE_TEXT = 24 };

/* ---- keys ---- */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

bool store_view_unescape(const char *text, uint8_t *out, size_t *len)
{
    size_t n = 0;
    for (const char *c = text; *c != '\0'; c++) {
        if (*c != '\\') {
            out[n++] = (uint8_t)*c;
        } else if (c[1] == '\\') {
            out[n++] = '\\';
            c++;
        } else if (c[1] == 'x' && hex_digit(c[2]) >= 0 && hex_digit(c[3]) >= 0) {
            out[n++] = (uint8_t)(hex_digit(c[2]) << 4 | hex_digit(c[3]));
            c += 3;
        } else {
            return false;
        }
    }
    *len = n;
    return true;
}

static void escape(const struct yolk_store_key *key, char out[ESCAPED_SIZE])
{
    const uint8_t *bytes = key->bytes;
    char *end = out;
    for (size_t i = 0; i < key->len; i++) {
        if (bytes[i] == '\\') {
            *end++ = '\\';
            *end++ = '\\';
        } else if (bytes[i] >= ' ' && bytes[i] <= '~') {
            *end++ = (char)bytes[i];
        } else {
            snprintf(end, 5, "\\x%02x", bytes[i]);
            end += 4;
        }
    }
    *end = '\0';
}

/* A string of JSON: what escape() or a node says, in quotes. */
static void print_quoted(const char *text)
{
    putchar('"');
    for (const char *c = text; *c != '\0'; c++) {
        if (*c == '"' || *c == '\\') putchar('\\');
        if ((unsigned char)*c < ' ') {
            printf("\\u%04x", (unsigned)*c);
        } else {
            putchar(*c);
        }
    }
    putchar('"');
}

static void print_word(const char *name, const char *value)
{
    printf("\"%s\": ", name);
    print_quoted(value);
    fputs(", ", stdout);
}

static const char *state_of(const struct yolk_store_entry *entry)
{
    switch ((int)entry->status) {
    case STATUS_OK:
        if (entry->hard_pin) return "pinned";
        return entry->block ? "block" : entry->soft_pin ? "soft" : "ok";
    case STATUS_BUSY: return "written";
    case STATUS_UNAVAILABLE: return "lost";
    default: return status_name(entry->status);
    }
}

void store_view_begin(struct store_list *list)
{
    list->any = false;
    if (list->json) putchar('[');
}

void store_view_entry(struct store_list *list, const struct yolk_store_entry *entry)
{
    char key[ESCAPED_SIZE];

    escape(&entry->key, key);
    if (!list->json) {
        printf("%12llu %2u %8.1f %-8s %s\n", (unsigned long long)entry->size, entry->replicas,
               entry->lease_ms / 1e3, state_of(entry), key);
        return;
    }
    printf("%s\n  {", list->any ? "," : "");
    print_word("key", key);
    printf("\"size\": %llu, \"replicas\": %u, \"lease_ms\": %u, \"state\": \"%s\"}",
           (unsigned long long)entry->size, entry->replicas, entry->lease_ms, state_of(entry));
    list->any = true;
}

void store_view_end(struct store_list *list)
{
    if (list->json) puts(list->any ? "\n]" : "]");
}

void store_view_where(const struct yolk_store_where *where, bool json)
{
    printf(json ? "{\"size\": %llu, \"replicas\": [" : "size      %llu\n",
           (unsigned long long)where->size);
    for (uint32_t i = 0; i < where->count; i++) {
        if (!json) {
            printf("replica   %s%s\n", where->replicas[i].rpc_address,
                   where->replicas[i].disk ? ", on disk" : "");
            continue;
        }
        if (i > 0) fputs(", ", stdout);
        print_quoted(where->replicas[i].rpc_address);
    }
    if (json) puts("]}");
}

/* ---- numbers ---- */

static const char *size_text(uint64_t bytes, char out[SIZE_TEXT])
{
    static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB" };
    double value = (double)bytes;
    size_t unit = 0;
    while (value >= 1024 && unit + 1 < sizeof(units) / sizeof(units[0])) {
        value /= 1024;
        unit++;
    }
    snprintf(out, SIZE_TEXT, unit == 0 ? "%.0f %s" : "%.1f %s", value, units[unit]);
    return out;
}

static double share(uint64_t part, uint64_t whole)
{
    return whole == 0 ? 0 : 100.0 * (double)part / (double)whole;
}

static void print_number(const char *name, uint64_t value)
{
    printf("\"%s\": %llu, ", name, (unsigned long long)value);
}

static void print_node_json(const struct yolk_store_node *node)
{
    putchar('{');
    print_word("name", node->name);
    print_word("address", node->rpc_address);
    print_word("role", node->role);
    print_word("state", node->state);
    print_number("space_total", node->space_total);
    print_number("space_used", node->space_used);
    print_number("values", node->values);
    print_number("blocks", node->blocks);
    print_number("load", node->load);
    printf("\"silent_ms\": %llu}", (unsigned long long)node->silent_ms);
}

static void print_tenant_json(const struct yolk_store_tenant *tenant)
{
    putchar('{');
    print_word("name", tenant->name);
    print_number("quota_bytes", tenant->quota_bytes);
    print_number("quota_replicas", tenant->quota_replicas);
    print_number("used_bytes", tenant->used_bytes);
    print_number("used_replicas", tenant->used_replicas);
    print_number("evicted_bytes", tenant->evicted_bytes);
    print_number("evicted_replicas", tenant->evicted_replicas);
    print_number("values", tenant->values);
    printf("\"refused_total\": %llu}", (unsigned long long)tenant->refused_total);
}

static bool is_wanted(const struct yolk_store_tenant *tenant, const char *only)
{
    return only == NULL || strcmp(tenant->name, only) == 0;
}

static void print_tenants_json(const struct yolk_store_tenant *tenants, uint32_t count,
                               const char *only)
{
    bool any = false;
    putchar('[');
    for (uint32_t i = 0; i < count; i++) {
        if (!is_wanted(&tenants[i], only)) continue;
        fputs(any ? ",\n  " : "\n  ", stdout);
        print_tenant_json(&tenants[i]);
        any = true;
    }
    putchar(']');
}

static void print_tenants(const struct yolk_store_tenant *tenants, uint32_t count, const char *only)
{
    char used[SIZE_TEXT], quota[SIZE_TEXT];

    printf("%-24s %12s %12s %10s %10s %10s %10s %8s\n", "TENANT", "USED", "QUOTA", "REPLICAS",
           "AT MOST", "KEYS", "EVICTED", "REFUSED");
    for (uint32_t i = 0; i < count; i++) {
        const struct yolk_store_tenant *t = &tenants[i];
        if (!is_wanted(t, only)) continue;
        printf("%-24s %12s %12s %10llu ", t->name, size_text(t->used_bytes, used),
               t->quota_bytes == 0 ? "-" : size_text(t->quota_bytes, quota),
               (unsigned long long)t->used_replicas);
        if (t->quota_replicas == 0) {
            printf("%10s ", "-");
        } else {
            printf("%10llu ", (unsigned long long)t->quota_replicas);
        }
        printf("%10llu %10llu %8llu\n", (unsigned long long)t->values,
               (unsigned long long)t->evicted_replicas, (unsigned long long)t->refused_total);
    }
}

void store_view_tenants(const struct yolk_store_tenant *tenants, uint32_t count, const char *only,
                        bool json)
{
    if (json) {
        print_tenants_json(tenants, count, only);
        putchar('\n');
    } else {
        print_tenants(tenants, count, only);
    }
}

static void print_json(const struct yolk_store_stats *s, const struct yolk_store_node *nodes,
                       uint32_t count, const struct yolk_store_tenant *tenants,
                       uint32_t tenants_count)
{
    putchar('{');
    print_number("term", s->term);
    print_number("uptime_ms", s->uptime_ms);
    print_number("objects", s->objects);
    print_number("values", s->values);
    print_number("processing", s->processing);
    print_number("replicas", s->replicas);
    print_number("space_total", s->space_total);
    print_number("space_used", s->space_used);
    print_number("evictions_total", s->evictions_total);
    print_number("puts_total", s->puts_total);
    print_number("refused_full_total", s->refused_full_total);
    print_number("conflicts_total", s->conflicts_total);
    print_number("discarded_total", s->discarded_total);
    print_number("memory", s->memory);
    print_number("reads_total", s->reads_total);
    print_number("hits_total", s->hits_total);
    print_number("removes_total", s->removes_total);
    print_number("refused_quota_total", s->refused_quota_total);
    print_number("hot_values", s->hot_values);
    print_number("hot_replicas", s->hot_replicas);
    print_number("hot_taken_total", s->hot_taken_total);
    print_number("copies", s->copies);
    print_number("copies_total", s->copies_total);
    fputs("\"nodes\": [", stdout);
    for (uint32_t i = 0; i < count; i++) {
        fputs(i > 0 ? ",\n  " : "\n  ", stdout);
        print_node_json(&nodes[i]);
    }
    fputs("],\n\"tenants\": ", stdout);
    print_tenants_json(tenants, tenants_count, NULL);
    puts("}");
}

/* What was done since the last look, a second. */
static void print_rates(const struct yolk_store_stats *now, const struct yolk_store_stats *before)
{
    const double seconds = (double)(now->uptime_ms - before->uptime_ms) / 1e3;
    if (before->uptime_ms == 0 || seconds <= 0 || now->term != before->term) return;
    printf("a second  %.0f reads, %.0f puts, %.0f removes, %.0f evictions\n",
           (double)(now->reads_total - before->reads_total) / seconds,
           (double)(now->puts_total - before->puts_total) / seconds,
           (double)(now->removes_total - before->removes_total) / seconds,
           (double)(now->evictions_total - before->evictions_total) / seconds);
}

static void print_pool(const struct yolk_store_stats *s, const struct yolk_store_stats *before)
{
    char used[SIZE_TEXT], total[SIZE_TEXT], memory[SIZE_TEXT];

    printf("values    %llu, %llu being written, %s of %s lent (%.0f%%)\n",
           (unsigned long long)s->values, (unsigned long long)s->processing,
           size_text(s->space_used, used), size_text(s->space_total, total),
           share(s->space_used, s->space_total));
    printf("blocks    %llu\n", (unsigned long long)(s->objects - s->values));
    printf("reads     %llu keys, %.1f%% there\n", (unsigned long long)s->reads_total,
           share(s->hits_total, s->reads_total));
    printf("puts      %llu, %llu refused for room, %llu for a quota, %llu given up by their "
           "writers\n",
           (unsigned long long)s->puts_total, (unsigned long long)s->refused_full_total,
           (unsigned long long)s->refused_quota_total, (unsigned long long)s->discarded_total);
    printf("gone      %llu evicted, %llu removed\n", (unsigned long long)s->evictions_total,
           (unsigned long long)s->removes_total);
    printf("replicas  %llu, %llu of them for %llu values that are hot; %llu copied, %llu being "
           "copied\n",
           (unsigned long long)s->replicas, (unsigned long long)s->hot_replicas,
           (unsigned long long)s->hot_values, (unsigned long long)s->copies_total,
           (unsigned long long)s->copies);
    printf("master    term %llu, up %.0f s, directory %s\n", (unsigned long long)s->term,
           (double)s->uptime_ms / 1e3, size_text(s->memory, memory));
    print_rates(s, before);
}

static void print_nodes(const struct yolk_store_node *nodes, uint32_t count)
{
    char used[SIZE_TEXT], total[SIZE_TEXT], load[SIZE_TEXT];

    printf("\n%-24s %-8s %-11s %12s %12s %12s %8s %8s  %s\n", "NODE", "ROLE", "STATE", "USED",
           "LENT", "LOAD/S", "VALUES", "BLOCKS", "ADDRESS");
    for (uint32_t i = 0; i < count; i++) {
        const struct yolk_store_node *n = &nodes[i];
        printf("%-24s %-8s %-11s %12s %12s %12s %8llu %8llu  %s\n", n->name, n->role, n->state,
               size_text(n->space_used, used), size_text(n->space_total, total),
               size_text(n->load, load), (unsigned long long)n->values,
               (unsigned long long)n->blocks, n->rpc_address);
    }
}

void store_view_stats(struct store_view *view, const struct yolk_store_stats *stats,
                      const struct yolk_store_node *nodes, uint32_t count,
                      const struct yolk_store_tenant *tenants, uint32_t tenants_count)
{
    if (view->json) {
        print_json(stats, nodes, count, tenants, tenants_count);
        return;
    }
    if (view->live) fputs("\033[H\033[J", stdout);
    print_pool(stats, &view->before);
    print_nodes(nodes, count);
    if (tenants_count > 1 || (tenants_count == 1 && tenants[0].quota_bytes > 0)) {
        putchar('\n');
        print_tenants(tenants, tenants_count, NULL);
    }
    fflush(stdout);
    view->before = *stats;
}
