# SPDX-License-Identifier: Apache-2.0
"""Delivery to Postfix's smtp-sink in all its moods.

test_smtp_sink.py BUILD. One engine, one smtp-sink a row of the table, each behind a route of its
own; all rows run at the same time. What smtp-sink took is compared byte by byte. Who never gets
through is cancelled once the reason is told of each.
"""
import os
import shutil
import socket
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "scenario"))
from lib import (HEADER, Engine, Late, Place, bsmtp_record, check, equal, finish,  # noqa: E402
                 free_port, make_bsmtp, route, sha256, skip, wait_for)

PROGRAM = shutil.which("smtp-sink") or shutil.which("smtp-sink", path="/usr/sbin:/usr/lib/postfix")
PLAIN = HEADER.replace("8bit", "7bit").encode()
BODY = b"Hello.\r\n.\r\n..\r\n.dot\r\n\r\n" + b"x" * 990 + b"\r\n"
LARGE = (b"." + b"y" * 97 + b"\r\n") * 50000
KEYS = {"retry_first": "1s", "retry_max": "1s", "retry_jitter": 0, "suspend_first": "1s",
        "suspend_max": "1s"}

DELIVERED = ("delivered", {"DELIVERED"})


def refused(code="500"):
    return ("bounced", {"PERM_REPLY"}, code)


def never(*reasons):
    return ("cancelled", set(reasons))


def no_session(*reasons):
    """A worker that did not try the host itself only knows that it rests."""
    return never("TEMP_NO_CONNECT", *reasons)


# Options, and what becomes of three messages: outcome, reasons of all events (but those of the
# cancel), code of the last event. Optional: keys of the route, the body.
TABLE = [
    ("plain", [], DELIVERED),
    ("no ESMTP", ["-e"], DELIVERED),
    ("no PIPELINING", ["-p"], DELIVERED),
    ("no 8BITMIME", ["-8"], DELIVERED),
    ("no enhanced codes", ["-E"], DELIVERED),
    ("Cisco PIX", ["-P"], DELIVERED),
    ("no AUTH, DSN, XFORWARD, XCLIENT", ["-a", "-N", "-F", "-C"], DELIVERED),
    ("no ESMTP, 8-bit text", ["-e"], ("bounced", {"PERM_8BIT"}, 554), {}, b"J\xc3\xbcrgen\r\n"),
    ("8-bit text", [], DELIVERED, {}, b"J\xc3\xbcrgen\r\n"),
    ("hard EHLO", ["-f", "ehlo"], DELIVERED),
    ("hard EHLO and HELO", ["-f", "ehlo,helo"], no_session("TEMP_GREETING")),
    ("hard MAIL", ["-f", "mail"], refused()),
    ("hard RCPT", ["-f", "rcpt"], refused()),
    ("hard DATA", ["-f", "data"], refused()),
    ("hard dot", ["-f", "."], refused()),
    ("hard RSET", ["-f", "rset,rcpt"], refused()),
    ("hard QUIT", ["-f", "quit"], DELIVERED),
    ("other words", ["-f", "rcpt", "-B", "550 5.1.1 nobody here"], refused(550)),
    ("soft greeting", ["-r", "connect"], no_session("TEMP_GREETING")),
    ("soft EHLO", ["-r", "ehlo"], no_session("TEMP_GREETING")),
    ("soft MAIL", ["-r", "mail"], never("TEMP_REPLY")),
    ("soft RCPT", ["-r", "rcpt"], never("TEMP_REPLY")),
    ("soft DATA", ["-r", "data"], never("TEMP_REPLY")),
    ("soft dot", ["-r", "."], never("TEMP_REPLY")),
    ("dropped at connect", ["-q", "connect"], no_session("TEMP_CONNECTION_LOST")),
    ("dropped at EHLO", ["-q", "ehlo"], no_session("TEMP_CONNECTION_LOST")),
    ("dropped at MAIL", ["-q", "mail"], never("TEMP_CONNECTION_LOST")),
    ("dropped at RCPT", ["-q", "rcpt"], never("TEMP_CONNECTION_LOST")),
    ("dropped at DATA", ["-q", "data"], never("TEMP_CONNECTION_LOST")),
    ("dropped at the dot", ["-q", "."], never("TEMP_AMBIGUOUS")),
    ("dropped at QUIT", ["-q", "quit"], DELIVERED),
    ("421 at EHLO", ["-Q", "ehlo"], no_session("TEMP_GREETING")),
    ("421 at MAIL", ["-Q", "mail"], never("TEMP_REPLY")),
    ("421 at RCPT", ["-Q", "rcpt"], never("TEMP_REPLY")),
    ("421 at the dot", ["-Q", "."], never("TEMP_REPLY")),
    ("550 in mid-body", ["-A", "1"], refused(550), {}, LARGE),
    ("slow DATA", ["-w", "1"], DELIVERED),
    # Without -p it would answer the DATA behind a slow RCPT first.
    ("slow RCPT", ["-p", "-W", "rcpt:1"], DELIVERED),
    ("too slow a dot", ["-W", ".:1000"], never("TEMP_AMBIGUOUS"), {"end_of_data_timeout": "1s"}),
    ("too slow a RCPT", ["-p", "-W", "rcpt:1000"], never("TEMP_TIMEOUT"), {"rcpt_timeout": "1s"}),
    ("slow reader", ["-H", "1", "-T", "4096"], DELIVERED, {}, LARGE),
]


