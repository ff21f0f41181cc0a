/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/report.h - what every `yolk bench` prints: rows of a value beside its yardstick.
 *
 * As JSON: {"bench", "commit", "machine", "rows": [{"name", "value", "unit", "baseline", "ratio",
 * "low", "high", "target", "met", "skipped"}]}. As text: one aligned line per row. `baseline` is
 * what was measured for comparison in the same run; `ratio` is value / baseline; `target` bounds
 * the ratio if there is a baseline and the value otherwise. `low` and `high` are the 95% confidence
 * interval of what is judged, if one was taken: a ratio, of two noisy figures, is met when its
 * interval reaches the target, a value only when it does itself. What does not apply is null.
 *
 * Limits:  REPORT_ROWS_MAX rows.
 * Threads: one. */
#ifndef CLI_REPORT_H
#define CLI_REPORT_H

#include <stdbool.h>
#include <stdint.h>

enum { REPORT_ROWS_MAX = 128 };

enum report_target { REPORT_NO_TARGET = 0, REPORT_AT_MOST, REPORT_AT_LEAST };

struct report_row {
    char name[64];
    char unit[16];
    double value;
    double baseline;   /* NaN: none */
    double low, high;  /* 95% interval of what is judged; NaN: none was taken */
    char skipped[128]; /* why it was not measured; "": it was */
    enum report_target kind;
    double target;
};

struct report {
    const char *bench;
    uint32_t count;
    struct report_row rows[REPORT_ROWS_MAX];
};

/* Adds a row; the caller may fill baseline, kind and target of what is returned. */
struct report_row *report_add(struct report *report, const char *name, double value,
                              const char *unit);

/* ---- findings of `yolk doctor` ---- */

enum report_level { REPORT_OK, REPORT_NOTE, REPORT_WARN };

struct report_finding {
    enum report_level level;
    char what[40];
    char found[120];
    char fix[200]; /* "": nothing to mend */
};

/* To stdout: aligned lines, or a JSON array of {"level", "what", "found", "fix"}. */
void report_findings(const struct report_finding *findings, uint32_t count, bool json);

/* Prints to stdout. */
void report_print(const struct report *report, bool json);

/* The CPU's name and the number of CPUs we may run on, as in "AMD EPYC, 2 CPUs". */
void report_machine(char *out, uint32_t size);

/* The median of count values, which it sorts. */
double report_median(double *values, uint32_t count);

#endif
