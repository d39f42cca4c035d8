# SPDX-License-Identifier: Apache-2.0
"""The rights as dist/ installs them: the engine is one user, who submits another.

test_rights.py BUILD. Users exist by number only; root is needed to become them.
"""
import os
import re
import stat
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import (SAME, Engine, Place, Sink, cases_of, check, equal, finish, program,  # noqa: E402
                 read_text, route, run_cases, skip, wait_for, write)

ENGINE, WRITER, STRANGER, SUBMIT_GROUP = 65001, 65003, 65004, 65002
GROUPS = {"ramjet": ENGINE, "ramjet-submit": SUBMIT_GROUP}
DIST = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "dist")
MAIL = "X-Sender: a@sender.test\r\nX-Receiver: {0}@rights.test\r\nSubject: x\r\n\r\nhi\r\n"
place = sink = engine = None


def make_spool(root):
    """As systemd-tmpfiles would, by the numbers of our users."""
    for line in read_text(os.path.join(DIST, "ramjet.tmpfiles")).splitlines():
        if not line.startswith("d "):
            continue
        _, path, mode, user, group, _ = line.split()
        path = path.replace("/var/spool/ramjet", root)
        equal(user, "ramjet", f"owner of {path}")
        os.mkdir(path)
        os.chown(path, ENGINE, GROUPS[group])
        os.chmod(path, int(mode, 8))


def unit_umask():
    text = read_text(os.path.join(DIST, "ramjet.service.in"))
    return int(re.search(r"^UMask=(\d+)$", text, re.M).group(1), 8)


def become(user, groups, umask):
    def change():
        os.umask(umask)
        os.setgroups(groups)
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    return change


def run_as(user, groups, umask, *words):
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60,
                          preexec_fn=become(user, groups, umask), cwd="/")
    return done.returncode, done.stdout, done.stderr


def writer(umask, *words):
    return run_as(WRITER, [SUBMIT_GROUP], umask, *words)


def submit_words(name, *more):
    return (program("engine", "ramjet"), "submit", "--spool", engine.spool, *more,
            "--id", name, "--from", "a@sender.test", "--to", f"{name}@rights.test",
            "--subject", "s", "--text", "t")


def arrives(name):
    wait_for(lambda: f"{name}@rights.test" in sink.taken(), f"{name} arrives")


def case_submit_with_any_umask():
    for umask in (0o002, 0o022, 0o077):
        name = f"umask-{umask:03o}"
        code, out, err = writer(umask, *submit_words(name, "--wait", "--timeout", "30s"))
        equal((code, err), (0, ""), f"submit --wait with umask {umask:03o}: {out}")
        equal(sink.taken().get(f"{name}@rights.test"), 1, f"{name} is sent")


def case_a_writer_reads_what_became_of_it():
    equal(writer(0o022, *submit_words("mine", "--wait"))[0], 0, "submitted, waited for")
    _, path = engine.find("mine")
    for name in ("summary.json", "results.ndjson"):
        code, out, err = writer(0o022, "cat", os.path.join(path, name))
        check(code == 0 and out, f"{name} can be read", err)
    for name in ("done", "active", "hold", "failed", "badmail"):
        code, _, err = writer(0o022, "ls", os.path.join(engine.spool, name))
        equal((code, err), (0, ""), f"{name}/ can be read")
    code, _, _ = run_as(STRANGER, [], 0o022, "cat", os.path.join(path, "results.ndjson"))
    check(code != 0, "others than writers read nothing")


def case_a_writer_changes_nothing_that_is_the_engines():
    equal(writer(0o022, *submit_words("done-with", "--wait"))[0], 0, "submitted, waited for")
    _, path = engine.find("done-with")
    day = os.path.dirname(path)
    equal(stat.S_IMODE(os.stat(day).st_mode) & 0o027, 0, "done/DATE is the engine's to change")
    for words in (("mv", path, path + ".mine"), ("touch", os.path.join(day, "x")),
                  ("sh", "-c", f"echo x >> {path}/results.ndjson"),
                  ("ls", os.path.join(engine.spool, "journal")),
                  ("ls", os.path.join(engine.spool, "log"))):
        check(writer(0o022, *words)[0] != 0, f"{words} is refused")


