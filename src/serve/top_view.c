/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/top_view.c - the look of serve/top.h.
 *
 * A line is put together as text with marks for colours, and cut at the width by counting columns:
 * marks take none, and every other character of ours takes one. */
#include "serve/top.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/env.h"
#include "serve/api_json.h"

enum {
    LINE_SIZE = 1024,
    NUMBER_SIZE = 24,
    LABEL_WIDTH = 11,
    BAR_WIDTH_MIN = 4,
    BAR_WIDTH_MAX = 32,
    NAME_WIDTH_MAX = 32
};

static const char BOLD[] = "\x1b[1m", DIM[] = "\x1b[2m", RED[] = "\x1b[31m", GREEN[] = "\x1b[32m",
                  YELLOW[] = "\x1b[33m", CYAN[] = "\x1b[36m", PLAIN[] = "\x1b[0m";

struct line {
    const struct top_screen *screen;
    struct buf *out;
    uint32_t columns;
    enum status status;
};

static const char *paint(const struct top_screen *screen, const char *colour)
{
    return screen->colour ? colour : "";
}

/* ---- lines ---- */

static void mark(struct line *line, const char *colour)
{
    if (line->status == STATUS_OK)
        line->status = buf_append_text(line->out, paint(line->screen, colour));
}

/* Adds what fits. */
static void put(struct line *line, const char *text)
{
    for (const char *at = text; *at != '\0' && line->status == STATUS_OK;) {
        size_t len = 1;
        while (((unsigned char)at[len] & 0xc0) == 0x80)
            len++;
        if (line->columns == line->screen->width) return;
        line->status = buf_append(line->out, at, len);
        line->columns++;
        at += len;
    }
}

static void putf(struct line *line, const char *fmt, ...) PRINTF_LIKE(2, 3);
static void putf(struct line *line, const char *fmt, ...)
{
    char text[LINE_SIZE];
    va_list args;

    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    put(line, text);
}

static void put_in(struct line *line, const char *colour, const char *text)
{
    mark(line, colour);
    put(line, text);
    mark(line, PLAIN);
}

static void pad_to(struct line *line, uint32_t column)
{
    while (line->columns < column && line->columns < line->screen->width)
        put(line, " ");
}

static void end(struct line *line)
{
    if (line->status == STATUS_OK) line->status = buf_append_text(line->out, "\n");
    line->columns = 0;
}

static void label(struct line *line, const char *text)
{
    put_in(line, BOLD, text);
    pad_to(line, LABEL_WIDTH);
}

/* ---- numbers ---- */

/* At most five columns. */
static const char *short_number(double value, char out[NUMBER_SIZE])
{
    if (value < 0.05) {
        snprintf(out, NUMBER_SIZE, "0");
    } else if (value < 9.95) {
        snprintf(out, NUMBER_SIZE, "%.1f", value);
    } else if (value < 99999.5) {
        snprintf(out, NUMBER_SIZE, "%.0f", value);
    } else if (value < 9999500) {
        snprintf(out, NUMBER_SIZE, "%.0fk", value / 1e3);
    } else {
        snprintf(out, NUMBER_SIZE, "%.0fM", fmin(value / 1e6, 9999));
    }
    return out;
}

/* Of things that are whole: likewise. */
static const char *count_of(double value, char out[NUMBER_SIZE])
{
    if (value >= 99999.5) return short_number(value, out);
    snprintf(out, NUMBER_SIZE, "%.0f", value);
    return out;
}

/* At most seven. */
static const char *duration(double seconds, char out[NUMBER_SIZE])
{
    if (seconds < 0) {
        snprintf(out, NUMBER_SIZE, "-");
    } else if (seconds < 0.00995) {
        snprintf(out, NUMBER_SIZE, "%.1f ms", seconds * 1e3);
    } else if (seconds < 0.9995) {
        snprintf(out, NUMBER_SIZE, "%.0f ms", seconds * 1e3);
    } else if (seconds < 99.95) {
        snprintf(out, NUMBER_SIZE, "%.1f s", seconds);
    } else {
        snprintf(out, NUMBER_SIZE, "%.0f s", fmin(seconds, 99999));
    }
    return out;
}

/* Of a look: how much more of something there is than then, a second. */
static double rate(const struct top_screen *screen, double then, double now)
{
    const uint64_t from = screen->then->at_ns, to = screen->now->at_ns;

    if (from == 0 || to <= from || now <= then) return 0;
    return (now - then) / ((double)(to - from) / (double)ENV_NS_PER_S);
}

