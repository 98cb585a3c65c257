#!/usr/bin/env python3
# TLS of the store's NBD server: certificates of both sides and pre-shared keys, made by GnuTLS' tools, with libnbd's clients and
# QEMU's; what may be said in clear and what not.
import os
import shutil
import socket
import ssl
import struct

import nbd_rig as n
from certificates import certificate
from nbd_rig import run, serve, uri
from store_rig import Skip, main

MB = 1 << 20
USER = "mallory"


def make_certificates(rig):
    if not shutil.which("certtool"):
        raise Skip("certtool is missing; it is in Debian's gnutls-bin")
    for ca in ("ca", "other-ca"):
        certificate(rig, ca, None, "ca", "cert_signing_key")
    server = certificate(rig, "server", "ca", "tls_www_server", "signing_key", 'dns_name = "localhost"', 'ip_address = "127.0.0.1"')
    for name, ca in (("client", "ca"), ("stranger", "other-ca")):
        cert, key = certificate(rig, name, ca, "tls_www_client", "signing_key")
        folder = rig.path(name)  # as libnbd wants it
        os.mkdir(folder)
        shutil.copy(rig.path("ca-cert.pem"), os.path.join(folder, "ca-cert.pem"))
        shutil.copy(cert, os.path.join(folder, "client-cert.pem"))
        shutil.copy(key, os.path.join(folder, "client-key.pem"))
    os.mkdir(rig.path("nobody"))
    shutil.copy(rig.path("ca-cert.pem"), rig.path("nobody/ca-cert.pem"))
    return server


def make_keys(rig):
    if not shutil.which("psktool"):
        raise Skip("psktool is missing; it is in Debian's gnutls-bin")
    path = rig.path("keys.psk")
    for user in ("alice", USER):
        run("psktool", "-u", user, "-p", path)
    return path


def x509(rig, folder):
    return uri(rig, "db", "nbds+unix", f"&tls-certificates={rig.path(folder)}&tls-hostname=localhost")


def psk(rig, user, path):
    return f"nbds+unix://{user}@/db?socket={rig.path('nbd.sock')}&tls-psk-file={path}"


def source(rig):
    path = rig.path("source")
    with open(path, "wb") as f:
        f.write(os.urandom(3 * MB + 512) * 4)
        f.truncate(32 * MB)
    return path


def copies(rig, where):
    run("nbdcopy", rig.path("source"), where)
    run("nbdcopy", where, rig.path("back"))
    run("cmp", rig.path("source"), rig.path("back"))
    os.unlink(rig.path("back"))


def certificates_of_both(rig):
    cert, key = make_certificates(rig)
    serve(rig, ("db", rig.image("a", 32), ""), nbd=f",tls=required,certificate={cert},key={key},ca={rig.path('ca-cert.pem')}")
    source(rig)
    copies(rig, x509(rig, "client"))
    for stranger in ("stranger", "nobody"):
        run("nbdinfo", x509(rig, stranger), ok=False)
    out = run("nbdinfo", uri(rig, "db"), ok=False)
    assert "TLS" in out or "policy" in out, out
    assert "tls=on" in rig.log()
    run("qemu-img", "compare", "--object", f"tls-creds-x509,id=t,dir={rig.path('client')},endpoint=client", "--image-opts",
        f"driver=file,filename={rig.path('source')}",
        f"driver=nbd,server.type=unix,server.path={rig.path('nbd.sock')},export=db,tls-creds=t,tls-hostname=localhost")


def certificate_of_the_server(rig):
    """No CA: the client need not show anything; TLS is its own choice."""
    cert, key = make_certificates(rig)
    serve(rig, ("db", rig.image("a", 32), ""), nbd=f",tls=on,certificate={cert},key={key}")
    source(rig)
    copies(rig, x509(rig, "nobody"))
    copies(rig, uri(rig, "db"))
    assert "with TLS" in run("nbdinfo", x509(rig, "nobody"))
    assert "without TLS" in run("nbdinfo", uri(rig, "db"))


def pre_shared_keys(rig):
    keys = make_keys(rig)
    tcp = socket.socket()
    tcp.bind(("127.0.0.1", 0))
    port = tcp.getsockname()[1]
    tcp.close()
    serve(rig, ("db", rig.image("a", 32), ""),
          nbd=[f"unix:{rig.path('nbd.sock')},tls=required,psk={keys}", f"tcp:127.0.0.1:{port},tls=required,psk={keys}"])
    source(rig)
    copies(rig, psk(rig, "alice", keys))
    copies(rig, f"nbds://{USER}@127.0.0.1:{port}/db?tls-psk-file={keys}")
    wrong = rig.path("wrong.psk")
    run("psktool", "-u", "alice", "-p", wrong)
    run("psktool", "-u", "eve", "-p", wrong)
    for user in ("alice", "eve"):
        run("nbdinfo", psk(rig, user, wrong), ok=False)
    assert "client refused" in rig.log()
    run("nbdinfo", psk(rig, "alice", keys))


