#!/usr/bin/env python3
"""trivet net: networks, ports and routes made, shown and taken away; a router and a trivetd that are killed have them again; networks of a
file."""
import atexit
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import xml.etree.ElementTree

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "lib"))
import exposition  # noqa: E402
from command import BUILD, ENV, RUN, TOP, TRIVET, fail, nothing_left, ours, trivet, trivet_json, until, write  # noqa: E402
from router_ip import ping  # noqa: E402


def pid_of(name):
    return [pid for pid, comm in ours().items() if comm == name]


def call(network, method, **params):
    """The router, by trivetd, for what the command does not do: the far ends of rings."""
    request = {"name": network, "method": method, "params": params}
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(os.path.join(RUN, "trivetd.sock"))
        s.sendall(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "net.call", "params": request}).encode() + b"\n")
        answer = json.loads(s.makefile().readline())
    if "error" in answer:
        fail(f"{method}: {answer['error']}")
    return answer["result"]


def refused(*words, says=(), status=2):
    said = trivet("net", *words, status=status).stderr
    missing = [s for s in says if s not in said]
    if missing or said.count("\n") != 1:
        fail(f"trivet net {' '.join(words)}: {said!r} should say {missing}")


def reaches():
    """A frame put into one ring of the switch comes out of the other."""
    frame = (b"\xff" * 6 + bytes.fromhex("020000000001") + b"\x88\xb5" + bytes(46)).hex()
    call("lan", "port.take", port="b")
    call("lan", "port.put", port="a", frames=[frame])
    until("the frame at the other port", lambda: frame in call("lan", "port.take", port="b")["frames"], 60)


# --- made by hand

trivet("net", "list", status=1)
trivet("net", "create", "lan", "--option", "macs=64,weight=50")
refused("create", "lan", says=["'lan'", "already", "trivet net show"])
refused("create", "x", "--type", "token-ring", says=["'token-ring'", "ethernet", "ip"])
refused("create", "x", "--option", "macs=0", says=["network 'x'", "macs", "1 to"])
refused("create", "x", "--option", "colour=red", says=["network 'x'", "colour"])
refused("create", "x", "--prefix", "10.0.0.1/24", says=["network 'x'", "10.0.0.1/24", "no prefix"])
refused("create", "x", "--prefix", "10.0.0.0/24", "--gateway", "10.0.1.1", says=["10.0.1.1", "none of"])
refused("create", "a-name-that-is-too-long", says=["1 to 15"])
refused("show", "x", says=["'x'", "trivet net list"])
refused("attach", "lan", "t", "tap", says=["network 'lan'", "port 't'", "device"])
refused("attach", "lan", "t", "string", says=["port 't'", "string", "vhost"])
refused("routes", "lan", says=["'lan'", "ethernet"], status=1)
refused("detach", "lan", "t", says=["'lan'", "'t'"])
for port in "ab":
    trivet("net", "attach", "lan", port, "ring")
refused("attach", "lan", "a", "ring", says=["'lan'", "'a'", "already"])
machine_socket = trivet_json("net", "attach", "lan", "guest", "vhost", "mac=52:54:00:00:00:01")["socket"]
if not os.path.exists(machine_socket):
    fail(f"no socket at {machine_socket}")
trivet("net", "create", "core", "--type", "ip", "--prefix", "10.0.0.0/24,fd00::/64", "--tenant", "acme")
trivet("net", "attach", "core", "north", "ring", "addresses=10.1.0.1/24")
trivet("net", "route", "core", "add", "10.8.0.0/16", "via=10.1.0.9")
refused("route", "core", "add", "10.9.0.0/16", "via=10.2.0.9", says=["network 'core'", "10.9.0.0/16", "10.2.0.9"])
refused("route", "core", "remove", "10.9.0.0/16", says=["'core'", "10.9.0.0/16"])
listed = {n["name"]: n for n in trivet_json("net", "list")["networks"]}
if sorted(listed) != ["core", "lan"] or listed["core"]["gateways"] != ["10.0.0.1", "fd00::1"] or listed["lan"]["ports"] != 3:
    fail(f"list: {listed}")
routes = {r["prefix"]: r for r in trivet_json("net", "routes", "core")["routes"]}
if routes["10.8.0.0/16"]["via"] != ["10.1.0.9%north"] or "10.9.0.0/16" in routes:
    fail(f"routes: {routes}")
