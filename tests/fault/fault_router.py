#!/usr/bin/env python3
"""A router that is killed and started again under a machine's traffic, while ports of another network come and go, that network uses its
packet buffers up, and the control connection is cut: the machine's traffic comes back each time, between kills it loses nothing, and
nothing is left open or allocated. How long traffic stood still is printed, and nowhere asserted."""
import ctypes
import os
import signal
import socket
import struct
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "system", "lib"))
from command import BOOT_S, RUN, fail, nothing_left, ours, skip, trivet, trivet_json, until, use_image, write  # noqa: E402
from fault_rig import times  # noqa: E402
from router_rig import run  # noqa: E402
from store_rig import Control  # noqa: E402

KILLS = int(os.environ.get("FAULT_KILLS", times(3, 100)))
FLAPS = times(20, 60)
CLONE_NEWNET, PIDFD_GETFD, PIDFD_OPEN = 0x40000000, 438, 434
SO_RCVBUFFORCE = 33
LIVED_S = 2.1  # whoever dies sooner is thought to die of its start, and waited for (daemon/router.c)
INTERVAL_S = 0.002
FILE = """
tenants: {acme: , other: }
networks:
  lan: {tenant: acme, ports: {host: {kind: tap, device: tf0}}}
  core: {tenant: acme, type: ip, prefixes: [10.1.0.0/24], ports: {host: {kind: tap, device: tf1, addresses: [10.2.0.1/24]}}}
  loud: {tenant: other, buffers: 256, ports: {a: {kind: ring}, b: {kind: ring}}}
machines:
  one: {tenant: acme, image: busybox, append: quiet, memory: 128M, nets: {lan: , core: {ip: 10.1.0.2}}}
"""
GUEST = ("ip addr add 10.0.0.1/24 dev eth0; ip link set eth0 up; ip addr add 10.1.0.2/32 dev eth1; ip link set eth1 up; "
         "ip route add 10.1.0.1 dev eth1; ip route add 10.2.0.0/24 via 10.1.0.1 dev eth1\n")
libc = ctypes.CDLL(None, use_errno=True)


def pid_of(name):
    found = [pid for pid, comm in ours().items() if comm == name]
    return found[0] if found else None


class Echo:
    """Asks an address for echoes all the time."""

    def __init__(self, address, number):
        self.address, self.number = address, number
        self.sent = []  # when, by sequence number
        self.came = {}  # sequence number: when
        self.waited = []  # seconds, the most in each time between kills
        self.sends = True
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        self.socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 16 << 20)  # whatever comes at once after a pause
        for work in (self.ask, self.listen):
            threading.Thread(target=work, daemon=True).start()

    def ask(self):
        while self.sends:
            n = len(self.sent)
            words = [0x0800, 0, self.number, n & 0xFFFF, n >> 16, 0]
            total = sum(words)
            words[1] = ~(total + (total >> 16)) & 0xFFFF
            self.sent.append(time.monotonic())
            try:
                self.socket.sendto(struct.pack(">6H", *words), (self.address, 0))
            except OSError:
                pass  # nobody has the TAP device
            time.sleep(INTERVAL_S)

    def listen(self):
        while self.sends:
            data = self.socket.recv(2048)
            kind, _, _, number, low, high = struct.unpack_from(">BBHHHH", data, 20)
            if not kind and number == self.number:
                self.came[low | high << 16] = time.monotonic()

    def back(self, since):
        """When the first answer came to what was asked after that moment."""
        return min((when for n, when in list(self.came.items())[-500:] if self.sent[n] > since), default=None)

    def settled(self, first):
        """What was asked from number `first` on until now, and not answered. A later one has been answered by then: they come in order."""
        last = len(self.sent)
        until("a later answer", lambda: any(n in self.came for n in range(last, len(self.sent))), 60)
        self.waited.append(max(self.came[n] - self.sent[n] for n in range(first, last) if n in self.came))
        return [n for n in range(first, last) if n not in self.came]


