# SPDX-License-Identifier: Apache-2.0
"""kill -9, SIGTERM, and two engines on one spool (conformance.md 5: T1, T2, T9, V1, V2, V3, V6).

test_crash.py BUILD [SEED [ROUNDS]]. The oracle joins three lists: what was submitted, what the
sink wrote down before it said 250, and what the engine says in results.ndjson. A message that
came twice must be one whose end of data was sent shortly before a kill, or whose answer was lost.
"""
import datetime
import os
import random
import signal
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import (EACH, HEADER, LONG_S, SAME, Engine, Place, Sink, bsmtp_record,  # noqa: E402
                 cases_of, check, equal, make_bsmtp, make_merge, route, run_cases,
                 send, wait_for)
import smtp_peer  # noqa: E402

SEED = int(sys.argv[2]) if sys.argv[2:3] and sys.argv[2].isdigit() else 1
ROUNDS = int(sys.argv[3]) if sys.argv[3:4] and sys.argv[3].isdigit() else 20
BATCH = 2000
# From the end of data to the durable record: a group of the journal and one sync, which takes
# seconds where other tests write at the same time. A kill later than this after a delivery may not
# repeat it.
WINDOW_NS = 5 * 10**9
FAST = {"retry_first": "1s", "retry_max": "1s", "retry_jitter": 0, "suspend_first": "1s",
        "suspend_max": "1s", "per_connection": 500}


def make_round(engine, number, chance):
    """One of three kinds; returns the directory and the recipients."""
    names = [f"u{i}@r{number}-{i % 50}.test" for i in range(BATCH)]
    kind = number % 3
    if kind == 0:
        return make_merge(engine, f"r{number}", names, EACH), names
    if kind == 1:
        return make_merge(engine, f"r{number}", names, SAME), names
    records = []
    at = 0
    while at < BATCH:
        size = min(chance.randint(1, 20), BATCH - at)
        content = HEADER.encode() + b"Number %d\r\n.\r\n" % at
        records.append(bsmtp_record("b@sender.test", names[at:at + size], content))
        at += size
    half = len(records) // 2
    return make_bsmtp(engine, f"r{number}", [b"".join(records[:half]),
                                             b"".join(records[half:])]), names


def oracle(engine, sink, submitted, kills, lost):
    """LAW 1, 2, 6 from outside, in counts. lost: the sink loses replies."""
    ends = {batch: engine.wait_end(batch, LONG_S) for batch in submitted}
    arrivals = {}
    for message in sink.messages():
        for recipient in message["to"]:
            arrivals.setdefault(recipient, []).append((message["at_ns"], message["sha256"]))
    ambiguous = set()
    for event in engine.events():
        if event.get("type") != "Delivery" and event.get("possible_duplicate"):
            ambiguous.add(event["recipient"])
    again = forgotten = unexplained = altered = unflagged = 0
    for batch, recipients in submitted.items():
        end = ends[batch]
        equal(end.place, "done", f"{batch} is done")
        equal(end.counts(), {"accepted": BATCH, "delivered": BATCH}, f"counts of {batch}")
        results = {}
        for line in end.results:
            results.setdefault(line.get("recipient"), []).append(line)
        missing = [name for name in recipients if name not in arrivals]
        forgotten += len(missing)
        check(not missing, f"nothing of {batch} is lost", f"{len(missing)}: {missing[:5]}")
        wrong = [name for name in recipients if len(results.get(name, [])) != 1]
        check(not wrong, f"each recipient of {batch} has one result",
              f"{len(wrong)} of {len(end.results)} lines: {wrong[:5]} "
              f"{results.get(wrong[0]) if wrong else ''}")
        for name in recipients:
            mine = sorted(arrivals.get(name, []))
            altered += len({content for _, content in mine}) > 1
            for (before, _), (after, _) in zip(mine, mine[1:]):
                again += 1
                # What was in the socket at the kill the sink may read somewhat later.
                was_killed = any(-WINDOW_NS < kill - before < WINDOW_NS and kill <= after
                                 for kill in kills)
                if not was_killed and not (lost and name in ambiguous):
                    unexplained += 1
                if name in ambiguous and not any(line.get("possible_duplicate")
                                                 for line in results.get(name, [])):
                    unflagged += 1
    equal(unexplained, 0, "what came twice was in the window of a kill or lost its answer")
    equal(altered, 0, "what came twice came with the same bytes")
    equal(unflagged, 0, "what came twice behind an ambiguous end is called possible_duplicate")
    return {"lost": forgotten, "duplicates": again, "duplicates_outside": unexplained + unflagged,
            "altered": altered}


