#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks the rules of this tree that a compiler does not: layers, names, banned calls, formatting.

    tools/tidy.py [--root DIR] [--no-compile] [--no-format]

Prints one line per finding, `path:line: rule: words`, then the twenty longest functions as places to
look (no finding). Exits 1 if there is a finding. Python 3 and nothing else; gcc (or cc) for the rule
"header", clang-format for the rule "format", each said to be skipped when it is not there.

A C file is read twice: as it is (columns, SPDX, marks in comments) and with comments, strings and
preprocessor lines blanked out, line by line (calls, function definitions), so that a word in a comment
is never a call. Functions are found by the shape that clang-format gives them: a brace alone in the
first column.
"""

import argparse
import collections
import concurrent.futures
import os
import re
import shutil
import subprocess
import sys

COLUMNS_MAX = 100
LONGEST = 20
FORMAT_BATCH = 32  # files of one clang-format

Finding = collections.namedtuple("Finding", "path line rule words")
Function = collections.namedtuple("Function", "path line name lines static")

# A layer may include itself and every layer of a lower rank. Two of one rank do not see each other.
RANKS = {
    "base": 0,
    "net": 1,
    "model": 2,
    "transfer": 2,
    "conductor": 3,
    "store": 3,
    "infer": 3,
    "serve": 4,
    "sim": 4,
    "cli": 5,
}
ONLY_BASE = {"conductor"}  # used by the simulator: no I/O, no clock

# The world is touched in src/base/env*.c only: these are its doors.
WORLD = """
clock clock_gettime clock_getres gettimeofday time ftime nanosleep clock_nanosleep usleep sleep
timer_create timerfd_create alarm setitimer
socket socketpair bind listen accept accept4 connect shutdown getaddrinfo getnameinfo gethostbyname
recv recvfrom recvmsg send sendto sendmsg sendfile setsockopt getsockopt
epoll_create epoll_create1 epoll_wait epoll_pwait2 poll ppoll select pselect eventfd signalfd
open openat creat fopen freopen fdopen opendir readdir scandir stat lstat fstat unlink unlinkat rename
mkdir rmdir remove mkstemp mkdtemp tmpfile memfd_create shm_open ftruncate truncate pread pwrite preadv
pwritev fsync fdatasync readlink
rand srand rand_r random srandom drand48 lrand48 getrandom getentropy arc4random
fork vfork execv execve execvp execl execlp posix_spawn popen system waitpid kill signal sigaction
""".split()

# No caller knows how much these write, or what they leave behind.
UNSAFE = {
    "strcpy": "memcpy, with a length",
    "stpcpy": "memcpy, with a length",
    "strcat": "snprintf",
    "sprintf": "snprintf",
    "vsprintf": "vsnprintf",
    "gets": "fgets",
    "strtok": "strcspn",
    "atoi": "a parser that can say no",
    "atol": "a parser that can say no",
    "atoll": "a parser that can say no",
    "atof": "a parser that can say no",
    "gmtime": "a reentrant function",
    "localtime": "a reentrant function",
    "ctime": "a reentrant function",
    "asctime": "a reentrant function",
    "alloca": "a bounded array",
    "tmpnam": "env",
    "mktemp": "env",
}

# A library sits behind one file of ours. Key: how its headers begin.
LIBRARIES = ["jansson.h", "msgpack", "http_parser.h", "pcre2.h", "zmq.h", "liburing.h", "curl/", "hiredis", "rdma/"]

EXEMPT_NAMES = {"main", "LLVMFuzzerTestOneInput", "LLVMFuzzerInitialize"}


# ---- reading ----


class Source:
    """One file: its text, its lines, and its lines with everything but code blanked out."""

    def __init__(self, root, path):
        self.path = path
        with open(os.path.join(root, path), encoding="utf-8", errors="replace") as file:
            self.text = file.read()
        self.lines = self.text.split("\n")
        self.code = blank(self.text).split("\n") if self.is_c() else []

    def is_c(self):
        return self.path.endswith((".c", ".h"))

    def is_test(self):
        """Tests, fuzzers and what only they include make their own fixtures."""
        return self.path.startswith("tests/") or self.path.endswith(("_test.c", "_fuzz.c"))

    def is_env(self):
        return re.match(r"src/base/env\w*\.c$", self.path) is not None

    def layer(self):
        parts = self.path.split("/")
        return parts[1] if parts[0] == "src" and len(parts) > 2 else None


TOKENS = re.compile(
    r"//[^\n]*"
    r"|/\*.*?\*/"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'(?:\\.|[^'\\\n])*'"
    r"|^[ \t]*\#(?:\\\n|[^\n])*",
    re.DOTALL | re.MULTILINE,
)


def blank(text):
    """Comments, literals and preprocessor lines become blanks; line ends stay where they are."""
    return TOKENS.sub(lambda match: re.sub(r"[^\n]", " ", match.group()), text)


def find_files(root):
    paths = []
    for top in ("src", "include", "tests", "tools", "bench", "python"):
        for directory, names, files in os.walk(os.path.join(root, top)):
            names[:] = sorted(n for n in names if not n.startswith(".") and n != "__pycache__")
            for name in sorted(files):
                if name.endswith((".c", ".h", ".py", ".sh")):
                    paths.append(os.path.relpath(os.path.join(directory, name), root))
    return paths


# ---- rules about one file ----


def check_spdx(source):
    if not any("SPDX-License-Identifier: Apache-2.0" in line for line in source.lines[:3]):
        yield Finding(source.path, 1, "spdx", "no SPDX-License-Identifier line at the top")


def check_columns(source):
    for number, line in enumerate(source.lines, 1):
        if source.is_c() and len(line) > COLUMNS_MAX:
            yield Finding(source.path, number, "columns", f"{len(line)} columns, over {COLUMNS_MAX}")
        if source.is_c() and "\t" in line:
            yield Finding(source.path, number, "columns", "a tab")
        if line.rstrip() != line:
            yield Finding(source.path, number, "columns", "blanks at the end of the line")
    if source.text and not source.text.endswith("\n"):
        yield Finding(source.path, len(source.lines), "columns", "no newline at the end of the file")


def check_marks(source):
    if source.path in ("tools/tidy.py", "tests/tidy_test.py"):  # they speak about the marks
        return
    for number, line in enumerate(source.lines, 1):
        if re.search(r"\b(FIXME|XXX)\b", line):
            yield Finding(source.path, number, "marks", "FIXME and XXX do not reach main")
        if re.search(r"\bTODO\b(?!\(#\d+\))", line):
            yield Finding(source.path, number, "marks", "TODO names an issue: TODO(#12)")


def expected_guard(path):
    parts = path.split("/")
    if parts[0] in ("src", "include"):
        parts = parts[1:]
    return re.sub(r"\W", "_", "_".join(parts)).upper()


def check_guard(source):
    if not source.path.endswith(".h") or source.path.startswith("include/compat/"):
        return
    guard = expected_guard(source.path)
    directives = [line.strip() for line in source.lines if line.startswith("#")]
    if directives[:2] != [f"#ifndef {guard}", f"#define {guard}"]:
        yield Finding(source.path, 1, "guard", f"must begin with #ifndef {guard}, #define {guard}")


def includes_of(source):
    for number, line in enumerate(source.lines, 1):
        match = re.match(r'#\s*include\s+(["<])([^">]+)[">]', line)
        if match:
            yield number, match.group(1) == '"', match.group(2)


def layer_of_include(name):
    """The layer that "name" belongs to, or None if it is not ours (or of no layer, as yolk/yolk.h)."""
    parts = name.split("/")
    if parts[0] == "yolk" and len(parts) == 2:
        stem = parts[1][: -len(".h")]
        return stem if stem in RANKS else None
    return parts[0] if parts[0] in RANKS and len(parts) > 1 else None


def may_include(layer, other):
    if layer == other:
        return True
    if layer in ONLY_BASE:
        return other == "base"
    return RANKS[other] < RANKS[layer]


def check_layers(source):
    layer = source.layer()
    if layer is None:
        return
    if layer not in RANKS:
        yield Finding(source.path, 1, "layers", f"src/{layer} is not a layer")
        return
    for number, quoted, name in includes_of(source):
        other = layer_of_include(name)
        if other is not None and not may_include(layer, other):
            yield Finding(source.path, number, "layers", f"{layer} may not include {name}")
        if quoted and ".." in name.split("/"):
            yield Finding(source.path, number, "layers", f"{name}: no paths upwards")
        if re.search(r"_(test|fuzz)\.c$|\.c$", name):
            yield Finding(source.path, number, "layers", f"{name}: a .c file is not included")


def check_own_header_first(source, existing):
    if not source.path.endswith(".c") or source.layer() is None:
        return
    own = source.path[len("src/") : -len(".c")] + ".h"
    if "src/" + own not in existing:
        return
    for number, _, name in includes_of(source):
        if name != own:
            yield Finding(source.path, number, "includes", f"its own header {own} comes first")
        return


def calls_in(source, names):
    """(line, name) of each call. A member (a.open, a->open) or a longer name is none."""
    pattern = re.compile(r"(?<![\w.>])(" + "|".join(sorted(names)) + r")\s*\(")
    for number, line in enumerate(source.code, 1):
        for match in pattern.finditer(line):
            yield number, match.group(1)


def declares(source, number, name):
    """True where the name is declared with a type in front of it: a local function of that name."""
    return re.search(r"[\w*]\s+\*?" + name + r"\s*\(", source.code[number - 1]) is not None and not (
        re.search(r"\b(return|else|do|case)\s+" + name + r"\s*\(", source.code[number - 1])
    )


def check_world(source):
    if source.layer() is None or source.is_test() or source.is_env():
        return
    local = {
        name for number, name in calls_in(source, WORLD) if declares(source, number, name)
    }  # `static void stop(...)` of our own shadows nothing of the world
    for number, name in calls_in(source, WORLD):
        if name not in local:
            yield Finding(source.path, number, "world", f"{name}() outside src/base/env*.c")
    for number, _ in calls_in(source, ["mmap"]):
        if "MAP_ANONYMOUS" not in "\n".join(source.code[number - 1 : number + 3]):
            yield Finding(source.path, number, "world", "mmap() of a file outside src/base/env*.c")


def check_unsafe(source):
    for number, name in calls_in(source, UNSAFE):
        yield Finding(source.path, number, "unsafe", f"{name}(): use {UNSAFE[name]}")


def check_exits(source):
    if source.layer() in (None, "cli") or source.is_test():
        return
    for number, name in calls_in(source, ["exit", "_exit", "_Exit", "quick_exit"]):
        if name == "_exit" and source.is_env():
            continue  # the child's side of a fork
        yield Finding(source.path, number, "exit", f"{name}() outside src/cli")
    for number, name in calls_in(source, ["abort"]):
        if source.path != "src/base/assert.c":
            yield Finding(source.path, number, "exit", "abort() outside src/base/assert.c: ASSERT")


def check_printing(source):
    if source.layer() in (None, "cli") or source.is_test():
        return
    for number, name in calls_in(source, ["printf", "puts", "putchar", "perror", "vprintf"]):
        yield Finding(source.path, number, "printing", f"{name}() outside src/cli: base/log.h")
    for number, line in enumerate(source.code, 1):
        if re.search(r"\bstderr\b|\bstdout\b", line):
            yield Finding(source.path, number, "printing", "stdio streams outside src/cli: base/log.h")


LOG_FORMAT = re.compile(r'\bLOG_(?:ERROR|WARN|INFO|DEBUG|TRACE)\(\s*"\w*",\s*"\w*",\s*((?:"(?:\\.|[^"\\\n])*"\s*)+)')


def check_logging(source):
    """base/log.c quotes values itself: quotes of a format become part of them."""
    if not source.is_c():
        return
    for match in LOG_FORMAT.finditer(source.text):
        if '\\"' in match.group(1):
            number = source.text.count("\n", 0, match.start()) + 1
            yield Finding(source.path, number, "logging", "quotes in a format: the log sets them")


# ---- functions and their names ----


def static_macros(sources):
    """Names such as V_FN in `#define V_FN static inline`."""
    names = set()
    for source in sources:
        names.update(re.findall(r"^#\s*define\s+(\w+)\s+static\b", source.text, re.MULTILINE))
    return names


def functions_of(source, statics=frozenset()):
    """Definitions: a signature that starts in the first column, then `{` alone, `}` alone. `statics`
    are macros that stand for static."""
    code = source.code
    for start, line in enumerate(code):
        if line.rstrip() != "{":
            continue
        first = start
        while first > 0 and code[first - 1].strip() and not re.search(r"[;}]\s*$", code[first - 1]):
            first -= 1
        signature = " ".join(code[first:start])
        match = re.match(r"([\w\s*()]*?[\w*]\s*)\b(\w+)\s*\(", strip_attributes(signature))
        if not match or re.match(r"\s*(struct|enum|union)\s+\w+\s*$", signature):
            continue
        end = start
        while end + 1 < len(code) and not code[end].startswith("}"):
            end += 1
        words = set(re.findall(r"\w+", match.group(1)))
        static = "static" in words or not words.isdisjoint(statics)
        yield Function(source.path, first + 1, match.group(2), end - start - 1, static)


def strip_attributes(signature):
    signature = re.sub(r"__attribute__\s*\(\(.*?\)\)", " ", signature)
    return re.sub(r"\b(MUST_USE|_Noreturn|inline|extern)\b", " ", signature)


def prefixes_by_layer(sources):
    """What a public function of a layer may begin with: the layer, its modules (files), and the
    structs its headers declare."""
    prefixes = collections.defaultdict(set)
    for source in sources:
        layer = source.layer()
        if source.path.startswith("include/yolk/"):
            layer = layer_of_include(source.path[len("include/") :])
        if layer is None:
            continue
        prefixes[layer].update((layer, "yolk"))
        for part in source.path.split("/")[2:-1]:
            prefixes[layer].add(part)  # a directory inside the layer, as infer/cpu
        words = os.path.splitext(os.path.basename(source.path))[0].split("_")
        prefixes[layer].update("_".join(words[: i + 1]) for i in range(len(words)))
        if source.path.endswith(".h"):
            prefixes[layer].update(re.findall(r"^struct (\w+)", "\n".join(source.code), re.MULTILINE))
    return prefixes


def check_prefixes(source, functions, prefixes):
    layer = source.layer()
    if layer is None or source.is_test():
        return
    for function in functions:
        if function.static or function.name in EXEMPT_NAMES:
            continue
        name = function.name
        if not any(name == p or name.startswith(p + "_") for p in prefixes[layer]):
            words = f"{name}: begins with no module of {layer}, and is not static"
            yield Finding(source.path, function.line, "prefix", words)


# ---- rules about the tree ----


def check_libraries(sources):
    """In each layer one file includes a library; everybody else in the layer goes through it."""
    users = collections.defaultdict(list)
    for source in sources:
        if source.layer() is None or source.is_test():
            continue
        for number, quoted, name in includes_of(source):
            for library in LIBRARIES:
                if not quoted and name.startswith(library):
                    users[library, source.layer()].append((source.path, number))
    for (library, _), places in sorted(users.items()):
        files = sorted({path for path, _ in places})
        for path, number in places:
            if path != files[0]:
                words = f"{library} sits behind one file; {files[0]} includes it too"
                yield Finding(path, number, "library", words)


def run_tool(command, root):
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)


def says_not_alone(source):
    """A template for several .c files says so on top, in these words."""
    return any("Not self-contained" in line for line in source.lines[:20])


def check_headers_alone(root, sources, compiler):
    """Each header must compile alone."""
    base = [compiler, "-std=c17", "-D_GNU_SOURCE", "-Isrc", "-Iinclude", "-fsyntax-only"]
    base += ["-x", "c", "-Wall", "-Wno-pragma-once-outside-header"]
    headers = [s for s in sources if s.path.endswith(".h") and not s.path.startswith("tests/")]
    paths = [header.path for header in headers if not says_not_alone(header)]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(lambda path: run_tool(base + [path], root), paths)
        for path, result in zip(paths, results):
            if result.returncode == 0:
                continue
            errors = [line for line in result.stderr.split("\n") if "error" in line]
            words = errors[0] if errors else result.stderr.strip()[:200]
            yield Finding(path, 1, "header", f"does not compile alone: {words}")


def check_format(root, sources, clang_format):
    paths = [s.path for s in sources if s.is_c() and not s.path.startswith("include/compat/")]
    batches = [paths[i:i + FORMAT_BATCH] for i in range(0, len(paths), FORMAT_BATCH)]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(lambda b: run_tool([clang_format, "--dry-run", "-Werror", *b], root), batches))
    for batch, result in zip(batches, results):
        places = collections.defaultdict(list)
        for path, line in re.findall(r"^([^:\n]+):(\d+):\d+: error", result.stderr, re.MULTILINE):
            places[path].append(int(line))
        if result.returncode != 0 and not places:
            yield Finding(batch[0], 1, "format", f"clang-format failed: {result.stderr[:200]}")
        for path, lines in places.items():
            yield Finding(path, lines[0], "format", f"{len(lines)} places differ: clang-format -i {path}")


# ---- putting it together ----


def check_tree(root, compile_headers=True, check_style=True, say=print):
    sources = [Source(root, path) for path in find_files(root)]
    existing = {source.path for source in sources}
    prefixes = prefixes_by_layer(sources)
    statics = static_macros(sources)
    findings, functions = [], []

    for source in sources:
        findings += check_spdx(source)
        findings += check_columns(source)
        findings += check_marks(source)
        if not source.is_c():
            continue
        own_functions = list(functions_of(source, statics))
        functions += own_functions
        findings += check_guard(source)
        findings += check_layers(source)
        findings += check_own_header_first(source, existing)
        findings += check_world(source)
        findings += check_unsafe(source)
        findings += check_exits(source)
        findings += check_printing(source)
        findings += check_logging(source)
        findings += check_prefixes(source, own_functions, prefixes)
    findings += check_libraries(sources)
    compiler = shutil.which("gcc") or shutil.which("cc")
    if not compile_headers or compiler is None:
        say("skipped: headers compiled alone (no compiler, or not asked for)")
    else:
        findings += check_headers_alone(root, sources, compiler)
    clang_format = shutil.which("clang-format") or shutil.which("clang-format-14")
    if not check_style or clang_format is None:
        say("skipped: clang-format (not installed, or not asked for)")
    else:
        findings += check_format(root, sources, clang_format)
    return sorted(findings), functions


def print_longest(functions):
    print(f"the {LONGEST} longest functions, as places to look:")
    for function in sorted(functions, key=lambda f: -f.lines)[:LONGEST]:
        print(f"  {function.lines:4} lines  {function.name}  {function.path}:{function.line}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--root", default=os.path.join(os.path.dirname(__file__), ".."))
    parser.add_argument("--no-compile", action="store_true", help="skip the rule 'header'")
    parser.add_argument("--no-format", action="store_true", help="skip the rule 'format'")
    args = parser.parse_args()
    findings, functions = check_tree(args.root, not args.no_compile, not args.no_format)

    print_longest(functions)
    for finding in findings:
        print(f"{finding.path}:{finding.line}: {finding.rule}: {finding.words}")
    print(f"tidy: {len(findings)} finding{'' if len(findings) == 1 else 's'}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
