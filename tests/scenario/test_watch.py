# SPDX-License-Identifier: Apache-2.0
"""What the engine says of itself: status, metrics, healthz, systemd, progress.json, log rotation.

test_watch.py BUILD
"""
import os
import re
import shutil
import signal
import socket
import sys
import time
import urllib.request

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import (LONG_S, Engine, Place, Sink, cases_of, check, equal, free_port,  # noqa: E402
                 make_merge, read_lines, read_text, route, run_cases, send, wait_for, write)

FAST = {"retry_first": "1s", "retry_max": "1s", "retry_jitter": 0}
METRIC = re.compile(r'ramjet_[a-z0-9_]+(\{[a-z_]+="[^"]*"\})? \d+$')
PROGRESS = {"v", "id", "state", "at", "total", "accepted", "rejected", "pending", "in_flight",
            "deferred", "delivered", "bounced", "expired", "cancelled", "possible_duplicates",
            "rate_1m", "eta_s"}


def case_status():
    """Totals, rates, queue, sites with their last error."""
    with Place("watch") as place:
        sink = Sink(place)
        engine = Engine(place, routes=route("*", sink.port, **FAST) +
                        route("later.test", sink.port)).start()
        send(engine, "a", [f"u{i}@a.test" for i in range(50)] + ["rcpt550-x@a.test", "bad"],
             max_reject=1)
        engine.submit(make_merge(engine, "b", [f"rcpt451-{i}@later.test" for i in range(30)]))
        status = wait_for(lambda: (lambda s: s if s["queue"]["retry"] == 30 else None)
                          (engine.status()), "thirty wait")
        totals = status["totals"]
        wanted = {"accepted": 81, "rejected": 1, "delivered": 50, "bounced": 1, "deferred": 30,
                  "expired": 0, "cancelled": 0, "possible_duplicates": 0, "batches_done": 1,
                  "batches_failed": 0}
        equal({key: totals[key] for key in wanted}, wanted, "totals")
        equal(status["v"], 1, "version")
        equal(status["node"], "engine.test", "node")
        equal(status["workers"], 2, "workers")
        equal(status["batches"], 1, "one is under way")
        equal(status["health"]["draining"], False, "health")
        equal(status["health"]["journal_failed"], False, "health")
        equal(status["health"]["oddities"], {}, "nothing odd happened")

        def later():
            return {site["site"]: site for site in engine.status()["sites"]}.get("route:later.test")
        site = wait_for(lambda: (later() or {}).get("deferred") == 30 and later(), "the site's row")
        check(site["last_error"].startswith("451"), "its last error", site)
        wait_for(lambda: engine.status()["rate_1m"].get("accepted", 0) > 0, "rates")
        equal(engine.terminate(), 0, "exit status")


def case_metrics():
    """Prometheus text on the UNIX socket and on a loopback port, with the numbers of status."""
    with Place("watch") as place:
        sink = Sink(place)
        port = free_port()
        engine = Engine(place, routes=route("*", sink.port, **FAST),
                        extra=f'control {{ metrics = "127.0.0.1:{port}" }}\n').start()
        send(engine, "a", [f"u{i}@a.test" for i in range(20)] + ["rcpt550-x@a.test"])
        wait_for(lambda: "\nramjet_batches_done_total 1\n" in engine.get("/metrics")[1],
                 "the batch is counted")
        _, text = engine.get("/metrics")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
            equal(response.status, 200, "over TCP")
            check(response.headers["Content-Type"].startswith("text/plain; version=0.0.4"),
                  "its type", response.headers["Content-Type"])
            over_tcp = response.read().decode()
        names = {}
        for line in text.splitlines():
            if line.startswith("#"):
                check(re.match(r"# (HELP|TYPE) ramjet_\w+ .", line), "comment", line)
                continue
            check(METRIC.match(line), "line", line)
            names[line.rsplit(" ", 1)[0]] = int(line.rsplit(" ", 1)[1])
        wanted = {"ramjet_accepted_total": 21, 'ramjet_outcomes_total{outcome="delivered"}': 20,
                  'ramjet_outcomes_total{outcome="bounced"}': 1, "ramjet_batches_done_total": 1,
                  'ramjet_queue_recipients{state="retry"}': 0, "ramjet_journal_failed": 0,
                  "ramjet_batches": 0}
        equal({name: names.get(name) for name in wanted}, wanted, "values")
        equal({line.rsplit(" ", 1)[0] for line in over_tcp.splitlines()},
              {line.rsplit(" ", 1)[0] for line in text.splitlines()}, "the same names over TCP")
        typed = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
        bare = {name.split("{")[0] for name in names}
        equal(bare - typed, set(), "each has a type")
        equal(engine.terminate(), 0, "exit status")


