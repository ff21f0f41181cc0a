/* SPDX-License-Identifier: Apache-2.0
 *
 * model/template_parse.c - text to tree, by recursive descent.
 *
 * The text is data between tags: {{ expression }}, {% statement %}, {# comment #}. White space
 * around tags goes as Hugging Face's libraries set Jinja up:
 *   - "-" inside a tag takes all white space on that side;
 *   - a newline right behind %} or #} goes (trim_blocks);
 *   - blanks between the start of a line and {% or {# go, unless it is {%+ (lstrip_blocks);
 *   - one newline at the end of the template goes.
 *
 * Precedence, loosest first: x if y else z; or; and; not; comparisons and `in`; + -; ~; * / // %;
 * unary -; then, to one operand: .name [item] (call) |filter `is` test. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "model/template_int.h"

enum lexeme_kind { LEX_END, LEX_NAME, LEX_STRING, LEX_INT, LEX_FLOAT, LEX_OPERATOR };

struct lexeme {
    enum lexeme_kind kind;
    const char *start; /* of its text, in the source; a string without its quotes */
    size_t len;
};

struct parse {
    const char *text;
    size_t len, at;
    size_t counted; /* bytes whose newlines are in `lines` */
    unsigned lines;
    struct arena *arena;
    struct lexeme next; /* within a tag */
    unsigned braces;    /* open in this tag: "}}" may close two of them */
    bool strip;         /* the last tag ended with "-" */
    bool block;         /* ... and was no expression */
    bool line_start;    /* only blanks between here and the start of a line */
    unsigned depth;
    enum status status; /* sticky */
    struct errmsg *err;
};

static struct node *expression(struct parse *parse);
static struct node *statements(struct parse *parse, const char *const ends[]);

/* ---- errors, memory ---- */

/* Counts on from where it counted last; going back a little counts for the later line. */
static unsigned line_of(struct parse *parse)
{
    for (; parse->counted < parse->at && parse->counted < parse->len; parse->counted++)
        parse->lines += parse->text[parse->counted] == '\n';
    return parse->lines + 1;
}

static void *refuse(struct parse *parse, const char *what, const char *name, size_t len)
{
    char shown[64];
    size_t n = 0;

    if (parse->status != STATUS_OK) return NULL;
    for (; n < len && n + 1 < sizeof(shown); n++)
        shown[n] = name[n] >= ' ' && name[n] < 0x7f ? name[n] : '?';
    shown[n] = '\0';
    parse->status = errmsg_set(parse->err, STATUS_UNSUPPORTED, "line %u: %s%s%s%s", line_of(parse),
                               what, n > 0 ? " \"" : "", shown, n > 0 ? "\"" : "");
    return NULL;
}

static void *refuse_next(struct parse *parse, const char *what)
{
    if (parse->next.kind == LEX_END) return refuse(parse, what, "the end of a tag", 16);
    return refuse(parse, what, parse->next.start, parse->next.len);
}

static void *allocate(struct parse *parse, size_t size)
{
    void *memory = parse->status == STATUS_OK ? arena_calloc(parse->arena, 1, size) : NULL;

    if (memory == NULL && parse->status == STATUS_OK)
        parse->status = errmsg_set(parse->err, STATUS_NO_MEMORY, "no memory for the template");
    return memory;
}

static struct node *node_create(struct parse *parse, enum node_kind kind)
{
    struct node *node = allocate(parse, sizeof(*node));

    if (node == NULL) return NULL;
    node->kind = kind;
    node->line = line_of(parse);
    return node;
}

static const char *keep(struct parse *parse, const char *text, size_t len)
{
    const char *copy = parse->status == STATUS_OK ? arena_text(parse->arena, text, len) : NULL;

    if (copy == NULL && parse->status == STATUS_OK)
        parse->status = errmsg_set(parse->err, STATUS_NO_MEMORY, "no memory for the template");
    return copy;
}

static bool descend(struct parse *parse)
{
    if (parse->status != STATUS_OK) return false;
    if (parse->depth == TEMPLATE_DEPTH_MAX) {
        refuse(parse, "nested too deeply", "", 0);
        return false;
    }
    parse->depth++;
    return true;
}

/* ---- lexemes ---- */

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == '\v';
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || is_digit(c);
}

