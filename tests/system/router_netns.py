#!/usr/bin/env python3
# The namespace of a network that routes: what its control plane gets and sends by the devices there, next to what the router does
# itself; routes of the namespace's table.
import os
import subprocess
import sys

from router_ip import ping
from router_rig import Router, main, move_tap, namespace, need_root, readline, run, tap, transfer, wait_for

MANY = 15000  # routes


def control_plane(rig, router, vn, **params):
    """A network with a namespace of its own; that one's name."""
    need_root()
    name = f"trivet-{os.getpid()}-{vn}"
    rig.undo.append(["sh", "-c", f"ip netns del {name} 2>/dev/null"])  # of a router that this test had to kill
    router.control.ok("vn.add", {"name": vn, "type": "ip", "buffers": 1024, "netns": name, **params})
    return name


def station(rig, router, vn, port, four, six=None):
    """A namespace behind a port of the network: 1 on the link, the router 254 and fe."""
    space, device = namespace(rig, f"{vn}{port}"), f"tv{vn}{port}{os.getpid()}"
    fd = tap(device)
    move_tap(device, space, f"{four}.1/24")
    addresses = [f"{four}.254/24"]
    if six:
        run("ip", "-n", space, "addr", "add", f"{six}:1/64", "dev", device, "nodad")
        addresses.append(f"{six}:fe/64")
    router.port(vn, port, "tap", [fd], addresses=addresses)
    os.close(fd)
    run("ip", "-n", space, "route", "add", "default", "via", f"{four}.254")
    if six:
        run("ip", "-n", space, "-6", "route", "add", "default", "via", f"{six}:fe")
    return space


def spaces():
    return os.listdir("/run/netns")


def routes(router, vn, start="0.0.0.0/0"):
    return {r["prefix"]: r for r in router.control.ok("route.list", {"vn": vn, "from": start})["routes"]}


def test_namespace_comes_and_goes(rig):
    router = Router(rig)
    inside = control_plane(rig, router, "v")
    assert inside in spaces() and router.stat("v")["netns"] == inside
    router.port("v", "a", addresses=["10.0.1.254/24", "fd00:1::fe/64"], mac="02:00:00:00:00:a1", mtu=1400)
    shown = run("ip", "-n", inside, "addr", "show", "dev", "a")
    for part in ("link/ether 02:00:00:00:00:a1", "mtu 1400", "inet 10.0.1.254/24", "inet6 fd00:1::fe/64", "inet6 fe80::ff:fe00:a1/64", "UP"):
        assert part in shown, shown
    assert "must be one that no device there has" in router.control.refused("port.add", {"vn": "v", "name": "lo", "kind": "ring"})
    router.control.ok("port.remove", {"vn": "v", "name": "a"})
    assert "a:" not in run("ip", "-n", inside, "-o", "link")
    router.control.ok("vn.remove", {"name": "v"})
    assert inside not in spaces()
    # One that was there stays; one of a router that was killed goes with the network that has it next.
    other = namespace(rig, "other")
    router.control.ok("vn.add", {"name": "w", "type": "ip", "buffers": 256, "netns": other})
    router.control.ok("vn.remove", {"name": "w"})
    assert other in spaces()
    control_plane(rig, router, "v")
    router.process.kill()
    router.process.wait()
    assert inside in spaces()
    router = Router(rig)
    control_plane(rig, router, "v")
    assert router.end() == 0
    assert inside not in spaces()


def test_local_traffic(rig):
    """Connections to the router's own addresses end in the namespace, from any link; those from there reach stations."""
    router = Router(rig)
    inside = control_plane(rig, router, "v")
    a = station(rig, router, "v", "a", "10.0.1", "fd00:1:")
    b = station(rig, router, "v", "b", "10.0.2", "fd00:2:")
    assert transfer(rig, a, inside, "10.0.1.254", 4 << 20) == 4 << 20
    assert transfer(rig, a, inside, "fd00:1::fe", 1 << 20) == 1 << 20
    assert transfer(rig, a, inside, "10.0.2.254", 1000) == 1000, "the address of another port"
    assert transfer(rig, inside, b, "10.0.2.1", 1 << 20) == 1 << 20
    assert transfer(rig, inside, b, "fd00:2::1", 1 << 20) == 1 << 20
    assert transfer(rig, a, b, "10.0.2.1", 1 << 20) == 1 << 20, "what is forwarded does not go there"
    assert ping(inside, "10.0.1.1") == ["echo", "10.0.1.1", "whole"]
    assert ping(a, "10.0.1.254", 5000) == ["echo", "10.0.1.254", "whole"], "its kernel puts fragments together"
    assert router.stat("v")["ports"]["a"]["punt"]["sent_packets"] > 100
    assert router.end() == 0


