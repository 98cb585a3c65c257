# Networks of the type ip beside dpdk-testpmd: frames of 64 bytes from memory, to 32768 destinations, are looked up and forwarded between
# two ports (kind `source`, which does what DPDK's net_null does with copy=1); testpmd swaps the addresses of each (macswap) between two
# net_null. Then a hundred networks beside one, and what a thousand cost.
#
# The table is made up: lengths of prefixes as in the tables of today's Internet, places at random, 16 gateways. Each packet goes to
# a random address within a random route of it. Routers wait, stopped, while another one has its turn.
import random
import signal
import statistics
import struct
import sys
import time

import report
from bench_rig import NULLS, SECONDS, Router, run_testpmd

DESTINATIONS = 32768
BULK = 40000  # routes of one request
PEER = "testpmd macswap"
NETWORKS, ROUTES_EACH = 1000, 100
# Of a hundred routes so many are of this length (bgp.potaroo.net: /24 are three of five).
LENGTHS = {24: 60, 23: 9, 22: 11, 21: 4.5, 20: 4, 19: 3, 18: 2, 17: 1.2, 16: 1.4, 15: 0.3, 14: 0.2, 13: 0.1, 12: 0.05}


def text(address):
    return ".".join(map(str, address.to_bytes(4, "big")))


def make_table(rng, n):
    routes = set()
    lengths, weights = list(LENGTHS), list(LENGTHS.values())
    while len(routes) < n:
        for length in rng.choices(lengths, weights, k=n - len(routes)):
            address = rng.randrange(1 << 24, 224 << 24) >> (32 - length) << (32 - length)
            if address >> 24 not in (10, 127):
                routes.add((address, length))
    return sorted(routes, key=lambda route: hash((route, 7)))


def make_destinations(rng, routes, n):
    return [address | rng.getrandbits(32 - length) for address, length in rng.choices(routes, k=n)]


def make_ip4(source, destination):
    head = struct.pack(">BBHHHBBHII", 0x45, 0, 50, 0, 0, 64, 17, 0, source, destination)
    total = sum(struct.unpack(">10H", head))
    total = (total >> 16) + (total & 0xFFFF)
    return head[:10] + struct.pack(">H", ~(total + (total >> 16)) & 0xFFFF) + head[12:]


def add_network(router, name, destinations, buffers):
    """Two ports, half of the frames from each; 16 gateways, half of them behind each."""
    router.control.ok("vn.add", {"name": name, "type": "ip", "buffers": buffers})
    for i, port in enumerate("ab"):
        mac = bytes([2, 0, 0, 0, 0, 0xA0 + i])
        frames = [(mac + b"\x02\0\0\0\0\x01\x08\0" + make_ip4(0x0A000001 + (i << 8), to)).hex() for to in destinations[i::2]]
        router.control.ok("port.add", {"vn": name, "name": port, "kind": "source", "mac": mac.hex(":"), "addresses": [f"10.0.{i}.254/24"],
                                       "frames": frames, "pad_to": 64})
    gateways = [f"10.0.{i % 2}.{i // 2 + 1}" for i in range(16)]
    router.control.ok("neighbour.add", {"vn": name, "neighbours": [{"port": "ab"[i % 2], "address": gateway, "mac": f"02:00:00:00:01:{i:02x}"}
                                                                   for i, gateway in enumerate(gateways)]})
    return gateways


def add_routes(router, name, routes, gateways):
    for i in range(0, len(routes), BULK):
        router.control.ok("route.add", {"vn": name, "routes": [{"prefix": f"{text(address)}/{length}", "via": gateways[(i + k) % len(gateways)]}
                                                               for k, (address, length) in enumerate(routes[i:i + BULK])]})


