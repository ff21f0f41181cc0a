/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/classes.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/rng.h"

enum { STREAM = 91 /* of chance */, TEXT_SIZE = 1024 };

static enum status parse_shares(const char *text, uint32_t count, double *until, struct errmsg *err)
{
    double sum = 0;
    uint32_t found = 0;

    for (const char *at = text + strspn(text, " "); *at != '\0'; at += strspn(at, " ")) {
        char *end = NULL;
        const double share = strtod(at, &end);
        if (end == at || (*end != '\0' && *end != ' ') || !(share > 0) || share > 1e9)
            return errmsg_set(err, STATUS_INVALID, "class_shares: `%.32s` is no share above 0", at);
        sum += share;
        if (found < count) until[found] = sum;
        found++;
        at = end;
    }
    if (found != count)
        return errmsg_set(err, STATUS_INVALID, "class_shares: not one share for each of %u classes",
                          count);
    for (uint32_t i = 0; i < count; i++)
        until[i] /= sum;
    return STATUS_OK;
}

enum status sim_classes_parse(const char *classes, const char *shares, struct sim_classes *out,
                              struct errmsg *err)
{
    struct sim_classes found = { 0 };
    char text[TEXT_SIZE];

    if (strlen(classes) >= sizeof(text))
        return errmsg_set(err, STATUS_INVALID, "classes: too long");
    for (size_t i = 0; i <= strlen(classes); i++)
        text[i] = classes[i] == ' ' ? ',' : classes[i];
    enum status status = slo_parse(text, &found.list, err);
    if (status != STATUS_OK) return status;
    const uint32_t count = found.list.count;
    for (uint32_t i = 0; i < count; i++)
        found.until[i] = (i + 1.0) / count;
    if (count == 0 && shares[0] != '\0')
        return errmsg_set(err, STATUS_INVALID, "class_shares: there are no classes");
    if (shares[0] != '\0') status = parse_shares(shares, count, found.until, err);
    if (status == STATUS_OK) *out = found;
    return status;
}

uint32_t sim_classes_draw(const struct sim_classes *classes, uint64_t seed, uint32_t who)
{
    const double unit = ldexp((double)(rng_counter(rng_counter(seed, STREAM), who) >> 11), -53);
    uint32_t class = 0;

    ASSERT(classes->list.count > 0);
    while (class + 1 < classes->list.count && unit >= classes->until[class])
        class ++;
    return class;
}
