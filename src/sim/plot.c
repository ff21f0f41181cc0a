/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/plot.h"

#include <math.h>
#include <string.h>

#include "base/assert.h"
#include "sim/writer.h"

enum {
    WIDTH = 640,
    HEIGHT = 340,
    LEFT = 64,
    RIGHT = 20,
    TOP = 12,
    BOTTOM = 48,
    LEGEND_ROW = 20,
    SLACK = 5, /* that a dot at the edge may stand out */
    TICKS = 5,
    TICKS_MAX = 32,
};

static const double LETTER = 7.4; /* width of one, about, at the size of the legend */

struct axis {
    double min, max;
    bool log;
    double from, to; /* in the drawing */
    double ticks[TICKS_MAX];
    uint32_t ticks_count;
};

/* ---- axes ---- */

static double axis_place(const struct axis *axis, double value)
{
    const double span = axis->log ? log(axis->max / axis->min) : axis->max - axis->min;
    const double part = axis->log ? log(value / axis->min) : value - axis->min;
    return axis->from + (axis->to - axis->from) * part / span;
}

/* 1, 2 or 5 times a power of ten, so that about TICKS of them make the span. */
static double nice_step(double span)
{
    const double rough = span / TICKS;
    const double power = pow(10, floor(log10(rough)));
    const double digit = rough / power;

    if (digit < 1.5) return power;
    if (digit < 3.5) return 2 * power;
    return digit < 7.5 ? 5 * power : 10 * power;
}

static void add_tick(struct axis *axis, double value)
{
    const double slack = 1e-9 * fabs(axis->max);
    if (value < axis->min - slack || value > axis->max + slack) return;
    if (axis->ticks_count < TICKS_MAX) axis->ticks[axis->ticks_count++] = value;
}

static void tick_linear(struct axis *axis)
{
    const double step = nice_step(axis->max - axis->min);
    const double first = ceil(axis->min / step - 1e-9);

    for (uint32_t i = 0; i < TICKS_MAX; i++)
        add_tick(axis, (first + i) * step);
}

static void tick_log(struct axis *axis)
{
    static const double digits[] = { 1, 2, 5 };
    const double first = floor(log10(axis->min));
    const uint32_t decades = (uint32_t)fmin(ceil(log10(axis->max)) - first, TICKS_MAX);
    const uint32_t each = log10(axis->max / axis->min) > 3.6 ? 1 : 3; /* ticks of a decade */

    for (uint32_t i = 0; i <= decades; i++) {
        for (uint32_t d = 0; d < each; d++)
            add_tick(axis, digits[d] * pow(10, first + i));
    }
}

static struct axis x_axis(const struct plot *plot)
{
    struct axis axis = {
        .min = INFINITY, .max = -INFINITY, .log = plot->x_log, .from = LEFT, .to = WIDTH - RIGHT
    };

    for (uint32_t s = 0; s < plot->series_count; s++) {
        const struct plot_series *series = &plot->series[s];
        for (uint32_t i = 0; i < series->count; i++) {
            axis.min = fmin(axis.min, series->points[i].x);
            axis.max = fmax(axis.max, series->points[i].x);
        }
    }
    if (plot->x_min > 0) axis.min = plot->x_min;
    if (plot->x_max > axis.min) axis.max = plot->x_max;
    if (!(axis.max > axis.min)) axis.max = axis.min + fmax(fabs(axis.min), 1);
    ASSERT(!axis.log || axis.min > 0);
    if (axis.log)
        tick_log(&axis);
    else
        tick_linear(&axis);
    return axis;
}

/* From 0, up to a tick. */
static struct axis y_axis(const struct plot *plot, double top)
{
    struct axis axis = { .max = plot->y_max, .from = HEIGHT - BOTTOM, .to = top };

    for (uint32_t s = 0; s < plot->series_count && plot->y_max == 0; s++) {
        const struct plot_series *series = &plot->series[s];
        for (uint32_t i = 0; i < series->count; i++)
            axis.max = fmax(axis.max, series->points[i].y);
    }
    if (axis.max <= 0) axis.max = 1;
    const double step = nice_step(axis.max);
    axis.max = ceil(axis.max / step - 1e-9) * step;
    tick_linear(&axis);
    return axis;
}

static void put_value(const struct plot *plot, struct writer *out, double value)
{
    if (plot->y_percent)
        writer_put(out, "%.4g%%", 100 * value);
    else
        writer_put_short(out, value);
}

