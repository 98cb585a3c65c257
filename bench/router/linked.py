# Links between hosts: packets of 64 bytes (18 of payload, in VXLAN 114) come from one host, are unwrapped, routed in the network that they belong to, wrapped for
# another host, and leave. All of it on one CPU, from memory to nowhere: ours by a port of the kind `source`, the kernel's VXLAN by frames that
# are received by a device of the kind dummy (inject.py) and leave by it, OVS-DPDK's by DPDK's net_pcap, whose frames lie in memory (Debian's
# openvswitch-switch-dpdk; left out where it is not installed). The kernel and OVS route by one entry each, and have one flow.
import os
import signal
import struct
import subprocess
import sys
import time

import ovs
import report
from bench_rig import SECONDS, Router, wait_for
from routed import make_ip4

HERE, FROM, TO = "192.0.2.1", "192.0.2.2", "192.0.2.3"
MAC, ROUTER_MAC = "02:00:00:00:00:a1", "02:00:00:00:00:b1"
INNER_FROM, INNER_TO = 0x0A010001, 0x0A020001  # 10.1.0.1 to 10.2.0.1, each behind a link of its own
FLOWS = 64
KERNEL, OVS = "kernel VXLAN", "OVS-DPDK"


def address(text):
    return int.from_bytes(bytes(map(int, text.split("."))), "big")


def checked(head):
    total = sum(struct.unpack(">10H", head))
    total = (total >> 16) + (total & 0xFFFF)
    return head[:10] + struct.pack(">H", ~(total + (total >> 16)) & 0xFFFF) + head[12:]


def make_frame(flow=0):
    """A packet of 50 bytes in an Ethernet frame of 64, in VXLAN with VNI 7, from the first host."""
    packet = make_ip4(INNER_FROM, INNER_TO)
    inner = bytes.fromhex(ROUTER_MAC.replace(":", "")) + b"\x02\0\0\0\0\x01\x08\0" + packet + struct.pack(">HHHH", 1000 + flow, 2000, 30, 0)
    inner = inner.ljust(64, b"\0")
    payload = struct.pack(">HHHH", 49152 + flow, 4789, 16 + len(inner), 0) + struct.pack(">BxxxI", 8, 7 << 8) + inner
    head = checked(struct.pack(">BBHHHBBHII", 0x45, 0, 20 + len(payload), 0, 0x4000, 64, 17, 0, address(FROM), address(HERE)))
    return bytes.fromhex(MAC.replace(":", "")) + b"\x02\0\0\0\0\x02\x08\0" + head + payload


class Linked:
    """Ours: an underlay, and a network that routes between two links. Stopped but for its turns."""

    def __init__(self, build, folder, cpu):
        self.router = Router(build, folder, cpu)
        ok = self.router.control.ok
        ok("vn.add", {"name": "net", "type": "ip"})
        ok("port.add", {"vn": "net", "name": "vtep", "kind": "vtep"})
        # What comes is without end, so the underlay always has something to do, and a packet costs it less than it costs the network: with
        # equal shares of the CPU the network would have to let go of packets that have been unwrapped.
        ok("vn.add", {"name": "v", "type": "ip", "weight": 1000})
        ok("port.add", {"vn": "net", "name": "up", "kind": "source", "mac": MAC, "addresses": [f"{HERE}/24"],
                        "frames": [make_frame(n).hex() for n in range(FLOWS)]})
        ok("neighbour.add", {"vn": "net", "neighbours": [{"port": "up", "address": TO, "mac": "02:00:00:00:00:03"}]})
        for name, remote, vni, net in (("from", FROM, 7, 1), ("to", TO, 8, 2)):
            ok("port.add", {"vn": "v", "name": name, "kind": "vxlan", "underlay": "net", "local": HERE, "remote": remote, "vni": vni,
                            "mac": ROUTER_MAC, "addresses": [f"10.{net}.0.254/24"]})
        ok("neighbour.add", {"vn": "v", "neighbours": [{"port": "to", "address": "10.2.0.1", "mac": "02:00:00:00:00:04"}]})

    def look(self):
        stats = {vn: self.router.control.ok("vn.stat", {"name": vn}) for vn in ("net", "v")}
        ports = {p["name"]: p for stat in stats.values() for p in stat["ports"]}
        return ports["up"]["sent_packets"], ports

    def rate(self):
        wait_for("packets", lambda: self.look()[0] > 1000)
        first, began = self.look()[0], time.monotonic()
        time.sleep(SECONDS)
        rate = (self.look()[0] - first) / (time.monotonic() - began)
        return rate / 1e6

    def processes(self):
        return [self.router.process]

    def end(self):
        self.router.end()


