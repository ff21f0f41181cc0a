/* SPDX-License-Identifier: Apache-2.0
 *
 * base/config_test.c
 *
 * Goal:   each option can be set from every source, the stronger one wins in any order, and each
 *         mistake is answered with a line that names it and where it was made.
 * Method: one small table, by hand; messages are compared whole, because users read them. */
#include "base/config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/buf.h"
#include "base/env.h"
#include "base/env_sim.h"

enum { SERVE = 1, NODE = 2 };

static const struct config_option table[] = {
    { .name = "port",
      .type = CONFIG_U64,
      .def = "8000",
      .max = 65535,
      .scope = SERVE,
      .help = "Port of the API" },
    { .name = "pool-size",
      .type = CONFIG_SIZE,
      .def = "512M",
      .min = 1 << 20,
      .max = UINT64_C(1) << 40,
      .scope = SERVE | NODE,
      .help = "Memory lent to the pool" },
    { .name = "lease",
      .type = CONFIG_DURATION,
      .def = "5s",
      .min = 1000000,
      .max = 3600000000000,
      .scope = NODE | SERVE,
      .help = "Life of a lease" },
    { .name = "log-level",
      .type = CONFIG_CHOICE,
      .def = "info",
      .choices = "error|warn|info|debug",
      .scope = SERVE,
      .help = "Detail" },
    { .name = "share",
      .type = CONFIG_BOOL,
      .def = "true",
      .scope = SERVE,
      .help = "Use shared memory" },
    { .name = "verbose", .type = CONFIG_BOOL, .scope = SERVE, .help = "Say more" },
    { .name = "secret",
      .type = CONFIG_TEXT,
      .scope = SERVE,
      .secret = true,
      .help = "Secret of the cluster" },
    { .name = "api-key",
      .type = CONFIG_TEXT,
      .scope = SERVE,
      .secret = true,
      .help = "Key to show",
      .unseen = true },
    { .name = "role",
      .type = CONFIG_TEXT,
      .def = "prefill",
      .scope = NODE,
      .help = "Role of the node" },
    { .name = "top-up", .type = CONFIG_BOOL, .scope = SERVE, .help = "Fill", .needs = "lines" },
    { .name = "lines", .type = CONFIG_U64, .scope = SERVE, .verbs = "put|get", .help = "So many" },
    { .name = "deep",
      .type = CONFIG_BOOL,
      .scope = SERVE | NODE,
      .verbs = "ls",
      .verbs_of = NODE,
      .help = "All of it" },
};

static struct config *config_new(void)
{
    const struct config_spec spec = {
        .options = table,
        .options_count = sizeof(table) / sizeof(table[0]),
        .scope = SERVE,
        .usage = "yolk serve MODEL",
        .summary = "Serves MODEL",
        .positions_min = 1,
        .positions_max = 1,
    };
    return config_create(&spec);
}

#define ARGS(...) ((char *const[]){ __VA_ARGS__, NULL })

static int count_of(char *const *args)
{
    int count = 0;
    while (args[count] != NULL)
        count++;
    return count;
}

static void expect_args_error(char *const *args, const char *message)
{
    struct config *config = config_new();
    struct errmsg err = { "" };
    assert_int_equal(config_load_args(config, count_of(args), args, &err), STATUS_INVALID);
    assert_string_equal(err.text, message);
    config_destroy(config);
}

static void expect_text_error(const char *text, const char *message)
{
    struct config *config = config_new();
    struct errmsg err = { "" };
    assert_int_equal(config_load_text(config, "f", text, strlen(text), &err), STATUS_INVALID);
    assert_string_equal(err.text, message);
    config_destroy(config);
}

static void load_ok(struct config *config, char *const *args)
{
    struct errmsg err = { "" };
    assert_int_equal(config_load_args(config, count_of(args), args, &err), STATUS_OK);
    assert_string_equal(err.text, "");
}

static void defaults_hold(void **state)
{
    (void)state;
    struct config *config = config_new();

    assert_int_equal(config_u64(config, "port"), 8000);
    assert_int_equal(config_u64(config, "pool-size"), 512 << 20);
    assert_true(config_u64(config, "lease") == 5000000000u);
    assert_int_equal(config_choice(config, "log-level"), 2);
    assert_string_equal(config_text(config, "log-level"), "info");
    assert_true(config_bool(config, "share"));
    assert_false(config_bool(config, "verbose"));
    assert_string_equal(config_text(config, "secret"), "");
    assert_false(config_is_set(config, "port"));
    config_destroy(config);
    config_destroy(NULL);
}