static void put_axes(const struct plot *plot, const struct axis *x, const struct axis *y,
                     struct writer *out)
{
    for (uint32_t i = 0; i < y->ticks_count; i++) {
        const double at = axis_place(y, y->ticks[i]);
        writer_put(out, "<path class=\"%s\" d=\"M%d %.1fH%d\"/>", i == 0 ? "base" : "grid", LEFT,
                   at, WIDTH - RIGHT);
        writer_put(out, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">", LEFT - 8, at + 4);
        put_value(plot, out, y->ticks[i]);
        writer_put(out, "</text>\n");
    }
    for (uint32_t i = 0; i < x->ticks_count; i++) {
        const double at = axis_place(x, x->ticks[i]);
        writer_put(out, "<path class=\"base\" d=\"M%.1f %.1fv5\"/>", at, y->from);
        writer_put(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">", at, y->from + 19);
        writer_put_short(out, x->ticks[i]);
        writer_put(out, "</text>\n");
    }
    const double middle = (y->from + y->to) / 2;
    writer_put(out, "<text class=\"name\" x=\"%d\" y=\"%d\" text-anchor=\"middle\">",
               (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8);
    writer_put_escaped(out, plot->x_label);
    writer_put(out,
               "</text><text class=\"name\" transform=\"rotate(-90 14 %.1f)\" x=\"14\" "
               "y=\"%.1f\" text-anchor=\"middle\">",
               middle, middle);
    writer_put_escaped(out, plot->y_label);
    writer_put(out, "</text>\n");
}

/* ---- legend ---- */

static const char *dash_of(const struct plot_series *series)
{
    return series->dashed ? " dash" : "";
}

/* Where the legend ends below; draws it if `out` is not NULL. */
static double put_legend(const struct plot *plot, struct writer *out)
{
    double x = LEFT, y = TOP;

    for (uint32_t i = 0; i < plot->series_count; i++) {
        const struct plot_series *series = &plot->series[i];
        const double width = 34 + LETTER * (double)strlen(series->label) + 16;
        if (x > LEFT && x + width > WIDTH - RIGHT + 16) {
            x = LEFT;
            y += LEGEND_ROW;
        }
        if (out != NULL) {
            writer_put(out, "<path class=\"line c%u%s\" d=\"M%.1f %.1fh26\"/>", series->colour,
                       dash_of(series), x, y);
            writer_put(out, "<text class=\"name\" x=\"%.1f\" y=\"%.1f\">", x + 33, y + 4);
            writer_put_escaped(out, series->label);
            writer_put(out, "</text>\n");
        }
        x += width;
    }
    return y + LEGEND_ROW;
}

/* ---- series ---- */

static void put_line(const struct plot_series *series, const struct axis *x, const struct axis *y,
                     struct writer *out)
{
    double before = 0;

    writer_put(out, "<path class=\"line c%u%s\" d=\"", series->colour, dash_of(series));
    for (uint32_t i = 0; i < series->count; i++) {
        const double px = axis_place(x, series->points[i].x);
        const double py = axis_place(y, series->points[i].y);
        if (series->shape == PLOT_STEPS && i > 0) writer_put(out, "L%.1f %.1f", px, before);
        writer_put(out, "%c%.1f %.1f", i == 0 ? 'M' : 'L', px, py);
        before = py;
    }
    writer_put(out, "\"/>\n");
}

static void put_dots(const struct plot *plot, const struct plot_series *series,
                     const struct axis *x, const struct axis *y, struct writer *out)
{
    for (uint32_t i = 0; i < series->count; i++) {
        const struct plot_point *point = &series->points[i];
        writer_put(out, "<circle class=\"dot c%u\" cx=\"%.1f\" cy=\"%.1f\" r=\"3.5\"><title>",
                   series->colour, axis_place(x, point->x), axis_place(y, point->y));
        writer_put_escaped(out, series->label);
        writer_put(out, ": ");
        writer_put_short(out, point->x);
        writer_put(out, ", ");
        put_value(plot, out, point->y);
        writer_put(out, "</title></circle>\n");
    }
}

/* What goes beyond the axes is cut. */
static void put_series(const struct plot *plot, const struct axis *x, const struct axis *y,
                       struct writer *out)
{
    const double left = LEFT - SLACK, top = y->to - SLACK;
    const double width = WIDTH - RIGHT - LEFT + 2 * SLACK, height = y->from - y->to + 2 * SLACK;

