#!/usr/bin/env python3
"""What a supervisor does with a machine: pause, resume, reset, reboot in place, failure, quit; consoles with several viewers; and what
a machine costs in memory."""
import os
import re
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "lib"))
from machine import BIN, BOOT_S, Machine, RpcError, Viewer, fail, image, memory_cost  # noqa: E402

files = image()
SHELL = "'poweroff' ends it."


def boot(append="", **more):
    return Machine(files + "/kernel", files + "/initrd", "console=ttyS0 " + append, **more)


def instructions(m):
    return sum(v["instructions"] for v in m.call("machine.stats")["vcpus"])


def check_pause(m):
    m.call("machine.pause")
    before, status = instructions(m), m.call("machine.status")
    if status["state"] != "paused":
        fail(f"paused, but its state is {status['state']}", m)
    uptime = status["guest_time_ns"]
    m.type("echo typed-while-$((1+1))-paused\n")
    m.viewer.read(0.5)
    status = m.call("machine.status")
    if instructions(m) != before or status["guest_time_ns"] != uptime or b"typed-while-2" in m.output:
        fail("a paused machine goes on", m)
    m.call("machine.resume")
    m.wait_for("typed-while-2-paused")
    if m.call("machine.status")["state"] != "running":
        fail("resumed, but not running", m)
    print("ok: pause and resume")


def guest_uptime(m):
    return float(re.search(r"^(\d+\.\d+) \d", m.run("cat /proc/uptime"), re.MULTILINE).group(1))


def check_clock_stands_while_paused(m):
    asked = time.monotonic()
    start = guest_uptime(m)
    m.call("machine.pause")
    paused_at = time.monotonic()
    while time.monotonic() - paused_at < 3:
        m.viewer.read(3)
    paused = time.monotonic() - paused_at
    m.call("machine.resume")
    passed = guest_uptime(m) - start
    if passed > time.monotonic() - asked - paused + 0.1:  # what was not the guest's; its clock tells hundredths
        fail(f"the guest's clock went {passed:.2f} s on", m)
    print("ok: the guest's clock stands while it is paused")


def check_viewers(m):
    others = [Viewer(m.path("console")) for _ in range(3)]
    deadline = time.monotonic() + BOOT_S
    for other in others:  # newcomers see the last 64 KiB
        while SHELL.encode() not in other.output and time.monotonic() < deadline:
            other.read(1)
    others[1].socket.sendall(b"echo from-$((1+1))nd\n")
    for other in others:
        while b"from-2nd" not in other.output and time.monotonic() < deadline:
            other.read(1)
        if b"from-2nd" not in other.output:
            fail("a viewer saw nothing", m)
    m.wait_for("from-2nd")
    # One that never reads must not hold the guest up: some MiB of output pass.
    m.run("i=0; while [ $i -lt 40 ]; do head -c 65536 /dev/zero | tr '\\0' x; i=$((i+1)); done", timeout=BOOT_S)
    others[0].socket.close()
    m.run("true")
    print("ok: several viewers, a slow one harms nobody")


def check_reboot():
    m = boot()
    ready = m.wait_for("# ", start=m.wait_for(SHELL))
    m.type("reboot\n")
    ready = m.wait_for("# ", start=m.wait_for(SHELL, start=ready))
    m.call("machine.reset")
    m.wait_for("# ", start=m.wait_for(SHELL, start=ready))
    m.call("machine.quit")
    m.expect_end(0, "stopped on request")
    m = boot(on_reboot="exit")
    m.wait_for("# ", start=m.wait_for(SHELL))
    m.type("reboot\n")
    m.expect_end(0, "reboot")
    print("ok: reboot and reset in place, or as an end")


def check_panic():
    """Early and late, whatever a reboot does: the machine has failed. Without panic= the guest stands still, as Linux has it."""
    m = boot("panic=-1 rdinit=/sbin/nothing")
    m.wait_for("Kernel panic")
    m.expect_end(1, "the guest panicked")
    m = boot("panic=-1", cpus=2, on_reboot="exit")
    m.wait_for("# ", start=m.wait_for(SHELL))
    m.type("echo c > /proc/sysrq-trigger\n")
    m.wait_for("Kernel panic - not syncing: sysrq triggered crash")
    m.expect_end(1, "the guest panicked")
    if "machine 'test': the guest panicked" not in m.stderr_text():
        fail("the panic is not told", m)
    print("ok: a panic is a failure")


def check_shutdown(m):
    m.call("machine.shutdown")
    m.expect_end(0, "shutdown", timeout=BOOT_S)
    m = boot()
    m.call("machine.shutdown")  # nobody is there yet to hear it
    m.expect_end(0, "shutdown", timeout=BOOT_S)
    print("ok: asked to shut down, the guest does, also when it is asked while it boots")


def check_wrong_configurations():
    for config, message in ((b"{", "configuration: line 1"), (b'{"name":"x","cpus":0}', "cpus: 0 should be 1 to 64")):
        fd = os.memfd_create("config")
        os.write(fd, config)
        os.lseek(fd, 0, os.SEEK_SET)
        p = subprocess.run([os.path.join(BIN, "trivet-machine"), "--config", str(fd)], pass_fds=[fd], stderr=subprocess.PIPE, text=True,
                           timeout=BOOT_S)
        os.close(fd)
        if p.returncode != 2 or message not in p.stderr or p.stderr.count("\n") != 1:
            fail(f"{config}: {p.returncode}, {p.stderr}")
    m = Machine(__file__)
    code, status = m.wait()
    if code != 2 or status["exit"] != 2 or f"kernel '{os.path.realpath(__file__)}': is no kernel" not in m.stderr_text():
        fail(f"a kernel that is none ends with {code}", m)
    print("ok: wrong configurations end with status 2 and one line")


def check_methods_refused(m):
    for method, params, message in (("machine.save", {}, "needs the descriptor of a file"), ("disk.attach", {"name": "x"}, "needs a name"),
                                    ("machine.sing", {}, "")):
        try:
            m.call(method, params)
            fail(f"{method} {params} succeeded", m)
        except RpcError as e:
            if message not in str(e):
                fail(f"{method}: {e}", m)
    print("ok: wrong calls are refused")


def check_memory():
    """What the guest touched, and at most 8 MiB: 256 MiB are promised to a kernel that needs a part of it."""
    m = boot()
    m.wait_for("# ", start=m.wait_for(SHELL))
    touched, own = memory_cost(m)
    print(f"ok: {touched >> 20} MiB touched by the guest, {own >> 10} KiB beside it")
    if own > 8 << 20:
        fail(f"a machine costs {own} bytes beside what its guest touched", m)
    reported = m.call("machine.status")["resident_bytes"]
    if abs(reported - touched - own) > 4 << 20:
        fail(f"it reports {reported} resident bytes, the host says {touched + own}", m)
    check_quit(m)


def check_quit(m):
    """What was asked for behind a quit, and waits for the machine to stand still, goes with it."""
    calls = "".join(f'{{"jsonrpc":"2.0","id":{i},"method":"machine.{method}"}}\n' for i, method in ((101, "quit"), (102, "pause"), (103, "reset")))
    m.control.socket.sendall(calls.encode())
    m.expect_end(0, "stopped on request")
    print("ok: quit, with more asked for behind it")


check_wrong_configurations()
check_memory()
main = boot(cpus=2)
main.wait_for("# ", start=main.wait_for(SHELL))
check_pause(main)
check_clock_stands_while_paused(main)
check_viewers(main)
check_methods_refused(main)
check_shutdown(main)
check_reboot()
check_panic()
