#!/usr/bin/env python3
# Mirrors as a user has them: made by the command, written to by a verifying driver; a leg that fails, is missing, is empty, or was used
# alone; the store killed. In the end all legs hold the same, and what cannot be is refused with what to do.
import json
import os
import signal
import subprocess

from store_rig import DEADLINE_S, listening_socket, main, wait_for

BYTES = 32 << 20


def trivet(rig, *words, status=0):
    done = subprocess.run([os.path.join(rig.build, "bin", "trivet"), *words], capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == status, done.stderr
    return done


def make(rig, n=2):
    """A mirror's volume file, and its legs."""
    os.mkdir(rig.path("other"))
    legs = [rig.path("m.leg")] + [rig.path(f"other/{i}.leg") for i in range(1, n)]
    trivet(rig, "disk", "create", rig.path("m.volume"), "--size", str(BYTES), "--mirror", ",".join(legs[1:]))
    return rig.path("m.volume"), legs


def tree(legs, **more):
    return {"type": "mirror", "volumes": [{"type": "file", "path": leg} if isinstance(leg, str) else leg for leg in legs], **more}


def write_volume(rig, legs, **more):
    path = rig.path("now.volume")
    with open(path, "w", encoding="utf-8") as f:
        json.dump(tree(legs, **more), f)
    return path


def failing(leg, *rules):
    return {"type": "fault", "rules": list(rules), "over": {"type": "file", "path": leg}}


def verify(rig, path, requests, seed, *more):
    """A load on the disk in a store of its own, which ends well."""
    store = rig.store(("m", path, ",queues=2"))
    result = rig.driver_result("verify", "m", "--queues", 2, "--requests", requests, "--seed", seed, *more)
    assert result["submitted"] == result["completed"], result
    store.terminate()
    assert store.wait(DEADLINE_S) == 0
    return result


def stat(rig, path):
    return json.loads(trivet(rig, "disk", "stat", path, "--json").stdout)["volume"]


def states(volume):
    return [leg["state"] for leg in volume["volumes"]]


def make_equal(rig, path):
    """In the background, without anybody who uses it."""
    fds = []
    with open(path, encoding="utf-8") as f:
        volume = json.load(f)
    for leg in volume["volumes"]:
        leg["fd"] = len(fds)
        fds.append(os.open(os.path.join(rig.dir, leg.pop("path")), os.O_RDWR))
    for name in ("control", "equal.sock"):
        if os.path.exists(rig.path(name)):
            os.unlink(rig.path(name))
    listen = listening_socket(rig.path("equal.sock"))
    control, store = rig.controlled("--scheduler", "oios")
    control.ok("disk.add", {"name": "m", "volume": volume, "vhost": len(fds), "promises": "limit: 400 iops"}, [*fds, listen.fileno()])
    for fd in fds:
        os.close(fd)
    listen.close()

    def now():
        return control.ok("disk.stat", {"name": "m"})["volume"]
    first = now()
    wait_for("legs in sync", lambda: not now()["degraded"] and not now()["unsynced_bytes"])
    control.ok("store.quit")
    assert store.wait(DEADLINE_S) == 0
    return first


def same(legs):
    content = []
    for leg in legs:
        with open(leg, "rb") as f:
            content.append(f.read(BYTES))
    return all(c == content[0] for c in content) and any(content[0])


def made_and_used(rig):
    path, legs = make(rig, 3)
    found = stat(rig, path)
    assert states(found) == ["in sync"] * 3 and not found["degraded"], found
    verify(rig, path, 4000, 1)
    assert same(legs)
    assert "mirror" in trivet(rig, "disk", "stat", path).stdout
    trivet(rig, "disk", "export", path, rig.path("x.raw"))
    with open(rig.path("x.raw"), "rb") as raw, open(legs[0], "rb") as leg:
        assert raw.read() == leg.read(BYTES)


def refused(rig):
    path, legs = make(rig)
    for words, hint in ((("y.volume", "--size", "1M", "--mirror", legs[1]), "File exists"),
                        (("y.raw", "--size", "1M", "--mirror", rig.path("y2")), "volume file"),
                        (("y.volume", "--mirror", rig.path("y2")), "--size"),
                        (("y.volume", "--size", "1M", "--mirror", rig.path("none/y2")), "none"),
                        (("y.volume", "--size", "1M", "--mirror", ",".join(rig.path(f"y{i}") for i in range(9))), "7 files")):
        done = trivet(rig, "disk", "create", rig.path(words[0]), *words[1:], status=2)
        assert hint in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.stderr
        assert not [f for f in os.listdir(rig.dir) if f.startswith("y")], "something is left"
    done = trivet(rig, "disk", "snapshot", path, "s", status=1)
    assert "mirrored" in done.stderr, done.stderr
    one = write_volume(rig, legs[1:])
    assert '"degraded": true' in trivet(rig, "disk", "stat", one, status=2).stderr
    rig.image("empty", 33)
    new = write_volume(rig, [legs[0], rig.path("empty")])
    assert '"rebuild": 1' in trivet(rig, "disk", "stat", new, status=1).stderr


def a_leg_fails(rig):
    path, legs = make(rig)
    broken = write_volume(rig, [legs[0], failing(legs[1], {"op": "write", "nth": 700, "error": "EIO"})])
    result = verify(rig, broken, 4000, 2)
    assert "leg of a mirror failed" in rig.log(), rig.log()
    assert not result.get("errors"), result
    assert not same(legs)
    told = trivet(rig, "disk", "stat", path).stdout
    assert "leg 1 of the mirror is resyncing" in told and "degraded" in told, told
    found = make_equal(rig, path)
    assert states(found) == ["in sync", "resyncing"] and found["unsynced_bytes"], found
    assert same(legs)
    assert states(stat(rig, path)) == ["in sync"] * 2


def cannot_be_read(rig):
    legs = make(rig)[1]
    bad = [failing(leg, {"op": "read", "offset_bytes": part * (BYTES // 2), "len_bytes": BYTES // 2, "every": 50, "error": "EIO"})
           for part, leg in enumerate(legs)]
    result = verify(rig, write_volume(rig, bad), 3000, 2)
    assert not result.get("errors"), result


def without_one_and_with_another(rig):
    path, legs = make(rig)
    os.rename(legs[1], rig.path("away"))
    told = trivet(rig, "disk", "stat", path, status=2).stderr
    assert legs[1] in told and '"degraded" is true' in told, told
    alone = write_volume(rig, legs[:1], degraded=True)
    verify(rig, alone, 2000, 2)
    os.rename(rig.path("away"), legs[1])
    assert states(make_equal(rig, path)) == ["in sync", "resyncing"]
    assert same(legs)
    os.unlink(legs[1])
    assert states(stat(rig, alone)) == ["in sync"]
    with open(legs[1], "wb") as f:
        f.truncate(os.stat(legs[0]).st_size)
    found = make_equal(rig, write_volume(rig, legs, rebuild=1))
    assert states(found) == ["in sync", "resyncing"] and found["unsynced_bytes"] > BYTES - (1 << 20), found
    assert same(legs)
    assert states(stat(rig, path)) == ["in sync"] * 2


def killed(rig):
    path, legs = make(rig)
    store = rig.store(("m", path, ",queues=2"))
    driver = rig.driver("verify", "m", "--queues", 2, "--requests", 10**12, "--seed", 7)
    for _ in range(8):
        before = os.stat(legs[1]).st_mtime_ns
        wait_for("a write", lambda: os.stat(legs[1]).st_mtime_ns != before or driver.poll() is not None)
        store.kill()
        store.wait()
        rig.processes.remove(store)
        store = rig.store(("m", path, ",queues=2"), wait=False)
    driver.send_signal(signal.SIGUSR1)
    out, _ = driver.communicate(timeout=DEADLINE_S)
    assert driver.returncode == 0, "the driver found something wrong"
    result = json.loads(out)
    assert result["submitted"] == result["completed"], result
    store.kill()
    store.wait()
    make_equal(rig, path)
    assert same(legs)


main([made_and_used, refused, a_leg_fails, cannot_be_read, without_one_and_with_another, killed])
