# SPDX-License-Identifier: Apache-2.0
"""The verbs of the program as people and scripts use them: words, exit statuses, what is printed.

test_verbs.py --build BUILD [TEST ...]
"""
import fcntl
import http.client
import json
import os
import pty
import re
import signal
import socket
import struct
import subprocess
import termios

import lib
import rig
import smtp_peer

EML = b"From: News <news@x.example>\nTo: {{_to}}\nSubject: Hi {{name|you}}\n\nHello {{name}}\n"


def recipients(count, start=0, local="user"):
    return "".join(
        json.dumps({"to": f"{local}-{i}@d{i % 5}.example", "vars": {"name": f"N{i}"}}) + "\n"
        for i in range(start, start + count)).encode()


def make_batch(r, name="b1.batch", manifest=None, eml=EML, lines=None):
    content = {"v": 1, "kind": "merge", "from": "bounce@x.example"}
    content.update(manifest or {})
    r.write(f"{name}/batch.json", json.dumps(content))
    r.write(f"{name}/message.eml", eml)
    r.write(f"{name}/recipients.ndjson", recipients(3) if lines is None else lines)
    return r.path(name)


def read(*parts):
    with open(os.path.join(*parts), "rb") as file:
        return file.read()


# Words.

def test_words_of_the_program(r):
    _, out, _ = r.run("version", status=0)
    assert re.fullmatch(r"ramjet \d+\.\d+\.\d+\n", out), out
    for word in ("--version", "-V"):
        assert r.run(word, status=0)[1] == out
    told = json.loads(r.run("version", "--json", status=0)[1])
    assert out == f"ramjet {told['version']}\n"
    r.run("version", "--what", status=2)
    _, out, _ = r.run("help", status=0)
    for verb in ("run", "submit", "status", "check", "version"):
        assert f"ramjet {verb}" in out
    assert r.run("--help", status=0)[1] == out
    for verb in ("run", "status", "version", "help"):
        assert r.run(verb, "--help", status=0)[1].startswith(f"usage: ramjet {verb}")
    assert "no verb" in r.run("fly", status=2)[2]
    r.run(status=2)
    r.run("run", "now", status=2)
    r.run("status", "--what", status=2)


def test_words_of_submit(r):
    assert "exit status" in r.run("submit", "--help", status=0)[1]
    spool = ("--spool", r.spool)
    mail = ("--from", "a@x.example", "--to", "b@y.example", "--subject", "s", "--text", "t")
    for words in (
            (), ("--wait",), ("--what", "x"), ("x.batch", "y.batch"), ("x.batch", *mail),
            ("x.batch", "--id", "a"), ("x.batch", "--set", "a=b"), ("-", "--from", "a@x.example"),
            ("--message", "m.eml"), ("--recipients", "r.csv"), mail[:-2], mail[2:],
            (*mail, "--set", "a=b"), (*mail, "--from", "again"), (*mail, "--timeout", "5m"),
            (*mail, "--wait", "--timeout", "soon"), (*mail, "--wait", "--timeout", "0"),
            (*mail, "--to"), (*mail, "--max-reject", "1"), ("x.batch", "--missing", "empty"),
            ("--message", "m", "--recipients", "r", "--set", "nothing"),
            ("-c", "x.conf", *mail)):
        _, out, err = r.run("submit", *spool, *words, status=2)
        assert out == "" and "ramjet submit --help" in err, (words, out, err)
    assert "no such option: --bogus" in r.run("submit", *spool, "--bogus", status=2)[2]


def test_words_of_check(r):
    assert "exit status" in r.run("check", "--help", status=0)[1]
    for words in (("--what",), ("-c",), ("--sample", "0", "x"), ("--sample", "x", "x"),
                  ("--sample", "1")):
        _, out, err = r.run("check", *words, status=2)
        assert out == "" and "ramjet check --help" in err, words


# Submit.

