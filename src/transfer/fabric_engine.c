/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/fabric_engine.c - the protocol a user names, and the providers opened for it: one for
 * each address of ours that lanes start or end at, so that a rail's data leaves by the rail; a
 * single one where the provider knows no addresses. */
#include "transfer/fabric_engine.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "transfer/transfer_int.h"

enum { HOSTS_MAX = 64 };

struct host {
    char address[ENV_ADDRESS_SIZE]; /* "": wherever the provider likes */
    struct fabric *fabric;
};

struct fabric_engine {
    char provider[FABRIC_NAME_SIZE]; /* as asked for */
    uint32_t count;
    struct host hosts[HOSTS_MAX];
};

static const char prefix[] = "fabric:";

/* What follows "fabric:", "" for "fabric", NULL if it is neither. */
static const char *provider_of(const char *protocol)
{
    if (strcmp(protocol, "fabric") == 0) return "";
    if (strncmp(protocol, prefix, strlen(prefix)) != 0) return NULL;
    const char *provider = protocol + strlen(prefix);
    const size_t len = strlen(provider);
    return len > 0 && len < FABRIC_NAME_SIZE ? provider : NULL;
}

enum status fabric_engine_start(struct yolk_transfer *transfer, const char *protocol,
                                struct errmsg *err)
{
    if (protocol == NULL || protocol[0] == '\0' || strcmp(protocol, "tcp") == 0) return STATUS_OK;
    const char *provider = provider_of(protocol);
    if (provider == NULL) {
        return errmsg_set(err, STATUS_INVALID,
                          "transfer: no protocol `%s`; tcp, fabric or fabric:PROVIDER", protocol);
    }
    struct fabric_engine *engine = calloc(1, sizeof(*engine));
    if (engine == NULL) return errmsg_set(err, STATUS_NO_MEMORY, "transfer: no memory");
    memcpy(engine->provider, provider, strlen(provider));
    const enum status status = fabric_open(provider, NULL, &engine->hosts[0].fabric, err);
    if (status != STATUS_OK) {
        free(engine);
        return status;
    }
    engine->count = 1;
    transfer->fabric = engine;
    LOG_INFO("transfer", "fabric", "provider=%s", fabric_provider(engine->hosts[0].fabric));
    return STATUS_OK;
}

void fabric_engine_stop(struct yolk_transfer *transfer)
{
    struct fabric_engine *engine = transfer->fabric;

    if (engine == NULL) return;
    for (uint32_t i = 0; i < engine->count; i++)
        fabric_close(engine->hosts[i].fabric);
    free(engine);
    transfer->fabric = NULL;
}

struct fabric *fabric_engine_at(struct fabric_engine *engine, const char *address)
{
    struct errmsg err = { "" };
    const size_t len = strlen(address);

    if (!fabric_knows_hosts(engine->hosts[0].fabric)) return engine->hosts[0].fabric;
    for (uint32_t i = 1; i < engine->count; i++) {
        if (strcmp(engine->hosts[i].address, address) == 0) return engine->hosts[i].fabric;
    }
    if (engine->count == HOSTS_MAX || len >= ENV_ADDRESS_SIZE) return NULL;
    struct host *host = &engine->hosts[engine->count];
    if (fabric_open(engine->provider, address, &host->fabric, &err) != STATUS_OK) {
        LOG_WARN("transfer", "fabric_host", "address=%s reason=%s", address, err.text);
        return NULL;
    }
    memcpy(host->address, address, len + 1);
    engine->count++;
    return host->fabric;
}
