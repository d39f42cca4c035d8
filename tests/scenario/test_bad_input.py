# SPDX-License-Identifier: Apache-2.0
"""Bad input on the spool side (conformance.md 4): told with file, line, reason and remedy; put
where it belongs; and nothing else lost by it.

test_bad_input.py BUILD
"""
import json
import os
import re
import shutil
import socket
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import (EACH, HEADER, End, Engine, Place, Sink, bsmtp_record, check, equal,  # noqa: E402
                 make_bsmtp, make_merge, read_text, route, run_all, send, soon,
                 wait_for, write)
from smtp_peer import Peer  # noqa: E402

place = sink = engine = peer = None
GOOD = ["good@bad.test"]
BODY = b"From: a@b.test\r\n\r\nText.\r\n"
RECORD = bsmtp_record("b@sender.test", ["good@bad.test"], BODY)


def merge(recipients=GOOD, message=None, **manifest):
    return lambda batch: make_merge(engine, batch, recipients, message, **manifest)


def bsmtp(content, **manifest):
    return lambda batch: make_bsmtp(engine, batch, content, **manifest)


def csv(content):
    def make(batch):
        path = make_merge(engine, batch, GOOD)
        write(os.path.join(path, "batch.json"),
              '{"v":1,"from":"b@sender.test","recipients":"r.csv"}')
        write(os.path.join(path, "r.csv"), content)
        return path
    return make


def raw(content):
    """batch.json as it stands."""
    def make(batch):
        path = make_merge(engine, batch, GOOD)
        write(os.path.join(path, "batch.json"), content)
        return path
    return make


def spoiled(spoil, name="recipients.ndjson"):
    """A good batch, then spoil(path of the file)."""
    def make(batch):
        path = make_merge(engine, batch, GOOD)
        spoil(os.path.join(path, name))
        return path
    return make


def to_link(path):
    os.rename(path, f"{path}.real")
    os.symlink(f"{path}.real", path)


def to_system_file(path):
    os.unlink(path)
    os.symlink("/etc/passwd", path)


def to_fifo(path):
    os.unlink(path)
    os.mkfifo(path)


def to_device(path):
    os.unlink(path)
    os.mknod(path, 0o20640, os.makedev(1, 5))  # /dev/zero


def to_directory(path):
    os.unlink(path)
    os.mkdir(path)


def to_two_links(path):
    os.link(path, f"{path}.other")


def to_socket(path):
    os.unlink(path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)


def to_huge_hole(path):
    os.truncate(path, 1 << 40)


LONG = "x" * 1100

