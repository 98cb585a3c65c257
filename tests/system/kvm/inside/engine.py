#!/usr/bin/env python3
"""Debian's cloud kernel, unmodified, on the hardware engine: to a shell with 1 and 2 vcpus, saved in the middle of its boot and loaded in a
new process, rebooted, panicking. Runs in the outer system of rig.py."""
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../lib"))
from machine import Machine, fail, memory_cost  # noqa: E402

IMAGE = os.environ["TRIVET_STATE_DIR"] + "/images/busybox-amd64"
SUM = "2daeb1f36095b44b318410b3f4e8b5d989dcc7bb023d1426c492dab0a3053e74"  # of 8 MiB of zeroes


def boot(append="console=ttyS0", **more):
    return Machine(IMAGE + "/kernel", IMAGE + "/initrd", append, engine="kvm", **more)


def shell(m):
    m.wait_for("'poweroff' ends it.")
    m.wait_for("# ")


def check(m, cpus):
    """Its vcpus are there and compute; the kernel has nothing to complain of."""
    answer = m.run("grep -c ^processor /proc/cpuinfo; sleep 1; dd if=/dev/zero bs=1M count=8 2>/dev/null | sha256sum")
    if str(cpus) not in answer.split() or SUM not in answer:
        fail(f"{cpus} vcpus, but the guest says: {answer}", m)
    for bad in (b"WARNING: CPU", b"BUG:", b"Oops", b"stall", b"lockup"):
        if bad in m.output:
            fail(f"the kernel complains: {bad.decode()}", m)


def power_off(m):
    m.type("poweroff\n")
    m.expect_end(0, "shutdown")


def boots():
    for cpus in (1, 2):
        m = boot(cpus=cpus)
        shell(m)
        check(m, cpus)
        touched, cost = memory_cost(m)
        if cost > 5 << 20:
            fail(f"the machine's process has {cost >> 10} KiB resident beside the guest's memory", m)
        power_off(m)
        print(f"ok: boot, shell and power-off with {cpus} vcpu(s); {cost >> 10} KiB beside the {touched >> 20} MiB that the guest touched")


def saves():
    for cpus, moment in ((2, "smpboot: Total of"), (1, "Freeing unused"), (2, "'poweroff' ends it.")):
        first = boot(cpus=cpus, name="first")
        first.wait_for(moment)
        path = first.path("saved")
        with open(path, "wb") as f:
            first.call("machine.save", {"quit": True}, [f.fileno()])
        first.expect_end(0, "saved")
        second = Machine(restore=path, cpus=cpus, name="second", engine="kvm")
        if not moment.startswith("'"):
            second.wait_for("'poweroff' ends it.")
        second.type("\n")
        check(second, cpus)
        power_off(second)
        print(f"ok: saved at '{moment}' and loaded in a new process, {cpus} vcpu(s)")


def ends():
    m = boot()
    shell(m)
    end = len(m.output)
    m.type("reboot\n")
    m.wait_for("Linux version", start=end)
    m.wait_for("'poweroff' ends it.", start=end)
    power_off(m)
    print("ok: reboot")
    m = boot("console=ttyS0 panic=-1")
    shell(m)
    m.type("echo c >/proc/sysrq-trigger\n")
    m.expect_end(1, "panicked")
    print("ok: a panic is told")


boots()
saves()
ends()
sys.stdout.flush()
sys.exit(subprocess.run([sys.executable, os.path.join(os.path.dirname(os.path.abspath(__file__)), "choice.py"), sys.argv[1]], check=False).returncode)
