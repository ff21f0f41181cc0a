/* SPDX-License-Identifier: Apache-2.0
 *
 * infer/cpu/kernels.h - the arithmetic of the engine, one table of functions for each ISA class.
 *
 * kernel_ref.c says in plain C what each kernel computes: operation by operation, in which order.
 * kernel_avx2.c and kernel_avx512.c do the same operations, many lanes at a time, and give the same
 * bits: every sum below has one fixed order, every a * b + c that is written "fma" is rounded once,
 * and nothing else is contracted. So row invariance needs no care in the engine: it may cut rows,
 * columns and tasks as it likes.
 *
 * Matrix product. Weights are packed in tiles of MATRIX_TILE output rows, lanes = output rows, so
 * that one load serves sixteen outputs and no lane is ever summed across. Activations meet
 * quantized weights as 8-bit integers: blocks of 32 with one scale, integer sums exact. For one
 * output
 *
 *     acc = 0
 *     for each block b in order:
 *         acc = fma(float(sum of w_q * x_q), d_w * d_x, acc)
 *         acc = fma(m_w, d_x * float(sum of x_q), acc)         types with a minimum only
 *
 * where w_q is the signed weight for Q8_0, Q5_0, Q4_0, the unsigned one for types with a minimum
 * (Q4_1, Q5_1, Q4_K, Q5_K). Types of 256 with parts of 32 (struct quant_part) have
 *
 *     d_w = d * part[0],  m_w = -m * part[1]                             Q4_K, Q5_K; exact products
 *     acc = fma(float(part[0] * (sum of w_q * x_q over the first sixteen)
 *                   + part[1] * (the same over the others)), d * d_x, acc)        Q6_K; exact sum
 *
 * and for F16, BF16 and F32 weights acc = fma(w[k], x[k], acc) for each k in order.
 *
 * Packed tile (64-byte aligned, stride a multiple of 64), in sections:
 *     scales      f16[groups][16]; groups of 8 blocks for *_K, of 1 block for the others
 *     mins        f16[groups][16], types with a minimum only; negated for *_K
 *     parts       u8[blocks][2][16], *_K only: part[0] and part[1]
 *     quants      [blocks][16 rows * size]
 * Q4_*        quants of a block: u8[4 groups][16 rows][4]; byte j of group g holds elements
 *             4g + j (low nibble) and 16 + 4g + j (high nibble)
 * the others  quants of a block: u8[8 groups][16 rows][4]: q of struct quant_part. Q5_0 is packed
 *             as Q8_0, whose scales it has: q - 16 + 128
 * F16, BF16, F32 have no sections: [k][16 rows]
 * Rows beyond the matrix are zero.
 *
 * KV of type Q8_0. A block of 32 is quantized as activations are; its scale is rounded to a half,
 * and what attention reads is that half times q: a product of 11 and 7 bits, exact.
 *
 * Attention. For one query: tokens in spans of ATTEND_SPAN, the first of which begins at a multiple
 * of ATTEND_SPAN; for each span, over the tokens of it that the query sees, the scores (fma over
 * the head dim in order), their maximum m', p = exp(s - m'), l' = the sum of p in 16 lanes (lane =
 * token % 16) added as a tree, o' = fma over tokens in order; then spans are merged in order:
 * m'' = max(m, m'),  a = exp(m - m''),  b = exp(m' - m''),  l = fma(l', b, l * a), o likewise.
 *
 * Threads: kernels are pure functions of their arguments. */
#ifndef INFER_CPU_KERNELS_H
#define INFER_CPU_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "infer/engine.h"
#include "model/model.h"

enum {
    MATRIX_TILE = 16,
    QUANT_BLOCK = 32,
    ATTEND_SPAN = 64,
    ATTEND_QUERIES_MAX = 128,
    VALUE_QUERIES_MAX = 16, /* most that an ISA takes at a time when it sums values */
    KERNEL_ALIGN = 64,
    KV_BLOCK_SIZE = 2 + QUANT_BLOCK, /* bytes, of KV of type Q8_0 */
};

struct matrix {
    enum model_type type; /* as packed */
    uint32_t rows;        /* outputs */
    uint32_t cols;        /* inputs */
    uint32_t tiles;       /* rows / MATRIX_TILE, rounded up */
    size_t tile_size;
    uint8_t *data;

    /* halves > 0: the first `halves` rows of each head of head_dim are taken from the tensor as 0,
     * halves / 2, 1, halves / 2 + 1, ... so that what is rotated together is adjacent. */
    uint32_t head_dim, halves;
};

/* Rows of activations, as floats and (where weights are quantized) as blocks. Row r is at x + r *
 * stride, q + r * stride; its block b at index r * blocks + b of the others. */
