#!/usr/bin/env python3
# Links between hosts, through the process: the kernel's VXLAN at the far side, over IPv4 and IPv6, for networks of both types; two networks with
# the same addresses over one underlay; what was made up so that it might come into another network; MTUs; underlays that come and go.
import os
import random
import shutil
import struct
import subprocess

from router_ip import ping
from router_rig import (BROADCAST, Router, Skip, frame, mac, main, move_tap, namespace, need_root, run, tap, transfer, wait_for)

HERE, THERE = "192.0.2.1", "192.0.2.2"
HERE6, THERE6 = "2001:db8::1", "2001:db8::2"


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total >> 16) + (total & 0xFFFF)
    return ~total & 0xFFFF


def outer(payload, udp_port=4789, source=THERE, to=HERE, udp_length=None, udp_checksum=0, protocol=17, fragment=0, tos=0):
    """A frame of the far host's to the router's port on the underlay."""
    udp = struct.pack(">HHHH", 50000, udp_port, len(payload) + 8 if udp_length is None else udp_length, udp_checksum) + payload
    head = struct.pack(">BBHHHBBH", 0x45, tos, 20 + len(udp), 0, fragment, 64, protocol, 0) + bytes(map(int, source.split("."))) + bytes(
        map(int, to.split(".")))
    head = head[:10] + struct.pack(">H", checksum(head)) + head[12:]
    return frame(mac(0xA1), mac(2), head + udp, 0x0800)


def vxlan(vni, inner, flags=0x08):
    return struct.pack(">BxxxI", flags, vni << 8) + inner


def rings(rig, *vnis, kind="vxlan"):
    """An underlay, and a switch for each VNI with a machine m and a link far, all on rings."""
    router = Router(rig)
    router.vn("net", type="ip")
    router.port("net", "up", addresses=[f"{HERE}/24"], mac="02:00:00:00:00:a1")
    router.port("net", "vtep", "vtep")
    router.control.ok("neighbour.add", {"vn": "net", "neighbours": [{"port": "up", "address": THERE, "mac": "02:00:00:00:00:02"}]})
    for vni in vnis:
        router.vn(f"v{vni}")
        router.port(f"v{vni}", "m")
        named = {"vni": vni} if kind == "vxlan" else {"udp_port": 5000 + vni}
        router.port(f"v{vni}", "far", kind, underlay="net", local=HERE, remote=THERE, **named)
    return router


def test_frames_on_the_wire(rig):
    """Byte by byte: what is added to a frame, and what is taken off."""
    for kind, head in (("vxlan", struct.pack(">BxxxI", 8, 7 << 8)), ("raw", b"")):
        router = rings(rig, 7, kind=kind)
        inner = frame(mac(5), mac(6), b"hello" * 20)
        router.put("v7", "m", inner)
        router.settle("net", "vtep", 1)
        (sent,) = router.take("net", "up")
        assert sent[:14] == mac(2) + mac(0xA1) + b"\x08\0" and checksum(sent[14:34]) == 0
        assert sent[20:24] == b"\x40\0\x40\x11", "not to be fragmented, 64 hops, UDP"
        source, to, length, udp_checksum = struct.unpack(">HHHH", sent[34:42])
        assert source >= 49152 and to == (4789 if kind == "vxlan" else 5007) and length == len(sent) - 34 and udp_checksum == 0
        assert sent[42:] == head + inner and (kind == "vxlan" or len(sent) == len(inner) + 42)
        back = frame(mac(6), mac(5), b"and back")
        router.put("net", "up", outer(head + back, udp_port=to))
        router.settle("v7", "far", 1)
        assert router.take("v7", "m") == [back]
        stat = router.stat("v7")
        assert stat["ports"]["far"]["sent_packets"] == stat["ports"]["far"]["received_packets"] == 1 and stat["buffers_used"] == 0
        assert router.stat("net")["buffers_used"] == 0
        assert router.end() == 0


