# SPDX-License-Identifier: Apache-2.0
"""A throw-away Postfix that takes mail for some domains into one maildir.

Its own configuration, queue and data directories below a temporary one; Debian's programs; a port
of the loopback address. Needs root, as Postfix does. It changes nothing in what it delivers but the
header fields that it puts in front; strip() takes those off again.
"""
import os
import pwd
import re
import socket
import subprocess

from lib import Late, free_port, wait_for

NEEDED = ("/usr/sbin/postfix", "/usr/lib/postfix/sbin/master", "/usr/lib/postfix/sbin/virtual")

SETTINGS = """\
compatibility_level = 3.6
queue_directory = {root}/queue
data_directory = {root}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
myhostname = box.test
mydestination =
mynetworks =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
alias_database =
local_recipient_maps =
local_header_rewrite_clients =
relayhost =
default_transport = error:nothing is sent on
relay_transport = error:nothing is sent on
virtual_mailbox_domains = box.test, other.test
virtual_mailbox_base = {root}
virtual_mailbox_maps = static:mail/
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
virtual_minimum_uid = 1
message_size_limit = 20000000
virtual_mailbox_limit = 0
smtpd_relay_restrictions = reject_unauth_destination
smtpd_recipient_restrictions =
smtpd_recipient_limit = 20
smtpd_client_connection_count_limit = 0
smtpd_client_event_limit_exceptions = 127.0.0.0/8
smtpd_peername_lookup = no
smtpd_delay_reject = no
smtpd_forbid_bare_newline = yes
smtpd_tls_security_level = none
in_flow_delay = 0
notify_classes =
"""
MASTER = """\
127.0.0.1:{port} inet  n       -       n       -       -       smtpd
pickup    unix  n       -       n       60      1       pickup
cleanup   unix  n       -       n       -       0       cleanup
qmgr      unix  n       -       n       300     1       qmgr
rewrite   unix  -       -       n       -       -       trivial-rewrite
bounce    unix  -       -       n       -       0       bounce
defer     unix  -       -       n       -       0       bounce
trace     unix  -       -       n       -       0       bounce
verify    unix  -       -       n       -       1       verify
proxymap  unix  -       -       n       -       -       proxymap
proxywrite unix -       -       n       -       1       proxymap
error     unix  -       -       n       -       -       error
retry     unix  -       -       n       -       -       error
virtual   unix  -       n       n       -       -       virtual
anvil     unix  -       -       n       -       1       anvil
"""
FIELDS = (b"Return-Path:", b"X-Original-To:", b"Delivered-To:", b"Received:")


def is_missing():
    """A reason why there can be none here, or None."""
    absent = [path for path in NEEDED if not os.path.exists(path)]
    if absent:
        return f"{', '.join(absent)} is not here (Debian: postfix)"
    return None if os.geteuid() == 0 else "Postfix needs root"


class Postfix:
    def __init__(self, place, name="postfix"):
        self.root = place.join(name)
        self.port = free_port()
        self.is_running = False
        owner = pwd.getpwnam("postfix")
        nobody = pwd.getpwnam("nobody")
        os.chmod(place.path, 0o755)
        for path in ("", "etc", "queue", "data", "mail"):
            os.mkdir(os.path.join(self.root, path))
        os.chown(os.path.join(self.root, "data"), owner.pw_uid, owner.pw_gid)
        os.chown(os.path.join(self.root, "mail"), nobody.pw_uid, nobody.pw_gid)
        for name, text in (("main.cf", SETTINGS), ("master.cf", MASTER),
                           ("postfix-files", ""), ("dynamicmaps.cf", "")):
            with open(os.path.join(self.root, "etc", name), "w", encoding="ascii") as file:
                file.write(text.format(root=self.root, port=self.port, uid=nobody.pw_uid,
                                       gid=nobody.pw_gid))

    def command(self, *words):
        return subprocess.run(["/usr/sbin/postfix", "-c", os.path.join(self.root, "etc"), *words],
                              capture_output=True, text=True, check=False, timeout=600)

    def start(self):
        done = self.command("start")
        if done.returncode != 0:
            raise Late(f"postfix start: {done.stderr}")
        self.is_running = True

        def answers():
            try:
                with socket.create_connection(("127.0.0.1", self.port), 5) as probe:
                    return probe.recv(100).startswith(b"220")
            except OSError:
                return False
        wait_for(answers, "Postfix answers")
        return self

    def stop(self):
        if self.is_running:
            self.is_running = False
            self.command("stop")

    def __enter__(self):
        return self.start()

    def __exit__(self, *trace):
        self.stop()

    def names(self):
        try:
            return os.listdir(os.path.join(self.root, "mail", "new"))
        except FileNotFoundError:
            return []

    def mails(self):
        """(recipient, sender, content with CRLF) of each delivered mail."""
        for name in self.names():
            with open(os.path.join(self.root, "mail", "new", name), "rb") as file:
                yield strip(file.read())


    def taken(self):
        """The queue ids under which each recipient's mail was taken. Postfix itself may deliver one
        twice, when it is stopped between the mailbox and its own note of it."""
        ids = {}
        for name in self.names():
            with open(os.path.join(self.root, "mail", "new", name), "rb") as file:
                text = file.read()
            queue_id = re.search(rb"\sid ([0-9A-Za-z]+)", text[text.index(b"Received:"):])
            ids.setdefault(strip(text)[0], set()).add(queue_id.group(1))
        return ids


def strip(text):
    lines = text.split(b"\n")
    recipient = sender = None
    while lines[0].startswith(FIELDS):
        if lines[0].startswith(b"X-Original-To: "):
            recipient = lines[0].split(b": ", 1)[1].decode()
        if lines[0].startswith(b"Return-Path: "):
            sender = lines[0].split(b": ", 1)[1].decode().strip("<>")
        is_trace = lines[0].startswith(b"Received:")
        lines.pop(0)
        while lines[0][:1] in (b" ", b"\t"):
            lines.pop(0)
        if is_trace:
            break  # one trace: what follows is the message, whatever it begins with
    return recipient, sender, b"\r\n".join(lines)