# Arguments: the device, "hear" or "say", groups. UDP, port 9: what comes to each is printed; each is told its own name.
GROUPS = """
import socket, struct, sys
device, what, *groups = sys.argv[1:]
index = socket.if_nametoindex(device)
sockets = []
for group in groups:
    six = ":" in group
    s = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    if what == "hear":
        s.bind((group, 9, 0, index) if six else (group, 9))
        if six:
            s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, socket.inet_pton(socket.AF_INET6, group) + struct.pack("@I", index))
        elif group != "255.255.255.255":
            s.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, struct.pack("4s4si", socket.inet_aton(group), b"", index))
        s.settimeout(60)
    else:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        s.sendto(f"to {group}".encode(), (group, 9, 0, index) if six else (group, 9))
    sockets.append(s)
if what == "hear":
    print("ready", flush=True)
    print(",".join(s.recvfrom(100)[0].decode() for s in sockets))
"""


def groups(rig, hearer, hearing, sayer, saying, *addresses):
    inside = ["ip", "netns", "exec"]
    process = rig.start([*inside, hearer, sys.executable, "-c", GROUPS, hearing, "hear", *addresses], stdout=subprocess.PIPE, text=True)
    assert readline(process.stdout) == "ready\n"
    run(*inside, sayer, sys.executable, "-c", GROUPS, saying, "say", *addresses)
    assert readline(process.stdout) == ",".join(f"to {a}" for a in addresses) + "\n"


def test_groups_of_the_link(rig):
    """What is for all on a link reaches the namespace by the device of that port, and leaves it so; it is never forwarded."""
    router = Router(rig)
    inside = control_plane(rig, router, "v")
    a = station(rig, router, "v", "a", "10.0.1", "fd00:1:")
    station(rig, router, "v", "b", "10.0.2", "fd00:2:")
    device = f"tvva{os.getpid()}"
    before = router.stat("v")["ports"]["b"]["sent_packets"]
    for ends in ((inside, "a", a, device), (a, device, inside, "a")):
        groups(rig, *ends, "224.0.0.5", "ff02::5", "255.255.255.255")
    assert router.stat("v")["ports"]["b"]["sent_packets"] - before < 10, "it has MLD of its own"
    assert router.end() == 0


