/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/fabric_ofi.c - see fabric.h. The one file that includes libfabric, loaded with dlopen:
 * five functions are looked up, everything else goes through tables that its objects carry.
 *
 * What is asked of a provider: reliable unconnected endpoints (FI_EP_RDM) with remote reads and
 * writes; completion of a write when it is in the peer's memory (FI_DELIVERY_COMPLETE); progress by
 * whoever calls (a provider that progresses by itself satisfies that too). Keys of at most 64 bits.
 *
 * Addresses by offset are preferred to virtual ones, which only hardware needs: with virtual
 * addresses the shm provider writes into a peer's memory without asking the peer, and nothing that
 * the peer closes could keep it from doing so.
 *
 * Limits: one peer a link; what the provider takes beyond is said by its EAGAIN. */
#include "transfer/fabric.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include <rdma/fabric.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_errno.h>
#include <rdma/fi_rma.h>

#include "base/assert.h"
#include "base/log.h"

#define API_VERSION FI_VERSION(1, 14)

enum { POLL_MAX = 16 };

static const char library[] = "libfabric.so.1";

struct ofi {
    int (*getinfo)(uint32_t, const char *, const char *, uint64_t, const struct fi_info *,
                   struct fi_info **);
    void (*freeinfo)(struct fi_info *);
    struct fi_info *(*dupinfo)(const struct fi_info *);
    int (*fabric)(struct fi_fabric_attr *, struct fid_fabric **, void *);
    const char *(*strerror)(int);
};

struct fabric {
    struct ofi ofi;
    struct fi_info *info;
    struct fid_fabric *fabric;
    struct fid_domain *domain;
    char provider[FABRIC_NAME_SIZE];
    uint32_t links;
};

struct fabric_memory {
    struct fabric_memory *next; /* of its link */
    struct fid_mr *mr;
    uint64_t base;
};

struct fabric_link {
    struct fabric *fabric;
    struct fid_av *av;
    struct fid_cq *cq;
    struct fid_ep *ep;
    int fd; /* -1: none */
    bool connected;
    fi_addr_t peer;
    struct fabric_memory *memory;
};

/* ---- the library ---- */

static bool find(void *handle, const char *name, void *out)
{
    void *symbol = dlsym(handle, name);

    memcpy(out, &symbol, sizeof(symbol)); /* an object pointer to a function pointer */
    return symbol != NULL;
}

/* What the library is told by the environment while it starts, unless a user has set it there. The
 * ofi_rxm layer, under tcp and verbs, keeps buffers for messages, of which we send none: by default
 * 70 MB and 0.1 s for each endpoint. And libinfinipath, which comes along with the psm provider,
 * takes the process's signals for crashes to itself. */
static const char *const settings[][2] = { { "FI_OFI_RXM_BUFFER_SIZE", "1024" },
                                           { "FI_OFI_RXM_MSG_RX_SIZE", "16" },
                                           { "IPATH_NO_BACKTRACE", "1" } };

enum { SETTINGS = sizeof(settings) / sizeof(settings[0]) };

static void settings_begin(bool ours[SETTINGS])
{
    for (int i = 0; i < SETTINGS; i++) {
        ours[i] = getenv(settings[i][0]) == NULL;
        if (ours[i]) (void)setenv(settings[i][0], settings[i][1], 0);
    }
}

static void settings_end(const bool ours[SETTINGS])
{
    for (int i = 0; i < SETTINGS; i++) {
        if (ours[i]) (void)unsetenv(settings[i][0]);
    }
}

static enum status look_up(struct ofi *ofi, struct errmsg *err)
{
    void *handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);

    if (handle == NULL) {
        return errmsg_set(err, STATUS_UNSUPPORTED, "fabric: %s (install libfabric1)", dlerror());
    }
    const bool all =
        find(handle, "fi_getinfo", &ofi->getinfo) && find(handle, "fi_freeinfo", &ofi->freeinfo) &&
        find(handle, "fi_dupinfo", &ofi->dupinfo) && find(handle, "fi_fabric", &ofi->fabric) &&
        find(handle, "fi_strerror", &ofi->strerror);
    if (all) return STATUS_OK;
    return errmsg_set(err, STATUS_UNSUPPORTED, "fabric: %s is not libfabric", library);
}

