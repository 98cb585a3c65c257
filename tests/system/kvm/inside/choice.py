#!/usr/bin/env python3
"""Which engine a machine gets where KVM works, and what of the processor its guest sees. Runs in the outer system of rig.py, after
engine.py."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../lib"))
IMAGE = os.environ["TRIVET_STATE_DIR"] + "/images/busybox-amd64"
from command import STATE, fail, nothing_left, trivet, trivet_json, until, write  # noqa: E402
from machine import Viewer  # noqa: E402

os.makedirs(STATE + "/images")
os.symlink(IMAGE, STATE + "/images/busybox-amd64")
trivet("up", write("one.yaml", "machines:\n  one: {image: busybox, cpu: x86-64-v2, memory: 128M}\n"))
(machine,) = trivet_json("ps")["machines"]
if machine["engine"] != "kvm" or machine["engine_why"] != "KVM works here":
    fail(f"an image that is for both is not run by KVM: {machine}")
if "kvm     KVM works here" not in trivet("ps", "--engines").stdout or " kvm " not in trivet("ps").stdout:
    fail("ps does not say so")
print("ok: an image that is there for x86-64 runs by KVM where that works")

viewer = Viewer(machine["console"])
until("a shell", lambda: viewer.read(1) and b"# " in viewer.output)
viewer.socket.sendall(b"grep -m1 ^flags /proc/cpuinfo; echo that is' 'all\n")
until("its flags", lambda: viewer.read(1) and b"that is all" in viewer.output)
flags = viewer.output.split(b"flags\t\t:")[1].split(b"\n")[0].decode().split()
there, hidden = ("sse4_2", "ssse3", "popcnt", "cx16", "x2apic", "rdtscp"), ("aes", "pclmulqdq", "rdrand", "fsgsbase", "bmi1", "smep", "adx")
wrong = [name for name in there if name not in flags] + [name for name in hidden if name in flags]
if wrong:
    fail(f"level x86-64-v2, but {wrong}: {flags}")
print("ok: a guest sees what is in its level of features, and not what its host has besides")
trivet("down", "--timeout", "0.1")

refused = trivet("run", "--image", "busybox-amd64", "--cpu", "x86-64-v3", status=2).stderr
if "cpu 'x86-64-v3': this host gives its guests no" not in refused or " xsave" not in refused or "take cpu 'x86-64-v2'" not in refused:
    fail(f"a level that the host lacks: {refused}")
print("ok: a level that the host lacks is refused by name")

trivet("run", "--kernel", "/build/hostile_x86_64", "--append", "status=5", "--disk", f"{STATE}/disk.raw,size=1M", "--memory", "64M", status=5 << 1 | 1)
print("ok: the status that a guest ends itself with is that of trivet run")
nothing_left()
