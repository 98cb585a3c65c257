#!/usr/bin/env python3
# The namespace of a network that routes: what its control plane gets and sends by the devices there, next to what the router does
# itself; routes of the namespace's table.
import os
import socket
import struct
import subprocess
import sys

from router_ip import ping
from router_rig import Router, main, move_tap, namespace, need_root, run, tap, transfer, wait_for


def control_plane(rig, router, vn, **params):
    """A network with a namespace of its own; that one's name."""
    need_root()
    name = f"trivet-{os.getpid()}-{vn}"
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
    assert transfer(rig, a, inside, "10.0.2.254", 1 << 20) == 1 << 20, "the address of another port"
    assert transfer(rig, inside, b, "10.0.2.1", 1 << 20) == 1 << 20
    assert transfer(rig, inside, b, "fd00:2::1", 1 << 20) == 1 << 20
    assert transfer(rig, a, b, "10.0.2.1", 1 << 20) == 1 << 20, "what is forwarded does not go there"
    assert ping(inside, "10.0.1.1") == ["echo", "10.0.1.1", "whole"]
    assert ping(inside, "fd00:1::1") == ["echo", "fd00:1::1", "whole"]
    assert ping(a, "10.0.1.254", 5000) == ["echo", "10.0.1.254", "whole"], "its kernel puts fragments together"
    assert router.stat("v")["ports"]["a"]["punt"]["sent_packets"] > 100
    assert router.end() == 0


# Arguments: the device, a group, and what to do: "hear" prints what comes, "say" sends it. UDP, port 9.
GROUP = """
import socket, struct, sys
device, group, what = sys.argv[1:]
six = ":" in group
s = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM)
index = socket.if_nametoindex(device)
s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
if what == "hear":
    s.bind(("", 9))
    if six:
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, socket.inet_pton(socket.AF_INET6, group) + struct.pack("@I", index))
    elif group != "255.255.255.255":
        s.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(group) + struct.pack("@4si", b"", index))
    print("ready", flush=True)
    s.settimeout(60)
    print(s.recvfrom(100)[0].decode())
else:
    s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
    s.sendto(what.encode(), (group, 9, 0, index) if six else (group, 9))
"""


def group(rig, hearer, hearing, sayer, saying, address):
    inside = ["ip", "netns", "exec"]
    process = rig.start([*inside, hearer, sys.executable, "-c", GROUP, hearing, address, "hear"], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    run(*inside, sayer, sys.executable, "-c", GROUP, saying, address, f"to {address}")
    assert process.stdout.readline() == f"to {address}\n"


def test_groups_of_the_link(rig):
    """What is for all on a link reaches the namespace by the device of that port, and leaves it so; it is never forwarded."""
    router = Router(rig)
    inside = control_plane(rig, router, "v")
    a = station(rig, router, "v", "a", "10.0.1", "fd00:1:")
    station(rig, router, "v", "b", "10.0.2", "fd00:2:")
    device = f"tvva{os.getpid()}"
    before = router.stat("v")["ports"]["b"]["sent_packets"]
    for address in ("224.0.0.5", "ff02::5", "255.255.255.255"):
        group(rig, inside, "a", a, device, address)
        group(rig, a, device, inside, "a", address)
    assert router.stat("v")["ports"]["b"]["sent_packets"] - before < 10, "it has MLD of its own"
    assert router.end() == 0


if __name__ == "__main__":
    main([value for name, value in list(globals().items()) if name.startswith("test_")])
