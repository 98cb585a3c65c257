# OVS-DPDK in a namespace of its own, with frames that lie in memory: Debian's openvswitch-switch-dpdk. Who uses it makes its bridges and says where
# what was sent is counted.
import os
import struct
import subprocess
import sys
import time

from bench_rig import SECONDS, wait_for

PROGRAM = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk"
PAGES = 110  # hugepages that it needs; on ordinary ones it does not start


def has_ovs():
    with open("/proc/meminfo", encoding="ascii") as f:
        free = int(f.read().partition("HugePages_Free:")[2].split()[0])
    return os.path.exists(PROGRAM) and free >= PAGES


class Ovs:
    """`connect` makes bridges and flows; in.pcap is in its folder. `counted`: the bridge and the port where frames leave."""

    counted = None

    def __init__(self, folder, cpus, name, frames):
        self.folder = folder = os.path.join(folder, name)
        os.mkdir(folder)
        self.space = f"trivet-bench-{name}-{os.getpid()}"
        self.environment = {**os.environ, "OVS_RUNDIR": folder, "OVS_LOGDIR": folder, "OVS_DBDIR": folder}
        subprocess.run(["ip", "netns", "add", self.space], check=True)
        with open(os.path.join(folder, "in.pcap"), "wb") as f:
            f.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
            f.write(b"".join(struct.pack("<4I", 0, 0, len(frame), len(frame)) + frame for frame in frames))
        self.database = f"unix:{folder}/db.sock"
        self.call("ovsdb-tool", "create", f"{folder}/conf.db", "/usr/share/openvswitch/vswitch.ovsschema")
        self.started = [self.start("ovsdb-server", f"{folder}/conf.db", f"--remote=p{self.database}")]
        wait_for("the database of OVS", lambda: os.path.exists(f"{folder}/db.sock"))
        self.configure("--no-wait", "init")
        self.configure("--no-wait", "set", "Open_vSwitch", ".", "other_config:dpdk-init=true", "other_config:per-port-memory=true",
                       f"other_config:dpdk-extra=--no-pci --no-telemetry --no-shconf --file-prefix=trivet-bench-{name}",
                       f"other_config:pmd-cpu-mask=0x{1 << cpus[-1]:x}", f"other_config:dpdk-lcore-mask=0x{1 << cpus[0]:x}")
        self.started.append(self.start("ip", "netns", "exec", self.space, PROGRAM, self.database))
        self.connect()
        wait_for("packets of OVS", lambda: self.sent() > 1000)

    def connect(self):
        raise NotImplementedError

    def call(self, *command):
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False, timeout=60)
        if done.returncode:
            sys.exit(f"bench router: {' '.join(command)}: {done.stderr}")
        return done.stdout

    def start(self, *command):
        with open(os.path.join(self.folder, "log"), "ab") as log:
            return subprocess.Popen(command, env=self.environment, stderr=log, stdout=log)

    def configure(self, *words):
        self.call("ovs-vsctl", f"--db={self.database}", "--timeout=30", *words)

    def sent(self):
        return int(self.call("ovs-ofctl", "dump-ports", *self.counted).partition("tx pkts=")[2].split(",")[0])

    def rate(self):
        first, began = self.sent(), time.monotonic()
        time.sleep(SECONDS)
        return (self.sent() - first) / (time.monotonic() - began) / 1e6

    def processes(self):
        return self.started

    def end(self):
        for process in reversed(self.started):
            process.terminate()
            process.wait(30)
        subprocess.run(["ip", "netns", "del", self.space], check=True)
