# SPDX-License-Identifier: Apache-2.0
"""B: files that were damaged while no engine ran: the next start says where, of which batch and
whom, and what comes of it; nobody is lost, nothing is sent altered, and no more than must be twice.

test_damage.py BUILD. One spool is brought to where most mail is sent and some is deferred, and the
engine is killed. Each case damages a copy of it (docs/JOURNAL.md 2: where the cells lie) and
starts an engine with a sink of its own on that.
"""
import json
import os
import struct
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import (EACH, Engine, Place, Sink, cases_of, check, equal, free_port,  # noqa: E402
                 make_merge, read_lines, route, run_cases, send, wait_for)

FAST = {"retry_first": "1s", "retry_max": "1s", "retry_jitter": 0, "suspend_first": "1s",
        "suspend_max": "1s"}
SMALL = [f"m{i}" for i in range(6)]
ALL = {"spring": 60, "other": 9, **{name: 6 for name in SMALL}}
SECTOR, CELL = 512, 32
ACCEPTED, DELIVERED, GROUP = 1, 2, 16


def names_of(batch):
    """The first two thirds can be reached, the others only by the second engine."""
    count = ALL[batch]
    return [f"{batch}-{i}@{'up' if i < count * 2 // 3 else 'down'}.test" for i in range(count)]


def up(batch):
    return [name for name in names_of(batch) if name.endswith("@up.test")]


def down(batch):
    return [name for name in names_of(batch) if name.endswith("@down.test")]


def spool_keys(path, size, count):
    return (f'spool {{ path = "{path}" free-space-min = 1M journal-segment = {size} '
            f'journal-segments = {count} }}\n')


def copy_spool(spool, path):
    subprocess.run(["cp", "-a", spool, path], check=True)
    os.unlink(os.path.join(path, "control.sock"))
    return path


class Base:
    """The spool as the killed engine left it, and what it had sent."""
    spool = checked = None  # checked: one more engine has written a checkpoint
    bytes = {}  # of the message, by recipient

    @classmethod
    def make(cls, place):
        sink = Sink(place)
        routes = route("up.test", sink.port, **FAST) + route("down.test", free_port(), **FAST)
        cls.spool = place.join("base.spool")
        engine = Engine(place, routes=routes, spool=cls.spool,
                        extra=spool_keys(cls.spool, "256K", 4)).start()
        for batch in ALL:
            engine.submit(make_merge(engine, batch, names_of(batch), EACH))
        for batch in ALL:
            wait_for(lambda b=batch: (engine.progress(b) or {}).get("delivered") == len(up(b)),
                     f"{batch} is sent as far as it can be")
            wait_for(lambda b=batch: len(read_lines(os.path.join(
                engine.find(b)[1], "results.ndjson"))) == len(up(b)), f"the lines of {batch}")
        # More groups behind those that are going to be damaged, or they may have been torn.
        count = len(engine.events())
        wait_for(lambda: len(engine.events()) > count + sum(len(down(b)) for b in ALL),
                 "deferrals behind all that")
        engine.kill()
        cls.checked = copy_spool(cls.spool, place.join("checked.spool"))
        engine = Engine(place, routes=routes, spool=cls.checked, name="checked",
                        extra=spool_keys(cls.checked, "64K", 2))
        for _ in range(3):  # each run has a segment of its own
            engine.start().kill()
        engine.start()
        wait_for(lambda: any(name.startswith("checkpoint-0") for name in
                             os.listdir(os.path.join(cls.checked, "journal"))), "a checkpoint")
        engine.kill()
        cls.bytes = {message["to"][0]: message["sha256"] for message in sink.messages()}


