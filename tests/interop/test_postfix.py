# SPDX-License-Identifier: Apache-2.0
"""Delivery to a real Postfix with a mailbox: every mail is compared byte by byte.

test_postfix.py BUILD
"""
import os
import random
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "scenario")]
from lib import (HEADER, SAME, Engine, Place, bsmtp_record, check, equal, make_bsmtp,  # noqa: E402
                 make_merge, route, run_all, send, sha256, skip, wait_for)
from postfix_mailbox import Postfix, is_missing  # noqa: E402

place = postfix = engine = None
chance = random.Random(3)
HEAD = HEADER.encode()
BODIES = [b"", b"\r\n", b"Hello.\r\n", b".\r\n", b"..\r\n.\r\n...\r\n", b".hidden\r\n\r\n.\r\n",
          b"x" * 998 + b"\r\n", (b"." + b"y" * 900 + b"\r\n") * 20,
          "Gr\u00fc\u00dfe aus K\u00f6ln \u2713\r\n".encode(), b"\x80\xff\xfe raw\r\n",
          b"From me\r\n>From me\r\n", b"\t tabs \r\n  blanks  \r\n", b"\r\n" * 50,
          b"".join(b"%d %s\r\n" % (i, b"z" * (i % 70)) for i in range(3000))]
FAST = {"retry_first": "1s", "retry_max": "1s", "retry_jitter": 0, "suspend_first": "1s",
        "suspend_max": "1s"}


def arrive(wanted, what):
    """wanted: SHA-256 by recipient. All are in the mailbox, once, with these bytes."""
    def come():
        return len(postfix.names()) >= before + len(wanted)
    before = arrive.seen
    wait_for(come, f"{what} in the mailbox: {len(postfix.names()) - before} of {len(wanted)}")
    got = {}
    senders = set()
    for recipient, sender, content in postfix.mails():
        if recipient in wanted:
            got.setdefault(recipient, []).append(sha256(content))
            senders.add(sender)
    arrive.seen = len(postfix.names())
    wrong = [name for name, digest in wanted.items() if got.get(name) != [digest]]
    equal(wrong, [], f"{what}: mails that differ")
    return senders


arrive.seen = 0


def case_bsmtp():
    """200 messages with one to five recipients each."""
    records = []
    wanted = {}
    for number in range(200):
        content = HEAD.replace(b"Test", b"Number %d" % number) + BODIES[number % len(BODIES)]
        names = [f"b{number}-{i}@box.test" for i in range(chance.randint(1, 5))]
        wanted.update(dict.fromkeys(names, sha256(content)))
        records.append(bsmtp_record("Bounce+x@sender.test", names, content))
    engine.submit(make_bsmtp(engine, "bsmtp", b"".join(records)))
    end = engine.wait_end("bsmtp")
    equal(end.counts(), {"accepted": len(wanted), "delivered": len(wanted)}, "delivered")
    equal(arrive(wanted, "bsmtp"), {"Bounce+x@sender.test"}, "sender")


def case_merge():
    """A template with values in header and body, for 200 recipients of two domains."""
    text = HEADER.replace("Subject: Test", "Subject: Dear {{name}}") + \
        "Hello {{name}}!\r\n.{{name}}\r\n.\r\n{{text}}\r\n"
    rows = []
    wanted = {}
    for number in range(200):
        values = {"name": f"Ann{number}", "text": chance.choice(
            ["plain", ".", "..", "J\u00fcrgen \u2713", "x" * 500, ""])}
        name = f"m{number}@{('box', 'other')[number % 2]}.test"
        rows.append({"to": name, "vars": values})
        content = text.replace("{{name}}", values["name"]).replace("{{text}}", values["text"])
        wanted[name] = sha256(content.encode())
    end = send(engine, "merge", rows, message=text, missing="empty",
               sender="b-{{_vid}}@sender.test")
    equal(end.counts(), {"accepted": 200, "delivered": 200}, "delivered")
    senders = arrive(wanted, "merge")
    equal(len(senders), 200, f"a sender for each recipient: {sorted(senders)[:3]}")


def case_more_recipients_than_it_takes():
    """It takes 20 a transaction and says 452 4.5.3 to more: the rest goes in the next (A16)."""
    names = [f"c{i}@box.test" for i in range(150)]
    end = send(engine, "same", names, message=SAME)
    equal(end.counts(), {"accepted": 150, "delivered": 150}, "delivered")
    equal({line["num_attempts"] for line in end.results}, {1}, "at once")
    arrive(dict.fromkeys(names, sha256(SAME.encode())), "same")


def case_refused_recipients():
    """Relaying is denied: bounced with Postfix's words; the others of the transaction arrive."""
    names = ["ok1@box.test", "no@elsewhere.test", "ok2@box.test"]
    end = send(engine, "mixed", names, message=SAME)
    equal(end.counts(), {"accepted": 3, "delivered": 2, "bounced": 1}, "counts")
    bounce = [line for line in end.results if line["type"] == "Bounce"][0]
    equal((bounce["recipient"], bounce["response"]["code"]), ("no@elsewhere.test", 554), "which")
    check("Relay access denied" in bounce["response"]["content"], "its words", bounce)
    arrive(dict.fromkeys(("ok1@box.test", "ok2@box.test"), sha256(SAME.encode())), "mixed")


def case_large():
    content = HEAD + (b"." + b"l" * 900 + b"\r\n") * 5500
    engine.submit(make_bsmtp(engine, "large", bsmtp_record("b@sender.test", ["l@box.test"],
                                                           content)))
    equal(engine.wait_end("large").counts(), {"accepted": 1, "delivered": 1}, "delivered")
    arrive({"l@box.test": sha256(content)}, "5 MB")


def case_restart_of_the_server():
    """It goes away in the middle of a batch and comes back: all arrive."""
    names = [f"r{i}@box.test" for i in range(300)]
    text = HEADER + "{{_to}}\r\n"
    engine.submit(make_merge(engine, "restart", names, message=text))
    before = len(postfix.names())
    wait_for(lambda: len(postfix.names()) > before + 20, "some have arrived")
    postfix.stop()
    postfix.start()
    end = engine.wait_end("restart")
    equal(end.counts(), {"accepted": 300, "delivered": 300}, "delivered")
    again = [line for line in end.results if line.get("possible_duplicate")]
    # By name: some come twice.
    wait_for(lambda: set(names) <= {mail[0] for mail in postfix.mails()}, "all are in the mailbox")
    got = {}
    for recipient, _, content in postfix.mails():
        if recipient in names:
            got.setdefault(recipient, []).append(sha256(content))
    equal(sorted(got), sorted(names), "all have come")
    equal([name for name in names if {sha256(text.replace("{{_to}}", name).encode())} !=
           set(got[name])], [], "mails that differ")
    twice = [name for name, ids in postfix.taken().items() if name in names and len(ids) > 1]
    check(set(twice) <= {line["recipient"] for line in again}, "what came twice is told", twice)
    arrive.seen = len(postfix.names())


def main():
    global place, postfix, engine
    reason = is_missing()
    if reason:
        skip(reason)
    with Place("postfix") as place, Postfix(place) as postfix:
        engine = Engine(place, routes=route("*", postfix.port, connections=10, **FAST)).start()
        return run_all(globals())


if __name__ == "__main__":
    sys.exit(main())
