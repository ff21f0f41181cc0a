/* SPDX-License-Identifier: Apache-2.0
 *
 * model/tokenizer.c - byte-pair encoding, as GPT-2 began it and as SentencePiece does it.
 *
 * A word is a list of symbols; the pair of adjacent symbols with the lowest rank becomes one
 * symbol, the leftmost first among equals, until no pair has a rank. What differs:
 *
 *                    "gpt2"                               "llama" (SentencePiece)
 *     a word         what model/split.h cuts off          the whole text
 *     first symbols  its bytes                            its characters
 *     ranks          of pairs, the list of merges         of what a pair would be, by score
 *     a space is     "Ġ" in the vocabulary, like all      "▁"
 *                    bytes that do not print
 *     left over      nothing                              characters that are no token: their bytes
 *
 * The vocabulary's spelling is turned back into bytes once, at load.
 *
 * A word of n bytes costs O(n log n): symbols are a doubly linked list in arrays, candidate pairs a
 * binary heap of (rank << 32 | position). A merge changes two pairs and pushes both; entries that
 * no longer describe the list are recognised and skipped when popped.
 *
 * Words repeat: in a long text those of up to MEMO_BYTES bytes are merged once and remembered, in a
 * table where a word has one place and the last to come there has it.
 *
 * Added words (kind "user defined": tokens that were given to the model after its vocabulary was
 * learned, and are not special) are taken out of the text first, longest at each position.
 *
 * Invariants
 *   I1  Every merge joins two text tokens to a third whose bytes are theirs put together.
 *   I2  Special tokens are in no merge, in byte_tokens nowhere, and not in the tables of words and
 *       of added words: encoding cannot produce one.
 *   I3  While a word is merged, heap_len <= 2n: a merge pops one entry and pushes at most two. */
#include "model/tokenizer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/hash.h"
#include "model/gguf.h"
#include "model/split.h"
#include "base/utf8.h"

enum {
    VOCAB_MAX = 1 << 20,
    MERGES_MAX = 1 << 21,
    TOKEN_SIZE_MAX = 4096, /* bytes of one token */
    WORD_ON_STACK = 256,
    ADDED_LENS_MAX = 64,  /* different lengths of added words */
    ALPHABET = 324,       /* code points that stand for bytes are below this */
    MEMO_TEXT_MIN = 4096, /* bytes of a text in which words are remembered */
    MEMO_BYTES = 15,
    MEMO_TOKENS = 5,
    MEMO_TEXT_PER_SLOT = 16,
    MEMO_SLOTS_MAX = 1 << 14, /* 640 KiB: they should stay in a core's cache */
};

/* tokenizer.ggml.token_type */
enum token_kind {
    TOKEN_TEXT = 1,
    TOKEN_UNKNOWN = 2,
    TOKEN_CONTROL = 3,
    TOKEN_USER_DEFINED = 4, /* an added word: text as it is */
    TOKEN_UNUSED = 5,
    TOKEN_BYTE = 6, /* "<0x0A>": SentencePiece's way to write what has no token */
};

struct merge {
    uint32_t left;
    uint32_t right;
    uint32_t result;
};

/* Open addressing; TOKENIZER_NONE is free. At most half full. */
struct table {
    uint32_t *slots;
    uint32_t mask;
};

struct tokenizer {
    uint32_t vocab;
    uint32_t bos;
    uint32_t eos;
    bool adds_bos;
    bool whole_words;
    bool pieces;                       /* SentencePiece */
    bool adds_space;                   /* pieces: before a text */
    struct splitter *splitter;         /* not pieces */
    uint32_t *ranks;                   /* pieces: by token; equal scores have one rank */
    uint8_t *kinds;                    /* enum token_kind by token */
    bool *ends;                        /* by token */
    size_t *offsets;                   /* token i is bytes[offsets[i]..offsets[i + 1]) */
    char *bytes;                       /* of all tokens */
    struct table words;                /* text tokens by their bytes */
    struct table added;                /* added words by their bytes */
    size_t added_lens[ADDED_LENS_MAX]; /* their lengths, longest first */
    size_t added_lens_count;
    bool added_first[256]; /* bytes that an added word starts with */
    struct merge *merges;  /* by rank */
    uint32_t merges_count;
    struct table pairs;        /* ranks by (left, right) */
    uint32_t byte_tokens[256]; /* TOKENIZER_NONE where the vocabulary has none */
};

/* ---- the alphabet: code points that stand for bytes ---- */

/* Printable Latin-1 stands for itself; the other bytes, in order, are U+0100, U+0101, ... */
static void build_alphabet(int16_t byte_of[ALPHABET])
{
    int next = 256;

    memset(byte_of, -1, ALPHABET * sizeof(*byte_of));
    for (int byte = 0; byte < 256; byte++) {
        const bool itself = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte != 0xad);
        byte_of[itself ? byte : next++] = (int16_t)byte;
    }
    ASSERT(next == ALPHABET);
}

