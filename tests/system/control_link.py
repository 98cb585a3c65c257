#!/usr/bin/env python3
"""A network on two hosts, each with a trivetd of its own: peers and links as their users state them, by command and by file; stations on both reach
each other, and are known to the other host; again after the connection of the peers was cut, the wire was, and routers and trivetd were killed;
what is wrong is told. The hosts are namespaces of the test's own."""
import atexit
import json
import os
import shutil
import signal
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "lib"))
import command  # noqa: E402
from certificates import certificate  # noqa: E402
from command import TOP, fail, skip, until  # noqa: E402
from router_rig import SEND, SERVE  # noqa: E402

os.environ["PATH"] += ":/usr/sbin:/sbin"
if os.geteuid() != 0:
    skip("needs root, for network namespaces")
for program in ("ip", "nsenter", "certtool"):
    if not shutil.which(program):
        skip(f"there is no {program} here")
PID = os.getpid()
BYTES = 1 << 20
HOSTS = {"a": 1, "b": 2}
OTHER = {"a": "b", "b": "a"}


def ip(*words, may_fail=False):
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode and not may_fail:
        fail(f"ip {' '.join(words)}: {done.stderr}")
    return done


def space(name):
    full = f"trivet-{PID}-{name}"
    if ip("netns", "add", full, may_fail=True).returncode:
        skip("no network namespaces here")
    atexit.register(ip, "netns", "del", full, may_fail=True)
    ip("-n", full, "link", "set", "lo", "up")
    return full


