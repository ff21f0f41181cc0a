/* SPDX-License-Identifier: Apache-2.0
 *
 * store/master_tenant.c - whose values they are, what each tenant has, and what it may have.
 *
 * The tenant of a value is in its key (store/scope.h), so every owner's announcement names it, and
 * a new master knows whose everything is as soon as it knows that it is there.
 *
 * The account is that of the nodes' spaces: every range that is a ticket's, a placed replica's or
 * in limbo is charged to one tenant, from when it is taken to when it is free, by its granules. So
 * the accounts of all tenants together are the used bytes of all spaces, and a put that fails costs
 * its tenant what it costs the nodes. What lies on disk only is not charged.
 *
 * A put that would pass its tenant's quota evicts values of the same tenant first, and is told to
 * ask again, as one that finds no room is. What is announced is never refused: a tenant above its
 * quota loses, in its order of eviction, what is too much.
 *
 * When memory is short, a share is reckoned for every tenant: its quota, cut in proportion if all
 * quotas together are more than there is; those without a quota share the rest alike. Nobody is
 * kept from using what is idle, but who has more than its share is asked to give first.
 *
 * Invariants
 *   I1  An entry of a value counts in `values` of its tenant, and stands in its orders alone.
 *   I2  A tenant lives while it has values, ranges, a quota, or a note that it has none; the
 *       default one, number 0, always. Those that only have such a note are not shown, and give
 *       their place to others.
 *
 * Quotas that are set while the master runs are noted: its nodes have them with their next beats,
 * and tell a new master when they register. Each has a stamp, so whoever registers first, or was
 * cut off meanwhile, what was said last holds. A stamp begins with the term, so that what a new
 * master is told is above all that was said to older ones, whatever it has heard.
 */
#include "store/master_int.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/hash.h"
#include "store/scope.h"

enum {
    TRIM_LOOKS_MAX = 256, /* entries looked at in one turn of one tenant's */
    STAMP_TERM_SHIFT = 20,
};

static struct block_key name_id(const uint8_t *name, uint32_t len)
{
    struct block_key id = { { 0 } };
    const uint64_t hash = hash_xxh3(name, len);
    memcpy(id.bytes, &hash, sizeof(hash));
    memcpy(id.bytes + sizeof(hash), name, len < 8 ? len : 8);
    return id;
}

/* ---- life ---- */

static void tenant_free(struct tenant *tenant)
{
    if (tenant == NULL) return;
    order_destroy(tenant->order);
    order_destroy(tenant->soft);
    free(tenant);
}

static struct tenant *tenant_new(const struct store_master *master, const uint8_t *name,
                                 uint32_t len, uint32_t number)
{
    struct tenant *tenant = calloc(1, sizeof(*tenant));
    if (tenant == NULL) return NULL;
    if (len > 0) memcpy(tenant->name, name, len);
    tenant->number = number;
    tenant->order = order_create(master->options.eviction);
    tenant->soft = order_create(ORDER_DEADLINE);
    if (tenant->order != NULL && tenant->soft != NULL) return tenant;
    tenant_free(tenant);
    return NULL;
}

bool master_tenants_init(struct store_master *master)
{
    const struct map_options map = { .entries_max = STORE_TENANTS_MAX,
                                     .seed = master->options.seed };
    master->tenants[0] = tenant_new(master, NULL, 0, 0);
    master->tenants_top = 1;
    return master->tenants[0] != NULL && map_create(&map, &master->tenant_names) == STATUS_OK;
}

void master_tenants_fini(struct store_master *master)
{
    for (uint32_t i = 0; i < master->tenants_top; i++)
        tenant_free(master->tenants[i]);
    map_destroy(master->tenant_names);
}

/* A collision of two names' hashes is an unknown tenant. NULL: unknown. */
static struct tenant *tenant_named(const struct store_master *master, const uint8_t *name,
                                   uint32_t len)
{
    uint64_t number;

    if (len == 0) return master->tenants[0];
    const struct block_key id = name_id(name, len);
    if (!map_find(master->tenant_names, &id, &number)) return NULL;
    struct tenant *tenant = master->tenants[number];
    return strlen(tenant->name) == len && memcmp(tenant->name, name, len) == 0 ? tenant : NULL;
}

