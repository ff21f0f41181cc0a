/* SPDX-License-Identifier: Apache-2.0 */
#include "transfer/metadata_entry.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/json.h"
#include "transfer/transfer_int.h"

enum { FORMAT_VERSION = 1, TTL_MAX_MS = 24 * 3600 * 1000 };

bool metadata_name_valid(const char *name)
{
    if (name == NULL || name[0] == '\0') return false;
    if (strnlen(name, YOLK_TRANSFER_NAME_SIZE) == YOLK_TRANSFER_NAME_SIZE) return false;
    for (const char *c = name; *c != '\0'; c++) {
        if (*c <= ' ' || *c > '~' || *c == '"' || *c == '\\') return false;
    }
    return true;
}

void metadata_entry_keys(const char *cluster, const char *name, char ram[METADATA_KEY_SIZE],
                         char rpc[METADATA_KEY_SIZE])
{
    const char *slash = cluster[0] != '\0' ? "/" : "";

    ASSERT(strlen(cluster) < METADATA_CLUSTER_SIZE && metadata_name_valid(name));
    snprintf(ram, METADATA_KEY_SIZE, "mooncake/%s%sram/%s", cluster, slash, name);
    snprintf(rpc, METADATA_KEY_SIZE, "mooncake/%s%srpc_meta/%s", cluster, slash, name);
}

/* ---- writing ---- */

static enum status write_rails(const struct metadata_entry *entry, struct buf *out)
{
    enum status status = STATUS_OK;

    for (uint32_t i = 0; i < entry->rail_count && status == STATUS_OK; i++)
        status = buf_printf(out, "%s\"%s\"", i > 0 ? "," : "", entry->rails[i]);
    return status;
}

enum status metadata_entry_write(const struct metadata_entry *entry, struct buf *ram,
                                 struct buf *rpc)
{
    const size_t host_len = transfer_host_length(entry->address);
    const unsigned long port = strtoul(entry->address + host_len + 1, NULL, 10);

    ASSERT(metadata_name_valid(entry->name) && metadata_name_valid(entry->address));
    ASSERT(host_len > 0 && entry->generation != 0 && entry->rail_count <= YOLK_TRANSFER_RAILS_MAX);
    enum status status = buf_printf(
        ram,
        "{\"name\":\"%s\",\"protocol\":\"yolk\",\"tcp_data_port\":%lu,\"timestamp\":\"%llu\","
        "\"devices\":[],\"buffers\":[],\"priority_matrix\":{},\"yolk\":{\"version\":%d,"
        "\"address\":\"%s\",\"generation\":\"%llx\",\"owner\":\"%s\",\"ttl_ms\":%u,\"rails\":[",
        entry->name, port, (unsigned long long)entry->published_s, FORMAT_VERSION, entry->address,
        (unsigned long long)entry->generation, entry->owner, entry->ttl_ms);
    if (status == STATUS_OK) status = write_rails(entry, ram);
    if (status == STATUS_OK) status = buf_append_text(ram, "]}}");
    if (status != STATUS_OK) return status;
    return buf_printf(rpc,
                      "{\"ip_or_host_name\":\"%.*s\",\"rpc_port\":%lu,\"yolk\":{\"owner\":\"%s\"}}",
                      (int)host_len, entry->address, port, entry->owner);
}

/* ---- reading ---- */

/* `text` NULL: it is missing. */
static bool take_name(const char *text, char out[YOLK_TRANSFER_NAME_SIZE])
{
    if (!metadata_name_valid(text)) return false;
    memcpy(out, text, strlen(text) + 1);
    return true;
}

static bool take_hex(const char *text, uint64_t *out)
{
    if (text == NULL || text[0] == '\0' || strlen(text) > 16) return false;
    if (strspn(text, "0123456789abcdef") != strlen(text)) return false;
    *out = strtoull(text, NULL, 16);
    return *out != 0;
}

static bool take_owner(const char *text, char out[METADATA_OWNER_SIZE])
{
    if (text == NULL || strlen(text) != METADATA_OWNER_SIZE - 1) return false;
    if (strspn(text, "0123456789abcdef") != METADATA_OWNER_SIZE - 1) return false;
    memcpy(out, text, METADATA_OWNER_SIZE);
    return true;
}

static enum status read_ours(const struct json_value *root, struct metadata_entry *out)
{
    const struct json_value *ours = json_value_member(root, "yolk");
    int64_t version = 0, ttl = 0;

    if (ours == NULL) return STATUS_UNSUPPORTED;
    if (!json_value_integer(json_value_member(ours, "version"), &version)) return STATUS_PROTOCOL;
    if (version != FORMAT_VERSION) return STATUS_UNSUPPORTED;
    const bool sane =
        take_name(json_value_text(json_value_member(root, "name")), out->name) &&
        take_name(json_value_text(json_value_member(ours, "address")), out->address) &&
        transfer_host_length(out->address) > 0 &&
        take_hex(json_value_text(json_value_member(ours, "generation")), &out->generation) &&
        take_owner(json_value_text(json_value_member(ours, "owner")), out->owner) &&
        json_value_integer(json_value_member(ours, "ttl_ms"), &ttl) && ttl > 0 && ttl <= TTL_MAX_MS;
    out->ttl_ms = (uint32_t)ttl;
    return sane ? STATUS_OK : STATUS_PROTOCOL;
}

enum status metadata_entry_read(const char *text, size_t len, struct metadata_entry *out)
{
    struct metadata_entry entry = { .rail_count = 0 };
    struct json_value *root;

    if (len > METADATA_VALUE_MAX) return STATUS_PROTOCOL;
    if (json_document_parse(text, len, &root, NULL) != STATUS_OK) return STATUS_PROTOCOL;
    const enum status status =
        json_value_is_object(root) ? read_ours(root, &entry) : STATUS_PROTOCOL;
    json_document_destroy(root);
    if (status == STATUS_OK) *out = entry;
    return status;
}
