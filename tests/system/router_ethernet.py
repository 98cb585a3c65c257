#!/usr/bin/env python3
# Networks of the type ethernet, through the process: what a switch does, what a port may send, and that nothing leads from one network to
# another.
import os
import random
import shutil
import signal
import struct
import subprocess

from router_rig import (BROADCAST, Router, Skip, frame, mac, mac_text, main, move_tap, namespace, need_root, run, tap, transfer,
                        wait_for)


def three_ports(rig, **params):
    router = Router(rig)
    router.vn("v", **params)
    for name in "abc":
        router.port("v", name)
    return router


def test_learns_and_floods(rig):
    router = three_ports(rig)
    hello = frame(BROADCAST, mac(1), b"hello")
    router.put("v", "a", hello)
    router.settle("v", "a", 1)
    assert router.take("v", "b") == [hello] and router.take("v", "c") == [hello] and router.take("v", "a") == []
    answer = frame(mac(1), mac(2), b"answer")
    router.put("v", "b", answer)
    router.settle("v", "b", 1)
    assert router.take("v", "a") == [answer] and router.take("v", "c") == []
    unknown = frame(mac(9), mac(1), b"who")
    router.put("v", "a", unknown)
    router.settle("v", "a", 2)
    assert router.take("v", "b") == [unknown] and router.take("v", "c") == [unknown]
    moved = frame(BROADCAST, mac(1), b"moved")
    router.put("v", "c", moved)
    router.settle("v", "c", 1)
    router.take("v", "a"), router.take("v", "b")
    router.put("v", "b", answer)
    router.settle("v", "b", 2)
    assert router.take("v", "c") == [answer] and router.take("v", "a") == []
    stat = router.stat("v")
    assert stat["cycles"] > 0 and stat["buffers_used"] == 0, stat
    assert router.end() == 0


def test_tags_are_payload(rig):
    router = three_ports(rig)
    tagged = frame(BROADCAST, mac(1), struct.pack(">HH", 7, 0x0800) + bytes(50), kind=0x8100)
    router.put("v", "a", tagged)
    router.settle("v", "a", 1)
    assert router.take("v", "b") == [tagged]


def test_refuses_frames(rig):
    router = three_ports(rig, unknown="drop")
    router.put("v", "a", b"\xff" * 13, frame(BROADCAST, BROADCAST), frame(BROADCAST, bytes(6)), frame(mac(5), mac(1)), frame(mac(1), mac(1)),
               frame(b"\x01\x80\xc2\x00\x00\x0e", mac(1)))
    router.settle("v", "a", 6)
    drops = router.stat("v")["ports"]["a"]["drops"]
    assert drops["malformed"] == 3 and drops["unknown"] == 1 and drops["same_port"] == 1 and drops["reserved"] == 1, drops
    assert router.take("v", "b") == [] and router.take("v", "c") == []


def test_port_is_held_to_its_addresses(rig):
    router = Router(rig)
    router.vn("v")
    router.port("v", "m", mac=mac_text(mac(1)), addresses=["10.0.0.1", "fd00::1"])
    router.port("v", "up")
    same = {"vn": "v", "name": "n", "kind": "ring", "mac": mac_text(mac(1))}
    assert "port 'm' has this \"mac\" already" in router.control.refused("port.add", same)
    ip4 = struct.pack(">BBHHHBBH", 0x45, 0, 20, 0, 0, 64, 17, 0)
    good = [frame(BROADCAST, mac(1), ip4 + bytes([10, 0, 0, 1]) + bytes([10, 0, 0, 2]), 0x0800),
            frame(BROADCAST, mac(1), bytes.fromhex("0001080006040001") + mac(1) + bytes([10, 0, 0, 1]) + bytes(10), 0x0806)]
    bad = [frame(BROADCAST, mac(2)), frame(BROADCAST, mac(1), ip4 + bytes([10, 0, 0, 3]) + bytes([10, 0, 0, 2]), 0x0800),
           frame(BROADCAST, mac(1), bytes.fromhex("0001080006040001") + mac(1) + bytes([10, 0, 0, 9]) + bytes(10), 0x0806)]
    router.put("v", "m", *good, *bad)
    router.settle("v", "m", 5)
    assert router.take("v", "up") == good
    assert router.stat("v")["ports"]["m"]["drops"]["spoofed"] == 3
    # Nobody else can have the address either.
    router.put("v", "up", frame(BROADCAST, mac(1)))
    router.settle("v", "up", 1)
    assert router.take("v", "m") == [] and router.stat("v")["ports"]["up"]["drops"]["spoofed"] == 1