def test_nothing_arrives_in_another_network(rig):
    """Crafted packets by the thousand: each is dropped and counted, or comes into the network it belongs to."""
    router = rings(rig, 7, 8)
    inner = frame(BROADCAST, mac(5), b"secret")
    good = outer(vxlan(7, inner))
    bad = [outer(vxlan(9, inner)), outer(vxlan(7, inner), source="192.0.2.3"), outer(vxlan(7, inner, flags=0)), outer(vxlan(7, b"")),
           outer(b"\x08\0\0"), outer(vxlan(7, inner), udp_length=7), outer(vxlan(7, inner), udp_length=2000),
           outer(vxlan(7, inner), udp_checksum=0x1234), outer(vxlan(7, inner), fragment=0x2000), outer(vxlan(7, inner), fragment=1),
           outer(vxlan(7, inner), udp_port=4790), outer(vxlan(7, inner[:13]))]
    router.put("net", "up", *bad)
    router.settle("net", "up", len(bad))
    drops = router.stat("net")["ports"]["vtep"]["drops"]
    assert drops["link"] == 4 and drops["malformed"] == 2 and drops["checksum"] == 1, drops
    assert router.stat("net")["ports"]["up"]["drops"]["local"] == 3, "fragments, and a port of nobody's"
    assert router.stat("v7")["ports"]["far"]["drops"]["malformed"] == 2
    assert router.take("v7", "m") == [] and router.take("v8", "m") == []
    rng = random.Random(7)
    sent, wait = len(bad), 0
    for _ in range(20):
        batch = [good]
        for _ in range(100):
            broken = bytearray(good)
            for _ in range(rng.randrange(1, 4)):
                broken[rng.choice([*range(14, 50), *range(len(broken))])] = rng.randrange(256)
            if broken[46:49] != b"\0\0\x08":  # that one would be right
                batch.append(bytes(broken[:rng.choice([len(broken), rng.randrange(14, len(broken) + 1)])]))
        router.put("net", "up", *batch)
        sent += len(batch)
        router.settle("net", "up", sent)
        wait_for("frames", lambda: router.stat("v7")["ports"]["far"]["received_packets"] > wait)
        wait += 1
        assert good[50:] in router.take("v7", "m")
        router.take("net", "up")
        for stray in router.take("v8", "m"):
            assert False, f"came into the network of VNI 8: {stray.hex()}"
    assert router.stat("v8")["ports"]["far"]["received_packets"] == 0
    assert router.stat("net")["buffers_used"] == 0 and router.stat("v8")["buffers_used"] == 0
    assert router.end() == 0


def test_what_is_refused(rig):
    router = rings(rig, 7)
    router.vn("w")
    link = {"vn": "w", "name": "far", "kind": "vxlan", "underlay": "net", "local": HERE, "remote": THERE, "vni": 8}
    for change, text in (({"underlay": "none"}, "no port of the kind vtep"), ({"local": "192.0.2.9"}, "which no port of the underlay"),
                         ({"vni": 7}, "already"), ({"vni": 1 << 24}, "0 to 16777215"), ({"remote": HERE}, "another host"),
                         ({"remote": THERE6}, "both of IPv4"), ({"remote": "x"}, "a host's IPv4"), ({"kind": "raw"}, "no \"vni\""),
                         ({"path_mtu": 100}, "576 to"), ({"checksum": 1}, "true or false"), ({"vn": "net"}, "own network")):
        assert text in router.control.refused("port.add", {**link, **change}), change
    raw = {**link, "kind": "raw", "udp_port": 4789}
    del raw["vni"]
    assert "links of the other kind" in router.control.refused("port.add", raw)
    assert "of the type ip" in router.control.refused("port.add", {"vn": "w", "name": "t", "kind": "vtep"})
    assert "the network's vtep already" in router.control.refused("port.add", {"vn": "net", "name": "t", "kind": "vtep"})
    told = {"udp_port": 5000, "ttl": 3, "dscp": 46, "checksum": True, "path_mtu": 1400}
    router.control.ok("port.add", {**link, **told})
    stat = router.stat("w")["ports"]["far"]
    assert {key: stat[key] for key in (*link, *told) if key != "vn"} == {**{k: v for k, v in link.items() if k != "vn"}, **told}, stat
    assert router.stat("net")["ports"]["vtep"]["links"] == 2
    assert router.end() == 0


