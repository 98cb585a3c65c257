#!/usr/bin/env python3
# The store with a driver of our own: what a disk says and refuses, locks, resize, full and read-only disks, signals, the control
# socket, and a store that is killed again and again under a verified load.
import fcntl
import json
import os
import random
import signal
import struct
import subprocess
import time

from store_rig import DEADLINE_S, Skip, main, readline, wait_for

F_OFD_SETLK = 37  # <asm-generic/fcntl.h>
FLUSH, CONFIG_WCE, DISCARD, WRITE_ZEROES, MQ = 9, 11, 13, 14, 12


def disk_says_what_it_is(rig):
    rig.store(("db", rig.image("a.raw", 16), ",serial=S-1,queues=3"), ("big", rig.image("b.raw", 16), ",block-size=4096"))
    found = rig.driver_result("inspect", "db", "--queues", 2)
    assert found["capacity_sectors"] == 16 << 11 and found["block_size"] == 512 and found["queues"] == 3, found
    assert found["id"] == "S-1" and not found["read_only"], found
    for bit in (FLUSH, CONFIG_WCE, DISCARD, WRITE_ZEROES, MQ):
        assert found["features"] >> bit & 1, f"feature {bit} is missing"
    for good in ("id_status", "read", "write", "flush", "write_through"):
        assert found[good] == 0, (good, found)
    assert found["beyond"] == 1 and found["unknown"] == 2, found
    assert found["cache_off"] == 0 and found["cache_on"] == 1, found
    found = rig.driver_result("inspect", "big")
    assert found["block_size"] == 4096 and found["id"] == "big" and not found["features"] >> MQ & 1, found


def verified_load(rig):
    for image, options, arguments in (("a", ",queues=4", ("--queues", 4)), ("b", ",block-size=4096", ()),
                                      ("c", "", ("--refuse", FLUSH)), ("d", "", ("--refuse", 28, "--refuse", 29)),
                                      ("e", ",queues=2", ("--queues", 2, "--packed")), ("f", "", ("--packed", "--refuse", 28, "--refuse", 29))):
        store = rig.store((image, rig.image(image, 32), options), log=image)
        result = rig.driver_result("verify", image, "--requests", 6000, *arguments)
        assert result["submitted"] == result["completed"] > 6000, result
        store.terminate()
        assert store.wait(DEADLINE_S) == 0, "SIGTERM must end the store with 0"
        os.unlink(rig.path(image))


def verified_load_by_threads(rig):
    rig.store(("db", rig.image("a", 32), ",queues=2"), extra=("--io", "threads"))
    result = rig.driver_result("verify", "db", "--requests", 6000, "--queues", 2)
    assert result["submitted"] == result["completed"] > 6000, result
    assert "threads (as asked)" in rig.log()


def verified_load_polled(rig):
    """Two queues, now and then idle for longer than they are polled; one disk killed and started under load."""
    for poll_us, refused in ((1, ()), (200, ()), (100000, ("--refuse", 29)), (200, ("--packed",))):
        store = rig.store(("db", rig.image("a", 32), ",queues=2"), extra=("--poll", str(poll_us)), log="polled")
        driver = rig.driver("verify", "db", "--queues", 2, "--requests", 20000, *refused)
        wait_for("some load", lambda: "front end connected" in rig.log("polled"))
        store.kill()
        store.wait(DEADLINE_S)
        store = rig.store(("db", rig.path("a"), ",queues=2"), extra=("--poll", str(poll_us)), log="polled")
        driver.communicate(timeout=DEADLINE_S)
        assert driver.returncode == 0, f"polled for {poll_us} us: not all came back as it was written"
        store.terminate()
        assert store.wait(DEADLINE_S) == 0
        os.unlink(rig.path("polled"))


def verified_load_by_schedulers(rig):
    for scheduler in ("sfq", "drr", "mclock", "oios"):
        disks = [(scheduler + name, rig.image(scheduler + name, 32), ",queues=2") for name in ("a", "b")]
        store = rig.store(*disks, extra=("--scheduler", scheduler), log=scheduler)
        drivers = [rig.driver("verify", disk[0], "--queues", 2, "--requests", 3000) for disk in disks]
        for driver in drivers:
            driver.communicate(timeout=DEADLINE_S)
            assert driver.returncode == 0, f"{scheduler}: not all came back as it was written"
        store.terminate()
        assert store.wait(DEADLINE_S) == 0