static bool looking_at(const struct parse *parse, const char *text)
{
    const size_t len = strlen(text);

    return parse->len - parse->at >= len && memcmp(parse->text + parse->at, text, len) == 0;
}

static void lex_string(struct parse *parse)
{
    const char quote = parse->text[parse->at];
    size_t end = parse->at + 1;

    while (end < parse->len && parse->text[end] != quote)
        end += parse->text[end] == '\\' && end + 1 < parse->len ? 2 : 1;
    if (end >= parse->len) {
        refuse(parse, "a text has no end", "", 0);
        return;
    }
    parse->next = (struct lexeme){ LEX_STRING, parse->text + parse->at + 1, end - parse->at - 1 };
    parse->at = end + 1;
}

static void lex_number(struct parse *parse)
{
    size_t end = parse->at;
    enum lexeme_kind kind = LEX_INT;

    while (end < parse->len && is_digit(parse->text[end]))
        end++;
    if (end + 1 < parse->len && parse->text[end] == '.' && is_digit(parse->text[end + 1])) {
        kind = LEX_FLOAT;
        end++;
        while (end < parse->len && is_digit(parse->text[end]))
            end++;
    }
    parse->next = (struct lexeme){ kind, parse->text + parse->at, end - parse->at };
    parse->at = end;
}

static bool at_tag_end(const struct parse *parse)
{
    if (parse->braces > 0) return false;
    return looking_at(parse, "%}") || looking_at(parse, "}}") || looking_at(parse, "-%}") ||
           looking_at(parse, "-}}") || looking_at(parse, "+%}");
}

static void lex_operator(struct parse *parse)
{
    static const char *const LONG[] = { "==", "!=", "<=", ">=", "//", "**" };

    for (size_t i = 0; i < sizeof(LONG) / sizeof(LONG[0]); i++) {
        if (!looking_at(parse, LONG[i])) continue;
        parse->next = (struct lexeme){ LEX_OPERATOR, parse->text + parse->at, 2 };
        parse->at += 2;
        return;
    }
    if (strchr("+-*/%~<>=.,:|()[]{}", parse->text[parse->at]) == NULL) {
        refuse(parse, "unexpected", parse->text + parse->at, 1);
        return;
    }
    const char c = parse->text[parse->at];
    if (c == '{') parse->braces++;
    if (c == '}' && parse->braces > 0) parse->braces--;
    parse->next = (struct lexeme){ LEX_OPERATOR, parse->text + parse->at, 1 };
    parse->at++;
}

static void advance(struct parse *parse)
{
    parse->next = (struct lexeme){ LEX_END, parse->text, 0 };
    while (parse->at < parse->len && is_blank(parse->text[parse->at]))
        parse->at++;
    if (parse->status != STATUS_OK || parse->at == parse->len || at_tag_end(parse)) return;
    const char c = parse->text[parse->at];
    if (c == '\'' || c == '"') {
        lex_string(parse);
    } else if (is_digit(c)) {
        lex_number(parse);
    } else if (is_word(c)) {
        size_t end = parse->at;
        while (end < parse->len && is_word(parse->text[end]))
            end++;
        parse->next = (struct lexeme){ LEX_NAME, parse->text + parse->at, end - parse->at };
        parse->at = end;
    } else {
        lex_operator(parse);
    }
}

static bool next_is(const struct parse *parse, enum lexeme_kind kind, const char *text)
{
    return parse->next.kind == kind && parse->next.len == strlen(text) &&
           memcmp(parse->next.start, text, parse->next.len) == 0;
}

static bool accept(struct parse *parse, enum lexeme_kind kind, const char *text)
{
    if (parse->status != STATUS_OK || !next_is(parse, kind, text)) return false;
    advance(parse);
    return true;
}

static bool accept_op(struct parse *parse, const char *text)
{
    return accept(parse, LEX_OPERATOR, text);
}

static bool accept_word(struct parse *parse, const char *text)
{
    return accept(parse, LEX_NAME, text);
}

static void expect_op(struct parse *parse, const char *text)
{
    if (!accept_op(parse, text)) refuse_next(parse, "unexpected");
}

static const char *expect_name(struct parse *parse)
{
    if (parse->status != STATUS_OK) return NULL;
    if (parse->next.kind != LEX_NAME) return refuse_next(parse, "a name is missing before");
    const char *name = keep(parse, parse->next.start, parse->next.len);
    advance(parse);
    return name;
}

/* ---- expressions ---- */

