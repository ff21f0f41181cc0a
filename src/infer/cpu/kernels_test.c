/* SPDX-License-Identifier: Apache-2.0
 *
 * infer/cpu/kernels_test.c
 *
 * Goal:   AVX2 and AVX-512 compute what the portable kernels define, and the portable kernels
 *         compute the right thing.
 * Method: random shapes and values; the vector kernels must give the same bits (tolerance zero);
 *         the portable ones are compared with a double-precision computation from dequantized
 *         weights. An ISA that this CPU lacks is skipped aloud. SEED=n replays a run. */
#include "infer/cpu/kernels.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "infer/cpu/half.h"
#include "infer/cpu/pool.h"
#include "infer/cpu/scalar.h"
#include "seed.h"

static uint64_t seed;

static const struct kernels *const *vector_kernels(void)
{
    static const struct kernels *list[3];
    static bool said;
    int count = 0;

    for (int isa = ENGINE_ISA_AVX2; isa <= ENGINE_ISA_AVX512; isa++) {
        const struct kernels *kernels = kernels_select((enum engine_isa)isa);
        if (kernels != NULL) {
            list[count++] = kernels;
        } else if (!said) {
            printf("SKIPPED: this CPU has no %s\n", isa == ENGINE_ISA_AVX2 ? "avx2" : "avx512");
        }
    }
    said = true;
    list[count] = NULL;
    return list;
}

static float random_float(struct rng *rng, float range)
{
    return (float)(rng_unit(rng) * 2.0 - 1.0) * range;
}

static void *aligned(size_t size)
{
    void *memory = NULL;
    assert_int_equal(posix_memalign(&memory, KERNEL_ALIGN, size), 0);
    memset(memory, 0xFF, size); /* NaN, so that what is not written shows */
    return memory;
}

/* ---- matrices ---- */

/* Sets the scale and the minimum of a block. */
static void set_scales(enum model_type type, uint8_t *block, float d, float m)
{
    const uint16_t d_half = half_from_float(d), m_half = half_from_float(m);
    const bool mins =
        type == MODEL_Q4_1 || type == MODEL_Q5_1 || type == MODEL_Q4_K || type == MODEL_Q5_K;

    memcpy(block + (type == MODEL_Q6_K ? 208 : 0), &d_half, 2);
    if (mins) memcpy(block + 2, &m_half, 2);
}

static bool is_plain(enum model_type type)
{
    return type == MODEL_F16 || type == MODEL_F32 || type == MODEL_BF16;
}

static void set_plain(enum model_type type, uint8_t *row, uint32_t i, float value)
{
    const uint16_t half = half_from_float(value), top = (uint16_t)(float_bits(value) >> 16);

    if (type == MODEL_F32) memcpy(row + (size_t)i * 4, &value, 4);
    if (type == MODEL_F16) memcpy(row + (size_t)i * 2, &half, 2);
    if (type == MODEL_BF16) memcpy(row + (size_t)i * 2, &top, 2);
}

static struct model_tensor random_tensor(struct rng *rng, enum model_type type, uint32_t cols,
                                         uint32_t rows)
{
    struct model_tensor tensor = { .type = type, .ne = { cols, rows } };
    const size_t block = model_row_size(type, model_block_elements(type));
    const float range = model_block_elements(type) == MODEL_SUPER_ELEMENTS ? 0.002f : 0.1f;

    tensor.row_size = model_row_size(type, cols);
    uint8_t *data = aligned(tensor.row_size * rows);
    tensor.data = data;
    rng_fill(rng, data, tensor.row_size * rows);
    for (size_t r = 0; r < rows; r++) {
        uint8_t *row = data + r * tensor.row_size;
        for (size_t i = 0; !is_plain(type) && i < tensor.row_size; i += block) {
            set_scales(type, row + i, random_float(rng, range), random_float(rng, 5 * range));
        }
        for (uint32_t i = 0; is_plain(type) && i < cols; i++)
            set_plain(type, row, i, random_float(rng, 1.0f));
    }
    return tensor;
}

static struct activations random_activations(struct rng *rng, uint32_t cols, uint32_t rows)
{
    const uint32_t used = (cols + QUANT_BLOCK - 1) / QUANT_BLOCK;
    const uint32_t stride = used * QUANT_BLOCK;
    /* Strides of x and q differ, as they do in the engine. */
    struct activations a = { .stride = stride + 16, .blocks = used + 2 };

