/* SPDX-License-Identifier: Apache-2.0
 *
 * store/master_metrics.h - the master's numbers for Prometheus, over HTTP: GET /metrics, in text
 * format 0.0.4, GET /health, and GET /get_all_segments: names of the nodes that lend memory, one a
 * line, which SGLang and FlexKV wait for before they start.
 *
 * Metrics with a name that Mooncake's master has mean what they mean there; the others begin with
 * yolk_store_. docs/store.md lists them. Every scrape is read from the directory, and from the
 * tally of requests (store/master_tally.h), as they are: nothing is counted twice, and nothing is
 * kept between scrapes.
 *
 * Memory:  a page while it is sent, some 200 bytes a node and 600 a tenant.
 * Threads: the env's loop thread. */
#ifndef STORE_MASTER_METRICS_H
#define STORE_MASTER_METRICS_H

#include <stdint.h>

#include "base/status.h"

struct buf;
struct env;
struct master_tally;
struct store_master;
struct store_master_metrics; /* opaque */

/* Answers at `address` ("host:port", plain HTTP) about the directory and the requests it has had,
 * which outlive it. Statuses of http_server_create(). */
MUST_USE enum status store_master_metrics_create(struct env *env, const struct store_master *master,
                                                 const struct master_tally *tally,
                                                 const char *address,
                                                 struct store_master_metrics **out,
                                                 struct errmsg *err);
void store_master_metrics_destroy(struct store_master_metrics *metrics); /* NULL is allowed */

uint16_t store_master_metrics_port(const struct store_master_metrics *metrics);

/* Appends the page. STATUS_NO_MEMORY, STATUS_FULL. */
MUST_USE enum status store_master_metrics_page(const struct store_master *master,
                                               const struct master_tally *tally, uint64_t now_ns,
                                               struct buf *out);

/* Appends the names. STATUS_NO_MEMORY, STATUS_FULL. */
MUST_USE enum status store_master_metrics_segments(const struct store_master *master,
                                                   uint64_t now_ns, struct buf *out);

#endif
