/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/cmd_explain.c - `yolk explain request ID`: asks a gateway what it decided, and prints it. */
#include <stdio.h>
#include <string.h>

#include "base/env.h"
#include "cli/bench.h"
#include "cli/cli.h"

enum { ADDRESS_SIZE = 256, PATH_SIZE = 512 };

/* "http://host:port/" -> "host:port". */
static enum status address_of(const char *url, char out[ADDRESS_SIZE], struct errmsg *err)
{
    static const char scheme[] = "http://";
    const char *start = strncmp(url, scheme, strlen(scheme)) == 0 ? url + strlen(scheme) : url;
    const size_t len = strcspn(start, "/");

    if (len == 0 || len >= ADDRESS_SIZE || strstr(start, "://") != NULL) {
        return errmsg_set(err, STATUS_INVALID, "--url %.100s is not http://host:port", url);
    }
    memcpy(out, start, len);
    out[len] = '\0';
    return STATUS_OK;
}

/* It goes into a path as it is. */
static bool good_id(const char *id)
{
    for (const char *c = id; *c; c++) {
        if (*c <= ' ' || *c > '~' || *c == '?' || *c == '#') return false;
    }
    return id[0] != '\0' && strlen(id) < PATH_SIZE / 2;
}

int cmd_explain(struct cli *cli)
{
    static struct bench_answer answer;
    const char *what = config_position(cli->config, 0), *id = config_position(cli->config, 1);
    const char *url = config_text(cli->config, "url");
    char address[ADDRESS_SIZE], path[PATH_SIZE];
    struct errmsg err = { "" };

    if (strcmp(what, "request") != 0) return cli_refuse("explain what? `request ID`");
    if (!good_id(id)) return cli_refuse("%.100s is not the id of a request", id);
    if (address_of(url, address, &err) != STATUS_OK) return cli_refuse("%s", err.text);
    snprintf(path, sizeof(path), "/debug/decisions/%s", id);
    bench_request(cli, address, path, NULL, &answer);
    if (answer.status != STATUS_OK) {
        return cli_refuse("no gateway answers at %s (%s)", url, status_name(answer.status));
    }
    if (answer.code == 404) return cli_refuse("%s remembers no decision about %s", url, id);
    if (answer.code != 200) return cli_refuse("%s answered %d", url, answer.code);
    fwrite(answer.body, 1, strlen(answer.body), stdout);
    return CLI_EXIT_OK;
}
