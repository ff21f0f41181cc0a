/* SPDX-License-Identifier: Apache-2.0
 *
 * store/draft.c - the put side of a client's sessions: a draft is a value from its
 * ticket to its commit.
 *
 *                 ticket           end           committed, refused, or too late
 *     OPENING ------------> OPEN ------> ENDING -------------------------------> CLOSED
 *        | refused           | revoke, end with holes, time over                   |
 *        +-------------------+------------------------------------> CLOSED        freed when
 *                                                                                  no write is left
 *
 * What was written is known as fragments: parts, cut where pieces end, in the order of their
 * offsets, each with its checksum. If they are just the pieces, the commit is that of a put;
 * otherwise it lists their lengths.
 *
 *   I1  Fragments do not overlap; one that is being written has its item, and is forgotten if that
 *       fails.
 *   I2  Nothing is written after write_until_ns: the master may give the room to others.
 *   I3  A commit is sent only when the fragments are the whole value and none is being written. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/hash.h"
#include "base/list.h"
#include "base/log.h"
#include "base/map.h"
#include "net/rpc.h"
#include "store/client_commit.h"
#include "store/client_int.h"
#include "store/client_revoke.h"
#include "store/session.h"
#include "store/peers.h"

enum { COMMIT_RETRY_MS = 100, FRAGMENTS_MIN = 16 };

enum draft_state { DRAFT_OPENING, DRAFT_OPEN, DRAFT_ENDING, DRAFT_CLOSED };

struct fragment {
    uint32_t offset;
    uint32_t len;
    uint64_t sum;
    const struct session_item *item; /* that writes it; NULL: written */
};

struct draft {
    struct draft *prev;
    struct draft *next;
    struct sessions *sessions;
    enum draft_state state;
    struct block_key id;
    struct store_key key; /* behind the draft */
    uint64_t size;
    struct store_attributes attributes;
    uint64_t put_id;
    uint64_t writer;
    uint64_t term;
    uint64_t write_until_ns;
    struct client_place place;
    struct rpc_client *owner;
    struct fragment *fragments;
    uint32_t fragments_count;
    uint32_t fragments_max;
    uint32_t writing;           /* items under way */
    struct session_item *ender; /* while ENDING */
    enum status last;           /* why the last commit failed */
    bool unsure;                /* one of them may have been heard: only OK is certain now */
    struct env_timer timer;     /* OPEN: its time is over; ENDING: the next try */
};

/* Tickets asked for together. */
struct opening {
    uint32_t left;
    struct session_item *items[];
};

/* ---- life of a draft ---- */

static void draft_free(struct draft *draft)
{
    struct sessions *sessions = draft->sessions;
    ASSERT(draft->writing == 0);

    LIST_REMOVE(sessions->drafts_first, draft);
    env_timer_cancel(sessions->store->env, &draft->timer);
    free(draft->fragments);
    free(draft);
}

/* Nobody can name it any more. */
static void draft_close(struct draft *draft)
{
    ASSERT(draft->state != DRAFT_CLOSED);
    const bool known = map_remove(draft->sessions->drafts, &draft->id, NULL);
    ASSERT(known);
    env_timer_cancel(draft->sessions->store->env, &draft->timer);
    draft->state = DRAFT_CLOSED;
    if (draft->writing == 0) draft_free(draft);
}

static void on_draft_timer(void *ctx);

static struct draft *draft_new(struct session_item *item, uint64_t size)
{
    struct sessions *sessions = item->call->sessions;
    struct draft *draft = malloc(sizeof(*draft) + item->key.len);
    if (draft == NULL) return NULL;

    memcpy(draft + 1, item->key.bytes, item->key.len);
    *draft = (struct draft){ .sessions = sessions,
                             .id = item->id,
                             .key = { (const uint8_t *)(draft + 1), item->key.len },
                             .size = size };
    if (map_insert(sessions->drafts, &draft->id, (uint64_t)(uintptr_t)draft) != STATUS_OK) {
        free(draft);
        return NULL;
    }
    env_timer_init(&draft->timer, on_draft_timer, draft);
    LIST_PUSH(sessions->drafts_first, draft);
    return draft;
}

