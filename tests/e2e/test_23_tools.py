# SPDX-License-Identifier: Apache-2.0
"""Tools: what is told to the model, calls that must be made, and calls that are found in answers.

The small model has no tools in its template, so it gets one here, written as Qwen's and Hermes'
models have it; what it calls of its own will says little, what it must call is checked."""
import json

import openai
import pytest

from cluster import Cluster

TEMPLATE = """
{%- if tools %}
    {{- '<|im_start|>system\\nYou may call functions:\\n<tools>' }}
    {%- for tool in tools %}
        {{- '\\n' + (tool | tojson) }}
    {%- endfor %}
    {{- '\\n</tools>\\nAnswer with <tool_call>\\n{"name": ..., "arguments": ...}\\n</tool_call><|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {{- '<|im_start|>' + ('user' if message.role == 'tool' else message.role) + '\\n' }}
    {%- if message.role == 'tool' %}
        {{- '<tool_response>\\n' + message.content + '\\n</tool_response>' }}
    {%- elif message.content %}
        {{- message.content }}
    {%- endif %}
    {%- for call in message.tool_calls or [] %}
        {{- '\\n<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' + (call.function.arguments | tojson)
            + '}\\n</tool_call>' }}
    {%- endfor %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' + ('Well, ' if hesitant else '') }}
{%- endif %}
"""

WEATHER = {"type": "function", "function": {"name": "get_weather", "description": "The weather in a city", "parameters": {
    "type": "object", "properties": {"city": {"type": "string", "maxLength": 20}, "unit": {"enum": ["C", "F"]}},
    "required": ["city", "unit"], "additionalProperties": False}}}
CLOCK = {"type": "function", "function": {"name": "clock", "parameters": {
    "type": "object", "properties": {}, "additionalProperties": False}}}
ASK = [{"role": "user", "content": "What is the weather in Paris?"}]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tools")
    template = directory / "template.jinja"
    template.write_text(TEMPLATE)
    made = Cluster(directory, "--chat-template", str(template)).wait_ready()
    yield made
    made.stop()


def chat(client, messages=ASK, tools=(WEATHER, CLOCK), **more):
    fields = {"max_tokens": 96, "temperature": 0, **more}
    return client.chat.completions.create(model="smollm2", messages=messages, tools=list(tools), **fields)


def check_weather(call):
    assert call.type == "function" and call.id.startswith("call_")
    assert call.function.name == "get_weather"
    arguments = json.loads(call.function.arguments)
    assert set(arguments) == {"city", "unit"} and arguments["unit"] in ("C", "F") and len(arguments["city"]) <= 20


def test_a_named_tool_is_called(client):
    for more in {}, {"temperature": 1.3, "seed": 3}:
        choice = chat(client, tool_choice={"type": "function", "function": {"name": "get_weather"}}, **more).choices[0]
        assert choice.finish_reason == "tool_calls" and choice.message.content is None
        assert len(choice.message.tool_calls) == 1
        check_weather(choice.message.tool_calls[0])


def test_some_tool_must_be_called(client):
    choice = chat(client, tool_choice="required", parallel_tool_calls=False).choices[0]
    assert choice.finish_reason == "tool_calls" and len(choice.message.tool_calls) == 1
    assert choice.message.tool_calls[0].function.name in ("get_weather", "clock")


def streamed(chunks):
    """What a client makes of a stream: content, calls, why it ended, and how many pieces arguments came in."""
    calls, reasons, content, pieces = {}, [], "", 0
    for chunk in chunks:
        choice = chunk.choices[0]
        content += choice.delta.content or ""
        reasons += [choice.finish_reason] if choice.finish_reason else []
        for call in choice.delta.tool_calls or []:
            if call.id:
                assert call.index == len(calls) and call.function.name and call.function.arguments == ""
                calls[call.index] = call
            else:
                pieces += 1
                calls[call.index].function.arguments += call.function.arguments
    return content, list(calls.values()), reasons, pieces


