/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/run_remote.c - see the header. */
#include "cli/run_remote.h"

#include <string.h>

#include "base/buf.h"
#include "base/env.h"
#include "model/chat.h"
#include "net/http_client.h"
#include "serve/api_json.h"

#define LOOK_NS (100 * ENV_NS_PER_MS) /* so often somebody is asked whether it is enough */
#define ANSWER_NS (3600 * ENV_NS_PER_S)

enum { BODY_SIZE_MAX = 64 << 20, COMPLAINT_SIZE_MAX = 64 << 10 };

#define THEN(status, step)                                                                         \
    do {                                                                                           \
        if ((status) == STATUS_OK) (status) = (step);                                              \
    } while (0)

/* One answer. */
struct hearing {
    const struct run_remote *run;
    run_show_fn show;
    void *ctx; /* of show */
    struct http_client *client;
    struct buf complaint; /* lines that are no events */
    struct http_reply reply;
    bool over, stopped, whole;
    struct errmsg error; /* that came as an event; "": none */
};

/* ---- what comes ---- */

static void stop(struct hearing *h)
{
    http_client_cancel(h->client);
    h->stopped = h->over = true;
}

/* The text of `name` in `object`, if it is there. */
static const char *text_of(const struct json_value *object, const char *name, size_t *len)
{
    const bool is_object = object != NULL && api_json_type_of(object) == JSON_TYPE_OBJECT;
    const struct json_value *value = is_object ? api_json_member(object, name) : NULL;

    if (value == NULL || api_json_type_of(value) != JSON_TYPE_STRING) return NULL;
    return api_json_str(value, len);
}

static const struct json_value *first_choice(const struct json_value *root)
{
    const struct json_value *choices = api_json_member(root, "choices");
    const bool is_list = choices != NULL && api_json_type_of(choices) == JSON_TYPE_ARRAY;
    const struct json_value *first =
        is_list && api_json_len(choices) > 0 ? api_json_at(choices, 0) : NULL;

    return first != NULL && api_json_type_of(first) == JSON_TYPE_OBJECT ? first : NULL;
}

static void take_event(struct hearing *h, const struct json_value *root)
{
    const struct json_value *choice = first_choice(root);
    size_t len = 0;
    const char *error = text_of(api_json_member(root, "error"), "message", &len);

    if (error != NULL) errmsg_set(&h->error, STATUS_UNAVAILABLE, "%.*s", (int)len, error);
    if (choice == NULL) return;
    const char *text = text_of(choice, "text", &len);
    if (text == NULL) text = text_of(api_json_member(choice, "delta"), "content", &len);
    if (text != NULL && !h->show(h->ctx, text, len)) stop(h);
}

static void on_line(void *ctx, const char *line, size_t len)
{
    static const char EVENT[] = "data: ", DONE[] = "[DONE]";
    struct hearing *h = ctx;
    struct json_doc *doc = NULL;

    if (len < strlen(EVENT) || memcmp(line, EVENT, strlen(EVENT)) != 0) {
        (void)!buf_append(&h->complaint, line, len); /* one that is too long does not parse */
        return;
    }
    line += strlen(EVENT);
    len -= strlen(EVENT);
    if (len >= strlen(DONE) && memcmp(line, DONE, strlen(DONE)) == 0) {
        h->whole = true;
    } else if (api_json_parse(line, len, &doc, NULL) == STATUS_OK) {
        if (api_json_type_of(api_json_root(doc)) == JSON_TYPE_OBJECT)
            take_event(h, api_json_root(doc));
    }
    api_json_destroy(doc);
}

static void on_done(void *ctx, const struct http_reply *reply)
{
    struct hearing *h = ctx;
    h->reply = *reply;
    h->over = true;
}

/* ---- how it ended ---- */

/* What the gateway says itself, where it does; who may not ask is told what to do. */
static enum status refused(struct hearing *h, struct errmsg *err)
{
    const char *text = (const char *)buf_data(&h->complaint);
    const bool told = h->reply.code >= 400 && h->reply.code != 401 && h->reply.code != 403;
    struct json_doc *doc = NULL;
    struct errmsg said = { "" };
    size_t len = 0;

    if (told && api_json_parse(text, h->complaint.len, &doc, NULL) == STATUS_OK &&
        api_json_type_of(api_json_root(doc)) == JSON_TYPE_OBJECT) {
        const struct json_value *error = api_json_member(api_json_root(doc), "error");
        const char *message = text_of(error, "message", &len);
        if (message != NULL) errmsg_set(&said, STATUS_OK, "%.*s", (int)len, message);
    }
    api_json_destroy(doc);
    if (said.text[0] == '\0') return remote_trouble(&h->run->remote, &h->reply, err);
    return errmsg_set(err, STATUS_UNAVAILABLE, "%s: %s (%d)", h->run->remote.url.text, said.text,
                      h->reply.code);
}

