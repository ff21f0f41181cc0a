/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/trace.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/json.h"
#include "base/map.h"

enum { FIELDS_MAX = 32, FIELD_SIZE = 64, LINE_SIZE_MAX = 8 << 20 };

#define NO_PARENT UINT32_MAX

struct reader {
    const char *name;
    struct errmsg *err;
    struct trace *trace;
    uint32_t line;
    uint32_t requests_cap, ids_cap;
    struct map *seen;  /* id in the file -> dense id */
    uint32_t *parents; /* by dense id */
    uint32_t parents_cap;
    double clock_ms;  /* arrival of the request before, on the file's clock */
    double origin_ms; /* arrival of the first */
    int columns[3];   /* CSV: arrival, input, output */
};

static const double STAMP_MS_MAX = 1e17; /* the file's clock may start anywhere */

static enum status refuse(struct reader *reader, const char *what, const char *expected)
{
    return errmsg_set(reader->err, STATUS_INVALID, "%s:%u: %s; expected %s", reader->name,
                      reader->line, what, expected);
}

/* ---- growing ---- */

static enum status grow(void **array, uint32_t *cap, uint32_t need, size_t size)
{
    if (need <= *cap) return STATUS_OK;
    uint32_t next = *cap == 0 ? 4096 : *cap * 2;
    if (next < need) next = need;
    void *moved = realloc(*array, (size_t)next * size);
    if (moved == NULL) return STATUS_NO_MEMORY;
    *array = moved;
    *cap = next;
    return STATUS_OK;
}

/* ---- one request ---- */

/* `arrival_ms` is on the file's clock. The request has no blocks yet. */
static enum status add_request(struct reader *reader, double arrival_ms, double input,
                               double output)
{
    struct trace *trace = reader->trace;

    if (!(arrival_ms >= 0 && arrival_ms <= STAMP_MS_MAX))
        return refuse(reader, "the arrival is not a time", "milliseconds or seconds from 0");
    if (isnan(input))
        return refuse(reader, "there is no input length", "a whole number from 1 to 16777216");
    if (isnan(output))
        return refuse(reader, "there is no output length", "a whole number from 0 to 16777216");
    if (!(input >= 1 && input <= TRACE_TOKENS_MAX) || input != floor(input))
        return refuse(reader, "the input length is absurd", "a whole number from 1 to 16777216");
    if (!(output >= 0 && output <= TRACE_TOKENS_MAX) || output != floor(output))
        return refuse(reader, "the output length is absurd", "a whole number from 0 to 16777216");
    if (trace->count > 0 && arrival_ms < reader->clock_ms)
        return refuse(reader, "it arrives before the line above", "arrivals in order");
    if (trace->count > 0 && arrival_ms - reader->origin_ms > TRACE_SPAN_MS_MAX)
        return refuse(reader, "it arrives absurdly late", "within 100000000 s of the first");
    if (trace->count == TRACE_REQUESTS_MAX)
        return errmsg_set(reader->err, STATUS_FULL, "%s: more than %d requests", reader->name,
                          TRACE_REQUESTS_MAX);
    const enum status status = grow((void **)&trace->requests, &reader->requests_cap,
                                    trace->count + 1, sizeof(*trace->requests));
    if (status != STATUS_OK) return status;
    if (trace->count == 0) reader->origin_ms = arrival_ms;
    reader->clock_ms = arrival_ms;
    trace->requests[trace->count++] = (struct trace_request){
        .arrival_ms = arrival_ms - reader->origin_ms,
        .input_tokens = (uint32_t)input,
        .output_tokens = (uint32_t)output,
        .first = trace->ids_count,
    };
    return STATUS_OK;
}

static enum status reserve_ids(struct reader *reader, uint32_t count)
{
    struct trace *trace = reader->trace;
    if (count > TRACE_BLOCKS_MAX - trace->ids_count)
        return errmsg_set(reader->err, STATUS_FULL, "%s: more than %d block references",
                          reader->name, TRACE_BLOCKS_MAX);
    return grow((void **)&trace->ids, &reader->ids_cap, trace->ids_count + count,
                sizeof(*trace->ids));
}

