#!/usr/bin/env python3
"""The page of a benchmark (bench/report.py, bench/plot.py): from fixed figures and plots comes well-formed XML without scripts, with as many
curves and bars as there are, inside of their frames, whatever the names are. And what the experiments make of the bins of their clients.
"""
import os
import re
import sys
import xml.etree.ElementTree as ElementTree

sys.path[:0] = [os.path.join(sys.argv[1], "bench"), os.path.join(sys.argv[1], "bench", "store")]
sys.dont_write_bytecode = True
import experiments  # noqa: E402
import plot  # noqa: E402
import report  # noqa: E402

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = 'a<b>&"c\'</svg><script>alert(1)</script>'
LINES = {"kind": "lines", "title": HOSTILE, "x": "time, s", "y": "MB/s", "goal": [40, HOSTILE], "marks": [[1, HOSTILE]],
         "series": [{"name": HOSTILE, "points": [[0.5, 10], [1, 0], [1.5, None], [2, 35.5]]}, {"name": "b", "points": [[0.5, 1e-3], [2, 2]]},
                    {"name": "nothing", "points": []}]}
BARS = {"kind": "bars", "title": "bars", "y": "index", "names": ["x", HOSTILE], "y_max": 1, "goal": [0.99, "target"],
        "series": [{"name": str(n), "values": [0.5, None if n == 2 else 1.0]} for n in range(8)]}


def by_class(root, name):
    return [e for e in root.iter() if e.get("class") == name]


def check_inside(root):
    width, height = map(float, root.get("viewBox").split()[2:])
    for e in by_class(root, "curve"):
        places = [tuple(map(float, p.split(","))) for p in re.findall(r"[-\d.]+,[-\d.]+", e.get("d"))]
        assert all(0 <= x <= width and 0 <= y <= height for x, y in places), places
    for e in by_class(root, "bar"):
        x, y, w, h = (float(e.get(k)) for k in ("x", "y", "width", "height"))
        assert 0 <= x and x + w <= width and 0 <= y and y + h <= height and h >= 0, (x, y, w, h)


def check_plots():
    for log in (False, True):
        root = ElementTree.fromstring(plot.svg({**LINES, "log": log}))
        check_inside(root)
        curves = by_class(root, "curve")
        assert root.tag == SVG + "svg" and len(curves) == 3 and len({c.get("stroke") for c in curves}) == 3
        assert curves[0].get("d").count("M") == 2, "a gap is one in the curve: " + curves[0].get("d")
        texts = [e.text for e in root.iter(SVG + "text")]
        assert {"MB/s", "time, s", HOSTILE, "b"} <= set(texts), texts
    root = ElementTree.fromstring(plot.svg(BARS))
    check_inside(root)
    assert len(by_class(root, "bar")) == 15
    heights = {e.get("height") for e in by_class(root, "bar")}
    assert len(heights) == 2, heights
    flat = ElementTree.fromstring(plot.svg({**LINES, "series": [{"name": "0", "points": [[1, 0], [2, 0]]}], "goal": None, "marks": []}))
    check_inside(flat)
    for colours in (plot.COLOURS, plot.DASHES):
        assert len(set(colours)) == len(colours) == 7


def check_ticks():
    for low, high in ((0, 1), (0, 0.003), (0, 731), (12, 12.5), (0, 1e9), (5, 5)):
        ticks = plot.nice_ticks(low, high)
        assert ticks[0] <= low and ticks[-1] >= high and 2 <= len(ticks) <= 9 or low == high, (low, high, ticks)
    assert plot.decades(0.3, 120) == [0.1, 1, 10, 100, 1000]


def check_page():
    figures = [report.figure(HOSTILE, "MB/s", [3.0, 1.0, 2.0], "higher", 0.98, [2.0, 2.0, 2.0], HOSTILE),
               report.figure("alone", "%", [99.5], "higher", 99, source="target of the project", others={"fifo": [12.0]})]
    assert figures[0]["ratio"] == 1.0 and figures[0]["met"] and figures[1]["met"]
    page = report.page(HOSTILE, figures, HOSTILE, [LINES, BARS])
    root = ElementTree.fromstring(page)
    assert "<script" not in page and not any(e.tag.endswith("script") for e in root.iter())
    assert len(root.findall(f".//figure/{SVG}svg")) == 2 and len(by_class(root, "curve")) == 3
    assert len(list(root.iter(SVG + "circle"))) == 3 + 3 + 1 + 1, "a dot for each run"
    assert "color-scheme:light dark" in page and not re.search(r'(fill|stroke)="(#000|#fff|black|white)"', page)


def bins(first_ms, n, requests, size, ns):
    return {first_ms + 100 * i: {"requests": requests, "bytes": requests * size, "latency": {"buckets": [[ns, requests - 1], [10 * ns, 1]]}}
            for i in range(n)}


def check_windows():
    """Five clients of which one begins late: 50 MB/s, 250 requests/s, and of the third's requests one in 200 takes ten times 0.9 ms."""
    clients = [bins(1000, 31, 50, 100000, 8000000), bins(1000, 31, 25, 16384, 8000000), bins(1000, 31, 200, 4096, 900000)]
    run = experiments.Run(clients + [bins(1300, 28, 10, 4096, 100)] * 2)
    assert run.first_ms == 1300 and abs(run.seconds() - 2.7) < 1e-9
    assert abs(run.mb_per_s(0, 0, 1) - 50) < 1e-9 and run.requests(1, 1, 2) == 250
    assert run.percentiles_ms(2, 0, 1) == [0.9, 0.9, 9.0]
    assert experiments.holds(run, 0, 3) == [True, True, True] and experiments.share_held(run, 0, 2, 3) == (100, [100] * 3)
    for ms in (2000, 2100, 2200):
        del clients[0][ms]  # a window without some of its bins, and more than the limit in another
    clients[1][2600]["requests"] += 100
    assert experiments.share_held(run, 0, 2, 2) == (0, [50, 50])
    assert experiments.jain([1, 1, 1, 1]) == 1 and abs(experiments.jain([2, 1, 1, 1]) - 25 / 28) < 1e-12 and experiments.jain([0, 0]) == 0


check_plots()
check_ticks()
check_page()
check_windows()
