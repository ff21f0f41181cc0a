/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/cluster.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* What is read is within its ranges, so that it reads again after being written. As a command line
 * too: the same bytes, cut at the first NUL. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct sim_cluster cluster, again;
    struct buf text;
    char *line = strndup((const char *)data, len);

    if (line == NULL) abort();
    cluster_init(&cluster);
    cluster_init(&again);
    buf_init(&text, 1 << 20);
    const bool read = cluster_parse("fuzz", (const char *)data, len, &cluster, NULL) == STATUS_OK ||
                      cluster_set(&cluster, line, NULL) == STATUS_OK ||
                      cluster_set_nodes(&cluster, line, NULL) == STATUS_OK;
    if (cluster_write(&cluster, &text) != STATUS_OK) abort();
    if (cluster_parse("again", (const char *)buf_data(&text), text.len, &again, NULL) != STATUS_OK)
        abort();
    if (read && (again.system != cluster.system || again.prefill != cluster.prefill)) abort();
    buf_fini(&text);
    free(line);
    return 0;
}
