/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/trace_gen.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/rng.h"
#include "sim/trace.h"

/* A conversation that may go on: its last prompt, by request, and the answer to it. */
struct session {
    uint32_t request;
    uint32_t answer_tokens;
};

struct root {
    uint32_t first; /* ids[first .. first + blocks) of whole blocks */
    uint32_t blocks;
};

struct generator {
    const struct trace_gen_options *options;
    struct rng rng;
    struct trace *trace;
    uint32_t ids_cap;
    struct session *sessions; /* a ring, the latest at sessions_next - 1 */
    uint32_t sessions_next, sessions_count;
    struct root *roots;
    uint32_t *root_ids;
    uint32_t root_ids_count;
    double *root_share; /* cumulative, by rank */
};

struct trace_gen_options trace_gen_defaults(void)
{
    return (struct trace_gen_options){
        .seed = 1,
        .requests = 1000,
        .rate = 4,
        .cv = 1,
        .drift_s = 600,
        .follow = 0.5,
        .sessions = 200,
        .roots = 8,
        .root_tokens = 2000,
        .input_tokens = 4000,
        .output_tokens = 300,
        .spread = 1,
        .input_max = 128000,
        .block_tokens = TRACE_BLOCK_TOKENS_DEFAULT,
    };
}

/* ---- chance ---- */

static double draw_normal(struct rng *rng)
{
    const double u = 1 - rng_unit(rng); /* never 0 */
    const double v = rng_unit(rng);
    return sqrt(-2 * log(u)) * cos(2 * M_PI * v);
}

/* Mean 1. Marsaglia and Tsang's method, with the usual boost below shape 1. */
static double draw_gamma(struct rng *rng, double shape)
{
    ASSERT(shape > 0);
    const double boost = shape < 1 ? pow(1 - rng_unit(rng), 1 / shape) : 1;
    const double d = (shape < 1 ? shape + 1 : shape) - 1.0 / 3;
    const double c = 1 / sqrt(9 * d);

    for (;;) {
        const double x = draw_normal(rng);
        const double v = (1 + c * x) * (1 + c * x) * (1 + c * x);
        if (v <= 0) continue;
        if (log(1 - rng_unit(rng)) < 0.5 * x * x + d - d * v + d * log(v))
            return boost * d * v / shape;
    }
}

/* Log-normal with the given mean, at least `least`. */
static uint32_t draw_length(struct generator *g, double mean, uint32_t least)
{
    const double spread = g->options->spread;
    const double drawn = round(mean * exp(spread * draw_normal(&g->rng) - spread * spread / 2));

    if (!(drawn > least)) return least;
    return drawn < g->options->input_max ? (uint32_t)drawn : g->options->input_max;
}

static double draw_gap_ms(struct generator *g, double now_ms)
{
    const struct trace_gen_options *o = g->options;
    const double phase = 2 * M_PI * now_ms / (o->drift_s * 1e3);
    const double rate = o->rate * (1 + o->drift * sin(phase));
    const double gap = o->cv > 0 ? draw_gamma(&g->rng, 1 / (o->cv * o->cv)) : 1;

    return gap * 1e3 / rate;
}

/* ---- roots ---- */

static enum status make_roots(struct generator *g)
{
    const uint32_t count = g->options->roots;
    double sum = 0;

    g->roots = calloc((size_t)count + 1, sizeof(*g->roots));
    g->root_share = calloc((size_t)count + 1, sizeof(*g->root_share));
    if (g->roots == NULL || g->root_share == NULL) return STATUS_NO_MEMORY;
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t tokens = draw_length(g, g->options->root_tokens, 1);
        g->roots[i].first = g->root_ids_count;
        g->roots[i].blocks = tokens / g->options->block_tokens;
        g->root_ids_count += g->roots[i].blocks;
        sum += 1.0 / (i + 1);
        g->root_share[i] = sum;
    }
    g->root_ids = calloc((size_t)g->root_ids_count + 1, sizeof(*g->root_ids));
    if (g->root_ids == NULL) return STATUS_NO_MEMORY;
    for (uint32_t i = 0; i < g->root_ids_count; i++)
        g->root_ids[i] = g->trace->unique++;
    return STATUS_OK;
}

