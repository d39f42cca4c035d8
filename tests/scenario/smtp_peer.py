# SPDX-License-Identifier: Apache-2.0
"""A small SMTP server for tests: the local part of a recipient says what is answered to RCPT.

"rcpt550-x@..." is answered 550, "rcpt451-x@..." 451, anything else 250. What was taken is in
`messages`: (sender, [recipients], bytes without dot-stuffing).
"""
import re
import socket
import socketserver
import threading


class _Session(socketserver.StreamRequestHandler):
    def say(self, text):
        self.wfile.write(text.encode() + b"\r\n")

    def handle(self):
        if self.server.peer.is_silent.is_set():
            self.rfile.read()
            return
        self.say("220 peer.test ESMTP")
        sender, recipients = None, []
        while True:
            line = self.rfile.readline()
            if not line:
                return
            verb = line.split(b" ")[0].strip().upper()
            if verb in (b"EHLO", b"HELO"):
                self.say(self.server.peer.greeting)
            elif verb == b"MAIL":
                sender, recipients = self.path(line), []
                self.say("250 2.1.0 ok")
            elif verb == b"RCPT":
                recipient = self.path(line)
                refusal = re.match(r"rcpt(\d{3})", recipient)
                if refusal:
                    code = refusal.group(1)
                    self.say(f"{code} {code[0]}.1.1 as told")
                else:
                    recipients.append(recipient)
                    self.say("250 2.1.5 ok")
            elif verb == b"DATA":
                if not recipients:
                    self.say("554 5.5.1 no recipient")
                    continue
                self.say("354 go on")
                body = self.body()
                self.server.peer.take(sender, recipients, body)
                self.say("250 2.0.0 taken")
            elif verb == b"RSET":
                sender, recipients = None, []
                self.say("250 2.0.0 ok")
            elif verb == b"QUIT":
                self.say("221 2.0.0 bye")
                return
            else:
                self.say("500 5.5.2 unknown")

    @staticmethod
    def path(line):
        return line[line.index(b"<") + 1:line.index(b">")].decode("utf-8", "replace")

    def body(self):
        lines = []
        while True:
            line = self.rfile.readline()
            if not line:
                raise ConnectionError("ended in the body")
            if line == b".\r\n":
                return b"".join(lines)
            lines.append(line[1:] if line.startswith(b".") else line)


class Peer(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    request_queue_size = 128
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Session)
        self.peer = self
        self.port = self.server_address[1]
        self.messages = []
        self.greeting = "250-peer.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 100000000"
        self.lock = threading.Lock()
        self.is_silent = threading.Event()
        self.gate = threading.Event()
        self.gate.set()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def take(self, sender, recipients, body):
        self.gate.wait()
        with self.lock:
            self.messages.append((sender, recipients, body))

    def hold(self):
        """Messages are not answered until release()."""
        self.gate.clear()

    def release(self):
        self.gate.set()

    def handle_error(self, request, client_address):
        pass  # connections that end badly are part of the tests

    def be_silent(self):
        """New connections are taken and not greeted."""
        self.is_silent.set()

    def stop(self):
        self.release()
        self.shutdown()
        self.socket.shutdown(socket.SHUT_RDWR)
        self.server_close()
