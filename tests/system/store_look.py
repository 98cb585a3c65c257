#!/usr/bin/env python3
# What a person and a monitoring system see of one store: trivet top --store and trivet metrics --store. Rates and percentiles are of the
# last interval; what a name contains breaks neither the table nor the metrics.
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
import exposition
from store_rig import DEADLINE_S, main, readline, wait_for

HOSTILE = 'a"b\\c\nd}\x1b[2J{e="'


def trivet(rig, *words, status=0):
    done = subprocess.run([os.path.join(rig.build, "bin", "trivet"), *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          timeout=DEADLINE_S, text=True)
    assert done.returncode == status, f"trivet {words}: {done.returncode}, {done.stderr}"
    return done


def top(rig, *words):
    """disks by name, of the last of the readings."""
    out = trivet(rig, "top", "--store", rig.path("control"), "--once", "--json", *words).stdout
    return {d["name"]: d for d in json.loads(out)["disks"]}


def metrics(rig):
    return exposition.read(trivet(rig, "metrics", "--store", rig.path("control")).stdout)


def value(found, metric, **labels):
    values = [v for have, v in found.get(metric, []) if all(have.get(k) == w for k, w in labels.items())]
    assert len(values) == 1, f"{metric} {labels}: {values}"
    return values[0]


def two_disks(rig):
    control, _ = rig.controlled("--scheduler", "oios")
    assert "result" in control.add_disk(rig, "limited", {"promises": "limit: 200 iops, weight: 300", "queues": 8}, rig.image("l", 16))
    assert "result" in control.add_disk(rig, "other", {"queues": 8}, rig.image("o", 16))
    return control


def of_the_interval_alone(rig):
    control = two_disks(rig)
    load = rig.driver("bench", "other", "--seconds", 2, "--depth", 8)
    load.communicate(timeout=DEADLINE_S)
    idle = top(rig)["other"]
    assert idle["reads"] > 0 and idle["latency"]["read"]["p99_ns"] > 0, idle
    assert idle["rates"]["iops"] == 0 and idle["rates"]["read"]["count"] == 0, idle["rates"]
    assert "histogram" not in json.dumps(idle)

    rig.driver("bench", "limited", "--seconds", 3600, "--depth", 32)
    rig.driver("bench", "other", "--seconds", 3600, "--queues", 8, "--depth", 32, "--pattern", "randwrite")
    wait_for("writes", lambda: control.ok("disk.stat", {"name": "other"})["writes"] > 0)
    wait_for("a second judged", lambda: any(v["day"]["judged_ms"] for v in control.ok("disk.stat", {"name": "limited"})["verdicts"]))
    disks = top(rig)
    limited, other = disks["limited"]["rates"], disks["other"]["rates"]
    assert 0 < limited["iops"] <= 200 * 1.1 + 1 and limited["write"]["count"] == 0, limited
    assert other["write_iops"] > 0 and other["read"]["count"] == 0 and other["write_bps"] > 0, other
    assert 0 < other["write"]["p50_ns"] <= other["write"]["p99_ns"] <= other["write"]["p999_ns"], other
    # What waits is told apart from what the device has: the limit keeps nearly all of the 32 waiting.
    assert disks["limited"]["in_flight"] - disks["limited"]["started"] > 16, disks["limited"]
    assert limited["queue"] > 16 and other["queue"] > 16 and 0 <= limited["waited_percent"] <= 101, (limited, other)
    table = trivet(rig, "top", "--store", rig.path("control"), "--once").stdout
    assert "limit: 200 iops" in table and "kept" in table and "other" in table, table


def metrics_are_well_formed(rig):
    control = two_disks(rig)
    assert "result" in control.call("disk.add", {"name": HOSTILE, "volume": {"type": "file", "fd": 0}}, [os.open(rig.image("h", 1), os.O_RDWR)])
    rig.driver_result("bench", "other", "--seconds", 1, "--depth", 4)
    found = metrics(rig)
    assert {labels["disk"] for labels, _ in found["trivet_disk_size_bytes"]} == {"limited", "other", HOSTILE}
    stat = control.ok("disk.stat", {"name": "other"})
    assert value(found, "trivet_disk_requests_total", disk="other", op="read") == stat["reads"]
    assert value(found, "trivet_disk_bytes_total", disk="other", op="read") == stat["read_bytes"]
    assert value(found, "trivet_disk_latency_seconds_count", disk="other", op="read") == stat["latency"]["read"]["count"]
    mean_s = value(found, "trivet_disk_latency_seconds_sum", disk="other", op="read") / stat["reads"]
    assert abs(mean_s * 1e9 - stat["latency"]["read"]["mean_ns"]) <= 1, (mean_s, stat)
    assert value(found, "trivet_disk_promise_kept", disk="limited", promise="weight: 300") == 1
    assert value(found, "trivet_disk_promise_goal", disk="limited", promise="limit: 200 iops", unit="requests/s") <= 200
    assert value(found, "trivet_disk_promise_broken_seconds_total", disk="limited", promise="limit: 200 iops") == 0
    table = trivet(rig, "top", "--store", rig.path("control"), "--once").stdout
    assert "\x1b" not in table and "a\"b\\c?d" in table, table


def get(url, method="GET"):
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=DEADLINE_S) as answer:
            return answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.headers, refused.read().decode()


def metrics_are_served(rig):
    control = two_disks(rig)
    server = rig.start([os.path.join(rig.build, "bin", "trivet"), "metrics", "--store", rig.path("control"), "--listen", "0"],
                       stdout=subprocess.PIPE, text=True)
    url = readline(server.stdout).strip()
    assert url.startswith("http://127.0.0.1:"), url
    for _ in range(2):
        status, headers, body = get(url)
        assert status == 200 and headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8", (status, headers)
        assert value(exposition.read(body), "trivet_disk_size_bytes", disk="other") == 16 << 20
    assert get(url, "HEAD")[::2] == (200, "") and get(url + "/other")[0] == 404 and get(url, "POST")[0] == 405
    again = trivet(rig, "metrics", "--listen", url.split("/")[2], status=2).stderr
    assert "Address already in use" in again and len(again.splitlines()) == 1, again
    control.call("store.quit")
    wait_for("the store to be missed", lambda: get(url)[0] == 503)
    assert "control" in get(url)[2]
    server.terminate()
    assert server.wait(DEADLINE_S) == 0
    for address in ("127.0.0.1", "::1:80", "127.0.0.1:99999", "127.0.0.1:80x", ":", "127.0.0.1:-1", "[]:80"):
        assert "--listen" in trivet(rig, "metrics", "--listen", address, status=2).stderr


def a_control_socket_by_path(rig):
    """As somebody has it who starts a store by hand."""
    rig.store(("a", rig.image("a", 8), ""), extra=("--control", rig.path("control")))
    assert list(top(rig)) == ["a"]
    assert value(metrics(rig), "trivet_disk_size_bytes", disk="a") == 8 << 20
    error = trivet(rig, "top", "--once", "--store", rig.path("nothing"), status=2).stderr
    assert "nothing" in error and len(error.splitlines()) == 1, error
    refused = subprocess.run([rig.store_program, "--control", "nowhere"], stderr=subprocess.PIPE, text=True)
    assert refused.returncode == 2 and "--control nowhere" in refused.stderr, refused


main([of_the_interval_alone, metrics_are_well_formed, metrics_are_served, a_control_socket_by_path])
