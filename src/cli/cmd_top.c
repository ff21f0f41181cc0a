/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/cmd_top.c - `yolk top`: a cluster at a glance, once a second. Reads a gateway's /metrics and
 * /debug/nodes (serve/top.h) and prints.
 *
 * In a terminal it goes on until it is interrupted, and what it says of latencies and the cache is
 * of the last minute; rates are of the last WINDOW_RATE looks. In a pipe, and with --json, it looks
 * twice, a second apart: rates are of that second, the rest is since the gateway's start. A gateway
 * that does not answer is waited for in a terminal, once it has answered. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/env.h"
#include "cli/cli.h"
#include "cli/replay.h"
#include "net/http_client.h"
#include "serve/top.h"

#define TIMEOUT_NS (5 * ENV_NS_PER_S)

enum {
    LOOKS = 61, /* a minute */
    WINDOW_RATE = 3,
    WIDTH_DEFAULT = 80,
    WIDTH_MAX = 200,
    PAGE_SIZE_MAX = 16 << 20,
    ADDRESS_SIZE = 256,
};

struct top {
    struct cli *cli;
    char address[ADDRESS_SIZE];
    struct top_look *looks; /* LOOKS of them, look number i at i % LOOKS */
    uint32_t count;         /* of looks taken */
    bool live;
    bool over; /* what is waited for */
};

/* ---- pages ---- */

struct page {
    struct top *top;
    struct buf body;
    struct http_reply reply;
};

static void on_data(void *ctx, const char *data, size_t len)
{
    struct page *page = ctx;
    (void)!buf_append(&page->body, data, len); /* a page that is too long does not parse */
}

static void on_done(void *ctx, const struct http_reply *reply)
{
    struct page *page = ctx;
    page->reply = *reply;
    page->top->over = true;
}

static void wait_over(struct top *top)
{
    while (!top->over)
        env_poll(top->cli->env, ENV_NS_PER_S);
}

/* The caller ends page->body. */
static enum status fetch(struct top *top, const char *path, struct page *page, struct errmsg *err)
{
    const struct http_client_options options = {
        .address = top->address,
        .method = "GET",
        .path = path,
        .deadline_ns = env_now_ns(top->cli->env) + TIMEOUT_NS,
        .on_data = on_data,
        .on_done = on_done,
        .ctx = page,
    };
    struct http_client *client = NULL;

    *page = (struct page){ .top = top };
    buf_init(&page->body, PAGE_SIZE_MAX);
    top->over = false;
    enum status status = http_client_start(top->cli->env, &options, &client, err);
    if (status != STATUS_OK) return status;
    wait_over(top);
    status = page->reply.status;
    if (status != STATUS_OK)
        return errmsg_set(err, status, "no gateway answers at %s (%s)", top->address,
                          status_name(status));
    if (page->reply.code == 200) return STATUS_OK;
    return errmsg_set(err, STATUS_PROTOCOL, "%s%s answered %d", top->address, path,
                      page->reply.code);
}

static enum status look(struct top *top, struct errmsg *err)
{
    struct top_look *out = &top->looks[top->count % LOOKS];
    struct page metrics, nodes;

    *out = (struct top_look){ .at_ns = env_now_ns(top->cli->env) };
    enum status status = fetch(top, "/metrics", &metrics, err);
    if (status == STATUS_OK)
        status = top_read_metrics((const char *)buf_data(&metrics.body), metrics.body.len, out);
    if (status == STATUS_INVALID)
        status = errmsg_set(err, status, "%s is no gateway of Yolk", top->address);
    buf_fini(&metrics.body);
    if (status != STATUS_OK) return status;
    status = fetch(top, "/debug/nodes", &nodes, err);
    if (status == STATUS_OK)
        status = top_read_nodes((const char *)buf_data(&nodes.body), nodes.body.len, out, err);
    buf_fini(&nodes.body);
    if (status == STATUS_OK) top->count++;
    return status;
}

/* The look `ago` before the latest, or the first there is. */
static const struct top_look *look_ago(const struct top *top, uint32_t ago)
{
    const uint32_t most = top->count < LOOKS ? top->count - 1 : LOOKS - 1;
    return &top->looks[(top->count - 1 - (ago < most ? ago : most)) % LOOKS];
}

/* Rates since one look, the rest since another. */
static struct top_look mixed(const struct top_look *rates, const struct top_look *rest)
{
    struct top_look mix = *rates;

    mix.ttft = rest->ttft;
    mix.tbt = rest->tbt;
    mix.local = rest->local;
    mix.remote = rest->remote;
    mix.disk = rest->disk;
    mix.computed = rest->computed;
    return mix;
}

/* ---- printing ---- */

