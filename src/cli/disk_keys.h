/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/disk_keys.h - the file of --ssd-key-file: what the disk tiers are sealed with. */
#ifndef CLI_DISK_KEYS_H
#define CLI_DISK_KEYS_H

#include "base/status.h"

struct cli;
struct ssd_keys;

/* out->count is 0 where no file is named. STATUS_DENIED: others than its owner may read or change
 * it; STATUS_INVALID: what is in it; or why it cannot be read. err says so, without a key. */
MUST_USE enum status disk_keys_load(struct cli *cli, struct ssd_keys *out, struct errmsg *err);

#endif