def killed(rig, signo, times, *arguments):
    """The store dies `times` times under load, and another one goes on."""
    disk = ("db", rig.image("a", 32), ",queues=2")
    rng = random.Random(7)
    store = rig.store(disk)
    driver = rig.driver("verify", "db", "--queues", 2, "--requests", 10**9, "--seed", 5, *arguments)
    for n in range(times):
        wait_for("the driver to connect", lambda: rig.log().count("front end connected") > n or store.poll() is not None)
        assert store.poll() is None, "the store ended by itself"
        if n % 4:  # the others may die in the middle of their greeting
            before = os.stat(rig.path("a")).st_mtime_ns
            wait_for("a write", lambda: os.stat(rig.path("a")).st_mtime_ns != before or driver.poll() is not None)
        time.sleep(rng.random() * 0.06)  # anywhere in the middle of the load
        assert driver.poll() is None, "the driver found something wrong"
        store.send_signal(signo)
        status = store.wait(DEADLINE_S)
        assert status == (0 if signo == signal.SIGTERM else -signo), status
        store = rig.store(disk, wait=False)
    return store, driver


def finish(driver):
    """Asks the driver to stop submitting, to wait for all answers and to check the whole disk."""
    driver.send_signal(signal.SIGUSR1)
    out, _ = driver.communicate(timeout=DEADLINE_S)
    assert driver.returncode == 0, "the driver found something wrong"
    result = json.loads(out)
    assert result["submitted"] == result["completed"], result
    return result


def killed_100_times(rig):
    _, driver = killed(rig, signal.SIGKILL, 100)
    result = finish(driver)
    print(f"        {result}")
    assert result["connections"] >= 75, result


def killed_50_times_packed(rig):
    _, driver = killed(rig, signal.SIGKILL, 50, "--packed")
    assert finish(driver)["connections"] >= 25


def ended_and_started_10_times(rig):
    _, driver = killed(rig, signal.SIGTERM, 10)
    assert finish(driver)["connections"] >= 7


def cache_mode_outlives_the_store(rig):
    """A guest that has switched the cache off must not find it on behind its back."""
    disk = ("db", rig.image("a", 8), "")
    store = rig.store(disk)
    driver = rig.driver("cache", "db")
    assert json.loads(readline(driver.stdout))["cache"] == 0
    store.kill()
    store.wait()
    rig.store(disk)
    assert json.loads(readline(driver.stdout))["cache"] == 0
    assert driver.wait(DEADLINE_S) == 0


def two_stores_on_one_image(rig):
    image = rig.image("a", 8)
    first = rig.store(("one", image, ""))
    second = rig.store(("two", image, ""), log="second", wait=False)
    assert second.wait(DEADLINE_S) == 2
    assert f"process {first.pid} (trivet-store)" in rig.log("second"), rig.log("second")
    assert "disk 'two'" in rig.log("second")
    third = rig.store(("three", image, ",read-only"), log="third", wait=False)
    assert third.wait(DEADLINE_S) == 2
    first.kill()
    first.wait()
    rig.store(("one", image, ",read-only"), log="fourth")
    rig.store(("two", image, ",read-only"), log="fifth")  # readers share


def qemu_keeps_out(rig):
    image = rig.image("a", 8)
    rig.store(("one", image, ""))
    qemu = subprocess.run(["qemu-io", "-f", "raw", "-c", "write 0 4096", image], capture_output=True, text=True, check=False)
    assert qemu.returncode != 0 and "lock" in qemu.stderr, qemu


def slow_device(rig, megabytes_per_s):
    """A loop device, and a list of arguments that starts a program with its writes to that device held down."""
    if os.geteuid():
        raise Skip("loop devices and control groups need root")
    made = subprocess.run(["losetup", "--find", "--show", rig.image("slow", 64)], capture_output=True, text=True, check=False)
    if made.returncode:
        raise Skip(f"no loop device here: {made.stderr.strip()}")
    device = made.stdout.strip()
    rig.undo.append(["losetup", "--detach", device])
    os.mkdir(rig.path("groups"))
    if subprocess.run(["mount", "-t", "cgroup", "-o", "blkio", "none", rig.path("groups")], capture_output=True, check=False).returncode:
        raise Skip("no blkio control group here")
    rig.undo.append(["umount", "--lazy", rig.path("groups")])
    group = rig.path(f"groups/trivet-{os.getpid()}")
    os.mkdir(group)
    rig.undo.append(["rmdir", group])
    number = os.stat(device).st_rdev
    limit = os.path.join(group, "blkio.throttle.write_bps_device")
    if not os.path.exists(limit):
        raise Skip("the kernel cannot hold a device down")
    with open(limit, "w", encoding="ascii") as f:
        f.write(f"{os.major(number)}:{os.minor(number)} {megabytes_per_s << 20}")
    return device, ["sh", "-c", f'echo $$ >{group}/tasks && exec "$@"', "sh"]


