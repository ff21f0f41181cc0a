/* SPDX-License-Identifier: Apache-2.0
 *
 * store/proto_int.h - what the files that encode and decode the pool's messages share. */
#ifndef STORE_PROTO_INT_H
#define STORE_PROTO_INT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "net/msg.h"

struct store_attributes;
struct store_commit;
struct store_key;
struct store_layout;
struct store_member_info;

/* A member as one field, and what stands in it; a malformed one is the reader's error. */
void store_put_info(struct msg_writer *writer, uint32_t field,
                    const struct store_member_info *info);
void store_get_info(struct msg_reader *reader, struct store_member_info *out);

/* The layout of blocks as one field; likewise. */
void store_put_layout(struct msg_writer *writer, uint32_t field, const struct store_layout *layout);
void store_get_layout(struct msg_reader *reader, struct store_layout *out);

/* A column of key lengths and one blob of keys, as two fields. */
void store_put_keys(struct msg_writer *writer, uint32_t lens_field, uint32_t keys_field,
                    const struct store_key *keys, uint32_t count);

/* Attributes as three numbers: the group; version and cost; depth, replicas, pin. The term is not
 * among them, and not counted: it has a field of its own, which earlier releases pass over. */
enum { STORE_ATTRIBUTE_NUMBERS = 3 };
bool store_attributes_any(const struct store_attributes *attributes); /* not all zero */
void store_attributes_pack(const struct store_attributes *attributes,
                           uint64_t out[STORE_ATTRIBUTE_NUMBERS]);
/* Number `first` of the column and the two behind it; none are there: all zero. */
struct store_attributes store_attributes_at(struct msg_column column, size_t first);

/* As many sums as pieces, or as parts, which are the whole value: of a decoded one. */
bool store_commit_sums_valid(const struct store_commit *commit);

#endif
