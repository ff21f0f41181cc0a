/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/cuda_driver.c - our own declarations of what is used of the CUDA driver API.
 *
 * The names are those that libcuda.so.1 exports; `_v2` is what its header hides behind macros.
 * Numbers below are of cuda.h and part of the driver's ABI. */
#include "transfer/cuda_driver.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/library.h"

typedef int cu_result;
typedef int cu_device;
typedef struct cu_context_s *cu_context;
typedef struct cu_stream_s *cu_stream;
typedef struct cu_event_s *cu_event;
typedef unsigned long long cu_address;

struct cu_ipc_handle { /* passed by value */
    uint8_t bytes[CUDA_IPC_SIZE];
};

enum {
    CU_SUCCESS = 0,
    CU_ERROR_NOT_READY = 600,
    CU_STREAM_NON_BLOCKING = 1, /* does not wait for the default stream */
    CU_EVENT_DISABLE_TIMING = 2,
    CU_MEMHOSTALLOC_PORTABLE = 1, /* pinned for all contexts */
    CU_POINTER_MEMORY_TYPE = 2,
    CU_POINTER_IS_MANAGED = 8,
    CU_POINTER_DEVICE_ORDINAL = 9,
    CU_MEMORYTYPE_DEVICE = 2,
    CU_IPC_LAZY_PEER_ACCESS = 1, /* memory of another device: reached directly if that can be */
};

static struct {
    cu_result (*init)(unsigned flags);
    cu_result (*error_name)(cu_result error, const char **out);
    cu_result (*device_count)(int *out);
    cu_result (*device_get)(cu_device *out, int ordinal);
    cu_result (*device_pci)(char *out, int len, cu_device device);
    cu_result (*context_retain)(cu_context *out, cu_device device);
    cu_result (*context_release)(cu_device device);
    cu_result (*context_push)(cu_context context);
    cu_result (*context_pop)(cu_context *out);
    cu_result (*pointer_attribute)(void *out, int attribute, cu_address address);
    cu_result (*memory_alloc)(cu_address *out, size_t size);
    cu_result (*memory_free)(cu_address address);
    cu_result (*host_alloc)(void **out, size_t size, unsigned flags);
    cu_result (*host_free)(void *memory);
    cu_result (*copy_in)(cu_address to, const void *from, size_t len, cu_stream stream);
    cu_result (*copy_out)(void *to, cu_address from, size_t len, cu_stream stream);
    cu_result (*copy_within)(cu_address to, cu_address from, size_t len, cu_stream stream);
    cu_result (*copy_peer)(cu_address to, cu_context to_context, cu_address from,
                           cu_context from_context, size_t len, cu_stream stream);
    cu_result (*stream_create)(cu_stream *out, unsigned flags);
    cu_result (*stream_destroy)(cu_stream stream);
    cu_result (*stream_wait)(cu_stream stream);
    cu_result (*event_create)(cu_event *out, unsigned flags);
    cu_result (*event_destroy)(cu_event event);
    cu_result (*event_record)(cu_event event, cu_stream stream);
    cu_result (*event_query)(cu_event event);
    cu_result (*event_wait)(cu_event event);
} cu;

/* Drivers before CUDA 11 lack one of them. */
static struct {
    cu_result (*memory_range)(cu_address *base, size_t *size, cu_address address);
    cu_result (*get)(struct cu_ipc_handle *out, cu_address address);
    cu_result (*open)(cu_address *out, struct cu_ipc_handle handle, unsigned flags);
    cu_result (*close)(cu_address base);
} ipc;

static bool ipc_there; /* as `loaded` below */

static pthread_once_t once = PTHREAD_ONCE_INIT;
static enum status loaded; /* as cu, written once, before any reader passes pthread_once */
static struct errmsg load_err;

struct cuda_event {
    struct cuda_event *next; /* in the device's list of spare ones */
    struct cuda_device *device;
    cu_event event;
};

struct cuda_device {
    cu_device device;
    cu_context context;
    cu_stream in, out;
    struct cuda_event *spare;
};

/* ---- loading ---- */

static const char *library_name(void)
{
    const char *path = getenv("YOLK_CUDA_DRIVER");
    return path != NULL && path[0] != '\0' ? path : "libcuda.so.1";
}

static const char *reason(cu_result error)
{
    const char *name = NULL;
    return cu.error_name(error, &name) == CU_SUCCESS && name != NULL ? name : "unknown error";
}

