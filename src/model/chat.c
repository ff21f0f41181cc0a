/* SPDX-License-Identifier: Apache-2.0
 *
 * model/chat.c - ChatML, with or without a default system message.
 *
 * A conversation in ChatML is, for each message,
 *
 *   <|im_start|> role \n content <|im_end|> \n
 *
 * and then, to ask for an answer, "<|im_start|> assistant \n". Some models put a system message of
 * their own before a conversation that does not start with one; its text is in their template.
 *
 * Recognition is exact: the template is brought into a normal form, in which spaces outside
 * literals, the kind of quotes, and adjacent literals joined by "+" make no difference, and
 * compared with the few forms below. A template that says anything else (tools, dates, trimming,
 * other roles) does not compare equal and is refused: rendered almost right, a model answers worse
 * and nobody sees why.
 *
 * Normal form of a template
 *   - Text outside {{ }} and {% %}: kept; but a newline right after "%}" goes (as trainers render
 * it), and so does white space beside "{%-", "-%}", "{{-", "-}}".
 *   - Inside: white space outside quotes goes; " and ' are both written '; '+' between two literals
 *     goes, so that 'a' + 'b' is 'ab'; a.b is written a['b'].
 *   - Escapes in literals stay as they are written; a newline is written as the escape. */
#include "model/chat.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"
#include "model/gguf.h"
#include "model/tokenizer.h"

enum { TEMPLATE_SIZE_MAX = 1 << 16 };

/* ---- what the known templates look like in normal form ---- */

#define FOR "{%formessageinmessages%}"
#define MESSAGE "{{'<|im_start|>'+message['role']+'\\n'+message['content']+'<|im_end|>\\n'}}"
#define END "{%endfor%}"
#define ASK "{%ifadd_generation_prompt%}{{'<|im_start|>assistant\\n'}}{%endif%}"
#define ASK_DEFAULTED                                                                              \
    "{%ifnotadd_generation_promptisdefined%}{%setadd_generation_prompt=false%}{%endif%}"

/* A default system message stands between these two. */
#define SYSTEM_IF "{%ifloop['first']andmessages[0]['role']!='system'%}"
#define SYSTEM_OPEN SYSTEM_IF "{{'<|im_start|>system\\n"
#define SYSTEM_CLOSE "<|im_end|>\\n'}}{%endif%}"

enum chat_form { CHAT_NONE, CHAT_ML };

struct chat {
    enum chat_form form;
    const struct tokenizer *tokenizer;
    uint32_t start; /* <|im_start|> */
    uint32_t end;   /* <|im_end|> */
    char *system;   /* the default system message, or NULL */
    size_t system_len;
};

/* ---- the normal form ---- */

struct normal {
    const char *in;
    size_t len;
    size_t at;
    char *out; /* room for 4 * len: a.b becomes a['b'] */
    size_t out_len;
};

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static bool is_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

static bool looking_at(const struct normal *normal, const char *text)
{
    const size_t len = strlen(text);

    return normal->len - normal->at >= len && memcmp(normal->in + normal->at, text, len) == 0;
}

static bool ends_with(const struct normal *normal, const char *text)
{
    const size_t len = strlen(text);

    return normal->out_len >= len && memcmp(normal->out + normal->out_len - len, text, len) == 0;
}

static void put(struct normal *normal, const char *text)
{
    const size_t len = strlen(text);

    ASSERT(normal->out_len + len <= 4 * normal->len + 4);
    memcpy(normal->out + normal->out_len, text, len);
    normal->out_len += len;
}

static void put_char(struct normal *normal, char c)
{
    put(normal, (char[]){ c, 0 });
}

/* A literal, from its opening quote. False if it does not end, or contains the other quote, which
 * the normal form could not tell from the end. */
static bool take_literal(struct normal *normal)
{
    const char quote = normal->in[normal->at++];

    if (ends_with(normal, "'+"))
        normal->out_len -= 2; /* joined to the literal before */
    else
        put(normal, "'");
    while (normal->at < normal->len && normal->in[normal->at] != quote) {
        const char c = normal->in[normal->at++];
        if (c == '\'' || c == '"') return false;
        if (c == '\\' && normal->at < normal->len) {
            put_char(normal, c);
            put_char(normal, normal->in[normal->at++]);
        } else {
            put(normal, c == '\n' ? "\\n" : (char[]){ c, 0 });
        }
    }
    if (normal->at == normal->len) return false;
    normal->at++;
    put(normal, "'");
    return true;
}

