"""Exits of the guests of a host with SVM by their cause, counted by the kernel in a histogram of its tracepoint kvm:kvm_exit."""
import collections
import os
import re
import subprocess

EVENT = "/sys/kernel/tracing/events/kvm/kvm_exit"
CAUSES = {0x60: "interrupt", 0x64: "window", 0x72: "cpuid", 0x77: "pause", 0x78: "halt", 0x7b: "port", 0x7c: "msr", 0x81: "vmmcall",
          0x400: "page"}  # AMD APM, volume 2, appendix C
# Those of a request: a notification, or what else the guest touches and finds no page at, and a halt until it is done.
REQUEST = ("page", "halt")


def begin():
    if not os.path.exists(EVENT):
        subprocess.run(["mount", "-t", "tracefs", "tracefs", "/sys/kernel/tracing"], check=True)
    with open(EVENT + "/trigger", "w", encoding="utf-8") as f:
        f.write("hist:keys=exit_reason")


def counts():
    """Since begin()."""
    with open(EVENT + "/hist", encoding="utf-8") as f:
        found = re.findall(r"exit_reason: +(\d+) } hitcount: +(\d+)", f.read())
    return collections.Counter({CAUSES.get(int(reason), f"0x{int(reason):x}"): int(n) for reason, n in found})
