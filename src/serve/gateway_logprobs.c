/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/gateway_logprobs.c - see the header. Noted: token, length of the row, and the row, in words
 * as they are in memory. */
#include "serve/gateway_logprobs.h"

#include <assert.h>
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"
#include "infer/logprobs.h"
#include "model/tokenizer.h"
#include "base/utf8.h"
#include "serve/api_json.h"
#include "serve/gateway_int.h"
#include "serve/proto.h"

/* Each step runs only if those before it succeeded, and leaves its status in `status`. */
#define THEN(status, step)                                                                         \
    do {                                                                                           \
        if ((status) == STATUS_OK) (status) = (step);                                              \
    } while (0)

enum { HEAD_WORDS = 2, PAIRS = LOGPROBS_HEAD_WORDS, PIECE_SIZE = 256 };

struct noted {
    uint32_t token, count;
    uint32_t row[LOGPROBS_WORDS_MAX];
};

static_assert((int)PROTO_ROW_MAX == (int)LOGPROBS_WORDS_MAX, "what nodes say is what they find");

enum status gateway_logprobs_note(struct buf *rows, const struct proto_token *token)
{
    uint32_t words[HEAD_WORDS + LOGPROBS_WORDS_MAX] = { token->token, token->row.count };

    ASSERT(token->row.count > 0 && token->row.count <= LOGPROBS_WORDS_MAX);
    proto_u32s_copy(token->row, words + HEAD_WORDS);
    return buf_append(rows, words, (HEAD_WORDS + token->row.count) * sizeof(*words));
}

enum status gateway_logprobs_note_first(struct buf *rows, uint32_t token)
{
    const uint32_t words[HEAD_WORDS] = { token, 0 };
    return buf_append(rows, words, sizeof(words));
}

/* The one at *at, which is moved behind it; false at the end. */
static bool next_noted(const struct buf *rows, size_t *at, struct noted *out)
{
    if (*at == rows->len) return false;
    const uint8_t *from = buf_data(rows) + *at;
    memcpy(&out->token, from, sizeof(out->token));
    memcpy(&out->count, from + sizeof(out->token), sizeof(out->count));
    ASSERT(out->count <= LOGPROBS_WORDS_MAX);
    memcpy(out->row, from + HEAD_WORDS * sizeof(uint32_t), out->count * sizeof(*out->row));
    *at += (HEAD_WORDS + out->count) * sizeof(uint32_t);
    return true;
}

enum status gateway_logprobs_copy(struct buf *rows, const struct buf *from, uint32_t top)
{
    const uint32_t most = LOGPROBS_HEAD_WORDS + 2 * top;
    enum status status = STATUS_OK;
    struct noted noted;

    for (size_t at = 0; status == STATUS_OK && next_noted(from, &at, &noted);) {
        if (noted.count > most) noted.count = most;
        status = buf_append(rows, &noted, (HEAD_WORDS + noted.count) * sizeof(uint32_t));
    }
    return status;
}

/* ---- tokens as text ---- */

static enum status write_replaced(struct buf *out, const char *bytes, size_t len)
{
    char valid[UTF8_STREAM_OUT_MAX(PIECE_SIZE) + 3];
    struct utf8_stream stream;

    utf8_stream_init(&stream);
    size_t count = utf8_stream_push(&stream, bytes, len < PIECE_SIZE ? len : PIECE_SIZE, valid);
    count += utf8_stream_finish(&stream, valid + count);
    return api_json_write_string(out, valid, count);
}

static enum status write_escaped(struct buf *out, const char *bytes, size_t len)
{
    enum status status = buf_append_text(out, "\"bytes:");

    for (size_t i = 0; i < len; i++)
        THEN(status, buf_printf(out, "\\\\x%02x", (unsigned char)bytes[i]));
    THEN(status, buf_append_text(out, "\""));
    return status;
}

static enum status write_token(struct buf *out, const struct tokenizer *tokenizer, bool chat,
                               uint32_t token)
{
    size_t len = 0;
    const char *bytes = tokenizer_bytes(tokenizer, token, &len);

    if (utf8_valid_prefix(bytes, len) == len) return api_json_write_string(out, bytes, len);
    return chat ? write_replaced(out, bytes, len) : write_escaped(out, bytes, len);
}

static enum status write_value(struct buf *out, uint32_t word)
{
    return buf_printf(out, "%.9g", (double)logprobs_value(word)); /* enough for a float */
}

