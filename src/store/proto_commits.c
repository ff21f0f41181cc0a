/* SPDX-License-Identifier: Apache-2.0
 *
 * store/proto_commits.c - store.commits, the batch of commit: columns, as every hot batch call. Of
 * values in pieces there is a sum for each piece; of one that was written in parts a sum for each
 * part, and the parts' lengths in a column of their own. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"
#include "store/proto.h"
#include "store/proto_int.h"

enum {
    COMMITS_TERM = 1,
    COMMITS_EPOCH = 2,
    COMMITS_LENS = 3,
    COMMITS_KEYS = 4,
    COMMITS_NUMBERS = 5, /* three each: put id, address, size */
    COMMITS_SUMS = 6,
    COMMITS_ATTRIBUTES = 7,  /* three each; absent: all zero */
    COMMITS_PARTS_COUNT = 8, /* of each; 0: pieces; absent: all are */
    COMMITS_PARTS = 9,       /* bytes under each sum of those in parts */
};

enum { NUMBERS = 3 };

/* The columns that are put together before they are written: one block, which begins with the
 * numbers. */
struct columns {
    uint64_t *numbers;
    uint64_t *attributes;
    uint64_t *sums;
    struct store_key *keys;
    uint32_t *counts;
    uint32_t *parts;
    uint32_t sums_count;
    uint32_t parts_count;
    bool any; /* of the attributes is not zero */
};

uint32_t store_commit_sums(const struct store_commit *commit)
{
    if (commit->parts_data != NULL) return commit->parts_count;
    return (uint32_t)store_pieces(commit->size, STORE_PIECE_SIZE);
}

static bool columns_init(struct columns *columns, const struct store_commit *commits,
                         uint32_t count)
{
    size_t sums = 0;
    size_t parts = 0;
    for (uint32_t i = 0; i < count; i++) {
        sums += store_commit_sums(&commits[i]);
        if (commits[i].parts_data != NULL) parts += commits[i].parts_count;
    }
    ASSERT(sums <= STORE_COMMITS_SUMS_MAX);
    const size_t longs = (size_t)count * (NUMBERS + STORE_ATTRIBUTE_NUMBERS) + sums;
    uint64_t *block = malloc(longs * sizeof(uint64_t) + count * sizeof(struct store_key) +
                             (count + parts) * sizeof(uint32_t));
    if (block == NULL) return false;
    *columns = (struct columns){ .numbers = block };
    columns->attributes = block + (size_t)count * NUMBERS;
    columns->sums = columns->attributes + (size_t)count * STORE_ATTRIBUTE_NUMBERS;
    columns->keys = (struct store_key *)(void *)(columns->sums + sums);
    columns->counts = (uint32_t *)(void *)(columns->keys + count);
    columns->parts = columns->counts + count;
    return true;
}

static void columns_add(struct columns *columns, const struct store_commit *commit, uint32_t i)
{
    uint64_t *three = &columns->numbers[(size_t)i * NUMBERS];
    const uint32_t sums = store_commit_sums(commit);
    ASSERT(commit->size > 0 && commit->size <= STORE_OBJECT_SIZE_MAX && commit->put_id != 0);

    columns->keys[i] = commit->key;
    three[0] = commit->put_id;
    three[1] = commit->address;
    three[2] = commit->size;
    memcpy(columns->sums + columns->sums_count, commit->sums_data, sums * sizeof(uint64_t));
    columns->sums_count += sums;
    store_attributes_pack(&commit->attributes,
                          &columns->attributes[(size_t)i * STORE_ATTRIBUTE_NUMBERS]);
    columns->any |= store_attributes_any(&commit->attributes);
    columns->counts[i] = commit->parts_data == NULL ? 0 : sums;
    if (commit->parts_data == NULL) return;
    memcpy(columns->parts + columns->parts_count, commit->parts_data, sums * sizeof(uint32_t));
    columns->parts_count += sums;
}

enum status store_encode_commits(struct buf *buf, const struct store_commit *commits,
                                 uint32_t count)
{
    struct columns columns;
    struct msg_writer writer;
    ASSERT(count > 0 && count <= STORE_COMMITS_MAX);

    if (!columns_init(&columns, commits, count)) return STATUS_FULL;
    for (uint32_t i = 0; i < count; i++) {
        ASSERT(commits[i].term == commits[0].term && commits[i].epoch == commits[0].epoch);
        columns_add(&columns, &commits[i], i);
    }
    const bool parts = columns.parts_count > 0;
    msg_writer_init(&writer, buf);
    msg_put_map(&writer, 6u + columns.any + 2u * parts);
    msg_field_u64(&writer, COMMITS_TERM, commits[0].term);
    msg_field_u64(&writer, COMMITS_EPOCH, commits[0].epoch);
    store_put_keys(&writer, COMMITS_LENS, COMMITS_KEYS, columns.keys, count);
    msg_field_u64s(&writer, COMMITS_NUMBERS, columns.numbers, (size_t)count * NUMBERS);
    msg_field_u64s(&writer, COMMITS_SUMS, columns.sums, columns.sums_count);
    if (columns.any) {
        msg_field_u64s(&writer, COMMITS_ATTRIBUTES, columns.attributes,
                       (size_t)count * STORE_ATTRIBUTE_NUMBERS);
    }
    if (parts) {
        msg_field_u32s(&writer, COMMITS_PARTS_COUNT, columns.counts, count);
        msg_field_u32s(&writer, COMMITS_PARTS, columns.parts, columns.parts_count);
    }
    free(columns.numbers);
    return writer.status;
}

