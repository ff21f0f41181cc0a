/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/cluster.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "sim/classes.h"
#include "sim/failure.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* The texts among the settings, which are read when a run begins. */
static void read_texts(const char *line)
{
    struct failure failures[FAILURES_MAX];
    struct sim_classes classes;
    uint32_t count = 0;

    if (failure_parse(line, failures, &count, NULL) == STATUS_OK) {
        for (uint32_t i = 0; i < count; i++) {
            if (!(failures[i].at_s >= 0) || !(failures[i].down_s > 0)) abort();
        }
    }
    /* Whatever stands behind a bar are the shares. */
    const size_t names = strcspn(line, "|");
    char *classes_text = strndup(line, names);
    if (classes_text == NULL) abort();
    if (sim_classes_parse(classes_text, line[names] == '|' ? line + names + 1 : "", &classes,
                          NULL) == STATUS_OK &&
        classes.list.count > SLO_CLASSES_MAX)
        abort();
    free(classes_text);
}

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
    read_texts(line);
    buf_fini(&text);
    free(line);
    return 0;
}
