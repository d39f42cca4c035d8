# SPDX-License-Identifier: Apache-2.0
"""Servers that mean harm: no crash, no hang, no false "delivered", nothing left behind, no spin
(conformance 3.6, 3.7, 3.9, C10).

test_hostile.py BUILD
"""
import os
import resource
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import hostile_peer as hostile  # noqa: E402
from hostile_peer import (HELLO, STEPS, Peer, closes_at, dribbles_at, resets_at,  # noqa: E402
                          says_at, stalls_at)
from lib import (EACH, HEADER, Engine, Place, Sink, cases_of, check, equal,  # noqa: E402
                 make_merge, read_text, route, run_cases, send, wait_for)

LIMITS = ("greeting", "ehlo", "mail", "rcpt", "data", "body", "end_of_data", "rset", "quit")
SHORT = {f"{name}_timeout": '"500ms"' for name in LIMITS}
SHORT.update(retry_first="1s", retry_max="1s", retry_jitter=0, suspend_first="1s",
             suspend_max="1s", expire="4s", connection_idle='"100ms"')
LONG = {**{f"{name}_timeout": '"10m"' for name in LIMITS}, "expire": "1h"}
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")

MEGABYTE = b"x" * 1_000_000
LINES = b"250-" + b"y" * 60 + b"\r\n"


def proc(engine, name):
    return read_text(f"/proc/{engine.process.pid}/{name}")


def cpu_s(engine):
    fields = proc(engine, "stat").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory(engine):
    return int(proc(engine, "statm").split()[1]) * PAGE


def descriptors(engine):
    return len(os.listdir(f"/proc/{engine.process.pid}/fd"))


def quiet(engine):
    """Waits for a second in which it hardly runs; a spin would never let one come."""
    def look():
        before, started = cpu_s(engine), time.monotonic()
        time.sleep(1)
        return cpu_s(engine) - before < 0.1 * (time.monotonic() - started)
    wait_for(look, "nothing to do, nothing done")


def attack(place, behaviours, seconds=40, message=EACH, count=3, receive_buffer=0, **keys):
    """Each behaviour has a domain of its own, between them is an honest one. All recipients must
    come to an end, and nobody is delivered whose server did not say so."""
    keys = {**SHORT, **keys}
    sink = Sink(place)
    peers = {name: Peer(behave, receive_buffer) for name, behave in behaviours.items()}
    routes = "".join(route(f"{name}.test", peer.port, **keys) for name, peer in peers.items())
    engine = Engine(place, routes=routes + route("good.test", sink.port)).start()
    send(engine, "before", [f"u{i}@good.test" for i in range(50)], message=message)
    wait_for(lambda: engine.status()["sessions"] == 0, "no session is open")
    before = descriptors(engine), memory(engine)
    names = [f"u{i}@{name}.test" for name in peers for i in range(count)]
    names += [f"u{i}@good.test" for i in range(50)]
    end = send(engine, "attack", names, seconds, message=message)
    fates = {}
    for line in end.results:
        fates.setdefault(line["recipient"].split("@")[1][:-5], []).append(line["type"])
    equal(sum(map(len, fates.values())), len(names), "all are accounted for")
    equal(fates.pop("good"), ["Delivery"] * 50, "the honest server's mail")
    for name, outcomes in fates.items():
        delivered = outcomes.count("Delivery")
        check(delivered <= peers[name].taken, f"{name}: delivered what was taken",
              (delivered, peers[name].taken))
        wait_for(lambda n=name: peers[n].connections > 0, f"{name} was tried")
    wait_for(lambda: engine.status()["sessions"] == 0, "all sessions have ended")
    wait_for(lambda: descriptors(engine) <= before[0], "all descriptors are closed")
    grown = memory(engine) - before[1]
    check(grown < 256 << 20, "memory has a bound", grown)
    equal(engine.terminate(), 0, "exit status")
    for peer in peers.values():
        peer.stop()
    return fates


def case_each_step():
    """Stalls, closes, resets, and a byte from time to time (limits are of the whole reply)."""
    ways = {}
    for step in STEPS:
        ways[f"stall-{step}"] = stalls_at(step)
        ways[f"close-{step}"] = closes_at(step)
        ways[f"reset-{step}"] = resets_at(step)
        ways[f"dribble-{step}"] = dribbles_at(step, b"250-x")
    with Place("hostile") as place:
        fates = attack(place, ways)
        check("Delivery" not in str(fates), "nobody is delivered", fates)