# What is wrong, how to make it, what reason.txt must say.
BATCHES = [
    ("empty manifest", raw(""), ["batch.json"]),
    ("half a manifest", raw('{"v":1,"kind":"me'), ["batch.json", "line 1"]),
    ("manifest on a later line", raw('{"v":1,\n"kind":"merge",\n"from" "x"}'), ["line 3"]),
    ("manifest is a list", raw("[]"), ["batch.json"]),
    ("no version", raw('{"from":"a@b.test"}'), ["batch.json", '"v"']),
    ("version 2", raw('{"v":2,"from":"a@b.test"}'), ['"v"', "1"]),
    ("unknown key", merge(surprise=1), ['"surprise"']),
    ("two faults at once", merge(surprise=1, priority=77), ['"surprise"', '"priority"']),
    ("not supported", merge(max_rate="1/s"), ['"max_rate"']),
    ("no sender", raw('{"v":1}'), ['"from"']),
    ("id with a slash", merge(id="../../etc"), ['"id"']),
    ("path in message", raw('{"v":1,"from":"a@b.test","message":"../x.eml"}'), ['"message"']),
    ("reserved recipients", raw('{"v":1,"from":"a@b.test","recipients":"results.ndjson"}'),
     ['"recipients"']),
    ("expires in the past of not_before", merge(not_before=soon(3600), expires=soon(60)),
     ['"expires"', '"not_before"']),
    ("wrong count", merge(GOOD * 2, count=3), ["count", "3", "2"]),
    ("too large a manifest", raw('{"v":1,"from":"a@b.test","campaign":"' + "x" * 70000 + '"}'),
     ["batch.json"]),
    ("no recipients at all", merge([]), ["no recipient"]),
    ("recipients missing", spoiled(os.unlink), ["recipients.ndjson"]),
    ("message missing", spoiled(os.unlink, "message.eml"), ["message.eml"]),
    ("manifest missing", spoiled(os.unlink, "batch.json"), ["batch.json"]),
    ("link", spoiled(to_link), ["recipients.ndjson", "link"]),
    ("link to a system file", spoiled(to_system_file, "message.eml"), ["message.eml", "link"]),
    ("manifest is a link", spoiled(to_link, "batch.json"), ["batch.json", "link"]),
    ("FIFO", spoiled(to_fifo), ["recipients.ndjson", "regular file"]),
    ("FIFO as message", spoiled(to_fifo, "message.eml"), ["message.eml", "regular file"]),
    ("device", spoiled(to_device), ["recipients.ndjson", "regular file"]),
    ("socket", spoiled(to_socket), ["recipients.ndjson"]),
    ("directory", spoiled(to_directory), ["recipients.ndjson"]),
    ("two links", spoiled(to_two_links), ["recipients.ndjson", "2 links"]),
    ("everybody may write", spoiled(lambda path: os.chmod(path, 0o666)), ["chmod o-w"]),
    ("1 TB with a hole", spoiled(to_huge_hole), ["recipients.ndjson", "1099511627776 bytes"]),
    ("no header in the message", merge(message="\r\nText\r\n"), ["message.eml", "From"]),
    ("empty message", merge(message=""), ["message.eml"]),
    ("two From", merge(message="From: a@b.test\nFrom: c@d.test\n\nx\n"), ["message.eml:2"]),
    ("NUL in the message", merge(message=HEADER + "a\0b\r\n"), ["message.eml:10", "NUL"]),
    ("lone CR in the message", merge(message=HEADER + "a\rb\r\n"), ["message.eml:10"]),
    ("line of 1100 bytes", merge(message=HEADER + "a\r\n" + LONG + "\r\n"), ["message.eml:11"]),
    ("header line of 1100", merge(message="X: " + LONG + "\r\n" + EACH), ["message.eml:1"]),
    ("open placeholder", merge(message=HEADER + "{{name\r\n"), ["message.eml"]),
    ("condition", merge(message=HEADER + "{{#if x}}a{{/if}}\r\n"), ["message.eml"]),
    ("sender with a broken placeholder", merge(sender="{{x@sender.test"), ["from"]),
    ("CSV without addresses", csv("name,town\nAnn,Rom\n"), ["r.csv:1", '"to" or "email"']),
    ("CSV with two address columns", csv("to,email\na@b.test,c@d.test\n"),
     ["r.csv:1", "two columns"]),
    ("CSV with a quote never closed", csv('to,name\na@b.test,"Ann\n' + "c@d.test,Bob\n" * 50),
     ["r.csv:2", "quote"]),
    ("empty CSV", csv(""), ["no recipient"]),
    ("CSV in UTF-16", csv("to,name\na@b.test,Ann\n".encode("utf-16")), ["r.csv:1", "UTF-16"]),
    ("BSMTP without files", lambda batch: make_bsmtp(engine, batch, []), ["messages-*.bsmtp"]),
    ("BSMTP cut off", bsmtp(RECORD + RECORD[:-3]), ["messages-000.bsmtp", "cut off"]),
    ("BSMTP with text between", bsmtp(RECORD + b"Dear all,\r\n" + RECORD),
     ["messages-000.bsmtp:8", "not an SMTP command"]),
    ("a dot not doubled", bsmtp(RECORD.replace(b"Text.", b".\r\nText.")),
     ["messages-000.bsmtp:7", "not doubled"]),
    ("mbox", bsmtp(b"From a@b.test Mon Jan 1\n" + BODY), ["messages-000.bsmtp:1"]),
    ("all rejected", merge(["nobody"] * 3, max_reject="100%"), ["all were rejected"]),
    ("more than 1 % rejected", merge(GOOD * 98 + ["nobody"] * 2), ["2 of 100", "max_reject"]),
    ("more than max_reject", merge(GOOD * 5 + ["nobody"] * 3, max_reject=2),
     ["3 of 8", "max_reject"]),
    ("an unknown variable everywhere", merge(GOOD * 3, HEADER + "{{name}}\r\n"),
     ["3 of 3", "rejects.ndjson"]),
]

