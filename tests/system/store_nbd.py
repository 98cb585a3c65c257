#!/usr/bin/env python3
# The store's NBD server with other people's clients: libnbd and its tools, QEMU's, fio, the kernel's; what the protocol asks of a
# server, by bare messages; and the control socket's part of it.
import json
import os
import resource
import shutil
import socket
import struct

import nbd_rig as n
from nbd_rig import connect, libnbd, run, serve, uri
from store_rig import Skip, main, wait_for

MB = 1 << 20


def pattern(length, seed=1):
    return bytes((i * 31 + seed) % 251 for i in range(4096)) * (length // 4096)


def open_nbd(rig, name="", setup=None):
    h = libnbd().NBD()
    h.add_meta_context("base:allocation")
    if setup:
        setup(h)
    h.connect_uri(uri(rig, name))
    return h


def refused(call, *arguments, error):
    nbd = libnbd()
    try:
        call(*arguments)
    except nbd.Error as found:
        assert found.errno == error, f"{call.__name__}: {found} instead of {error}"
        return
    raise AssertionError(f"{call.__name__} should fail with {error}")


def tools_agree(rig):
    serve(rig, ("db", rig.image("a", 64), ""))
    with open(rig.path("source"), "wb") as f:
        f.write(pattern(3 * MB))
        f.truncate(64 * MB)
        f.seek(40 * MB)
        f.write(pattern(5 * MB, 9))
    info = json.loads(run("nbdinfo", "--json", uri(rig, "db")))
    export = info["exports"][0]
    assert info["protocol"] == "newstyle-fixed" and info["structured"] and export["export-size"] == 64 * MB, info
    for can in ("can_cache", "can_df", "can_fast_zero", "can_flush", "can_fua", "can_multi_conn", "can_trim", "can_zero"):
        assert export[can], (can, export)
    assert not export["is_read_only"] and export["contexts"] == ["base:allocation"], export
    assert export["block_size_minimum"] == 512 and export["block_size_preferred"] == 4096 and export["block_size_maximum"] == 32 * MB, export
    run("nbdcopy", "--flush", rig.path("source"), uri(rig, "db"))
    run("nbdcopy", uri(rig, "db"), rig.path("back"))
    run("cmp", rig.path("source"), rig.path("back"))
    run("nbdcopy", "--requests=64", "--request-size=4194304", "--connections=4", uri(rig, "db"), rig.path("back2"))
    run("cmp", rig.path("source"), rig.path("back2"))
    run("qemu-img", "compare", "-f", "raw", "-F", "raw", rig.path("source"), uri(rig, "db"))
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", uri(rig, "db"), rig.path("image.qcow2"))
    run("qemu-img", "compare", "-f", "qcow2", "-F", "raw", rig.path("image.qcow2"), rig.path("source"))
    run("qemu-img", "convert", "-n", "-f", "qcow2", "-O", "raw", rig.path("image.qcow2"), uri(rig, "db"))
    run("qemu-img", "compare", "-f", "raw", "-F", "raw", rig.path("source"), uri(rig, "db"))
    out = run("qemu-io", "-f", "raw", "-c", "write -P 5 1M 64k", "-c", "write -f -P 6 2M 4k", "-c", "write -z -u 1M 32k", "-c", "read -P 0 1M 32k",
              "-c", "read -P 5 1056k 32k", "-c", "read -P 6 2M 4k", "-c", "discard 8M 1M", "-c", "flush", uri(rig, "db"))
    assert "failed" not in out, out


def holes_are_told(rig):
    serve(rig, ("db", rig.image("a", 64), ""))
    h = open_nbd(rig)
    h.pwrite(pattern(MB), 8 * MB)
    h.pwrite(pattern(MB), 9 * MB)
    seen = []
    h.block_status(64 * MB, 0, lambda context, offset, entries, error: seen.append((context, offset, entries)) or 0)
    assert seen == [("base:allocation", 0, [8 * MB, 3, 2 * MB, 0, 54 * MB, 3])], seen
    seen.clear()
    h.block_status(64 * MB, 0, lambda context, offset, entries, error: seen.append(entries) or 0, libnbd().CMD_FLAG_REQ_ONE)
    assert seen == [[8 * MB, 3]], seen
    chunks = []

    def on_chunk(data, offset, status, error):
        chunks.append((offset, len(data), status))
        return 0

    assert h.pread_structured(MB, 20 * MB, on_chunk) == bytearray(MB)
    assert chunks == [(20 * MB, MB, libnbd().READ_HOLE)], chunks
    chunks.clear()
    assert h.pread_structured(2 * MB, 7 * MB, on_chunk) == bytearray(MB) + pattern(MB)
    assert chunks == [(7 * MB, MB, libnbd().READ_HOLE), (8 * MB, MB, libnbd().READ_DATA)], chunks
    chunks.clear()
    assert h.pread_structured(2 * MB, 7 * MB, on_chunk, libnbd().CMD_FLAG_DF) == bytearray(MB) + pattern(MB)
    assert chunks == [(7 * MB, 2 * MB, libnbd().READ_DATA)], chunks
    # What was data is read after it has become a hole, and again as data.
    h.trim(MB, 8 * MB)
    assert h.pread(MB, 8 * MB) == bytearray(MB)
    h.pwrite(pattern(MB, 3), 8 * MB)
    assert h.pread(MB, 8 * MB) == pattern(MB, 3)
    h.shutdown()


def commands_do_what_they_say(rig):
    nbd = libnbd()
    serve(rig, ("db", rig.image("a", 64), ""))
    h = open_nbd(rig)
    h.set_strict_mode(0)
    big = pattern(32 * MB)
    h.pwrite(big, 0, nbd.CMD_FLAG_FUA)
    assert h.pread(32 * MB, 0) == big
    h.zero(4 * MB, MB, nbd.CMD_FLAG_NO_HOLE)
    assert os.stat(rig.path("a")).st_blocks >= 32 * MB // 512, "NO_HOLE must keep the place"
    h.zero(4 * MB, 8 * MB, nbd.CMD_FLAG_FUA)
    assert os.stat(rig.path("a")).st_blocks <= 29 * MB // 512, "and without it there may be a hole"
    assert h.pread(4 * MB, MB) == h.pread(4 * MB, 8 * MB) == bytearray(4 * MB)
    try:
        h.zero(MB, 20 * MB, nbd.CMD_FLAG_FAST_ZERO)
        assert h.pread(MB, 20 * MB) == bytearray(MB)
    except nbd.Error as error:
        assert error.errno == "ENOTSUP", error
        assert h.pread(MB, 20 * MB) == big[:MB]
    h.trim(MB, 30 * MB)
    h.cache(MB, 0)
    h.flush()
    refused(h.pread, 4096, 64 * MB, error="EINVAL")
    refused(h.pwrite, bytes(4096), 64 * MB, error="ENOSPC")
    refused(h.zero, 4096, 64 * MB, error="ENOSPC")
    refused(h.trim, 4096, 64 * MB, error="EINVAL")
    refused(h.cache, 4096, 64 * MB, error="EINVAL")
    refused(h.pread, 512, 100, error="EINVAL")
    refused(h.pwrite, bytes(100), 0, error="EINVAL")
    refused(h.pread, 33 * MB, 0, error="EINVAL")
    refused(h.pwrite, bytes(33 * MB), 0, error="EINVAL")
    assert h.pread(4096, 0) == big[:4096], "the connection goes on after refusals"
    h.shutdown()


def errors_of_the_image(rig):
    """The client gets the error that it was, and its connection goes on."""
    path = rig.image("a", 8)
    serve(rig, ("db", path, ""))
    os.truncate(path, 4 * MB)
    for structured in (False, True):
        client = connect(rig, structured=structured)
        client.request(n.READ, 6 * MB, 4096)
        assert client.reply()[0] == n.EIO
        client.request(n.READ, 2 * MB, 4 * MB, n.DF if structured else 0)
        assert client.reply()[0] == n.EIO, "half of it is not there"
        client.request(n.READ, 0, 4096)
        assert client.reply(4096)[0] == 0


def no_room_to_grow(rig):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (4 * MB, 4 * MB))

    serve(rig, ("db", rig.image("a", 8), ""), preexec_fn=limit)
    client = connect(rig)
    assert client.ask(n.WRITE, 6 * MB, 4096, data=bytes(4096)) == n.ENOSPC
    assert client.ask(n.WRITE, 2 * MB, 4096, data=bytes(4096)) == 0