/* NULL when there are no roots. */
static const struct root *draw_root(struct generator *g, double now_ms)
{
    const uint32_t count = g->options->roots;
    uint32_t rank = 0;

    if (count == 0) return NULL;
    const double point = rng_unit(&g->rng) * g->root_share[count - 1];
    while (rank + 1 < count && g->root_share[rank] <= point)
        rank++;
    const uint64_t moved = (uint64_t)(now_ms / (g->options->drift_s * 1e3));
    return &g->roots[(rank + moved) % count];
}

/* ---- sessions ---- */

static void remember(struct generator *g, uint32_t request, uint32_t answer_tokens)
{
    g->sessions[g->sessions_next] = (struct session){ request, answer_tokens };
    g->sessions_next = (g->sessions_next + 1) % g->options->sessions;
    if (g->sessions_count < g->options->sessions) g->sessions_count++;
}

/* One of the open conversations, each as likely; NULL when a new one begins. The one taken stays in
 * the ring with its old prompt: people ask again, and branch. */
static const struct session *draw_session(struct generator *g)
{
    if (rng_unit(&g->rng) >= g->options->follow || g->sessions_count == 0) return NULL;
    return &g->sessions[rng_below(&g->rng, g->sessions_count)];
}

/* ---- requests ---- */

static enum status reserve(struct generator *g, uint32_t blocks)
{
    struct trace *trace = g->trace;

    if (blocks > TRACE_BLOCKS_MAX - trace->ids_count) return STATUS_FULL;
    if (trace->ids_count + blocks <= g->ids_cap) return STATUS_OK;
    const size_t cap = (size_t)(trace->ids_count + blocks) * 2;
    uint32_t *ids = realloc(trace->ids, cap * sizeof(*ids));
    if (ids == NULL) return STATUS_NO_MEMORY;
    trace->ids = ids;
    g->ids_cap = (uint32_t)cap;
    return STATUS_OK;
}

/* Where a prompt comes from: `tokens` of it in all, of which the first `blocks` blocks are old. */
struct prompt {
    uint32_t tokens;
    uint32_t blocks;
    const uint32_t *ids; /* into the trace's array or the roots': copied before it moves */
};

static struct prompt draw_prompt(struct generator *g, double now_ms)
{
    const struct trace_gen_options *o = g->options;
    const struct session *session = draw_session(g);
    struct prompt prompt = { 0, 0, NULL };
    double tokens = draw_length(g, o->input_tokens, 1);

    if (session != NULL) {
        const struct trace_request *before = &g->trace->requests[session->request];
        tokens += (double)before->input_tokens + session->answer_tokens;
        prompt.blocks = before->input_tokens / o->block_tokens;
        prompt.ids = g->trace->ids + before->first;
    } else {
        const struct root *root = draw_root(g, now_ms);
        if (root != NULL) {
            tokens += (double)root->blocks * o->block_tokens;
            prompt.blocks = root->blocks;
            prompt.ids = g->root_ids + root->first;
        }
    }
    prompt.tokens = tokens < o->input_max ? (uint32_t)tokens : o->input_max;
    if (prompt.blocks > prompt.tokens / o->block_tokens)
        prompt.blocks = prompt.tokens / o->block_tokens;
    return prompt;
}

static enum status add_request(struct generator *g, uint32_t index, double now_ms)
{
    const struct trace_gen_options *o = g->options;
    struct trace *trace = g->trace;
    const uint32_t most = (o->input_max + o->block_tokens - 1) / o->block_tokens;
    const enum status status = reserve(g, most);
    if (status != STATUS_OK) return status;
    const struct prompt prompt = draw_prompt(g, now_ms);
    struct trace_request *request = &trace->requests[index];

    *request = (struct trace_request){
        .arrival_ms = floor(now_ms),
        .input_tokens = prompt.tokens,
        .output_tokens = draw_length(g, o->output_tokens, 1),
        .first = trace->ids_count,
        .blocks = (prompt.tokens + o->block_tokens - 1) / o->block_tokens,
    };
    ASSERT(request->blocks <= most && prompt.blocks <= request->blocks);
    for (uint32_t i = 0; i < request->blocks; i++)
        trace->ids[trace->ids_count++] = i < prompt.blocks ? prompt.ids[i] : trace->unique++;
    trace->count = index + 1;
    if (prompt.tokens < o->input_max) remember(g, index, request->output_tokens);
    return STATUS_OK;
}