shown = trivet("net", "show", "core").stdout
if not all(s in shown for s in ("tenant acme", "10.0.0.1", "north: ring", "10.8.0.0/16")):
    fail(f"show: {shown}")
reaches()
if "ring" not in trivet("net", "stats", "lan").stdout or trivet_json("net", "stats", "lan")["ports"][0]["received_packets"] < 1:
    fail("stats: " + trivet("net", "stats", "lan").stdout)
trivet("net", "neighbours", "core")
print("ok: networks by hand, and what is refused")

# --- captured, traced, drawn, counted


def blocks(path):
    """The types of a pcapng file's blocks, which must fill it."""
    with open(path, "rb") as f:
        data = f.read()
    at, found = 0, []
    while at < len(data):
        kind, length = struct.unpack_from("=II", data, at)
        if length < 12 or struct.unpack_from("=I", data, at + length - 4)[0] != length:
            fail(f"{path}: a block of {length} bytes at {at}")
        found.append(kind)
        at += length
    return found


captured = os.path.join(TOP, "lan.pcapng")
capture = subprocess.Popen([TRIVET, "net", "capture", "lan", "--output", captured], env=ENV, stderr=subprocess.PIPE, text=True)
until("the capture", lambda: os.path.exists(captured) and os.path.getsize(captured), 60)
refused("capture", "lan", "--output", captured + "2", says=["'lan'", "already"], status=1)
for _ in range(3):
    reaches()
until("packets in the file", lambda: blocks(captured).count(6) >= 6, 60)
capture.send_signal(signal.SIGINT)
if " packets, 0 of them" not in capture.communicate(timeout=60)[1] or capture.returncode not in (0, 130):
    fail(f"capture: exit status {capture.returncode}")
kinds = blocks(captured)
if kinds[0] != 0x0A0D0D0A or kinds[-1] != 5 or kinds.count(6) < 6:
    fail(f"blocks of the capture: {kinds}")
if shutil.which("tshark"):
    seen = subprocess.run(["tshark", "-r", captured, "-T", "fields", "-e", "frame.interface_name", "-e", "eth.type"], capture_output=True,
                          text=True, check=True).stdout.split("\n")
    if not {"a\t0x88b5", "b\t0x88b5"} <= set(seen):
        fail(f"tshark has seen {seen}")
refused("capture", "lan", "--port", "zz", "--output", captured, says=["'lan'", "'zz'"])
refused("capture", "lan", "--count", "few", "--output", captured, says=["'few'"])
waits = trivet("net", "trace", "core", "--from", "north", "--to", "10.1.0.9").stdout
if "ARP" not in waits or "=> waits" not in waits:
    fail(f"trace: {waits}")
if trivet_json("net", "trace", "core", "--from", "north", "--to", "10.77.0.1")["cause"] != "no_route":
    fail("trace of what no route leads to")
refused("trace", "core", "--from", "south", "--to", "10.1.0.9", says=["'core'", "'south'"])
picture = xml.etree.ElementTree.fromstring(trivet("net", "graph").stdout)
words = {t.text for t in picture.iter("{http://www.w3.org/2000/svg}text")}
if not {"core", "lan", "north", "guest", "acme"} <= words:
    fail(f"words of the picture: {words}")
packets = exposition.read(trivet("metrics").stdout)["trivet_network_port_packets_total"]
at_a = [n for labels, n in packets if labels == {"tenant": "", "network": "lan", "port": "a", "direction": "received"}]
if len(at_a) != 1 or at_a[0] < 4:
    fail(f"metrics: {packets}")
print("ok: captured, traced, drawn, counted")

# --- between kernels, over what outlives the router


def cable(name, address, gateway):
    """A veth device that the router has, and its other end in a namespace."""
    space, device = f"trivet-{os.getpid()}-{name}", f"tn{os.getpid()}{name}"
    for command in (["netns", "add", space], ["link", "add", device, "type", "veth", "peer", "name", "eth0", "netns", space],
                    ["link", "set", device, "up"], ["-n", space, "addr", "add", address, "dev", "eth0"],
                    ["-n", space, "link", "set", "eth0", "up"], ["-n", space, "route", "add", "default", "via", gateway]):
        done = subprocess.run(["ip", *command], capture_output=True, text=True, check=False)
        if done.returncode and command[0] == "netns":
            return None, None
        if command[0] == "netns":
            atexit.register(subprocess.run, ["ip", "netns", "del", space], check=False)
        if done.returncode:
            fail(f"ip {' '.join(command)}: {done.stderr}")
    return space, device


