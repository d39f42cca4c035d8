#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs meson suites; the last line counts the test programs: "N passed, N failed, N skipped"."""
import argparse
import json
import os
import subprocess
import sys


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True)
    parser.add_argument("--title", default="tests")
    parser.add_argument("--suite", action="append", default=[])
    parser.add_argument("--multiply", default="4", help="of all time limits")
    parser.add_argument("tests", nargs="*", help="by name, instead of suites")
    options = parser.parse_args()
    command = ["meson", "test", "-C", options.build, "--print-errorlogs", "--no-rebuild"]
    command += ["--timeout-multiplier", options.multiply]
    for suite in options.suite:
        command += ["--suite", suite]
    command += options.tests
    environment = dict(os.environ, ASAN_OPTIONS="detect_leaks=1", TSAN_OPTIONS="halt_on_error=1")
    status = subprocess.run(command, env=environment).returncode
    counts = {"OK": 0, "SKIP": 0}
    total = 0
    log = os.path.join(options.build, "meson-logs", "testlog.json")
    with open(log, encoding="utf-8") as lines:
        for line in lines:
            result = json.loads(line)["result"]
            total += 1
            counts[result] = counts.get(result, 0) + 1
    failed = total - counts["OK"] - counts["SKIP"]
    print(f"{options.title}: {counts['OK']} passed, {failed} failed, {counts['SKIP']} skipped")
    if total == 0:
        print("no test was found: the suites are named wrongly", file=sys.stderr)
        status = 1
    sys.exit(1 if failed or status else 0)


if __name__ == "__main__":
    main()