def what_may_be_said_in_clear(rig):
    keys = make_keys(rig)
    serve(rig, ("db", rig.image("a", 8), ""), nbd=f",tls=required,psk={keys}")
    client = n.Client(rig.path("nbd.sock"))
    for option in (n.LIST, n.STRUCTURED, 99):
        assert client.option(option)[-1][0] == n.TLS_REQD
    assert client.go("db")[-1][0] == client.go("none")[-1][0] == client.go("db", option=n.INFO)[-1][0] == n.TLS_REQD
    assert client.option(n.STARTTLS, b"x")[-1][0] == n.INVALID
    assert client.option(n.STARTTLS) == [(n.ACK, b"")]
    client.send(b"this is no handshake at all" * 10)
    try:
        while client.socket.recv(4096):
            pass  # an alert, and the end
    except ConnectionResetError:
        pass
    client = n.Client(rig.path("nbd.sock"))
    client.send(struct.pack(">QII", n.OPTION, n.EXPORT_NAME, 2) + b"db")
    assert client.is_closed()
    # Something in clear behind STARTTLS could come from somebody else than what comes by TLS.
    client = n.Client(rig.path("nbd.sock"))
    client.send(struct.pack(">QII", n.OPTION, n.STARTTLS, 0) + struct.pack(">QII", n.OPTION, n.STRUCTURED, 0))
    assert client.is_closed()
    client = n.Client(rig.path("nbd.sock"))
    assert client.option(n.ABORT) == [(n.ACK, b"")] and client.is_closed()


def credentials_by_descriptor(rig):
    keys = make_keys(rig)
    control, _ = rig.controlled()
    listen = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listen.bind(rig.path("nbd.sock"))
    listen.listen(8)
    with open(rig.image("a", 32), "r+b") as image, open(keys, "rb") as text:
        control.ok("disk.add", {"name": "db", "nbd": True}, [image.fileno()])
        assert "certificate and its key" in control.refused("nbd.listen", {"name": "n", "certificate": "x"}, [listen.fileno()])
        assert "should be a pair" in control.refused("nbd.listen", {"name": "n", "certificate": "x", "key": "y"}, [listen.fileno()])
        assert "NAME:KEY" in control.refused("nbd.listen", {"name": "n", "psk": "alice:xyz"}, [listen.fileno()])
        assert "number of a descriptor" in control.refused("nbd.listen", {"name": "n", "psk": 5}, [listen.fileno()])
        control.ok("nbd.listen", {"name": "n", "tls": "required", "psk": 1}, [listen.fileno(), text.fileno()])
        control.ok("nbd.close", {"name": "n"})
        text.seek(0)
        control.ok("nbd.listen", {"name": "n", "tls": "required", "psk": text.read().decode()}, [listen.fileno()])
    assert control.ok("nbd.list") == [{"name": "n", "tls": "required", "connections": 0}]
    source(rig)
    copies(rig, psk(rig, "alice", keys))


class Hands:
    """A TLS client that sends what it is told to, when it is told to: the handshake a piece at a time."""

    def __init__(self, rig, ca):
        self.client = n.Client(rig.path("nbd.sock"))
        assert self.client.option(n.STARTTLS) == [(n.ACK, b"")]
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.create_default_context(cafile=ca)
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")
        assert not self.step()
        self.hello = self.outgoing.read()

    def step(self):
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def go_on(self):
        """Receives until there is an answer to send; True: the handshake is done on this side."""
        while not self.step():
            if self.outgoing.pending:
                return False
            piece = self.client.socket.recv(65536)
            assert piece, "the server has gone"
            self.incoming.write(piece)
        return True

    def finish(self):
        while not self.go_on():
            self.client.send(self.outgoing.read())
        self.client.send(self.outgoing.read())
        self.tls.write(struct.pack(">QII", n.OPTION, n.LIST, 0))
        self.client.send(self.outgoing.read())
        while True:
            try:
                return self.tls.read(65536)
            except ssl.SSLWantReadError:
                piece = self.client.socket.recv(65536)
                assert piece, "the server has gone"
                self.incoming.write(piece)


def stops_in_the_middle(rig):
    """Who stops in the middle of its handshake, wherever that is, holds up nobody; and may go on later."""
    cert, key = make_certificates(rig)
    serve(rig, ("db", rig.image("a", 32), ""), nbd=f",tls=on,certificate={cert},key={key}")
    source(rig)
    stopped = []
    for sent in (0, 1, 4, 100, -1, None):  # of the ClientHello, and then all of it
        hands = Hands(rig, rig.path("ca-cert.pem"))
        hands.client.send(hands.hello[:sent])
        stopped.append((hands, b"" if sent is None else hands.hello[sent:]))
    hands = Hands(rig, rig.path("ca-cert.pem"))
    hands.client.send(hands.hello)
    assert hands.go_on()  # the server waits for the client's Finished, of which it gets a byte
    finished = hands.outgoing.read()
    hands.client.send(finished[:1])
    stopped.append((hands, finished[1:]))
    copies(rig, x509(rig, "nobody"))
    copies(rig, uri(rig, "db"))
    for hands, rest in stopped:
        hands.client.send(rest)
        assert struct.pack(">Q", n.REPLY) in hands.finish(), "a client that went on is not served"
        copies(rig, x509(rig, "nobody"))
    for hands, _ in stopped:
        hands.client.close()


main([certificates_of_both, certificate_of_the_server, pre_shared_keys, what_may_be_said_in_clear, credentials_by_descriptor,
      stops_in_the_middle])