def test_submit_needs_a_spool(r):
    words = ("--from", "a@x.example", "--to", "b@y.example", "--subject", "s", "--text", "t")
    _, out, err = r.run("submit", "--spool", r.spool, *words, status=1)
    assert out == "" and f"{r.spool}: is not there" in err, err
    os.mkdir(r.spool)
    _, _, err = r.run("submit", "--spool", r.spool, *words, status=1)
    assert f"{r.spool}/in/tmp: is not there (the engine makes" in err, err
    _, _, err = r.run("submit", "-c", r.path("nowhere.conf"), *words, status=1)
    assert "cannot be read" in err


def test_submit_each_form(r):
    r.make_spool()
    new = os.path.join(r.spool, "in", "new")
    batch = make_batch(r, "spring-07.batch")
    _, out, _ = r.run("submit", "--spool", r.spool, batch, status=0)
    assert out == "spring-07: submitted\n"
    assert read(new, "spring-07.batch", "message.eml") == EML
    assert os.path.exists(os.path.join(batch, "batch.json")), "the original stays"

    message, lines = r.write("m.eml", EML), r.write("r.ndjson", recipients(3))
    _, out, _ = r.run("submit", "-c", r.config(), "--json", "--message", message, "--recipients",
                      lines, "--id", "files-1", "--set", "name=dear", "--set", "empty=", status=0)
    assert json.loads(out) == {"id": "files-1", "state": "waiting",
                               "path": "in/new/files-1.batch"}
    manifest = json.loads(read(new, "files-1.batch", "batch.json"))
    assert manifest["from"] == "news@x.example", "the message's From is the sender"
    assert manifest["vars"] == {"name": "dear", "empty": ""}
    assert read(new, "files-1.batch", "recipients.ndjson") == recipients(3)

    table = r.write("r.csv", "email,name\na@x.example,Ann\n")
    r.run("submit", "--spool", r.spool, "--message", message, "--recipients", table, "--from",
          "b-{{_vid}}@x.example", "--id", "files-2", status=0)
    manifest = json.loads(read(new, "files-2.batch", "batch.json"))
    assert manifest["from"] == "b-{{_vid}}@x.example"
    assert manifest["recipients"] == "recipients.csv"

    r.run("submit", "--spool", r.spool, "--from", "Ann <a@x.example>", "--to", "b@y.example",
          "--to", "c@y.example, d@y.example", "--subject", "sübject", "--text", "-", "--id",
          "mail-1", stdin=b"text\n.dot\n", status=0)
    text = read(new, "mail-1.batch", "messages-0.bsmtp")
    for part in (b"MAIL FROM:<a@x.example>", b"RCPT TO:<d@y.example>", b"text", b"..dot"):
        assert part in text, text

    first = json.dumps({"v": 1, "id": "stream-1", "kind": "merge", "from": "a@x.example",
                        "message": EML.decode()})
    r.run("submit", "--spool", r.spool, "-", stdin=first.encode() + b"\n" + recipients(1000),
          status=0)
    assert read(new, "stream-1.batch", "recipients.ndjson") == recipients(1000)
    assert read(new, "stream-1.batch", "message.eml") == EML
    assert os.listdir(os.path.join(r.spool, "in", "tmp")) == []


def test_submit_refuses_what_the_engine_would(r):
    r.make_spool()
    message, lines = r.write("m.eml", EML), r.write("r.ndjson", recipients(3))
    no_from = r.write("n.eml", b"Subject: x\n\nx\n")
    files = ("--message", message, "--recipients", lines)
    for words, told in (
            ((r.path("nowhere.batch"),), "nowhere"),
            ((make_batch(r, "x.batch", {"kind": "mrege"}),), "kind"),
            ((make_batch(r, "y.batch", {"form": "a@x.example"}),), "form"),
            ((*files, "--id", "a/b"), "id"),
            (("--message", no_from, "--recipients", lines), "--from"),
            (("--message", r.path("nowhere.eml"), "--recipients", lines, "--from", "a@x.example"),
             "nowhere.eml"),
            (("--message", r.path("no.eml"), "--recipients", lines), "no.eml: No such file"),
            ((*files, "--max-reject", "some"), "max_reject"),
            ((*files, "--missing", "perhaps"), "missing"),
            (("--from", "a@x.example", "--to", "nobody at all", "--subject", "s", "--text", "t"),
             "not an address"),
            (("-",), "line 1")):
        _, out, err = r.run("submit", "--spool", r.spool, *words, status=1)
        assert out == "" and err.startswith("ramjet: not submitted: ") and told in err, (words, err)
    assert os.listdir(os.path.join(r.spool, "in", "new")) == []
    assert os.listdir(os.path.join(r.spool, "in", "tmp")) == []


