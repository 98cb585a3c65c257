#!/usr/bin/env python3
"""trivet disk: disks are made, copied, grown and converted, those of machines that run as well; what cannot be done changes nothing."""
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "lib"))
from command import STATE, TOP, fail, nothing_left, trivet, trivet_json, until, use_image, write  # noqa: E402

MB = 1 << 20


def path(name):
    return os.path.join(TOP, name)


def refused(words, *hints, status=2):
    done = trivet("disk", *words, status=status)
    for hint in hints:
        if hint not in done.stderr or len(done.stderr.strip().splitlines()) != 1:
            fail(f"trivet disk {' '.join(words)}: '{hint}' is not in: {done.stderr}")


def same(a, b, size):
    with open(a, "rb") as one, open(b, "rb") as other:
        if one.read(size) != other.read(size):
            fail(f"{a} and {b} differ")


def lines_of(name):
    return trivet("logs", name).stdout.splitlines()


# Disks that no machine has.
trivet("disk", "create", path("a.raw"), "--size", "10M")
with open(path("a.raw"), "r+b") as disk:
    disk.write(os.urandom(3 * MB))
if os.stat(path("a.raw")).st_blocks * 512 > 4 * MB:
    fail("a new disk is not sparse")
refused(["create", path("a.raw"), "--size", "1M"], "is there already")
refused(["create", path("b.raw")], "--size")
refused(["create", path("b.raw"), "--size", "1000"], "multiple of 512")
refused(["create", path("no/b.raw"), "--size", "1M"], path("no/b.raw"))
refused(["resize", path("a.raw"), "5M"], "not made smaller")
trivet("disk", "resize", path("a.raw"), "20M")
stat = trivet_json("disk", "stat", path("a.raw"))
if stat["size_bytes"] != 20 * MB or stat["running"] or stat["volume"]["type"] != "file":
    fail(f"stat: {stat}")
trivet("disk", "clone", path("a.raw"), path("b.raw"))
same(path("a.raw"), path("b.raw"), 20 * MB)
refused(["clone", path("a.raw"), path("b.raw")], "is there already")
refused(["clone", path("none.raw"), path("c.raw")], "none.raw")
trivet("disk", "create", "named", "--size", "1M")
if os.stat(os.path.join(STATE, "disks", "named.raw")).st_size != MB or trivet_json("disk", "stat", "named")["size_bytes"] != MB:
    fail("a disk of the state folder")
refused(["stat", "unnamed"], "unnamed.raw", "trivet disk create")
refused(["stat", "un/named"], "un/named")
refused(["frobnicate"], "frobnicate")
refused(["create"], "missing")
refused(["stat", "a", "b"], "unexpected 'b'")
print("ok: create, stat, resize, clone, and what is refused")

# Disks over a template.
trivet("disk", "create", path("blank.raw"), "--size", "20M")
trivet("disk", "create", path("over.volume"), "--over", path("blank.raw"))
trivet("disk", "create", path("over2.volume"), "--over", path("over.volume"), "--size", "40M")
trivet("disk", "create", "shares", "--over", path("blank.raw"))
stat = trivet_json("disk", "stat", path("over2.volume"))
if stat["size_bytes"] != 40 * MB or stat["volume"]["type"] != "overlay" or stat["volume"]["base"]["base"]["type"] != "file":
    fail(f"stat: {stat}")
if os.stat(path("over2.overlay")).st_blocks * 512 > MB or not os.path.exists(os.path.join(STATE, "disks", "shares.overlay")):
    fail("a disk over a template is not small, or not there")
