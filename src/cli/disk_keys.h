/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/disk_keys.h - what becomes of what goes to disk: --ssd-key-file, with what it is sealed, and
 * --ssd-compress. */
#ifndef CLI_DISK_KEYS_H
#define CLI_DISK_KEYS_H

#include <stdint.h>

#include "base/status.h"

struct cli;
struct ssd_keys;

/* out->count is 0 where no file is named. STATUS_DENIED: others than its owner may read or change
 * it; STATUS_INVALID: what is in it; or why it cannot be read. err says so, without a key. */
MUST_USE enum status disk_keys_load(struct cli *cli, struct ssd_keys *out, struct errmsg *err);

/* What --ssd-compress asks for; 0: nothing. STATUS_INVALID, or STATUS_UNSUPPORTED without the
 * library. */
MUST_USE enum status disk_packing_load(struct cli *cli, uint32_t *level, struct errmsg *err);

#endif
