#!/usr/bin/env python3
# Clients of the store's NBD server that mean no good, or no longer exist, and a store that dies: nobody but they themselves suffer,
# and what was said to be stable is there.
import os
import random
import resource
import select
import signal
import socket
import struct
import time

import nbd_rig as n
from nbd_rig import connect, serve
from store_rig import DEADLINE_S, main, wait_for

MB = 1 << 20
HALF_OPEN, CONNECTIONS = 128, 64  # as nbd_private.h has them


def is_served(rig, name="db"):
    client = connect(rig, name)
    client.request(n.READ, 0, 4096)
    assert client.reply(4096)[0] == 0
    client.close()


def garbage(rig):
    store = serve(rig, ("db", rig.image("a", 8), ""))
    rng = random.Random(3)
    go = struct.pack(">QII", n.OPTION, n.GO, 8) + struct.pack(">I", 2) + b"db" + bytes(2)
    read = struct.pack(">IHHQQI", n.REQUEST, 0, n.READ, 1, 0, 512)
    good = struct.pack(">I", 3) + go + read * 2
    starts = [good[:i] for i in range(len(good))]
    starts += [bytes(rng.randrange(256) for _ in range(rng.randrange(1, 200))) for _ in range(200)]
    for _ in range(200):  # one byte is another
        at = rng.randrange(len(good))
        starts.append(good[:at] + bytes([rng.randrange(256)]) + good[at + 1:])
    for data in starts:
        client = n.Client(rig.path("nbd.sock"), None)
        try:
            client.send(data)
        except OSError:
            pass
        client.close()
    is_served(rig)
    assert store.poll() is None


def refused_at_once(rig):
    serve(rig, ("db", rig.image("a", 8), ""))
    client = n.Client(rig.path("nbd.sock"), 7)
    assert client.is_closed(), "unknown client flags"
    client = n.Client(rig.path("nbd.sock"))
    client.send(struct.pack(">QII", 1234, n.LIST, 0))
    assert client.is_closed(), "bad magic of an option"
    client = n.Client(rig.path("nbd.sock"))
    client.send(struct.pack(">QII", n.OPTION, n.LIST, 0xFFFFFFFF))
    assert client.is_closed(), "an option of 4 GiB"
    client = connect(rig)
    client.request(n.READ, 0, 512, magic=0x12345678)
    assert client.is_closed(), "bad magic of a request"
    client = connect(rig)
    client.request(n.WRITE, 0, 0xFFFFFE00)
    assert client.is_closed(), "a write of 4 GiB"
    client = connect(rig)
    client.request(n.WRITE, 0, 4096, data=b"x" * 100)
    client.close()  # in the middle of its data
    is_served(rig)


def byte_by_byte(rig):
    serve(rig, ("db", rig.image("a", 8), ""))
    client = connect(rig, structured=True)
    data = os.urandom(1024)
    for byte in struct.pack(">IHHQQI", n.REQUEST, 0, n.WRITE, 5, 512, 1024) + data:
        client.send(bytes([byte]))
    assert client.reply()[0] == 0 and client.cookie == 5
    client.request(n.READ, 512, 1024)
    assert client.reply() == (0, (1, struct.pack(">Q", 512) + data))


def who_does_not_read_stops_alone(rig):
    """It asks for more than sockets hold, and reads late: no answer is lost, and others are served meanwhile."""
    serve(rig, ("db", rig.image("a", 64), ""))
    writer = connect(rig)
    block = os.urandom(256 << 10)
    for i in range(16):
        assert writer.ask(n.WRITE, i * len(block), len(block), data=block) == 0
    lazy, asked = connect(rig), 0
    lazy.socket.setblocking(False)
    full_since = None
    while asked < 100000:
        request = struct.pack(">IHHQQI", n.REQUEST, 0, n.READ, asked, asked % 16 * len(block), len(block))
        try:
            sent = lazy.socket.send(request)
        except BlockingIOError:
            # Full for as long as the others are served five times: it is not read from any more.
            full_since = 0 if full_since is None else full_since + 1
            is_served(rig)
            if full_since == 5:
                break
            continue
        assert sent == len(request), "requests are not cut in two by a Unix socket that has room"
        asked += 1
        full_since = None
    assert 128 <= asked < 100000, asked
    lazy.socket.setblocking(True)
    seen = set()
    for _ in range(asked):
        assert lazy.reply(len(block)) == (0, block)
        seen.add(lazy.cookie)
    assert seen == set(range(asked))


def good_bye_with_all_outstanding(rig):
    """DISC, or half a close, behind more requests than are taken at once: all are answered before the connection ends."""
    serve(rig, ("db", rig.image("a", 8), ""))
    requests = b"".join(struct.pack(">IHHQQI", n.REQUEST, 0, n.READ, i, i % 2048 * 4096, 4096) for i in range(1000))
    for good_bye in (struct.pack(">IHHQQI", n.REQUEST, 0, n.DISC, 0, 0, 0), b""):
        client = connect(rig)
        client.send(requests + good_bye)
        if not good_bye:
            client.socket.shutdown(socket.SHUT_WR)
        seen = set()
        for _ in range(1000):
            assert client.reply(4096)[0] == 0
            seen.add(client.cookie)
        assert len(seen) == 1000 and client.is_closed()


