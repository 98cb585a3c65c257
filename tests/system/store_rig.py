# What the store's system tests share: a folder on a real file system, the store, its control socket, the blk_driver. Python's own
# library alone. A test is a function; a test that cannot run here raises Skip with its reason.
import array
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time

DEADLINE_S = 240  # generous: the host may be busy with the whole suite


class Skip(Exception):
    pass


def wait_for(what, condition, deadline_s=DEADLINE_S):
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"waited {deadline_s} s for {what}")
        time.sleep(0.005)


class Rig:
    """A folder, removed at the end with all processes that were started in it."""

    def __init__(self, build):
        self.build = os.path.abspath(build)
        self.store_program = os.path.join(self.build, "bin", "trivet-store")
        self.driver_program = os.path.join(self.build, "tests", "system", "blk_driver")
        self.dir = tempfile.mkdtemp(prefix="store-", dir=self.build)
        self.processes = []
        self.undo = []

    def close(self):
        for p in self.processes:
            if p.poll() is None:
                p.kill()
                p.wait()
        for command in reversed(self.undo):
            subprocess.run(command, check=False)
        shutil.rmtree(self.dir, ignore_errors=True)

    def path(self, name):
        return os.path.join(self.dir, name)

    def image(self, name, megabytes):
        path = self.path(name)
        with open(path, "wb") as f:
            f.truncate(megabytes << 20)
        return path

    def start(self, arguments, **options):
        p = subprocess.Popen(arguments, **options)
        self.processes.append(p)
        return p

    def store(self, *disks, extra=(), log="store.log", wait=True, prefix=(), **popen):
        """disks: (name, image, options). Returns when all sockets are there."""
        arguments = [*prefix, self.store_program, *extra]
        for name, image, options in disks:
            arguments += ["--disk", f"name={name},path={image},socket={self.path(name + '.sock')}{options}"]
        with open(self.path(log), "ab") as f:
            p = self.start(arguments, stderr=f, **popen)
        if wait:
            for name, _, _ in disks:
                wait_for(f"{name}'s socket", lambda: p.poll() is not None or can_connect(self.path(name + ".sock")))
            assert p.poll() is None, f"the store ended: {self.log(log)}"
        return p

    def controlled(self, *extra):
        """A store as trivetd runs it: nothing but a control socket; everything else comes through it."""
        listen = listening_socket(self.path("control"))
        with open(self.path("store.log"), "wb") as log:
            store = self.start([self.store_program, "--control", str(listen.fileno()), *extra], stderr=log, pass_fds=[listen.fileno()])
        listen.close()
        return Control(self.path("control")), store

    def log(self, name="store.log"):
        with open(self.path(name), encoding="utf-8") as f:
            return f.read()

    def driver(self, command, disk, *arguments, **options):
        return self.start([self.driver_program, command, "--socket", self.path(disk + ".sock"), *map(str, arguments)],
                          stdout=subprocess.PIPE, text=True, **options)

    def driver_result(self, command, disk, *arguments):
        p = self.driver(command, disk, *arguments)
        out, _ = p.communicate(timeout=DEADLINE_S)
        assert p.returncode == 0, f"blk_driver {command} failed"
        return json.loads(out.splitlines()[-1])


def can_connect(path):
    """Does somebody listen there? By the kernel's table, whose flags say so (__SO_ACCEPTCON): a real connection would count as a front
    end, and the socket has its name before it listens."""
    if not os.path.exists(path):
        return False
    with open("/proc/net/unix", encoding="utf-8") as f:
        next(f)
        for line in f:
            words = line.split(maxsplit=7)
            if len(words) == 8 and words[7].rstrip("\n").endswith(path) and int(words[3], 16) & 0x10000:
                return True
    return False


def listening_socket(path):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    s.bind(path)
    s.listen(8)
    return s


class Control:
    """JSON-RPC, one object a line, descriptors beside it."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(DEADLINE_S)
        self.socket.connect(path)
        self.buffer = b""
        self.id = 0
        self.notified = []  # (method, params)

    def call(self, method, params=None, fds=()):
        self.id += 1
        message = {"jsonrpc": "2.0", "id": self.id, "method": method, "params": params or {}}
        ancillary = []
        if fds:
            message["fds"] = len(fds)
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
        line = json.dumps(message).encode() + b"\n"
        sent = self.socket.sendmsg([line], ancillary)
        if sent < len(line):  # a long one goes in pieces
            self.socket.sendall(line[sent:])
        while True:
            while b"\n" not in self.buffer:
                data = self.socket.recv(65536)
                assert data, "the store closed its control socket"
                self.buffer += data
            line, self.buffer = self.buffer.split(b"\n", 1)
            answer = json.loads(line)
            if "id" in answer:
                return answer
            self.notified.append((answer["method"], answer["params"]))

    def add_disk(self, rig, name, params, image, flags=os.O_RDWR):
        fd = os.open(image, flags)
        listen = listening_socket(rig.path(name + ".sock"))
        try:
            return self.call("disk.add", {"name": name, **params}, [fd, listen.fileno()])
        finally:
            os.close(fd)
            listen.close()

    def ok(self, method, params=None, fds=()):
        answer = self.call(method, params, fds)
        assert "result" in answer, answer
        return answer["result"]

    def refused(self, method, params=None, fds=()):
        answer = self.call(method, params, fds)
        assert "error" in answer, answer
        return answer["error"]["message"]


def main(tests):
    """store_X.py BUILD [test]: exit status 0, 1, or 77 when all there was to run was skipped."""
    if len(sys.argv) < 2:
        sys.exit("usage: store_X.py BUILD-FOLDER [TEST]...")
    passed = failed = 0
    for test in tests:
        name = test.__name__
        if sys.argv[2:] and name not in sys.argv[2:]:
            continue
        rig = Rig(sys.argv[1])
        began = time.monotonic()
        try:
            test(rig)
            passed += 1
            print(f"ok      {name} ({time.monotonic() - began:.1f} s)", flush=True)
        except Skip as reason:
            print(f"skipped {name}: {reason}", flush=True)
        except Exception as error:  # the others shall still run
            failed += 1
            print(f"FAILED  {name}: {type(error).__name__}: {error}", flush=True)
            for left in ("store.log", "console"):
                if os.path.exists(rig.path(left)):
                    with open(rig.path(left), errors="replace") as f:
                        print(f"--- {left}\n" + f.read()[-3000:])
        finally:
            rig.close()
    sys.exit(1 if failed else 0 if passed else 77)


def readline(stream, deadline_s=DEADLINE_S):
    ready, _, _ = select.select([stream], [], [], deadline_s)
    assert ready, f"no line in {deadline_s} s"
    return stream.readline()
