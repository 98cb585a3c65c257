#!/usr/bin/env python3
# Power cuts. A disk is written to while a fault volume keeps the log of what reached its file; from the log states are made that a power
# cut could have left, at each flush and elsewhere, with any part of what was not flushed. In each of them all that was flushed must be
# there, and of the rest each sector as it was or as it was to be: by a pattern over a file and an overlay, and by an ext4 that a guest
# wrote with fsync.
import json
import os
import random
import shutil
import struct
import subprocess

from fault_rig import overlay, serve_nbd, times, volume_file
from fault_log import BEGIN, END, LOGGED_FLUSH, Replay
from guest_rig import boot, console, finish
from nbd_rig import FLUSH, FUA, READ, REQUEST, SIMPLE, WRITE, ZEROES, connect
from store_rig import DEADLINE_S, main, wait_for

SECTOR = 512
MEGABYTES = 8
SECTORS = (MEGABYTES << 20) // SECTOR
NEVER = 1 << 62
HALF = SECTORS // 2
# Where the halves of the pattern are. In an overlay in three pages of its map, two of which lie side by side.
IN_A_FILE, IN_AN_OVERLAY = (0, MEGABYTES << 19), ((63 - 2) << 20, (3 * 63 + 8) << 20)


def end(store):
    store.terminate()
    assert store.wait(DEADLINE_S) == 0


class Change:
    """One of a sector: its value; where the log was when it was asked for, and when it was known to be stable."""

    def __init__(self, value, began):
        self.value, self.began, self.stable = value, began, NEVER


