# What the router's benchmarks share: a router and dpdk-testpmd, both on one CPU and on ordinary pages.
import atexit
import os
import re
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tests", "system"))
from store_rig import Control

SECONDS = float(os.environ.get("SECONDS_EACH", "2"))
BURST = 32  # frames on their way in each direction
MEMORY_MB = "512"


def wait_for(what, condition):
    end = time.monotonic() + 60
    while not condition():
        if time.monotonic() > end:
            sys.exit(f"bench router: waited 60 s for {what}")
        time.sleep(0.01)


class Router:
    n = 0

    def __init__(self, build, folder, cpu, *items, memory_mb=MEMORY_MB):
        Router.n += 1
        path = os.path.join(folder, f"router{Router.n}.sock")
        self.log = open(os.path.join(folder, f"log{Router.n}"), "wb")
        self.process = subprocess.Popen([os.path.join(build, "bin", "trivet-router"), "--control", path, "--workers", str(cpu), "--no-huge",
                                         "--memory", memory_mb, *items], stderr=self.log)
        atexit.register(self.process.kill)  # when a measurement fails
        wait_for("the router", lambda: os.path.exists(path) or self.process.poll() is not None)
        self.control = Control(path)

    def end(self):
        self.control.ok("router.quit")
        self.process.wait(30)
        self.log.close()


RINGS = ("net_ring0", "net_ring1")
NULLS = ("net_null0,size=64,copy=1", "net_null1,size=64,copy=1")


def run_testpmd(folder, cpus, mode, devices=RINGS):
    """Millions of frames a second that it forwards between two devices."""
    with open(os.path.join(folder, "testpmd.log"), "wb") as log:
        process = subprocess.Popen(
            ["stdbuf", "-oL", "dpdk-testpmd", "--no-huge", "--no-shconf", "-m", MEMORY_MB, "--no-telemetry", "--no-pci", "--file-prefix", "trivet-bench", "--lcores",
             f"0@{cpus[0]},1@{cpus[-1]}", "--vdev", devices[0], "--vdev", devices[1], "--", "-i", f"--forward-mode={mode}", f"--burst={BURST}",
             "--total-num-mbufs=4096"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)

    def received():
        process.stdin.write("show port stats all\n")
        process.stdin.flush()
        counts = []
        while len(counts) < 2:
            line = process.stdout.readline()
            if not line:
                sys.exit("bench router: testpmd ended")
            found = re.search(r"RX-packets: (\d+)", line)
            counts += [int(found.group(1))] if found else []
        return sum(counts)

    process.stdin.write("start tx_first\n")
    wait_for("testpmd's frames going round", lambda: received() > 1000)
    first, began = received(), time.monotonic()
    time.sleep(SECONDS)
    rate = (received() - first) / (time.monotonic() - began)
    process.stdin.write("stop\nquit\n")
    process.stdin.close()
    process.stdout.read()
    process.wait(30)
    return rate / 1e6