/* Decodes `text` into out (room for text.len); false if a character stands for no byte. */
static bool from_alphabet(const int16_t byte_of[ALPHABET], struct gguf_string text, char *out,
                          size_t *len)
{
    const uint8_t *in = (const uint8_t *)text.data;
    size_t written = 0;

    for (size_t i = 0; i < text.len; i++) {
        unsigned code = in[i];
        if (code >= 0x80) {
            if (code < 0xc2 || code > 0xc5 || i + 1 == text.len) return false;
            if ((in[i + 1] & 0xc0) != 0x80) return false;
            code = (code & 0x1f) << 6 | (in[++i] & 0x3fu);
        }
        if (code >= ALPHABET || byte_of[code] < 0) return false;
        out[written++] = (char)byte_of[code];
    }
    *len = written;
    return true;
}

/* ---- tables ---- */

static uint32_t table_size(uint32_t entries)
{
    uint32_t size = 16;

    while (size < entries * 2)
        size *= 2;
    return size;
}

static bool table_init(struct table *table, uint32_t entries)
{
    const uint32_t size = table_size(entries);

    table->slots = malloc(size * sizeof(*table->slots));
    if (table->slots == NULL) return false;
    memset(table->slots, 0xff, size * sizeof(*table->slots)); /* TOKENIZER_NONE */
    table->mask = size - 1;
    return true;
}

static bool token_equals(const struct tokenizer *t, uint32_t token, const char *data, size_t len)
{
    const size_t start = t->offsets[token];

    return t->offsets[token + 1] - start == len && memcmp(t->bytes + start, data, len) == 0;
}

/* The slot of the token with these bytes, or the free slot where it would be. */
static uint32_t *token_slot(const struct tokenizer *t, const struct table *table, const char *data,
                            size_t len)
{
    uint32_t at = (uint32_t)hash_xxh3(data, len) & table->mask;

    while (table->slots[at] != TOKENIZER_NONE && !token_equals(t, table->slots[at], data, len)) {
        at = (at + 1) & table->mask;
    }
    return &table->slots[at];
}

static uint32_t word_find(const struct tokenizer *t, const char *data, size_t len)
{
    return *token_slot(t, &t->words, data, len);
}

static uint32_t *pair_slot(const struct tokenizer *t, uint32_t left, uint32_t right)
{
    const uint64_t mixed = ((uint64_t)left << 32 | right) * UINT64_C(0x9e3779b97f4a7c15);
    uint32_t at = (uint32_t)(mixed >> 32) & t->pairs.mask;

    while (t->pairs.slots[at] != TOKENIZER_NONE) {
        const struct merge *merge = &t->merges[t->pairs.slots[at]];
        if (merge->left == left && merge->right == right) break;
        at = (at + 1) & t->pairs.mask;
    }
    return &t->pairs.slots[at];
}

/* The rank at which two symbols merge; TOKENIZER_NONE if they do not. */
static uint32_t pair_rank(const struct tokenizer *t, uint32_t left, uint32_t right)
{
    if (left == TOKENIZER_NONE || right == TOKENIZER_NONE) return TOKENIZER_NONE;
    return *pair_slot(t, left, right);
}

/* ---- loading ---- */

static bool is_text(uint8_t kind)
{
    return kind == TOKEN_TEXT;
}

/* What SentencePiece writes for a space: U+2581. */
static const char PIECE_SPACE[] = "\xe2\x96\x81";
enum { PIECE_SPACE_SIZE = sizeof(PIECE_SPACE) - 1 };

/* Copies text with spaces for U+2581; returns the length. */
static size_t with_spaces(const char *text, size_t len, char *out)
{
    size_t written = 0;

    for (size_t i = 0; i < len; i++) {
        const bool space =
            len - i >= PIECE_SPACE_SIZE && memcmp(text + i, PIECE_SPACE, PIECE_SPACE_SIZE) == 0;
        out[written++] = space ? ' ' : text[i];
        if (space) i += PIECE_SPACE_SIZE - 1;
    }
    return written;
}

static enum status no_memory(struct errmsg *err)
{
    return errmsg_set(err, STATUS_NO_MEMORY, "no memory for the tokenizer");
}

static enum status required_array(const struct gguf *gguf, const char *key, enum gguf_kind kind,
                                  uint64_t count_max, struct gguf_array *out, struct errmsg *err)
{
    enum status status = gguf_get_array(gguf, key, kind, out, err);

    if (status == STATUS_NOT_FOUND) {
        return errmsg_set(err, STATUS_INVALID, "the model has no key %s", key);
    }
    if (status == STATUS_OK && out->count > count_max) {
        return errmsg_set(err, STATUS_FULL, "key %s has %llu elements, at most %llu", key,
                          (unsigned long long)out->count, (unsigned long long)count_max);
    }
    return status;
}

static enum status load_kinds(struct tokenizer *t, const struct gguf *gguf, struct errmsg *err)
{
    struct gguf_array kinds;

    enum status status =
        required_array(gguf, "tokenizer.ggml.token_type", GGUF_I32, VOCAB_MAX, &kinds, err);
    if (status != STATUS_OK) return status;
    if (kinds.count != t->vocab) {
        return errmsg_set(err, STATUS_INVALID,
                          "key tokenizer.ggml.token_type has %llu elements for %u tokens",
                          (unsigned long long)kinds.count, t->vocab);
    }
    for (uint32_t i = 0; i < t->vocab; i++) {
        const uint32_t kind = gguf_array_u32(&kinds, i);
        const uint32_t last = t->pieces ? TOKEN_BYTE : TOKEN_UNUSED;
        if (kind < TOKEN_TEXT || kind > last) {
            return errmsg_set(err, STATUS_INVALID, "token %u is of kind %u, expected %d to %u", i,
                              kind, TOKEN_TEXT, last);
        }
        t->kinds[i] = (uint8_t)kind;
    }
    return STATUS_OK;
}