/* dlopen() counts, and gives the same handle again. Providers start with the first question. */
static enum status load(struct ofi *ofi, struct errmsg *err)
{
    struct fi_info *info = NULL;
    bool ours[SETTINGS];

    if (dlopen(library, RTLD_NOW | RTLD_NOLOAD) != NULL) return look_up(ofi, err);
    settings_begin(ours);
    const enum status status = look_up(ofi, err);
    if (status == STATUS_OK && ofi->getinfo(API_VERSION, NULL, NULL, 0, NULL, &info) == 0) {
        ofi->freeinfo(info);
    }
    settings_end(ours);
    return status;
}

/* ---- a provider ---- */

static struct fi_info *hints_new(const struct ofi *ofi, const char *provider, bool virtual)
{
    struct fi_info *hints = ofi->dupinfo(NULL);

    if (hints == NULL) return NULL;
    hints->caps = FI_RMA | FI_READ | FI_WRITE | FI_REMOTE_READ | FI_REMOTE_WRITE;
    hints->ep_attr->type = FI_EP_RDM;
    hints->tx_attr->op_flags = FI_DELIVERY_COMPLETE;
    hints->domain_attr->mr_mode = FI_MR_LOCAL | FI_MR_ALLOCATED | FI_MR_PROV_KEY | FI_MR_ENDPOINT |
                                  (virtual ? FI_MR_VIRT_ADDR : 0);
    hints->domain_attr->threading = FI_THREAD_DOMAIN;
    hints->domain_attr->control_progress = FI_PROGRESS_MANUAL;
    hints->domain_attr->data_progress = FI_PROGRESS_MANUAL;
    if (provider[0] == '\0') return hints;
    hints->fabric_attr->prov_name = strdup(provider); /* freed with the hints */
    if (hints->fabric_attr->prov_name != NULL) return hints;
    ofi->freeinfo(hints);
    return NULL;
}

static int info_get(const struct ofi *ofi, const char *provider, const char *host, bool virtual,
                    struct fi_info **out)
{
    struct fi_info *hints = hints_new(ofi, provider, virtual);

    if (hints == NULL) return -FI_ENOMEM;
    const int error =
        ofi->getinfo(API_VERSION, host, NULL, host != NULL ? FI_SOURCE : 0, hints, out);
    ofi->freeinfo(hints);
    return error;
}

static bool knows_hosts(const struct fi_info *info)
{
    return info->addr_format == FI_SOCKADDR || info->addr_format == FI_SOCKADDR_IN ||
           info->addr_format == FI_SOCKADDR_IN6;
}

/* Binding to `host` is left to providers for which a host is an address: others take it for a name
 * of their own. */
static int info_find(const struct ofi *ofi, const char *provider, const char *host,
                     struct fi_info **out)
{
    bool virtual = false;
    int error = info_get(ofi, provider, NULL, virtual, out);

    if (error != 0) {
        virtual = true;
        error = info_get(ofi, provider, NULL, virtual, out);
    }
    if (error != 0 || host == NULL || !knows_hosts(*out)) return error;
    struct fi_info *any = *out;
    error = info_get(ofi, provider, host, virtual, out);
    ofi->freeinfo(any);
    return error;
}

static enum status domain_open(struct fabric *fabric, struct errmsg *err)
{
    int error = fabric->ofi.fabric(fabric->info->fabric_attr, &fabric->fabric, NULL);

    if (error == 0) error = fi_domain(fabric->fabric, fabric->info, &fabric->domain, NULL);
    if (error == 0) return STATUS_OK;
    return errmsg_set(err, STATUS_UNSUPPORTED, "fabric: provider `%s`: %s",
                      fabric->info->fabric_attr->prov_name, fabric->ofi.strerror(-error));
}

