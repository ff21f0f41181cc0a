/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/base64.h - base64 with padding (RFC 4648, section 4), in which etcd's gateway wraps
 * bytes. Pure; memory is the caller's; any thread. */
#ifndef TRANSFER_BASE64_H
#define TRANSFER_BASE64_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

struct buf;

/* Appends. */
MUST_USE enum status base64_write(struct buf *out, const void *data, size_t len);

/* Writes at most len / 4 * 3 bytes to out. PROTOCOL for what no writer would have written. */
MUST_USE enum status base64_read(const char *text, size_t len, uint8_t *out, size_t *out_len);

#endif
