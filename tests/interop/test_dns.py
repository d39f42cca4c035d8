# SPDX-License-Identifier: Apache-2.0
"""The resolver against a real name server (knotd) on loopback.

test_dns.py DNS_PROBE. Zones are written into a temporary directory, knotd serves them on a free
port, and dns_probe's lines are compared with the tables below. A zone without a file gives
SERVFAIL, an unknown zone REFUSED, a socket that nobody reads a timeout.
"""
import os
import socket
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "..", "bench"))
from peers.knot import KNOTD, Knot, free_port  # noqa: E402

SKIP = 77

LONG_NAME = "a-rather-long-name-for-mail-exchanger-number-"
MANY = "".join(f"many 3600 MX 10 {LONG_NAME}{i:03}.many\n" for i in range(60))

ZONE = f"""
$ORIGIN mail.test.
@            3600 SOA ns hostmaster 1 7200 900 1209600 300
@            3600 NS  ns
ns           3600 A   192.5.2.53
plain        3600 MX  10 mx1
mx1          1800 A   192.5.2.1
two          3600 MX  20 mx2
two          3600 MX  10 mx1
mx2          1700 A   192.5.2.2
mx2          1600 AAAA 2a00:db8::2
equal        3600 MX  10 eq-a
equal        3600 MX  10 eq-b
eq-a         3600 A   192.5.2.11
eq-b         3600 A   192.5.2.12
alias        900  CNAME plain
alias-alias  800  CNAME alias
alias-out    700  CNAME plain.other.test.
alias-gone   900  CNAME nowhere
loop-a       900  CNAME loop-b
loop-b       900  CNAME loop-a
implicit     1500 A   192.5.2.20
implicit     1500 AAAA 2a00:db8::20
null         3600 MX  0 .
null         3600 A   192.5.2.9
aaaa-only    3600 MX  10 mx6
mx6          3600 AAAA 2a00:db8::6
dangling     3600 MX  10 nowhere
dangling     3600 A   192.5.2.9
ip           3600 MX  10 127.0.0.1.
special      3600 MX  10 inside
inside       3600 A   10.0.0.1
txt          3600 TXT "no address"
half-broken  3600 MX  10 mx.broken.test.
half-broken  3600 MX  20 mx1
*.wild       3600 MX  10 mx1
{MANY}
{LONG_NAME}005.many 3600 A 192.5.2.105
"""

OTHER_ZONE = """
$ORIGIN other.test.
@      3600 SOA ns hostmaster 1 7200 900 1209600 300
@      3600 NS  ns
ns     3600 A   192.5.2.53
plain  600  MX  10 mx1.mail.test.
"""

MX1 = "10,mx1.mail.test,192.5.2.1"
MX2 = "20,mx2.mail.test,192.5.2.2 20,mx2.mail.test,2a00:db8::2"
IMPLICIT = "0,implicit.mail.test,192.5.2.20 0,implicit.mail.test,2a00:db8::20"
EQUAL = {"10,eq-a.mail.test,192.5.2.11", "10,eq-b.mail.test,192.5.2.12"}
MANY_HOSTS = f"10,{LONG_NAME}005.many.mail.test,192.5.2.105"
HOST_MX2 = "0,mx2.mail.test,192.5.2.2 0,mx2.mail.test,2a00:db8::2"

# name, outcome, TTL when it is asked for, site, hosts; None: not compared; a set: in any order
TABLE = [
    ("plain.mail.test", "ok", 1800, "mx1.mail.test", MX1),
    ("two.mail.test", "ok", 1600, "(mx1|mx2).mail.test", f"{MX1} {MX2}"),
    ("equal.mail.test", "ok", 3600, "(eq-a|eq-b).mail.test", EQUAL),
    ("alias.mail.test", "ok", 900, "mx1.mail.test", MX1),
    ("alias-alias.mail.test", "ok", 800, "mx1.mail.test", MX1),
    ("alias-out.mail.test", "ok", 600, "mx1.mail.test", MX1),
    ("alias-gone.mail.test", "no_domain", 300, "-", "-"),
    ("loop-a.mail.test", "loop", None, "-", "-"),
    ("implicit.mail.test", "ok", 300, "implicit.mail.test", IMPLICIT),
    ("null.mail.test", "null_mx", 3600, "-", "-"),
    ("aaaa-only.mail.test", "ok", 3600, "mx6.mail.test", "10,mx6.mail.test,2a00:db8::6"),
    ("nowhere.mail.test", "no_domain", 300, "-", "-"),
    ("dangling.mail.test", "no_host", 300, "-", "-"),
    ("ip.mail.test", "no_host", 3600, "-", "-"),
    ("special.mail.test", "no_host", None, "-", "-"),
    ("txt.mail.test", "no_address", 300, "-", "-"),
    ("any.wild.mail.test", "ok", 1800, "mx1.mail.test", MX1),
    ("many.mail.test", "ok", 3600, None, MANY_HOSTS),
    ("half-broken.mail.test", "ok", 60, "(mx.broken|mx1.mail).test", f"20,{MX1[3:]}"),
    ("broken.test", "temporary", 60, "-", "-"),
    ("unknown.example", "temporary", 60, "-", "-"),
    ("host:mx2.mail.test", "ok", 1600, "mx2.mail.test", HOST_MX2),
    ("host:inside.mail.test", "ok", 3600, "inside.mail.test", "0,inside.mail.test,10.0.0.1"),
    ("host:nowhere.mail.test", "no_domain", 300, "-", "-"),
    ("[192.5.2.1]", "ok", 86400, "[192.5.2.1]", "0,[192.5.2.1],192.5.2.1"),
    ("[127.0.0.1]", "no_address", None, "-", "-"),
    ("a..test", "bad_name", None, "-", "-"),
]

