#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs one measurement: ./dev bench NAME [--quick].

Prints the single runs, a table, and as its last line one flat JSON object; a full run also writes
bench/results/NAME-DATE.json and .md with the machine's facts.
"""

import argparse
import os
import random
import resource
import shutil
import signal
import sys
import tempfile

from measure import latency, machine, peers, queue, scale, sessions, throughput
from measure.programs import BenchError
from measure.report import Report

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BENCHES = {"throughput": throughput, "peers": peers, "latency": latency, "sessions": sessions,
           "queue": queue, "scale": scale}


def size_of(text):
    """"10M" as a number."""
    units = {"k": 1000, "K": 1000, "M": 1000000}
    return int(text[:-1]) * units[text[-1]] if text[-1:] in units else int(text)


class Bench:
    """What a measurement gets: where the programs are, a directory to work in, the report."""

    def __init__(self, arguments, work):
        self.build = os.path.abspath(arguments.build)
        self.quick = arguments.quick
        self.size = arguments.size
        self.only = arguments.only.split(",") if arguments.only else []
        self.base = work
        self.work = work
        self.report = Report(arguments.name, machine.facts(ROOT, work))

    def work_again(self, *names):
        """A fresh directory for a part that runs more than once."""
        self.work = os.path.join(self.base, "-".join(str(name) for name in names))
        os.makedirs(self.work)
        os.chmod(self.work, 0o711)


def raise_files():
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("name", choices=sorted(BENCHES))
    parser.add_argument("--quick", action="store_true", help="one short round, no files")
    parser.add_argument("--size", type=size_of, help="queue, scale: recipients, such as 10M")
    parser.add_argument("--only", help="scale: cases, such as small,domains")
    parser.add_argument("--build", default=os.path.join(ROOT, "build"), help="meson's directory")
    parser.add_argument("--work", default="/var/tmp", help="where spools and queues are made")
    parser.add_argument("--results", default=os.path.join(ROOT, "bench", "results"))
    arguments = parser.parse_args()
    random.seed(1)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that all that was started is ended
    raise_files()
    work = tempfile.mkdtemp(prefix="ramjet-bench-", dir=arguments.work)
    os.chmod(work, 0o711)  # the Postfix peer's own user walks through it
    bench = Bench(arguments, work)
    stolen = machine.steal_ticks()
    try:
        BENCHES[arguments.name].run(bench)
    except BenchError as error:
        print(f"bench {arguments.name}: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(work, ignore_errors=True)
    stolen = (machine.steal_ticks() - stolen) / os.sysconf("SC_CLK_TCK")
    bench.report.note(f"{stolen:.1f} s of CPU time were taken by the hypervisor during the run.")
    if not arguments.quick:
        stem = os.path.relpath(bench.report.write(arguments.results), ROOT)
        print(f"written: {stem}.json and .md")
    print(bench.report.table())
    print(bench.report.last_line())
    return 0


if __name__ == "__main__":
    sys.exit(main())
