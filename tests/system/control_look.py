#!/usr/bin/env python3
"""trivet top and trivet metrics on machines: the disks by machine and tenant, and however many look, the store is asked once a second."""
import json
import os
import socket
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "lib"))
import exposition  # noqa: E402
from command import ENV, RUN, TRIVET, fail, nothing_left, trivet, trivet_json, until, use_image, write  # noqa: E402

FILE = """
tenants: {acme: {}}
disks:
  one-root: {from: image busybox, path: one-root.raw}
  one-data: {size: 64M, promises: {limit: 5000 iops, weight: 200}}
machines:
  one: {image: busybox, append: quiet trivet.check, memory: 128M, tenant: acme, disks: [one-root, one-data]}
  two: {image: busybox, append: quiet, memory: 64M}
"""


def disks_of(name):
    return {d["name"]: d for m in trivet_json("top", "--once")["machines"] if m["name"] == name for d in m["disks"]}


def metrics():
    return exposition.read(trivet("metrics").stdout)


class Daemon:
    """A connection to trivetd."""

    def __init__(self):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(os.path.join(RUN, "trivetd.sock"))
        self.lines = self.socket.makefile("rb")

    def ask(self):
        self.socket.sendall(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "machine.disks", "params": {"name": "one"}}).encode() + b"\n")

    def at_ns(self):
        return tuple(d["at_ns"] for d in json.loads(self.lines.readline())["result"]["disks"])


use_image()
trivet("up", write("look.yaml", FILE))
until("the guest's files written", lambda: "TRIVET-CHECK ok" in trivet("logs", "one").stdout)
disks = disks_of("one")
data = disks["one-data"]
if set(disks) != {"one-root", "one-data"} or data["writes"] == 0 or "rates" not in data or disks_of("two"):
    fail(f"top: {disks}")
if [v["promise"] for v in data["verdicts"]] != ["limit: 5k iops", "weight: 200"] or data["rates"]["seconds"] <= 0.5:
    fail(f"top of one-data: {data}")
table = trivet("top", "--once").stdout
if not all(word in table for word in ("one.one-data", "limit: 5k iops", "QUEUE", "TENANT", "acme")):
    fail(table)
print("ok: top")

found = metrics()
size = {(l["tenant"], l["machine"], l["disk"]): v for l, v in found["trivet_disk_size_bytes"]}
if size.get(("acme", "one", "one-data")) != 64 << 20 or ("acme", "one", "one-root") not in size or len(size) != 2:
    fail(f"metrics: {size}")
running = {l["machine"]: v for l, v in found["trivet_machine_running"]}
kept = [v for l, v in found["trivet_disk_promise_kept"] if l["disk"] == "one-data"]
cpu = {l["machine"]: v for l, v in found["trivet_machine_cpu_seconds_total"]}
if running != {"one": 1, "two": 1} or len(kept) != 2 or not all(v > 0 for v in cpu.values()):
    fail(f"metrics: {running} {kept} {cpu}")
trivet("kill", "two")
if {l["machine"]: v for l, v in metrics()["trivet_machine_running"]} != {"one": 1, "two": 0}:
    fail("metrics of a machine that does not run")
print("ok: metrics")

# Readings carry the store's own time: of many that ask at once and again and again, all within a second see the same.
daemons = [Daemon() for _ in range(4)]
seen = set()
for _ in range(50):
    for d in daemons:
        d.ask()
    seen |= {d.at_ns() for d in daemons}
ats = sorted(at[0] for at in seen)
if any(b - a < 0.9e9 for a, b in zip(ats, ats[1:])):
    fail(f"the store was read at {ats}")
fast = subprocess.run([TRIVET, "top", "--json", "--interval", "0.05", "--count", "10"], env=ENV, stdout=subprocess.PIPE, text=True, check=True).stdout
texts = fast.replace("}\n{", "}\0{").split("\0")
rates = [[d["rates"] for m in json.loads(t)["machines"] if m["name"] == "one" for d in m["disks"]] for t in texts]
if len(rates) != 10 or any(len(r) != 2 or any(one["seconds"] < 0.9 for one in r) for r in rates):
    fail(f"top twenty times a second: {rates}")
print("ok: the store is read once a second")
trivet("kill", "--all")
trivet("down")
nothing_left()
