# Logs of fault volumes (docs/formats/fault-log.md), and the states that a power cut could have left at any place in one.
import os
import struct
import subprocess

SECTOR = 512
OPEN, BEGIN, END = range(3)
LOGGED_WRITE, LOGGED_FLUSH, LOGGED_DISCARD, LOGGED_ZERO = range(1, 5)
HEAD = struct.Struct("<4sBBBBiIQQQ")


class Request:
    def __init__(self, op, durable, offset, length, data_at):
        self.op, self.durable, self.offset, self.length, self.data_at = op, durable, offset, length, data_at
        self.is_done = False

    def touches(self, other):
        return self.offset < other.offset + other.length and other.offset < self.offset + self.length


def records(path):
    """(where it ends, record, op, durable, result, number, offset, length, where its data are) of each that is whole."""
    size = os.path.getsize(path)
    at = 0
    with open(path, "rb") as f:
        while at + HEAD.size <= size:
            f.seek(at)
            magic, record, op, durable, _, result, _, number, offset, length = HEAD.unpack(f.read(HEAD.size))
            assert magic == b"TVFL", f"{path}: no record at {at}"
            data_at = at + HEAD.size
            at = data_at + (length if record == BEGIN and op == LOGGED_WRITE else 0)
            if at <= size:
                yield at, record, op, durable, result, number, offset, length, data_at


class Replay:
    """The log as far as it was followed: an image with what is stable, and the requests of which any part may be there."""

    def __init__(self, log, image):
        self.log = os.open(log, os.O_RDONLY)
        self.image = os.open(image, os.O_RDWR)
        self.path = image
        self.records = records(log)
        self.under_way = {}
        self.pending = []  # changes that are not stable, in the order in which they began
        self.at = 0

    def close(self):
        os.close(self.log)
        os.close(self.image)

    def follow(self):
        """One record on. Its kind and request, or None at the end."""
        found = next(self.records, None)
        if not found:
            return None
        self.at, record, op, durable, result, number, offset, length, data_at = found
        if record == OPEN:
            self.under_way = {}
        elif record == BEGIN:
            request = Request(op, durable, offset, length, data_at)
            request.covers = [p for p in self.pending if p.is_done] if op == LOGGED_FLUSH else None
            self.under_way[number] = request
            if op != LOGGED_FLUSH:
                self.pending.append(request)
        else:
            self.end(self.under_way.pop(number), result)
        return record, op

    def end(self, request, result):
        request.is_done = True
        if result:
            return
        if request.op == LOGGED_FLUSH:
            stable = request.covers
        elif request.durable:  # and what it lies over is not seen any more
            stable = [p for p in self.pending if p is request or (p.is_done and p.touches(request))]
            stable = stable[:stable.index(request) + 1]
        else:
            return
        for change in stable:
            if change in self.pending:
                self.apply(self.image, change, 0, change.length, None)
                self.pending.remove(change)

    def apply(self, to, change, start, end, rng):
        if change.op == LOGGED_WRITE:
            data = os.pread(self.log, end - start, change.data_at + start)
        elif change.op == LOGGED_DISCARD and (rng is None or rng.random() < 0.5):
            data = b"\xa5" * (end - start)  # anything
        else:
            data = bytes(end - start)
        os.pwrite(to, data, change.offset + start)

    def cut(self, path, rng):
        """A state that a power cut could leave here, as an image."""
        subprocess.run(["cp", "--sparse=always", "--reflink=auto", self.path, path], check=True)
        to = os.open(path, os.O_RDWR)
        luck = rng.choice(("none", "all", "any", "any"))
        for change in self.pending:
            which = rng.choice(("none", "all", "sectors")) if luck == "any" else luck
            if which == "all":
                self.apply(to, change, 0, change.length, rng)
            for start in range(0, change.length if which == "sectors" else 0, SECTOR):
                if rng.random() < 0.5:
                    self.apply(to, change, start, start + SECTOR, rng)
        os.close(to)
