/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/profile.h - what has been learned about costs, as a JSON text for a cache file.
 *
 *     {"version": 1, "prefill": FIT, "decode": FIT, "transfer": [FIT same host, FIT network],
 *      "ssd": FIT of loading from SSD; may be missing}
 *     FIT = {"kind": name, "samples": count, "variance": ms^2, "coef": [numbers]}
 *
 * A text loaded becomes the prior of new fits: it starts predictions in the right place and yields
 * to the first real samples. No file is touched here. Threads: values only. */
#ifndef CONDUCTOR_PROFILE_H
#define CONDUCTOR_PROFILE_H

#include <stddef.h>

#include "base/status.h"
#include "conductor/cost.h"

enum { CONDUCTOR_PATHS = 2, CONDUCTOR_PROFILE_SIZE_MAX = 65536 };

struct conductor_profile {
    struct conductor_fit prefill;
    struct conductor_fit decode;
    struct conductor_fit transfer[CONDUCTOR_PATHS];
    struct conductor_fit ssd;
};

void conductor_profile_init(struct conductor_profile *profile);

/* NUL-terminated; the caller frees. STATUS_NO_MEMORY. */
MUST_USE enum status conductor_profile_format(const struct conductor_profile *profile, char **out,
                                              size_t *len);

/* STATUS_INVALID for a text that is no profile of this version, or holds numbers no fit can have;
 * err says what; *out is untouched. */
MUST_USE enum status conductor_profile_parse(const char *text, size_t len,
                                             struct conductor_profile *out, struct errmsg *err);

#endif
