/* SPDX-License-Identifier: Apache-2.0
 *
 * infer/cpu/quants_test.c
 *
 * Goal:   weights of every element type mean what the format says.
 * Method: rows that an independent implementation has dequantised (tests/golden/quants, see
 *         tests/golden/README.md). Ours must be equal as numbers, tolerance zero. Products must
 *         agree with its double-precision ones: with expanded weights within 1e-5 of the sum of
 *         magnitudes; with 8-bit activations within what rounding each activation by half a step
 *         can do, and the same. */
#include "infer/cpu/quants.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "infer/cpu/kernels.h"

enum { ROWS = 3, COLS = 512, FILE_SIZE_MAX = 1 << 16 };

struct vectors {
    uint8_t *raw; /* aligned */
    struct model_tensor tensor;
    float values[ROWS][COLS];
    float x[COLS];
    double dots[ROWS];
};

static void take(const uint8_t **at, void *out, size_t size)
{
    memcpy(out, *at, size);
    *at += size;
}

static void vectors_load(struct vectors *v, enum model_type type)
{
    static uint8_t bytes[FILE_SIZE_MAX];
    const size_t row_size = model_row_size(type, COLS);
    const uint8_t *at = bytes;
    uint32_t head[3];
    char path[64];

    snprintf(path, sizeof(path), "tests/golden/quants/%s.bin", model_type_name(type));
    FILE *file = fopen(path, "rb");
    if (file == NULL) fail_msg("%s is missing", path);
    const size_t size = fread(bytes, 1, sizeof(bytes), file);
    fclose(file);
    assert_int_equal(size, sizeof(head) + ROWS * row_size + sizeof(v->values) + sizeof(v->x) +
                               sizeof(v->dots));
    take(&at, head, sizeof(head));
    assert_int_equal(head[0], type);
    assert_int_equal(head[1], ROWS);
    assert_int_equal(head[2], COLS);
    v->raw = aligned_alloc(KERNEL_ALIGN, (ROWS * row_size + 63) / 64 * 64);
    assert_non_null(v->raw);
    take(&at, v->raw, ROWS * row_size);
    take(&at, v->values, sizeof(v->values));
    take(&at, v->x, sizeof(v->x));
    take(&at, v->dots, sizeof(v->dots));
    v->tensor = (struct model_tensor){ type, { COLS, ROWS }, row_size, v->raw };
}

/* The product of every row with x, and how far each may be off for 8-bit activations. */
static void multiply(const struct vectors *v, const struct kernels *kernels, bool expand,
                     float out[MATRIX_TILE], float steps[COLS])
{
    float x[COLS], d[COLS / QUANT_BLOCK], ds[COLS / QUANT_BLOCK];
    int8_t q[COLS];
    int32_t sum[COLS / QUANT_BLOCK];
    struct activations a = { x, q, d, ds, sum, COLS, COLS / QUANT_BLOCK };
    struct matrix w;

    memcpy(x, v->x, sizeof(x));
    kernels->quantize(x, COLS, q, d, ds, sum);
    assert_int_equal(matrix_init(&w, &v->tensor, expand), STATUS_OK);
    w.data = aligned_alloc(KERNEL_ALIGN, w.tiles * w.tile_size);
    assert_non_null(w.data);
    matrix_pack(&w, &v->tensor, 0, w.tiles);
    kernels->matmul(&w, 0, &a, 0, 1, (float *[]){ out });
    for (uint32_t i = 0; i < COLS; i++)
        steps[i] = matrix_is_quantized(&w) ? d[i / QUANT_BLOCK] / 2 : 0;
    free(w.data);
}

static void check_products(const struct vectors *v, const struct kernels *kernels, bool expand)
{
    float out[MATRIX_TILE], steps[COLS];

    multiply(v, kernels, expand, out, steps);
    for (uint32_t r = 0; r < ROWS; r++) {
        double tolerance = 1e-5;
        for (uint32_t i = 0; i < COLS; i++) {
            const double w = fabs((double)v->values[r][i]);
            tolerance += w * ((double)steps[i] * 1.001 + 1e-5 * fabs((double)v->x[i]));
        }
        const double error = fabs((double)out[r] - v->dots[r]);
        if (error > tolerance) {
            fail_msg("%s row %u: %g off, %g allowed", model_type_name(v->tensor.type), r, error,
                     tolerance);
        }
    }
}

static const enum model_type types[] = { MODEL_F32,  MODEL_F16,  MODEL_BF16, MODEL_Q4_0,
                                         MODEL_Q4_1, MODEL_Q5_0, MODEL_Q5_1, MODEL_Q8_0,
                                         MODEL_Q4_K, MODEL_Q5_K, MODEL_Q6_K };
enum { TYPES = sizeof(types) / sizeof(types[0]) };

static void values_equal_the_oracle(void **state)
{
    (void)state;
    for (size_t i = 0; i < TYPES; i++) {
        struct vectors v;
        float out[COLS];
        vectors_load(&v, types[i]);
        for (uint32_t r = 0; r < ROWS; r++) {
            matrix_unpack_row(&v.tensor, r, out);
            for (uint32_t k = 0; k < COLS; k++) {
                if (out[k] == v.values[r][k]) continue;
                fail_msg("%s row %u element %u: %a, expected %a", model_type_name(types[i]), r, k,
                         (double)out[k], (double)v.values[r][k]);
            }
        }
        free(v.raw);
    }
}

static void products_agree_with_the_oracle(void **state)
{
    (void)state;
    for (size_t i = 0; i < TYPES; i++) {
        struct vectors v;
        vectors_load(&v, types[i]);
        for (int isa = ENGINE_ISA_PORTABLE; isa <= ENGINE_ISA_AVX512; isa++) {
            const struct kernels *kernels = kernels_select((enum engine_isa)isa);
            if (kernels == NULL) {
                printf("SKIPPED: this CPU has no %s\n", engine_isa_name((enum engine_isa)isa));
                continue;
            }
            check_products(&v, kernels, true);
            check_products(&v, kernels, false);
        }
        free(v.raw);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_equal_the_oracle),
        cmocka_unit_test(products_agree_with_the_oracle),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
