#!/usr/bin/env python3
"""A store that hangs holds up the machines whose disks it has, and nobody else: trivetd goes on answering."""
import os
import signal
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "lib"))
from command import BOOT_S, ENV, TRIVET, fail, nothing_left, ours, trivet, trivet_json, until, use_image, write  # noqa: E402

FILE = """
disks:
  one-data: {size: 64M}
  two-data: {size: 64M}
machines:
  bare: {image: busybox, append: quiet, memory: 64M}
  one: {image: busybox, append: quiet, memory: 64M, disks: [one-data]}
  two: {image: busybox, append: quiet, memory: 64M, disks: [two-data]}
"""


def states():
    return {m["name"]: m["state"] for m in trivet_json("ps")["machines"]}


def store_pid():
    pids = [pid for pid, comm in ours().items() if comm == "trivet-store"]
    return pids[0] if len(pids) == 1 else fail(f"stores: {pids}")


def is_stopped(pid):
    with open(f"/proc/{pid}/stat") as f:
        return f.read().rsplit(")", 1)[1].split()[0] == "T"


def hang(pid):
    os.kill(pid, signal.SIGSTOP)
    until("the store stands still", lambda: is_stopped(pid), 60)


use_image()
trivet("up", write("three.yaml", FILE))
trivet("kill", "two")
if states() != {"bare": "running", "one": "running", "two": "stopped"}:
    fail(f"at first: {states()}")
top = {m["name"]: m for m in trivet_json("top", "--once")["machines"]}
if [d["name"] for d in top["one"]["disks"]] != ["one-data"] or "read_bps" not in top["one"]:
    fail(f"top: {top['one']}")

# A start that waits for the store, and all that is done meanwhile.
store = store_pid()
hang(store)
waiting = subprocess.Popen([TRIVET, "start", "two"], env=ENV, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                           text=True)
until("'two' is being started", lambda: states()["two"] == "starting")
trivet("pause", "bare")
if states() != {"bare": "paused", "one": "running", "two": "starting"}:
    fail(f"while the store hangs: {states()}")
trivet("resume", "bare")
top = {m["name"]: m for m in trivet_json("top", "--once")["machines"]}
if "read_bps" in top["one"] or top["one"]["vcpus"][0]["instructions"] == 0:
    fail(f"top while the store hangs: {top['one']}")
trivet("kill", "bare")
trivet("start", "bare")
if waiting.poll() is not None:
    fail(f"the start has not waited: exit status {waiting.returncode}, {waiting.stderr.read()}")
os.kill(store, signal.SIGCONT)
_, error = waiting.communicate(timeout=BOOT_S)
if waiting.returncode != 0 or states() != {"bare": "running", "one": "running", "two": "running"}:
    fail(f"the store goes on: exit status {waiting.returncode}, {error}, {states()}")
until("the disks' counters again", lambda: all("read_bps" in m for m in trivet_json("top", "--once")["machines"]), 60)
print("ok: ps, top, pause, resume, kill and start while the store hangs, and a start that waits for it")

# A start that is taken back, and one that waits as long as it does.
trivet("kill", "two")
hang(store)
waiting = subprocess.Popen([TRIVET, "start", "two"], env=ENV, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                           text=True)
until("'two' is being started", lambda: states()["two"] == "starting")
trivet("stop", "two")
_, error = waiting.communicate(timeout=BOOT_S)
if waiting.returncode != 1 or "was stopped" not in error or states()["two"] != "stopped":
    fail(f"a start taken back: exit status {waiting.returncode}, {error}, {states()}")
done = trivet("start", "two", status=1)
if "two-data" not in done.stderr or "does not answer" not in done.stderr or f"kill -9 {store}" not in done.stderr:
    fail(f"a start with a store that hangs: {done.stderr}")
if len(done.stderr.splitlines()) != 1 or states()["two"] != "stopped":
    fail(f"a start with a store that hangs: {done.stderr}, {states()}")
print("ok: a start that is taken back, and one that the store leaves without an answer")

# What the message says helps.
os.kill(store, signal.SIGKILL)
until("another store", lambda: [pid for pid, comm in ours().items() if comm == "trivet-store"] not in ([], [store]))
trivet("start", "two")
print("ok: the store killed, the machine starts")

# A store that hangs for ever is not left behind.
hang(store_pid())
trivet("kill", "--all")
trivet("down")
nothing_left()
print("ok: nothing left of a store that hangs")
