/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/gateway_record.c - see the header for what a recording tells, and what it does not.
 *
 * Requests under way are a list in the order of arrival. Whenever the first of them has ended, its
 * line goes to the buffer, and the next is looked at. */
#include "serve/gateway_record.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/env.h"
#include "base/hash.h"
#include "base/key.h"
#include "base/log.h"
#include "conductor/keys.h"
#include "net/http.h"

enum { SALT_SIZE = 32, ID_BITS = 52 };

struct pending {
    struct pending *next;
    uint64_t id;
    uint64_t arrived_ms; /* since the recording began */
    uint32_t input_tokens, output_tokens;
    bool ended;
    uint32_t ids_count;
    uint64_t ids[];
};

struct recorder {
    struct recorder_options options;
    uint8_t salt[SALT_SIZE];
    uint64_t began_ns;
    struct pending *first, *last;
    uint32_t pending;
    uint64_t ids; /* of all pending */
    struct buf text;
    bool writable_armed;
    uint64_t written, left_out;
};

enum status recorder_create(const struct recorder_options *options, struct recorder **out)
{
    const uint32_t block = options->block_tokens;
    struct recorder *recorder = calloc(1, sizeof(*recorder));

    ASSERT(block >= RECORD_BLOCK_MIN && block <= RECORD_BLOCK_MAX && (block & (block - 1)) == 0);
    if (recorder == NULL) return STATUS_NO_MEMORY;
    recorder->options = *options;
    env_random(options->env, recorder->salt, sizeof(recorder->salt));
    recorder->began_ns = env_now_ns(options->env);
    buf_init(&recorder->text, RECORD_TEXT_MAX);
    http_on_hangup(options->http, options->on_over, options->ctx);
    http_begin(options->http, 200, "application/jsonl");
    LOG_INFO("gateway", "recording", "listener=%s block_tokens=%u", http_peer(options->http),
             block);
    *out = recorder;
    return STATUS_OK;
}

static void drop_first(struct recorder *recorder)
{
    struct pending *first = recorder->first;

    recorder->first = first->next;
    if (recorder->first == NULL) recorder->last = NULL;
    ASSERT(recorder->pending > 0 && recorder->ids >= first->ids_count);
    recorder->pending--;
    recorder->ids -= first->ids_count;
    free(first);
}

void recorder_destroy(struct recorder *recorder)
{
    if (recorder == NULL) return;
    LOG_INFO("gateway", "recorded", "requests=%llu left_out=%llu under_way=%u",
             (unsigned long long)recorder->written, (unsigned long long)recorder->left_out,
             recorder->pending);
    while (recorder->first != NULL)
        drop_first(recorder);
    http_end(recorder->options.http);
    buf_fini(&recorder->text);
    memset(recorder->salt, 0, sizeof(recorder->salt));
    free(recorder);
}

/* ---- arrivals ---- */

static uint64_t salted(const struct recorder *recorder, const struct block_key *key)
{
    uint8_t digest[HASH_SHA256_SIZE], salted_key[SALT_SIZE + BLOCK_KEY_SIZE];
    uint64_t id;

    memcpy(salted_key, recorder->salt, SALT_SIZE);
    memcpy(salted_key + SALT_SIZE, key->bytes, BLOCK_KEY_SIZE);
    hash_sha256(salted_key, sizeof(salted_key), digest);
    memcpy(&id, digest, sizeof(id));
    return id >> (64 - ID_BITS); /* whole in a double, as which some read JSON numbers */
}

/* One id a block, the last one of what is left. */
static void fill_ids(const struct recorder *recorder, const uint32_t *tokens,
                     struct pending *pending)
{
    const uint32_t block = recorder->options.block_tokens;
    struct block_key key = { { 0 } };

    for (uint32_t i = 0; i < pending->ids_count; i++) {
        const uint32_t left = pending->input_tokens - i * block;
        key =
            conductor_key_next(&key, NULL, tokens + (size_t)i * block, left < block ? left : block);
        pending->ids[i] = salted(recorder, &key);
    }
}

void recorder_arrived(struct recorder *recorder, uint64_t id, const uint32_t *tokens,
                      uint32_t count)
{
    const uint32_t block = recorder->options.block_tokens;
    const uint32_t ids = (count + block - 1) / block;
    const uint64_t age_ns = env_now_ns(recorder->options.env) - recorder->began_ns;
    const bool full =
        recorder->pending == RECORD_PENDING_MAX || recorder->ids + ids > RECORD_IDS_MAX;
    struct pending *pending =
        full ? NULL : calloc(1, sizeof(*pending) + ids * sizeof(pending->ids[0]));

    ASSERT(count > 0);
    if (pending == NULL) {
        recorder->left_out++;
        return;
    }
    pending->id = id;
    pending->arrived_ms = age_ns / ENV_NS_PER_MS;
    pending->input_tokens = count;
    pending->ids_count = ids;
    fill_ids(recorder, tokens, pending);
    *(recorder->last != NULL ? &recorder->last->next : &recorder->first) = pending;
    recorder->last = pending;
    recorder->pending++;
    recorder->ids += ids;
}

/* ---- lines ---- */

static enum status write_line(const struct recorder *recorder, const struct pending *pending,
                              struct buf *out)
{
    enum status status =
        buf_printf(out,
                   "{\"timestamp\": %llu, \"input_length\": %u, \"output_length\": %u, "
                   "\"block_size\": %u, \"hash_ids\": [",
                   (unsigned long long)pending->arrived_ms, pending->input_tokens,
                   pending->output_tokens, recorder->options.block_tokens);

    for (uint32_t i = 0; i < pending->ids_count && status == STATUS_OK; i++) {
        status = buf_printf(out, "%s%llu", i == 0 ? "" : ", ", (unsigned long long)pending->ids[i]);
    }
    return status == STATUS_OK ? buf_append_text(out, "]}\n") : status;
}

/* Into the text whole, or not at all. */
static void put_line(struct recorder *recorder, const struct pending *pending)
{
    const size_t before = recorder->text.len;

    if (write_line(recorder, pending, &recorder->text) == STATUS_OK) {
        recorder->written++;
        return;
    }
    buf_truncate(&recorder->text, before);
    recorder->left_out++;
}

static void flush(struct recorder *recorder);

static void on_writable(void *ctx)
{
    struct recorder *recorder = ctx;

    recorder->writable_armed = false;
    flush(recorder);
}

/* A listener who has left is heard of by on_over. */
static void flush(struct recorder *recorder)
{
    if (recorder->writable_armed || recorder->text.len == 0) return;
    const enum status status =
        http_send(recorder->options.http, buf_data(&recorder->text), recorder->text.len);
    if (status == STATUS_FULL) {
        recorder->writable_armed = true;
        http_on_writable(recorder->options.http, on_writable, recorder);
        return;
    }
    buf_clear(&recorder->text);
}

void recorder_ended(struct recorder *recorder, uint64_t id, uint32_t output_tokens)
{
    struct pending *pending = recorder->first;

    while (pending != NULL && (pending->ended || pending->id != id))
        pending = pending->next;
    if (pending == NULL) return;
    pending->ended = true;
    pending->output_tokens = output_tokens;
    while (recorder->first != NULL && recorder->first->ended) {
        if (recorder->first->output_tokens > 0) put_line(recorder, recorder->first);
        drop_first(recorder);
    }
    flush(recorder);
}

uint64_t recorder_left_out(const struct recorder *recorder)
{
    return recorder->left_out;
}
