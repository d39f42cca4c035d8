#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""test_tidy: each rule of tidy bites on a bad snippet, and leaves the good one beside it alone.

A row is a small tree of files and what tidy must say about it: a piece of the message and the line,
or nothing at all.
"""

import contextlib
import io
import pathlib
import sys
import tempfile

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import tidy  # noqa: E402

SPDX = tidy.SPDX_C + "\n"
HEADER = SPDX + "/* x: what it is for. */\n#pragma once\n"
EMPTY_BASE = {"engine/base/ensure.h": HEADER}


def c(body: str) -> str:
    return SPDX + body


def function(lines: int) -> str:
    """A function of exactly `lines` lines."""
    return "int long_one(void)\n{\n" + "    step();\n" * (lines - 3) + "}\n"


# (name, files, line of the finding or None, piece of its message; None: tidy is silent)
ROWS = [
    # Include direction.
    ("base includes queue", {
        "engine/base/a.c": c('#include "queue/b.h"\n'), "queue/b.h": HEADER,
    }, 2, "engine/base may not include queue"),
    ("queue includes net", {
        "queue/a.c": c('#include "net/b.h"\n'), "net/b.h": HEADER,
    }, 2, "queue may not include net"),
    ("net includes engine", {
        "net/a.c": c('#include "engine/site.h"\n'), "engine/site.h": HEADER,
    }, 2, "net may not include engine"),
    ("smtp includes message", {
        "engine/smtp/a.c": c('#include "engine/message/b.h"\n'), "engine/message/b.h": HEADER,
    }, 2, "engine/smtp may not include engine/message"),
    ("product includes tests", {
        "queue/a.c": c('#include "tests/b.h"\n'), "tests/b.h": HEADER,
    }, 2, "queue may not include tests"),
    ("dns includes another net header", {
        "dns/a.c": c('#include "net/tls.h"\n'), "net/tls.h": HEADER,
    }, 2, "dns may not include net"),
    ("dns includes net/addr.h", {
        "dns/a.c": c('#include "net/addr.h"\n'), "net/addr.h": HEADER,
    }, None, None),
    ("engine includes all", {
        "engine/a.c": c('#include "dns/b.h"\n#include "engine/smtp/c.h"\n'),
        "dns/b.h": HEADER, "engine/smtp/c.h": HEADER,
    }, None, None),
    ("not from the root", {
        "queue/a.c": c('#include "b.h"\n'), "queue/b.h": HEADER,
    }, 2, '"b.h" is no file of ours'),
    ("a commented include", {
        "queue/a.c": c('/* #include "net/b.h" */\n'), "net/b.h": HEADER,
    }, None, None),
    ("private header from another folder", {
        "bench/a.c": c('#include "queue/b_priv.h"\n'), "queue/b_priv.h": HEADER,
    }, 2, "queue/b_priv.h is private to queue"),
    ("private header from its folder", {
        "queue/a.c": c('#include "queue/b_priv.h"\n'), "queue/b_priv.h": HEADER,
    }, None, None),
    ("a .c file included", {
        "queue/a.c": c('#include "queue/b.c"\n'), "queue/b.c": c(""),
    }, 2, "a .c file is not included"),
    ("own header not first", {
        "queue/a.c": c('#include "queue/b.h"\n#include "queue/a.h"\n'),
        "queue/a.h": HEADER, "queue/b.h": HEADER,
    }, 2, 'the first include must be "queue/a.h"'),
    # Libraries.
    ("liburing in queue", {"queue/a.c": c("#include <liburing.h>\n")}, 2, "<liburing.h> is known"),
    ("liburing in the disk", {
        "engine/base/disk_uring.c": c("#include <liburing.h>\n"),
    }, None, None),
    ("liburing in bench", {"bench/a.c": c("#include <liburing.h>\n")}, None, None),
    ("c-ares in net", {"net/a.c": c("#include <ares.h>\n")}, 2, "<ares.h> is known only to dns/"),
    ("openssl in queue", {"queue/a.c": c("#include <openssl/evp.h>\n")}, 2, "net/tls"),
    ("openssl in dkim", {
        "engine/message/dkim_sign.c": c("#include <openssl/evp.h>\n"),
    }, None, None),
    ("jansson in base", {"engine/base/a.c": c("#include <jansson.h>\n")}, 2, "<jansson.h>"),
    ("jansson in control", {"engine/control.c": c("#include <jansson.h>\n")}, None, None),
    ("confuse in queue", {"queue/a.c": c("#include <confuse.h>\n")}, 2, "engine/config"),
    ("dpdk in the stack", {"net/stack/a.c": c("#include <rte_mbuf.h>\n")}, 2, "net/port/"),
    ("cunit in queue", {"queue/a.c": c("#include <CUnit/CUnit.h>\n")}, 2, "tests/"),
    # Atomics.
    ("atomics in queue", {"queue/a.c": c("_Atomic int x;\n")}, 2, "_Atomic"),
    ("atomic call", {"engine/a.c": c("x = atomic_load(&y);\n")}, 2, "atomic_load"),
    ("gcc's atomics", {"net/a.c": c("__atomic_store_n(&y, 1, 0);\n")}, 2, "__atomic_store_n"),
    ("stdatomic", {"dns/a.c": c("#include <stdatomic.h>\n")}, 2, "stdatomic"),
    ("atomics in their places", {
        "queue/retry.c": c("_Atomic int x;\n"), "engine/base/stat.h": HEADER + "_Atomic int x;\n",
        "bench/a.c": c("_Atomic int x;\n"),
    }, None, None),
    ("atomics in a comment", {"queue/a.c": c("/* _Atomic is not for us */\n")}, None, None),
    # Calls.
    *[
        (f"{call}() in the product", {"engine/a.c": c(f"int x = {call}(y);\n")}, 2, f"{call}() is")
        for call in (
            "strcpy strcat sprintf vsprintf gets strtok atoi atol strtoul rand srand time "
            "gettimeofday clock_gettime getrandom alloca setjmp longjmp signal system popen usleep "
            "sleep nanosleep pthread_mutex_lock pthread_create localtime abort"
        ).split()
    ],
    ("clock_gettime in its room", {
        "engine/base/clock.c": c("int x = clock_gettime(0, 0);\n"),
    }, None, None),
    ("getrandom in its room", {
        "engine/base/random.c": c("int x = getrandom(a, 1, 0);\n"),
    }, None, None),
    ("threads in boot", {"engine/boot.c": c("int x = pthread_create(a);\n")}, None, None),
    ("sleep in a test", {"tests/a.c": c("int x = sleep(1);\n")}, 2, "sleep() is banned"),
    ("a member of that name", {"engine/a.c": c("x = clock->time(y);\nz = w.signal(y);\n")}, None,
     None),
    ("part of a name", {"engine/a.c": c("x = run_time(y);\n")}, None, None),
    ("a call in a string", {"engine/a.c": c('x = "sleep(1)";\n')}, None, None),
    ("a call behind a quote character", {
        "engine/a.c": c("x = '\"'; y = sleep(1); z = '\"';\n"),
    }, 2, "sleep() is banned"),
    ("queue prints", {"queue/a.c": c('int x = printf("x");\n')}, 2, "queue returns, never prints"),
    ("engine prints", {"engine/main.c": c('int x = printf("x");\n')}, None, None),
    # Lengths.
    ("function of 70 lines", {"queue/a.c": c(function(70))}, None, None),
    ("function of 71 lines", {"queue/a.c": c(function(71))}, 2, "long_one has 71 lines"),
    ("two short functions", {"queue/a.c": c(function(50) + "\n" + function(50))}, None, None),
    ("file of 1000 lines", {"queue/a.c": c("int x;\n" * 999)}, None, None),
    ("file of 1001 lines", {"queue/a.c": c("int x;\n" * 1000)}, 1, "1001 lines in the file"),
    # Lines.
    ("100 columns", {"queue/a.c": c("int " + "x" * 95 + ";\n")}, None, None),
    ("101 columns", {"queue/a.c": c("int " + "x" * 96 + ";\n")}, 2, "101 columns"),
    ("101 columns of comment", {"queue/a.c": c("/* " + "x" * 95 + " */\n")}, 2, "101 columns"),
    ("a tab", {"queue/a.c": c("int\tx;\n")}, 2, "a tab"),
    ("a merge", {"queue/a.c": c("/*\n" + "<" * 7 + " HEAD\n */\n")}, 3, "left of a merge"),
    ("blanks at the end", {"queue/a.c": c("int x; \n")}, 2, "blanks at the end"),
    ("no newline at the end", {"queue/a.c": c("int x;")}, 2, "no newline at the end"),
    *[
        (word, {"queue/a.c": c(f"/* {word}: later */\n")}, 2, word)
        for word in ("TODO", "FIXME", "XXX")
    ],
    ("six of them", {"queue/a.c": c('x = "ramjet-XXXXXX";\n')}, None, None),
    # Files' heads.
    ("no licence", {"queue/a.c": "int x;\n"}, 1, "SPDX"),
    ("no licence in Python", {"bench/a.py": "x = 1\n"}, 1, "SPDX"),
    ("licence in Python", {
        "bench/a.py": "#!/usr/bin/env python3\n" + tidy.SPDX_PYTHON + "\nx = 1\n",
    }, None, None),
    ("no pragma once", {"queue/a.h": SPDX + "/* a: it. */\nint x;\n"}, 1, "#pragma once"),
    ("no manual page", {"queue/a.h": SPDX + "#pragma once\n"}, 2, "manual page"),
    # Shape.
    ("typedef of a struct", {"queue/a.c": c("typedef struct foo foo_t;\n")}, 2, "typedef only"),
    ("typedef of a struct with body", {
        "queue/a.c": c("typedef struct {\n    int x;\n} foo_t;\n"),
    }, 2, "typedef only"),
    ("typedef of a function pointer", {
        "queue/a.c": c("typedef struct disk *(*disk_create)(int x);\n"),
    }, None, None),
    ("line comment", {"queue/a.c": c("int x; // why\n")}, 2, "comments are /* */"),
    ("address in a string", {"queue/a.c": c('x = "https://example.com";\n')}, None, None),
    ("address in a comment", {"queue/a.c": c("/* https://example.com */\n")}, None, None),
    ("if without braces", {
        "queue/a.c": c("int f(void)\n{\n    if (a)\n        b();\n}\n"),
    }, 4, "if without braces"),
    ("else without braces", {
        "queue/a.c": c("int f(void)\n{\n    if (a) {\n    } else\n        b();\n}\n"),
    }, 5, "else without braces"),
    ("for without braces", {
        "queue/a.c": c("int f(void)\n{\n    for (;;)\n        b();\n}\n"),
    }, 4, "for without braces"),
    ("braces, ensure, do, else if", {
        "queue/a.c": c(
            "int f(void)\n{\n    if (a) ensure(b);\n    if (a(b)) {\n    } else if (c) {\n    }\n"
            "    do {\n    } while (x);\n    while (y()) {\n    }\n}\n"
            "#define LOOP(x) \\\n    do {  \\\n    } while (0)\n"
        ),
    }, None, None),
    ("brace behind the signature", {
        "queue/a.c": c("int f(void) {\n}\n"),
    }, 2, "own line"),
    ("goto forward", {
        "queue/a.c": c("int f(void)\n{\n    goto out;\nout:\n    return;\n}\n"),
    }, None, None),
    ("goto backward", {
        "queue/a.c": c("int f(void)\n{\nagain:\n    goto again;\n}\n"),
    }, 5, "forward only"),
    ("goto two labels", {
        "queue/a.c": c("int f(void)\n{\n    goto a;\n    goto b;\na:\n    x();\nb:\n    y();\n}\n"),
    }, 2, "one cleanup label"),
    # Unit tests.
    ("test of no room", {"tests/unit/nowhere/test_a.c": c("")}, 1, "mirrors no room"),
    ("test in the wrong room", {
        "tests/unit/dns/test_a.c": c('#include "queue/a.h"\n'), "queue/a.h": HEADER,
        "tests/unit/dns/meson.build": "['a']\n",
    }, 1, "includes nothing of dns"),
    ("test that nobody runs", {
        "tests/unit/queue/test_a.c": c('#include "queue/a.h"\n'), "queue/a.h": HEADER,
        "tests/unit/queue/meson.build": "['b', 'ab']\n",
    }, 1, "does not run it"),
    ("test in its place", {
        "tests/unit/queue/test_a.c": c('#include "queue/a.h"\n'), "queue/a.h": HEADER,
        "tests/unit/queue/meson.build": "foreach name : ['a', 'b']\n",
    }, None, None),
    # The map of modules.
    ("module that the map does not name", {
        "queue/a.c": c(""), "queue/b.c": c(""),
        "docs/ARCHITECTURE.md": "a\n## Every module\n| module | what |\n|---|---|\n| b | c |\n",
    }, 1, "has no a"),
    ("module that is gone", {
        "queue/a.c": c(""),
        "docs/ARCHITECTURE.md": "## Every module\n| a | x |\n| b, _c | y |\n",
    }, 3, "is no module"),
    ("map that is whole", {
        "queue/a.c": c(""), "queue/a_b.c": c(""), "queue/a_c_d.c": c(""),
        "docs/ARCHITECTURE.md": "## Every module\n| a: a_b, _c_d | x |\n",
    }, None, None),
]

# Headers that gcc has to see: the same shape of rows.
COMPILE_ROWS = [
    ("header alone", {
        "queue/a.h": HEADER + "#include <stdint.h>\nuint32_t f(void);\n",
    }, None, None),
    ("header that leans on others", {"queue/a.h": HEADER + "uint32_t f(void);\n"}, 1, "alone"),
    ("header that includes ours", {
        "queue/a.h": HEADER + '#include "engine/base/ensure.h"\nstruct b { int x; };\n',
    }, None, None),
]


def findings_of(files: dict[str, str], with_compile: bool) -> list[tidy.Finding]:
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        for name, text in {**EMPTY_BASE, **files}.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return tidy.find_all(root, with_compile=with_compile)


def row_passes(row: tuple, with_compile: bool) -> bool:
    name, files, line, piece = row
    findings = findings_of(files, with_compile)
    if piece is None:
        fits = not findings
    else:
        fits = any(finding.line == line and piece in finding.text for finding in findings)
    if not fits:
        print(f"{name}: wanted {piece!r} at line {line}, got {findings}")
    return fits


def exceptions_pass() -> bool:
    """A named exception lets the long one through, and is itself a breach when nothing is long."""
    long_files = {"queue/a.c": c(function(90))}
    tidy.LONG_FUNCTIONS["queue/a.c:long_one"] = "for the test"
    try:
        is_excepted = not findings_of(long_files, False)
        stale = findings_of({"queue/a.c": c(function(10))}, False)
    finally:
        del tidy.LONG_FUNCTIONS["queue/a.c:long_one"]
    fits = is_excepted and len(stale) == 1 and "drop the exception" in stale[0].text
    if not fits:
        print(f"exceptions: {is_excepted}, {stale}")
    return fits


def program_passes() -> bool:
    """The program itself: exit status, one line a breach, the count of assertions."""
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        source = root / "queue" / "a.c"
        source.parent.mkdir()
        good_text = c("int f(void)\n{\n    ensure(x);\n    ensure(y);\n}\n")
        source.write_text(good_text, encoding="utf-8")
        good, good_text = run_main(root)
        source.write_text(c("int\tx;\n"), encoding="utf-8")
        bad, bad_text = run_main(root)
    fits = good == 0 and "queue: 2 ensures in 1 functions, 2.00" in good_text
    fits = fits and bad == 1 and "queue/a.c:2: a tab\n" in bad_text
    if not fits:
        print(f"program: {good} {good_text!r} {bad} {bad_text!r}")
    return fits


def run_main(root: pathlib.Path) -> tuple[int, str]:
    output = io.StringIO()
    arguments = sys.argv
    sys.argv = ["tidy", "--root", str(root), "--no-compile"]
    try:
        with contextlib.redirect_stdout(output):
            status = tidy.main()
    finally:
        sys.argv = arguments
    return status, output.getvalue()


def main() -> int:
    results = [row_passes(row, False) for row in ROWS]
    results += [row_passes(row, True) for row in COMPILE_ROWS]
    results += [exceptions_pass(), program_passes()]
    failed = results.count(False)
    print(f"{len(results) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
