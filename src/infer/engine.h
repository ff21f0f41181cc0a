/* SPDX-License-Identifier: Apache-2.0
 *
 * infer/engine.h - runs a model over paged KV: prefill chunks and decode rows in one step.
 *
 * The engine computes; it does not schedule and it does not allocate KV. The caller owns a slab of
 * equally sized pages (on a node: the segment that the pool serves from) and gives, for each
 * sequence, the list of pages that hold its tokens. A step takes several sequences at once, each
 * with one or more new tokens: that is continuous batching and chunked prefill in one call.
 *
 * Row invariance: within one ISA class the KV and the logits of a token are bitwise equal whatever
 * the batch, the chunking, the number of threads, prefill or decode, computed here or loaded from a
 * page that another engine of the same layout id wrote. Caches and retries rest on this.
 *
 * Page of block_tokens tokens, native (little-endian) order:
 *
 *     layer 0 | layer 1 | ... | zero padding to a multiple of ENGINE_PAGE_ALIGN
 *     layer  = K, then V;  each [kv head][token][token_size bytes]
 *     token  = F16: head_dim IEEE halves
 *              Q8_0: for each 32 of head_dim, a half d and 32 signed bytes q: the values are d * q
 *
 * so one layer of one page is one contiguous range: layer_size bytes at layer * layer_size. Token t
 * of a sequence is slot t % block_tokens of page table entry t / block_tokens. K is stored after
 * RoPE. Slots that no token has reached are never read into a result, whatever bytes they hold.
 *
 * A step may stop at a layer and go on in another engine of the same layout: struct engine_part.
 * The residual stream is passed as it is, in F32, so that a cut changes no bit either.
 *
 * Memory:  everything is allocated by engine_create(), including a copy of the weight matrices in
 *          the order the kernels read them; engine_step() allocates nothing.
 * Threads: an engine belongs to one thread at a time: the one that calls engine_step(). It owns a
 *          pool of threads - 1 further compute threads, asleep between steps. Hooks run on the
 *          calling thread.
 * Limits:  ENGINE_ITEMS_MAX items and ENGINE_ROWS_MAX new tokens a step. */
#ifndef INFER_ENGINE_H
#define INFER_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

struct model;
struct engine; /* opaque */

enum {
    ENGINE_ROWS_MAX = 512,
    ENGINE_ITEMS_MAX = ENGINE_ROWS_MAX,
    ENGINE_THREADS_MAX = 256,
    ENGINE_PAGE_ALIGN = 4096,
    ENGINE_BLOCK_TOKENS_MIN = 16,
    ENGINE_BLOCK_TOKENS_MAX = 512,
    ENGINE_BLOCK_TOKENS_DEFAULT = 32,
};

/* The instruction sets that kernels exist for. AUTO is the best one that this CPU has. */
enum engine_isa {
    ENGINE_ISA_AUTO = 0,
    ENGINE_ISA_PORTABLE,
    ENGINE_ISA_AVX2,   /* AVX2, FMA, F16C */
    ENGINE_ISA_AVX512, /* AVX-512 F, BW, VL, DQ, VNNI */
};

/* "auto", "portable", "avx2", "avx512": the values of --isa and YOLK_ISA. */
const char *engine_isa_name(enum engine_isa isa);
/* STATUS_INVALID for another word. */
MUST_USE enum status engine_isa_parse(const char *text, enum engine_isa *out);
bool engine_isa_supported(enum engine_isa isa);

/* What elements of K and V are in pages. Q8_0 takes 17/32 of the memory, and its KV is another one:
 * pages of different types never meet (the layout's id differs). */
enum engine_kv {
    ENGINE_KV_F16 = 0,
    ENGINE_KV_Q8_0,
};
const char *engine_kv_name(enum engine_kv kv); /* "f16", "q8_0": the values of --kv-type */

/* What two nodes must have in common to exchange pages, and what a pool needs to size itself. */
struct engine_layout {
    uint32_t block_tokens;
    uint32_t n_layers;
    uint32_t kv_heads;
    uint32_t head_dim;
    enum engine_kv kv;
    uint32_t token_size;  /* bytes of K, or V, of one head of one token */
    uint64_t layer_size;  /* of one layer of one page: 2 * kv_heads * block_tokens * token_size */
    uint64_t page_size;   /* n_layers * layer_size, rounded up to ENGINE_PAGE_ALIGN */
    enum engine_isa isa;  /* resolved: never AUTO */
    const char *isa_name; /* static: the ISA class that goes into the model fingerprint */
    char id[64]; /* such as "lm-f16-l30-h3-d64-t32": layout and element type, for the keys */
};

