/* SPDX-License-Identifier: Apache-2.0
 *
 * tests/fake_cuda_use.h - a test's handle on the fake driver (fake_cuda.h) and on memory of it. */
#ifndef TESTS_FAKE_CUDA_USE_H
#define TESTS_FAKE_CUDA_USE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/library.h"
#include "fake_cuda.h"
#include "transfer/cuda_driver.h"

enum { GPU_DEVICES = 2 };

struct gpu {
    struct fake_cuda *fake;
    fake_cuda_alias_fn *alias;
    fake_cuda_pass_fn *pass;
    struct cuda_device *devices[GPU_DEVICES];
};

/* Before anything else of CUDA in the process. */
static inline bool gpu_open(struct gpu *gpu, const char *library)
{
    fake_cuda_fn *find = NULL;
    const struct library_symbol symbols[] = { { "fake_cuda", &find },
                                              { "fake_cuda_alias", &gpu->alias },
                                              { "fake_cuda_pass", &gpu->pass } };

    setenv("YOLK_CUDA_DRIVER", library, 1);
    if (library_load(library, symbols, 3, NULL) != STATUS_OK) return false;
    if (cuda_driver_load(NULL) != STATUS_OK) return false;
    gpu->fake = find();
    for (uint32_t i = 0; i < GPU_DEVICES; i++) {
        if (cuda_device_open(i, &gpu->devices[i], NULL) != STATUS_OK) return false;
    }
    return true;
}

/* Memory that only the device may touch; NULL if there is none. */
static inline void *gpu_alloc(const struct gpu *gpu, uint32_t device, size_t size)
{
    uint64_t address = 0;
    const enum status status = cuda_memory_alloc(gpu->devices[device], size, &address);
    return status == STATUS_OK ? (void *)(uintptr_t)address : NULL;
}

static inline void gpu_free(const struct gpu *gpu, uint32_t device, void *memory)
{
    cuda_memory_free(gpu->devices[device], (uintptr_t)memory);
}

/* The same bytes, where the test may touch them. Memory of the host is its own. */
static inline uint8_t *gpu_see(const struct gpu *gpu, void *memory)
{
    return gpu->alias((uintptr_t)memory);
}

#endif
