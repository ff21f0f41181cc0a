/* SPDX-License-Identifier: Apache-2.0
 *
 * store/pool.c - page states, the manifest, the LRU list and pins.
 *
 * Every page is on exactly one list, by what may be done with it:
 *
 *   LIST_FREE   nobody's; given out first, most recently freed first (warm in the cache)
 *   LIST_LRU    committed and unused: evictable, least recently used at the head
 *   LIST_HELD   unused, but promised to stay as it is until hold_until
 *   LIST_NONE   in use: refs + pins > 0
 *
 * page_settle() moves a page to the list where it belongs after any change; it is the only function
 * that links a page, so a list cannot be forgotten.
 *
 * Invariants (pool_check())
 *   I1  A page is on LIST_NONE exactly when refs + pins > 0.
 *   I2  A committed page's key maps to it; an uncommitted page's key is in no map.
 *   I3  A page is evicted or freed only from LIST_LRU or LIST_HELD past its time, so never in use.
 *   I4  The lengths of the lists and of LIST_NONE add up to `pages`. */
#include "store/pool.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/env.h"
#include "base/map.h"

#define PAGE_NIL UINT32_MAX

enum page_list { LIST_FREE = 0, LIST_LRU, LIST_HELD, LIST_NONE, LISTS = LIST_NONE };

struct page {
    struct block_key key; /* valid when committed */
    uint64_t generation;
    uint64_t hold_until;
    uint32_t refs;
    uint32_t pins;
    uint32_t prev;
    uint32_t next;
    uint8_t list; /* enum page_list */
    bool committed;
    bool cold; /* goes to the head of LIST_LRU */
};

struct list {
    uint32_t head;
    uint32_t tail;
    uint32_t count;
};

struct pin {
    struct store_page *pages; /* NULL: the slot is free */
    uint32_t count;
    uint32_t round; /* makes ids of the same slot differ */
    uint64_t expires;
};

struct pool {
    struct pool_options options;
    struct page *pages;
    uint64_t *sums; /* layers of page i from i * layers */
    struct map *manifest;
    struct list lists[LISTS];
    struct pin *pins;
    uint32_t *pins_free;
    uint32_t pins_free_count;
    uint32_t committed;
    uint64_t commits_total;
    uint64_t duplicates_total;
    uint64_t evicted_total;
};

/* ---- lists ---- */

static struct page *page_at(const struct pool *pool, struct store_page page)
{
    ASSERT(page.index < pool->options.pages);
    return &pool->pages[page.index];
}

static void list_unlink(struct pool *pool, uint32_t index)
{
    struct page *page = &pool->pages[index];
    ASSERT(page->list < LISTS);
    struct list *list = &pool->lists[page->list];
    ASSERT(list->count > 0);

    if (page->prev == PAGE_NIL) {
        list->head = page->next;
    } else {
        pool->pages[page->prev].next = page->next;
    }
    if (page->next == PAGE_NIL) {
        list->tail = page->prev;
    } else {
        pool->pages[page->next].prev = page->prev;
    }
    list->count--;
    page->list = LIST_NONE;
}

static void list_append(struct pool *pool, enum page_list which, uint32_t index)
{
    struct page *page = &pool->pages[index];
    ASSERT(page->list == LIST_NONE && which != LIST_NONE);
    struct list *list = &pool->lists[which];

    page->list = (uint8_t)which;
    page->prev = list->tail;
    page->next = PAGE_NIL;
    if (list->tail == PAGE_NIL) {
        list->head = index;
    } else {
        pool->pages[list->tail].next = index;
    }
    list->tail = index;
    list->count++;
}

static void list_prepend(struct pool *pool, enum page_list which, uint32_t index)
{
    struct page *page = &pool->pages[index];
    struct list *list = &pool->lists[which];

    if (list->head == PAGE_NIL) {
        list_append(pool, which, index);
        return;
    }
    ASSERT(page->list == LIST_NONE && which != LIST_NONE);
    page->list = (uint8_t)which;
    page->prev = PAGE_NIL;
    page->next = list->head;
    pool->pages[list->head].prev = index;
    list->head = index;
    list->count++;
}

