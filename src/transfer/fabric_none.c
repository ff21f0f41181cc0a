/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/fabric_none.c - in the place of fabric_ofi.c where libfabric's headers were not there
 * when this was built: refuses to open a fabric, so that nothing else is ever called. */
#include "transfer/fabric.h"

#include "base/assert.h"

enum status fabric_open(const char *provider, const char *host, struct fabric **out,
                        struct errmsg *err)
{
    (void)provider;
    (void)host;
    (void)out;
    return errmsg_set(err, STATUS_UNSUPPORTED,
                      "fabric: left out of this build, which found no rdma/fabric.h "
                      "(install libfabric-dev and build again)");
}

void fabric_close(struct fabric *fabric)
{
    ASSERT(fabric == NULL);
}

const char *fabric_provider(const struct fabric *fabric)
{
    ASSERT(fabric == NULL);
    return "";
}

bool fabric_knows_hosts(const struct fabric *fabric)
{
    ASSERT(fabric == NULL);
    return false;
}

enum status fabric_link_open(struct fabric *fabric, struct fabric_link **out)
{
    ASSERT(fabric == NULL && out != NULL);
    return STATUS_UNSUPPORTED;
}

void fabric_link_close(struct fabric_link *link)
{
    ASSERT(link == NULL);
}

const char *fabric_link_provider(const struct fabric_link *link)
{
    ASSERT(link == NULL);
    return "";
}

size_t fabric_link_address(const struct fabric_link *link, uint8_t out[FABRIC_ADDRESS_SIZE])
{
    ASSERT(link == NULL && out != NULL);
    return 0;
}

enum status fabric_link_connect(struct fabric_link *link, const uint8_t *address, size_t len)
{
    ASSERT(link == NULL && address != NULL && len > 0);
    return STATUS_UNSUPPORTED;
}

int fabric_link_fd(const struct fabric_link *link)
{
    ASSERT(link == NULL);
    return -1;
}

bool fabric_link_quiet(struct fabric_link *link)
{
    ASSERT(link == NULL);
    return true;
}

enum status fabric_memory_open(struct fabric_link *link, void *address, size_t length,
                               unsigned access, uint64_t key, struct fabric_memory **out)
{
    (void)key;
    ASSERT(link == NULL && address != NULL && length > 0 && access != 0 && out != NULL);
    return STATUS_UNSUPPORTED;
}

void fabric_memory_close(struct fabric_link *link, struct fabric_memory *memory)
{
    ASSERT(link == NULL && memory == NULL);
}

uint64_t fabric_memory_key(const struct fabric_memory *memory)
{
    ASSERT(memory == NULL);
    return 0;
}

uint64_t fabric_memory_base(const struct fabric_memory *memory)
{
    ASSERT(memory == NULL);
    return 0;
}

enum status fabric_post(struct fabric_link *link, const struct fabric_request *request)
{
    ASSERT(link == NULL && request != NULL);
    return STATUS_UNSUPPORTED;
}

int fabric_link_poll(struct fabric_link *link, struct fabric_done *out, int max, int timeout_ms)
{
    (void)timeout_ms;
    ASSERT(link == NULL && out != NULL && max > 0);
    return -1;
}
