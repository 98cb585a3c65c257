# What networks are promised, beside others that want everything. On one worker, in the router's own counts:
#
# - A victim that asks for half of its share, beside an aggressor that offers ten times as much as its own and more: cheap packets of 64
#   bytes, dear ones (errors of ICMP, fragments), and such that go to another route each and so empty the caches. The victim's loss is what did
#   not come of what it offers; its latency is what the router tells, beside what it is alone. Then both ask for everything, by weights 1
#   to 3: the error of the shares of the CPU.
# - Two networks of two ports with limits and reserves between 10 Mbit/s and some Gbit/s, over each second of a run.
# - From when a frame is sent to a TAP device, with the router asleep, to when it is read from another one; the same beside aggressors (as root).
import os
import random
import socket
import statistics
import struct
import subprocess
import sys
import time

import report
from bench_rig import SECONDS, Router
from routed import DESTINATIONS, add_network, add_routes, make_destinations, make_table

HOST, ROUTER = b"\x02\0\0\0\0\x09", b"\x02\0\0\0\0\xA0"
AGGRESSORS = ("cheap", "dear", "table-thrashing")
WAKES = 300


def station(n):
    return b"\x02\0\0\0\1" + bytes([n])


def add_switch(router, name, promises="", source_promises="", size=64):
    """A port that always has frames for another one, which takes them all."""
    router.control.ok("vn.add", {"name": name, "promises": promises})
    router.control.ok("port.add", {"vn": name, "name": "sink", "kind": "null", "mac": HOST.hex(":"), "promises": "limit: 1 packets/s"})
    frames = [(HOST + station(n) + b"\x88\xb5" + bytes(size - 14)).hex() for n in range(32)]
    router.control.ok("port.add", {"vn": name, "name": "source", "kind": "source", "frames": frames, "promises": source_promises})


def dear_frames():
    frames = []
    for ttl, length, last in ((1, 60, 9), (64, 1000, 9), (64, 60, 200)):  # time exceeded; five fragments; nobody there
        head = struct.pack(">BBHHHBBH4s4s", 0x45, 0, length, 1, 0, ttl, 17, 0, bytes([10, 0, 0, 2]), bytes([10, 1 if last == 9 else 9, 0, last]))
        total = sum(struct.unpack(">10H", head))
        total = (total >> 16) + (total & 0xFFFF)
        frames.append((ROUTER + HOST + b"\x08\0" + head[:10] + struct.pack(">H", ~(total + (total >> 16)) & 0xFFFF) + head[12:] + bytes(length - 20)).hex())
    return frames


def add_aggressor(router, kind):
    if kind == "cheap":
        add_switch(router, "aggressor")
    elif kind == "dear":
        router.control.ok("vn.add", {"name": "aggressor", "type": "ip", "icmp_errors_per_s": 1_000_000})
        for name, mac, address, mtu in (("in", ROUTER, "10.0.0.1/24", 1500), ("out", b"\x02\0\0\0\0\xA1", "10.1.0.1/24", 220)):
            router.control.ok("port.add", {"vn": "aggressor", "name": name, "kind": "source" if name == "in" else "null", "mac": mac.hex(":"), "mtu": mtu,
                                           "addresses": [address], **({"frames": dear_frames()} if name == "in" else {"promises": "limit: 1 packets/s"})})
        router.control.ok("neighbour.add", {"vn": "aggressor", "neighbours": [
            {"port": "out", "address": "10.1.0.9", "mac": HOST.hex(":")}, {"port": "in", "address": "10.0.0.2", "mac": HOST.hex(":")}]})
    else:
        rng = random.Random(20261127)
        routes = make_table(rng, 200_000)
        gateways = add_network(router, "aggressor", make_destinations(rng, routes, DESTINATIONS), 4096)
        add_routes(router, "aggressor", routes, gateways)