/* .name after a word or a bracket: ['name'] */
static bool take_attribute(struct normal *normal)
{
    size_t end = normal->at + 1;

    while (end < normal->len && is_word(normal->in[end]))
        end++;
    if (end == normal->at + 1) return false;
    put(normal, "['");
    while (++normal->at < end)
        put_char(normal, normal->in[normal->at]);
    put(normal, "']");
    return true;
}

/* From behind "{{" or "{%" to behind `close`. */
static bool take_inside(struct normal *normal, const char *close)
{
    if (looking_at(normal, "-") || looking_at(normal, "+")) normal->at++;
    while (normal->at < normal->len) {
        const char c = normal->in[normal->at];
        const bool dash = c == '-';
        if (dash) normal->at++;
        if (looking_at(normal, close)) {
            put(normal, close);
            normal->at += 2;
            if (dash) {
                while (normal->at < normal->len && is_space(normal->in[normal->at]))
                    normal->at++;
            } else if (close[0] == '%' && looking_at(normal, "\n")) {
                normal->at++;
            }
            return true;
        }
        if (dash) {
            put_char(normal, '-');
        } else if (c == '\'' || c == '"') {
            if (!take_literal(normal)) return false;
        } else if (c == '.') {
            if (!take_attribute(normal)) return false;
        } else {
            if (!is_space(c)) put_char(normal, c);
            normal->at++;
        }
    }
    return false;
}

/* The template in normal form, NUL-terminated; the caller frees. NULL if it has none (or no
 * memory): then it is not one of ours either. */
static char *normalize(struct gguf_string text)
{
    struct normal normal = { .in = text.data, .len = text.len };

    if (text.len > TEMPLATE_SIZE_MAX || memchr(text.data, 0, text.len) != NULL) return NULL;
    normal.out = malloc(4 * text.len + 5);
    if (normal.out == NULL) return NULL;
    while (normal.at < normal.len) {
        const bool statement = looking_at(&normal, "{%");
        if (!statement && !looking_at(&normal, "{{")) {
            put_char(&normal, normal.in[normal.at++]);
            continue;
        }
        if (looking_at(&normal, "{%-") || looking_at(&normal, "{{-")) {
            while (normal.out_len > 0 && is_space(normal.out[normal.out_len - 1]))
                normal.out_len--;
        }
        put(&normal, statement ? "{%" : "{{");
        normal.at += 2;
        if (!take_inside(&normal, statement ? "%}" : "}}")) {
            free(normal.out);
            return NULL;
        }
    }
    normal.out[normal.out_len] = 0;
    return normal.out;
}

/* ---- recognition ---- */

/* Moves *text behind `prefix` if it starts with it. */
static bool skip(const char **text, const char *prefix)
{
    const size_t len = strlen(prefix);

    if (strncmp(*text, prefix, len) != 0) return false;
    *text += len;
    return true;
}

/* A literal's escapes undone, into `out` (room for len). False for an escape we do not know. */
static bool unescape(const char *text, size_t len, char *out, size_t *out_len)
{
    *out_len = 0;
    for (size_t i = 0; i < len; i++) {
        char c = text[i];
        if (c == '\\') {
            if (++i == len) return false;
            if (text[i] == 'n')
                c = '\n';
            else if (text[i] == 't')
                c = '\t';
            else if (text[i] == '\\' || text[i] == '\'' || text[i] == '"')
                c = text[i];
            else
                return false;
        }
        out[(*out_len)++] = c;
    }
    return true;
}

/* The default system message between SYSTEM_OPEN and SYSTEM_CLOSE, where *text is behind the
 * former. */
static bool take_system(struct chat *chat, const char **text)
{
    const char *close = strstr(*text, SYSTEM_CLOSE);

    if (close == NULL) return false;
    const size_t len = (size_t)(close - *text);
    if (len > CHAT_DEFAULT_SYSTEM_MAX || memchr(*text, '\'', len) != NULL) return false;
    chat->system = malloc(len + 1);
    if (chat->system == NULL) return false;
    if (!unescape(*text, len, chat->system, &chat->system_len)) return false;
    if (memmem(chat->system, chat->system_len, "<|", 2) != NULL) return false; /* another token */
    *text = close + strlen(SYSTEM_CLOSE);
    return true;
}

static bool recognize(struct chat *chat, const char *text)
{
    (void)skip(&text, ASK_DEFAULTED);
    if (!skip(&text, FOR)) return false;
    if (skip(&text, SYSTEM_OPEN) && !take_system(chat, &text)) return false;
    return skip(&text, MESSAGE END ASK) && *text == 0;
}

static enum status from_file(struct chat *chat, const struct gguf *gguf, struct errmsg *err)
{
    struct gguf_string text;

