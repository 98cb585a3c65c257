#!/usr/bin/env python3
# Networks of the type ip, through the process and between kernels: two networks with the same addresses, each between two namespaces;
# pings, traceroutes, fragments, MTUs, TCP; routes by control, many networks, and what a routed network costs when it is made.
import os
import subprocess
import sys

from router_rig import Router, main, move_tap, namespace, need_root, run, tap, transfer, wait_for

LINKS = {"a": ("10.0.1", "fd00:1:"), "b": ("10.0.2", "fd00:2:")}  # each namespace is 1 on its link, the router 254 and fe


def routed(rig, router, vn, mtu_b=1500):
    """A network between two namespaces, with the same addresses in every one."""
    router.control.ok("vn.add", {"name": vn, "type": "ip", "buffers": 1024})
    spaces = {}
    for end, (four, six) in LINKS.items():
        spaces[end] = space = namespace(rig, f"{vn}{end}")
        device = f"tv{vn}{end}{os.getpid()}"
        fd = tap(device)
        move_tap(device, space, f"{four}.1/24")
        run("ip", "-n", space, "addr", "add", f"{six}:1/64", "dev", device, "nodad")
        if end == "b":
            run("ip", "-n", space, "link", "set", device, "mtu", str(mtu_b))
        router.port(vn, end, "tap", [fd], addresses=[f"{four}.254/24", f"{six}:fe/64"], mtu=mtu_b if end == "b" else 1500)
        os.close(fd)
        run("ip", "-n", space, "route", "add", "default", "via", f"{four}.254")
        run("ip", "-n", space, "-6", "route", "add", "default", "via", f"{six}:fe")
    return spaces


# Run in a namespace: pings without the program for it, which not every host has. Arguments: address, bytes, TTL, whether to fragment.
# Prints who answered, with what.
PING = """
import os, select, socket, struct, sys, time
to, size, ttl, dont = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "dont"
six = ":" in to
s = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMPV6 if six else socket.IPPROTO_ICMP)
s.setsockopt(socket.IPPROTO_IPV6 if six else socket.IPPROTO_IP, socket.IPV6_UNICAST_HOPS if six else socket.IP_TTL, ttl)
if not six:
    s.setsockopt(socket.IPPROTO_IP, 10, 3 if dont else 0)  # IP_MTU_DISCOVER: IP_PMTUDISC_PROBE or _DONT
def checksum(data):
    data += b"\\0" * (len(data) % 2)
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total >> 16) + (total & 0xffff)
    return ~total & 0xffff
body = bytes(i & 0xff for i in range(size))
deadline = time.monotonic() + 60
sequence = 0
while time.monotonic() < deadline:
    sequence += 1
    head = struct.pack(">BBHHH", 128 if six else 8, 0, 0, os.getpid() & 0xffff, sequence)
    if not six:
        head = struct.pack(">BBHHH", 8, 0, checksum(head + body), os.getpid() & 0xffff, sequence)
    s.sendto(head + body, (to, 0))
    end = time.monotonic() + 2
    while select.select([s], [], [], max(0, end - time.monotonic()))[0]:
        data, source = s.recvfrom(65536)
        if not six:
            data = data[(data[0] & 15) * 4:]
        kind, code = data[0], data[1]
        if kind == (129 if six else 0) and data[4:6] == head[4:6]:
            print("echo", source[0], "whole" if data[8:] == body else "damaged")
            sys.exit()
        if kind in ((1, 2, 3) if six else (3, 11)) and head[4:6] in data[8:]:
            print("error", source[0], kind, code, struct.unpack(">I", data[4:8])[0])
            sys.exit()
print("nothing")
"""


