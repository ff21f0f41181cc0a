/* SPDX-License-Identifier: Apache-2.0
 *
 * store/master_metrics_test.c
 *
 * Goal:   the page says what the directory says, in a form that Prometheus reads: each metric has
 *         one head, before its series, and names from outside cannot break a line. What is known
 *         of requests stands under the names of Mooncake's master.
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
#include "store/master_tally.h"

#define REJECTED(tenant)                                                                           \
    "mooncake_tenant_quota_reject_total{tenant_id=\"" tenant "\",reason=\"quota_exceeded\"}"

static struct buf page;
static struct master_tally tally;

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
    assert_int_equal(store_master_metrics_page(model->master, &tally, model->now, &page),
                     STATUS_OK);
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
    store_master_load(model.master, "n1", &(struct store_node_load){ .faults = 7, .damaged = 3 });
    assert_int_equal(evicted_for(&model, 12, 4096, STATUS_AGAIN), 1u << 10);
    assert_int_equal(try_put(&model, 13, 3 * 4096), STATUS_QUOTA);
    render(&model);
    assert_true(value_of("master_active_clients") == NODES);
    assert_true(value_of("master_key_count") == 3);
    assert_true(value_of("master_allocated_bytes") == 3 * 4096);
    assert_true(value_of("master_total_capacity_bytes") == NODES * REGION_SIZE);
    assert_true(value_of("master_evicted_key_count") == 1);
    assert_true(value_of("master_evicted_key_count_mem") == 1);
    assert_true(value_of("master_evicted_size_bytes") == 4096);
    assert_true(value_of("master_attempted_evictions_total") == 1);
    assert_true(value_of("master_successful_evictions_total") == 1);
    assert_true(value_of("segment_allocated_bytes{segment=\"n0\"}") == 3 * 4096);
    assert_true(value_of("segment_allocated_bytes{segment=\"n1\"}") == 0);
    assert_true(value_of("yolk_store_node_faults{segment=\"n1\"}") == 7);
    assert_true(value_of("yolk_rpc_damaged_frames_total") == 0);
    assert_true(value_of("yolk_rpc_damaged_frames_total{segment=\"n0\"}") == 0);
    assert_true(value_of("yolk_rpc_damaged_frames_total{segment=\"n1\"}") == 3);
    assert_true(value_of(REJECTED("a")) == 1);
    assert_true(value_of(REJECTED("default")) == 0);
    assert_true(value_of("mooncake_tenant_evict_bytes_total{tenant_id=\"a\"}") == 4096);
    assert_true(value_of("yolk_store_tenant_quota_bytes{tenant_id=\"a\"}") == 2 * 4096);
    assert_true(value_of("yolk_store_tenant_used_bytes{tenant_id=\"default\"}") == 4096);
    assert_true(value_of("yolk_store_term") == 5);
    store_master_destroy(model.master);
}

/* What is leased does not go, and that was an attempt; what is on its way already is none. */
static void evictions_are_tried(void **state)
{
    static struct model model;
    char text[KEY_TEXT];
    (void)state;

    init_one_node(&model);
    put_whole(&model, 0, REGION_SIZE);
    assert_int_equal(store_master_exist(model.master, model.now, key_of(0, text)), STATUS_OK);
    assert_int_equal(try_put(&model, 1, 4096), STATUS_FULL);
    render(&model);
    assert_true(value_of("master_attempted_evictions_total") == 1);
    assert_true(value_of("master_successful_evictions_total") == 0);
    assert_true(value_of("master_put_start_alloc_failures_total") == 1);
    model.now += 60 * MS;
    assert_int_equal(try_put(&model, 1, 4096), STATUS_AGAIN);
    assert_int_equal(try_put(&model, 1, 4096), STATUS_AGAIN);
    render(&model);
    assert_true(value_of("master_attempted_evictions_total") == 2);
    assert_true(value_of("master_successful_evictions_total") == 1);
    assert_true(value_of("master_evicted_size_bytes_mem") == REGION_SIZE);
    store_master_destroy(model.master);
}

