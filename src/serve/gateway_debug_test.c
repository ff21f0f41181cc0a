/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/gateway_debug_test.c
 *
 * Goal:   the list is JSON whatever is in the logs, newest first and bounded; one decision is found
 *         by its id and says what there is to say.
 * Method: a small Conductor that accepts, refuses, refuses at join, and finishes; the list is read
 *         back with the parser that reads clients' JSON. */
#include "serve/gateway_debug.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "serve/api_json.h"
#include "yolk/explain.h"

enum { OUT_SIZE_MAX = 1 << 20 };

static struct yolk_conductor *make(enum yolk_policy policy, double ttft_ms, double tbt_ms)
{
    struct yolk_conductor_options options = yolk_conductor_defaults();
    const struct yolk_admission_options admission = { .policy = policy,
                                                      .ttft_ms = ttft_ms,
                                                      .tbt_ms = tbt_ms };
    struct yolk_conductor *conductor = NULL;
    const struct yolk_instance nodes[] = {
        { "prefill-0", "host", YOLK_ROLE_PREFILL, 100000, 1000 },
        { "decode-0", "host", YOLK_ROLE_DECODE, 100000, 1000 },
    };
    struct yolk_instance_id id;

    options.block_tokens = 32;
    options.block_size = 1 << 20;
    assert_int_equal(yolk_conductor_create(&options, &conductor, NULL), STATUS_OK);
    for (int i = 0; i < 2; i++)
        assert_int_equal(yolk_conductor_add(conductor, &nodes[i], &id), STATUS_OK);
    assert_int_equal(yolk_conductor_set_admission(conductor, &admission, NULL), STATUS_OK);
    return conductor;
}

static enum status admit(struct yolk_conductor *conductor, const char *id, uint32_t tokens,
                         double now_ms, struct yolk_decision *out)
{
    struct yolk_verdict verdict;
    const struct yolk_place_request request = { .request_id = id,
                                                .tokens = tokens,
                                                .output_tokens = 10,
                                                .avoid_prefill = YOLK_INSTANCE_NONE,
                                                .avoid_decode = YOLK_INSTANCE_NONE,
                                                .avoid_holder = YOLK_INSTANCE_NONE };
    return yolk_conductor_admit(conductor, &request, NULL, now_ms, out, &verdict);
}

/* The list, parsed; the caller destroys *doc. */
static const struct json_value *list(const struct yolk_conductor *conductor, const char *query,
                                     struct json_doc **doc)
{
    struct errmsg err = { "" };
    struct buf out;

    buf_init(&out, OUT_SIZE_MAX);
    assert_int_equal(gateway_debug_list(conductor, 1000, query, &out), STATUS_OK);
    if (api_json_parse((const char *)buf_data(&out), out.len, doc, &err) != STATUS_OK) {
        print_error("%s in %.*s\n", err.text, (int)out.len, (const char *)buf_data(&out));
        fail();
    }
    buf_fini(&out);
    return api_json_member(api_json_root(*doc), "decisions");
}

static void member_is(const struct json_value *entry, const char *name, const char *text)
{
    size_t len = 0;
    const char *have = api_json_str(api_json_member(entry, name), &len);
    assert_int_equal(len, strlen(text));
    assert_memory_equal(have, text, len);
}

static bool accepted(const struct json_value *entry)
{
    return api_json_bool(api_json_member(entry, "accepted"));
}

/* How often `text` is in the explanation. */
static int said(const struct yolk_conductor *conductor, const char *id, const char *text)
{
    struct buf out;
    int times = 0;

    buf_init(&out, OUT_SIZE_MAX);
    assert_int_equal(gateway_debug_explain(conductor, 1000, id, &out), STATUS_OK);
    assert_int_equal(buf_append(&out, "", 1), STATUS_OK);
    for (const char *at = (const char *)buf_data(&out); (at = strstr(at, text)) != NULL; at++)
        times++;
    buf_fini(&out);
    return times;
}

static void explains(const struct yolk_conductor *conductor, const char *id, const char *text)
{
    struct buf out;

    buf_init(&out, OUT_SIZE_MAX);
    assert_int_equal(gateway_debug_explain(conductor, 1000, id, &out), STATUS_OK);
    assert_int_equal(buf_append(&out, "", 1), STATUS_OK);
    if (strstr((const char *)buf_data(&out), text) == NULL) {
        print_error("no \"%s\" in %s\n", text, (const char *)buf_data(&out));
        fail();
    }
    buf_fini(&out);
}

static void test_nothing_yet(void **state)
{
    (void)state;
    struct json_doc *doc = NULL;
    struct buf out;

    assert_int_equal(api_json_len(list(NULL, "", &doc)), 0);
    api_json_destroy(doc);
    buf_init(&out, OUT_SIZE_MAX);
    assert_int_equal(gateway_debug_explain(NULL, 0, "x", &out), STATUS_NOT_FOUND);
    assert_int_equal(out.len, 0);
    buf_fini(&out);
}

