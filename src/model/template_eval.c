/* SPDX-License-Identifier: Apache-2.0
 *
 * model/template_eval.c - runs the tree.
 *
 * Names are looked up in a chain of scopes: one for each turn of a loop and each macro call, and
 * the globals below them. `set` inside a loop is gone after the turn, as in Jinja; what should stay
 * is put into a namespace. A macro sees the globals, not its caller.
 *
 * Invariants
 *   I1  run->steps counts evaluated expressions and statements: a rendering ends.
 *   I2  run->depth bounds recursion, of the tree and of macros.
 *   I3  After run->status is set nothing is written any more. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/json.h"
#include "model/template_int.h"

static struct value eval(struct run *run, const struct node *node);
static void run_body(struct run *run, const struct node *body);

/* ---- scopes ---- */

static struct value *scope_find(struct scope *scope, const char *name)
{
    for (; scope != NULL; scope = scope->parent) {
        for (struct variable *v = scope->first; v != NULL; v = v->next) {
            if (strcmp(v->name, name) == 0) return &v->value;
        }
    }
    return NULL;
}

static void scope_set(struct run *run, struct scope *scope, const char *name, struct value value)
{
    for (struct variable *v = scope->first; v != NULL; v = v->next) {
        if (strcmp(v->name, name) != 0) continue;
        v->value = value;
        return;
    }
    struct variable *variable = run_alloc(run, sizeof(*variable));
    if (variable == NULL) return;
    *variable = (struct variable){ name, value, scope->first };
    scope->first = variable;
}

static struct value look_up(struct run *run, const char *name)
{
    const struct value *found = scope_find(run->scope, name);

    if (found != NULL) return *found;
    const struct template_function *function = template_global(name);
    if (function == NULL) return value_undefined();
    return (struct value){ .kind = VALUE_FUNCTION, .function = function };
}

/* ---- attributes and items ---- */

static struct value loop_attribute(const struct loop *loop, const char *text, size_t len)
{
    const size_t i = loop->index, n = loop->count;
    char name[16] = "";

    if (len < sizeof(name)) memcpy(name, text, len);
    if (strcmp(name, "index") == 0) return value_of_int((int64_t)i + 1);
    if (strcmp(name, "index0") == 0) return value_of_int((int64_t)i);
    if (strcmp(name, "revindex") == 0) return value_of_int((int64_t)(n - i));
    if (strcmp(name, "revindex0") == 0) return value_of_int((int64_t)(n - i - 1));
    if (strcmp(name, "first") == 0) return value_of_bool(i == 0);
    if (strcmp(name, "last") == 0) return value_of_bool(i + 1 == n);
    if (strcmp(name, "length") == 0) return value_of_int((int64_t)n);
    if (strcmp(name, "previtem") == 0 && i > 0) return loop->list->values[i - 1];
    if (strcmp(name, "nextitem") == 0 && i + 1 < n) return loop->list->values[i + 1];
    return value_undefined();
}

struct value value_attribute(struct run *run, struct value value, const char *name, size_t len)
{
    if (value.kind == VALUE_UNDEFINED)
        return run_fail(run, "\"%.*s\" of an undefined value", len < 40 ? (int)len : 40, name);
    if (value.kind == VALUE_LOOP) return loop_attribute(value.loop, name, len);
    if (value.kind != VALUE_DICT && value.kind != VALUE_NAMESPACE) return value_undefined();
    const struct value *found = dict_find(value.dict, name, len);
    return found != NULL ? *found : value_undefined();
}

/* Continuation bytes are no characters of their own. */
static size_t count_characters(struct string string)
{
    size_t count = 0;

    for (size_t i = 0; i < string.len; i++)
        count += ((unsigned char)string.bytes[i] & 0xc0) != 0x80;
    return count;
}

static size_t character_offset(struct string string, size_t index)
{
    size_t at = 0;

    for (; at < string.len; at++) {
        if (((unsigned char)string.bytes[at] & 0xc0) == 0x80) continue;
        if (index-- == 0) break;
    }
    return at;
}

