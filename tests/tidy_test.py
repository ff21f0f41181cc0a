# SPDX-License-Identifier: Apache-2.0
"""Goal: tools/tidy.py flags what the style guide forbids, and nothing else.

Method: a small tree that is clean; then one fault at a time, which must give exactly one finding of
the expected rule on the expected line.
"""

import importlib.util
import os
import shutil
import subprocess
import sys

import pytest

TOOL = os.path.join(os.path.dirname(__file__), "..", "tools", "tidy.py")
spec = importlib.util.spec_from_file_location("tidy", TOOL)
tidy = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tidy)

SPDX = "/* SPDX-License-Identifier: Apache-2.0 */\n"

CLEAN = {
    "src/base/status.h": SPDX
    + "#ifndef BASE_STATUS_H\n#define BASE_STATUS_H\n\nint status_of(int x);\n\n#endif\n",
    "src/base/status.c": SPDX
    + '#include "base/status.h"\n\nint status_of(int x)\n{\n    return x; /* not open() */\n}\n',
    "src/base/env_real.c": SPDX
    + "#include <time.h>\n\nstatic long now(void)\n{\n    return time(NULL);\n}\n",
    "src/net/rpc.h": SPDX
    + "#ifndef NET_RPC_H\n#define NET_RPC_H\n\n#include \"base/status.h\"\n\n"
    + "struct rpc;\n\nint rpc_call(struct rpc *rpc);\n\n#endif\n",
    "src/net/rpc.c": SPDX + '#include "net/rpc.h"\n\n#include "base/status.h"\n',
    "src/net/rpc_test.c": SPDX + "#include <stdio.h>\n\nint main(void)\n{\n    fopen(0, 0);\n}\n",
    "src/cli/main.c": SPDX + '#include "net/rpc.h"\n\nint main(void)\n{\n    exit(1);\n}\n',
}


def write_tree(root, files):
    for path, text in files.items():
        full = os.path.join(root, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "w", encoding="utf-8") as file:
            file.write(text)


def check(root, **kwargs):
    options = {"compile_headers": False, "check_style": False, "say": lambda words: None}
    options.update(kwargs)
    return tidy.check_tree(str(root), **options)[0]


def findings_of(root, path, text):
    write_tree(root, {**CLEAN, path: text})
    return check(root)


def test_a_clean_tree_has_no_finding(tmp_path):
    write_tree(tmp_path, CLEAN)
    assert check(tmp_path) == []


BODY = '#include "net/rpc.h"\n\n'  # the first lines of src/net/rpc.c after SPDX


def in_function(statement):
    return SPDX + BODY + "int rpc_call(struct rpc *rpc)\n{\n    " + statement + "\n}\n"


@pytest.mark.parametrize(
    "rule, line, path, text",
    [
        ("spdx", 1, "src/net/rpc.c", BODY),
        ("spdx", 1, "tools/x.sh", "#!/bin/sh\n"),
        ("columns", 4, "src/net/rpc.c", SPDX + BODY + "/* " + "x" * 100 + " */\n"),
        ("columns", 4, "src/net/rpc.c", SPDX + BODY + "int\trpc_x;\n"),
        ("columns", 4, "src/net/rpc.c", SPDX + BODY + "/* x */ \n"),
        ("columns", 2, "src/net/rpc.c", SPDX + '#include "net/rpc.h"'),
        ("marks", 4, "src/net/rpc.c", SPDX + BODY + "/* FIXME: later */\n"),
        ("marks", 4, "src/net/rpc.c", SPDX + BODY + "/* XXX */\n"),
        ("marks", 4, "src/net/rpc.c", SPDX + BODY + "/* TODO: later */\n"),
        ("guard", 1, "src/net/msg.h", SPDX + "#ifndef MSG_H\n#define MSG_H\n#endif\n"),
        ("guard", 1, "src/net/msg.h", SPDX + "#pragma once\n"),
        ("layers", 3, "src/base/x.c", SPDX + "\n" + '#include "net/rpc.h"\n'),
        ("layers", 2, "src/conductor/x.c", SPDX + '#include "net/rpc.h"\n'),
        ("layers", 2, "src/store/x.c", SPDX + '#include "infer/engine.h"\n'),
        ("layers", 2, "src/net/x.c", SPDX + '#include "yolk/transfer.h"\n'),
        ("layers", 2, "src/net/x.c", SPDX + '#include "../base/status.h"\n'),
        ("layers", 2, "src/net/x.c", SPDX + '#include "net/rpc.c"\n'),
        ("layers", 1, "src/helpers/x.c", SPDX),
        ("includes", 2, "src/net/rpc.c", SPDX + "#include <stdio.h>\n" + BODY),
        ("world", 6, "src/net/rpc.c", in_function("return socket(1, 2, 3);")),
        ("world", 6, "src/net/rpc.c", in_function("clock_gettime(0, 0);")),
        ("world", 6, "src/net/rpc.c", in_function("if (open(p, 0) < 0) return 1;")),
        ("world", 6, "src/net/rpc.c", in_function("x = rand();")),
        ("world", 6, "src/net/rpc.c", in_function("p = mmap(0, 9, 1, MAP_SHARED, fd, 0);")),
        ("unsafe", 6, "src/net/rpc.c", in_function("strcpy(a, b);")),
        ("unsafe", 6, "src/net/rpc_test.c", in_function("sprintf(a, b);")),
        ("unsafe", 6, "src/net/rpc.c", in_function("x = atoi(b);")),
        ("unsafe", 6, "src/net/rpc.c", in_function("x = strtok(b, c);")),
        ("unsafe", 6, "src/net/rpc.c", in_function("x = gmtime(b);")),
        ("unsafe", 6, "src/net/rpc.c", in_function("x = alloca(b);")),
        ("exit", 6, "src/net/rpc.c", in_function("exit(1);")),
        ("exit", 6, "src/net/rpc.c", in_function("abort();")),
        ("printing", 6, "src/net/rpc.c", in_function('printf("x");')),
        ("printing", 6, "src/net/rpc.c", in_function('fprintf(stderr, "x");')),
        ("logging", 6, "src/net/rpc.c", in_function('LOG_INFO("net", "ev", "n=%d" " why=\\"%s\\"", n, why);')),
        ("prefix", 2, "src/net/x.c", SPDX + "int help(void)\n{\n    return 1;\n}\n"),
        ("prefix", 2, "src/net/x.c", SPDX + "MUST_USE enum status\nhelp(int *a)\n{\n}\n"),
        ("library", 2, "src/net/x.c", SPDX + "#include <jansson.h>\n"),
    ],
)
def test_a_fault_is_found(tmp_path, rule, line, path, text):
    if rule == "library":
        write_tree(tmp_path, {"src/net/json.c": text})
        found = findings_of(tmp_path, path, text)
        assert [(f.rule, f.path, f.line) for f in found] == [(rule, path, line)]
        return
    found = findings_of(tmp_path, path, text)
    assert [(f.rule, f.path, f.line) for f in found] == [(rule, path, line)]


