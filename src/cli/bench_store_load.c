/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/bench_store_load.c - `yolk bench store load NAME`: what clients of a directory do, without
 * pause, until they are killed. Whoever measures asks the master what it has answered.
 *
 *   exist          one key a call, one call at a time (yolk/store.h)
 *   exist-threads  eight threads, one key a call each (yolk/store_threads.h)
 *   exist-128      128 keys a call
 *   get-128        where the replicas of 128 keys are, a call
 *   put-128        the start, and then the end, of 128 puts a call, of keys never used before
 *   put-threads    eight threads, each the start and then the end of one put
 *   fill           puts the --keys keys that the others ask about, and ends
 *   lend           no load: the node that the puts need, of memory that is not there
 *   own, own-tcp   no load: a node that lends --keys MiB; the latter moves data by TCP only
 *   own-disk       the same with a disk below, in --data-dir
 *   echo-serve, echo  the yardstick (base/env_bare_echo.h)
 *
 * Puts have no data: the load is their owner, too (bench_store_node.c), and says that it has it.
 *
 * Threads: those of the two loads wait for the loop (store/gather.h); all else is the loop's. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/env.h"
#include "base/env_bare_echo.h"
#include "base/rng.h"
#include "cli/bench_store.h"
#include "net/rpc.h"
#include "store/gather.h"
#include "store/proto.h"
#include "yolk/store.h"
#include "yolk/store_threads.h"

enum { TRY_S = 10, ITEMS_MAX = BENCH_STORE_BATCH };

/* By hand: a million times a second. */
static void hex(uint8_t *out, uint64_t number, int digits)
{
    for (int i = digits - 1; i >= 0; i--, number >>= 4)
        out[i] = (uint8_t) "0123456789abcdef"[number & 15];
}

void bench_store_key(uint8_t out[BENCH_STORE_KEY_SIZE], uint32_t space, uint64_t number)
{
    static const char shape[BENCH_STORE_KEY_SIZE + 1] = "bench/________/blocks/________________/v";
    memcpy(out, shape, BENCH_STORE_KEY_SIZE);
    hex(out + 6, space, 8);
    hex(out + 22, number, 16);
}

struct load {
    struct cli *cli;
    struct env *env;
    const char *master;
    uint64_t keys; /* that there are, or are to be put */
    uint32_t space;
    struct rng rng;
    enum status status;
    bool answered;
    uint32_t left; /* items of the call under way */

    struct yolk_store *store;
    struct rpc_client *rpc;
    uint8_t bytes[ITEMS_MAX][BENCH_STORE_KEY_SIZE];
    struct store_key names[ITEMS_MAX];
    struct store_ended ends[ITEMS_MAX];
    uint64_t sizes[ITEMS_MAX];
    struct store_reply_node *nodes;
};

static enum status wait(struct load *load)
{
    while (!load->answered)
        (void)env_poll(load->env, ENV_NS_PER_S);
    return load->status;
}

/* Any key, or the next that was not used. */
static void pick(struct load *load, uint32_t i, bool fresh, uint64_t *next)
{
    const uint64_t number = fresh ? (*next)++ : rng_below(&load->rng, load->keys);
    bench_store_key(load->bytes[i], fresh ? load->space : 0, number);
    load->names[i] = (struct store_key){ load->bytes[i], BENCH_STORE_KEY_SIZE };
}

/* ---- the client ---- */

static enum status client_open(struct load *load, struct errmsg *err)
{
    const struct yolk_store_options options = { .env = load->env, .master = load->master };
    return yolk_store_create(&options, &load->store, err);
}

static void on_item(void *ctx, uint32_t index, enum status status, uint64_t size)
{
    struct load *load = ctx;
    (void)index;
    (void)size;
    if (status != STATUS_OK) load->status = status;
    if (--load->left == 0) load->answered = true;
}

static enum status exist_forever(struct load *load, uint32_t batch, struct errmsg *err)
{
    const struct yolk_store_call call = { .on_item = on_item, .ctx = load };
    struct yolk_store_key keys[ITEMS_MAX];
    enum status status = client_open(load, err);