/* Sizes by their bounds, pins while they last, and what a put that was given up leaves behind. */
static void puts_are_counted(void **state)
{
    static struct model model;
    const struct store_wish soft = { .soft_pin_ms = 200 };
    struct store_ticket ticket;
    char text[KEY_TEXT];
    (void)state;

    model_init(&model);
    put_whole(&model, 0, 4096);
    put_whole(&model, 1, 4097);
    assert_int_equal(
        store_master_put_start(model.master, model.now, 1, key_of(2, text), 65536, &soft, &ticket),
        STATUS_OK);
    render(&model);
    assert_true(value_of("master_value_size_bytes_bucket{le=\"4096\"}") == 1);
    assert_true(value_of("master_value_size_bytes_bucket{le=\"65536\"}") == 3);
    assert_true(value_of("master_value_size_bytes_bucket{le=\"67108864\"}") == 3);
    assert_true(value_of("master_value_size_bytes_bucket{le=\"+Inf\"}") == 3);
    assert_true(value_of("master_value_size_bytes_sum") == 4096 + 4097 + 65536);
    assert_true(value_of("master_value_size_bytes_count") == 3);

    assert_int_equal(
        store_master_put_revoke(model.master, model.now, 1, key_of(2, text), ticket.put_id),
        STATUS_OK);
    render(&model);
    assert_true(value_of("master_put_start_discarded_staging_size") == 65536);
    assert_true(value_of("master_put_start_release_cnt") == 0);
    model.now += 1000 * MS;
    (void)store_master_tick(model.master, model.now);
    render(&model);
    assert_true(value_of("master_put_start_discarded_staging_size") == 0);
    assert_true(value_of("master_put_start_release_cnt") == 1);
    assert_true(value_of("master_put_start_discard_cnt") == 0); /* it did not fall silent */
    store_master_destroy(model.master);
}

static void requests_have_mooncakes_names(void **state)
{
    static struct model model;
    const uint32_t codes[] = { store_status_code(STATUS_OK), store_status_code(STATUS_FULL) };
    char name[96];
    (void)state;

    model_init(&model);
    memset(&tally, 0, sizeof(tally));
    for (unsigned op = 0; op < MASTER_OPS; op++)
        master_tally_codes(&tally, (enum master_op)op, codes, 2);
    render(&model);
    for (unsigned op = 0; op < MASTER_OPS; op++) {
        const char *of = master_op_name((enum master_op)op);
        const bool batch = op < MASTER_BATCH_OPS;
        snprintf(name, sizeof(name), "master_%s_requests_total", of);
        assert_true(value_of(name) == (batch ? 0 : 2));
        snprintf(name, sizeof(name), "master_batch_%s_items_total", of);
        assert_true(value_of(name) == (batch ? 2 : -1));
        snprintf(name, sizeof(name), "master_batch_%s_partial_successes_total", of);
        assert_true(value_of(name) == (batch ? 1 : -1));
    }
    assert_true(value_of("master_remove_failures_total") == 1);
    assert_true(value_of("master_batch_put_start_requests_total") == 1);
    assert_true(value_of("master_batch_put_start_failures_total") == 0);
    assert_true(value_of("master_batch_put_start_failed_items_total") == 1);
    store_master_destroy(model.master);
}

/* Of a histogram: what its series have behind its name. */
static bool is_part(const char *text, size_t len)
{
    static const char *const parts[] = { "_bucket", "_sum", "_count" };
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        if (len == strlen(parts[i]) && strncmp(text, parts[i], len) == 0) return true;
    }
    return false;
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

static void segments_are_named(void **state)
{
    static struct model model;
    (void)state;

    model_init(&model);
    buf_clear(&page);
    assert_int_equal(store_master_metrics_segments(model.master, model.now, &page), STATUS_OK);
    assert_int_equal(page.len, strlen("n0\nn1\nn2\n"));
    assert_memory_equal(buf_data(&page), "n0\nn1\nn2\n", page.len);
    for (unsigned i = 0; i < NODES; i++) {
        char name[8];
        snprintf(name, sizeof(name), "n%u", i);
        store_master_leave(model.master, model.now, name, model.nodes[i].epoch);
    }
    buf_clear(&page);
    assert_int_equal(store_master_metrics_segments(model.master, model.now, &page), STATUS_OK);
    assert_int_equal(page.len, 0);
    store_master_destroy(model.master);
}

static void every_line_can_be_read(void **state)
{
    static struct model model;
    char head[128] = "", name[128], type[16];
    unsigned lines = 0;
    bool histogram = false;
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
            histogram = strcmp(type, "histogram") == 0;
            assert_true(histogram || strcmp(type, "gauge") == 0 || strcmp(type, "counter") == 0);
        } else {
            char *space = strrchr(at, ' ');
            assert_non_null(space);
            assert_int_equal(strspn(space + 1, "0123456789"), strlen(space + 1));
            const size_t len = strcspn(at, "{ ");
            const size_t head_len = strlen(head);
            assert_true(strncmp(at, head, head_len) == 0);
            assert_true(histogram ? is_part(at + head_len, len - head_len) : len == head_len);
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
        cmocka_unit_test(evictions_are_tried),
        cmocka_unit_test(puts_are_counted),
        cmocka_unit_test(requests_have_mooncakes_names),
        cmocka_unit_test(segments_are_named),
        cmocka_unit_test(every_line_can_be_read),
    };
    seed = test_seed();
    buf_init(&page, 1 << 20);
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    buf_fini(&page);
    return failed;
}
