#!/usr/bin/env python3
"""Networks with a gateway: DHCP, DNS, NAT to the outside by IPv4 and IPv6, limited, and ports forwarded into them; two of them with the same addresses, a switch and a
router; devices and addresses that others in the host have; again after the router, dnsmasq and trivetd were killed; nothing of it stays, and
the host forwards no more if it did not before. The host is a namespace of the test's own."""
import atexit
import json
import os
import shutil
import signal
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "lib"))
from command import ENV, TOP, TRIVET, fail, nothing_left, ours, skip, trivet, trivet_json, until, write  # noqa: E402
from router_rig import SEND, SERVE  # noqa: E402

os.environ["PATH"] += ":/usr/sbin:/sbin"
if os.geteuid() != 0:
    skip("needs root, for network namespaces")
for program in ("ip", "nft", "dnsmasq", "unshare"):
    if not shutil.which(program):
        skip(f"there is no {program} here")
if "TRIVET_TEST_HOST" not in os.environ:
    os.environ["TRIVET_TEST_HOST"] = os.readlink("/proc/self/ns/net")
    if subprocess.run(["unshare", "--net", "true"], check=False, capture_output=True).returncode:
        skip("no network namespaces here")
    os.execvp("unshare", ["unshare", "--net", sys.executable, *sys.argv])
if os.readlink("/proc/self/ns/net") == os.environ["TRIVET_TEST_HOST"]:
    fail("this is the host itself")
PID = os.getpid()
BYTES = 1 << 20
OUTSIDE6 = "2001:db8:0:1::"  # for documentation (RFC 3849)
OUTSIDE = f"198.18.{PID % 250 + 1}"  # for measurements between networks (RFC 2544); the host is 1 there, the world 2


def ip(*words, may_fail=False):
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode and not may_fail:
        fail(f"ip {' '.join(words)}: {done.stderr}")
    return done


def space(name):
    full = f"trivet-{PID}-{name}"
    if ip("netns", "add", full, may_fail=True).returncode:
        skip("no network namespaces here")
    atexit.register(ip, "netns", "del", full, may_fail=True)
    ip("-n", full, "link", "set", "lo", "up")
    return full


def python(where, program, *words, **options):
    return subprocess.Popen(["ip", "netns", "exec", where, sys.executable, "-c", program, *map(str, words)], stdout=subprocess.PIPE, text=True,
                            **options)


def send(sender, receiver, address, listens=None):
    """BYTES by TCP, to an address that may be another for the one who listens."""
    server = python(receiver, SERVE, listens or address)
    if server.stdout.readline() != "ready\n":
        fail(f"nobody listens at {listens or address}")
    client = python(sender, SEND, address, BYTES, stderr=subprocess.PIPE)
    try:
        said, wrong = client.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        client.kill()
        said, wrong = "", "it goes on for 60 s"
    server.kill()
    server.wait()
    if said.strip() != str(BYTES):
        fail(f"from {sender} to {address}: {said!r} {wrong}")


# What udhcpc(8) does: discover, request, and its host name with them. Prints the address, the router and the name server.
DHCP = """
import socket, struct, sys
mac = bytes.fromhex(open("/sys/class/net/eth0/address").read().strip().replace(":", ""))
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
s.bind(("", 68))
s.settimeout(3)
def ask(kind, extra=b""):
    head = struct.pack(">BBBBIHH16s16s192xI", 1, 1, 6, 0, 0x1234, 0, 0x8000, b"", mac, 0x63825363)
    for _ in range(20):
        s.sendto(head + bytes([53, 1, kind, 12, 5]) + b"guest" + bytes([55, 2, 3, 6]) + extra + b"\\xff", ("255.255.255.255", 67))
        try:
            data = s.recv(2048)
        except TimeoutError:
            continue
        options, at = {}, 240
        while data[at] != 255:
            options[data[at]] = data[at + 2:at + 2 + data[at + 1]]
            at += 2 + data[at + 1]
        if options[53] == bytes([2 if kind == 1 else 5]):  # else it is late
            return data[16:20], options
    sys.exit("no answer")
address, offer = ask(1)
address, ack = ask(3, bytes([50, 4]) + address + bytes([54, 4]) + offer[54])
print(*map(socket.inet_ntoa, (address, ack[3], ack[6])))
"""
DNS = """
import socket, struct, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(20)
name = b"".join(bytes([len(w)]) + w.encode() for w in sys.argv[2].split(".")) + b"\\0"
s.sendto(struct.pack(">HHHHHH", 7, 0x0100, 1, 0, 0, 0) + name + struct.pack(">HH", 1, 1), (sys.argv[1], 53))
data = s.recv(2048)
print(socket.inet_ntoa(data[-4:]) if data[3] & 15 == 0 and data[7] else "none")
"""


