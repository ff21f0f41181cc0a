/* SPDX-License-Identifier: Apache-2.0
 *
 * sim/trace_test.c
 *
 * Goal:   every format is read, every damage is refused with its line, and the LRU curve is exact.
 * Method: small texts by hand; the LRU against a model that is a sorted array of last uses; and,
 * where the public traces are (../shared/traces or YOLK_TRACES), their published statistics. */
#include "sim/trace.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/buf.h"
#include "base/env.h"
#include "base/env_real.h"
#include "base/rng.h"

static struct trace *parse(const char *text)
{
    struct trace *trace = NULL;
    struct errmsg err = { "" };
    if (trace_parse("t", text, strlen(text), &trace, &err) != STATUS_OK) fail_msg("%s", err.text);
    return trace;
}

static void refused(const char *text, const char *words)
{
    struct trace *trace = NULL;
    struct errmsg err = { "" };
    assert_int_equal(trace_parse("t", text, strlen(text), &trace, &err), STATUS_INVALID);
    assert_null(trace);
    if (strstr(err.text, words) == NULL) fail_msg("`%s` lacks `%s`", err.text, words);
}

#define LINE(time, input, ids)                                                                     \
    "{\"timestamp\": " time ", \"input_length\": " input ", \"output_length\": 5, \"hash_ids\": "  \
    "[" ids "]}\n"

static void formats_are_told_apart(void **state)
{
    (void)state;
    struct trace *trace = parse(LINE("0", "600", "7, 9") LINE("1500", "512", "7"));
    assert_int_equal(trace->format, TRACE_MOONCAKE);
    assert_int_equal(trace->count, 2);
    assert_int_equal(trace->unique, 2);
    assert_int_equal(trace->ids[2], trace->ids[0]);
    assert_true(trace->requests[1].arrival_ms == 1500);
    trace_destroy(trace);

    trace = parse("TIMESTAMP,ContextTokens,GeneratedTokens\n"
                  "2023-12-31 23:59:59.5000000,1000,10\n2024-01-01 00:00:00.2500000,3,1\n");
    assert_int_equal(trace->format, TRACE_AZURE);
    assert_int_equal(trace->unique, 3);
    assert_true(fabs(trace->requests[1].arrival_ms - 750) < 1e-3);
    trace_destroy(trace);

    trace = parse("Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\r\n"
                  "5,ChatGPT,472,18,490,Conversation log\r\n45,GPT-4,1087,230,1317,API log\r\n");
    assert_int_equal(trace->format, TRACE_BURSTGPT);
    assert_true(trace->requests[1].arrival_ms == 40000);
    trace_destroy(trace);

    trace = parse("arrived_at,num_prefill_tokens,num_decode_tokens\n0.0,374,44\n0.5,396,109\n");
    assert_int_equal(trace->format, TRACE_VIDUR);
    assert_int_equal(trace->requests[1].output_tokens, 109);
    trace_destroy(trace);
}

static void delays_and_block_sizes(void **state)
{
    (void)state;
    struct trace *trace =
        parse("{\"delay\": 0, \"input_length\": 20, \"output_length\": 1, \"block_size\": 16, "
              "\"hash_ids\": [1, 2]}\n{\"delay\": 250, \"input_length\": 16, \"output_length\": 1, "
              "\"hash_ids\": [1]}\n");
    assert_int_equal(trace->block_tokens, 16);
    assert_true(trace->requests[1].arrival_ms == 250);
    trace_destroy(trace);
}