static char unescaped(char c)
{
    switch (c) {
    case 'n': return '\n';
    case 't': return '\t';
    case 'r': return '\r';
    default: return c;
    }
}

static bool is_escape(char c)
{
    return strchr("ntr\\'\"\n", c) != NULL;
}

/* A literal; adjacent literals are not joined, as few know that Python does. */
static struct node *string_literal(struct parse *parse)
{
    struct node *node = node_create(parse, NODE_STRING);
    char *text = allocate(parse, parse->next.len + 1);
    size_t len = 0;

    if (node == NULL || text == NULL) return NULL;
    for (size_t i = 0; i < parse->next.len; i++) {
        char c = parse->next.start[i];
        if (c == '\\' && is_escape(parse->next.start[i + 1]))
            c = unescaped(parse->next.start[++i]);
        else if (c == '\\' && strchr("uxUN0abfv", parse->next.start[i + 1]) != NULL)
            return refuse(parse, "unknown escape", parse->next.start + i, 2);
        text[len++] = c;
    }
    node->text = text;
    node->text_len = len;
    advance(parse);
    return node;
}

static struct node *number_literal(struct parse *parse)
{
    char digits[32];
    struct node *node = node_create(parse, parse->next.kind == LEX_INT ? NODE_INT : NODE_FLOAT);

    if (node == NULL) return NULL;
    if (parse->next.len > 18) return refuse_next(parse, "a number is too long:");
    memcpy(digits, parse->next.start, parse->next.len);
    digits[parse->next.len] = '\0';
    node->integer = node->kind == NODE_INT ? strtoll(digits, NULL, 10) : 0;
    node->number = strtod(digits, NULL);
    advance(parse);
    return node;
}

static struct node *constant(struct parse *parse)
{
    static const struct {
        const char *word;
        int64_t value;
    } WORDS[] = { { "true", 1 },  { "True", 1 }, { "false", 0 },
                  { "False", 0 }, { "none", 2 }, { "None", 2 } };

    for (size_t i = 0; i < sizeof(WORDS) / sizeof(WORDS[0]); i++) {
        if (!accept_word(parse, WORDS[i].word)) continue;
        struct node *node = node_create(parse, NODE_CONST);
        if (node != NULL) node->integer = WORDS[i].value;
        return node;
    }
    return NULL;
}

/* Expressions with commas between them, up to `end`, which goes. */
static struct node *listing(struct parse *parse, const char *end, bool pairs)
{
    struct node *first = NULL, **tail = &first;

    while (parse->status == STATUS_OK && !accept_op(parse, end)) {
        for (int part = 0; part < (pairs ? 2 : 1); part++) {
            if (part == 1) expect_op(parse, ":");
            *tail = expression(parse);
            if (*tail == NULL) return NULL;
            tail = &(*tail)->next;
        }
        if (!next_is(parse, LEX_OPERATOR, end)) expect_op(parse, ",");
    }
    return first;
}

/* (x) is x; (x, y) and () are lists. */
static struct node *parenthesis(struct parse *parse)
{
    struct node *node = node_create(parse, NODE_LIST);

    if (node == NULL || accept_op(parse, ")")) return node;
    struct node *first = expression(parse);
    if (first == NULL || accept_op(parse, ")")) return first;
    expect_op(parse, ",");
    node->list = first;
    first->next = listing(parse, ")", false);
    return node;
}

static struct node *primary(struct parse *parse)
{
    struct node *node = NULL;

    if (parse->next.kind == LEX_STRING) return string_literal(parse);
    if (parse->next.kind == LEX_INT || parse->next.kind == LEX_FLOAT) return number_literal(parse);
    if (accept_op(parse, "(")) return parenthesis(parse);
    if (accept_op(parse, "[")) {
        node = node_create(parse, NODE_LIST);
        if (node != NULL) node->list = listing(parse, "]", false);
        return node;
    }
    if (accept_op(parse, "{")) {
        node = node_create(parse, NODE_DICT);
        if (node != NULL) node->list = listing(parse, "}", true);
        return node;
    }
    if (parse->next.kind != LEX_NAME) return refuse_next(parse, "unexpected");
    node = constant(parse);
    if (node != NULL || parse->status != STATUS_OK) return node;
    node = node_create(parse, NODE_NAME);
    if (node != NULL) node->text = expect_name(parse);
    return node;
}

