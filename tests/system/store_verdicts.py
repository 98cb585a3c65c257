#!/usr/bin/env python3
# Verdicts outlive a store that is killed, in a file that can be damaged, foreign, in use or cut short and costs the records alone.
import fcntl
import os
import signal
import struct

import verdict_file
from store_rig import DEADLINE_S, Control, main, wait_for

TOO_MUCH = "reserve: 900TB/s"
BANDWIDTH = 0


def start(rig, name, *disks):
    """A store whose verdicts are in the file; its disks, and a load on them."""
    path = rig.path("control")
    if os.path.exists(path):
        os.unlink(path)
    store = rig.store(extra=("--scheduler", "oios", "--control", path, "--verdicts", rig.path(name)))
    wait_for("the control socket", lambda: store.poll() is not None or os.path.exists(path))
    assert store.poll() is None, rig.log()
    control = Control(path)
    for disk in disks:
        if os.path.exists(rig.path(disk + ".sock")):
            os.unlink(rig.path(disk + ".sock"))
        params = {"promises": TOO_MUCH if disk == "a" else ""}
        assert "result" in control.add_disk(rig, disk, params, rig.image(disk, 16))
    return store, control


def load(rig, *disks):
    return [rig.driver("bench", disk, "--seconds", 3600, "--depth", 32) for disk in disks]


def verdict(control, name="a"):
    return control.ok("disk.stat", {"name": name})["verdicts"][0]


def recorded(rig, name="verdicts"):
    """Of the promise of disk a; empty as long as there is nothing."""
    return verdict_file.read(rig.path(name)).get(("a", "reserve", BANDWIDTH), {})


def end(*processes):
    for p in processes:
        p.kill()
        p.wait()


def outlives_the_store(rig):
    store, control = start(rig, "verdicts", "a", "b")
    drivers = load(rig, "a", "b")
    wait_for("the promise to be broken", lambda: verdict(control)["day"]["broken_ms"] > 0)
    before = verdict(control)
    wait_for("it to be recorded", lambda: recorded(rig).get("broken_ms", 0) >= before["day"]["broken_ms"])
    assert not recorded(rig)["kept"] and recorded(rig)["value"] == 9 * 10 ** 14, recorded(rig)
    store.send_signal(signal.SIGKILL)
    store.wait()
    end(*drivers)
    left = recorded(rig)

    store, control = start(rig, "verdicts", "a", "b")
    # What a killed store had open goes with its io_uring, a little later than the process.
    wait_for("the record to be taken up", lambda: verdict(control)["all"]["judged_ms"])
    after = verdict(control)
    assert not after["kept"] and after["lack_ppm"] > 0 and after["held_by"] == (left["held_by"] or None), after
    assert after["day"]["broken_ms"] == left["broken_ms"] and after["hour"] == after["day"], (after, left)
    assert after["all"]["judged_ms"] == left["all_judged_ms"] and after["day"]["kept_ppm"] < 1000000, (after, left)
    assert after["for_ms"] >= before["for_ms"] and after["last_broken"]["ago_ms"] >= before["last_broken"]["ago_ms"], after
    # It is added to, whatever the promise's value is now; and a disk that goes and comes back goes on.
    control.ok("disk.promise", {"name": "a", "promises": "reserve: 1TB/s"})
    assert verdict(control)["day"]["broken_ms"] == left["broken_ms"], verdict(control)
    drivers = load(rig, "a")
    wait_for("more to be judged", lambda: verdict(control)["day"]["judged_ms"] > left["judged_ms"])
    end(*drivers)
    now = verdict(control)["day"]["judged_ms"]
    control.ok("disk.remove", {"name": "a"})
    os.unlink(rig.path("a.sock"))
    assert "result" in control.add_disk(rig, "a", {"promises": "reserve: 1TB/s"}, rig.image("a", 16))
    assert verdict(control)["day"]["judged_ms"] >= now
    # A store that ends writes all of it.
    now = verdict(control)["all"]["judged_ms"]
    store.send_signal(signal.SIGTERM)
    assert store.wait(DEADLINE_S) == 0
    assert recorded(rig)["all_judged_ms"] == now, (recorded(rig), now)


