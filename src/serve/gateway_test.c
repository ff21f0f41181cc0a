/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/gateway_test.c
 *
 * Goal:   whatever nodes do, each client gets exactly the answer that no failure would have given
 *         it, or one precise error, once; and work stops when nobody waits for it.
 * Method: a real gateway among simulated nodes (tests/gateway_world.h), which are killed, hung and
 *         brought back at every moment. SEED=n replays. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/log.h"
#include "gateway_world.h"
#include "yolk/explain.h"

static void test_answers(void **state)
{
    (void)state;
    struct client client;
    char want[64];

    start_pair();
    answer_to(PROMPT, 20, want);
    complete(&client, BODY(",\"max_tokens\":20"));
    expect_body(&client, 200, want);
    complete(&client, BODY(",\"max_tokens\":20,\"stream\":true"));
    expect_stream(&client, want);
    /* The end is the model's own. */
    world.fakes[0].eos_after = 7;
    world.fakes[1].eos_after = 7;
    answer_to(PROMPT, 7, want);
    complete(&client, BODY(",\"max_tokens\":20,\"stream\":true"));
    expect_stream(&client, want);
    complete(&client, BODY(",\"max_tokens\":20"));
    expect_body(&client, 200, "\"finish_reason\":\"stop\"");
    complete(&client, BODY(",\"max_tokens\":20"));
    expect_body(&client, 200,
                "\"usage\":{\"prompt_tokens\":35,\"completion_tokens\":7,\"total_tokens\":42,"
                "\"prompt_tokens_details\":{\"cached_tokens\":16}}");
    stop_world();
}

static void test_stop_string_cancels(void **state)
{
    (void)state;
    struct client client;
    char want[64], body[256], stop[4];

    start_pair();
    answer_to(PROMPT, 40, want);
    snprintf(stop, sizeof(stop), "%.3s", want + 20);
    char *first = strstr(want, stop);
    snprintf(
        body, sizeof(body),
        "{\"prompt\":\"%s\",\"temperature\":0,\"max_tokens\":500,\"stop\":\"%s\",\"stream\":true}",
        PROMPT, stop);
    complete(&client, body);
    *first = '\0';
    expect_stream(&client, want);
    run_ms(100);
    assert_int_equal(world.fakes[1].cancelled, 1);
    assert_true(gateway_idle(world.gateway));
    stop_world();
}

static void test_hangup_cancels(void **state)
{
    (void)state;
    struct client client;

    start_pair();
    for (uint64_t after = 1; after < 200; after += 33) {
        const uint32_t before = world.fakes[1].cancelled, opened = world.fakes[1].opened;
        complete(&client, BODY(",\"max_tokens\":900,\"stream\":true"));
        run_ms(after);
        http_client_cancel(client.http);
        buf_fini(&client.body);
        run_ms(100);
        assert_int_equal(world.fakes[1].cancelled - before, world.fakes[1].opened - opened);
        assert_true(gateway_idle(world.gateway));
    }
    stop_world();
}

/* Nodes die at every moment; the stream goes on where it was. */
static void test_node_lost(void **state)
{
    (void)state;
    struct client client;
    char want[128];

    answer_to(PROMPT, 60, want);
    for (int victim = 0; victim < 2; victim++) {
        for (uint64_t after = 1; after < 350; after += 23) {
            start_pair();
            complete(&client, BODY(",\"max_tokens\":60,\"stream\":true"));
            run_ms(after);
            stop_fake(victim, true);
            run_ms(1000);
            start_fake(victim, victim == 0 ? PROTO_ROLE_PREFILL : PROTO_ROLE_DECODE);
            expect_stream(&client, want);
            run_ms(3000);
            assert_true(gateway_is_ready(world.gateway));
            assert_true(gateway_idle(world.gateway));
            stop_world();
        }
    }
}

/* A decode node leaves at every moment: its streams go on at the other one, nobody is placed at it
 * again, and it is not needed any more. A prefill node that leaves finishes what it has. */
static void test_node_leaves(void **state)
{
    (void)state;
    struct client client, late;
    char want[128];

    answer_to(PROMPT, 60, want);
    for (uint64_t after = 1; after < 350; after += 31) {
        start_pair();
        start_fake(2, PROTO_ROLE_DECODE);
        run_ms(3000);
        complete(&client, BODY(",\"max_tokens\":60,\"stream\":true"));
        run_ms(after);
        const int from = world.fakes[1].opened > 0 ? 1 : 2, to = 3 - from;
        const uint32_t opened = world.fakes[from].opened;
        const bool decodes = opened > 0 && !client.done;
        leave_fake(from);
        leave_fake(0);
        run_ms(50);
        assert_true(!decodes || world.fakes[to].opened > 0);
        assert_false(gateway_is_ready(world.gateway)); /* nobody prefills */
        assert_int_equal(world.fakes[from].opened, opened);
        for (const struct work *w = world.fakes[from].works; w != NULL; w = w->next)
            assert_true(w->over);
        stop_fake(from, true);
        start_fake(3, PROTO_ROLE_PREFILL);
        expect_stream(&client, want);
        complete(&late, BODY(",\"max_tokens\":60,\"stream\":true"));
        expect_stream(&late, want);
        assert_true(!decodes || metric("yolk_gateway_handed_over_total ") > 0);
        assert_true(gateway_is_ready(world.gateway));
        stop_world();
    }
}

