#!/usr/bin/env python3
"""Every wrong call is one line that names the place and the remedy, exit status 2, and nothing left behind."""
import os
import resource
import socket
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "lib"))
from command import BOOT_S, ENV, RUN, STATE, TOP, TRIVET, fail, nothing_left, trivet, until, use_image, write  # noqa: E402


def wrong(words, *hints, status=2):
    done = trivet(*words, status=status)
    lines = done.stderr.strip().splitlines()
    if len(lines) != 1:
        fail(f"trivet {' '.join(words)}: {len(lines)} lines instead of one:\n{done.stderr}")
    for hint in hints:
        if hint not in lines[0]:
            fail(f"trivet {' '.join(words)}: '{hint}' is not in: {lines[0]}")
    nothing_left()


def wrong_file(text, *hints, command=("config", "check")):
    wrong([*command, write("bad.yaml", text)], *hints)


# the words of the call
wrong(["nonsense"], "nonsense", "--help")
wrong(["run"], "--kernel")
wrong(["run", "--kernel"], "--kernel", "value")
wrong(["run", "--bogus"], "--bogus")
wrong(["run", "--kernel", "/dev/null", "--memory", "12Q"], "12Q", "512M")
wrong(["run", "--kernel", "/dev/null", "--cpus", "0"], "cpus")
wrong(["run", "--kernel", "/dev/null", "--cpus", "many"], "many")
wrong(["run", "--kernel", "/dev/null", "--engine", "abacus"], "abacus", "rv64")
wrong(["run", "--kernel", "/dev/null", "--cpu", "x86-64-v9"], "x86-64-v9", "x86-64-v2")
wrong(["run", "--kernel", "/dev/null", "--engine", "rv64", "--cpu", "x86-64-v2"], "x86-64-v2", "engine 'kvm'")
wrong(["ps", "word"], "word")
wrong(["stop"], "--all")
wrong(["up"], "file")

# missing files, files that are something else, no permission, no memory
kernel = write("kernel", "this is no kernel\n")
disk = write("disk.raw", "\0" * 65536)
wrong(["run", "--kernel", TOP + "/missing"], TOP + "/missing", "no such file")
wrong(["run", "--kernel", TOP], TOP, "no regular file")
wrong(["run", "--kernel", kernel], "is no kernel")
wrong(["run", "--kernel", kernel, "--disk", disk], "is no kernel")
bzimage = write("bzimage", "\0" * 0x202 + "HdrS" + "\0" * 0x1000)
wrong(["run", "--kernel", bzimage, "--engine", "rv64"], "for x86-64", "take engine 'kvm'")
wrong(["run", "--kernel", kernel, "--cpu", "x86-64-v2"], "x86-64-v2", "engine 'kvm'", "not one for x86-64")
wrong(["run", "--image", "busybox-amd64", "--engine", "rv64"], "for x86-64", "'busybox'")
wrong(["run", "--image", "debian-amd64"], "`trivet image build debian-amd64`")
wrong(["run", "--kernel", kernel, "--initrd", TOP + "/missing"], TOP + "/missing")
wrong(["run", "--kernel", kernel, "--disk", TOP + "/missing"], TOP + "/missing", "size")
wrong(["run", "--kernel", kernel, "--disk", TOP], TOP, "neither a file nor a block device")
wrong(["run", "--kernel", kernel, "--disk", disk + ",colour=red"], "colour=red", "read-only")
wrong(["run", "--kernel", kernel, "--net", TOP + "/missing.sock"], TOP + "/missing.sock", "a router must serve")
wrong(["run", "--kernel", kernel, "--net", TOP + "/m.sock,mac=53:54:00:00:00:01"], "53:54:00:00:00:01", "52:54:00:12:34:56")
wrong(["run", "--kernel", kernel, "--net", TOP + "/m.sock,mtu=60"], "net0", "mtu_bytes", "68")
wrong(["run", "--kernel", kernel, "--net", TOP + "/m.sock,colour=red"], "colour=red", "mac=M")
wrong(["run", "--kernel", kernel, "--net", TOP + "/m.sock", "--net", TOP + "/m.sock"], "net0", "net1", "one socket")
wrong(["run", "--kernel", kernel, "--memory", "60T"], "memory", "host")
wrong(["run", "--kernel", kernel, "--restore", kernel, "--memory", "64M"], "saved")
wrong(["up", TOP + "/missing.yaml"], TOP + "/missing.yaml", "no such file")
wrong(["image", "build", "gentoo"], "gentoo", "busybox")
wrong(["image", "build", "busybox", "--mirror", "nowhere"], "nowhere", "URL")
wrong(["ps"], "trivet up", status=1)


