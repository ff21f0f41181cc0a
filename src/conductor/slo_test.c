/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/slo_test.c
 *
 * Goal:   what an operator writes is what holds; what makes no sense is refused with the reason.
 * Method: cases by hand. */
#include "conductor/slo.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static void classes_are_read(void **state)
{
    (void)state;
    struct slo_classes classes;
    struct errmsg err = { "" };

    assert_int_equal(slo_parse("chat=ttft:2s,tbt:50ms,priority:2;batch=ttft:none,priority:-1;x=",
                               &classes, &err),
                     STATUS_OK);
    assert_int_equal(classes.count, 3);
    const struct slo_class *chat = slo_find(&classes, "chat"), *batch = slo_find(&classes, "batch");
    assert_true(chat->ttft_ms == 2000 && chat->tbt_ms == 50 && chat->priority == 2);
    assert_true(isinf(batch->ttft_ms) && batch->tbt_ms == 0 && batch->priority == -1);
    assert_true(slo_find(&classes, "x")->ttft_ms == 0);
    assert_null(slo_find(&classes, "nobody"));
    assert_null(slo_find(&classes, NULL));
    assert_int_equal(slo_parse("default=tbt:1m", &classes, &err), STATUS_OK);
    assert_true(slo_find(&classes, "nobody")->tbt_ms == 60000);
    assert_true(slo_find(&classes, NULL)->tbt_ms == 60000);
    assert_int_equal(slo_parse("", &classes, &err), STATUS_OK);
    assert_int_equal(classes.count, 0);
    assert_int_equal(slo_parse(NULL, &classes, &err), STATUS_OK);
}

static void nonsense_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "chat",
        "=ttft:1s",
        "chat=ttft",
        "chat=ttft:",
        "chat=ttft:-1s",
        "chat=ttft:1",
        "chat=ttft:1h",
        "chat=tbt:nan",
        "chat=tbt:2e9s",
        "chat=ttft:0s",
        "chat=what:1s",
        "chat=priority:",
        "chat=priority:9",
        "chat=priority:1x",
        "a b=ttft:1s",
        "a=ttft:1s;a=",
        ";",
        "a=ttft:1s,,",
        "chat=priority:-9",
        "a=ttft:1s tbt:1s",
        "\xff=ttft:1s",
        "a=ttft:inf",
    };
    struct slo_classes classes = { .count = 7 };
    char many[2048] = "";

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct errmsg err = { "" };
        if (slo_parse(bad[i], &classes, &err) != STATUS_INVALID) fail_msg("taken: %s", bad[i]);
        assert_true(err.text[0] != '\0');
        assert_int_equal(classes.count, 7);
    }
    for (int i = 0; i < SLO_CLASSES_MAX + 1; i++)
        snprintf(many + strlen(many), sizeof(many) - strlen(many), "c%d=;", i);
    struct errmsg err = { "" };
    assert_int_equal(slo_parse(many, &classes, &err), STATUS_INVALID);
    assert_non_null(strstr(err.text, "more than"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(classes_are_read),
        cmocka_unit_test(nonsense_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
