/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/topology.c - see topology.h. The only file of this layer that knows Jansson. */
#include "transfer/topology.h"

#include <stdio.h>
#include <string.h>

#include <jansson.h>

#include "base/assert.h"

_Static_assert((int)RAILS_MAX == (int)WIRE_RAILS_MAX, "a peer can be told all rails");

/* ---- which interfaces ---- */

static enum status rail_add(struct topology *topology, const struct env_interface *interface,
                            struct errmsg *err)
{
    if (topology->rail_count == RAILS_MAX) {
        return errmsg_set(err, STATUS_FULL, "transfer: at most %d rails", RAILS_MAX);
    }
    topology->rails[topology->rail_count++].interface = *interface;
    return STATUS_OK;
}

static bool is_named(const struct env_interface *interface, const char *name, size_t len)
{
    const bool by_name = strlen(interface->name) == len && memcmp(interface->name, name, len) == 0;
    const bool by_address =
        strlen(interface->address) == len && memcmp(interface->address, name, len) == 0;
    return by_name || by_address;
}

static enum status select_one(struct topology *topology, const char *name, size_t len,
                              const struct env_interface *interfaces, uint32_t count,
                              struct errmsg *err)
{
    for (uint32_t i = 0; i < count; i++) {
        if (is_named(&interfaces[i], name, len)) return rail_add(topology, &interfaces[i], err);
    }
    return errmsg_set(err, STATUS_NOT_FOUND, "transfer: no interface or address '%.*s' here",
                      (int)(len < 64 ? len : 64), name);
}

static enum status select_all(struct topology *topology, const struct env_interface *interfaces,
                              uint32_t count, struct errmsg *err)
{
    enum status status = STATUS_OK;

    for (uint32_t i = 0; i < count && status == STATUS_OK; i++) {
        const bool four = strchr(interfaces[i].address, ':') == NULL;
        if (!interfaces[i].up || interfaces[i].loopback || !four) continue;
        status = rail_add(topology, &interfaces[i], err);
    }
    return status;
}

enum status topology_select(struct topology *topology, const char *list,
                            const struct env_interface *interfaces, uint32_t count,
                            struct errmsg *err)
{
    enum status status = STATUS_OK;

    topology->rail_count = 0;
    if (strcmp(list, "auto") == 0) return select_all(topology, interfaces, count, err);
    while (*list != '\0' && status == STATUS_OK) {
        const size_t len = strcspn(list, ",");
        if (len > 0) status = select_one(topology, list, len, interfaces, count, err);
        list += len;
        if (*list == ',') list++;
    }
    return status;
}

/* ---- which suits what ---- */

static enum status names_to_bits(const struct topology *topology, const json_t *names,
                                 uint32_t *out)
{
    size_t i;
    const json_t *name;

    if (!json_is_array(names)) return STATUS_INVALID;
    json_array_foreach(names, i, name)
    {
        if (!json_is_string(name)) return STATUS_INVALID;
        const char *text = json_string_value(name);
        for (uint32_t rail = 0; rail < topology->rail_count; rail++) {
            if (is_named(&topology->rails[rail].interface, text, strlen(text))) {
                *out |= 1u << rail;
            }
        }
    }
    return STATUS_OK;
}

static enum status location_parse(struct topology *topology, const char *name, const json_t *lists,
                                  struct errmsg *err)
{
    uint32_t preferred = 0, secondary = 0;

    if (topology->location_count == TOPOLOGY_LOCATIONS_MAX) {
        return errmsg_set(err, STATUS_FULL, "topology: at most %d locations",
                          TOPOLOGY_LOCATIONS_MAX);
    }
    if (strlen(name) >= TOPOLOGY_LOCATION_SIZE || !json_is_array(lists) ||
        json_array_size(lists) != 2 ||
        names_to_bits(topology, json_array_get(lists, 0), &preferred) != STATUS_OK ||
        names_to_bits(topology, json_array_get(lists, 1), &secondary) != STATUS_OK) {
        return errmsg_set(err, STATUS_INVALID,
                          "topology: '%.40s' is not [[preferred...], [others...]]", name);
    }
    const uint32_t at = topology->location_count++;
    snprintf(topology->locations[at].name, TOPOLOGY_LOCATION_SIZE, "%s", name);
    topology->locations[at].preferred = preferred;
    topology->locations[at].secondary = secondary & ~preferred;
    return STATUS_OK;
}

enum status topology_parse(struct topology *topology, const char *json, size_t len,
                           struct errmsg *err)
{
    json_error_t error;
    const char *name;
    json_t *lists;
    enum status status = STATUS_OK;
    json_t *root = json_loadb(json, len, JSON_REJECT_DUPLICATES, &error);

