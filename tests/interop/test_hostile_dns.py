# SPDX-License-Identifier: Apache-2.0
"""Name servers that mean harm or are broken: each domain is answered in its own bad way (B8, 3.10).

test_hostile_dns.py BUILD. Nobody's mail goes astray, honest domains get theirs, nothing spins.
"""
import errno
import os
import socket
import struct
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "scenario"))
from lib import (Engine, Place, Sink, check, equal, make_merge, read_text, route,  # noqa: E402
                 run_cases, send, wait_for)

A, CNAME, MX, AAAA, IN = 1, 5, 15, 28, 1
NO_NAME, REFUSED = 3, 5
TICKS = os.sysconf("SC_CLK_TCK")


def name(text):
    return b"".join(bytes([len(part)]) + part.encode() for part in text.split(".") if part) + b"\0"


def record(owner, kind, rdata, ttl=60):
    return owner + struct.pack("!HHIH", kind, IN, ttl, len(rdata)) + rdata


def mx(host, preference=10):
    return struct.pack("!H", preference) + name(host)


class Question:
    def __init__(self, packet):
        self.packet = packet
        labels, at = [], 12
        while packet[at]:
            labels.append(packet[at + 1:at + 1 + packet[at]].decode())
            at += packet[at] + 1
        self.text = ".".join(labels).lower()
        self.kind = struct.unpack("!H", packet[at + 1:at + 3])[0]
        self.section = packet[12:at + 5]
        self.owner = b"\xc0\x0c"

    def answer(self, records=(), code=0, flags=0, shift=0, count=None, section=None):
        number = (struct.unpack("!H", self.packet[:2])[0] + shift) & 0xffff
        count = len(records) if count is None else count
        head = struct.pack("!HHHHHH", number, 0x8180 | flags | code, 1, count, 0, 0)
        return head + (section or self.section) + b"".join(records)

    def good(self, host):
        if self.kind == MX:
            return self.answer([record(self.owner, MX, mx(host))])
        if self.kind == A:
            return self.answer([record(self.owner, A, b"\x7f\0\0\1")])
        return self.answer()


def pointers(question):
    """A name that points at itself, and one that points forward."""
    return question.answer([b"\xc0" + bytes([12 + len(question.section)]) +
                            struct.pack("!HHIH", MX, IN, 60, 4) + b"\0\x0a\xc0\xff"])


def many(question):
    return question.answer([record(question.owner, MX, mx(f"h{i}.good.test", i))
                            for i in range(1000)])


# What a domain's MX question is answered; bytes, or several datagrams, or none.
WAYS = {
    "silent": lambda q: [],
    "empty": lambda q: b"",
    "short": lambda q: q.packet[:2] + b"\x81\x80",
    "echo": lambda q: q.packet,
    "truncated": lambda q: q.answer(flags=0x200),
    "wrong-id": lambda q: q.answer([record(q.owner, MX, mx("mx.evil.test"))], shift=1),
    "wrong-name": lambda q: q.answer([record(name("other.test"), MX, mx("mx.evil.test"))]),
    "wrong-question": lambda q: q.answer([record(q.owner, MX, mx("mx.evil.test"))],
                                         section=name("other.test") + struct.pack("!HH", MX, IN)),
    "wrong-class": lambda q: q.answer([record(q.owner, MX, mx("mx.evil.test"))],
                                      section=q.section[:-2] + b"\0\3"),
    "pointers": pointers,
    "many": many,
    "count": lambda q: q.answer([record(q.owner, MX, mx("mx.evil.test"))], count=65535),
    "cut": lambda q: q.answer([record(q.owner, MX, mx("mx.evil.test"))])[:-5],
    "tail": lambda q: q.answer([record(q.owner, MX, mx("mx.good.test"))]) + b"\xff" * 100,
    "zero-ttl": lambda q: q.answer([record(q.owner, MX, mx("mx.good.test"), 0)]),
    "huge-ttl": lambda q: q.answer([record(q.owner, MX, mx("mx.good.test"), 0xffffffff)]),
    "no-name-but": lambda q: q.answer([record(q.owner, MX, mx("mx.evil.test"))], code=NO_NAME),
    "refused": lambda q: q.answer(code=REFUSED),
    "circle": lambda q: q.answer([record(q.owner, CNAME, name("circle.test"))]),
    "chain": lambda q: q.answer([record(q.owner, CNAME, name("x" + q.text[-60:]))]),
    "flood": lambda q: [q.answer([record(q.owner, MX, mx("mx.evil.test"))], shift=i)
                        for i in range(1, 500)],
    "good": lambda q: q.good("mx.good.test"),
}
FAST = {"retry_first": "1s", "retry_max": "1s", "retry_jitter": 0, "suspend_first": "1s",
        "suspend_max": "1s"}
