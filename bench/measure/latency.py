# SPDX-License-Identifier: Apache-2.0
"""latency: an idle engine gets one message; how long until the sink has accepted it.

The engine's clock starts before the rename into in/new, Postfix's before the end of data of a
session that is already past its DATA: both without the making of the message. The sink's record
tells the end, in the same monotonic time.
"""

import json
import os
import random
import shutil
import smtplib
import tempfile
import time

from measure.engine import Engine
from measure.programs import BenchError, Sink
from measure.report import percentile
from peers.postfix import Postfix

HEADER = "From: News <news@bench.example>\r\nTo: <{to}>\r\nSubject: One\r\n\r\n"
TEXT = HEADER + "One line of text.\r\n" * 50


class Record:
    """Follows the sink's record file."""

    def __init__(self, path):
        self.path = path
        self.file = None
        self.rest = ""

    def wait_for(self, address, timeout_s=20):
        """The time at which the message to the address was accepted, in ns."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self.file is None and os.path.exists(self.path):
                self.file = open(self.path, encoding="utf-8")
            line = self.file.readline() if self.file else ""
            if not line.endswith("\n"):
                self.rest += line
                time.sleep(0.0002)
                continue
            entry = json.loads(self.rest + line)
            self.rest = ""
            if address in entry["to"]:
                return entry["at_ns"]
        raise BenchError(f"the message to {address} did not arrive within {timeout_s} s")


def _pause():
    """Different phases of whatever ticks on either side."""
    time.sleep(random.uniform(0.010, 0.030))


def _stage(spool, batch, to):
    path = os.path.join(spool, "in", "tmp", batch + ".batch")
    os.makedirs(path)
    files = {
        "batch.json": json.dumps({
            "v": 1, "id": batch, "kind": "merge", "from": "bounce@bench.example",
            "message": "message.eml", "recipients": "recipients.ndjson"}),
        "message.eml": TEXT.format(to="{{_to}}"),
        "recipients.ndjson": json.dumps({"to": to}) + "\n",
    }
    for name, content in files.items():
        with open(os.path.join(path, name), "w", encoding="utf-8", newline="") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    return path


def engine_times(bench, count):
    record_path = os.path.join(bench.work, "record-engine")
    with Sink(bench.build, record=record_path) as sink, \
            Engine(bench.build, bench.work, sink.address, name="latency") as engine:
        record = Record(record_path)
        times = []
        for number in range(count + 5):
            to = f"u{number}@d{number % 7}.bench.example"
            staged = _stage(engine.spool, f"one-{number}", to)
            _pause()
            started_ns = engine.submit(staged)
            times.append((record.wait_for(to) - started_ns) / 1e6)
        engine.stop()
    return times[5:]  # the first ones meet cold caches


def postfix_times(bench, count):
    record_path = os.path.join(bench.work, "record-postfix")
    work = tempfile.mkdtemp(dir=bench.work)
    try:
        with Sink(bench.build, record=record_path) as sink, \
                Postfix(work, sink.host, sink.port) as postfix:
            postfix.start()
            record = Record(record_path)
            times = []
            client = smtplib.SMTP("127.0.0.1", postfix.smtpd_port)
            client.ehlo()
            for number in range(count + 5):
                to = f"u{number}@d{number % 7}.bench.example"
                client.mail("news@bench.example")
                client.rcpt(to)
                client.docmd("DATA")
                client.send(TEXT.format(to=to).encode())
                _pause()
                started_ns = time.monotonic_ns()
                client.send(b".\r\n")
                client.getreply()
                times.append((record.wait_for(to) - started_ns) / 1e6)
            client.quit()
            postfix.stop()
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return times[5:]


def run(bench):
    rounds = 1 if bench.quick else 3
    count = 100 if bench.quick else 200
    engine, postfix = [], []
    for number in range(rounds):
        for name, times, all_times in (("engine", engine_times, engine),
                                       ("postfix", postfix_times, postfix)):
            bench.work_again(number, name)
            part = times(bench, count)
            all_times += part
            bench.report.run(round=number, who=name, p50_ms=percentile(part, 50),
                             p99_ms=percentile(part, 99), max_ms=max(part))
    report = bench.report
    report.figure("p50_ms", percentile(engine, 50), "<= 2")
    report.figure("p99_ms", percentile(engine, 99), "<= 10")
    report.figure("ratio_postfix", percentile(postfix, 50) / percentile(engine, 50), ">= 10")
    report.figure("p50_ms_postfix", percentile(postfix, 50))
    report.figure("p99_ms_postfix", percentile(postfix, 99))
    report.note("ratio_postfix compares medians. The record is written by the sink before its 250.")
