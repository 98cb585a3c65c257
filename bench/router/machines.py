# Machine to machine on one host: two guests, Debian's riscv64 kernel and busybox, 1 vcpu each; TCP in one connection, and packets of UDP that are 64
# bytes on a wire (netload.c, in the guests). Three ways, in turn, all on the same CPUs:
#
# - QEMU's machines (TCG) with a TAP device each on a bridge of the kernel's: what one has without a router. In a namespace of their own.
# - The same machines, by vhost-user and the router, in networks that switch and that route.
# - Our machines, by vhost-user and the router. They have no TAP devices, so what stands beside them are QEMU's with the bridge.
import atexit
import json
import os
import re
import selectors
import shutil
import signal
import subprocess
import sys
import time

import report
from bench_rig import SECONDS, Router, wait_for

BOOT_S = 180
SETTLE_S = 1  # TCP's window opens
ADDRESSES = {"ethernet": ("10.0.0.1", "10.0.0.2"), "ip": ("10.1.0.2", "10.1.0.3")}
PEER = "QEMU, TAP and bridge"
HERE = os.path.dirname(os.path.abspath(__file__))


def mac(n):
    return f"52:54:00:00:00:{n:02x}"


def make_initrd(folder, image):
    """The image's, with netload behind it."""
    root, path = os.path.join(folder, "root"), os.path.join(folder, "initrd")
    os.makedirs(os.path.join(root, "bench"), exist_ok=True)
    subprocess.run(["riscv64-linux-gnu-gcc", "-D_GNU_SOURCE", "-O2", "-static", "-Wall", "-Wextra", "-Werror", "-o", os.path.join(root, "bench", "netload"),
                    os.path.join(HERE, "netload.c")], check=True)
    shutil.copyfile(os.path.join(image, "initrd"), path)
    with open(path, "ab") as out:
        out.write(bytes(-out.tell() % 4))
        subprocess.run(["sh", "-c", "find . | cpio -o -H newc --quiet | gzip"], cwd=root, stdout=out, check=True)
    return path


def with_children(pid):
    """A process and all that it has started."""
    parents = {}
    for other in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{other}/stat", encoding="ascii") as f:
                parents.setdefault(int(f.read().rpartition(")")[2].split()[1]), []).append(int(other))
        except OSError:
            pass  # it has ended
    found = [pid]
    for one in found:
        found += parents.get(one, [])
    return found


class Guest:
    """A machine with its console on standard input and output; stopped but for its turns."""

    def __init__(self, name, command):
        self.name, self.said, self.n = name, b"", 0
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        atexit.register(self.end)  # when a measurement fails
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.process.stdout, selectors.EVENT_READ)

    def wait_for(self, text, seconds=BOOT_S):
        end = time.monotonic() + seconds
        while text.encode() not in self.said:
            if self.selector.select(0.2):
                data = os.read(self.process.stdout.fileno(), 65536)
                if not data:
                    sys.exit(f"bench router: the machine '{self.name}' ended: {self.said[-500:]}")
                self.said += data
            if time.monotonic() > end:
                sys.exit(f"bench router: waited {seconds} s for {text!r} of the machine '{self.name}': {self.said[-500:]}")

    def run(self, command):
        self.n += 1
        self.said = b""
        self.process.stdin.write(f"{command}; echo DO''NE{self.n}.\n".encode())
        self.process.stdin.flush()
        self.wait_for(f"DONE{self.n}.")
        return self.said.decode(errors="replace")

    def signal(self, number):
        for pid in with_children(self.process.pid):
            os.kill(pid, number)

    def end(self):
        if self.process.poll() is None:
            self.signal(signal.SIGKILL)
            self.process.wait(30)


class Pair:
    """Two guests; `command(n)` makes the n-th. network: ethernet or ip."""

    def __init__(self, command, network):
        self.addresses = ADDRESSES[network]
        self.guests = [Guest(str(n), command(n)) for n in (0, 1)]
        for n, guest in enumerate(self.guests):
            guest.wait_for("'poweroff' ends it.")
            if network == "ip":
                guest.run(f"ip addr add {self.addresses[n]}/32 dev eth0; ip link set eth0 up; ip route add 10.1.0.1 dev eth0; "
                          "ip route add 10.1.0.0/24 via 10.1.0.1 dev eth0")
            else:
                guest.run(f"ip addr add {self.addresses[n]}/24 dev eth0; ip link set eth0 up")
        self.guests[1].run("/bench/netload sink 7 >/tmp/sink & until grep -q READY /tmp/sink; do usleep 20000; done")
        self.guests[0].run(f"until ping -c 1 -W 1 {self.addresses[1]} >/dev/null; do :; done")
        self.signal(signal.SIGSTOP)

    def signal(self, number):
        for guest in self.guests:
            guest.signal(number)

    def rates(self):
        """Gbit/s of a stream, thousands of small packets a second."""
        self.signal(signal.SIGCONT)
        self.guests[0].run(f"until ping -c 1 -W 1 {self.addresses[1]} >/dev/null; do :; done")
        rates = self.rate("stream")[0] / 1e9, self.rate("flood")[1] / 1e3
        self.signal(signal.SIGSTOP)
        return rates

    def rate(self, how):
        """(bits, packets) a second that the second one receives."""
        self.guests[0].run(f"/bench/netload {how} {self.addresses[1]} 7 & sleep {SETTLE_S}")
        said = self.guests[1].run(f"/bench/netload rate eth0 {SECONDS}")
        self.guests[0].run("kill $!; wait")
        return tuple(map(int, re.search(r"RATE (\d+) (\d+)", said).groups()))

    def end(self):
        for guest in self.guests:
            guest.end()