refused(["create", path("x.volume"), "--over", path("blank.raw"), "--size", "1M"], "--size 1M")
refused(["create", path("x.raw"), "--over", path("blank.raw")], ".volume")
refused(["create", path("over.volume"), "--over", path("blank.raw")], "is there already")
refused(["clone", path("over.volume"), path("x.raw")], "--over", status=1)
trivet("disk", "export", path("over.volume"), path("x.qcow2"))
trivet("disk", "import", path("x.qcow2"), path("x.raw"))
same(path("x.raw"), path("blank.raw"), 20 * MB)
use_image()
for name in ("over", "over2"):
    done = trivet("run", "--image", "busybox", "--memory", "128M", "--append", "quiet trivet.check=poweroff", "--disk", path(name + ".volume"))
    if "TRIVET-CHECK failed" in done.stdout or ("TRIVET-CHECK ok earlier" in done.stdout) != (name == "over2"):
        fail(f"a machine on {name}: {done.stdout}")
    # The second lies on the first, which is its template from here on.
    if name == "over":
        trivet("disk", "create", path("third.volume"), "--over", path("over.volume"))
        os.unlink(path("over2.volume"))
        os.unlink(path("over2.overlay"))
        trivet("disk", "create", path("over2.volume"), "--over", path("over.volume"), "--size", "40M")
trivet("disk", "resize", path("over2.volume"), "100M")
if trivet_json("disk", "stat", path("over2.volume"))["size_bytes"] != 100 * MB:
    fail("an overlay does not grow")
with open(path("blank.raw"), "rb") as disk:
    if any(disk.read()):
        fail("the template was written to")
with open(path("blank.raw"), "r+b") as disk:
    disk.write(b"changed")
trivet("disk", "stat", path("third.volume"), status=1)
refused(["stat", path("over.volume")], "was written to", status=1)
with open(path("blank.raw"), "r+b") as disk:
    disk.write(bytes(7))
trivet("disk", "stat", path("over.volume"))
print("ok: disks over a template, one over another, and a template that changed")

# The same by a file of up: made once, and kept.
trivet("disk", "create", path("template.raw"), "--size", "24M")
shares = """
disks:
  one: {over: template.raw, size: 32M}
  two: {over: template.raw, path: two.volume}
machines:
  one: {image: busybox, append: 'quiet trivet.check', memory: 128M, disks: [one]}
  two: {image: busybox, append: 'quiet trivet.check', memory: 128M, disks: [two]}
"""
for turn in (1, 2):
    trivet("up", write("over.yaml", shares))
    for name in ("one", "two"):
        until(f"{name} has looked at its disk", lambda: any(" ok done" in line for line in lines_of(name)))
        if ("TRIVET-CHECK ok earlier" in trivet("logs", name).stdout) != (turn == 2):
            fail(f"turn {turn}: {trivet('logs', name).stdout}")
    if [trivet_json("disk", "stat", name)["size_bytes"] for name in ("one", "two")] != [32 * MB, 24 * MB]:
        fail("disks over a template are not as large as the file says")
    trivet("down")
    nothing_left()
if not os.path.exists(os.path.join(STATE, "disks", "one.volume")) or any(open(path("template.raw"), "rb").read()):
    fail("a disk over a template is not where it should be, or that was written to")
for old, new, hint in (("over: template.raw, path: two.volume", "over: none.raw, path: new.volume", "disk 'two'"),
                       ("over: template.raw, size: 32M", "over: template.raw, path: new.volume, size: 1M", "--size"),
                       ("path: two.volume", "path: two.raw", "over.yaml:4"), ("path: two.volume", "from: image busybox", "over.yaml:4")):
    done = trivet("up", write("over.yaml", shares.replace(old, new)), status=2)
    if hint not in done.stderr or len(done.stderr.splitlines()) != 1:
        fail(f"{new}: '{hint}' is not in: {done.stderr}")
    nothing_left()
print("ok: disks over a template by a file")

# A guest's check whose machine is killed while it writes begins anew the next time, as often as it takes.
slow = write("slow.yaml", """
disks:
  checked: {size: 32M, promises: {limit: 1MB/s}}
machines:
  one: {image: busybox, append: 'quiet trivet.check', memory: 128M, disks: [checked]}
""")
trivet("up", slow)
for kilobytes in (300, 900, 1800, 2700, 3600):
    until("the check is writing", lambda: trivet_json("disk", "stat", "checked")["written_bytes"] > kilobytes * 1000)
    trivet("kill", "one")
    if "TRIVET-CHECK ok done" in trivet("logs", "one").stdout:
        fail("the check was through before it was killed")
    trivet("start", "one")
