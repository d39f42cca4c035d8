# SPDX-License-Identifier: Apache-2.0
"""Limits are exact over two workers: connections, messages a connection, rate, sessions, recipients
of a transaction.

test_limits.py BUILD. Connections are counted by a server that counts one out when it is told QUIT:
a client that opens the next one only when the last is closed never has more than its limit there.
"""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from counter import Counter  # noqa: E402
from lib import (SAME, Engine, Late, Place, Sink, cases_of, check, equal, make_merge,  # noqa: E402
                 route, run_cases, send, wait_for)

NS = 10**9


def names(count, domains=50, what="u"):
    return [f"{what}{i}@d{i % domains}.test" for i in range(count)]


def run(place, recipients, routes, extra="", seconds=40, **batch):
    """One engine, one batch, all delivered."""
    engine = Engine(place, routes=routes, extra=extra).start()
    end = send(engine, "limit", recipients, seconds, **batch)
    equal(end.counts(), {"accepted": len(recipients), "delivered": len(recipients)}, "delivered")
    check("possible_duplicate" not in str(end.results), "nothing ambiguous")
    equal(engine.terminate(), 0, "exit status")


def count(recipients, routes, extra="", least=0):
    """The counter behind a run; routes(port). It answers no message before `least` connections
    were open at once: an engine that never opens so many never ends."""
    with Place("limit") as place:
        counter = Counter(held_until=least)
        run(place, recipients, routes(counter.port), extra)
        wait_for(lambda: counter.open == 0, "all are closed at the end")
        counter.stop()
        equal(counter.messages, len(recipients), "messages")
        return counter


def case_connections_of_a_site():
    """50 domains of one route are one site: never more than its connections, over two workers."""
    for most in (1, 3, 7):
        counter = count(names(300), lambda port, most=most: route("*", port, connections=most),
                        least=most)
        equal(counter.peak, most, f"{most} connections at once, never more")


def case_sites_have_limits_of_their_own():
    def routes(port):
        return "".join(route(f"d{i}.test", port, connections=2) for i in range(10))
    counter = count(names(600, 10), routes, least=11)
    check(10 < counter.peak <= 20, "ten sites of two connections", counter.peak)


def case_messages_of_a_connection():
    """P4"""
    counter = count(names(1000), lambda port: route("*", port, connections=4, per_connection=10))
    equal(max(counter.each), 10, "ten messages a connection, no more")
    check(100 <= counter.connections <= 200, "so a hundred connections", counter.connections)
    check(counter.peak <= 4, "at most four at once", counter.peak)


def case_one_message_a_connection():
    counter = count(names(200), lambda port: route("*", port, connections=4, per_connection=1))
    equal(max(counter.each), 1, "a connection each")
    check(200 <= counter.connections <= 300, "few in vain", counter.connections)
    check(counter.peak <= 4, "at most four at once", counter.peak)


def case_sessions_in_all():
    """limits sessions counts those of all sites; nobody waits for the idle ones of others, which
    would stay for longer than the batch is waited for."""
    def routes(port):
        return "".join(route(f"d{i}.test", port, connections=20, connection_idle='"10m"')
                       for i in range(20))
    counter = count(names(600, 20), routes, "limits { sessions = 10 }\n", least=5)
    check(5 <= counter.peak <= 10, "ten for all sites", counter.peak)


def case_connections_of_a_source():
    """Here, too, idle ones of others are not waited for."""
    def routes(port):
        return "".join(route(f"d{i}.test", port, connections=20, connection_idle='"10m"')
                       for i in range(10))
    counter = count(names(400, 10), routes,
                    'source "one" { address = "127.0.0.1" ehlo = "one.test" connections = 5 }\n',
                    least=4)
    check(4 <= counter.peak <= 5, "five from this address", counter.peak)


