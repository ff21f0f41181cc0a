/* SPDX-License-Identifier: Apache-2.0
 *
 * tests/fake_cuda.c - see fake_cuda.h. One thread. */
#include "fake_cuda.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

enum {
    DEVICES = 2,
    RANGES_MAX = 64,
    COPIES_MAX = 4096,
    OK = 0,
    INVALID_VALUE = 1,
    INVALID_CONTEXT = 201,
    NOT_READY = 600,
    LAUNCH_FAILED = 719,
};

struct context {
    int device;
    unsigned retained;
};

struct range {
    uint8_t *address, *alias; /* NULL: free */
    size_t size;
    int device;
    int fd;         /* of the pages */
    ino_t pages;    /* its number: no two of a host are alike */
    unsigned opens; /* of another's memory: how often; 0: our own */
};

struct stream {
    int device;
};

/* A copy, or, with `event`, a mark behind those before it in the stream. */
struct item {
    struct stream *stream;
    uint8_t *to, *from; /* as the caller named them */
    size_t len;
    struct event *event;
    bool fails;
};

struct event {
    bool recorded, over;
    int result;
    unsigned polls;
    struct stream *stream;
};

static struct fake_cuda turned;
static struct context contexts[DEVICES] = { { 0, 0 }, { 1, 0 } };
static struct context *current[16];
static unsigned depth;
static struct range ranges[RANGES_MAX];
static struct item items[COPIES_MAX]; /* oldest first */
static unsigned item_count;

static _Noreturn void misuse(const char *what)
{
    fprintf(stderr, "fake CUDA driver: %s\n", what);
    abort();
}

static struct range *range_of(const void *address)
{
    for (int i = 0; i < RANGES_MAX; i++) {
        const uint8_t *at = address;
        if (ranges[i].address != NULL && at >= ranges[i].address &&
            at < ranges[i].address + ranges[i].size) {
            return &ranges[i];
        }
    }
    return NULL;
}

static int device_of(const void *address, size_t len)
{
    const struct range *range = range_of(address);

    if (range == NULL) return -1;
    if ((const uint8_t *)address + len > range->address + range->size) misuse("beyond the range");
    return range->device;
}

static uint8_t *touchable(uint8_t *address)
{
    const struct range *range = range_of(address);
    return range != NULL ? range->alias + (address - range->address) : address;
}

EXPORT struct fake_cuda *fake_cuda(void);
struct fake_cuda *fake_cuda(void)
{
    return &turned;
}

EXPORT void *fake_cuda_alias(uint64_t address);
void *fake_cuda_alias(uint64_t address)
{
    return touchable((uint8_t *)(uintptr_t)address);
}

/* ---- devices, contexts ---- */

EXPORT int cuInit(unsigned flags);
int cuInit(unsigned flags)
{
    return flags == 0 ? OK : INVALID_VALUE;
}

EXPORT int cuGetErrorName(int error, const char **out);
int cuGetErrorName(int error, const char **out)
{
    *out = error == OK ? "CUDA_SUCCESS" : "CUDA_ERROR_OF_THE_FAKE";
    return OK;
}

EXPORT int cuDeviceGetCount(int *out);
int cuDeviceGetCount(int *out)
{
    *out = DEVICES;
    return OK;
}

EXPORT int cuDeviceGet(int *out, int ordinal);
int cuDeviceGet(int *out, int ordinal)
{
    if (ordinal < 0 || ordinal >= DEVICES) return INVALID_VALUE;
    *out = ordinal;
    return OK;
}

EXPORT int cuDeviceGetPCIBusId(char *out, int len, int device);
int cuDeviceGetPCIBusId(char *out, int len, int device)
{
    snprintf(out, (size_t)len, "FFFF:%02X:00.0", 0xa0 + device);
    return OK;
}

EXPORT int cuDevicePrimaryCtxRetain(void **out, int device);
int cuDevicePrimaryCtxRetain(void **out, int device)
{
    contexts[device].retained++;
    *out = &contexts[device];
    return OK;
}

EXPORT int cuDevicePrimaryCtxRelease_v2(int device);
int cuDevicePrimaryCtxRelease_v2(int device)
{
    if (contexts[device].retained-- == 0) misuse("a context released once too often");
    return OK;
}

EXPORT int cuCtxPushCurrent_v2(void *context);
int cuCtxPushCurrent_v2(void *context)
{
    if (depth == 16) misuse("contexts are pushed and never popped");
    current[depth++] = context;
    return OK;
}

EXPORT int cuCtxPopCurrent_v2(void **out);
int cuCtxPopCurrent_v2(void **out)
{
    if (depth == 0) misuse("a context popped that nobody pushed");
    *out = current[--depth];
    return OK;
}

static bool inside(int device)
{
    return depth > 0 && (device < 0 || current[depth - 1]->device == device);
}

