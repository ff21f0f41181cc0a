/* SPDX-License-Identifier: Apache-2.0
 *
 * store/client_commit.c - see the header.
 *
 *   add -> WAITING --next turn--> SENT, with others --a code of its own--> on_end
 *                                  |  \--no answer, or not about as many--> on_end
 *                                  +--unsupported, left out--> SENT, alone --answer--> on_end */
#include "store/client_commit.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/env.h"
#include "base/list.h"
#include "net/rpc.h"
#include "store/proto.h"

enum {
    OLDER_MAX = 64,       /* lives of owners remembered that know no batches */
    UNTIL_APART_MS = 100, /* values of a message may differ so much in how long they wait */
};

struct commit {
    struct commit *next;
    struct rpc_client *owner;
    struct store_commit message; /* what it points to is behind it */
    uint64_t until_ns;
    void (*on_end)(void *ctx, enum status status);
    void *ctx;
};

/* A message under way. */
struct exchange {
    struct exchange *prev;
    struct exchange *next;
    struct client_commits *commits;
    struct commit *first;
    struct commit *last;
    uint32_t count;
    uint32_t sums;
    uint64_t bytes;
    uint64_t until_ns; /* of that which has the least time */
};

struct client_commits {
    struct env *env;
    struct commit *first; /* WAITING, in order */
    struct commit *last;
    struct env_timer turn; /* sends them */
    struct exchange *exchanges;
    uint64_t older[OLDER_MAX]; /* epochs of owners, the last ones met */
    uint32_t older_count;      /* ever */
    uint32_t values_max;       /* of a message */
    uint64_t together;         /* values sent with others */
    bool closing;
};

static void on_turn(void *ctx);

enum status client_commits_create(struct env *env, struct client_commits **out)
{
    struct client_commits *commits = calloc(1, sizeof(*commits));
    if (commits == NULL) return STATUS_NO_MEMORY;

    commits->env = env;
    commits->values_max = COMMIT_VALUES_MAX;
    env_timer_init(&commits->turn, on_turn, commits);
    *out = commits;
    return STATUS_OK;
}

void client_commits_limit(struct client_commits *commits, uint32_t values_max)
{
    ASSERT(values_max >= 1 && values_max <= COMMIT_VALUES_MAX);
    commits->values_max = values_max;
}

uint64_t client_commits_together(const struct client_commits *commits)
{
    return commits->together;
}

static void chain_free(struct commit *first)
{
    for (struct commit *next; first != NULL; first = next) {
        next = first->next;
        free(first);
    }
}

static void exchange_free(struct exchange *exchange)
{
    LIST_REMOVE(exchange->commits->exchanges, exchange);
    chain_free(exchange->first);
    free(exchange);
}

void client_commits_close(struct client_commits *commits)
{
    commits->closing = true;
    env_timer_cancel(commits->env, &commits->turn);
}

void client_commits_destroy(struct client_commits *commits)
{
    if (commits == NULL) return;
    client_commits_close(commits);
    while (commits->exchanges != NULL)
        exchange_free(commits->exchanges);
    chain_free(commits->first);
    free(commits);
}

/* ---- owners of before ---- */

static bool is_older(const struct client_commits *commits, uint64_t epoch)
{
    for (uint32_t i = 0; i < commits->older_count && i < OLDER_MAX; i++) {
        if (commits->older[i] == epoch) return true;
    }
    return false;
}

static void older_add(struct client_commits *commits, uint64_t epoch)
{
    if (is_older(commits, epoch)) return;
    commits->older[commits->older_count++ % OLDER_MAX] = epoch;
}

/* ---- adding ---- */

static void append(struct client_commits *commits, struct commit *commit)
{
    commit->next = NULL;
    if (commits->last == NULL) {
        commits->first = commit;
        env_timer_set(commits->env, &commits->turn, env_now_ns(commits->env));
    } else {
        commits->last->next = commit;
    }
    commits->last = commit;
}

enum status client_commits_add(struct client_commits *commits, struct rpc_client *owner,
                               const struct store_commit *message, uint64_t until_ns,
                               void (*on_end)(void *ctx, enum status status), void *ctx)
{
    const uint32_t sums = store_commit_sums(message);
    const bool parts = message->parts_data != NULL;
    const size_t sums_size = sums * sizeof(uint64_t);
    const size_t parts_size = parts ? sums * sizeof(uint32_t) : 0;
    struct commit *commit = malloc(sizeof(*commit) + sums_size + parts_size + message->key.len);
    ASSERT(!commits->closing);
    if (commit == NULL) return STATUS_FULL;

    uint8_t *behind = (uint8_t *)(commit + 1);
    *commit = (struct commit){
        .owner = owner, .message = *message, .until_ns = until_ns, .on_end = on_end, .ctx = ctx
    };
    commit->message.sums_data = memcpy(behind, message->sums_data, sums_size);
    behind += sums_size;
    if (parts) commit->message.parts_data = memcpy(behind, message->parts_data, parts_size);
    behind += parts_size;
    commit->message.key.bytes = memcpy(behind, message->key.bytes, message->key.len);
    append(commits, commit);
    return STATUS_OK;
}

/* ---- sending ---- */

/* Whether it may be in one message with the first of the exchange (I1, I2). */
static bool fits(const struct exchange *exchange, const struct commit *commit)
{
    const struct commit *first = exchange->first;
    const struct store_commit *message = &commit->message;
    const uint64_t apart = commit->until_ns > first->until_ns ? commit->until_ns - first->until_ns
                                                              : first->until_ns - commit->until_ns;
    if (commit->owner != first->owner || message->epoch != first->message.epoch) return false;
    if (message->term != first->message.term || apart > UNTIL_APART_MS * ENV_NS_PER_MS) {
        return false;
    }
    return exchange->count < exchange->commits->values_max &&
           message->size <= COMMIT_BYTES_MAX - exchange->bytes &&
           store_commit_sums(message) <= STORE_COMMITS_SUMS_MAX - exchange->sums;
}