class Host:
    """A namespace with a trivetd: eth0 is its kernel's, where peers connect; eth1 the underlay's, where the router has an address."""

    def __init__(self, name):
        self.name, self.number = name, HOSTS[name]
        self.space = space(name)
        self.run = os.path.join(TOP, name)
        self.env = dict(os.environ, TRIVET_RUN_DIR=self.run, TRIVET_STATE_DIR=os.path.join(TOP, name + "-state"), LC_ALL="C")
        atexit.register(self.clean_up)
        self.guest = space(f"{name}-guest")

    def ours(self):
        command.RUN = self.run
        return command.ours()

    def pid_of(self, comm):
        return [pid for pid, name in self.ours().items() if name == comm]

    def clean_up(self):
        for pid in self.ours():
            os.kill(pid, signal.SIGKILL)

    def trivet(self, *words, status=0):
        done = subprocess.run(["nsenter", f"--net=/run/netns/{self.space}", command.TRIVET, *words], env=self.env, capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, timeout=120, check=False)
        if done.returncode != status:
            fail(f"{self.name}: trivet {' '.join(words)}: exit status {done.returncode} instead of {status}\n{done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    def json(self, *words):
        return json.loads(self.trivet(*words, "--json"))

    def links(self):
        return {link["name"]: link for link in self.json("net", "show", "lan")["links"]}

    def knows(self):
        link = self.links().get("to-" + OTHER[self.name], {})
        return link.get("synced") and link.get("hears")

    def plug(self):
        """The station's port is a TAP device, whose other end goes into the guest's namespace."""
        ip("-n", self.space, "link", "set", "tap0", "netns", self.guest, "name", "eth0")
        ip("-n", self.guest, "link", "set", "eth0", "address", f"02:00:00:00:00:0{self.number}")
        ip("-n", self.guest, "link", "set", "eth0", "mtu", "1450", "up")  # what a link leaves
        ip("-n", self.guest, "addr", "add", f"10.0.0.{self.number}/24", "dev", "eth0")

    def identity(self):
        cert = {key: os.path.join(TOP, f"{name}.pem") for key, name in
                (("certificate", f"{self.name}-cert"), ("key", f"{self.name}-key"), ("ca", "ca-cert"))}
        return {"address": f"192.0.2.{self.number}", "underlay": "net", "listen": f"198.18.0.{self.number}:7471", **cert}

    def peer(self):
        other = HOSTS[OTHER[self.name]]
        return {"address": f"192.0.2.{other}", "connect": f"198.18.0.{other}:7471"}


def words(values):
    return [f"{key}={value}" for key, value in values.items()]


class Rig:
    path = staticmethod(lambda name: os.path.join(TOP, name + ("" if "." in name else ".pem")))


certificate(Rig, "ca", None, "ca", "cert_signing_key")
a, b = (Host(name) for name in HOSTS)
for host in (a, b):
    certificate(Rig, host.name, "ca", "tls_www_server", "tls_www_client", "signing_key", f'ip_address = "192.0.2.{host.number}"')
for wire in ("eth0", "eth1"):
    ip("-n", a.space, "link", "add", wire, "type", "veth", "peer", "name", wire, "netns", b.space)
for host in (a, b):
    ip("-n", host.space, "addr", "add", f"198.18.0.{host.number}/24", "dev", "eth0")
    for wire in ("eth0", "eth1"):
        ip("-n", host.space, "link", "set", wire, "up")

# What is wrong is told, and nothing of it stays.
said = a.trivet("net", "create", "lan", "--link", "vni=7", status=2)
if "'lan'" not in said or "trivet net host" not in said:
    fail(f"a link of a host that is not known: {said}")
for wrong, why in (({"address": "192.0.2"}, "address in the underlay"), ({"underlay": "seventeen-letters-"}, "the name of the network"),
                   ({"listen": "198.18.0.1"}, "TCP port"), ({"colour": "red"}, "'colour'"), ({"ca": __file__}, "certificate")):
    said = a.trivet("net", "host", *words({**a.identity(), **wrong}), status=0 if "ca" in wrong else 2)
    if "ca" in wrong:  # it is the router that reads it, with the first network
        a.trivet("net", "create", "net", "--type", "ip")
        said = until("the router's verdict", lambda: (lambda told: told if "reason" in told else None)(a.trivet("net", "peers", "--json")), 20)
        a.trivet("net", "delete", "net")
    if why not in said:
        fail(f"a host with {wrong}: {said}")
said = a.trivet("net", "host", "address=192.0.2.1", "underlay=net", "listen=198.18.0.1:7471", status=2)
if "go together" not in said:
    fail(f"a host without certificates: {said}")
a.trivet("net", "host", *words(a.identity()))
for wrong, why in (({"address": "192.0.2.1"}, "own address"), ({"address": "fd00::1"}, "family"), ({"connect": "b"}, "TCP port")):
    if why not in (said := a.trivet("net", "peer", "add", "b", *words({**a.peer(), **wrong}), status=2)):
        fail(f"a peer with {wrong}: {said}")
print("ok: what is wrong is told")

# One host is told by commands, the other by a file.
a.trivet("net", "create", "net", "--type", "ip")
a.trivet("net", "attach", "net", "up", "packet", "device=eth1", "addresses=192.0.2.1/24")
a.trivet("net", "attach", "net", "vtep", "vtep")
a.trivet("net", "create", "lan", "--prefix", "10.0.0.0/24", "--link", "vni=7")
if a.links():
    fail(f"links to nobody: {a.links()}")
a.trivet("net", "peer", "add", "b", *words(a.peer()))
if "b" not in a.trivet("net", "peers") or a.links()["to-b"]["remote"] != "192.0.2.2":
    fail(f"the peer: {a.trivet('net', 'peers')} {a.links()}")
for name, why in (("c", "no peer 'c'"), ("b", "")):
    said = a.trivet("net", "create", "more", "--link", f"vni=8,hosts={name}", status=2 if why else 0)
    if why not in said:
        fail(f"a link to {name}: {said}")
if "'more'" not in (said := a.trivet("net", "peer", "remove", "b", status=2)):
    fail(f"a peer that a link names is removed: {said}")
a.trivet("net", "delete", "more")
FILE = f"""
host: {json.dumps({**b.identity(), "peers": {"a": b.peer()}})}
networks:
  lan: {{prefixes: [10.0.0.0/24], link: {{vni: 7, hosts: [a]}}}}
  net: {{type: ip, ports: {{up: {{kind: packet, device: eth1, addresses: [192.0.2.2/24]}}, vtep: {{kind: vtep}}}}}}
machines:
  idle: {{kernel: {os.path.join(command.BUILD, "tests", "system", "tiny.elf")}, memory: 64M}}
"""
path = os.path.join(TOP, "b.yaml")


def try_file(text):
    with open(path, "w", encoding="ascii") as f:
        f.write(text)
    return subprocess.run([command.TRIVET, "config", "check", path], capture_output=True, text=True, check=False)


for old, new, why in (("hosts: [a]", "hosts: [x]", "no peer 'x'"), ("vni: 7, ", "", "'vni'"), ("192.0.2.1", "192.0.2.2", "own address"),
                      ("type: ip", "type: ip, link: {vni: 9}", "ethernet")):
    done = try_file(FILE.replace(old, new))
    if done.returncode != 2 or why not in done.stderr or "b.yaml:" not in done.stderr:
        fail(f"a file with '{new}': {done.stderr}")
if (done := try_file(FILE)).returncode:
    fail(f"config check: {done.stderr}")
b.trivet("up", path)
if [n["result"] for n in b.json("up", path)["networks"]] != ["unchanged"] * 2:
    fail("the same file again is something else")
for host in (a, b):
    host.trivet("net", "attach", "lan", "station", "tap", "device=tap0", f"mac=02:00:00:00:00:0{host.number}", f"addresses=10.0.0.{host.number}")
    host.plug()


def python(where, program, *arguments, **options):
    return subprocess.Popen(["ip", "netns", "exec", where, sys.executable, "-c", program, *map(str, arguments)], stdout=subprocess.PIPE, text=True,
                            **options)


def send(sender, receiver):
    address = f"10.0.0.{receiver.number}"
    server = python(receiver.guest, SERVE, address)
    if server.stdout.readline() != "ready\n":
        fail(f"nobody listens at {address}")
    client = python(sender.guest, SEND, address, BYTES, stderr=subprocess.PIPE)
    try:
        said, wrong = client.communicate(timeout=20)
    except subprocess.TimeoutExpired:
        client.kill()
        said, wrong = "", "it goes on for 20 s"
    server.kill()
    server.wait()
    if said.strip() != str(BYTES):
        stats = "".join(h.trivet("net", "stats", n) + h.trivet("net", "neighbours", n) for h in (sender, receiver) for n in ("net", "lan"))
        fail(f"from {sender.name} to {receiver.name}: {said!r} {wrong}\n{stats}")


def both_know():
    for host in (a, b):
        until(f"the other host's word at {host.name}", host.knows, 60)
        want = (f"10.0.0.{HOSTS[OTHER[host.name]]}", f"to-{OTHER[host.name]}")
        until(f"the other's station at {host.name}",
              lambda: want in [(n["address"], n["port"]) for n in host.json("net", "neighbours", "lan")["neighbours"]], 60)


both_know()
send(a, b)
send(b, a)
if "both know" not in a.trivet("net", "show", "lan") or "both know" not in b.trivet("net", "peers"):
    fail(a.trivet("net", "show", "lan") + b.trivet("net", "peers"))
print("ok: stations on two hosts reach each other, and are known to both")

# The wire between the underlays is cut, and mended: nothing has to be made again.
ip("-n", a.space, "link", "set", "eth1", "down")
ip("-n", a.space, "link", "set", "eth1", "up")
send(a, b)
# A router is killed: the connection of the peers ends at both, and is made again.
router = a.pid_of("trivet-router")[0]
os.kill(router, signal.SIGKILL)
until("another router", lambda: a.pid_of("trivet-router") not in ([], [router]), 60)
until("the networks again", lambda: all(n["state"] == "up" for n in a.json("net", "list")["networks"]), 60)
a.plug()
both_know()
send(b, a)
# trivetd is: the next one takes over what there is, and a router that dies then has it from the record.
os.kill(b.pid_of("trivetd")[0], signal.SIGKILL)
until("trivetd gone", lambda: not b.pid_of("trivetd"))
until("the networks taken over", lambda: all(n["state"] == "up" for n in b.json("net", "list")["networks"]), 60)
both_know()
send(a, b)
router = b.pid_of("trivet-router")[0]
os.kill(router, signal.SIGKILL)
until("another router", lambda: b.pid_of("trivet-router") not in ([], [router]), 60)
until("the networks again", lambda: all(n["state"] == "up" for n in b.json("net", "list")["networks"]), 60)
b.plug()
both_know()
send(a, b)
print("ok: and again after the wire was cut, and routers and trivetd were killed")

# Peers go and come, and links with them; one that has another address is another place.
a.trivet("net", "peer", "remove", "b")
if a.links() or "to-b" in [p["name"] for p in a.json("net", "stats", "lan")["ports"]]:
    fail(f"the link stays: {a.links()}")
until("the loss at the other", lambda: not b.knows(), 60)
a.trivet("net", "peer", "add", "b", *words({**a.peer(), "address": "192.0.2.99"}))
until("the link elsewhere", lambda: [p["remote"] for p in a.json("net", "stats", "lan")["ports"] if p["name"] == "to-b"] == ["192.0.2.99"], 60)
a.trivet("net", "peer", "remove", "b")
a.trivet("net", "peer", "add", "b", *words(a.peer()))
both_know()
send(a, b)
b.trivet("net", "host", *words({**b.identity(), "address": "192.0.2.3"}))  # its links are made anew, from an address that nobody expects
until("the other address", lambda: [p["local"] for p in b.json("net", "stats", "lan")["ports"] if p["name"] == "to-a"] in (["192.0.2.3"], []), 60)
b.trivet("net", "host", *words(b.identity()))
until("the networks again", lambda: all(n["state"] == "up" for n in b.json("net", "list")["networks"]), 60)
b.plug()
both_know()
send(a, b)
print("ok: links come and go with peers")

for host in (a, b):
    host.trivet("down", "--timeout", "1")  # the machine is none that shuts down
    until("our processes gone", lambda: not host.ours(), 60)
    if os.path.exists(host.run) and os.listdir(host.run):
        fail(f"left: {os.listdir(host.run)}")
print("ok: nothing of it stays")
