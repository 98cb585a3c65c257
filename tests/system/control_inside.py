#!/usr/bin/env python3
"""Seeing inside: trivet machine stats adds up; perf's files name the translated code of a machine, by its process id."""
import atexit
import os
import re
import struct
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "lib"))
from command import BUILD, ENV, TRIVET, fail, nothing_left, ours, skip, trivet, trivet_json, until, write  # noqa: E402

KERNEL = os.path.join(BUILD, "tests", "system", "tiny.elf")
if not os.path.exists(KERNEL):
    skip("no small kernel to boot: there is no riscv64 compiler")


def perf_files(pid):
    paths = f"/tmp/perf-{pid}.map", f"/tmp/jit-{pid}.dump"
    for path in paths:
        atexit.register(lambda p=path: os.path.exists(p) and os.unlink(p))
    return paths


def executable(pid):
    with open(f"/proc/{pid}/maps") as f:
        found = [re.match(r"([0-9a-f]+)-([0-9a-f]+) r-xs .* /dev/zero", line) for line in f]
    return [(int(m[1], 16), int(m[2], 16)) for m in found if m]


def check_map(path, pid):
    code = executable(pid)
    with open(path) as f:
        lines = f.read().splitlines()
    if not code:
        return print("no translator here: the map is empty") if not lines else fail("a map, but no translated code")
    end = code[0][0]
    for line in lines:
        words = re.fullmatch(r"([0-9a-f]+) ([0-9a-f]+) (rv64_\w+)", line)
        if not words or int(words[1], 16) < end:
            fail(f"{path}: '{line}'")
        end = int(words[1], 16) + int(words[2], 16)
    if end > code[0][1] or not any(re.search(r" rv64_S_00000000802000[0-9a-f]{2}(_small)?$", line) for line in lines):
        fail(f"{path}: out of place, or the guest's first blocks are missing: {lines}")


def check_jitdump(path, pid):
    with open(path, "rb") as f:
        magic, version, size, _, _, of_pid = struct.unpack("=6I", f.read(24))
    if (magic, version, size, of_pid) != (0x4A695444, 1, 40, pid):
        fail(f"{path}: {magic:x} {version} {size} {of_pid}")
    if os.stat(path).st_mode & 0o77:
        fail(f"{path}: others can read it")
    with open(f"/proc/{pid}/maps") as f:
        if not re.search(rf" r-xp 00000000 .* {path}$", f.read(), re.MULTILINE):
            fail(f"{path}: is not mapped, perf record would not find it")


def check_stats(stats):
    all_vcpus, vcpus = stats["all"], stats["vcpus"]
    for name, value in all_vcpus.items():
        for key in value if isinstance(value, dict) else [None]:
            parts = [v[name][key] if key else v[name] for v in vcpus]
            if sum(parts) != (value[key] if key else value):
                fail(f"stats: {name} {key}: {parts}, all: {value}")
    if len(vcpus) != 2 or not 0 < all_vcpus["blocks_decoded"] < all_vcpus["insns_decoded"] < all_vcpus["instructions"]:
        fail(f"stats: {stats}")
    if all_vcpus["traps"] != sum(all_vcpus["trap_causes"].values()) or all_vcpus["hypercalls"] == 0:
        fail(f"stats: {stats}")


trivet("up", write("one.yaml", f"machines:\n  seen: {{kernel: {KERNEL}, memory: 16M, cpus: 2, perf_map: true, jitdump: true}}\n"))
(machine,) = trivet_json("ps")["machines"]
if machine["engine"] != "rv64" or machine["engine_why"] not in trivet("ps", "--engines").stdout:
    fail(f"which engine, and why: {machine}")
files = perf_files(machine["pid"])


def asks():
    """The guest is in its last loop."""
    return trivet_json("machine", "stats", "seen")["all"]["hypercalls"] > 10


until("the guest at work", asks)
before = trivet_json("machine", "stats", "seen")
check_stats(before)
until("instructions counted", lambda: trivet_json("machine", "stats", "seen")["all"]["instructions"] > before["all"]["instructions"])
table = trivet("machine", "stats", "seen").stdout
if not re.search(r"^hypercalls +\d+ +0 +\d+$", table, re.MULTILINE) or "translated code:" not in table:
    fail(f"stats as a table:\n{table}")
print("ok: machine stats")

check_map(files[0], machine["pid"])
check_jitdump(files[1], machine["pid"])
print("ok: perf's files of a machine that stays")

if "there is no machine" not in trivet("machine", "stats", "nobody", status=2).stderr:
    fail("stats of nobody")
trivet("machine", status=2)
trivet("machine", "statistics", "seen", status=2)
trivet("down", "--timeout", "0.1")
if not os.path.exists(files[0]):
    fail("the map went with the machine; perf report needs it afterwards")
nothing_left()

run = subprocess.Popen([TRIVET, "run", "--kernel", KERNEL, "--memory", "16M", "--perf-map"], env=ENV, stdin=subprocess.PIPE,
                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
pid = until("the machine's process", lambda: next((p for p, name in ours().items() if name == "trivet-machine"), None))
files = perf_files(pid)
if b"tiny guest" not in run.stdout.readline():
    fail("the guest does not start")
check_map(files[0], pid)
if os.path.exists(files[1]):
    fail("a jitdump that nobody asked for")
run.communicate(b"s", timeout=60)
if run.returncode != 0:
    fail(f"trivet run: exit status {run.returncode}")
print("ok: perf's map of trivet run")