    while (status == STATUS_OK) {
        for (uint32_t i = 0; i < batch; i++) {
            pick(load, i, false, NULL);
            keys[i] = (struct yolk_store_key){ load->bytes[i], BENCH_STORE_KEY_SIZE };
        }
        load->left = batch;
        load->answered = false;
        status = yolk_store_exist(load->store, keys, batch, &call);
        if (status == STATUS_OK) status = wait(load);
    }
    return errmsg_set(err, status, "exist: %s", status_name(status));
}

static enum status exist_once(struct load *load, struct errmsg *err)
{
    return exist_forever(load, 1, err);
}

static enum status exist_batch(struct load *load, struct errmsg *err)
{
    return exist_forever(load, ITEMS_MAX, err);
}

/* ---- the metadata calls themselves ---- */

static enum status rpc_open(struct load *load, struct errmsg *err)
{
    const struct rpc_client_options options = { .address = load->master, .name = "load" };
    load->nodes = calloc(STORE_REPLY_NODES_MAX, sizeof(*load->nodes));
    if (load->nodes == NULL) return errmsg_set(err, STATUS_NO_MEMORY, "out of memory");
    return rpc_client_create(load->env, &options, &load->rpc, err);
}

static enum status send(struct load *load, uint16_t method, struct buf *buf, enum status status,
                        void (*on_end)(void *ctx, const struct rpc_result *result), void *ctx)
{
    const struct rpc_request request = { .method = method,
                                         .body = buf_data(buf),
                                         .len = buf->len,
                                         .deadline_ns =
                                             env_now_ns(load->env) + TRY_S * ENV_NS_PER_S,
                                         .wait_until_up = true,
                                         .on_end = on_end,
                                         .ctx = ctx };
    if (status == STATUS_OK) status = rpc_call(load->rpc, &request, NULL);
    buf_fini(buf);
    return status;
}

static bool all_ok(struct msg_column codes, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (msg_u32_at(codes, i) != 0) return false;
    }
    return codes.count == count;
}

static void answered(struct load *load, enum status status)
{
    load->status = status;
    load->answered = true;
}

static void on_places(void *ctx, const struct rpc_result *result)
{
    struct load *load = ctx;
    struct store_places places;
    enum status status = result->status;

    if (status == STATUS_OK) {
        status = store_decode_places(result->body, result->len, &places, load->nodes);
    }
    if (status == STATUS_OK && !all_ok(places.codes, ITEMS_MAX)) status = STATUS_FULL;
    for (uint32_t i = 0; status == STATUS_OK && places.put_ids.count > 0 && i < ITEMS_MAX; i++) {
        load->ends[i].put_id = msg_u64_at(places.put_ids, i);
        load->ends[i].stored.address = msg_u64_at(places.addresses, i);
    }
    answered(load, status);
}

static void on_codes(void *ctx, const struct rpc_result *result)
{
    struct load *load = ctx;
    struct msg_column codes;
    enum status status = result->status;

    if (status == STATUS_OK) status = store_decode_statuses(result->body, result->len, &codes);
    if (status == STATUS_OK && !all_ok(codes, ITEMS_MAX)) status = STATUS_STALE;
    answered(load, status);
}

static enum status ask(struct load *load, uint16_t method)
{
    const struct store_batch batch = { .count = ITEMS_MAX,
                                       .keys_data = load->names,
                                       .sizes_data =
                                           method == MASTER_METHOD_PUT_START ? load->sizes : NULL,
                                       .writer = load->space + 1 };
    struct buf buf;
    buf_init(&buf, RPC_BODY_SIZE_MAX);
    load->answered = false;
    const enum status status = store_encode_batch(&buf, &batch);
    return send(load, method, &buf, status, on_places, load);
}

static void ended_fill(struct load *load, struct store_ended *ended, struct store_key key)
{
    ended->stored.kind = STORE_EVENT_STORED;
    ended->stored.class = STORE_CLASS_OBJECT;
    ended->stored.key = key.bytes;
    ended->stored.key_len = key.len;
    ended->stored.size = BENCH_STORE_VALUE_SIZE;
    ended->stored.digest = 1;
    ended->stored.generation = env_now_ns(load->env); /* one clock for all loads of this host */
}

