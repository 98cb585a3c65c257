#!/usr/bin/env python3
# FRR as the control planes of two networks, which are joined by a link: OSPF and BGP find each other, packets go by what they learn;
# zebra is killed and comes back while packets flow, and what was withdrawn meanwhile goes.
#
# FRR_ROUTES=N: so many routes by BGP in place of some hundreds, and how long each thing took.
import os
import subprocess
import sys
import time

from frr_rig import Frr
from router_ip import ping
from router_netns import control_plane, routes, spaces, station
from router_rig import Router, main, namespace, run, tap, wait_for

ROUTES = int(os.environ.get("FRR_ROUTES", "300"))
STALE_S = 8 if ROUTES < 1000 else 60  # longer than the daemons take to tell everything again
OSPF = """interface l
 ip ospf network point-to-point
 ip ospf hello-interval 1
 ip ospf dead-interval 4
router ospf
 ospf router-id {address}
 timers throttle spf 0 10 100
 timers throttle lsa all 0
 timers lsa min-arrival 0
 passive-interface {other}
 network 10.0.0.0/8 area 0
"""
BGP = """router bgp {own}
 bgp router-id {address}
 no bgp ebgp-requires-policy
 no bgp network import-check
 timers bgp 3 9
 neighbor {peer} remote-as {other}
 neighbor {peer} timers connect 1
 neighbor {peer} advertisement-interval 0
"""


def prefix(n):
    return f"{20 + n // 65536}.{n // 256 % 256}.{n % 256}.0/24"


def cable(rig, router, nets):
    """A link between a port `l` of each of two networks: TAP devices and a bridge between them."""
    space = namespace(rig, "cable")
    run("ip", "-n", space, "link", "add", "bridge", "type", "bridge", "mcast_snooping", "0")
    run("ip", "-n", space, "link", "set", "bridge", "up")
    for n, vn in enumerate(nets):
        device = f"tl{vn}{os.getpid()}"
        fd = tap(device)
        run("ip", "link", "set", device, "netns", space)
        run("ip", "-n", space, "link", "set", device, "master", "bridge", "up")
        router.port(vn, "l", "tap", [fd], addresses=[f"10.9.0.{n + 1}/24"])
        os.close(fd)


# Pings until its input ends; how many echoes were asked for, and how many came. Arguments: addresses, in turn.
PINGS = """
import os, select, socket, struct, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
def checksum(data):
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total >> 16) + (total & 0xffff)
    return ~total & 0xffff
me, sent, came = os.getpid() & 0xffff, 0, set()
def hear(seconds):
    while select.select([s], [], [], seconds)[0]:
        data = s.recv(2048)
        data = data[(data[0] & 15) * 4:]
        if data[0] == 0 and struct.unpack(">H", data[4:6])[0] == me:
            came.add(struct.unpack(">I", data[8:12])[0])
        seconds = 0
while not select.select([sys.stdin], [], [], 0.005)[0]:
    body = struct.pack(">HHI", me, sent & 0xffff, sent)
    s.sendto(struct.pack(">BBH", 8, 0, checksum(struct.pack(">BBH", 8, 0, 0) + body)) + body, (sys.argv[1 + sent % (len(sys.argv) - 1)], 0))
    sent += 1
    hear(0)
deadline = time.monotonic() + 10
while len(came) < sent and time.monotonic() < deadline:
    hear(0.1)
print(sent, len(came), sorted(set(range(sent)) - came)[:20])
"""