passed = failed = 0


def check(what, condition, got):
    global passed, failed
    if condition:
        passed += 1
    else:
        failed += 1
        print(f"FAILED {what}: {got}")


def probe(program, servers, names, timeout_ms=20000, tries=4, query_timeout_ms=200000):
    """Its lines, and how long it took at most: so much older may answers be."""
    started = time.monotonic()
    numbers = [str(timeout_ms), str(tries), str(query_timeout_ms)]
    command = [program, servers, *numbers, *names]
    run = subprocess.run(command, stdout=subprocess.PIPE, check=False, text=True)
    check(" ".join(command[:5]) + " exit", run.returncode == 0, run.returncode)
    return run.stdout.splitlines(), time.monotonic() - started


def compare(line, row, took_s):
    name, outcome, ttl_s, site, hosts = row
    fields = line.split(" ", 4)
    check(name, len(fields) == 5 and fields[0] == name and fields[1] == outcome, line)
    if len(fields) != 5:
        return
    check(f"{name} ttl", ttl_s is None or ttl_s - took_s - 1 <= int(fields[2]) <= ttl_s, line)
    check(f"{name} site", site is None or fields[3] == site, line)
    got = set(fields[4].split(" ")) if isinstance(hosts, set) else fields[4]
    check(f"{name} hosts", got == hosts, line)


def test_table(program, port):
    lines, took_s = probe(program, f"127.0.0.1:{port}", [row[0] for row in TABLE])
    check("lines", len(lines) == len(TABLE), lines)
    for line, row in zip(lines, TABLE):
        compare(line, row, took_s)


def test_same_name_often(program, port):
    lines, took_s = probe(program, f"127.0.0.1:{port}", ["plain.mail.test"] * 200)
    check("200 times", len(lines) == 200 and len(set(lines)) == 1, lines[:3])
    compare(lines[0], TABLE[0], took_s)


def compare_one(program, servers, row, **times):
    lines, took_s = probe(program, servers, [row[0]], **times)
    compare(lines[0] if lines else "", row, took_s)


def test_silence(program, port):
    """Nobody reads: c-ares' timeouts, our own deadline before them, another server that answers."""
    with socket.socket(type=socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        dead = f"127.0.0.1:{silent.getsockname()[1]}"
        row = ("plain.mail.test", "temporary", 60, "-", "-")
        compare_one(program, dead, row, timeout_ms=100, tries=2)
        compare_one(program, dead, row, timeout_ms=600000, query_timeout_ms=300)
        compare_one(program, f"{dead},127.0.0.1:{port}", TABLE[0], timeout_ms=300, tries=8)


def test_nobody(program):
    row = ("plain.mail.test", "temporary", 60, "-", "-")
    compare_one(program, f"127.0.0.1:{free_port()}", row, timeout_ms=300, tries=2)


def main():
    if KNOTD is None:
        print("skipped: there is no knotd")
        return SKIP
    program = os.path.abspath(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        knot = Knot(os.path.join(folder, "knot"), free_port(), broken=["broken.test"])
        try:
            knot.start({"mail.test": ZONE, "other.test": OTHER_ZONE})
            test_table(program, knot.port)
            test_same_name_often(program, knot.port)
            test_silence(program, knot.port)
            test_nobody(program)
        finally:
            knot.stop()
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


sys.exit(main())