class Kernel:
    """The kernel's VXLAN and its routing, in a namespace of their own."""

    def __init__(self, cpu):
        self.cpu = cpu
        self.space = f"trivet-bench-{os.getpid()}"
        subprocess.run(["ip", "netns", "add", self.space], check=True)
        vxlan = "type vxlan local {here} dstport 4789 noudpcsum remote".format(here=HERE)
        for line in (f"link add wire address {MAC} type ifb", f"addr add {HERE}/24 dev wire", "link set wire up",
                     f"link add from address {ROUTER_MAC} {vxlan} {FROM} id 7",
                     f"link add to address {ROUTER_MAC} {vxlan} {TO} id 8", "addr add 10.1.0.254/24 dev from", "addr add 10.2.0.254/24 dev to",
                     "link set from up", "link set to up", "neigh add 10.2.0.1 lladdr 02:00:00:00:00:04 dev to"):
            subprocess.run(["ip", "-n", self.space, *line.split()], check=True)
        self.inside("sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward; echo 0 >/proc/sys/net/ipv4/conf/all/rp_filter")

    def inside(self, *command):
        return subprocess.run(["ip", "netns", "exec", self.space, *command], check=True, stdout=subprocess.PIPE, text=True).stdout

    def rate(self):
        inject = os.path.join(os.path.dirname(os.path.abspath(__file__)), "inject.py")
        packets = float(self.inside("taskset", "-c", str(self.cpu), sys.executable, inject, "wire", make_frame().hex(), "wire/statistics/rx_dropped",
                                    str(SECONDS)))
        return packets / 1e6

    def processes(self):
        return []

    def end(self):
        subprocess.run(["ip", "netns", "del", self.space], check=True)


class Ovs(ovs.Ovs):
    """A bridge with the wire, one with the two tunnels, and a flow that routes."""

    counted = ("wire", "p")

    def __init__(self, folder, cpus):
        super().__init__(folder, cpus, "ovs", [make_frame(n) for n in range(FLOWS)])

    def connect(self):
        bridge = ("datapath_type=netdev", "fail-mode=secure")
        self.configure("add-br", "wire", "--", "set", "bridge", "wire", f"other-config:hwaddr={MAC}", *bridge)
        self.configure("add-port", "wire", "p", "--", "set", "interface", "p", "type=dpdk",
                       f"options:dpdk-devargs=net_pcap0,rx_pcap={self.folder}/in.pcap,infinite_rx=1")
        self.configure("add-br", "inner", "--", "set", "bridge", "inner", *bridge)
        for port, remote, vni in (("from", FROM, 7), ("to", TO, 8)):
            self.configure("add-port", "inner", port, "--", "set", "interface", port, "type=vxlan", f"options:remote_ip={remote}",
                           f"options:local_ip={HERE}", f"options:key={vni}", "options:dst_port=4789")
        for words in (["addr", "add", f"{HERE}/24", "dev", "wire"], ["link", "set", "wire", "up"]):
            self.call("ip", "-n", self.space, *words)
        self.call("ovs-ofctl", "add-flow", "wire", "actions=NORMAL")
        self.call("ovs-ofctl", "add-flow", "inner", f"ip,in_port=from,nw_dst=10.2.0.0/16 actions=dec_ttl,mod_dl_src:{ROUTER_MAC},"
                  "mod_dl_dst:02:00:00:00:00:04,output:to")
        (control,) = [name for name in os.listdir(self.folder) if name.startswith("ovs-vswitchd") and name.endswith(".ctl")]
        self.call("ovs-appctl", "-t", os.path.join(self.folder, control), "tnl/neigh/set", "wire", TO, "02:00:00:00:00:03")


def in_turn(who):
    """Stopped but for its turn: its processes are, or it has none between turns."""
    for process in who.processes():
        process.send_signal(signal.SIGCONT)
    rate = who.rate()
    for process in who.processes():
        process.send_signal(signal.SIGSTOP)
    return rate


def all_in_turn(takers, what, rounds):
    """The rates of each, by name; another one begins each round. Ends them."""
    for who in takers.values():
        for process in who.processes():
            process.send_signal(signal.SIGSTOP)
    runs = {who: [] for who in takers}
    for turn in range(rounds):
        order = list(takers)
        for who in order[turn % len(order):] + order[:turn % len(order)]:
            runs[who].append(in_turn(takers[who]))
            print(f"turn {turn + 1} of {rounds}: {what}, {who} {runs[who][-1]:.2f} M packets/s", flush=True)
    for who in takers.values():
        for process in who.processes():
            process.send_signal(signal.SIGCONT)
        who.end()
    return runs


def measure(build, folder, cpus, rounds):
    if os.geteuid():
        print("links between hosts: left out, the kernel's VXLAN needs root", flush=True)
        return []
    takers = {"ours": Linked(build, folder, cpus[-1]), KERNEL: Kernel(cpus[-1])}
    if ovs.has_ovs():
        takers[OVS] = Ovs(folder, cpus)
    else:
        print(f"{OVS}: left out; it needs Debian's openvswitch-switch-dpdk and {ovs.PAGES} free hugepages", flush=True)
    runs = all_in_turn(takers, "links", rounds)
    figures = [report.figure("VXLAN unwrapped, routed, wrapped, 64 bytes", "Mpps", runs["ours"], "higher", 5.0, runs[KERNEL], KERNEL)]
    if OVS in runs:
        figures.append(report.figure("the same", "Mpps", runs["ours"], "higher", 1.3, runs[OVS], OVS))
    return figures
