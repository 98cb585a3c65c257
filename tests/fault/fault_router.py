#!/usr/bin/env python3
import ctypes, os, re, signal, socket, struct, sys, threading, time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "system", "lib"))
from command import BOOT_S, RUN, STATE, fail, nothing_left, ours, skip, trivet, trivet_json, until, use_image, write
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "system"))
from router_rig import run
KILLS = int(os.environ.get("KILLS", "10"))
if os.geteuid(): skip("needs root")
ctypes.CDLL(None, use_errno=True).unshare(0x40000000)
run("ip", "link", "set", "lo", "up")

def pid_of(name):
    return [pid for pid, comm in ours().items() if comm == name]

class Pings:
    def __init__(self, address):
        self.address = address
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        self.socket.settimeout(0.5)
        self.got = []
        self.seq = 0
        self.run = True
        threading.Thread(target=self.send, daemon=True).start()
        threading.Thread(target=self.receive, daemon=True).start()
    def send(self):
        while self.run:
            self.seq = (self.seq + 1) & 0xffff
            body = struct.pack(">HHQ", 77, self.seq, time.monotonic_ns())
            head = struct.pack(">BBH", 8, 0, 0)
            s = sum(struct.unpack(">8H", head + body))
            s = (s & 0xffff) + (s >> 16); s = (s & 0xffff) + (s >> 16)
            try:
                self.socket.sendto(struct.pack(">BBH", 8, 0, ~s & 0xffff) + body, (self.address, 0))
            except OSError as e:
                pass
            time.sleep(0.002)
    def receive(self):
        while self.run:
            try:
                data, who = self.socket.recvfrom(2048)
            except TimeoutError:
                continue
            if who[0] == self.address and data[20] == 0:
                self.got.append((time.monotonic_ns(), struct.unpack(">Q", data[28:36])[0]))

for n in (0, 1):
    run("ip", "link", "add", f"k{n}", "type", "veth", "peer", "name", f"p{n}")
    for d in "kp":
        with open(f"/proc/sys/net/ipv6/conf/{d}{n}/disable_ipv6", "w") as f: f.write("1")
        run("ip", "link", "set", f"{d}{n}", "up")
run("ip", "addr", "add", "10.0.0.9/24", "dev", "k0")
run("ip", "addr", "add", "10.2.0.9/24", "dev", "k1")
run("ip", "route", "add", "10.1.0.0/24", "via", "10.2.0.1")

FILE = """
tenants: {acme: }
networks:
  lan: {ports: {host: {kind: packet, device: p0}}}
  core: {type: ip, prefixes: [10.1.0.0/24], ports: {host: {kind: packet, device: p1, addresses: [10.2.0.1/24]}}}
machines:
  one: {tenant: acme, image: busybox, append: quiet, memory: 128M, nets: {lan: , core: {ip: 10.1.0.2}}}
"""
use_image()
trivet("up", write("nets.yaml", FILE))
until("shell", lambda: "'poweroff' ends it." in trivet("logs", "one").stdout, BOOT_S)
c = socket.socket(socket.AF_UNIX)
c.connect({m["name"]: m for m in trivet_json("ps")["machines"]}["one"]["console"])
c.sendall(b"ip addr add 10.0.0.1/24 dev eth0; ip link set eth0 up; ip addr add 10.1.0.2/32 dev eth1; ip link set eth1 up; ip route add 10.1.0.1 dev eth1; ip route add 10.2.0.0/24 via 10.1.0.1 dev eth1\n")
pings = [Pings("10.0.0.1"), Pings("10.1.0.2")]
until("answers", lambda: all(len(p.got) > 100 for p in pings), 30)
times = [[], []]
for i in range(KILLS):
    old = pid_of("trivet-router")[0]
    t = time.monotonic_ns()
    print("kill at", time.time())
    os.kill(old, signal.SIGKILL)
    def back(p):
        return next((r for r, s in p.got if s > t), None)
    until("answers again", lambda: all(back(p) for p in pings), 60)
    for p, l in zip(pings, times):
        l.append((back(p) - t) / 1e6)
    print([round(l[-1]) for l in times], flush=True)
    if os.environ.get("GAP"): time.sleep(float(os.environ["GAP"]))
for l in times:
    l.sort()
    print("p50 %.0f p90 %.0f max %.0f" % (l[len(l)//2], l[len(l)*9//10], l[-1]))
os.system(f"tail -40 {STATE}/trivetd.log; tail -60 {STATE}/router.log; tail -60 {STATE}/logs/one.log")
for p in pings: p.run = False
trivet("kill", "one"); trivet("down"); nothing_left()