/* The one that may be written or ended; NULL: there is none. */
static struct draft *draft_find(const struct session_item *item)
{
    struct draft *draft = session_lookup(item->call->sessions->drafts, &item->id);
    if (draft == NULL || draft->state != DRAFT_OPEN) return NULL;
    if (draft->key.len != item->key.len) return NULL;
    return memcmp(draft->key.bytes, item->key.bytes, item->key.len) == 0 ? draft : NULL;
}

/* ---- giving up ---- */

static void on_revoked(void *ctx)
{
    session_item_end(ctx, STATUS_OK, 0);
}

/* The ticket is given back, and the draft closed. `item`, if any, ends with that. */
static void draft_give_back(struct draft *draft, struct session_item *item)
{
    const struct store_put_revoke message = { .key = draft->key,
                                              .put_id = draft->put_id,
                                              .writer = draft->writer };
    const uint64_t until_ns = item == NULL ? ENV_NEVER : item->call->deadline_ns;
    const enum status status = client_revokes_add(draft->sessions->store->revokes, &message,
                                                  until_ns, item == NULL ? NULL : on_revoked, item);

    draft_close(draft);
    if (status != STATUS_OK && item != NULL) session_item_end(item, STATUS_OK, 0);
}

/* ---- start ---- */

static void on_found(void *ctx, uint32_t index, const struct client_found *found)
{
    const struct opening *opening = ctx;
    struct draft *draft = opening->items[index]->draft;
    struct yolk_store *store = draft->sessions->store;
    ASSERT(draft->state == DRAFT_OPENING && found->size == draft->size);

    draft->attributes = found->attributes;
    draft->put_id = found->put_id;
    draft->writer = found->writer;
    draft->term = found->term;
    draft->write_until_ns = found->write_until_ns;
    draft->place = found->places[0];
    free(found->places);
    draft->last = store_peers_get(store->peers, draft->place.node.rpc_address, &draft->owner);
}

static void on_opened(void *ctx, uint32_t index, enum status status, uint64_t size)
{
    struct opening *opening = ctx;
    struct session_item *item = opening->items[index];
    struct draft *draft = item->draft;
    struct sessions *sessions = draft->sessions;

    if (--opening->left == 0) free(opening);
    if (sessions->store->closing) return;
    if (status != STATUS_OK) {
        draft_close(draft);
        session_item_end(item, status, 0);
    } else if (draft->last != STATUS_OK) {
        status = draft->last;
        draft_give_back(draft, NULL);
        session_item_end(item, status, 0);
    } else {
        draft->state = DRAFT_OPEN;
        env_timer_set(sessions->store->env, &draft->timer, draft->write_until_ns);
        session_item_end(item, STATUS_OK, size);
    }
}

/* A draft for each that can have one; *count of them are in opening and values. */
static void drafts_make(struct session_call *call, const struct yolk_store_value *given,
                        struct opening *opening, struct yolk_store_value *values, uint32_t *count)
{
    for (uint32_t i = 0; i < call->count; i++) {
        struct session_item *item = &call->items[i];
        if (item->failed != STATUS_PENDING) continue;
        if (session_lookup(call->sessions->drafts, &item->id) != NULL) {
            item->failed = STATUS_EXISTS;
            continue;
        }
        item->draft = draft_new(item, given[i].size);
        if (item->draft == NULL) {
            item->failed = STATUS_FULL;
            continue;
        }
        values[*count] = given[i];
        opening->items[(*count)++] = item;
    }
}

