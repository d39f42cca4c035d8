# SPDX-License-Identifier: Apache-2.0
"""A disk that fills up: intake stops, deliveries go on, nothing false is said, nothing is lost.

test_space.py BUILD. The spool lies on a small tmpfs in a mount namespace of the test's own; where
that may not be made the test is skipped.
"""
import os
import shutil
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import (SAME, Engine, Place, Sink, cases_of, check, equal, make_merge, route,  # noqa: E402
                 run_cases, skip, wait_for)

INSIDE = "RAMJET_TEST_NAMESPACE"
MIB = 1 << 20
FAST = {"retry_first": "1s", "retry_max": "1s", "retry_jitter": 0}


def enter_namespace():
    """Runs this program again where it may mount."""
    for flags in (["-m"], ["-rm"]):
        wrap = ["unshare", *flags, "--propagation", "private"]
        if shutil.which("unshare") and subprocess.run([*wrap, "mount", "-t", "tmpfs", "x", "/mnt"],
                                                      capture_output=True).returncode == 0:
            os.environ[INSIDE] = "yes"
            os.execvp("unshare", [*wrap, sys.executable, *sys.argv])
    skip("no mount namespace may be made here")


class Small:
    """A place whose spool is a file system of `size` bytes."""

    def __init__(self, name, size, keys="", **more):
        self.place = Place(name)
        self.spool = self.place.join("spool")
        os.mkdir(self.spool)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "small", self.spool],
                       check=True)
        self.sink = Sink(self.place, *more.get("sink", ()))
        self.engine = Engine(
            self.place, routes=route("*", self.sink.port, **FAST, **more.get("route", {})),
            spool=self.spool, extra=f'spool {{ path = "{self.spool}" {keys} }}\n').start()

    def free(self):
        stat = os.statvfs(self.spool)
        return stat.f_bavail * stat.f_frsize

    def fill(self, leave=0):
        """Fills it up but for `leave` bytes."""
        with open(os.path.join(self.spool, "filler"), "ab", buffering=0) as file:
            while self.free() > leave:
                size = min(MIB, self.free() - leave)
                try:
                    file.write(b"x" * size)
                except OSError:
                    return

    def empty(self):
        os.unlink(os.path.join(self.spool, "filler"))

    def __enter__(self):
        return self

    def __exit__(self, *trace):
        self.place.__exit__(*trace)
        subprocess.run(["umount", "-l", self.spool], check=False)


def names(count, what):
    return [f"{what}{i}@{what}{i % 10}.test" for i in range(count)]


def case_intake_stops_deliveries_go_on():
    """Below free-space-min nothing is claimed; what was accepted is delivered; then all goes on."""
    with Small("space", "32m", "free-space-min = 8M journal-segment = 64K",
               sink=("--latency-ms", "10"), route={"connections": 2}) as small:
        engine = small.engine
        engine.submit(make_merge(engine, "before", names(400, "b")))
        wait_for(lambda: len(small.sink.messages()) > 20, "it sends")
        waiting = make_merge(engine, "after", names(20, "a"))
        small.fill(4 * MIB)
        wait_for(lambda: engine.status()["health"]["short_of_space"], "it notices")
        engine.submit(waiting)
        write_pickup(engine)
        end = engine.wait_end("before")
        equal(end.counts(), {"accepted": 400, "delivered": 400}, "what was accepted is delivered")
        equal(len(end.results), 400, "with all its results")
        equal(engine.find("after")[0], os.path.join("in", "new"), "the new one is not claimed")
        equal(engine.get("/healthz")[0], 200, "the engine is well")
        check("ramjet_short_of_space 1" in engine.get("/metrics")[1], "metrics tell")
        small.empty()
        equal(engine.wait_end("after").counts(), {"accepted": 20, "delivered": 20}, "now it is")
        check(not engine.status()["health"]["short_of_space"], "and status says so")
        wait_for(lambda: "p@pick.test" in small.sink.taken(), "the mail in pickup/ goes too")
        equal(engine.terminate(), 0, "exit status")


def write_pickup(engine):
    with open(os.path.join(engine.spool, "pickup", "p.eml"), "w", encoding="utf-8") as file:
        file.write("X-Sender: a@b.test\nX-Receiver: p@pick.test\n" + SAME.replace("\r\n", "\n"))


