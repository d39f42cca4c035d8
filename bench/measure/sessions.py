# SPDX-License-Identifier: Apache-2.0
"""sessions: ten thousand connections at once to a sink that takes 200 ms for each answer.

Arithmetic: two round trips a message, so a session makes 1 / (2 x 0.2 s) messages a second. The
rate is taken at the sink between two moments when all sessions are open. Memory is compared with an
engine that has the same batch and a hundredth of the sessions.
"""

import time

from measure import machine
from measure.engine import Engine
from measure.programs import BenchError, Sink, feed
from measure.report import median

SESSIONS = 10000
SESSIONS_BASE = 100
LATENCY_MS = 200
ROUND_TRIPS = 2


def _settle(sink, sessions):
    """Until all sessions are open and under way."""
    deadline = time.monotonic() + 60
    while sink.totals()["open"] < sessions:
        if time.monotonic() > deadline:
            raise BenchError(f"{sink.totals()['open']} of {sessions} sessions after 60 s")
        time.sleep(0.05)
    time.sleep(2)


def _window(sink, sessions, seconds):
    """The rate over `seconds`."""
    first, first_at = sink.totals(), time.monotonic()
    time.sleep(seconds)
    last, last_at = sink.totals(), time.monotonic()
    if last["open"] < sessions * 0.99:
        raise BenchError("the batch ended before the measurement did")
    if last["overruns"] > 0:
        raise BenchError("the sink could not say all it had to")
    return (last["messages"] - first["messages"]) / (last_at - first_at)


def under_load(bench, name, sessions, recipients, seconds):
    """Rate, and resident memory when idle and when all sessions are at work."""
    with Sink(bench.build, threads=machine.cores(), latency_ms=LATENCY_MS) as sink, \
            Engine(bench.build, bench.work, sink.address, connections=sessions,
                   name=name) as engine:
        staged = feed(bench.build, engine.spool, name, recipients, size=1024, vars=2, domains=1000)
        time.sleep(1)
        idle = engine.rss()
        engine.submit(staged)
        _settle(sink, sessions)
        rate = _window(sink, sessions, seconds)
        busy = engine.rss()
        if sessions == SESSIONS and not bench.quick:
            engine.wait_done(name, 120)
            engine.stop()
    return rate, idle, busy


def one(bench, number, seconds):
    arithmetic = SESSIONS / (ROUND_TRIPS * LATENCY_MS / 1000)
    recipients = int(arithmetic * (seconds + 8))
    _, _, base = under_load(bench, f"base-{number}", SESSIONS_BASE, recipients, 1)
    rate, idle, busy = under_load(bench, f"sessions-{number}", SESSIONS, recipients, seconds)
    per_session = (busy - base) / (SESSIONS - SESSIONS_BASE)
    whole = (busy - idle) / SESSIONS
    bench.report.run(round=number, msgs_per_s=rate, arithmetic=arithmetic, recipients=recipients,
                     rss_idle=idle, rss_100=base, rss_10000=busy)
    return rate / arithmetic, per_session, whole


def run(bench):
    rounds = 1 if bench.quick else 3
    rows = [one(bench, number, 5 if bench.quick else 10) for number in range(rounds)]
    report = bench.report
    report.figure("ratio_arithmetic", median([ratio for ratio, _, _ in rows]), ">= 0.95")
    report.figure("bytes_per_session", median([size for _, size, _ in rows]), "<= 8192")
    report.figure("bytes_per_session_with_queue", median([size for _, _, size in rows]))
    report.note("bytes_per_session: resident memory with 10,000 busy sessions less that with 100 "
                "and the same batch, a session; _with_queue: less that of the idle engine, so that "
                "the batch's recipients and all else that grows under load are in it.")
