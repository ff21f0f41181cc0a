/* SPDX-License-Identifier: Apache-2.0 */
#include "store/layout.h"

#include <string.h>

bool store_layout_valid(const struct store_layout *layout)
{
    const uint32_t tokens = layout->block_tokens;

    if (layout->pages == 0 || layout->pages > STORE_PAGES_MAX) return false;
    if (layout->page_size == 0 || layout->page_size > STORE_PAGE_SIZE_MAX) return false;
    if (layout->page_size % STORE_PAGE_ALIGN != 0) return false;
    if (layout->layers == 0 || layout->layers > STORE_LAYERS_MAX) return false;
    if (layout->layer_size == 0) return false;
    if ((uint64_t)layout->layers * layout->layer_size > layout->page_size) return false;
    return tokens >= 16 && tokens <= 512 && (tokens & (tokens - 1)) == 0;
}

bool store_layout_matches(const struct store_layout *a, const struct store_layout *b)
{
    return a->page_size == b->page_size && a->layers == b->layers &&
           a->layer_size == b->layer_size && a->block_tokens == b->block_tokens &&
           memcmp(a->id, b->id, sizeof(a->id)) == 0;
}