static struct value item(struct run *run, struct value of, struct value key)
{
    if (key.kind == VALUE_STRING) return value_attribute(run, of, key.string.bytes, key.string.len);
    if (of.kind == VALUE_UNDEFINED) return run_fail(run, "an item of an undefined value");
    if (key.kind != VALUE_INT) return value_undefined();
    const bool is_list = of.kind == VALUE_LIST;
    if (!is_list && of.kind != VALUE_STRING) return value_undefined();
    const int64_t count = (int64_t)(is_list ? of.list->count : count_characters(of.string));
    const int64_t index = key.integer < 0 ? key.integer + count : key.integer;
    if (index < 0 || index >= count) return value_undefined();
    if (is_list) return of.list->values[index];
    return value_of_string(string_part(of.string, character_offset(of.string, (size_t)index),
                                       character_offset(of.string, (size_t)index + 1)));
}

/* As Python's slices: `from` and `to` may count from the end, and are cut to what is there. */
static int64_t slice_bound(struct run *run, const struct node *node, int64_t count, int64_t absent)
{
    if (node == NULL) return absent;
    const struct value value = eval(run, node);
    if (value.kind == VALUE_NONE) return absent;
    if (value.kind != VALUE_INT) {
        run_fail(run, "a slice with %s", value_kind_name(value));
        return absent;
    }
    const int64_t at = value.integer < 0 ? value.integer + count : value.integer;
    return at < 0 ? 0 : at > count ? count : at;
}

static struct value slice_backwards(struct run *run, const struct list *list)
{
    struct list *out = list_create(run, list->count);

    for (size_t i = list->count; i-- > 0;) {
        if (!list_add(run, out, list->values[i])) break;
    }
    return value_of_list(out);
}

static struct value slice(struct run *run, const struct node *node)
{
    const struct value of = eval(run, node->a);
    const bool is_list = of.kind == VALUE_LIST;

    if (run->status != STATUS_OK) return value_undefined();
    if (!is_list && of.kind != VALUE_STRING)
        return run_fail(run, "a slice of %s", value_kind_name(of));
    if (node->list != NULL) {
        const struct value step = eval(run, node->list);
        const bool backwards = step.kind == VALUE_INT && step.integer == -1;
        if (!backwards || !is_list || node->b != NULL || node->c != NULL)
            return run_fail(run, "a slice with a step, other than [::-1] of a list");
        return slice_backwards(run, of.list);
    }
    const int64_t count = (int64_t)(is_list ? of.list->count : count_characters(of.string));
    const int64_t from = slice_bound(run, node->b, count, 0);
    int64_t to = slice_bound(run, node->c, count, count);
    if (to < from) to = from;
    if (!is_list) {
        return value_of_string(string_part(of.string, character_offset(of.string, (size_t)from),
                                           character_offset(of.string, (size_t)to)));
    }
    struct list *out = list_create(run, 0);
    if (out == NULL) return value_undefined();
    out->values = of.list->values + from; /* shared: lists do not change once made */
    out->count = out->room = (size_t)(to - from);
    return value_of_list(out);
}

struct list *value_items(struct run *run, struct value value)
{
    struct list *list = NULL;

    if (value.kind == VALUE_LIST) return value.list;
    if (value.kind == VALUE_DICT) {
        list = list_create(run, value.dict->count);
        for (const struct member *m = value.dict->first; m != NULL; m = m->next) {
            if (!list_add(run, list, value_of_string(m->key))) break;
        }
        return list;
    }
    if (value.kind == VALUE_UNDEFINED) return list_create(run, 0);
    if (value.kind == VALUE_STRING) {
        struct string rest = value.string;
        list = list_create(run, 0);
        while (rest.len > 0 && list != NULL) {
            const size_t end = character_offset(rest, 1);
            if (!list_add(run, list, value_of_string(string_part(rest, 0, end)))) break;
            rest = string_part(rest, end, rest.len);
        }
        return list;
    }
    run_fail(run, "%s cannot be gone through", value_kind_name(value));
    return NULL;
}

/* ---- operators ---- */

static struct value concat(struct run *run, struct value a, struct value b)
{
    struct sink sink = { 0 };

    sink_value(run, &sink, a);
    sink_value(run, &sink, b);
    return value_of_string(sink_take(run, &sink));
}

