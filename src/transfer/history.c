/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/history.c - what became of tasks, for people and for dashboards.
 *
 * The last YOLK_TRANSFER_HISTORY_MAX tasks that ended are kept as they would have been explained
 * then. Text is written into the caller's memory and cut where that ends. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "transfer/transfer_int.h"

static bool ended(const struct task *task)
{
    return task->state >= YOLK_TRANSFER_INVALID;
}

void history_describe(const struct yolk_transfer *transfer, const struct task *task,
                      struct yolk_transfer_explain *out)
{
    const uint64_t now = ended(task) ? task->ended_ns : env_now_ns(transfer->env);
    const uint64_t began = task->started_ns != 0 ? task->started_ns : now;

    /* Field by field, and of the name only what there is: this is done for every task. */
    out->id = task->id;
    out->opcode = task->req.opcode;
    out->class = task->req.class;
    out->state = task->state;
    out->reason = ended(task) ? task->ending : STATUS_PENDING;
    out->path = task->path;
    out->attempt = task->req.attempt;
    out->length = task->req.length;
    out->bytes = task->bytes;
    out->wait_us = (began - task->submitted_ns) / ENV_NS_PER_US;
    out->run_us = (now - began) / ENV_NS_PER_US;
    out->predicted_us = task->predicted_us;
    out->direct_bytes = task->direct_bytes;
    out->staged_bytes = task->staged_bytes;
    out->slices = task->slices;
    out->retries = task->retries;
    memcpy(out->rail_bytes, task->rail_bytes, sizeof(out->rail_bytes));
    out->peer[0] = '\0';
    if (task->peer != NULL) memcpy(out->peer, task->peer->name, strlen(task->peer->name) + 1);
    if (task->file != NULL) snprintf(out->peer, sizeof(out->peer), "%s", file_name(task->file));
}

void history_add(struct yolk_transfer *transfer, const struct task *task)
{
    if (transfer->history == NULL) {
        transfer->history = calloc(YOLK_TRANSFER_HISTORY_MAX, sizeof(*transfer->history));
        if (transfer->history == NULL) return;
    }
    history_describe(transfer, task,
                     &transfer->history[transfer->history_count++ % YOLK_TRANSFER_HISTORY_MAX]);
}

enum status yolk_transfer_explain_last(const struct yolk_transfer *transfer, uint32_t index,
                                       struct yolk_transfer_explain *out)
{
    if (transfer == NULL || out == NULL) return STATUS_INVALID;
    if (index >= YOLK_TRANSFER_HISTORY_MAX || index >= transfer->history_count) {
        return STATUS_NOT_FOUND;
    }
    *out = transfer->history[(transfer->history_count - 1 - index) % YOLK_TRANSFER_HISTORY_MAX];
    return STATUS_OK;
}

enum status yolk_transfer_explain_id(const struct yolk_transfer *transfer, uint64_t id,
                                     struct yolk_transfer_explain *out)
{
    struct yolk_transfer_explain one;

    if (transfer == NULL || out == NULL) return STATUS_INVALID;
    for (uint32_t i = 0; yolk_transfer_explain_last(transfer, i, &one) == STATUS_OK; i++) {
        if (one.id != id) continue;
        *out = one;
        return STATUS_OK;
    }
    return STATUS_NOT_FOUND;
}

/* ---- text ---- */

struct text {
    char *out;
    size_t size, len;
};

__attribute__((format(printf, 2, 3))) static void add(struct text *text, const char *format, ...)
{
    va_list args;

    if (text->len + 1 >= text->size) return;
    va_start(args, format);
    const int len = vsnprintf(text->out + text->len, text->size - text->len, format, args);
    va_end(args);
    ASSERT(len >= 0);
    text->len += (size_t)len;
    if (text->len >= text->size) text->len = text->size - 1;
}

static struct text text_begin(char *out, size_t size)
{
    if (size > 0) out[0] = '\0';
    return (struct text){ .out = out, .size = size };
}

static const char *class_name(enum yolk_transfer_class class)
{
    static const char *const names[] = { "decode", "load", "background" };
    return (unsigned)class < YOLK_TRANSFER_CLASSES ? names[class] : "unknown";
}

