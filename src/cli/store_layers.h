/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/store_layers.h - `yolk store put|get KEY --layers N`: a value layer by layer, as an engine
 * moves it (yolk/store_session.h). Layers are N parts of a value, alike but for a byte.
 *
 * put writes each layer to its owner when it has come through standard input, and says so, one line
 * a layer; the value is there when all of it has come. get writes each layer to standard output
 * when it has been read and verified: all of the value that was there at the start, whatever is put
 * meanwhile. Threads: one. */
#ifndef CLI_STORE_LAYERS_H
#define CLI_STORE_LAYERS_H

#include "yolk/store.h"

struct cli;

/* `name` is the key as it was typed. What the process exits with. */
int store_layers_put(struct cli *cli, const char *name, const struct yolk_store_key *key);
int store_layers_get(struct cli *cli, const char *name, const struct yolk_store_key *key);

#endif