def read_only(rig):
    image = rig.image("a", 8)
    serve(rig, ("db", image, ",read-only"))
    h = open_nbd(rig)
    h.set_strict_mode(0)
    assert h.is_read_only() and not h.can_trim() and not h.can_zero()
    for call, arguments in ((h.pwrite, (bytes(512), 0)), (h.zero, (512, 0)), (h.trim, (512, 0))):
        refused(call, *arguments, error="EPERM")
    h.flush()
    assert h.pread(512, 0) == bytearray(512)
    h.shutdown()


def exports_by_name(rig):
    serve(rig, ("one", rig.image("a", 8), ""), ("two", rig.image("b", 16), ""),
          nbd=[f"unix:{rig.path('nbd.sock')}", f"unix:{rig.path('second.sock')},export=two"])
    names = {e["export-name"] for e in json.loads(run("nbdinfo", "--list", "--json", uri(rig)))["exports"]}
    assert names == {"one", "two"}, names
    assert run("nbdinfo", "--size", uri(rig, "two")).strip() == str(16 * MB)
    client = n.Client(rig.path("nbd.sock"))
    for name in ("", "three", "on"):
        assert client.go(name)[-1][0] == n.UNKNOWN
    assert client.go("one")[-1][0] == n.ACK
    client = n.Client(rig.path("second.sock"))
    assert client.go("one")[-1][0] == n.UNKNOWN, "it is not of this listener's"
    assert client.go("")[-1][0] == n.ACK and client.size == 16 * MB


