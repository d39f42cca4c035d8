# SPDX-License-Identifier: Apache-2.0
"""What servers answer, and what becomes of it: results.ndjson, events.ndjson, summary.json.

test_outcomes.py BUILD. The sink is told by the recipients' addresses what to do
(bench/sink_script.h).
"""
import os
import re
import socket
import sys
import threading

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import (EACH, SAME, Engine, Place, Sink, check, equal, free_port, make_merge,  # noqa: E402
                 read_lines, route, run_all, send, sha256, soon, wait_for)
from smtp_peer import Peer  # noqa: E402

FAST = {"retry_first": "1s", "retry_max": "2s", "retry_jitter": 0, "suspend_first": "1s",
        "suspend_max": "1s", "expire": "60s"}

# Local part, type of the last event, reason, code, command of the last event, events in all.
TABLE = [
    ("plain", "Delivery", "DELIVERED", 250, "END OF DATA", 1),
    ("rcpt550-a", "Bounce", "PERM_REPLY", 550, "RCPT TO", 1),
    ("rcpt550_5.1.1-a", "Bounce", "PERM_REPLY", 550, "RCPT TO", 1),
    ("rcpt599-a", "Bounce", "PERM_REPLY", 599, "RCPT TO", 1),
    ("rcpt251-a", "Delivery", "DELIVERED", 250, "END OF DATA", 1),
    ("rcpt299-a", "Delivery", "DELIVERED", 250, "END OF DATA", 1),
    ("rcpt451x1-a", "Delivery", "DELIVERED", 250, "END OF DATA", 2),
    ("rcpt451_4.2.1x2-a", "Delivery", "DELIVERED", 250, "END OF DATA", 3),
    ("rcpt421x1-a", "Delivery", "DELIVERED", 250, "END OF DATA", 2),
    ("rcpt452x1-a", "Delivery", "DELIVERED", 250, "END OF DATA", 2),
    ("rcpt552-a", "Bounce", "PERM_REPLY", 552, "RCPT TO", 1),
    ("data451x1-a", "Delivery", "DELIVERED", 250, "END OF DATA", 2),
    ("data554-a", "Bounce", "PERM_REPLY", 554, "DATA", 1),
    ("data503x1-a", "Delivery", "DELIVERED", 250, "END OF DATA", 2),
    ("dot451x1-a", "Delivery", "DELIVERED", 250, "END OF DATA", 2),
    ("dot550-a", "Bounce", "PERM_REPLY", 550, "END OF DATA", 1),
    ("dot552_5.2.2-a", "Bounce", "PERM_REPLY", 552, "END OF DATA", 1),
    ("dot250-a", "Delivery", "DELIVERED", 250, "END OF DATA", 1),
    ("slow100-a", "Delivery", "DELIVERED", 250, "END OF DATA", 1),
]
CLASSES = {"Delivery": "delivered", "Bounce": "bounced", "Expiration": "expired",
           "AdminBounce": "cancelled"}
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")

MUTE = {"rcpt": "rcpt", "data": "data", "dot": "end_of_data"}

place = sink = engine = holding = None


def events_of(batch):
    events = {}
    for event in engine.events():
        if event.get("batch") == batch:
            events.setdefault(event["recipient"], []).append(event)
    return events


def cancelled_when_tried(batch, recipients, times=1):
    """The End of a batch that never gets through: cancelled once each was put off so often."""
    engine.submit(make_merge(engine, batch, recipients))

    def put_off():
        events = events_of(batch)
        return all(len(events.get(name, [])) >= times for name in recipients)
    wait_for(put_off, f"each of {batch} was put off")
    engine.order(batch, "cancel")
    end = engine.wait_end(batch)
    equal(end.counts(), {"accepted": len(recipients), "cancelled": len(recipients)},
          f"nobody of {batch} gets through")
    return end


def case_each_answer_lands_right():
    """One batch of all; A5, A12, A15, A16, A17."""
    names = [row[0] for row in TABLE]
    end = send(engine, "answers", [f"{name}@d{i}.test" for i, name in enumerate(names)])
    equal(end.place, "done", "the batch is done")
    events = events_of("answers")
    results = {line["recipient"]: line for line in end.results}
    equal(len(end.results), len(TABLE), "one result a recipient")
    for line, (name, kind, reason, code, command, count) in enumerate(TABLE, 1):
        address = f"{name}@d{line - 1}.test"
        mine = events.get(address, [])
        last = mine[-1] if mine else {}
        response = last.get("response", {})
        got = (last.get("type"), last.get("reason"), response.get("code"),
               response.get("command"))
        equal(got, (kind, reason, code, command), f"last event of {name}")
        equal(len(mine), count, f"events of {name}")
        equal([event.get("num_attempts") for event in mine], list(range(1, len(mine) + 1)),
              f"attempts of {name} count up")
        equal(last.get("line"), line, f"line of {name}")
        equal(results.get(address), last, f"result of {name} is its last event")
        check(all(event["type"] == "TransientFailure" for event in mine[:-1]),
              f"all but the last event of {name} are deferrals", mine)
    counts = {"accepted": len(TABLE)}
    for row in TABLE:
        counts[CLASSES[row[1]]] = counts.get(CLASSES[row[1]], 0) + 1
    equal(end.counts(), counts, "summary.json agrees")
    taken = sink.taken()
    for line, (name, kind, *_) in enumerate(TABLE):
        equal(taken.get(f"{name}@d{line}.test", 0), 1 if kind == "Delivery" else 0,
              f"the sink took {name}")


