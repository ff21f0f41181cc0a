/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/rails_listen.c - the rails of this host at start: which interfaces they are, which
 * memory they suit, and a listener on each that the engine's own does not hear. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "transfer/transfer_int.h"

enum { TOPOLOGY_FILE_MAX = 1 << 20 };

/* The length of the host part of "host:port", or 0 if it is not of that form. */
size_t transfer_host_length(const char *name)
{
    const char *colon = strrchr(name, ':');
    unsigned long port = 0;

    if (colon == NULL || colon[1] == '\0' || strlen(colon + 1) > 5) return 0;
    for (const char *c = colon + 1; *c != '\0'; c++) {
        if (*c < '0' || *c > '9') return 0;
        port = port * 10 + (unsigned long)(*c - '0');
    }
    return port <= 65535 ? (size_t)(colon - name) : 0;
}

/* A listener on every interface hears the rails' addresses too. */
static bool hears_all(const char *listen)
{
    const size_t len = transfer_host_length(listen);
    return len == 0 || strncmp(listen, "0.0.0.0:", 8) == 0 || strncmp(listen, "[::]:", 5) == 0;
}

static void rail_name(struct topology_rail *rail, unsigned port)
{
    const bool six = strchr(rail->interface.address, ':') != NULL;
    char text[sizeof(rail->listen)];

    snprintf(text, sizeof(text), "%s%.50s%s:%u", six ? "[" : "", rail->interface.address,
             six ? "]" : "", port);
    memcpy(rail->listen, text, sizeof(text));
}

static enum status rail_listen(struct yolk_transfer *transfer, const char *listen, uint32_t at,
                               struct errmsg *err)
{
    struct topology_rail *rail = &transfer->topology.rails[at];
    struct env_listener **out = &transfer->rail_listeners[at];

    rail_name(rail, env_listener_port(transfer->listener));
    if (hears_all(listen) || strcmp(rail->listen, transfer->name) == 0 ||
        strncmp(rail->listen, listen, transfer_host_length(listen) + 1) == 0) {
        return STATUS_OK;
    }
    enum status status = env_listen(transfer->env, rail->listen, lane_accept, transfer, out, NULL);
    if (status == STATUS_OK) return STATUS_OK;
    rail_name(rail, 0);
    status = env_listen(transfer->env, rail->listen, lane_accept, transfer, out, err);
    if (status == STATUS_OK) rail_name(rail, env_listener_port(*out));
    return status;
}

static bool given(const char *text)
{
    return text != NULL && text[0] != '\0';
}

static enum status topology_read(struct yolk_transfer *transfer,
                                 const struct yolk_transfer_options *options, struct errmsg *err)
{
    const char *json = options->topology;
    const char *path =
        given(options->topology_file) ? options->topology_file : getenv("MC_CUSTOM_TOPO_JSON");
    char *text;
    size_t len;

    if (given(json)) return topology_parse(&transfer->topology, json, strlen(json), err);
    if (!given(path)) {
        topology_discover(&transfer->topology);
        return STATUS_OK;
    }
    enum status status =
        env_file_read_all(transfer->env, path, TOPOLOGY_FILE_MAX, &text, &len, err);
    if (status != STATUS_OK) return status;
    status = topology_parse(&transfer->topology, text, len, err);
    free(text);
    return status;
}

enum status transfer_rails_start(struct yolk_transfer *transfer,
                                 const struct yolk_transfer_options *options, const char *listen,
                                 struct errmsg *err)
{
    struct env_interface interfaces[ENV_INTERFACES_MAX];

    if (!given(options->rails)) return STATUS_OK;
    const uint32_t count = env_interfaces(transfer->env, interfaces, ENV_INTERFACES_MAX);
    enum status status =
        topology_select(&transfer->topology, options->rails, interfaces, count, err);
    if (status == STATUS_OK) status = topology_read(transfer, options, err);
    for (uint32_t i = 0; i < transfer->topology.rail_count && status == STATUS_OK; i++) {
        const struct env_interface *interface = &transfer->topology.rails[i].interface;
        if (transfer->secret[0] == '\0' && !transfer->allow_open && !interface->loopback) {
            return errmsg_set(err, STATUS_DENIED, "transfer: the rail %s needs a cluster secret",
                              interface->address);
        }
        status = rail_listen(transfer, listen, i, err);
    }
    return status;
}

void transfer_rails_stop(struct yolk_transfer *transfer)
{
    for (uint32_t i = 0; i < RAILS_MAX; i++)
        env_listener_close(transfer->rail_listeners[i]);
}