def test_underlay_comes_and_goes(rig):
    """A link outlives its underlay: what it is to send is dropped and counted, and goes again when there is one."""
    router = rings(rig, 7, 8)
    for turn in range(1, 4):
        router.control.ok("vn.remove", {"name": "net"})
        assert not router.stat("v7")["ports"]["far"]["connected"]
        router.put("v7", "m", frame(BROADCAST, mac(5)))
        wait_for("the drop", lambda: router.stat("v7")["ports"]["far"]["drops"]["link"] == turn)
        router.vn("net", type="ip")
        router.port("net", "up", addresses=[f"{HERE}/24"], mac="02:00:00:00:00:a1")
        router.port("net", "vtep", "vtep")
        router.control.ok("neighbour.add", {"vn": "net", "neighbours": [{"port": "up", "address": THERE, "mac": "02:00:00:00:00:02"}]})
        assert router.stat("v7")["ports"]["far"]["connected"]
        router.put("v7", "m", frame(BROADCAST, mac(5), b"again"))
        router.settle("net", "vtep", 1)
        assert len(router.take("net", "up")) == 1
        router.put("net", "up", outer(vxlan(8, frame(BROADCAST, mac(6), b"here"))))
        wait_for("the frame", lambda: router.stat("v8")["ports"]["far"]["received_packets"] == turn)
    router.control.ok("port.remove", {"vn": "v8", "name": "far"})
    assert router.stat("net")["ports"]["vtep"]["links"] == 1
    router.put("net", "up", outer(vxlan(8, frame(BROADCAST, mac(6)))))
    wait_for("the drop", lambda: router.stat("net")["ports"]["vtep"]["drops"]["link"] == 1)
    assert router.end() == 0


def test_no_way_from_link_to_link(rig):
    """With three hosts: what came from one does not go on to the other, which has had it already."""
    router = rings(rig, 7)
    router.port("v7", "third", "vxlan", underlay="net", local=HERE, remote="192.0.2.3", vni=7)
    flooded = frame(BROADCAST, mac(5), b"to all")
    router.put("net", "up", outer(vxlan(7, flooded)))
    router.settle("v7", "far", 1)
    assert router.take("v7", "m") == [flooded] and router.stat("v7")["ports"]["third"]["sent_packets"] == 0
    router.put("v7", "m", frame(BROADCAST, mac(6)))
    wait_for("both", lambda: all(router.stat("v7")["ports"][p]["sent_packets"] == 1 for p in ("far", "third")))
    assert router.end() == 0


def arp(operation, sender_mac, sender, target_mac, target):
    body = bytes.fromhex("000108000604") + struct.pack(">H", operation) + sender_mac + bytes(sender) + target_mac + bytes(target)
    return frame(BROADCAST if operation == 1 else target_mac, sender_mac, body, 0x0806)


def test_known_neighbours(rig):
    """Who has an address on another host is known: the question is answered here, frames go to that host alone, and nobody else can be him."""
    router = rings(rig, 7)
    router.port("v7", "third", "vxlan", underlay="net", local=HERE, remote="192.0.2.3", vni=7)
    router.port("v7", "n", mac="02:00:00:00:00:06", addresses=["10.0.0.6"])
    here, there = [10, 0, 0, 5], [10, 0, 0, 8]
    entry = {"port": "far", "address": "10.0.0.8", "mac": "02:00:00:00:00:08"}
    router.control.ok("neighbour.add", {"vn": "v7", "neighbours": [entry, {**entry, "address": "fd00::8"}]})
    listed = router.control.ok("neighbour.list", {"vn": "v7"})["neighbours"]
    assert {**entry, "state": "static"} in listed and len(listed) == 3, listed
    assert {"port": "n", "address": "10.0.0.6", "mac": "02:00:00:00:00:06", "state": "machine"} in listed
    router.put("v7", "m", arp(1, mac(5), here, bytes(6), there), arp(1, mac(5), here, bytes(6), [10, 0, 0, 6]))
    router.settle("v7", "m", 2)
    assert router.take("v7", "m") == [arp(2, mac(8), there, mac(5), here), arp(2, mac(6), [10, 0, 0, 6], mac(5), here)]
    router.put("v7", "m", frame(mac(8), mac(5), b"to him"))
    router.settle("v7", "m", 3)
    stat = router.stat("v7")["ports"]
    assert stat["far"]["sent_packets"] == 1 and not stat["third"]["sent_packets"] and not stat["n"]["sent_packets"], stat
    assert stat["m"]["answered"] == 2
    router.put("v7", "m", frame(BROADCAST, mac(8)))
    router.settle("v7", "m", 4)
    assert router.stat("v7")["ports"]["m"]["drops"]["spoofed"] == 1
    # The machine moves to this host; then it goes, and nobody is known to have its address.
    router.port("v7", "moved", mac="02:00:00:00:00:08", addresses=["10.0.0.8"])
    router.put("v7", "m", frame(mac(8), mac(5), b"to him"))
    router.settle("v7", "m", 5)
    assert router.take("v7", "moved") == [frame(mac(8), mac(5), b"to him")]
    router.control.ok("neighbour.add", {"vn": "v7", "neighbours": [entry]})  # somebody has not heard of it yet
    router.control.ok("port.remove", {"vn": "v7", "name": "moved"})
    router.put("v7", "m", arp(1, mac(5), here, bytes(6), there))
    router.settle("v7", "m", 6)
    assert router.take("v7", "m") == []
    # A port takes what was said of it with it; other answers stay.
    router.control.ok("neighbour.add", {"vn": "v7", "neighbours": [entry, {**entry, "port": "third", "address": "10.0.0.9", "mac": "02:00:00:00:00:09"}]})
    router.control.ok("port.remove", {"vn": "v7", "name": "far"})
    router.control.ok("neighbour.remove", {"vn": "v7", "neighbours": [{"port": "m", "address": "10.0.0.9"}]})  # not of that port
    assert {n["address"] for n in router.control.ok("neighbour.list", {"vn": "v7"})["neighbours"]} == {"10.0.0.6", "10.0.0.9"}
    for change, text in (({"port": "x"}, "no port"), ({"mac": "01:00:00:00:00:01"}, "a station's"), ({"address": "10"}, "IPv4 or IPv6"),
                         ({"port": "n"}, "has its machine's")):
        bad = [{**entry, "port": "third"}, {**entry, "port": "third", **change}]
        assert text in router.control.refused("neighbour.add", {"vn": "v7", "neighbours": bad}), change
    assert len(router.control.ok("neighbour.list", {"vn": "v7"})["neighbours"]) == 2, "all are checked before the first is taken"
    assert router.end() == 0