static void flags_of_every_form(void **state)
{
    (void)state;
    struct config *config = config_new();

    load_ok(config, ARGS("--port", "1", "--pool-size=2G", "model", "--lease=250ms", "--no-share",
                         "--verbose", "--log-level", "debug", "--"));
    assert_int_equal(config_u64(config, "port"), 1);
    assert_true(config_u64(config, "pool-size") == UINT64_C(2) << 30);
    assert_true(config_u64(config, "lease") == 250000000);
    assert_false(config_bool(config, "share"));
    assert_true(config_bool(config, "verbose"));
    assert_int_equal(config_choice(config, "log-level"), 3);
    assert_int_equal(config_positions(config), 1);
    assert_string_equal(config_position(config, 0), "model");
    assert_true(config_is_set(config, "port"));
    load_ok(config, ARGS("--share=yes", "--verbose=off"));
    assert_true(config_bool(config, "share"));
    assert_false(config_bool(config, "verbose"));
    config_destroy(config);
}

static void the_stronger_source_wins_in_any_order(void **state)
{
    (void)state;
    static const char file[] = "port = 2\nlease=1s\nlog-level=warn";
    char *const variables[] = { "HOME=/x", "YOLK_PORT=3", "YOLK_LEASE=2s", "YOLK_ROLE=x", NULL };

    for (int order = 0; order < 2; order++) {
        struct config *config = config_new();
        if (order == 0) load_ok(config, ARGS("--port=4"));
        assert_int_equal(config_load_variables(config, variables, NULL), STATUS_OK);
        assert_int_equal(config_load_text(config, "f", file, strlen(file), NULL), STATUS_OK);
        if (order == 1) load_ok(config, ARGS("--port=4"));
        assert_int_equal(config_u64(config, "port"), 4);
        assert_true(config_u64(config, "lease") == 2000000000);
        assert_int_equal(config_choice(config, "log-level"), 1);
        config_destroy(config);
    }
}

static void mistakes_in_flags_are_named(void **state)
{
    (void)state;
    expect_args_error(ARGS("--prot", "1"), "unknown option --prot; did you mean --port?");
    expect_args_error(ARGS("--pool"), "unknown option --pool; did you mean --pool-size?");
    expect_args_error(ARGS("--frobnicate=1"), "unknown option --frobnicate; --help lists them");
    expect_args_error(ARGS("--role=x"), "unknown option --role; --help lists them");
    expect_args_error(ARGS("-p"), "unknown option -p; --help lists them");
    expect_args_error(ARGS("--no-port"), "unknown option --no-port; did you mean --port?");
    expect_args_error(ARGS("--port"), "--port needs a value, a whole number");
    expect_args_error(ARGS("--port", "x"), "--port: \"x\" is not valid, expected a whole number");
    expect_args_error(ARGS("--port=-1"), "--port: \"-1\" is not valid, expected a whole number");
    expect_args_error(ARGS("--port=70000"), "--port: 70000 is out of range, 0 to 65535");
    expect_args_error(ARGS("--port=18446744073709551616"),
                      "--port: \"18446744073709551616\" is not valid, expected a whole number");
    expect_args_error(ARGS("--pool-size=16777216T"),
                      "--pool-size: \"16777216T\" is not valid, expected a size such as 4096, 64K, "
                      "512M or 2G");
    expect_args_error(ARGS("--pool-size=4K"), "--pool-size: 4K is out of range, 1M to 1T");
    expect_args_error(ARGS("--lease=5"), "--lease: \"5\" is not valid, expected a duration such as "
                                         "250ms, 5s or 2m");
    expect_args_error(ARGS("--log-level=loud"),
                      "--log-level: \"loud\" is not valid, expected error|warn|info|debug");
    expect_args_error(ARGS("--share=maybe"),
                      "--share: \"maybe\" is not valid, expected true or false");
    expect_args_error(ARGS("a", "b"), "unexpected argument \"b\"; usage: yolk serve MODEL");
}

static void mistakes_in_files_have_a_line(void **state)
{
    (void)state;
    expect_text_error("# fine\n\nport 9", "f:3: expected name = value");
    expect_text_error("prt = 9", "f:1: unknown option prt; did you mean port?");
    expect_text_error("role = x\r\nport = y\n",
                      "f:2: port: \"y\" is not valid, expected a whole number");
    expect_text_error("= 1", "f:1: unknown option ; --help lists them");
    expect_text_error("port = 1\nconfig = g\n", "f:2: a file cannot name another one");
}

