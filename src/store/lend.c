/* SPDX-License-Identifier: Apache-2.0
 *
 * store/lend.c - a node of the pool that has nothing but memory for values, and all that it needs:
 * its listener, its transfer engine and its membership. The node's own page is one of the smallest
 * size, since a node has at least one. */
#include "yolk/store_lend.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/env.h"
#include "net/rpc.h"
#include "store/member.h"
#include "store/node.h"
#include "yolk/store.h"
#include "yolk/transfer.h"

enum { CONNECTIONS_MAX = 4096 };

_Static_assert((int)YOLK_STORE_LEND_SIZE_MIN == (int)STORE_PAGE_ALIGN, "one granule");
_Static_assert((int)YOLK_STORE_NAME_SIZE == (int)STORE_NAME_SIZE, "one limit");

struct yolk_store_lend {
    struct env *env;
    struct rpc_server *server;
    struct yolk_transfer *transfer;
    struct store_node *node;
    struct store_member *member;
    char name[STORE_NAME_SIZE];
    char address[STORE_ADDRESS_SIZE]; /* of the listener, as others are told */
    yolk_store_lend_fn on_joined;
    void *ctx;
    bool withdrawing;
};

static const struct store_layout layout = { .pages = 1,
                                            .page_size = STORE_PAGE_ALIGN,
                                            .layers = 1,
                                            .layer_size = STORE_PAGE_ALIGN,
                                            .block_tokens = 32 };

/* "host:port" -> "host"; brackets stay. */
static void host_of(const char *address, char out[STORE_ADDRESS_SIZE])
{
    const char *colon = strrchr(address, ':');
    const size_t len = colon != NULL ? (size_t)(colon - address) : strlen(address);
    snprintf(out, STORE_ADDRESS_SIZE, "%.*s", (int)len, address);
}

static enum status lend_listen(struct yolk_store_lend *lend,
                               const struct yolk_store_lend_options *options, struct errmsg *err)
{
    const char *listen = options->listen == NULL ? "127.0.0.1:0" : options->listen;
    const struct rpc_server_options server = { .address = listen,
                                               .secret = options->secret,
                                               .name = "lender",
                                               .connections_max = CONNECTIONS_MAX };
    char host[STORE_ADDRESS_SIZE];
    char data[STORE_ADDRESS_SIZE + 2];
    struct yolk_transfer_options transfer = { .listen = NULL };

    host_of(listen, host);
    snprintf(data, sizeof(data), "%s:0", host);
    if (options->transfer != NULL) transfer = *options->transfer;
    transfer.secret = options->secret;
    if (transfer.listen == NULL) transfer.listen = data;
    if (transfer.advertise_host == NULL) transfer.advertise_host = options->advertise_host;
    enum status status = rpc_server_create(lend->env, &server, &lend->server, err);
    if (status == STATUS_OK)
        status = yolk_transfer_create(lend->env, &transfer, &lend->transfer, err);
    if (status != STATUS_OK) return status;
    const char *told = options->advertise_host == NULL ? host : options->advertise_host;
    const int len = snprintf(lend->address, sizeof(lend->address), "%s:%u", told,
                             rpc_server_port(lend->server));
    if (len >= (int)sizeof(lend->address))
        return errmsg_set(err, STATUS_INVALID, "the address %.80s is too long", told);
    return STATUS_OK;
}

static enum status lend_name(struct yolk_store_lend *lend, const char *name, struct errmsg *err)
{
    if (name == NULL || name[0] == '\0') name = lend->address;
    if (strlen(name) >= sizeof(lend->name)) {
        return errmsg_set(err, STATUS_INVALID, "%.80s: a name has at most %d bytes", name,
                          STORE_NAME_SIZE - 1);
    }
    memcpy(lend->name, name, strlen(name) + 1);
    return STATUS_OK;
}