/* The dense number of an id that stands behind `parent`. */
static enum status number_id(struct reader *reader, uint64_t id, uint32_t parent, uint32_t *out)
{
    struct trace *trace = reader->trace;
    struct block_key key = { { 0 } };
    uint64_t found = 0;

    memcpy(key.bytes, &id, sizeof(id));
    if (map_find(reader->seen, &key, &found)) {
        if (reader->parents[found] != parent)
            return refuse(reader, "a hash id stands behind another id than before",
                          "ids that name a block and all before it");
        *out = (uint32_t)found;
        return STATUS_OK;
    }
    enum status status = grow((void **)&reader->parents, &reader->parents_cap, trace->unique + 1,
                              sizeof(*reader->parents));
    if (status == STATUS_OK) status = map_insert(reader->seen, &key, trace->unique);
    if (status != STATUS_OK) return status;
    reader->parents[trace->unique] = parent;
    *out = trace->unique++;
    return STATUS_OK;
}

/* Gives every block of the last request a new id: nothing is shared. */
static enum status add_own_blocks(struct reader *reader)
{
    struct trace *trace = reader->trace;
    struct trace_request *request = &trace->requests[trace->count - 1];

    request->blocks = (request->input_tokens + trace->block_tokens - 1) / trace->block_tokens;
    const enum status status = reserve_ids(reader, request->blocks);
    if (status != STATUS_OK) return status;
    for (uint32_t i = 0; i < request->blocks; i++)
        trace->ids[trace->ids_count++] = trace->unique++;
    return STATUS_OK;
}

/* ---- mooncake ---- */

static enum status add_ids(struct reader *reader, const struct json_value *ids)
{
    struct trace *trace = reader->trace;
    struct trace_request *request = &trace->requests[trace->count - 1];
    const size_t count = json_value_count(ids);
    const uint32_t blocks = (request->input_tokens + trace->block_tokens - 1) / trace->block_tokens;
    uint32_t parent = NO_PARENT;

    if (count != blocks)
        return refuse(reader, "hash_ids has another length than the input has blocks",
                      "one id per block, the last one partial");
    enum status status = reserve_ids(reader, blocks);
    request->blocks = blocks;
    for (uint32_t i = 0; status == STATUS_OK && i < blocks; i++) {
        const struct json_value *id = json_value_at(ids, i);
        int64_t number = 0;
        if (!json_value_integer(id, &number))
            return refuse(reader, "a hash id is not an integer", "\"hash_ids\": [integers]");
        status = number_id(reader, (uint64_t)number, parent, &parent);
        if (status == STATUS_OK) trace->ids[trace->ids_count++] = parent;
    }
    return status;
}

/* NaN if the member is missing or no number. */
static double member(const struct json_value *object, const char *name)
{
    double number = NAN;
    (void)json_value_number(json_value_member(object, name), &number);
    return number;
}

/* The first line says it for all; others may say it again. */
static enum status read_block_size(struct reader *reader, const struct json_value *object)
{
    struct trace *trace = reader->trace;
    double block = member(object, "block_size");

    if (isnan(block)) block = member(object, "block_tokens");
    if (isnan(block)) return STATUS_OK;
    if (!(block >= 1 && block <= 65536) || block != floor(block))
        return refuse(reader, "the block size is absurd", "1 to 65536 tokens");
    if (trace->count > 0 && block != trace->block_tokens)
        return refuse(reader, "the block size is another", "one size for the whole trace");
    trace->block_tokens = (uint32_t)block;
    return STATUS_OK;
}

static enum status read_object(struct reader *reader, const struct json_value *object)
{
    struct trace *trace = reader->trace;
    double arrival = member(object, "timestamp");

    const enum status valid = read_block_size(reader, object);
    if (valid != STATUS_OK) return valid;
    if (isnan(arrival)) arrival = reader->clock_ms + member(object, "delay");
    if (isnan(arrival))
        return refuse(reader, "it says not when", "\"timestamp\" or \"delay\" in milliseconds");
    const enum status status = add_request(reader, arrival, member(object, "input_length"),
                                           member(object, "output_length"));
    if (status != STATUS_OK) return status;
    const struct json_value *ids = json_value_member(object, "hash_ids");
    if (ids != NULL && !json_value_is_array(ids))
        return refuse(reader, "hash_ids is not an array", "\"hash_ids\": [integers]");
    if (trace->count == 1) trace->has_ids = ids != NULL;
    if (trace->has_ids != (ids != NULL))
        return refuse(reader, "some lines have hash_ids and some have not", "all or none");
    return ids != NULL ? add_ids(reader, ids) : add_own_blocks(reader);
}

