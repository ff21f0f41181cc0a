#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes tests/golden/template.txt: what Jinja itself makes of small templates.

Usage: python3 make_templates.py > tests/golden/template.txt   (needs jinja2)

The environment is the one in which Hugging Face's libraries run chat templates: blocks trimmed,
loop controls, json.dumps(ensure_ascii=False) as tojson. All templates see the same variables; the
test (src/model/template_test.c) has the same ones as JSON.
"""
import json
import sys

from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

VARIABLES = {
    "messages": [
        {"role": "system", "content": " Be brief.\n"},
        {"role": "user", "content": "Hä? <|im_end|>"},
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "call_1", "type": "function",
             "function": {"name": "weather", "arguments": {"city": "Köln", "days": 2}}}]},
        {"role": "tool", "content": "{\"rain\": true}", "tool_call_id": "call_1"},
        {"role": "assistant", "content": "It rains."},
        {"role": "user", "content": "Thanks\nfriend"},
    ],
    "tools": [
        {"type": "function", "function": {
            "name": "weather", "description": "Says \"how\" it is",
            "parameters": {"type": "object", "properties": {
                "city": {"type": "string"}, "days": {"type": "integer", "default": 1.5}},
                "required": ["city"]}}},
        {"type": "function", "function": {"name": "time", "parameters": {}}},
    ],
    "add_generation_prompt": True,
    "bos_token": "<s>",
    "eos_token": "</s>",
    "words": ["pear", "fig", "apple", "fig"],
    "empty": [],
    "number": 7,
    "nothing": None,
}

TEMPLATES = [
    # white space
    "a\n", "a\n\n", " {% if true %} b {% endif %} c", "x\n  {% if true %}\n  y\n  {% endif %}\nz\n",
    "x  {%- if true -%}  y  {%- endif -%}  z", "x {{- ' y ' -}} z", "a\n   {# note #}\nb", "a {#- n -#} b",
    "  {%+ if true %}x{% endif %}", "{% if true +%}\nx{% endif %}", "a\n{% if true %}{% if true %}\n  b{% endif %}{% endif %}",
    "{{ 'a' }}\nb", "{% set a = 1 %}\n  {% set b = 2 %}\n  {{ a + b }}\n",
    # literals, operators
    "{{ 1 + 2 * 3 - 4 // 3 }} {{ 7 % 3 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 1 / 2 }} {{ 2 * 1.5 }}",
    "{{ 'a' ~ 1 ~ true ~ none }} {{ 'a' + 'b' }} {{ \"it's\" }} {{ 'tab\\there' }} {{ 'q\\'q' }}",
    "{{ 1 < 2 }} {{ 'a' >= 'b' }} {{ 1 == 1.0 }} {{ 'a' != 'b' }} {{ not true }} {{ not 1 > 2 }}",
    "{{ true and 'x' }} {{ '' or 'y' }} {{ none or 0 or 'z' }} {{ 0 and 1 }}",
    "{{ 'fig' in words }} {{ 'x' not in words }} {{ 'role' in messages[0] }} {{ 'rie' in 'brief' }}",
    "{{ 'yes' if number == 7 else 'no' }} {{ 'yes' if number == 8 }}|",
    "{{ [1, 2] + [3] == [1, 2, 3] }} {{ {'a': {'b': 1}} == {'a': {'b': 1}} }} {{ (1, 2)[1] }}",
    "{{ {'a': {'b': [1, none, true]}} | tojson }}", "{{ 1.0 }} {{ 0.1 }} {{ 2.50 }}",
    "{{ a is defined and b }} {{ 1 if true else 2 if false else 3 }}",
    # names, attributes, slices
    "{{ messages[0].role }} {{ messages[-1]['role'] }} {{ messages[1].content[0:2] }} {{ messages | length }}",
    "{{ messages[99] is defined }} {{ missing is defined }} {{ missing }}| {{ messages[0].missing is undefined }}",
    "{% for m in messages[1:3] %}{{ m.role }} {% endfor %}{% for m in messages[:-4] %}{{ m.role }}{% endfor %}",
    "{% for m in messages[::-1] %}{{ m.role[0] }}{% endfor %} {{ words[1:][0] }} {{ 'Hä!'[1] }} {{ 'Hä!'[-2:] }}",
    # loops
    "{% for w in words %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.first }}{{ loop.last }}{{ loop.length }} {% endfor %}",
    "{% for w in words if w != 'fig' %}{{ loop.index }}{{ w }} {% else %}none{% endfor %}",
    "{% for w in empty %}x{% else %}empty{% endfor %}", "{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}={{ v }};{% endfor %}",
    "{% for k in {'a': 1, 'b': 2} %}{{ k }}{% endfor %}{% for c in 'äb' %}[{{ c }}]{% endfor %}",
    "{% for w in words %}{% if w == 'apple' %}{% break %}{% endif %}{% if w == 'fig' %}{% continue %}{% endif %}{{ w }}{% endfor %}",
    "{% for a in [1, 2] %}{% for b in [3, 4] %}{{ a }}{{ b }}{{ loop.index }} {% endfor %}{{ loop.index }}{% endfor %}",
    "{% for w in words %}{{ loop.previtem }}<{{ w }}>{{ loop.nextitem }} {% endfor %}",
    "{% set x = 1 %}{% for w in words %}{% set x = 2 %}{{ x }}{% endfor %}{{ x }}",
    "{% set ns = namespace(n=0, s='') %}{% for w in words %}{% set ns.n = ns.n + 1 %}{% set ns.s = ns.s ~ w[0] %}{% endfor %}{{ ns.n }}{{ ns.s }}",
    "{% for i in range(3) %}{{ i }}{% endfor %}{% for i in range(1, 8, 3) %}{{ i }}{% endfor %}{% for i in range(3, 0, -1) %}{{ i }}{% endfor %}",
    # if, set, macro
    "{% if number > 8 %}a{% elif number > 6 %}b{% elif true %}c{% else %}d{% endif %}{% if not words %}x{% else %}y{% endif %}",
    "{% set text %}a{{ number }}b{% endset %}[{{ text }}]", "{%- set x = 'a' if true else 'b' -%} {{ x }}",
    "{% macro say(who, what='hi', more=1) %}{{ who }}: {{ what }}{{ more }}\n{% endmacro %}{{ say('a') }}{{ say('b', 'yo') }}{{ say(what='x', who='c') }}",
    "{% macro fact(n) %}{{ 1 if n < 2 else (fact(n - 1) | int) * n }}{% endmacro %}{{ fact(5) }}",
    "{% macro m(x) %}{% for i in x %}{{ i }}{% endfor %}{% endmacro %}{{ m([1, 2]) | length }}{{ m('ab') | upper }}",
    # filters
    "[{{ '  a b ' | trim }}] {{ 'Ab' | upper }} {{ 'Ab' | lower }} {{ 'hello world' | capitalize }} {{ 'hello world' | title }}",
    "{{ words | join(', ') }} {{ words | first }} {{ words | last }} {{ words | unique | join('-') }} {{ words | sort | join('-') }}",
    "{{ words | reverse | list | join(' ') }} {{ words | length }} {{ 'äb' | length }} {{ {'a': 1} | length }}",
    "{{ missing | default('d') }} {{ '' | default('d', true) }} {{ '' | default('d') }}| {{ none | d('x', boolean=true) }}",
    "{{ tools | tojson }}", "{{ tools | tojson(indent=4) }}", "{{ tools[1] | tojson(2) }}", "{{ [] | tojson }}{{ {} | tojson(indent=2) }}",
    "{{ 'a\"b\\\\c\n\t\x01é</script>' | tojson }}", "{{ 'aXbXc' | replace('X', '--') }} {{ 'aXbXc' | replace('X', '', 1) }}",
    "{{ messages | selectattr('role', 'equalto', 'user') | list | length }} {{ messages | rejectattr('role', 'equalto', 'user') | list | length }}",
    "{{ tools | map(attribute='function') | map(attribute='name') | join(' ') }} {{ words | map('upper') | join(' ') }}",
    "{{ messages | selectattr('tool_calls') | list | length }} {{ messages | selectattr('tool_calls', 'defined') | list | length }}",
    "{{ words | select('equalto', 'fig') | list | length }} {{ [0, 1, 2] | reject | list | length }} {{ [3, 4] | select('odd') | list | tojson }}",
    "{{ 'a\nb\n\nc' | indent(2) }}", "{{ 'a\nb' | indent(4, first=true) }}", "{{ '42' | int + 1 }} {{ 3.9 | int }} {{ 'x' | int }} {{ 2 | float }} {{ -3 | abs }}",
    "{{ 5 | string + 'x' }} {{ {'b': 1, 'a': 2} | items | list | length }} {{ 'x' | safe }}",
    # methods
    "[{{ ' a '.strip() }}] [{{ ' a '.lstrip() }}] [{{ ' a '.rstrip() }}] {{ 'xxaxx'.strip('x') }} {{ 'a,b,c'.split(',') | join('|') }}",
    "{{ ' a  b '.split() | join('|') }} {{ 'a</think>b</think>c'.split('</think>')[-1] }} {{ 'a-b-c'.split('-', 1) | tojson }}",
    "{{ 'abc'.startswith('ab') }} {{ 'abc'.endswith('x') }} {{ 'aBc'.upper() }} {{ 'aBc'.lower() }} {{ 'aBc'.title() }} {{ 'abc'.replace('b', 'x') }}",
    "{{ {'a': 1}.get('a') }} {{ {'a': 1}.get('b') }} {{ {'a': 1}.get('b', 2) }} {{ {'a': 1, 'b': 2}.keys() | list | join }} {{ {'a': 1, 'b': 2}.values() | list | join }}",
    "{{ ', '.join(words) }} {{ 'abc'.find('c') }} {{ 'abc'.find('x') }} {{ 'hello'.capitalize() }}",
    # tests
    "{{ 1 is number }} {{ 'a' is string }} {{ words is iterable }} {{ {} is mapping }} {{ words is sequence }} {{ none is none }} {{ 'a' is not none }}",
    "{{ true is true }} {{ 1 is true }} {{ false is false }} {{ true is boolean }} {{ 1 is integer }} {{ 1.5 is float }} {{ 4 is divisibleby 2 }} {{ 3 is odd }} {{ 4 is even }}",
    "{{ 1 is eq 1 }} {{ 'a' is in ['a'] }} {{ 1 is ne 2 }} {{ messages is defined and messages is not string }} {{ namespace is callable }}",
    # families, with everything they do
    "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 1) %}!{% endif %}<|start|>{{ message['role'] }}\n\n{{ (message['content'] or '') | trim }}<|eot|>{% endfor %}{% if add_generation_prompt %}<|start|>assistant\n\n{% endif %}",
    "{%- if tools %}\n    {{- '<|im_start|>system\\n' }}\n    {%- if messages[0].role == 'system' %}\n        {{- messages[0].content + '\\n\\n' }}\n    {%- endif %}\n    {{- \"# Tools\\n<tools>\" }}\n    {%- for tool in tools %}\n        {{- \"\\n\" }}\n        {{- tool | tojson }}\n    {%- endfor %}\n    {{- \"\\n</tools><|im_end|>\\n\" }}\n{%- endif %}\n{%- set ns = namespace(last=messages|length - 1, open=true) %}\n{%- for message in messages[::-1] %}\n    {%- set index = (messages|length - 1) - loop.index0 %}\n    {%- if ns.open and message.role == \"user\" and message.content is string and not(message.content.startswith('<r>') and message.content.endswith('</r>')) %}\n        {%- set ns.open = false %}\n        {%- set ns.last = index %}\n    {%- endif %}\n{%- endfor %}\n{%- for message in messages %}\n    {%- if message.role == \"user\" or (message.role == \"system\" and not loop.first) %}\n        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}\n    {%- elif message.role == \"assistant\" %}\n        {{- '<|im_start|>' + message.role }}\n        {%- if message.content %}\n            {{- '\\n' + message.content.split('</think>')[-1].lstrip('\\n') }}\n        {%- endif %}\n        {%- for tool_call in message.tool_calls %}\n            {%- if tool_call.function %}\n                {%- set tool_call = tool_call.function %}\n            {%- endif %}\n            {{- '\\n<tool_call>\\n{\"name\": \"' }}\n            {{- tool_call.name }}\n            {{- '\", \"arguments\": ' }}\n            {{- tool_call.arguments | tojson }}\n            {{- '}\\n</tool_call>' }}\n        {%- endfor %}\n        {{- '<|im_end|>\\n' }}\n    {%- elif message.role == \"tool\" %}\n        {%- if (loop.index0 == 0) or (messages[loop.index0 - 1].role != \"tool\") %}\n            {{- '<|im_start|>user' }}\n        {%- endif %}\n        {{- '\\n<tool_response>\\n' }}{{- message.content }}{{- '\\n</tool_response>' }}\n        {%- if loop.last or (messages[loop.index0 + 1].role != \"tool\") %}\n            {{- '<|im_end|>\\n' }}\n        {%- endif %}\n    {%- endif %}\n{%- endfor %}\n{%- if add_generation_prompt %}\n    {{- '<|im_start|>assistant\\n' }}\n    {%- if enable_thinking is defined and enable_thinking is false %}\n        {{- '<think>\\n\\n</think>\\n\\n' }}\n    {%- endif %}\n{%- endif %}",
    "{{- bos_token }}\n{%- if custom_tools is defined %}\n    {%- set tools = custom_tools %}\n{%- endif %}\n{%- if not date_string is defined %}\n    {%- set date_string = \"26 Jul 2024\" %}\n{%- endif %}\n{%- if messages[0]['role'] == 'system' %}\n    {%- set system_message = messages[0]['content']|trim %}\n    {%- set messages = messages[1:] %}\n{%- else %}\n    {%- set system_message = \"\" %}\n{%- endif %}\n{{- \"<|h|>system<|/h|>\\n\\n\" }}\n{{- \"Today Date: \" + date_string + \"\\n\\n\" }}\n{{- system_message }}\n{{- \"<|e|>\" }}\n{%- if tools is not none %}\n    {%- set first_user_message = messages[0]['content']|trim %}\n    {%- set messages = messages[1:] %}\n    {{- '<|h|>user<|/h|>\\n\\n' -}}\n    {%- for t in tools %}\n        {{- t | tojson(indent=4) }}\n        {{- \"\\n\\n\" }}\n    {%- endfor %}\n    {{- first_user_message + \"<|e|>\"}}\n{%- endif %}\n{%- for message in messages %}\n    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}\n        {{- '<|h|>' + message['role'] + '<|/h|>\\n\\n'+ message['content'] | trim + '<|e|>' }}\n    {%- elif 'tool_calls' in message %}\n        {%- if not message.tool_calls|length == 1 %}\n            {{- raise_exception(\"one tool call at once!\") }}\n        {%- endif %}\n        {%- set tool_call = message.tool_calls[0].function %}\n        {{- '{\"name\": \"' + tool_call.name + '\", ' }}\n        {{- '\"parameters\": ' }}\n        {{- tool_call.arguments | tojson }}\n        {{- \"}\" }}\n        {{- \"<|e|>\" }}\n    {%- elif message.role == \"tool\" or message.role == \"ipython\" %}\n        {{- \"<|h|>ipython<|/h|>\\n\\n\" }}\n        {%- if message.content is mapping or message.content is iterable %}\n            {{- message.content | tojson }}\n        {%- else %}\n            {{- message.content }}\n        {%- endif %}\n        {{- \"<|e|>\" }}\n    {%- endif %}\n{%- endfor %}\n",
    "{%- if messages[0][\"role\"] == \"system\" %}{%- set system_message = messages[0][\"content\"] %}{%- set loop_messages = messages[1:] %}{%- else %}{%- set loop_messages = messages %}{%- endif %}\n{%- set user_messages = loop_messages | selectattr(\"role\", \"equalto\", \"user\") | list %}\n{%- for message in loop_messages | rejectattr(\"role\", \"equalto\", \"tool\") | rejectattr(\"role\", \"equalto\", \"tool_results\") | selectattr(\"tool_calls\", \"undefined\") %}{{ loop.index }}{%- endfor %}\n{{- bos_token }}\n{%- for message in loop_messages %}\n    {%- if message[\"role\"] == \"user\" %}\n        {%- if tools is not none and (message == user_messages[-1]) %}\n            {{- \"[AVAILABLE_TOOLS] [\" }}\n            {%- for tool in tools %}\n                {%- set tool = tool.function %}\n                {{- '{\"type\": \"function\", \"function\": {' }}\n                {%- for key, val in tool.items() if key != \"return\" %}\n                    {%- if val is string %}\n                        {{- '\"' + key + '\": \"' + val + '\"' }}\n                    {%- else %}\n                        {{- '\"' + key + '\": ' + val|tojson }}\n                    {%- endif %}\n                    {%- if not loop.last %}\n                        {{- \", \" }}\n                    {%- endif %}\n                {%- endfor %}\n                {{- \"}}\" }}\n                {%- if not loop.last %}\n                    {{- \", \" }}\n                {%- else %}\n                    {{- \"]\" }}\n                {%- endif %}\n            {%- endfor %}\n            {{- \"[/AVAILABLE_TOOLS]\" }}\n        {%- endif %}\n        {%- if loop.last and system_message is defined %}\n            {{- \"[INST] \" + system_message + \"\\n\\n\" + message[\"content\"] + \"[/INST]\" }}\n        {%- else %}\n            {{- \"[INST] \" + message[\"content\"] + \"[/INST]\" }}\n        {%- endif %}\n    {%- elif message.tool_calls is defined and message.tool_calls is not none %}\n        {{- \"[TOOL_CALLS] [\" }}\n        {%- for tool_call in message.tool_calls %}\n            {%- set out = tool_call.function|tojson %}\n            {{- out[:-1] }}\n            {{- ', \"id\": \"' + tool_call.id + '\"}' }}\n            {{- \", \" if not loop.last else \"]\" + eos_token }}\n        {%- endfor %}\n    {%- elif message[\"role\"] == \"assistant\" %}\n        {{- \" \" + message[\"content\"]|trim + eos_token}}\n    {%- endif %}\n{%- endfor %}\n",
]


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def refuse(message):
    raise RuntimeError(message)


def main():
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = refuse
    out = sys.stdout.buffer
    for template in TEMPLATES:
        text = env.from_string(template).render(**VARIABLES).encode()
        template = template.encode()
        out.write(b"template %d\n%s\ntext %d\n%s\n" % (len(template), template, len(text), text))


if __name__ == "__main__":
    if sys.argv[1:] == ["--variables"]:
        print(json.dumps(VARIABLES, ensure_ascii=False))
    else:
        main()