# Waiting.

def submit_wait(r, *words, status, stdin=b""):
    _, out, err = r.run("submit", "--spool", r.spool, "--wait", "--json", *words, stdin=stdin,
                        status=status)
    return rig.json_lines(out), err


def test_wait_for_each_end(r):
    peer = smtp_peer.Peer()
    r.start(peer.port)
    shown, _ = submit_wait(r, make_batch(r, "good.batch", lines=recipients(200)), status=0)
    last = shown[-1]
    assert (last["id"], last["state"], last["delivered"]) == ("good", "done", 200), last
    assert os.path.exists(os.path.join(r.spool, last["path"], "summary.json"))
    assert len(peer.messages) == 200
    bodies = {body for _, _, body in peer.messages}
    assert any(b"Hello N7\r\n" in body for body in bodies)

    lines = recipients(5) + recipients(2, local="rcpt550")
    shown, _ = submit_wait(r, make_batch(r, "some.batch", lines=lines), status=4)
    assert (shown[-1]["delivered"], shown[-1]["bounced"]) == (5, 2), shown[-1]

    lines = recipients(5) + b'{"to":"nobody"}\n'
    batch = make_batch(r, "rejects.batch", {"max_reject": "50%"}, lines=lines)
    shown, _ = submit_wait(r, batch, status=4)
    assert (shown[-1]["accepted"], shown[-1]["rejected"]) == (5, 1), shown[-1]

    batch = make_batch(r, "bad.batch", lines=lines)
    shown, _ = submit_wait(r, batch, status=3)
    assert shown[-1]["state"] == "failed" and "max_reject" in shown[-1]["reason"], shown[-1]
    assert "the first: recipients.ndjson:6: " in shown[-1]["reason"], shown[-1]
    reason = read(r.spool, shown[-1]["path"], "reason.txt")
    assert reason.endswith(b"\n") and not reason.endswith(b"\n\n"), reason

    files = ("--message", r.write("m.eml", EML), "--recipients", r.write("r.ndjson", lines))
    shown, _ = submit_wait(r, *files, "--id", "limit-1", "--max-reject", "1", status=4)
    assert (shown[-1]["accepted"], shown[-1]["rejected"]) == (5, 1), shown[-1]
    shown, _ = submit_wait(r, *files, "--id", "limit-2", "--max-reject", "20%", status=4)
    lines = b'{"to":"a@x.example"}\n'
    files = ("--message", r.write("m.eml", EML.replace(b"|you", b"")), "--recipients",
             r.write("r.ndjson", lines))
    submit_wait(r, *files, "--id", "missing-1", status=3)
    submit_wait(r, *files, "--id", "missing-2", "--missing", "empty", status=0)

    shown, _ = submit_wait(r, "--from", "a@x.example", "--to", "b@y.example", "--subject", "s",
                           "--text", "t", status=0)
    assert shown[-1]["delivered"] == 1
    r.stop()
    peer.stop()


def test_wait_ends_in_time(r):
    peer = smtp_peer.Peer()
    r.start(peer.port)
    peer.hold()
    for tries, seconds in enumerate((1.5, 8, 40), 1):  # more, where that is too short to begin
        batch = make_batch(r, f"slow-{tries}.batch")
        shown, err = submit_wait(r, "--timeout", f"{int(seconds * 1000)}ms", batch, status=5)
        assert "time was up" in err
        if shown[-1]["state"] == "active":
            break
    assert shown[-1]["state"] == "active", shown
    peer.release()
    r.wait_for(lambda: len(peer.messages) == 3 * tries, "the batch goes on without its watcher")
    r.stop()
    peer.stop()


