# SPDX-License-Identifier: Apache-2.0
"""MX by real DNS: knotd serves zones whose hosts are sinks on addresses of the loopback network.

test_mx.py BUILD. Checklist B1-B4, B7, B9-B11 and what becomes of mail when the name server dies.
"""
import os
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", "scenario"), os.path.join(HERE, "..", "..", "bench")]
from counter import Counter  # noqa: E402
from lib import (Engine, Place, Sink, cases_of, check, equal, make_merge, route,  # noqa: E402
                 run_cases, send, skip, soon, wait_for)
from peers.knot import KNOTD, Knot, free_port  # noqa: E402

HEAD = """
$ORIGIN mx.test.
$TTL 3600
@ SOA ns hostmaster {serial} 7200 900 1209600 60
@ NS  ns
ns A 127.0.0.1
"""
ZONE = """
two      MX 10 down
two      MX 20 up
down     A  127.0.0.2
up       A  127.0.0.3
equal    MX 10 left
equal    MX 10 right
left     A  127.0.0.4
right    A  127.0.0.5
null     MX 0 .
null     A  127.0.0.3
alias    CNAME two
implicit A  127.0.0.3
site0    MX 10 shared
site1    MX 10 shared
site2    MX 10 shared
site3    MX 10 shared
shared   A  127.0.0.6
rude     MX 10 refuses
rude     MX 20 up
refuses  A  127.0.0.7
noaddr   MX 10 nothing
xn--bcher-kva MX 10 up
fickle   1 MX 10 up
short    1 MX 10 brief
brief    1 A  127.0.0.3
"""
FAST = {"retry_first": "1s", "retry_max": "1s", "retry_jitter": 0, "suspend_first": "1s",
        "suspend_max": "1s"}

place = engine = knot = None
serial = 0
sinks = {}


def zones(text=ZONE):
    """A later one must have a greater serial."""
    global serial
    serial += 1
    return {"mx.test": HEAD.format(serial=serial) + text}


def taken(last):
    """How many recipients the sink on 127.0.0.LAST has, by domain."""
    counts = {}
    for name in sinks[last].taken():
        domain = name.split("@")[1]
        counts[domain] = counts.get(domain, 0) + 1
    return counts


def case_first_preference_is_down():
    """B4, B5: nobody listens on the first; all goes to the second, in the first attempt."""
    end = send(engine, "two", [f"u{i}@two.mx.test" for i in range(40)])
    equal(end.counts(), {"accepted": 40, "delivered": 40}, "delivered")
    equal(taken(3).get("two.mx.test"), 40, "by the second host")
    equal({line["num_attempts"] for line in end.results}, {1}, "in the first attempt")
    equal({(line["peer_address"]["name"], line["peer_address"]["addr"].split(":")[0])
           for line in end.results}, {("up.mx.test", "127.0.0.3")}, "as the log says")


def case_equal_preferences_share():
    end = send(engine, "equal", [f"u{i}@equal.mx.test" for i in range(400)])
    equal(end.counts(), {"accepted": 400, "delivered": 400}, "delivered")
    left, right = taken(4).get("equal.mx.test", 0), taken(5).get("equal.mx.test", 0)
    equal(left + right, 400, "both together")
    check(left > 0 and right > 0, "both have some", (left, right))


def case_null_mx():
    """B7: at once, no address is tried."""
    end = send(engine, "null", ["u@null.mx.test"])
    equal(end.counts(), {"accepted": 1, "bounced": 1}, "bounced")
    bounce = end.results[0]
    equal((bounce["reason"], bounce["response"]["code"], bounce["response"]["enhanced_code"]),
          ("PERM_NULL_MX", 556, {"class": 5, "subject": 1, "detail": 10}), "RFC 7505")


def case_no_domain():
    """B2"""
    end = send(engine, "nowhere", ["u@nowhere.mx.test"])
    equal([(line["type"], line["reason"]) for line in end.results], [("Bounce", "PERM_NO_DOMAIN")],
          "NXDOMAIN")
    end = send(engine, "noaddr", ["u@noaddr.mx.test"], expires=soon(4))
    equal([line["type"] for line in end.results], ["Expiration"],
          "an MX without an address may get one (B3)")


def case_alias_and_implicit():
    """B1, B2"""
    end = send(engine, "alias", ["u@alias.mx.test", "u@implicit.mx.test"])
    equal(end.counts(), {"accepted": 2, "delivered": 2}, "delivered")
    counts = taken(3)
    equal((counts.get("alias.mx.test"), counts.get("implicit.mx.test")), (1, 1), "to the host")


def case_one_site_of_four_domains():
    """The same MX set is one site: its connections are shared, over both workers."""
    counter = sinks[6]
    names = [f"u{i}@site{i % 4}.mx.test" for i in range(400)]
    end = send(engine, "site", names)
    equal(end.counts(), {"accepted": 400, "delivered": 400}, "delivered")
    equal(counter.peak, 5, "five connections for all four")
    equal(len({line["site"] for line in end.results}), 1, "one site in the log")


