# SPDX-License-Identifier: Apache-2.0
"""peers: the same messages to the same sink through Debian's Postfix.

Compared twice, and the worse ratio counts: delivery alone, at the sink, for Postfix from a queue
that was filled while nothing was delivered; and the whole way from submission on.
"""

import shutil
import tempfile
import time

from measure import machine
from measure.programs import BenchError, Sink
from measure.report import median
from measure.throughput import engine_run
from peers.postfix import Postfix

SIZE = 1024


def _until_all(sink, messages, timeout_s):
    deadline = time.monotonic() + timeout_s
    while sink.totals()["messages"] < messages:
        if time.monotonic() > deadline:
            raise BenchError(f"Postfix delivered {sink.totals()['messages']} of {messages} "
                             f"messages in {timeout_s} s")
        time.sleep(0.05)


def postfix_delivery(bench, work, messages):
    """Fills the queue without a queue manager, then starts one: the rate at the sink."""
    with Sink(bench.build, threads=machine.cores()) as sink, \
            Postfix(work, sink.host, sink.port) as postfix:
        postfix.start(with_delivery=False)
        postfix.submit(messages, SIZE)
        postfix.stop()
        postfix.start()
        _until_all(sink, messages, 120)
        postfix.stop()
        return sink.stop()["msgs_per_s"], postfix.settings()


def postfix_whole(bench, work, messages):
    """From the first submission to the last message at the sink."""
    with Sink(bench.build, threads=machine.cores()) as sink, \
            Postfix(work, sink.host, sink.port) as postfix:
        postfix.start()
        started = time.monotonic()
        postfix.submit(messages, SIZE)
        _until_all(sink, messages, 120)
        rate = messages / (time.monotonic() - started)
        postfix.stop()
        return rate


def _in_own_directory(bench, function, messages):
    work = tempfile.mkdtemp(dir=bench.work)
    try:
        return function(bench, work, messages)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def run(bench):
    rounds = 1 if bench.quick else 3
    messages = 5000 if bench.quick else 15000
    recipients = 100000 if bench.quick else 300000
    rows = []
    for number in range(rounds):
        with Sink(bench.build, threads=machine.cores()) as sink:
            engine = engine_run(bench, f"peer-{number}", sink.address, recipients, size=SIZE,
                                vars=2, domains=1000)["msgs_per_s"]
            at_sink = sink.stop()["msgs_per_s"]
        delivery, settings = _in_own_directory(bench, postfix_delivery, messages)
        whole = _in_own_directory(bench, postfix_whole, messages)
        bench.report.run(round=number, engine=engine, engine_at_sink=at_sink,
                         postfix_delivery=delivery, postfix_whole=whole)
        rows.append({"alone": at_sink / delivery, "whole": engine / whole,
                     "mixed": engine / max(delivery, whole), "engine": engine,
                     "postfix": max(delivery, whole)})
    report = bench.report

    def middle(name):
        return median([row[name] for row in rows])

    report.figure("ratio_postfix", min(middle("alone"), middle("whole")), ">= 80")
    report.figure("ratio_postfix_delivery", middle("alone"))
    report.figure("ratio_postfix_whole", middle("whole"))
    report.figure("ratio_postfix_mixed", middle("mixed"))
    report.figure("msgs_per_s", middle("engine"))
    report.figure("msgs_per_s_postfix", middle("postfix"))
    report.note("Postfix (Debian's package, throw-away instance): " + settings + ". ratio_postfix "
                "is the worse of two comparisons of like with like: _delivery, both from the first "
                "message at the sink to the last, Postfix from a queue that was filled before; "
                "_whole, the engine from the rename of the batch until it is in done/, Postfix "
                "from the first submission by smtp-source to the last message at the sink. _mixed "
                "sets the engine's whole way against Postfix's delivery alone.")
