/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/writer.h"

#include <math.h>
#include <stdarg.h>
#include <stdint.h>

#include "base/buf.h"

void writer_put(struct writer *writer, const char *fmt, ...)
{
    va_list args;

    if (writer->status != STATUS_OK) return;
    va_start(args, fmt);
    writer->status = buf_vprintf(writer->out, fmt, args);
    va_end(args);
}

static const char *entity_of(char c)
{
    switch (c) {
    case '<': return "&lt;";
    case '>': return "&gt;";
    case '&': return "&amp;";
    case '"': return "&quot;";
    case '\'': return "&#39;";
    default: return (unsigned char)c < 32 || c == 127 ? " " : NULL;
    }
}

void writer_put_escaped(struct writer *writer, const char *text)
{
    for (; *text != '\0'; text++) {
        const char *entity = entity_of(*text);
        if (entity != NULL)
            writer_put(writer, "%s", entity);
        else
            writer_put(writer, "%c", *text);
    }
}

void writer_put_short(struct writer *writer, double value)
{
    static const struct {
        double unit;
        const char *name;
    } units[] = { { 1e12, "T" }, { 1e9, "G" }, { 1e6, "M" }, { 1e3, "k" } };

    for (int i = 0; i < 4; i++) {
        /* 999.95 and more would be rounded to a thousand of the smaller unit. */
        if (fabs(value) < units[i].unit * 0.99995) continue;
        writer_put(writer, "%.4g%s", value / units[i].unit, units[i].name);
        return;
    }
    writer_put(writer, "%.4g", value);
}
