/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/disk_keys.h"

#include <stdlib.h>
#include <string.h>

#include "base/env.h"
#include "cli/cli.h"
#include "store/ssd_pack.h"
#include "store/ssd_seal.h"

enum { FILE_SIZE_MAX = 64 << 10 };

enum status disk_keys_load(struct cli *cli, struct ssd_keys *out, struct errmsg *err)
{
    const char *path = config_text(cli->config, "ssd-key-file");
    struct errmsg why = { "" };
    bool private = false;
    char *text = NULL;
    size_t len = 0;

    memset(out, 0, sizeof(*out));
    if (path[0] == '\0') return STATUS_OK;
    enum status status = env_file_read_all(cli->env, path, FILE_SIZE_MAX, &text, &len, &why);
    if (status == STATUS_OK) {
        status = env_file_private(cli->env, path, &private);
        if (status == STATUS_OK && !private) status = STATUS_DENIED;
        if (status == STATUS_DENIED)
            errmsg_set(&why, status, "others than its owner may read it (chmod 600)");
        if (status == STATUS_OK) status = ssd_keys_parse(text, len, out, &why);
        explicit_bzero(text, len);
    }
    free(text);
    if (status == STATUS_OK) return STATUS_OK;
    return errmsg_set(err, status, "--ssd-key-file: %.100s: %.120s", path, why.text);
}

enum status disk_packing_load(struct cli *cli, uint32_t *level, struct errmsg *err)
{
    struct ssd_packing packing;
    struct errmsg why = { "" };
    enum status status =
        ssd_packing_parse(config_text(cli->config, "ssd-compress"), &packing, &why);

    if (status == STATUS_OK && packing.level > 0 && !ssd_pack_available())
        status = errmsg_set(&why, STATUS_UNSUPPORTED, "libzstd.so.1 is not installed");
    if (status != STATUS_OK) return errmsg_set(err, status, "--ssd-compress: %.150s", why.text);
    *level = packing.level;
    return STATUS_OK;
}