class Interval:
    """What a network had between two looks."""

    def __init__(self, router, name):
        self.router, self.name = router, name
        self.before = self.look()

    def look(self):
        stat = self.router.control.ok("vn.stat", {"name": self.name})
        source = [p for p in stat["ports"] if p["name"] in ("source", "a", "in")][0]
        return time.monotonic(), source["received_packets"], source["received_bytes"] * 8, stat["cycles"], dict(map(tuple, stat["latency"]))

    def end(self):
        then, now = self.before, self.look()
        self.seconds, self.packets, self.bits, self.cycles = (now[i] - then[i] for i in range(4))
        self.latency = {ns: n - then[4].get(ns, 0) for ns, n in now[4].items()}
        return self

    def percentile_us(self, part):
        left = part * sum(self.latency.values())
        for ns, n in sorted(self.latency.items()):
            left -= n
            if left <= 0:
                return ns / 1e3
        return 0.0


def measure_over(router, names, seconds=SECONDS):
    intervals = [Interval(router, name) for name in names]
    time.sleep(seconds)
    return [i.end() for i in intervals]


def run_victim(build, folder, cpu, kind):
    """(loss in %, p99 in us, p99 alone, error of the CPU shares in %)"""
    router = Router(build, folder, cpu)
    add_switch(router, "victim")
    time.sleep(0.2)
    rate = measure_over(router, ["victim"], 0.5)[0]
    offered = int(rate.packets / rate.seconds / 4)  # half of the half that it has beside one other
    router.control.ok("port.promise", {"vn": "victim", "name": "source", "promises": f"limit: {offered} packets/s"})
    alone = measure_over(router, ["victim"])[0]
    add_aggressor(router, kind)
    time.sleep(0.2)
    beside = measure_over(router, ["victim"])[0]
    router.control.ok("port.promise", {"vn": "victim", "name": "source", "promises": ""})
    router.control.ok("vn.promise", {"name": "victim", "promises": "weight: 300"})
    both = measure_over(router, ["victim", "aggressor"])
    router.end()
    share = both[0].cycles / sum(b.cycles for b in both)
    loss = max(0.0, 1 - beside.packets / beside.seconds / (alone.packets / alone.seconds))
    return 100 * loss, beside.percentile_us(0.99), alone.percentile_us(0.99), 100 * abs(share / 0.75 - 1)


def measure_victims(build, folder, cpu, rounds):
    runs = {kind: [] for kind in AGGRESSORS}
    for turn in range(rounds):
        for i in range(len(AGGRESSORS)):
            kind = AGGRESSORS[(turn + i) % len(AGGRESSORS)]
            runs[kind].append(run_victim(build, folder, cpu, kind))
            print(f"turn {turn + 1} of {rounds}: victim beside {kind} packets: loss {runs[kind][-1][0]:.2f} %, p99 {runs[kind][-1][1]:.1f} us, "
                  f"alone {runs[kind][-1][2]:.1f}, error of shares {runs[kind][-1][3]:.2f} %", flush=True)
    figures, what = [], "the targets of promises, docs/measurements.md"
    for kind, rows in runs.items():
        loss, p99, alone, error = map(list, zip(*rows))
        figures += [report.figure(f"victim's loss, aggressor {kind}", "%", loss, "lower", 1, source=what),
                    report.figure(f"victim's p99 in the router, aggressor {kind}", "us", p99, "lower", 2, alone, "alone"),
                    report.figure(f"error of CPU shares, aggressor {kind}", "%", error, "lower", 3, source="ResQ (NSDI'18): 2.9 %")]
    return figures


def measure_bandwidth(build, folder, cpu, rounds):
    """The largest error in any second of limits and reserves, in percent: of each turn one figure for limits, one for reserves."""
    limits, reserves = [], []
    for _ in range(rounds):
        router = Router(build, folder, cpu)
        wanted = {"a": 10, "b": 300, "c": 2000}  # Mbit/s
        for name, rate in wanted.items():
            add_switch(router, name, promises=f"limit: {rate}Mbit/s", size=1000)
        add_switch(router, "flood", "weight: 1000")
        time.sleep(0.5)
        worst = 0.0
        for _ in range(3):
            for name, i in zip(wanted, measure_over(router, wanted, 1)):
                worst = max(worst, 100 * abs(i.bits / i.seconds / 1e6 / wanted[name] - 1))
        limits.append(worst)
        for name, rate in wanted.items():  # beside a flood that has nearly all by weight
            router.control.ok("vn.promise", {"name": name, "promises": f"reserve: {rate}Mbit/s, weight: 1"})
        router.control.ok("vn.promise", {"name": "flood", "promises": "weight: 10000"})
        time.sleep(1)
        worst = 0.0
        for _ in range(3):
            for name, i in zip(wanted, measure_over(router, wanted, 1)):
                worst = max(worst, 100 * max(0.0, 1 - i.bits / i.seconds / 1e6 / wanted[name]))
        reserves.append(worst)
        router.end()
        print(f"limits {limits[-1]:.2f} %, reserves {reserves[-1]:.2f} % off at most in a second", flush=True)
    what = "the targets of promises, docs/measurements.md"
    return [report.figure("limits, largest error over 1 s", "%", limits, "lower", 2, source=what),
            report.figure("reserves, largest lack over 1 s", "%", reserves, "lower", 2, source=what)]