/* Where the page belongs, given its fields. */
static enum page_list page_home(const struct page *page)
{
    if (page->refs + page->pins > 0) return LIST_NONE;
    if (page->hold_until > 0) return LIST_HELD;
    return page->committed ? LIST_LRU : LIST_FREE;
}

/* Links the page at the tail of its list (a cold one at the head), moving it there even if it is on
 * that list already. */
static void page_settle(struct pool *pool, uint32_t index)
{
    struct page *page = &pool->pages[index];
    const enum page_list home = page_home(page);

    if (page->list != LIST_NONE) list_unlink(pool, index);
    if (home == LIST_LRU && page->cold) {
        list_prepend(pool, home, index);
    } else if (home != LIST_NONE) {
        list_append(pool, home, index);
    }
}

/* Takes the identity away. The caller settles the page. */
static void page_uncommit(struct pool *pool, uint32_t index)
{
    struct page *page = &pool->pages[index];
    ASSERT(page->committed);
    uint64_t mapped = 0;
    const bool was_there = map_remove(pool->manifest, &page->key, &mapped);
    ASSERT(was_there && mapped == index);

    page->committed = false;
    pool->committed--;
    if (pool->options.on_removed != NULL) {
        pool->options.on_removed(pool->options.ctx, (struct store_page){ index }, &page->key,
                                 page->generation);
    }
}

/* ---- life ---- */

enum status pool_create(const struct pool_options *options, struct pool **out)
{
    ASSERT(options->layers > 0 && options->pins_max > 0);
    if (options->pages == 0 || options->pages > STORE_PAGES_MAX) return STATUS_INVALID;

    const struct map_options map = { .entries_initial = options->pages,
                                     .entries_max = options->pages,
                                     .seed = options->seed };
    struct pool *pool = calloc(1, sizeof(*pool));
    if (pool == NULL) return STATUS_NO_MEMORY;
    pool->options = *options;
    pool->pages = calloc(options->pages, sizeof(*pool->pages));
    pool->sums = calloc((size_t)options->pages * options->layers, sizeof(*pool->sums));
    pool->pins = calloc(options->pins_max, sizeof(*pool->pins));
    pool->pins_free = calloc(options->pins_max, sizeof(*pool->pins_free));
    if (pool->pages == NULL || pool->sums == NULL || pool->pins == NULL ||
        pool->pins_free == NULL || map_create(&map, &pool->manifest) != STATUS_OK) {
        pool_destroy(pool);
        return STATUS_NO_MEMORY;
    }
    for (int i = 0; i < LISTS; i++)
        pool->lists[i] = (struct list){ PAGE_NIL, PAGE_NIL, 0 };
    for (uint32_t i = 0; i < options->pages; i++) {
        const uint32_t index = options->pages - 1 - i; /* pages are taken from the tail */
        pool->pages[index].list = LIST_NONE;
        page_settle(pool, index);
    }
    while (pool->pins_free_count < options->pins_max) {
        pool->pins_free[pool->pins_free_count] = options->pins_max - 1 - pool->pins_free_count;
        pool->pins_free_count++;
    }
    *out = pool;
    return STATUS_OK;
}

void pool_destroy(struct pool *pool)
{
    if (pool == NULL) return;
    for (uint32_t i = 0; pool->pins != NULL && i < pool->options.pins_max; i++) {
        free(pool->pins[i].pages);
    }
    map_destroy(pool->manifest);
    free(pool->pins_free);
    free(pool->pins);
    free(pool->sums);
    free(pool->pages);
    free(pool);
}

/* ---- pages ---- */

/* Frees the pages whose hold is over. O(held), so only when pages are short or on the timer. */
static void holds_expire(struct pool *pool, uint64_t now_ns)
{
    uint32_t index = pool->lists[LIST_HELD].head;
    while (index != PAGE_NIL) {
        const uint32_t next = pool->pages[index].next;
        if (pool->pages[index].hold_until <= now_ns) {
            pool->pages[index].hold_until = 0;
            page_settle(pool, index);
        }
        index = next;
    }
}