def host(rig, router, name="h", mtu=1500):
    """A namespace that is another host: the kernel, on the underlay's link."""
    space = namespace(rig, name)
    device = f"tv{name}{os.getpid()}"
    fd = tap(device)
    move_tap(device, space, f"{THERE}/24")
    run("ip", "-n", space, "addr", "add", f"{THERE6}/64", "dev", device, "nodad")
    run("ip", "-n", space, "link", "set", device, "mtu", str(mtu))
    router.vn("net", type="ip")
    router.port("net", "up", "tap", [fd], addresses=[f"{HERE}/24", f"{HERE6}/64"], mtu=mtu)
    os.close(fd)
    router.port("net", "vtep", "vtep")
    return space


def kernel_vxlan(space, vni, address, six=False, device=None, **params):
    """The kernel's end of a network in a namespace of its own, so that addresses may be the same."""
    device = device or f"vx{vni}"
    local, remote = (THERE6, HERE6) if six else (THERE, HERE)
    words = [word for key, value in params.items() for word in (key, *([str(value)] if value is not None else []))]
    run("ip", "-n", space, "link", "add", device, "type", "vxlan", "id", str(vni), "local", local, "remote", remote, "dstport", "4789", *words)
    run("ip", "-n", space, "link", "set", device, "up", "mtu", "1430")
    if address:
        run("ip", "-n", space, "addr", "add", address, "dev", device)


def machine(rig, router, vn, name, address, mtu=1500):
    space = namespace(rig, name)
    device = f"tv{name}{os.getpid()}"
    fd = tap(device)
    move_tap(device, space, address)
    run("ip", "-n", space, "link", "set", device, "mtu", str(mtu))
    router.port(vn, name, "tap", [fd])
    os.close(fd)
    return space


def test_kernel_vxlan(rig):
    """Two switches with the same addresses in them, one over IPv4, one over IPv6, and the kernel at the far side of both."""
    need_root()
    router = Router(rig)
    far = host(rig, router)
    for vni, six in ((7, False), (8, True)):
        vn = f"v{vni}"
        router.vn(vn)
        router.port(vn, "far", "vxlan", underlay="net", local=HERE6 if six else HERE, remote=THERE6 if six else THERE, vni=vni)
        near = machine(rig, router, vn, f"m{vni}", "10.7.0.1/24", 1430)
        kernel_vxlan(far, vni, None, six)
        inside = namespace(rig, f"f{vni}")
        run("ip", "-n", far, "link", "set", f"vx{vni}", "netns", inside)
        run("ip", "-n", inside, "addr", "add", "10.7.0.2/24", "dev", f"vx{vni}")
        run("ip", "-n", inside, "link", "set", f"vx{vni}", "up")
        assert ping(near, "10.7.0.2") == ["echo", "10.7.0.2", "whole"]
        assert ping(inside, "10.7.0.1", 1400, mode="dont") == ["echo", "10.7.0.1", "whole"]
        assert transfer(rig, near, inside, "10.7.0.2", 1 << 20) == 1 << 20
        assert transfer(rig, inside, near, "10.7.0.1", 1 << 20) == 1 << 20
    drops = router.stat("net")["ports"]["vtep"]["drops"]
    assert not drops["checksum"] and not drops["link"], drops
    assert router.end() == 0


