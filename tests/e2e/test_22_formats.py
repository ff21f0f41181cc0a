# SPDX-License-Identifier: Apache-2.0
"""Answers of a given form (`response_format`), said with the `openai` client. docs/api.md lists what
of JSON Schema is understood."""
import datetime
import json
import re
from typing import List, Literal, Optional

import openai
import pydantic
import pytest

FOX = [{"role": "user", "content": "Describe a fox as JSON."}]


def ask(client, response_format, **more):
    fields = {"model": "smollm2", "messages": FOX, "max_tokens": 200, "temperature": 0, **more}
    return client.chat.completions.create(response_format=response_format, **fields)


def schema_of(schema):
    return {"type": "json_schema", "json_schema": {"name": "it", "schema": schema, "strict": True}}


class Part(pydantic.BaseModel):
    kind: Literal["head", "tail", "leg"]
    count: int


class Animal(pydantic.BaseModel):
    name: str = pydantic.Field(max_length=12)
    wild: bool
    parts: List[Part] = pydantic.Field(min_length=1, max_length=1)
    weight: Optional[float]


@pytest.mark.parametrize("seed", [None, 1])
def test_a_schema_is_obeyed(client, seed):
    """Whatever is drawn, what ends by itself is valid: nested models, lists, choices, lengths."""
    more = {} if seed is None else {"temperature": 1.5, "seed": seed}
    answer = ask(client, schema_of(Animal.model_json_schema()), **more)
    choice = answer.choices[0]
    if choice.finish_reason == "stop":
        Animal.model_validate_json(choice.message.content)
    else:
        assert choice.finish_reason == "length" and choice.message.content.startswith("{")
    assert seed is not None or choice.finish_reason == "stop"


def test_small_schemas_end(client):
    for schema, check in [({"type": "boolean"}, lambda v: isinstance(v, bool)),
                          ({"enum": ["red", "green", 3]}, lambda v: v in ("red", "green", 3)),
                          ({"type": "array", "items": {"type": "boolean"}, "minItems": 3, "maxItems": 3},
                           lambda v: len(v) == 3),
                          ({"type": "integer", "minimum": 17, "maximum": 42}, lambda v: 17 <= v <= 42),
                          ({"multipleOf": 0.25, "minimum": 1, "exclusiveMaximum": 2}, lambda v: v in (1, 1.25, 1.5, 1.75)),
                          ({"type": ["boolean", "null"], "not": {"enum": [True, None]}}, lambda v: v is False),
                          ({"type": "string", "format": "date"}, datetime.date.fromisoformat),
                          ({"pattern": "^[A-Z]{3}-\\d{4}$"}, lambda v: re.fullmatch(r"[A-Z]{3}-\d{4}", v)),
                          ({"oneOf": [{"type": "array", "prefixItems": [{"const": "x"}], "minItems": 1}, {"type": "null"}]},
                           lambda v: v in (["x"], None))]:
        choice = ask(client, schema_of(schema)).choices[0]
        assert choice.finish_reason == "stop"
        assert check(json.loads(choice.message.content))


def test_any_object(client):
    choice = ask(client, {"type": "json_object"}, max_tokens=48).choices[0]
    assert choice.message.content.startswith("{")
    if choice.finish_reason == "stop":
        assert isinstance(json.loads(choice.message.content), dict)


def test_text_is_free(client):
    free = ask(client, {"type": "text"}, max_tokens=8).choices[0].message.content
    assert free == ask(client, openai.NOT_GIVEN, max_tokens=8).choices[0].message.content


def test_completions_have_forms_too(client):
    answer = client.completions.create(model="smollm2", prompt="Yes or no?", max_tokens=20, temperature=0,
                                       extra_body={"response_format": schema_of({"enum": ["yes", "no"]})})
    assert json.loads(answer.choices[0].text) in ("yes", "no")


def test_streams_and_choices_have_the_form(client):
    texts = {}
    for chunk in ask(client, schema_of({"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2}),
                     stream=True, n=2, temperature=1, seed=5):
        for choice in chunk.choices:
            texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")
    assert [len(json.loads(texts[i])) for i in range(2)] == [2, 2]


@pytest.mark.parametrize("response_format, param, says", [
    ({"type": "xml"}, "response_format.type", "xml"),
    ({"type": "json_schema"}, "response_format.json_schema", "schema"),
    (schema_of({"type": "string", "pattern": "a(?=b)"}), "response_format.json_schema.schema", "'pattern'"),
    (schema_of({"oneOf": [{"type": "integer"}, {"type": "number"}]}), "response_format.json_schema.schema", "may both fit"),
    (schema_of({"properties": {"a": {"not": {}}}}), "response_format.json_schema.schema", "schema.properties.a"),
    (schema_of({"$ref": "#"}), "response_format.json_schema.schema", "$ref"),
    (schema_of({"type": "array", "items": {"maxLength": 10 ** 9}}), "response_format.json_schema.schema", "maxLength"),
    (schema_of({"enum": ["x" * 100] * 900}), "response_format.json_schema.schema", "bytes"),
])
def test_what_cannot_be_done_is_refused_by_name(client, response_format, param, says):
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, response_format)
    assert refused.value.param == param
    assert says in refused.value.message


def test_the_form_survives_a_killed_decode_node(client, cluster):
    """What another node goes on with is the same answer: where it is in its form follows from its tokens."""
    schema = schema_of({"type": "object", "required": ["story", "marks"], "properties": {
        "story": {"type": "string", "minLength": 30, "maxLength": 40},
        "marks": {"type": "array", "items": {"enum": [1, 2, 3]}, "minItems": 2, "maxItems": 3}}})
    for more in {}, {"temperature": 0.9, "seed": 11}:
        whole = ask(client, schema, **more).choices[0].message.content
        torn = ""
        killed = False
        for chunk in ask(client, schema, stream=True, **more):
            torn += chunk.choices[0].delta.content or ""
            if len(torn) > 12 and not killed:
                killed = True
                cluster.kill("decode")
        assert killed and torn == whole
        value = json.loads(whole)
        assert 30 <= len(value["story"]) <= 40 and 2 <= len(value["marks"]) <= 3
        cluster.wait_ready()
