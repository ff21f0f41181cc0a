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

/* A block of each quantized type: bytes in the file, and bytes of quants for one row. */
struct quant_shape {
    uint32_t block_size;
    uint32_t quants_offset;
    uint32_t quants_size;
    bool mins;
};

static bool quant_shape(enum model_type type, struct quant_shape *out)
{
    switch (type) {
    case MODEL_Q4_0:
        *out = (struct quant_shape){ sizeof(struct model_block_q4_0), 2, 16, false };
        return true;
    case MODEL_Q4_1:
        *out = (struct quant_shape){ sizeof(struct model_block_q4_1), 4, 16, true };
        return true;
    case MODEL_Q8_0:
        *out = (struct quant_shape){ sizeof(struct model_block_q8_0), 2, 32, false };
        return true;
    case MODEL_F32:
    case MODEL_F16: break;
    }
    return false;
}

enum status matrix_init(struct matrix *matrix, const struct model_tensor *tensor, bool expand)
{
    const enum model_type type = expand ? MODEL_F32 : tensor->type;
    struct quant_shape shape = { 0 };
    size_t size;

    if (quant_shape(type, &shape)) {
        const size_t blocks = tensor->ne[0] / QUANT_BLOCK;
        if (tensor->ne[0] % QUANT_BLOCK != 0) return STATUS_UNSUPPORTED;
        size = blocks * MATRIX_TILE * (2 + (shape.mins ? 2 : 0) + (size_t)shape.quants_size);
    } else if (type == MODEL_F16) {
        size = (size_t)tensor->ne[0] * MATRIX_TILE * 2;
    } else if (type == MODEL_F32) {
        size = (size_t)tensor->ne[0] * MATRIX_TILE * 4;
    } else {
        return STATUS_UNSUPPORTED;
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

static void pack_quantized_row(const struct matrix *matrix, const struct quant_shape *shape,
                               const uint8_t *row, uint32_t lane, uint8_t *tile)
{
    const uint32_t blocks = matrix->cols / QUANT_BLOCK;
    uint8_t *scales = tile;
    uint8_t *mins = scales + (size_t)blocks * MATRIX_TILE * 2;
    uint8_t *quants = shape->mins ? mins + (size_t)blocks * MATRIX_TILE * 2 : mins;
    const uint32_t flip = matrix->type == MODEL_Q8_0 ? 0x80808080u : 0;

    for (uint32_t b = 0; b < blocks; b++) {
        const uint8_t *block = row + (size_t)b * shape->block_size;
        memcpy(scales + ((size_t)b * MATRIX_TILE + lane) * 2, block, 2);
        if (shape->mins) memcpy(mins + ((size_t)b * MATRIX_TILE + lane) * 2, block + 2, 2);
        uint8_t *to = quants + (size_t)b * MATRIX_TILE * shape->quants_size;
        for (uint32_t i = 0; i < shape->quants_size; i += 4) {
            uint32_t four;
            memcpy(&four, block + shape->quants_offset + i, 4);
            four ^= flip;
            memcpy(to + (size_t)i * MATRIX_TILE + (size_t)lane * 4, &four, 4);
        }
    }
}

static void pack_plain_row(const struct matrix *matrix, const uint8_t *row, uint32_t lane,
                           uint8_t *tile)
{
    const size_t size = matrix->type == MODEL_F16 ? 2 : 4;

    for (uint32_t k = 0; k < matrix->cols; k++) {
        memcpy(tile + ((size_t)k * MATRIX_TILE + lane) * size, row + k * size, size);
    }
}

static uint16_t load_half(const uint8_t *from)
{
    uint16_t bits;
    memcpy(&bits, from, sizeof(bits));
    return bits;
}

static void dequantize_block(enum model_type type, const uint8_t *block, float *out)
{
    const float d = half_to_float(load_half(block));

    if (type == MODEL_Q8_0) {
        for (int i = 0; i < QUANT_BLOCK; i++)
            out[i] = d * (float)(int8_t)block[2 + i];
        return;
    }
    const bool mins = type == MODEL_Q4_1;
    const float m = mins ? half_to_float(load_half(block + 2)) : -8.0f * d;
    const uint8_t *q = block + (mins ? 4 : 2);
    for (int i = 0; i < 16; i++) {
        out[i] = d * (float)(q[i] & 15) + m;
        out[i + 16] = d * (float)(q[i] >> 4) + m;
    }
}

/* A row as F32, whatever its type in the file. */
static void pack_expanded_row(const struct model_tensor *tensor, const uint8_t *row, uint32_t lane,
                              uint8_t *tile)
{
    struct quant_shape shape = { 0 };
    const bool quantized = quant_shape(tensor->type, &shape);
    float values[QUANT_BLOCK];

    for (uint32_t k = 0; k < tensor->ne[0]; k++) {
        const uint32_t i = quantized ? k % QUANT_BLOCK : 0;
        if (quantized && i == 0) {
            dequantize_block(tensor->type, row + (size_t)(k / QUANT_BLOCK) * shape.block_size,
                             values);
        } else if (!quantized) {
            values[0] = half_to_float(load_half(row + (size_t)k * 2));
        }
        memcpy(tile + ((size_t)k * MATRIX_TILE + lane) * 4, &values[i], 4);
    }
}

void matrix_pack(const struct matrix *matrix, const struct model_tensor *tensor, uint32_t first,
                 uint32_t last)
{
    struct quant_shape shape = { 0 };
    const bool quantized = quant_shape(matrix->type, &shape);

    ASSERT(first <= last && last <= matrix->tiles);
    ASSERT(matrix->rows == tensor->ne[1] && matrix->cols == tensor->ne[0]);
    for (uint32_t t = first; t < last; t++) {
        uint8_t *tile = matrix->data + t * matrix->tile_size;
        if ((t + 1) * MATRIX_TILE > matrix->rows) memset(tile, 0, matrix->tile_size);
        for (uint32_t lane = 0; lane < MATRIX_TILE; lane++) {
            const uint32_t r = t * MATRIX_TILE + lane;
            if (r >= matrix->rows) break;
            const uint8_t *row = (const uint8_t *)tensor->data + r * tensor->row_size;
            if (matrix->type != tensor->type) {
                pack_expanded_row(tensor, row, lane, tile);
            } else if (quantized) {
                pack_quantized_row(matrix, &shape, row, lane, tile);
            } else {
                pack_plain_row(matrix, row, lane, tile);
            }
        }
    }
}

void matrix_unpack_row(const struct model_tensor *tensor, uint32_t row, float *out)
{
    struct quant_shape shape = { 0 };
    const uint8_t *from = (const uint8_t *)tensor->data + row * tensor->row_size;

    ASSERT(row < tensor->ne[1]);
    if (quant_shape(tensor->type, &shape)) {
        for (uint32_t b = 0; b < tensor->ne[0] / QUANT_BLOCK; b++) {
            dequantize_block(tensor->type, from + (size_t)b * shape.block_size,
                             out + (size_t)b * QUANT_BLOCK);
        }
    } else if (tensor->type == MODEL_F16) {
        for (uint32_t k = 0; k < tensor->ne[0]; k++) {
            out[k] = half_to_float(load_half(from + (size_t)k * 2));
        }
    } else {
        memcpy(out, from, (size_t)tensor->ne[0] * sizeof(float));
    }
}

size_t attend_scratch_floats(uint32_t head_dim)
{
    /* K and V of a span, scores, output of a few queries, running maximum and sum of each. */
    return 2 * (size_t)ATTEND_SPAN * head_dim + (size_t)ATTEND_QUERIES_MAX * ATTEND_SPAN +
           (size_t)VALUE_QUERIES_MAX * head_dim + 2 * (size_t)ATTEND_QUERIES_MAX;
}