def output(where, program, *words):
    said, _ = python(where, program, *words).communicate(timeout=100)
    return said.split()


def plug(network):
    """The network's port is a TAP device; the guest's end of it goes into the guest's namespace."""
    device = f"tvt{PID}{network[-1]}"
    ip("link", "set", device, "netns", guests[network], "name", "eth0")
    ip("-n", guests[network], "link", "set", "eth0", "up")
    ip("-n", guests[network], "addr", "add", "10.0.0.9/24", "dev", "eth0")
    ip("-n", guests[network], "route", "add", "default", "via", "10.0.0.1")
    if network == "core3":  # a switch tells its stations of the prefix and the router; a router does not
        ip("-n", guests[network], "addr", "add", "fd00::9/64", "dev", "eth0", "nodad")
        ip("-n", guests[network], "-6", "route", "add", "default", "via", "fd00::1")
        return
    until("an address of IPv6", lambda: "fd00::" in (said := ip("-n", guests[network], "-6", "addr", "show", "dev", "eth0").stdout)
          and "tentative" not in said, 60)
    until("a router of IPv6 in " + network, lambda: "via fe80::" in ip("-n", guests[network], "-6", "route", "show", "default").stdout, 60)


def pid_of(name):
    return [pid for pid, comm in ours().items() if comm == name]


def forwarding(word=None):
    with open("/proc/sys/net/ipv4/ip_forward", "r+", encoding="ascii") as f:
        if word is None:
            return f.read().strip()
        return f.write(word)


def hearing():
    """Whether the host hears of routers of IPv6 by the wire to the world."""
    with open(f"/proc/sys/net/ipv6/conf/tvw{PID}/accept_ra", encoding="ascii") as f:
        return f.read().strip()


def forwarding6():
    with open("/proc/sys/net/ipv6/conf/all/forwarding", encoding="ascii") as f:
        return f.read().strip()


def tables():
    return subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout


def pair():
    """The one gateway's device in the host, and the host's address there."""
    devices = [d for d in json.loads(ip("-j", "-4", "addr").stdout) if d["ifname"].startswith("tvg") and d.get("link_netnsid") is not None]
    if len(devices) != 1:
        fail(f"devices of one gateway: {devices}")
    return devices[0]["ifname"], devices[0]["addr_info"][0]["local"]


ip("link", "set", "lo", "up")
world = space("world")
ip("link", "add", f"tvw{PID}", "type", "veth", "peer", "name", "eth0", "netns", world)
atexit.register(ip, "link", "del", f"tvw{PID}", may_fail=True)
ip("addr", "add", f"{OUTSIDE}.1/24", "dev", f"tvw{PID}")
ip("addr", "add", f"{OUTSIDE6}1/64", "dev", f"tvw{PID}", "nodad")
ip("link", "set", f"tvw{PID}", "up")
ip("-n", world, "addr", "add", f"{OUTSIDE}.2/24", "dev", "eth0")
ip("-n", world, "addr", "add", f"{OUTSIDE6}2/64", "dev", "eth0", "nodad")
ip("-n", world, "link", "set", "eth0", "up")

# nft(8) that can be held up.
HOLD = os.path.join(TOP, "hold")
os.makedirs(os.path.join(TOP, "bin"))
os.chmod(write("bin/nft", f'#!/bin/sh\nwhile [ -e {HOLD} ]; do sleep 0.05; done\nexec {shutil.which("nft")} "$@"\n'), 0o755)
ENV["PATH"] = os.path.join(TOP, "bin") + ":" + os.environ["PATH"]

# A host that forwards by itself goes on; one that does not does so while there is a gateway.
forwarding("1")
trivet("net", "create", "lan1", "--prefix", "10.0.0.0/24", "--nat")
first = pair()
trivet("net", "delete", "lan1")
if forwarding() != "1" or tables():
    fail(f"forwarding of a host that forwarded before: {forwarding()}; {tables()}")
