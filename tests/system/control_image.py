#!/usr/bin/env python3
"""trivet image build: whole or not there, by signed packages alone, cached."""
import json
import os
import signal
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "lib"))
from command import ENV, STATE, TRIVET, fail, nothing_left, skip, trivet  # noqa: E402

images = os.path.join(STATE, "images")


def parts():
    return sorted(n for n in os.listdir(images) if n != ".lock") if os.path.isdir(images) else []


# A mirror that does not answer: one line, nothing left.
done = trivet("image", "build", "busybox", "--quiet", "--mirror", "http://127.0.0.1:9/debian", status=1)
if len(done.stderr.splitlines()) != 1 or "--mirror" not in done.stderr or parts():
    fail(f"no mirror: {done.stderr} {parts()}")

# A mirror whose index nobody signed is refused.
mirror = os.path.join(STATE, "unsigned")
index = os.path.join(mirror, "dists", "trixie", "main", "binary-riscv64")
os.makedirs(index)
open(os.path.join(index, "Packages"), "w").close()
with open(os.path.join(mirror, "dists", "trixie", "Release"), "w") as f:
    f.write("Origin: Debian\nSuite: trixie\nCodename: trixie\nArchitectures: riscv64\nComponents: main\nDate: Sat, 01 Aug 2026 00:00:00 UTC\n"
            "SHA256:\n e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 0 main/binary-riscv64/Packages\n")
done = trivet("image", "build", "busybox", "--quiet", "--mirror", "file://" + mirror, status=1)
if "not signed" not in done.stderr or parts():
    fail(f"an unsigned mirror: {done.stderr} {parts()}")
print("ok: no mirror and an unsigned one")

built = subprocess.run([TRIVET, "image", "build", "busybox", "--json", "--quiet"], env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                       text=True)
if built.returncode != 0 and "mirror" in built.stderr:
    skip("no mirror of the distribution to be reached: " + built.stderr.strip())
if built.returncode != 0:
    fail(built.stderr)
image = json.loads(built.stdout)
for name in ("kernel", "initrd", "disk.raw", "image.json"):
    if os.path.getsize(os.path.join(image["dir"], name)) == 0:
        fail(f"{name} is empty")
check = subprocess.run(["/sbin/e2fsck", "-fn", image["dir"] + "/disk.raw"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
if check.returncode != 0:
    fail("the disk's file system: " + check.stdout)
print("ok: built", image["kernel_version"])

# The second time nothing is asked of anyone: a mirror that does not answer does not matter.
trivet("image", "build", "busybox", "--quiet", "--mirror", "http://127.0.0.1:9/debian")

# Interrupted while it builds again: the old image stays whole, nothing half beside it.
before = parts()
kernel = os.stat(image["dir"] + "/kernel")
again = subprocess.Popen([TRIVET, "image", "build", "busybox", "--rebuild"], env=ENV, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
line = said = again.stderr.readline()
while "unpacking" not in line:
    if not line:
        (skip if "mirror" in said else fail)(f"the second build ended before it unpacked: exit status {again.wait()}\n{said}")
    line = again.stderr.readline()
    said += line
again.send_signal(signal.SIGINT)
again.stderr.read()
if again.wait(60) != 128 + signal.SIGINT:
    fail(f"interrupted: exit status {again.returncode}")
if parts() != before or os.stat(image["dir"] + "/kernel").st_ino != kernel.st_ino:
    fail(f"interrupted: {parts()} instead of {before}")
nothing_left()
print("ok: cached, and interrupted without a trace")
