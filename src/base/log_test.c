/* SPDX-License-Identifier: Apache-2.0
 *
 * base/log_test.c
 *
 * Goal:    a line is one line and a field is one field, whatever a peer sends; levels, rate limits
 *          and the memory of last events do what log.h says.
 * Method:  lines go to a sink under a fixed clock and are compared as text. */
#include "base/log.h"

#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#define STAMP "ts=2024-02-29T23:59:58.123456Z "

static char lines[65536];
static size_t lines_len;
static uint64_t clock_ns;

static void sink(void *ctx, const char *line, size_t len)
{
    (void)ctx;
    assert_true(lines_len + len < sizeof(lines));
    memcpy(lines + lines_len, line, len);
    lines_len += len;
    lines[lines_len] = '\0';
}

static uint64_t now(void *ctx)
{
    (void)ctx;
    return clock_ns;
}

static int setup(void **state)
{
    (void)state;
    lines_len = 0;
    lines[0] = '\0';
    clock_ns = UINT64_C(1709251198123456789);
    log_set_sink(sink, NULL);
    log_set_time_source(now, NULL);
    return log_configure("info", NULL) == STATUS_OK ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    log_set_sink(NULL, NULL);
    log_set_time_source(NULL, NULL);
    return 0;
}

static void a_line_has_its_fields(void **state)
{
    (void)state;
    LOG_WARN("transfer", "session_closed", "peer=%s reason=%s", "n3", "timeout");
    assert_string_equal(lines, STAMP "level=warn mod=transfer ev=session_closed peer=n3 "
                                     "reason=timeout\n");
    lines_len = 0;
    LOG_INFO("net", "ready", "");
    assert_string_equal(lines, STAMP "level=info mod=net ev=ready\n");
    lines_len = 0;
    LOG_INFO("net", "words", "plain a=1 b=%d", 2);
    assert_string_equal(lines, STAMP "level=info mod=net ev=words plain a=1 b=2\n");
}

static void every_conversion_is_printed(void **state)
{
    (void)state;
    const void *pointer = (const void *)(uintptr_t)0x1234;

    LOG_INFO("t", "numbers",
             "d=%d u=%u ld=%ld lu=%lu lld=%lld zu=%zu i64=%" PRId64 " x=%#x hh=%hhu f=%.2f c=%c "
             "p=%p pct=%d%% s=%.3s star=%.*s wide=%-4dx%*d both=%*.*f",
             -1, 2U, -3L, 4UL, -5LL, (size_t)6, INT64_C(-7), 0xabU, (unsigned char)200, 1.005, 'q',
             pointer, 50, "truncate", 2, "long", 9, 3, 8, 6, 2, 2.5);
    const char *expected = STAMP "level=info mod=t ev=numbers d=-1 u=2 ld=-3 lu=4 lld=-5 zu=6 "
                                 "i64=-7 x=0xab hh=200 f=1.00 c=q p=0x1234 pct=50% s=tru star=lo "
                                 "wide=\"9   x  8\" both=\"  2.50\"\n";
    assert_string_equal(lines, expected);
}

static void foreign_text_stays_one_value(void **state)
{
    (void)state;
    LOG_INFO("t", "ev", "a=%s b=%s", "x\nlevel=error mod=fake \"q\" \\ \t\x7f", "");
    assert_string_equal(lines, STAMP "level=info mod=t ev=ev "
                                     "a=\"x\\nlevel=error mod=fake \\\"q\\\" \\\\ \\x09\\x7f\" "
                                     "b=\"\"\n");
    lines_len = 0;
    LOG_INFO("t", "ev", "a=%s", "b=c"); /* else it could be taken for a field of ours */
    assert_string_equal(lines, STAMP "level=info mod=t ev=ev a=\"b=c\"\n");
    lines_len = 0;
    LOG_INFO("t", "ev", "name=%s", "\xc3\xa9t\xc3\xa9"); /* UTF-8 passes */
    assert_string_equal(lines, STAMP "level=info mod=t ev=ev name=\xc3\xa9t\xc3\xa9\n");
    lines_len = 0;
    LOG_INFO("t", "ev", "a=%s b=%s", "\xffz\xc3", "\xc3\xa9\xc2\x9b"); /* what is none, does not, */
    assert_string_equal(lines, STAMP "level=info mod=t ev=ev a=\"\\xffz\\xc3\" "
                                     "b=\"\xc3\xa9\\xc2\\x9b\"\n"); /* nor do its controls */
}

static void a_long_line_is_cut(void **state)
{
    (void)state;
    char *text = malloc(10000);

    memset(text, 'a', 9999);
    text[9999] = '\0';
    LOG_INFO("t", "ev", "a=%s b=%s c=%s", text, text, text);
    assert_in_range(lines_len, LOG_LINE_MAX - 64, LOG_LINE_MAX);
    assert_int_equal(lines[lines_len - 1], '\n');
    free(text);
}

