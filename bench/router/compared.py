# A switch and a router beside the others of their kind, in turn and on the same CPU: frames of 64 bytes from memory to nowhere. Ours by ports of the kinds
# `source` and `null`; dpdk-testpmd (macswap) between two net_null; OVS-DPDK from net_pcap, whose frames lie in memory, to net_null; the kernel's
# bridge and forwarding by frames that a device of the kind ifb receives (inject.py) and another one is to send, which counts them as dropped.
#
# The switches know 32 stations; the kernel and OVS meet 1 and 32 of them. The routers have 1000 routes, OVS a flow for all; ours forwards to 32768
# destinations, the kernel and OVS to one and to 32.
import os
import random
import subprocess
import sys
import time

import ovs
import report
from bench_rig import NULLS, SECONDS, Router, run_testpmd, wait_for
from linked import all_in_turn
from promised import HOST, add_switch, station
from routed import Routed, make_ip4, make_table, text

KERNEL, OVS, PEER = "kernel", "OVS-DPDK", "testpmd macswap"
ROUTES, FLOWS = 1000, 32
MAC, GATEWAY_MAC = "02:00:00:00:00:a1", "02:00:00:00:00:02"


def switch_frames():
    return [HOST + station(n) + b"\x88\xb5" + bytes(50) for n in range(FLOWS)]


def routed_frames(routes):
    return [(bytes.fromhex(MAC.replace(":", "")) + b"\x02\0\0\0\0\x01\x08\0" + make_ip4(0x0A010001, address + 1)).ljust(64, b"\0")
            for address, _ in routes[:FLOWS]]


class Switch:
    def __init__(self, build, folder, cpu):
        self.router = Router(build, folder, cpu)
        add_switch(self.router, "v")

    def sent(self):
        return sum(p["sent_packets"] for p in self.router.control.ok("vn.stat", {"name": "v"})["ports"])

    def rate(self):
        wait_for("frames", lambda: self.sent() > 1000)
        first, began = self.sent(), time.monotonic()
        time.sleep(SECONDS)
        return (self.sent() - first) / (time.monotonic() - began) / 1e6

    def processes(self):
        return [self.router.process]

    def end(self):
        self.router.end()


class Kernel:
    """A namespace with a device where frames come from and one where they go to."""

    def __init__(self, cpu, name, frame, lines):
        self.cpu, self.frame, self.space = cpu, frame, f"trivet-bench-{name}-{os.getpid()}"
        subprocess.run(["ip", "netns", "add", self.space], check=True)
        batch = "\n".join([f"link add in address {MAC} type ifb", "link add out type ifb", *lines]) + "\n"
        subprocess.run(["ip", "-n", self.space, "-batch", "-"], input=batch, text=True, check=True)
        self.inside("sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward; echo 0 >/proc/sys/net/ipv4/conf/all/rp_filter")

    def inside(self, *command):
        return subprocess.run(["ip", "netns", "exec", self.space, *command], check=True, stdout=subprocess.PIPE, text=True).stdout

    def rate(self):
        inject = os.path.join(os.path.dirname(os.path.abspath(__file__)), "inject.py")
        return float(self.inside("taskset", "-c", str(self.cpu), sys.executable, inject, "in", self.frame.hex(), "out/statistics/rx_dropped",
                                 str(SECONDS))) / 1e6

    def processes(self):
        return []

    def end(self):
        subprocess.run(["ip", "netns", "del", self.space], check=True)


def kernel_bridge(cpu):
    kernel = Kernel(cpu, "bridge", switch_frames()[0], ["link add br0 type bridge", "link set br0 up", "link set in master br0 up",
                                                         "link set out master br0 up"])
    kernel.inside("bridge", "fdb", "add", HOST.hex(":"), "dev", "out", "master", "static")
    return kernel


def kernel_forwarding(cpu, routes):
    return Kernel(cpu, "forward", routed_frames(routes)[0], [
        "addr add 10.1.0.254/24 dev in", "addr add 10.2.0.254/24 dev out", "link set in up", "link set out up",
        f"neigh add 10.2.0.1 lladdr {GATEWAY_MAC} dev out", *(f"route add {text(a)}/{length} via 10.2.0.1" for a, length in routes)])


class Ovs(ovs.Ovs):
    """One bridge, from net_pcap to net_null."""

    counted = ("br", "out")

    def __init__(self, folder, cpus, name, frames, flow):
        self.flow = flow
        super().__init__(folder, cpus, name, frames)

    def connect(self):
        self.configure("add-br", "br", "--", "set", "bridge", "br", "datapath_type=netdev", "fail-mode=secure")
        for port, args in (("in", f"net_pcap0,rx_pcap={self.folder}/in.pcap,infinite_rx=1"), ("out", "net_null0,no-rx=1")):
            self.configure("add-port", "br", port, "--", "set", "interface", port, "type=dpdk", f"options:dpdk-devargs={args}")
        (control,) = [name for name in os.listdir(self.folder) if name.startswith("ovs-vswitchd") and name.endswith(".ctl")]
        self.call("ovs-appctl", "-t", os.path.join(self.folder, control), "fdb/add", "br", "out", "0", HOST.hex(":"))
        self.call("ovs-ofctl", "add-flow", "br", self.flow)


class OurRouter:
    def __init__(self, build, folder, cpu):
        self.routed = Routed(build, folder, cpu, 1, ROUTES)

    def rate(self):
        return self.routed.rate()

    def processes(self):
        return []  # it stops by itself

    def end(self):
        self.routed.end()


class Testpmd:
    def __init__(self, folder, cpus):
        self.folder, self.cpus = folder, cpus

    def rate(self):
        return run_testpmd(self.folder, self.cpus, "macswap", NULLS)

    def processes(self):
        return []

    def end(self):
        pass


def compare(what, takers, target, rounds):
    runs = all_in_turn(takers, what, rounds)
    others = {who: values for who, values in runs.items() if who not in ("ours", PEER)}
    return report.figure(what, "Mpps", runs["ours"], "higher", target, runs[PEER], PEER, others=others)


def measure(build, folder, cpus, rounds):
    if os.geteuid():
        print("beside the kernel and OVS: left out, needs root", flush=True)
        return []
    cpu, routes = cpus[-1], make_table(random.Random(20261127), ROUTES)
    has_ovs = ovs.has_ovs()
    if not has_ovs:
        print(f"{OVS}: left out; it needs Debian's openvswitch-switch-dpdk and {ovs.PAGES} free hugepages", flush=True)
    takers = {"ours": Switch(build, folder, cpu), PEER: Testpmd(folder, cpus), KERNEL: kernel_bridge(cpu)}
    if has_ovs:
        takers[OVS] = Ovs(folder, cpus, "ovs-switch", switch_frames(), "actions=NORMAL")
    figures = [compare("switch, from memory, 64 bytes", takers, 0.5, rounds)]
    takers = {"ours": OurRouter(build, folder, cpu), PEER: Testpmd(folder, cpus), KERNEL: kernel_forwarding(cpu, routes)}
    if has_ovs:
        wait_for("hugepages of OVS that ended", ovs.has_ovs)
        takers[OVS] = Ovs(folder, cpus, "ovs-router", routed_frames(routes),
                          f"ip,in_port=in actions=dec_ttl,mod_dl_src:{MAC},mod_dl_dst:{GATEWAY_MAC},output:out")
    return figures + [compare("IPv4, 1000 routes, beside others, 64 bytes", takers, 0.6, rounds)]