def test_wait_without_an_engine(r):
    r.make_spool()
    shown, _ = submit_wait(r, "--timeout", "100ms", make_batch(r), status=5)
    assert all(line["state"] == "waiting" for line in shown)


def wait_told(r, batch, words):
    """All that submit --wait shows until it gives a reason that says these words."""
    waiting = subprocess.Popen([r.program, "submit", "--spool", r.spool, "--wait", "--json",
                                "--timeout", f"{rig.DEADLINE_S}s", batch], stdout=subprocess.PIPE)
    shown = []
    with waiting.stdout as lines:
        for line in lines:
            shown.append(json.loads(line))
            if words in shown[-1].get("reason", ""):
                break
        waiting.kill()
        waiting.wait()
    assert words in shown[-1].get("reason", ""), shown
    return shown


def test_wait_tells_why_nothing_moves(r):
    """No engine; then one whose server does not answer. Told after 5 s of quiet."""
    r.make_spool()
    shown = wait_told(r, make_batch(r), "no engine answers")
    assert "reason" not in shown[0], shown
    r.start(9)
    wait_told(r, make_batch(r, "b2.batch"), "last error of route:*: ")
    r.stop()


def test_wait_tells_of_what_was_put_off(r):
    """No site has an error to tell of: the domain's name servers do not answer."""
    r.start(9, """dns { servers = "127.0.0.1:1" timeout = 50ms tries = 1 }
        route "nowhere.example" { }
        """)
    batch = make_batch(r, lines='{"to":"u@nowhere.example","vars":{"name":"U"}}\n')
    shown = wait_told(r, batch, "events.ndjson in the log say why")
    assert (shown[-1]["deferred"], shown[-1]["possible_duplicates"]) == (1, 0), shown
    assert shown[-1]["eta_s"] is None, shown
    r.stop()


def test_wait_for_a_batch_that_is_taken_away(r):
    r.make_spool()
    batch = make_batch(r)
    waiting = subprocess.Popen([r.program, "submit", "--spool", r.spool, "--wait", batch],
                               stdout=subprocess.PIPE)
    new = os.path.join(r.spool, "in", "new", "b1.batch")
    r.wait_for(lambda: os.path.exists(new), "the batch is submitted")
    os.rename(new, r.path("taken"))
    out, _ = waiting.communicate(timeout=rig.DEADLINE_S)
    assert waiting.returncode == 3 and b"badmail" in out, out


def test_plain_lines(r):
    peer = smtp_peer.Peer()
    r.start(peer.port)
    _, out, _ = r.run("submit", "--spool", r.spool, "--wait", make_batch(r), status=0)
    last, where = out.splitlines()[-2:]
    path = os.path.join(r.spool, "done")
    assert where.startswith(f"b1: see {path}/") and where.endswith("/b1.batch"), where
    assert os.path.exists(os.path.join(where.split()[-1], "results.ndjson"))
    assert last == ("b1: done: 3 of 3 settled, 3 delivered, 0 bounced, 0 expired, 0 cancelled, "
                    "0 rejected"), out
    assert "\r" not in out
    r.stop()
    peer.stop()


def test_nothing_is_said_twice(r):
    """No engine runs: what there is to say stays the same for three looks."""
    r.make_spool()
    _, out, _ = r.run("submit", "--spool", r.spool, "--wait", "--timeout", "3s", make_batch(r),
                      status=5)
    lines = out.splitlines()[:-1]
    assert lines and len(lines) == len(set(lines)), out


def run_on_terminal(words, columns):
    pid, fd = pty.fork()
    if pid == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        os.execv(words[0], words)
    out = b""
    while True:
        try:
            got = os.read(fd, 65536)
        except OSError:
            got = b""
        if not got:
            break
        out += got
    os.close(fd)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), out.decode()


def has_terminals():
    """A bare chroot may have no devpts."""
    try:
        for fd in pty.openpty():
            os.close(fd)
        return True
    except OSError:
        return False