forwarding("0")
trivet("net", "create", "lan1", "--prefix", "10.0.0.0/24", "--nat")
if forwarding() != "1":
    fail("the host of a gateway does not forward")
trivet("net", "delete", "lan1")
if forwarding() != "0" or tables():
    fail(f"forwarding of a host that did not before: {forwarding()}; {tables()}")
# What the gateway had is somebody else's when it comes again, and so is what it then takes: first the device, then the addresses.
ip("link", "add", first[0], "type", "veth", "peer", "name", "other")
trivet("net", "create", "lan1", "--prefix", "10.0.0.0/24", "--nat")
second = pair()
trivet("net", "delete", "lan1")
if first[0] not in ip("link").stdout:
    fail(f"{first[0]}, which was there before the gateway, went with it")
ip("addr", "add", f"{second[1]}/30", "dev", "lo")
trivet("net", "create", "lan1", "--prefix", "10.0.0.0/24", "--nat")
third = pair()
if len({first[0], second[0], third[0]}) != 3 or len({first[1], second[1], third[1]}) != 3:
    fail(f"a gateway took what others have: {first}, {second}, {third}")
ip("link", "del", first[0])
trivet("net", "delete", "lan1")
if forwarding() != "0":
    fail("the last gateway went, and the host forwards")
print("ok: devices and addresses of others are left alone; forwarding is as it was before")

# While a gateway is made trivetd answers and makes other networks; one that is killed then leaves one that is made whole.
trivet("net", "create", "first")
write("hold", "")
creating = subprocess.Popen([TRIVET, "net", "create", "lan1", "--prefix", "10.0.0.0/24", "--nat"], env=ENV, stderr=subprocess.DEVNULL)
until("the beginning", lambda: "tvg" in ip("link").stdout, 60)
trivet("net", "create", "other")
states = {n["name"]: n["state"] for n in trivet_json("net", "list")["networks"]}
if states != {"first": "up", "other": "up", "lan1": "starting"} or creating.poll() is not None:
    fail(f"while a gateway is made: {states}")
os.kill(pid_of("trivetd")[0], signal.SIGKILL)
creating.wait(60)
os.unlink(HOLD)
trivet("net", "list")
until("the network again", lambda: all(n["state"] == "up" for n in trivet_json("net", "list")["networks"]), 60)
if "masquerade" not in subprocess.run(["ip", "netns", "exec", trivet_json("net", "show", "lan1")["namespace"], "nft", "list", "ruleset"],
                                      capture_output=True, text=True, check=True).stdout:
    fail("a gateway that was made in part stays so")
write("hold", "")  # the same of one that is taken away
deleting = subprocess.Popen([TRIVET, "net", "delete", "lan1"], env=ENV, stderr=subprocess.DEVNULL)
until("the beginning", lambda: "lan1" not in trivet("net", "list").stdout, 60)
os.kill(pid_of("trivetd")[0], signal.SIGKILL)
if deleting.wait(60) == 0:
    fail("a network is said to be deleted, and is not")
os.unlink(HOLD)
until("the network again", lambda: {n["name"]: n["state"] for n in trivet_json("net", "list")["networks"]}.get("lan1") == "up", 60)
for network in states:
    trivet("net", "delete", network)
if forwarding() != "0" or tables():
    fail(f"of the gateway that was made in part: {forwarding()} {tables()}")
print("ok: nobody waits while a gateway is made, and one that was made in part is made whole")

guests = {network: space(network) for network in ("lan1", "lan2", "core3")}
for network in guests:
    words = ["--type", "ip"] if network == "core3" else ["--dhcp", "--dns", "--limit", "500Mbit/s"]
    forward = ["--forward", "tcp:7:10.0.0.9:7"] if network == "lan1" else []
    trivet("net", "create", network, "--prefix", "10.0.0.0/24,fd00::/64", "--nat", *words, *forward)
    inside = trivet_json("net", "show", network)["namespace"]
    atexit.register(ip, "netns", "del", inside, may_fail=True)
    for family in ("ip", "ip6"):
        atexit.register(subprocess.run, ["nft", "delete", "table", family, inside], stderr=subprocess.DEVNULL, check=False)
    trivet("net", "attach", network, "guest", "tap", f"device=tvt{PID}{network[-1]}",
           *(["addresses=10.0.0.1/24,fd00::1/64"] if network == "core3" else []))
    plug(network)

