# What the router's system tests share: the router with its control socket, frames, and network namespaces with TAP devices. Python's own
# library alone.
import fcntl
import os
import struct
import subprocess
import sys

from store_rig import Control, Rig, Skip, main, readline, wait_for  # noqa: F401  (the tests take these from here)

BROADCAST = b"\xff" * 6
TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000


class Router:
    """A router with a control socket in the rig's folder."""

    def __init__(self, rig, *extra, name="router", **popen):
        self.rig = rig
        self.program = os.path.join(rig.build, "bin", "trivet-router")
        self.path = rig.path(f"{name}.sock")
        with open(rig.path("store.log"), "ab") as log:  # main() shows this one
            self.process = rig.start([self.program, "--control", self.path, "--memory", "256", *extra], stderr=log, **popen)
        wait_for("the control socket", lambda: self.process.poll() is not None or self.answers())
        assert self.process.poll() is None, rig.log()
        self.control = Control(self.path)

    def answers(self):
        try:
            Control(self.path).ok("vn.list")
            return True
        except OSError:
            return False

    def vn(self, name, **params):
        self.control.ok("vn.add", {"name": name, "buffers": 1024, **params})

    def port(self, vn, name, kind="ring", fds=(), **params):
        self.control.ok("port.add", {"vn": vn, "name": name, "kind": kind, **params}, fds)

    def put(self, vn, port, *frames):
        self.control.ok("port.put", {"vn": vn, "port": port, "frames": [f.hex() for f in frames]})

    def take(self, vn, port):
        return [bytes.fromhex(f) for f in self.control.ok("port.take", {"vn": vn, "port": port})["frames"]]

    def stat(self, vn):
        stat = self.control.ok("vn.stat", {"name": vn})
        stat["ports"] = {p["name"]: p for p in stat["ports"]}
        return stat

    def settle(self, vn, port, n):
        """Until the port has received n packets in all, and the burst is done: what they caused can be taken then."""
        wait_for(f"{n} packets at {vn}/{port}", lambda: self.stat(vn)["ports"][port]["received_packets"] >= n)
        self.control.ok("router.stat")

    def end(self):
        self.process.terminate()
        return self.process.wait(60)


def mac(n):
    return b"\x02\x00\x00\x00" + struct.pack(">H", n)


def mac_text(address):
    return ":".join(f"{byte:02x}" for byte in address)


def frame(to, source, payload=b"", kind=0x88B5):  # 0x88b5: for experiments (IEEE 802, 9.2)
    return to + source + struct.pack(">H", kind) + payload


def need_root():
    if os.geteuid() != 0:
        raise Skip("needs root, for network namespaces")


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout


def namespace(rig, name):
    """A network namespace of this test's own; removed with the rig."""
    full = f"trivet-{os.getpid()}-{name}"
    done = subprocess.run(["ip", "netns", "add", full], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Skip(f"no network namespaces here: {done.stderr.strip()}")
    rig.undo.append(["ip", "netns", "del", full])
    return full


def tap(name):
    """A TAP device in this network namespace, and its descriptor."""
    try:
        fd = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    except OSError as error:
        raise Skip(f"no TAP devices here: {error.strerror}") from error
    return fd


def move_tap(name, space, address):
    run("ip", "link", "set", name, "netns", space)
    for command in (["link", "set", "lo", "up"], ["addr", "add", address, "dev", name], ["link", "set", name, "up"]):
        run("ip", "-n", space, *command)


SERVE = """
import socket, sys
s = socket.create_server((sys.argv[1], 7), family=socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET)
print("ready", flush=True)
c, _ = s.accept()
got = 0
while data := c.recv(65536):
    got += len(data)
c.sendall(str(got).encode())
"""
SEND = """
import socket, sys
c = socket.create_connection((sys.argv[1], 7), 60)
c.sendall(bytes(int(sys.argv[2])))
c.shutdown(socket.SHUT_WR)
print(c.recv(64).decode())
"""


def transfer(rig, sender, receiver, address, n_bytes):
    """n_bytes by TCP from one namespace to an address in another: how many came."""
    inside = ["ip", "netns", "exec"]
    server = rig.start([*inside, receiver, sys.executable, "-c", SERVE, address], stdout=subprocess.PIPE, text=True)
    assert readline(server.stdout) == "ready\n", "the server did not come up"
    client = subprocess.run([*inside, sender, sys.executable, "-c", SEND, address, str(n_bytes)], capture_output=True, text=True, timeout=120,
                            check=False)
    assert client.returncode == 0, client.stderr
    return int(client.stdout)
