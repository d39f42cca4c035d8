# SPDX-License-Identifier: Apache-2.0
"""An SMTP server that takes everything and counts connections.

One is counted out when it is told QUIT, before that is answered: a client that opens the next one
only when the last is closed never has more than its limit here.
"""
import asyncio
import threading


class Counter:
    """Runs until stop(); read its counts whenever you like."""

    def __init__(self, latency_s=0.005, host="127.0.0.1", port=0, held_until=0):
        """held_until: no message is answered before so many connections were open at once."""
        self.latency_s = latency_s
        self.held_until = held_until
        self.at = host, port
        self.open = self.peak = self.connections = self.messages = 0
        self.each = []  # messages of each connection
        self.loop = asyncio.new_event_loop()
        started = threading.Event()
        threading.Thread(target=self.serve, args=(started,), daemon=True).start()
        started.wait()

    def serve(self, started):
        asyncio.set_event_loop(self.loop)
        server = self.loop.run_until_complete(
            asyncio.start_server(self.session, *self.at, backlog=1024))
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        self.loop.run_forever()

    async def session(self, reader, writer):
        self.connections += 1
        self.open += 1
        self.peak = max(self.peak, self.open)
        counted = [1, 0]
        try:
            writer.write(b"220 counter\r\n")
            await self.talk(reader, writer, counted)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        self.open -= counted[0]
        self.each.append(counted[1])
        writer.close()

    async def talk(self, reader, writer, counted):
        while True:
            verb = (await reader.readuntil(b"\n"))[:4].upper()
            if verb == b"DATA":
                writer.write(b"354 go on\r\n")
                await reader.readuntil(b"\r\n.\r\n")
                counted[1] += 1
                self.messages += 1
                await asyncio.sleep(self.latency_s)
                while self.peak < self.held_until:
                    await asyncio.sleep(self.latency_s)
            if verb == b"QUIT":
                self.open -= counted[0]
                counted[0] = 0
            writer.write(b"250-counter\r\n250 PIPELINING\r\n" if verb == b"EHLO" else
                         b"221 bye\r\n" if verb == b"QUIT" else b"250 ok\r\n")
            if verb == b"QUIT":
                return

    def stop(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
