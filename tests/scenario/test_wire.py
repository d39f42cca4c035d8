# SPDX-License-Identifier: Apache-2.0
"""Every byte that leaves the engine, against the rules for a client's side of SMTP.

test_wire.py BUILD. The peers write down what they hear, and what comes before it may; at the end
each session of the whole run is held against the same rules.
"""
import os
import re
import select
import socketserver
import sys
import threading

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import (EACH, HEADER, SAME, Engine, Place, bsmtp_record, check, equal,  # noqa: E402
                 make_bsmtp, route, run_all, send, wait_for)

COMMAND = re.compile(rb"EHLO engine\.test|MAIL FROM:<[!-~ ]*>( SIZE=\d+)?( BODY=8BITMIME)?|"
                     rb"RCPT TO:<[!-~ ]+>|DATA|RSET|QUIT")
SYNC = (b"EHLO", b"DATA", b"QUIT")  # nothing may stand behind these in one group (RFC 2920 3.1)
ALL = ["PIPELINING", "SIZE 100000000", "8BITMIME", "SMTPUTF8", "DSN", "CHUNKING", "BINARYMIME",
       "STARTTLS", "AUTH PLAIN LOGIN", "LIMITS RCPTMAX=5", "XCLIENT NAME ADDR"]

place = engine = plain = seven = full = short = None


class Message:
    def __init__(self, sender, size, recipients, wire):
        self.sender = sender
        self.size = size  # as MAIL said; None: it did not
        self.recipients = recipients
        self.wire = wire  # as it came, with stuffing and without the last line
        self.content = re.sub(rb"(?m)^\.", b"", wire)


class Session(socketserver.StreamRequestHandler):
    """One connection: its command lines, and what was wrong with it."""

    def say(self, *lines):
        self.wfile.write("".join(line + "\r\n" for line in lines).encode())

    def is_more(self, seconds=0.0):
        """Whether more has come than was asked for. What is in the buffer is looked at first."""
        ready = bool(self.rfile.peek(1)) if self.is_buffered() else False
        return ready or bool(select.select([self.connection], [], [], seconds)[0])

    def is_buffered(self):
        self.connection.setblocking(False)
        try:
            return bool(self.rfile.peek(1))
        except OSError:
            return False
        finally:
            self.connection.setblocking(True)

    def wrong(self, what):
        with self.server.lock:
            self.server.wrongs.append(what)

    def handle(self):
        if self.is_more(0.02):
            self.wrong("bytes before the greeting")
        self.say("220 peer.test ESMTP")
        self.lines = []
        taken = 0
        sender, recipients, size = b"", [], None
        for line in self.rfile:
            self.note(line)
            verb = line[:4].upper()
            if verb == b"EHLO":
                offers = ["peer.test", *self.server.offers]
                self.say(*[f"250-{one}" for one in offers[:-1]], f"250 {offers[-1]}")
            elif verb == b"MAIL" and taken == self.server.messages_max:
                self.say("421 4.3.2 too many messages on this connection")
                return
            elif verb == b"MAIL":
                sender, recipients = line[line.index(b"<") + 1:line.index(b">")].decode(), []
                size = re.search(rb" SIZE=(\d+)", line)
                self.say("250 ok")
            elif verb == b"RCPT":
                recipients.append(line[line.index(b"<") + 1:line.rindex(b">")].decode())
                self.say("250 ok")
            elif verb == b"DATA":
                self.say("354 go on")
                wire = self.body()
                taken += 1
                with self.server.lock:
                    self.server.messages.append(Message(sender, size and int(size.group(1)),
                                                        recipients, wire))
                self.say("250 taken")
            elif verb == b"QUIT":
                self.say("221 bye")
                if self.rfile.read():
                    self.wrong("bytes behind QUIT")
                return
            else:
                self.say("250 ok")
        self.wrong("closed without QUIT")

    def note(self, line):
        with self.server.lock:
            self.server.lines.append(line)
        is_group = "PIPELINING" in self.server.offers and line[:4].upper() not in SYNC
        if not is_group and self.is_more():
            self.wrong(f"more behind {line!r}")

    def body(self):
        lines = []
        for line in self.rfile:
            if line == b".\r\n":
                if self.is_more():
                    self.wrong("more behind the end of data")
                return b"".join(lines)
            lines.append(line)
        self.wrong("closed in a message")
        return b""