static void load(void)
{
    const struct library_symbol symbols[] = {
        { "cuInit", &cu.init },
        { "cuGetErrorName", &cu.error_name },
        { "cuDeviceGetCount", &cu.device_count },
        { "cuDeviceGet", &cu.device_get },
        { "cuDeviceGetPCIBusId", &cu.device_pci },
        { "cuDevicePrimaryCtxRetain", &cu.context_retain },
        { "cuDevicePrimaryCtxRelease_v2", &cu.context_release },
        { "cuCtxPushCurrent_v2", &cu.context_push },
        { "cuCtxPopCurrent_v2", &cu.context_pop },
        { "cuPointerGetAttribute", &cu.pointer_attribute },
        { "cuMemAlloc_v2", &cu.memory_alloc },
        { "cuMemFree_v2", &cu.memory_free },
        { "cuMemHostAlloc", &cu.host_alloc },
        { "cuMemFreeHost", &cu.host_free },
        { "cuMemcpyHtoDAsync_v2", &cu.copy_in },
        { "cuMemcpyDtoHAsync_v2", &cu.copy_out },
        { "cuMemcpyDtoDAsync_v2", &cu.copy_within },
        { "cuMemcpyPeerAsync", &cu.copy_peer },
        { "cuStreamCreate", &cu.stream_create },
        { "cuStreamDestroy_v2", &cu.stream_destroy },
        { "cuStreamSynchronize", &cu.stream_wait },
        { "cuEventCreate", &cu.event_create },
        { "cuEventDestroy_v2", &cu.event_destroy },
        { "cuEventRecord", &cu.event_record },
        { "cuEventQuery", &cu.event_query },
        { "cuEventSynchronize", &cu.event_wait },
    };
    const size_t count = sizeof(symbols) / sizeof(symbols[0]);

    loaded = STATUS_UNSUPPORTED;
    if (library_load(library_name(), symbols, count, &load_err) != STATUS_OK) return;
    const cu_result error = cu.init(0);
    if (error != CU_SUCCESS) {
        errmsg_set(&load_err, STATUS_UNSUPPORTED, "the CUDA driver says %s", reason(error));
        return;
    }
    const struct library_symbol more[] = {
        { "cuMemGetAddressRange_v2", &ipc.memory_range },
        { "cuIpcGetMemHandle", &ipc.get },
        { "cuIpcOpenMemHandle_v2", &ipc.open },
        { "cuIpcCloseMemHandle", &ipc.close },
    };
    ipc_there =
        library_load(library_name(), more, sizeof(more) / sizeof(more[0]), NULL) == STATUS_OK;
    loaded = STATUS_OK;
}

bool cuda_driver_here(void)
{
    return library_here(library_name());
}

enum status cuda_driver_load(struct errmsg *err)
{
    pthread_once(&once, load);
    if (loaded != STATUS_OK)
        return errmsg_set(err, loaded, "no CUDA driver: %.200s", load_err.text);
    return STATUS_OK;
}

/* ---- what is where ---- */

static enum status device_at(uint64_t address, uint32_t *device)
{
    unsigned type = 0, managed = 0;
    int ordinal = 0;

    ASSERT(loaded == STATUS_OK);
    if (cu.pointer_attribute(&type, CU_POINTER_MEMORY_TYPE, address) != CU_SUCCESS ||
        type != CU_MEMORYTYPE_DEVICE) {
        return STATUS_NOT_FOUND;
    }
    if (cu.pointer_attribute(&managed, CU_POINTER_IS_MANAGED, address) == CU_SUCCESS &&
        managed != 0) {
        return STATUS_NOT_FOUND;
    }
    if (cu.pointer_attribute(&ordinal, CU_POINTER_DEVICE_ORDINAL, address) != CU_SUCCESS ||
        ordinal < 0 || ordinal >= CUDA_DEVICES_MAX) {
        return STATUS_INVALID;
    }
    *device = (uint32_t)ordinal;
    return STATUS_OK;
}

enum status cuda_device_of(uint64_t address, uint64_t length, uint32_t *device)
{
    uint32_t first = 0, last = 0;
    const enum status status = device_at(address, &first);
    const enum status end = device_at(address + length - 1, &last);

    if (status != end || (status == STATUS_OK && first != last)) return STATUS_INVALID;
    *device = first;
    return status;
}

enum status cuda_device_pci(uint32_t device, char out[CUDA_PCI_SIZE])
{
    cu_device handle;

    if (cu.device_get(&handle, (int)device) != CU_SUCCESS ||
        cu.device_pci(out, CUDA_PCI_SIZE, handle) != CU_SUCCESS) {
        return STATUS_NOT_FOUND;
    }
    for (char *c = out; *c != '\0'; c++) {
        if (*c >= 'A' && *c <= 'F') *c = (char)(*c - 'A' + 'a');
    }
    return STATUS_OK;
}

/* ---- devices ---- */

static cu_result enter(struct cuda_device *device)
{
    return cu.context_push(device->context);
}