void draft_starts(struct session_call *call, const struct yolk_store_value *given)
{
    struct yolk_store_value *values = malloc(call->count * sizeof(*values));
    struct opening *opening = malloc(sizeof(*opening) + call->count * sizeof(opening->items[0]));
    struct yolk_store_call options = call->options;
    enum status status = STATUS_FULL;
    uint32_t count = 0;

    if (values == NULL || opening == NULL) {
        for (uint32_t i = 0; i < call->count; i++)
            call->items[i].failed = STATUS_FULL;
        goto out;
    }
    drafts_make(call, given, opening, values, &count);
    if (count == 0) goto out;
    opening->left = count;
    options.on_item = on_opened;
    options.ctx = opening;
    status = client_find(call->sessions->store, values, count, true, &options, on_found);
    for (uint32_t i = 0; status != STATUS_OK && i < count; i++) {
        struct session_item *item = opening->items[i];
        item->failed = status;
        draft_close(item->draft);
        item->draft = NULL;
    }
out:
    if (status != STATUS_OK) free(opening);
    free(values);
}

/* ---- write ---- */

/* The first fragment that ends behind the offset. */
static uint32_t fragment_after(const struct draft *draft, uint64_t offset)
{
    uint32_t low = 0, high = draft->fragments_count;
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        const struct fragment *fragment = &draft->fragments[middle];
        if ((uint64_t)fragment->offset + fragment->len > offset) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return low;
}

/* Room for `count` more. */
static enum status fragments_reserve(struct draft *draft, uint64_t count)
{
    uint64_t max = draft->fragments_max < FRAGMENTS_MIN ? FRAGMENTS_MIN : draft->fragments_max;

    if (count > STORE_PARTS_MAX - draft->fragments_count) return STATUS_FULL;
    while (max < draft->fragments_count + count)
        max *= 2;
    if (max == draft->fragments_max) return STATUS_OK;
    void *more = realloc(draft->fragments, max * sizeof(draft->fragments[0]));
    if (more == NULL) return STATUS_FULL;
    draft->fragments = more;
    draft->fragments_max = (uint32_t)max;
    return STATUS_OK;
}

/* The part's fragments, of this item. STATUS_INVALID: some of it is known already. */
static enum status fragments_add(struct draft *draft, const struct session_item *item,
                                 const struct yolk_store_part *part)
{
    const uint64_t end = part->offset + part->size;
    const uint32_t at = fragment_after(draft, part->offset);
    const uint64_t count = (end - 1) / STORE_PIECE_SIZE - part->offset / STORE_PIECE_SIZE + 1;
    const uint8_t *data = part->data;

    if (at < draft->fragments_count && draft->fragments[at].offset < end) return STATUS_INVALID;
    const enum status status = fragments_reserve(draft, count);
    if (status != STATUS_OK) return status;
    memmove(&draft->fragments[at + count], &draft->fragments[at],
            (draft->fragments_count - at) * sizeof(draft->fragments[0]));
    draft->fragments_count += (uint32_t)count;
    uint64_t offset = part->offset;
    for (uint64_t i = 0; i < count; i++) {
        const uint64_t piece_end = (offset / STORE_PIECE_SIZE + 1) * STORE_PIECE_SIZE;
        const uint64_t len = (piece_end < end ? piece_end : end) - offset;
        draft->fragments[at + i] = (struct fragment){ .offset = (uint32_t)offset,
                                                      .len = (uint32_t)len,
                                                      .sum = hash_xxh3(data, len),
                                                      .item = item };
        data += len;
        offset += len;
    }
    ASSERT(offset == end);
    return STATUS_OK;
}

/* Those of the item are written, or forgotten (I1). */
static void fragments_settle(struct draft *draft, const struct session_item *item, bool written)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < draft->fragments_count; i++) {
        struct fragment fragment = draft->fragments[i];
        if (fragment.item == item) {
            if (!written) continue;
            fragment.item = NULL;
        }
        draft->fragments[kept++] = fragment;
    }
    draft->fragments_count = kept;
}

static void write_end(struct session_item *item)
{
    struct draft *draft = item->draft;
    const enum status status = item->failed;
    ASSERT(item->moving == 0 && draft->writing > 0);

    fragments_settle(draft, item, status == STATUS_OK);
    if (item->segment_open) {
        yolk_transfer_close(draft->sessions->store->transfer, item->segment);
    }
    item->segment_open = false;
    item->draft = NULL;
    draft->writing--;
    if (draft->state == DRAFT_CLOSED && draft->writing == 0) draft_free(draft);
    session_item_end(item, status, status == STATUS_OK ? item->size : 0);
}

