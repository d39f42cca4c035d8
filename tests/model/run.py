# SPDX-License-Identifier: Apache-2.0
"""Checks journal.pml in every state that can be reached, and that each planted error is found."""
import os
import re
import shutil
import subprocess
import sys
import tempfile

MODEL = os.path.join(os.path.dirname(os.path.abspath(__file__)), "journal.pml")
BUGS = 15
STATES_MIN = 200000


def states_and_errors(work, bug):
    """How many states were seen, how many errors, and which came first."""
    for command in (["spin", f"-DBUG={bug}", "-a", MODEL],
                    ["cc", "-O0", "-w", "-DSAFETY", "-DNOREDUCE", "-o", "pan", "pan.c"]):
        subprocess.run(command, cwd=work, check=True, stdout=subprocess.DEVNULL)
    told = subprocess.run(["./pan", "-m1000000", "-w20"], cwd=work, check=True,
                          capture_output=True, text=True).stdout
    states = int(re.search(r"(\d+) states, stored", told).group(1))
    errors = int(re.search(r"errors: (\d+)", told).group(1))
    if "max search depth too small" in told:
        raise RuntimeError("the search was cut short")
    first = re.search(r"pan:1: (.*)", told)
    return states, errors, first.group(1) if first else ""


def main():
    if shutil.which("spin") is None:
        print("skipped: there is no spin; ./dev deps installs it")
        return 77
    failed = 0
    with tempfile.TemporaryDirectory(prefix="ramjet-model-") as work:
        for bug in range(BUGS + 1):
            states, errors, first = states_and_errors(work, bug)
            is_right = errors > 0 if bug else errors == 0 and states >= STATES_MIN
            failed += not is_right
            print(f"{'planted error ' + str(bug) if bug else 'the model'}: {states} states, "
                  f"{errors} errors {first}{'' if is_right else ' WRONG'}")
    print(f"{BUGS + 1 - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