def test_bar_on_a_terminal(r):
    if not has_terminals():
        print("no terminals here: the bar is not tested")
        return
    peer = smtp_peer.Peer()
    r.start(peer.port)
    for columns in (20, 40, 100):
        batch = make_batch(r, f"bar-{columns}.batch", lines=recipients(2000))
        words = [r.program, "submit", "--spool", r.spool, "--wait", batch]
        status, out = run_on_terminal(words, columns)
        assert status == 0, out
        *bars, last = out.split("\r\x1b[K")
        drawn = [bar for bar in "".join(bars).replace("\x1b[K", "").split("\r") if bar]
        assert drawn and all(bar.startswith(f"bar-{columns}") for bar in drawn), drawn
        assert all(len(bar) < columns for bar in drawn), drawn
        assert "2000 delivered" in last, last
    r.stop()
    peer.stop()


# Run.

def test_stop_does_not_wait_for_silent_servers(r):
    """Sessions that no transaction was begun on hold nothing: SIGTERM gives them up."""
    peer = smtp_peer.Peer()
    peer.be_silent()
    r.start(peer.port)
    r.run("submit", "--spool", r.spool, make_batch(r), status=0)
    status = lambda: json.loads(r.run("status", "-c", r.path("ramjet.conf"), "--json")[1])
    r.wait_for(lambda: status()["sessions"] > 0, "a session is open")
    r.stop(seconds=50)  # of 300 that a greeting may take, and 60 of drain-timeout
    peer.stop()


# Status.

def test_status(r):
    peer = smtp_peer.Peer()
    _, out, err = r.run("status", "-c", r.config(), status=1)
    assert out == "" and "no engine answers" in err
    r.start(peer.port)
    submit_wait(r, make_batch(r), status=0)
    _, out, _ = r.run("status", "-c", r.path("ramjet.conf"), "--json", status=0)
    assert json.loads(out)["totals"]["delivered"] == 3, out
    _, out, _ = r.run("status", "-c", r.path("ramjet.conf"), status=0)
    assert re.search(r"delivered +3 ", out), out
    r.stop()
    peer.stop()


# Check.

def test_check_configuration(r):
    os.mkdir(r.spool)
    _, out, _ = r.run("check", "-c", r.config(), status=0)
    assert out == f"{r.path('ramjet.conf')}: ok\n", out
    assert os.listdir(r.spool) == [], "nothing is written"
    bad = r.write("bad.conf", "node { workers = many }\nlog { events = perhaps }\n")
    _, out, _ = r.run("check", "-c", bad, status=1)
    assert f"error: {bad}:1: workers: " in out and f"error: {bad}:2: events: " in out, out
    _, out, _ = r.run("check", "-c", bad, "--json", status=1)
    answer = json.loads(out)
    assert answer["ok"] is False and len(answer["errors"]) == 2, out
    _, out, _ = r.run("check", "-c", bad, make_batch(r), status=1)
    assert "workers" in out


def test_check_machine(r):
    long = r.path("x" * 120)
    r.write("file", "")
    for more, told in (
            (f'spool {{ path = "{r.path("a", "b", "c")}" }}', "mkdir -p"),
            (f'spool {{ path = "{r.path("file")}" }}', "is not a directory"),
            (f'control {{ socket = "{long}" }}', "a UNIX socket takes"),
            (f'control {{ socket = "{r.path("no", "s.sock")}" }}', "control: "),
            (f'control {{ socket = "{r.path("file")}" }}', "is no socket"),
            ('control { metrics = "192.0.2.77:9100" }', "control: metrics"),
            ('dns { servers = "not a server" }', "dns: servers"),
            (f'log {{ directory = "{r.path("nowhere", "log")}" }}', "log: ")):
        spool = "" if "spool" in more else f'spool {{ path = "{r.directory}" }}'
        config = r.write("one.conf", f'node {{ hostname = "mx.test.example" }}\n{spool}\n{more}')
        _, out, _ = r.run("check", "-c", config, "--json", status=1)
        errors = json.loads(out)["errors"]
        assert len(errors) == 1 and told in errors[0], (more, errors)


