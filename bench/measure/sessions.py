# SPDX-License-Identifier: Apache-2.0
"""sessions: ten thousand connections at once to a sink that takes 200 ms for each answer.

Arithmetic: two round trips a message, so a session makes 1 / (2 x 0.2 s) messages a second. The
rate is taken at the sink between two moments when all sessions are open.
"""

import time

from measure import machine
from measure.engine import Engine
from measure.programs import BenchError, Sink, feed
from measure.report import median

LATENCY_MS = 200
ROUND_TRIPS = 2


def _window(sink, sessions, seconds):
    """The rate over `seconds` once all sessions are open and under way."""
    deadline = time.monotonic() + 60
    while sink.totals()["open"] < sessions:
        if time.monotonic() > deadline:
            raise BenchError(f"{sink.totals()['open']} of {sessions} sessions after 60 s")
        time.sleep(0.05)
    time.sleep(2)
    first, first_at = sink.totals(), time.monotonic()
    time.sleep(seconds)
    last, last_at = sink.totals(), time.monotonic()
    if last["open"] < sessions * 0.99:
        raise BenchError("the batch ended before the measurement did")
    return (last["messages"] - first["messages"]) / (last_at - first_at)


def one(bench, number, sessions, seconds):
    arithmetic = sessions / (ROUND_TRIPS * LATENCY_MS / 1000)
    recipients = int(arithmetic * (seconds + 8))
    with Sink(bench.build, threads=machine.cores(), latency_ms=LATENCY_MS) as sink, \
            Engine(bench.build, bench.work, sink.address, connections=sessions,
                   name=f"sessions-{number}") as engine:
        staged = feed(bench.build, engine.spool, "sessions", recipients, size=1024, vars=2,
                      domains=1000)
        time.sleep(1)
        before = engine.rss()
        engine.submit(staged)
        rate = _window(sink, sessions, seconds)
        after = engine.rss()
        overruns = sink.totals()["overruns"]
        engine.wait_done("sessions", 120)
        engine.stop()
    row = {"sessions": sessions, "msgs_per_s": rate, "arithmetic": arithmetic,
           "rss_before": before, "rss_after": after, "recipients": recipients, "overruns": overruns}
    bench.report.run(round=number, **row)
    return rate / arithmetic, (after - before) / sessions


def run(bench):
    rounds = 1 if bench.quick else 3
    rows = [one(bench, number, 10000, 5 if bench.quick else 10) for number in range(rounds)]
    report = bench.report
    report.figure("ratio_arithmetic", median([ratio for ratio, _ in rows]), ">= 0.95")
    report.figure("bytes_per_session", median([size for _, size in rows]), "<= 8192")
    report.note("bytes_per_session is all that the engine's resident memory grew by from idle to "
                "10,000 busy sessions, divided by the sessions: the batch's recipients and its "
                "read-ahead are in it.")
