/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/top_test.c
 *
 * Goal:   `yolk top` says what the gateway's pages say, in lines that fit, whatever the pages say.
 * Method: pages by hand; percentiles against a sorted list of random values put in buckets; screens
 *         of every width counted in columns. SEED=n replays. */
#include "serve/top.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/env.h"
#include "base/rng.h"
#include "seed.h"
#include "serve/api_json.h"

static const char METRICS[] =
    "# HELP vllm:num_requests_running Requests placed on nodes.\n"
    "# TYPE vllm:num_requests_running gauge\n"
    "vllm:num_requests_running{model_name=\"smol\"} 3\n"
    "vllm:num_requests_waiting{model_name=\"smol\"} 2\n"
    "vllm:request_success_total{model_name=\"smol\",finished_reason=\"stop\"} 30\n"
    "vllm:request_success_total{model_name=\"smol\",finished_reason=\"length\"} 10\n"
    "vllm:request_success_total{model_name=\"smol\",finished_reason=\"error\"} 1\n"
    "yolk_gateway_tenant_limited_total{tenant=\"a\",limit=\"tokens\"} 4\n"
    "yolk_gateway_tenant_limited_total{tenant=\"b\",limit=\"tokens\"} 5\n"
    "yolk_gateway_cached_tokens_total{tier=\"local\"} 600\n"
    "yolk_gateway_cached_tokens_total{tier=\"disk\"} 100\n"
    "vllm:request_prefill_kv_computed_tokens_sum{model_name=\"smol\"} 300\n"
    "vllm:time_to_first_token_seconds_bucket{model_name=\"smol\",le=\"0.1\"} 10\n"
    "vllm:time_to_first_token_seconds_bucket{model_name=\"smol\",le=\"0.2\"} 90\n"
    "vllm:time_to_first_token_seconds_bucket{model_name=\"smol\",le=\"+Inf\"} 100\n"
    "yolk_cluster_pages_total 400\nyolk_cluster_pages_used 100\n"
    "yolk_conductor_limit_seconds{stage=\"ttft\"} 0.15\n"
    "nonsense\nmore{ nonsense\nyolk_cluster_pages_used NaN\n";

static const char NODES[] =
    "{\"nodes\":[{\"name\":\"decode-0\",\"role\":\"decode\",\"works\":true,\"decoding\":3,"
    "\"pages_total\":200,\"pages_free\":150,\"pages_cached\":20,\"at_door\":1},\n"
    "{\"name\":\"prefill-1\",\"role\":\"prefill\",\"works\":false,\"state\":\"lost\",\"queued\":-5}"
    ","
    "{\"name\":\"prefill-0\\u001b[2J\",\"role\":\"prefill\",\"works\":true,\"leaving\":true,"
    "\"queued\":7}],\"roles\":null}";

static void read_pages(struct top_look *look)
{
    struct errmsg err = { "" };

    *look = (struct top_look){ .at_ns = 10 * ENV_NS_PER_S };
    assert_int_equal(top_read_metrics(METRICS, strlen(METRICS), look), STATUS_OK);
    assert_int_equal(top_read_nodes(NODES, strlen(NODES), look, &err), STATUS_OK);
}

static void pages_are_read(void **state)
{
    (void)state;
    static struct top_look look;

    read_pages(&look);
    assert_string_equal(look.model, "smol");
    assert_true(look.running == 3 && look.waiting == 2 && look.answered == 40 && look.failed == 1);
    assert_true(look.limited == 9 && look.local == 600 && look.disk == 100 && look.remote == 0);
    assert_true(look.pages_used == 100 && look.ttft_limit == 0.15 && look.tbt_limit == 0);
    assert_int_equal(look.ttft.buckets, 3);
    assert_int_equal(look.nodes_count, 3);
    assert_int_equal(look.nodes_up, 2);
    assert_string_equal(look.nodes[0].name, "prefill-0?[2J"); /* nothing gets at the terminal */
    assert_string_equal(look.nodes[1].name, "prefill-1");
    assert_int_equal(look.nodes[1].queued, 0);
    assert_int_equal(look.nodes[2].at_door, 1);
}

