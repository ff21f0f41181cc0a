/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/cmd_explain.c - `yolk explain request ID`: asks a gateway what it decided, and prints it.
 * `yolk explain transfer ID|last|metrics`: asks a node what its transfer engine did. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/env.h"
#include "cli/cli.h"
#include "cli/remote.h"
#include "net/rpc.h"
#include "serve/proto.h"

#define TIMEOUT_NS (10 * ENV_NS_PER_S)

enum { QUESTION_SIZE_MAX = 256, ANSWER_SIZE_MAX = 1 << 20, PATH_SIZE = 512 };

/* It goes into a path as it is. */
static bool good_id(const char *id)
{
    for (const char *c = id; *c; c++) {
        if (*c <= ' ' || *c > '~' || *c == '?' || *c == '#') return false;
    }
    return id[0] != '\0' && strlen(id) < PATH_SIZE / 2;
}

/* ---- transfers ---- */

struct question {
    bool over;
    enum status status;
    char reason[256];
};

static void on_answer(void *ctx, const struct rpc_result *result)
{
    struct question *question = ctx;

    question->over = true;
    question->status = result->status;
    snprintf(question->reason, sizeof(question->reason), "%s", result->message);
    if (result->status == STATUS_OK) fwrite(result->body, 1, result->len, stdout);
}

static bool transfers_parse(const char *text, struct proto_node_transfers *out)
{
    char *end;

    *out = (struct proto_node_transfers){ PROTO_TRANSFERS_LAST, 0 };
    if (strcmp(text, "last") == 0) return true;
    out->what = PROTO_TRANSFERS_METRICS;
    if (strcmp(text, "metrics") == 0) return true;
    out->what = PROTO_TRANSFERS_ONE;
    out->id = strtoull(text, &end, 10);
    return *text >= '0' && *text <= '9' && *end == '\0';
}

static int explain_transfer(struct cli *cli, const char *id)
{
    const char *node = config_text(cli->config, "node");
    const struct rpc_client_options options = { .address = node,
                                                .secret = config_text(cli->config, "secret"),
                                                .name = "explain" };
    struct question question = { .status = STATUS_TIMEOUT };
    struct proto_node_transfers what;
    struct rpc_client *client = NULL;
    struct rpc_call_id call;
    struct errmsg err = { "" };
    struct buf body;

    if (!transfers_parse(id, &what)) {
        return cli_refuse("%.100s is not the id of a transfer, `last` or `metrics`", id);
    }
    if (node[0] == '\0') return cli_refuse("explain transfer: of which node? --node host:port");
    if (cli_cluster_tls(cli, &err) != STATUS_OK) return cli_refuse("%s", err.text);
    if (rpc_client_create(cli->env, &options, &client, &err) != STATUS_OK) {
        return cli_refuse("%s", err.text);
    }
    buf_init(&body, QUESTION_SIZE_MAX);
    enum status status = proto_node_transfers_encode(&what, &body);
    const struct rpc_request request = { .method = PROTO_NODE_TRANSFERS,
                                         .body = buf_data(&body),
                                         .len = body.len,
                                         .deadline_ns = env_now_ns(cli->env) + TIMEOUT_NS,
                                         .on_end = on_answer,
                                         .ctx = &question };
    if (status == STATUS_OK) status = rpc_call(client, &request, &call);
    while (status == STATUS_OK && !question.over)
        env_poll(cli->env, ENV_NS_PER_S);
    buf_fini(&body);
    rpc_client_destroy(client);
    cli_cluster_tls_end(cli);
    if (question.over && question.status == STATUS_OK) return CLI_EXIT_OK;
    return cli_refuse("%s: %s", node,
                      question.reason[0] != '\0' ? question.reason : status_name(question.status));
}

static int explain_request(struct cli *cli, const char *id)
{
    struct remote remote;
    struct errmsg err = { "" };
    struct buf answer;
    char path[PATH_SIZE];

    if (!good_id(id)) return cli_refuse("%.100s is not the id of a request", id);
    if (remote_open(cli, &remote, &err) != STATUS_OK) return cli_refuse("%s", err.text);
    snprintf(path, sizeof(path), "/debug/decisions/%s", id);
    buf_init(&answer, ANSWER_SIZE_MAX);
    const enum status status = remote_get(&remote, path, &answer, &err);
    if (status == STATUS_OK) fwrite(buf_data(&answer), 1, answer.len, stdout);
    buf_fini(&answer);
    remote_close(&remote);
    if (status == STATUS_NOT_FOUND)
        return cli_refuse("%s remembers no decision about %s", remote.url.text, id);
    return status == STATUS_OK ? CLI_EXIT_OK : cli_refuse("%s", err.text);
}

int cmd_explain(struct cli *cli)
{
    const char *what = config_position(cli->config, 0), *id = config_position(cli->config, 1);

    if (strcmp(what, "transfer") == 0) return explain_transfer(cli, id);
    if (strcmp(what, "request") == 0) return explain_request(cli, id);
    return cli_refuse("explain what? `request ID` or `transfer ID`");
}
