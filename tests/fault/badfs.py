# SPDX-License-Identifier: Apache-2.0
"""A disk that says no: EIO, ENOSPC, EROFS, slow, by kind of operation, under load (T6).

badfs.py BUILD [CASE ...]. The spool lies on a file system of the tests' own (badfs.c) that refuses
what a rule names. After each fault the same account is held: every recipient has exactly one line
in results.ndjson and the message it was submitted with, who got two is called possible_duplicate,
and the engine has said in words what happened to which file.
"""
import concurrent.futures
import os
import shutil
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "scenario"))
from lib import (SKIP, Engine, Place, Sink, bsmtp_record, check, equal, make_bsmtp,  # noqa: E402
                 make_merge, program, route, run_cases, skip, wait_for)

FAST = {"retry_first": "1s", "retry_max": "1s", "retry_jitter": 0, "suspend_first": "1s",
        "suspend_max": "1s", "connections": 4}
SPOOL = ('spool {{ path = "{}" free-space-min = 0 journal-segment = 64K journal-segments = 2 }}\n'
         'limits {{ recipients = 20000 batches = 64 domains = 1000 sites = 100 }}\n')
RECIPIENTS = 600
JOBS = 4
END_S = 120  # a deadline for an end that comes at once
TRANSACTIONS = 2 * 4 * 100  # sites, connections, recipients that may be in one transaction
HELD = "held.test"  # its server says nothing before the first fault


class Bad:
    """A place whose spool lies on badfs, with an engine and a sink; and one more, which holds every
    fifth recipient of a batch back until the first fault is set: none is through before."""

    def __init__(self, name, latency_ms=3):
        self.place = Place(name)
        self.mount = self.place.join("mount")
        os.mkdir(self.mount)
        os.mkdir(self.place.join("below"))
        self.layer = self.place.run([program("tests", "fault", "badfs"), self.mount,
                                     self.place.join("below")], stderr=subprocess.DEVNULL)
        wait_for(lambda: os.path.ismount(self.mount) or self.layer.poll() is not None, "mounted")
        if self.layer.poll() is not None:
            skip("FUSE cannot be used here")
        spool = os.path.join(self.mount, "spool")
        self.sink = Sink(self.place, "--latency-ms", str(latency_ms))
        self.gate = Sink(self.place, name="gate")
        self.gate.pause()
        routes = route("*", self.sink.port, **FAST) + route(HELD, self.gate.port, **FAST)
        self.engine = Engine(self.place, routes=routes,
                             extra=SPOOL.format(spool), spool=spool).start()
        self.batches = {}

    def faults(self, *rules):
        with open(os.path.join(self.mount, ".faults"), "wb", buffering=0) as file:
            file.write(("\n".join(rules) + "\n").encode())
        self.gate.go_on()

    def messages(self):
        return self.sink.messages() + self.gate.messages()

    def taken(self):
        return self.sink.taken() | self.gate.taken()

    def refused(self):
        with open(os.path.join(self.mount, ".faults"), encoding="ascii") as file:
            return int(file.read())

    def submit(self, batch, count=RECIPIENTS):
        hosts = [HELD, *(f"{batch}{i}.test" for i in range(1, 5))]
        names = [f"{batch}{i}@{hosts[i % 5]}" for i in range(count)]
        self.batches[batch] = names
        self.engine.submit(make_merge(self.engine, batch, names))

    def submit_when_possible(self, batch, count):
        """The directory is made below, where nothing is refused."""
        names = [f"{batch}{i}@{batch}.test" for i in range(count)]
        self.batches[batch] = names
        above, self.engine.spool = self.engine.spool, self.place.join("below", "spool")
        try:
            directory = make_merge(self.engine, batch, names)
        finally:
            self.engine.spool = above
        os.rename(directory, self.place.join("below", "spool", "in", "new", f"{batch}.batch"))

    def begin(self, batch="b", count=RECIPIENTS, sent=60):
        """A batch of which some has been sent."""
        self.submit(batch, count)
        wait_for(lambda: len(self.sink.messages()) >= sent, "it sends")

    def lines(self, batch):
        """Of results that are written."""
        path = self.place.join("below", "spool", "active", f"{batch}.batch", "results.ndjson")
        if not os.path.exists(path):
            return 0
        with open(path, "rb") as file:
            return file.read().count(b"\n")

    def wait_exit(self):
        """It ends by itself, and says why."""
        equal(self.engine.process.wait(END_S), 1, "exit status")
        check("stopping" in self.engine.words(), "it says that it stops", self.engine.words())

    def account(self, most_twice=0, lines=True):
        """LAW 1, 2, 4, 6 from outside."""
        marked = {event["recipient"] for event in self.engine.events()
                  if event.get("possible_duplicate")}
        for batch, names in self.batches.items():
            end = self.engine.wait_end(batch, 60)
            equal(end.place, "done", f"{batch} is done")
            equal(end.counts(), {"accepted": len(names), "delivered": len(names)}, "counts")
            told = sorted(line["recipient"] for line in end.results)
            check(told == sorted(names), f"each recipient of {batch} has one result",
                  f"{len(told)} lines for {len(names)}")
            marked |= {line["recipient"] for line in end.results if line.get("possible_duplicate")}
            taken = self.taken()
            lost = [name for name in names if name not in taken]
            check(not lost, f"nothing of {batch} is lost", lost[:5])
        contents = {}
        for message in self.messages():
            for recipient in message["to"]:
                contents.setdefault(recipient, set()).add(message["sha256"])
        twice = {name for name, count in taken.items() if count > 1}
        check(len(twice) <= most_twice, "few twice", len(twice))
        if lines:
            check(twice <= marked, "who got two is called possible_duplicate",
                  sorted(twice - marked)[:5])
        check(all(len(content) == 1 for content in contents.values()), "the same bytes")
        print(f"    {len(twice)} came twice, {self.refused()} operations refused")

    def __enter__(self):
        return self

    def __exit__(self, *trace):
        if self.engine.is_alive():
            self.engine.kill()
        subprocess.run(["umount", "-l", self.mount], check=False)
        self.place.__exit__(*trace)