    a.x = aligned((size_t)rows * a.stride * sizeof(float));
    a.q = aligned((size_t)rows * a.blocks * QUANT_BLOCK);
    a.d = aligned((size_t)rows * a.blocks * sizeof(float));
    a.ds = aligned((size_t)rows * a.blocks * sizeof(float));
    a.sum = aligned((size_t)rows * a.blocks * sizeof(int32_t));
    for (size_t i = 0; i < (size_t)rows * a.stride; i++)
        a.x[i] = random_float(rng, 3.0f);
    for (uint32_t r = 0; r < rows; r++) {
        const size_t b = (size_t)r * a.blocks;
        kernels_portable.quantize(a.x + (size_t)r * a.stride, stride, a.q + b * QUANT_BLOCK,
                                  a.d + b, a.ds + b, a.sum + b);
    }
    return a;
}

static void free_activations(struct activations *a)
{
    free(a->x);
    free(a->q);
    free(a->d);
    free(a->ds);
    free(a->sum);
}

static float *multiply(const struct kernels *kernels, const struct matrix *w,
                       const struct activations *a, uint32_t row0, uint32_t rows)
{
    const uint32_t stride = w->tiles * MATRIX_TILE;
    float *out = aligned((size_t)rows * stride * sizeof(float));
    float **at = calloc(rows, sizeof(*at));

    assert_non_null(at);
    for (uint32_t t = 0; t < w->tiles; t++) {
        for (uint32_t r = 0; r < rows; r++)
            at[r] = out + (size_t)r * stride + t * MATRIX_TILE;
        kernels->matmul(w, t, a, row0, rows, at);
    }
    free(at);
    return out;
}

/* What the product is, up to rounding: dequantized weights, 8-bit activations where they are used.
 */
static double exact_output(const struct model_tensor *tensor, uint32_t output,
                           const struct activations *a, uint32_t row, double *magnitude)
{
    const bool plain = is_plain(tensor->type);
    float *w = aligned(tensor->ne[0] * sizeof(float));
    double sum = 0;

    matrix_unpack_row(tensor, output, w);
    *magnitude = 0;
    for (uint32_t k = 0; k < tensor->ne[0]; k++) {
        const size_t block = (size_t)row * a->blocks + k / QUANT_BLOCK;
        const double x =
            plain ? (double)a->x[(size_t)row * a->stride + k]
                  : (double)a->q[block * QUANT_BLOCK + k % QUANT_BLOCK] * (double)a->d[block];
        sum += (double)w[k] * x;
        *magnitude += fabs((double)w[k] * x);
    }
    free(w);
    return sum;
}

static void check_product(struct rng *rng, enum model_type type, uint32_t cols, uint32_t outputs,
                          uint32_t rows)
{
    struct model_tensor tensor = random_tensor(rng, type, cols, outputs);
    struct activations a = random_activations(rng, cols, rows + 1);
    struct matrix w;

    assert_int_equal(matrix_init(&w, &tensor, false), STATUS_OK);
    w.data = aligned(w.tiles * w.tile_size);
    matrix_pack(&w, &tensor, 0, w.tiles);
    float *expected = multiply(&kernels_portable, &w, &a, 1, rows);
    const uint32_t stride = w.tiles * MATRIX_TILE;
    for (uint32_t r = 0; r < rows; r++) {
        for (uint32_t o = 0; o < outputs; o++) {
            double magnitude;
            const double exact = exact_output(&tensor, o, &a, r + 1, &magnitude);
            const double error = fabs((double)expected[(size_t)r * stride + o] - exact);
            assert_true(error <= 1e-5 * (1.0 + magnitude));
        }
    }
    for (const struct kernels *const *k = vector_kernels(); *k != NULL; k++) {
        float *got = multiply(*k, &w, &a, 1, rows);
        assert_memory_equal(got, expected, (size_t)rows * stride * sizeof(float));
        free(got);
    }
    free(expected);
    free(w.data);
    free_activations(&a);
    free((void *)(uintptr_t)tensor.data);
}

