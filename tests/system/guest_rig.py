# A stock guest for tests of the store: Debian's kernel in QEMU with its own virtio_blk driver, and a script of busybox that says on its
# console what it does.
import json
import os
import re
import subprocess

from store_rig import Skip, wait_for

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
$bb stty sane # waits until the console has sent everything, for which power-off does not
$bb poweroff -f
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