struct engine_options {
    uint32_t threads;      /* compute threads including the caller; 0: one per CPU we may run on */
    uint32_t block_tokens; /* 0: ENGINE_BLOCK_TOKENS_DEFAULT */
    enum engine_isa isa;   /* ENGINE_ISA_AUTO unless the user insists */
    enum engine_kv kv;
    uint32_t context_max; /* longest sequence in tokens; 0: what the model was trained for */
    bool exact;           /* weights expanded to F32, activations not quantized: several times the
                            * memory and time. A yardstick: its pages are for itself alone */
    uint8_t *pages;       /* base of the slab, aligned to 64 bytes; borrowed until destroy */
    uint32_t pages_count; /* pages of layout.page_size bytes in it */
};

/* The layout an engine with these options would have, without creating one; threads and pages are
 * not looked at. STATUS_INVALID for a block_tokens that is not a power of two in range,
 * STATUS_UNSUPPORTED for an ISA that this CPU lacks, and for heads that do not divide into the
 * blocks of the KV's type. */
MUST_USE enum status engine_layout_query(const struct model *model,
                                         const struct engine_options *options,
                                         struct engine_layout *out, struct errmsg *err);

/* `model` and the slab are borrowed and must outlive the engine. STATUS_INVALID for options out of
 * range or a model whose shapes do not fit together, STATUS_UNSUPPORTED for an element type or an
 * ISA that we have no kernel for, STATUS_NO_MEMORY. On failure *out is untouched. */
MUST_USE enum status engine_create(const struct model *model, const struct engine_options *options,
                                   struct engine **out, struct errmsg *err);
void engine_destroy(struct engine *engine); /* NULL is allowed */

const struct engine_layout *engine_layout(const struct engine *engine);
uint32_t engine_context_max(const struct engine *engine);
uint32_t engine_vocab_size(const struct engine *engine);
uint32_t engine_threads(const struct engine *engine);
/* Floats of one row of the residual stream: what passes from one part of the layers to the next. */
uint32_t engine_hidden_size(const struct engine *engine);

/* New tokens of one sequence. Tokens 0..position-1 must already be in the pages (or be there, layer
 * by layer, when before_layer returns). No two items of a step may write the same page. */
struct engine_item {
    const uint32_t *pages; /* page table of the sequence: indices into the slab */
    uint32_t pages_count;  /* entries in it; must cover position + tokens_count tokens */
    uint32_t position;     /* of tokens[0] */
    const uint32_t *tokens;
    uint32_t tokens_count; /* at least 1 */
    float *logits;         /* out, or NULL: vocab_size floats for the last token */
    bool logits_all;       /* logits has tokens_count rows of vocab_size, one for each token */
};

/* NULL functions are skipped. before_layer may block until the prefix of that layer has arrived; if
 * it returns false the step ends there with STATUS_CANCELLED. When after_layer runs, that layer's
 * KV of all the step's tokens is in the pages and will not be written again by this step. */
struct engine_hooks {
    bool (*before_layer)(void *ctx, uint32_t layer);
    void (*after_layer)(void *ctx, uint32_t layer);
    void *ctx;
};

/* Computes one step; returns when it is done. `hooks` may be NULL. STATUS_INVALID, with nothing
 * written, for a token outside the vocabulary, a position beyond context_max, a page table that is
 * too short or names a page outside the slab, more than ENGINE_ROWS_MAX tokens, or no items.
 * STATUS_CANCELLED when a hook refused: pages of the step's own tokens are then undefined. */
MUST_USE enum status engine_step(struct engine *engine, const struct engine_item *items,
                                 uint32_t items_count, const struct engine_hooks *hooks);

/* Layers [first, last) of a step. Rows are those of the items, one item after the other, each of
 * engine_hidden_size() floats without gaps. */
struct engine_part {
    uint32_t first, last; /* first < last <= n_layers */
    const float *in;      /* rows as the layer before `first` left them; unused if first is 0 */
    float *out;           /* rows as layer last - 1 leaves them; unused if last is n_layers */
};

/* As engine_step() for these layers only: KV and hooks are theirs, tokens are looked at by the part
 * that has layer 0, logits are given by the part that has the last one. STATUS_INVALID also for
 * layers out of range, a missing `in` or `out`, or logits wanted of a part that does not end. */
MUST_USE enum status engine_step_part(struct engine *engine, const struct engine_item *items,
                                      uint32_t items_count, const struct engine_part *part,
                                      const struct engine_hooks *hooks);

#endif