def test_routes_of_the_namespace(rig):
    """What is put into the namespace's table is in the network's, with its protocol, as long as it is there; packets go by it."""
    router = Router(rig)
    inside = control_plane(rig, router, "v")
    a = station(rig, router, "v", "a", "10.0.1", "fd00:1:")
    b = station(rig, router, "v", "b", "10.0.2", "fd00:2:")
    for address in ("198.51.100.1/32", "2001:db8::1/128"):
        run("ip", "-n", b, "addr", "add", address, "dev", "lo")

    def route(*words, family="-4"):
        run("ip", "-n", inside, family, "route", *words)

    def told(prefix, route):
        wait_for(f"{prefix}: {route}", lambda: routes(router, "v").get(prefix) == ({"prefix": prefix, **route} if route else None))
    route("add", "198.51.100.0/24", "via", "10.0.2.1", "proto", "static")
    route("add", "2001:db8::/32", "via", "fd00:2::1", "proto", "bgp", "metric", "7", family="-6")
    told("198.51.100.0/24", {"type": "via", "via": ["10.0.2.1%b"], "origin": "kernel", "protocol": "static", "metric": 0})
    told("2001:db8::/32", {"type": "via", "via": ["fd00:2::1%b"], "origin": "kernel", "protocol": "bgp", "metric": 7})
    assert ping(a, "198.51.100.1") == ["echo", "198.51.100.1", "whole"]
    assert ping(a, "2001:db8::1") == ["echo", "2001:db8::1", "whole"]
    route("del", "198.51.100.0/24")
    route("del", "2001:db8::/32", family="-6")
    told("198.51.100.0/24", None)
    told("2001:db8::/32", None)
    kernel = {"origin": "kernel", "metric": 0}
    # Several ways, one less, another metric, configuration before all, and what leads nowhere.
    route("add", "203.0.113.0/24", "nexthop", "via", "10.0.2.1", "dev", "b", "nexthop", "via", "10.0.1.1", "dev", "a")
    wait_for("both ways", lambda: sorted(routes(router, "v").get("203.0.113.0/24", {}).get("via", [])) == ["10.0.1.1%a", "10.0.2.1%b"])
    route("replace", "203.0.113.0/24", "via", "10.0.2.1")
    told("203.0.113.0/24", {"type": "via", "via": ["10.0.2.1%b"], "protocol": "boot", **kernel})
    route("add", "203.0.113.0/24", "via", "10.0.1.1", "metric", "5")
    route("del", "203.0.113.0/24", "via", "10.0.2.1")
    told("203.0.113.0/24", {"type": "via", "via": ["10.0.1.1%a"], "protocol": "boot", "origin": "kernel", "metric": 5})
    router.control.ok("route.add", {"vn": "v", "routes": [{"prefix": "203.0.113.0/24", "type": "blackhole"}]})
    told("203.0.113.0/24", {"type": "blackhole", "origin": "control"})
    router.control.ok("route.remove", {"vn": "v", "routes": ["203.0.113.0/24"]})
    told("203.0.113.0/24", {"type": "via", "via": ["10.0.1.1%a"], "protocol": "boot", "origin": "kernel", "metric": 5})
    route("add", "2001:db8:1::/48", "nexthop", "via", "fd00:2::1", "dev", "b", "nexthop", "via", "fd00:1::1", "dev", "a", family="-6")
    wait_for("both ways of IPv6", lambda: len(routes(router, "v").get("2001:db8:1::/48", {"via": []})["via"]) == 2)
    route("del", "2001:db8:1::/48", "via", "fd00:1::1", "dev", "a", family="-6")
    wait_for("one way", lambda: routes(router, "v")["2001:db8:1::/48"]["via"] == ["fd00:2::1%b"])
    # Nexthop objects.
    run("ip", "-n", inside, "nexthop", "add", "id", "9", "via", "10.0.2.1", "dev", "b")
    route("add", "192.0.2.0/24", "nhid", "9")
    wait_for("by the object", lambda: routes(router, "v").get("192.0.2.0/24", {}).get("via") == ["10.0.2.1%b"])
    run("ip", "-n", inside, "nexthop", "replace", "id", "9", "via", "10.0.1.1", "dev", "a")
    wait_for("by the changed one", lambda: routes(router, "v")["192.0.2.0/24"]["via"] == ["10.0.1.1%a"])
    run("ip", "-n", inside, "nexthop", "del", "id", "9")
    told("192.0.2.0/24", None)
    # A port that goes takes its routes along.
    router.control.ok("port.remove", {"vn": "v", "name": "b"})
    wait_for("routes by the port to go", lambda: "2001:db8:1::/48" not in routes(router, "v"))
    assert "10.0.2.0/24" not in routes(router, "v")
    assert router.end() == 0


def test_neighbours_of_the_namespace(rig):
    router = Router(rig)
    inside = control_plane(rig, router, "v")
    router.port("v", "a", addresses=["10.0.1.254/24", "fd00:1::fe/64"])

    def known():
        return {n["address"]: n["mac"].lower() for n in router.control.ok("neighbour.list", {"vn": "v"})["neighbours"] if n["state"] == "static"}
    run("ip", "-n", inside, "neigh", "add", "10.0.1.1", "lladdr", "02:00:00:00:00:01", "dev", "a")
    run("ip", "-n", inside, "neigh", "add", "fd00:1::1", "lladdr", "02:00:00:00:00:01", "dev", "a")
    wait_for("both", lambda: known() == {"10.0.1.1": "02:00:00:00:00:01", "fd00:1::1": "02:00:00:00:00:01"})
    run("ip", "-n", inside, "neigh", "replace", "10.0.1.1", "lladdr", "02:00:00:00:00:02", "dev", "a")
    wait_for("another address", lambda: known()["10.0.1.1"] == "02:00:00:00:00:02")
    run("ip", "-n", inside, "neigh", "del", "10.0.1.1", "dev", "a")
    wait_for("one to go", lambda: list(known()) == ["fd00:1::1"])
    assert router.end() == 0


