/* SPDX-License-Identifier: Apache-2.0
 *
 * store/node_load.c - blocks of this node's disk into its pages, part by part.
 *
 * A block is read in parts of whole layers. All first parts are read before the second ones, in the
 * order of blocks, NODE_LOAD_WINDOW at a time, so that the first layers of the whole prefix are
 * there early and computing can begin. A block that is in another page meanwhile is copied.
 *
 *   I1  `blocks` only shrinks: at the first block that cannot be had the prefix is cut.
 *   I2  on_done runs when no read is on its way. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/env.h"
#include "store/node_int.h"
#include "store/node_tier.h"
#include "store/ssd.h"
#include "store/ssd_format.h"

/* A read on its way; the slots of the window. */
struct slot {
    bool busy;
    uint8_t *header;
    uint64_t sums[STORE_LAYERS_MAX];
};

struct item {
    struct node_load *load;
    struct slot *slot; /* while a part is on its way */
    struct ssd_read read;
    uint32_t parts_done;
    bool open;
};

struct node_load {
    struct store_node *node;
    struct ssd *ssd;
    struct node_load_options options;
    uint32_t parts;
    uint32_t blocks;       /* I1 */
    uint32_t part;         /* the next read: this part ... */
    uint32_t next;         /* ... of this block */
    uint32_t busy;         /* slots */
    uint32_t layers_ready; /* of all blocks */
    uint64_t bytes;
    enum store_miss reason;
    struct item *items;
    uint32_t *done; /* of each part, by how many of the blocks */
    struct slot *slots;
    uint8_t *headers;
    struct env_timer timer;
};

static void load_free(struct node_load *load)
{
    env_timer_cancel(load->node->env, &load->timer);
    free(load->headers);
    free(load->slots);
    free(load->done);
    free(load->items);
    free(load);
}

void node_load_abandon(struct node_load *load)
{
    load_free(load);
}

static void load_end(struct node_load *load)
{
    const struct node_load_options options = load->options;
    const bool complete = load->layers_ready == load->node->layout.layers;
    const uint32_t blocks = complete ? load->blocks : 0;
    const enum store_miss reason = load->reason;
    const uint64_t bytes = load->bytes;

    ASSERT(load->busy == 0); /* I2 */
    for (uint32_t i = 0; i < load->options.count; i++) {
        if (load->items[i].open) ssd_read_close(&load->items[i].read);
    }
    load_free(load);
    options.on_done(options.ctx, blocks, reason, bytes);
}

static void load_cut(struct node_load *load, uint32_t blocks, enum store_miss reason)
{
    if (blocks >= load->blocks) return;
    for (uint32_t i = blocks; i < load->blocks; i++) {
        for (uint32_t part = 0; part < load->items[i].parts_done; part++)
            load->done[part]--;
    }
    load->blocks = blocks;
    if (load->reason == STORE_MISS_NONE || load->reason == STORE_MISS_ABSENT) {
        load->reason = reason;
    }
}

static void item_advance(struct item *item, uint32_t parts_done)
{
    struct node_load *load = item->load;
    const uint32_t index = (uint32_t)(item - load->items);

    for (uint32_t part = item->parts_done; part < parts_done && index < load->blocks; part++)
        load->done[part]++;
    item->parts_done = parts_done;
}

/* From another page of this node. False: it is in none. */
static bool item_copy(struct item *item)
{
    struct node_load *load = item->load;
    struct store_node *node = load->node;
    const uint32_t index = (uint32_t)(item - load->items);
    const uint32_t layers = node->layout.layers;
    struct store_page page;

    if (!pool_find(node->pool, &load->options.keys[index], &page)) return false;
    ASSERT(page.index != load->options.pages[index].index);
    memcpy(store_node_data(node, load->options.pages[index]), store_node_data(node, page),
           (size_t)layers * node->layout.layer_size);
    memcpy(load->options.sums + (size_t)index * layers, pool_sums(node->pool, page),
           layers * sizeof(uint64_t));
    item_advance(item, load->parts);
    return true;
}

static void load_go_on(struct node_load *load);

static void on_item_part(void *ctx, enum status status)
{
    struct item *item = ctx;
    struct node_load *load = item->load;
    const uint32_t index = (uint32_t)(item - load->items);
    const uint32_t layers = load->node->layout.layers;
    ASSERT(item->slot != NULL && load->busy > 0);

    if (status == STATUS_OK && item->read.parts_done == 1) {
        uint64_t *sums = load->options.sums + (size_t)index * layers;
        memcpy(sums, item->slot->sums, layers * sizeof(*sums));
        item->read.sums = sums;
    }
    item->slot->busy = false;
    item->slot = NULL;
    load->busy--;
    if (status == STATUS_OK) {
        item_advance(item, item->read.parts_done);
    } else {
        load->node->disk_misses_total++;
        load_cut(load, index, status == STATUS_CORRUPT ? STORE_MISS_CHECKSUM : STORE_MISS_TRANSFER);
    }
    load_go_on(load);
}

