"""Runs the trivet command in folders of its own and looks at what it leaves behind.

A test is a program: its argument is the build folder; exit status 0 passed, 1 failed, 77 skipped with the reason on standard output.
It waits for events, each with a deadline, and ends only what it started.
"""
import atexit
import glob
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

BUILD = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else "build")
TRIVET = os.path.join(BUILD, "bin", "trivet")
BOOT_S = 240  # generous: the host may be busy with the whole suite

TOP = tempfile.mkdtemp(prefix="trivet-test-")
RUN = os.path.join(TOP, "run")
STATE = os.path.join(TOP, "state")
ENV = dict(os.environ, TRIVET_RUN_DIR=RUN, TRIVET_STATE_DIR=STATE, LC_ALL="C")


def ours():
    """pid -> command of every process that was started in our folders, this one left out."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/environ", "rb") as f:
                if b"TRIVET_RUN_DIR=" + RUN.encode() in f.read().split(b"\0"):
                    with open(f"/proc/{pid}/comm") as comm:
                        found[int(pid)] = comm.read().strip()
        except OSError:
            pass
    return found


def clean_up():
    for pid in ours():
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    shutil.rmtree(TOP, ignore_errors=True)


atexit.register(clean_up)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))


def skip(reason):
    print("skipped:", reason)
    sys.exit(77)


def fail(message):
    print("failed:", message)
    for path in [os.path.join(STATE, name) for name in ("trivetd.log", "store.log")] + glob.glob(STATE + "/logs/*.log"):
        if os.path.exists(path):
            with open(path, errors="replace") as f:
                print(f"--- {os.path.relpath(path, STATE)}\n" + f.read()[-3000:])
    print("--- processes", ours())
    sys.exit(1)


def until(what, condition, seconds=BOOT_S):
    """Waits for condition() to be true and returns it."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            fail(f"{what}: not within {seconds} s")
        time.sleep(0.05)


def trivet(*words, status=0, **options):
    """Runs the command to its end; fails the test when its exit status is another."""
    try:
        done = subprocess.run([TRIVET, *words], env=ENV, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              timeout=BOOT_S, **options)
    except subprocess.TimeoutExpired as e:
        fail(f"trivet {' '.join(words)}: goes on for {BOOT_S} s\n{e.stdout}{e.stderr}")
    if done.returncode != status:
        fail(f"trivet {' '.join(words)}: exit status {done.returncode} instead of {status}\n{done.stdout}{done.stderr}")
    return done


def trivet_json(*words):
    return json.loads(trivet(*words, "--json").stdout)


def write(name, text):
    path = os.path.join(TOP, name)
    with open(path, "w") as f:
        f.write(text)
    return path


def use_image():
    """The busybox image of this host's default state folder, lent to ours; built when it is not there yet."""
    built = subprocess.run([TRIVET, "image", "build", "busybox", "--json", "--quiet"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                           text=True)
    if built.returncode != 0:
        skip("no image to boot: " + built.stderr.strip())
    os.makedirs(os.path.join(STATE, "images"), exist_ok=True)
    os.symlink(json.loads(built.stdout)["dir"], os.path.join(STATE, "images", "busybox"))


def nothing_left():
    """No process of ours, no socket: the run folder is gone or empty."""
    until("our processes gone", lambda: not ours(), 60)
    until("run folder empty", lambda: not os.path.exists(RUN) or not os.listdir(RUN), 60)