# A line of recipients.ndjson that is rejected, and what its reason must say.
LINES = [
    ('{"to":"a@b.test"', ""),
    ('{"to":"a@b.test"} x', ""),
    ("[]", "object"),
    ('"a@b.test"', "object"),
    ('{"id":"x"}', "to"),
    ('{"to":7}', "to"),
    ('{"to":"a@b.test","to":"c@d.test"}', "to"),
    ('{"to":"a@b.test","email":"c@d.test"}', "email"),
    ('{"to":"a@b.test","colour":"red"}', "colour"),
    ('{"to":"a@b.test","vars":[1]}', "vars"),
    ('{"to":"a@b.test","vars":{"a":' + '{"b":' * 9 + "1" + "}" * 9 + "}}", ""),
    ('{"to":"a@b.test\\r\\nRCPT TO:<x@y.test>"}', "control character"),
    ('{"to":"a@b.test\\n"}', ""),
    ('{"to":"a\\u0000@b.test"}', "control character"),
    ('{"to":""}', "empty"),
    ('{"to":"<>"}', ""),
    ('{"to":"<a@b.test>"}', "angle bracket"),
    ('{"to":"a"}', "no domain"),
    ('{"to":"@b.test"}', ""),
    ('{"to":"a@"}', "no domain"),
    ('{"to":"a@b@c.test"}', "two @"),
    ('{"to":"@x.test:a@b.test"}', "source route"),
    ('{"to":"a b@c.test"}', "blank"),
    ('{"to":"a..b@c.test"}', "dots"),
    ('{"to":".a@c.test"}', "dot"),
    ('{"to":"a.@c.test"}', "dot"),
    ('{"to":"a(x)@c.test"}', "parenthesis"),
    ('{"to":"a@b.test:25"}', "port"),
    ('{"to":"a@192.0.2.1"}', "brackets"),
    ('{"to":"a@[192.0.2.256]"}', "literal"),
    ('{"to":"a@-b.test"}', "hyphen"),
    ('{"to":"a@b..test"}', "dots"),
    ('{"to":"a@b.test."}', "dot"),
    ('{"to":"' + "a" * 65 + '@b.test"}', "64"),
    ('{"to":"a@' + "b" * 64 + '.test"}', "63"),
    ('{"to":"a@' + "b." * 130 + 'test"}', "253"),
    ('{"to":"\\"a@b.test"}', "quote"),
    ('{"to":"j\u00fcrgen@b.test"}', "SMTPUTF8"),
    ('{"to":"a@\u200b.test"}', ""),
    ('{"to":"a@xn--\u00fc.test"}', ""),
    ('{"to":"a@b.test","vars":{"x":"\\ud800"}}', "half"),
    (b'{"to":"a@b.test","vars":{"x":"\xff"}}', "UTF-8"),
    ('{"to":"a@b.test","vars":{"x":"' + "y" * 66000 + '"}}', "longer than 65536"),
]

FINE = ["plain@fine.test", '"a b"@fine.test', '"a@b"@fine.test', "a+b=c/d@fine.test",
        "UPPER@FINE.test", "x@[192.0.2.1]", "dash@a-b.fine.test", "under@_dmarc.fine.test",
        "a" * 64 + "@fine.test", "u@b\u00fccher.fine.test", "\"\\\"q\"@fine.test"]
ON_WIRE = {"u@b\u00fccher.fine.test": "u@xn--bcher-kva.fine.test"}