def case_http_manners():
    with Place("watch") as place:
        engine = Engine(place).start()
        equal(engine.get("/healthz"), (200, "running\n"), "healthz")
        equal(engine.get("/nothing")[0], 404, "unknown path")
        equal(engine.get("/v1/status", "POST")[0], 405, "another method")
        path = os.path.join(engine.spool, "control.sock")
        equal(os.stat(path).st_mode & 0o777, 0o660, "mode of the socket")
        with socket.socket(socket.AF_UNIX) as client:  # garbage
            client.connect(path)
            client.sendall(b"\0\xff garbage\r\n" * 100)
        idle = []
        for _ in range(80):  # more than are served at once; none says anything
            client = socket.socket(socket.AF_UNIX)
            client.connect(path)
            idle.append(client)
        for client in idle:
            client.close()
        wait_for(engine.is_up, "it answers again")
        equal(engine.terminate(), 0, "exit status")
        check(not os.path.exists(path), "the socket is gone")


def half_requests(count, connect):
    """Each is kept open and never ends its request."""
    clients = []
    for _ in range(count):
        clients.append(connect())
        clients[-1].sendall(b"GET /heal")
    return clients


def is_closed(client):
    """In order, or by a reset: what it had said may not have been read."""
    try:
        return client.recv(1) == b""
    except ConnectionError:
        return True


def case_silent_clients_make_way():
    """However many hold connections open, who asks is answered at once, on both sockets."""
    with Place("watch") as place:
        port = free_port()
        engine = Engine(place, extra=f'control {{ metrics = "127.0.0.1:{port}" }}\n').start()

        def to_socket():
            client = socket.socket(socket.AF_UNIX)
            client.connect(os.path.join(engine.spool, "control.sock"))
            client.settimeout(LONG_S)  # with a limit it would not wait for its turn
            return client

        def to_port():
            return socket.create_connection(("127.0.0.1", port), timeout=LONG_S)
        request = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
        for connect in (to_socket, to_port):
            silent = half_requests(300, connect)
            with connect() as client:
                client.sendall(request)
                check(client.recv(4096).startswith(b"HTTP/1.1 200"), "answered beside them")
            check(is_closed(silent[0]), "the oldest has gone")
            with silent[-1] as newest:
                newest.sendall(b"thz HTTP/1.1\r\nHost: a\r\n\r\n")
                check(newest.recv(4096).startswith(b"HTTP/1.1 200"), "the newest goes on")
            for client in silent:
                client.close()
        with to_port() as scraper:
            silent = []
            for _ in range(5):
                silent += half_requests(40, to_port)
                with to_port() as last:  # taken in turn: when it is answered, so were all 40
                    last.sendall(request)
                    check(last.recv(4096).startswith(b"HTTP/1.1 200"), "answered behind them")
                scraper.sendall(request)
                answer = more = scraper.recv(4096)
                while more and b"running" not in answer:  # header and text may come apart
                    more = scraper.recv(4096)
                    answer += more
                check(b"running" in answer, "who asks now and then stays connected", answer)
            for client in silent:
                client.close()
        equal(engine.terminate(), 0, "exit status")


def case_socket_path_of_others():
    """What lies at the path of the socket and is none is left alone; so is one that is in use."""
    with Place("watch") as place:
        precious = place.join("precious.conf")
        write(precious, "keep me\n")
        engine = Engine(place, extra=f'control {{ socket = "{precious}" }}\n', name="a").spawn()
        equal(engine.process.wait(LONG_S), 1, "it does not start")
        check(f"control: socket {precious}: there is something that is no socket" in engine.words(),
              "it says why", engine.words())
        equal(read_text(precious), "keep me\n", "the file is as it was")
        shared = place.join("shared.sock")
        extra = f'control {{ socket = "{shared}" }}\n'
        with socket.socket(socket.AF_UNIX) as gone:
            gone.bind(shared)  # as a killed engine leaves it: nobody listens
        first = Engine(place, extra=extra, name="b").spawn()
        wait_for(lambda: answers(shared), "the first one has it")
        second = Engine(place, extra=extra, name="c").spawn()
        equal(second.process.wait(LONG_S), 1, "the second one does not start")
        check("another program listens there" in second.words(), "it says why", second.words())
        check(answers(shared), "the first one answers still")
        equal(first.terminate(), 0, "exit status")
        check(not os.path.exists(shared), "it is gone with its engine")