def case_event_fields():
    """KumoMTA's names, and ours."""
    send(engine, "fields", [{"to": "rcpt451_4.7.1x1-f@fields.test", "id": "u-1"}],
         campaign="spring", tenant="acme")
    first, second = events_of("fields")["rcpt451_4.7.1x1-f@fields.test"]
    for event in (first, second):
        check(TIME.fullmatch(event["event_time"]), "event_time", event["event_time"])
        check(event["created_time"] <= event["event_time"], "created before it happened", event)
        equal(event["sender"], "b@sender.test", "sender")
        equal(event["queue"], "fields.test", "queue")
        equal(event["site"], "route:*", "site")
        equal(event["recipient_id"], "u-1", "recipient_id")
        equal(event["nodeid"], "engine.test", "nodeid")
        equal(event["egress_source"], "default", "egress_source")
        check(event["peer_address"]["addr"].startswith("127.0.0.1"), "peer", event)
        check(isinstance(event["id"], str), "id is a text", event["id"])
        check(re.fullmatch(r"[0-9a-f]{16}", event["session_id"]), "session_id", event)
        check(event["size"] > 100, "size", event["size"])
    equal(first["id"], second["id"], "one id for all attempts")
    equal(first["response"]["enhanced_code"], {"class": 4, "subject": 7, "detail": 1},
          "enhanced code")
    check("possible_duplicate" not in second, "nothing was ambiguous", second)
    end = engine.wait_end("fields")
    equal(end.results, [second], "results.ndjson has the end only")


def case_lost_connections():
    """A13: dropped or reset at each verb is a deferral; behind the end of data an ambiguous one,
    and the attempt that follows says so. LAW 6."""
    names = ["drop-rcpt-a", "reset-rcpt-a", "drop-data-a", "reset-data-a", "drop-dot-a",
             "reset-dot-a", "lost250-a"]
    cancelled_when_tried("lost", [f"{name}@lost{i}.test" for i, name in enumerate(names)], 2)
    events = events_of("lost")
    taken = sink.taken()
    for i, name in enumerate(names):
        mine = events[f"{name}@lost{i}.test"]
        ambiguous = "dot" in name or "lost250" in name
        reason = "TEMP_AMBIGUOUS" if ambiguous else "TEMP_CONNECTION_LOST"
        equal(mine[-1]["type"], "AdminBounce", f"the last event of {name}")
        tries = [event for event in mine if event["reason"] != "PERM_CANCELLED"]
        equal({event["reason"] for event in tries}, {reason}, f"reasons of {name}")
        equal({event.get("possible_duplicate", False) for event in mine}, {ambiguous},
              f"possible_duplicate of {name}")
        equal(taken.get(f"{name}@lost{i}.test", 0), len(tries) if "lost250" in name else 0,
              f"{name} arrived")
    hashes = {message["sha256"] for message in sink.messages()
              if message["to"][0].startswith("lost250")}
    equal(len(hashes), 1, "what is sent again has the same bytes")


def case_mail_refused():
    """C5: the sender's refusal is the outcome of all; A18: only of that message."""
    end = send(engine, "mail550", [f"a{i}@mail.test" for i in range(5)], sender="mail550@s.test")
    equal(end.counts(), {"accepted": 5, "bounced": 5}, "550 to MAIL")
    equal({line["response"]["command"] for line in end.results}, {"MAIL FROM"}, "command")
    end = send(engine, "mail451", [f"b{i}@mail.test" for i in range(5)],
               sender="mail451x1@s.test")
    equal(end.counts(), {"accepted": 5, "delivered": 5}, "451 to MAIL, once")
    end = send(engine, "mail-drop", ["c@mail.test"], sender="drop-mail@s.test", expires=soon(3))
    equal(end.counts(), {"accepted": 1, "expired": 1}, "dropped at MAIL")