static void take(struct exchange *exchange, struct commit *commit)
{
    commit->next = NULL;
    if (exchange->last == NULL) {
        exchange->first = commit;
    } else {
        exchange->last->next = commit;
    }
    exchange->last = commit;
    if (exchange->count == 0 || commit->until_ns < exchange->until_ns) {
        exchange->until_ns = commit->until_ns;
    }
    exchange->count++;
    exchange->sums += store_commit_sums(&commit->message);
    exchange->bytes = commit->message.size < COMMIT_BYTES_MAX - exchange->bytes
                          ? exchange->bytes + commit->message.size
                          : COMMIT_BYTES_MAX;
}

static void on_answer(void *ctx, const struct rpc_result *result);

static enum status exchange_encode(const struct exchange *exchange, struct buf *buf)
{
    struct store_commit *messages = malloc(exchange->count * sizeof(*messages));
    uint32_t n = 0;

    if (messages == NULL) return STATUS_FULL;
    for (const struct commit *commit = exchange->first; commit != NULL; commit = commit->next)
        messages[n++] = commit->message;
    ASSERT(n == exchange->count);
    const enum status status = store_encode_commits(buf, messages, n);
    free(messages);
    return status;
}

static enum status exchange_send(struct exchange *exchange)
{
    const struct commit *first = exchange->first;
    const bool many = exchange->count > 1;
    struct rpc_call_id id;
    struct buf buf;

    buf_init(&buf, RPC_BODY_SIZE_MAX);
    enum status status =
        many ? exchange_encode(exchange, &buf) : store_encode_commit(&buf, &first->message);
    const struct rpc_request request = { .method =
                                             many ? STORE_METHOD_COMMITS : STORE_METHOD_COMMIT,
                                         .body = buf_data(&buf),
                                         .len = buf.len,
                                         .deadline_ns = exchange->until_ns,
                                         .on_end = on_answer,
                                         .ctx = exchange };
    if (status == STATUS_OK) status = rpc_call(first->owner, &request, &id);
    buf_fini(&buf);
    return status;
}

/* Each of them ends; what they add is for the next turn. */
static void chain_end(struct commit *first, enum status status)
{
    for (struct commit *next; first != NULL; first = next) {
        next = first->next;
        first->on_end(first->ctx, status);
        free(first);
    }
}

/* One message for the first of the list and what of the others fits. The rest is returned. */
static struct commit *send_some(struct client_commits *commits, struct commit *list, bool alone)
{
    struct commit *rest = NULL;
    struct commit **rest_end = &rest;
    struct exchange *exchange = calloc(1, sizeof(*exchange));
    if (exchange == NULL) {
        chain_end(list, STATUS_CONN_REFUSED); /* none has left */
        return NULL;
    }

    exchange->commits = commits;
    const bool one = alone || is_older(commits, list->message.epoch);
    for (struct commit *next; list != NULL && !(one && exchange->count == 1); list = next) {
        next = list->next;
        if (exchange->first == NULL || fits(exchange, list)) {
            take(exchange, list);
            continue;
        }
        *rest_end = list;
        rest_end = &list->next;
    }
    *rest_end = list;
    if (exchange->count > 1) commits->together += exchange->count;
    LIST_PUSH(commits->exchanges, exchange);
    const enum status status = exchange_send(exchange);
    if (status != STATUS_OK) {
        struct commit *first = exchange->first;
        exchange->first = NULL;
        exchange_free(exchange);
        chain_end(first, STATUS_CONN_REFUSED); /* it never left */
    }
    return rest;
}

static void on_turn(void *ctx)
{
    struct client_commits *commits = ctx;
    struct commit *list = commits->first;

    commits->first = NULL;
    commits->last = NULL;
    while (list != NULL)
        list = send_some(commits, list, false);
}

/* ---- answers ---- */

static void send_alone(struct client_commits *commits, struct commit *list)
{
    while (list != NULL)
        list = send_some(commits, list, true);
}

/* Those that the answer leaves out, as a list. */
static struct commit *answer_walk(struct commit *commit, struct msg_column codes)
{
    struct commit *left_out = NULL;
    struct commit **end = &left_out;
    uint32_t i = 0;

    for (struct commit *next; commit != NULL; commit = next) {
        const enum status status = store_status_of(msg_u32_at(codes, i++));
        next = commit->next;
        if (status == STATUS_AGAIN) {
            *end = commit;
            end = &commit->next;
            continue;
        }
        commit->on_end(commit->ctx, status);
        free(commit);
    }
    *end = NULL;
    return left_out;
}

static void on_answer(void *ctx, const struct rpc_result *result)
{
    struct exchange *exchange = ctx;
    struct client_commits *commits = exchange->commits;
    struct commit *first = exchange->first;
    const uint32_t count = exchange->count;
    enum status status = result->status;
    struct msg_column codes;

    if (commits->closing) return; /* client_commits_destroy() frees it */
    exchange->first = NULL;
    exchange_free(exchange);
    if (count == 1) {
        chain_end(first, status);
        return;
    }
    if (status == STATUS_OK) status = store_decode_statuses(result->body, result->len, &codes);
    if (status == STATUS_OK && codes.count != count) status = STATUS_PROTOCOL;
    if (status == STATUS_OK) {
        send_alone(commits, answer_walk(first, codes));
    } else if (status == STATUS_UNSUPPORTED) {
        older_add(commits, first->message.epoch);
        send_alone(commits, first);
    } else {
        chain_end(first, status);
    }
}
