/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/progress.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/env.h"

enum { BAR = 32 };

static const uint64_t PATIENCE_NS = ENV_NS_PER_S / 2;
static const uint64_t EVERY_NS = ENV_NS_PER_S / 10;

void progress_begin(struct progress *progress, struct env *env, const char *unit)
{
    const uint64_t now_ns = env_now_ns(env);
    *progress = (struct progress){ .env = env,
                                   .unit = unit,
                                   .terminal = isatty(STDERR_FILENO) == 1,
                                   .started_ns = now_ns,
                                   .drawn_ns = now_ns };
}

static void draw(const struct progress *progress, double share, double done, uint32_t count)
{
    char bar[BAR + 1];
    const int full = (int)(share * BAR);
    const double spent_s = (double)(progress->drawn_ns - progress->started_ns) / 1e9;
    const double left_s = share > 0 ? ceil(spent_s / share - spent_s) : 0;

    memset(bar, '.', BAR);
    memset(bar, '#', (size_t)full);
    bar[BAR] = '\0';
    fprintf(stderr, "\r[%s] %3.0f%%  %.0f of %u %s", bar, floor(100 * share), floor(done), count,
            progress->unit);
    if (!progress->uneven)
        fprintf(stderr, ", %.0f:%02.0f left", floor(left_s / 60), fmod(left_s, 60));
    fputs("\033[K", stderr);
    fflush(stderr);
}

void progress_show(struct progress *progress, double done, uint32_t count)
{
    if (!progress->terminal || count == 0) return;
    const uint64_t now_ns = env_now_ns(progress->env);
    if (now_ns - progress->started_ns < PATIENCE_NS) return;
    if (progress->drawn && now_ns - progress->drawn_ns < EVERY_NS) return;
    progress->drawn = true;
    progress->drawn_ns = now_ns;
    draw(progress, fmin(done / count, 1), done, count);
}

void progress_end(struct progress *progress)
{
    if (progress->drawn) fputs("\r\033[K", stderr);
    progress->drawn = false;
}
