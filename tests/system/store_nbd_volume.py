#!/usr/bin/env python3
# Disks behind NBD servers: qemu-nbd with a qcow2 image, nbdkit, another store; servers that are killed, go silent, or say what they
# should not.
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import threading

from nbd_rig import ACK, INFO_REPLY, REPLY
from store_rig import DEADLINE_S, Skip, can_connect, main, wait_for

BYTES = 32 << 20
GREETING = b"NBDMAGIC" + b"IHAVEOPT"


def need(program):
    if not shutil.which(program):
        raise Skip(f"{program} is missing")


def volume(rig, **members):
    return {"type": "nbd", "socket": rig.path("nbd.sock"), **members}


def store(rig, tree, wait=True, log="store.log", **popen):
    if os.path.exists(rig.path("d.sock")):
        os.unlink(rig.path("d.sock"))
    with open(rig.path(log), "wb") as f:
        p = rig.start([rig.store_program, "--disk", f"name=d,socket={rig.path('d.sock')},queues=2", "--volume", f"d={json.dumps(tree)}"],
                      stderr=f, **popen)
    if wait:
        wait_for("the store", lambda: p.poll() is not None or " serving " in rig.log(log))
        assert p.poll() is None, rig.log(log)
    return p


def qemu_nbd(rig, image, image_format="raw"):
    if os.path.exists(rig.path("nbd.sock")):
        os.unlink(rig.path("nbd.sock"))
    p = rig.start(["qemu-nbd", "-f", image_format, "-k", rig.path("nbd.sock"), "-x", "", "-t", "--cache=writeback", "--discard=unmap", image])
    wait_for("qemu-nbd", lambda: p.poll() is not None or can_connect(rig.path("nbd.sock")))
    assert p.poll() is None
    return p


def verify(rig, *arguments):
    result = rig.driver_result("verify", "d", "--queues", 2, "--requests", 6000, *arguments)
    assert result["submitted"] == result["completed"] >= 6000, result


def end(process):
    process.terminate()
    process.wait(DEADLINE_S)


def qcow2_by_qemu_nbd(rig):
    image = rig.path("a.qcow2")
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, str(BYTES)], check=True)
    server = qemu_nbd(rig, image, "qcow2")
    service = store(rig, volume(rig))
    verify(rig)
    end(service)
    end(server)
    subprocess.run(["qemu-img", "check", "-q", image], check=True)


def servers_that_can_less(rig):
    need("nbdkit")
    for n, filters in enumerate(([], ["--filter=fua", "fuamode=force"], ["--filter=nozero"], ["--filter=noparallel", "serialize=requests"],
                                 ["--filter=blocksize-policy", "blocksize-minimum=4096", "blocksize-error-policy=error"])):
        options = [f for f in filters if f.startswith("-")]
        path = rig.path(f"nbd{n}.sock")
        server = rig.start(["nbdkit", "-f", "-U", path, *options, "memory", str(BYTES), *[f for f in filters if f not in options]])
        wait_for("nbdkit", lambda: server.poll() is not None or can_connect(path))
        assert server.poll() is None
        service = store(rig, {"type": "nbd", "socket": path})
        verify(rig)
        end(service)
        end(server)


def another_store(rig):
    rig.image("a", BYTES >> 20)
    path = rig.path("nbd.sock")
    with open(rig.path("other.log"), "wb") as log:
        other = rig.start([rig.store_program, "--disk", f"name=x,path={rig.path('a')},nbd", "--nbd", f"unix:{path}"], stderr=log)
    wait_for("the other store", lambda: other.poll() is not None or can_connect(path))
    service = store(rig, volume(rig, export="x"))
    verify(rig, "--packed")
    end(service)
    service = store(rig, volume(rig, export="y"), wait=False)
    assert service.wait(DEADLINE_S) == 2 and "no such export" in rig.log(), rig.log()


def by_tcp(rig):
    rig.image("a", BYTES >> 20)
    probe = socket.create_server(("127.0.0.1", 0))
    port = probe.getsockname()[1]
    probe.close()
    with open(rig.path("other.log"), "wb") as log:
        rig.start([rig.store_program, "--disk", f"name=x,path={rig.path('a')},nbd", "--nbd", f"tcp:127.0.0.1:{port}"], stderr=log)
    wait_for("the other store", lambda: " serving " in rig.log("other.log"))
    store(rig, {"type": "nbd", "host": "localhost", "address": "127.0.0.1", "port": port, "export": "x"})
    verify(rig)


