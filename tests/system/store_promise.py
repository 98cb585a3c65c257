#!/usr/bin/env python3
# Promises on a running store: taken or refused as a whole, held by the scheduler under two loads, judged, told when they break.
import json
import os
import time

from store_rig import DEADLINE_S, main, wait_for

LIMIT = 300  # requests/s
SLACK_S = 0.006  # a limit's clock may lie so far behind (oios_terms.c)


def verdicts(control, name):
    return {v["promise"]: v for v in control.ok("disk.stat", {"name": name})["verdicts"]}


def two_disks(rig, promises_of_a):
    control, store = rig.controlled("--scheduler", "oios")
    assert "result" in control.add_disk(rig, "a", {"promises": promises_of_a, "queues": 8}, rig.image("a", 64))
    assert "result" in control.add_disk(rig, "b", {"queues": 8}, rig.image("b", 64))
    return control, store


def load(rig, disk, *arguments):
    # More than the store gives the device at once, so that it is kept busy to the full, and costs can be learned.
    return rig.driver("bench", disk, "--seconds", 3600, "--queues", 8, "--depth", 32, *arguments)


def done(control, disk):
    return control.ok("disk.stat", {"name": disk})["reads"]


def limit_is_held(rig):
    """From the first request on, in every window of the store's own, and over all of them."""
    control, _ = two_disks(rig, f"limit: {LIMIT} iops")
    began = time.monotonic()
    load(rig, "a")
    load(rig, "b")
    windows = []

    def look():
        v = verdicts(control, "a")[f"limit: {LIMIT} iops"]
        assert v["kept"], v
        if v["owed"] and v["day"]["judged_ms"] not in windows:
            windows.append(v["day"]["judged_ms"])
            assert LIMIT - 1 <= v["goal"] <= LIMIT and 0 < v["achieved"] <= LIMIT * (1 + SLACK_S) + 1, v
        return len(windows) >= 5

    wait_for("five windows", look)
    most = LIMIT * (time.monotonic() - began + SLACK_S) + 1
    assert 0 < done(control, "a") <= most, (done(control, "a"), most)
    assert done(control, "b") > done(control, "a"), "the limit of one disk holds back the other"
    assert "promise broken" not in rig.log() and not control.notified

    control.ok("disk.promise", {"name": "a", "promises": "weight: 200"})  # without a restart, and at once
    assert set(verdicts(control, "a")) == {"weight: 200"}
    at = done(control, "a")
    wait_for("more than the limit let pass", lambda: done(control, "a") > at + 10 * LIMIT)
    assert [d["name"] for d in control.ok("disk.promises")] == ["a"]


def refused_changes_nothing(rig):
    control, _ = two_disks(rig, "reserve: 50%, weight: 300")
    load(rig, "a")
    before = "reserve: 50%, weight: 300"

    def refused(promises, *words):
        message = control.refused("disk.promise", {"promises": promises})
        assert all(word in message for word in words), message
        assert control.ok("disk.stat", {"name": "a"})["promises"] == before
        assert control.ok("disk.stat", {"name": "b"})["promises"] == ""

    refused({"b": "reserve: 40%"}, "50% (disk 'a')", "40% (disk 'b')", "90%", "85%", "reserve 5% less")
    refused({"a": "limit: 100 iops", "b": "reserve: 86%"}, "85%")  # all or none
    refused({"a": "reserve: 5 Mb/s"}, "disk 'a'", "bits or bytes")
    refused({"b": "reserve: 20 iops, limit: 10 iops"}, "disk 'b'", "10 iops")
    refused({"c": "weight: 1"}, "no disk 'c'")
    assert "takes" in control.refused("disk.promise", {"name": "a"})
    answer = control.add_disk(rig, "c", {"promises": "reserve: 40%"}, rig.image("c", 8))
    assert "85%" in answer["error"]["message"], answer
    assert [d["name"] for d in control.ok("disk.list")] == ["a", "b"]
    # What was promised already, to a disk that comes back, and what asks for less, is not for the sum to refuse.
    assert "result" in control.add_disk(rig, "d", {"promises": "reserve: 40%", "admitted": True}, rig.image("d", 8))
    control.ok("disk.promise", {"name": "a", "promises": "reserve: 49%"})
    assert "cannot keep" in control.refused("disk.promise", {"name": "a", "promises": "reserve: 50%"})
    at = done(control, "a")
    wait_for("the load to go on", lambda: done(control, "a") > at)


def other_schedulers_say_no(rig):
    control, _ = rig.controlled()
    assert "result" in control.add_disk(rig, "a", {}, rig.image("a", 8))
    assert "'fifo' holds no weights; 'oios' does" in control.refused("disk.promise", {"name": "a", "promises": "weight: 5"})
    assert "'oios' does" in control.add_disk(rig, "b", {"promises": "limit: 1 iops"}, rig.image("b", 8))["error"]["message"]
    assert [d["name"] for d in control.ok("disk.list")] == ["a"]


