# SPDX-License-Identifier: Apache-2.0
"""Crash torture of the real program (T1, T2, T4): kill -9 at random times under load, and at named
points: the first, second and tenth time that a thread of it makes a system call that changes the
spool.

torture.py BUILD [--kills N] [--seed N] [--no-points]

Each series is one spool and one sink: kills and restarts, then all that was submitted is drained
and judged by the oracle of tests/scenario/test_crash.py, against what the sink wrote down before
each of its 250s. A point is reached by strace, which sends SIGKILL when the call comes.

The last line is one JSON object: kills, points, lost, duplicates, duplicates_outside, altered.
"""
import argparse
import json
import os
import random
import shutil
import signal
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "scenario"))
import lib  # noqa: E402
import test_crash  # noqa: E402
from lib import Engine, Place, Sink, check, equal, finish, route, wait_for  # noqa: E402

SERIES_KILLS = 20
POINTS = ["openat", "mkdirat", "renameat,renameat2", "unlinkat", "fsync", "fdatasync", "ftruncate",
          "pwrite64", "io_uring_enter"]
TIMES = [1, 2, 10]
POINT_S = 4
SPOOL = ('spool {{ path = "{}" free-space-min = 1M journal-segment = 64K journal-segments = 2 }}\n')
# How the sink misbehaves in a series, and whether replies get lost by it.
SINKS = [(["--share", "rcpt=451:2%", "--share", "dot=421:0.2%"], False),
         (["--share", "dot=lost:1%", "--share", "dot=reset:0.5%"], True),
         ([], False)]


def make_engine(place, sink):
    return Engine(place, routes=route("*", sink.port, connections=16, **test_crash.FAST),
                  extra=SPOOL.format(place.join("engine.spool"))).start()


def submit(engine, number, chance, submitted):
    directory, names = test_crash.make_round(engine, number, chance)
    submitted[engine.submit(directory)[:-len(".batch")]] = names


def die(engine, kills):
    kills.append(time.monotonic_ns())
    engine.kill()


def point(engine, call, count, kills):
    """The engine ends at that call; False: it never came."""
    engine.spawn(wrap=["strace", "-f", "-qq", "-o", "/dev/null",
                       "-e", f"trace={call}", "-e", f"inject={call}:signal=SIGKILL:when={count}"])
    deadline = time.monotonic() + POINT_S
    while engine.is_alive() and time.monotonic() < deadline:
        time.sleep(lib.LOOK_S)
    is_dead = not engine.is_alive()
    kills.append(time.monotonic_ns())
    if not is_dead:
        kill_traced(engine.process.pid)
    engine.process.wait(lib.LONG_S)
    return is_dead


def kill_traced(strace):
    """strace itself would leave the program alone."""
    with open(f"/proc/{strace}/task/{strace}/children", encoding="ascii") as file:
        for child in file.read().split():
            os.kill(int(child), signal.SIGKILL)


def judge(engine, sink, submitted, kills, has_lost, totals):
    counts = test_crash.oracle(engine, sink, submitted, kills, has_lost)
    for key, count in counts.items():
        totals[key] += count
    equal(engine.terminate(60), 0, "exit status")
    equal(os.listdir(os.path.join(engine.spool, "active")), [], "nothing is left in active/")
    sink.stop()


def random_series(number, kills_count, seed, totals):
    options, has_lost = SINKS[number % len(SINKS)]
    chance = random.Random(seed * 1000 + number)
    with Place("torture") as place:
        sink = Sink(place, *options)
        engine = make_engine(place, sink)
        submitted, kills = {}, []
        for round_number in range(kills_count):
            if round_number % 2 == 0:
                submit(engine, round_number, chance, submitted)
            # The moment of the kill is what is tried out here: from a start to the end of a batch.
            time.sleep(chance.choice([0.02, 0.1, 0.3, 1.0]) * chance.random())
            die(engine, kills)
            engine.spawn()
        wait_for(engine.is_up, "up after the last kill")
        judge(engine, sink, submitted, kills, has_lost, totals)
        totals["kills"] += len(kills)


def point_series(call, seed, totals):
    chance = random.Random(seed)
    with Place("torture-point") as place:
        sink = Sink(place)
        engine = make_engine(place, sink)
        submitted, kills = {}, []
        reached = 0
        for number, count in enumerate(TIMES):
            submit(engine, number, chance, submitted)
            die(engine, kills)
            reached += point(engine, call, count, kills)
        engine.start()
        judge(engine, sink, submitted, kills, False, totals)
        totals["kills"] += len(kills)
        totals["points"] += reached
        print(f"{call}: {reached} of {len(TIMES)}", flush=True)
        return reached


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build")
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-points", action="store_true")
    options = parser.parse_args()
    totals = {"kills": 0, "points": 0, "lost": 0, "duplicates": 0, "duplicates_outside": 0,
              "altered": 0}
    if not options.no_points and shutil.which("strace"):
        reached = sum(point_series(call, options.seed, totals) for call in POINTS)
        check(reached >= len(POINTS) * len(TIMES) // 2, "most points are reached", reached)
    number = 0
    while totals["kills"] < options.kills:
        count = min(SERIES_KILLS, options.kills - totals["kills"])
        random_series(number, count, options.seed, totals)
        number += 1
        print(f"{totals}", flush=True)
    status = finish()
    print(json.dumps({"bench": "torture", "seed": options.seed, **totals}))
    return status


if __name__ == "__main__":
    sys.exit(main())
