/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/proto.c - encoding and decoding of serve/proto.h.
 *
 * Every message is one map. A decoder walks its keys with net/msg.h, whose errors are sticky, notes
 * in a bit set which fields it has seen, and at the end asks for three things at once: no error,
 * nothing left, every required field seen. Ranges that hold whatever the model is are checked here;
 * those that depend on it (context, vocabulary, block size) are the worker's. */
#include "serve/proto.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"
#include "conductor/keys.h"
#include "net/msg.h"
#include "serve/proto_int.h"

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "columns are native arrays");
static_assert(sizeof(struct block_key) == BLOCK_KEY_SIZE, "a column of keys is an array of keys");

const char *proto_method_name(enum proto_method method)
{
    switch (method) {
    case PROTO_DECODE_OPEN: return "decode.open";
    case PROTO_DECODE_KV_DONE: return "decode.kv_done";
    case PROTO_PREFILL_RUN: return "prefill.run";
    case PROTO_NODE_INFO: return "node.info";
    case PROTO_NODE_STATUS: return "node.status";
    case PROTO_NODE_ROLE: return "node.role";
    case PROTO_NODE_REFUSED: return "node.refused";
    case PROTO_NODE_TRANSFERS: return "node.transfers";
    case PROTO_NODE_COPY: return "node.copy";
    case PROTO_NODE_DROP: return "node.drop";
    case PROTO_NODE_LEAVING: return "node.leaving";
    case PROTO_DECODE_PUSH: return "decode.push";
    case PROTO_STAGE_RUN: return "stage.run";
    case PROTO_STAGE_ROWS: return "stage.rows";
    case PROTO_STAGE_SUMS: return "stage.sums";
    }
    return "unknown";
}

const char *proto_role_name(enum proto_role role)
{
    switch (role) {
    case PROTO_ROLE_PREFILL: return "prefill";
    case PROTO_ROLE_DECODE: return "decode";
    case PROTO_ROLE_STORE: return "store";
    case PROTO_ROLE_BOTH: return "both";
    }
    return "unknown";
}

enum status proto_role_parse(const char *text, enum proto_role *out)
{
    for (int role = PROTO_ROLE_PREFILL; role <= PROTO_ROLE_BOTH; role++) {
        if (strcmp(text, proto_role_name((enum proto_role)role)) != 0) continue;
        *out = (enum proto_role)role;
        return STATUS_OK;
    }
    return STATUS_INVALID;
}

const char *proto_cause_name(enum proto_cause cause)
{
    switch (cause) {
    case PROTO_CAUSE_INTERNAL: return "internal";
    case PROTO_CAUSE_SOURCE: return "source";
    case PROTO_CAUSE_PUSH: return "push";
    case PROTO_CAUSE_PAGES: return "pages";
    case PROTO_CAUSE_QUEUE: return "queue";
    case PROTO_CAUSE_CONTEXT: return "context";
    case PROTO_CAUSE_INVALID: return "invalid";
    case PROTO_CAUSE_STALE: return "stale";
    case PROTO_CAUSE_SHUTDOWN: return "shutdown";
    case PROTO_CAUSE_LIMIT: return "limit";
    case PROTO_CAUSE_STAGE: return "stage";
    }
    return "unknown";
}

/* ---- columns ---- */

uint32_t proto_u32_at(struct proto_u32s view, uint32_t index)
{
    uint32_t value;
    ASSERT(index < view.count);
    memcpy(&value, view.bytes + (size_t)index * sizeof(value), sizeof(value));
    return value;
}

uint64_t proto_u64_at(struct proto_u64s view, uint32_t index)
{
    uint64_t value;
    ASSERT(index < view.count);
    memcpy(&value, view.bytes + (size_t)index * sizeof(value), sizeof(value));
    return value;
}

struct proto_u32s proto_u32s_of(const uint32_t *values, uint32_t count)
{
    return (struct proto_u32s){ .bytes = (const uint8_t *)values, .count = count };
}

struct proto_u64s proto_u64s_of(const uint64_t *values, uint32_t count)
{
    return (struct proto_u64s){ .bytes = (const uint8_t *)values, .count = count };
}

void proto_u32s_copy(struct proto_u32s view, uint32_t *out)
{
    if (view.count > 0) memcpy(out, view.bytes, (size_t)view.count * sizeof(*out));
}

void proto_u64s_copy(struct proto_u64s view, uint64_t *out)
{
    if (view.count > 0) memcpy(out, view.bytes, (size_t)view.count * sizeof(*out));
}

static bool between(double value, double low, double high)
{
    return value >= low && value <= high; /* not NaN */
}

