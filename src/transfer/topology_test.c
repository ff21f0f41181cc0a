/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/topology_test.c
 *
 * Goal:   the rails named are the rails used, each for the memory it suits, and paired with the
 *         peer's on the same network.
 * Method: by hand, the incumbent's JSON among it; what is not of that form is refused with a
 *         reason. */
#include "transfer/topology.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static const struct env_interface host[] = {
    { .name = "lo", .address = "127.0.0.1", .prefix_bits = 8, .up = true, .loopback = true },
    { .name = "eth0", .address = "10.0.0.7", .prefix_bits = 24, .up = true, .numa_node = -1 },
    { .name = "eth1", .address = "10.1.0.7", .prefix_bits = 24, .up = true, .numa_node = 0 },
    { .name = "eth2", .address = "10.2.0.7", .prefix_bits = 24, .up = true, .numa_node = 1 },
    { .name = "eth3", .address = "10.3.0.7", .prefix_bits = 24, .up = false, .numa_node = 1 },
    { .name = "eth2", .address = "fd00::7", .prefix_bits = 64, .up = true, .numa_node = 1 },
};
enum { HOST_COUNT = sizeof(host) / sizeof(host[0]) };

static struct topology selected(const char *list)
{
    struct topology topology = { 0 };
    struct errmsg err = { "" };

    assert_int_equal(topology_select(&topology, list, host, HOST_COUNT, &err), STATUS_OK);
    return topology;
}

static void rails_are_named_by_name_or_address(void **state)
{
    (void)state;
    struct topology topology = selected("eth1,10.2.0.7");
    struct errmsg err = { "" };

    assert_int_equal(topology.rail_count, 2);
    assert_string_equal(topology.rails[0].interface.address, "10.1.0.7");
    assert_string_equal(topology.rails[1].interface.name, "eth2");
    topology = selected("auto");
    assert_int_equal(topology.rail_count, 3); /* up, not loopback, IPv4 */
    topology = selected("");
    assert_int_equal(topology.rail_count, 0);
    assert_int_equal(topology_select(&topology, "eth1,eth9", host, HOST_COUNT, &err),
                     STATUS_NOT_FOUND);
    assert_non_null(strstr(err.text, "eth9"));
    assert_int_equal(
        topology_select(&topology, "lo,lo,lo,lo,lo,lo,lo,lo,lo", host, HOST_COUNT, &err),
        STATUS_FULL);
}

static enum rail_rank rank(const struct topology *topology, const char *location, uint32_t rail)
{
    return topology_rank(topology, topology_location(topology, location), rail);
}

static void json_says_what_suits_what(void **state)
{
    (void)state;
    static const char json[] = "{\"cpu:0\":[[\"eth1\"],[\"eth2\",\"mlx5_9\"]],"
                               "\"cuda:0\":[[\"eth2\",\"eth1\"],[]]}";
    struct topology topology = selected("eth1,eth2,eth0");

    assert_int_equal(topology_parse(&topology, json, strlen(json), NULL), STATUS_OK);
    assert_int_equal(rank(&topology, "cpu:0", 0), RAIL_PREFERRED);
    assert_int_equal(rank(&topology, "cpu:0", 1), RAIL_SECONDARY);
    assert_int_equal(rank(&topology, "cpu:0", 2), RAIL_LAST);
    assert_int_equal(rank(&topology, "cuda:0", 1), RAIL_PREFERRED);
    assert_int_equal(rank(&topology, "cpu:7", 2), RAIL_PREFERRED); /* nothing is known of it */
    assert_int_equal(rank(&topology, NULL, 2), RAIL_PREFERRED);
    static const char any[] = "{\"*\":[[\"eth0\"],[]]}";
    assert_int_equal(topology_parse(&topology, any, strlen(any), NULL), STATUS_OK);
    assert_int_equal(rank(&topology, "cpu:7", 2), RAIL_PREFERRED);
    assert_int_equal(rank(&topology, "cpu:7", 0), RAIL_LAST);
}

