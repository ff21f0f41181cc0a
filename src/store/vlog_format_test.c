/* SPDX-License-Identifier: Apache-2.0
 *
 * store/vlog_format_test.c
 *
 * Goal:   a footer tells the terms of its values; one of a release that knew none is read, and that
 *         release reads ours. No footer is read by what another reading of its end said.
 * Method: footers by hand, in both forms. What is on disk after crashes is vlog_sim_test.c's. */
#include "store/vlog_format.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/le.h"
#include "store/proto.h"

enum { ENTRIES = 3, AT = 9, DATED = 76 };
#define TERM UINT64_C(0x123456789ab)

static struct store_key key_of(unsigned n)
{
    static const char *const keys[ENTRIES] = { "a", "seventeen letters", "eight ch" };
    return (struct store_key){ (const uint8_t *)keys[n], (uint32_t)strlen(keys[n]) };
}

static struct vlog_meta meta_of(unsigned n)
{
    return (struct vlog_meta){ .id = store_key_id(key_of(n)),
                               .at = 1 + 2 * n,
                               .head = 1,
                               .pages = 2,
                               .size = 100 + n,
                               .attributes = { .term = TERM + n, .version = n } };
}

/* As this release writes it, or (`dated` false) as one did that knew no terms. */
static struct vlog_footer footer_of(bool dated, uint8_t out[VLOG_UNIT])
{
    uint8_t *at = out;

    for (unsigned n = 0; n < ENTRIES; n++) {
        const struct vlog_meta meta = meta_of(n);
        uint8_t *entry = at;
        at += vlog_entry_encode(&meta, key_of(n), at);
        if (!dated) le_put32(entry + DATED, 0);
    }
    for (unsigned n = 0; n < ENTRIES && dated; n++, at += VLOG_TERM_SIZE)
        le_put64(at, TERM + n);
    struct vlog_footer footer = { .nonce = 5, .at = AT, .entries = ENTRIES };
    footer.entries_size = (uint64_t)(at - out);
    footer.pages = vlog_footer_units(0, footer.entries_size);
    assert_int_equal(footer.pages, 1);
    vlog_footer_encode(&footer, out);
    return footer;
}

static void footers_tell_terms_where_they_are_known(void **state)
{
    uint8_t bytes[VLOG_UNIT];
    (void)state;

    for (int dated = 0; dated < 2; dated++) {
        const struct vlog_footer made = footer_of(dated, bytes);
        struct vlog_footer footer;
        struct vlog_meta meta;
        struct store_key key;
        uint64_t offset = 0;
        assert_int_equal(vlog_trailer_decode(bytes + VLOG_UNIT - VLOG_TRAILER_SIZE, &footer),
                         STATUS_OK);
        assert_int_equal(footer.entries_size, made.entries_size);
        assert_int_equal(vlog_footer_decode(bytes, &footer), STATUS_OK);
        for (unsigned n = 0; n < ENTRIES; n++) {
            assert_int_equal(vlog_entry_decode(bytes, &footer, n, &offset, &meta, &key), STATUS_OK);
            assert_int_equal(meta.attributes.term, dated ? TERM + n : 0);
            assert_int_equal(meta.attributes.version, n);
            assert_int_equal(key.len, key_of(n).len);
            assert_memory_equal(key.bytes, key_of(n).bytes, key.len);
        }
        /* The release before walks so many entries from the start, and looks no further. */
        assert_int_equal(footer.entries_size - offset, dated ? ENTRIES * VLOG_TERM_SIZE : 0);
    }
}

/* Entries say that terms follow, and there is no room for them. */
static void terms_that_are_not_there_are_not_known(void **state)
{
    uint8_t bytes[VLOG_UNIT];
    struct vlog_footer footer = footer_of(true, bytes);
    struct vlog_meta meta;
    struct store_key key;
    uint64_t offset = 0;
    (void)state;

    footer.entries = UINT32_MAX;
    assert_int_equal(vlog_entry_decode(bytes, &footer, 0, &offset, &meta, &key), STATUS_OK);
    assert_int_equal(meta.attributes.term, 0);
    footer.entries = ENTRIES;
    offset = 0;
    assert_int_equal(vlog_entry_decode(bytes, &footer, ENTRIES, &offset, &meta, &key), STATUS_OK);
    assert_int_equal(meta.attributes.term, 0);
}

/* Where a footer is was read by itself, without a checksum: a bit that was wrong only then must not
 * decide how the right bytes are read. */
static void a_footer_is_read_as_it_says_itself(void **state)
{
    uint8_t bytes[VLOG_UNIT];
    const struct vlog_footer made = footer_of(true, bytes);
    (void)state;

    assert_int_equal(vlog_footer_decode(bytes, &made), STATUS_OK);
    for (unsigned bit = 0; bit < 32; bit++) {
        struct vlog_footer wrong[] = { made, made, made, made, made };
        wrong[0].entries ^= 1u << bit;
        wrong[1].gone ^= 1u << bit;
        wrong[2].at ^= 1u << bit;
        wrong[3].nonce ^= 1u << bit;
        wrong[4].entries_size ^= 1u << bit;
        for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
            assert_int_equal(vlog_footer_decode(bytes, &wrong[i]), STATUS_CORRUPT);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(footers_tell_terms_where_they_are_known),
        cmocka_unit_test(terms_that_are_not_there_are_not_known),
        cmocka_unit_test(a_footer_is_read_as_it_says_itself),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
