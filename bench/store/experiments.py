# The two experiments of the schedulers' targets on a real disk: disks on one device behind one store, each with a load of its own through
# vhost-user (blk_driver load), and the same loads by fio on the device with the kernel's own schedulers. What was done is counted at the
# clients, in bins of 100 ms that are the same for all of them.
import json
import math
import os
import signal
import socket
import subprocess
import time

BIN_MS = 100
QUEUE_DEPTH = 32  # BLK_DEVICE_DEPTH
WARM_S = 1.0
MB = 1e6


class Place:
    """Where the experiments run: the build, a folder with images on the disk, the store on the first CPU and its clients on the others."""

    def __init__(self, build, folder, images, cpus):
        self.build, self.folder, self.images = build, folder, images
        self.store_cpus, self.client_cpus = set(cpus[:1]), set(cpus[1:] or cpus)


class Store:
    """A store on a control socket, with disks d0, d1, ... on the images."""

    def __init__(self, place, scheduler, n_disks):
        self.place, self.folder, self.control = place, place.folder, os.path.join(place.folder, "control")
        command = [os.path.join(place.build, "bin", "trivet-store"), "--scheduler", scheduler, "--control", self.control]
        for n in range(n_disks):
            command += ["--disk", f"name=d{n},path={place.images[n]},socket={self.socket(n)},queues=8"]
        with open(os.path.join(self.folder, "log"), "wb") as log:
            self.process = subprocess.Popen(command, stderr=log, preexec_fn=lambda: os.sched_setaffinity(0, place.store_cpus))

    def socket(self, n):
        return os.path.join(self.folder, f"d{n}.sock")

    def wait(self):
        for _ in range(2000):
            if os.path.exists(self.control):  # it comes after those of the disks
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.005)
        with open(os.path.join(self.folder, "log"), encoding="utf-8") as log:
            raise RuntimeError(f"trivet-store does not serve: {log.read()[-500:]}")

    def promise(self, disk, text):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
            s.connect(self.control)
            params = {"name": f"d{disk}", "promises": text}
            s.sendall(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "disk.promise", "params": params}).encode() + b"\n")
            answer = next(a for a in map(json.loads, s.makefile("rb")) if "id" in a)
        if "error" in answer:
            raise RuntimeError(f"disk.promise: {answer['error']['message']}")

    def __enter__(self):
        self.wait()
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


def knows_scheduler(build, name):
    """Whether this store has it: it looks at its options before it misses a disk."""
    said = subprocess.run([os.path.join(build, "bin", "trivet-store"), "--scheduler", name], stderr=subprocess.PIPE, text=True).stderr
    return "--scheduler" not in said


