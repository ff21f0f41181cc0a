/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/profile_fuzz.c - a cost profile from a damaged cache file: refused, or good for
 * predictions that are finite and never negative, and for another round trip. */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/assert.h"
#include "conductor/cost.h"
#include "conductor/profile.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void check_prediction(double ms)
{
    ASSERT(isfinite(ms) && ms >= 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct conductor_profile profile, again;
    struct errmsg err = { "" };
    char *text = NULL;
    size_t text_len = 0;

    if (conductor_profile_parse((const char *)data, len, &profile, &err) != STATUS_OK) {
        ASSERT(err.text[0] != '\0');
        return 0;
    }
    check_prediction(conductor_cost_prefill(&profile.prefill, 8192, 32));
    check_prediction(conductor_cost_decode(&profile.decode, 8, 65536));
    for (int i = 0; i < CONDUCTOR_PATHS; i++) {
        check_prediction(conductor_cost_transfer(&profile.transfer[i], 1e9));
    }
    enum status status = conductor_profile_format(&profile, &text, &text_len);
    ASSERT(status == STATUS_OK);
    status = conductor_profile_parse(text, text_len, &again, NULL);
    ASSERT(status == STATUS_OK);
    free(text);
    return 0;
}