/* Of what the parser says: it has seen one line only, and ours is the number that counts. */
#define FIRST_LINE "line 1: "

static enum status read_json_line(struct reader *reader, const char *line, size_t len)
{
    struct json_value *object = NULL;
    struct errmsg words = { "" };
    enum status status;

    if (json_document_parse(line, len, &object, &words) != STATUS_OK) {
        const bool numbered = strncmp(words.text, FIRST_LINE, sizeof(FIRST_LINE) - 1) == 0;
        const char *what = numbered ? words.text + sizeof(FIRST_LINE) - 1 : words.text;
        return refuse(reader, what, "one JSON object a line");
    }
    if (!json_value_is_object(object))
        status = refuse(reader, "the line is not an object", "one JSON object a line");
    else
        status = read_object(reader, object);
    json_document_destroy(object);
    return status;
}

/* ---- CSV ---- */

struct fields {
    char text[FIELDS_MAX][FIELD_SIZE];
    uint32_t count;
};

/* False if there are too many fields, or one is too long. Quotes are not part of these formats. */
static bool split_fields(const char *line, size_t len, struct fields *out)
{
    out->count = 0;
    for (size_t at = 0; at <= len;) {
        const char *comma = memchr(line + at, ',', len - at);
        const size_t n = comma != NULL ? (size_t)(comma - line) - at : len - at;
        if (out->count == FIELDS_MAX || n >= FIELD_SIZE) return false;
        memcpy(out->text[out->count], line + at, n);
        out->text[out->count++][n] = '\0';
        at += n + 1;
    }
    return true;
}

static int find_column(const struct fields *fields, const char *name)
{
    for (uint32_t i = 0; i < fields->count; i++) {
        if (strcmp(fields->text[i], name) == 0) return (int)i;
    }
    return -1;
}

static const struct {
    enum trace_format format;
    const char *columns[3];
} csv_formats[] = {
    { TRACE_AZURE, { "TIMESTAMP", "ContextTokens", "GeneratedTokens" } },
    { TRACE_BURSTGPT, { "Timestamp", "Request tokens", "Response tokens" } },
    { TRACE_VIDUR, { "arrived_at", "num_prefill_tokens", "num_decode_tokens" } },
};

static enum status read_csv_header(struct reader *reader, const char *line, size_t len)
{
    struct fields fields;

    for (size_t f = 0; split_fields(line, len, &fields) && f < 3; f++) {
        bool all = true;
        for (int c = 0; c < 3; c++) {
            reader->columns[c] = find_column(&fields, csv_formats[f].columns[c]);
            all = all && reader->columns[c] >= 0;
        }
        if (!all) continue;
        reader->trace->format = csv_formats[f].format;
        return STATUS_OK;
    }
    return refuse(reader, "the format is not known",
                  "JSON lines, or CSV with the columns of Azure, BurstGPT or Vidur traces");
}

/* Whole days before a date of the Gregorian calendar, from an arbitrary day. */
static double days_before(int year, int month, int day)
{
    if (month <= 2) {
        year--;
        month += 12;
    }
    return 365.0 * year + floor(year / 4.0) - floor(year / 100.0) + floor(year / 400.0) +
           floor((153.0 * (month - 3) + 2) / 5) + day;
}

static double read_number(const char *text)
{
    char *end = NULL;
    const double value = strtod(text, &end);
    return end == text || *end != '\0' ? NAN : value;
}

/* "2023-11-16 18:17:03.9799600" in milliseconds; NaN if it is no such date. */
static double read_date(const char *text)
{
    int year, month, day, hour, minute, used = 0;

    if (sscanf(text, "%4d-%2d-%2d %2d:%2d:%n", &year, &month, &day, &hour, &minute, &used) != 5 ||
        used == 0)
        return NAN;
    const double second = read_number(text + used);
    if (month < 1 || month > 12 || day < 1 || day > 31 || hour < 0 || hour > 23 || minute < 0 ||
        minute > 59 || !(second >= 0 && second < 61))
        return NAN;
    return ((days_before(year, month, day) * 24 + hour) * 60 + minute) * 60e3 + second * 1e3;
}

