#!/usr/bin/env python3
"""The debian image: built by debootstrap, its second stage in a machine of ours; boots to the login, and is a Debian to work with."""
import json
import os
import select
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "lib"))
from command import ENV, STATE, TRIVET, fail, nothing_left, skip, trivet  # noqa: E402

STEP_S = 600  # generous: the host may be busy with the whole suite

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


class Guest:
    """A Debian on our console, logged in as root."""

    def __init__(self, *words):
        command = [TRIVET, "run", "--image", "debian", "--name", "trout", "--cpus", "2", *words]
        self.process = subprocess.Popen(command, env=ENV, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.output = b""
        self.seen = 0  # of the output, what earlier waits have passed
        self.commands = 0
        self.wait_for(b"trout login: ")
        self.type("root\n")
        self.wait_for(b"root@trout:~# ")
        self.type("stty -echo; bind 'set enable-bracketed-paste off'; PS1=; PS2=; export DEBIAN_FRONTEND=noninteractive\n")

    def type(self, text):
        self.process.stdin.write(text.encode())
        self.process.stdin.flush()

    def read(self, seconds):
        """False at the end of the console."""
        if not select.select([self.process.stdout], [], [], seconds)[0]:
            return True
        data = os.read(self.process.stdout.fileno(), 65536)
        self.output += data
        return bool(data)

    def give_up(self, why):
        fail(f"{why}; the end of the console:\n{self.output[-4000:].decode(errors='replace')}")

    def wait_for(self, text):
        """Waits for a text and returns what came before it."""
        deadline = time.monotonic() + STEP_S
        while (at := self.output.find(text, self.seen)) < 0:
            if time.monotonic() > deadline or not self.read(1):
                self.give_up(f"{text} did not come")
        before = self.output[self.seen : at]
        self.seen = at + len(text)
        return before.decode(errors="replace").replace("\r", "")

    def run(self, command, expected=""):
        """Runs a command to its end; it has to end with status 0 and to have said what is expected. Returns what it said."""
        self.commands += 1
        n = self.commands
        self.type(f"echo begin-{n}-$((40 + 2)); {command}\necho end-{n}-$?-$((40 + 2))\n")
        self.wait_for(f"begin-{n}-42\n".replace("\n", "\r\n").encode())
        said = self.wait_for(b"-42\r\n")
        said, _, status = said.rpartition(f"end-{n}-")
        if status != "0" or expected not in said:
            self.give_up(f"'{command}': status {status}, without '{expected}'" if status == "0" else f"'{command}': status {status}")
        return said

    def power_off(self):
        self.type("poweroff\n")
        deadline = time.monotonic() + STEP_S
        while self.read(1):
            if time.monotonic() > deadline:
                self.give_up("it does not power off")
        if self.process.wait(60) != 0:
            self.give_up(f"exit status {self.process.returncode}")


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
before = os.stat(image["dir"] + "/disk.raw").st_mtime_ns

guest = Guest()
print("ok: systemd to the login prompt")
state = guest.run("systemctl is-system-running --wait || systemctl --failed --no-pager; true")
if "running" not in state:
    fail("services have failed: " + state)
guest.run(HELLO, "hello 1.644924066898")
guest.run("python3 -c 'import hashlib, json; print(json.dumps({\"sum\": hashlib.sha256(b\"trivet\").hexdigest()[:16]}))'", '"sum": "e10bfb2dfa942edf"')
print("ok: gcc and python3")
guest.run("apt-get install -qq sqlite3", "Setting up sqlite3")
guest.run("sqlite3 :memory: 'select sum(value) from generate_series(1, 1000)'", "500500")
guest.run("dpkg --audit && dpkg --verify", "")
guest.run("findmnt -no SOURCE,OPTIONS /media/packages | grep -w ro", "/dev/vdb")
kernel = guest.run("journalctl -k -q -p warning --no-pager")
guest.power_off()
for word in (b"Oops", b"BUG:", b"Call Trace", b"rcu_sched"):
    if word in guest.output or word.decode() in kernel:
        guest.give_up(f"the kernel said {word}")
nothing_left()
print("ok: a package from the package disk; powered off")

# The root was a private copy: the image is as it was, and nothing of the run is left.
if os.stat(image["dir"] + "/disk.raw").st_mtime_ns != before or os.listdir(STATE) != ["images"]:
    fail(f"the image or the state folder has changed: {os.listdir(STATE)}")
print("ok: nothing of it stays")

# A root that stays.
root = os.path.join(STATE, "root.raw")
guest = Guest("--disk", root + ",image=debian,size=5G")
guest.run("echo stays >/root/note && df -BG --output=size / | tail -1", "5G")
guest.power_off()
guest = Guest("--disk", root + ",image=debian")
guest.run("cat /root/note", "stays")
guest.power_off()
nothing_left()
print("ok: a root that stays, larger than the image's")