/* "<0x0A>" */
static enum status load_byte(struct tokenizer *t, uint32_t token, struct gguf_string text,
                             struct errmsg *err)
{
    unsigned byte = 0;
    char copy[7] = "";

    if (text.len == 6) memcpy(copy, text.data, 6);
    if (text.len != 6 || sscanf(copy, "<0x%02X>", &byte) != 1 || copy[5] != '>') {
        return errmsg_set(err, STATUS_INVALID, "token %u (\"%s\") is not a byte", token,
                          gguf_show(text).text);
    }
    t->bytes[t->offsets[token]] = (char)byte;
    t->offsets[token + 1] = t->offsets[token] + 1;
    if (t->byte_tokens[byte] == TOKENIZER_NONE) t->byte_tokens[byte] = token;
    return STATUS_OK;
}

static enum status load_token(struct tokenizer *t, uint32_t token, struct gguf_string text,
                              const int16_t *byte_of, struct errmsg *err)
{
    char *out = t->bytes + t->offsets[token];
    size_t len = text.len;

    if (text.len == 0 || text.len > TOKEN_SIZE_MAX) {
        return errmsg_set(err, STATUS_INVALID, "token %u has %zu bytes, expected 1 to %d", token,
                          text.len, TOKEN_SIZE_MAX);
    }
    if (t->kinds[token] == TOKEN_BYTE) return load_byte(t, token, text, err);
    if (!is_text(t->kinds[token])) {
        memcpy(out, text.data, text.len);
    } else if (t->pieces) {
        len = with_spaces(text.data, text.len, out);
    } else if (!from_alphabet(byte_of, text, out, &len)) {
        return errmsg_set(err, STATUS_INVALID, "token %u (\"%s\") is not byte-level text", token,
                          gguf_show(text).text);
    }
    t->offsets[token + 1] = t->offsets[token] + len;
    if (!is_text(t->kinds[token])) return STATUS_OK; /* I2 */

    uint32_t *slot = token_slot(t, &t->words, out, len);
    if (*slot == TOKENIZER_NONE) *slot = token; /* the first of equals counts */
    if (len == 1 && !t->pieces) t->byte_tokens[(uint8_t)out[0]] = *slot;
    return STATUS_OK;
}

static enum status load_tokens(struct tokenizer *t, const struct gguf *gguf, struct errmsg *err)
{
    int16_t byte_of[ALPHABET];
    struct gguf_array tokens;
    struct gguf_string text;
    size_t cursor = 0;

    enum status status =
        required_array(gguf, "tokenizer.ggml.tokens", GGUF_STRING, VOCAB_MAX, &tokens, err);
    if (status != STATUS_OK) return status;
    t->vocab = (uint32_t)tokens.count;
    t->kinds = calloc(t->vocab + 1, sizeof(*t->kinds));
    t->ends = calloc(t->vocab + 1, sizeof(*t->ends));
    t->offsets = calloc(t->vocab + 1, sizeof(*t->offsets));
    t->bytes = malloc(tokens.size + 1);
    if (t->kinds == NULL || t->ends == NULL || t->offsets == NULL) return no_memory(err);
    if (t->bytes == NULL || !table_init(&t->words, t->vocab)) return no_memory(err);
    status = load_kinds(t, gguf, err);
    if (status != STATUS_OK) return status;

    build_alphabet(byte_of);
    memset(t->byte_tokens, 0xff, sizeof(t->byte_tokens)); /* TOKENIZER_NONE */
    for (uint32_t i = 0; gguf_array_next_string(&tokens, &cursor, &text); i++) {
        status = load_token(t, i, text, byte_of, err);
        if (status != STATUS_OK) return status;
    }
    return STATUS_OK;
}

/* ---- loading: SentencePiece ---- */

struct scored {
    float score;
    uint32_t token;
};

static int by_score(const void *a, const void *b)
{
    const struct scored *one = a, *other = b;

    return (one->score < other->score) - (one->score > other->score);
}

/* The higher the score, the lower the rank. */
static enum status load_ranks(struct tokenizer *t, const struct gguf *gguf, struct errmsg *err)
{
    struct gguf_array scores;