static enum status tell_ends(struct load *load)
{
    struct buf buf;
    buf_init(&buf, RPC_BODY_SIZE_MAX);
    for (uint32_t i = 0; i < ITEMS_MAX; i++)
        ended_fill(load, &load->ends[i], load->names[i]);
    load->answered = false;
    const enum status status = store_encode_put_ends(&buf, BENCH_STORE_NODE_NAME,
                                                     BENCH_STORE_NODE_EPOCH, load->ends, ITEMS_MAX);
    return send(load, MASTER_METHOD_PUT_ENDS, &buf, status, on_codes, load);
}

static enum status get_batch(struct load *load, struct errmsg *err)
{
    enum status status = rpc_open(load, err);
    while (status == STATUS_OK) {
        for (uint32_t i = 0; i < ITEMS_MAX; i++)
            pick(load, i, false, NULL);
        status = ask(load, MASTER_METHOD_GET);
        if (status == STATUS_OK) status = wait(load);
    }
    return errmsg_set(err, status, "get: %s", status_name(status));
}

/* Until `count` keys are there. */
static enum status put_until(struct load *load, uint64_t count, struct errmsg *err)
{
    uint64_t next = 0;
    enum status status = rpc_open(load, err);

    for (uint32_t i = 0; i < ITEMS_MAX; i++)
        load->sizes[i] = BENCH_STORE_VALUE_SIZE;
    while (status == STATUS_OK && next < count) {
        for (uint32_t i = 0; i < ITEMS_MAX; i++)
            pick(load, i, true, &next);
        status = ask(load, MASTER_METHOD_PUT_START);
        if (status == STATUS_OK) status = wait(load);
        if (status == STATUS_OK) status = tell_ends(load);
        if (status == STATUS_OK) status = wait(load);
    }
    return status == STATUS_OK ? status : errmsg_set(err, status, "put: %s", status_name(status));
}

static enum status put_batch(struct load *load, struct errmsg *err)
{
    env_random(load->env, &load->space, sizeof(load->space));
    load->space |= 1; /* not the space of those that are asked about */
    return put_until(load, UINT64_MAX, err);
}

static enum status fill(struct load *load, struct errmsg *err)
{
    return put_until(load, load->keys, err);
}

/* ---- threads ---- */

struct asker {
    struct load *load;
    struct yolk_store_threads *threads;
    uint32_t number;
};

static enum status threads_start(struct load *load, void *(*run)(void *asker),
                                 struct yolk_store_threads *threads, struct errmsg *err)
{
    static struct asker askers[BENCH_STORE_THREADS];
    for (uint32_t i = 0; i < BENCH_STORE_THREADS; i++) {
        pthread_t thread;
        askers[i] = (struct asker){ load, threads, i };
        if (pthread_create(&thread, NULL, run, &askers[i]) != 0) {
            return errmsg_set(err, STATUS_NO_MEMORY, "no more threads");
        }
        pthread_detach(thread); /* they end with the process */
    }
    env_run(load->env);
    return STATUS_OK;
}

static void *exist_thread(void *ctx)
{
    const struct asker *asker = ctx;
    struct rng rng;
    uint8_t bytes[BENCH_STORE_KEY_SIZE];
    const struct yolk_store_key key = { bytes, sizeof(bytes) };

    rng_init(&rng, asker->number);
    for (;;) {
        bench_store_key(bytes, 0, rng_below(&rng, asker->load->keys));
        const enum status status = yolk_store_threads_exist(asker->threads, &key);
        if (status != STATUS_OK) break;
    }
    return NULL;
}

static enum status exist_threads(struct load *load, struct errmsg *err)
{
    struct yolk_store_threads *threads;
    enum status status = client_open(load, err);
    if (status == STATUS_OK) status = yolk_store_threads_create(load->env, load->store, &threads);
    if (status != STATUS_OK) return status;
    return threads_start(load, exist_thread, threads, err);
}

/* A thread's start or end of one put. */
struct put_op {
    struct gather_op op; /* first */
    bool start;
    enum status status;
    struct store_ended ended;
    uint8_t bytes[BENCH_STORE_KEY_SIZE];
};

/* Starts and ends of several threads that leave together: an exchange each. Nobody waits for
 * others: with one flight at a time eight threads made 32,000 puts a second instead of 41,000. */
struct put_flight;
struct put_half {
    struct put_flight *flight;
    struct put_op *ops[BENCH_STORE_THREADS];
    uint32_t count;
};
struct put_flight {
    struct load *load;
    struct put_half starts;
    struct put_half ends;
    uint32_t open; /* halves that are under way */
};