static void levels_are_global_and_per_module(void **state)
{
    (void)state;
    struct errmsg err = { "" };

    for (int pass = 0; pass < 2; pass++) { /* the same sites, so that caches must follow */
        assert_int_equal(log_configure(pass == 0 ? "warn,store=trace" : "error", &err), STATUS_OK);
        lines_len = 0;
        lines[0] = '\0';
        LOG_INFO("net", "quiet", "");
        LOG_DEBUG("store", "loud", "");
        LOG_TRACE("store", "louder", "");
        if (pass == 0) assert_non_null(strstr(lines, "ev=louder"));
        if (pass == 0) assert_non_null(strstr(lines, "level=debug mod=store ev=loud"));
        assert_null(strstr(lines, "quiet"));
        if (pass == 1) assert_int_equal(lines_len, 0);
    }
    assert_int_equal(log_configure("info,net=debug", NULL), STATUS_OK);
    assert_true(log_enabled(LOG_LEVEL_DEBUG, "net"));
    assert_false(log_enabled(LOG_LEVEL_DEBUG, "rpc"));
}

static void bad_specs_change_nothing(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "loud",     "info,=debug",    "net=",
        "net=loud", "info,net==warn", "a-module-name-that-is-much-too-long=info"
    };

    assert_int_equal(log_configure("trace", NULL), STATUS_OK);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct errmsg err = { "" };
        assert_int_equal(log_configure(bad[i], &err), STATUS_INVALID);
        assert_int_not_equal(err.text[0], '\0');
        assert_true(log_enabled(LOG_LEVEL_TRACE, "any"));
    }
    assert_int_equal(log_configure("", NULL), STATUS_OK); /* the default */
    assert_false(log_enabled(LOG_LEVEL_DEBUG, "any"));
}

static int count_of(const char *text)
{
    int count = 0;
    for (const char *at = lines; (at = strstr(at, text)) != NULL; at++) {
        count++;
    }
    return count;
}

static void repeats_are_limited_and_counted(void **state)
{
    (void)state;
    for (int second = 0; second < 2; second++) {
        for (int i = 0; i < LOG_SITE_BURST + 15; i++) {
            LOG_WARN("t", "again", "i=%d", i);
        }
        LOG_WARN("t", "other", ""); /* another site has its own count */
        clock_ns += 1000000000;
    }
    assert_int_equal(count_of("ev=again"), 2 * LOG_SITE_BURST);
    assert_int_equal(count_of("ev=other"), 2);
    assert_int_equal(count_of("suppressed=15"), 1);
    assert_int_equal(count_of("suppressed="), 1);
}

static void debug_is_never_limited(void **state)
{
    (void)state;
    assert_int_equal(log_configure("debug", NULL), STATUS_OK);
    for (int i = 0; i < 3 * LOG_SITE_BURST; i++) {
        LOG_DEBUG("t", "each", "");
    }
    assert_int_equal(count_of("ev=each"), 3 * LOG_SITE_BURST);
}

static size_t dump(char *out, size_t size)
{
    char path[] = "/tmp/yolk-log-test-XXXXXX";
    const int fd = mkstemp(path);

    assert_true(fd >= 0);
    unlink(path);
    log_dump(fd);
    const ssize_t got = pread(fd, out, size - 1, 0);
    assert_true(got > 0);
    out[got] = '\0';
    close(fd);
    return (size_t)got;
}

static void last_events_can_be_dumped(void **state)
{
    (void)state;
    static char text[LOG_EVENTS_MAX * LOG_EVENT_SIZE + 4096];

    for (int i = 0; i < LOG_EVENTS_MAX + 10; i++) {
        LOG_DEBUG("t", "kept", "i=%d.", i); /* not printed, but kept */
    }
    LOG_TRACE("t", "dropped", "");
    assert_int_equal(lines_len, 0);
    dump(text, sizeof(text));
    assert_null(strstr(text, "i=9.\n"));
    assert_non_null(strstr(text, "i=10.\n"));
    assert_non_null(strstr(text, "i=2057.\n"));
    assert_true(strstr(text, "i=10.\n") < strstr(text, "i=2057.\n"));
    assert_null(strstr(text, "dropped"));
}

static void *log_much(void *arg)
{
    for (int i = 0; i < 200; i++) {
        LOG_DEBUG("t", "threads", "id=%d text=%s", *(int *)arg, "some words here");
    }
    return NULL;
}

static void threads_do_not_mix_their_lines(void **state)
{
    (void)state;
    pthread_t threads[3];
    int ids[3] = { 1, 2, 3 };

    assert_int_equal(log_configure("debug", NULL), STATUS_OK);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, log_much, &ids[i]), 0);
    }
    for (int i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_int_equal(count_of(STAMP "level=debug mod=t ev=threads id="), 600);
    assert_int_equal(count_of(" text=\"some words here\"\n"), 600);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_line_has_its_fields),
        TEST(every_conversion_is_printed),
        TEST(foreign_text_stays_one_value),
        TEST(a_long_line_is_cut),
        TEST(levels_are_global_and_per_module),
        TEST(bad_specs_change_nothing),
        TEST(repeats_are_limited_and_counted),
        TEST(debug_is_never_limited),
        TEST(last_events_can_be_dumped),
        TEST(threads_do_not_mix_their_lines),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
