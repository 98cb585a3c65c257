#!/usr/bin/env python3
"""A hostile guest (guest.c) on a real engine, with a disk of a store's: whatever it does costs its own devices only. It makes random accesses,
and its devices serve it afterwards; so does the store another machine. hostile.py BUILD [ENGINE KERNEL]; without, it runs in the outer system of ../kvm/rig.py, see ../kvm/hostile.py.

ACCESSES (200000; 10^7 take rv64 half a minute, and KVM in an emulated host half an hour) and SEED say how many, and which.
"""
import os
import re
import socket
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from machine import BIN, BOOT_S, Machine, fail, folder, started  # noqa: E402

ENGINE, KERNEL = sys.argv[2:] or ("kvm", sys.argv[1] + "/hostile_x86_64")
ACCESSES, SEED = int(os.environ.get("ACCESSES", "200000")), int(os.environ.get("SEED", "1"))
START = time.monotonic()
TIMEOUT_S = BOOT_S + ACCESSES // 1000
LOG = folder() + "/store.log"


def failed(message, machine=None):
    with open(LOG, encoding="utf-8") as log:
        print("--- the store\n" + log.read()[-2000:])
    fail(message, machine)


def start_store():
    paths = [folder() + "/" + name for name in "ab"]
    words = [word for name, path in zip("ab", paths) for word in ("--disk", f"name={name},socket={path},queues=1", "--volume",
                                                                  f'{name}={{"type": "ram", "size_bytes": 1048576}}')]
    with open(LOG, "w", encoding="utf-8") as log:
        store = subprocess.Popen([BIN + "/trivet-store", "--io", "threads", *words], stderr=log)
    started(store)
    return store, paths


def connect(store, path):
    while store.poll() is None:
        try:
            s = socket.socket(socket.AF_UNIX)
            s.connect(path)
            return s
        except OSError:
            time.sleep(0.05)
    failed("the store has ended")
    return None


def run(store, path, accesses):
    s = connect(store, path)
    m = Machine(KERNEL, append=f"seed={SEED} accesses={accesses}", memory=64 << 20, engine=ENGINE, disks=[("a", s, 1)])
    s.close()
    end = m.wait_for(".\n", start=m.wait_for(" accesses; entropy ", TIMEOUT_S))
    made, works = re.search(rb"made (\d+) accesses; (entropy .*)\.", m.output[:end]).groups()
    if int(made) < accesses or works != b"entropy works, disk works":
        failed(f"{made.decode()} of {accesses} accesses, then: {works.decode()}", m)
    m.expect_end(0, "shutdown")
    return int(made)


the_store, (hostile, other) = start_store()
n = run(the_store, hostile, ACCESSES)
print(f"ok: {n} hostile accesses, seed {SEED}; the devices serve after them")
run(the_store, other, 0)
if the_store.poll() is not None:
    failed("the store has ended")
with open(LOG, encoding="utf-8") as f:
    if (lines := f.read().count("broken by its driver")) > 30 + (time.monotonic() - START) / 10:
        failed(f"the guest filled {lines} lines of the store's log")
print("ok: and so does the store another machine")