class Case:
    """A copy of the spool to be damaged."""

    def __init__(self, name, spool=None):
        self.place = Place(f"damage-{name}")
        self.spool = copy_spool(spool or Base.spool, self.place.join("engine.spool"))
        self.engine = self.sink = None

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        self.place.__exit__(kind, value, trace)

    def path(self, *parts):
        return os.path.join(self.spool, *parts)

    def start(self):
        self.sink = Sink(self.place)
        self.engine = Engine(self.place, routes=route("*", self.sink.port, **FAST),
                             spool=self.spool).start()
        return self.engine

    def damages(self):
        return [event for event in self.engine.events() if event["type"] == "Damage"]

    def check_done(self, batch, again=()):
        """Done, each has one result, and only those who had to be were sent to."""
        end = self.engine.wait_end(batch)
        equal(end.place, "done", f"{batch} is done")
        equal(sorted(line["recipient"] for line in end.results), sorted(names_of(batch)),
              f"each of {batch} has one result")
        taken = {name: count for name, count in self.sink.taken().items()
                 if name.startswith(batch + "-")}
        equal(taken, {name: 1 for name in [*down(batch), *again]}, f"who of {batch} was sent to")
        for line in end.results:
            if line["recipient"] in again:
                check(line.get("possible_duplicate"), f"{line['recipient']} is marked", line)
        for message in self.sink.messages():
            before = Base.bytes.get(message["to"][0])
            check(before in (None, message["sha256"]), "the same bytes again", message["to"])
        return end

    def check_held(self, batch, words):
        end = self.engine.wait_end(batch)
        equal(end.place, "hold", f"{batch} is held")
        check(words in end.reason, f"{batch} is held with a reason", end.reason)
        equal([name for name in self.sink.taken() if name.startswith(batch + "-")], [],
              f"nothing of {batch} is sent")
        return end


class Segment:
    """The first segment that has groups: all is in it."""

    def __init__(self, case):
        self.name = sorted(name for name in os.listdir(case.path("journal"))
                           if name.startswith("journal-0"))[0]
        self.path = case.path("journal", self.name)
        with open(self.path, "rb") as file:
            self.bytes = bytearray(file.read())

    def cells(self):
        """(offset, kind, batch, ordinal)"""
        for at in range(SECTOR, len(self.bytes), CELL):
            kind = self.bytes[at + 4]
            batch, ordinal = struct.unpack_from("<II", self.bytes, at + 8)
            if kind:
                yield at, kind, batch, ordinal

    def number_of(self, case, batch):
        line = read_lines(case.path("active", f"{batch}.batch", "results.ndjson"))[0]
        return int(line["id"].split("-")[0])

    def find(self, kind, batch, ordinal=None):
        return next(at for at, k, b, o in self.cells()
                    if (k, b) == (kind, batch) and ordinal in (None, o))

    def flip(self, at):
        self.bytes[at] ^= 4
        self.write()

    def write(self):
        with open(self.path, "r+b") as file:
            file.write(self.bytes)


def case_a_settle_record():
    """One recipient is sent to again, and is told by name of file, offset, batch and line."""
    with Case("record") as case:
        segment = Segment(case)
        at = segment.find(DELIVERED, segment.number_of(case, "spring"), 7)
        segment.flip(at + 16)
        engine = case.start()
        words = engine.words()
        for wanted in (f"journal/{segment.name}, at byte {at} (32 bytes)", "batch spring",
                       "recipient 8", "marked possible_duplicate", "look for the cause"):
            check(wanted in words, f"the log says: {wanted}", words)
        told = [event for event in case.damages() if event["reason"] == "DAMAGE_RECORDS"]
        equal([(e["file"], e["offset"], e["size"], e["batch"], e["line"], e["line_last"])
               for e in told], [(segment.name, at, CELL, "spring", 8, 8)], "so do the events")
        told = [event for event in case.damages() if event["reason"] == "DAMAGED_BATCH"]
        equal([(e["batch"], e["count"]) for e in told], [("spring", len(down("spring")) + 1)],
              "and what it comes to")
        check(engine.status()["health"]["journal_corrupt_records"] >= 1, "the status counts")
        case.check_done("spring", again=["spring-7@up.test"])
        for batch in ["other", *SMALL]:
            case.check_done(batch)


def case_a_group_and_a_header():
    """The first cells of all groups, and the file's header: what they lead to is read without."""
    with Case("group") as case:
        segment = Segment(case)
        heads = [at for at, kind, _, _ in segment.cells() if kind == GROUP]
        for at in heads:
            segment.bytes[at + 16] ^= 1
        segment.bytes[100] ^= 1
        segment.write()
        engine = case.start()
        check("the header is broken" in engine.words(), "the header is told", engine.words())
        check(len(case.damages()) > 2, "groups too", case.damages())
        for batch in ALL:
            case.check_done(batch)


