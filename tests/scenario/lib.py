# SPDX-License-Identifier: Apache-2.0
"""What the scenario and interop tests share: a temporary place, the engine and the sink in it,
batches, waiting with deadlines, and checks with words.

A test program is called with the build directory as its first argument:

    with Place("outcomes") as place:
        sink = Sink(place)
        engine = Engine(place, routes=route("*", sink.port)).start()
        ...
    sys.exit(finish())

Nothing here sleeps for a time that is meant to be long enough: wait_for() looks again and again
until what is waited for is there, and fails with words at its deadline.
"""
import errno
import functools
import hashlib
import http.client
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback

SKIP = 77
LONG_S = 40  # a deadline for what takes a second or two on a machine with nothing else to do
LOOK_S = 0.02

passed = failed = 0


def check(condition, what, got=""):
    """Counts; tells what failed, and goes on."""
    global passed, failed
    if condition:
        passed += 1
    else:
        failed += 1
        print(f"FAILED: {what}" + (f": got {str(got)[:1500]}" if got != "" else ""), flush=True)
    return bool(condition)


def equal(got, wanted, what):
    return check(got == wanted, what, f"{got!r}, wanted {wanted!r}")


def finish():
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


def skip(reason):
    print(f"skipped: {reason}")
    sys.exit(SKIP)


def run_cases(cases):
    """Each is a function; an exception is the failure of that one only."""
    for case in cases:
        before = failed
        started = time.monotonic()
        try:
            case()
        except Exception:  # pylint: disable=broad-except
            check(False, f"{case.__name__} ended early", traceback.format_exc())
        verdict = "ok" if failed == before else "FAILED"
        print(f"  {case.__name__}: {verdict} ({time.monotonic() - started:.1f} s)", flush=True)
    return finish()


def cases_of(names):
    """The cases of a module (its globals()), in their order."""
    return [value for name, value in names.items() if name.startswith("case_")]


def run_all(names):
    """All cases of a module (its globals()); then its engine ends as it should, if it
    is still there."""
    result = run_cases(cases_of(names))
    if names["engine"].is_alive():
        result |= names["engine"].terminate()
    return result


class Late(Exception):
    """What was waited for did not come in time."""


def wait_for(look, what, seconds=LONG_S):
    """The first true value of look(); Late with words when there is none in time."""
    deadline = time.monotonic() + seconds
    while True:
        value = look()
        if value:
            return value
        if time.monotonic() > deadline:
            raise Late(f"{what}: not within {seconds} s")
        time.sleep(LOOK_S)


def read_text(path):
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def read_json(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def read_lines(path):
    """The objects of an NDJSON file; [] when there is none. A last line without its end is one
    that is being written, and is left out."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        return []
    return [read_line(path, line) for line in data[:data.rfind(b"\n") + 1].split(b"\n")[:-1]]


def read_line(path, line):
    try:
        return json.loads(line)
    except ValueError:
        check(False, f"every line of {path} is JSON", line[:300])
        return {}


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def soon(seconds):
    """A time as batch.json takes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))


def build_root():
    return os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else "build")


def program(*path):
    return os.path.join(build_root(), *path)


def free_port(host="127.0.0.1"):
    """None of those that the kernel gives away: it would be somebody's before it is used."""
    given = int(read_text("/proc/sys/net/ipv4/ip_local_port_range").split()[0])
    while True:
        port = random.randrange(10000, given)
        with socket.socket() as probe:
            try:
                probe.bind((host, port))
                return port
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise


class Place:
    """A temporary directory, and the processes that were started for it."""

    def __init__(self, name):
        self.path = tempfile.mkdtemp(prefix=f"ramjet-{name}-")
        self.processes = []

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        for process in reversed(self.processes):
            stop(process)
        if "RAMJET_KEEP" in os.environ:
            print(f"kept: {self.path}")
            return
        shutil.rmtree(self.path, ignore_errors=True)

    def join(self, *parts):
        return os.path.join(self.path, *parts)

    def run(self, command, **options):
        process = subprocess.Popen(command, **options)
        self.processes.append(process)
        return process


def stop(process):
    """By its own id, and never for ever."""
    if process.poll() is None:
        process.terminate()
        try:
            process.send_signal(signal.SIGCONT)
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for pipe in (process.stdout, process.stderr, process.stdin):
        if pipe:
            pipe.close()