static enum status lend_memory(struct yolk_store_lend *lend,
                               const struct yolk_store_lend_options *options, struct errmsg *err)
{
    const struct store_node_options node = {
        .env = lend->env,
        .transfer = lend->transfer,
        .server = lend->server,
        .name = lend->name,
        .secret = options->secret == NULL ? "" : options->secret,
        .layout = layout,
        .object_size = options->size / STORE_PAGE_ALIGN * STORE_PAGE_ALIGN,
        .disk_directory = options->directory,
        .values_disk_size = options->disk_size,
        .populate = options->populate,
    };
    return store_node_create(&node, &lend->node, err);
}

static void on_joined(void *ctx, uint64_t term)
{
    const struct yolk_store_lend *lend = ctx;
    (void)term;
    if (lend->on_joined != NULL) lend->on_joined(lend->ctx, STATUS_OK);
}

static enum status lend_join(struct yolk_store_lend *lend,
                             const struct yolk_store_lend_options *options, struct errmsg *err)
{
    const char *segment = store_node_segment(lend->node);
    struct store_join_options join = {
        .env = lend->env,
        .master = options->master,
        .secret = options->secret == NULL ? "" : options->secret,
        .info = { .role = STORE_ROLE_STORE,
                  .layout = layout,
                  .epoch = store_node_epoch(lend->node) },
        .node = lend->node,
        .on_joined = on_joined,
        .ctx = lend,
    };
    if (strlen(segment) >= sizeof(join.info.segment))
        return errmsg_set(err, STATUS_INVALID, "the address %.80s is too long", segment);
    memcpy(join.info.name, lend->name, sizeof(join.info.name));
    memcpy(join.info.rpc_address, lend->address, sizeof(join.info.rpc_address));
    memcpy(join.info.segment, segment, strlen(segment) + 1);
    return store_join(&join, &lend->member, err);
}

enum status yolk_store_lend_create(const struct yolk_store_lend_options *options,
                                   struct yolk_store_lend **out, struct errmsg *err)
{
    ASSERT(options->env != NULL && options->master != NULL);
    if (options->size < YOLK_STORE_LEND_SIZE_MIN || options->size > YOLK_STORE_LEND_SIZE_MAX) {
        return errmsg_set(err, STATUS_INVALID, "%d bytes to 1 TiB can be lent, not %llu",
                          YOLK_STORE_LEND_SIZE_MIN, (unsigned long long)options->size);
    }
    struct yolk_store_lend *lend = calloc(1, sizeof(*lend));
    if (lend == NULL) return errmsg_set(err, STATUS_NO_MEMORY, "out of memory");

    lend->env = options->env;
    lend->on_joined = options->on_joined;
    lend->ctx = options->ctx;
    enum status status = lend_listen(lend, options, err);
    if (status == STATUS_OK) status = lend_name(lend, options->name, err);
    if (status == STATUS_OK) status = lend_memory(lend, options, err);
    if (status == STATUS_OK) status = lend_join(lend, options, err);
    if (status != STATUS_OK) {
        yolk_store_lend_destroy(lend);
        return status;
    }
    *out = lend;
    return STATUS_OK;
}

const char *yolk_store_lend_name(const struct yolk_store_lend *lend)
{
    return lend->name;
}

struct yolk_transfer *yolk_store_lend_transfer(const struct yolk_store_lend *lend)
{
    return lend->transfer;
}

enum status yolk_store_lend_joined(const struct yolk_store_lend *lend)
{
    return store_joined(lend->member);
}

enum status yolk_store_lend_withdraw(struct yolk_store_lend *lend, yolk_store_lend_fn on_end,
                                     void *ctx)
{
    ASSERT(on_end != NULL);
    if (lend->withdrawing) return STATUS_BUSY;
    lend->withdrawing = true;
    store_unmount(lend->member, on_end, ctx);
    return STATUS_OK;
}

void yolk_store_lend_destroy(struct yolk_store_lend *lend)
{
    if (lend == NULL) return;
    rpc_server_destroy(lend->server);
    store_leave(lend->member);
    if (lend->node != NULL) store_node_close_disk(lend->node);
    yolk_transfer_destroy(lend->transfer); /* and the memory with it */
    store_node_destroy(lend->node);
    free(lend);
}
