/* SPDX-License-Identifier: Apache-2.0
 *
 * sim/plot.h - line plots as SVG inside an HTML page.
 *
 *     | legend, as many rows as it takes     |
 *     |   +-----------------------------+    |
 *     | y |  grid, marks, series        |    |
 *     |   +-----------------------------+    |
 *     |        ticks, x label                |
 *
 * Colours are classes: the page has plot_style() once, which gives them for light and dark. They
 * can be told apart by people who see no red or no green; dashes and dots help those who see none.
 *
 * Memory:  everything is borrowed for the call.
 * Threads: none of its own.
 * Limits:  PLOT_SERIES_MAX series, PLOT_MARKS_MAX marks. */
#ifndef SIM_PLOT_H
#define SIM_PLOT_H

#include <stdbool.h>
#include <stdint.h>

struct writer;

enum { PLOT_SERIES_MAX = 12, PLOT_MARKS_MAX = 4, PLOT_COLOURS = 6 };

struct plot_point {
    double x, y; /* finite; x above 0 on a logarithmic axis */
};

enum plot_shape {
    PLOT_LINE,
    PLOT_DOTS,  /* a line, and a dot at each point that says its numbers */
    PLOT_STEPS, /* y holds until the next x */
};

struct plot_series {
    const char *label;
    const struct plot_point *points; /* by ascending x */
    uint32_t count;
    enum plot_shape shape;
    unsigned colour; /* below PLOT_COLOURS */
    bool dashed;
};

/* A line across the plot, for a limit. */
struct plot_mark {
    double at;
    const char *label;
};

struct plot {
    const char *title; /* for those who cannot see it */
    const char *x_label, *y_label;
    bool x_log;
    bool y_percent;             /* y is a share, shown in percent */
    double x_min, x_max, y_max; /* where the axes end; 0: where the data does */
    const struct plot_series *series;
    uint32_t series_count;
    const struct plot_mark *marks; /* at an x */
    uint32_t marks_count;
};

/* A plot without points says so. */
void plot_write(const struct plot *plot, struct writer *out);

/* The rules of style for all plots of a page. */
void plot_style(struct writer *out);

#endif