/* Behind "(": x, y, name=z ) */
static struct node *arguments(struct parse *parse)
{
    struct node *first = NULL, **tail = &first;
    unsigned count = 0;

    while (parse->status == STATUS_OK && !accept_op(parse, ")")) {
        const struct parse before = *parse;
        const char *name = parse->next.kind == LEX_NAME ? expect_name(parse) : NULL;
        if (name == NULL || !accept_op(parse, "=")) {
            name = NULL;
            if (parse->status == STATUS_OK) *parse = before;
        }
        *tail = expression(parse);
        if (*tail == NULL) return NULL;
        /* The name goes on a node of its own: the expression may use its text. */
        struct node *argument = node_create(parse, NODE_GROUP);
        if (argument == NULL) return NULL;
        argument->a = *tail;
        argument->text = name;
        *tail = argument;
        tail = &argument->next;
        if (++count > ARGUMENTS_MAX) return refuse(parse, "too many arguments", "", 0);
        if (!next_is(parse, LEX_OPERATOR, ")")) expect_op(parse, ",");
    }
    return first;
}

/* Behind "[": an item or a slice. */
static struct node *subscript(struct parse *parse, struct node *of)
{
    struct node *node = node_create(parse, NODE_ITEM);

    if (node == NULL) return NULL;
    node->a = of;
    if (!next_is(parse, LEX_OPERATOR, ":")) node->b = expression(parse);
    if (accept_op(parse, "]")) return node;
    expect_op(parse, ":");
    node->kind = NODE_SLICE;
    if (!next_is(parse, LEX_OPERATOR, ":") && !next_is(parse, LEX_OPERATOR, "]"))
        node->c = expression(parse);
    if (accept_op(parse, ":") && !next_is(parse, LEX_OPERATOR, "]")) node->list = expression(parse);
    expect_op(parse, "]");
    return node;
}

/* A method is an attribute that is called: its name is checked now. */
static struct node *call(struct parse *parse, struct node *callee)
{
    struct node *node = node_create(parse, NODE_CALL);

    if (node == NULL) return NULL;
    node->a = callee;
    if (callee->kind == NODE_ATTR) {
        node->function = template_method(callee->text);
        if (node->function == NULL)
            return refuse(parse, "unknown method", callee->text, strlen(callee->text));
    } else if (callee->kind != NODE_NAME) {
        return refuse(parse, "only names can be called", "", 0);
    }
    node->list = arguments(parse);
    return node;
}

static struct node *postfix(struct parse *parse, struct node *node)
{
    while (node != NULL && parse->status == STATUS_OK) {
        if (accept_op(parse, ".")) {
            struct node *attribute = node_create(parse, NODE_ATTR);
            if (attribute == NULL) return NULL;
            attribute->a = node;
            attribute->text = expect_name(parse);
            node = attribute;
        } else if (accept_op(parse, "[")) {
            node = subscript(parse, node);
        } else if (accept_op(parse, "(")) {
            node = call(parse, node);
        } else {
            break;
        }
    }
    return node;
}

static struct node *filter(struct parse *parse, struct node *of)
{
    struct node *node = node_create(parse, NODE_FILTER);
    const char *name = expect_name(parse);

    if (node == NULL || name == NULL) return NULL;
    node->a = of;
    node->text = name;
    node->function = template_filter(name);
    if (node->function == NULL) return refuse(parse, "unknown filter", name, strlen(name));
    if (accept_op(parse, "(")) node->list = arguments(parse);
    return node;
}

/* `is divisibleby 3`: one operand without parentheses. */
static bool at_operand(const struct parse *parse)
{
    static const char *const OTHERS[] = { "and", "or", "else", "is", "in", "if", "not" };

    if (parse->next.kind == LEX_OPERATOR) return strchr("[{", parse->next.start[0]) != NULL;
    if (parse->next.kind == LEX_END) return false;
    for (size_t i = 0; i < sizeof(OTHERS) / sizeof(OTHERS[0]); i++) {
        if (next_is(parse, LEX_NAME, OTHERS[i])) return false;
    }
    return true;
}

static struct node *test(struct parse *parse, struct node *of)
{
    struct node *node = node_create(parse, NODE_TEST);

