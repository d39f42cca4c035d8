# SPDX-License-Identifier: Apache-2.0
"""A running engine on a spool of its own: the one place that knows its binary and config."""

import glob
import json
import os
import socket
import subprocess
import time

from measure import machine
from measure.programs import BenchError

CONFIG = """\
node {{
    hostname = "bench.example"
    workers = {workers}
    {cores}
}}
spool {{ path = "{spool}" }}
limits {{ sessions = {sessions} }}
dns {{ allow-special = yes {dns} }}
source "bench" {{ connections = {sessions} }}
{routes}
route "*" {{
    {host}
    connections = {connections}
    per-connection = {per_connection}
    connection-age = 1h
    backlog-per-connection = {backlog}
    {route}
}}
"""


class Engine:
    """Starts `ramjet run` and waits until it answers. host None: by DNS. `route`: further lines for
    the route; `routes`: further routes; `dns`: lines of that section."""

    def __init__(self, build, work, host, connections=64, workers=None, cores=None,
                 per_connection=1000000, backlog=1, route="", routes="", dns="",
                 name="engine", is_started=True):
        self.binary = os.path.join(build, "engine", "ramjet")
        self.spool = os.path.join(work, name)
        os.makedirs(self.spool)
        self.config = os.path.join(work, name + ".conf")
        workers = workers or machine.cores()
        listed = ", ".join(f'"{core}"' for core in cores) if cores else ""
        with open(self.config, "w", encoding="utf-8") as file:
            file.write(CONFIG.format(
                workers=workers, cores=f"cores = {{{listed}}}" if listed else "", spool=self.spool,
                sessions=max(20000, connections), host=f'host = {{"{host}"}}' if host else "",
                connections=connections, per_connection=per_connection, backlog=backlog,
                route=route, routes=routes, dns=dns))
        self.errors = os.path.join(work, name + ".err")
        self.process = None
        if is_started:
            self.spawn()

    def spawn(self, timeout_s=60):
        """Starts it; again after kill."""
        with open(self.errors, "a", encoding="utf-8") as errors:
            self.process = subprocess.Popen([self.binary, "run", "-c", self.config], stdout=errors,
                                            stderr=errors)
        self._until(self._healthy, timeout_s, "start")

    def kill(self):
        self.process.kill()
        self.process.wait()

    def _get(self, path):
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(5)
        with client:
            client.connect(os.path.join(self.spool, "control.sock"))
            client.sendall(f"GET {path} HTTP/1.0\r\nHost: ramjet\r\n\r\n".encode())
            answer = b""
            while chunk := client.recv(65536):
                answer += chunk
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), body.decode()

    def _healthy(self):
        try:
            return self._get("/healthz")[0] == 200
        except OSError:
            return False

    def _until(self, condition, timeout_s, what):
        deadline = time.monotonic() + timeout_s
        while not condition():
            if self.process.poll() is not None:
                raise BenchError(f"the engine ended while: {what}\n{self.error_text()}")
            if time.monotonic() > deadline:
                raise BenchError(f"the engine took more than {timeout_s} s to: {what}\n"
                                 f"{self.error_text()}")
            time.sleep(0.001)

    def error_text(self):
        with open(self.errors, encoding="utf-8") as file:
            return file.read()[-2000:]

    @property
    def pid(self):
        return self.process.pid

    def metrics(self):
        """Metric lines without labels by name, with labels by the whole left side."""
        values = {}
        for line in self._get("/metrics")[1].splitlines():
            if line and not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                values[name] = float(value)
        return values

    def submit(self, staged):
        """Renames a staged batch into in/new; the monotonic time just before, in ns."""
        target = os.path.join(self.spool, "in", "new", os.path.basename(staged))
        at_ns = time.monotonic_ns()
        os.rename(staged, target)
        return at_ns

    def order(self, batch, verb):
        path = os.path.join(self.spool, "in", "ctl", f"{batch}.{verb}")
        with open(path, "w", encoding="utf-8"):
            pass

    def progress(self, batch):
        """progress.json of an active batch, or None."""
        try:
            with open(os.path.join(self.spool, "active", batch + ".batch", "progress.json"),
                      encoding="utf-8") as file:
                return json.load(file)
        except (OSError, ValueError):
            return None

    def wait_done(self, batch, timeout_s):
        """Until the batch is in done/: the monotonic time in ns, and its summary."""
        def folder(place):
            return glob.glob(os.path.join(self.spool, place, "*", batch + ".batch"))

        self._until(lambda: folder("done") or folder("failed"), timeout_s, f"finish {batch}")
        at_ns = time.monotonic_ns()
        if folder("failed"):
            with open(os.path.join(folder("failed")[0], "reason.txt"), encoding="utf-8") as file:
                raise BenchError(f"batch {batch} failed: {file.read()}")
        with open(os.path.join(folder("done")[0], "summary.json"), encoding="utf-8") as file:
            return at_ns, json.load(file)

    def wait_for(self, condition, timeout_s, what):
        self._until(condition, timeout_s, what)

    def rss(self):
        return machine.rss_bytes(self.pid)

    def rss_peak(self):
        return machine.rss_peak_bytes(self.pid)

    def cpu_ns(self):
        return machine.cpu_ns(self.pid)

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(timeout=90)
        except subprocess.TimeoutExpired as late:
            self.process.kill()
            raise BenchError(f"the engine does not stop\n{self.error_text()}") from late

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