def start_pings(rig, space, *addresses):
    return rig.start(["ip", "netns", "exec", space, sys.executable, "-c", PINGS, *addresses], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def end_pings(process):
    sent, came, *lost = process.communicate(input="\n", timeout=60)[0].split(" ", 2)
    assert int(sent) > 20, sent
    assert sent == came, f"of {sent} packets these were lost: {lost}"


def learned(router, vn, origin):
    """Prefixes that came by BGP."""
    return router.stat(vn)["control_plane"][origin]["routes"]


def timed(what, begin):
    if ROUTES > 1000:
        print(f"{what}: {time.monotonic() - begin:.2f} s", flush=True)


def test_frr(rig):
    router = Router(rig)
    inside = {vn: control_plane(rig, router, vn, stale_s=STALE_S) for vn in "vw"}
    a = station(rig, router, "v", "a", "10.0.1")
    b = station(rig, router, "w", "b", "10.0.2")
    run("ip", "-n", b, "addr", "add", "20.0.0.1/32", "dev", "lo")
    router.control.ok("route.add", {"vn": "w", "routes": [{"prefix": "20.0.0.0/8", "via": "10.0.2.1"}]})
    cable(rig, router, "vw")
    frr = {vn: Frr(rig, inside[vn]) for vn in "vw"}
    for n, vn in enumerate("vw"):
        address, peer = f"10.9.0.{n + 1}", f"10.9.0.{2 - n}"
        frr[vn].start("ospfd", OSPF.format(address=address, other="ab"[n]))
        networks = "".join(f"  network {prefix(k)}\n" for k in range(ROUTES if vn == "w" else 0))
        bgp = BGP.format(own=65001 + n, other=65002 - n, address=address, peer=peer)
        frr[vn].start("bgpd", f"{bgp} address-family ipv4 unicast\n{networks}")
    begin = time.monotonic()

    def is_by(vn, what, gateway, protocol):
        route = routes(router, vn, what).get(what, {})
        return route.get("via") == [gateway] and route.get("origin") == "fpm" and route.get("protocol") == protocol
    wait_for("OSPF's routes", lambda: is_by("v", "10.0.2.0/24", "10.9.0.2%l", "ospf") and is_by("w", "10.0.1.0/24", "10.9.0.1%l", "ospf"))
    wait_for("BGP's routes", lambda: learned(router, "v", "fpm") >= ROUTES and is_by("v", prefix(ROUTES - 1), "10.9.0.2%l", "bgp"), 300)
    timed(f"{ROUTES} routes by BGP", begin)
    wait_for("the kernel's too", lambda: learned(router, "v", "kernel") >= ROUTES, 300)

    # zebra dies, and as FRR's watchfrr does, all are started again. The way back does not depend on what the peer makes of that.
    router.control.ok("route.add", {"vn": "w", "routes": [{"prefix": "10.0.1.0/24", "via": "10.9.0.1"}]})
    for address in ("10.0.2.1", "20.0.0.1"):
        assert ping(a, address)[0] == "echo"  # all neighbours on the way are known from here on
    pings = start_pings(rig, a, "10.0.2.1", "20.0.0.1")
    for name in ("zebra", "bgpd", "ospfd"):
        frr["v"].kill(name)
    wait_for("zebra's end to be seen", lambda: not router.stat("v")["control_plane"]["fpm"]["connected"])
    frr["w"].tell("bgpd", "configure terminal", "router bgp 65002", "address-family ipv4 unicast", f"no network {prefix(7)}")
    begin = time.monotonic()
    frr["v"].start_zebra()
    frr["v"].start("ospfd")
    frr["v"].start("bgpd")
    wait_for("zebra", lambda: router.stat("v")["control_plane"]["fpm"]["connected"])
    assert prefix(7) in routes(router, "v", prefix(7)), "nothing goes yet"
    wait_for("what was withdrawn meanwhile to go", lambda: prefix(7) not in routes(router, "v", prefix(7)))
    timed("all back, and what was withdrawn meanwhile gone", begin)
    end_pings(pings)
    assert is_by("v", "10.0.2.0/24", "10.9.0.2%l", "ospf") and is_by("v", prefix(0), "10.9.0.2%l", "bgp")
    assert learned(router, "v", "fpm") >= ROUTES - 1

    begin = time.monotonic()
    frr["w"].kill("bgpd")
    wait_for("BGP's routes to go", lambda: prefix(0) not in routes(router, "v", prefix(0)) and learned(router, "v", "fpm") < 10, 300)
    wait_for("the kernel's too", lambda: learned(router, "v", "kernel") < 20, 300)
    timed(f"{ROUTES} routes withdrawn", begin)
    assert router.end() == 0
    assert not set(inside.values()) & set(spaces())


if __name__ == "__main__":
    main([test_frr])
