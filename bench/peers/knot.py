# SPDX-License-Identifier: Apache-2.0
"""A name server with one generated zone: knotd on a port of the loopback network."""

import os
import shutil
import socket
import struct
import subprocess
import time

from measure.programs import BenchError

ZONE = "bench.example"
HEAD = """\
$ORIGIN bench.example.
$TTL 3600
@ SOA ns hostmaster 1 7200 900 1209600 60
@ NS  ns
ns A 127.0.0.1
"""
CONF = """\
server:
  rundir: {folder}
  listen: 127.0.0.1@{port}
  udp-workers: 1
  tcp-workers: 1
  background-workers: 1
database:
  storage: {folder}/db
zone:
  - domain: bench.example
    file: {folder}/zone
"""


def _free_port():
    with socket.socket(type=socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        return udp.getsockname()[1]


class Knot:
    """Serves the records (lines of a zone file below bench.example) until it is left."""

    def __init__(self, work, records, name="knot"):
        program = shutil.which("knotd", path=os.environ.get("PATH", "") + ":/usr/sbin")
        if program is None:
            raise BenchError("knotd is not here (Debian: knot)")
        folder = os.path.join(work, name)
        os.makedirs(os.path.join(folder, "db"))
        self.port = _free_port()
        with open(os.path.join(folder, "zone"), "w", encoding="ascii") as file:
            file.write(HEAD)
            file.writelines(record + "\n" for record in records)
        conf = os.path.join(folder, "knot.conf")
        with open(conf, "w", encoding="ascii") as file:
            file.write(CONF.format(folder=folder, port=self.port))
        self.process = subprocess.Popen([program, "-c", conf], stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while not self._serves():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise BenchError("knotd does not serve its zone")
            time.sleep(0.05)

    def _serves(self):
        """Whether it answers for the zone's SOA."""
        name = b"".join(bytes([len(label)]) + label.encode() for label in ZONE.split("."))
        question = struct.pack("!HHHHHH", 1, 0, 1, 0, 0, 0) + name + b"\0\0\6\0\1"
        with socket.socket(type=socket.SOCK_DGRAM) as udp:
            udp.settimeout(0.5)
            try:
                udp.connect(("127.0.0.1", self.port))
                udp.send(question)
                answer = udp.recv(512)
            except OSError:
                return False
        return len(answer) > 12 and answer[3] & 0x0F == 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