/* Nothing is known of it but, at most, that it has no quota. */
static bool is_idle(const struct tenant *tenant)
{
    return tenant->number != 0 && tenant->values == 0 && tenant->used.replicas == 0 &&
           tenant->quota.bytes == 0 && tenant->quota.replicas == 0;
}

/* I2 */
static void tenant_remove(struct store_master *master, struct tenant *tenant)
{
    const struct block_key id =
        name_id((const uint8_t *)tenant->name, (uint32_t)strlen(tenant->name));
    ASSERT(is_idle(tenant) && tenant->used.bytes == 0);
    const bool was_there = map_remove(master->tenant_names, &id, NULL);
    ASSERT(was_there);
    master->tenants[tenant->number] = NULL;
    while (master->tenants[master->tenants_top - 1] == NULL)
        master->tenants_top--;
    tenant_free(tenant);
}

static uint32_t number_free(struct store_master *master)
{
    uint32_t number = 1;
    while (number < master->tenants_top && master->tenants[number] != NULL)
        number++;
    if (number < STORE_TENANTS_MAX) return number;
    for (number = 1; number < STORE_TENANTS_MAX; number++) {
        if (!is_idle(master->tenants[number])) continue;
        tenant_remove(master, master->tenants[number]);
        break;
    }
    return number;
}

static struct tenant *tenant_add(struct store_master *master, const uint8_t *name, uint32_t len)
{
    const struct block_key id = name_id(name, len);
    const uint32_t number = number_free(master);

    if (number == STORE_TENANTS_MAX) return NULL;
    struct tenant *tenant = tenant_new(master, name, len, number);
    if (tenant == NULL) return NULL;
    if (map_insert(master->tenant_names, &id, number) != STATUS_OK) {
        tenant_free(tenant);
        return NULL;
    }
    master->tenants[number] = tenant;
    if (number >= master->tenants_top) master->tenants_top = number + 1;
    return tenant;
}

/* I2: gone if nothing needs it. */
static void tenant_settle(struct store_master *master, struct tenant *tenant)
{
    if (is_idle(tenant) && tenant->quota_stamp == 0) tenant_remove(master, tenant);
}

const struct tenant *master_tenant_find(const struct store_master *master, struct store_key key)
{
    const struct scope scope = scope_split(key);
    return tenant_named(master, scope.name, scope.name_len);
}

bool master_tenant_join(struct store_master *master, struct entry *entry, struct store_key key)
{
    const struct scope scope = scope_split(key);
    struct tenant *tenant = tenant_named(master, scope.name, scope.name_len);

    if (tenant == NULL) tenant = tenant_add(master, scope.name, scope.name_len);
    if (tenant == NULL) return false;
    entry->tenant = tenant->number & (STORE_TENANTS_MAX - 1);
    tenant->values++;
    return true;
}

void master_tenant_leave(struct store_master *master, const struct entry *entry)
{
    struct tenant *tenant = master_tenant_at(master, entry->tenant);
    ASSERT(tenant->values > 0 && !order_has(&entry->order)); /* I1 */
    tenant->values--;
    tenant_settle(master, tenant);
}

/* ---- the account ---- */

void master_tenant_charge(struct store_master *master, uint32_t number, uint64_t bytes)
{
    struct tenant *tenant = master_tenant_at(master, number);
    tenant->used.bytes += bytes;
    tenant->used.replicas++;
}

void master_tenant_credit(struct store_master *master, uint32_t number, uint64_t bytes)
{
    struct tenant *tenant = master_tenant_at(master, number);
    ASSERT(tenant->used.bytes >= bytes && tenant->used.replicas > 0);
    tenant->used.bytes -= bytes;
    tenant->used.replicas--;
    tenant_settle(master, tenant);
}

void master_tenant_dropping(struct store_master *master, uint32_t number, uint64_t bytes,
                            bool begins)
{
    struct tenant *tenant = master_tenant_at(master, number);
    if (begins) {
        tenant->dropping.bytes += bytes;
        tenant->dropping.replicas++;
        return;
    }
    ASSERT(tenant->dropping.bytes >= bytes && tenant->dropping.replicas > 0);
    tenant->dropping.bytes -= bytes;
    tenant->dropping.replicas--;
}