    if (node == NULL) return NULL;
    node->a = of;
    node->integer = accept_word(parse, "not");
    const char *name = expect_name(parse);
    if (name == NULL) return NULL;
    node->function = template_test(name);
    if (node->function == NULL) return refuse(parse, "unknown test", name, strlen(name));
    if (accept_op(parse, "(")) {
        node->list = arguments(parse);
    } else if (at_operand(parse)) {
        node->list = node_create(parse, NODE_GROUP);
        struct node *operand = postfix(parse, primary(parse));
        if (node->list != NULL) node->list->a = operand;
    }
    return node;
}

/* Minus binds tighter than filters: -3 | abs is 3. */
static struct node *signed_operand(struct parse *parse)
{
    if (!accept_op(parse, "-")) return postfix(parse, primary(parse));
    if (!descend(parse)) return NULL;
    struct node *node = node_create(parse, NODE_NEGATE);
    struct node *operand = signed_operand(parse);
    if (node != NULL) node->a = operand;
    parse->depth--;
    return node;
}

static struct node *unary(struct parse *parse)
{
    struct node *node = signed_operand(parse);

    while (node != NULL && parse->status == STATUS_OK) {
        if (accept_op(parse, "|")) {
            node = postfix(parse, filter(parse, node));
        } else if (accept_word(parse, "is")) {
            node = test(parse, node);
        } else {
            break;
        }
    }
    return node;
}

static struct node *pair(struct parse *parse, enum node_kind kind, int64_t which, struct node *a,
                         struct node *b)
{
    struct node *node = node_create(parse, kind);

    if (node == NULL) return NULL;
    node->integer = which;
    node->a = a;
    node->b = b;
    return node;
}

struct operators {
    const char *text;
    enum binary which;
};

/* Operators of one level, from the left. */
static struct node *level(struct parse *parse, const struct operators *operators,
                          struct node *(*operand)(struct parse *parse))
{
    struct node *node = operand(parse);

    while (parse->status == STATUS_OK) {
        const struct operators *found = operators;
        while (found->text != NULL && !accept_op(parse, found->text))
            found++;
        if (found->text == NULL) break;
        node = pair(parse, NODE_BINARY, found->which, node, operand(parse));
    }
    return node;
}

static struct node *product(struct parse *parse)
{
    static const struct operators OPERATORS[] = { { "*", BINARY_MUL },
                                                  { "//", BINARY_FLOOR },
                                                  { "/", BINARY_DIV },
                                                  { "%", BINARY_MOD },
                                                  { NULL, 0 } };
    return level(parse, OPERATORS, unary);
}

static struct node *joining(struct parse *parse)
{
    static const struct operators OPERATORS[] = { { "~", BINARY_CONCAT }, { NULL, 0 } };
    return level(parse, OPERATORS, product);
}

static struct node *sum(struct parse *parse)
{
    static const struct operators OPERATORS[] = { { "+", BINARY_ADD },
                                                  { "-", BINARY_SUB },
                                                  { NULL, 0 } };
    return level(parse, OPERATORS, joining);
}

static bool accept_not_in(struct parse *parse)
{
    const struct parse before = *parse;

    if (!accept_word(parse, "not")) return false;
    if (accept_word(parse, "in")) return true;
    if (parse->status == STATUS_OK) *parse = before;
    return false;
}

static struct node *comparison(struct parse *parse)
{
    static const struct operators OPERATORS[] = { { "==", BINARY_EQ }, { "!=", BINARY_NE },
                                                  { "<=", BINARY_LE }, { ">=", BINARY_GE },
                                                  { "<", BINARY_LT },  { ">", BINARY_GT },
                                                  { NULL, 0 } };
    struct node *node = level(parse, OPERATORS, sum);

    while (parse->status == STATUS_OK) {
        if (accept_word(parse, "in")) {
            node = pair(parse, NODE_BINARY, BINARY_IN, node, sum(parse));
        } else if (accept_not_in(parse)) {
            node = pair(parse, NODE_BINARY, BINARY_NOT_IN, node, sum(parse));
        } else {
            break;
        }
    }
    return node;
}

static struct node *negation(struct parse *parse)
{
    struct node *node;

    if (!accept_word(parse, "not")) return comparison(parse);
    if (!descend(parse)) return NULL;
    node = pair(parse, NODE_NOT, 0, negation(parse), NULL);
    parse->depth--;
    return node;
}

static struct node *conjunction(struct parse *parse)
{
    struct node *node = negation(parse);

