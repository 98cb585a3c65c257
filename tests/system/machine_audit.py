#!/usr/bin/env python3
"""Debian's kernel boots with each stretch of its code run by the translator and by the interpreter: over the first 10^8 instructions
there is no difference."""
import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "lib"))
from machine import BIN, BOOT_S, fail, image, skip, started  # noqa: E402

INSTRUCTIONS = 10 ** 8


def run(*words):
    """(exit status, what came on standard error) of trivet run."""
    p = subprocess.Popen([os.path.join(BIN, "trivet"), "run", *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, text=True, errors="replace")
    started(p)
    try:
        _, errors = p.communicate(timeout=BOOT_S)
    except subprocess.TimeoutExpired:
        fail("the audit does not end")
    return p.returncode, errors


files = image()
boot = ["--kernel", files + "/kernel", "--initrd", files + "/initrd"]
status, errors = run(*boot, "--audit", "--cpus", "2")
if status != 2 or "give '--cpus 1'" not in errors:
    fail(f"an audit of two vcpus ends with {status}: {errors}")
status, errors = run(*boot, "--audit-instructions", "many")
if status != 2 or "'many' should be a number" not in errors:
    fail(f"an audit of 'many' instructions ends with {status}: {errors}")
print("ok: what cannot be audited is refused")

status, errors = run(*boot, "--audit-instructions", str(INSTRUCTIONS))
if status == 2 and "no translator" in errors:
    skip(errors.strip())
found = re.search(r"audit: (\d+) instructions compared in \d+ stretches, (\d+) not", errors)
if status != 0 or not found:
    fail(f"the audit ends with {status}:\n{errors}")
compared, left_out = int(found[1]), int(found[2])
if compared < INSTRUCTIONS or left_out > compared / 20:
    fail(f"{compared} instructions were compared and {left_out} were not")
print(f"ok: {compared} instructions compared, {left_out} not, no difference")
