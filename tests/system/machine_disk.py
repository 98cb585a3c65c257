#!/usr/bin/env python3
"""A machine's disk, with packed rings, by a store that is killed while the guest writes, a shell on the virtio console, and a machine
that is saved and loaded with its disk: the guest notices nothing."""
import os
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "lib"))
from machine import BIN, BOOT_S, Machine, fail, image  # noqa: E402

KILLS = 5
WRITE = ("dd if=/dev/urandom of=/tmp/x bs=1M count=16 2>/dev/null; for i in 0 1 2; do "
         "dd if=/tmp/x of=/dev/vda bs=64k seek=$((i*256)) conv=fsync 2>/dev/null; done; echo WRIT''TEN\n")
READ = ("echo 3 > /proc/sys/vm/drop_caches; for i in 0 1 2; do "
        "dd if=/dev/vda bs=64k skip=$((i*256)) count=256 2>/dev/null | cmp - /tmp/x || echo DIFF''ERS; done")

files = image()
room = tempfile.TemporaryDirectory(prefix="trivet-test-")
disk, path = os.path.join(room.name, "disk"), os.path.join(room.name, "socket")
with open(disk, "wb") as f:
    f.truncate(64 << 20)


def connect():
    s = socket.socket(socket.AF_UNIX)
    s.connect(path)
    return s


def start_store():
    """A store that serves, and a connection to it."""
    if os.path.exists(path):
        os.unlink(path)
    store = subprocess.Popen([os.path.join(BIN, "trivet-store"), "--disk", f"name=a,path={disk},socket={path},queues=2"],
                             stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + BOOT_S
    while True:
        try:
            return store, connect()
        except OSError:
            if time.monotonic() > deadline or store.poll() is not None:
                fail("the store does not come up")


def expect_same(m):
    answer = m.run(READ)
    if "DIFFERS" in answer or "EOF" in answer:
        fail("the disk does not hold what was written: " + answer, m)


store, connection = start_store()
try:
    m = Machine(files + "/kernel", files + "/initrd", "console=hvc0", cpus=2, disks=[("a", connection, 2)])
    connection.close()
    m.wait_for("'poweroff' ends it.")
    m.wait_for("# ")
    if "packed" not in m.run("[ $(cut -c35 /sys/class/block/vda/device/features) = 1 ] && echo pack''ed"):
        fail("the guest's driver has no packed rings", m)
    m.type(WRITE)
    for _ in range(KILLS):
        blocks = os.stat(disk).st_blocks
        deadline = time.monotonic() + 1
        while os.stat(disk).st_blocks == blocks and time.monotonic() < deadline:  # in the middle of its writing, if it still does
            pass
        store.kill()
        store.wait()
        m.call("machine.status")
        m.control.wait_notification("disk.disconnected")
        store, connection = start_store()
        m.call("disk.attach", {"name": "a"}, [connection.fileno()])
        connection.close()
    m.wait_for("WRITTEN")
    expect_same(m)
    print(f"ok: {KILLS} stores killed while the guest wrote, nothing lost")

    m.type("echo a-quiet-guest-$((1+1))\n")
    m.wait_for("# ", start=m.wait_for("a-quiet-guest-2"))  # nothing more to say: what is typed must get to hvc0 all the same
    saved = os.path.join(room.name, "saved")
    with open(saved, "wb") as f:
        m.call("machine.save", {"quit": True}, [f.fileno()])
    m.expect_end(0, "saved")
    connection = connect()
    m = Machine(restore=saved, cpus=2, disks=[("a", connection, 2)])
    connection.close()
    m.type("\n")
    expect_same(m)
    m.type("poweroff\n")
    m.expect_end(0, "shutdown")
    print("ok: saved and loaded with its disk")
finally:
    store.kill()
    store.wait()