for network in ("lan1", "lan2"):
    lease = output(guests[network], DHCP)
    if len(lease) != 3 or not lease[0].startswith("10.0.0.") or lease[1:] != ["10.0.0.1", "10.0.0.1"]:
        fail(f"DHCP in {network}: {lease}")
    if output(guests[network], DNS, "10.0.0.1", "guest") != [lease[0]]:
        fail(f"DNS in {network} does not know the name of who asked for an address")
print("ok: addresses and names")


def all_send():
    for guest in guests.values():
        send(guest, world, f"{OUTSIDE6}2")
        send(guest, world, f"{OUTSIDE}.2")  # the world has no route back but to the host: both ends see translated addresses
    send(world, guests["lan1"], f"{OUTSIDE}.1", "10.0.0.9")


all_send()
inside = trivet_json("net", "show", "lan1")["namespace"]
queue, = json.loads(subprocess.run(["tc", "-netns", inside, "-s", "-j", "qdisc", "show", "dev", "out"], capture_output=True, text=True, check=True).stdout)
ports = {p["name"]: p for p in trivet_json("net", "stats", "lan1")["ports"]}
if queue["kind"] != "tbf" or queue["options"]["rate"] * 8 != 500_000_000 or queue["bytes"] < 2 * BYTES:
    fail(f"the limit to the outside: {queue}")
if "500" not in json.dumps(ports["gateway"].get("promises")):
    fail(f"the limit from the outside: {ports['gateway']}")
if hearing() != "2":
    fail(f"the host of a gateway does not hear of routers: accept_ra is {hearing()}")
print("ok: three networks with the same addresses reach the outside, and a forwarded port is reached from there")

# Nothing else is: not the host itself, and no other network's gateway.
said = output(guests["lan2"], """
import socket, sys
s = socket.socket()
s.settimeout(2)
try:
    s.connect((sys.argv[1], int(sys.argv[2])))
    print("connected")
except OSError:
    print("refused")
""", f"{OUTSIDE}.1", "22")
if said != ["refused"]:
    fail(f"the host from lan2: {said}")

dead = trivet_json("net", "show", "lan1")["dnsmasq_pid"]
os.kill(dead, signal.SIGKILL)
until("another dnsmasq", lambda: trivet_json("net", "show", "lan1")["dnsmasq_pid"] not in (0, dead), 60)
dnsmasq = [n["dnsmasq_pid"] for n in trivet_json("net", "list")["networks"]]
os.kill(pid_of("trivetd")[0], signal.SIGKILL)
until("trivetd gone", lambda: not pid_of("trivetd"))
trivet("net", "list")
until("the networks taken over", lambda: all(n["state"] == "up" for n in trivet_json("net", "list")["networks"]), 60)
send(guests["lan1"], world, f"{OUTSIDE}.2")
if [n["dnsmasq_pid"] for n in trivet_json("net", "list")["networks"]] != dnsmasq or not all(pid in ours() for pid in dnsmasq if pid):
    fail("dnsmasq was started anew with trivetd")
router = pid_of("trivet-router")[0]
os.kill(router, signal.SIGKILL)  # TAP devices go with it, but for those of gateways
until("another router", lambda: pid_of("trivet-router") not in ([], [router]), 60)
until("the networks again", lambda: all(n["state"] == "up" for n in trivet_json("net", "list")["networks"]), 60)
for network in guests:
    plug(network)
all_send()
print("ok: and again after dnsmasq, trivetd and the router were killed")

left = [trivet_json("net", "show", network)["namespace"] for network in guests]
trivet("down")
nothing_left()
known = ip("netns").stdout
if any(name in known for name in left) or tables() or "tvg" in ip("link").stdout:
    fail(f"left: {known}{tables()}{ip('link').stdout}")
if forwarding() != "0" or forwarding6() != "0" or hearing() != "1":
    fail(f"the host still forwards: {forwarding()} {forwarding6()} {hearing()}")
print("ok: nothing of it stays")
