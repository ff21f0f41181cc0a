/* SPDX-License-Identifier: Apache-2.0
 *
 * store/master_metrics_test.c
 *
 * Goal:   the page says what the directory says, in a form that Prometheus reads: each metric has
 *         one head, before its series, and names from outside cannot break a line.
 * Method: by hand, with tenants above their quotas; and every line by a grammar. */
#include "store/master_metrics.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/buf.h"
#include "seed.h"
#include "store/master_fixture.h"

#define REJECTED(tenant)                                                                           \
    "mooncake_tenant_quota_reject_total{tenant_id=\"" tenant "\",reason=\"quota_exceeded\"}"

static struct buf page;

/* -1: there is no such series, or more than one. */
static double value_of(const char *series)
{
    const size_t len = strlen(series);
    double value = -1;
    unsigned found = 0;
    for (const char *at = (const char *)buf_data(&page); at != NULL && *at != '\0';) {
        if (strncmp(at, series, len) == 0 && at[len] == ' ') {
            found++;
            value = strtod(at + len, NULL);
        }
        at = strchr(at, '\n');
        if (at != NULL) at++;
    }
    return found == 1 ? value : -1;
}

static void render(const struct model *model)
{
    buf_clear(&page);
    assert_int_equal(store_master_metrics_page(model->master, model->now, &page), STATUS_OK);
    assert_int_equal(buf_append(&page, "", 1), STATUS_OK);
}

static void numbers_are_the_directorys(void **state)
{
    static struct model model;
    const struct store_quota quota = { .bytes = 2 * 4096 };
    (void)state;

    model_init(&model);
    model.calm = true;
    assert_int_equal(store_master_quota_set(model.master, "a", &quota), STATUS_OK);
    put_whole(&model, 0, 4096);
    put_keys(&model, 10, 12, 4096);
    assert_int_equal(evicted_for(&model, 12, 4096, STATUS_AGAIN), 1u << 10);
    assert_int_equal(try_put(&model, 13, 3 * 4096), STATUS_QUOTA);
    render(&model);
    assert_true(value_of("master_active_clients") == NODES);
    assert_true(value_of("master_key_count") == 3);
    assert_true(value_of("master_allocated_bytes") == 3 * 4096);
    assert_true(value_of("master_total_capacity_bytes") == NODES * REGION_SIZE);
    assert_true(value_of("master_evicted_key_count") == 1);
    assert_true(value_of("segment_allocated_bytes{segment=\"n0\"}") == 3 * 4096);
    assert_true(value_of("segment_allocated_bytes{segment=\"n1\"}") == 0);
    assert_true(value_of(REJECTED("a")) == 1);
    assert_true(value_of(REJECTED("default")) == 0);
    assert_true(value_of("mooncake_tenant_evict_bytes_total{tenant_id=\"a\"}") == 4096);
    assert_true(value_of("yolk_store_tenant_quota_bytes{tenant_id=\"a\"}") == 2 * 4096);
    assert_true(value_of("yolk_store_tenant_used_bytes{tenant_id=\"default\"}") == 4096);
    assert_true(value_of("yolk_store_term") == 5);
    store_master_destroy(model.master);
}

/* From `{` to the blank: one label, or two. */
static void labels_check(const char *from, const char *space)
{
    unsigned quotes = 0;
    for (const char *c = from; c < space; c++) {
        assert_true(*c >= 0x20 && *c < 0x7f && *c != '\\');
        quotes += *c == '"';
    }
    assert_true(quotes == 2 || quotes == 4);
    assert_true(space[-1] == '}' && space[-2] == '"');
}

static void every_line_can_be_read(void **state)
{
    static struct model model;
    char head[128] = "", name[128], type[16];
    unsigned lines = 0;
    (void)state;

    model_init(&model);
    struct store_member_info info;
    info_of(&model.nodes[0], 7, &info);
    info.epoch = 9;
    memcpy(info.name, "a\"b\\c\nd\x80", 9);
    struct store_node_id id;
    assert_int_equal(store_master_register(model.master, model.now, &info, 0, &id), STATUS_OK);
    render(&model);
    for (char *at = (char *)(uintptr_t)buf_data(&page); *at != '\0'; lines++) {
        char *end = strchr(at, '\n');
        assert_non_null(end);
        *end = '\0';
        if (strncmp(at, "# HELP ", 7) == 0) {
            assert_int_equal(sscanf(at, "# HELP %127s", name), 1);
            assert_string_not_equal(name, head);
            memcpy(head, name, sizeof(head));
        } else if (at[0] == '#') {
            assert_int_equal(sscanf(at, "# TYPE %127s %15s", name, type), 2);
            assert_string_equal(name, head);
            assert_true(strcmp(type, "gauge") == 0 || strcmp(type, "counter") == 0);
        } else {
            char *space = strrchr(at, ' ');
            assert_non_null(space);
            assert_int_equal(strspn(space + 1, "0123456789"), strlen(space + 1));
            const size_t len = strcspn(at, "{ ");
            assert_true(len == strlen(head) && strncmp(at, head, len) == 0);
            if (at[len] == '{') labels_check(at + len, space);
        }
        at = end + 1;
    }
    assert_true(lines > 100);
    render(&model);
    assert_true(value_of("segment_allocated_bytes{segment=\"a_b_c_d_\"}") == 0);
    store_master_destroy(model.master);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_are_the_directorys),
        cmocka_unit_test(every_line_can_be_read),
    };
    seed = test_seed();
    buf_init(&page, 1 << 20);
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    buf_fini(&page);
    return failed;
}
