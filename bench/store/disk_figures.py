# Figures and plots of the experiments on a real disk (experiments.py).
import os
import shutil
import statistics
import tempfile

import experiments
import report

TARGET = "target of the project"
SCHEDULERS = ["fifo", "sfq:1", "sfq:32", "mclock", "oios"]
KERNEL = ["none", "bfq"]
IMAGE_BYTES = 256 << 20
VM_NAMES = [f"VM {n + 1}, {depth} at once" for n, depth in enumerate(experiments.FAIR_DEPTHS)]


def make_images(folder, n):
    """Written whole, so that no write of an experiment has to find room first."""
    paths = [os.path.join(folder, f"image{i}") for i in range(n)]
    block = os.urandom(1 << 20)
    for path in paths:
        with open(path, "wb") as f:
            for i in range(IMAGE_BYTES >> 20):
                f.write(i.to_bytes(8, "little") + block[8:])
            os.fsync(f.fileno())
    return paths


class at_place:
    """A folder with images beside the build, gone with the block."""

    def __init__(self, build, cpus, n_images):
        self.build, self.cpus, self.n_images = build, cpus, n_images

    def __enter__(self):
        self.folder = tempfile.mkdtemp(prefix="bench-store-", dir=self.build)
        return experiments.Place(self.build, self.folder, make_images(self.folder, self.n_images), self.cpus)

    def __exit__(self, *_):
        shutil.rmtree(self.folder)


def in_turns(names, rounds, run):
    """{name: [result, ...]}, the order turned round in every second turn."""
    results = {name: [] for name in names}
    for turn in range(rounds):
        for name in names if turn % 2 == 0 else reversed(names):
            print(f"  {name} ...", flush=True)
            results[name].append(run(name))
    return results


# ---- equal shares, one asks for twice as much ----

def fair_plots(results):
    most = max(y for of in results.values() for curve in of[0]["curves"] for _, y in curve)
    plots = [{"kind": "lines", "title": f"{name}: equal shares, one asks for twice as much", "x": "time, s", "y": "MB/s", "y_max": most,
              "series": [{"name": vm, "points": points} for vm, points in zip(VM_NAMES, of[0]["curves"])]} for name, of in results.items()]
    names = list(results)
    median = {name: {key: statistics.median(r[key] for r in of) for key in ("jain", "sum")} for name, of in results.items()}
    plots.append({"kind": "bars", "title": "Fairness: Jain's index, 1 is equal shares", "y": "index", "names": names, "y_max": 1,
                  "goal": [0.99, "target 0.99"], "series": [{"name": "Jain", "values": [median[n]["jain"] for n in names]}]})
    plots.append({"kind": "bars", "title": "All four together", "y": "MB/s", "names": names,
                  "series": [{"name": "sum", "values": [median[n]["sum"] for n in names]}]})
    return plots


def fair_lines(results):
    lines = [f"{'equal shares, one asks for twice':34} {'MB/s of each':>34} {'sum':>8} {'/ fifo':>7} {'Jain':>6}"]
    for name, of in results.items():
        each = [statistics.median(r["mb_per_s"][n] for r in of) for n in range(len(VM_NAMES))]
        ratio = statistics.median(r["sum"] / f["sum"] for r, f in zip(of, results["fifo"]))
        lines.append(f"  {name:32} {' '.join(f'{v:8.1f}' for v in each)} {statistics.median(r['sum'] for r in of):8.1f} {ratio:7.3f} "
                     f"{statistics.median(r['jain'] for r in of):6.3f}")
    return lines


def fair_figures(results):
    def runs(name, key):
        return [r[key] for r in results[name]]
    others = [name for name in results if name != "oios"]
    return [report.figure("disk: equal shares, one asks for twice: Jain", "", runs("oios", "jain"), "higher", 0.99, source=TARGET,
                          others={name: runs(name, "jain") for name in others}),
            report.figure("disk: the same: sum", "MB/s", runs("oios", "sum"), "higher", 0.98, runs("fifo", "sum"), "fifo",
                          others={name: runs(name, "sum") for name in others if name != "fifo"})]


def kernel_names(queue, wanted):
    """Those of the kernel's schedulers that can be tried here; says why not."""
    if not wanted:
        return []
    if os.geteuid() != 0 or not queue or not shutil.which("fio"):
        print("kernel's schedulers: left out: " + ("the disk has none" if not queue else "it takes root and fio"))
        return []
    return [name for name in KERNEL if experiments.can_be_set(queue, name)]