class Writer:
    """Writes, zeroes and flushes on two parts of an export, many at once, none on the same sectors as another; and the history of each
    sector."""

    def __init__(self, client, log, seed, places):
        self.places = places
        self.client, self.log, self.random = client, log, random.Random(seed)
        self.history = [[Change(0, 0)] for _ in range(SECTORS)]
        self.history_done = []  # changes that were answered, and are not known to be stable
        self.waiting, self.busy, self.number = {}, set(), 0

    def log_bytes(self):
        return os.path.getsize(self.log)

    def start(self):
        self.number += 1
        kind = self.random.choices((WRITE, ZEROES, FLUSH), (80, 10, 10))[0]
        n = 0 if kind == FLUSH else self.random.choice((1, 3, 8, 8, 16, 64))
        first = self.random.randrange(SECTORS - n) if n < 8 else self.random.randrange(SECTORS // 8 - n // 8) * 8
        sectors = range(first, first + n)
        if not self.busy.isdisjoint(sectors) or first < HALF < first + n:
            return
        flags = FUA if n and self.random.random() < 0.1 else 0
        self.busy.update(sectors)
        changes = [Change(self.number if kind == WRITE else 0, self.log_bytes()) for _ in sectors]
        for sector, change in zip(sectors, changes):
            self.history[sector].append(change)
        covers, offset = None, self.places[first // HALF] + first % HALF * SECTOR
        if kind == FLUSH:
            covers, self.history_done = self.history_done, []
            offset = 0
        self.waiting[self.number] = (changes, sectors, flags, covers)
        data = b"".join(pattern(s, self.number) for s in sectors) if kind == WRITE else b""
        self.client.send(struct.pack(">IHHQQI", REQUEST, flags, kind, self.number, offset, n * SECTOR) + data)

    def take(self):
        magic, error, number = struct.unpack(">IIQ", self.client.receive(16))
        assert magic == SIMPLE and not error, f"request {number}: error {error}"
        changes, sectors, flags, covers = self.waiting.pop(number)
        self.busy.difference_update(sectors)
        if flags & FUA:
            covers = changes
        elif covers is None:
            self.history_done += changes
        for change in covers or ():
            change.stable = self.log_bytes()

    def run(self, requests):
        while self.number < requests:
            while len(self.waiting) < 24:
                self.start()
            self.take()
        while self.waiting:
            self.take()

    def check(self, content, at):
        """The disk as it was found after a power cut at this place of the log."""
        for sector, history in enumerate(self.history):
            allowed = {0} if len(history) == 1 else possible(history, at)
            found = content[sector * SECTOR:(sector + 1) * SECTOR]
            value = struct.unpack_from("<Q", found, 8)[0]
            expected = pattern(sector, value) if value else bytes(SECTOR)
            assert value in allowed and found == expected, \
                f"cut at {at}: sector {sector} has write {value}, and may have one of {sorted(allowed)}"


def possible(history, at):
    allowed = set()
    for change in reversed(history):
        if change.began <= at:
            allowed.add(change.value)
        if change.stable <= at:
            break
    return allowed


def pattern(sector, value):
    return struct.pack("<QQ", sector, value) * (SECTOR // 16)


def cuts(replay, log, wanted, rng):
    """Stops at so many places, about: where a flush begins, the worst moment, and where one ends, and at other changes."""
    flushes = sum(1 for r in Replay(log, os.devnull).records if (r[1], r[2]) == (END, LOGGED_FLUSH))
    share = wanted / (2.5 * flushes)
    while (found := replay.follow()) is not None:
        if rng.random() < (share if found[1] == LOGGED_FLUSH else share / 10 if found[0] == BEGIN else 0):
            yield


def write(rig, path, log, seed, places):
    store = serve_nbd(rig, path)
    client = connect(rig, "db")
    writer = Writer(client, log, seed, places)
    writer.run(times(1000, 6000))
    client.close()
    end(store)
    return writer


def empty_log(rig):
    path = rig.path("log")
    with open(path, "wb"):
        return path


def over_a_file(rig):
    log = empty_log(rig)
    image = rig.image("a.raw", MEGABYTES)
    tree = {"type": "fault", "over": {"type": "file", "path": image}, "log": {"path": log}}
    writer = write(rig, volume_file(rig, "a", tree), log, 1, IN_A_FILE)
    replay, rng, n = Replay(log, rig.image("stable", MEGABYTES)), random.Random(2), 0
    for _ in cuts(replay, log, times(40, 600), rng):
        replay.cut(rig.path("cut"), rng)
        with open(rig.path("cut"), "rb") as f:
            writer.check(f.read(), replay.at)
        n += 1
    assert n > 8, n
    print(f"        {n} states")


def over_an_overlay(rig):
    """The log is of the overlay's data; each state is opened as an overlay and read."""
    log = empty_log(rig)
    path, data = overlay(rig, "a", 240)
    subprocess.run(["cp", "--sparse=always", data, rig.path("stable")], check=True)
    with open(path, encoding="utf-8") as f:
        tree = json.load(f)
    tree["data"] = {"type": "file", "path": rig.path("cut")}
    cut = volume_file(rig, "cut", tree)
    tree["data"] = {"type": "fault", "over": {"type": "file", "path": data}, "log": {"path": log}}
    writer = write(rig, volume_file(rig, "logged", tree), log, 3, IN_AN_OVERLAY)
    replay, rng, n = Replay(log, rig.path("stable")), random.Random(4), 0
    for _ in cuts(replay, log, times(25, 300), rng):
        replay.cut(rig.path("cut"), rng)
        store = serve_nbd(rig, cut)
        client = connect(rig, "db")
        content = b""
        for place in IN_AN_OVERLAY:
            client.request(READ, place, HALF * SECTOR)
            error, half = client.reply(HALF * SECTOR)
            assert not error, error
            content += half
        writer.check(content, replay.at)
        client.close()
        end(store)
        n += 1
    assert n > 8, n
    print(f"        {n} states")


GUEST = """
$bb modprobe ext4 || echo GUEST-FAILED: no ext4
$bb mkdir /mnt
$bb mount -t ext4 /dev/vda /mnt || echo GUEST-FAILED: mount
file=0
while [ $file -lt %d ]; do
    $bb yes "$file" | $bb head -c $((file * 1777 %% 90000 + 1)) | $bb dd of=/mnt/f$file bs=4k conv=fsync 2>/dev/null || echo GUEST-FAILED: write
    $bb fsync /mnt
    echo "GUEST-SYNCED $file"
    [ $((file %% 5)) = 4 ] && $bb rm /mnt/f$((file - 2))
    $bb yes unflushed | $bb head -c 50000 >/mnt/other
    file=$((file + 1))
done
$bb umount /mnt
"""


def guest_file(n):
    line, length = f"{n}\n".encode(), n * 1777 % 90000 + 1
    return (line * (length // len(line) + 1))[:length]


def check_ext4(rig, path, synced):
    """The journal is replayed, as by a mount; then nothing is wrong, and each file that was synced and not removed since is whole."""
    recovered = subprocess.run(["e2fsck", "-E", "journal_only", "-p", path], capture_output=True, text=True, check=False)
    assert recovered.returncode in (0, 1), recovered
    checked = subprocess.run(["e2fsck", "-fn", path], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked
    wanted = [n for n in synced if n % 5 != 2]
    out = rig.path("dumped")
    shutil.rmtree(out, ignore_errors=True)
    os.mkdir(out)
    commands = "".join(f"dump /f{n} {out}/f{n}\n" for n in wanted)
    subprocess.run(["debugfs", path], input=commands, capture_output=True, text=True, check=True)
    for n in wanted:
        with open(os.path.join(out, f"f{n}"), "rb") as f:
            assert f.read() == guest_file(n), f"file {n} is not what was synced"


def ext4_of_a_guest(rig):
    files = times(20, 200)
    log = empty_log(rig)
    image = rig.image("a.raw", 64)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
    shutil.copyfile(image, rig.path("stable"))
    tree = {"type": "fault", "over": {"type": "file", "path": image}, "log": {"path": log}}
    store = rig.store(("db", volume_file(rig, "a", tree), ",queues=2"))
    qemu = boot(rig, GUEST % files)
    synced_at = []  # where the log was, or further on, when the guest had said so

    def look():
        while f"GUEST-SYNCED {len(synced_at)}\n" in console(rig):
            synced_at.append(os.path.getsize(log))
        return len(synced_at) == files or qemu.poll() is not None

    wait_for("the guest", look)
    finish(rig, qemu)
    end(store)
    assert len(synced_at) == files, console(rig)[-2000:]
    replay, rng, n = Replay(log, rig.path("stable")), random.Random(5), 0
    for _ in cuts(replay, log, times(25, 300), rng):
        replay.cut(rig.path("cut"), rng)
        check_ext4(rig, rig.path("cut"), [k for k, at in enumerate(synced_at) if at <= replay.at])
        n += 1
    assert n > 5, n
    print(f"        {n} states")


main([over_a_file, over_an_overlay, ext4_of_a_guest])
