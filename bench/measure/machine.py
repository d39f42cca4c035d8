# SPDX-License-Identifier: Apache-2.0
"""Facts about the machine and about running processes, read from /proc."""

import datetime
import os
import platform
import subprocess


def _first(path, default="unknown"):
    try:
        with open(path, encoding="utf-8") as file:
            return file.readline().strip()
    except OSError:
        return default


def _cpu_model():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.machine()


def _memory_mib():
    with open("/proc/meminfo", encoding="utf-8") as file:
        return int(file.readline().split()[1]) // 1024


def _git(root, *arguments):
    done = subprocess.run(["git", "-C", root, *arguments], capture_output=True, text=True,
                          check=False)
    return done.stdout.strip() if done.returncode == 0 else "unknown"


def _file_system(path):
    best = ("", "unknown")
    with open("/proc/mounts", encoding="utf-8") as file:
        for line in file:
            _, mount, kind = line.split()[:3]
            if os.path.realpath(path).startswith(mount) and len(mount) > len(best[0]):
                best = (mount, kind)
    return best[1]


def cores():
    return len(os.sched_getaffinity(0))


def facts(root, work):
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "commit": _git(root, "rev-parse", "--short=12", "HEAD"),
        "changed": _git(root, "status", "--porcelain", "--untracked-files=no") != "",
        "cpu": _cpu_model(),
        "cores": cores(),
        "governor": _first("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "none visible"),
        "hypervisor": " hypervisor " in open("/proc/cpuinfo", encoding="utf-8").read(),
        "memory_mib": _memory_mib(),
        "kernel": platform.release(),
        "file_system": _file_system(work),
        "tcp": _first("/proc/sys/net/ipv4/tcp_congestion_control"),
    }


def steal_ticks():
    """Time the hypervisor gave to others, in ticks: a run with much of it says little."""
    fields = _first("/proc/stat").split()
    return int(fields[8]) if len(fields) > 8 else 0


def _status_bytes(pid, name):
    with open(f"/proc/{pid}/status", encoding="utf-8") as file:
        for line in file:
            if line.startswith(name + ":"):
                return int(line.split()[1]) * 1024
    raise RuntimeError(f"process {pid} has no {name}")


def rss_bytes(pid):
    return _status_bytes(pid, "VmRSS")


def rss_peak_bytes(pid):
    return _status_bytes(pid, "VmHWM")


def cpu_ns(pid):
    """CPU time of all threads that are alive, in nanoseconds."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        total += int(_first(f"/proc/{pid}/task/{task}/schedstat", "0").split()[0])
    return total