/* The next one; false: the columns are too short for it, or it is none. */
static bool take(const struct store_commits *commits, struct store_commits_iter *iter,
                 struct store_commit *out)
{
    const uint32_t i = iter->i++;
    const uint32_t key_len = msg_u32_at(commits->lens, i);
    const uint64_t size = msg_u64_at(commits->numbers, (size_t)i * NUMBERS + 2);
    const uint32_t parts = commits->counts.count > 0 ? msg_u32_at(commits->counts, i) : 0;
    if (size == 0 || size > STORE_OBJECT_SIZE_MAX) return false;
    if (key_len == 0 || key_len > STORE_KEY_SIZE_MAX) return false;
    const size_t sums = parts > 0 ? parts : store_pieces(size, STORE_PIECE_SIZE);
    if (key_len > commits->keys.len - iter->key || sums > commits->sums.count - iter->sum ||
        parts > commits->parts.count - iter->part) {
        return false;
    }
    *out = (struct store_commit){
        .key = { commits->keys.data + iter->key, key_len },
        .put_id = msg_u64_at(commits->numbers, (size_t)i * NUMBERS),
        .term = commits->term,
        .epoch = commits->epoch,
        .address = msg_u64_at(commits->numbers, (size_t)i * NUMBERS + 1),
        .size = size,
        .sums = { commits->sums.data + iter->sum * sizeof(uint64_t), sums },
        .attributes = store_attributes_at(commits->attributes, (size_t)i * STORE_ATTRIBUTE_NUMBERS),
    };
    if (parts > 0) {
        out->parts =
            (struct msg_column){ commits->parts.data + iter->part * sizeof(uint32_t), parts };
    }
    iter->key += key_len;
    iter->sum += sums;
    iter->part += parts;
    return out->put_id != 0 && store_commit_sums_valid(out);
}

/* Every value is one, and the columns are used up by them. */
static bool commits_valid(const struct store_commits *commits)
{
    struct store_commits_iter iter = { 0 };
    struct store_commit one;
    uint64_t size = 0;

    if (commits->count == 0 || commits->numbers.count != (size_t)commits->count * NUMBERS) {
        return false;
    }
    if (commits->attributes.count != 0 &&
        commits->attributes.count != (size_t)commits->count * STORE_ATTRIBUTE_NUMBERS) {
        return false;
    }
    if (commits->counts.count != 0 && commits->counts.count != commits->count) return false;
    while (iter.i < commits->count) {
        if (!take(commits, &iter, &one)) return false;
        size += one.size;
    }
    return size <= STORE_OBJECT_SIZE_MAX && iter.key == commits->keys.len &&
           iter.sum == commits->sums.count && iter.part == commits->parts.count;
}

enum status store_decode_commits(const uint8_t *body, size_t len, struct store_commits *out)
{
    const size_t max = STORE_COMMITS_MAX;
    struct msg_reader reader;
    uint64_t key;
    struct store_commits got = { 0 };

    msg_reader_init(&reader, body, len);
    uint32_t left = msg_get_map(&reader);
    while (msg_next_key(&reader, &left, &key)) {
        switch (key) {
        case COMMITS_TERM: got.term = msg_get_u64(&reader); break;
        case COMMITS_EPOCH: got.epoch = msg_get_u64(&reader); break;
        case COMMITS_LENS: got.lens = msg_get_u32s(&reader, max); break;
        case COMMITS_KEYS: got.keys = msg_get_bin(&reader, max * STORE_KEY_SIZE_MAX); break;
        case COMMITS_NUMBERS: got.numbers = msg_get_u64s(&reader, max * NUMBERS); break;
        case COMMITS_SUMS: got.sums = msg_get_u64s(&reader, STORE_COMMITS_SUMS_MAX); break;
        case COMMITS_ATTRIBUTES:
            got.attributes = msg_get_u64s(&reader, max * STORE_ATTRIBUTE_NUMBERS);
            break;
        case COMMITS_PARTS_COUNT: got.counts = msg_get_u32s(&reader, max); break;
        case COMMITS_PARTS: got.parts = msg_get_u32s(&reader, STORE_COMMITS_SUMS_MAX); break;
        default: msg_skip(&reader); break;
        }
    }
    if (msg_end(&reader) != STATUS_OK) return STATUS_INVALID;
    got.count = (uint32_t)got.lens.count;
    if (!commits_valid(&got)) return STATUS_INVALID;
    *out = got;
    return STATUS_OK;
}

bool store_commits_next(const struct store_commits *commits, struct store_commits_iter *iter,
                        struct store_commit *out)
{
    if (iter->i == commits->count) return false;
    const bool valid = take(commits, iter, out);
    ASSERT(valid); /* as store_decode_commits() has seen */
    return true;
}