/* Nodes whose KV is another's get no work, and learn what is wrong with them; who fits goes on. */
static void test_odd_nodes_are_refused(void **state)
{
    (void)state;
    static const char *const WHY[] = {
        [ODD_ISA] = "its instruction set is abacus, that of the nodes here none",
        [ODD_MODEL] = "its model is another (oracle) than the nodes here have (hash)",
        [ODD_VOCAB] = "its vocabulary has ",
        [ODD_BLOCKS] = "its blocks have 32 tokens, those here 16",
        [ODD_KV] = "its KV is of type q8_0, that of the nodes here f16",
    };
    struct client client;
    char want[128];

    answer_to(PROMPT, 20, want);
    for (int odd = ODD_ISA; odd <= ODD_KV; odd++) {
        start_pair();
        start_fake(2, PROTO_ROLE_DECODE);
        world.fakes[2].odd = odd;
        run_ms(1000);
        if (strstr(world.fakes[2].refused, WHY[odd]) == NULL)
            fail_msg("not '%s': '%s'", WHY[odd], world.fakes[2].refused);
        complete(&client, BODY(",\"max_tokens\":20,\"stream\":true"));
        expect_stream(&client, want);
        assert_int_equal(world.fakes[2].opened, 0);
        stop_fake(2, true); /* in its next life it is one of us */
        start_fake(2, PROTO_ROLE_DECODE);
        stop_fake(1, true);
        run_ms(1000);
        complete(&client, BODY(",\"max_tokens\":20,\"stream\":true"));
        expect_stream(&client, want);
        assert_int_equal(world.fakes[2].opened, 1);
        stop_world();
    }
}

/* A pair that has been there for a while, and what it will answer with 60 tokens. */
static void start_well(char want[128])
{
    answer_to(PROMPT, 60, want);
    start_pair();
    run_ms(3000);
}

/* The master misses the node, or does not any more. */
static void set_suspect(int node, bool suspect)
{
    world.fakes[node].suspect = suspect;
    tell_member(&world.fakes[node], false);
}

/* It stands still no longer, and nobody misses it: all is well after a while. */
static void come_back(int node)
{
    env_sim_resume(world.fakes[node].env);
    set_suspect(node, false);
    run_ms(3000);
    assert_true(gateway_is_ready(world.gateway) && gateway_idle(world.gateway));
}

/* A decode node stands still, and the master misses it: its streams go on elsewhere long before
 * the connection is given up. If the master alone misses it, nothing moves. */
static void test_node_suspected(void **state)
{
    (void)state;
    struct client client;
    char want[128];

    answer_to(PROMPT, 60, want);
    for (int still = 0; still < 2; still++) {
        start_pair();
        start_fake(2, PROTO_ROLE_DECODE);
        run_ms(3000);
        complete(&client, BODY(",\"max_tokens\":60,\"stream\":true"));
        run_ms(150);
        const int from = world.fakes[1].opened > 0 ? 1 : 2;
        if (still) {
            env_sim_pause(world.fakes[from].env);
            run_ms(2000);
        }
        set_suspect(from, true);
        run_ms(1000);
        assert_true(client.done);
        expect_stream(&client, want);
        assert_int_equal(world.fakes[3 - from].opened, still);
        come_back(from);
        stop_world();
    }
}

/* The only decode node stands still: the prefill node goes on with its streams, alone, long before
 * their connection is given up; when it is back, it decodes again. */
static void test_only_decode_node_suspected(void **state)
{
    (void)state;
    struct client client;
    char want[128];

    start_well(want);
    complete(&client, BODY(",\"max_tokens\":60,\"stream\":true"));
    run_ms(150);
    env_sim_pause(world.fakes[1].env);
    run_ms(2000);
    assert_false(client.done);
    set_suspect(1, true);
    run_ms(1000);
    assert_true(client.done);
    expect_stream(&client, want);
    assert_int_equal(world.fakes[0].opened, 1);
    assert_int_equal(world.fakes[0].computed, 1); /* and sends nothing to itself */
    assert_int_equal(world.fakes[0].runs, 1);
    come_back(1);
    complete(&client, BODY(",\"max_tokens\":60,\"stream\":true"));
    expect_stream(&client, want);
    assert_int_equal(world.fakes[1].opened, 2);
    stop_world();
}

/* A prefill node stands still with a prompt: the decode node computes it, seconds later. */
static void test_prefill_node_suspected(void **state)
{
    (void)state;
    struct client client;
    char want[128];

    start_well(want);
    env_sim_pause(world.fakes[0].env);
    complete(&client, BODY(",\"max_tokens\":60,\"stream\":true"));
    run_ms(2000);
    set_suspect(0, true);
    run_ms(3500);
    assert_true(client.done);
    expect_stream(&client, want);
    assert_int_equal(world.fakes[1].computed, 1);
    come_back(0);
    stop_world();
}