def killed_and_started_again(rig):
    """The server is killed in the middle again and again; what it had in the host's cache is still there."""
    image = rig.image("a", BYTES >> 20)
    server = qemu_nbd(rig, image)
    store(rig, volume(rig, reconnect_s=120, keeps_cache=True))
    driver = rig.driver("verify", "d", "--queues", 2, "--requests", 10**9)
    for n in range(15):
        before = os.stat(image).st_mtime_ns
        wait_for("a write", lambda: driver.poll() is not None or os.stat(image).st_mtime_ns != before)
        assert driver.poll() is None, "the driver found something wrong"
        server.kill()
        server.wait(DEADLINE_S)
        server = qemu_nbd(rig, image)
        wait_for("the connection", lambda: driver.poll() is not None or rig.log().count("connected again") > n)
    driver.send_signal(signal.SIGUSR1)
    out, _ = driver.communicate(timeout=DEADLINE_S)
    assert driver.returncode == 0, "the driver found something wrong"
    result = json.loads(out)
    assert result["submitted"] == result["completed"], result


def flushes_fail_when_something_may_be_lost(rig):
    image = rig.image("a", BYTES >> 20)
    server = qemu_nbd(rig, image)
    store(rig, volume(rig, reconnect_s=120))
    driver = rig.driver("bench", "d", "--pattern", "randwrite", "--size", "4096", "--seconds", 1)
    driver.communicate(timeout=DEADLINE_S)
    server.kill()
    server.wait(DEADLINE_S)
    qemu_nbd(rig, image)
    wait_for("the connection", lambda: "connected again" in rig.log())
    assert "flushes fail from now on" in rig.log()
    found = rig.driver_result("inspect", "d")
    assert found["read"] == 0 and found["flush"] == 1, found


def gone_for_good(rig):
    image = rig.image("a", BYTES >> 20)
    server = qemu_nbd(rig, image)
    service = store(rig, volume(rig))
    server.kill()
    server.wait(DEADLINE_S)
    wait_for("the loss to be seen", lambda: "connection lost" in rig.log())
    found = rig.driver_result("inspect", "d")
    assert found["read"] == 1 and found["write"] == 1, found
    end(service)
    assert service.returncode == 0


def silent(rig):
    """A server that stands still: its connection is given up, and the store can be ended."""
    image = rig.image("a", BYTES >> 20)
    server = qemu_nbd(rig, image)
    service = store(rig, volume(rig, timeout_s=1, reconnect_s=1))
    driver = rig.driver("bench", "d", "--pattern", "randread", "--size", "4096", "--seconds", 20)
    wait_for("the load", lambda: "front end connected" in rig.log())
    server.send_signal(signal.SIGSTOP)
    wait_for("the end of patience", lambda: "gets I/O errors" in rig.log())
    driver.kill()
    end(service)
    assert service.returncode == 0
    server.send_signal(signal.SIGCONT)


# ---- hostile servers ----

def option_reply(option, kind, data=b""):
    return struct.pack(">QIII", REPLY, option, kind, len(data)) + data


def get(connection, n):
    data = b""
    while len(data) < n:
        more = connection.recv(n - len(data))
        if not more:
            raise ConnectionError
        data += more
    return data


def get_option(connection):
    _, option, length = struct.unpack(">QII", get(connection, 16))
    return option, get(connection, length)


def export_info(size=BYTES, flags=0x1 | 0x4 | 0x8 | 0x20 | 0x40):
    return struct.pack(">HQH", 0, size, flags)


def shake_hands(connection, structured=True, info=None):
    connection.sendall(GREETING + struct.pack(">H", 3))
    get(connection, 4)
    while True:
        option, _ = get_option(connection)
        if option == 8:
            connection.sendall(option_reply(8, ACK if structured else 0x80000001))
        elif option == 10:
            connection.sendall(option_reply(10, ACK))
        elif option == 7:
            connection.sendall(option_reply(7, INFO_REPLY, info or export_info()) + option_reply(7, ACK))
            return


def get_request(connection):
    while True:
        _, flags, kind, cookie, offset, length = struct.unpack(">IHHQQI", get(connection, 28))
        if kind == 1:
            get(connection, length)
        if kind == 2:
            raise ConnectionError
        return flags, kind, cookie, offset, length


def simple(cookie, error=0):
    return struct.pack(">IIQ", 0x67446698, error, cookie)


def chunk(cookie, kind, data=b"", done=True):
    return struct.pack(">IHHQI", 0x668E33EF, 1 if done else 0, kind, cookie, len(data)) + data


def answer_all(answer, **options):
    """A server that answers each request by what `answer` makes of it."""
    def serve(connection):
        shake_hands(connection, **options)
        while True:
            connection.sendall(answer(*get_request(connection)))
    return serve


def raw(data):
    def serve(connection):
        connection.sendall(data)
        while connection.recv(4096):
            pass
    return serve