disk_file = "disks:\n  d:\n    size: 1M\n    promises:\n      %s\nmachines: {m: {image: busybox, disks: [d]}}\n"
wrong_file(disk_file % "reserve: lots", "bad.yaml:5", "disk 'd'", "lots")
wrong_file(disk_file % "reserve: 20MB/s\n      limit: 10MB/s", "bad.yaml:6", "disk 'd'", "10MB/s")
wrong_file(disk_file % "promise: 20MB/s", "bad.yaml:5", "promise")


def as_nobody(words, *hints, **variables):
    """The same as another user, who may read and write less."""
    env = {**ENV, "TRIVET_RUN_DIR": home + "/run", "TRIVET_STATE_DIR": home + "/state", **variables}
    try:
        done = subprocess.run([TRIVET, *words], env=env, user=65534, group=65534, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              stdin=subprocess.DEVNULL, timeout=BOOT_S)
    except PermissionError:
        print("not tried: another user cannot run the build's programs")  # they lie in a folder that only root may enter
        return
    if done.returncode != 2 or len(done.stderr.splitlines()) != 1 or any(hint not in done.stderr for hint in hints):
        fail(f"trivet {' '.join(words)} as another user: exit status {done.returncode}, {done.stderr}; {hints} were to be in it")
    if os.path.exists(home + "/run"):
        fail(f"trivet {' '.join(words)} as another user: the run folder is left")


if os.geteuid() == 0:
    os.chmod(TOP, 0o755)
    os.chmod(kernel, 0o600)
    home = os.path.join(TOP, "home")
    os.makedirs(home)
    os.chown(home, 65534, 65534)
    image = write("boot", "no kernel\n")  # only its being there counts
    good = write("nobody.yaml", f"machines: {{a: {{kernel: {image}}}}}\n")
    as_nobody(["run", "--kernel", kernel], kernel, "no permission")
    as_nobody(["up", kernel], kernel, "no permission")
    as_nobody(["run", "--kernel", image, "--disk", disk], disk, "no permission")
    as_nobody(["run", "--kernel", image, "--disk", TOP + "/new.raw,size=1M"], TOP, "Permission denied", "another path")
    closed = os.path.join(TOP, "closed")
    os.makedirs(closed, mode=0o755)
    for words in (["run", "--kernel", image], ["up", good]):
        for folder in (closed, closed + "/run"):
            as_nobody(words, folder, "Permission denied", "TRIVET_RUN_DIR", TRIVET_RUN_DIR=folder)
    for words in (["up", good], ["image", "build", "busybox"]):
        as_nobody(words, closed, "Permission denied", "TRIVET_STATE_DIR", TRIVET_STATE_DIR=closed + "/state")

# YAML: the line, the thing, what would be right
machine = "machines:\n  a:\n    kernel: kernel\n"
wrong_file("machines: [", "bad.yaml:2", "not YAML")
wrong_file("", "bad.yaml", "empty")
wrong_file("machines:\n", "bad.yaml:1", "machines", "no value")
wrong_file("tenants:\n  a:\n", "bad.yaml:1", "'machines' is missing")
wrong_file("tenants:\n  \"a\\nb\": {}\n", "bad.yaml:2", "is no name", "letters")
wrong_file("machines:\n  a.1:\n    kernel: kernel\n    memory: lots\n", "bad.yaml:4", "lots", "512M")
wrong_file("machine:\n  a: {}\n", "bad.yaml:1", "'machine'", "machines")
wrong_file("machines:\n  a:\n    kernle: x\n", "bad.yaml:3", "kernle", "kernel")
wrong_file(machine + "    memory: lots\n", "bad.yaml:4", "lots", "512M")
wrong_file(machine + "    memory: [1]\n", "bad.yaml:4", "machines.a.memory", "a single value", "not a list")
wrong_file(machine + "    memory: 1M\n", "bad.yaml:2", "memory", "at least 16M")
wrong_file(machine + "    cpus: 99\n", "bad.yaml:4", "cpus", "1 to 64")
wrong_file(machine + "    disks: [data]\n", "bad.yaml:4", "data")
wrong_file(machine + "    tenant: acme\n", "bad.yaml:4", "acme")
wrong_file(machine + "    restart: sometimes\n", "bad.yaml:4", "restart", "on-failure")
wrong_file(machine + "    networks: [lan]\n", "bad.yaml:4", "'networks'", "nets")
wrong_file("networks:\n  lan:\n    type: ip\n    prefixes: [10.0.0.1/24]\n" + machine, "bad.yaml:2", "network 'lan'", "10.0.0.1/24")
wrong_file("networks:\n  lan: {type: ip}\n" + machine + "    net: lan\n", "bad.yaml:6", "network 'lan'", "'ip'")
wrong_file(machine + "  b:\n    image: gentoo\n", "bad.yaml:5", "gentoo", "busybox")
wrong_file("disks:\n  d: {size: 1M}\n  e:\n    size: 1M\n    queues: 65\n" + machine, "bad.yaml:5", "queues", "1 to 64")
wrong_file("networks:\n  lan:\n    tenant: acme\n" + machine, "bad.yaml:3", "acme", "tenants")
wrong_file("disks:\n  d: {}\n" + machine, "bad.yaml:2", "disk 'd'", "size")
wrong_file("disks:\n  d: {size: 1M}\nmachines:\n  a: {kernel: k, disks: [d]}\n  b: {kernel: k, disks: [d]}\n", "bad.yaml:5", "'d'", "'a'")
wrong_file("machines:\n  a: {kernel: missing}\n", TOP + "/missing", "no such file", command=("up",))
wrong_file("machines:\n  a: {kernel: kernel}\n", "is no kernel", command=("up",))
wrong_file("disks:\n  d: {from: image busybox}\nmachines:\n  a: {kernel: kernel, disks: [d]}\n", "'busybox' is not there",
           "trivet image build", command=("up",))
