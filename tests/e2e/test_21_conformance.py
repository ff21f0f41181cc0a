# SPDX-License-Identifier: Apache-2.0
"""What a client of this API may rely on, said with the `openai` client.

Read it as documentation: each test is one promise, and docs/api.md lists the fields, and what other
servers have that this one has not. One cluster (a prefill and a decode process) serves them all.

Promises that need more than one request are kept elsewhere: keys, limits and their headers
(test_22_tenants.py), forms and tools (test_22_formats.py, test_23_tools.py), `cached_tokens`
(test_30_cache.py), errors within a stream (test_40_faults.py), drains (test_48_rolling.py), 429 and
Retry-After (test_60_overload.py), classes and fairness by header (test_74_classes.py).
"""
import http.client
import json
import math
import re

import openai
import pytest

STORY = [{"role": "user", "content": "Tell me a story about a fox and a hen."}]
SKY = "The sky is blue because of the way that the air scatters the light of the sun. "


def streamed(stream):
    """The texts of a streamed answer by choice, its finish reasons, and its usage."""
    texts, finish, usage = {}, {}, None
    for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            piece = choice.delta.content if hasattr(choice, "delta") else choice.text
            texts[choice.index] = texts.get(choice.index, "") + (piece or "")
            if choice.finish_reason:
                assert choice.index not in finish, "a choice ends once"
                finish[choice.index] = choice.finish_reason
    return texts, finish, usage


def raw(cluster, path, body, **headers):
    """Status, headers and text of an answer as it comes."""
    connection = http.client.HTTPConnection("127.0.0.1", cluster.port, timeout=60)
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json", **headers})
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return response.status, response.headers, text


# ---- endpoints ----

def test_models(client, cluster):
    model = json.loads(cluster.get("/v1/models")[1])
    assert model["object"] == "list"
    (item,) = model["data"]
    assert item == json.loads(cluster.get("/v1/models/smollm2")[1])
    assert set(item) == {"id", "object", "created", "owned_by", "root", "parent", "max_model_len", "permission"}
    assert (item["id"], item["root"], item["object"], item["permission"]) == ("smollm2", "smollm2", "model", [])
    assert isinstance(item["created"], int) and item["max_model_len"] >= 2048
    with pytest.raises(openai.NotFoundError) as error:
        client.models.retrieve("other")
    assert error.value.code == "model_not_found"


def test_what_machines_ask(cluster):
    """Probes, versions, load, and vLLM's and SGLang's addresses for tokens."""
    assert cluster.get("/health") == (200, "") and cluster.get("/ping") == (200, "")
    ready = json.loads(cluster.get("/ready")[1])
    assert ready["ready"] is True and ready["prefill"] == 1 and ready["decode"] == 1
    assert json.loads(cluster.get("/version")[1])["version"]
    assert json.loads(cluster.get("/load")[1]) == {"server_load": 0}
    for path in ("/tokenize", "/v1/tokenize"):
        status, answer, _ = cluster.post(path, {"model": "smollm2", "prompt": "Hello"})
        assert (status, answer["tokens"], answer["count"]) == (200, [19556], 1) and answer["max_model_len"] > 0
    for path in ("/detokenize", "/v1/detokenize"):
        assert cluster.post(path, {"model": "smollm2", "tokens": [19556]})[1] == {"prompt": "Hello"}


@pytest.mark.parametrize("path", [
    "/v1/embeddings", "/v1/responses", "/v1/messages", "/v1/load_lora_adapter", "/reset_prefix_cache", "/generate",
    "/health_generate", "/get_server_info", "/flush_cache"])
def test_what_others_have_is_refused_by_name(cluster, path):
    status, answer, _ = cluster.post(path, {})
    assert (status, answer["error"]["code"]) == (501, "unsupported_endpoint")
    assert answer["error"]["message"].startswith(path)


# ---- the shape of answers ----

