# SPDX-License-Identifier: Apache-2.0
"""queue: one million recipients, or --size: how fast they are scanned, what they cost in memory
while they wait (pending, then deferred), how long a start takes that finds them deferred, how many
deferrals the retry wheel carries, and whether a message costs the same however many there are.
"""

import glob
import os
import shutil
import time

from measure import machine
from measure.engine import Engine
from measure.programs import Sink, feed, wheel
from measure.report import median

ACCEPTED = "ramjet_accepted_total"
WAITING_RETRY = 'ramjet_queue_recipients{state="retry"}'
COST_ROUNDS = 5


def waiting(bench, name, recipients, share, route, place=None):
    """Memory a recipient, and scan rate, of a batch that cannot leave. `place`: the metric that
    tells that all are where they are to be; then the engine is killed and started again as well."""
    timeout_s = 120 + recipients / 20000
    with Sink(bench.build, threads=machine.cores(), share=share) as sink, \
            Engine(bench.build, bench.work, sink.address, route=route, name=name) as engine:
        staged = feed(bench.build, engine.spool, name, recipients, size=1024, vars=2, domains=1000)
        time.sleep(1)
        before = engine.rss()
        submitted_ns = engine.submit(staged)
        engine.wait_for(lambda: engine.metrics()[ACCEPTED] == recipients, timeout_s,
                        "accept the batch")
        scan_s = (time.monotonic_ns() - submitted_ns) / 1e9
        row = {"recipients": recipients, "scan_per_s": recipients / scan_s}
        if place:
            engine.wait_for(lambda: engine.metrics()[place] == recipients, timeout_s,
                            f"settle {name}")
        time.sleep(2)
        row["bytes_per_recipient"] = (engine.rss() - before) / recipients
        engine.kill()  # an orderly stop is not what is measured here
        if place:
            started = time.monotonic()
            engine.spawn()
            engine.wait_for(lambda: engine.metrics()[place] == recipients, timeout_s,
                            f"recover {name}")
            row["restart_s"] = time.monotonic() - started
            engine.kill()
        shutil.rmtree(engine.spool)
    bench.report.run(case=name, **row)
    return row


def cost(bench, engine, recipients, times, name, idle_per_s):
    """CPU time a message of `times` batches, one after the other, in us."""
    batches = [f"{name}-{i}" for i in range(times)]
    staged = [feed(bench.build, engine.spool, batch, recipients, size=1024, vars=2, domains=100)
              for batch in batches]
    cpu_ns, started = engine.cpu_ns(), time.monotonic()
    for batch, path in zip(batches, staged):
        engine.submit(path)
        engine.wait_done(batch, 60 + recipients / 10000)
    idle_ns = idle_per_s * (time.monotonic() - started)
    cost_us = (engine.cpu_ns() - cpu_ns - idle_ns) / 1e3 / (recipients * times)
    for path in glob.glob(os.path.join(engine.spool, "done", "*", name + "-*")):
        shutil.rmtree(path)  # the disk is for the next one
    bench.report.run(case="cost", recipients=recipients, batches=times, cpu_us_per_message=cost_us)
    return cost_us


def costs(bench, sizes, rounds, last):
    """CPU time a message at each size, in one warm engine, without what it uses when idle. The
    sizes take turns, since a machine that others share is never twice the same; medians. `last`: a
    size that is measured once, between the rounds."""
    results = {recipients: [] for recipients, _ in sizes}
    with Sink(bench.build, threads=machine.cores()) as sink, \
            Engine(bench.build, bench.work, sink.address, connections=16, name="costs",
                   route="connection-idle = 60s") as engine:
        idle_ns = engine.cpu_ns()
        time.sleep(2)
        idle_per_s = (engine.cpu_ns() - idle_ns) / 2
        cost(bench, engine, 100000, 1, "warm", idle_per_s)  # memory, connections
        for turn in range(rounds):
            for recipients, times in sizes:
                results[recipients].append(cost(bench, engine, recipients, times,
                                                f"cost-{turn}-{recipients}", idle_per_s))
            if last and turn == rounds // 2:
                results[last] = [cost(bench, engine, last, 1, "cost-last", idle_per_s)]
        engine.stop()
    return {recipients: median(values) for recipients, values in results.items()}


def run(bench):
    recipients = bench.size or (300000 if bench.quick else 1000000)
    sizes = [(1000, 200), (100000, 3), (1000000, 1)]
    if bench.quick:
        sizes = [(1000, 20), (10000, 3), (100000, 1)]
    last = recipients if recipients > sizes[-1][0] else 0
    rounds = 1 if bench.quick or bench.size else 3
    report = bench.report
    pending, deferred = [], []
    for i in range(rounds):
        pending.append(waiting(bench, f"pending-{i}", recipients, [], 'rate = "1/h"'))
        deferred.append(waiting(bench, f"deferred-{i}", recipients, ["rcpt=451:100%"],
                                "retry-first = 1h retry-jitter = 0", WAITING_RETRY))
    turns = [wheel(bench.build, recipients, machine.cores()) for _ in range(rounds)]
    cost_us = costs(bench, sizes, 1 if bench.quick else COST_ROUNDS, last)
    report.figure("scan_per_s", median([row["scan_per_s"] for row in pending + deferred]),
                  ">= 1,000,000")
    memory = {"pending": median([row["bytes_per_recipient"] for row in pending]),
              "deferred": median([row["bytes_per_recipient"] for row in deferred])}
    report.figure("bytes_per_recipient", max(memory.values()), "<= 64")
    report.figure("cost_spread", max(cost_us.values()) / min(cost_us.values()) - 1, "<= 0.15")
    report.figure("restart_s", median([row["restart_s"] for row in deferred]), "<= 10 with 10M")
    report.figure("retry_per_s", median([turn["per_core_per_s"] for turn in turns]),
                  ">= 2,000,000 a core")
    report.figure("bytes_per_recipient_pending", memory["pending"])
    report.figure("bytes_per_recipient_deferred", memory["deferred"])
    for size, value in cost_us.items():
        report.figure(f"cpu_us_per_message_{size}", value)
    report.note("scan_per_s counts from the rename into in/new until the engine says that all are "
                "accepted: claim, scan, check and the accept record on stable storage. "
                "bytes_per_recipient is the worse of pending and deferred: growth of the engine's "
                "resident memory from idle, divided by the recipients, read-ahead and all tables "
                "included. cost_spread is how much more CPU time a message takes at the dearest "
                "size than at the cheapest. restart_s: from the start after a kill, with all of "
                "them deferred, until all are in the retry wheel again. retry_per_s: "
                "bench/ramjet-wheel, in and out, a core; none was given out in a wrong second.")
