/* SPDX-License-Identifier: Apache-2.0
 *
 * infer/grammar.h - answers of a given form: which tokens may come next.
 *
 * A grammar says which texts are allowed. It is compiled from a JSON document:
 *
 *   {"object": true}        any JSON object
 *   {"schema": SCHEMA}      JSON that is valid by this JSON Schema
 *   {"calls": {"style": "hermes" | "llama3" | "mistral", "many": BOOL, "lazy": BOOL,
 *              "tools": [{"name": TEXT, "parameters": SCHEMA}, ...]}}
 *                           one call of one of the tools, or several, as models of that family
 *                           write them, behind the opening mark (model/chat.h); if lazy, any text
 *                           until the model writes the mark itself, and then a call
 *
 * Of schemas these keywords are understood: type, enum, const, properties, required,
 * additionalProperties, items, prefixItems, minItems, maxItems, minLength, maxLength, pattern,
 * minimum, maximum, exclusiveMinimum, exclusiveMaximum, multipleOf (grammar_multiple.c), not of
 * type, enum, const and anyOf of these (grammar_except.c), anyOf, oneOf, allOf of one, $ref within
 * the document, $defs, definitions, and of format: date, time, date-time, uuid, ipv4. Annotations
 * (title, description, default, examples, other formats, ...) are passed over, as the specification
 * has it. Any other keyword is refused by name and place.
 *
 * What is produced is a subset of what the schema allows, chosen to be short: declared properties
 * only, in their order, unless none is declared; items behind prefixItems only where `items` or
 * minItems asks for them; numbers of at most 16 digits before and 15 behind the point, between
 * bounds and of multiples without an exponent; in texts with a pattern or format only escapes that
 * are needed; at most one blank, or a newline and an indentation, between things. Where the schemas
 * of a oneOf cannot be shown to exclude each other it is refused (grammar_judge.c).
 *
 * A matcher follows one answer, token by token. Its state is a function of the tokens so far, so an
 * answer is continued on another node by following the tokens again.
 *
 * Invariants
 *   I1  Whatever has been followed from masks, some token is allowed: every state can be completed,
 *       and with bytes that are tokens of the vocabulary by themselves.
 *   I2  The end is allowed exactly when the text is complete; in free text, always.
 *   I3  In free text every token is allowed but one that begins a call and goes on as none.
 *
 * Memory:  a compiled grammar has at most GRAMMAR_SIZE_MAX symbols (2 MB); a matcher a few bits per
 *          token of the vocabulary and at most some MB for its stacks.
 * Threads: words and grammars are immutable; a matcher belongs to one thread at a time.
 * Limits:  GRAMMAR_* below. Where a text can be read in more than GRAMMAR_THREADS_MAX ways at once,
 *          some of them are given up: less is allowed, never more. */
#ifndef INFER_GRAMMAR_H
#define INFER_GRAMMAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

struct tokenizer;
struct grammar;         /* opaque */
struct grammar_words;   /* opaque: what the tokens of a vocabulary say */
struct grammar_matcher; /* opaque */

enum {
    GRAMMAR_TEXT_MAX = 1 << 16,   /* bytes of the document */
    GRAMMAR_SIZE_MAX = 1 << 18,   /* symbols of all rules */
    GRAMMAR_NESTING_MAX = 48,     /* of schemas in schemas, $ref not counted */
    GRAMMAR_PROPERTIES_MAX = 256, /* of one object */
    GRAMMAR_CHOICES_MAX = 1024,   /* values of an enum, schemas of an anyOf, tools */
    GRAMMAR_COUNT_MAX = 8192,     /* minItems and the like */
    GRAMMAR_DEPTH_MAX = 128,      /* of the stack: how deep an answer may nest, about twice this */
    GRAMMAR_THREADS_MAX = 1024,
};

/* STATUS_INVALID if it is malformed, not supported, too large, or allows nothing; err begins with
 * the place ("schema.properties.a: ..."). STATUS_NO_MEMORY. */
MUST_USE enum status grammar_compile(const char *text, size_t len, struct grammar **out,
                                     struct errmsg *err);
void grammar_destroy(struct grammar *grammar); /* NULL is allowed */
/* Is free text allowed, so that an answer without the grammar is an answer, too? */
bool grammar_is_lazy(const struct grammar *grammar);

/* STATUS_UNSUPPORTED if some byte of ASCII text is no token, or no token ends an answer. The
 * tokenizer must outlive the words. */
MUST_USE enum status grammar_words_create(const struct tokenizer *tokenizer,
                                          struct grammar_words **out, struct errmsg *err);
void grammar_words_destroy(struct grammar_words *words); /* NULL is allowed */

/* Both must outlive the matcher. STATUS_UNSUPPORTED if a name or a value in the grammar has a byte
 * that is no token of the vocabulary, STATUS_NO_MEMORY. */
MUST_USE enum status grammar_matcher_create(const struct grammar *grammar,
                                            const struct grammar_words *words,
                                            struct grammar_matcher **out);
void grammar_matcher_destroy(struct grammar_matcher *matcher); /* NULL is allowed */

/* The answer so far, from its first token; what has been followed before is not looked at again. A
 * token that was not allowed (of another sampler) makes the end the only thing that is. */
void grammar_matcher_follow(struct grammar_matcher *matcher, const uint32_t *tokens,
                            uint64_t count);

/* May this token come next? */
bool grammar_matcher_allows(struct grammar_matcher *matcher, uint32_t token);

/* One bit per token, 64 to a word; valid until the next call. At least one is set. */
const uint64_t *grammar_matcher_mask(struct grammar_matcher *matcher);

#endif
