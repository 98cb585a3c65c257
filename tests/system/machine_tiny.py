#!/usr/bin/env python3
"""A guest of a few instructions: how it ends is what the machine reports, and a machine of 256 MiB costs what its guest touches and at
most 8 MiB, with 1 and 16 vcpus."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "lib"))
from machine import BUILD, Machine, fail, memory_cost, skip  # noqa: E402

KERNEL = os.path.join(BUILD, "tests/system/tiny.elf")
if not os.path.exists(KERNEL):
    skip("there is no cross compiler for the guest")


def boot(**more):
    m = Machine(KERNEL, **more)
    m.wait_for("tiny guest")
    return m


for key, status, reason in (("s", 0, "shutdown"), ("f", 1, "failure")):
    guest = boot()
    guest.type(key)
    guest.expect_end(status, reason)
guest = boot()
guest.type("r")
guest.wait_for("tiny guest", start=guest.wait_for("tiny guest"))
guest.type("s")
guest.expect_end(0, "shutdown")
guest = boot(on_reboot="exit")
guest.type("r")
guest.expect_end(0, "reboot")
# A warm reboot is one as well, unless the kernel was told to reboot so when it panics, by panic= or in so many words.
for append, status, reason in (("console=x reboot=cold panic=1", 0, "reboot"), ("", 0, "reboot"), ("reboot=panic_warm", 1, "the guest panicked"),
                               ("panic=1", 1, "the guest panicked")):
    guest = boot(on_reboot="exit", append=append)
    guest.type("w")
    guest.expect_end(status, reason)
guest = boot(append="panic=1")
saved = guest.path("saved")
with open(saved, "wb") as f:
    guest.call("machine.save", {"quit": True}, [f.fileno()])
guest.expect_end(0, "saved")
guest = Machine(restore=saved)
guest.type("w")
guest.expect_end(1, "the guest panicked")
guest = boot()
guest.type("p")
guest.expect_end(1, "the guest panicked")
print("ok: shutdown, failure, panic and reboot are told apart")

for cpus in (1, 16):
    guest = boot(cpus=cpus)
    touched, own = memory_cost(guest)
    print(f"{cpus} vcpu(s): {touched >> 10} KiB touched by the guest, {own >> 10} KiB beside it")
    if own > 8 << 20:
        fail(f"a machine with {cpus} vcpu(s) costs {own} bytes beside what its guest touched", guest)
    guest.call("machine.quit")
    guest.expect_end(0, "stopped on request")
print("ok: it costs what the guest touches and at most 8 MiB")
