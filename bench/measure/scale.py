# SPDX-License-Identifier: Apache-2.0
"""scale: how far it goes. One huge batch, all of it deferred, a hundred thousand small batches, a
million domains, a hundred thousand sites, a start after kill -9 in the middle, and whether a small
batch has to wait for a huge one.

A row is one fresh engine with its default limits. Its memory is the peak of what was resident
(VmHWM); a recipient's share is that without what the idle engine has. The journal is measured ten
times a second, its peak is told.
"""

import glob
import json
import os
import re
import shutil
import time

from measure import machine
from measure.engine import Engine
from measure.programs import BenchError, Sink, feed
from peers.knot import knot_of

DONE = "ramjet_batches_done_total"
FAILED = "ramjet_batches_failed_total"
ACCEPTED = "ramjet_accepted_total"
DELIVERED = 'ramjet_outcomes_total{outcome="delivered"}'
DEFERRED = 'ramjet_outcomes_total{outcome="deferred"}'
WAITING_RETRY = 'ramjet_queue_recipients{state="retry"}'
LOOK_S = 0.1
LARGEST = 10000000
AGAIN = "retry-first = 1s retry-max = 1s retry-jitter = 0"  # a question may go unanswered
ROUTE = "retry-jitter = 0 suspend-first = 1s suspend-max = 1s "


class Watch:
    """Waits for an engine, and sees meanwhile how large its journal grows."""

    def __init__(self, engine):
        self.engine = engine
        self.journal = 0
        self.idle = engine.rss()

    def until(self, condition, timeout_s, what):
        """`condition` of the metrics; the last of them."""
        deadline = time.monotonic() + timeout_s
        while True:
            metrics = self.engine.metrics()
            self._journal()
            if condition(metrics):
                return metrics
            if metrics[FAILED] > 0:
                reasons = glob.glob(os.path.join(self.engine.spool, "failed", "*", "*",
                                                 "reason.txt"))
                words = open(reasons[0], encoding="utf-8").read() if reasons else ""
                raise BenchError(f"{what}: a batch failed: {words}")
            if time.monotonic() > deadline:
                raise BenchError(f"{what}: not within {timeout_s} s: {metrics}")
            time.sleep(LOOK_S)

    def _journal(self):
        size = 0
        for entry in os.scandir(os.path.join(self.engine.spool, "journal")):
            try:
                size += entry.stat().st_blocks * 512
            except FileNotFoundError:
                pass
        self.journal = max(self.journal, size)

    def memory(self, recipients):
        peak = self.engine.rss_peak()
        return {"rss_peak": peak, "bytes_per_recipient": (peak - self.idle) / recipients,
                "journal_bytes": self.journal}


def _drop(engine):
    """It has done its work: an orderly stop is not what is measured here."""
    engine.kill()
    shutil.rmtree(engine.spool)