def try_lock(path):
    fd = os.open(path, os.O_RDWR)
    try:
        fcntl.fcntl(fd, F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(fd)


def sectors_written(device):
    with open(f"/sys/block/{os.path.basename(device)}/stat", encoding="ascii") as f:
        return int(f.read().split()[6])


def killed_on_a_slow_device(rig):
    """What a killed store had with the kernel still lands: its successor must wait for it, and then nothing moves any more."""
    device, hold_down = slow_device(rig, 1)
    store = rig.store(("slow", device, ""), prefix=hold_down)
    before = sectors_written(device)
    rig.driver("bench", "slow", "--pattern", "randwrite", "--size", 262144, "--depth", 8, "--seconds", 20)
    wait_for("a first write", lambda: sectors_written(device) > before)
    store.kill()
    store.wait()
    assert not try_lock(device), "the lock went with the process, before its writes"
    at_kill = sectors_written(device)
    second = rig.store(("next", device, ""), log="second")
    wait_for("the second store to serve", lambda: "serving" in rig.log("second") or second.poll() is not None)
    landed = sectors_written(device)
    assert landed >= at_kill + 4 * 512, (before, at_kill, landed)
    os.sync()
    assert sectors_written(device) == landed, "a write of the dead store landed after the lock was given"


def read_only_is_refused(rig):
    image = rig.image("a", 8)
    os.chmod(image, 0o444)
    rig.store(("ro", image, ",read-only"))
    found = rig.driver_result("inspect", "ro")
    assert found["read_only"] and found["read"] == 0 and found["write"] == 1 and found["flush"] == 0, found
    assert not found["features"] >> DISCARD & 1 and not found["features"] >> WRITE_ZEROES & 1, found


def full_disk(rig):
    os.mkdir(rig.path("small"))
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", rig.path("small")], capture_output=True, text=True,
                           check=False)
    if mount.returncode:
        raise Skip(f"a small file system cannot be mounted here: {mount.stderr.strip()}")
    rig.undo.append(["umount", "--lazy", rig.path("small")])
    store = rig.store(("full", rig.image("small/a", 32), ""), ("other", rig.image("b", 8), ""))
    result = rig.driver_result("fill", "full")
    assert 0 < result["taken"] < result["pieces"], result
    result = rig.driver_result("fill", "other")
    assert result["taken"] == result["pieces"], result
    assert rig.log().count("no room for the image to grow") == 1, rig.log()
    assert store.poll() is None


def full_loop_device(rig):
    """The same on ext4 behind a loop device, through real direct I/O; and the device itself as a disk."""
    image = rig.image("ext4", 16)
    if os.geteuid():
        raise Skip("loop devices need root")
    made = subprocess.run(["losetup", "--find", "--show", image], capture_output=True, text=True, check=False)
    if made.returncode:
        raise Skip(f"no loop device here: {made.stderr.strip()}")
    device = made.stdout.strip()
    rig.undo.append(["losetup", "--detach", device])
    store = rig.store(("dev", device, ""), log="device")
    result = rig.driver_result("verify", "dev", "--requests", 3000)
    assert result["submitted"] == result["completed"], result
    store.terminate()
    assert store.wait(DEADLINE_S) == 0
    subprocess.run(["mkfs.ext4", "-q", "-O", "^has_journal", device], check=True)
    os.mkdir(rig.path("mnt"))
    subprocess.run(["mount", device, rig.path("mnt")], check=True)
    rig.undo.append(["umount", "--lazy", rig.path("mnt")])
    rig.store(("full", rig.image("mnt/a", 64), ""))
    result = rig.driver_result("fill", "full")
    assert 0 < result["taken"] < result["pieces"], result
    assert rig.log().count("no room for the image to grow") == 1, rig.log()


def controlled(rig):
    """A store as trivetd runs it: nothing but a control socket; everything else comes through it."""
    control, store = rig.controlled()

    def add(name, params, image, flags=os.O_RDWR):
        return control.add_disk(rig, name, params, image, flags)

    assert "result" in add("db", {"serial": "X", "queues": 2}, rig.image("a", 16))
    rig.image("b", 16)
    fd = os.open(rig.path("b"), os.O_RDWR)
    assert "already" in control.refused("disk.add", {"name": "db"}, [fd, fd])
    os.close(fd)
    assert "without the right to write" in add("ro1", {}, rig.path("b"), os.O_RDONLY)["error"]["message"]
    assert "result" in add("ro2", {"read_only": True}, rig.path("b"), os.O_RDONLY)
    assert "takes" in add("x", {"queues": "many"}, rig.image("c", 16))["error"]["message"]
    assert "two descriptors" in control.refused("disk.add", {"name": "y"})
    assert "no disk 'nix'" in control.refused("disk.stat", {"name": "nix"})
    assert [disk["name"] for disk in control.ok("disk.list")] == ["db", "ro2"]
    return control, store


