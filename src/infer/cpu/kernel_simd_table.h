/* SPDX-License-Identifier: Apache-2.0
 *
 * infer/cpu/kernel_simd_table.h - the second half of kernel_simd.h: cuts rows into the counts that
 * the ISA's q4_rows(), q8_rows(), k_rows() and q6_k_rows() keep in registers, and makes the table.
 * Not self-contained. */
#ifndef INFER_CPU_KERNEL_SIMD_TABLE_H
#define INFER_CPU_KERNEL_SIMD_TABLE_H

/* A body for each count of rows, because the counts must be constants where the rows are unrolled.
 */
#define ROWS_CASE(count, call)                                                                     \
    case count:                                                                                    \
        call(count);                                                                               \
        break;

#define ROWS_SWITCH(rows, call)                                                                    \
    switch (rows) {                                                                                \
        ROWS_CASE(1, call)                                                                         \
        ROWS_CASE(2, call)                                                                         \
        ROWS_CASE(3, call)                                                                         \
        ROWS_CASE(4, call)                                                                         \
        ROWS_CASE(5, call)                                                                         \
        ROWS_CASE(6, call)                                                                         \
        ROWS_CASE(7, call)                                                                         \
    default: call(8); break;                                                                       \
    }

static void q4_1_matmul(const struct matrix *w, const uint8_t *tile, const struct activations *a,
                        uint32_t row0, uint32_t rows, float *const *out)
{
#define CALL(count) q4_rows(w, tile, a, row0, out, count, true)
    ROWS_SWITCH(rows, CALL)
#undef CALL
}

static void q4_0_matmul(const struct matrix *w, const uint8_t *tile, const struct activations *a,
                        uint32_t row0, uint32_t rows, float *const *out)
{
#define CALL(count) q4_rows(w, tile, a, row0, out, count, false)
    ROWS_SWITCH(rows, CALL)
#undef CALL
}

static void q8_0_matmul(const struct matrix *w, const uint8_t *tile, const struct activations *a,
                        uint32_t row0, uint32_t rows, float *const *out)
{
#define CALL(count) q8_rows(w, tile, a, row0, out, count, false)
    ROWS_SWITCH(rows, CALL)
#undef CALL
}

static void q5_1_matmul(const struct matrix *w, const uint8_t *tile, const struct activations *a,
                        uint32_t row0, uint32_t rows, float *const *out)
{
#define CALL(count) q8_rows(w, tile, a, row0, out, count, true)
    ROWS_SWITCH(rows, CALL)
#undef CALL
}

static void q4_k_matmul(const struct matrix *w, const uint8_t *tile, const struct activations *a,
                        uint32_t row0, uint32_t rows, float *const *out)
{
#define CALL(count) k_rows(w, tile, a, row0, out, count, false)
    ROWS_SWITCH(rows, CALL)
#undef CALL
}

static void q5_k_matmul(const struct matrix *w, const uint8_t *tile, const struct activations *a,
                        uint32_t row0, uint32_t rows, float *const *out)
{
#define CALL(count) k_rows(w, tile, a, row0, out, count, true)
    ROWS_SWITCH(rows, CALL)
#undef CALL
}

static void q6_k_matmul(const struct matrix *w, const uint8_t *tile, const struct activations *a,
                        uint32_t row0, uint32_t rows, float *const *out)
{
#define CALL(count) q6_k_rows(w, tile, a, row0, out, count)
    ROWS_SWITCH(rows, CALL)
#undef CALL
}

static void quantized_matmul(const struct matrix *w, const uint8_t *tile,
                             const struct activations *a, uint32_t row0, uint32_t rows,
                             float *const *out)
{
    switch (w->type) {
    case MODEL_Q4_0: q4_0_matmul(w, tile, a, row0, rows, out); return;
    case MODEL_Q4_1: q4_1_matmul(w, tile, a, row0, rows, out); return;
    case MODEL_Q5_1: q5_1_matmul(w, tile, a, row0, rows, out); return;
    case MODEL_Q8_0: q8_0_matmul(w, tile, a, row0, rows, out); return;
    case MODEL_Q4_K: q4_k_matmul(w, tile, a, row0, rows, out); return;
    case MODEL_Q5_K: q5_k_matmul(w, tile, a, row0, rows, out); return;
    case MODEL_Q6_K: q6_k_matmul(w, tile, a, row0, rows, out); return;
    case MODEL_Q5_0: /* packed as Q8_0 */
    case MODEL_F32:
    case MODEL_F16:
    case MODEL_BF16: break;
    }
    ASSERT(false);
}

static void simd_matmul(const struct matrix *w, uint32_t tile_index, const struct activations *a,
                        uint32_t row0, uint32_t rows, float *const *out)
{
    const uint8_t *tile = w->data + tile_index * w->tile_size;

    ASSERT(tile_index < w->tiles);
    if (w->type == MODEL_F16) {
        plain_matmul(w, tile, a, row0, rows, out, MODEL_F16);
        return;
    }
    if (w->type == MODEL_BF16) {
        plain_matmul(w, tile, a, row0, rows, out, MODEL_BF16);
        return;
    }
    if (w->type == MODEL_F32) {
        plain_matmul(w, tile, a, row0, rows, out, MODEL_F32);
        return;
    }
    for (uint32_t r = 0; r < rows; r += ROWS) {
        const uint32_t count = rows - r < ROWS ? rows - r : ROWS;
        quantized_matmul(w, tile, a, row0 + r, count, out + r);
    }
}

#define SIMD_KERNELS(which)                                                                        \
    {                                                                                              \
        .isa = which, .quantize = simd_quantize, .matmul = simd_matmul, .rmsnorm = simd_rmsnorm,   \
        .add = simd_add, .silu_mul = simd_silu_mul, .gelu_mul = simd_gelu_mul, .rope = simd_rope,  \
        .to_half = simd_to_half, .attend = simd_attend                                             \
    }

#endif