def test_check_agrees_with_run(r):
    """What stops the engine is an error, what does not is a warning; run says the same."""
    taken = socket.create_server(("127.0.0.1", 0))
    config = r.config(9, 'control { metrics = "127.0.0.1:%d" }' % taken.getsockname()[1])
    _, out, _ = r.run("check", "-c", config, "--json", status=1)
    assert "another program listens there" in json.loads(out)["errors"][0], out
    _, _, err = r.run("run", "-c", config, status=1)
    assert "ramjet: control: metrics: cannot listen at 127.0.0.1:" in err, err
    assert all(line.startswith("ramjet: ") for line in err.splitlines()), err
    taken.close()
    port = lib.free_port()
    lost = """source "a1" { address = "192.0.2.77" }
        control { metrics = "127.0.0.1:%d" }""" % port
    r.start(9, lost)
    _, out, _ = r.run("check", "-c", r.path("ramjet.conf"), "--json", status=0)
    warnings = json.loads(out)["warnings"]  # and its own port is no error
    assert len(warnings) == 1 and "source a1: 192.0.2.77: is not on any" in warnings[0], warnings
    for path, code in (("metrics", 200), ("healthz", 200), ("v1/status", 403)):
        asked = http.client.HTTPConnection("127.0.0.1", port, timeout=rig.DEADLINE_S)
        asked.request("GET", f"/{path}")
        assert asked.getresponse().status == code, path
        asked.close()
    r.stop()
    said = r.engine_log()
    assert f"ramjet: warning: {warnings[0]}\n" in said, said
    assert re.search(r"^ramjet: starting: spool .*\nramjet: warning: .*\nramjet: ready after .* s: "
                     r"0 accepted batches go on\nramjet: ended in order\n\Z", said), said


def test_end_says_how(r):
    """What could not be written at the end makes it no orderly one, and is said before the end."""
    r.start(9)
    os.mkdir(os.path.join(r.spool, "clean"))
    r.engine.send_signal(signal.SIGTERM)
    assert r.engine.wait(rig.DEADLINE_S) == 1
    r.engine = None
    assert re.search(r"ramjet: spool: the mark of an orderly stop cannot be written: .*\n"
                     r"ramjet: ended with an error\n\Z", r.engine_log()), r.engine_log()


def test_a_start_in_vain_is_no_crash(r):
    """Nothing was sent: behind it nobody is in doubt who was not before."""
    r.start(9)
    r.wait_for(lambda: not os.path.exists(os.path.join(r.spool, "clean")), "it is at work")
    r.stop()
    taken = socket.create_server(("127.0.0.1", 0))
    config = r.config(9, 'control { metrics = "127.0.0.1:%d" }' % taken.getsockname()[1])
    _, _, err = r.run("run", "-c", config, status=1)
    taken.close()
    assert "cannot listen" in err, err
    assert os.path.exists(os.path.join(r.spool, "clean"))


def test_check_asks_name_servers(r):
    """One that is not there, and only when some route needs it."""
    dead = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    dead.bind(("127.0.0.1", 0))
    words = f"""node {{ hostname = "mx.test.example" }}
        spool {{ path = "{r.directory}" free-space-min = 0 }}
        limits {{ sessions = 100 recipients = 1000 }}
        dns {{ servers = "127.0.0.1:{dead.getsockname()[1]}" }}
        """
    _, out, _ = r.run("check", "-c", r.write("one.conf", words), "--json", status=0)
    assert "dns: servers" in " ".join(json.loads(out)["warnings"]), out
    words += 'route "*" { host = {"127.0.0.1"} }'
    _, out, _ = r.run("check", "-c", r.write("one.conf", words), "--json", status=0)
    assert json.loads(out)["warnings"] == [], out
    dead.close()


def test_check_warns(r):
    config = r.write("one.conf", f"""node {{ hostname = "short" workers = 64 }}
        spool {{ path = "{r.directory}" free-space-min = 1000T }}
        limits {{ sessions = 10 recipients = 1000000000 }}
        route "*" {{ connection-idle = 5m }}""")
    _, out, _ = r.run("check", "-c", config, "--json", status=0)
    warnings = "\n".join(json.loads(out)["warnings"])
    for told in ("full domain name", "64 workers", "MiB", "below free-space-min", "20 connections",
                 "idle for 300 s", "each opens one at least"):
        assert told in warnings, warnings