def test_storm_control_and_limits(rig):
    router = Router(rig)
    router.vn("v", macs=64)
    router.port("v", "a", flood_bytes_per_s=10000, mac_limit=4)
    router.port("v", "b")
    storm = [frame(BROADCAST, mac(n), bytes(1000)) for n in range(1, 33)]
    router.put("v", "a", *storm)
    router.settle("v", "a", 32)
    stat = router.stat("v")["ports"]
    assert 8 <= stat["b"]["sent_packets"] <= 12 and stat["a"]["drops"]["storm"] == 32 - stat["b"]["sent_packets"], stat
    wait_for("the addresses to be counted", lambda: router.stat("v")["addresses"] > 0)
    assert router.stat("v")["addresses"] == 4


def test_ports_come_and_go(rig):
    router = three_ports(rig)
    for n in range(20):
        router.put("v", "a", frame(BROADCAST, mac(1), b"x"))
        router.settle("v", "a", 1)
        router.control.ok("port.remove", {"vn": "v", "name": "a"})
        router.port("v", f"new{n}")  # has the place of a
        router.put("v", "b", frame(mac(1), mac(2), b"y"))
        wait_for("the frame", lambda: router.stat("v")["ports"]["c"]["sent_packets"] >= 2 * (n + 1))
        assert router.take("v", f"new{n}") == [frame(mac(1), mac(2), b"y")], "flooded, for what was known of a has gone with it"
        router.control.ok("port.remove", {"vn": "v", "name": f"new{n}"})
        router.port("v", "a")
    assert router.stat("v")["buffers_used"] <= 80, "what lies in the rings of b and c"
    router.control.ok("vn.remove", {"name": "v"})
    assert router.control.ok("vn.list") == []
    assert router.end() == 0


def test_quota_of_buffers(rig):
    """A network whose packets nobody takes uses up its own buffers; its neighbour has all of its own."""
    router = Router(rig)
    for name in ("full", "calm"):
        router.control.ok("vn.add", {"name": name, "buffers": 256})
        router.port(name, "a"), router.port(name, "b"), router.port(name, "c")
    for _ in range(20):
        answer = router.control.call("port.put", {"vn": "full", "port": "a", "frames": [frame(BROADCAST, mac(1), bytes(64)).hex()] * 16})
        if "error" in answer:
            break
    assert "no room" in answer["error"]["message"], answer
    assert router.stat("full")["buffers_used"] > 200
    for _ in range(10):
        router.put("calm", "a", *[frame(BROADCAST, mac(2), bytes(64))] * 8)
        wait_for("the neighbour's frames", lambda: len(router.take("calm", "b")) + len(router.take("calm", "c")) > 0)
    drops = router.stat("calm")["ports"]["a"]["drops"]
    assert not any(drops.values()), drops