EXPORT int cuPointerGetAttribute(void *out, int attribute, unsigned long long address);
int cuPointerGetAttribute(void *out, int attribute, unsigned long long address)
{
    const struct range *range = range_of((const void *)(uintptr_t)address);
    unsigned value = 0;

    if (range == NULL) return INVALID_VALUE;
    if (attribute == 2) value = 2; /* memory type: device */
    if (attribute == 9) value = (unsigned)range->device;
    if (attribute != 2 && attribute != 8 && attribute != 9) misuse("an attribute it does not know");
    memcpy(out, &value, sizeof(value));
    return OK;
}

/* ---- memory ---- */

static void range_map(struct range *range, int fd, int access)
{
    struct stat is;

    if (fstat(fd, &is) != 0) misuse("no memory");
    const size_t size = (size_t)is.st_size;
    range->alias = mmap(NULL, size, access, MAP_SHARED, fd, 0);
    range->address = mmap(NULL, size, PROT_NONE, MAP_SHARED, fd, 0);
    if (range->alias == MAP_FAILED || range->address == MAP_FAILED) misuse("no memory");
    range->size = size;
    range->device = current[depth - 1]->device;
    range->fd = fd;
    range->pages = is.st_ino;
}

static void range_unmap(struct range *range)
{
    munmap(range->address, range->size);
    munmap(range->alias, range->size);
    close(range->fd);
    *range = (struct range){ .address = NULL };
}

EXPORT int cuMemAlloc_v2(unsigned long long *out, size_t size);
int cuMemAlloc_v2(unsigned long long *out, size_t size)
{
    struct range *range = ranges;

    if (!inside(-1)) return INVALID_CONTEXT;
    while (range < ranges + RANGES_MAX && range->address != NULL)
        range++;
    if (range == ranges + RANGES_MAX) return INVALID_VALUE;
    const int fd = memfd_create("fake_cuda", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, (off_t)size) != 0) misuse("no memory");
    range_map(range, fd, PROT_READ | PROT_WRITE);
    *out = (uintptr_t)range->address;
    return OK;
}

static bool touches(const struct item *item, const uint8_t *address, size_t size)
{
    if (item->event != NULL) return false;
    return (item->to < address + size && address < item->to + item->len) ||
           (item->from < address + size && address < item->from + item->len);
}

EXPORT int cuMemFree_v2(unsigned long long address);
int cuMemFree_v2(unsigned long long address)
{
    struct range *range = range_of((const void *)(uintptr_t)address);

    if (range == NULL || range->address != (void *)(uintptr_t)address || range->opens > 0) {
        misuse("not its memory");
    }
    for (unsigned i = 0; i < item_count; i++) {
        if (touches(&items[i], range->address, range->size)) misuse("freed under a copy");
    }
    range_unmap(range);
    return OK;
}

/* ---- memory of other processes ---- */

struct handle {
    uint32_t magic;
    int32_t pid, fd;
    uint64_t pages;
    uint8_t zero[40];
};

_Static_assert(sizeof(struct handle) == 64, "as the driver's");
#define MAGIC 0x46414b45u

EXPORT int cuMemGetAddressRange_v2(unsigned long long *base, size_t *size,
                                   unsigned long long address);
int cuMemGetAddressRange_v2(unsigned long long *base, size_t *size, unsigned long long address)
{
    const struct range *range = range_of((const void *)(uintptr_t)address);

    if (range == NULL) return INVALID_VALUE;
    *base = (uintptr_t)range->address;
    *size = range->size;
    return OK;
}

EXPORT int cuIpcGetMemHandle(struct handle *out, unsigned long long address);
int cuIpcGetMemHandle(struct handle *out, unsigned long long address)
{
    const struct range *range = range_of((const void *)(uintptr_t)address);

    if (!inside(-1)) return INVALID_CONTEXT;
    if (turned.refuse_export || range == NULL || range->opens > 0) return INVALID_VALUE;
    if (turned.lie_export == 1) memset(out, 0xa5, sizeof(*out));
    if (turned.lie_export == 1) return OK;
    for (int i = 0; turned.lie_export == 2 && i < RANGES_MAX; i++) {
        const struct range *other = &ranges[i];
        if (other->address != NULL && other->opens == 0 && other->size < range->size) range = other;
    }
    *out = (struct handle){
        .magic = MAGIC, .pid = getpid(), .fd = range->fd, .pages = (uint64_t)range->pages
    };
    return OK;
}