#define RATE(screen, field) rate(screen, (screen)->then->field, (screen)->now->field)

/* A gateway that has started again counts from 0. */
static double more(double then, double now)
{
    return now >= then ? now - then : now;
}

#define MORE(screen, field) more((screen)->then->field, (screen)->now->field)

static double share(double part, double all)
{
    return all > 0 ? fmin(part / all, 1) : 0;
}

/* ---- bars ---- */

static const char *level_colour(double level)
{
    return level < 0.7 ? GREEN : level < 0.9 ? YELLOW : RED;
}

static void put_bar(struct line *line, double level, uint32_t width)
{
    static const char *const PARTS[] = { " ", "▏", "▎", "▍", "▌", "▋", "▊", "▉", "█" };
    const uint32_t eighths = (uint32_t)(level * width * 8 + 0.5);

    mark(line, level_colour(level));
    for (uint32_t i = 0; i < width; i++) {
        const uint32_t left = eighths > i * 8 ? eighths - i * 8 : 0;
        if (left == 0) mark(line, DIM);
        put(line, left == 0 ? "·" : PARTS[left < 8 ? left : 8]);
    }
    mark(line, PLAIN);
}

static void put_trend(struct line *line)
{
    static const char *const BARS[] = { "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█" };
    const struct top_screen *screen = line->screen;
    const uint32_t room = screen->width > line->columns ? screen->width - line->columns : 0;
    const uint32_t count = screen->trend_count < room ? screen->trend_count : room;
    const double *values = screen->trend + (screen->trend_count - count);
    double most = 0;

    for (uint32_t i = 0; i < count; i++)
        most = fmax(most, values[i]);
    mark(line, CYAN);
    for (uint32_t i = 0; i < count; i++)
        put(line, BARS[most > 0 ? (int)(values[i] / most * 7 + 0.5) : 0]);
    mark(line, PLAIN);
}

/* ---- the parts ---- */

static void draw_head(struct line *line)
{
    const struct top_screen *screen = line->screen;
    const struct top_look *now = screen->now;
    const uint32_t nodes = now->nodes_count + now->nodes_more;
    char count[64];

    put_in(line, BOLD, "yolk");
    putf(line, "  %s  ", now->model);
    put_in(line, DIM, screen->url);
    const int len = snprintf(count, sizeof(count), "%u of %u nodes up", now->nodes_up, nodes);
    if (line->columns + (uint32_t)len + 2 <= screen->width)
        pad_to(line, screen->width - (uint32_t)len);
    else
        put(line, "  ");
    put_in(line, now->nodes_up == nodes && nodes > 0 ? GREEN : YELLOW, count);
    end(line);
    end(line);
}

static void put_bad(struct line *line, double value, const char *what)
{
    char text[NUMBER_SIZE];

    if (value > 0) mark(line, RED);
    putf(line, " %5s/s %s", short_number(value, text), what);
    mark(line, PLAIN);
}

static void draw_requests(struct line *line)
{
    const struct top_screen *screen = line->screen;
    char a[NUMBER_SIZE], b[NUMBER_SIZE], c[NUMBER_SIZE];

    label(line, "requests");
    putf(line, "%4s running %4s waiting %5s/s done", count_of(screen->now->running, a),
         count_of(screen->now->waiting, b), short_number(RATE(screen, answered), c));
    put_bad(line, RATE(screen, refused) + RATE(screen, limited), "refused");
    put_bad(line, RATE(screen, failed), "failed");
    end(line);
}

static void draw_tokens(struct line *line)
{
    const struct top_screen *screen = line->screen;
    char a[NUMBER_SIZE], b[NUMBER_SIZE];

    label(line, "tokens");
    putf(line, "%5s/s in    %5s/s out", short_number(RATE(screen, prompt_tokens), a),
         short_number(RATE(screen, answer_tokens), b));
    if (screen->colour) {
        put(line, "   ");
        put_trend(line);
    }
    end(line);
}

