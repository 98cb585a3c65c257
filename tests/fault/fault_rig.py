# What the fault campaigns share: the rig of the store's system tests, how long a campaign is, and disks of several kinds. A campaign is
# short in `make test`, and as long as it should be with FAULT_FULL=1, which `make fault` sets.
import json
import os
import socket
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "system"))

from store_rig import wait_for  # noqa: E402

FULL = os.environ.get("FAULT_FULL") == "1"


def times(short, full):
    return full if FULL else short


def overlay(rig, name, megabytes):
    """The volume file of an empty overlay over nothing, and the path of its data."""
    path = rig.path(name + ".volume")
    subprocess.run([os.path.join(rig.build, "bin", "trivet"), "disk", "create", path, "--size", f"{megabytes}M"], check=True,
                   stdout=subprocess.DEVNULL)
    return path, rig.path(name + ".overlay")


def volume_file(rig, name, tree):
    path = rig.path(name + ".volume")
    with open(path, "w", encoding="utf-8") as f:
        json.dump(tree, f)
    return path


def can_talk(path):
    """Somebody listens there; that the socket has its name is not enough."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
        return s.connect_ex(path) == 0


def serve_nbd(rig, path, wait=True):
    """A store with one disk, which NBD clients can have at rig.path("nbd.sock")."""
    sock = rig.path("nbd.sock")
    with open(rig.path("store.log"), "ab") as log:
        store = rig.start([rig.store_program, "--disk", f"name=db,path={path},nbd", "--nbd", f"unix:{sock}"], stderr=log)
    if wait:
        wait_for("the store", lambda: store.poll() is not None or can_talk(sock))
        assert store.poll() is None, rig.log()
    return store


def tell_stalls(what, stalls_ns):
    """Printed, and nowhere asserted."""
    found = sorted(stalls_ns)
    if found:
        print(f"        {what}: {len(found)} kills, requests stalled for p50 {found[len(found) // 2] / 1e6:.0f} ms, max {found[-1] / 1e6:.0f} ms")
