# SPDX-License-Identifier: Apache-2.0
"""`meson install` into a root of its own: what is there, and whether it fits together.

test_install.py BUILD
"""
import os
import re
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import (Place, build_root, cases_of, check, equal, read_text,  # noqa: E402
                 run_cases, write)

root = prefix = place = None


def run(*words):
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    return done.returncode, done.stdout + done.stderr


def install():
    return run("meson", "install", "--no-rebuild", "-C", build_root(), "--destdir", root)


def installed(*path):
    return os.path.join(prefix, *path)


def unit():
    return read_text(installed("lib", "systemd", "system", "ramjet.service"))


def case_what_is_there():
    for path in ("bin/ramjet", "lib/systemd/system/ramjet.service", "lib/sysusers.d/ramjet.conf",
                 "lib/tmpfiles.d/ramjet.conf", "share/doc/ramjet/formats/SPOOL.md",
                 "share/doc/ramjet/examples/ramjet.conf"):
        check(os.path.isfile(installed(path)), f"{path} is installed")
    check(os.path.isfile(os.path.join(root, "etc/ramjet/ramjet.conf")), "so is /etc")


def case_the_manual():
    """As pages, or as the text they are made of."""
    for page in ("ramjet.1", "ramjet.conf.5", "ramjet-batch.5", "ramjet-log.5"):
        path = installed("share", "man", "man" + page[-1], page)
        text = installed("share", "doc", "ramjet", "man", page + ".md")
        check(os.path.isfile(path) != os.path.isfile(text), f"{page} is installed, in one form")
        if os.path.isfile(path):
            first = read_text(path).split("\n")[1]
            check(re.match(rf'\.TH "{page[:-2]}" "{page[-1]}"', first), f"head of {page}", first)


def case_the_program_runs():
    code, words = run(installed("bin", "ramjet"), "version")
    equal(code, 0, "ramjet version")
    check("ramjet" in words.lower(), "its words", words)


def case_the_unit():
    """It names the program that was installed, and systemd finds no fault with it."""
    text = unit()
    check("@" not in text.replace("@system-service", "").replace("@aio", ""), "all is filled in",
          text)
    programs = re.findall(r"^ExecStart\w*=(\S+)", text, re.M)
    wanted = os.path.join("/", os.path.relpath(installed("bin", "ramjet"), root))
    equal(set(programs), {wanted}, "the program")
    check("\nTimeoutStartSec=infinity\n" in text, "a long recovery is waited for", text)
    check("\nStartLimitIntervalSec=0\n" in text, "no number of failures is the last", text)
    check(re.search(r"^RestartSec=[1-9]", text, re.M), "and there is a pause between them", text)
    if not shutil.which("systemd-analyze"):
        return
    path = place.join("ramjet.service")
    text = text.replace(wanted, installed("bin", "ramjet"))
    write(path, re.sub(r"^(User|Group)=.*\n", "", text, flags=re.M))
    code, words = run("systemd-analyze", "verify", "--man=no", path)
    mine = [line for line in words.splitlines() if "ramjet" in line]
    equal((code, mine), (0, []), "systemd-analyze verify")


def case_users_and_directories():
    """The unit's user is made, and owns what it writes to."""
    users = read_text(installed("lib", "sysusers.d", "ramjet.conf"))
    places = read_text(installed("lib", "tmpfiles.d", "ramjet.conf"))
    user = re.search(r"^User=(\S+)", unit(), re.M).group(1)
    check(re.search(rf"^u {user} ", users, re.M), "the user", users)
    check(re.search(rf"^d /var/spool/ramjet +\d+ {user} ", places, re.M), "the spool", places)
    check("/var/spool/ramjet" in unit(), "the unit may write there", unit())
    if shutil.which("systemd-tmpfiles") and shutil.which("systemd-sysusers") and not os.geteuid():
        fake = place.join("fake")
        os.makedirs(os.path.join(fake, "etc"))
        code, words = run("systemd-sysusers", f"--root={fake}",
                          installed("lib", "sysusers.d", "ramjet.conf"))
        equal(code, 0, f"systemd-sysusers takes it: {words}")
        code, words = run("systemd-tmpfiles", "--create", f"--root={fake}",
                          installed("lib", "tmpfiles.d", "ramjet.conf"))
        equal(code, 0, f"systemd-tmpfiles takes it: {words}")
        for name, wanted in (("in/new", 0o2770), ("pickup", 0o2770), ("done", 0o2750)):
            mode = os.stat(os.path.join(fake, "var/spool/ramjet", name)).st_mode
            equal(oct(mode & 0o7777), oct(wanted), f"mode of {name}")


def case_a_configuration_is_kept():
    path = os.path.join(root, "etc/ramjet/ramjet.conf")
    code, words = run(installed("bin", "ramjet"), "check", "-c", path)
    check("error" not in words, f"the one that comes along has no faults ({code})", words)
    write(path, "# mine\n")
    equal(install()[0], 0, "installed again")
    equal(read_text(path), "# mine\n", "an operator's own stays")


def main():
    global root, prefix, place
    with Place("install") as place:
        root = place.join("root")
        code, words = install()
        if not equal(code, 0, "meson install"):
            print(words)
            return 1
        prefix = root + next(line for line in words.splitlines()
                             if line.endswith("/bin")).split(root)[1][:-len("/bin")]
        return run_cases(cases_of(globals()))


if __name__ == "__main__":
    sys.exit(main())