class Routed:
    """A router with networks that route, stopped but for its turns."""

    def __init__(self, build, folder, cpu, n_networks, n_routes, n_destinations=DESTINATIONS, memory_mb="512"):
        rng = random.Random(20261127)
        routes = make_table(rng, n_routes)
        destinations = make_destinations(rng, routes, n_destinations)
        self.names = [f"n{i}" for i in range(n_networks)]
        self.router = Router(build, folder, cpu, memory_mb=memory_mb)
        share = n_destinations // n_networks
        for i, name in enumerate(self.names):
            gateways = add_network(self.router, name, destinations[i * share:(i + 1) * share], 4096 // n_networks if n_networks < 16 else 256)
            began = time.monotonic()
            add_routes(self.router, name, routes, gateways)
            self.load_s = time.monotonic() - began
        self.table_mb = self.router.control.ok("vn.stat", {"name": self.names[0]})["table_bytes"] / 1e6
        self.router.process.send_signal(signal.SIGSTOP)

    def look(self):
        ports = [p for name in self.names for p in self.router.control.ok("vn.stat", {"name": name})["ports"]]
        return sum(p["sent_packets"] for p in ports), sum(sum(p["drops"].values()) for p in ports)

    def rate(self):
        self.router.process.send_signal(signal.SIGCONT)
        time.sleep(0.3)
        (sent, dropped), began = self.look(), time.monotonic()
        time.sleep(SECONDS)
        (sent_then, dropped_then), seconds = self.look(), time.monotonic() - began
        self.router.process.send_signal(signal.SIGSTOP)
        if dropped_then != dropped:
            sys.exit(f"bench router: {dropped_then - dropped} frames were dropped")
        return (sent_then - sent) / seconds / 1e6

    def end(self):
        self.router.process.send_signal(signal.SIGCONT)
        self.router.end()


def measure_thousand(build, folder, cpu):
    """Resident megabytes of a router with a thousand networks of a hundred routes, and milliseconds for making one of them."""
    router = Router(build, folder, cpu, memory_mb="1024")
    took = []
    routes = make_table(random.Random(1), ROUTES_EACH)
    for n in range(NETWORKS):
        began = time.monotonic()
        router.control.ok("vn.add", {"name": f"n{n}", "type": "ip", "buffers": 256})
        took.append((time.monotonic() - began) * 1e3)
        router.control.ok("port.add", {"vn": f"n{n}", "name": "a", "kind": "ring", "addresses": ["10.0.0.254/24"]})
        add_routes(router, f"n{n}", routes, [f"10.0.0.{i}" for i in range(1, 17)])
    with open(f"/proc/{router.process.pid}/status", encoding="ascii") as f:
        resident_mb = int(f.read().partition("VmRSS:")[2].split()[0]) * 1024 / 1e6
    router.end()
    return resident_mb, statistics.median(took)


def measure(build, folder, cpus, rounds):
    cpu = cpus[-1]
    small = Routed(build, folder, cpu, 1, 1000)
    full = Routed(build, folder, cpu, 1, 900_000)
    one = Routed(build, folder, cpu, 1, ROUTES_EACH, 12800)
    hundred = Routed(build, folder, cpu, 100, ROUTES_EACH, 12800)
    print(f"900000 routes: loaded in {full.load_s:.1f} s, {full.table_mb:.0f} MB of tables", flush=True)
    takers = {"1000 routes": small.rate, "900000 routes": full.rate, PEER: lambda: run_testpmd(folder, cpus, "macswap", NULLS), "1 network": one.rate,
              "100 networks": hundred.rate}
    runs = {who: [] for who in takers}
    for turn in range(rounds):
        order = list(takers)
        for who in order[turn % len(order):] + order[:turn % len(order)]:
            runs[who].append(takers[who]())
            print(f"turn {turn + 1} of {rounds}: {who} {runs[who][-1]:.2f} M packets/s", flush=True)
    for router in (small, full, one, hundred):
        router.end()
    costs = [measure_thousand(build, folder, cpu) for _ in range(min(rounds, 3))]
    what = "the target of networks of the type ip, docs/measurements.md"
    return [report.figure("IPv4, 1000 routes, 64 bytes", "Mpps", runs["1000 routes"], "higher", 0.6, runs[PEER], PEER),
            report.figure("IPv4, 900000 routes, 64 bytes", "Mpps", runs["900000 routes"], "higher", 0.45, runs[PEER], PEER),
            report.figure("100 networks of 100 routes beside 1", "Mpps", runs["100 networks"], "higher", 0.9, runs["1 network"], "1 network"),
            report.figure("1000 networks of 100 routes, resident", "MB", [mb for mb, _ in costs], "lower", 1000, source=what),
            report.figure("making one of 1000 networks", "ms", [ms for _, ms in costs], "lower", 5, source=what)]
