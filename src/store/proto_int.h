/* SPDX-License-Identifier: Apache-2.0
 *
 * store/proto_int.h - what the files that encode and decode the pool's messages share. */
#ifndef STORE_PROTO_INT_H
#define STORE_PROTO_INT_H

#include <stdint.h>

struct msg_reader;
struct msg_writer;
struct store_key;
struct store_member_info;

/* A member as one field, and what stands in it; a malformed one is the reader's error. */
void store_put_info(struct msg_writer *writer, uint32_t field,
                    const struct store_member_info *info);
void store_get_info(struct msg_reader *reader, struct store_member_info *out);

/* A column of key lengths and one blob of keys, as two fields. */
void store_put_keys(struct msg_writer *writer, uint32_t lens_field, uint32_t keys_field,
                    const struct store_key *keys, uint32_t count);

#endif
