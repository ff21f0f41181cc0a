/* SPDX-License-Identifier: Apache-2.0
 *
 * model/template_int.h - what the files of the template language share: its tree, its values.
 *
 *   template_parse.c  text to tree
 *   template_value.c  values: text with marks, lists, dicts; JSON in and out
 *   template_call.c   filters, tests, methods and functions: the tables of what is known
 *   template_eval.c   the tree, run
 *
 * Everything of a tree lies in one arena, everything of a rendering in another; nothing is freed
 * singly. Errors are sticky: the first one sets run->status, and everything after it gives
 * UNDEFINED quickly until the rendering has unwound. */
#ifndef MODEL_TEMPLATE_INT_H
#define MODEL_TEMPLATE_INT_H

#include "base/arena.h"
#include "model/template.h"

/* ---- the tree ---- */

enum node_kind {
    /* statements */
    NODE_TEXT,
    NODE_PRINT, /* a: expression */
    NODE_IF,    /* a: condition, body, otherwise */
    NODE_FOR,   /* names: targets, a: iterable, b: condition or NULL, body, otherwise */
    NODE_SET,   /* text: name, b: namespace or NULL; a: value, or body */
    NODE_MACRO, /* text: name, names: parameters, list: defaults of the last ones; body */
    NODE_BREAK,
    NODE_CONTINUE,
    NODE_GROUP, /* body */
    /* expressions */
    NODE_STRING,
    NODE_INT,
    NODE_FLOAT,
    NODE_CONST, /* integer: 0 false, 1 true, 2 none */
    NODE_NAME,
    NODE_LIST,   /* list */
    NODE_DICT,   /* list: key, value, key, value */
    NODE_ATTR,   /* a.text */
    NODE_ITEM,   /* a[b] */
    NODE_SLICE,  /* a[b:c:list], each may be NULL */
    NODE_CALL,   /* a(list); arguments with text are by keyword */
    NODE_FILTER, /* a | function(list) */
    NODE_TEST,   /* a is function(list); integer 1: is not */
    NODE_NOT,
    NODE_NEGATE,
    NODE_AND,
    NODE_OR,
    NODE_CHOICE, /* a if b else c; c may be NULL */
    NODE_BINARY, /* integer: enum binary */
};

enum binary {
    BINARY_ADD,
    BINARY_SUB,
    BINARY_MUL,
    BINARY_DIV,
    BINARY_FLOOR,
    BINARY_MOD,
    BINARY_CONCAT,
    BINARY_EQ,
    BINARY_NE,
    BINARY_LT,
    BINARY_LE,
    BINARY_GT,
    BINARY_GE,
    BINARY_IN,
    BINARY_NOT_IN,
};

struct name {
    const char *text; /* NUL-terminated */
    struct name *next;
};

struct node {
    enum node_kind kind;
    unsigned line;
    struct node *next; /* in the list or body it belongs to */
    struct node *a, *b, *c, *list, *body, *otherwise;
    struct name *names;
    const char *text; /* NUL-terminated, but a literal may contain NUL */
    size_t text_len;
    int64_t integer;
    double number;
    const struct template_function *function;
};

struct template
{
    struct arena *arena;
    struct node *body;
};

/* ---- values ---- */

enum value_kind {
    VALUE_UNDEFINED,
    VALUE_NONE,
    VALUE_BOOL,
    VALUE_INT,
    VALUE_FLOAT,
    VALUE_STRING,
    VALUE_LIST,
    VALUE_DICT,
    VALUE_NAMESPACE, /* a dict that `set` may change */
    VALUE_LOOP,
    VALUE_MACRO,
    VALUE_FUNCTION,
};

struct string {
    const char *bytes;
    const uint8_t *marks; /* NULL: all are `mark` */
    size_t len;
    uint8_t mark;
};

struct value {
    enum value_kind kind;
    union {
        bool flag;
        int64_t integer;
        double number;
        struct string string;
        struct list *list;
        struct dict *dict;
        const struct loop *loop;
        const struct node *macro;
        const struct template_function *function;
    };
};

