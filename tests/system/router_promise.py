#!/usr/bin/env python3
# Promises of networks and ports, through the process: what is refused and why, limits, reserves and weights held by the worker while others flood,
# verdicts. Shares are compared by count, with room for a busy host; what is exact is tried in simulated time (test_pace).
import os
import random
import struct

from router_rig import BROADCAST, Router, frame, mac, mac_text, main, wait_for

PLENTY = 300_000_000  # cycles


def flood(router, vn, name="flood", **params):
    """A port that never runs out of frames, for an address that another port has."""
    router.port(vn, name, "source", frames=[frame(mac(9), mac(n), bytes(1000)).hex() for n in range(1, 5)], **params)


def sink(router, vn):
    """Takes whatever is sent to it, and hardly sends anything."""
    router.port(vn, "sink", "null", mac=mac_text(mac(9)), promises="limit: 1 packets/s")


def network(router, name, promises="", **params):
    router.vn(name, **({"promises": promises} if promises else {}), **params)
    sink(router, name)
    flood(router, name)


def verdict(router, name, promise):
    entries = {e["name"]: e for e in router.control.ok("router.promises")}
    return {v["promise"]: v for v in entries[name]["verdicts"]}[promise]


def cycles(router, *names):
    return [router.stat(name)["cycles"] for name in names]


def share(router, name, other):
    """Of the time that both had, from now on, the part of the first: (at least, at most), as time passes between two looks."""
    before = cycles(router, name, other, name)
    wait_for("cycles", lambda: sum(cycles(router, name, other)) - sum(before[:2]) > 4 * PLENTY)
    after = cycles(router, name, other, name)
    others = after[1] - before[1]
    least, most = after[0] - before[2], after[2] - before[0]
    return least / (least + others), most / (most + others)


def test_refusals(rig):
    router = Router(rig)
    refused = router.control.refused
    router.vn("a", promises={"reserve": "50%"})
    told = refused("vn.add", {"name": "b", "promises": "reserve: 40%"})
    assert "network 'b': worker 0 cannot keep 50% (network 'a') + 40% (network 'b') = 90% of its time: 85% can be promised" in told, told
    router.vn("b", promises="reserve: 35%", weight=300)
    assert router.stat("b")["promises"] == "reserve: 35%, weight: 300"
    told = refused("vn.promise", {"name": "a", "promises": "reserve: 60%"})
    assert "reserve 10% less" in told, told
    assert router.stat("a")["promises"] == "reserve: 50%"
    assert "'limit: 10MB/s'" in refused("vn.promise", {"name": "a", "promises": "limit: 10MB/s"})
    assert "is missing" in refused("vn.promise", {"name": "a"})
    assert "no network 'x'" in refused("vn.promise", {"name": "x", "promises": ""})
    assert "no port 'p'" in refused("port.promise", {"vn": "a", "name": "p", "promises": ""})
    assert "must be a string or a number" in refused("vn.add", {"name": "c", "promises": {"weight": [2]}})
    assert "is there already" in refused("vn.add", {"name": "c", "promises": "weight: 2", "weight": 3})
    # Ports are within their network's share: together they need no more than it has.
    router.port("a", "p", promises="reserve: 30%")
    told = refused("port.add", {"vn": "a", "name": "q", "kind": "ring", "promises": "reserve: 30%"})
    assert "30% (port 'a/p') + 30% (port 'a/q')" in told and "= 95% of its time" in told, told
    router.port("a", "q", promises="reserve: 20%")
    router.control.ok("vn.promise", {"name": "b", "promises": "limit: 1Gbit/s"})
    router.port("b", "p", promises="reserve: 600Mbit/s")
    told = refused("port.add", {"vn": "b", "name": "q", "kind": "ring", "promises": "reserve: 500Mbit/s"})
    assert "have 1.1Gbit/s reserved together, and its limit is 1Gbit/s" in told, told
    taken = router.control.ok("port.promise", {"vn": "b", "name": "p", "promises": "reserve: 700Mbit/s, latency: p99 < 1ms"})
    assert taken == {"unproven": [{"name": "b/p", "promise": "reserve: 700Mbit/s"}]}, taken
    assert {e["name"] for e in router.control.ok("router.promises")} == {"a", "a/p", "a/q", "b", "b/p"}
    # What has gone leaves room.
    router.control.ok("port.remove", {"vn": "b", "name": "p"})
    router.control.ok("vn.remove", {"name": "a"})
    router.control.ok("vn.promise", {"name": "b", "promises": "reserve: 85%"})
    assert [e["name"] for e in router.control.ok("router.promises")] == ["b"]
    assert router.end() == 0


