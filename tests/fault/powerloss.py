# SPDX-License-Identifier: Apache-2.0
"""Power failures below a real ext4 (T5; LAW 1, 2, 6): nothing accepted is lost.

powerloss.py BUILD [--cuts N] [--seed N] [--each]

The engine works on an ext4 whose every block write and flush is recorded (blocklog.c). Then the
power fails N times: at a flush chosen by chance, with a random part of what was written behind it,
some of that torn between sectors; with --each also once exactly at each flush. Each time the file
system is mounted from what is left, the engine is started on it, and a join of three lists must
hold: what was submitted (a batch whose rename was durable at the cut), what the sink had taken
before the cut, and what it took afterwards.

The last line is one JSON object: cuts, lost, duplicates, duplicates_outside (not near the cut, or
not called possible_duplicate), altered.
"""
import argparse
import bisect
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "scenario"))
from lib import (EACH, SAME, Engine, Late, Place, Sink, check, equal, finish,  # noqa: E402
                 make_merge, program, route, skip, wait_for)

IMAGE_SIZE = 96 << 20
SECTOR = 512
ENTRY = struct.Struct("<QQII")
WRITE = 1
BATCHES = 8
RECIPIENTS = 150
# From the end of data to the durable record, on a machine where other tests run as well.
WINDOW_NS = 3 * 10**9
RETRY = {"retry_first": "1s", "retry_max": "1s", "retry_jitter": 0, "suspend_first": "1s",
         "suspend_max": "1s"}
SPOOL = ('spool {{ path = "{0}" free-space-min = 1M journal-segment = 64K journal-segments = 2 }}\n'
         'limits {{ recipients = 10000 batches = 64 domains = 1000 sites = 100 }}\n')


class Refused(Exception):
    """This machine cannot do it."""


