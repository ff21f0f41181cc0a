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
#include "cli/remote.h"
#include "serve/top.h"

enum {
    LOOKS = 61, /* a minute */
    WINDOW_RATE = 3,
    WIDTH_DEFAULT = 80,
    WIDTH_MAX = 200,
    PAGE_SIZE_MAX = 16 << 20,
};

struct top {
    struct cli *cli;
    struct remote remote;
    struct top_look *looks; /* LOOKS of them, look number i at i % LOOKS */
    uint32_t count;         /* of looks taken */
    bool live;
    bool over; /* the pause */
};

static enum status look(struct top *top, struct errmsg *err)
{
    struct top_look *out = &top->looks[top->count % LOOKS];
    struct buf page;

    *out = (struct top_look){ .at_ns = env_now_ns(top->cli->env) };
    buf_init(&page, PAGE_SIZE_MAX);
    enum status status = remote_get(&top->remote, "/metrics", &page, err);
    if (status == STATUS_OK)
        status = top_read_metrics((const char *)buf_data(&page), page.len, out);
    if (status == STATUS_INVALID)
        status = errmsg_set(err, status, "%s is no gateway of Yolk", top->remote.url.text);
    buf_clear(&page);
    if (status == STATUS_OK) status = remote_get(&top->remote, "/debug/nodes", &page, err);
    if (status == STATUS_OK)
        status = top_read_nodes((const char *)buf_data(&page), page.len, out, err);
    buf_fini(&page);
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
    struct top_screen screen = { .url = top->remote.url.secure ? top->remote.url.text
                                                               : top->remote.url.address,
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
    while (!top->over)
        env_poll(env, ENV_NS_PER_S);
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
    if (remote_open(cli, &top.remote, &err) != STATUS_OK) return cli_refuse("%s", err.text);
    top.looks = calloc(LOOKS, sizeof(*top.looks));
    int code = CLI_EXIT_FAILED;
    if (top.looks == NULL)
        cli_refuse("not enough memory");
    else
        code = top.live ? run_live(&top) : run_once(&top, json);
    free(top.looks);
    remote_close(&top.remote);
    return code;
}
