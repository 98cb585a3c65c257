# Receives one frame over and over by a device of the kernel's: on the CPU this runs on the kernel does with it what it
# does with a frame that a driver has handed to it, and there is no driver. BPF_PROG_TEST_RUN with BPF_F_TEST_XDP_LIVE_FRAMES (Linux,
# bpf/bpf_prog_run.rst), which is how xdp-trafficgen sends; the program passes each frame on to the stack.
#
#   python3 inject.py DEVICE HEX COUNTER SECONDS
#
# Prints how often the file COUNTER of /sys/class/net went up, a second. As root, in the namespace of the device.
import ctypes
import os
import socket
import struct
import sys
import time

SYS_BPF, PROG_LOAD, PROG_TEST_RUN = 321, 5, 10  # x86-64
PROG_TYPE_XDP, XDP_PASS, LIVE_FRAMES = 6, 2, 2
BATCH, REPEAT = 64, 100_000


def bpf(command, attr):
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(attr, len(attr))
    r = libc.syscall(SYS_BPF, command, buffer, len(attr))
    if r < 0:
        sys.exit(f"bench router: BPF: {os.strerror(ctypes.get_errno())}")
    return r


def instruction(code, destination=0, source=0, offset=0, immediate=0):
    return struct.pack("<BBhi", code, source << 4 | destination, offset, immediate)


def load(frame):
    """A program that writes the frame, since a buffer comes again with what the stack has made of it, and passes it on."""
    write32, write16 = 0x62, 0x6A
    stores = [instruction(write32, 2, 0, at, struct.unpack_from("<i", frame, at)[0]) for at in range(0, len(frame) - 3, 4)]
    stores += [instruction(write16, 2, 0, at, struct.unpack_from("<H", frame, at)[0]) for at in range(len(frame) & ~3, len(frame) - 1, 2)]
    code = [instruction(0x61, 2, 1, 0), instruction(0x61, 3, 1, 4),  # r2, r3: where the frame begins and ends
            instruction(0xBF, 4, 2), instruction(0x07, 4, immediate=len(frame)), instruction(0x2D, 4, 3, len(stores)), *stores,
            instruction(0xB7, 0, immediate=XDP_PASS), instruction(0x95)]
    buffer = ctypes.create_string_buffer(b"".join(code), 8 * len(code))
    license_text = ctypes.create_string_buffer(b"GPL")
    return bpf(PROG_LOAD, struct.pack("<IIQQ100x", PROG_TYPE_XDP, len(code), ctypes.addressof(buffer), ctypes.addressof(license_text)))


def main():
    device, frame, counter, seconds = sys.argv[1], bytes.fromhex(sys.argv[2]), sys.argv[3], float(sys.argv[4])
    program = load(frame)
    data = ctypes.create_string_buffer(frame, len(frame))
    context = ctypes.create_string_buffer(struct.pack("<6I", 0, len(frame), 0, socket.if_nametoindex(device), 0, 0), 24)

    def run():
        bpf(PROG_TEST_RUN, struct.pack("<4I2Q4I2Q3I4x", program, 0, len(frame), 0, ctypes.addressof(data), 0, REPEAT, 0, 24, 0,
                                       ctypes.addressof(context), 0, LIVE_FRAMES, 0, BATCH))

    def count():
        with open(f"/sys/class/net/{counter}", encoding="ascii") as f:
            return int(f.read())

    run()
    first, began = count(), time.monotonic()
    while time.monotonic() - began < seconds:
        run()
    print((count() - first) / (time.monotonic() - began))


main()
