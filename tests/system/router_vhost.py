#!/usr/bin/env python3
# Machines by vhost-user that do not behave: memory that can be cut off while the router uses it. A front end of a few messages, written
# here, so that it can send what no virtual machine monitor would.
import fcntl
import mmap
import os
import shutil
import socket
import struct

from router_rig import BROADCAST, Router, Skip, frame, mac, mac_text, main, wait_for

SET_FEATURES, SET_OWNER, GET_FEATURES, SET_MEM_TABLE, SET_LOG_BASE = 2, 3, 1, 5, 6
SET_VRING_NUM, SET_VRING_ADDR, SET_VRING_BASE, SET_VRING_KICK, SET_VRING_CALL = 8, 9, 10, 12, 13
GET_INFLIGHT_FD, SET_INFLIGHT_FD = 31, 32
VERSION_1 = 1 << 32
SIZE, QUEUE = 1 << 20, 64


class FrontEnd:
    """Speaks vhost-user on the port's socket; its memory is one memfd, with a seal or without."""

    def __init__(self, path, seal):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        self.socket.connect(path)
        self.memory = os.memfd_create("machine", os.MFD_ALLOW_SEALING)
        os.truncate(self.memory, SIZE)
        if seal:
            fcntl.fcntl(self.memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        self.events = [os.eventfd(0) for _ in range(4)]
        self.map = mmap.mmap(self.memory, SIZE)

    def send(self, request, payload=b"", fds=()):
        message = struct.pack("<III", request, 1, len(payload)) + payload
        try:
            socket.send_fds(self.socket, [message], fds) if fds else self.socket.sendall(message)
        except (BrokenPipeError, ConnectionResetError):
            pass  # answers() tells

    def answers(self):
        """Whether the router still talks to us; in order, so what was sent before has been dealt with."""
        self.send(GET_FEATURES)
        try:
            return len(self.socket.recv(20)) == 20
        except (BrokenPipeError, ConnectionResetError):
            return False

    def share(self, n=1):
        self.send(SET_OWNER)
        self.send(SET_FEATURES, struct.pack("<Q", VERSION_1))
        regions = b"".join(struct.pack("<QQQQ", SIZE * i, SIZE, SIZE * (i + 1), 0) for i in range(n))
        self.send(SET_MEM_TABLE, struct.pack("<II", n, 0) + regions, [self.memory] * n)

    def start(self):
        """Both queues: descriptors, available and used rings each on a page of its own."""
        for index in range(2):
            base = SIZE + index * 0x10000
            self.send(SET_VRING_NUM, struct.pack("<II", index, QUEUE))
            self.send(SET_VRING_BASE, struct.pack("<II", index, 0))
            self.send(SET_VRING_ADDR, struct.pack("<IIQQQQ", index, 0, base, base + 0x2000, base + 0x1000, 0))
            self.send(SET_VRING_CALL, struct.pack("<Q", index), [self.events[index]])
            self.send(SET_VRING_KICK, struct.pack("<Q", index), [self.events[2 + index]])

    def offer(self, data):
        """One packet on queue 1, behind a header of 12 bytes (virtio 1.2, 5.1.6)."""
        packet = bytes(12) + data
        self.map[0x20000:0x20000 + len(packet)] = packet
        self.map[0x10000:0x10010] = struct.pack("<QIHH", 0x20000, len(packet), 0, 0)
        self.map[0x11000:0x11006] = struct.pack("<HHH", 0, 1, 0)
        os.eventfd_write(self.events[3], 1)


def serve(rig, **params):
    router = Router(rig)
    router.vn("v")
    router.port("v", "m", "vhost", socket=rig.path("m.sock"), **params)
    router.port("v", "p")
    return router


def connected(router):
    return router.stat("v")["ports"]["m"]["connected"]


def test_sealed_memory_is_taken(rig):
    router = serve(rig)
    machine = FrontEnd(rig.path("m.sock"), seal=True)
    machine.share()
    machine.start()
    assert machine.answers(), rig.log()
    wait_for("the machine", lambda: connected(router))
    try:
        os.truncate(machine.memory, 0)
        raise AssertionError("sealed memory was cut off")
    except PermissionError:
        pass
    sent = frame(BROADCAST, mac(1), b"from sealed memory" + bytes(40))
    machine.offer(sent)
    got = []

    def came():
        got.extend(router.take("v", "p"))
        return got

    wait_for("its packet", came)
    assert got == [sent]
    assert router.end() == 0


def test_memory_that_can_be_cut_off_is_refused(rig):
    """Cut off under rings and packets, as who wants to end the router would; the others on the network do not notice."""
    router = serve(rig)
    router.port("v", "q")
    machine = FrontEnd(rig.path("m.sock"), seal=False)
    machine.share()
    machine.start()
    os.truncate(machine.memory, 0)
    os.eventfd_write(machine.events[3], 1)
    assert not machine.answers()
    router.put("v", "q", frame(BROADCAST, mac(1), b"still here"))
    router.settle("v", "q", 1)
    assert len(router.take("v", "p")) == 1 and router.process.poll() is None
    assert not connected(router)
    log = rig.log()
    assert "a machine is refused" in log and rig.path("m.sock") in log and "seal=on" in log
    # one that behaves has the port afterwards
    machine = FrontEnd(rig.path("m.sock"), seal=True)
    machine.share()
    machine.start()
    wait_for("the next machine", lambda: connected(router))
    assert router.end() == 0


def test_every_way_memory_comes(rig):
    router = serve(rig)
    bad = os.memfd_create("bad", os.MFD_ALLOW_SEALING)
    os.truncate(bad, SIZE)
    inflight = struct.pack("<QQHHI", SIZE, 0, 2, QUEUE, 0)
    region = struct.pack("<II", 2, 0) + struct.pack("<QQQQ", 0, SIZE, SIZE, 0) + struct.pack("<QQQQ", SIZE, SIZE, 2 * SIZE, 0)
    attacks = {
        "one region of two": lambda m: m.send(SET_MEM_TABLE, region, [m.memory, bad]),
        "none at all": lambda m: m.send(SET_MEM_TABLE, region),
        "a second table, with rings that stand": lambda m: (m.share(), m.start(), m.send(SET_MEM_TABLE, region, [bad, m.memory])),
        "no file of memory": lambda m: m.send(SET_MEM_TABLE, region, [m.events[0], m.memory]),
        "a dirty log": lambda m: (m.share(), m.send(SET_LOG_BASE, struct.pack("<QQ", SIZE, 0), [bad])),
        "requests in flight": lambda m: (m.share(), m.send(SET_INFLIGHT_FD, inflight, [m.memory])),
        "a file for requests in flight": lambda m: (m.share(), m.send(GET_INFLIGHT_FD, inflight)),
    }
    for name, attack in attacks.items():
        machine = FrontEnd(rig.path("m.sock"), seal=True)
        attack(machine)
        assert not machine.answers(), name
        assert router.process.poll() is None, name
    assert rig.log().count("a machine is refused") == len(attacks)
    n_open = len(os.listdir(f"/proc/{router.process.pid}/fd"))
    for _ in range(20):
        machine = FrontEnd(rig.path("m.sock"), seal=True)
        machine.send(SET_MEM_TABLE, region, [machine.memory, bad])
        assert not machine.answers()
    wait_for("the descriptors of refused machines to be closed",
             lambda: len(os.listdir(f"/proc/{router.process.pid}/fd")) <= n_open)
    assert router.end() == 0


def test_eight_regions(rig):
    router = serve(rig)
    machine = FrontEnd(rig.path("m.sock"), seal=True)
    machine.share(8)
    machine.start()
    assert machine.answers(), rig.log()
    wait_for("the machine", lambda: connected(router))
    assert router.end() == 0


def test_unsealed_when_asked_for(rig):
    router = serve(rig, unsealed=True)
    machine = FrontEnd(rig.path("m.sock"), seal=False)
    machine.share()
    machine.start()
    assert machine.answers(), rig.log()
    wait_for("the machine", lambda: connected(router))
    machine.socket.close()
    wait_for("its going", lambda: not connected(router))
    assert "\"unsealed\" must be true or false" in router.control.refused(
        "port.add", {"vn": "v", "name": "x", "kind": "vhost", "socket": rig.path("x.sock"), "unsealed": "yes"})
    assert router.end() == 0


def test_qemu_as_it_comes(rig):
    """QEMU's memory is sealed without being asked. Its firmware asks for an address, killed and started again as well."""
    if not shutil.which("qemu-system-x86_64"):
        raise Skip("qemu-system-x86_64 is missing")
    router = serve(rig)
    for _ in range(2):
        qemu = rig.start(["qemu-system-x86_64", "-display", "none", "-nodefaults", "-m", "128", "-object",
                          "memory-backend-memfd,id=ram,size=128M,share=on", "-machine", "q35,memory-backend=ram,accel=tcg", "-chardev",
                          f"socket,id=c,path={rig.path('m.sock')}", "-netdev", "vhost-user,id=n,chardev=c", "-device",
                          f"virtio-net-pci,netdev=n,mac={mac_text(mac(7))},bootindex=0"])
        got = []

        def asked():
            assert qemu.poll() is None, "QEMU ended"
            got.extend(router.take("v", "p"))
            return any(f[:14] == BROADCAST + mac(7) + b"\x08\x00" for f in got)

        wait_for("a request for an address", asked)
        qemu.kill()
        qemu.wait()
        wait_for("its going", lambda: not connected(router))
        while router.take("v", "p"):  # what came before it went
            pass
    assert router.end() == 0


if __name__ == "__main__":
    main([value for name, value in list(globals().items()) if name.startswith("test_")])