def case_bad_batches():
    """Each alone fails, with words; the good batch among them is sent."""
    made = []
    for number, (what, make, words) in enumerate(BATCHES):
        batch = f"bad{number}"
        made.append((engine.submit(make(batch)), what, words))
    good = send(engine, "among", ["among@fine.test"])
    equal(good.counts(), {"accepted": 1, "delivered": 1}, "a good batch among them")
    for name, what, words in made:
        end = engine.wait_end(name)
        equal(end.place, "failed", f"{what}: where it is")
        missing = [word for word in words if word.lower() not in end.reason.lower()]
        check(not missing, f"{what}: reason.txt says {missing}", end.reason)
        check(end.reason.isprintable() or "\n" in end.reason, f"{what}: plain words", end.reason)
        check(not end.results, f"{what}: no results", end.results)
    equal({name for name in sink.taken() if "bad.test" in name}, set(), "nothing of them is sent")


def case_bad_recipients():
    """Rejected line by line; the others are sent, byte for byte as they are."""
    lines = []
    wanted = {}
    for number, (line, words) in enumerate(LINES):
        lines.append(json.dumps({"to": FINE[number % len(FINE)], "id": f"f{number}"}).encode())
        lines.append(line if isinstance(line, bytes) else line.encode())
        wanted[len(lines)] = words
    fine = (len(LINES) + len(FINE) - 1) // len(FINE) * len(FINE)
    for number in range(len(LINES), fine):
        lines.append(json.dumps({"to": FINE[number % len(FINE)], "id": f"f{number}"}).encode())
    before = len(sink.messages())
    end = send(engine, "lines", b"\n".join(lines), max_reject="100%")
    equal(end.place, "done", "the batch is done")
    equal(end.counts(), {"accepted": fine, "rejected": len(LINES), "delivered": fine}, "counts")
    rejects = {row["line"]: row for row in end.rejects}
    equal(sorted(rejects), sorted(wanted), "the lines that are rejected")
    for line, words in wanted.items():
        row = rejects.get(line, {})
        check(words.lower() in row.get("reason", "").lower() and row.get("reason"),
              f"line {line} ({lines[line - 1][:60]}) says {words}", row)
        equal(row.get("file"), "recipients.ndjson", f"file of line {line}")
        check(len(row.get("record", "")) <= 520, f"record of line {line} is clipped", row)
    taken = {}
    for message in sink.messages()[before:]:
        for name in message["to"]:
            taken[name] = taken.get(name, 0) + 1
    share = fine // len(FINE)
    equal(taken, {ON_WIRE.get(name, name): share for name in FINE}, "on the wire")


def case_bad_bsmtp_messages():
    """One message of many is rejected, the others are sent."""
    def record(rcpt, body=BODY, mail=b"MAIL FROM:<b@sender.test>"):
        one = bsmtp_record("b@sender.test", [rcpt], body)
        return one.replace(b"MAIL FROM:<b@sender.test>", mail)
    fine = record("ok@fine.test")
    bad = [
        (record("nobody"), "no domain"),
        (record(""), "no recipient"),
        (record("a@b.test", BODY.replace(b"Text", b"Te\0xt")), "NUL"),
        (record("a@b.test", BODY.replace(b"Text", b"Te\rxt")), "carriage return"),
        (record("a@b.test", BODY.replace(b"Text.\r\n", b"Text.\n")), "LF"),
        (record("a@b.test", BODY.replace(b"Text", b"x" * 999)), "998"),
        (record("a@b.test").replace(b"Text", b".Text"), "double"),
        (record("a@b.test", mail=b"MAIL FROM:<b@sender.test> AUTH=<>"), "AUTH"),
        (record("a@b.test", mail=b"MAIL FROM:<nobody>"), "no domain"),
        (b"MAIL FROM:<b@sender.test>\r\n" + fine, "DATA"),
        (b"RCPT TO:<a@b.test>\r\nDATA\r\nx: y\r\n.\r\n", "MAIL"),
    ]
    content = b""
    for one, _ in bad:
        content += fine + one
    before = len(sink.messages())
    engine.submit(make_bsmtp(engine, "messages", content, max_reject="100%"))
    end = engine.wait_end("messages")
    equal(end.place, "done", f"it is sent {end.reason}")
    reasons = [row["reason"] for row in end.rejects]
    equal(len(reasons), len(bad), f"one reject each: {reasons}")
    for (_, words), reason in zip(bad, reasons):
        check(words.lower() in reason.lower(), f"reason says {words}", reason)
    equal(end.counts().get("delivered"), len(bad), "the others are sent")
    names = {name for message in sink.messages()[before:] for name in message["to"]}
    equal(names, {"ok@fine.test"}, "and nobody else gets anything")