def case_an_accept_record():
    """Its batch is held: nobody can say what it is. The others go on."""
    with Case("accept") as case:
        segment = Segment(case)
        segment.flip(segment.find(ACCEPTED, segment.number_of(case, "spring")) + 16)
        case.start()
        end = case.check_held("spring", "the journal does not know of it")
        equal(len(end.results), len(up("spring")), "who has the mail can be read there")
        for batch in ["other", *SMALL]:
            case.check_done(batch)


def case_no_journal():
    """All of it is gone, but for rubbish: nothing is sent again, and new mail is."""
    with Case("gone") as case:
        for name in os.listdir(case.path("journal")):
            if not name.startswith("ids-"):
                os.unlink(case.path("journal", name))
        for name in ("results-missing", "journal-spare", "checkpoint-spare"):
            with open(case.path("journal", name), "wb") as file:
                file.write(os.urandom(3000))
        engine = case.start()
        for batch in ALL:
            case.check_held(batch, "the journal does not know of it")
        wait_for(lambda: "more batches that were accepted before" in engine.words(),
                 "it says that they are held")
        check("journal/results-missing: " in engine.words(), "and what is rubbish",
              engine.words())
        equal(send(engine, "fresh", ["a@fresh.test"]).place, "done", "a new batch is sent")


def case_beside_the_journal():
    """Ids, results and what is being prepared: derived, or of no meaning."""
    with Case("beside") as case:
        for name in os.listdir(case.path("journal")):
            if name.startswith("ids-"):
                with open(case.path("journal", name), "r+b") as file:
                    file.write(b"\0\xff" * 20)
        for name in ("results-missing", "checkpoint-spare"):
            with open(case.path("journal", name), "wb") as file:
                file.write(os.urandom(3000))
        for at, batch in enumerate(ALL):
            path = case.path("active", f"{batch}.batch", "results.ndjson")
            with open(path, "r+b") as file:
                if at % 3 == 0:
                    file.truncate(os.path.getsize(path) // 2)
                elif at % 3 == 1:
                    file.seek(50)
                    file.write(os.urandom(300))
                else:
                    os.unlink(path)
        case.start()
        for batch in ALL:
            case.check_done(batch)


def case_lines_and_records():
    """Both are gone, of somebody whom a checkpoint calls settled: told, and not sent to again."""
    with Case("lines", Base.checked) as case:
        path = case.path("active", "spring.batch", "results.ndjson")
        with open(path, "rb") as file:
            lines = file.read().splitlines(keepends=True)
        lost = [json.loads(line) for line in lines[3:6]]
        with open(path, "wb") as file:
            file.writelines(lines[:3] + lines[6:])
        case.start()
        told = [event for event in case.damages() if event["reason"] == "DAMAGED_RESULTS"]
        numbers = [line["line"] for line in lost]
        equal([(e["batch"], e["count"], e["line"], e["line_last"]) for e in told],
              [("spring", 3, min(numbers), max(numbers))], "the lines that are lost")
        end = case.engine.wait_end("spring")
        equal((end.place, len(end.results)), ("done", len(names_of("spring")) - 3), "it ends")
        check(not set(case.sink.taken()) & {line["recipient"] for line in lost},
              "nobody is sent to again")


def flip_at(path, where):
    with open(path, "rb") as file:
        content = bytearray(file.read())
    content[content.index(where)] ^= 1
    with open(path, "wb") as file:
        file.write(content)


def case_batches():
    """Bytes of accepted batches: not what was submitted is never sent."""
    with Case("batches") as case:
        where = [case.path("active", f"{name}.batch") for name in SMALL]
        flip_at(os.path.join(where[0], "message.eml"), b"Hello")
        flip_at(os.path.join(where[1], "recipients.ndjson"), b"m1-5@down")
        flip_at(os.path.join(where[2], "batch.json"), b"b@sender.test")
        os.truncate(os.path.join(where[3], "recipients.ndjson"), 60)
        os.truncate(os.path.join(where[4], "message.eml"), 250)
        os.unlink(os.path.join(where[5], "message.eml"))
        case.start()
        for name in SMALL[:4]:
            case.check_held(name, "not those that were accepted")
        for name in SMALL[4:]:
            case.check_held(name, "cannot go on: message.eml")
        for name in SMALL:
            case.check_held(name, "Who has no line in results.ndjson")
        for batch in ("spring", "other"):
            case.check_done(batch)


if __name__ == "__main__":
    with Place("damage") as base:
        Base.make(base)
        sys.exit(run_cases(cases_of(globals())))