struct activations {
    float *x;
    int8_t *q;
    float *d;     /* scale */
    float *ds;    /* scale * sum of q */
    int32_t *sum; /* -128 * sum of q: what the offset of Q8_0 adds too much; 1/16 of it for Q4_0 */
    uint32_t stride; /* of x */
    uint32_t blocks; /* capacity of a row in blocks */
};

/* One kv head, and queries of one sequence that use it. Query i sees tokens [starts[i], ends[i]),
 * at least one; neither ever decreases. */
struct attend {
    const float *q; /* [queries][head_dim], scaled */
    const uint32_t *starts;
    const uint32_t *ends;
    uint32_t queries; /* 1..ATTEND_QUERIES_MAX */
    uint32_t head_dim;
    enum engine_kv kv;
    uint32_t token_size; /* attend_token_size() */
    const uint8_t *slab;
    size_t page_size;
    size_t k_offset; /* of this layer's and head's K within a page */
    size_t v_offset;
    const uint32_t *pages;
    uint32_t block_tokens;
    float *scratch; /* attend_scratch_floats() floats, aligned */
    float *out;     /* [queries][head_dim] */
};

struct kernels {
    enum engine_isa isa;

    /* n is a multiple of QUANT_BLOCK. d = max|x| / 127; q = x * (127 / max|x|) to nearest even. */
    void (*quantize)(const float *x, uint32_t n, int8_t *q, float *d, float *ds, int32_t *sum);

    /* One tile of w times `rows` rows of a, from row0: out[i][0..15] for row row0 + i. */
    void (*matmul)(const struct matrix *w, uint32_t tile, const struct activations *a,
                   uint32_t row0, uint32_t rows, float *const *out);

    /* out = x * (1 / sqrt(sum(x * x) / n + eps)) * w; the sum in 16 lanes, then as a tree. `out`
     * may be x. */
    void (*rmsnorm)(const float *x, const float *w, uint32_t n, float eps, float *out);

    /* x += y. */
    void (*add)(float *x, const float *y, uint32_t n);

    /* gate = gate / (1 + exp(-gate)) * up. */
    void (*silu_mul)(float *gate, const float *up, uint32_t n);

    /* gate = gate / (1 + exp(-t)) * up, t = gate * fma(gate * gate, GELU_CUBE, GELU_LINE): GELU by
     * tanh's approximation, written with exp. */
    void (*gelu_mul)(float *gate, const float *up, uint32_t n);

    /* Rotates adjacent pairs of one head; cs holds cos, sin for each pair. */
    void (*rope)(float *x, const float *cs, uint32_t dims);

    /* IEEE half, to nearest even. */
    void (*to_half)(const float *x, uint16_t *out, uint32_t n);

    void (*attend)(const struct attend *job);
};

/* 2 sqrt(2 / pi), and 0.044715 times it. */
#define GELU_LINE 1.5957691216057308f
#define GELU_CUBE 0.07135481282785745f

extern const struct kernels kernels_portable;
#if defined(__x86_64__)
extern const struct kernels kernels_avx2;
extern const struct kernels kernels_avx512;
#endif

/* The table for an ISA that this CPU supports (AUTO: the best); NULL otherwise. */
const struct kernels *kernels_select(enum engine_isa isa);

size_t attend_scratch_floats(uint32_t head_dim);

/* Bytes of K, or V, of one head of one token; for Q8_0 head_dim is a multiple of QUANT_BLOCK. */
size_t attend_token_size(enum engine_kv kv, uint32_t head_dim);
/* K, or V, of one head as pages have it. The same bytes whatever the ISA. */
void attend_pack_kv(const struct kernels *kernels, enum engine_kv kv, const float *x,
                    uint32_t head_dim, uint8_t *out);

/* Where the sections of a packed tile begin, for a quantized type. */
struct tile_sections {
    size_t mins, parts, quants;
    size_t quants_size; /* of a block */
    size_t size;        /* of them all */
};
struct tile_sections tile_sections(enum model_type type, uint32_t blocks);

/* True for matrices that meet 8-bit activations. */
bool matrix_is_quantized(const struct matrix *matrix);

/* The shape of `tensor` when packed, as it is or (`expand`) as F32; data stays NULL.
 * STATUS_UNSUPPORTED for another type. */
MUST_USE enum status matrix_init(struct matrix *matrix, const struct model_tensor *tensor,
                                 bool expand);

/* Fills tiles [first, last) of matrix->data. Tiles may be packed by several threads. */
void matrix_pack(const struct matrix *matrix, const struct model_tensor *tensor, uint32_t first,
                 uint32_t last);

/* Row `row` of a tensor as floats: out[0..ne[0]). For embeddings and norms. */
void matrix_unpack_row(const struct model_tensor *tensor, uint32_t row, float *out);

/* Which row of the tensor is row `row` of the matrix: see `halves`. */
uint32_t matrix_source_row(const struct matrix *matrix, uint32_t row);

#endif
