/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/trace.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct trace *trace = NULL;
    struct trace_stat stat;

    if (trace_parse("fuzz", (const char *)data, len, &trace, NULL) != STATUS_OK) return 0;
    if (trace_measure(trace, &stat) == STATUS_OK && stat.requests != trace->count) abort();
    trace_destroy(trace);
    return 0;
}