DELIVERED = {"good", "truncated", "tail", "zero-ttl", "huge-ttl", "many"}


class NameServer:
    """Over TCP, where one asks again what was truncated, all is well."""

    def __init__(self):
        self.port = None
        while self.port is None:
            self.bind()
        self.questions = 0
        threading.Thread(target=self.serve, daemon=True).start()
        threading.Thread(target=self.serve_tcp, daemon=True).start()

    def bind(self):
        """The port that one is given for UDP may be somebody's for TCP."""
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        port = self.socket.getsockname()[1]
        try:
            self.listener = socket.create_server(("127.0.0.1", port))
            self.port = port
        except OSError as error:
            self.socket.close()
            if error.errno != errno.EADDRINUSE:
                raise

    def serve_tcp(self):
        while True:
            connection, _ = self.listener.accept()
            threading.Thread(target=self.talk, args=(connection,), daemon=True).start()

    @staticmethod
    def talk(connection):
        with connection, connection.makefile("rb") as file:
            while head := file.read(2):
                answer = Question(file.read(struct.unpack("!H", head)[0])).good("mx.good.test")
                connection.sendall(struct.pack("!H", len(answer)) + answer)

    def serve(self):
        while True:
            packet, peer = self.socket.recvfrom(4096)
            self.questions += 1
            question = Question(packet)
            zone = question.text.removesuffix(".test").rsplit(".", 1)[-1].lstrip("x")
            way = WAYS["good"] if question.kind in (A, AAAA) and "." in question.text[:-5] \
                else WAYS.get(zone, WAYS["chain"])
            answers = way(question)
            for answer in [answers] if isinstance(answers, bytes) else answers:
                self.socket.sendto(answer[:65000], peer)


def cpu_s(engine):
    fields = read_text(f"/proc/{engine.process.pid}/stat").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def case_bad_answers():
    with Place("dns") as place:
        sink = Sink(place)
        server = NameServer()
        extra = (f'dns {{ servers = "127.0.0.1:{server.port}" timeout = "200ms" tries = 2 '
                 'ip6 = no allow-special = yes temporary-ttl = 1s ttl-min = 0s }\n')
        # Who is to get mail is not given up because this machine has no time.
        routes = route("*", expire="5s", **FAST) + \
            "".join(route(f"{way}.test", expire="1h", **FAST) for way in DELIVERED)
        engine = Engine(place, extra=extra,
                        routes=routes.replace("{", f"{{ port = {sink.port}")).start()
        names = [f"u{i}@{way}.test" for way in WAYS for i in range(3)]
        end = send(engine, "bad", names)
        fates = {}
        for line in end.results:
            fates.setdefault(line["recipient"].split("@")[1][:-5], set()).add(line["type"])
        equal(set(fates), set(WAYS), "all are accounted for")
        for way, types in fates.items():
            check((types == {"Delivery"}) == (way in DELIVERED), f"{way}", types)
        check(server.questions < 2000, "few questions", server.questions)
        equal(engine.terminate(), 0, "exit status")


def case_silence_costs_nothing():
    """A thousand domains wait for a name server that says nothing."""
    with Place("dns") as place:
        server = NameServer()
        engine = Engine(place, routes=route("*", expire="1d"),
                        extra=f'dns {{ servers = "127.0.0.1:{server.port}" timeout = 20s }}\n')
        engine.start()
        engine.submit(make_merge(engine, "wait", [f"u@d{i}.silent.test" for i in range(1000)]))
        wait_for(lambda: engine.status()["queue"]["domain"] == 1000, "all wait")

        def is_quiet():
            before, started = cpu_s(engine), time.monotonic()
            time.sleep(1)
            return cpu_s(engine) - before < 0.1 * (time.monotonic() - started)
        wait_for(is_quiet, "nothing to do, nothing done")
        equal(engine.terminate(), 0, "exit status")


if __name__ == "__main__":
    sys.exit(run_cases([case_bad_answers, case_silence_costs_nothing]))