static void add_rails(struct text *text, const struct yolk_transfer *transfer,
                      const struct yolk_transfer_explain *explain)
{
    struct yolk_transfer_rail rails[YOLK_TRANSFER_RAILS_MAX + 1];
    uint32_t count = 0;

    for (uint32_t i = 0; i < transfer->peer_count; i++) {
        const struct peer *peer = transfer->peers[i];
        if (strcmp(peer->name, explain->peer) == 0) count = peer_rails_describe(peer, rails);
    }
    for (uint32_t i = 0; i <= YOLK_TRANSFER_RAILS_MAX; i++) {
        if (explain->rail_bytes[i] == 0) continue;
        add(text, "  rail %s -> %s: %llu bytes\n",
            i >= count || rails[i].local[0] == '\0' ? "(any)" : rails[i].local,
            i < count ? rails[i].remote : "(gone)", (unsigned long long)explain->rail_bytes[i]);
    }
}

size_t yolk_transfer_explain_text(const struct yolk_transfer *transfer,
                                  const struct yolk_transfer_explain *explain, char *out,
                                  size_t size)
{
    struct text text = text_begin(out, size);
    const uint64_t took_us = explain->wait_us + explain->run_us;

    add(&text, "transfer %llu: %s, %s, %s over %s, peer %s\n", (unsigned long long)explain->id,
        explain->opcode == YOLK_TRANSFER_READ ? "read" : "write", class_name(explain->class),
        yolk_transfer_state_name(explain->state), yolk_transfer_path_name(explain->path),
        explain->peer[0] != '\0' ? explain->peer : "(none)");
    if (explain->attempt != 0) {
        add(&text, "  attempt %llu of its caller\n", (unsigned long long)explain->attempt);
    }
    if (explain->reason != STATUS_OK) add(&text, "  because: %s\n", status_name(explain->reason));
    add(&text, "  %llu of %llu bytes in %u slices, %u of them again\n",
        (unsigned long long)explain->bytes, (unsigned long long)explain->length, explain->slices,
        explain->retries);
    if (explain->path == YOLK_TRANSFER_PATH_FILE) {
        add(&text, "  %llu bytes past the page cache\n", (unsigned long long)explain->direct_bytes);
    }
    if (explain->staged_bytes > 0) {
        add(&text, "  %llu bytes through pinned memory\n",
            (unsigned long long)explain->staged_bytes);
    }
    add(&text, "  waited %llu us, ran %llu us", (unsigned long long)explain->wait_us,
        (unsigned long long)explain->run_us);
    if (took_us > 0) add(&text, ", %.1f MB/s", (double)explain->bytes / (double)took_us);
    if (explain->predicted_us != 0) {
        add(&text, "; predicted %llu us", (unsigned long long)explain->predicted_us);
    }
    add(&text, "\n");
    if (transfer != NULL) add_rails(&text, transfer, explain);
    return text.len;
}

/* ---- metrics ---- */

static void add_counter(struct text *text, const char *name, const char *help, uint64_t value)
{
    add(text,
        "# HELP yolk_transfer_%s %s\n# TYPE yolk_transfer_%s counter\nyolk_transfer_%s %llu\n",
        name, help, name, name, (unsigned long long)value);
}

static void add_paths(struct text *text, const struct yolk_transfer_stats *stats)
{
    add(text, "# HELP yolk_transfer_bytes_total Bytes moved as initiator.\n"
              "# TYPE yolk_transfer_bytes_total counter\n");
    for (int path = YOLK_TRANSFER_PATH_LOCAL; path < YOLK_TRANSFER_PATHS; path++) {
        const char *name = yolk_transfer_path_name((enum yolk_transfer_path)path);
        add(text,
            "yolk_transfer_bytes_total{path=\"%s\",direction=\"read\"} %llu\n"
            "yolk_transfer_bytes_total{path=\"%s\",direction=\"write\"} %llu\n",
            name, (unsigned long long)stats->bytes_read[path], name,
            (unsigned long long)stats->bytes_sent[path]);
    }
    add(text, "# HELP yolk_transfer_tasks_total Tasks that ended, by how.\n"
              "# TYPE yolk_transfer_tasks_total counter\n");
    for (int state = YOLK_TRANSFER_INVALID; state <= YOLK_TRANSFER_FAILED; state++) {
        add(text, "yolk_transfer_tasks_total{state=\"%s\"} %llu\n",
            yolk_transfer_state_name((enum yolk_transfer_state)state),
            (unsigned long long)stats->tasks[state]);
    }
}

