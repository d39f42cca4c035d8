# SPDX-License-Identifier: Apache-2.0
"""pickup/: single mails of programs that know nothing of batches, written in any way.

test_pickup.py BUILD. Each case writes, then yields, then looks: a file must stand still for two
seconds before it is taken, so all are written first.
"""
import os
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import (End, Engine, Place, Sink, cases_of, check, equal, read_text, route,  # noqa: E402
                 run_cases, sha256, wait_for, write)

place = sink = engine = None
TEXT = "Date: Tue, 01 Dec 2026 08:00:00 +0000\r\nMessage-ID: <{0}@sender.test>\r\n" \
       "From: App <app@sender.test>\r\nSubject: {0}\r\n\r\nBody of {0}.\r\n.\r\n..dots\r\n"


def mail(name, *rcpts):
    """With x-sender and x-receiver, as IIS and .NET write it."""
    head = "X-Sender: app@sender.test\r\n"
    head += "".join(f"X-Receiver: {rcpt}\r\n" for rcpt in rcpts or [f"{name}@pick.test"])
    return head + TEXT.format(name)


def pickup(*parts):
    return os.path.join(engine.spool, "pickup", *parts)


def find(name):
    return [message for message in sink.messages() if f"{name}@pick.test" in message["to"]]


def arrives(name, content=None):
    """The mail came once, with the bytes that were meant, and its file is gone."""
    wait_for(lambda: find(name), f"{name} arrives")
    wait_for(lambda: not os.path.exists(pickup(f"{name}.eml")), f"{name}.eml is gone")
    messages = find(name)
    equal(len(messages), 1, f"{name} came once")
    equal(messages[0]["sha256"], sha256((content or TEXT.format(name)).encode()),
          f"bytes of {name}")
    return messages[0]


def case_moved_in():
    write(pickup("moved.tmp"), mail("moved"))
    os.rename(pickup("moved.tmp"), pickup("moved.eml"))
    yield
    message = arrives("moved")
    equal(message["from"], "app@sender.test", "its sender is that of x-sender")