static bool below(const struct store_quota *quota, uint64_t bytes, uint64_t replicas)
{
    return (quota->bytes == 0 || bytes <= quota->bytes) &&
           (quota->replicas == 0 || replicas <= quota->replicas);
}

bool master_tenant_fits(const struct tenant *tenant, uint64_t bytes)
{
    return below(&tenant->quota, tenant->used.bytes + bytes,
                 tenant->used.replicas + (bytes > 0 ? 1 : 0));
}

bool master_tenant_will_fit(const struct tenant *tenant, uint64_t bytes)
{
    return below(&tenant->quota, tenant->used.bytes - tenant->dropping.bytes + bytes,
                 tenant->used.replicas - tenant->dropping.replicas + (bytes > 0 ? 1 : 0));
}

enum status master_tenant_admit(struct store_master *master, uint64_t now_ns,
                                const struct store_name *name, uint64_t size)
{
    const struct tenant *known = master_tenant_find(master, name->key);
    const uint64_t bytes = (uint64_t)master_granules(size) * SPACE_GRANULE;

    if (known == NULL || (known->quota.bytes == 0 && known->quota.replicas == 0)) {
        return master->options.tenants_listed ? STATUS_DENIED : STATUS_OK;
    }
    if (master_tenant_fits(known, bytes)) return STATUS_OK;
    struct tenant *tenant = master_tenant_at(master, known->number);
    const struct entry *except = master_entry_find(master, &name->id);
    const bool possible = below(&tenant->quota, bytes, 1);
    if (possible && master_tenant_evict(master, now_ns, tenant, except, bytes)) return STATUS_AGAIN;
    if (possible && tenant->dropping.replicas > 0) return STATUS_AGAIN;
    if (possible && tenant->copies > 0) return STATUS_AGAIN; /* nor can those go yet */
    tenant->refused_total++;
    master->counts.refused_quota_total++;
    return STATUS_QUOTA;
}

void master_tenants_trim(struct store_master *master, uint64_t now_ns)
{
    for (uint32_t i = 0; i < master->tenants_top; i++) {
        struct tenant *tenant = master->tenants[i];
        if (tenant != NULL && !master_tenant_will_fit(tenant, 0))
            (void)master_tenant_evict(master, now_ns, tenant, NULL, 0);
    }
}

/* ---- shares ---- */

void master_shares_init(const struct store_master *master, struct master_shares *out)
{
    *out = (struct master_shares){ 0 };
    for (uint32_t i = 0; i < master->members_count; i++)
        out->lent += space_total(master->by_age[i]->space);
    for (uint32_t i = 0; i < master->tenants_top; i++) {
        const struct tenant *tenant = master->tenants[i];
        if (tenant == NULL) continue;
        out->quotas += tenant->quota.bytes;
        out->others += tenant->quota.bytes == 0 && tenant->used.bytes > 0;
    }
}

/* Above its share by so many bytes, once what is being dropped is gone; below it: 0. */
static uint64_t excess(const struct master_shares *shares, const struct tenant *tenant)
{
    const uint64_t used = tenant->used.bytes - tenant->dropping.bytes;
    uint64_t share = tenant->quota.bytes;

    if (share == 0) {
        const uint64_t rest = shares->lent > shares->quotas ? shares->lent - shares->quotas : 0;
        share = rest / (shares->others > 0 ? shares->others : 1);
    } else if (shares->quotas > shares->lent) {
        share = (uint64_t)((double)share / (double)shares->quotas * (double)shares->lent);
    }
    return used > share ? used - share : 0;
}

struct tenant *master_shares_worst(const struct store_master *master,
                                   const struct master_shares *shares, const struct tenant *after)
{
    const uint64_t limit = after == NULL ? UINT64_MAX : excess(shares, after);
    struct tenant *worst = NULL;
    uint64_t most = 0;

    for (uint32_t i = 0; i < master->tenants_top; i++) {
        struct tenant *tenant = master->tenants[i];
        const uint64_t over = tenant == NULL || tenant == after ? 0 : excess(shares, tenant);
        if (over > most && over < limit) {
            worst = tenant;
            most = over;
        }
    }
    return worst;
}

bool master_shares_above(const struct master_shares *shares, const struct tenant *tenant)
{
    return excess(shares, tenant) > 0;
}

/* ---- what is asked ---- */