static struct value add_lists(struct run *run, const struct list *a, const struct list *b)
{
    struct list *list = list_create(run, a->count + b->count);

    for (size_t i = 0; i < a->count && list != NULL; i++)
        (void)list_add(run, list, a->values[i]);
    for (size_t i = 0; i < b->count && list != NULL; i++)
        (void)list_add(run, list, b->values[i]);
    return value_of_list(list);
}

static struct value floats(struct run *run, enum binary which, double a, double b)
{
    switch (which) {
    case BINARY_ADD: return value_of_float(a + b);
    case BINARY_SUB: return value_of_float(a - b);
    case BINARY_MUL: return value_of_float(a * b);
    case BINARY_DIV: return b != 0 ? value_of_float(a / b) : run_fail(run, "division by zero");
    case BINARY_FLOOR:
    case BINARY_MOD:
    case BINARY_CONCAT:
    case BINARY_EQ:
    case BINARY_NE:
    case BINARY_LT:
    case BINARY_LE:
    case BINARY_GT:
    case BINARY_GE:
    case BINARY_IN:
    case BINARY_NOT_IN: break;
    }
    return run_fail(run, "// and %% are for integers");
}

/* Of integers, rounded down as Python does; b is not 0 and nothing overflows. */
static int64_t floor_divide(int64_t a, int64_t b)
{
    const int64_t quotient = a / b;
    return a % b != 0 && (a < 0) != (b < 0) ? quotient - 1 : quotient;
}

static struct value integers(struct run *run, enum binary which, int64_t a, int64_t b)
{
    int64_t out = 0;
    bool overflow = false;

    if (which == BINARY_DIV) return floats(run, which, (double)a, (double)b);
    if (which == BINARY_FLOOR || which == BINARY_MOD) {
        if (b == 0 || (a == INT64_MIN && b == -1)) return run_fail(run, "division by zero");
        out = floor_divide(a, b);
        return value_of_int(which == BINARY_FLOOR ? out : a - out * b);
    }
    if (which == BINARY_ADD)
        overflow = __builtin_add_overflow(a, b, &out);
    else if (which == BINARY_SUB)
        overflow = __builtin_sub_overflow(a, b, &out);
    else
        overflow = __builtin_mul_overflow(a, b, &out);
    return overflow ? run_fail(run, "a number is too large") : value_of_int(out);
}

static struct value arithmetic(struct run *run, enum binary which, struct value a, struct value b)
{
    if (which == BINARY_ADD && a.kind == VALUE_STRING && b.kind == VALUE_STRING)
        return concat(run, a, b);
    if (which == BINARY_ADD && a.kind == VALUE_LIST && b.kind == VALUE_LIST)
        return add_lists(run, a.list, b.list);
    if (!value_is_number(a) || !value_is_number(b))
        return run_fail(run, "%s and %s do not go together", value_kind_name(a),
                        value_kind_name(b));
    if (a.kind == VALUE_FLOAT || b.kind == VALUE_FLOAT)
        return floats(run, which, value_number(a), value_number(b));
    return integers(run, which, a.kind == VALUE_BOOL ? a.flag : a.integer,
                    b.kind == VALUE_BOOL ? b.flag : b.integer);
}

static bool contains(struct run *run, struct value in, struct value what)
{
    if (in.kind == VALUE_STRING && what.kind == VALUE_STRING) {
        return memmem(in.string.bytes, in.string.len, what.string.bytes, what.string.len) != NULL;
    }
    if (in.kind == VALUE_DICT || in.kind == VALUE_NAMESPACE) {
        return what.kind == VALUE_STRING &&
               dict_find(in.dict, what.string.bytes, what.string.len) != NULL;
    }
    if (in.kind != VALUE_LIST) {
        run_fail(run, "`in` %s", value_kind_name(in));
        return false;
    }
    for (size_t i = 0; i < in.list->count; i++) {
        if (value_same(in.list->values[i], what)) return true;
    }
    return false;
}

