# SPDX-License-Identifier: Apache-2.0
"""The programs of bench/ as objects: ramjet-sink, ramjet-limit, ramjet-feed."""

import json
import os
import select
import signal
import subprocess


class BenchError(Exception):
    """What a person can act on; run.py prints it without a traceback."""


def _line(process, timeout_s, what):
    ready, _, _ = select.select([process.stdout], [], [], timeout_s)
    line = process.stdout.readline() if ready else ""
    if not line:
        process.kill()
        raise BenchError(f"{what}: no answer within {timeout_s} s")
    return line


class Sink:
    """A running sink. Options are those of ramjet-sink without their dashes: latency_ms=200."""

    def __init__(self, build, **options):
        command = [os.path.join(build, "bench", "ramjet-sink"), "--json"]
        for name, value in options.items():
            option = "--" + name.replace("_", "-")
            for item in value if isinstance(value, list) else [value]:
                if item is True:
                    command.append(option)
                elif item is not False and item is not None:
                    command += [option, str(item)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, bufsize=1)
        self.address = _line(self.process, 10, "ramjet-sink").removeprefix("listening on ").strip()
        self.host, self.port = self.address.rsplit(":", 1)

    def totals(self):
        self.process.send_signal(signal.SIGUSR1)
        return json.loads(_line(self.process, 10, "ramjet-sink"))

    def stop(self):
        """Ends the sink; its totals."""
        self.process.send_signal(signal.SIGTERM)
        output, _ = self.process.communicate(timeout=20)
        return json.loads(output.splitlines()[-1])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def limit(build, to, messages, size, connections, threads, raw=False, seconds=60, cores=None):
    command = [os.path.join(build, "bench", "ramjet-limit"), "--json", "--to", to]
    command += ["--messages", str(messages), "--size", str(size), "--connections", str(connections)]
    command += ["--threads", str(threads), "--seconds", str(seconds)]
    command += ["--raw"] if raw else []
    command += ["--cores", cores] if cores else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchError(f"ramjet-limit failed: {done.stderr.strip()}")
    return json.loads(done.stdout)


def wheel(build, recipients, threads):
    """Deferrals in and out of the retry wheel, alone."""
    command = [os.path.join(build, "bench", "ramjet-wheel"), "--json", "--recipients",
               str(recipients), "--threads", str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchError(f"ramjet-wheel failed: {done.stderr.strip()} {done.stdout.strip()}")
    return json.loads(done.stdout)


def feed(build, spool, batch, recipients, **options):
    """Makes a batch and leaves it in in/tmp; its path."""
    command = [os.path.join(build, "bench", "ramjet-feed"), "--out", spool, "--stage"]
    command += ["--batch", batch, "--recipients", str(recipients)]
    for name, value in options.items():
        option = "--" + name.replace("_", "-")
        command += [option] if value is True else [option, str(value)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchError(f"ramjet-feed failed: {done.stderr.strip()}")
    return done.stdout.strip()
