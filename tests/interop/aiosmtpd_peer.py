#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""aiosmtpd that writes down what it takes: aiosmtpd_peer.py RECORD. Prints its port.

For the python3 that has python3-aiosmtpd, which may be another one than that of the tests. One line
of JSON a message: {"from":..,"to":[..],"sha256":..,"mail_options":[..]}.
"""
import hashlib
import json
import socket
import sys

from aiosmtpd.controller import Controller


class Handler:
    def __init__(self, path):
        self.path = path

    async def handle_DATA(self, server, session, envelope):  # noqa: N802
        line = json.dumps({"from": envelope.mail_from, "to": envelope.rcpt_tos,
                           "sha256": hashlib.sha256(envelope.original_content).hexdigest(),
                           "mail_options": envelope.mail_options})
        with open(self.path, "a", encoding="utf-8") as record:
            record.write(line + "\n")
        return "250 taken"


class Held(Controller):
    """On a socket that is there: a port that was only looked up may be another's by then."""

    def _create_server(self):
        return self.loop.create_server(self._factory_invoker, sock=self.listener)


def main():
    # Port 0 would do, but the controller connects to it to see whether it runs.
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    controller = Held(Handler(sys.argv[1]), hostname="127.0.0.1", port=port, ready_timeout=600,
                      data_size_limit=10 * 1024 * 1024, enable_SMTPUTF8="utf8" in sys.argv)
    controller.listener = listener
    controller.start()
    print(port, flush=True)
    sys.stdin.read()  # until who started us goes
    controller.stop()


main()