static enum status write_comma(struct buf *out, bool first)
{
    return first ? STATUS_OK : buf_append_text(out, ",");
}

/* Characters that begin in the token. */
static uint32_t characters(const struct tokenizer *tokenizer, uint32_t token)
{
    size_t len = 0;
    const char *bytes = tokenizer_bytes(tokenizer, token, &len);
    uint32_t count = 0;

    if (tokenizer_is_special(tokenizer, token)) return 0; /* nothing of it is shown */
    for (size_t i = 0; i < len; i++)
        count += ((unsigned char)bytes[i] & 0xc0) != 0x80;
    return count;
}

/* ---- chat ---- */

/* {"token":...,"logprob":...,"bytes":[...] */
static enum status open_entry(struct buf *out, const struct tokenizer *tokenizer, uint32_t token,
                              uint32_t word)
{
    size_t len = 0;
    const char *bytes = tokenizer_bytes(tokenizer, token, &len);
    enum status status = buf_append_text(out, "{\"token\":");

    THEN(status, write_token(out, tokenizer, true, token));
    THEN(status, buf_append_text(out, ",\"logprob\":"));
    THEN(status, write_value(out, word));
    THEN(status, buf_append_text(out, ",\"bytes\":["));
    for (size_t i = 0; i < len; i++)
        THEN(status, buf_printf(out, "%s%u", i > 0 ? "," : "", (unsigned char)bytes[i]));
    THEN(status, buf_append_text(out, "]"));
    return status;
}

static enum status write_entry(struct buf *out, const struct tokenizer *tokenizer,
                               const struct noted *noted)
{
    enum status status = open_entry(out, tokenizer, noted->token, noted->row[0]);

    THEN(status, buf_append_text(out, ",\"top_logprobs\":["));
    for (uint32_t i = PAIRS; i < noted->count; i += 2) {
        THEN(status, write_comma(out, i == PAIRS));
        THEN(status, open_entry(out, tokenizer, noted->row[i], noted->row[i + 1]));
        THEN(status, buf_append_text(out, "}"));
    }
    THEN(status, buf_append_text(out, "]}"));
    return status;
}

static enum status render_chat(const struct tokenizer *tokenizer, const struct buf *rows,
                               struct buf *out)
{
    enum status status = buf_append_text(out, "{\"content\":[");
    bool first = true;
    struct noted noted;

    for (size_t at = 0; next_noted(rows, &at, &noted); first = false) {
        THEN(status, write_comma(out, first));
        THEN(status, write_entry(out, tokenizer, &noted));
    }
    THEN(status, buf_append_text(out, "]}"));
    return status;
}

/* ---- prompts ---- */

static enum status write_ranked(struct buf *out, const struct tokenizer *tokenizer, uint32_t token,
                                uint32_t word, uint32_t rank)
{
    enum status status = buf_printf(out, "\"%u\":{\"logprob\":", token);

    THEN(status, write_value(out, word));
    THEN(status, buf_printf(out, ",\"rank\":%u,\"decoded_token\":", rank));
    THEN(status, write_token(out, tokenizer, true, token));
    THEN(status, buf_append_text(out, "}"));
    return status;
}

static enum status write_scored(struct buf *out, const struct tokenizer *tokenizer,
                                const struct noted *noted, uint32_t top)
{
    enum status status = buf_append_text(out, "{");

    THEN(status, write_ranked(out, tokenizer, noted->token, noted->row[0], noted->row[1]));
    for (uint32_t i = 0; i < top && PAIRS + 2 * i < noted->count; i++) {
        const uint32_t *pair = noted->row + PAIRS + (size_t)2 * i;
        if (pair[0] == noted->token) continue;
        THEN(status, buf_append_text(out, ","));
        THEN(status, write_ranked(out, tokenizer, pair[0], pair[1], i + 1));
    }
    THEN(status, buf_append_text(out, "}"));
    return status;
}

enum status gateway_logprobs_render_prompt(const struct tokenizer *tokenizer,
                                           const struct buf *rows, uint32_t top, struct buf *out)
{
    enum status status = buf_append_text(out, "[");
    bool first = true;
    struct noted noted;

    for (size_t at = 0; next_noted(rows, &at, &noted); first = false) {
        THEN(status, write_comma(out, first));
        if (noted.count == 0) {
            THEN(status, buf_append_text(out, "null"));
        } else {
            THEN(status, write_scored(out, tokenizer, &noted, top));
        }
    }
    THEN(status, buf_append_text(out, "]"));
    return status;
}