def case_missing_variables():
    """reject, empty, literal (SPOOL.md 3)."""
    text = HEADER + "Dear {{name}}, {{town|nowhere}}.\r\n"
    recipients = [{"to": "a@fine.test", "vars": {"name": "Ann"}}, {"to": "b@fine.test"}]
    end = send(engine, "v-reject", recipients, message=text, max_reject="100%")
    equal(end.counts(), {"accepted": 1, "rejected": 1, "delivered": 1}, "reject")
    check("name" in end.rejects[0]["reason"] and end.rejects[0]["line"] == 2, "which one",
          end.rejects)
    for missing in ("empty", "literal"):
        end = send(engine, f"v-{missing}", recipients, message=text, missing=missing)
        equal(end.counts(), {"accepted": 2, "delivered": 2}, missing)


def case_header_injection():
    """A value with line breaks cannot make a header field."""
    text = HEADER.replace("Subject: Test", "Subject: {{subject}}") + "x\r\n"
    recipients = [{"to": "a@fine.test", "vars": {"subject": "x\r\nBcc: victim@fine.test"}},
                  {"to": "b@fine.test", "vars": {"subject": "fine"}}]
    end = send(engine, "inject", recipients, message=text, max_reject="100%")
    equal(end.counts(), {"accepted": 1, "rejected": 1, "delivered": 1}, "counts")


def case_no_batches_in_new():
    """What is no batch goes to badmail/ with a reason, and is not looked at for ever."""
    new = os.path.join(engine.spool, "in", "new")
    bad = os.path.join(engine.spool, "badmail")
    write(os.path.join(new, "file.batch"), "x")
    os.symlink("/etc", os.path.join(new, "link.batch"))
    os.mkfifo(os.path.join(new, "fifo.batch"))
    os.mkdir(os.path.join(new, "noend"))
    os.mkdir(os.path.join(new, "sp ace.batch"))
    os.mkdir(os.path.join(new, "new\nline.batch"))
    os.mkdir(os.path.join(new.encode(), b"latin\xfc.batch").decode("utf-8", "surrogateescape"))
    os.mkdir(os.path.join(new, "n" * 150 + ".batch"))
    open_to_all = make_merge(engine, "open", GOOD)
    os.chmod(open_to_all, 0o777)
    engine.submit(open_to_all)
    reserved = make_merge(engine, "reserved", GOOD)
    write(os.path.join(reserved, "results.ndjson"), "{}\n")
    engine.submit(reserved)
    wait_for(lambda: not os.listdir(new), f"in/new is empty: {os.listdir(new)}")
    names = os.listdir(bad)
    reasons = [name for name in names if name.endswith(".reason")]
    equal(len(reasons), 10, f"each has a reason: {names}")
    equal(len(names), 20, f"and is there: {names}")
    for name in reasons:
        text = read_text(os.path.join(bad, name))
        check(re.match(r"in/new/[ -~]+\n[ -~]+\n$", text), f"plain words in {name}", text)
    equal(send(engine, "still", ["still@fine.test"]).counts(), {"accepted": 1, "delivered": 1},
          "it works on")


def case_same_id_twice():
    """A second batch of the same id is refused while the first is under way."""
    engine.submit(make_merge(engine, "twin", ["rcpt451-t@bad.test"]))
    wait_for(lambda: engine.find("twin")[0] == "active", "it is active")
    other = make_merge(engine, "twin-b", ["x@fine.test"], id="twin")
    engine.submit(other)
    end = engine.wait_end("twin-b")
    equal(end.place, "failed", "refused")
    # The first is accepted or about to be.
    check("same id" in end.reason or "nothing is sent twice" in end.reason, "it says why",
          end.reason)
    engine.submit(make_merge(engine, "twin", ["y@fine.test"]))
    end = engine.wait_end("twin~2")
    equal(end.place, "failed", "the same name too")
    equal(engine.find("twin")[0], "active", "the first goes on")
    engine.order("twin", "cancel")
    equal(engine.wait_end("twin").counts(), {"accepted": 1, "cancelled": 1}, "until its own end")