def large_blocks(rig):
    serve(rig, ("db", rig.image("a", 8), ",block-size=4096"))
    h = open_nbd(rig)
    h.set_strict_mode(0)
    assert h.get_block_size(libnbd().SIZE_MINIMUM) == 4096
    refused(h.pread, 512, 0, error="EINVAL")
    h.pwrite(pattern(8192), 4096)
    assert h.pread(8192, 4096) == pattern(8192)
    h.shutdown()


def options_by_the_book(rig):
    serve(rig, ("db", rig.image("a", 8), ""))
    client = n.Client(rig.path("nbd.sock"))
    assert client.option(99, b"whatever")[-1][0] == n.UNSUP
    assert client.option(n.LIST, b"x")[-1][0] == n.INVALID
    assert client.option(n.LIST) == [(n.SERVER, struct.pack(">I", 2) + b"db"), (n.ACK, b"")]
    assert client.option(n.STARTTLS)[-1][0] == n.POLICY
    assert client.option(n.SET_META, struct.pack(">II", 0, 0))[-1][0] == n.INVALID, "structured replies come first"
    assert client.option(n.STRUCTURED, b"x")[-1][0] == n.INVALID
    assert client.option(n.STRUCTURED) == [(n.ACK, b"")]

    def meta(option, *queries, name=b"db"):
        data = struct.pack(">I", len(name)) + name + struct.pack(">I", len(queries))
        return client.option(option, data + b"".join(struct.pack(">I", len(q)) + q for q in queries))

    context = (n.META_REPLY, bytes(4) + b"base:allocation")
    assert meta(n.LIST_META) == [context, (n.ACK, b"")]
    assert meta(n.LIST_META, b"base:") == [context, (n.ACK, b"")]
    assert meta(n.LIST_META, b"x-other:thing") == [(n.ACK, b"")]
    assert meta(n.SET_META, b"base:") == [(n.ACK, b"")]
    assert meta(n.SET_META, b"x-other:thing", b"base:allocation") == [context, (n.ACK, b"")]
    assert meta(n.SET_META, name=b"none")[-1][0] == n.UNKNOWN
    assert client.option(n.SET_META, struct.pack(">III", 0, 5, 9))[-1][0] == n.INVALID
    assert client.option(n.GO, struct.pack(">I", 200) + b"short")[-1][0] == n.INVALID
    assert client.option(n.GO, bytes(17 << 10))[-1][0] == n.TOO_BIG
    assert client.go("db", option=n.INFO)[-1][0] == n.ACK
    assert client.go("db")[-1][0] == n.ACK
    assert client.ask(n.STATUS, 0, 4096) == n.EINVAL, "the last SET_META_CONTEXT failed: there is no context"
    client.request(n.DISC)
    assert client.is_closed()
    client = n.Client(rig.path("nbd.sock"))
    assert client.option(n.ABORT) == [(n.ACK, b"")] and client.is_closed()