static void bad_json_is_refused(void **state)
{
    static const char *const bad[] = { "",
                                       "[]",
                                       "{",
                                       "{\"cpu:0\":1}",
                                       "{\"cpu:0\":[]}",
                                       "{\"cpu:0\":[[\"a\"]]}",
                                       "{\"cpu:0\":[[\"a\"],\"b\"]}",
                                       "{\"cpu:0\":[[1],[]]}",
                                       "{\"cpu:0\":[[],[],[]]}",
                                       "{\"a_name_that_is_too_long\":[[],[]]}",
                                       "{\"a\":[[],[]],\"a\":[[],[]]}" };

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct topology topology = selected("eth1");
        struct errmsg err = { "" };
        assert_int_equal(topology_parse(&topology, bad[i], strlen(bad[i]), &err), STATUS_INVALID);
        assert_true(err.text[0] != '\0');
    }
}

static void numa_nodes_say_it_otherwise(void **state)
{
    (void)state;
    struct topology topology = selected("eth0,eth1,eth2");

    topology_discover(&topology);
    assert_int_equal(rank(&topology, "cpu:0", 0), RAIL_PREFERRED); /* its node is not known */
    assert_int_equal(rank(&topology, "cpu:0", 1), RAIL_PREFERRED);
    assert_int_equal(rank(&topology, "cpu:0", 2), RAIL_SECONDARY);
    assert_int_equal(rank(&topology, "cpu:1", 1), RAIL_SECONDARY);
    assert_int_equal(rank(&topology, "cpu:1", 2), RAIL_PREFERRED);
}

static struct wire_rails theirs_of(const char *const addresses[], uint32_t count)
{
    struct wire_rails theirs = { .count = count };

    for (uint32_t i = 0; i < count; i++)
        snprintf(theirs.rails[i].address, sizeof(theirs.rails[i].address), "%s", addresses[i]);
    return theirs;
}

static void pairs_share_a_network(void **state)
{
    static const char *const crossed[] = { "10.2.0.9:1", "10.1.0.9:1" };
    static const char *const far[] = { "192.168.0.1:1", "10.2.0.9:1", "192.168.1.1:1" };
    static const char *const one[] = { "192.168.0.1:1" };
    static const char *const six[] = { "[fd00::9]:1", "[fd01::9]:1" };
    struct topology topology = selected("eth1,eth2");
    struct wire_rails theirs = theirs_of(crossed, 2);
    int pair[RAILS_MAX];

    (void)state;
    topology_pair(&topology, &theirs, pair);
    assert_true(pair[0] == 1 && pair[1] == 0 && pair[2] == -1);
    theirs = theirs_of(far, 3);
    topology_pair(&topology, &theirs, pair);
    assert_true(pair[0] == 0 && pair[1] == 1);
    theirs = theirs_of(one, 1);
    topology_pair(&topology, &theirs, pair);
    assert_true(pair[0] == 0 && pair[1] == 0);
    theirs.count = 0;
    topology_pair(&topology, &theirs, pair);
    assert_true(pair[0] == -1 && pair[1] == -1);
    topology = selected("eth0,fd00::7");
    theirs = theirs_of(six, 2);
    topology_pair(&topology, &theirs, pair);
    assert_true(pair[1] == 0 && pair[0] == 1);
}

static void peers_are_told_where_and_how_good(void **state)
{
    (void)state;
    struct topology topology = selected("eth1,eth2,eth0");
    struct wire_rails told;

    topology_discover(&topology);
    snprintf(topology.rails[0].listen, sizeof(topology.rails[0].listen), "10.1.0.7:5");
    snprintf(topology.rails[1].listen, sizeof(topology.rails[1].listen), "10.2.0.7:5");
    topology_describe(&topology, topology_location(&topology, "cpu:0"), &told);
    assert_int_equal(told.count, 2); /* the third does not listen */
    assert_string_equal(told.rails[1].address, "10.2.0.7:5");
    assert_true(told.rails[0].rank == 0 && told.rails[1].rank == 1);
    assert_int_equal(told.rails[1].numa_node, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rails_are_named_by_name_or_address),
        cmocka_unit_test(json_says_what_suits_what),
        cmocka_unit_test(bad_json_is_refused),
        cmocka_unit_test(numa_nodes_say_it_otherwise),
        cmocka_unit_test(pairs_share_a_network),
        cmocka_unit_test(peers_are_told_where_and_how_good),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
