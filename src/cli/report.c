/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/report.h"

#include <jansson.h>
#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/env.h"
#include "base/env_real.h"
#include "cli/cli.h"

struct report_row *report_add(struct report *report, const char *name, double value,
                              const char *unit)
{
    ASSERT(report->count < REPORT_ROWS_MAX);
    struct report_row *row = &report->rows[report->count++];
    *row = (struct report_row){
        .value = value, .baseline = NAN, .low = NAN, .high = NAN, .target = NAN
    };
    snprintf(row->name, sizeof(row->name), "%s", name);
    snprintf(row->unit, sizeof(row->unit), "%s", unit);
    return row;
}

static double row_ratio(const struct report_row *row)
{
    return row->value / row->baseline; /* NaN without a baseline */
}

static bool row_met(const struct report_row *row)
{
    const bool compared = !isnan(row->baseline);
    double judged = compared ? row_ratio(row) : row->value;
    if (compared && !isnan(row->low)) judged = row->kind == REPORT_AT_MOST ? row->low : row->high;
    return row->kind == REPORT_AT_MOST ? judged <= row->target : judged >= row->target;
}

static json_t *number_or_null(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *met_json(const struct report_row *row)
{
    if (row->kind == REPORT_NO_TARGET || row->skipped[0] != '\0') return json_null();
    return json_boolean(row_met(row));
}

static json_t *row_json(const struct report_row *row)
{
    return json_pack("{s:s, s:o, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "name", row->name,
                     "value", number_or_null(row->value), "unit", row->unit, "baseline",
                     number_or_null(row->baseline), "ratio", number_or_null(row_ratio(row)), "low",
                     number_or_null(row->low), "high", number_or_null(row->high), "target",
                     number_or_null(row->target), "met", met_json(row), "skipped",
                     row->skipped[0] != '\0' ? json_string(row->skipped) : json_null());
}

static void print_json(const struct report *report, const char *machine)
{
    json_t *rows = json_array();
    for (uint32_t i = 0; i < report->count; i++) {
        json_array_append_new(rows, row_json(&report->rows[i]));
    }
    json_t *root = json_pack("{s:s, s:s, s:s, s:o}", "bench", report->bench, "commit", YOLK_COMMIT,
                             "machine", machine, "rows", rows);
    ASSERT(root != NULL);
    json_dumpf(root, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(6));
    putchar('\n');
    json_decref(root);
}

static void print_row(const struct report_row *row)
{
    if (row->skipped[0] != '\0') {
        printf("%-34s skipped: %s\n", row->name, row->skipped);
        return;
    }
    printf("%-34s %12.4g %-9s", row->name, row->value, row->unit);
    if (!isnan(row->baseline)) printf(" %10.3f x %.4g", row_ratio(row), row->baseline);
    if (!isnan(row->low)) printf(" [%.3f %.3f]", row->low, row->high);
    if (row->kind != REPORT_NO_TARGET) {
        printf("  target %s %g: %s", row->kind == REPORT_AT_MOST ? "<=" : ">=", row->target,
               row_met(row) ? "met" : "missed");
    }
    putchar('\n');
}

void report_print(const struct report *report, bool json)
{
    char machine[128];
    report_machine(machine, sizeof(machine));
    if (json) {
        print_json(report, machine);
        return;
    }
    printf("%s, commit %s, %s\n", report->bench, YOLK_COMMIT, machine);
    for (uint32_t i = 0; i < report->count; i++)
        print_row(&report->rows[i]);
}

static void findings_json(const struct report_finding *findings, uint32_t count,
                          const char *const levels[])
{
    json_t *all = json_array();

    for (uint32_t i = 0; i < count; i++) {
        const struct report_finding *one = &findings[i];
        json_array_append_new(all,
                              json_pack("{s:s, s:s, s:s, s:s}", "level", levels[one->level], "what",
                                        one->what, "found", one->found, "fix", one->fix));
    }
    json_dumpf(all, stdout, JSON_INDENT(1));
    putchar('\n');
    json_decref(all);
}

void report_findings(const struct report_finding *findings, uint32_t count, bool json)
{
    static const char *const levels[] = { "ok", "note", "WARN" };

    if (json) {
        findings_json(findings, count, levels);
        return;
    }
    for (uint32_t i = 0; i < count; i++) {
        const struct report_finding *one = &findings[i];
        printf("%-5s %-26s %s\n", levels[one->level], one->what, one->found);
        if (one->fix[0] != '\0') printf("      %-26s %s\n", "fix:", one->fix);
    }
}

void report_machine(char *out, uint32_t size)
{
    struct env *env = NULL;
    char *text = NULL;
    size_t len = 0;
    char model[96] = "unknown CPU";
    cpu_set_t cpus;

    if (env_real_create(NULL, &env, NULL) == STATUS_OK &&
        env_file_read_all(env, "/proc/cpuinfo", 1 << 20, &text, &len, NULL) == STATUS_OK) {
        const char *found = strstr(text, "model name");
        if (found != NULL && (found = strchr(found, ':')) != NULL) {
            snprintf(model, sizeof(model), "%.*s", (int)strcspn(found + 2, "\n"), found + 2);
        }
    }
    free(text);
    env_real_destroy(env);
    CPU_ZERO(&cpus);
    if (sched_getaffinity(0, sizeof(cpus), &cpus) != 0) CPU_SET(0, &cpus);
    snprintf(out, size, "%s, %d CPUs", model, CPU_COUNT(&cpus));
}

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a;
    const double y = *(const double *)b;
    return (x > y) - (x < y);
}

double report_median(double *values, uint32_t count)
{
    ASSERT(count > 0);
    qsort(values, count, sizeof(*values), compare);
    return count % 2 == 1 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}
