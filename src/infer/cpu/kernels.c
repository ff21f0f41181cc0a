/* SPDX-License-Identifier: Apache-2.0
 *
 * infer/cpu/kernels.c - which kernels this CPU can run, and weights in the order they are read. */
#include "infer/cpu/kernels.h"

#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "base/assert.h"
#include "infer/cpu/half.h"
#include "infer/cpu/quants.h"
#include "infer/cpu/scalar.h"

#if defined(__x86_64__)
/* clang 14 has no name for it in __builtin_cpu_supports(). */
static bool has_f16c(void)
{
    unsigned eax, ebx, ecx = 0, edx;
    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}
#endif

const struct kernels *kernels_select(enum engine_isa isa)
{
    if (isa == ENGINE_ISA_PORTABLE) return &kernels_portable;
#if defined(__x86_64__)
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni");
    if (avx512 && isa != ENGINE_ISA_AVX2) return &kernels_avx512;
    if (avx2 && isa != ENGINE_ISA_AVX512) return &kernels_avx2;
#endif
    return isa == ENGINE_ISA_AUTO ? &kernels_portable : NULL;
}

struct tile_sections tile_sections(enum model_type type, uint32_t blocks)
{
    const bool super = type == MODEL_Q4_K || type == MODEL_Q5_K || type == MODEL_Q6_K;
    const bool mins = type == MODEL_Q4_1 || type == MODEL_Q5_1 || (super && type != MODEL_Q6_K);
    const bool nibbles = type == MODEL_Q4_0 || type == MODEL_Q4_1 || type == MODEL_Q4_K;
    const size_t header = (size_t)(super ? blocks / 8 : blocks) * MATRIX_TILE * 2;
    struct tile_sections at = { .mins = header };

    at.parts = at.mins + (mins ? header : 0);
    at.quants = at.parts + (super ? (size_t)blocks * MATRIX_TILE * 2 : 0);
    at.quants_size = (size_t)MATRIX_TILE * (nibbles ? 16 : 32);
    at.size = at.quants + blocks * at.quants_size;
    return at;
}

bool matrix_is_quantized(const struct matrix *matrix)
{
    return quants_has(matrix->type);
}

/* What a tensor's type becomes when packed. */
static enum model_type packed_type(enum model_type type, bool expand)
{
    if (expand) return MODEL_F32;
    return type == MODEL_Q5_0 ? MODEL_Q8_0 : type;
}

enum status matrix_init(struct matrix *matrix, const struct model_tensor *tensor, bool expand)
{
    const enum model_type type = packed_type(tensor->type, expand);
    const uint32_t block_elements = model_block_elements((uint32_t)tensor->type);
    size_t size;

    if (block_elements == 0 || tensor->ne[0] % block_elements != 0) return STATUS_UNSUPPORTED;
    if (quants_has(type)) {
        size = tile_sections(type, tensor->ne[0] / QUANT_BLOCK).size;
    } else {
        size = model_row_size((uint32_t)type, tensor->ne[0]) * MATRIX_TILE;
    }
    *matrix = (struct matrix){
        .type = type,
        .rows = tensor->ne[1],
        .cols = tensor->ne[0],
        .tiles = (tensor->ne[1] + MATRIX_TILE - 1) / MATRIX_TILE,
        .tile_size = (size + KERNEL_ALIGN - 1) / KERNEL_ALIGN * KERNEL_ALIGN,
    };
    return STATUS_OK;
}

/* Block b of one row into its lane's places. */
static void pack_part(const struct matrix *matrix, const struct tile_sections *at,
                      const struct quant_part *part, uint32_t b, uint32_t lane, uint8_t *tile)
{
    const bool super = at->quants != at->parts, mins = at->parts != at->mins;
    const size_t group = ((size_t)(super ? b / 8 : b) * MATRIX_TILE + lane) * 2;
    const uint16_t m = super ? part->m ^ 0x8000u : part->m;
    uint8_t *to = tile + at->quants + b * at->quants_size;

    memcpy(tile + group, &part->d, 2);
    if (mins) memcpy(tile + at->mins + group, &m, 2);
    for (size_t k = 0; super && k < 2; k++) {
        tile[at->parts + ((size_t)b * 2 + k) * MATRIX_TILE + lane] = part->part[k];
    }
    const bool nibbles = at->quants_size == (size_t)MATRIX_TILE * 16;
    for (size_t i = 0; i < at->quants_size / MATRIX_TILE; i++) {
        const unsigned high = nibbles ? (unsigned)part->q[i + 16] << 4 : 0;
        to[i / 4 * MATRIX_TILE * 4 + (size_t)lane * 4 + i % 4] = (uint8_t)(part->q[i] | high);
    }
    ASSERT(matrix->type != MODEL_Q5_0);
}

