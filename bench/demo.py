#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""./dev demo: 100,000 real messages go from a spool directory to a mail sink on this machine."""
import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

CONFIG = """
node { hostname = "demo.ramjet.example" }
spool { path = "%(spool)s" }
route "*" { host = { "127.0.0.1:%(port)d" } connections = 64 per-connection = 10000 }
"""
LOOK_S = 0.01


def program(build, *path):
    return os.path.join(os.path.abspath(build), *path)


def start_sink(build, count):
    """The sink chooses a free port of its own and prints it."""
    sink = subprocess.Popen(
        [program(build, "bench", "ramjet-sink"), "--listen", "127.0.0.1:0", "--threads", "2",
         "--count", str(count), "--json"],
        stdout=subprocess.PIPE, text=True)
    for line in sink.stdout:
        if "127.0.0.1:" in line:
            return sink, int(line.split("127.0.0.1:")[1].split()[0].strip('",}'))
    sys.exit("the sink did not start")


def read_progress(path):
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError):
        return None


def find_summary(spool, name):
    for place in ("done", "failed", "hold"):
        for root, directories, _ in os.walk(os.path.join(spool, place)):
            if name in directories:
                return place, os.path.join(root, name)
    return None, None


def show(delivered, total, started):
    width = 40
    share = delivered / total if total else 0
    bar = "#" * int(width * share)
    rate = delivered / max(time.monotonic() - started, 1e-3)
    text = f"  [{bar:<{width}}] {delivered:>9,} of {total:,}  {rate:>9,.0f}/s"
    end = "\r" if sys.stdout.isatty() else "\n"
    print(text, end=end, flush=True)


def watch(spool, name, total, engine):
    """Until the batch has left active/; one line a second where nobody looks at a terminal."""
    started = time.monotonic()
    active = os.path.join(spool, "active", name, "progress.json")
    pause = 0.1 if sys.stdout.isatty() else 1.0
    show_at = started
    deadline = started + 300
    while time.monotonic() < deadline:
        place, path = find_summary(spool, name)
        if place:
            return place, path, time.monotonic() - started
        if engine.poll() is not None:
            sys.exit(f"the engine ended with status {engine.returncode}")
        progress = read_progress(active)
        if progress and time.monotonic() >= show_at:
            show(progress.get("delivered", 0), total, started)
            show_at = time.monotonic() + pause
        time.sleep(LOOK_S)
    sys.exit("the demo did not end within five minutes")


def tell(place, path, seconds, sink):
    with open(os.path.join(path, "summary.json"), encoding="utf-8") as file:
        summary = json.load(file)
    print()
    print(f"  the batch is in {place}/: delivered {summary['delivered']:,}, "
          f"bounced {summary['bounced']:,}, expired {summary['expired']:,}, "
          f"rejected {summary['rejected']:,}")
    print(f"  {summary['delivered'] / seconds:,.0f} messages a second, claim to durable end, "
          f"sink included ({os.cpu_count()} cores for all)")
    out, _ = sink.communicate(timeout=20)
    print(f"  the sink says: {out.strip().splitlines()[-1]}")
    with open(os.path.join(path, "results.ndjson"), encoding="utf-8") as file:
        print(f"  first line of results.ndjson: {file.readline().strip()}")
    return summary


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", default="build")
    parser.add_argument("--recipients", type=int, default=100000)
    parser.add_argument("--keep", action="store_true", help="leave the spool where it is")
    options = parser.parse_args()
    spool = tempfile.mkdtemp(prefix="ramjet-demo-")
    sink, port = start_sink(options.build, options.recipients)
    config = os.path.join(spool, "demo.conf")
    with open(config, "w", encoding="utf-8") as file:
        file.write(CONFIG % {"spool": os.path.join(spool, "spool"), "port": port})
    root = os.path.join(spool, "spool")
    os.mkdir(root)
    print(f"spool: {root}   sink: 127.0.0.1:{port}")
    engine = subprocess.Popen([program(options.build, "engine", "ramjet"), "run", "-c", config])
    try:
        while not os.path.isdir(os.path.join(root, "in", "new")):
            if engine.poll() is not None:
                sys.exit(f"the engine ended with status {engine.returncode}")
            time.sleep(0.02)
        print(f"writing a batch of {options.recipients:,} recipients and renaming it into in/new")
        subprocess.run(
            [program(options.build, "bench", "ramjet-feed"), "--out", root, "--recipients",
             str(options.recipients), "--batch", "demo"],
            check=True, stdout=subprocess.DEVNULL)
        place, path, seconds = watch(root, "demo.batch", options.recipients, engine)
        summary = tell(place, path, seconds, sink)
        ok = place == "done" and summary["delivered"] == options.recipients
    finally:
        engine.send_signal(signal.SIGTERM)
        engine.wait(timeout=90)
        if sink.poll() is None:
            sink.terminate()
        if not options.keep:
            shutil.rmtree(spool)
    print("  every recipient is accounted for" if ok else "  SOMETHING IS MISSING")
    sys.exit(0 if ok and engine.returncode == 0 else 1)


if __name__ == "__main__":
    main()
