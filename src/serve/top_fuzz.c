/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/top_fuzz.c - any bytes as the pages of a gateway; what is read of them can be shown. */
#include <stddef.h>
#include <stdint.h>

#include "base/assert.h"
#include "base/buf.h"
#include "serve/top.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static struct top_look then, now;
    const struct top_screen screen = {
        .url = "url", .width = TOP_WIDTH_MIN, .colour = true, .then = &then, .now = &now
    };
    struct errmsg err = { "" };
    struct buf out;

    now = (struct top_look){ .at_ns = 1 };
    (void)!top_read_metrics((const char *)data, len, &now);
    (void)!top_read_nodes((const char *)data, len, &now, &err);
    ASSERT(now.nodes_count <= TOP_NODES_MAX);
    buf_init(&out, 1 << 20);
    enum status status = top_draw(&screen, &out);
    ASSERT(status == STATUS_OK);
    status = top_write_json(&then, &now, &out);
    ASSERT(status == STATUS_OK);
    buf_fini(&out);
    return 0;
}