def answers(path):
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(path)
            client.settimeout(LONG_S)
            client.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
            answer = more = client.recv(4096)
            while more and b"running" not in answer:  # header and text may come apart
                more = client.recv(4096)
                answer += more
            return b"running" in answer
        except OSError:
            return False


def case_systemd():
    """READY=1 once all runs, WATCHDOG=1 and STATUS= while it does, STOPPING=1 at the end."""
    with Place("watch") as place:
        sink = Sink(place)
        name = place.join("notify")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(name)
            notify.settimeout(LONG_S)
            engine = Engine(place, routes=route("*", sink.port))
            engine.environment = {"NOTIFY_SOCKET": name}
            engine.spawn()
            first = notify.recv(4096).decode()
            check(first.startswith("READY=1"), "the first word", first)
            equal(engine.get("/healthz")[0], 200, "and it is ready")
            said = notify.recv(4096).decode()
            check("WATCHDOG=1" in said and "STATUS=" in said, "alive", said)
            send(engine, "a", ["a@b.test"])
            wait_for(lambda: "1 delivered" in notify.recv(4096).decode(), "tells what it does")
            engine.process.send_signal(signal.SIGTERM)
            words = wait_for(lambda: (lambda m: m if "STOPPING=1" in m else None)
                             (notify.recv(4096).decode()), "says that it stops")
            check("STATUS=" in words, "and why it may take a while", words)
            equal(engine.process.wait(LONG_S), 0, "exit status")


def case_progress():
    """Replaced while it runs, complete at each look, and the end is summary.json."""
    with Place("watch") as place:
        sink = Sink(place, "--latency-ms", "10")
        engine = Engine(place, routes=route("*", sink.port, connections=2, **FAST)).start()
        engine.submit(make_merge(engine, "p", [f"u{i}@p.test" for i in range(700)] + ["bad"],
                                 max_reject=1))
        seen = []

        def look():
            now = engine.progress("p")
            if now and now["state"] != "scanning" and (not seen or now != seen[-1]):
                seen.append(now)
            return engine.find("p")[0] == "done"
        wait_for(look, "it is done")
        check(len(seen) >= 2, "it moves", seen)
        for progress in seen:
            equal(PROGRESS - set(progress), set(), "members")
            equal((progress["total"], progress["accepted"], progress["rejected"]),
                  (701, 700, 1), "counts")
            # What is delivered is read behind what is pending, and may have grown meanwhile.
            check(progress["pending"] + progress["delivered"] >= 700, "nothing is missing",
                  progress)
            check(max(progress["pending"], progress["delivered"]) <= 700, "nor too much", progress)
        delivered = [progress["delivered"] for progress in seen]
        equal(delivered, sorted(delivered), "it only grows")
        summary = engine.wait_end("p").summary
        equal((summary["state"], summary["delivered"], summary["pending"]), ("done", 700, 0),
              "summary.json")
        check(engine.progress("p") is None, "progress.json did not come along")
        equal(engine.terminate(), 0, "exit status")


def case_log_rotation():
    """By size, and on SIGUSR1; no line is lost or cut."""
    with Place("watch") as place:
        sink = Sink(place)
        engine = Engine(place, routes=route("*", sink.port),
                        extra="log { size-max = 256K }\n").start()
        log = os.path.join(engine.spool, "log")
        sent = 0

        def send_some(count):
            """Few enough for one file, however many lines are written at once."""
            nonlocal sent
            send(engine, f"b{sent}", [f"u{sent + i}@a.test" for i in range(count)])
            sent += count
        for _ in range(8):
            send_some(200)
        by_size = len(os.listdir(log))
        check(by_size >= 3, "files by size", os.listdir(log))
        engine.process.send_signal(signal.SIGUSR1)

        def is_rotated():
            """With the first line behind the signal."""
            send_some(1)
            return len(os.listdir(log)) > by_size
        wait_for(is_rotated, "one more by the signal")
        equal(engine.terminate(), 0, "exit status")
        recipients = []
        for name in os.listdir(log):
            check(re.fullmatch(r"events(-\d+(-\d+)?)?\.ndjson", name), "its name", name)
            check(os.path.getsize(os.path.join(log, name)) <= 300 * 1024, "its size", name)
            recipients += [line["recipient"] for line in read_lines(os.path.join(log, name))]
        equal(len(recipients), sent, "lines")
        equal(len(set(recipients)), sent, "each once")