def test_limit(rig):
    """Of a network and of a port, in the router's own windows; nothing is dropped for it, and a worker with limits alone sleeps."""
    router = Router(rig)
    network(router, "v", "limit: 200Mbit/s")
    flood(router, "v", "slow", promises="limit: 1000 packets/s")
    windows = set()

    def look():
        vn, port = verdict(router, "v", "limit: 200Mbit/s"), verdict(router, "v/slow", "limit: 1k packets/s")
        assert vn["kept"] and port["kept"], (vn, port)
        assert vn["achieved"] <= 203_000_000 and port["achieved"] <= 1011, (vn, port)
        if vn["owed"] and port["owed"]:
            windows.add((vn["all"]["judged_ms"], vn["achieved"] >= 100_000_000 and port["achieved"] >= 300))
        return len([w for w in windows if w[1]]) >= 2

    wait_for("two windows in which the limits were reached", look)
    ports = router.stat("v")["ports"]
    assert not any(any(ports[name]["drops"].values()) for name in ("flood", "slow")), ports
    asleep = router.control.ok("router.stat")["workers"][0]["sleeps"]
    wait_for("sleeps", lambda: router.control.ok("router.stat")["workers"][0]["sleeps"] > asleep + 20)
    before = router.stat("v")["ports"]["flood"]["received_packets"]
    router.control.ok("vn.promise", {"name": "v", "promises": ""})
    wait_for("more than the limit let pass", lambda: router.stat("v")["ports"]["flood"]["received_packets"] > before + 500_000)
    assert router.end() == 0


def test_weights_of_ports(rig):
    router = Router(rig)
    router.vn("v")
    sink(router, "v")
    flood(router, "v", "light")
    flood(router, "v", "heavy", promises="weight: 300")
    before = router.stat("v")["ports"]
    wait_for("packets", lambda: router.stat("v")["ports"]["light"]["received_packets"] > before["light"]["received_packets"] + 2_500_000)
    after = router.stat("v")["ports"]  # one reading is of one moment, as nearly as matters; what packets cost is the same
    ratio = (after["heavy"]["received_packets"] - before["heavy"]["received_packets"]) / (
        after["light"]["received_packets"] - before["light"]["received_packets"])
    assert 2.4 < ratio < 3.7, ratio
    assert router.end() == 0


def dear_frames():
    """For a router: IPv4 packets of which each is answered with an error, or goes in fragments."""
    def packet(ttl, length, to, n):
        head = struct.pack(">BBHHHBBH4s4s", 0x45, 0, length, n, 0, ttl, 17, 0, bytes([10, 0, 0, 2]), to)
        total = sum(struct.unpack(">10H", head))
        while total >> 16:
            total = (total & 0xffff) + (total >> 16)
        return head[:10] + struct.pack(">H", total ^ 0xffff) + head[12:] + bytes(length - 20)
    router = bytes.fromhex("020000000001")
    return [frame(router, mac(2), packet(*p), 0x0800).hex() for p in
            [(1, 60, bytes([10, 1, 0, 9]), 1), (64, 1500, bytes([10, 1, 0, 9]), 2), (64, 60, bytes([10, 9, 0, 9]), 3)]]


def expensive_network(router, name):
    router.vn(name, type="ip", icmp_errors_per_s=1_000_000)
    router.port(name, "in", "source", mac="02:00:00:00:00:01", addresses=["10.0.0.1/24"], frames=dear_frames())
    router.port(name, "out", "null", mac="02:00:00:00:00:02", addresses=["10.1.0.1/24"], mtu=200)
    router.control.ok("neighbour.add", {"vn": name, "neighbours": [{"port": "out", "address": "10.1.0.9", "mac": mac_text(mac(3))},
                                                                  {"port": "in", "address": "10.0.0.2", "mac": mac_text(mac(2))}]})