static void draw_latency(struct line *line, const char *name, const struct top_histogram *then,
                         const struct top_histogram *now, double limit)
{
    static const double SHARES[] = { 0.5, 0.9, 0.99 };
    char text[NUMBER_SIZE];

    label(line, name);
    for (int i = 0; i < 3; i++) {
        const double value = top_quantile(then, now, SHARES[i]);
        putf(line, "%sp%-2.0f ", i > 0 ? "   " : "", SHARES[i] * 100);
        if (limit > 0 && value > limit) mark(line, RED);
        putf(line, "%7s", duration(value, text));
        mark(line, PLAIN);
    }
    if (limit > 0) {
        mark(line, DIM);
        putf(line, "   limit %s", duration(limit, text));
        mark(line, PLAIN);
    }
    end(line);
}

static void draw_cache(struct line *line)
{
    const struct top_screen *screen = line->screen;
    const double local = MORE(screen, local), remote = MORE(screen, remote);
    const double disk = MORE(screen, disk), all = local + remote + disk + MORE(screen, computed);

    label(line, "cache");
    if (!(all > 0)) {
        put(line, "no prompt yet");
        end(line);
        return;
    }
    mark(line, GREEN);
    putf(line, "%4.0f%% hit", share(local + remote + disk, all) * 100);
    mark(line, PLAIN);
    putf(line, "   memory %.0f%%   other nodes %.0f%%   disk %.0f%%", share(local, all) * 100,
         share(remote, all) * 100, share(disk, all) * 100);
    end(line);
}

static void draw_pages(struct line *line)
{
    const struct top_screen *screen = line->screen;
    const double used = share(screen->now->pages_used, screen->now->pages_total);
    char a[NUMBER_SIZE], b[NUMBER_SIZE];

    label(line, "KV pages");
    putf(line, "%4.0f%% ", used * 100);
    if (screen->colour) put_bar(line, used, screen->width >= 100 ? BAR_WIDTH_MAX : 20);
    putf(line, "  %s of %s in use", count_of(screen->now->pages_used, a),
         count_of(screen->now->pages_total, b));
    end(line);
}

/* ---- nodes ---- */

static uint32_t name_width(const struct top_look *look)
{
    size_t width = 4;

    for (uint32_t i = 0; i < look->nodes_count; i++) {
        const size_t len = strlen(look->nodes[i].name);
        if (len > width) width = len;
    }
    return (uint32_t)(width < NAME_WIDTH_MAX ? width : NAME_WIDTH_MAX);
}

static const char *state_of(const struct top_node *node)
{
    if (node->leaving) return "leaving";
    if (node->draining) return "draining";
    return node->works ? "up" : node->state[0] != '\0' ? node->state : "down";
}

static uint32_t pages_in_use(const struct top_node *node)
{
    const uint64_t rest = (uint64_t)node->pages_free + node->pages_cached;
    return node->pages_total > rest ? node->pages_total - (uint32_t)rest : 0;
}

static void draw_node(struct line *line, const struct top_node *node, uint32_t names)
{
    const uint32_t used = pages_in_use(node);

    putf(line, "%-*.*s  %-8.8s", (int)names, (int)names, node->name, node->role);
    mark(line, node->works && !node->leaving ? GREEN : YELLOW);
    putf(line, " %-9.9s", state_of(node));
    mark(line, PLAIN);
    putf(line, "%5u %5u %5u", node->queued, node->decoding, node->at_door);
    putf(line, " %7u %7u %7u", used, node->pages_cached, node->pages_total);
    if (line->screen->colour && line->screen->width >= line->columns + BAR_WIDTH_MIN + 2) {
        const uint32_t room = line->screen->width - line->columns - 2;
        put(line, "  ");
        put_bar(line, share(used, node->pages_total), room < BAR_WIDTH_MAX ? room : BAR_WIDTH_MAX);
    }
    end(line);
}

static void draw_nodes(struct line *line)
{
    const struct top_look *now = line->screen->now;
    const uint32_t names = name_width(now);

    end(line);
    mark(line, DIM);
    putf(line, "%-*s  %-8s %-9s%5s %5s %5s %7s %7s %7s", (int)names, "NODE", "ROLE", "STATE",
         "QUEUE", "BATCH", "DOOR", "KV USED", "CACHED", "OF");
    mark(line, PLAIN);
    end(line);
    for (uint32_t i = 0; i < now->nodes_count; i++)
        draw_node(line, &now->nodes[i], names);
    if (now->nodes_more == 0) return;
    putf(line, "and %u more", now->nodes_more);
    end(line);
}