struct list {
    struct value *values;
    size_t count, room;
};

struct member {
    struct string key;
    struct value value;
    struct member *next; /* in order of insertion */
};

struct dict {
    struct member *first, *last;
    size_t count;
};

struct loop {
    size_t index, count;
    const struct list *list;
};

/* What has been written so far. */
struct sink {
    char *bytes;
    uint8_t *marks;
    size_t len, room;
};

struct variable {
    const char *name;
    struct value value;
    struct variable *next;
};

struct scope {
    struct variable *first;
    struct scope *parent;
};

struct run {
    const struct template *template;
    struct arena *arena;
    struct scope *scope, *globals;
    struct sink *sink;
    unsigned steps, depth, line;
    size_t written; /* bytes, over all sinks */
    size_t written_max;
    enum status status; /* sticky */
    struct errmsg error;
    enum { GOING, BREAKING, CONTINUING } flow;
    int64_t now_s;
};

/* Arguments of a call, evaluated. */
enum { ARGUMENTS_MAX = 16 };

struct arguments {
    struct value values[ARGUMENTS_MAX];
    const char *names[ARGUMENTS_MAX]; /* NULL: by place; these come first */
    unsigned count, placed;
};

typedef struct value (*template_fn)(struct run *run, struct value subject,
                                    const struct arguments *arguments);

struct template_function {
    const char *name;
    template_fn fn;
};

/* ---- template_value.c ---- */

/* Sets the sticky error; gives UNDEFINED. */
struct value run_fail(struct run *run, const char *fmt, ...) PRINTF_LIKE(2, 3);
struct value run_no_memory(struct run *run);
void *run_alloc(struct run *run, size_t size); /* NULL after run_no_memory() */

struct value value_undefined(void);
struct value value_none(void);
struct value value_of_bool(bool flag);
struct value value_of_int(int64_t integer);
struct value value_of_float(double number);
struct value value_of_string(struct string string);
struct value value_of_text(const char *text); /* static, the template's own */
struct value value_of_dict(struct dict *dict);
struct value value_of_list(struct list *list);
struct value value_of_json(struct run *run, const struct json_value *json, uint8_t mark);

struct list *list_create(struct run *run, size_t room); /* NULL: failed */
bool list_add(struct run *run, struct list *list, struct value value);
struct dict *dict_create(struct run *run);
bool dict_set(struct run *run, struct dict *dict, struct string key, struct value value);
const struct value *dict_find(const struct dict *dict, const char *key, size_t len);

struct string string_part(struct string string, size_t from, size_t to);
bool string_is(struct string string, const char *text);
uint8_t string_mark(struct string string, size_t at);

bool value_true(struct value value);
bool value_same(struct value a, struct value b);                    /* == */
int value_compare(struct run *run, struct value a, struct value b); /* fails for other kinds */
bool value_is_number(struct value value);
double value_number(struct value value);
const char *value_kind_name(struct value value);

/* Writes what {{ value }} shows. */
void sink_write(struct run *run, struct sink *sink, const char *bytes, size_t len, uint8_t mark);
void sink_string(struct run *run, struct sink *sink, struct string string);
void sink_value(struct run *run, struct sink *sink, struct value value);
void sink_json(struct run *run, struct sink *sink, struct value value, int indent, int level);
struct string sink_take(struct run *run, struct sink *sink); /* into the arena; frees the sink */

/* ---- template_call.c ---- */

/* NULL: not known. */
const struct template_function *template_filter(const char *name);
const struct template_function *template_test(const char *name);
const struct template_function *template_method(const char *name);
const struct template_function *template_global(const char *name);

/* ---- template_eval.c, for filters that take expressions ---- */

/* value.name or value['name'], UNDEFINED if it is not there. */
struct value value_attribute(struct run *run, struct value value, const char *name, size_t len);

/* The values that `for` goes over; NULL after a failure. */
struct list *value_items(struct run *run, struct value value);

#endif
