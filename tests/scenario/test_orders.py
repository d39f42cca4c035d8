# SPDX-License-Identifier: Apache-2.0
"""Control files: pause, resume, cancel, retry; while scanning, sending, deferred, restarted.

test_orders.py BUILD
"""
import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import (Engine, Place, Sink, check, equal, free_port, make_merge, read_text,  # noqa: E402
                 route, run_all, send, soon, wait_for, write)

FAST = {"retry_first": "1s", "retry_max": "2s", "retry_jitter": 0, "suspend_first": "1s",
        "suspend_max": "1s"}
place = sink = slow = engine = dead_port = None


def taken(batch):
    """How many of a batch the sinks have."""
    return sum(count for name, count in {**sink.taken(), **slow.taken()}.items()
               if name.startswith(f"{batch}-") or f"-{batch}-" in name)


def give(batch, verb):
    engine.order(batch, verb)
    path = os.path.join(engine.spool, "in", "ctl", f"{batch}.{verb}")
    wait_for(lambda: not os.path.exists(path), f"{verb} of {batch} was obeyed")


def give_amid(batch, verb):
    """To a batch of slow.test that sends. Its server stands still meanwhile, lest it get through
    before the order is obeyed."""
    wait_for(lambda: taken(batch) > 20, "it sends")
    slow.pause()
    give(batch, verb)
    slow.go_on()


def settle(look, what):
    """The value of look() when nobody is in flight, and it stands still for half a second."""
    last = [look(), engine.status()["totals"]]
    seen = [0]

    def stands():
        status = engine.status()
        now = [look(), status["totals"]]
        stands_still = now == last and status["queue"]["flight"] == 0
        seen[0] = seen[0] + 1 if stands_still else 0
        last[:] = now
        return seen[0] > 25
    wait_for(stands, what)
    return last[0]


def case_pause_and_resume():
    """A batch of a slow site stops in the middle, and goes on."""
    names = [f"p1-{i}@slow.test" for i in range(1500)]
    engine.submit(make_merge(engine, "p1", names))
    give_amid("p1", "pause")
    stopped = settle(lambda: taken("p1"), "it stands still")
    check(stopped < 1500, "it stopped before the end", stopped)
    wait_for(lambda: (engine.progress("p1") or {}).get("state") == "paused",
             "progress.json says so")
    equal(read_text(os.path.join(engine.spool, "active", "p1.batch", "order")).strip(), "pause",
          "the order is kept")
    end = send(engine, "other", ["other-1@slow.test"])
    equal(end.counts(), {"accepted": 1, "delivered": 1}, "another batch of the site goes on")
    equal(taken("p1"), stopped, "it still stands")
    give("p1", "resume")
    end = engine.wait_end("p1")
    equal(end.counts(), {"accepted": 1500, "delivered": 1500}, "all arrive")
    equal(taken("p1"), 1500, "once each")


def case_pause_stops_soon():
    """Few more than are in flight go out behind a pause."""
    names = [f"p2-{i}@slow.test" for i in range(1500)]
    engine.submit(make_merge(engine, "p2", names))
    give_amid("p2", "pause")
    before = taken("p2")
    after = settle(lambda: taken("p2"), "it stands still")
    # Four connections, and what they took between the two looks.
    check(after - before <= 40, "few go behind it", (before, after))
    progress = wait_for(lambda: (lambda p: p if p and p["state"] == "paused" else None)
                        (engine.progress("p2")), "progress.json says so")
    equal(progress.get("eta_s"), None, "there is no end in sight")
    give("p2", "cancel")
    end = engine.wait_end("p2")
    equal(end.counts().get("cancelled"), 1500 - after, "the rest is cancelled")


def case_pause_over_restart():
    names = [f"p3-{i}@slow.test" for i in range(1000)]
    engine.submit(make_merge(engine, "p3", names))
    give_amid("p3", "pause")
    settle(lambda: taken("p3"), "it stands still")
    for stop in (engine.terminate, engine.kill):
        stop()
        before = taken("p3")
        engine.start()
        wait_for(lambda: (engine.progress("p3") or {}).get("state") == "paused", "still paused")
        equal(settle(lambda: taken("p3"), "it stands still"), before, "nothing was sent")
    give("p3", "resume")
    end = engine.wait_end("p3")
    equal(end.counts(), {"accepted": 1000, "delivered": 1000}, "all arrive")
    equal(taken("p3"), 1000, "once each")


