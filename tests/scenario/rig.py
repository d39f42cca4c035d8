# SPDX-License-Identifier: Apache-2.0
"""What scenario tests share: the built program, a spool of their own, an engine that runs in it.

A test is a function that takes a Rig. `run_tests` runs all of them, each in a fresh directory, and
ends the program with "N passed, N failed".
"""
import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback

DEADLINE_S = 60  # for what takes milliseconds: a machine may be slow, a test must not hang

CONFIG = """
node {{ hostname = "mx.test.example" workers = 1 }}
spool {{ path = "{spool}" free-space-min = 0 }}
limits {{ sessions = 100 recipients = 100000 domains = 10000 sites = 1000 batches = 100
    read-ahead = 16M }}
route "*" {{ host = {{"127.0.0.1:{port}"}} suspend-first = 1s suspend-max = 1s
    retry-first = 1s retry-max = 1s }}
"""


class Rig:
    def __init__(self, build, directory):
        self.program = os.path.join(os.path.abspath(build), "engine", "ramjet")
        self.source = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        self.directory = directory
        self.spool = os.path.join(directory, "spool")
        self.engine = None

    def path(self, *parts):
        return os.path.join(self.directory, *parts)

    def write(self, name, content):
        path = self.path(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content if isinstance(content, bytes) else content.encode())
        return path

    def run(self, *words, stdin=b"", status=None):
        """The program with these words: (exit status, stdout, stderr)."""
        done = subprocess.run([self.program, *words], input=stdin, capture_output=True,
                              timeout=DEADLINE_S, check=False)
        out, err = done.stdout.decode(), done.stderr.decode()
        if status is not None:
            assert done.returncode == status, f"{words}: {done.returncode}: {out}{err}"
        return done.returncode, out, err

    def config(self, port=9, more=""):
        return self.write("ramjet.conf", CONFIG.format(spool=self.spool, port=port) + more)

    def make_spool(self):
        """The spool as the engine makes it, without an engine."""
        self.start(9)
        self.stop()

    def start(self, port, more=""):
        config = self.config(port, more)
        with open(self.path("engine.log"), "ab") as log:
            self.engine = subprocess.Popen([self.program, "run", "-c", config], stdout=log,
                                           stderr=log)
        self.wait_for(lambda: self.run("status", "-c", config)[0] == 0, "the engine answers")

    def stop(self, seconds=DEADLINE_S):
        self.engine.send_signal(signal.SIGTERM)
        assert self.engine.wait(seconds) == 0
        self.engine = None

    def wait_for(self, condition, what):
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert self.engine is None or self.engine.poll() is None, self.engine_log()
            assert time.monotonic() < deadline, f"never: {what}"
            time.sleep(0.01)

    def engine_log(self):
        with open(self.path("engine.log"), encoding="utf-8", errors="replace") as log:
            return log.read()

    def end(self):
        if self.engine is not None:
            self.engine.kill()
            self.engine.wait()


def json_lines(text):
    return [json.loads(line) for line in text.splitlines()]


def run_tests(tests):
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True)
    parser.add_argument("names", nargs="*", help="only these tests")
    options = parser.parse_args()
    passed = failed = 0
    for test in tests:
        if options.names and test.__name__ not in options.names:
            continue
        directory = tempfile.mkdtemp(prefix="ramjet-")
        rig = Rig(options.build, directory)
        try:
            test(rig)
            passed += 1
        except Exception:  # pylint: disable=broad-except
            failed += 1
            print(f"--- {test.__name__}")
            traceback.print_exc(file=sys.stdout)
            if os.path.exists(rig.path("engine.log")):
                print(rig.engine_log())
        finally:
            rig.end()
            shutil.rmtree(directory, ignore_errors=True)
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)