def case_next_host_when_refused():
    """A29: 554 at the greeting of the first; the second takes it."""
    end = send(engine, "rude", [f"u{i}@rude.mx.test" for i in range(10)])
    equal(end.counts(), {"accepted": 10, "delivered": 10}, "delivered")
    equal(taken(3).get("rude.mx.test"), 10, "by the second host")


def case_idn_domain():
    """F3: asked for and sent as an A-label."""
    end = send(engine, "idn", ["u@b\u00fccher.mx.test"])
    equal(end.counts(), {"accepted": 1, "delivered": 1}, "delivered")
    equal(taken(3).get("xn--bcher-kva.mx.test"), 1, "on the wire")


def case_address_literal():
    """B9"""
    end = send(engine, "literal", ["u@[127.0.0.3]"])
    equal(end.counts(), {"accepted": 1, "delivered": 1}, "delivered")


def case_special_addresses_are_refused():
    """B9, 3.10: loopback and private addresses from DNS are not used unless that is allowed."""
    strict = Engine(place, name="strict", routes=route("*", port=None, **FAST),
                    extra=f'dns {{ servers = "127.0.0.1:{knot.port}" }}\n').start()
    end = send(strict, "strict", ["u@implicit.mx.test", "u@[127.0.0.3]"], expires=soon(3))
    check(end.summary["delivered"] == 0, "nothing is sent", end.results)
    equal(strict.terminate(), 0, "exit status")


def case_broken_zone():
    """SERVFAIL defers (B2); many recipients are few questions (A33)."""
    end = send(engine, "broken", [f"u{i}@broken.test" for i in range(200)], expires=soon(4))
    equal(end.counts(), {"accepted": 200, "expired": 200}, "given up in the end")
    reasons = {event["reason"] for event in engine.events() if event["batch"] == "broken"}
    check(reasons <= {"TEMP_DNS", "PERM_EXPIRED"}, "why", reasons)


def case_changed_mx_is_seen():
    """B11: a retry asks again when the TTL is over."""
    def hosts():
        return [event["peer_address"]["name"] for event in engine.events()
                if event["batch"] == "fickle" and "peer_address" in event]
    engine.submit(make_merge(engine, "fickle", ["rcpt451-u@fickle.mx.test"]))
    wait_for(hosts, "deferred")
    knot.stop()
    knot.start(zones(ZONE.replace("fickle   1 MX 10 up", "fickle   1 MX 10 left")))
    wait_for(lambda: "left.mx.test" in hosts(), "a retry goes to the new host")
    equal(set(hosts()), {"up.mx.test", "left.mx.test"}, "and none to another")
    engine.order("fickle", "cancel")
    engine.wait_end("fickle")


def case_name_server_dies():
    """What is known goes on being used behind its TTL; what is not waits for the server."""
    send(engine, "before", ["a@short.mx.test"])
    knot.stop()
    time.sleep(1.5)  # behind the TTL of a second
    end = send(engine, "stale", [f"b{i}@short.mx.test" for i in range(20)])
    equal(end.counts(), {"accepted": 20, "delivered": 20}, "the stale answer serves")
    equal({line["num_attempts"] for line in end.results}, {1}, "at once")
    engine.submit(make_merge(engine, "unknown", ["c@fresh.mx.test"]))
    wait_for(lambda: [1 for event in engine.events() if event["batch"] == "unknown"], "deferred")
    first = [event for event in engine.events() if event["batch"] == "unknown"][0]
    equal(first["reason"], "TEMP_DNS", "an unknown domain is deferred")
    knot.start(zones(ZONE + "fresh MX 10 up\n"))
    end = engine.wait_end("unknown")
    equal(end.counts(), {"accepted": 1, "delivered": 1}, "and sent when the server is back")


def by_dns(pattern, **keys):
    return route(pattern, **keys).replace("{", f"{{ port = {knot.port}", 1)


def main():
    global place, engine, knot
    if KNOTD is None:
        skip("knotd is not here (Debian: knot)")
    with Place("mx") as place:
        knot = Knot(place.join("knot"), free_port([f"127.0.0.{last}" for last in range(2, 9)]),
                    broken=["broken.test"], run=place.run)
        knot.start(zones())
        for last in (3, 4, 5):
            sinks[last] = Sink(place, name=f"sink{last}", listen=f"127.0.0.{last}:{knot.port}")
        sinks[6] = Counter(host="127.0.0.6", port=knot.port, held_until=5)
        sinks[7] = Sink(place, "--share", "connect=554:100%", name="sink7",
                        listen=f"127.0.0.7:{knot.port}")
        engine = Engine(
            place,
            routes=by_dns("*", **FAST, connections=5) +
            by_dns("equal.mx.test", per_connection=1),
            extra=f'dns {{ servers = "127.0.0.1:{knot.port}" allow-special = yes '
                  'timeout = 20s ttl-min = 0s temporary-ttl = 1s }\n').start()
        result = run_cases(cases_of(globals()))
        if engine.is_alive():
            result |= engine.terminate()
        sinks[6].stop()
    return result


if __name__ == "__main__":
    sys.exit(main())