def gone_without_a_word(rig):
    """Clients that go with everything outstanding, while others read and write."""
    store = serve(rig, ("db", rig.image("a", 64), ""))
    rng = random.Random(5)
    for _ in range(60):
        client = connect(rig, structured=rng.random() < 0.5)
        for cookie in range(200):
            kind = rng.choice((n.READ, n.READ, n.WRITE, n.FLUSH, n.ZEROES, n.TRIM))
            length = 0 if kind == n.FLUSH else rng.choice((512, 4096, 65536, 524288))
            offset = 0 if kind == n.FLUSH else rng.randrange(64) * 524288
            client.socket.setblocking(False)
            try:
                client.request(kind, offset, length, 0, cookie, bytes(length) if kind == n.WRITE else b"")
            except BlockingIOError:
                break  # perhaps in the middle of one, which is all the better
        client.close()
    is_served(rig)
    wait_for("all of them to be gone", lambda: rig.log().count("nbd client gone") >= 61)
    store.terminate()
    assert store.wait(DEADLINE_S) == 0


def thousands(rig):
    """Half-open connections cost their makers their connections, and nobody else."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    many = min(3000, hard - 100)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, many + 100), hard))
    store = serve(rig, ("db", rig.image("a", 8), ""))
    idle = []
    for i in range(many):
        s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        s.connect(rig.path("nbd.sock"))
        idle.append(s)
        if i % 500 == 0:
            is_served(rig)
    is_served(rig)
    poll = select.poll()
    for s in idle:
        poll.register(s, select.POLLRDHUP)
    wait_for("all but some of them to be closed", lambda: len(poll.poll(0)) >= many - HALF_OPEN)
    assert len(os.listdir(f"/proc/{store.pid}/fd")) < HALF_OPEN + 40
    # And those that are left go when their time is over.
    wait_for("the rest to be closed", lambda: len(poll.poll(100)) == many)
    for s in idle:
        s.close()
    is_served(rig)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def connections_of_an_export(rig):
    serve(rig, ("one", rig.image("a", 8), ""), ("two", rig.image("b", 8), ""))
    taken = [connect(rig, "one") for _ in range(CONNECTIONS)]
    late = n.Client(rig.path("nbd.sock"))
    assert late.go("one")[-1][0] == n.POLICY
    assert late.go("two")[-1][0] == n.ACK, "others have their own"
    taken[7].close()
    wait_for("its place to be free", lambda: n.Client(rig.path("nbd.sock")).go("one")[-1][0] == n.ACK)


def few_descriptors(rig):
    """A store that may open no more goes on, and takes clients again when it may."""
    image = rig.image("a", 8)

    def limit():
        resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))

    path = rig.path("nbd.sock")
    with open(rig.path("store.log"), "wb") as log:
        rig.start([rig.store_program, "--disk", f"name=db,path={image},nbd", "--nbd", f"unix:{path}"], stderr=log, preexec_fn=limit)
    wait_for("the store", lambda: " serving " in rig.log())
    client = connect(rig)
    idle = [n.Client(path, None) for _ in range(60)]
    wait_for("the store to complain", lambda: "Too many open files" in rig.log())
    client.request(n.READ, 0, 4096)
    assert client.reply(4096)[0] == 0
    for s in idle:
        s.close()
    is_served(rig)


def killed_and_started_again(rig):
    """What was answered with FUA, or before a flush that was answered, is there after SIGKILL, whole."""
    disk = ("db", rig.image("a", 32), "")
    rng = random.Random(11)
    stable = {}
    for turn in range(10):
        store = serve(rig, disk, log=f"log{turn}")
        client = connect(rig)
        for block, value in stable.items():
            client.request(n.READ, block * 4096, 4096)
            assert client.reply(4096) == (0, struct.pack(">I", value) * 1024), (turn, block)
        outstanding = {}
        end = time.monotonic() + rng.random() * 0.2  # anywhere in the middle
        value = turn << 20
        while time.monotonic() < end or not value & 0xFFFFF:
            value += 1
            block = rng.randrange(4096)
            assert client.ask(n.WRITE, block * 4096, 4096, n.FUA if value % 3 == 0 else 0, struct.pack(">I", value) * 1024) == 0
            outstanding[block] = value
            stable.pop(block, None)
            if value % 3 == 0:
                stable[block] = outstanding.pop(block)
            if value % 16 == 0:
                assert client.ask(n.FLUSH) == 0
                stable.update(outstanding)
                outstanding.clear()
        for i in range(20):  # which may or may not be done, elsewhere
            client.request(n.WRITE, (4096 + i) * 4096, 4096, data=bytes(4096))
        store.send_signal(signal.SIGKILL)
        assert store.wait(DEADLINE_S) == -signal.SIGKILL
    assert stable


def ended_with_requests_outstanding(rig):
    """SIGTERM: what was taken is done and answered, and then the connection ends."""
    store = serve(rig, ("db", rig.image("a", 64), ""))
    client = connect(rig)
    for i in range(32):
        client.request(n.WRITE, i * 65536, 65536, cookie=i, data=bytes([i + 1]) * 65536)
    store.terminate()
    assert store.wait(DEADLINE_S) == 0
    answered = set()
    try:
        while True:
            assert client.reply()[0] == 0
            answered.add(client.cookie)
    except (EOFError, ConnectionResetError):
        pass
    with open(rig.path("a"), "rb") as f:
        for i in answered:
            f.seek(i * 65536)
            assert f.read(65536) == bytes([i + 1]) * 65536, i


main([garbage, refused_at_once, byte_by_byte, who_does_not_read_stops_alone, good_bye_with_all_outstanding, gone_without_a_word, thousands,
      connections_of_an_export, few_descriptors, killed_and_started_again, ended_with_requests_outstanding])
