"""A second observer: the kernel's own record of the client's system calls (perf, tracepoints syscalls:*).

The observer on the loopback device does not see how long a client that sleeps takes to wake up; this one does. It knows
nothing of loadgen: a request begins where sendto(2) is entered, and is answered where the first recvfrom(2) on the same
descriptor that brings bytes returns. For a client of one thread that makes these calls (engine epoll).
"""

import re
import subprocess

EVENTS = ("syscalls:sys_enter_sendto", "syscalls:sys_enter_recvfrom", "syscalls:sys_exit_recvfrom")
LINE = re.compile(r"\s*(\S+)\s+(\d+)\.(\d{9}):\s+syscalls:(\w+): (.*)")


def command(data):
    """To be put in front of the client's command."""
    words = ["perf", "record", "--quiet", "--mmap-pages", "4096", "--output", data]
    for event in EVENTS:
        words += ["-e", event]
    return [*words, "--"]


def read(data, thread="worker-0"):
    """When each request of that thread began, and how long it took, in nanoseconds; and records that were lost."""
    text = subprocess.run(["perf", "script", "--ns", "--show-lost-events", "--input", data, "--fields",
                           "comm,time,event,trace"], capture_output=True, text=True, check=True).stdout
    begun, receiving, seen, lost = {}, None, [], 0
    for line in text.splitlines():
        lost += "PERF_RECORD_LOST" in line
        found = LINE.match(line)
        if not found or found[1] != thread:
            continue
        now, event, words = int(found[2] + found[3]), found[4], found[5]
        if event == "sys_exit_recvfrom":
            # Errors are negative, that is beyond 2^63.
            if int(words, 16) < 1 << 63 and receiving in begun:
                began = begun.pop(receiving)
                seen.append((began, now - began))
            continue
        descriptor = int(re.search(r"fd: (0x[0-9a-f]+)", words)[1], 16)
        if event == "sys_enter_sendto":
            begun[descriptor] = now
        else:
            receiving = descriptor
    return seen, lost
