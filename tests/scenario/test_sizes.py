# SPDX-License-Identifier: Apache-2.0
"""Messages of all sizes arrive with their bytes; SIZE and 8BITMIME of the server are kept to.

test_sizes.py BUILD. Compared by SHA-256 with what was submitted.
"""
import os
import random
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import (HEADER, SAME, Engine, Place, Sink, bsmtp_record, check, equal,  # noqa: E402
                 make_bsmtp, make_merge, route, run_all, send, sha256)

place = sink = engine = None
chance = random.Random(7)


def text_of(size):
    """Lines of all lengths, many beginning with dots, `size` bytes with CRLF."""
    lines = []
    left = size
    while left > 0:
        length = min(left - 2, chance.choice((0, 1, 2, 3, 60, 76, 250, 997, 998)))
        if left - length - 2 == 1:
            length += 1 if length < 998 else -1
        length = max(length, 0)
        start = chance.choice(("", ".", "..", ".a"))[:length]
        lines.append(start + "".join(chance.choices("abc .=-", k=length - len(start))))
        left -= length + 2
    return "".join(line + "\r\n" for line in lines).encode()


def taken(suffix):
    return {message["to"][0]: message for message in sink.messages()
            if message["to"][0].endswith(suffix)}


SIZES = [0, 2, 3, 4, 100, 500, 1000, 2040, 2046, 2048, 2050, 4096, 16 * 1024 - 300,
         16 * 1024, 16 * 1024 + 512, 64 * 1024, 128 * 1024 - 10, 128 * 1024, 200000, 256 * 1024,
         1 << 20, 2 * 1024 * 1024, 5 * 1024 * 1024]


def case_bsmtp_sizes():
    """0 B to 5 MB, in CRLF and in LF form."""
    for form in ("crlf", "lf"):
        wanted = {}
        records = b""
        for size in SIZES:
            name = f"s{size}@{form}.test"
            content = HEADER.encode() + text_of(size)
            wanted[name] = sha256(content)
            records += bsmtp_record("b@sender.test", [name], content)
        if form == "lf":
            records = records.replace(b"\r\n", b"\n")
        engine.submit(make_bsmtp(engine, f"sizes-{form}", records))
        end = engine.wait_end(f"sizes-{form}")
        equal(end.counts(), {"accepted": len(SIZES), "delivered": len(SIZES)},
            f"{form} {end.reason}")
        got = {name: message["sha256"] for name, message in taken(f"@{form}.test").items()}
        wrong = [name for name in wanted if got.get(name) != wanted[name]]
        equal(wrong, [], f"bytes that differ ({form})")


def case_merge_sizes():
    """A template of each size, with values in it, against a renderer of our own."""
    sizes = [0, 10, 1500, 2048, 17000, 130000, 1 << 20, 5 * 1024 * 1024]
    for number, size in enumerate(sizes):
        body = text_of(size).decode()
        text = HEADER.replace("Subject: Test", "Subject: For {{name}}") + \
            "Dear {{name}},\r\n" + body + "{{closing|Yours}} {{_to}}\r\n"
        recipients = [{"to": f"r{i}@m{number}.test", "vars": {"name": f"Name {i}" * (i + 1)}}
                      for i in range(3)]
        recipients[2]["vars"]["closing"] = "."
        end = send(engine, f"merge{number}", recipients, message=text)
        equal(end.counts(), {"accepted": 3, "delivered": 3}, f"{size} bytes {end.reason}")
        got = taken(f"@m{number}.test")
        for row in recipients:
            wanted = text.replace("{{name}}", row["vars"]["name"])
            wanted = wanted.replace("{{closing|Yours}}", row["vars"].get("closing", "Yours"))
            wanted = wanted.replace("{{_to}}", row["to"])
            equal(got[row["to"]]["sha256"], sha256(wanted.encode()), f"{row['to']}, {size} bytes")


def case_empty_bodies():
    """No body; no blank line; no last line end; one dot."""
    head = HEADER[:-2]
    texts = {"none": (head, head + "\r\n"), "blank": (head + "\r\n", head + "\r\n"),
             "noend": (head + "\r\nx", head + "\r\nx\r\n"), "dot": (head + "\r\n.", None),
             "dots": (head + "\r\n..\r\n.\r\n...\r\n", None), "lf": (head + "\r\n\r\n\r\n", None)}
    for name, (text, wanted) in texts.items():
        wanted = wanted or (text if text.endswith("\r\n") else text + "\r\n")
        end = send(engine, f"empty-{name}", [f"{name}@empty.test"], message=text)
        equal(end.counts(), {"accepted": 1, "delivered": 1}, f"{name}: {end.reason}")
        equal(taken("@empty.test")[f"{name}@empty.test"]["sha256"], sha256(wanted.encode()), name)