def rounds(place, name, sink, seed, keys):
    """Kill after kill; returns the engine and what is needed for the oracle."""
    chance = random.Random(seed)
    engine = Engine(place, routes=route("*", sink.port, **FAST, **keys), name=name,
                    extra='spool { path = "%s" free-space-min = 1M journal-segment = 64K '
                    'journal-segments = 2 }\n' % place.join(f"{name}.spool"))
    engine.start()
    submitted = {}
    kills = []
    for number in range(ROUNDS):
        directory, names = make_round(engine, number, chance)
        submitted[engine.submit(directory)[:-len(".batch")]] = names
        # The moment of the kill is what is tried out here: from claim and scan to the end.
        time.sleep(chance.choice([0.03, 0.1, 0.3, 1.2]) * chance.random())
        engine.kill()
        kills.append(time.monotonic_ns())
        engine.spawn()
    wait_for(engine.is_up, "up after the last kill")
    return engine, submitted, kills


def case_kill_nine():
    """T2: nothing is lost, and what repeats was in the window."""
    with Place("crash") as place:
        sink = Sink(place, "--share", "rcpt=451:2%", "--share", "dot=421:0.2%")
        engine, submitted, kills = rounds(place, "kill", sink, SEED, {"connections": 16})
        again = oracle(engine, sink, submitted, kills, False)["duplicates"]
        print(f"    {ROUNDS} kills, {ROUNDS * BATCH} recipients, {again} came twice")
        check(again <= ROUNDS * 16 * 100, "fewer than sessions times recipients a kill", again)
        equal(engine.terminate(), 0, "exit status")
        equal(os.listdir(os.path.join(engine.spool, "active")), [], "nothing is left in active/")


def case_kill_and_lost_answers():
    """T10 with kills: replies to the end of data get lost as well."""
    with Place("crash-lost") as place:
        sink = Sink(place, "--share", "dot=lost:1%", "--share", "dot=reset:0.5%")
        engine, submitted, kills = rounds(place, "lost", sink, SEED + 1000, {"connections": 8})
        again = oracle(engine, sink, submitted, kills, True)["duplicates"]
        print(f"    {ROUNDS} kills, {ROUNDS * BATCH} recipients, {again} came twice")
        check(again > 0, "lost answers make repeats", again)
        equal(engine.terminate(), 0, "exit status")


def when(event):
    return datetime.datetime.fromisoformat(event["event_time"]).timestamp()


def is_deferred(engine, count):
    """So many deferrals of the batch, and all of them on stable storage."""
    if (engine.progress("defer") or {}).get("deferred") != count:
        return False
    return 'ramjet_queue_recipients{state="journal"} 0' in engine.get("/metrics")[1]


def case_deferrals_survive():
    """V5: attempts and due times do not go back to the start with a kill. V4: who was refused for
    good beside them is not asked for again."""
    with Place("crash-defer") as place:
        sink = Sink(place)
        # Long enough for the kill to come before the retry, which nobody would have recorded.
        engine = Engine(place, routes=route("*", sink.port, **{**FAST, "retry_first": "12s",
                                                               "retry_max": "12s"})).start()
        names = [f"rcpt451x2-{i}@d.test" for i in range(50)]
        refused = [f"rcpt550-{i}@d.test" for i in range(50)]
        engine.submit(make_merge(engine, "defer", names + refused))
        wait_for(lambda: is_deferred(engine, 50) and engine.progress("defer")["bounced"] == 50,
                 "all were asked for")
        engine.kill()
        engine.start()
        wait_for(lambda: is_deferred(engine, 100), "and again")
        engine.kill()
        engine.start()
        end = engine.wait_end("defer")
        equal(end.counts(), {"accepted": 100, "delivered": 50, "bounced": 50}, "all have ended")
        equal({(line["type"], line["num_attempts"]) for line in end.results},
              {("Delivery", 3), ("Bounce", 1)}, "attempts go on counting")
        told = [event["recipient"] for event in engine.events() if event["type"] == "Bounce"]
        equal(sorted(told), sorted(refused), "refused once")
        first, second = ({event["recipient"]: event for event in engine.events()
                          if event.get("num_attempts") == number} for number in (1, 2))
        early = [name for name in names if when(second[name]) - when(first[name]) < 11.0]
        equal(early, [], "nothing is tried before it is due")
        equal({event["created_time"] for event in first.values()},
              {line["created_time"] for line in end.results}, "the age stays")


