#!/usr/bin/env python3
"""Two machines on one virtual network: they reach each other and the host's kernel, through a router that is killed in the middle of
it and after one of them was saved and loaded; the guests notice nothing but a pause."""
import atexit
import json
import os
import re
import socket
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "lib"))
from machine import BIN, BOOT_S, Control, Machine, fail, folder, image, started  # noqa: E402

MACS = {"a": "52:54:00:00:00:0a", "b": "52:54:00:00:00:0b"}
KILLS = 2
SPACE = f"trivet-{os.getpid()}-net"  # the router's namespace, where root has a TAP device of the network's
SERVE = """
import hashlib, socket
s = socket.create_server(("10.0.0.3", 7))
print("ready", flush=True)
c, _ = s.accept()
got = hashlib.md5()
while data := c.recv(65536):
    got.update(data)
print(got.hexdigest())
"""

files = image()
room = folder()


def path(name):
    return os.path.join(room, name + ".sock")


def connect(name):
    s = socket.socket(socket.AF_UNIX)
    s.connect(path(name))
    return s


inside = []
if os.geteuid() == 0 and subprocess.run(["ip", "netns", "add", SPACE], capture_output=True, check=False).returncode == 0:
    atexit.register(subprocess.run, ["ip", "netns", "del", SPACE], check=False)
    inside = ["ip", "netns", "exec", SPACE]


def start_router():
    """A router with a port for each machine, and connections to them."""
    ports = [["--port", json.dumps({"vn": "v", "name": n, "kind": "vhost", "socket": path(n), "mac": mac})] for n, mac in MACS.items()]
    if inside:
        ports.append(["--port", json.dumps({"vn": "v", "name": "host", "kind": "tap", "device": "t0"})])
    command = ["trivet-router", "--memory", "256", "--control", path("control"), "--vn", '{"name": "v"}', *sum(ports, [])]
    with open(os.path.join(room, "router.log"), "ab") as log:
        router = subprocess.Popen([*inside, os.path.join(BIN, command[0]), *command[1:]], stderr=log)
    started(router)
    deadline = time.monotonic() + BOOT_S
    while True:
        try:
            return router, {n: connect(n) for n in MACS}
        except OSError:
            if time.monotonic() > deadline or router.poll() is not None:
                with open(os.path.join(room, "router.log"), encoding="utf-8") as log:
                    fail("the router does not come up: " + log.read())


def boot(name, connection, **options):
    cpus = 2 if name == "a" else 1
    return Machine(name=name, memory=128 << 20, cpus=cpus, nets=[("net0", connection, MACS[name], {"mtu_bytes": 1400, "queues": cpus})],
                   **options)


def expect_ping(m, address):
    answer = m.run(f"ping -c 2 -i 0.2 -w 60 {address}")
    if " 0% packet loss" not in answer:
        fail("no answer to a ping: " + answer, m)


def restart(router, machines):
    """Kills the router, and does what a supervisor does then."""
    router.kill()
    router.wait()
    for m in machines:
        m.call("machine.status")
        m.control.wait_notification("net.disconnected")
    router, connections = start_router()
    for m in machines:
        m.call("net.attach", {"name": "net0"}, [connections[m.name].fileno()])
        connections[m.name].close()
    return router


router, connections = start_router()
a, b = machines = [boot(n, connections[n], kernel=files + "/kernel", initrd=files + "/initrd") for n in MACS]
for end in connections.values():
    end.close()
for number, m in enumerate(machines, 1):
    m.wait_for("# ", start=m.wait_for("'poweroff' ends it."))
    m.run(f"ip addr add 10.0.0.{number}/24 dev eth0; ip link set eth0 up")
    shown = m.run("ip link show eth0; cat /sys/class/net/eth0/carrier")
    if MACS[m.name] not in shown or "mtu 1400" not in shown or not re.search(r"^1\r?$", shown, re.M):
        fail("the device is not as it was asked for: " + shown, m)
