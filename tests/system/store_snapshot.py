#!/usr/bin/env python3
# Snapshots of a disk that is written to all the time: overlays are put over it and take over what those below them have, the store is
# killed in between, and each snapshot stays what it was.
import json
import os
import struct
import subprocess

from store_rig import DEADLINE_S, listening_socket, main, wait_for

MAGIC = 0x5452495645545354  # blk_verify.c
BYTES = 32 << 20


class Chain:
    """A disk's overlays, the first one lowest; as trivetd would have them in volume files."""

    def __init__(self, rig):
        self.rig = rig
        self.files = []
        self.add()

    def add(self):
        name = self.rig.path(f"{len(self.files)}.volume")
        subprocess.run([os.path.join(self.rig.build, "bin", "trivet"), "disk", "create", name, "--size", str(BYTES)], check=True,
                       stdout=subprocess.DEVNULL)
        self.files.append(name.replace(".volume", ".overlay"))

    def volume(self, n, fds):
        """Of the first n overlays."""
        tree = {"type": "null", "size_bytes": BYTES}
        for path in self.files[:n]:
            tree = {"type": "overlay", "data": {"type": "file", "fd": len(fds)}, "base": tree}
            fds.append(os.open(path, os.O_RDWR))
        return tree

    def start(self, control, name, n, **params):
        fds = []
        volume = self.volume(n, fds)
        listen = listening_socket(self.rig.path(name + ".sock"))
        fds.append(listen.fileno())
        control.ok("disk.add", {"name": name, "volume": volume, "vhost": len(fds) - 1, "queues": 2, **params}, fds)
        for fd in fds[:-1]:
            os.close(fd)
        listen.close()

    def snapshot(self, control, name):
        self.add()
        fd = os.open(self.files[-1], os.O_RDWR)
        try:
            control.ok("disk.snapshot", {"name": name}, [fd])
        finally:
            os.close(fd)

    def read(self, n):
        """What the first n overlays hold, by another store: they can be read while the disk is served."""
        path = self.rig.path("read.volume")
        tree = {"type": "null", "size_bytes": BYTES}
        for file in self.files[:n]:
            tree = {"type": "overlay", "data": {"type": "file", "path": file}, "base": tree}
        with open(path, "w", encoding="utf-8") as f:
            json.dump(tree, f)
        raw = self.rig.path("read.raw")
        subprocess.run([os.path.join(self.rig.build, "bin", "trivet"), "disk", "export", path, raw], check=True, stdout=subprocess.DEVNULL)
        with open(raw, "rb") as f:
            content = f.read()
        os.unlink(raw)
        return content


def generations(content):
    """Of each sector the number of its write; no sector may be a mixture, or another's."""
    found = []
    for sector in range(BYTES // 512):
        bytes_ = content[sector * 512:sector * 512 + 512]
        magic, number, generation = struct.unpack_from("<3Q", bytes_)
        if not any(bytes_):
            found.append(0)
            continue
        assert magic == MAGIC and number == sector, f"sector {sector} is another's"
        assert bytes_ == struct.pack("<3Q", magic, number, generation) * 21 + bytes([generation & 0xff]) * 8, f"sector {sector} is torn"
        found.append(generation)
    return found


def absorb(control, name):
    at = 0
    while at < BYTES:
        at += control.ok("disk.absorb", {"name": name, "offset_bytes": at})["len_bytes"]
    control.ok("disk.absorb", {"name": name})


def writes_of(control, name):
    return control.ok("disk.stat", {"name": name})["writes"]


def snapshots_under_load(rig):
    control, store = rig.controlled("--scheduler", "oios")
    chain = Chain(rig)
    chain.start(control, "d", 1)
    driver = rig.driver("verify", "d", "--queues", 2, "--requests", 60000)
    snapshots = []
    for i in range(1, 6):
        seen = writes_of(control, "d")
        wait_for("some writes", lambda: driver.poll() is not None or writes_of(control, "d") > seen + 300)
        chain.snapshot(control, "d")
        snapshots.append(chain.read(i))
        if i == 3:
            absorb(control, "d")
            control.refused("disk.absorb", {"name": "d", "offset_bytes": BYTES})
            control.refused("disk.absorb", {"name": "d", "offset_bytes": 512})
    driver.communicate(timeout=DEADLINE_S)
    assert driver.returncode == 0, "not all came back as it was written"
    before = [0] * (BYTES // 512)
    for i, content in enumerate(snapshots):
        assert chain.read(i + 1) == content, f"snapshot {i + 1} has changed"
        now = generations(content)
        assert all(b >= a or b == 0 for a, b in zip(before, now)), f"snapshot {i + 1} has older writes than the one before"
        before = now
    assert any(before), "nothing was written"
    # The fourth overlay has taken over what the third has, and needs only what lies below that.
    control.ok("disk.remove", {"name": "d"})
    all_of_it = chain.read(6)
    del chain.files[2]
    assert chain.read(5) == all_of_it, "what was absorbed is not all there"
    control.ok("store.quit")
    assert store.wait(DEADLINE_S) == 0


def killed_between_snapshots(rig):
    chain = Chain(rig)
    driver = None
    for turn in range(6):
        for name in ("control", "d.sock"):
            if os.path.exists(rig.path(name)):
                os.unlink(rig.path(name))
        control, store = rig.controlled()
        chain.start(control, "d", len(chain.files))
        if not driver:
            driver = rig.driver("verify", "d", "--queues", 2, "--requests", 40000)
        seen = writes_of(control, "d")
        wait_for("some writes", lambda: driver.poll() is not None or writes_of(control, "d") > seen + 200)
        if turn % 2:
            control.call("disk.absorb", {"name": "d", "offset_bytes": 0})
        chain.snapshot(control, "d")
        store.kill()
        store.wait(DEADLINE_S)
    for name in ("control", "d.sock"):
        os.unlink(rig.path(name))
    control, store = rig.controlled()
    chain.start(control, "d", len(chain.files))
    driver.communicate(timeout=DEADLINE_S)
    assert driver.returncode == 0, "not all came back as it was written"


def refused(rig):
    control, _ = rig.controlled()
    chain = Chain(rig)
    chain.start(control, "d", 1)

    def refuses(hint, name, path):
        with open(path, "r+b") as file:
            message = control.refused("disk.snapshot", {"name": name}, [file.fileno()])
        assert hint in message, f"'{hint}' is not in: {message}"

    refuses("is no overlay", "d", rig.image("raw", 1))
    assert "descriptor" in control.refused("disk.snapshot", {"name": "d"})
    chain.add()
    refuses("no disk", "e", chain.files[1])
    refuses("in use by", "d", chain.files[0])
    control.ok("disk.resize", {"name": "d", "size_bytes": 2 * BYTES})
    refuses(str(BYTES), "d", chain.files[1])
    control.refused("disk.absorb", {"name": "d", "offset_bytes": 0})  # its base is no overlay
    result = rig.driver_result("verify", "d", "--queues", 2, "--requests", 2000)
    assert result["submitted"] == result["completed"] >= 2000, "the disk suffered from what was refused"
    chain.start(control, "r", 0, read_only=True)
    refuses("read-only", "r", chain.files[1])


main([snapshots_under_load, killed_between_snapshots, refused])