static enum status provider_open(struct fabric *fabric, const char *provider, const char *host,
                                 struct errmsg *err)
{
    const int error = info_find(&fabric->ofi, provider, host, &fabric->info);

    if (error != 0) {
        fabric->info = NULL;
        return errmsg_set(err, STATUS_UNSUPPORTED,
                          "fabric: libfabric has no provider `%s` with remote reads and writes%s%s"
                          ": %s",
                          provider[0] != '\0' ? provider : "*", host != NULL ? " on " : "",
                          host != NULL ? host : "", fabric->ofi.strerror(-error));
    }
    const char *name = fabric->info->fabric_attr->prov_name;
    if (strlen(name) >= sizeof(fabric->provider)) return STATUS_UNSUPPORTED;
    memcpy(fabric->provider, name, strlen(name));
    return domain_open(fabric, err);
}

enum status fabric_open(const char *provider, const char *host, struct fabric **out,
                        struct errmsg *err)
{
    struct fabric *fabric = calloc(1, sizeof(*fabric));

    if (fabric == NULL) return errmsg_set(err, STATUS_NO_MEMORY, "fabric: no memory");
    enum status status = load(&fabric->ofi, err);
    if (status == STATUS_OK) status = provider_open(fabric, provider, host, err);
    if (status == STATUS_OK) {
        *out = fabric;
    } else {
        fabric_close(fabric);
    }
    return status;
}

static void fid_close(struct fid *fid)
{
    const int error = fi_close(fid);
    ASSERT(error != -FI_EBUSY); /* something of it is still open */
    if (error != 0) LOG_WARN("transfer", "fabric_close", "error=%d", error);
}

void fabric_close(struct fabric *fabric)
{
    if (fabric == NULL) return;
    ASSERT(fabric->links == 0);
    if (fabric->domain != NULL) fid_close(&fabric->domain->fid);
    if (fabric->fabric != NULL) fid_close(&fabric->fabric->fid);
    if (fabric->info != NULL) fabric->ofi.freeinfo(fabric->info);
    free(fabric);
}

const char *fabric_provider(const struct fabric *fabric)
{
    return fabric->provider;
}

bool fabric_knows_hosts(const struct fabric *fabric)
{
    return knows_hosts(fabric->info);
}

/* ---- links ---- */

static int queue_open(struct fabric_link *link)
{
    struct fid_domain *domain = link->fabric->domain;
    struct fi_cq_attr attr = { .format = FI_CQ_FORMAT_CONTEXT, .wait_obj = FI_WAIT_FD };
    int error = fi_cq_open(domain, &attr, &link->cq, NULL);

    link->fd = -1;
    if (error == 0 && fi_control(&link->cq->fid, FI_GETWAIT, &link->fd) == 0) return 0;
    if (error == 0) fid_close(&link->cq->fid);
    attr.wait_obj = FI_WAIT_NONE;
    link->fd = -1;
    link->cq = NULL;
    return fi_cq_open(domain, &attr, &link->cq, NULL);
}

static int endpoint_open(struct fabric_link *link)
{
    struct fi_av_attr attr = { .type = FI_AV_UNSPEC, .count = 1 };
    int error = queue_open(link);

    if (error == 0) error = fi_av_open(link->fabric->domain, &attr, &link->av, NULL);
    if (error == 0) {
        error = fi_endpoint(link->fabric->domain, link->fabric->info, &link->ep, NULL);
    }
    if (error == 0) error = fi_ep_bind(link->ep, &link->cq->fid, FI_TRANSMIT | FI_RECV);
    if (error == 0) error = fi_ep_bind(link->ep, &link->av->fid, 0);
    return error == 0 ? fi_enable(link->ep) : error;
}

enum status fabric_link_open(struct fabric *fabric, struct fabric_link **out)
{
    struct fabric_link *link = calloc(1, sizeof(*link));