def fair(build, cpus, rounds, seconds, kernel):
    print("equal shares, one asks for twice as much:", flush=True)
    with at_place(build, cpus, len(experiments.FAIR_DEPTHS)) as place:
        queue = experiments.device_queue(place.folder)
        have = [name for name in SCHEDULERS if experiments.knows_scheduler(build, name)]
        missing = [name for name in SCHEDULERS if name not in have]
        of_kernel = {f"kernel's {name}": name for name in kernel_names(queue, kernel)}

        def run(name):
            if name in of_kernel:
                return experiments.kernel_run(place, queue, of_kernel[name], seconds)
            return experiments.fair_result(experiments.fair_run(place, name, seconds), seconds)

        results = in_turns(have + list(of_kernel), rounds, run)
        beneath = experiments.current_scheduler(queue) if queue else "none"
    about = (f"equal shares: {rounds} turns of {seconds:g} s; 70 % reads, one in ten of 256 KiB, the others of 4 KiB; the store's schedulers over "
             f"the kernel's {beneath}" + (", the kernel's own with fio (io_uring, no cgroup) in the store's place" if of_kernel else "")
             + (f"; this store has no {', '.join(missing)}" if missing else ""))
    return fair_figures(results), fair_lines(results), fair_plots(results), about


# ---- five machines, promises in turn ----

WHAT = [f"{experiments.RESERVE_MB} MB/s reserved", f"+ limit {experiments.LIMIT}/s", f"+ p99 < {experiments.LATENCY_MS} ms"]


def together_plots(name, run, at):
    marks = [[when, what] for when, what in zip(at, WHAT)]
    title = name + (", promises in turn" if at else ", nothing promised")

    def latency(which):
        return run.curve(1.0, lambda a, b: run.percentiles_ms(2, a, b)[which])
    return [
        {"kind": "lines", "title": f"{title}: bandwidth", "x": "time, s", "y": "MB/s", "marks": marks,
         "goal": [experiments.RESERVE_MB, "reserved for the file server"],
         "series": [{"name": vm, "points": run.curve(0.5, lambda a, b, n=n: run.mb_per_s(n, a, b))} for n, vm in enumerate(experiments.VMS)]},
        {"kind": "lines", "title": f"{title}: requests of the database", "x": "time, s", "y": "1/s", "marks": marks,
         "goal": [experiments.LIMIT, "limit"],
         "series": [{"name": experiments.VMS[1], "points": run.curve(1.0, lambda a, b: run.requests(1, a, b))}]},
        {"kind": "lines", "title": f"{title}: latency of the mail server", "x": "time, s", "y": "ms", "marks": marks, "log": True,
         "goal": [experiments.LATENCY_MS, "promised to 99 %"],
         "series": [{"name": p, "points": latency(i)} for i, p in enumerate(("median", "99 %", "99.9 %"))]},
    ]


def together(build, cpus, windows):
    print("five machines, promises in turn:", flush=True)
    with at_place(build, cpus, len(experiments.VMS)) as place:
        fifo, _ = experiments.together_run(place, "fifo", windows, promised=False)
        ours, at = experiments.together_run(place, "oios", windows, promised=True)
    figures, lines = [], [f"{'five machines: 1-s windows in which':34} {'oios':>8} {'fifo':>8}"]
    for n, what in enumerate(WHAT, 1):
        held, each = experiments.share_held(ours, at[n - 1] + experiments.SETTLE_S, windows, n)
        held_fifo, each_fifo = experiments.share_held(fifo, experiments.WARM_S, windows, n)
        figures.append(report.figure(f"disk: five machines, {what}: windows", "%", [held], "higher", 99, source=TARGET, others={"fifo": [held_fifo]}))
        lines.append(f"  {what + ': all hold':32} {held:7.0f}% {held_fifo:7.0f}%   each alone: "
                     + ", ".join(f"{a:.0f}% ({b:.0f}%)" for a, b in zip(each, each_fifo)))
    bars = {"kind": "bars", "title": "Windows of a second in which all that is promised holds", "y": "%", "names": WHAT, "y_max": 100,
            "goal": [99, "target 99"], "series": [{"name": "oios", "values": [f["ours"] for f in figures]},
                                                  {"name": "fifo", "values": [f["others"]["fifo"]["median"] for f in figures]}]}
    plots = together_plots("oios", ours, at) + together_plots("fifo", fifo, []) + [bars]
    return figures, lines, plots, f"five machines: {windows} windows a promise; loads without flushes"