static void products_equal_reference(void **state)
{
    static const enum model_type types[] = { MODEL_F32,  MODEL_F16,  MODEL_BF16, MODEL_Q4_0,
                                             MODEL_Q4_1, MODEL_Q5_0, MODEL_Q5_1, MODEL_Q8_0,
                                             MODEL_Q4_K, MODEL_Q5_K, MODEL_Q6_K };
    struct rng rng;

    (void)state;
    rng_init(&rng, seed);
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        for (uint32_t rows = 1; rows <= 18; rows++) {
            const bool super = model_block_elements(types[i]) == MODEL_SUPER_ELEMENTS;
            const uint32_t cols = super ? 256 * (uint32_t)rng_between(&rng, 1, 3)
                                        : QUANT_BLOCK * (uint32_t)rng_between(&rng, 1, 9);
            check_product(&rng, types[i], cols, (uint32_t)rng_between(&rng, 1, 50), rows);
        }
    }
    check_product(&rng, MODEL_F16, 7, 20, 3); /* not a multiple of a block */
    check_product(&rng, MODEL_F32, 45, 20, 9);
    check_product(&rng, MODEL_BF16, 39, 17, 10);
}

/* Every byte of the weights the same, next to the largest activations. */
static void check_extremes(struct rng *rng, enum model_type type, int fill, int8_t x)
{
    struct model_tensor tensor = random_tensor(rng, type, 256, 16);
    struct activations a = random_activations(rng, 256, 1);
    const size_t block = model_row_size(type, model_block_elements(type));
    uint8_t *data = (uint8_t *)(uintptr_t)tensor.data;
    struct matrix w;

    memset(data, fill, tensor.row_size * 16);
    for (size_t i = 0; i < tensor.row_size * 16; i += block)
        set_scales(type, data + i, 0.01f, 0.02f);
    memset(a.q, x, 256);
    for (uint32_t b = 0; b < 8; b++) {
        a.sum[b] = -128 * 32 * x;
        a.ds[b] = a.d[b] * (float)(32 * x);
    }
    assert_int_equal(matrix_init(&w, &tensor, false), STATUS_OK);
    w.data = aligned(w.tiles * w.tile_size);
    matrix_pack(&w, &tensor, 0, w.tiles);
    float *expected = multiply(&kernels_portable, &w, &a, 0, 1);
    double magnitude;
    const double exact = exact_output(&tensor, 3, &a, 0, &magnitude);
    assert_true(fabs((double)expected[3] - exact) <= 1e-5 * (1.0 + magnitude));
    for (const struct kernels *const *k = vector_kernels(); *k != NULL; k++) {
        float *got = multiply(*k, &w, &a, 0, 1);
        assert_memory_equal(got, expected, 16 * sizeof(float));
        free(got);
    }
    free(expected);
    free(w.data);
    free_activations(&a);
    free(data);
}

/* The extreme bytes: nothing saturates on the way. */
static void products_do_not_saturate(void **state)
{
    static const enum model_type types[] = { MODEL_Q4_0, MODEL_Q4_1, MODEL_Q5_0, MODEL_Q5_1,
                                             MODEL_Q8_0, MODEL_Q4_K, MODEL_Q5_K, MODEL_Q6_K };
    static const int fills[] = { 0x00, 0xFF, 0x7F, 0x80 };
    struct rng rng;

    (void)state;
    rng_init(&rng, seed);
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        for (size_t k = 0; k < 4; k++) {
            check_extremes(&rng, types[i], fills[k], 127);
            check_extremes(&rng, types[i], fills[k], -127);
        }
    }
}

/* ---- rows ---- */

enum { ROW_MAX = 640 };

static void fill_row(struct rng *rng, float *x, uint32_t n)
{
    const float range = (float)rng_between(rng, 1, 40);
    for (uint32_t i = 0; i < n; i++)
        x[i] = random_float(rng, range);
}

