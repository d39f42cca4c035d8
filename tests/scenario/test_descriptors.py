# SPDX-License-Identifier: Apache-2.0
"""With few descriptors thousands of batches come and leave: some wait, none fails.

test_descriptors.py BUILD. The engine may have 256 files open, as an operator's shell may give it.
"""
import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import Engine, Place, Sink, check, equal, route, run_cases, wait_for  # noqa: E402

FILES = 256
BATCHES = 5000
WRAP = ("prlimit", f"--nofile={FILES}:{FILES}", "--")


def drop(engine, name, files):
    """A batch whose stream lies in so many files, a message in each."""
    path = engine.making(name)
    for i in range(files):
        with open(os.path.join(path, f"messages-{i}.bsmtp"), "w", encoding="utf-8") as file:
            file.write(f"MAIL FROM:<a@sender.test>\nRCPT TO:<{name}-{i}@d{i % 7}.test>\nDATA\n"
                       "From: <a@sender.test>\nSubject: few\n\nFew.\n.\n")
    with open(os.path.join(path, "batch.json"), "w", encoding="utf-8") as file:
        json.dump({"v": 1, "kind": "bsmtp"}, file)
    engine.submit(path)


def ended(engine, place):
    root = os.path.join(engine.spool, place)
    return sum(len(os.listdir(os.path.join(root, day))) for day in os.listdir(root))


def run(wanted, drop_all):
    with Place("descriptors") as place:
        sink = Sink(place)
        engine = Engine(place, routes=route("*", sink.port, connections=20),
                        extra="limits { sessions = 40 }\n").start(WRAP)
        files = drop_all(engine)
        wait_for(lambda: ended(engine, "done") + ended(engine, "failed") == wanted,
                 "all batches end", 400)
        equal(ended(engine, "failed"), 0, "none fails")
        equal(len(os.listdir(os.path.join(engine.spool, "hold"))), 0, "none waits for people")
        taken = sink.taken()
        equal(len(taken), files, "all were sent")
        check(all(count == 1 for count in taken.values()), "and none twice")
        equal(engine.terminate(), 0, "exit status")


def case_thousands_of_small_batches():
    def drop_all(engine):
        for i in range(BATCHES):
            drop(engine, f"b{i}", 1)
        return BATCHES
    run(BATCHES, drop_all)


def case_batches_of_many_files():
    """Each of them wants a quarter of all descriptors."""
    def drop_all(engine):
        for i in range(12):
            drop(engine, f"b{i}", 64)
        return 12 * 64
    run(12, drop_all)


if __name__ == "__main__":
    sys.exit(run_cases([case_thousands_of_small_batches, case_batches_of_many_files]))
