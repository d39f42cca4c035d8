# SPDX-License-Identifier: Apache-2.0
"""What `./dev install` installs, under a systemd that runs: the unit's restrictions hold, and the
engine must live with them.

A container boots this machine's own system, with the installed files laid over it, and without any
of this machine's services. Skipped where none can be booted.

test_boot.py BUILD
"""
import os
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import (LONG_S, Late, Place, Sink, build_root, cases_of, check, equal,  # noqa: E402
                 route, run_cases, skip, wait_for, write)

PROGRAM = "/usr/bin/ramjet"
WRITER = "nobody"
TARGET = """[Unit]
Description=Nothing but what the engine's unit asks for
Requires=sysinit.target
After=sysinit.target
AllowIsolate=yes
"""

STRICT = """[Service]
Type=oneshot
RestrictSUIDSGID=yes
ExecStart=/usr/bin/ramjet check
"""

machine = sink = None


def run(*words, **environment):
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=500,
                          env=dict(os.environ, **environment))
    return done.returncode, done.stdout + done.stderr


def install(root):
    """By the command for people; what it builds is kept beside the tests' own build."""
    return run(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "dev"),
               "install", DESTDIR=root, RAMJET_BUILD=build_root().removesuffix("-all"))


class Machine:
    """A booted container; its files lie in memory, above this machine's."""

    def __init__(self, place):
        self.place = place
        self.memory = place.join("memory")
        self.root = place.join("root")
        self.upper = os.path.join(self.memory, "upper")
        self.process = None
        self.leader = None

    def mount(self):
        """False: this machine can't."""
        os.mkdir(self.memory)
        os.mkdir(self.root)
        if run("mount", "-t", "tmpfs", "tmpfs", self.memory)[0] != 0:
            return False
        os.mkdir(self.upper)
        os.mkdir(os.path.join(self.memory, "work"))
        # The spool is on a disk: what lies over another file system has other rules.
        os.makedirs(self.place.join("spool"))
        options = f"lowerdir=/,upperdir={self.upper},workdir={self.memory}/work"
        return run("mount", "-t", "overlay", "overlay", "-o", options, self.root)[0] == 0

    def boot(self):
        """False: this machine boots none."""
        self.process = self.place.run(
            ["systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit",
             "--resolv-conf=off", "--console=pipe", "--machine=ramjet-boot", "-D", self.root,
             f"--bind={self.place.join('spool')}:/var/spool/ramjet", "systemd.unit=only.target"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

        def is_up():
            if self.process.poll() is not None:
                raise Late(self.process.stderr.read().decode(errors="replace"))
            self.find_leader()
            return self.leader and self.run("systemctl", "is-active", "only.target")[0] == 0
        try:
            return wait_for(is_up, "a container is booted")
        except Late as late:
            print(late)
            return False

    def find_leader(self):
        path = f"/proc/{self.process.pid}/task/{self.process.pid}/children"
        with open(path, encoding="ascii") as file:
            children = file.read().split()
        self.leader = children[0] if children else None

    def run(self, *words):
        return run("nsenter", "-t", self.leader, "-m", "-u", "-i", "-n", "-p", "-C", "--", "env",
                   "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", *words)

    def end(self):
        if self.process and self.process.poll() is None and self.leader:
            self.run("systemctl", "poweroff")
            try:
                self.process.wait(LONG_S)
            except subprocess.TimeoutExpired:
                pass  # the place ends it
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for path in (self.root, self.memory):
            run("umount", "-l", path)


def of_unit(name):
    return machine.run("systemctl", "show", "ramjet", f"--property={name}", "--value")[1].strip()


def journal(unit="ramjet"):
    return machine.run("journalctl", "-u", unit, "--no-pager")[1]


def submit(identity):
    """As a user who may submit."""
    return machine.run("setpriv", f"--reuid={WRITER}", "--clear-groups", "--regid=ramjet-submit",
                       "--", PROGRAM, "submit", "--id", identity, "--from", "news@example.net",
                       "--to", f"{identity}@example.org", "--subject", "a subject", "--text",
                       "a text", "--wait", "--timeout", str(LONG_S))


def case_a_unit_that_forbids_too_much():
    """The check before the start says what it is."""
    code, _ = machine.run("systemctl", "start", "strict")
    equal(code, 1, "the check fails")
    words = journal("strict")
    check("openat2 cannot be used: Function not implemented" in words, "its words", words)


def case_first_start():
    """User and folders as the installed files say; ready is when the engine says so."""
    code, words = machine.run("systemd-sysusers")
    equal(code, 0, f"systemd-sysusers: {words}")
    code, words = machine.run("systemd-tmpfiles", "--create", "ramjet.conf")
    equal(code, 0, f"systemd-tmpfiles: {words}")
    code, words = machine.run("systemctl", "start", "ramjet")
    if not equal(code, 0, "systemctl start"):
        print(words, journal())
    equal(of_unit("ActiveState"), "active", "it runs")
    check("ready after" in journal(), "its words are in the journal", journal())


def case_mail():
    code, words = submit("first")
    equal(code, 0, f"a batch of another user: {words}")
    equal(sink.taken(), {"first@example.org": 1}, "it has arrived")
    wait_for(lambda: "1 delivered" in of_unit("StatusText"), "it says how it is")
    code, words = machine.run(PROGRAM, "status")
    equal(code, 0, f"status: {words}")


def case_killed():
    """It is started again, and goes on."""
    before = of_unit("MainPID")
    equal(machine.run("sh", "-c", f"kill -9 {before}")[0], 0, "a kill")
    wait_for(lambda: of_unit("ActiveState") == "active" and of_unit("MainPID") != before,
             "it runs again")
    code, words = submit("second")
    equal(code, 0, f"a batch behind the kill: {words}")


def case_stopped():
    code, words = machine.run("systemctl", "stop", "ramjet")
    equal(code, 0, f"systemctl stop: {words}")
    equal((of_unit("ActiveState"), of_unit("Result")), ("inactive", "success"), "its end")
    check("ended in order" in journal(), "an orderly one", journal())


def main():
    global machine, sink
    missing = [name for name in ("systemd-nspawn", "nsenter", "setpriv") if not shutil.which(name)]
    if missing or os.geteuid() != 0:
        skip(f"booting a container takes root, systemd-container and util-linux ({missing})")
    with Place("boot") as place:
        machine = Machine(place)
        try:
            if not machine.mount():
                skip("this machine lays no file system over its own")
            code, words = install(machine.root)
            if not equal(code, 0, f"./dev install: {words}"):
                return 1
            sink = Sink(place)
            write(os.path.join(machine.root, "etc/ramjet/ramjet.conf"),
                  'node { hostname = "engine.test" workers = 2 }\n'
                  'spool { path = "/var/spool/ramjet" free-space-min = 1M }\n'
                  'limits { sessions = 100 recipients = 10000 }\n' + route("*", sink.port))
            for name, text in (("only.target", TARGET), ("strict.service", STRICT)):
                write(os.path.join(machine.root, "etc/systemd/system", name), text)
            if not machine.boot():
                skip("this machine boots no container")
            return run_cases(cases_of(globals()))
        finally:
            machine.end()


if __name__ == "__main__":
    sys.exit(main())