    enum status status = gguf_get_string(gguf, "tokenizer.chat_template", &text, err);
    if (status == STATUS_NOT_FOUND) {
        return errmsg_set(err, STATUS_UNSUPPORTED,
                          "the model has no chat template; choose one with --chat-template chatml "
                          "(or none)");
    }
    if (status != STATUS_OK) return status;
    char *normal = normalize(text);
    const bool known = normal != NULL && recognize(chat, normal);
    free(normal);
    if (known) return STATUS_OK;
    return errmsg_set(err, STATUS_UNSUPPORTED,
                      "the model's chat template \"%.40s...\" is not recognised; choose one with "
                      "--chat-template chatml (or none)",
                      gguf_show(text).text);
}

static enum status find_tokens(struct chat *chat, struct errmsg *err)
{
    chat->start = tokenizer_find_special(chat->tokenizer, "<|im_start|>");
    chat->end = tokenizer_find_special(chat->tokenizer, "<|im_end|>");
    if (chat->start != TOKENIZER_NONE && chat->end != TOKENIZER_NONE) return STATUS_OK;
    return errmsg_set(err, STATUS_INVALID,
                      "the vocabulary has no special token %s, which ChatML needs",
                      chat->start == TOKENIZER_NONE ? "<|im_start|>" : "<|im_end|>");
}

static enum status choose(struct chat *chat, const struct gguf *gguf, const char *name,
                          struct errmsg *err)
{
    chat->form = CHAT_ML;
    if (name == NULL || strcmp(name, "auto") == 0) {
        enum status status = from_file(chat, gguf, err);
        if (status != STATUS_OK) return status;
    } else if (strcmp(name, "none") == 0) {
        chat->form = CHAT_NONE;
        return STATUS_OK;
    } else if (strcmp(name, "chatml") != 0) {
        return errmsg_set(err, STATUS_INVALID,
                          "--chat-template: \"%.60s\" is not one of auto, chatml, none", name);
    }
    return find_tokens(chat, err);
}

enum status chat_create(const struct gguf *gguf, const struct tokenizer *tokenizer,
                        const char *name, struct chat **out, struct errmsg *err)
{
    struct chat *chat = calloc(1, sizeof(*chat));

    ASSERT(tokenizer != NULL);
    if (chat == NULL) return errmsg_set(err, STATUS_NO_MEMORY, "no memory for the chat template");
    chat->tokenizer = tokenizer;
    enum status status = choose(chat, gguf, name, err);
    if (status != STATUS_OK) {
        chat_destroy(chat);
        return status;
    }
    *out = chat;
    return STATUS_OK;
}

void chat_destroy(struct chat *chat)
{
    if (chat == NULL) return;
    free(chat->system);
    free(chat);
}

const char *chat_name(const struct chat *chat)
{
    if (chat->form == CHAT_NONE) return "none";
    return chat->system != NULL ? "chatml with a default system message" : "chatml";
}

/* ---- rendering ---- */

struct writer {
    struct buf text;
    struct buf pieces;  /* of struct chat_piece */
    size_t piece_start; /* text from here on is not in a piece yet */
    enum status status; /* sticky */
};

static void write_text(struct writer *writer, const char *text, size_t len)
{
    if (writer->status != STATUS_OK || len == 0) return;
    writer->status = buf_append(&writer->text, text, len);
}

static void write_piece(struct writer *writer, struct chat_piece piece)
{
    if (writer->status != STATUS_OK) return;
    writer->status = buf_append(&writer->pieces, &piece, sizeof(piece));
}

/* Makes one piece of the text written since the last token. */
static void end_text(struct writer *writer)
{
    const size_t len = writer->text.len - writer->piece_start;

    if (len == 0) return;
    write_piece(writer, (struct chat_piece){ TOKENIZER_NONE, writer->piece_start, len });
    writer->piece_start = writer->text.len;
}

static void write_token(struct writer *writer, uint32_t token)
{
    end_text(writer);
    write_piece(writer, (struct chat_piece){ token, writer->text.len, 0 });
}

static void write_message(struct writer *writer, const struct chat *chat, const char *role,
                          size_t role_len, const char *content, size_t content_len)
{
    write_token(writer, chat->start);
    write_text(writer, role, role_len);
    write_text(writer, "\n", 1);
    write_text(writer, content, content_len);
    write_token(writer, chat->end);
    write_text(writer, "\n", 1);
}

static bool has_role(const struct chat_message *message, const char *role)
{
    return message->role_len == strlen(role) && memcmp(message->role, role, strlen(role)) == 0;
}

static enum status check_messages(const struct chat_message *messages, size_t count,
                                  struct errmsg *err)
{
    static const char *const roles[] = { "system", "user", "assistant", "tool" };