    topology->location_count = 0;
    if (root == NULL) {
        return errmsg_set(err, STATUS_INVALID, "topology: line %d: %s", error.line, error.text);
    }
    if (!json_is_object(root)) {
        status = errmsg_set(err, STATUS_INVALID, "topology: not an object");
    } else {
        json_object_foreach(root, name, lists)
        {
            status = location_parse(topology, name, lists, err);
            if (status != STATUS_OK) break;
        }
    }
    json_decref(root);
    return status;
}

void topology_discover(struct topology *topology)
{
    int32_t highest = 0;

    for (uint32_t i = 0; i < topology->rail_count; i++) {
        const int32_t node = topology->rails[i].interface.numa_node;
        if (node > highest) highest = node;
    }
    topology->location_count = 0;
    for (int32_t node = 0; node <= highest && node < TOPOLOGY_LOCATIONS_MAX; node++) {
        const uint32_t at = topology->location_count++;
        topology->locations[at].preferred = topology->locations[at].secondary = 0;
        snprintf(topology->locations[at].name, TOPOLOGY_LOCATION_SIZE, "cpu:%d", node);
        for (uint32_t i = 0; i < topology->rail_count; i++) {
            const int32_t its = topology->rails[i].interface.numa_node;
            const bool near = its < 0 || its == node;
            *(near ? &topology->locations[at].preferred : &topology->locations[at].secondary) |=
                1u << i;
        }
    }
}

static uint32_t location_find(const struct topology *topology, const char *name)
{
    for (uint32_t i = 0; i < topology->location_count; i++) {
        if (strcmp(topology->locations[i].name, name) == 0) return i + 1;
    }
    return 0;
}

uint32_t topology_location(const struct topology *topology, const char *name)
{
    const uint32_t found = name != NULL ? location_find(topology, name) : 0;
    return found != 0 ? found : location_find(topology, "*");
}

enum rail_rank topology_rank(const struct topology *topology, uint32_t location, uint32_t rail)
{
    ASSERT(rail < RAILS_MAX);
    if (location == 0 || location > topology->location_count) return RAIL_PREFERRED;
    if ((topology->locations[location - 1].preferred & 1u << rail) != 0) return RAIL_PREFERRED;
    const bool other = (topology->locations[location - 1].secondary & 1u << rail) != 0;
    return other ? RAIL_SECONDARY : RAIL_LAST;
}

/* ---- both ends ---- */

void topology_describe(const struct topology *topology, uint32_t home, struct wire_rails *out)
{
    memset(out, 0, sizeof(*out));
    for (uint32_t i = 0; i < topology->rail_count; i++) {
        const struct topology_rail *rail = &topology->rails[i];
        struct wire_rail *to = &out->rails[out->count];
        if (rail->listen[0] == '\0') continue;
        memcpy(to->address, rail->listen, sizeof(to->address));
        memcpy(to->interface, rail->interface.name, sizeof(rail->interface.name));
        to->speed_mbps = rail->interface.speed_mbps;
        to->numa_node = rail->interface.numa_node;
        to->rank = topology_rank(topology, home, i) == RAIL_PREFERRED ? 0 : 1;
        out->count++;
    }
}

/* "[fd00::1]:7" -> "fd00::1" */
static void host_of(const char *address, char host[WIRE_RAIL_ADDRESS_SIZE])
{
    const char *first = address[0] == '[' ? address + 1 : address;
    const char *end = address[0] == '[' ? strchr(address, ']') : strrchr(address, ':');
    const size_t len = end != NULL ? (size_t)(end - first) : 0;

    memcpy(host, first, len);
    host[len] = '\0';
}

static bool neighbours(const struct env_interface *ours, const struct wire_rail *theirs)
{
    char host[WIRE_RAIL_ADDRESS_SIZE];

    host_of(theirs->address, host);
    return env_same_network(ours->address, host, ours->prefix_bits);
}

void topology_pair(const struct topology *topology, const struct wire_rails *theirs,
                   int pair[RAILS_MAX])
{
    uint32_t taken = 0;

    for (uint32_t i = 0; i < RAILS_MAX; i++)
        pair[i] = -1;
    for (uint32_t i = 0; i < topology->rail_count; i++) {
        for (uint32_t j = 0; j < theirs->count && pair[i] < 0; j++) {
            if ((taken & 1u << j) != 0) continue;
            if (!neighbours(&topology->rails[i].interface, &theirs->rails[j])) continue;
            pair[i] = (int)j;
            taken |= 1u << j;
        }
    }
    for (uint32_t i = 0; i < topology->rail_count && theirs->count > 0; i++) {
        if (pair[i] >= 0) continue;
        uint32_t j = i % theirs->count;
        for (uint32_t k = 0; k < theirs->count; k++) {
            const uint32_t next = (i + k) % theirs->count;
            if ((taken & 1u << next) != 0) continue;
            j = next;
            break;
        }
        pair[i] = (int)j;
        taken |= 1u << j;
    }
}
