#!/usr/bin/env python3
# The store is killed again and again, at any moment, and another one goes on: nothing that was answered is lost, nothing is answered
# twice. By vhost-user over a file and over an overlay, and by NBD with a client that connects anew. How long requests stalled is printed.
import json
import os
import random
import signal
import subprocess
import time

from fault_rig import overlay, serve_nbd, tell_stalls, times
from nbd_load import Load
from store_rig import DEADLINE_S, main, wait_for


def stalls(killed_ns, resumed_ns):
    """From each kill to the first answer after it; a kill before which nothing had resumed belongs to the one before it."""
    found, at = [], 0
    for n, killed in enumerate(killed_ns):
        while at < len(resumed_ns) and resumed_ns[at] < killed:
            at += 1
        following = killed_ns[n + 1] if n + 1 < len(killed_ns) else None
        if at < len(resumed_ns) and (following is None or resumed_ns[at] < following):
            found.append(resumed_ns[at] - killed)
    return found


def killed_under_vhost(rig, what, path, written, seed, within_s=0.03):
    """`written`: the file that changes when the guest writes; within_s: of that the store dies."""
    disk = ("db", path, ",queues=2")
    rng = random.Random(seed)
    killed_ns = []
    store = rig.store(disk)
    driver = rig.driver("verify", "db", "--queues", 2, "--requests", 10**12, "--seed", seed, "--stalls")
    for n in range(times(40, 1000)):
        if n % 4:  # the others may die while they open their image, or in the middle of their greeting
            before = os.stat(written).st_mtime_ns
            wait_for("a write", lambda: os.stat(written).st_mtime_ns != before or driver.poll() is not None or store.poll() is not None)
        time.sleep(rng.random() * within_s)  # anywhere in the middle of it
        assert driver.poll() is None, "the driver found something wrong"
        assert store.poll() is None, "the store ended by itself"
        killed_ns.append(time.monotonic_ns())
        store.kill()
        store.wait()
        rig.processes.remove(store)
        store = rig.store(disk, wait=False)
    driver.send_signal(signal.SIGUSR1)
    out, _ = driver.communicate(timeout=DEADLINE_S)
    assert driver.returncode == 0, "the driver found something wrong"
    result = json.loads(out)
    assert result["submitted"] == result["completed"], result
    assert result["connections"] > len(killed_ns) / 2, result
    tell_stalls(what, stalls(killed_ns, result.get("resumed_ns", [])))


def over_a_file(rig):
    image = rig.image("a.raw", 32)
    killed_under_vhost(rig, "a file", image, image, 5)


def over_an_overlay(rig):
    killed_under_vhost(rig, "an overlay", *overlay(rig, "a", 32), 6)


def over_a_mirror(rig):
    path, leg = rig.path("a.volume"), rig.path("b.leg")
    subprocess.run([os.path.join(rig.build, "bin", "trivet"), "disk", "create", path, "--size", "32M", "--mirror", leg], check=True,
                   stdout=subprocess.DEVNULL)
    killed_under_vhost(rig, "a mirror", path, leg, 8, 0.15)  # it is written to when it is opened as well


def killed_under_nbd(rig, what, path):
    rng = random.Random(9)
    stalled_ns = []
    store = serve_nbd(rig, path)
    load = Load(rig.path("nbd.sock"), seed=9)
    for _ in range(times(40, 1000)):
        for _ in range(rng.randrange(60)):
            load.step()
        load.fill()
        killed_ns = time.monotonic_ns()
        store.kill()
        store.wait()
        rig.processes.remove(store)
        store = serve_nbd(rig, path, wait=False)
        before = load.n_connections
        while load.n_connections == before:  # until it notices
            load.step()
        stalled_ns.append(time.monotonic_ns() - killed_ns)
    load.finish()
    tell_stalls(what, stalled_ns)


def by_nbd_over_a_file(rig):
    killed_under_nbd(rig, "NBD, a file", rig.image("a.raw", 32))


def by_nbd_over_an_overlay(rig):
    killed_under_nbd(rig, "NBD, an overlay", overlay(rig, "a", 32)[0])


main([over_a_file, over_an_overlay, over_a_mirror, by_nbd_over_a_file, by_nbd_over_an_overlay])