static struct value binary(struct run *run, enum binary which, struct value a, struct value b)
{
    switch (which) {
    case BINARY_CONCAT: return concat(run, a, b);
    case BINARY_EQ: return value_of_bool(value_same(a, b));
    case BINARY_NE: return value_of_bool(!value_same(a, b));
    case BINARY_LT: return value_of_bool(value_compare(run, a, b) < 0);
    case BINARY_LE: return value_of_bool(value_compare(run, a, b) <= 0);
    case BINARY_GT: return value_of_bool(value_compare(run, a, b) > 0);
    case BINARY_GE: return value_of_bool(value_compare(run, a, b) >= 0);
    case BINARY_IN: return value_of_bool(contains(run, b, a));
    case BINARY_NOT_IN: return value_of_bool(!contains(run, b, a));
    case BINARY_ADD:
    case BINARY_SUB:
    case BINARY_MUL:
    case BINARY_DIV:
    case BINARY_FLOOR:
    case BINARY_MOD: break;
    }
    return arithmetic(run, which, a, b);
}

/* ---- calls ---- */

static bool eval_arguments(struct run *run, const struct node *list, struct arguments *out)
{
    *out = (struct arguments){ .count = 0 };
    for (; list != NULL; list = list->next) {
        ASSERT(out->count < ARGUMENTS_MAX);
        if (list->text == NULL && out->placed < out->count) {
            run_fail(run, "an argument by place after one by name");
            return false;
        }
        out->names[out->count] = list->text;
        out->values[out->count] = eval(run, list->a);
        out->count++;
        if (list->text == NULL) out->placed++;
    }
    return run->status == STATUS_OK;
}

static const struct value *named_argument(const struct arguments *arguments, const char *name)
{
    for (unsigned i = arguments->placed; i < arguments->count; i++) {
        if (strcmp(arguments->names[i], name) == 0) return &arguments->values[i];
    }
    return NULL;
}

/* The i-th parameter: by place, by name, or its default. */
static void bind(struct run *run, const struct node *macro, const struct arguments *arguments)
{
    const struct node *preset = macro->list;
    unsigned parameters = 0, presets = 0, i = 0;

    for (const struct name *n = macro->names; n != NULL; n = n->next)
        parameters++;
    for (const struct node *d = macro->list; d != NULL; d = d->next)
        presets++;
    for (const struct name *n = macro->names; n != NULL; n = n->next, i++) {
        const bool has_preset = i >= parameters - presets;
        const struct value *given =
            i < arguments->placed ? &arguments->values[i] : named_argument(arguments, n->text);
        struct value value = value_undefined();
        if (given != NULL)
            value = *given;
        else if (has_preset)
            value = eval(run, preset);
        if (has_preset) preset = preset->next;
        scope_set(run, run->scope, n->text, value);
    }
}

static struct value call_macro(struct run *run, const struct node *macro,
                               const struct arguments *arguments)
{
    struct scope scope = { .parent = run->globals };
    struct scope *outer_scope = run->scope;
    struct sink sink = { 0 }, *outer_sink = run->sink;

    run->scope = &scope;
    run->sink = &sink;
    bind(run, macro, arguments);
    run_body(run, macro->body);
    run->scope = outer_scope;
    run->sink = outer_sink;
    run->flow = GOING;
    return value_of_string(sink_take(run, &sink));
}

static struct value call(struct run *run, const struct node *node)
{
    struct arguments arguments;
    struct value subject = value_undefined();

    if (node->function != NULL) { /* a method */
        subject = eval(run, node->a->a);
        if (!eval_arguments(run, node->list, &arguments)) return value_undefined();
        return node->function->fn(run, subject, &arguments);
    }
    const struct value callee = eval(run, node->a);
    if (!eval_arguments(run, node->list, &arguments)) return value_undefined();
    if (callee.kind == VALUE_MACRO) return call_macro(run, callee.macro, &arguments);
    if (callee.kind == VALUE_FUNCTION) return callee.function->fn(run, subject, &arguments);
    return run_fail(run, "\"%.40s\" is called and is no function", node->a->text);
}

static struct value applied(struct run *run, const struct node *node)
{
    struct arguments arguments;
    const struct value subject = eval(run, node->a);

    if (!eval_arguments(run, node->list, &arguments)) return value_undefined();
    const struct value value = node->function->fn(run, subject, &arguments);
    if (node->kind == NODE_TEST && node->integer != 0) return value_of_bool(!value_true(value));
    return value;
}

