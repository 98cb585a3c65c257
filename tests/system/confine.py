#!/usr/bin/env python3
"""A worker that was taken over tries every known way out, and none leads out: by the lists of a machine's threads, and, where that
can be, without them as well, by namespaces, uid and Landlock alone. Unconfined the same attempts succeed, so that this can fail."""
import os
import re
import shutil
import signal
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "lib"))
from machine import BUILD, Machine, fail, folder, image, skip, started  # noqa: E402

ATTACK = os.path.join(os.path.abspath(BUILD), "tests", "system", "confine_attack")
PROFILES = ["start", "loop", "vcpu"] + ([f"kvm-{p}" for p in ("start", "loop", "vcpu")] if os.uname().machine == "x86_64" else [])
if os.geteuid() != 0:
    skip("only root can have a uid for each worker")
victim = subprocess.Popen(["sleep", "600"])
started(victim)


def attack(profile, name):
    """(exit status or -signal, what it said)"""
    p = subprocess.run([ATTACK, profile, name, str(victim.pid)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                       stderr=subprocess.PIPE, text=True, timeout=60, cwd="/tmp")
    if p.returncode == 2:
        if profile != "none" and "this host does not let it have" in p.stderr:
            skip(p.stderr.strip())
        fail(f"{name} in {profile}: {p.stderr}")
    return p.returncode, p.stderr


attempts = [line.split() for line in subprocess.check_output([ATTACK], text=True).splitlines()]
escaped, silent, harmless = [], [], []
for name, can, outer, start in attempts:
    if can == "can" and attack("none", name)[0] != 0:
        harmless.append(name)
    if outer == "outer" and attack("outer", name)[0] == 0:
        escaped.append("outer: " + name)
    for profile in PROFILES:
        status, said = attack(profile, name)
        if status == 0 and not (start == "start" and "start" in profile):
            escaped.append(f"{profile}: {name}")
        # x32's and i386's calls are killed by the kernel itself, before anybody could say so.
        if status == -signal.SIGSYS and not name.startswith(("x32", "i386")) and "killed by its confinement: system call " not in said:
            silent.append(f"{profile}: {name}: {said}")
for what, found in (("led out", escaped), ("were killed without a word", silent), ("do nothing even unconfined", harmless)):
    if found:
        fail(f"attempts that {what}: {found}")
if victim.poll() is not None:
    fail("the victim has died")
print(f"ok: {len(attempts)} ways out lead nowhere, {sum(a[1] == 'can' for a in attempts)} of which are open to who is not confined")

# The launcher starts it in a machine's place, which is whatever lies beside `trivet` under that name.
files = image()
bin_dir = folder()
shutil.copy(os.path.join(BUILD, "bin", "trivet"), bin_dir)
shutil.copy(ATTACK, os.path.join(bin_dir, "trivet-machine"))
run = subprocess.run([os.path.join(bin_dir, "trivet"), "run", "--image", "busybox"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                     stderr=subprocess.PIPE, text=True, timeout=60)
for words in ("killed by its confinement: system call 41 on thread trivet-machine" if os.uname().machine == "x86_64" else "",
              "its process was killed by its confinement"):
    if run.returncode != 1 or words not in run.stderr:
        fail(f"a machine that was killed by its confinement: {run.returncode} {run.stderr}")
print("ok: who started a worker says that its confinement killed it, and the worker by which call")

# The real worker is so confined, each of its threads.
m = Machine(files + "/kernel", files + "/initrd", "console=ttyS0", cpus=2)
m.wait_for("'poweroff' ends it.")
told = m.call("machine.stats")["confinement"]
if told != {"seccomp": True, "namespaces": True, "user": True, "landlock": told["landlock"], "lacking": ""} or not told["landlock"]:
    fail(f"a machine's confinement: {told}", m)
root = f"/proc/{m.process.pid}"
for task in os.listdir(root + "/task"):
    status = open(f"{root}/task/{task}/status").read()
    for key, value in (("CapEff", "0000000000000000"), ("CapPrm", "0000000000000000"), ("CapBnd", "0000000000000000"),
                       ("NoNewPrivs", "1"), ("Seccomp", "2"), ("Seccomp_filters", "2"), ("Uid", str(2000000000 + m.process.pid))):
        if not re.search(rf"^{key}:\s+{value}\b", status, re.MULTILINE):
            fail(f"thread {task} of a machine: {key} is not {value}:\n{status}", m)
if os.listdir(root + "/root/"):
    fail("a machine's root is not empty", m)
for kind in ("mnt", "net", "ipc", "uts"):
    if os.readlink(f"{root}/ns/{kind}") == os.readlink(f"/proc/self/ns/{kind}"):
        fail(f"a machine is in our {kind} namespace", m)
m.kill()
print("ok: a machine's process is confined, thread by thread")