def old_clients(rig):
    serve(rig, ("db", rig.image("a", 8), ""))
    for flags, zeroes in ((0, 124), (1, 124), (2, 0), (3, 0)):
        client = n.Client(rig.path("nbd.sock"), flags)
        client.send(struct.pack(">QII", n.OPTION, n.EXPORT_NAME, 2) + b"db")
        size, export_flags = struct.unpack(">QH", client.receive(10))
        assert size == 8 * MB and export_flags & 1 and not export_flags >> 7 & 1, "no DF without structured replies"
        assert client.receive(zeroes) == bytes(zeroes)
        assert client.ask(n.WRITE, 512, 512, n.FUA, b"w" * 512) == 0
        client.request(n.READ, 0, 1024)
        assert client.reply(1024) == (0, bytes(512) + b"w" * 512)
        assert client.ask(n.READ, 0, 512, n.DF) == n.EINVAL
        assert client.ask(42) == n.EINVAL and client.ask(n.FLUSH, 512, 512) == n.EINVAL
        assert client.ask(n.WRITE, 0, 0) == 0
        client.request(n.READ, 0, 0)
        assert client.reply(0) == (0, b"")
    client = n.Client(rig.path("nbd.sock"), 2)
    client.send(struct.pack(">QII", n.OPTION, n.LIST, 0))
    assert client.is_closed(), "a client without fixed newstyle has one option"
    client = n.Client(rig.path("nbd.sock"))
    client.send(struct.pack(">QII", n.OPTION, n.EXPORT_NAME, 4) + b"none")
    assert client.is_closed()


def flush_over_connections(rig):
    """CAN_MULTI_CONN: what one connection wrote the other one sees and makes stable."""
    control, _ = rig.controlled()
    image = os.open(rig.image("a", 8), os.O_RDWR)
    listen = listening(rig)
    control.ok("nbd.listen", {"name": "n"}, [listen.fileno()])
    control.ok("disk.add", {"name": "db", "nbd": True}, [image])
    os.close(image)
    a, b = connect(rig), connect(rig)
    assert a.export_flags >> 8 & 1
    for i in range(64):
        writer, reader = (a, b) if i % 2 else (b, a)
        data = pattern(4096, i)
        assert writer.ask(n.WRITE, i * 4096, 4096, data=data) == 0
        assert reader.ask(n.FLUSH) == 0
        reader.request(n.READ, i * 4096, 4096)
        assert reader.reply(4096) == (0, data)
    stat = control.ok("disk.stat", {"name": "db"})
    assert stat["flushes"] == 64 and stat["writes"] == 64 and stat["nbd"] == {"connections": 2}, stat


def listening(rig, name="nbd.sock"):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    s.bind(rig.path(name))
    s.listen(64)
    return s


def by_the_control_socket(rig):
    control, store = rig.controlled()
    listen = listening(rig)
    tcp = socket.socket()
    tcp.bind(("127.0.0.1", 0))
    tcp.listen(8)
    control.ok("nbd.listen", {"name": "local", "exports": ["db"]}, [listen.fileno()])
    control.ok("nbd.listen", {"name": "net"}, [tcp.fileno()])
    assert "already" in control.refused("nbd.listen", {"name": "net"}, [tcp.fileno()])
    image = os.open(rig.image("a", 8), os.O_RDWR)
    assert "listening socket" in control.refused("nbd.listen", {"name": "x"}, [image])
    assert "names of disks" in control.refused("nbd.listen", {"name": "x", "exports": [1]}, [tcp.fileno()])
    assert "off, on or required" in control.refused("nbd.listen", {"name": "x", "tls": "often"}, [tcp.fileno()])
    assert "certificate and key" in control.refused("nbd.listen", {"name": "x", "tls": "required"}, [tcp.fileno()])
    assert "listening socket as descriptor" in control.refused("nbd.listen", {"name": "x"})
    control.ok("disk.add", {"name": "db", "nbd": True}, [image])
    os.close(image)
    assert run("nbdinfo", "--size", f"nbd://127.0.0.1:{tcp.getsockname()[1]}/db").strip() == str(8 * MB)
    listeners = {entry["name"]: entry for entry in control.ok("nbd.list")}
    assert listeners["local"]["exports"] == ["db"] and listeners["net"]["tls"] == "off", listeners
    client, other = connect(rig, "db"), n.Client(rig.path("nbd.sock"))
    control.ok("disk.resize", {"name": "db", "size_bytes": 4 * MB})
    client.request(n.READ, 6 * MB, 4096)
    assert client.reply()[0] == n.EINVAL, "what is behind a new end cannot be read"
    late = connect(rig, "db")
    assert late.size == 4 * MB
    control.ok("disk.remove", {"name": "db"})
    assert client.is_closed() and late.is_closed()
    assert other.go("db")[-1][0] == n.UNKNOWN
    control.ok("nbd.close", {"name": "local"})
    assert other.is_closed()
    assert "no listener" in control.refused("nbd.close", {"name": "local"})
    assert [entry["name"] for entry in control.ok("nbd.list")] == ["net"]
    control.ok("store.quit")
    assert store.wait(30) == 0


