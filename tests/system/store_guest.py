#!/usr/bin/env python3
# The store with a stock guest: Debian's kernel in QEMU, its own virtio_blk driver, busybox writing, reading back and comparing; a
# disk that grows under it; a store that is killed in the middle.
import json
import os
import re
import signal
import subprocess

from store_rig import Control, Skip, listening_socket, main, wait_for

GUEST = """#!/bin/busybox sh
bb=/bin/busybox
$bb mount -t proc proc /proc
$bb mount -t sysfs sys /sys
$bb mount -t devtmpfs dev /dev
exec </dev/console >/dev/console 2>&1
$bb mkdir -p /tmp
$bb mount -t tmpfs tmp /tmp
$bb modprobe virtio_blk || echo GUEST-FAILED: no driver
until [ -b /dev/vda ]; do $bb usleep 50000; done
sys=/sys/block/vda
echo "GUEST-DISK serial=$($bb cat $sys/serial) sectors=$($bb cat $sys/size) ro=$($bb cat $sys/ro) cache=$($bb cat $sys/queue/write_cache)" \\
     "discard=$($bb cat $sys/queue/discard_max_bytes) queues=$($bb ls $sys/mq | $bb wc -l)"
%s
echo GUEST-END
$bb poweroff -f
"""

VERIFY = """
round=0
while [ $round -lt %d ]; do
    $bb dd if=/dev/urandom of=/tmp/data bs=64k count=64 2>/dev/null
    $bb dd if=/tmp/data of=/dev/vda bs=64k seek=$((round * 64)) conv=fsync 2>/dev/null || echo GUEST-FAILED: write
    echo 3 >/proc/sys/vm/drop_caches
    $bb dd if=/dev/vda of=/tmp/back bs=64k skip=$((round * 64)) count=64 2>/dev/null || echo GUEST-FAILED: read
    a=$($bb md5sum </tmp/data) b=$($bb md5sum </tmp/back)
    [ "$a" = "$b" ] || echo "GUEST-FAILED: round $round: wrote $a, read $b"
    round=$((round + 1))
    echo "GUEST-ROUND $round"
done
"""


def make_initrd(rig, image, script):
    """The image's initrd, and behind it an archive with our own first program: the kernel unpacks both."""
    os.mkdir(rig.path("root"))
    with open(rig.path("root/store-test"), "w", encoding="utf-8") as f:
        f.write(GUEST % script)
    os.chmod(rig.path("root/store-test"), 0o755)
    packed = subprocess.run(["cpio", "-o", "-H", "newc", "--quiet"], input=b"store-test\n", cwd=rig.path("root"), capture_output=True,
                            check=True)
    with open(os.path.join(image, "initrd"), "rb") as f, open(rig.path("initrd"), "wb") as out:
        first = f.read()
        out.write(first + b"\0" * (-len(first) % 4) + packed.stdout)


def boot(rig, script, disk="db", queues=2, options=""):
    trivet = os.path.join(rig.build, "bin", "trivet")
    built = subprocess.run([trivet, "image", "build", "busybox", "--json", "--quiet"], capture_output=True, text=True, check=False)
    if built.returncode:
        raise Skip(f"no guest image: {built.stderr.strip()}")
    image = json.loads(built.stdout)["dir"]
    make_initrd(rig, image, script)
    arguments = ["qemu-system-riscv64", "-nographic", "-no-reboot", "-smp", "2", "-m", "256M", "-machine", "virt,memory-backend=m",
                 "-object", "memory-backend-memfd,id=m,size=256M,share=on", "-kernel", os.path.join(image, "kernel"), "-initrd",
                 rig.path("initrd"), "-append", "console=ttyS0 quiet rdinit=/store-test", "-chardev",
                 f"socket,id=c,path={rig.path(disk + '.sock')},reconnect=1", "-device",
                 f"vhost-user-blk-pci,chardev=c,num-queues={queues}{options}"]
    with open(rig.path("console"), "wb") as console:
        return rig.start(arguments, stdin=subprocess.DEVNULL, stdout=console, stderr=subprocess.STDOUT)


def console(rig):
    with open(rig.path("console"), "rb") as f:
        return f.read().decode(errors="replace").replace("\r", "")


def guest_lines(rig):
    return [line for line in console(rig).splitlines() if "GUEST-" in line]


def finish(rig, qemu):
    wait_for("the guest's end", lambda: qemu.poll() is not None)
    text = console(rig)
    assert "GUEST-END" in text and "GUEST-FAILED" not in text, text[-3000:]
    assert not re.search(r"I/O error|BUG:|Oops|Call Trace", text), text[-3000:]


def write_read_verify(rig):
    rig.store(("db", rig.image("a", 64), ",serial=S-1,queues=2"))
    finish(rig, boot(rig, VERIFY % 3 + "$bb blkdiscard -o 0 -l 4194304 /dev/vda || echo GUEST-FAILED: discard\n"))
    assert f"GUEST-DISK serial=S-1 sectors={64 << 11} ro=0 cache=write back discard={1 << 31} queues=2" in console(rig), guest_lines(rig)
    assert "error" not in rig.log().lower()


def read_only(rig):
    image = rig.image("a", 8)
    rig.store(("db", image, ",read-only"))
    finish(rig, boot(rig, "$bb dd if=/dev/zero of=/dev/vda count=1 2>/dev/null && echo GUEST-FAILED: written\n", queues=1))
    assert "ro=1" in console(rig), guest_lines(rig)


def grows_under_a_guest(rig):
    listen = listening_socket(rig.path("control"))
    rig.store(("db", rig.image("a", 8), ""), extra=("--control", str(listen.fileno())), pass_fds=[listen.fileno()])
    script = f"""
echo GUEST-WAITS
until [ $($bb cat $sys/size) = {24 << 11} ]; do $bb usleep 50000; done
echo GUEST-GROWN
$bb dd if=/dev/urandom of=/tmp/data bs=64k count=1 2>/dev/null
$bb dd if=/tmp/data of=/dev/vda bs=64k seek=383 conv=fsync 2>/dev/null || echo GUEST-FAILED: write
"""
    qemu = boot(rig, script, queues=1)
    wait_for("the guest to wait", lambda: "GUEST-WAITS" in console(rig) or qemu.poll() is not None)
    Control(rig.path("control")).ok("disk.resize", {"name": "db", "size_bytes": 24 << 20})
    finish(rig, qemu)
    assert "GUEST-GROWN" in console(rig), guest_lines(rig)


PACKED = "[ $($bb cut -c35 $sys/device/features) = 1 ] || echo GUEST-FAILED: no packed ring\n"


def store_killed_under_a_guest(rig, script="", options=""):
    disk = ("db", rig.image("a", 64), ",queues=2")
    store = rig.store(disk)
    qemu = boot(rig, script + VERIFY % 8, options=options)
    for n in range(1, 6):
        wait_for("the guest to go on", lambda: f"GUEST-ROUND {n}" in console(rig) or qemu.poll() is not None)
        store.send_signal(signal.SIGKILL)
        store.wait()
        store = rig.store(disk)
    finish(rig, qemu)


def store_killed_under_a_guest_with_packed_rings(rig):
    store_killed_under_a_guest(rig, PACKED, ",packed=on")


main([write_read_verify, read_only, grows_under_a_guest, store_killed_under_a_guest, store_killed_under_a_guest_with_packed_rings])