def stops_and_recovers(name, rules, words, count=RECIPIENTS):
    with Bad(name) as bad:
        bad.begin(count=count)
        bad.faults(*rules)
        bad.wait_exit()
        said = bad.engine.words()
        check(all(word in said for word in words), "it names the file and what to do", said)
        equal(bad.engine.find("b")[0], "active", "the batch is where it was")
        bad.faults()
        bad.engine.start()
        bad.account(TRANSACTIONS)
        equal(bad.engine.terminate(), 0, "exit status of the next one")


def case_sync_of_the_journal():
    stops_and_recovers("sync", ["fsync journal/journal-0 EIO"],
                       ["journal/journal-0", "fdatasync", "Input/output error", "dmesg"])


def case_write_of_the_journal():
    stops_and_recovers("write", ["write journal/journal-0 ENOSPC"],
                       ["journal/journal-0", "cannot be written", "make room"])


def case_next_segment():
    """The journal goes on in the segment it has; then it cannot."""
    stops_and_recovers("segment", ["allocate journal ENOSPC", "write journal-spare ENOSPC",
                                   "rename journal/journal-0 ENOSPC"],
                       ["journal/journal-0", "disk is full"], 5000)


def case_read_only():
    """Mounted read-only under it, as ext4 does at an error."""
    with Bad("erofs") as bad:
        bad.begin()
        bad.faults("change - EROFS", "fsync - EROFS", "fsyncdir - EROFS")
        bad.wait_exit()
        check("read-only" in bad.engine.words(), "it says so", bad.engine.words())
        bad.engine.spawn()
        equal(bad.engine.process.wait(END_S), 1, "it does not start on such a disk")
        check("Read-only file system" in bad.engine.words(), "and says why", bad.engine.words())
        bad.faults()
        bad.engine.start()
        bad.account(TRANSACTIONS)


