/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/metadata_fuzz.c - what a metadata server, a client of ours, or a state file may say: any
 * bytes. The first byte picks the reader.
 *
 *   e  an entry            what is read is written and read again, and is the same
 *   r  Redis answers       one after another, as they would come
 *   b  base64              what is read is written again, and is the same
 *   q  a query             as a request of a stranger would bring it
 *   u  a connection string
 *   i  an image            behind a header that is right, as well as as it came */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/hash.h"
#include "transfer/base64.h"
#include "transfer/metadata_backend.h"
#include "transfer/metadata_entry.h"
#include "transfer/metadata_server.h"
#include "transfer/metadata_table.h"
#include "transfer/resp.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void fuzz_entry(const char *text, size_t len)
{
    struct metadata_entry entry, again;
    struct buf ram, rpc;

    if (metadata_entry_read(text, len, &entry) != STATUS_OK) return;
    buf_init(&ram, METADATA_VALUE_MAX);
    buf_init(&rpc, METADATA_VALUE_MAX);
    const enum status written = metadata_entry_write(&entry, &ram, &rpc);
    ASSERT(written == STATUS_OK);
    const enum status status = metadata_entry_read((char *)buf_data(&ram), ram.len, &again);
    ASSERT(status == STATUS_OK && again.generation == entry.generation);
    ASSERT(strcmp(again.name, entry.name) == 0 && strcmp(again.address, entry.address) == 0);
    buf_fini(&ram);
    buf_fini(&rpc);
}

static void fuzz_resp(const char *text, size_t len)
{
    struct resp_reply reply;
    size_t taken;

    while (resp_read(text, len, &reply, &taken) == STATUS_OK) {
        ASSERT(taken > 0 && taken <= len);
        ASSERT(reply.kind == RESP_NIL || reply.kind == RESP_INTEGER ||
               (reply.text >= text && reply.text + reply.len <= text + len));
        text += taken;
        len -= taken;
    }
}

static void fuzz_base64(const char *text, size_t len)
{
    uint8_t *bytes = malloc(len + 1);
    struct buf again;
    size_t n;

    ASSERT(bytes != NULL);
    buf_init(&again, 2 * len + 64);
    if (base64_read(text, len, bytes, &n) == STATUS_OK) {
        const enum status status = base64_write(&again, bytes, n);
        ASSERT(status == STATUS_OK && again.len == len);
        ASSERT(len == 0 || memcmp(buf_data(&again), text, len) == 0);
    }
    buf_fini(&again);
    free(bytes);
}

static void fuzz_texts(char kind, const char *data, size_t len)
{
    struct metadata_backend backend;
    struct errmsg err;
    char value[64];
    char *text = strndup(data, len);

    ASSERT(text != NULL);
    if (kind == 'q' && metadata_server_query(text, "key", value, sizeof(value)))
        ASSERT(strlen(value) < sizeof(value));
    if (kind == 'u' && metadata_backend_parse(text, &backend, &err) == STATUS_OK)
        ASSERT(backend.endpoint_count > 0 && strlen(backend.label) < sizeof(backend.label));
    free(text);
}

static void fuzz_image_of(const uint8_t *data, size_t len)
{
    struct metadata_table *table = metadata_table_create(64, 1 << 20, 1);
    struct buf image;

    buf_init(&image, 2 << 20);
    ASSERT(table != NULL);
    if (metadata_table_read(table, data, len, 1) == STATUS_OK) {
        const enum status status = metadata_table_write(table, &image);
        ASSERT(status == STATUS_OK);
    }
    buf_fini(&image);
    metadata_table_destroy(table);
}

static void fuzz_image(const uint8_t *data, size_t len)
{
    uint8_t header[32] = "YOLKMETA\1";
    const uint64_t sum = hash_xxh3(data, len);
    uint8_t *whole = malloc(sizeof(header) + len);

    ASSERT(whole != NULL);
    for (unsigned i = 0; i < 8; i++) {
        header[16 + i] = (uint8_t)((uint64_t)len >> (8 * i));
        header[24 + i] = (uint8_t)(sum >> (8 * i));
    }
    memcpy(whole, header, sizeof(header));
    if (len > 0) memcpy(whole + sizeof(header), data, len);
    fuzz_image_of(data, len);
    fuzz_image_of(whole, sizeof(header) + len);
    free(whole);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    if (len == 0) return 0;
    const char *text = (const char *)data + 1;
    switch (data[0]) {
    case 'e': fuzz_entry(text, len - 1); break;
    case 'r': fuzz_resp(text, len - 1); break;
    case 'b': fuzz_base64(text, len - 1); break;
    case 'i': fuzz_image(data + 1, len - 1); break;
    default: fuzz_texts((char)data[0], text, len - 1); break;
    }
    return 0;
}