def test_kernel_vxlan_routed(rig):
    """A network that routes, with the kernel behind a link of it, and MTUs: errors of ICMP tell what fits, and learn what does not."""
    need_root()
    router = Router(rig)
    far = host(rig, router)
    router.vn("v", type="ip")
    router.port("v", "far", "vxlan", underlay="net", local=HERE, remote=THERE, vni=7, addresses=["10.7.0.254/24"])
    assert router.stat("v")["ports"]["far"]["mtu"] == 1450
    near = namespace(rig, "m")
    device = f"tvm{os.getpid()}"
    fd = tap(device)
    move_tap(device, near, "10.8.0.1/24")
    run("ip", "-n", near, "route", "add", "default", "via", "10.8.0.254")
    router.port("v", "m", "tap", [fd], addresses=["10.8.0.254/24"])
    os.close(fd)
    kernel_vxlan(far, 7, "10.7.0.1/24")
    run("ip", "-n", far, "route", "add", "10.8.0.0/24", "via", "10.7.0.254")
    assert ping(near, "10.7.0.1", 1422, mode="dont") == ["echo", "10.7.0.1", "whole"]
    assert ping(near, "10.7.0.1", 1423, mode="dont") == ["error", "10.8.0.254", "3", "4", "1450"]
    assert ping(near, "10.7.0.1", 8000) == ["echo", "10.7.0.1", "whole"], "inner packets are fragmented, outer ones are not"
    assert transfer(rig, near, far, "10.7.0.1", 1 << 20) == 1 << 20
    assert transfer(rig, far, near, "10.8.0.1", 1 << 20) == 1 << 20
    assert router.end() == 0


def test_open_vswitch(rig):
    """Open vSwitch, with its datapath in user space, at the far side."""
    need_root()
    server = "/usr/sbin/ovs-vswitchd"
    if not os.path.exists(server) or not shutil.which("ovsdb-server"):
        raise Skip("needs Open vSwitch (Debian: openvswitch-switch)")
    router = Router(rig)
    far = host(rig, router)
    router.vn("v7")
    router.port("v7", "far", "vxlan", underlay="net", local=HERE, remote=THERE, vni=7)
    near = machine(rig, router, "v7", "m", "10.7.0.1/24", 1450)
    folder = rig.path("ovs")
    os.mkdir(folder)
    environment = {**os.environ, "OVS_RUNDIR": folder, "OVS_LOGDIR": folder, "OVS_DBDIR": folder}
    run("ovsdb-tool", "create", f"{folder}/conf.db", "/usr/share/openvswitch/vswitch.ovsschema")
    inside = ["ip", "netns", "exec", far]
    with open(f"{folder}/log", "wb") as log:
        rig.start([*inside, "ovsdb-server", f"{folder}/conf.db", f"--remote=punix:{folder}/db.sock"], stderr=log, env=environment)
        wait_for("the database", lambda: os.path.exists(f"{folder}/db.sock"))
        rig.start([*inside, server, f"unix:{folder}/db.sock"], stderr=log, env=environment)

    def configure(*words):
        run("ovs-vsctl", f"--db=unix:{folder}/db.sock", "--timeout=60", *words)

    device = f"tvh{os.getpid()}"
    run("ip", "-n", far, "addr", "flush", "dev", device)
    configure("init")
    configure("add-br", "wire", "--", "set", "bridge", "wire", "datapath_type=netdev", "--", "add-port", "wire", device)
    configure("add-br", "inner", "--", "set", "bridge", "inner", "datapath_type=netdev", "--", "add-port", "inner", "tunnel", "--", "set",
              "interface", "tunnel", "type=vxlan", f"options:remote_ip={HERE}", f"options:local_ip={THERE}", "options:key=7")
    for bridge, address in (("wire", f"{THERE}/24"), ("inner", "10.7.0.2/24")):
        run("ip", "-n", far, "addr", "add", address, "dev", bridge)
        run("ip", "-n", far, "link", "set", bridge, "up", "mtu", "1500" if bridge == "wire" else "1450")
    assert ping(near, "10.7.0.2") == ["echo", "10.7.0.2", "whole"]
    assert ping(far, "10.7.0.1", 1400, mode="dont") == ["echo", "10.7.0.1", "whole"]
    assert transfer(rig, near, far, "10.7.0.2", 1 << 20) == 1 << 20
    assert transfer(rig, far, near, "10.7.0.1", 1 << 20) == 1 << 20
    assert router.end() == 0