/* One number of every rail of every peer. */
static void add_rail_metric(struct text *text, const struct yolk_transfer *transfer,
                            const char *name, const char *type, const char *help,
                            uint64_t (*value)(const struct yolk_transfer_rail *))
{
    struct yolk_transfer_rail rails[YOLK_TRANSFER_RAILS_MAX + 1];

    add(text, "# HELP yolk_transfer_rail_%s %s\n# TYPE yolk_transfer_rail_%s %s\n", name, help,
        name, type);
    for (uint32_t i = 0; i < transfer->peer_count; i++) {
        const uint32_t count = peer_rails_describe(transfer->peers[i], rails);
        for (uint32_t j = 0; j < count; j++) {
            if (rails[j].state == NULL) continue;
            add(text, "yolk_transfer_rail_%s{peer=\"%s\",local=\"%s\",remote=\"%s\"} %llu\n", name,
                rails[j].peer, rails[j].local, rails[j].remote,
                (unsigned long long)value(&rails[j]));
        }
    }
}

static uint64_t rail_is_up(const struct yolk_transfer_rail *rail)
{
    return strcmp(rail->state, "up") == 0;
}

static uint64_t rail_moved(const struct yolk_transfer_rail *rail)
{
    return rail->bytes;
}

static uint64_t rail_rate(const struct yolk_transfer_rail *rail)
{
    return rail->rate;
}

static uint64_t rail_inflight(const struct yolk_transfer_rail *rail)
{
    return rail->inflight;
}

static uint64_t rail_pauses(const struct yolk_transfer_rail *rail)
{
    return rail->pauses;
}

static void add_names(struct text *text, const struct yolk_transfer *transfer)
{
    if (transfer->metadata == NULL) return;
    const struct metadata_counts *counts = metadata_counts(transfer->metadata);
    add(text,
        "# HELP yolk_transfer_published 1 while peers find us by name.\n"
        "# TYPE yolk_transfer_published gauge\nyolk_transfer_published %d\n",
        metadata_state(transfer->metadata) == STATUS_OK);
    add_counter(text, "name_lookups_total", "Names of peers looked up.", counts->lookups);
    add_counter(text, "name_lookup_failures_total", "Of them, without an answer.",
                counts->lookup_failures);
    add_counter(text, "name_renewals_total", "Times our name was published.", counts->renewals);
    add_counter(text, "name_renewal_failures_total", "Times it could not be.",
                counts->renewal_failures);
    add_counter(text, "names_lost_total", "Times another engine took our name.",
                counts->names_lost);
}

size_t yolk_transfer_metrics_text(const struct yolk_transfer *transfer, char *out, size_t size)
{
    struct text text = text_begin(out, size);
    struct yolk_transfer_stats stats;

    if (transfer == NULL) return 0;
    yolk_transfer_stats(transfer, &stats);
    add_paths(&text, &stats);
    add_counter(&text, "served_bytes_total", "Bytes moved as target.", stats.bytes_served);
    add_counter(&text, "refused_total", "Requests of peers answered with an error.", stats.refused);
    add_counter(&text, "retries_total", "Slices sent again.", stats.retries);
    add_counter(&text, "fences_total", "Connections that a target closed at our demand.",
                stats.fences);
    add_counter(&text, "rail_pauses_total", "Rails that fell silent while others spoke.",
                stats.rail_pauses);
    add_counter(&text, "device_errors_total", "Copies from or to a CUDA device that failed.",
                stats.device_errors);
    add_counter(&text, "protocol_errors_total", "Connections dropped for what the peer sent.",
                stats.protocol_errors);
    add_counter(&text, "seal_failures_total",
                "Encrypted connections dropped: something was not what the peer had sent.",
                stats.seal_failures);
    add_counter(&text, "evictions_total", "Idle connections closed to make room.", stats.evictions);
    add(&text,
        "# HELP yolk_transfer_connections Connections now, in both directions.\n"
        "# TYPE yolk_transfer_connections gauge\nyolk_transfer_connections %llu\n",
        (unsigned long long)stats.lanes_open);
    add(&text,
        "# HELP yolk_transfer_connections_encrypted Those of them that are encrypted.\n"
        "# TYPE yolk_transfer_connections_encrypted gauge\n"
        "yolk_transfer_connections_encrypted %llu\n",
        (unsigned long long)stats.lanes_sealed);
    add_names(&text, transfer);
    add_rail_metric(&text, transfer, "up", "gauge", "1 while the rail is used.", rail_is_up);
    add_rail_metric(&text, transfer, "bytes_total", "counter", "Bytes acknowledged.", rail_moved);
    add_rail_metric(&text, transfer, "rate_bytes", "gauge", "Bytes per second it can do.",
                    rail_rate);
    add_rail_metric(&text, transfer, "inflight_bytes", "gauge", "Bytes under way.", rail_inflight);
    add_rail_metric(&text, transfer, "pauses_total", "counter", "Times it failed.", rail_pauses);
    return text.len;
}
