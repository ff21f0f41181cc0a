/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/sim_report.h"

#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/env.h"
#include "cli/cli.h"
#include "sim/page.h"
#include "sim/study.h"

enum { NUMBERS_SIZE_MAX = 256 << 20 };

static enum status name_file(const char *dir, const char *name, char out[CLI_PATH_SIZE],
                             struct errmsg *err)
{
    const int n = snprintf(out, CLI_PATH_SIZE, "%s/%s", dir, name);
    if (n > 0 && n < CLI_PATH_SIZE) return STATUS_OK;
    return errmsg_set(err, STATUS_INVALID, "--report: the path is too long");
}

enum status sim_report_prepare(struct cli *cli, const char *dir, struct errmsg *err)
{
    char path[CLI_PATH_SIZE];
    struct env_file *file = NULL;

    enum status status = name_file(dir, ".yolk-probe", path, err);
    if (status == STATUS_OK) status = env_make_dirs(cli->env, dir, err);
    if (status == STATUS_OK)
        status = env_file_open(cli->env, path, ENV_FILE_WRITE | ENV_FILE_CREATE, &file, err);
    if (status != STATUS_OK) return status;
    env_file_close(file);
    status = env_file_remove(cli->env, path);
    if (status != STATUS_OK)
        return errmsg_set(err, status, "%s: cannot be removed again (%s)", path,
                          status_name(status));
    return STATUS_OK;
}

/* The last part of the trace's path: a page that is passed on need not say where it was made. */
static const char *trace_name(const struct cli *cli)
{
    const char *path = config_text(cli->config, "trace");
    const char *slash = strrchr(path, '/');
    return slash == NULL ? path : slash + 1;
}

static enum status write_file(struct cli *cli, const char *dir, const char *name,
                              const struct buf *text, struct errmsg *err)
{
    char path[CLI_PATH_SIZE];
    const enum status status = name_file(dir, name, path, err);

    if (status != STATUS_OK) return status;
    return env_file_replace(cli->env, path, buf_data(text), text->len, err);
}

enum status sim_report_write(struct cli *cli, const char *dir, const struct study *study,
                             struct errmsg *err)
{
    const struct page page = { study, trace_name(cli), YOLK_VERSION " (" YOLK_COMMIT ")" };
    struct buf html, numbers;

    buf_init(&html, PAGE_SIZE_MAX);
    buf_init(&numbers, NUMBERS_SIZE_MAX);
    enum status status = page_write(&page, &html);
    if (status == STATUS_OK) status = study_write_json(study, &numbers);
    if (status != STATUS_OK) {
        errmsg_set(err, status, "%s: the report is too large", dir);
    } else {
        status = write_file(cli, dir, "index.html", &html, err);
        if (status == STATUS_OK) status = write_file(cli, dir, "report.json", &numbers, err);
    }
    buf_fini(&html);
    buf_fini(&numbers);
    return status;
}