def ping(space, to, size=56, ttl=64, mode="may"):
    done = subprocess.run(["ip", "netns", "exec", space, sys.executable, "-c", PING, to, str(size), str(ttl), mode], capture_output=True,
                          text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_two_networks_with_the_same_addresses(rig):
    need_root()
    router = Router(rig)
    spaces = {vn: routed(rig, router, vn) for vn in "vw"}
    for vn, ends in spaces.items():
        other = "w" if vn == "v" else "v"
        before = router.stat(other)["ports"]["b"]["sent_packets"]
        assert ping(ends["a"], "10.0.2.1") == ["echo", "10.0.2.1", "whole"]
        assert ping(ends["a"], "fd00:2::1") == ["echo", "fd00:2::1", "whole"]
        assert ping(ends["a"], "10.0.1.254") == ["echo", "10.0.1.254", "whole"], "the router itself"
        assert ping(ends["a"], "fd00:2::fe") == ["echo", "fd00:2::fe", "whole"]
        assert transfer(rig, ends["a"], ends["b"], "10.0.2.1", 4 << 20) == 4 << 20
        assert transfer(rig, ends["b"], ends["a"], "fd00:1::1", 1 << 20) == 1 << 20
        after = router.stat(other)["ports"]["b"]["sent_packets"]
        assert after - before < 20, "what went through one network was seen in the other"  # it has Neighbour Discovery of its own
    router.control.ok("vn.remove", {"name": "w"})
    assert ping(spaces["v"]["b"], "10.0.1.1") == ["echo", "10.0.1.1", "whole"]
    assert router.end() == 0


def test_traceroute(rig):
    """The hop limit runs out at the router, and then no more."""
    need_root()
    router = Router(rig)
    ends = routed(rig, router, "v")
    assert ping(ends["a"], "10.0.2.1", ttl=1)[:4] == ["error", "10.0.1.254", "11", "0"]
    assert ping(ends["a"], "10.0.2.1", ttl=2)[0] == "echo"
    assert ping(ends["a"], "fd00:2::1", ttl=1)[:4] == ["error", "fd00:1::fe", "3", "0"]
    assert ping(ends["a"], "fd00:2::1", ttl=2)[0] == "echo"
    assert ping(ends["a"], "203.0.113.1")[:4] == ["error", "10.0.1.254", "3", "0"], "no route"
    assert ping(ends["a"], "2001:db8::1")[:4] == ["error", "fd00:1::fe", "1", "0"]
    assert ping(ends["a"], "10.0.2.77")[:4] == ["error", "10.0.1.254", "3", "1"], "nobody there"
    assert ping(ends["a"], "fd00:2::77")[:4] == ["error", "fd00:1::fe", "1", "3"]


def test_fragments_and_mtu(rig):
    need_root()
    router = Router(rig)
    ends = routed(rig, router, "v", mtu_b=1300)
    assert ping(ends["a"], "10.0.2.1", 1400) == ["echo", "10.0.2.1", "whole"]
    assert ping(ends["a"], "10.0.2.1", 20000) == ["echo", "10.0.2.1", "whole"], "fragments are fragmented again"
    assert router.stat("v")["ports"]["b"]["fragments"] >= 2
    assert ping(ends["a"], "10.0.2.1", 1400, mode="dont") == ["error", "10.0.1.254", "3", "4", "1300"]
    assert ping(ends["a"], "fd00:2::1", 1400) in (["error", "fd00:1::fe", "2", "0", "1300"], ["echo", "fd00:2::1", "whole"])
    assert ping(ends["a"], "fd00:2::1", 20000) == ["echo", "fd00:2::1", "whole"], "the kernel has learned the path's MTU"
    assert transfer(rig, ends["a"], ends["b"], "fd00:2::1", 1 << 20) == 1 << 20


def test_routes_come_and_go(rig):
    """A prefix behind a station: reached by a route, refused without it, while packets flow."""
    need_root()
    router = Router(rig)
    ends = routed(rig, router, "v")
    for address in ("198.51.100.1/32", "2001:db8::1/128"):
        run("ip", "-n", ends["b"], "addr", "add", address, "dev", "lo")
    route = {"vn": "v", "routes": [{"prefix": "198.51.100.0/24", "via": "10.0.2.1"}, {"prefix": "2001:db8::/32", "via": "fd00:2::1"}]}
    gone = {"vn": "v", "routes": ["198.51.100.0/24", "2001:db8::/32"]}
    for _ in range(2):
        assert ping(ends["a"], "198.51.100.1")[0] == "error"
        router.control.ok("route.add", route)
        assert ping(ends["a"], "198.51.100.1") == ["echo", "198.51.100.1", "whole"]
        assert ping(ends["a"], "2001:db8::1") == ["echo", "2001:db8::1", "whole"]
        listed = router.control.ok("route.list", {"vn": "v", "from": "198.51.100.0/24"})["routes"]
        assert {"prefix": "198.51.100.0/24", "type": "via", "via": ["10.0.2.1%b"]} in listed, listed
        router.control.ok("route.remove", gone)
    neighbours = router.control.ok("neighbour.list", {"vn": "v"})["neighbours"]
    assert {"10.0.1.1", "10.0.2.1"} <= {n["address"] for n in neighbours if n["state"] in ("reachable", "stale", "probe")}, neighbours
    assert "has no route.add" in router_of_ethernet(router)


def router_of_ethernet(router):
    router.vn("switch")
    return router.control.refused("route.add", {"vn": "switch", "routes": []})


def test_bulk(rig):
    """Tens of thousands of routes at once, listed in pieces, and gone again with the memory they took."""
    router = Router(rig)
    router.control.ok("vn.add", {"name": "v", "type": "ip", "buffers": 256})
    router.port("v", "a", addresses=["10.0.0.254/24"])
    empty = router.stat("v")["table_bytes"]
    prefixes = [f"{20 + n // 65536}.{n // 256 % 256}.{n % 256}.0/24" for n in range(50000)]
    router.control.ok("route.add", {"vn": "v", "routes": [{"prefix": p, "via": f"10.0.0.{n % 8 + 1}"} for n, p in enumerate(prefixes)]})
    assert router.stat("v")["routes4"] == 50003
    listed, start = [], "0.0.0.0/0"
    while start:
        answer = router.control.ok("route.list", {"vn": "v", "from": start})
        listed += answer["routes"]
        start = answer.get("next")
    assert {r["prefix"] for r in listed} == {*prefixes, "10.0.0.0/24", "10.0.0.254/32", "10.0.0.255/32"} and len(listed) == 50003
    router.control.ok("route.remove", {"vn": "v", "routes": prefixes})
    assert router.stat("v")["routes4"] == 3
    assert router.stat("v")["table_bytes"] < empty + (3 << 20), "but for direct pointing"
    assert router.end() == 0


def test_thousand_networks(rig):
    """1000 networks of 100 routes each; they go as they came."""
    router = Router(rig, "--memory", "1024")
    for n in range(1000):
        router.control.ok("vn.add", {"name": f"n{n}", "type": "ip", "buffers": 256})
        router.port(f"n{n}", "a", addresses=["10.0.0.254/24"])
        router.control.ok("route.add", {"vn": f"n{n}", "routes": [{"prefix": f"20.{k}.0.0/16", "via": f"10.0.0.{n % 250 + 1}"} for k in range(100)]})
    assert router.stat("n999")["routes4"] == 103 and router.stat("n999")["table_bytes"] < 192 << 10
    with open(f"/proc/{router.process.pid}/status", encoding="ascii") as f:
        resident_kb = int(f.read().partition("VmRSS:")[2].split()[0])
    assert resident_kb < 1 << 20, f"{resident_kb} KB"
    for n in range(1000):
        router.control.ok("vn.remove", {"name": f"n{n}"})
    assert router.control.ok("router.stat")["networks"] == 0
    assert router.end() == 0


def test_null_frames_are_nothing(rig):
    """A device that receives empty frames without end: dropped and counted, and the network is still there."""
    router = Router(rig)
    router.control.ok("vn.add", {"name": "v", "type": "ip"})
    router.port("v", "a", "null", addresses=["10.0.0.254/24"])
    wait_for("drops", lambda: router.stat("v")["ports"]["a"]["drops"]["other_mac"] > 1000)
    assert router.end() == 0


if __name__ == "__main__":
    main([value for name, value in list(globals().items()) if name.startswith("test_")])
