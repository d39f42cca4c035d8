# SPDX-License-Identifier: Apache-2.0
"""throughput: the engine against the blaster against the same sink, and the sink against no sink.

All programs get as many threads as there are cores and share the cores as the system decides: the
sink is part of every run, and what it costs is the same for the engine and for the blaster.
"""

import shutil

from measure import machine
from measure.engine import Engine
from measure.programs import Sink, feed, limit
from measure.report import median

CONNECTIONS = 64


def engine_run(bench, name, host, recipients, batches=1, timeout_s=120, **options):
    """Batches through a fresh engine: from the rename of the first into in/new until the last is in
    done/."""
    with Engine(bench.build, bench.work, host, connections=CONNECTIONS, name=name) as engine:
        names = [f"{name}-{i}" for i in range(batches)]
        staged = [feed(bench.build, engine.spool, batch, recipients // batches, seed=i + 1,
                       **options) for i, batch in enumerate(names)]
        cpu_ns = engine.cpu_ns()
        started_ns = min(engine.submit(path) for path in staged)
        ends = [engine.wait_done(batch, timeout_s) for batch in names]
        cpu_ns = engine.cpu_ns() - cpu_ns
        engine.stop()
        shutil.rmtree(engine.spool)
    ended_ns = max(end for end, _ in ends)
    delivered = sum(summary["delivered"] for _, summary in ends)
    if delivered != recipients:
        bench.report.note(f"{name}: {delivered} of {recipients} delivered")
    return {"msgs_per_s": recipients / ((ended_ns - started_ns) / 1e9),
            "cpu_us_per_message": cpu_ns / 1e3 / recipients}


def round_trip(bench, name, number, recipients, blasts, size, **options):
    """The engine, then `blasts` messages from the blaster over the engine's transport, over a bare
    ring, and over a bare ring to a sink that does not parse."""
    threads = machine.cores()
    with Sink(bench.build, threads=threads) as sink:
        engine = engine_run(bench, f"{name}-{number}", sink.address, recipients, size=size,
                            **options)
        totals = sink.stop()
    on_wire = round(totals["bytes"] / max(1, totals["messages"])) - 3
    rates = {}
    for kind, raw, no_parse in (("net", False, False), ("raw", True, False), ("blind", True, True)):
        with Sink(bench.build, threads=threads, no_parse=no_parse) as sink:
            rates[kind] = limit(bench.build, sink.address, blasts, on_wire, CONNECTIONS, threads,
                                raw=raw)["msgs_per_s"]
    row = {"size": on_wire, "engine": engine["msgs_per_s"], "engine_at_sink": totals["msgs_per_s"],
           "limit_net": rates["net"], "limit_raw": rates["raw"], "limit_no_parse": rates["blind"],
           "cpu_us_per_message": engine["cpu_us_per_message"]}
    bench.report.run(case=name, round=number, **row)
    row["limit"] = max(rates["net"], rates["raw"])
    row["ratio"] = row["engine"] / row["limit"]
    row["ratio_at_sink"] = row["engine_at_sink"] / row["limit"]
    row["ratio_sink"] = rates["raw"] / rates["blind"]
    return row


def run(bench):
    rounds = 1 if bench.quick else 5
    merge = {"recipients": 100000, "blasts": 150000} if bench.quick else \
        {"recipients": 300000, "blasts": 300000}
    bsmtp = {"recipients": 8000, "blasts": 20000, "batches": 16} if bench.quick else \
        {"recipients": 30000, "blasts": 60000, "batches": 30}
    small = [round_trip(bench, "merge", i, size=1024, vars=2, domains=1000, **merge)
             for i in range(rounds)]
    large = [round_trip(bench, "bsmtp", i, size=102400, kind="bsmtp", domains=1000, **bsmtp)
             for i in range(rounds)]

    def middle(rows, name):
        return median([row[name] for row in rows])

    report = bench.report
    report.figure("msgs_per_s", middle(small, "engine"))
    report.figure("ratio_limit_1k", middle(small, "ratio"), ">= 0.6")
    report.figure("ratio_sink", middle(small, "ratio_sink"), ">= 0.8")
    report.figure("ratio_limit_100k", middle(large, "ratio"), ">= 0.6")
    report.figure("msgs_per_s_at_sink", middle(small, "engine_at_sink"))
    report.figure("ratio_limit_1k_at_sink", middle(small, "ratio_at_sink"))
    report.figure("msgs_per_s_limit", middle(small, "limit"))
    report.figure("msgs_per_s_100k", middle(large, "engine"))
    report.figure("msgs_per_s_limit_100k", middle(large, "limit"))
    report.figure("cpu_us_per_message", middle(small, "cpu_us_per_message"))
    report.note("msgs_per_s counts from the rename into in/new until the batch lies in done/: "
                "claim, scan, accept record, delivery, settle records; _at_sink counts from the "
                "sink's first accepted message to its last. limit is the better of the engine's "
                "transport and a bare ring.")
    report.note(f"The 100 KB messages come as {bsmtp['batches']} batches at once: a batch is "
                "accepted whole, so one of them alone would be scanned first and sent then.")
    cores = machine.cores()
    report.note(f"Sink, blaster and engine have {cores} threads each on {cores} cores and "
                f"{CONNECTIONS} connections in all; the engine pins its workers, the others are "
                "free.")
