/* SPDX-License-Identifier: Apache-2.0
 *
 * model/template.h - the language in which chat templates are written: the part of Jinja that they
 * use, as Hugging Face's libraries run it (blocks trim their newline and their indentation).
 *
 * A template is a program from a model file, so it is run as one: it can read the conversation it
 * is given and write text, and nothing else. It has no clock, no files, no randomness, and bounds
 * on steps, memory and depth. What it does not know it refuses when it is parsed, by name and line:
 * statements, filters, tests and methods beyond those in the tables of template_call.c.
 *
 * Every byte of the output carries a mark: whether the template wrote it, or one of the values it
 * was given (a message, a tool). Marks go with the bytes through every operation, so a reader can
 * tell "<|im_end|>" of the template from "<|im_end|>" of a user, however it was cut and joined.
 *
 * What is different from Jinja: a list or an object is printed only by `tojson`; `{{ undefined }}`
 * is empty and everything else done to it fails; integers have 64 bits; sorting is by text or
 * number.
 *
 * Threads: a parsed template is immutable; rendering works on memory of its own.
 * Limits:  TEMPLATE_* below. */
#ifndef MODEL_TEMPLATE_H
#define MODEL_TEMPLATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

struct json_value;
struct template; /* opaque */

enum {
    TEMPLATE_SIZE_MAX = 1 << 18,
    TEMPLATE_DEPTH_MAX = 96,       /* of nested expressions, blocks and macro calls */
    TEMPLATE_STEPS_MAX = 1 << 23,  /* expressions evaluated in one rendering */
    TEMPLATE_MEMORY_MIN = 8 << 20, /* one rendering may use so much, and TEMPLATE_MEMORY_FACTOR */
    TEMPLATE_MEMORY_FACTOR = 32,   /* times the length of what it is given */
};

/* STATUS_UNSUPPORTED with the line and the name of what is not known, or what does not parse;
 * STATUS_FULL if it is too long, STATUS_NO_MEMORY. `text` may go afterwards. */
MUST_USE enum status template_parse(const char *text, size_t len, struct template **out,
                                    struct errmsg *err);
void template_destroy(struct template *template); /* NULL is allowed */

/* One variable of a rendering. */
enum template_input_kind {
    TEMPLATE_INPUT_TEXT,
    TEMPLATE_INPUT_BOOL,
    TEMPLATE_INPUT_JSON,
    TEMPLATE_INPUT_NOW, /* no variable: what strftime_now() says, which is 1970 otherwise */
};

struct template_input {
    const char *name;
    enum template_input_kind kind;
    bool flag;        /* BOOL */
    bool marked;      /* TEXT and JSON: not the template's own words */
    const char *text; /* TEXT */
    size_t text_len;
    const struct json_value *json; /* JSON; NULL: none */
    int64_t now_s;                 /* NOW: since 1970, UTC */
};

/* Messages are a variable of their own, because they are many and not JSON yet. Absent members
 * (data NULL) are not there at all; content that is absent is none. */
struct template_message {
    const char *role, *content, *name, *tool_call_id;
    size_t role_len, content_len, name_len, tool_call_id_len;
    const struct json_value *tool_calls; /* as in the API, but arguments may be text of an object */
};

struct template_output {
    char *text;
    uint8_t *marks; /* as many: 1 for bytes of marked inputs */
    size_t len;
};

/* On success the caller owns *out and ends it with template_output_fini(). STATUS_INVALID if the
 * template refuses its input (raise_exception) or does what cannot be done (err says what and in
 * which line); STATUS_FULL if it takes too much; STATUS_NO_MEMORY. Messages are marked. */
MUST_USE enum status template_render(const struct template *template,
                                     const struct template_message *messages, size_t messages_count,
                                     const struct template_input *inputs, size_t inputs_count,
                                     struct template_output *out, struct errmsg *err);
void template_output_fini(struct template_output *output);

#endif