static void tenant_name(const struct tenant *tenant, char out[STORE_TENANT_SIZE])
{
    memcpy(out, tenant->number == 0 ? "default" : tenant->name,
           tenant->number == 0 ? sizeof("default") : STORE_TENANT_SIZE);
}

static struct tenant *tenant_called(const struct store_master *master, const char *name)
{
    const uint32_t len = scope_name_default(name) ? 0 : (uint32_t)strlen(name);
    return tenant_named(master, (const uint8_t *)name, len);
}

/* What is said with a lower stamp than what was is not heard. */
static enum status quota_take(struct store_master *master, const char *name,
                              const struct store_quota *quota, uint64_t stamp)
{
    if (!scope_name_valid(name)) return STATUS_INVALID;
    struct tenant *tenant = tenant_called(master, name);
    if (tenant == NULL && quota->bytes == 0 && quota->replicas == 0 && stamp == 0) return STATUS_OK;
    if (tenant == NULL) tenant = tenant_add(master, (const uint8_t *)name, (uint32_t)strlen(name));
    if (tenant == NULL) return STATUS_FULL;
    if (stamp < tenant->quota_stamp) return STATUS_OK;
    tenant->quota = *quota;
    tenant->quota_stamp = stamp;
    tenant_settle(master, tenant);
    return STATUS_OK;
}

enum status store_master_quota(struct store_master *master, const char *name,
                               const struct store_quota *quota)
{
    return quota_take(master, name, quota, 0);
}

/* ---- notes ---- */

/* Above `stamp`, all of this master's before, and all of older masters'. */
static uint64_t stamp_above(const struct store_master *master, uint64_t stamp)
{
    const uint64_t least = master->term << STAMP_TERM_SHIFT;
    if (master->notes_version > stamp) stamp = master->notes_version;
    return stamp < least ? least : stamp + 1;
}

enum status store_master_quota_set(struct store_master *master, const char *name,
                                   const struct store_quota *quota)
{
    const struct tenant *tenant = scope_name_valid(name) ? tenant_called(master, name) : NULL;
    const uint64_t stamp = stamp_above(master, 0);

    if (master->options.tenants_listed && tenant != NULL && tenant->values > 0 &&
        quota->bytes == 0 && quota->replicas == 0)
        return STATUS_BUSY;
    const enum status status = quota_take(master, name, quota, stamp);
    if (status == STATUS_OK) master->notes_version = stamp;
    return status;
}

uint64_t store_master_notes_version(const struct store_master *master)
{
    return master->notes_version;
}

bool store_master_note(const struct store_master *master, uint32_t *cursor,
                       struct store_quota_note *out)
{
    const struct tenant *tenant = NULL;
    for (; *cursor < master->tenants_top; ++*cursor) {
        tenant = master->tenants[*cursor];
        if (tenant != NULL && tenant->quota_stamp > 0) break;
    }
    if (*cursor >= master->tenants_top) return false;
    *out = (struct store_quota_note){ .quota = tenant->quota, .stamp = tenant->quota_stamp };
    tenant_name(tenant, out->name);
    ++*cursor;
    return true;
}

void store_master_note_take(struct store_master *master, const struct store_quota_note *note)
{
    const bool ours = note->stamp > 0 && note->stamp >> STAMP_TERM_SHIFT <= master->term;
    if (!ours || !scope_name_valid(note->name)) return;
    const struct tenant *known = tenant_called(master, note->name);
    if (known != NULL && known->quota_stamp >= note->stamp) return;
    if (quota_take(master, note->name, &note->quota, note->stamp) != STATUS_OK) return;
    master->notes_version = stamp_above(master, note->stamp);
}

/* ---- looking around ---- */

bool store_master_tenant(const struct store_master *master, uint32_t *cursor,
                         struct store_tenant_counts *out)
{
    while (*cursor < master->tenants_top &&
           (master->tenants[*cursor] == NULL || is_idle(master->tenants[*cursor])))
        ++*cursor;
    if (*cursor >= master->tenants_top) return false;
    const struct tenant *tenant = master->tenants[(*cursor)++];
    *out = (struct store_tenant_counts){ .quota = tenant->quota,
                                         .used = tenant->used,
                                         .values = tenant->values,
                                         .refused_total = tenant->refused_total,
                                         .evicted = tenant->evicted };
    tenant_name(tenant, out->name);
    return true;
}
