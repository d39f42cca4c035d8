#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""tidy: the house style as a test.

Usage: tests/tidy.py [--root DIR] [--no-compile]

Reads every C source, header and Python file of the repository and prints one line a breach, as
file:line: message, then the number of assertions a function in each folder. Exits 1 when there was
a breach. What a rule allows stands in the tables below, each exception with its reason.
"""

import argparse
import bisect
import concurrent.futures
import pathlib
import re
import subprocess
import sys
from typing import Iterator, NamedTuple

WIDTH_MAX = 100
FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 1000

FOLDERS = ("engine", "queue", "dns", "net", "bench", "tests")

# The longest prefix decides to which room a file belongs.
ROOMS = (
    "engine/base",
    "engine/smtp",
    "engine/message",
    "engine",
    "queue",
    "dns",
    "net",
    "bench",
    "tests",
)

# Which rooms a room may include, besides itself (DESIGN 7).
PRODUCT = ("engine/base", "engine/smtp", "engine/message", "engine", "queue", "dns", "net")
MAY_INCLUDE = {
    "engine/base": (),
    "engine/smtp": ("engine/base",),
    "engine/message": ("engine/base",),
    "queue": ("engine/base",),
    "net": ("engine/base",),
    "dns": ("engine/base",),
    "engine": PRODUCT,
    "bench": PRODUCT,
    "tests": PRODUCT + ("bench",),
}
# Single headers that a room may include in addition.
MAY_INCLUDE_HEADER = {
    "dns": ("net/addr.h",),
}

# A foreign library is known to one place (style 3.4). Patterns are matched against the start of a
# path; tests may use what they need.
LIBRARY_ROOMS = (
    (r"liburing", ("net/uring/", "engine/base/disk_uring.", "bench/")),
    (r"ares|arpa/nameser\.h|resolv\.h", ("dns/",)),
    (r"openssl/", ("net/tls", "engine/message/dkim", "bench/")),  # the sink is a peer
    (r"confuse\.h", ("engine/config",)),
    (r"microhttpd\.h", ("engine/control",)),
    (r"gmime/", ("engine/message/mime",)),
    (r"yajl/", ("queue/", "bench/")),
    (
        r"jansson\.h",
        (
            "queue/manifest",
            "queue/submit",
            "engine/",
            "!engine/base/",
            "!engine/smtp/",
            "!engine/message/",
        ),
    ),
    (r"idn2\.h", ("engine/", "queue/", "dns/", "!engine/base/")),
    (r"systemd/|seccomp\.h", ("engine/", "!engine/base/", "!engine/smtp/", "!engine/message/")),
    (r"rte_", ("net/port/",)),
    (r"lmdb\.h|zstd\.h", ("queue/",)),
    (r"curl/", ("engine/", "dns/", "!engine/base/")),
    (r"jemalloc/", ("engine/boot", "engine/main")),
    (r"urcu", ("engine/base/inbox.", "queue/", "dns/", "engine/", "bench/")),
    (r"CUnit/", ()),
)

# Atomics outside of these are a second owner (LAW 7); liburcu covers the rest.
ATOMIC_PLACES = (
    "engine/base/inbox.",
    "engine/base/stat.h",
    "engine/base/ensure.c",  # the process-wide table of oddities
    "engine/site.",
    "queue/retry.",
    "dns/mx_cache",
    "engine/config",  # the snapshot pointer
    "bench/",
    "tests/",
)
ATOMIC_WORDS = re.compile(r"\b(_Atomic|atomic_\w+|__atomic_\w+|__sync_\w+)\b|<stdatomic\.h>")


class Ban(NamedTuple):
    """Calls that are not made, what to use in their place, and where they are made all the same."""

    names: str
    instead: str
    places: tuple = ()


BANS = (
    Ban("strcpy stpcpy strcat strncat strncpy", "writer_put of engine/base/bytes.h"),
    Ban("sprintf vsprintf", "writer_put_format or snprintf"),
    Ban("gets", "a cursor over a bounded buffer"),
    Ban("strtok strtok_r strsep", "cursor_take_until"),
    Ban("atoi atol atoll atof", "cursor_take_uint"),
    Ban(
        "strtol strtoll strtoul strtoull strtoimax strtoumax",
        "cursor_take_uint",
        ("bench/", "tests/"),
    ),
    Ban("rand srand rand_r random srandom drand48 lrand48 mrand48", "engine/base/random.h"),
    Ban("getrandom getentropy arc4random", "engine/base/random.h", ("engine/base/random.c",)),
    Ban(
        "time gettimeofday clock_gettime clock timespec_get ftime",
        "engine/base/clock.h",
        ("engine/base/clock.c",),
    ),
    Ban(
        "localtime localtime_r gmtime gmtime_r ctime ctime_r asctime strftime mktime timegm",
        "text_put_rfc3339 and its kin",
    ),
    Ban("alloca", "a slab or a bounded array"),
    Ban("setjmp longjmp sigsetjmp siglongjmp", "return codes"),
    Ban("signal", "sigaction or signalfd in engine/control.c and engine/boot.c"),
    Ban("system popen", "posix_spawn with a fixed argv"),
    Ban("sleep usleep nanosleep clock_nanosleep", "the actor's wait, or an event in a test"),
    Ban(
        "pthread_mutex_lock pthread_mutex_init pthread_mutex_trylock pthread_cond_wait "
        "pthread_cond_timedwait pthread_cond_signal pthread_rwlock_rdlock pthread_rwlock_wrlock "
        "pthread_spin_lock sem_wait sem_post",
        "an inbox",
        ("bench/", "tests/"),
    ),
    Ban(
        "pthread_create",
        "an actor that engine/boot.c starts",
        ("engine/boot.", "bench/", "tests/"),
    ),
    Ban("abort", "ensure", ("engine/base/ensure.c", "tests/")),
)

# Rooms that return and never speak (style 3.6): no output of their own.
SILENT_ROOMS = ("engine/base", "engine/smtp", "engine/message", "queue", "dns", "net")
PRINT_CALLS = (
    "printf fprintf dprintf vprintf vfprintf puts fputs putchar perror syslog vsyslog "
    "err errx warn warnx"
).split()

# path:function -> why it is longer. A name that is short again must leave the table.
LONG_FUNCTIONS: dict[str, str] = {}
# path -> why the file is longer.
LONG_FILES: dict[str, str] = {}

# Tables that are included again and again under other macros: path -> what they are.
TABLE_HEADERS = {
    "engine/config_keys.h": "every key of the configuration",
}

# Test folders under tests/unit and the rooms they mirror.
UNIT_ROOMS = {
    "base": "engine/base",
    "smtp": "engine/smtp",
    "message": "engine/message",
    "engine": "engine",
    "queue": "queue",
    "dns": "dns",
    "net": "net",
    "bench": "bench",
}

SPDX_C = "/* SPDX-License-Identifier: Apache-2.0 */"
SPDX_PYTHON = "# SPDX-License-Identifier: Apache-2.0"

PACKAGES = (
    "liburing liburcu-qsbr liburcu-cds libxxhash cunit libcares libconfuse jansson yajl gmime-3.0 "
    "libidn2 libmicrohttpd libsystemd libseccomp openssl libzstd libcurl"
).split()


class Finding(NamedTuple):
    path: str
    line: int
    text: str


class Function(NamedTuple):
    name: str
    line: int
    first: int  # line of the opening brace
    last: int  # line of the closing one


STRIP = re.compile(
    r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'", re.DOTALL
)


def blank(match: re.Match) -> str:
    """A comment becomes spaces, a literal an empty literal; lines stay where they are."""
    text = match.group(0)
    if text[0] == "/":
        return re.sub(r"[^\n]", " ", text)
    return text[0] + " " * (len(text) - 2) + text[0]


class Source:
    """One file: its lines as they are, and its code without comments and literals."""

    def __init__(self, path: str, text: str):
        self.path = path
        self.text = text
        self.lines = text.split("\n")
        if self.lines[-1] == "":
            self.lines.pop()
        self.is_c = path.endswith((".c", ".h"))
        self.is_header = path.endswith(".h")
        self.code = STRIP.sub(blank, text) if self.is_c else ""
        self._starts = [0]
        for line in text.split("\n"):
            self._starts.append(self._starts[-1] + len(line) + 1)

    def line_of(self, offset: int) -> int:
        return bisect.bisect_right(self._starts, offset)

    def room(self) -> str:
        return room_of(self.path)

    def functions(self) -> list[Function]:
        """Column-0 braces make this simple: the style asks for them."""
        found = []
        lines = self.code.split("\n")
        opened = None
        for number, line in enumerate(lines, 1):
            if line.rstrip() == "{":
                opened = number
            elif line.startswith("}") and opened is not None:
                name, first = signature_above(lines, opened)
                if name:
                    found.append(Function(name, first, opened, number))
                opened = None
        return found


def signature_above(lines: list[str], opened: int) -> tuple[str, int]:
    """The function's name and first line, searched upwards from its opening brace."""
    first = opened - 1
    while first > 0 and (lines[first - 1][:1] in (" ", "\t")):
        first -= 1
    match = re.search(r"(\w+)\s*\(", lines[first - 1]) if first > 0 else None
    return (match.group(1) if match else "", first)


