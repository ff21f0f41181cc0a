/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/store_ask.h - how the parts of `yolk store` ask the pool: one conversation with its master, a
 * question at a time, for whose answers the loop is run. Threads: one. */
#ifndef CLI_STORE_ASK_H
#define CLI_STORE_ASK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "yolk/store.h"

struct cli;
struct yolk_transfer;

enum { STORE_ASK_MS = 5000 }; /* how long an answer may take */

struct store_ask {
    struct cli *cli;
    const char *master;
    struct yolk_transfer *transfer; /* NULL: not needed */
    struct yolk_store *store;
    uint32_t left; /* answers that are still to come */
    enum status status;
    char message[256]; /* what the master said besides; "": nothing */
    uint64_t size;     /* that came with the last answer */
};

/* As the options of the command say. With `moves_data` there is a transfer engine. To be closed
 * also if it fails. */
MUST_USE enum status store_ask_open(struct store_ask *ask, struct cli *cli, bool moves_data,
                                    struct errmsg *err);
void store_ask_close(struct store_ask *ask);

/* Runs the loop until every answer is there, unless the question could not be asked. `left` is set
 * before. */
enum status store_ask_wait(struct store_ask *ask, enum status asked);

/* Runs the loop for so long. */
void store_ask_pause(struct store_ask *ask, uint64_t ns);

/* A put as the options of the command wish it, whose item is store_ask_item()'s. */
struct yolk_store_call store_ask_put_call(struct store_ask *ask);

/* on_item of a call about one key; its ctx is the struct store_ask. */
void store_ask_item(void *ctx, uint32_t index, enum status status, uint64_t size);

/* Why it did not work, for a person; ends the command. */
int store_ask_refuse(const struct store_ask *ask, const char *what, enum status status);

/* A key of the command line; its bytes are malloc'ed. STATUS_INVALID, STATUS_NO_MEMORY. */
MUST_USE enum status store_ask_key(const char *text, struct yolk_store_key *out,
                                   struct errmsg *err);
void store_ask_key_free(struct yolk_store_key *key);

#endif
