/* SPDX-License-Identifier: Apache-2.0
 *
 * store/layout.h - the shape of a KV page, the same in every node that shares KVCache.
 *
 *   page | layer 0 | layer 1 | ... | layer L-1 | padding to 4096 |
 *
 * A page holds one block. One layer of one block is one contiguous range of layer_size bytes and
 * has one checksum, so a layer can be moved and verified by itself. */
#ifndef STORE_LAYOUT_H
#define STORE_LAYOUT_H

#include <stdbool.h>
#include <stdint.h>

enum {
    STORE_LAYERS_MAX = 256,
    STORE_PAGES_MAX = 1 << 22,
    STORE_PAGE_ALIGN = 4096,
    STORE_PAGE_SIZE_MAX = 1 << 28,
    STORE_LAYOUT_ID_SIZE = 16,
};

struct store_layout {
    uint32_t pages;        /* 1..STORE_PAGES_MAX, of this node */
    uint32_t page_size;    /* bytes; a multiple of STORE_PAGE_ALIGN, >= layers * layer_size */
    uint32_t layers;       /* 1..STORE_LAYERS_MAX */
    uint32_t layer_size;   /* bytes of one layer of one block */
    uint32_t block_tokens; /* tokens of one block: a power of two in 16..512 */
    uint8_t id[STORE_LAYOUT_ID_SIZE]; /* digest of all that makes KV bytes comparable */
};

/* False if a field is out of range; for configuration and for what peers send. */
bool store_layout_valid(const struct store_layout *layout);

/* The same blocks may move between two nodes: all fields but `pages` are equal. */
bool store_layout_matches(const struct store_layout *a, const struct store_layout *b);

#endif
