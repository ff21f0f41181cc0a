/* SPDX-License-Identifier: Apache-2.0
 *
 * tests/fake_cuda.h - a CUDA driver without a GPU, as a shared library: what tests turn in it.
 *
 * It exports the functions of libcuda.so.1 that transfer/cuda_driver.c uses. Memory of its two
 * "devices" is a range that nobody can touch (PROT_NONE: the CPU that tries dies of it), with a
 * second mapping of the same pages, which the fake, and the test, use. Copies are made late: when
 * an event has been asked for often enough, or is waited for; so who reuses a buffer too early, or
 * reports too early, has wrong bytes. What a driver would refuse, or what would corrupt memory on a
 * real one, ends the process with a word.
 *
 * Another process opens such memory with a handle, as with a real driver: the pages are a memfd,
 * the handle says whose and which. It is refused when its process, or the memory, is gone, when it
 * is garbage, and in the process that made it. What was opened can be copied from, never to. */
#ifndef TESTS_FAKE_CUDA_H
#define TESTS_FAKE_CUDA_H

#include <stdbool.h>
#include <stdint.h>

struct fake_cuda {
    /* Read by the fake. */
    unsigned polls;      /* questions until a copy is over; 0: it is at the first */
    bool hurry;          /* no question is too early, of copies that were started before, too */
    unsigned fail_start; /* the nth copy from now on is refused; 0: none */
    unsigned fail_end;   /* the nth copy from now on ends with an error, not made */
    bool refuse_export;  /* no handles are made */
    bool refuse_open;    /* none is opened */
    unsigned lie_export; /* handles made are 1: garbage, 2: of other, smaller memory */
    bool own_handles;    /* those of this process are opened, too: for two engines in one */
    /* Written by it. */
    uint64_t copies_in, copies_out, copies_across; /* made */
    uint64_t pending;                              /* started, not made */
    uint64_t pinned;                               /* bytes of pinned memory */
    uint64_t opened;                               /* handles, ever */
    uint64_t open;                                 /* mapped now */
    uint64_t polled, waited;                       /* questions, blocking ones */
};

/* Exported: struct fake_cuda *fake_cuda(void); what the device's memory at `address` looks like:
 * void *fake_cuda_alias(uint64_t address); a long time passes, and whatever was started is over:
 * void fake_cuda_pass(void). */
typedef struct fake_cuda *fake_cuda_fn(void);
typedef void *fake_cuda_alias_fn(uint64_t address);
typedef void fake_cuda_pass_fn(void);

#endif