def case_half_written_batches():
    """V2: a writer that dies leaves nothing that is sent; the engine's own files are no batch."""
    with Place("crash-half") as place:
        sink = Sink(place)
        engine = Engine(place, routes=route("*", sink.port, **FAST)).start()
        make_merge(engine, "half", ["h@half.test"])  # stays in in/tmp
        end = send(engine, "whole", ["w@whole.test"])
        equal(end.place, "done", "the other one is sent")
        engine.kill()
        engine.start()
        send(engine, "whole2", ["w@whole.test"])
        equal(engine.find("half"), (None, None), "what is in in/tmp is not touched")
        check(os.path.isdir(os.path.join(engine.spool, "in", "tmp", "half.batch")), "it is there")
        equal(set(sink.taken()), {"w@whole.test"}, "and not sent")


def case_sigterm_drains():
    """T9: what is past the end of data is waited for; nothing comes twice."""
    with Place("term") as place:
        sink = Sink(place, "--latency-ms", "20")
        engine = Engine(place, routes=route("*", sink.port, **FAST, connections=16),
                        node='drain-timeout = "80s"').start()
        names = [f"u{i}@t{i % 20}.test" for i in range(BATCH)]
        engine.submit(make_merge(engine, "term", names))
        stops = 0
        while engine.find("term")[0] != "done" and stops < 10:
            wait_for(lambda: len(sink.messages()) > stops * 400 or
                     engine.find("term")[0] == "done", "some are sent")
            started = time.monotonic()
            equal(engine.terminate(), 0, "exit status of a stop")
            check(time.monotonic() - started < 75, "not only when the limit has passed",
                  time.monotonic() - started)
            stops += 1
            engine.start()
        end = engine.wait_end("term")
        equal(end.counts(), {"accepted": BATCH, "delivered": BATCH}, "all in the end")
        taken = sink.taken()
        equal(sorted(taken), sorted(names), "the sink has all")
        equal({name: count for name, count in taken.items() if count > 1}, {}, "none came twice")
        check(stops > 1, "it was stopped while it sent", stops)
        check("possible_duplicate" not in str(end.results), "nothing ambiguous", "")


def case_sigterm_waits_for_the_answer():
    """Nothing is cut behind the end of data: the answer comes a second later, and is recorded."""
    with Place("term-wait") as place:
        sink = Sink(place, "--share", "dot=slow1000:100%")
        engine = Engine(place, routes=route("*", sink.port, **FAST, connections=4),
                        node='drain-timeout = "80s"').start()
        names = [f"u{i}@wait{i}.test" for i in range(4)]
        engine.submit(make_merge(engine, "wait", names))
        wait_for(sink.messages, "a message is there, and its answer on its way")
        equal(engine.terminate(), 0, "exit status")
        check(engine.find("wait")[0] == "active" or len(sink.messages()) == 4, "amid the batch")
        engine.start()
        end = engine.wait_end("wait")
        equal(end.counts(), {"accepted": 4, "delivered": 4}, "all delivered")
        equal(sink.taken(), {name: 1 for name in names}, "and once")
        check("possible_duplicate" not in str(end.results), "nobody is in doubt", end.results)