static void damage_is_refused_with_its_line(void **state)
{
    (void)state;
    refused("", "no request");
    refused("hello,world\n", "t:1: the format is not known");
    refused(LINE("0", "600", "1, 2") "{\"timestamp\": 1,\n", "t:2: string or");
    refused(LINE("0", "600", "1, 2") "[]\n", "t:2: the line is not an object");
    refused(LINE("9", "600", "1, 2") LINE("8", "600", "1, 2"), "t:2: it arrives before");
    refused(LINE("0", "600", "1"), "another length than the input has blocks");
    refused(LINE("0", "600", "1, 2") LINE("1", "600", "3, 2"), "stands behind another id");
    refused(LINE("0", "600", "1, \"x\""), "not an integer");
    refused(LINE("0", "0", ""), "input length is absurd");
    refused(LINE("0", "1e30", "1"), "input length is absurd");
    refused(LINE("0", "1.5", "1"), "input length is absurd");
    refused(LINE("-5", "600", "1, 2"), "not a time");
    refused("{\"input_length\": 5, \"output_length\": 1}\n", "it says not when");
    refused("{\"timestamp\": 0, \"input_length\": 5}\n", "t:1: there is no output length");
    refused("{\"timestamp\": 0, \"output_length\": 5}\n", "t:1: there is no input length");
    refused("{\"timestamp\": 0, \"input_length\": \"5\", \"output_length\": 5}\n",
            "there is no input length; expected a whole number");
    refused("", "t:1: there is no request");
    refused(LINE("0", "600", "1, 2") LINE("1e12", "600", "1, 2"), "t:2: it arrives absurdly late");
    refused(LINE("1e300", "600", "1, 2"), "t:1: the arrival is not a time");
    refused("{\"timestamp\": 0, \"input_length\": 5, \"output_length\": 1, \"block_size\": 16}\n"
            "{\"timestamp\": 0, \"input_length\": 5, \"output_length\": 1, \"block_size\": 32}\n",
            "t:2: the block size is another");
    refused("{\"timestamp\": 0, \"input_length\": 5, \"output_length\": 1, \"block_size\": 1.5}\n",
            "t:1: the block size is absurd");
    refused(
        LINE("0", "600", "1, 2") "{\"timestamp\": 1, \"input_length\": 5, \"output_length\": 1}\n",
        "some lines have hash_ids");
    refused("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-13-01 00:00:00,1,1\n",
            "t:2: the arrival");
    refused("arrived_at,num_prefill_tokens,num_decode_tokens\n1,2\n", "fields are missing");
    refused("arrived_at,num_prefill_tokens,num_decode_tokens\nnan,2,3\n", "not a time");
}

static void what_is_written_reads_the_same(void **state)
{
    (void)state;
    struct trace *trace = parse(LINE("0", "600", "7, 9") LINE("1500", "512", "7"));
    struct buf text;
    buf_init(&text, 1 << 16);
    assert_int_equal(trace_write(trace, &text), STATUS_OK);
    struct trace *again = NULL;
    assert_int_equal(trace_parse("again", (const char *)buf_data(&text), text.len, &again, NULL),
                     STATUS_OK);
    assert_int_equal(again->count, trace->count);
    assert_memory_equal(again->ids, trace->ids, trace->ids_count * sizeof(*trace->ids));
    assert_memory_equal(again->requests, trace->requests, trace->count * sizeof(*trace->requests));
    trace_destroy(again);
    trace_destroy(trace);
    buf_fini(&text);
}

/* ---- the LRU against a model: the time of the last use of each id ---- */

enum { MODEL_IDS = 40, MODEL_REQUESTS = 300 };

static uint64_t model_resident(const uint64_t *used, uint64_t capacity, uint64_t *out)
{
    uint64_t count = 0;
    for (int i = 0; i < MODEL_IDS; i++) {
        uint64_t newer = 0;
        for (int j = 0; j < MODEL_IDS; j++)
            newer += used[j] > used[i];
        out[i] = used[i] > 0 && newer < capacity;
        count += out[i];
    }
    return count;
}

