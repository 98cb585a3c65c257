#!/usr/bin/env python3
# Encrypted disks: an image that cryptsetup has made opens in the store, what cryptsetup encrypts the store reads, and the
# other way round; wrong passphrases, other ciphers and headers that ask for too much are refused; nothing is in the clear below.
import json

from nbd_rig import FLUSH, READ, WRITE, connect, run
from store_rig import DEADLINE_S, Skip, can_connect, main, wait_for

MEGABYTES = 32
MARK = b"a secret that must not be seen.."


def luks(rig, name, *options, kdf=("--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000")):
    image = rig.image(name + ".luks", MEGABYTES)
    with open(rig.path("passphrase"), "wb") as f:
        f.write(b"open sesame")
    run("cryptsetup", "luksFormat", "--batch-mode", "--type", "luks2", *kdf, *options, image, rig.path("passphrase"))
    return image


def volume(rig, image, passphrase="passphrase"):
    path = rig.path("crypt.volume")
    with open(path, "w", encoding="utf-8") as f:
        json.dump({"type": "crypt", "over": {"type": "file", "path": image}, "passphrase": passphrase}, f)
    return path


def start(rig, path):
    sock = rig.path("nbd.sock")
    with open(rig.path("store.log"), "wb") as log:
        store = rig.start([rig.store_program, "--disk", f"name=db,path={path},nbd", "--nbd", f"unix:{sock}"], stderr=log)
    wait_for("the store", lambda: store.poll() is not None or (" serving " in rig.log() and can_connect(sock)))
    return store


def serve(rig, path):
    store = start(rig, path)
    if store.poll() is not None and "AF_ALG" in rig.log():
        raise Skip(f"the kernel lets nobody unlock a header here: {rig.log().strip()}")
    assert store.poll() is None, rig.log()
    return store


def end(store):
    store.terminate()
    assert store.wait(DEADLINE_S) == 0


def refused(rig, path):
    store = start(rig, path)
    assert store.wait(DEADLINE_S) == 2
    return rig.log()


def data():
    return b"".join(MARK + bytes([i & 255]) * 480 for i in range(2048))


def what_is_written_is_not_seen(rig):
    for name, sector in (("a", 512), ("b", 4096)):
        image = luks(rig, name, "--sector-size", sector)
        store = serve(rig, volume(rig, image))
        client = connect(rig, "db")
        assert client.size == (MEGABYTES - 16) << 20, client.size
        assert client.ask(WRITE, 1 << 20, len(data()), data=data()) == 0
        assert client.ask(FLUSH) == 0
        client.close()
        end(store)
        with open(image, "rb") as f:
            assert MARK not in f.read()
        store = serve(rig, volume(rig, image))
        client = connect(rig, "db")
        client.request(READ, 1 << 20, len(data()))
        assert client.reply(len(data())) == (0, data())
        client.close()
        end(store)


def cryptsetup_writes_and_reads(rig):
    """By its own code, of which it has enough to encrypt an image in place and to decrypt one."""
    for name, sector in (("a", 512), ("b", 4096)):
        image = rig.image(name, 2 * MEGABYTES)
        with open(image, "r+b") as f:
            f.seek(1 << 20)
            f.write(data())
        with open(rig.path("passphrase"), "wb") as f:
            f.write(b"open sesame")
        key = ("--batch-mode", "--key-file", rig.path("passphrase"))
        run("cryptsetup", "reencrypt", "--encrypt", "--type", "luks2", *key, "--sector-size", sector, "--reduce-device-size", "32M",
            "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", image)
        store = serve(rig, volume(rig, image))
        client = connect(rig, "db")
        client.request(READ, 1 << 20, len(data()))
        assert client.reply(len(data())) == (0, data())
        assert client.ask(WRITE, 8 << 20, len(data()), data=data()) == 0
        assert client.ask(FLUSH) == 0
        client.close()
        end(store)
        run("cryptsetup", "reencrypt", "--decrypt", "--force-offline-reencrypt", *key, "--header", rig.path(name + ".header"), image)
        with open(image, "rb") as f:
            content = f.read()
        assert content[1 << 20:][:len(data())] == data() and content[8 << 20:][:len(data())] == data()


def not_opened(rig):
    image = luks(rig, "a")
    with open(rig.path("wrong"), "wb") as f:
        f.write(b"open barley")
    end(serve(rig, volume(rig, image)))
    assert "no key slot takes this passphrase" in refused(rig, volume(rig, image, "wrong"))
    assert "No such file" in refused(rig, volume(rig, image, "missing"))
    assert "no LUKS2 header" in refused(rig, volume(rig, rig.image("plain", 32)))
    assert "only aes-xts-plain64" in refused(rig, volume(rig, luks(rig, "b", "--cipher", "aes-cbc-essiv:sha256", "--key-size", 256)))
    greedy = luks(rig, "c", kdf=("--pbkdf", "argon2id", "--pbkdf-force-iterations", 100, "--pbkdf-memory", 1024))
    assert "key slot 0 asks for more" in refused(rig, volume(rig, greedy))


main([what_is_written_is_not_seen, cryptsetup_writes_and_reads, not_opened])
