/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/fetch.h - a model given by URL: its file in the cache, fetched if it is not there.
 *
 *   http://HOST[:PORT]/PATH[?QUERY][#sha256=HEX]      or https://
 *
 * A file has its name in models/ once it is whole: as long as the server said, a GGUF file, and of
 * the SHA-256 behind '#', or else of the one that the server has in PATH.sha256; where there is
 * neither, its own is said. Until then it is in models/.fetch/, where the next try goes on.
 * What a URL has behind '?' may be a secret, and is in no message and no name.
 *
 * Limits:  FETCH_SIZE_MAX bytes, URLs of FETCH_URL_SIZE. Memory: a few KiB. Threads: the env's. */
#ifndef CLI_FETCH_H
#define CLI_FETCH_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "cli/cli.h"

struct env;

#define FETCH_SIZE_MAX (UINT64_C(64) << 30)

bool fetch_is_url(const char *model);

/* Waits until the file is in the cache, with a bar on a terminal. STATUS_INVALID for a URL that is
 * none, and for what is no model; STATUS_NOT_FOUND, STATUS_DENIED, STATUS_FULL (of the disk, or the
 * limit), STATUS_CORRUPT (another SHA-256), STATUS_EXISTS (somebody is fetching it), and those of
 * connections; err says it in one line. */
MUST_USE enum status fetch_model(struct env *env, const char *url, char out[CLI_PATH_SIZE],
                                 struct errmsg *err);

#endif
