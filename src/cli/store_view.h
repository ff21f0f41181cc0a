/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/store_view.h - what `yolk store` prints: keys, values' places, the pool's numbers.
 *
 * Keys are any bytes: what is no printable ASCII, and the backslash, is written \xNN or \\.
 * Everything goes to stdout. Threads: one. */
#ifndef CLI_STORE_VIEW_H
#define CLI_STORE_VIEW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "yolk/store.h"

/* `out` has room for strlen(text) bytes. False: something else than xNN or a backslash follows a
 * backslash. */
bool store_view_unescape(const char *text, uint8_t *out, size_t *len);

/* A list of keys: lines (size, replicas, lease, state, key), or a JSON array between begin and end.
 */
struct store_list {
    bool json;
    bool any; /* private */
};
void store_view_begin(struct store_list *list);
void store_view_entry(struct store_list *list, const struct yolk_store_entry *entry);
void store_view_end(struct store_list *list);

void store_view_where(const struct yolk_store_where *where, bool json);

/* Numbers of the pool, again and again. */
struct store_view {
    bool json;
    bool live;                      /* clear the screen before, and say what is done a second */
    struct yolk_store_stats before; /* private */
};
void store_view_stats(struct store_view *view, const struct yolk_store_stats *stats,
                      const struct yolk_store_node *nodes, uint32_t count,
                      const struct yolk_store_tenant *tenants, uint32_t tenants_count);

/* `only`: the one of that name; NULL: all. */
void store_view_tenants(const struct yolk_store_tenant *tenants, uint32_t count, const char *only,
                        bool json);

#endif