/* Random paths in a fixed binary tree of ids, so that ids are prefix-consistent. */
static void lru_matches_model(void **state)
{
    (void)state;
    const char *text_seed = getenv("SEED");
    const uint64_t seed = text_seed != NULL ? strtoull(text_seed, NULL, 10) : 1;
    struct rng rng;
    struct buf text;

    print_message("SEED=%llu\n", (unsigned long long)seed);
    rng_init(&rng, seed);
    for (uint64_t capacity = 1; capacity <= MODEL_IDS; capacity += 4) {
        uint64_t used[MODEL_IDS] = { 0 }, resident[MODEL_IDS], clock = 0, hits = 0, refs = 0;
        buf_init(&text, 1 << 20);
        for (int r = 0; r < MODEL_REQUESTS; r++) {
            uint32_t path[8], depth = 0;
            for (uint32_t id = 1; id < MODEL_IDS && depth < 8;
                 id = 2 * id + (uint32_t)rng_below(&rng, 2)) {
                path[depth++] = id;
            }
            depth = 1 + (uint32_t)rng_below(&rng, depth);
            model_resident(used, capacity, resident);
            uint32_t run = 0;
            while (run < depth && resident[path[run]])
                run++;
            hits += run;
            refs += depth;
            assert_int_equal(buf_printf(&text,
                                        "{\"timestamp\": %d, \"input_length\": %u, "
                                        "\"output_length\": 1, \"hash_ids\": [",
                                        r, depth * 512),
                             STATUS_OK);
            for (uint32_t i = 0; i < depth; i++)
                assert_int_equal(buf_printf(&text, "%s%u", i ? "," : "", path[i]), STATUS_OK);
            assert_int_equal(buf_append_text(&text, "]}\n"), STATUS_OK);
            for (uint32_t i = depth; i-- > 0;)
                used[path[i]] = ++clock;
        }
        struct trace *trace = NULL;
        double token_hit, block_hit;
        assert_int_equal(trace_parse("m", (const char *)buf_data(&text), text.len, &trace, NULL),
                         STATUS_OK);
        assert_int_equal(trace_lru(trace, capacity, &token_hit, &block_hit), STATUS_OK);
        assert_true(fabs(block_hit - (double)hits / (double)refs) < 1e-12);
        trace_destroy(trace);
        buf_fini(&text);
    }
}

/* ---- published statistics of public traces ---- */

struct curve {
    const char *file;
    uint32_t requests, unique;
    double infinite_token_hit;
    uint64_t tokens[4];
    double token_hit[4];
};

static void public_traces_have_their_published_curves(void **state)
{
    (void)state;
    static const struct curve curves[] = {
        { "conversation_trace.jsonl",
          12031,
          182790,
          0.3736,
          { 1000000, 3000000, 10000000, 50000000 },
          { 0.054, 0.139, 0.291, 0.371 } },
        { "synthetic_trace.jsonl",
          3993,
          43924,
          0.6512,
          { 1000000, 3000000, 10000000, 50000000 },
          { 0.145, 0.315, 0.577, 0.651 } },
    };
    const char *directory =
        getenv("YOLK_TRACES") != NULL ? getenv("YOLK_TRACES") : "../shared/traces";
    struct env *env = NULL;
    unsigned read = 0;

    assert_int_equal(env_real_create(NULL, &env, NULL), STATUS_OK);
    for (size_t i = 0; i < sizeof(curves) / sizeof(curves[0]); i++) {
        char path[512], *text = NULL;
        size_t len = 0;
        struct trace *trace = NULL;
        struct errmsg err = { "" };
        snprintf(path, sizeof(path), "%s/%s", directory, curves[i].file);
        if (env_file_read_all(env, path, 64 << 20, &text, &len, NULL) != STATUS_OK) continue;
        if (trace_parse(path, text, len, &trace, &err) != STATUS_OK) fail_msg("%s", err.text);
        struct trace_stat stat;
        assert_int_equal(trace_measure(trace, &stat), STATUS_OK);
        assert_int_equal(stat.requests, curves[i].requests);
        assert_int_equal(stat.unique, curves[i].unique);
        assert_true(fabs(stat.token_hit - curves[i].infinite_token_hit) < 1e-4);
        for (int c = 0; c < 4; c++) {
            double token_hit, block_hit;
            assert_int_equal(trace_lru(trace, curves[i].tokens[c] / 512, &token_hit, &block_hit),
                             STATUS_OK);
            assert_true(fabs(token_hit - curves[i].token_hit[c]) <= 0.0006);
        }
        trace_destroy(trace);
        free(text);
        read++;
    }
    env_real_destroy(env);
    if (read == 0) {
        print_message("no traces in %s: the published curves were not checked\n", directory);
        skip();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(formats_are_told_apart),
        cmocka_unit_test(delays_and_block_sizes),
        cmocka_unit_test(damage_is_refused_with_its_line),
        cmocka_unit_test(what_is_written_reads_the_same),
        cmocka_unit_test(lru_matches_model),
        cmocka_unit_test(public_traces_have_their_published_curves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
