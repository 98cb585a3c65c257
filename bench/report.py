# Figures of a benchmark leg: taken in turns, reduced to medians, judged, and written as JSON, as a table and as a page with plots.
# What `met` says is computed here and nowhere else.
import html
import json
import math
import os
import statistics

import plot as plots

GRID = 'stroke="currentColor" stroke-opacity="0.25"'
AXIS = 'stroke="currentColor"'
OURS, MISSED, TARGET_MARK = "#0f9d6b", "#8a8f99", "#d6453d"  # of middle lightness: on white and on black


def spread(values):
    """How far the values lie apart: (largest - smallest) / median."""
    middle = statistics.median(values)
    return (max(values) - min(values)) / middle if middle else 0.0


def figure(name, unit, ours, better, target, peer=None, peer_name=None, source=None, others=None):
    """
    ours, peer: the runs' values, the n-th of both taken in the same turn. With a peer the target is of the ratio ours / peer (the median
    of the turns' ratios: what a noisy machine does to a whole turn cancels out), else of our own median.
    source: where a figure without a peer on this machine gets its target from. others: {name: values} that stand beside, unjudged.
    """
    assert better in ("higher", "lower") and (peer or source) and (not peer or len(peer) == len(ours))
    middle = statistics.median(ours)
    ratios = [a / b for a, b in zip(ours, peer)] if peer and all(peer) else None
    ratio = statistics.median(ratios) if ratios else None
    judged = middle if ratio is None else ratio
    result = {
        "name": name,
        "unit": unit,
        "ours": middle,
        "peer": statistics.median(peer) if peer else None,
        "peer_name": peer_name,
        "ratio": ratio,
        "target": target,
        "better": better,
        "met": judged >= target if better == "higher" else judged <= target,
        "spread": spread(ratios or ours),
        "runs": {"ours": ours, "peer": peer or []},
        "others": {who: {"median": statistics.median(values), "runs": values} for who, values in (others or {}).items()},
    }
    if source:
        result["source"] = source
    return result


def in_turns(rounds, ours, peer):
    """Calls both in turn, `rounds` times each, the first of a round changing; lists of what they returned."""
    results = ([], [])
    for n in range(rounds):
        for which in ((0, 1), (1, 0))[n % 2]:
            results[which].append((ours, peer)[which]())
    return results


def table(figures):
    lines = [f"{'figure':44} {'unit':>8} {'ours':>11} {'peer':>11} {'ratio':>6} {'target':>7} {'spread':>6}  met"]
    for f in figures:
        peer = f"{f['peer']:11.2f}" if f["peer"] is not None else f"{'':11}"
        ratio = f"{f['ratio']:6.2f}" if f["ratio"] is not None else f"{'':6}"
        sign = ">=" if f["better"] == "higher" else "<="
        lines.append(f"{f['name']:44} {f['unit']:>8} {f['ours']:11.2f} {peer} {ratio} {sign}{f['target']:5.2f} {f['spread']:5.0%}  "
                     f"{'yes' if f['met'] else 'NO'}")
    return "\n".join(lines)


def svg(width, height, parts):
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" font-size="13" '
            f'fill="currentColor">{"".join(parts)}</svg>')


def dots(f):
    """Each run a dot, the medians as lines; ours above, the peer and the others below."""
    rows = [("ours", f["runs"]["ours"], f["ours"])]
    if f["runs"]["peer"]:
        rows.append((f["peer_name"], f["runs"]["peer"], f["peer"]))
    rows += [(who, other["runs"], other["median"]) for who, other in f["others"].items()]
    most = max(max(values) for _, values, _ in rows) * 1.05 or 1.0
    parts = []
    for n, (label, values, middle) in enumerate(rows):
        y = 16 + 24 * n
        colour = OURS if n == 0 else MISSED
        parts.append(f'<text x="0" y="{y + 4}">{html.escape(label[:24])}</text>')
        parts.append(f'<line x1="170" x2="690" y1="{y}" y2="{y}" {GRID}/>')
        parts.extend(f'<circle cx="{170 + 520 * v / most:.1f}" cy="{y}" r="4" fill="{colour}" opacity="0.5"/>' for v in values)
        parts.append(f'<line x1="{170 + 520 * middle / most:.1f}" x2="{170 + 520 * middle / most:.1f}" y1="{y - 9}" y2="{y + 9}" '
                     f'stroke="{colour}" stroke-width="2"/>')
    return svg(700, 24 * len(rows) + 8, parts)