/* ---- completions ---- */

static bool same_text(const struct tokenizer *tokenizer, uint32_t a, uint32_t b)
{
    size_t a_len = 0, b_len = 0;
    const char *a_bytes = tokenizer_bytes(tokenizer, a, &a_len);
    const char *b_bytes = tokenizer_bytes(tokenizer, b, &b_len);
    return a_len == b_len && memcmp(a_bytes, b_bytes, a_len) == 0;
}

/* Among the pairs before word `end` of the row? A name is to be there once: of tokens with one text
 * the likeliest. */
static bool is_named(const struct tokenizer *tokenizer, const struct noted *noted, uint32_t token,
                     uint32_t end)
{
    for (uint32_t i = PAIRS; i < end; i += 2) {
        if (same_text(tokenizer, noted->row[i], token)) return true;
    }
    return false;
}

static enum status write_pair(struct buf *out, const struct tokenizer *tokenizer, bool first,
                              uint32_t token, uint32_t word)
{
    enum status status = write_comma(out, first);

    THEN(status, write_token(out, tokenizer, false, token));
    THEN(status, buf_append_text(out, ":"));
    THEN(status, write_value(out, word));
    return status;
}

/* The likeliest, and the one that was taken if it is not among them. */
static enum status write_likeliest(struct buf *out, const struct tokenizer *tokenizer,
                                   const struct noted *noted)
{
    enum status status = buf_append_text(out, "{");

    for (uint32_t i = PAIRS; i < noted->count; i += 2) {
        if (is_named(tokenizer, noted, noted->row[i], i)) continue;
        THEN(status, write_pair(out, tokenizer, i == PAIRS, noted->row[i], noted->row[i + 1]));
    }
    if (!is_named(tokenizer, noted, noted->token, noted->count))
        THEN(status,
             write_pair(out, tokenizer, noted->count == PAIRS, noted->token, noted->row[0]));
    THEN(status, buf_append_text(out, "}"));
    return status;
}

enum column { TOKENS, VALUES, LIKELIEST, OFFSETS };
enum { COLUMNS = OFFSETS + 1 };

static enum status write_cell(struct buf *out, const struct tokenizer *tokenizer,
                              const struct noted *noted, enum column column, uint32_t offset)
{
    if (noted->count == 0 && (column == VALUES || column == LIKELIEST))
        return buf_append_text(out, "null");
    switch (column) {
    case TOKENS: return write_token(out, tokenizer, false, noted->token);
    case VALUES: return write_value(out, noted->row[0]);
    case LIKELIEST: return write_likeliest(out, tokenizer, noted);
    case OFFSETS: return buf_printf(out, "%u", offset);
    }
    ASSERT(false);
    return STATUS_INVALID;
}

static enum status render_columns(const struct tokenizer *tokenizer, const struct buf *rows,
                                  uint32_t *offset, struct buf *out)
{
    static const char *const NAMES[] = { "{\"tokens\":[", "],\"token_logprobs\":[",
                                         "],\"top_logprobs\":[", "],\"text_offset\":[" };
    const uint32_t start = *offset;
    enum status status = STATUS_OK;
    struct noted noted;

    for (int column = TOKENS; column < COLUMNS; column++) {
        bool first = true;
        *offset = start;
        THEN(status, buf_append_text(out, NAMES[column]));
        for (size_t at = 0; next_noted(rows, &at, &noted); first = false) {
            THEN(status, write_comma(out, first));
            THEN(status, write_cell(out, tokenizer, &noted, (enum column)column, *offset));
            *offset += characters(tokenizer, noted.token);
        }
    }
    THEN(status, buf_append_text(out, "]}"));
    return status;
}

enum status gateway_logprobs_render(const struct tokenizer *tokenizer, enum api_kind kind,
                                    struct buf *rows, uint32_t *offset)
{
    struct buf json;

    buf_init(&json, GATEWAY_ANSWER_SIZE_MAX);
    const enum status status = kind == API_CHAT ? render_chat(tokenizer, rows, &json)
                                                : render_columns(tokenizer, rows, offset, &json);
    buf_fini(rows);
    *rows = json;
    return status;
}
