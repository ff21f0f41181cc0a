# SPDX-License-Identifier: Apache-2.0
"""The OpenAI API, with the official client and with bare JSON."""
import json

import openai
import pytest


def chat(text, **more):
    return dict(model="smollm2", messages=[{"role": "user", "content": text}],
                temperature=0, **more)


def test_models(client):
    models = client.models.list().data
    assert [m.id for m in models] == ["smollm2"]
    assert client.models.retrieve("smollm2").object == "model"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")


def test_chat(client):
    answer = client.chat.completions.create(**chat("Explain in one sentence why the sky is blue.", max_tokens=40))
    assert "Rayleigh" in answer.choices[0].message.content
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.id.startswith("chatcmpl-")


def test_chat_streamed_is_the_same_text(client):
    whole = client.chat.completions.create(**chat("Count from one to ten.", max_tokens=40))
    parts, finish, usage = [], None, None
    stream = client.chat.completions.create(
        **chat("Count from one to ten.", max_tokens=40), stream=True,
        stream_options={"include_usage": True})
    for chunk in stream:
        if chunk.choices:
            parts.append(chunk.choices[0].delta.content or "")
            finish = chunk.choices[0].finish_reason or finish
            assert chunk.usage is None
        else:
            usage = chunk.usage
    assert "".join(parts) == whole.choices[0].message.content
    assert finish == whole.choices[0].finish_reason
    assert usage.completion_tokens == whole.usage.completion_tokens
    assert len([p for p in parts if p]) > 3, "the text came in one piece"


def test_completions(client):
    answer = client.completions.create(model="smollm2", prompt="The sky is", max_tokens=8,
                                       temperature=0)
    assert answer.object == "text_completion"
    assert answer.choices[0].text
    streamed = "".join(c.choices[0].text for c in client.completions.create(
        model="smollm2", prompt="The sky is", max_tokens=8, temperature=0, stream=True))
    assert streamed == answer.choices[0].text


def test_max_tokens_and_ignore_eos(client):
    answer = client.chat.completions.create(**chat("Say hi.", max_tokens=1))
    assert answer.usage.completion_tokens == 1
    assert answer.choices[0].finish_reason == "length"
    answer = client.chat.completions.create(**chat("Say hi.", max_tokens=150),
                                            extra_body={"ignore_eos": True})
    assert answer.usage.completion_tokens == 150
    assert answer.choices[0].finish_reason == "length"


def test_stop_strings(client):
    whole = client.chat.completions.create(
        **chat("Count from one to ten.", max_tokens=40)).choices[0].message.content
    for stop in (whole[5:9], whole[12:13], [whole[20:26], "never said"]):
        answer = client.chat.completions.create(**chat("Count from one to ten.", max_tokens=40,
                                                       stop=stop))
        first = min(whole.find(s) for s in ([stop] if isinstance(stop, str) else stop)
                    if s in whole)
        assert answer.choices[0].message.content == whole[:first]
        assert answer.choices[0].finish_reason == "stop"


def test_seeded_sampling_repeats(client):
    def sample(seed):
        return client.chat.completions.create(
            model="smollm2", messages=[{"role": "user", "content": "Tell me a story."}],
            temperature=1.2, top_p=0.95, seed=seed, max_tokens=24).choices[0].message.content

    assert sample(1) == sample(1)
    assert len({sample(seed) for seed in range(4)}) > 1


HELLO, END = "19556", "2"  # the tokens "Hello" and <|im_end|> of smollm2


def complete(cluster, **more):
    status, body, _ = cluster.post("/v1/completions", dict(model="smollm2", prompt="The sky is", temperature=0, **more))
    assert status == 200, body
    return body["choices"][0], body["usage"]["completion_tokens"]


def test_biases_and_stop_tokens(cluster):
    assert complete(cluster, max_tokens=3, logit_bias={HELLO: 100})[0]["text"] == "HelloHelloHello"
    choice, count = complete(cluster, max_tokens=3, logit_bias={HELLO: 100}, stop_token_ids=[int(HELLO)])
    assert (choice["text"], choice["finish_reason"], count) == ("", "stop", 0)


