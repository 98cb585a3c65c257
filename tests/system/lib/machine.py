"""Drives trivet-machine as a supervisor does: opens everything, hands over descriptors, speaks the control protocol.

A test is a program: its argument is the build folder; exit status 0 passed, 1 failed, 77 skipped with the reason on standard output.
It waits for events, each with a deadline, and ends only what it started.
"""
import array
import atexit
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time

BUILD = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../../build")
BIN = os.path.join(BUILD, "bin")
BOOT_S = int(os.environ.get("TRIVET_TEST_DEADLINE_S", "240"))  # a deadline of anything: the host may be busy with the whole suite and more
PRINTK = rb"(?:\[ *\d+\.\d{6}\] [^\n]*\n)?"  # what the guest's kernel may print in the middle of what a program writes
_running = []
_folders = []


def started(process):
    """Will be ended with the test, whatever becomes of it."""
    _running.append(process)


def folder():
    """A temporary folder that goes with the test."""
    d = tempfile.TemporaryDirectory(prefix="trivet-test-")
    _folders.append(d)
    return d.name


def skip(reason):
    print("skipped:", reason)
    sys.exit(77)


def fail(message, machine=None):
    print("failed:", message)
    if machine:
        print("--- console of", machine.name)
        sys.stdout.write(machine.output[-6000:].decode(errors="replace"))
        print("\n--- standard error\n" + machine.stderr_text())
    sys.exit(1)


def image():
    """The busybox image's folder, built when it is not there yet."""
    command = [os.path.join(BIN, "trivet"), "image", "build", "busybox", "--json", "--quiet"]
    built = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if built.returncode != 0:
        skip("no image to boot: " + built.stderr.strip())
    return json.loads(built.stdout)["dir"]


def _end_all():
    for process in _running:
        if process.poll() is None:
            process.kill()
            process.wait()


atexit.register(_end_all)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))


def memory_cost(m):
    """(what the guest touched of its RAM, what the process has resident beside it), in bytes, as the host's kernel counts them."""
    # Translated code is mapped twice, to write and to execute; the pages are the same, so they count once.
    rss, ram = 0, []
    with open(f"/proc/{m.process.pid}/smaps") as f:
        for line in f:
            if re.match("[0-9a-f]+-[0-9a-f]+ ", line):
                twin = "/dev/zero" in line and " rw" in line
                if "memfd:" in line:
                    ram.append(int(line.split()[4]))
            elif line.startswith("Rss:") and not twin:
                rss += int(line.split()[1]) << 10
    if len(ram) != 1:
        fail(f"guest RAM is mapped {len(ram)} times", m)
    # By its descriptor: /proc/PID/map_files is for root alone.
    fds = (os.stat(entry.path) for entry in os.scandir(f"/proc/{m.process.pid}/fd") if "memfd:" in os.readlink(entry.path))
    touched = next(st.st_blocks for st in fds if st.st_ino == ram[0]) * 512
    return touched, rss - touched


class RpcError(Exception):
    pass


class Control:
    """One connection to a control socket."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(path)
        self.buffer = b""
        self.last_id = 0
        self.notifications = []

    def _line(self, deadline):
        while b"\n" not in self.buffer:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.socket], [], [], left)[0]:
                raise TimeoutError("no answer in time")
            data = self.socket.recv(1 << 16)
            if not data:
                raise ConnectionError("the control connection was closed")
            self.buffer += data
        line, self.buffer = self.buffer.split(b"\n", 1)
        return json.loads(line)

    def call(self, method, params=None, fds=(), timeout=BOOT_S):
        self.last_id += 1
        message = {"jsonrpc": "2.0", "id": self.last_id, "method": method, "params": params or {}}
        if fds:
            message["fds"] = len(fds)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.socket.sendmsg([json.dumps(message).encode() + b"\n"], rights)
        deadline = time.monotonic() + timeout
        while True:
            answer = self._line(deadline)
            if answer.get("id") != self.last_id:
                self.notifications.append(answer)
            elif "error" in answer:
                raise RpcError(answer["error"]["message"])
            else:
                return answer["result"]

    def wait_notification(self, method, timeout=BOOT_S):
        deadline = time.monotonic() + timeout
        while True:
            for n in self.notifications:
                if n["method"] == method:
                    self.notifications.remove(n)
                    return n["params"]
            self.notifications.append(self._line(deadline))


class Viewer:
    """One viewer of a console."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(path)
        self.output = b""

    def read(self, timeout):
        """What comes within timeout; False at the end."""
        if not select.select([self.socket], [], [], max(timeout, 0))[0]:
            return True
        try:
            data = self.socket.recv(1 << 16)
        except ConnectionResetError:
            data = b""
        self.output += data
        return bool(data)