/* The only decode node: what it has ends there, what is new goes to who is left. */
static void test_only_decode_node_leaves(void **state)
{
    (void)state;
    struct client client, late;
    char want[128];

    answer_to(PROMPT, 60, want);
    start_pair();
    complete(&client, BODY(",\"max_tokens\":60,\"stream\":true"));
    run_ms(150);
    leave_fake(1);
    run_ms(20);
    complete(&late, BODY(",\"max_tokens\":60,\"stream\":true"));
    expect_stream(&client, want);
    expect_stream(&late, want);
    assert_int_equal(world.fakes[1].opened, 1);
    assert_int_equal(world.fakes[0].opened, 1);
    assert_true(metric("yolk_gateway_handed_over_total ") == 0);
    stop_world();
}

/* Everything dies, and comes back: the client only waits. */
static void test_all_lost_and_back(void **state)
{
    (void)state;
    struct client client;
    char want[128];

    start_pair();
    answer_to(PROMPT, 60, want);
    complete(&client, BODY(",\"max_tokens\":60,\"stream\":true"));
    run_ms(150);
    stop_fake(0, true);
    stop_fake(1, true);
    run_ms(20000);
    assert_false(gateway_is_ready(world.gateway));
    start_fake(0, PROTO_ROLE_PREFILL);
    start_fake(1, PROTO_ROLE_DECODE);
    expect_stream(&client, want);
    stop_world();
}

static void test_nobody_there(void **state)
{
    (void)state;
    struct client client;

    start_world(&NO_CHANGES);
    const uint64_t start_ns = env_now_ns(world.client_env);
    complete(&client, BODY(",\"max_tokens\":5"));
    expect_body(&client, 503, "no_nodes");
    const uint64_t took_ns = env_now_ns(world.client_env) - start_ns;
    assert_true(took_ns >= 30 * ENV_NS_PER_S && took_ns < 31 * ENV_NS_PER_S);
    ask(&client, "GET", "/ready", NULL);
    expect_body(&client, 503, "\"ready\":false");
    ask(&client, "GET", "/health", NULL);
    expect_body(&client, 200, "");
    stop_world();
}

/* Each way an attempt can fail by itself: another placement answers, or a precise error. */
static void test_failures(void **state)
{
    (void)state;
    static const enum proto_cause AGAIN[] = { PROTO_CAUSE_INTERNAL, PROTO_CAUSE_SOURCE,
                                              PROTO_CAUSE_PUSH,     PROTO_CAUSE_PAGES,
                                              PROTO_CAUSE_QUEUE,    PROTO_CAUSE_STALE,
                                              PROTO_CAUSE_SHUTDOWN };
    struct client client;
    char want[32];

    start_pair();
    answer_to(PROMPT, 10, want);
    for (size_t i = 0; i < sizeof(AGAIN) / sizeof(AGAIN[0]); i++) {
        world.fakes[1].fail_next = AGAIN[i];
        complete(&client, BODY(",\"max_tokens\":10"));
        expect_body(&client, 200, want);
    }
    world.fakes[1].fail_next = PROTO_CAUSE_CONTEXT;
    complete(&client, BODY(",\"max_tokens\":10"));
    expect_body(&client, 400, "context_length_exceeded");
    world.fakes[1].fail_next = PROTO_CAUSE_INVALID;
    complete(&client, BODY(",\"max_tokens\":10"));
    expect_body(&client, 500, "internal_error");
    assert_true(gateway_idle(world.gateway));
    stop_world();
}

/* More than the decode node holds: the rest waits its turn, and all are right. Who waits for room
 * does not wait for a node: wait_ms is nothing to him, wherever he stands in the queue. */
static void test_queue(void **state)
{
    (void)state;
    enum { CLIENTS = 30 };
    static struct client clients[CLIENTS];
    const struct gateway_options few = { .sequences_max = 4,
                                         .requests_max = CLIENTS,
                                         .wait_ms = 300 };
    char want[64];
    struct client extra;

    start_world(&few);
    start_fake(0, PROTO_ROLE_PREFILL);
    start_fake(1, PROTO_ROLE_DECODE);
    run_ms(1000);
    answer_to(PROMPT, 50, want);
    for (int i = 0; i < CLIENTS; i++)
        complete(&clients[i], BODY(",\"max_tokens\":50"));
    run_ms(100);
    complete(&extra, BODY(",\"max_tokens\":50"));
    expect_body(&extra, 429, "overloaded");
    for (int i = 0; i < CLIENTS; i++)
        expect_body(&clients[i], 200, want);
    ask(&extra, "GET", "/metrics", NULL);
    expect_body(&extra, 200, "vllm:num_requests_running{model_name=\"tiny\"} 0");
    stop_world();
}

/* The limits on waiting are on waiting only: an answer may take longer. */
static void test_waiting_limits_end_with_waiting(void **state)
{
    (void)state;
    const struct gateway_options impatient = { .wait_ms = 200, .queue_ms = 200 };
    struct client client;
    char want[128];

    start_world(&impatient);
    start_fake(0, PROTO_ROLE_PREFILL);
    start_fake(1, PROTO_ROLE_DECODE);
    run_ms(1000);
    answer_to(PROMPT, 100, want);
    complete(&client, BODY(",\"max_tokens\":100,\"stream\":true"));
    expect_stream(&client, want);
    stop_world();
}