expect_ping(a, "10.0.0.2")
expect_ping(b, "10.0.0.1")
if a.run("ls /sys/class/net/eth0/queues").count("tx-") != 2:
    fail("two vcpus and two pairs of queues, and not both are used", a)
print("ok: the machines reach each other")

# What a guest has the device sum and cut is done for a port that takes frames as they are on a wire.
a.run("dd if=/dev/urandom of=/tmp/x bs=1M count=1 2>/dev/null")
digest = re.search("[0-9a-f]{32}", a.run("md5sum /tmp/x")).group()
if inside:
    subprocess.run(["sh", "-c", f"ip -n {SPACE} addr add 10.0.0.3/24 dev t0 && ip -n {SPACE} link set t0 up"], check=True)
    server = subprocess.Popen([*inside, sys.executable, "-c", SERVE], stdout=subprocess.PIPE, text=True)
    started(server)
    server.stdout.readline()
    a.run("nc -w 240 10.0.0.3 7 </tmp/x >/dev/null")
    came = server.communicate(timeout=BOOT_S)[0].strip()
    stat = {p["name"]: p for p in Control(path("control")).call("vn.stat", {"name": "v"})["ports"]}
    if came != digest:
        fail(f"another stream came to the host than was sent: {came}, {digest}", a)
    if stat["a"]["received_packets"] > (1 << 20) // 1400 or stat["host"]["sent_packets"] < (1 << 20) // 1400:
        fail(f"the guest did not leave it to the device to cut: {stat}", a)
    print("ok: streams to the host's kernel")

# A stream that goes on until the kills are done: whole and in order at its end.
b.run("mkfifo /tmp/hold; sleep 100000 >/tmp/hold & "  # a listener whose standard input ends says so to the other end, which ends then
      "(nc -l -p 7 </tmp/hold | md5sum; echo REC''EIVED) & until grep -q ':0007 .* 0A ' /proc/net/tcp*; do usleep 20000; done")
a.run("mkfifo /tmp/copy; md5sum </tmp/copy >/tmp/digest & "
      "(while [ ! -e /tmp/stop ]; do cat /tmp/x; done | tee /tmp/copy | nc -w 240 10.0.0.2 7 >/dev/null 2>&1) &\n"
      "sent() { cat /sys/class/net/eth0/statistics/tx_bytes; }")
for _ in range(KILLS):
    a.run("till=$(($(sent) + 1000000)); while [ $(sent) -lt $till ]; do usleep 20000; done")
    router = restart(router, machines)
digest = re.search("[0-9a-f]{32}", a.run("touch /tmp/stop; wait; cat /tmp/digest"))
b.wait_for("RECEIVED")
if not digest or digest.group() not in b.output.decode(errors="replace"):
    fail(f"another stream arrived than was sent, which is {digest and digest.group()}", b)
print(f"ok: {KILLS} routers killed under a stream, nothing of it lost")

# Without a router for so long that the link is said to be down; then one comes.
router.kill()
router.wait()
a.run("while [ $(cat /sys/class/net/eth0/carrier) = 1 ]; do usleep 50000; done")
router = restart(router, machines)
a.run("while [ $(cat /sys/class/net/eth0/carrier) = 0 ]; do usleep 50000; done")
expect_ping(a, "10.0.0.2")
print("ok: the link goes down and comes up with the router")

saved = os.path.join(room, "saved")
with open(saved, "wb") as f:
    b.call("machine.save", {"quit": True}, [f.fileno()])
b.expect_end(0, "saved")
connection = connect("b")
b = boot("b", connection, restore=saved)
connection.close()
b.type("\n")
expect_ping(b, "10.0.0.1")
expect_ping(a, "10.0.0.2")
for m in (a, b):
    m.type("poweroff\n")
    m.expect_end(0, "shutdown")
print("ok: saved and loaded with its network")