static struct slot *slot_free(struct node_load *load)
{
    for (uint32_t i = 0; i < NODE_LOAD_WINDOW; i++) {
        if (!load->slots[i].busy) return &load->slots[i];
    }
    return NULL;
}

/* Starts the item's next part. False: not now. */
static bool item_read(struct item *item)
{
    struct node_load *load = item->load;
    const uint32_t index = (uint32_t)(item - load->items);
    struct slot *slot = slot_free(load);

    if (slot == NULL || item->slot != NULL) return false;
    if (!item->open) {
        item->read =
            (struct ssd_read){ .page = store_node_data(load->node, load->options.pages[index]),
                               .fn = on_item_part,
                               .ctx = item };
        if (ssd_read_open(load->ssd, &load->options.keys[index], &item->read) != STATUS_OK) {
            load_cut(load, index, STORE_MISS_ABSENT); /* gone since we looked */
            return true;
        }
        item->open = true;
    }
    if (item->read.parts_done == 0) {
        item->read.header = slot->header;
        item->read.sums = slot->sums;
    }
    if (ssd_read_part(&item->read) != STATUS_OK) return false;
    slot->busy = true;
    item->slot = slot;
    load->busy++;
    load->bytes += ssd_part_size(load->ssd, item->read.parts_done);
    return true;
}

static bool step(struct node_load *load)
{
    if (load->part == load->parts || load->blocks == 0) return false;
    if (load->next >= load->blocks) {
        load->next = 0;
        load->part++;
        return true;
    }
    struct item *item = &load->items[load->next];
    const bool over =
        item->parts_done > load->part || (load->part == 0 && !item->open && item_copy(item));
    if (!over && !item_read(item)) return false;
    load->next++;
    return true;
}

static uint32_t layers_of_all(const struct node_load *load)
{
    uint32_t part = 0;
    while (part < load->parts && load->done[part] == load->blocks)
        part++;
    return ssd_part_layers(load->ssd, part);
}

static void load_go_on(struct node_load *load)
{
    while (step(load)) {
    }
    const uint32_t ready = load->blocks > 0 ? layers_of_all(load) : 0;
    const bool over = load->blocks == 0 || ready == load->node->layout.layers;
    if (ready > load->layers_ready) {
        load->layers_ready = ready;
        load->options.on_layers(load->options.ctx, ready, load->blocks,
                                load->reason); /* may cancel */
    }
    if ((over || load->blocks == 0) && load->busy == 0) {
        env_timer_set(load->node->env, &load->timer, env_now_ns(load->node->env));
    } else if (load->busy == 0) { /* too much else is on its way */
        env_timer_set(load->node->env, &load->timer, env_now_ns(load->node->env) + ENV_NS_PER_MS);
    }
}

static void on_timer(void *ctx)
{
    struct node_load *load = ctx;
    const bool complete = load->layers_ready == load->node->layout.layers;

    if (load->busy > 0) return;
    if (load->blocks == 0 || complete) {
        load_end(load);
    } else {
        load_go_on(load);
    }
}

void node_load_cancel(struct node_load *load)
{
    load_cut(load, 0, STORE_MISS_CANCELLED);
    if (load->busy == 0) {
        env_timer_set(load->node->env, &load->timer, env_now_ns(load->node->env));
    }
}

static struct node_load *load_new(struct store_node *node, struct ssd *ssd,
                                  const struct node_load_options *options)
{
    struct node_load *load = calloc(1, sizeof(*load));
    if (load == NULL) return NULL;
    load->node = node;
    load->ssd = ssd;
    load->options = *options;
    load->parts = ssd_parts(ssd);
    load->blocks = options->count;
    env_timer_init(&load->timer, on_timer, load);
    load->items = calloc(options->count, sizeof(*load->items));
    load->done = calloc(load->parts, sizeof(*load->done));
    load->slots = calloc(NODE_LOAD_WINDOW, sizeof(*load->slots));
    load->headers = aligned_alloc(SSD_ALIGN, (size_t)NODE_LOAD_WINDOW * SSD_ALIGN);
    if (load->items == NULL || load->done == NULL || load->slots == NULL || load->headers == NULL) {
        load_free(load);
        return NULL;
    }
    for (uint32_t i = 0; i < NODE_LOAD_WINDOW; i++)
        load->slots[i].header = load->headers + (size_t)i * SSD_ALIGN;
    for (uint32_t i = 0; i < options->count; i++)
        load->items[i].load = load;
    return load;
}

enum status node_load_start(struct store_node *node, const struct node_load_options *options,
                            struct node_load **out)
{
    const uint32_t here = store_node_match(node, options->keys, options->count);
    struct ssd *ssd = node_tier_ssd(node);

    if (ssd == NULL || here == 0) return STATUS_NOT_FOUND;
    struct node_load *load = load_new(node, ssd, options);
    if (load == NULL) return STATUS_FULL;
    load_cut(load, here, STORE_MISS_ABSENT);
    env_timer_set(node->env, &load->timer, env_now_ns(node->env));
    *out = load;
    return STATUS_OK;
}
