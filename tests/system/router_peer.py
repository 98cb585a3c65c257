#!/usr/bin/env python3
# Hosts that tell each other of their machines (vARP): two routers with a link between them, over TLS; questions are answered where they are asked,
# connections that are cut and routers that are killed come again with all they have, and strangers hear and say nothing.
import json
import os
import shutil
import socket
import ssl

from certificates import certificate
from router_link import arp, frame, mac
from router_rig import BROADCAST, Router, Skip, main, mac_text, wait_for

ADDRESS = {"a": "192.0.2.1", "b": "192.0.2.2"}
OTHER = {"a": "b", "b": "a"}


def make_certificates(rig):
    if not shutil.which("certtool"):
        raise Skip("certtool is missing; it is in Debian's gnutls-bin")
    for ca in ("ca", "other-ca"):
        certificate(rig, ca, None, "ca", "cert_signing_key")
    for name, signer, address in (("a", "ca", ADDRESS["a"]), ("b", "ca", ADDRESS["b"]), ("c", "ca", "192.0.2.3"), ("x", "other-ca", ADDRESS["b"])):
        certificate(rig, name, signer, "tls_www_server", "tls_www_client", "signing_key", f'ip_address = "{address}"')


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as s:
        return s.getsockname()[1]


def text(rig, name):
    with open(rig.path(name), encoding="ascii") as f:
        return f.read()


def serve(rig, router, name, port, who=None):
    who = who or name
    router.control.ok("peer.serve", {"listen": f"127.0.0.1:{port}", "certificate": text(rig, f"{who}-cert.pem"), "key": text(rig, f"{who}-key.pem"),
                                     "ca": text(rig, "ca-cert.pem")})


def host(rig, name, ports, is_joined=False):
    """A router with an underlay, over shared memory if both are joined, a network with VNI 7, and the other one for a peer."""
    router = Router(rig, name=name)
    other = ADDRESS[OTHER[name]]
    router.vn("net", type="ip")
    memif = {"kind": "memif", "socket": rig.path("memif.sock"), "role": "server" if name == "a" else "client"}
    router.port("net", "up", **(memif if is_joined else {}), addresses=[f"{ADDRESS[name]}/24"])
    router.port("net", "vtep", "vtep")
    router.vn("v")
    router.port("v", "m")
    serve(rig, router, name, ports[name])
    router.control.ok("peer.add", {"address": other, "connect": f"127.0.0.1:{ports[OTHER[name]]}"})
    router.port("v", "far", "vxlan", underlay="net", local=ADDRESS[name], remote=other, vni=7)
    return router


def known(router, vn="v"):
    return {n["address"]: (n["port"], n["mac"].lower()) for n in router.control.ok("neighbour.list", {"vn": vn})["neighbours"] if n["state"] == "static"}


def add_machine(router, n, vn="v"):
    router.port(vn, f"m{n}", mac=mac_text(mac(n)), addresses=[f"10.0.0.{n}", f"fd00::{n}"])


def there(n):
    return {f"10.0.0.{n}": ("far", mac_text(mac(n))), f"fd00::{n}": ("far", mac_text(mac(n)))}


def test_machines_are_known(rig):
    make_certificates(rig)
    ports = {"a": free_port(), "b": free_port()}
    a = host(rig, "a", ports, is_joined=True)
    add_machine(a, 2)
    b = host(rig, "b", ports, is_joined=True)
    wait_for("what a has", lambda: known(b) == there(2))
    wait_for("a to hear", lambda: b.control.ok("peer.list")["peers"][0]["hears"])
    (peer,) = b.control.ok("peer.list")["peers"]
    assert peer == {"address": ADDRESS["a"], "connect": f"127.0.0.1:{ports['a']}", "synced": True, "hears": True, "networks": 1}, peer
    # A question on b is answered on b; then a frame goes all the way.
    asks, answers = arp(1, mac(5), [10, 0, 0, 5], bytes(6), [10, 0, 0, 2]), arp(2, mac(2), [10, 0, 0, 2], mac(5), [10, 0, 0, 5])
    b.put("v", "m", asks)
    b.settle("v", "m", 1)
    assert b.take("v", "m") == [answers] and b.stat("v")["ports"]["far"]["sent_packets"] == 0
    hello = frame(mac(2), mac(5), b"hello")

    def arrives():
        b.put("v", "m", hello)
        return hello in a.take("v", "m2")

    wait_for("a frame from b to a", arrives)  # the two underlays have to find each other first
    assert not a.take("v", "m"), "a frame for one machine was flooded"
    # Machines come, move and go.
    add_machine(a, 3)
    wait_for("another machine", lambda: known(b) == {**there(2), **there(3)})
    a.control.ok("port.remove", {"vn": "v", "name": "m2"})
    add_machine(b, 2)
    wait_for("the machine that moved", lambda: known(a) == there(2) and known(b) == there(3))
    # Networks without a link to the other host are none of its business; links that come later have what was said before.
    for router, name in ((a, "a"), (b, "b")):
        router.vn("w")
    add_machine(a, 9, "w")
    a.port("w", "far", "vxlan", underlay="net", local=ADDRESS["a"], remote=ADDRESS["b"], vni=9)
    wait_for("two networks", lambda: b.control.ok("peer.list")["peers"][0]["networks"] == 2)
    assert known(b) == there(3) and known(b, "w") == {}
    b.port("w", "far", "vxlan", underlay="net", local=ADDRESS["b"], remote=ADDRESS["a"], vni=9)
    wait_for("what was said before", lambda: known(b, "w") == there(9))
    b.control.ok("port.remove", {"vn": "w", "name": "far"})
    assert known(b, "w") == {}
    a.control.ok("peer.remove", {"address": ADDRESS["b"]})
    wait_for("nothing more", lambda: known(a) == {})
    assert a.end() == 0 and b.end() == 0