spaces = {}
for name, number in (("e", 2), ("w", 3)) if os.geteuid() == 0 else ():
    spaces[name], device = cable(name, f"10.{number}.0.2/24", f"10.{number}.0.1")
    if device:
        trivet("net", "attach", "core", name, "packet", f"device={device}", f"addresses=10.{number}.0.1/24")


def pings():
    return not all(spaces.values()) or not spaces or ping(spaces["e"], "10.3.0.2") == ["echo", "10.3.0.2", "whole"]


if not pings():
    fail("no echo through the router")
if spaces and "10.3.0.2" not in trivet("net", "neighbours", "core").stdout:
    fail("neighbours: " + trivet("net", "neighbours", "core").stdout)
print("ok: between two namespaces" if spaces else "ok: (no namespaces here)")

# --- the router is killed

router = pid_of("trivet-router")[0]
os.kill(router, signal.SIGKILL)
until("another router", lambda: pid_of("trivet-router") not in ([], [router]), 60)
until("the networks again", lambda: all(n["state"] == "up" for n in trivet_json("net", "list")["networks"]), 60)
if {r["prefix"]: r for r in trivet_json("net", "routes", "core")["routes"]}["10.8.0.0/16"] != routes["10.8.0.0/16"]:
    fail("routes after the router was killed")
if not os.path.exists(machine_socket) or not pings():
    fail("after the router was killed")
reaches()
print("ok: kill -9 of the router, its networks are there again")

# --- trivetd is killed; what the router has does not change, what it should not have goes

router = pid_of("trivet-router")[0]
received = trivet_json("net", "stats", "lan")["ports"][0]["received_packets"]
os.kill(pid_of("trivetd")[0], signal.SIGKILL)
until("trivetd gone", lambda: not pid_of("trivetd"))
trivet("net", "list")  # starts it again
until("the networks taken over", lambda: all(n["state"] == "up" for n in trivet_json("net", "list")["networks"]), 60)
if pid_of("trivet-router") != [router] or trivet_json("net", "stats", "lan")["ports"][0]["received_packets"] < received or not pings():
    fail("networks were made anew after trivetd was killed")
trivet("net", "detach", "lan", "guest")
if os.path.exists(machine_socket):
    fail("a socket that is left")
reaches()
trivet("net", "delete", "lan")
for name in spaces:
    trivet("net", "detach", "core", name)
trivet("net", "delete", "core")
nothing_left()
print("ok: kill -9 of trivetd, networks taken over and deleted, nothing left")

# --- those of a file, with a machine that has no place in them

FILE = """
tenants: {acme: }
networks:
  front:
    type: ip
    tenant: acme
    prefixes: [10.0.0.0/24]
    weight: %d
    ports:
      up: {kind: ring, addresses: [10.1.0.1/24]}
    routes:
      - {prefix: 0.0.0.0/0, via: 10.1.0.2}
  lan:
machines:
  one: {kernel: %s, memory: 32M}
"""
KERNEL = os.path.join(BUILD, "tests", "system", "tiny.elf")
if not os.path.exists(KERNEL):
    print("ok: (no guest to bring up here)")
    sys.exit()


def up(weight):
    return {n["name"]: n["result"] for n in trivet_json("up", write("nets.yaml", FILE % (weight, KERNEL)))["networks"]}


def weight_of(network):
    return trivet_json("net", "stats", network)["weight"]


for weight, result in ((100, "created"), (100, "unchanged"), (300, "changed")):
    made = up(weight)
    if made != {"front": result, "lan": "created" if result == "created" else "unchanged"} or weight_of("front") != weight:
        fail(f"up with weight {weight}: {made}, {weight_of('front')}")
if "0.0.0.0/0" not in trivet("net", "routes", "front").stdout:
    fail("routes of the file: " + trivet("net", "routes", "front").stdout)


def received():
    return sum(port["received_packets"] for port in trivet_json("net", "stats", "front")["ports"])


# What nothing was measured of is told, of a network that is made and of one that is changed.
ON_TRUST = "networks:\n  new: {promises: {%s}, ports: {up: {kind: ring, promises: {reserve: 2kpps}}}}\nmachines:\n  one: {kernel: " + KERNEL + ", memory: 32M}\n"
trusted = [[(u["name"], u["promise"]) for u in trivet_json("up", write("trust.yaml", ON_TRUST % said))["unproven"]]
           for said in ("reserve: 1kpps", "reserve: 3kpps")]
