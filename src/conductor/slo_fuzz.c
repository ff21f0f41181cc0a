/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/slo_fuzz.c - classes as an operator might write them: refused with a reason and nothing
 * changed, or classes of different names, each with limits and a priority within their ranges. */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "conductor/slo.h"
#include "yolk/conductor.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void check_limit(double ms)
{
    ASSERT(ms >= 0); /* not NaN; INFINITY is no limit */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static struct slo_classes classes, before;
    struct errmsg err = { "" };
    char *text = strndup((const char *)data, len);

    if (text == NULL) abort();
    before = classes;
    if (slo_parse(text, &classes, &err) != STATUS_OK) {
        ASSERT(err.text[0] != '\0');
        ASSERT(memcmp(&classes, &before, sizeof(classes)) == 0);
    }
    free(text);
    ASSERT(classes.count <= SLO_CLASSES_MAX);
    for (uint32_t i = 0; i < classes.count; i++) {
        const struct slo_class *class = &classes.classes[i];
        ASSERT(slo_find(&classes, class->name) == class); /* so no two have one name */
        check_limit(class->ttft_ms);
        check_limit(class->tbt_ms);
        ASSERT(class->priority >= YOLK_PRIORITY_MIN && class->priority <= YOLK_PRIORITY_MAX);
    }
    return 0;
}