static void test_routes(void **state)
{
    (void)state;
    static const struct {
        const char *method, *path, *body;
        int code;
        const char *word;
    } CASES[] = {
        { "GET", "/ready", NULL, 200, "true" },
        { "GET", "/v1/models", NULL, 200, "\"id\":\"tiny\"" },
        { "GET", "/v1/models/tiny", NULL, 200, "\"id\":\"tiny\"" },
        { "GET", "/v1/models/other", NULL, 404, "model_not_found" },
        { "DELETE", "/v1/models/tiny", NULL, 405, "method_not_allowed" },
        { "GET", "/v1/completions", NULL, 405, "POST" },
        { "GET", "/nothing", NULL, 404, "not_found" },
        { "POST", "/v1/completions", "{", 400, "invalid_json" },
        { "POST", "/v1/completions", "{\"prompt\":\"x\",\"model\":\"y\"}", 404, "model_not_found" },
        { "POST", "/v1/completions", "{\"prompt\":[500000]}", 400, "vocabulary" },
        { "POST", "/v1/chat/completions", "{\"messages\":[]}", 400, "messages" },
        { "POST", "/v1/chat/completions",
          "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"max_tokens\":2}", 200,
          "chat.completion" },
    };
    struct client client;
    char body[5000];

    start_pair();
    for (size_t i = 0; i < sizeof(CASES) / sizeof(CASES[0]); i++) {
        ask(&client, CASES[i].method, CASES[i].path, CASES[i].body);
        expect_body(&client, CASES[i].code, CASES[i].word);
    }
    /* The nodes take 1,024 tokens; one has to be left. */
    for (int len = 1022; len < 1026; len++) {
        memset(body, 'x', sizeof(body));
        memcpy(body, "{\"prompt\":\"", 11);
        snprintf(body + 11 + len, sizeof(body) - 11 - (size_t)len, "\"}");
        complete(&client, body);
        expect_body(&client, len < 1024 ? 200 : 400,
                    len < 1024 ? "length" : "context_length_exceeded");
    }
    stop_world();
}

/* What was learned is there after a restart; a broken file is no obstacle. */
/* The directory of a profile is made; where it cannot be, the gateway works without. */
static void test_profile_directory(void **state)
{
    (void)state;
    static const char *const PATHS[] = { "x/y/z/profile.json", "tiny.gguf/y/profile.json" };
    char *text = NULL;
    size_t len = 0;

    for (int i = 0; i < 2; i++) {
        const struct gateway_options options = { .profile_path = PATHS[i] };
        struct client client;
        start_world(&options);
        start_fake(0, PROTO_ROLE_PREFILL);
        start_fake(1, PROTO_ROLE_DECODE);
        run_ms(1000);
        complete(&client, BODY(",\"max_tokens\":5"));
        expect_body(&client, 200, "text_completion");
        gateway_destroy(world.gateway);
        world.gateway = NULL;
        const enum status status =
            env_file_read_all(world.gateway_env, PATHS[i], 65536, &text, &len, NULL);
        assert_true((status == STATUS_OK) == (i == 0));
        free(text);
        text = NULL;
        stop_world();
    }
}

/* Room is kept for as many tokens as answers have been seen to take: answers of ten tokens leave
 * room for many more requests at once than the guess that was made before there was any. */
static void test_room_follows_answers(void **state)
{
    (void)state;
    enum { CLIENTS = 40, LESSONS = 60 };
    static const char CHAT[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}";
    static struct client clients[CLIENTS];
    struct client lesson;

    start_pair();
    world.fakes[1].eos_after = 10;
    for (int i = 0; i < LESSONS; i++) {
        ask(&lesson, "POST", "/v1/chat/completions", CHAT);
        expect_body(&lesson, 200, "stop");
    }
    const uint32_t before = world.fakes[1].opened;
    for (int i = 0; i < CLIENTS; i++)
        ask(&clients[i], "POST", "/v1/chat/completions", CHAT);
    run_ms(15);
    assert_int_equal(world.fakes[1].opened - before, CLIENTS); /* nobody waits for room */
    for (int i = 0; i < CLIENTS; i++)
        expect_body(&clients[i], 200, "stop");
    stop_world();
}

/* Lines of the log that name this event. */
struct lines {
    const char *event;
    uint32_t count;
};

static void count_lines(void *ctx, const char *line, size_t len)
{
    struct lines *lines = ctx;
    char text[LOG_LINE_MAX + 1];

    snprintf(text, sizeof(text), "%.*s", (int)len, line);
    lines->count += strstr(text, lines->event) != NULL;
}

/* A node that has nothing of what it said: the log says so once, and once a minute, /metrics while
 * it lasts; then the log that it is over. */