    if (link == NULL) return STATUS_NO_MEMORY;
    link->fabric = fabric;
    fabric->links++;
    const int error = endpoint_open(link);
    if (error == 0) {
        *out = link;
        return STATUS_OK;
    }
    LOG_WARN("transfer", "fabric_link", "provider=%s reason=%s", fabric->provider,
             fabric->ofi.strerror(-error));
    fabric_link_close(link);
    return error == -FI_ENOMEM ? STATUS_NO_MEMORY : STATUS_UNAVAILABLE;
}

static void memory_close_all(struct fabric_link *link)
{
    while (link->memory != NULL) {
        struct fabric_memory *memory = link->memory;
        link->memory = memory->next;
        fid_close(&memory->mr->fid);
        free(memory);
    }
}

/* The endpoint first: from then on nothing lands. Where memory is bound to it, memory first, which
 * such providers allow. */
void fabric_link_close(struct fabric_link *link)
{
    if (link == NULL) return;
    const bool bound = (link->fabric->info->domain_attr->mr_mode & FI_MR_ENDPOINT) != 0;
    if (bound) memory_close_all(link);
    if (link->ep != NULL) fid_close(&link->ep->fid);
    memory_close_all(link);
    if (link->av != NULL) fid_close(&link->av->fid);
    if (link->cq != NULL) fid_close(&link->cq->fid);
    ASSERT(link->fabric->links > 0);
    link->fabric->links--;
    free(link);
}

const char *fabric_link_provider(const struct fabric_link *link)
{
    return link->fabric->provider;
}

size_t fabric_link_address(const struct fabric_link *link, uint8_t out[FABRIC_ADDRESS_SIZE])
{
    size_t len = FABRIC_ADDRESS_SIZE;
    return fi_getname(&link->ep->fid, out, &len) == 0 && len <= FABRIC_ADDRESS_SIZE ? len : 0;
}

/* Of the kind that our own is: libfabric believes what an address says of itself. */
static bool looks_like_ours(const struct fabric_link *link, const uint8_t *address, size_t len)
{
    uint8_t ours[FABRIC_ADDRESS_SIZE];
    const size_t ours_len = fabric_link_address(link, ours);

    if (len == 0 || len > FABRIC_ADDRESS_SIZE || ours_len < 2) return false;
    if (!knows_hosts(link->fabric->info)) return memchr(address, 0, len) != NULL;
    return len == ours_len && memcmp(address, ours, 2) == 0; /* the family of a sockaddr */
}

/* libfabric takes addresses without their length, and reads as much as it believes in. */
enum status fabric_link_connect(struct fabric_link *link, const uint8_t *address, size_t len)
{
    uint8_t padded[2 * FABRIC_ADDRESS_SIZE] = { 0 };

    ASSERT(!link->connected);
    if (!looks_like_ours(link, address, len)) return STATUS_INVALID;
    memcpy(padded, address, len);
    if (fi_av_insert(link->av, padded, 1, &link->peer, 0, NULL) != 1) return STATUS_INVALID;
    link->connected = true;
    return STATUS_OK;
}

int fabric_link_fd(const struct fabric_link *link)
{
    return link->fd;
}

bool fabric_link_quiet(struct fabric_link *link)
{
    struct fid *fids[] = { &link->cq->fid };

    if (link->fd < 0) return false;
    return fi_trywait(link->fabric->fabric, fids, 1) == FI_SUCCESS;
}

/* ---- memory ---- */

static uint64_t access_bits(unsigned access)
{
    uint64_t bits = 0;

    if ((access & FABRIC_LOCAL) != 0) bits |= FI_READ | FI_WRITE;
    if ((access & FABRIC_REMOTE_READ) != 0) bits |= FI_REMOTE_READ;
    if ((access & FABRIC_REMOTE_WRITE) != 0) bits |= FI_REMOTE_WRITE;
    return bits;
}

