# SPDX-License-Identifier: Apache-2.0
"""What a measurement tells: a table for people, files in bench/results/, one flat JSON line."""

import json
import os
import statistics


def median(values):
    return statistics.median(values)


def percentile(values, share):
    """The smallest value that `share` of all values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, min(len(ordered) - 1, -(-len(ordered) * share // 100) - 1))]


def _text(value):
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


class Report:
    """Figures in the order they were added; `want` is the goal of a figure, for people."""

    def __init__(self, name, facts):
        self.name = name
        self.facts = facts
        self.figures = {}
        self.wants = {}
        self.notes = []
        self.runs = []
        self.rows = []

    def figure(self, name, value, want=""):
        self.figures[name] = value
        self.wants[name] = want

    def note(self, text):
        self.notes.append(text)

    def run(self, **values):
        """One raw measurement; printed at once, so that a long bench shows that it lives."""
        self.runs.append(values)
        print("  " + "  ".join(f"{k} {_text(v)}" for k, v in values.items()), flush=True)

    def row(self, **values):
        """A run that is also a line of the table in the .md; columns in the order they came."""
        self.rows.append(values)
        self.run(**values)

    def _rows(self):
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        lines = ["| " + " | ".join(columns) + " |", "|---" + "|---:" * (len(columns) - 1) + "|"]
        for row in self.rows:
            cells = [_text(row[name]) if name in row else "" for name in columns]
            lines.append("| " + " | ".join(cells) + " |")
        return "\n".join(lines) + "\n\n"

    def table(self):
        width = max(len(name) for name in self.figures)
        lines = [f"{name:<{width}}  {_text(value):>14}  {self.wants[name]}".rstrip()
                 for name, value in self.figures.items()]
        return "\n".join(lines)

    def write(self, directory):
        os.makedirs(directory, exist_ok=True)
        stem = os.path.join(directory, f"{self.name}-{self.facts['date'][:10]}")
        whole = {"bench": self.name, "figures": self.figures, "wanted": self.wants,
                 "machine": self.facts, "notes": self.notes, "runs": self.runs}
        with open(stem + ".json", "w", encoding="utf-8") as file:
            json.dump(whole, file, indent=1)
            file.write("\n")
        with open(stem + ".md", "w", encoding="utf-8") as file:
            file.write(f"# {self.name}, {self.facts['date']}\n\n`./dev bench {self.name}`\n\n")
            file.write(self._rows() if self.rows else "")
            file.write("| figure | value | wanted |\n|---|---:|---|\n")
            for name, value in self.figures.items():
                file.write(f"| `{name}` | {_text(value)} | {self.wants[name]} |\n")
            file.write("\n" + "".join(f"- {note}\n" for note in self.notes))
            file.write("\nMachine: " + ", ".join(f"{k} {v}" for k, v in self.facts.items()) + ".\n")
            file.write("\nSingle runs:\n\n```\n")
            for run in self.runs:
                file.write("  ".join(f"{k}={_text(v)}" for k, v in run.items()) + "\n")
            file.write("```\n")
        return stem

    def last_line(self):
        return json.dumps({"bench": self.name, **self.figures})