def case_null_sender():
    """A19, A20: <> stays <>, and nobody is written to about what it could not deliver."""
    end = send(engine, "null", ["x@null.test", "rcpt550-n@null.test"], sender="")
    equal(end.counts(), {"accepted": 2, "delivered": 1, "bounced": 1}, "from <>")
    equal({message["from"] for message in sink.messages() if "x@null.test" in message["to"]},
          {""}, "the wire says <>")
    equal(len(taken_for("null.test")), 1, "that is all that was sent")


def taken_for(domain):
    return [message for message in sink.messages() if message["to"][0].endswith("@" + domain)]


def case_many_recipients_of_one_host():
    """A32: one transaction for as many as rcpts-max allows (100), when the bytes are the same.

    The only connection has no answer to its first message before all others wait behind it."""
    holding.hold()
    engine.submit(make_merge(engine, "first", ["first@many.test"]))
    wait_for(lambda: engine.status()["queue"]["flight"] == 1, "it is under way")
    engine.submit(make_merge(engine, "many", [f"u{i}@many.test" for i in range(250)], SAME))

    def waiting():
        queue = engine.status()["queue"]
        return queue["ready"] + queue["loading"]
    wait_for(lambda: waiting() >= 250, "all others wait")
    holding.release()
    equal(engine.wait_end("first").counts(), {"accepted": 1, "delivered": 1}, "the first one")
    equal(engine.wait_end("many").counts(), {"accepted": 250, "delivered": 250}, "all")
    sizes = [len(names) for _, names, _ in holding.messages]
    equal(sum(sizes), 251, "each recipient once")
    equal(max(sizes), 100, "transactions are filled up to the limit")
    equal(send(engine, "each", ["a@each.test", "b@each.test"], message=EACH).counts(),
          {"accepted": 2, "delivered": 2}, "other bytes")
    equal([len(message["to"]) for message in taken_for("each.test")], [1, 1],
          "have a transaction each")


def case_trace_fields():
    """A26: what relays have written above stays, in its order; Return-Path is not ours to write,
    and that of an earlier delivery goes."""
    trace = ("Received: from b by c; Tue, 01 Dec 2026 08:00:02 +0000\r\n"
             "Received: from a by b; Tue, 01 Dec 2026 08:00:01 +0000\r\n")
    send(engine, "trace", ["x@trace.test"],
         message=trace + "Return-Path: <old@sender.test>\r\n" + SAME)
    equal([message["sha256"] for message in taken_for("trace.test")],
          [sha256((trace + SAME).encode())], "the bytes")


def case_mute_servers_time_out():
    """A2, each with a limit of a second for that one answer."""
    names = [f"mute-{verb}-m@{verb}.mute.test" for verb in MUTE]
    cancelled_when_tried("mute", names)
    events = events_of("mute")
    reasons = {verb: {event["reason"] for event in events[name]
                      if event["reason"] != "PERM_CANCELLED"} for verb, name in zip(MUTE, names)}
    equal(reasons, {"rcpt": {"TEMP_TIMEOUT"}, "data": {"TEMP_TIMEOUT"},
                    "dot": {"TEMP_AMBIGUOUS"}}, "reasons")


def case_nobody_listens():
    """Many recipients of a dead host are few connects (A33)."""
    before = engine.status()["connects_failed"]
    cancelled_when_tried("dead", [f"u{i}@dead.test" for i in range(300)])
    deferred = [event for event in engine.events()
                if event["batch"] == "dead" and event["type"] == "TransientFailure"]
    equal({event["reason"] for event in deferred}, {"TEMP_NO_CONNECT"}, "reason")
    check(any("refused" in event["response"]["content"] for event in deferred), "words",
          deferred[0])
    tries = engine.status()["connects_failed"] - before
    check(0 < tries <= len(deferred) / 3, "few connects", (tries, len(deferred)))


def case_results_can_be_chosen():
    end = send(engine, "chosen", ["a@c.test", "rcpt550-c@c.test"], results=["bounced"])
    equal([line["type"] for line in end.results], ["Bounce"], "only bounces were wanted")


def case_expiry_of_the_route():
    """No batch says when: the route's expire does. It was submitted before all other cases: its
    time is long, lest it be over before the second attempt."""
    end = engine.wait_end("old")
    equal(end.counts(), {"accepted": 1, "expired": 1}, "expired")
    # 551: on a machine that stands still the time is over while it waits for its turn.
    check(end.results[-1]["response"]["code"] in (451, 551), "the server's last words (G5)",
          end.results)
    mine = events_of("old")["rcpt451-o@old.test"]
    check(len(mine) >= 3, "it was tried more than once", mine)
    equal({event["reason"] for event in mine[:-1]}, {"TEMP_REPLY"}, "and put off")