def test_calls_are_streamed(client):
    more = {"tool_choice": {"type": "function", "function": {"name": "get_weather"}}}
    content, calls, reasons, pieces = streamed(chat(client, stream=True, **more))
    assert reasons == ["tool_calls"] and content == "" and len(calls) == 1 and pieces > 3
    check_weather(calls[0])
    whole = chat(client, **more).choices[0].message.tool_calls[0]
    assert json.loads(whole.function.arguments) == json.loads(calls[0].function.arguments)


def test_a_call_and_its_answer_are_history(client):
    first = chat(client, tool_choice={"type": "function", "function": {"name": "get_weather"}}).choices[0].message
    messages = ASK + [first, {"role": "tool", "tool_call_id": first.tool_calls[0].id, "content": "Sunny, 24 C"}]
    choice = chat(client, messages, tool_choice="none", max_tokens=16).choices[0]
    assert choice.message.content and not choice.message.tool_calls


def test_who_may_call_need_not(client):
    choice = chat(client, [{"role": "user", "content": "Say hello."}], max_tokens=24, tool_choice="auto").choices[0]
    if choice.message.tool_calls:
        assert all(c.function.name for c in choice.message.tool_calls)
    else:
        assert choice.message.content and choice.finish_reason in ("stop", "length")


def called_before():
    """A conversation in which every question was answered by a call."""
    messages = []
    for number, city in enumerate(["Rome", "Oslo", "Cairo", "Lima"]):
        call = {"id": f"c{number}", "type": "function",
                "function": {"name": "get_weather", "arguments": json.dumps({"city": city, "unit": "C"})}}
        messages += [{"role": "user", "content": f"What is the weather in {city}?"},
                     {"role": "assistant", "content": None, "tool_calls": [call]}]
    return messages + ASK


@pytest.mark.parametrize("stream", [False, True])
def test_calls_of_its_own_accord_are_constrained(client, stream):
    """The model goes on as it has begun; once it has written the mark only a call of a tool can follow."""
    city = {"type": "object", "properties": {"place": {"enum": ["Paris", "Nice"]}}, "required": ["place"],
            "additionalProperties": False}
    other = {"type": "function", "function": {"name": "weather_at", "parameters": city}}
    answer = chat(client, called_before(), tools=[other], tool_choice="auto", stream=stream,
                  parallel_tool_calls=False)
    if stream:
        _, calls, reasons, _ = streamed(answer)
    else:
        calls, reasons = answer.choices[0].message.tool_calls, [answer.choices[0].finish_reason]
    assert reasons == ["tool_calls"] and len(calls) == 1 and calls[0].function.name == "weather_at"
    assert json.loads(calls[0].function.arguments)["place"] in ("Paris", "Nice")


def test_variables_reach_the_template(cluster):
    def prompt(**more):
        tokens = cluster.post("/tokenize", {"messages": ASK, **more})[1]["tokens"]
        return cluster.post("/detokenize", {"tokens": tokens})[1]["prompt"]

    assert prompt().endswith("assistant\n")
    assert prompt(chat_template_kwargs={"hesitant": True}).endswith("assistant\nWell, ")
    assert '"name": "clock"' in prompt(tools=[CLOCK])


@pytest.mark.parametrize("more, param", [
    ({"tool_choice": {"type": "function", "function": {"name": "nobody"}}}, "tool_choice"),
    ({"tool_choice": "sometimes"}, "tool_choice"),
    ({"tools": [{"type": "function", "function": {"name": "no spaces"}}]}, "tools[0].function"),
    ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {
        "x": {"not": {}}}}}}], "tool_choice": "required"}, "tools"),
    ({"tools": [{"type": "function", "function": {"name": f"f{i}", "description": "x" * 4000}} for i in range(500)]},
     "messages"),
    ({"tools": [CLOCK] * 600}, "tools"),
])
def test_bad_tools_are_refused_by_name(client, more, param):
    with pytest.raises(openai.BadRequestError) as refused:
        chat(client, **more)
    assert refused.value.param == param