static void test_hits_that_do_not_realise(void **state)
{
    (void)state;
    struct client client;
    struct lines missing = { "ev=predicted_hits_missing", 0 };
    struct lines back = { "ev=predicted_hits_back", 0 };

    start_pair();
    complete(&client, BODY(",\"max_tokens\":2"));
    expect_body(&client, 200, "text_completion");
    tell_events(&world.fakes[0], 0, world.fakes[0].keys_count);
    world.fakes[0].finds = FINDS_NONE;
    assert_int_equal(log_configure("error,gateway=info", NULL), STATUS_OK);
    log_set_sink(count_lines, &missing);
    for (int i = 0; i < 40; i++) {
        if (i == 30) run_ms(61000);
        complete(&client, BODY(",\"max_tokens\":2"));
        expect_body(&client, 200, "text_completion");
    }
    assert_int_equal(missing.count, 2);
    ask(&client, "GET", "/metrics", NULL);
    expect_body(&client, 200, "yolk_conductor_hits_alarm 1");
    ask(&client, "GET", "/debug/decisions", NULL);
    expect_body(&client, 200, "\"alarm\":true,\"mostly\":\"evicted\"");
    world.fakes[0].finds = FINDS_ALL;
    log_set_sink(count_lines, &back);
    for (int i = 0; i < YOLK_HITS_WINDOW; i++) {
        complete(&client, BODY(",\"max_tokens\":2"));
        expect_body(&client, 200, "text_completion");
    }
    assert_int_equal(back.count, 1);
    log_set_sink(NULL, NULL);
    assert_int_equal(log_configure("error", NULL), STATUS_OK);
    ask(&client, "GET", "/metrics", NULL);
    expect_body(&client, 200, "yolk_conductor_hits_alarm 0");
    stop_world();
}

static void test_profile(void **state)
{
    (void)state;
    struct client client;
    struct errmsg err = { "" };
    char *text = NULL;
    size_t len = 0;

    start_pair();
    complete(&client, BODY(",\"max_tokens\":5"));
    expect_body(&client, 200, "text_completion");
    gateway_destroy(world.gateway);
    run_ms(1000);
    assert_int_equal(env_file_read_all(world.gateway_env, "profile.json", 65536, &text, &len, &err),
                     STATUS_OK);
    assert_non_null(strstr(text, "prefill"));
    free(text);
    assert_int_equal(env_file_replace(world.gateway_env, "profile.json", "{", 1, &err), STATUS_OK);
    start_gateway(&NO_CHANGES);
    run_ms(3000);
    complete(&client, BODY(",\"max_tokens\":5"));
    expect_body(&client, 200, "text_completion");
    stop_world();
}

/* ---- everything at once ---- */

enum { CHAOS_CLIENTS = 12, CHAOS_STEPS = 40, CHAOS_WORLDS = 25 };

static enum proto_role role_of(int i)
{
    return i % 2 == 0 ? PROTO_ROLE_PREFILL : PROTO_ROLE_DECODE;
}

/* Kills somebody, or brings somebody back, or asks, or says that somebody leaves. */
static void chaos_step(struct client *clients, int *asked)
{
    const int i = (int)env_sim_random(world.sim, FAKES);

    switch (env_sim_random(world.sim, 5)) {
    case 0: stop_fake(i, true); break;
    case 4: leave_fake(i); break;
    case 1:
    case 2:
        if (!world.fakes[i].alive) start_fake(i, role_of(i));
        break;
    default:
        if (*asked == CHAOS_CLIENTS) break;
        complete(&clients[(*asked)++], BODY(",\"max_tokens\":60,\"stream\":true"));
        break;
    }
    run_ms(1 + env_sim_random(world.sim, 150));
}

/* The client's own connection may break; but a whole answer is the right one. True if it was. */
static bool chaos_check(struct client *client, const char *want)
{
    assert_true(env_sim_run_until(world.sim, is_done, client, 900 * ENV_NS_PER_S));
    const bool whole = client->reply.status == STATUS_OK && client->reply.code == 200;

    if (whole) {
        expect_stream(client, want);
    } else {
        buf_fini(&client->body);
    }
    return whole;
}

/* Roles change at the least occasion, in half of the worlds. */
static struct gateway_options chaos_options(uint64_t round)
{
    struct gateway_options options = NO_CHANGES;

    if (round % 2 == 0) return options;
    options.sequences_max = 3;
    options.elastic = (struct yolk_elastic_options){
        .on = true, .ttft_ms = 20, .window_ms = 200, .dwell_ms = 300, .drain_ms = 50
    };
    return options;
}