def waits(bad, what):
    wait_for(lambda: bad.engine.status()["health"]["results_waiting"] > 0, what)


def case_results():
    """Mail goes on; the batch waits for its lines, and does not leave without them."""
    with Bad("results") as bad:
        bad.begin()
        bad.faults("write results.ndjson ENOSPC")
        wait_for(lambda: bad.engine.status()["totals"]["delivered"] == RECIPIENTS, "all delivered")
        waits(bad, "status tells")
        wait_for(lambda: "results.ndjson cannot be written" in bad.engine.words(), "so do words")
        check("make room" in bad.engine.words(), "and what to do", bad.engine.words())
        check("ramjet_results_waiting 1" in bad.engine.get("/metrics")[1], "and metrics")
        equal(bad.engine.find("b")[0], "active", "the batch waits")
        bad.faults()
        bad.account()
        wait_for(lambda: "is written again" in bad.engine.words(), "the end of it is told")
        equal(bad.engine.terminate(), 0, "exit status")


def case_results_and_a_kill():
    """Lines that were never written are made again from the journal."""
    with Bad("results-kill") as bad:
        bad.begin()
        bad.faults("write results.ndjson EIO", "create results.ndjson EIO")
        wait_for(lambda: bad.engine.status()["totals"]["delivered"] == RECIPIENTS, "all delivered")
        waits(bad, "status tells")
        bad.engine.kill()
        bad.engine.start()
        wait_for(lambda: bad.engine.status()["health"]["oddities"].get("batch_open_waits", 0) > 1,
                 "the next one tries again and again")
        equal(bad.engine.find("b")[0], "active", "and does not give the batch away")
        bad.faults()
        bad.account(TRANSACTIONS)


def case_results_and_a_stop():
    """An orderly stop cannot be one: the next start looks for what is missing."""
    with Bad("results-stop") as bad:
        bad.engine.terminate()
        bad.engine.write_config(route("*", bad.sink.port, **FAST), 'drain-timeout = "1s"',
                                SPOOL.format(bad.engine.spool))
        bad.engine.start()
        bad.begin()
        bad.faults("write results.ndjson ENOSPC")
        waits(bad, "status tells")
        equal(bad.engine.terminate(), 1, "exit status")
        check("ended with an error" in bad.engine.words(), "and that it is no orderly stop")
        check("completes them" in bad.engine.words(), "it says what it leaves", bad.engine.words())
        bad.faults()
        bad.engine.start()
        bad.account(TRANSACTIONS)


def case_sync_of_results():
    """Nobody knows what is there: the engine ends, and the next one writes the file anew."""
    with Bad("results-sync") as bad:
        bad.begin()
        bad.faults("fsync results.ndjson EIO")
        bad.wait_exit()
        check("results.ndjson" in bad.engine.words(), "it names it", bad.engine.words())
        bad.faults()
        bad.engine.start()
        bad.account(TRANSACTIONS)


def unread(bad):
    """Killed, and what it has written of the batch cannot be read by the next one."""
    bad.begin()
    wait_for(lambda: bad.lines("b") > 20, "some lines are written")
    bad.engine.kill()
    bad.faults("read results.ndjson EIO")
    bad.engine.start()
    wait_for(lambda: bad.engine.status()["health"]["results_unread"] == 1, "status tells")
    wait_for(lambda: "b.batch/results.ndjson: cannot be read" in bad.engine.words(), "so do words")
    check("move the file away" in bad.engine.words(), "and what to do", bad.engine.words())
    check("ramjet_results_unread 1" in bad.engine.get("/metrics")[1], "and metrics")
    equal(bad.engine.find("b")[0], "active", "the batch waits")


def case_results_that_cannot_be_read():
    """The batch waits, others do not; it goes on when they can be read."""
    with Bad("results-unread") as bad:
        unread(bad)
        bad.submit("other", 10)
        bad.engine.wait_end("other")
        bad.faults()
        wait_for(lambda: "results.ndjson are read again" in bad.engine.words(), "it tells the end")
        bad.account(TRANSACTIONS)


