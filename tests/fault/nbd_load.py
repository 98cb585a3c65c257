# A verifying load on an NBD export, many requests under way at once and never two on the same blocks. When the server has gone it
# connects anew and asks everything again that was not answered: writes of blocks that nobody else touches can be done twice.
import random
import struct
import time

import fault_rig  # noqa: F401  (where the next one is found)
from nbd_rig import ACK, FLUSH, FUA, READ, REQUEST, SIMPLE, WRITE, ZEROES, Client
from store_rig import DEADLINE_S

BLOCK = 4096
DEPTH = 16
MOST_BLOCKS = 4


def stamp(block, generation):
    return struct.pack("<QQ", block, generation) * (BLOCK // 16) if generation else bytes(BLOCK)


class Load:
    def __init__(self, path, seed):
        self.path = path
        self.random = random.Random(seed)
        self.n_connections = self.number = 0
        self.client = None
        self.waiting = {}  # cookie: (kind, block, n, flags)
        self.busy = set()
        self.generation = {}
        self.connect()

    def connect(self):
        end = time.monotonic() + DEADLINE_S
        while True:
            assert time.monotonic() < end, "there is no server any more"
            try:
                client = Client(self.path)
                if client.go("db")[-1][0] == ACK:
                    break
                client.close()
            except (OSError, EOFError):
                time.sleep(0.001)
        self.client = client
        self.n_connections += 1
        self.blocks = client.size // BLOCK

    def send(self, cookie):
        kind, block, n, flags = self.waiting[cookie]
        data = b"".join(stamp(block + i, cookie) for i in range(n)) if kind == WRITE else b""
        self.client.send(struct.pack(">IHHQQI", REQUEST, flags, kind, cookie, block * BLOCK, n * BLOCK) + data)

    def again(self):
        while True:
            self.client.close()
            self.connect()
            try:
                for cookie in self.waiting:
                    self.send(cookie)
                return
            except OSError:
                pass

    def start(self):
        self.number += 1
        n = self.random.randint(1, MOST_BLOCKS)
        block = self.random.randrange(self.blocks - n)
        kind = self.random.choices((WRITE, READ, ZEROES, FLUSH), (50, 40, 5, 5))[0]
        if kind == FLUSH:
            block = n = 0
        touched = range(block, block + n)
        if self.busy.isdisjoint(touched):
            self.busy.update(touched)
            self.waiting[self.number] = (kind, block, n, FUA if kind == WRITE and self.random.random() < 0.1 else 0)
            self.send(self.number)

    def take(self):
        magic, error, cookie = struct.unpack(">IIQ", self.client.receive(16))
        assert magic == SIMPLE and not error, f"request {cookie}: error {error}"
        kind, block, n, _ = self.waiting[cookie]  # a second answer has no request any more
        data = self.client.receive(n * BLOCK) if kind == READ else b""
        del self.waiting[cookie]
        for i in range(n):
            if kind != READ:
                self.generation[block + i] = cookie if kind == WRITE else 0
            elif data[i * BLOCK:(i + 1) * BLOCK] != stamp(block + i, self.generation.get(block + i, 0)):
                self.wrong(block + i, data[i * BLOCK:(i + 1) * BLOCK])
            self.busy.discard(block + i)

    def wrong(self, block, found):
        raise AssertionError(f"block {block}: expected write {self.generation.get(block, 0)}, found (block, write) {struct.unpack_from('<QQ', found)}")

    def fill(self):
        try:
            while len(self.waiting) < DEPTH:
                self.start()
        except OSError:
            self.again()

    def step(self):
        """One answer, or a new connection and the first answer there."""
        before = self.n_connections
        self.fill()
        try:
            self.take()
        except (OSError, EOFError):
            self.again()
        if self.n_connections != before:
            self.take()

    def finish(self):
        while self.waiting:
            self.take()
        assert self.client.ask(FLUSH) == 0
        for block in range(0, self.blocks, 64):
            n = min(64, self.blocks - block)
            self.client.request(READ, block * BLOCK, n * BLOCK)
            error, data = self.client.reply(n * BLOCK)
            assert not error, f"block {block} cannot be read: error {error}"
            for i in range(n):
                if data[i * BLOCK:(i + 1) * BLOCK] != stamp(block + i, self.generation.get(block + i, 0)):
                    self.wrong(block + i, data[i * BLOCK:(i + 1) * BLOCK])
        self.client.close()
