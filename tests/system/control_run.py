#!/usr/bin/env python3
"""trivet run: the terminal's modes, the escape key, every way out, and that no worker is left running."""
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "lib"))
from command import BOOT_S, ENV, RUN, TOP, TRIVET, fail, nothing_left, ours, until, use_image  # noqa: E402


class Run:
    """`trivet run` with the ends of its console in our hands: a terminal, or pipes."""

    def __init__(self, *words, terminal=True):
        self.output = b""
        command = [TRIVET, "run", "--image", "busybox", "--memory", "128M", *words]
        if terminal:
            self.fd, self.tty = pty.openpty()
            self.before = termios.tcgetattr(self.tty)

            def own_terminal():
                os.setsid()
                import fcntl
                fcntl.ioctl(0, termios.TIOCSCTTY, 0)

            self.process = subprocess.Popen(command, env=ENV, stdin=self.tty, stdout=self.tty, stderr=self.tty, preexec_fn=own_terminal)
        else:
            self.process = subprocess.Popen(command, env=ENV, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            self.fd = self.process.stdout.fileno()

    def read(self, seconds):
        """What comes within seconds; False when nothing did."""
        data = b""
        if select.select([self.fd], [], [], seconds)[0]:
            try:
                data = os.read(self.fd, 65536)
            except OSError:
                pass  # a terminal whose other end is closed
        self.output += data
        return bool(data)

    def wait_for(self, text, seconds=BOOT_S, start=0):
        deadline = time.monotonic() + seconds
        while text not in self.output[start:]:
            ended = self.process.poll()  # before the rest is read
            if time.monotonic() > deadline or not self.read(0.2) and ended is not None:
                fail(f"'{text}' did not come, exit status {ended}; the end of the console:\n{self.output[-3000:].decode(errors='replace')}")

    def type(self, data):
        os.write(self.fd, data)

    def expect_end(self, status, seconds=BOOT_S):
        deadline = time.monotonic() + seconds
        while self.process.poll() is None:
            if time.monotonic() > deadline:
                fail(f"it goes on; the end of the console:\n{self.output[-3000:].decode(errors='replace')}")
            self.read(0.1)
        if self.process.returncode != status:
            fail(f"exit status {self.process.returncode} instead of {status}:\n{self.output[-3000:].decode(errors='replace')}")

    def expect_terminal_as_before(self):
        if termios.tcgetattr(self.tty) != self.before:
            fail("the terminal's modes are not what they were")


def is_raw(run):
    return not termios.tcgetattr(run.tty)[3] & (termios.ICANON | termios.ECHO | termios.ISIG)


use_image()

# The guest shuts down: 0. Raw meanwhile; ^C and ^A ^A go to the guest, ^A h is ours.
r = Run()
until("raw mode", lambda: is_raw(r))
r.wait_for(b"'poweroff' ends it.")
r.wait_for(b"# ")
r.type(b"\x01h")
r.wait_for(b"^A x")
r.type(b"sh -c 'echo began-$((1 + 1)); cat >/dev/null'\n")
r.wait_for(b"began-2")
at = len(r.output)
r.type(b"\x03")
r.wait_for(b"~# ", start=at)  # what is typed before the shell reads again is thrown away
r.type(b"echo typed-$((6 * 7))\n")
r.wait_for(b"typed-42")
r.type(b"printf 'key '; head -c 1 | xxd -p\n")
r.wait_for(b"\nkey ")
r.type(b"\x01\x01\n")
r.wait_for(b"\n01\r")
r.type(b"poweroff\n")
r.expect_end(0)
r.expect_terminal_as_before()
nothing_left()
print("ok: raw mode, the guest's keys, ^A h, power-off")

# ^A x, at once and early.
r = Run()
until("raw mode", lambda: is_raw(r))
r.type(b"\x01x")
r.expect_end(0)
r.expect_terminal_as_before()
nothing_left()
print("ok: ^A x")

# Signals: 128 + N, the terminal as it was.
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    r = Run()
    until("raw mode", lambda: is_raw(r))
    r.process.send_signal(number)
    r.expect_end(128 + number)
    r.expect_terminal_as_before()
    nothing_left()
print("ok: SIGTERM, SIGINT, SIGHUP")

# kill -9 of the command takes the workers with it.
disk = os.path.join(TOP, "data.raw")
r = Run("--disk", disk + ",size=64M", terminal=False)
until("both workers", lambda: {"trivet-store", "trivet-machine"} <= set(ours().values()))
until("their sockets' folder gone", lambda: not os.path.exists(RUN))  # it stays if the command is killed before that
r.process.kill()
r.process.wait()
nothing_left()
print("ok: kill -9 takes the workers along")

# The guest panics: 1, and why.
r = Run()
r.wait_for(b"'poweroff' ends it.")
r.wait_for(b"# ")
r.type(b"echo c > /proc/sysrq-trigger\n")
r.expect_end(1)
if b"the guest panicked" not in r.output:
    fail("no word of the panic: " + r.output[-3000:].decode(errors="replace"))
r.expect_terminal_as_before()
nothing_left()
print("ok: a panic is a failure")

# No terminal at all; the store is killed in the middle of the guest's check and comes back.
r = Run("--disk", disk + ",serial=DATA", "--append", "quiet trivet.check=poweroff", terminal=False)
r.wait_for(b"TRIVET-CHECK ok format")
store = [pid for pid, name in ours().items() if name == "trivet-store"]
os.kill(store[0], signal.SIGKILL)
r.wait_for(b"TRIVET-CHECK ok done")
r.expect_end(0)
if b"TRIVET-CHECK failed" in r.output:
    fail("the guest's check: " + r.output.decode(errors="replace"))
nothing_left()
print("ok: standard input at its end from the start, a disk, the store killed meanwhile")