def test_check_batch(r):
    config = r.config()
    batch = make_batch(r, lines=recipients(30))
    _, out, _ = r.run("check", "-c", config, batch, "--sample", "2", status=0)
    assert f"{batch}: 30 recipients, 0 rejected\n" in out
    assert "RCPT TO:<user-1@d1.example>" in out and "Hello N1\n" in out, out
    _, out, _ = r.run("check", "-c", config, "--json", batch, "--sample", "99", status=1)
    answer = json.loads(out)
    assert answer["batches"][0]["ok"] and "sample" not in answer["batches"][0]
    assert sorted(os.listdir(batch)) == ["batch.json", "message.eml", "recipients.ndjson"]

    lines = recipients(50) + b'{"to":"a@x.example","vars":{"nmae":"A"}}\n' + b"x\n" * 30
    batch = make_batch(r, "many.batch", {"max_reject": "90%", "vars": {"year": 1}}, lines=lines)
    _, out, _ = r.run("check", "-c", config, batch, status=1)
    assert "50 recipients, 31 rejected\n" in out
    assert "recipients.ndjson:51: " in out and "... and 11 more" in out, out
    assert "missing: {{name}}" in out and 'unused: "year"' in out and 'unused: "nmae"' in out, out


BSMTP = (b"MAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\nRCPT TO:<c@y.example>\r\nDATA\r\n"
         b"From: a@x.example\r\nSubject: s\r\n\r\ntext\r\n.\r\n")


def test_check_bsmtp(r):
    r.write("m.batch/batch.json", json.dumps({"v": 1, "kind": "bsmtp"}))
    r.write("m.batch/messages-0.bsmtp", BSMTP)
    r.write("m.batch/messages-1.bsmtp", BSMTP.replace(b"c@y", b"c y"))
    _, out, _ = r.run("check", "-c", r.config(), r.path("m.batch"), "--json", "--sample", "1",
                      status=1)
    answer = json.loads(out)["batches"][0]
    assert (answer["recipients"], answer["rejected"]) == (3, 1), answer
    assert answer["rejects"][0]["file"] == "messages-1.bsmtp", answer
    assert "RCPT TO:<b@y.example>" in answer["sample"]


def test_check_bad_batches(r):
    config = r.config()
    open_part = b"From: a@x.example\nSubject: {{name\n\nx\n"
    for count, (manifest, eml, lines, told) in enumerate((
            ({"kind": "mrege"}, EML, None, "kind"),
            ({"from": "nobody"}, EML, None, "the sender"),
            ({"from": "{{"}, EML, None, "batch.json: from"),
            ({"count": 4}, EML, None, "count says 4"),
            ({"message": "other.eml"}, EML, None, "other.eml"),
            ({"recipients": "other.ndjson"}, EML, None, "other.ndjson"),
            ({}, open_part, None, "message.eml:2: "),
            ({}, b"Subject: no from\n\nx\n", None, "message.eml: "),
            ({}, EML, b"", "no recipient"),
            ({}, EML, b"{}\n", "max_reject"))):
        batch = make_batch(r, f"bad-{count}.batch", manifest, eml, lines)
        _, out, _ = r.run("check", "-c", config, "--json", batch, status=1)
        errors = json.loads(out)["batches"][0]["errors"]
        assert errors and told in errors[0], (manifest, told, out)
    _, out, _ = r.run("check", "-c", config, r.path("nowhere.batch"), status=1)
    assert "No such file" in out
    r.write("nojson.batch/batch.json", '{"v":1,\n"kind":}\n')
    _, out, _ = r.run("check", "-c", config, r.path("nojson.batch"), status=1)
    assert "line 2" in out or ":2:" in out, out


