/* SPDX-License-Identifier: Apache-2.0
 *
 * store/master_task_serve.c - the calls about tasks at the master: master.task, master.task_query.
 */
#include "store/master_shell_int.h"

#include <inttypes.h>

#include "base/buf.h"
#include "base/env.h"
#include "base/log.h"
#include "net/rpc.h"
#include "store/master_tally.h"
#include "store/master_task.h"
#include "store/proto.h"
#include "store/proto_task.h"

static void answer(struct rpc_call *call, enum status status, const struct yolk_store_task *task,
                   const char *why)
{
    struct buf buf;

    buf_init(&buf, RPC_BODY_SIZE_MAX);
    if (status == STATUS_OK) status = store_encode_task(&buf, task);
    if (status == STATUS_OK) {
        rpc_reply(call, buf_data(&buf), buf.len);
    } else {
        rpc_fail(call, status, why);
    }
    buf_fini(&buf);
}

static void handle_task(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    struct store_master_shell *shell = ctx;
    const char *to[STORE_REPLICAS_MAX];
    struct store_task_ask ask;
    struct yolk_store_task task;
    const char *why = "master.task: malformed";

    enum status status = store_decode_task_ask(body, len, &ask);
    const bool move = status == STATUS_OK && ask.move;
    if (status == STATUS_OK) {
        for (uint32_t i = 0; i < ask.to_count; i++)
            to[i] = ask.to[i];
        const struct store_task_wish wish = {
            .move = ask.move, .from = ask.from, .to_count = ask.to_count, .to = to
        };
        status = store_master_task_create(shell->master, master_shell_now(shell), ask.key, &wish,
                                          &task, &why);
    }
    if (status == STATUS_OK) {
        LOG_DEBUG("store", "task_made", "number=%" PRIx64 " move=%d targets=%u bytes=%" PRIu64,
                  task.id.number, task.move, task.targets, task.size);
    }
    master_tally_one(&shell->tally, move ? MASTER_OP_CREATE_MOVE_TASK : MASTER_OP_CREATE_COPY_TASK,
                     status);
    answer(call, status, &task, why);
    master_shell_act(shell);
}

static void handle_task_query(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    struct store_master_shell *shell = ctx;
    struct yolk_store_task_id id;
    struct yolk_store_task task;

    enum status status = store_decode_task_id(body, len, &id);
    if (status == STATUS_OK)
        status = store_master_task(shell->master, master_shell_now(shell), id, &task);
    master_tally_one(&shell->tally, MASTER_OP_QUERY_TASK, status);
    answer(call, status, &task, "this master has no such task");
}

void master_task_serve(struct store_master_shell *shell, struct rpc_server *server)
{
    rpc_server_add(server, MASTER_METHOD_TASK, "master.task", handle_task, shell);
    rpc_server_add(server, MASTER_METHOD_TASK_QUERY, "master.task_query", handle_task_query, shell);
}
