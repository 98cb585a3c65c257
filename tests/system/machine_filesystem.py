#!/usr/bin/env python3
"""Disks of a machine: a file system check writes, reads and verifies while the machine is saved and loaded in a new process, and while
the store is killed and started again; nothing is lost."""
import os
import shutil
import socket
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "lib"))
import machine  # noqa: E402
from machine import BIN, BOOT_S, Machine, fail, image  # noqa: E402

files = image()


class Store:
    """trivet-store by itself, serving images of one folder."""

    def __init__(self, folder, **sizes):
        self.folder = folder
        self.names = ["root"] + list(sizes)
        shutil.copyfile(files + "/disk.raw", self.path("root.raw"))
        for name, size in sizes.items():
            with open(self.path(name + ".raw"), "wb") as f:
                f.truncate(size)
        self.start()

    def path(self, what):
        return os.path.join(self.folder, what)

    def start(self):
        command = [os.path.join(BIN, "trivet-store")]
        for name in self.names:
            command += ["--disk", f"name={name},path={self.path(name + '.raw')},socket={self.path(name + '.sock')},queues=2"]
        with open(self.path("store.log"), "a") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=log)
        machine.started(self.process)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def connect(self, name):
        deadline = time.monotonic() + BOOT_S
        while True:  # until it listens
            s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                s.connect(self.path(name + ".sock"))
                return s
            except (FileNotFoundError, ConnectionRefusedError):
                s.close()
                if time.monotonic() > deadline or self.process.poll() is not None:
                    fail("the store does not serve")
                time.sleep(0.02)

    def disks(self):
        return [(name, self.connect(name), 2) for name in self.names]


def wait_checks(m, n, start=0):
    """Until the guest's check has been through n times from `start` on."""
    for _ in range(n):
        start = m.wait_for("TRIVET-CHECK ok done", start=start)
    return start


def boot(store, cpus):
    m = Machine(files + "/kernel", files + "/initrd", "console=ttyS0 root=/dev/vda rw", cpus=cpus, disks=store.disks())
    m.wait_for("# ", start=m.wait_for("'poweroff' ends it."))
    m.type("(until [ -e /tmp/stop ]; do trivet.check /dev/vdb || break; done; echo CHECKS-$((1+1))-END) &\n")
    wait_checks(m, 1)
    return m


def finish(m):
    m.type("touch /tmp/stop\n")
    m.wait_for("CHECKS-2-END")
    if b"TRIVET-CHECK failed" in m.output or b"I/O error" in m.output:
        fail("the guest's files are damaged", m)
    m.type("poweroff\n")
    m.expect_end(0, "shutdown", timeout=BOOT_S)


def check_save(cpus):
    store = Store(machine.folder(), data=64 << 20)
    m = boot(store, cpus)
    for _ in range(2):
        path = m.path("saved")
        with open(path, "wb") as f:
            m.call("machine.save", {"quit": True}, [f.fileno()])
        m.expect_end(0, "saved")
        loaded = Machine(restore=path, cpus=cpus, disks=store.disks(), name="loaded")
        wait_checks(loaded, 2)
        m = loaded
    finish(m)
    store.kill()
    print(f"ok: saved and loaded twice amid disk requests, {cpus} vcpu(s)")


def check_store_killed(cpus):
    store = Store(machine.folder(), data=64 << 20)
    m = boot(store, cpus)
    m.call("machine.status")
    for _ in range(3):
        store.kill()
        for _ in store.names:
            m.control.wait_notification("disk.disconnected")
        store.start()
        for name in store.names:
            s = store.connect(name)
            m.call("disk.attach", {"name": name}, [s.fileno()])
            s.close()
        wait_checks(m, 2, start=len(m.output))
    finish(m)
    store.kill()
    print(f"ok: the store killed three times, {cpus} vcpu(s)")


check_save(4)
check_store_killed(2)