static void test_chaos(void **state)
{
    (void)state;
    const uint64_t seed = test_seed();
    char want[128];
    int whole = 0, asked_in_all = 0;

    answer_to(PROMPT, 60, want);
    for (uint64_t round = 0; round < CHAOS_WORLDS; round++) {
        const struct env_sim_options faults = { .seed = seed + round,
                                                .conn_loss_ppm = 200,
                                                .conn_refuse_ppm = 20000,
                                                .slow_ppm = 5000,
                                                .flip_ppm = round % 2 == 0 ? 2000 : 0,
                                                .flip_spares = "10.0.0.3", /* HTTP */
                                                .buggify_ppm = 20000 };
        struct client clients[CHAOS_CLIENTS];
        int asked = 0;

        const struct gateway_options options = chaos_options(round);
        start_world_with(&faults, &options);
        for (int i = 0; i < FAKES; i++)
            start_fake(i, role_of(i));
        run_ms(1000);
        for (int step = 0; step < CHAOS_STEPS; step++)
            chaos_step(clients, &asked);
        env_sim_calm(world.sim);
        for (int i = 0; i < FAKES; i++) {
            if (world.fakes[i].leaving) stop_fake(i, true);
            if (!world.fakes[i].alive) start_fake(i, role_of(i));
        }
        for (int i = 0; i < asked; i++)
            whole += chaos_check(&clients[i], want);
        asked_in_all += asked;
        run_ms(5000);
        assert_true(gateway_idle(world.gateway));
        assert_true(gateway_is_ready(world.gateway));
        for (int i = 0; i < FAKES; i++) {
            for (const struct work *w = world.fakes[i].works; w != NULL; w = w->next) {
                assert_true(w->over);
            }
        }
        stop_world();
    }
    printf("%d of %d answers were whole\n", whole, asked_in_all);
    assert_true(whole > asked_in_all / 2);
}

static uint32_t count_role(enum proto_role role)
{
    uint32_t count = 0;
    for (int i = 0; i < FAKES; i++)
        count += world.fakes[i].alive && world.fakes[i].role == role;
    return count;
}

static void start_elastic(const struct yolk_elastic_options *elastic)
{
    struct gateway_options options = NO_CHANGES;

    options.sequences_max = 4;
    options.elastic = *elastic;
    start_world(&options);
    for (int i = 0; i < 3; i++)
        start_fake(i, PROTO_ROLE_PREFILL);
    start_fake(3, PROTO_ROLE_DECODE);
    run_ms(3000);
    assert_true(gateway_is_ready(world.gateway));
}

enum { LONG = 800, LONGS = 10, SHORTS = 200, SHORT_GAP_MS = 10 };

/* More long answers than one node decodes at once: prefill nodes come to its help, and go back when
 * many first tokens are wanted. Long answers that are under way then are handed over, and nobody
 * can tell. */
static void test_roles_follow_demand(void **state)
{
    (void)state;
    const struct yolk_elastic_options elastic = {
        .on = true, .ttft_ms = 1000, .window_ms = 900, .dwell_ms = 1000, .drain_ms = 500
    };
    static struct client longs[LONGS], shorts[SHORTS];
    struct client page;
    char want[LONG + 1], first[2];

    start_elastic(&elastic);
    answer_to(PROMPT, LONG, want);
    answer_to(PROMPT, 1, first);
    for (int i = 0; i < LONGS; i++)
        complete(&longs[i], BODY(",\"max_tokens\":800,\"stream\":true"));
    run_ms(2500);
    assert_int_equal(count_role(PROTO_ROLE_DECODE), 3);
    assert_int_equal(count_role(PROTO_ROLE_PREFILL), 1); /* never none */
    ask(&page, "GET", "/debug/nodes", NULL);
    expect_body(&page, 200, "\"role\":\"decode\",\"works\":true,\"draining\":false");
    for (int i = 0; i < LONGS; i++)
        expect_stream(&longs[i], want);
    for (int i = 0; i < 3; i++)
        complete(&longs[i], BODY(",\"max_tokens\":800,\"stream\":true"));
    for (int i = 0; i < SHORTS; i++) {
        complete(&shorts[i], BODY(",\"max_tokens\":1"));
        run_ms(SHORT_GAP_MS);
    }
    for (int i = 0; i < SHORTS; i++)
        expect_body(&shorts[i], 200, first);
    for (int i = 0; i < 3; i++)
        expect_stream(&longs[i], want);
    assert_true(metric("yolk_conductor_role_changes_total{role=\"decode\"}") >= 2);
    assert_true(metric("yolk_conductor_role_changes_total{role=\"prefill\"}") >= 1);
    assert_true(metric("yolk_gateway_handed_over_total") >= 1);
    run_ms(3000);
    assert_int_equal((int)metric("yolk_conductor_draining"), 0);
    assert_true(gateway_idle(world.gateway));
    stop_world();
}

/* A node that will not change stays what it is; a node that somebody else has changed is believed.
 */
static void test_roles_are_the_nodes(void **state)
{
    (void)state;
    const struct yolk_elastic_options elastic = {
        .on = true, .window_ms = 900, .dwell_ms = 1000, .drain_ms = 500
    };
    struct client longs[LONGS], page;
    char want[LONG + 1];

    start_elastic(&elastic);
    answer_to(PROMPT, LONG, want);
    for (int i = 0; i < FAKES; i++)
        world.fakes[i].keeps_role = true;
    for (int i = 0; i < LONGS; i++)
        complete(&longs[i], BODY(",\"max_tokens\":800,\"stream\":true"));
    for (int i = 0; i < LONGS; i++)
        expect_stream(&longs[i], want);
    assert_int_equal(count_role(PROTO_ROLE_PREFILL), 3);
    assert_int_equal((int)metric("yolk_gateway_nodes_up{role=\"prefill\"}"), 3);
    ask(&page, "GET", "/debug/nodes", NULL);
    expect_body(&page, 200, "\"done\":0,");
    world.fakes[0].role = PROTO_ROLE_DECODE;
    run_ms(5000);
    assert_int_equal((int)metric("yolk_gateway_nodes_up{role=\"prefill\"}"), 2);
    assert_int_equal((int)metric("yolk_gateway_nodes_up{role=\"decode\"}"), 2);
    stop_world();
}