/* ---- expressions ---- */

static struct value eval_list(struct run *run, const struct node *node)
{
    struct list *list = list_create(run, 0);

    for (const struct node *n = node->list; n != NULL && list != NULL; n = n->next) {
        if (!list_add(run, list, eval(run, n))) break;
    }
    return value_of_list(list);
}

static struct value eval_dict(struct run *run, const struct node *node)
{
    struct dict *dict = dict_create(run);

    for (const struct node *n = node->list; n != NULL && run->status == STATUS_OK;
         n = n->next->next) {
        const struct value key = eval(run, n);
        if (key.kind != VALUE_STRING)
            return run_fail(run, "%s as a name in a dict", value_kind_name(key));
        (void)dict_set(run, dict, key.string, eval(run, n->next));
    }
    return value_of_dict(dict);
}

static struct value negate(struct run *run, struct value value)
{
    if (value.kind == VALUE_FLOAT) return value_of_float(-value.number);
    if (value.kind == VALUE_INT && value.integer != INT64_MIN) return value_of_int(-value.integer);
    return run_fail(run, "minus %s", value_kind_name(value));
}

static struct value eval_kind(struct run *run, const struct node *node)
{
    struct value a;

    switch (node->kind) {
    case NODE_STRING:
        return value_of_string((struct string){ .bytes = node->text, .len = node->text_len });
    case NODE_INT: return value_of_int(node->integer);
    case NODE_FLOAT: return value_of_float(node->number);
    case NODE_CONST: return node->integer == 2 ? value_none() : value_of_bool(node->integer == 1);
    case NODE_NAME: return look_up(run, node->text);
    case NODE_LIST: return eval_list(run, node);
    case NODE_DICT: return eval_dict(run, node);
    case NODE_ATTR:
        a = eval(run, node->a);
        return value_attribute(run, a, node->text, strlen(node->text));
    case NODE_ITEM: a = eval(run, node->a); return item(run, a, eval(run, node->b));
    case NODE_SLICE: return slice(run, node);
    case NODE_CALL: return call(run, node);
    case NODE_FILTER:
    case NODE_TEST: return applied(run, node);
    case NODE_NOT: return value_of_bool(!value_true(eval(run, node->a)));
    case NODE_NEGATE: return negate(run, eval(run, node->a));
    case NODE_AND: a = eval(run, node->a); return value_true(a) ? eval(run, node->b) : a;
    case NODE_OR: a = eval(run, node->a); return value_true(a) ? a : eval(run, node->b);
    case NODE_CHOICE:
        if (value_true(eval(run, node->b))) return eval(run, node->a);
        return node->c != NULL ? eval(run, node->c) : value_undefined();
    case NODE_BINARY:
        a = eval(run, node->a);
        return binary(run, (enum binary)node->integer, a, eval(run, node->b));
    case NODE_TEXT:
    case NODE_PRINT:
    case NODE_IF:
    case NODE_FOR:
    case NODE_SET:
    case NODE_MACRO:
    case NODE_BREAK:
    case NODE_CONTINUE:
    case NODE_GROUP: break;
    }
    ASSERT(false);
    return value_undefined();
}

static bool enter(struct run *run, const struct node *node)
{
    if (run->status != STATUS_OK) return false;
    run->line = node->line;
    if (++run->steps > TEMPLATE_STEPS_MAX || run->depth == 4 * TEMPLATE_DEPTH_MAX) {
        run_fail(run,
                 run->depth == 4 * TEMPLATE_DEPTH_MAX ? "nested too deeply" : "it takes too long");
        run->status = STATUS_FULL;
        return false;
    }
    run->depth++;
    return true;
}

static struct value eval(struct run *run, const struct node *node)
{
    if (!enter(run, node)) return value_undefined();
    const struct value value = eval_kind(run, node);
    run->depth--;
    return run->status == STATUS_OK ? value : value_undefined();
}

/* ---- statements ---- */