static struct gather *put_gather; /* of the process: written before any thread is there */

static void half_answer(struct put_half *half, enum status status)
{
    struct put_flight *flight = half->flight;
    for (uint32_t i = 0; i < half->count; i++) {
        half->ops[i]->status = status;
        gather_answer(put_gather, &half->ops[i]->op);
    }
    if (--flight->open > 0) return;
    gather_landed(put_gather, 0);
    free(flight);
}

static void on_started(void *ctx, const struct rpc_result *result)
{
    struct put_half *half = ctx;
    struct store_places places;
    enum status status = result->status;

    if (status == STATUS_OK) {
        status = store_decode_places(result->body, result->len, &places, half->flight->load->nodes);
    }
    if (status == STATUS_OK && !all_ok(places.codes, half->count)) status = STATUS_FULL;
    for (uint32_t i = 0; status == STATUS_OK && i < half->count; i++) {
        half->ops[i]->ended.put_id = msg_u64_at(places.put_ids, i);
        half->ops[i]->ended.stored.address = msg_u64_at(places.addresses, i);
    }
    half_answer(half, status);
}

static void on_ended(void *ctx, const struct rpc_result *result)
{
    struct put_half *half = ctx;
    struct msg_column codes;
    enum status status = result->status;

    if (status == STATUS_OK) status = store_decode_statuses(result->body, result->len, &codes);
    if (status == STATUS_OK && !all_ok(codes, half->count)) status = STATUS_STALE;
    half_answer(half, status);
}

static enum status starts_send(struct put_half *half)
{
    struct load *load = half->flight->load;
    struct store_key names[BENCH_STORE_THREADS];
    uint64_t sizes[BENCH_STORE_THREADS];
    struct buf buf;

    for (uint32_t i = 0; i < half->count; i++) {
        names[i] = (struct store_key){ half->ops[i]->bytes, BENCH_STORE_KEY_SIZE };
        sizes[i] = BENCH_STORE_VALUE_SIZE;
    }
    const struct store_batch batch = {
        .count = half->count, .keys_data = names, .sizes_data = sizes, .writer = load->space
    };
    buf_init(&buf, RPC_BODY_SIZE_MAX);
    const enum status status = store_encode_batch(&buf, &batch);
    return send(load, MASTER_METHOD_PUT_START, &buf, status, on_started, half);
}

static enum status ends_send(struct put_half *half)
{
    struct load *load = half->flight->load;
    struct store_ended ends[BENCH_STORE_THREADS];
    struct buf buf;

    for (uint32_t i = 0; i < half->count; i++) {
        const struct store_key name = { half->ops[i]->bytes, BENCH_STORE_KEY_SIZE };
        ends[i] = half->ops[i]->ended;
        ended_fill(load, &ends[i], name);
    }
    buf_init(&buf, RPC_BODY_SIZE_MAX);
    const enum status status = store_encode_put_ends(&buf, BENCH_STORE_NODE_NAME,
                                                     BENCH_STORE_NODE_EPOCH, ends, half->count);
    return send(load, MASTER_METHOD_PUT_ENDS, &buf, status, on_ended, half);
}

static void half_go(struct put_half *half, enum status (*send_half)(struct put_half *))
{
    if (half->count == 0) return;
    half->flight->open++;
    const enum status status = send_half(half);
    if (status != STATUS_OK) half_answer(half, status);
}

static struct gather_op *on_put_go(void *ctx, uint32_t kind, struct gather_op *ops)
{
    struct put_flight *flight = calloc(1, sizeof(*flight));
    ASSERT(flight != NULL && kind == 0);
    flight->load = ctx;
    flight->starts.flight = flight;
    flight->ends.flight = flight;
    for (; ops != NULL; ops = ops->next) { /* no more than there are threads */
        struct put_op *put = (struct put_op *)(void *)ops;
        struct put_half *half = put->start ? &flight->starts : &flight->ends;
        ASSERT(half->count < BENCH_STORE_THREADS);
        half->ops[half->count++] = put;
    }
    flight->open = 1; /* while it leaves */
    half_go(&flight->ends, ends_send);
    half_go(&flight->starts, starts_send);
    flight->open--;
    if (flight->open > 0) return NULL;
    gather_landed(put_gather, 0);
    free(flight);
    return NULL;
}