class Machine:
    def __init__(self, kernel=None, initrd=None, append="", cpus=1, memory=256 << 20, restore=None, name="test", disks=(),
                 on_reboot="reset", audit=0, nets=(), engine="rv64", confine="best", hugepages=False):
        self.name = name
        self.dir = tempfile.TemporaryDirectory(prefix="trivet-test-")
        self.stderr = open(os.path.join(self.dir.name, "stderr"), "w+")
        self.status = open(os.path.join(self.dir.name, "status"), "w+")
        self.log_path = os.path.join(self.dir.name, "log")
        fds = []

        def keep(fd):
            fds.append(fd)
            return fd

        config = {"name": name, "tenant": "tests", "engine": engine, "memory_bytes": memory, "hugepages": hugepages, "cpus": cpus,
                  "append": append, "on_reboot": on_reboot, "audit_instructions": audit, "confine": confine,
                  "control_fd": keep(self._listen("control")),
                  "console": {"listen_fd": keep(self._listen("console"))}, "status_fd": self.status.fileno(),
                  "log_fd": keep(os.open(self.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND))}
        if engine == "kvm":
            config["kvm_fd"] = keep(os.open("/dev/kvm", os.O_RDWR))
        for key, path in (("kernel_fd", kernel), ("initrd_fd", initrd), ("restore_fd", restore)):
            if path:
                config[key] = keep(os.open(path, os.O_RDONLY))
        if disks:
            config["disks"] = [{"name": n, "fd": keep(os.dup(s.fileno())), "queues": q} for n, s, q in disks]
        if nets:  # (name, connected socket, mac, what else)
            config["nets"] = [{"name": n, "fd": keep(os.dup(s.fileno())), "mac": mac, **more} for n, s, mac, more in nets]
        config_fd = keep(os.memfd_create("config"))
        os.write(config_fd, json.dumps(config).encode())
        os.lseek(config_fd, 0, os.SEEK_SET)
        self.viewer = Viewer(self.path("console"))  # before it starts, so that nothing is missed however soon it ends
        self.process = subprocess.Popen([os.path.join(BIN, "trivet-machine"), "--config", str(config_fd)],
                                        pass_fds=fds + [self.status.fileno()], stdin=subprocess.DEVNULL, stderr=self.stderr)
        started(self.process)
        for fd in fds:
            os.close(fd)
        self.control = None

    def path(self, what):
        return os.path.join(self.dir.name, what)

    def _listen(self, what):
        s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        s.bind(self.path(what))
        s.listen(8)
        return s.detach()

    @property
    def output(self):
        return self.viewer.output

    def stderr_text(self):
        with open(self.stderr.name) as f:
            return f.read()

    def call(self, method, params=None, fds=(), timeout=BOOT_S):
        if not self.control:
            self.control = Control(self.path("control"))
        return self.control.call(method, params, fds, timeout)

    def type(self, text):
        self.viewer.socket.sendall(text.encode())

    def wait_for(self, text, timeout=BOOT_S, start=0):
        """Until the console has shown text; the position behind it."""
        want = re.compile(PRINTK.join(re.escape(bytes([b])) for b in text.encode()))
        deadline = time.monotonic() + timeout
        alive = True
        while not (found := want.search(self.output, start)):  # some tens of KiB: searched again each time
            left = deadline - time.monotonic()
            if left <= 0 or not alive:
                fail(f"'{text}' never came" if alive else f"the machine ended before '{text}'", self)
            alive = self.viewer.read(left)
        return found.end()

    def run(self, command, timeout=BOOT_S):
        """Runs a shell command in the guest (a shell is waiting); its output."""
        start = len(self.output)
        self.type(command + "; echo __$((40+2))__$?\n")
        end = self.wait_for("__42__", timeout, start)
        return self.output[start:end - 6].decode(errors="replace")

    def wait(self, timeout=BOOT_S):
        """Until the process has ended; (exit status, what it wrote into its status file)."""
        deadline = time.monotonic() + timeout
        while self.viewer.read(0.05) and time.monotonic() < deadline:
            pass
        try:
            code = self.process.wait(max(deadline - time.monotonic(), 0.1))
        except subprocess.TimeoutExpired:
            fail("the machine does not end", self)
        with open(self.status.name) as f:
            return code, json.loads(f.read() or "{}")

    def expect_end(self, exit_status, reason, timeout=BOOT_S):
        code, status = self.wait(timeout)
        if code != exit_status or status.get("exit") != exit_status or reason not in status.get("reason", ""):
            fail(f"ended with {code}, {status}; expected {exit_status}, '{reason}'", self)

    def kill(self):
        self.process.kill()
        self.process.wait()