class Taps:
    """A network of two TAP devices, and a socket behind each."""

    def __init__(self, router):
        self.names = [f"tb{end}{os.getpid()}" for end in "ab"]
        router.control.ok("vn.add", {"name": "taps"})
        for name in self.names:
            router.control.ok("port.add", {"vn": "taps", "name": name[2], "kind": "tap", "device": name})
            subprocess.run(["sysctl", "-qw", f"net.ipv6.conf.{name}.disable_ipv6=1"], check=True)  # nothing of the kernel's own
            subprocess.run(["ip", "link", "set", name, "up"], check=True)
        self.ends = [socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x88B5)) for _ in self.names]
        for end, name in zip(self.ends, self.names):
            end.bind((name, 0))
            end.settimeout(10)

    def take(self):
        """The microseconds that each of WAKES frames took, with the router idle in between."""
        took = []
        for n in range(WAKES):
            time.sleep(0.003)
            frame = b"\xff" * 6 + station(1) + b"\x88\xb5" + struct.pack(">I", n) + bytes(46)
            began = time.perf_counter()
            self.ends[0].send(frame)
            while self.ends[1].recv(2048)[14:18] != frame[14:18]:
                pass
            took.append((time.perf_counter() - began) * 1e6)
        return sorted(took)

    def end(self):
        for end in self.ends:
            end.close()


def run_wake(build, folder, cpu):
    """The median and p99 of microseconds from one TAP device to another, through a router that sleeps; its share of the CPU when idle, in %; and p99
    beside each aggressor."""
    router = Router(build, folder, cpu)
    taps = Taps(router)
    took = taps.take()
    time.sleep(0.2)
    first, began = cpu_seconds(router.process.pid), time.monotonic()
    time.sleep(max(SECONDS, 2))
    idle = 100 * (cpu_seconds(router.process.pid) - first) / (time.monotonic() - began)
    beside = {}
    for kind in AGGRESSORS:
        add_aggressor(router, kind)
        time.sleep(0.2)
        beside[kind] = taps.take()[WAKES * 99 // 100]
        router.control.ok("vn.remove", {"name": "aggressor"})
    router.end()
    taps.end()
    return statistics.median(took), took[WAKES * 99 // 100], idle, beside


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as f:
        fields = f.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure_wakes(build, folder, cpu, rounds):
    if os.geteuid() != 0 or not os.path.exists("/dev/net/tun"):
        print("bench router: waking is measured as root, with TAP devices", file=sys.stderr)
        return []
    rows = [run_wake(build, folder, cpu) for _ in range(rounds)]
    for median, p99, idle, beside in rows:
        told = ", ".join(f"{kind} {us:.0f}" for kind, us in beside.items())
        print(f"waking for a frame: {median:.0f} us, p99 {p99:.0f} us, beside packets {told}; idle {idle:.2f} % CPU", flush=True)
    medians, p99s, idles, besides = map(list, zip(*rows))
    what = "the targets of networks, docs/measurements.md"
    return [report.figure("TAP to TAP, router asleep, median", "us", medians, "lower", 100, source=what),
            report.figure("idle, ports that wake it", "% CPU", idles, "lower", 2, source=what),
            *(report.figure(f"TAP to TAP p99, aggressor {kind}", "us", [b[kind] for b in besides], "lower", 2, p99s, "alone") for kind in AGGRESSORS)]


def measure(build, folder, cpus, rounds):
    cpu = cpus[-1]
    return measure_victims(build, folder, cpu, rounds) + measure_bandwidth(build, folder, cpu, rounds) + measure_wakes(build, folder, cpu, rounds)