static float float_at(struct proto_u32s view, uint32_t index)
{
    const uint32_t bits = proto_u32_at(view, index);
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

/* Of infer/logprobs.h, at word `at`, so long: a probability and a rank, then pairs of a token and a
 * probability. */
static bool row_ok(struct proto_u32s words, uint32_t at, uint32_t length)
{
    if (length < 2 || length % 2 != 0 || length > PROTO_ROW_MAX) return false;
    if (!between((double)float_at(words, at), -1e4, 0) || proto_u32_at(words, at + 1) == 0)
        return false;
    for (uint32_t i = 3; i < length; i += 2) {
        if (!between((double)float_at(words, at + i), -1e4, 0)) return false;
    }
    return true;
}

static struct proto_u32s get_row(struct msg_reader *reader)
{
    const struct proto_u32s row = get_u32s(reader, PROTO_ROW_MAX);

    if (!row_ok(row, 0, row.count)) msg_fail(reader);
    return row;
}

/* ---- sequence ---- */

enum sequence_field {
    SEQUENCE_REQUEST = 1,
    SEQUENCE_ATTEMPT,
    SEQUENCE_TOKENS,
    SEQUENCE_KEYS,
    SEQUENCE_TEMPERATURE,
    SEQUENCE_TOP_P,
    SEQUENCE_SEED,
    SEQUENCE_GENERATED,
    SEQUENCE_REUSE,
    SEQUENCE_HOLDER,
    SEQUENCE_PRIORITY, /* with PROTO_PRIORITY_MAX added */
    SEQUENCE_TENANT,
    SEQUENCE_LATER_US,
    SEQUENCE_MIN_P,
    SEQUENCE_REPETITION,
    SEQUENCE_FREQUENCY,
    SEQUENCE_PRESENCE,
    SEQUENCE_TOP_K,
    SEQUENCE_BIAS_TOKENS,
    SEQUENCE_BIASES,
    SEQUENCE_HELD,
    SEQUENCE_HELD_UNTIL,
    SEQUENCE_LOGPROBS,
    SEQUENCE_SALT, /* empty: none */
    SEQUENCE_GRAMMAR,
    SEQUENCE_SCORES,
};

static void put_sequence(struct msg_writer *writer, uint32_t key, const struct proto_sequence *seq)
{
    ASSERT(seq->tokens.count >= 1 && seq->tokens.count <= PROTO_TOKENS_MAX);
    ASSERT(seq->generated_before < seq->tokens.count);
    ASSERT(seq->priority >= -PROTO_PRIORITY_MAX && seq->priority <= PROTO_PRIORITY_MAX);
    ASSERT(seq->later_us <= PROTO_LATER_US_MAX);
    msg_field_map(writer, key, SEQUENCE_SCORES);
    msg_field_u64(writer, SEQUENCE_REQUEST, seq->request_id);
    msg_field_u64(writer, SEQUENCE_ATTEMPT, seq->attempt);
    put_u32s(writer, SEQUENCE_TOKENS, seq->tokens);
    msg_field_bin(writer, SEQUENCE_KEYS, seq->keys, (size_t)seq->keys_count * BLOCK_KEY_SIZE);
    msg_field_f64(writer, SEQUENCE_TEMPERATURE, seq->sampling.temperature);
    msg_field_f64(writer, SEQUENCE_TOP_P, seq->sampling.top_p);
    msg_field_u64(writer, SEQUENCE_SEED, seq->sampling.seed);
    msg_field_u64(writer, SEQUENCE_GENERATED, seq->generated_before);
    msg_field_u64(writer, SEQUENCE_REUSE, seq->plan.reuse_blocks);
    msg_field_text(writer, SEQUENCE_HOLDER, seq->plan.holder);
    msg_field_u64(writer, SEQUENCE_PRIORITY, (uint64_t)(seq->priority + PROTO_PRIORITY_MAX));
    msg_field_u64(writer, SEQUENCE_TENANT, seq->tenant);
    msg_field_u64(writer, SEQUENCE_LATER_US, seq->later_us);
    msg_field_f64(writer, SEQUENCE_MIN_P, seq->sampling.min_p);
    msg_field_f64(writer, SEQUENCE_REPETITION, seq->sampling.repetition);
    msg_field_f64(writer, SEQUENCE_FREQUENCY, seq->sampling.frequency);
    msg_field_f64(writer, SEQUENCE_PRESENCE, seq->sampling.presence);
    msg_field_u64(writer, SEQUENCE_TOP_K, seq->sampling.top_k);
    put_u32s(writer, SEQUENCE_BIAS_TOKENS, seq->sampling.bias_tokens);
    put_u32s(writer, SEQUENCE_BIASES, seq->sampling.biases);
    put_u32s(writer, SEQUENCE_HELD, seq->sampling.held);
    msg_field_u64(writer, SEQUENCE_HELD_UNTIL, seq->sampling.held_until);
    msg_field_u64(writer, SEQUENCE_LOGPROBS, seq->sampling.logprobs);
    msg_field_bin(writer, SEQUENCE_SALT, seq->salt, seq->salt != NULL ? BLOCK_KEY_SIZE : 0);
    msg_field_bin(writer, SEQUENCE_GRAMMAR, seq->sampling.grammar.data, seq->sampling.grammar.len);
    msg_field_u64(writer, SEQUENCE_SCORES, seq->sampling.scores);
}

static uint32_t get_keys(struct msg_reader *reader, const struct block_key **out)
{
    const uint8_t *bytes;
    const uint32_t count = get_column(reader, PROTO_BLOCKS_MAX, BLOCK_KEY_SIZE, &bytes);
    *out = (const struct block_key *)(const void *)bytes; /* bytes of bytes: any alignment */
    return count;
}

float proto_bias_at(const struct proto_sampling *sampling, uint32_t index)
{
    return float_at(sampling->biases, index);
}

static const struct block_key *get_salt(struct msg_reader *reader)
{
    const struct block_key *salt;
    const uint32_t count = get_keys(reader, &salt);

    if (count > 1) msg_fail(reader);
    return count == 1 ? salt : NULL;
}

static bool sampling_ok(const struct proto_sampling *sampling)
{
    if (sampling->bias_tokens.count != sampling->biases.count) return false;
    for (uint32_t i = 0; i < sampling->biases.count; i++) {
        if (!between((double)proto_bias_at(sampling, i), -1000, 1000)) return false;
    }
    return between(sampling->temperature, 0, 10) && between(sampling->top_p, 0, 1) &&
           sampling->top_p > 0 && between(sampling->min_p, 0, 1) &&
           between(sampling->repetition, 0, 10) && between(sampling->frequency, -10, 10) &&
           between(sampling->presence, -10, 10);
}

static void check_sequence(struct msg_reader *reader, const struct proto_sequence *seq)
{
    const bool counts_ok = seq->tokens.count >= 1 && seq->generated_before < seq->tokens.count &&
                           seq->keys_count <= seq->tokens.count &&
                           seq->plan.reuse_blocks <= seq->keys_count;
    if (!sampling_ok(&seq->sampling) || !counts_ok) msg_fail(reader);
}

/* What is not in here yet is skipped: newer senders. */
static void get_sampling_field(struct msg_reader *reader, uint64_t key, struct proto_sampling *out)
{
    switch (key) {
    case SEQUENCE_TEMPERATURE: out->temperature = msg_get_f64(reader); break;
    case SEQUENCE_TOP_P: out->top_p = msg_get_f64(reader); break;
    case SEQUENCE_SEED: out->seed = msg_get_u64(reader); break;
    case SEQUENCE_MIN_P: out->min_p = msg_get_f64(reader); break;
    case SEQUENCE_REPETITION: out->repetition = msg_get_f64(reader); break;
    case SEQUENCE_FREQUENCY: out->frequency = msg_get_f64(reader); break;
    case SEQUENCE_PRESENCE: out->presence = msg_get_f64(reader); break;
    case SEQUENCE_TOP_K: out->top_k = msg_get_u32(reader); break;
    case SEQUENCE_BIAS_TOKENS: out->bias_tokens = get_u32s(reader, PROTO_BIASES_MAX); break;
    case SEQUENCE_BIASES: out->biases = get_u32s(reader, PROTO_BIASES_MAX); break;
    case SEQUENCE_HELD: out->held = get_u32s(reader, PROTO_HELD_MAX); break;
    case SEQUENCE_HELD_UNTIL: out->held_until = msg_get_u32(reader); break;
    case SEQUENCE_GRAMMAR: out->grammar = msg_get_bin(reader, PROTO_GRAMMAR_MAX); break;
    case SEQUENCE_LOGPROBS: out->logprobs = get_in(reader, 0, 1 + PROTO_TOP_MAX); break;
    case SEQUENCE_SCORES: out->scores = get_in(reader, 0, 1 + PROTO_TOP_MAX); break;
    default: msg_skip(reader); break;
    }
}

static void get_sequence(struct msg_reader *reader, struct proto_sequence *out)
{
    uint64_t key, seen = 0;
    uint32_t left = msg_get_map(reader);

    memset(out, 0, sizeof(*out));
    while (next_field(reader, &left, &key, &seen)) {
        switch (key) {
        case SEQUENCE_REQUEST: out->request_id = msg_get_u64(reader); break;
        case SEQUENCE_ATTEMPT: out->attempt = msg_get_u32(reader); break;
        case SEQUENCE_TOKENS: out->tokens = get_u32s(reader, PROTO_TOKENS_MAX); break;
        case SEQUENCE_KEYS: out->keys_count = get_keys(reader, &out->keys); break;
        case SEQUENCE_SALT: out->salt = get_salt(reader); break;
        case SEQUENCE_GENERATED: out->generated_before = msg_get_u32(reader); break;
        case SEQUENCE_REUSE: out->plan.reuse_blocks = msg_get_u32(reader); break;
        case SEQUENCE_HOLDER:
            msg_get_text_copy(reader, out->plan.holder, sizeof(out->plan.holder));
            break;
        case SEQUENCE_PRIORITY:
            out->priority = (int)get_in(reader, 0, 2 * PROTO_PRIORITY_MAX) - PROTO_PRIORITY_MAX;
            break;
        case SEQUENCE_TENANT: out->tenant = msg_get_u64(reader); break;
        case SEQUENCE_LATER_US: out->later_us = msg_get_u64_max(reader, PROTO_LATER_US_MAX); break;
        default: get_sampling_field(reader, key, &out->sampling); break;
        }
    }
    const uint64_t required = fields_through(SEQUENCE_HOLDER);
    if ((seen & required) != required) msg_fail(reader);
    check_sequence(reader, out);
}

/* ---- decode.open ---- */

enum open_field {
    OPEN_SEQUENCE = 1,
    OPEN_MAX_TOKENS,
    OPEN_IGNORE_EOS,
    OPEN_TBT_US,
    OPEN_MAY_REFUSE,
    OPEN_DOOR,
    OPEN_PLACES,
    OPEN_COMPUTES,
};

enum status proto_decode_open_encode(const struct proto_decode_open *msg, struct buf *out)
{
    struct msg_writer writer;
    ASSERT(msg->max_tokens > msg->sequence.generated_before);
    msg_writer_init(&writer, out);
    msg_put_map(&writer, OPEN_COMPUTES);
    put_sequence(&writer, OPEN_SEQUENCE, &msg->sequence);
    msg_field_u64(&writer, OPEN_MAX_TOKENS, msg->max_tokens);
    msg_field_bool(&writer, OPEN_IGNORE_EOS, msg->ignore_eos);
    msg_field_u64(&writer, OPEN_TBT_US, msg->limits.tbt_us);
    msg_field_bool(&writer, OPEN_MAY_REFUSE, msg->limits.may_refuse);
    msg_field_bool(&writer, OPEN_DOOR, msg->limits.door);
    msg_field_u64(&writer, OPEN_PLACES, msg->limits.places);
    msg_field_bool(&writer, OPEN_COMPUTES, msg->computes);
    return writer.status;
}

enum status proto_decode_open_decode(const void *data, size_t len, struct proto_decode_open *out)
{
    struct msg_reader reader;
    uint64_t key, seen = 0;

    memset(out, 0, sizeof(*out));
    msg_reader_init(&reader, data, len);
    uint32_t left = msg_get_map(&reader);
    while (next_field(&reader, &left, &key, &seen)) {
        switch (key) {
        case OPEN_SEQUENCE: get_sequence(&reader, &out->sequence); break;
        case OPEN_MAX_TOKENS: out->max_tokens = get_in(&reader, 1, PROTO_TOKENS_MAX); break;
        case OPEN_IGNORE_EOS: out->ignore_eos = msg_get_bool(&reader); break;
        case OPEN_TBT_US: out->limits.tbt_us = msg_get_u32(&reader); break;
        case OPEN_MAY_REFUSE: out->limits.may_refuse = msg_get_bool(&reader); break;
        case OPEN_DOOR: out->limits.door = msg_get_bool(&reader); break;
        case OPEN_PLACES: out->limits.places = msg_get_u32(&reader); break;
        case OPEN_COMPUTES: out->computes = msg_get_bool(&reader); break;
        default: msg_skip(&reader); break;
        }
    }
    if (out->max_tokens <= out->sequence.generated_before) msg_fail(&reader);
    return finish(&reader, seen, fields_through(OPEN_IGNORE_EOS));
}

/* ---- prefill.run ---- */

enum run_field {
    RUN_SEQUENCE = 1,
    RUN_RPC_ADDRESS,
    RUN_SEGMENT,
    RUN_ADDRESSES,
    RUN_EPOCH,
    RUN_PUSH_FROM,
};

enum status proto_prefill_run_encode(const struct proto_prefill_run *msg, struct buf *out)
{
    struct msg_writer writer;
    const struct proto_target *target = &msg->target;
    ASSERT(target->addresses.count <= PROTO_BLOCKS_MAX);
    msg_writer_init(&writer, out);
    msg_put_map(&writer, RUN_PUSH_FROM);
    put_sequence(&writer, RUN_SEQUENCE, &msg->sequence);
    msg_field_text(&writer, RUN_RPC_ADDRESS, target->rpc_address);
    msg_field_text(&writer, RUN_SEGMENT, target->segment);
    put_u64s(&writer, RUN_ADDRESSES, target->addresses);
    msg_field_u64(&writer, RUN_EPOCH, target->epoch);
    msg_field_u64(&writer, RUN_PUSH_FROM, target->push_from);
    return writer.status;
}

enum status proto_prefill_run_decode(const void *data, size_t len, struct proto_prefill_run *out)
{
    struct msg_reader reader;
    struct proto_target *target = &out->target;
    uint64_t key, seen = 0;

    memset(out, 0, sizeof(*out));
    msg_reader_init(&reader, data, len);
    uint32_t left = msg_get_map(&reader);
    while (next_field(&reader, &left, &key, &seen)) {
        switch (key) {
        case RUN_SEQUENCE: get_sequence(&reader, &out->sequence); break;
        case RUN_RPC_ADDRESS:
            msg_get_text_copy(&reader, target->rpc_address, sizeof(target->rpc_address));
            break;
        case RUN_SEGMENT:
            msg_get_text_copy(&reader, target->segment, sizeof(target->segment));
            break;
        case RUN_ADDRESSES: target->addresses = get_u64s(&reader, PROTO_BLOCKS_MAX); break;
        case RUN_EPOCH: target->epoch = msg_get_u64(&reader); break;
        case RUN_PUSH_FROM: target->push_from = msg_get_u32(&reader); break;
        default: msg_skip(&reader); break;
        }
    }
    if (target->push_from > target->addresses.count) msg_fail(&reader);
    return finish(&reader, seen, fields_through(RUN_PUSH_FROM));
}

/* ---- decode.push ---- */

enum push_field { PUSH_REQUEST = 1, PUSH_ATTEMPT, PUSH_EPOCH, PUSH_KIND, PUSH_WRITER };

enum status proto_push_encode(const struct proto_push *msg, struct buf *out)
{
    struct msg_writer writer;
    msg_writer_init(&writer, out);
    msg_put_map(&writer, PUSH_WRITER);
    msg_field_u64(&writer, PUSH_REQUEST, msg->request_id);
    msg_field_u64(&writer, PUSH_ATTEMPT, msg->attempt);
    msg_field_u64(&writer, PUSH_EPOCH, msg->epoch);
    msg_field_u64(&writer, PUSH_KIND, msg->kind);
    msg_field_u64(&writer, PUSH_WRITER, msg->writer);
    return writer.status;
}

enum status proto_push_decode(const void *data, size_t len, struct proto_push *out)
{
    struct msg_reader reader;
    uint64_t key, seen = 0;

    memset(out, 0, sizeof(*out));
    msg_reader_init(&reader, data, len);
    uint32_t left = msg_get_map(&reader);
    while (next_field(&reader, &left, &key, &seen)) {
        switch (key) {
        case PUSH_REQUEST: out->request_id = msg_get_u64(&reader); break;
        case PUSH_ATTEMPT: out->attempt = msg_get_u32(&reader); break;
        case PUSH_EPOCH: out->epoch = msg_get_u64(&reader); break;
        case PUSH_KIND:
            out->kind = (enum proto_push_kind)get_in(&reader, PROTO_PUSH_BEGIN, PROTO_PUSH_END);
            break;
        case PUSH_WRITER: out->writer = get_in(&reader, 0, PROTO_WRITERS_MAX - 1); break;
        default: msg_skip(&reader); break;
        }
    }
    return finish(&reader, seen, fields_through(PUSH_KIND));
}

enum lease_field { LEASE_MS = 1 };

enum status proto_push_lease_encode(const struct proto_push_lease *msg, struct buf *out)
{
    struct msg_writer writer;
    msg_writer_init(&writer, out);
    msg_put_map(&writer, LEASE_MS);
    msg_field_u64(&writer, LEASE_MS, msg->lease_ms);
    return writer.status;
}

enum status proto_push_lease_decode(const void *data, size_t len, struct proto_push_lease *out)
{
    struct msg_reader reader;
    uint64_t key, seen = 0;

    memset(out, 0, sizeof(*out));
    msg_reader_init(&reader, data, len);
    uint32_t left = msg_get_map(&reader);
    while (next_field(&reader, &left, &key, &seen)) {
        if (key == LEASE_MS) {
            out->lease_ms = msg_get_u32(&reader);
        } else {
            msg_skip(&reader);
        }
    }
    return finish(&reader, seen, fields_through(LEASE_MS));
}

/* ---- decode.kv_done ---- */

enum done_field {
    DONE_REQUEST = 1,
    DONE_ATTEMPT,
    DONE_EPOCH,
    DONE_FIRST_TOKEN,
    DONE_PUSH_FROM,
    DONE_CHECKSUMS,
    DONE_FIRST_ROW, /* optional */
};

enum status proto_kv_done_encode(const struct proto_kv_done *msg, struct buf *out)
{
    struct msg_writer writer;
    ASSERT(msg->checksums.count <= PROTO_CHECKSUMS_MAX);
    msg_writer_init(&writer, out);
    msg_put_map(&writer, msg->first_row.count > 0 ? DONE_FIRST_ROW : DONE_CHECKSUMS);
    msg_field_u64(&writer, DONE_REQUEST, msg->request_id);
    msg_field_u64(&writer, DONE_ATTEMPT, msg->attempt);
    msg_field_u64(&writer, DONE_EPOCH, msg->epoch);
    msg_field_u64(&writer, DONE_FIRST_TOKEN, msg->first_token);
    msg_field_u64(&writer, DONE_PUSH_FROM, msg->push_from);
    put_u64s(&writer, DONE_CHECKSUMS, msg->checksums);
    if (msg->first_row.count > 0) put_u32s(&writer, DONE_FIRST_ROW, msg->first_row);
    return writer.status;
}

enum status proto_kv_done_decode(const void *data, size_t len, struct proto_kv_done *out)
{
    struct msg_reader reader;
    uint64_t key, seen = 0;

    memset(out, 0, sizeof(*out));
    msg_reader_init(&reader, data, len);
    uint32_t left = msg_get_map(&reader);
    while (next_field(&reader, &left, &key, &seen)) {
        switch (key) {
        case DONE_REQUEST: out->request_id = msg_get_u64(&reader); break;
        case DONE_ATTEMPT: out->attempt = msg_get_u32(&reader); break;
        case DONE_EPOCH: out->epoch = msg_get_u64(&reader); break;
        case DONE_FIRST_TOKEN: out->first_token = msg_get_u32(&reader); break;
        case DONE_PUSH_FROM: out->push_from = get_in(&reader, 0, PROTO_BLOCKS_MAX); break;
        case DONE_CHECKSUMS: out->checksums = get_u64s(&reader, PROTO_CHECKSUMS_MAX); break;
        case DONE_FIRST_ROW: out->first_row = get_row(&reader); break;
        default: msg_skip(&reader); break;
        }
    }
    return finish(&reader, seen, fields_through(DONE_CHECKSUMS));
}

/* ---- items: a map of the kind and one nested map ---- */

enum item_field { ITEM_KIND = 1, ITEM_BODY };
enum opened_field { OPENED_EPOCH = 1, OPENED_SEGMENT, OPENED_ADDRESSES, OPENED_FROM, OPENED_LOCAL };
enum scores_field { SCORES_FIRST = 1, SCORES_COUNT, SCORES_ROWS };
enum token_field { TOKEN_INDEX = 1, TOKEN_TOKEN, TOKEN_ROW /* optional */ };
enum finish_field { FINISH_REASON = 1, FINISH_GENERATED, FINISH_STEPS, FINISH_TIMES };
enum prefill_field {
    PREFILL_CACHED = 1,
    PREFILL_FETCHED,
    PREFILL_COMPUTED,
    PREFILL_TIMES,
    PREFILL_MISS, /* optional */
};
enum failed_field { FAILED_CAUSE = 1, FAILED_TEXT, FAILED_LOAD, FAILED_MISS };
enum { TIMES_COUNT = 5 };

static void put_times(struct msg_writer *writer, uint32_t key, const struct proto_times *times)
{
    const uint64_t column[TIMES_COUNT] = { times->queue_us, times->load_us, times->compute_us,
                                           times->push_us, times->total_us };
    msg_field_u64s(writer, key, column, TIMES_COUNT);
}

static void get_times(struct msg_reader *reader, struct proto_times *out)
{
    const struct msg_column column = msg_get_u64s(reader, TIMES_COUNT);
    if (column.count != TIMES_COUNT) {
        msg_fail(reader);
        return;
    }
    out->queue_us = msg_u64_at(column, 0);
    out->load_us = msg_u64_at(column, 1);
    out->compute_us = msg_u64_at(column, 2);
    out->push_us = msg_u64_at(column, 3);
    out->total_us = msg_u64_at(column, 4);
}

static void put_prefill_done(struct msg_writer *writer, const struct proto_prefill_done *done)
{
    const bool missed = done->miss != PROTO_MISS_NONE;

    msg_field_map(writer, ITEM_BODY, missed ? PREFILL_MISS : PREFILL_TIMES);
    msg_field_u64(writer, PREFILL_CACHED, done->cached_tokens);
    msg_field_u64(writer, PREFILL_FETCHED, done->fetched_tokens);
    msg_field_u64(writer, PREFILL_COMPUTED, done->computed_tokens);
    put_times(writer, PREFILL_TIMES, &done->times);
    if (missed) msg_field_u64(writer, PREFILL_MISS, done->miss);
}

static void put_token(struct msg_writer *writer, const struct proto_token *token)
{
    msg_field_map(writer, ITEM_BODY, token->row.count > 0 ? TOKEN_ROW : TOKEN_TOKEN);
    msg_field_u64(writer, TOKEN_INDEX, token->index);
    msg_field_u64(writer, TOKEN_TOKEN, token->token);
    if (token->row.count > 0) put_u32s(writer, TOKEN_ROW, token->row);
}

static void put_scores(struct msg_writer *writer, const struct proto_scores *scores)
{
    msg_field_map(writer, ITEM_BODY, SCORES_ROWS);
    msg_field_u64(writer, SCORES_FIRST, scores->first);
    msg_field_u64(writer, SCORES_COUNT, scores->count);
    put_u32s(writer, SCORES_ROWS, scores->rows);
}

static void put_failed(struct msg_writer *writer, const struct proto_failed *failed)
{
    const bool missed = failed->miss != PROTO_MISS_NONE;

    msg_field_map(writer, ITEM_BODY, missed ? FAILED_MISS : FAILED_LOAD);
    msg_field_u64(writer, FAILED_CAUSE, failed->cause);
    msg_field_text(writer, FAILED_TEXT, failed->text);
    msg_field_u64(writer, FAILED_LOAD, failed->load_permille);
    if (missed) msg_field_u64(writer, FAILED_MISS, failed->miss);
}

static void put_item_body(struct msg_writer *writer, const struct proto_item *msg)
{
    switch (msg->kind) {
    case PROTO_ITEM_OPENED:
        msg_field_map(writer, ITEM_BODY, OPENED_LOCAL);
        msg_field_u64(writer, OPENED_EPOCH, msg->opened.epoch);
        msg_field_text(writer, OPENED_SEGMENT, msg->opened.segment);
        put_u64s(writer, OPENED_ADDRESSES, msg->opened.addresses);
        msg_field_u64(writer, OPENED_FROM, msg->opened.push_from);
        msg_field_u64(writer, OPENED_LOCAL, msg->opened.blocks_local);
        return;
    case PROTO_ITEM_TOKEN:
    case PROTO_ITEM_FIRST_TOKEN: put_token(writer, &msg->token); return;
    case PROTO_ITEM_FINISH:
        msg_field_map(writer, ITEM_BODY, FINISH_TIMES);
        msg_field_u64(writer, FINISH_REASON, msg->finish.reason);
        msg_field_u64(writer, FINISH_GENERATED, msg->finish.generated);
        msg_field_u64(writer, FINISH_STEPS, msg->finish.steps);
        put_times(writer, FINISH_TIMES, &msg->finish.times);
        return;
    case PROTO_ITEM_PREFILL_DONE: put_prefill_done(writer, &msg->prefill_done); return;
    case PROTO_ITEM_SCORES: put_scores(writer, &msg->scores); return;
    case PROTO_ITEM_FAILED: put_failed(writer, &msg->failed); return;
    }
    ASSERT(false);
}

enum status proto_item_encode(const struct proto_item *msg, struct buf *out)
{
    struct msg_writer writer;
    msg_writer_init(&writer, out);
    msg_put_map(&writer, ITEM_BODY);
    msg_field_u64(&writer, ITEM_KIND, msg->kind);
    put_item_body(&writer, msg);
    return writer.status;
}

static void get_opened(struct msg_reader *reader, struct proto_opened *out)
{
    uint64_t key, seen = 0;
    uint32_t left = msg_get_map(reader);

    memset(out, 0, sizeof(*out));
    while (next_field(reader, &left, &key, &seen)) {
        switch (key) {
        case OPENED_EPOCH: out->epoch = msg_get_u64(reader); break;
        case OPENED_SEGMENT: msg_get_text_copy(reader, out->segment, sizeof(out->segment)); break;
        case OPENED_ADDRESSES: out->addresses = get_u64s(reader, PROTO_BLOCKS_MAX); break;
        case OPENED_FROM: out->push_from = msg_get_u32(reader); break;
        case OPENED_LOCAL: out->blocks_local = msg_get_u32(reader); break;
        default: msg_skip(reader); break;
        }
    }
    const uint64_t required = fields_through(OPENED_LOCAL);
    if ((seen & required) != required) msg_fail(reader);
    if (out->push_from > out->addresses.count) msg_fail(reader);
    if (out->blocks_local > out->push_from) msg_fail(reader);
}

static void get_token(struct msg_reader *reader, struct proto_token *out)
{
    uint64_t key, seen = 0;
    uint32_t left = msg_get_map(reader);

    memset(out, 0, sizeof(*out));
    while (next_field(reader, &left, &key, &seen)) {
        switch (key) {
        case TOKEN_INDEX: out->index = get_in(reader, 0, PROTO_TOKENS_MAX); break;
        case TOKEN_TOKEN: out->token = msg_get_u32(reader); break;
        case TOKEN_ROW: out->row = get_row(reader); break;
        default: msg_skip(reader); break;
        }
    }
    const uint64_t required = fields_through(TOKEN_TOKEN);
    if ((seen & required) != required) msg_fail(reader);
}

static void get_finish(struct msg_reader *reader, struct proto_finish *out)
{
    uint64_t key, seen = 0;
    uint32_t left = msg_get_map(reader);

    while (next_field(reader, &left, &key, &seen)) {
        switch (key) {
        case FINISH_REASON:
            out->reason =
                (enum proto_finish_reason)get_in(reader, PROTO_FINISH_STOP, PROTO_FINISH_LENGTH);
            break;
        case FINISH_GENERATED: out->generated = get_in(reader, 0, PROTO_TOKENS_MAX); break;
        case FINISH_STEPS: out->steps = msg_get_u32(reader); break;
        case FINISH_TIMES: get_times(reader, &out->times); break;
        default: msg_skip(reader); break;
        }
    }
    const uint64_t required = fields_through(FINISH_TIMES);
    if ((seen & required) != required) msg_fail(reader);
}

static void get_prefill_done(struct msg_reader *reader, struct proto_prefill_done *out)
{
    uint64_t key, seen = 0;
    uint32_t left = msg_get_map(reader);

    while (next_field(reader, &left, &key, &seen)) {
        switch (key) {
        case PREFILL_CACHED: out->cached_tokens = get_in(reader, 0, PROTO_TOKENS_MAX); break;
        case PREFILL_FETCHED: out->fetched_tokens = get_in(reader, 0, PROTO_TOKENS_MAX); break;
        case PREFILL_COMPUTED: out->computed_tokens = get_in(reader, 0, PROTO_TOKENS_MAX); break;
        case PREFILL_TIMES: get_times(reader, &out->times); break;
        case PREFILL_MISS: out->miss = (enum proto_miss)get_in(reader, 0, PROTO_MISSES - 1); break;
        default: msg_skip(reader); break;
        }
    }
    const uint64_t required = fields_through(PREFILL_TIMES);
    if ((seen & required) != required) msg_fail(reader);
}

static void get_failed(struct msg_reader *reader, struct proto_failed *out)
{
    uint64_t key, seen = 0;
    uint32_t left = msg_get_map(reader);

    memset(out, 0, sizeof(*out));
    while (next_field(reader, &left, &key, &seen)) {
        switch (key) {
        case FAILED_CAUSE:
            out->cause = (enum proto_cause)get_in(reader, PROTO_CAUSE_INTERNAL, PROTO_CAUSE_STAGE);
            break;
        case FAILED_TEXT: msg_get_text_copy(reader, out->text, sizeof(out->text)); break;
        case FAILED_LOAD: out->load_permille = msg_get_u32(reader); break;
        case FAILED_MISS: out->miss = (enum proto_miss)get_in(reader, 0, PROTO_MISSES - 1); break;
        default: msg_skip(reader); break;
        }
    }
    const uint64_t required = fields_through(FAILED_TEXT);
    if ((seen & required) != required) msg_fail(reader);
}

static bool scores_ok(const struct proto_scores *scores)
{
    const uint32_t length = scores->count > 0 ? scores->rows.count / scores->count : 0;

    if (length * scores->count != scores->rows.count) return false;
    for (uint32_t i = 0; i < scores->count; i++) {
        if (!row_ok(scores->rows, i * length, length)) return false;
    }
    return true;
}

static void get_scores(struct msg_reader *reader, struct proto_scores *out)
{
    uint64_t key, seen = 0;
    uint32_t left = msg_get_map(reader);

    memset(out, 0, sizeof(*out));
    while (next_field(reader, &left, &key, &seen)) {
        switch (key) {
        case SCORES_FIRST: out->first = get_in(reader, 1, PROTO_TOKENS_MAX); break;
        case SCORES_COUNT: out->count = get_in(reader, 1, PROTO_SCORES_MAX); break;
        case SCORES_ROWS: out->rows = get_u32s(reader, PROTO_SCORES_MAX * PROTO_ROW_MAX); break;
        default: msg_skip(reader); break;
        }
    }
    const uint64_t required = fields_through(SCORES_ROWS);
    if ((seen & required) != required || !scores_ok(out)) msg_fail(reader);
}

static void get_item_body(struct msg_reader *reader, struct proto_item *out)
{
    switch (out->kind) {
    case PROTO_ITEM_OPENED: get_opened(reader, &out->opened); return;
    case PROTO_ITEM_TOKEN:
    case PROTO_ITEM_FIRST_TOKEN: get_token(reader, &out->token); return;
    case PROTO_ITEM_FINISH: get_finish(reader, &out->finish); return;
    case PROTO_ITEM_PREFILL_DONE: get_prefill_done(reader, &out->prefill_done); return;
    case PROTO_ITEM_FAILED: get_failed(reader, &out->failed); return;
    case PROTO_ITEM_SCORES: get_scores(reader, &out->scores); return;
    }
    msg_fail(reader); /* the body came before the kind */
}

enum status proto_item_decode(const void *data, size_t len, struct proto_item *out)
{
    struct msg_reader reader;
    uint64_t key, seen = 0;

    memset(out, 0, sizeof(*out));
    msg_reader_init(&reader, data, len);
    uint32_t left = msg_get_map(&reader);
    while (next_field(&reader, &left, &key, &seen)) {
        switch (key) {
        case ITEM_KIND:
            out->kind = (enum proto_item_kind)get_in(&reader, PROTO_ITEM_OPENED, PROTO_ITEM_SCORES);
            break;
        case ITEM_BODY: get_item_body(&reader, out); break;
        default: msg_skip(&reader); break;
        }
    }
    return finish(&reader, seen, fields_through(ITEM_BODY));
}

/* ---- node.info ---- */

enum info_field {
    INFO_NAME = 1,
    INFO_ROLE,
    INFO_MODEL,
    INFO_FINGERPRINT,
    INFO_ISA,
    INFO_BLOCK_TOKENS,
    INFO_LAYERS,
    INFO_LAYER_SIZE,
    INFO_PAGE_SIZE,
    INFO_CONTEXT,
    INFO_VOCAB,
    INFO_SEGMENT,
    INFO_EPOCH,
    INFO_ELEMENT, /* not said by older nodes, whose KV is F16 */
};

enum status proto_node_info_encode(const struct proto_node_info *msg, struct buf *out)
{
    struct msg_writer writer;
    msg_writer_init(&writer, out);
    msg_put_map(&writer, INFO_ELEMENT);
    msg_field_text(&writer, INFO_NAME, msg->name);
    msg_field_u64(&writer, INFO_ROLE, msg->role);
    msg_field_text(&writer, INFO_MODEL, msg->model);
    msg_field_bin(&writer, INFO_FINGERPRINT, msg->fingerprint, sizeof(msg->fingerprint));
    msg_field_text(&writer, INFO_ISA, msg->isa);
    msg_field_u64(&writer, INFO_BLOCK_TOKENS, msg->block_tokens);
    msg_field_u64(&writer, INFO_LAYERS, msg->layers);
    msg_field_u64(&writer, INFO_LAYER_SIZE, msg->layer_size);
    msg_field_u64(&writer, INFO_PAGE_SIZE, msg->page_size);
    msg_field_u64(&writer, INFO_CONTEXT, msg->context_max);
    msg_field_u64(&writer, INFO_VOCAB, msg->vocab_count);
    msg_field_text(&writer, INFO_SEGMENT, msg->segment);
    msg_field_u64(&writer, INFO_EPOCH, msg->epoch);
    msg_field_u64(&writer, INFO_ELEMENT, msg->element);
    return writer.status;
}

static void get_info_field(struct msg_reader *reader, uint64_t key, struct proto_node_info *out)
{
    switch (key) {
    case INFO_NAME: msg_get_text_copy(reader, out->name, sizeof(out->name)); break;
    case INFO_ROLE:
        out->role = (enum proto_role)get_in(reader, PROTO_ROLE_PREFILL, PROTO_ROLE_BOTH);
        break;
    case INFO_MODEL: msg_get_text_copy(reader, out->model, sizeof(out->model)); break;
    case INFO_FINGERPRINT:
        msg_get_bin_exact(reader, out->fingerprint, sizeof(out->fingerprint));
        break;
    case INFO_ISA: msg_get_text_copy(reader, out->isa, sizeof(out->isa)); break;
    case INFO_BLOCK_TOKENS: out->block_tokens = get_in(reader, 1, PROTO_TOKENS_MAX); break;
    case INFO_LAYERS: out->layers = get_in(reader, 1, UINT16_MAX); break;
    case INFO_LAYER_SIZE: out->layer_size = msg_get_u64(reader); break;
    case INFO_PAGE_SIZE: out->page_size = msg_get_u64(reader); break;
    case INFO_CONTEXT: out->context_max = msg_get_u32(reader); break;
    case INFO_VOCAB: out->vocab_count = msg_get_u32(reader); break;
    case INFO_SEGMENT: msg_get_text_copy(reader, out->segment, sizeof(out->segment)); break;
    case INFO_EPOCH: out->epoch = msg_get_u64(reader); break;
    case INFO_ELEMENT: out->element = msg_get_u32(reader); break;
    default: msg_skip(reader); break;
    }
}

enum status proto_node_info_decode(const void *data, size_t len, struct proto_node_info *out)
{
    struct msg_reader reader;
    uint64_t key, seen = 0;

    memset(out, 0, sizeof(*out));
    out->element = CONDUCTOR_ELEMENT_F16;
    msg_reader_init(&reader, data, len);
    uint32_t left = msg_get_map(&reader);
    while (next_field(&reader, &left, &key, &seen))
        get_info_field(&reader, key, out);
    return finish(&reader, seen, fields_through(INFO_EPOCH));
}

/* ---- node.status: two columns of numbers, which may grow at their ends ---- */

enum status_field { STATUS_NUMBERS = 1, STATUS_DISK = 2 };
enum {
    STATUS_NUMBERS_LEAST = 13,
    STATUS_MOVES = 16,
    STATUS_NUMBERS_COUNT = STATUS_MOVES + PROTO_MOVES,
    STATUS_NUMBERS_MAX = 256
};

enum status proto_node_status_encode(const struct proto_node_status *msg, struct buf *out)
{
    struct msg_writer writer;
    uint64_t numbers[STATUS_NUMBERS_COUNT] = {
        msg->queued,          msg->running,       msg->decoding,
        msg->queued_tokens,   msg->pages_total,   msg->pages_free,
        msg->pages_cached,    msg->requests,      msg->failed,
        msg->tokens_computed, msg->tokens_reused, msg->tokens_generated,
        msg->step_us,         msg->role,          msg->refused,
        msg->at_door,
    };
    memcpy(numbers + STATUS_MOVES, msg->moves, sizeof(msg->moves));
    msg_writer_init(&writer, out);
    msg_put_map(&writer, STATUS_DISK);
    msg_field_u64s(&writer, STATUS_NUMBERS, numbers, STATUS_NUMBERS_COUNT);
    msg_field_u64s(&writer, STATUS_DISK, msg->disk, PROTO_DISK_NUMBERS);
    return writer.status;
}

static void get_numbers(struct msg_reader *reader, struct proto_node_status *out)
{
    const struct msg_column column = msg_get_u64s(reader, STATUS_NUMBERS_MAX);
    if (column.count < STATUS_NUMBERS_LEAST) {
        msg_fail(reader);
        return;
    }
    out->queued = (uint32_t)msg_u64_at(column, 0);
    out->running = (uint32_t)msg_u64_at(column, 1);
    out->decoding = (uint32_t)msg_u64_at(column, 2);
    out->queued_tokens = msg_u64_at(column, 3);
    out->pages_total = (uint32_t)msg_u64_at(column, 4);
    out->pages_free = (uint32_t)msg_u64_at(column, 5);
    out->pages_cached = (uint32_t)msg_u64_at(column, 6);
    out->requests = msg_u64_at(column, 7);
    out->failed = msg_u64_at(column, 8);
    out->tokens_computed = msg_u64_at(column, 9);
    out->tokens_reused = msg_u64_at(column, 10);
    out->tokens_generated = msg_u64_at(column, 11);
    out->step_us = msg_u64_at(column, 12);
    if (column.count == STATUS_NUMBERS_LEAST) return;
    const uint64_t role = msg_u64_at(column, 13);
    if (role > PROTO_ROLE_BOTH) msg_fail(reader);
    out->role = role > PROTO_ROLE_BOTH ? 0 : (enum proto_role)role;
    if (column.count > 14) out->refused = msg_u64_at(column, 14);
    if (column.count > 15) out->at_door = (uint32_t)msg_u64_at(column, 15);
    for (uint32_t i = 0; i < PROTO_MOVES && STATUS_MOVES + i < column.count; i++)
        out->moves[i] = msg_u64_at(column, STATUS_MOVES + i);
}

static void get_disk(struct msg_reader *reader, struct proto_node_status *out)
{
    const struct msg_column column = msg_get_u64s(reader, STATUS_NUMBERS_MAX);
    for (uint32_t i = 0; i < PROTO_DISK_NUMBERS && i < column.count; i++)
        out->disk[i] = msg_u64_at(column, i);
}

enum status proto_node_status_decode(const void *data, size_t len, struct proto_node_status *out)
{
    struct msg_reader reader;
    uint64_t key, seen = 0;

    memset(out, 0, sizeof(*out));
    msg_reader_init(&reader, data, len);
    uint32_t left = msg_get_map(&reader);
    while (next_field(&reader, &left, &key, &seen)) {
        if (key == STATUS_NUMBERS) {
            get_numbers(&reader, out);
        } else if (key == STATUS_DISK) {
            get_disk(&reader, out);
        } else {
            msg_skip(&reader);
        }
    }
    return finish(&reader, seen, fields_through(STATUS_NUMBERS));
}

/* ---- node.refused ---- */

enum refused_field { REFUSED_REASON = 1 };

enum status proto_node_refused_encode(const struct proto_node_refused *msg, struct buf *out)
{
    struct msg_writer writer;
    msg_writer_init(&writer, out);
    msg_put_map(&writer, REFUSED_REASON);
    msg_field_text(&writer, REFUSED_REASON, msg->reason);
    return writer.status;
}

enum status proto_node_refused_decode(const void *data, size_t len, struct proto_node_refused *out)
{
    struct msg_reader reader;
    uint64_t key, seen = 0;

    memset(out, 0, sizeof(*out));
    msg_reader_init(&reader, data, len);
    uint32_t left = msg_get_map(&reader);
    while (next_field(&reader, &left, &key, &seen)) {
        if (key == REFUSED_REASON) {
            msg_get_text_copy(&reader, out->reason, sizeof(out->reason));
        } else {
            msg_skip(&reader);
        }
    }
    return finish(&reader, seen, fields_through(REFUSED_REASON));
}

/* ---- node.role ---- */

enum role_field { ROLE_ROLE = 1 };

enum status proto_node_role_encode(const struct proto_node_role *msg, struct buf *out)
{
    struct msg_writer writer;
    msg_writer_init(&writer, out);
    msg_put_map(&writer, ROLE_ROLE);
    msg_field_u64(&writer, ROLE_ROLE, msg->role);
    return writer.status;
}

enum status proto_node_role_decode(const void *data, size_t len, struct proto_node_role *out)
{
    struct msg_reader reader;
    uint64_t key, seen = 0;

    memset(out, 0, sizeof(*out));
    msg_reader_init(&reader, data, len);
    uint32_t left = msg_get_map(&reader);
    while (next_field(&reader, &left, &key, &seen)) {
        if (key == ROLE_ROLE) {
            out->role = (enum proto_role)get_in(&reader, PROTO_ROLE_PREFILL, PROTO_ROLE_DECODE);
        } else {
            msg_skip(&reader);
        }
    }
    return finish(&reader, seen, fields_through(ROLE_ROLE));
}

enum transfers_field { TRANSFERS_WHAT = 1, TRANSFERS_ID = 2 };

enum status proto_node_transfers_encode(const struct proto_node_transfers *msg, struct buf *out)
{
    struct msg_writer writer;
    msg_writer_init(&writer, out);
    msg_put_map(&writer, TRANSFERS_ID);
    msg_field_u64(&writer, TRANSFERS_WHAT, msg->what);
    msg_field_u64(&writer, TRANSFERS_ID, msg->id);
    return writer.status;
}

enum status proto_node_transfers_decode(const void *data, size_t len,
                                        struct proto_node_transfers *out)
{
    struct msg_reader reader;
    uint64_t key, seen = 0;

    memset(out, 0, sizeof(*out));
    msg_reader_init(&reader, data, len);
    uint32_t left = msg_get_map(&reader);
    while (next_field(&reader, &left, &key, &seen)) {
        if (key == TRANSFERS_WHAT) {
            out->what =
                (enum proto_transfers)get_in(&reader, PROTO_TRANSFERS_ONE, PROTO_TRANSFERS_METRICS);
        } else if (key == TRANSFERS_ID) {
            out->id = msg_get_u64(&reader);
        } else {
            msg_skip(&reader);
        }
    }
    return finish(&reader, seen, fields_through(TRANSFERS_ID));
}

/* ---- node.copy, node.drop ---- */

enum blocks_field { BLOCKS_HOLDER = 1, BLOCKS_KEYS = 2 };

enum status proto_node_blocks_encode(const struct proto_node_blocks *msg, struct buf *out)
{
    struct msg_writer writer;
    ASSERT(msg->keys_count <= PROTO_BLOCKS_MAX);
    msg_writer_init(&writer, out);
    msg_put_map(&writer, BLOCKS_KEYS);
    msg_field_text(&writer, BLOCKS_HOLDER, msg->holder);
    msg_field_bin(&writer, BLOCKS_KEYS, msg->keys, (size_t)msg->keys_count * BLOCK_KEY_SIZE);
    return writer.status;
}

enum status proto_node_blocks_decode(const void *data, size_t len, struct proto_node_blocks *out)
{
    struct msg_reader reader;
    uint64_t key, seen = 0;

    memset(out, 0, sizeof(*out));
    msg_reader_init(&reader, data, len);
    uint32_t left = msg_get_map(&reader);
    while (next_field(&reader, &left, &key, &seen)) {
        if (key == BLOCKS_HOLDER) {
            msg_get_text_copy(&reader, out->holder, sizeof(out->holder));
        } else if (key == BLOCKS_KEYS) {
            out->keys_count = get_keys(&reader, &out->keys);
        } else {
            msg_skip(&reader);
        }
    }
    return finish(&reader, seen, fields_through(BLOCKS_KEYS));
}

enum copied_field { COPIED_HAD = 1, COPIED_COPIED = 2 };

enum status proto_node_copied_encode(const struct proto_node_copied *msg, struct buf *out)
{
    struct msg_writer writer;
    msg_writer_init(&writer, out);
    msg_put_map(&writer, COPIED_COPIED);
    msg_field_u64(&writer, COPIED_HAD, msg->had);
    msg_field_u64(&writer, COPIED_COPIED, msg->copied);
    return writer.status;
}

enum status proto_node_copied_decode(const void *data, size_t len, struct proto_node_copied *out)
{
    struct msg_reader reader;
    uint64_t key, seen = 0;

    memset(out, 0, sizeof(*out));
    msg_reader_init(&reader, data, len);
    uint32_t left = msg_get_map(&reader);
    while (next_field(&reader, &left, &key, &seen)) {
        if (key == COPIED_HAD) {
            out->had = get_in(&reader, 0, PROTO_BLOCKS_MAX);
        } else if (key == COPIED_COPIED) {
            out->copied = get_in(&reader, 0, PROTO_BLOCKS_MAX);
        } else {
            msg_skip(&reader);
        }
    }
    return finish(&reader, seen, fields_through(COPIED_COPIED));
}
