/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/trace_record.h - `yolk trace record`: a live gateway's traffic, into a file, as it comes. */
#ifndef CLI_TRACE_RECORD_H
#define CLI_TRACE_RECORD_H

struct cli;

/* Returns the exit code. */
int trace_record(struct cli *cli);

#endif
