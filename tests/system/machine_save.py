#!/usr/bin/env python3
"""A machine saved in the middle of its boot goes on in a new process as if nothing had been: at several moments, with 1 and 4 vcpus.
Damaged files and machines of another shape are refused; a full disk costs the copy, not the machine."""
import os
import resource
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "lib"))
from machine import Machine, RpcError, fail, image  # noqa: E402

files = image()
MOMENTS = ("Linux version", "smp: Brought up", "TCP bind hash", "Freeing unused kernel", "'poweroff' ends it.")


def boot(cpus, **more):
    return Machine(files + "/kernel", files + "/initrd", "console=ttyS0 earlycon=sbi", cpus=cpus, **more)


def save(m, path, **params):
    with open(path, "wb") as f:
        return m.call("machine.save", params, [f.fileno()])


def finish(m, cpus):
    """The shell must be there, and everything still work."""
    m.type("\n")
    answer = m.run("grep -c ^processor /proc/cpuinfo; sleep 1; dd if=/dev/zero bs=1M count=8 2>/dev/null | sha256sum")
    if str(cpus) not in answer.split() or "2daeb1f36095b44b318410b3f4e8b5d989dcc7bb023d1426c492dab0a3053e74" not in answer:
        fail(f"after the load the guest says: {answer}", m)
    m.type("poweroff\n")
    m.expect_end(0, "shutdown")


def check_moments(cpus, moments):
    for moment in moments:
        first = boot(cpus, name="first")
        first.wait_for(moment)
        path = first.path("saved")
        size = save(first, path, quit=True)["size_bytes"]
        if size != os.path.getsize(path) or size > 200 << 20:
            fail(f"a saved machine of {size} bytes", first)
        first.control.wait_notification("machine.progress")
        first.expect_end(0, "saved")
        second = Machine(restore=path, cpus=cpus, name="second")
        if moment != MOMENTS[-1]:
            second.wait_for("'poweroff' ends it.")
        finish(second, cpus)
        print(f"ok: saved at '{moment}' ({size >> 20} MiB) and loaded, {cpus} vcpu(s)")


def check_goes_on(cpus):
    """Saved twenty times while it boots, each time going on; the last one loads."""
    m = boot(cpus)
    m.wait_for("Linux version")
    path = m.path("saved")
    for _ in range(20):
        save(m, path)
    m.wait_for("'poweroff' ends it.")
    finish(m, cpus)
    print(f"ok: saved 20 times on the way, {cpus} vcpu(s)")


def check_refusals():
    m = boot(1)
    m.wait_for("Linux version")
    path, bad = m.path("saved"), m.path("bad")
    save(m, path)
    with open(path, "rb") as f:
        data = bytearray(f.read())
    for what, change in (("cut short", data[:len(data) // 2]), ("checksum", data[:70] + b"x" + data[71:]), ("is none", b"x" * 4096)):
        with open(bad, "wb") as f:
            f.write(change)
        other = Machine(restore=bad, name="other")
        code, _ = other.wait()
        if code != 2 or what not in other.stderr_text() or other.stderr_text().count("\n") != 1:
            fail(f"a damaged file ({what}) ends with {code}", other)
    for shape, message in (({"cpus": 2}, "had cpus 1, this one has 2"), ({"memory": 128 << 20}, "had memory_bytes")):
        other = Machine(restore=path, name="other", **shape)
        code, _ = other.wait()
        if code != 2 or message not in other.stderr_text():
            fail(f"another shape {shape} ends with {code}", other)
    m.kill()
    print("ok: damaged files and other shapes are refused")


def check_full_disk():
    """A limit on the size of files stands for a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    m = boot(1, confine="off")  # a machine with a uid of its own is nobody's whose limits we may change
    m.wait_for("Linux version")
    resource.prlimit(m.process.pid, resource.RLIMIT_FSIZE, (4 << 20, hard))
    try:
        save(m, m.path("saved"))
        fail("saving to a full disk succeeded", m)
    except RpcError as e:
        if "saving: " not in str(e):
            fail(f"saving to a full disk says: {e}", m)
    resource.prlimit(m.process.pid, resource.RLIMIT_FSIZE, (soft, hard))
    if os.path.getsize(m.path("saved")) != 0:
        fail("half a machine was left behind", m)
    m.wait_for("'poweroff' ends it.")
    finish(m, 1)
    print("ok: a full disk costs the copy, not the machine")


check_moments(1, MOMENTS)
check_moments(4, MOMENTS[::2])
check_goes_on(1)
check_goes_on(4)
check_refusals()
check_full_disk()