def open_files(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def memory_kb(name):
    """Resident memory but for files; a machine's own is its guest's business."""
    with open(f"/proc/{pid_of(name)}/status", encoding="ascii") as f:
        lines = dict(line.split(":", 1) for line in f)
    return sum(int(lines[key].split()[0]) for key in ("RssAnon", "RssShmem") if key == "RssAnon" or name != "trivet-machine")


def cut_control():
    """The connection between trivetd and the router; both go on."""
    pid, path = pid_of("trivetd"), os.path.join(RUN, "router.sock")
    pidfd = libc.syscall(PIDFD_OPEN, pid, 0)
    n_cut = 0
    for number in os.listdir(f"/proc/{pid}/fd"):
        fd = libc.syscall(PIDFD_GETFD, pidfd, int(number), 0)
        if fd < 0:
            continue
        try:
            with socket.socket(fileno=fd) as other:
                if other.family == socket.AF_UNIX and other.getpeername() == path:
                    other.shutdown(socket.SHUT_RDWR)
                    n_cut += 1
        except OSError:
            pass  # no socket, or no connection
    os.close(pidfd)
    return n_cut


class Campaign:
    def __init__(self):
        self.control = Control(os.path.join(RUN, "trivetd.sock"))
        self.echoes = [Echo("10.0.0.1", 1), Echo("10.1.0.2", 2)]
        self.stood = [[], []]  # seconds, of each echo

    def call(self, method, **params):
        return self.control.ok("net.call", {"name": "loud", "method": method, "params": params})

    def used(self):
        return self.call("vn.stat")["buffers_used"]

    def overflown(self, network, device):
        """Packets that a queue had no room for since the router was started or, of the device's, ever; no other is dropped."""
        stat = self.control.ok("net.call", {"name": network, "method": "vn.stat", "params": {}})
        drops = {}
        for port in stat["ports"]:
            for cause, n in port["drops"].items():
                drops[cause] = drops.get(cause, 0) + n
        with open("/proc/net/dev", encoding="ascii") as f:  # of this namespace
            counts = next(line.split(":")[1].split() for line in f if line.strip().startswith(device + ":"))
        return drops["send_full"] + int(counts[11])

    def flap(self, n):
        """Ports of each kind, and a network, come and go."""
        for i in range(n):
            for kind, params in (("ring", {}), ("tap", {"device": "tf2"}), ("vhost", {})):
                self.control.ok("net.attach", {"name": "loud", "port": {"name": "flap", "kind": kind, **params}})
                self.control.ok("net.detach", {"name": "loud", "port": "flap"})
            self.control.ok("net.apply", {"spec": {"name": "brief", "type": "ip" if i % 2 else "ethernet"}})
            self.control.ok("net.remove", {"name": "brief"})

    def use_up(self):
        """All buffers of `loud` lie in the ring of its port b; then they are free again."""
        frame = (b"\xff" * 6 + b"\x02" + bytes(5) + b"\x88\xb5" + bytes(46)).hex()
        refused = None
        for _ in range(20):
            answer = self.control.call("net.call", {"name": "loud", "method": "port.put", "params": {"port": "a", "frames": [frame] * 50}})
            refused = answer.get("error")
            if refused:
                break
        assert refused and self.used() >= 250, f"{refused}, {self.used()} buffers in use"
        until("buffers of `loud` free again", lambda: not self.call("port.take", port="b")["frames"] and self.used() == 0, 60)

    def wait_whole(self):
        end = time.monotonic() + 60
        while True:
            wrong = {n["name"]: n.get("reason", n["state"]) for n in self.control.ok("net.list")["networks"] if n["state"] != "up"}
            if not wrong:
                return
            assert time.monotonic() < end, f"networks that are not there: {wrong}"
            time.sleep(0.01)

    def disturb(self, flaps):
        first = [len(e.sent) for e in self.echoes]
        self.flap(flaps)
        self.use_up()
        router = pid_of("trivet-router")
        assert cut_control() == 1
        until("control again", lambda: "result" in self.control.call("net.call", {"name": "loud", "method": "vn.stat"}), 60)
        self.wait_whole()
        self.flap(1)
        assert pid_of("trivet-router") == router
        for echo, n, network, device in zip(self.echoes, first, ("lan", "core"), ("tf0", "tf1")):
            lost, full = echo.settled(n), self.overflown(network, device)
            # A host that is busy elsewhere for half a second has queues run over; nothing else may lose a packet.
            assert len(lost) <= full, f"{network}: {len(lost)} echoes were lost, {full} for want of room: nothing happened to this network"

    def kill(self):
        router, killed = pid_of("trivet-router"), time.monotonic()
        os.kill(router, signal.SIGKILL)
        for echo, stood in zip(self.echoes, self.stood):
            stood.append(until(f"echoes of {echo.address}", lambda: echo.back(killed), 60) - killed)
        self.wait_whole()
        assert pid_of("trivet-router") not in (None, router)

    def tell(self):
        for echo, stood in zip(self.echoes, self.stood):
            found = sorted(1000 * s for s in stood)
            print(f"        {echo.address}: {len(found)} kills, traffic stood still for p50 {found[len(found) // 2]:.0f} ms, "
                  f"p90 {found[len(found) * 9 // 10]:.0f}, p99 {found[len(found) * 99 // 100]:.0f}, max {found[-1]:.0f}; "
                  f"between kills the slowest answer took {1000 * max(echo.waited):.0f}")


def held():
    """Descriptors and memory of each process that lives on, and of the router: whichever it is, it has the same to do."""
    return {name: (open_files(pid_of(name)), memory_kb(name)) for name in ("trivetd", "trivet-machine", "trivet-router")}


if os.geteuid() != 0:
    skip("needs root, for TAP devices in a network namespace")
if libc.unshare(CLONE_NEWNET):
    skip("no network namespaces here")
run("ip", "link", "set", "lo", "up")
for number in range(3):
    run("ip", "tuntap", "add", "mode", "tap", "dev", f"tf{number}")
    with open(f"/proc/sys/net/ipv6/conf/tf{number}/disable_ipv6", "w", encoding="ascii") as f:
        f.write("1")
    run("ip", "link", "set", f"tf{number}", "up")
run("ip", "addr", "add", "10.0.0.9/24", "dev", "tf0")
run("ip", "addr", "add", "10.2.0.9/24", "dev", "tf1")
run("ip", "route", "add", "10.1.0.0/24", "via", "10.2.0.1")
use_image()
trivet("up", write("nets.yaml", FILE))
until("a shell", lambda: "'poweroff' ends it." in trivet("logs", "one").stdout, BOOT_S)
console = socket.socket(socket.AF_UNIX)
console.connect({m["name"]: m for m in trivet_json("ps")["machines"]}["one"]["console"])
console.sendall(GUEST.encode())
campaign = Campaign()
try:
    until("echoes", lambda: all(len(e.came) > 100 for e in campaign.echoes), 60)
    for line in run("ip", "neigh").splitlines():  # a device without a carrier forgets them, and it is the machine that is looked at
        if " lladdr " in line:
            address, _, device, _, mac = line.split()[:5]
            run("ip", "neigh", "replace", address, "lladdr", mac, "dev", device, "nud", "permanent")
    campaign.disturb(5)
    campaign.kill()
    before = held()
    for _ in range(KILLS):
        began = time.monotonic()
        campaign.disturb(FLAPS // 10)
        time.sleep(max(0, LIVED_S - (time.monotonic() - began)))
        campaign.kill()
    after = held()
    campaign.disturb(FLAPS)
    flapped = held()
except AssertionError as error:
    fail(error)
campaign.tell()
for name, (files, memory) in before.items():
    print(f"        {name}: {files}, {after[name][0]}, {flapped[name][0]} descriptors; {memory >> 10}, {after[name][1] >> 10}, "
          f"{flapped[name][1] >> 10} MB at first, after the kills, after {FLAPS} networks and {3 * FLAPS} ports came and went")
    if not files == after[name][0] == flapped[name][0]:
        fail(f"{name} leaks descriptors")
    if after[name][1] > memory + 4096 or flapped[name][1] > after[name][1] + 16384:
        fail(f"{name} leaks memory")
for echo in campaign.echoes:
    echo.sends = False
trivet("kill", "one")
trivet("down")
nothing_left()
print(f"ok: {KILLS + 1} routers killed")
