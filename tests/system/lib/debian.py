"""A Debian on the console of a process that runs its machine: waits for the login, logs in, runs commands.

Every wait has a deadline; what goes wrong raises GuestError with the end of the console.
"""
import os
import select
import subprocess
import time

STEP_S = 900  # generous: the host may be busy with a whole suite


class GuestError(Exception):
    pass


class Guest:
    def __init__(self, name, command, **options):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
        self.output = b""
        self.seen = 0  # of the output, what earlier waits have passed
        self.commands = 0
        started = time.monotonic()
        self.wait_for(f"{name} login: ".encode())
        self.boot_s = time.monotonic() - started
        self.type("root\n")
        self.wait_for(f"root@{name}:~# ".encode())
        self.type("stty -echo; bind 'set enable-bracketed-paste off'; PS1=; PS2=; export DEBIAN_FRONTEND=noninteractive\n")

    def type(self, text):
        self.process.stdin.write(text.encode())
        self.process.stdin.flush()

    def read(self, seconds):
        """False at the end of the console."""
        if not select.select([self.process.stdout], [], [], seconds)[0]:
            return True
        data = os.read(self.process.stdout.fileno(), 65536)
        self.output += data
        return bool(data)

    def give_up(self, why):
        self.process.kill()
        self.process.wait()
        raise GuestError(f"{why}; the end of the console:\n{self.output[-4000:].decode(errors='replace')}")

    def wait_for(self, text):
        """Waits for a text and returns what came before it."""
        deadline = time.monotonic() + STEP_S
        while (at := self.output.find(text, self.seen)) < 0:
            if time.monotonic() > deadline or not self.read(1):
                self.give_up(f"{text} did not come")
        before = self.output[self.seen : at]
        self.seen = at + len(text)
        return before.decode(errors="replace").replace("\r", "")

    def run(self, command, expected=""):
        """Runs a command to its end; it has to end with status 0 and to have said what is expected. Returns what it said and the seconds
        it took."""
        self.commands += 1
        n = self.commands
        # In braces, so that the shell has read all of it before the command starts, which may read the terminal itself (apt does).
        self.type(f"{{ echo begin-{n}-$((40 + 2)); {command}\n}}; echo end-{n}-$?-$((40 + 2))\n")
        self.wait_for(f"begin-{n}-42\r\n".encode())
        started = time.monotonic()
        said = self.wait_for(b"-42\r\n")
        took_s = time.monotonic() - started
        said, _, status = said.rpartition(f"end-{n}-")
        if status != "0" or expected not in said:
            self.give_up(f"'{command}': status {status}" + (f", without '{expected}'" if status == "0" else ""))
        return said, took_s

    def power_off(self):
        self.type("poweroff\n")
        deadline = time.monotonic() + STEP_S
        while self.read(1):
            if time.monotonic() > deadline:
                self.give_up("it does not power off")
        if self.process.wait(60) != 0:
            self.give_up(f"exit status {self.process.returncode}")