def test_reserve_beside_floods(rig):
    """Half of the CPU in bits, beside a flood of ten times the weight, and beside one of packets that are dear to carry."""
    router = Router(rig)
    network(router, "victim")
    wait_for("what packets cost to be known", lambda: "alone" in router.stat("victim") and router.stat("victim")["cycles"] > 2 * PLENTY)
    reserve = router.stat("victim")["alone"]["bits_per_s"] // 2_000_000
    network(router, "flood", "weight: 1000")
    assert share(router, "victim", "flood")[0] < 0.2, "by weight it has an eleventh"
    taken = router.control.ok("vn.promise", {"name": "victim", "promises": f"reserve: {reserve}Mbit/s"})
    assert taken == {"unproven": []}, taken
    least, most = share(router, "victim", "flood")
    assert most > 0.35 and least < 0.75, (least, most)  # what the packets cost beside others is not what they cost alone
    assert verdict(router, "victim", router.stat("victim")["promises"])["proven"]
    router.control.ok("vn.remove", {"name": "flood"})
    expensive_network(router, "dear")
    router.control.ok("vn.promise", {"name": "dear", "promises": "weight: 1000"})
    least, most = share(router, "victim", "dear")
    assert most > 0.35 and least < 0.75, (least, most)
    # The other way round: what is reserved for dear packets does not grow with what they cost.
    router.control.ok("vn.promise", {"name": "victim", "promises": "reserve: 60%"})
    router.control.ok("vn.promise", {"name": "dear", "promises": "reserve: 100Gbit/s", "admitted": True})
    least, most = share(router, "victim", "dear")
    assert most > 0.5, (least, most)
    assert router.end() == 0


def test_frames_beside_a_flood(rig):
    """Of a network that floods nothing, all frames go through, whoever floods beside it, and its promises are kept."""
    router = Router(rig)
    router.vn("calm", promises="reserve: 10Mbit/s, latency: p99 < 500ms")
    for name in "ab":
        router.port("calm", name)
    for n in range(4):
        network(router, f"flood{n}", "weight: 1000")
    expensive_network(router, "dear")
    for n in range(200):
        sent = [frame(BROADCAST, mac(1), bytes([n, k]) + bytes(60)) for k in range(16)]
        router.put("calm", "a", *sent)
        got = []
        wait_for("the frames", lambda: got.extend(router.take("calm", "b")) or len(got) == 16)
        assert got == sent
    stat = router.stat("calm")
    assert not any(any(p["drops"].values()) for p in stat["ports"].values()), stat
    assert all(v["kept"] for v in stat["verdicts"]), stat["verdicts"]
    assert router.end() == 0


def test_broken_and_kept_again(rig):
    """A reserve of more than the CPU has is broken, and everybody is told, and by whom; one that can be kept is kept again."""
    router = Router(rig)
    network(router, "flood", "weight: 10000")
    network(router, "v", "reserve: 100%", admitted=True)
    told = []

    def broken():
        router.control.ok("vn.list")  # what is told comes beside answers
        told.extend(router.control.notified)
        router.control.notified.clear()
        return [v for method, v in told if method == "promise.changed" and v["name"] == "v" and not v["kept"]]

    wait_for("the promise to be broken", broken)
    assert broken()[0]["lack_ppm"] > 50_000, told
    assert broken()[0]["held_by"] in ("flood", None), told  # None: what the host ran meanwhile was more
    assert not verdict(router, "v", "reserve: 100%")["kept"] and "promise broken" in rig.log()
    router.control.ok("vn.promise", {"name": "flood", "promises": "weight: 1"})
    router.control.ok("vn.promise", {"name": "v", "promises": "reserve: 5%"})
    wait_for("the promise to be kept", lambda: verdict(router, "v", "reserve: 5%")["kept"])
    assert router.end() == 0


# ---- isolation ----