def case_pickup_of_another_user():
    path = os.path.join(engine.spool, "pickup", "other.eml")
    source = place.join("other.eml")
    write(source, MAIL.format("other"))
    os.chmod(source, 0o644)
    equal(writer(0o022, "cp", source, path)[0], 0, "written")
    arrives("other")
    wait_for(lambda: not os.path.exists(path), "the original goes")


def case_pickup_of_what_cannot_be_read():
    path = os.path.join(engine.spool, "pickup", "closed.eml")
    bad = os.path.join(engine.spool, "badmail", "closed.eml.bad")
    source = place.join("closed.eml")
    write(source, MAIL.format("closed"))
    os.chmod(source, 0o644)
    equal(writer(0o077, "sh", "-c", f"cat {source} > {path}")[0], 0, "written")
    wait_for(lambda: os.path.exists(bad), "it is put aside")
    code, words, _ = writer(0o022, "cat", bad + ".reason")
    check(code == 0 and "may not read" in words and "chmod" in words, "the reason is told", words)


def by_hand(name, umask):
    """mkdir, write, rename: as a shell script does it."""
    tmp, new = (os.path.join(engine.spool, "in", where, f"{name}.batch") for where in
                ("tmp", "new"))
    script = f"""mkdir {tmp} && cd {tmp} && cat {place.join("m.eml")} > message.eml &&
        printf '{{"v":1,"from":"a@sender.test"}}' > batch.json &&
        printf '{{"to":"{name}@rights.test"}}\n' > recipients.ndjson && mv {tmp} {new}"""
    write(place.join("m.eml"), SAME)
    os.chmod(place.join("m.eml"), 0o644)
    return writer(umask, "sh", "-c", script)


def case_by_hand_with_the_groups_rights():
    equal(by_hand("hand-007", 0o007)[0], 0, "submitted by hand")
    arrives("hand-007")
    equal(engine.wait_end("hand-007").place, "done", "it ends")


def case_by_hand_without_them():
    """The engine may not move the directory: who runs it is told, with the remedy."""
    equal(by_hand("hand-022", 0o022)[0], 0, "submitted by hand")
    wait_for(lambda: "in/new/hand-022.batch" in engine.words(), "it is told")
    line = [line for line in engine.words().splitlines() if "hand-022" in line][0]
    check("chmod" in line and "umask 0007" in line, "with the remedy", line)
    equal(engine.words().count("hand-022"), 1, "once")
    equal(writer(0o022, *submit_words("behind", "--wait"))[0], 0, "others go on")


def case_orders_of_a_writer():
    order = os.path.join(engine.spool, "in", "ctl", "mine.pause")
    equal(writer(0o022, "touch", order)[0], 0, "ordered")
    wait_for(lambda: not os.path.exists(order), "the engine takes it")


def case_who_is_not_in_the_group():
    code, out, err = run_as(STRANGER, [], 0o022, *submit_words("stranger"))
    equal((code, out), (1, ""), "is refused")
    check("in/tmp" in err and "usermod" in err and "ramjet-submit" in err, "with the remedy", err)


def main():
    global place, sink, engine
    if os.geteuid() != 0:
        skip("only root can become other users")
    os.umask(0o022)
    with Place("rights") as place:
        os.chmod(place.path, 0o755)
        sink = Sink(place)
        make_spool(place.join("engine.spool"))
        engine = Engine(place, routes=route("*", sink.port))
        as_engine = ("setpriv", f"--reuid={ENGINE}", f"--regid={ENGINE}",
                     f"--groups={ENGINE},{SUBMIT_GROUP}")
        engine.start(("sh", "-c", f'umask {unit_umask():03o}; exec "$@"', "sh", *as_engine))
        run_cases(cases_of(globals()))
        equal(engine.terminate(), 0, "the engine ends well")
        return finish()


if __name__ == "__main__":
    sys.exit(main())