def overview(figures):
    """The ratios as bars on a logarithmic scale, each with its target as a line; the bar is grey where the target is missed."""
    rows = [f for f in figures if f["ratio"]]
    if not rows:
        return ""
    ends = [math.log2(v) for f in rows for v in (f["ratio"], f["target"], 1.0) if v > 0]
    low, high = math.floor(min(ends)), math.ceil(max(ends)) + (min(ends) == max(ends))

    def x(value):
        return 330 + 400 * (math.log2(value) - low) / (high - low)

    bottom = 22 * len(rows) + 4
    parts = [f'<line x1="{x(2 ** p):.1f}" x2="{x(2 ** p):.1f}" y1="0" y2="{bottom}" {GRID if p else AXIS}/>'
             f'<text x="{x(2 ** p):.1f}" y="{bottom + 14}" text-anchor="middle">{2.0 ** p:g}</text>' for p in range(low, high + 1)]
    for n, f in enumerate(rows):
        y = 22 * n + 12
        left, right = sorted((x(1.0), x(f["ratio"])))
        parts.append(f'<text x="0" y="{y + 4}">{html.escape(f["name"])}</text>'
                     f'<text x="320" y="{y + 4}" text-anchor="end">{f["ratio"]:.2f}</text>')
        parts.append(f'<rect x="{left:.1f}" width="{right - left:.1f}" y="{y - 6}" height="12" fill="{OURS if f["met"] else MISSED}"/>')
        if f["target"] > 0:
            mark = x(f["target"])
            parts.append(f'<line x1="{mark:.1f}" x2="{mark:.1f}" y1="{y - 9}" y2="{y + 9}" stroke="{TARGET_MARK}" stroke-width="2"/>')
    return "<p>Ratio ours / peer; the red line is the target, a grey bar misses it.</p>" + svg(750, bottom + 20, parts)


def one_figure(f):
    peer = f", {html.escape(f['peer_name'])} {f['peer']:.2f}" if f["peer"] is not None else ""
    ratio = f", ratio {f['ratio']:.2f}" if f["ratio"] is not None else ""
    target = f"target {'at least' if f['better'] == 'higher' else 'at most'} {f['target']:.2f}: {'met' if f['met'] else 'not met'}"
    return (f"<h2>{html.escape(f['name'])}</h2><p>{f['ours']:.2f} {html.escape(f['unit'])}{peer}{ratio}; {target}</p>" + dots(f))


STYLE = (":root{color-scheme:light dark}body{font:14px sans-serif;margin:2em;max-width:60em;background:Canvas;color:CanvasText}"
         "h2{font-size:15px;margin-bottom:0}p{margin:4px 0}svg{max-width:100%;height:auto}figure{margin:1em 0}")


def page(leg, figures, about, charts=()):
    """Well-formed as XML too, and without scripts."""
    drawn = "".join(f"<figure>{plots.svg(chart)}</figure>" for chart in charts)
    return (f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"/><title>bench {html.escape(leg)}</title><style>{STYLE}</style>'
            f"</head><body><h1>{html.escape(leg)}</h1><p>{html.escape(about)}</p>{overview(figures)}{drawn}"
            f"{''.join(map(one_figure, figures))}</body></html>")


def write(build, leg, figures, about, text=None, charts=()):
    """
    Leaves build/bench/<leg>.json and .html, prints the table, or `text` in its place. charts: plots as of plot.py, which the page shows
    and build/bench/<leg>.series.json keeps.
    """
    folder = os.path.join(build, "bench")
    os.makedirs(folder, exist_ok=True)
    for what, content in [("", figures)] + ([(".series", list(charts))] if charts else []):
        with open(os.path.join(folder, f"{leg}{what}.json"), "w", encoding="utf-8") as f:
            json.dump(content, f, indent=1)
    with open(os.path.join(folder, leg + ".html"), "w", encoding="utf-8") as f:
        f.write(page(leg, figures, about, charts))
    print(about)
    print(text or table(figures))