def case_many_large_ones():
    """200 of 100 KB, several recipients each: the read-ahead of 1 MB is waited for, not passed."""
    small = Engine(place, routes=route("*", sink.port, connections=8), name="small",
                   extra="limits { read-ahead = 1M }\n").start()
    wanted = {}
    files = []
    for half in range(2):
        records = []
        for number in range(100):
            names = [f"n{half}-{number}-{i}@large.test" for i in range(3)]
            content = HEADER.encode() + text_of(100000 + number)
            wanted[names[0]] = (sha256(content), names)
            records.append(bsmtp_record("b@sender.test", names, content))
        files.append(b"".join(records))
    small.submit(make_bsmtp(small, "large", files))
    end = small.wait_end("large")
    equal(end.counts(), {"accepted": 600, "delivered": 600}, "delivered")
    got = {}
    for message in sink.messages():
        for name in message["to"]:
            if name.endswith("@large.test"):
                got[name] = message["sha256"]
    wrong = [name for digest, names in wanted.values() for name in names if got.get(name) != digest]
    equal(wrong, [], "bytes that differ")
    equal(small.terminate(), 0, "exit status")


def case_one_transaction_for_many():
    """A constant template: 64 recipients that come together share a transaction."""
    end = send(engine, "const", [f"c{i}@const.test" for i in range(640)], message=SAME)
    equal(end.counts(), {"accepted": 640, "delivered": 640}, "delivered")
    sizes = [len(message["to"]) for message in sink.messages()
             if message["to"][0].endswith("@const.test")]
    equal(sum(sizes), 640, "recipients")
    check(max(sizes) <= 100, "rcpts-max", max(sizes))
    check(max(sizes) >= 32, "whole heaps of them", sizes)


def case_bsmtp_record_of_many():
    """One message for 1000 recipients of one record: a few transactions, the same bytes."""
    names = [f"b{i}@rec.test" for i in range(1000)]
    content = HEADER.encode() + b"To all of you.\r\n"
    engine.submit(make_bsmtp(engine, "record", bsmtp_record("b@sender.test", names, content)))
    end = engine.wait_end("record")
    equal(end.counts(), {"accepted": 1000, "delivered": 1000}, "delivered")
    mine = [message for message in sink.messages() if message["to"][0].endswith("@rec.test")]
    equal({message["sha256"] for message in mine}, {sha256(content)}, "bytes")
    check(len(mine) <= 80, "few transactions", len(mine))


def case_mixed_transaction():
    """C6: of one transaction some are refused, some deferred, some taken."""
    names = ["mixa@mix.test", "rcpt550-b@mix.test", "rcpt451x1-c@mix.test", "mixd@mix.test"]
    fast = {"retry_first": "1s", "retry_max": "1s"}
    mixed = Engine(place, routes=route("*", sink.port, connections=1, **fast), name="mixed",
                   node="workers = 1").start()
    end = send(mixed, "mix", names, message=SAME)
    equal(end.counts(), {"accepted": 4, "delivered": 3, "bounced": 1}, "counts")
    mine = [message["to"] for message in sink.messages() if message["to"][0].endswith("@mix.test")]
    equal(mine, [["mixa@mix.test", "mixd@mix.test"], ["rcpt451x1-c@mix.test"]], "transactions")
    equal(mixed.terminate(), 0, "exit status")


def case_server_limit():
    """E2: larger than the server's SIZE is a bounce, and not sent."""
    strict = Sink(place, "--size-max", "10000", name="strict")
    limited = Engine(place, routes=route("*", strict.port), name="limited").start()
    records = b"".join(bsmtp_record("b@sender.test", [f"z{size}@size.test"],
                                    HEADER.encode() + text_of(size)) for size in (9000, 11000))
    limited.submit(make_bsmtp(limited, "size", records))
    end = limited.wait_end("size")
    equal(end.counts(), {"accepted": 2, "delivered": 1, "bounced": 1}, "counts")
    bounce = [line for line in end.results if line["type"] == "Bounce"][0]
    equal((bounce["recipient"], bounce["response"]["code"], bounce["reason"]),
          ("z11000@size.test", 552, "PERM_SIZE"), "which")
    equal(set(strict.taken()), {"z9000@size.test"}, "taken")
    equal(limited.terminate(), 0, "exit status")


def case_own_limit():
    """limits message-size: the batch is refused, a message of a BSMTP file rejected."""
    limited = Engine(place, routes=route("*", sink.port), name="own",
                     extra="limits { message-size = 10000 }\n").start()
    end = send(limited, "own", ["a@own.test"], message=HEADER + text_of(20000).decode())
    equal(end.place, "failed", "a template that is too large")
    check("message.eml" in end.reason and "10000" in end.reason, "it says why", end.reason)
    fine = bsmtp_record("b@sender.test", ["fine@own.test"], HEADER.encode() + text_of(5000))
    large = bsmtp_record("b@sender.test", ["large@own.test"], HEADER.encode() + text_of(60000))
    limited.submit(make_bsmtp(limited, "own2", fine + large + fine, max_reject="100%"))
    end = limited.wait_end("own2")
    equal(end.counts(), {"accepted": 2, "rejected": 1, "delivered": 2}, f"counts {end.reason}")
    check("longer than" in end.rejects[0]["reason"], "it says why", end.rejects)
    equal(limited.terminate(), 0, "exit status")


def main():
    global place, sink, engine
    with Place("sizes") as place:
        sink = Sink(place)
        engine = Engine(place, routes=route("*", sink.port)).start()
        return run_all(globals())


if __name__ == "__main__":
    sys.exit(main())
