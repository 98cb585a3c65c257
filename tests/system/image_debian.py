#!/usr/bin/env python3
"""The debian image: built by debootstrap, its second stage in a machine of ours; boots to the login, and is a Debian to work with."""
import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "lib"))
from command import ENV, STATE, TRIVET, fail, nothing_left, skip, trivet  # noqa: E402
from debian import Guest, GuestError  # noqa: E402

HELLO = r"""cat >hello.c <<'END'
#include <math.h>
#include <stdio.h>
int main(void)
{
    double sum = 0;
    for (int i = 1; i <= 100000; i++)
        sum += 1 / pow(i, 2);
    printf("hello %.12f\n", sum);
    return 0;
}
END
gcc -O2 -Wall -o hello hello.c -lm && ./hello"""


def boot(*words):
    return Guest("trout", [TRIVET, "run", "--image", "debian", "--name", "trout", "--cpus", "2", *words], env=ENV)


def build():
    """The image, of this host's default state folder, lent to ours."""
    built = subprocess.run([TRIVET, "image", "build", "debian", "--json", "--quiet"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if built.returncode != 0 and "mirror" in built.stderr:
        skip("no mirror of the distribution to be reached: " + built.stderr.strip())
    if built.returncode != 0:
        fail(built.stderr)
    image = json.loads(built.stdout)
    names = {package["name"] for package in image["packages"]}
    if not {"systemd", "gcc", "python3", "apt", "linux-image-" + image["kernel_version"]} <= names:
        fail(f"packages: {sorted(names)}")
    for disk in ("disk.raw", "packages.raw"):
        check = subprocess.run(["/sbin/e2fsck", "-fn", os.path.join(image["dir"], disk)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if check.returncode != 0:
            fail(f"{disk}: " + check.stdout)
    print("ok: built", image["kernel_version"])

    # The second time nothing is asked of anyone.
    os.makedirs(os.path.join(STATE, "images"))
    os.symlink(image["dir"], os.path.join(STATE, "images", "debian"))
    trivet("image", "build", "debian", "--quiet", "--mirror", "http://127.0.0.1:9/debian")
    return image["dir"]


def work_in_it(folder):
    before = os.stat(folder + "/disk.raw").st_mtime_ns
    guest = boot()
    print("ok: systemd to the login prompt")
    state, _ = guest.run("systemctl is-system-running --wait || systemctl --failed --no-pager; true")
    if "running" not in state:
        fail("services have failed: " + state)
    guest.run(HELLO, "hello 1.644924066898")
    guest.run("python3 -c 'import hashlib, json; print(json.dumps({\"sum\": hashlib.sha256(b\"trivet\").hexdigest()[:16]}))'", '"sum": "e10bfb2dfa942edf"')
    print("ok: gcc and python3")
    guest.run("apt-get install -qq sqlite3", "Setting up sqlite3")
    guest.run("sqlite3 :memory: 'select sum(value) from generate_series(1, 1000)'", "500500")
    guest.run("dpkg --audit && dpkg --verify", "")
    guest.run("findmnt -no SOURCE,OPTIONS /media/packages | grep -w ro", "/dev/vdb")
    kernel, _ = guest.run("journalctl -k -q -p warning --no-pager")
    guest.power_off()
    for word in (b"Oops", b"BUG:", b"Call Trace", b"rcu_sched"):
        if word in guest.output or word.decode() in kernel:
            guest.give_up(f"the kernel said {word}")
    nothing_left()
    print("ok: a package from the package disk; powered off")

    # The root was a private copy: the image is as it was, and nothing of the run is left.
    if os.stat(folder + "/disk.raw").st_mtime_ns != before or os.listdir(STATE) != ["images"]:
        fail(f"the image or the state folder has changed: {os.listdir(STATE)}")
    print("ok: nothing of it stays")


def keep_a_root():
    root = os.path.join(STATE, "root.raw")
    guest = boot("--disk", root + ",image=debian,size=5G")
    guest.run("echo stays >/root/note && df -BG --output=size / | tail -1", "5G")
    guest.power_off()
    guest = boot("--disk", root + ",image=debian")
    guest.run("cat /root/note", "stays")
    guest.power_off()
    nothing_left()
    print("ok: a root that stays, larger than the image's")


try:
    work_in_it(build())
    keep_a_root()
except GuestError as e:
    fail(str(e))
