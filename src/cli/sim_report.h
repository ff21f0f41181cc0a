/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/sim_report.h - `yolk sim --report DIR`: a study of a cluster as a page and as numbers.
 *
 * Writes DIR/index.html and DIR/report.json, each whole or not at all. DIR is made if it is
 * missing. */
#ifndef CLI_SIM_REPORT_H
#define CLI_SIM_REPORT_H

#include "base/status.h"

struct cli;
struct study;

/* Can the report be written to `dir`? Asked before the runs, which take a while. */
MUST_USE enum status sim_report_prepare(struct cli *cli, const char *dir, struct errmsg *err);

MUST_USE enum status sim_report_write(struct cli *cli, const char *dir, const struct study *study,
                                      struct errmsg *err);

#endif