/* One page that nobody uses; the caller has checked that there is one. */
static uint32_t page_take(struct pool *pool)
{
    uint32_t index = pool->lists[LIST_FREE].tail;
    if (index == PAGE_NIL) {
        index = pool->lists[LIST_LRU].head;
        ASSERT(index != PAGE_NIL);
        page_uncommit(pool, index);
        pool->evicted_total++;
    }
    struct page *page = &pool->pages[index];
    ASSERT(page->refs == 0 && page->pins == 0 && !page->committed && page->hold_until == 0);
    list_unlink(pool, index);
    page->refs = 1;
    return index;
}

enum status pool_alloc(struct pool *pool, uint64_t now_ns, uint32_t count, struct store_page *out)
{
    const struct list *lists = pool->lists;

    if (lists[LIST_FREE].count + lists[LIST_LRU].count < count) holds_expire(pool, now_ns);
    if (lists[LIST_FREE].count + lists[LIST_LRU].count < count) return STATUS_FULL;
    for (uint32_t i = 0; i < count; i++)
        out[i].index = page_take(pool);
    return STATUS_OK;
}

void pool_ref(struct pool *pool, struct store_page ref)
{
    struct page *page = page_at(pool, ref);
    ASSERT(page->list != LIST_FREE); /* a free page is nobody's to reference */
    ASSERT(page->refs < UINT32_MAX);
    page->refs++;
    if (page->refs == 1) page_settle(pool, ref.index);
}

void pool_unref(struct pool *pool, struct store_page ref)
{
    struct page *page = page_at(pool, ref);
    ASSERT(page->refs > 0);
    ASSERT(page->list == LIST_NONE);
    page->refs--;
    if (page->refs == 0) page_settle(pool, ref.index);
}

void pool_unref_after(struct pool *pool, struct store_page ref, uint64_t until_ns)
{
    struct page *page = page_at(pool, ref);
    if (until_ns > page->hold_until) page->hold_until = until_ns;
    pool_unref(pool, ref);
}

/* ---- manifest ---- */

bool pool_find(const struct pool *pool, const struct block_key *key, struct store_page *out)
{
    uint64_t index;
    if (!map_find(pool->manifest, key, &index)) return false;
    ASSERT(index < pool->options.pages);
    ASSERT(pool->pages[index].committed);
    out->index = (uint32_t)index;
    return true;
}

void pool_touch(struct pool *pool, struct store_page ref)
{
    struct page *page = page_at(pool, ref);
    ASSERT(page->committed);
    page->cold = false;
    if (page->list == LIST_LRU) page_settle(pool, ref.index);
}

void pool_chill(struct pool *pool, struct store_page ref)
{
    struct page *page = page_at(pool, ref);
    ASSERT(page->committed);
    page->cold = true;
    if (page->list == LIST_LRU) page_settle(pool, ref.index);
}

const struct block_key *pool_victim(const struct pool *pool)
{
    const uint32_t head = pool->lists[LIST_LRU].head;
    if (pool->lists[LIST_FREE].count > 0 || head == PAGE_NIL) return NULL;
    return &pool->pages[head].key;
}

uint32_t pool_hottest(const struct pool *pool, uint32_t max, struct block_key *out)
{
    const struct list *list = &pool->lists[LIST_LRU];
    const uint32_t count = list->count < max ? list->count : max;
    uint32_t index = list->tail;

    for (uint32_t i = count; i-- > 0;) {
        ASSERT(index != PAGE_NIL && pool->pages[index].committed);
        out[i] = pool->pages[index].key;
        index = pool->pages[index].prev;
    }
    return count;
}

