#!/usr/bin/env python3
"""The image debian-amd64 on the hardware engine: systemd to the login prompt with 1 and 2 vcpus, a Debian to work with, powered off."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../lib"))
from debian import Guest, GuestError  # noqa: E402

TRIVET = sys.argv[1] + "/bin/trivet"


def boot(cpus):
    guest = Guest("trout", [TRIVET, "run", "--image", "debian-amd64", "--name", "trout", "--cpus", str(cpus)])
    print(f"ok: Debian to the login prompt, {cpus} vcpu(s)", flush=True)
    guest.run("systemctl is-system-running --wait || { systemctl --failed --no-pager; false; }", "running")
    guest.run(f"test $(nproc) = {cpus} && test $(uname -m) = x86_64 && systemd-detect-virt", "kvm")
    guest.run("python3 -c 'import hashlib; print(hashlib.sha256(b\"trivet\").hexdigest()[:16])'", "e10bfb2dfa942edf")
    if cpus == 1:
        guest.run("apt-get install -qq bc && echo '6 * 7' | bc && dpkg --audit", "42")
    kernel, _ = guest.run("journalctl -k -q -p warning --no-pager")
    guest.power_off()
    for word in ("Oops", "BUG:", "Call Trace", "detected stall", "lockup"):
        if word in kernel or word.encode() in guest.output:
            guest.give_up(f"the kernel said {word}")
    print(f"ok: worked in and powered off, {cpus} vcpu(s)", flush=True)


try:
    boot(1)
    boot(2)
except GuestError as e:
    print("failed:", e)
    sys.exit(1)