def test_path_mtu_is_learned(rig):
    """A part of the way has less room: of the underlay's own, or as an error of ICMP says; the link has it, and who sends hears of it."""
    router = Router(rig)
    router.vn("net", type="ip")
    router.port("net", "up", addresses=[f"{HERE}/24"], mac="02:00:00:00:00:a1", mtu=1400)
    router.port("net", "vtep", "vtep")
    router.control.ok("neighbour.add", {"vn": "net", "neighbours": [{"port": "up", "address": THERE, "mac": "02:00:00:00:00:02"}]})
    router.vn("v", type="ip")
    router.port("v", "far", "vxlan", underlay="net", local=HERE, remote=THERE, vni=7, addresses=["10.7.0.254/24"])
    router.port("v", "m", addresses=["10.8.0.254/24"], mac="02:00:00:00:00:b1")
    neighbours = [{"port": "far", "address": "10.7.0.1", "mac": "02:00:00:00:00:07"}, {"port": "m", "address": "10.8.0.1", "mac": "02:00:00:00:00:08"}]
    router.control.ok("neighbour.add", {"vn": "v", "neighbours": neighbours})

    def send(size):
        head = struct.pack(">BBHHHBBH", 0x45, 0, size, 0, 0x4000, 64, 17, 0) + bytes([10, 8, 0, 1, 10, 7, 0, 1])
        router.put("v", "m", frame(mac(0xB1), mac(8), head[:10] + struct.pack(">H", checksum(head)) + head[12:] + bytes(size - 20), 0x0800))

    def mtu():
        return router.stat("v")["ports"]["far"]["mtu"]

    send(1440)  # fits the link as it was made, and not the underlay's port
    wait_for("the MTU", lambda: mtu() == 1350)
    assert router.stat("net")["ports"]["vtep"]["drops"]["too_big"] == 1 and router.take("net", "up") == []
    send(1351)
    wait_for("the error", lambda: router.stat("v")["ports"]["m"]["icmp_errors"] == 1)
    (error,) = router.take("v", "m")
    assert error[34:36] == b"\x03\x04" and error[40:42] == struct.pack(">H", 1350)
    send(1350)
    wait_for("a packet", lambda: router.stat("net")["ports"]["up"]["sent_packets"] == 1)
    (sent,) = router.take("net", "up")
    assert len(sent) == 1414

    def complain(about, largest):
        """An error of ICMP by a router on the way."""
        icmp = struct.pack(">BBHI", 3, 4, 0, largest) + about
        icmp = icmp[:2] + struct.pack(">H", checksum(icmp)) + icmp[4:]
        head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(icmp), 0, 0, 64, 1, 0) + bytes([192, 0, 2, 200]) + bytes([192, 0, 2, 1])
        before = router.stat("net")["ports"]["up"]["received_packets"]
        router.put("net", "up", frame(mac(0xA1), mac(3), head[:10] + struct.pack(">H", checksum(head)) + head[12:] + icmp, 0x0800))
        router.settle("net", "up", before + 1)

    complain(sent[14:50], 1000)
    wait_for("the MTU", lambda: mtu() == 950)
    complain(sent[14:30] + bytes([192, 0, 2, 9]) + sent[34:50], 700)  # it never went there
    complain(sent[14:46] + struct.pack(">I", 9 << 8), 700)  # nor from there
    complain(sent[14:50], 100)  # there is no such link
    assert router.stat("v")["ports"]["far"]["frame_most"] == 964
    assert router.end() == 0


if __name__ == "__main__":
    main([value for name, value in list(globals().items()) if name.startswith("test_")])