class Sink:
    """ramjet-sink with a record of what it accepted."""

    def __init__(self, place, *options, name="sink", listen="127.0.0.1:0", threads=1):
        self.place = place
        self.record = place.join(f"{name}.record")
        self.options = [program("bench", "ramjet-sink"), "--threads", str(threads), "--json",
                        "--record", self.record, *options]
        self.listen = listen
        self.process = None
        self.start()

    def start(self):
        self.process = self.place.run([*self.options, "--listen", self.listen],
                                      stdout=subprocess.PIPE, text=True)
        for line in self.process.stdout:
            if line.startswith("listening on "):
                self.listen = line.split()[2]
                self.port = int(self.listen.rsplit(":", 1)[1])
                return self
        raise Late("the sink did not start")

    def stop(self):
        """Its totals."""
        self.process.terminate()
        out, _ = self.process.communicate(timeout=20)
        return json.loads(out.strip().splitlines()[-1])

    def totals(self):
        """Those of this moment."""
        self.process.send_signal(signal.SIGUSR1)
        return json.loads(self.process.stdout.readline())

    def pause(self):
        """It answers nobody until go_on(): what is under way stays so."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self):
        self.process.send_signal(signal.SIGCONT)

    def messages(self):
        return read_lines(self.record)

    def taken(self):
        """How often each recipient was taken."""
        counts = {}
        for message in self.messages():
            for recipient in message["to"]:
                counts[recipient] = counts.get(recipient, 0) + 1
        return counts


def route(pattern, port=None, host="127.0.0.1", **keys):
    """One route section; keys with underscores for hyphens."""
    words = [f'host = {{ "{host}:{port}" }}'] if port else []
    words += [f"{key.replace('_', '-')} = {value}" for key, value in keys.items()]
    return f'route "{pattern}" {{ {" ".join(words)} }}\n'


class Engine:
    """ramjet run with a configuration and a spool of its own in the place."""

    def __init__(self, place, routes="", node="", extra="", name="engine", spool=None):
        self.place = place
        self.name = name
        self.spool = spool or place.join(f"{name}.spool")
        self.config = place.join(f"{name}.conf")
        self.log = place.join(f"{name}.out")
        self.process = None
        self.environment = None
        self.write_config(routes, node, extra)

    def write_config(self, routes, node="", extra=""):
        if "workers" not in node:
            node += " workers = 2"
        with open(self.config, "w", encoding="utf-8") as file:
            file.write(f'node {{ hostname = "engine.test" {node} }}\n')
            if "spool {" not in extra:
                file.write(f'spool {{ path = "{self.spool}" free-space-min = 1M }}\n')
            file.write(extra + routes)
            if 'route "*"' not in routes:
                file.write('route "*" { }\n')

    def spawn(self, wrap=()):
        """Starts it and does not wait."""
        os.makedirs(self.spool, exist_ok=True)
        environment = dict(os.environ, **(self.environment or {}))
        with open(self.log, "ab") as log:
            self.process = self.place.run(
                [*wrap, program("engine", "ramjet"), "run", "-c", self.config], stdout=log,
                stderr=log, env=environment)
        return self

    def start(self, wrap=()):
        self.spawn(wrap)
        wait_for(self.is_up, f"{self.name} is up")
        return self

    def is_up(self):
        if self.process.poll() is not None:
            raise Late(f"{self.name} ended with {self.process.returncode}: {self.words()}")
        try:
            return self.get("/healthz")[0] == 200
        except OSError:
            return False

    def words(self):
        """What it said on its standard error."""
        return read_text(self.log)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def terminate(self, seconds=100):
        """Its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def is_alive(self):
        return self.process.poll() is None

    # What it says of itself.

    def get(self, path, method="GET"):
        connection = _UnixConnection(os.path.join(self.spool, "control.sock"))
        try:
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def status(self):
        code, body = self.get("/v1/status")
        if code != 200:
            raise Late(f"/v1/status answered {code}")
        return json.loads(body)

    def events(self):
        return read_lines(os.path.join(self.spool, "log", "events.ndjson"))

    # Batches.

    def submit(self, directory):
        """A directory that was made by one of the makers below, renamed into in/new."""
        name = os.path.basename(directory)
        os.rename(directory, os.path.join(self.spool, "in", "new", name))
        return name

    def order(self, batch, verb):
        with open(os.path.join(self.spool, "in", "ctl", f"{batch}.{verb}"), "x",
                  encoding="utf-8"):
            pass

    def find(self, batch):
        """(place, path) of a batch, or (None, None). Places are looked at in the order in which it
        comes to them: one that moves meanwhile is met at the next."""
        name = batch if batch.endswith(".batch") else f"{batch}.batch"
        for place in (os.path.join("in", "new"), "active", "hold"):
            path = os.path.join(self.spool, place, name)
            if os.path.isdir(path):
                return place, path
        for place in ("done", "failed"):
            for day in _names(os.path.join(self.spool, place)):
                path = os.path.join(self.spool, place, day, name)
                if os.path.isdir(path):
                    return place, path
        return None, None

    def wait_end(self, batch, seconds=LONG_S):
        """The End of a batch that has left active/."""
        def look():
            if not self.is_alive():
                raise Late(f"the engine ended with {self.process.returncode}: {self.words()}")
            place, path = self.find(batch)
            return End(place, path) if place in ("done", "failed", "hold") else None
        try:
            return wait_for(look, f"{batch} has left active/", seconds)
        except Late as late:
            raise Late(f"{late}; {self.tell(batch)}") from None

    def tell(self, batch):
        place, path = self.find(batch)
        words = [f"{batch} is in {place}"]
        if path and os.path.exists(os.path.join(path, "progress.json")):
            words.append(read_text(os.path.join(path, "progress.json")))
        if self.is_alive():
            words.append(self.get("/v1/status")[1])
        return "; ".join(words)

    def progress(self, batch):
        _, path = self.find(batch)
        try:
            return read_json(os.path.join(path, "progress.json")) if path else None
        except FileNotFoundError:
            return None

    def making(self, batch):
        path = os.path.join(self.spool, "in", "tmp", f"{batch}.batch")
        os.makedirs(path)
        return path


