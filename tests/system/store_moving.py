#!/usr/bin/env python3
# A machine that QEMU moves from one process to another, and from one store to another, while the store writes to its memory (moving.c). Its
# memory is copied while it runs, so it holds what it should only if the store has told of each page that it wrote. QEMU's x86, since its
# riscv64 machines have clocks that it cannot move.
import json
import os
import shutil
import socket
import struct
import subprocess

from store_rig import DEADLINE_S, Skip, can_connect, main, wait_for

QEMU = "qemu-system-x86_64"
CHUNKS, CHUNK_BYTES = 256, 64 << 10  # as moving.c has them
LIMIT = "4MB/s"  # so that the disk is read for seconds, in which the memory is copied many times over
BANDWIDTH = 64 << 20


class Machine:
    """QEMU's own protocol, and the guest's serial port."""

    def __init__(self, rig, name, options=()):
        self.rig, self.name, self.text, self.buffer = rig, name, "", b""
        volume = json.dumps({"type": "file", "path": rig.path("image"), "lock": False})
        with open(rig.path("store.log"), "ab") as log:
            store = rig.start([rig.store_program, "--scheduler", "oios", "--disk",
                               f"name=db,socket={rig.path(name + '.sock')},promises=limit: {LIMIT}", "--volume", f"db={volume}"],
                              stderr=log)
        wait_for("the store", lambda: store.poll() is not None or can_connect(rig.path(name + ".sock")))
        with open(rig.path("qemu.log"), "ab") as log:
            self.process = rig.start(
                [QEMU, "-nodefaults", "-no-user-config", "-display", "none", "-m", "64M", "-machine", "pc,accel=tcg,memory-backend=m",
                 "-object", "memory-backend-memfd,id=m,size=64M,share=on", "-kernel", os.path.join(rig.build, "tests/system/moving.elf"),
                 "-chardev", f"socket,id=c,path={rig.path(name + '.sock')}", "-device", "vhost-user-blk-pci,chardev=c,num-queues=1,queue-size=1024",
                 "-qmp", f"unix:{rig.path(name + '.qmp')},server=on,wait=off",
                 "-serial", f"unix:{rig.path(name + '.serial')},server=on,wait=off", *options],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.serial, self.qmp = self.connect("serial"), self.connect("qmp")
        self.receive()
        self.ask("qmp_capabilities")

    def connect(self, what):
        path = self.rig.path(f"{self.name}.{what}")
        wait_for("QEMU", lambda: self.process.poll() is not None or can_connect(path))
        assert self.process.poll() is None, self.rig.log("qemu.log")
        s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        s.settimeout(DEADLINE_S)
        s.connect(path)
        return s

    def receive(self):
        while b"\n" not in self.buffer:
            piece = self.qmp.recv(65536)
            assert piece, self.rig.log("qemu.log")
            self.buffer += piece
        line, self.buffer = self.buffer.split(b"\n", 1)
        return json.loads(line)

    def ask(self, command, **arguments):
        self.qmp.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        while True:
            answer = self.receive()
            assert "error" not in answer, answer
            if "return" in answer:
                return answer["return"]

    def said(self, *beginnings):
        """A line of the guest's that begins so; what it was saying when its port was connected may be cut."""
        while True:
            for line in self.text.splitlines(keepends=True):
                assert "FAILED" not in line, line
                if line.startswith(beginnings) and line.endswith("\n"):
                    return line.strip()
            piece = self.serial.recv(65536).decode()
            assert piece, self.rig.log("qemu.log")
            self.text += piece


def make_image(rig):
    with open(rig.path("image"), "wb") as f:
        for chunk in range(CHUNKS):
            f.write(b"".join(struct.pack("<II", chunk + 1, i) for i in range(CHUNK_BYTES // 8)))


def moved(rig):
    if not shutil.which(QEMU):
        raise Skip(f"{QEMU} is missing; it is in Debian's qemu-system-x86")
    if not os.path.exists(os.path.join(rig.build, "tests/system/moving.elf")):
        raise Skip("there is no compiler for 32-bit x86 here")
    make_image(rig)
    here = Machine(rig, "here")
    there = Machine(rig, "there", ("-incoming", f"unix:{rig.path('move.sock')}", "-S"))
    here.ask("migrate-set-parameters", **{"max-bandwidth": BANDWIDTH, "downtime-limit": 1})
    here.said("MOVING-GOES")
    here.ask("migrate", uri=f"unix:{rig.path('move.sock')}")
    state = {}

    def ended():
        state.update(here.ask("query-migrate"))
        return state.get("status") in ("completed", "failed", "cancelled")

    wait_for("the end of the move", ended)
    assert state["status"] == "completed", (state, rig.log("qemu.log"))
    there.serial.sendall(b"v")
    there.ask("cont")
    verdict = there.said("MOVING-VERIFIED", "MOVING-LOST")
    assert verdict.startswith("MOVING-VERIFIED"), verdict


main([moved])
