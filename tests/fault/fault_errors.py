#!/usr/bin/env python3
# Disks that fail under a verified load: errors on a part of the requests, requests in another order, a full file system, flushes that
# fail and stay failed, requests that hang. What was answered as done is there, whatever else was not.
import json
import os
import signal
import subprocess

from fault_rig import overlay, serve_nbd, times, volume_file
from nbd_rig import EIO, FLUSH, FUA, WRITE, connect
from store_rig import DEADLINE_S, Skip, listening_socket, main, wait_for

SOME = 20000  # of a million
ERRORS = [{"op": op, "per_million": SOME, "seed": seed, "error": error, **more} for seed, (op, error, more) in enumerate(
    (("read", "EIO", {}), ("write", "EIO", {}), ("write", "ENOSPC", {"part_bytes": 4096}), ("discard", "EIO", {}), ("zero", "EIO", {})))]
OTHER_ORDER = [{"per_million": 200000, "seed": 7, "delay": 1}, {"per_million": 100000, "seed": 8, "delay": 9},
               {"op": "flush", "every": 3, "delay": 4}]


def verify(rig, path, name="db"):
    """A load on a disk that may fail; what its driver has found."""
    store = rig.store((name, path, ",queues=2"), log=name)
    result = rig.driver_result("verify", name, "--queues", 2, "--requests", times(6000, 100000), "--errors")
    assert result["submitted"] == result["completed"], result
    store.terminate()
    assert store.wait(DEADLINE_S) == 0
    return result


def over_file(rig, name, rules):
    return volume_file(rig, name, {"type": "fault", "rules": rules, "over": {"type": "file", "path": rig.image(name + ".raw", 32)}})


def over_overlay(rig, name, rules):
    below = overlay(rig, name + "-below", 32)[0]
    return volume_file(rig, name, {"type": "fault", "rules": rules, "over": {"type": "file", "path": below}})


def below_overlay(rig, name, rules):
    """The overlay's own file fails, its map among the rest."""
    path, data = overlay(rig, name, 32)
    with open(path, encoding="utf-8") as f:
        tree = json.load(f)
    tree["data"] = {"type": "fault", "rules": rules, "over": {"type": "file", "path": data}}
    return volume_file(rig, name, tree)


def errors(rig):
    result = verify(rig, over_file(rig, "a", ERRORS), "a")
    assert result["errors"] > 20 and not result["failed_flushes"], result
    result = verify(rig, over_overlay(rig, "b", ERRORS), "b")
    assert result["errors"] > 20 and not result["failed_flushes"], result
    # Below an overlay's data alone; then of its map as well, of which the flushes tell.
    last = [{**rule, "offset_bytes": 0, "len_bytes": 32 << 20} for rule in ERRORS]
    result = verify(rig, below_overlay(rig, "c", last), "c")
    assert result["errors"] > 20 and not result["failed_flushes"], result
    result = verify(rig, below_overlay(rig, "d", [{"op": "write", "offset_bytes": 32 << 20, "nth": 9, "error": "EIO"}]), "d")
    assert result["failed_flushes"] > 0, result


def other_order(rig):
    for name, path in (("a", over_file(rig, "a", OTHER_ORDER)), ("b", below_overlay(rig, "b", OTHER_ORDER))):
        result = verify(rig, path, name)
        assert not result["errors"], result


def failed_flush_stays_failed(rig):
    rules = [{"op": "flush", "nth": 20, "error": "EIO"}]
    for name, path in (("a", over_file(rig, "a", rules)), ("b", over_overlay(rig, "b", rules)), ("c", below_overlay(rig, "c", rules))):
        result = verify(rig, path, name)
        assert result["failed_flushes"] > 3, result


def failed_flush_by_nbd(rig):
    path = over_file(rig, "a", [{"op": "flush", "nth": 2, "error": "EIO"}])
    serve_nbd(rig, path)
    client = connect(rig, "db")
    assert client.ask(WRITE, 0, 4096, data=b"x" * 4096) == 0
    assert client.ask(FLUSH) == 0
    assert client.ask(FLUSH) == EIO
    other = connect(rig, "db")
    for c in (client, other):
        assert c.ask(FLUSH) == EIO
        assert c.ask(WRITE, 0, 4096, FUA, b"y" * 4096) == EIO
        assert c.ask(WRITE, 0, 4096, data=b"z" * 4096) == 0


def full(rig):
    os.mkdir(rig.path("small"))
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", rig.path("small")], capture_output=True, text=True, check=False)
    if mount.returncode:
        raise Skip(f"a small file system cannot be mounted here: {mount.stderr.strip()}")
    rig.undo.append(["umount", "--lazy", rig.path("small")])
    image = rig.image("small/a", 32)
    result = verify(rig, image, "a")
    assert result["errors"] > 20 and not result["failed_flushes"], result
    os.unlink(image)
    result = verify(rig, overlay(rig, "small/b", 32)[0], "b")
    assert result["errors"] > 20 and not result["failed_flushes"], result


def add_disk(rig, control, rules):
    fd = os.open(rig.image("a.raw", 32), os.O_RDWR)
    listen = listening_socket(rig.path("db.sock"))
    try:
        volume = {"type": "fault", "rules": rules, "over": {"type": "file", "fd": 0}}
        control.ok("disk.add", {"name": "db", "volume": volume, "vhost": 1}, [fd, listen.fileno()])
    finally:
        os.close(fd)
        listen.close()


def held(control):
    return control.ok("disk.stat", {"name": "db"})["volume"]["held"]


def hangs_until_it_is_let_go(rig):
    control, _ = rig.controlled()
    add_disk(rig, control, [{"op": "write", "offset_bytes": 1 << 20, "len_bytes": 1 << 20, "hang": True}])
    driver = rig.driver("verify", "db", "--requests", 10**9)
    wait_for("a request to hang", lambda: held(control) > 0)
    assert "rule 1" in control.refused("disk.faults", {"name": "db", "rules": [{}]})
    assert held(control) > 0
    control.ok("disk.faults", {"name": "db", "rules": []})
    assert held(control) == 0
    driver.send_signal(signal.SIGUSR1)
    out, _ = driver.communicate(timeout=DEADLINE_S)
    result = json.loads(out)
    assert driver.returncode == 0 and result["submitted"] == result["completed"] and not result["errors"], result


def ends_although_it_hangs(rig):
    control, store = rig.controlled()
    add_disk(rig, control, [{"op": "read", "nth": 50, "hang": True}])
    rig.driver("verify", "db", "--requests", 10**9, "--errors")
    wait_for("a request to hang", lambda: held(control) > 0)
    store.terminate()
    assert store.wait(DEADLINE_S) == 0


main([errors, other_order, failed_flush_stays_failed, failed_flush_by_nbd, full, hangs_until_it_is_let_go, ends_although_it_hangs])