    while (accept_word(parse, "and"))
        node = pair(parse, NODE_AND, 0, node, negation(parse));
    return node;
}

static struct node *disjunction(struct parse *parse)
{
    struct node *node = conjunction(parse);

    while (accept_word(parse, "or"))
        node = pair(parse, NODE_OR, 0, node, conjunction(parse));
    return node;
}

static struct node *expression(struct parse *parse)
{
    struct node *node;

    if (!descend(parse)) return NULL;
    node = disjunction(parse);
    while (accept_word(parse, "if")) {
        node = pair(parse, NODE_CHOICE, 0, node, disjunction(parse));
        if (accept_word(parse, "else") && node != NULL) node->c = expression(parse);
    }
    parse->depth--;
    return parse->status == STATUS_OK ? node : NULL;
}

/* ---- tags and data ---- */

static size_t tag_end_len(const struct parse *parse)
{
    return parse->text[parse->at] == '-' || parse->text[parse->at] == '+' ? 3 : 2;
}

/* At "%}" or "}}", with or without "-": what follows is data. `close` is the right one. */
static void leave_tag(struct parse *parse, const char *close)
{
    if (parse->status != STATUS_OK) return;
    if (parse->next.kind != LEX_END) {
        refuse_next(parse, "unexpected");
        return;
    }
    if (parse->at == parse->len) {
        refuse(parse, "a tag has no end", "", 0);
        return;
    }
    const size_t len = tag_end_len(parse);
    if (memcmp(parse->text + parse->at + len - 2, close, 2) != 0) {
        refuse(parse, "unexpected", parse->text + parse->at, len);
        return;
    }
    parse->strip = parse->text[parse->at] == '-';
    parse->block = close[0] != '}';
    if (len == 3 && parse->text[parse->at] == '+') parse->block = false; /* keeps its newline */
    parse->at += len;
    parse->line_start = false;
}

static void enter_tag(struct parse *parse)
{
    parse->at += 2;
    parse->braces = 0;
    if (looking_at(parse, "-") || looking_at(parse, "+")) parse->at++;
    advance(parse);
}

/* Skips what the tag before takes away; tells whether a line begins here. */
static size_t data_start(struct parse *parse)
{
    size_t start = parse->at;

    if (parse->strip) {
        while (start < parse->len && is_blank(parse->text[start]))
            start++;
    } else if (parse->block && start < parse->len && parse->text[start] == '\n') {
        start++;
    }
    if (start > parse->at) parse->line_start = parse->text[start - 1] == '\n';
    return start;
}

static size_t data_end(const struct parse *parse, size_t start, size_t stop)
{
    const char *tag = parse->text + stop;
    size_t end = stop;

    if (stop == parse->len) {
        /* One newline at the end of the template goes. */
        return end > start && parse->text[end - 1] == '\n' ? end - 1 : end;
    }
    if (stop + 2 < parse->len && tag[2] == '-') {
        while (end > start && is_blank(parse->text[end - 1]))
            end--;
        return end;
    }
    if (tag[1] == '{' || (stop + 2 < parse->len && tag[2] == '+')) return end;
    while (end > start && (parse->text[end - 1] == ' ' || parse->text[end - 1] == '\t'))
        end--;
    const bool line_start = end > start ? parse->text[end - 1] == '\n' : parse->line_start;
    return line_start ? end : stop;
}

/* The data up to the next tag, or NULL if there is none; parse->at is at the tag or the end. */
static struct node *data(struct parse *parse)
{
    const size_t start = data_start(parse);
    size_t stop = start;

    while (stop < parse->len && !(parse->text[stop] == '{' && stop + 1 < parse->len &&
                                  strchr("{%#", parse->text[stop + 1]) != NULL))
        stop++;
    const size_t end = data_end(parse, start, stop);
    parse->at = stop;
    parse->strip = parse->block = false;
    if (end == start) return NULL;
    struct node *node = node_create(parse, NODE_TEXT);
    if (node == NULL) return NULL;
    node->text = keep(parse, parse->text + start, end - start);
    node->text_len = end - start;
    return node;
}

static void comment(struct parse *parse)
{
    const char *end = memmem(parse->text + parse->at, parse->len - parse->at, "#}", 2);

    if (end == NULL) {
        refuse(parse, "a comment has no end", "", 0);
        return;
    }
    parse->strip = end[-1] == '-' && end - 1 > parse->text + parse->at + 1;
    parse->block = true;
    parse->line_start = false;
    parse->at = (size_t)(end - parse->text) + 2;
}