static void *put_thread(void *ctx)
{
    const struct asker *asker = ctx;
    struct put_op put = { .status = STATUS_OK };

    for (uint64_t n = 0; put.status == STATUS_OK; n++) {
        bench_store_key(put.bytes, asker->load->space, n * BENCH_STORE_THREADS + asker->number);
        put.start = true;
        if (gather_ask(put_gather, &put.op) != STATUS_OK || put.status != STATUS_OK) break;
        put.start = false;
        if (gather_ask(put_gather, &put.op) != STATUS_OK) break;
    }
    return NULL;
}

static enum status put_threads(struct load *load, struct errmsg *err)
{
    const struct gather_options options = { .env = load->env,
                                            .kinds = 1,
                                            .flights = { BENCH_STORE_THREADS },
                                            .on_go = on_put_go,
                                            .ctx = load };
    enum status status = rpc_open(load, err);
    env_random(load->env, &load->space, sizeof(load->space));
    load->space |= 1;
    if (status == STATUS_OK) status = gather_create(&options, &put_gather);
    if (status != STATUS_OK) return status;
    return threads_start(load, put_thread, NULL, err);
}

/* ---- the yardstick ---- */

static uint16_t port_of(const char *address)
{
    const char *colon = strrchr(address, ':');
    return colon == NULL ? 0 : (uint16_t)strtoul(colon + 1, NULL, 10);
}

static enum status echo_serve(struct load *load, struct errmsg *err)
{
    return errmsg_set(err, env_bare_echo_serve(port_of(load->master), BENCH_STORE_ECHO_SIZE),
                      "%s cannot be served", load->master);
}

static enum status echo(struct load *load, struct errmsg *err)
{
    return errmsg_set(err, env_bare_echo_ask(port_of(load->master), BENCH_STORE_ECHO_SIZE),
                      "nobody is at %s", load->master);
}

/* ---- the node ---- */

static enum status own(struct load *load, struct errmsg *err)
{
    return bench_store_own(load->cli, load->master, (uint32_t)load->keys, false, "", err);
}

static enum status own_disk(struct load *load, struct errmsg *err)
{
    return bench_store_own(load->cli, load->master, (uint32_t)load->keys, false,
                           config_text(load->cli->config, "data-dir"), err);
}

static enum status own_tcp(struct load *load, struct errmsg *err)
{
    return bench_store_own(load->cli, load->master, (uint32_t)load->keys, true, "", err);
}

/* A TiB: nothing is ever evicted. */
static enum status lend(struct load *load, struct errmsg *err)
{
    struct bench_store_node *node;
    const enum status status =
        bench_store_node_open(load->env, load->master, BENCH_STORE_LENT, &node, err);

    if (status != STATUS_OK) return status;
    env_run(load->env);
    bench_store_node_close(node);
    return STATUS_OK;
}

/* ---- which ---- */

static const struct {
    const char *name;
    enum status (*run)(struct load *load, struct errmsg *err);
} loads[] = {
    { "exist", exist_once },
    { "exist-threads", exist_threads },
    { "exist-128", exist_batch },
    { "get-128", get_batch },
    { "put-128", put_batch },
    { "put-threads", put_threads },
    { "fill", fill },
    { "echo-serve", echo_serve },
    { "echo", echo },
    { "lend", lend },
    { "own", own },
    { "own-tcp", own_tcp },
    { "own-disk", own_disk },
};

enum status bench_store_load(struct cli *cli, const char *name, struct errmsg *err)
{
    static struct load load;

    load = (struct load){ .cli = cli,
                          .env = cli->env,
                          .master = config_text(cli->config, "master"),
                          .keys = config_u64(cli->config, "keys") };
    uint64_t seed;
    env_random(cli->env, &seed, sizeof(seed));
    rng_init(&load.rng, seed);
    for (size_t i = 0; i < sizeof(loads) / sizeof(loads[0]); i++) {
        if (strcmp(loads[i].name, name) == 0) return loads[i].run(&load, err);
    }
    return errmsg_set(err, STATUS_INVALID,
                      "bench store load: exist, exist-threads, exist-128, get-128, put-128, "
                      "put-threads, fill, lend, own, own-tcp, own-disk, echo-serve or echo, not "
                      "`%s`",
                      name);
}
