#!/usr/bin/env python3
"""Promises on the disks of machines: by the file, by a command while they run, refused, shown, and given again after kill -9."""
import os
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "lib"))
import verdict_file  # noqa: E402
from command import STATE, TOP, fail, nothing_left, ours, trivet, trivet_json, until, use_image, write  # noqa: E402

FILE = """
disks:
  one-root: {from: image busybox, path: one-root.raw}
  one-data: {size: 64M, promises: {%s}}
  two-data: {size: 64M%s}
machines:
  one: {image: busybox, append: quiet trivet.check, memory: 128M, disks: [one-root, one-data]}
  two: {image: busybox, append: quiet, memory: 64M, disks: [two-data]}
"""


def pids():
    return {m["name"]: m["pid"] for m in trivet_json("ps")["machines"]}


def process(name):
    return [pid for pid, comm in ours().items() if comm == name]


def promises():
    return {d["name"]: d for d in trivet_json("promises")["promises"]}


def expect(**texts):
    """What is promised, by name with _ for . and -, and the store's verdicts are of just that."""
    found = promises()
    if {name.replace(".", "_").replace("-", "_"): d["promises"] for name, d in found.items()} != texts:
        fail(f"promised: {found}, not {texts}")
    for name, d in found.items():
        if ", ".join(v["promise"] for v in d["verdicts"]) != d["promises"]:
            fail(f"verdicts of {name}: {d}")
    return found


def told(answer):
    """What is taken on trust, each with a reason."""
    return [(u["name"], u["promise"]) for u in answer["unproven"] if u["because"]]


def refused(words, *hints, status=1):
    done = trivet(*words, status=status)
    if len(done.stderr.splitlines()) != 1 or any(hint not in done.stderr for hint in hints):
        fail(f"{words}: {done.stderr}, not {hints}")


def kill(name):
    pid = process(name)[0]
    os.kill(pid, signal.SIGKILL)
    return pid


use_image()
file = write("promises.yaml", FILE % ("weight: 300, limit: 200 iops", ""))
trivet("up", file)
running = pids()
expect(one_one_data="limit: 200 iops, weight: 300")
limit = until("the limit to be judged", lambda: [v for v in promises()["one.one-data"]["verdicts"]
                                                 if v["promise"] == "limit: 200 iops" and v["day"]["judged_ms"] > 0])[0]
if not limit["kept"]:
    fail(f"the limit: {limit}")
table = trivet("promises").stdout
if "one.one-data" not in table or "limit: 200 iops" not in table or "kept" not in table:
    fail(table)
print("ok: promised by the file, and judged")

trivet("disk", "promise", "one-data", "weight: 200; reserve: 30%")
expect(one_one_data="reserve: 30%, weight: 200")
refused(["disk", "promise", "two.two-data", "reserve: 60%"], "85%", "30% (disk 'one.one-data')", "60% (disk 'two.two-data')")
refused(["disk", "promise", "two.two-data", "reserve: 60"], "disk 'two-data'", "unit", status=2)
refused(["disk", "promise", "three", "weight: 1"], "no machine has a disk 'three'", status=2)
refused(["up", write("refused.yaml", FILE % ("reserve: 50%", ", promises: {reserve: 40%}"))], "85%")
expect(one_one_data="reserve: 30%, weight: 200")
trust = trivet_json("disk", "promise", "two-data", "reserve: 1MB/s")
if trust["result"] != "promises changed" or told(trust) != [("two.two-data", "reserve: 1MB/s")]:
    fail(f"a reserve of a disk that has done nothing: {trust}")
print("ok: changed by the command, and refused")

file = write("promises.yaml", FILE % ("reserve: 30%, limit: 5000 iops", ", promises: {utilization: 20%}"))
changed = trivet_json("up", file)["changes"]
if [c["result"] for c in changed] != ["promises changed"] * 2 or pids() != running:
    fail(f"up with other promises: {changed}, {pids()} instead of {running}")
if [c["result"] for c in trivet_json("up", file)["changes"]] != ["unchanged"] * 2:
    fail("up again is not unchanged")
made = {"one_one_data": "reserve: 30%, limit: 5k iops", "two_two_data": "reserve: 20%"}
expect(**made)
print("ok: changed by the file, without a restart")