/* ---- statements ---- */

static struct name *name_list(struct parse *parse)
{
    struct name *first = NULL, **tail = &first;

    do {
        *tail = allocate(parse, sizeof(**tail));
        if (*tail == NULL) return NULL;
        (*tail)->text = expect_name(parse);
        tail = &(*tail)->next;
    } while (accept_op(parse, ","));
    return first;
}

static void end_statement(struct parse *parse)
{
    leave_tag(parse, "%}");
}

/* The word of the statement that ended a body, which statements() has left as the next lexeme. */
static bool ended_by(struct parse *parse, const char *word)
{
    return accept_word(parse, word);
}

static struct node *if_statement(struct parse *parse)
{
    static const char *const ENDS[] = { "elif", "else", "endif", NULL };
    static const char *const END[] = { "endif", NULL };
    struct node *node = node_create(parse, NODE_IF);

    if (node == NULL) return NULL;
    node->a = expression(parse);
    end_statement(parse);
    node->body = statements(parse, ENDS);
    if (ended_by(parse, "elif")) {
        if (!descend(parse)) return NULL;
        node->otherwise = if_statement(parse); /* takes the endif */
        parse->depth--;
        return node;
    }
    if (ended_by(parse, "else")) {
        end_statement(parse);
        node->otherwise = statements(parse, END);
    }
    if (!ended_by(parse, "endif")) refuse_next(parse, "unexpected");
    end_statement(parse);
    return node;
}

static struct node *for_statement(struct parse *parse)
{
    static const char *const ENDS[] = { "else", "endfor", NULL };
    static const char *const END[] = { "endfor", NULL };
    struct node *node = node_create(parse, NODE_FOR);

    if (node == NULL) return NULL;
    const bool in_parentheses = accept_op(parse, "(");
    node->names = name_list(parse);
    if (in_parentheses) expect_op(parse, ")");
    if (!accept_word(parse, "in")) refuse_next(parse, "`in` is missing before");
    node->a = disjunction(parse); /* not `expression`: the `if` belongs to the loop */
    if (accept_word(parse, "if")) node->b = expression(parse);
    if (next_is(parse, LEX_NAME, "recursive")) refuse_next(parse, "unknown");
    end_statement(parse);
    node->body = statements(parse, ENDS);
    if (ended_by(parse, "else")) {
        end_statement(parse);
        node->otherwise = statements(parse, END);
    }
    if (!ended_by(parse, "endfor")) refuse_next(parse, "unexpected");
    end_statement(parse);
    return node;
}

/* set x = v; set ns.x = v; set x %}...{% endset */
static struct node *set_statement(struct parse *parse)
{
    static const char *const END[] = { "endset", NULL };
    struct node *node = node_create(parse, NODE_SET);
    const char *name = expect_name(parse);

    if (node == NULL || name == NULL) return NULL;
    if (accept_op(parse, ".")) {
        node->b = node_create(parse, NODE_NAME);
        if (node->b == NULL) return NULL;
        node->b->text = name;
        name = expect_name(parse);
    }
    node->text = name;
    if (next_is(parse, LEX_OPERATOR, ",")) return refuse(parse, "set of several names", "", 0);
    if (accept_op(parse, "=")) {
        node->a = expression(parse);
        end_statement(parse);
        return node;
    }
    end_statement(parse);
    node->body = statements(parse, END);
    if (!ended_by(parse, "endset")) refuse_next(parse, "unexpected");
    end_statement(parse);
    return node;
}

/* Parameters with defaults come last; `list` has their defaults. */
static void parameters(struct parse *parse, struct node *node)
{
    struct name **name = &node->names;
    struct node **tail = &node->list;

    expect_op(parse, "(");
    while (parse->status == STATUS_OK && !accept_op(parse, ")")) {
        *name = allocate(parse, sizeof(**name));
        if (*name == NULL) return;
        (*name)->text = expect_name(parse);
        name = &(*name)->next;
        if (accept_op(parse, "=")) {
            *tail = expression(parse);
            if (*tail == NULL) return;
            tail = &(*tail)->next;
        } else if (node->list != NULL) {
            refuse(parse, "a parameter without a default after one with", "", 0);
        }
        if (!next_is(parse, LEX_OPERATOR, ")")) expect_op(parse, ",");
    }
}

