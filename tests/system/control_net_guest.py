#!/usr/bin/env python3
"""Machines of a file with places in networks: a switch and a router between two of them; they reach each other, and again after the router and
trivetd were killed; their ports come and go with them. As root the router's machines get their addresses by DHCP, and their names by DNS; the
host is a namespace of the test's own."""
import os
import re
import shutil
import signal
import socket
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "lib"))
from command import BOOT_S, fail, nothing_left, ours, trivet, trivet_json, until, use_image, write  # noqa: E402

os.environ["PATH"] += ":/usr/sbin:/sbin"
HAS_GATEWAY = os.geteuid() == 0 and all(map(shutil.which, ("ip", "nft", "dnsmasq", "unshare")))
if HAS_GATEWAY and "TRIVET_TEST_HOST" not in os.environ:
    os.environ["TRIVET_TEST_HOST"] = os.readlink("/proc/self/ns/net")
    if subprocess.run(["unshare", "--net", "true"], check=False, capture_output=True).returncode == 0:
        os.execvp("unshare", ["unshare", "--net", sys.executable, *sys.argv])
HAS_GATEWAY = HAS_GATEWAY and os.readlink("/proc/self/ns/net") != os.environ["TRIVET_TEST_HOST"]
SERVICES = ", dhcp: true, dns: true" if HAS_GATEWAY else ""

FILE = f"""
tenants: {{acme: }}
networks:
  lan:
  core: {{type: ip, tenant: acme, prefixes: [10.1.0.0/24]{SERVICES}}}
machines:
  one: {{tenant: acme, image: busybox, append: quiet, memory: 128M, nets: {{lan: , core: {{ip: 10.1.0.2}}}}}}
  two: {{tenant: acme, image: busybox, append: quiet, memory: 128M, nets: {{lan: {{ip: 10.0.0.2}}, core: {{ip: 10.1.0.3}}}}}}
"""


def pid_of(name):
    return [pid for pid, comm in ours().items() if comm == name]


class Console:
    """What is typed to a guest and what it says."""

    def __init__(self, name):
        path = {m["name"]: m for m in trivet_json("ps")["machines"]}[name]["console"]
        self.name, self.said, self.n = name, b"", 0
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.socket.settimeout(0.2)

    def read(self):
        try:
            self.said += self.socket.recv(65536)
        except TimeoutError:
            pass
        return self.said

    def run(self, command):
        """The output of a shell command, of which the end is told by a word that the echo does not have."""
        self.n += 1
        self.said = b""
        self.socket.sendall(f"{command}; echo DO''NE{self.n}.\n".encode())
        until(f"{command} in {self.name}", lambda: f"DONE{self.n}.".encode() in self.read())
        return self.said.decode(errors="replace")


def reach(console, address):
    # What is sent while a network comes back is lost.
    said = console.run(f"for i in $(seq 60); do ping -c 1 -W 1 {address} && break; done")
    if not re.search(r"[1-9] packets received", said):
        fail(f"{console.name} does not reach {address}: {said}")


use_image()
changes = trivet_json("up", write("nets.yaml", FILE))
if [n["result"] for n in changes["networks"]] != ["created", "created"]:
    fail(f"up: {changes}")
until("the shells", lambda: all("'poweroff' ends it." in trivet("logs", name).stdout for name in ("one", "two")), BOOT_S)
consoles = {name: Console(name) for name in ("one", "two")}
macs = {m["name"]: m["mac"] for m in trivet_json("net", "show", "core")["machines"]}
for number, (name, console) in enumerate(consoles.items(), 1):
    console.run(f"ip addr add 10.0.0.{number}/24 dev eth0; ip link set eth0 up")
    if macs[name] not in console.run("cat /sys/class/net/eth1/address"):
        fail(f"{name}: eth1 has not the address {macs[name]}")
    # Each takes the other to be on its own link; the router answers for it.
    if not HAS_GATEWAY:
        console.run(f"ip addr add 10.1.0.{number + 1}/24 dev eth1; ip link set eth1 up")
        continue
    said = console.run("for i in $(seq 200); do grep -q nameserver /etc/resolv.conf && break; usleep 200000; done; ip addr show eth1; "
                       "ip route; cat /etc/resolv.conf; nslookup two 10.1.0.1")
    for word in (f"inet 10.1.0.{number + 1}/24", "default via 10.1.0.1 dev eth1", "nameserver 10.1.0.1", "10.1.0.3"):
        if word not in said:
            fail(f"{name} was not told '{word}': {said}")


def all_reach():
    for name, number in (("one", 2), ("two", 1)):
        reach(consoles[name], f"10.0.0.{number}")
        reach(consoles[name], f"10.1.0.{number + 1}")


all_reach()
if {"one", "two"} - {p["name"] for p in trivet_json("net", "stats", "core")["ports"]}:
    fail("ports: " + trivet("net", "stats", "core").stdout)
print("ok: two machines of a file reach each other by a switch and by a router")

# What TCP sends in one go passes the router in one piece.
consoles["two"].run("nc -l -p 7 >/tmp/came & until grep -q ':0007 .* 0A ' /proc/net/tcp*; do usleep 20000; done")
consoles["one"].run("dd if=/dev/urandom of=/tmp/sent bs=64k count=16 2>/dev/null; nc -w 60 10.1.0.3 7 </tmp/sent")
sums = [re.search("[0-9a-f]{32}", consoles[name].run(f"wait; md5sum {path}")).group() for name, path in (("one", "/tmp/sent"), ("two", "/tmp/came"))]
stats = {p["name"]: p for p in trivet_json("net", "stats", "core")["ports"]}
if sums[0] != sums[1]:
    fail(f"another stream came through the router than was sent: {sums}")
if stats["one"]["received_packets"] > (1 << 20) // 1500 or stats["two"]["sent_packets"] > (1 << 20) // 1500:
    fail(f"somebody has cut what a machine sent: {stats}")
print("ok: segments of a machine's reach the other as they are")

router = pid_of("trivet-router")[0]
os.kill(router, signal.SIGKILL)
until("another router", lambda: pid_of("trivet-router") not in ([], [router]), 60)
all_reach()
os.kill(pid_of("trivetd")[0], signal.SIGKILL)
until("trivetd gone", lambda: not pid_of("trivetd"))
trivet("net", "list")
router = pid_of("trivet-router")[0]
os.kill(router, signal.SIGKILL)
until("a third router", lambda: pid_of("trivet-router") not in ([], [router]), 60)
all_reach()
print("ok: and again after the router and trivetd were killed")

# What does not fit is refused; a port goes with its machine; a network in use stays.
said = trivet("net", "delete", "core", status=1).stderr
if "'core'" not in said or "one" not in said:
    fail(f"a network in use is deleted: {said}")
trivet("kill", "two")
until("the port gone", lambda: "two" not in [p["name"] for p in trivet_json("net", "stats", "core")["ports"]], 60)
trivet("kill", "one")
trivet("down")
nothing_left()
print("ok: ports come and go with their machines")