def case_cancel_while_sending():
    names = [f"c1-{i}@slow.test" for i in range(1500)]
    engine.submit(make_merge(engine, "c1", names))
    give_amid("c1", "cancel")
    end = engine.wait_end("c1")
    counts = end.counts()
    equal(end.place, "done", "a cancelled batch is done")
    equal(counts["delivered"] + counts["cancelled"], 1500, "delivered or cancelled")
    check(counts["cancelled"] > 0, "the rest is cancelled", counts)
    equal(taken("c1"), counts["delivered"], "the sink agrees")
    kinds = {}
    for line in end.results:
        kinds[line["type"]] = kinds.get(line["type"], 0) + 1
    equal(kinds, {"Delivery": counts["delivered"], "AdminBounce": counts["cancelled"]},
          "results.ndjson agrees")


def case_cancel_while_deferred():
    """The retry wheel is searched: nobody waits for an hour."""
    names = [f"rcpt451-c2-{i}@later.test" for i in range(500)]
    engine.submit(make_merge(engine, "c2", names))
    wait_for(lambda: engine.status()["queue"]["retry"] >= 500, "all wait for their retry")
    give("c2", "cancel")
    end = engine.wait_end("c2")
    equal(end.counts(), {"accepted": 500, "cancelled": 500}, "cancelled")
    equal({line["num_attempts"] for line in end.results}, {1}, "a cancel is no attempt")


def case_pause_while_deferred():
    """What comes due while its batch is paused waits for the resume."""
    names = [f"rcpt451x1-p4-{i}@soon.test" for i in range(200)]
    engine.submit(make_merge(engine, "p4", names))
    wait_for(lambda: engine.status()["queue"]["retry"] >= 200, "all wait for their retry")
    give("p4", "pause")
    wait_for(lambda: engine.status()["queue"]["retry"] == 0, "they come due")
    equal(settle(lambda: taken("p4"), "it stands still"), 0, "and are not sent")
    give("p4", "resume")
    end = engine.wait_end("p4")
    equal(end.counts(), {"accepted": 200, "delivered": 200}, "they are behind a resume")


def case_cancel_deferred_over_restart():
    names = [f"rcpt451-c3-{i}@later.test" for i in range(300)]
    engine.submit(make_merge(engine, "c3", names))
    wait_for(lambda: (engine.progress("c3") or {}).get("deferred") == 300, "all are deferred")
    engine.kill()
    engine.start()
    give("c3", "cancel")
    end = engine.wait_end("c3")
    equal(end.counts(), {"accepted": 300, "cancelled": 300}, "cancelled")


def case_cancel_paused():
    names = [f"c4-{i}@slow.test" for i in range(1000)]
    engine.submit(make_merge(engine, "c4", names))
    give_amid("c4", "pause")
    give("c4", "cancel")
    end = engine.wait_end("c4")
    counts = end.counts()
    equal(counts["delivered"] + counts["cancelled"], 1000, "delivered or cancelled")
    equal(taken("c4"), counts["delivered"], "the sink agrees")


def case_order_before_the_claim():
    """An order for a batch that is renamed in together with it."""
    directory = make_merge(engine, "p5", [f"p5-{i}@fast.test" for i in range(50)])
    engine.kill()
    engine.submit(directory)
    engine.order("p5", "pause")
    engine.start()
    wait_for(lambda: (engine.progress("p5") or {}).get("state") == "paused", "it is paused")
    equal(settle(lambda: taken("p5"), "it stands still"), 0, "nothing was sent")
    give("p5", "resume")
    equal(engine.wait_end("p5").counts(), {"accepted": 50, "delivered": 50}, "now it is")


def case_kill_between_cancel_and_end():
    names = [f"c6-{i}@slow.test" for i in range(2000)]
    engine.submit(make_merge(engine, "c6", names))
    give_amid("c6", "cancel")
    engine.kill()
    wait_for(lambda: slow.totals()["open"] == 0, "the server has read all that was sent")
    before = taken("c6")
    engine.start()
    counts = engine.wait_end("c6").counts()
    equal(counts["delivered"] + counts["cancelled"], 2000, "delivered or cancelled")
    equal(taken("c6"), before, "a cancelled batch sends nothing behind a restart")


