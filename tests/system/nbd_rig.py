# What the tests of the store's NBD server share: a store that exports images, and a client of bare messages, which may say anything.
import socket
import struct
import subprocess
import sys

from store_rig import DEADLINE_S, Skip, can_connect, wait_for

OPTION, REPLY, REQUEST = 0x49484156454F5054, 0x3E889045565A9, 0x25609513
SIMPLE, CHUNK = 0x67446698, 0x668E33EF
EXPORT_NAME, ABORT, LIST, STARTTLS, INFO, GO, STRUCTURED, LIST_META, SET_META = 1, 2, 3, 5, 6, 7, 8, 9, 10
ACK, SERVER, INFO_REPLY, META_REPLY = 1, 2, 3, 4
UNSUP, POLICY, INVALID, TLS_REQD, UNKNOWN, TOO_BIG = (0x80000000 + n for n in (1, 2, 3, 5, 6, 9))
READ, WRITE, DISC, FLUSH, TRIM, CACHE, ZEROES, STATUS = range(8)
FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO = 1, 2, 4, 8, 16
EPERM, EIO, EINVAL, ENOSPC = 1, 5, 22, 28


DEBIAN_MODULES = "/usr/lib/python3/dist-packages"  # where another Python than Debian's does not look


def libnbd():
    if DEBIAN_MODULES not in sys.path:
        sys.path.append(DEBIAN_MODULES)
    try:
        import nbd
    except ImportError as error:
        raise Skip(f"python3-libnbd is missing: {error}") from error
    return nbd


def run(*arguments, ok=True, **options):
    """The program's output; with ok=False it must fail."""
    p = subprocess.run([str(a) for a in arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
                       timeout=DEADLINE_S, **options)
    assert (p.returncode == 0) == ok, f"{arguments}: status {p.returncode}: {p.stdout}"
    return p.stdout


def serve(rig, *disks, nbd=None, extra=(), log="store.log", **popen):
    """disks: (name, image, options); on a Unix socket "nbd.sock" with the options `nbd`, or on what the list `nbd` says."""
    path = rig.path("nbd.sock")
    listeners = nbd if isinstance(nbd, list) else [f"unix:{path}{nbd or ''}"]
    arguments = [rig.store_program, *extra]
    for name, image, options in disks:
        arguments += ["--disk", f"name={name},path={image},nbd{options}"]
    for listener in listeners:
        arguments += ["--nbd", listener]
    with open(rig.path(log), "ab") as f:
        p = rig.start(arguments, stderr=f, **popen)
    wait_for("the store", lambda: p.poll() is not None or (rig.log(log).count(" serving ") and can_connect(path)))
    assert p.poll() is None, f"the store ended: {rig.log(log)}"
    return p


def uri(rig, name="", scheme="nbd+unix", query=""):
    return f"{scheme}:///{name}?socket={rig.path('nbd.sock')}{query}"


class Client:
    """Bare messages. Everything blocks for at most the deadline; the end of the connection is EOFError."""

    def __init__(self, path, flags=3):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(path)  # waits, while a socket with a time limit would not
        self.socket.settimeout(DEADLINE_S)
        self.structured = False
        if flags is None:
            return
        magic, option, self.flags = struct.unpack(">QQH", self.receive(18))
        assert magic == 0x4E42444D41474943 and option == OPTION and self.flags == 3, (magic, option, self.flags)
        self.send(struct.pack(">I", flags))

    def close(self):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def receive(self, n):
        data = b""
        while len(data) < n:
            piece = self.socket.recv(n - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data

    def is_closed(self):
        """The server ends the connection, and says nothing before."""
        try:
            return not self.socket.recv(1)
        except ConnectionResetError:
            return True

    def option(self, option, data=b"", length=None):
        """The replies to it, (type, data), up to the last one."""
        self.send(struct.pack(">QII", OPTION, option, len(data) if length is None else length) + data)
        return self.replies(option)

    def replies(self, option):
        found = []
        while True:
            magic, to, kind, length = struct.unpack(">QIII", self.receive(20))
            assert magic == REPLY and to == option, (hex(magic), to)
            found.append((kind, self.receive(length)))
            if kind == ACK or kind >> 31:
                return found

    def go(self, name="", structured=False, option=GO):
        if structured:
            assert self.option(STRUCTURED) == [(ACK, b"")]
            self.structured = True
        name = name.encode()
        found = self.option(option, struct.pack(">I", len(name)) + name + struct.pack(">HH", 1, 3))
        if found[-1][0] == ACK:
            self.size, self.export_flags = struct.unpack(">QH", next(d for k, d in found if k == INFO_REPLY and d[:2] == b"\0\0")[2:])
        return found

    def request(self, kind, offset=0, length=0, flags=0, cookie=7, data=b"", magic=REQUEST):
        self.send(struct.pack(">IHHQQI", magic, flags, kind, cookie, offset, length) + data)

    def reply(self, length=0):
        """(error, data) of a simple reply, or of a structured one whose chunks are data and holes of a read at `self.offset`."""
        (magic,) = struct.unpack(">I", self.receive(4))
        if magic == SIMPLE:
            error, self.cookie = struct.unpack(">IQ", self.receive(12))
            return error, b"" if error else self.receive(length)
        assert magic == CHUNK, hex(magic)
        flags, kind, self.cookie, size = struct.unpack(">HHQI", self.receive(16))
        payload = self.receive(size)
        if kind >> 15:
            return struct.unpack(">I", payload[:4])[0], payload[6:]
        return 0, (kind, payload)

    def ask(self, kind, offset=0, length=0, flags=0, data=b""):
        """The error of a request whose answer has no data."""
        self.request(kind, offset, length, flags, data=data)
        return self.reply()[0]


def connect(rig, name="", **how):
    client = Client(rig.path("nbd.sock"))
    assert client.go(name, **how)[-1][0] == ACK
    return client