enum status top_draw(const struct top_screen *screen, struct buf *out)
{
    const struct top_look *then = screen->then, *now = screen->now;
    struct line line = { .screen = screen, .out = out, .status = STATUS_OK };

    ASSERT(screen->width >= TOP_WIDTH_MIN && screen->trend_count <= TOP_TREND_MAX);
    draw_head(&line);
    draw_requests(&line);
    draw_tokens(&line);
    draw_latency(&line, "1st token", &then->ttft, &now->ttft, now->ttft_limit);
    draw_latency(&line, "next token", &then->tbt, &now->tbt, now->tbt_limit);
    draw_cache(&line);
    draw_pages(&line);
    draw_nodes(&line);
    return line.status;
}

/* ---- JSON ---- */

/* Each step runs only if those before it succeeded, and leaves its status in `status`. */
#define THEN(status, step)                                                                         \
    do {                                                                                           \
        if ((status) == STATUS_OK) (status) = (step);                                              \
    } while (0)

static enum status write_quantiles(struct buf *out, const char *name,
                                   const struct top_histogram *then,
                                   const struct top_histogram *now)
{
    static const double SHARES[] = { 0.5, 0.9, 0.99 };
    enum status status = buf_printf(out, ",\"%s\":{", name);

    for (int i = 0; i < 3; i++) {
        const double value = top_quantile(then, now, SHARES[i]);
        THEN(status, buf_printf(out, "%s\"p%.0f\":", i > 0 ? "," : "", SHARES[i] * 100));
        THEN(status, value < 0 ? buf_append_text(out, "null") : buf_printf(out, "%.6g", value));
    }
    THEN(status, buf_append_text(out, "}"));
    return status;
}

static enum status write_node(struct buf *out, const struct top_node *node)
{
    enum status status = buf_append_text(out, "{\"name\":");

    THEN(status, api_json_write_string(out, node->name, strlen(node->name)));
    THEN(status, buf_append_text(out, ",\"role\":"));
    THEN(status, api_json_write_string(out, node->role, strlen(node->role)));
    THEN(status, buf_append_text(out, ",\"state\":"));
    THEN(status, api_json_write_string(out, state_of(node), strlen(state_of(node))));
    THEN(status, buf_printf(out,
                            ",\"queued\":%u,\"running\":%u,\"batch\":%u,\"at_door\":%u,"
                            "\"pages\":{\"total\":%u,\"free\":%u,\"cached\":%u}}",
                            node->queued, node->running, node->decoding, node->at_door,
                            node->pages_total, node->pages_free, node->pages_cached));
    return status;
}

enum status top_write_json(const struct top_look *then, const struct top_look *now, struct buf *out)
{
    const struct top_screen both = { .then = then, .now = now };
    enum status status = buf_append_text(out, "{\"model\":");

    THEN(status, api_json_write_string(out, now->model, strlen(now->model)));
    THEN(status, buf_printf(out,
                            ",\"requests\":{\"running\":%.0f,\"waiting\":%.0f,\"done_per_s\":%.3f,"
                            "\"refused_per_s\":%.3f,\"failed_per_s\":%.3f}",
                            now->running, now->waiting, RATE(&both, answered),
                            RATE(&both, refused) + RATE(&both, limited), RATE(&both, failed)));
    THEN(status, buf_printf(out, ",\"tokens\":{\"in_per_s\":%.3f,\"out_per_s\":%.3f}",
                            RATE(&both, prompt_tokens), RATE(&both, answer_tokens)));
    THEN(status, write_quantiles(out, "ttft_s", &then->ttft, &now->ttft));
    THEN(status, write_quantiles(out, "tbt_s", &then->tbt, &now->tbt));
    THEN(status, buf_printf(out,
                            ",\"cache_tokens\":{\"local\":%.0f,\"remote\":%.0f,\"disk\":%.0f,"
                            "\"computed\":%.0f}",
                            MORE(&both, local), MORE(&both, remote), MORE(&both, disk),
                            MORE(&both, computed)));
    THEN(status, buf_printf(out, ",\"pages\":{\"total\":%.0f,\"used\":%.0f},\"nodes\":[",
                            now->pages_total, now->pages_used));
    for (uint32_t i = 0; i < now->nodes_count; i++) {
        if (i > 0) THEN(status, buf_append_text(out, ","));
        THEN(status, write_node(out, &now->nodes[i]));
    }
    THEN(status, buf_append_text(out, "]}\n"));
    return status;
}