static void files_have_comments_and_quotes(void **state)
{
    (void)state;
    static const char file[] = "  port\t= 12 # the port\r\n#lease = 9s\nsecret = \" a#b \"";
    struct config *config = config_new();

    assert_int_equal(config_load_text(config, "f", file, strlen(file), NULL), STATUS_OK);
    assert_int_equal(config_u64(config, "port"), 12);
    assert_string_equal(config_text(config, "secret"), " a#b ");
    assert_true(config_u64(config, "lease") == 5000000000u);
    config_destroy(config);
}

static void binary_and_endless_values_are_refused(void **state)
{
    (void)state;
    static const char nul[] = "secret = a\0b";
    struct config *config = config_new();
    char *big = malloc(CONFIG_VALUE_LEN_MAX + 100);

    assert_int_equal(config_load_text(config, "f", nul, sizeof(nul) - 1, NULL), STATUS_INVALID);
    memset(big, 'x', CONFIG_VALUE_LEN_MAX + 99);
    memcpy(big, "secret=", 7);
    big[CONFIG_VALUE_LEN_MAX + 99] = '\0';
    assert_int_equal(config_load_text(config, "f", big, strlen(big), NULL), STATUS_INVALID);
    memcpy(big, "--secret", 8);
    big[8] = '=';
    assert_int_equal(config_load_args(config, 1, ARGS(big), NULL), STATUS_INVALID);
    free(big);
    config_destroy(config);
}

static void help_lists_the_scope_and_hides_secrets(void **state)
{
    (void)state;
    struct config *config = config_new();
    struct buf out;

    buf_init(&out, 1 << 16);
    load_ok(config, ARGS("--help", "--secret=hunter2"));
    assert_true(config_wants_help(config));
    assert_int_equal(config_help(config, &out), STATUS_OK);
    assert_int_equal(config_sample(config, &out), STATUS_OK);
    assert_int_equal(config_describe(config, &out), STATUS_OK);
    assert_int_equal(buf_append(&out, "", 1), STATUS_OK);
    const char *text = (const char *)buf_data(&out);
    assert_non_null(strstr(text, "--pool-size SIZE"));
    assert_non_null(strstr(text, "Port of the API, 0 to 65535 [8000]"));
    assert_non_null(strstr(text, "# port = 8000\n"));
    assert_non_null(strstr(text, "secret = (secret) # flag\n"));
    assert_non_null(strstr(text, "--secret-file FILE"));
    assert_non_null(strstr(text, "  YOLK_API_KEY=TEXT"));
    assert_non_null(strstr(text, "--api-key-file FILE"));
    assert_null(strstr(text, "--api-key "));
    assert_null(strstr(text, "--role"));
    assert_null(strstr(text, "hunter2"));
    buf_fini(&out);
    config_destroy(config);
}

/* ---- config_load(): files, on a simulated disk ---- */

static void file_write(struct env *env, const char *path, const char *text)
{
    assert_int_equal(env_file_replace(env, path, text, strlen(text), NULL), STATUS_OK);
}

static void unseen_secrets_are_no_flags(void **state)
{
    static const char REFUSAL[] =
        "--api-key: other users can see command lines; it is taken from YOLK_API_KEY in the "
        "environment, or from --api-key-file FILE";
    char *const variables[] = { "YOLK_API_KEY=sesame", NULL };
    struct config *config = config_new();
    struct errmsg err = { "" };

    (void)state;
    expect_args_error(ARGS("--api-key=sesame"), REFUSAL);
    expect_args_error(ARGS("--api-key", "sesame"), REFUSAL);
    assert_int_equal(config_load_variables(config, variables, &err), STATUS_OK);
    assert_string_equal(config_text(config, "api-key"), "sesame");
    config_destroy(config);
}