@pytest.mark.parametrize(
    "path, text",
    [
        # Words in comments, strings and names are no calls; members and our own functions neither.
        ("src/net/rpc.c", in_function('log("open(x)", a.open(1), b->connect(2)); /* rand() */')),
        ("src/net/rpc.c", in_function("return my_socket(reopen(x), timeout(y));")),
        ("src/net/rpc.c", SPDX + BODY + "static void send(int x)\n{\n    send(x - 1);\n}\n"),
        ("src/net/rpc.c", in_function("p = mmap(0, 9, 1, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);")),
        ("src/net/rpc.c", SPDX + BODY + "/* TODO(#12): later */\n"),
        ("src/net/rpc.c", SPDX + BODY + "#define FN static inline\nFN int add(int a)\n{\n}\n"),
        ("src/net/rpc.c", SPDX + BODY + "struct pair\n{\n    int a;\n};\n"),
        ("src/net/rpc_server.c", SPDX + "int rpc_serve(void)\n{\n    return 1;\n}\n"),
        ("src/infer/x.c", SPDX + '#include "model/model.h"\n#include "yolk/transfer.h"\n'),
        ("src/store/x.c", SPDX + '#include "transfer/engine.h"\n#include "yolk/store.h"\n'),
        ("src/cli/x.c", SPDX + '#include "sim/sim.h"\n#include "serve/gateway.h"\n'),
        ("src/base/env_sim.c", SPDX + "static int f(void)\n{\n    return socket(1, 2, 3);\n}\n"),
    ],
)
def test_what_is_allowed_is_not_flagged(tmp_path, path, text):
    assert findings_of(tmp_path, path, text) == []


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
def test_headers_must_compile_alone(tmp_path):
    lonely = SPDX + "#ifndef NET_MSG_H\n#define NET_MSG_H\nuint8_t msg_x(void);\n#endif\n"
    write_tree(tmp_path, {**CLEAN, "src/net/msg.h": lonely})
    found = check(tmp_path, compile_headers=True)
    assert [(f.rule, f.path) for f in found] == [("header", "src/net/msg.h")]
    template = lonely.replace(" */", "\n *\n * Not self-contained: a template. */")
    write_tree(tmp_path, {"src/net/msg.h": template})
    assert check(tmp_path, compile_headers=True) == []


@pytest.mark.skipif(shutil.which("clang-format") is None, reason="needs clang-format")
def test_formatting_is_checked(tmp_path):
    write_tree(tmp_path, {**CLEAN, ".clang-format": "BasedOnStyle: LLVM\nIndentWidth: 4\n"})
    write_tree(tmp_path, {"src/net/rpc.c": SPDX + BODY + "int   rpc_x;\n"})
    found = [f for f in check(tmp_path, check_style=True) if f.path == "src/net/rpc.c"]
    assert [(f.rule, f.line) for f in found] == [("format", 4)]


def test_functions_are_measured(tmp_path):
    body = "".join(f"    x += {i};\n" for i in range(30))
    write_tree(tmp_path, {"src/net/x.c": SPDX + "static void longest(int x)\n{\n" + body + "}\n"})
    source = tidy.Source(str(tmp_path), "src/net/x.c")
    assert [(f.name, f.lines, f.line) for f in tidy.functions_of(source)] == [("longest", 30, 2)]


def test_the_command_exits_with_its_verdict(tmp_path):
    write_tree(tmp_path, CLEAN)
    command = [sys.executable, TOOL, "--root", str(tmp_path), "--no-compile", "--no-format"]
    clean = subprocess.run(command, capture_output=True, text=True, check=False)
    assert clean.returncode == 0 and "tidy: 0 findings" in clean.stdout
    assert "skipped: headers" in clean.stdout and "skipped: clang-format" in clean.stdout
    write_tree(tmp_path, {"src/net/rpc.c": in_function("exit(1);")})
    dirty = subprocess.run(command, capture_output=True, text=True, check=False)
    assert dirty.returncode == 1 and "src/net/rpc.c:6: exit: exit() outside src/cli" in dirty.stdout
