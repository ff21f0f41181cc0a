/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/demo_screen.c - see demo_screen.h. */
#include "cli/demo_screen.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"

enum { CHART_COLUMNS = 30, PLAIN_EVERY_S = 2 };

static const char *const bold = "\x1b[1m", *const dim = "\x1b[2m", *const green = "\x1b[32m",
                         *const red = "\x1b[31m", *const plain = "\x1b[0m";

void demo_screen_init(struct demo_screen *screen)
{
    const char *term = getenv("TERM");
    screen->terminal = isatty(STDOUT_FILENO) && term != NULL && strcmp(term, "dumb") != 0;
    screen->colour = screen->terminal && getenv("NO_COLOR") == NULL;
}

static const char *paint(const struct demo_screen *screen, const char *how)
{
    return screen->colour ? how : "";
}

double demo_goodput(const struct demo_screen *screen, const struct demo_run *run)
{
    ASSERT(screen->send_seconds > 0);
    return run->counts.good / screen->send_seconds;
}

double demo_good_share(const struct demo_run *run)
{
    return run->counts.due == 0 ? 0 : (double)run->counts.good / run->counts.due;
}

/* ---- a terminal ---- */

/* Good answers over time, CHART_COLUMNS wide; the full height is what was asked for. */
static void draw_chart(const struct demo_screen *screen, const struct demo_run *run)
{
    static const char *const bars[] = { " ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█" };
    const uint32_t step = ((uint32_t)screen->send_seconds + CHART_COLUMNS - 1) / CHART_COLUMNS;

    for (uint32_t column = 0; column < CHART_COLUMNS; column++) {
        const uint32_t from = column * (step == 0 ? 1 : step);
        double good = 0;
        for (uint32_t s = from; s < from + step && s < DEMO_SECONDS_MAX; s++)
            good += run->good_by_second[s];
        const double level = good / (screen->rate * (step == 0 ? 1 : step)) * 8 + 0.5;
        fputs(bars[level > 8 ? 8 : (int)level], stdout);
    }
}

static void draw_run(const struct demo_screen *screen, const struct demo_run *run)
{
    static const char *const states[] = { "waits", "warms up", "", "" };
    const struct replay_counts *c = &run->counts;
    const bool active = run->state == DEMO_WARMING || run->state == DEMO_RUNNING;

    printf("%s%-9s%s ", active ? paint(screen, bold) : "", run->name, paint(screen, plain));
    if (run->state == DEMO_WAITING || run->state == DEMO_WARMING) {
        printf("%s%-8s%s\x1b[K\n", paint(screen, dim), states[run->state], paint(screen, plain));
        return;
    }
    const uint32_t late = c->finished - c->good;
    printf("%4.0fs %6u %6u %8u %s%6u%s %s%8u%s  %s", run->seconds, c->due, c->running, c->rejected,
           late > 0 ? paint(screen, red) : "", late, paint(screen, plain), paint(screen, green),
           c->good, paint(screen, plain), paint(screen, green));
    draw_chart(screen, run);
    printf("%s\x1b[K\n", paint(screen, plain));
}

static void draw_table(struct demo_screen *screen)
{
    if (screen->drawn)
        printf("\x1b[%uA", screen->runs_count);
    else
        printf("\n%s%s%s\n%spolicy    time   sent   open  refused   late  in time  in time, by "
               "second%s\n",
               paint(screen, bold), screen->header, paint(screen, plain), paint(screen, dim),
               paint(screen, plain));
    screen->drawn = true;
    for (uint32_t i = 0; i < screen->runs_count; i++)
        draw_run(screen, &screen->runs[i]);
}

/* ---- anything else ---- */

static void say(struct demo_screen *screen, const struct demo_run *run)
{
    const struct replay_counts *c = &run->counts;

    if (!screen->drawn) printf("%s", screen->header);
    screen->drawn = true;
    if (run->state == DEMO_WARMING) screen->said_seconds = 0;
    const bool now = run->seconds >= screen->said_seconds + PLAIN_EVERY_S;
    if (run->state == DEMO_ENDED || (run->state == DEMO_RUNNING && now)) {
        screen->said_seconds = run->seconds;
        printf("%-9s %3.0f s: %u sent, %u open, %u refused, %u late, %u in time\n", run->name,
               run->seconds, c->due, c->running, c->rejected, c->finished - c->good, c->good);
    }
}

/* ---- both ---- */

void demo_screen_draw(struct demo_screen *screen, const struct demo_run *run)
{
    if (screen->silent) return;
    if (screen->terminal)
        draw_table(screen);
    else
        say(screen, run);
    fflush(stdout);
}

void demo_screen_finish(struct demo_screen *screen)
{
    const struct demo_run *first = &screen->runs[0];

    printf("\n%spolicy    in time   a second  refused   late  failed   TTFT p90    TBT p90%s\n",
           paint(screen, dim), paint(screen, plain));
    for (uint32_t i = 0; i < screen->runs_count; i++) {
        const struct demo_run *run = &screen->runs[i];
        const struct replay_counts *c = &run->counts;
        printf("%-9s %s%6.1f%%%s %10.2f %8u %6u %7u %7.0f ms %7.1f ms\n", run->name,
               paint(screen, green), 100 * demo_good_share(run), paint(screen, plain),
               demo_goodput(screen, run), c->rejected, c->finished - c->good, c->failed,
               run->result.ttft.p90, run->result.tbt.p90);
    }
    for (uint32_t i = 1; i < screen->runs_count && first->counts.good > 0; i++) {
        const struct demo_run *run = &screen->runs[i];
        printf("%s%s%s: %.2f times the goodput of %s\n", i == 1 ? "\n" : "", run->name, "",
               (double)run->counts.good / first->counts.good, first->name);
    }
}
