#!/usr/bin/env python3
"""Disks that take long to be opened hold up nobody: while one machine's file system grows, trivetd answers, and another machine starts, runs and
ends; what was stopped meanwhile does not start; and what waits is opened when its turn comes."""
import os
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "lib"))
from command import ENV, STATE, TOP, fail, nothing_left, skip, trivet, trivet_json, until, use_image, write  # noqa: E402

# A resize2fs that waits for a file, found before the real one.
real = shutil.which("resize2fs", path="/usr/sbin:/sbin:" + os.environ["PATH"])
if not real:
    skip("resize2fs is missing; it is in Debian's e2fsprogs")
os.mkdir(os.path.join(TOP, "bin"))
go, called = os.path.join(TOP, "go"), os.path.join(TOP, "called")
shim = write("bin/resize2fs", f"""#!/bin/sh
echo "$@" >>{called}
until [ -e {go} ]; do sleep 0.05; done
exec {real} "$@"
""")
os.chmod(shim, 0o755)
ENV["PATH"] = os.path.join(TOP, "bin") + ":" + ENV["PATH"]


def states():
    return {m["name"]: m["state"] for m in trivet_json("ps")["machines"]}


def start(name):
    """In the background: `trivet up` waits until its machines run."""
    return subprocess.Popen([os.path.join(sys.argv[1], "bin", "trivet"), "up", os.path.join(TOP, name)], env=ENV, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)


use_image()
write("quick.yaml", "machines: {quick: {image: busybox, append: quiet, memory: 64M}}\n")
write("slow.yaml", """
disks: {slow-root: {from: image busybox, size: 300M}, other: {size: 1M}}
machines: {slow: {image: busybox, append: quiet, memory: 128M, disks: [slow-root, other]}}
""")
write("late.yaml", """
disks: {late-root: {from: image busybox, size: 300M}}
machines: {late: {image: busybox, append: quiet, memory: 128M, disks: [late-root]}}
""")
write("never.yaml", """
disks: {never-root: {from: image busybox, size: 300M}}
machines: {never: {image: busybox, append: quiet, memory: 128M, disks: [never-root]}}
""")
slow = start("slow.yaml")
until("the file system to be grown", lambda: os.path.exists(called))
late, never = start("late.yaml"), None
until("another one to wait", lambda: "late" in states())
never = start("never.yaml")
until("a third to wait", lambda: "never" in states())
trivet("up", os.path.join(TOP, "quick.yaml"))
if states()["quick"] != "running":
    fail(f"a machine without disks does not start while another's are opened: {states()}")
trivet("pause", "quick")
trivet("resume", "quick")
trivet("kill", "never")
trivet("kill", "quick")
if slow.poll() is not None or late.poll() is not None or "running" in states().values():
    fail(f"machines run whose disks are not open: {states()}")
with open(called) as f:
    if len(f.readlines()) != 1:
        fail("two file systems are grown at once")
open(go, "w").close()
for up in (slow, late):
    out, err = up.communicate(timeout=240)
    if up.returncode:
        fail(f"a machine whose disks were long in opening: {out}{err}")
out, err = never.communicate(timeout=240)
if never.returncode != 1 or "was stopped before its disks were open" not in err:
    fail(f"a machine that was stopped while its disks were opened: {never.returncode} {out}{err}")
now = states()
if now["slow"] != "running" or now["late"] != "running" or now.get("never", "stopped") != "stopped":
    fail(f"at last: {now}")
if any(os.stat(os.path.join(STATE, "disks", f"{name}-root.raw")).st_size != 300 << 20 for name in ("slow", "late")):
    fail("a disk was not grown")
trivet("kill", "--all")
trivet("down")
nothing_left()
print("ok: disks that are long in opening hold up nobody")