def broken_is_told(rig):
    """A reserve that is taken on trust, since nothing is known of the disk, and is more than any device does."""
    control, _ = two_disks(rig, "")
    too_much = "reserve: 900TB/s"
    answer = control.ok("disk.promise", {"name": "a", "promises": too_much + ", limit: 1000TB/s"})
    assert [(u["name"], u["promise"]) for u in answer["unproven"]] == [("a", too_much)], answer
    assert "counts as nothing" in answer["unproven"][0]["because"], answer
    load(rig, "a", "--size", 16384)
    load(rig, "b", "--size", 16384)
    wait_for("the reserve to be broken", lambda: not verdicts(control, "a")[too_much]["kept"])
    v = verdicts(control, "a")[too_much]
    assert v["lack_ppm"] > 0 and v["achieved"] < v["goal"] and v["held_by"] in (None, "b") and v["day"]["broken_ms"] > 0, v
    limit = verdicts(control, "a")["limit: 1000TB/s"]
    assert limit["kept"] and limit["proven"], limit
    told = [params for method, params in control.notified if method == "promise.changed"]
    assert told and told[0]["name"] == "a" and told[0]["promise"] == too_much and not told[0]["kept"], control.notified
    assert "promise broken disk=a" in rig.log()
    # Once it is known what requests cost the device, such a promise is refused, with the arithmetic, and the one that was made
    # on trust is told of.
    wait_for("the costs to be known", lambda: all(control.ok("disk.stat", {"name": disk})["alone_bytes_per_s"] for disk in "ab"))
    assert verdicts(control, "a")[too_much]["proven"]
    message = control.refused("disk.promise", {"name": "b", "promises": too_much})
    assert "the device cannot keep" in message and "900TB/s (disk 'b': " in message, message
    wait_for("it to be told", lambda: "more is reserved than the device can promise" in rig.log())


def latencies_are_admitted(rig):
    """By what the device takes for the disk's requests, or for others', and by the time that those take which go first."""
    control, _ = two_disks(rig, "")
    answer = control.ok("disk.promise", {"name": "a", "promises": "latency: p90 < 10s"})
    assert [u["promise"] for u in answer["unproven"]] == ["latency: p90 < 10s"] and "busy" in answer["unproven"][0]["because"], answer
    load(rig, "a", "--size", 4096)
    wait_for("what the device takes to be known", lambda: verdicts(control, "a")["latency: p90 < 10s"]["proven"])
    message = control.refused("disk.promise", {"name": "a", "promises": "latency: p90 < 900ns"})
    assert "disk 'a': 'latency: p90 < 900ns' cannot be kept: the device itself takes " in message and "for half of its requests" in message, message
    control.ok("disk.promise", {"name": "a", "promises": ""})
    # A disk that has done nothing is held to what is known of others, and told so where that does not refuse it.
    answer = control.add_disk(rig, "c", {"promises": "latency: p90 < 1us"}, rig.image("c", 8))
    assert "for half of those of disk 'a'" in answer["error"]["message"], answer
    os.unlink(rig.path("c.sock"))
    answer = control.add_disk(rig, "c", {"promises": "latency: p90 < 1s, reserve: 1 iops"}, rig.image("c", 8))["result"]["unproven"]
    assert {u["promise"]: "disk '" in u["because"] for u in answer} == {"latency: p90 < 1s": True, "reserve: 1 iops": True}, answer
    assert "twice" in control.refused("disk.promise", {"name": "c", "promises": "reserve: 1T iops"})
    # What goes first takes the time that it has had, if it is to be as quick: nothing is left for a reserve beside it.
    quick = f"latency: p50 < {control.ok('disk.stat', {'name': 'a'})['latency']['read']['mean_ns'] // 1000}us"
    message = control.refused("disk.promise", {"promises": {"a": quick, "b": "reserve: 80%"}})
    assert f"{quick} (disk 'a': " in message and "80% (disk 'b')" in message and "85% can be promised" in message, message
    control.ok("disk.promise", {"promises": {"a": "latency: p50 < 10s", "b": "reserve: 80%"}})  # later will do with less


def slow_device_is_told(rig):
    """A latency that no device has: nobody else is to blame, and after a second of trying the verdict says so."""
    promise = "latency: p99 < 1us"
    control, _ = two_disks(rig, promise)
    load(rig, "a", "--size", 4096)
    wait_for("the device to be named", lambda: verdicts(control, "a")[promise]["by_device"])
    v = verdicts(control, "a")[promise]
    assert not v["kept"] and v["held_by"] is None and v["held_ppm"] == 0 and v["last_broken"]["broken_ms"] > 0, v


def from_the_command_line(rig):
    rig.store(("a", rig.image("a", 8), ",promises=limit: 50 iops; weight: 7"), extra=("--scheduler", "oios"))
    driver = rig.driver("bench", "a", "--seconds", 2, "--depth", 32)
    out, _ = driver.communicate(timeout=DEADLINE_S)
    result = json.loads(out)
    assert 0 < result["requests"] < 50 * 60, result  # a limit that is not there lets pass a hundred thousand
    store = rig.store(("b", rig.image("b", 8), ",promises=reserve: lots"), extra=("--scheduler", "oios"), wait=False, log="second")
    assert store.wait(DEADLINE_S) == 2 and "disk 'b': 'reserve: lots'" in rig.log("second"), rig.log("second")


main([limit_is_held, refused_changes_nothing, other_schedulers_say_no, broken_is_told, slow_device_is_told, latencies_are_admitted, from_the_command_line])
