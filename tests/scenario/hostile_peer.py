# SPDX-License-Identifier: Apache-2.0
"""Servers that break the protocol, each in one way.

A behaviour is a function of a connected socket. It plays as much of a session as it wants to;
when it returns, the connection is closed. A peer counts how often it said 2xx to an end of data
that it was asked about: nobody else may be called delivered.
"""
import socket
import struct
import threading
import time

HELLO = b"250-bad.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 100000000\r\n"
GREETING = b"220 bad.test ESMTP\r\n"
STEPS = ("connect", "greeting", "ehlo", "mail", "rcpt", "data", "body", "dot")
STALL_S = 30  # longer than any limit that the tests give the engine


class Talk:
    """One connection, as the server sees it."""

    def __init__(self, connection, peer):
        self.socket = connection
        self.peer = peer
        self.file = connection.makefile("rb")

    def say(self, data):
        self.socket.sendall(data)

    def until(self, step):
        """Plays a good server up to the step: the client waits for the answer to it then. At
        "body" 354 is said and nothing read yet."""
        at = STEPS.index(step)
        if at >= 1:
            self.say(GREETING if at > 1 else b"")
        if at >= 2:
            self.line()
        if at >= 3:
            self.say(HELLO)
            self.line()
        if at >= 4:
            self.say(b"250 ok\r\n")
            self.line()
        if at >= 5:
            self.say(b"250 ok\r\n")
            self.line()
        if at >= 6:
            self.say(b"354 go on\r\n")
        if at >= 7:
            while self.line() != b".\r\n":
                pass

    def line(self):
        line = self.file.readline()
        if not line:
            raise ConnectionError("the client is gone")
        return line

    def taken(self):
        self.peer.count_taken()
        self.say(b"250 taken\r\n")

    def stall(self):
        """Until the client has closed."""
        self.socket.settimeout(STALL_S)
        while self.socket.recv(65536):
            pass

    def reset(self):
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class Peer:
    """A behaviour on a port of its own."""

    def __init__(self, behave, receive_buffer=0):
        self.behave = behave
        self.taken = 0
        self.connections = 0
        self.lock = threading.Lock()
        self.listener = socket.socket()
        if receive_buffer:
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(1024)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def count_taken(self):
        with self.lock:
            self.taken += 1

    def serve(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self.talk, args=(connection,), daemon=True).start()

    def talk(self, connection):
        with connection:
            talk = Talk(connection, self)
            try:
                self.behave(talk)
            except OSError:
                pass
            finally:
                talk.file.close()

    def stop(self):
        self.listener.close()


def stalls_at(step):
    def behave(talk):
        talk.until(step)
        talk.stall()
    return behave


def closes_at(step):
    return lambda talk: talk.until(step)


def resets_at(step):
    def behave(talk):
        talk.until(step)
        talk.reset()
    return behave


def says_at(step, data, times=1):
    """And then waits for the client to close. At "body" in one piece with the 354: a 250 that comes
    behind it may find all of a small message sent, and is its answer."""
    def behave(talk):
        talk.until("data" if step == "body" else step)
        if step == "dot" and data.startswith(b"250 "):
            talk.peer.count_taken()
        go_on = b"354 go on\r\n" if step == "body" else b""
        for number in range(times):
            talk.say(data if number > 0 else go_on + data)
        talk.stall()
    return behave


def dribbles_at(step, data):
    def behave(talk):
        talk.until(step)
        for byte in data * 1000:
            talk.say(bytes([byte]))
            time.sleep(0.2)
    return behave


def talks_after_quit(talk):
    """Takes one message, and answers QUIT without an end."""
    talk.until("dot")
    talk.taken()
    while not talk.line().startswith(b"QUIT"):
        pass
    while True:
        talk.say(b"250 2.0.0 ok\r\n" * 1000)


def talks_without_reading(talk):
    """Guesses when an answer is due, and never looks."""
    say_slowly(talk, GREETING)
    say_slowly(talk, HELLO)
    for _ in range(50):
        say_slowly(talk, b"250 ok\r\n250 ok\r\n354 go on\r\n")
        talk.peer.count_taken()
        say_slowly(talk, b"250 taken\r\n")
    say_slowly(talk, b"421 enough\r\n")
    time.sleep(STALL_S)


def say_slowly(talk, data):
    talk.say(data)
    time.sleep(0.02)


def never_reads(talk):
    talk.until("body")
    time.sleep(STALL_S)