def case_same_id_again():
    """An id is good for one batch in 30 days, over restarts; a batch that failed has not used
    its own (SPOOL.md 3)."""
    def again(words, **manifest):
        engine.submit(make_merge(engine, "once", ["again@fine.test"], **manifest))
        end = wait_for(lambda: next((end for end in ends("once") if words in end.reason), None),
                       f"a reason that says {words}")
        equal(end.place, "failed", "it is refused")
        check("id once was accepted at 20" in end.reason, "the reason says when", end.reason)
        shutil.rmtree(end.path)

    before = len(sink.messages())
    equal(send(engine, "once", ["nobody"]).place, "failed", "it cannot run")
    shutil.rmtree(engine.find("once")[1])
    equal(send(engine, "once", ["again@fine.test"]).counts(), {"accepted": 1, "delivered": 1},
          "mended, it is sent")
    again("nothing is sent twice")
    equal(engine.terminate(), 0, "exit status")
    engine.start()
    again("nothing is sent twice")
    equal(send(engine, "other", ["again@fine.test"], id="once").place, "failed",
          "the id counts, not the directory's name")
    equal(send(engine, "third", ["again@fine.test"]).counts(), {"accepted": 1, "delivered": 1},
          "another id may have the same content")
    equal(len(sink.messages()) - before, 2, "two messages in all")


def ends(batch):
    """All places where a batch of this name has ended."""
    found = []
    for place_name in ("done", "failed"):
        root = os.path.join(engine.spool, place_name)
        for day in os.listdir(root):
            path = os.path.join(root, day, f"{batch}.batch")
            if os.path.isdir(path):
                found.append(End(place_name, path))
    return found


def case_growing_files():
    """A writer who goes on writing: nothing more is sent until people have looked."""
    engine.submit(make_merge(engine, "grow", [f"slow20-{i}@grow.test" for i in range(1000)]))
    wait_for(lambda: len([1 for name in sink.taken() if "@grow.test" in name]) >= 2, "it sends")
    _, path = engine.find("grow")
    with open(os.path.join(path, "recipients.ndjson"), "ab") as file:
        file.write(b'{"to":"late@grow.test"}\n')
    wait_for(lambda: "not the file any more" in engine.words(), "people are told")
    check("in/ctl/grow.resume" in engine.words(), "and what to do", engine.words())
    wait_for(lambda: (engine.progress("grow") or {}).get("state") == "paused", "it is paused")
    engine.order("grow", "cancel")
    counts = engine.wait_end("grow").counts()
    equal(counts["accepted"], 1000, "accepted are those that were scanned")
    check(counts.get("cancelled", 0) > 0, "the others were not sent", counts)
    check("late@grow.test" not in sink.taken(), "nor what was added", "")


def case_wrong_owner():
    """A file of somebody else in a batch is refused (SPOOL.md 2)."""
    if os.geteuid() != 0:
        print("    not root: left out")
        return
    path = make_merge(engine, "owner", GOOD)
    os.chown(os.path.join(path, "recipients.ndjson"), 4711, -1)
    engine.submit(path)
    end = engine.wait_end("owner")
    equal(end.place, "failed", "refused")
    check("4711" in end.reason and "recipients.ndjson" in end.reason, "it says why", end.reason)
    path = make_merge(engine, "theirs", ["theirs@fine.test"])
    for name in ("", "recipients.ndjson", "message.eml", "batch.json"):
        os.chown(os.path.join(path, name), 4711, -1)
    engine.submit(path)
    equal(engine.wait_end("theirs").counts(), {"accepted": 1, "delivered": 1},
          "a batch that is somebody else's throughout is taken")


EVIL = (b"\r\nMAIL FROM:<evil@bad.test>\r\nRCPT TO:<victim@smuggled.test>\r\nDATA\r\n"
        b"From: <evil@bad.test>\r\n\r\nSmuggled.\r\n.\r\n")
