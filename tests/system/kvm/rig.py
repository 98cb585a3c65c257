"""A host with hardware virtualization where there is none: QEMU's TCG with SVM runs Debian's cloud kernel with KVM, and in it a test of
this folder runs our programs as on any host.

The outer system is an initramfs of busybox, the kernel's KVM modules, Python, our programs and the libraries that they need, and the
image busybox-amd64. TCG does not intercept XSETBV (QEMU 7.2), which KVM relies on: so the outer processor has no XSAVE.
"""
import glob
import json
import os
import shutil
import subprocess
import sys
import sysconfig

HERE = os.path.dirname(os.path.abspath(__file__))
PROGRAMS = ("trivet", "trivetd", "trivet-machine", "trivet-store")
MODULES = ("irqbypass", "kvm", "kvm-amd")
NOT_NEEDED = ("test", "idlelib", "tkinter", "ensurepip", "lib2to3", "pydoc_data", "turtledemo", "dist-packages", "config-*", "unittest", "sqlite3")
STATE = "/var/lib/trivet"

INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/shm /dev/pts
mount -t devpts devpts /dev/pts
for folder in /dev/shm /tmp /run; do mount -t tmpfs tmpfs $folder; done
for module in %(modules)s; do insmod /modules/$module.ko; done
if [ -d /lib/modules ]; then
    modprobe -a virtio_pci virtio_blk ext4 2>/dev/null # those that are not built in
    mount -t ext4 /dev/vda %(state)s
fi
ip link set lo up
export HOME=/tmp PATH=/bin:/build/bin LC_ALL=C.UTF-8 TRIVET_STATE_DIR=%(state)s TRIVET_TEST_DEADLINE_S=150 %(environment)s
/bin/python3 %(test)s /build
echo "OUTER-EXIT $?"
poweroff -f
"""


def skip(reason):
    print("skipped:", reason)
    sys.exit(77)


def image(build, name="busybox-amd64"):
    """The image's folder; built when it is not there yet."""
    command = [os.path.join(build, "bin", "trivet"), "image", "build", name, "--json", "--quiet"]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if built.returncode != 0:
        skip("no image to boot: " + built.stderr.strip())
    return json.loads(built.stdout)["dir"]


def copy(path, root, strip=False):
    """To the same place below root."""
    to = root + os.path.abspath(path)
    os.makedirs(os.path.dirname(to), exist_ok=True)
    if strip:
        subprocess.run(["strip", "-o", to, path], check=True)
    else:
        shutil.copy(path, to)


def libraries(program):
    out = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    words = (line.split() for line in out.splitlines())
    return {w[2] if "=>" in w else w[0] for w in words if len(w) > 1 and w[2 if "=>" in w else 0].startswith("/")}


def put_kernel_modules(folder, root):
    """From the package that the image was made of."""
    packages = glob.glob(os.path.join(os.path.dirname(folder), ".apt-*-amd64", "archives", "linux-image-*.deb"))
    if not packages:
        skip("the kernel's package is gone: trivet image build busybox-amd64 --rebuild")
    unpacked = root + ".package"
    subprocess.run(["dpkg-deb", "-x", packages[0], unpacked], check=True)
    os.makedirs(root + "/modules")
    for name in MODULES:
        shutil.copy(glob.glob(f"{unpacked}/**/{name}.ko", recursive=True)[0], root + "/modules")
    shutil.rmtree(unpacked)


def put_python(root):
    python = os.path.realpath("/usr/bin/python3")
    os.makedirs(root + "/bin", exist_ok=True)
    shutil.copy(python, root + "/bin/python3")
    version = ".".join(os.path.basename(python).removeprefix("python").split(".")[:2])
    stdlib = f"/usr/lib/python{version}"
    shutil.copytree(stdlib, root + stdlib, ignore=shutil.ignore_patterns(*NOT_NEEDED), symlinks=True)
    needed = libraries(python)
    for module in glob.glob(stdlib + "/lib-dynload/*.so"):
        needed |= libraries(module)
    return needed


def make_state(images, to):
    """A disk with the state folder: for images that are too large for the initramfs."""
    root = to + ".root"
    shutil.rmtree(root, ignore_errors=True)
    os.makedirs(root + "/images")
    for folder in images:
        subprocess.run(["cp", "-R", "--sparse=always", "--reflink=auto", folder, root + "/images/"], check=True)
    subprocess.run(["/sbin/mke2fs", "-q", "-F", "-t", "ext4", "-E", "root_owner=0:0,lazy_itable_init=0", "-d", root, to, "8G"], check=True)
    shutil.rmtree(root)


