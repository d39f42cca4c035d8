#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""docs/CONFORMANCE.md tells the truth about the tree: each requirement stands there once, what is
done has code and tests that are there, and each test names the requirements it is said to hold.

test_conformance.py [ROOT]
"""
import pathlib
import re
import sys

# As many of each letter as there are; of servers' habits 3.1 to 3.11.
COUNTS = {"A": 35, "B": 12, "C": 12, "D": 7, "E": 5, "F": 5, "G": 9, "H": 10, "I": 8, "J": 6,
          "K": 2, "L": 6, "M": 1, "N": 9, "P": 4, "3.": 11, "V": 8, "T": 12}
ID = re.compile(r"[A-Z]\d+|3\.\d+")


def rows(text):
    """(line number, cells) of each row of a table but its head."""
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("|") and not line.startswith(("|---", "| id |")):
            yield number, [cell.strip() for cell in line.strip("|").split("|")]


def is_named(one, text):
    """In a comment (A5, V1-V3) or in a name (test_A5_..., test_3_6_...); no byte of an address."""
    names = [one, one.replace(".", "_") + "(?=_)"] if "." in one else [one]
    return any(re.search(rf"(?<![A-Za-z0-9\\=%.]){name}(?![A-Za-z0-9]|\.\d)", text)
               for name in (re.escape(one), *names[1:]))


def check(page, read):
    """What is wrong with the page; read(path) is a file's text, None when there is none."""
    wrong, seen = [], {}
    for number, cells in rows(page):
        ids = cells[0].split(", ")
        for one in ids:
            if not ID.fullmatch(one):
                wrong.append(f"{number}: {one!r} is no number of a requirement")
            if one in seen:
                wrong.append(f"{number}: {one} stands in line {seen[one]} already")
            seen[one] = number
        if len(cells) == 4:
            wrong += [f"{number}: {what}" for what in check_row(ids[0], cells, read)]
        elif len(cells) != 2:
            wrong.append(f"{number}: neither four cells nor two")
    wanted = [f"{letter}{i}" for letter, count in COUNTS.items() for i in range(1, count + 1)]
    wrong += [f"{one} is missing" for one in wanted if one not in seen]
    wrong += [f"{one} is unknown" for one in seen if one not in wanted]
    return wrong


def check_row(one, cells, read):
    for path in cells[2].split(", "):
        if read(path) is None:
            yield f"{one}: there is no {path}"
    for path in cells[3].split(", "):
        text = read(f"tests/{path}")
        if text is None:
            yield f"{one}: there is no tests/{path}"
        elif not is_named(one, text):
            yield f"{one}: tests/{path} does not name it"


# A line of a page, what the files are, a piece of what is complained of (None: nothing).
SELF = [
    ("| A1 | x | a.c | t.c |", {"a.c": "", "tests/t.c": "/* A1 */"}, None),
    ("| A1 | x | a.c | t.c |", {"tests/t.c": "A1"}, "there is no a.c"),
    ("| A1 | x | a.c | t.c |", {"a.c": ""}, "there is no tests/t.c"),
    ("| A1 | x | a.c | t.c |", {"a.c": "", "tests/t.c": "A11, \\xA1, =A1, A1b"}, "does not name"),
    ("| A1 | x | a.c | t.c |", {"a.c": "", "tests/t.c": "void test_A1_x(void)"}, None),
    ("| 3.1 | x | a.c | t.c |", {"a.c": "", "tests/t.c": "3.10, 3.1.2, test_3_11_x"}, "name"),
    ("| 3.1 | x | a.c | t.c |", {"a.c": "", "tests/t.c": "test_3_1_x"}, None),
    ("| A1, A1 | later |", {}, "already"),
    ("| A0 | later |", {}, "A0 is unknown"),
    ("| a1 | later |", {}, "is no number"),
    ("| A1 | x | y |", {}, "neither"),
]


def check_self():
    for line, files, piece in SELF:
        found = [words for words in check(line, files.get) if not words.endswith("is missing")]
        if (piece is None) != (not found) or (piece and not any(piece in words for words in found)):
            yield f"of itself: {line}: {found}, wanted {piece}"


def main():
    root = pathlib.Path(sys.argv[1] if sys.argv[1:] else pathlib.Path(__file__).parents[1])

    def read(path):
        return (root / path).read_text("utf-8") if (root / path).is_file() else None

    wrong = [f"docs/CONFORMANCE.md:{words}" for words in check(read("docs/CONFORMANCE.md"), read)]
    wrong += check_self()
    print("\n".join([*wrong, f"{len(wrong)} wrong"]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
