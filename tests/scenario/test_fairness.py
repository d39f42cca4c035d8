# SPDX-License-Identifier: Apache-2.0
"""A huge batch does not hold up a small one; priorities; slow sites do not hold up fast ones.

test_fairness.py BUILD. A small batch is tried several times, and one of them must be quick: a
machine may stand still for some seconds, but what waits in a queue does so each time. Behind the
huge batch it would wait for longer than anybody does here.
"""
import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import (Engine, Place, Sink, cases_of, check, equal, make_merge, route,  # noqa: E402
                 run_cases, wait_for)

QUICK_S = 3.0  # what takes 20 ms alone
TURNS = 4


def timed(engine, batch, recipients, **more):
    """Seconds until the batch is done."""
    directory = make_merge(engine, batch, recipients, **more)
    started = time.monotonic()
    engine.submit(directory)
    end = engine.wait_end(batch)
    equal(end.counts(), {"accepted": len(recipients), "delivered": len(recipients)}, batch)
    return time.monotonic() - started


def begin_huge(engine, sink, count=100000, domain="slow.test", **more):
    engine.submit(make_merge(engine, "huge", [f"h{i}@{domain}" for i in range(count)], **more))
    wait_for(lambda: len(sink.messages()) > 50, "the huge batch sends")


def drop_huge(engine):
    engine.order("huge", "cancel")
    engine.wait_end("huge")


def case_slow_site_and_fast_site():
    """100,000 for a site that takes 20 of them a second; ten for another one."""
    with Place("fair") as place:
        slow = Sink(place, "--latency-ms", "50", name="slow")
        fast = Sink(place, name="fast")
        engine = Engine(place, routes=route("*", fast.port) +
                        route("slow.test", slow.port, connections=4)).start()
        begin_huge(engine, slow)
        took = [timed(engine, f"small{turn}", [f"s{i}@fast.test" for i in range(10)])
                for turn in range(TURNS)]
        check(min(took) < QUICK_S, "a small batch to another site goes at once", took)
        check(engine.find("huge")[0] == "active", "the huge one is not done yet")
        drop_huge(engine)
        equal(engine.terminate(), 0, "exit status")


def case_same_site():
    """Both batches take turns at one site: the small one does not wait for the huge one's end."""
    with Place("fair") as place:
        slow = Sink(place, "--latency-ms", "20", name="slow")
        engine = Engine(place, routes=route("*", slow.port, connections=4,
                                            per_connection=1000)).start()
        begin_huge(engine, slow)
        took = [timed(engine, f"small{turn}", [f"s{i}@slow.test" for i in range(10)])
                for turn in range(TURNS)]
        check(min(took) < 6, "a small batch gets its turns", took)
        equal(engine.find("huge")[0], "active", "the huge one is not done yet")
        drop_huge(engine)
        equal(engine.terminate(), 0, "exit status")


def case_priority():
    """Two batches of one slow site: that of priority 9 is done while that of 1 has had little. The
    site stands still until all of both wait."""
    with Place("fair") as place:
        slow = Sink(place, "--latency-ms", "10", name="slow")
        engine = Engine(place, routes=route("*", slow.port, connections=4,
                                            per_connection=10000)).start()
        begin_huge(engine, slow, count=20000, priority=1)
        slow.pause()
        urgent = [f"u{i}@slow.test" for i in range(400)]
        engine.submit(make_merge(engine, "urgent", urgent, priority=9))

        def all_wait():
            status = engine.status()
            queue = status["queue"]
            waiting = queue["ready"] + queue["loading"] + queue["flight"]
            return waiting + status["totals"]["delivered"] == 20400
        wait_for(all_wait, "all are with the workers")
        before = len(slow.messages())
        slow.go_on()
        equal(engine.wait_end("urgent").counts(), {"accepted": 400, "delivered": 400}, "urgent")
        names = [message["to"][0] for message in slow.messages()]
        last = max(at for at, name in enumerate(names) if name.startswith("u"))
        others = last + 1 - before - 400
        # One turn in 73 by ageing, and what was read ahead when the urgent one came.
        check(others < 300, "few of the other batch meanwhile", others)
        drop_huge(engine)
        equal(engine.terminate(), 0, "exit status")


def case_lowest_priority_does_not_starve():
    with Place("fair") as place:
        slow = Sink(place, "--latency-ms", "2", name="slow")
        engine = Engine(place, routes=route("*", slow.port, connections=2,
                                            per_connection=10000)).start()
        begin_huge(engine, slow, count=20000, priority=9)
        directory = make_merge(engine, "low", [f"l{i}@slow.test" for i in range(20)], priority=0)
        engine.submit(directory)
        end = engine.wait_end("low")
        equal(end.counts(), {"accepted": 20, "delivered": 20}, "it comes through")
        equal(engine.find("huge")[0], "active", "while the other one sends")
        drop_huge(engine)
        equal(engine.terminate(), 0, "exit status")


def case_dead_site():
    """A site that never answers holds up nobody else."""
    with Place("fair") as place:
        mute = Sink(place, "--share", "connect=mute:100%", name="mute")
        fast = Sink(place, name="fast")
        engine = Engine(place, routes=route("*", fast.port) +
                        route("mute.test", mute.port, connections=50),
                        extra="limits { sessions = 200 }\n",
                        node='drain-timeout = "1s"').start()
        engine.submit(make_merge(engine, "huge", [f"m{i}@mute.test" for i in range(50000)]))
        wait_for(lambda: engine.status()["sessions"] >= 50, "all its connections wait")
        took = [timed(engine, f"small{turn}", [f"s{i}@fast.test" for i in range(1000)])
                for turn in range(TURNS)]
        check(min(took) < QUICK_S, "the other one goes at once", took)
        equal(engine.terminate(), 0, "exit status")


def case_many_small_batches_behind_a_scan():
    """A batch of a million lines is being scanned; small ones are scanned in turn with it."""
    with Place("fair") as place:
        sink = Sink(place)
        engine = Engine(place, routes=route("*", sink.port, connections=20) +
                        route("held.test", sink.port, rate='"1/m"')).start()
        huge = b"".join(b'{"to":"h%d@held.test"}\n' % i for i in range(1000000))
        engine.submit(make_merge(engine, "huge", huge))
        took = [timed(engine, f"small{turn}", [f"s{turn}@fast.test"]) for turn in range(5)]
        check(min(took) < QUICK_S, "small ones go on", took)
        engine.order("huge", "cancel")
        equal(engine.wait_end("huge", 60).summary["accepted"], 1000000, "all of it was accepted")
        equal(engine.terminate(), 0, "exit status")


if __name__ == "__main__":
    sys.exit(run_cases(cases_of(globals())))