    if (count == 0) return errmsg_set(err, STATUS_INVALID, "there are no messages");
    if (count > CHAT_MESSAGES_MAX) {
        return errmsg_set(err, STATUS_INVALID, "%zu messages, at most %d", count,
                          CHAT_MESSAGES_MAX);
    }
    for (size_t i = 0; i < count; i++) {
        bool known = false;
        for (size_t k = 0; k < sizeof(roles) / sizeof(roles[0]); k++) {
            if (has_role(&messages[i], roles[k])) known = true;
        }
        if (known) continue;
        const struct gguf_string role = { messages[i].role, messages[i].role_len };
        return errmsg_set(err, STATUS_INVALID,
                          "messages[%zu].role is \"%s\", expected system, user, assistant or tool",
                          i, gguf_show(role).text);
    }
    return STATUS_OK;
}

static void write_chatml(struct writer *writer, const struct chat *chat,
                         const struct chat_message *messages, size_t count, bool generate)
{
    if (chat->system != NULL && !has_role(&messages[0], "system")) {
        write_message(writer, chat, "system", 6, chat->system, chat->system_len);
    }
    for (size_t i = 0; i < count; i++) {
        write_message(writer, chat, messages[i].role, messages[i].role_len, messages[i].content,
                      messages[i].content_len);
    }
    if (!generate) return;
    write_token(writer, chat->start);
    write_text(writer, "assistant\n", 10);
}

static void write_all(struct writer *writer, const struct chat *chat,
                      const struct chat_message *messages, size_t count, bool generate)
{
    if (tokenizer_adds_bos(chat->tokenizer)) write_token(writer, tokenizer_bos(chat->tokenizer));
    switch (chat->form) {
    case CHAT_ML: write_chatml(writer, chat, messages, count, generate); break;
    case CHAT_NONE:
        for (size_t i = 0; i < count; i++) {
            if (i > 0) write_text(writer, "\n", 1);
            write_text(writer, messages[i].content, messages[i].content_len);
        }
        break;
    }
    end_text(writer);
}

static enum status take_prompt(struct writer *writer, struct chat_prompt *out)
{
    uint8_t *text = NULL, *pieces = NULL;
    size_t text_len = 0, pieces_len = 0;

    if (writer->status != STATUS_OK) return writer->status;
    enum status status = buf_take(&writer->text, &text, &text_len);
    if (status != STATUS_OK) return status;
    status = buf_take(&writer->pieces, &pieces, &pieces_len);
    if (status != STATUS_OK) {
        free(text);
        return status;
    }
    out->text = (char *)text;
    out->text_len = text_len;
    out->pieces = (struct chat_piece *)(void *)pieces;
    out->pieces_count = pieces_len / sizeof(struct chat_piece);
    return STATUS_OK;
}

enum status chat_render(const struct chat *chat, const struct chat_message *messages,
                        size_t messages_count, bool generate, struct chat_prompt *out,
                        struct errmsg *err)
{
    struct writer writer = { .status = STATUS_OK };

    enum status status = check_messages(messages, messages_count, err);
    if (status != STATUS_OK) return status;
    buf_init(&writer.text, TOKENIZER_TEXT_SIZE_MAX);
    buf_init(&writer.pieces, (CHAT_MESSAGES_MAX * 4 + 16) * sizeof(struct chat_piece));
    write_all(&writer, chat, messages, messages_count, generate);
    status = take_prompt(&writer, out);
    buf_fini(&writer.text);
    buf_fini(&writer.pieces);
    return status;
}

void chat_prompt_fini(struct chat_prompt *prompt)
{
    free(prompt->text);
    free(prompt->pieces);
    *prompt = (struct chat_prompt){ 0 };
}

enum status chat_encode(const struct chat *chat, const struct chat_message *messages,
                        size_t messages_count, bool generate, uint32_t *tokens, size_t tokens_max,
                        size_t *count, struct errmsg *err)
{
    struct chat_prompt prompt;
    size_t used = 0;

    enum status status = chat_render(chat, messages, messages_count, generate, &prompt, err);
    if (status != STATUS_OK) return status;
    for (size_t i = 0; i < prompt.pieces_count && status == STATUS_OK; i++) {
        const struct chat_piece *piece = &prompt.pieces[i];
        if (piece->token == TOKENIZER_NONE) {
            status = tokenizer_encode(chat->tokenizer, prompt.text + piece->offset, piece->len,
                                      tokens, tokens_max, &used);
        } else if (used == tokens_max) {
            status = STATUS_FULL;
        } else {
            tokens[used++] = piece->token;
        }
    }
    chat_prompt_fini(&prompt);
    if (status == STATUS_OK) *count = used;
    return status;
}