def _sized(bench, full):
    """All sizes in the proportion of --size to the ten million of the largest ones."""
    size = bench.size or (LARGEST // 100 if bench.quick else LARGEST)
    return full * size // LARGEST


def _deadline(recipients):
    return 120 + recipients / 10000


def one_batch(bench):
    """A batch of ten million, the whole way."""
    recipients = _sized(bench, LARGEST)
    with Sink(bench.build, threads=machine.cores()) as sink, \
            Engine(bench.build, bench.work, sink.address, name="one") as engine:
        staged = feed(bench.build, engine.spool, "one", recipients, no_sync=True)
        watch = Watch(engine)
        started_ns = engine.submit(staged)
        watch.until(lambda now: now[ACCEPTED] == recipients, _deadline(recipients), "accept")
        accepted_s = (time.monotonic_ns() - started_ns) / 1e9
        watch.until(lambda now: now[DONE] == 1, _deadline(recipients), "deliver the batch")
        ended_ns, summary = engine.wait_done("one", 10)
        took_s = (ended_ns - started_ns) / 1e9
        taken = sink.totals()["recipients"]
        bench.report.row(case="one batch", recipients=recipients, batches=1, domains=1000,
                         seconds=took_s, recipients_per_s=recipients / took_s,
                         accept_s=accepted_s, lost=recipients - taken,
                         **watch.memory(recipients))
        if summary["delivered"] != recipients:
            raise BenchError(f"one batch: {summary}")
        _drop(engine)


def all_deferred(bench):
    """All of a batch is answered 451, waits in the retry wheel at once, and goes out."""
    recipients = _sized(bench, LARGEST)
    rest_s = 5 + 85 * recipients // LARGEST  # longer than it takes to defer them all
    with Sink(bench.build, threads=machine.cores(), share="rcpt=451:100%") as sink, \
            Engine(bench.build, bench.work, sink.address, name="deferred",
                   route=ROUTE + f"retry-first = {rest_s}s retry-max = {rest_s}s") as engine:
        staged = feed(bench.build, engine.spool, "deferred", recipients, same=True, no_sync=True)
        watch = Watch(engine)
        started_ns = engine.submit(staged)
        now = watch.until(lambda now: now[DEFERRED] >= recipients, _deadline(recipients), "defer")
        deferred_s = (time.monotonic_ns() - started_ns) / 1e9
        peak = now[WAITING_RETRY]
        sink.stop()
        with Sink(bench.build, threads=machine.cores(), listen=sink.address) as healed:
            watch.until(lambda now: now[DELIVERED] > 0, rest_s + 30, "begin again")
            healed_ns = time.monotonic_ns()
            watch.until(lambda now: now[DONE] == 1, _deadline(recipients), "deliver")
            took_s = (time.monotonic_ns() - healed_ns) / 1e9
            taken = healed.totals()["recipients"]
        bench.report.row(case="all deferred", recipients=recipients, batches=1, domains=1000,
                         seconds=deferred_s + took_s, recipients_per_s=recipients / took_s,
                         deferred_per_s=recipients / deferred_s, waiting_at_once=int(peak),
                         lost=recipients - taken, **watch.memory(recipients))
        _drop(engine)


HEADER = ("From: News <news@bench.example>\r\nTo: <{{_to}}>\r\nSubject: Few\r\n\r\n"
          + "One line of text.\r\n" * 10).encode()


def _write(path, content):
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    os.write(file, content)
    os.close(file)


def _small_batches(engine, count, recipients, results):
    """In in/new before the engine is started."""
    new = os.path.join(engine.spool, "in", "new")
    os.makedirs(new)
    manifest = {"v": 1, "kind": "merge", "from": "bounce@bench.example"}
    if not results:
        manifest["results"] = []
    manifest = json.dumps(manifest).encode()
    for number in range(count):
        path = os.path.join(new, f"few-{number:06}.batch")
        os.mkdir(path, 0o755)
        lines = "".join(f'{{"to":"u{number:06}-{i}@d{(number + i) % 1000}.bench.example"}}\n'
                        for i in range(recipients))
        _write(os.path.join(path, "batch.json"), manifest)
        _write(os.path.join(path, "message.eml"), HEADER)
        _write(os.path.join(path, "recipients.ndjson"), lines.encode())
    os.sync()  # as submitters do; else the engine's first sync would write all of it


def small_batches(bench, results=True):
    """They lie in in/new when the engine starts."""
    batches = _sized(bench, 100000 if results else 20000)
    recipients = 10 * batches
    name = "small batches" if results else "small batches without results"
    with Sink(bench.build, threads=machine.cores()) as sink, \
            Engine(bench.build, bench.work, sink.address, name=name.replace(" ", "-"),
                   is_started=False) as engine:
        _small_batches(engine, batches, 10, results)
        started_ns = time.monotonic_ns()
        engine.spawn()
        watch = Watch(engine)
        watch.until(lambda now: now[DONE] == batches, 600, name)
        took_s = (time.monotonic_ns() - started_ns) / 1e9
        taken = sink.totals()["recipients"]
        bench.report.row(case=name, recipients=recipients, batches=batches, domains=1000,
                         seconds=took_s, recipients_per_s=recipients / took_s,
                         batches_per_s=batches / took_s, lost=recipients - taken,
                         **watch.memory(recipients))
        _drop(engine)


def pickup(bench):
    """Single mails in pickup/ when the engine starts; they must stand still for two seconds."""
    files = _sized(bench, 20000)
    with Sink(bench.build, threads=machine.cores()) as sink, \
            Engine(bench.build, bench.work, sink.address, name="pickup",
                   is_started=False) as engine:
        folder = os.path.join(engine.spool, "pickup")
        os.makedirs(folder)
        for number in range(files):
            mail = (f"X-Sender: app@bench.example\r\nX-Receiver: u{number}@d{number % 1000}"
                    f".bench.example\r\nFrom: app@bench.example\r\nSubject: {number}\r\n\r\nx\r\n")
            _write(os.path.join(folder, f"mail-{number:06}.eml"), mail.encode())
        os.sync()
        started_ns = time.monotonic_ns()
        engine.spawn()
        watch = Watch(engine)
        watch.until(lambda now: now[DELIVERED] == files, 300, "pickup")
        took_s = (time.monotonic_ns() - started_ns) / 1e9
        taken = sink.totals()["recipients"]
        bench.report.row(case="pickup", recipients=files, domains=1000, seconds=took_s,
                         recipients_per_s=files / took_s, lost=files - taken,
                         **watch.memory(files))
        _drop(engine)


def _by_domain(bench, case, recipients, domains, engine, sink, sites):
    staged = feed(bench.build, engine.spool, case.replace(" ", "-"), recipients, domains=domains,
                  spread=True, size=512, vars=1, no_sync=True)
    watch = Watch(engine)
    started_ns = engine.submit(staged)
    now = watch.until(lambda now: now[DONE] == 1, _deadline(recipients), case)
    took_s = (time.monotonic_ns() - started_ns) / 1e9
    taken = sink.totals()
    bench.report.row(case=case, recipients=recipients, batches=1, domains=domains, sites=sites,
                     seconds=took_s, recipients_per_s=recipients / took_s,
                     dns_questions=int(now["ramjet_dns_questions_total"]),
                     connections=taken["connections"], lost=recipients - taken["recipients"],
                     **watch.memory(recipients))
    _drop(engine)


def domains_by_route(bench):
    """A domain each, all by one route to one host."""
    domains = _sized(bench, 1000000)
    with Sink(bench.build, threads=machine.cores()) as sink, \
            Engine(bench.build, bench.work, sink.address, name="by-route") as engine:
        _by_domain(bench, "domains by route", domains, domains, engine, sink, 1)


def _by_dns(port, knot, **options):
    return {"host": None, "dns": f'servers = "127.0.0.1:{knot.port}" ip6 = no',
            "route": f"port = {port} {AGAIN}", **options}


def domains_by_dns(bench):
    """A domain each, each with an MX record; all lead to one host."""
    domains = _sized(bench, 1000000)
    records = ["* MX 10 mx", "mx A 127.0.0.1"]
    with Sink(bench.build, threads=machine.cores()) as sink, \
            knot_of(bench.work, records, name="knot-domains") as knot, \
            Engine(bench.build, bench.work, name="by-dns",
                   **_by_dns(sink.port, knot)) as engine:
        _by_domain(bench, "domains by DNS", domains, domains, engine, sink, 1)


def sites(bench):
    """A site each domain: an MX record of its own that leads to an address of its own."""
    count = _sized(bench, 100000)
    records = []
    for number in range(count):
        place = number + 256
        records.append(f"d{number + 1:04} MX 10 m{number}")
        records.append(f"m{number} A 127.{place >> 16}.{place >> 8 & 255}.{place & 255}")
    with Sink(bench.build, threads=machine.cores(), listen="0.0.0.0:0",
              connections=65536) as sink, \
            knot_of(bench.work, records, name="knot-sites") as knot, \
            Engine(bench.build, bench.work, name="sites", per_connection=100, backlog=8,
                   **_by_dns(sink.port, knot, connections=20)) as engine:
        _by_domain(bench, "sites", 5 * count, count, engine, sink, count)


def _arrivals(record, recipients):
    """How many recipients came, how many of them more than once; by the sink's record."""
    counts = bytearray(recipients + 1)
    pattern = re.compile(rb'"to":\["u(\d{8})@')
    with open(record, "rb") as file:
        while lines := file.readlines(1 << 24):
            for number in pattern.findall(b"".join(lines)):
                number = int(number)
                if counts[number] < 255:
                    counts[number] += 1
    return recipients - counts.count(0) + 1, sum(counts) - recipients + counts.count(0) - 1


def restart(bench):
    """kill -9 when half of the batch is settled; the next start goes on."""
    recipients = _sized(bench, LARGEST)
    record = os.path.join(bench.work, "restart.record")
    with Sink(bench.build, threads=machine.cores(), record=record) as sink, \
            Engine(bench.build, bench.work, sink.address, name="restart") as engine:
        staged = feed(bench.build, engine.spool, "restart", recipients, size=512, no_sync=True)
        watch = Watch(engine)
        engine.submit(staged)
        now = watch.until(lambda now: now[DELIVERED] >= recipients // 2, _deadline(recipients),
                          "deliver half")
        in_flight = int(now["ramjet_connections"])
        engine.kill()
        killed = sink.totals()["recipients"]
        started = time.monotonic()
        engine.spawn(timeout_s=120)
        ready_s = time.monotonic() - started
        engine.wait_for(lambda: sink.totals()["recipients"] > killed, 120, "send again")
        sends_s = time.monotonic() - started
        watch.until(lambda now: now[DONE] == 1, _deadline(recipients), "deliver the rest")
        took_s = time.monotonic() - started
        _, summary = engine.wait_done("restart", 10)
        memory = watch.memory(recipients)
        _drop(engine)
        sink.stop()
    came, again = _arrivals(record, recipients)
    os.unlink(record)
    bench.report.row(case="restart", recipients=recipients, batches=1, domains=1000,
                     settled_before=killed, ready_s=ready_s, sends_again_s=sends_s, seconds=took_s,
                     recipients_per_s=(recipients - killed) / took_s, lost=recipients - came,
                     duplicates=again, connections=in_flight, **memory)
    if summary["delivered"] != recipients:
        raise BenchError(f"restart: {summary}")


def _few(bench, engine, batch, sizes):
    """Seconds until a batch of 100 to other domains is done."""
    staged = feed(bench.build, engine.spool, batch, 100, suffix="other.example", domains=10,
                  **sizes)
    started_ns = engine.submit(staged)
    ended_ns, _ = engine.wait_done(batch, 60)
    return (ended_ns - started_ns) / 1e9


def fairness(bench):
    """Small batches while the engine is idle, behind a huge throttled one, behind a huge scan."""
    huge = _sized(bench, LARGEST)
    throttled = huge // 10
    sizes = {"size": 512, "vars": 1}
    times = {"idle": [], "throttled": [], "scan": []}
    with Sink(bench.build, threads=machine.cores()) as sink:
        slow = f'route "*.slow.example" {{ host = {{"{sink.address}"}} rate = "100/s" }}'
        with Engine(bench.build, bench.work, sink.address, name="fair", routes=slow) as engine:
            staged = [feed(bench.build, engine.spool, name, count, suffix="slow.example",
                           no_sync=True, **sizes)
                      for name, count in (("throttled", throttled), ("huge", huge))]
            for turn in range(5):
                times["idle"].append(_few(bench, engine, f"idle-{turn}", sizes))
            watch = Watch(engine)
            engine.submit(staged[0])
            watch.until(lambda now: now[ACCEPTED] >= throttled, 120, "accept")
            for turn in range(5):
                times["throttled"].append(_few(bench, engine, f"throttled-{turn}", sizes))
            engine.submit(staged[1])
            while engine.metrics()[ACCEPTED] < throttled + huge and len(times["scan"]) < 5:
                times["scan"].append(_few(bench, engine, f"scan-{len(times['scan'])}", sizes))
            for batch in ("throttled", "huge"):
                watch.until(lambda now: now[ACCEPTED] >= throttled + huge, 120, "accept")
                engine.order(batch, "cancel")
            engine.wait_done("huge", 300)
            bench.report.row(case="fairness", recipients=huge + throttled, batches=2,
                             small_ms_idle=1000 * max(times["idle"]),
                             small_ms_throttled=1000 * max(times["throttled"]),
                             small_ms_scan=1000 * max(times["scan"]),
                             **watch.memory(huge + throttled))
            _drop(engine)


CASES = {
    "one": one_batch,
    "deferred": all_deferred,
    "small": small_batches,
    "silent": lambda bench: small_batches(bench, results=False),
    "pickup": pickup,
    "route": domains_by_route,
    "dns": domains_by_dns,
    "sites": sites,
    "restart": restart,
    "fairness": fairness,
}


def run(bench):
    unknown = [name for name in bench.only if name not in CASES]
    if unknown:
        raise BenchError(f"no case {unknown[0]}: one of {', '.join(CASES)}")
    for name, case in CASES.items():
        if not bench.only or name in bench.only:
            case(bench)
    report = bench.report
    for row in report.rows:
        name = row["case"].replace(" ", "_")
        for key in ("seconds", "rss_peak", "lost", "duplicates", "batches_per_s", "ready_s",
                    "sends_again_s"):
            if key in row:
                report.figure(f"{name}_{key}", row[key], "0" if key == "lost" else "")
    report.note("Times count from the rename into in/new (or from the start of an engine that "
                "finds all in in/new or pickup/) until the batch or all batches are in done/. "
                "rss_peak is VmHWM; bytes_per_recipient is what it is above the idle engine.")
