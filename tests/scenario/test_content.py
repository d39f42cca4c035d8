# SPDX-License-Identifier: Apache-2.0
"""What a message is made of arrives as docs/formats/TEMPLATE.md says.

test_content.py BUILD
"""
import email
import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import (HEADER, Engine, Place, check, equal, make_bsmtp, make_merge, program,  # noqa: E402
                 route, run_all, send, wait_for)
from smtp_peer import Peer  # noqa: E402

place = peer = engine = None

BARE = "From: News <news@sender.test>\r\nSubject: Test\r\n"


def arrived(recipient):
    """Sender and bytes of the one message for the recipient."""
    found = [(sender, body) for sender, names, body in peer.messages if recipient in names]
    equal(len(found), 1, f"messages for {recipient}")
    return found[0]


def case_address_as_sent():
    """{{_to}} is the address that RCPT names; check says so, too."""
    end = send(engine, "alabel", ["u@m\u00fcnchen.test"], sender="b-{{_id}}{{_batch}}@sender.test",
               message=BARE + "To: {{_to}}\r\n\r\nHello {{_to}}.\r\n")
    equal(end.counts(), {"accepted": 1, "delivered": 1}, "counts")
    _, body = arrived("u@xn--mnchen-3ya.test")
    check(b"\r\nTo: u@xn--mnchen-3ya.test\r\n" in body, "the field", body)
    check(b"\r\nHello u@xn--mnchen-3ya.test.\r\n" in body, "the text", body)


def case_not_ascii_in_addresses():
    """What would need SMTPUTF8 is refused before anything is sent."""
    end = send(engine, "alias", ["u@plain.test"], max_reject="100%",
               message=BARE + "Reply-To: <{{r|\u00fc@sender.test}}>\r\n\r\nx\r\n")
    check("message.eml:3: " in end.reason and "SMTPUTF8" in end.reason, "default", end.reason)
    end = send(engine, "value", [{"to": "u@plain.test", "vars": {"r": "\u00fc@sender.test"}}],
               message=BARE + "Reply-To: <{{r}}>\r\n\r\nx\r\n")
    check("SMTPUTF8" in end.rejects[0]["reason"], "value", end.rejects)


def case_eight_bit_text_for_seven_bit_servers():
    """Large texts go as quoted-printable, too; what is too large then is told as that."""
    plain = Peer()
    plain.greeting = "250 peer.test"
    limited = Engine(place, name="limited", extra="limits { message-size = 6M }",
                     routes=route("*", plain.port)).start()
    line = "\u00e9" * 30 + ". =" + "x" * 10 + "\r\n"
    for name, count in (("small", 200), ("medium", 6000), ("large", 30000)):
        text = line * count
        end = send(limited, name, [f"{name}@plain.test"], message=HEADER + text)
        equal(end.counts(), {"accepted": 1, "delivered": 1}, f"{name} {end.results[:1]}")
        body = [body for _, names, body in plain.messages if names == [f"{name}@plain.test"]][0]
        check(body.isascii(), f"{name}: 7-bit")
        message = email.message_from_bytes(body)
        equal(message.get_payload(decode=True).decode().replace("\r\n", "\n"),
              text.replace("\r\n", "\n"), f"{name}: text")
    end = send(limited, "limit", ["limit@plain.test"], message=HEADER + line * 60000)
    equal(end.counts(), {"accepted": 1, "bounced": 1}, "over the limit when it is encoded")
    content = end.results[0]["response"]["content"]
    check("size limit" in content and "8BITMIME" in content, "its words", content)
    equal(limited.terminate(), 0, "exit status")
    plain.stop()


def case_untried():
    """Cancelled before the first attempt: none is counted, no sender; labels are in each line."""
    engine.submit(make_merge(engine, "later", ["u@plain.test"], not_before="2090-01-01T00:00:00Z",
                             tenant="acme", campaign='Spring "\u00e9"'))
    wait_for(lambda: (engine.progress("later") or {}).get("pending") == 1, "it waits")
    engine.order("later", "cancel")
    line = engine.wait_end("later").results[0]
    equal((line["type"], line["num_attempts"], "sender" in line), ("AdminBounce", 0, False), line)
    equal((line["tenant"], line["campaign"]), ("acme", 'Spring "\u00e9"'), "labels")
    end = send(engine, "null", ["n@plain.test"], sender="")
    equal((end.results[0]["sender"], end.results[0]["num_attempts"]), ("", 1), "the null path")
    end = send(engine, "pool", ["p@plain.test"], pool="news-a")
    check("pool" in end.reason and "not supported" in end.reason, "pool", end.reason)


def check_batch(batch, sample):
    """Exit status, output and errors of ramjet check on a batch that is still being made."""
    done = subprocess.run([program("engine", "ramjet"), "check", "-c", engine.config, "--sample",
                           str(sample), batch], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def case_bsmtp_check_and_run():
    """A bad RCPT is told with its own line, and the sample has the fields that are added."""
    record = ("MAIL FROM:<b@sender.test>\r\n"
              "RCPT TO:<one@bs.test>\r\nRCPT TO:<bad..two@bs.test>\r\nDATA\r\n"
              "From: b@sender.test\r\n\r\nx\r\n.\r\n").encode()
    made = make_bsmtp(engine, "bs", [record + record], max_reject="100%")
    status, out, _ = check_batch(made, 1)
    equal(status, 1, "rejects")
    check(":3: " in out and ":11: " in out, "lines of check", out)
    check("DATA\nDate: " in out and "\nMessage-ID: <bs." in out, "fields of the sample", out)
    status, _, words = check_batch(made, 3)
    equal(status, 1, "no such recipient")
    check("--sample 3" in words and "has 2 recipients" in words, "its words", words)
    engine.submit(made)
    end = engine.wait_end("bs")
    equal([row["line"] for row in end.rejects], [3, 11], "lines of rejects.ndjson")
    ids = {re.search(rb"Message-ID: <bs\.[0-9a-f]{16}\.\d+@", body).group()
           for _, names, body in peer.messages if names == ["one@bs.test"]}
    equal(len(ids), 2, "a Message-ID for each")


def main():
    global place, peer, engine
    with Place("content") as place:
        peer = Peer()
        engine = Engine(place, routes=route("*", peer.port)).start()
        return run_all(globals())


if __name__ == "__main__":
    sys.exit(main())
