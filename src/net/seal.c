/* SPDX-License-Identifier: Apache-2.0
 *
 * net/seal.c - records of an encrypted stream.
 *
 *     record      length u32 (little-endian, 1..SEAL_RECORD_SIZE) | ciphertext | tag, 16 bytes
 *     nonce       the key's 12 bytes of iv, the last 8 of them xor the record's number (big-endian)
 *     aad         the 4 bytes of length
 *
 *     secret of a direction   HKDF(salt, secret, "yolk seal 1 initiator" or "... target" | context)
 *     key and iv              HKDF("", secret of the direction, "yolk seal 1 key"), 44 bytes
 *     next secret             HKDF("", secret of the direction, "yolk seal 1 next")
 *
 * Each direction counts its records from 0; the number is never sent, so a record that is missing,
 * repeated or out of place does not open. After rekey_records of them the direction goes on with
 * its next secret, and counts on: both ends know when, without a word.
 *
 * Invariants
 *   I1  No nonce is used twice with one key: a number is used once, and a key is of one direction
 *       of one connection, because the salt holds random bytes of both ends.
 *   I2  A byte is handed out only after the tag of its whole record was right.
 *   I3  After the first record that does not open nothing is read any more. */
#include "net/seal.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/env.h"
#include "base/hash.h"

/* One direction. */
struct half {
    struct aead *aead;
    uint8_t secret[HASH_SHA256_SIZE];
    uint8_t iv[AEAD_NONCE_SIZE];
    uint64_t number; /* of the next record */
    uint32_t left;   /* records until the next key */
    uint32_t start, end;
    uint8_t bytes[SEAL_BUFFER_SIZE]; /* records in [start, end): to be written, or read */
};

struct seal {
    struct half out, in;
    uint32_t rekey_records;
    enum status broken; /* see I3 */
};

/* ---- keys ---- */

static void derive(struct half *half, const char *label, uint8_t *out, size_t len)
{
    hash_hkdf_sha256(NULL, 0, half->secret, sizeof(half->secret), label, strlen(label), out, len);
}

/* The key and iv that belong to the secret as it is now. */
static void half_keys(struct half *half, uint8_t key[AEAD_KEY_SIZE])
{
    uint8_t bytes[AEAD_KEY_SIZE + AEAD_NONCE_SIZE];

    derive(half, "yolk seal 1 key", bytes, sizeof(bytes));
    memcpy(key, bytes, AEAD_KEY_SIZE);
    memcpy(half->iv, bytes + AEAD_KEY_SIZE, AEAD_NONCE_SIZE);
    explicit_bzero(bytes, sizeof(bytes));
}

static enum status half_start(struct half *half, const struct seal_options *options, bool initiator,
                              uint32_t rekey_records)
{
    static const char *const labels[] = { "yolk seal 1 target", "yolk seal 1 initiator" };
    uint8_t info[HASH_INFO_SIZE_MAX], key[AEAD_KEY_SIZE];
    const size_t label_len = strlen(labels[initiator]);

    memcpy(info, labels[initiator], label_len);
    memcpy(info + label_len, options->context, options->context_len);
    hash_hkdf_sha256(options->salt, options->salt_len, options->secret, strlen(options->secret),
                     info, label_len + options->context_len, half->secret, sizeof(half->secret));
    half->left = rekey_records;
    half_keys(half, key);
    const enum status status = aead_create(options->cipher, key, &half->aead);
    explicit_bzero(key, sizeof(key));
    return status;
}

static void half_rekey(struct half *half)
{
    uint8_t next[HASH_SHA256_SIZE], key[AEAD_KEY_SIZE];

    derive(half, "yolk seal 1 next", next, sizeof(next));
    memcpy(half->secret, next, sizeof(next));
    half_keys(half, key);
    aead_set_key(half->aead, key);
    explicit_bzero(next, sizeof(next));
    explicit_bzero(key, sizeof(key));
}

/* The nonce of the next record, which is thereby used up. */
static void nonce_take(struct seal *seal, struct half *half, uint8_t nonce[AEAD_NONCE_SIZE])
{
    if (half->left == 0) {
        half_rekey(half);
        half->left = seal->rekey_records;
    }
    half->left--;
    memcpy(nonce, half->iv, AEAD_NONCE_SIZE);
    for (int i = 0; i < 8; i++)
        nonce[AEAD_NONCE_SIZE - 1 - i] ^= (uint8_t)(half->number >> 8 * i);
    half->number++;
}

enum status seal_create(const struct seal_options *options, struct seal **out)
{
    ASSERT(options->secret != NULL && options->secret[0] != '\0');
    ASSERT(options->context_len <= SEAL_CONTEXT_SIZE_MAX);
    struct seal *seal = calloc(1, sizeof(*seal));
    if (seal == NULL) return STATUS_NO_MEMORY;
    seal->rekey_records = options->rekey_records != 0 ? options->rekey_records : SEAL_REKEY_RECORDS;
    enum status status = half_start(&seal->out, options, options->initiator, seal->rekey_records);
    if (status == STATUS_OK) {
        status = half_start(&seal->in, options, !options->initiator, seal->rekey_records);
    }
    if (status != STATUS_OK) {
        seal_destroy(seal);
        return status;
    }
    *out = seal;
    return STATUS_OK;
}

void seal_destroy(struct seal *seal)
{
    if (seal == NULL) return;
    aead_destroy(seal->out.aead);
    aead_destroy(seal->in.aead);
    explicit_bzero(seal, sizeof(*seal));
    free(seal);
}

/* ---- out ---- */

/* Where in what is to be sent we are. */
struct cursor {
    const struct iovec *iov;
    int count;
    size_t skip; /* of iov[0] */
};

