#!/usr/bin/env python3
"""Debian's cloud kernel, unmodified, on the hardware engine: to a shell with 1 and 2 vcpus, saved in the middle of its boot and loaded in a
new process, rebooted, panicking, with a disk of a store's. Runs in the outer system of rig.py."""
import os
import re
import socket
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "../../lib"), os.path.join(HERE, "..")]
import exits  # noqa: E402
from machine import BIN, Machine, fail, folder, memory_cost, started  # noqa: E402

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


def check_steal(m):
    """The guest sees that others have its processor: here, where the whole host has one."""
    hog = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    before, after = (int(re.search(r"^cpu +(?:\d+ +){7}(\d+) ", m.run(command), re.M)[1])
                     for command in ("head -1 /proc/stat", "dd if=/dev/zero bs=1M count=32 2>/dev/null | sha256sum; head -1 /proc/stat"))
    hog.kill()
    hog.wait()
    if after <= before:
        fail(f"the guest was told of no stolen time: {before} ticks, then {after}", m)
    print(f"ok: steal time is told ({after - before} ticks)")


def power_off(m):
    m.type("poweroff\n")
    m.expect_end(0, "shutdown")


READS = 10000


def connected_store():
    path = folder() + "/disk"
    store = subprocess.Popen([BIN + "/trivet-store", "--io", "threads", "--disk", f"name=a,socket={path},queues=1", "--volume",
                              'a={"type": "ram", "size_bytes": 67108864}'])
    started(store)
    while store.poll() is None:
        try:
            s = socket.socket(socket.AF_UNIX)
            s.connect(path)
            return s
        except OSError:
            time.sleep(0.05)
    fail("the store does not come up")
    return None


def vcpu(m):
    return m.call("machine.stats")["vcpus"][0]


def boots():
    """A request costs no way into the machine's process: its doorbell and its interrupt go past it."""
    s = connected_store()
    m = boot(disks=[("a", s, 1)])
    s.close()
    shell(m)
    check(m, 1)
    touched, cost = memory_cost(m)
    if cost > 5 << 20:
        fail(f"the machine's process has {cost >> 10} KiB resident beside the guest's memory", m)
    check_steal(m)
    print(f"ok: boot and shell; {cost >> 10} KiB beside the {touched >> 20} MiB that the guest touched")
    m.run("dd if=/dev/urandom of=/dev/vda bs=1M count=40 2>/dev/null; sync")
    exits.begin()
    before, by_cause = vcpu(m), exits.counts()
    answer = m.run(f"dd if=/dev/vda of=/dev/null bs=4k count={READS} iflag=direct 2>&1 | grep -c '{READS}+0 records in'")
    after, by_cause = vcpu(m), exits.counts() - by_cause
    if "1" not in answer.split():
        fail(f"{READS} reads: {answer}", m)
    causes = {k: after["trap_causes"][k] - v for k, v in before["trap_causes"].items()}
    mmio = causes["mmio read"] + causes["mmio write"]
    total, of_requests = after["exits"] - before["exits"], sum(by_cause[cause] for cause in exits.REQUEST)
    print(f"figure: {READS} reads of 4 KiB, one after the other: {total / READS:.2f} exits from the guest each, {of_requests / READS:.2f} without the "
          f"timer's and the console's, {mmio} MMIO exits to the process; by cause: {dict(by_cause)}")
    if not READS <= of_requests <= 1.1 * READS:
        fail(f"{READS} reads made {of_requests} exits: {by_cause}", m)
    if mmio > 10:
        fail(f"{READS} reads made {mmio} MMIO exits to the process: {causes}", m)
    power_off(m)
    print("ok: requests of a disk go past the machine's process")


def saves():
    """In the middle of a boot; and at a shell, with memory on both sides of the hole below 4 GiB and a file in the upper part of it."""
    for cpus, moment, memory in ((2, "smpboot: Total of", 256 << 20), (1, "'poweroff' ends it.", 4 << 30)):
        first = boot(cpus=cpus, memory=memory, name="first")
        first.wait_for(moment)
        if moment.startswith("'"):
            first.wait_for("# ")
            first.run("dd if=/dev/urandom of=/tmp/file bs=1M count=8 2>/dev/null")
            digest = re.search("[0-9a-f]{64}", first.run("sha256sum /tmp/file"))[0]
        path = first.path("saved")
        with open(path, "wb") as f:
            first.call("machine.save", {"quit": True}, [f.fileno()])
        first.expect_end(0, "saved")
        second = Machine(restore=path, cpus=cpus, memory=memory, name="second", engine="kvm")
        if not moment.startswith("'"):
            second.wait_for("'poweroff' ends it.")
        second.type("\n")
        check(second, cpus)
        if moment.startswith("'"):
            if digest not in second.run("sha256sum /tmp/file"):
                fail("a file in the guest's memory has changed", second)
            if "System RAM" not in second.run("grep ^100000000- /proc/iomem"):
                fail("it has no memory above 4 GiB", second)
            # It was there to be told.
            told = second.run("grep 'IO-APIC *21-edge' /proc/interrupts")
            if not re.search(r":\s+1\s+IO-APIC", told):
                fail(f"a loaded guest was not told that it is another: {told}", second)
        power_off(second)
        print(f"ok: saved at '{moment}' and loaded in a new process, {cpus} vcpu(s), {memory >> 20} MiB")


def ends():
    m = boot("console=ttyS0 panic=-1")
    shell(m)
    end = len(m.output)
    m.type("reboot\n")
    m.wait_for("Linux version", start=end)
    end = m.wait_for("'poweroff' ends it.", start=end)
    m.wait_for("# ", start=end)
    print("ok: reboot")
    m.type("echo c >/proc/sysrq-trigger\n")
    m.expect_end(1, "panicked")
    print("ok: a panic is told")


def dirty():
    """Which pages a guest wrote: see ../dirty.c."""
    done = subprocess.run([BIN + "/../tests/system/kvm_dirty"], check=False)
    if done.returncode != 0:
        sys.exit(1)


dirty()
boots()
saves()
ends()
sys.stdout.flush()
for program in ([HERE + "/../../hostile/hostile.py", sys.argv[1]], [HERE + "/choice.py", sys.argv[1]]):
    ended = subprocess.run([sys.executable, *program], env={"ACCESSES": "20000", **os.environ}, check=False)
    if ended.returncode != 0:
        sys.exit(ended.returncode)