static void on_written(void *ctx, const struct yolk_transfer_result *result)
{
    struct session_item *item = ctx;
    ASSERT(item->moving > 0);

    if (result->state != YOLK_TRANSFER_COMPLETED) {
        item->failed = result->reason == STATUS_OK ? STATUS_UNAVAILABLE : result->reason;
    }
    if (--item->moving == 0) write_end(item);
}

static enum status write_parts(struct session_item *item)
{
    struct draft *draft = item->draft;
    struct sessions *sessions = draft->sessions;
    const uint64_t late = item->call->deadline_ns;

    if (item->parts_count == 0) return STATUS_INVALID;
    for (uint32_t i = 0; i < item->parts_count; i++) {
        if (!session_part_valid(&item->parts[i], draft->size)) return STATUS_INVALID;
        const enum status status = fragments_add(draft, item, &item->parts[i]);
        if (status != STATUS_OK) return status;
        item->size += item->parts[i].size;
    }
    const enum status status =
        yolk_transfer_open(sessions->store->transfer, draft->place.node.segment, &item->segment);
    if (status != STATUS_OK) return status;
    item->segment_open = true;
    for (uint32_t i = 0; i < item->parts_count; i++) {
        const struct yolk_store_part *part = &item->parts[i];
        const struct yolk_transfer_request request = {
            .opcode = YOLK_TRANSFER_WRITE,
            .class = YOLK_TRANSFER_LOAD,
            .local = part->data,
            .segment = item->segment,
            .remote = draft->place.address + part->offset,
            .length = part->size,
            .deadline_ns = late < draft->write_until_ns ? late : draft->write_until_ns, /* I2 */
            .attempt = draft->put_id,
            .generation = draft->place.node.epoch,
            .term = draft->term,
            .on_done = on_written,
            .ctx = item,
        };
        if (!session_move(sessions, &request)) return STATUS_FULL;
        item->moving++;
    }
    return STATUS_OK;
}

void draft_write(struct session_item *item)
{
    struct draft *draft = draft_find(item);

    if (draft == NULL) {
        session_item_end(item, STATUS_NOT_FOUND, 0);
        return;
    }
    item->draft = draft;
    item->failed = STATUS_OK;
    draft->writing++;
    const enum status status = write_parts(item);
    if (status == STATUS_OK) return;
    item->failed = status;
    if (item->moving == 0) write_end(item); /* else what moves already does it */
}

/* ---- end ---- */

static bool draft_whole(const struct draft *draft)
{
    uint64_t end = 0;
    for (uint32_t i = 0; i < draft->fragments_count; i++) {
        if (draft->fragments[i].offset != end) return false;
        end += draft->fragments[i].len;
    }
    return end == draft->size;
}

static void ending_done(struct draft *draft, enum status status, bool revoke)
{
    struct session_item *item = draft->ender;
    const uint64_t size = status == STATUS_OK ? draft->size : 0;
    ASSERT(draft->state == DRAFT_ENDING && item != NULL);

    draft->ender = NULL;
    if (revoke) {
        draft_give_back(draft, NULL);
    } else {
        draft_close(draft);
    }
    session_item_end(item, status, size);
}

static void draft_commit(struct draft *draft);

/* It may have happened, or will: the same commit again tells. */
static void commit_again(struct draft *draft, enum status why)
{
    struct env *env = draft->sessions->store->env;
    const uint64_t now = env_now_ns(env);

    draft->last = why;
    if (now >= draft->ender->call->deadline_ns) {
        ending_done(draft, why, false);
    } else {
        env_timer_set(env, &draft->timer, now + COMMIT_RETRY_MS * ENV_NS_PER_MS);
    }
}