def case_disk_full_to_the_last_byte():
    """The journal cannot go on: the engine stops, says why, and recovers with all of it."""
    with Small("full", "48m", "free-space-min = 1M journal-segment = 64K journal-segments = 2",
               sink=("--latency-ms", "3"), route={"connections": 8}) as small:
        engine = small.engine
        engine.submit(make_merge(engine, "big", names(6000, "f")))
        wait_for(lambda: len(small.sink.messages()) > 200, "it sends")
        small.fill()
        ended = wait_for(lambda: "ended" if not engine.is_alive() else
                         engine.find("big")[0] == "done" and "done", "it ends, or gets through", 60)
        print(f"    the engine {ended}")
        if ended == "ended":
            equal(engine.process.returncode, 1, "exit status")
            check("disk is full" in engine.words(), "it says why", engine.words())
            equal(engine.find("big")[0], "active", "the batch is where it was")
            engine.spawn()  # still full: it may refuse, but must not lose or invent anything
            wait_for(lambda: not engine.is_alive() or up(engine), "it starts or says why not")
            if engine.is_alive():
                engine.kill()
            small.empty()
            engine.start()
        else:
            small.empty()
        end = engine.wait_end("big", 60)
        equal(end.counts(), {"accepted": 6000, "delivered": 6000}, "all in the end")
        taken = small.sink.taken()
        equal(sorted(taken), sorted(names(6000, "f")), "the sink has all")
        again = sum(1 for count in taken.values() if count > 1)
        check(again <= 8 * 100 + 1000, "few twice", again)
        equal(engine.terminate(), 0, "exit status")


def up(engine):
    try:
        return engine.is_up()
    except Exception:  # pylint: disable=broad-except
        return False


def case_no_room_for_the_end():
    """summary.json and done/ need room: the batch waits in active/, whole, until there is some."""
    with Small("end", "16m", "free-space-min = 1M journal-segment = 64K") as small:
        engine = small.engine
        engine.submit(make_merge(engine, "slow", [f"slow1000-{i}@e.test" for i in range(3)]))
        wait_for(lambda: engine.find("slow")[0] == "active", "it is active")
        wait_for(lambda: engine.status()["queue"]["flight"] > 0, "it is in flight")
        small.fill()
        wait_for(lambda: len(small.sink.taken()) == 3, "it is sent")
        wait_for(lambda: engine.status()["totals"]["delivered"] == 3, "and settled")
        started = time.monotonic()
        wait_for(lambda: time.monotonic() - started > 1.5 or engine.find("slow")[0] == "done",
                 "time to leave")
        where = engine.find("slow")[0]
        print(f"    with a full disk it is in {where}/")
        small.empty()
        end = engine.wait_end("slow")
        equal(end.counts(), {"accepted": 3, "delivered": 3}, "it leaves, with its summary")
        equal(end.summary["state"], "done", "which is whole")
        equal(engine.terminate(), 0, "exit status")


def case_no_room_for_rejects():
    """A batch whose rejects cannot be written is not accepted with false ones."""
    with Small("rejects", "24m", "free-space-min = 0 journal-segment = 64K") as small:
        engine = small.engine
        lines = b"".join(b'{"to":"nobody %d"}\n{"to":"r%d@rej.test"}\n' % (i, i)
                         for i in range(3000))
        directory = make_merge(engine, "rejects", lines, max_reject="100%")
        small.fill(100 * 1024)
        engine.submit(directory)
        wait_for(lambda: engine.find("rejects")[0] != os.path.join("in", "new"), "it is claimed")
        started = time.monotonic()
        wait_for(lambda: time.monotonic() - started > 1.0, "time to scan")
        small.empty()
        end = engine.wait_end("rejects")
        print(f"    it ended in {end.place}/: {end.reason.strip()}")
        if end.place == "done":
            equal(end.counts(), {"accepted": 3000, "rejected": 3000, "delivered": 3000}, "counts")
            equal(len(end.rejects), 3000, "each rejected line is told")
        else:
            check("rejects.ndjson" in end.reason, "it says why", end.reason)
            equal(small.sink.taken(), {}, "nothing was sent")
        equal(engine.terminate(), 0, "exit status")


if __name__ == "__main__":
    if INSIDE not in os.environ:
        enter_namespace()
    sys.exit(run_cases(cases_of(globals())))