static void other_pages_are_refused(void **state)
{
    (void)state;
    static const char *const BAD[] = { "", "{", "[]", "{\"nodes\":{}}", "{\"nodes\":1}" };
    static struct top_look look;
    struct errmsg err = { "" };

    for (size_t i = 0; i < sizeof(BAD) / sizeof(BAD[0]); i++) {
        assert_int_equal(top_read_metrics(BAD[i], strlen(BAD[i]), &look), STATUS_INVALID);
        assert_int_equal(top_read_nodes(BAD[i], strlen(BAD[i]), &look, &err), STATUS_INVALID);
    }
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* Within the bucket that the true value is in. */
static void quantiles_are_in_their_bucket(void **state)
{
    (void)state;
    enum { COUNT = 200, BUCKETS = 10 };
    struct rng rng;

    rng_init(&rng, test_seed());
    for (int round = 0; round < 200; round++) {
        struct top_histogram then = { .buckets = BUCKETS }, now = { .buckets = BUCKETS };
        const int before = (int)rng_below(&rng, COUNT), count = 1 + (int)rng_below(&rng, COUNT);
        double values[2 * COUNT];
        for (int b = 0; b < BUCKETS; b++) {
            now.bounds[b] = b == BUCKETS - 1 ? (double)INFINITY : (double)b + 1;
            then.bounds[b] = now.bounds[b];
        }
        for (int i = 0; i < before + count; i++) {
            const double value = (double)rng_below(&rng, 11000) / 1000;
            if (i >= before) values[i - before] = value;
            for (int b = 0; b < BUCKETS; b++) {
                if (value > now.bounds[b]) continue;
                now.counts[b]++;
                if (i < before) then.counts[b]++;
            }
        }
        qsort(values, (size_t)count, sizeof(*values), by_value);
        for (int q = 1; q < 100; q += 7) {
            const double want = values[(int)ceil(q / 100.0 * count) - 1];
            const double got = top_quantile(&then, &now, q / 100.0);
            const double most = BUCKETS - 1; /* beyond it nothing is known */
            assert_true(fmin(ceil(want), most) >= floor(got) && fmin(want, most) <= ceil(got));
        }
        assert_true(top_quantile(&now, &now, 0.5) < 0);
    }
}

/* Columns of a line: marks of colours take none, and each code point one. */
static uint32_t columns_of(const char *line, size_t len)
{
    uint32_t columns = 0;

    for (size_t i = 0; i < len; i++) {
        if (line[i] == '\x1b') {
            while (line[i] != 'm')
                i++;
        } else {
            columns += ((unsigned char)line[i] & 0xc0) != 0x80;
        }
    }
    return columns;
}

static void lines_fit(void **state)
{
    (void)state;
    static struct top_look then, now;
    struct buf out;

    read_pages(&now);
    now.answer_tokens = 1e15;
    now.prompt_tokens = 5e6;
    now.refused = 1e7;
    then.at_ns = now.at_ns - ENV_NS_PER_S;
    memset(now.nodes[1].name, 'x', TOP_NAME_SIZE - 1);
    now.nodes[0].queued = UINT32_MAX;
    buf_init(&out, 1 << 20);
    for (uint32_t width = TOP_WIDTH_MIN; width < 200; width++) {
        for (int colour = 0; colour < 2; colour++) {
            struct top_screen screen = { .url = "127.0.0.1:8000",
                                         .width = width,
                                         .colour = colour,
                                         .then = &then,
                                         .now = &now,
                                         .trend = { 0, 5, 1 },
                                         .trend_count = TOP_TREND_MAX };
            buf_clear(&out);
            assert_int_equal(top_draw(&screen, &out), STATUS_OK);
            assert_int_equal(buf_append(&out, "", 1), STATUS_OK);
            const char *at = (const char *)buf_data(&out);
            assert_true(colour || strchr(at, '\x1b') == NULL);
            for (const char *end; (end = strchr(at, '\n')) != NULL; at = end + 1)
                assert_true(columns_of(at, (size_t)(end - at)) <= width);
            assert_int_equal(*at, '\0');
        }
    }
    buf_fini(&out);
}

static void a_screen(void **state)
{
    (void)state;
    static const char WANT[] =
        "yolk  smol  host:1                                               2 of 3 nodes up\n"
        "\n"
        "requests      3 running    2 waiting    10/s done   2.2/s refused   0.2/s failed\n"
        "tokens         0/s in        0/s out\n"
        "1st token  p50  150 ms   p90  200 ms   p99  200 ms   limit 150 ms\n"
        "next token p50       -   p90       -   p99       -\n"
        "cache        70% hit   memory 60%   other nodes 0%   disk 10%\n"
        "KV pages     25%   100 of 400 in use\n"
        "\n"
        "NODE           ROLE     STATE    QUEUE BATCH  DOOR KV USED  CACHED      OF\n"
        "prefill-0?[2J  prefill  leaving      7     0     0       0       0       0\n"
        "prefill-1      prefill  lost         0     0     0       0       0       0\n"
        "decode-0       decode   up           0     3     1      30      20     200\n";
    static struct top_look then, now;
    const struct top_screen screen = { .url = "host:1", .width = 80, .then = &then, .now = &now };
    struct json_doc *doc = NULL;
    struct buf out;

    read_pages(&now);
    then = (struct top_look){ .at_ns = now.at_ns - 4 * ENV_NS_PER_S };
    buf_init(&out, 1 << 20);
    assert_int_equal(top_draw(&screen, &out), STATUS_OK);
    assert_int_equal(buf_append(&out, "", 1), STATUS_OK);
    assert_string_equal((char *)buf_data(&out), WANT);
    buf_clear(&out);
    assert_int_equal(top_write_json(&then, &now, &out), STATUS_OK);
    assert_int_equal(api_json_parse((char *)buf_data(&out), out.len, &doc, NULL), STATUS_OK);
    const struct json_value *root = api_json_root(doc);
    assert_int_equal(api_json_len(api_json_member(root, "nodes")), 3);
    assert_true(api_json_num(api_json_member(api_json_member(root, "ttft_s"), "p50")) == 0.15);
    assert_int_equal(api_json_type_of(api_json_member(api_json_member(root, "tbt_s"), "p50")),
                     JSON_TYPE_NULL);
    api_json_destroy(doc);
    buf_fini(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pages_are_read),
        cmocka_unit_test(other_pages_are_refused),
        cmocka_unit_test(quantiles_are_in_their_bucket),
        cmocka_unit_test(lines_fit),
        cmocka_unit_test(a_screen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
