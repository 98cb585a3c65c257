#!/usr/bin/env python3
"""Measures in the outer system (tests/system/kvm/rig.py), for bench/kvm/run: prints a line "figure: JSON" for each value."""
import json
import os
import re
import select
import socket
import subprocess
import sys
import time

sys.path.insert(0, "/tests/system/kvm")
import exits as by_cause  # noqa: E402

BUILD, ROUNDS, READS = sys.argv[1], int(os.environ["BENCH_ROUNDS"]), 2000
IMAGE = os.environ["TRIVET_STATE_DIR"] + "/images/busybox-amd64"
ENTRY, INITRD, DISK = "/bench/entry", "/tmp/initrd", "/tmp/disk.raw"
RAM = 128 << 20
APPEND = "console=ttyS0 quiet panic=-1 rdinit=/mark"
DEADLINE_S = 240
MACHINES = {"QEMU microvm": "microvm,pcie=on", "QEMU q35": "q35"}
OURS = "trivet"


class Guest:
    """A process with a console; self.start is when it was started."""

    def __init__(self, command, console, fds=()):
        self.console, self.output = console, b""
        self.start = time.monotonic()
        self.process = subprocess.Popen(command, stdin=console[1], stdout=console[1], stderr=open("/tmp/stderr", "w"), pass_fds=fds)
        console[1].close()

    def wait_for(self, text):
        """Seconds since the start."""
        while text not in self.output:
            if time.monotonic() > self.start + DEADLINE_S or not select.select([self.console[0]], [], [], DEADLINE_S)[0]:
                self.fail(f"no '{text.decode()}' within {DEADLINE_S} s")
            data = self.console[0].recv(65536)
            if not data:
                self.fail("has ended")
            self.output += data
        return time.monotonic() - self.start

    def run(self, line):
        """What the guest's shell prints for it."""
        self.output = b""
        self.console[0].sendall(line.encode() + b"; echo do''ne\n")
        self.wait_for(b"done\r")
        return self.output

    def fail(self, what):
        with open("/tmp/stderr", errors="replace") as f:
            print(f"failed: {self.process.args[0]}: {what}\n{self.output.decode(errors='replace')[-1500:]}\n{f.read()[-1500:]}")
        self.end()
        sys.exit(1)

    def end(self):
        self.process.kill()
        self.process.wait()
        self.console[0].close()

    def cost(self):
        """Bytes resident beside the guest's memory."""
        resident, ram = 0, False
        with open(f"/proc/{self.process.pid}/smaps") as f:
            for line in f:
                word = line.split()
                if word[0] == "Size:":
                    ram = int(word[1]) << 10 == RAM
                elif word[0] == "Rss:" and not ram:
                    resident += int(word[1]) << 10
        return resident


def ours(kernel, initrd=None, append=""):
    """trivet-machine as its launcher starts it."""
    console = socket.socketpair()
    config = {"name": "bench", "engine": "kvm", "memory_bytes": RAM, "cpus": 1, "append": append, "console": {"fd": console[1].fileno()},
              "kvm_fd": os.open("/dev/kvm", os.O_RDWR), "kernel_fd": os.open(kernel, os.O_RDONLY)}
    if initrd:
        config["initrd_fd"] = os.open(initrd, os.O_RDONLY)
    text = os.memfd_create("config")
    os.write(text, json.dumps(config).encode())
    os.lseek(text, 0, os.SEEK_SET)
    fds = [text, config["console"]["fd"], *(value for key, value in config.items() if key.endswith("_fd"))]
    guest = Guest([BUILD + "/bin/trivet-machine", "--config", str(text)], console, fds)
    for fd in {text, *(value for key, value in config.items() if key.endswith("_fd"))}:
        os.close(fd)
    return guest


def peer(who, kernel, initrd=None, append="", disk=False):
    command = ["/usr/bin/qemu-system-x86_64", "-M", MACHINES[who], "-accel", "kvm", "-cpu", "host", "-m", f"{RAM >> 20}M", "-nodefaults",
               "-no-user-config", "-display", "none", "-serial", "stdio", "-kernel", kernel, "-append", append]
    command += ["-initrd", initrd] if initrd else []
    command += ["-drive", f"id=d,if=none,format=raw,file={DISK}", "-device", "virtio-blk-pci,drive=d,disable-legacy=on"] if disk else []
    return Guest(command, socket.socketpair())


def start(who, *words, **more):
    if who != OURS:
        return peer(who, *words, **more)
    if not more.pop("disk", False):
        return ours(*words, **more)
    command = [BUILD + "/bin/trivet", "run", "--engine", "kvm", "--kernel", words[0], "--initrd", words[1], "--append", words[2], "--memory",
               str(RAM), "--disk", DISK]
    return Guest(command, socket.socketpair())


def exits():
    with open("/sys/kernel/debug/kvm/exits") as f:
        return int(f.read())


def tell(name, who, value):
    print("figure:", json.dumps([name, who, value]), flush=True)


def measure(who):
    guest = start(who, ENTRY)
    entry = guest.wait_for(b"E")
    guest.end()
    tell("start", who, entry * 1e3)
    before = exits()
    guest = start(who, IMAGE + "/kernel", INITRD, APPEND)
    tell("boot", who, (guest.wait_for(b"MARK") - entry) * 1e3)
    tell("boot_exits", who, exits() - before)
    guest.wait_for(b"# ")
    tell("memory", who, guest.cost() / (1 << 20))
    guest.end()


def measure_disk(who):
    guest = start(who, IMAGE + "/kernel", INITRD, APPEND, disk=True)
    guest.wait_for(b"# ")
    before, causes = exits(), by_cause.counts()
    text = guest.run(f"dd if=/dev/vda of=/dev/null bs=4k count={READS} iflag=direct")
    count, causes = exits() - before, by_cause.counts() - causes
    if not re.search(rb"\b%d\+0 records in" % READS, text):
        guest.fail("the reads failed")
    tell("reads", who, count / READS)
    tell("requests", who, sum(causes[cause] for cause in by_cause.REQUEST) / READS)
    print(f"{who}: {READS} reads by cause: {dict(causes)}")
    if who == OURS:
        guest.console[0].sendall(b"poweroff\n")
        guest.process.wait()
        guest.console[0].close()
    else:
        guest.end()


subprocess.run("mount -t debugfs debugfs /sys/kernel/debug && mkdir /tmp/mark && cd /tmp/mark && "
               "printf '#!/bin/busybox sh\\necho MARK\\nexec /init\\n' >mark && chmod 755 mark && echo mark | cpio -o -H newc >../mark.cpio", shell=True,
               check=True)
with open(INITRD, "wb") as out:
    for part in (IMAGE + "/initrd", "/tmp/mark.cpio"):
        with open(part, "rb") as f:
            out.write(f.read())
with open(DISK, "wb") as f:
    f.truncate(READS * 4096)
for n in range(ROUNDS):
    for each in ([OURS, *MACHINES] if n % 2 == 0 else [*reversed(MACHINES), OURS]):
        measure(each)
by_cause.begin()
for each in [OURS, *MACHINES]:
    measure_disk(each)