def many_promises_are_recorded(rig):
    """They change in far more places of the file than there are ticks of the store before they change again, and all get there: none
    waits behind those that lie before it."""
    promises = "reserve: 1B/s and 1 iops and 1%, limit: 900TB/s and 1T iops and 99%, latency: p50 < 10s, weight: 5"
    disks, loaded = "abcdefghij", "aej"
    store, control = start(rig, "verdicts", *disks)
    for disk in disks:
        control.ok("disk.promise", {"name": disk, "promises": promises})
    drivers = load(rig, *loaded)

    def judged(disk):
        return [v["day"]["judged_ms"] for v in control.ok("disk.stat", {"name": disk})["verdicts"] if v["day"]["judged_ms"]]

    def reached(disk, judged_ms):
        records = verdict_file.read(rig.path("verdicts"))
        return sum(r["judged_ms"] >= judged_ms for (name, _, _), r in records.items() if name == disk)

    for least_ms in (0, 4000, 8000):  # again and again, not only when their places in the file are new
        for disk in loaded:
            wait_for("limits and latencies to be judged", lambda: sum(ms > least_ms for ms in judged(disk)) >= 4)
            before = [ms for ms in judged(disk) if ms > least_ms]
            wait_for(f"the verdicts of {disk} to be recorded", lambda: reached(disk, min(before)) >= len(before), 60)
    end(*drivers, store)


def what_is_damaged_is_left_out(rig):
    with open(rig.path("foreign"), "w", encoding="ascii") as f:
        f.write("#!/bin/sh\nexit 0\n")
    arguments = (("a", rig.image("a", 8), ""),)
    store = rig.store(*arguments, extra=("--verdicts", rig.path("foreign")), wait=False)
    assert store.wait(DEADLINE_S) == 2 and "foreign: holds no verdicts" in rig.log(), rig.log()
    # trivetd gives a descriptor, and a store that did not start would be worse than one without a record.
    with open(rig.path("foreign"), "r+b") as f:
        store = rig.store(*arguments, extra=("--scheduler", "oios", "--verdicts", str(f.fileno())), pass_fds=[f.fileno()], log="second")
    wait_for("it to be told", lambda: "verdicts are not recorded" in rig.log("second"))
    end(store)
    with open(rig.path("foreign"), encoding="ascii") as f:
        assert f.read() == "#!/bin/sh\nexit 0\n"
    # A good head and noise behind it, which a store reads and writes over.
    os.unlink(rig.path("a.sock"))
    with open(rig.path("noise"), "wb") as f:
        head = b"TVERDICT" + struct.pack("<II", 1, 0) + bytes(496)
        f.write(head[:12] + struct.pack("<I", verdict_file.zlib.crc32(head)) + head[16:] + bytes(3584) + os.urandom(64 << 10))
    store, control = start(rig, "noise", "a")
    drivers = load(rig, "a")
    wait_for("verdicts to be recorded", lambda: recorded(rig, "noise"))
    # Cut short under it.
    os.truncate(rig.path("noise"), 0)
    judged = verdict(control)["day"]["judged_ms"]
    wait_for("it to go on", lambda: verdict(control)["day"]["judged_ms"] > judged + 2000)
    end(*drivers, store)


def waits_for_another_store(rig):
    with open(rig.path("verdicts"), "w+b") as f:
        fcntl.fcntl(f, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        store, control = start(rig, "verdicts", "a")
        drivers = load(rig, "a")
        wait_for("it to be judged", lambda: verdict(control)["day"]["judged_ms"] > 1000)
        assert os.path.getsize(rig.path("verdicts")) == 0
    wait_for("all of it to be recorded", lambda: recorded(rig).get("judged_ms", 0) > 1000)
    end(*drivers, store)


main([outlives_the_store, many_promises_are_recorded, what_is_damaged_is_left_out, waits_for_another_store])