EXPORT int cuIpcOpenMemHandle_v2(unsigned long long *out, struct handle handle, unsigned flags);
int cuIpcOpenMemHandle_v2(unsigned long long *out, struct handle handle, unsigned flags)
{
    struct range *range = ranges;
    struct stat is;
    char path[64];

    if (!inside(-1) || flags != 1) return INVALID_CONTEXT;
    if (turned.refuse_open || handle.magic != MAGIC) return INVALID_VALUE;
    if (handle.pid == getpid() && !turned.own_handles) return INVALID_CONTEXT;
    for (int i = 0; i < RANGES_MAX; i++) { /* once more */
        if (ranges[i].opens == 0 || (uint64_t)ranges[i].pages != handle.pages) continue;
        if (!inside(ranges[i].device)) continue;
        ranges[i].opens++;
        turned.opened++;
        *out = (uintptr_t)ranges[i].address;
        return OK;
    }
    while (range < ranges + RANGES_MAX && range->address != NULL)
        range++;
    if (range == ranges + RANGES_MAX) return INVALID_VALUE;
    snprintf(path, sizeof(path), "/proc/%d/fd/%d", handle.pid, handle.fd);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return INVALID_VALUE;
    if (fstat(fd, &is) != 0 || (uint64_t)is.st_ino != handle.pages || is.st_size == 0) {
        close(fd);
        return INVALID_VALUE;
    }
    range_map(range, fd, PROT_READ);
    range->opens = 1;
    turned.opened++;
    turned.open++;
    *out = (uintptr_t)range->address;
    return OK;
}

EXPORT int cuIpcCloseMemHandle(unsigned long long base);
int cuIpcCloseMemHandle(unsigned long long base)
{
    struct range *range = range_of((const void *)(uintptr_t)base);

    if (!inside(-1)) return INVALID_CONTEXT;
    if (range == NULL || range->opens == 0 || range->address != (void *)(uintptr_t)base) {
        misuse("memory closed that was not opened");
    }
    if (--range->opens > 0) return OK;
    for (unsigned i = 0; i < item_count; i++) {
        if (touches(&items[i], range->address, range->size)) misuse("closed under a copy");
    }
    range_unmap(range);
    turned.open--;
    return OK;
}

EXPORT int cuMemHostAlloc(void **out, size_t size, unsigned flags);
int cuMemHostAlloc(void **out, size_t size, unsigned flags)
{
    uint8_t *memory = malloc(size + 64);

    if (!inside(-1) || flags != 1) return INVALID_CONTEXT;
    if (memory == NULL) return INVALID_VALUE;
    memcpy(memory, &size, sizeof(size));
    turned.pinned += size;
    *out = memory + 64;
    return OK;
}

EXPORT int cuMemFreeHost(void *memory);
int cuMemFreeHost(void *memory)
{
    uint8_t *start = (uint8_t *)memory - 64;
    size_t size;

    memcpy(&size, start, sizeof(size));
    for (unsigned i = 0; i < item_count; i++) {
        if (touches(&items[i], memory, size)) misuse("pinned memory freed under a copy");
    }
    turned.pinned -= size;
    free(start);
    return OK;
}

/* ---- copies ---- */

static void item_make(const struct item *item, bool *failed)
{
    if (item->event != NULL) {
        item->event->over = true;
        item->event->result = *failed ? LAUNCH_FAILED : OK;
        *failed = false;
        return;
    }
    turned.pending--;
    if (item->fails) {
        *failed = true;
        return;
    }
    memcpy(touchable(item->to), touchable(item->from), item->len);
}

/* Makes what is in the stream, up to `event`; NULL: everything. */
static void stream_make(const struct stream *stream, const struct event *event)
{
    unsigned kept = 0;
    bool failed = false, reached = false;

    for (unsigned i = 0; i < item_count; i++) {
        const struct item item = items[i];
        if (item.stream == stream && !reached) {
            item_make(&item, &failed);
            reached = event != NULL && item.event == event;
        } else {
            items[kept++] = item;
        }
    }
    item_count = kept;
}

EXPORT void fake_cuda_pass(void);
void fake_cuda_pass(void)
{
    while (item_count > 0)
        stream_make(items[0].stream, NULL);
}

static void item_add(const struct item *item)
{
    if (item_count == COPIES_MAX) misuse("too many copies at once");
    items[item_count++] = *item;
}

static int copy_start(void *to, const void *from, size_t len, struct stream *stream)
{
    struct item item = { stream, to, (uint8_t *)(uintptr_t)from, len, NULL, false };

    const struct range *target = range_of(to);
    if (!inside(stream->device)) return INVALID_CONTEXT;
    if (target != NULL && target->opens > 0) misuse("written to another process's memory");
    if (turned.fail_start > 0 && --turned.fail_start == 0) return INVALID_VALUE;
    if (turned.fail_end > 0 && --turned.fail_end == 0) item.fails = true;
    item_add(&item);
    turned.pending++;
    return OK;
}