static struct node *macro_statement(struct parse *parse)
{
    static const char *const END[] = { "endmacro", NULL };
    struct node *node = node_create(parse, NODE_MACRO);

    if (node == NULL) return NULL;
    node->text = expect_name(parse);
    parameters(parse, node);
    end_statement(parse);
    node->body = statements(parse, END);
    if (!ended_by(parse, "endmacro")) refuse_next(parse, "unexpected");
    end_statement(parse);
    return node;
}

/* {% generation %} tells trainers which part is the answer; it changes no text. */
static struct node *generation_statement(struct parse *parse)
{
    static const char *const END[] = { "endgeneration", NULL };
    struct node *node = node_create(parse, NODE_GROUP);

    if (node == NULL) return NULL;
    end_statement(parse);
    node->body = statements(parse, END);
    if (!ended_by(parse, "endgeneration")) refuse_next(parse, "unexpected");
    end_statement(parse);
    return node;
}

static struct node *jump(struct parse *parse, enum node_kind kind)
{
    struct node *node = node_create(parse, kind);

    end_statement(parse);
    return node;
}

static struct node *statement(struct parse *parse)
{
    if (accept_word(parse, "if")) return if_statement(parse);
    if (accept_word(parse, "for")) return for_statement(parse);
    if (accept_word(parse, "set")) return set_statement(parse);
    if (accept_word(parse, "macro")) return macro_statement(parse);
    if (accept_word(parse, "generation")) return generation_statement(parse);
    if (accept_word(parse, "break")) return jump(parse, NODE_BREAK);
    if (accept_word(parse, "continue")) return jump(parse, NODE_CONTINUE);
    return refuse_next(parse, "unknown statement");
}

static bool at_end_of_body(const struct parse *parse, const char *const ends[])
{
    for (size_t i = 0; ends[i] != NULL; i++) {
        if (next_is(parse, LEX_NAME, ends[i])) return true;
    }
    return false;
}

static struct node *print(struct parse *parse)
{
    struct node *node = node_create(parse, NODE_PRINT);

    enter_tag(parse);
    struct node *value = expression(parse);
    if (node != NULL) node->a = value;
    leave_tag(parse, "}}");
    return node;
}

/* A body: up to a statement that begins with one of `ends` (its word is the next lexeme), or to the
 * end of the text where `ends` is empty. */
static struct node *statements(struct parse *parse, const char *const ends[])
{
    struct node *first = NULL, **tail = &first;

    if (!descend(parse)) return NULL;
    while (parse->status == STATUS_OK) {
        *tail = data(parse);
        if (*tail != NULL) tail = &(*tail)->next;
        if (parse->at == parse->len) {
            if (ends[0] != NULL) refuse(parse, "a block has no end:", ends[0], strlen(ends[0]));
            break;
        }
        if (looking_at(parse, "{#")) {
            comment(parse);
            continue;
        }
        if (looking_at(parse, "{{")) {
            *tail = print(parse);
        } else {
            enter_tag(parse);
            if (at_end_of_body(parse, ends)) break;
            *tail = statement(parse);
        }
        if (*tail != NULL) tail = &(*tail)->next;
    }
    parse->depth--;
    return first;
}

enum status template_parse(const char *text, size_t len, struct template **out, struct errmsg *err)
{
    static const char *const NEVER[] = { NULL };

    if (len > TEMPLATE_SIZE_MAX) {
        return errmsg_set(err, STATUS_FULL, "the template has %zu bytes, at most %d", len,
                          TEMPLATE_SIZE_MAX);
    }
    struct template *template = calloc(1, sizeof(*template));
    if (template == NULL) return errmsg_set(err, STATUS_NO_MEMORY, "no memory for the template");
    enum status status = arena_create(1 << 14, 256 << 20, &template->arena);
    if (status == STATUS_OK) {
        struct parse parse = {
            .text = text, .len = len, .arena = template->arena, .line_start = true, .err = err
        };
        template->body = statements(&parse, NEVER);
        status = parse.status;
    }
    if (status != STATUS_OK) {
        template_destroy(template);
        return status;
    }
    *out = template;
    return STATUS_OK;
}

void template_destroy(struct template *template)
{
    if (template == NULL) return;
    arena_destroy(template->arena);
    free(template);
}
