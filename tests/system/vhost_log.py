#!/usr/bin/env python3
# What a store and a router write to a machine's memory is in the log that our front end shares with them (log_driver.c). The router's
# end is DPDK's.
import os
import subprocess

from router_rig import Router, main


def run_driver(rig, *words):
    done = subprocess.run([os.path.join(rig.build, "tests", "system", "log_driver"), *words], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    print("        " + done.stdout.strip())


def test_disk(rig):
    image = rig.path("a.raw")
    with open(image, "wb") as f:
        f.write(b"\xa5" * (16 << 20))
    rig.store(("a", image, ""))
    run_driver(rig, "disk", rig.path("a.sock"))


def test_net(rig):
    router = Router(rig)
    router.vn("v")
    for name in "ab":
        router.port("v", name, "vhost", socket=rig.path(f"{name}.sock"))
    run_driver(rig, "net", rig.path("a.sock"), rig.path("b.sock"))
    assert router.end() == 0


if __name__ == "__main__":
    main([test_disk, test_net])
