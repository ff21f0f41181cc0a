/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/metadata_entry.h - what an engine tells the metadata server about itself, as text.
 *
 * Two keys, where other engines of this kind keep theirs too:
 *
 *   mooncake/[<cluster>/]ram/<segment>        {"name", "protocol", "tcp_data_port", "timestamp",
 *                                              "devices", "buffers", "priority_matrix", "yolk"}
 *   mooncake/[<cluster>/]rpc_meta/<segment>   {"ip_or_host_name", "rpc_port", "yolk"}
 *
 * "yolk" has what ours need: the version of this format, the address to dial, the generation of the
 * start that listens there, the owner (one publisher's token), how long an entry lives without
 * being renewed, and the rails, for people. "protocol" is "yolk", so that an engine which speaks
 * another wire refuses the entry instead of writing to our port. Only the first key is read; "yolk"
 * of the second holds the owner alone.
 *
 * Memory:  none. Threads: any.
 * Limits:  METADATA_VALUE_MAX bytes of a value, METADATA_KEY_SIZE of a key with its NUL. */
#ifndef TRANSFER_METADATA_ENTRY_H
#define TRANSFER_METADATA_ENTRY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "yolk/transfer.h"

struct buf;

enum {
    METADATA_VALUE_MAX = 64 << 10,
    METADATA_OWNER_SIZE = 33, /* 32 hexadecimal digits and a NUL */
    METADATA_CLUSTER_SIZE = 64,
    METADATA_KEY_SIZE = 256,
};

struct metadata_entry {
    char name[YOLK_TRANSFER_NAME_SIZE];
    char address[YOLK_TRANSFER_NAME_SIZE]; /* "host:port" */
    uint64_t generation;
    char owner[METADATA_OWNER_SIZE];
    uint32_t ttl_ms;
    uint64_t published_s; /* Unix time, for people; not read back */
    uint32_t rail_count;  /* likewise */
    char rails[YOLK_TRANSFER_RAILS_MAX][YOLK_TRANSFER_NAME_SIZE];
};

/* Printable, no blank, no quote, no backslash; 1..YOLK_TRANSFER_NAME_SIZE-1 bytes. */
bool metadata_name_valid(const char *name);

/* `cluster` "": none. Both names must be valid. */
void metadata_entry_keys(const char *cluster, const char *name, char ram[METADATA_KEY_SIZE],
                         char rpc[METADATA_KEY_SIZE]);

/* Append; the names in the entry must be valid. */
MUST_USE enum status metadata_entry_write(const struct metadata_entry *entry, struct buf *ram,
                                          struct buf *rpc);

/* The value of the first key, from anyone. STATUS_PROTOCOL if it makes no sense, STATUS_UNSUPPORTED
 * if it is an entry of another kind of engine or a later format. */
MUST_USE enum status metadata_entry_read(const char *text, size_t len, struct metadata_entry *out);

#endif