    enum status status =
        required_array(gguf, "tokenizer.ggml.scores", GGUF_F32, VOCAB_MAX, &scores, err);
    if (status != STATUS_OK) return status;
    if (scores.count != t->vocab) {
        return errmsg_set(err, STATUS_INVALID,
                          "key tokenizer.ggml.scores has %llu elements for %u tokens",
                          (unsigned long long)scores.count, t->vocab);
    }
    struct scored *sorted = calloc(t->vocab + 1, sizeof(*sorted));
    t->ranks = calloc(t->vocab + 1, sizeof(*t->ranks));
    if (sorted == NULL || t->ranks == NULL) {
        free(sorted);
        return no_memory(err);
    }
    for (uint32_t i = 0; i < t->vocab && status == STATUS_OK; i++) {
        sorted[i] = (struct scored){ gguf_array_f32(&scores, i), i };
        if (isnan(sorted[i].score)) {
            status = errmsg_set(err, STATUS_INVALID, "the score of token %u is not a number", i);
        }
    }
    if (status == STATUS_OK) qsort(sorted, t->vocab, sizeof(*sorted), by_score);
    for (uint32_t i = 0, rank = 0; i < t->vocab && status == STATUS_OK; i++) {
        rank += i > 0 && sorted[i].score < sorted[i - 1].score;
        t->ranks[sorted[i].token] = rank;
    }
    free(sorted);
    return status;
}

static enum status load_pieces(struct tokenizer *t, const struct gguf *gguf, struct errmsg *err)
{
    for (int byte = 0; byte < 256; byte++) {
        if (t->byte_tokens[byte] != TOKENIZER_NONE) continue;
        return errmsg_set(err, STATUS_UNSUPPORTED,
                          "the vocabulary has no token <0x%02X>: text "
                          "without a token could not be written",
                          (unsigned)byte);
    }
    t->adds_space = true;
    enum status status =
        gguf_get_bool(gguf, "tokenizer.ggml.add_space_prefix", &t->adds_space, err);
    return status == STATUS_INVALID ? status : load_ranks(t, gguf, err);
}

/* ---- loading: merges ---- */

static enum status bad_merge(uint32_t rank, struct gguf_string text, struct errmsg *err)
{
    return errmsg_set(err, STATUS_INVALID,
                      "merge %u (\"%s\") is not two tokens that join to a third", rank,
                      gguf_show(text).text);
}

/* "left right": the space that separates cannot be part of either, where it is written "Ġ". */
static enum status load_merge(struct tokenizer *t, uint32_t rank, struct gguf_string text,
                              const int16_t *byte_of, struct errmsg *err)
{
    char bytes[2 * TOKEN_SIZE_MAX];
    size_t left_len, right_len;

    if (text.len > sizeof(bytes)) return bad_merge(rank, text, err);
    const char *space = memchr(text.data, ' ', text.len);
    if (space == NULL) return bad_merge(rank, text, err);
    const struct gguf_string left = { text.data, (size_t)(space - text.data) };
    const struct gguf_string right = { space + 1, text.len - left.len - 1 };
    if (!from_alphabet(byte_of, left, bytes, &left_len)) return bad_merge(rank, text, err);
    if (!from_alphabet(byte_of, right, bytes + left_len, &right_len)) {
        return bad_merge(rank, text, err);
    }
    const struct merge merge = {
        .left = word_find(t, bytes, left_len),
        .right = word_find(t, bytes + left_len, right_len),
        .result = word_find(t, bytes, left_len + right_len),
    };
    if (merge.left == TOKENIZER_NONE || merge.right == TOKENIZER_NONE ||
        merge.result == TOKENIZER_NONE) {
        return bad_merge(rank, text, err); /* I1 */
    }
    t->merges[rank] = merge;
    uint32_t *slot = pair_slot(t, merge.left, merge.right);
    if (*slot == TOKENIZER_NONE) *slot = rank; /* the first of equals counts */
    return STATUS_OK;
}

static enum status load_merges(struct tokenizer *t, const struct gguf *gguf, struct errmsg *err)
{
    int16_t byte_of[ALPHABET];
    struct gguf_array merges;
    struct gguf_string text;
    size_t cursor = 0;

    enum status status =
        required_array(gguf, "tokenizer.ggml.merges", GGUF_STRING, MERGES_MAX, &merges, err);
    if (status != STATUS_OK) return status;
    t->merges_count = (uint32_t)merges.count;
    t->merges = calloc(t->merges_count + 1, sizeof(*t->merges));
    if (t->merges == NULL || !table_init(&t->pairs, t->merges_count)) return no_memory(err);

    build_alphabet(byte_of);
    for (uint32_t rank = 0; gguf_array_next_string(&merges, &cursor, &text); rank++) {
        status = load_merge(t, rank, text, byte_of, err);
        if (status != STATUS_OK) return status;
    }
    return STATUS_OK;
}

static enum status load_id(const struct tokenizer *t, const struct gguf *gguf, const char *key,
                           uint32_t *out, struct errmsg *err)
{
    uint32_t token = TOKENIZER_NONE;

    enum status status = gguf_get_u32(gguf, key, &token, err);
    if (status == STATUS_NOT_FOUND) return STATUS_OK;
    if (status != STATUS_OK) return status;
    if (token >= t->vocab) {
        return errmsg_set(err, STATUS_INVALID, "key %s is %u, but there are %u tokens", key, token,
                          t->vocab);
    }
    *out = token;
    return STATUS_OK;
}

static enum status load_special(struct tokenizer *t, const struct gguf *gguf, struct errmsg *err)
{
    static const char *const end_keys[] = { "tokenizer.ggml.eos_token_id",
                                            "tokenizer.ggml.eot_token_id",
                                            "tokenizer.ggml.eom_token_id" };
    static const char *const end_texts[] = { "<|im_end|>",      "<|endoftext|>", "<|eot_id|>",
                                             "<|end_of_text|>", "<end_of_turn>", "<|end|>" };

