/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/sealing.c - whether a connection is encrypted, and with what keys.
 *
 * Each greeting says whether its side can encrypt (it has a secret, and a library), whether it
 * insists, and whether its CPU would rather use AES. The proofs cover both greetings, so nobody in
 * between can talk two sides out of it. Encrypted it is when both can and one insists; a side that
 * insists does not talk to one that cannot. AES when both would rather, else ChaCha20.
 *
 * net/seal.h does the rest; lane.c puts it between the frames and the stream. */
#include <string.h>

#include "base/assert.h"
#include "net/seal.h"
#include "transfer/transfer_int.h"

enum { BOUND_SIZE = WIRE_HELLO_SIZE - WIRE_PROOF_SIZE }; /* what the proofs cover, too */

uint32_t sealing_capabilities(const struct yolk_transfer *transfer)
{
    if (transfer->secret[0] == '\0' || !aead_available()) return 0;
    return WIRE_CAP_SEAL | (transfer->encrypt ? WIRE_CAP_SEAL_ALWAYS : 0) |
           (aead_aes_is_fast() ? WIRE_CAP_SEAL_AES : 0);
}

bool sealing_possible(const struct yolk_transfer *transfer, const struct wire_hello *theirs)
{
    return !transfer->encrypt || (theirs->capabilities & WIRE_CAP_SEAL) != 0;
}

/* In the order initiator, target, so that both sides have the same. */
static void both(const struct lane *lane, const uint8_t *hellos[2])
{
    const bool initiator = lane->peer != NULL;

    hellos[0] = initiator ? lane->hello_ours : lane->hello_theirs;
    hellos[1] = initiator ? lane->hello_theirs : lane->hello_ours;
}

static enum status create(struct lane *lane, enum aead_cipher cipher,
                          const struct wire_hello hello[2])
{
    const uint8_t *bytes[2];
    uint8_t salt[2 * WIRE_NONCE_SIZE], context[2 * BOUND_SIZE];
    const struct seal_options options = { .cipher = cipher,
                                          .initiator = lane->peer != NULL,
                                          .secret = lane->transfer->secret,
                                          .salt = salt,
                                          .salt_len = sizeof(salt),
                                          .context = context,
                                          .context_len = sizeof(context) };

    both(lane, bytes);
    for (size_t i = 0; i < 2; i++) {
        memcpy(salt + i * WIRE_NONCE_SIZE, hello[i].nonce, WIRE_NONCE_SIZE);
        memcpy(context + i * BOUND_SIZE, bytes[i], BOUND_SIZE);
    }
    return seal_create(&options, &lane->seal);
}

enum status sealing_start(struct lane *lane)
{
    const uint8_t *bytes[2];
    struct wire_hello hello[2];

    both(lane, bytes);
    for (size_t i = 0; i < 2; i++) {
        const enum status status = wire_hello_decode(bytes[i], WIRE_HELLO_SIZE, &hello[i]);
        if (status != STATUS_OK) return status;
    }
    const uint32_t all = hello[0].capabilities & hello[1].capabilities;
    const uint32_t any = hello[0].capabilities | hello[1].capabilities;
    if ((all & WIRE_CAP_SEAL) == 0 || (any & WIRE_CAP_SEAL_ALWAYS) == 0) {
        ASSERT(!lane->transfer->encrypt); /* sealing_possible() was asked */
        return STATUS_OK;
    }
    const bool aes = (all & WIRE_CAP_SEAL_AES) != 0;
    const enum status status = create(lane, aes ? AEAD_AES_256_GCM : AEAD_CHACHA20_POLY1305, hello);
    if (status == STATUS_OK) lane->transfer->stats.lanes_sealed++;
    return status;
}