enum status pool_commit(struct pool *pool, const struct block_key *key, struct store_page ref,
                        uint64_t generation, const uint64_t *sums)
{
    struct page *page = page_at(pool, ref);
    const uint32_t layers = pool->options.layers;
    struct store_page present;
    ASSERT(page->refs > 0); /* whoever commits a page holds it */

    if (page->committed) {
        return block_key_equal(&page->key, key) ? STATUS_EXISTS : STATUS_INVALID;
    }
    if (pool_find(pool, key, &present)) {
        pool_touch(pool, present);
        pool->duplicates_total++;
        return STATUS_EXISTS;
    }
    const enum status status = map_insert(pool->manifest, key, ref.index);
    ASSERT(status == STATUS_OK); /* room for every page was reserved */
    page->key = *key;
    page->generation = generation;
    page->committed = true;
    page->cold = false;
    memcpy(&pool->sums[(size_t)ref.index * layers], sums, layers * sizeof(*sums));
    pool->committed++;
    pool->commits_total++;
    if (pool->options.on_stored != NULL) pool->options.on_stored(pool->options.ctx, ref);
    return STATUS_OK;
}

enum status pool_drop(struct pool *pool, const struct block_key *key)
{
    struct store_page ref;
    if (!pool_find(pool, key, &ref)) return STATUS_NOT_FOUND;
    page_uncommit(pool, ref.index);
    page_settle(pool, ref.index);
    return STATUS_OK;
}

uint32_t pool_match(const struct pool *pool, const struct block_key *keys, uint32_t count)
{
    uint32_t found = 0;
    while (found < count && map_find(pool->manifest, &keys[found], NULL))
        found++;
    return found;
}

const struct block_key *pool_key(const struct pool *pool, struct store_page ref)
{
    const struct page *page = page_at(pool, ref);
    return page->committed ? &page->key : NULL;
}

uint64_t pool_generation(const struct pool *pool, struct store_page ref)
{
    const struct page *page = page_at(pool, ref);
    ASSERT(page->committed);
    return page->generation;
}

const uint64_t *pool_sums(const struct pool *pool, struct store_page ref)
{
    const struct page *page = page_at(pool, ref);
    return page->committed ? &pool->sums[(size_t)ref.index * pool->options.layers] : NULL;
}

uint32_t pool_refs(const struct pool *pool, struct store_page ref)
{
    return page_at(pool, ref)->refs;
}

/* ---- pins ---- */

/* The slot of a living pin; NULL if it has ended. Ids come from peers, so nothing is assumed. */
static struct pin *pin_at(const struct pool *pool, struct pool_pin id)
{
    const uint64_t slot = (id.id & UINT32_MAX) - 1; /* id 0 becomes a slot out of range */
    if (slot >= pool->options.pins_max) return NULL;
    struct pin *pin = &pool->pins[slot];
    if (pin->pages == NULL || pin->round != (uint32_t)(id.id >> 32)) return NULL;
    return pin;
}

enum status pool_pin(struct pool *pool, const struct store_page *pages, uint32_t count,
                     uint64_t expires_ns, struct pool_pin *out)
{
    ASSERT(count > 0);
    if (pool->pins_free_count == 0) return STATUS_FULL;
    struct store_page *copy = malloc(count * sizeof(*copy));
    if (copy == NULL) return STATUS_FULL;
    memcpy(copy, pages, count * sizeof(*copy));

    const uint32_t slot = pool->pins_free[--pool->pins_free_count];
    struct pin *pin = &pool->pins[slot];
    ASSERT(pin->pages == NULL);
    *pin = (struct pin){ copy, count, pin->round + 1, expires_ns };
    for (uint32_t i = 0; i < count; i++) {
        struct page *page = page_at(pool, pages[i]);
        ASSERT(page->committed);
        page->pins++;
        if (page->pins == 1) page_settle(pool, pages[i].index);
    }
    out->id = (uint64_t)pin->round << 32 | (slot + 1);
    return STATUS_OK;
}

