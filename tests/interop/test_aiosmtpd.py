# SPDX-License-Identifier: Apache-2.0
"""Delivery to python3-aiosmtpd (no PIPELINING): bytes by SHA-256, dots at every edge.

test_aiosmtpd.py BUILD
"""
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "scenario"))
from lib import (HEADER, Engine, Place, bsmtp_record, equal, make_bsmtp, read_lines,  # noqa: E402
                 route, run_all, send, sha256, skip)

place = engine = record = None
HEAD = HEADER.encode()

# What a body looks like where dots and line ends meet (curl 900 .. 1520, Qsmtp).
EDGES = [b"", b"\r\n", b".\r\n", b"..\r\n", b"...\r\n", b".\r\n.\r\n", b"\r\n.\r\n",
         b"\r\n\r\n.\r\n", b"a.\r\n", b".a\r\n", b"..a\r\n", b"a\r\n.\r\nb\r\n",
         b"a\r\n..\r\nb\r\n", b" .\r\n", b"\t.\r\n", b".\r\n\r\n.\r\n", b"QUIT\r\n",
         b".\r\nQUIT\r\n", b"RSET\r\n.\r\nMAIL FROM:<x>\r\n", b"." * 998 + b"\r\n",
         b"x" * 998 + b"\r\n", b"\xc3\xa9.\r\n.\xc3\xa9\r\n", b"From here\r\n>From there\r\n",
         b"\r\n" * 500, b".\r\n" * 2000]


def taken(domain):
    return {line["to"][0]: line for line in read_lines(record) if domain in line["to"][0]}


def case_edges():
    """Each edge as a BSMTP message and as a template."""
    records = b"".join(bsmtp_record("b@sender.test", [f"e{i}@edge.test"], HEAD + body)
                       for i, body in enumerate(EDGES))
    engine.submit(make_bsmtp(engine, "edges", records))
    end = engine.wait_end("edges")
    equal(end.counts(), {"accepted": len(EDGES), "delivered": len(EDGES)}, "bsmtp")
    got = taken("@edge.test")
    for number, body in enumerate(EDGES):
        equal(got[f"e{number}@edge.test"]["sha256"], sha256(HEAD + body), f"bsmtp {body[:30]}")
    for number, body in enumerate(EDGES):
        send(engine, f"t{number}", [f"t{number}@template.test"], message=HEAD + body)
    got = taken("@template.test")
    for number, body in enumerate(EDGES):
        equal(got.get(f"t{number}@template.test", {}).get("sha256"), sha256(HEAD + body),
              f"template {body[:30]}")


def case_dot_at_each_offset():
    """A dot line that wanders over the edges of all buffers up to 20 KB."""
    offsets = [*range(1, 60), *range(1000, 1030), *range(2030, 2064), *range(4080, 4112),
               *range(8180, 8204), *range(16370, 16400), *range(16880, 16910)]
    records = []
    wanted = {}
    for offset in offsets:
        filler = b"".join(b"y" * min(76, left - 2) + b"\r\n"
                          for left in range(offset, 2, -78) if left >= 3)
        content = HEAD + filler + b".\r\n..x\r\nend\r\n"
        wanted[f"o{offset}@offset.test"] = sha256(content)
        records.append(bsmtp_record("b@sender.test", [f"o{offset}@offset.test"], content))
    engine.submit(make_bsmtp(engine, "offsets", b"".join(records)))
    end = engine.wait_end("offsets")
    equal(end.counts(), {"accepted": len(wanted), "delivered": len(wanted)}, "delivered")
    got = {name: line["sha256"] for name, line in taken("@offset.test").items()}
    equal([name for name in wanted if got.get(name) != wanted[name]], [], "bytes that differ")


def case_options_of_mail():
    """SIZE and BODY go only where they are offered and needed (A25, E1, E5)."""
    content = HEAD.replace(b"8bit", b"7bit") + b"ascii\r\n"
    eight = HEAD + b"J\xc3\xbcrgen\r\n"
    engine.submit(make_bsmtp(engine, "options", bsmtp_record("b@s.test", ["a7@opt.test"], content)
                             + bsmtp_record("", ["a8@opt.test"], eight)))
    equal(engine.wait_end("options").counts(), {"accepted": 2, "delivered": 2}, "delivered")
    got = taken("@opt.test")
    equal(got["a7@opt.test"]["mail_options"], [f"SIZE={len(content)}"], "plain text")
    equal(got["a8@opt.test"]["mail_options"], [f"SIZE={len(eight)}", "BODY=8BITMIME"],
          "8-bit text")
    equal((got["a7@opt.test"]["from"], got["a8@opt.test"]["from"]), ("b@s.test", "<>"), "senders")


def case_a_thousand():
    """Values in merge batches and many recipients, on a few sessions."""
    text = HEADER + "Dear {{name}},\r\n.{{name}}\r\n.\r\n"
    rows = [{"to": f"m{i}@many.test", "vars": {"name": f".n{i}"}} for i in range(1000)]
    end = send(engine, "many", rows, message=text)
    equal(end.counts(), {"accepted": 1000, "delivered": 1000}, "delivered")
    got = taken("@many.test")
    wrong = [row["to"] for row in rows if got[row["to"]]["sha256"] !=
             sha256(text.replace("{{name}}", row["vars"]["name"]).encode())]
    equal(wrong, [], "bytes that differ")


def case_several_recipients():
    names = [f"s{i}@several.test" for i in range(60)]
    engine.submit(make_bsmtp(engine, "several", bsmtp_record("b@sender.test", names,
                                                             HEAD + b"x\r\n")))
    equal(engine.wait_end("several").counts(), {"accepted": 60, "delivered": 60}, "delivered")
    got = [name for line in read_lines(record) for name in line["to"] if "@several.test" in name]
    equal(sorted(got), sorted(names), "all, once each")


def main():
    global place, engine, record
    python = "/usr/bin/python3"
    found = os.path.exists(python) and subprocess.run(
        [python, "-c", "import aiosmtpd"], capture_output=True).returncode == 0
    if not found:
        skip("aiosmtpd is not here (Debian: python3-aiosmtpd)")
    with Place("aiosmtpd") as place:
        record = place.join("record")
        peer = place.run([python, os.path.join(HERE, "aiosmtpd_peer.py"), record],
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        port = int(peer.stdout.readline())
        engine = Engine(place, routes=route("*", port, connections=4)).start()
        return run_all(globals())


if __name__ == "__main__":
    sys.exit(main())