def case_create_new_then_write():
    """.NET: FileMode.CreateNew in place, then the text in pieces, then close."""
    descriptor = os.open(pickup("net.eml"), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    text = mail("net").encode()
    for at in range(0, len(text), 40):
        os.write(descriptor, text[at:at + 40])
    os.close(descriptor)
    yield
    arrives("net")


def case_dribbling_writer():
    """A piece each half second for longer than the time in which a file must stand still. A writer
    who was held up for so long himself has to try again."""
    yield
    for turn in range(5):
        if dribble(f"drip{turn}"):
            return
    check(False, "the writer was held up each time")


def dribble(name):
    """False when the file may have stood still for as long as one that is whole."""
    text = mail(name).encode()
    pieces = 8
    size = len(text) // pieces + 1
    wrote_at = time.monotonic()
    longest_s, early = 0, False
    with open(pickup(f"{name}.eml"), "xb", buffering=0) as file:
        for at in range(0, len(text), size):
            file.write(text[at:at + size])
            early = early or bool(find(name))
            longest_s = max(longest_s, time.monotonic() - wrote_at)
            wrote_at = time.monotonic()
            time.sleep(0.5)  # the writer's pace is what is tried out
    if longest_s > 1.5:
        return False
    check(not early, "nothing is sent while it is written")
    arrives(name)
    return True


def case_copied_in():
    """tempnam, write, copy(): in place, but quick."""
    write(place.join("copy.eml"), mail("copy"))
    with open(place.join("copy.eml"), "rb") as source, open(pickup("copy.eml"), "xb") as copy:
        copy.write(source.read())
    yield
    arrives("copy")


def case_envelope_from_header():
    """No x-receiver: To, Cc, Bcc; Bcc is not sent on."""
    text = ("Date: Tue, 01 Dec 2026 08:00:00 +0000\nMessage-ID: <h@sender.test>\n"
            "From: App <app@sender.test>\nTo: One <head@pick.test>,\n two@pick.test\n"
            "Cc: \"Three, the third\" <three@pick.test>\nBcc: four@pick.test\nSubject: h\n\nx\n")
    write(pickup("head.eml"), text)
    yield
    wait_for(lambda: find("four"), "all arrive")
    wanted = text.replace("Bcc: four@pick.test\n", "").replace("\n", "\r\n")
    got = {}
    for name in ("head", "two", "three", "four"):
        wait_for(lambda name=name: find(name), f"{name} arrives")
        got[name] = [message["sha256"] for message in find(name)]
    equal(got, {name: [sha256(wanted.encode())] for name in got}, "once each, without Bcc")


def case_lines_end_in_lf():
    text = mail("lf").replace("\r\n", "\n")
    write(pickup("lf.eml"), text)
    yield
    arrives("lf")


def case_many_recipients():
    names = [f"many{i}@pick.test" for i in range(300)]
    write(pickup("many.eml"), mail("many", *names))
    yield
    wait_for(lambda: all(find(f"many{i}") for i in (0, 150, 299)), "they arrive")
    wait_for(lambda: sum(len(m["to"]) for m in sink.messages() if "many0" in str(m) or
                         m["to"][0].startswith("many")) == 300, "all 300")


def case_many_files():
    """500 files from four writers at once."""
    def writer(which):
        for number in range(125):
            write(pickup(f".w{which}-{number}"), mail(f"w{which}-{number}"))
            os.rename(pickup(f".w{which}-{number}"), pickup(f"w{which}-{number}.eml"))
    threads = [threading.Thread(target=writer, args=(which,)) for which in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    yield
    names = {f"w{which}-{number}@pick.test" for which in range(4) for number in range(125)}

    def come():
        return names <= set(sink.taken())
    wait_for(come, "all arrive")
    taken = sink.taken()
    equal({name: taken[name] for name in names if taken[name] != 1}, {}, "once each")


def case_ignored_names():
    """Hidden and half-made names are let be."""
    for name in (".hidden.eml", "half.tmp", "half.eml.part"):
        write(pickup(name), mail("ignored"))
    write(pickup("sign.eml"), mail("sign"))
    yield
    arrives("sign")
    equal(find("ignored"), [], "they are not sent")
    for name in (".hidden.eml", "half.tmp", "half.eml.part"):
        check(os.path.exists(pickup(name)), f"{name} is still there")


def case_bad_files():
    """Refused with a reason; the others in the same moment are sent."""
    bad = {
        "nosender": ("X-Receiver: a@pick.test\r\nSubject: x\r\n\r\nx\r\n", "sender"),
        "norcpt": ("X-Sender: a@b.test\r\nFrom: a@b.test\r\n\r\nx\r\n", "recipient"),
        "mbox": ("From a@b.test Mon Jan  1 00:00:00 2026\n" + mail("mbox"), "mbox"),
        "empty": ("", ""),
        "nul": (mail("nul").replace("Body", "Bo\0dy"), "NUL"),
        "nolist": (mail("nolist", "nobody"), "not a list of addresses"),
        "mixed": (mail("mixed").replace("Subject: mixed\r\n", "Subject: mixed\n"), ""),
        "long": (mail("long").replace("Body", "x" * 1200), "998"),
    }
    for name, (text, _) in bad.items():
        write(pickup(f"{name}.eml"), text)
    os.symlink("/etc/passwd", pickup("link.eml"))
    os.mkfifo(pickup("fifo.eml"))
    os.mkdir(pickup("dir.eml"))
    write(place.join("two"), mail("twolinks"))
    os.link(place.join("two"), pickup("twolinks.eml"))
    write(pickup("beside.eml"), mail("beside"))
    yield
    arrives("beside")
    for name in [*bad, "link", "fifo", "dir", "twolinks"]:
        wait_for(lambda name=name: not os.path.lexists(pickup(f"{name}.eml")), f"{name} is gone")
        reason = os.path.join(engine.spool, "badmail", f"{name}.eml.bad.reason")
        check(os.path.exists(reason), f"{name} has a reason",
              os.listdir(os.path.join(engine.spool, "badmail")))
        words = bad[name][1] if name in bad else ""
        check(os.path.exists(reason) and words in read_text(reason), f"which says {words}",
              read_text(reason) if os.path.exists(reason) else "")
        equal(find(name), [], f"{name} is not sent")


def case_bad_recipient_among_good():
    write(pickup("part.eml"), mail("part", "part@pick.test", "x@-bad.test", "rest@pick.test"))
    yield
    arrives("part")
    equal(len(find("rest")), 1, "the other one too")


def case_null_sender():
    text = "X-Sender:\r\nX-Receiver: null@pick.test\r\n" + TEXT.format("null")
    write(pickup("null.eml"), text)
    yield
    equal(arrives("null")["from"], "", "from <>")


def case_kill_while_collecting():
    """kill -9 again and again while files come: all arrive, and few twice."""
    yield
    names = []
    for turn in range(6):
        for number in range(30):
            name = f"kill{turn}-{number}"
            write(pickup(f"{name}.eml"), mail(name))
            names.append(f"{name}@pick.test")
        # Files must stand still for two seconds: the kills fall on both sides of the taking.
        time.sleep((0.4, 2.2, 1.1, 2.6, 1.9, 2.4)[turn])
        engine.kill()
        engine.start()
    wait_for(lambda: set(names) <= set(sink.taken()), "all arrive")
    wait_for(lambda: not [name for name in os.listdir(pickup()) if name.startswith("kill")],
             "their files are gone")
    wait_for(lambda: not os.listdir(os.path.join(engine.spool, "active")), "all is done")
    taken = sink.taken()
    twice = {name for name in names if taken[name] > 1}
    check(max(taken[name] for name in names) <= 7, "at most once a start", taken)
    told = {line["recipient"] for end in ended() for line in end.results
            if line.get("possible_duplicate")}
    equal(sorted(twice - told)[:5], [], "who got it twice is called possible_duplicate")


def ended():
    root = os.path.join(engine.spool, "done")
    return [End("done", os.path.join(root, day, name)) for day in os.listdir(root)
            for name in os.listdir(os.path.join(root, day))]


def case_orderly_end():
    yield
    equal(engine.terminate(), 0, "exit status")


def main():
    global place, sink, engine
    with Place("pickup") as place:
        sink = Sink(place)
        engine = Engine(place, routes=route("*", sink.port)).start()
        cases = cases_of(globals())
        started = [(case.__name__, case()) for case in cases]
        for _, case in started:
            next(case)
        return run_cases([second_half(name, case) for name, case in started])


def second_half(name, case):
    def look():
        for _ in case:
            check(False, f"{name} yields once")
    look.__name__ = name
    return look


if __name__ == "__main__":
    sys.exit(main())