def size_changes_under_a_write(rig):
    """The data of a write that was fine when it was asked for come when the disk has become smaller."""
    control, _ = rig.controlled()
    listen = listening(rig)
    control.ok("nbd.listen", {"name": "n"}, [listen.fileno()])
    path = rig.image("a", 8)
    image = os.open(path, os.O_RDWR)
    control.ok("disk.add", {"name": "db", "nbd": True}, [image])
    client = connect(rig)
    client.request(n.WRITE, 6 * MB, 4096, data=b"x" * 100)
    wait_for("the store to have it", lambda: control.ok("disk.stat", {"name": "db"})["nbd"]["connections"] == 1)
    control.ok("disk.resize", {"name": "db", "size_bytes": 4 * MB})
    client.send(b"x" * 3996)
    assert client.reply()[0] == n.ENOSPC
    assert os.fstat(image).st_size == 4 * MB
    os.close(image)


def beside_a_machine(rig):
    """One disk by vhost-user and by NBD at the same time."""
    image = rig.image("a", 32)
    serve(rig, ("db", image, f",socket={rig.path('db.sock')}"))
    driver = rig.driver("verify", "db", "--requests", 4000)
    client = connect(rig, "db")
    reads = 0
    while driver.poll() is None:
        client.request(n.READ, reads % 64 * 65536, 65536)
        assert client.reply(65536)[0] == 0
        reads += 1
    assert driver.returncode == 0 and reads, "not all came back as it was written"


def fio_verifies(rig):
    if not shutil.which("fio") or "\tnbd" not in run("fio", "--enghelp"):
        raise Skip("this fio has no nbd engine")
    serve(rig, ("db", rig.image("a", 64), ""))
    for extra in (("--bs=4k", "--iodepth=32"), ("--bsrange=512-512k", "--blockalign=512", "--iodepth=16")):
        run("fio", "--name=v", "--ioengine=nbd", f"--uri={uri(rig, 'db')}", "--rw=randwrite", "--size=24M", "--verify=crc32c",
            "--verify_fatal=1", "--do_verify=1", *extra, cwd=rig.dir)


def kernel_client(rig):
    if os.geteuid() != 0 or not shutil.which("nbd-client"):
        raise Skip("wants root and nbd-client")
    if not os.path.exists("/dev/nbd0"):
        raise Skip("this kernel has no /dev/nbd0")
    serve(rig, ("db", rig.image("a", 32), ""))
    device = "/dev/nbd9"
    run("nbd-client", "-unix", rig.path("nbd.sock"), "-N", "db", "-C", "2", device)
    rig.undo.append(["nbd-client", "-d", device])
    with open(rig.path("source"), "wb") as f:
        f.write(pattern(8 * MB))
    run("dd", f"if={rig.path('source')}", f"of={device}", "bs=1M", "oflag=direct", "conv=fsync")
    run("cmp", "-n", str(8 * MB), rig.path("source"), device)


def called_wrong(rig):
    image = rig.image("a", 8)
    for arguments, said in (
            (["--disk", f"name=d,path={image}"], "but for nbd"),
            (["--disk", f"name=d,path={image},nbd=1"], "no good value"),
            (["--disk", f"name=d,path={image},nbd", "--nbd", "ftp:x"], "unix:PATH or tcp:HOST:PORT"),
            (["--disk", f"name=d,path={image},nbd", "--nbd", "tcp:localhost"], "tcp:HOST:PORT"),
            (["--disk", f"name=d,path={image},nbd", "--nbd", "unix:x,tls=maybe"], "no good value"),
            (["--disk", f"name=d,path={image},nbd", "--nbd", "unix:x,tls=required"], "TLS wants"),
            (["--disk", f"name=d,path={image},nbd", "--nbd", f"unix:x,psk={image}"], "regular file of at most"),
            (["--disk", f"name=d,path={image},nbd", "--nbd", "unix:x,color=red"], "is not known")):
        out = run(rig.store_program, *arguments, ok=False, cwd=rig.dir)
        assert said in out, (arguments, out)


main([tools_agree, holes_are_told, commands_do_what_they_say, errors_of_the_image, no_room_to_grow, read_only, exports_by_name, large_blocks,
      options_by_the_book, old_clients, flush_over_connections, by_the_control_socket, size_changes_under_a_write, beside_a_machine,
      fio_verifies, kernel_client, called_wrong])
