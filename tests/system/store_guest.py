#!/usr/bin/env python3
# The store with a stock guest: busybox writing, reading back and comparing; a disk that grows under it; a store that is killed in the
# middle.
import signal

from guest_rig import boot, console, finish, guest_lines
from store_rig import Control, listening_socket, main, wait_for

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