def case_floods():
    """Replies without an end, of any form and at any step."""
    floods = {
        "line": b"250" + MEGABYTE,
        "long": b"250-" + MEGABYTE + b"\r\n",
        "lines": LINES * 10_000,
        "nul": b"\0" * 100_000,
        "nul-in": b"250 a\0b\r\n" * 10_000,
        "binary": bytes(range(256)) * 1000,
        "cr": b"250 x\r" * 100_000,
        "lf": b"\n" * 100_000,
        "replies": b"250 ok\r\n" * 10_000,
        "354": b"354 go on\r\n" * 10_000,
        "421": b"421 go away\r\n" * 10_000,
        "550": b"550 5.1.1 no\r\n" * 10_000,
    }
    ways = {f"{name}-{step}": says_at(step, data, 20) for name, data in floods.items()
            for step in ("connect", "greeting", "ehlo", "mail", "body", "dot")}
    with Place("hostile") as place:
        for name, outcomes in attack(place, ways).items():
            is_answer = name in ("replies-dot", "nul-in-dot")
            check(is_answer or "Delivery" not in outcomes, f"{name} is not delivered", outcomes)


def case_early():
    """An acceptance that nobody asked for is none."""
    ways = {
        "before-ehlo": says_at("connect", b"220 x\r\n" + HELLO),
        "all-at-once": says_at("connect", b"220 x\r\n" + HELLO + b"250 ok\r\n250 ok\r\n354 go\r\n"
                               b"250 taken\r\n"),
        "behind-ehlo": says_at("ehlo", HELLO + b"250 ok\r\n250 ok\r\n354 go\r\n250 taken\r\n"),
        "behind-354": says_at("data", b"354 go\r\n250 taken\r\n"),
        "in-body": says_at("body", b"250 taken\r\n"),
        "no-354": says_at("data", b"250 taken\r\n"),
        "221-to-dot": says_at("dot", b"221 bye\r\n"),
        "354-to-dot": says_at("dot", b"354 go\r\n"),
        "220-to-dot": says_at("dot", b"220 hello\r\n"),
        "150-to-dot": says_at("dot", b"150 hello\r\n"),
        "999-to-dot": says_at("dot", b"999 hello\r\n"),
        "mixed-to-dot": says_at("dot", b"250-taken\r\n550 no\r\n"),
        "cut-to-dot": says_at("dot", b"250 take"),
        "more-to-dot": says_at("dot", b"250-taken\r\n"),
        "text-to-dot": says_at("dot", b"OK 250\r\n"),
    }
    with Place("hostile") as place:
        fates = attack(place, ways)
        check("Delivery" not in str(fates), "nobody is delivered", fates)


def case_after_quit():
    with Place("hostile") as place:
        attack(place, {"quit": hostile.talks_after_quit}, per_connection=1)


def case_window_closed():
    """A server that never reads takes no session for ever, whatever it says."""
    big = HEADER + ("x" * 76 + "\r\n") * 100_000
    with Place("hostile") as place:
        attack(place, {"never-reads": hostile.never_reads,
                       "blind": hostile.talks_without_reading}, message=big, receive_buffer=4096,
               connections=3)


def case_answers_unread():
    with Place("hostile") as place:
        attack(place, {"blind": hostile.talks_without_reading}, count=200, receive_buffer=4096,
               connections=3)


def case_thousands_stall():
    """Waiting costs no time of the processor."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 3000
    if hard < 2 * wanted + 1000:
        print("  too few descriptors for this case")
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2 * wanted + 1000), hard))
    with Place("hostile") as place:
        sink = Sink(place, "--latency-ms", "60000")
        engine = Engine(place, routes=route("*", sink.port, **{**SHORT, **LONG},
                                            connections=wanted, backlog_per_connection=1)).start()
        engine.submit(make_merge(engine, "stall", [f"u{i}@d.test" for i in range(wanted)]))
        wait_for(lambda: engine.status()["sessions"] > wanted * 0.9, "they are open")
        quiet(engine)
        check(engine.status()["sessions"] > wanted * 0.9, "and stay so")
        engine.kill()


if __name__ == "__main__":
    cases = cases_of(globals())
    wanted_names = sys.argv[2:]
    sys.exit(run_cases([case for case in cases
                        if not wanted_names or case.__name__[5:] in wanted_names]))