trivet("config", "check", write("good.yaml", machine))


# no memory: a limit stands for a host that has none left
elf = os.path.join(os.path.dirname(__file__), "..", "fuzz", "corpus", "loader", "elf")
done = subprocess.run([TRIVET, "run", "--kernel", elf, "--memory", "512M"], env=ENV, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                      stderr=subprocess.PIPE, text=True, timeout=BOOT_S,
                      preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (300 << 20, 300 << 20)))
if done.returncode != 2 or len(done.stderr.splitlines()) != 1 or "less memory" not in done.stderr:
    fail(f"no memory: exit status {done.returncode}, {done.stderr}")
nothing_left()


def with_full_disk(tests):
    """Runs them with a state folder on a disk that has no room left."""
    full = os.path.join(TOP, "full")
    os.makedirs(full)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", full], stderr=subprocess.DEVNULL).returncode != 0:
        print("not tried: a full disk, since nothing can be mounted here")
        return
    try:
        os.makedirs(full + "/state")
        with open(full + "/filling", "wb", buffering=0) as filling:
            try:
                while True:
                    filling.write(bytes(4096))
            except OSError:
                pass
        for words in tests:
            done = subprocess.run([TRIVET, *words], env=dict(ENV, TRIVET_STATE_DIR=full + "/state"), stdin=subprocess.DEVNULL,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=BOOT_S)
            if done.returncode != 2 or len(done.stderr.splitlines()) != 1 or "No space left" not in done.stderr \
                    or full not in done.stderr or "TRIVET_STATE_DIR" not in done.stderr:
                fail(f"trivet {' '.join(words)} on a full disk: exit status {done.returncode}, {done.stderr}")
            nothing_left()
    finally:
        subprocess.run(["umount", full], check=True)


whole = write("whole", "no kernel\n")  # only its being there counts
with_full_disk([["up", write("full.yaml", f"machines: {{a: {{kernel: {whole}}}}}\n")], ["image", "build", "busybox", "--quiet"]])

# the port is taken: something that is no trivetd answers on its socket, or has its state
use_image()
os.makedirs(RUN, exist_ok=True)
trivetd = os.path.join(os.path.dirname(TRIVET), "trivetd")
with socket.socket(socket.AF_UNIX) as taken:
    taken.bind(RUN + "/trivetd.sock")
    taken.listen()
    done = subprocess.run([trivetd], env=ENV, stderr=subprocess.PIPE, text=True, timeout=60)
    if done.returncode != 2 or "TRIVET_RUN_DIR" not in done.stderr or len(done.stderr.splitlines()) != 1:
        fail(f"a taken socket: exit status {done.returncode}, {done.stderr}")
    done = trivet("ps", status=2)  # it accepts and never answers; this takes as long as the command waits
    if len(done.stderr.splitlines()) != 1 or RUN + "/trivetd.sock" not in done.stderr or "TRIVET_RUN_DIR" not in done.stderr:
        fail(f"a mute socket: {done.stderr}")
os.unlink(RUN + "/trivetd.sock")
first = subprocess.Popen([trivetd], env=ENV, stderr=subprocess.DEVNULL)
until("trivetd answers", lambda: os.path.exists(RUN + "/trivetd.sock"))
done = subprocess.run([trivetd], env=dict(ENV, TRIVET_RUN_DIR=TOP + "/other"), stderr=subprocess.PIPE, text=True, timeout=60)
if done.returncode != 2 or STATE not in done.stderr:
    fail(f"a second trivetd on the same state: exit status {done.returncode}, {done.stderr}")
trivet("stop", "nobody", status=2)
first.terminate()
if first.wait(60) != 0:
    fail(f"trivetd ended with {first.returncode}")
nothing_left()
print("ok: every wrong call is one line, exit status 2, nothing left behind")