def case_source_of_both_families():
    """A host gets the address of its own family; sources that differ in that are warned of."""
    with Place("families") as place:
        try:
            sinks = [Sink(place), Sink(place, name="sink6", listen="[::1]:0")]
        except Late:
            print("    no IPv6 here")
            return
        routes = route("four.test", sinks[0].port) + route("six.test", sinks[1].port, "[::1]")
        addresses = 'address = "127.0.0.1" address6 = "::1"'
        engine = Engine(place, routes=routes, extra=f'source "both" {{ {addresses} }}\n').start()
        people = [f"u{i}@{name}.test" for i in range(100) for name in ("four", "six")]
        equal(send(engine, "both", people).counts(), {"accepted": 200, "delivered": 200},
              "all are reached")
        told = {(event["recipient"].split("@")[1], event["source_address"]["address"])
                for event in engine.events() if event["type"] == "Delivery"}
        equal(told, {("four.test", "127.0.0.1"), ("six.test", "::1")}, "and from where")
        equal(engine.terminate(), 0, "exit status")
        check("another family" not in engine.words(), "no warning", engine.words())
        engine.write_config(routes, extra='source "a" { address = "127.0.0.1" }\n'
                            'source "b" { address = "::1" }\n')
        engine.start()
        check("source b: reaches hosts of another family than source a" in engine.words(),
              "a warning", engine.words())
        equal(engine.terminate(), 0, "exit status")


def most_in_a_window(times, window_ns):
    most = first = 0
    for last, at in enumerate(times):
        while at - times[first] >= window_ns:
            first += 1
        most = max(most, last - first + 1)
    return most


def rates(rate, burst, messages, connections):
    with Place("limit") as place:
        sink = Sink(place)
        run(place, names(messages), route("*", sink.port, connections=connections,
                                          rate=f'"{rate}/s"', burst=burst,
                                          backlog_per_connection=1))
        return sorted(message["at_ns"] for message in sink.messages())


def case_rate():
    """GCRA: burst + rate x time, never more. Between leave and arrival lies any time, but each
    connection has one message under way at most: so many more may arrive in a window. That it is
    not much too slow the end says, which is waited for."""
    for rate, burst, messages, connections in ((200, 1, 500, 8), (300, 100, 600, 8),
                                               (40, 1, 60, 2)):
        times = rates(rate, burst, messages, connections)
        took = (times[-1] - times[0]) / NS
        least = (messages - burst - connections - 1) / rate
        check(took > least, f"{messages} at {rate}/s, burst {burst}: not too fast", (took, least))
        for window in (1.0, 0.5):
            most = most_in_a_window(times, int(window * NS))
            allowed = burst + rate * window + connections + 1
            check(most <= allowed, f"no more than {allowed} in {window} s", most)


def case_rate_is_shared_by_both_workers():
    """Also a site's multi-recipient transactions count by their recipients."""
    with Place("limit") as place:
        sink = Sink(place)
        run(place, names(600), route("*", sink.port, rate='"200/s"', burst=20, connections=4,
                                           rcpts_max=10), message=SAME)
        messages = sorted(sink.messages(), key=lambda message: message["at_ns"])
        took = (messages[-1]["at_ns"] - messages[0]["at_ns"]) / NS
        # What is under way when the first one arrives: four connections with ten each.
        check(took > (600 - 20 - 10 - 4 * 10) / 200, "600 recipients at 200/s", took)


def case_recipients_of_a_transaction():
    """A message that is the same for all goes to up to rcpts-max at once."""
    for most in (1, 7, 100):
        with Place("limit") as place:
            sink = Sink(place)
            run(place, names(1000, what="m"),
                route("*", sink.port, rcpts_max=most, connections=2), message=SAME)
            sizes = [len(message["to"]) for message in sink.messages()]
            check(max(sizes) <= most, f"at most {most}", max(sizes))
            check(most == 1 or len(sizes) <= 500, "and most hold several", len(sizes))


def case_idle_connections_are_closed():
    """3.11"""
    with Place("limit") as place:
        sink = Sink(place)
        keys = {"connections": 1}
        engine = Engine(place, routes=route("*", sink.port, connection_idle='"10m"', **keys) +
                        route("short.test", sink.port, connection_idle='"300ms"', **keys)).start()
        send(engine, "one", ["a@b.test"])
        equal(engine.status()["sessions"], 1, "it is kept")
        send(engine, "two", ["a@b.test"])  # dealt to the other worker, which hands it over
        equal(engine.status()["sessions_opened"], 1, "and used again")
        send(engine, "three", ["a@short.test"])
        wait_for(lambda: engine.status()["sessions"] == 1, "the other one is closed")
        equal(engine.status()["sessions_opened"], 2, "which was opened")
        equal(engine.terminate(), 0, "exit status")
        wait_for(lambda: sink.totals()["open"] == 0, "the sink agrees")


def case_connections_age():
    """3.11"""
    with Place("limit") as place:
        sink = Sink(place, "--latency-ms", "20")
        run(place, names(80), route("*", sink.port, connections=1, connection_age='"1s"',
                                    per_connection=100000))
        times = [message["at_ns"] for message in sink.messages()]
        most = (max(times) - min(times)) / NS + 3
        connections = sink.stop()["connections"]
        check(2 <= connections <= most, "a new one each second", (connections, most))


