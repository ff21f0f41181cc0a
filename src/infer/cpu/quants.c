/* SPDX-License-Identifier: Apache-2.0
 *
 * infer/cpu/quants.c - takes apart the blocks of every quantized type. Runs when weights are packed
 * and when embeddings are read, so clarity goes before speed. */
#include "infer/cpu/quants.h"

#include <string.h>

#include "base/assert.h"
#include "infer/cpu/half.h"

enum { PARTS = MODEL_SUPER_ELEMENTS / MODEL_BLOCK_ELEMENTS };

bool quants_has(enum model_type type)
{
    return model_block_elements((uint32_t)type) > 1;
}

static void read_nibbles(const uint8_t q[16], uint8_t out[32])
{
    for (int i = 0; i < 16; i++) {
        out[i] = q[i] & 15;
        out[i + 16] = q[i] >> 4;
    }
}

/* The fifth bits of a block of 32. */
static void add_high_bits(const uint8_t h[4], uint8_t q[32])
{
    for (int i = 0; i < 32; i++)
        q[i] = (uint8_t)(q[i] | ((h[i / 8] >> (i % 8)) & 1) << 4);
}

/* scale(p) and min(p) of Q4_K and Q5_K. */
static void read_scales(const uint8_t s[12], uint32_t p, uint8_t out[2])
{
    if (p < 4) {
        out[0] = s[p] & 63;
        out[1] = s[p + 4] & 63;
    } else {
        out[0] = (uint8_t)((s[p + 4] & 15) | (s[p - 4] >> 6) << 4);
        out[1] = (uint8_t)((s[p + 4] >> 4) | (s[p] >> 6) << 4);
    }
}

/* The four bits of part p, where parts 2k and 2k + 1 share 32 bytes. */
static void read_shared_nibbles(const uint8_t q[128], uint32_t p, uint8_t out[32])
{
    for (uint32_t i = 0; i < 32; i++)
        out[i] = (q[p / 2 * 32 + i] >> (p % 2 * 4)) & 15;
}

static void read_q4_k(const uint8_t *from, uint32_t p, struct quant_part *out)
{
    struct model_block_q4_k block;

    memcpy(&block, from, sizeof(block));
    out->d = block.d;
    out->m = block.m;
    read_scales(block.s, p, out->part);
    read_shared_nibbles(block.q, p, out->q);
}

static void read_q5_k(const uint8_t *from, uint32_t p, struct quant_part *out)
{
    struct model_block_q5_k block;

    memcpy(&block, from, sizeof(block));
    out->d = block.d;
    out->m = block.m;
    read_scales(block.s, p, out->part);
    read_shared_nibbles(block.q, p, out->q);
    for (uint32_t i = 0; i < 32; i++)
        out->q[i] = (uint8_t)(out->q[i] | ((block.h[i] >> p) & 1) << 4);
}

static void read_q6_k(const uint8_t *from, uint32_t p, struct quant_part *out)
{
    struct model_block_q6_k block;
    const uint32_t n = p / 4, r = p % 4;

    memcpy(&block, from, sizeof(block));
    out->d = block.d;
    out->m = 0;
    memcpy(out->part, block.s + (size_t)2 * p, 2);
    for (uint32_t i = 0; i < 32; i++) {
        const uint32_t low = (uint32_t)block.q[64 * n + 32 * (r % 2) + i] >> (r / 2 * 4) & 15;
        const uint32_t high = (uint32_t)block.h[32 * n + i] >> (2 * r) & 3;
        out->q[i] = (uint8_t)(low | high << 4);
    }
}

/* Blocks of 32: d, perhaps m, perhaps high bits, quants. */
static void read_block(enum model_type type, const uint8_t *from, struct quant_part *out)
{
    const bool mins = type == MODEL_Q4_1 || type == MODEL_Q5_1;
    const bool five = type == MODEL_Q5_0 || type == MODEL_Q5_1;
    const uint8_t *q = from + (mins ? 4 : 2);

    memset(out, 0, sizeof(*out));
    memcpy(&out->d, from, 2);
    if (mins) memcpy(&out->m, from + 2, 2);
    if (type == MODEL_Q8_0) {
        for (int i = 0; i < 32; i++)
            out->q[i] = q[i] ^ 0x80;
        return;
    }
    read_nibbles(five ? q + 4 : q, out->q);
    if (five) add_high_bits(q, out->q);
}

void quants_read(enum model_type type, const uint8_t *row, uint32_t index, struct quant_part *out)
{
    const uint32_t elements = model_block_elements((uint32_t)type);
    const size_t size = model_row_size((uint32_t)type, elements);
    const uint32_t p = index % PARTS;

    ASSERT(quants_has(type));
    if (elements == MODEL_BLOCK_ELEMENTS) {
        read_block(type, row + index * size, out);
        return;
    }
    const uint8_t *from = row + index / PARTS * size;
    if (type == MODEL_Q4_K) read_q4_k(from, p, out);
    if (type == MODEL_Q5_K) read_q5_k(from, p, out);
    if (type == MODEL_Q6_K) read_q6_k(from, p, out);
}

/* What q[i] has too much. */
static int offset_of(enum model_type type)
{
    if (type == MODEL_Q8_0) return 128;
    if (type == MODEL_Q6_K) return 32;
    if (type == MODEL_Q5_0) return 16;
    return type == MODEL_Q4_0 ? 8 : 0;
}

void quants_expand(enum model_type type, const struct quant_part *part, float out[32])
{
    const bool scaled = type == MODEL_Q4_K || type == MODEL_Q5_K;
    const float d = half_to_float(part->d);
    const float m = half_to_float(part->m);
    const int offset = offset_of(type);

    for (int i = 0; i < 32; i++) {
        float scale = d, min = m;
        if (scaled) {
            scale = d * (float)part->part[0];
            min = -(m * (float)part->part[1]);
        } else if (type == MODEL_Q6_K) {
            scale = d * (float)(int8_t)part->part[i / 16];
        }
        out[i] = scale * (float)(part->q[i] - offset) + min;
    }
}