def qemu(kernel, initrd, n, net):
    return ["qemu-system-riscv64", "-M", "virt,memory-backend=ram", "-display", "none", "-nodefaults", "-serial", "stdio", "-m", "256M", "-smp", "1",
            "-object", "memory-backend-memfd,id=ram,size=256M,share=on", "-kernel", kernel, "-initrd", initrd, "-append", "console=ttyS0 quiet", *net,
            "-device", f"virtio-net-pci,netdev=n,mac={mac(n)}"]


class Bridge:
    """QEMU's, on a bridge."""

    def __init__(self, kernel, initrd):
        self.space = f"trivet-bench-{os.getpid()}"
        subprocess.run(["ip", "netns", "add", self.space], check=True)
        for line in ("link add br0 type bridge", "link set br0 up", *(f"tuntap add mode tap dev t{n}" for n in (0, 1)),
                     *(f"link set t{n} master br0 up" for n in (0, 1))):
            subprocess.run(["ip", "-n", self.space, *line.split()], check=True)
        self.pair = Pair(lambda n: ["ip", "netns", "exec", self.space, *qemu(kernel, initrd, n, ["-netdev", f"tap,id=n,ifname=t{n},script=no,downscript=no"])],
                         "ethernet")

    def end(self):
        self.pair.end()
        subprocess.run(["ip", "netns", "del", self.space], check=True)


class Routed:
    """By the router, a network of one of the types; QEMU's machines or ours."""

    def __init__(self, build, folder, kernel, initrd, network, is_ours):
        prefix = os.path.join(folder, f"{network}-{'ours' if is_ours else 'qemu'}")
        items = ["--vn", json.dumps({"name": "v", "type": network})]
        for n in (0, 1):
            port = {"vn": "v", "name": f"m{n}", "kind": "vhost", "socket": f"{prefix}{n}.sock"}
            if network == "ip":
                port.update({"machine": {"mac": mac(n), "addresses": [ADDRESSES["ip"][n]]}, "addresses": ["10.1.0.1/32"]})
            items += ["--port", json.dumps(port)]
        self.router = Router(build, folder, sorted(os.sched_getaffinity(0))[-1], *items)

        def command(n):
            socket = f"{prefix}{n}.sock"
            if is_ours:
                return [os.path.join(build, "bin", "trivet"), "run", "--kernel", kernel, "--initrd", initrd, "--memory", "256M", "--append",
                        "console=ttyS0 quiet", "--net", f"{socket},mac={mac(n)}"]
            return qemu(kernel, initrd, n, ["-chardev", f"socket,id=c,path={socket}", "-netdev", "vhost-user,id=n,chardev=c"])

        self.pair = Pair(command, network)

    def end(self):
        self.pair.end()
        self.router.end()


def measure(build, folder, _cpus, rounds):
    if os.geteuid() != 0 or not shutil.which("qemu-system-riscv64") or not shutil.which("riscv64-linux-gnu-gcc"):
        print("machines: left out; needs root, qemu-system-riscv64 and riscv64-linux-gnu-gcc")
        return []
    built = subprocess.run([os.path.join(build, "bin", "trivet"), "image", "build", "busybox", "--json", "--quiet"], stdout=subprocess.PIPE, check=True)
    image = json.loads(built.stdout)["dir"]
    kernel, initrd = os.path.join(image, "kernel"), make_initrd(folder, image)
    ways = {PEER: Bridge(kernel, initrd)}
    for whose in ("QEMU", "our"):
        for network in ADDRESSES:
            ways[f"{whose} machines, {network}"] = Routed(build, folder, kernel, initrd, network, whose == "our")
    runs = {who: [] for who in ways}
    for turn in range(rounds):
        order = list(ways)
        for who in order[turn % len(order):] + order[:turn % len(order)]:
            runs[who].append(ways[who].pair.rates())
            print(f"turn {turn + 1} of {rounds}: {who}: {runs[who][-1][0]:.2f} Gbit/s, {runs[who][-1][1]:.0f} k packets/s", flush=True)
    for way in ways.values():
        way.end()
    return [report.figure(f"{who}, {what}", unit, [run[i] for run in runs[who]], "higher", 1.2, [run[i] for run in runs[PEER]], PEER)
            for i, (what, unit) in enumerate((("TCP", "Gbit/s"), ("64 bytes", "kpps"))) for who in ways if who != PEER]