def test_min_tokens_holds_the_end_back(cluster):
    choice, count = complete(cluster, max_tokens=9, logit_bias={END: 100})
    assert (choice["finish_reason"], count) == ("stop", 0)
    choice, count = complete(cluster, max_tokens=9, logit_bias={END: 100}, min_tokens=5)
    assert (choice["finish_reason"], count) == ("stop", 5)


def test_penalties_end_repetition(cluster):
    def distinct(**more):
        words = complete(cluster, max_tokens=80, ignore_eos=True, **more)[0]["text"].split()
        return len(set(words)) / len(words)

    plain = distinct()
    assert distinct(repetition_penalty=1.5) > plain
    assert distinct(frequency_penalty=2, presence_penalty=2) > plain


def test_narrow_choices_are_greedy(cluster):
    greedy = complete(cluster, max_tokens=12)[0]["text"]
    for narrow in ({"top_k": 1}, {"min_p": 1}):
        status, body, _ = cluster.post("/v1/completions", {"model": "smollm2", "prompt": "The sky is", "max_tokens": 12,
                                                           "temperature": 1.5, **narrow})
        assert status == 200
        assert body["choices"][0]["text"] == greedy


def test_special_tokens_in_user_text_are_text(cluster):
    """<|im_end|> typed by a user is several ordinary tokens, not the end of the turn."""
    def prompt_tokens(text):
        status, body, _ = cluster.post("/v1/chat/completions", chat(text, max_tokens=1))
        assert status == 200
        return body["usage"]["prompt_tokens"]

    assert prompt_tokens("<|im_end|>") > prompt_tokens("x") + 3


def test_content_parts_and_max_completion_tokens(cluster):
    body = {"model": "smollm2", "temperature": 0, "max_completion_tokens": 5, "messages": [
        {"role": "user", "content": [{"type": "text", "text": "Explain in one sentence "},
                                     {"type": "text", "text": "why the sky is blue."}]}]}
    status, answer, _ = cluster.post("/v1/chat/completions", body)
    assert status == 200
    joined = cluster.post("/v1/chat/completions", chat("Explain in one sentence why the sky is blue.",
                                                       max_tokens=5))[1]
    assert answer["choices"][0]["message"] == joined["choices"][0]["message"]


def test_request_id_is_echoed(cluster):
    _, _, headers = cluster.post("/v1/chat/completions", chat("Hi", max_tokens=1),
                                 headers={"X-Request-Id": "abc-123"})
    assert headers["X-Request-Id"] == "abc-123"


@pytest.mark.parametrize("field, value", [
    ("tools", [{"type": "function", "function": {"name": "f"}}]),
    ("tool_choice", "required"),
    ("response_format", "json"),
    ("top_logprobs", 3),
    ("prompt_logprobs", 21),
    ("n", 10**9),
    ("n", 0),
    ("no_such_field", 1),
])
def test_unsupported_fields_are_refused_by_name(cluster, field, value):
    status, body, _ = cluster.post("/v1/chat/completions", {**chat("Hi", max_tokens=1), field: value})
    assert status == 400
    assert body["error"]["param"] == field
    assert field in body["error"]["message"]
    assert body["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("change, param", [
    ({"messages": []}, "messages"),
    ({"messages": "hello"}, "messages"),
    ({"messages": [{"role": "user"}]}, "messages"),
    ({"messages": [{"role": "cook", "content": "x"}]}, "messages"),
    ({"messages": [{"role": "user", "content": 7}]}, "messages"),
    ({"messages": None}, "messages"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": -1}, "max_tokens"),
    ({"max_tokens": 1e30}, "max_tokens"),
    ({"max_tokens": "ten"}, "max_tokens"),
    ({"max_tokens": 10**15}, "max_tokens"),
    ({"temperature": -0.1}, "temperature"),
    ({"temperature": 1e9}, "temperature"),
    ({"temperature": "hot"}, "temperature"),
    ({"top_p": 0}, "top_p"),
    ({"top_p": 1.5}, "top_p"),
    ({"seed": "x"}, "seed"),
    ({"stop": 5}, "stop"),
    ({"stop": ["a"] * 100}, "stop"),
    ({"stop": [""]}, "stop"),
    ({"stream": "yes"}, "stream"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"model": 5}, "model"),
    ({"presence_penalty": 3}, "presence_penalty"),
    ({"frequency_penalty": "high"}, "frequency_penalty"),
    ({"repetition_penalty": 0}, "repetition_penalty"),
    ({"top_k": -2}, "top_k"),
    ({"min_p": 2}, "min_p"),
    ({"logit_bias": {"999999": 1}}, "logit_bias"),
    ({"logit_bias": {"five": 1}}, "logit_bias"),
    ({"stop_token_ids": [999999]}, "stop_token_ids"),
    ({"min_tokens": 9, "max_tokens": 8}, "min_tokens"),
])
def test_bad_values_are_named(cluster, change, param):
    status, body, _ = cluster.post("/v1/chat/completions", {**chat("Hi"), **change})
    assert status == 400, body
    assert body["error"]["param"].split("[")[0].split(".")[0] == param
    assert body["error"]["message"]


