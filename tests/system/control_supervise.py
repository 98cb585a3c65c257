#!/usr/bin/env python3
"""trivetd: up is idempotent; kill -9 of trivetd touches no machine; the store comes back; pause, save, restore, stop, restart, down."""
import os
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "lib"))
from command import STATE, TOP, fail, nothing_left, ours, trivet, trivet_json, until, use_image, write  # noqa: E402

FILE = """
tenants: {a: , b: }
networks: {lan: {tenant: a}}
disks:
  one-root: {from: image busybox, path: one-root.raw}
  one-data: {size: 64M, serial: ONE}
machines:
  one: {tenant: a, image: busybox, append: quiet trivet.check, memory: 128M, disks: [one-root, one-data], restart: on-failure}
  two: {tenant: b, image: busybox, append: quiet, memory: %s}
"""


def machines():
    return {m["name"]: m for m in trivet_json("ps")["machines"]}


def pid_of(name):
    return [pid for pid, comm in ours().items() if comm == name]


def log(name):
    return trivet("logs", name).stdout


use_image()
file = write("two.yaml", FILE % "128M")
first = trivet_json("up", file)
if [c["result"] for c in first["changes"]] != ["created", "created"]:
    fail(f"first up: {first['changes']}")
pids = {name: m["pid"] for name, m in machines().items()}
until("the guests' shells", lambda: all("'poweroff' ends it." in log(name) for name in pids))
if "TRIVET-CHECK ok done" not in log("one"):
    fail("the check of machine 'one':\n" + log("one"))
print("ok: up, both machines booted, the check passed")

again = trivet_json("up", file)
if [c["result"] for c in again["changes"]] != ["unchanged", "unchanged"] or {n: m["pid"] for n, m in machines().items()} != pids:
    fail(f"second up: {again['changes']}")
print("ok: up again changes nothing")

# trivetd is killed; the machines do not notice.
os.kill(pid_of("trivetd")[0], signal.SIGKILL)
until("trivetd gone", lambda: not pid_of("trivetd"))
if sorted(pid_of("trivet-machine")) != sorted(pids.values()):
    fail("a machine went with trivetd")
trivet("ps") # starts it again
until("both taken over", lambda: all(m["state"] == "running" for m in machines().values()))
if {n: m["pid"] for n, m in machines().items()} != pids:
    fail("a machine was started anew after trivetd was killed")
before = trivet_json("top", "--once")["machines"]
if not all(m.get("uptime_ns", 0) > 0 and m["vcpus"][0]["instructions"] > 0 for m in before):
    fail(f"top after taking over: {before}")
print("ok: kill -9 of trivetd, machines taken over")

# The store is killed; its disks come back to the running guest.
store = pid_of("trivet-store")[0]
os.kill(store, signal.SIGKILL)
until("another store", lambda: pid_of("trivet-store") not in ([], [store]))
trivet("stop", "one", "--timeout", "180")
if machines()["one"]["exit"] != 0:
    fail(f"machine 'one' after its store was killed: {machines()['one']}")
trivet("start", "one")
until("the earlier files verified", lambda: "TRIVET-CHECK ok earlier 36 files verified" in log("one"))
until("the shell again", lambda: log("one").count("'poweroff' ends it.") == 2)
print("ok: kill -9 of the store, stop and start, the files are there")

# Pause, resume, save and restore.
trivet("pause", "two")
if machines()["two"]["state"] != "paused":
    fail(f"paused: {machines()['two']}")
trivet("resume", "two")
saved = os.path.join(TOP, "two.saved")
trivet("save", "two", saved)
trivet("kill", "two")
if machines()["two"]["state"] != "stopped":
    fail(f"killed: {machines()['two']}")
trivet("restore", "two", saved)
if machines()["two"]["state"] != "running" or log("two").count("'poweroff' ends it.") != 1:
    fail(f"restored: {machines()['two']}")
trivet("stop", "two")
trivet("start", "nobody", status=2)
print("ok: pause, resume, save, kill, restore, stop")

# What fails is started again when its policy says so.
old = machines()["one"]["pid"]
os.kill(old, signal.SIGKILL)
until("started again", lambda: machines()["one"]["pid"] not in (0, old))
if machines()["one"]["restarts"] != 1:
    fail(f"restarted: {machines()['one']}")
print("ok: restart on failure")

# A changed file changes the machine; down takes all away.
changed = trivet_json("up", write("two.yaml", FILE % "160M"))
if [c["result"] for c in changed["changes"]] != ["unchanged", "changed"] or machines()["two"]["memory_bytes"] != 160 << 20:
    fail(f"changed up: {changed['changes']}")
trivet("kill", "one")
trivet("down", "--timeout", "60")
nothing_left()
if os.listdir(STATE + "/logs"):
    fail(f"logs left: {os.listdir(STATE + '/logs')}")
trivet("down")
print("ok: a changed file, down, nothing left")