    writer_put(out,
               "<svg x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" "
               "viewBox=\"%.1f %.1f %.1f %.1f\">\n",
               left, top, width, height, left, top, width, height);
    for (uint32_t i = 0; i < plot->series_count; i++) {
        const struct plot_series *series = &plot->series[i];
        ASSERT(series->colour < PLOT_COLOURS);
        if (series->count == 0) continue;
        put_line(series, x, y, out);
        if (series->shape == PLOT_DOTS) put_dots(plot, series, x, y, out);
    }
    writer_put(out, "</svg>\n");
}

static void put_marks(const struct plot *plot, const struct axis *x, const struct axis *y,
                      struct writer *out)
{
    for (uint32_t i = 0; i < plot->marks_count; i++) {
        const struct plot_mark *mark = &plot->marks[i];
        if (!(mark->at >= x->min && mark->at <= x->max)) continue;
        const double at = axis_place(x, mark->at);
        const bool flip = at > WIDTH * 0.7; /* no room for words on its right */
        writer_put(out, "<path class=\"mark\" d=\"M%.1f %.1fV%.1f\"/>", at, y->from, y->to);
        writer_put(out, "<text class=\"halo\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">",
                   at + (flip ? -6 : 6), y->from - 20 - 14 * i, flip ? "end" : "start");
        writer_put_escaped(out, mark->label);
        writer_put(out, "</text>\n");
    }
}

static bool has_points(const struct plot *plot)
{
    for (uint32_t i = 0; i < plot->series_count; i++) {
        if (plot->series[i].count > 0) return true;
    }
    return false;
}

void plot_write(const struct plot *plot, struct writer *out)
{
    ASSERT(plot->series_count <= PLOT_SERIES_MAX && plot->marks_count <= PLOT_MARKS_MAX);
    if (!has_points(plot)) {
        writer_put(out, "<p class=\"none\">Nothing to draw.</p>\n");
        return;
    }
    const double top = put_legend(plot, NULL);
    const struct axis x = x_axis(plot), y = y_axis(plot, top);

    writer_put(out, "<svg class=\"plot\" viewBox=\"0 0 %d %d\" role=\"img\"><title>", WIDTH,
               HEIGHT);
    writer_put_escaped(out, plot->title);
    writer_put(out, "</title>\n");
    put_legend(plot, out);
    put_axes(plot, &x, &y, out);
    put_series(plot, &x, &y, out);
    put_marks(plot, &x, &y, out);
    writer_put(out, "</svg>\n");
}

/* ---- style ---- */

/* After Okabe and Ito: blue, vermilion, green, purple, orange, sky; each lighter on dark. */
static const char *const light[PLOT_COLOURS] = { "#0072b2", "#d55e00", "#008f68",
                                                 "#b4578c", "#b87a00", "#3c9bd6" };
static const char *const dark[PLOT_COLOURS] = { "#5ab4f0", "#ff8f52", "#35c99d",
                                                "#e79fc6", "#f0b840", "#9bd7f7" };

static void put_colours(const char *const colours[PLOT_COLOURS], struct writer *out)
{
    for (int i = 0; i < PLOT_COLOURS; i++)
        writer_put(out, ".plot .c%d{stroke:%s}.plot .dot.c%d{fill:%s}\n", i, colours[i], i,
                   colours[i]);
}

void plot_style(struct writer *out)
{
    writer_put(out, ".plot{width:100%%;height:auto;display:block;font:12px system-ui,sans-serif}\n"
                    ".plot text{fill:#555}.plot .name{fill:#222;font-size:13px}\n"
                    ".plot .grid{stroke:#e2e2e2}.plot .base{stroke:#888}\n"
                    ".plot .mark{stroke:#888;stroke-dasharray:2 4}\n"
                    ".plot .halo{paint-order:stroke;stroke:#fff;stroke-width:5px}\n"
                    ".plot .line{fill:none;stroke-width:2;stroke-linejoin:round}\n"
                    ".plot .dash{stroke-dasharray:7 4}\n");
    put_colours(light, out);
    writer_put(out, "@media(prefers-color-scheme:dark){\n"
                    ".plot text{fill:#aaa}.plot .name{fill:#ddd}\n"
                    ".plot .halo{stroke:#161616}.plot .grid{stroke:#333}.plot .base,.plot "
                    ".mark{stroke:#777}\n");
    put_colours(dark, out);
    writer_put(out, "}\n");
}