static void test_both_logs_are_merged(void **state)
{
    (void)state;
    struct yolk_conductor *c = make(YOLK_POLICY_EARLY, 3000, 1000);
    struct yolk_decision first, later;
    struct json_doc *doc = NULL;

    assert_int_equal(admit(c, "one \"quoted\\\" id", 1024, 0, &first), STATUS_OK);
    assert_int_equal(admit(c, "two", 100000, 10, &later), STATUS_BUSY);
    assert_int_equal(admit(c, "three", 100, 20, &later), STATUS_OK);
    yolk_conductor_prefill_done(c, first.ticket, 64, 900);
    yolk_conductor_decoded(c, first.ticket, 7);
    yolk_conductor_finish(c, first.ticket, STATUS_OK, 950);

    const struct json_value *entries = list(c, "limit=10", &doc);
    assert_int_equal(api_json_len(entries), 3);
    member_is(api_json_at(entries, 0), "request_id", "three");
    assert_true(accepted(api_json_at(entries, 0)));
    assert_int_equal(api_json_type_of(api_json_member(api_json_at(entries, 0), "actual")),
                     JSON_TYPE_NULL);
    member_is(api_json_at(entries, 1), "request_id", "two");
    assert_false(accepted(api_json_at(entries, 1)));
    member_is(api_json_at(entries, 1), "refusal", "ttft");
    const struct json_value *oldest = api_json_at(entries, 2);
    member_is(oldest, "request_id", "one \"quoted\\\" id");
    member_is(oldest, "prefill", "prefill-0");
    const struct json_value *actual = api_json_member(oldest, "actual");
    assert_int_equal(api_json_int(api_json_member(actual, "output_tokens")), 7);
    member_is(actual, "outcome", "ok");
    api_json_destroy(doc);

    assert_int_equal(api_json_len(list(c, "limit=2", &doc)), 2);
    api_json_destroy(doc);
    assert_int_equal(api_json_len(list(c, "limit=no", &doc)), 0);
    api_json_destroy(doc);
    explains(c, "two", "refused 1.0 s ago (ttft)");
    explains(c, "two", "right: it could not"); /* longer than the limit by itself */
    explains(c, "three", "nothing yet");
    explains(c, "one \"quoted\\\" id", "ok after 950.0 ms, 7 tokens");
    yolk_conductor_destroy(c);
}

static void test_refused_at_join(void **state)
{
    (void)state;
    struct yolk_conductor *c = make(YOLK_POLICY_BASELINE, 0, 1); /* not even one may decode */
    struct yolk_decision decision;
    struct yolk_verdict verdict;
    struct json_doc *doc = NULL;

    assert_int_equal(admit(c, "one", 1024, 0, &decision), STATUS_OK);
    assert_int_equal(yolk_conductor_admit_join(c, decision.ticket, 10, &verdict), STATUS_BUSY);
    yolk_conductor_finish(c, decision.ticket, STATUS_BUSY, 10);
    const struct json_value *entries = list(c, "", &doc);
    assert_false(accepted(api_json_at(entries, 0)));
    member_is(api_json_at(entries, 0), "refusal", "tbt_at_join");
    api_json_destroy(doc);
    explains(c, "one", "refused after its prefill");
    yolk_conductor_destroy(c);
}

/* What failed before the attempt that answered is not kept from who asks. */
static void test_earlier_attempts_are_told(void **state)
{
    (void)state;
    struct yolk_conductor *c = make(YOLK_POLICY_NONE, 0, 0);
    struct yolk_decision decision;

    for (int i = 0; i < DEBUG_EARLIER_MAX + 3; i++) {
        assert_int_equal(admit(c, "often", 1024, 10.0 * i, &decision), STATUS_OK);
        yolk_conductor_finish(c, decision.ticket, STATUS_TIMEOUT, 10.0 * i + 7);
        assert_int_equal(admit(c, "once", 1024, 10.0 * i + 1, &decision), STATUS_OK);
    }
    assert_int_equal(admit(c, "often", 1024, 500, &decision), STATUS_OK);
    explains(c, "often", "often: accepted 0.5 s ago");
    explains(c, "often", "earlier     0.9 s ago at prefill-0 and decode-0: timeout after 7.0 ms");
    assert_int_equal(said(c, "often", "earlier"), DEBUG_EARLIER_MAX);
    assert_int_equal(said(c, "once", "earlier"), DEBUG_EARLIER_MAX);
    yolk_conductor_destroy(c);
}