def test_outside_by_the_namespace(rig):
    """What the namespace routes by a device of its own, the network hands over to it: so the outside is reached, and its loopback."""
    router = Router(rig)
    inside = control_plane(rig, router, "v")
    a = station(rig, router, "v", "a", "10.0.1")
    outside = namespace(rig, "outside")
    run("ip", "-n", inside, "link", "add", "out", "type", "veth", "peer", "name", "in", "netns", outside)
    run("ip", "-n", inside, "addr", "add", "192.0.2.1/24", "dev", "out")
    run("ip", "-n", inside, "link", "set", "out", "up")
    run("ip", "-n", inside, "addr", "add", "10.255.0.1/32", "dev", "lo")
    run("ip", "netns", "exec", inside, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")
    for command in (["addr", "add", "192.0.2.9/24", "dev", "in"], ["link", "set", "in", "up"], ["route", "add", "10.0.1.0/24", "via", "192.0.2.1"]):
        run("ip", "-n", outside, *command)
    # A machine with an address that is in no prefix of its port: the namespace knows the way as well.
    router.port("v", "m", addresses=["10.0.3.254/24"], machine={"mac": "02:00:00:00:00:07", "addresses": ["10.7.0.1", "fd00:7::1"]})
    assert "10.7.0.1 dev m" in run("ip", "-n", inside, "route") and "fd00:7::1 dev m" in run("ip", "-n", inside, "-6", "route")
    assert routes(router, "v")["10.7.0.1/32"]["origin"] == "port"
    wait_for("the outside's prefix", lambda: routes(router, "v").get("192.0.2.0/24", {}).get("type") == "namespace")
    assert ping(a, "192.0.2.9") == ["echo", "192.0.2.9", "whole"]
    assert ping(a, "10.255.0.1") == ["echo", "10.255.0.1", "whole"]
    assert transfer(rig, a, outside, "192.0.2.9", 4 << 20) == 4 << 20
    run("ip", "-n", inside, "link", "set", "out", "down")  # the kernel's routes of IPv4 go without a word
    wait_for("the prefix to go", lambda: "192.0.2.0/24" not in routes(router, "v"))
    assert router.end() == 0


def test_many_routes(rig):
    """Tens of thousands of routes at once, more than there is room for in a socket's buffer: all are there in the end, and gone again."""
    router = Router(rig)
    inside = control_plane(rig, router, "v")
    router.port("v", "a", addresses=["10.0.0.254/24"])
    wait_for("the beginning", lambda: router.stat("v")["control_plane"]["kernel"]["settled"])
    before = router.stat("v")["routes4"]
    prefixes = [f"{20 + n // 65536}.{n // 256 % 256}.{n % 256}.0/24" for n in range(MANY)]

    def batch(what):
        commands = "".join(f"route {what} {p} via 10.0.0.{n % 8 + 1} dev a\n" for n, p in enumerate(prefixes))
        subprocess.run(["ip", "-n", inside, "-batch", "-"], input=commands, text=True, check=True, timeout=120)
    batch("add")
    wait_for("the routes", lambda: router.stat("v")["routes4"] == before + MANY)
    # While the router does not look.
    os.kill(router.process.pid, 19)
    batch("del")
    batch("add")
    os.kill(router.process.pid, 18)
    wait_for("an overrun", lambda: router.stat("v")["control_plane"]["kernel"]["overruns"] > 0)
    wait_for("everything told again", lambda: router.stat("v")["control_plane"]["kernel"]["settled"])
    assert router.stat("v")["routes4"] == before + MANY
    run("ip", "-n", inside, "route", "flush", "dev", "a", "proto", "boot")
    wait_for("no routes", lambda: router.stat("v")["routes4"] == before)
    assert router.end() == 0


if __name__ == "__main__":
    main([value for name, value in list(globals().items()) if name.startswith("test_")])
