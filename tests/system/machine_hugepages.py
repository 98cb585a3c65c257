#!/usr/bin/env python3
"""A machine of huge pages: it has them all before it starts, its store reads and writes in them, it is saved, loaded and reset in them,
and gives them back; where there are too few it does not start, and says what to do."""
import atexit
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "lib"))
from command import TOP, fail, nothing_left, skip, trivet, until, use_image, write  # noqa: E402
from machine import Machine, image  # noqa: E402

PAGES = "/sys/kernel/mm/hugepages/hugepages-2048kB/"
MACHINE_PAGES = 64
SHELL = "'poweroff' ends it."

FILE = """
disks:
  data: {size: 64M, serial: ONE}
machines:
  one: {image: busybox, append: 'quiet trivet.check', memory: %s, hugepages: true, disks: [data]}
"""


def pages(name="nr_hugepages"):
    with open(PAGES + name) as f:
        return int(f.read())


def set_pages(n):
    with open(PAGES + "nr_hugepages", "w") as f:
        f.write(str(n))


def log():
    return trivet("logs", "one").stdout


use_image()
before = pages()
try:
    set_pages(before + MACHINE_PAGES)
except OSError as e:
    skip(f"no huge pages to be had: {e}")
atexit.register(set_pages, before)
if pages() < before + MACHINE_PAGES:
    skip(f"only {pages()} huge pages are to be had")
free = pages("free_hugepages")

trivet("up", write("one.yaml", FILE % "128M"))
if pages("free_hugepages") != free - MACHINE_PAGES:
    fail(f"{free - pages('free_hugepages')} huge pages were taken")
until("the machine has looked at its disk", lambda: "TRIVET-CHECK ok done" in log())
print("ok: a machine of huge pages, a disk")

# As large as the host has, and one more.
if free == MACHINE_PAGES:
    fewer = trivet("run", "--image", "busybox", "--name", "two", "--memory", "64M", "--hugepages", status=2).stderr
    if "32 huge pages" not in fewer or "vm.nr_hugepages" not in fewer:
        fail("too few huge pages: " + fewer)
odd = trivet("run", "--image", "busybox", "--name", "two", "--memory", "65M", "--hugepages", status=2).stderr
if "multiple of the huge pages' 2M" not in odd:
    fail("half a huge page: " + odd)
print("ok: too few, and half a page")

saved = os.path.join(TOP, "one.saved")
trivet("save", "one", saved)
trivet("kill", "one")
until("the huge pages given back", lambda: pages("free_hugepages") == free, 60)
trivet("restore", "one", saved)
if pages("free_hugepages") != free - MACHINE_PAGES:
    fail(f"after loading {free - pages('free_hugepages')} huge pages are taken")
trivet("stop", "one", "--timeout", "180")
print("ok: saved, loaded and stopped")

trivet("down")
files = image()
m = Machine(files + "/kernel", files + "/initrd", "console=ttyS0 quiet", memory=128 << 20, hugepages=True)
ready = m.wait_for("# ", start=m.wait_for(SHELL))
m.call("machine.reset")
m.wait_for("# ", start=m.wait_for(SHELL, start=ready))
m.call("machine.quit")
m.expect_end(0, "stopped on request")
print("ok: reset in place")

until("the huge pages given back", lambda: pages("free_hugepages") == free, 60)
nothing_left()
print("ok: given back")