STRAYS = [b"\r", b"\n", b"\r\n", b"\0", b"\r\r\n", b"\n\r"]


def case_smuggling():
    """Row 3: a lone dot between every pair of CR, LF, CRLF, NUL and their mixtures, with a
    transaction behind it, in texts of both kinds of line ends: what is sent is one message to
    whom it is for, or none; nobody else gets anything (A21, A22)."""
    before = len(sink.messages())
    batches = []
    for form, end in (("crlf", b"\r\n"), ("lf", b"\n")):
        evil = EVIL.replace(b"\r\n", end)
        head = (HEADER + "Text").encode().replace(b"\r\n", end)
        for i, first in enumerate(STRAYS):
            for j, second in enumerate(STRAYS):
                name = f"{form}-{i}-{j}"
                text = head + first + b"." + second + evil
                engine.submit(make_merge(engine, f"m-{name}", [f"m-{name}@fine.test"], text))
                record = bsmtp_record("b@sender.test", [f"b-{name}@fine.test"], head)
                record = record[:record.rindex(b"Text") + 4].replace(b"\r\n", b"\n").replace(
                    b"\n", end)
                engine.submit(make_bsmtp(engine, f"b-{name}", record + first + b"." + second +
                                         evil + b"." + end, max_reject="100%"))
                batches += [f"m-{name}", f"b-{name}"]
    ended = {name: engine.wait_end(name) for name in batches}
    taken = {}
    for message in sink.messages()[before:]:
        for one in message["to"]:
            taken[one] = taken.get(one, 0) + 1
    equal(taken.pop("victim@smuggled.test", 0), 0, "who is no recipient gets nothing")
    for name, end in ended.items():
        sent = taken.pop(f"{name}@fine.test", 0)
        equal(sent, end.counts().get("delivered", 0), f"{name}: as told")
        check(sent <= 1, f"{name}: at most once", sent)
        words = end.reason + json.dumps(end.rejects)
        check(sent or "line" in words or re.search(r":\d+:", words), f"{name}: says where", words)
    equal(taken, {}, "and nobody else")


def odd_messages():
    """Rows 4 to 7. Name, message, words of the reason or None (it is sent), and what must (not,
    with a - in front) be in what is sent."""
    head, body = "From: a@b.test\r\nSubject: x\r\n", "\r\nText.\r\n"
    return [
        ("0 bytes", "", "message.eml", []),
        ("1 byte", "x", "message.eml", []),
        ("a line end", "\n", "message.eml", []),
        ("header only", head, None, ["Subject: x\r\n"]),
        ("header and blank line", head + "\r\n", None, ["Subject: x\r\n"]),
        ("no last line end", head + "\r\nText.", None, ["Text.\r\n"]),
        ("no header", "Just text.\r\nMore text.\r\n", "message.eml:1", []),
        ("no blank line", head + "This is text: no.\r\n", "message.eml:3", []),
        ("lines of LF", (head + body).replace("\r\n", "\n"), None, ["Subject: x\r\n"]),
        ("many header fields", "".join(f"X-{i}: y\r\n" for i in range(20000)) + head + body,
         "?", []),
        ("a folded header of 1 MB", head + "X-Long:" + " y\r\n" * 260000 + body, "?", []),
        ("8-bit header", "Subject: M\udcfcller\r\nFrom: a@b.test\r\n" + body, "?", []),
        ("UTF-8 header", "From: a@b.test\r\nSubject: M\u00fcller\r\n" + body, "?", []),
        ("8-bit body without MIME", head + "\r\nM\u00fcller\r\n", "?", []),
        ("Bcc and Return-Path", head + "Bcc: <secret@b.test>\r\nReturn-Path: <r@b.test>\r\n"
         "Content-Length: 7\r\n" + body, None, ["-secret", "-Return-Path", "-Content-Length"]),
        ("no Date, no Message-ID", head + body, None, ["Date: ", "Message-ID: <"]),
        ("a Date and a Message-ID", head + "Date: Tue, 01 Dec 2026 08:00:00 +0000\r\n"
         "Message-ID: <one@b.test>\r\n" + body, None, ["Message-ID: <one@b.test>"]),
        ("two From fields", "From: c@d.test\r\n" + head + body, "?", []),
        ("two Message-IDs", head + "Message-ID: <1@b.test>\r\nMessage-ID: <2@b.test>\r\n" + body,
         "?", []),
    ]