/* The next bytes, at most a record's worth, as parts; how many they are. */
static size_t cursor_take(struct cursor *cursor, struct iovec parts[ENV_IOV_MAX], int *count)
{
    size_t total = 0;

    *count = 0;
    while (cursor->count > 0 && total < SEAL_RECORD_SIZE) {
        const size_t there = cursor->iov->iov_len - cursor->skip;
        const size_t room = SEAL_RECORD_SIZE - total;
        const size_t len = there < room ? there : room;
        parts[*count].iov_base = (uint8_t *)cursor->iov->iov_base + cursor->skip;
        parts[*count].iov_len = len;
        *count += 1;
        total += len;
        cursor->skip += len;
        if (cursor->skip == cursor->iov->iov_len) {
            cursor->iov++;
            cursor->count--;
            cursor->skip = 0;
        }
    }
    return total;
}

static void put_u32(uint8_t out[SEAL_HEAD_SIZE], uint32_t value)
{
    for (int i = 0; i < SEAL_HEAD_SIZE; i++)
        out[i] = (uint8_t)(value >> 8 * i);
}

static uint32_t get_u32(const uint8_t in[SEAL_HEAD_SIZE])
{
    return (uint32_t)in[0] | (uint32_t)in[1] << 8 | (uint32_t)in[2] << 16 | (uint32_t)in[3] << 24;
}

/* Seals up to SEAL_BATCH records into the empty buffer; how many bytes they say. */
static size_t fill(struct seal *seal, struct cursor *cursor)
{
    struct half *half = &seal->out;
    struct iovec parts[ENV_IOV_MAX];
    uint8_t nonce[AEAD_NONCE_SIZE];
    size_t total = 0;
    int count;

    ASSERT(half->start == half->end);
    half->start = half->end = 0;
    for (int i = 0; i < SEAL_BATCH; i++) {
        const size_t len = cursor_take(cursor, parts, &count);
        if (len == 0) break;
        uint8_t *record = half->bytes + half->end;
        uint8_t *text = record + SEAL_HEAD_SIZE;
        put_u32(record, (uint32_t)len);
        nonce_take(seal, half, nonce);
        aead_seal(half->aead, nonce, record, SEAL_HEAD_SIZE, parts, count, text, text + len);
        half->end += (uint32_t)(len + SEAL_OVERHEAD);
        total += len;
    }
    return total;
}

enum status seal_flush(struct seal *seal, struct env_stream *stream)
{
    struct half *half = &seal->out;

    while (half->start < half->end) {
        const struct iovec iov = { half->bytes + half->start, half->end - half->start };
        size_t n = 0;
        const enum status status = env_stream_writev(stream, &iov, 1, &n);
        if (status != STATUS_OK) return status;
        half->start += (uint32_t)n;
    }
    return STATUS_OK;
}

enum status seal_writev(struct seal *seal, struct env_stream *stream, const struct iovec *iov,
                        int iov_count, size_t *n)
{
    struct cursor cursor = { iov, iov_count, 0 };

    ASSERT(iov_count <= ENV_IOV_MAX);
    enum status status = seal_flush(seal, stream);
    if (status != STATUS_OK) return status;
    *n = fill(seal, &cursor);
    status = seal_flush(seal, stream);
    return status == STATUS_AGAIN ? STATUS_OK : status; /* what is left goes with the next call */
}

/* ---- in ---- */

enum status seal_feed(struct seal *seal, const uint8_t *data, size_t len)
{
    struct half *half = &seal->in;

    ASSERT(half->start == 0 && half->number == 0);
    if (len > SEAL_BUFFER_SIZE - half->end) return STATUS_PROTOCOL;
    memcpy(half->bytes + half->end, data, len);
    half->end += (uint32_t)len;
    return STATUS_OK;
}

bool seal_waiting(const struct seal *seal)
{
    const struct half *half = &seal->in;
    const uint32_t there = half->end - half->start;

    if (there < SEAL_HEAD_SIZE) return false;
    const uint32_t len = get_u32(half->bytes + half->start);
    return len > SEAL_RECORD_SIZE || there >= len + SEAL_OVERHEAD; /* too long: it says so */
}

static enum status open_next(struct seal *seal, uint8_t *buf, size_t *n)
{
    struct half *half = &seal->in;
    const uint8_t *record = half->bytes + half->start;
    const uint8_t *text = record + SEAL_HEAD_SIZE;
    uint8_t nonce[AEAD_NONCE_SIZE];
    const uint32_t len = get_u32(record);

    if (len == 0 || len > SEAL_RECORD_SIZE) return STATUS_PROTOCOL;
    nonce_take(seal, half, nonce);
    half->start += len + SEAL_OVERHEAD;
    *n = len;
    return aead_open(half->aead, nonce, record, SEAL_HEAD_SIZE, text, len, text + len, buf);
}

/* Moves the part of a record that is there to the front, when the rest of it might not fit. */
static void make_room(struct half *half)
{
    const uint32_t there = half->end - half->start;

    if (there > 0 && SEAL_BUFFER_SIZE - half->start >= SEAL_RECORD_SIZE + SEAL_OVERHEAD) return;
    memmove(half->bytes, half->bytes + half->start, there);
    half->start = 0;
    half->end = there;
}

enum status seal_read(struct seal *seal, struct env_stream *stream, uint8_t *buf, size_t *n)
{
    struct half *half = &seal->in;

    while (seal->broken == STATUS_OK && !seal_waiting(seal)) {
        size_t got = 0;
        make_room(half);
        const enum status status =
            env_stream_read(stream, half->bytes + half->end, SEAL_BUFFER_SIZE - half->end, &got);
        if (status != STATUS_OK) return status;
        half->end += (uint32_t)got;
    }
    if (seal->broken == STATUS_OK) seal->broken = open_next(seal, buf, n);
    return seal->broken;
}