static void check_row_kernels(struct rng *rng, const struct kernels *k, uint32_t n)
{
    float x[ROW_MAX], y[ROW_MAX], a[ROW_MAX], b[ROW_MAX];
    const size_t size = n * sizeof(float);

    fill_row(rng, x, n);
    fill_row(rng, y, n);
    kernels_portable.rmsnorm(x, y, n, 1e-5f, a);
    k->rmsnorm(x, y, n, 1e-5f, b);
    assert_memory_equal(a, b, size);
    memcpy(b, x, size);
    k->rmsnorm(b, y, n, 1e-5f, b);
    assert_memory_equal(a, b, size);

    memcpy(a, x, size);
    memcpy(b, x, size);
    kernels_portable.add(a, y, n);
    k->add(b, y, n);
    assert_memory_equal(a, b, size);
    kernels_portable.silu_mul(a, y, n);
    k->silu_mul(b, y, n);
    assert_memory_equal(a, b, size);
    kernels_portable.gelu_mul(a, y, n);
    k->gelu_mul(b, y, n);
    assert_memory_equal(a, b, size);
    kernels_portable.rope(a, y, n / 2 * 2);
    k->rope(b, y, n / 2 * 2);
    assert_memory_equal(a, b, size);

    uint16_t half_a[ROW_MAX], half_b[ROW_MAX];
    x[0] = 65519.9f;
    x[n / 2] = 1e-7f;
    x[n - 1] = -70000.0f;
    kernels_portable.to_half(x, half_a, n);
    k->to_half(x, half_b, n);
    assert_memory_equal(half_a, half_b, n * sizeof(uint16_t));
}

static void check_quantize(struct rng *rng, const struct kernels *k, uint32_t blocks)
{
    float x[ROW_MAX], d[2][ROW_MAX / 32], ds[2][ROW_MAX / 32];
    int8_t q[2][ROW_MAX];
    int32_t sum[2][ROW_MAX / 32];
    const uint32_t n = blocks * QUANT_BLOCK;

    fill_row(rng, x, n);
    if (rng_below(rng, 4) == 0) memset(x, 0, QUANT_BLOCK * sizeof(float));
    kernels_portable.quantize(x, n, q[0], d[0], ds[0], sum[0]);
    k->quantize(x, n, q[1], d[1], ds[1], sum[1]);
    assert_memory_equal(q[0], q[1], n);
    assert_memory_equal(d[0], d[1], blocks * sizeof(float));
    assert_memory_equal(ds[0], ds[1], blocks * sizeof(float));
    assert_memory_equal(sum[0], sum[1], blocks * sizeof(int32_t));
    for (uint32_t i = 0; i < n; i++) {
        const float back = (float)q[0][i] * d[0][i / 32];
        assert_true(fabsf(back - x[i]) <= d[0][i / 32] * 0.5001f);
    }
}

static void rows_equal_reference(void **state)
{
    struct rng rng;

    (void)state;
    rng_init(&rng, seed);
    for (const struct kernels *const *k = vector_kernels(); *k != NULL; k++) {
        for (uint32_t n = 2; n <= 70; n++)
            check_row_kernels(&rng, *k, n);
        check_row_kernels(&rng, *k, 576);
        for (uint32_t blocks = 1; blocks <= 20; blocks++)
            check_quantize(&rng, *k, blocks);
    }
}

static void exp_and_half_are_right(void **state)
{
    (void)state;
    for (float x = -86.9f; x < 87.9f; x += 0.0137f) {
        const double exact = exp((double)x);
        assert_true(fabs((double)scalar_exp(x) - exact) <= 3e-7 * exact);
    }
    assert_true(scalar_exp(0.0f) == 1.0f);
    assert_true(scalar_exp(-INFINITY) == 0.0f);
    for (uint32_t half = 0; half < 0x10000; half++) {
        const float value = half_to_float((uint16_t)half);
        if (isnan(value)) continue;
        assert_int_equal(half_from_float(value), half);
        /* Halfway to the next one goes to the even one. */
        const float next = half_to_float((uint16_t)(half + 1));
        if ((half & 0x7FFF) >= 0x7BFF || isnan(next)) continue;
        assert_int_equal(half_from_float((value + next) / 2), half + (half & 1));
    }
}

/* ---- attention ---- */

struct kv {
    enum engine_kv type;
    uint32_t token_size;
    uint8_t *slab;
    size_t page_size;
    uint32_t block_tokens;
    uint32_t pages[64];
};

static struct kv random_kv(struct rng *rng, enum engine_kv type, uint32_t head_dim, uint32_t tokens)
{
    struct kv kv = { .type = type,
                     .token_size = (uint32_t)attend_token_size(type, head_dim),
                     .block_tokens = 16u << rng_below(rng, 3) };
    const uint32_t pages = (tokens + kv.block_tokens - 1) / kv.block_tokens;
    float values[256];