    t->bos = t->eos = TOKENIZER_NONE;
    enum status status = load_id(t, gguf, "tokenizer.ggml.bos_token_id", &t->bos, err);
    if (status != STATUS_OK) return status;
    status = load_id(t, gguf, "tokenizer.ggml.eos_token_id", &t->eos, err);
    if (status != STATUS_OK) return status;

    for (size_t i = 0; i < sizeof(end_keys) / sizeof(end_keys[0]); i++) {
        uint32_t token = TOKENIZER_NONE;
        status = load_id(t, gguf, end_keys[i], &token, err);
        if (status != STATUS_OK) return status;
        if (token != TOKENIZER_NONE) t->ends[token] = true;
    }
    for (size_t i = 0; i < sizeof(end_texts) / sizeof(end_texts[0]); i++) {
        const uint32_t token = tokenizer_find_special(t, end_texts[i]);
        if (token != TOKENIZER_NONE) t->ends[token] = true;
    }
    status = gguf_get_bool(gguf, "tokenizer.ggml.add_bos_token", &t->adds_bos, err);
    if (status == STATUS_INVALID) return status;
    if (t->adds_bos && t->bos == TOKENIZER_NONE) {
        return errmsg_set(err, STATUS_INVALID, "BOS is to be added, but there is no such token");
    }
    return STATUS_OK;
}

/* Keeps added_lens sorted, longest first, without repetition. False if there is no room. */
static bool note_length(struct tokenizer *t, size_t len)
{
    size_t at = 0;

    while (at < t->added_lens_count && t->added_lens[at] > len)
        at++;
    if (at < t->added_lens_count && t->added_lens[at] == len) return true;
    if (t->added_lens_count == ADDED_LENS_MAX) return false;
    memmove(t->added_lens + at + 1, t->added_lens + at,
            (t->added_lens_count - at) * sizeof(*t->added_lens));
    t->added_lens[at] = len;
    t->added_lens_count++;
    return true;
}

/* A token that starts or ends something is never made from text, whatever kind the file gives it.
 */
static bool is_added(const struct tokenizer *t, uint32_t token)
{
    return t->kinds[token] == TOKEN_USER_DEFINED && !t->ends[token] && token != t->bos;
}

static enum status load_added(struct tokenizer *t, struct errmsg *err)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < t->vocab; i++)
        count += is_added(t, i);
    if (!table_init(&t->added, count)) return no_memory(err);
    for (uint32_t i = 0; i < t->vocab && count > 0; i++) {
        size_t len;
        const char *bytes = tokenizer_bytes(t, i, &len);
        if (!is_added(t, i)) continue;
        if (!note_length(t, len)) {
            return errmsg_set(err, STATUS_FULL, "user-defined tokens of more than %d lengths",
                              ADDED_LENS_MAX);
        }
        t->added_first[(uint8_t)bytes[0]] = true;
        uint32_t *slot = token_slot(t, &t->added, bytes, len);
        if (*slot == TOKENIZER_NONE) *slot = i;
    }
    return STATUS_OK;
}

static enum status load_splitter(struct tokenizer *t, const struct gguf *gguf, struct errmsg *err)
{
    struct gguf_string pre;

    enum status status = gguf_get_string(gguf, "tokenizer.ggml.pre", &pre, err);
    if (status == STATUS_NOT_FOUND) {
        return errmsg_set(err, STATUS_INVALID, "the model has no key tokenizer.ggml.pre");
    }
    if (status != STATUS_OK) return status;
    status = splitter_create(pre.data, pre.len, &t->splitter, err);
    if (status != STATUS_OK) return status;
    t->adds_bos = splitter_traits(t->splitter).adds_bos;
    t->whole_words = splitter_traits(t->splitter).whole_words;
    return STATUS_OK;
}

/* Which of the two it is. */
static enum status load_form(struct tokenizer *t, const struct gguf *gguf, struct errmsg *err)
{
    struct gguf_string model;

    enum status status = gguf_get_string(gguf, "tokenizer.ggml.model", &model, err);
    if (status == STATUS_NOT_FOUND) {
        return errmsg_set(err, STATUS_INVALID, "the model has no key tokenizer.ggml.model");
    }
    if (status != STATUS_OK) return status;
    if (model.len == 4 && memcmp(model.data, "gpt2", 4) == 0) return load_splitter(t, gguf, err);
    t->pieces = model.len == 5 && memcmp(model.data, "llama", 5) == 0;
    t->adds_bos = t->pieces; /* unless the file says otherwise */
    if (t->pieces) return STATUS_OK;
    return errmsg_set(err, STATUS_UNSUPPORTED,
                      "tokenizer \"%s\" is not supported, only \"gpt2\" (byte-level BPE) and "
                      "\"llama\" (SentencePiece)",
                      gguf_show(model).text);
}

enum status tokenizer_create(const struct gguf *gguf, struct tokenizer **out, struct errmsg *err)
{
    struct tokenizer *t = calloc(1, sizeof(*t));

