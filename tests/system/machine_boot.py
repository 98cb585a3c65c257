#!/usr/bin/env python3
"""Debian's kernel, unmodified, boots to a shell with 1 and 4 vcpus; the guest sees its vcpus and its memory and powers off."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "lib"))
from machine import Machine, fail, image  # noqa: E402

files = image()
for cpus in (1, 4):
    m = Machine(files + "/kernel", files + "/initrd", "console=ttyS0", cpus=cpus)
    m.wait_for("'poweroff' ends it.")
    m.wait_for("# ")
    answer = m.run("grep -c ^processor /proc/cpuinfo")
    if str(cpus) not in answer.split():
        fail(f"{cpus} vcpus, but the guest says: {answer}", m)
    for bad in (b"WARNING:", b"BUG:", b"Oops", b"stall"):
        if bad in m.output:
            fail(f"the kernel complains: {bad.decode()}", m)
    m.type("poweroff\n")
    m.expect_end(0, "shutdown")
    with open(m.log_path, "rb") as log:
        if b"Linux version" not in log.read():
            fail("the log lacks the console's output", m)
    print(f"ok: boot, shell and power-off with {cpus} vcpu(s)")