if trusted != [[("new", "reserve: 1k packets/s"), ("new/up", "reserve: 2k packets/s")], [("new", "reserve: 3k packets/s")]]:
    fail(f"networks' promises on trust: {trusted}")
trivet("net", "delete", "new")

# Promises are changed with nothing stopped: what was counted stays.
call("front", "port.put", port="up", frames=[(b"\xff" * 12 + bytes(48)).hex()])
until("the frame", lambda: received() == 1)
for promises, shown in (("{limit: 8Mbit/s}", ["limit: 8Mbit/s", "weight: 300"]), ("{reserve: 1kpps}", ["reserve: 1k packets/s", "weight: 300"])):
    changed = trivet_json("up", write("nets.yaml", (FILE % (300, KERNEL)).replace("    ports:\n", f"    promises: {promises}\n    ports:\n")))
    told = {p["name"]: [v["promise"] for v in p["verdicts"]] for p in trivet_json("promises")["promises"]}
    if changed["networks"][0]["result"] != "changed" or told.get("front") != shown or received() != 1 or weight_of("front") != 300:
        fail(f"promises {promises}: {changed}, {told}, {received()} packets")
said = trivet("up", write("nets.yaml", (FILE % (300, KERNEL)).replace("    ports:\n", "    promises: {limit: 8 parsecs}\n    ports:\n")), status=2).stderr
twice = trivet("up", write("nets.yaml", (FILE % (300, KERNEL)).replace("    ports:\n", "    promises: {weight: 50}\n    ports:\n")), status=2).stderr
if "front" not in twice or "weight" not in twice or weight_of("front") != 300 or received() != 1:
    fail(f"two weights: {twice!r}, {weight_of('front')}")
if "front" not in said or "parsecs" not in said:
    fail(f"a promise that means nothing: {said!r}")
said = trivet("up", write("nets.yaml", FILE % (100000, KERNEL)), status=2).stderr
if "front" not in said or "weight" not in said or weight_of("front") != 300:
    fail(f"a change that is refused: {said!r}, {weight_of('front')}")


# A machine's card has promises of its own, which are changed while it runs on: all of a change or none of it.
def card_up(one, two="", status=0):
    text = (FILE % (300, KERNEL)).replace("memory: 32M}", f"memory: 32M, nets: {{lan: {one}}}}}")
    text += f"  two: {{kernel: {KERNEL}, memory: 32M, nets: {{lan: {two}}}}}\n"
    return trivet("up", write("nets.yaml", text), status=status)


def pids():
    return [m["pid"] for m in trivet_json("ps")["machines"]]


def card():
    return [[v["promise"] for v in p["verdicts"]] for p in trivet_json("promises")["promises"] if p["name"] == "lan/one"]


card_up("{promises: {limit: 8Mbit/s}}")
running = pids()
if card() != [["limit: 8Mbit/s"]]:
    fail(f"promises of a card: {trivet_json('promises')}")
said = card_up("{promises: {reserve: 1kpps, weight: 200}}").stdout
if card() != [["reserve: 1k packets/s", "weight: 200"]] or pids() != running or "promises changed" not in said or "on trust" not in said:
    fail(f"other promises of a card: {said!r}, {card()}, {pids()}, {running}")
said = card_up("{promises: {limit: 8 parsecs}}", status=2).stderr
if "one" not in said or "lan" not in said or "parsecs" not in said:
    fail(f"a card's promise that means nothing: {said!r}")
said = card_up("{promises: {limit: 9Mbit/s}}", "{promises: {reserve: 99%}}", status=1).stderr  # the first one's port has agreed by then
if "lan/two" not in said or card() != [["reserve: 1k packets/s", "weight: 200"]] or pids() != running:
    fail(f"a card's promise that is refused: {said!r}, {card()}")
card_up("")
if card() or pids() != running:
    fail(f"promises of a card that were taken back: {card()}")
trivet("down", "--timeout", "0")
if "lan/one: 'reserve: 1k packets/s' is taken on trust" not in card_up("{promises: {reserve: 1kpps}}").stdout:
    fail("a card's promise on trust is not told when its machine starts")
print("ok: promises of a machine's card are shown, changed and taken back while it runs")
trivet("down", "--timeout", "0")
nothing_left()
print("ok: networks of a file are made, changed and removed")
