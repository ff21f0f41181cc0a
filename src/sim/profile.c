/* SPDX-License-Identifier: Apache-2.0
 *
 * sim/profile.c - the parameter sets.
 *
 * a800: LLaMA 70B, tensor parallel over the 8 A800 of a node, 4 x 200 Gbps. Prefill is fitted to
 * ten single requests that the FAST'25 paper measured (its Figure 14) and to nothing else; transfer
 * and load are that figure's too. Decode is a line: one sequence takes the 26.5 ms of Figure 14,
 * and the slope of 4.5 ms was chosen once, by the medians of the time between tokens of Mooncake in
 * the paper's Figure 6, from 4, 4.5 and 5. A lone batch does not show such a slope: a800-lone has
 * what Figure 14 and the arXiv paper's Figure 2 measured instead. Everything else is the same.
 *
 * Keys: version 0.5.1 of vLLM hashes a prompt's first 16, 32, 48... tokens for its blocks, and
 * looks for the one to evict among all that were freed with it, in Python, while the device waits.
 * CPython 3.11 took 8.6 ns a token hashed (n^2 / 32 of them for a prompt of n) and 100 ns a block
 * looked at (n^2 / 512), measured beside this simulator and fitted to no result.
 *
 * Host: that version plans a step, hands it to the device and takes its tokens in one thread of
 * Python, and the device waits. Its own scheduler, input preparation, sampler and output, with the
 * device left out, took 42 us a sequence and 87 ns a block of 16 tokens of each sequence's context
 * (its block table is copied twice, all its tokens once), with a prefix cache 220 ns (each block is
 * marked as used, looked at and compared as well), in CPython 3.11 on an idle machine: the least of
 * 120 steps with 2 to 16 sequences of 1,000 to 12,000 tokens. The server is in the same process,
 * and streams a token in 58 us. The fixed part, 0.35 ms, is in every step already. Of a prompt
 * it is some 0.3 us a token, which is left out.
 *
 * Storing is from the arXiv paper's Figure 7: the rate from its longest prompt stored afterwards,
 * the launch from the tenth of a second that layer-wise storing adds to that prompt. It counts only
 * where `store` says so: Figure 14 measured prefill with it.
 *
 * h800 differs from a800 by the paper's 8 x 400 Gbps engine rate and by compute scaled with the
 * peak rates of the two (989 to 312 TFLOPS, dense); nobody has published its fits. */
#include "sim/profile.h"

#include <stddef.h>
#include <string.h>

#include "base/assert.h"

#define A800_COMMON                                                                                \
    .kv_token_bytes = 327680, .load_bytes_s = 102e9, .layers = 80, .store_bytes_s = 48e9,          \
    .store_launch_s = 0.00125, .ssd_bytes_s = 24e9, .transfer_setup_s = 0.003, .schedule_s = 0.05, \
    .vram_tokens = 1.33e6, .activation_token_bytes = 16384, .chunk_tokens = 2048,                  \
    .chunk_factor = 1.23, .prefill_reused_s = 2.575e-6, .keys_square_s = 4.7e-10,                  \
    .decode_beside = 1, .host_sequence_s = 1.0e-4, .host_context_s = 5.4e-9,                       \
    .host_cached_s = 8.4e-9

#define A800_PREFILL                                                                               \
    .prefill_fixed_s = 0.068, .prefill_new_s = 1.096e-4, .prefill_square_s = 7.433e-10

static const struct sim_profile profiles[] = {
    { .name = "a800",
      A800_COMMON,
      A800_PREFILL,
      .nic_bytes_s = 87e9,
      .decode_base_s = 0.0220,
      .decode_sequence_s = 0.0045,
      .decode_context_s = 0 },
    { .name = "a800-lone",
      A800_COMMON,
      A800_PREFILL,
      .nic_bytes_s = 87e9,
      .decode_base_s = 0.0262,
      .decode_sequence_s = 0.00014,
      .decode_context_s = 3.5e-8 },
    { .name = "h800",
      A800_COMMON,
      .prefill_fixed_s = 0.068,
      .prefill_new_s = 1.096e-4 * 312 / 989,
      .prefill_square_s = 7.433e-10 * 312 / 989,
      .nic_bytes_s = 190e9,
      .decode_base_s = 0.0220,
      .decode_sequence_s = 0.0045,
      .decode_context_s = 0 },
};

enum { PROFILES = sizeof(profiles) / sizeof(profiles[0]) };

const struct sim_profile *sim_profile_at(uint32_t index)
{
    return index < PROFILES ? &profiles[index] : NULL;
}

const struct sim_profile *sim_profile_find(const char *name)
{
    for (uint32_t i = 0; i < PROFILES; i++) {
        if (strcmp(profiles[i].name, name) == 0) return &profiles[i];
    }
    return NULL;
}

double sim_profile_prefill_s(const struct sim_profile *profile, double tokens, double reused)
{
    ASSERT(reused >= 0 && reused <= tokens);
    return profile->prefill_fixed_s + profile->prefill_new_s * (tokens - reused) +
           profile->prefill_square_s * (tokens * tokens - reused * reused) +
           profile->prefill_reused_s * reused;
}

double sim_profile_decode_s(const struct sim_profile *profile, double sequences, double context)
{
    ASSERT(sequences >= 0 && context >= 0);
    return profile->decode_base_s + profile->decode_sequence_s * sequences +
           profile->decode_context_s * context;
}

double sim_profile_beside(const struct sim_profile *profile, double computing)
{
    ASSERT(computing >= 0 && computing <= 1);
    return 1 + (profile->decode_beside - 1) * computing;
}

double sim_profile_host_s(const struct sim_profile *profile, double sequences, double context,
                          bool has_cache)
{
    ASSERT(sequences >= 0 && context >= 0);
    const double token_s = profile->host_context_s + (has_cache ? profile->host_cached_s : 0);
    return profile->host_sequence_s * sequences + token_s * context;
}