static uint32_t width_of(const struct top *top)
{
    const char *columns = getenv("COLUMNS");
    struct winsize size = { 0 };
    unsigned long width = columns != NULL ? strtoul(columns, NULL, 10) : 0;

    if (top->live && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
        width = size.ws_col;
    if (width == 0) width = WIDTH_DEFAULT;
    if (width < TOP_WIDTH_MIN) width = TOP_WIDTH_MIN;
    return (uint32_t)(width < WIDTH_MAX ? width : WIDTH_MAX);
}

static double tokens_per_s(const struct top_look *then, const struct top_look *now)
{
    const double seconds = (double)(now->at_ns - then->at_ns) / (double)ENV_NS_PER_S;
    return seconds > 0 && now->answer_tokens > then->answer_tokens
               ? (now->answer_tokens - then->answer_tokens) / seconds
               : 0;
}

static void fill_trend(const struct top *top, struct top_screen *screen)
{
    const uint32_t looks = top->count < LOOKS ? top->count : LOOKS;

    for (uint32_t ago = looks - 1; ago > 0; ago--)
        screen->trend[screen->trend_count++] =
            tokens_per_s(look_ago(top, ago), look_ago(top, ago - 1));
}

/* Each line is cleared to its end, and the screen below the last one, so that nothing flickers. */
static void print_screen(const char *text, size_t len)
{
    fputs("\x1b[H", stdout);
    for (size_t at = 0; at < len;) {
        const char *end = memchr(text + at, '\n', len - at);
        const size_t size = end != NULL ? (size_t)(end - text) - at : len - at;
        fwrite(text + at, 1, size, stdout);
        fputs("\x1b[K\n", stdout);
        at += size + 1;
    }
    fputs("\x1b[J", stdout);
    fflush(stdout);
}

static void print_look(const struct top *top, bool json)
{
    static const struct top_look NOTHING = { .at_ns = 0 };
    const struct top_look *rates = look_ago(top, top->live ? WINDOW_RATE : 1);
    const struct top_look then = mixed(rates, top->live ? look_ago(top, LOOKS) : &NOTHING);
    const struct top_look *now = look_ago(top, 0);
    struct top_screen screen = { .url = top->address,
                                 .width = width_of(top),
                                 .colour = top->live && getenv("NO_COLOR") == NULL,
                                 .then = &then,
                                 .now = now };
    struct buf text;

    buf_init(&text, PAGE_SIZE_MAX);
    fill_trend(top, &screen);
    const enum status status = json ? top_write_json(&then, now, &text) : top_draw(&screen, &text);
    if (status == STATUS_OK && top->live) {
        print_screen((const char *)buf_data(&text), text.len);
    } else if (status == STATUS_OK) {
        fwrite(buf_data(&text), 1, text.len, stdout);
    }
    buf_fini(&text);
}

/* ---- the second between looks ---- */

static void on_second_over(void *ctx)
{
    struct top *top = ctx;
    top->over = true;
}

static void pause_a_second(struct top *top)
{
    struct env *env = top->cli->env;
    struct env_timer timer;

    env_timer_init(&timer, on_second_over, top);
    top->over = false;
    env_timer_set(env, &timer, env_now_ns(env) + ENV_NS_PER_S);
    wait_over(top);
}

static int run_live(struct top *top)
{
    struct errmsg err = { "" };

    fputs("\x1b[2J", stdout);
    for (;;) {
        if (look(top, &err) == STATUS_OK) {
            print_look(top, false);
        } else if (top->count == 0) {
            fputs("\x1b[H\x1b[J", stdout);
            fflush(stdout);
            return cli_refuse("%s", err.text);
        } else {
            printf("\x1b[H\x1b[2K%s; trying again", err.text);
            fflush(stdout);
        }
        pause_a_second(top);
    }
}

static int run_once(struct top *top, bool json)
{
    struct errmsg err = { "" };

    if (look(top, &err) != STATUS_OK) return cli_refuse("%s", err.text);
    pause_a_second(top);
    if (look(top, &err) != STATUS_OK) return cli_refuse("%s", err.text);
    print_look(top, json);
    return CLI_EXIT_OK;
}

int cmd_top(struct cli *cli)
{
    const char *term = getenv("TERM");
    const bool json = config_bool(cli->config, "json");
    struct top top = { .cli = cli };
    struct errmsg err = { "" };

    top.live = !json && isatty(STDOUT_FILENO) && term != NULL && strcmp(term, "dumb") != 0;
    if (replay_address(config_text(cli->config, "url"), top.address, ADDRESS_SIZE, &err) !=
        STATUS_OK)
        return cli_refuse("%s", err.text);
    top.looks = calloc(LOOKS, sizeof(*top.looks));
    if (top.looks == NULL) return cli_refuse("not enough memory");
    const int code = top.live ? run_live(&top) : run_once(&top, json);
    free(top.looks);
    return code;
}