static enum status generate(struct generator *g)
{
    double now_ms = 0;
    enum status status = make_roots(g);

    for (uint32_t i = 0; status == STATUS_OK && i < g->options->requests; i++) {
        status = add_request(g, i, now_ms);
        now_ms += draw_gap_ms(g, now_ms);
    }
    return status;
}

/* Roots that nobody drew leave holes among the ids; a reader would number them densely too. */
static enum status renumber(struct trace *trace)
{
    uint32_t *dense = calloc((size_t)trace->unique + 1, sizeof(*dense));
    uint32_t next = 0;

    if (dense == NULL) return STATUS_NO_MEMORY;
    for (uint32_t i = 0; i < trace->ids_count; i++) {
        uint32_t *name = &dense[trace->ids[i]];
        if (*name == 0) *name = ++next;
        trace->ids[i] = *name - 1;
    }
    free(dense);
    trace->unique = next;
    return STATUS_OK;
}

static enum status check_number(const char *what, double value, double min, double max,
                                struct errmsg *err)
{
    if (value >= min && value <= max) return STATUS_OK;
    return errmsg_set(err, STATUS_INVALID, "%s is %g, not from %g to %g", what, value, min, max);
}

static enum status check_options(const struct trace_gen_options *o, struct errmsg *err)
{
    const struct {
        const char *what;
        double value, min, max;
    } ranges[] = {
        { "requests", o->requests, 1, TRACE_REQUESTS_MAX },
        { "rate", o->rate, 1e-6, 1e6 },
        { "cv", o->cv, 0, 20 },
        { "drift", o->drift, 0, 0.99 },
        { "drift-period", o->drift_s, 1e-3, 1e9 },
        { "follow", o->follow, 0, 0.999 },
        { "sessions", o->sessions, 1, TRACE_GEN_SESSIONS_MAX },
        { "roots", o->roots, 0, TRACE_GEN_ROOTS_MAX },
        { "root-tokens", o->root_tokens, 1, 1e6 },
        { "input-tokens", o->input_tokens, 1, 1e6 },
        { "output-tokens", o->output_tokens, 1, 1e6 },
        { "spread", o->spread, 0, 4 },
        { "input-max", o->input_max, 1, 1 << 20 },
        { "block-tokens", o->block_tokens, 1, 65536 },
    };

    for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
        const enum status status =
            check_number(ranges[i].what, ranges[i].value, ranges[i].min, ranges[i].max, err);
        if (status != STATUS_OK) return status;
    }
    return STATUS_OK;
}

enum status trace_gen(const struct trace_gen_options *options, struct trace **out,
                      struct errmsg *err)
{
    struct generator g = { .options = options };
    enum status status = check_options(options, err);
    if (status != STATUS_OK) return status;

    status = STATUS_NO_MEMORY;
    rng_init(&g.rng, options->seed);
    g.trace = calloc(1, sizeof(*g.trace));
    g.sessions = calloc(options->sessions, sizeof(*g.sessions));
    if (g.trace == NULL || g.sessions == NULL) goto out;
    g.trace->block_tokens = options->block_tokens;
    g.trace->has_ids = true;
    g.trace->requests = calloc(options->requests, sizeof(*g.trace->requests));
    if (g.trace->requests == NULL) goto out;
    status = generate(&g);
    if (status == STATUS_OK) status = renumber(g.trace);
    if (status != STATUS_OK) goto out;
    *out = g.trace;
    g.trace = NULL;

out:
    if (status == STATUS_FULL) errmsg_set(err, status, "more than %d blocks", TRACE_BLOCKS_MAX);
    if (status == STATUS_NO_MEMORY) errmsg_set(err, status, "not enough memory");
    trace_destroy(g.trace);
    free(g.sessions);
    free(g.roots);
    free(g.root_ids);
    free(g.root_share);
    return status;
}