enum status fabric_memory_open(struct fabric_link *link, void *address, size_t length,
                               unsigned access, uint64_t key, struct fabric_memory **out)
{
    const uint64_t mode = (uint64_t)link->fabric->info->domain_attr->mr_mode;
    const size_t key_size = link->fabric->info->domain_attr->mr_key_size;
    struct fabric_memory *memory = calloc(1, sizeof(*memory));

    if (memory == NULL) return STATUS_NO_MEMORY;
    if (key_size < sizeof(key)) key &= (UINT64_C(1) << 8 * key_size) - 1;
    int error = fi_mr_reg(link->fabric->domain, address, length, access_bits(access), 0, key, 0,
                          &memory->mr, NULL);
    if (error == 0 && (mode & FI_MR_ENDPOINT) != 0) {
        error = fi_mr_bind(memory->mr, &link->ep->fid, 0);
        if (error == 0) error = fi_mr_enable(memory->mr);
        if (error != 0) fid_close(&memory->mr->fid);
    }
    if (error != 0) {
        free(memory);
        if (error == -FI_ENOKEY) return STATUS_EXISTS;
        return error == -FI_ENOMEM ? STATUS_NO_MEMORY : STATUS_IO;
    }
    memory->base = (mode & FI_MR_VIRT_ADDR) != 0 ? (uintptr_t)address : 0;
    memory->next = link->memory;
    link->memory = memory;
    *out = memory;
    return STATUS_OK;
}

void fabric_memory_close(struct fabric_link *link, struct fabric_memory *memory)
{
    struct fabric_memory **at = &link->memory;

    while (*at != memory)
        at = &(*at)->next;
    *at = memory->next;
    fid_close(&memory->mr->fid);
    free(memory);
}

uint64_t fabric_memory_key(const struct fabric_memory *memory)
{
    return fi_mr_key(memory->mr);
}

uint64_t fabric_memory_base(const struct fabric_memory *memory)
{
    return memory->base;
}

/* ---- moving ---- */

enum status fabric_post(struct fabric_link *link, const struct fabric_request *request)
{
    ssize_t error;

    ASSERT(link->connected);
    if (request->op == FABRIC_READ) {
        error = fi_read(link->ep, request->local, request->length, fi_mr_desc(request->memory->mr),
                        link->peer, request->remote, request->key, request->ctx);
    } else {
        error = fi_write(link->ep, request->local, request->length, fi_mr_desc(request->memory->mr),
                         link->peer, request->remote, request->key, request->ctx);
    }
    if (error == 0) return STATUS_OK;
    return error == -FI_EAGAIN ? STATUS_AGAIN : STATUS_CONN_CLOSED;
}

static enum status status_of(int error)
{
    switch (error) {
    case FI_ECANCELED: return STATUS_CANCELLED;
    case FI_EACCES:
    case FI_EPERM:
    case FI_EKEYREJECTED: return STATUS_DENIED;
    default: return STATUS_CONN_CLOSED;
    }
}

/* 1, 0 or -1. */
static int take_error(struct fabric_link *link, struct fabric_done *out)
{
    struct fi_cq_err_entry entry = { 0 };
    const ssize_t n = fi_cq_readerr(link->cq, &entry, 0);

    if (n == -FI_EAGAIN) return 0;
    if (n != 1) return -1;
    if (entry.op_context == NULL) return 0; /* of nothing that we asked for */
    *out = (struct fabric_done){ entry.op_context, status_of(entry.err) };
    return 1;
}

int fabric_link_poll(struct fabric_link *link, struct fabric_done *out, int max, int timeout_ms)
{
    struct fi_cq_entry entries[POLL_MAX];
    const size_t count = max < POLL_MAX ? (size_t)max : POLL_MAX;
    ssize_t n;

    ASSERT(max > 0);
    if (timeout_ms > 0 && link->fd >= 0) {
        n = fi_cq_sread(link->cq, entries, count, NULL, timeout_ms);
    } else {
        n = fi_cq_read(link->cq, entries, count);
    }
    if (n == -FI_EAVAIL) return take_error(link, out);
    if (n == -FI_EAGAIN || n == -FI_EINTR) return 0;
    if (n < 0) return -1;
    for (ssize_t i = 0; i < n; i++)
        out[i] = (struct fabric_done){ entries[i].op_context, STATUS_OK };
    return (int)n;
}