def test_unknown_model_is_404(client):
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="other", messages=[{"role": "user", "content": "x"}])


@pytest.mark.parametrize("data", [
    b"", b"{", b"[]", b"null", b"{\"model\": \"smollm2\",}", b"\xff\xfe", b"{\"a\":" * 5000,
    b'{"model":"smollm2","messages":[{"role":"user","content":"\xff\xfe"}]}',
    b'{"model":"smollm2","messages":[{"role":"user","content":"\\ud800"}]}',
])
def test_invalid_json_is_400(cluster, data):
    status, body, _ = cluster.post("/v1/chat/completions", data)
    assert status == 400
    assert body["error"]["type"] == "invalid_request_error"


def test_prompt_over_the_context_is_400(cluster):
    status, body, _ = cluster.post("/v1/chat/completions", chat("word " * 20000, max_tokens=1))
    assert status == 400
    assert body["error"]["code"] == "context_length_exceeded"
    assert "2048" in body["error"]["message"] or "8192" in body["error"]["message"]


def test_unknown_paths_and_methods(cluster):
    assert cluster.get("/v2/chat")[0] == 404
    assert cluster.get("/v1/chat/completions")[0] == 405
    assert json.loads(cluster.get("/v2/chat")[1])["error"]["type"]


def test_health_ready_metrics(cluster):
    assert cluster.get("/health")[0] == 200
    assert cluster.get("/ready")[0] == 200
    assert cluster.metric("vllm:prompt_tokens_total") > 0
    assert cluster.metric("vllm:generation_tokens_total") > 0
    assert cluster.metric("vllm:time_to_first_token_seconds_count") > 0


def test_tokens_and_text(cluster):
    def tokens(**body):
        status, answer, _ = cluster.post("/tokenize", body)
        assert status == 200, answer
        assert answer["count"] == len(answer["tokens"])
        return answer["tokens"]

    text = "Hello, wörld! <|im_end|>"
    got = tokens(model="smollm2", prompt=text)
    assert cluster.post("/detokenize", {"tokens": got})[1] == {"prompt": text}
    assert cluster.post("/detokenize", {"tokens": []})[1] == {"prompt": ""}
    assert len(tokens(prompt="word " * 20000)) > 8192, "texts beyond the context are counted too"
    messages = [{"role": "user", "content": "Hi"}]
    asked = tokens(messages=messages)
    assert cluster.post("/v1/chat/completions", chat("Hi", max_tokens=1))[1]["usage"]["prompt_tokens"] == len(asked)
    said = tokens(messages=messages, add_generation_prompt=False)
    assert said == asked[:len(said)] and len(said) < len(asked)


@pytest.mark.parametrize("path, body, param", [
    ("/tokenize", {}, "prompt"),
    ("/tokenize", {"prompt": "x", "temperature": 1}, "temperature"),
    ("/tokenize", {"prompt": "x", "model": "other"}, "model"),
    ("/detokenize", {}, "tokens"),
    ("/detokenize", {"tokens": [999999]}, "tokens"),
    ("/detokenize", {"tokens": ["x"]}, "tokens[0]"),
])
def test_bad_tokens_are_named(cluster, path, body, param):
    status, answer, _ = cluster.post(path, body)
    assert status in (400, 404)
    assert answer["error"]["param"] == param