def case_sigterm_at_any_moment():
    """In start, recovery, scan and sending: it ends in order, and nothing comes twice."""
    with Place("term-any") as place:
        sink = Sink(place)
        engine = Engine(place, routes=route("*", sink.port, **FAST, connections=4,
                                            rate='"1500/s"')).start()
        names = [f"u{i}@t{i % 20}.test" for i in range(BATCH)]
        engine.submit(make_merge(engine, "any", names))
        chance = random.Random(SEED)
        for _ in range(5):
            engine.process.send_signal(signal.SIGTERM)
            equal(engine.process.wait(LONG_S), 0, "exit status")
            engine.spawn()
            time.sleep(chance.random() * 0.3)  # any moment, that of the start too
            wait_for(lambda: engine.process.poll() is not None or blocks_term(engine),
                     "its signals are its own")
        wait_for(engine.is_up, "up")
        end = engine.wait_end("any")
        equal(end.counts(), {"accepted": BATCH, "delivered": BATCH}, "all in the end")
        equal(sink.taken(), {name: 1 for name in names}, "each once")
        equal(sorted(line["recipient"] for line in end.results), sorted(names), "one result each")
        equal(engine.terminate(), 0, "exit status")


def blocks_term(engine):
    """Before that the signal ends it as it ends any program: nothing has been touched."""
    with open(f"/proc/{engine.process.pid}/status", encoding="ascii") as file:
        blocked = next(line for line in file if line.startswith("SigBlk:"))
    return int(blocked.split()[1], 16) & 1 << (signal.SIGTERM - 1) != 0


class Mute(smtp_peer.Peer):
    """It never answers the end of data."""

    def __init__(self):
        self.has_heard = threading.Event()
        super().__init__()
        self.hold()

    def take(self, sender, recipients, body):
        self.has_heard.set()
        super().take(sender, recipients, body)


def case_sigterm_gives_up_in_time():
    """A server that never answers the end of data holds a stop for drain-timeout, no longer."""
    with Place("term-mute") as place:
        peer = Mute()
        engine = Engine(place, routes=route("*", peer.port, **FAST),
                        node='drain-timeout = "2s"').start()
        engine.submit(make_merge(engine, "mute", ["m@mute.test"]))
        wait_for(peer.has_heard.is_set, "the end of data was sent")
        started = time.monotonic()
        equal(engine.terminate(), 0, "exit status")
        took = time.monotonic() - started
        check(took > 1.5, "it waited for the limit, and ended", took)
        engine.start()
        equal(engine.find("mute")[0], "active", "the batch is still there")


def case_second_signal_ends_the_wait():
    with Place("term-twice") as place:
        peer = Mute()
        engine = Engine(place, routes=route("*", peer.port, **FAST),
                        node='drain-timeout = "10m"').start()
        engine.submit(make_merge(engine, "mute", ["m@mute.test"]))
        wait_for(peer.has_heard.is_set, "the end of data was sent")
        engine.process.send_signal(signal.SIGTERM)
        wait_for(lambda: engine.get("/healthz")[0] == 503, "it says that it stops")
        engine.process.send_signal(signal.SIGINT)
        equal(engine.process.wait(LONG_S), 0, "exit status, and not by the limit")


def case_two_engines():
    """The second one says so and ends; the first does not notice."""
    with Place("two") as place:
        sink = Sink(place)
        engine = Engine(place, routes=route("*", sink.port, **FAST)).start()
        second = Engine(place, routes=route("*", sink.port), name="second", spool=engine.spool)
        second.spawn()
        equal(second.process.wait(LONG_S), 1, "exit status of the second")
        words = second.words()
        check("another engine" in words or "already" in words, "it says why", words)
        check(str(engine.process.pid) in words, "and names the process", words)
        end = send(engine, "one", ["a@one.test"])
        equal(end.counts(), {"accepted": 1, "delivered": 1}, "the first works on")
        equal(engine.get("/healthz")[0], 200, "and its socket is still its own")
        engine.kill()
        third = Engine(place, routes=route("*", sink.port), name="third",
                       spool=engine.spool).start()
        equal(third.terminate(), 0, "a dead engine's lock is no lock")


if __name__ == "__main__":
    print(f"seed {SEED}")
    sys.exit(run_cases(cases_of(globals())))
