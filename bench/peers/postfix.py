# SPDX-License-Identifier: Apache-2.0
"""A throw-away Postfix: its own configuration, queue and data directories; Debian's binaries.

It relays everything to the sink, and gets its best: as many delivery processes and as much
concurrency as help, connection reuse, no filters, no DNS, no TLS, no chroot, no log, no pauses.
"""

import grp
import os
import pwd
import shutil
import socket
import subprocess
import time

from measure.programs import BenchError

SETTINGS = """\
compatibility_level = 3.6
queue_directory = {queue}
data_directory = {data}
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
myhostname = postfix.bench.example
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
alias_database =
local_recipient_maps =
relayhost = [{host}]:{port}
disable_dns_lookups = yes
smtp_host_lookup = native
smtp_tls_security_level = none
smtpd_tls_security_level = none
default_process_limit = {processes}
default_destination_concurrency_limit = {processes}
initial_destination_concurrency = {processes}
default_destination_recipient_limit = 1
default_destination_concurrency_negative_feedback = 0
smtp_connection_cache_on_demand = yes
smtp_connection_reuse_count_limit = 0
smtp_connection_reuse_time_limit = 3600s
qmgr_message_active_limit = 200000
qmgr_message_recipient_limit = 200000
in_flow_delay = 0
smtpd_recipient_restrictions = permit_mynetworks, reject
smtpd_client_connection_count_limit = 0
smtpd_client_event_limit_exceptions = 127.0.0.0/8
smtpd_peername_lookup = no
smtpd_delay_reject = no
strict_rfc821_envelopes = no
notify_classes =
bounce_queue_lifetime = 1d
"""

MASTER = """\
127.0.0.1:{port} inet  n       -       n       -       -       smtpd
pickup    unix  n       -       n       60      1       pickup
cleanup   unix  n       -       n       -       0       cleanup
{qmgr}
rewrite   unix  -       -       n       -       -       trivial-rewrite
bounce    unix  -       -       n       -       0       bounce
defer     unix  -       -       n       -       0       bounce
trace     unix  -       -       n       -       0       bounce
verify    unix  -       -       n       -       1       verify
flush     unix  n       -       n       1000?   0       flush
proxymap  unix  -       -       n       -       -       proxymap
proxywrite unix -       -       n       -       1       proxymap
smtp      unix  -       -       n       -       -       smtp
relay     unix  -       -       n       -       -       smtp
showq     unix  n       -       n       -       -       showq
error     unix  -       -       n       -       -       error
retry     unix  -       -       n       -       -       error
anvil     unix  -       -       n       -       1       anvil
scache    unix  -       -       n       -       1       scache
"""
QMGR = "qmgr      unix  n       -       n       300     1       qmgr"

NEEDED = ("/usr/sbin/postfix", "/usr/sbin/smtp-source", "/usr/sbin/sendmail")


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Postfix:
    """`processes` bounds delivery processes and concurrency."""

    def __init__(self, work, host, port, processes=100):
        missing = [path for path in NEEDED if not os.path.exists(path)]
        if missing or os.geteuid() != 0:
            raise BenchError(f"the Postfix peer needs root and {', '.join(NEEDED)}"
                             + (f"; missing: {', '.join(missing)}" if missing else ""))
        self.root = os.path.join(work, "postfix")
        self.config = os.path.join(self.root, "etc")
        self.queue = os.path.join(self.root, "queue")
        self.data = os.path.join(self.root, "data")
        self.host, self.port, self.processes = host, port, processes
        self.smtpd_port = _free_port()
        self.is_running = False
        for path in (self.root, self.config, self.queue, self.data):
            os.makedirs(path)
            os.chmod(path, 0o755)
        owner = pwd.getpwnam("postfix")
        os.chown(self.data, owner.pw_uid, owner.pw_gid)
        self._let_others_through(work)
        for name in ("dynamicmaps.cf", "postfix-files"):
            if os.path.exists(os.path.join("/etc/postfix", name)):
                shutil.copy(os.path.join("/etc/postfix", name), self.config)
        for name in ("dynamicmaps.cf.d", "postfix-files.d"):
            os.makedirs(os.path.join(self.config, name), exist_ok=True)
        grp.getgrnam("postdrop")
        with open(os.path.join(self.config, "main.cf"), "w", encoding="utf-8") as file:
            file.write(SETTINGS.format(queue=self.queue, data=self.data, host=host, port=port,
                                       processes=processes))

    @staticmethod
    def _let_others_through(path):
        """Postfix's own user must be able to reach its queue below the work directory."""
        mode = os.stat(path).st_mode
        os.chmod(path, mode | 0o011)

    def settings(self):
        """What was tuned, for the report."""
        return (f"processes and concurrency {self.processes}, connection reuse without limit, "
                "active queue 200,000, no DNS, TLS, filters, chroot, log or in_flow_delay")

    def _postfix(self, *arguments, check=True):
        done = subprocess.run(["/usr/sbin/postfix", "-c", self.config, *arguments],
                              capture_output=True, text=True, check=False, timeout=60)
        if check and done.returncode != 0:
            raise BenchError(f"postfix {' '.join(arguments)}: {done.stderr.strip()}")

    def start(self, with_delivery=True):
        with open(os.path.join(self.config, "master.cf"), "w", encoding="utf-8") as file:
            file.write(MASTER.format(port=self.smtpd_port, qmgr=QMGR if with_delivery else ""))
        self._postfix("start")
        self.is_running = True
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.smtpd_port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.02)
        raise BenchError("Postfix does not answer")

    def stop(self):
        """Ends the instance; `postfix stop` waits for its processes."""
        if self.is_running:
            self.is_running = False
            self._postfix("stop", check=False)

    def submit(self, messages, size, sessions=20):
        """`messages` messages with one recipient each through its smtpd, until all are in."""
        command = ["/usr/sbin/smtp-source", "-4", "-s", str(sessions), "-m", str(messages),
                   "-l", str(size), "-f", "news@bench.example",
                   "-t", "u00000001@d0001.bench.example",
                   f"127.0.0.1:{self.smtpd_port}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
        if done.returncode != 0:
            raise BenchError(f"smtp-source: {done.stderr.strip()}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