limit = ("one.one-data", "limit", 1)  # requests/s
until("its verdicts on record", lambda: verdict_file.read(STATE + "/verdicts").get(limit, {}).get("judged_ms"))
old = kill("trivet-store")
left = verdict_file.read(STATE + "/verdicts")[limit]["judged_ms"]
until("another store", lambda: process("trivet-store") not in ([], [old]))
until("its verdicts", lambda: all(d["verdicts"] for d in promises().values()))
day = [v["day"] for v in promises()["one.one-data"]["verdicts"] if v["promise"] == "limit: 5k iops"][0]
if day["judged_ms"] < left or day["kept_ppm"] != 1000000:
    fail(f"the last day after another store has started: {day}, and {left} ms were on record")
table = trivet("promises").stdout
if "HOUR" not in table or "100.00%" not in table:
    fail(table)
expect(**made)
kill("trivetd")
until("trivetd gone", lambda: not process("trivetd"))
expect(**made)
if pids() != running:
    fail(f"a machine did not outlive the kills: {pids()} instead of {running}")
print("ok: the same after kill -9 of the store and of trivetd")

trivet("kill", "two")
stopped = promises()["two.two-data"]
if stopped["promises"] != "reserve: 20%" or stopped["verdicts"] or stopped["state"] != "stopped":
    fail(f"of a machine that does not run: {stopped}")
trivet("disk", "promise", "two-data", "reserve: 70%")  # for when it runs
refused(["start", "two"], "85%", "70% (disk 'two.two-data')")
trivet("disk", "promise", "two-data", "")
trivet("start", "two")
expect(one_one_data="reserve: 30%, limit: 5k iops")
trivet("kill", "--all")
stopped = promises()["one.one-data"]
on_record = {v["promise"]: v for v in stopped["verdicts"]}
if stopped["state"] != "stopped" or on_record["limit: 5k iops"]["day"]["judged_ms"] < day["judged_ms"]:
    fail(f"what is on record of a machine that does not run: {stopped}, and it had {day}")
line = [row for row in trivet("promises").stdout.splitlines() if "limit: 5k iops" in row]
if len(line) != 1 or "stopped" not in line[0] or "100.00%" not in line[0]:
    fail(f"the table, of a machine that does not run: {line}")
trivet("down")
nothing_left()
print("ok: a machine that does not run, and a start that is refused")

# A disk that has done nothing yet may be promised anything that the device might keep, and whoever promises it is told.
file = write("trust.yaml", FILE % ("reserve: 20%", ", promises: {reserve: 2MB/s and 50 iops, weight: 50}"))
done = trivet("up", file).stdout
for promise in ("reserve: 2MB/s", "reserve: 50 iops"):
    if f"two.two-data: '{promise}' is taken on trust" not in done:
        fail(f"up with reserves that nobody can know to hold: {done}")
if "20%" in done:
    fail(f"up: a share of the time is always known to hold: {done}")
if trivet_json("up", file)["unproven"]:
    fail("what is promised already is told of again")
trivet("kill", "two")
done = trivet_json("start", "two")["machines"][0]
if [u["promise"] for u in done.get("unproven", [])] != ["reserve: 2MB/s", "reserve: 50 iops"]:
    fail(f"start: {done}")
file = write("trust.yaml", FILE % ("reserve: 20%", ", promises: {reserve: 3MB/s}"))
if told(trivet_json("up", file)) != [("two.two-data", "reserve: 3MB/s")]:
    fail("up with another reserve")
trivet("kill", "--all")
trivet("down")
nothing_left()
run = ["run", "--image", "busybox", "--memory", "128M", "--append", "quiet trivet.check=poweroff", "--disk"]
done = trivet(*run, f"{TOP}/run.raw,size=16M,promises=limit: 2000 iops; weight: 200")
if "TRIVET-CHECK ok done" not in done.stdout:
    fail(f"run with promises: {done.stdout}")
done = trivet(*run, f"{TOP}/run.raw,promises=reserve: 1MB/s")
if "trivet run: disk0: 'reserve: 1MB/s' is taken on trust: what the device does" not in done.stderr:
    fail(f"run with a promise on trust: {done.stderr}")
refused([*run, f"{TOP}/run.raw,promises=limit: 5 cows"], "disk 'disk0'", "cows", status=2)
refused([*run, f"{TOP}/run.raw,promises=reserve: 90%"], "85%", status=2)
print("ok: promised on trust, and in the foreground")