def test_isolation(rig):
    """Random frames in two networks with the same addresses: each says where it is from, and none is found in the other one."""
    router = Router(rig)
    rng = random.Random(20261126)
    ports = "abcd"
    for vn in ("one", "two"):
        router.control.ok("vn.add", {"name": vn, "buffers": 8192, "macs": 16})
        for name in ports:
            router.port(vn, name)
    stations = [BROADCAST, b"\x33\x33\x00\x00\x00\x01", *(mac(n) for n in range(24))]
    kinds = [0x0800, 0x0806, 0x86DD, 0x8100, 0x88A8, 0x88B5, 64]
    put = received = 0
    for _ in range(60):
        sent = {vn: 0 for vn in ("one", "two")}
        for vn in sent:
            for name in ports:
                frames = []
                for _ in range(16):
                    body = vn.encode() + rng.randbytes(rng.randrange(200)) + vn.encode()
                    frames.append(frame(rng.choice(stations), rng.choice(stations), body, rng.choice(kinds)) if rng.random() < 0.9 else
                                  vn.encode() + rng.randbytes(rng.randrange(60)) + vn.encode())
                router.put(vn, name, *frames)
                sent[vn] += len(frames)
        put += sum(sent.values())
        for vn in sent:
            wait_for("all to be received", lambda: sum(p["received_packets"] for p in router.stat(vn)["ports"].values()) >= put // 2)
            for name in ports:
                for got in router.take(vn, name):
                    received += 1
                    assert got.endswith(vn.encode()), f"in network {vn}: {got.hex()}"
    assert received > put // 2, (received, put)
    for vn in ("one", "two"):
        stat = router.stat(vn)
        assert not any(p["drops"]["no_buffers"] for p in stat["ports"].values()), stat


def test_two_namespaces(rig):
    need_root()
    spaces = {name: namespace(rig, name) for name in "ab"}
    router = Router(rig)
    router.vn("v")
    for n, (name, space) in enumerate(spaces.items()):
        device = f"tv{name}{os.getpid()}"
        fd = tap(device)
        move_tap(device, space, f"10.77.0.{n + 1}/24")
        router.port("v", name, "tap", [fd])
        os.close(fd)
    assert transfer(rig, spaces["a"], spaces["b"], "10.77.0.2", 8 << 20) == 8 << 20
    assert transfer(rig, spaces["b"], spaces["a"], "10.77.0.1", 1 << 20) == 1 << 20
    stat = router.stat("v")
    assert stat["ports"]["a"]["device"].startswith("tva") and stat["buffers_used"] <= 80, stat


def test_idle_sleeps(rig):
    """With TAP devices alone nothing happens at all: a wake-up a second, by count."""
    need_root()
    router = Router(rig)
    router.vn("v")
    space = namespace(rig, "idle")
    device = f"tvi{os.getpid()}"
    fd = tap(device)
    run("ip", "link", "set", device, "netns", space)
    router.port("v", "a", "tap", [fd])
    os.close(fd)
    asleep = router.control.ok("router.stat")["workers"][0]
    wait_for("three more sleeps", lambda: router.control.ok("router.stat")["workers"][0]["sleeps"] >= asleep["sleeps"] + 3)
    worker = router.control.ok("router.stat")["workers"][0]
    spent = worker["idle_cycles"] + worker["busy_cycles"] - asleep["idle_cycles"] - asleep["busy_cycles"]
    slept = worker["sleeps"] - asleep["sleeps"]
    assert spent < slept * worker["cycles_per_s"] // 50, (asleep, worker)


def test_plain_user(rig):
    if os.geteuid() != 0:
        raise Skip("is one already")
    os.chmod(rig.dir, 0o777)
    router = Router(rig, user=65534, group=65534, extra_groups=[], env={"PATH": os.environ["PATH"]})
    router.vn("v")
    router.port("v", "a")
    assert "device 'x'" in router.control.refused("port.add", {"vn": "v", "name": "t", "kind": "tap", "device": "x"})
    assert router.end() == 0


def there_and_back(router, near, far):
    """A frame from port near of network v to one of network w, by what joins the two, and an answer."""
    def comes(put, take, sent):
        router.put(*put, sent)  # until the two have found each other
        return sent in router.take(*take)

    hello, answer = frame(BROADCAST, mac(1), b"hello" + bytes(60)), frame(mac(1), mac(2), b"answer" + bytes(60))
    wait_for("a frame", lambda: comes(("v", near), ("w", far), hello))
    wait_for("its answer", lambda: comes(("w", far), ("v", near), answer))


def two_networks(rig, **params):
    router = Router(rig)
    for name in "vw":
        router.vn(name, **params)
        router.port(name, "p")
    return router


def test_memif(rig):
    router = two_networks(rig)
    router.port("v", "m", "memif", socket=rig.path("memif.sock"))
    router.port("w", "m", "memif", socket=rig.path("memif.sock"), role="client")
    there_and_back(router, "p", "p")
    router.control.ok("vn.remove", {"name": "w"})
    assert router.end() == 0


def kernel_devices(rig, kind):
    need_root()
    names = [f"tv{end}{os.getpid()}" for end in "lr"]
    if subprocess.run(["ip", "link", "add", names[0], "type", "veth", "peer", "name", names[1]], check=False).returncode:
        raise Skip("no veth devices here")
    rig.undo.append(["ip", "link", "del", names[0]])
    for name in names:
        run("ip", "link", "set", name, "up")
    router = two_networks(rig, buffers=8192)
    for vn, name in zip("vw", names):
        answer = router.control.call("port.add", {"vn": vn, "name": "k", "kind": kind, "device": name})
        if "error" in answer:
            raise Skip(answer["error"]["message"])
    there_and_back(router, "p", "p")
    assert router.end() == 0


def test_kernel_device_by_packet_socket(rig):
    kernel_devices(rig, "packet")


def test_kernel_device_by_xdp(rig):
    kernel_devices(rig, "xdp")


def test_functions_of_the_host_are_left_alone(rig):
    """What the kernel drives is refused before DPDK hears of it, and nothing else on PCI is looked into."""
    router = Router(rig, "--pci")
    router.vn("v")
    root = "/sys/bus/pci/devices"
    host = [d for d in (os.listdir(root) if os.path.isdir(root) else []) if os.path.exists(f"{root}/{d}/virtio0")
            or os.path.exists(f"{root}/{d}/net")]
    for address in ["0000:ff:1f.7", *host]:
        refused = router.control.refused("port.add", {"vn": "v", "name": "f", "kind": "pci", "address": address})
        assert "must be bound to vfio-pci" in refused or "mlx" in refused, refused
    assert "as 0000:01:00.1" in router.control.refused("port.add", {"vn": "v", "name": "f", "kind": "pci", "address": "../../net"})
    assert "dpdk" not in rig.log(), rig.log()
    assert router.end() == 0


def test_device_that_never_ends(rig):
    """null receives without end, in one network; the other has its turns all the same, and control is answered."""
    router = Router(rig)
    for name in ("busy", "calm"):
        router.vn(name)
        router.port(name, "a", "null" if name == "busy" else "ring")
        router.port(name, "b")
    for n in range(100):
        router.put("calm", "a", frame(BROADCAST, mac(1), bytes(60)))
        wait_for("the frame", lambda: router.take("calm", "b"))
    stat = router.stat("busy")
    assert stat["ports"]["a"]["drops"]["malformed"] > 1000 and stat["cycles"] > router.stat("calm")["cycles"], stat
    assert router.end() == 0


def test_shares_by_weight(rig):
    """Two networks that never run out of packets, one of three times the weight, on one worker: it has three times the cycles."""
    router = Router(rig)
    for name, weight in (("light", 100), ("heavy", 300)):
        router.vn(name, weight=weight)
        router.port(name, "a", receive="one", send="two")
        router.port(name, "b", receive="two", send="one")
        router.put(name, "a", *[frame(mac(2), mac(1), bytes(50))] * 64)
        router.put(name, "b", *[frame(mac(1), mac(2), bytes(50))] * 64)

    def look():  # the light one's before and after: time passes between two requests
        return [router.stat(name)["cycles"] for name in ("light", "heavy", "light")]
    before = look()
    wait_for("cycles", lambda: router.stat("light")["cycles"] - before[2] > 800_000_000)
    after = look()
    heavy = after[1] - before[1]
    assert heavy / (after[2] - before[0]) < 3.5 and heavy / (after[0] - before[2]) > 2.5, (before, after)
    assert router.end() == 0


def test_many_networks(rig):
    """Hundreds of networks cost no more memory than they use, and go as they came."""
    router = Router(rig, "--memory", "1024")
    for n in range(300):
        router.control.ok("vn.add", {"name": f"n{n}", "buffers": 512})
        router.port(f"n{n}", "a")
        router.port(f"n{n}", "b")
    router.put("n299", "a", frame(BROADCAST, mac(1), b"last"))
    router.settle("n299", "a", 1)
    assert len(router.take("n299", "b")) == 1
    for n in range(300):
        router.control.ok("vn.remove", {"name": f"n{n}"})
    assert router.control.ok("router.stat")["networks"] == 0
    assert router.end() == 0


def test_machine_by_vhost_user(rig):
    """testpmd as a machine: what comes to it goes back with the addresses changed; it goes, and another one comes."""
    if not shutil.which("dpdk-testpmd"):
        raise Skip("dpdk-testpmd is missing")
    router = Router(rig)
    router.vn("v")
    router.port("v", "m", "vhost", socket=rig.path("m.sock"), unsealed=True)  # DPDK does not seal its own
    router.port("v", "p")
    cpus = ",".join(map(str, os.sched_getaffinity(0)))
    for turn in range(2):
        machine = rig.start(["dpdk-testpmd", "--no-huge", "--no-shconf", "-m", "256", "--no-telemetry", "--no-pci", "--file-prefix",
                             "trivet-test", "--lcores", f"0@({cpus}),1@({cpus})", "--vdev",
                             f"net_virtio_user0,path={rig.path('m.sock')},mac={mac_text(mac(7))}", "--", "--forward-mode=macswap",
                             "--total-num-mbufs=2048", "--stats-period=1000"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for("the machine", lambda: machine.poll() is not None or router.stat("v")["ports"]["m"]["connected"])
        assert machine.poll() is None, "testpmd ended"
        sent = frame(mac(7), mac(1), b"there and back %d" % turn + bytes(64))
        got = []

        def came_back():
            router.put("v", "p", sent)  # until it forwards
            got.extend(router.take("v", "p"))
            return got

        wait_for("an answer", came_back)
        assert set(got) == {frame(mac(1), mac(7), sent[14:])}, got
        machine.terminate() if turn else machine.kill()
        machine.wait(60)
        wait_for("its going", lambda: not router.stat("v")["ports"]["m"]["connected"])
        while router.take("v", "p"):  # what it had answered as well before it went
            pass
    assert router.end() == 0


def test_killed_and_started_again(rig):
    router = three_ports(rig)
    router.port("v", "m", "vhost", socket=rig.path("m.sock"))
    router.process.send_signal(signal.SIGKILL)
    router.process.wait()
    again = three_ports(rig)
    again.port("v", "m", "vhost", socket=rig.path("m.sock"))
    again.put("v", "a", frame(BROADCAST, mac(1), b"hello"))
    again.settle("v", "a", 1)
    assert len(again.take("v", "b")) == 1
    assert again.end() == 0


def test_refuses_parameters(rig):
    router = Router(rig)
    refused = router.control.refused
    assert "there are ethernet and ip" in refused("vn.add", {"name": "v", "type": "token-ring"})
    assert "\"weight\" must be a number, 1 to 10000" in refused("vn.add", {"name": "v", "weight": 0})
    assert "has 1 to 15" in refused("vn.add", {"name": "a/b"})
    assert "--memory" in refused("vn.add", {"name": "v", "buffers": 1 << 20})
    router.vn("v")
    assert "already" in refused("vn.add", {"name": "v"})
    assert "no network 'w'" in refused("port.add", {"vn": "w", "name": "p", "kind": "ring"})
    assert "there are vhost, tap" in refused("port.add", {"vn": "v", "name": "p", "kind": "serial"})
    assert "station's address" in refused("port.add", {"vn": "v", "name": "p", "kind": "ring", "mac": "ff:ff:ff:ff:ff:ff"})
    assert "no comma" in refused("port.add", {"vn": "v", "name": "p", "kind": "packet", "device": "lo,qpairs=9"})
    router.port("v", "p")
    assert "two digits" in refused("port.put", {"vn": "v", "port": "p", "frames": ["00", "0g"]})
    assert "no port 'q'" in refused("port.remove", {"vn": "v", "name": "q"})
    assert router.stat("v")["ports"]["p"]["received_packets"] == 0


if __name__ == "__main__":
    main([value for name, value in list(globals().items()) if name.startswith("test_")])
