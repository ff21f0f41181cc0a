/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/quotas.h - quotas of tenants as a person writes them.
 *
 *     SIZE          bytes of memory, such as 512M
 *     SIZE/COUNT    and values, each replica counted
 *     /COUNT        only those
 *     none          no limit
 *
 * Pure. */
#ifndef CLI_QUOTAS_H
#define CLI_QUOTAS_H

#include "base/status.h"
#include "yolk/store.h"

/* Fills in quota_bytes and quota_replicas. STATUS_INVALID. */
MUST_USE enum status quotas_parse_one(const char *text, struct yolk_store_tenant *out,
                                      struct errmsg *err);

/* NAME=QUOTA,NAME=QUOTA; "" is an empty list. `each` may refuse one. STATUS_INVALID. */
MUST_USE enum status quotas_parse(const char *text,
                                  enum status (*each)(void *ctx,
                                                      const struct yolk_store_tenant *tenant),
                                  void *ctx, struct errmsg *err);

#endif