static void on_committed(void *ctx, enum status status)
{
    struct draft *draft = ctx;

    switch ((int)status) {
    case STATUS_OK: ending_done(draft, STATUS_OK, false); break;
    case STATUS_EXISTS:
    case STATUS_STALE:
    case STATUS_CORRUPT:
    case STATUS_INVALID:
    case STATUS_FULL:
        /* What was there may have come to its end since then: by a new master, or another value. */
        ending_done(draft, draft->unsure ? draft->last : status, !draft->unsure);
        break;
    case STATUS_BUSY: commit_again(draft, STATUS_TIMEOUT); break; /* the old value is being read */
    default:
        draft->unsure = true;
        commit_again(draft, status);
        break;
    }
}

/* Columns of the commit; `lens` is left alone if the fragments are the pieces. */
static bool columns_fill(const struct draft *draft, uint64_t *sums, uint32_t *lens)
{
    bool pieces = draft->fragments_count == store_pieces(draft->size, STORE_PIECE_SIZE);

    for (uint32_t i = 0; i < draft->fragments_count; i++) {
        const struct fragment *fragment = &draft->fragments[i];
        sums[i] = fragment->sum;
        lens[i] = fragment->len;
        pieces = pieces && fragment->offset == (uint64_t)i * STORE_PIECE_SIZE;
    }
    return pieces;
}

static enum status commit_send(struct draft *draft)
{
    const uint32_t count = draft->fragments_count;
    uint64_t *sums = malloc(count * (sizeof(uint64_t) + sizeof(uint32_t)));
    struct store_commit message = { .key = draft->key,
                                    .put_id = draft->put_id,
                                    .term = draft->term,
                                    .epoch = draft->place.node.epoch,
                                    .address = draft->place.address,
                                    .size = draft->size,
                                    .sums_data = sums,
                                    .attributes = draft->attributes };

    if (sums == NULL) return STATUS_FULL;
    uint32_t *lens = (uint32_t *)(void *)(sums + count);
    if (!columns_fill(draft, sums, lens)) {
        message.parts_data = lens;
        message.parts_count = count;
    }
    const enum status status = client_commits_add(
        draft->sessions->store->commits, draft->owner, &message,
        session_try_until(draft->sessions, draft->ender->call->deadline_ns), on_committed, draft);
    free(sums);
    return status;
}

static void draft_commit(struct draft *draft)
{
    ASSERT(draft->state == DRAFT_ENDING && draft->writing == 0); /* I3 */
    const enum status status = commit_send(draft);
    if (status != STATUS_OK) commit_again(draft, status);
}

static void on_draft_timer(void *ctx)
{
    struct draft *draft = ctx;

    if (draft->state == DRAFT_OPEN) {
        LOG_DEBUG("store", "put_session_over", "bytes=%llu", (unsigned long long)draft->size);
        draft_give_back(draft, NULL);
        return;
    }
    ASSERT(draft->state == DRAFT_ENDING);
    if (env_now_ns(draft->sessions->store->env) >= draft->ender->call->deadline_ns) {
        ending_done(draft, draft->last, false);
    } else {
        draft_commit(draft);
    }
}

void draft_end(struct session_item *item)
{
    struct draft *draft = draft_find(item);

    if (draft == NULL) {
        session_item_end(item, STATUS_NOT_FOUND, 0);
    } else if (draft->writing > 0) {
        session_item_end(item, STATUS_BUSY, 0);
    } else if (!draft_whole(draft)) {
        draft_give_back(draft, NULL);
        session_item_end(item, STATUS_INVALID, 0);
    } else {
        env_timer_cancel(draft->sessions->store->env, &draft->timer);
        draft->state = DRAFT_ENDING;
        draft->ender = item;
        draft_commit(draft);
    }
}

void draft_revoke(struct session_item *item)
{
    struct draft *draft = draft_find(item);

    if (draft == NULL) {
        session_item_end(item, STATUS_NOT_FOUND, 0);
    } else {
        draft_give_back(draft, item);
    }
}

void draft_free_all(struct sessions *sessions)
{
    while (sessions->drafts_first != NULL) {
        sessions->drafts_first->writing = 0; /* the engine calls back no more */
        draft_free(sessions->drafts_first);
    }
}
