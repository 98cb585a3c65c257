# FRR's daemons as private processes: from the Debian package, which is unpacked into the build folder and not installed, as installing
# it would start them for the host. Each set has a network namespace and a folder of its own.
import glob
import os
import socket
import subprocess

from router_rig import Skip, wait_for

PACKAGES = ["frr", "libyang2"]  # what else it needs, other packages of packages.txt need as well


def unpacked(rig):
    """The folder with the package's files, fetched once a build folder."""
    folder = os.path.join(rig.build, "frr")
    if os.path.exists(os.path.join(folder, "usr/lib/frr/zebra")):
        return folder
    fetched, parts = os.path.join(rig.build, "frr-packages"), os.path.join(rig.build, "frr.part")
    os.makedirs(fetched, exist_ok=True)
    for attempt in ([], ["update"]):
        if attempt:  # as root, and where the lists are missing or old
            subprocess.run(["apt-get", "-qq", *attempt], capture_output=True, check=False, timeout=300)
        got = subprocess.run(["apt-get", "-qq", "download", *PACKAGES], cwd=fetched, capture_output=True, text=True, check=False, timeout=300)
        if not got.returncode:
            break
    if got.returncode:
        raise Skip(f"FRR's package cannot be fetched: {got.stderr.strip()[-200:]}")
    for package in glob.glob(os.path.join(fetched, "*.deb")):
        subprocess.run(["dpkg-deb", "-x", package, parts], check=True)
    os.rename(parts, folder)
    return folder


class Frr:
    """The daemons of one control plane, in its namespace."""

    def __init__(self, rig, space, zebra=""):
        self.rig, self.space, self.root = rig, space, unpacked(rig)
        self.folder = rig.path(f"frr-{space}")
        os.mkdir(self.folder)
        library = glob.glob(os.path.join(self.root, "usr/lib/*/frr"))[0]
        self.env = {**os.environ, "LD_LIBRARY_PATH": f"{os.path.dirname(library)}:{library}"}
        self.module = os.path.join(library, "modules/dplane_fpm_nl.so")
        self.processes = {}
        # A group that the package's installation would make: the daemons do not start without.
        with open("/etc/group", encoding="utf-8") as groups, open(self.path("group"), "w", encoding="utf-8") as own:
            own.write("".join(line for line in groups if not line.startswith("frrvty:")) + "frrvty:x:64999:root\n")
        self.start_zebra(config=f"fpm address 127.0.0.1\n{zebra}")

    def start_zebra(self, *extra, config=None):
        if os.path.exists(self.path("zserv.api")):
            os.unlink(self.path("zserv.api"))  # one that was killed
        self.start("zebra", config, "-M", self.module, *extra)
        wait_for("zebra's socket", lambda: os.path.exists(self.path("zserv.api")))  # who does not find it looks again after 10 s

    def path(self, name):
        return os.path.join(self.folder, name)

    def start(self, name, config=None, *extra):
        """Starts a daemon; without a config with the last one."""
        if config is not None:
            with open(self.path(f"{name}.conf"), "w", encoding="ascii") as f:
                f.write(config)
        with open(self.rig.path("store.log"), "ab") as log:  # main() shows this one
            self.processes[name] = self.rig.start(
                ["ip", "netns", "exec", self.space, "sh", "-c", 'mount --bind "$0" /etc/group && exec "$@"', self.path("group"),
                 os.path.join(self.root, "usr/lib/frr", name), "-u", "root", "-g", "root", "-f", self.path(f"{name}.conf"), "-i",
                 self.path(f"{name}.pid"), "-z", self.path("zserv.api"), "--vty_socket", self.folder, "--log", "stdout", *extra],
                env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def kill(self, name):
        self.processes[name].kill()  # the daemon itself: `ip` and `sh` have become it
        self.processes[name].wait()

    def tell(self, name, *commands):
        """What a daemon says to commands, by the socket of its terminal as vtysh speaks there: each ends with a zero; three and the
        status follow what is said (FRR, lib/vty.c, vtysh_read)."""
        said = b""
        with socket.socket(socket.AF_UNIX) as terminal:
            terminal.settimeout(60)
            terminal.connect(self.path(f"{name}.vty"))
            for command in ("enable", *commands):
                terminal.sendall(command.encode() + b"\0")
                answer = b""
                while answer[-4:-1] != b"\0\0\0":
                    part = terminal.recv(65536)
                    assert part, f"{name} hung up: {command}"
                    answer += part
                assert answer[-1] == 0, f"{name}: {command}: {answer[:-4].decode()}"
                said += answer[:-4]
        return said.decode()