def control_socket(rig):
    control, store = controlled(rig)
    result = rig.driver_result("verify", "db", "--requests", 2000)
    stat = control.ok("disk.stat", {"name": "db"})
    assert stat["reads"] + stat["writes"] + stat["flushes"] + stat["discards"] + stat["write_zeroes"] == result["completed"], stat
    assert stat["errors"] == 0 and stat["in_flight"] == 0 and stat["written_bytes"] > 0, stat
    latency = stat["latency"]["write"]
    assert latency["count"] == stat["writes"] and 0 < latency["p50_ns"] <= latency["p99_ns"] <= latency["max_ns"], latency
    control.ok("disk.remove", {"name": "ro2"})
    assert [disk["name"] for disk in control.ok("disk.list")] == ["db"]
    control.ok("store.quit")
    assert store.wait(DEADLINE_S) == 0


def resize_is_seen(rig):
    control, _ = controlled(rig)
    driver = rig.driver("resize", "db", "--requests", 3)
    assert json.loads(readline(driver.stdout))["capacity_sectors"] == 16 << 11
    control.ok("disk.resize", {"name": "db", "size_bytes": 24 << 20})
    assert json.loads(readline(driver.stdout))["capacity_sectors"] == 24 << 11
    assert os.path.getsize(rig.path("a")) == 24 << 20
    control.ok("disk.resize", {"name": "db", "size_bytes": 8 << 20})
    assert json.loads(readline(driver.stdout))["capacity_sectors"] == 8 << 11
    assert driver.wait(DEADLINE_S) == 0
    assert os.path.getsize(rig.path("a")) == 8 << 20
    assert "multiple" in control.refused("disk.resize", {"name": "db", "size_bytes": 1000})
    assert "read-only" in control.refused("disk.resize", {"name": "ro2", "size_bytes": 1 << 20})


def resize_under_load(rig):
    control, _ = controlled(rig)
    driver = rig.driver("verify", "db", "--requests", 10**9)
    wait_for("the load", lambda: control.ok("disk.stat", {"name": "db"})["writes"] > 100)
    for megabytes in (17, 18, 20, 24, 32):
        control.ok("disk.resize", {"name": "db", "size_bytes": megabytes << 20})
    result = finish(driver)
    assert result["connections"] == 1, result


def wrong_calls(rig):
    def refused(*arguments):
        p = subprocess.run([rig.store_program, *arguments], capture_output=True, text=True, timeout=DEADLINE_S, check=False)
        assert p.returncode == 2, (arguments, p)
        lines = [line for line in p.stderr.splitlines() if line.startswith("trivet-store: ")]
        assert len(lines) == 1, p.stderr
        return lines[0]

    image = rig.image("a", 1)
    sock = rig.path("s.sock")
    assert "nothing to serve" in refused()
    assert "all needed" in refused("--disk", "name=x")
    assert "'colour=red' is not known" in refused("--disk", f"name=x,path={image},socket={sock},colour=red")
    assert "No such file" in refused("--disk", f"name=x,path={image}.not,socket={sock}")
    assert "neither a file nor a block device" in refused("--disk", f"name=x,path=/dev/null,socket={sock}")
    assert "microseconds" in refused("--poll", "long", "--disk", f"name=x,path={image},socket={sock}")
    assert "queues" in refused("--disk", f"name=x,path={image},socket={sock},queues=1000")
    assert "path= is missing" in refused("--disk", f"name=x,socket={sock}")
    volume = ("--disk", f"name=x,socket={sock}", "--volume")
    assert "must be NAME=JSON" in refused(*volume, "y={}")
    assert "must be an object" in refused(*volume, "x=[]")
    assert "no type 'flie'" in refused(*volume, 'x={"type": "flie"}')
    assert "No such file" in refused(*volume, f'x={{"type": "file", "path": "{image}.not"}}')
    assert '"fd" must be' in refused(*volume, 'x={"type": "file"}')
    assert "block size" in refused("--disk", f"name=x,path={image},socket={sock},block-size=600")
    assert "at most 20" in refused("--disk", f"name=x,path={image},socket={sock},serial=" + "s" * 21)
    assert "there are fifo, sfq, drr, mclock, oios" in refused("--scheduler", "cfq", "--control", "0")
    assert "not a listening socket" in refused("--control", "0")
    assert not os.path.exists(sock), "a refused start leaves its socket behind"
    rig.store(("taken", image, ""))
    assert refused("--disk", f"name=x,path={rig.image('b', 1)},socket={rig.path('taken.sock')}")
    assert os.path.exists(rig.path("taken.sock"))


main([disk_says_what_it_is, verified_load, verified_load_by_threads, verified_load_polled, verified_load_by_schedulers, killed_100_times,
      killed_50_times_packed, ended_and_started_10_times, cache_mode_outlives_the_store, two_stores_on_one_image, killed_on_a_slow_device,
      qemu_keeps_out, read_only_is_refused, full_disk, full_loop_device, control_socket, resize_is_seen, resize_under_load, wrong_calls])