def case_log_removed():
    """The file, or its directory, removed or moved while it is written: said, and made anew."""
    with Place("watch") as place:
        sink = Sink(place)
        engine = Engine(place, routes=route("*", sink.port)).start()
        log = os.path.join(engine.spool, "log")
        send(engine, "a", ["a@b.test"])
        os.remove(os.path.join(log, "events.ndjson"))
        time.sleep(1.1)  # it looks once a second
        send(engine, "b", ["b@b.test"])
        equal([line["recipient"] for line in engine.events()], ["b@b.test"], "a new one")
        wait_for(lambda: "was removed while it was written" in engine.words(), "it says so")
        shutil.rmtree(log)
        time.sleep(1.1)
        send(engine, "c", ["c@b.test"])
        equal([line["recipient"] for line in engine.events()], ["c@b.test"], "a new directory")
        os.rename(log, log + ".old")
        time.sleep(1.1)
        send(engine, "d", ["d@b.test"])
        equal([line["recipient"] for line in engine.events()], ["d@b.test"], "beside the old one")
        equal(len(read_lines(os.path.join(log + ".old", "events.ndjson"))), 1, "which is whole")
        equal(engine.terminate(), 0, "exit status")


def case_inputs_removed():
    """in/new, in/ctl and the whole of in/ removed while it runs: made anew, and looked at."""
    with Place("watch") as place:
        sink = Sink(place)
        engine = Engine(place, routes=route("*", sink.port)).start()
        send(engine, "a", ["a@b.test"])
        for number, name in enumerate(("in/new", "in/ctl", "in", "pickup")):
            path = os.path.join(engine.spool, name)
            os.rename(path, place.join("gone"))  # at once: it is made anew while its parts go
            shutil.rmtree(place.join("gone"))
            wait_for(lambda p=path: os.path.isdir(p), f"{name} is there again")
            wait_for(lambda: all(os.path.isdir(os.path.join(engine.spool, "in", part))
                                 for part in ("tmp", "new", "ctl")), "and all in it")
            equal(send(engine, f"b{number}", ["b@b.test"]).counts(),
                  {"accepted": 1, "delivered": 1}, f"a batch behind {name}")
            engine.order("nobody", "pause")
            wait_for(lambda: not os.listdir(os.path.join(engine.spool, "in", "ctl")),
                     "an order is looked at")
            wait_for(lambda n=name: f"/{n}" in engine.words(), f"{name}: it says so")
        equal(engine.terminate(), 0, "exit status")


def case_no_log():
    with Place("watch") as place:
        sink = Sink(place)
        engine = Engine(place, routes=route("*", sink.port), extra="log { events = no }\n").start()
        end = send(engine, "a", ["a@b.test"])
        equal(len(end.results), 1, "results are written")
        check(not engine.events(), "events are not")
        equal(engine.terminate(), 0, "exit status")


def case_hup_and_idle():
    """SIGHUP changes nothing yet, and says so; an idle engine sleeps."""
    with Place("watch") as place:
        engine = Engine(place).start()
        engine.process.send_signal(signal.SIGHUP)
        wait_for(lambda: "restart" in engine.words(), "it says that a restart is needed")

        def ticks():
            with open(f"/proc/{engine.process.pid}/stat", encoding="ascii") as file:
                fields = file.read().rsplit(")", 1)[1].split()
            return int(fields[11]) + int(fields[12])

        def is_idle():
            """Once what belongs to its start is done, each look would tell."""
            before = ticks()
            time.sleep(2)  # what an idle engine does in that time is the question
            return ticks() - before <= 10
        wait_for(is_idle, "a twentieth of a core at most")
        equal(engine.terminate(), 0, "exit status")


if __name__ == "__main__":
    sys.exit(run_cases(cases_of(globals())))