/* The types whose quants are in the file as they are in a tile, four at a time: most models are of
 * these, and the general way takes several times as long. */
static bool pack_row_directly(enum model_type from, const struct tile_sections *at, uint32_t blocks,
                              const uint8_t *row, uint32_t lane, uint8_t *tile)
{
    if (from != MODEL_Q4_0 && from != MODEL_Q4_1 && from != MODEL_Q8_0) return false;
    const bool mins = from == MODEL_Q4_1;
    const size_t head = mins ? 4 : 2; /* of a block: scale, and minimum */
    const size_t size = at->quants_size / MATRIX_TILE;
    const uint32_t flip = from == MODEL_Q8_0 ? 0x80808080u : 0;

    for (uint32_t b = 0; b < blocks; b++) {
        const uint8_t *block = row + b * (head + size);
        const size_t group = ((size_t)b * MATRIX_TILE + lane) * 2;
        uint8_t *to = tile + at->quants + b * at->quants_size + (size_t)lane * 4;
        memcpy(tile + group, block, 2);
        if (mins) memcpy(tile + at->mins + group, block + 2, 2);
        for (size_t i = 0; i < size; i += 4) {
            uint32_t four;
            memcpy(&four, block + head + i, 4);
            four ^= flip;
            memcpy(to + i * MATRIX_TILE, &four, 4);
        }
    }
    return true;
}

static void pack_quantized_row(const struct matrix *matrix, enum model_type from,
                               const uint8_t *row, uint32_t lane, uint8_t *tile)
{
    const uint32_t blocks = matrix->cols / QUANT_BLOCK;
    const struct tile_sections at = tile_sections(matrix->type, blocks);

    if (pack_row_directly(from, &at, blocks, row, lane, tile)) return;
    for (uint32_t b = 0; b < blocks; b++) {
        struct quant_part part;
        quants_read(from, row, b, &part);
        for (int i = 0; from == MODEL_Q5_0 && i < QUANT_BLOCK; i++)
            part.q[i] = (uint8_t)(part.q[i] - 16 + 128);
        pack_part(matrix, &at, &part, b, lane, tile);
    }
}

static void pack_plain_row(const struct matrix *matrix, const uint8_t *row, uint32_t lane,
                           uint8_t *tile)
{
    const size_t size = matrix->type == MODEL_F32 ? 4 : 2;

    for (uint32_t k = 0; k < matrix->cols; k++) {
        memcpy(tile + ((size_t)k * MATRIX_TILE + lane) * size, row + k * size, size);
    }
}

/* Up to QUANT_BLOCK elements of a row from `first`, a multiple of it, as floats. */
static void expand(const struct model_tensor *tensor, const uint8_t *row, uint32_t first,
                   float out[QUANT_BLOCK])
{
    const uint32_t rest = tensor->ne[0] - first;
    const uint32_t count = rest < QUANT_BLOCK ? rest : QUANT_BLOCK;

    if (quants_has(tensor->type)) {
        struct quant_part part;
        quants_read(tensor->type, row, first / QUANT_BLOCK, &part);
        quants_expand(tensor->type, &part, out);
    } else if (tensor->type == MODEL_F32) {
        memcpy(out, row + (size_t)first * 4, count * sizeof(float));
    } else {
        for (uint32_t i = 0; i < count; i++) {
            uint16_t bits;
            memcpy(&bits, row + ((size_t)first + i) * 2, sizeof(bits));
            out[i] = tensor->type == MODEL_F16 ? half_to_float(bits)
                                               : float_of_bits((uint32_t)bits << 16);
        }
    }
}