    if (t == NULL) return no_memory(err);
    enum status status = load_form(t, gguf, err);
    if (status == STATUS_OK) status = load_tokens(t, gguf, err);
    if (status == STATUS_OK) {
        status = t->pieces ? load_pieces(t, gguf, err) : load_merges(t, gguf, err);
    }
    if (status == STATUS_OK) status = load_special(t, gguf, err);
    if (status == STATUS_OK) status = load_added(t, err);
    if (status != STATUS_OK) {
        tokenizer_destroy(t);
        return status;
    }
    *out = t;
    return STATUS_OK;
}

void tokenizer_destroy(struct tokenizer *t)
{
    if (t == NULL) return;
    splitter_destroy(t->splitter);
    free(t->kinds);
    free(t->ends);
    free(t->offsets);
    free(t->ranks);
    free(t->bytes);
    free(t->words.slots);
    free(t->added.slots);
    free(t->merges);
    free(t->pairs.slots);
    free(t);
}

/* ---- one word ---- */

/* A word while it is merged. Symbol i starts at byte i; a symbol that was merged away keeps its
 * place in the arrays and is out of the list, with `dead` as its token. */
struct word {
    const struct tokenizer *tokenizer;
    const char *bytes;
    uint32_t *symbols;
    uint32_t *next; /* index, or `end` */
    uint32_t *prev; /* index, or TOKENIZER_NONE at the start */
    uint64_t *heap; /* rank << 32 | index of the left symbol; the smallest on top */
    uint32_t heap_len;
    uint32_t end; /* bytes of the word */
};

static const uint32_t dead = TOKENIZER_NONE;
static const uint32_t absent = TOKENIZER_NONE - 1; /* in the list, but no token: pieces only */

static void heap_sink(struct word *word, uint32_t at)
{
    const uint64_t entry = word->heap[at];

    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= word->heap_len) break;
        if (child + 1 < word->heap_len && word->heap[child + 1] < word->heap[child]) child++;
        if (entry <= word->heap[child]) break;
        word->heap[at] = word->heap[child];
        at = child;
    }
    word->heap[at] = entry;
}

static uint64_t heap_pop(struct word *word)
{
    const uint64_t top = word->heap[0];

    ASSERT(word->heap_len > 0);
    word->heap[0] = word->heap[--word->heap_len];
    if (word->heap_len > 0) heap_sink(word, 0);
    return top;
}