def case_results_that_cannot_be_read_and_a_cancel():
    """A cancelled batch does not wait: its lines are made again, and the file is left aside."""
    with Bad("results-cancel") as bad:
        unread(bad)
        bad.engine.order("b", "cancel")
        wait_for(lambda: bad.engine.status()["health"]["results_unread"] == 0, "it goes on")
        bad.faults()
        end = bad.engine.wait_end("b", 60)
        names = sorted(line["recipient"] for line in end.results)
        equal(names, sorted(bad.batches["b"]), "each recipient has one result")
        check(end.counts().get("cancelled", 0) > 0, "the rest is cancelled", end.counts())
        check(os.path.exists(os.path.join(end.path, "results.ndjson.unread")), "the file is there")


def case_event_log():
    """Lines of the log are lost, and that is told; nothing else is."""
    with Bad("log") as bad:
        bad.begin()
        bad.faults("write events.ndjson EIO", "create log/ EIO", "rename log/ EIO")
        wait_for(lambda: "events.ndjson: lines are lost" in bad.engine.words(), "words tell")
        bad.engine.wait_end("b")
        check(bad.engine.status()["health"]["log_failures"] > 0, "status counts")
        bad.faults()
        bad.submit("c", 20)
        bad.account(lines=False)
        seen = {event["recipient"] for event in bad.engine.events()}
        check(set(bad.batches["c"]) <= seen, "later lines are there, and whole")


def case_rename_to_done():
    """The batch waits, settled; it leaves when it can, also behind a kill."""
    with Bad("done") as bad:
        bad.begin()
        bad.faults("rename done/ EIO", "mkdir done/ EIO")
        wait_for(lambda: bad.engine.status()["health"]["oddities"].get("batch_cannot_leave"),
                 "it cannot leave, and status tells")
        equal(bad.engine.find("b")[0], "active", "it waits")
        equal(bad.engine.get("/healthz")[0], 200, "the engine is well")
        bad.engine.kill()
        bad.engine.start()
        wait_for(lambda: bad.engine.status()["health"]["oddities"].get("batch_cannot_leave"),
                 "the next one cannot either")
        bad.faults()
        bad.account()


def case_sources_of_a_batch():
    """Whose files of pickup/ cannot be told: the engine starts, and mails none of them twice."""
    with Bad("sources") as bad:
        def drop(name):
            path = bad.place.join("below", "spool", "pickup", name)
            with open(f"{path}.tmp", "w", encoding="ascii") as file:
                file.write(f"x-sender: b@sender.test\nx-receiver: {name}@p.test\n\nText.\n")
            os.rename(f"{path}.tmp", f"{path}.eml")
            return f"{path}.eml"
        bad.faults("read sources.list EIO")
        first = drop("first")
        wait_for(lambda: bad.sink.taken() == {"first@p.test": 1}, "it is sent")
        wait_for(lambda: "/sources.list, or a file of pickup/" in bad.engine.words(),
                 "the batch cannot leave, and words tell")
        bad.engine.kill()
        bad.engine.start()
        wait_for(lambda: "/sources.list: cannot be read: " in bad.engine.words(),
                 "nothing is collected, and words tell")
        second = drop("second")
        wait_for(lambda: bad.engine.status()["health"]["oddities"].get("batch_cannot_leave", 0) > 4,
                 "it is tried again")
        check(os.path.exists(first) and os.path.exists(second), "both files are left")
        bad.faults()
        wait_for(lambda: "pickup: files are collected again" in bad.engine.words(), "words tell")
        wait_for(lambda: not os.path.exists(first) and not os.path.exists(second), "both go")
        wait_for(lambda: len(bad.sink.messages()) > 1, "the second is sent")
        equal(bad.engine.terminate(), 0, "exit status")
        equal(bad.sink.taken(), {"first@p.test": 1, "second@p.test": 1}, "each once")