/* A gateway that goes away tells its clients. */
/* What adaptive has besides. Prompts step back in the queue by what they take; and a door: what
 * the prefill node says is not shown, the wait is told, and who hangs up while it waits, or whose
 * decode node dies, leaves nothing there. */
static void test_door(void **state)
{
    (void)state;
    const struct gateway_options options = { .policy = YOLK_POLICY_ADAPTIVE,
                                             .ttft_slo_ms = 30000,
                                             .tbt_slo_ms = 50,
                                             .door = true,
                                             .stretch = 5 };
    struct client client, gone;
    char want[64];

    start_world(&options);
    start_fake(0, PROTO_ROLE_PREFILL);
    start_fake(1, PROTO_ROLE_DECODE);
    run_ms(3000);
    answer_to(PROMPT, 20, want);
    world.fakes[1].shut = true;
    complete(&client, BODY(",\"max_tokens\":20,\"stream\":true"));
    complete(&gone, BODY(",\"max_tokens\":20,\"stream\":true"));
    run_ms(500);
    assert_int_equal(client.body.len, 0);
    assert_in_range(world.fakes[0].later_us, 1, 18000000); /* 0.6 of the limit */
    assert_true(metric("yolk_conductor_at_door ") == 2);
    http_client_cancel(gone.http);
    buf_fini(&gone.body);
    run_ms(100);
    assert_int_equal(world.fakes[1].cancelled, 1);
    assert_true(metric("yolk_conductor_at_door ") == 1);
    let_in(&world.fakes[1]);
    expect_stream(&client, want);
    assert_true(metric("yolk_conductor_at_door ") == 0);
    assert_true(metric("yolk_conductor_door_wait_seconds_count ") == 1);
    assert_true(metric("yolk_conductor_door_wait_seconds_sum ") > 0.4);
    ask(&client, "GET", "/debug/decisions", NULL);
    expect_body(&client, 200, "\"door_ms\":5");

    world.fakes[1].shut = true;
    complete(&client, BODY(",\"max_tokens\":20,\"stream\":true"));
    run_ms(500);
    stop_fake(1, true);
    run_ms(1000);
    start_fake(2, PROTO_ROLE_DECODE);
    expect_stream(&client, want);
    assert_true(metric("yolk_conductor_at_door ") == 0);
    assert_true(gateway_idle(world.gateway));
    stop_world();
}

/* While the prefill node has a queue, short prompts are computed by their decode node: the answers
 * are the same, and what happened is told. */
static void test_inlined(void **state)
{
    (void)state;
    enum { CLIENTS = 8 };
    const struct gateway_options options = { .inline_tbt_ms = 1000 };
    struct client clients[CLIENTS], client;
    char want[64];

    start_world(&options);
    start_fake(0, PROTO_ROLE_PREFILL);
    start_fake(1, PROTO_ROLE_DECODE);
    start_fake(2, PROTO_ROLE_DECODE);
    run_ms(3000);
    answer_to(PROMPT, 20, want);
    for (int i = 0; i < CLIENTS; i++)
        complete(&clients[i], BODY(",\"max_tokens\":20,\"stream\":true"));
    run_ms(15);
    stop_fake(2, true); /* whoever it computes for is placed again */
    for (int i = 0; i < CLIENTS; i++)
        expect_stream(&clients[i], want);
    const uint32_t computed = world.fakes[1].computed;
    assert_true(computed > 0 && computed < CLIENTS);
    assert_true(metric("yolk_conductor_inlined_total ") >= computed);
    ask(&client, "GET", "/debug/decisions", NULL);
    expect_body(&client, 200, "\"inlined\":true");
    assert_true(gateway_idle(world.gateway));
    stop_world();
}

/* Nodes of both roles compute what they decode; when one is lost the other goes on with it. */
static void test_coupled(void **state)
{
    (void)state;
    enum { CLIENTS = 8 };
    struct client clients[CLIENTS], client;
    char want[64];

    start_world(&NO_CHANGES);
    start_fake(0, PROTO_ROLE_BOTH);
    start_fake(1, PROTO_ROLE_BOTH);
    run_ms(3000);
    ask(&client, "GET", "/ready", NULL);
    expect_body(&client, 200, "\"prefill\":2,\"decode\":2");
    answer_to(PROMPT, 20, want);
    for (int i = 0; i < 2; i++) { /* who cannot is not asked to compute for the other one */
        world.fakes[i].fail_next = PROTO_CAUSE_INTERNAL;
        complete(&client, BODY(",\"max_tokens\":20,\"stream\":true"));
        expect_stream(&client, want);
    }
    assert_int_equal(world.fakes[0].runs + world.fakes[1].runs, 0);
    for (int i = 0; i < CLIENTS; i++)
        complete(&clients[i], BODY(",\"max_tokens\":20,\"stream\":true"));
    run_ms(40);
    assert_true(world.fakes[0].computed > 0);
    stop_fake(0, true);
    for (int i = 0; i < CLIENTS; i++)
        expect_stream(&clients[i], want);
    assert_true(world.fakes[1].computed >= CLIENTS / 2);
    assert_int_equal(world.fakes[1].runs, 0); /* nobody prefills for another */
    assert_true(gateway_idle(world.gateway));
    stop_world();
}