def case_not_before():
    """What is due later waits."""
    earliest = soon(2)  # two clocks are read in whole seconds
    engine.submit(make_merge(engine, "later", ["l@later.test"], not_before=soon(3)))
    end = engine.wait_end("later")
    equal(end.counts(), {"accepted": 1, "delivered": 1}, "delivered")
    check(end.results[0]["event_time"] >= earliest[:-1], "not at once", (end.results, earliest))


def case_server_words_of_any_kind():
    """Replies that are no UTF-8, or hold quotes and controls, still give valid JSON lines."""
    listener = socket.create_server(("127.0.0.1", 0))
    words = b"550-5.1.1 M\xfcller \"quoted\" \\ \x01\t\r\n550 5.1.1 " + b"\xff" * 300 + b"\r\n"

    def serve():
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client, client.makefile("rwb") as stream:
                stream.write(b"220 odd\r\n")
                stream.flush()
                for line in stream:
                    verb = line[:4].upper()
                    stream.write(words if verb == b"RCPT" else b"250 ok\r\n")
                    stream.flush()
                    if verb == b"QUIT":
                        break

    threading.Thread(target=serve, daemon=True).start()
    mine = Engine(place, routes=route("*", listener.getsockname()[1], **FAST), name="odd").start()
    end = send(mine, "odd", ["o@odd.test"])
    equal(end.counts(), {"accepted": 1, "bounced": 1}, "bounced")
    check('"quoted"' in end.results[0]["response"]["content"], "the words", end.results[0])
    wait_for(lambda: any("quoted" in row.get("last_error", "") for row in mine.status()["sites"]),
             "status tells the words too")
    equal(mine.terminate(), 0, "exit status")
    listener.close()


def greeter(words):
    """The port of a server that says this and no more."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client:
                client.sendall(words)
                client.settimeout(5)
                try:
                    client.recv(100)
                except OSError:
                    pass

    threading.Thread(target=serve, daemon=True).start()
    return listener.getsockname()[1]


def case_hosts_that_accept_no_mail():
    """N2: 521 in the greeting of all hosts is a bounce, of one it is a reason to ask the next;
    554 is a deferral (A29)."""
    never, refuses = greeter(b"521 5.3.2 no mail\r\n"), greeter(b"554 not for you\r\n")
    hosts = {"never": [never], "other": [never, sink.port], "busy": [never, refuses]}
    routes = ""
    for name, ports in hosts.items():
        places = ", ".join(f'"127.0.0.1:{port}"' for port in ports)
        routes += route(f"{name}.test", **FAST).replace("{", f"{{ host = {{ {places} }}", 1)
    mine = Engine(place, routes=routes, name="n2").start()
    end = send(mine, "never", [f"n{i}@never.test" for i in range(20)])
    equal(end.counts(), {"accepted": 20, "bounced": 20}, "bounced")
    last = end.results[0]
    equal((last["reason"], last["num_attempts"], last["response"]["code"]),
          ("PERM_NO_MAIL", 1, 521), "at once, with a reason of its own")
    equal(last["response"]["enhanced_code"], {"class": 5, "subject": 3, "detail": 2}, "status")
    check("no mail" in last["response"]["content"], "the host's words", last)
    end = send(mine, "other", [f"o{i}@other.test" for i in range(20)])
    equal(end.counts(), {"accepted": 20, "delivered": 20}, "the other host is asked")
    end = send(mine, "busy", ["b@busy.test"], expires=soon(3))
    equal(end.counts(), {"accepted": 1, "expired": 1}, "a host that refuses may take it later")
    equal(mine.terminate(), 0, "exit status")


def case_all_lines_are_json():
    path = os.path.join(engine.spool, "log", "events.ndjson")
    lines = read_lines(path)
    check(len(lines) > 300, "there are lines", len(lines))
    kinds = {line["type"] for line in lines}
    check(kinds <= {"Delivery", "Bounce", "TransientFailure", "Expiration", "AdminBounce"},
          "types", kinds)


def main():
    global place, sink, engine, holding
    with Place("outcomes") as place:
        sink, holding = Sink(place), Peer()
        mute = "".join(route(f"{verb}.mute.test", sink.port, **FAST, **{f"{key}_timeout": "1s"})
                       for verb, key in MUTE.items())
        engine = Engine(place, routes=route("*", sink.port, **FAST) + mute +
                        route("many.test", holding.port, **FAST, connections=1) +
                        route("dead.test", free_port(), **FAST) +
                        route("old.test", sink.port, **{**FAST, "expire": "20s"})).start()
        engine.submit(make_merge(engine, "old", ["rcpt451-o@old.test"]))
        return run_all(globals())


if __name__ == "__main__":
    sys.exit(main())
