#!/usr/bin/env python3
"""trivet disk create --encrypt: what cryptsetup says of it, that a machine's data are nowhere in the clear, snapshots of it and disks over it, keys
that change, LUKS2 images of cryptsetup's as disks with snapshots, and what is refused and leaves nothing."""
import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "lib"))
from command import TOP, fail, nothing_left, skip, trivet, trivet_json, until, use_image, write  # noqa: E402

MB = 1 << 20
CLEAR = b"lost+found"  # a name in any ext4


def path(name):
    return os.path.join(TOP, name)


def key(name, content):
    with open(path(name), "wb", opener=lambda p, flags: os.open(p, flags, 0o600)) as f:
        f.write(content)
    return path(name)


def cryptsetup(*words):
    done = subprocess.run(["cryptsetup", "--batch-mode", *words], capture_output=True, text=True)
    if done.returncode:
        fail(f"cryptsetup {' '.join(words)}: {done.stderr}")
    return done.stdout


def refused(words, *hints, status=2):
    before = sorted(os.listdir(TOP))
    done = trivet("disk", *words, status=status)
    for hint in hints:
        if hint not in done.stderr or len(done.stderr.strip().splitlines()) != 1:
            fail(f"trivet disk {' '.join(words)}: '{hint}' is not in: {done.stderr}")
    if sorted(os.listdir(TOP)) != before:
        fail(f"trivet disk {' '.join(words)}: something is left: {set(os.listdir(TOP)) - set(before)}")


def content(volume):
    trivet("disk", "export", volume, path("content.raw"))
    with open(path("content.raw"), "rb") as f:
        found = f.read()
    os.unlink(path("content.raw"))
    return found


def written(name):
    """All that was ever written to a sparse file."""
    fd, found, at = os.open(path(name), os.O_RDONLY), b"", 0
    size = os.fstat(fd).st_size
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:
            break
        at = os.lseek(fd, start, os.SEEK_HOLE)
        found += os.pread(fd, at - start, start)
    os.close(fd)
    return found


def nothing_in_the_clear():
    for name in os.listdir(TOP):
        if name.endswith((".overlay", ".luks")) and CLEAR in written(name):
            fail(f"{name}: has data in the clear")


def check(disk, earlier):
    done = trivet("run", "--image", "busybox", "--memory", "128M", "--append", "quiet trivet.check=poweroff", "--disk", disk)
    if "TRIVET-CHECK failed" in done.stdout or ("TRIVET-CHECK ok earlier" in done.stdout) != earlier:
        fail(f"a machine on {disk}: {done.stdout}")


use_image()
secret = key("secret", os.urandom(32))
x = path("x.volume")
made = subprocess.run([os.path.join(sys.argv[1], "bin", "trivet"), "disk", "create", x, "--size", "40M", "--encrypt", "--key-file", secret],
                      capture_output=True, text=True)
if made.returncode and "AF_ALG" in made.stderr:
    skip(f"the kernel lets nobody make a header here: {made.stderr.strip()}")
if made.returncode:
    fail(made.stderr)

# What it is.
dump = cryptsetup("luksDump", path("x.luks"))
for line in ("aes-xts-plain64", "argon2id", "offset: 0 [bytes]", "512 bits"):
    if line not in dump:
        fail(f"luksDump: no '{line}' in\n{dump}")
cryptsetup("open", "--test-passphrase", "--key-file", secret, path("x.luks"))
fast = ("--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000")  # it is opened often from here on
cryptsetup("luksConvertKey", "--key-file", secret, *fast, path("x.luks"))
if trivet_json("disk", "stat", x)["size_bytes"] != 40 * MB:
    fail("it has another size")
check(x, earlier=False)
check(x, earlier=True)
if CLEAR not in content(x):
    fail("the disk has no file system")
nothing_in_the_clear()
print("ok: an encrypted disk")

# What cannot be, and leaves nothing.
more = ["--size", "8M", "--encrypt", "--key-file"]
refused(["create", x, *more, secret], "is there already")
refused(["create", path("z.volume"), "--size", "8M", "--encrypt"], "--key-file FILE")
refused(["create", path("z.volume"), "--size", "8M", "--key-file", secret], "--encrypt")
refused(["create", path("z.volume"), *more, path("none")], "none", "No such file")
refused(["create", path("z.volume"), *more, key("empty", b"")], "empty", "1 to")
refused(["create", path("z.raw"), *more, secret], ".volume")
refused(["create", path("z.volume"), "--size", "4097", "--encrypt", "--key-file", secret], "512")
refused(["create", path("no/z.volume"), *more, secret], path("no/z"))
os.chmod(secret, 0o640)
refused(["create", path("z.volume"), *more, secret], "chmod 600")
os.chmod(secret, 0o600)
write("z.luks", "")
refused(["create", path("z.volume"), *more, secret], "z.luks", "exists")
os.unlink(path("z.luks"))
trivet("disk", "create", path("plain.raw"), "--size", "8M")
refused(["create", path("z.volume"), "--over", path("plain.raw"), "--encrypt", "--key-file", secret], "not encrypted", status=1)
refused(["create", path("z.volume"), "--over", x, "--encrypt", "--key-file", secret], "leave out")
os.mkdir(path("small"))
if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", path("small")], stderr=subprocess.DEVNULL).returncode == 0:
    try:
        refused(["create", path("small/z.volume"), *more, secret], "small/z.luks", "No space left")
        if os.listdir(path("small")):
            fail(f"something is left where there was no room: {os.listdir(path('small'))}")
    finally:
        subprocess.run(["umount", path("small")], check=True)
