#!/usr/bin/env python3
# Disks that are added while others are served.
import fcntl
import os
import socket
import struct
import threading

from store_rig import DEADLINE_S, Control, listening_socket, main, wait_for

F_OFD_SETLK = 37  # <asm-generic/fcntl.h>


class Limbo:
    """An image locked as by a dead process whose last writes are landing: nobody has it open, and the lock is there."""

    def __init__(self, path):
        self.sockets = socket.socketpair()
        with open(path, "r+b") as f:
            fcntl.fcntl(f, F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
            socket.send_fds(self.sockets[0], [b"x"], [f.fileno()])

    def end(self):
        for s in self.sockets:
            s.close()


def add_waits_alone(rig):
    """A disk whose image is not free yet is added when it is; the others' requests and the control socket go on meanwhile."""
    control, store = rig.controlled()
    image, limbo = rig.image("b", 8), None
    assert "result" in control.add_disk(rig, "a", {}, rig.image("a", 16))
    result = []

    def add():
        with open(image, "r+b") as f:
            listen = listening_socket(rig.path(f"b{len(result)}.sock"))
            try:
                result.append(Control(rig.path("control")).call("disk.add", {"name": "b"}, [f.fileno(), listen.fileno()]))
            except (AssertionError, ConnectionError) as error:
                result.append({"closed": str(error)})
            listen.close()

    def started():
        thread = threading.Thread(target=add)
        thread.start()
        wait_for("the disk to wait", lambda: "still in use by a dead process" in rig.log()[mark:])
        return thread

    mark, limbo = 0, Limbo(image)
    thread = started()
    assert rig.driver_result("verify", "a", "--requests", 3000)["completed"] >= 3000
    with open(image, "r+b") as f:
        assert "is being added already" in control.refused("disk.add", {"name": "b"}, [f.fileno(), f.fileno()])
    assert [d["name"] for d in control.ok("disk.list")] == ["a"] and not result
    limbo.end()
    thread.join(DEADLINE_S)
    assert "result" in result[0], result
    assert {d["name"] for d in control.ok("disk.list")} == {"a", "b"}
    control.ok("disk.remove", {"name": "b"})
    mark, limbo = len(rig.log()), Limbo(image)
    thread = started()
    control.ok("disk.remove", {"name": "b"})
    thread.join(DEADLINE_S)
    assert "was removed while it waited" in result[1]["error"]["message"], result
    add()  # nobody ends it: it is given up
    assert "last writes of a dead one" in result[2]["error"]["message"], result
    mark = len(rig.log())
    thread = started()
    control.ok("store.quit")
    assert store.wait(DEADLINE_S) == 0
    thread.join(DEADLINE_S)
    limbo.end()


main([add_waits_alone])