static void heap_push(struct word *word, uint64_t entry)
{
    uint32_t at = word->heap_len++;

    ASSERT(word->heap_len <= 2 * word->end); /* I3 */
    while (at > 0 && word->heap[(at - 1) / 2] > entry) {
        word->heap[at] = word->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    word->heap[at] = entry;
}

/* The rank at which a symbol merges with the next one, and what becomes of them. */
static uint32_t rank_at(const struct word *word, uint32_t left, uint32_t *result)
{
    const struct tokenizer *t = word->tokenizer;
    const uint32_t right = word->next[left];

    if (right == word->end) return TOKENIZER_NONE;
    if (t->pieces) {
        *result = word_find(t, word->bytes + left, word->next[right] - left);
        return *result == TOKENIZER_NONE ? TOKENIZER_NONE : t->ranks[*result];
    }
    const uint32_t rank = pair_rank(t, word->symbols[left], word->symbols[right]);
    if (rank != TOKENIZER_NONE) *result = t->merges[rank].result;
    return rank;
}

static void push_pair(struct word *word, uint32_t left)
{
    uint32_t result;
    const uint32_t rank = rank_at(word, left, &result);

    if (rank != TOKENIZER_NONE) heap_push(word, (uint64_t)rank << 32 | left);
}

/* Bytes of the first symbol at `at`, and its token. */
static uint32_t first_symbol(const struct word *word, uint32_t at, uint32_t *len)
{
    const struct tokenizer *t = word->tokenizer;
    const char *bytes = word->bytes + at;

    *len = 1;
    if (!t->pieces) return t->byte_tokens[(uint8_t)bytes[0]];
    const uint32_t lead = (uint8_t)bytes[0];
    const uint32_t want = lead < 0xc0 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    if (want <= word->end - at && utf8_valid_prefix(bytes, want) == want) *len = want;
    const uint32_t token = word_find(t, bytes, *len);
    return token == TOKENIZER_NONE ? absent : token;
}

static void word_start(struct word *word)
{
    const uint32_t n = word->end;
    uint32_t len;

    for (uint32_t i = 0, before = TOKENIZER_NONE; i < n; before = i, i += len) {
        word->symbols[i] = first_symbol(word, i, &len);
        word->next[i] = i + len;
        word->prev[i] = before;
    }
    word->heap_len = 0;
    for (uint32_t i = 0; i < n; i = word->next[i]) {
        uint32_t result;
        const uint32_t rank = rank_at(word, i, &result);
        if (rank != TOKENIZER_NONE) word->heap[word->heap_len++] = (uint64_t)rank << 32 | i;
    }
    for (uint32_t i = word->heap_len / 2; i-- > 0;)
        heap_sink(word, i);
}

static void word_merge(struct word *word)
{
    while (word->heap_len > 0) {
        const uint64_t entry = heap_pop(word);
        const uint32_t left = (uint32_t)entry, rank = (uint32_t)(entry >> 32);
        uint32_t result;
        if (word->symbols[left] == dead || rank_at(word, left, &result) != rank) {
            continue; /* outdated */
        }

        const uint32_t right = word->next[left];
        const uint32_t after = word->next[right];
        word->symbols[left] = result;
        word->symbols[right] = dead;
        word->next[left] = after;
        if (after != word->end) word->prev[after] = left;
        push_pair(word, left);
        if (word->prev[left] != TOKENIZER_NONE) push_pair(word, word->prev[left]);
    }
}

/* A word and what became of it. */
struct memo {
    uint64_t word[2]; /* its bytes, zeros, and its length in the last byte; all zero: none */
    uint32_t tokens[MEMO_TOKENS];
    uint32_t count;
};

struct output {
    const struct tokenizer *tokenizer;
    uint32_t *tokens;
    size_t tokens_max;
    size_t count;
    struct memo *memos;   /* by a hash of the word; NULL: none are kept */
    unsigned memos_shift; /* of the hash: its upper bits are a place */
};

static enum status emit(struct output *output, uint32_t token)
{
    if (token == TOKENIZER_NONE) return STATUS_OK; /* a byte the vocabulary does not have */
    ASSERT(!tokenizer_is_special(output->tokenizer, token)); /* I2 */
    if (output->count == output->tokens_max) return STATUS_FULL;
    output->tokens[output->count++] = token;
    return STATUS_OK;
}

static enum status emit_bytes(struct output *output, const char *bytes, uint32_t len)
{
    enum status status = STATUS_OK;

    for (uint32_t i = 0; i < len && status == STATUS_OK; i++)
        status = emit(output, output->tokenizer->byte_tokens[(uint8_t)bytes[i]]);
    return status;
}

static enum status encode_in(struct output *output, struct word *word)
{
    word_start(word);
    word_merge(word);
    for (uint32_t i = 0; i < word->end; i = word->next[i]) {
        enum status status = word->symbols[i] == absent
                                 ? emit_bytes(output, word->bytes + i, word->next[i] - i)
                                 : emit(output, word->symbols[i]);
        if (status != STATUS_OK) return status;
    }
    return STATUS_OK;
}

static enum status encode_long(struct output *output, const char *bytes, size_t len)
{
    struct word word = { .tokenizer = output->tokenizer, .bytes = bytes, .end = (uint32_t)len };

    word.heap = malloc(len * 2 * sizeof(*word.heap));
    word.symbols = malloc(len * 3 * sizeof(*word.symbols));
    enum status status = STATUS_NO_MEMORY;
    if (word.heap != NULL && word.symbols != NULL) {
        word.next = word.symbols + len;
        word.prev = word.next + len;
        status = encode_in(output, &word);
    }
    free(word.heap);
    free(word.symbols);
    return status;
}

/* By merges. */
static enum status encode_merged(struct output *output, const char *bytes, size_t len)
{
    uint32_t symbols[WORD_ON_STACK], next[WORD_ON_STACK], prev[WORD_ON_STACK];
    uint64_t heap[2 * WORD_ON_STACK];

    if (len > WORD_ON_STACK) return encode_long(output, bytes, len);
    struct word word = { output->tokenizer, bytes, symbols, next, prev, heap, 0, (uint32_t)len };
    return encode_in(output, &word);
}

/* Without memory for them it is slower, and that is all. */
static void make_memos(struct output *output, size_t text_len)
{
    size_t slots = 1;

    output->memos_shift = 64;
    while (slots < text_len / MEMO_TEXT_PER_SLOT && slots < MEMO_SLOTS_MAX) {
        slots *= 2;
        output->memos_shift--;
    }
    output->memos = calloc(slots, sizeof(*output->memos));
    ASSERT(output->memos_shift < 64);
}

static struct memo *memo_of(const struct output *output, const char *bytes, size_t len,
                            uint64_t word[2])
{
    char text[2 * sizeof(uint64_t)] = { 0 };

    memcpy(text, bytes, len);
    text[MEMO_BYTES] = (char)len;
    memcpy(word, text, sizeof(text));
    const uint64_t mixed =
        (word[0] ^ word[1] * UINT64_C(0xff51afd7ed558ccd)) * UINT64_C(0x9e3779b97f4a7c15);
    return &output->memos[mixed >> output->memos_shift];
}

static void remember(struct memo *memo, const uint64_t word[2], const uint32_t *tokens,
                     size_t count)
{
    if (count > MEMO_TOKENS) return;
    memcpy(memo->word, word, sizeof(memo->word));
    memcpy(memo->tokens, tokens, count * sizeof(*tokens));
    memo->count = (uint32_t)count;
}

static enum status encode_remembered(struct output *output, const char *bytes, size_t len)
{
    const size_t before = output->count;
    uint64_t word[2];
    struct memo *memo = memo_of(output, bytes, len, word);
    enum status status = STATUS_OK;

    if (memo->word[0] != word[0] || memo->word[1] != word[1]) {
        status = encode_merged(output, bytes, len);
        if (status == STATUS_OK)
            remember(memo, word, output->tokens + before, output->count - before);
        return status;
    }
    for (uint32_t i = 0; i < memo->count && status == STATUS_OK; i++)
        status = emit(output, memo->tokens[i]);
    return status;
}

/* A split_fn. */
static enum status encode_word(void *ctx, const char *bytes, size_t len)
{
    struct output *output = ctx;

    ASSERT(len > 0 && len <= TOKENIZER_TEXT_SIZE_MAX + 1); /* with a space before */
    if (output->tokenizer->whole_words) {
        const uint32_t token = word_find(output->tokenizer, bytes, len);
        if (token != TOKENIZER_NONE) return emit(output, token);
    }
    if (output->memos != NULL && len <= MEMO_BYTES) return encode_remembered(output, bytes, len);
    return encode_merged(output, bytes, len);
}

/* The longest added word at the start of text, or TOKENIZER_NONE. */
static uint32_t added_at(const struct tokenizer *t, const char *text, size_t len)
{
    if (!t->added_first[(uint8_t)text[0]]) return TOKENIZER_NONE;
    for (size_t i = 0; i < t->added_lens_count; i++) {
        if (t->added_lens[i] > len) continue;
        const uint32_t token = *token_slot(t, &t->added, text, t->added_lens[i]);
        if (token != TOKENIZER_NONE) return token;
    }
    return TOKENIZER_NONE;
}

static enum status encode_pieces(struct output *output, const char *text, size_t len)
{
    char *spaced = malloc(len + 1);

    if (spaced == NULL) return STATUS_NO_MEMORY;
    spaced[0] = ' ';
    const size_t prefix = output->tokenizer->adds_space ? 1 : 0;
    const size_t spaced_len = prefix + with_spaces(text, len, spaced + prefix);
    enum status status = encode_word(output, spaced, spaced_len);
    free(spaced);
    return status;
}

static enum status encode_text(struct output *output, const char *text, size_t len)
{
    if (len == 0) return STATUS_OK;
    if (output->tokenizer->pieces) return encode_pieces(output, text, len);
    return splitter_run(output->tokenizer->splitter, text, len, encode_word, output);
}

static enum status encode_around_added(struct output *output, const char *text, size_t len)
{
    size_t done = 0, at = 0;

    while (at < len) {
        size_t token_len;
        const uint32_t token = added_at(output->tokenizer, text + at, len - at);
        if (token == TOKENIZER_NONE) {
            at++;
            continue;
        }
        enum status status = encode_text(output, text + done, at - done);
        if (status == STATUS_OK) status = emit(output, token);
        if (status != STATUS_OK) return status;
        (void)tokenizer_bytes(output->tokenizer, token, &token_len);
        at += token_len;
        done = at;
    }
    return encode_text(output, text + done, len - done);
}

enum status tokenizer_encode(const struct tokenizer *tokenizer, const char *text, size_t len,
                             uint32_t *tokens, size_t tokens_max, size_t *count)
{
    struct output output = { tokenizer, tokens, tokens_max, *count, NULL, 0 };
    const bool any_added = tokenizer->added_lens_count > 0;

    ASSERT(*count <= tokens_max);
    if (len > TOKENIZER_TEXT_SIZE_MAX) return STATUS_FULL;
    if (len >= MEMO_TEXT_MIN && !tokenizer->pieces) make_memos(&output, len);
    enum status status =
        any_added ? encode_around_added(&output, text, len) : encode_text(&output, text, len);
    free(output.memos);
    if (status == STATUS_OK) *count = output.count;
    return status;
}

/* ---- answers ---- */

const char *tokenizer_bytes(const struct tokenizer *tokenizer, uint32_t token, size_t *len)
{
    if (token >= tokenizer->vocab) {
        *len = 0;
        return "";
    }
    *len = tokenizer->offsets[token + 1] - tokenizer->offsets[token];
    return tokenizer->bytes + tokenizer->offsets[token];
}

bool tokenizer_is_special(const struct tokenizer *tokenizer, uint32_t token)
{
    if (token >= tokenizer->vocab) return false;
    const uint8_t kind = tokenizer->kinds[token];
    return kind == TOKEN_CONTROL || kind == TOKEN_UNKNOWN || kind == TOKEN_UNUSED;
}

bool tokenizer_is_end(const struct tokenizer *tokenizer, uint32_t token)
{
    return token < tokenizer->vocab && tokenizer->ends[token];
}

uint32_t tokenizer_find_special(const struct tokenizer *tokenizer, const char *text)
{
    const size_t len = strlen(text);

    for (uint32_t i = 0; i < tokenizer->vocab; i++) {
        if (tokenizer_is_special(tokenizer, i) && token_equals(tokenizer, i, text, len)) return i;
    }
    return TOKENIZER_NONE;
}

uint32_t tokenizer_vocab(const struct tokenizer *tokenizer)
{
    return tokenizer->vocab;
}

uint32_t tokenizer_bos(const struct tokenizer *tokenizer)
{
    return tokenizer->bos;
}

uint32_t tokenizer_eos(const struct tokenizer *tokenizer)
{
    return tokenizer->eos;
}

bool tokenizer_adds_bos(const struct tokenizer *tokenizer)
{
    return tokenizer->adds_bos;
}