static enum status ending(struct hearing *h, struct errmsg *err)
{
    if (h->stopped) return STATUS_OK;
    if (h->error.text[0] != '\0')
        return errmsg_set(err, STATUS_UNAVAILABLE, "%s: %s", h->run->remote.url.text,
                          h->error.text);
    if (h->whole && h->reply.status == STATUS_OK && h->reply.code == 200) return STATUS_OK;
    return refused(h, err);
}

/* ---- asking ---- */

static enum status ask(const struct run_remote *run, const char *path, const struct buf *body,
                       run_show_fn show, void *show_ctx, struct errmsg *err)
{
    struct env *env = run->remote.env;
    struct hearing h = { .run = run, .show = show, .ctx = show_ctx };
    const struct http_client_options options = {
        .address = run->remote.url.address,
        .method = "POST",
        .path = path,
        .headers = run->remote.headers,
        .body = buf_data(body),
        .len = body->len,
        .deadline_ns = env_now_ns(env) + ANSWER_NS,
        .identity = run->remote.identity,
        .on_line = on_line,
        .on_done = on_done,
        .ctx = &h,
    };

    buf_init(&h.complaint, COMPLAINT_SIZE_MAX);
    enum status status = http_client_start(env, &options, &h.client, err);
    while (status == STATUS_OK && !h.over) {
        env_poll(env, LOOK_NS);
        if (!h.over && !show(show_ctx, "", 0)) stop(&h);
    }
    if (status == STATUS_OK) status = ending(&h, err);
    buf_fini(&h.complaint);
    return status;
}

/* The body up to what is asked. */
static enum status begin_body(const struct run_remote *run, struct buf *out)
{
    enum status status = buf_append_text(out, "{\"model\":");

    THEN(status, api_json_write_string(out, run->model, strlen(run->model)));
    THEN(status, buf_printf(out,
                            ",\"stream\":true,\"max_tokens\":%u,\"temperature\":%g,\"top_p\":%g,"
                            "\"seed\":%llu,\"ignore_eos\":%s,",
                            run->max_tokens, (double)run->temperature, (double)run->top_p,
                            (unsigned long long)run->seed, run->ignore_eos ? "true" : "false"));
    return status;
}

static enum status write_messages(const struct chat_message *messages, size_t count,
                                  struct buf *out)
{
    enum status status = buf_append_text(out, "\"messages\":[");

    for (size_t i = 0; i < count; i++) {
        const struct chat_message *message = &messages[i];
        THEN(status, buf_append_text(out, i == 0 ? "{\"role\":" : ",{\"role\":"));
        THEN(status, api_json_write_string(out, message->role, message->role_len));
        THEN(status, buf_append_text(out, ",\"content\":"));
        THEN(status, api_json_write_string(out, message->content, message->content_len));
        THEN(status, buf_append_text(out, "}"));
    }
    THEN(status, buf_append_text(out, "]}"));
    return status;
}

enum status run_remote_answer(void *ctx, const struct chat_message *messages, size_t count,
                              run_show_fn show, void *show_ctx, struct errmsg *err)
{
    const struct run_remote *run = ctx;
    struct buf body;

    buf_init(&body, BODY_SIZE_MAX);
    enum status status = begin_body(run, &body);
    THEN(status, write_messages(messages, count, &body));
    if (status != STATUS_OK) errmsg_set(err, status, "the conversation is too long");
    THEN(status, ask(run, "/v1/chat/completions", &body, show, show_ctx, err));
    buf_fini(&body);
    return status;
}

enum status run_remote_continue(const struct run_remote *run, const char *text, size_t len,
                                run_show_fn show, void *show_ctx, struct errmsg *err)
{
    struct buf body;

    buf_init(&body, BODY_SIZE_MAX);
    enum status status = begin_body(run, &body);
    THEN(status, buf_append_text(&body, "\"prompt\":"));
    THEN(status, api_json_write_string(&body, text, len));
    THEN(status, buf_append_text(&body, "}"));
    if (status != STATUS_OK) errmsg_set(err, status, "the prompt is too long");
    THEN(status, ask(run, "/v1/completions", &body, show, show_ctx, err));
    buf_fini(&body);
    return status;
}