def room_of(path: str) -> str:
    rooms = [room for room in ROOMS if path == room or path.startswith(room + "/")]
    return max(rooms, key=len, default="")


def is_under(path: str, places: tuple) -> bool:
    """A place is the start of a path; one with `!` in front takes that part out again."""
    if any(place.startswith("!") and path.startswith(place[1:]) for place in places):
        return False
    return any(path.startswith(place) for place in places if not place.startswith("!"))


def load(root: pathlib.Path) -> dict[str, Source]:
    sources = {}
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*")):
            if path.suffix not in (".c", ".h", ".py") or not path.is_file():
                continue
            name = path.relative_to(root).as_posix()
            try:
                sources[name] = Source(name, path.read_text(encoding="utf-8"))
            except FileNotFoundError:
                continue  # a file may leave while we look
    return sources


INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*(["<])([^">\n]+)[">]', re.MULTILINE)


def includes(source: Source) -> Iterator[tuple[int, str, str]]:
    for match in INCLUDE.finditer(source.text):
        if source.code[match.start(1) - 1 : match.start(1) + 1].strip():
            yield source.line_of(match.start()), match.group(1), match.group(2)


def check_include_direction(sources: dict[str, Source]) -> Iterator[Finding]:
    for source in sources.values():
        for line, kind, target in includes(source):
            if kind != '"':
                continue
            if target not in sources:
                yield Finding(source.path, line, f'"{target}" is no file of ours (from the root)')
                continue
            here, there = source.room(), room_of(target)
            allowed = there == here or there in MAY_INCLUDE.get(here, ())
            if not allowed and target not in MAY_INCLUDE_HEADER.get(here, ()):
                yield Finding(source.path, line, f"{here} may not include {there}")
            folder = target.rpartition("/")[0]
            is_test = source.path.startswith("tests/")
            if target.endswith("_priv.h") and not is_test and \
                    source.path.rpartition("/")[0] != folder:
                yield Finding(source.path, line, f"{target} is private to {folder}")
            if target.endswith(".c"):
                yield Finding(source.path, line, "a .c file is not included")


def check_include_order(sources: dict[str, Source]) -> Iterator[Finding]:
    for source in sources.values():
        own = source.path[:-2] + ".h"
        if not source.path.endswith(".c") or own not in sources:
            continue
        first = next(includes(source), None)
        if first is None or first[2] != own:
            line = first[0] if first else 1
            yield Finding(source.path, line, f'the first include must be "{own}"')


def check_libraries(sources: dict[str, Source]) -> Iterator[Finding]:
    for source in sources.values():
        if source.room() == "tests":
            continue
        for line, kind, target in includes(source):
            for pattern, places in LIBRARY_ROOMS:
                if kind == "<" and re.match(pattern, target) and not is_under(source.path, places):
                    where = ", ".join(p for p in places if p[0] != "!") or "tests/"
                    yield Finding(source.path, line, f"<{target}> is known only to {where}")


def check_atomics(sources: dict[str, Source]) -> Iterator[Finding]:
    for source in sources.values():
        if not source.is_c or is_under(source.path, ATOMIC_PLACES):
            continue
        for match in ATOMIC_WORDS.finditer(source.code):
            line = source.line_of(match.start())
            yield Finding(source.path, line, f"{match.group(0)}: atomics have their few places")


CALL = re.compile(r"(?<![\w.>])(\w+)\s*\(")


def check_calls(sources: dict[str, Source]) -> Iterator[Finding]:
    bans = {name: ban for ban in BANS for name in ban.names.split()}
    prints = set(PRINT_CALLS)
    for source in sources.values():
        is_silent = source.room() in SILENT_ROOMS
        for match in CALL.finditer(source.code):
            name = match.group(1)
            line = source.line_of(match.start())
            ban = bans.get(name)
            if ban and not is_under(source.path, ban.places):
                yield Finding(source.path, line, f"{name}() is banned: use {ban.instead}")
            if is_silent and name in prints:
                yield Finding(source.path, line, f"{name}(): {source.room()} returns, never prints")


def check_lengths(sources: dict[str, Source]) -> Iterator[Finding]:
    unused = set(LONG_FUNCTIONS) | set(LONG_FILES)
    for source in sources.values():
        if len(source.lines) > FILE_LINES_MAX:
            unused.discard(source.path)
            if source.path not in LONG_FILES:
                text = f"{len(source.lines)} lines in the file, at most {FILE_LINES_MAX}"
                yield Finding(source.path, 1, text)
        for function in source.functions():
            length = function.last - function.line + 1
            key = f"{source.path}:{function.name}"
            if length > FUNCTION_LINES_MAX:
                unused.discard(key)
                if key not in LONG_FUNCTIONS:
                    text = f"{function.name} has {length} lines, at most {FUNCTION_LINES_MAX}"
                    yield Finding(source.path, function.line, text)
    for key in sorted(unused):
        yield Finding(key.partition(":")[0], 1, f"{key} is short enough: drop the exception")


LATER = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
MERGE = re.compile(r"(<{7}|>{7}|\|{7}) ")


def check_lines(sources: dict[str, Source]) -> Iterator[Finding]:
    for source in sources.values():
        if source.text and not source.text.endswith("\n"):
            yield Finding(source.path, len(source.lines), "no newline at the end")
        for number, line in enumerate(source.lines, 1):
            if len(line) > WIDTH_MAX:
                text = f"{len(line)} columns, at most {WIDTH_MAX}"
                yield Finding(source.path, number, text)
            if line != line.rstrip():
                yield Finding(source.path, number, "blanks at the end")
            if "\t" in line:
                yield Finding(source.path, number, "a tab")
            if MERGE.match(line):
                yield Finding(source.path, number, "left of a merge")
            later = LATER.search(line)
            if later and not source.path.startswith("tests/tidy") and source.is_c:
                yield Finding(source.path, number, f"{later.group(0)}: open an issue instead")


def check_licence(sources: dict[str, Source]) -> Iterator[Finding]:
    for source in sources.values():
        if source.is_c and source.lines[:1] != [SPDX_C]:
            yield Finding(source.path, 1, f"the first line must be {SPDX_C}")
        if not source.is_c and source.lines and SPDX_PYTHON not in source.lines[:2]:
            yield Finding(source.path, 1, f"no line {SPDX_PYTHON}")


def check_header_shape(sources: dict[str, Source]) -> Iterator[Finding]:
    for source in sources.values():
        if not source.is_header or source.path in TABLE_HEADERS:
            continue
        if not re.search(r"^#pragma once$", source.code, re.MULTILINE):
            yield Finding(source.path, 1, "no #pragma once")
        if source.room() != "tests" and not source.text[len(SPDX_C) :].lstrip().startswith("/*"):
            yield Finding(source.path, 2, "the header is the manual page: no comment on top")


def check_typedefs(sources: dict[str, Source]) -> Iterator[Finding]:
    for source in sources.values():
        for match in re.finditer(r"\btypedef\s+(struct|union|enum)\b[^;(]*[;{]", source.code):
            line = source.line_of(match.start())
            yield Finding(source.path, line, "typedef only for pointers to functions")


def check_comments(sources: dict[str, Source]) -> Iterator[Finding]:
    for source in sources.values():
        if not source.is_c:
            continue
        for match in STRIP.finditer(source.text):
            if match.group(0).startswith("//"):
                line = source.line_of(match.start())
                yield Finding(source.path, line, "comments are /* */")


def skip_parentheses(code: str, at: int) -> int:
    """The offset behind the parenthesis that opens at `at`; the end when it never closes."""
    depth = 0
    for index in range(at, len(code)):
        if code[index] == "(":
            depth += 1
        elif code[index] == ")":
            depth -= 1
            if depth == 0:
                return index + 1
    return len(code)


DIRECTIVE = re.compile(r"^[ \t]*#(?:\\\n|[^\n])*", re.MULTILINE)
CONTROL = re.compile(r"\b(if|for|while|else|do|switch)\b")


def check_braces(sources: dict[str, Source]) -> Iterator[Finding]:
    """Always braces, except `if (a) ensure(b);`; a while may end a do, or have nothing to do."""
    for source in sources.values():
        code = DIRECTIVE.sub(lambda match: re.sub(r"[^\n]", " ", match.group(0)), source.code)
        for match in CONTROL.finditer(code):
            word, at = match.group(1), match.end()
            if word not in ("else", "do"):
                start = re.compile(r"\s*\(").match(code, at)
                if not start:
                    continue
                at = skip_parentheses(code, start.end() - 1)
            rest = code[at : at + 200].lstrip()
            fits = rest.startswith("{")
            fits = fits or (word == "if" and rest.startswith("ensure("))
            fits = fits or (word == "else" and re.match(r"if\b", rest) is not None)
            fits = fits or (word == "while" and rest.startswith(";"))
            if not fits:
                line = source.line_of(match.start())
                yield Finding(source.path, line, f"{word} without braces")
        for number, line in enumerate(source.code.split("\n"), 1):
            if re.match(r"^\w[^=]*\)\s*\{\s*$", line):
                yield Finding(source.path, number, "a function's brace has its own line")


def check_gotos(sources: dict[str, Source]) -> Iterator[Finding]:
    for source in sources.values():
        lines = source.code.split("\n")
        for function in source.functions():
            labels = {}
            for number in range(function.first, function.last):
                match = re.match(r"^\s*(\w+):\s*$", lines[number - 1])
                if match and match.group(1) != "default":
                    labels[match.group(1)] = number
            used = set()
            for number in range(function.first, function.last):
                match = re.search(r"\bgoto\s+(\w+)", lines[number - 1])
                if match:
                    used.add(match.group(1))
                    if labels.get(match.group(1), 0) <= number:
                        yield Finding(source.path, number, "goto goes forward only")
            if len(used) > 1:
                text = f"{function.name}: goto knows one cleanup label"
                yield Finding(source.path, function.line, text)


def check_unit_mirror(sources: dict[str, Source], root: pathlib.Path) -> Iterator[Finding]:
    """tests/unit mirrors the tree: a test lies in its room's folder, touches that room, is run."""
    for path, source in sources.items():
        name = path.rpartition("/")[2]
        if not path.startswith("tests/unit/") or not re.match(r"test_.*\.c$", name):
            continue
        folder = path.split("/")[2]
        room = UNIT_ROOMS.get(folder)
        if room is None:
            yield Finding(path, 1, f"tests/unit/{folder} mirrors no room")
            continue
        targets = [target for _, _, target in includes(source)]
        near = (f"{room}/", f"tests/unit/{folder}/", "tests/sim/")
        if not any(target.startswith(near) for target in targets):
            yield Finding(path, 1, f"a test in {folder}/ that includes nothing of {room}")
        build = (root / path).parent / "meson.build"
        listing = build.read_text(encoding="utf-8") if build.is_file() else ""
        stem = name[:-2]
        if not re.search(rf"\b{stem}\b|'{stem.removeprefix('test_')}'", listing):
            yield Finding(path, 1, f"{build.relative_to(root).as_posix()} does not run it")


def modules_of(row: str, stems: set[str]) -> tuple[set[str], list[str]]:
    """The modules that a row of a table names (`journal_group, _segment` are two of journal), and
    the words in it that are none."""
    words = re.findall(r"(?<!\w)[a-z][a-z0-9_]*", row)
    heads = {word[:end] for word in words for end in range(1, len(word) + 1)
             if end == len(word) or word[end] == "_"}
    named = set(words)
    strangers = [word for word in words if word not in stems]
    for tail in re.findall(r"(?<!\w)_[a-z0-9_]+", row):
        found = {head + tail for head in heads} & stems
        named |= found
        strangers += [] if found else [tail]
    return named, strangers


def check_map(sources: dict[str, Source], root: pathlib.Path) -> Iterator[Finding]:
    """docs/ARCHITECTURE.md names every module, and none that is gone: whoever reads it can find
    the room of any line."""
    path = "docs/ARCHITECTURE.md"
    if not (root / path).is_file():
        return
    stems = {name.rpartition("/")[2][:-2] for name, source in sources.items()
             if source.is_c and source.room() not in ("tests", "bench", "")}
    named: set[str] = set()
    is_map = False
    text = (root / path).read_text(encoding="utf-8")
    for number, line in enumerate(text.splitlines(), 1):
        is_map = is_map or line == "## Every module"
        cell = line.split("|")[1].strip() if is_map and line.startswith("|") else ""
        if cell not in ("", "module", "---"):
            modules, strangers = modules_of(cell, stems)
            named |= modules
            for word in strangers:
                yield Finding(path, number, f"{word} is no module")
    for name in sources:
        stem = name.rpartition("/")[2][:-2]
        if name.endswith(".c") and stem in stems and stem not in named:
            yield Finding(name, 1, f"{path}, Every module, has no {stem}")


def compile_flags() -> list[str]:
    flags = ["-std=gnu17", "-D_GNU_SOURCE", "-DURCU_API_MAP", "-fsyntax-only", "-w"]
    for package in PACKAGES:
        answer = subprocess.run(
            ["pkg-config", "--cflags", package], capture_output=True, text=True, check=False
        )
        if answer.returncode == 0:
            flags += [flag for flag in answer.stdout.split() if flag not in flags]
    return flags


def check_headers_alone(sources: dict[str, Source], root: pathlib.Path) -> Iterator[Finding]:
    flags = compile_flags()

    def compile_one(path: str) -> list[Finding]:
        answer = subprocess.run(
            ["gcc", *flags, f"-I{root}", "-x", "c", "-"],
            input=f'#include "{path}"\n',
            capture_output=True,
            text=True,
            check=False,
        )
        if answer.returncode == 0:
            return []
        errors = [line for line in answer.stderr.splitlines() if "error:" in line]
        return [Finding(path, 1, "does not compile alone: " + (errors or ["gcc failed"])[0])]

    headers = [path for path in sources if path.endswith(".h") and path not in TABLE_HEADERS]
    with concurrent.futures.ThreadPoolExecutor(max_workers=2) as pool:
        for findings in pool.map(compile_one, headers):
            yield from findings


TEXT_CHECKS = (
    check_include_direction,
    check_include_order,
    check_libraries,
    check_atomics,
    check_calls,
    check_lengths,
    check_lines,
    check_licence,
    check_header_shape,
    check_typedefs,
    check_comments,
    check_braces,
    check_gotos,
)


def find_all(root: pathlib.Path, with_compile: bool = True) -> list[Finding]:
    sources = load(root)
    findings = [finding for check in TEXT_CHECKS for finding in check(sources)]
    findings += check_unit_mirror(sources, root)
    findings += check_map(sources, root)
    if with_compile:
        findings += check_headers_alone(sources, root)
    return sorted(set(findings))


def print_assertions(root: pathlib.Path) -> None:
    """At least one ensure a function on average, per folder (style 3.10)."""
    counts: dict[str, list[int]] = {}
    for source in load(root).values():
        if source.is_c and source.room() not in ("tests", ""):
            row = counts.setdefault(source.room(), [0, 0])
            row[0] += len(re.findall(r"\bensure(?:_slow)?\s*\(", source.code))
            row[1] += len(source.functions())
    for room, (ensures, functions) in sorted(counts.items()):
        if functions:
            print(f"{room}: {ensures} ensures in {functions} functions, {ensures / functions:.2f}")


def main() -> int:
    parser = argparse.ArgumentParser(description="the house style as a test")
    here = pathlib.Path(__file__).resolve().parent.parent
    parser.add_argument("--root", type=pathlib.Path, default=here)
    parser.add_argument("--no-compile", action="store_true", help="leave out the headers' compile")
    arguments = parser.parse_args()
    findings = find_all(arguments.root, with_compile=not arguments.no_compile)
    for finding in findings:
        print(f"{finding.path}:{finding.line}: {finding.text}")
    print_assertions(arguments.root)
    print(f"{len(findings)} breaches")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
