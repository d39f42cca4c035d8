# SPDX-License-Identifier: Apache-2.0
"""Each timeout of a route, against a server that falls silent at that very place.

test_timeouts.py BUILD
"""
import os
import socket
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import (Engine, Place, check, equal, make_merge, route, run_all, wait_for)  # noqa: E402

SHORT_S = 1
STAGES = ("greeting", "ehlo", "mail", "rcpt", "data", "body", "end-of-data", "rset", "quit")
ANSWERS = {"mail": b"250 ok\r\n", "rcpt": b"250 ok\r\n", "data": b"354 go on\r\n",
           "rset": b"250 ok\r\n", "quit": b"221 bye\r\n"}
engine = None
servers = {}


class Silent:
    """Answers until `stage`, and no more; `waits` is how long each client bore it, from before the
    last word to it: what the client waits for begins behind that, however late this thread runs."""

    def __init__(self, stage):
        self.stage = stage
        self.waits = []
        self.said_at = time.monotonic()  # before anything was said: set anew with each batch
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=16)
        if stage == "connect":  # a full backlog: the kernel drops what comes then
            self.socket.close()
            self.socket = socket.socket()
            self.socket.bind(("127.0.0.1", 0))
            self.socket.listen(0)
            self.filling = [self.fill() for _ in range(4)]
        else:
            threading.Thread(target=self.serve, daemon=True).start()
        self.port = self.socket.getsockname()[1]

    def fill(self):
        client = socket.socket()
        client.setblocking(False)
        client.connect_ex(self.socket.getsockname())
        return client

    def serve(self):
        while True:
            conn, _ = self.socket.accept()
            threading.Thread(target=self.talk, args=(conn,), daemon=True).start()

    def talk(self, conn):
        silent_at = self.speak(conn)
        try:
            if self.stage == "body":
                while conn.fileno() >= 0 and not self.is_reset(conn):
                    time.sleep(0.02)
            else:
                while conn.recv(65536):
                    pass
        except OSError:
            pass
        self.waits.append(time.monotonic() - silent_at)
        conn.close()

    @staticmethod
    def is_reset(conn):
        """Nothing is read: what was sent fills the window."""
        return conn.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) or conn.getsockopt(
            socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != 1

    def speak(self, conn):
        """When the last word was said, or a little before."""
        lines = conn.makefile("rb")
        if self.stage == "greeting":
            return self.said_at

        def say(words):
            said_at = time.monotonic()
            conn.sendall(words)
            return said_at
        said_at = say(b"220 silent.test\r\n")
        for line in lines:
            verb = line.split()[0].decode().lower()
            if self.stage == verb:
                break
            if verb == "ehlo":
                said_at = say(b"250 silent.test\r\n")
            elif verb == "rcpt" and self.stage == "rset":
                said_at = say(b"550 no\r\n")
            else:
                said_at = say(ANSWERS[verb])
            if verb == "data":
                if self.stage == "body":
                    break
                while lines.readline() != b".\r\n":
                    pass
                if self.stage == "end-of-data":
                    break
                said_at = say(b"250 taken\r\n")
        return said_at


def send_to(stage, count=1, message=None):
    servers[stage].said_at = time.monotonic()
    names = [f"u{i}@{stage}.test" for i in range(count)]
    engine.submit(make_merge(engine, f"b-{stage}", names, message=message))


def wait_event(stage, kind):
    def look():
        events = [event for event in engine.events() if event["queue"] == f"{stage}.test"]
        return events and events[-1]["type"] == kind and events[-1]
    return wait_for(look, f"{kind} of {stage}.test")


def case_connect():
    started = time.monotonic()
    send_to("connect")
    event = wait_event("connect", "TransientFailure")
    equal(event["reason"], "TEMP_NO_CONNECT", "the reason")
    check(time.monotonic() - started >= SHORT_S - 0.1, "not before its time", event)


def wait_silent(stage):
    waits = servers[stage].waits
    wait_for(lambda: waits, f"{stage}: the client hangs up")
    check(waits[0] >= SHORT_S - 0.1, f"{stage}: not before its time", waits)


def case_what_is_put_off():
    """All others are minutes: each ends by its own key."""
    stages = ("greeting", "ehlo", "mail", "rcpt", "data", "body", "end-of-data")
    big = "From: a@b.test\nSubject: big\n\n" + ("x" * 70 + "\n") * 300000
    for stage in stages:
        send_to(stage, message=big if stage == "body" else None)
    for stage in stages:
        event = wait_event(stage, "TransientFailure")
        is_sent = stage in ("body", "end-of-data")
        equal((event["reason"], event.get("possible_duplicate", False)),
              ("TEMP_AMBIGUOUS" if is_sent else "TEMP_TIMEOUT", is_sent), f"{stage}: the reason")
        wait_silent(stage)


def case_rset_and_quit():
    """Nothing waits for these answers but the connection."""
    send_to("rset", 2)
    wait_event("rset", "Bounce")
    wait_silent("rset")
    send_to("quit")
    wait_event("quit", "Delivery")
    wait_silent("quit")


def main():
    global engine
    with Place("timeouts") as place:
        routes = ""
        for stage in ("connect", *STAGES):
            servers[stage] = Silent(stage)
            keys = {f"{stage}-timeout": f"{SHORT_S}s"}
            if stage == "quit":
                keys["per_connection"] = 1  # QUIT comes at once
            routes += route(f"{stage}.test", servers[stage].port, connections=1,
                            suspend_first="1h", suspend_max="1h", retry_first="1h", **keys)
        engine = Engine(place, routes=routes).start()
        return run_all(globals())


if __name__ == "__main__":
    sys.exit(main())