def must(*command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Refused(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout.strip()


class Disk:
    """An ext4 from an image, mounted by a loop device."""

    def __init__(self, image, where):
        os.makedirs(where, exist_ok=True)
        self.where = where
        self.device = must("losetup", "--find", "--show", image)
        try:
            must("mount", "-t", "ext4", "-o", "commit=1", self.device, where)
        except Refused:
            must("losetup", "-d", self.device)
            raise

    def close(self):
        subprocess.run(["umount", self.where], check=True)
        subprocess.run(["losetup", "-d", self.device], check=True)


def submit_durably(engine, directory):
    """As `ramjet submit` does it. Returns when the rename is on stable storage."""
    new = os.path.join(engine.spool, "in", "new")
    for name in [*os.listdir(directory), "."]:
        fd = os.open(os.path.join(directory, name), os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
    engine.submit(directory)
    fd = os.open(new, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
    return time.monotonic_ns()


def record(place, seed):
    """Work on a disk that remembers. Returns (batches: {name: (durable at, recipients)})."""
    chance = random.Random(seed)
    image = place.join("image")
    with open(image, "wb") as file:
        file.truncate(IMAGE_SIZE)
    must("mkfs.ext4", "-q", "-b", "1024", "-E", "lazy_itable_init=0,nodiscard", image)
    shutil.copyfile(image, place.join("base"))
    os.makedirs(place.join("fuse"))
    layer = place.run([program("tests", "fault", "blocklog"), place.join("fuse"), image,
                       place.join("log")])
    wait_for(lambda: os.path.exists(place.join("fuse", "disk")) or layer.poll() is not None,
             "the layer is mounted")
    if layer.poll() is not None:
        raise Refused("FUSE cannot be used here")
    submitted = {}
    disk = Disk(place.join("fuse", "disk"), place.join("mount"))
    try:
        sink = Sink(place, "--share", "rcpt=451:5%", "--share", "dot=421:1%", name="before")
        engine = Engine(place, routes=route("*", sink.port, connections=4, rate='"400/s"', **RETRY),
                        extra=SPOOL.format(place.join("mount", "spool")),
                        spool=place.join("mount", "spool")).start()
        for number in range(BATCHES):
            names = [f"u{i}@p{number}-{i % 7}.test" for i in range(RECIPIENTS)]
            path = make_merge(engine, f"p{number}", names, EACH if number % 2 else SAME)
            submitted[f"p{number}"] = (submit_durably(engine, path), names)
            time.sleep(chance.random() * 0.6)  # cuts are wanted in all phases of a batch
        for name in submitted:
            engine.wait_end(name, 120)
        engine.terminate()
        sink.stop()
    finally:
        disk.close()
        must("umount", place.join("fuse"))
        layer.wait(20)
    return submitted


def entries_of(path):
    """(at, kind, offset, bytes) of each entry."""
    with open(path, "rb") as file:
        data = file.read()
    entries = []
    at = 0
    while at + ENTRY.size <= len(data):
        when, offset, kind, size = ENTRY.unpack_from(data, at)
        at += ENTRY.size
        entries.append((when, kind, offset, data[at:at + size] if kind == WRITE else b""))
        at += size if kind == WRITE else 0
    return entries


def torn(chance, content):
    """Which stretches of a write got through: whole, or a random part of its sectors."""
    if chance.random() < 0.7:
        return [(0, content)]
    return [(at, content[at:at + SECTOR]) for at in range(0, len(content), SECTOR)
            if chance.random() < 0.5]


def cut_image(place, entries, flushes, which, chance):
    """What is left when the power fails behind flush number `which`, which `base` has reached; and
    the time of the failure. Without `chance`: nothing behind the flush is left."""
    image = place.join("left")
    shutil.copyfile(place.join("base"), image)
    if chance is None:
        return image, entries[flushes[which]][0]
    first = flushes[which] + 1
    last = flushes[which + 1] if which + 1 < len(flushes) else len(entries)
    end = chance.randint(first, last)
    keep = chance.random()
    with open(image, "r+b") as file:
        for _, kind, offset, content in entries[first:end]:
            if kind != WRITE or chance.random() > keep:
                continue
            for at, piece in torn(chance, content):
                file.seek(offset + at)
                file.write(piece)
    return image, entries[end - 1][0]


def advance_base(place, entries, done, upto):
    with open(place.join("base"), "r+b") as file:
        for _, kind, offset, content in entries[done:upto]:
            if kind == WRITE:
                file.seek(offset)
                file.write(content)


def settle(place, image, name):
    """Starts the engine on what is left, until nothing is left to do. Its sink and events."""
    disk = Disk(image, place.join("mount"))
    try:
        sink = Sink(place, name=name)
        spool = place.join("mount", "spool")
        engine = Engine(place, routes=route("*", sink.port, connections=16, **RETRY),
                        extra=SPOOL.format(spool), spool=spool, name=name).start()

        def is_idle():
            if not engine.is_alive():
                raise Late(f"the engine ended: {engine.words()}")
            return not any(entry.endswith(".batch") for directory in ("in/new", "active")
                           for entry in os.listdir(os.path.join(spool, directory)))
        try:
            wait_for(is_idle, "all batches have ended", 60)
        except Late:
            print(engine.words(), engine.get("/v1/status")[1])
            raise
        events = engine.events()
        equal(engine.terminate(), 0, "exit status")
        sink.stop()
        failed = {}
        for day in os.listdir(os.path.join(spool, "failed")):
            for entry in os.listdir(os.path.join(spool, "failed", day)):
                reason = os.path.join(spool, "failed", day, entry, "reason.txt")
                failed[entry] = open(reason, encoding="utf-8").read() \
                    if os.path.exists(reason) else "?"
        return sink.messages(), events, failed
    finally:
        disk.close()


def arrivals(messages):
    taken = {}
    for message in messages:
        for recipient in message["to"]:
            taken.setdefault(recipient, []).append((message["at_ns"], message["sha256"]))
    return taken


def judge(cut_ns, submitted, before, after, events, failed, totals):
    """LAW 1 and 6 over both lives."""
    marked = {event["recipient"] for event in events if event.get("possible_duplicate")}
    for batch, (durable_ns, names) in submitted.items():
        for name in names:
            early = [one for one in before.get(name, []) if one[0] <= cut_ns]
            late = after.get(name, [])
            if durable_ns <= cut_ns and not early and not late:
                totals["lost"] += 1
                if totals["lost"] <= 3:
                    check(False, f"{name} of {batch} is lost", failed)
            if early and late:
                totals["duplicates"] += 1
                in_window = any(cut_ns - at < WINDOW_NS for at, _ in early)
                if not in_window or name not in marked:
                    totals["duplicates_outside"] += 1
            if len({content for _, content in early + late}) > 1:
                totals["altered"] += 1
    totals["cuts"] += 1


def run(place, options):
    submitted = record(place, options.seed)
    before = arrivals(json.loads(line) for line in open(place.join("before.record"),
                                                        encoding="utf-8"))
    entries = entries_of(place.join("log"))
    flushes = [index for index, entry in enumerate(entries) if entry[1] != WRITE]
    started = min(at for at, _ in submitted.values())
    first = bisect.bisect_left([entries[index][0] for index in flushes], started)
    check(len(flushes) - first > 20, "there are flushes enough", len(flushes))
    print(f"{len(entries)} entries, {len(flushes)} flushes, {len(flushes) - first} of them while "
          "batches were there")
    chance = random.Random(options.seed)
    behind = range(first, len(flushes))
    picks = [(chance.choice(behind), True) for _ in range(options.cuts)]
    picks += [(which, False) for which in behind] if options.each else []
    totals = {"cuts": 0, "lost": 0, "duplicates": 0, "duplicates_outside": 0, "altered": 0}
    done = 0
    for number, (which, is_torn) in enumerate(sorted(picks)):
        advance_base(place, entries, done, flushes[which] + 1)
        done = flushes[which] + 1
        image, cut_ns = cut_image(place, entries, flushes, which, chance if is_torn else None)
        try:
            messages, events, failed = settle(place, image, f"after-{number}")
        except Exception:
            print(f"cut {number} behind flush {which}, seed {options.seed}")
            raise
        judge(cut_ns, submitted, before, arrivals(messages), events, failed, totals)
    for key in ("lost", "duplicates_outside", "altered"):
        equal(totals[key], 0, key)
    return totals


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build")
    parser.add_argument("--cuts", type=int, default=250)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--each", action="store_true")
    options = parser.parse_args()
    if os.geteuid() != 0:
        skip("only root may mount")
    totals = {}
    with Place("powerloss") as place:
        try:
            totals = run(place, options)
        except Refused as reason:
            skip(reason)
    status = finish()
    print(json.dumps({"bench": "powerloss", "seed": options.seed, **totals}))
    return status


if __name__ == "__main__":
    sys.exit(main())
