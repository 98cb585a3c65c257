#!/usr/bin/env python3
# What `trace` tells of a frame, and what then happens to it, must be the same: frames of all sorts, and damaged ones, to a switch and to a
# router with rings for ports.
import ipaddress
import random
import struct

from router_rig import Router, frame, mac, mac_text, main

ROUTER = {"a": mac(0xA1), "b": mac(0xB1), "m": mac(0xC1)}
FRAMES = 250


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total >> 16) + (total & 0xFFFF)
    return ~total & 0xFFFF


def packet4(source, to, payload, ttl=64, protocol=17, fragment=0):
    head = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), 7, fragment, ttl, protocol, 0, ipaddress.ip_address(source).packed,
                       ipaddress.ip_address(to).packed)
    return head[:10] + struct.pack(">H", checksum(head)) + head[12:] + payload


def packet6(source, to, payload, ttl=64, protocol=17):
    return struct.pack(">IHBB16s16s", 6 << 28, len(payload), protocol, ttl, ipaddress.ip_address(source).packed,
                       ipaddress.ip_address(to).packed) + payload


def echo4():
    body = struct.pack(">BBHHH", 8, 0, 0, 1, 1) + bytes(8)
    return body[:2] + struct.pack(">H", checksum(body)) + body[4:]


def counters(router, vn):
    return {name: (dict(p["drops"]), p["sent_packets"], p["received_packets"]) for name, p in router.stat(vn)["ports"].items()}


def compare(router, vn, port, data):
    """Tells what the router said, and checks that it did it."""
    told = router.control.ok("trace", {"vn": vn, "port": port, "frame": data.hex()})
    before = counters(router, vn)
    router.put(vn, port, data)
    router.settle(vn, port, before[port][2] + 1)
    after = counters(router, vn)
    drops = {cause: n - before[port][0][cause] for cause, n in after[port][0].items() if n != before[port][0][cause]}
    sent = {name for name in after if after[name][1] > before[name][1]}
    drops.pop("neighbour", None)  # of earlier ones that waited; and who is asked for is asked again each second
    exact = router.stat(vn)["type"] == "ethernet"
    what = f"{data.hex()} by {vn}/{port}: {told}, dropped {drops}, sent by {sent}"
    if told["outcome"] == "dropped":
        assert told["cause"] in drops and (not exact or len(drops) == 1), what  # what the sender is told by may be dropped as well
    else:
        assert not drops, what
    if told["outcome"] in ("sent", "flooded"):
        assert set(told["ports"]) == sent if exact else set(told["ports"]) <= sent, what
    if told["outcome"] == "answered":
        assert port in sent, what
    for name in after:
        router.take(vn, name)
    return told["outcome"], told.get("cause")


def mutate(rng, data):
    data = bytearray(data)
    for _ in range(rng.choice((0, 0, 1, 1, 2))):
        at = rng.randrange(min(len(data), 54))
        data[at] = rng.choice((0, 1, 0xFF, data[at] ^ 1 << rng.randrange(8), rng.randrange(256)))
    if rng.random() < 0.1:
        del data[rng.randrange(len(data)):]
    return bytes(data) or b"\0"


def test_switch(rig):
    router = Router(rig)
    router.vn("lan", unknown="flood")
    router.port("lan", "a")
    router.port("lan", "b")
    router.port("lan", "m", mac=mac_text(mac(1)), addresses=["10.0.0.1"])
    seen = set()
    rng = random.Random(5)
    everyone = [mac(n) for n in range(1, 5)] + [b"\xff" * 6, bytes.fromhex("0180c2000003"), bytes.fromhex("333300000001")]
    for _ in range(FRAMES):
        to, source = rng.choice(everyone), mac(rng.randrange(1, 5))
        inner = packet4(f"10.0.0.{rng.randrange(1, 3)}", "10.0.0.9", bytes(rng.randrange(40)))
        data = rng.choice((frame(to, source, bytes(46)), frame(to, source, inner, 0x0800)))
        seen.add(compare(router, "lan", rng.choice("abm"), mutate(rng, data)))
    assert {("sent", None), ("flooded", None), ("dropped", "spoofed"), ("dropped", "same_port"), ("dropped", "reserved"),
            ("dropped", "malformed")} <= seen, seen
    assert router.end() == 0