/* Leaves what enter() entered, and gives `result` back. */
static cu_result leave(cu_result result)
{
    cu_context context;

    (void)cu.context_pop(&context);
    return result;
}

enum status cuda_device_open(uint32_t ordinal, struct cuda_device **out, struct errmsg *err)
{
    int count = 0;

    if (cu.device_count(&count) != CU_SUCCESS || ordinal >= (uint32_t)count) {
        return errmsg_set(err, STATUS_NOT_FOUND, "there is no cuda:%u, but %d devices", ordinal,
                          count);
    }
    struct cuda_device *device = calloc(1, sizeof(*device));
    if (device == NULL) return errmsg_set(err, STATUS_NO_MEMORY, "cuda: no memory");
    cu_result result = cu.device_get(&device->device, (int)ordinal);
    if (result == CU_SUCCESS) result = cu.context_retain(&device->context, device->device);
    if (result != CU_SUCCESS) {
        free(device);
        return errmsg_set(err, STATUS_IO, "cuda:%u: %s", ordinal, reason(result));
    }
    result = enter(device);
    if (result == CU_SUCCESS) {
        result = cu.stream_create(&device->in, CU_STREAM_NON_BLOCKING);
        if (result == CU_SUCCESS) {
            result = cu.stream_create(&device->out, CU_STREAM_NON_BLOCKING);
        }
        result = leave(result);
    }
    if (result != CU_SUCCESS) {
        cuda_device_close(device);
        return errmsg_set(err, STATUS_IO, "cuda:%u: %s", ordinal, reason(result));
    }
    *out = device;
    return STATUS_OK;
}

void cuda_device_close(struct cuda_device *device)
{
    struct cuda_event *event;

    if (device == NULL) return;
    if (enter(device) == CU_SUCCESS) {
        while ((event = device->spare) != NULL) {
            device->spare = event->next;
            cu.event_destroy(event->event);
            free(event);
        }
        if (device->in != NULL) cu.stream_destroy(device->in);
        if (device->out != NULL) cu.stream_destroy(device->out);
        leave(CU_SUCCESS);
    }
    cu.context_release(device->device);
    free(device);
}

enum status cuda_pinned_alloc(struct cuda_device *device, size_t size, void **out)
{
    cu_result result = enter(device);

    if (result == CU_SUCCESS) result = leave(cu.host_alloc(out, size, CU_MEMHOSTALLOC_PORTABLE));
    return result == CU_SUCCESS ? STATUS_OK : STATUS_NO_MEMORY;
}

void cuda_pinned_free(struct cuda_device *device, void *memory)
{
    if (memory != NULL && enter(device) == CU_SUCCESS) leave(cu.host_free(memory));
}

enum status cuda_memory_alloc(struct cuda_device *device, size_t size, uint64_t *out)
{
    cu_address address = 0;
    cu_result result = enter(device);

    if (result == CU_SUCCESS) result = leave(cu.memory_alloc(&address, size));
    *out = address;
    return result == CU_SUCCESS ? STATUS_OK : STATUS_NO_MEMORY;
}

void cuda_memory_free(struct cuda_device *device, uint64_t address)
{
    if (enter(device) == CU_SUCCESS) leave(cu.memory_free(address));
}

/* ---- memory of another process ---- */

/* Inside a context: is [address, address+length) in one allocation? *base is its first byte. */
static bool in_one_allocation(cu_address address, uint64_t length, cu_address *base)
{
    size_t size = 0;

    if (ipc.memory_range(base, &size, address) != CU_SUCCESS || address < *base) return false;
    const uint64_t offset = address - *base;
    return offset <= size && length <= size - offset;
}

enum status cuda_ipc_export(struct cuda_device *device, uint64_t address, uint64_t length,
                            uint8_t handle[CUDA_IPC_SIZE], uint64_t *offset)
{
    struct cu_ipc_handle made;
    cu_address base = 0;

    if (!ipc_there || enter(device) != CU_SUCCESS) return STATUS_UNSUPPORTED;
    const bool whole = in_one_allocation(address, length, &base);
    const bool got = leave(whole ? ipc.get(&made, base) : CU_ERROR_NOT_READY) == CU_SUCCESS;
    if (!whole || !got) return STATUS_UNSUPPORTED;
    memcpy(handle, made.bytes, CUDA_IPC_SIZE);
    *offset = address - base;
    return STATUS_OK;
}

