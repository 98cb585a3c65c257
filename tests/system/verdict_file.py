# A reader of files of verdicts, written from docs/formats/verdicts.md.
import struct
import zlib

KINDS = ("reserve", "limit", "weight")


def _is_good(sector, at, before=b""):
    check = zlib.crc32(before + sector[:at] + bytes(4) + sector[at + 4:])
    return check == struct.unpack_from("<I", sector, at)[0]


def _slots(block, number):
    found = {}
    for i in range(1, 8):
        sector = block[512 * i:512 * i + 512]
        first = struct.unpack_from("<Q", sector, 8)[0]
        if not _is_good(sector, 0, block[8:74]):
            continue
        for slot in range(48):
            if number - 287 <= first + slot <= number:
                found[first + slot] = struct.unpack_from("<II", sector, 16 + 8 * slot)
    return found


def read(path):
    """{(disk, kind, metric): record} of what is good in the file."""
    with open(path, "rb") as f:
        data = f.read(4096 * 4096)
    if not any(data[:4096]):
        return {}
    assert data[:8] == b"TVERDICT" and struct.unpack_from("<I", data, 8)[0] == 1 and _is_good(data[:512], 12), data[:16]
    records = {}
    for at in range(4096, len(data) - 511, 4096):
        block = data[at:at + 4096].ljust(4096, b"\0")
        if block[:4] != b"TVRD" or not _is_good(block[:512], 4):
            continue
        name = block[8:72].rstrip(b"\0").decode()
        number = struct.unpack_from("<Q", block, 272)[0]
        slots = _slots(block, number)
        key = (name, KINDS[block[72]], block[73])
        assert key not in records, f"{key} has two records"
        records[key] = {
            "kept": bool(block[74]),
            "value": struct.unpack_from("<Q", block, 80)[0],
            "judged_ms": sum(judged for judged, _ in slots.values()),
            "broken_ms": sum(broken for _, broken in slots.values()),
            "all_judged_ms": struct.unpack_from("<Q", block, 288)[0],
            "held_by": block[120:184].rstrip(b"\0").decode(),
        }
    return records