class Peer(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, offers, messages_max=1 << 30):
        super().__init__(("127.0.0.1", 0), Session)
        self.offers = offers
        self.messages_max = messages_max
        self.port = self.server_address[1]
        self.lock = threading.Lock()
        self.messages = []
        self.lines = []
        self.wrongs = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def of(self, domain):
        with self.lock:
            return [one for one in self.messages if one.recipients[0].endswith("@" + domain)]


def long_domain(size):
    """A domain of so many bytes below plain.test."""
    return ("x" * 50 + ".") * ((size - 11) // 51) + "y" * ((size - 11) % 51) + ".plain.test"


def case_addresses():
    """A24, A34, A35, F1: what RCPT names is what was submitted, byte by byte, or it was refused."""
    good = ['"a b"@plain.test', '"a.b"@plain.test', '""@plain.test', '"a\\"b\\\\"@plain.test',
            '"<a>,:;@"@plain.test', "!#$%&'*+-/=?^_`{|}~@plain.test", "UPPER.lower@PLAIN.test",
            "a" * 64 + "@plain.test", "u@" + long_domain(252), "a" * 64 + "@" + long_domain(189)]
    bad = ["a" * 65 + "@plain.test", "uv@" + long_domain(252), "u@" + long_domain(254),
           "@a.test,@b.test:u@plain.test", "a@b@plain.test", "postmaster", "j\u00fc@plain.test",
           "a..b@plain.test", "<u@plain.test>", "u@plain.test.", "u@plain.test:25",
           "a b@plain.test"]
    end = send(engine, "addresses", good + bad, max_reject="100%")
    equal(end.counts(), {"accepted": len(good), "rejected": len(bad), "delivered": len(good)},
          "counts")
    equal(sorted(name for one in plain.messages for name in one.recipients), sorted(good),
          "on the wire")
    equal([row["line"] for row in end.rejects], list(range(len(good) + 1, len(good + bad) + 1)),
          "the others are told")


def case_null_sender():
    """A20"""
    for peer, domain in ((plain, "plain.test"), (full, "full.test")):
        send(engine, f"null-{domain}", [f"n@{domain}"], sender="")
        equal([one.sender for one in peer.of(domain)][-1], "", f"{domain}: MAIL FROM:<>")


def case_size_is_that_of_the_bytes():
    """E1, E3, E4: SIZE counts the octets that are sent, in the form in which they are sent, without
    the dots of the transparency."""
    text = HEADER + "{{_to}}\r\n.\r\n..\r\n" + "J\u00fcrgen. = \u20ac\r\n.x\r\n"
    for name, count in (("small", 1), ("middle", 3000), ("large", 40000)):
        content = text + "." * 60 + "\u00e9\r\n" * count
        for peer, domain in ((seven, "seven.test"), (full, "full.test")):
            end = send(engine, f"{name}-{domain}", [f"{name}@{domain}"], message=content)
            equal(end.counts(), {"accepted": 1, "delivered": 1}, f"{name} {domain}")
            message = peer.of(domain)[-1]
            equal(message.size, len(message.content), f"SIZE of {name} at {domain}")
            equal(end.results[0]["size"], message.size, f"size of {name} in the log")
            equal(message.content.isascii(), peer is seven, f"{name} at {domain} is ASCII")
            check(len(message.wire) > len(message.content), "dots were doubled")


def case_records():
    """A21: dots at the edges of a record that is sent as it lies in its file."""
    texts = [b".\r\n", b"..\r\n.\r\n", b"x\r\n.y\r\n", b"." * 998 + b"\r\n", b".\r\n" * 3000, b""]
    head = HEADER.encode()
    engine.submit(make_bsmtp(engine, "records", b"".join(
        bsmtp_record("b@sender.test", [f"r{i}@full.test"], head + text)
        for i, text in enumerate(texts))))
    equal(engine.wait_end("records").counts(), {"accepted": len(texts), "delivered": len(texts)},
          "counts")
    got = {one.recipients[0]: one.content for one in full.of("full.test")}
    for i, text in enumerate(texts):
        equal(got[f"r{i}@full.test"], head + text, f"record {i}")


def case_long_lines():
    """A23: a line of 998 bytes goes, one more is refused or put into a form that may go."""
    for size, place_wanted in ((998, "done"), (999, None), (100000, None)):
        end = send(engine, f"long{size}", ["l@full.test"], message=SAME + "x" * size + "\r\n",
                   max_reject="100%")
        check(place_wanted in (None, end.place), f"{size}: {end.reason}")
        check(end.place == "done" or "message.eml" in end.reason, f"{size} is told", end.reason)


def case_used_connections():
    """A14, 3.11: a server that takes three messages a connection gets all of them, each in its
    first attempt."""
    end = send(engine, "short", [f"u{i}@short.test" for i in range(50)], message=EACH)
    equal(end.counts(), {"accepted": 50, "delivered": 50}, "counts")
    equal({line["num_attempts"] for line in end.results}, {1}, "nobody was put off")
    equal(len(short.of("short.test")), 50, "once each")


def case_transactions_of_many():
    """C1: groups of all sizes, with and without PIPELINING."""
    for domain in ("plain.test", "full.test"):
        end = send(engine, f"many-{domain}", [f"m{i}@{domain}" for i in range(300)], message=SAME)
        equal(end.counts(), {"accepted": 300, "delivered": 300}, domain)


def case_every_session():
    """A11, A22, A23, A24, A25, A28, C1, N9, of all that was sent above. One session of each host
    is still there when the engine stops; none that is not greeted yet, and may go without QUIT."""
    wait_for(lambda: engine.status()["sessions"] == 0, "all have ended")
    for domain in ("plain.test", "seven.test", "full.test", "short.test"):
        equal(send(engine, f"last-{domain}", [f"last@{domain}"]).counts(),
              {"accepted": 1, "delivered": 1}, "one more")
    equal(engine.terminate(), 0, "exit status")
    for peer in (plain, seven, full, short):
        check(len(peer.messages) >= 3, "there were messages", len(peer.messages))
        equal(peer.wrongs, [], "sessions in good order")
        for line in peer.lines:
            check(line.endswith(b"\r\n") and COMMAND.fullmatch(line[:-2]), "a command", line)
            check(len(line) <= 512, "of 512 bytes at most", line)
        options = b"".join(line for line in peer.lines if line.startswith(b"MAIL"))
        equal(b"SIZE=" in options, any(one.startswith("SIZE") for one in peer.offers), "SIZE")
        check(b"BODY=" not in options or "8BITMIME" in peer.offers, "BODY", options[:300])
        for message in peer.messages:
            check(not re.search(rb"(?<!\r)\n|\r(?!\n)|\0", message.wire), "CRLF, no NUL",
                  message.wire[:300])
            check(max(map(len, message.wire.split(b"\r\n"))) <= 999, "lines of 998 and a dot")


def main():
    global place, engine, plain, seven, full, short
    with Place("wire") as place:
        plain, seven = Peer(["HELP"]), Peer(["PIPELINING", "SIZE 100000000"])
        full, short = Peer(ALL), Peer(["PIPELINING"], messages_max=3)
        routes = (route("*", plain.port) + route("seven.test", seven.port) +
                  route("full.test", full.port) + route("short.test", short.port, connections=2))
        engine = Engine(place, routes=routes).start()
        return run_all(globals())


if __name__ == "__main__":
    sys.exit(main())
