#!/usr/bin/env python3
"""trivet disk snapshot, snapshots, revert, drop: of disks that no machine has and of one that runs; what cannot be done changes nothing."""
import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "lib"))
from command import TOP, fail, nothing_left, trivet, trivet_json, until, use_image, write  # noqa: E402

MB = 1 << 20


def path(name):
    return os.path.join(TOP, name)


def refused(words, *hints, status=2):
    done = trivet("disk", *words, status=status)
    for hint in hints:
        if hint not in done.stderr or len(done.stderr.strip().splitlines()) != 1:
            fail(f"trivet disk {' '.join(words)}: '{hint}' is not in: {done.stderr}")


def names(disk):
    return [s["name"] for s in trivet_json("disk", "snapshots", disk)]


def content(volume):
    trivet("disk", "export", volume, path("content.raw"))
    with open(path("content.raw"), "rb") as f:
        found = f.read()
    os.unlink(path("content.raw"))
    return found


def files():
    return sorted(f for f in os.listdir(TOP) if f not in ("run", "state"))


def check(disk, earlier):
    """A machine writes a file and syncs it, or finds that of an earlier one."""
    done = trivet("run", "--image", "busybox", "--memory", "128M", "--append", "quiet trivet.check=poweroff", "--disk", disk)
    if "TRIVET-CHECK failed" in done.stdout or ("TRIVET-CHECK ok earlier" in done.stdout) != earlier:
        fail(f"a machine on {disk}: {done.stdout}")


# Disks that no machine has.
use_image()
x = path("x.volume")
trivet("disk", "create", x, "--size", "40M")
trivet("disk", "create", path("raw.raw"), "--size", "1M")
refused(["snapshot", path("raw.raw"), "s"], "--over")
refused(["snapshot", x, "a/b"], "a/b")
refused(["snapshot", path("none.volume"), "s"], "none.volume")
refused(["revert", x, "none"], "x@none.volume")
refused(["drop", x, "none"], "x@none.volume")
if files() != ["raw.raw", "x.overlay", "x.volume"]:
    fail(f"something is left of what was refused: {files()}")
trivet("disk", "snapshot", x, "blank")
check(x, earlier=False)
trivet("disk", "snapshot", x, "checked")
before = files()
refused(["snapshot", x, "checked"], "is there already")
if files() != before:
    fail(f"something is left of what was refused: {files()}")
if names(x) != ["blank", "checked"]:
    fail(f"snapshots: {names(x)}")
checked = content(x)
check(x, earlier=True)
trivet("disk", "revert", x, "blank")
if any(content(x)):
    fail("the disk is not what it was at first")
check(x, earlier=False)
trivet("disk", "revert", x, "checked")
if content(x) != checked:
    fail("the disk is not what it was after the first machine")
check(x, earlier=True)
trivet("disk", "create", path("y.volume"), "--over", path("x@checked.volume"))
trivet("disk", "resize", x, "60M")
print("ok: snapshots and back to them")

# What lies on a snapshot takes over what it has when it goes, and that is all it takes.
x_content, y_content = content(x), content(path("y.volume"))
trivet("disk", "drop", x, "checked")
if names(x) != ["blank"] or content(x) != x_content or content(path("y.volume")) != y_content:
    fail("a snapshot that was dropped is missing in what lay on it")
trivet("disk", "drop", x, "blank")
if names(x) or content(x) != x_content or content(path("y.volume")) != y_content:
    fail("a snapshot that was dropped is missing in what lay on it")
if sorted(os.path.basename(f) for f in files() if "overlay" in f) != ["x.2.overlay", "y.overlay"]:
    fail(f"files are left: {files()}")
if any(json.load(open(path(f)))["base"]["type"] != "null" for f in ("x.volume", "y.volume")):
    fail("the disks have other bases than the first")
with open(x, "r+b") as held:
    subprocess.run(["flock", "--exclusive", "--nonblock", str(held.fileno())], pass_fds=[held.fileno()], check=True)
    refused(["snapshot", x, "s"], "another command", status=1)
write("loop.volume", '{"type": "file", "path": "loop.volume"}')
refused(["stat", path("loop.volume")], "loop.volume", "itself", status=1)
print("ok: snapshots dropped")

# The disk of a machine that runs.
trivet("up", write("one.yaml", """
disks:
  x: {path: x.volume}
machines:
  one: {image: busybox, append: 'quiet trivet.check', memory: 128M, disks: [x]}
"""))
until("the machine has looked at its disk", lambda: "TRIVET-CHECK ok done" in trivet("logs", "one").stdout)
trivet("disk", "snapshot", "x", "live")
trivet("disk", "snapshot", "one.x", "later")
live = content(path("x@live.volume"))
if live[1024 + 56:1024 + 58] != b"\x53\xef":  # an ext4's magic number
    fail("the snapshot has no file system")
refused(["revert", "x", "live"], "stop it", status=1)
refused(["drop", "x", "live"], "in use by", status=1)  # the later one lies on it, and that is read by the machine's store
trivet("disk", "drop", "x", "later")
if names("x") != ["live"] or content(path("x@live.volume")) != live:
    fail("a snapshot of a running machine's disk is not what it was")
stat = trivet_json("disk", "stat", "x")
if not stat["running"] or stat["volume"]["type"] != "overlay" or stat["errors"]:
    fail(f"stat: {stat}")
trivet("kill", "one")
trivet("start", "one")
until("the machine has looked at its disk again", lambda: trivet("logs", "one").stdout.count("TRIVET-CHECK ok done") >= 2)
trivet("down")
nothing_left()
check(x, earlier=True)
trivet("disk", "drop", x, "live")
check(x, earlier=True)
nothing_left()
print("ok: snapshots of a machine that runs")
