# SPDX-License-Identifier: Apache-2.0
"""knotd, a name server, on loopback: serves zones from a folder of its own."""

import contextlib
import os
import random
import shutil
import socket
import struct
import subprocess
import time

from measure.programs import BenchError

KNOTD = shutil.which("knotd", path=os.environ.get("PATH", "") + ":/usr/sbin")
START_DEADLINE_S = 60
ZONE = "bench.example"
HEAD = """\
$ORIGIN bench.example.
$TTL 3600
@ SOA ns hostmaster 1 7200 900 1209600 60
@ NS  ns
ns A 127.0.0.1
"""
CONF = """
server:
  rundir: {folder}
  listen: 127.0.0.1@{port}
  udp-workers: 1
  tcp-workers: 1
  background-workers: 1
database:
  storage: {folder}/db
log:
  - target: {folder}/log
    any: info
zone:
"""


def free_port(others=()):
    """A port free for UDP and TCP; for TCP on the other hosts as well. None of those that the
    kernel gives away: it would be somebody's before it is used."""
    with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as file:
        given = int(file.read().split()[0])
    for _ in range(100):
        port = random.randrange(10000, given)
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            try:
                tcp.bind(("127.0.0.1", port))
                udp.bind(("127.0.0.1", port))
                for host in others:
                    with socket.socket() as other:
                        other.bind((host, port))
            except OSError:
                continue
            return port
    raise BenchError("no port is free everywhere")


def wire_name(name):
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"


def serves(port, zone):
    """Whether the zone's SOA is answered with NOERROR."""
    question = struct.pack("!HHHHHH", 1, 0, 1, 0, 0, 0) + wire_name(zone) + struct.pack("!HH", 6, 1)
    with socket.socket(type=socket.SOCK_DGRAM) as udp:
        udp.settimeout(0.5)
        try:
            udp.connect(("127.0.0.1", port))
            udp.send(question)
            answer = udp.recv(512)
        except OSError:
            return False
    return len(answer) >= 12 and answer[3] & 0x0F == 0


class Knot:
    """broken: zones that it knows and has no file of (SERVFAIL). `run` starts a process."""

    def __init__(self, folder, port, broken=(), run=subprocess.Popen):
        self.folder = folder
        self.port = port
        self.broken = broken
        self.run = run
        self.process = None
        os.makedirs(os.path.join(folder, "db"))

    def start(self, zones):
        """zones: their texts by name; returns when all are served."""
        conf = CONF.format(folder=self.folder, port=self.port)
        for name in self.broken:
            conf += f"  - domain: {name}\n    file: {self.folder}/missing\n"
        for name, text in zones.items():
            conf += f"  - domain: {name}\n    file: {self.folder}/{name}\n"
            with open(os.path.join(self.folder, name), "w", encoding="ascii") as file:
                file.write(text)
        path = os.path.join(self.folder, "knot.conf")
        with open(path, "w", encoding="ascii") as file:
            file.write(conf)
        self.process = self.run([KNOTD, "-c", path], stdout=subprocess.DEVNULL,
                                stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + START_DEADLINE_S
        while not all(serves(self.port, name) for name in zones):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise BenchError("knotd does not serve the zones")
            time.sleep(0.05)

    def stop(self):
        """Once started; never waits for ever."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None


@contextlib.contextmanager
def knot_of(work, records, name="knot"):
    """Serves the records (lines of a zone file below bench.example) until it is left."""
    if KNOTD is None:
        raise BenchError("knotd is not here (Debian: knot)")
    knot = Knot(os.path.join(work, name), free_port())
    try:
        knot.start({ZONE: HEAD + "".join(record + "\n" for record in records)})
        yield knot
    finally:
        knot.stop()