class Client:
    def __init__(self, store, disk, load, seconds):
        queues = -(-load["depth"] // QUEUE_DEPTH)
        command = [os.path.join(store.place.build, "tests", "system", "blk_driver"), "load", "--socket", store.socket(disk), "--seed", str(disk + 1),
                   "--seconds", str(seconds), "--queues", str(queues), "--depth", str(load["depth"] // queues), "--size", str(load["small"]),
                   "--reads", str(load["reads"]), "--sequential", str(load.get("sequential", 0)), "--interval-ms", str(BIN_MS)]
        if "large" in load:
            command += ["--large", str(load["large"]), "--large-share", str(load["large_share"])]
        self.out = os.path.join(store.folder, f"client{disk}")  # a pipe would fill up before anybody reads it
        with open(self.out, "wb") as out:
            self.process = subprocess.Popen(command, stdout=out, preexec_fn=lambda: os.sched_setaffinity(0, store.place.client_cpus))

    def bins(self):
        """at_ms -> what it said of the 100 ms before; waits for its end."""
        if self.process.wait(600):
            raise RuntimeError("blk_driver load failed")
        with open(self.out, encoding="ascii") as out:
            return {line["at_ms"]: line for line in map(json.loads, out)}

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Run:
    """What the clients of one run did. Times are seconds since all of them have begun."""

    def __init__(self, all_bins):
        self.bins = all_bins
        self.first_ms = max(min(b) for b in all_bins)
        self.last_ms = min(max(b) for b in all_bins)

    def between(self, disk, from_s, to_s):
        at = range(self.first_ms + BIN_MS * (1 + round(from_s * 1000 / BIN_MS)), self.first_ms + BIN_MS * (1 + round(to_s * 1000 / BIN_MS)), BIN_MS)
        return [self.bins[disk][ms] for ms in at if ms in self.bins[disk]]

    def seconds(self):
        return (self.last_ms - self.first_ms) / 1000

    def mb_per_s(self, disk, from_s, to_s):
        return sum(b["bytes"] for b in self.between(disk, from_s, to_s)) / MB / (to_s - from_s)

    def requests(self, disk, from_s, to_s):
        return sum(b["requests"] for b in self.between(disk, from_s, to_s))

    def percentiles_ms(self, disk, from_s, to_s, per_milles=(500, 990, 999)):
        """None of each while nothing was done."""
        buckets = {}
        for b in self.between(disk, from_s, to_s):
            for value, n in b["latency"]["buckets"]:
                buckets[value] = buckets.get(value, 0) + n
        total = sum(buckets.values())
        found = []
        for per_mille in per_milles:
            seen, at = 0, None
            for value in sorted(buckets):
                seen += buckets[value]
                if seen * 1000 >= total * per_mille:
                    at = value / 1e6
                    break
            found.append(at)
        return found

    def curve(self, step_s, value):
        steps = int(self.seconds() / step_s)
        return [[round((n + 1) * step_s, 3), value(n * step_s, (n + 1) * step_s)] for n in range(steps)]


def jain(values):
    """R. Jain, D. Chiu, W. Hawe, DEC-TR-301, 1984."""
    return sum(values) ** 2 / (len(values) * sum(v * v for v in values)) if any(values) else 0.0


def run_clients(store, loads, seconds, steps=()):
    """steps: (seconds after the start, what to do then)."""
    clients = [Client(store, n, load, seconds) for n, load in enumerate(loads)]
    try:
        began = time.monotonic()
        for at, do in steps:
            time.sleep(max(began + at - time.monotonic(), 0))  # the schedule of the experiment, not a wait for an event
            do()
        return Run([c.bins() for c in clients])
    finally:
        for c in clients:
            c.kill()


# ---- equal shares, one asks for twice as much ----

FAIR_LOAD = {"reads": 700, "small": 4096, "large": 262144, "large_share": 100}  # src/store/model/experiment.c: experiment_mixed()
FAIR_DEPTHS = [64, 32, 32, 32]


def fair_run(place, scheduler, seconds):
    with Store(place, scheduler, len(FAIR_DEPTHS)) as store:
        return run_clients(store, [{**FAIR_LOAD, "depth": d} for d in FAIR_DEPTHS], math.ceil(seconds + WARM_S + 0.5))


def fair_result(run, seconds):
    mb_per_s = [run.mb_per_s(n, WARM_S, WARM_S + seconds) for n in range(len(FAIR_DEPTHS))]
    return {"mb_per_s": mb_per_s, "sum": sum(mb_per_s), "jain": jain(mb_per_s),
            "curves": [run.curve(2 * BIN_MS / 1000, lambda a, b, n=n: run.mb_per_s(n, a, b)) for n in range(len(FAIR_DEPTHS))]}


# ---- the same by fio and the kernel's schedulers ----

def device_queue(folder):
    """/sys/block/X/queue/scheduler of the disk that the folder lies on; None: it has none."""
    number = os.stat(folder).st_dev
    path = os.path.realpath(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
    for at in (path, os.path.dirname(path)):  # a partition has none of its own
        if os.path.exists(os.path.join(at, "queue", "scheduler")):
            return os.path.join(at, "queue", "scheduler")
    return None


def current_scheduler(queue):
    with open(queue, encoding="ascii") as f:
        return next(w[1:-1] for w in f.read().split() if w.startswith("["))


class KernelScheduler:
    """The kernel's scheduler of the device, until the end of the block; what ends us puts it back as well."""

    def __init__(self, queue, name):
        self.queue, self.name, self.before = queue, name, current_scheduler(queue)

    def set(self, name):
        with open(self.queue, "w", encoding="ascii") as f:
            f.write(name)

    def __enter__(self):
        self.set(self.name)

    def __exit__(self, *_):
        self.set(self.before)


def can_be_set(queue, name):
    """The kernel loads it if it has to."""
    try:
        with KernelScheduler(queue, name):
            return True
    except OSError:
        return False


def fio_job(place, seconds):
    large = FAIR_LOAD["large_share"] // 10
    lines = ["[global]", "ioengine=io_uring", "direct=1", "rw=randrw", f"rwmixread={FAIR_LOAD['reads'] // 10}", "time_based=1", "norandommap=1",
             f"ramp_time={WARM_S:g}", f"runtime={round(1000 * seconds)}ms", f"bssplit=4k/{100 - large}:256k/{large}",
             f"log_avg_msec={2 * BIN_MS}", f"size={os.path.getsize(place.images[0])}"]
    for n, (image, depth) in enumerate(zip(place.images, FAIR_DEPTHS)):
        lines += [f"[vm{n}]", f"filename={image}", f"iodepth={depth}", f"write_bw_log={os.path.join(place.folder, f'vm{n}')}", "per_job_logs=0"]
    path = os.path.join(place.folder, "fair.fio")
    with open(path, "w", encoding="ascii") as f:
        f.write("\n".join(lines) + "\n")
    return path


def fio_curve(folder, n):
    """MB/s by time, of fio's log of KiB/s for each direction."""
    sums = {}
    with open(os.path.join(folder, f"vm{n}_bw.log"), encoding="ascii") as f:
        for line in f:
            at_ms, kib_per_s = line.split(",")[:2]
            at = round(int(at_ms) / (2 * BIN_MS)) * 2 * BIN_MS / 1000
            sums[at] = sums.get(at, 0) + int(kib_per_s) * 1024 / MB
    return [[at, sums[at]] for at in sorted(sums) if at > 0]


def kernel_run(place, queue, scheduler, seconds):
    with KernelScheduler(queue, scheduler):
        out = os.path.join(place.folder, "fio.json")
        subprocess.run(["fio", fio_job(place, seconds), "--output-format=json", "--output", out], check=True, timeout=600, cwd=place.folder)
    with open(out, encoding="utf-8") as f:
        mb_per_s = [(job["read"]["bw_bytes"] + job["write"]["bw_bytes"]) / MB for job in json.load(f)["jobs"]]
    return {"mb_per_s": mb_per_s, "sum": sum(mb_per_s), "jain": jain(mb_per_s), "curves": [fio_curve(place.folder, n) for n in range(len(mb_per_s))]}


# ---- five machines, promises in turn ----

VMS = ["file server", "database", "mail server", "neighbour 1", "neighbour 2"]
# The loads of src/store/model/experiment.c (deck2_loads): filebench's file server, sysbench's pages, postmark's small files. None of
# them flushes.
TOGETHER_LOADS = [
    {"depth": 8, "reads": 600, "small": 16384, "large": 131072, "large_share": 400, "sequential": 700},
    {"depth": 16, "reads": 700, "small": 16384},
    {"depth": 4, "reads": 500, "small": 4096, "large": 16384, "large_share": 300},
    {"depth": 32, "reads": 700, "small": 65536, "large": 262144, "large_share": 300},
    {"depth": 64, "reads": 700, "small": 4096, "large": 262144, "large_share": 200},
]
RESERVE_MB, LIMIT, LATENCY_MS = 40, 300, 5
PROMISES = [(0, f"reserve: {RESERVE_MB}MB/s"), (1, f"limit: {LIMIT} iops"), (2, f"latency: p99 < {LATENCY_MS}ms")]
SETTLE_S = 1.0  # of the windows that are judged the first begins so long after a promise was made


def together_run(place, scheduler, windows, promised):
    """promised: whether the promises are made, the first after the warm-up and each of the others `windows` later. (run, when)"""
    phase_s = windows + SETTLE_S
    at = [WARM_S + n * phase_s for n in range(len(PROMISES))] if promised else []
    seconds = WARM_S + (phase_s * len(PROMISES) if promised else windows + SETTLE_S) + 1
    with Store(place, scheduler, len(VMS)) as store:
        steps = [(when, lambda d=d, t=t: store.promise(d, t)) for when, (d, t) in zip(at, PROMISES)]
        return run_clients(store, TOGETHER_LOADS, round(seconds + 0.5), steps), at


def holds(run, begin_s, n):
    """In the second from begin_s on, each of the first n promises; as the model's experiment judges it."""
    end_s = begin_s + 1
    kept = [run.mb_per_s(0, begin_s, end_s) >= 0.99 * RESERVE_MB, run.requests(1, begin_s, end_s) <= 1.01 * LIMIT]
    if n == 3:
        p99 = run.percentiles_ms(2, begin_s, end_s, (990,))[0]
        kept.append(p99 is not None and p99 <= LATENCY_MS)
    return kept[:n]


def share_held(run, from_s, windows, n):
    """Percent of the windows in which all of the first n promises hold, and of each alone."""
    each = [holds(run, from_s + w, n) for w in range(windows)]
    return 100 * sum(map(all, each)) / windows, [100 * sum(k[i] for k in each) / windows for i in range(n)]