    kv.page_size = (size_t)2 * kv.block_tokens * kv.token_size;
    kv.slab = aligned(kv.page_size * pages); /* stale slots are NaN */
    for (uint32_t i = 0; i < pages; i++)
        kv.pages[i] = pages - 1 - i;
    for (uint32_t t = 0; t < 2 * tokens; t++) {
        const size_t slot = t % 2 * kv.block_tokens + t / 2 % kv.block_tokens;
        for (uint32_t i = 0; i < head_dim; i++)
            values[i] = random_float(rng, 2.0f);
        attend_pack_kv(&kernels_portable, type, values, head_dim,
                       kv.slab + kv.pages[t / 2 / kv.block_tokens] * kv.page_size +
                           slot * kv.token_size);
    }
    return kv;
}

static float *attend(const struct kernels *k, const struct kv *kv, uint32_t head_dim,
                     const float *q, const uint32_t *starts, const uint32_t *ends, uint32_t queries)
{
    float *out = aligned((size_t)queries * head_dim * sizeof(float));
    float *scratch = aligned(attend_scratch_floats(head_dim) * sizeof(float));
    const struct attend job = {
        .q = q,
        .starts = starts,
        .ends = ends,
        .queries = queries,
        .head_dim = head_dim,
        .kv = kv->type,
        .token_size = kv->token_size,
        .slab = kv->slab,
        .page_size = kv->page_size,
        .k_offset = 0,
        .v_offset = (size_t)kv->block_tokens * kv->token_size,
        .pages = kv->pages,
        .block_tokens = kv->block_tokens,
        .scratch = scratch,
        .out = out,
    };
    k->attend(&job);
    free(scratch);
    return out;
}

static double kv_value(const struct kv *kv, uint32_t part, uint32_t t, uint32_t i)
{
    const size_t row = (size_t)part * kv->block_tokens + t % kv->block_tokens;
    const uint8_t *token =
        kv->slab + kv->pages[t / kv->block_tokens] * kv->page_size + row * kv->token_size;
    uint16_t half;

    if (kv->type == ENGINE_KV_F16) {
        memcpy(&half, token + (size_t)i * 2, 2);
        return (double)half_to_float(half);
    }
    memcpy(&half, token + (size_t)(i / 32) * 34, 2);
    return (double)half_to_float(half) * (int8_t)token[(size_t)(i / 32) * 34 + 2 + i % 32];
}

static void check_exact_attention(const struct kv *kv, uint32_t head_dim, const float *q,
                                  uint32_t start, uint32_t end, const float *got)
{
    double weight[512], total = 0, most = -INFINITY;

    for (uint32_t t = start; t < end; t++) {
        weight[t] = 0;
        for (uint32_t i = 0; i < head_dim; i++) {
            weight[t] += (double)q[i] * kv_value(kv, 0, t, i);
        }
        most = fmax(most, weight[t]);
    }
    for (uint32_t t = start; t < end; t++)
        total += weight[t] = exp(weight[t] - most);
    for (uint32_t i = 0; i < head_dim; i++) {
        double sum = 0;
        for (uint32_t t = start; t < end; t++) {
            sum += weight[t] / total * kv_value(kv, 1, t, i);
        }
        assert_true(fabs(sum - (double)got[i]) <= 2e-5);
    }
}