else:
    print("not tried, nothing can be mounted here: no room")
os.rename(secret, path("kept"))
key("secret", b"another")
refused(["stat", x], "x.luks", "no key slot takes this passphrase")
os.rename(path("kept"), secret)
print("ok: what is refused")

# Snapshots lie below the encryption.
before = content(x)
trivet("disk", "snapshot", x, "checked")
trivet("disk", "create", path("y.volume"), "--over", path("x@checked.volume"), "--size", "60M")
check(x, earlier=True)
check(path("y.volume"), earlier=True)
after = content(x)
if before == after or content(path("x@checked.volume")) != before:
    fail("a snapshot is not what the disk had")
if content(path("y.volume"))[:1024] != before[:1024] or trivet_json("disk", "stat", path("y.volume"))["size_bytes"] != 60 * MB:
    fail("a disk over a snapshot is not what that has")
nothing_in_the_clear()
trivet("disk", "revert", x, "checked")
if content(x) != before:
    fail("the disk is not what it was")
check(x, earlier=True)
x_content, y_content = content(x), content(path("y.volume"))
new = key("new", b"a passphrase of a person's")
cryptsetup("luksChangeKey", "--key-file", secret, *fast, path("x.luks"), new)
refused(["stat", x], "no key slot takes this passphrase")
os.rename(new, secret)
trivet("disk", "resize", x, "64M")
trivet("disk", "drop", x, "checked")
if content(x)[:40 * MB] != x_content or content(path("y.volume")) != y_content:
    fail("a snapshot that was dropped is missing in what lay on it")
for name in ("x.volume", "y.volume"):
    with open(path(name)) as f:
        if json.load(f)["over"]["base"]["type"] != "null":
            fail(f"{name}: lies on something still")
nothing_in_the_clear()
print("ok: snapshots of an encrypted disk, and disks over them")

# The disk of a machine that runs.
trivet("up", write("one.yaml", """
disks:
  x: {path: x.volume}
machines:
  one: {image: busybox, append: 'quiet trivet.check', memory: 128M, disks: [x]}
"""))
until("the machine has looked at its disk", lambda: "TRIVET-CHECK ok done" in trivet("logs", "one").stdout)
trivet("disk", "snapshot", "x", "live")
if CLEAR not in content(path("x@live.volume")):
    fail("the snapshot has no file system")
trivet("kill", "one")
trivet("start", "one")
until("the machine has looked at its disk again", lambda: trivet("logs", "one").stdout.count("TRIVET-CHECK ok done") >= 2)
trivet("disk", "drop", "x", "live")
stat = trivet_json("disk", "stat", "x")
if not stat["running"] or stat["volume"]["type"] != "crypt" or stat["specification"]["over"]["base"]["type"] != "null" or stat["errors"]:
    fail(f"stat: {stat}")
trivet("down")
nothing_left()
check(x, earlier=True)
nothing_in_the_clear()
print("ok: snapshots of an encrypted disk that is in use")

# An image of cryptsetup's, which begins with its header.
with open(path("image.luks"), "wb") as f:
    f.truncate(64 * MB)
cryptsetup("reencrypt", "--encrypt", "--type", "luks2", "--key-file", secret, "--reduce-device-size", "32M", *fast, path("image.luks"))
write("image.volume", json.dumps({"type": "crypt", "over": {"type": "file", "path": "image.luks"}, "passphrase": "secret"}))
image = path("image.volume")
check(image, earlier=False)
before = content(image)
if len(before) != trivet_json("disk", "stat", image)["size_bytes"] or CLEAR not in before:
    fail(f"it has {len(before)} bytes")
trivet("disk", "snapshot", image, "first")
check(image, earlier=True)
trivet("disk", "create", path("over.volume"), "--over", path("image@first.volume"))
trivet("disk", "snapshot", path("over.volume"), "s")
check(path("over.volume"), earlier=True)
over = content(path("over.volume"))
trivet("disk", "drop", path("over.volume"), "s")
if content(path("image@first.volume")) != before or content(image) == before or content(path("over.volume")) != over:
    fail("snapshots of a LUKS2 image")
nothing_in_the_clear()
write("bad.volume", json.dumps({"type": "ciphertext", "path": "plain.raw"}))
refused(["stat", path("bad.volume")], "plain.raw", "no encrypted disk")
nothing_left()
print("ok: snapshots of a LUKS2 image")