enum status cuda_ipc_open(struct cuda_device *device, const uint8_t handle[CUDA_IPC_SIZE],
                          uint64_t offset, uint64_t length, uint64_t *out)
{
    struct cu_ipc_handle theirs;
    cu_address base = 0, first = 0;

    if (!ipc_there || enter(device) != CU_SUCCESS) return STATUS_UNSUPPORTED;
    memcpy(theirs.bytes, handle, CUDA_IPC_SIZE);
    if (leave(ipc.open(&base, theirs, CU_IPC_LAZY_PEER_ACCESS)) != CU_SUCCESS) {
        return STATUS_UNSUPPORTED;
    }
    const bool known = enter(device) == CU_SUCCESS;
    const bool inside = known && base + offset >= base &&
                        in_one_allocation(base + offset, length, &first) && first == base;
    if (known) leave(CU_SUCCESS);
    if (inside) {
        *out = base;
        return STATUS_OK;
    }
    cuda_ipc_close(device, base);
    return STATUS_INVALID;
}

void cuda_ipc_close(struct cuda_device *device, uint64_t base)
{
    if (enter(device) == CU_SUCCESS) leave(ipc.close(base));
}

/* ---- copies ---- */

/* Inside the device's context. */
static struct cuda_event *event_take(struct cuda_device *device)
{
    struct cuda_event *event = device->spare;

    if (event != NULL) {
        device->spare = event->next;
        return event;
    }
    event = calloc(1, sizeof(*event));
    if (event == NULL) return NULL;
    event->device = device;
    if (cu.event_create(&event->event, CU_EVENT_DISABLE_TIMING) != CU_SUCCESS) {
        free(event);
        return NULL;
    }
    return event;
}

void cuda_event_free(struct cuda_event *event)
{
    event->next = event->device->spare;
    event->device->spare = event;
}

struct copy {
    enum { COPY_IN, COPY_OUT, COPY_WITHIN, COPY_PEER } kind;
    uint64_t to, from; /* of the host, where it is the host's */
    cu_context to_context;
    size_t len;
};

static cu_result copy_start(const struct cuda_device *device, const struct copy *copy)
{
    switch (copy->kind) {
    case COPY_IN:
        return cu.copy_in(copy->to, (const void *)(uintptr_t)copy->from, copy->len, device->in);
    case COPY_OUT:
        return cu.copy_out((void *)(uintptr_t)copy->to, copy->from, copy->len, device->out);
    case COPY_WITHIN: return cu.copy_within(copy->to, copy->from, copy->len, device->out);
    case COPY_PEER:
        return cu.copy_peer(copy->to, copy->to_context, copy->from, device->context, copy->len,
                            device->out);
    }
    return CU_SUCCESS;
}

static enum status copy_submit(struct cuda_device *device, const struct copy *copy,
                               struct cuda_event **out)
{
    if (enter(device) != CU_SUCCESS) return STATUS_IO;
    struct cuda_event *event = event_take(device);
    cu_result result = event != NULL ? copy_start(device, copy) : CU_ERROR_NOT_READY;
    if (result == CU_SUCCESS) {
        const cu_stream stream = copy->kind == COPY_IN ? device->in : device->out;
        result = cu.event_record(event->event, stream);
        /* A copy whose end nobody could see must not go on behind our back. */
        if (result != CU_SUCCESS) cu.stream_wait(stream);
    }
    result = leave(result);
    if (result == CU_SUCCESS) {
        *out = event;
        return STATUS_OK;
    }
    if (event != NULL) cuda_event_free(event);
    return STATUS_IO;
}

enum status cuda_copy_in(struct cuda_device *device, uint64_t to, const void *from, size_t len,
                         struct cuda_event **out)
{
    const struct copy copy = { COPY_IN, to, (uintptr_t)from, NULL, len };
    return copy_submit(device, &copy, out);
}

enum status cuda_copy_out(struct cuda_device *device, void *to, uint64_t from, size_t len,
                          struct cuda_event **out)
{
    const struct copy copy = { COPY_OUT, (uintptr_t)to, from, NULL, len };
    return copy_submit(device, &copy, out);
}

enum status cuda_copy_across(struct cuda_device *device, uint64_t from, struct cuda_device *other,
                             uint64_t to, size_t len, struct cuda_event **out)
{
    const struct copy copy = { device == other ? COPY_WITHIN : COPY_PEER, to, from, other->context,
                               len };
    return copy_submit(device, &copy, out);
}

static enum status status_of(cu_result result)
{
    if (result == CU_SUCCESS) return STATUS_OK;
    return result == CU_ERROR_NOT_READY ? STATUS_AGAIN : STATUS_IO;
}

enum status cuda_event_poll(struct cuda_event *event)
{
    if (enter(event->device) != CU_SUCCESS) return STATUS_IO;
    const cu_result result = cu.event_query(event->event);
    leave(CU_SUCCESS);
    return status_of(result);
}

enum status cuda_event_wait(struct cuda_event *event)
{
    if (enter(event->device) != CU_SUCCESS) return STATUS_IO;
    const cu_result result = cu.event_wait(event->event);
    leave(CU_SUCCESS);
    return status_of(result);
}