static void pin_end(struct pool *pool, struct pin *pin)
{
    ASSERT(pin->pages != NULL);
    for (uint32_t i = 0; i < pin->count; i++) {
        struct page *page = page_at(pool, pin->pages[i]);
        ASSERT(page->pins > 0);
        page->pins--;
        if (page->pins == 0) page_settle(pool, pin->pages[i].index);
    }
    free(pin->pages);
    pin->pages = NULL;
    pool->pins_free[pool->pins_free_count++] = (uint32_t)(pin - pool->pins);
}

enum status pool_repin(struct pool *pool, struct pool_pin id, uint64_t expires_ns)
{
    struct pin *pin = pin_at(pool, id);
    if (pin == NULL) return STATUS_NOT_FOUND;
    if (expires_ns > pin->expires) pin->expires = expires_ns;
    return STATUS_OK;
}

enum status pool_unpin(struct pool *pool, struct pool_pin id)
{
    struct pin *pin = pin_at(pool, id);
    if (pin == NULL) return STATUS_NOT_FOUND;
    pin_end(pool, pin);
    return STATUS_OK;
}

uint64_t pool_expire(struct pool *pool, uint64_t now_ns)
{
    uint64_t next = ENV_NEVER;
    const bool any = pool->pins_free_count < pool->options.pins_max;

    for (uint32_t i = 0; any && i < pool->options.pins_max; i++) {
        struct pin *pin = &pool->pins[i];
        if (pin->pages == NULL) continue;
        if (pin->expires <= now_ns) {
            pin_end(pool, pin);
        } else if (pin->expires < next) {
            next = pin->expires;
        }
    }
    holds_expire(pool, now_ns);
    for (uint32_t i = pool->lists[LIST_HELD].head; i != PAGE_NIL; i = pool->pages[i].next) {
        if (pool->pages[i].hold_until < next) next = pool->pages[i].hold_until;
    }
    return next;
}

/* ---- numbers ---- */

void pool_counts(const struct pool *pool, struct store_node_counts *out)
{
    const struct list *lists = pool->lists;

    out->pages = pool->options.pages;
    out->free = lists[LIST_FREE].count;
    out->evictable = lists[LIST_LRU].count;
    out->committed = pool->committed;
    out->referenced =
        out->pages - lists[LIST_FREE].count - lists[LIST_LRU].count - lists[LIST_HELD].count;
    out->pins = pool->options.pins_max - pool->pins_free_count;
    out->evicted_total = pool->evicted_total;
    out->commits_total = pool->commits_total;
    out->duplicates_total = pool->duplicates_total;
}

static void list_check(const struct pool *pool, enum page_list which)
{
    const struct list *list = &pool->lists[which];
    uint32_t count = 0;
    uint32_t prev = PAGE_NIL;

    for (uint32_t i = list->head; i != PAGE_NIL; i = pool->pages[i].next) {
        ASSERT(pool->pages[i].list == which);
        ASSERT(pool->pages[i].prev == prev);
        prev = i;
        count++;
        ASSERT(count <= pool->options.pages);
    }
    ASSERT(list->tail == prev);
    ASSERT(list->count == count);
}

void pool_check(const struct pool *pool)
{
    uint32_t committed = 0;
    uint32_t in_use = 0;
    uint64_t pins = 0;
    uint64_t pinned = 0;

    for (uint32_t i = 0; i < pool->options.pages; i++) {
        const struct page *page = &pool->pages[i];
        ASSERT(page->list == page_home(page)); /* I1 */
        if (page->list == LIST_NONE) in_use++;
        pinned += page->pins;
        if (!page->committed) continue;
        committed++;
        struct store_page found;
        ASSERT(pool_find(pool, &page->key, &found) && found.index == i); /* I2 */
    }
    for (uint32_t i = 0; i < pool->options.pins_max; i++) {
        if (pool->pins[i].pages != NULL) pins += pool->pins[i].count;
    }
    for (int i = 0; i < LISTS; i++) {
        list_check(pool, (enum page_list)i);
        in_use += pool->lists[i].count;
    }
    ASSERT(pins == pinned);
    ASSERT(in_use == pool->options.pages); /* I4 */
    ASSERT(committed == pool->committed);
    ASSERT(map_count(pool->manifest) == committed);
}