def start(place, number, options):
    """smtp-sink on a free port, with its dumps in a directory of its own."""
    port = free_port()
    dumps = place.join(f"dumps{number}")
    os.mkdir(dumps)
    user = ["-u", "nobody"] if os.geteuid() == 0 else []
    os.chmod(dumps, 0o777)
    place.run([PROGRAM, *user, *options, "-d", "m", f"127.0.0.1:{port}", "100"], cwd=dumps)

    def listens():
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0
    wait_for(listens, f"smtp-sink {' '.join(options)}")
    return port, dumps


def parse(path):
    """(sender, recipients, content) of a dump; content with CRLF, without what smtp-sink adds."""
    with open(path, "rb") as file:
        lines = file.read().split(b"\n")
    sender, recipients = None, []
    while lines[0].startswith(b"X-"):
        key, value = lines.pop(0).split(b": ", 1)
        if key == b"X-Mail-Args":
            sender = value.split(b"<")[1].split(b">")[0].decode()
        if key == b"X-Rcpt-Args":
            recipients.append(value.split(b"<")[1].split(b">")[0].decode())
    lines = lines[3:]  # Received
    return sender, recipients, b"\r\n".join(lines[:-1])


def submit_all(engine):
    for number, row in enumerate(TABLE):
        body = row[4] if len(row) > 4 else BODY
        content = (HEADER.encode() if body.startswith(b"J") else PLAIN) + body
        records = b"".join(bsmtp_record("b@sender.test", [f"r{i}@v{number}.test"], content)
                           for i in range(1 if body == LARGE else 3))
        engine.submit(make_bsmtp(engine, f"v{number}", records))


def told(events, number):
    """Of so many recipients of a row there is an event."""
    return len({event["recipient"] for event in events if event["batch"] == f"v{number}"})


def look(engine, number, row, dumps, events):
    what, options, wanted = row[:3]
    body = row[4] if len(row) > 4 else BODY
    count = 1 if body == LARGE else 3
    if wanted[0] == "cancelled":
        wait_for(lambda: told(events(), number) == count, f"{what} {options}: tried", 60)
        engine.order(f"v{number}", "cancel")
    end = engine.wait_end(f"v{number}", 60)
    equal(end.counts(), {"accepted": count, wanted[0]: count}, f"{what} {options}")
    mine = [event for event in events() if event["batch"] == f"v{number}"]
    reasons = {event["reason"] for event in mine if event["reason"] != "PERM_CANCELLED"}
    check(reasons and reasons <= wanted[1], f"{what} {options}: reasons", reasons)
    if len(wanted) > 2:
        equal({line["response"]["code"] for line in end.results}, {int(wanted[2])},
              f"{what} {options}: code")
    ambiguous = wanted[1] == {"TEMP_AMBIGUOUS"}
    equal(any(event.get("possible_duplicate") for event in mine), ambiguous,
          f"{what} {options}: possible_duplicate")
    if wanted == DELIVERED:
        content = (HEADER.encode() if body.startswith(b"J") else PLAIN) + body
        got = sorted(parse(os.path.join(dumps, name)) for name in os.listdir(dumps))
        equal([(sender, recipients, sha256(text)) for sender, recipients, text in got],
              [("b@sender.test", [f"r{i}@v{number}.test"], sha256(content))
               for i in range(count)], f"{what} {options}: what arrived")


def main():
    if PROGRAM is None:
        skip("smtp-sink is not here (Debian: postfix)")
    with Place("smtp-sink") as place:
        started = [start(place, number, row[1]) for number, row in enumerate(TABLE)]
        routes = "".join(route(f"v{number}.test", started[number][0], **KEYS,
                               **(row[3] if len(row) > 3 else {}))
                         for number, row in enumerate(TABLE))
        engine = Engine(place, routes=routes).start()
        submit_all(engine)
        for number, row in enumerate(TABLE):
            try:
                look(engine, number, row, started[number][1], engine.events)
            except Late as late:
                check(False, f"{row[0]} {row[1]}", late)
        equal(engine.status()["queue"], dict.fromkeys(
            ("domain", "ready", "loading", "flight", "journal", "retry"), 0), "nothing is left")
        equal(engine.terminate(), 0, "exit status")
    return finish()


if __name__ == "__main__":
    sys.exit(main())