def crafted(rng, n):
    """What a hostile machine may send to reach another network: others' addresses, tags, headers that lie, fragments that overlap."""
    stations = [BROADCAST, b"\x33\x33\x00\x00\x00\x01", b"\x01\x80\xc2\x00\x00\x00", bytes(6), *(mac(k) for k in range(12)), *[mac(10)] * 8]
    hosts = [bytes([10, 0, k, m]) for k in range(2) for m in (0, 1, 2, 2, 2, 255)] + [bytes(4), b"\xff" * 4, bytes([127, 0, 0, 1]), bytes([224, 0, 0, 1])]

    def ip4():
        length = rng.choice([20, 40, 60, 600, 1500, rng.randrange(65536)])
        fragment = rng.choice([0, 0, 0x2000, 0x2001, 0x2003, 0x1FFF, rng.randrange(65536)])  # overlapping by one unit and by all
        head = struct.pack(">BBHHHBB", rng.choice([0x45, 0x45, 0x46, 0x4F, 0x44, 0x65]), 0, length, rng.randrange(4), fragment,
                           rng.choice([0, 1, 64]), rng.choice([1, 6, 17, 4, 41, 47])) + b"\0\0" + rng.choice(hosts) + rng.choice(hosts)
        total = sum(struct.unpack(">10H", head))
        while total >> 16:
            total = (total & 0xffff) + (total >> 16)
        return head[:10] + struct.pack(">H", total ^ 0xffff if rng.random() < 0.8 else 0) + head[12:] + rng.randbytes(min(length, 1400))

    def tunnel():  # a tunnel's datagram for another network's number
        inner = frame(rng.choice(stations), rng.choice(stations), b"inner", 0x0800)
        return ip4()[:20] + struct.pack(">HHHH", 4789, 4789, 16 + len(inner), 0) + struct.pack(">II", 0x08000000, rng.randrange(4) << 8) + inner

    def arp():
        return struct.pack(">HHBBH", 1, 0x0800, 6, 4, rng.choice([1, 2])) + rng.choice(stations) + rng.choice(hosts) + rng.choice(stations) + rng.choice(hosts)

    def tagged():
        return b"".join(struct.pack(">HH", rng.randrange(65536), rng.choice([0x8100, 0x88A8, 0x9100])) for _ in range(rng.randrange(4))) + \
            struct.pack(">HH", rng.randrange(4096), 0x0800) + ip4()

    frames = []
    for _ in range(n):
        kind, body = rng.choice([(0x0800, ip4), (0x0806, arp), (0x8100, tagged), (0x88A8, tagged), (0x0800, tunnel), (0x86DD, lambda: rng.randbytes(80)),
                                 (rng.randrange(65536), lambda: rng.randbytes(rng.randrange(2000)))])
        whole = frame(rng.choice(stations), rng.choice(stations), body(), kind)
        frames.append(whole[:rng.choice([len(whole), 2047, 2047, rng.randrange(1, 60)])][:2047])
    return frames


def crafted_tunnels(rng, n):
    """What a hostile host, 192.0.2.2, may send to where tunnels end: others' numbers, headers that lie, sources that no link has, things cut off."""
    frames = []
    for _ in range(n):
        inner = frame(rng.choice([BROADCAST, *(mac(k) for k in range(4))]), rng.choice([mac(1), mac(2), BROADCAST]), rng.randbytes(rng.randrange(80)), 0x0800)
        vni = rng.choice([1, 2, 2, 2, rng.randrange(1 << 24)])
        head = struct.pack(">II", rng.choice([0x08000000, 0x08000000, 0x08000000, 0, rng.randrange(1 << 32)]), vni << 8 | rng.choice([0, 0, 255]))
        payload = rng.choice([head, head, head[:rng.randrange(8)], head * 2]) + rng.choice([inner, inner, inner[:rng.randrange(20)], b""])
        udp = struct.pack(">HHHH", rng.randrange(65536), rng.choice([4789, 4789, 4789, rng.randrange(65536)]),
                          rng.choice([8 + len(payload), 8 + len(payload), rng.randrange(65536)]), rng.choice([0, 0, rng.randrange(65536)])) + payload
        source = bytes([192, 0, 2, rng.choice([2, 2, 2, 4, 255])])
        part = struct.pack(">BBHHHBBH4s4s", 0x45, 0, rng.choice([20 + len(udp), 20 + len(udp), rng.randrange(65536)]), rng.randrange(4),
                           rng.choice([0, 0, 0, 0x2000, 0x0001]), 64, 17, 0, source, bytes([192, 0, 2, 1]))
        total = sum(struct.unpack(">10H", part))
        total = (total & 0xffff) + (total >> 16)
        total = (total & 0xffff) + (total >> 16)
        frames.append(frame(mac(20), mac(21), part[:10] + struct.pack(">H", total ^ 0xffff) + part[12:] + udp, 0x0800))
    return frames