static void bind_targets(struct run *run, const struct name *names, struct value value)
{
    size_t i = 0;

    if (names->next == NULL) {
        scope_set(run, run->scope, names->text, value);
        return;
    }
    if (value.kind != VALUE_LIST) {
        run_fail(run, "%s for several names", value_kind_name(value));
        return;
    }
    for (const struct name *n = names; n != NULL; n = n->next, i++) {
        if (i == value.list->count) break;
        scope_set(run, run->scope, n->text, value.list->values[i]);
    }
    if (i != value.list->count) run_fail(run, "%zu values for other names", value.list->count);
}

/* The values for which the loop's condition holds. */
static struct list *choose(struct run *run, const struct node *node, struct list *all)
{
    struct list *chosen = list_create(run, 0);
    struct scope *outer = run->scope;

    for (size_t i = 0; i < all->count && chosen != NULL && run->status == STATUS_OK; i++) {
        struct scope scope = { .parent = outer };
        run->scope = &scope;
        bind_targets(run, node->names, all->values[i]);
        if (value_true(eval(run, node->b))) (void)list_add(run, chosen, all->values[i]);
    }
    run->scope = outer;
    return run->status == STATUS_OK ? chosen : NULL;
}

static void run_for(struct run *run, const struct node *node)
{
    struct list *list = value_items(run, eval(run, node->a));
    struct scope *outer = run->scope;

    if (list != NULL && node->b != NULL) list = choose(run, node, list);
    if (list == NULL || run->status != STATUS_OK) return;
    if (list->count == 0) {
        run_body(run, node->otherwise);
        return;
    }
    struct loop *loop = run_alloc(run, sizeof(*loop)); /* a list may keep it beyond the loop */
    if (loop == NULL) return;
    *loop = (struct loop){ .count = list->count, .list = list };
    for (; loop->index < loop->count && run->status == STATUS_OK; loop->index++) {
        struct scope scope = { .parent = outer };
        run->scope = &scope;
        scope_set(run, &scope, "loop", (struct value){ .kind = VALUE_LOOP, .loop = loop });
        bind_targets(run, node->names, list->values[loop->index]);
        run_body(run, node->body);
        const bool stop = run->flow == BREAKING;
        run->flow = GOING;
        if (stop) break;
    }
    run->scope = outer;
}

/* The text that a body writes. */
static struct value captured(struct run *run, const struct node *body)
{
    struct sink sink = { 0 }, *outer = run->sink;

    run->sink = &sink;
    run_body(run, body);
    run->sink = outer;
    return value_of_string(sink_take(run, &sink));
}

static void run_set(struct run *run, const struct node *node)
{
    const struct value value = node->a != NULL ? eval(run, node->a) : captured(run, node->body);

    if (run->status != STATUS_OK) return;
    if (node->b == NULL) {
        scope_set(run, run->scope, node->text, value);
        return;
    }
    const struct value space = look_up(run, node->b->text);
    if (space.kind != VALUE_NAMESPACE) {
        run_fail(run, "\"%.40s\" is no namespace", node->b->text);
        return;
    }
    (void)dict_set(run, space.dict,
                   (struct string){ .bytes = node->text, .len = strlen(node->text) }, value);
}

static void run_statement(struct run *run, const struct node *node)
{
    switch (node->kind) {
    case NODE_TEXT: sink_write(run, run->sink, node->text, node->text_len, 0); break;
    case NODE_PRINT: sink_value(run, run->sink, eval(run, node->a)); break;
    case NODE_IF:
        run_body(run, value_true(eval(run, node->a)) ? node->body : node->otherwise);
        break;
    case NODE_FOR: run_for(run, node); break;
    case NODE_SET: run_set(run, node); break;
    case NODE_MACRO:
        scope_set(run, run->scope, node->text,
                  (struct value){ .kind = VALUE_MACRO, .macro = node });
        break;
    case NODE_BREAK: run->flow = BREAKING; break;
    case NODE_CONTINUE: run->flow = CONTINUING; break;
    case NODE_GROUP: run_body(run, node->body); break;
    case NODE_STRING:
    case NODE_INT:
    case NODE_FLOAT:
    case NODE_CONST:
    case NODE_NAME:
    case NODE_LIST:
    case NODE_DICT:
    case NODE_ATTR:
    case NODE_ITEM:
    case NODE_SLICE:
    case NODE_CALL:
    case NODE_FILTER:
    case NODE_TEST:
    case NODE_NOT:
    case NODE_NEGATE:
    case NODE_AND:
    case NODE_OR:
    case NODE_CHOICE:
    case NODE_BINARY: ASSERT(false);
    }
}

