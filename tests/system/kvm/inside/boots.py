#!/usr/bin/env python3
"""TRIVET_BOOTS boots in a row of Debian's cloud kernel to a shell and off again, on the hardware engine, with 1 vcpu and with 2 as often."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../lib"))
from machine import Machine, fail  # noqa: E402

IMAGE = os.environ["TRIVET_STATE_DIR"] + "/images/busybox-amd64"
BOOTS = int(os.environ["TRIVET_BOOTS"])


def boot(cpus):
    m = Machine(IMAGE + "/kernel", IMAGE + "/initrd", "console=ttyS0", engine="kvm", cpus=cpus)
    m.wait_for("'poweroff' ends it.")
    m.wait_for("# ")
    if str(cpus) not in m.run("grep -c ^processor /proc/cpuinfo").split():
        fail(f"not {cpus} vcpus", m)
    for bad in (b"WARNING: CPU", b"BUG:", b"Oops", b"stall", b"lockup"):
        if bad in m.output:
            fail(f"the kernel complains: {bad.decode()}", m)
    m.type("poweroff\n")
    m.expect_end(0, "shutdown")


for vcpus in (1, 2):
    for n in range(BOOTS):
        print(f"boot {n + 1} of {BOOTS} with {vcpus} vcpu(s)", flush=True)
        boot(vcpus)
    print(f"ok: {BOOTS} boots in a row with {vcpus} vcpu(s)", flush=True)