def test_crafted_packets_stay_in_their_network(rig):
    """ISOLATION (65536) packets, each another one, of two hostile networks and of a hostile host; calm ones with the same addresses, and the calm
    one that has a link to another host on the same underlay, see none of them."""
    n, batch = int(os.environ.get("ISOLATION", "65536")), 4096
    rng = random.Random(20261127)
    router = Router(rig)
    sources = {"e-hostile": crafted, "i-hostile": crafted, "underlay": crafted_tunnels}
    for kind in ("ethernet", "ip"):
        for vn in ("hostile", "calm"):
            router.vn(f"{kind[0]}-{vn}", type=kind)
    router.vn("underlay", type="ip")
    router.port("underlay", "vtep", "vtep")
    router.port("underlay", "up", addresses=["192.0.2.1/24"])
    for number, vn in enumerate(("t-hostile", "t-calm"), 1):
        router.vn(vn)
        router.port(vn, "b")
        router.port(vn, "link", "vxlan", underlay="underlay", local="192.0.2.1", remote=f"192.0.2.{number + 1}", vni=number)

    def own(vn, k):
        return {"mac": mac_text(mac(10 + k)), "addresses": [f"10.0.{k}.1/24"]} if vn[0] == "i" else {}

    for vn in ("e-hostile", "e-calm", "i-hostile", "i-calm"):
        for k, port in enumerate("ab"):
            if (vn, port) not in (("e-hostile", "a"), ("i-hostile", "a")):
                router.port(vn, port, **own(vn, k))
    router.control.ok("neighbour.add", {"vn": "i-hostile", "neighbours": [{"port": "b", "address": "10.0.1.2", "mac": mac_text(mac(2))}]})
    passed = {"e-hostile": 0, "i-hostile": 0, "t-hostile": 0}
    rounds = (n + batch - 1) // batch
    for number in range(rounds):
        for vn, make in sources.items():
            params = own(vn, 0) if vn != "underlay" else {"mac": mac_text(mac(20)), "addresses": ["198.51.100.1/24"]}
            router.port(vn, "a", "source", frames=[f.hex() for f in make(rng, batch)], **params)
        hello = frame(BROADCAST, mac(1), b"calm %d" % number + bytes(60))
        router.put("e-calm", "a", hello)
        got = []
        wait_for("the calm network's own frame", lambda: got.extend(router.take("e-calm", "b")) or got)
        assert got == [hello], got
        for vn in sources:
            wait_for(f"all crafted packets of {vn}", lambda vn=vn: router.stat(vn)["ports"]["a"]["received_packets"] >= batch)
            router.control.ok("port.remove", {"vn": vn, "name": "a"})
        for vn in passed:
            passed[vn] += len(router.take(vn, "b"))
        assert all(router.take(vn, port) == [] for vn, port in (("e-calm", "a"), ("i-calm", "a"), ("i-calm", "b"), ("t-calm", "b")))
    assert all(passed.values()), passed  # some of it is carried, where it belongs
    for vn, expected in (("e-calm", rounds), ("i-calm", 0), ("t-calm", 0)):
        ports = router.stat(vn)["ports"]
        assert sum(p["received_packets"] for p in ports.values()) == expected, ports
        assert sum(p["sent_packets"] for p in ports.values()) == expected, ports
    print(f"        {rounds * batch} different packets each; of the hostile ones' own {passed} were looked at")
    assert router.end() == 0


if __name__ == "__main__":
    main([value for name, value in list(globals().items()) if name.startswith("test_")])