static void test_the_list_is_bounded(void **state)
{
    (void)state;
    struct yolk_conductor *c = make(YOLK_POLICY_PREDICT, 1, 0);
    struct yolk_decision decision;
    struct json_doc *doc = NULL;
    char id[16];

    for (int i = 0; i < 3000; i++) {
        snprintf(id, sizeof(id), "r%d", i);
        assert_int_equal(admit(c, id, 1024, i, &decision), STATUS_BUSY);
    }
    const struct json_value *entries = list(c, "limit=99999", &doc);
    assert_int_equal(api_json_len(entries), DEBUG_LIST_MAX);
    member_is(api_json_at(entries, 0), "request_id", "r2999");
    api_json_destroy(doc);
    assert_int_equal(api_json_len(list(c, "", &doc)), DEBUG_LIST_DEFAULT);
    api_json_destroy(doc);
    yolk_conductor_destroy(c);
}

/* Two prefill nodes; the one that was chosen takes far longer than the other would have. */
static void test_why(void **state)
{
    (void)state;
    struct yolk_conductor *c = make(YOLK_POLICY_NONE, 0, 0);
    const struct yolk_instance other = { "prefill-1", "host", YOLK_ROLE_PREFILL, 100000, 1000 };
    struct block_key keys[10];
    struct yolk_place_request request = { .request_id = "slow",
                                          .tokens = 321,
                                          .output_tokens = 1,
                                          .keys = keys,
                                          .keys_count = 10,
                                          .avoid_prefill = YOLK_INSTANCE_NONE,
                                          .avoid_decode = YOLK_INSTANCE_NONE,
                                          .avoid_holder = YOLK_INSTANCE_NONE };
    struct yolk_decision decision;
    struct yolk_instance_id id;
    struct json_doc *doc = NULL;

    memset(keys, 7, sizeof(keys));
    for (uint8_t i = 0; i < 10; i++)
        keys[i].bytes[0] = i;
    assert_int_equal(yolk_conductor_add(c, &other, &id), STATUS_OK);
    assert_int_equal(yolk_conductor_stored(c, id, keys, 6, YOLK_TIER_DRAM), STATUS_OK);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(yolk_conductor_place(c, &request, 0, &decision), STATUS_OK);
        yolk_conductor_missed(c, decision.ticket, YOLK_MISS_TIMEOUT);
        const struct json_value *entry = api_json_at(list(c, "", &doc), 0);
        assert_int_equal(api_json_type_of(api_json_member(entry, "regret_ms")), JSON_TYPE_NULL);
        api_json_destroy(doc);
        yolk_conductor_prefill_done(c, decision.ticket, 64, 90000);
        yolk_conductor_finish(c, decision.ticket, STATUS_OK, 90001);
    }
    const struct json_value *entry = api_json_at(list(c, "", &doc), 0);
    const struct json_value *candidates = api_json_member(entry, "candidates");
    const struct json_value *prefill = api_json_member(candidates, "prefill");
    assert_int_equal(api_json_len(prefill), 2);
    member_is(api_json_at(prefill, 0), "name", "prefill-1");
    assert_true(api_json_num(api_json_member(api_json_at(prefill, 0), "hindsight_ms")) == 90000);
    member_is(api_json_at(api_json_member(candidates, "decode"), 0), "name", "decode-0");
    assert_true(api_json_num(api_json_member(entry, "regret_ms")) > 80000);
    const struct json_value *hits = api_json_member(entry, "hits");
    assert_int_equal(api_json_int(api_json_member(hits, "reusable_blocks")), 10);
    assert_int_equal(api_json_int(api_json_member(hits, "predicted_blocks")), 6);
    assert_int_equal(api_json_int(api_json_member(hits, "reused_blocks")), 2);
    const struct json_value *missed = api_json_member(hits, "missed");
    assert_int_equal(api_json_int(api_json_member(missed, "timeout")), 4);
    assert_int_equal(api_json_int(api_json_member(missed, "never_seen")), 4);
    assert_null(api_json_member(missed, "salt"));
    const struct json_value *all = api_json_member(api_json_root(doc), "hits");
    assert_true(api_json_bool(api_json_member(all, "alarm")));
    member_is(all, "mostly", "timeout");
    assert_int_equal(
        api_json_int(api_json_member(api_json_member(api_json_root(doc), "regret"), "judged")), 20);
    api_json_destroy(doc);
    explains(c, "slow", "took 90000.0 ms");
    explains(c, "slow", "would have taken");
    explains(c, "slow", "4 timeout: counted on");
    explains(c, "slow", "4 never_seen");
    explains(c, "slow", "alarm       of 120 blocks predicted to be reused by the last 20");
    yolk_conductor_destroy(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_yet),
        cmocka_unit_test(test_both_logs_are_merged),
        cmocka_unit_test(test_refused_at_join),
        cmocka_unit_test(test_earlier_attempts_are_told),
        cmocka_unit_test(test_the_list_is_bounded),
        cmocka_unit_test(test_why),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