def case_odd_messages():
    """Rows 4 to 7, P3: message.eml that is cut, bare, long, 8-bit, or says things twice: sent in
    legal form, or refused with words; never half."""
    rows = odd_messages()
    for number, (_, message, _, _) in enumerate(rows):
        engine.submit(make_merge(engine, f"odd{number}", [f"odd{number}@peer.test"], message))
    for number, (name, _, words, parts) in enumerate(rows):
        end = engine.wait_end(f"odd{number}")
        sent = [one for one in peer.messages if one[1] == [f"odd{number}@peer.test"]]
        counts = end.counts()
        if words != "?":
            equal(end.place, "done" if words is None else "failed", f"{name}: {end.reason}")
        if end.place == "failed":
            check((words if words != "?" else "message.eml") in end.reason, f"{name}: reason",
                  end.reason)
            equal(sent, [], f"{name}: nothing is sent")
            continue
        equal(len(sent), counts.get("delivered", 0), f"{name}: sent as told {counts}")
        for _, _, content in sent:
            check_form(name, content, parts)


def check_form(name, content, parts):
    header = content.split(b"\r\n\r\n", 1)[0] + b"\r\n"
    check(not re.search(rb"(?<!\r)\n|\r(?!\n)|\0", content), f"{name}: CRLF and no NUL", content)
    longest = max(len(line) for line in content.split(b"\r\n"))
    check(longest <= 998, f"{name}: lines of 998 at most", longest)
    for field in (b"date", b"message-id", b"from"):
        count = len(re.findall(rb"(?im)^" + field + b":", header))
        check(count == 1, f"{name}: one {field.decode()}", header[:500])
    for part in parts:
        is_there = part.lstrip("-").encode() in content
        check(is_there != part.startswith("-"), f"{name}: {part}", content[:500])


def case_recipients_twice():
    """Row 9: in one message a recipient that is written alike twice is one. Records of a merge
    are messages of their own, each of them is sent. SPOOL.md 4"""
    names = ["twice@fine.test", "other@fine.test", "twice@fine.test", "Twice@fine.test"]
    content = bsmtp_record("b@sender.test", names, BODY)
    before = len(sink.messages())
    engine.submit(make_bsmtp(engine, "twice-b", content))
    end = engine.wait_end("twice-b")
    equal(end.counts(), {"accepted": 3, "delivered": 3}, "one message")
    equal(sorted(line["line"] for line in end.results), [1, 2, 4], "ordinals stay")
    end = send(engine, "twice-m", [{"to": "twice@fine.test", "id": f"{i}"} for i in range(3)])
    equal(end.counts(), {"accepted": 3, "delivered": 3}, "a merge")
    taken = [one for message in sink.messages()[before:] for one in message["to"]]
    equal(sorted(taken), ["Twice@fine.test", "other@fine.test"] + ["twice@fine.test"] * 4,
          "on the wire")


def case_nothing_was_lost():
    status = engine.status()
    queue = {key: value for key, value in status["queue"].items() if value}
    equal(queue, {}, "nothing is left in the queue")
    totals = status["totals"]
    equal(totals["accepted"], sum(totals[key] for key in
                                  ("delivered", "bounced", "expired", "cancelled")),
          "accepted is settled")
    equal(os.listdir(os.path.join(engine.spool, "active")), [], "active/ is empty")


def main():
    global place, sink, engine, peer
    with Place("bad") as place:
        sink, peer = Sink(place), Peer()
        fast = {"retry_first": "1s", "retry_max": "1s", "retry_jitter": 0}
        engine = Engine(place, routes=route("*", sink.port, **fast) +
                        route("peer.test", peer.port, **fast) +
                        route("grow.test", sink.port, **fast, connections=1)).start()
        return run_all(globals())


if __name__ == "__main__":
    sys.exit(main())