static void run_body(struct run *run, const struct node *body)
{
    for (; body != NULL && run->flow == GOING; body = body->next) {
        if (!enter(run, body)) return;
        run_statement(run, body);
        run->depth--;
    }
}

/* ---- a rendering ---- */

static void set_text(struct run *run, struct dict *dict, const char *key, const char *text,
                     size_t len)
{
    if (text == NULL) return;
    (void)dict_set(run, dict, (struct string){ .bytes = key, .len = strlen(key) },
                   value_of_string((struct string){ .bytes = text, .len = len, .mark = 1 }));
}

static void set_value(struct run *run, struct dict *dict, const char *key, struct value value)
{
    (void)dict_set(run, dict, (struct string){ .bytes = key, .len = strlen(key) }, value);
}

static struct value message_value(struct run *run, const struct template_message *message)
{
    struct dict *dict = dict_create(run);

    if (dict == NULL) return value_undefined();
    set_text(run, dict, "role", message->role, message->role_len);
    set_value(run, dict, "content", value_none());
    set_text(run, dict, "content", message->content, message->content_len);
    set_text(run, dict, "name", message->name, message->name_len);
    set_text(run, dict, "tool_call_id", message->tool_call_id, message->tool_call_id_len);
    if (message->tool_calls != NULL)
        set_value(run, dict, "tool_calls", value_of_json(run, message->tool_calls, 1));
    return value_of_dict(dict);
}

static void set_globals(struct run *run, const struct template_message *messages, size_t count,
                        const struct template_input *inputs, size_t inputs_count)
{
    struct list *list = list_create(run, count);

    for (size_t i = 0; i < count && list != NULL; i++)
        (void)list_add(run, list, message_value(run, &messages[i]));
    scope_set(run, run->globals, "messages", value_of_list(list));
    for (size_t i = 0; i < inputs_count; i++) {
        const struct template_input *in = &inputs[i];
        struct value value = value_of_bool(in->flag);
        if (in->kind == TEMPLATE_INPUT_NOW) {
            run->now_s = in->now_s;
            continue;
        }
        if (in->kind == TEMPLATE_INPUT_TEXT) {
            value = value_of_string(
                (struct string){ .bytes = in->text, .len = in->text_len, .mark = in->marked });
        } else if (in->kind == TEMPLATE_INPUT_JSON) {
            value = value_of_json(run, in->json, in->marked);
        }
        scope_set(run, run->globals, in->name, value);
    }
}

static size_t input_size(const struct template_message *messages, size_t count)
{
    size_t size = count * sizeof(struct member) * 4;

    for (size_t i = 0; i < count; i++)
        size += messages[i].content_len;
    return size;
}

enum status template_render(const struct template *template,
                            const struct template_message *messages, size_t messages_count,
                            const struct template_input *inputs, size_t inputs_count,
                            struct template_output *out, struct errmsg *err)
{
    struct scope globals = { NULL, NULL };
    struct sink sink = { 0 };
    const size_t size_max =
        TEMPLATE_MEMORY_MIN + TEMPLATE_MEMORY_FACTOR * input_size(messages, messages_count);
    struct run run = { .template = template,
                       .scope = &globals,
                       .globals = &globals,
                       .sink = &sink,
                       .written_max = size_max };

    const enum status made = arena_create(1 << 14, size_max, &run.arena);
    if (made != STATUS_OK) return errmsg_set(err, made, "no memory for the chat template");
    set_globals(&run, messages, messages_count, inputs, inputs_count);
    run_body(&run, template->body);
    arena_destroy(run.arena);
    if (run.status != STATUS_OK) {
        free(sink.bytes);
        free(sink.marks);
        return errmsg_set(err, run.status, "%s", run.error.text);
    }
    *out = (struct template_output){ sink.bytes, sink.marks, sink.len };
    return STATUS_OK;
}

void template_output_fini(struct template_output *output)
{
    free(output->text);
    free(output->marks);
    *output = (struct template_output){ 0 };
}