def make_initramfs(build, folder, init, extra, files, with_disk, to):
    root = to + ".root"
    shutil.rmtree(root, ignore_errors=True)
    for name in ("proc", "sys", "dev", "tmp", "run", "build/bin", STATE[1:] + "/images"):
        os.makedirs(os.path.join(root, name))
    needed = put_python(root)
    put_kernel_modules(folder, root)
    for name in PROGRAMS:
        program = os.path.join(build, "bin", name)
        needed |= libraries(program)
        subprocess.run(["strip", "-o", f"{root}/build/bin/{name}", program], check=True)
    for program in extra:
        needed |= libraries(program)
        copy(program, root)
    for library in needed:
        copy(library, root)
    for path, place in files.items():
        os.makedirs(os.path.dirname(root + place), exist_ok=True)
        shutil.copy(path, root + place)
    shutil.copytree(os.path.dirname(HERE), root + "/tests/system", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(folder, f"{root}{STATE}/images/busybox-amd64", ignore=shutil.ignore_patterns("disk.raw"))
    busybox = subprocess.run(f"gzip -dc {folder}/initrd | cpio -i --quiet --to-stdout bin/busybox", shell=True, capture_output=True,
                             check=True).stdout
    if with_disk:
        subprocess.run(f"gzip -dc {folder}/initrd | cpio -id --quiet 'lib/modules/*'", shell=True, check=True, cwd=root)
    with open(root + "/bin/busybox", "wb") as f:
        f.write(busybox)
    os.chmod(root + "/bin/busybox", 0o755)
    with open(root + "/init", "w", encoding="utf-8") as f:
        f.write(init)
    os.chmod(root + "/init", 0o755)
    with open(to, "wb") as f:
        names = subprocess.run(["find", "."], cwd=root, capture_output=True, check=True).stdout
        subprocess.run(["cpio", "-o", "-H", "newc", "--quiet"], input=names, cwd=root, stdout=f, check=True)
    shutil.rmtree(root)


def outer(build, test, extra=(), files=(), environment=(), images=(), timeout=800):
    """
    Runs a Python program, named as the outer system has it, there. extra: programs that it needs; files: {path: path there}; images: names of
    those that it needs besides busybox-amd64. What it ended with (None: with nothing), and all that was printed, which stays in a file
    "console" as well.
    """
    build = os.path.abspath(build)
    folder = image(build)
    work = os.path.join(build, "tests", "system", test.strip("/").replace("/", "-") + ".work")
    os.makedirs(work, exist_ok=True)
    initramfs, console, state = (os.path.join(work, name) for name in ("initramfs", "console", "state"))
    init = INIT % {"modules": " ".join(MODULES), "state": STATE, "test": test,
                   "environment": " ".join(f"{name}={value}" for name, value in dict(environment).items())}
    make_initramfs(build, folder, init, extra, dict(files), bool(images), initramfs)
    command = ["qemu-system-x86_64", "-M", "q35", "-accel", "tcg", "-cpu", "EPYC,+svm,+npt,-xsave", "-smp", "1", "-m", "3072",
               "-display", "none", "-nodefaults", "-no-reboot", "-serial", f"file:{console}", "-kernel", os.path.join(folder, "kernel"),
               "-initrd", initramfs, "-append", "console=ttyS0 quiet panic=-1 mitigations=off"]
    if images:
        make_state([folder, *(image(build, name) for name in images)], state)
        command += ["-drive", f"file={state},if=virtio,format=raw,cache=unsafe"]
    status = None
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as qemu:
        try:
            qemu.wait(timeout)
        except subprocess.TimeoutExpired:
            qemu.kill()
            print(f"failed: the outer system did not end within {timeout} s")
    os.unlink(initramfs)
    if images:
        os.unlink(state)
    with open(console, "rb") as f:
        text = f.read().decode(errors="replace").replace("\r", "")
    for line in text.splitlines():
        if line.startswith("OUTER-EXIT "):
            status = int(line.split()[1])
    return status, text


def run(build, test, files=(), environment=(), timeout=800):
    """Runs a program of tests/system in the outer system; never returns. What it prints is printed; its console when it fails."""
    status, text = outer(build, "/tests/" + test, files=files, environment=environment, timeout=timeout)
    for line in text.splitlines():
        if line.startswith(("ok:", "failed:", "skipped:", "figure:")):
            print(line)
    if status != 0:
        print("--- the outer console\n" + text[-8000:])
    sys.exit(1 if status is None else status)