trivet("disk", "promise", "checked", "")
until("the check is through", lambda: any(" ok done" in line or " failed" in line for line in lines_of("one")))
if "TRIVET-CHECK failed" in trivet("logs", "one").stdout:
    fail(f"a check that begins anew: {trivet('logs', 'one').stdout}")
trivet("down")
nothing_left()
print("ok: a guest's check after its machine was killed in the middle of it")

# Other formats.
for name in ("qcow2", "vmdk", "vdi", "vhdx"):
    trivet("disk", "export", path("a.raw"), path("a." + name))
    trivet("disk", "import", path("a." + name), path(name + ".raw"))
    same(path("a.raw"), path(name + ".raw"), 20 * MB)
trivet("disk", "export", path("a.raw"), path("a.img"), "--format", "qcow2")
trivet("disk", "import", path("a.img"), path("img.raw"), "--format", "qcow2")
same(path("a.raw"), path("img.raw"), 20 * MB)
refused(["import", path("none.qcow2"), path("c.raw")], "none.qcow2")
refused(["import", path("a.raw"), path("c.raw"), "--format", "zip"], "zip", "qcow2")
refused(["import", path("a.raw"), path("c.raw"), "--format", "qcow2"], "a.raw", status=1)
refused(["export", path("a.raw"), path("a.qcow2")], "is there already")
refused(["export", path("a.raw"), path("a")], "--format")
subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", "/etc/passwd", "-F", "raw", path("evil.qcow2")], check=True)
refused(["import", path("evil.qcow2"), path("c.raw")], "/etc/passwd", "trust")
write("evil.vmdk", '# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType="monolithicFlat"\n'
      'RW 2 FLAT "/etc/passwd" 0\nddb.geometry.cylinders = "1"\nddb.geometry.heads = "1"\nddb.geometry.sectors = "2"\n')
refused(["import", path("evil.vmdk"), path("c.raw")], "/etc/passwd", "trust")
if os.path.exists(path("c.raw")) or os.path.exists(path("c.raw.new")):
    fail("something is left of what was refused")
nothing_left()
print("ok: qcow2, VMDK, VDI and VHDX out and in; images that name other files")

# Disks of a machine that runs.
write("grows.volume", '{"type": "file", "path": "grows.raw"}')
trivet("disk", "create", path("grows.raw"), "--size", "16M")
trivet("up", write("one.yaml", f"""
disks:
  grows: {{path: grows.volume}}
machines:
  one: {{image: busybox, append: 'quiet trivet.check', memory: 64M, disks: [grows]}}
"""))
refused(["clone", path("grows.raw"), path("c.raw")], "grows.raw", status=1)
refused(["export", path("grows.raw"), path("c.qcow2")], "lock", status=1)
stat = trivet_json("disk", "stat", "grows")
if not stat["running"] or stat["size_bytes"] != 16 * MB or stat["specification"]["path"] != path("grows.raw"):
    fail(f"stat of a running machine's disk: {stat}")
trivet("disk", "resize", path("grows.volume"), "24M")
if trivet_json("disk", "stat", "one.grows")["size_bytes"] != 24 * MB or os.stat(path("grows.raw")).st_size != 24 * MB:
    fail("the running machine's disk has not grown")
trivet("kill", "one")
if trivet_json("disk", "stat", "one.grows")["running"]:
    fail("the disk of a machine that was killed counts as running")
trivet("disk", "resize", "grows", "32M")
trivet("down")
until("the machine's disk is free", lambda: trivet_json("disk", "stat", path("grows.volume"))["size_bytes"] == 32 * MB, 60)
nothing_left()
print("ok: disks of machines that run, by their names and paths")