def deferred(batch):
    """A batch of one who is deferred some times; its recipients' file."""
    address = f"rcpt451x4-{batch}@fast.test"
    engine.submit(make_merge(engine, batch, [address]))
    wait_for(lambda: any(event.get("recipient") == address and event["type"] == "TransientFailure"
                         for event in engine.events()), "it is deferred")
    return os.path.join(engine.spool, "active", f"{batch}.batch", "recipients.ndjson")


def case_touched_while_deferred():
    """Another time of change with the same bytes is no matter."""
    os.utime(deferred("t1"))
    end = engine.wait_end("t1")
    equal(end.counts(), {"accepted": 1, "delivered": 1}, "it arrives")
    check("t1.batch" not in engine.words(), "nothing to be told", engine.words())


def change(batch):
    """Its content before; the batch is paused by the engine, which says so."""
    path = deferred(batch)
    before = read_text(path)
    write(path, before + "\n")
    wait_for(lambda: f"/active/{batch}.batch/recipients.ndjson: it is not the file any more" in
             engine.words(), "people are told")
    wait_for(lambda: (engine.progress(batch) or {}).get("state") == "paused",
             "progress.json says so")
    return path, before


def case_changed_while_deferred():
    """A file of an accepted batch changes: nothing is sent or settled until it is put right."""
    path, before = change("t2")
    settle(lambda: taken("t2"), "it stands still")
    give("t2", "resume")  # not put right: told again, and paused again
    wait_for(lambda: engine.words().count("/t2.batch/recipients.ndjson: it is not") == 2, "again")
    write(path, before)
    give("t2", "resume")
    end = engine.wait_end("t2")
    equal(end.counts(), {"accepted": 1, "delivered": 1}, "it arrives")
    check(all(line["recipient"] and line["reason"] != "TEMP_CONTENT" for line in end.results),
          "each line names its recipient", end.results)


def case_changed_and_cancelled():
    change("t3")
    give("t3", "cancel")
    equal(engine.wait_end("t3").counts(), {"accepted": 1, "cancelled": 1}, "cancelled")


def case_changed_and_started_anew():
    change("t4")
    engine.terminate()
    engine.start()
    end = engine.wait_end("t4")
    equal(end.place, "hold", "it waits for people")
    check("not those that were accepted" in end.reason, "it says why", end.reason)


def case_retry_while_deferred():
    """Who waits for an hour is tried at once, of this batch only."""
    for batch in ("r1", "r2"):
        names = [f"rcpt451x1-{batch}-{i}@later.test" for i in range(300)]
        engine.submit(make_merge(engine, batch, names))
        wait_for(lambda name=batch: (engine.progress(name) or {}).get("deferred") == 300,
                 "all are deferred")
    give("r1", "retry")
    end = engine.wait_end("r1")
    equal(end.counts(), {"accepted": 300, "delivered": 300}, "delivered")
    equal({line["num_attempts"] for line in end.results}, {2}, "by the second attempt")
    check(not any("possible_duplicate" in line for line in end.results), "and nobody is marked")
    equal(engine.status()["queue"]["retry"], 300, "the others wait")
    give("r2", "cancel")
    equal(engine.wait_end("r2").counts(), {"accepted": 300, "cancelled": 300}, "cancelled")


def case_retry_of_a_site_that_rests():
    """A relay that is there again need not wait for the end of the rest."""
    engine.submit(make_merge(engine, "r3", [f"r3-{i}@dead.test" for i in range(50)]))
    wait_for(lambda: (engine.progress("r3") or {}).get("deferred") == 50, "all are deferred")
    give("r3", "retry")
    wait_for(lambda: (engine.progress("r3") or {}).get("deferred") == 100, "tried in vain")
    relay = Sink(place, name="relay", listen=f"127.0.0.1:{dead_port}")
    give("r3", "retry")
    end = engine.wait_end("r3")
    equal(end.counts(), {"accepted": 50, "delivered": 50}, "delivered")
    equal({line["num_attempts"] for line in end.results}, {3}, "one attempt an order")
    equal(sum(relay.taken().values()), 50, "once each")