def case_limits_of_entries():
    """Few entries, batches, domains: all waits its turn, nothing is lost."""
    with Place("limit") as place:
        sink = Sink(place)
        extra = "limits { recipients = 500 batches = 3 domains = 100 sites = 16 }\n"
        engine = Engine(place, routes=route("*", sink.port), extra=extra).start()
        for number in range(12):
            engine.submit(make_merge(engine, f"b{number}",
                                     [f"u{i}@b{number}-{i % 20}.test" for i in range(90)]))
        for number in range(12):
            end = engine.wait_end(f"b{number}")
            equal(end.counts(), {"accepted": 90, "delivered": 90}, f"batch {number}")
        equal(engine.terminate(), 0, "exit status")


def case_totals_while_running():
    """The sink tells its totals on SIGUSR1. Not its peak: it may see the end of a connection behind
    the begin of the next one."""
    with Place("limit") as place:
        sink = Sink(place, "--latency-ms", "5")
        engine = Engine(place, routes=route("*", sink.port, connections=5, per_connection=100000,
                                            connection_idle='"10m"')).start()
        engine.submit(make_merge(engine, "x", names(800)))
        wait_for(lambda: sink.totals()["open"] == 5, "five are open")
        check(engine.status()["sessions"] <= 5, "status says so too", engine.status()["sessions"])
        engine.wait_end("x")
        equal(engine.terminate(), 0, "exit status")


def case_too_little_memory_to_lock():
    """Rings are made before anything is promised: it does not say that it runs and then sends
    nothing."""
    with Place("memlock") as place:
        engine = Engine(place, routes=route("*", 1))
        engine.spawn(wrap=["setpriv", "--bounding-set", "-ipc_lock", "--inh-caps", "-ipc_lock",
                           "prlimit", "--memlock=65536", "--"])
        equal(engine.process.wait(30), 1, "exit status")
        check("RLIMIT_MEMLOCK" in engine.words(), "it names the limit", engine.words())


def case_sites_come_back():
    """Many more sites than there may be at once, one after the other: nobody waits until he
    expires, although the lanes before him linger and their connections are kept open."""
    with Place("limit") as place:
        sink = Sink(place)
        routes = "".join(route(f"d{i}.test", sink.port, connection_idle='"20s"') for i in range(36))
        engine = Engine(place, routes=routes, extra="limits { sites = 16 }\n").start()
        for i in range(36):
            engine.submit(make_merge(engine, f"b{i}", [f"u@d{i}.test"]))
            counts = engine.wait_end(f"b{i}").counts()
            equal(counts, {"accepted": 1, "delivered": 1}, f"site {i}")
        check("are in use" not in engine.words(), "nobody was put off", engine.words())
        equal(engine.terminate(), 0, "exit status")


def case_all_sites_in_use():
    """Sites that are not paid off by their rate stay: mail for others is put off, with its reason
    in the log, the metrics and the words of the server; what can go goes."""
    with Place("limit") as place:
        sink = Sink(place)
        routes = "".join(route(f"d{i}.test", sink.port, rate='"1/h"', burst=1,
                               retry_first='"1s"', retry_max='"1s"', expire='"25s"')
                         for i in range(20))
        engine = Engine(place, routes=routes, extra="limits { sites = 16 }\n").start()
        engine.submit(make_merge(engine, "many", names(20, 20)))
        wait_for(lambda: "all 16 sites are in use" in engine.words(), "the server says so")
        wait_for(lambda: engine.status()["health"]["sites_unserved"] >= 4, "four are put off")
        health = engine.status()["health"]
        check(health["sites_unserved"] >= 1, "so does status", health)
        check(health["oddities"]["sites_in_use"] >= 1, "as an oddity, too", health)
        check("ramjet_sites 16\n" in engine.get("/metrics")[1], "so do the metrics")
        counts = engine.wait_end("many").counts()
        equal(counts, {"accepted": 20, "delivered": 16, "expired": 4}, "what can go goes")
        put_off = [event for event in engine.events() if event["reason"] == "TEMP_NO_SITE"]
        check(len(put_off) >= 4, "put off with its reason", put_off)
        equal(engine.terminate(), 0, "exit status")


if __name__ == "__main__":
    sys.exit(run_cases(cases_of(globals())))