static void load_reads_the_file_and_the_secret(void **state)
{
    (void)state;
    struct env_sim *sim = env_sim_create(&(struct env_sim_options){ .seed = 1 });
    struct env *env = env_sim_add(sim, "10.0.0.1");
    char *const variables[] = { "YOLK_CONFIG=/c", "YOLK_LEASE=7s", NULL };
    char *const *args = ARGS("model", "--port=3");
    struct config *config = config_new();
    struct errmsg err = { "" };

    file_write(env, "/c", "port = 2\nlease = 9s\npool-size = 1G\nsecret-file = /s\n");
    file_write(env, "/s", "sesame\n");
    assert_int_equal(config_load(config, env, 2, args, variables, &err), STATUS_OK);
    assert_int_equal(config_u64(config, "port"), 3);
    assert_true(config_u64(config, "lease") == 7 * ENV_NS_PER_S);
    assert_true(config_u64(config, "pool-size") == 1 << 30);
    assert_string_equal(config_text(config, "secret"), "sesame");
    config_destroy(config);
    env_sim_destroy(sim);
}

static void expect_load_error(struct env *env, char *const *args, const char *part)
{
    char *const none[] = { NULL };
    struct config *config = config_new();
    struct errmsg err = { "" };

    assert_int_not_equal(config_load(config, env, count_of(args), args, none, &err), STATUS_OK);
    if (strstr(err.text, part) == NULL) fail_msg("\"%s\" without \"%s\"", err.text, part);
    config_destroy(config);
}

/* What would have no effect: refused as a flag, passed over where others may have meant it. */
static void flags_without_effect_are_refused(void **state)
{
    struct env_sim *sim = env_sim_create(&(struct env_sim_options){ .seed = 1 });
    struct env *env = env_sim_add(sim, "10.0.0.1");
    char *const shared[] = { "YOLK_LINES=3", "YOLK_TOP_UP=1", NULL };
    char *const none[] = { NULL };
    (void)state;

    expect_load_error(env, ARGS("put", "--top-up"), "--top-up has no effect without --lines");
    expect_load_error(env, ARGS("put", "--top-up", "--lines=0"),
                      "--top-up has no effect without --lines");
    expect_load_error(env, ARGS("rm", "--lines", "3"),
                      "--lines has no effect with `rm`, only with put|get");
    char *const *good[] = { ARGS("get", "--lines", "3", "--top-up"), ARGS("rm", "--deep"),
                            ARGS("rm") };
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        struct config *config = config_new();
        char *const *variables = i == 2 ? shared : none;
        assert_int_equal(config_load(config, env, count_of(good[i]), good[i], variables, NULL),
                         STATUS_OK);
        assert_int_equal(config_is_flag(config, "lines"), i == 0);
        assert_int_equal(config_is_set(config, "lines"), i != 1);
        config_destroy(config);
    }
    env_sim_destroy(sim);
}

static void load_says_which_file_is_wrong(void **state)
{
    (void)state;
    struct env_sim *sim = env_sim_create(&(struct env_sim_options){ .seed = 1 });
    struct env *env = env_sim_add(sim, "10.0.0.1");
    char *const none[] = { NULL };

    file_write(env, "/bad", "port = 2\n\nprot = 3\n");
    file_write(env, "/empty", "\n");
    expect_load_error(env, ARGS("m", "--config=/absent"), "/absent");
    expect_load_error(env, ARGS("m", "--config=/bad"), "/bad:3: unknown option prot");
    expect_load_error(env, ARGS("m", "--secret-file", "/absent"), "/absent");
    expect_load_error(env, ARGS("m", "--secret-file", "/empty"),
                      "--secret-file: /empty holds no text");
    expect_load_error(env, ARGS("--port=1"), "an argument is missing; usage: yolk serve MODEL");
    struct config *config = config_new();
    assert_int_equal(config_load(config, env, 1, ARGS("-h"), none, NULL), STATUS_OK);
    assert_true(config_wants_help(config)); /* whatever else is missing */
    config_destroy(config);
    env_sim_destroy(sim);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_hold),
        cmocka_unit_test(flags_of_every_form),
        cmocka_unit_test(the_stronger_source_wins_in_any_order),
        cmocka_unit_test(mistakes_in_flags_are_named),
        cmocka_unit_test(mistakes_in_files_have_a_line),
        cmocka_unit_test(files_have_comments_and_quotes),
        cmocka_unit_test(binary_and_endless_values_are_refused),
        cmocka_unit_test(unseen_secrets_are_no_flags),
        cmocka_unit_test(load_reads_the_file_and_the_secret),
        cmocka_unit_test(flags_without_effect_are_refused),
        cmocka_unit_test(load_says_which_file_is_wrong),
        cmocka_unit_test(help_lists_the_scope_and_hides_secrets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
