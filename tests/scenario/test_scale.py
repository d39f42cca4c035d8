# SPDX-License-Identifier: Apache-2.0
"""Many of everything, in the short form of `./dev bench scale`: batches, domains, sites, a start in
the middle of it; and a small batch does not wait for a huge one. All of it is accounted for.

test_scale.py BUILD. No time is asserted. The spools lie in memory where there is room for them:
thousands of batches are thousands of syncs, and what those do is tried out elsewhere.
"""
import os
import shutil
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "..", "bench")]
from lib import (SAME, Engine, Place, Sink, bsmtp_record, cases_of, check, equal,  # noqa: E402
                 make_bsmtp, make_merge, read_json, read_lines, route, run_cases,
                 wait_for, write)
from peers.knot import knot_of  # noqa: E402

DEADLINE_S = 100
MEMORY = "/dev/shm"


def totals(engine):
    return engine.status()["totals"]


def wait_done(engine, batches):
    def look():
        now = totals(engine)
        check(now["batches_failed"] == 0, "no batch fails", now)
        return now["batches_done"] == batches or now["batches_failed"] > 0
    wait_for(look, f"{batches} batches are done", DEADLINE_S)


def done_batches(engine):
    folder = os.path.join(engine.spool, "done")
    return {name[:-len(".batch")]: os.path.join(folder, day, name)
            for day in os.listdir(folder) for name in os.listdir(os.path.join(folder, day))}


def came_once(sink, names):
    """Each of them, and nobody else."""
    taken = sink.taken()
    equal(len(taken), len(names), "so many were taken")
    wrong = [name for name in names if taken.get(name) != 1]
    equal(wrong[:5], [], "each came once")


def ended_well(engine, batches):
    """Of each batch (id -> recipients): its summary, and a line of results for each recipient."""
    done = done_batches(engine)
    equal(set(done), set(batches), "all are in done/")
    for batch, names in batches.items():
        summary = read_json(os.path.join(done[batch], "summary.json"))
        lines = read_lines(os.path.join(done[batch], "results.ndjson"))
        if summary["delivered"] != len(names) or \
                sorted(line["recipient"] for line in lines) != sorted(names):
            check(False, f"{batch} is whole", (summary, lines[:3]))
            return
    equal(os.listdir(os.path.join(engine.spool, "active")), [], "active/ is empty")


def small_batches(engine, count, prefix="few"):
    """id -> recipients; they lie in in/new."""
    batches = {}
    for number in range(count):
        batch = f"{prefix}-{number:05}"
        names = [f"u{i}-{number}@d{(number + i) % 500}.test" for i in range(3)]
        engine.submit(make_merge(engine, batch, names, SAME))
        batches[batch] = names
    return batches


def case_many_small_batches():
    """2,000 batches of three are there when the engine starts, 500 mails in pickup/ come on top."""
    with Place("scale") as place:
        sink = Sink(place)
        engine = Engine(place, routes=route("*", sink.port))
        for folder in ("tmp", "new"):
            os.makedirs(os.path.join(engine.spool, "in", folder))
        os.makedirs(os.path.join(engine.spool, "pickup"))
        batches = small_batches(engine, 2000)
        mails = [f"m{number}@pick.test" for number in range(500)]
        for number, name in enumerate(mails):
            write(os.path.join(engine.spool, "pickup", f"{number}.eml"),
                  f"X-Sender: a@sender.test\r\nX-Receiver: {name}\r\nFrom: a@sender.test\r\n"
                  f"Subject: {number}\r\n\r\nx\r\n")
        engine.start()
        wait_for(lambda: totals(engine)["delivered"] == 6500, "all are sent", DEADLINE_S)
        wait_for(lambda: not os.listdir(os.path.join(engine.spool, "active")), "all end",
                 DEADLINE_S)
        came_once(sink, mails + [name for names in batches.values() for name in names])
        for batch in list(done_batches(engine)):
            if batch.startswith("pickup-"):
                shutil.rmtree(done_batches(engine)[batch])
        ended_well(engine, batches)
        equal(os.listdir(os.path.join(engine.spool, "in", "new")), [], "in/new is empty")
        equal(engine.terminate(), 0, "exit status")


def case_few_slots():
    """More batches than may be claimed at once wait in in/new, and none is lost."""
    with Place("scale") as place:
        sink = Sink(place)
        engine = Engine(place, routes=route("*", sink.port), extra="limits { batches = 7 }\n")
        for folder in ("tmp", "new"):
            os.makedirs(os.path.join(engine.spool, "in", folder))
        batches = small_batches(engine, 200)
        engine.start()
        wait_done(engine, 200)
        ended_well(engine, batches)
        came_once(sink, [name for names in batches.values() for name in names])
        equal(engine.terminate(), 0, "exit status")


def case_many_domains():
    """20,000 domains of one batch with one host; then as many again, whose places are free."""
    with Place("scale") as place:
        sink = Sink(place)
        engine = Engine(place, routes=route("*", sink.port, connections=20),
                        extra="limits { domains = 20000 }\n").start()
        names = [f"u@d{number}.{half}.test" for half in range(2) for number in range(20000)]
        for half in range(2):
            engine.submit(make_merge(engine, f"half{half}", names[20000 * half:][:20000], SAME))
            end = engine.wait_end(f"half{half}", DEADLINE_S)
            equal(end.counts(), {"accepted": 20000, "delivered": 20000}, f"half {half}")
        came_once(sink, names)
        equal(engine.terminate(), 0, "exit status")


def dns_engine(place, sink, knot, extra=""):
    keys = f"port = {sink.port} retry-first = 1s retry-max = 1s"
    return Engine(place, routes=f'route "*" {{ {keys} }}\n', extra=extra +
                  f'dns {{ servers = "127.0.0.1:{knot.port}" allow-special = yes ip6 = no }}\n')