class End:
    """A batch that has ended: what lies in its directory."""

    def __init__(self, place, path):
        self.place = place
        self.path = path
        self.summary = self._json("summary.json")
        reason = os.path.join(path, "reason.txt")
        self.reason = read_text(reason) if os.path.exists(reason) else ""

    @functools.cached_property
    def results(self):
        return read_lines(os.path.join(self.path, "results.ndjson"))

    @functools.cached_property
    def rejects(self):
        return read_lines(os.path.join(self.path, "rejects.ndjson"))

    def _json(self, name):
        path = os.path.join(self.path, name)
        return read_json(path) if os.path.exists(path) else {}

    def counts(self):
        keys = ("accepted", "rejected", "delivered", "bounced", "expired", "cancelled")
        return {key: self.summary.get(key) for key in keys if self.summary.get(key)}


def _names(path):
    try:
        return os.listdir(path)
    except FileNotFoundError:
        return []


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=LONG_S)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


# Batches as directories in in/tmp. They are not synced: these tests kill processes, not machines.

HEADER = ("From: News <news@sender.test>\r\n"
          "To: list@sender.test\r\n"
          "Subject: Test\r\n"
          "Date: Tue, 01 Dec 2026 08:00:00 +0000\r\n"
          "Message-ID: <constant@sender.test>\r\n"
          "MIME-Version: 1.0\r\n"
          "Content-Type: text/plain; charset=utf-8\r\n"
          "Content-Transfer-Encoding: 8bit\r\n"
          "\r\n")


EACH = HEADER + "Hello {{_to}}.\r\n"  # each recipient in a transaction of its own
SAME = HEADER + "Hello.\r\n"  # recipients share one


def write(path, content):
    with open(path, "wb") as file:
        file.write(content.encode("utf-8", "surrogateescape")
                   if isinstance(content, str) else content)


def make_merge(engine, batch, recipients, message=None, sender="b@sender.test", **manifest):
    """recipients: addresses, or objects as in recipients.ndjson, or the file's bytes."""
    path = engine.making(batch)
    head = {"v": 1, "kind": "merge", "from": sender, **manifest}
    if isinstance(recipients, (list, tuple)):
        lines = [{"to": one} if isinstance(one, str) else one for one in recipients]
        recipients = "".join(json.dumps(line) + "\n" for line in lines)
    write(os.path.join(path, "batch.json"), json.dumps(head))
    write(os.path.join(path, head.get("recipients", "recipients.ndjson")), recipients)
    write(os.path.join(path, head.get("message", "message.eml")),
          EACH if message is None else message)
    return path


def bsmtp_record(sender, recipients, content):
    """content: bytes with CRLF; stuffed here."""
    envelope = [f"MAIL FROM:<{sender}>"] + [f"RCPT TO:<{one}>" for one in recipients] + ["DATA"]
    stuffed = (b"\r\n" + content).replace(b"\r\n.", b"\r\n..")[2:]
    return "\r\n".join(envelope).encode() + b"\r\n" + stuffed + b".\r\n"


def make_bsmtp(engine, batch, records, **manifest):
    """records: bytes of one file, or a list of such."""
    path = engine.making(batch)
    write(os.path.join(path, "batch.json"), json.dumps({"v": 1, "kind": "bsmtp", **manifest}))
    files = records if isinstance(records, list) else [records]
    for number, content in enumerate(files):
        write(os.path.join(path, f"messages-{number:03}.bsmtp"), content)
    return path


def send(engine, batch, recipients, seconds=LONG_S, **more):
    """A merge batch from the start to its end."""
    engine.submit(make_merge(engine, batch, recipients, **more))
    return engine.wait_end(batch, seconds)
