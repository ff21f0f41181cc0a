/* SPDX-License-Identifier: Apache-2.0
 *
 * store/ssd_pack.c - see ssd_pack.h.
 *
 * As base/aead.c does, the functions of the library are looked up when they are needed: who writes
 * nothing compressed needs it not. Of its calls only those with one whole frame in and out are
 * used: they need no window, whatever a frame says of one. */
#include "store/ssd_pack.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "base/assert.h"
#include "base/hash.h"
#include "base/le.h"
#include "base/library.h"

enum {
    PACK_LEN = 8,
    PACK_UNIT = 12,
    PACK_REST = 16,
    PACK_ZERO = 20,
    SAMPLE_WINDOWS = 3,
    SAMPLE_WINDOW = SSD_PACK_SAMPLE / SAMPLE_WINDOWS,
    LEVEL_DEFAULT = 1,
};

struct ssd_packer {
    ZSTD_CCtx *compress;
    ZSTD_DCtx *decompress;
    size_t len_max;
    uint8_t *apart;  /* separated bytes */
    uint8_t *packed; /* frames of them, which are no larger, or the attempt was in vain */
    uint8_t sample[SSD_PACK_SAMPLE];
};

static struct {
    __typeof__(ZSTD_createCCtx) *create_compress;
    __typeof__(ZSTD_freeCCtx) *free_compress;
    __typeof__(ZSTD_compressCCtx) *compress;
    __typeof__(ZSTD_createDCtx) *create_decompress;
    __typeof__(ZSTD_freeDCtx) *free_decompress;
    __typeof__(ZSTD_decompressDCtx) *decompress;
    __typeof__(ZSTD_getFrameContentSize) *content_size;
    __typeof__(ZSTD_findFrameCompressedSize) *frame_size;
    __typeof__(ZSTD_isError) *is_error;
} zstd;

static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool available; /* written once, as zstd, before any reader passes pthread_once */

static void load(void)
{
    const struct library_symbol symbols[] = {
        { "ZSTD_createCCtx", &zstd.create_compress },
        { "ZSTD_freeCCtx", &zstd.free_compress },
        { "ZSTD_compressCCtx", &zstd.compress },
        { "ZSTD_createDCtx", &zstd.create_decompress },
        { "ZSTD_freeDCtx", &zstd.free_decompress },
        { "ZSTD_decompressDCtx", &zstd.decompress },
        { "ZSTD_getFrameContentSize", &zstd.content_size },
        { "ZSTD_findFrameCompressedSize", &zstd.frame_size },
        { "ZSTD_isError", &zstd.is_error },
    };
    const size_t count = sizeof(symbols) / sizeof(symbols[0]);
    available = library_load("libzstd.so.1", symbols, count, NULL) == STATUS_OK;
}

bool ssd_pack_available(void)
{
    pthread_once(&once, load);
    return available;
}

enum status ssd_packing_parse(const char *text, struct ssd_packing *out, struct errmsg *err)
{
    static const char prefix[] = "zstd:";
    uint32_t level = 0;

    if (strcmp(text, "off") == 0 || strcmp(text, "zstd") == 0) {
        *out = (struct ssd_packing){ .level = text[0] == 'z' ? LEVEL_DEFAULT : 0 };
        return STATUS_OK;
    }
    const bool named = strncmp(text, prefix, strlen(prefix)) == 0;
    const char *digit = text + strlen(prefix);
    if (named && *digit >= '1' && *digit <= '9') {
        for (; *digit >= '0' && *digit <= '9' && level <= SSD_PACK_LEVEL_MAX; digit++)
            level = level * 10 + (uint32_t)(*digit - '0');
        if (*digit == '\0' && level <= SSD_PACK_LEVEL_MAX) {
            *out = (struct ssd_packing){ .level = level };
            return STATUS_OK;
        }
    }
    return errmsg_set(err, STATUS_INVALID, "%.40s is none of off, zstd, zstd:1 to zstd:%d", text,
                      SSD_PACK_LEVEL_MAX);
}

/* ---- packers ---- */