def test_check_files_that_are_none(r):
    """Links, FIFOs and directories are told, and waited for by nobody."""
    config = r.config()
    for count, make in enumerate((
            os.mkfifo, os.mkdir, lambda path: os.symlink("/etc/passwd", path),
            lambda path: os.link(os.path.join(r.directory, "ramjet.conf"), path))):
        for name in ("batch.json", "message.eml", "recipients.ndjson"):
            batch = make_batch(r, f"odd-{count}-{name}.batch")
            os.unlink(os.path.join(batch, name))
            make(os.path.join(batch, name))
            _, out, _ = r.run("check", "-c", config, "--json", batch + "/", status=1)
            errors = json.loads(out)["batches"][0]["errors"]
            assert len(errors) == 1 and errors[0].startswith(name + ": "), (count, errors)


def test_check_says_what_the_engine_does(r):
    """The same batch through both: the same counts, the same lines, the same reasons."""
    peer = smtp_peer.Peer()
    r.start(peer.port)
    lines = b"".join((
        recipients(20), b'{"to":"a@b@c"}\n', b"\n", b'{"to":"x@y.example"}\n', b"{\n",
        b'{"to":"x@y.example","vars":{"name":"a\\u0000b"}}\n',
        '{"to":"u@bücher.example","vars":{"name":"B"}}\n'.encode(),
        '{"to":"ü@x.example","vars":{"name":"B"}}\n'.encode(),
        b'{"to":"u@[127.0.0.1]","vars":{"name":"B"}}\n', b'{"to":"","vars":{"name":"B"}}\n',
        b'{"to":"a@x.example","vars":{"name":"' + b"x" * 70000 + b'"}}\n', recipients(1, 99)))
    batch = make_batch(r, lines=lines, manifest={"max_reject": "90%"})
    _, out, _ = r.run("check", "-c", r.path("ramjet.conf"), "--json", batch, status=1)
    answer = json.loads(out)["batches"][0]
    shown, _ = submit_wait(r, batch, status=4)
    assert shown[-1]["accepted"] == answer["recipients"], (shown, answer)
    assert shown[-1]["rejected"] == answer["rejected"], (shown, answer)
    rejects = rig.json_lines(read(r.spool, shown[-1]["path"], "rejects.ndjson").decode())
    assert [(x["line"], x["reason"], x.get("remedy", "")) for x in rejects] == \
           [(x["line"], x["reason"], x["remedy"]) for x in answer["rejects"]]
    r.stop()
    peer.stop()


# What stands on paper.

def keys_of_defaults(r):
    _, out, _ = r.run("check", "--defaults", status=0)
    return out, re.findall(r"^    ([a-z0-9-]+) = ", out, re.MULTILINE)


def test_defaults_are_a_configuration(r):
    text, keys = keys_of_defaults(r)
    assert len(keys) > 50
    config = r.write("defaults.conf", text)
    _, out, _ = r.run("check", "-c", config, "--json", make_batch(r), status=0)
    assert json.loads(out)["ok"] is True


def test_manual_names_every_key(r):
    text, keys = keys_of_defaults(r)
    manual = read(r.source, "docs", "man", "ramjet.conf.5.md").decode()
    missing = [key for key in [*keys, "cores", "host", "ignore"] if f"`{key}`" not in manual]
    assert missing == [], missing
    named = re.findall(r"^\| `([a-z0-9-]+)` \|", manual, re.MULTILINE)
    unknown = sorted(set(named) - set(keys) - {"cores", "host", "ignore"})
    assert unknown == [], unknown
    for key, default in re.findall(r'^    ([a-z0-9-]+) = "([^"]*)"', text, re.MULTILINE):
        shown = f"`{default}`" if default else ""
        assert f"| `{key}` | {shown} |" in manual, f"{key}: the default is {default}"


def test_sample_configuration(r):
    sample = os.path.join(r.source, "dist", "ramjet.conf")
    r.run("check", "-c", sample, make_batch(r), status=0)
    # What is commented out can be used as well.
    text = re.sub(r"(?m)^#(   |(?! ))", r"\1", read(sample).decode())
    r.run("check", "-c", r.write("all.conf", text), make_batch(r, "b2.batch"), status=0)


if __name__ == "__main__":
    rig.run_tests([value for name, value in list(globals().items()) if name.startswith("test_")])