/* A row as F32, whatever its type in the file. */
static void pack_expanded_row(const struct model_tensor *tensor, const uint8_t *row, uint32_t lane,
                              uint8_t *tile)
{
    float values[QUANT_BLOCK];

    for (uint32_t k = 0; k < tensor->ne[0]; k++) {
        if (k % QUANT_BLOCK == 0) expand(tensor, row, k, values);
        memcpy(tile + ((size_t)k * MATRIX_TILE + lane) * 4, &values[k % QUANT_BLOCK], 4);
    }
}

uint32_t matrix_source_row(const struct matrix *matrix, uint32_t row)
{
    if (matrix->halves == 0) return row;
    const uint32_t at = row % matrix->head_dim;
    if (at >= matrix->halves) return row;
    return row - at + at / 2 + at % 2 * (matrix->halves / 2);
}

void matrix_pack(const struct matrix *matrix, const struct model_tensor *tensor, uint32_t first,
                 uint32_t last)
{
    ASSERT(first <= last && last <= matrix->tiles);
    ASSERT(matrix->rows == tensor->ne[1] && matrix->cols == tensor->ne[0]);
    for (uint32_t t = first; t < last; t++) {
        uint8_t *tile = matrix->data + t * matrix->tile_size;
        if ((t + 1) * MATRIX_TILE > matrix->rows) memset(tile, 0, matrix->tile_size);
        for (uint32_t lane = 0; lane < MATRIX_TILE; lane++) {
            const uint32_t r = t * MATRIX_TILE + lane;
            if (r >= matrix->rows) break;
            const uint8_t *row =
                (const uint8_t *)tensor->data + matrix_source_row(matrix, r) * tensor->row_size;
            if (quants_has(matrix->type)) {
                pack_quantized_row(matrix, tensor->type, row, lane, tile);
            } else if (matrix->type != tensor->type) {
                pack_expanded_row(tensor, row, lane, tile);
            } else {
                pack_plain_row(matrix, row, lane, tile);
            }
        }
    }
}

void matrix_unpack_row(const struct model_tensor *tensor, uint32_t row, float *out)
{
    const uint8_t *from = (const uint8_t *)tensor->data + row * tensor->row_size;
    float values[QUANT_BLOCK];

    ASSERT(row < tensor->ne[1]);
    for (uint32_t k = 0; k < tensor->ne[0]; k += QUANT_BLOCK) {
        const uint32_t rest = tensor->ne[0] - k;
        expand(tensor, from, k, values);
        memcpy(out + k, values, (rest < QUANT_BLOCK ? rest : QUANT_BLOCK) * sizeof(float));
    }
}

size_t attend_scratch_floats(uint32_t head_dim)
{
    /* K and V of a span, scores, output of a few queries, running maximum and sum of each. */
    return 2 * (size_t)ATTEND_SPAN * head_dim + (size_t)ATTEND_QUERIES_MAX * ATTEND_SPAN +
           (size_t)VALUE_QUERIES_MAX * head_dim + 2 * (size_t)ATTEND_QUERIES_MAX;
}

/* ---- KV ---- */

size_t attend_token_size(enum engine_kv kv, uint32_t head_dim)
{
    if (kv == ENGINE_KV_F16) return (size_t)head_dim * 2;
    ASSERT(head_dim % QUANT_BLOCK == 0);
    return (size_t)head_dim / QUANT_BLOCK * KV_BLOCK_SIZE;
}

void attend_pack_kv(const struct kernels *kernels, enum engine_kv kv, const float *x,
                    uint32_t head_dim, uint8_t *out)
{
    int8_t q[QUANT_BLOCK];
    float d, ds;
    int32_t sum;

    if (kv == ENGINE_KV_F16) {
        kernels->to_half(x, (uint16_t *)(void *)out, head_dim);
        return;
    }
    for (uint32_t i = 0; i < head_dim; i += QUANT_BLOCK, out += KV_BLOCK_SIZE) {
        kernels->quantize(x + i, QUANT_BLOCK, q, &d, &ds, &sum);
        const uint16_t half = half_from_float(d);
        memcpy(out, &half, sizeof(half));
        memcpy(out + sizeof(half), q, sizeof(q));
    }
}