enum status ssd_packer_create(size_t len_max, struct ssd_packer **out)
{
    ASSERT(len_max > 0 && len_max <= SSD_PACK_LEN_MAX);
    if (!ssd_pack_available()) return STATUS_UNSUPPORTED;
    struct ssd_packer *packer = calloc(1, sizeof(*packer));
    if (packer == NULL) return STATUS_NO_MEMORY;
    packer->len_max = len_max;
    packer->compress = zstd.create_compress();
    packer->decompress = zstd.create_decompress();
    packer->apart = malloc(len_max);
    packer->packed = malloc(len_max);
    if (packer->compress == NULL || packer->decompress == NULL || packer->apart == NULL ||
        packer->packed == NULL) {
        ssd_packer_destroy(packer);
        return STATUS_NO_MEMORY;
    }
    *out = packer;
    return STATUS_OK;
}

void ssd_packer_destroy(struct ssd_packer *packer)
{
    if (packer == NULL) return;
    zstd.free_compress(packer->compress); /* NULL is allowed, also below */
    zstd.free_decompress(packer->decompress);
    free(packer->apart);
    free(packer->packed);
    free(packer);
}

/* ---- separating; what is left of a last element stays behind in its order ---- */

static void separate_pairs(const uint8_t *in, size_t pairs, uint8_t *out)
{
    for (size_t i = 0; i < pairs; i++) {
        out[i] = in[2 * i];
        out[pairs + i] = in[2 * i + 1];
    }
}

static void join_pairs(const uint8_t *in, size_t pairs, uint8_t *out)
{
    for (size_t i = 0; i < pairs; i++) {
        out[2 * i] = in[i];
        out[2 * i + 1] = in[pairs + i];
    }
}

static void separate(const uint8_t *in, size_t len, uint32_t unit, uint8_t *out)
{
    const size_t count = len / unit;
    if (unit == 2) {
        separate_pairs(in, count, out);
    } else {
        for (size_t i = 0; i < count; i++) {
            for (uint32_t byte = 0; byte < unit; byte++)
                out[byte * count + i] = in[i * unit + byte];
        }
    }
    memcpy(out + count * unit, in + count * unit, len - count * unit);
}

static void join(const uint8_t *in, size_t len, uint32_t unit, uint8_t *out)
{
    const size_t count = len / unit;
    if (unit == 2) {
        join_pairs(in, count, out);
    } else {
        for (size_t i = 0; i < count; i++) {
            for (uint32_t byte = 0; byte < unit; byte++)
                out[i * unit + byte] = in[byte * count + i];
        }
    }
    memcpy(out + count * unit, in + count * unit, len - count * unit);
}

/* ---- packing ---- */

/* Bytes of plane i; what is left of a last element belongs to the last one. */
static size_t plane_len(size_t len, uint32_t unit, uint32_t i)
{
    return len / unit + (i + 1 == unit ? len % unit : 0);
}

/* The frames of in[0, len), one a plane, at most `max` bytes at packer->packed; 0: they would be
 * larger. */
static size_t frames_make(struct ssd_packer *packer, const uint8_t *in, size_t len, uint32_t unit,
                          int level, size_t max)
{
    size_t from = 0, to = 0;

    if (unit > 1) separate(in, len, unit, packer->apart);
    for (uint32_t i = 0; i < unit; i++) {
        const size_t plane = plane_len(len, unit, i);
        const size_t size = zstd.compress(packer->compress, packer->packed + to, max - to,
                                          (unit > 1 ? packer->apart : in) + from, plane, level);
        if (zstd.is_error(size)) return 0;
        from += plane;
        to += size;
    }
    return to;
}

/* Windows from all over the bytes, whole elements of all units that are tried. */
static size_t sample_take(struct ssd_packer *packer, const uint8_t *in, size_t len, uint32_t unit)
{
    const size_t element = unit == 0 ? 4 : unit;
    const size_t window = SAMPLE_WINDOW / element * element;
    for (size_t i = 0; i < SAMPLE_WINDOWS; i++) {
        const size_t at = (len - window) * i / (SAMPLE_WINDOWS - 1) / element * element;
        memcpy(packer->sample + i * window, in + at, window);
    }
    return SAMPLE_WINDOWS * window;
}

/* The unit that makes a sample smallest; 0: none makes it smaller by enough. */
static uint32_t unit_find(struct ssd_packer *packer, uint32_t given, const uint8_t *in, size_t len)
{
    static const uint32_t units[] = { 1, 2, 4 };
    uint32_t best = 0;
    const uint8_t *from = in;

    if (len < SSD_PACK_UNIT_MAX) return 1;
    if (len < 2 * SSD_PACK_SAMPLE && given != 0) return given; /* the attempt is as cheap */
    if (len > SSD_PACK_SAMPLE) {
        len = sample_take(packer, in, len, given);
        from = packer->sample;
    }
    size_t best_size = len - len / SSD_PACK_GAIN;
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        const uint32_t unit = given != 0 ? given : units[i];
        const size_t size = frames_make(packer, from, len, unit, LEVEL_DEFAULT, best_size);
        if (size != 0 && size < best_size) {
            best = unit;
            best_size = size;
        }
        if (given != 0) break;
    }
    return best;
}