def test_the_shape_of_a_chat(cluster):
    status, headers, text = raw(cluster, "/v1/chat/completions", {
        "model": "smollm2", "messages": STORY, "temperature": 0, "max_tokens": 3})
    answer = json.loads(text)
    assert status == 200 and headers["Content-Type"] == "application/json"
    assert set(answer) == {"id", "object", "created", "model", "system_fingerprint", "choices", "usage"}
    assert answer["id"].startswith("chatcmpl-") and answer["object"] == "chat.completion"
    (choice,) = answer["choices"]
    assert set(choice) == {"index", "message", "logprobs", "finish_reason"}
    assert set(choice["message"]) == {"role", "content"} and choice["message"]["role"] == "assistant"
    assert (choice["index"], choice["logprobs"], choice["finish_reason"]) == (0, None, "length")
    usage = answer["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["completion_tokens"] == 3 and 0 <= usage["prompt_tokens_details"]["cached_tokens"]


def test_the_shape_of_a_completion(cluster):
    body = {"model": "smollm2", "prompt": "The sky is", "temperature": 0, "max_tokens": 3}
    one, two = (json.loads(raw(cluster, "/v1/completions", body)[2]) for _ in range(2))
    assert set(one) == {"id", "object", "created", "model", "system_fingerprint", "choices", "usage"}
    assert one["id"].startswith("cmpl-") and one["object"] == "text_completion" and one["id"] != two["id"]
    assert set(one["choices"][0]) == {"index", "text", "logprobs", "finish_reason"}
    assert one["choices"] == two["choices"] and one["system_fingerprint"] == two["system_fingerprint"]
    assert one["system_fingerprint"].startswith("fp_")


@pytest.mark.parametrize("usage", [False, True])
def test_the_shape_of_a_stream(cluster, usage):
    """The role, pieces, the reason, usage if asked for, [DONE]; each an event of its own."""
    body = {"model": "smollm2", "messages": STORY, "temperature": 0, "max_tokens": 3, "stream": True}
    if usage:
        body["stream_options"] = {"include_usage": True}
    status, headers, text = raw(cluster, "/v1/chat/completions", body)
    assert status == 200 and headers["Content-Type"].startswith("text/event-stream")
    assert headers["Cache-Control"] == "no-cache" and headers["X-Accel-Buffering"] == "no"
    *events, done, nothing = text.split("\n\n")
    assert (done, nothing) == ("data: [DONE]", "") and all(e.startswith("data: {") for e in events)
    chunks = [json.loads(e[6:]) for e in events]
    assert len({c["id"] for c in chunks}) == 1 and {c["object"] for c in chunks} == {"chat.completion.chunk"}
    if usage:
        last = chunks.pop()
        assert last["choices"] == [] and last["usage"]["completion_tokens"] == 3
        assert all(c["usage"] is None for c in chunks)
    else:
        assert all("usage" not in c for c in chunks)
    deltas = [c["choices"][0]["delta"] for c in chunks]
    assert deltas[0] == {"role": "assistant", "content": ""} and deltas[-1] == {}
    assert all(set(d) == {"content"} for d in deltas[1:-1])
    assert [c["choices"][0]["finish_reason"] for c in chunks] == [None] * (len(chunks) - 1) + ["length"]


def test_characters_are_never_split(client):
    """Tokens that are parts of a character are shown together, or as U+FFFD if the rest does not come."""
    halves = client.completions.create(model="smollm2", prompt="x", max_tokens=3, stream=True,
                                       logit_bias={"164": 100})
    texts = [c.choices[0].text for c in halves]
    assert "".join(texts) and set("".join(texts)) == {"\ufffd"}


# ---- fields ----

# Each field of OpenAI's and of vLLM's requests that clients send, at a value that changes nothing or is obeyed.
CHAT_FIELDS = {
    "model": "smollm2", "max_completion_tokens": 2, "max_tokens": 9, "temperature": 0.0, "top_p": 1.0, "n": 1,
    "stop": ["###"], "stream": False, "seed": 1, "logprobs": True, "top_logprobs": 0, "presence_penalty": 0.0,
    "frequency_penalty": 0.0, "logit_bias": {}, "response_format": {"type": "text"}, "tools": [], "tool_choice": "none",
    "parallel_tool_calls": True, "user": "me", "metadata": {"a": "b"}, "service_tier": "auto", "store": False,
    "top_k": -1, "min_p": 0.0, "min_tokens": 0, "ignore_eos": True, "stop_token_ids": [], "repetition_penalty": 1.0,
    "skip_special_tokens": True, "structured_outputs": None, "guided_json": None, "guided_choice": None,
    "cache_salt": "salt", "priority": 0, "kv_transfer_params": None, "request_id": "mine", "chat_template_kwargs": {},
    "add_generation_prompt": True, "continue_final_message": False, "truncate_prompt_tokens": None,
    "return_token_ids": False, "prompt_logprobs": None, "reasoning_effort": None, "modalities": None,
}
TEXT_FIELDS = {
    "model": "smollm2", "max_tokens": 2, "temperature": 0.0, "top_p": 1.0, "n": 1, "best_of": 1, "stop": None,
    "stream": False, "stream_options": None, "seed": 1, "logprobs": 0, "echo": False, "suffix": "",
    "presence_penalty": 0.0, "frequency_penalty": 0.0, "logit_bias": None, "user": "me", "use_beam_search": False,
    "length_penalty": 1.0, "include_stop_str_in_output": False, "spaces_between_special_tokens": True,
    "ignore_eos": True, "min_tokens": 2,
}


def test_every_field_that_clients_send(cluster):
    for path, fields in (("chat/completions", {"messages": STORY, **CHAT_FIELDS}),
                         ("completions", {"prompt": "x", **TEXT_FIELDS})):
        status, answer, _ = cluster.post("/v1/" + path, fields)
        assert status == 200, answer
        assert answer["usage"]["completion_tokens"] == 2, "max_completion_tokens wins"


def test_unknown_fields_are_refused_by_name(cluster):
    """Nothing is ignored silently: what an answer would lack is said at once."""
    for field, code in [("temprature", "unknown_parameter"), ("kv_transfer_params", "unsupported_parameter"),
                        ("guided_regex", "unsupported_parameter"), ("nvext", "unsupported_parameter")]:
        status, answer, _ = cluster.post("/v1/chat/completions", {"model": "smollm2", "messages": STORY, field: {"a": 1}})
        assert (status, answer["error"]["param"], answer["error"]["code"]) == (400, field, code)


def test_vllms_names_of_forms(client):
    schema = {"type": "integer", "multipleOf": 7, "minimum": 10, "maximum": 99}
    for more in ({"structured_outputs": {"json": schema}}, {"guided_json": json.dumps(schema)}):
        answer = client.chat.completions.create(model="smollm2", messages=STORY, temperature=0, max_tokens=9,
                                                extra_body=more)
        assert int(answer.choices[0].message.content) % 7 == 0


# ---- errors and headers ----

def test_the_shape_of_an_error(cluster):
    status, headers, text = raw(cluster, "/v1/chat/completions", {"model": "smollm2", "messages": STORY, "n": 0})
    error = json.loads(text)
    assert status == 400 and headers["Content-Type"] == "application/json" and set(error) == {"error"}
    assert set(error["error"]) == {"message", "type", "param", "code"}
    assert (error["error"]["type"], error["error"]["param"]) == ("invalid_request_error", "n")
    status, _, text = raw(cluster, "/v1/completions", {"model": "other", "prompt": "x"})
    assert status == 404 and json.loads(text)["error"]["type"] == "not_found_error"


def test_request_ids(cluster):
    """The client's own comes back; whoever has none gets one. A bad trace is no reason to fail."""
    body = {"model": "smollm2", "prompt": "x", "max_tokens": 1}
    for sent in ({"X-Request-Id": "abc-123"}, {}, {"X-Request-Id": "x" * 200}):
        _, headers, _ = raw(cluster, "/v1/completions", body, traceparent="00-nonsense", **sent)
        assert headers["X-Request-Id"]
        assert (headers["X-Request-Id"] == sent.get("X-Request-Id")) == (sent.get("X-Request-Id") == "abc-123")


# ---- several answers ----

def test_choices_differ_by_their_seeds(client):
    """Choice i of seed s is the answer that seed s + i gives alone; so one of them can be had again."""
    def ask(seed, n):
        return client.chat.completions.create(model="smollm2", messages=STORY, temperature=1.1, seed=seed, n=n,
                                              max_tokens=12)

    answer = ask(7, 3)
    assert [c.index for c in answer.choices] == [0, 1, 2]
    texts = [c.message.content for c in answer.choices]
    assert len(set(texts)) == 3
    assert texts == [ask(7 + i, 1).choices[0].message.content for i in range(3)]


def test_usage_counts_a_prompt_once(client):
    one = client.chat.completions.create(model="smollm2", messages=STORY, max_tokens=4, temperature=0)
    four = client.chat.completions.create(model="smollm2", messages=STORY, max_tokens=4, temperature=0, n=4)
    assert four.usage.prompt_tokens == one.usage.prompt_tokens
    assert four.usage.completion_tokens == 4 * one.usage.completion_tokens
    assert len({c.message.content for c in four.choices}) == 1, "temperature 0 leaves no choice"


def test_choices_share_one_prefill(client, cluster):
    """The other answers find the prompt of the first one in the cache."""
    prompt = "Choices share one prefill. " + SKY * 8
    before = cluster.metric("vllm:prefix_cache_hits_total")
    answer = client.completions.create(model="smollm2", prompt=prompt, max_tokens=2, n=4)
    tokens = answer.usage.prompt_tokens
    assert tokens > 128 and answer.usage.prompt_tokens_details.cached_tokens == 0
    assert cluster.metric("vllm:prefix_cache_hits_total") - before == 3 * ((tokens - 1) // 32 * 32)


def test_streamed_choices_are_the_same(client):
    body = dict(model="smollm2", messages=STORY, temperature=1.1, seed=3, n=3, max_tokens=10)
    whole = client.chat.completions.create(**body)
    texts, finish, usage = streamed(client.chat.completions.create(
        **body, stream=True, stream_options={"include_usage": True}))
    assert texts == {c.index: c.message.content for c in whole.choices}
    assert finish == {c.index: c.finish_reason for c in whole.choices}
    assert usage.completion_tokens == whole.usage.completion_tokens


@pytest.mark.parametrize("field, value", [("n", 10**9), ("n", 129), ("n", 0), ("n", "2"), ("n", 1.5)])
def test_n_is_bounded(client, field, value):
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(model="smollm2", messages=STORY, extra_body={field: value})
    assert error.value.param == field


def test_best_of_is_n_or_refused(client):
    assert len(client.completions.create(model="smollm2", prompt="x", max_tokens=1, n=2, best_of=2).choices) == 2
    with pytest.raises(openai.BadRequestError) as error:
        client.completions.create(model="smollm2", prompt="x", max_tokens=1, n=2, best_of=3)
    assert error.value.param == "best_of"


# ---- prompts ----

def test_prompts_are_answered_in_order(client, cluster):
    prompts = ["The sky is", "Two and two make", "Once upon a time"]
    tokens = [cluster.post("/tokenize", {"prompt": p})[1]["tokens"] for p in prompts]
    body = dict(model="smollm2", temperature=0, max_tokens=6)
    alone = [client.completions.create(**body, prompt=p) for p in prompts]
    texts = [a.choices[0].text for a in alone]
    for several in (prompts, tokens, [tokens[0], prompts[1], tokens[2]]):
        answer = client.completions.create(**body, prompt=several)
        assert [c.text for c in answer.choices] == texts
        assert [c.index for c in answer.choices] == [0, 1, 2]
        assert answer.usage.prompt_tokens == sum(a.usage.prompt_tokens for a in alone)
    assert client.completions.create(**body, prompt=tokens[1]).choices[0].text == texts[1]
    twice = client.completions.create(**body, prompt=prompts[:2], n=2)
    assert [c.text for c in twice.choices] == [texts[0], texts[0], texts[1], texts[1]]
    assert streamed(client.completions.create(**body, prompt=prompts, stream=True))[0] == dict(enumerate(texts))


@pytest.mark.parametrize("prompt, param", [
    ([], "prompt"), ([[]], "prompt[0]"), (["a", 5], "prompt[1]"), ([[1], [2, -1]], "prompt[1][1]"),
    (["a"] * 129, "prompt"), ([["a"]], "prompt[0][0]"), ([10**6], "prompt"),
])
def test_bad_prompts_are_named(client, prompt, param):
    with pytest.raises(openai.BadRequestError) as error:
        client.completions.create(model="smollm2", prompt=prompt)
    assert error.value.param == param


def test_echo(client, cluster):
    body = dict(model="smollm2", temperature=0, max_tokens=5)
    plain = client.completions.create(**body, prompt="The sky is").choices[0].text
    tokens = cluster.post("/tokenize", {"prompt": "The sky is"})[1]["tokens"]
    for prompt in ("The sky is", tokens):
        assert client.completions.create(**body, prompt=prompt, echo=True).choices[0].text == "The sky is" + plain
    texts, _, _ = streamed(client.completions.create(**body, prompt="The sky is", echo=True, stream=True, n=2))
    assert texts == {0: "The sky is" + plain, 1: "The sky is" + plain}


# ---- probabilities ----

def test_chat_logprobs(client):
    answer = client.chat.completions.create(model="smollm2", messages=STORY, temperature=0, max_tokens=8,
                                            logprobs=True, top_logprobs=5)
    rows = answer.choices[0].logprobs.content
    assert len(rows) == 8
    assert "".join(r.token for r in rows) == answer.choices[0].message.content
    for row in rows:
        tops = [t.logprob for t in row.top_logprobs]
        assert len(tops) == 5 and tops == sorted(tops, reverse=True)
        assert row.logprob == tops[0] <= 0, "temperature 0 takes the likeliest"
        assert sum(math.exp(t) for t in tops) <= 1.0001
        assert bytes(row.bytes).decode() == row.token
    alone = client.chat.completions.create(model="smollm2", messages=STORY, temperature=0, max_tokens=8, logprobs=True)
    assert [r.logprob for r in alone.choices[0].logprobs.content] == [r.logprob for r in rows]
    assert all(r.top_logprobs == [] for r in alone.choices[0].logprobs.content)


def test_streamed_logprobs_are_the_same(client):
    body = dict(model="smollm2", messages=STORY, temperature=1.2, seed=5, n=2, max_tokens=12, logprobs=True,
                top_logprobs=2)
    whole = client.chat.completions.create(**body)
    rows = {0: [], 1: []}
    for chunk in client.chat.completions.create(**body, stream=True):
        for choice in chunk.choices:
            rows[choice.index] += choice.logprobs.content if choice.logprobs else []
    assert rows == {c.index: c.logprobs.content for c in whole.choices}


def test_logprobs_are_the_models_own(client):
    """Before temperature, biases and penalties; and the same from prefill and decode, to the last bit."""
    body = dict(model="smollm2", prompt="The sky is", logprobs=2)
    plain = client.completions.create(**body, temperature=0, max_tokens=4).choices[0]
    forced = client.completions.create(**body, temperature=0, max_tokens=1, logit_bias={"19556": 100}).choices[0]
    assert forced.text == "Hello" and forced.logprobs.token_logprobs[0] < -10
    assert {**plain.logprobs.top_logprobs[0], "Hello": forced.logprobs.token_logprobs[0]} == \
        forced.logprobs.top_logprobs[0]
    again = client.completions.create(model="smollm2", prompt="The sky is" + "".join(plain.logprobs.tokens[:2]),
                                      logprobs=2, temperature=0, max_tokens=2).choices[0]
    assert again.logprobs.token_logprobs == plain.logprobs.token_logprobs[2:]
    assert again.logprobs.top_logprobs == plain.logprobs.top_logprobs[2:]


def test_completion_logprobs(client):
    choice = client.completions.create(model="smollm2", prompt="Two and two make", temperature=0, max_tokens=6,
                                       logprobs=0).choices[0]
    logprobs = choice.logprobs
    assert "".join(logprobs.tokens) == choice.text
    assert [choice.text[o:o + len(t)] for o, t in zip(logprobs.text_offset, logprobs.tokens)] == logprobs.tokens
    assert [{t: v} for t, v in zip(logprobs.tokens, logprobs.token_logprobs)] == logprobs.top_logprobs


def test_tokens_that_are_no_text(client):
    """A character of several tokens: its parts are named by their bytes."""
    body = dict(model="smollm2", temperature=0, max_tokens=1, logit_bias={"164": 100})
    row = client.completions.create(**body, prompt="x", logprobs=1).choices[0].logprobs
    assert row.tokens[0].startswith("bytes:\\x")
    row = client.chat.completions.create(**body, messages=STORY, logprobs=True).choices[0].logprobs.content[0]
    assert row.token == "\ufffd" and row.bytes[0] >= 0x80


@pytest.mark.parametrize("path, fields, param", [
    ("chat/completions", {"messages": STORY, "top_logprobs": 2}, "top_logprobs"),
    ("chat/completions", {"messages": STORY, "logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ("completions", {"prompt": "x", "logprobs": 21}, "logprobs"),
    ("completions", {"prompt": "x", "prompt_logprobs": 1, "stream": True}, "prompt_logprobs"),
    ("chat/completions", {"messages": STORY, "prompt_logprobs": -1}, "prompt_logprobs"),
    ("completions", {"prompt": "x", "logprobs": 1, "max_tokens": 0}, "max_tokens"),
])
def test_bad_logprobs_are_named(cluster, path, fields, param):
    status, body, _ = cluster.post("/v1/" + path, fields)
    assert (status, body["error"]["param"]) == (400, param)


@pytest.mark.parametrize("long, max_tokens", [(52, 1), (4, 0), (4, 6)])
def test_prompts_are_scored(client, cluster, long, max_tokens):
    """Tokens of a prompt are as likely as they were when they were answered, to the last digit, through one
    chunk or several, and whether they are cached or not: `logprobs` with `echo`, as evaluation harnesses ask."""
    def tokens_of(text):
        return cluster.post("/tokenize", {"prompt": text, "add_special_tokens": False})[1]["tokens"]

    body = dict(model="smollm2", temperature=0, logprobs=3)
    story = tokens_of("Once upon a time there was a small fox. " * long + "It was hungry and")
    answer = client.completions.create(**body, prompt=story, max_tokens=12).choices[0]
    tokens = [token for text in answer.logprobs.tokens for token in tokens_of(text)]
    assert len(tokens) == len(answer.logprobs.tokens) > 4 and (len(story) > 512 or long < 52)
    scored = client.completions.create(**body, prompt=[story + tokens, story[:30]], echo=True, max_tokens=max_tokens)
    for choice, prompt in zip(scored.choices, (story + tokens, story[:30])):
        rows = choice.logprobs
        assert rows.token_logprobs[0] is None and rows.top_logprobs[0] is None and rows.text_offset[0] == 0
        assert all(value <= 0 for value in rows.token_logprobs[1:])
        for column in (rows.tokens, rows.token_logprobs, rows.top_logprobs, rows.text_offset):
            assert len(prompt) <= len(column) <= len(prompt) + max_tokens
        assert "".join(rows.tokens) == choice.text
        assert [choice.text[at:at + 1] for at in rows.text_offset] == [token[:1] for token in rows.tokens]
        assert choice.finish_reason == "length" or max_tokens > 0
    rows, told = scored.choices[0].logprobs, answer.logprobs
    here = slice(len(story), len(story) + len(tokens))
    assert rows.token_logprobs[here] == told.token_logprobs and rows.top_logprobs[here] == told.top_logprobs
    assert scored.usage.prompt_tokens == len(story) + len(tokens) + 30
    assert scored.usage.completion_tokens <= 2 * max_tokens


@pytest.mark.parametrize("max_tokens", [0, 6])
def test_scored_prompts_are_streamed(client, max_tokens):
    """The first chunk of a choice has the prompt and its rows, the others go on; together they are the whole."""
    body = dict(model="smollm2", prompt=[SKY, "Two and two"], n=2, temperature=0, logprobs=2, echo=True,
                max_tokens=max_tokens)
    whole = client.completions.create(**body)
    chunks = [c.choices[0] for c in client.completions.create(**body, stream=True)]
    for choice in whole.choices:
        mine = [c for c in chunks if c.index == choice.index]
        assert "".join(c.text for c in mine) == choice.text
        assert mine[0].text.startswith(SKY if choice.index < 2 else "Two and two")
        for column in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
            assert sum((getattr(c.logprobs, column) for c in mine if c.logprobs), []) == \
                getattr(choice.logprobs, column)


def test_prompt_logprobs(client):
    """vLLM's list: null for the first token, then for each its own entry and the likeliest, by token id."""
    answer = client.completions.create(model="smollm2", prompt=SKY, temperature=0, max_tokens=1, n=2, echo=True,
                                       logprobs=1, extra_body={"prompt_logprobs": 3})
    for choice in answer.choices:
        listed, rows = choice.model_extra["prompt_logprobs"], choice.logprobs
        assert len(listed) == answer.usage.prompt_tokens and listed[0] is None
        for entry, token, value, top in zip(listed[1:], rows.tokens[1:], rows.token_logprobs[1:], rows.top_logprobs[1:]):
            own, *others = entry.values()
            assert own["decoded_token"] == token and own["logprob"] == value
            assert {o["rank"] for o in entry.values()} == {1, 2, 3} | {own["rank"]}
            best = min(entry.values(), key=lambda o: o["rank"])
            assert top[best["decoded_token"]] == best["logprob"] == max(o["logprob"] for o in entry.values())
            assert [o["rank"] for o in others] == sorted(o["rank"] for o in others)
    chat = client.chat.completions.create(model="smollm2", messages=STORY, max_tokens=1, temperature=0,
                                          extra_body={"prompt_logprobs": 0})
    listed = chat.model_extra["prompt_logprobs"]
    assert len(listed) == chat.usage.prompt_tokens and all(len(entry) == 1 for entry in listed[1:])


# ---- load generators ----

# The bodies that `vllm bench serve` sends (its backends openai and openai-chat, then older ones), and guidellm.
BENCHES = [
    ("completions", {"model": "smollm2", "prompt": SKY, "repetition_penalty": 1.0, "max_tokens": 9, "logprobs": None,
                     "stream": True, "stream_options": {"include_usage": True}, "ignore_eos": True}),
    ("chat/completions", {"model": "smollm2", "messages": [{"role": "user", "content": [{"type": "text", "text": SKY}]}],
                          "max_completion_tokens": 9, "stream": True, "stream_options": {"include_usage": True},
                          "ignore_eos": True}),
    ("completions", {"model": "smollm2", "prompt": SKY, "temperature": 0.0, "best_of": 1, "use_beam_search": False,
                     "max_tokens": 9, "logprobs": None, "stream": True, "ignore_eos": True, "top_p": 1.0, "top_k": -1,
                     "min_p": 0.0, "stream_options": {"include_usage": True}}),
    ("chat/completions", {"model": "smollm2", "messages": [{"role": "user", "content": SKY}], "max_tokens": 9,
                          "max_completion_tokens": 9, "ignore_eos": True, "stop": None, "stream": True,
                          "stream_options": {"include_usage": True, "continuous_usage_stats": True}}),
    ("completions", {"model": "smollm2", "prompt": [504, 6376, 314], "max_tokens": 9, "min_tokens": 9, "stream": True,
                     "temperature": 0, "ignore_eos": True, "stream_options": {"include_usage": True}}),
]


@pytest.mark.parametrize("path, body", BENCHES)
def test_load_generators(cluster, path, body):
    """They count what usage says, and take the time of each event: one a token."""
    status, headers, text = raw(cluster, "/v1/" + path, body, **{"Authorization": "Bearer None",
                                                                 "x-request-id": "benchmark-serving0"})
    assert status == 200 and headers["Content-Type"].startswith("text/event-stream")
    assert headers["X-Request-Id"] == "benchmark-serving0"
    events = text.strip().split("\n\n")
    assert events[-1] == "data: [DONE]"
    chunks = [json.loads(e.removeprefix("data: ")) for e in events[:-1]]
    texts = [c for c in chunks if c["choices"] and
             (c["choices"][0].get("text") or c["choices"][0].get("delta", {}).get("content"))]
    assert 1 < len(texts) <= 9
    assert chunks[-1]["choices"] == [] and chunks[-1]["usage"]["completion_tokens"] == 9
    if "continuous_usage_stats" in body["stream_options"]:
        counts = [c["usage"]["completion_tokens"] for c in chunks]
        assert counts == sorted(counts) and counts[0] <= 1 and counts[-1] == 9
    else:
        assert all(c["usage"] is None for c in chunks[:-1])


def test_evaluation_harnesses(cluster):
    """The body that lm-eval sends: tokens, echoed and scored, and one more."""
    status, answer, _ = cluster.post("/v1/completions", {
        "model": "smollm2", "prompt": [[504, 6376, 314]], "temperature": 0, "max_tokens": 1, "logprobs": 1, "seed": 1234,
        "echo": True})
    rows = answer["choices"][0]["logprobs"]
    assert status == 200 and len(rows["token_logprobs"]) == 4 == len(rows["top_logprobs"])
    assert all(max(top.values()) >= value for top, value in zip(rows["top_logprobs"][1:], rows["token_logprobs"][1:]))


# ---- metrics ----

# What dashboards and endpoint pickers made for vLLM read.
VLLM_METRICS = """
num_requests_running num_requests_waiting kv_cache_usage_perc gpu_cache_usage_perc cache_config_info
prompt_tokens_total generation_tokens_total request_success_total num_preemptions_total admission_rejections_total
prefix_cache_queries_total prefix_cache_hits_total external_prefix_cache_queries_total external_prefix_cache_hits_total
""".split()
VLLM_HISTOGRAMS = """
time_to_first_token_seconds inter_token_latency_seconds time_per_output_token_seconds
request_time_per_output_token_seconds e2e_request_latency_seconds request_queue_time_seconds
request_inference_time_seconds request_prefill_time_seconds request_decode_time_seconds request_prompt_tokens
request_generation_tokens request_params_n request_params_max_tokens request_prefill_kv_computed_tokens
""".split()


def test_metrics_have_vllms_names(client, cluster):
    def count(name, part="count"):
        return cluster.metric(f"vllm:{name}_{part}", model_name="smollm2")

    client.completions.create(model="smollm2", prompt=SKY, max_tokens=3, n=2, extra_body={"ignore_eos": True})
    for name in VLLM_METRICS:
        cluster.metric("vllm:" + name, model_name="smollm2")
    before = {name: count(name) for name in VLLM_HISTOGRAMS}
    client.completions.create(model="smollm2", prompt=SKY, max_tokens=3, n=2, extra_body={"ignore_eos": True})
    for name in VLLM_HISTOGRAMS:
        more = {"request_params_n": 1, "request_params_max_tokens": 1, "inter_token_latency_seconds": 4,
                "time_per_output_token_seconds": 4}.get(name, 2)
        assert count(name) - before[name] == more, name
    assert cluster.metric("vllm:cache_config_info", block_size="32") == 1
    bounds = ".001 .005 .01 .02 .04 .06 .08 .1 .25 .5 .75 1 2.5 5 7.5 10 20 40 80 160 640 2560".split()
    buckets = re.findall(r'^vllm:time_to_first_token_seconds_bucket{.*le="([^"]*)"', cluster.get("/metrics")[1], re.M)
    assert [float(b) for b in buckets] == [*map(float, bounds), math.inf]
    found = sum(cluster.metric("yolk_gateway_cached_tokens_total", tier=t) for t in ("local", "remote", "disk"))
    assert found == cluster.metric("vllm:prefix_cache_hits_total")