static void check_attention(struct rng *rng, enum engine_kv type, uint32_t head_dim)
{
    const uint32_t tokens = (uint32_t)rng_between(rng, 1, 300);
    const uint32_t queries = (uint32_t)rng_between(rng, 1, 20);
    struct kv kv = random_kv(rng, type, head_dim, tokens);
    float *q = aligned((size_t)queries * head_dim * sizeof(float));
    const uint32_t window = rng_below(rng, 2) ? tokens : (uint32_t)rng_between(rng, 1, tokens);
    uint32_t starts[20], ends[20];

    for (uint32_t i = 0; i < queries * head_dim; i++)
        q[i] = random_float(rng, 0.5f);
    for (uint32_t i = 0; i < queries; i++) {
        const uint32_t back = (queries - 1 - i) / 3;
        ends[i] = tokens > back ? tokens - back : 1;
        starts[i] = ends[i] > window ? ends[i] - window : 0;
    }
    float *expected = attend(&kernels_portable, &kv, head_dim, q, starts, ends, queries);
    check_exact_attention(&kv, head_dim, q, starts[0], ends[0], expected);
    for (const struct kernels *const *k = vector_kernels(); *k != NULL; k++) {
        float *got = attend(*k, &kv, head_dim, q, starts, ends, queries);
        assert_memory_equal(got, expected, (size_t)queries * head_dim * sizeof(float));
        /* A query alone is the same as a query among others. */
        float *alone = attend(*k, &kv, head_dim, q, starts, ends, 1);
        assert_memory_equal(alone, expected, head_dim * sizeof(float));
        free(alone);
        free(got);
    }
    free(expected);
    free(q);
    free(kv.slab);
}

/* The bytes are the same whatever the ISA, and no value is further off than half a step and what
 * rounding the step adds; zeros, and values too small for a half, too. */
static void kv_is_packed_within_half_a_step(void **state)
{
    struct rng rng;

    (void)state;
    rng_init(&rng, seed);
    for (int round = 0; round < 200; round++) {
        const float size = round == 0 ? 0 : ldexpf(1, (int)rng_between(&rng, 0, 20) - 16);
        float x[64];
        uint8_t expected[68], got[68];
        for (int i = 0; i < 64; i++)
            x[i] = random_float(&rng, size);
        attend_pack_kv(&kernels_portable, ENGINE_KV_Q8_0, x, 64, expected);
        for (const struct kernels *const *k = vector_kernels(); *k != NULL; k++) {
            attend_pack_kv(*k, ENGINE_KV_Q8_0, x, 64, got);
            assert_memory_equal(got, expected, sizeof(got));
        }
        for (int i = 0; i < 64; i++) {
            const uint8_t *block = expected + i / 32 * 34;
            uint16_t half;
            memcpy(&half, block, sizeof(half));
            const float d = half_to_float(half), value = d * (float)(int8_t)block[2 + i % 32];
            const float step = size / 127;
            assert_true(fabsf(value - x[i]) <= 0.5f * step + 127 * (step / 2048 + 0x1p-25f));
        }
    }
}

static void attention_equals_reference(void **state)
{
    struct rng rng;

    (void)state;
    rng_init(&rng, seed);
    for (int i = 0; i < 40; i++) {
        check_attention(&rng, ENGINE_KV_F16, 16 * (uint32_t)rng_between(&rng, 1, 8));
        check_attention(&rng, ENGINE_KV_Q8_0, 32 * (uint32_t)rng_between(&rng, 1, 4));
    }
}

/* ---- pool ---- */

enum { POOL_TASKS = 1000 };

static void count_task(void *ctx, uint32_t task, uint32_t thread)
{
    uint32_t *counts = ctx;
    assert_true(thread < 4);
    counts[task]++;
}

static void pool_runs_each_task_once(void **state)
{
    struct pool *pool = NULL;
    static uint32_t counts[POOL_TASKS];

    (void)state;
    for (uint32_t threads = 1; threads <= 4; threads++) {
        assert_int_equal(cpu_pool_create(threads, &pool), STATUS_OK);
        assert_int_equal(pool_threads(pool), threads);
        memset(counts, 0, sizeof(counts));
        uint32_t expected[POOL_TASKS] = { 0 };
        for (uint32_t loop = 0; loop < 2000; loop++) {
            const uint32_t tasks = loop % 50 == 0 ? POOL_TASKS : loop % 7;
            pool_run(pool, count_task, counts, tasks);
            for (uint32_t i = 0; i < tasks; i++)
                expected[i]++;
        }
        assert_memory_equal(counts, expected, sizeof(counts));
        cpu_pool_destroy(pool);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exp_and_half_are_right),
        cmocka_unit_test(rows_equal_reference),
        cmocka_unit_test(products_equal_reference),
        cmocka_unit_test(products_do_not_saturate),
        cmocka_unit_test(attention_equals_reference),
        cmocka_unit_test(kv_is_packed_within_half_a_step),
        cmocka_unit_test(pool_runs_each_task_once),
    };

    seed = test_seed();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