BAD_GREETINGS = {
    "nothing of it": raw(b"HTTP/1.1 400 Bad Request\r\n\r\n" + bytes(100)),
    "oldstyle": raw(b"NBDMAGIC" + bytes(144)),
    "not fixed": raw(GREETING + struct.pack(">H", 0)),
    "endless": lambda c: (c.sendall(GREETING + struct.pack(">H", 3)), get(c, 4), get_option(c),
                          c.sendall(option_reply(8, INFO_REPLY, bytes(1 << 20)))),
    "another option": lambda c: (c.sendall(GREETING + struct.pack(">H", 3)), get(c, 4), get_option(c), c.sendall(option_reply(99, ACK))),
    "no size": lambda c: shake_hands(c, info=struct.pack(">HI", 3, 0)),
    "empty": lambda c: shake_hands(c, info=export_info(size=0)),
    "too large": lambda c: shake_hands(c, info=export_info(size=2**64 - 512)),
    "no multiple": lambda c: shake_hands(c, info=export_info(size=BYTES + 1)),
    "too short": lambda c: shake_hands(c, info=b"\0"),
    "closes": lambda c: None,
}

BAD_ANSWERS = {
    "garbage": answer_all(lambda *_: bytes(range(64))),
    "another cookie": answer_all(lambda f, k, cookie, o, n: simple(cookie + 1)),
    "twice": answer_all(lambda f, k, cookie, o, n: 2 * chunk(cookie, 0)),
    "simple read": answer_all(lambda f, k, cookie, o, n: simple(cookie) + bytes(n)),
    "structured, unasked": answer_all(lambda f, k, cookie, o, n: chunk(cookie, 0), structured=False),
    "data before": answer_all(lambda f, k, cookie, o, n: chunk(cookie, 1, struct.pack(">Q", o - 512 if o else 2**64 - 1) + bytes(n))),
    "data beyond": answer_all(lambda f, k, cookie, o, n: chunk(cookie, 1, struct.pack(">Q", o + 512) + bytes(n))),
    "too much data": answer_all(lambda f, k, cookie, o, n: chunk(cookie, 1, struct.pack(">Q", o) + bytes(n + 512))),
    "data twice": answer_all(lambda f, k, cookie, o, n: 2 * chunk(cookie, 1, struct.pack(">Q", o) + bytes(n), done=False)),
    "no data": answer_all(lambda f, k, cookie, o, n: chunk(cookie, 1, struct.pack(">Q", o))),
    "hole beyond": answer_all(lambda f, k, cookie, o, n: chunk(cookie, 2, struct.pack(">QI", o, 2**32 - 1))),
    "status of a read": answer_all(lambda f, k, cookie, o, n: chunk(cookie, 5, struct.pack(">III", 1, 512, 0))),
    "long error": answer_all(lambda f, k, cookie, o, n: chunk(cookie, 0x8001, struct.pack(">IH", 5, 65535) + bytes(40000))),
    "unknown kind": answer_all(lambda f, k, cookie, o, n: chunk(cookie, 77, bytes(8))),
    "closes": answer_all(lambda *_: (_ for _ in ()).throw(ConnectionError())),
}


class Server:
    """Of one kind of connection after the other, by hand."""

    def __init__(self, rig, serve):
        path = rig.path("nbd.sock")
        if os.path.exists(path):
            os.unlink(path)
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(path)
        self.socket.listen(4)
        self.serve = serve
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            with connection:
                try:
                    self.serve(connection)
                except (OSError, struct.error):
                    pass

    def close(self):
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self.thread.join(DEADLINE_S)


def wrong_greetings(rig):
    for name, serve in BAD_GREETINGS.items():
        server = Server(rig, serve)
        service = store(rig, volume(rig), wait=False)
        assert service.wait(DEADLINE_S) == 2, f"{name}: {rig.log()}"
        assert "disk 'd': nbd server nbd.sock" in rig.log(), f"{name}: {rig.log()}"
        server.close()


def wrong_answers(rig):
    for name, serve in BAD_ANSWERS.items():
        server = Server(rig, serve)
        service = store(rig, volume(rig))
        found = rig.driver_result("inspect", "d")
        assert found["read"] == 1, f"{name}: {found}"
        assert "connection lost" in rig.log(), f"{name}: {rig.log()}"
        end(service)
        assert service.returncode == 0, f"{name}: {rig.log()}"
        server.close()


def errors_are_passed_on(rig):
    """As an error and nothing more: the connection stays."""
    serve = answer_all(lambda f, k, cookie, o, n: chunk(cookie, 0x8001, struct.pack(">IH", 28 if k == 1 else 5, 4) + b"text"))
    server = Server(rig, serve)
    service = store(rig, volume(rig))
    found = rig.driver_result("inspect", "d")
    assert found["read"] == 1 and found["write"] == 1 and "connection lost" not in rig.log(), (found, rig.log())
    end(service)
    server.close()


main([qcow2_by_qemu_nbd, servers_that_can_less, another_store, by_tcp, killed_and_started_again, flushes_fail_when_something_may_be_lost,
      gone_for_good, silent, wrong_greetings, wrong_answers, errors_are_passed_on])