static enum status read_csv_line(struct reader *reader, const char *line, size_t len)
{
    struct trace *trace = reader->trace;
    struct fields fields;

    if (reader->line == 1) return read_csv_header(reader, line, len);
    if (!split_fields(line, len, &fields))
        return refuse(reader, "a field is too long, or there are too many", "the columns above");
    for (int c = 0; c < 3; c++) {
        if (reader->columns[c] >= (int)fields.count)
            return refuse(reader, "fields are missing", "as many as in the first line");
    }
    const char *when = fields.text[reader->columns[0]];
    const double arrival = trace->format == TRACE_AZURE ? read_date(when) : read_number(when) * 1e3;
    const enum status status =
        add_request(reader, arrival, read_number(fields.text[reader->columns[1]]),
                    read_number(fields.text[reader->columns[2]]));
    return status == STATUS_OK ? add_own_blocks(reader) : status;
}

/* ---- the file ---- */

static enum status read_lines(struct reader *reader, const char *text, size_t len)
{
    size_t at = 0;
    while (at < len && (text[at] == ' ' || text[at] == '\n' || text[at] == '\r'))
        at++;
    const bool json = at < len && text[at] == '{';

    for (at = 0; at < len;) {
        const char *end = memchr(text + at, '\n', len - at);
        size_t n = end != NULL ? (size_t)(end - text) - at : len - at;
        const char *line = text + at;
        at += n + 1;
        reader->line++;
        if (n > 0 && line[n - 1] == '\r') n--;
        if (n == 0) continue;
        if (n > LINE_SIZE_MAX) return refuse(reader, "the line is too long", "at most 8 MiB");
        const enum status status =
            json ? read_json_line(reader, line, n) : read_csv_line(reader, line, n);
        if (status != STATUS_OK) return status;
    }
    if (reader->line == 0) reader->line = 1; /* of an empty file */
    if (reader->trace->count == 0) return refuse(reader, "there is no request", "at least one");
    return STATUS_OK;
}

enum status trace_parse(const char *name, const char *text, size_t len, struct trace **out,
                        struct errmsg *err)
{
    struct reader reader = { .name = name, .err = err };
    enum status status;

    reader.trace = calloc(1, sizeof(*reader.trace));
    if (reader.trace == NULL) return STATUS_NO_MEMORY;
    reader.trace->block_tokens = TRACE_BLOCK_TOKENS_DEFAULT;
    const struct map_options options = { .entries_max = TRACE_BLOCKS_MAX };
    status = map_create(&options, &reader.seen);
    if (status == STATUS_OK) status = read_lines(&reader, text, len);
    map_destroy(reader.seen);
    free(reader.parents);
    if (status != STATUS_OK) {
        trace_destroy(reader.trace);
        return status;
    }
    *out = reader.trace;
    return STATUS_OK;
}

void trace_destroy(struct trace *trace)
{
    if (trace == NULL) return;
    free(trace->requests);
    free(trace->ids);
    free(trace);
}

const char *trace_format_name(enum trace_format format)
{
    switch (format) {
    case TRACE_MOONCAKE: return "mooncake";
    case TRACE_AZURE: return "azure";
    case TRACE_BURSTGPT: return "burstgpt";
    case TRACE_VIDUR: return "vidur";
    }
    return "unknown";
}

enum status trace_write(const struct trace *trace, struct buf *out)
{
    for (uint32_t i = 0; i < trace->count; i++) {
        const struct trace_request *request = &trace->requests[i];
        enum status status =
            buf_printf(out,
                       "{\"timestamp\": %.0f, \"input_length\": %u, \"output_length\": %u, "
                       "\"block_size\": %u, \"hash_ids\": [",
                       request->arrival_ms, request->input_tokens, request->output_tokens,
                       trace->block_tokens);
        for (uint32_t j = 0; status == STATUS_OK && j < request->blocks; j++) {
            status = buf_printf(out, "%s%u", j == 0 ? "" : ", ", trace->ids[request->first + j]);
        }
        if (status == STATUS_OK) status = buf_append_text(out, "]}\n");
        if (status != STATUS_OK) return status;
    }
    return STATUS_OK;
}