def case_domains_by_dns():
    """10,000 domains that a name server must be asked for: more than may be asked for at once."""
    with Place("scale") as place, knot_of(place.path, ["* MX 10 mx", "mx A 127.0.0.1"]) as knot:
        sink = Sink(place)
        engine = dns_engine(place, sink, knot).start()
        names = [f"u@d{number}.bench.example" for number in range(10000)]
        engine.submit(make_merge(engine, "asked", names, SAME))
        end = engine.wait_end("asked", DEADLINE_S)
        equal(end.counts(), {"accepted": 10000, "delivered": 10000}, "all are delivered")
        equal(len({line["site"] for line in end.results}), 1, "at one site")
        came_once(sink, names)
        equal(engine.terminate(), 0, "exit status")


def case_many_sites():
    """1,000 domains with a host each, 100 sessions."""
    hosts = [f"127.1.{number >> 8}.{number & 255}" for number in range(1000)]
    records = [f"d{number} MX 10 m{number}\nm{number} A {host}"
               for number, host in enumerate(hosts)]
    with Place("scale") as place, knot_of(place.path, records) as knot:
        sink = Sink(place, listen="0.0.0.0:0")
        engine = dns_engine(place, sink, knot, "limits { sessions = 100 }\n").start()
        names = [f"u{i}@d{number}.bench.example" for i in range(5) for number in range(1000)]
        engine.submit(make_merge(engine, "sites", names, SAME))
        end = engine.wait_end("sites", DEADLINE_S)
        equal(end.counts(), {"accepted": 5000, "delivered": 5000}, "all are delivered")
        came_once(sink, names)
        equal({line["peer_address"]["addr"].split(":")[0] for line in end.results}, set(hosts),
              "each at its own host")
        equal(engine.terminate(), 0, "exit status")


def case_restart_amid():
    """kill -9 when a part of a large batch and of many small ones is settled (V8)."""
    with Place("scale") as place:
        sink = Sink(place, "--latency-ms", "1")
        engine = Engine(place, routes=route("*", sink.port, connections=8)).start()
        names = [f"u{number}@d{number % 100}.test" for number in range(20000)]
        records = b"".join(bsmtp_record("b@sender.test", names[at:at + 10], SAME.encode())
                           for at in range(0, len(names), 10))
        engine.submit(make_bsmtp(engine, "large", records))
        batches = {"large": names, **small_batches(engine, 300)}
        wait_for(lambda: totals(engine)["delivered"] > 5000, "a part is sent", DEADLINE_S)
        engine.kill()
        engine.start()
        # In the order of their way: what leaves in/new behind the first look is met by the second.
        wait_for(lambda: not os.listdir(os.path.join(engine.spool, "in", "new")) and
                 not os.listdir(os.path.join(engine.spool, "active")), "all end", DEADLINE_S)
        ended_well(engine, batches)
        taken = sink.taken()
        everybody = [name for names in batches.values() for name in names]
        equal(sorted(set(everybody) ^ set(taken))[:5], [], "nobody is left out")
        twice = {name for name in taken if taken[name] > 1}
        flagged = {line["recipient"] for folder in done_batches(engine).values()
                   for line in read_lines(os.path.join(folder, "results.ndjson"))
                   if line.get("possible_duplicate")}
        equal(sorted(twice - flagged)[:5], [], "who got it twice is called possible_duplicate")
        check(max(taken.values()) <= 2, "and nobody three times")
        equal(engine.terminate(), 0, "exit status")


def case_small_behind_huge():
    """300,000 for a site that takes 20 a second: others end while it has hardly begun."""
    with Place("scale") as place:
        sink = Sink(place)
        engine = Engine(place, routes=route("*", sink.port) +
                        route("slow.test", sink.port, rate='"20/s"')).start()
        huge = b"".join(b'{"to":"h%d@slow.test"}\n' % i for i in range(300000))
        engine.submit(make_merge(engine, "huge", huge))
        batches = small_batches(engine, 20, "behind")
        for batch in batches:
            engine.wait_end(batch, DEADLINE_S)
        wait_for(lambda: totals(engine)["accepted"] == 300060, "the huge one is accepted",
                 DEADLINE_S)
        batches.update(small_batches(engine, 20, "beside"))
        for batch in batches:
            engine.wait_end(batch, DEADLINE_S)
        equal(engine.find("huge")[0], "active", "it is far from its end")
        ended_well_beside_huge(engine, batches)
        engine.order("huge", "cancel")
        end = engine.wait_end("huge", DEADLINE_S)
        equal(end.summary["delivered"] + end.summary["cancelled"], 300000, "none of it is lost")
        check(end.summary["delivered"] < 100000, "most of it was still to come", end.summary)
        equal(engine.terminate(), 0, "exit status")


def ended_well_beside_huge(engine, batches):
    done = done_batches(engine)
    equal(set(done), set(batches), "all small ones are in done/")
    delivered = [read_json(os.path.join(path, "summary.json"))["delivered"]
                 for path in done.values()]
    equal(set(delivered), {3}, "each delivered")


def main():
    if os.path.isdir(MEMORY) and shutil.disk_usage(MEMORY).free > 1 << 30:
        tempfile.tempdir = MEMORY
    cases = cases_of(globals())
    if shutil.which("knotd", path=os.environ.get("PATH", "") + ":/usr/sbin") is None:
        print("knotd is not here (Debian: knot): no cases by DNS")
        cases = [case for case in cases if case not in (case_domains_by_dns, case_many_sites)]
    return run_cases(cases)


if __name__ == "__main__":
    sys.exit(main())