def case_retry_before_its_time():
    """Who was not tried yet has nothing to be tried again; a paused batch stays paused."""
    engine.submit(make_merge(engine, "r4", ["r4-1@fast.test"], not_before=soon(3600)))
    engine.submit(make_merge(engine, "r5", ["rcpt451x1-r5-1@later.test"]))
    wait_for(lambda: (engine.progress("r5") or {}).get("deferred") == 1, "it is deferred")
    wait_for(lambda: (engine.progress("r4") or {}).get("state") == "active", "it waits")
    give("r5", "pause")
    for batch in ("r4", "r5"):
        give(batch, "retry")
    give("r4", "retry")  # the one before is through
    equal([settle(lambda name=batch: taken(name), "it stands still") for batch in ("r4", "r5")],
          [0, 0], "nothing was sent")
    give("r4", "cancel")
    equal(engine.wait_end("r4").counts(), {"accepted": 1, "cancelled": 1}, "cancelled")
    give("r5", "resume")
    equal(engine.wait_end("r5").counts(), {"accepted": 1, "delivered": 1}, "delivered")


def case_killed_behind_a_retry():
    """Behind a kill whoever waits is marked, however late he is due: he may have been tried."""
    names = [f"rcpt451-r6-{i}@later.test" for i in range(20)]
    engine.submit(make_merge(engine, "r6", names))
    wait_for(lambda: (engine.progress("r6") or {}).get("deferred") == 20, "all are deferred")
    give("r6", "retry")
    wait_for(lambda: (engine.progress("r6") or {}).get("deferred") == 40, "and again")
    engine.kill()
    engine.start()
    give("r6", "cancel")
    end = engine.wait_end("r6")
    equal(end.counts(), {"accepted": 20, "cancelled": 20}, "cancelled")
    check(all(line.get("possible_duplicate") for line in end.results), "all are marked")


def case_orders_for_nobody():
    """Orders for unknown ids (of some age), and other names, are put aside; nothing breaks."""
    path = os.path.join(engine.spool, "in", "ctl")
    with open(os.path.join(path, ".new"), "x", encoding="utf-8"):
        pass
    os.utime(os.path.join(path, ".new"), (time.time() - 60, time.time() - 60))
    os.rename(os.path.join(path, ".new"), os.path.join(path, "nobody.cancel"))
    wait_for(lambda: not os.path.exists(os.path.join(path, "nobody.cancel")), "put aside")
    for name in ("nobody.explode", "noverb"):
        with open(os.path.join(path, name), "x", encoding="utf-8"):
            pass
    os.symlink("/etc/passwd", os.path.join(path, "x.pause"))
    os.mkdir(os.path.join(path, "y.pause"))
    wait_for(lambda: not os.path.exists(os.path.join(path, "nobody.explode")), "put aside")
    wait_for(lambda: not os.path.exists(os.path.join(path, "noverb")), "put aside")
    bad = os.listdir(os.path.join(engine.spool, "badmail"))
    check(any(name.startswith("nobody.explode") for name in bad), "into badmail/", bad)
    check(any(name.startswith("nobody.cancel") for name in bad), "into badmail/", bad)
    end = send(engine, "after", ["after-1@fast.test"])
    equal(end.counts(), {"accepted": 1, "delivered": 1}, "it works on")


def case_order_ahead_of_its_batch():
    """Who submits and cancels at once, or in the other order, is understood."""
    directory = make_merge(engine, "ahead", [f"rcpt451-{i}@later.test" for i in range(10)])
    engine.order("ahead", "cancel")
    engine.submit(directory)
    end = engine.wait_end("ahead")
    equal(end.counts(), {"accepted": 10, "cancelled": 10}, "all of it")


def main():
    global place, sink, slow, engine, dead_port
    with Place("orders") as place:
        sink = Sink(place)
        slow = Sink(place, "--latency-ms", "4", name="slow")
        dead_port = free_port()
        engine = Engine(place, routes=route("*", sink.port, **FAST) +
                        route("slow.test", slow.port, **FAST, connections=4,
                              per_connection=100000) +
                        route("soon.test", sink.port, **{**FAST, "retry_first": "8s",
                                                         "retry_max": "8s"}) +
                        route("later.test", sink.port, retry_first="1h") +
                        route("dead.test", dead_port, retry_first="1h", suspend_first="1h",
                              suspend_max="1h")).start()
        return run_all(globals())


if __name__ == "__main__":
    sys.exit(main())