/* Everybody goes where the prefix is, so its node has a queue: the other one gets a copy, and loses
 * it when nobody asks any more, but not while it is the only one that has it. */
static void copy_and_cool(bool keep_first)
{
    enum { CLIENTS = 60 };
    static struct client clients[CLIENTS];
    const struct gateway_options options = { .placement = YOLK_PLACEMENT_MATCH,
                                             .replicate = true,
                                             .replicate_hot = 3 };
    char body[512];

    /* Two blocks are known; of what is behind them some tens are a queue of seconds. */
    snprintf(body, sizeof(body), "{\"prompt\":\"%s%0120d\",\"max_tokens\":2}", PROMPT, 0);
    start_world(&options);
    for (int i = 0; i < FAKES; i++)
        start_fake(i, i < 2 ? PROTO_ROLE_PREFILL : PROTO_ROLE_DECODE);
    run_ms(3000);
    complete(&clients[0], body);
    expect_body(&clients[0], 200, "text_completion");
    const int first = world.fakes[0].keys_count > 0 ? 0 : 1, other = 1 - first;
    assert_int_equal(world.fakes[other].keys_count, 0);
    tell_events(&world.fakes[first], 0, 2);
    run_ms(100);
    for (int i = 0; i < CLIENTS; i++)
        complete(&clients[i], body);
    for (int i = 0; i < CLIENTS; i++)
        expect_body(&clients[i], 200, "text_completion");
    assert_int_equal(world.fakes[other].copied, 2);
    assert_int_equal(world.fakes[first].copied, 0);
    assert_true(metric("yolk_conductor_copies_total ") == 1);
    assert_true(metric("yolk_conductor_copies_held ") == 1);
    assert_true(metric("yolk_gateway_copied_blocks_total ") == 2);
    if (!keep_first) stop_fake(first, true);
    run_ms(600000);
    assert_int_equal(world.fakes[other].dropped, keep_first ? 2 : 0);
    assert_true(metric("yolk_conductor_copies_held ") == 0);
    stop_world();
}

static void test_copies(void **state)
{
    (void)state;
    copy_and_cool(true);
    copy_and_cool(false);
}

static void test_shutdown(void **state)
{
    (void)state;
    struct client client, late;

    start_pair();
    complete(&client, BODY(",\"max_tokens\":900"));
    run_ms(200);
    gateway_leave(world.gateway);
    assert_false(gateway_is_ready(world.gateway));
    ask(&late, "GET", "/ready", NULL);
    expect_body(&late, 503, "\"ready\":false");
    complete(&late, BODY(",\"max_tokens\":5"));
    expect_body(&late, 200, "text_completion"); /* whoever comes in the grace is served */
    gateway_drain(world.gateway);
    assert_false(gateway_is_ready(world.gateway));
    assert_false(gateway_idle(world.gateway));
    gateway_destroy(world.gateway);
    world.gateway = NULL;
    run_ms(200);
    assert_true(client.done);
    assert_true(client.reply.status != STATUS_OK || client.reply.code == 503);
    buf_fini(&client.body);
    assert_true(world.fakes[1].cancelled > 0);
    stop_world();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers),
        cmocka_unit_test(test_stop_string_cancels),
        cmocka_unit_test(test_hangup_cancels),
        cmocka_unit_test(test_node_lost),
        cmocka_unit_test(test_node_leaves),
        cmocka_unit_test(test_node_suspected),
        cmocka_unit_test(test_odd_nodes_are_refused),
        cmocka_unit_test(test_only_decode_node_suspected),
        cmocka_unit_test(test_prefill_node_suspected),
        cmocka_unit_test(test_only_decode_node_leaves),
        cmocka_unit_test(test_all_lost_and_back),
        cmocka_unit_test(test_nobody_there),
        cmocka_unit_test(test_failures),
        cmocka_unit_test(test_queue),
        cmocka_unit_test(test_waiting_limits_end_with_waiting),
        cmocka_unit_test(test_routes),
        cmocka_unit_test(test_profile),
        cmocka_unit_test(test_profile_directory),
        cmocka_unit_test(test_room_follows_answers),
        cmocka_unit_test(test_hits_that_do_not_realise),
        cmocka_unit_test(test_roles_follow_demand),
        cmocka_unit_test(test_roles_are_the_nodes),
        cmocka_unit_test(test_door),
        cmocka_unit_test(test_inlined),
        cmocka_unit_test(test_coupled),
        cmocka_unit_test(test_copies),
        cmocka_unit_test(test_shutdown),
        cmocka_unit_test(test_chaos),
    };
    if (log_configure("error", NULL) != STATUS_OK) return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