def test_router(rig):
    router = Router(rig)
    router.vn("net", type="ip", icmp_errors_per_s=1000000)
    for port, number in (("a", 1), ("b", 2)):
        router.port("net", port, mac=mac_text(ROUTER[port]), addresses=[f"10.0.{number}.254/24", f"fd00:{number}::fe/64"],
                    mtu=1300 if port == "b" else 1500)
    router.port("net", "m", mac=mac_text(ROUTER["m"]), addresses=["10.0.3.254/32"],
                machine={"mac": mac_text(mac(0xC2)), "addresses": ["10.0.3.1", "fd00:3::1"]})
    known = [("a", "10.0.1.1"), ("a", "fd00:1::1"), ("b", "10.0.2.1"), ("b", "10.0.2.2"), ("b", "fd00:2::1")]
    router.control.ok("neighbour.add", {"vn": "net", "neighbours": [{"port": p, "address": a, "mac": mac_text(mac(0x99))} for p, a in known]})
    router.control.ok("route.add", {"vn": "net", "routes": [
        {"prefix": "10.1.0.0/16", "via": ["10.0.2.1", "10.0.2.2"]}, {"prefix": "10.2.0.0/16", "type": "blackhole"},
        {"prefix": "10.3.0.0/16", "type": "unreachable"}, {"prefix": "fd01::/16", "via": "fd00:2::1"}]})
    sources = {"a": ("10.0.1.1", "fd00:1::1"), "b": ("10.0.2.1", "fd00:2::1"), "m": ("10.0.3.1", "fd00:3::1")}
    fours = ["10.0.1.1", "10.0.2.1", "10.0.2.255", "10.0.2.254", "10.0.3.1", "10.1.2.3", "10.2.2.3", "10.3.2.3", "10.9.9.9", "224.0.0.9",
             "127.0.0.1", "255.255.255.255"]
    sixes = ["fd00:1::1", "fd00:2::1", "fd00:2::fe", "fd00:3::1", "fd01::5", "2001:db8::1", "ff02::1", "fe80::1", "::1"]
    seen = set()
    rng = random.Random(6)
    for _ in range(2 * FRAMES):
        port = rng.choice("abm")
        to = rng.choice((ROUTER[port],) * 6 + (mac(0x77), b"\xff" * 6))
        source = mac(0xC2) if port == "m" else mac(0x99)
        size, ttl = rng.choice((0, 8, 20, 1272, 1400)), rng.choice((64, 64, 64, 2, 1, 0))
        if rng.random() < 0.6:
            payload, protocol = rng.choice(((bytes(size), 17), (bytes(size), 6), (bytes(size), 1), (echo4(), 1)))
            inner, kind = packet4(sources[port][0], rng.choice(fours), payload, ttl, protocol, rng.choice((0, 0x4000, 0x4000, 0x2000))), 0x0800
        else:
            inner, kind = packet6(sources[port][1], rng.choice(sixes), bytes(size), ttl, rng.choice((17, 17, 6, 58))), 0x86DD
        seen.add(compare(router, "net", port, mutate(rng, frame(to, source, inner, rng.choice((kind,) * 9 + (0x88B5,))))))
    causes = {cause for outcome, cause in seen if outcome == "dropped"}
    assert {"ttl", "too_big", "no_route", "prohibited", "martian", "multicast", "other_mac", "local", "checksum", "spoofed",
            "ethertype"} <= causes, causes
    assert {"sent", "answered", "dropped"} <= {outcome for outcome, _ in seen}, seen
    assert router.end() == 0


if __name__ == "__main__":
    main([value for name, value in list(globals().items()) if name.startswith("test_")])