def test_killed_and_again(rig):
    """A router is killed and comes again with other machines: what is known afterwards is what there is."""
    make_certificates(rig)
    ports = {"a": free_port(), "b": free_port()}
    b = host(rig, "b", ports)
    for turn in range(2):
        a = host(rig, "a", ports)
        for n in range(2, 4 + turn):
            add_machine(a, 10 * turn + n)
        want = {}
        for n in range(2, 4 + turn):
            want.update(there(10 * turn + n))
        wait_for("what a has", lambda: known(b) == want)
        a.process.kill()
        a.process.wait()
        wait_for("its end to be noticed", lambda: not b.control.ok("peer.list")["peers"][0]["synced"])
        assert known(b) == want, "kept while it may come again"
        os.unlink(rig.path("a.sock"))
    assert b.end() == 0


def test_strangers(rig):
    """Other certificates: of another CA, of another address, or none; and what a peer says that cannot be."""
    make_certificates(rig)
    ports = {"a": free_port(), "b": free_port()}
    a = host(rig, "a", ports)
    add_machine(a, 2)

    def connect(who):
        context = ssl.create_default_context(cafile=rig.path("ca-cert.pem"))
        context.check_hostname = False
        if who:
            context.load_cert_chain(rig.path(f"{who}-cert.pem"), rig.path(f"{who}-key.pem"))
        return context.wrap_socket(socket.create_connection(("127.0.0.1", ports["a"]), 60))

    def hears(who):
        try:
            with connect(who) as s:
                return s.recv(65536)
        except (ssl.SSLError, ConnectionError):
            return b""

    assert b"varp.network" in hears("b")
    for who in ("c", "x", None):
        assert hears(who) == b"", who
    with socket.create_connection(("127.0.0.1", ports["a"]), 60) as s:
        s.sendall(b'{"jsonrpc": "2.0", "id": 1, "method": "vn.list"}\n')
        try:
            assert b"net" not in s.recv(4096)
        except ConnectionError:
            pass
    with connect("b") as s:  # who hears has nothing to ask
        s.sendall(b'{"jsonrpc": "2.0", "id": 1, "method": "router.quit"}\n')
        got = b""
        while b'"id"' not in got:
            got += s.recv(65536)
        assert b"-32601" in got, got
    # In the place of b, with its certificate, somebody who says anything.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(rig.path("b-cert.pem"), rig.path("b-key.pem"))
    good = {"address": "10.0.0.7", "mac": "02:00:00:00:00:07"}

    def note(method, **params):
        return json.dumps({"jsonrpc": "2.0", "method": method, "params": params}).encode() + b"\n"

    bad = [note("varp.network"), note("varp.network", network=7, neighbours=[]), note("varp.network", network="vxlan:4789:8", neighbours=[good]),
           note("varp.network", network="x" * 1000, neighbours=[1, None, {}]), note("vn.remove", name="v"),
           *(note("varp.network", network="vxlan:4789:7", neighbours=wrong)
             for wrong in ([{**good, "mac": "ff:ff:ff:ff:ff:ff"}], [{**good, "address": "x"}], [3], [good, {}], [{**good, "mac": 1}], {"a": 1}))]
    with socket.create_server(("127.0.0.1", ports["b"])) as listening:
        listening.settimeout(60)
        for rubbish in (b"\0" * 100 + b"\n", b"{\n", note("varp.network", network="vxlan:4789:7", neighbours=[good])[:-9]):
            with context.wrap_socket(listening.accept()[0], server_side=True) as s:
                s.sendall(rubbish)
                s.settimeout(60)
                if rubbish[-1:] == b"\n":  # it is what ends the connection; of the others we are
                    while s.recv(65536):
                        pass
        with context.wrap_socket(listening.accept()[0], server_side=True) as s:
            for line in bad:
                s.sendall(line)
            s.sendall(note("varp.network", network="vxlan:4789:7", neighbours=[good, {"address": "10.0.0.2", "mac": "02:00:00:00:00:02"}]) + note("varp.synced"))
            wait_for("the end of what is said", lambda: a.control.ok("peer.list")["peers"][0]["synced"])
            assert set(known(a)) == {"10.0.0.7"}
            assert a.control.ok("vn.list") == ["net", "v"]
            listed = a.control.ok("neighbour.list", {"vn": "v"})["neighbours"]
            assert {"port": "m2", "address": "10.0.0.2", "mac": "02:00:00:00:00:02", "state": "machine"} in listed, "a machine of ours is ours"
    for bad_params, why in (({"address": "x", "connect": "127.0.0.1:1"}, "must be the IPv4"), ({"address": "192.0.2.9", "connect": "x:1"}, "TCP port"),
                            ({"address": "192.0.2.9", "connect": "127.0.0.1:70000"}, "TCP port"), ({"address": ADDRESS["b"], "connect": "[::1]:1"}, "already")):
        assert why in a.control.refused("peer.add", bad_params), bad_params
    assert "CA's certificate" in a.control.refused("peer.serve", {"listen": "127.0.0.1:1", "certificate": text(rig, "a-cert.pem"), "key": text(rig, "a-key.pem"),
                                                                  "ca": "none"})
    a.put("v", "m", frame(BROADCAST, mac(5)))
    a.settle("v", "m", 1)
    assert a.end() == 0


if __name__ == "__main__":
    main([value for name, value in list(globals().items()) if name.startswith("test_")])