def case_reads_of_the_batch():
    """Recipients whose bytes cannot be read are put off with words; nobody gets others."""
    with Bad("read") as bad:
        bad.begin()
        bad.faults("read recipients.ndjson EIO")
        wait_for(lambda: bad.engine.status()["totals"]["deferred"] > 0, "they are put off")
        bad.faults()
        bad.account()
        events = [event for event in bad.engine.events() if event["type"] == "TransientFailure"]
        check(any("TEMP_CONTENT" in str(event) for event in events), "and told why", events[:1])


def case_reads_of_bsmtp():
    with Bad("read-bsmtp", 20) as bad:
        names = [f"m{i}@m{i % 5}.test" for i in range(200)]
        bad.batches["m"] = names
        records = b"".join(bsmtp_record("b@sender.test", [name],
                                        b"Subject: %d\r\n\r\nText.\r\n" % i)
                           for i, name in enumerate(names))
        bad.engine.submit(make_bsmtp(bad.engine, "m", records))
        wait_for(lambda: len(bad.sink.messages()) >= 20, "it sends")
        bad.faults("read messages- EIO")
        wait_for(lambda: bad.refused() > 0, "reads fail")
        bad.faults()
        bad.account()


def case_listing_of_new():
    """Nothing is claimed, and the engine says so; later everything is."""
    with Bad("list") as bad:
        bad.begin()
        bad.faults("list in/new EIO")
        bad.submit("late", 10)
        bad.engine.wait_end("b")
        wait_for(lambda: bad.engine.status()["health"]["oddities"].get("new_not_listed"),
                 "status tells")
        equal(bad.engine.find("late")[0], os.path.join("in", "new"), "it is not claimed")
        bad.faults()
        bad.account()


def case_slow():
    """Each sync takes a second: mail goes on, and nothing false is said."""
    with Bad("slow") as bad:
        bad.faults("fsync - slow 700", "fsyncdir - slow 100")
        started = time.monotonic()
        bad.submit("s", 300)
        bad.account()
        print(f"    {time.monotonic() - started:.1f} s")
        bad.faults()
        equal(bad.engine.terminate(), 0, "exit status")


def case_stop_on_a_slow_disk():
    """A stop waits for the records of what was sent: the next start sends nobody a second one."""
    with Bad("slow-stop") as bad:
        bad.faults("fsync journal/journal-0 slow 1000")
        bad.begin(count=200, sent=20)
        equal(bad.engine.terminate(), 0, "exit status")
        bad.faults()
        bad.engine.start()
        bad.account()


def case_no_inodes():
    """No new file can be made, and what is there can be written: all waits, nothing is lost."""
    with Bad("inodes") as bad:
        bad.begin()
        bad.faults("create - ENOSPC", "mkdir - ENOSPC")
        bad.submit_when_possible("late", 10)
        wait_for(lambda: bad.engine.process.poll() is not None or
                 set(bad.batches["b"]) <= set(bad.taken()), "it goes on, or stops with words")
        bad.faults()
        if not bad.engine.is_alive():
            check("journal-0" in bad.engine.words(), "which file", bad.engine.words())
            bad.engine.start()
        bad.account(TRANSACTIONS)


def main():
    if os.geteuid() != 0 or not os.path.exists("/dev/fuse") or not shutil.which("umount"):
        skip("only root may mount, and FUSE is needed")
    cases = {name[5:]: value for name, value in globals().items() if name.startswith("case_")}
    if sys.argv[2:]:
        return run_cases([cases[name] for name in sys.argv[2:]])
    # They wait more than they work: some at a time, each in a process of its own.
    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        jobs = [pool.submit(subprocess.run, [sys.executable, *sys.argv[:2], name],
                            capture_output=True, text=True, check=False) for name in cases]
    for job in jobs:
        print("\n".join(line for line in job.result().stdout.splitlines()
                        if not line.endswith("failed")))
    codes = [job.result().returncode for job in jobs]
    if SKIP in codes:
        skip("FUSE cannot be used here")
    print(f"{codes.count(0)} passed, {len(codes) - codes.count(0)} failed")
    return 0 if not any(codes) else 1


if __name__ == "__main__":
    sys.exit(main())