size_t ssd_pack(struct ssd_packer *packer, const struct ssd_packing *how, const uint8_t *in,
                size_t len, uint8_t *out, size_t out_max)
{
    const size_t most = len - len / SSD_PACK_GAIN;
    ASSERT(len > 0 && len <= packer->len_max);
    ASSERT(how->level >= 1 && how->level <= SSD_PACK_LEVEL_MAX && how->unit <= SSD_PACK_UNIT_MAX);

    if (out_max > most) out_max = most;
    if (out_max <= SSD_PACK_HEADER_SIZE) return 0;
    const uint32_t unit = unit_find(packer, how->unit, in, len);
    if (unit == 0) return 0;
    const size_t size =
        frames_make(packer, in, len, unit, (int)how->level, out_max - SSD_PACK_HEADER_SIZE);
    if (size == 0) return 0;
    le_put32(out + PACK_LEN, (uint32_t)len);
    le_put32(out + PACK_UNIT, unit);
    le_put32(out + PACK_REST, (uint32_t)size);
    le_put32(out + PACK_ZERO, 0);
    memcpy(out + SSD_PACK_HEADER_SIZE, packer->packed, size);
    le_put64(out, hash_xxh3(out + PACK_LEN, SSD_PACK_HEADER_SIZE - PACK_LEN + size));
    return SSD_PACK_HEADER_SIZE + size;
}

/* ---- unpacking ---- */

size_t ssd_pack_size(const uint8_t *in, size_t max)
{
    if (max < SSD_PACK_HEADER_SIZE) return 0;
    const size_t rest = le_get32(in + PACK_REST);
    return rest > 0 && rest <= max - SSD_PACK_HEADER_SIZE ? SSD_PACK_HEADER_SIZE + rest : 0;
}

/* The frame at in[0, max), to out[0, len): one of the format of today that says that length. Its
 * size; 0: it is none. */
static size_t frame_open(struct ssd_packer *packer, const uint8_t *in, size_t max, uint8_t *out,
                         size_t len)
{
    if (max < 4 || le_get32(in) != ZSTD_MAGICNUMBER) return 0;
    const size_t size = zstd.frame_size(in, max);
    if (zstd.is_error(size) || size > max || zstd.content_size(in, size) != len) return 0;
    const size_t got = zstd.decompress(packer->decompress, out, len, in, size);
    return !zstd.is_error(got) && got == len ? size : 0;
}

static bool frames_open(struct ssd_packer *packer, const uint8_t *in, size_t size, uint32_t unit,
                        size_t len)
{
    size_t from = 0, to = 0;

    for (uint32_t i = 0; i < unit; i++) {
        const size_t plane = plane_len(len, unit, i);
        const size_t frame = frame_open(packer, in + from, size - from, packer->apart + to, plane);
        if (frame == 0) return false;
        from += frame;
        to += plane;
    }
    return from == size;
}

enum status ssd_unpack(struct ssd_packer *packer, const uint8_t *in, size_t size, uint8_t *out,
                       size_t len)
{
    ASSERT(len > 0 && len <= packer->len_max);
    if (size <= SSD_PACK_HEADER_SIZE || ssd_pack_size(in, size) != size) return STATUS_CORRUPT;
    if (le_get64(in) != hash_xxh3(in + PACK_LEN, size - PACK_LEN)) return STATUS_CORRUPT;
    const uint8_t *frames = in + SSD_PACK_HEADER_SIZE;
    const uint32_t unit = le_get32(in + PACK_UNIT);
    if (unit == 0 || unit > SSD_PACK_UNIT_MAX || le_get32(in + PACK_ZERO) != 0)
        return STATUS_CORRUPT;
    if (le_get32(in + PACK_LEN) != len) return STATUS_CORRUPT;
    if (len < unit || !frames_open(packer, frames, size - SSD_PACK_HEADER_SIZE, unit, len))
        return STATUS_CORRUPT;
    join(packer->apart, len, unit, out);
    return STATUS_OK;
}