EXPORT int cuMemcpyHtoDAsync_v2(unsigned long long to, const void *from, size_t len, void *stream);
int cuMemcpyHtoDAsync_v2(unsigned long long to, const void *from, size_t len, void *stream)
{
    void *target = (void *)(uintptr_t)to;

    if (device_of(target, len) != ((struct stream *)stream)->device) misuse("no such target");
    if (device_of(from, len) >= 0) misuse("a source that is no host memory");
    turned.copies_in++;
    return copy_start(target, from, len, stream);
}

EXPORT int cuMemcpyDtoHAsync_v2(void *to, unsigned long long from, size_t len, void *stream);
int cuMemcpyDtoHAsync_v2(void *to, unsigned long long from, size_t len, void *stream)
{
    const void *source = (const void *)(uintptr_t)from;

    if (device_of(source, len) != ((struct stream *)stream)->device) misuse("no such source");
    if (device_of(to, len) >= 0) misuse("a target that is no host memory");
    turned.copies_out++;
    return copy_start(to, source, len, stream);
}

EXPORT int cuMemcpyDtoDAsync_v2(unsigned long long to, unsigned long long from, size_t len,
                                void *stream);
int cuMemcpyDtoDAsync_v2(unsigned long long to, unsigned long long from, size_t len, void *stream)
{
    void *target = (void *)(uintptr_t)to, *source = (void *)(uintptr_t)from;

    if (device_of(target, len) < 0 || device_of(target, len) != device_of(source, len)) {
        misuse("not within one device");
    }
    turned.copies_across++;
    return copy_start(target, source, len, stream);
}

EXPORT int cuMemcpyPeerAsync(unsigned long long to, void *to_context, unsigned long long from,
                             void *from_context, size_t len, void *stream);
int cuMemcpyPeerAsync(unsigned long long to, void *to_context, unsigned long long from,
                      void *from_context, size_t len, void *stream)
{
    void *target = (void *)(uintptr_t)to, *source = (void *)(uintptr_t)from;

    if (device_of(target, len) != ((struct context *)to_context)->device ||
        device_of(source, len) != ((struct context *)from_context)->device) {
        misuse("not between these devices");
    }
    turned.copies_across++;
    return copy_start(target, source, len, stream);
}

/* ---- streams, events ---- */

EXPORT int cuStreamCreate(void **out, unsigned flags);
int cuStreamCreate(void **out, unsigned flags)
{
    struct stream *stream = malloc(sizeof(*stream));

    if (!inside(-1) || flags != 1 || stream == NULL) return INVALID_CONTEXT;
    stream->device = current[depth - 1]->device;
    *out = stream;
    return OK;
}

EXPORT int cuStreamDestroy_v2(void *stream);
int cuStreamDestroy_v2(void *stream)
{
    for (unsigned i = 0; i < item_count; i++) {
        if (items[i].stream == stream) misuse("a stream destroyed with something in it");
    }
    free(stream);
    return OK;
}

EXPORT int cuStreamSynchronize(void *stream);
int cuStreamSynchronize(void *stream)
{
    stream_make(stream, NULL);
    return OK;
}

EXPORT int cuEventCreate(void **out, unsigned flags);
int cuEventCreate(void **out, unsigned flags)
{
    if (!inside(-1) || flags != 2) return INVALID_CONTEXT;
    *out = calloc(1, sizeof(struct event));
    return *out != NULL ? OK : INVALID_VALUE;
}

EXPORT int cuEventDestroy_v2(void *event);
int cuEventDestroy_v2(void *event)
{
    const struct event *it = event;
    if (it->recorded && !it->over) misuse("an event destroyed before its time");
    free(event);
    return OK;
}

EXPORT int cuEventRecord(void *event, void *stream);
int cuEventRecord(void *event, void *stream)
{
    struct event *it = event;

    if (!inside(((struct stream *)stream)->device)) return INVALID_CONTEXT;
    if (it->recorded && !it->over) misuse("an event recorded twice");
    *it = (struct event){ .recorded = true, .polls = turned.polls, .stream = stream };
    const struct item item = { stream, NULL, NULL, 0, event, false };
    item_add(&item);
    return OK;
}

EXPORT int cuEventQuery(void *event);
int cuEventQuery(void *event)
{
    struct event *it = event;

    turned.polled++;
    if (!it->recorded) misuse("an event asked that was never recorded");
    if (it->over) return it->result;
    if (it->polls > 0 && !turned.hurry) {
        it->polls--;
        return NOT_READY;
    }
    stream_make(it->stream, it);
    return it->result;
}

EXPORT int cuEventSynchronize(void *event);
int cuEventSynchronize(void *event)
{
    struct event *it = event;

    turned.waited++;
    if (!it->recorded) misuse("an event waited for that was never recorded");
    if (!it->over) stream_make(it->stream, it);
    return it->result;
}
