/* SPDX-License-Identifier: Apache-2.0
 *
 * net/rpc_fuzz.c - the frame decoder over foreign payloads.
 *
 * What is accepted must satisfy what the rest of rpc relies on, and must come out the same after it
 * was written again. */
#include "net/rpc_int.h"

#include <string.h>

#include "base/assert.h"
#include "base/buf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void check_same(struct msg_bytes a, struct msg_bytes b)
{
    ASSERT(a.len == b.len);
    ASSERT(memcmp(a.data, b.data, a.len) == 0);
}

static void check_frame(const struct rpc_frame *frame)
{
    ASSERT(frame->kind >= RPC_KIND_MIN && frame->kind <= RPC_KIND_MAX);
    ASSERT(frame->name.len < RPC_NAME_SIZE);
    ASSERT(frame->message.len < RPC_MESSAGE_SIZE);
    ASSERT(frame->nonce.len <= RPC_NONCE_SIZE && frame->proof.len <= RPC_PROOF_SIZE);
    if (frame->kind == RPC_KIND_FAIL) ASSERT(frame->status != STATUS_OK);
    if (frame->kind == RPC_KIND_HELLO) ASSERT(frame->nonce.len == RPC_NONCE_SIZE);
    if (frame->kind == RPC_KIND_REQUEST) ASSERT(frame->call != 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct rpc_head head = { .len = len };
    struct rpc_frame frame, again;
    struct buf buf;

    if (rpc_frame_read(data, &head, 1, &frame) != STATUS_OK) return 0;
    check_frame(&frame);
    const uint32_t version = frame.kind <= RPC_KIND_REFUSE ? 1 : 2;
    buf_init(&buf, len + RPC_FRAME_SIZE_MAX);
    enum status status = rpc_frame_write(&buf, &frame, version);
    ASSERT(status == STATUS_OK);
    status = rpc_head_read(buf_data(&buf), version, &head);
    ASSERT(status == STATUS_OK && head.len == buf.len - rpc_head_size(version));
    status = rpc_frame_read(buf_data(&buf) + rpc_head_size(version), &head, version, &again);
    ASSERT(status == STATUS_OK);
    ASSERT(again.kind == frame.kind && again.call == frame.call && again.method == frame.method);
    ASSERT(again.status == frame.status && again.timeout_ms == frame.timeout_ms);
    check_same(again.name, frame.name);
    check_same(again.message, frame.message);
    check_same(again.body, frame.body);
    buf_fini(&buf);
    return 0;
}
